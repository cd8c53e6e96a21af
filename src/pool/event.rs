//! What happened to a replica, or to a name as a whole.

use super::probe_result::ProbeResult;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A change that the operator wants to see once, in the log and the timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whom it concerns; `None` for the name as a whole.
    pub address: Option<SocketAddr>,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// An answer listed a new address.
    Joined,
    /// An address left the answers; its requests finish, no new ones come.
    Draining,
    /// A draining address was listed again.
    Returned,
    /// An address that left has no requests any more and is forgotten.
    Left,
    /// It is new and has failed its probes for about a second, so it gets no requests yet. Once for each kind of failure.
    Unproven(ProbeResult),
    /// Probes (or traffic) show it up; with the reason.
    Up(String),
    /// Probes (or traffic) show it down; with the reason.
    Down(String),
    /// Refused or broken in use: no traffic until a fresh answer lists it and a probe passes.
    Suspect(String),
    /// The suspicion is over.
    Cleared,
    /// It answers 5xx where the others do not: out for this long.
    Ejected(Duration),
    /// Back after ejection.
    Readmitted,
    /// An answer held an address that is not the network's to give (this proxy, 0.0.0.0, multicast), dropped.
    Rejected(String),
    /// The name stopped resolving; with the reason. Said once until it resolves again.
    NameFailing(String),
    /// The name resolves again, to this many addresses.
    NameResolved(usize),
    /// An operator took it out of use; with who it was.
    Drained(String),
    /// An operator gave it back to use; with who it was.
    Undrained(String),
    /// An operator has all requests wait; with who it was.
    Paused(String),
    /// An operator has requests go on; with who it was.
    Resumed(String),
}

impl EventKind {
    /// The names of all kinds, so that each is shown at 0 before it first happens.
    pub const NAMES: [&str; 18] = [
        "cleared",
        "down",
        "drained",
        "draining",
        "ejected",
        "joined",
        "left",
        "name_failing",
        "name_resolved",
        "paused",
        "readmitted",
        "rejected",
        "resumed",
        "returned",
        "suspect",
        "undrained",
        "unproven",
        "up",
    ];

    /// The kind's name, for counts.
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::Joined => "joined",
            EventKind::Draining => "draining",
            EventKind::Returned => "returned",
            EventKind::Left => "left",
            EventKind::Unproven(_) => "unproven",
            EventKind::Up(_) => "up",
            EventKind::Down(_) => "down",
            EventKind::Suspect(_) => "suspect",
            EventKind::Cleared => "cleared",
            EventKind::Ejected(_) => "ejected",
            EventKind::Readmitted => "readmitted",
            EventKind::Rejected(_) => "rejected",
            EventKind::NameFailing(_) => "name_failing",
            EventKind::NameResolved(_) => "name_resolved",
            EventKind::Drained(_) => "drained",
            EventKind::Undrained(_) => "undrained",
            EventKind::Paused(_) => "paused",
            EventKind::Resumed(_) => "resumed",
        }
    }
}

/// What happened, and why, for people.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut with_reason = |what: &str, why: &str| match why {
            "" => f.write_str(what),
            why => write!(f, "{what}: {why}"),
        };
        match self {
            EventKind::Joined => f.write_str("joined"),
            EventKind::Draining => f.write_str("draining: DNS no longer lists it"),
            EventKind::Returned => f.write_str("returned: DNS lists it again"),
            EventKind::Left => f.write_str("left"),
            EventKind::Unproven(result) => write!(f, "not usable: its probe fails: {result}"),
            EventKind::Up(why) => with_reason("up", why),
            EventKind::Down(why) => with_reason("down", why),
            EventKind::Suspect(why) => with_reason("suspect", why),
            EventKind::Cleared => f.write_str("cleared of suspicion"),
            EventKind::Ejected(time) => write!(f, "ejected for {time:?}: it fails where the others answer"),
            EventKind::Readmitted => f.write_str("readmitted"),
            EventKind::Rejected(why) => with_reason("address dropped", why),
            EventKind::NameFailing(why) => with_reason("name does not resolve", why),
            EventKind::NameResolved(count) => write!(f, "name resolves to {count}"),
            EventKind::Drained(who) => write!(f, "drained by {who}"),
            EventKind::Undrained(who) => write!(f, "no longer drained, by {who}"),
            EventKind::Paused(who) => write!(f, "paused by {who}: requests wait"),
            EventKind::Resumed(who) => write!(f, "resumed by {who}"),
        }
    }
}
