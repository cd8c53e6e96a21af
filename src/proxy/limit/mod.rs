//! How many client connections there may be at once, over all workers.
//!
//! A connection is served once it has a [`Permit`]. Where all are taken, a resting connection is closed for each newcomer
//! ([`clients`] chooses it), whichever worker serves it, and the newcomer gets its permit when it is gone. Where none
//! rests, newcomers wait, first come first served, for the first that ends, or that rests for [`MIN_REST`].
//!
//! There is one lock, held for well under a microsecond when a connection comes and when it goes. A request takes it only
//! if a newcomer looked for room while it ran.

mod client_state;
mod clients;

use client_state::{ClientState, Was};
use clients::Clients;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A connection is closed only after it rested this long, in milliseconds. A client that asks one thing after another
/// pauses for less on a container network, and who was just accepted gets the time to be read. It must be short: where a
/// flood takes all connections but a few, each one makes room for another only this often.
const MIN_REST: u64 = 5;

/// The limit, and the connections under it.
#[derive(Debug)]
pub struct ConnectionLimit {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Permits that are taken.
    open: usize,
    /// Connections that were told to close and have not done so yet.
    closing: usize,
    newcomers: VecDeque<Newcomer>,
    clients: Clients,
    /// The latest time that was told, in milliseconds.
    now: u64,
    /// Counts the connections that came.
    arrivals: u64,
}

/// A connection that waits for its permit.
#[derive(Debug)]
struct Newcomer {
    number: u64,
    state: Arc<ClientState>,
    permit: oneshot::Sender<Permit>,
}

/// What came of [`ConnectionLimit::admit`].
#[derive(Debug)]
pub enum Admission {
    /// There was room.
    Permitted(Permit),
    /// The permit comes when there is.
    Waiting(oneshot::Receiver<Permit>),
}

impl ConnectionLimit {
    /// At most `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(ConnectionLimit { max, state: Mutex::default() })
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.state.lock().open
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Asks for a permit for a connection of `client`, which came at `now`, in milliseconds of [`super::Proxy::millis`].
    pub fn admit(self: &Arc<Self>, client: IpAddr, now: u64) -> Admission {
        let client_state = Arc::new(ClientState::new(now));
        let mut state = self.state.lock();
        let number = state.arrivals;
        state.arrivals += 1;
        if state.open < self.max {
            state.open += 1;
            state.clients.arrive(number, client, client_state.clone(), Some(now));
            return Admission::Permitted(Permit { limit: self.clone(), number, state: client_state });
        }
        // Counted before a choice is made: if its own address has the most connections, that one makes the room.
        state.clients.arrive(number, client, client_state.clone(), None);
        let (permit, wait) = oneshot::channel();
        state.newcomers.push_back(Newcomer { number, state: client_state, permit });
        state.make_room(now);
        Admission::Waiting(wait)
    }

    /// Looks again for connections that can make room for the newcomers. To be called every few milliseconds while one
    /// waits: nothing else tells that a connection has rested long enough.
    pub fn make_room(&self, now: u64) {
        self.state.lock().make_room(now);
    }

    /// Closes one resting connection though no newcomer waits: something else is scarce. False if none can be closed.
    pub fn shed(&self, now: u64) -> bool {
        let mut state = self.state.lock();
        state.now = state.now.max(now);
        state.close_one()
    }

    /// A connection that was looked at while it worked rests now.
    fn rests(&self, number: u64, since: u64) {
        self.state.lock().clients.list(number, since);
    }

    /// A connection has ended: its permit goes to the newcomer that waited longest.
    fn release(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        state.closing -= usize::from(state.clients.leave(number));
        let Some(newcomer) = state.newcomers.pop_front() else {
            state.open -= 1;
            return;
        };
        newcomer.state.renew(state.now);
        let now = state.now;
        state.clients.list(newcomer.number, now);
        let permit = Permit { limit: self.clone(), number: newcomer.number, state: newcomer.state };
        let undelivered = newcomer.permit.send(permit);
        drop(state);
        // A newcomer that left meanwhile has its permit released in turn, for which the lock must be free.
        drop(undelivered);
    }
}

impl State {
    /// Closes a resting connection for each newcomer for which none closes yet.
    fn make_room(&mut self, now: u64) {
        self.now = self.now.max(now);
        while self.newcomers.len() > self.closing && self.close_one() {}
    }

