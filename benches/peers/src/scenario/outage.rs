//! Nothing listens for three seconds, and then the replicas come back one after another. The app has no limit of its
//! own, but what it rests on, say a database with a hundred connections, has: what comes beyond that is answered 424.

use super::SETTLE;
use crate::conduct::{Capacity, Conduct};
use crate::figure::Measure;
use crate::load::Pace;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::Row;
use crate::scene::Scene;
use crate::taken::Taken;
use std::time::Duration;

const RATE: f64 = 200.0;
const SERVICE: Duration = Duration::from_millis(20);

/// Requests that the app bears at once, in all its replicas.
const BEARS: u64 = 100;

const OUTAGE: Duration = Duration::from_secs(3);

/// From one replica's return to the next one's.
const BETWEEN: Duration = Duration::from_millis(500);

/// Long enough for a backlog to be gone.
const AFTER: Duration = Duration::from_secs(5);

pub(super) fn measure(peer: &Peer, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let capacity = Capacity::of(BEARS);
    let replica = |_| Conduct { capacity: Some(capacity.clone()), ..Conduct::slow(SERVICE, 0) };
    let scene = Scene::start(peer, 1, (0..3).map(replica).collect(), None, seed, cores)?;
    let load = scene.numbered(Pace::Pooled(RATE), 0);
    std::thread::sleep(2 * SETTLE);
    load.record();
    scene.origin.conduct.iter().for_each(|one| one.set_up(false));
    std::thread::sleep(OUTAGE);
    for one in &scene.origin.conduct {
        one.set_up(true);
        std::thread::sleep(BETWEEN);
    }
    std::thread::sleep(AFTER);
    let record = load.stop();
    let mut taken = Taken::new(Row::Outage, peer.kind);
    taken.add(Measure::Lost, record.lost());
    taken.add(Measure::P99, record.percentile(0.99));
    Ok(taken)
}
