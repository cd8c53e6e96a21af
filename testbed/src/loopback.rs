//! The Docker network without Docker: processes on addresses 127.x.y.z, found through a resolver of their own.
//!
//! Each network has a subnet 127.x.y.0/24 to itself, claimed by binding its resolver's socket, so that any number of
//! tests run side by side, in one process or in many. More addresses than one subnet holds are taken from further ones.

use crate::{App, Container, Dns, Network, Origin, Process, Restart, Signal, Wire, eventually, wire};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// A network on loopback. What it started must be dropped by the test before or after it, in any order.
#[derive(Debug)]
pub struct Loopback {
    inner: Arc<Inner>,
}

impl Loopback {
    /// A network with nobody on it, of a new [`seed`](crate::seed).
    ///
    /// # Panics
    /// When no subnet is free: hundreds of networks of processes that still run.
    pub fn new() -> Loopback {
        let seed = crate::seed();
        let (subnet, dns) = (0..500)
            .find_map(|_| {
                let subnet = next_subnet();
                let dns = Dns::listen((host(subnet, 1), RESOLVER_PORT).into(), seed);
                Some((subnet, dns.ok()?))
            })
            .expect("a free subnet in 127.0.0.0/8");
        let port = PORTS
            .into_iter()
            .find(|port| is_free((host(subnet, 2), *port).into()))
            .expect("one of a few ports that nobody on this machine listens on at every address");
        let inner = Arc::new(Inner {
            dns,
            port,
            free: Mutex::new(Hosts { subnet, next: 2, claims: vec![] }),
            names: Mutex::new(HashMap::new()),
            lag: Mutex::new(Duration::from_millis(100)),
            members: Mutex::new(vec![]),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("janitor".into())
            .spawn(move || tidy(&weak))
            .expect("a thread for removing records");
        Loopback { inner }
    }

    /// The resolver, to fail or to list what is not there.
    pub fn dns(&self) -> &Dns {
        &self.inner.dns
    }

    /// An address that nobody has, and that nobody will be given.
    pub fn free_address(&self) -> Ipv4Addr {
        self.inner.free.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    /// How long a record outlives its process. Docker's goes up to 2 s later; here it is 100 ms unless changed.
    pub fn set_lag(&self, lag: Duration) {
        *self.inner.lag.lock().unwrap_or_else(|e| e.into_inner()) = lag;
    }

    /// As [`Network::start`], at an address of the caller's choice: one that another container just left.
    pub fn start_at(&self, address: Ipv4Addr, alias: &str, app: &App) -> Box<dyn Container> {
        let member = Arc::new(Member {
            network: self.inner.clone(),
            alias: alias.to_lowercase(),
            name: self.inner.next_name(alias),
            app: app.clone(),
            state: Mutex::new(State { address, process: None, ended: None, listed: false }),
        });
        self.inner.members.lock().unwrap_or_else(|e| e.into_inner()).push(Arc::downgrade(&member));
        member.run(&mut member.state());
        Box::new(Handle(member))
    }

    /// A replica under `alias` whose every byte a test decides; see [`Origin`].
    pub fn origin(
        &self,
        alias: &str,
        script: impl Fn(&wire::Head, &mut Wire, usize) + Send + Sync + 'static,
    ) -> Origin {
        let address = self.free_address();
        let origin = Origin::listen((address, self.inner.port).into(), script).expect("a free address");
        self.inner.dns.add(alias, address);
        let inner = self.inner.clone();
        let alias = alias.to_owned();
        origin.when_dropped(move || inner.dns.remove(&alias, address))
    }

    /// An address under `alias` at which nobody listens.
    pub fn nobody(&self, alias: &str) -> SocketAddr {
        let address = self.free_address();
        self.inner.dns.add(alias, address);
        (address, self.inner.port).into()
    }
}

impl Default for Loopback {
    fn default() -> Self {
        Loopback::new()
    }
}

impl Network for Loopback {
    fn resolver(&self) -> SocketAddr {
        self.inner.dns.address()
    }

    fn port(&self) -> u16 {
        self.inner.port
    }

    fn host(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn keep_records(&self) {
        self.set_lag(Duration::from_secs(3600));
    }

    fn start(&self, alias: &str, app: &App) -> Box<dyn Container> {
        self.start_at(self.free_address(), alias, app)
    }
}

/// Not 53, which needs root, nor 5353, which mDNS takes at every address.
const RESOLVER_PORT: u16 = 5300;

/// The usual one, and others for machines where somebody listens on it at every address. Below the ephemeral range.
const PORTS: [u16; 4] = [8080, 18080, 28080, 31080];

#[derive(Debug)]
struct Inner {
    dns: Dns,
    port: u16,
    free: Mutex<Hosts>,
    names: Mutex<HashMap<String, usize>>,
    lag: Mutex<Duration>,
    members: Mutex<Vec<Weak<Member>>>,
}

impl Inner {
    fn next_name(&self, alias: &str) -> String {
        let mut names = self.names.lock().unwrap_or_else(|e| e.into_inner());
        let number = names.entry(alias.to_owned()).or_default();
        *number += 1;
        format!("{alias}.{number}")
    }
}

/// Removes the records of what has ended, a while after it has.
fn tidy(network: &Weak<Inner>) {
    while let Some(inner) = network.upgrade() {
        let lag = *inner.lag.lock().unwrap_or_else(|e| e.into_inner());
        let members: Vec<_> = {
            let mut members = inner.members.lock().unwrap_or_else(|e| e.into_inner());
            members.retain(|m| m.strong_count() > 0);
            members.iter().filter_map(Weak::upgrade).collect()
        };
        for member in members {
            member.forget_if_ended(lag);
        }
        drop(inner);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug)]
struct Member {
    network: Arc<Inner>,
    alias: String,
    name: String,
    app: App,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    address: Ipv4Addr,
    process: Option<Process>,
    ended: Option<Instant>,
    listed: bool,
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn run(&self, state: &mut State) {
        self.list(state);
        let mut command = Command::new(&self.app.program);
        command
            .args(&self.app.args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs([("HOST", state.address.to_string()), ("PORT", self.network.port.to_string())])
            .env("NAME", &self.name)
            .envs(self.app.env.iter().cloned());
        state.ended = None;
        state.process = Some(Process::spawn(&self.name, command).unwrap_or_else(|e| panic!("{e}")));
    }

    fn list(&self, state: &mut State) {
        self.network.dns.add(&self.alias, state.address);
        self.network.dns.set_pointer(state.address, &format!("{}.testbed", self.name));
        state.listed = true;
    }

    fn unlist(&self, state: &mut State) {
        if std::mem::take(&mut state.listed) {
            self.network.dns.remove(&self.alias, state.address);
        }
    }

    fn forget_if_ended(&self, lag: Duration) {
        let mut state = self.state();
        if state.process.as_ref().is_none_or(|p| p.exited().is_none()) {
            return;
        }
        let ended = *state.ended.get_or_insert_with(Instant::now);
        if ended.elapsed() >= lag {
            self.unlist(&mut state);
        }
    }
}

struct Handle(Arc<Member>);

impl Container for Handle {
    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn address(&self) -> SocketAddr {
        (self.0.state().address, self.0.network.port).into()
    }

    fn pid(&self) -> u32 {
        self.0.state().process.as_ref().map_or(0, Process::pid)
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.0.state().process {
            process.signal(signal);
        }
    }

    fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        // Each thread stops at its own next moment.
        eventually("all threads stand still", || match &self.0.state().process {
            Some(process) => stands_still(process.pid()),
            None => true,
        });
    }

    fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn restart(&self, how: Restart) {
        let mut state = self.0.state();
        state.process = None;
        if how == Restart::NewAddress {
            self.0.unlist(&mut state);
            state.address = self.0.network.free.lock().unwrap_or_else(|e| e.into_inner()).take();
        }
        self.0.run(&mut state);
    }

    fn rename(&self, away: Duration) {
        self.0.unlist(&mut self.0.state());
        std::thread::sleep(away);
        self.0.list(&mut self.0.state());
    }

    fn disconnect(&self) {
        self.0.unlist(&mut self.0.state());
    }

    fn exited(&self) -> Option<i32> {
        let code = |s: ExitStatus| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0));
        self.0.state().process.as_ref().and_then(Process::exited).map(code)
    }

    fn output(&self) -> String {
        self.0.state().process.as_ref().map(Process::output).unwrap_or_default()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.process = None;
        self.0.unlist(&mut state);
    }
}

/// Whether one can listen there. Nothing listens for the answer: a child that is forked just then would hold the listener until
/// it runs its program, and whoever wants the address next would find it taken.
pub(crate) fn is_free(address: SocketAddr) -> bool {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    bind().is_ok()
}

/// Whether no thread of a process runs: each is stopped or has ended.
fn stands_still(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok()).all(|stat| {
        // Its name, in brackets, may hold anything.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't', 'Z', 'X']))
    })
}

/// The addresses of a network, handed out once each.
#[derive(Debug)]
struct Hosts {
    subnet: Ipv4Addr,
    next: u8,
    /// Sockets that claim the subnets after the first, whose claim is the resolver itself.
    claims: Vec<UdpSocket>,
}

impl Hosts {
    fn take(&mut self) -> Ipv4Addr {
        if self.next == 255 {
            let claim = |subnet| UdpSocket::bind((host(subnet, 1), RESOLVER_PORT)).map(|s| (subnet, s));
            let (subnet, socket) =
                (0..500).find_map(|_| claim(next_subnet()).ok()).expect("a free subnet in 127.0.0.0/8");
            (self.subnet, self.next) = (subnet, 2);
            self.claims.push(socket);
        }
        let address = host(self.subnet, self.next);
        self.next += 1;
        address
    }
}

fn host(subnet: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.octets();
    Ipv4Addr::new(a, b, c, number)
}

/// The next subnet to try. Starts at a place of this process's own, so that processes seldom try the same.
fn next_subnet() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // 2654435761 is the golden ratio of 2^32 (Knuth's multiplicative hash): neighbouring pids land far apart.
    let place = std::process::id().wrapping_mul(2_654_435_761) >> 16;
    let place = (place + COUNT.fetch_add(1, Ordering::Relaxed)) & 0xffff;
    // 127.0.0.0/16 is where everybody else is.
    Ipv4Addr::new(127, (1 + (place >> 8) % 254) as u8, (place & 0xff) as u8, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn networks_share_no_address_and_never_run_out() {
        let (one, other) = (Loopback::new(), Loopback::new());
        let mut seen = HashSet::new();
        for _ in 0..300 {
            assert!(seen.insert(one.free_address()));
            assert!(seen.insert(other.free_address()));
        }
        assert!(seen.iter().all(|a| a.is_loopback() && a.octets()[1] > 0));
    }
}
