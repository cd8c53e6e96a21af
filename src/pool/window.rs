//! How many requests a replica may have in flight while it is not known what it bears: slow start and the release of a
//! backlog, by proof and not by a timer.
//!
//! A replica that just came up (or back) may be compiling, filling its caches or opening its database connections, and
//! what stands behind it (one database for all replicas) may bear little more than it bore before. So it starts with a
//! window, which works as congestion control does in TCP (RFC 5681):
//!
//! - *Start.* One request where other replicas are warm: they take the rest. Where the whole pool is cold, as many as each
//!   replica of the pool certainly bore before ([`Borne`]), or [`ORDINARY`] if nothing is known.
//! - *Slow start*, up to what was borne and at least [`ORDINARY`]: one more with each answer, so twice as many each round
//!   trip.
//! - *Avoidance*, beyond that: a sixteenth more with each window of answers and [`STEP`], and nothing while answers get
//!   slower. An answer that speaks of overload takes a quarter away, once in each window.
//! - *Stuck.* A full window without any answer doubles on a timer, as its requests may just be long.
//!
//! The window ends once requests no longer fill it. It holds back a backlog, and nothing else: where it is full and no
//! request waits, the next one is sent all the same (`upstream/`), because that load would have come without a proxy, too.
//!
//! Deliberately not here: `max_in_flight`, which always holds.

use std::time::{Duration, Instant};

/// What an ordinary replica bears. Application servers run this many requests at once or queue the rest (gunicorn and Puma
/// 1 to 5 threads a worker, HikariCP 10 connections, SQLAlchemy 15, Node and Go any number), and six replicas with so
/// many stay below the 100 connections that PostgreSQL accepts by default.
const ORDINARY: u32 = 16;

/// A cold pool starts with this many at least, however little it had to do before: what TCP begins with (RFC 3390), and two
/// round trips from [`ORDINARY`].
const FEW: u32 = 4;

/// Answers in a row whose requests did not fill the window: it is none any more. As many as the balancer needs to know a
/// replica's speed ([`super::balancer::KNOWN`]): from then on its own count and weight guard it better than a limit.
const ROOMY: u32 = 8;

/// A window this wide is none: it is the default of `max_waiting`, so that no backlog can fill it.
const WIDE: u32 = 16_384;

/// A full window of a replica among warm ones doubles this often without an answer. A replica that hangs gains by it no
/// more than four or eight requests until two probes declare it down.
pub(super) const STUCK: Duration = Duration::from_millis(500);

/// The same where the whole pool is cold and requests wait for nobody else. Ten times a quick answer; from [`ORDINARY`] on, a
/// backlog of 500 requests that take minutes is released within a second.
pub(super) const STUCK_ALONE: Duration = Duration::from_millis(200);

/// Between two steps beyond what was borne, at least: a sixteenth each tenth of a second doubles a window in 1.6 s, which
/// is in time for requests that wait for 5 s, and slow enough for a database to show what it does not bear.
const STEP: Duration = Duration::from_millis(100);
const STEP_SHARE: u32 = 16;

/// Answers of a window that take so much longer on average than those of the quickest window show a queue: the margin by
/// which the balancer, too, calls a replica slow.
const SLOWER: f64 = 1.5;

/// How busy a replica was while a request ran there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests in flight as it was sent, itself included.
    pub in_flight: u32,
    /// Requests in flight as it was answered, itself included.
    pub at_end: u32,
    /// How many there could have been when it was sent.
    pub limit: u32,
}

impl Load {
    /// It was one of as many as there could be. The first ones of a backlog meet an empty replica, so it is the end that
    /// tells for them.
    fn is_full(&self) -> bool {
        self.in_flight.max(self.at_end) >= self.limit
    }
}

/// One answer, as far as a window cares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) first_byte: Duration,
    pub(super) load: Load,
}

impl Answer {
    /// It says that the replica, or what stands behind it, has too much to do or cannot do it: 5xx, 429 (too many
    /// requests), 424 (failed dependency).
    pub(super) fn is_strained(&self) -> bool {
        self.status >= 500 || matches!(self.status, 424 | 429)
    }
}

/// The limit of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// `None` once warm.
    limit: Option<u32>,
    /// Strained answers take it no lower than this.
    floor: u32,
    /// Up to here it grows with each answer.
    borne: u32,
    patience: Duration,
    grown: Instant,
    answered: Instant,
    round: Round,
    /// The average time of the quickest round, in seconds.
    quickest: f64,
    /// Answers in a row whose requests left room.
    roomy: u32,
    /// Strained answers in a row.
    strained: u32,
}

/// A window of answers.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    answers: u32,
    strained: bool,
    seconds: f64,
}

impl Window {
    /// For a replica beside warm ones: one request at first.
    pub(super) fn careful(borne: &Borne, now: Instant) -> Self {
        Window::new(1, STUCK, borne, now)
    }

