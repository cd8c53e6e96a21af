//! What a proxy makes of replicas and clients that behave badly, beside its peers: one file for each kind of trouble.
//!
//! The requests that count come in an open loop from clients that never retry; each is the only one of its kind, and
//! its answer is compared with it. Where a replica could run one twice, it keeps count.

mod cancelled;
mod closing;
mod death;
mod hang_up;
mod hostile;
mod outage;

use crate::balance;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::{Effort, Row};
use crate::taken::Taken;
use std::time::Duration;

/// Connections are open and what is new is known after this time.
const SETTLE: Duration = Duration::from_secs(1);

/// Measures a row about behaviour, before replicas of its own.
///
/// # Errors
/// The peer or its replicas do not start.
pub fn measure(row: Row, peer: &Peer, effort: Effort, seed: u64, cores: &Cores) -> Result<Taken, String> {
    match row {
        Row::Balance(balance) => balance::measure(balance, peer, effort, seed, cores),
        Row::Failing => balance::failing(peer, effort, seed, cores),
        Row::Recovery => balance::recovery(peer, seed, cores),
        Row::HangUp(hang_up) => hang_up::measure(hang_up, peer, effort, seed, cores),
        Row::Closing(closing) => closing::measure(closing, peer, effort, seed, cores),
        Row::Cancelled => cancelled::measure(peer, seed, cores),
        Row::Hostile(hostile) => hostile::measure(hostile, peer, seed, cores),
        Row::Outage => outage::measure(peer, seed, cores),
        Row::Death => death::measure(peer, seed, cores),
        _ => unreachable!("a row of costs"),
    }
}
