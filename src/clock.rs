//! The one place that reads the clock. Everything that decides takes `now` as an argument.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The present, monotonic. Read through tokio, so that a test under its paused clock pauses this one too.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The same clock as all processes of this machine read it: which of two began later. Zero if it cannot be read.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}
