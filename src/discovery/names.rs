//! Asks what the replicas' containers are called: Docker's DNS answers PTR with a container's name and its network's.

use super::Resolver;
use crate::clock;
use crate::config::Host;
use crate::upstream::Upstream;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::debug;

/// How often it is looked whether somebody has to be asked about.
const LOOK: Duration = Duration::from_millis(500);

/// Asks about `upstream`'s replicas until it is closed, one after the other. Nothing waits for it.
pub async fn run(upstream: Arc<Upstream>, resolver: Arc<Resolver>) {
    while !upstream.is_closed() {
        sleep(LOOK).await;
        // Who configures an address knows what is there.
        if matches!(upstream.config().host, Host::Address(_)) {
            continue;
        }
        let present: Vec<_> = upstream.apply(|pool, now| {
            pool.endpoints(now).iter().map(|endpoint| (endpoint.id, endpoint.address.ip())).collect()
        });
        for (id, address) in upstream.names().due(&present, clock::now()) {
            let name = resolver.name_of(address).await;
            debug!(upstream = &**upstream.name(), %address, name, "DNS was asked for a container's name");
            upstream.names().answered(id, name, clock::now());
        }
    }
}
