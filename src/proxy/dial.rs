//! Connecting to a replica, and racing a second one where the first is slow to accept.

use super::exchange::Attempts;
use super::socket::{self, Reader, UNACKNOWLEDGED, Writer};
use crate::exhaustion::is_exhaustion;
use crate::linux;
use crate::pool::Outcome;
use crate::upstream::{Lease, Upstream};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// A connect on one host's network takes well under a millisecond; one that takes this long lost its SYN (which is
/// repeated after a second) or met a full accept queue. Nothing is sent yet, so any request may go elsewhere.
const RACE_AFTER: Duration = Duration::from_millis(50);

/// When a container is killed or taken off its network, its interface goes with it, and what its kernel still had to say
/// is never sent: only a question that nobody answers tells. After this silence it is asked, every [`ASK_EVERY`], so
/// many times; a process that hangs has a kernel that answers. Two or three packets a connection that waits, no more.
const SILENCE: Duration = Duration::from_secs(3);
const ASK_EVERY: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 3;

/// Why no connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialError {
    /// Refused, reset, or no way there.
    Refused,
    /// Nobody answered in time.
    TimedOut,
    /// This host has no descriptor or port left: no replica is to blame.
    Exhausted,
    /// Accepted, but the endpoint left or became suspect meanwhile, so that another app may have accepted.
    Withdrawn,
}

/// A connection to the endpoint of `lease`, or of another lease that won the race against it. A failed endpoint is
/// reported to the pool and noted in `attempts`.
pub(super) async fn dial(
    upstream: &Arc<Upstream>,
    lease: Lease,
    attempts: &mut Attempts,
    connect_timeout: Duration,
) -> Result<(Lease, Box<Reader>, Writer), DialError> {
    let mut first = std::pin::pin!(connect(upstream, lease.endpoint().address(), connect_timeout));
    let slow = tokio::select! {
        biased;
        result = &mut first => return conclude(upstream, lease, result, attempts),
        () = sleep(RACE_AFTER) => lease,
    };
    attempts.tried.push(slow.id());
    let other = upstream.acquire_other(&attempts.tried);
    attempts.tried.pop();
    let Some(other) = other else {
        return conclude(upstream, slow, first.await, attempts);
    };
    let mut second = std::pin::pin!(connect(upstream, other.endpoint().address(), connect_timeout));
    let (loser, loss) = tokio::select! {
        biased;
        result = &mut first => match conclude(upstream, slow, result, attempts) {
            Ok(won) => return Ok(won),
            Err(_) => (other, second.await),
        },
        result = &mut second => match conclude(upstream, other, result, attempts) {
            Ok(won) => return Ok(won),
            Err(_) => (slow, first.await),
        },
    };
    conclude(upstream, loser, loss, attempts)
}

/// Kept connections that give their descriptors for one connect at most: another thread may be quicker to take the first one.
/// Not all of them, as what is lacking may be a port or memory, which none of them brings back.
const GIVEN: usize = 3;

/// One connect. Where no descriptor is left for it, a kept connection gives its own.
async fn connect(upstream: &Upstream, address: SocketAddr, connect_timeout: Duration) -> Result<TcpStream, DialError> {
    for _ in 0..GIVEN {
        match try_to_connect(address, connect_timeout).await {
            Err(DialError::Exhausted) if upstream.close_kept() => {}
            result => return result,
        }
    }
    try_to_connect(address, connect_timeout).await
}

async fn try_to_connect(address: SocketAddr, connect_timeout: Duration) -> Result<TcpStream, DialError> {
    match timeout(connect_timeout, open(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if is_exhaustion(&error) => Err(DialError::Exhausted),
        Ok(Err(_)) => Err(DialError::Refused),
        Err(_) => Err(DialError::TimedOut),
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_EVERY).with_retries(QUESTIONS);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    // Questions are asked only while nothing is unacknowledged.
    linux::set_user_timeout(&SockRef::from(&socket), Some(UNACKNOWLEDGED))?;
    socket.connect(address).await
}

/// Hands out what a connect brought, or tells the pool that it failed.
fn conclude(
    upstream: &Arc<Upstream>,
    lease: Lease,
    result: Result<TcpStream, DialError>,
    attempts: &mut Attempts,
) -> Result<(Lease, Box<Reader>, Writer), DialError> {
    let error = match result {
        Ok(_) if lease.generation() != lease.endpoint().kept().generation() => DialError::Withdrawn,
        Ok(stream) => {
            let (reader, writer) = socket::split(stream);
            return Ok((lease, reader, writer));
        }
        Err(error) => error,
    };
    let outcome = match error {
        DialError::Refused => Outcome::Refused,
        DialError::TimedOut => Outcome::ConnectTimedOut,
        DialError::Exhausted | DialError::Withdrawn => Outcome::Abandoned,
    };
    upstream.record(&lease, outcome, crate::clock::now());
    attempts.note(lease.id(), lease.endpoint().address());
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    // F21
    #[tokio::test]
    async fn where_there_is_no_way_another_replica_is_tried_as_where_nobody_listens() {
        // No connection leads to everybody: the kernel says so at once, as of a network that cannot be reached.
        let error = open("255.255.255.255:80".parse().unwrap()).await.unwrap_err();
        assert!(!is_exhaustion(&error), "{error}");
        let result = try_to_connect("255.255.255.255:80".parse().unwrap(), Duration::from_secs(30)).await;
        assert_eq!(result.unwrap_err(), DialError::Refused);
    }

    // D8
    #[tokio::test]
    async fn a_connection_accepted_after_its_endpoint_became_suspect_is_not_used() {
        use crate::discovery::tests::{ip, upstream};
        use crate::pool::{ProbeResult, Resolution};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = upstream(crate::config::Host::Name("app".into()), port);
        upstream.apply(|pool, now| {
            pool.resolved(&Resolution::Addresses(vec![ip(1)]), &[], now, now);
            for probe in pool.due_probes(now) {
                pool.probed(probe.id, &ProbeResult::Passed, now, now);
            }
        });
        let lease = upstream.acquire(&[]).expect("it is proven");
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        upstream.record(&lease, Outcome::Refused, crate::clock::now());
        let ended = conclude(&upstream, lease, Ok(stream), &mut Attempts::new(Box::default()));
        assert_eq!(ended.err(), Some(DialError::Withdrawn));
    }
}
