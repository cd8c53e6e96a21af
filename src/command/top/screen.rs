//! Draws a [`View`] into the lines of a screen: what stands above and below, and one of the panes between. Pure.

use super::body::{Body, Focus};
use super::line::{Line, wrapped};
use super::view::{Pane, View};
use super::{failures, replica, replicas};
use crate::admin::headline::{Headline, Level};
use crate::admin::verb::Verb;
use crate::admin::wording::{age, count, grouped};
use crate::command::paint::Style;

/// The whole screen: at most `height` lines, for `width` columns.
pub(super) fn draw(view: &View, width: usize, height: usize) -> Vec<Line> {
    let head = head(view, width);
    let foot = foot(view, width);
    let room = height.saturating_sub(head.len() + foot.len()).max(1);
    let Body { lines, focus } = match &view.pane {
        Pane::Replicas => replicas::draw(view, width),
        Pane::Replica => replica::draw(view, width),
        Pane::Failures(at) => failures::draw(view, *at, width),
        Pane::Why { text, from, .. } => {
            let lines = text.lines().map(|line| Line::of(Style::Plain, line)).collect();
            Body { lines, focus: Focus::Top(*from) }
        }
        Pane::Help => Body { lines: help(), focus: Focus::Top(0) },
    };
    let from = match focus {
        Focus::Top(line) => line,
        // As far up as possible, with the line that matters and the one below it on the screen.
        Focus::Seen(line) => (line + 2).saturating_sub(room),
    };
    let from = from.min(lines.len().saturating_sub(1));
    let shown = lines.len().min(from + room);
    let mut screen = head;
    screen.extend_from_slice(&lines[from..shown]);
    screen.resize((screen.len() + room).saturating_sub(shown - from), Line::default());
    // What is asked and which keys there are comes before all else.
    screen.truncate(height.saturating_sub(foot.len()));
    screen.extend(foot);
    screen.truncate(height);
    screen
}

fn head(view: &View, width: usize) -> Vec<Line> {
    let status = &view.overview.status;
    let mut lines = Vec::new();
    if !status.version.is_empty() {
        let state = match &status.not_ready {
            _ if status.draining => "draining".to_owned(),
            Some(why) => format!("not ready: {why}"),
            None => "ready".to_owned(),
        };
        let facts = format!(
            " {} · up {} · {state} · {} of {} · {} in flight",
            status.version,
            age(status.uptime_seconds),
            grouped(status.connections as u64),
            count(status.max_connections, "connection"),
            count(status.requests, "request")
        );
        lines.push(Line::of(Style::Bold, "evenkeel").and(Style::Dim, facts));
    }
    match &view.problem {
        Some(problem) => {
            lines.extend(wrapped(Style::Bad, &format!("{} {problem}", Level::Bad.mark()), width));
            if !status.version.is_empty() {
                lines.push(Line::of(Style::Doubtful, "What is below is from before."));
            }
        }
        None if status.version.is_empty() => lines.push(Line::of(Style::Dim, "asking the proxy …")),
        None => lines.extend(sentence(&view.overview.headline, width)),
    }
    lines.push(Line::default());
    lines
}

/// A sentence in the colour of what it comes to.
pub(super) fn sentence(headline: &Headline, width: usize) -> Vec<Line> {
    wrapped(headline.level.into(), &format!("{} {}", headline.level.mark(), headline.text), width)
}

fn foot(view: &View, width: usize) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    if let Some(verb) = &view.asked {
        lines.extend(wrapped(Style::Bold, &question(verb), width));
        lines.push(Line::of(Style::Dim, "y yes · any other key no"));
        return lines;
    }
    match &view.message {
        Some(Ok(done)) => lines.extend(wrapped(Style::Good, done, width)),
        Some(Err(problem)) => lines.extend(wrapped(Style::Bad, problem, width)),
        None => {}
    }
    let failures = view.failures().len();
    let keys = match &view.pane {
        Pane::Replicas => format!(
            "↑↓ choose · Enter look closer · s sort (by {}) · d drain · p pause · f failed requests ({failures}) · ? help · q quit",
            view.sort.name()
        ),
        Pane::Replica => "↑↓ the one above or below · d drain · p pause · Esc back · q quit".to_owned(),
        Pane::Failures(_) => "↑↓ choose · Enter why · Esc back · q quit".to_owned(),
        Pane::Why { .. } => "↑↓ scroll · Esc back · q quit".to_owned(),
        Pane::Help => "Esc back · q quit".to_owned(),
    };
    lines.push(Line::of(Style::Dim, keys));
    lines
}

fn question(verb: &Verb) -> String {
    match verb {
        Verb::Drain(replica) => {
            let upstream = replica.upstream.as_deref().unwrap_or("each upstream");
            format!("Drain {replica} of {upstream}? It gets nothing new, and what it has finishes.")
        }
        Verb::Undrain(replica) => format!("Undrain {replica}? It gets requests again."),
        Verb::Pause(upstream) => format!("Pause {upstream}? All its requests wait until it is resumed."),
        Verb::Resume(upstream) => format!("Resume {upstream}? Its requests go on."),
        Verb::Look(_) => String::new(),
    }
}

fn help() -> Vec<Line> {
    let keys = [
        ("↑ ↓  k j", "choose a replica; PgUp, PgDn, Home and End go further"),
        ("Enter", "look closer at a replica, or ask why a failed request went where it went"),
        ("Esc  ←", "back"),
        ("s", "sort the replicas of each upstream by age, state, in flight, p99, requests, failed"),
        ("d", "drain the chosen replica: nothing new goes to it; again: undrain it"),
        ("p", "pause its upstream: all its requests wait; again: resume it"),
        ("f", "the last failed requests"),
        ("q  Ctrl-C", "quit; the proxy is not touched by that"),
    ];
    let line = |(key, what): &(&str, &str)| Line::of(Style::Bold, format!("  {key:<12}")).and(Style::Plain, what);
    keys.iter().map(line).collect()
}
