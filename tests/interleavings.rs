//! What must hold however threads are interleaved: the code under `src/` that shares atomics and locks is compiled once
//! more here, over those of [shuttle], which runs all threads on one and decides at each step who goes on.
//!
//! Shuttle rather than loom: it tries random schedules of as many threads as a test likes, where loom tries all schedules
//! of two or three; what is checked relies on sequential consistency, which loom does not model without fences.
//! `INTERLEAVINGS` and `SEED` change how many schedules are tried and which.

#![allow(clippy::disallowed_methods)] // tests live in real time

mod pool {
    pub(crate) use evenkeel::pool::*;
}

mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

    /// With parking_lot's signature, which is what the program uses.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no thread panics with the lock")
        }
    }
}

/// The name of a thread, which shuttle's threads share one of.
mod worker {
    use std::cell::Cell;

    shuttle::thread_local! {
        static INDEX: Cell<usize> = Cell::new(0);
    }

    pub(crate) fn enter(index: usize) {
        INDEX.with(|own| own.set(index));
    }

    pub(crate) fn index() -> usize {
        INDEX.with(Cell::get)
    }
}

#[path = "interleavings/connections.rs"]
mod connections;
#[path = "../src/proxy/kept.rs"]
#[allow(dead_code, unreachable_pub)]
mod kept;
#[path = "../src/upstream/queue.rs"]
#[allow(dead_code, unreachable_pub)]
mod queue;
#[path = "../src/upstream/take.rs"]
mod take;

use pool::{Bound, Candidate, EndpointId};
use queue::{Refusal, WaitQueue};
use shuttle::{future, thread};
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use sync::{AtomicU32, Mutex, Ordering};

/// Tries a test under many random schedules, half of them with few switches at the worst moments (Burckhardt et al. 2010).
fn explore(name: &str, test: impl Fn() + Send + Sync + 'static) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let times = number("INTERLEAVINGS").map_or(2000, |n| n as usize);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: {times} schedules, SEED={seed}");
    let start = Instant::now();
    let test = Arc::new(test);
    let ours = test.clone();
    let random = shuttle::scheduler::RandomScheduler::new_from_seed(seed, times / 2);
    shuttle::Runner::new(random, shuttle::Config::default()).run(move || ours());
    let worst = shuttle::scheduler::PctScheduler::new_from_seed(seed, 3, times / 2);
    shuttle::Runner::new(worst, shuttle::Config::default()).run(move || test());
    println!("{name}: {:?}", start.elapsed());
}

/// As much of an upstream as shares something: counts, and a queue.
struct Upstream {
    candidates: Vec<Candidate>,
    counts: Vec<AtomicU32>,
    queue: Arc<WaitQueue<Lease>>,
    /// Who was granted a lease, in this order.
    served: Mutex<Vec<u32>>,
}

struct Lease {
    upstream: Arc<Upstream>,
    endpoint: usize,
}

impl Upstream {
    fn new(limits: &[u32]) -> Arc<Self> {
        let candidate = |(n, limit): (usize, &u32)| Candidate {
            id: EndpointId(n as u64),
            address: "127.0.0.1:1".parse().expect("an address"),
            weight: 1.0,
            trial: false,
            limit: *limit,
            ceiling: *limit,
        };
        Arc::new(Upstream {
            candidates: limits.iter().enumerate().map(candidate).collect(),
            counts: limits.iter().map(|_| AtomicU32::new(0)).collect(),
            queue: Arc::default(),
            served: Mutex::new(Vec::new()),
        })
    }

    fn acquire(self: &Arc<Self>) -> Option<Lease> {
        let seen = vec![Cell::new(0); self.counts.len()];
        let rng = &mut fastrand::Rng::with_seed(1);
        let count = |i: usize| &self.counts[i];
        let (endpoint, before) = take::take(&self.candidates, Bound::Window, count, |_| false, &seen, rng)?;
        assert!(before < self.candidates[endpoint].limit, "{before} were there already");
        Some(Lease { upstream: self.clone(), endpoint })
    }

    fn serve(self: &Arc<Self>) {
        self.queue.serve(|_| self.acquire());
    }

    /// What a request does: `admit`, else `enqueue`.
    fn request(self: &Arc<Self>, name: u32, caller: IpAddr) -> Result<Lease, Refusal> {
        let lease = if self.queue.is_empty() { self.acquire() } else { None };
        let lease = match lease {
            Some(lease) => lease,
            None => {
                let mut ticket = self.queue.enqueue(caller, &[], 100, Instant::now())?;
                self.serve();
                // A request that nobody serves is a deadlock, which shuttle finds.
                future::block_on(std::future::poll_fn(|cx| ticket.poll_granted(cx)))?
            }
        };
        self.served.lock().push(name);
        Ok(lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.upstream.counts[self.endpoint].fetch_sub(1, Ordering::SeqCst);
        assert!(before <= self.upstream.candidates[self.endpoint].limit, "{before} in flight");
        self.upstream.serve();
    }
}

fn caller(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

// T9, D16
#[test]
fn as_many_as_there_is_room_for_find_it_however_they_race() {
    explore("take", || {
        let upstream = Upstream::new(&[1, 2]);
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let upstream = upstream.clone();
                thread::spawn(move || upstream.acquire().expect("three places for three"))
            })
            .collect();
        let leases: Vec<_> = takers.into_iter().map(|taker| taker.join().expect("no panic")).collect();
        assert!(upstream.acquire().is_none(), "a fourth found room");
        drop(leases);
        assert!(upstream.counts.iter().all(|count| count.load(Ordering::SeqCst) == 0));
    });
}

