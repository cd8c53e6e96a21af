//! The tables that a reader sees: which figures make a line, what a cell of it says, and why one is empty.

use crate::figure::{Figure, Measure};
use crate::kind::Kind;
use crate::row::{Balance, Closing, HangUp, Hostile, Row};
use crate::table::Table;
use std::fmt::Write;

/// Where there is no figure.
const NONE: &str = "–";

/// One table of the README or of the page of benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Processor time, added latency, memory.
    Costs,
    /// Latency with a slow replica.
    Balance,
    /// Replicas and clients that behave badly.
    Trouble,
    /// The few lines of the other three by which somebody decides.
    Short,
}

/// One line of a table.
#[derive(Debug)]
pub struct Line {
    /// What it is about.
    pub title: String,
    /// The figures in its cells, the most important first.
    pub figures: Vec<Figure>,
    style: Style,
}

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// The figure alone.
    Bare,
    /// The figure and its spread.
    Plain,
    /// The same with the ratio to HAProxy.
    Ratio,
    /// The same, but nothing where the proxy was not busy.
    Saturated,
    /// What a proxy adds to the direct way, and its spread.
    Added,
    /// The same without its spread.
    AddedBare,
    /// Several figures.
    Several,
}

impl Section {
    /// Those that together have every figure.
    pub const ALL: [Section; 3] = [Section::Costs, Section::Balance, Section::Trouble];

    /// Its name in the markers.
    pub fn key(self) -> &'static str {
        match self {
            Section::Costs => "costs",
            Section::Balance => "balance",
            Section::Trouble => "trouble",
            Section::Short => "short",
        }
    }

    /// Its lines.
    pub fn lines(self) -> Vec<Line> {
        match self {
            Section::Costs => costs(),
            Section::Balance => balances(),
            Section::Trouble => troubles(),
            Section::Short => short(),
        }
    }

    /// In Markdown: a line for each that was measured, a column for each contender that took part.
    pub fn markdown(self, table: &Table) -> String {
        let lines = self.lines();
        let all: Vec<Figure> = lines.iter().flat_map(|line| line.figures.clone()).collect();
        let mut contenders = table.contenders(&all);
        if self == Section::Costs {
            // What the direct way takes is what the others add to.
            contenders.retain(|kind| kind.is_proxy());
        }
        if self == Section::Short {
            contenders.retain(|kind| *kind != Kind::Direct && !kind.is_variant());
        }
        let mut text = String::from("| |");
        for kind in &contenders {
            let version = table.versions.get(kind).filter(|_| self != Section::Short);
            let version = version.map_or(String::new(), |version| format!(" {version}"));
            let _ = write!(text, " {}{version} |", kind.name());
        }
        let _ = write!(text, "\n|:--|{}\n", "--:|".repeat(contenders.len()));
        for line in lines.iter().filter(|line| !table.contenders(&line.figures).is_empty()) {
            let cells: Vec<String> = contenders.iter().map(|kind| line.cell(table, *kind)).collect();
            let _ = writeln!(text, "| {} | {} |", line.title, cells.join(" | "));
        }
        text
    }
}

impl Line {
    fn new(title: impl Into<String>, row: Row, measures: &[Measure], style: Style) -> Line {
        let figures = measures.iter().map(|measure| Figure { row, measure: *measure }).collect();
        Line { title: title.into(), figures, style }
    }

    fn cell(&self, table: &Table, kind: Kind) -> String {
        let figure = self.figures[0];
        let measure = figure.measure;
        let Some(value) = table.median(figure, kind) else { return NONE.into() };
        let spread = table.spread(figure, kind).map_or(String::new(), |(low, high)| {
            let (low, high) = (measure.show(low), measure.show(high));
            if low == high { String::new() } else { format!("<br><sub>{low} – {high}</sub>") }
        });
        match self.style {
            Style::Saturated if !table.is_saturated(figure.row, kind) => NONE.into(),
            Style::Ratio | Style::Saturated => {
                let ratio = table.ratio(figure, kind).map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
                format!("{}{ratio}{spread}", measure.show(value))
            }
            Style::Bare => measure.show(value),
            Style::Plain => format!("{}{spread}", measure.show(value)),
            Style::Added => format!("{}{}{spread}", sign(value), measure.show(value)),
            Style::AddedBare => format!("{}{}", sign(value), measure.show(value)),
            Style::Several => {
                let shown = |figure: &Figure| Some(figure.measure.show(table.median(*figure, kind)?));
                let shown: Vec<String> =
                    self.figures.iter().map(|figure| shown(figure).unwrap_or_else(|| NONE.into())).collect();
                shown.join(", ")
            }
        }
    }

