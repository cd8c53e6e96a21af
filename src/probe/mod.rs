//! The probe loop: asks an upstream's replicas for their health when the pool wants to know, and lets the pool's time pass.
//!
//! What a result means is decided in [`crate::pool`]; how a replica is asked is the [`Prober`]'s business.

mod prober;
#[cfg(test)]
mod tests;

pub use prober::Prober;

use crate::clock;
use crate::config;
use crate::discovery::TURN;
use crate::pool::{EndpointId, ProbeResult};
use crate::upstream::Upstream;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use tracing::{debug, error};

/// Probes of one upstream under way at once. All new replicas are due at the same moment, and each takes a descriptor: so
/// many prove 300 of them in five rounds.
const AT_ONCE: usize = 64;

/// Finds out whether a replica works.
pub trait Probe: Send + Sync + 'static {
    /// Asks once. Ends within the probe's time-out, unless the whole process was stopped.
    fn probe(&self, address: SocketAddr, how: &config::Probe) -> impl Future<Output = ProbeResult> + Send;
}

/// A probe that has ended: of which endpoint, when it began, and how it ended.
type Ended = (EndpointId, SocketAddr, Instant, ProbeResult);

/// A probe of one endpoint.
struct UnderWay {
    task: AbortHandle,
    /// It has its slot, and the endpoint is being asked.
    begun: Arc<AtomicBool>,
}

/// Probes `upstream`'s endpoints until it is closed, and calls its pool whenever that wants to be called.
pub async fn run(upstream: Arc<Upstream>, probe: Arc<impl Probe>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    // Ends with the loop, and the probes under way with it.
    let mut running: JoinSet<Ended> = JoinSet::new();
    let mut asked: HashMap<EndpointId, UnderWay> = HashMap::new();
    let mut rings = HashSet::new();
    let mut earliest = clock::now();
    loop {
        // Made before the pool is asked, so that a call in between is not missed.
        let woken = upstream.woken();
        if upstream.is_closed() {
            return;
        }
        let due = upstream.apply(|pool, _| pool.next_wake());
        tokio::select! {
            () = sleep_until(due.max(earliest).into()) => {}
            () = woken => continue,
            Some(ended) = running.join_next() => {
                // One that panicked says nothing about its replica; the pool asks again.
                if let Ok((id, address, began, result)) = ended {
                    debug!(upstream = &**upstream.name(), endpoint = %address, ?result, "probed");
                    if !result.is_ring() {
                        rings.remove(&address);
                    } else if rings.insert(address) {
                        error!(
                            upstream = &**upstream.name(),
                            endpoint = %address,
                            "a ring: this address is an Evenkeel, not a replica; check the upstream's address and who else \
                             has that network alias"
                        );
                    }
                    upstream.apply(|pool, now| pool.probed(id, &result, began, now));
                }
                continue;
            }
        }
        earliest = clock::now() + TURN;
        let due = upstream.apply(|pool, now| {
            pool.tick(|id| upstream.in_flight(id), now);
            pool.due_probes(now)
        });
        asked.retain(|_, probe| !probe.task.is_finished());
        for (id, address) in due {
            if let Some(before) = asked.get(&id) {
                // Where replicas hang by the hundred a probe waits longer for its turn than the pool waits for its result.
                // One that has yet to begin tells all that a new one would.
                if !before.begun.load(Ordering::Relaxed) {
                    continue;
                }
                // The pool wants to know anew: what this one would say began too early to count.
                before.task.abort();
            }
            let (upstream, probe, slots) = (upstream.clone(), probe.clone(), slots.clone());
            let begun = Arc::new(AtomicBool::new(false));
            let begins = begun.clone();
            let task = running.spawn(async move {
                let _slot = slots.acquire().await;
                begins.store(true, Ordering::Relaxed);
                let began = clock::now();
                let result = probe.probe(address, &upstream.config().probe).await;
                (id, address, began, result)
            });
            asked.insert(id, UnderWay { task, begun });
        }
    }
}
