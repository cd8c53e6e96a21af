//! Taking a place at an endpoint: the pick, and the count that makes it ours.

use crate::pool::{self, Bound, Candidate, EndpointId};
use crate::sync::{AtomicU32, Ordering};
use std::cell::Cell;

/// Tries to take the endpoint that was picked just as it was when it was picked. Each failure means that another thread got
/// ahead; from then on the endpoint is taken with whatever it has, as long as that is below its limit.
const EXACT: u32 = 4;

/// Takes a place at the best candidate within `bound`. Gives its index, and how many requests were there before. `None`: each
/// candidate was full (or excluded) when it was looked at.
///
/// The count never exceeds the limit, not for a moment: it is only ever moved by a compare-and-swap from below. A failed
/// swap means that another thread's succeeded, so the loop is lock-free. Sequentially consistent, as [`super::queue`]
/// relies on it: who finds no room here and waits is served by whoever makes room later.
///
/// `seen` holds the counts that the pick saw, one for each candidate.
pub(super) fn take<'a>(
    candidates: &[Candidate],
    bound: Bound,
    count: impl Fn(usize) -> &'a AtomicU32,
    excluded: impl Fn(EndpointId) -> bool,
    seen: &[Cell<u32>],
    rng: &mut fastrand::Rng,
) -> Option<(usize, u32)> {
    let look = |i: usize| {
        let now = count(i).load(Ordering::SeqCst);
        seen[i].set(now);
        now
    };
    for attempt in 1_u32.. {
        let best = pool::pick(candidates, bound, look, &excluded, rng)?;
        let limit = candidates[best].bound(bound);
        let before = if attempt <= EXACT {
            let before = seen[best].get();
            count(best).compare_exchange(before, before + 1, Ordering::SeqCst, Ordering::Relaxed)
        } else {
            let below = |now: u32| (now < limit).then_some(now + 1);
            count(best).fetch_update(Ordering::SeqCst, Ordering::Relaxed, below)
        };
        if let Ok(before) = before {
            return Some((best, before));
        }
    }
    None
}
