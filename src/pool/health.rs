//! What probes, and the outcomes of requests, say about an endpoint.
//!
//! Probes are evidence, not truth. One that timed out behind real requests that were answered meanwhile says nothing; one
//! that was refused says a lot; one that passes on a plain connect says nothing about whether requests are answered. So
//! every result is weighed in [`Pool::probed`] against what traffic shows, and every outcome in [`Pool::record`]: two
//! `match`es that show all cases.
//!
//! Deliberately not here: sending probes (`probe`), deciding who gets requests (`Pool::candidates`).

use super::balancer::Estimate;
use super::endpoint::{EndpointId, Health};
use super::pace;
use super::probe_result::DueProbe;
use super::stuck::Stuck;
use super::window::{Answer, Load, STUCK_ALONE, Window};
use super::{EventKind, Outcome, Pool, ProbeResult, ejection};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Each fall within this time of a rise doubles the passes needed to rise …
const CALM: Duration = Duration::from_secs(60);
/// … up to this many: at one probe a second, a replica that comes and goes is out for eight seconds each time.
const MOST_PASSES: u32 = 8;
/// A connect that timed out says nothing about a replica that answered a request this recently: its queue of
/// connections is full, and leaving it out would fill those of the others.
const BUSY: Duration = Duration::from_secs(1);

/// In what way a probe or a connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nobody listens.
    Refused,
    /// Dead, hung or busy: an answer to a request refutes it.
    TimedOut,
    /// It says so itself: believed, whatever it answers to requests. But it is not cold by that: when all say so, as when
    /// their database is gone, they serve on as before.
    Unhealthy,
}

/// Whether an endpoint works, and since when it has looked different.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) health: Health,
    pub(super) probe_due: Instant,
    /// Passes and failures in a row; one of them is 0.
    passes: u32,
    failures: u32,
    /// What the last failure was.
    cause: Option<Cause>,
    /// Traffic has counted a failure since the last probe. It may do so once: fifty connects that time out together are
    /// one observation.
    doubted: bool,
    /// It was down, and a request's connect timed out all the same: nobody else is sent there until a probe gets through to
    /// it, if only to be refused.
    forsaken: bool,
    /// Recent falls, and the last rise.
    flaps: u32,
    rose: Option<Instant>,
    /// The last answer to a request.
    answered: Option<Instant>,
    /// How a new replica has failed its probes of late.
    stuck: Stuck,
}

impl Condition {
    pub(super) fn new(now: Instant) -> Self {
        Condition {
            health: Health::Unproven,
            probe_due: now,
            passes: 0,
            failures: 0,
            cause: None,
            doubted: false,
            forsaken: false,
            flaps: 0,
            rose: None,
            answered: None,
            stuck: Stuck::default(),
        }
    }

    /// Counts a pass. True if it is up by that.
    fn pass(&mut self, rise: u32, now: Instant) -> bool {
        self.failures = 0;
        self.passes = self.passes.saturating_add(1);
        let needed = match self.health {
            Health::Up => return false,
            Health::Unproven => 1,
            Health::Down => rise.saturating_mul(1 << self.flaps).min(MOST_PASSES).max(rise),
        };
        let up = self.passes >= needed;
        if up {
            self.health = Health::Up;
            self.forsaken = false;
            self.rose = Some(now);
            self.stuck = Stuck::default();
        }
        up
    }

    /// Counts a failure. True if it is down by that.
    fn fail(&mut self, fall: u32, cause: Cause, now: Instant) -> bool {
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        self.cause = Some(cause);
        let down = self.health == Health::Up && self.failures >= fall;
        if down {
            self.health = Health::Down;
            let calm = self.rose.map_or(0, |rose| now.saturating_duration_since(rose).as_secs() / CALM.as_secs());
            self.flaps = match u32::try_from(calm) {
                Ok(0) => (self.flaps + 1).min(MOST_PASSES.ilog2()),
                Ok(minutes) => self.flaps.saturating_sub(minutes),
                Err(_) => 0,
            };
        }
        down
    }

    /// When a request was last answered.
    pub(super) fn last_answer(&self) -> Option<Instant> {
        self.answered
    }

    /// Down because nobody answered, and not by its own word.
    pub(super) fn is_unreachable(&self) -> bool {
        self.health == Health::Down && self.cause != Some(Cause::Unhealthy)
    }

    /// Down, and requests do not reach it either.
    pub(super) fn is_forsaken(&self) -> bool {
        self.health == Health::Down && self.forsaken
    }

