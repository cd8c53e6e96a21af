//! Simulation of many requests over virtual replicas, by the real [`Pool`].
//!
//! Discrete events on a virtual clock: requests arrive at random and do not wait for each other (open loop), replicas have
//! some workers and a queue before them, probes run, things break on a script. Arrivals and the requests' sizes are drawn
//! from the seed alone, so that every policy meets the same load. What came of it is in `scenarios`, and in `table.md`.

mod scenarios;

use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// How requests are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// In turn, as the order of Docker's DNS answers does on average.
    RoundRobin,
    /// Fewest in flight, ties at random: what the peers do.
    LeastConnections,
    /// What the pool says.
    Evenkeel,
}

/// How the requests' sizes are spread around 1.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Exponential,
    /// ±10 %.
    Even,
    /// One in a hundred takes a hundred times as long.
    Bimodal,
    /// σ = 1.5.
    LogNormal,
}

/// A replica and what it is like.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Seconds per request of size 1.
    mean: f64,
    workers: usize,
    /// Answers 500 at once.
    fails: bool,
    /// Answers nothing and accepts everything, like a process that was stopped.
    hangs: bool,
    /// Not in DNS.
    absent: bool,
    /// This many requests take ten times as long at first.
    warmup: usize,
}

/// What all replicas need for each request while it runs, like connections to one database.
#[derive(Clone, Copy, Debug)]
struct Slots {
    all: usize,
    taken: usize,
}

/// A replica of eight workers.
fn replica(milliseconds: f64) -> Kind {
    Kind { mean: milliseconds / 1e3, workers: 8, fails: false, hangs: false, absent: false, warmup: 0 }
}

/// A load, the replicas it meets, and what happens to them.
#[derive(Clone, Debug)]
struct Scenario {
    replicas: Vec<Kind>,
    /// Requests a second.
    rate: f64,
    requests: usize,
    spread: Spread,
    /// Proxies beside each other, each with a pool of its own.
    proxies: usize,
    /// A request that finds none left is answered 424 after a millisecond, and a probe times out.
    slots: Option<usize>,
    /// At this second, this replica becomes like that.
    changes: Vec<(f64, usize, Kind)>,
}

impl Scenario {
    fn new(replicas: Vec<Kind>, rate: f64, requests: usize) -> Self {
        Scenario { replicas, rate, requests, spread: Spread::Exponential, proxies: 1, slots: None, changes: Vec::new() }
    }
}

/// What came of a run.
#[derive(Debug, Default)]
struct Outcomes {
    /// When a request arrived, and how many seconds until its answer; in the order of the answers.
    latencies: Vec<(f64, f64)>,
    /// Those of answers of 200.
    well: Vec<(f64, f64)>,
    /// When a request was placed, and where.
    placed: Vec<(f64, usize)>,
    /// Answers of 500 and 424.
    errors: Vec<f64>,
    /// The most in flight at each replica (all proxies together) since the first change.
    fullest: Vec<u32>,
}

impl Outcomes {
    /// A share of the placed requests in a span of seconds.
    fn share(&self, replica: usize, from: f64, to: f64) -> f64 {
        let all = self.placed.iter().filter(|(at, _)| (from..to).contains(at));
        let (mine, all) = all.fold((0, 0), |(mine, all), (_, r)| (mine + usize::from(*r == replica), all + 1));
        mine as f64 / f64::max(1.0, all as f64)
    }
}

struct Job {
    proxy: usize,
    /// The pool's name of the endpoint, and its index among the replicas.
    id: EndpointId,
    replica: usize,
    arrived: f64,
    sent: f64,
    size: f64,
    load: Load,
    slot: Slot,
}

/// Whether a request has one of the [`Slots`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// None is needed, or it has not begun.
    None,
    Held,
    Refused,
}

enum Event {
    Arrival,
    Done(Job),
    Probed { proxy: usize, id: EndpointId, began: f64, passed: bool },
    Wake { proxy: usize },
    Change(usize),
}

/// What happens when, soonest first, ties in the order of pushing.
#[derive(Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
}

/// Nanoseconds, which unlike seconds have an order; and the count of entries before.
struct Entry(u64, u64, Event);

