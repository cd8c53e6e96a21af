//! What one upstream knows of its replicas, and what it decides: which addresses belong to it, which of them are
//! healthy, and which one the next request goes to.
//!
//! Everything here is pure: no I/O, no clock, no threads. The shell (`upstream.rs`, `discovery.rs`, `probe.rs`) reads
//! the clock and passes `now`; answers, probe results and the outcomes of requests come in as values, and what is to
//! be done (ask DNS, probe, publish a new snapshot, log) comes out as values. So a day of churn is a test of
//! milliseconds.
//!
//! Four facts about an endpoint are kept apart, each in its own file, because each ends in its own way: whether DNS lists
//! it (`membership`), whether it works (`health`), whether it may be somebody else by now (`suspicion`), whether it is worse
//! than the others (`ejection`). On top of that an `operator` may take it out of use. A `window` limits it while it is cold.
//! [`Pool::candidates`] puts them together, `balancer` chooses, `retry` says whether to choose again.

pub mod balancer;
mod callers;
mod ejection;
pub mod endpoint;
mod event;
mod health;
mod membership;
mod operator;
mod pace;
mod probe_result;
pub mod retry;
#[cfg(test)]
mod sim;
mod stuck;
mod suspicion;
#[cfg(test)]
mod tests;
mod window;

use balancer::Weight;
use endpoint::{Endpoint, Standing};
use membership::Answers;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use window::Borne;

pub use balancer::{Bound, Candidate, lowest, pick};
pub use endpoint::{EndpointId, EndpointView, Health, HeldBack, Membership};
pub use event::{Event, EventKind};
pub use operator::{NotDone, Orders};
pub use probe_result::{DueProbe, ProbeResult, Unhealthy};
pub use suspicion::{Break, HANDOVER};
pub use window::Load;

/// New weights are published this often at most. A replica's speed is known from eight answers, and at 1,000 requests a
/// second those take longer.
const WEIGHTS_EVERY: Duration = Duration::from_millis(5);
/// The pool wants to be called this often at least: to forget endpoints that have left, and to notice …
const HEARTBEAT: Duration = Duration::from_secs(1);
/// … when it was not called for this much longer: then the whole process was stopped, or its host slept.
const STOPPED: Duration = Duration::from_secs(2);

/// The knobs of one upstream that the pool needs. Checked by `config.rs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Port of every endpoint.
    pub port: u16,
    /// Time between two DNS questions.
    pub dns_interval: Duration,
    /// How long proven endpoints outlive an answer that the name is gone.
    pub hold: Duration,
    /// Time between two probes of an endpoint.
    pub probe_interval: Duration,
    /// Consecutive passes until a down endpoint is up.
    pub rise: u32,
    /// Consecutive failures until an up endpoint is down.
    pub fall: u32,
    /// Requests in flight per endpoint; 0 is no cap.
    pub max_in_flight: u32,
}

/// What a DNS question ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// A positive answer: all addresses it listed, in any order, perhaps repeated.
    Addresses(Vec<IpAddr>),
    /// The name does not exist, or exists without an address.
    Absent,
    /// No usable answer (time-out, SERVFAIL, REFUSED, truncated without TCP, …), with the reason for the log.
    Failed(String),
}

/// What a request, or the attempt at one, showed about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// A whole response head came.
    Answered {
        /// The status of the response.
        status: u16,
        /// From the request's last byte to the response's first.
        first_byte: Duration,
    },
    /// The connect was refused, reset, or found no route.
    Refused,
    /// The connect did not end within `connect_timeout`.
    ConnectTimedOut,
    /// A connection broke (reset or closed) in use: after the request was sent, before its response was whole. Whether
    /// the replica is still there is told by [`Pool::break_checked`].
    Broken,
    /// A kept connection ended without a byte of response: the ordinary race with a replica that closes its connections
    /// when it likes. Whether it is still there is told by [`Pool::break_checked`].
    Stale,
    /// No first byte within `response_timeout`, or a body that stopped.
    TimedOut,
    /// What came was not HTTP.
    Invalid,
    /// The client left, or the request was moved: says nothing about the endpoint.
    Abandoned,
}