    /// Whether a request was answered at that time or later.
    fn answered_since(&self, time: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= time)
    }
}

impl Pool {
    /// The endpoints to probe now. Each is held back until its result comes in, or for two intervals: a probe takes one
    /// at most, so its result got lost.
    pub fn due_probes(&mut self, now: Instant) -> Vec<DueProbe> {
        self.notice(now);
        let lost = now + 2 * self.settings.probe_interval;
        let mut due = Vec::new();
        for endpoint in self.endpoints.iter_mut().filter(|e| e.condition.probe_due <= now) {
            let condition = &mut endpoint.condition;
            condition.probe_due = lost;
            let connect_within = match condition.health {
                Health::Unproven => pace::connect_within(condition.failures),
                Health::Up | Health::Down => Duration::MAX,
            };
            due.push(DueProbe { id: endpoint.id, address: endpoint.address, health: condition.health, connect_within });
        }
        self.plan_wake(now);
        due
    }

    /// The result of a probe that began at `began`.
    ///
    /// One that drains is probed for the sake of the requests it still has: when its network is gone, nobody ends their
    /// connections. That it refuses new ones, or says that it is not ready for them, shows only that somebody is there:
    /// whoever leaves closes the door first and finishes then.
    pub fn probed(&mut self, id: EndpointId, result: &ProbeResult, began: Instant, now: Instant) {
        self.notice(now);
        let Some(index) = self.index(id) else { return };
        let interval = self.settings.probe_interval;
        let draining = !self.endpoints[index].active() || self.endpoints[index].drained;
        let condition = &mut self.endpoints[index].condition;
        condition.doubted = false;
        let through = !matches!(result, ProbeResult::ConnectTimedOut | ProbeResult::Exhausted);
        if through && std::mem::take(&mut condition.forsaken) {
            self.changed = true;
        }
        condition.probe_due = (began + interval).max(now);
        match result {
            ProbeResult::Passed => {
                if condition.health == Health::Unproven {
                    // Replicas that joined together are not probed together for ever: their second probes are spread over
                    // half an interval, evenly for any number of them (multiples of the golden ratio).
                    let phase = (id.0 as f64 * 0.618_033_988_75).fract();
                    condition.probe_due = now + interval.mul_f64(0.5 + phase / 2.0);
                }
                self.clear(index, began, now);
                self.pass(index, "probe passed", now);
            }
            // We were stopped while it ran. Its socket may hold an answer that nobody read: ask again before judging.
            ProbeResult::TimedOut | ProbeResult::ConnectTimedOut if self.resumed.is_some_and(|at| began < at) => {
                condition.probe_due = now;
            }
            // It waited behind requests that were answered: alive, and busy.
            ProbeResult::TimedOut | ProbeResult::ConnectTimedOut if condition.answered_since(began) => {
                condition.failures = 0;
            }
            ProbeResult::TimedOut | ProbeResult::ConnectTimedOut => {
                self.fail_probe(index, result, Cause::TimedOut, began, now);
            }
            ProbeResult::Refused | ProbeResult::Unreachable | ProbeResult::Unhealthy(_) if draining => {}
            ProbeResult::Refused | ProbeResult::Unreachable => {
                self.answers.ask_by(now);
                if self.answers.is_absent() {
                    // It works by what it was, not by what DNS says: its successor on this address would pass a probe.
                    self.suspect(index, "probe refused while DNS does not know the name", now);
                }
                self.fail_probe(index, result, Cause::Refused, began, now);
            }
            ProbeResult::Unhealthy(_) => self.fail_probe(index, result, Cause::Unhealthy, began, now),
            ProbeResult::Exhausted => self.report_stuck(index, result, began, now),
        }
        self.wake_by(self.endpoints[index].condition.probe_due);
        self.settle(now);
    }

