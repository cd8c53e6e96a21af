//! What a [`Churn`](crate::Churn) cost, held against what the proxy promises.
//!
//! Nothing is forgiven by its kind alone. A loss is forgiven only where its [`Cause`] was made by the test, at that time and
//! to that replica: the replica that had the request was killed while it had it, or was told to fail, or so many requests
//! waited in an outage that no more may wait. What the replicas received stands in the [`Ledger`]; what the proxy met, in
//! its log. All else is a violation.

use crate::{Ledger, Loss, LossKind, Proxy, Report};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What the proxy writes to the sockets of a replica that is dead is not read by anybody; on a busy machine it takes so
/// long until the proxy gets to see that it is dead.
pub const UNSEEN: Duration = Duration::from_millis(500);

/// What the test did to replicas, on the load's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deeds {
    /// Replicas that were killed: from the signal to the end of the process.
    pub(crate) kills: Vec<Deed>,
    /// Replicas that were told to answer 500.
    pub(crate) failures: Vec<Deed>,
    /// Times without any replica, to the moment at which the proxy had one again.
    pub(crate) outages: Vec<RangeInclusive<Duration>>,
}

/// Something that was done to a replica.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) replica: String,
    pub(crate) address: SocketAddr,
    pub(crate) time: RangeInclusive<Duration>,
}

/// The findings.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    rows: Vec<Row>,
    totals: String,
    violations: Vec<String>,
    log: String,
}

/// What became of the requests of one phase.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    sent: usize,
    counts: [usize; Cause::ALL.len()],
    times: [Duration; 3],
}

/// Why a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// None that forgives a loss.
    None,
    /// It may not be sent twice, and the replica that had received it was killed while it had it.
    Received,
    /// As before, but the replica was killed before it had read it: from outside it that is the same.
    Unread,
    /// The replica was killed within its answer.
    Cut,
    /// `max_waiting` others waited in an outage.
    Refused,
    /// The app answered 500, as it was told to.
    Failed,
}

impl Cause {
    const ALL: [Cause; 6] = [Cause::None, Cause::Received, Cause::Unread, Cause::Cut, Cause::Refused, Cause::Failed];
}

/// What is known beside the losses themselves.
struct Evidence<'a> {
    deeds: &'a Deeds,
    /// Who received which request that has a body.
    received: BTreeMap<u64, Vec<String>>,
    /// What the proxy said of failed requests, by id.
    told: HashMap<u64, Told>,
}

/// What the proxy said of a request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Why, in the words of `Proxy-Status`.
    pub reason: String,
    /// Who was tried, in order.
    pub endpoints: Vec<SocketAddr>,
}

impl Verdict {
    /// Judges `report` by the test's `deeds`. `violations` were seen on the way, `misdirected` requests reached another app.
    pub(crate) fn new(
        report: Report,
        ledger: &Ledger,
        deeds: &Deeds,
        violations: Vec<String>,
        misdirected: u64,
        proxy: &Proxy,
    ) -> Verdict {
        let log = proxy.output();
        let evidence = Evidence { deeds, received: ledger.received(), told: told(&log) };
        let mut verdict = Verdict { violations, log, ..Verdict::default() };
        let mut names = report.phases();
        names.retain(|name| *name != "start");
        for name in names {
            verdict.rows.push(Row::new(name, &report.phase(name), &evidence));
        }
        let all = Row::new("all", &report, &evidence);
        for loss in report.lost().iter().filter(|loss| evidence.cause(loss) == Cause::None) {
            verdict.violations.push(format!("lost: {loss:?}; the proxy says {:?}", evidence.told.get(&loss.id)));
        }
        let mut twice = 0;
        for id in report.once() {
            if let Some(who) = evidence.received.get(&id).filter(|who| who.len() > 1) {
                twice += 1;
                verdict.violations.push(format!("request {id} may be sent once and was sent to {who:?}"));
            }
        }
        let refused = proxy.metric("evenkeel_failed_requests_total", &["reason=\"connection_limit_reached\""]) as usize;
        if all.count(Cause::Refused) != refused {
            let count = all.count(Cause::Refused);
            verdict.violations.push(format!("{count} lost in outages without another cause; refused were {refused}"));
        }
        verdict.rows.push(all);
        verdict.totals = format!(
            "POSTs seen twice: {twice}; answers to another request or with other bytes: {}; requests that met another app: \
             {misdirected}",
            report.lost().iter().filter(|l| l.kind.is_wrong()).count(),
        );
        verdict.hear(&report, proxy);
        verdict
    }

