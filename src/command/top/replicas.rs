//! The pane with all upstreams: how each is, its last hour, its replicas in a table, and what happened.

use super::body::{Body, Focus};
use super::line::{Line, bar};
use super::view::View;
use super::{charts, screen};
use crate::admin::headline::Level;
use crate::admin::overview::{ReplicaOverview, UpstreamOverview};
use crate::admin::status::{EndpointStatus, Occurrence, UpstreamStatus};
use crate::admin::wording::{age, count, grouped, latency};
use crate::command::paint::Style;
use crate::pool::Membership;

/// Changes of state that are shown of each upstream.
const EVENTS: usize = 5;

/// Columns of a replica's bar of requests in flight.
const BAR: usize = 8;

/// Draws it.
pub(super) fn draw(view: &View, width: usize) -> Body {
    let mut lines = Vec::new();
    let mut focus = 0;
    let upstreams = &view.overview.status.upstreams;
    for (index, upstream) in upstreams.iter().enumerate() {
        let none = UpstreamOverview::default();
        let extra = view.overview.upstreams.get(index).unwrap_or(&none);
        lines.push(title(upstream, extra));
        if upstreams.len() > 1 && extra.headline.level > Level::Good {
            lines.extend(screen::sentence(&extra.headline, width));
        }
        lines.extend(charts::draw(upstream, extra, width));
        let order = view.order(index);
        let rows: Vec<_> = order.iter().map(|at| cells(upstream, extra, *at)).collect();
        let widths = widths(&rows);
        if rows.is_empty() {
            lines.push(Line::of(Style::Dim, "  no replica"));
        } else {
            let heads = COLUMNS.map(|(head, _)| (Style::Dim, head.to_owned()));
            lines.push(row(&heads, &widths));
        }
        for (at, cells) in order.into_iter().zip(&rows) {
            let line = row(cells, &widths);
            let is_selected = view.is_selected(upstream, &upstream.endpoints[at]);
            if is_selected {
                focus = lines.len();
            }
            lines.push(if is_selected { line.selected(width) } else { line });
        }
        lines.extend(upstream.timeline.iter().rev().take(EVENTS).map(event));
        lines.push(Line::default());
    }
    Body { lines, focus: Focus::Seen(focus) }
}

fn title(upstream: &UpstreamStatus, extra: &UpstreamOverview) -> Line {
    let listed = || upstream.endpoints.iter().filter(|endpoint| endpoint.membership == Membership::Active);
    let usable = listed().filter(|endpoint| endpoint.usable).count();
    let all = listed().count();
    let leaving = match upstream.endpoints.len() - all {
        0 => String::new(),
        some => format!(", {some} leaving"),
    };
    let level = match usable {
        0 => Level::Bad,
        usable if usable < all => Level::Doubtful,
        _ => Level::Good,
    };
    let time = |time: Option<f64>| time.map_or("-".to_owned(), latency);
    let mut line = Line::of(Style::Bold, &upstream.name)
        .and(Style::Dim, format!(" = {}  ", upstream.address))
        .and(level.into(), format!("{} {usable} of {} usable{leaving}", level.mark(), count(all, "replica")));
    if let Some(rate) = extra.rate {
        let now = format!("  {rate:.0}/s  p50 {}  p99 {}", time(extra.p50_seconds), time(extra.p99_seconds));
        line = line.and(Style::Plain, now);
    }
    let failed = format!("  {} failed", grouped(upstream.failed));
    line = line.and(if upstream.failed > 0 { Style::Bad } else { Style::Dim }, failed);
    if upstream.paused {
        line = line.and(Style::Doubtful, "  ‖ paused by an operator");
    }
    line.and(
        Style::Dim,
        format!("  DNS: {}", upstream.dns.as_ref().map_or("not answered yet".into(), |dns| dns.said())),
    )
}

/// A column's head, and whether its cells are numbers, which are set right.
const COLUMNS: [(&str, bool); 12] = [
    ("", false),
    ("REPLICA", false),
    ("STATE", false),
    ("FOR", true),
    ("IN FLIGHT", false),
    ("SHARE (FAIR)", true),
    ("P50", true),
    ("P99", true),
    ("REQUESTS", true),
    ("FAILED", true),
    ("5XX", true),
    ("WHY", false),
];

type Cells = [(Style, String); COLUMNS.len()];

fn cells(upstream: &UpstreamStatus, extra: &UpstreamOverview, at: usize) -> Cells {
    let endpoint = &upstream.endpoints[at];
    let none = ReplicaOverview::default();
    let extra = extra.replicas.get(at).unwrap_or(&none);
    let most = upstream.endpoints.iter().map(|endpoint| endpoint.in_flight).max().unwrap_or(0).max(1);
    let whole = endpoint.window.unwrap_or(most);
    let limit = endpoint.window.map(|window| format!("/{window}")).unwrap_or_default();
    let share = f64::from(endpoint.in_flight) / f64::from(whole.max(1));
    let time = |time: Option<f64>| (Style::Plain, time.map_or("-".to_owned(), latency));
    let level = endpoint.level();
    let failed = |count| if count > 0 { Style::Bad } else { Style::Plain };
    [
        (Style::Plain, if endpoint.next { "▸" } else { "" }.to_owned()),
        (Style::Plain, endpoint.address.clone()),
        (level.into(), format!("{} {}", level.mark(), endpoint.state())),
        (Style::Plain, age(endpoint.since_seconds)),
        (Style::Plain, format!("{} {}{limit}", bar(share, BAR), endpoint.in_flight)),
        (Style::Plain, shares(extra)),
        time(extra.p50_seconds),
        time(extra.p99_seconds),
        (Style::Plain, grouped(endpoint.requests)),
        (failed(endpoint.failures), grouped(endpoint.failures)),
        (failed(endpoint.server_errors), grouped(endpoint.server_errors)),
        (Style::Dim, why(endpoint)),
    ]
}

/// The share that a replica has, and in parentheses the one that it would have if all had the same.
pub(super) fn shares(extra: &ReplicaOverview) -> String {
    match (extra.share, extra.fair_share) {
        (Some(share), Some(fair)) => format!("{share:.1} % ({fair:.0} %)"),
        _ => "-".to_owned(),
    }
}

fn why(endpoint: &EndpointStatus) -> String {
    let name = endpoint.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    format!("{name}{}", endpoint.why())
}

fn widths(rows: &[Cells]) -> [usize; COLUMNS.len()] {
    std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].1.chars().count());
        cells.chain([COLUMNS[column].0.chars().count()]).max().unwrap_or(0)
    })
}

fn row(cells: &Cells, widths: &[usize; COLUMNS.len()]) -> Line {
    let mut line = Line::default();
    for (column, ((style, cell), width)) in cells.iter().zip(widths).enumerate() {
        let gap = if column < 2 { " " } else { "  " };
        let padded = match COLUMNS[column].1 {
            true => format!("{gap}{cell:>width$}"),
            false => format!("{gap}{cell:<width$}"),
        };
        line = line.and(*style, padded);
    }
    line
}

/// A change of state.
pub(super) fn event(event: &Occurrence) -> Line {
    let whom = event.address.as_deref().map(|address| format!("{address} ")).unwrap_or_default();
    Line::of(Style::Dim, format!("{:>13} ago  ", age(event.seconds_ago)))
        .and(Style::Plain, format!("{whom}{}", event.what))
}
