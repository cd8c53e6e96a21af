//! What belongs to one worker thread.

use std::cell::{Cell, RefCell};

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
    static RNG: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::new());
}

/// Names this thread, from 0. Threads that never said so share the name 0.
pub fn enter(index: usize) {
    INDEX.set(index);
}

/// This thread's name.
pub fn index() -> usize {
    INDEX.get()
}

/// This thread's source of random numbers.
pub fn with_rng<R>(f: impl FnOnce(&mut fastrand::Rng) -> R) -> R {
    RNG.with_borrow_mut(f)
}
