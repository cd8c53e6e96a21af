//! The DNS loop: asks for an upstream's addresses when its pool wants to know, and hands it the answer.
//!
//! One loop per upstream, so a name whose server is silent delays no other name. What an answer means is decided in
//! [`crate::pool`]; nothing here is ever in a request's path. How a question is asked is the [`Resolver`]'s business.

pub mod names;
mod own;
mod resolver;
mod runtime;
#[cfg(test)]
pub(crate) mod tests;

pub use own::Own;
pub(crate) use own::interfaces;
pub use resolver::Resolver;

use crate::clock;
use crate::config::Host;
use crate::pool::Resolution;
use crate::upstream::Upstream;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep_until;
use tracing::debug;

/// The shortest time between two turns of a loop. A pool that wants something at once, always, costs a thousand turns a
/// second then, not a core.
pub(crate) const TURN: Duration = Duration::from_millis(1);

/// Finds the addresses of a host.
pub trait Resolve: Send + Sync + 'static {
    /// Asks once. Ends within the time-out of the configuration, whatever the server does.
    fn resolve(&self, host: &Host) -> impl Future<Output = Resolution> + Send;
}

/// Asks for `upstream`'s addresses until it is closed: when its timer says so, and as soon as something went wrong.
/// There is never more than one question of an upstream under way.
pub async fn run(upstream: Arc<Upstream>, resolver: Arc<impl Resolve>, own: Arc<Own>) {
    let mut earliest = clock::now();
    loop {
        // Made before the pool is asked, so that a call in between is not missed.
        let woken = upstream.woken();
        if upstream.is_closed() {
            return;
        }
        let due = upstream.apply(|pool, _| pool.next_question());
        tokio::select! {
            () = sleep_until(due.max(earliest).into()) => {}
            () = woken => continue,
        }
        let asked = upstream.apply(|pool, now| {
            pool.asked(now);
            now
        });
        let config = upstream.config();
        let resolution = resolver.resolve(&config.host).await;
        debug!(upstream = &*config.name, ?resolution, "DNS answered");
        upstream.apply(|pool, now| pool.resolved(&resolution, &own.addresses(config.port), asked, now));
        upstream.metrics().dns.add(resolution, asked, clock::now());
        earliest = clock::now() + TURN;
    }
}
