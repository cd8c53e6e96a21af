//! The data path: clients' connections, the exchange of one request, and the connections to replicas.
//!
//! A connection is two handles on one socket ([`socket`]), and the two directions of an exchange are two futures of one
//! task: else nothing could be read while something is written, and an early answer to an upload or an echo would stand
//! still. What comes in is read where it lies: heads without a map of fields that nobody would look into ([`head`],
//! [`fields`]), bodies in chunks by a decoder that keeps nothing ([`inflow`], [`chunked`]). A server's usual session does
//! more than a proxy asks for, and less strictly: it costs a third of a small request.
//!
//! A request's way: [`client`] reads its head (watched by [`guard`], understood by [`request`] and [`fields`]), or [`http2`]
//! accepts its stream; [`turn`] finds its route and hands it to [`exchange`], which takes an endpoint and a kept [`connection`] ([`kept`]) or a new one ([`dial`])
//! for each [`attempt`]: that sends it, awaits the response's head ([`incoming`], [`response`], [`mend`]) and passes the bodies on
//! ([`body`], from [`inflow`] to [`outflow`]); an upgraded connection becomes a [`tunnel`]. What the proxy itself has to say is in [`answer`],
//! and how many clients' connections there may be in [`limit`].
//!
//! Only [`request`] names pingora, and only [`http2`] h2.

mod answer;
mod attempt;
mod body;
mod chunked;
mod client;
mod connection;
mod dial;
mod exchange;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod head;
mod http2;
mod inbound;
mod incoming;
mod inflow;
mod kept;
mod limit;
mod log;
mod memory;
mod mend;
mod outflow;
mod request;
mod response;
mod socket;
mod syntax;
mod timer;
mod trail;
mod transfer;
mod tunnel;
mod turn;
mod waiting;

pub use answer::Problem;
pub use connection::Connection;
pub use fields::PROBE_FIELD;
pub use http2::{Code, Shared, Silent, ask};
pub use kept::Kept;
pub use limit::{Admission, ConnectionLimit, Permit};

use crate::admin::metrics::ServerMetrics;
use crate::clock;
use crate::config;
use crate::route::Router;
use crate::upstream::Upstream;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use trail::Trails;

/// What all requests share.
#[derive(Debug)]
pub struct Proxy {
    /// What the configuration says now.
    table: ArcSwap<Table>,
    draining: AtomicBool,
    /// Told once draining begins: connections of HTTP/2 have something to say then.
    drained: Notify,
    /// Requests under way.
    active: AtomicUsize,
    /// Connections that changed their protocol.
    tunnels: AtomicUsize,
    /// When the last request or tunnel ended, as [`Proxy::millis`].
    last_end: AtomicU64,
    started: Instant,
    metrics: Arc<ServerMetrics>,
    /// What requests hold.
    memory: memory::Memory,
    /// The ways of the last requests.
    trails: Trails,
    /// When a client that speaks another protocol was last logged.
    foreign: Occasion,
    /// When a probe of another Evenkeel was last logged.
    ring: Occasion,
}

/// The configuration as requests use it.
#[derive(Debug)]
pub struct Table {
    /// `[server]`
    pub server: config::Server,
    /// `[[route]]`
    pub router: Router,
    /// `[upstream.NAME]`, as the routes count them.
    pub upstreams: Vec<(Arc<Upstream>, Arc<config::Upstream>)>,
}

impl Proxy {
    /// A proxy that serves `table`.
    pub fn new(table: Table) -> Arc<Self> {
        Arc::new(Proxy {
            table: ArcSwap::from_pointee(table),
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            active: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            last_end: AtomicU64::new(0),
            started: clock::now(),
            metrics: Arc::default(),
            memory: memory::Memory::default(),
            trails: Trails::new(),
            foreign: Occasion::default(),
            ring: Occasion::default(),
        })
    }

    /// Serves one client's connection from `at` until it ends. Its socket sends small writes at once. The permit is given
    /// back once the socket is closed.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: Permit, at: Instant) {
        client::serve(self, stream, peer, permit, at).await;
    }

    /// What is served now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Serves `table` from the next request on.
    pub fn replace(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// From now on every response tells its client to go elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.drained.notify_waiters();
    }

    /// Returns once [`Proxy::drain`] was called.
    async fn drained(&self) {
        let told = self.drained.notified();
        tokio::pin!(told);
        // Listening before looking, so that it is not missed.
        told.as_mut().enable();
        if !self.draining.load(Ordering::SeqCst) {
            told.await;
        }
    }

    /// Whether [`Proxy::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests under way.
    pub fn requests(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Connections that changed their protocol and run on.
    pub fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// When the last request or tunnel ended in a drain, as [`Proxy::millis`].
    pub fn last_end(&self) -> u64 {
        self.last_end.load(Ordering::Relaxed)
    }

    /// When it was made.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What is counted before a request has an upstream.
    pub fn metrics(&self) -> &Arc<ServerMetrics> {
        &self.metrics
    }

    /// What is known of the requests that are called so, or of the last one that ended, in words.
    pub fn explain(&self, name: Option<&str>) -> Option<String> {
        match name {
            Some(name) => self.trails.explain(name),
            None => self.trails.explain_last(),
        }
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> u64 {
        self.millis_at(clock::now())
    }

    /// The same at `now`.
    pub fn millis_at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn active(&self) -> UnderWay<'_> {
        UnderWay::new(self, &self.active)
    }

    fn tunnel(&self) -> UnderWay<'_> {
        UnderWay::new(self, &self.tunnels)
    }
}

/// Something under way that a drain waits for, counted until it is dropped.
struct UnderWay<'a> {
    proxy: &'a Proxy,
    count: &'a AtomicUsize,
}

impl<'a> UnderWay<'a> {
    fn new(proxy: &'a Proxy, count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay { proxy, count }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        if self.proxy.is_draining() {
            self.proxy.last_end.store(self.proxy.millis(), Ordering::Relaxed);
        }
    }
}

/// Something that is logged at intervals, however often it happens.
#[derive(Debug, Default)]
struct Occasion {
    /// When the next may be, as [`Proxy::millis`].
    next: AtomicU64,
    /// How often it has happened without a line since the last one.
    suppressed: AtomicU64,
}

impl Occasion {
    /// Whether it is logged this time, which begins a pause; and how often it has happened unlogged before.
    fn comes(&self, now: u64, pause: Duration) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let after = now.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        let logged =
            now >= next && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if logged {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A7
    #[test]
    fn what_happens_twenty_thousand_times_is_logged_once_a_minute_with_a_count() {
        let (occasion, minute) = (Occasion::default(), Duration::from_secs(60));
        let logged: Vec<_> = (0..20_000).filter_map(|_| occasion.comes(0, minute)).collect();
        assert_eq!(logged, [0], "the first at once");
        assert_eq!(occasion.comes(59_999, minute), None);
        assert_eq!(occasion.comes(60_000, minute), Some(20_000));
        assert_eq!(occasion.comes(120_000, minute), Some(0));
    }
}
