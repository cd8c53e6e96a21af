//! What an operator takes out of use by hand: an address (*drained*), or the whole upstream (*paused*).
//!
//! Neither says anything about a replica's health, so probes go on, and what is undrained is at once as good as its probes
//! say. An order outlives DNS answers: an address that leaves and comes back is drained still. It ends with the process.

use super::Pool;
use super::event::EventKind;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

/// Addresses that may be drained at once: as many as an answer of DNS may hold.
const MOST: usize = 4096;

/// The orders in force.
#[derive(Debug, Default)]
pub(super) struct Orders {
    drained: Vec<IpAddr>,
    pub(super) paused: bool,
}

impl Orders {
    pub(super) fn is_drained(&self, ip: IpAddr) -> bool {
        self.drained.contains(&ip)
    }
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// No replica has this address, and it is not drained.
    Unknown,
    /// So many addresses are drained that no other can be.
    TooMany,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDone::Unknown => f.write_str("no replica has this address"),
            NotDone::TooMany => write!(f, "{MOST} addresses are drained already; undrain some"),
        }
    }
}

impl Pool {
    /// Sends an address nothing new, whatever DNS and probes say of it, or ends that. What it has finishes. `who` asks for
    /// it. Says whether that changed anything.
    ///
    /// # Errors
    /// Nobody knows the address, or too many are drained.
    pub fn set_drained(&mut self, ip: IpAddr, drained: bool, who: &str, now: Instant) -> Result<bool, NotDone> {
        self.notice(now);
        if self.orders.is_drained(ip) == drained {
            return if drained || self.knows(ip) { Ok(false) } else { Err(NotDone::Unknown) };
        }
        let event: fn(String) -> EventKind = if drained {
            if !self.knows(ip) {
                return Err(NotDone::Unknown);
            }
            if self.orders.drained.len() == MOST {
                return Err(NotDone::TooMany);
            }
            self.orders.drained.push(ip);
            EventKind::Drained
        } else {
            self.orders.drained.retain(|other| *other != ip);
            EventKind::Undrained
        };
        for index in 0..self.endpoints.len() {
            if self.endpoints[index].address.ip() == ip {
                self.endpoints[index].drained = drained;
                self.say(Some(self.endpoints[index].address), event(who.to_owned()));
            }
        }
        self.touch();
        self.settle(now);
        Ok(true)
    }

    /// Has all requests wait, or ends that. Says whether that changed anything.
    pub fn set_paused(&mut self, paused: bool, who: &str, now: Instant) -> bool {
        self.notice(now);
        if self.orders.paused == paused {
            return false;
        }
        self.orders.paused = paused;
        let event = if paused { EventKind::Paused } else { EventKind::Resumed };
        self.say(None, event(who.to_owned()));
        self.changed = true;
        true
    }

    /// Whether an operator has all requests wait.
    pub fn is_paused(&self) -> bool {
        self.orders.paused
    }

    /// The drained addresses, in the order in which they were drained.
    pub fn drained(&self) -> &[IpAddr] {
        &self.orders.drained
    }

    fn knows(&self, ip: IpAddr) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.address.ip() == ip)
    }
}