    /// What must not have been; empty if all is well.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What the proxy said.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// A line for each phase.
    pub fn table(&self) -> String {
        let mut text = "\
|  | requests | lost | POST, its replica killed | … before it read it | answer cut by a kill | refused: `max_waiting` | \
app's 500 | p50 | p99 | p99.9 |
|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"
        .to_owned();
        let millis = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1e3);
        for row in &self.rows {
            let Row { name, sent, counts, times } = row;
            let counts = counts.map(|n| n.to_string()).join(" | ");
            text += &format!("| {name} | {sent} | {counts} | {} |\n", times.map(millis).join(" | "));
        }
        text + "\n" + &self.totals + ".\n"
    }

    /// What became of all requests, in a sentence or two.
    pub fn sentence(&self) -> String {
        let all = self.rows.last().expect("the row of all requests");
        let killed = all.count(Cause::Received) + all.count(Cause::Unread);
        format!(
            "Of {} requests, {} were lost that could have been saved. {killed} POSTs died with the replica that had them, and \
             HTTP forbids to send those again; answers cut by a kill: {}; refused beyond `max_waiting`: {}. {}.\n",
            all.sent,
            all.count(Cause::None),
            all.count(Cause::Cut),
            all.count(Cause::Refused),
            self.totals,
        )
    }

    /// The 99th percentile of a phase.
    pub fn p99(&self, phase: &str) -> Duration {
        self.rows.iter().find(|row| row.name == phase).map_or(Duration::ZERO, |row| row.times[1])
    }

    /// Whether the proxy told of each failure: counted, and said in the log with what it left unsaid.
    fn hear(&mut self, report: &Report, proxy: &Proxy) {
        let told = report.lost().iter().filter(|l| match &l.kind {
            LossKind::Status(_, who) => !who.is_empty(),
            LossKind::Broken(_) | LossKind::Cut(_) => true,
            _ => false,
        });
        let failed = told.count() as u64;
        let counted = proxy.metric("evenkeel_failed_requests_total", &[]) as u64;
        let unsaid = proxy.lines("more requests failed in the same second");
        let unsaid: u64 = unsaid.iter().filter_map(|l| field(l, "count").parse::<u64>().ok()).sum();
        let said = proxy.lines("request failed: ").len() as u64 + unsaid;
        if counted != failed || said != failed {
            let text = format!("{failed} requests failed, /metrics counts {counted}, the log tells of {said}");
            self.violations.push(text);
        }
        let known = ["request failed: ", "more requests failed", " down: ", " ejected: ", "name does not resolve: "];
        for line in proxy.lines("WARN").into_iter().chain(proxy.lines("ERROR")) {
            if !known.iter().any(|text| line.contains(text)) {
                self.violations.push(format!("unexpected: {line}"));
            }
        }
    }
}

impl Row {
    fn new(name: &str, part: &Report, evidence: &Evidence<'_>) -> Row {
        let count = |wanted| part.lost().iter().filter(|l| evidence.cause(l) == wanted).count();
        Row {
            name: name.into(),
            sent: part.sent(),
            counts: Cause::ALL.map(count),
            times: [0.5, 0.99, 0.999].map(|share| part.percentile(share)),
        }
    }

    fn count(&self, cause: Cause) -> usize {
        Cause::ALL.iter().position(|c| *c == cause).map_or(0, |i| self.counts[i])
    }
}