    /// What a request of `caller` showed that was sent under this load. Unknown ids (removed meanwhile) are ignored.
    pub fn record(&mut self, id: EndpointId, outcome: Outcome, load: Load, caller: IpAddr, now: Instant) {
        self.notice(now);
        let Some(index) = self.index(id) else { return };
        match outcome {
            Outcome::Answered { status, first_byte } => {
                self.answered(index, Answer { status, first_byte, load }, caller, now);
            }
            // Nobody listens there, or somebody else.
            Outcome::Refused => self.suspect(index, "connection refused", now),
            // It died, or lost this request only: a connection that is begun at once tells ([`Pool::break_checked`]).
            Outcome::Broken => self.judge(index, true, caller, now),
            // The ordinary race with a server that closes its connections. If it died, the same connection tells.
            Outcome::Stale => {}
            // Its host is gone, or its queue is full. Not suspect: under overload that would take out the whole pool.
            Outcome::ConnectTimedOut => {
                self.answers.ask_by(now);
                self.doubt(index, now);
            }
            // One slow page is no reason to distrust a replica, a time-out of most pages is. Probes find the hung ones.
            Outcome::TimedOut => self.judge(index, true, caller, now),
            // The same; but what does not speak HTTP may have come to this address since.
            Outcome::Invalid => {
                self.answers.ask_by(now);
                self.judge(index, true, caller, now);
            }
            Outcome::Abandoned => {}
        }
        self.settle(now);
    }

    fn answered(&mut self, index: usize, answer: Answer, caller: IpAddr, now: Instant) {
        let Answer { status, first_byte, load } = answer;
        let endpoint = &mut self.endpoints[index];
        self.total += 1;
        self.sampled = true;
        // Answers are told in batches, late ones after early ones.
        endpoint.condition.answered = endpoint.condition.answered.max(Some(now));
        // One request was the trial; the next is not to follow it before the weights are published on their timer.
        self.changed |= std::mem::take(&mut endpoint.trial);
        if status < 500 {
            // A fast error is not a fast replica.
            endpoint.estimate.add(first_byte, self.total, now);
        }
        if endpoint.window.limit().is_some() {
            self.changed |= endpoint.window.answered(&answer, now);
        } else {
            endpoint.strikes = 0;
        }
        if !answer.is_strained() {
            self.borne.prove(load.in_flight, now);
        }
        if endpoint.condition.health == Health::Down && endpoint.condition.cause == Some(Cause::TimedOut) {
            self.pass(index, "answers requests", now);
        }
        self.judge(index, status >= 500, caller, now);
    }

    fn pass(&mut self, index: usize, reason: &str, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        if endpoint.condition.pass(self.settings.rise, now) {
            self.cool(index, now);
            self.transition(index, EventKind::Up(reason.to_owned()), reason, now);
            self.wake_by(now + STUCK_ALONE);
        }
    }

    /// Starts over with a replica that may be another process than before: it has a window, and nothing is known of its
    /// speed.
    pub(super) fn cool(&mut self, index: usize, now: Instant) {
        let among_warm = self.is_among_warm(index);
        self.endpoints[index].window = self.new_window(index, now);
        self.endpoints[index].estimate = if among_warm { Estimate::young(now) } else { Estimate::new(now) };
    }

    fn is_among_warm(&self, index: usize) -> bool {
        let mut others = self.endpoints.iter().enumerate().filter(|(other, _)| *other != index);
        others.any(|(_, e)| e.working() && e.window.limit().is_none())
    }

    pub(super) fn new_window(&self, index: usize, now: Instant) -> Window {
        let new = if self.is_among_warm(index) { Window::careful } else { Window::opening };
        new(&self.borne, now)
    }

    fn fail(&mut self, index: usize, reason: &str, cause: Cause, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        if endpoint.condition.fail(self.settings.fall, cause, now) {
            if cause != Cause::Unhealthy {
                endpoint.window = Window::careful(&self.borne, now);
            }
            self.transition(index, EventKind::Down(reason.to_owned()), reason, now);
        } else if endpoint.condition.health != Health::Up && endpoint.reason != reason {
            reason.clone_into(&mut endpoint.reason);
        }
    }

    fn fail_probe(&mut self, index: usize, result: &ProbeResult, cause: Cause, began: Instant, now: Instant) {
        self.fail(index, &format!("probe: {result}"), cause, now);
        self.report_stuck(index, result, began, now);
        let alone = self.outage(now);
        let interval = self.settings.probe_interval;
        let newcomers = self.endpoints.iter().filter(|e| e.condition.health == Health::Unproven).count();
        let endpoint = &mut self.endpoints[index];
        match &mut endpoint.suspicion {
            // Whoever was listed does not listen yet. Until it does, the address may change hands again.
            Some(suspicion) if began >= suspicion.since => {
                suspicion.pause = suspicion.pause.max((2 * suspicion.pause).min(interval));
                suspicion.again(now);
                self.ask_for_doubts(now);
            }
            // One that accepts and does not answer has a request of ours, so it gets no other before the interval is over.
            None if endpoint.condition.health == Health::Unproven && *result != ProbeResult::TimedOut => {
                let age = now.saturating_duration_since(endpoint.since);
                endpoint.condition.probe_due = now + pace::after_new(age, newcomers, interval, alone);
            }
            None if endpoint.condition.health == Health::Down && cause != Cause::TimedOut => {
                endpoint.condition.probe_due = now + pace::after_down(endpoint.condition.failures, interval, alone);
            }
            _ => {}
        }
    }

