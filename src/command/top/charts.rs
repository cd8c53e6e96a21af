//! The last hour of an upstream in a few lines, and its queue.

use super::line::{Line, bar, spark};
use crate::admin::hour::{Column, Hour};
use crate::admin::overview::UpstreamOverview;
use crate::admin::status::UpstreamStatus;
use crate::admin::wording::{age, count, grouped, latency};
use crate::command::paint::Style;

/// Columns of the queue's bar.
const QUEUE: usize = 20;

/// Where a chart begins in its line: behind its name.
const CHART: usize = 14;

/// So much room is left behind a chart for where its scale ends.
const SCALE: usize = 14;

/// The last hour, as much of it as there is room for, and the queue where there is one.
pub(super) fn draw(upstream: &UpstreamStatus, extra: &UpstreamOverview, width: usize) -> Vec<Line> {
    let hour = &extra.hour;
    let mut lines = Vec::new();
    if hour.known().next().is_some() {
        let rate = hour.most(|column| Some(column.rate), 1.0);
        let slowest = hour.most(|column| column.p99_seconds, 0.001);
        let longest = hour.most(|column| Some(f64::from(column.waiting)), 0.0);
        let scale = format!(" ≤ {}/s", grouped(rate.round() as u64));
        lines.push(chart("requests/s", hour, width, &scale, |column| Some(column.rate / rate)));
        let scale = format!(" ≤ {}", latency(slowest));
        lines.push(chart("p99", hour, width, &scale, |column| Some(column.p99_seconds? / slowest)));
        if longest > 0.0 {
            let scale = format!(" ≤ {}", grouped(longest as u64));
            lines.push(chart("waiting", hour, width, &scale, |column| {
                (column.waiting > 0).then(|| f64::from(column.waiting) / longest)
            }));
        }
    }
    if upstream.waiting > 0 {
        let share = upstream.waiting as f64 / upstream.max_waiting.max(1) as f64;
        let waited = upstream.next_waited_seconds.map(|time| format!("; the next one has waited for {}", age(time)));
        let text = format!(
            " {} of {} from {}{}",
            grouped(upstream.waiting as u64),
            grouped(upstream.max_waiting as u64),
            count(upstream.waiting_callers, "client"),
            waited.unwrap_or_default()
        );
        let name = format!("  {:<1$}", "queue", CHART - 2);
        lines.push(Line::of(Style::Dim, name).and(Style::Doubtful, bar(share, QUEUE)).and(Style::Plain, text));
    }
    lines
}

/// The newest columns that there is room for. Where requests failed it is red.
fn chart(name: &str, hour: &Hour, width: usize, scale: &str, share: impl Fn(&Column) -> Option<f64>) -> Line {
    let room = width.saturating_sub(CHART + SCALE);
    let mut line = Line::of(Style::Dim, format!("  {name:<0$}", CHART - 2));
    let first = hour.columns.len().saturating_sub(room);
    // What is not known yet takes no room.
    let known = hour.columns.iter().position(Option::is_some).unwrap_or(0);
    for column in &hour.columns[first.max(known)..] {
        let height = column.as_ref().and_then(&share).map_or(' ', spark);
        let failed = column.as_ref().is_some_and(|column| column.failed > 0);
        line = line.and(if failed { Style::Bad } else { Style::Good }, height.to_string());
    }
    line.and(Style::Dim, scale)
}