impl Evidence<'_> {
    fn cause(&self, loss: &Loss) -> Cause {
        let while_under_way = |deed: &Deed, late: Duration| {
            let under_way = loss.due..=loss.due + loss.after;
            *deed.time.start() <= *under_way.end() && *under_way.start() <= *deed.time.end() + late
        };
        let killed = |replica: &str| {
            self.deeds.kills.iter().any(|kill| kill.replica == replica && while_under_way(kill, Duration::ZERO))
        };
        let told = self.told.get(&loss.id);
        match &loss.kind {
            LossKind::Status(500, proxy) if proxy.is_empty() => {
                let fails = |deed: &Deed| deed.replica == loss.replica && while_under_way(deed, Duration::ZERO);
                if self.deeds.failures.iter().any(fails) { Cause::Failed } else { Cause::None }
            }
            LossKind::Cut(_) if killed(&loss.replica) => Cause::Cut,
            LossKind::Broken(_) => {
                let received = self.received.get(&loss.id);
                if received.is_some_and(|who| !loss.repeatable && who.iter().any(|replica| killed(replica))) {
                    return Cause::Received;
                }
                let last = |told: &Told, kill: &Deed| told.endpoints.last() == Some(&kill.address);
                let unread = |told: &Told| {
                    told.reason == "connection_terminated"
                        && self.deeds.kills.iter().any(|kill| last(told, kill) && while_under_way(kill, UNSEEN))
                };
                if received.is_none() && !loss.repeatable && told.is_some_and(unread) {
                    return Cause::Unread;
                }
                // Of ten a second the proxy tells each, of the others how many they are; their count is held against its
                // own by the caller.
                let refused = told.is_none_or(|told| told.reason == "connection_limit_reached");
                let outage = |time: &RangeInclusive<Duration>| time.contains(&(loss.due + loss.after));
                if received.is_none() && refused && self.deeds.outages.iter().any(outage) {
                    return Cause::Refused;
                }
                Cause::None
            }
            _ => Cause::None,
        }
    }
}

/// What the proxy's log says of failed requests, by the id in their targets.
pub fn told(log: &str) -> HashMap<u64, Told> {
    let parse = |line: &str| {
        let id = field(line, "target").split('/').nth(2)?.parse().ok()?;
        let endpoints = field(line, "endpoints").trim_matches(['[', ']']).split(", ");
        let endpoints = endpoints.filter_map(|address| address.parse().ok()).collect();
        Some((id, Told { reason: field(line, "reason").to_owned(), endpoints }))
    };
    log.lines().filter(|line| line.contains("request failed: ")).filter_map(parse).collect()
}

