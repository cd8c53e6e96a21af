//! Least connections, weighed by certain slowness.
//!
//! The pick is the lowest `(in flight + 1) · weight`. The weight is 1 for everyone until a replica is *certainly* slower
//! than the pool's fast ones, and its slowness from then on: so replicas that are alike share exactly as with plain least
//! connections, and an idle replica that takes ten times as long no longer ties with an idle fast one.
//!
//! Certainty is a confidence bound on the logarithm of the time to the first byte, in which the common distributions
//! (exponential, log-normal, mostly fast with rare slow answers) have moderate spread and a ratio is a difference. What
//! is not seen is forgotten, so a replica that was slow gets a trial now and then and its share back when it recovers.
//! A replica r times as slow as the reference weighs `(r / 1.5)²`: nothing at the margin, so that what our own requests
//! make a little slower is not pushed further, and far more than r beyond it, so that ten times slower is used when
//! the fast ones have queues and not when they are merely busy.
//!
//! A replica that has just come up is often slow for its first requests (it compiles, it connects to its database), which
//! is what slow replicas look like, too. So one that comes to a pool of warm ones is *young*: what it answered at first is
//! forgotten fast, and it is tried every few answers of the pool, not every few hundred. That costs a fixed number of slow
//! requests for each rise, after which it either has its share or is slow for good.
//!
//! Who answers nothing has no speed, and is remembered for what it had. While the others answer, and get busier for it,
//! a replica that hangs must not be the fast one that they are held against. So one that has been *silent* while the pool
//! gave many answers is no reference, and weighs more once it has a request in flight.
//!
//! What failed in simulation (`sim`): weighing by latency always, or breaking ties by it (alike replicas 10 % worse: noise
//! is not slowness); the weight r (with one of two slow, p99 1.5 times the fast one's at 80 % load, and 2.4 with two of
//! three); r² without the margin (ten alike replicas 28 % worse just after a burst).
//!
//! Deliberately not here: who is a candidate at all (`health`, `suspicion`, `ejection`, `membership`).

use super::endpoint::EndpointId;
use super::window::Load;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Samples that an estimate remembers at most: enough that chance moves the mean of exponential answers by ±20 %, few
/// enough that a replica that turns slow is found out within as many answers.
const MEMORY: f64 = 32.0;
/// Samples from which on a replica's speed counts as known.
pub(super) const KNOWN: f64 = 8.0;
/// An estimate unseen for this long has decayed to 1/e, if the pool gave [`FORGET_ANSWERS`] meanwhile …
const FORGET_TIME: Duration = Duration::from_secs(3);
/// … or after this many answers of the pool, if that takes longer: a quiet pool should not forget between two requests.
const FORGET_ANSWERS: f64 = 300.0;
/// A slow replica gets one request in so many of the pool's answers, if it has none; several slow ones take turns. So a
/// new replica that has to warm up does, one that recovers is found out, and the p99 does not notice: half a percent.
const TRIAL_EVERY: u64 = 200;
/// Answers of a replica's own for which it is young after each rise: eight in the cold window, and then as many as an app
/// that takes twenty requests to warm up needs to show it.
const YOUNG: u32 = 32;
/// Samples that the estimate of a young replica remembers at most. A quarter of the others': when the warm-up is over, seven
/// quick answers outweigh it.
const YOUNG_MEMORY: f64 = KNOWN;
/// The pool's answers between two trials of a slow replica while it is young. With the cold window's it comes to some
/// thirty requests in two hundred of the pool: two seconds at a hundred requests a second, once in each rise.
const YOUNG_TRIAL_EVERY: u64 = 4;
/// A replica is silent when the pool gave so many answers for each replica since its last. One that is merely unlucky in
/// ten times its share is one in 20,000.
const SILENCE: u64 = 10;
/// What a silent replica weighs while it has something in flight: what it holds is then a quarter of what the others
/// have, until probes tell what it is. It may be busy with long requests, so it is not left out.
const SILENT: f64 = 4.0;
/// Slower by less than this factor is not slow: `ln 1.5`.
const MARGIN: f64 = 0.405_465_108_108_164_4;
/// The exponent of the weight. Requests settle where the slow ones' share is the ratio of times to this power plus one; it
/// stays stable because an overloaded reference gets slower itself, which lowers everybody's weight.
const STEEPNESS: f64 = 2.0;
/// Standard errors between looking slow and being slow for certain; 2 is one error in forty, and the price of an error is a
/// few requests for somebody else.
const CERTAINTY: f64 = 2.0;
/// The variance every estimate starts from, as two samples' worth: that of an exponential distribution's logarithm is 1.6.
const PRIOR: f64 = 2.0;
/// Times below are all the same: the jitter of the network and of this process exceeds what such replicas could differ by.
const FINEST: Duration = Duration::from_millis(1);

