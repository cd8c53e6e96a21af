//! What is counted, and how: plain atomics that only ever grow.
//!
//! What every request touches lies apart by worker, so that no two threads write one cache line. What is rare (failures,
//! retries, DNS answers, changes of state) is a [`Tally`]. How they are shown is `prometheus.rs`'s business.

use super::latency::{Counts, Latency};
use crate::pool::{EventKind, Resolution};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the histogram's buckets in microseconds, each 2 to 2.5 times the one before: from what a local replica
/// needs at best to `response_timeout`. An observation costs a search through at most 17 of them, in one cache line or two.
pub const BOUNDS: [u64; 17] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// Why requests failed, as `reason` says it: the error types of RFC 9209 section 2.3 that blame the upstream.
pub const FAILURES: [&str; 9] = [
    "connection_limit_reached",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "destination_unavailable",
    "http_protocol_error",
    "http_response_header_section_size",
    "http_response_incomplete",
    "http_response_timeout",
];

/// The failures after which another attempt may follow.
pub const RETRIES: [&str; 5] = [
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "destination_unavailable",
    "http_response_timeout",
];

/// Why the proxy refused requests itself, likewise.
pub const REFUSALS: [&str; 5] = [
    "connection_limit_reached",
    "destination_not_found",
    "http_request_denied",
    "http_request_error",
    "proxy_loop_detected",
];

/// How attempts to connect to a replica end.
pub const CONNECTS: [&str; 5] = ["connected", "exhausted", "refused", "timed_out", "withdrawn"];

/// How questions to DNS end.
pub const DNS_ANSWERS: [&str; 3] = ["absent", "addresses", "failed"];

/// How reloads end.
pub const RELOADS: [&str; 2] = ["failed", "ok"];

/// How many times each of a few things happened. Its lock is held for a look-up in a small map: for what is rare.
///
/// Everything that it may count is there from the start, at 0: Prometheus sees no increase in a series that appears with
/// its first event, so an alert on a rate would miss that event.
#[derive(Debug)]
pub struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Nothing happened yet of what is in `known`.
    pub fn of(known: &[&'static str]) -> Self {
        Tally { counts: Mutex::new(known.iter().map(|what| (*what, 0)).collect()) }
    }

    /// One more of `what`, which has to be known.
    pub fn add(&self, what: &'static str) {
        let mut counts = self.counts.lock();
        debug_assert!(counts.contains_key(what), "{what} is missing from {:?}", counts.keys());
        *counts.entry(what).or_default() += 1;
    }

    /// How often anything happened.
    pub fn total(&self) -> u64 {
        self.counts.lock().values().sum()
    }

    /// Each thing that is known, and how often it happened.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.lock().iter().map(|(what, count)| (*what, *count)).collect()
    }
}

/// How long things took: counts in the buckets of [`BOUNDS`], and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than bounds: the last one is for what is above them all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// One more observation.
    pub fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A histogram as of one moment, summed over workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Observations in each bucket alone, the last one above all bounds.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Their sum in microseconds.
    pub micros: u64,
}

impl Distribution {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.micros += histogram.micros.load(Ordering::Relaxed);
    }
}

/// The kinds of ends that requests have, as `code_class` says them.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What one worker counts; two cache lines are what processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    classes: [AtomicU64; CLASSES.len()],
    duration: Histogram,
    /// The same, for percentiles.
    latency: Latency,
}

/// What is counted for one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    shards: Box<[Shard]>,
    /// Requests that no replica answered whole, by reason.
    pub failures: Tally,
    /// Attempts after the first, by what failed before.
    pub retries: Tally,
    /// Connections to replicas that were tried, by how that ended.
    pub connects: Tally,
    /// Responses of replicas that said 5xx, those of replicas that have left included.
    pub server_errors: AtomicU64,
    /// Changes of state, by kind.
    pub events: Tally,
    /// Answers of DNS.
    pub dns: Answers,
}

impl UpstreamMetrics {
    /// Nothing counted yet. `workers` threads will send requests.
    pub fn new(workers: usize) -> Self {
        UpstreamMetrics {
            shards: (0..workers.max(1)).map(|_| Shard::default()).collect(),
            failures: Tally::of(&FAILURES),
            retries: Tally::of(&RETRIES),
            connects: Tally::of(&CONNECTS),
            server_errors: AtomicU64::new(0),
            events: Tally::of(&EventKind::NAMES),
            dns: Answers::default(),
        }
    }

