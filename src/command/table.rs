//! Draws a [`Status`] for people.

use super::paint::Paint;
use crate::admin::Status;
use crate::admin::status::{DnsStatus, ENVIRONMENT, EndpointStatus, UpstreamStatus};
use crate::admin::wording::{age, count, grouped, latency};
use crate::pool::HeldBack;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Changes of state that are shown for each upstream; `/status` has more.
const EVENTS: usize = 6;

/// Failed requests that are shown for each upstream.
const FAILURES: usize = 4;

/// Of a failed request's target.
const TARGET: usize = 40;

/// The whole screen.
pub(super) fn draw(status: &Status, paint: Paint) -> String {
    let mut text = String::new();
    let state = match &status.not_ready {
        _ if status.draining => paint.doubtful("draining"),
        Some(why) => paint.doubtful(&format!("not ready: {why}")),
        None => paint.good("ready"),
    };
    let _ = writeln!(
        text,
        "{} {} · up {} · {state} · {} of {}, {} in flight · {}",
        paint.bold("evenkeel"),
        status.version,
        age(status.uptime_seconds),
        count(status.connections, "connection"),
        grouped(status.max_connections as u64),
        count(status.requests, "request"),
        count(status.workers, "worker"),
    );
    let reload = match &status.last_reload {
        None if status.config == ENVIRONMENT => String::new(),
        None => " · not reloaded".to_owned(),
        Some(reload) => match &reload.error {
            None => format!(" · reloaded {} ago", age(reload.seconds_ago)),
            Some(why) => format!(" · {}", paint.bad(&format!("reload refused {} ago: {why}", age(reload.seconds_ago)))),
        },
    };
    let _ = writeln!(text, "listening on {} · {}{reload}", status.listen, status.config);
    for upstream in &status.upstreams {
        draw_upstream(&mut text, upstream, paint);
    }
    text
}

fn draw_upstream(text: &mut String, upstream: &UpstreamStatus, paint: Paint) {
    let usable = upstream.endpoints.iter().filter(|e| e.usable).count();
    let summary = format!("{usable} of {} usable", count(upstream.endpoints.len(), "replica"));
    let summary = match (usable, upstream.endpoints.len()) {
        (0, _) => paint.bad(&summary),
        (usable, all) if usable < all => paint.doubtful(&summary),
        _ => paint.good(&summary),
    };
    let _ = write!(text, "\n{} = {} · {summary}", paint.bold(&upstream.name), upstream.address);
    if upstream.paused {
        let _ = write!(text, " · {}", paint.doubtful("paused by an operator"));
    }
    let gone = upstream.drained.iter().filter(|ip| !upstream.endpoints.iter().any(|e| e.drained && is_at(e, ip)));
    for ip in gone {
        let _ = write!(text, " · {}", paint.doubtful(&format!("drained, and not listed now: {ip}")));
    }
    match (upstream.no_answer_seconds, upstream.outage_seconds) {
        (Some(silence), _) => {
            let _ = write!(text, " · {}", paint.bad(&format!("no answer for {}", age(silence))));
        }
        (None, Some(outage)) => {
            let _ = write!(text, " · {}", paint.bad(&format!("nobody for {}", age(outage))));
        }
        (None, None) => {}
    }
    if upstream.waiting > 0 {
        let _ = write!(text, " · {}", paint.doubtful(&format!("{} waiting", grouped(upstream.waiting as u64))));
    }
    let _ = writeln!(text, " · DNS: {}", dns(upstream.dns.as_ref(), paint));
    if !upstream.endpoints.is_empty() {
        draw_endpoints(text, &upstream.endpoints, paint);
    }
    for event in last(&upstream.timeline, EVENTS) {
        let whom = event.address.as_deref().unwrap_or("");
        let gap = if whom.is_empty() { "" } else { " " };
        let _ = writeln!(text, "  {}  {whom}{gap}{}", paint.dim(&ago(event.seconds_ago)), event.what);
    }
    for failure in last(&upstream.failures, FAILURES) {
        let target: String = failure.target.chars().take(TARGET).collect();
        let took = latency(failure.took_seconds);
        let line = format!("{} {target} failed after {took}: {} ({})", failure.method, failure.text, failure.tried());
        let _ = writeln!(text, "  {}  {}", paint.dim(&ago(failure.seconds_ago)), paint.bad(&line));
    }
}

