//! One replica as the pool sees it.
//!
//! Two facts, two fields: whether DNS lists the address ([`Membership`]) and whether it works ([`Health`]). Suspicion
//! and ejection are facts of their own.

use super::balancer::Estimate;
use super::ejection::Ejection;
use super::health::Condition;
use super::membership::Missing;
use super::suspicion::Suspicion;
use super::window::{Borne, Window};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Names an endpoint for as long as the process runs; an address that left and came back later gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

/// Whether DNS lists the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// Listed.
    #[default]
    Active,
    /// Gone from the answers: running requests finish, no new ones come.
    Draining,
}

/// Whether the address works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Never passed a probe.
    #[default]
    Unproven,
    /// Works.
    Up,
    /// Worked once, does not now.
    Down,
}

/// Why an endpoint gets no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldBack {
    /// DNS no longer lists it.
    Draining,
    /// It may be another app by now.
    Suspect,
    /// It never passed a probe.
    Unproven,
    /// It does not work, and others do.
    Down,
    /// It fails where the others answer.
    Ejected,
    /// An operator took it out of use.
    Drained,
    /// An operator has all requests of the upstream wait.
    Paused,
}

impl HeldBack {
    /// In a word.
    pub fn text(self) -> &'static str {
        match self {
            HeldBack::Draining => "draining",
            HeldBack::Suspect => "suspect",
            HeldBack::Unproven => "unproven",
            HeldBack::Down => "down",
            HeldBack::Ejected => "ejected",
            HeldBack::Drained => "drained",
            HeldBack::Paused => "paused",
        }
    }
}

/// One line of the operator's table.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Its name in this process.
    pub id: EndpointId,
    /// Its address and port.
    pub address: SocketAddr,
    /// Listed or leaving.
    pub membership: Membership,
    /// Working or not.
    pub health: Health,
    /// Since when its state is as it is.
    pub since: Instant,
    /// Why its state is as it is ("refused", "probe: 503", "" if there is nothing to say).
    pub reason: String,
    /// Waits for a fresh answer and a probe.
    pub suspect: bool,
    /// Ejected until then.
    pub ejected_until: Option<Instant>,
    /// An operator took it out of use.
    pub drained: bool,
    /// The factor on its in-flight count, as [`super::Candidate::weight`].
    pub weight: f64,
    /// Requests it may have in flight while cold; `None` when warm.
    pub window: Option<u32>,
    /// Geometric mean of the time to first byte, if known.
    pub mean: Option<Duration>,
    /// Why it is not picked now; `None` if it may be.
    pub held_back: Option<HeldBack>,
}

/// All the pool knows of one replica. Few hundred bytes; nothing in it grows.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) membership: Membership,
    /// An operator took it out of use.
    pub(super) drained: bool,
    /// Not in the last answers, though still active.
    pub(super) missing: Option<Missing>,
    pub(super) condition: Condition,
    pub(super) suspicion: Option<Suspicion>,
    /// Suspicions since it was last warm: each holds it back twice as long as the one before.
    pub(super) strikes: u32,
    pub(super) ejection: Ejection,
    pub(super) window: Window,
    pub(super) estimate: Estimate,
    /// Published as on trial for its slowness.
    pub(super) trial: bool,
    pub(super) since: Instant,
    pub(super) reason: String,
}

/// How good a choice an endpoint is, best first. Requests go to the best that there is, never to `HeldBack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Works.
    Usable,
    /// Works, and answers errors: better than nobody.
    Ejected,
    /// Worked once: better than nobody, for probes can be wrong.
    Down,
    /// May be nobody's or somebody else's: never.
    HeldBack,
}

impl Endpoint {
    pub(super) fn new(id: EndpointId, address: SocketAddr, now: Instant) -> Self {
        Endpoint {
            id,
            address,
            membership: Membership::Active,
            drained: false,
            missing: None,
            condition: Condition::new(now),
            suspicion: None,
            strikes: 0,
            ejection: Ejection::default(),
            window: Window::careful(&Borne::new(now), now),
            estimate: Estimate::new(now),
            trial: false,
            since: now,
            reason: String::new(),
        }
    }

    pub(super) fn active(&self) -> bool {
        self.membership == Membership::Active
    }

    /// Up, nothing speaks against it being who we think it is, and it may be used.
    pub(super) fn working(&self) -> bool {
        self.active() && !self.drained && self.condition.health == Health::Up && self.suspicion.is_none()
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        if !self.active() || self.drained || self.suspicion.is_some() || self.condition.is_forsaken() {
            return Standing::HeldBack;
        }
        match self.condition.health {
            Health::Unproven => Standing::HeldBack,
            Health::Down => Standing::Down,
            Health::Up if self.ejection.until(now).is_some() => Standing::Ejected,
            Health::Up => Standing::Usable,
        }
    }

    /// One request at a time, and its answer decides: it was ejected, or nobody answers there as far as is known. Of the
    /// requests that wait for such replicas each would lose a `connect_timeout` by it.
    pub(super) fn on_trial(&self, now: Instant) -> bool {
        self.ejection.on_trial(now) || self.condition.is_unreachable()
    }

    /// What keeps it from standing better.
    pub(super) fn hindrance(&self, now: Instant) -> Option<HeldBack> {
        match (self.membership, self.condition.health) {
            (Membership::Draining, _) => Some(HeldBack::Draining),
            _ if self.drained => Some(HeldBack::Drained),
            _ if self.suspicion.is_some() => Some(HeldBack::Suspect),
            (_, Health::Unproven) => Some(HeldBack::Unproven),
            (_, Health::Down) => Some(HeldBack::Down),
            (_, Health::Up) if self.ejection.until(now).is_some() => Some(HeldBack::Ejected),
            (_, Health::Up) => None,
        }
    }

    /// Notes a change of state, for the operator's table.
    pub(super) fn explain(&mut self, reason: &str, now: Instant) {
        self.since = now;
        self.reason.clear();
        self.reason.push_str(reason);
    }
}
