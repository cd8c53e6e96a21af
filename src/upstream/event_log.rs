//! What happened to an upstream: the last events for `/status`, and lines in the log that no churn drowns.

use super::remedy::remedy;
use crate::config;
use crate::pool::{Event, EventKind};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

/// Events that `/status` and the page remember: the last hour's, unless it saw twenty deploys.
const TIMELINE: usize = 300;

/// Lines in a row that a kind of event may have: a deploy of a hundred replicas is logged whole.
const BURST: u32 = 100;

/// After a burst, a kind of event may have one more line in this time. What is beyond is counted.
const REFILL: Duration = Duration::from_secs(1);

/// Between two lines that say how many events had no line.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The events of one upstream.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    timeline: Mutex<VecDeque<(Instant, Event)>>,
    budgets: Mutex<Vec<Budget>>,
}

/// The lines of one kind of event, as a bucket of tokens.
#[derive(Debug)]
struct Budget {
    kind: &'static str,
    /// When the bucket is full again.
    full_at: Instant,
    unsaid: u64,
    /// Since when events have had no line.
    since: Instant,
}

impl EventLog {
    /// Remembers an event and logs it, unless its kind had too many lines of late.
    pub(super) fn add(&self, config: &config::Upstream, event: Event, now: Instant) {
        // What nobody reads by default needs no count.
        if event.kind == EventKind::Left || self.has_line(event.kind.name(), now) {
            log(config, &event);
        }
        let mut timeline = self.timeline.lock();
        if timeline.len() == TIMELINE {
            timeline.pop_front();
        }
        timeline.push_back((now, event));
    }

    /// What happened last, oldest first.
    pub(super) fn timeline(&self) -> Vec<(Instant, Event)> {
        self.timeline.lock().iter().cloned().collect()
    }

    /// Logs how many events have had no line for a while.
    pub(super) fn flush(&self, upstream: &str, now: Instant) {
        for budget in self.budgets.lock().iter_mut() {
            if budget.unsaid > 0 && now.saturating_duration_since(budget.since) >= COUNT_EVERY {
                let count = std::mem::take(&mut budget.unsaid);
                warn!(upstream, event = budget.kind, count, "too many events of this kind to log each");
            }
        }
    }

    fn has_line(&self, kind: &'static str, now: Instant) -> bool {
        let mut budgets = self.budgets.lock();
        let index = budgets.iter().position(|budget| budget.kind == kind).unwrap_or_else(|| {
            budgets.push(Budget { kind, full_at: now, unsaid: 0, since: now });
            budgets.len() - 1
        });
        let budget = &mut budgets[index];
        let full_at = budget.full_at.max(now) + REFILL;
        if full_at <= now + BURST * REFILL {
            budget.full_at = full_at;
            return true;
        }
        if budget.unsaid == 0 {
            budget.since = now;
        }
        budget.unsaid += 1;
        false
    }
}

fn log(config: &config::Upstream, event: &Event) {
    let upstream = &*config.name;
    let endpoint = event.address.map(tracing::field::display);
    match &event.kind {
        kind @ EventKind::Rejected(_) => error!(upstream, endpoint, "{kind}"),
        kind @ EventKind::NameFailing(_) => warn!(upstream, "{kind}"),
        EventKind::NameResolved(count) => info!(upstream, endpoints = count, "name resolves"),
        EventKind::Left => debug!(upstream, endpoint, "left"),
        EventKind::Unproven(result) if result.is_ring() => {
            error!(upstream, endpoint, "not usable: its probe fails: {result}; {}", remedy(result, config));
        }
        EventKind::Unproven(result) => {
            warn!(upstream, endpoint, "not usable: its probe fails: {result}; {}", remedy(result, config));
        }
        kind @ (EventKind::Down(_) | EventKind::Drained(_) | EventKind::Paused(_)) => {
            warn!(upstream, endpoint, "{kind}")
        }
        EventKind::Ejected(time) => warn!(upstream, endpoint, ?time, "ejected: fails where the others answer"),
        kind => info!(upstream, endpoint, "{kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    // A16
    #[test]
    fn a_kind_of_event_has_a_hundred_lines_in_a_row_then_one_a_second_and_a_count() {
        let log = EventLog::default();
        let now = clock::now();
        let lines = |at: Instant| (0..1000).filter(|_| log.has_line("joined", at)).count();
        assert_eq!(lines(now), 100);
        assert_eq!(lines(now + REFILL), 1);
        assert!(log.has_line("draining", now), "another kind has lines of its own");
        let unsaid = || log.budgets.lock().iter().map(|budget| budget.unsaid).sum::<u64>();
        assert_eq!(unsaid(), 900 + 999);
        log.flush("app", now + COUNT_EVERY / 2);
        assert_eq!(unsaid(), 900 + 999, "not yet");
        log.flush("app", now + COUNT_EVERY);
        assert_eq!(unsaid(), 0, "it was said");
        assert_eq!(lines(now + 200 * REFILL), 100, "after a quiet time it is as at first");
    }
}
