//! One timer a connection, for whichever deadline counts at the moment.

use crate::clock;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// A process that was stopped (or whose host slept) finds all its deadlines passed at once. When a deadline is found
/// to have passed by more than this, the other side is given as long again before it is judged.
const STOPPED: Duration = Duration::from_secs(1);

/// A lazy timer: moving the deadline later costs nothing; only an earlier one touches the runtime's wheel. Nearly every
/// deadline of a busy connection is met and followed by a later one, so a request arms nothing.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    forgiven: Option<Instant>,
}

/// The deadline passed first.
#[derive(Debug)]
pub(super) struct Expired;

impl Timer {
    /// A timer that first wakes at `deadline`, if asked by then.
    pub(super) fn new(deadline: Instant) -> Self {
        Timer { sleep: Box::pin(tokio::time::sleep_until(deadline.into())), forgiven: None }
    }

    /// Ready once `deadline` has passed; else the task is woken by then (or earlier, for nothing).
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let mut at = match self.forgiven {
            Some(later) if later > deadline => later,
            _ => deadline,
        };
        if self.sleep.deadline().into_std() > at {
            self.sleep.as_mut().reset(at.into());
        }
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = clock::now();
            if now < at {
                self.sleep.as_mut().reset(at.into());
            } else if now > at + STOPPED && self.forgiven.is_none_or(|f| f < deadline) {
                at = now + STOPPED;
                self.forgiven = Some(at);
                self.sleep.as_mut().reset(at.into());
            } else {
                return Poll::Ready(());
            }
        }
    }

    /// Runs `future` until `deadline`; what is ready counts even when late.
    pub(super) async fn limit<F: Future>(&mut self, deadline: Instant, future: F) -> Result<F::Output, Expired> {
        self.limit_lazily(|| deadline, future).await
    }

    /// Runs `future` for at most `patience`. What is ready at once costs no look at the clock.
    pub(super) async fn limit_to<F: Future>(&mut self, patience: Duration, future: F) -> Result<F::Output, Expired> {
        let mut deadline = None;
        self.limit_lazily(|| *deadline.get_or_insert_with(|| clock::now() + patience), future).await
    }

    async fn limit_lazily<F: Future>(
        &mut self,
        mut deadline: impl FnMut() -> Instant,
        future: F,
    ) -> Result<F::Output, Expired> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_expired(cx, deadline()).map(|()| Err(Expired)),
        })
        .await
    }
}
