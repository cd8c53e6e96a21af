//! Connections to one endpoint that wait for their next request.
//!
//! They belong to the endpoint, so that a removed endpoint's connections go with it, and lie apart by worker, so that a
//! connection stays with the runtime that watches its socket. The one used last is taken first: the others age until
//! they are closed, and the set shrinks to what the load needs.
//!
//! What is kept is a type parameter: `tests/interleavings.rs` keeps numbers, which need no sockets.

use crate::sync::{AtomicU32, AtomicUsize, Mutex, Ordering};
use crate::worker;
use std::time::{Duration, Instant};

/// A request that may not be sent twice takes no kept connection that has rested for longer: a busy upstream has younger
/// ones.
const FRESH: Duration = Duration::from_secs(1);

/// A server of which no connection was seen to rest for so long may be one that closes each right after its answer.
const EVIDENCE: Duration = Duration::from_millis(100);

/// A connection that was closed early is remembered for so long: servers close some for reasons of their own, such as
/// after a number of requests.
const MEMORY: Duration = Duration::from_secs(60);

/// What can be kept: a connection, of which it is known what its replica does with it meanwhile.
pub trait Keep {
    /// What has come since the last response, as far as the runtime knows: no system call while that is nothing.
    fn rest(&self) -> Rest;

    /// What has come since the last response, asked of the kernel.
    fn certain_rest(&self) -> Rest;
}

/// What a replica does with a connection that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing, as it should.
    Quiet,
    /// It has closed it.
    Closed,
    /// It has sent something, which belongs to no request.
    Spoken,
}

/// What [`Kept::sweep`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Connections that their replica had closed, since the last time.
    pub closed: usize,
    /// The replica was found to send what belongs to no request: for the first time since the endpoint was last retired.
    pub spoke: bool,
}

/// The kept connections of an endpoint.
#[derive(Debug)]
pub struct Kept<C> {
    by_worker: Box<[Mutex<Slot<C>>]>,
    generation: AtomicU32,
    /// How many there are, over all workers.
    count: AtomicUsize,
    /// The replica has sent something on a connection that rested. A little later it would have been taken for the answer
    /// to somebody else's request, so that no connection of it is kept any more.
    speaks: AtomicU32,
}

/// Those of one worker.
#[derive(Debug)]
struct Slot<C> {
    /// Those that rest longest come first.
    idle: Vec<Idle<C>>,
    lifetime: Lifetime,
    /// What was found since the last [`Kept::sweep`].
    found: Swept,
}

/// How long the replica leaves a connection open that rests, as far as it was seen.
///
/// A server closes them after a time that it does not tell, and a request that is written just then is lost. One that was
/// seen to be open after some time shows that the limit is longer; half of that is far enough from it.
#[derive(Clone, Copy, Debug, Default)]
struct Lifetime {
    /// The longest rest after which one was still open.
    open: Duration,
    /// The shortest after which one was found closed, and when that was.
    closed: Option<(Duration, Instant)>,
}

impl Lifetime {
    fn saw_open(&mut self, age: Duration) {
        self.open = self.open.max(age);
    }

    fn saw_closed(&mut self, age: Duration, now: Instant) {
        let before = self.closed.filter(|(_, at)| now.saturating_duration_since(*at) < MEMORY);
        if before.is_none_or(|(least, _)| age <= least) {
            self.closed = Some((age, now));
        }
    }

    /// Connections that rested for less are safe for a request that may not be sent twice.
    fn safe(&self, now: Instant) -> Duration {
        if self.open < EVIDENCE {
            return Duration::ZERO;
        }
        let closed = self.closed.filter(|(_, at)| now.saturating_duration_since(*at) < MEMORY);
        closed.map_or(self.open, |(age, _)| age.min(self.open)).min(2 * FRESH) / 2
    }
}

/// A connection between two requests.
#[derive(Debug)]
pub(super) struct Idle<C> {
    pub(super) connection: C,
    pub(super) since: Instant,
    /// That of the lease under which it was used.
    pub(super) generation: u32,
}

impl<C: Keep> Kept<C> {
    /// None yet.
    pub fn new(workers: usize) -> Self {
        let slot = || Mutex::new(Slot { idle: Vec::new(), lifetime: Lifetime::default(), found: Swept::default() });
        let by_worker = (0..workers).map(|_| slot()).collect();
        Kept { by_worker, generation: AtomicU32::new(0), count: AtomicUsize::new(0), speaks: AtomicU32::new(0) }
    }

    /// Counts up whenever the endpoint falls from grace.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Closes all at once, and those in use when they come back. Another process may have the address by now, so that
    /// nothing is known of it.
    pub fn retire(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.speaks.store(0, Ordering::Relaxed);
        for slot in &self.by_worker {
            let mut slot = slot.lock();
            slot.lifetime = Lifetime::default();
            let idle = std::mem::take(&mut slot.idle);
            self.count.fetch_sub(idle.len(), Ordering::Relaxed);
            drop(slot);
            drop(idle);
        }
    }

