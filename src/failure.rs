//! Failed requests: the last few for `/status`, and a log that an outage does not drown.

use crate::clock;
use crate::proxy::Problem;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// Failures that `/status` remembers, for each upstream.
const REMEMBERED: usize = 50;

/// Lines a second for each reason. What is beyond is counted and said once.
const LINES: u32 = 10;

/// A request that no replica answered whole.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it ended.
    pub at: Instant,
    /// What it is called: its client's name for it, or this process's.
    pub id: String,
    /// Why.
    pub problem: Problem,
    /// Who was tried, in order.
    pub endpoints: Vec<SocketAddr>,
    /// From its whole head to its end.
    pub took: Duration,
    /// How long of that it waited for a replica or a connection.
    pub waited: Duration,
    /// From whom it came.
    pub client: SocketAddr,
    /// Its method.
    pub method: String,
    /// Its target as the log may show it: cut to a sane length, and without its query.
    pub target: String,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
    /// Why replicas got no requests then, as the last line about such a failure has it.
    pub unusable: Option<Arc<str>>,
}

/// The failures of one upstream.
#[derive(Debug, Default)]
pub struct Failures {
    recent: Mutex<VecDeque<Failure>>,
    rates: Mutex<HashMap<&'static str, Rate>>,
}

/// How many lines a reason had in the current second.
#[derive(Debug)]
struct Rate {
    since: Instant,
    lines: u32,
    unsaid: u64,
    unusable: Option<Arc<str>>,
}

impl Failures {
    /// Remembers a failure and says so, unless it was said often enough this second. `unusable` tells why replicas get no
    /// requests; it is asked only for a line, and what it says holds for the failures of that second that get none. Returns that.
    pub fn add(&self, upstream: &str, mut failure: Failure, unusable: impl FnOnce() -> String) -> Option<Arc<str>> {
        self.flush(upstream, failure.at);
        let reason = failure.problem.token();
        let say = {
            let mut rates = self.rates.lock();
            let new = || Rate { since: failure.at, lines: 0, unsaid: 0, unusable: None };
            let rate = rates.entry(reason).or_insert_with(new);
            let say = rate.lines < LINES;
            if say {
                rate.lines += 1;
                rate.unusable = Some(unusable()).filter(|why| !why.is_empty()).map(Arc::from);
            } else {
                rate.unsaid += 1;
            }
            failure.unusable.clone_from(&rate.unusable);
            say
        };
        if say {
            warn!(
                upstream,
                reason,
                endpoints = ?failure.endpoints,
                unusable = failure.unusable.as_deref(),
                took = ?failure.took,
                waited = ?failure.waited,
                client = %failure.client,
                method = failure.method,
                target = failure.target,
                traceparent = failure.traceparent,
                id = failure.id,
                "request failed: {}",
                failure.problem.text()
            );
        }
        let mut recent = self.recent.lock();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        let unusable = failure.unusable.clone();
        recent.push_back(failure);
        unusable
    }

    /// Says how many failures went unsaid in a second that is over.
    pub fn flush(&self, upstream: &str, now: Instant) {
        self.rates.lock().retain(|reason, rate| {
            let over = now.saturating_duration_since(rate.since) >= Duration::from_secs(1);
            if over && rate.unsaid > 0 {
                warn!(upstream, reason, count = rate.unsaid, "more requests failed in the same second");
            }
            !over
        });
    }

    /// The last failures, oldest first.
    pub fn recent(&self) -> Vec<Failure> {
        self.recent.lock().iter().cloned().collect()
    }
}

/// Says, each second, what went unsaid in the last; for as long as `upstream` lives.
pub async fn flush_loop(upstream: std::sync::Arc<crate::upstream::Upstream>) {
    while !upstream.is_closed() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        upstream.flush_logs(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(at: Instant) -> Failure {
        Failure {
            at,
            id: String::new(),
            problem: Problem::Refused,
            endpoints: Vec::new(),
            took: Duration::ZERO,
            waited: Duration::ZERO,
            client: "127.0.0.1:1".parse().unwrap(),
            method: "GET".into(),
            target: "/".into(),
            traceparent: None,
            unusable: None,
        }
    }

    #[test]
    fn an_outage_writes_ten_lines_a_second_and_a_count() {
        let failures = Failures::default();
        let now = clock::now();
        for _ in 0..1000 {
            failures.add("u", failure(now), String::new);
        }
        let counts = |failures: &Failures| failures.rates.lock().get("connection_refused").map(|r| (r.lines, r.unsaid));
        assert_eq!(counts(&failures), Some((LINES, 990)));
        assert_eq!(failures.recent().len(), REMEMBERED);
        failures.flush("u", now + Duration::from_millis(999));
        assert_eq!(counts(&failures), Some((LINES, 990)));
        failures.flush("u", now + Duration::from_secs(1));
        assert_eq!(counts(&failures), None);
    }
}
