//! `evenkeel check`: resolves and probes each upstream once, says what it found, guesses what is wrong, and which steps of the
//! recipe are done.
//!
//! It asks as the running proxy would, through the same resolver and prober, but as a process of its own: run it where the
//! proxy runs, in its container.

use super::paint::Paint;
use super::steps::steps;
use crate::admin::wording::{count, latency};
use crate::clock;
use crate::config::{self, Config, Family, Host, HostHeader, Sockets};
use crate::discovery::{Own, Resolve, Resolver};
use crate::pool::{ProbeResult, Resolution, Unhealthy};
use crate::probe::{Probe, Prober};
use crate::upstream::{is_loopback, remedy};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

/// Prints what is found. `file` is where `config` was read from, if it is there; `sockets` are those of the proxy that runs
/// with it. Succeeds if each upstream has at least one replica that works.
pub async fn check(config: &Config, file: &Path, sockets: &Sockets) -> ExitCode {
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
    print!("{}", steps(config, sockets, &resolver, all_work, paint).await);
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
    let own = own(config).addresses(upstream.port);
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
            ProbeResult::ConnectTimedOut => paint.bad(&format!("no connection within {:?}", upstream.probe.timeout)),
            failed => paint.bad(&failed.to_string()),
        };
        let _ = writeln!(text, "  {address}  {line}");
    }
    let works = results.iter().any(|(_, result)| *result == ProbeResult::Passed);
    if !works {
        let guess = if results.is_empty() {
            guess_own(&upstream.host)
        } else {
            guess_failure(config, upstream, &results).await
        };
        let _ = writeln!(text, "  {guess}");
    } else if let Some(warning) = host_warning(upstream, &results).await {
        let _ = writeln!(text, "  {}", paint.bad(&warning));
    }
    (text, works)
}

/// What may be wrong where every address is this proxy itself.
fn guess_own(host: &Host) -> String {
    match is_loopback(host) {
        true => format!("{host} is this proxy's own container: write the app's name on the network as address"),
        false => {
            "every address is this proxy: an alias of the app is also the proxy's own; give the app another".to_owned()
        }
    }
}

/// The sockets of the proxy that would run with this configuration.
fn own(config: &Config) -> Own {
    Own::new(std::iter::once(config.server.listen).chain(config.server.admin))
}

fn addresses_of(number: usize) -> String {
    if number == 1 { "1 address".to_owned() } else { format!("{number} addresses") }
}

fn passed(upstream: &config::Upstream) -> &'static str {
    if upstream.probe.path.is_some() || upstream.probe.grpc.is_some() {
        "answers its probe"
    } else {
        "accepts connections"
    }
}

/// All at once, in the addresses' order.
async fn probe_all(addresses: Vec<IpAddr>, upstream: &config::Upstream) -> Vec<(SocketAddr, ProbeResult)> {
    let prober = Arc::new(Prober::new("check"));
    let mut probes = JoinSet::new();
    for address in addresses {
        let (prober, how) = (prober.clone(), upstream.probe.clone());
        let address = SocketAddr::new(address, upstream.port);
        probes.spawn(async move { (address, prober.probe(address, &how, Duration::MAX).await) });
    }
    let mut results = probes.join_all().await;
    results.sort_unstable_by_key(|(address, _)| *address);
    results
}

