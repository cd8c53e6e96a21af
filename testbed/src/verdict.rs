//! What a [`Churn`](crate::Churn) cost, held against what the proxy promises.
//!
//! A lost GET is always the proxy's fault. A lost POST is not if a replica received it, as the [`Ledger`] tells: it may
//! have run. Nor if it was written to a replica that was killed before it had read it: from outside the replica that
//! cannot be told from the former. Any other lost POST reached nobody, and HTTP would have let it be saved. A 500 of an
//! app that was told to fail is an answer.

use crate::{Ledger, Loss, LossKind, Proxy, Report};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request that was written to a replica which is then killed is told of within this time, even on a busy machine; and
/// one may be due so long before the client gets to send it.
const NEAR: Duration = Duration::from_millis(500);

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
    gets: usize,
    /// POSTs that reached nobody.
    saveable: usize,
    /// POSTs written to a replica that was killed before it read them.
    unread: usize,
    /// POSTs that a replica received.
    received: usize,
    /// 500 of the app's.
    errors: usize,
    times: [Duration; 3],
}

/// How a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Get,
    Saveable,
    Unread,
    Received,
}

impl Verdict {
    /// Judges `report`. `kills` are the times at which replicas were killed, `violations` what was seen on the way,
    /// `misdirected` the requests that another app got.
    pub(crate) fn new(
        report: Report,
        ledger: &Ledger,
        kills: &[Duration],
        violations: Vec<String>,
        misdirected: u64,
        proxy: &Proxy,
    ) -> Verdict {
        let received = ledger.received();
        let mut verdict = Verdict { violations, ..Verdict::default() };
        let mut names = report.phases();
        names.retain(|name| *name != "start");
        for name in names {
            verdict.rows.push(Row::new(name, &report.phase(name), &received, kills));
        }
        verdict.rows.push(Row::new("all", &report, &received, kills));
        for loss in report.lost() {
            if matches!(kind(loss, &received, kills), Kind::Get | Kind::Saveable) {
                verdict.violations.push(format!("lost: {loss:?}"));
            }
        }
        for (id, who) in received.iter().filter(|(_, who)| who.len() > 1) {
            verdict.violations.push(format!("POST {id} was sent to {who:?}"));
        }
        let twice = received.values().filter(|who| who.len() > 1).count();
        verdict.totals = format!("POSTs seen twice: {twice}; requests that met another app: {misdirected}");
        verdict.hear(&report, proxy);
        verdict.log = proxy.output();
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
|  | requests | GETs lost | POSTs lost: reached nobody | … unread by the killed | … received | app's 500 | p50 | p99 | p99.9 |
|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"
        .to_owned();
        let millis = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1e3);
        for row in &self.rows {
            let Row { name, sent, gets, saveable, unread, received, errors, times } = row;
            let times = times.map(millis).join(" | ");
            text +=
                &format!("| {name} | {sent} | {gets} | {saveable} | {unread} | {received} | {errors} | {times} |\n");
        }
        text + "\n" + &self.totals + "\n"
    }

    /// The 99th percentile of a phase.
    pub fn p99(&self, phase: &str) -> Duration {
        self.rows.iter().find(|row| row.name == phase).map_or(Duration::ZERO, |row| row.times[1])
    }

    /// Whether the proxy told of each failure: counted, and said in the log with what it left unsaid.
    fn hear(&mut self, report: &Report, proxy: &Proxy) {
        let told = report.lost().iter().filter(|l| matches!(&l.kind, LossKind::Status(_, who) if !who.is_empty()));
        let failed = told.count() as u64;
        let counted = proxy.metric("evenkeel_failed_requests_total", &["upstream=\"app\""]) as u64;
        let unsaid = proxy.lines("more requests failed in the same second");
        let unsaid: u64 =
            unsaid.iter().filter_map(|l| l.split("count=").nth(1)?.split(' ').next()?.parse::<u64>().ok()).sum();
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
    fn new(name: &str, part: &Report, received: &BTreeMap<u64, Vec<String>>, kills: &[Duration]) -> Row {
        let count = |wanted| part.lost().iter().filter(|l| kind(l, received, kills) == wanted).count();
        Row {
            name: name.into(),
            sent: part.sent(),
            gets: count(Kind::Get),
            saveable: count(Kind::Saveable),
            unread: count(Kind::Unread),
            received: count(Kind::Received),
            errors: count(Kind::Error),
            times: [0.5, 0.99, 0.999].map(|share| part.percentile(share)),
        }
    }
}

fn kind(loss: &Loss, received: &BTreeMap<u64, Vec<String>>, kills: &[Duration]) -> Kind {
    let broken = match &loss.kind {
        LossKind::Status(500, who) if who.is_empty() => return Kind::Error,
        LossKind::Status(502, who) => who.contains("error=connection_terminated"),
        _ => false,
    };
    let Some(id) = loss.post else { return Kind::Get };
    if received.contains_key(&id) {
        return Kind::Received;
    }
    let span = loss.due.saturating_sub(NEAR)..=loss.due + loss.after;
    if broken && kills.iter().any(|kill| span.contains(kill)) { Kind::Unread } else { Kind::Saveable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(post: Option<u64>, due: u64, kind: LossKind) -> Loss {
        let (due, after) = (Duration::from_secs(due), Duration::from_millis(100));
        Loss { due, after, phase: "p".into(), post, kind }
    }

    #[test]
    fn only_what_http_forbids_to_repeat_is_excused() {
        let received = BTreeMap::from([(1, vec!["app.1".to_owned()])]);
        let kills = [Duration::from_secs(10)];
        let broken = || LossKind::Status(502, "evenkeel; error=connection_terminated".into());
        let refused = || LossKind::Status(502, "evenkeel; error=connection_refused".into());
        for (post, due, how, expected) in [
            (None, 10, broken(), Kind::Get),
            (None, 10, LossKind::Status(500, String::new()), Kind::Error),
            (Some(1), 10, broken(), Kind::Received),
            (Some(2), 10, broken(), Kind::Unread),
            (Some(2), 12, broken(), Kind::Saveable),
            (Some(2), 10, refused(), Kind::Saveable),
            (Some(2), 10, LossKind::GivenUp, Kind::Saveable),
        ] {
            let loss = loss(post, due, how);
            assert_eq!(kind(&loss, &received, &kills), expected, "{loss:?}");
        }
    }
}
