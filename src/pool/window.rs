//! How many requests a replica may have in flight while nobody knows yet what it bears.
//!
//! A replica that just came up (or back) may be compiling, filling its caches or opening its database connections. It
//! gets one request, and twice as many with each answer: slow start by proof, not by a timer. The same holds when the
//! whole pool is cold, so that requests that waited do not fall upon the first replica all at once.

use std::time::{Duration, Instant};

/// Warm from here on. It takes eight answers to get there, as many as the balancer needs to know a replica's speed
/// ([`super::balancer::KNOWN`]): from then on its own count and weight guard it better than a limit.
const WARM: u32 = 256;

/// A full window grows this often even without an answer. Without it a cold pool whose first request is a long poll
/// would answer nobody else until that ends. A replica that hangs gains by it no more than four or eight requests until
/// two probes declare it down.
pub(super) const STUCK: Duration = Duration::from_millis(500);

/// The limit of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    limit: u32,
    grown: Instant,
}

impl Window {
    /// One request at first.
    pub(super) fn cold(now: Instant) -> Self {
        Window { limit: 1, grown: now }
    }

    /// Requests in flight at most; `None` when warm.
    pub(super) fn limit(&self) -> Option<u32> {
        (self.limit < WARM).then_some(self.limit)
    }

    /// An answer of any status came: a pool that answers 500 to everything must not be throttled to one request at a
    /// time on top. True if the limit changed.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        let cold = self.limit < WARM;
        if cold {
            self.limit *= 2;
            self.grown = now;
        }
        cold
    }

    /// When [`Window::relieve`] is due, if ever.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.limit < WARM).then(|| self.grown + STUCK)
    }

    /// Grows a window that was full for [`STUCK`] without an answer. True if the limit changed.
    pub(super) fn relieve(&mut self, in_flight: u32, now: Instant) -> bool {
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        self.grown = now;
        let full = in_flight >= self.limit;
        if full {
            self.limit *= 2;
        }
        full
    }
}
