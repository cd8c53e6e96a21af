//! A request that cannot be sent yet: because nobody is there to take it, or because whoever took it died twice over.

use super::answer::Problem;
use super::exchange::{Attempts, End, Exchange};
use super::inflow::Inflow;
use super::timer::Timer;
use crate::clock;
use crate::upstream::{Lease, Refusal};
use std::task::Poll;
use std::time::{Duration, Instant};

/// However late a request meets an outage, it waits at least this long: the time in which a replica that was only
/// suspected is asked about and probed.
const MIN_WAIT: Duration = Duration::from_millis(250);

impl Exchange<'_> {
    /// An endpoint for this request, if there is one at once.
    pub(super) fn take(&self, attempts: &mut Attempts, now: Instant) -> Option<Lease> {
        let lease = self.upstream.admit(&attempts.tried, attempts.trail.seen())?;
        attempts.trail.picked(now, lease.endpoint().address());
        Some(lease)
    }

    /// An endpoint for this request, in its turn.
    pub(super) async fn wait(&self, inflow: &Inflow, timer: &mut Timer, attempts: &mut Attempts) -> Result<Lease, End> {
        let refused = |refusal| match refusal {
            Refusal::Full => End::Problem(Problem::Overloaded),
            Refusal::Closed => End::Rerouted,
        };
        let queued = self.upstream.enqueue(self.peer, &attempts.tried, self.config.max_waiting);
        let mut ticket = queued.map_err(refused)?;
        let joined = clock::now();
        let mut watch = inflow.watch();
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(granted) = ticket.poll_granted(cx) {
                return Poll::Ready(granted.map_err(refused));
            }
            // Nothing is sent yet: who closes its side now is taken to have left.
            if watch.poll_gone(cx).is_ready() || watch.ended {
                return Poll::Ready(Err(End::Gone));
            }
            loop {
                // It moves: the outage may end, or begin, while the request waits.
                let deadline = self.deadline(joined, attempts.waited);
                if timer.poll_expired(cx, deadline).is_pending() {
                    return Poll::Pending;
                }
                if self.deadline.is_some_and(|own| own <= deadline && own <= clock::now()) {
                    return Poll::Ready(Err(End::Problem(Problem::Deadline)));
                }
                if self.deadline(joined, attempts.waited) <= deadline {
                    let lease = self.upstream.acquire_at_last(&attempts.tried);
                    return Poll::Ready(lease.ok_or(End::Problem(Problem::Unavailable)));
                }
            }
        })
        .await;
        attempts.waited += clock::now().saturating_duration_since(joined);
        result
    }

    /// Until when a request waits that joined the queue then and had waited for so long before. While nobody is usable it is
    /// `wait` from the outage's beginning, and once somebody is back `wait` from the request's own: its turn comes. A pause is
    /// no outage: it was ordered, and ends soon.
    fn deadline(&self, joined: Instant, waited: Duration) -> Instant {
        let own = joined + self.config.wait.saturating_sub(waited);
        let outage =
            self.upstream.outage_since().filter(|_| !self.upstream.is_paused()).map(|since| since + self.config.wait);
        let until = outage.map_or(own, |outage| own.min(outage)).max(joined + MIN_WAIT);
        // A call that its client gave up waits no longer.
        self.deadline.map_or(until, |deadline| until.min(deadline))
    }

    /// Lets `pause` pass before the next attempt, unless the client leaves.
    pub(super) async fn pause(
        &self,
        inflow: &Inflow,
        timer: &mut Timer,
        attempts: &mut Attempts,
        pause: Duration,
    ) -> Result<(), End> {
        let began = clock::now();
        let mut watch = inflow.watch();
        let result = std::future::poll_fn(|cx| {
            if watch.poll_gone(cx).is_ready() || watch.ended {
                return Poll::Ready(Err(End::Gone));
            }
            timer.poll_expired(cx, began + pause).map(Ok)
        })
        .await;
        attempts.waited += clock::now().saturating_duration_since(began);
        result
    }
}
