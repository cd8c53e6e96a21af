//! `evenkeel check`: resolves and probes each upstream once, says what it found, and guesses what is wrong.
//!
//! It asks as the running proxy would, through the same resolver and prober, but as a process of its own: run it where the
//! proxy runs, in its container.

use super::paint::{Paint, count, latency};
use crate::clock;
use crate::config::{self, Config, Host};
use crate::discovery::{Own, Resolve, Resolver};
use crate::pool::{ProbeResult, Resolution};
use crate::probe::{Probe, Prober};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where apps listen: the web's port, Node's and Rails', Dokku's default, Django's and uvicorn's, and two that many images
/// expose.
const USUAL_PORTS: [u16; 6] = [80, 3000, 5000, 8000, 8080, 9090];

/// Port of a Dokku app whose image exposes none.
const DOKKU_PORT: u16 = 5000;

/// A connect on a container network takes far less; a dropped SYN is no open port.
const CONNECT: Duration = Duration::from_millis(500);

/// Prints what is found. `file` is where `config` was read from, if it is there. Succeeds if each upstream has at least one
/// replica that works.
pub async fn check(config: &Config, file: &Path) -> ExitCode {
    let paint = Paint::for_stdout();
    let origin = if file.exists() { file.display().to_string() } else { "the environment".to_owned() };
    println!(
        "{origin}: {}, {}, {}",
        paint.good("valid"),
        count(config.upstreams.len(), "upstream"),
        count(config.routes.len(), "route")
    );
    let resolver = Resolver::new(config.dns.clone());
    let mut all_work = true;
    for upstream in &config.upstreams {
        let (report, works) = examine(config, upstream, &resolver, paint).await;
        print!("{report}");
        all_work &= works;
    }
    if all_work { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What there is to say of one upstream, and whether it works.
pub(super) async fn examine(
    config: &Config,
    upstream: &config::Upstream,
    resolver: &Resolver,
    paint: Paint,
) -> (String, bool) {
    let mut text = format!("{} = {}:{}\n", paint.bold(&upstream.name), upstream.host, upstream.port);
    let asked = clock::now();
    let resolution = resolver.resolve(&upstream.host).await;
    let took = clock::now().saturating_duration_since(asked).as_secs_f64();
    let addresses = match resolution {
        Resolution::Addresses(mut addresses) => {
            addresses.sort_unstable();
            addresses.dedup();
            let _ = writeln!(text, "  resolves to {} in {}", addresses_of(addresses.len()), latency(took));
            addresses
        }
        resolution => {
            let said = match &resolution {
                Resolution::Failed(why) => format!("does not resolve: {why}"),
                _ => "does not resolve: no such name".to_owned(),
            };
            let _ = writeln!(text, "  {}", paint.bad(&said));
            let guess = guess_name(config, &upstream.host, &resolution, resolver).await;
            let _ = writeln!(text, "  {guess}");
            return (text, false);
        }
    };
    let own = Own::new(std::iter::once(config.server.listen).chain(config.server.admin)).addresses(upstream.port);
    let (own, foreign): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(|address| own.contains(address));
    for address in &own {
        let line = format!("{} is this proxy itself, so it is dropped", SocketAddr::new(*address, upstream.port));
        let _ = writeln!(text, "  {}", paint.bad(&line));
    }
    let results = probe_all(foreign, upstream).await;
    for (address, result) in &results {
        let line = match result {
            ProbeResult::Passed => paint.good(passed(upstream)),
            ProbeResult::Refused => paint.bad("refuses connections"),
            ProbeResult::TimedOut => paint.bad(&format!("no answer within {:?}", upstream.probe.timeout)),
            ProbeResult::Unhealthy(why) => paint.bad(why),
        };
        let _ = writeln!(text, "  {address}  {line}");
    }
    let works = results.iter().any(|(_, result)| *result == ProbeResult::Passed);
    if !works {
        let guess = if results.is_empty() {
            "every address is this proxy: an alias of the app is also the proxy's own; give the app another".to_owned()
        } else {
            guess_failure(upstream, &results).await
        };
        let _ = writeln!(text, "  {guess}");
    }
    (text, works)
}

fn addresses_of(number: usize) -> String {
    if number == 1 { "1 address".to_owned() } else { format!("{number} addresses") }
}

fn passed(upstream: &config::Upstream) -> &'static str {
    if upstream.probe.path.is_some() { "answers its probe" } else { "accepts connections" }
}

/// All at once, in the addresses' order.
async fn probe_all(addresses: Vec<IpAddr>, upstream: &config::Upstream) -> Vec<(SocketAddr, ProbeResult)> {
    let prober = Arc::new(Prober::new("check"));
    let mut probes = JoinSet::new();
    for address in addresses {
        let (prober, how) = (prober.clone(), upstream.probe.clone());
        let address = SocketAddr::new(address, upstream.port);
        probes.spawn(async move { (address, prober.probe(address, &how).await) });
    }
    let mut results = probes.join_all().await;
    results.sort_unstable_by_key(|(address, _)| *address);
    results
}

/// What may be wrong with a name that does not resolve.
async fn guess_name(config: &Config, host: &Host, resolution: &Resolution, resolver: &Resolver) -> String {
    let Host::Name(name) = host else { return String::new() };
    // Aliases as Dokku's network plugin makes them, and Swarm's name for all of a service's tasks.
    for other in [format!("{name}.web"), format!("tasks.{name}")] {
        if let Resolution::Addresses(found) = resolver.resolve(&Host::Name(other.clone())).await {
            return format!("{other} resolves to {}: use that name", addresses_of(found.len()));
        }
    }
    let server_fails = |why: &str| why.contains("SERVFAIL");
    match resolution {
        Resolution::Failed(why) if !server_fails(why) => match config.dns.server {
            Some(server) => {
                format!("is there a DNS server at {server}? Without dns.server, resolv.conf says whom to ask")
            }
            None => "is the DNS server of /etc/resolv.conf up? Docker's own, 127.0.0.11, is only on networks made by \
                     `docker network create`, not on the default bridge"
                .to_owned(),
        },
        _ => {
            let dokku = match name.contains('.') {
                true => String::new(),
                false => format!(" Dokku's network plugin names it APP.PROCESS, e.g. {name}.web"),
            };
            format!(
                "no container on this proxy's networks has that name: is the app started and on the same network \
                 (docker network inspect), and is \"{name}\" its alias there?{dokku}"
            )
        }
    }
}

/// What may be wrong where no replica passes.
async fn guess_failure(upstream: &config::Upstream, results: &[(SocketAddr, ProbeResult)]) -> String {
    let all = |test: fn(&ProbeResult) -> bool| results.iter().all(|(_, result)| test(result));
    if all(|result| *result == ProbeResult::Refused) {
        return guess_port(upstream, results).await;
    }
    if all(|result| *result == ProbeResult::TimedOut) {
        return "nobody answers: is the app hung, or is a firewall between?".to_owned();
    }
    if results.iter().any(|(_, result)| Prober::found_ring(result)) {
        return "this address leads to a proxy: is it the proxy's alias instead of the app's?".to_owned();
    }
    let why = results.iter().find_map(|(_, result)| match result {
        ProbeResult::Unhealthy(why) => Some(why.as_str()),
        _ => None,
    });
    let path = upstream.probe.path.as_deref().unwrap_or("/");
    match why {
        Some("status 404") => format!("the app has no {path}: correct probe.path"),
        Some("status 400" | "status 403" | "status 421") => format!(
            "the app may refuse the probe's `Host: {}` (Django's ALLOWED_HOSTS, Rails' config.hosts): set probe.host",
            upstream.probe.host
        ),
        Some(why) if why.starts_with("status ") => {
            let code = &why["status ".len()..];
            format!("if {code} is a healthy answer of {path}, add it: probe.healthy = [{}, {code}]", list(upstream))
        }
        Some("not HTTP") => {
            format!("what listens on port {} does not speak HTTP/1.1: TLS, or another service?", upstream.port)
        }
        _ => "is the app up?".to_owned(),
    }
}

fn list(upstream: &config::Upstream) -> String {
    upstream.probe.healthy.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// Tries the usual ports of a replica that refuses the configured one.
async fn guess_port(upstream: &config::Upstream, results: &[(SocketAddr, ProbeResult)]) -> String {
    let refusal = match results.len() {
        1 => format!("1 replica refuses {}", upstream.port),
        many => format!("{many} replicas refuse {}", upstream.port),
    };
    let Some((replica, _)) = results.first() else { return refusal };
    let mut open = Vec::new();
    for port in USUAL_PORTS.into_iter().filter(|port| *port != upstream.port) {
        if let Ok(Ok(_)) = timeout(CONNECT, TcpStream::connect((replica.ip(), port))).await {
            open.push(port);
        }
    }
    let host = &upstream.host;
    match open.as_slice() {
        [] => format!(
            "{refusal}; Dokku's default is {DOKKU_PORT}, but nobody listens there or on any other usual port: is the app \
             up, and does it listen on 0.0.0.0 rather than 127.0.0.1?"
        ),
        [DOKKU_PORT] => format!("{refusal}; {DOKKU_PORT}, Dokku's default, is open: use {host}:{DOKKU_PORT}"),
        [port] => format!("{refusal}; {port} is open: use {host}:{port}"),
        ports => {
            let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            format!("{refusal}; these are open: {ports}")
        }
    }
}
