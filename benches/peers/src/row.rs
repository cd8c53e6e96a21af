//! What is measured: the rows, by their names on the command line, and the figures that each gives.

use crate::figure::{Figure, Measure};
use crate::kind::Kind;
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
    Balance(Balance),
    /// One answers 500 at once.
    Failing,
    /// A slow one is well again.
    Recovery,
    HangUp(HangUp),
    Closing(Closing),
    /// Clients leave before their answer.
    Cancelled,
    Hostile(Hostile),
    /// Nothing listens for three seconds, and the app bears only so much at once.
    Outage,
    /// One of two replicas dies with a thousand requests in flight.
    Death,
}

/// Replicas with exponentially distributed service times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// One of three replicas is ten times slower, at so many per cent of what the other two can do.
    Slow(u8),
    /// The same rate without that one.
    Without(u8),
    /// Four proxies beside each other, one of three replicas slow.
    Four,
    /// One of three is slow, and they have two workers each.
    SlowFewWorkers,
    /// Three that are alike, with two workers each.
    AlikeFewWorkers,
}

/// A path whose handler hangs up, so often a second, among so many requests a second for another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HangUp {
    pub broken: u16,
    pub among: u16,
}

/// Replicas that close connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// A single one, one of whose paths breaks off in mid-response, four times a second.
    OneBreaks,
    /// Three, the same, ten times a second.
    ThreeBreak,
    /// Three that close after each answer without having said so.
    Unannounced,
    /// Three that close up to ten milliseconds after each answer.
    Late,
}

/// What a hostile client leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostile {
    /// A head of 60 KB that does not end.
    Head,
    /// A request with such a head, unanswered.
    Waiting,
    /// The same with a PUT's body of 64 KiB.
    Put,
    /// The same with that body in chunks.
    Chunks,
}

impl Row {
    /// In the order in which they are measured.
    pub const ALL: [Row; 39] = [
        Row::Get,
        Row::Get1K,
        Row::Get64K,
        Row::Post4K,
        Row::New,
        Row::TwoThreads,
        Row::Start,
        Row::Memory,
        Row::Latency(1),
        Row::Latency(64),
        Row::Latency(1000),
        Row::Balance(Balance::Without(10)),
        Row::Balance(Balance::Slow(10)),
        Row::Balance(Balance::Without(50)),
        Row::Balance(Balance::Slow(50)),
        Row::Balance(Balance::Without(80)),
        Row::Balance(Balance::Slow(80)),
        Row::Balance(Balance::SlowFewWorkers),
        Row::Balance(Balance::AlikeFewWorkers),
        Row::Balance(Balance::Four),
        Row::Failing,
        Row::Recovery,
        Row::HangUp(HangUp { broken: 5, among: 25 }),
        Row::HangUp(HangUp { broken: 3, among: 200 }),
        Row::HangUp(HangUp { broken: 10, among: 200 }),
        Row::HangUp(HangUp { broken: 30, among: 200 }),
        Row::HangUp(HangUp { broken: 100, among: 200 }),
        Row::HangUp(HangUp { broken: 300, among: 200 }),
        Row::Closing(Closing::OneBreaks),
        Row::Closing(Closing::ThreeBreak),
        Row::Closing(Closing::Unannounced),
        Row::Closing(Closing::Late),
        Row::Outage,
        Row::Death,
        Row::Cancelled,
        Row::Hostile(Hostile::Head),
        Row::Hostile(Hostile::Waiting),
        Row::Hostile(Hostile::Put),
        Row::Hostile(Hostile::Chunks),
    ];