impl Queue {
    fn push(&mut self, at: f64, event: Event) {
        self.count += 1;
        self.heap.push(Reverse(Entry((at * 1e9) as u64, self.count, event)));
    }

    fn pop(&mut self) -> Option<(f64, Event)> {
        let Reverse(Entry(at, _, event)) = self.heap.pop()?;
        Some((at as f64 / 1e9, event))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Replica {
    kind: Kind,
    busy: usize,
    queue: VecDeque<Job>,
    served: usize,
    in_flight: u32,
}

struct Proxy {
    pool: Pool,
    candidates: Vec<Candidate>,
    /// By replica.
    in_flight: Vec<u32>,
    waiting: VecDeque<(f64, f64)>,
    turn: usize,
}

struct Run<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    start: Instant,
    now: f64,
    queue: Queue,
    replicas: Vec<Replica>,
    proxies: Vec<Proxy>,
    /// Arrivals and sizes: the same for every policy.
    load: fastrand::Rng,
    /// Ties.
    dice: fastrand::Rng,
    placed: usize,
    changed: bool,
    slots: Option<Slots>,
    outcomes: Outcomes,
}

/// Runs a scenario.
fn run(scenario: &Scenario, policy: Policy, seed: u64) -> Outcomes {
    let start = crate::clock::now();
    let settings = Settings {
        port: 1,
        dns_interval: Duration::from_secs(1),
        hold: Duration::from_secs(10),
        probe_interval: Duration::from_secs(1),
        rise: 1,
        fall: 2,
        max_in_flight: 0,
    };
    let replicas: Vec<_> = scenario
        .replicas
        .iter()
        .map(|kind| Replica { kind: *kind, busy: 0, queue: VecDeque::new(), served: 0, in_flight: 0 })
        .collect();
    let proxy = |_| Proxy {
        pool: Pool::new(settings.clone(), start),
        candidates: Vec::new(),
        in_flight: vec![0; replicas.len()],
        waiting: VecDeque::new(),
        turn: 0,
    };
    let proxies = (0..scenario.proxies).map(proxy).collect();
    let outcomes = Outcomes { fullest: vec![0; replicas.len()], ..Outcomes::default() };
    let mut run = Run {
        scenario,
        policy,
        start,
        now: 0.0,
        queue: Queue::default(),
        replicas,
        proxies,
        load: fastrand::Rng::with_seed(seed),
        dice: fastrand::Rng::with_seed(!seed),
        placed: 0,
        changed: false,
        slots: scenario.slots.map(|all| Slots { all, taken: 0 }),
        outcomes,
    };
    run.run();
    run.outcomes
}

/// All requests are one caller's.
const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1));

fn address(replica: usize) -> IpAddr {
    IpAddr::from((0x0a00_0001 + replica as u32).to_be_bytes())
}

fn replica_at(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - 0x0a00_0001) as usize,
        IpAddr::V6(_) => unreachable!("the simulation lists IPv4 only"),
    }
}

