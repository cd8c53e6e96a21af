//! When a failed attempt may be made again, and how much of that the upstream bears.
//!
//! Deliberately not here: who is tried next ([`super::pick`] with those that failed excluded), and what a client sees
//! when nothing more may be tried.

use std::time::{Duration, Instant};

/// Failed connects of one request at most. A refusal holds its endpoint back at once, so that even where half of the
/// replicas die together few requests meet three; the bound is for connects that time out, which take a second each.
const MAX_CONNECTS: u32 = 8;

/// Retries for each new request.
const PER_REQUEST: f64 = 0.2;
/// Retries a second, however quiet it is: enough for one replica's death in a small app.
const PER_SECOND: f64 = 10.0;
/// Retries saved up at most: about one replica's kept connections (`max_idle`), which all break at once when it dies.
const BURST: f64 = 256.0;

/// Where an attempt failed, as far as HTTP's rules on repetition care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No byte of this attempt reached the replica: the connect failed, or the first write did.
    Connect,
    /// The replica says that it processed nothing of it: a stream of HTTP/2 that it refused, or that came after its last.
    Unprocessed,
    /// Sent, unanswered, and the connection is dead: no copy is running any more, as far as one can know.
    Dead,
    /// Sent, unanswered, and the copy may still be running: the endpoint was declared down.
    Abandoned,
    /// Something that no repetition mends: a time-out of the response, garbage, a broken body.
    Final,
}

/// What the request allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// GET, HEAD, OPTIONS: may run twice at once.
    pub safe: bool,
    /// Safe, PUT, DELETE or TRACE: may be repeated.
    pub idempotent: bool,
    /// The body, if any, can be sent from its first byte: nothing of it was read yet, or all that was read is kept.
    pub replayable: bool,
}

/// How often a request was tried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Attempts that sent something, the one that just failed included.
    pub attempts: u32,
    /// Connects that failed and streams that were refused, the one that just failed included.
    pub connects: u32,
    /// Moves while a copy may still be running.
    pub moves: u32,
}

impl Tried {
    /// With one more attempt, that ended in this failure.
    pub fn after(self, failure: Failure) -> Tried {
        let connect = u32::from(matches!(failure, Failure::Connect | Failure::Unprocessed));
        Tried { attempts: self.attempts + 1 - connect, connects: self.connects + connect, ..self }
    }
}

/// Whether to try again. `retries` is the number of attempts after the first (RFC 9110, section 9.2.2, on what may be
/// repeated at all); connects that failed sent nothing and are not counted among them, so that a request outlives the
/// death of more replicas than that. Whatever the failure, a body of which a byte was forgotten is not sent again: the
/// next replica would get the rest of it and take that for the whole.
pub fn may_retry(failure: Failure, request: Request, tried: Tried, retries: u32) -> bool {
    let sent_enough = tried.attempts > retries;
    request.replayable
        && match failure {
            Failure::Connect | Failure::Unprocessed => tried.connects < MAX_CONNECTS,
            Failure::Dead => request.idempotent && !sent_enough,
            Failure::Abandoned => request.safe && tried.moves == 0 && !sent_enough,
            Failure::Final => false,
        }
}

/// From the second replica on that dies with the same request, so long a pause comes before the next attempt. When all
/// replicas are killed one right after the other, as by a deploy, a request that moves at once meets each of them just
/// before its end and has no attempt left for those that come. By then the dead are known: their kernels refuse.
const DUST: Duration = Duration::from_millis(250);

/// How long to wait before trying again after this failure, if at all.
pub fn pause(failure: Failure, tried: Tried) -> Option<Duration> {
    (failure == Failure::Dead && tried.attempts > 1).then_some(DUST)
}

/// Retries allowed: 20 % of requests plus 10 a second, 256 saved up at most. Connect failures do not draw on it.
#[derive(Debug)]
pub struct Budget {
    tokens: f64,
    refilled: Instant,
}

