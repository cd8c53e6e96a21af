//! Which steps of the recipe ([`super::init`]) are done, as far as the proxy's container can see.

use super::check::DOCKER_DNS;
use super::paint::Paint;
use super::status::fetch;
use crate::admin::Status;
use crate::admin::wording::count;
use crate::config::{Config, Host, Sockets};
use crate::discovery::{Resolve, Resolver};
use crate::pool::Resolution;
use std::fmt::Write as _;

/// One step: what it is, and what is seen of it.
struct Step {
    what: &'static str,
    seen: Result<String, String>,
}

/// A line for each step. `works`: at least one replica of each upstream does.
pub(super) async fn steps(
    config: &Config,
    sockets: &Sockets,
    resolver: &Resolver,
    works: bool,
    paint: Paint,
) -> String {
    let mut unknown = Vec::new();
    for upstream in config.upstreams.iter().filter(|upstream| matches!(upstream.host, Host::Name(_))) {
        if !matches!(resolver.resolve(&upstream.host).await, Resolution::Addresses(_)) {
            unknown.push(upstream.host.to_string());
        }
    }
    let running = fetch(sockets).await;
    let steps = [
        Step { what: "a network with names", seen: network(resolver, unknown.is_empty()) },
        Step { what: "the apps on it", seen: apps(&unknown) },
        Step { what: "an app that answers", seen: answers(works) },
        Step { what: "the proxy runs here", seen: runs(running.as_ref()) },
        Step { what: "somebody calls it", seen: calls(running.as_ref().ok(), sockets) },
    ];
    let mut text = String::from("\n");
    for (number, Step { what, seen }) in (1..).zip(steps) {
        let (mark, said) = match seen {
            Ok(said) => (paint.good("done "), said),
            Err(said) => (paint.doubtful("to do"), said),
        };
        let _ = writeln!(text, "{number}. {what:<22}  {mark}  {said}");
    }
    text
}

fn network(resolver: &Resolver, all_known: bool) -> Result<String, String> {
    let servers = resolver.server_addresses()?;
    let asked = servers.iter().map(|server| server.ip().to_string()).collect::<Vec<_>>().join(", ");
    if all_known || servers.iter().any(|server| server.ip() == DOCKER_DNS) {
        return Ok(format!("names are asked of {asked}"));
    }
    Err(format!(
        "names are asked of {asked}, not of Docker's DNS, {}: this container is on no network made by `docker network create`",
        DOCKER_DNS
    ))
}

fn apps(unknown: &[String]) -> Result<String, String> {
    match unknown {
        [] => Ok("each name resolves".to_owned()),
        [one] => Err(format!("{one} does not resolve; why is above")),
        several => Err(format!("{} do not resolve; why is above", several.join(", "))),
    }
}

fn answers(works: bool) -> Result<String, String> {
    match works {
        true => Ok("at least one replica of each".to_owned()),
        false => Err("no replica of some app does; why is above".to_owned()),
    }
}

fn runs(status: Result<&Status, &String>) -> Result<String, String> {
    match status {
        Ok(Status { draining: true, .. }) => Err("it is about to end".to_owned()),
        Ok(Status { not_ready: Some(why), .. }) => Err(format!("it does, but is not ready: {why}")),
        Ok(status) => Ok(format!("ready, on {}", status.listen)),
        Err(problem) => Err((*problem).clone()),
    }
}

fn calls(status: Option<&Status>, sockets: &Sockets) -> Result<String, String> {
    let requests: u64 = status.into_iter().flat_map(|status| &status.upstreams).map(|upstream| upstream.requests).sum();
    if requests > 0 {
        return Ok(format!("{} so far", count(usize::try_from(requests).unwrap_or(usize::MAX), "request")));
    }
    let port = match sockets.listen.port() {
        80 => String::new(),
        port => format!(":{port}"),
    };
    Err(format!(
        "no request yet: have callers say http://NAME{port}/, NAME being this proxy's on the network, for the app's"
    ))
}
