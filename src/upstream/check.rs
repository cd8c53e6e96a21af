//! Whether an endpoint is still there after one of its connections broke.
//!
//! The worker that noticed a break begins a connect at once, and the pool decides by its result
//! ([`crate::pool::Pool::break_checked`]). One connect tells about all breaks that were noticed before it began, so a
//! replica that dies with a thousand requests is asked once.

use super::{Endpoint, Lease, Upstream};
use crate::clock;
use crate::exhaustion::is_exhaustion;
use crate::pool::{Break, HANDOVER};
use crate::worker;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};

/// Between two connects of this kind to one endpoint at least: a server that closes each connection after its answer
/// breaks thousands a second, and a hundred checks of those are plenty.
const SPACING: Duration = Duration::from_millis(10);

/// The checks of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Breaks whose check is not over.
    pending: AtomicU32,
    /// Those that the next connect will tell about.
    group: Mutex<Group>,
    /// The last connect. Held while the next one is under way, so that those who wait share it; tokio's mutex is fair.
    last: tokio::sync::Mutex<Option<Connect>>,
}

/// Breaks that were noticed between two connects.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    count: u32,
    /// Requests in flight at the endpoint when the first of them was noticed, that one included.
    in_flight: u32,
}

impl Group {
    /// Whether they are one event, that is, half of what was in flight or more: a worker of the app died with all that it
    /// held while its supervisor listens on, or the process dies and has yet to close its listener. Breaks of single
    /// requests, however many a second, add up to more than was ever in flight at once, or to less than half of it.
    fn is_one_event(self) -> bool {
        (2..=self.in_flight).contains(&self.count) && 2 * self.count >= self.in_flight
    }
}

/// A connect that nobody answered for this long is proof: on one host's network an answer takes microseconds.
const SILENCE: Duration = Duration::from_millis(25);

/// One connect and its result.
#[derive(Clone, Copy, Debug)]
struct Connect {
    began: Instant,
    accepted: Option<Instant>,
    /// It was refused, or met silence. Neither this nor accepted: this process was too busy to find out in time, or had no
    /// descriptor for it.
    failed: bool,
    /// The breaks that it tells about are one event.
    one_event: bool,
}

/// What a check found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The endpoint is there: the break concerns the request alone.
    Alive,
    /// It is not, and this break is the one that revealed it.
    Dead,
    /// A further victim of an event that another break had revealed: the endpoint's death, or that of much of it.
    Victim,
    /// Nobody knows, and it is treated as if it were not there.
    Unknown,
}

impl Checks {
    /// Whether it is open if the endpoint is still there.
    pub(super) fn are_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// A connect that began after the break was noticed, and whether it was made for this call.
    async fn connect(&self, address: SocketAddr, broke: Break) -> (Connect, bool) {
        let mut last = self.last.lock().await;
        if let Some(shared) = last.filter(|last| last.began >= broke.noticed) {
            return (shared, false);
        }
        if let Some(last) = &*last {
            sleep_until((last.began + SPACING).into()).await;
        }
        let group = std::mem::take(&mut *self.group.lock());
        let began = clock::now();
        let deadline = broke.earliest + HANDOVER;
        let result = timeout_at(deadline.into(), open(address)).await;
        let accepted = matches!(result, Ok(Ok(()))).then(clock::now);
        let refused = matches!(&result, Ok(Err(error)) if !is_exhaustion(error));
        let failed = refused || (result.is_err() && deadline >= began + SILENCE);
        let connect = Connect { began, accepted, failed, one_event: group.is_one_event() };
        *last = Some(connect);
        (connect, true)
    }
}

impl Upstream {
    /// Finds out whether the endpoint of `lease` is still there, of which a connection broke as was noticed at `noticed`.
    /// Goes on when nobody awaits it any more.
    pub fn check(self: &Arc<Self>, lease: &Lease, noticed: Instant) -> JoinHandle<Fate> {
        let broke = Break { earliest: worker::heard_since(noticed), noticed };
        let checks = &lease.endpoint.checks;
        checks.pending.fetch_add(1, Ordering::Relaxed);
        {
            let mut group = checks.group.lock();
            if group.count == 0 {
                group.in_flight = lease.endpoint.count().load(Ordering::Relaxed);
            }
            group.count += 1;
        }
        let (upstream, endpoint) = (self.clone(), lease.endpoint.clone());
        tokio::spawn(async move {
            let (connect, own) = endpoint.checks.connect(endpoint.address, broke).await;
            let fate = upstream.conclude(&endpoint, broke, connect, own);
            endpoint.checks.pending.fetch_sub(1, Ordering::Relaxed);
            fate
        })
    }

    fn conclude(self: &Arc<Self>, endpoint: &Endpoint, broke: Break, connect: Connect, own: bool) -> Fate {
        // What happened to all of them has been told of by whoever made the connect.
        if (connect.failed || connect.one_event) && !own {
            return Fate::Victim;
        }
        let alive = self.apply(|pool, now| pool.break_checked(endpoint.id, broke, connect.accepted, now));
        match connect.failed {
            _ if alive => Fate::Alive,
            true => Fate::Dead,
            false => Fate::Unknown,
        }
    }
}

/// Connects, and lets go by a reset: a close would leave the connection's port waiting for a minute.
async fn open(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    socket.connect(address).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A13
    #[test]
    fn half_of_what_was_in_flight_is_one_event_and_single_requests_are_not() {
        let is_one = |count, in_flight| Group { count, in_flight }.is_one_event();
        assert!(is_one(500, 500) && is_one(250, 500) && is_one(2, 3));
        assert!(!is_one(1, 1), "a single request has no further victims");
        assert!(!is_one(1, 40) && !is_one(15, 40), "requests that break, among others that do not");
        assert!(!is_one(50, 5), "they came one after the other");
    }
}
