//! What a DNS answer does to the set, and when the next question is due.
//!
//! One rule for everybody that an answer does not list: it is *missing*; the name is asked again shortly after, because
//! Docker renames containers by taking all their names away and giving them back; and if it is missing still, it drains,
//! unless it works and none of those that are listed does (yet). An answer that the name is gone altogether is doubted
//! for longer: what works then stays for `hold`. No answer at all changes nothing.
//!
//! Deliberately not here: sending questions (`discovery`), TTLs (Docker says 600 s for records that live for seconds; the
//! timer rules), and health.

use super::endpoint::{Endpoint, EndpointId};
use super::{EventKind, Membership, Pool, Resolution};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Between an answer that misses somebody and the question whether that is so.
const DOUBT: Duration = Duration::from_millis(200);
/// Between two questions at least, however many connections fail: ten a second is nothing to a resolver.
const SPACING: Duration = Duration::from_millis(100);
/// After a question without a usable answer, the next comes within this time.
const RETRY: Duration = Duration::from_secs(1);
/// Between two questions while nobody is usable and requests wait for who comes …
const ALONE: Duration = Duration::from_millis(250);
/// … for so long after somebody was: an app that is down for good is no reason to ask for it four times a second, all the
/// more as Docker passes such questions on to its host's name servers.
const ALONE_FOR: Duration = Duration::from_secs(10);
/// Addresses taken from one answer. A DNS message has at most 65,535 bytes and an A record in it takes 16, so that no
/// honest answer holds more.
const MOST: usize = 4096;

/// An active endpoint that an answer did not list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// When the first question was asked whose answer missed it.
    first: Instant,
    /// A question asked [`DOUBT`] later missed it too.
    confirmed: bool,
}

/// What the pool remembers of questions and answers.
#[derive(Debug)]
pub(super) struct Answers {
    due: Instant,
    asked: Option<Instant>,
    /// The last question that was asked while somebody was usable.
    fine: Option<Instant>,
    tried: bool,
    resolves: Option<bool>,
    absent_since: Option<Instant>,
    /// What the last positive answer held that is not the network's to give, so that it is said once.
    rejected: BTreeSet<IpAddr>,
}

impl Answers {
    pub(super) fn new(now: Instant) -> Self {
        let rejected = BTreeSet::new();
        Answers { due: now, asked: None, fine: None, tried: false, resolves: None, absent_since: None, rejected }
    }

    /// The last answer said that the name does not exist.
    pub(super) fn is_absent(&self) -> bool {
        self.absent_since.is_some()
    }

    /// Has the next question asked by then, if the spacing allows.
    pub(super) fn ask_by(&mut self, at: Instant) {
        let earliest = self.asked.map_or(at, |asked| asked + SPACING);
        self.due = self.due.min(at.max(earliest));
    }
}

impl Pool {
    /// When DNS is to be asked next: by the timer, which is faster just after everybody was lost; 200 ms after an answer
    /// that missed somebody; or at once (rate-limited) after a failed connection.
    pub fn next_question(&self) -> Instant {
        self.answers.due
    }

    /// Marks a question as asked, so that the next one is due an interval later.
    pub fn asked(&mut self, now: Instant) {
        self.notice(now);
        self.answers.asked = Some(now);
        let mut interval = self.settings.dns_interval;
        if !self.outage(now) {
            self.answers.fine = Some(now);
        } else if self.answers.fine.is_some_and(|fine| now.saturating_duration_since(fine) < ALONE_FOR) {
            interval = interval.min(ALONE);
        }
        self.answers.due = now + interval;
        self.ask_for_doubts(now);
    }

    /// Whether an answer of any kind has come since the start.
    pub fn tried(&self) -> bool {
        self.answers.tried
    }

    /// What an answer does to the set. `asked` is when the question left; `own` are the addresses that are this proxy
    /// itself at this port.
    pub fn resolved(&mut self, resolution: &Resolution, own: &[IpAddr], asked: Instant, now: Instant) {
        self.notice(now);
        self.answers.tried = true;
        match resolution {
            Resolution::Addresses(addresses) => {
                let listed = self.screen(addresses, own);
                self.listed(&listed, asked, now);
            }
            Resolution::Absent => {
                self.name_fails("the name does not exist or has no address");
                self.absent(asked, now);
            }
            Resolution::Failed(reason) => {
                self.name_fails(reason);
                self.answers.ask_by(now + RETRY);
            }
        }
        self.unsettled = true;
        self.settle(now);
        self.ask_for_doubts(asked);
    }

