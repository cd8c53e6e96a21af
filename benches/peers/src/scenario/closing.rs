//! Replicas that close connections: in mid-response, as a worker that dies does, or after each answer without having
//! said so, as `uwsgi --http-socket` does, or a little later, when the next request may already be under way.
//!
//! The load is closed, of four callers: what a proxy makes slow becomes a lower rate, too.

use super::SETTLE;
use crate::conduct::{Conduct, Then};
use crate::figure::Measure;
use crate::load::Pace;
use crate::origin::BREAK;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::{Closing, Effort, Row};
use crate::scene::Scene;
use crate::taken::Taken;
use std::time::{Duration, Instant};

const CALLERS: usize = 4;
const SERVICE: Duration = Duration::from_millis(5);

/// The longest time between an answer and the end of its connection.
const LATE: Duration = Duration::from_millis(10);

const SHORTEST: Duration = Duration::from_secs(4);

pub(super) fn measure(
    closing: Closing,
    peer: &Peer,
    effort: Effort,
    seed: u64,
    cores: &Cores,
) -> Result<Taken, String> {
    let (replicas, then, broken) = match closing {
        Closing::OneBreaks => (1, Then::Stays, 4.0),
        Closing::ThreeBreak => (3, Then::Stays, 10.0),
        Closing::Unannounced => (3, Then::Closes, 0.0),
        Closing::Late => (3, Then::ClosesWithin(LATE), 0.0),
    };
    let replica = |_| Conduct { then, ..Conduct::steady(SERVICE) };
    let scene = Scene::start(peer, 1, (0..replicas).map(replica).collect(), None, seed, cores)?;
    let attack = (broken > 0.0).then(|| scene.path(BREAK, Pace::Pooled(broken)));
    let load = scene.numbered(Pace::Closed, CALLERS);
    std::thread::sleep(SETTLE);
    load.record();
    let (began, before) = (Instant::now(), load.answered());
    std::thread::sleep(effort.time.max(SHORTEST));
    let (time, answered) = (began.elapsed(), load.answered() - before);
    let record = load.stop();
    drop(attack);

    let mut taken = Taken::new(Row::Closing(closing), peer.kind);
    taken.add(Measure::Rate, answered as f64 / time.as_secs_f64());
    taken.add(Measure::P90, record.percentile(0.9));
    taken.add(Measure::Lost, record.lost());
    Ok(taken)
}
