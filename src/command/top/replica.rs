//! The pane with the chosen replica: everything that is known of it, and what happened to it.

use super::body::{Body, Focus};
use super::line::Line;
use super::replicas::{self, event, shares};
use super::view::View;
use crate::admin::overview::ReplicaOverview;
use crate::admin::wording::{age, count, grouped, latency};
use crate::command::paint::Style;

/// Changes of state that are shown.
const EVENTS: usize = 20;

/// Draws it; where no replica is chosen, all of them.
pub(super) fn draw(view: &View, width: usize) -> Body {
    let Some((index, at)) = view.selected() else { return replicas::draw(view, width) };
    let upstream = &view.overview.status.upstreams[index];
    let endpoint = &upstream.endpoints[at];
    let none = ReplicaOverview::default();
    let extra = view.overview.upstreams.get(index).and_then(|extra| extra.replicas.get(at)).unwrap_or(&none);
    let time = |time: Option<f64>| time.map_or("none".to_owned(), latency);
    let score = endpoint.score.map_or("none: it gets no requests".to_owned(), |score| {
        let next = if endpoint.next { ", the lowest: the next request may go there" } else { "" };
        format!("{score:.2} of (in flight + 1) × weight, or 1 for a trial{next}")
    });
    let window = endpoint.window.map(|window| format!(", at most {window} while it is new")).unwrap_or_default();
    let level = endpoint.level();
    let mut facts: Vec<(&str, Style, String)> = vec![
        ("replica", Style::Bold, format!("{} of {}", endpoint.address, upstream.name)),
        ("container", Style::Plain, endpoint.name.clone().unwrap_or_else(|| "DNS does not know its name".to_owned())),
        ("state", level.into(), format!("{} {} for {}", level.mark(), endpoint.state(), age(endpoint.since_seconds))),
        ("because", Style::Plain, endpoint.remark()),
        (
            "in flight",
            Style::Plain,
            format!("{}{window}; {}", endpoint.in_flight, count(endpoint.streams as usize, "stream")),
        ),
        ("weight", Style::Plain, format!("{:.2}", endpoint.weight)),
        ("score", Style::Plain, score),
        ("share (fair)", Style::Plain, shares(extra)),
        (
            "first byte",
            Style::Plain,
            format!(
                "mean {}; in the last ten seconds p50 {}, p99 {}",
                time(endpoint.first_byte_seconds),
                time(extra.p50_seconds),
                time(extra.p99_seconds)
            ),
        ),
        (
            "requests",
            Style::Plain,
            format!(
                "{}, {} failed, {} answered with 5xx",
                grouped(endpoint.requests),
                grouped(endpoint.failures),
                grouped(endpoint.server_errors)
            ),
        ),
        ("connections", Style::Plain, format!("{} idle", endpoint.idle_connections)),
    ];
    facts.retain(|(_, _, what)| !what.is_empty());
    let mut lines: Vec<Line> = facts
        .iter()
        .map(|(name, style, what)| Line::of(Style::Dim, format!("  {name:<14}")).and(*style, what))
        .collect();
    let own: Vec<Line> = upstream
        .timeline
        .iter()
        .rev()
        .filter(|event| event.address.as_ref().is_none_or(|address| *address == endpoint.address))
        .take(EVENTS)
        .map(event)
        .collect();
    lines.push(Line::default());
    lines.push(Line::of(Style::Bold, if own.is_empty() { "Nothing has happened to it" } else { "What happened" }));
    lines.extend(own);
    Body { lines, focus: Focus::Top(0) }
}
