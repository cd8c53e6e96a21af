//! One replica's live part, and a request's hold on it.

use super::Upstream;
use super::check::Checks;
use super::silence::Silence;
use crate::admin::latency::{Counts, Latency};
use crate::admin::status::Live;
use crate::pool::{EndpointId, Load};
use crate::proxy::{Connection, Kept, Shared};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One replica's live part.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    in_flight: AtomicU32,
    /// Upgraded connections and event streams: long, and no sign of load.
    streams: AtomicU32,
    /// Of those in flight, those whose body is on its way: none of them waits for an answer.
    transfers: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    server_errors: AtomicU64,
    /// To its responses' first byte.
    latency: Latency,
    /// Declared down while requests may be waiting on it.
    down: AtomicBool,
    pub(super) silence: Silence,
    kept: Kept<Connection>,
    shared: Shared,
    pub(super) checks: Checks,
}

impl Endpoint {
    pub(super) fn new(id: EndpointId, address: SocketAddr, workers: usize, now: Instant) -> Self {
        Endpoint {
            id,
            address,
            in_flight: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            transfers: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            server_errors: AtomicU64::new(0),
            latency: Latency::default(),
            down: AtomicBool::new(false),
            silence: Silence::new(now),
            kept: Kept::new(workers),
            shared: Shared::new(workers),
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

    /// Its connections that requests share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Has no request take a connection that is there now: another process may have the address by now.
    pub(super) fn retire(&self) {
        self.kept.retire();
        self.shared.retire();
    }

    /// Whether one of its connections broke just now, and whether it is still there is not known yet.
    pub fn is_being_checked(&self) -> bool {
        self.checks.are_pending()
    }

    /// What is live of it, for the operator.
    pub fn live(&self, now: Instant) -> Live {
        Live {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            idle_connections: self.kept.count() + self.shared.count(),
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            server_errors: self.server_errors.load(Ordering::Relaxed),
            silent_for: self.silent_for(now),
        }
    }

    pub(super) fn count(&self) -> &AtomicU32 {
        &self.in_flight
    }

    /// Says whether it is declared down while requests may be waiting on it.
    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Notes an answer, and how long its first byte took.
    pub(super) fn answered(&self, first_byte: Duration, now: Instant) {
        self.silence.end(now);
        self.latency.observe(first_byte);
    }

    /// How long its responses' first bytes took.
    pub fn latency(&self) -> Counts {
        let mut counts = Counts::default();
        self.latency.add_to(&mut counts);
        counts
    }

    /// Requests that wait for an answer of it.
    pub(super) fn unanswered(&self) -> u32 {
        let transfers = self.transfers.load(Ordering::Relaxed);
        self.in_flight.load(Ordering::Relaxed).saturating_sub(transfers)
    }

    /// Counts a response of it that says that it failed: 5xx.
    pub(super) fn erred(&self) {
        self.server_errors.fetch_add(1, Ordering::Relaxed);
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
    caller: IpAddr,
    cold: bool,
    stream: bool,
    transfer: bool,
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
            caller: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            cold,
            stream: false,
            transfer: false,
        }
    }

    /// What the request met there.
    pub(super) fn load(&self) -> Load {
        Load { at_end: self.endpoint.in_flight.load(Ordering::Relaxed), ..self.load }
    }

    /// Says for whom the request is sent.
    pub fn set_caller(&mut self, caller: IpAddr) {
        self.caller = caller;
    }

    pub(super) fn caller(&self) -> IpAddr {
        self.caller
    }

    /// The pool wants to hear of its answer at once.
    pub(super) fn is_cold(&self) -> bool {
        self.cold
    }

    /// Whom the request goes to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint, for whoever outlives the lease.
    pub fn share_endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.clone()
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
        self.set_transfer(false);
        if !self.stream {
            self.stream = true;
            self.endpoint.streams.fetch_add(1, Ordering::Relaxed);
            self.release();
        }
    }

    /// Whether a body is on its way, so that no answer is waited for. Only bodies that are not at hand as a whole take long
    /// enough to matter, so that small requests pay nothing for it.
    pub fn set_transfer(&mut self, transfer: bool) {
        if self.transfer == transfer || self.stream {
            return;
        }
        self.transfer = transfer;
        let transfers = &self.endpoint.transfers;
        if transfer {
            transfers.fetch_add(1, Ordering::Relaxed);
        } else {
            transfers.fetch_sub(1, Ordering::Relaxed);
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
        self.set_transfer(false);
        if self.stream {
            self.endpoint.streams.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.release();
        }
    }
}
