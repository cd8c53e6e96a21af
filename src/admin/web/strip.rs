//! The last hour of an upstream, or what is known of it, as a picture: rate and failures, times, and flags for what happened.

use super::super::history::{History, SLOT, SLOTS, Slot};
use super::super::status::{Occurrence, UpstreamStatus};
use super::super::wording::{age, grouped, latency};
use maud::{Markup, html};
use std::fmt::Write as _;
use std::time::Duration;

/// Columns, and the width of each. A column is half a minute, or ten seconds while the history is a third of an hour or less.
const COLUMNS: usize = SLOTS / 3;
const WIDTH: f64 = 6.0;

/// Where the bands begin and end, from the top: rate with failures, times, flags.
const RATE: (f64, f64) = (4.0, 56.0);
const TIMES: (f64, f64) = (64.0, 116.0);
const FLAGS: f64 = 130.0;
const HEIGHT: f64 = 136.0;

/// What one column shows.
struct Column {
    /// The number of its last slot.
    number: u64,
    rate: f64,
    failed: u32,
    p50: Option<Duration>,
    p99: Option<Duration>,
}

/// Draws it. `at`: the slot that is shown below.
pub(super) fn draw(upstream: &UpstreamStatus, history: &History, at: Option<u64>) -> Markup {
    let is_young = history.present() <= COLUMNS as u64;
    let slots = history.last(&upstream.name, if is_young { COLUMNS } else { SLOTS });
    let each = slots.len() / COLUMNS;
    let columns: Vec<Option<Column>> = slots.chunks(each).map(column).collect();
    let span = SLOT.as_secs_f64() * slots.len() as f64;
    let known = || columns.iter().flatten();
    let rate = known().map(|column| column.rate).fold(1.0, f64::max);
    let slowest = known().filter_map(|column| column.p99).max().unwrap_or(Duration::from_millis(1));
    let height = |share: f64, (top, bottom): (f64, f64)| bottom - share.clamp(0.0, 1.0) * (bottom - top);
    let time = |time: Duration| time.as_secs_f64() / slowest.as_secs_f64();
    let area = path(&columns, |column| Some(height(column.rate / rate, RATE)));
    let p50 = path(&columns, |column| column.p50.map(|p50| height(time(p50), TIMES)));
    let p99 = path(&columns, |column| column.p99.map(|p99| height(time(p99), TIMES)));
    let view = format!("0 0 {:.0} {HEIGHT:.0}", COLUMNS as f64 * WIDTH);
    let summary = summary(&upstream.name, &slots);
    html! {
        figure {
            svg.strip viewBox=(view) preserveAspectRatio="none" tabindex="0" role="img" aria-label=(summary) {
                path.rate d=(area) {}
                path.p99 d=(p99) {}
                path.p50 d=(p50) {}
                @for (index, column) in columns.iter().enumerate() {
                    @if let Some(column) = column { (target(index, column, at, each, &height)) }
                }
                @for event in &upstream.timeline { (flag(event, span)) }
            }
            figcaption {
                (summary) " Top: requests a second, at most " (grouped(rate.round() as u64))
                ", and failed ones as bars. Below: p50 and, paler, p99, at most " (latency(slowest.as_secs_f64()))
                ". Flags: what happened."
            }
        }
    }
}

fn column(slots: &[(u64, Option<Slot>)]) -> Option<Column> {
    let known: Vec<&Slot> = slots.iter().filter_map(|(_, slot)| slot.as_ref()).collect();
    let busiest = known.iter().max_by_key(|slot| slot.requests)?;
    let seconds: f32 = known.iter().map(|slot| slot.seconds).sum();
    let requests: u32 = known.iter().map(|slot| slot.requests).sum();
    Some(Column {
        number: slots.last()?.0,
        rate: f64::from(requests) / f64::from(seconds.max(1.0)),
        failed: known.iter().map(|slot| slot.failed).sum(),
        // Percentiles do not add up: the middle is that of the busiest ten seconds, the tail that of the worst.
        p50: busiest.p50,
        p99: known.iter().filter_map(|slot| slot.p99).max(),
    })
}

