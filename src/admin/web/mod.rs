//! The operator's page: everything that `/status` knows and the last hour, drawn for a browser.
//!
//! It is rendered here, as a whole, for browsers with and without scripts alike. The script only puts what `/events`
//! sends, which is the same rendering made anew each second, in the place of what is there.

mod feed;
mod strip;
#[cfg(test)]
mod tests;

pub(super) use feed::Feed;

use super::headline::{Headline, Level, share};
use super::history::{History, Past};
use super::status::{ENVIRONMENT, EndpointStatus, Occurrence, Status, UpstreamStatus};
use super::why;
use super::wording::{age, count, grouped, latency};
use crate::clock;
use maud::{DOCTYPE, Markup, html};

/// Its style sheet.
pub(super) const STYLE: &str = include_str!("page.css");

/// Its script.
pub(super) const SCRIPT: &str = include_str!("page.js");

/// What its browser may load: nothing from elsewhere, and no script or style but these two. What clients write into their
/// requests' targets is escaped, and would not run if it were not.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                                 img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Replicas, failed requests and events that are shown of each upstream: the events of a deploy of five replicas.
const REPLICAS: usize = 50;
const FAILURES: usize = 10;
const EVENTS: usize = 30;

/// The whole page. `at`: the slot of the history that is shown instead of the present.
pub(super) fn page(status: &Status, history: &History, at: Option<u64>) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Evenkeel" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="page.css";
                script src="page.js" defer {}
            }
            body {
                header {
                    h1 { "Evenkeel" }
                    p #link role="status" { "as of this page's loading" }
                }
                main #now data-fixed[at.is_some()] { (body(status, history, at)) }
                footer {
                    form action="why" {
                        label for="id" { "Why did a request go where it went? Its X-Request-Id, trace, or id in the log: " }
                        input #id name="id" size="36" autocomplete="off";
                        button { "Why" } " " a href="why" { "the last one" }
                    }
                    "Keys on a chart: ← and → choose a time, Esc returns to the present. The same as text: "
                    a href="status" { "/status" } ", " a href="metrics" { "/metrics" } "."
                }
            }
        }
    }
    .into_string()
}

/// What changes from second to second.
pub(super) fn body(status: &Status, history: &History, at: Option<u64>) -> Markup {
    let headline = Headline::of(status, history);
    let at = at.and_then(|number| Some((number, history.ended(number, clock::now())?)));
    let reload = match &status.last_reload {
        None => String::new(),
        Some(reload) => match &reload.error {
            None => format!(", reloaded {} ago", age(reload.seconds_ago)),
            Some(why) => format!(", not reloaded {} ago: {why}", age(reload.seconds_ago)),
        },
    };
    let by = if status.config == ENVIRONMENT { "configured by" } else { "by" };
    html! {
        p #headline class=(class(headline.level)) { (headline.level.mark()) " " (headline.text) }
        p.facts {
            "version " (status.version) ", up " (age(status.uptime_seconds)) ", "
            (grouped(status.connections as u64)) " of " (count(status.max_connections, "connection")) ", "
            (count(status.requests, "request")) " in flight, listening on " (status.listen) ", "
            (by) " " (status.config) (reload)
        }
        @if let Some((_, ago)) = at {
            p #moment {
                "The charts' bar and the replicas are of " strong { (age(ago.as_secs_f64())) " ago" } ". "
                a #present href="./" { "Back to the present" }
            }
        }
        @for upstream in &status.upstreams { (section(status, upstream, history, at.map(|(number, _)| number))) }
    }
}

fn section(status: &Status, upstream: &UpstreamStatus, history: &History, at: Option<u64>) -> Markup {
    let headline = Headline::of_upstream(upstream, history);
    let dns = upstream.dns.as_ref().map_or("not answered yet".to_owned(), |dns| dns.said());
    html! {
        section aria-label=(upstream.name) {
            h2 { (upstream.name) " " small { (upstream.address) } }
            @if status.upstreams.len() > 1 {
                p class=(class(headline.level)) { (headline.level.mark()) " " (headline.text) }
            }
            p.facts {
                (count_of(upstream.requests, "request")) " since the start, "
                (grouped(upstream.failed)) " failed, " (grouped(upstream.server_errors)) " answered with 5xx, " (grouped(upstream.retries)) " asked again of another replica; "
                (grouped(upstream.waiting as u64)) " waiting; DNS: " (dns)
                @if !upstream.drained.is_empty() { "; drained by an operator: " (upstream.drained.join(", ")) }
            }
            @if upstream.waiting > 0 { (queue(upstream)) }
            (strip::draw(upstream, status.last_reload.as_ref(), history, at))
            @match at {
                Some(number) => (past(&history.replicas(&upstream.name, number))),
                None => (replicas(upstream, history)),
            }
            (failures(upstream))
            (events(&upstream.timeline))
        }
    }
}

/// Requests that wait for a replica: how many of those that may, from where, and for how long.
fn queue(upstream: &UpstreamStatus) -> Markup {
    let UpstreamStatus { waiting, max_waiting, waiting_callers, next_waited_seconds, .. } = upstream;
    html! {
        p.queue {
            "Queue " (bar(*waiting as u64, *max_waiting as u64, 160)) (grouped(*waiting as u64)) " of "
            (grouped(*max_waiting as u64)) " from " (count(*waiting_callers, "client"))
            @if let Some(waited) = next_waited_seconds { "; the next one has waited for " (age(*waited)) }
        }
    }
}

fn count_of(number: u64, what: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), what)
}