impl Run<'_> {
    fn run(&mut self) {
        for (number, (at, _, _)) in self.scenario.changes.iter().enumerate() {
            self.queue.push(*at, Event::Change(number));
        }
        for proxy in 0..self.proxies.len() {
            self.resolve(proxy);
            self.queue.push(0.0, Event::Wake { proxy });
        }
        // After the first probes.
        self.queue.push(0.1, Event::Arrival);
        // Whoever hangs for good keeps what it has.
        let end = 2.0 * self.scenario.requests as f64 / self.scenario.rate + 30.0;
        while self.outcomes.latencies.len() < self.scenario.requests && self.now < end {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            match event {
                Event::Arrival => self.arrive(),
                Event::Done(job) => self.finish(job),
                Event::Probed { proxy, id, began, passed } => {
                    let result = if passed { ProbeResult::Passed } else { ProbeResult::TimedOut };
                    let (began, now) = (self.at(began), self.at(self.now));
                    self.proxies[proxy].pool.probed(id, &result, began, now);
                    self.follow(proxy);
                }
                Event::Wake { proxy } => self.wake(proxy),
                Event::Change(number) => self.change(number),
            }
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn arrive(&mut self) {
        let gap = -(1.0 - self.load.f64()).ln() / self.scenario.rate;
        let size = self.size();
        let proxy = self.load.usize(..self.proxies.len());
        if self.placed + 1 < self.scenario.requests {
            self.queue.push(self.now + gap, Event::Arrival);
        }
        self.placed += 1;
        let waiting = &mut self.proxies[proxy].waiting;
        waiting.push_back((self.now, size));
        // What comes while nobody waits is no backlog.
        let bound = if waiting.len() == 1 { Bound::Ceiling } else { Bound::Window };
        self.place(proxy, bound);
    }

    fn size(&mut self) -> f64 {
        let rng = &mut self.load;
        // Always the same number of draws, so that policies stay in step.
        let (a, b) = (1.0 - rng.f64(), rng.f64());
        match self.scenario.spread {
            Spread::Exponential => -a.ln(),
            Spread::Even => 0.9 + 0.2 * a,
            Spread::Bimodal => (0.5 + a) / 2.0 * if b < 0.01 { 100.0 } else { 1.0 },
            Spread::LogNormal => {
                let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
                (1.5 * normal - 1.125).exp()
            }
        }
    }

    /// Places as many waiting requests as possible. `bound`: that of the first.
    fn place(&mut self, number: usize, bound: Bound) {
        while let Some(&(arrived, size)) = self.proxies[number].waiting.front() {
            let proxy = &mut self.proxies[number];
            let counts = &proxy.in_flight;
            let candidates = &proxy.candidates;
            let chosen = match self.policy {
                Policy::RoundRobin if candidates.is_empty() => None,
                Policy::RoundRobin => {
                    proxy.turn += 1;
                    Some(proxy.turn % candidates.len())
                }
                _ => {
                    let count = |i: usize| counts[replica_at(candidates[i].address)];
                    pick(candidates, bound, count, |_| false, &mut self.dice)
                }
            };
            let Some(chosen) = chosen else { return };
            let id = candidates[chosen].id;
            let replica = replica_at(candidates[chosen].address);
            let load = candidates[chosen].load(counts[replica]);
            proxy.waiting.pop_front();
            proxy.in_flight[replica] += 1;
            self.replicas[replica].in_flight += 1;
            if self.changed {
                let fullest = &mut self.outcomes.fullest[replica];
                *fullest = self.replicas[replica].in_flight.max(*fullest);
            }
            self.outcomes.placed.push((self.now, replica));
            let job = Job { proxy: number, id, replica, arrived, sent: self.now, size, load, slot: Slot::None };
            self.replicas[replica].queue.push_back(job);
            self.serve(replica);
        }
    }

    /// Starts as many queued requests as there are free workers.
    fn serve(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        while !replica.kind.hangs && replica.busy < replica.kind.workers {
            let Some(mut job) = replica.queue.pop_front() else { return };
            replica.busy += 1;
            replica.served += 1;
            let slow = if replica.served <= replica.kind.warmup { 10.0 } else { 1.0 };
            if let Some(slots) = &mut self.slots {
                job.slot = if slots.taken < slots.all { Slot::Held } else { Slot::Refused };
                slots.taken += usize::from(job.slot == Slot::Held);
            }
            let fails = replica.kind.fails || job.slot == Slot::Refused;
            let time = if fails { 1e-3 } else { job.size * slow * replica.kind.mean };
            self.queue.push(self.now + time, Event::Done(job));
        }
    }

    fn finish(&mut self, mut job: Job) {
        let now = self.at(self.now);
        let refused = job.slot == Slot::Refused;
        if let (Slot::Held, Some(slots)) = (std::mem::replace(&mut job.slot, Slot::None), &mut self.slots) {
            slots.taken -= 1;
        }
        let replica = &mut self.replicas[job.replica];
        replica.busy -= 1;
        if replica.kind.hangs {
            // It never answers this one: kept with those that wait before it.
            replica.queue.push_back(job);
            return;
        }
        replica.in_flight -= 1;
        let failed = replica.kind.fails;
        let proxy = &mut self.proxies[job.proxy];
        proxy.in_flight[job.replica] -= 1;
        let first_byte = Duration::from_secs_f64(self.now - job.sent);
        let status = match (failed, refused) {
            (true, _) => 500,
            (_, true) => 424,
            _ => 200,
        };
        let outcome = Outcome::Answered { status, first_byte };
        if self.policy == Policy::Evenkeel {
            let load = Load { at_end: proxy.in_flight[job.replica] + 1, ..job.load };
            proxy.pool.record(job.id, outcome, load, CALLER, now);
        }
        if failed || refused {
            self.outcomes.errors.push(self.now);
        } else {
            self.outcomes.well.push((job.arrived, self.now - job.arrived));
        }
        self.outcomes.latencies.push((job.arrived, self.now - job.arrived));
        let (number, index) = (job.proxy, job.replica);
        self.serve(index);
        self.follow(number);
    }

    fn wake(&mut self, number: usize) {
        let now = self.at(self.now);
        let proxy = &mut self.proxies[number];
        let counts: HashMap<EndpointId, u32> =
            proxy.pool.endpoints(now).iter().map(|e| (e.id, proxy.in_flight[replica_at(e.address)])).collect();
        proxy.pool.tick(|id| counts[&id], now);
        for DueProbe { id, address, .. } in proxy.pool.due_probes(now) {
            let slotless = self.slots.is_some_and(|slots| slots.taken == slots.all);
            let hangs = self.replicas[replica_at(address)].kind.hangs || slotless;
            let (after, passed) = if hangs { (1.0, false) } else { (1e-3, true) };
            self.queue.push(self.now + after, Event::Probed { proxy: number, id, began: self.now, passed });
        }
        let next = proxy.pool.next_wake().saturating_duration_since(self.start).as_secs_f64();
        assert!(next > self.now, "the pool wants to be woken at {next} s when it is {} s", self.now);
        // Not a nanosecond early, or it would be asked again at once.
        self.queue.push(next + 1e-6, Event::Wake { proxy: number });
        self.follow(number);
    }

    /// Does what a shell does after every call: publish, place, move.
    fn follow(&mut self, number: usize) {
        let now = self.at(self.now);
        let proxy = &mut self.proxies[number];
        for event in proxy.pool.take_events() {
            if let EventKind::Down(_) = event.kind {
                let replica = replica_at(event.address.expect("an endpoint's event"));
                self.move_away(number, replica);
            }
        }
        let proxy = &mut self.proxies[number];
        if proxy.pool.dirty(now) {
            proxy.candidates = proxy.pool.candidates(now);
            if self.policy != Policy::Evenkeel {
                let up = proxy.pool.endpoints(now).into_iter().filter(|e| e.health == Health::Up);
                let plain = |e: EndpointView| Candidate {
                    id: e.id,
                    address: e.address,
                    weight: 1.0,
                    trial: false,
                    limit: u32::MAX,
                    ceiling: u32::MAX,
                };
                proxy.candidates = up.map(plain).collect();
            }
        }
        self.place(number, Bound::Window);
    }

    /// Requests that wait on a replica that was declared down go elsewhere: here all of them may.
    fn move_away(&mut self, number: usize, index: usize) {
        let now = self.at(self.now);
        let replica = &mut self.replicas[index];
        let (gone, kept) = std::mem::take(&mut replica.queue).into_iter().partition(|job| job.proxy == number);
        replica.queue = kept;
        let gone: VecDeque<Job> = gone;
        for job in gone {
            replica.in_flight -= 1;
            let proxy = &mut self.proxies[number];
            proxy.in_flight[index] -= 1;
            proxy.pool.record(job.id, Outcome::Abandoned, job.load, CALLER, now);
            proxy.waiting.push_back((job.arrived, job.size));
        }
    }

    fn change(&mut self, number: usize) {
        let (_, index, kind) = self.scenario.changes[number];
        self.changed = true;
        let replica = &mut self.replicas[index];
        replica.kind = kind;
        replica.served = 0;
        self.serve(index);
        for proxy in 0..self.proxies.len() {
            self.resolve(proxy);
            self.queue.push(self.now, Event::Wake { proxy });
        }
    }

    fn resolve(&mut self, number: usize) {
        let now = self.at(self.now);
        let listed = self.replicas.iter().enumerate().filter(|(_, r)| !r.kind.absent).map(|(i, _)| address(i));
        let resolution = Resolution::Addresses(listed.collect());
        let pool = &mut self.proxies[number].pool;
        pool.asked(now);
        pool.resolved(&resolution, &[], now, now);
    }
}
