//! A request that cannot be sent yet: because nobody is there to take it, or because whoever took it died twice over.

use super::answer::Problem;
use super::exchange::{Attempts, End, Exchange};
use super::inbound::Watch;
use super::inflow::Inflow;
use super::timer::Timer;
use crate::clock;
use crate::upstream::Lease;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// However late a request meets an outage, it waits at least this long: the time in which a replica that was only
/// suspected is asked about and probed.
const MIN_WAIT: Duration = Duration::from_millis(250);

impl Exchange<'_> {
    /// An endpoint for this request, if there is one at once.
    pub(super) fn take(&self, attempts: &Attempts) -> Option<Lease> {
        if self.upstream.has_line() { None } else { self.upstream.acquire(&attempts.tried) }
    }

    /// An endpoint for this request, in its turn.
    pub(super) async fn wait(&self, inflow: &Inflow, timer: &mut Timer, attempts: &mut Attempts) -> Result<Lease, End> {
        let Some(place) = self.upstream.join_line(self.config.max_waiting) else {
            return Err(End::Problem(Problem::Overloaded));
        };
        let joined = clock::now();
        let outage = self.upstream.outage_since().unwrap_or(joined);
        let deadline = (outage + self.config.wait).max(joined + MIN_WAIT);
        let mut watch = Watch::new(inflow);
        let mut lease = pin!(place.lease());
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(lease) = lease.as_mut().poll(cx) {
                return Poll::Ready(Ok(lease));
            }
            // Nothing is sent yet: who closes its side now is taken to have left.
            if watch.poll_gone(cx).is_ready() || watch.ended {
                return Poll::Ready(Err(End::Gone));
            }
            timer.poll_expired(cx, deadline).map(|()| Err(End::Problem(Problem::Unavailable)))
        })
        .await;
        attempts.waited += clock::now().saturating_duration_since(joined);
        result
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
        let mut watch = Watch::new(inflow);
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