    /// A request has ended, on this worker: with the status that went to the client, 0 if none did, and the time from
    /// its whole head to the end of its response.
    pub fn request(&self, worker: usize, status: u16, took: Duration) {
        let shard = &self.shards[worker.min(self.shards.len() - 1)];
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        shard.classes[class].fetch_add(1, Ordering::Relaxed);
        shard.duration.observe(took);
        shard.latency.observe(took);
    }

    /// Requests that have ended, as [`CLASSES`].
    pub fn classes(&self) -> [u64; CLASSES.len()] {
        let mut sums = [0; CLASSES.len()];
        for shard in &self.shards {
            for (sum, class) in sums.iter_mut().zip(&shard.classes) {
                *sum += class.load(Ordering::Relaxed);
            }
        }
        sums
    }

    /// How long requests took.
    pub fn duration(&self) -> Distribution {
        let mut sum = Distribution::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.duration));
        sum
    }

    /// How long requests took, for percentiles.
    pub fn latency(&self) -> Counts {
        let mut counts = Counts::default();
        self.shards.iter().for_each(|shard| shard.latency.add_to(&mut counts));
        counts
    }

    /// A change of state, for the count.
    pub fn event(&self, kind: &EventKind) {
        self.events.add(kind.name());
    }
}

/// What DNS said: how often what, and the last time.
#[derive(Debug)]
pub struct Answers {
    /// By [`DNS_ANSWERS`].
    pub kinds: Tally,
    last: Mutex<Option<Answer>>,
    /// When it last said which addresses there are, or that there are none.
    usable: Mutex<Option<Instant>>,
}

/// One answer of DNS.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it said.
    pub resolution: Resolution,
    /// When it came.
    pub at: Instant,
    /// How long it took to come.
    pub took: Duration,
}

impl Default for Answers {
    fn default() -> Self {
        Answers { kinds: Tally::of(&DNS_ANSWERS), last: Mutex::default(), usable: Mutex::default() }
    }
}

impl Answers {
    /// An answer has come.
    pub fn add(&self, resolution: Resolution, asked: Instant, now: Instant) {
        self.kinds.add(match resolution {
            Resolution::Addresses(_) => "addresses",
            Resolution::Absent => "absent",
            Resolution::Failed(_) => "failed",
        });
        if !matches!(resolution, Resolution::Failed(_)) {
            *self.usable.lock() = Some(now);
        }
        *self.last.lock() = Some(Answer { resolution, at: now, took: now.saturating_duration_since(asked) });
    }

    /// When the last usable one came.
    pub fn last_usable(&self) -> Option<Instant> {
        *self.usable.lock()
    }

    /// The last one.
    pub fn last(&self) -> Option<Answer> {
        self.last.lock().clone()
    }
}

/// What is counted before a request has an upstream.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Client connections that were accepted.
    pub accepted: AtomicU64,
    /// Requests that the proxy refused itself (no route, malformed, too large, …), by reason.
    pub refused: Tally,
    /// Reloads of the configuration, by [`RELOADS`].
    pub reloads: Tally,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        ServerMetrics { accepted: AtomicU64::new(0), refused: Tally::of(&REFUSALS), reloads: Tally::of(&RELOADS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_its_class_whichever_worker_served_it() {
        let metrics = UpstreamMetrics::new(2);
        for (worker, status) in [(0, 200), (1, 204), (7, 404), (0, 502), (1, 0), (0, 101), (0, 999)] {
            metrics.request(worker, status, Duration::ZERO);
        }
        assert_eq!(metrics.classes(), [1, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn an_observation_on_a_bound_is_within_it() {
        let metrics = UpstreamMetrics::new(1);
        for micros in [0, 500, 501, 60_000_000, 120_000_000, 120_000_001] {
            metrics.request(0, 200, Duration::from_micros(micros));
        }
        let sum = metrics.duration();
        assert_eq!(sum.buckets[0], 2);
        assert_eq!(sum.buckets[1], 1);
        assert_eq!(sum.buckets[15..], [1, 1, 1]);
        assert_eq!(sum.micros, 300_001_002);
    }

    #[test]
    fn counts_from_many_threads_are_all_there() {
        let metrics = UpstreamMetrics::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let metrics = &metrics;
                scope.spawn(move || {
                    for n in 0..1000 {
                        metrics.request(worker, 200, Duration::from_micros(n));
                        metrics.retries.add(RETRIES[n as usize % 2]);
                    }
                });
            }
        });
        assert_eq!(metrics.classes()[2], 4000);
        assert_eq!(metrics.duration().buckets.iter().sum::<u64>(), 4000);
        let counts = RETRIES.into_iter().zip([2000, 2000, 0, 0, 0]);
        assert_eq!(metrics.retries.counts(), counts.collect::<Vec<_>>());
    }
}
