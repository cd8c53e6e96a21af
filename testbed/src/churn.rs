//! A day on which everything goes wrong, one thing after the other, under a load that never retries.
//!
//! Each [`Turn`] is something that Docker and Dokku do to the replicas of an app, in their order: a record appears before
//! its process listens, a dead container's record outlives it and is gone before its address is given away. The times of
//! the proxy and its threads are those of the shipped file. A turn ends when the pool is whole again. What it may not do beside
//! losing requests is noted as a violation; what became of the requests is the [`Verdict`]'s business.

use crate::verdict::{Deed, Deeds};
use crate::{
    App, Container, Fault, Ledger, Load, Loopback, Network, Plan, Protocol, Proxy, Restart, SHIPPED_UPSTREAM, Signal,
    Verdict, Wire, eventually,
};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

/// Replicas of the app.
const REPLICAS: usize = 3;

/// Mean service time of a replica: a few requests are in flight at each, so that a kill meets some.
const MEAN_MS: u32 = 20;

/// From the kill of a container to the moment at which another one's program can listen on its address, at least: what an
/// engine was seen to need (docs/docker-dns.md).
const CHANGE_OF_HANDS: Duration = Duration::from_millis(420);

/// What is sent this long before something happens belongs to the turn: it may be under way when it happens.
const LEAD: Duration = Duration::from_millis(200);

/// How long each turn is looked at after the pool is whole again, so that its p99 is of more than its worst moment.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Something that happens to the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A deploy: new records half a second before the processes listen, then all old replicas get SIGTERM at once, which
    /// they do not handle.
    Replace,
    /// SIGKILL, and a return at another address.
    Return,
    /// SIGSTOP until it is declared down and a while longer.
    Hang,
    /// The name is gone while all replicas live.
    Nameless,
    /// DNS says nothing while a replica dies.
    Silence,
    /// A dead replica's address is given to another app at once.
    Takeover,
    /// All replicas are gone for two seconds.
    Outage,
    /// One answers 500 to everything, at once.
    Failing,
}

impl Turn {
    /// Each of them, as they come on a bad day.
    pub const ALL: [Turn; 8] = [
        Turn::Replace,
        Turn::Return,
        Turn::Hang,
        Turn::Nameless,
        Turn::Silence,
        Turn::Takeover,
        Turn::Outage,
        Turn::Failing,
    ];

    /// What the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Turn::Replace => "all replicas are replaced",
            Turn::Return => "killed, back elsewhere",
            Turn::Hang => "one hangs",
            Turn::Nameless => "the name is gone for 1.2 s",
            Turn::Silence => "DNS is silent, one dies",
            Turn::Takeover => "address given away",
            Turn::Outage => "nobody there for 2 s",
            Turn::Failing => "one answers 500 at once",
        }
    }
}

/// The phase before and between the turns.
pub(crate) const STEADY: &str = "steady";

/// The app, its proxy and its load.
pub struct Churn {
    load: Load,
    proxy: Proxy,
    replicas: Vec<Box<dyn Container>>,
    app: App,
    ledger: Ledger,
    network: Loopback,
    seed: u64,
    rng: fastrand::Rng,
    deeds: Deeds,
    violations: Vec<String>,
    misdirected: u64,
    /// Addresses of the replicas that the last turn was about.
    concerned: Vec<SocketAddr>,
}

impl Churn {
    /// Starts `evenkeel` in front of three replicas, proven and warm, and a load of so many requests a second through it,
    /// a tenth of them POSTs and a twentieth PUTs. The one protocol is the load's, the other the replicas'.
    pub fn start(evenkeel: impl AsRef<Path>, rate: f64, [client, replica]: [Protocol; 2]) -> Churn {
        let seed = crate::seed();
        let network = Loopback::new();
        network.set_lag(Duration::from_millis(500));
        let ledger = Ledger::new();
        let app = ledger.kept_by(App::replica().env("MEAN_MS", MEAN_MS));
        let replicas = network.scale("app", &app, REPLICAS);
        let proxy = Proxy::start_shipped(&network, evenkeel, "app", replica);
        proxy.wait_up(SHIPPED_UPSTREAM, &addresses(&replicas));
        let plan = Plan {
            posts: 0.1,
            puts: 0.05,
            seed,
            protocol: client,
            patience: Duration::from_secs(30),
            ..Plan::new(proxy.address(), rate)
        };
        let load = Load::start(plan);
        load.wait_sent(rate as u64);
        load.phase(STEADY);
        Churn {
            load,
            proxy,
            replicas,
            app,
            ledger,
            network,
            seed,
            rng: fastrand::Rng::with_seed(seed),
            deeds: Deeds::default(),
            violations: vec![],
            misdirected: 0,
            concerned: vec![],
        }
    }

