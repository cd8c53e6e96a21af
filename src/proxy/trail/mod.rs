//! Why a request went where it went: what each of the last requests met, step by step.
//!
//! A request writes its steps into a [`Trail`] of its own, which is swapped at its end for the oldest one of a ring: once the
//! ring is full, nothing is allocated and nothing copied. All workers share the ring, so that it holds the last requests
//! whichever of them served them; they lock it for as long as it takes to swap two pointers.

mod explanation;

use super::answer::Problem;
use super::log;
use super::request::RequestHead;
use crate::clock;
use crate::upstream::Seen;
use crate::worker;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that are remembered, whatever became of them.
const REMEMBERED: usize = 1024;

/// Failed requests that are remembered beside them, …
const FAILED: usize = 1024;

/// … for so long.
const FAILED_FOR: Duration = Duration::from_secs(3600);

/// Steps of one request. One that is repeated as often as it may be takes about four for each attempt.
const STEPS: usize = 32;

/// Bytes of a field that may name a request. A UUID has 36, a `traceparent` 55.
const NAME: usize = 128;

/// Trails that lie ready on each thread: a request holds one for as long as it runs.
const SPARE: usize = 64;

/// Requests that one question may find: clients repeat requests, and a trace has many.
const FOUND: usize = 20;

/// One request's way.
#[derive(Debug, Default)]
pub(super) struct Trail {
    id: Id,
    steps: Vec<Step>,
    seen: Seen,
    ended: Option<Ended>,
    /// `METHOD target`, as the log may show it. Bytes, as the rest: only who asks needs text.
    line: Vec<u8>,
    /// Its own `X-Request-Id`, and its `traceparent`; empty: it has none.
    request_id: Vec<u8>,
    traceparent: Vec<u8>,
}

/// A request's number in this process: what the log calls it if it brings no name of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Id {
    process: u32,
    worker: usize,
    number: u64,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// The name of its upstream.
    pub(super) upstream: Arc<str>,
    /// From whom it came.
    pub(super) client: SocketAddr,
    /// When its head was there.
    pub(super) began: Instant,
    /// From then to its end.
    pub(super) took: Duration,
    /// How long of that it waited for a replica or a connection.
    pub(super) waited: Duration,
    /// What its client was told; 0: nothing.
    pub(super) status: u16,
    /// It was told that in part only.
    pub(super) cut: bool,
    /// Why no replica answered it whole.
    pub(super) problem: Option<Problem>,
    /// Why replicas got no requests then.
    pub(super) unusable: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Step {
    at: Instant,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// One was picked; of the candidates, [`Trail::seen`] has those of this range.
    Picked { address: SocketAddr, seen: Range<usize>, candidates: usize },
    /// It had waited in the queue until this one had room.
    Granted(SocketAddr),
    /// Another took it over from one that said nothing.
    Moved(SocketAddr),
    /// It has a connection to this one.
    Connected(SocketAddr, Connected),
    /// It failed there.
    Failed(SocketAddr, Problem),
}

/// What a request is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connected {
    /// A connection that carried requests before.
    Kept,
    /// One of its own.
    New,
    /// One that carries other requests, too.
    Shared,
}

impl Trail {
    /// Where the candidates of the next pick go.
    pub(super) fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// It was picked among those that were just seen.
    pub(super) fn picked(&mut self, at: Instant, address: SocketAddr) {
        let seen = self.seen.of_last();
        self.step(at, What::Picked { address, seen, candidates: self.seen.candidates() });
    }

    /// It waited, and got this one.
    pub(super) fn granted(&mut self, at: Instant, address: SocketAddr) {
        self.step(at, What::Granted(address));
    }

    /// It moved on to this one.
    pub(super) fn moved(&mut self, at: Instant, address: SocketAddr) {
        self.step(at, What::Moved(address));
    }

    /// It has a connection to this one.
    pub(super) fn connected(&mut self, at: Instant, address: SocketAddr, connected: Connected) {
        self.step(at, What::Connected(address, connected));
    }

    /// An attempt failed there.
    pub(super) fn failed(&mut self, at: Instant, address: SocketAddr, problem: &Problem) {
        self.step(at, What::Failed(address, problem.clone()));
    }

    /// What it is called: its own name, or its number.
    pub(super) fn name(&self) -> String {
        if self.request_id.is_empty() { self.id.to_string() } else { text(&self.request_id).into_owned() }
    }