    /// Drains whoever is gone for certain.
    pub(super) fn drain_missing(&mut self, now: Instant) {
        if self.endpoints.iter().all(|e| e.missing.is_none()) {
            return;
        }
        let successor = self.endpoints.iter().any(|e| e.missing.is_none() && e.working());
        for index in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[index];
            if endpoint.missing.is_some_and(|m| m.confirmed) && (successor || !endpoint.working()) {
                self.drain(index, now);
            }
        }
    }

    /// The addresses that can be replicas. Says once what was dropped and why.
    fn screen(&mut self, addresses: &[IpAddr], own: &[IpAddr]) -> BTreeSet<SocketAddr> {
        let distinct: BTreeSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        let mut listed = BTreeSet::new();
        let mut rejected = BTreeSet::new();
        for ip in distinct {
            let reason = if own.contains(&ip) {
                "it is this proxy itself; the upstream's alias must not be the proxy's own"
            } else if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
                "it is no host's address"
            } else if listed.len() == MOST {
                "the answer holds more than 4096 addresses"
            } else {
                listed.insert(SocketAddr::new(ip, self.settings.port));
                continue;
            };
            if rejected.len() == MOST {
                break;
            }
            if !self.answers.rejected.contains(&ip) {
                let address = SocketAddr::new(ip, self.settings.port);
                self.say(Some(address), EventKind::Rejected(reason.to_owned()));
            }
            rejected.insert(ip);
        }
        self.answers.rejected = rejected;
        listed
    }

    fn listed(&mut self, listed: &BTreeSet<SocketAddr>, asked: Instant, now: Instant) {
        self.answers.absent_since = None;
        if self.answers.resolves != Some(true) {
            self.answers.resolves = Some(true);
            self.say(None, EventKind::NameResolved(listed.len()));
        }
        let alone = self.outage(now);
        let mut new = listed.clone();
        for index in 0..self.endpoints.len() {
            let endpoint = &mut self.endpoints[index];
            if !new.remove(&endpoint.address) {
                endpoint.miss(asked);
                continue;
            }
            endpoint.missing = None;
            if let Some(suspicion) = &mut endpoint.suspicion
                && suspicion.question(alone).is_some_and(|since| asked >= since)
            {
                suspicion.listed = Some(now);
                self.probe_by(index, now);
            }
            if !self.endpoints[index].active() {
                self.give_back(index, now);
            }
        }
        for address in new {
            self.join(address, now);
        }
    }

    fn absent(&mut self, asked: Instant, now: Instant) {
        let over = *self.answers.absent_since.get_or_insert(now) + self.settings.hold;
        for index in 0..self.endpoints.len() {
            if asked >= over {
                self.drain(index, now);
            } else if !self.endpoints[index].working() {
                self.endpoints[index].miss(asked);
            }
        }
        if now < over {
            self.answers.ask_by(over);
        }
    }

    fn join(&mut self, address: SocketAddr, now: Instant) {
        self.last_id += 1;
        let mut endpoint = Endpoint::new(EndpointId(self.last_id), address, now);
        let drained = self.orders.drained_by(address.ip()).map(|who| format!("{who}, before it joined"));
        endpoint.drained = drained.is_some();
        self.endpoints.push(endpoint);
        self.say(Some(address), EventKind::Joined);
        if let Some(who) = drained {
            self.say(Some(address), EventKind::Drained(who));
        }
        self.wake_by(now);
        self.changed = true;
    }

    fn drain(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        endpoint.missing = None;
        if endpoint.active() {
            endpoint.membership = Membership::Draining;
            endpoint.explain("no longer listed", now);
            let address = endpoint.address;
            self.say(Some(address), EventKind::Draining);
            self.changed = true;
        }
    }

    /// Ends a drain. The replica keeps its health, and is probed at once: its address may have a new owner.
    fn give_back(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        endpoint.membership = Membership::Active;
        endpoint.explain("listed again", now);
        let address = endpoint.address;
        self.probe_by(index, now);
        self.say(Some(address), EventKind::Returned);
        self.changed = true;
    }

    fn name_fails(&mut self, reason: &str) {
        if self.answers.resolves != Some(false) {
            self.answers.resolves = Some(false);
            self.say(None, EventKind::NameFailing(reason.to_owned()));
        }
    }

    /// Has the questions asked that suspects and missing ones wait for and that one asked at `asked` does not answer.
    pub(super) fn ask_for_doubts(&mut self, asked: Instant) {
        if self.endpoints.iter().all(|e| e.missing.is_none() && e.suspicion.is_none()) {
            return;
        }
        let alone = self.outage(asked);
        let missing = |e: &Endpoint| e.missing.filter(|m| !m.confirmed).map(|m| m.first + DOUBT);
        let suspect = |e: &Endpoint| e.suspicion.and_then(|s| s.question(alone));
        let wanted = self.endpoints.iter().filter(|e| e.active()).flat_map(|e| [missing(e), suspect(e)]);
        if let Some(earliest) = wanted.flatten().filter(|at| *at > asked).min() {
            self.answers.ask_by(earliest);
        }
    }
}

impl Endpoint {
    fn miss(&mut self, asked: Instant) {
        if self.active() {
            let missing = self.missing.get_or_insert(Missing { first: asked, confirmed: false });
            missing.confirmed |= asked >= missing.first + DOUBT;
        }
    }
}