/// A field of a line of the log, without its quotes; empty where there is none.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let Some((_, rest)) = line.split_once(&format!(" {name}=")) else { return "" };
    match rest.as_bytes().first() {
        Some(b'"') => rest[1..].split('"').next().unwrap_or_default(),
        Some(b'[') => &rest[..rest.find(']').map_or(rest.len(), |end| end + 1)],
        _ => rest.split(' ').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Method;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn deed(replica: &str, last_byte: u8, time: RangeInclusive<u64>) -> Deed {
        let address = ([127, 0, 0, last_byte], 80).into();
        Deed { replica: replica.into(), address, time: at(*time.start())..=at(*time.end()) }
    }

    /// app.1 is killed after 10 s, app.2 told to fail from 20 to 23 s, and nobody is there from 30 to 33 s.
    fn deeds() -> Deeds {
        Deeds {
            kills: vec![deed("app.1", 1, 10..=10)],
            failures: vec![deed("app.2", 2, 20..=23)],
            outages: vec![at(30)..=at(33)],
        }
    }

    fn told(reason: &str, last: &str) -> Option<Told> {
        let endpoints = ["127.0.0.9:80", last].iter().filter_map(|address| address.parse().ok()).collect();
        Some(Told { reason: reason.into(), endpoints })
    }

    /// A POST of id 1 that ends 100 ms after it was due.
    fn post(due: u64, kind: LossKind, replica: &str) -> Loss {
        let (phase, replica) = ("p".into(), replica.into());
        let (due, after) = (at(due), Duration::from_millis(100));
        Loss { due, after, phase, id: 1, method: Method::POST, repeatable: false, replica, kind }
    }

    #[track_caller]
    fn assert_cause(loss: &Loss, received: &[&str], told: Option<Told>, expected: Cause) {
        let deeds = deeds();
        let mut evidence = Evidence { deeds: &deeds, received: BTreeMap::new(), told: HashMap::new() };
        if !received.is_empty() {
            evidence.received.insert(1, received.iter().map(|r| (*r).to_owned()).collect());
        }
        evidence.told.extend(told.map(|told| (1, told)));
        assert_eq!(evidence.cause(loss), expected, "{loss:?}");
    }

    fn broken() -> LossKind {
        LossKind::Broken("closed".into())
    }

    #[test]
    fn a_post_that_was_received_is_forgiven_only_if_its_replica_was_killed_while_it_had_it() {
        let terminated = || told("connection_terminated", "127.0.0.1:80");
        assert_cause(&post(10, broken(), ""), &["app.1"], terminated(), Cause::Received);
        assert_cause(&post(10, broken(), ""), &["app.2"], terminated(), Cause::None);
        assert_cause(&post(11, broken(), ""), &["app.1"], terminated(), Cause::None);
        assert_cause(&post(9, broken(), ""), &["app.1"], terminated(), Cause::None);
    }

    #[test]
    fn a_post_that_nobody_received_is_forgiven_only_if_it_was_written_to_the_killed() {
        assert_cause(&post(10, broken(), ""), &[], told("connection_terminated", "127.0.0.1:80"), Cause::Unread);
        assert_cause(&post(10, broken(), ""), &[], told("connection_terminated", "127.0.0.2:80"), Cause::None);
        assert_cause(&post(10, broken(), ""), &[], told("connection_refused", "127.0.0.1:80"), Cause::None);
        assert_cause(&post(10, broken(), ""), &[], None, Cause::None);
        assert_cause(&post(12, broken(), ""), &[], told("connection_terminated", "127.0.0.1:80"), Cause::None);
    }

    #[test]
    fn a_request_that_may_be_repeated_is_never_forgiven_but_cut_in_its_answer() {
        let get = |kind, replica| Loss { method: Method::GET, repeatable: true, ..post(10, kind, replica) };
        assert_cause(&get(broken(), ""), &["app.1"], told("connection_terminated", "127.0.0.1:80"), Cause::None);
        let cut = || LossKind::Cut("reset".into());
        assert_cause(&get(cut(), "app.1"), &[], None, Cause::Cut);
        assert_cause(&get(cut(), "app.2"), &[], None, Cause::None);
    }

    #[test]
    fn a_500_is_forgiven_only_of_the_replica_that_was_told_to_fail_and_while_it_was() {
        let failed = || LossKind::Status(500, String::new());
        assert_cause(&post(21, failed(), "app.2"), &["app.2"], None, Cause::Failed);
        assert_cause(&post(21, failed(), "app.1"), &["app.1"], None, Cause::None);
        assert_cause(&post(24, failed(), "app.2"), &["app.2"], None, Cause::None);
        assert_cause(&post(21, LossKind::Status(500, "evenkeel; error=x".into()), "app.2"), &[], None, Cause::None);
    }

    #[test]
    fn a_refusal_is_forgiven_only_in_an_outage() {
        let full = || told("connection_limit_reached", "");
        assert_cause(&post(31, broken(), ""), &[], full(), Cause::Refused);
        assert_cause(&post(31, broken(), ""), &[], None, Cause::Refused);
        assert_cause(&post(31, broken(), ""), &[], told("destination_unavailable", ""), Cause::None);
        assert_cause(&post(34, broken(), ""), &[], full(), Cause::None);
    }

    #[test]
    fn a_wrong_answer_is_never_forgiven() {
        assert_cause(&post(10, LossKind::Foreign("x".into()), "app.1"), &["app.1"], None, Cause::None);
        assert_cause(&post(10, LossKind::Garbled("x".into()), "app.1"), &["app.1"], None, Cause::None);
        assert_cause(&post(10, LossKind::GivenUp, "app.1"), &["app.1"], None, Cause::None);
    }

    #[test]
    fn the_proxys_own_word_is_found_by_the_id_in_the_target() {
        let line = "2026-01-01T00:00:00Z  WARN request failed: no replica accepted a connection upstream=\"db\" \
            reason=\"connection_refused\" endpoints=[127.0.0.1:80, 127.0.0.2:80] waited=1ms client=127.0.0.1:5 \
            method=\"POST\" target=\"/unique/77/12?chunked\"";
        let found = super::told(line);
        let endpoints = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], 80))).to_vec();
        let expected = Told { reason: "connection_refused".into(), endpoints };
        assert_eq!(found, HashMap::from([(77, expected)]));
    }
}
