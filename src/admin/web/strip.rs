//! The last hour of an upstream, or what is known of it, as a picture: rate and failures, times, the queue, and flags for
//! what happened.

use super::super::history::History;
use super::super::hour::{COLUMNS, Column, Hour, summary};
use super::super::status::{Occurrence, Reload, UpstreamStatus};
use super::super::wording::{age, grouped, latency};
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The width of a column.
const WIDTH: f64 = 6.0;

/// Where the bands begin and end, from the top: rate with failures, times, and where requests have waited the queue.
const RATE: (f64, f64) = (4.0, 56.0);
const TIMES: (f64, f64) = (64.0, 116.0);
const QUEUE: (f64, f64) = (124.0, 148.0);

/// The height that the flags take below the last band, and where they stand within it.
const FLAGS: f64 = 20.0;
const FLAG: f64 = 14.0;

/// Draws it. `at`: the slot that is shown below.
pub(super) fn draw(upstream: &UpstreamStatus, reload: Option<&Reload>, history: &History, at: Option<u64>) -> Markup {
    let hour = Hour::of(&upstream.name, history);
    let rate = hour.most(|column| Some(column.rate), 1.0);
    let slowest = hour.most(|column| column.p99_seconds, 0.001);
    let longest = hour.most(|column| Some(f64::from(column.waiting)), 0.0);
    let bottom = if longest > 0.0 { QUEUE.1 } else { TIMES.1 };
    let area = path(&hour, |column| Some(height(column.rate / rate, RATE)));
    let p50 = path(&hour, |column| Some(height(column.p50_seconds? / slowest, TIMES)));
    let p99 = path(&hour, |column| Some(height(column.p99_seconds? / slowest, TIMES)));
    let view = format!("0 0 {:.0} {:.0}", COLUMNS as f64 * WIDTH, bottom + FLAGS);
    let summary = summary(&upstream.name, &hour);
    html! {
        figure {
            svg.strip viewBox=(view) preserveAspectRatio="none" tabindex="0" role="img" aria-label=(summary) {
                path.rate d=(area) {}
                path.p99 d=(p99) {}
                path.p50 d=(p50) {}
                path.failed d=(bars(&hour, RATE, failed)) {}
                @if longest > 0.0 {
                    path.waiting d=(bars(&hour, QUEUE, |column| f64::from(column.waiting) / longest)) {}
                }
                @for (index, column) in hour.columns.iter().enumerate() {
                    @if let Some(column) = column { (target(index, column, at, hour.slots())) }
                }
                @for flag in flags(&upstream.timeline, reload, hour.span()) { (flag.draw(bottom + FLAG)) }
            }
            figcaption {
                (summary) " Top: requests a second, at most " (grouped(rate.round() as u64))
                ", and failed ones as bars. Below: p50 and, paler, p99, at most " (latency(slowest)) "."
                @if longest > 0.0 { " Bars below: requests that waited for a replica, at most " (grouped(longest as u64)) " at once." }
                " Flags: what happened."
            }
        }
    }
}

/// Where a value stands in a band, of which it takes so much.
fn height(share: f64, (top, bottom): (f64, f64)) -> f64 {
    bottom - share.clamp(0.0, 1.0) * (bottom - top)
}

/// A bar in each column from the bottom of a band, of which it takes so much.
fn bars(hour: &Hour, band: (f64, f64), share: impl Fn(&Column) -> f64) -> String {
    let mut path = String::new();
    for (index, column) in hour.columns.iter().enumerate() {
        let share = column.as_ref().map_or(0.0, &share);
        if share > 0.0 {
            let (x, bottom) = (index as f64 * WIDTH, band.1);
            let _ = write!(path, "M{x:.0} {bottom:.0}h{WIDTH:.0}V{:.1}h-{WIDTH:.0}z", height(share, band));
        }
    }
    path
}

/// The bar of a column's failed requests. One is a quarter of the band, and ten or more are all of it.
fn failed(column: &Column) -> f64 {
    if column.failed == 0 { 0.0 } else { f64::from(column.failed.min(10)) / 13.0 + 0.23 }
}

