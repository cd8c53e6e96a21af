//! Whether a new replica has failed its probes for long enough that the operator is told.

use super::ProbeResult;
use std::time::{Duration, Instant};

/// A new replica that has failed its probes in the same way for this long is reported: most containers listen within a second
/// of being listed, and what takes longer may be a wrong port or path.
const STUCK_FOR: Duration = Duration::from_secs(1);

/// The probes that a new replica failed in the same way, one after the other.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    last: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    result: ProbeResult,
    since: Instant,
    reported: bool,
}

impl Stuck {
    /// Notes how a probe failed that began at `began`. True if that is to be reported: it has failed so for [`STUCK_FOR`], and
    /// that was not reported yet.
    pub(super) fn is_news(&mut self, result: &ProbeResult, began: Instant, now: Instant) -> bool {
        let last = self.last.take().filter(|last| last.result.is_like(result));
        let first = || Failing { result: result.clone(), since: began, reported: false };
        let failing = self.last.insert(last.unwrap_or_else(first));
        // A ring does not pass by waiting.
        let lasting = result.is_ring() || now.saturating_duration_since(failing.since) >= STUCK_FOR;
        let news = !failing.reported && lasting;
        failing.reported |= news;
        news
    }
}
