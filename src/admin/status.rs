//! What `/status` says, as `evenkeel status` reads it: the running process, its upstreams, their replicas, and why.
//!
//! Times are relative ("so many seconds ago"), so that neither end's clock matters. What another version does not tell is
//! read as nothing, 0 or the like, so that a command can ask a proxy that was started from an older image.

use crate::admin::metrics::Answer;
use crate::pool::{EndpointView, Event, Health, HeldBack, Membership, Resolution};
use crate::upstream::Choice;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Where the configuration comes from if there is no file.
pub const ENVIRONMENT: &str = "the environment alone";

/// A replica that owes an answer for less than this is never called silent …
pub const PATIENCE: Duration = Duration::from_secs(2);

/// … nor one that owes it for less than so many times the mean time to its first byte. Where times are distributed
/// exponentially, fewer than one request in two hundred takes longer.
const UNUSUAL: u32 = 10;

/// The whole of `/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Why it is not ready; `None` when it is.
    pub not_ready: Option<String>,
    /// Whether it is about to end.
    pub draining: bool,
    /// Where clients connect.
    pub listen: String,
    /// Threads that serve.
    pub workers: usize,
    /// Client connections now.
    pub connections: usize,
    /// Client connections at most.
    pub max_connections: usize,
    /// Requests now, waiting ones included.
    pub requests: usize,
    /// Where the configuration comes from: a file's path, or [`ENVIRONMENT`].
    pub config: String,
    /// How the last reload ended, if there was one.
    pub last_reload: Option<Reload>,
    /// In the configuration's order.
    pub upstreams: Vec<UpstreamStatus>,
}

/// A reload of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// How long ago.
    pub seconds_ago: f64,
    /// Why it was refused; `None` if it was taken over.
    pub error: Option<String>,
}

/// One upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its host and port there.
    pub address: String,
    /// What a client meets when no replica can be reached: `close` or `respond`.
    pub on_failure: String,
    /// Whether an operator has all requests wait.
    pub paused: bool,
    /// Addresses that an operator took out of use, also those that DNS does not list now.
    pub drained: Vec<String>,
    /// Requests that wait for a replica.
    pub waiting: usize,
    /// As many may wait.
    pub max_waiting: usize,
    /// Client addresses that those come from.
    pub waiting_callers: usize,
    /// For how long the one has waited whose turn is next.
    pub next_waited_seconds: Option<f64>,
    /// Requests that have ended since the start.
    pub requests: u64,
    /// Of those, the ones that no replica answered whole.
    pub failed: u64,
    /// Responses of replicas that said 5xx. They are passed on as they are.
    pub server_errors: u64,
    /// Attempts after the first: requests asked again, of another replica mostly.
    pub retries: u64,
    /// Whether at least one replica is usable.
    pub healthy: bool,
    /// For how long requests have waited and none was answered, where no replica is usable.
    pub no_answer_seconds: Option<f64>,
    /// For how long no replica can be picked, or none answers though requests wait; `None` while one does.
    pub outage_seconds: Option<f64>,
    /// How the last question to DNS ended; `None` before that.
    pub dns: Option<DnsStatus>,
    /// How long ago DNS said which addresses there are, or that there are none; `None` if it never did.
    pub dns_answer_seconds_ago: Option<f64>,
    /// Its replicas.
    pub endpoints: Vec<EndpointStatus>,
    /// What happened last, oldest first.
    pub timeline: Vec<Occurrence>,
    /// The last failed requests, oldest first.
    pub failures: Vec<FailedRequest>,
}

/// An answer of DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsStatus {
    /// How long ago it came.
    pub seconds_ago: f64,
    /// How long it took.
    pub took_seconds: f64,
    /// Addresses it listed; `None` if it said nothing about them.
    pub addresses: Option<usize>,
    /// Why it said nothing about them.
    pub error: Option<String>,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointStatus {
    /// Its number in this process; an address that left and came back gets a new one.
    pub id: u64,
    /// Address and port.
    pub address: String,
    /// What its container is called, where DNS knows it.
    pub name: Option<String>,
    /// `active`, or `draining`: no longer listed.
    pub membership: Membership,
    /// `unproven`, `up` or `down`.
    pub health: Health,
    /// Whether requests go to it, it is known to work and it answers.
    pub usable: bool,
    /// For how long its requests have waited and none was answered, where that is longer than usual.
    pub no_answer_seconds: Option<f64>,
    /// How long it has been as it is.
    pub since_seconds: f64,
    /// Why it is as it is.
    pub reason: String,
    /// Refused or broke in use, and neither listed anew nor probed since.
    pub suspect: bool,
    /// Taken out of use by an operator.
    pub drained: bool,
    /// Ejected for so long to come.
    pub ejected_for_seconds: Option<f64>,
    /// Why it is not picked; `None` if it may be.
    pub held_back: Option<HeldBack>,
    /// Requests it has.
    pub in_flight: u32,
    /// Upgraded connections and other long streams: they do not count for the pick.
    pub streams: u32,
    /// Requests it may have while cold.
    pub window: Option<u32>,
    /// The factor on `in flight + 1`: 1, unless it is certainly slow or stopped answering.
    pub weight: f64,
    /// What the pick compares: (in flight + 1) · weight, or 1 for an idle one that is due for a trial. `None` if it is
    /// not to be picked.
    pub score: Option<f64>,
    /// Whether the next request may go to it: no other has a lower score and room.
    pub next: bool,
    /// Geometric mean of the time to its responses' first byte.
    pub first_byte_seconds: Option<f64>,
    /// Connections to it that wait for a request.
    pub idle_connections: usize,
    /// Requests it was sent since it joined.
    pub requests: u64,
    /// Those that it did not answer.
    pub failures: u64,
    /// Its responses that said 5xx.
    pub server_errors: u64,
}

