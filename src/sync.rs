//! Atomics and locks of the code whose interleavings are explored: `tests/interleavings.rs` compiles those files once more,
//! with a scheduler's own in their place.

pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
