//! One number of a row, its name in the file of values, and how a reader sees it.

use crate::row::Row;

/// One number that a row gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Figure {
    pub row: Row,
    pub measure: Measure,
}

/// What a number measures, and its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Processor time of the proxy per request, µs.
    Cpu,
    /// Requests answered a second.
    Rate,
    /// Processor time of the proxy by the time of its threads, per cent.
    Utilisation,
    /// Mean latency, µs; the next four are percentiles.
    Mean,
    /// µs.
    P50,
    /// µs.
    P90,
    /// µs.
    P99,
    /// µs.
    P999,
    /// A median by the one of the same proxy without what disturbs.
    P50Ratio,
    /// The same of the 99th percentile.
    P99Ratio,
    /// Requests without a right answer, per cent.
    Lost,
    /// Requests that replicas ran more than once.
    Repeated,
    /// From start to first answer, ms.
    Startup,
    /// The executable, MB.
    Size,
    /// Memory without a connection, MB.
    Idle,
    /// Memory while 1,000 connections are busy, MB.
    Busy,
    /// Memory that one of 10,000 idle connections adds after a request with a head of 4 KiB, KiB.
    PerConnection,
    /// Until a slow replica that is well again has its share, s.
    Recovery,
    /// Of all requests, those that a replica gets which answers 500 at once, per cent.
    Share,
    /// Of all requests, those that a client sees fail, per cent.
    Failed,
    /// Sockets in TIME_WAIT at the proxy's side of its connections to replicas.
    TimeWait,
    /// Memory that hostile connections add in all, MB.
    Memory,
}

impl Figure {
    /// Its name in the file of values.
    pub fn key(self) -> String {
        format!("{}.{}", self.row.key(), self.measure.key())
    }

    /// The one with this name.
    pub fn named(key: &str) -> Option<Figure> {
        Row::ALL.into_iter().flat_map(Row::figures).find(|figure| figure.key() == key)
    }
}

impl Measure {
    /// One of two values is better: how busy a proxy was is only what others have to be judged by.
    pub fn is_judged(self) -> bool {
        self != Measure::Utilisation
    }

    fn key(self) -> &'static str {
        match self {
            Measure::Cpu => "cpu-us",
            Measure::Rate => "rate",
            Measure::Utilisation => "busy-percent",
            Measure::Mean => "mean-us",
            Measure::P50 => "p50-us",
            Measure::P90 => "p90-us",
            Measure::P99 => "p99-us",
            Measure::P999 => "p99.9-us",
            Measure::P50Ratio => "p50-ratio",
            Measure::P99Ratio => "p99-ratio",
            Measure::Lost => "lost-percent",
            Measure::Repeated => "repeated",
            Measure::Startup => "ms",
            Measure::Size => "executable-mb",
            Measure::Idle => "idle-mb",
            Measure::Busy => "busy-mb",
            Measure::PerConnection => "connection-kib",
            Measure::Recovery => "seconds",
            Measure::Share => "share-percent",
            Measure::Failed => "failed-percent",
            Measure::TimeWait => "time-wait",
            Measure::Memory => "mb",
        }
    }

    /// A value of it for the reader.
    pub fn show(self, value: f64) -> String {
        match self {
            Measure::Rate | Measure::Repeated | Measure::TimeWait => thousands(value),
            Measure::Cpu => format!("{} µs", digits(value)),
            Measure::Mean | Measure::P50 | Measure::P90 | Measure::P99 | Measure::P999 => time(value),
            Measure::P50Ratio | Measure::P99Ratio => format!("× {}", digits(value)),
            Measure::Startup => format!("{value:.0} ms"),
            Measure::Size | Measure::Idle | Measure::Busy | Measure::Memory => format!("{} MB", digits(value)),
            Measure::PerConnection => format!("{} KiB", digits(value)),
            Measure::Recovery if value >= NEVER => format!("over {NEVER:.0} s"),
            Measure::Recovery => format!("{value:.1} s"),
            Measure::Lost | Measure::Failed if value == 0.0 => "none".into(),
            Measure::Utilisation | Measure::Lost | Measure::Failed | Measure::Share => format!("{} %", digits(value)),
        }
    }
}

/// A recovered replica is given up on after so many seconds.
pub const NEVER: f64 = 30.0;

/// Three digits that say something.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Of microseconds, in the unit that fits.
fn time(micros: f64) -> String {
    match micros.abs() {
        size if size >= 1e6 => format!("{} s", digits(micros / 1e6)),
        size if size >= 1e3 => format!("{} ms", digits(micros / 1e3)),
        _ => format!("{micros:.0} µs"),
    }
}

/// A number with its thousands set apart.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value <= -0.5 { String::from("-") } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_figure_is_found_again_by_its_name() {
        let all: Vec<Figure> = Row::ALL.into_iter().flat_map(Row::figures).collect();
        let names: HashSet<String> = all.iter().map(|figure| figure.key()).collect();
        assert_eq!(names.len(), all.len(), "two figures have one name");
        for figure in all {
            assert_eq!(Figure::named(&figure.key()), Some(figure));
        }
    }

    #[test]
    fn a_number_keeps_the_digits_that_say_something() {
        assert_eq!(Measure::Cpu.show(15.93), "15.9 µs");
        assert_eq!(Measure::P99.show(1_234_567.0), "1.23 s");
        assert_eq!(Measure::P99.show(-12.0), "-12 µs");
        assert_eq!(Measure::Rate.show(43774.4), "43,774");
        assert_eq!(Measure::Lost.show(0.0), "none");
    }
}
