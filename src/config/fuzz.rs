//! Any text as `proxy.toml`, in any environment: it is refused with reasons, or within every bound.

use super::{Config, Env, Host, HostHeader, limits};
use crate::route::Router;
use std::time::Duration;

/// Between the text of a file and the environment; TOML has no such line.
const MARK: &str = "\n%%\n";

/// A file, then perhaps a line `%%` and the environment in lines of `NAME=value`. True if it is accepted.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(all) = std::str::from_utf8(bytes) else { return false };
    let (text, variables) = all.split_once(MARK).unwrap_or((all, ""));
    let env = |name: &str| {
        let found = variables.lines().filter_map(|line| line.split_once('=')).find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_owned())
    };
    judged(text, &env).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// Whether a file is accepted; as an error, what does not hold of what came of it.
pub(super) fn judged(text: &str, env: Env<'_>) -> Result<bool, String> {
    match Config::parse(text, "proxy.toml", env) {
        Ok(config) => match broken(&config) {
            None => Ok(true),
            Some(wrong) => Err(format!("{wrong}\n{config:#?}\n{text}")),
        },
        Err(error) => {
            let shown = error.to_string();
            // What the environment says has no place in the file.
            let placed = |problem: &String| ["proxy.toml: ", VARIABLE].iter().any(|start| problem.starts_with(start));
            if error.problems().is_empty() || !error.problems().iter().all(placed) {
                return Err(format!("no problem, or one without its file: {shown}\n{text}"));
            }
            if let Some(hostile) = shown.chars().find(|c| c.is_control() && *c != '\n') {
                return Err(format!("{hostile:?} in\n{shown}"));
            }
            match error.problems().iter().find(|problem| !names_its_place(problem)) {
                Some(nameless) => Err(format!("{nameless:?} names no key\n{text}")),
                None => Ok(false),
            }
        }
    }
}

/// How a problem of the environment begins, apart from those of the file.
const VARIABLE: &str = "the variable ";

/// Whether a problem says which key or table it is about, or which line where the file is no TOML.
fn names_its_place(problem: &str) -> bool {
    let problem = problem.strip_prefix("proxy.toml: ").unwrap_or(problem);
    let position = |text: &str| {
        let (line, rest) = text.split_once(", column ").unwrap_or_default();
        !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with(|c: char| c.is_ascii_digit())
    };
    let first = problem.lines().next().unwrap_or_default();
    let places = ["server", "dns", "upstream", "route", "unknown key "];
    problem.strip_prefix("line ").is_some_and(position)
        || problem.starts_with(VARIABLE)
        || places.iter().any(|place| first.contains(place))
}

/// What a `Config` promises by being there, judged independently of how it was read; `None` if all holds.
fn broken(config: &Config) -> Option<String> {
    let day = Duration::from_secs(86_400);
    let millisecond = Duration::from_millis(1);
    let server = &config.server;
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    must(server.drain <= day && config.dns.hold <= day, "drain and hold");
    for time in [server.header_timeout, server.body_idle, server.client_idle, config.dns.timeout, config.dns.interval] {
        must((millisecond..=day).contains(&time), "time-outs");
    }
    must((1024..=1 << 20).contains(&server.max_header), "max_header");
    must((64..=server.max_header).contains(&server.max_target), "max_target");
    must(server.threads <= 512 && server.max_connections <= 1_000_000, "threads, max_connections");
    must(server.admin.is_none_or(|admin| admin != server.listen || admin.port() == 0), "admin");
    must(!config.upstreams.is_empty() && !config.routes.is_empty(), "something to do");
    for (index, upstream) in config.upstreams.iter().enumerate() {
        must(config.routes.iter().any(|route| route.upstream == index), "every upstream has a route");
        must(config.upstreams.iter().filter(|other| other.name == upstream.name).count() == 1, "names are unique");
        must(!upstream.name.is_empty() && !upstream.name.contains(|c: char| c.is_control() || c == '"'), "name");
        must(upstream.port > 0 && upstream.retries <= 10 && upstream.wait <= day, "port, retries, wait");
        match &upstream.host {
            Host::Name(name) => must(!name.is_empty() && name.len() <= 253 && !name.ends_with('.'), "host"),
            Host::Address(address) => must(!address.is_unspecified() && !address.is_multicast(), "host"),
        }
        for time in [upstream.connect_timeout, upstream.response_timeout, upstream.idle_timeout] {
            must((millisecond..=day).contains(&time), "upstream's time-outs");
        }
        if let HostHeader::Replace(value) = &upstream.host_header {
            must(!value.is_empty() && value.to_str().is_ok_and(|text| !text.contains(' ')), "host header");
        }
        let probe = &upstream.probe;
        must(millisecond <= probe.timeout && probe.timeout <= probe.interval && probe.interval <= day, "probe's times");
        must((1..=100).contains(&probe.rise) && (1..=100).contains(&probe.fall), "rise, fall");
        must(probe.path.is_some() != probe.healthy.is_empty(), "healthy goes with path");
        must(![0, 99, 600, u16::MAX].iter().any(|status| probe.healthy.contains(*status)), "healthy");
        must(!probe.host.is_empty() && probe.host.bytes().all(|byte| byte.is_ascii_graphic()), "probe.host");
        if let Some(path) = &probe.path {
            must(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "probe.path");
            must(path.len() <= limits::TEXT, "probe.path's length");
        }
    }
    let router = Router::new(&config.routes);
    for route in &config.routes {
        must(route.upstream < config.upstreams.len(), "a route's upstream");
        must(!route.strip_prefix || route.path_prefix.is_some(), "strip_prefix");
        must(route.path_prefix.as_ref().is_none_or(|p| p.starts_with('/') && !p.ends_with('/')), "path_prefix");
        // The request that a route describes reaches it, as no earlier one shadows it.
        let host = route.host.as_deref().unwrap_or("no-such-host.example");
        let path = route.path_prefix.as_deref().unwrap_or("/no/such/path");
        let found = router.find(Some(host.as_bytes()), path.as_bytes());
        must(found == Some(route), "a route is found by what it says");
    }
    wrong.into_iter().next()
}
