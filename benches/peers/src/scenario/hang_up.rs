//! A path whose handler hangs up, as one that panics does, called again and again: what do the requests for another
//! path notice, and are any of them run twice?

use super::SETTLE;
use crate::conduct::{Conduct, Ledger};
use crate::figure::Measure;
use crate::load::Pace;
use crate::origin::BOOM;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::{Effort, HangUp, Row};
use crate::scene::Scene;
use crate::taken::Taken;
use std::sync::Arc;
use std::time::Duration;

/// What the other path takes.
const SERVICE: Duration = Duration::from_millis(10);

/// At 25 requests a second a 99th percentile is that of a hundred.
const SHORTEST: Duration = Duration::from_secs(5);

/// Measures the same proxy without the broken path and then with it.
pub(super) fn measure(hang_up: HangUp, peer: &Peer, effort: Effort, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let ledger = Arc::new(Ledger::default());
    let replica = |_| Conduct { ledger: ledger.clone(), ..Conduct::steady(SERVICE) };
    let scene = Scene::start(peer, 1, (0..3).map(replica).collect(), None, seed, cores)?;
    let (rate, time) = (f64::from(hang_up.among), effort.time.max(SHORTEST));
    scene.watch(rate, SETTLE);
    let without = scene.watch(rate, time);
    let attack = scene.path(BOOM, Pace::Pooled(f64::from(hang_up.broken)));
    std::thread::sleep(SETTLE / 2);
    let with = scene.watch(rate, time);
    drop(attack);

    let mut taken = Taken::new(Row::HangUp(hang_up), peer.kind);
    taken.add(Measure::P50, with.percentile(0.5));
    taken.add(Measure::P99, with.percentile(0.99));
    taken.add(Measure::P50Ratio, with.percentile(0.5) / without.percentile(0.5));
    taken.add(Measure::P99Ratio, with.percentile(0.99) / without.percentile(0.99));
    taken.add(Measure::Lost, with.lost());
    taken.add(Measure::Repeated, ledger.repeated() as f64);
    if without.failed > 0 {
        taken.note(&format!("{} requests failed without the broken path", without.failed));
    }
    Ok(taken)
}
