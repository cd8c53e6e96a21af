//! A contender in front of replicas of its own, for one measurement.

use crate::conduct::Conduct;
use crate::dns::Dns;
use crate::kind::Kind;
use crate::load::{Load, Pace, Plan};
use crate::origin::Origin;
use crate::peer::{Limits, Peer, Running, Upstream};
use crate::process::{Cores, Process};
use crate::record::Record;
use crate::request::Request;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The Host of all requests.
const HOST: &str = "app.internal";

/// Between the numbers of two loads: more than a load sends.
const STRIDE: u64 = 1 << 32;

/// Replicas and proxies that run, until it is dropped.
#[derive(Debug)]
pub struct Scene {
    /// Who is measured.
    pub kind: Kind,
    /// The replicas.
    pub origin: Origin,
    running: Vec<Running>,
    cores: Cores,
    seed: u64,
    loads: AtomicU64,
    _dns: Dns,
}

impl Scene {
    /// Starts so many proxies in front of these replicas.
    ///
    /// # Errors
    /// The peer or the replicas do not start.
    pub fn start(
        peer: &Peer,
        proxies: usize,
        replicas: Vec<Conduct>,
        limits: Option<Limits>,
        seed: u64,
        cores: &Cores,
    ) -> Result<Scene, String> {
        let fail = |error: std::io::Error| format!("the replicas cannot be started: {error}");
        let origin = Origin::start(replicas, cores, seed).map_err(fail)?;
        let dns = Dns::start(&origin.addresses, seed).map_err(fail)?;
        let to = Upstream {
            addresses: origin.addresses.clone(),
            dns: dns.address,
            host: HOST.into(),
            path: "/".into(),
            ours: true,
            limits,
        };
        let running = (0..proxies).map(|_| peer.start(&to, 1, cores)).collect::<Result<_, _>>()?;
        let loads = AtomicU64::new(0);
        Ok(Scene { kind: peer.kind, origin, running, cores: cores.clone(), seed, loads, _dns: dns })
    }

    /// Where clients connect to.
    pub fn targets(&self) -> Vec<std::net::SocketAddr> {
        self.running.iter().flat_map(|one| one.targets.clone()).collect()
    }

    /// The process of the only proxy.
    pub fn process(&self) -> Option<&Process> {
        self.running.first()?.process.as_ref()
    }

    /// Requests each of which is the only one of its kind.
    pub fn numbered(&self, pace: Pace, connections: usize) -> Load {
        self.load(Request::numbered(HOST), pace, connections)
    }

    /// The same path again and again.
    pub fn path(&self, path: &str, pace: Pace) -> Load {
        self.load(Request::get(HOST, path, None), pace, 0)
    }

    fn load(&self, request: Request, pace: Pace, connections: usize) -> Load {
        let turn = self.loads.fetch_add(1, Ordering::Relaxed);
        let plan = Plan {
            targets: self.targets(),
            connections,
            request,
            pace,
            seed: self.seed + 1000 * turn,
            first: turn * STRIDE,
        };
        Load::start(&plan, &self.cores)
    }

    /// What became of numbered requests that came at this rate for this time.
    pub fn watch(&self, rate: f64, time: Duration) -> Record {
        let load = self.numbered(Pace::Pooled(rate), 0);
        load.record();
        std::thread::sleep(time);
        load.stop()
    }
}

/// Waits until it is so; false when that took longer than `patience`.
pub fn wait(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
