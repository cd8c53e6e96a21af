//! `/overview`: what the page shows, as `evenkeel top` reads it.

use super::headline::{Headline, share};
use super::history::History;
use super::hour::Hour;
use super::status::Status;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The whole of `/overview`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// How things are, in one sentence.
    pub headline: Headline,
    /// What `/status` says.
    pub status: Status,
    /// What the last hour adds to that, in the order of its upstreams.
    pub upstreams: Vec<UpstreamOverview>,
}

/// What the last hour adds to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamOverview {
    /// How it is, in one sentence.
    pub headline: Headline,
    /// The hour itself.
    pub hour: Hour,
    /// Requests a second in the last ten seconds that are over.
    pub rate: Option<f64>,
    /// Half of the requests of those ten seconds took no longer.
    pub p50_seconds: Option<f64>,
    /// Nor 99 in 100 than this.
    pub p99_seconds: Option<f64>,
    /// What it adds to each replica, in the order of the upstream's.
    pub replicas: Vec<ReplicaOverview>,
}

/// What the last hour adds to a replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaOverview {
    /// Its share of the upstream's requests in the last minute, in percent.
    pub share: Option<f64>,
    /// The share that it would have if all had the same.
    pub fair_share: Option<f64>,
    /// Half of its responses' first bytes came no later, in the last ten seconds that are over.
    pub p50_seconds: Option<f64>,
    /// Nor 99 in 100 than this.
    pub p99_seconds: Option<f64>,
}

impl Overview {
    /// Of the present and the last hour.
    pub fn new(status: Status, history: &History) -> Overview {
        let time = |time: Duration| time.as_secs_f64();
        let upstreams = status.upstreams.iter().map(|upstream| {
            let last = history.present().checked_sub(1).and_then(|number| history.slot(&upstream.name, number));
            let replicas = upstream.endpoints.iter().map(|endpoint| {
                let share = share(upstream, endpoint, history);
                let last = history.of_replica(&upstream.name, endpoint.id).next();
                ReplicaOverview {
                    share: share.map(|(share, _)| share),
                    fair_share: share.map(|(_, fair)| fair),
                    p50_seconds: last.and_then(|slot| slot.p50).map(time),
                    p99_seconds: last.and_then(|slot| slot.p99).map(time),
                }
            });
            UpstreamOverview {
                headline: Headline::of_upstream(upstream, history),
                hour: Hour::of(&upstream.name, history),
                rate: last.map(|slot| slot.rate()),
                p50_seconds: last.and_then(|slot| slot.p50).map(time),
                p99_seconds: last.and_then(|slot| slot.p99).map(time),
                replicas: replicas.collect(),
            }
        });
        let upstreams = upstreams.collect();
        Overview { headline: Headline::of(&status, history), upstreams, status }
    }
}
