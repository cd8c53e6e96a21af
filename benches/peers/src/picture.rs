//! The figures that matter most, drawn: an SVG of small panels, one for each figure, a bar for each contender.
//!
//! Bars start at zero, so that lengths may be compared; one that would dwarf the others is cut, visibly, and keeps its
//! number. Nothing is told by colour alone. The reader's light or dark mode decides the colours.

use crate::figure::{Figure, Measure};
use crate::kind::Kind;
use crate::row::{Balance, Row};
use crate::table::Table;
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
const COLUMNS: usize = 3;
/// Between two columns.
const GAP: f64 = 26.0;
/// Of a panel: for the contenders' names, and for the numbers behind the bars.
const NAMES: f64 = 108.0;
const NUMBERS: f64 = 92.0;
/// From bar to bar, and of the bar itself.
const PITCH: f64 = 18.0;
const BAR: f64 = 11.0;
/// Of a panel's title.
const TITLE: f64 = 24.0;
/// Below a panel.
const SPACE: f64 = 18.0;
/// Contenders' versions in a line of the caption.
const VERSIONS: usize = 4;

/// A bar is cut beyond so many times the reference: HAProxy's processor time, or the latency without the slow replica.
const CPU_CUT: f64 = 3.0;
const LATENCY_CUT: f64 = 5.0;
/// Recovery is promised within five seconds.
const RECOVERY_CUT: f64 = 10.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#57606a}.h{font-size:17px;font-weight:600;fill:#1f2328}\
.t{font-size:13px;font-weight:600;fill:#1f2328}.o{font-weight:600;fill:#1f2328}.c{fill:#fff;stroke:#d0d7de}\
.b{fill:#afb8c1}.e{fill:#1a7f64}.r{stroke:#57606a;stroke-dasharray:3 3}.x{stroke:#fff;stroke-width:3}\
.n{paint-order:stroke;stroke:#fff;stroke-width:3px}\
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.h,.t,.o{fill:#f0f3f6}.c{fill:#0d1117;stroke:#3d444d}\
.b{fill:#545d68}.e{fill:#3fb68b}.r{stroke:#9da7b3}.x,.n{stroke:#0d1117}}";

/// One figure of all contenders.
struct Panel {
    title: String,
    bars: Vec<Bar>,
    /// What a bar of full length stands for.
    full: f64,
    /// Where the dashed line is, if there is something to compare with.
    reference: Option<f64>,
}

struct Bar {
    kind: Kind,
    size: f64,
    number: String,
}

/// Draws what the table has of processor time and balance.
pub fn svg(table: &Table) -> String {
    let costs: Vec<Panel> = [Row::Get, Row::Get1K, Row::Get64K, Row::Post4K, Row::New, Row::TwoThreads]
        .into_iter()
        .filter_map(|row| cost(table, row))
        .collect();
    let slow = |measure, share: &'static str| {
        [10, 50, 80].map(|load| {
            let title = format!("{share}, {load} % load");
            latency(table, measure, (Balance::Slow(load), Balance::Without(load)), &title)
        })
    };
    let failing = Figure { row: Row::Failing, measure: Measure::Share };
    let recovery = Figure { row: Row::Recovery, measure: Measure::Recovery };
    let more = [
        latency(table, Measure::P99, (Balance::Four, Balance::Without(50)), "p99, four proxies, 50 % load"),
        plain(table, failing, "one answers 500: its share of requests", 100.0),
        plain(table, recovery, "the slow one is well: until it has its share", RECOVERY_CUT),
    ];
    let balances = slow(Measure::P99, "p99").into_iter().chain(slow(Measure::P999, "p99.9")).chain(more);
    let balances: Vec<Panel> = balances.flatten().collect();

    let mut body = String::new();
    let mut y = MARGIN;
    section(
        &mut body,
        &mut y,
        "Processor time per request",
        "µs, and its ratio to HAProxy (dashed), taken round by round; shorter is better",
        &costs,
    );
    section(
        &mut body,
        &mut y,
        "Balance: three replicas of 5 ms, one of them ten times slower",
        "percentiles of latency; dashed: Evenkeel without the slow one; shorter is better",
        &balances,
    );
    let versions = table.versions.iter().map(|(kind, version)| format!("{} {version}", kind.name()));
    let versions: Vec<String> = versions.collect();
    text(&mut body, MARGIN, y, "", "Medians of one machine.");
    for line in versions.chunks(VERSIONS) {
        y += PITCH;
        text(&mut body, MARGIN, y, "", &line.join(", "));
    }
    y += MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" role=\"img\">\
         <title>What Evenkeel costs, and how it balances, beside its peers</title><style>{STYLE}</style>\
         <rect class=\"c\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n{body}</svg>\n",
        WIDTH - 1.0,
        y - 1.0
    )
}

/// Processor time, by its ratio to HAProxy where that was measured.
fn cost(table: &Table, row: Row) -> Option<Panel> {
    let figure = Figure { row, measure: Measure::Cpu };
    let related = table.median(figure, Kind::HaProxy).is_some();
    let bar = |kind: Kind| {
        let value = table.median(figure, kind)?;
        let size = match kind {
            Kind::HaProxy => 1.0,
            _ if related => table.ratio(figure, kind)?,
            _ => value,
        };
        let number = figure.measure.show(value);
        let number = if related && kind != Kind::HaProxy { format!("{number} · {size:.2}") } else { number };
        Some(Bar { kind, size, number })
    };
    let title = match row {
        Row::Get => "empty GET",
        Row::Get1K => "1 KiB response",
        Row::Get64K => "64 KiB response",
        Row::Post4K => "4 KiB POST",
        Row::New => "new connection per request",
        _ => "empty GET, two threads",
    };
    let cut = if related { CPU_CUT } else { f64::INFINITY };
    Panel::new(title, bar, cut, related.then_some(1.0))
}

/// A latency, beside what it would be if the slow replica were not there.
fn latency(table: &Table, measure: Measure, (row, without): (Balance, Balance), title: &str) -> Option<Panel> {
    let figure = |balance| Figure { row: Row::Balance(balance), measure };
    let reference = table.median(figure(without), Kind::Evenkeel);
    let cut = reference.map_or(f64::INFINITY, |reference| LATENCY_CUT * reference);
    Panel::new(title, |kind| Bar::of(table, figure(row), kind), cut, reference)
}

fn plain(table: &Table, figure: Figure, title: &str, cut: f64) -> Option<Panel> {
    Panel::new(title, |kind| Bar::of(table, figure, kind), cut, None)
}

impl Bar {
    fn of(table: &Table, figure: Figure, kind: Kind) -> Option<Bar> {
        let size = table.median(figure, kind)?;
        Some(Bar { kind, size, number: figure.measure.show(size) })
    }
}

impl Panel {
    /// None where nothing was measured.
    fn new(title: &str, bar: impl Fn(Kind) -> Option<Bar>, cut: f64, reference: Option<f64>) -> Option<Panel> {
        let bars: Vec<Bar> = Kind::ALL.into_iter().filter_map(bar).collect();
        let longest = bars.iter().map(|bar| bar.size).max_by(f64::total_cmp)?;
        Some(Panel { title: title.to_owned(), bars, full: longest.min(cut), reference })
    }

    fn height(&self) -> f64 {
        TITLE + PITCH * self.bars.len() as f64 + SPACE
    }

    fn draw(&self, body: &mut String, left: f64, top: f64, width: f64) {
        text(body, left, top + 13.0, "t", &self.title);
        let (start, room) = (left + NAMES, width - NAMES - NUMBERS);
        for (index, bar) in self.bars.iter().enumerate() {
            let y = top + TITLE + PITCH * index as f64;
            let own = bar.kind == Kind::Evenkeel;
            let length = room * (bar.size / self.full).clamp(0.0, 1.0);
            let (name, fill) = if own { ("o", "e") } else { ("", "b") };
            text(body, left, y + 10.0, name, bar.kind.name());
            // Something to be seen of a bar that is next to nothing.
            let seen = length.max(1.0);
            let _ = writeln!(
                body,
                "<rect class=\"{fill}\" x=\"{start:.1}\" y=\"{y:.1}\" width=\"{seen:.1}\" height=\"{BAR}\"/>"
            );
            if bar.size > self.full {
                let x = start + room - 14.0;
                line(body, "x", (x, y + BAR + 2.0), (x + 6.0, y - 2.0));
            }
        }
        if let Some(reference) = self.reference.filter(|reference| *reference <= self.full) {
            let x = start + room * reference / self.full;
            line(body, "r", (x, top + TITLE - 4.0), (x, top + self.height() - SPACE));
        }
        // Last, and on ground of their own: the dashed line may run through them.
        for (index, bar) in self.bars.iter().enumerate() {
            let y = top + TITLE + PITCH * index as f64;
            let class = if bar.kind == Kind::Evenkeel { "n o" } else { "n" };
            let length = room * (bar.size / self.full).clamp(0.0, 1.0);
            text(body, start + length + 6.0, y + 10.0, class, &bar.number);
        }
    }
}

/// A heading, and its panels in rows.
fn section(body: &mut String, y: &mut f64, title: &str, units: &str, panels: &[Panel]) {
    if panels.is_empty() {
        return;
    }
    text(body, MARGIN, *y + 14.0, "h", title);
    text(body, MARGIN, *y + 34.0, "", units);
    *y += 52.0;
    let width = (WIDTH - 2.0 * MARGIN - GAP * (COLUMNS - 1) as f64) / COLUMNS as f64;
    for row in panels.chunks(COLUMNS) {
        for (column, panel) in row.iter().enumerate() {
            panel.draw(body, MARGIN + (width + GAP) * column as f64, *y, width);
        }
        *y += row.iter().map(Panel::height).fold(0.0, f64::max);
    }
    *y += 10.0;
}

fn text(body: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

fn line(body: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(body, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_too_long_is_cut_and_keeps_its_number() {
        let mut table = Table::default();
        for (kind, value) in [(Kind::Evenkeel, 10.0), (Kind::HaProxy, 20.0), (Kind::Traefik, 200.0)] {
            table.add(Figure { row: Row::Get, measure: Measure::Cpu }, kind, 0, value);
        }
        let drawn = svg(&table);
        assert_eq!(drawn.matches("class=\"x\"").count(), 1, "one bar is cut:\n{drawn}");
        for number in [">10.0 µs · 0.50<", ">20.0 µs<", ">200 µs · 10.00<"] {
            assert!(drawn.contains(number), "{number} is not in\n{drawn}");
        }
        let widths =
            drawn.lines().filter(|line| line.contains("<rect class=\"b\"") || line.contains("<rect class=\"e\""));
        let widths: Vec<f64> =
            widths.filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok()).collect();
        assert!((widths[1] / widths[0] - 2.0).abs() < 0.1 && (widths[2] / widths[1] - 3.0).abs() < 0.1, "{widths:?}");
    }
}
