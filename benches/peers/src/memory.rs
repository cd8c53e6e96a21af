//! Measures what a proxy costs before it does anything: start-up, the executable, memory idle and busy.

use crate::cost::plan;
use crate::figure::Measure;
use crate::load::{Load, Pace};
use crate::peer::{Peer, Upstream};
use crate::process::Cores;
use crate::request::Request;
use crate::row::{Effort, Row};
use crate::scene::wait;
use crate::taken::Taken;
use std::time::Duration;

/// Idle connections, where the limit of descriptors allows.
const IDLE: usize = 10_000;

/// Each has carried a request with a head of this size, as cookies and tokens make them, and its answer.
const HEAD: usize = 4096;

/// Requests a second in the meantime: so few that none of them waits, and buffers in use are few.
const RATE: f64 = 3000.0;

/// A proxy may give back what connections no longer need after this time.
const REST: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the time to the first answer.
///
/// # Errors
/// The peer does not start.
pub fn start(peer: &Peer, to: &Upstream, cores: &Cores) -> Result<Taken, String> {
    let running = peer.start(to, 1, cores)?;
    let mut taken = Taken::new(Row::Start, peer.kind);
    taken.add(Measure::Startup, running.startup.as_secs_f64() * 1e3);
    let size = std::fs::metadata(&peer.program.path).map_or(0, |file| file.len());
    taken.add(Measure::Size, mega(size));
    Ok(taken)
}

/// Measures memory.
///
/// # Errors
/// The peer does not start.
pub fn measure(peer: &Peer, to: &Upstream, effort: Effort, cores: &Cores) -> Result<Taken, String> {
    let mut taken = Taken::new(Row::Memory, peer.kind);
    let running = peer.start(to, 1, cores)?;
    let Some(process) = &running.process else { return Ok(taken) };
    std::thread::sleep(effort.warm);
    let idle = process.memory();
    taken.add(Measure::Idle, mega(idle));

    let connections = idle_connections();
    let ask = Request::get_with_head(&to.host, &to.path, to.answer(), HEAD);
    // In turn over all connections, so that each has carried one when as many were answered as there are.
    let load = Load::start(&plan(running.targets.clone(), connections, ask, Pace::Spread(RATE)), cores);
    load.record();
    if wait(PATIENCE, || load.answered() >= connections as u64) {
        load.pause();
        std::thread::sleep(REST);
        taken.add(Measure::PerConnection, process.memory().saturating_sub(idle) as f64 / connections as f64 / 1024.0);
        if connections < IDLE {
            taken.note(&format!("{connections} idle connections, the descriptor limit allows no more"));
        }
        taken.complain(&load.stop());
    } else {
        taken.note(&format!("only {} of {connections} connections carried a request", load.answered()));
        drop(load.stop());
    }
    drop(running);

    let running = peer.start(to, 1, cores)?;
    let request = Request::get(&to.host, &to.path, to.answer());
    let load = Load::start(&plan(running.targets.clone(), 1000, request, Pace::Closed), cores);
    wait(PATIENCE, || load.answered() > 0);
    load.record();
    std::thread::sleep(effort.warm + effort.time);
    taken.add(Measure::Busy, running.process.as_ref().map_or(f64::NAN, |process| mega(process.memory())));
    taken.complain(&load.stop());
    Ok(taken)
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Half the descriptors are ours, and the proxy opens some to its upstreams.
fn idle_connections() -> usize {
    let limit =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    IDLE.min((limit as usize).saturating_sub(200))
}
