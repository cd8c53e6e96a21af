//! The budget of retries as requests use it: they count in an atomic, and take the lock only when something failed.

use super::Upstream;
use crate::pool::retry::Budget;
use parking_lot::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Upstream {
    /// Counts a request towards the retries that are allowed.
    pub fn count_request(&self) {
        self.uncounted.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry from the budget; false if it is spent.
    pub fn withdraw_retry(&self, now: Instant) -> bool {
        self.budget(now).withdraw()
    }

    /// Whether a retry could be taken from the budget.
    pub fn has_retry(&self, now: Instant) -> bool {
        self.budget(now).has_one()
    }

    /// The budget as it is by now.
    fn budget(&self, now: Instant) -> MutexGuard<'_, Budget> {
        let mut budget = self.budget.lock();
        budget.refill(self.uncounted.swap(0, Ordering::Relaxed), now);
        budget
    }
}
