//! Whether an address may be another app's by now.
//!
//! Docker gives a dead container's address to the next that comes. So an endpoint whose connections were refused or
//! broke in use gets no more requests, not even when nobody else is left, until a DNS answer asked *after* the break
//! still lists it, and then a probe passes. Docker removes a dead container's records before it frees the address, so such
//! an answer is proof. All in all that takes little more than [`PAUSE`].
//!
//! Deliberately not here: sending the question and the probe (`membership` and `health` schedule them).

use std::time::{Duration, Instant};

/// From the break to the question whose answer counts: a dying container's record is gone by then.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause of an endpoint that keeps breaking before it gets warm: 8 s, or 32 broken requests in four minutes.
const MOST_DOUBLINGS: u32 = 5;

/// An open question about who is behind an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    /// The last break or refusal.
    pub(super) since: Instant,
    /// How long after it the question is asked.
    pub(super) pause: Duration,
    /// When the answer that counts came; the probe must begin after it.
    pub(super) listed: Option<Instant>,
}

impl Suspicion {
    /// After a break, the `strikes`-th before the endpoint got warm.
    pub(super) fn new(strikes: u32, now: Instant) -> Self {
        Suspicion { since: now, pause: PAUSE * (1 << strikes.min(MOST_DOUBLINGS)), listed: None }
    }

    /// It failed again, so whatever was found out is out of date.
    pub(super) fn again(&mut self, now: Instant) {
        self.since = now;
        self.listed = None;
    }

    /// When the question whose answer counts is to be asked. With nobody else left (`alone`) the pause is not stretched:
    /// requests wait.
    pub(super) fn question(&self, alone: bool) -> Option<Instant> {
        let pause = if alone { PAUSE } else { self.pause };
        self.listed.is_none().then(|| self.since + pause)
    }

    /// Whether a probe that began then, and passed, ends it.
    pub(super) fn ended_by(&self, began: Instant) -> bool {
        self.listed.is_some_and(|listed| began >= listed)
    }
}