    /// Notes what it asks, as the log may show it, and the names that it brings.
    pub(super) fn describe(&mut self, head: &RequestHead<'_>, log_query: bool) {
        let names = [(&mut self.request_id, head.request_id()), (&mut self.traceparent, head.traceparent())];
        for (text, bytes) in names {
            let bytes = bytes.unwrap_or_default();
            text.clear();
            text.extend_from_slice(&bytes[..bytes.len().min(NAME)]);
        }
        let method = head.method();
        self.line.clear();
        self.line.extend_from_slice(&method[..method.len().min(NAME)]);
        self.line.push(b' ');
        log::push_target(&mut self.line, head.target(), log_query);
    }

    fn step(&mut self, at: Instant, what: What) {
        if self.steps.len() < STEPS {
            self.steps.push(Step { at, what });
        }
    }

    fn ended_at(&self) -> Option<Instant> {
        self.ended.as_ref().map(|ended| ended.began + ended.took)
    }

    fn is_called(&self, name: &str) -> bool {
        // RFC 9110 has no rule for the values of either; a trace is meant by its own part, too (W3C Trace Context 3.2.2).
        let traceparent = text(&self.traceparent);
        let trace = traceparent.split('-').nth(1).unwrap_or_default();
        let names = [&text(&self.request_id), &traceparent, trace];
        !name.is_empty() && (names.contains(&name) || self.id.to_string() == name)
    }

    /// Nothing of the request before stays, above all not its names.
    fn reset(&mut self) {
        self.steps.clear();
        self.seen.clear();
        self.ended = None;
        self.line.clear();
        self.request_id.clear();
        self.traceparent.clear();
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// For a terminal: Unicode has control characters that a field's value may hold, and terminals obey them.
fn shown(bytes: &[u8]) -> String {
    text(bytes).chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}-{}", self.process, self.worker, self.number)
    }
}

/// The ways of the last requests.
#[derive(Debug)]
pub(super) struct Trails {
    /// Part of each number: those of the process before, in its log, are not taken for ours.
    process: u32,
    /// Those that did not fail, oldest first.
    ended: Mutex<VecDeque<Box<Trail>>>,
    failed: Mutex<VecDeque<Box<Trail>>>,
}

thread_local! {
    /// Requests that this thread has begun.
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    /// In boxes, so that a request's future stays small and the ring moves pointers.
    #[allow(clippy::vec_box)]
    static SPARES: RefCell<Vec<Box<Trail>>> = const { RefCell::new(Vec::new()) };
}

impl Trails {
    /// None yet.
    pub(super) fn new() -> Self {
        Trails { process: worker::with_rng(|rng| rng.u32(..)), ended: Mutex::default(), failed: Mutex::default() }
    }

    /// For a request that begins.
    pub(super) fn begin(&self) -> Box<Trail> {
        let mut trail = SPARES.with_borrow_mut(Vec::pop).unwrap_or_default();
        trail.reset();
        let number = BEGUN.get();
        BEGUN.set(number + 1);
        trail.id = Id { process: self.process, worker: worker::index(), number };
        trail
    }

    /// Remembers a request that is over.
    pub(super) fn end(&self, mut trail: Box<Trail>, ended: Ended) {
        let failed = ended.problem.is_some();
        trail.ended = Some(ended);
        if failed {
            self.remember_failed(trail);
            return;
        }
        let oldest = {
            let mut ended = self.ended.lock();
            let oldest = if ended.len() >= REMEMBERED { ended.pop_front() } else { None };
            ended.push_back(trail);
            oldest
        };
        if let Some(oldest) = oldest {
            SPARES.with_borrow_mut(|spare| {
                if spare.len() < SPARE {
                    spare.push(oldest);
                }
            });
        }
    }

    fn remember_failed(&self, trail: Box<Trail>) {
        let mut failed = self.failed.lock();
        let now = clock::now();
        let is_old = |trail: &Trail| trail.ended_at().is_some_and(|at| now.saturating_duration_since(at) > FAILED_FOR);
        while failed.len() >= FAILED || failed.front().is_some_and(|oldest| is_old(oldest)) {
            failed.pop_front();
        }
        failed.push_back(trail);
    }

    /// What is known of the requests that are called so, newest first, in words. `None`: nothing.
    pub(super) fn explain(&self, name: &str) -> Option<String> {
        self.explain_those(FOUND, |trail| trail.is_called(name))
    }