    /// As the command line and the file of values call it.
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
            Row::Balance(Balance::Slow(load)) => format!("slow-{load}"),
            Row::Balance(Balance::Without(load)) => format!("without-{load}"),
            Row::Balance(Balance::Four) => "four".into(),
            Row::Balance(Balance::SlowFewWorkers) => "slow-few-workers".into(),
            Row::Balance(Balance::AlikeFewWorkers) => "alike-few-workers".into(),
            Row::Failing => "failing".into(),
            Row::Recovery => "recovery".into(),
            Row::HangUp(HangUp { broken, among }) => format!("hang-up-{broken}-of-{among}"),
            Row::Closing(Closing::OneBreaks) => "one-breaks".into(),
            Row::Closing(Closing::ThreeBreak) => "three-break".into(),
            Row::Closing(Closing::Unannounced) => "closes-unannounced".into(),
            Row::Closing(Closing::Late) => "closes-late".into(),
            Row::Cancelled => "cancelled".into(),
            Row::Hostile(Hostile::Head) => "hostile-head".into(),
            Row::Hostile(Hostile::Waiting) => "hostile-waiting".into(),
            Row::Hostile(Hostile::Put) => "hostile-put".into(),
            Row::Hostile(Hostile::Chunks) => "hostile-chunks".into(),
            Row::Outage => "outage".into(),
            Row::Death => "death".into(),
        }
    }

    /// The figures that it gives.
    pub fn figures(self) -> Vec<Figure> {
        use Measure::*;
        let measures: &[Measure] = match self {
            Row::Get | Row::TwoThreads => &[Cpu, Rate, Utilisation],
            Row::Get1K | Row::Get64K | Row::Post4K | Row::New => &[Cpu],
            Row::Latency(_) => &[P50, P99, P999],
            Row::Start => &[Startup, Size],
            Row::Memory => &[Idle, Busy, PerConnection],
            Row::Balance(Balance::AlikeFewWorkers) => &[Mean, P99, P999],
            Row::Balance(_) => &[P99, P999],
            Row::Failing => &[Share, Failed],
            Row::Recovery => &[Recovery],
            Row::HangUp(_) => &[P50Ratio, P99Ratio, P50, P99, Lost, Repeated],
            Row::Closing(_) => &[Rate, P90, Lost],
            Row::Cancelled => &[TimeWait],
            Row::Hostile(_) => &[Memory],
            Row::Outage | Row::Death => &[Lost, P99],
        };
        measures.iter().map(|measure| Figure { row: self, measure: *measure }).collect()
    }

    /// It is measured while all contenders run, each in its turn.
    pub fn is_side_by_side(self) -> bool {
        matches!(self, Row::Get | Row::Get1K | Row::Get64K | Row::Post4K | Row::New | Row::TwoThreads | Row::Latency(_))
    }

    /// It is about what a proxy costs; the others are about what it does with replicas and clients.
    pub fn is_cost(self) -> bool {
        self.is_side_by_side() || matches!(self, Row::Start | Row::Memory)
    }

    /// Its figures are times: they are taken under real-time scheduling where that is allowed.
    pub fn is_timed(self) -> bool {
        !self.is_cost() && !matches!(self, Row::Hostile(_) | Row::Cancelled) || matches!(self, Row::Latency(_))
    }

    /// This contender takes part in it.
    pub fn wants(self, kind: Kind) -> bool {
        let chooses = matches!(self, Row::Balance(_) | Row::Failing | Row::Recovery);
        match kind {
            Kind::Direct => self.is_side_by_side(),
            // A client that keeps its connections to replicas that close them loses requests by itself, and nothing is
            // between it and the replicas that could hold sockets or memory.
            Kind::RoundRobin => chooses || matches!(self, Row::HangUp(_) | Row::Outage | Row::Death),
            kind => chooses || !kind.is_variant(),
        }
    }

    /// Contenders that are measured at the same time, so that all of them together stay far below what one processor
    /// carries: [`TOGETHER`] requests a second.
    pub fn abreast(self) -> usize {
        let rate = match self {
            Row::Balance(balance) => balance.rate(),
            Row::Failing => FAILING_RATE,
            Row::Recovery => RECOVERY_RATE,
            Row::HangUp(HangUp { broken, among }) => f64::from(broken + among),
            // Four callers of replicas that take five milliseconds.
            Row::Closing(_) => 800.0,
            Row::Outage => 200.0,
            // Short bursts of a thousand, and of a hundred megabytes.
            Row::Death | Row::Cancelled => 1000.0,
            Row::Hostile(_) => TOGETHER / 2.0,
            _ => TOGETHER,
        };
        ((TOGETHER / rate) as usize).max(1)
    }

    /// Rounds of it at most: what counts sockets and bytes barely differs from round to round.
    pub fn most_rounds(self) -> usize {
        match self {
            Row::Hostile(_) | Row::Cancelled => 1,
            Row::Start | Row::Memory | Row::Recovery | Row::Outage | Row::Death | Row::HangUp(_) | Row::Closing(_) => 2,
            _ => usize::MAX,
        }
    }
}

/// Requests a second of all contenders that are measured at the same time. A proxy, its load and its replicas take some
/// 0.1 ms for one of them, spread over two processors.
const TOGETHER: f64 = 5000.0;

/// Requests a second beside a replica that fails.
pub const FAILING_RATE: f64 = 800.0;

/// Requests a second while a slow replica recovers: the fewest for which a time is promised.
pub const RECOVERY_RATE: f64 = 100.0;

/// Mean service time of a replica that is well, and of a slow one.
pub const WELL: Duration = Duration::from_millis(5);
/// See [`WELL`].
pub const SLOW: Duration = Duration::from_millis(50);

impl Balance {
    /// Requests that one replica serves at a time.
    pub fn workers(self) -> usize {
        match self {
            Balance::SlowFewWorkers | Balance::AlikeFewWorkers => 2,
            _ => 8,
        }
    }

    /// Replicas that are well, and slow ones.
    pub fn replicas(self) -> (usize, usize) {
        match self {
            Balance::Slow(_) | Balance::Four | Balance::SlowFewWorkers => (2, 1),
            Balance::Without(_) => (2, 0),
            Balance::AlikeFewWorkers => (3, 0),
        }
    }

    /// Proxies beside each other.
    pub fn proxies(self) -> usize {
        if self == Balance::Four { 4 } else { 1 }
    }

    /// Requests a second: a share of what the replicas that are well can do.
    pub fn rate(self) -> f64 {
        let share = match self {
            Balance::Slow(load) | Balance::Without(load) => f64::from(load) / 100.0,
            Balance::Four => 0.5,
            Balance::SlowFewWorkers | Balance::AlikeFewWorkers => 0.8,
        };
        share * (self.replicas().0 * self.workers()) as f64 / WELL.as_secs_f64()
    }
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
