//! A worker's loop: accepts connections, and has each served once the limit permits it.

use super::acceptor::Acceptor;
use super::drain::Orders;
use super::takeover::LOOK_FOR_MIGRATED;
use crate::clock;
use crate::exhaustion::is_exhaustion;
use crate::proxy::{Admission, ConnectionLimit, Permit, Proxy};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::debug;

/// How often kept connections are looked through: those that a replica closed are gone this soon.
const SWEEP: Duration = Duration::from_millis(500);

/// Pause after an accept that failed for want of a descriptor, where no connection rests that could give one.
const PAUSE: Duration = Duration::from_millis(50);

/// The same where one was closed: its worker needs some microseconds for it.
const CLOSING: Duration = Duration::from_millis(1);

/// How often a worker with a waiting connection looks whether another has rested long enough to make room.
const LOOK: Duration = Duration::from_millis(5);

/// Connections that are accepted one behind the other, before anything else has its turn: a tenth of a millisecond.
const BURST: usize = 16;

/// Accepts and serves until the listener is to be closed; then empties the accept queue, closes the listener and serves
/// what is left until that is to be cut.
///
/// `reuse_port`: connections may come from the queue of another process's listener, without a sign.
pub(super) async fn serve(
    listener: TcpListener,
    reuse_port: bool,
    proxy: Arc<Proxy>,
    limit: Arc<ConnectionLimit>,
    mut orders: Orders,
) {
    let Ok(mut listener) = Acceptor::new(listener) else {
        return;
    };
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK_FOR_MIGRATED);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The one connection that was accepted beyond the limit. Others wait in the kernel until it is served.
    let mut waiting: Option<Waiting> = None;
    loop {
        tokio::select! {
            biased;
            () = orders.close() => break,
            _ = sweep.tick() => sweep_kept(&proxy),
            Some(permit) = permitted(&mut waiting) => {
                if let Some(newcomer) = waiting.take() {
                    newcomer.serve(permit);
                }
            }
            // Lazily: a disabled branch is built all the same.
            () = async { sleep(LOOK).await }, if waiting.is_some() => limit.make_room(proxy.millis()),
            _ = look.tick(), if reuse_port && waiting.is_none() => {
                if let Some((stream, peer)) = listener.accept_at_once() {
                    waiting = Connection::new(&proxy, stream, peer).admit(&limit);
                    look.reset_immediately();
                }
            }
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((stream, peer)) => {
                    waiting = Connection::new(&proxy, stream, peer).admit(&limit);
                    // Those who came with it, without all the questions above for each.
                    for _ in 1..BURST {
                        if waiting.is_some() {
                            break;
                        }
                        let Some(Ok((stream, peer))) = listener.accept_if_told() else { break };
                        waiting = Connection::new(&proxy, stream, peer).admit(&limit);
                    }
                }
                Err(error) if is_exhaustion(&error) => {
                    let closes = limit.shed(proxy.millis());
                    debug!(%error, closes, "accept failed");
                    sleep(if closes { CLOSING } else { PAUSE }).await;
                }
                // It concerns one connection, which broke before it was accepted.
                Err(error) => debug!(%error, "accept failed"),
            },
        }
    }
    if let Some(newcomer) = waiting {
        newcomer.serve_in_time(&limit);
    }
    // Asked of the kernel itself, so that nothing lies between its last word and the close.
    while let Some((stream, peer)) = listener.accept_at_once() {
        if let Some(newcomer) = Connection::new(&proxy, stream, peer).admit(&limit) {
            newcomer.serve_in_time(&limit);
        }
    }
    drop(listener);
    orders.closed().await;
}

/// An accepted connection.
struct Connection {
    proxy: Arc<Proxy>,
    stream: TcpStream,
    peer: SocketAddr,
    /// When its service begins.
    at: Instant,
}

impl Connection {
    fn new(proxy: &Arc<Proxy>, stream: TcpStream, peer: SocketAddr) -> Self {
        proxy.metrics().accepted.fetch_add(1, Ordering::Relaxed);
        // An IPv4 client of a listener for both families comes as ::ffff:a.b.c.d.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Connection { proxy: proxy.clone(), stream, peer, at: clock::now() }
    }

    /// Serves it if the limit permits; else it has to wait.
    fn admit(self, limit: &Arc<ConnectionLimit>) -> Option<Waiting> {
        match limit.admit(self.peer.ip(), self.proxy.millis_at(self.at)) {
            Admission::Permitted(permit) => {
                self.serve(permit);
                None
            }
            Admission::Waiting(permit) => Some(Waiting { connection: self, permit }),
        }
    }

    fn serve(self, permit: Permit) {
        let Connection { proxy, stream, peer, at } = self;
        // On the heap: the runtime moves what it is given to spawn and what it is done with, whole.
        permit.spawn(|permit| Box::pin(proxy.serve(stream, peer, permit, at)));
    }
}

/// An accepted connection that waits for its permit.
struct Waiting {
    connection: Connection,
    permit: oneshot::Receiver<Permit>,
}

impl Waiting {
    /// Its permit has come.
    fn serve(self, permit: Permit) {
        Connection { at: clock::now(), ..self.connection }.serve(permit);
    }

    /// Serves it once it may be, at the end of the process, where the listener cannot wait for that.
    fn serve_in_time(self, limit: &Arc<ConnectionLimit>) {
        let limit = limit.clone();
        tokio::spawn(async move {
            let mut newcomer = self;
            loop {
                tokio::select! {
                    permit = &mut newcomer.permit => return permit.map_or((), |permit| newcomer.serve(permit)),
                    () = sleep(LOOK) => limit.make_room(newcomer.connection.proxy.millis()),
                }
            }
        });
    }
}

/// Ready when the permit that is waited for has come.
async fn permitted(waiting: &mut Option<Waiting>) -> Option<Permit> {
    match waiting {
        Some(waiting) => (&mut waiting.permit).await.ok(),
        None => None,
    }
}

/// Closes what this worker kept for too long, or what its replica has closed.
fn sweep_kept(proxy: &Proxy) {
    let now = clock::now();
    for (upstream, config) in &proxy.table().upstreams {
        for (id, endpoint) in upstream.endpoints() {
            let swept = endpoint.kept().sweep(config.idle_timeout, now);
            endpoint.shared().sweep(endpoint.kept().generation(), now);
            if swept.closed > 0 {
                upstream.apply(|pool, now| pool.rest_ended(id, now));
            }
            if swept.spoke {
                tracing::warn!(
                    upstream = %upstream.name(),
                    endpoint = %endpoint.address(),
                    "sends bytes behind its responses: its connections are no longer kept, as the next client would get them"
                );
            }
        }
    }
}
