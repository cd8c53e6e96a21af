//! One of two replicas is killed while both of them together have a thousand GETs in flight.

use super::SETTLE;
use crate::conduct::Conduct;
use crate::figure::Measure;
use crate::load::Pace;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::Row;
use crate::scene::{Scene, wait};
use crate::taken::Taken;
use std::time::Duration;

const REQUESTS: usize = 1000;

/// So long that all of them are in flight before the first has its answer.
const SERVICE: Duration = Duration::from_secs(3);

pub(super) fn measure(peer: &Peer, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let replicas = (0..2).map(|_| Conduct::steady(Duration::from_millis(1))).collect();
    let scene = Scene::start(peer, 1, replicas, None, seed, cores)?;
    // A proxy that has seen its replicas bear something.
    scene.watch(200.0, SETTLE);
    scene.origin.conduct.iter().for_each(|one| one.set_mean(SERVICE));
    let load = scene.numbered(Pace::Burst, REQUESTS);
    load.record();
    let mut taken = Taken::new(Row::Death, peer.kind);
    if !wait(SERVICE * 2 / 3, || scene.origin.in_flight() >= REQUESTS as u64) {
        taken.note(&format!("only {} of {REQUESTS} requests were in flight at the kill", scene.origin.in_flight()));
    }
    scene.origin.conduct[0].set_up(false);
    let record = load.finish();
    taken.add(Measure::Lost, record.lost());
    taken.add(Measure::P99, record.percentile(0.99));
    Ok(taken)
}