    /// Says of a new replica how its probes fail, once it has failed them for a while.
    fn report_stuck(&mut self, index: usize, result: &ProbeResult, began: Instant, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        let new = endpoint.condition.health == Health::Unproven && endpoint.active();
        if new && endpoint.condition.stuck.is_news(result, began, now) {
            let address = endpoint.address;
            self.say(Some(address), EventKind::Unproven(result.clone()));
        }
    }

    /// A connect timed out: counted once between two probes, and the next probe is made at once.
    fn doubt(&mut self, index: usize, now: Instant) {
        let condition = &mut self.endpoints[index].condition;
        let busy = condition.answered.is_some_and(|answered| now.saturating_duration_since(answered) < BUSY);
        let stopped = self.resumed.is_some_and(|resumed| now.saturating_duration_since(resumed) < BUSY);
        if busy || stopped {
            return;
        }
        if !condition.forsaken && condition.is_unreachable() {
            condition.forsaken = true;
            self.changed = true;
        }
        if condition.doubted {
            return;
        }
        condition.doubted = true;
        self.fail(index, "connect timed out", Cause::TimedOut, now);
        self.probe_by(index, now);
    }

    /// Whether a replica that answers errors is left out, and whether one that was is taken back.
    fn judge(&mut self, index: usize, error: bool, caller: IpAddr, now: Instant) {
        let ejection = &mut self.endpoints[index].ejection;
        let on_trial = ejection.on_trial(now);
        if ejection.out.is_some() && !on_trial {
            return; // an answer to a request from before
        }
        ejection.push(caller, error, now);
        let condemned = error && ejection.history.condemned();
        let guilty = error && on_trial || condemned && self.is_agreed(index, caller, now);
        if !guilty && !on_trial {
            return;
        }
        // Others that are as bad are no measure, but they are not the pool either: it needs somebody who is fine.
        let others = self.endpoints.iter().enumerate().filter(|(other, e)| *other != index && e.working());
        let others = others.map(|(_, e)| &e.ejection).filter(|e| e.out.is_none() && !e.history.bad());
        let fine = ejection::fine(others.map(|e| &e.history));
        let (out, half) = self.ejected();
        if guilty && fine && (on_trial || out < half) {
            let endpoint = &mut self.endpoints[index];
            let time = endpoint.ejection.eject(now);
            self.transition(index, EventKind::Ejected(time), "answers errors, others do not", now);
            self.wake_by(now + time);
        } else if on_trial {
            self.readmit(index, now);
        }
    }

    /// Whether others than `caller` say the same of it, or there are none.
    fn is_agreed(&self, index: usize, caller: IpAddr, now: Instant) -> bool {
        let several =
            || self.endpoints.iter().flat_map(|e| e.ejection.callers.recent(now)).any(|other| other != caller);
        self.endpoints[index].ejection.callers.agree(now) || !several()
    }

    fn readmit(&mut self, index: usize, now: Instant) {
        self.endpoints[index].ejection.readmit(now);
        self.endpoints[index].window = self.new_window(index, now);
        self.transition(index, EventKind::Readmitted, "back after ejection", now);
        self.wake_by(now + STUCK_ALONE);
    }

    /// How many that could work are ejected, and how many may be: half, so that the last one never is.
    fn ejected(&self) -> (usize, usize) {
        let working = self.endpoints.iter().filter(|e| e.working());
        let (out, all) = working.fold((0, 0), |(out, all), e| (out + usize::from(e.ejection.out.is_some()), all + 1));
        (out, all / 2)
    }

    /// Takes back those who have been out longest while more than half are out, as when others left.
    pub(super) fn cap_ejections(&mut self, now: Instant) {
        loop {
            let (out, half) = self.ejected();
            if out <= half {
                return;
            }
            let ejected = (0..self.endpoints.len()).filter(|i| {
                let endpoint = &self.endpoints[*i];
                endpoint.working() && endpoint.ejection.out.is_some()
            });
            let Some(oldest) = ejected.min_by_key(|i| self.endpoints[*i].since) else { return };
            self.readmit(oldest, now);
        }
    }
}