    /// The proxy is compared with others by it.
    pub fn compares(&self, table: &Table, kind: Kind) -> bool {
        self.style != Style::Saturated || table.is_saturated(self.figures[0].row, kind)
    }
}

/// What stands before a difference; a negative one has its own.
fn sign(value: f64) -> &'static str {
    if value >= 0.0 { "+" } else { "" }
}

fn short() -> Vec<Line> {
    use Measure::*;
    let line = |title: &str, row, measure| Line::new(title, row, &[measure], Style::Bare);
    vec![
        line("p99, one of three replicas 10 × slower, 50 % load", Row::Balance(Balance::Slow(50)), P99),
        line("p99 without the slow one", Row::Balance(Balance::Without(50)), P99),
        line("one of three answers 500 at once: its share of all requests", Row::Failing, Share),
        line("a slow one is well again: time until it has its share", Row::Recovery, Recovery),
        line("3 s without a replica: requests lost", Row::Outage, Lost),
        line("replicas that close 0–10 ms after each answer: requests lost", Row::Closing(Closing::Late), Lost),
        line("CPU per request, empty GET", Row::Get, Cpu),
        Line::new("added p50, 64 connections", Row::Latency(64), &[P50], Style::AddedBare),
        line("memory, idle", Row::Memory, Idle),
        line("memory of 2,000 clients with heads of 60 KB, unanswered", Row::Hostile(Hostile::Waiting), Memory),
    ]
}

fn costs() -> Vec<Line> {
    use Measure::*;
    let cpu = |title: &str, row| Line::new(format!("CPU per request, {title}"), row, &[Cpu], Style::Ratio);
    let added = |share: &str, measure, connections: usize| {
        let (number, plural) = match connections {
            1 => ("1".to_owned(), ""),
            1000 => ("1,000".to_owned(), "s"),
            more => (more.to_string(), "s"),
        };
        let title = format!("added {share}, {number} connection{plural}");
        Line::new(title, Row::Latency(connections), &[measure], Style::Added)
    };
    let mut lines = vec![
        cpu("empty GET", Row::Get),
        cpu("1 KiB answered", Row::Get1K),
        cpu("64 KiB answered", Row::Get64K),
        cpu("4 KiB POST", Row::Post4K),
        cpu("each on a new connection", Row::New),
        cpu("empty GET, two threads", Row::TwoThreads),
        Line::new("requests a second at saturation, one thread", Row::Get, &[Rate], Style::Saturated),
        Line::new("requests a second at saturation, two threads", Row::TwoThreads, &[Rate], Style::Saturated),
        Line::new("… busy share of the proxy meanwhile, one thread", Row::Get, &[Utilisation], Style::Plain),
    ];
    for connections in [1, 64, 1000] {
        lines.extend([
            added("p50", P50, connections),
            added("p99", P99, connections),
            added("p99.9", P999, connections),
        ]);
    }
    let rest = |title: &str, row, measure| Line::new(title, row, &[measure], Style::Ratio);
    lines.extend([
        rest("start to first answer", Row::Start, Startup),
        rest("executable", Row::Start, Size),
        rest("memory, idle", Row::Memory, Idle),
        rest("memory, 1,000 busy connections", Row::Memory, Busy),
        rest("memory per idle connection, of 10,000 that were used", Row::Memory, PerConnection),
    ]);
    lines
}

fn balances() -> Vec<Line> {
    use Measure::*;
    let line = |title: &str, balance, measure| Line::new(title, Row::Balance(balance), &[measure], Style::Plain);
    let mut lines = vec![];
    for load in [10, 50, 80] {
        for (share, measure) in [("p99", P99), ("p99.9", P999)] {
            let title = format!("{share}, one of three 10 × slower, {load} % load");
            lines.push(line(&title, Balance::Slow(load), measure));
            let title = format!("… without the slow one, {load} % load");
            lines.push(line(&title, Balance::Without(load), measure));
        }
    }
    let more = [
        (Balance::Four, "one of three 10 × slower, four proxies, 50 % load"),
        (Balance::SlowFewWorkers, "one of three 10 × slower, two workers each, 80 % load"),
        (Balance::AlikeFewWorkers, "three alike, two workers each, 80 % load"),
    ];
    for (balance, title) in more {
        if balance == Balance::AlikeFewWorkers {
            lines.push(line(&format!("mean, {title}"), balance, Mean));
        }
        lines.push(line(&format!("p99, {title}"), balance, P99));
        lines.push(line(&format!("p99.9, {title}"), balance, P999));
    }
    lines.extend([
        Line::new("one answers 500 at once: its share of all requests", Row::Failing, &[Share], Style::Plain),
        Line::new("… requests that clients see fail", Row::Failing, &[Failed], Style::Plain),
        Line::new("a slow one is well again: until it has its share, 100/s", Row::Recovery, &[Recovery], Style::Plain),
    ]);
    lines
}