// T9, D16
#[test]
fn no_request_is_without_a_place_beside_a_free_one_while_others_come_and_go() {
    explore("take beside churn", || {
        let upstream = Upstream::new(&[2, 2, 2]);
        let churn: Vec<_> = (0..3)
            .map(|_| {
                let upstream = upstream.clone();
                thread::spawn(move || {
                    for _ in 0..4 {
                        drop(upstream.acquire().expect("four of six places at most are taken"));
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            drop(upstream.acquire().expect("three of six places at most are taken"));
        }
        churn.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
}

// T9, D16
#[test]
fn limit_holds_for_those_too_who_lose_race_after_race() {
    explore("limit", || {
        let upstream = Upstream::new(&[2]);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let upstream = upstream.clone();
                // `acquire` asserts it.
                thread::spawn(move || (0..16).for_each(|_| drop(upstream.acquire())))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(upstream.counts[0].load(Ordering::SeqCst), 0);
    });
}

// T9, D17
#[test]
fn nobody_sleeps_beside_room() {
    explore("queue", || {
        let upstream = Upstream::new(&[1, 1]);
        let requests: Vec<_> = (0..5)
            .map(|n| {
                let upstream = upstream.clone();
                thread::spawn(move || drop(upstream.request(n, caller(n as u8 % 2)).expect("there is room to wait")))
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().expect("no panic"));
        assert_eq!(upstream.served.lock().len(), 5);
        assert!(upstream.queue.is_empty());
        assert!(upstream.counts.iter().all(|count| count.load(Ordering::SeqCst) == 0));
    });
}

// T9, D17
#[test]
fn place_that_is_granted_to_a_request_that_leaves_goes_to_the_next() {
    explore("queue with leavers", || {
        let upstream = Upstream::new(&[1]);
        let first = upstream.acquire().expect("room");
        let leaver = {
            let upstream = upstream.clone();
            thread::spawn(move || {
                let ticket =
                    upstream.queue.enqueue(caller(1), &[], 100, Instant::now()).expect("there is room to wait");
                upstream.serve();
                thread::yield_now();
                drop(ticket);
            })
        };
        let stayer = {
            let upstream = upstream.clone();
            thread::spawn(move || drop(upstream.request(1, caller(2)).expect("there is room to wait")))
        };
        drop(first);
        leaver.join().expect("no panic");
        stayer.join().expect("no panic");
        assert_eq!(upstream.counts[0].load(Ordering::SeqCst), 0);
        assert!(upstream.queue.is_empty());
    });
}

// T9, D17
#[test]
fn first_come_is_first_served_and_callers_take_turns() {
    explore("order", || {
        let upstream = Upstream::new(&[1]);
        let first = upstream.acquire().expect("room");
        // Of one caller four, of another two, of a third one: each caller's in order, and they take turns.
        let mut tickets = Vec::new();
        for (n, caller_of) in [1, 1, 1, 1, 2, 2, 3].into_iter().enumerate() {
            tickets.push((
                n as u32,
                upstream.queue.enqueue(caller(caller_of), &[], 100, Instant::now()).expect("room to wait"),
            ));
        }
        let waiting: Vec<_> = tickets
            .into_iter()
            .map(|(n, mut ticket)| {
                let upstream = upstream.clone();
                thread::spawn(move || {
                    let lease = future::block_on(std::future::poll_fn(|cx| ticket.poll_granted(cx))).expect("granted");
                    upstream.served.lock().push(n);
                    drop(lease);
                })
            })
            .collect();
        drop(first);
        waiting.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(*upstream.served.lock(), [0, 4, 6, 1, 5, 2, 3]);
    });
}

// A10
#[test]
fn caller_with_most_waiting_is_refused_first() {
    let no_race = || {
        let upstream = Upstream::new(&[0]);
        let join = |n: u8| upstream.queue.enqueue(caller(n), &[], 3, Instant::now());
        let mut flood: Vec<_> = (0..3).map(|_| join(1).expect("room to wait")).collect();
        assert_eq!(join(1).err(), Some(Refusal::Full));
        let mut honest = join(2).expect("it displaces one of the flood");
        assert_eq!(upstream.queue.len(), 3);
        let mut last = flood.pop().expect("three");
        let refused = future::block_on(std::future::poll_fn(|cx| last.poll_granted(cx)));
        assert_eq!(refused.err(), Some(Refusal::Full));
        upstream.queue.close();
        let closed = future::block_on(std::future::poll_fn(|cx| honest.poll_granted(cx)));
        assert_eq!(closed.err(), Some(Refusal::Closed));
        assert_eq!(join(2).err(), Some(Refusal::Closed));
    };
    shuttle::check_random(no_race, 1);
}
