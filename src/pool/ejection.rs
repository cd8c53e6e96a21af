//! When a replica that answers is left out all the same: because it answers errors where the others do not.
//!
//! A replica that fails at once is always idle, so least connections alone would send it everything. But a 5xx is an
//! answer of the app, and when all replicas give it (their database is gone) nothing is gained by leaving any out. So it
//! is judged by the pool: mostly errors here, hardly any elsewhere. That works from two replicas on. And it is judged by more
//! than one caller (`callers`), where there are several.
//!
//! Deliberately not here: the comparison with the others and the cap at half of the pool, which need all endpoints
//! (`Pool::judge`).

use super::callers::Callers;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Answers before a replica is judged.
const EVIDENCE: u32 = 20;
/// Answers of the others before they are a measure. Fewer than [`EVIDENCE`], because a replica that fails at once leaves
/// the others little: waiting for twenty would double the errors until it is out.
const COMPARISON: u32 = 10;
/// The shortest and the longest time out.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Ejected again within this time after it was readmitted (or by its trial), it stays out twice as long as before.
const MEMORY: Duration = Duration::from_secs(60);

/// The last answers of one endpoint: one bit each, set for an error.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    bits: u32,
    length: u32,
}

impl History {
    pub(super) fn push(&mut self, error: bool) {
        self.bits = self.bits << 1 | u32::from(error);
        self.length = (self.length + 1).min(u32::BITS);
    }

    pub(super) fn errors(&self) -> u32 {
        self.bits.count_ones()
    }

    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// Half of them errors or more.
    pub(super) fn bad(&self) -> bool {
        self.length > 0 && 2 * self.errors() >= self.length
    }

    /// Bad, on enough evidence.
    pub(super) fn condemned(&self) -> bool {
        self.length >= EVIDENCE && self.bad()
    }
}

/// Whether the others show that errors need not be: a tenth or less on enough evidence.
pub(super) fn fine<'a>(others: impl Iterator<Item = &'a History>) -> bool {
    let (errors, length) = others.fold((0, 0), |(errors, length), h| (errors + h.errors(), length + h.length));
    length >= COMPARISON && 10 * errors <= length
}

/// Whether an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// No requests until then.
    Until(Instant),
    /// One request at a time, whose answer decides.
    Trial,
}

/// One endpoint's record of answers and what came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ejection {
    pub(super) history: History,
    pub(super) callers: Callers,
    pub(super) out: Option<Out>,
    /// The last time out, and when it was over.
    last: Option<(Duration, Instant)>,
}

impl Ejection {
    pub(super) fn push(&mut self, caller: IpAddr, error: bool, now: Instant) {
        self.history.push(error);
        self.callers.push(caller, error, now);
    }

    /// Leaves it out, and says for how long.
    pub(super) fn eject(&mut self, now: Instant) -> Duration {
        let time = match self.last {
            Some((time, over)) if self.out.is_some() || now.saturating_duration_since(over) < MEMORY => {
                (time * 2).min(LONGEST)
            }
            _ => SHORTEST,
        };
        self.out = Some(Out::Until(now + time));
        self.last = Some((time, now + time));
        self.history = History::default();
        self.callers.clear();
        time
    }

    /// Takes it back.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.out = None;
        self.last = self.last.map(|(time, _)| (time, now));
        self.history = History::default();
        self.callers.clear();
    }

    /// Until when it gets nothing, if so.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        match self.out {
            Some(Out::Until(end)) if now < end => Some(end),
            _ => None,
        }
    }

    /// Its time is over and a trial decides.
    pub(super) fn on_trial(&self, now: Instant) -> bool {
        self.out.is_some() && self.until(now).is_none()
    }
}
