//! The load: closed loops (as many requests as a number of connections can carry) and open ones (requests leave when
//! they are due, however slowly the answers come, and latency counts from then).

use crate::process::Cores;
use crate::record::Record;
use crate::request::Request;
use crate::timer;
use crate::wire::Wire;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// How long one request may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A closed loop that is refused, and one that is paused, must not spin.
const PAUSE: Duration = Duration::from_millis(1);

/// How it is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends its next request when the last one is answered.
    Closed,
    /// So many requests a second at random times (Poisson), in turn over all connections.
    Spread(f64),
    /// The same, each on the connection that was free last, or on a new one: what a client's pool does. With several
    /// targets each request goes to one of them by chance: a name that is resolved anew, answers shuffled.
    Pooled(f64),
    /// Each connection sends one request, all at once.
    Burst,
}

/// A load to be started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to; connections are dealt out in turn.
    pub targets: Vec<SocketAddr>,
    /// Connections that are opened at the start.
    pub connections: usize,
    /// What.
    pub request: Request,
    /// How.
    pub pace: Pace,
    /// Decides times and targets.
    pub seed: u64,
    /// The number of its first request: two loads before one set of replicas must not have any in common.
    pub first: u64,
}

/// A load that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<Record>>,
}

#[derive(Debug, Default)]
struct Shared {
    connected: AtomicU64,
    /// The next request's number, after the plan's first.
    number: AtomicU64,
    answered: AtomicU64,
    recording: AtomicBool,
    paused: AtomicBool,
    stop: AtomicBool,
}

impl Load {
    /// Starts it in threads of its own.
    pub fn start(plan: &Plan, cores: &Cores) -> Load {
        let shared = Arc::new(Shared::default());
        // An open loop is one source of requests, so one thread; a closed one is as many as it has connections.
        let threads = if plan.pace == Pace::Closed { cores.load_threads.min(plan.connections) } else { 1 };
        let spawn = |index: usize| {
            let (cores, shared, mut plan) = (cores.clone(), shared.clone(), plan.clone());
            plan.connections = (plan.connections + index) / threads;
            let run = move || {
                cores.pin_load();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                LocalSet::new().block_on(&runtime, run(plan, shared))
            };
            std::thread::Builder::new().name("load".into()).spawn(run).expect("a thread")
        };
        Load { threads: (0..threads).map(spawn).collect(), shared }
    }

    /// Connections opened so far.
    pub fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Requests answered so far, recorded or not.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Latencies of requests that begin from now on are kept.
    pub fn record(&self) {
        self.shared.recording.store(true, Ordering::Relaxed);
    }

