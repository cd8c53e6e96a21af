//! The queue of requests that wait for a replica.
//!
//! # Order
//!
//! Callers (client addresses) take turns, and each caller's requests go first come first served. It is start-time fair
//! queueing (Goyal, Vin and Cheng 1996) with requests of equal cost: a request belongs to the round after its caller's last
//! one, but to none that is over, and rounds are served in order. So where callers have one request each it is first come
//! first served, and one that brings a thousand delays another's by one. When the queue is full, a request of an earlier
//! round displaces the very last one, which belongs to whoever has the most.
//!
//! Insertion, removal and hand-off are logarithmic in the length, which `max_waiting` bounds, and no request that waits
//! ever polls: a free place is handed to it.
//!
//! # Why no request sleeps beside room
//!
//! Whoever makes room does so first and looks at `length` then ([`WaitQueue::serve`]). Whoever joins adds to `length` first
//! and looks for room then (it calls `serve`, too). All four are sequentially consistent (a published snapshot, which is not,
//! is followed by a fence, and so is the addition), so at least one of the two sees the other. Both look for room under the
//! lock, and whoever waits for the lock looks after it has it: what the holder did not see yet, the next one does.
//!
//! A grant to a request that just left is dropped by it, or by `serve` where it can no longer be sent; dropping a grant makes
//! room, and so it passes on.

use crate::pool::EndpointId;
use crate::sync::{AtomicUsize, Mutex, Ordering, fence};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::oneshot;

/// Grants that are handed out in one go before the lock is given back.
const BATCH: usize = 8;

/// Requests that wait, each for a grant `G`.
#[derive(Debug)]
pub(super) struct WaitQueue<G> {
    /// Of the waiting; changed under the lock, read without it.
    length: AtomicUsize,
    /// The greatest length since somebody last asked for it.
    peak: AtomicUsize,
    state: Mutex<State<G>>,
}

/// Why a request does not wait, or waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait as may, and none of them has less of a claim.
    Full,
    /// The upstream is no longer configured.
    Closed,
}

/// How the queue stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests that wait.
    pub waiting: usize,
    /// Client addresses that they came from.
    pub callers: usize,
    /// Since when the one waits whose turn is next.
    pub next_since: Option<Instant>,
}

#[derive(Debug)]
struct State<G> {
    closed: bool,
    waiting: BTreeMap<Turn, Waiting<G>>,
    /// Of those that wait.
    callers: HashMap<IpAddr, Caller>,
    /// The round of the request that was served last.
    round: u64,
    arrivals: u64,
}

/// When a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    round: u64,
    arrival: u64,
}

#[derive(Debug)]
struct Waiting<G> {
    caller: IpAddr,
    since: Instant,
    tried: Box<[EndpointId]>,
    sender: oneshot::Sender<Result<G, Refusal>>,
}

#[derive(Debug)]
struct Caller {
    waiting: usize,
    /// The round of its last request.
    last: u64,
}

impl<G> Default for WaitQueue<G> {
    fn default() -> Self {
        let state = State { closed: false, waiting: BTreeMap::new(), callers: HashMap::new(), round: 0, arrivals: 0 };
        WaitQueue { length: AtomicUsize::new(0), peak: AtomicUsize::new(0), state: Mutex::new(state) }
    }
}