    /// Closes the one that has rested longest at a worker that has any. Says whether there was one.
    pub fn close_oldest(&self) -> bool {
        self.by_worker.iter().any(|slot| {
            let mut slot = slot.lock();
            let oldest = (!slot.idle.is_empty()).then(|| slot.idle.remove(0));
            self.count.fetch_sub(usize::from(oldest.is_some()), Ordering::Relaxed);
            oldest.is_some()
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Closes those of this worker that were unused for `idle_timeout`, and those that are not quiet.
    pub fn sweep(&self, idle_timeout: Duration, now: Instant) -> Swept {
        let mut slot = self.slot().lock();
        let Slot { idle: kept, lifetime, found } = &mut *slot;
        let before = kept.len();
        kept.retain(|idle| {
            let (age, rest) = (idle.age(now), idle.connection.rest());
            self.learn(rest, age, lifetime, found, now);
            rest == Rest::Quiet && age < idle_timeout
        });
        self.count.fetch_sub(before - kept.len(), Ordering::Relaxed);
        std::mem::take(found)
    }

    fn learn(&self, rest: Rest, age: Duration, lifetime: &mut Lifetime, found: &mut Swept, now: Instant) {
        match rest {
            Rest::Quiet => lifetime.saw_open(age),
            Rest::Closed => {
                lifetime.saw_closed(age, now);
                found.closed += 1;
            }
            Rest::Spoken => found.spoke |= self.speaks.swap(1, Ordering::Relaxed) == 0,
        }
    }

    /// The connection used last, if it is still good, for a lease of this generation. `once`: the request may not be sent
    /// twice.
    pub(super) fn take(&self, once: bool, generation: u32, idle_timeout: Duration, now: Instant) -> Option<Idle<C>> {
        let mut slot = self.slot().lock();
        let Slot { idle: kept, lifetime, found } = &mut *slot;
        while let Some(idle) = kept.last() {
            let age = idle.age(now);
            if idle.generation != generation {
                // `retire` is about to close it, or the lease is the older one.
                return None;
            }
            if age >= idle_timeout {
                // Those below are older still.
                self.count.fetch_sub(kept.len(), Ordering::Relaxed);
                kept.clear();
                return None;
            }
            if once && age >= lifetime.safe(now) {
                // The oldest may show that the younger are safe: those who come next have them.
                if let Some(oldest) = kept.first().filter(|idle| idle.connection.rest() == Rest::Quiet) {
                    lifetime.saw_open(oldest.age(now));
                }
                return None;
            }
            // What the runtime has not yet heard of, the kernel may know: a request that may not be sent twice asks it.
            let rest = if once { idle.connection.certain_rest() } else { idle.connection.rest() };
            let idle = kept.pop().expect("it is the last");
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.learn(rest, age, lifetime, found, now);
            if rest == Rest::Quiet {
                return Some(idle);
            }
        }
        None
    }

    /// Keeps a connection whose request and response are whole, unless the endpoint fell from grace since it was taken,
    /// its replica speaks unasked or there are `max_idle` already.
    pub(super) fn put(&self, idle: Idle<C>, max_idle: usize) {
        let mut slot = self.slot().lock();
        if self.generation() != idle.generation || self.speaks.load(Ordering::Relaxed) > 0 {
            return;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < max_idle {
            slot.idle.push(idle);
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection that had rested for `age` was no longer what it seemed when it was taken.
    pub(super) fn was(&self, rest: Rest, age: Duration, now: Instant) {
        let mut slot = self.slot().lock();
        let Slot { lifetime, found, .. } = &mut *slot;
        self.learn(rest, age, lifetime, found, now);
    }

    fn slot(&self) -> &Mutex<Slot<C>> {
        &self.by_worker[worker::index().min(self.by_worker.len() - 1)]
    }
}

impl<C> Idle<C> {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    // H10
    #[test]
    #[allow(clippy::disallowed_methods)] // any moment will do
    fn what_may_not_be_sent_twice_keeps_far_from_the_age_at_which_connections_are_closed() {
        let now = Instant::now();
        let mut lifetime = Lifetime::default();
        assert_eq!(lifetime.safe(now), Duration::ZERO, "nothing is known");
        lifetime.saw_open(99 * MS);
        assert_eq!(lifetime.safe(now), Duration::ZERO, "it may close each after its answer");
        lifetime.saw_open(800 * MS);
        lifetime.saw_open(300 * MS);
        assert_eq!(lifetime.safe(now), 400 * MS);
        lifetime.saw_closed(1000 * MS, now);
        assert_eq!(lifetime.safe(now), 400 * MS, "as its limit is");
        lifetime.saw_closed(100 * MS, now);
        assert_eq!(lifetime.safe(now), 50 * MS, "it closes some earlier");
        lifetime.saw_closed(900 * MS, now);
        assert_eq!(lifetime.safe(now), 50 * MS);
        assert_eq!(lifetime.safe(now + MEMORY), 400 * MS, "forgotten");
        lifetime.saw_open(3600 * 1000 * MS);
        assert_eq!(lifetime.safe(now + MEMORY), FRESH);
    }
}