    /// An open loop sends nothing from now on, and keeps its connections.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Relaxed);
    }

    /// Waits for what was begun to end: that of a burst, which ends by itself.
    pub fn finish(mut self) -> Record {
        self.join()
    }

    /// Ends it, with what was recorded.
    pub fn stop(mut self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Record {
        let mut whole = Record::default();
        for thread in self.threads.drain(..) {
            whole.extend(thread.join().expect("the load does not panic"));
        }
        whole
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// One thread's part of a load.
struct Source {
    plan: Plan,
    shared: Arc<Shared>,
    record: RefCell<Record>,
}

async fn run(plan: Plan, shared: Arc<Shared>) -> Record {
    let source = Rc::new(Source { plan, shared, record: RefCell::default() });
    match source.plan.pace {
        Pace::Closed => source.closed().await,
        Pace::Spread(rate) => source.open(rate, false).await,
        Pace::Pooled(rate) => source.open(rate, true).await,
        Pace::Burst => source.burst().await,
    }
    source.record.take()
}

impl Source {
    async fn closed(self: &Rc<Source>) {
        let target = |index: usize| self.plan.targets[index % self.plan.targets.len()];
        let one = |index: usize| spawn_local(self.clone().one_after_another(target(index)));
        let all: Vec<_> = (0..self.plan.connections).map(one).collect();
        while !self.stopped() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        all.iter().for_each(|task| task.abort());
    }

    async fn one_after_another(self: Rc<Source>, target: SocketAddr) {
        let mut wire = None;
        while !self.stopped() {
            let began = Instant::now();
            let result = self.exchange(&mut wire, target).await;
            if result.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            self.account(began, result);
        }
    }

    /// Ends with its last answer: nothing of a burst may be left out.
    async fn burst(self: &Rc<Source>) {
        let target = |index: usize| self.plan.targets[index % self.plan.targets.len()];
        let one = |index: usize| {
            let (source, target) = (self.clone(), target(index));
            spawn_local(async move {
                let began = Instant::now();
                let result = source.patiently(&mut None, target).await;
                source.account(began, result);
            })
        };
        for task in (0..self.plan.connections).map(one).collect::<Vec<_>>() {
            let _ = task.await;
        }
    }

    async fn open(self: &Rc<Source>, rate: f64, pooled: bool) {
        let mut random = fastrand::Rng::with_seed(self.plan.seed);
        let targets = &self.plan.targets;
        let pools: Vec<_> = targets.iter().map(|target| Rc::new(Free::new(*target))).collect();
        for index in 0..self.plan.connections {
            let turn = index % targets.len();
            pools[turn].give(self.connect(targets[turn]).await);
        }
        let under_way = Rc::new(Cell::new(0_u64));
        let mut due = Instant::now();
        let mut turn = 0;
        while !self.stopped() {
            if self.shared.paused.load(Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            timer::sleep_until(due).await;
            let chosen = if pooled { random.usize(..targets.len()) } else { turn % targets.len() };
            turn += 1;
            let (source, free, under_way) = (self.clone(), pools[chosen].clone(), under_way.clone());
            under_way.set(under_way.get() + 1);
            spawn_local(async move {
                let mut wire = free.take(pooled).await;
                let result = source.patiently(&mut wire, free.target).await;
                source.account(due, result);
                if wire.is_some() || !pooled {
                    free.give(wire);
                }
                under_way.set(under_way.get() - 1);
            });
        }
        // What was sent in time counts, however late its answer: leaving it out would hide the worst.
        while under_way.get() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn connect(&self, target: SocketAddr) -> Option<Wire> {
        let wire = Wire::connect(target).await.ok();
        if wire.is_some() {
            self.shared.connected.fetch_add(1, Ordering::Relaxed);
        }
        wire
    }

    async fn patiently(&self, wire: &mut Option<Wire>, target: SocketAddr) -> io::Result<()> {
        match tokio::time::timeout(PATIENCE, self.exchange(wire, target)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// One request and its response; the connection is left in `wire` if it may carry another.
    async fn exchange(&self, wire: &mut Option<Wire>, target: SocketAddr) -> io::Result<()> {
        let mut taken = match wire.take() {
            Some(wire) => wire,
            None => self.connect(target).await.ok_or(io::ErrorKind::ConnectionRefused)?,
        };
        let request = &self.plan.request;
        let number = self.plan.first + self.shared.number.fetch_add(1, Ordering::Relaxed);
        taken.send(&request.bytes(number)).await?;
        let mut body = request.compares().then(Vec::new);
        let head = taken.response(body.as_mut()).await?;
        if request.close {
            // The proxy closes first, so that the waiting state (RFC 9293, 3.3.2) is on its port, not on ours.
            taken.closed().await?;
        } else if head.keep {
            *wire = Some(taken);
        }
        request.check(number, &head, body.as_deref().unwrap_or_default())
    }

    fn account(&self, began: Instant, result: io::Result<()>) {
        if result.is_ok() {
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        if !self.shared.recording.load(Ordering::Relaxed) {
            return;
        }
        let mut record = self.record.borrow_mut();
        match result {
            Ok(()) => record.answered.push(began.elapsed().as_secs_f32() * 1e6),
            Err(error) => {
                record.failed += 1;
                record.reason.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

/// Connections of an open loop that carry nothing now.
struct Free {
    target: SocketAddr,
    wires: RefCell<VecDeque<Wire>>,
    /// Places whose connection was closed under them, to be opened anew.
    places: Cell<usize>,
    returned: Notify,
}

impl Free {
    fn new(target: SocketAddr) -> Free {
        Free { target, wires: RefCell::default(), places: Cell::new(0), returned: Notify::new() }
    }

    /// The one used last, or none, from a pool; else the one unused for longest, waiting for it.
    async fn take(&self, pooled: bool) -> Option<Wire> {
        if pooled {
            return self.wires.borrow_mut().pop_back();
        }
        loop {
            if let Some(wire) = self.wires.borrow_mut().pop_front() {
                return Some(wire);
            }
            if self.places.get() > 0 {
                self.places.set(self.places.get() - 1);
                return None;
            }
            self.returned.notified().await;
        }
    }

    fn give(&self, wire: Option<Wire>) {
        match wire {
            Some(wire) => self.wires.borrow_mut().push_back(wire),
            None => self.places.set(self.places.get() + 1),
        }
        self.returned.notify_one();
    }
}
