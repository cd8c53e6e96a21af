//! Listening sockets, and the places for client connections.

use super::StartError;
use super::drain::Orders;
use crate::clock;
use crate::proxy::{Proxy, Seat};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

/// Connections that the kernel holds ready for each listener; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How often kept connections are looked through: those that a replica closed are gone this soon.
const SWEEP: Duration = Duration::from_millis(500);

/// Pause after a failed accept (no descriptor left), or while every place is taken by a working connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Descriptors that are not clients' or replicas': listeners, runtimes, DNS, probes, the operator's.
const RESERVED: u64 = 64;

/// Below this many descriptors the default limits cannot hold.
const FEW_DESCRIPTORS: u64 = 1024;

/// Raises the soft descriptor limit to the hard one. Returns what holds now.
pub(super) fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return FEW_DESCRIPTORS;
    };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    if limit < FEW_DESCRIPTORS {
        warn!(limit, "few descriptors: raise `ulimit -n` (Docker: --ulimit nofile=65536)");
    }
    limit
}

/// Client connections at once: as configured, or so many that each may have one to a replica.
pub(super) fn max_connections(configured: usize, descriptors: u64) -> usize {
    let fits = usize::try_from(descriptors.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX).max(1);
    if configured == 0 {
        return fits;
    }
    if configured > fits {
        warn!(configured, fits, "server.max_connections is more than the descriptor limit has room for");
    }
    configured
}

/// One listener for each worker, on the same port.
pub(super) fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, StartError> {
    // Sockets that share a port may belong to different processes; one that does not share finds out.
    let alone = open(address, false).map_err(|error| explain("listen", address, &error))?;
    if workers == 1 {
        return Ok(vec![alone]);
    }
    // Port 0 is any port, but the same for all.
    let address = alone.local_addr().unwrap_or(address);
    drop(alone);
    (0..workers).map(|_| open(address, true).map_err(|error| explain("listen", address, &error))).collect()
}

/// The listener for the operator.
pub(super) fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    open(address, false).map_err(|error| explain("admin", address, &error))
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(key: &str, address: SocketAddr, error: &io::Error) -> StartError {
    let port = address.port();
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another process listens on port {port}; end it, or choose another port"),
        io::ErrorKind::PermissionDenied => {
            format!("port {port} needs a right that this process lacks; outside a container set PORT=8080")
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this host; use 0.0.0.0", address.ip()),
        _ => "check the address".into(),
    };
    StartError(format!("server.{key} = \"{address}\": {error}; {remedy}"))
}

/// How many client connections there may be, and are.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    taken: AtomicUsize,
}

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Seats { max, taken: AtomicUsize::new(0) }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    fn are_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max
    }
}

/// A taken seat; dropping it frees it.
struct Taken(Arc<Seats>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one worker.
#[derive(Default)]
struct Guests {
    all: Vec<(Arc<Seat>, AbortHandle)>,
    /// Looked through once there are twice as many as were alive the last time.
    crowded: usize,
}

impl Guests {
    fn seat(&mut self, proxy: &Arc<Proxy>, seats: &Arc<Seats>, stream: tokio::net::TcpStream, peer: SocketAddr) {
        seats.taken.fetch_add(1, Ordering::Relaxed);
        proxy.metrics().accepted.fetch_add(1, Ordering::Relaxed);
        let (taken, seat, proxy) = (Taken(seats.clone()), Arc::new(Seat::default()), proxy.clone());
        let guest = seat.clone();
        let task = tokio::spawn(async move {
            let _taken = taken;
            proxy.serve(stream, peer, guest).await;
        });
        if self.all.len() >= self.crowded {
            self.all.retain(|(_, task)| !task.is_finished());
            self.crowded = 64 + self.all.len() * 2;
        }
        self.all.push((seat, task.abort_handle()));
    }

    /// Whether anybody waits for a request and could make room.
    fn has_resting(&self) -> bool {
        self.all.iter().any(|(seat, task)| seat.resting_since().is_some() && !task.is_finished())
    }

    /// Closes the connection that has waited longest for a request. It is this thread's, so it cannot have begun to work
    /// meanwhile.
    fn evict(&mut self) {
        self.all.retain(|(_, task)| !task.is_finished());
        let resting = |(i, (seat, _)): (usize, &(Arc<Seat>, AbortHandle))| seat.resting_since().map(|since| (since, i));
        if let Some((_, oldest)) = self.all.iter().enumerate().filter_map(resting).min() {
            self.all.remove(oldest).1.abort();
        }
    }
}

/// Accepts and serves until the listener is to be closed; then empties the accept queue, closes the listener and serves
/// what is left until that is to be cut.
pub(super) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, seats: Arc<Seats>, mut orders: Orders) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut guests = Guests::default();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let full = seats.are_full() && !guests.has_resting();
        tokio::select! {
            biased;
            () = orders.close() => break,
            _ = sweep.tick() => sweep_kept(&proxy),
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, peer)) => {
                    if seats.are_full() {
                        guests.evict();
                    }
                    guests.seat(&proxy, &seats, stream, peer);
                }
                Err(error) => {
                    // No descriptor left, most likely: the one that waited longest makes room.
                    debug!(%error, "accept failed");
                    guests.evict();
                    sleep(PAUSE).await;
                }
            },
            () = sleep(PAUSE), if full => {}
        }
    }
    // Asked of the kernel itself, so that nothing lies between its last word and the close.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                guests.seat(&proxy, &seats, stream, peer);
            }
        }
    }
    orders.closed().await;
}

/// Closes what this worker kept for too long, or what its replica has closed.
fn sweep_kept(proxy: &Proxy) {
    let now = clock::now();
    for (upstream, config) in &proxy.table().upstreams {
        for endpoint in upstream.endpoints().values() {
            endpoint.kept().sweep(config.idle_timeout, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_send_small_writes_at_once() {
        let listener = open(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }
}
