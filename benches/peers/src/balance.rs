//! Measures how a proxy balances: replicas that serve for a while, one of which is slow, or fails, or recovers.
//!
//! Replicas with a few workers each, service times exponentially distributed around 5 ms, around 50 ms for the slow one.
//! The load is open: requests leave when they are due, and latency counts from then. It is a share of what the replicas
//! that are well can do, so that the same rate meets them with the slow one and without.

use crate::conduct::Conduct;
use crate::figure::{Measure, NEVER};
use crate::load::Pace;
use crate::origin::Origin;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::{Balance, Effort, FAILING_RATE, RECOVERY_RATE, Row, SLOW, WELL};
use crate::scene::Scene;
use crate::taken::Taken;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Before latencies are kept: weights have settled, connections are open.
const SETTLE: Duration = Duration::from_secs(2);

/// A 99.9th percentile needs thousands of requests: the measurement goes on until there are so many …
const ENOUGH: f64 = 5000.0;
/// … or for so long.
const LONGEST: Duration = Duration::from_secs(10);

/// Workers of a replica that fails or recovers.
const WORKERS: usize = 8;

/// Measures latencies.
///
/// # Errors
/// The peer or its replicas do not start.
pub fn measure(balance: Balance, peer: &Peer, effort: Effort, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let (well, slow) = balance.replicas();
    let replica = |mean| move |_| Conduct::slow(mean, balance.workers());
    let replicas = (0..well).map(replica(WELL)).chain((0..slow).map(replica(SLOW))).collect();
    let scene = Scene::start(peer, balance.proxies(), replicas, None, seed, cores)?;
    let load = scene.numbered(Pace::Pooled(balance.rate()), 0);
    std::thread::sleep(SETTLE);
    load.record();
    std::thread::sleep(Duration::from_secs_f64(ENOUGH / balance.rate()).clamp(effort.time, LONGEST.max(effort.time)));
    let record = load.stop();
    let mut taken = Taken::new(Row::Balance(balance), peer.kind);
    if balance == Balance::AlikeFewWorkers {
        taken.add(Measure::Mean, record.mean());
    }
    taken.add(Measure::P99, record.percentile(0.99));
    taken.add(Measure::P999, record.percentile(0.999));
    taken.complain(&record);
    Ok(taken)
}

/// Measures how many requests a replica gets that answers 500 at once, though its health check passes.
///
/// # Errors
/// The peer or its replicas do not start.
pub fn failing(peer: &Peer, effort: Effort, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let replicas = (0..3).map(|_| Conduct::slow(WELL, WORKERS)).collect();
    let scene = Scene::start(peer, 1, replicas, None, seed, cores)?;
    let load = scene.numbered(Pace::Pooled(FAILING_RATE), 0);
    std::thread::sleep(SETTLE);
    let before = scene.origin.served();
    load.record();
    scene.origin.conduct[0].fails.store(true, Ordering::Relaxed);
    std::thread::sleep(effort.time.max(Duration::from_secs(5)));
    let counts = difference(&before, &scene.origin.served());
    let record = load.stop();
    let mut taken = Taken::new(Row::Failing, peer.kind);
    taken.add(Measure::Share, 100.0 * counts[0] as f64 / counts.iter().sum::<u64>() as f64);
    taken.add(Measure::Failed, record.lost());
    Ok(taken)
}

/// Measures how long a slow replica that is well again waits for its share.
///
/// # Errors
/// The peer or its replicas do not start.
pub fn recovery(peer: &Peer, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let replicas = [WELL, WELL, SLOW].map(|mean| Conduct::slow(mean, WORKERS)).into();
    let scene = Scene::start(peer, 1, replicas, None, seed, cores)?;
    let load = scene.numbered(Pace::Pooled(RECOVERY_RATE), 0);
    std::thread::sleep(2 * SETTLE);
    scene.origin.conduct[2].set_mean(WELL);
    let mut taken = Taken::new(Row::Recovery, peer.kind);
    taken.add(Measure::Recovery, until_fair(&scene.origin, 2).as_secs_f64());
    drop(load);
    Ok(taken)
}

/// From now until this replica has had four fifths of its fair share for a second.
fn until_fair(origin: &Origin, replica: usize) -> Duration {
    const LOOK: Duration = Duration::from_millis(100);
    const LOOKS: usize = 10;
    let began = Instant::now();
    let mut looks = vec![origin.served()];
    while began.elapsed().as_secs_f64() < NEVER {
        std::thread::sleep(LOOK);
        looks.push(origin.served());
        if looks.len() > LOOKS {
            let counts = difference(&looks[looks.len() - 1 - LOOKS], &looks[looks.len() - 1]);
            let fair = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
            if counts[replica] as f64 >= 0.8 * fair {
                break;
            }
        }
    }
    began.elapsed()
}

fn difference(before: &[u64], after: &[u64]) -> Vec<u64> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}
