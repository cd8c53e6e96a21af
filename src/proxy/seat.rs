//! The places for client connections: how many there are, and who has rested longest.

use std::sync::atomic::{AtomicU64, Ordering};

/// One client connection, as seen from outside its task.
#[derive(Debug, Default)]
pub struct Seat {
    /// Since when it waits for a request, in milliseconds of [`super::Proxy::millis`] plus one; 0 while it works.
    resting_since: AtomicU64,
}

impl Seat {
    pub(super) fn rest(&self, millis: u64) {
        self.resting_since.store(millis + 1, Ordering::Relaxed);
    }

    pub(super) fn work(&self) {
        self.resting_since.store(0, Ordering::Relaxed);
    }

    /// Since when it rests, if it does.
    pub fn resting_since(&self) -> Option<u64> {
        self.resting_since.load(Ordering::Relaxed).checked_sub(1)
    }
}
