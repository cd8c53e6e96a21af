//! The line of requests that wait for a replica, first come first served.

use super::{Lease, Upstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    length: AtomicUsize,
    /// Held by whoever is first; tokio's mutex is fair.
    turn: tokio::sync::Mutex<()>,
    /// Told when there may be room.
    room: Notify,
}

impl Line {
    /// There may be room.
    pub(super) fn tell(&self) {
        if self.length.load(Ordering::SeqCst) > 0 {
            self.room.notify_one();
        }
    }
}

impl Upstream {
    /// Requests that wait for a replica.
    pub fn waiting(&self) -> usize {
        self.line.length.load(Ordering::Relaxed)
    }

    /// Whether requests wait already, so that a newcomer must not overtake them.
    pub fn has_line(&self) -> bool {
        self.line.length.load(Ordering::SeqCst) > 0
    }

    /// A place in the line, if it is not longer than `max_waiting` already.
    pub fn join_line(self: &Arc<Self>, max_waiting: usize) -> Option<Place> {
        let before = self.line.length.fetch_add(1, Ordering::SeqCst);
        let place = Place { upstream: self.clone() };
        (before < max_waiting).then_some(place)
    }
}

/// A place in the line. Dropping it leaves the line.
#[derive(Debug)]
pub struct Place {
    upstream: Arc<Upstream>,
}

impl Place {
    /// The first endpoint that becomes free once it is this request's turn.
    pub async fn lease(&self) -> Lease {
        let line = &self.upstream.line;
        let _turn = line.turn.lock().await;
        loop {
            let room = line.room.notified();
            if let Some(lease) = self.upstream.acquire(&[]) {
                return lease;
            }
            room.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.upstream.line.length.fetch_sub(1, Ordering::SeqCst);
    }
}
