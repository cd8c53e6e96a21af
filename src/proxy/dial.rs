//! Connecting to a replica, and racing a second one where the first is slow to accept.

use super::socket::{self, Reader, Writer};
use crate::pool::{EndpointId, Outcome};
use crate::upstream::{Lease, Upstream};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// A connect on one host's network takes well under a millisecond; one that takes this long lost its SYN (which is
/// repeated after a second) or met a full accept queue. Nothing is sent yet, so any request may go elsewhere.
const RACE_AFTER: Duration = Duration::from_millis(50);

/// Why no connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialError {
    /// Refused, reset, or no way there.
    Refused,
    /// Nobody answered in time.
    TimedOut,
    /// This host has no descriptor or port left: no replica is to blame.
    Exhausted,
}

/// A connection to the endpoint of `lease`, or of another lease that won the race against it. A failed endpoint is
/// reported to the pool and added to `tried`.
pub(super) async fn dial(
    upstream: &Arc<Upstream>,
    lease: Lease,
    tried: &mut Vec<EndpointId>,
    connect_timeout: Duration,
) -> Result<(Lease, Box<Reader>, Writer), DialError> {
    let mut first = std::pin::pin!(connect(lease.endpoint().address(), connect_timeout));
    let slow = tokio::select! {
        biased;
        result = &mut first => return conclude(upstream, lease, result, tried),
        () = sleep(RACE_AFTER) => lease,
    };
    tried.push(slow.id());
    let Some(other) = upstream.acquire_other(tried) else {
        let result = first.await;
        tried.pop();
        return conclude(upstream, slow, result, tried);
    };
    tried.pop();
    let mut second = std::pin::pin!(connect(other.endpoint().address(), connect_timeout));
    let (loser, loss) = tokio::select! {
        biased;
        result = &mut first => match conclude(upstream, slow, result, tried) {
            Ok(won) => return Ok(won),
            Err(_) => (other, second.await),
        },
        result = &mut second => match conclude(upstream, other, result, tried) {
            Ok(won) => return Ok(won),
            Err(_) => (slow, first.await),
        },
    };
    conclude(upstream, loser, loss, tried)
}

/// One connect.
async fn connect(address: SocketAddr, connect_timeout: Duration) -> Result<TcpStream, DialError> {
    match timeout(connect_timeout, open(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if is_exhaustion(&error) => Err(DialError::Exhausted),
        Ok(Err(_)) => Err(DialError::Refused),
        Err(_) => Err(DialError::TimedOut),
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let local = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| local.contains(&Errno::from_raw(code)))
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// Hands out what a connect brought, or tells the pool that it failed.
fn conclude(
    upstream: &Upstream,
    lease: Lease,
    result: Result<TcpStream, DialError>,
    tried: &mut Vec<EndpointId>,
) -> Result<(Lease, Box<Reader>, Writer), DialError> {
    let error = match result {
        Ok(stream) => {
            let (reader, writer) = socket::split(stream);
            return Ok((lease, reader, writer));
        }
        Err(error) => error,
    };
    let outcome = match error {
        DialError::Refused => Outcome::Refused,
        DialError::TimedOut => Outcome::ConnectTimedOut,
        DialError::Exhausted => Outcome::Abandoned,
    };
    upstream.record(&lease, outcome, crate::clock::now());
    tried.push(lease.id());
    Err(error)
}
