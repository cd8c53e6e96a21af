//! What may be wrong with a replica that fails its probe, and what to do about it: a guess, for the log and `evenkeel check`.

use crate::config::{self, Host, HostHeader};
use crate::pool::{ProbeResult, Unhealthy};

/// The remedy for a probe that ended so, most likely; in words that continue a line.
pub fn remedy(result: &ProbeResult, upstream: &config::Upstream) -> String {
    let config::Upstream { host, port, probe, .. } = upstream;
    let path = probe.path.as_deref().unwrap_or("/");
    match result {
        ProbeResult::Passed => "nothing is wrong with it".to_owned(),
        ProbeResult::Refused if is_loopback(host) => format!(
            "{host} is the proxy's own container, not the app's: write the app's name on the network as address; only with \
             `--network host` do the two share {host}"
        ),
        ProbeResult::Refused => format!(
            "is the app up, does it listen on port {port}, and on 0.0.0.0 rather than 127.0.0.1? `evenkeel check` tries the \
             usual ports"
        ),
        ProbeResult::Unreachable => "is this proxy on the app's network (docker network inspect)?".to_owned(),
        ProbeResult::ConnectTimedOut => {
            "nobody answers at this address: is a firewall between, or is the name's record out of date?".to_owned()
        }
        ProbeResult::TimedOut => format!(
            "the app accepts connections and does not answer GET {path} within {:?}: is it still starting, or hung? If it \
             is only slow, raise probe.timeout",
            probe.timeout
        ),
        ProbeResult::Exhausted => "raise the limit of open files (ulimit -n) of the proxy".to_owned(),
        ProbeResult::Unhealthy(cause) => match cause {
            Unhealthy::Status { code, location } => remedy_of_status(*code, location.as_deref(), path, upstream),
            Unhealthy::Ring => {
                format!("the address leads to a proxy: is {host} an alias of the proxy instead of the app's?")
            }
            Unhealthy::Tls => {
                format!("replicas are spoken to in plain HTTP/1.1, and port {port} wants TLS: use another port")
            }
            Unhealthy::NotHttp => {
                format!("what listens on port {port} does not speak HTTP/1.1: another service, or the wrong port?")
            }
            Unhealthy::NotHttp2 => format!(
                "what listens on port {port} does not speak HTTP/2 without TLS: remove protocol = \"h2c\", or is it another \
                 service's port?"
            ),
            Unhealthy::NotServing(_) => "the app says so itself, by gRPC's health service".to_owned(),
            Unhealthy::Grpc(5) => "the app's health service does not know this service: correct probe.grpc".to_owned(),
            Unhealthy::Grpc(12) => {
                "the app has no gRPC health service (grpc.health.v1.Health): add it, or leave out probe.grpc".to_owned()
            }
            Unhealthy::Grpc(_) => "the app's gRPC health service fails: what does the app log?".to_owned(),
            Unhealthy::Closed | Unhealthy::Reset | Unhealthy::Broken(_) => {
                format!("what listens on port {port} closes connections unanswered: does the app crash, or speak TLS?")
            }
            Unhealthy::HeadTooLong(_) | Unhealthy::Interim(_) => {
                format!("what answers GET {path} is no ordinary web app: correct probe.path or the port")
            }
        },
    }
}

fn remedy_of_status(code: u16, location: Option<&str>, path: &str, upstream: &config::Upstream) -> String {
    let accept = || format!("probe.healthy = {}", upstream.probe.healthy.with(code));
    match (code, location) {
        (301 | 302 | 303 | 307 | 308, Some(to)) if to.starts_with("https:") => format!(
            "the app sends plain HTTP on to TLS (Rails' force_ssl, Django's SECURE_SSL_REDIRECT): exempt {path} from that \
             in the app, or, as the redirect shows that it is up, {}",
            accept()
        ),
        (301 | 302 | 303 | 307 | 308, Some(to)) => match same_app(to, path) {
            Some(to) => format!("the app has moved {path}: probe.path = \"{to}\""),
            None => {
                format!("{path} leads to {to}: probe another path, or, if that shows that the app is up, {}", accept())
            }
        },
        (404, _) => format!("the app has no {path}: correct probe.path"),
        (401 | 407, _) => format!("{path} wants credentials: probe a path without, or {}", accept()),
        (400 | 403 | 421, _) => host_remedy(upstream),
        _ => format!("if {code} is a healthy answer of GET {path}, add it: {}", accept()),
    }
}

/// The path of a redirect's target, if the app redirects to itself in plain HTTP, as from `/ping` to `/ping/`.
fn same_app<'a>(location: &'a str, from: &str) -> Option<&'a str> {
    let path = match location.strip_prefix("http://") {
        Some(rest) => &rest[rest.find('/')?..],
        None => location,
    };
    let plain = path.starts_with('/') && !path.contains(['#', '"', '\\']) && path != from;
    (plain && path.trim_end_matches('/') == from.trim_end_matches('/')).then_some(path)
}

/// What to do where the app refuses a name that it does not know.
fn host_remedy(upstream: &config::Upstream) -> String {
    let shown = &upstream.probe.host;
    let checks = "if the app checks the Host (Django's ALLOWED_HOSTS, Rails' config.hosts)";
    match &upstream.host_header {
        HostHeader::Pass => format!(
            "the probe says `Host: {shown}`, and requests say what clients call this proxy; {checks}, set host = \"NAME\" in \
             [upstream.{}], a name that it allows: requests and probes say that then",
            upstream.name
        ),
        HostHeader::Replace(_) => {
            format!("requests and probes say `Host: {shown}`; {checks}, set host to a name that it allows")
        }
    }
}

/// Whether the host names whatever container asks, not the app.
pub fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Address(address) => address.to_canonical().is_loopback(),
    }
}