/// A change of state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Occurrence {
    /// How long ago.
    pub seconds_ago: f64,
    /// Whom it concerns; `None`: the upstream as a whole.
    pub address: Option<String>,
    /// What happened, as the label `event` of `evenkeel_events_total` says it.
    pub kind: String,
    /// What happened, and why, in words.
    pub what: String,
}

/// A request that no replica answered whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedRequest {
    /// How long ago it ended.
    pub seconds_ago: f64,
    /// What it is called: its client's name for it, or the process's. `evenkeel why` takes it.
    pub id: String,
    /// The error type of RFC 9209, section 2.3.
    pub reason: String,
    /// The reason in words.
    pub text: String,
    /// Who was tried, in order.
    pub endpoints: Vec<String>,
    /// From its whole head to its end.
    pub took_seconds: f64,
    /// How long of that it waited for a replica or a connection.
    pub waited_seconds: f64,
    /// From whom it came.
    pub client: String,
    /// Its method.
    pub method: String,
    /// Its target; without its query unless `server.log_query` asks for it.
    pub target: String,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
    /// Why replicas got no requests then.
    pub unusable: Option<String>,
}

/// What the pool does not know of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests it has.
    pub in_flight: u32,
    /// Long streams it has.
    pub streams: u32,
    /// Connections to it that wait for a request.
    pub idle_connections: usize,
    /// Requests it was sent.
    pub requests: u64,
    /// Those that it did not answer.
    pub failures: u64,
    /// Its responses that said 5xx.
    pub server_errors: u64,
    /// For how long requests have waited for an answer of it; `None` if none does.
    pub silent_for: Option<Duration>,
}

impl EndpointStatus {
    /// Of what the pool says, what was published to requests (`None`: it is no candidate), and what is live.
    pub fn new(view: &EndpointView, choice: Option<&Choice>, live: Live, now: Instant) -> Self {
        let Live { in_flight, streams, idle_connections, requests, failures, server_errors, silent_for } = live;
        let in_flight = choice.map_or(in_flight, |choice| choice.in_flight);
        let no_answer = silent_for.filter(|time| *time > patience(view.mean));
        let works = view.health == Health::Up && !view.suspect && view.ejected_until.is_none();
        EndpointStatus {
            id: view.id.0,
            address: view.address.to_string(),
            name: None,
            membership: view.membership,
            health: view.health,
            usable: choice.is_some() && works && no_answer.is_none(),
            no_answer_seconds: no_answer.map(seconds),
            since_seconds: ago(view.since, now),
            reason: view.reason.clone(),
            suspect: view.suspect,
            drained: view.drained,
            ejected_for_seconds: view.ejected_until.map(|end| ago(now, end)),
            held_back: view.held_back,
            in_flight,
            streams,
            window: view.window,
            weight: choice.map_or(1.0, |choice| choice.candidate.weight),
            score: choice.map(|choice| choice.candidate.score(choice.in_flight)),
            next: choice.is_some_and(|choice| choice.next),
            first_byte_seconds: view.mean.map(|mean| mean.as_secs_f64()),
            idle_connections,
            requests,
            failures,
            server_errors,
        }
    }
}

/// How long a replica with this mean time to its first byte may owe an answer.
fn patience(mean: Option<Duration>) -> Duration {
    mean.map_or(PATIENCE, |mean| PATIENCE.max(mean * UNUSUAL))
}

impl UpstreamStatus {
    /// Draws the conclusion from its replicas: whether anything is answered. `silent_for`: how long requests have waited
    /// without an answer of anyone.
    pub fn judge(&mut self, silent_for: Option<Duration>) {
        self.healthy = self.endpoints.iter().any(|endpoint| endpoint.usable);
        let hung = !self.healthy && !self.endpoints.is_empty();
        self.no_answer_seconds = silent_for.filter(|_| hung).map(seconds);
        self.outage_seconds = self.outage_seconds.into_iter().chain(self.no_answer_seconds).reduce(f64::max);
    }
}

