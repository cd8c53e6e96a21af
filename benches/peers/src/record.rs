//! What became of requests, and what a reader wants to know of many of them.

/// What became of the requests that were recorded.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Latencies of those with a right answer, in microseconds.
    pub answered: Vec<f32>,
    /// Those that failed: no whole answer, or a wrong one.
    pub failed: u64,
    /// The first failure, for the report.
    pub reason: Option<String>,
}

impl Record {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.answered.len() as u64 + self.failed
    }

    /// Failed ones, per cent.
    pub fn lost(&self) -> f64 {
        100.0 * self.failed as f64 / self.all() as f64
    }

    /// The latency in microseconds that this share did not exceed (nearest rank); NaN when nothing was answered.
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(self.answered.iter().map(|latency| f64::from(*latency)).collect(), share)
    }

    /// The mean latency in microseconds.
    pub fn mean(&self) -> f64 {
        self.answered.iter().map(|latency| f64::from(*latency)).sum::<f64>() / self.answered.len() as f64
    }

    /// Adds another part.
    pub fn extend(&mut self, part: Record) {
        self.answered.extend(part.answered);
        self.failed += part.failed;
        self.reason = self.reason.take().or(part.reason);
    }
}

/// The value that this share of them does not exceed (nearest rank); NaN when there is none.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// The middle value, or the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    let low = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(low, high))
}