/// A line through what is known, with gaps where nothing is.
fn path(hour: &Hour, y: impl Fn(&Column) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (index, column) in hour.columns.iter().enumerate() {
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

/// The place to choose this column.
fn target(index: usize, column: &Column, at: Option<u64>, slots: u64) -> Markup {
    let chosen = at.is_some_and(|at| at <= column.number && at + slots > column.number);
    let mut title = format!("{} requests/s", grouped(column.rate.round() as u64));
    if let (Some(p50), Some(p99)) = (column.p50_seconds, column.p99_seconds) {
        let _ = write!(title, ", p50 {}, p99 {}", latency(p50), latency(p99));
    }
    if column.failed > 0 {
        let _ = write!(title, ", {} failed", column.failed);
    }
    if column.server_errors > 0 {
        let _ = write!(title, ", {} answered with 5xx", column.server_errors);
    }
    if column.waiting > 0 {
        let _ = write!(title, ", {} waited at once", column.waiting);
    }
    html! {
        a href=(format!("?at={}", column.number)) tabindex="-1" class=(if chosen { "chosen" } else { "moment" }) {
            title { (title) }
            rect x=(format!("{:.0}", index as f64 * WIDTH)) {}
        }
    }
}

/// What happened within two columns' time: flags that are closer would cover each other.
struct Flag {
    /// Which two columns.
    place: usize,
    /// The worst of what happened.
    sign: Sign,
    /// All of it, as far as there is room.
    named: Vec<String>,
    count: usize,
}

impl Flag {
    fn draw(&self, y: f64) -> Markup {
        let x = (self.place as f64 + 0.5) * PLACE;
        let (sign, class) = self.sign.look();
        let more = self.count.saturating_sub(NAMED);
        html! {
            text x=(format!("{x:.0}")) y=(y) class=(class) {
                (sign) title { (self.named.join("; ")) @if more > 0 { "; and " (more) " more" } }
            }
        }
    }

    /// Adds what happened then.
    fn add(&mut self, sign: Sign, what: &str) {
        self.count += 1;
        // The worst comes first: it is what the sign is of.
        if sign > self.sign || self.named.is_empty() {
            self.sign = self.sign.max(sign);
            self.named.insert(0, what.to_owned());
        } else {
            self.named.push(what.to_owned());
        }
        self.named.truncate(NAMED);
    }
}

/// How many events a flag names.
const NAMED: usize = 2;

/// The width of the place of a flag.
const PLACE: f64 = 2.0 * WIDTH;

/// The flags of a chart that covers so many seconds, from the left.
fn flags(timeline: &[Occurrence], reload: Option<&Reload>, span: f64) -> Vec<Flag> {
    let mut flags: BTreeMap<usize, Flag> = BTreeMap::new();
    let mut add = |seconds_ago: f64, sign: Option<Sign>, what: String| {
        let x = (1.0 - seconds_ago / span) * COLUMNS as f64 * WIDTH;
        if let Some(sign) = sign.filter(|_| x >= 0.0) {
            let place = (x / PLACE) as usize;
            let new = || Flag { place, sign, named: Vec::new(), count: 0 };
            flags.entry(place).or_insert_with(new).add(sign, &format!("{what}, {} ago", age(seconds_ago)));
        }
    };
    for event in timeline {
        let who = event.address.as_deref().unwrap_or("all");
        add(event.seconds_ago, Sign::of(&event.kind), format!("{who} {}", event.what));
    }
    if let Some(reload) = reload {
        let (sign, how) = match &reload.error {
            None => (Sign::Reloaded, "taken over".to_owned()),
            Some(why) => (Sign::Refused, format!("refused: {why}")),
        };
        add(reload.seconds_ago, Some(sign), format!("configuration {how}"));
    }
    flags.into_values().collect()
}

/// What kind of thing happened, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Draining,
    GivenBack,
    Joined,
    Up,
    Reloaded,
    Paused,
    Drained,
    Suspect,
    Unusable,
    Refused,
    Down,
    Ejected,
    Nameless,
}

impl Sign {
    /// Of this kind of event; `None`: it has none.
    fn of(kind: &str) -> Option<Sign> {
        Some(match kind {
            "draining" => Sign::Draining,
            "undrained" | "resumed" => Sign::GivenBack,
            "joined" | "returned" => Sign::Joined,
            "up" | "readmitted" => Sign::Up,
            "paused" => Sign::Paused,
            "drained" => Sign::Drained,
            "suspect" => Sign::Suspect,
            "unproven" | "rejected" => Sign::Unusable,
            "down" => Sign::Down,
            "ejected" => Sign::Ejected,
            "name_failing" => Sign::Nameless,
            _ => return None,
        })
    }

    /// Its shape and its colour. The shape says what it is without the colour.
    fn look(self) -> (&'static str, &'static str) {
        match self {
            Sign::Draining => ("−", "plain"),
            Sign::Reloaded => ("C", "plain"),
            Sign::GivenBack => ("▶", "good"),
            Sign::Joined => ("+", "good"),
            Sign::Up => ("▲", "good"),
            Sign::Paused => ("‖", "doubtful"),
            Sign::Drained => ("◼", "doubtful"),
            Sign::Suspect => ("?", "doubtful"),
            Sign::Unusable => ("!", "bad"),
            Sign::Refused => ("C", "bad"),
            Sign::Down => ("▼", "bad"),
            Sign::Ejected => ("✖", "bad"),
            Sign::Nameless => ("D", "bad"),
        }
    }
}