/// Whether this is the replica's address, apart from its port.
fn is_at(endpoint: &EndpointStatus, ip: &str) -> bool {
    endpoint.address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_string() == ip)
}

fn dns(dns: Option<&DnsStatus>, paint: Paint) -> String {
    let Some(dns) = dns else { return paint.doubtful("not answered yet") };
    let when = format!("{} ago", age(dns.seconds_ago));
    match (&dns.error, dns.addresses) {
        (Some(why), _) => paint.bad(&format!("{why}, {when}")),
        (None, Some(0)) => paint.bad(&format!("no such name, {when}")),
        (None, addresses) => format!("{} {when}", grouped(addresses.unwrap_or(0) as u64)),
    }
}

fn last<T>(all: &[T], shown: usize) -> &[T] {
    &all[all.len().saturating_sub(shown)..]
}

fn ago(seconds: f64) -> String {
    format!("{:>10} ago", age(seconds))
}

/// A column's head, and whether its cells are numbers, which are set right.
const COLUMNS: [(&str, bool); 11] = [
    ("", false),
    ("REPLICA", false),
    ("STATE", false),
    ("FOR", true),
    ("IN FLIGHT", true),
    ("WEIGHT", true),
    ("SCORE", true),
    ("FIRST BYTE", true),
    ("REQUESTS", true),
    ("FAILED", true),
    ("IDLE", true),
];

fn draw_endpoints(text: &mut String, endpoints: &[EndpointStatus], paint: Paint) {
    let rows: Vec<_> = endpoints.iter().map(cells).collect();
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([COLUMNS[column].0.len()]).max().unwrap_or(0)
    });
    let head = COLUMNS.map(|(head, _)| head.to_owned());
    let _ = writeln!(text, "{}", paint.dim(line(&head, &widths, |_, cell| cell).trim_end()));
    for (endpoint, row) in endpoints.iter().zip(&rows) {
        let state = 2;
        let line = line(row, &widths, |column, cell| if column == state { tint(endpoint, &cell, paint) } else { cell });
        let _ = writeln!(text, "{line}  {}", paint.dim(&endpoint.named_remark()));
    }
}

fn line(cells: &[String], widths: &[usize], tint: impl Fn(usize, String) -> String) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padded = if COLUMNS[column].1 { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
        line.push_str(if column < 2 { " " } else { "  " });
        line.push_str(&tint(column, padded));
    }
    line
}

fn cells(endpoint: &EndpointStatus) -> [String; COLUMNS.len()] {
    let dash = || "-".to_owned();
    [
        if endpoint.next { "▸" } else { "" }.to_owned(),
        endpoint.address.clone(),
        endpoint.state().to_owned(),
        age(endpoint.since_seconds),
        match endpoint.window {
            Some(window) => format!("{}/{window}", endpoint.in_flight),
            None => endpoint.in_flight.to_string(),
        },
        format!("{:.2}", endpoint.weight),
        endpoint.score.map_or_else(dash, |score| format!("{score:.2}")),
        endpoint.first_byte_seconds.map_or_else(dash, latency),
        grouped(endpoint.requests),
        grouped(endpoint.failures),
        endpoint.idle_connections.to_string(),
    ]
}

fn tint(endpoint: &EndpointStatus, cell: &str, paint: Paint) -> String {
    match endpoint.held_back {
        _ if endpoint.usable => paint.good(cell),
        Some(HeldBack::Draining | HeldBack::Unproven | HeldBack::Drained | HeldBack::Paused) => paint.doubtful(cell),
        None if endpoint.no_answer_seconds.is_none() => paint.doubtful(cell),
        _ => paint.bad(cell),
    }
}
