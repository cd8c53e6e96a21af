//! Connections to one endpoint that wait for their next request.
//!
//! They belong to the endpoint, so that a removed endpoint's connections go with it, and lie apart by worker, so that a
//! connection stays with the runtime that watches its socket. The one used last is taken first: the others age until
//! they are closed, and the set shrinks to what the load needs.
//!
//! What is kept is a type parameter: `tests/interleavings.rs` keeps numbers, which need no sockets.

use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::worker;
use std::time::{Duration, Instant};

/// A request that may not be sent twice takes a kept connection only if it was used this recently: long enough for a
/// busy upstream to profit, far below any server's own idle time-out.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// What can be kept: a connection, of which it is known whether its replica has closed it.
pub trait Keep {
    /// Whether nothing has come since the last response, as far as the runtime knows: no system call.
    fn is_quiet(&self) -> bool;

    /// Whether nothing has come since the last response, asked of the kernel.
    fn is_certainly_quiet(&self) -> bool;
}

/// The kept connections of an endpoint.
#[derive(Debug)]
pub struct Kept<C> {
    by_worker: Box<[Mutex<Vec<Idle<C>>>]>,
    generation: AtomicU32,
}

/// A connection between two requests.
#[derive(Debug)]
pub(super) struct Idle<C> {
    pub(super) connection: C,
    pub(super) since: Instant,
}

impl<C: Keep> Kept<C> {
    /// None yet.
    pub fn new(workers: usize) -> Self {
        Kept { by_worker: (0..workers).map(|_| Mutex::new(Vec::new())).collect(), generation: AtomicU32::new(0) }
    }

    /// Counts up whenever the endpoint falls from grace.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Closes all at once, and those in use when they come back.
    pub fn retire(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for slot in &self.by_worker {
            drop(std::mem::take(&mut *slot.lock()));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_worker.iter().map(|slot| slot.lock().len()).sum()
    }

    /// Closes those of this worker that were unused for `idle_timeout`, and those that their replica has closed.
    pub fn sweep(&self, idle_timeout: Duration, now: Instant) {
        self.slot().lock().retain(|idle| !idle.is_older(idle_timeout, now) && idle.connection.is_quiet());
    }

    /// The connection used last, if it is still good. `once`: the request may not be sent twice.
    pub(super) fn take(&self, once: bool, idle_timeout: Duration, now: Instant) -> Option<C> {
        let mut slot = self.slot().lock();
        while let Some(idle) = slot.pop() {
            if idle.is_older(idle_timeout, now) {
                // Those below are older still.
                slot.clear();
                return None;
            }
            if once && idle.is_older(FRESH, now) {
                slot.push(idle);
                return None;
            }
            // What the runtime has not yet heard of, the kernel may know: a request that may not be sent twice asks it.
            let quiet = if once { idle.connection.is_certainly_quiet() } else { idle.connection.is_quiet() };
            if quiet {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection whose request and response are whole, unless the endpoint fell from grace since it was taken
    /// (`generation`) or there are `max_idle` already.
    pub(super) fn put(&self, idle: Idle<C>, generation: u32, max_idle: usize) {
        let mut slot = self.slot().lock();
        let share = max_idle.div_ceil(self.by_worker.len());
        if self.generation() == generation && slot.len() < share {
            slot.push(idle);
        }
    }

    fn slot(&self) -> &Mutex<Vec<Idle<C>>> {
        &self.by_worker[worker::index().min(self.by_worker.len() - 1)]
    }
}

impl<C> Idle<C> {
    fn is_older(&self, age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= age
    }
}
