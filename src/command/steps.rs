//! Which steps of the recipe ([`super::init`]) are done, as far as the proxy's container can see.

use super::check::DOCKER_DNS;
use super::client::fetch;
use super::paint::Paint;
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
    let running = fetch(sockets, "/status").await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::UpstreamStatus;

    #[test]
    fn a_proxy_that_does_not_serve_yet_is_a_step_to_do() {
        let ready = Status { listen: "[::]:80".to_owned(), ..Status::default() };
        let waits = Status { not_ready: Some("DNS has not answered".to_owned()), ..ready.clone() };
        let ends = Status { draining: true, ..ready.clone() };
        assert_eq!(runs(Ok(&ready)).unwrap(), "ready, on [::]:80");
        assert!(runs(Ok(&waits)).unwrap_err().ends_with("not ready: DNS has not answered"));
        assert!(runs(Ok(&ends)).is_err());
        assert_eq!(runs(Err(&"nobody listens".to_owned())).unwrap_err(), "nobody listens");
    }

    #[test]
    fn requests_of_all_upstreams_count_as_calls() {
        let sockets = |listen: &str| Sockets { listen: listen.parse().unwrap(), admin: None, reuse_port: false };
        let status = |requests: &[u64]| {
            let upstreams = requests.iter().map(|n| UpstreamStatus { requests: *n, ..UpstreamStatus::default() });
            Status { upstreams: upstreams.collect(), ..Status::default() }
        };
        assert_eq!(calls(Some(&status(&[0, 2])), &sockets("[::]:80")).unwrap(), "2 requests so far");
        let none = |listen: &str| calls(Some(&status(&[0])), &sockets(listen)).unwrap_err();
        assert!(none("[::]:80").contains("say http://NAME/,") && none("[::]:8080").contains("say http://NAME:8080/,"));
        assert!(calls(None, &sockets("[::]:80")).is_err(), "who does not run is not called");
    }

    #[test]
    fn names_that_do_not_resolve_are_named() {
        assert!(apps(&[]).is_ok());
        assert_eq!(apps(&["a".to_owned()]).unwrap_err(), "a does not resolve; why is above");
        assert_eq!(apps(&["a".to_owned(), "b".to_owned()]).unwrap_err(), "a, b do not resolve; why is above");
    }
}