/// An endpoint that may be picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub id: EndpointId,
    /// Where.
    pub address: SocketAddr,
    /// Factor on `in flight + 1`.
    pub weight: f64,
    /// With nothing in flight the weight counts as 1: a trial of an endpoint that is slow, or was when last seen.
    pub trial: bool,
    /// In flight at most: the smaller of the cold window and `ceiling`; `u32::MAX` for no limit.
    pub limit: u32,
    /// In flight at most where no request waits. In a pool that is cold as a whole the window is no part of it, for there
    /// is nobody else to send the request to: `max_in_flight`, or 1 on trial.
    pub ceiling: u32,
}

/// Which of a candidate's limits counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// [`Candidate::limit`]: other requests wait, or may go elsewhere.
    Window,
    /// [`Candidate::ceiling`].
    Ceiling,
}

/// The candidate with the lowest `(in flight + 1) · weight` among those below their limit and not excluded, ties at
/// random. `None` if there is none.
pub fn pick(
    candidates: &[Candidate],
    bound: Bound,
    in_flight: impl Fn(usize) -> u32,
    excluded: impl Fn(EndpointId) -> bool,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let mut best = None;
    let mut lowest = f64::INFINITY;
    let (mut ties, mut next) = (0, 0);
    for (index, candidate) in candidates.iter().enumerate() {
        let count = in_flight(index);
        let score = candidate.score(count);
        // Whoever is excluded is asked last: it is a list to search, and only a would-be winner is worth it.
        if count >= candidate.bound(bound) || score > lowest || excluded(candidate.id) {
            continue;
        }
        if score < lowest {
            (best, lowest, ties, next) = (Some(index), score, 1, next_winner(1, rng));
        } else {
            ties += 1;
            if ties == next {
                (best, next) = (Some(index), next_winner(ties, rng));
            }
        }
    }
    best
}

/// All candidates that [`pick`] would choose among, by index: those with the lowest score below their limit.
pub fn lowest(candidates: &[Candidate], bound: Bound, counts: &[u32]) -> Vec<usize> {
    let open = || candidates.iter().zip(counts).enumerate().filter(|(_, (c, count))| **count < c.bound(bound));
    let best = open().map(|(_, (c, count))| c.score(*count)).fold(f64::INFINITY, f64::min);
    open().filter(|(_, (c, count))| c.score(**count) <= best).map(|(index, _)| index).collect()
}

/// Which of the equals takes over from the `winner`-th. In reservoir sampling the k-th takes over with probability 1/k,
/// so nobody up to the m-th does with probability `winner / m`: one random number a takeover, instead of one for each of
/// 300 idle replicas (Vitter 1985, "Random sampling with a reservoir": skip, do not toss).
fn next_winner(winner: u32, rng: &mut fastrand::Rng) -> u32 {
    ((f64::from(winner) / (1.0 - rng.f64())) as u32).saturating_add(1)
}

impl Candidate {
    /// Requests in flight at most.
    pub fn bound(&self, bound: Bound) -> u32 {
        match bound {
            Bound::Window => self.limit,
            Bound::Ceiling => self.ceiling,
        }
    }

    /// The load that a request meets which comes to so many others.
    pub fn load(&self, others: u32) -> Load {
        Load { in_flight: others + 1, at_end: others + 1, limit: self.limit }
    }

    /// What [`pick`] compares: the lowest is picked.
    pub fn score(&self, in_flight: u32) -> f64 {
        // + 1: the request to be placed. Without it every idle replica would score 0, the slow one too.
        let weight = if self.trial && in_flight == 0 { 1.0 } else { self.weight };
        (f64::from(in_flight) + 1.0) * weight
    }
}

/// What is known of one endpoint's time to first byte: the mean and variance of its logarithm (in ln seconds), and from
/// how many samples, older ones counting less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    samples: f64,
    mean: f64,
    variance: f64,
    at: Instant,
    answers: u64,
    /// Answers until it is no longer young.
    young: u32,
}

impl Estimate {
    /// Nothing known.
    pub(super) fn new(now: Instant) -> Self {
        Estimate { samples: 0.0, mean: 0.0, variance: 0.0, at: now, answers: 0, young: 0 }
    }

    /// Nothing known of a replica that has just come to others who are warm.
    pub(super) fn young(now: Instant) -> Self {
        Estimate { young: YOUNG, ..Estimate::new(now) }
    }