    /// What is known of the last request that ended.
    pub(super) fn explain_last(&self) -> Option<String> {
        self.explain_those(1, |_| true)
    }

    fn explain_those(&self, most: usize, wanted: impl Fn(&Trail) -> bool) -> Option<String> {
        let now = clock::now();
        let mut found: Vec<(Instant, String)> = Vec::new();
        for ring in [&self.ended, &self.failed] {
            let ring = ring.lock();
            let those = ring.iter().rev().filter(|trail| wanted(trail)).take(most);
            found.extend(those.filter_map(|trail| Some((trail.ended_at()?, trail.explain(now)?))));
        }
        found.sort_by_key(|(at, _)| Reverse(*at));
        found.truncate(most);
        let texts: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that ended so long ago.
    fn ended(ago: Duration, problem: Option<Problem>) -> Ended {
        Ended {
            upstream: "app".into(),
            client: "10.0.0.1:1".parse().unwrap(),
            began: clock::now() - ago,
            took: Duration::ZERO,
            waited: Duration::ZERO,
            status: 200,
            cut: false,
            problem,
            unusable: None,
        }
    }

    fn remember(trails: &Trails, ago: Duration, problem: Option<Problem>) -> String {
        let trail = trails.begin();
        let name = trail.name();
        trails.end(trail, ended(ago, problem));
        name
    }

    // P21
    #[test]
    fn the_last_thousand_are_known_and_of_failed_ones_those_of_an_hour() {
        let trails = Trails::new();
        let failed = remember(&trails, Duration::ZERO, Some(Problem::Refused));
        let first = remember(&trails, Duration::ZERO, None);
        assert!(trails.explain(&first).is_some());
        (0..REMEMBERED).for_each(|_| drop(remember(&trails, Duration::ZERO, None)));
        assert_eq!(trails.explain(&first), None);
        assert!(trails.explain(&failed).is_some(), "it failed less than an hour ago");
        (0..FAILED).for_each(|_| drop(remember(&trails, FAILED_FOR * 2, Some(Problem::Refused))));
        assert_eq!(trails.explain(&failed), None, "a thousand others failed since");
        remember(&trails, Duration::ZERO, Some(Problem::Refused));
        assert_eq!(trails.failed.lock().len(), 1, "what is older than an hour goes");
    }

    #[test]
    fn a_number_finds_its_own_request_only() {
        let trails = Trails::new();
        let (first, second) = (remember(&trails, Duration::ZERO, None), remember(&trails, Duration::ZERO, None));
        assert!(trails.explain(&first).unwrap().contains(&format!("\nid {first}\n")));
        assert_ne!(first, second);
        for other in ["", "-", "0-0-0", &first[1..], &format!("{first}-0"), &format!("{first}0")] {
            assert_eq!(trails.explain(other), None, "{other:?}");
        }
        assert!(trails.explain_last().unwrap().contains(&second));
    }

    #[test]
    fn a_request_has_no_name_of_another_that_was_remembered_in_the_same_place() {
        let trails = Trails::new();
        let mut trail = trails.begin();
        trail.request_id.extend_from_slice(b"theirs");
        trails.end(trail, ended(Duration::ZERO, None));
        let named = (0..REMEMBERED + SPARE).filter(|_| remember(&trails, Duration::ZERO, None) == "theirs").count();
        assert_eq!(named, 0);
    }

    #[test]
    fn what_a_client_calls_its_request_commands_no_terminal() {
        let trails = Trails::new();
        let mut trail = trails.begin();
        trail.request_id.extend_from_slice("a\u{9b}31mb\u{85}ü\u{ff}".as_bytes());
        trail.request_id.push(0xff);
        trails.end(trail, ended(Duration::ZERO, None));
        let text = trails.explain_last().unwrap();
        assert!(text.contains("X-Request-Id a\u{fffd}31mb\u{fffd}üÿ\u{fffd}\n"), "{text:?}");
    }

    #[test]
    fn a_request_that_is_tried_for_ever_is_remembered_in_bounded_space() {
        let trails = Trails::new();
        let mut trail = trails.begin();
        let address = "10.0.0.1:80".parse().unwrap();
        (0..1000).for_each(|_| trail.failed(clock::now(), address, &Problem::Refused));
        assert_eq!(trail.steps.len(), STEPS);
        let name = trail.name();
        trails.end(trail, ended(Duration::ZERO, None));
        let text = trails.explain(&name).unwrap();
        assert!(text.ends_with("answered with 200\n"), "{text}");
    }
}
