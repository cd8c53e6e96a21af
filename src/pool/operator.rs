//! What an operator takes out of use by hand: an address (*drained*), or the whole upstream (*paused*).
//!
//! Neither says anything about a replica's health, so probes go on, and what is undrained is at once as good as its probes
//! say. An order outlives DNS answers: an address that leaves and comes back is drained still. It ends with the process.

use super::Pool;
use super::endpoint::Health;
use super::event::EventKind;
use super::window::{STUCK_ALONE, Window};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Addresses that may be drained at once: as many as an answer of DNS may hold.
const MOST: usize = 4096;

/// The orders in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// Each address with who had it drained, in the order in which they were.
    drained: Vec<(IpAddr, String)>,
    pub(super) paused: bool,
}

impl Orders {
    /// Who had this address drained; `None`: nobody.
    pub(super) fn drained_by(&self, ip: IpAddr) -> Option<&str> {
        self.drained.iter().find(|(other, _)| *other == ip).map(|(_, who)| who.as_str())
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
        if self.is_drained(ip) == drained {
            return if drained || self.knows(ip) { Ok(false) } else { Err(NotDone::Unknown) };
        }
        let (event, reason): (fn(String) -> EventKind, String) = if drained {
            if !self.knows(ip) {
                return Err(NotDone::Unknown);
            }
            if self.orders.drained.len() == MOST {
                return Err(NotDone::TooMany);
            }
            self.orders.drained.push((ip, who.to_owned()));
            (EventKind::Drained, format!("by {who}"))
        } else {
            self.orders.drained.retain(|(other, _)| *other != ip);
            (EventKind::Undrained, format!("undrained by {who}"))
        };
        if !self.knows(ip) {
            self.say(Some(SocketAddr::new(ip, self.settings.port)), event(who.to_owned()));
        }
        for index in 0..self.endpoints.len() {
            if self.endpoints[index].address.ip() == ip {
                self.endpoints[index].drained = drained;
                if !drained {
                    // It may have been restarted meanwhile, between two probes.
                    self.endpoints[index].window = self.new_window(index, now);
                    self.wake_by(now + STUCK_ALONE);
                }
                self.transition(index, event(who.to_owned()), &reason, now);
            }
        }
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
        if !paused {
            // What waited comes at the pace that replicas are known to bear, as after an outage.
            for endpoint in self.endpoints.iter_mut().filter(|e| e.condition.health == Health::Up) {
                endpoint.window = Window::opening(&self.borne, now);
            }
            self.wake_by(now + STUCK_ALONE);
        }
        true
    }

    /// Whether an operator has all requests wait.
    pub fn is_paused(&self) -> bool {
        self.orders.paused
    }

    /// Whether an operator took this address out of use.
    pub fn is_drained(&self, ip: IpAddr) -> bool {
        self.orders.drained_by(ip).is_some()
    }

    /// The drained addresses, in the order in which they were drained.
    pub fn drained(&self) -> Vec<IpAddr> {
        self.orders.drained.iter().map(|(ip, _)| *ip).collect()
    }

    /// The orders in force, for [`Pool::take_over`].
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Has the orders of another pool, which this one replaces, be in force here. To be called while nobody is known yet.
    pub fn take_over(&mut self, orders: Orders) {
        self.orders = orders;
        self.changed = true;
    }

    fn knows(&self, ip: IpAddr) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.address.ip() == ip)
    }
}