    /// Takes an answer into account, the pool's `answers`-th: Welford's update with exponential forgetting.
    pub(super) fn add(&mut self, first_byte: Duration, answers: u64, now: Instant) {
        let memory = if self.young > 0 { YOUNG_MEMORY } else { MEMORY };
        self.young = self.young.saturating_sub(1);
        self.samples = self.samples(answers, now).min(memory - 1.0) + 1.0;
        // Workers tell in batches, so that an early answer may come after a late one.
        self.at = self.at.max(now);
        self.answers = answers;
        let share = 1.0 / self.samples;
        let distance = first_byte.max(FINEST).as_secs_f64().ln() - self.mean;
        self.mean += share * distance;
        self.variance = (1.0 - share) * (self.variance + share * distance * distance);
    }

    /// How many samples it is worth by now.
    fn samples(&self, answers: u64, now: Instant) -> f64 {
        if self.samples == 0.0 {
            return 0.0;
        }
        let time = now.saturating_duration_since(self.at).as_secs_f64() / FORGET_TIME.as_secs_f64();
        let count = answers.saturating_sub(self.answers) as f64 / FORGET_ANSWERS;
        self.samples * (-time.min(count)).exp()
    }

    /// Whether it has answered nothing while the others of `replicas` gave many answers.
    fn is_silent(&self, answers: u64, replicas: usize) -> bool {
        self.samples > 0.0 && answers.saturating_sub(self.answers) >= SILENCE * replicas as u64
    }

    /// The geometric mean, if there was ever a sample.
    pub(super) fn mean(&self) -> Option<Duration> {
        (self.samples > 0.0).then(|| Duration::from_secs_f64(self.mean.exp()))
    }
}

/// A factor on `in flight + 1`, and whether it is waived for a first request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) factor: f64,
    pub(super) trial: bool,
}

impl Weight {
    pub(super) const NONE: Weight = Weight { factor: 1.0, trial: false };
}

/// The weights of endpoints that compete for requests, in their order.
pub(super) fn weigh<'a>(
    estimates: impl Iterator<Item = &'a Estimate> + Clone,
    answers: u64,
    now: Instant,
) -> Vec<Weight> {
    let replicas = estimates.clone().count();
    let known = |estimate: &Estimate| (estimate.mean, Spread::of(estimate, answers, now));
    let heard = estimates.clone().filter(|estimate| !estimate.is_silent(answers, replicas));
    let mut fast: Vec<_> = heard.map(known).filter(|(_, spread)| spread.samples >= KNOWN).collect();
    if fast.is_empty() {
        return estimates.map(|_| Weight::NONE).collect();
    }
    // The reference is the ⌈N/3⌉-th fastest: with a mean or an upper median, one slow replica of two would be its own
    // measure; with the very fastest, chance would be.
    let third = (fast.len() - 1) / 3;
    let (_, &mut (reference, certain), _) = fast.select_nth_unstable_by(third, |a, b| a.0.total_cmp(&b.0));
    let mut slow = 0;
    let mut weights: Vec<Weight> = estimates
        .clone()
        .map(|estimate| {
            let slower = estimate.mean - reference;
            if slower <= MARGIN || estimate.samples == 0.0 {
                let silent = estimate.is_silent(answers, replicas);
                return if silent { Weight { factor: SILENT, trial: true } } else { Weight::NONE };
            }
            let spread = Spread::of(estimate, answers, now);
            let factor = (STEEPNESS * (slower - MARGIN)).exp();
            let error = (spread.variance / spread.samples + certain.variance / certain.samples).sqrt();
            if slower - CERTAINTY * error > MARGIN {
                slow += 1;
                Weight { factor, trial: false }
            } else if spread.samples < KNOWN {
                // It looked slow when last seen, which is long ago: one request at a time finds out.
                Weight { factor, trial: true }
            } else {
                Weight::NONE
            }
        })
        .collect();
    for (weight, estimate) in weights.iter_mut().zip(estimates) {
        let unseen = answers.saturating_sub(estimate.answers);
        let every = if estimate.young > 0 { YOUNG_TRIAL_EVERY } else { TRIAL_EVERY };
        weight.trial |= weight.factor > 1.0 && unseen >= every * slow;
    }
    weights
}

/// An estimate's reliability at one moment.
#[derive(Clone, Copy)]
struct Spread {
    samples: f64,
    variance: f64,
}

impl Spread {
    fn of(estimate: &Estimate, answers: u64, now: Instant) -> Self {
        let samples = estimate.samples(answers, now);
        Spread { samples, variance: (estimate.variance * samples + PRIOR) / (samples + PRIOR) }
    }
}