impl DnsStatus {
    /// Of an answer.
    pub fn new(answer: &Answer, now: Instant) -> Self {
        let (addresses, error) = match &answer.resolution {
            Resolution::Addresses(addresses) => (Some(addresses.len()), None),
            Resolution::Absent => (Some(0), None),
            Resolution::Failed(why) => (None, Some(why.clone())),
        };
        DnsStatus { seconds_ago: ago(answer.at, now), took_seconds: answer.took.as_secs_f64(), addresses, error }
    }
}

impl Occurrence {
    /// Of an event that happened at `at`.
    pub fn new(at: Instant, event: &Event, now: Instant) -> Self {
        Occurrence {
            seconds_ago: ago(at, now),
            address: event.address.map(|a| a.to_string()),
            kind: event.kind.name().to_owned(),
            what: event.kind.to_string(),
        }
    }
}

/// Seconds from `then` to `now`, to the millisecond: enough for anybody, and JSON stays readable.
pub fn ago(then: Instant, now: Instant) -> f64 {
    seconds(now.saturating_duration_since(then))
}

/// Seconds, to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::pool::{Candidate, EndpointId};

    fn view() -> EndpointView {
        EndpointView {
            id: EndpointId(3),
            address: "172.18.0.3:8080".parse().unwrap(),
            membership: Membership::Active,
            health: Health::Up,
            since: clock::now(),
            reason: "probe passed".to_owned(),
            suspect: false,
            ejected_until: None,
            drained: false,
            weight: 2.5,
            window: None,
            mean: Some(Duration::from_micros(4100)),
            held_back: None,
        }
    }

    fn choice(in_flight: u32, trial: bool) -> Choice {
        let (id, address) = (view().id, view().address);
        let candidate = Candidate { id, address, weight: 2.5, trial, limit: u32::MAX, ceiling: u32::MAX };
        Choice { candidate, in_flight, next: true }
    }

    fn status(view: &EndpointView, choice: Option<Choice>, silent_for: Option<Duration>) -> EndpointStatus {
        EndpointStatus::new(view, choice.as_ref(), Live { silent_for, ..Live::default() }, clock::now())
    }

    // D23
    #[test]
    fn the_score_is_what_the_pick_compares_and_is_missing_where_nothing_is_picked() {
        assert_eq!(status(&view(), Some(choice(3, false)), None).score, Some(10.0));
        assert_eq!(status(&view(), Some(choice(0, true)), None).score, Some(1.0), "a trial costs as much as any");
        let suspect = EndpointView { suspect: true, held_back: Some(HeldBack::Suspect), ..view() };
        let suspect = status(&suspect, None, None);
        assert_eq!((suspect.score, suspect.next, suspect.usable), (None, false, false));
    }

    // U4
    #[test]
    fn a_replica_is_usable_only_while_it_answers_as_fast_as_usual() {
        let of = |mean: u64, silent: u64| {
            let view = EndpointView { mean: Some(Duration::from_millis(mean)), ..view() };
            let status = status(&view, Some(choice(1, false)), Some(Duration::from_millis(silent)));
            assert_eq!(status.usable, status.no_answer_seconds.is_none());
            status.no_answer_seconds
        };
        assert_eq!(of(4, 1900), None, "it may be one slow request");
        assert_eq!(of(4, 4200), Some(4.2));
        assert_eq!(of(3000, 29_000), None, "its requests take long");
        assert_eq!(of(3000, 31_000), Some(31.0));
        let down = EndpointView { health: Health::Down, ..view() };
        assert!(!status(&down, Some(choice(0, false)), None).usable, "tried for want of a better one");
    }

    // U4
    #[test]
    fn an_upstream_is_healthy_while_one_replica_is_usable() {
        let second = Some(Duration::from_secs(7));
        let of = |usable: &[bool], silent_for, outage_seconds| {
            let endpoint = |usable: &bool| EndpointStatus { usable: *usable, ..EndpointStatus::default() };
            let endpoints = usable.iter().map(endpoint).collect();
            let mut upstream = UpstreamStatus { endpoints, outage_seconds, ..UpstreamStatus::default() };
            upstream.judge(silent_for);
            (upstream.healthy, upstream.no_answer_seconds, upstream.outage_seconds)
        };
        assert_eq!(of(&[true, false], second, None), (true, None, None));
        assert_eq!(of(&[false, false], second, None), (false, Some(7.0), Some(7.0)));
        assert_eq!(of(&[false], None, None), (false, None, None), "down, and nobody asks");
        assert_eq!(of(&[false], second, Some(9.0)), (false, Some(7.0), Some(9.0)));
        assert_eq!(of(&[], second, Some(9.0)), (false, None, Some(9.0)), "there is nobody who could answer");
    }

    #[test]
    fn a_status_survives_json() {
        let upstream = UpstreamStatus {
            name: "db-checker".to_owned(),
            endpoints: vec![status(&view(), Some(choice(3, false)), None)],
            outage_seconds: Some(1.5),
            ..UpstreamStatus::default()
        };
        let whole = Status { version: "1".to_owned(), upstreams: vec![upstream], ..Status::default() };
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), whole);
    }
}