/// The state machine of one upstream.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    /// By id, which grows: new ones are pushed, and [`Pool::index`] searches.
    endpoints: Vec<Endpoint>,
    last_id: u64,
    answers: Answers,
    orders: Orders,
    borne: Borne,
    events: Vec<Event>,
    /// Answers to requests so far: the clock by which estimates age in a quiet pool.
    total: u64,
    /// When the pool was last called, and when it was first called after a stop of the whole process.
    seen: Instant,
    resumed: Option<Instant>,
    /// A lower bound of what [`Pool::next_wake`] has to be.
    wake: Instant,
    /// Candidates or their limits changed since they were last published.
    changed: bool,
    /// Something changed that may let others drain or end their ejection.
    unsettled: bool,
    /// Answers came since weights were last published, which was then.
    sampled: bool,
    published: Instant,
}

impl Pool {
    /// An upstream that knows nothing yet and wants to ask DNS at once.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Pool {
            settings,
            endpoints: Vec::new(),
            last_id: 0,
            answers: Answers::new(now),
            orders: Orders::default(),
            borne: Borne::new(now),
            events: Vec::new(),
            total: 0,
            seen: now,
            resumed: None,
            wake: now,
            changed: true,
            unsettled: false,
            sampled: false,
            published: now,
        }
    }

    /// Takes over changed settings; endpoints keep their state. After a change of the port they stay until one on the
    /// new port is up, like addresses that an answer no longer lists.
    pub fn reconfigure(&mut self, settings: Settings, now: Instant) {
        self.notice(now);
        self.settings = settings;
        self.answers.ask_by(now);
        for index in 0..self.endpoints.len() {
            self.probe_by(index, now + self.settings.probe_interval);
        }
        self.changed = true;
    }

    /// When the pool wants to be called next for its own sake ([`Pool::tick`]) or has a probe due. Never more than a
    /// second after the last tick: by calls that come much later, the pool knows that the process was stopped.
    pub fn next_wake(&self) -> Instant {
        self.wake
    }

    /// Lets time pass: ends ejections, relieves cold windows, forgets who has left. `in_flight` tells the live count.
    pub fn tick(&mut self, in_flight: impl Fn(EndpointId) -> u32, now: Instant) {
        self.notice(now);
        let mut left = Vec::new();
        self.endpoints.retain(|endpoint| {
            let gone = !endpoint.active() && in_flight(endpoint.id) == 0;
            if gone {
                left.push(endpoint.address);
            }
            !gone
        });
        for address in left {
            self.say(Some(address), EventKind::Left);
            self.touch();
        }
        for endpoint in self.endpoints.iter_mut() {
            if endpoint.standing(now) < Standing::HeldBack && !endpoint.on_trial(now) {
                self.changed |= endpoint.window.relieve(in_flight(endpoint.id), now);
            }
            if endpoint.ejection.on_trial(now) && endpoint.ejection.out != Some(ejection::Out::Trial) {
                endpoint.ejection.out = Some(ejection::Out::Trial);
                self.changed = true;
            }
        }
        self.settle(now);
        self.plan_wake(now);
    }

    /// Whether the candidates changed since the last [`Pool::candidates`] and must be published. Membership, health and
    /// windows make it true at once; weights at most every 5 ms.
    pub fn dirty(&self, now: Instant) -> bool {
        self.changed || self.sampled && now >= self.published + WEIGHTS_EVERY
    }

    /// Everyone who may be picked, with the numbers that [`pick`] needs. Empty: requests wait.
    pub fn candidates(&mut self, now: Instant) -> Vec<Candidate> {
        self.changed = false;
        self.sampled = false;
        self.published = now;
        let cap = if self.settings.max_in_flight == 0 { u32::MAX } else { self.settings.max_in_flight };
        let (best, weights) = self.weigh(now);
        let among_warm = self.endpoints.iter().any(|e| e.standing(now) == best && e.window.limit().is_none());
        let open = best < Standing::HeldBack && !self.orders.paused;
        let chosen = self.endpoints.iter_mut().filter(|e| open && e.standing(now) == best);
        let candidate = |(endpoint, weight): (&mut Endpoint, Weight)| {
            endpoint.trial = weight.trial;
            let window = endpoint.window.limit().unwrap_or(u32::MAX);
            let ceiling = if endpoint.on_trial(now) {
                1
            } else if among_warm {
                window.min(cap)
            } else {
                cap
            };
            Candidate {
                id: endpoint.id,
                address: endpoint.address,
                weight: weight.factor,
                trial: weight.trial,
                limit: window.min(ceiling),
                ceiling,
            }
        };
        chosen.zip(weights).map(candidate).collect()
    }

    /// Every endpoint, candidates or not, for the shell's bookkeeping and the operator's table.
    pub fn endpoints(&self, now: Instant) -> Vec<EndpointView> {
        let (best, weights) = self.weigh(now);
        let mut weights = weights.into_iter();
        let view = |endpoint: &Endpoint| {
            let chosen = best < Standing::HeldBack && endpoint.standing(now) == best;
            let weight = if chosen { weights.next() } else { None }.unwrap_or(Weight::NONE);
            let paused = self.orders.paused.then_some(HeldBack::Paused);
            EndpointView {
                id: endpoint.id,
                address: endpoint.address,
                membership: endpoint.membership,
                health: endpoint.condition.health,
                since: endpoint.since,
                reason: endpoint.reason.clone(),
                suspect: endpoint.suspicion.is_some(),
                ejected_until: endpoint.ejection.until(now),
                drained: endpoint.drained,
                weight: weight.factor,
                window: endpoint.window.limit(),
                mean: endpoint.estimate.mean(),
                held_back: if chosen { paused } else { endpoint.hindrance(now).or(paused) },
            }
        };
        self.endpoints.iter().map(view).collect()
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The best standing there is, and the weights of those who have it.
    fn weigh(&self, now: Instant) -> (Standing, Vec<Weight>) {
        let best = self.best(now);
        let chosen = self.endpoints.iter().filter(|e| best < Standing::HeldBack && e.standing(now) == best);
        (best, balancer::weigh(chosen.map(|e| &e.estimate), self.total, now))
    }

    fn best(&self, now: Instant) -> Standing {
        let mut best = Standing::HeldBack;
        for endpoint in &self.endpoints {
            best = best.min(endpoint.standing(now));
            if best == Standing::Usable {
                break;
            }
        }
        best
    }

    /// Nobody gets requests.
    fn outage(&self, now: Instant) -> bool {
        self.best(now) == Standing::HeldBack
    }

    fn index(&self, id: EndpointId) -> Option<usize> {
        self.endpoints.binary_search_by_key(&id, |e| e.id).ok()
    }

    /// Takes note of the time: every call passes through here.
    fn notice(&mut self, now: Instant) {
        if now.saturating_duration_since(self.seen) > HEARTBEAT + STOPPED {
            self.resumed = Some(now);
        }
        self.seen = self.seen.max(now);
    }

    fn say(&mut self, address: Option<SocketAddr>, kind: EventKind) {
        self.events.push(Event { address, kind });
    }

    /// A change of one endpoint's state: said, explained, and published at once.
    fn transition(&mut self, index: usize, kind: EventKind, reason: &str, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        endpoint.explain(reason, now);
        let address = endpoint.address;
        self.say(Some(address), kind);
        self.touch();
    }

    fn touch(&mut self) {
        self.changed = true;
        self.unsettled = true;
    }

    /// Draws the conclusions for others from a change of one.
    fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.unsettled) {
            self.drain_missing(now);
            self.cap_ejections(now);
        }
    }

    fn probe_by(&mut self, index: usize, at: Instant) {
        let due = &mut self.endpoints[index].condition.probe_due;
        *due = at.min(*due);
        self.wake_by(at);
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake = self.wake.min(at);
    }

    fn plan_wake(&mut self, now: Instant) {
        let mut wake = now + HEARTBEAT;
        self.endpoints.iter().for_each(|e| wake = wake.min(e.condition.probe_due));
        for endpoint in self.endpoints.iter().filter(|e| e.active()) {
            if let Some(ejection::Out::Until(end)) = endpoint.ejection.out {
                wake = wake.min(end);
            }
            if endpoint.standing(now) < Standing::HeldBack
                && !endpoint.on_trial(now)
                && let Some(due) = endpoint.window.due()
            {
                wake = wake.min(due);
            }
        }
        self.wake = wake;
    }
}
