//! What one client connection does, as other threads see it: it rests between two requests, or it works.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::AbortHandle;

/// It works.
const WORKING: u64 = 0;

/// It works, and was looked at meanwhile: it says when it rests.
const WATCHED: u64 = 1;

/// It rested, and is to close.
const EVICTED: u64 = u64::MAX;

/// It rests since this many milliseconds less than the value.
const RESTING: u64 = 2;

/// The state of a client connection. Its task writes it with one atomic exchange when a request begins and one when it
/// ends; whoever looks for a connection to close changes it only by comparison, so neither overwrites what the other
/// said, and a connection that began a request in the meantime is never closed.
#[derive(Debug)]
pub(super) struct ClientState {
    activity: AtomicU64,
    task: Mutex<Option<AbortHandle>>,
}

/// What a connection was when it came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Was {
    Unnoticed,
    /// It was looked at while it worked, and is no candidate until the limit hears that it rests.
    Watched,
    /// It is to close.
    Chosen,
}

/// What [`ClientState::evict`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It rested since then, and closes now.
    Evicted,
    /// It rests, but for a shorter time: since then, in milliseconds.
    RestsSince(u64),
    /// It works. [`ClientState::rest`] says so when it no longer does.
    Works,
}

impl ClientState {
    /// A connection that came at this time, in milliseconds: it waits for its first request.
    pub(super) fn new(millis: u64) -> Self {
        ClientState { activity: AtomicU64::new(millis + RESTING), task: Mutex::new(None) }
    }

    /// It begins to wait for its first request only now, as far as its age matters. It has no task yet.
    pub(super) fn renew(&self, millis: u64) {
        self.activity.store(millis + RESTING, Ordering::Relaxed);
    }

    /// The task that serves the connection. It ends at once if the connection was chosen before it had one.
    pub(super) fn attach(&self, task: AbortHandle) {
        let mut slot = self.task.lock();
        // Either this sees the mark or `close`, which comes after it, sees the task.
        if self.activity.load(Ordering::Relaxed) == EVICTED {
            task.abort();
        }
        *slot = Some(task);
    }

    /// It waits for a request from now on.
    pub(super) fn rest(&self, millis: u64) -> Was {
        match self.activity.swap(millis + RESTING, Ordering::Relaxed) {
            EVICTED => Was::Chosen,
            WATCHED => Was::Watched,
            _ => Was::Unnoticed,
        }
    }

    /// A request begins. False where the connection was chosen to be closed just before.
    pub(super) fn work(&self) -> bool {
        self.activity.swap(WORKING, Ordering::Relaxed) != EVICTED
    }

    /// Marks the connection as to be closed if it rests since `since`; else says what it does.
    pub(super) fn evict(&self, since: u64) -> Found {
        let mut seen = self.activity.load(Ordering::Relaxed);
        loop {
            let (next, found) = match seen {
                WORKING => (WATCHED, Found::Works),
                WATCHED | EVICTED => return Found::Works,
                resting if resting - RESTING == since => (EVICTED, Found::Evicted),
                resting => return Found::RestsSince(resting - RESTING),
            };
            match self.activity.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return found,
                Err(now) => seen = now,
            }
        }
    }

    /// Ends the task of a connection that was marked. Its worker does it at its next turn.
    pub(super) fn close(&self) {
        if let Some(task) = &*self.task.lock() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_rests_since_the_given_time_is_closed() {
        let state = ClientState::new(3);
        assert!(state.work());
        assert_eq!(state.evict(3), Found::Works);
        assert_eq!(state.rest(7), Was::Watched);
        assert_eq!(state.evict(3), Found::RestsSince(7));
        assert!(state.work());
        assert_eq!(state.rest(9), Was::Unnoticed);
        assert_eq!(state.evict(9), Found::Evicted);
        assert!(!state.work(), "a request that comes now comes too late");
    }

    #[test]
    fn a_connection_that_is_chosen_before_its_first_turn_never_works() {
        let state = ClientState::new(3);
        assert_eq!(state.evict(3), Found::Evicted);
        assert_eq!(state.rest(4), Was::Chosen);
    }
}