impl Budget {
    /// A full budget.
    pub fn new(now: Instant) -> Self {
        Budget { tokens: BURST, refilled: now }
    }

    /// Adds what `requests` new ones and the time since the last call are worth.
    pub fn refill(&mut self, requests: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + PER_REQUEST * f64::from(requests) + PER_SECOND * passed).min(BURST);
        self.refilled = self.refilled.max(now);
    }

    /// Whether there is a retry to take.
    pub fn has_one(&self) -> bool {
        self.tokens >= 1.0
    }

    /// Takes one retry, or says that the budget is spent.
    pub fn withdraw(&mut self) -> bool {
        let granted = self.has_one();
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Request = Request { safe: true, idempotent: true, replayable: true };
    const PUT: Request = Request { safe: false, idempotent: true, replayable: true };
    const POST: Request = Request { safe: false, idempotent: false, replayable: true };

    fn sent(attempts: u32) -> Tried {
        Tried { attempts, ..Tried::default() }
    }

    #[test]
    fn post_that_was_sent_is_never_sent_again() {
        for failure in [Failure::Dead, Failure::Abandoned, Failure::Final] {
            assert!(!may_retry(failure, POST, sent(1), 2), "{failure:?}");
        }
    }

    #[test]
    fn the_first_retry_is_at_once_and_those_after_another_death_let_the_dust_settle() {
        assert_eq!(pause(Failure::Dead, sent(1)), None);
        assert_eq!(pause(Failure::Dead, sent(2)), Some(DUST));
        assert_eq!(pause(Failure::Connect, Tried { attempts: 2, connects: 3, moves: 0 }), None, "nothing was sent");
    }

    #[test]
    fn refused_connect_is_retried_for_every_method_and_not_counted_as_an_attempt() {
        assert!(may_retry(Failure::Connect, POST, Tried { connects: 5, ..Tried::default() }, 2));
        assert!(may_retry(Failure::Dead, GET, Tried { attempts: 1, connects: 5, moves: 0 }, 2));
        assert!(!may_retry(Failure::Connect, GET, Tried { connects: MAX_CONNECTS, ..Tried::default() }, 2));
    }

    #[test]
    fn get_that_kills_whoever_runs_it_kills_at_most_three() {
        assert!(may_retry(Failure::Dead, GET, sent(1), 2));
        assert!(may_retry(Failure::Dead, GET, sent(2), 2));
        assert!(!may_retry(Failure::Dead, GET, sent(3), 2));
        assert!(!may_retry(Failure::Dead, GET, sent(1), 0), "retries = 0 means none");
    }

    #[test]
    fn request_on_a_hung_replica_moves_once_and_only_if_it_may_run_twice() {
        assert!(may_retry(Failure::Abandoned, GET, sent(1), 2));
        assert!(!may_retry(Failure::Abandoned, PUT, sent(1), 2));
        assert!(!may_retry(Failure::Abandoned, GET, Tried { attempts: 2, connects: 0, moves: 1 }, 2));
        assert!(may_retry(Failure::Dead, GET, Tried { attempts: 2, connects: 0, moves: 1 }, 2));
    }

    // D1
    #[test]
    fn body_of_which_a_byte_was_forgotten_is_not_sent_again_whatever_failed() {
        for failure in [Failure::Connect, Failure::Dead, Failure::Abandoned] {
            assert!(may_retry(failure, GET, sent(1), 2), "{failure:?}");
            assert!(!may_retry(failure, Request { replayable: false, ..GET }, sent(1), 2), "{failure:?}");
        }
    }

    #[test]
    fn budget_bears_a_fifth_of_the_requests_and_ten_a_second() {
        let start = crate::clock::now();
        let mut budget = Budget::new(start);
        let burst = (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(burst, 256);
        assert!(!budget.has_one());
        budget.refill(100, start);
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
        let later = start + Duration::from_secs(2);
        budget.refill(0, later);
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
        budget.refill(u32::MAX, later);
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 256, "saved up without bound");
    }
}
