//! How long requests have waited for an answer: the difference between a replica that is idle and one that hangs.
//!
//! A request's path stores the time of each answer and nothing else. That nothing was owed an answer is noted by
//! [`watch`] a few times a second, and the rest is computed when an operator asks.

use super::{Endpoint, Upstream};
use crate::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Time between two looks at who is owed an answer. A silence is overstated by this much at most, which is well below
/// [`crate::admin::status::PATIENCE`].
const LOOK: Duration = Duration::from_millis(500);

/// When the last answer came, and when no request was last seen to wait for one.
#[derive(Debug)]
pub(super) struct Silence {
    /// The origin of the other two, which are milliseconds since then.
    origin: Instant,
    answered: AtomicU64,
    owed_nothing: AtomicU64,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Silence { origin: now, answered: AtomicU64::new(0), owed_nothing: AtomicU64::new(0) }
    }

    /// An answer came.
    pub(super) fn end(&self, now: Instant) {
        self.answered.store(self.millis(now), Ordering::Relaxed);
    }

    /// No request waits for an answer.
    fn owe_nothing(&self, now: Instant) {
        self.owed_nothing.store(self.millis(now), Ordering::Relaxed);
    }

    /// Since when requests have waited without an answer.
    fn since(&self) -> Instant {
        let last = self.answered.load(Ordering::Relaxed).max(self.owed_nothing.load(Ordering::Relaxed));
        self.origin + Duration::from_millis(last)
    }

    /// When the last answer came, or when this was made.
    fn answered(&self) -> Instant {
        self.origin + Duration::from_millis(self.answered.load(Ordering::Relaxed))
    }

    fn millis(&self, now: Instant) -> u64 {
        let time = now.saturating_duration_since(self.origin);
        time.as_secs() * 1000 + u64::from(time.subsec_millis())
    }
}

impl Endpoint {
    /// For how long its requests have waited without any of them being answered; `None` while it owes no answer.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        (self.unanswered() > 0).then(|| now.saturating_duration_since(self.silence.since()))
    }
}

impl Upstream {
    /// For how long requests have waited, in the queue or at a replica, without any being answered; `None` while none
    /// waits.
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        let endpoints = self.endpoints.lock();
        if self.queue.is_empty() && endpoints.values().all(|endpoint| endpoint.unanswered() == 0) {
            return None;
        }
        let last = endpoints.values().map(|endpoint| endpoint.silence.answered()).max();
        let since = self.silence.since().max(last.unwrap_or(self.silence.origin));
        Some(now.saturating_duration_since(since))
    }

    /// An endpoint is forgotten; when it last answered is not.
    pub(super) fn remember_answer(&self, endpoint: &Endpoint) {
        self.silence.end(self.silence.answered().max(endpoint.silence.answered()));
    }

    /// Notes who is owed no answer at this moment.
    fn look(&self, now: Instant) {
        let mut owed = !self.queue.is_empty();
        for endpoint in self.endpoints.lock().values() {
            if endpoint.unanswered() == 0 {
                endpoint.silence.owe_nothing(now);
            } else {
                owed = true;
            }
        }
        if !owed {
            self.silence.owe_nothing(now);
        }
    }
}

/// Looks, a few times a second and for as long as `upstream` is configured, at who is owed an answer.
pub async fn watch(upstream: Arc<Upstream>) {
    while !upstream.is_closed() {
        upstream.look(clock::now());
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_begins_with_the_last_answer_or_the_last_time_that_none_was_owed() {
        let start = clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let silence = Silence::new(start);
        assert_eq!(silence.since(), start, "nothing was answered yet");
        silence.end(at(300));
        assert_eq!((silence.since(), silence.answered()), (at(300), at(300)));
        silence.owe_nothing(at(500));
        assert_eq!((silence.since(), silence.answered()), (at(500), at(300)));
        silence.end(at(700));
        assert_eq!(silence.since(), at(700));
    }
}