fn troubles() -> Vec<Line> {
    use Measure::*;
    let mut lines = vec![];
    for row in Row::ALL {
        let Row::HangUp(HangUp { broken, among }) = row else { continue };
        let title = format!(
            "a path that hangs up {broken} times a second, among {among}/s of 10 ms: p50 and p99 of those, by without; lost; run twice"
        );
        lines.push(Line::new(title, row, &[P50Ratio, P99Ratio, Lost, Repeated], Style::Several));
    }
    let closing = |title: &str, closing| {
        let title = format!("{title}: answered a second by four callers, p90, lost");
        Line::new(title, Row::Closing(closing), &[Rate, P90, Lost], Style::Several)
    };
    let hostile = |title: &str, hostile| {
        Line::new(
            format!("memory of 2,000 hostile connections, {title}"),
            Row::Hostile(hostile),
            &[Memory],
            Style::Plain,
        )
    };
    lines.extend([
        closing("one replica, which breaks off 4 responses a second", Closing::OneBreaks),
        closing("three replicas, which break off 10 a second", Closing::ThreeBreak),
        closing("replicas that close unannounced after each answer", Closing::Unannounced),
        closing("replicas that close 0–10 ms after each answer", Closing::Late),
        Line::new(
            "3 s without a replica, an app that bears 100 at once: lost, p99",
            Row::Outage,
            &[Lost, P99],
            Style::Several,
        ),
        Line::new(
            "one of two replicas killed with 1,000 GETs in flight: lost, p99",
            Row::Death,
            &[Lost, P99],
            Style::Several,
        ),
        Line::new("3,000 cancelled requests: sockets left in TIME_WAIT", Row::Cancelled, &[TimeWait], Style::Plain),
        hostile("60 KB of a head without its end", Hostile::Head),
        hostile("with a whole head, unanswered", Hostile::Waiting),
        hostile("with a PUT of 64 KiB", Hostile::Put),
        hostile("with that in chunks", Hostile::Chunks),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_shows_a_figure_that_its_row_gives() {
        for line in Section::ALL.into_iter().chain([Section::Short]).flat_map(Section::lines) {
            for figure in &line.figures {
                assert!(figure.row.figures().contains(figure), "{}: {figure:?}", line.title);
            }
        }
    }

    #[test]
    fn a_rate_that_the_load_limited_is_withheld() {
        let mut table = Table::default();
        for (kind, busy) in [(Kind::Evenkeel, 71.0), (Kind::HaProxy, 99.0)] {
            table.add(Figure { row: Row::Get, measure: Measure::Rate }, kind, 0, 40_000.0);
            table.add(Figure { row: Row::Get, measure: Measure::Utilisation }, kind, 0, busy);
        }
        let text = Section::Costs.markdown(&table);
        assert!(text.contains("| requests a second at saturation, one thread | – | 40,000 |"), "{text}");
        assert!(text.contains("| 71.0 % | 99.0 % |"), "{text}");
    }

    #[test]
    fn several_rounds_show_their_spread_and_the_ratio_to_haproxy() {
        let mut table = Table::default();
        for (round, value) in [10.0, 11.0, 12.0].into_iter().enumerate() {
            table.add(Figure { row: Row::Get, measure: Measure::Cpu }, Kind::Evenkeel, round, value);
            table.add(Figure { row: Row::Get, measure: Measure::Cpu }, Kind::HaProxy, round, 2.0 * value);
        }
        let text = Section::Costs.markdown(&table);
        assert!(text.contains("| 11.0 µs (0.50)<br><sub>10.0 µs – 12.0 µs</sub> |"), "{text}");
    }
}
