//! The probe loop: asks an upstream's replicas for their health when the pool wants to know, and lets the pool's time pass.
//!
//! What a result means is decided in [`crate::pool`]; how a replica is asked is the [`Prober`]'s business.

mod http2;
mod prober;
#[cfg(test)]
mod tests;

pub use prober::Prober;

use crate::clock;
use crate::config;
use crate::discovery::TURN;
use crate::pool::{DueProbe, EndpointId, Health, ProbeResult};
use crate::upstream::Upstream;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use tracing::debug;

/// Probes of one upstream under way at once, of replicas of one health. All new replicas are due at the same moment, and each
/// takes a descriptor: so many prove 300 of them in five rounds.
const AT_ONCE: usize = 64;

/// The same of replicas that are up. Their probes are spread over the interval, so that only replicas that hang, all at once,
/// take many slots; more of these are what keeps the others' probes in time.
const UP_AT_ONCE: usize = 256;

/// Finds out whether a replica works.
pub trait Probe: Send + Sync + 'static {
    /// Asks once. Ends within the probe's time-out, and the connect within `connect_within` if that is less, unless the whole
    /// process was stopped.
    fn probe(
        &self,
        address: SocketAddr,
        how: &config::Probe,
        connect_within: Duration,
    ) -> impl Future<Output = ProbeResult> + Send;
}

/// A probe that has ended: of which endpoint, when it began, and how it ended.
type Ended = (EndpointId, SocketAddr, Instant, ProbeResult);

/// A probe of one endpoint.
struct UnderWay {
    task: AbortHandle,
    /// It has its slot, and the endpoint is being asked.
    begun: Arc<AtomicBool>,
}

/// Who may be probed now, apart by health: new replicas that swallow every connect, or dead ones, never delay the probes that
/// find out about those that serve.
struct Slots {
    up: Arc<Semaphore>,
    down: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
}

impl Slots {
    fn new() -> Self {
        let [up, down, unproven] = [UP_AT_ONCE, AT_ONCE, AT_ONCE].map(|number| Arc::new(Semaphore::new(number)));
        Slots { up, down, unproven }
    }

    fn of(&self, health: Health) -> &Arc<Semaphore> {
        match health {
            Health::Up => &self.up,
            Health::Down => &self.down,
            Health::Unproven => &self.unproven,
        }
    }
}

/// Probes `upstream`'s endpoints until it is closed, and calls its pool whenever that wants to be called.
pub async fn run(upstream: Arc<Upstream>, probe: Arc<impl Probe>) {
    let slots = Slots::new();
    // Ends with the loop, and the probes under way with it.
    let mut running: JoinSet<Ended> = JoinSet::new();
    let mut asked: HashMap<EndpointId, UnderWay> = HashMap::new();
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
        for DueProbe { id, address, health, connect_within } in due {
            if let Some(before) = asked.get(&id) {
                // Where replicas hang by the hundred a probe waits longer for its turn than the pool waits for its result.
                // One that has yet to begin tells all that a new one would.
                if !before.begun.load(Ordering::Relaxed) {
                    continue;
                }
                // The pool wants to know anew: what this one would say began too early to count.
                before.task.abort();
            }
            let (upstream, probe, slots) = (upstream.clone(), probe.clone(), slots.of(health).clone());
            let begun = Arc::new(AtomicBool::new(false));
            let begins = begun.clone();
            let task = running.spawn(async move {
                let _slot = slots.acquire().await;
                begins.store(true, Ordering::Relaxed);
                let began = clock::now();
                let result = probe.probe(address, &upstream.config().probe, connect_within).await;
                (id, address, began, result)
            });
            asked.insert(id, UnderWay { task, begun });
        }
    }
}
