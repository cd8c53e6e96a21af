//! One upstream's live state: the pool behind a lock that requests take only to report, and the snapshot that every
//! request reads.
//!
//! Whatever changes the pool goes through [`Upstream::apply`], which publishes a new snapshot if the candidates changed,
//! says what happened, and serves whoever waits for it. In-flight counts are the only thing that requests write directly:
//! each is held by a [`Lease`], and every end of a request is the lease's one drop.
//!
//! Locks are taken in the order batch, pool, endpoints. The queue's is taken under the batch's or none. Dropping a lease takes
//! the queue's lock, so none is dropped under that.

mod budget;
mod check;
mod choice;
mod event_log;
mod lease;
mod names;
mod queue;
mod remedy;
mod silence;
mod take;
mod unusable;

use crate::admin::metrics::UpstreamMetrics;
use crate::clock;
use crate::config;
use crate::failure::Failures;
use crate::pool::retry::Budget;
use crate::pool::{Bound, Candidate, EndpointId, Event, Health, Load, Outcome, Pool, Settings};
use crate::worker;
use arc_swap::ArcSwap;
pub use check::Fate;
pub use choice::{Choice, Seen};
use event_log::EventLog;
pub use lease::{Endpoint, Lease};
pub use names::Names;
use parking_lot::Mutex;
use queue::WaitQueue;
pub use queue::{Refusal, Standing};
pub use remedy::{is_loopback, remedy};
use silence::Silence;
pub use silence::watch;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long ordinary answers may wait in a worker's batch before the pool hears of them. It publishes weights every
/// 5 ms, so hearing sooner would change nothing.
const BATCH_AGE: Duration = Duration::from_millis(2);

/// Answers a batch holds at most: 2 ms at 32,000 requests a second.
const BATCH_SIZE: usize = 64;

/// A request's place in the queue of an upstream.
pub type Ticket = queue::Ticket<Lease>;

/// An upstream that serves.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    config: ArcSwap<config::Upstream>,
    pool: Mutex<Pool>,
    snapshot: ArcSwap<Snapshot>,
    endpoints: Mutex<HashMap<EndpointId, Arc<Endpoint>>>,
    batches: Box<[Mutex<Batch>]>,
    budget: Mutex<Budget>,
    /// Requests since the budget last heard of them.
    uncounted: AtomicU32,
    queue: Arc<WaitQueue<Lease>>,
    /// When nobody waited, and when an endpoint that is forgotten last answered.
    silence: Silence,
    log: EventLog,
    failures: Failures,
    names: Names,
    metrics: Arc<UpstreamMetrics>,
    /// Told whenever the pool may want something earlier than before: the DNS and probe loops listen.
    wake: Notify,
    /// Set once when the upstream is no longer configured.
    closed: AtomicBool,
}

/// Who may be picked, as of one moment.
#[derive(Debug)]
struct Snapshot {
    candidates: Vec<Candidate>,
    /// Beside `candidates`, index by index.
    endpoints: Vec<Arc<Endpoint>>,
    /// Since when there is nobody.
    empty_since: Option<Instant>,
    /// An operator has all requests wait.
    paused: bool,
    /// `max_in_flight`, or no limit: whoever may have fewer is cold.
    full: u32,
}

/// Outcomes that a worker has not yet told the pool.
#[derive(Debug)]
struct Batch {
    outcomes: Vec<(EndpointId, Outcome, Load, IpAddr, Instant)>,
    /// When it last told.
    told: Instant,
}

