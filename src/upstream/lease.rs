//! One replica's live part, and a request's hold on it.

use super::Upstream;
use super::check::Checks;
use crate::admin::status::Live;
use crate::pool::{EndpointId, Load};
use crate::proxy::{Connection, Kept};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// One replica's live part.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    in_flight: AtomicU32,
    /// Upgraded connections and event streams: long, and no sign of load.
    streams: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Declared down while requests may be waiting on it.
    down: AtomicBool,
    kept: Kept<Connection>,
    pub(super) checks: Checks,
}

impl Endpoint {
    pub(super) fn new(id: EndpointId, address: SocketAddr, workers: usize) -> Self {
        Endpoint {
            id,
            address,
            in_flight: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            down: AtomicBool::new(false),
            kept: Kept::new(workers),
            checks: Checks::default(),
        }
    }

    /// Its address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections that wait for a request.
    pub fn kept(&self) -> &Kept<Connection> {
        &self.kept
    }

    /// Whether one of its connections broke just now, and whether it is still there is not known yet.
    pub fn is_being_checked(&self) -> bool {
        self.checks.are_pending()
    }

    /// What is live of it, for the operator.
    pub fn live(&self) -> Live {
        Live {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            idle_connections: self.kept.count(),
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count(&self) -> &AtomicU32 {
        &self.in_flight
    }

    /// Says whether it is declared down while requests may be waiting on it.
    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Counts a request that it did not answer.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn busy(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed) + self.streams.load(Ordering::Relaxed)
    }
}

/// One request's hold on an endpoint. Dropping it, for whatever reason, gives the place back.
#[derive(Debug)]
pub struct Lease {
    upstream: Arc<Upstream>,
    pub(super) endpoint: Arc<Endpoint>,
    generation: u32,
    load: Load,
    cold: bool,
    stream: bool,
}

impl Lease {
    /// For a request whose place at `endpoint` has been counted, and which met this load there.
    pub(super) fn new(upstream: &Arc<Upstream>, endpoint: &Arc<Endpoint>, load: Load, cold: bool) -> Self {
        endpoint.requests.fetch_add(1, Ordering::Relaxed);
        Lease {
            upstream: upstream.clone(),
            endpoint: endpoint.clone(),
            generation: endpoint.kept.generation(),
            load,
            cold,
            stream: false,
        }
    }

    /// What the request met there.
    pub(super) fn load(&self) -> Load {
        Load { at_end: self.endpoint.in_flight.load(Ordering::Relaxed), ..self.load }
    }

    /// The pool wants to hear of its answer at once.
    pub(super) fn is_cold(&self) -> bool {
        self.cold
    }

    /// Whom the request goes to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its name.
    pub fn id(&self) -> EndpointId {
        self.endpoint.id
    }

    /// The generation of the endpoint's kept connections when the lease was taken: a connection goes back only to the
    /// same one.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the endpoint was declared down since.
    pub fn is_down(&self) -> bool {
        self.endpoint.down.load(Ordering::Relaxed)
    }

    /// From here on it is a long stream, no longer a request in flight.
    pub fn become_stream(&mut self) {
        if !self.stream {
            self.stream = true;
            self.endpoint.streams.fetch_add(1, Ordering::Relaxed);
            self.release();
        }
    }

    fn release(&self) {
        // In this order: see `queue`.
        self.endpoint.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.upstream.serve_queue();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.stream {
            self.endpoint.streams.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.release();
        }
    }
}
