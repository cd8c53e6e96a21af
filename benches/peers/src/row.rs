//! What is measured: the rows of the table, and the figures that each gives.

use std::time::Duration;

/// One kind of measurement. It may give several figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Row {
    Get,
    Get1K,
    Get64K,
    Post4K,
    New,
    TwoThreads,
    Latency(usize),
    Start,
    Memory,
    /// One of three replicas is ten times slower, at so many per cent of what the other two can do.
    Slow(u8),
    /// The same rate without that one.
    Without(u8),
    /// Three that are alike.
    Alike(u8),
    /// Four proxies beside each other, one of three replicas slow.
    Four,
    /// A slow one is well again.
    Recovery,
    /// One answers 500 at once.
    Failing,
}

impl Row {
    /// In the order in which they are measured.
    pub const ALL: [Row; 21] = [
        Row::Get,
        Row::Get1K,
        Row::Get64K,
        Row::Post4K,
        Row::New,
        Row::Latency(1),
        Row::Latency(64),
        Row::Latency(1000),
        Row::TwoThreads,
        Row::Start,
        Row::Memory,
        Row::Without(10),
        Row::Slow(10),
        Row::Without(50),
        Row::Slow(50),
        Row::Without(80),
        Row::Slow(80),
        Row::Alike(80),
        Row::Four,
        Row::Failing,
        Row::Recovery,
    ];

    /// It is about how well requests are spread, not about what that costs.
    pub fn is_balance(self) -> bool {
        use Row::{Alike, Failing, Four, Recovery, Slow, Without};
        matches!(self, Slow(_) | Without(_) | Alike(_) | Four | Failing | Recovery)
    }

    /// As the command line calls it.
    pub fn key(self) -> String {
        match self {
            Row::Get => "cpu-get".into(),
            Row::Get1K => "cpu-1k".into(),
            Row::Get64K => "cpu-64k".into(),
            Row::Post4K => "cpu-post".into(),
            Row::New => "cpu-new".into(),
            Row::TwoThreads => "two-threads".into(),
            Row::Latency(connections) => format!("latency-{connections}"),
            Row::Start => "start".into(),
            Row::Memory => "memory".into(),
            Row::Slow(load) => format!("slow-{load}"),
            Row::Without(load) => format!("without-{load}"),
            Row::Alike(load) => format!("alike-{load}"),
            Row::Four => "four".into(),
            Row::Recovery => "recovery".into(),
            Row::Failing => "failing".into(),
        }
    }

    /// The figures that it gives.
    pub fn figures(self) -> Vec<Figure> {
        match self {
            Row::Get => vec![Figure::Cpu(self), Figure::Rate(1)],
            Row::Get1K | Row::Get64K | Row::Post4K | Row::New => vec![Figure::Cpu(self)],
            Row::TwoThreads => vec![Figure::Cpu(self), Figure::Rate(2)],
            Row::Latency(connections) => vec![Figure::Latency(50, connections), Figure::Latency(99, connections)],
            Row::Start => vec![Figure::Start, Figure::Size],
            Row::Memory => vec![Figure::Idle, Figure::Busy, Figure::PerConnection],
            Row::Slow(_) | Row::Without(_) | Row::Alike(_) | Row::Four => vec![Figure::Balance(self)],
            Row::Recovery => vec![Figure::Recovery],
            Row::Failing => vec![Figure::Failing],
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Processor time per request, µs.
    Cpu(Row),
    /// Requests a second with so many threads.
    Rate(usize),
    /// The percentile of latency at so many connections, µs.
    Latency(u8, usize),
    /// From start to first answer, ms.
    Start,
    /// The executable, MB.
    Size,
    /// Resident memory without a connection, MB.
    Idle,
    /// Resident memory while 1,000 connections are busy, MB.
    Busy,
    /// Memory that one of 10,000 idle connections adds, KiB.
    PerConnection,
    /// 99th percentile of latency, µs.
    Balance(Row),
    /// Until a slow replica that is well again has its share, s.
    Recovery,
    /// Requests that meet a replica that answers 500 at once, per cent.
    Failing,
}

impl Figure {
    /// Its title in the table.
    pub fn title(self) -> String {
        match self {
            Figure::Cpu(Row::Get) => "CPU per request, empty GET".into(),
            Figure::Cpu(Row::Get1K) => "CPU per request, 1 KiB answered".into(),
            Figure::Cpu(Row::Get64K) => "CPU per request, 64 KiB answered".into(),
            Figure::Cpu(Row::Post4K) => "CPU per request, 4 KiB POST".into(),
            Figure::Cpu(Row::New) => "CPU per request, each on a new connection".into(),
            Figure::Cpu(_) => "CPU per request, empty GET, two threads".into(),
            Figure::Rate(1) => "requests a second at saturation, one thread".into(),
            Figure::Rate(_) => "requests a second at saturation, two threads".into(),
            Figure::Latency(share, 1) => format!("added p{share}, 1 connection"),
            Figure::Latency(share, 1000) => format!("added p{share}, 1,000 connections"),
            Figure::Latency(share, connections) => format!("added p{share}, {connections} connections"),
            Figure::Start => "start to first answer".into(),
            Figure::Size => "executable".into(),
            Figure::Idle => "memory, idle".into(),
            Figure::Busy => "memory, 1,000 busy connections".into(),
            Figure::PerConnection => "memory per idle connection, of 10,000".into(),
            Figure::Balance(Row::Slow(load)) => format!("p99, one of three 10 × slower, {load} % load"),
            Figure::Balance(Row::Without(load)) => format!("… without the slow one, {load} % load"),
            Figure::Balance(Row::Alike(load)) => format!("p99, three alike, {load} % load"),
            Figure::Balance(_) => "p99, one of three 10 × slower, four proxies".into(),
            Figure::Recovery => "a slow one is well again: until it has its share, 100 requests/s".into(),
            Figure::Failing => "one of three answers 500 at once: of all requests it gets".into(),
        }
    }

    /// A value of it for the reader.
    pub fn show(self, value: f64) -> String {
        let digits = |value: f64| match value.abs() {
            size if size >= 100.0 => format!("{value:.0}"),
            size if size >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        match self {
            Figure::Rate(_) => thousands(value),
            Figure::Cpu(_) => format!("{} µs", digits(value)),
            Figure::Latency(..) if value.abs() >= 1000.0 => format!("{} ms", digits(value / 1000.0)),
            Figure::Latency(..) => format!("{value:.0} µs"),
            Figure::Start => format!("{value:.0} ms"),
            Figure::Size | Figure::Idle | Figure::Busy => format!("{} MB", digits(value)),
            Figure::PerConnection => format!("{} KiB", digits(value)),
            Figure::Balance(_) => format!("{} ms", digits(value / 1000.0)),
            Figure::Recovery if value >= 60.0 => "never".into(),
            Figure::Recovery => format!("{value:.1} s"),
            Figure::Failing => format!("{} %", digits(value)),
        }
    }
}

/// A number with its thousands set apart.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds in which everyone is measured once.
    pub rounds: usize,
    /// Before each measurement, to fill connection pools and caches.
    pub warm: Duration,
    /// Of each measurement.
    pub time: Duration,
}
