//! What `/status` says, as `evenkeel status` reads it: the running process, its upstreams, their replicas, and why.
//!
//! Times are relative ("so many seconds ago"), so that neither end's clock matters.

use crate::admin::metrics::Answer;
use crate::pool::{EndpointView, Event, EventKind, Health, Membership, Resolution};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The whole of `/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Why it is not ready; `None` when it is.
    pub not_ready: Option<String>,
    /// Whether it is about to end.
    pub draining: bool,
    /// Where clients connect.
    pub listen: String,
    /// Threads that serve.
    pub workers: usize,
    /// Client connections now.
    pub connections: usize,
    /// Client connections at most.
    pub max_connections: usize,
    /// Requests now, waiting ones included.
    pub requests: usize,
    /// Where the configuration comes from: a file's path, or the environment.
    pub config: String,
    /// How the last reload ended, if there was one.
    pub last_reload: Option<Reload>,
    /// In the configuration's order.
    pub upstreams: Vec<UpstreamStatus>,
}

/// A reload of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// How long ago.
    pub seconds_ago: f64,
    /// Why it was refused; `None` if it was taken over.
    pub error: Option<String>,
}

/// One upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its host and port there.
    pub address: String,
    /// What a client meets when no replica can be reached: `close` or `respond`.
    pub on_failure: String,
    /// Requests that wait for a replica.
    pub waiting: usize,
    /// How long nobody could be picked by now; `None` while somebody can.
    pub outage_seconds: Option<f64>,
    /// What DNS said last; `None` before its first answer.
    pub dns: Option<DnsStatus>,
    /// Its replicas.
    pub endpoints: Vec<EndpointStatus>,
    /// What happened last, oldest first.
    pub timeline: Vec<Occurrence>,
    /// The last failed requests, oldest first.
    pub failures: Vec<FailedRequest>,
}

/// An answer of DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// How long ago it came.
    pub seconds_ago: f64,
    /// How long it took.
    pub took_seconds: f64,
    /// Addresses it listed; `None` if it said nothing about them.
    pub addresses: Option<usize>,
    /// Why it said nothing about them.
    pub error: Option<String>,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its number in this process; an address that left and came back gets a new one.
    pub id: u64,
    /// Address and port.
    pub address: String,
    /// `active`, or `draining`: no longer listed.
    pub membership: String,
    /// `unproven`, `up` or `down`.
    pub health: String,
    /// How long it has been as it is.
    pub since_seconds: f64,
    /// Why it is as it is.
    pub reason: String,
    /// Refused or broke in use, and neither listed anew nor probed since.
    pub suspect: bool,
    /// Ejected for so long to come.
    pub ejected_for_seconds: Option<f64>,
    /// Why it is not picked, in a word or two; empty if it may be.
    pub held_back: String,
    /// Requests it has.
    pub in_flight: u32,
    /// Upgraded connections and other long streams: they do not count for the pick.
    pub streams: u32,
    /// Requests it may have while cold.
    pub window: Option<u32>,
    /// 1, or how many times slower it is than the best, where that is certain.
    pub weight: f64,
    /// (in flight + 1) · weight: the next request goes to the lowest. `None` if it is not to be picked.
    pub score: Option<f64>,
    /// Whether the next request may go to it, as one of the lowest scores.
    pub next: bool,
    /// Geometric mean of the time to its responses' first byte.
    pub first_byte_seconds: Option<f64>,
    /// Connections to it that wait for a request.
    pub idle_connections: usize,
    /// Requests it was sent since it joined.
    pub requests: u64,
    /// Those that it did not answer.
    pub failures: u64,
}

/// A change of state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// How long ago.
    pub seconds_ago: f64,
    /// Whom it concerns; `None`: the upstream as a whole.
    pub address: Option<String>,
    /// What happened, and why.
    pub what: String,
}

/// A request that no replica answered whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailedRequest {
    /// How long ago it ended.
    pub seconds_ago: f64,
    /// The error type of RFC 9209, section 2.3.
    pub reason: String,
    /// The reason in words.
    pub text: String,
    /// Who was tried, in order.
    pub endpoints: Vec<String>,
    /// How long it waited for somebody to try.
    pub waited_seconds: f64,
    /// From whom it came.
    pub client: String,
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

/// What the pool does not know of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests it has.
    pub in_flight: u32,
    /// Long streams it has.
    pub streams: u32,
    /// Connections to it that wait for a request.
    pub idle_connections: usize,
    /// Requests it was sent.
    pub requests: u64,
    /// Those that it did not answer.
    pub failures: u64,
}

impl EndpointStatus {
    /// Of what the pool says, and what is live.
    pub fn new(view: &EndpointView, live: Live, now: Instant) -> Self {
        let Live { in_flight, streams, idle_connections, requests, failures } = live;
        EndpointStatus {
            id: view.id.0,
            address: view.address.to_string(),
            membership: match view.membership {
                Membership::Active => "active",
                Membership::Draining => "draining",
            }
            .to_owned(),
            health: match view.health {
                Health::Unproven => "unproven",
                Health::Up => "up",
                Health::Down => "down",
            }
            .to_owned(),
            since_seconds: ago(view.since, now),
            reason: view.reason.clone(),
            suspect: view.suspect,
            ejected_for_seconds: view.ejected_until.map(|end| ago(now, end)),
            held_back: view.held_back.to_owned(),
            in_flight,
            streams,
            window: view.window,
            weight: view.weight,
            score: view.held_back.is_empty().then(|| (f64::from(in_flight) + 1.0) * view.weight),
            next: false,
            first_byte_seconds: view.mean.map(|mean| mean.as_secs_f64()),
            idle_connections,
            requests,
            failures,
        }
    }

    /// A cold one that has as many requests as it may.
    fn is_full(&self) -> bool {
        self.window.is_some_and(|window| self.in_flight >= window)
    }

    /// Marks those to whom the next request may go.
    pub fn mark_next(endpoints: &mut [EndpointStatus]) {
        let open = |e: &EndpointStatus| e.score.filter(|_| !e.is_full());
        let lowest = endpoints.iter().filter_map(open).fold(f64::INFINITY, f64::min);
        for endpoint in endpoints {
            endpoint.next = open(endpoint) == Some(lowest);
        }
    }
}

impl DnsStatus {
    /// Of an answer.
    pub fn new(answer: &Answer, now: Instant) -> Self {
        let (addresses, error) = match &answer.resolution {
            Resolution::Addresses(addresses) => (Some(addresses.len()), None),
            Resolution::Absent => (Some(0), None),
            Resolution::Failed(why) => (None, Some(why.clone())),
        };
        DnsStatus { seconds_ago: ago(answer.at, now), took_seconds: answer.took.as_secs_f64(), addresses, error }
    }
}

impl Occurrence {
    /// Of an event that happened at `at`.
    pub fn new(at: Instant, event: &Event, now: Instant) -> Self {
        let what = match &event.kind {
            EventKind::Joined => "joined".to_owned(),
            EventKind::Draining => "draining: DNS no longer lists it".to_owned(),
            EventKind::Returned => "returned: DNS lists it again".to_owned(),
            EventKind::Left => "left".to_owned(),
            EventKind::Up(why) => with_reason("up", why),
            EventKind::Down(why) => with_reason("down", why),
            EventKind::Suspect(why) => with_reason("suspect", why),
            EventKind::Cleared => "cleared of suspicion".to_owned(),
            EventKind::Ejected(time) => format!("ejected for {time:?}: it fails where the others answer"),
            EventKind::Readmitted => "readmitted".to_owned(),
            EventKind::Rejected(why) => with_reason("address dropped", why),
            EventKind::NameFailing(why) => with_reason("name does not resolve", why),
            EventKind::NameResolved(count) => format!("name resolves to {count}"),
        };
        Occurrence { seconds_ago: ago(at, now), address: event.address.map(|a| a.to_string()), what }
    }
}

/// Seconds from `then` to `now`, to the millisecond: enough for anybody, and JSON stays readable.
pub fn ago(then: Instant, now: Instant) -> f64 {
    seconds(now.saturating_duration_since(then))
}

/// Seconds, to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn with_reason(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::pool::EndpointId;

    fn view(held_back: &'static str) -> EndpointView {
        EndpointView {
            id: EndpointId(3),
            address: "172.18.0.3:8080".parse().unwrap(),
            membership: Membership::Active,
            health: Health::Up,
            since: clock::now(),
            reason: "probe passed".to_owned(),
            suspect: false,
            ejected_until: None,
            weight: 2.5,
            window: None,
            mean: Some(Duration::from_micros(4100)),
            held_back,
        }
    }

    fn with(in_flight: u32) -> Live {
        Live { in_flight, ..Live::default() }
    }

    #[test]
    fn the_score_is_what_the_pick_compares_and_is_missing_where_nothing_is_picked() {
        let now = clock::now();
        assert_eq!(EndpointStatus::new(&view(""), with(3), now).score, Some(10.0));
        assert_eq!(EndpointStatus::new(&view("suspect"), with(3), now).score, None);
    }

    #[test]
    fn the_next_request_goes_to_the_lowest_score_that_has_room() {
        let now = clock::now();
        let cold = EndpointView { window: Some(1), weight: 1.0, ..view("") };
        let mut all = [
            EndpointStatus::new(&view(""), with(1), now),
            EndpointStatus::new(&view(""), with(1), now),
            EndpointStatus::new(&view(""), with(2), now),
            EndpointStatus::new(&cold, with(1), now),
            EndpointStatus::new(&view("down"), with(0), now),
        ];
        EndpointStatus::mark_next(&mut all);
        assert_eq!(all.map(|e| e.next), [true, true, false, false, false]);
    }

    #[test]
    fn nobody_is_next_in_an_outage() {
        let mut all = [EndpointStatus::new(&view("down"), with(0), clock::now())];
        EndpointStatus::mark_next(&mut all);
        assert!(!all[0].next);
    }

    #[test]
    fn a_status_survives_json() {
        let now = clock::now();
        let upstream = UpstreamStatus {
            name: "db-checker".to_owned(),
            endpoints: vec![EndpointStatus::new(&view(""), with(3), now)],
            outage_seconds: Some(1.5),
            ..UpstreamStatus::default()
        };
        let status = Status { version: "1".to_owned(), upstreams: vec![upstream], ..Status::default() };
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
