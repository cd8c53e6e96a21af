//! Whether an address may be another app's by now.
//!
//! Docker gives a dead container's address to the next that comes. So an endpoint that refused a connection gets no more
//! requests, not even when no other endpoint is left, until a DNS answer asked *after* the refusal still lists it, and then
//! a probe passes. Docker removes a dead container's records before it frees the address, so such an answer is proof. All
//! in all that takes little more than [`PAUSE`].
//!
//! A connection that breaks in use is another matter. Apps end single connections without dying: a handler that panics, a
//! worker that its supervisor kills, a server that closes after each answer. Therefore a connect to the same address is
//! begun as soon as a break is noticed, and its result decides ([`Pool::break_checked`]): accepted within [`HANDOVER`],
//! which is too short for the address to have a new owner that listens, it was the request's misfortune and nothing
//! follows. Otherwise the endpoint is suspect, as after a refusal.
//!
//! Deliberately not here: making that connect (`upstream`), sending the question and the probe (`membership` and `health`
//! schedule them).

use super::endpoint::{EndpointId, Health};
use super::window::STUCK;
use super::{EventKind, Pool};
use std::time::{Duration, Instant};

/// An address that accepts a connection this soon after its connections broke still has its owner.
///
/// From the kill of a container's process to the start of another one's on the same address an engine needs 420 ms at
/// least (23 tries on Docker Engine 20.10, in a network with a single free address, the other container created
/// beforehand and started by a program as soon as the engine allowed it; docs/docker-dns.md). A quarter of that leaves
/// room for faster machines.
pub const HANDOVER: Duration = Duration::from_millis(100);

/// From the break to the question whose answer counts: a dying container's record is gone by then.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// The end of a connection in use.
#[derive(Clone, Copy, Debug)]
pub struct Break {
    /// It cannot have happened before: whoever noticed it would have noticed then.
    pub earliest: Instant,
    /// When it was noticed.
    pub noticed: Instant,
}

/// The longest pause of an endpoint that keeps breaking before it gets warm: 8 s, or 32 broken requests in four minutes.
const MOST_DOUBLINGS: u32 = 5;

/// An open question about who is behind an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    /// The last break or refusal.
    pub(super) since: Instant,
    /// How long after it the question is asked.
    pub(super) pause: Duration,
    /// When the answer that counts came; the probe must begin after it.
    pub(super) listed: Option<Instant>,
}

impl Suspicion {
    /// After a break, the `strikes`-th before the endpoint got warm.
    pub(super) fn new(strikes: u32, now: Instant) -> Self {
        Suspicion { since: now, pause: PAUSE * (1 << strikes.min(MOST_DOUBLINGS)), listed: None }
    }

    /// It failed again, so whatever was found out is out of date.
    pub(super) fn again(&mut self, now: Instant) {
        self.since = now;
        self.listed = None;
    }

    /// When the question whose answer counts is to be asked. With nobody else left (`alone`) the pause is not stretched:
    /// requests wait.
    pub(super) fn question(&self, alone: bool) -> Option<Instant> {
        let pause = if alone { PAUSE } else { self.pause };
        self.listed.is_none().then(|| self.since + pause)
    }

    /// Whether a probe that began then, and passed, ends it.
    pub(super) fn ended_by(&self, began: Instant) -> bool {
        self.listed.is_some_and(|listed| began >= listed)
    }
}

impl Pool {
    /// What became of the connect that was begun after a connection of an endpoint broke: when it was accepted, if it was.
    /// Tells whether the endpoint is still what it was. An answer to a request that came after the break and in time shows
    /// that as well, for a replica whose queue of new connections is full.
    pub fn break_checked(&mut self, id: EndpointId, broke: Break, accepted: Option<Instant>, now: Instant) -> bool {
        self.notice(now);
        let Some(index) = self.index(id) else { return false };
        let answered = self.endpoints[index].condition.last_answer().filter(|at| *at > broke.noticed);
        let same = [accepted, answered].into_iter().flatten().any(|at| at <= broke.earliest + HANDOVER);
        if !same {
            self.suspect(index, "connection broke in use", now);
            self.settle(now);
        }
        same
    }

    /// The replica closed a connection that rested. Servers do so all the time. But while its name is gone from DNS it works
    /// by what it was: it may have ended, and its successor on this address would pass a probe.
    pub fn rest_ended(&mut self, id: EndpointId, now: Instant) {
        self.notice(now);
        if let Some(index) = self.index(id)
            && self.answers.is_absent()
        {
            self.suspect(index, "connection closed while DNS does not know the name", now);
            self.settle(now);
        }
    }

    pub(super) fn suspect(&mut self, index: usize, reason: &str, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        match &mut endpoint.suspicion {
            Some(suspicion) => suspicion.again(now),
            None => {
                endpoint.suspicion = Some(Suspicion::new(endpoint.strikes, now));
                endpoint.strikes = endpoint.strikes.saturating_add(1);
                if endpoint.active() {
                    self.transition(index, EventKind::Suspect(reason.to_owned()), reason, now);
                }
                self.look_for_successors(now);
            }
        }
        self.answers.ask_by(now);
        self.ask_for_doubts(now);
    }

    /// When nobody is left, whoever may have begun to listen since its last probe is asked at once, not when its turn
    /// comes: in a deploy the new ones are there for less than a second when the old ones die.
    fn look_for_successors(&mut self, now: Instant) {
        if !self.outage(now) {
            return;
        }
        for index in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[index];
            if endpoint.active() && endpoint.condition.health != Health::Up && endpoint.suspicion.is_none() {
                self.probe_by(index, now);
            }
        }
    }

    /// Ends a suspicion, if a probe that passed may.
    pub(super) fn clear(&mut self, index: usize, began: Instant, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        if endpoint.suspicion.is_some_and(|s| s.ended_by(began)) {
            endpoint.suspicion = None;
            self.cool(index, now);
            self.transition(index, EventKind::Cleared, "listed and probed after a failure", now);
            self.wake_by(now + STUCK);
        }
    }
}
