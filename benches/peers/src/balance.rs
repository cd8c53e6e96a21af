//! Measures how a proxy balances: replicas that serve for a while, one of which is slow, or fails, or recovers.
//!
//! Three replicas with eight workers each, service times exponentially distributed around 5 ms, around 50 ms for the slow
//! one. The load is open: requests leave when they are due, and latency counts from then. It is a share of what the fast
//! replicas can do, so that the same rate meets them with the slow one and without.

use crate::cost::Taken;
use crate::dns::Dns;
use crate::load::{Load, Pace, Plan, Request};
use crate::origin::{Conduct, Origin};
use crate::peer::{Peer, Running, Upstream};
use crate::process::Cores;
use crate::row::{Effort, Figure, Row};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Mean service time of a replica that is well, and of a slow one.
const WELL: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(50);

/// Requests served at once by one replica.
const WORKERS: usize = 8;

/// Before latencies are kept: weights have settled, connections are open.
const SETTLE: Duration = Duration::from_secs(3);

/// A 99th percentile of a few hundred requests is chance: no measurement is shorter.
const SHORTEST: Duration = Duration::from_secs(4);

/// Requests a second while a slow replica recovers: the fewest for which a time is promised.
const RECOVERY_RATE: f64 = 100.0;

/// A recovered replica is given up on after this time.
const NEVER: Duration = Duration::from_secs(60);

/// What a scenario is made of.
struct Stage {
    replicas: Vec<Conduct>,
    proxies: usize,
    rate: f64,
}

impl Stage {
    fn of(row: Row) -> Stage {
        let well = || Conduct::slow(WELL, WORKERS);
        let slow = || Conduct::slow(SLOW, WORKERS);
        // What two replicas that are well can do, at most.
        let full = 2.0 * WORKERS as f64 / WELL.as_secs_f64();
        let stage = |replicas, proxies, load: u8| Stage { replicas, proxies, rate: full * f64::from(load) / 100.0 };
        match row {
            Row::Slow(load) => stage(vec![well(), well(), slow()], 1, load),
            Row::Without(load) => stage(vec![well(), well()], 1, load),
            Row::Four => stage(vec![well(), well(), slow()], 4, 50),
            Row::Alike(load) => {
                Stage { rate: full * 1.5 * f64::from(load) / 100.0, ..stage(vec![well(), well(), well()], 1, load) }
            }
            Row::Failing => stage(vec![well(), well(), well()], 1, 25),
            Row::Recovery => Stage { replicas: vec![well(), well(), slow()], proxies: 1, rate: RECOVERY_RATE },
            _ => unreachable!("a row of costs"),
        }
    }
}

/// Measures one of the rows about balancing, before replicas of its own.
///
/// # Errors
/// The peer or its replicas do not start.
pub fn measure(row: Row, peer: &Peer, effort: Effort, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let stage = Stage::of(row);
    let fail = |error: std::io::Error| format!("the replicas cannot be started: {error}");
    let origin = Origin::start(stage.replicas, cores, seed).map_err(fail)?;
    let dns = Dns::start(&origin.addresses, seed).map_err(fail)?;
    let to = Upstream {
        addresses: origin.addresses.clone(),
        dns: dns.address,
        host: "app.internal".into(),
        path: "/".into(),
        ours: true,
    };
    let running = (0..stage.proxies).map(|_| peer.start(&to, 1, cores)).collect::<Result<Vec<Running>, _>>()?;
    let plan = Plan {
        targets: running.iter().flat_map(|one| one.targets.clone()).collect(),
        connections: 0,
        request: Request::get(&to.host, &to.path, to.answer()),
        pace: Pace::Pooled(stage.rate),
        seed,
    };
    let load = Load::start(&plan, cores);
    std::thread::sleep(SETTLE);
    let mut taken = Taken::default();
    match row {
        Row::Recovery => {
            let time = recovery(&origin);
            taken.values.push((Figure::Recovery, time.as_secs_f64()));
        }
        Row::Failing => {
            origin.conduct[0].fails.store(true, Ordering::Relaxed);
            // Seen to fail, at most a few dozen times.
            std::thread::sleep(Duration::from_secs(1));
            let before = served(&origin);
            std::thread::sleep(effort.time.max(SHORTEST));
            let counts: Vec<u64> = served(&origin).iter().zip(before).map(|(after, before)| after - before).collect();
            taken.values.push((Figure::Failing, 100.0 * counts[0] as f64 / counts.iter().sum::<u64>() as f64));
        }
        _ => {
            load.record();
            std::thread::sleep(effort.time.max(SHORTEST));
            let record = load.stop();
            taken.values.push((Figure::Balance(row), record.percentile(0.99)));
            let all = record.answered.len() as u64 + record.failed;
            if record.failed > 0 {
                let reason = record.reason.unwrap_or_default();
                taken.notes.push(format!(
                    "{}, {}: {} of {all} failed ({reason})",
                    peer.kind.name(),
                    row.key(),
                    record.failed
                ));
            }
        }
    }
    Ok(taken)
}

fn served(origin: &Origin) -> Vec<u64> {
    origin.conduct.iter().map(|one| one.served.load(Ordering::Relaxed)).collect()
}

/// From the moment at which the slow replica is well until it has had four fifths of its fair share for a second.
fn recovery(origin: &Origin) -> Duration {
    const LOOK: Duration = Duration::from_millis(100);
    origin.conduct[2].set_mean(WELL);
    let began = Instant::now();
    let mut looks = vec![served(origin)];
    while began.elapsed() < NEVER {
        std::thread::sleep(LOOK);
        looks.push(served(origin));
        if looks.len() > 10 {
            let (then, now) = (&looks[looks.len() - 11], &looks[looks.len() - 1]);
            let counts: Vec<u64> = now.iter().zip(then).map(|(now, then)| now - then).collect();
            let fair = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
            if counts[2] as f64 >= 0.8 * fair {
                break;
            }
        }
    }
    began.elapsed()
}
