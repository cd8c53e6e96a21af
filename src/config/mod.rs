//! The configuration: `proxy.toml`, `${NAME}` from the environment, `UPSTREAM` and `PORT`, parsed into a [`Config`] that
//! is valid because it exists.
//!
//! A file that is there is the whole configuration. Without one, `UPSTREAM=host:port` alone is enough. Every value has a
//! default and a limit, both named in [`limits`] and in the `Default` of its section; what is wrong is said with the
//! file, the key, the value and what to write instead, all problems at once. Nothing here resolves a name, binds a
//! socket or watches the file: that is for those who use a `Config`.
//!
//! [`file`] reads the bytes, [`section`] walks the tables and knows which keys nobody asked for, [`expand`] fills in the
//! environment, [`value`] turns one value into a type, [`check`] makes the whole of them.

mod access_log;
mod check;
mod expand;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod limits;
mod section;
mod statuses;
#[cfg(test)]
mod tests;
mod value;

pub use access_log::AccessLog;
pub use statuses::Statuses;

use crate::pool;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The environment: a variable's value, if it is set. The shell passes the process's; tests pass their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[dns]`
    pub dns: Dns,
    /// `[upstream.NAME]`, in the file's order; at least one.
    pub upstreams: Vec<Arc<Upstream>>,
    /// `[[route]]`, first match wins; at least one, every upstream reached.
    pub routes: Vec<Route>,
}

impl Config {
    /// Reads the configuration: the file at `path` (`--config`), else the one that `EVENKEEL_CONFIG` names, else
    /// `./proxy.toml` if there is one, else `UPSTREAM` from the environment.
    ///
    /// # Errors
    /// The file is named but not there, cannot be read, or says something that cannot be meant; or there is neither a
    /// file nor `UPSTREAM`. The error holds every problem that was found.
    pub fn load(path: Option<&Path>, env: Env<'_>) -> Result<Config, ConfigError> {
        Config::of(Config::read(path, env)?.as_ref(), env)
    }

    /// The text of the file that [`Config::load`] reads; `None` where there is none and nobody named one.
    ///
    /// # Errors
    /// The file is named but not there, is not a regular file of at most [`limits::FILE`], or cannot be read.
    pub fn read(path: Option<&Path>, env: Env<'_>) -> Result<Option<FileText>, ConfigError> {
        file::read(path, env)
    }

    /// The configuration of a file that was read, or of the environment alone.
    ///
    /// # Errors
    /// As [`Config::parse`]; or there is neither a file nor `UPSTREAM`.
    pub fn of(file: Option<&FileText>, env: Env<'_>) -> Result<Config, ConfigError> {
        match file {
            Some(FileText { name, text }) => Config::parse(text, name, env),
            None => check::environment(env),
        }
    }

    /// Where the process that was started with this configuration listens and is asked, which it keeps whatever becomes
    /// of the file. So a file that is wrong by now, and that the process refused for that, is no obstacle.
    pub fn sockets(path: Option<&Path>, env: Env<'_>) -> Sockets {
        match file::read(path, env) {
            Ok(Some(file)) => check::sockets(&file.text, env),
            Ok(None) => check::sockets(check::NO_FILE, env),
            Err(_) => check::sockets("", env),
        }
    }

    /// The file that [`Config::load`] reads, whether it is there or not: what a reload watches.
    pub fn path(path: Option<&Path>, env: Env<'_>) -> PathBuf {
        file::path(path, env).0
    }

    /// Parses the text of a file; `file_name` is what its problems are reported under.
    ///
    /// # Errors
    /// Every problem that was found, or the first where the text is not TOML.
    pub fn parse(text: &str, file_name: &str, env: Env<'_>) -> Result<Config, ConfigError> {
        check::text(text, file_name, env)
    }

    /// What the pool of `upstream` needs to know.
    pub fn pool_settings(&self, upstream: &Upstream) -> pool::Settings {
        pool::Settings {
            port: upstream.port,
            dns_interval: self.dns.interval,
            hold: self.dns.hold,
            probe_interval: upstream.probe.interval,
            rise: upstream.probe.rise,
            fall: upstream.probe.fall,
            max_in_flight: upstream.max_in_flight,
        }
    }

    /// The keys of `new` that a running process cannot take over: sockets and threads are made at the start.
    pub fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let (old, new) = (&self.server, &new.server);
        let changed = [
            ("listen", old.listen != new.listen),
            ("admin", old.admin != new.admin),
            ("threads", old.threads != new.threads),
            ("max_connections", old.max_connections != new.max_connections),
            ("reuse_port", old.reuse_port != new.reuse_port),
        ];
        changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
    }
}

/// Where a process listens for clients and for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// `server.listen`
    pub listen: SocketAddr,
    /// `server.admin`; `None` is off.
    pub admin: Option<SocketAddr>,
    /// `server.reuse_port`: other processes may listen on both as well.
    pub reuse_port: bool,
}

/// A configuration file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileText {
    /// What problems are reported under: its path.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Why there is no [`Config`]: every problem found, each a line (or a few) with the place, what is wrong and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// The problems, in the file's order as far as possible; at least one.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(crate) fn one(problem: String) -> Self {
        ConfigError { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.problems.split_at(self.problems.len().min(limits::PROBLEMS_SHOWN));
        f.write_str(&shown.join("\n"))?;
        if rest.is_empty() { Ok(()) } else { write!(f, "\nand {} more", rest.len()) }
    }
}

impl std::error::Error for ConfigError {}

/// `[server]`: what clients meet.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Whether the file says so. Else IPv4 alone will do where the host has no IPv6.
    pub listen_is_set: bool,
    /// Where the operator asks; `None` is off.
    pub admin: Option<SocketAddr>,
    /// Whether another process of the same user may listen on the same port, so that one can take over from the other.
    pub reuse_port: bool,
    /// Worker threads, each with its own listener; 0: as many as the CPU quota allows.
    pub threads: usize,
    /// After SIGTERM, the longest time until the process ends.
    pub drain: Duration,
    /// From a request's first byte to the end of its head.
    pub header_timeout: Duration,
    /// Bytes of a request's head.
    pub max_header: usize,
    /// Bytes of a request's target.
    pub max_target: usize,
    /// Bytes of heads and of bodies kept for another attempt, over all clients, beyond 16 KiB for each.
    pub max_buffered: usize,
    /// The longest pause within a body, either way.
    pub body_idle: Duration,
    /// How long a client's connection may wait for its next request.
    pub client_idle: Duration,
    /// Client connections at once; 0: from the descriptor limit.
    pub max_connections: usize,
    /// Whether the log and `/status` show the queries of requests' targets.
    pub log_query: bool,
    /// Which requests get a line in the log.
    pub access_log: AccessLog,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            // IPv4 and IPv6: on a network with both, the alias has addresses of both, and clients try IPv6 first.
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80)),
            listen_is_set: false,
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9180))),
            // A second process on a port is a mistake, unless somebody says that it is none.
            reuse_port: false,
            threads: 0,
            // `docker stop` and compose leave 10 s between SIGTERM and SIGKILL; the second is for what cuts the rest, on
            // a busy host. Who grants more (Dokku: 30 s) may set more.
            drain: Duration::from_secs(9),
            header_timeout: Duration::from_secs(10),
            max_header: 64 << 10,
            max_target: 8 << 10,
            max_buffered: 64 << 20,
            body_idle: Duration::from_secs(30),
            client_idle: Duration::from_secs(60),
            max_connections: 0,
            // Queries hold tokens and personal data, and logs are kept and sent on.
            log_query: false,
            access_log: AccessLog::Off,
        }
    }
}

/// `[dns]`: how upstream names are asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// The server to ask; `None`: those of resolv.conf, reread when it changes.
    pub server: Option<SocketAddr>,
    /// Time between two questions for a name.
    pub interval: Duration,
    /// How long one question may take.
    pub timeout: Duration,
    /// Which addresses a name is asked for.
    pub family: Family,
    /// How long proven endpoints outlive an answer that the name is gone.
    pub hold: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            server: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            family: Family::Ipv4,
            hold: Duration::from_secs(10),
        }
    }
}

/// `family`: which addresses a name is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records. Docker has them for every container, unless the network is for IPv6 only.
    Ipv4,
    /// AAAA records.
    Ipv6,
    /// A records, and AAAA records of a name that has none: a replica with both is one endpoint, not two.
    Any,
}

/// `[upstream.NAME]`: one name in DNS and how its replicas are treated.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// NAME, as routes and metrics call it.
    pub name: Arc<str>,
    /// The host part of `address`.
    pub host: Host,
    /// The port part of `address`.
    pub port: u16,
    /// What its replicas speak.
    pub protocol: Protocol,
    /// What a client meets when no replica can be reached.
    pub on_failure: OnFailure,
    /// How long after an outage began requests wait for a replica.
    pub wait: Duration,
    /// Requests that wait at once.
    pub max_waiting: usize,
    /// The longest time for one TCP connect.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's first.
    pub response_timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// Requests in flight per endpoint; 0: no cap.
    pub max_in_flight: u32,
    /// How long a connection to a replica is kept unused.
    pub idle_timeout: Duration,
    /// Connections kept per endpoint.
    pub max_idle: usize,
    /// What replicas see as `Host`.
    pub host_header: HostHeader,
    /// Whether replicas are told of the client.
    pub forwarded: Forwarded,
    /// `[upstream.NAME.probe]`
    pub probe: Probe,
}

impl Upstream {
    /// An upstream of which nothing is said but its address.
    fn new(name: &str, host: Host, port: u16) -> Self {
        Upstream {
            name: name.into(),
            port,
            protocol: Protocol::Http1,
            on_failure: OnFailure::Respond,
            wait: Duration::from_secs(5),
            max_waiting: 16_384,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(60),
            retries: 2,
            max_in_flight: 0,
            // Below the 5 s after which Node and uvicorn close a connection that nobody uses.
            idle_timeout: Duration::from_secs(4),
            max_idle: 256,
            host_header: HostHeader::Pass,
            forwarded: Forwarded::Off,
            probe: Probe {
                path: None,
                grpc: None,
                protocol: Protocol::Http1,
                healthy: Statuses::default(),
                host: host.to_string(),
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 2,
            },
            host,
        }
    }
}

/// The host of an upstream's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name that DNS resolves; lower case, without a trailing dot.
    Name(String),
    /// One fixed address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    /// As in `Host`: an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// `on_failure`: what a client meets when no replica can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// An answer 502, 503 or 504 with `Proxy-Status`.
    Respond,
    /// The connection closed without an answer, as a direct dial would have ended.
    Close,
}

/// `host`: what replicas see as `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client sent.
    Pass,
    /// This instead.
    Replace(http::HeaderValue),
}

