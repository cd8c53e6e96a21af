//! Evenkeel: one network alias in front of all replicas of an app.
//!
//! # Vocabulary
//!
//! A [`Route`](config::Route) leads to an [`Upstream`](upstream::Upstream): a name in DNS. Each address that the name
//! resolves to is an [`Endpoint`](upstream::Endpoint). DNS makes it *active* or *draining*; probes and traffic make it
//! *unproven*, *up* or *down*; apart from that it may be *suspect* (its address may be another app's by now) or
//! *ejected* (it fails where the others answer). An operator may have it *drained*, or the
//! upstream *paused*. A request *in flight* is counted by a [`Lease`](upstream::Lease).
//!
//! # A request's way
//!
//! A worker accepts a connection ([`server`]) and serves it ([`proxy`]): the head is read and checked, the
//! [`route`] found, an endpoint picked from the upstream's snapshot, a kept connection taken or a new one dialled, the
//! request sent, the response passed on. How that went is told to the upstream's [`pool`], which may change its mind
//! about the endpoint and publish a new snapshot.
//!
//! # The map
//!
//! ```text
//! main.rs     arguments, logging
//! config/     file and environment → a Config that is valid because it exists
//! route.rs    pure: host and path → upstream
//! pool/       pure: decides who belongs to an upstream, who is healthy, who is picked, what is retried
//! upstream/   one upstream's live state: the pool behind a lock, the snapshot, the counts, the queue of who waits
//! discovery/  the DNS loop: asks when the pool wants to know
//! probe/      the probe loop: likewise for health
//! proxy/      the data path: connections of both protocols, exchange, attempts, bodies, tunnels
//! server/     the process: listeners, workers, signals, drain, reload
//! admin/      the operator's page and its history, /metrics, /status, /overview, /why, /ready; the operator's orders
//! command/    init, check, status, top, why, ready, drain, undrain, pause, resume, hold
//! failure.rs  failed requests: the log and the last fifty
//! namespace.rs  what this container shares with others
//! linux.rs    what other systems lack
//! exhaustion.rs  errors of this host's own, which say nothing about a replica
//! fuzz.rs     for tests and `fuzz/` only: what must hold of any bytes
//! clock.rs    the one place that reads the clock;  worker.rs  what belongs to one thread;  sync.rs  atomics and locks
//! ```
//!
//! # What holds everywhere
//!
//! - Nothing about DNS or probes is in a request's path: it reads one snapshot and counts in atomics.
//! - Time and randomness are arguments of everything in `pool/`.
//! - Every end of a request, be it an answer, an error or a cancelled task, is the drop of its lease.
//! - What was sent and may have been processed is not sent again unless HTTP says that it may be.
//! - Everything that comes from outside is bounded by a limit with a name.

pub mod admin;
pub mod clock;
pub mod command;
pub mod config;
pub mod discovery;
mod exhaustion;
pub mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod linux;
mod namespace;
pub mod pool;
pub mod probe;
pub mod proxy;
pub mod route;
pub mod server;
mod sync;
pub mod upstream;
pub mod worker;
