//! Measures what a proxy costs: processor time, latency, memory, start-up.

use crate::load::{Load, Pace, Plan, Record, Request};
use crate::peer::{Peer, Running, Upstream};
use crate::process::Cores;
use crate::row::{Effort, Figure, Row};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections of the load where a row does not say otherwise.
const CONNECTIONS: usize = 64;

/// Requests a second where latency is measured over many connections: half of what the slowest peer can do on one core
/// of today, so that it is the way through that is measured and not a queue.
const LATENCY_RATE: f64 = 4000.0;

/// Idle connections, where the limit of descriptors allows.
const IDLE: usize = 10_000;

/// Connections are given this long to open.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one measurement gave.
#[derive(Debug, Default)]
pub struct Taken {
    /// The figures.
    pub values: Vec<(Figure, f64)>,
    /// What the reader must know about them.
    pub notes: Vec<String>,
}

/// Measures a row that needs a contender that runs.
pub fn measure(row: Row, running: &Running, to: &Upstream, effort: Effort, cores: &Cores) -> Taken {
    let request = match row {
        Row::Get1K => Request::get(&to.host, "/bytes/1024", Some(1024)),
        Row::Get64K => Request::get(&to.host, "/bytes/65536", Some(65536)),
        Row::Post4K => Request::post(&to.host, "/", 4096, Some(0)),
        Row::New => Request::get_once(&to.host, &to.path, to.answer()),
        _ => Request::get(&to.host, &to.path, to.answer()),
    };
    let (connections, pace) = match row {
        Row::Latency(1) => (1, Pace::Closed),
        Row::Latency(connections) => (connections, Pace::Spread(LATENCY_RATE)),
        _ => (CONNECTIONS, Pace::Closed),
    };
    let run = run(running, &plan(running.targets.clone(), connections, request, pace), effort, cores);
    let mut taken = Taken::default();
    taken.notes.extend(complaint(row, running, &run.record));
    for figure in row.figures() {
        let value = match figure {
            Figure::Cpu(_) => run.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / run.answered),
            Figure::Rate(_) => Some(run.answered / run.elapsed.as_secs_f64()),
            Figure::Latency(share, _) => Some(run.record.percentile(f64::from(share) / 100.0)),
            _ => None,
        };
        taken.values.extend(value.filter(|value| value.is_finite()).map(|value| (figure, value)));
    }
    taken
}

/// Measures a row that needs a fresh process.
///
/// # Errors
/// The peer does not start.
pub fn measure_fresh(row: Row, peer: &Peer, to: &Upstream, effort: Effort, cores: &Cores) -> Result<Taken, String> {
    let mut taken = Taken::default();
    let running = peer.start(to, 1, cores)?;
    let Some(process) = &running.process else { return Ok(taken) };
    let mega = |bytes: u64| bytes as f64 / 1e6;
    if row == Row::Start {
        taken.values.push((Figure::Start, running.startup.as_secs_f64() * 1e3));
        let size = std::fs::metadata(&peer.program).map_or(0, |file| file.len());
        taken.values.push((Figure::Size, mega(size)));
        return Ok(taken);
    }
    std::thread::sleep(effort.warm);
    let idle = process.memory();
    taken.values.push((Figure::Idle, mega(idle)));

    let targets = running.targets.clone();
    // A rate far below what is measured elsewhere: every connection has carried a request before it idles.
    let ask = Request::get(&to.host, &to.path, to.answer());
    let load = Load::start(&plan(targets, idle_connections(), ask, Pace::Spread(1.0)), cores);
    let opened = wait(|| load.connected() >= idle_connections() as u64);
    std::thread::sleep(effort.warm);
    if opened {
        let each = process.memory().saturating_sub(idle) as f64 / idle_connections() as f64 / 1024.0;
        taken.values.push((Figure::PerConnection, each));
        if idle_connections() < IDLE {
            let kind = running.kind.name();
            taken
                .notes
                .push(format!("{kind}: {} idle connections, the descriptor limit allows no more", idle_connections()));
        }
    } else {
        taken.notes.push(format!(
            "{}: only {} of {IDLE} idle connections could be opened",
            running.kind.name(),
            load.connected()
        ));
    }
    drop(load.stop());
    drop(running);

    let running = peer.start(to, 1, cores)?;
    let request = Request::get(&to.host, &to.path, to.answer());
    let load = Load::start(&plan(running.targets.clone(), 1000, request, Pace::Closed), cores);
    wait(|| load.answered() > 0);
    load.record();
    std::thread::sleep(effort.warm + effort.time);
    taken.values.extend(running.process.as_ref().map(|process| (Figure::Busy, mega(process.memory()))));
    taken.notes.extend(complaint(row, &running, &load.stop()));
    Ok(taken)
}

struct Run {
    /// Processor time of the proxy, where there is one.
    cpu: Option<Duration>,
    answered: f64,
    elapsed: Duration,
    record: Record,
}

fn run(running: &Running, plan: &Plan, effort: Effort, cores: &Cores) -> Run {
    let load = Load::start(plan, cores);
    wait(|| load.answered() > 0);
    std::thread::sleep(effort.warm);
    let look = || (running.process.as_ref().map(|process| process.cpu()), load.answered(), Instant::now());
    load.record();
    let before = look();
    std::thread::sleep(effort.time);
    let after = look();
    let cpu = after.0.zip(before.0).map(|(after, before)| after - before);
    Run { cpu, answered: (after.1 - before.1) as f64, elapsed: after.2 - before.2, record: load.stop() }
}

fn plan(targets: Vec<SocketAddr>, connections: usize, request: Request, pace: Pace) -> Plan {
    Plan { targets, connections, request, pace, seed: 1 }
}

/// Half the descriptors are ours, and the proxy opens some to its upstreams.
fn idle_connections() -> usize {
    let limit =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    IDLE.min((limit as usize).saturating_sub(200))
}

fn wait(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// More than one failure in a thousand requests is told with the figures.
fn complaint(row: Row, running: &Running, record: &Record) -> Option<String> {
    let all = record.answered.len() as u64 + record.failed;
    (record.failed * 1000 > all || all == 0).then(|| {
        let reason = record.reason.as_deref().unwrap_or("nothing was answered");
        format!("{}, {}: {} of {all} requests failed ({reason})", running.kind.name(), row.key(), record.failed)
    })
}