    fn close_one(&mut self) -> bool {
        let Some(latest) = self.now.checked_sub(MIN_REST) else { return false };
        let chosen = self.clients.choose(latest);
        self.closing += usize::from(chosen.is_some());
        // Its task ends at its worker's next turn, never here, where the lock is held.
        chosen.inspect(|state| state.close()).is_some()
    }
}

/// The right of one connection to be served. Dropping it ends the connection's time under the limit: its socket is to be
/// closed by then.
#[derive(Debug)]
pub struct Permit {
    limit: Arc<ConnectionLimit>,
    number: u64,
    state: Arc<ClientState>,
}

impl Permit {
    /// Spawns the task that serves the connection, which owns the permit. It is ended early if the connection is chosen
    /// to make room.
    pub fn spawn<F>(self, serve: impl FnOnce(Permit) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let state = self.state.clone();
        state.attach(tokio::spawn(serve(self)).abort_handle());
    }

    /// The connection waits for a request from now on, in milliseconds of [`super::Proxy::millis`]. False where it was
    /// chosen to be closed before its first turn.
    pub(super) fn rest(&self, millis: u64) -> bool {
        let was = self.state.rest(millis);
        if was == Was::Watched {
            self.limit.rests(self.number, millis);
        }
        was != Was::Chosen
    }

    /// A request begins. False where the connection was chosen to be closed just before.
    pub(super) fn work(&self) -> bool {
        self.state.work()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.release(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// A connection that is served until it is closed.
    fn open(limit: &Arc<ConnectionLimit>, client: IpAddr, now: u64) -> Option<oneshot::Receiver<Permit>> {
        match limit.admit(client, now) {
            Admission::Permitted(permit) => {
                serve(permit, now);
                None
            }
            Admission::Waiting(permit) => Some(permit),
        }
    }

    fn serve(permit: Permit, now: u64) {
        permit.spawn(|permit| async move {
            if permit.rest(now) {
                std::future::pending::<()>().await;
            }
        });
    }

    // A12
    #[tokio::test]
    async fn a_burst_that_is_accepted_in_one_turn_does_not_evict_others() {
        let limit = ConnectionLimit::new(10);
        for _ in 0..3 {
            assert!(open(&limit, HONEST, 0).is_none());
        }
        tokio::task::yield_now().await;
        // None of these had a turn yet: that they have not begun to rest must not save them.
        for _ in 0..7 {
            assert!(open(&limit, FLOOD, 100).is_none());
        }
        let mut newcomer = open(&limit, FLOOD, 100).expect("it is full");
        tokio::task::yield_now().await;
        assert!(newcomer.try_recv().is_err(), "all of that address are too young");
        limit.make_room(100 + MIN_REST);
        let permit = newcomer.await.expect("one of the flood's own made room");
        assert_eq!(limit.open(), 10);
        let counts = |address| limit.state.lock().clients.count(address);
        assert_eq!((counts(HONEST), counts(FLOOD)), (3, 7));
        drop(permit);
        assert_eq!(limit.open(), 9);
    }

    // A12
    #[tokio::test]
    async fn a_newcomer_counts_among_the_connections_of_its_address_before_one_is_chosen() {
        let limit = ConnectionLimit::new(2);
        // At one each the older connection would go, which is the honest one.
        assert!(open(&limit, HONEST, 0).is_none());
        assert!(open(&limit, FLOOD, 1).is_none());
        tokio::task::yield_now().await;
        let permit = open(&limit, FLOOD, 100).expect("it is full").await.expect("one of the two made room");
        let count = |address| limit.state.lock().clients.count(address);
        assert_eq!((count(HONEST), count(FLOOD)), (1, 1));
        drop(permit);
    }

    // D18
    #[tokio::test]
    async fn the_permit_of_a_newcomer_that_left_goes_to_the_next() {
        let limit = ConnectionLimit::new(1);
        let Admission::Permitted(first) = limit.admit(HONEST, 0) else { panic!("it is empty") };
        assert!(first.work());
        let (second, third) = (open(&limit, HONEST, 1), open(&limit, FLOOD, 2));
        drop(second);
        drop(first);
        let third = third.unwrap().await.unwrap();
        assert_eq!(limit.open(), 1);
        drop(third);
        assert_eq!(limit.open(), 0);
    }
}