/// What may be wrong with a name that does not resolve.
pub(super) async fn guess_name(config: &Config, host: &Host, resolution: &Resolution, resolver: &Resolver) -> String {
    let Host::Name(name) = host else { return String::new() };
    // A question about one family is answered as if there were no such name where all addresses are of the other.
    let other = match config.dns.family {
        Family::Ipv4 => Some((Family::Ipv6, "IPv6", "ipv6")),
        Family::Ipv6 => Some((Family::Ipv4, "IPv4", "ipv4")),
        Family::Any => None,
    };
    if let (Some((other, spelled, key)), Resolution::Absent) = (other, resolution)
        && let Resolution::Addresses(found) = resolver.resolve_as(host, other).await
    {
        let number = addresses_of(found.len());
        return format!("{name} has {number}, but of {spelled} only: set dns.family = \"{key}\", or \"any\"");
    }
    // Aliases as Dokku's network plugin makes them, and Swarm's name for all of a service's tasks.
    for other in [format!("{name}.web"), format!("tasks.{name}")] {
        if let Resolution::Addresses(found) = resolver.resolve(&Host::Name(other.clone())).await {
            return format!("{other} resolves to {}: use that name", addresses_of(found.len()));
        }
    }
    let dokku = match name.contains('.') {
        true => String::new(),
        false => format!(" Dokku's network plugin names it APP.PROCESS, e.g. {name}.web"),
    };
    let look = format!(
        "no container on this proxy's networks has that name: is the app started and on the same network (docker network \
         inspect), and is \"{name}\" its alias there?{dokku}"
    );
    let servers = resolver.server_addresses().unwrap_or_default();
    let asks_docker = servers.iter().any(|server| server.ip() == DOCKER_DNS);
    let list = servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    let answered = match resolution {
        Resolution::Failed(why) => why.contains("SERVFAIL"),
        _ => true,
    };
    match config.dns.server {
        _ if asks_docker && matches!(resolution, Resolution::Absent) => look,
        // It answers for containers itself, and passes on what it does not know: to nobody on an `--internal` network.
        _ if asks_docker => format!(
            "Docker's DNS does not know the name itself, and the name servers that it passes such questions on to did not \
             answer, as on an --internal network; {look}"
        ),
        Some(server) if !answered => {
            format!("is there a DNS server at {server}? Without dns.server, resolv.conf says whom to ask")
        }
        Some(server) => format!("the DNS server {server} (dns.server) does not know it; {look}"),
        None if servers.is_empty() => "resolv.conf names no server; set dns.server".to_owned(),
        None => {
            let down =
                if answered { String::new() } else { format!("is the DNS server of /etc/resolv.conf ({list}) up? ") };
            format!(
                "{down}Names of containers are known to Docker's DNS, {DOCKER_DNS}, alone, and /etc/resolv.conf names {list} \
                 instead, as on the default bridge, where containers have no names: `docker network create` a network, and \
                 connect the app and this proxy to it. Outside Docker, write the whole name: search domains are not applied"
            )
        }
    }
}

/// Docker's DNS, on every network made by `docker network create`.
pub(super) const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// What may be wrong where no replica passes.
async fn guess_failure(config: &Config, upstream: &config::Upstream, results: &[(SocketAddr, ProbeResult)]) -> String {
    let all = |test: fn(&ProbeResult) -> bool| results.iter().all(|(_, result)| test(result));
    if all(|result| *result == ProbeResult::Refused) && !is_loopback(&upstream.host) {
        return guess_port(config, upstream, results).await;
    }
    // What answers says more than what is silent.
    let telling = results.iter().find(|(_, result)| matches!(result, ProbeResult::Unhealthy(_)));
    let Some((_, result)) = telling.or(results.first()) else { return "is the app up?".to_owned() };
    remedy(result, upstream)
}

/// Whether the app refuses what requests will say as `Host`, though its probe passes: then all traffic is answered 400.
async fn host_warning(upstream: &config::Upstream, results: &[(SocketAddr, ProbeResult)]) -> Option<String> {
    let (address, _) = results.iter().find(|(_, result)| *result == ProbeResult::Passed)?;
    let shown = match &upstream.host_header {
        HostHeader::Replace(host) => host.to_str().ok()?.to_owned(),
        // Clients call the proxy by a name that is the network's; like that one, this is not the app's own.
        HostHeader::Pass => std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned(),
    };
    let probe = &upstream.probe;
    if probe.path.is_some() && probe.host == shown {
        return None;
    }
    let path = probe.path.clone().unwrap_or_else(|| "/".to_owned());
    let as_request = config::Probe { path: Some(path.clone()), host: shown.clone(), ..probe.clone() };
    let result = Prober::new("check").probe(*address, &as_request, Duration::MAX).await;
    let ProbeResult::Unhealthy(Unhealthy::Status { code: code @ (400 | 403 | 421), .. }) = result else { return None };
    let remedy = match &upstream.host_header {
        HostHeader::Pass => format!(
            "requests say the Host by which clients call this proxy: where the app does not allow that name (Django's \
             ALLOWED_HOSTS, Rails' config.hosts), set host = \"NAME\" in [upstream.{}], a name that it allows",
            upstream.name
        ),
        HostHeader::Replace(_) => "requests say that Host: set host to a name that the app allows".to_owned(),
    };
    Some(format!("but it answers {code} to GET {path} with `Host: {shown}`; {remedy}"))
}

/// Tries the usual ports of a replica that refuses the configured one.
async fn guess_port(config: &Config, upstream: &config::Upstream, results: &[(SocketAddr, ProbeResult)]) -> String {
    let refusal = match results.len() {
        1 => format!("1 replica refuses {}", upstream.port),
        many => format!("{many} replicas refuse {}", upstream.port),
    };
    let Some((replica, _)) = results.first() else { return refusal };
    let own = own(config);
    let mut open = Vec::new();
    for port in USUAL_PORTS.into_iter().filter(|port| *port != upstream.port) {
        let is_own = own.addresses(port).contains(&replica.ip());
        if !is_own && let Ok(Ok(_)) = timeout(CONNECT, TcpStream::connect((replica.ip(), port))).await {
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
