//! How a replica behaves, and what it has seen. May be changed and read while it runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// How one replica answers.
#[derive(Debug)]
pub struct Conduct {
    /// Mean service time, microseconds; 0 is at once.
    pub(crate) mean: AtomicU32,
    /// Service times are all alike; else they are exponentially distributed.
    pub steady: bool,
    /// Requests served at a time, the others queue; 0: however many come.
    pub workers: usize,
    /// Answers 500 at once.
    pub fails: AtomicBool,
    /// What it does with a connection after an answer.
    pub then: Then,
    /// A request ends when its client has left, and so does the connection, as with uvicorn.
    pub notices: bool,
    /// What the whole app bears at a time; see [`Capacity`].
    pub capacity: Option<Arc<Capacity>>,
    /// Requests that have an answer.
    pub served: AtomicU64,
    /// Requests that have none yet.
    pub in_flight: AtomicU64,
    /// How often each numbered request was run, in all replicas that share it.
    pub ledger: Arc<Ledger>,
    pub(crate) up: watch::Sender<bool>,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays open.
    Stays,
    /// It is closed, without having been announced.
    Closes,
    /// It is closed at a random time up to this one.
    ClosesWithin(Duration),
}

impl Conduct {
    /// Answers at once, however many come.
    pub fn instant() -> Conduct {
        Conduct::slow(Duration::ZERO, 0)
    }

    /// Takes this long on average, with so many workers.
    pub fn slow(mean: Duration, workers: usize) -> Conduct {
        Conduct {
            mean: AtomicU32::new(mean.as_micros() as u32),
            steady: false,
            workers,
            fails: AtomicBool::new(false),
            then: Then::Stays,
            notices: false,
            capacity: None,
            served: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            ledger: Arc::default(),
            up: watch::Sender::new(true),
        }
    }

    /// Takes this long each time, however many come.
    pub fn steady(time: Duration) -> Conduct {
        Conduct { steady: true, ..Conduct::slow(time, 0) }
    }

    /// The mean service time, microseconds.
    pub fn mean(&self) -> u32 {
        self.mean.load(Ordering::Relaxed)
    }

    /// From now on.
    pub fn set_mean(&self, mean: Duration) {
        self.mean.store(mean.as_micros() as u32, Ordering::Relaxed);
    }

    /// Kills it, with a reset for each of its connections, or starts it again at the same address.
    pub fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    /// Tells when it is killed or started.
    pub fn life(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }
}

/// Something that all replicas of an app share and that bears so many requests at a time, as a database does its
/// connections. What comes beyond that is answered 424.
#[derive(Debug)]
pub struct Capacity {
    most: u64,
    used: AtomicU64,
}

impl Capacity {
    /// It bears so many.
    pub fn of(most: u64) -> Arc<Capacity> {
        Arc::new(Capacity { most, used: AtomicU64::new(0) })
    }

    /// Takes one, to be dropped at its end; none where it would be one too many.
    pub fn take(self: &Arc<Capacity>) -> Option<impl Drop + use<>> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Taken(self.clone()))
    }
}

struct Taken(Arc<Capacity>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often each numbered request was run.
#[derive(Debug, Default)]
pub struct Ledger {
    runs: Mutex<HashMap<u64, u32>>,
}

impl Ledger {
    /// One more run of this request.
    pub fn ran(&self, number: u64) {
        *self.runs.lock().expect("nothing panics with it").entry(number).or_default() += 1;
    }

    /// Requests that were run more than once.
    pub fn repeated(&self) -> u64 {
        self.runs.lock().expect("nothing panics with it").values().filter(|runs| **runs > 1).count() as u64
    }
}