impl Upstream {
    /// An upstream that knows no replica yet. `workers` threads will send requests.
    pub fn new(config: Arc<config::Upstream>, settings: Settings, workers: usize) -> Arc<Self> {
        let now = clock::now();
        let batch = || Mutex::new(Batch { outcomes: Vec::with_capacity(BATCH_SIZE), told: now });
        Arc::new(Upstream {
            name: config.name.clone(),
            config: ArcSwap::new(config),
            pool: Mutex::new(Pool::new(settings, now)),
            snapshot: ArcSwap::from_pointee(Snapshot {
                candidates: Vec::new(),
                endpoints: Vec::new(),
                empty_since: Some(now),
                paused: false,
                full: u32::MAX,
            }),
            endpoints: Mutex::default(),
            batches: (0..workers.max(1)).map(|_| batch()).collect(),
            budget: Mutex::new(Budget::new(now)),
            uncounted: AtomicU32::new(0),
            queue: Arc::default(),
            silence: Silence::new(now),
            log: EventLog::default(),
            failures: Failures::default(),
            names: Names::default(),
            metrics: Arc::new(UpstreamMetrics::new(workers)),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its configuration as of now.
    pub fn config(&self) -> Arc<config::Upstream> {
        self.config.load_full()
    }

    /// Takes over a changed configuration; endpoints keep their state.
    pub fn reconfigure(self: &Arc<Self>, config: Arc<config::Upstream>, settings: Settings) {
        self.config.store(config);
        self.apply(|pool, now| pool.reconfigure(settings, now));
    }

    /// Ends its loops: it is no longer configured. Requests that hold it finish, those that wait are sent away.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.wake.notify_waiters();
        for endpoint in self.endpoints.lock().values() {
            endpoint.retire();
        }
        self.queue.close();
    }

    /// Whether the loops are to end.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ready when the pool may want something earlier than it said before, or the upstream was closed.
    pub fn woken(&self) -> impl Future<Output = ()> {
        self.wake.notified()
    }

    /// Runs `f` on the pool, publishes what changed, says what happened and wakes the loops.
    pub fn apply<R>(self: &Arc<Self>, f: impl FnOnce(&mut Pool, Instant) -> R) -> R {
        let now = clock::now();
        let mut pool = self.pool.lock();
        let before = (pool.next_question(), pool.next_wake());
        let result = f(&mut pool, now);
        let publishes = pool.dirty(now);
        if publishes {
            self.publish(&mut pool, now);
        }
        let events = pool.take_events();
        let sooner = pool.next_question() < before.0 || pool.next_wake() < before.1;
        drop(pool);
        if publishes {
            self.serve_queue();
        }
        for event in events {
            self.metrics.event(&event.kind);
            self.log.add(&self.config.load(), event, now);
        }
        if sooner {
            self.wake.notify_waiters();
        }
        result
    }

    /// Requests and streams at an endpoint, 0 if it is gone.
    pub fn in_flight(&self, id: EndpointId) -> u32 {
        self.endpoints.lock().get(&id).map_or(0, |e| e.busy())
    }

    /// Requests and streams at all endpoints.
    pub fn in_flight_in_all(&self) -> u32 {
        self.endpoints.lock().values().map(|endpoint| endpoint.busy()).sum()
    }

    /// Every endpoint that was ever picked and is not forgotten.
    pub fn endpoints(&self) -> HashMap<EndpointId, Arc<Endpoint>> {
        self.endpoints.lock().clone()
    }

    /// What happened last, oldest first.
    pub fn timeline(&self) -> Vec<(Instant, Event)> {
        self.log.timeline()
    }

    /// Logs how many failed requests and events have had no line of their own.
    pub fn flush_logs(&self, now: Instant) {
        self.failures.flush(&self.name, now);
        self.log.flush(&self.name, now);
    }

    /// Its failed requests.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// What its replicas' containers are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    /// Since when nobody can be picked; `None` while somebody can.
    pub fn outage_since(&self) -> Option<Instant> {
        self.snapshot.load().empty_since
    }

    /// Whether an operator has all requests wait.
    pub fn is_paused(&self) -> bool {
        self.snapshot.load().paused
    }

    /// Closes a connection to any of its endpoints that waits for a request. Says whether there was one.
    pub fn close_kept(&self) -> bool {
        self.endpoints.lock().values().any(|endpoint| endpoint.kept().close_oldest())
    }

    /// Takes the best endpoint for a request that just came, unless others wait already: not one of `tried` while there is
    /// another. `None`: it has to wait.
    ///
    /// A cold pool takes more than its windows allow as long as nobody waits: such load would have come without a proxy,
    /// too. What windows hold back is a backlog.
    ///
    /// `seen` is told of the candidates that were met.
    pub fn admit(self: &Arc<Self>, tried: &[EndpointId], seen: &mut Seen) -> Option<Lease> {
        if !self.queue.is_empty() {
            return None;
        }
        let window = self.acquire_any(tried, Bound::Window, Some(seen));
        window.or_else(|| self.acquire_any(tried, Bound::Ceiling, Some(seen)))
    }

    /// Joins the queue, if it has room: no more than `max_waiting` wait, and those whose caller has the most leave for one
    /// whose caller has less. What only windows hold back is sent before anyone is refused for it.
    pub fn enqueue(
        self: &Arc<Self>,
        caller: IpAddr,
        tried: &[EndpointId],
        max_waiting: usize,
    ) -> Result<Ticket, Refusal> {
        if self.queue.len() >= max_waiting {
            self.queue.serve_one(|tried| self.acquire_any(tried, Bound::Ceiling, None));
        }
        let ticket = self.queue.enqueue(caller, tried, max_waiting, clock::now())?;
        self.serve_queue();
        Ok(ticket)
    }

    /// Takes the best endpoint for a request that has waited for as long as it may, whatever windows say.
    pub fn acquire_at_last(self: &Arc<Self>, tried: &[EndpointId]) -> Option<Lease> {
        self.acquire_any(tried, Bound::Ceiling, None)
    }

    /// Requests that wait for a replica, from where, and for how long.
    pub fn queue(&self) -> Standing {
        self.queue.standing()
    }

    /// The most requests that waited at once since this was last asked, which only the history does.
    pub fn take_peak_waiting(&self) -> usize {
        self.queue.take_peak()
    }

    /// Takes the best endpoint for one request: not one of `tried` while there is another.
    pub fn acquire(self: &Arc<Self>, tried: &[EndpointId]) -> Option<Lease> {
        self.acquire_any(tried, Bound::Window, None)
    }

    /// Takes the best endpoint that is none of `tried`.
    pub fn acquire_other(self: &Arc<Self>, tried: &[EndpointId]) -> Option<Lease> {
        self.acquire_within(tried, Bound::Window, None)
    }

    fn acquire_any(self: &Arc<Self>, tried: &[EndpointId], bound: Bound, mut met: Option<&mut Seen>) -> Option<Lease> {
        let lease = self.acquire_within(tried, bound, met.as_deref_mut());
        if lease.is_none() && !tried.is_empty() { self.acquire_within(&[], bound, met) } else { lease }
    }

    fn acquire_within(self: &Arc<Self>, tried: &[EndpointId], bound: Bound, met: Option<&mut Seen>) -> Option<Lease> {
        thread_local! {
            /// The counts that the pick saw, to notice whom another thread took meanwhile.
            static SEEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
        }
        let snapshot = self.snapshot.load();
        let Snapshot { candidates, endpoints, full, .. } = &**snapshot;
        let (best, before) = SEEN.with_borrow_mut(|seen| {
            seen.resize(candidates.len(), 0);
            let seen = Cell::from_mut(seen.as_mut_slice()).as_slice_of_cells();
            let count = |i: usize| endpoints[i].count();
            let taken =
                worker::with_rng(|rng| take::take(candidates, bound, count, |id| tried.contains(&id), seen, rng))?;
            if let Some(met) = met {
                met.add(candidates, seen, taken.0);
            }
            Some(taken)
        })?;
        let cold = candidates[best].limit < *full || candidates[best].trial;
        Some(Lease::new(self, &endpoints[best], candidates[best].load(before), cold))
    }

    /// Hands out what room there is to those who wait. To be called after whatever may have made some.
    fn serve_queue(self: &Arc<Self>) {
        self.queue.serve(|tried| self.acquire(tried));
    }

    /// Tells the pool how an attempt ended. Ordinary answers of warm endpoints are told in batches.
    pub fn record(self: &Arc<Self>, lease: &Lease, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Answered { status, first_byte, .. } => {
                lease.endpoint().answered(first_byte, now);
                if status >= 500 {
                    lease.endpoint().erred();
                    self.metrics.server_errors.fetch_add(1, Ordering::Relaxed);
                }
            }
            Outcome::Abandoned => {}
            _ => lease.endpoint().failed(),
        }
        let ordinary = matches!(outcome, Outcome::Answered { status, .. } if status < 500) && !lease.is_cold();
        let batch = &self.batches[worker::index().min(self.batches.len() - 1)];
        let mut batch = batch.lock();
        batch.outcomes.push((lease.id(), outcome, lease.load(), lease.caller(), now));
        if ordinary && batch.outcomes.len() < BATCH_SIZE && now.saturating_duration_since(batch.told) < BATCH_AGE {
            return;
        }
        batch.told = now;
        self.apply(|pool, _| {
            for (id, outcome, load, caller, at) in batch.outcomes.drain(..) {
                pool.record(id, outcome, load, caller, at);
            }
        });
    }

    /// Makes what the pool says now what requests see.
    fn publish(&self, pool: &mut Pool, now: Instant) {
        let candidates = pool.candidates(now);
        let old = self.snapshot.load();
        let same = candidates.len() == old.candidates.len()
            && candidates.iter().zip(&old.candidates).all(|(new, old)| new.id == old.id);
        let endpoints = if same { old.endpoints.clone() } else { self.live_parts(&candidates, now) };
        self.judge_departed(pool, &candidates, now);
        let empty_since = candidates.is_empty().then(|| old.empty_since.unwrap_or(now));
        drop(old);
        let full = match self.config.load().max_in_flight {
            0 => u32::MAX,
            cap => cap,
        };
        self.snapshot.store(Arc::new(Snapshot { candidates, endpoints, empty_since, paused: pool.is_paused(), full }));
        // Before the queue's length is looked at: see there.
        fence(Ordering::SeqCst);
    }

    /// The live parts of `candidates`, made where there are none yet.
    fn live_parts(&self, candidates: &[Candidate], now: Instant) -> Vec<Arc<Endpoint>> {
        let mut known = self.endpoints.lock();
        let live = candidates.iter().map(|c| {
            let new = || Arc::new(Endpoint::new(c.id, c.address, self.batches.len(), now));
            let endpoint = known.entry(c.id).or_insert_with(new);
            endpoint.set_down(false);
            endpoint.clone()
        });
        live.collect()
    }

    /// Whoever is no candidate any more loses its kept connections: it left, is hung, or its address may be another
    /// app's by now. Requests that still wait on it are told once it is down.
    fn judge_departed(&self, pool: &Pool, candidates: &[Candidate], now: Instant) {
        let mut known = self.endpoints.lock();
        if known.len() == candidates.len() {
            return; // nobody has departed: candidates are all known
        }
        let views = pool.endpoints(now);
        known.retain(|id, endpoint| {
            if candidates.iter().any(|c| c.id == *id) {
                return true;
            }
            endpoint.retire();
            let view = views.iter().find(|v| v.id == *id);
            let down = view.is_none_or(|v| v.health == Health::Down || v.suspect);
            endpoint.set_down(down);
            let stays = view.is_some() || endpoint.busy() > 0;
            if !stays {
                self.remember_answer(endpoint);
            }
            stays
        });
    }
}