/// A line through what is known, with gaps where nothing is.
fn path(columns: &[Option<Column>], y: impl Fn(&Column) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (index, column) in columns.iter().enumerate() {
        match column.as_ref().and_then(&y) {
            Some(y) => {
                let _ = write!(path, "{pen}{:.0} {y:.1}h{WIDTH:.0}", index as f64 * WIDTH);
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    path
}

/// The place to choose this column, and its failed requests.
fn target(
    index: usize,
    column: &Column,
    at: Option<u64>,
    each: usize,
    height: &impl Fn(f64, (f64, f64)) -> f64,
) -> Markup {
    let chosen = at.is_some_and(|at| at <= column.number && at + each as u64 > column.number);
    let x = format!("{:.0}", index as f64 * WIDTH);
    // One failed request is a quarter of the band, and ten or more are all of it.
    let failed = (column.failed > 0).then(|| height(f64::from(column.failed.min(10)) / 13.0 + 0.23, RATE));
    let mut title = format!("{} requests/s", grouped(column.rate.round() as u64));
    if let (Some(p50), Some(p99)) = (column.p50, column.p99) {
        let _ = write!(title, ", p50 {}, p99 {}", latency(p50.as_secs_f64()), latency(p99.as_secs_f64()));
    }
    if column.failed > 0 {
        let _ = write!(title, ", {} failed", column.failed);
    }
    html! {
        @if let Some(top) = failed {
            rect.failed x=(x) y=(format!("{top:.1}")) width=(WIDTH) height=(format!("{:.1}", RATE.1 - top)) {}
        }
        a href=(format!("?at={}", column.number)) tabindex="-1" class=(if chosen { "chosen" } else { "moment" }) {
            title { (title) }
            rect x=(x) width=(WIDTH) height=(HEIGHT) {}
        }
    }
}

/// What happened, where it happened. The signs say what kind it was without their colour.
fn flag(event: &Occurrence, span: f64) -> Markup {
    let share = 1.0 - event.seconds_ago / span;
    let x = share * COLUMNS as f64 * WIDTH;
    let (sign, class) = sign(&event.what);
    html! {
        @if share > 0.0 && !sign.is_empty() {
            text x=(format!("{x:.0}")) y=(FLAGS) class=(class) {
                (sign) title { (event.address.as_deref().unwrap_or("all")) " " (event.what) ", " (age(event.seconds_ago)) " ago" }
            }
        }
    }
}

fn sign(what: &str) -> (&'static str, &'static str) {
    let signs = [
        ("joined", "+", "good"),
        ("returned", "+", "good"),
        ("draining", "−", "plain"),
        ("down", "▼", "bad"),
        ("up", "▲", "good"),
        ("suspect", "?", "doubtful"),
        ("ejected", "✖", "bad"),
        ("readmitted", "▲", "good"),
        ("not usable", "!", "bad"),
        ("address dropped", "!", "bad"),
        ("name does not", "D", "bad"),
        ("drained", "◼", "doubtful"),
        ("no longer drained", "▶", "good"),
        ("paused", "‖", "doubtful"),
        ("resumed", "▶", "good"),
    ];
    signs.iter().find(|(begin, ..)| what.starts_with(begin)).map_or(("", ""), |(_, sign, class)| (sign, class))
}

/// The hour in words, for whoever does not see the picture.
fn summary(name: &str, slots: &[(u64, Option<Slot>)]) -> String {
    let known: Vec<&Slot> = slots.iter().filter_map(|(_, slot)| slot.as_ref()).collect();
    let Some(first) = slots.iter().position(|(_, slot)| slot.is_some()) else {
        return format!("{name}: the first ten seconds are not over yet.");
    };
    let span = SLOT.as_secs_f64() * (slots.len() - first) as f64;
    let sum = |of: fn(&Slot) -> u32| grouped(known.iter().map(|slot| u64::from(of(slot))).sum());
    format!(
        "{name}, the last {}: {} requests, {} failed, {} asked again of another replica.",
        age(span),
        sum(|slot| slot.requests),
        sum(|slot| slot.failed),
        sum(|slot| slot.retries)
    )
}
