//! The one place that reads the clock. Everything that decides takes `now` as an argument.

use std::time::Instant;

/// The present, monotonic. Read through tokio, so that a test under its paused clock pauses this one too.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