    /// Addresses of the replicas that the last turn was about: those that were replaced, killed, stopped or told to fail.
    pub fn concerned(&self) -> &[SocketAddr] {
        &self.concerned
    }

    /// The load that runs.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// What repeats its order.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The proxy under it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Lets time pass in which nothing happens.
    pub fn rest(&self, time: Duration) {
        self.load.phase(STEADY);
        pass(time);
    }

    /// One of these, drawn at random.
    pub fn draw(&mut self, turns: &[Turn]) -> Turn {
        turns[self.rng.usize(..turns.len())]
    }

    /// Takes a turn, and waits until the pool is whole again.
    pub fn turn(&mut self, turn: Turn) {
        self.load.phase(turn.name());
        self.concerned.clear();
        pass(LEAD);
        match turn {
            Turn::Replace => self.replace(),
            Turn::Return => self.come_back(),
            Turn::Hang => self.hang(),
            Turn::Nameless => self.lose_the_name(),
            Turn::Silence => self.die_in_silence(),
            Turn::Takeover => self.give_away(),
            Turn::Outage => self.vanish(),
            Turn::Failing => self.fail(),
        }
        self.proxy.wait_up(SHIPPED_UPSTREAM, &addresses(&self.replicas));
        pass(AFTERMATH);
        self.load.phase(STEADY);
    }

    /// Ends the load and says what became of it.
    pub fn end(self) -> Verdict {
        let Churn { load, proxy, deeds, violations, misdirected, ledger, .. } = self;
        let report = load.stop_unjudged();
        // The log's count of what it did not say comes a second later.
        pass(Duration::from_millis(1500));
        Verdict::new(report, &ledger, &deeds, violations, misdirected, &proxy)
    }

    fn any(&mut self) -> usize {
        let index = self.rng.usize(..REPLICAS);
        self.concerned.push(self.replicas[index].address());
        index
    }

    fn kill(&mut self, index: usize) {
        let replica = &*self.replicas[index];
        let kill = end(&self.load, Signal::SIGKILL, &[replica]);
        self.deeds.kills.extend(kill);
    }

    fn replace(&mut self) {
        let app = self.app.clone().env("LISTEN_AFTER_MS", 500);
        let new: Vec<_> = (0..REPLICAS).map(|_| self.network.start("app", &app)).collect();
        new.iter().for_each(|r| r.wait_listening());
        // Dokku's checks take ten seconds, but a network that is attached after them makes it less than one.
        let checks = self.rng.u64(..1000);
        pass(Duration::from_millis(checks));
        self.concerned = addresses(&self.replicas);
        let old = std::mem::replace(&mut self.replicas, new);
        let old: Vec<&dyn Container> = old.iter().map(|r| &**r).collect();
        let kills = end(&self.load, Signal::SIGTERM, &old);
        self.deeds.kills.extend(kills);
        pass(Duration::from_secs(1));
    }

    fn come_back(&mut self) {
        let index = self.any();
        self.kill(index);
        pass(Duration::from_millis(700));
        self.replicas[index].restart(Restart::NewAddress);
        self.replicas[index].wait_listening();
    }

    fn hang(&mut self) {
        let index = self.any();
        for replica in &self.replicas {
            ask(replica.address(), "/control");
        }
        let hung = self.replicas[index].address();
        self.replicas[index].pause();
        let mut held = 0;
        let mut fullest = 0;
        eventually("the hung one is declared down", || {
            let endpoints = self.proxy.endpoints(SHIPPED_UPSTREAM);
            for endpoint in &endpoints {
                let count = endpoint["in_flight"].as_u64().unwrap_or(0);
                let most = if is(endpoint, hung) { &mut held } else { &mut fullest };
                *most = count.max(*most);
            }
            endpoints.iter().any(|e| is(e, hung) && e["health"] == "down")
        });
        for (other, replica) in self.replicas.iter().enumerate() {
            if other != index {
                fullest = fullest.max(ask(replica.address(), "/stats")["most_in_flight"].as_u64().unwrap_or(0));
            }
        }
        if held > fullest + 2 {
            self.violations.push(format!("the hung replica held {held} requests, the fullest healthy one {fullest}"));
        }
        // What may run twice moves away; the others stay.
        let down = Instant::now();
        loop {
            let bound = self.load.bound_under_way();
            let endpoints = self.proxy.endpoints(SHIPPED_UPSTREAM);
            let left = endpoints.iter().find(|e| is(e, hung)).and_then(|e| e["in_flight"].as_u64()).unwrap_or(0);
            if left <= bound {
                break;
            }
            if down.elapsed() > Duration::from_secs(2) {
                self.violations.push(format!("{left} requests stay on the hung replica; {bound} may not move"));
                break;
            }
            pass(Duration::from_millis(5));
        }
        pass(Duration::from_secs(1));
        self.replicas[index].resume();
    }

