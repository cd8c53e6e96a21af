//! What the next request would be given, and what the last ones met, for the operator: the very candidates, counts and rule
//! that requests use.

use super::Upstream;
use crate::pool::{self, Bound, Candidate};
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Candidates that are kept of one pick …
const OF_ONE: usize = 8;
/// … and of all picks of one request, beyond which a pick is kept without them.
const OF_ALL: usize = 32;

/// A candidate as the next request would meet it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// As published.
    pub candidate: Candidate,
    /// Requests it has.
    pub in_flight: u32,
    /// Whether the next request may go to it, as no other has a lower score and room; or whether it did.
    pub next: bool,
}

/// The candidates that a request's picks met, those of one pick behind those of the one before.
#[derive(Debug, Default)]
pub struct Seen {
    choices: Vec<Choice>,
    last: Range<usize>,
    candidates: usize,
}

impl Seen {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.choices.clear();
    }

    /// Of all picks.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Those of them that are the last pick's.
    pub fn of_last(&self) -> Range<usize> {
        self.last.clone()
    }

    /// How many there were at the last pick.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Adds those of a pick that chose `best`: that one and its neighbours.
    pub(super) fn add(&mut self, candidates: &[Candidate], counts: &[Cell<u32>], best: usize) {
        let first = self.choices.len();
        if first < OF_ALL {
            let from = best.min(candidates.len().saturating_sub(OF_ONE));
            let seen = candidates.iter().zip(counts).enumerate().skip(from).take(OF_ONE);
            self.choices.extend(seen.map(|(index, (candidate, in_flight))| Choice {
                candidate: candidate.clone(),
                in_flight: in_flight.get(),
                next: index == best,
            }));
        }
        self.last = first..self.choices.len();
        self.candidates = candidates.len();
    }
}

impl Upstream {
    /// Every endpoint that may be picked now.
    pub fn choices(&self) -> Vec<Choice> {
        let snapshot = self.snapshot.load();
        let counts: Vec<u32> = snapshot.endpoints.iter().map(|e| e.count().load(Ordering::Relaxed)).collect();
        choices(&snapshot.candidates, &counts, self.queue.is_empty())
    }
}

/// As [`Upstream::admit`] has it: windows hold where other requests wait, and where another candidate has room.
fn choices(candidates: &[Candidate], counts: &[u32], nobody_waits: bool) -> Vec<Choice> {
    let mut next = pool::lowest(candidates, Bound::Window, counts);
    if next.is_empty() && nobody_waits {
        next = pool::lowest(candidates, Bound::Ceiling, counts);
    }
    let choice = |(index, (candidate, in_flight)): (usize, (&Candidate, &u32))| Choice {
        candidate: candidate.clone(),
        in_flight: *in_flight,
        next: next.contains(&index),
    };
    candidates.iter().zip(counts).enumerate().map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::EndpointId;

    fn candidate(id: u64, weight: f64, trial: bool, limit: u32, ceiling: u32) -> Candidate {
        Candidate { id: EndpointId(id), address: ([127, 0, 0, 1], 80).into(), weight, trial, limit, ceiling }
    }

    fn next(candidates: &[Candidate], counts: &[u32], nobody_waits: bool) -> Vec<bool> {
        choices(candidates, counts, nobody_waits).iter().map(|choice| choice.next).collect()
    }

    // D23
    #[test]
    fn the_next_request_is_announced_where_it_goes() {
        let free = u32::MAX;
        let [warm, full, tried] =
            [candidate(1, 1.0, false, free, free), candidate(2, 1.0, false, 2, 2), candidate(3, 9.0, true, free, free)];
        let all = [warm.clone(), full.clone(), tried.clone()];
        assert_eq!(next(&all, &[1, 2, 0], true), [false, false, true], "a slow one is due for its trial");
        assert_eq!(next(&all, &[1, 2, 1], true), [true, false, false], "its trial is under way");
        assert_eq!(next(&all, &[1, 1, 1], true), [true, true, false], "a tie, below the limit");
        let cold = [candidate(1, 1.0, false, 1, free)];
        assert_eq!(next(&cold, &[1], true), [true], "a window alone refuses nobody");
        assert_eq!(next(&cold, &[1], false), [false], "unless others wait");
        assert_eq!(next(&[candidate(1, 1.0, false, 1, 1)], &[1], true), [false], "max_in_flight always holds");
        assert_eq!(next(&[], &[], true), [false; 0]);
    }

    // D23
    #[test]
    fn whatever_is_picked_was_announced() {
        let mut rng = fastrand::Rng::with_seed(23);
        for _ in 0..2000 {
            let all: Vec<_> = (0..rng.u64(1..6))
                .map(|id| {
                    let weight = if rng.bool() { 1.0 } else { rng.f64() * 9.0 + 1.0 };
                    let ceiling = rng.u32(1..5);
                    candidate(id, weight, rng.bool(), rng.u32(1..=ceiling), ceiling)
                })
                .collect();
            let counts: Vec<u32> = all.iter().map(|_| rng.u32(0..5)).collect();
            let announced = next(&all, &counts, false);
            match pool::pick(&all, Bound::Window, |i| counts[i], |_| false, &mut rng) {
                Some(picked) => assert!(announced[picked], "{all:?} {counts:?}"),
                None => assert_eq!(announced, vec![false; all.len()]),
            }
        }
    }

    // P21
    #[test]
    fn of_many_candidates_a_pick_keeps_the_winner_and_its_neighbours_and_of_many_picks_the_first() {
        let many: Vec<_> = (0..20).map(|id| candidate(id, 1.0, false, 9, 9)).collect();
        let counts: Vec<Cell<u32>> = (0..20).map(Cell::new).collect();
        let mut seen = Seen::default();
        for best in [0, 7, 19] {
            seen.add(&many, &counts, best);
            let kept = &seen.choices()[seen.of_last()];
            assert_eq!((kept.len(), seen.candidates()), (OF_ONE, 20));
            let winner: Vec<_> = kept.iter().filter(|choice| choice.next).map(|choice| choice.in_flight).collect();
            assert_eq!(winner, [best as u32]);
        }
        (0..10).for_each(|_| seen.add(&many, &counts, 3));
        assert_eq!((seen.choices().len(), seen.of_last().len()), (OF_ALL, 0));
        seen.clear();
        seen.add(&many[..2], &counts, 1);
        assert_eq!((seen.of_last(), seen.candidates()), (0..2, 2));
    }
}
