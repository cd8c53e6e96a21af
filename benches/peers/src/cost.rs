//! Measures what a proxy costs while it runs: processor time and added latency.

use crate::figure::Measure;
use crate::load::{Load, Pace, Plan};
use crate::peer::{Running, Upstream};
use crate::process::Cores;
use crate::record::Record;
use crate::request::Request;
use crate::row::{Effort, Row};
use crate::scene::wait;
use crate::taken::Taken;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections of the load where a row does not say otherwise.
const CONNECTIONS: usize = 64;

/// Requests a second where latency is measured over many connections: half of what the slowest peer can do on one core
/// of today, so that it is the way through that is measured and not a queue.
const LATENCY_RATE: f64 = 4000.0;

/// Connections are given this long to open, and a first request to be answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures a row for a contender that runs, with as many threads.
pub fn measure(row: Row, running: &Running, to: &Upstream, effort: Effort, threads: usize, cores: &Cores) -> Taken {
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
    let mut taken = Taken::new(row, running.kind);
    taken.complain(&run.record);
    for figure in row.figures() {
        let value = match figure.measure {
            Measure::Cpu => run.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / run.answered),
            Measure::Rate => Some(run.answered / run.elapsed.as_secs_f64()),
            Measure::Utilisation => {
                run.cpu.map(|cpu| 100.0 * cpu.as_secs_f64() / (run.elapsed.as_secs_f64() * threads as f64))
            }
            Measure::P50 => Some(run.record.percentile(0.5)),
            Measure::P99 => Some(run.record.percentile(0.99)),
            Measure::P999 => Some(run.record.percentile(0.999)),
            _ => None,
        };
        taken.add(figure.measure, value.unwrap_or(f64::NAN));
    }
    taken
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
    wait(PATIENCE, || load.answered() > 0);
    std::thread::sleep(effort.warm);
    let look = || (running.process.as_ref().map(|process| process.cpu()), load.answered(), Instant::now());
    load.record();
    let before = look();
    std::thread::sleep(effort.time);
    let after = look();
    let cpu = after.0.zip(before.0).map(|(after, before)| after - before);
    Run { cpu, answered: (after.1 - before.1) as f64, elapsed: after.2 - before.2, record: load.stop() }
}

/// A load that always sends the same.
pub fn plan(targets: Vec<SocketAddr>, connections: usize, request: Request, pace: Pace) -> Plan {
    Plan { targets, connections, request, pace, seed: 1, first: 0 }
}
