//! The last hour of an upstream in as many columns as a chart has, or what is known of it.

use super::history::{History, SLOT, SLOTS, Slot};
use super::wording::{age, grouped};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Columns of an hour. Each is half a minute, or ten seconds while the history is a third of an hour or less.
pub const COLUMNS: usize = SLOTS / 3;

/// A chart's columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hour {
    /// What one column covers, in seconds.
    pub column_seconds: f64,
    /// The oldest first; `None`: nothing is known of that time.
    pub columns: Vec<Option<Column>>,
}

/// What one column shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Column {
    /// The number of its last slot.
    pub number: u64,
    /// Requests that ended.
    pub requests: u32,
    /// The same for each second.
    pub rate: f64,
    /// Of those, the ones that failed.
    pub failed: u32,
    /// Responses that said 5xx.
    pub server_errors: u32,
    /// Attempts after the first.
    pub retries: u32,
    /// The most requests that waited for a replica at once.
    pub waiting: u32,
    /// Half of the requests of its busiest ten seconds took no longer.
    pub p50_seconds: Option<f64>,
    /// Nor 99 in 100 of its worst ten seconds than this.
    pub p99_seconds: Option<f64>,
}

impl Hour {
    /// Of one upstream.
    pub fn of(upstream: &str, history: &History) -> Hour {
        let is_young = history.present() <= COLUMNS as u64;
        let slots = history.last(upstream, if is_young { COLUMNS } else { SLOTS });
        let each = slots.len() / COLUMNS;
        let column_seconds = SLOT.as_secs_f64() * each as f64;
        Hour { column_seconds, columns: slots.chunks(each).map(column).collect() }
    }

    /// What all columns cover, in seconds.
    pub fn span(&self) -> f64 {
        self.column_seconds * self.columns.len() as f64
    }

    /// The number of slots in a column.
    pub fn slots(&self) -> u64 {
        (self.column_seconds / SLOT.as_secs_f64()) as u64
    }

    /// What is known of it.
    pub fn known(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().flatten()
    }

    /// The greatest of these, and at least `least`: where a chart's scale ends.
    pub fn most(&self, of: impl Fn(&Column) -> Option<f64>, least: f64) -> f64 {
        self.known().filter_map(of).fold(least, f64::max)
    }
}

/// The hour in words.
pub fn summary(name: &str, hour: &Hour) -> String {
    let Some(first) = hour.columns.iter().position(Option::is_some) else {
        return format!("{name}: the first ten seconds are not over yet.");
    };
    let span = hour.column_seconds * (hour.columns.len() - first) as f64;
    let sum = |of: fn(&Column) -> u32| grouped(hour.known().map(|column| u64::from(of(column))).sum());
    format!(
        "{name}, the last {}: {} requests, {} failed, {} answered with 5xx, {} asked again of another replica.",
        age(span),
        sum(|column| column.requests),
        sum(|column| column.failed),
        sum(|column| column.server_errors),
        sum(|column| column.retries)
    )
}

fn column(slots: &[(u64, Option<Slot>)]) -> Option<Column> {
    let known: Vec<&Slot> = slots.iter().filter_map(|(_, slot)| slot.as_ref()).collect();
    let busiest = known.iter().max_by_key(|slot| slot.requests)?;
    let seconds: f32 = known.iter().map(|slot| slot.seconds).sum();
    let requests: u32 = known.iter().map(|slot| slot.requests).sum();
    let time = |time: Duration| time.as_secs_f64();
    Some(Column {
        number: slots.last()?.0,
        requests,
        rate: f64::from(requests) / f64::from(seconds.max(1.0)),
        failed: known.iter().map(|slot| slot.failed).sum(),
        server_errors: known.iter().map(|slot| slot.server_errors).sum(),
        retries: known.iter().map(|slot| slot.retries).sum(),
        waiting: known.iter().map(|slot| slot.in_flight).max().unwrap_or(0),
        // Percentiles do not add up: the middle is that of the busiest ten seconds, the tail that of the worst.
        p50_seconds: busiest.p50.map(time),
        p99_seconds: known.iter().filter_map(|slot| slot.p99).max().map(time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::history::Times;
    use crate::admin::status::{Status, UpstreamStatus};
    use crate::clock;
    use std::collections::BTreeMap;

    /// A history in which slot number n saw n requests, a tenth of which failed, and n waited at most.
    fn history(slots: u64) -> History {
        let began = clock::now();
        let mut history = History::new(began);
        let mut requests = 0;
        for n in 0..slots {
            requests += n;
            let upstream =
                UpstreamStatus { name: "app".into(), requests, failed: requests / 10, ..UpstreamStatus::default() };
            let status = Status { upstreams: vec![upstream], ..Status::default() };
            let times = Times { most_waiting: n as usize, ..Times::default() };
            let now = began + SLOT * u32::try_from(n + 1).unwrap();
            history.add(&status, &BTreeMap::from([("app".to_owned(), times)]), now);
        }
        history
    }

    #[test]
    fn a_young_history_has_a_column_for_each_slot_and_an_old_one_for_three() {
        let young = Hour::of("app", &history(50));
        assert_eq!((young.columns.len(), young.known().count(), young.column_seconds), (COLUMNS, 50, 10.0));
        let last = young.columns.last().unwrap().as_ref().unwrap();
        assert_eq!((last.number, last.rate, last.waiting), (49, 4.9, 49));
        let old = Hour::of("app", &history(1000));
        assert_eq!((old.columns.len(), old.known().count(), old.column_seconds), (COLUMNS, COLUMNS, 30.0));
        let last = old.columns.last().unwrap().as_ref().unwrap();
        assert_eq!((last.number, last.waiting), (999, 999));
        assert!((last.rate - 99.8).abs() < 0.01, "{}", last.rate);
        assert_eq!(old.most(|column| Some(column.rate), 1.0), last.rate);
        assert_eq!(Hour::of("other", &history(5)).known().count(), 0);
    }
}