    /// For a replica of a pool that is cold as a whole, which has a backlog perhaps.
    pub(super) fn opening(borne: &Borne, now: Instant) -> Self {
        Window::new(borne.level(now).map_or(ORDINARY, |level| level.clamp(FEW, WIDE - 1)), STUCK_ALONE, borne, now)
    }

    fn new(limit: u32, patience: Duration, borne: &Borne, now: Instant) -> Self {
        Window {
            limit: Some(limit),
            floor: limit,
            borne: borne.level(now).unwrap_or(0).max(ORDINARY),
            patience,
            grown: now,
            answered: now,
            round: Round::default(),
            quickest: f64::INFINITY,
            roomy: 0,
            strained: 0,
        }
    }

    /// Requests in flight at most; `None` when warm.
    pub(super) fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// An answer came. True if the limit changed.
    pub(super) fn answered(&mut self, answer: &Answer, now: Instant) -> bool {
        let Some(limit) = self.limit else { return false };
        self.answered = now;
        self.round.answers += 1;
        self.round.seconds += answer.first_byte.as_secs_f64();
        self.roomy = if answer.load.is_full() { 0 } else { self.roomy + 1 };
        let next = if self.roomy >= ROOMY {
            None
        } else if answer.is_strained() && self.strained < limit {
            self.strained += 1;
            Some(self.yield_to_strain(limit))
        } else {
            // A pool that answers 500 to everything must not be throttled on top: more strained answers in a row than
            // requests at once are no matter of how many they are.
            if !answer.is_strained() {
                self.strained = 0;
            }
            Some(self.grow(limit, now))
        };
        self.set(next, now);
        self.limit != Some(limit)
    }

    /// When [`Window::relieve`] is due, if ever.
    pub(super) fn due(&self) -> Option<Instant> {
        self.limit.map(|_| self.grown.max(self.answered) + self.patience)
    }

    /// Doubles a window that was full for its patience without an answer. True if the limit changed.
    pub(super) fn relieve(&mut self, in_flight: u32, now: Instant) -> bool {
        let Some(limit) = self.limit else { return false };
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        self.grown = now;
        let full = in_flight >= limit;
        if full {
            self.set(Some(limit * 2), now);
        }
        full
    }

    fn set(&mut self, limit: Option<u32>, now: Instant) {
        let limit = limit.filter(|limit| *limit < WIDE);
        if limit > self.limit {
            self.grown = now;
        }
        self.limit = limit;
    }

    fn grow(&mut self, limit: u32, now: Instant) -> u32 {
        if limit < self.borne {
            return limit + 1;
        }
        if self.round.answers < limit || now.saturating_duration_since(self.grown) < STEP {
            return limit;
        }
        let Round { answers, strained, seconds } = std::mem::take(&mut self.round);
        let average = seconds / f64::from(answers);
        self.quickest = self.quickest.min(average);
        let strained = strained && self.strained < limit;
        if strained || average > SLOWER * self.quickest { limit } else { limit + (limit / STEP_SHARE).max(1) }
    }

    fn yield_to_strain(&mut self, limit: u32) -> u32 {
        let lower = if self.round.strained { limit } else { (limit - limit / 4).max(self.floor).min(limit) };
        // The round lasts as long as requests are answered that were sent before.
        if self.round.answers >= limit || lower < limit {
            self.round = Round::default();
        }
        self.round.strained = true;
        lower
    }
}

/// What each replica of a pool is known to bear: so many requests in flight when one was sent that was answered well. It
/// belongs to the pool, because the replicas that come after a deploy are new and yet the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Borne {
    level: f64,
    at: Instant,
}

/// So much of the way to a higher level is gone with each answer that shows it: eight answers a step, so that a burst that
/// was survived once is not yet what is borne for certain.
const PROOF: f64 = 0.125;

/// What was borne is half forgotten after this time without proof: long enough for an outage and the deploy that ends
/// it, short enough that the night does not decide about the morning.
const HALF_LIFE: Duration = Duration::from_secs(300);

impl Borne {
    pub(super) fn new(now: Instant) -> Self {
        Borne { level: 0.0, at: now }
    }

    /// Requests in flight at a replica, if anything is known.
    pub(super) fn level(&self, now: Instant) -> Option<u32> {
        let level = self.decayed(now);
        (level >= 1.0).then_some(level as u32)
    }

    /// A request was answered well that was sent when there were so many in flight.
    pub(super) fn prove(&mut self, in_flight: u32, now: Instant) {
        // Each second is soon enough, and cheaper than each answer.
        if now.saturating_duration_since(self.at) >= Duration::from_secs(1) {
            self.level = self.decayed(now);
            self.at = now;
        }
        if f64::from(in_flight) > self.level {
            self.level += PROOF;
        }
    }

    fn decayed(&self, now: Instant) -> f64 {
        let time = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.level * (-time).exp2()
    }
}
