//! What each caller was answered by one endpoint of late, so that no caller alone can have it left out.
//!
//! A client that gets errors at will (a page that always fails) and keeps the other replicas busy with slow requests could
//! otherwise point at any replica it likes. So where several callers are served, an endpoint's errors count only if it is
//! as bad to the others as to the one that has most of them.

use super::ejection::History;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many are told apart; whoever was not heard of for the longest time makes room. A share of two decides, so that
/// more would tell no more.
const CALLERS: usize = 8;

/// A caller that was not answered for so long is none any more.
const RECENT: Duration = Duration::from_secs(10);

/// The callers of one endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers(Vec<Caller>);

#[derive(Clone, Debug)]
struct Caller {
    address: IpAddr,
    history: History,
    heard: Instant,
}

impl Callers {
    pub(super) fn push(&mut self, address: IpAddr, error: bool, now: Instant) {
        let known = self.0.iter().position(|caller| caller.address == address);
        let index = known.unwrap_or_else(|| self.admit(address, now));
        let caller = &mut self.0[index];
        caller.history.push(error);
        caller.heard = caller.heard.max(now);
    }

    fn admit(&mut self, address: IpAddr, now: Instant) -> usize {
        let new = Caller { address, history: History::default(), heard: now };
        if self.0.len() < CALLERS {
            self.0.push(new);
            return self.0.len() - 1;
        }
        let oldest = (0..CALLERS).min_by_key(|i| self.0[*i].heard).expect("there are some");
        self.0[oldest] = new;
        oldest
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Who was answered of late.
    pub(super) fn recent(&self, now: Instant) -> impl Iterator<Item = IpAddr> {
        self.0.iter().filter(move |caller| caller.is_recent(now)).map(|caller| caller.address)
    }

    /// Whether it is bad to the others, too, once the caller is left out that has the most errors.
    pub(super) fn agree(&self, now: Instant) -> bool {
        let recent = || self.0.iter().filter(|caller| caller.is_recent(now));
        let loudest = recent().max_by_key(|caller| caller.history.errors());
        let others = recent().filter(|caller| loudest.is_none_or(|loudest| loudest.address != caller.address));
        let (errors, length) = others.fold((0, 0), |(errors, length), caller| {
            (errors + caller.history.errors(), length + caller.history.length())
        });
        length > 0 && 2 * errors >= length
    }
}

impl Caller {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) < RECENT
    }
}
