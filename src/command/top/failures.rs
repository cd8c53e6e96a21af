//! The pane with the last failed requests, of which one is chosen.

use super::body::{Body, Focus};
use super::line::Line;
use super::view::View;
use crate::admin::hour::summary;
use crate::admin::wording::{age, latency};
use crate::command::paint::Style;

/// Draws it.
pub(super) fn draw(view: &View, selected: usize, width: usize) -> Body {
    let all = view.failures();
    let hours = view.overview.status.upstreams.iter().zip(&view.overview.upstreams);
    let mut lines: Vec<Line> =
        hours.map(|(upstream, extra)| Line::of(Style::Dim, summary(&upstream.name, &extra.hour))).collect();
    lines.push(Line::default());
    if all.is_empty() {
        lines.push(Line::of(Style::Good, "No request has failed since the start."));
    }
    let mut focus = 0;
    for (at, (upstream, failure)) in all.iter().enumerate() {
        let took = latency(failure.took_seconds);
        let line = Line::of(Style::Dim, format!("{:>13} ago  ", age(failure.seconds_ago)))
            .and(Style::Bad, format!("{upstream}: {}", failure.text))
            .and(Style::Plain, format!(" after {took} ({})  {} {}", failure.tried(), failure.method, failure.target));
        if at == selected {
            focus = lines.len();
        }
        lines.push(if at == selected { line.selected(width) } else { line });
    }
    Body { lines, focus: Focus::Seen(focus) }
}