fn replicas(upstream: &UpstreamStatus, history: &History) -> Markup {
    let most = upstream.endpoints.iter().map(|endpoint| endpoint.in_flight).max().unwrap_or(0).max(1);
    html! {
        div.wide { table {
            caption { "Replicas" }
            thead { tr {
                th scope="col" { "replica" } th scope="col" { "state" } th scope="col" { "for" }
                th scope="col" { "in flight" } th scope="col" { "share (fair)" }
                th scope="col" { "p50" } th scope="col" { "p99" }
                th scope="col" { "requests" } th scope="col" { "failed" } th scope="col" { "5xx" } th.text scope="col" { "why" }
            } }
            tbody {
                @for endpoint in upstream.endpoints.iter().take(REPLICAS) { (replica(upstream, endpoint, history, most)) }
                @if upstream.endpoints.is_empty() { tr { td colspan="11" { "none" } } }
                @if upstream.endpoints.len() > REPLICAS {
                    tr { td colspan="11" { "and " (upstream.endpoints.len() - REPLICAS) " more: see /status" } }
                }
            }
        } }
    }
}

fn replica(upstream: &UpstreamStatus, endpoint: &EndpointStatus, history: &History, most: u32) -> Markup {
    let level = endpoint.level();
    let last = history.of_replica(&upstream.name, endpoint.id).next();
    let share = share(upstream, endpoint, history);
    let limit = endpoint.window.map(|window| format!(" of {window}")).unwrap_or_default();
    html! {
        tr {
            th scope="row" { (endpoint.address) @if let Some(name) = &endpoint.name { br; small { (name) } } }
            td class=(class(level)) { (level.mark()) " " (endpoint.state()) }
            td { (age(endpoint.since_seconds)) }
            td { (bar(u64::from(endpoint.in_flight), u64::from(endpoint.window.unwrap_or(most)), 40)) (endpoint.in_flight) (limit) }
            td { @if let Some((share, fair)) = share { (format!("{share:.1} % ({fair:.0} %)")) } }
            td { (time(last.and_then(|slot| slot.p50))) }
            td { (time(last.and_then(|slot| slot.p99))) }
            td { (grouped(endpoint.requests)) }
            td { (grouped(endpoint.failures)) }
            td { (grouped(endpoint.server_errors)) }
            td.text { (endpoint.why()) }
        }
    }
}

/// The replicas as they were.
fn past(replicas: &[Past]) -> Markup {
    html! {
        div.wide { table {
            caption { "Replicas then" }
            thead { tr {
                th scope="col" { "replica" } th scope="col" { "state" } th scope="col" { "in flight" }
                th scope="col" { "requests/s" } th scope="col" { "failed" } th scope="col" { "5xx" }
                th scope="col" { "p50" } th scope="col" { "p99" }
            } }
            tbody {
                @for Past { address, slot, .. } in replicas {
                    tr {
                        th scope="row" { (address) }
                        td { (slot.state) }
                        td { (slot.in_flight) }
                        td { (format!("{:.1}", slot.rate())) }
                        td { (slot.failed) }
                        td { (slot.server_errors) }
                        td { (time(slot.p50)) }
                        td { (time(slot.p99)) }
                    }
                }
                @if replicas.is_empty() { tr { td colspan="8" { "none" } } }
            }
        } }
    }
}

fn failures(upstream: &UpstreamStatus) -> Markup {
    html! {
        @if !upstream.failures.is_empty() {
            div.wide { table {
                caption { "Failed requests" }
                thead { tr {
                    th scope="col" { "ago" } th scope="col" { "request" } th.text scope="col" { "why" }
                    th.text scope="col" { "tried" } th scope="col" { "took" } th scope="col" { "waited" }
                    th scope="col" { "client" }
                } }
                tbody {
                    @for failure in upstream.failures.iter().rev().take(FAILURES) {
                        tr {
                            td { (age(failure.seconds_ago)) }
                            th scope="row" { (failure.method) " " (excerpt(&failure.target)) }
                            td.text { (failure.text) " " a href=(why::link(&failure.id)) { "why" } }
                            td.text {
                                @if failure.endpoints.is_empty() { "nobody" } @else { (failure.endpoints.join(", ")) }
                                @if let Some(why) = &failure.unusable { "; " (why) }
                            }
                            td { (latency(failure.took_seconds)) }
                            td { (latency(failure.waited_seconds)) }
                            td { (failure.client) }
                        }
                    }
                }
            } }
        }
    }
}

fn excerpt(target: &str) -> String {
    target.chars().take(60).collect()
}

fn events(timeline: &[Occurrence]) -> Markup {
    html! {
        @if !timeline.is_empty() {
            div.wide { table {
                caption { "What happened" }
                thead { tr { th scope="col" { "ago" } th scope="col" { "replica" } th.text scope="col" { "what" } } }
                tbody {
                    @for event in timeline.iter().rev().take(EVENTS) {
                        tr {
                            td { (age(event.seconds_ago)) }
                            th scope="row" { (event.address.as_deref().unwrap_or("all")) }
                            td.text { (event.what) }
                        }
                    }
                }
            } }
        }
    }
}

fn time(time: Option<std::time::Duration>) -> String {
    time.map(|time| latency(time.as_secs_f64())).unwrap_or_default()
}

/// `part` of `whole`, drawn so wide. What is there at all is seen.
fn bar(part: u64, whole: u64, width: u16) -> Markup {
    let full = f64::from(width);
    let drawn = if part == 0 { 0.0 } else { (full * part.min(whole) as f64 / whole.max(1) as f64).max(1.0) };
    html! {
        svg.bar width=(width) height="8" aria-hidden="true" {
            rect width=(width) height="8" {}
            rect.part width=(format!("{drawn:.1}")) height="8" {}
        }
    }
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Doubtful => "doubtful",
        Level::Bad => "bad",
    }
}