impl<G> WaitQueue<G> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// How many wait, from where, and for how long.
    pub(super) fn standing(&self) -> Standing {
        let state = self.state.lock();
        let next_since = state.waiting.first_key_value().map(|(_, first)| first.since);
        Standing { waiting: state.waiting.len(), callers: state.callers.len(), next_since }
    }

    /// The most that waited at once since this was last asked.
    pub(super) fn take_peak(&self) -> usize {
        // Under the lock, or one that joins meanwhile would be missing from both.
        let state = self.state.lock();
        self.peak.swap(state.waiting.len(), Ordering::SeqCst)
    }

    /// Whether nobody waits, so that a newcomer overtakes nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins the queue at `now`, if fewer than `most` wait or one of them has less of a claim. The caller has to
    /// [`WaitQueue::serve`] then: there may be room already.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        caller: IpAddr,
        tried: &[EndpointId],
        most: usize,
        now: Instant,
    ) -> Result<Ticket<G>, Refusal> {
        let mut displaced = None;
        let ticket = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Refusal::Closed);
            }
            let round = state.callers.get(&caller).map_or(0, |c| c.last + 1).max(state.round);
            if state.waiting.len() >= most {
                let last = state.waiting.last_key_value().map(|(last, _)| *last);
                let last = last.filter(|last| round < last.round).ok_or(Refusal::Full)?;
                displaced = state.remove(last);
            }
            let turn = Turn { round, arrival: state.arrivals };
            state.arrivals += 1;
            let entry = state.callers.entry(caller).or_insert(Caller { waiting: 0, last: round });
            entry.waiting += 1;
            entry.last = round;
            let (sender, receiver) = oneshot::channel();
            state.waiting.insert(turn, Waiting { caller, since: now, tried: tried.into(), sender });
            self.peak.fetch_max(state.waiting.len(), Ordering::SeqCst);
            self.publish(&state);
            Ticket { queue: self.clone(), turn, receiver }
        };
        if let Some(displaced) = displaced {
            let _ = displaced.sender.send(Err(Refusal::Full));
        }
        Ok(ticket)
    }

    /// Hands out whatever `take` finds to those whose turn it is; called with the endpoints that a request was sent to in
    /// vain. Call it after anything that may have made room; with nobody waiting it is one load.
    pub(super) fn serve(&self, mut take: impl FnMut(&[EndpointId]) -> Option<G>) {
        while !self.is_empty() && self.serve_batch(BATCH, &mut take) == BATCH {}
    }

    /// The same for the one whose turn is next.
    pub(super) fn serve_one(&self, mut take: impl FnMut(&[EndpointId]) -> Option<G>) {
        self.serve_batch(1, &mut take);
    }

    /// Sends everyone away who waits, and whoever comes.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            state.callers.clear();
            let waiting = std::mem::take(&mut state.waiting);
            self.publish(&state);
            waiting
        };
        for waiting in waiting.into_values() {
            let _ = waiting.sender.send(Err(Refusal::Closed));
        }
    }

    /// Hands out up to `most` grants, and says how many.
    fn serve_batch(&self, most: usize, take: &mut impl FnMut(&[EndpointId]) -> Option<G>) -> usize {
        let mut granted: SmallVec<[(Waiting<G>, G); BATCH]> = SmallVec::new();
        {
            let mut state = self.state.lock();
            while granted.len() < most
                && let Some((turn, first)) = state.waiting.first_key_value()
                && let Some(grant) = take(&first.tried)
            {
                let turn = *turn;
                state.round = turn.round;
                granted.extend(state.remove(turn).map(|first| (first, grant)));
            }
            self.publish(&state);
        }
        let count = granted.len();
        // Without the lock: a request that left meanwhile drops its grant, which makes room and comes back here.
        for (first, grant) in granted {
            let _ = first.sender.send(Ok(grant));
        }
        count
    }

    /// Makes the length known. The fence puts it before whatever is looked at next, as the module's doc wants it.
    fn publish(&self, state: &State<G>) {
        self.length.store(state.waiting.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}

impl<G> State<G> {
    fn remove(&mut self, turn: Turn) -> Option<Waiting<G>> {
        let waiting = self.waiting.remove(&turn)?;
        if let Some(caller) = self.callers.get_mut(&waiting.caller) {
            caller.waiting -= 1;
            if caller.waiting == 0 {
                self.callers.remove(&waiting.caller);
            } else if caller.last == turn.round {
                caller.last -= 1;
            }
        }
        Some(waiting)
    }
}

/// A request's place in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Ticket<G> {
    queue: Arc<WaitQueue<G>>,
    turn: Turn,
    receiver: oneshot::Receiver<Result<G, Refusal>>,
}

impl<G> Ticket<G> {
    /// Ready with the grant once it is this request's turn, or with why there will be none.
    pub fn poll_granted(&mut self, cx: &mut Context<'_>) -> Poll<Result<G, Refusal>> {
        let receiver = std::pin::Pin::new(&mut self.receiver);
        receiver.poll(cx).map(|result| result.unwrap_or(Err(Refusal::Closed)))
    }
}

impl<G> Drop for Ticket<G> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.queue.state.lock();
            let left = state.remove(self.turn);
            self.queue.publish(&state);
            left
        };
        drop(left);
    }
}