    fn lose_the_name(&mut self) {
        self.network.dns().fail(Fault::NxDomain);
        pass(Duration::from_millis(1200));
        self.network.dns().heal();
    }

    fn die_in_silence(&mut self) {
        let index = self.any();
        self.network.dns().fail(Fault::Silence);
        pass(Duration::from_secs(1));
        self.kill(index);
        pass(Duration::from_secs(4));
        self.network.dns().heal();
        self.replicas[index].restart(Restart::NewAddress);
        self.replicas[index].wait_listening();
    }

    fn give_away(&mut self) {
        let index = self.any();
        let address = ip(self.replicas[index].address());
        self.kill(index);
        // Docker takes the record away before it frees the address.
        self.replicas[index].disconnect();
        pass(CHANGE_OF_HANDS);
        let foreign = self.network.start_at(address, "foreign", &App::replica());
        foreign.wait_listening();
        pass(Duration::from_secs(3));
        let got = ask(foreign.address(), "/stats")["served"].as_u64().unwrap_or(0);
        self.misdirected += got;
        if got > 0 {
            self.violations.push(format!("{got} requests went to the app that was given a dead replica's address"));
        }
        self.replicas[index].restart(Restart::NewAddress);
        self.replicas[index].wait_listening();
    }

    fn vanish(&mut self) {
        let from = self.load.elapsed();
        self.concerned = addresses(&self.replicas);
        (0..REPLICAS).for_each(|index| self.kill(index));
        pass(Duration::from_secs(2));
        self.replicas.iter().for_each(|r| r.restart(Restart::NewAddress));
        self.replicas.iter().for_each(|r| r.wait_listening());
        // Those who waited are let through one after the other, and for so long there is no room for more.
        self.proxy.wait_up(SHIPPED_UPSTREAM, &addresses(&self.replicas));
        eventually("nobody waits any more", || self.proxy.status()["upstreams"][0]["waiting"] == 0);
        self.deeds.outages.push(from..=self.load.elapsed());
    }

    fn fail(&mut self) {
        let index = self.any();
        let (replica, address) = (self.replicas[index].name(), self.replicas[index].address());
        let from = self.load.elapsed();
        ask(address, "/control?mode=fail");
        pass(Duration::from_secs(3));
        ask(address, "/control?mode=ok");
        self.deeds.failures.push(Deed { replica, address, time: from..=self.load.elapsed() });
    }
}

/// Ends these with a signal, all at once; when each was, on the load's clock.
fn end(load: &Load, signal: Signal, replicas: &[&dyn Container]) -> Vec<Deed> {
    let from = load.elapsed();
    let told: Vec<(String, SocketAddr)> = replicas.iter().map(|r| (r.name(), r.address())).collect();
    replicas.iter().for_each(|r| r.signal(signal));
    let ended = |((replica, address), container): ((String, SocketAddr), &&dyn Container)| {
        container.wait_exit();
        Deed { replica, address, time: from..=load.elapsed() }
    };
    told.into_iter().zip(replicas).map(ended).collect()
}

fn pass(time: Duration) {
    std::thread::sleep(time);
}

fn addresses(replicas: &[Box<dyn Container>]) -> Vec<SocketAddr> {
    replicas.iter().map(|r| r.address()).collect()
}

fn ip(address: SocketAddr) -> Ipv4Addr {
    match address.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => unreachable!("the network is of IPv4"),
    }
}

fn is(endpoint: &Value, address: SocketAddr) -> bool {
    endpoint["address"] == address.to_string()
}

/// Asks a replica itself, not through the proxy.
fn ask(at: SocketAddr, target: &str) -> Value {
    let mut wire = Wire::connect(at);
    wire.get(target);
    let response = wire.response().unwrap_or_else(|cut| panic!("{at}{target}: {cut:?}"));
    serde_json::from_slice(&response.body).unwrap_or(Value::Null)
}