/// `protocol`: what replicas speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 section 3.3).
    H2c,
}

/// `forwarded`: whether replicas are told of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing is added.
    Off,
    /// `Forwarded` and `X-Forwarded-For/-Proto/-Host` are appended.
    Append,
}

/// `[upstream.NAME.probe]`: how a replica's health is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The path of an HTTP probe; `None`, without `grpc`: a TCP connect is enough.
    pub path: Option<String>,
    /// The service of a gRPC probe (`grpc.health.v1.Health/Check`); empty: the server as a whole.
    pub grpc: Option<String>,
    /// What it speaks: as requests do.
    pub protocol: Protocol,
    /// Statuses that pass: 2xx where nothing is said; empty without `path`.
    pub healthy: Statuses,
    /// The probe's `Host`.
    pub host: String,
    /// Time between two probes of an endpoint.
    pub interval: Duration,
    /// How long one probe may take; not longer than `interval`.
    pub timeout: Duration,
    /// Consecutive passes until a down endpoint is up.
    pub rise: u32,
    /// Consecutive failures until an up endpoint is down.
    pub fall: u32,
}

/// `[[route]]`: which requests go to which upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// The request's host, lower case, without port or trailing dot, an IPv6 address in brackets; `None`: any.
    pub host: Option<String>,
    /// Whole segments at the start of the raw path; `None`: any. Never ends in a slash.
    pub path_prefix: Option<String>,
    /// Whether the prefix is taken off before the request goes on; never without one.
    pub strip_prefix: bool,
}
