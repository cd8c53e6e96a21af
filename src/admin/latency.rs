//! How long things took, fine enough for percentiles: counts in buckets that grow with the time, as in Gil Tene's
//! HdrHistogram. Counts of several threads, or of several spans of time, add up without loss.
//!
//! That library's histogram has no atomics, and a lock around it would cost each request more than this.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets from each power of two to the next, as a power of two: the middle of a bucket is within 6.25 % of all in it.
const FINENESS: u32 = 3;

/// Times of 2^27 µs (134 s) and longer are one.
const LONGEST: u32 = 27;

/// Buckets.
const BUCKETS: usize = ((LONGEST - FINENESS + 1) << FINENESS) as usize + 1;

/// Counts that only ever grow, and wrap around.
#[derive(Debug)]
pub struct Latency {
    buckets: Box<[AtomicU32; BUCKETS]>,
}

/// The counts of a [`Latency`] at one moment, or the difference between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    buckets: Box<[u32; BUCKETS]>,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { buckets: Box::new([const { AtomicU32::new(0) }; BUCKETS]) }
    }
}

impl Latency {
    /// One more observation.
    pub fn observe(&self, time: Duration) {
        self.buckets[bucket(time)].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what was observed so far.
    pub fn add_to(&self, counts: &mut Counts) {
        for (count, bucket) in counts.buckets.iter_mut().zip(self.buckets.iter()) {
            *count = count.wrapping_add(bucket.load(Ordering::Relaxed));
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Counts { buckets: Box::new([0; BUCKETS]) }
    }
}

impl Counts {
    /// What came since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let mut difference = self.clone();
        for (count, earlier) in difference.buckets.iter_mut().zip(earlier.buckets.iter()) {
            *count = count.wrapping_sub(*earlier);
        }
        difference
    }

    /// Observations.
    pub fn total(&self) -> u64 {
        self.buckets.iter().map(|count| u64::from(*count)).sum()
    }

    /// The time that `share` (0 to 1) of the observations do not exceed, to within 6.25 %; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        // Its rank, from 1.
        let rank = ((self.total() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(index, count)| {
            seen += u64::from(*count);
            (seen >= rank).then(|| middle(index))
        })
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    match micros.checked_ilog2() {
        // Each microsecond has a bucket of its own.
        None | Some(..FINENESS) => micros as usize,
        Some(LONGEST..) => BUCKETS - 1,
        Some(power) => {
            let step = (micros >> (power - FINENESS)) - (1 << FINENESS);
            (((power - FINENESS + 1) << FINENESS) as u64 + step) as usize
        }
    }
}

fn middle(index: usize) -> Duration {
    let index = index as u64;
    let octave = index >> FINENESS;
    let micros = match octave.checked_sub(1) {
        None => index,
        Some(shift) => {
            let lowest = ((1 << FINENESS) + (index & ((1 << FINENESS) - 1))) << shift;
            lowest + (1 << shift) / 2
        }
    };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_within_a_sixteenth_of_what_its_bucket_says() {
        let mut times: Vec<u64> = (0..2000).collect();
        times.extend((4..27).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + (1 << power) / 3]));
        for micros in times {
            let said = middle(bucket(Duration::from_micros(micros))).as_micros() as f64;
            let off = (said - micros as f64).abs();
            assert!(off <= micros as f64 / 16.0, "{micros} µs is said to be {said}");
        }
        assert_eq!(bucket(Duration::from_micros((1 << 27) - 1)), BUCKETS - 2);
        assert_eq!(bucket(Duration::from_secs(1000)), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_of_what_came_between_two_moments() {
        let latency = Latency::default();
        let counts = || {
            let mut counts = Counts::default();
            latency.add_to(&mut counts);
            counts
        };
        assert_eq!(counts().quantile(0.5), None);
        (0..1000).for_each(|_| latency.observe(Duration::from_secs(1)));
        let before = counts();
        (1..=100).for_each(|ms| latency.observe(Duration::from_millis(ms)));
        let since = counts().since(&before);
        assert_eq!(since.total(), 100);
        for (share, ms) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let said = since.quantile(share).unwrap().as_secs_f64() * 1000.0;
            assert!((said - ms).abs() <= ms / 16.0, "{share}: {said} ms, not {ms}");
        }
    }
}
