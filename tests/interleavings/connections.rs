//! The kept connections of an endpoint, which workers put and take while another thread retires them all.

use crate::kept::{Idle, Keep, Kept, Rest};
use crate::sync::{AtomicU32, Ordering};
use crate::{explore, worker};
use shuttle::thread;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WORKERS: usize = 3;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Stands for a connection.
#[derive(Debug)]
struct Number {
    /// The generation of the lease with which it was put.
    generation: u32,
    /// How many requests have it now.
    users: AtomicU32,
    closed: Arc<AtomicU32>,
}

impl Keep for Number {
    fn rest(&self) -> Rest {
        Rest::Quiet
    }

    fn certain_rest(&self) -> Rest {
        Rest::Quiet
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        assert_eq!(self.users.load(Ordering::SeqCst), 0, "closed in use");
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// An endpoint as far as it keeps connections.
struct Endpoint {
    kept: Kept<Number>,
    max_idle: usize,
    now: Instant,
    opened: AtomicU32,
    closed: Arc<AtomicU32>,
}

impl Endpoint {
    fn new(max_idle: usize) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            kept: Kept::new(WORKERS),
            max_idle,
            now: Instant::now(),
            opened: AtomicU32::new(0),
            closed: Arc::default(),
        })
    }

    fn open(&self, generation: u32) -> Number {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Number { generation, users: AtomicU32::new(0), closed: self.closed.clone() }
    }

    /// One exchange: a kept connection or a new one, which is kept afterwards.
    fn request(&self, once: bool) {
        let generation = self.kept.generation();
        let taken = self.kept.take(once, generation, IDLE_TIMEOUT, self.now).map(|idle| idle.connection);
        if let Some(number) = &taken {
            assert_eq!(number.generation, generation, "another's than the lease's, as of before a retire");
        }
        let mut connection = taken.unwrap_or_else(|| self.open(generation));
        assert_eq!(connection.users.fetch_add(1, Ordering::SeqCst), 0, "two requests have one connection");
        thread::yield_now();
        connection.users.fetch_sub(1, Ordering::SeqCst);
        connection.generation = generation;
        self.kept.put(Idle { connection, since: self.now, generation }, self.max_idle);
    }

    fn retire(&self) {
        self.kept.retire();
    }

    /// All that are kept, which empties the set.
    fn empty(&self) -> Vec<Number> {
        let take = || self.kept.take(false, self.kept.generation(), IDLE_TIMEOUT, self.now);
        let of_worker = |index| {
            worker::enter(index);
            std::iter::from_fn(take).map(|idle| idle.connection).collect::<Vec<_>>()
        };
        (0..WORKERS).flat_map(of_worker).collect()
    }
}

fn on_worker(
    endpoint: &Arc<Endpoint>,
    index: usize,
    run: impl FnOnce(&Endpoint) + Send + 'static,
) -> thread::JoinHandle<()> {
    let endpoint = endpoint.clone();
    thread::spawn(move || {
        worker::enter(index);
        run(&endpoint);
    })
}

fn all(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

// T9, P9
#[test]
fn a_connection_is_one_requests_and_none_outlives_a_retire() {
    explore("kept connections", || {
        let endpoint = Endpoint::new(WORKERS * 2);
        // Two threads a worker, which is harder than the program makes it.
        let requests = (0..4).map(|n| on_worker(&endpoint, n % 2, move |e| (0..3).for_each(|_| e.request(n % 2 == 0))));
        let retires = [on_worker(&endpoint, 2, |e| (0..2).for_each(|_| e.retire()))];
        all(requests.chain(retires).collect());
        let generation = endpoint.kept.generation();
        let count = endpoint.kept.count();
        let left = endpoint.empty();
        assert_eq!(left.len(), count);
        assert!(left.len() <= endpoint.max_idle, "{} are kept", left.len());
        assert!(left.iter().all(|number| number.generation == generation), "{left:?} of another than {generation}");
        drop(left);
        // Each is closed once, and none is forgotten.
        assert_eq!(endpoint.opened.load(Ordering::SeqCst), endpoint.closed.load(Ordering::SeqCst));
    });
}

// T9
#[test]
fn no_more_are_kept_than_max_idle_however_many_come_back_at_once() {
    explore("max_idle", || {
        let endpoint = Endpoint::new(WORKERS);
        let puts = (0..WORKERS * 2).map(|n| {
            on_worker(&endpoint, n % WORKERS, |e| {
                let (generation, max_idle) = (e.kept.generation(), e.max_idle);
                e.kept.put(Idle { connection: e.open(generation), since: e.now, generation }, max_idle);
            })
        });
        all(puts.collect());
        assert_eq!(endpoint.kept.count(), endpoint.max_idle);
        assert_eq!(endpoint.closed.load(Ordering::SeqCst) as usize, endpoint.max_idle);
    });
}

// T9, P9
#[test]
fn connections_that_come_back_while_their_endpoint_is_retired_are_closed() {
    explore("retire", || {
        let endpoint = Endpoint::new(WORKERS);
        // The leases are older than the retire.
        let generation = endpoint.kept.generation();
        let puts = (0..WORKERS).map(|n| {
            on_worker(&endpoint, n, move |e| {
                e.kept.put(Idle { connection: e.open(generation), since: e.now, generation }, e.max_idle);
            })
        });
        let puts: Vec<_> = puts.collect();
        endpoint.retire();
        all(puts);
        assert_eq!(endpoint.kept.count(), 0);
        assert_eq!(endpoint.closed.load(Ordering::SeqCst) as usize, WORKERS);
    });
}
