//! The state of things in one sentence: what is wrong, since when, and what it does to callers.

use super::history::{History, SLOT, Since};
use super::status::{EndpointStatus, FailedRequest, Status, UpstreamStatus};
use super::wording::{age, count, grouped, latency};
use crate::pool::Membership;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Failures are news for so many seconds.
const NEWS: f64 = 60.0;

/// A replica that has just come is no trouble for so many seconds, and what failed so long before a replica was found to be
/// down failed with it.
const GRACE: f64 = 5.0;

/// A replica is called slow that has so many times the weight of the others: what the balancer is certain of.
pub(crate) const SLOW: f64 = 1.5;

/// From this share of 5xx on an app is called failing.
const ERRING: f64 = 0.05;

/// … and from this on all of its callers notice.
const MOSTLY: f64 = 0.5;

/// How things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    #[default]
    Good,
    /// Something is wrong, and callers hardly notice.
    Doubtful,
    /// Callers notice.
    Bad,
}

impl Level {
    /// The same as a shape, for readers who do not see its colour.
    pub fn mark(self) -> &'static str {
        match self {
            Level::Good => "●",
            Level::Doubtful => "▲",
            Level::Bad => "✖",
        }
    }
}

/// A sentence and what it comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headline {
    /// What it comes to.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

impl Headline {
    fn bad(text: String) -> Self {
        Headline { level: Level::Bad, text }
    }

    fn doubtful(text: String) -> Self {
        Headline { level: Level::Doubtful, text }
    }

    /// Of the whole process: the worst of its upstreams, or what is wrong with itself.
    pub fn of(status: &Status, history: &History) -> Headline {
        if status.draining {
            let text = format!("This proxy is ending: it finishes {}.", count(status.requests, "request"));
            return Headline::doubtful(text);
        }
        let upstreams = status.upstreams.iter().map(|upstream| (upstream, Headline::of_upstream(upstream, history)));
        let Some((upstream, worst)) = upstreams.rev().max_by_key(|(_, headline)| headline.level) else {
            return Headline::doubtful("There is no upstream.".to_owned());
        };
        let refused = status.last_reload.as_ref().and_then(|reload| reload.error.as_ref());
        match (worst.level, refused) {
            (Level::Good, Some(why)) => {
                Headline::doubtful(format!("The configuration was not reloaded, the old one holds: {why}"))
            }
            (Level::Good, None) if status.upstreams.len() > 1 => all_well(status, history),
            (_, _) if status.upstreams.len() > 1 => {
                Headline { text: format!("{}: {}", upstream.name, worst.text), ..worst }
            }
            _ => worst,
        }
    }

    /// Of one upstream.
    pub fn of_upstream(upstream: &UpstreamStatus, history: &History) -> Headline {
        let active = |endpoint: &&EndpointStatus| endpoint.membership == Membership::Active;
        let all: Vec<&EndpointStatus> = upstream.endpoints.iter().filter(active).collect();
        let none_failed = impact(upstream, history, "none failed in the last minute");
        let impact = impact(upstream, history, "callers notice nothing");
        if upstream.paused {
            let waiting = count(upstream.waiting, "request");
            return Headline::doubtful(format!("Paused by an operator: {waiting} waiting; {none_failed}."));
        }
        if all.is_empty() {
            let why = match &upstream.dns {
                None => "DNS has not answered yet".to_owned(),
                Some(dns) => {
                    dns.error.clone().unwrap_or_else(|| format!("DNS knows no address of {}", upstream.address))
                }
            };
            return Headline::bad(format!("There is no replica: {why}; {none_failed}."));
        }
        if !upstream.healthy {
            let since = upstream.outage_seconds.or(upstream.no_answer_seconds);
            let since = since.map(|seconds| format!(" for {}", age(seconds))).unwrap_or_default();
            let why = all.iter().take(2).map(|endpoint| what_ails(endpoint)).collect::<Vec<_>>().join("; ");
            let more = if all.len() > 2 { format!("; and {} more", all.len() - 2) } else { String::new() };
            return Headline::bad(format!("Nobody has answered{since}: {why}{more}; {none_failed}."));
        }
        let (usable, ailing): (Vec<&EndpointStatus>, Vec<&EndpointStatus>) =
            all.iter().partition(|endpoint| endpoint.usable);
        // One that has just come is no trouble, and neither is one that was drained on purpose while others serve.
        let is_trouble = |e: &&EndpointStatus| !e.drained && (e.since_seconds > GRACE || is_broken(e));
        let ailing: Vec<_> = ailing.into_iter().filter(is_trouble).collect();
        if let Some(first) = ailing.first() {
            let more = if ailing.len() > 1 { format!("; and {} more", ailing.len() - 1) } else { String::new() };
            let whose = if ailing.len() > 1 { "their" } else { "its" };
            let others = match usable.len() {
                1 => format!("the other one takes {whose} requests"),
                many => format!("the other {many} take {whose} requests"),
            };
            let noticed = met(upstream, first, history);
            let level = if is_failing(upstream) { Level::Bad } else { Level::Doubtful };
            let dns = dns_trouble(upstream).map(|trouble| format!(" {trouble}.")).unwrap_or_default();
            return Headline { level, text: format!("{}{more}; {others}; {noticed}.{dns}", what_ails(first)) };
        }
        if let Some(trouble) = dns_trouble(upstream) {
            let level = if is_failing(upstream) { Level::Bad } else { Level::Doubtful };
            let known = match usable.len() {
                1 => "the usable replica serves on".to_owned(),
                many => format!("the {many} usable replicas serve on"),
            };
            return Headline { level, text: format!("{trouble}; {known}; {impact}.") };
        }
        if let Some(failure) = upstream.failures.last().filter(|failure| failure.seconds_ago < NEWS) {
            return Headline::bad(format!("{}: {}{}.", sentence_case(&impact), failure.text, tried(failure)));
        }
        if let Some(erring) = erring(upstream, history) {
            return erring;
        }
        if let Some(slow) = usable.iter().filter(|e| e.weight >= SLOW).max_by(|a, b| a.weight.total_cmp(&b.weight)) {
            let share =
                share(upstream, slow, history).map(|(share, _)| format!("; it gets {share:.1} % of the requests"));
            return Headline::doubtful(format!(
                "{} answers {:.0} × slower than the others{}; {impact}.",
                slow.address,
                slow.weight,
                share.unwrap_or_default()
            ));
        }
        if upstream.waiting > 0
            && usable.iter().all(|endpoint| endpoint.window.is_some_and(|w| endpoint.in_flight >= w))
        {
            let waiting = count(upstream.waiting, "request");
            return Headline::doubtful(format!("All replicas are at their limits: {waiting} waiting; {impact}."));
        }
        if !upstream.drained.is_empty() {
            let text = format!("Drained by an operator: {}; {impact}.", upstream.drained.join(", "));
            return Headline::doubtful(text);
        }
        let replicas = format!("{} of {}", usable.len(), count(all.len(), "replica"));
        let traffic = traffic(upstream, history);
        Headline { level: Level::Good, text: format!("All well: {replicas}{traffic}; {}.", lost_nothing(upstream)) }
    }
}

fn all_well(status: &Status, history: &History) -> Headline {
    let usable = |upstream: &UpstreamStatus| upstream.endpoints.iter().filter(|endpoint| endpoint.usable).count();
    let replicas = count(status.upstreams.iter().map(usable).sum(), "replica");
    let rates = status.upstreams.iter().filter_map(|u| history.slot(&u.name, history.present().checked_sub(1)?));
    let rate: f64 = rates.map(|slot| slot.rate()).sum();
    let upstreams = count(status.upstreams.len(), "upstream");
    let text = format!("All well: {upstreams} with {replicas}, {} requests/s.", grouped(rate.round() as u64));
    Headline { level: Level::Good, text }
}

/// A replica, what is wrong with it, and since when.
fn what_ails(endpoint: &EndpointStatus) -> String {
    let EndpointStatus { address, since_seconds, reason, .. } = endpoint;
    match endpoint.no_answer_seconds {
        Some(silence) => format!("{address} has not answered for {}", age(silence)),
        None => {
            let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            format!("{address} has been {} for {}{why}", endpoint.state(), age(*since_seconds))
        }
    }
}

fn is_broken(endpoint: &EndpointStatus) -> bool {
    endpoint.suspect
        || endpoint.ejected_for_seconds.is_some()
        || endpoint.no_answer_seconds.is_some()
        || endpoint.health == crate::pool::Health::Down
}

/// Whether so many responses of the last minute said 5xx that it is worth a sentence: the proxy passes them on, and where
/// all replicas send them none is ejected.
fn erring(upstream: &UpstreamStatus, history: &History) -> Option<Headline> {
    let slots = Duration::from_secs_f64(NEWS).div_duration_f64(SLOT) as usize - 1;
    let Since { requests: ended, server_errors, .. } = history.since(upstream, slots);
    // Requests are counted at their end, responses at their head.
    let ended = ended.max(server_errors);
    let share = server_errors as f64 / ended.max(1) as f64;
    let level = if share >= MOSTLY { Level::Bad } else { Level::Doubtful };
    (share >= ERRING && server_errors > 1).then(|| {
        let text = format!(
            "{} of {} of the last minute were answered with 5xx ({:.0} %): the app fails, the proxy passes it on.",
            grouped(server_errors),
            requests(ended),
            share * 100.0
        );
        Headline { level, text }
    })
}

/// What is wrong with DNS, and since when.
fn dns_trouble(upstream: &UpstreamStatus) -> Option<String> {
    let dns = upstream.dns.as_ref()?;
    let why = match (&dns.error, dns.addresses) {
        (Some(why), _) => why.as_str(),
        (None, Some(0)) => "no such name",
        _ => return None,
    };
    // What fails once is asked again before it is worth an event.
    let since = match upstream.timeline.iter().rev().find(|event| event.kind.starts_with("name_")) {
        Some(event) if event.kind == "name_failing" => event.seconds_ago,
        Some(_) => return None,
        // The timeline may have been filled by other things since.
        None => upstream.dns_answer_seconds_ago.filter(|seconds| *seconds > NEWS)?,
    };
    Some(format!("DNS has not resolved {} for {} ({why})", upstream.address, age(since)))
}

fn is_failing(upstream: &UpstreamStatus) -> bool {
    upstream.failures.last().is_some_and(|failure| failure.seconds_ago < NEWS)
}

/// How many requests failed in so many seconds.
fn failed_since(upstream: &UpstreamStatus, seconds: f64, history: &History) -> u64 {
    let remembered = &upstream.failures;
    let recent = remembered.iter().filter(|failure| failure.seconds_ago < seconds).count() as u64;
    // Only the last few are remembered one by one. Slots are coarse, and count what came a little before.
    match remembered.first().is_some_and(|oldest| oldest.seconds_ago < seconds) {
        true if upstream.failed > recent => {
            let slots = (seconds / SLOT.as_secs_f64()).ceil() as usize - 1;
            history.since(upstream, slots).failed.max(recent)
        }
        _ => recent,
    }
}

/// What callers met of a replica that is not usable. What failed, or was answered with 5xx, as that began belongs to it.
fn met(upstream: &UpstreamStatus, endpoint: &EndpointStatus, history: &History) -> String {
    let seconds = endpoint.since_seconds + GRACE;
    let errors = history.errors_since(upstream, endpoint, (seconds / SLOT.as_secs_f64()).ceil() as usize);
    match (failed_since(upstream, seconds, history), errors) {
        (0, 0) => "callers notice nothing".to_owned(),
        (failed, 0) => format!("{} failed", requests(failed)),
        (0, 1) => "1 request was answered with 5xx by it".to_owned(),
        (0, errors) => format!("{} were answered with 5xx by it", requests(errors)),
        (failed, errors) => format!("{} failed, and {} got a 5xx of it", requests(failed), grouped(errors)),
    }
}

fn requests(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "request")
}

/// What callers met in the last minute; `well`: what is said if that is nothing.
fn impact(upstream: &UpstreamStatus, history: &History, well: &str) -> String {
    let failed = failed_since(upstream, NEWS, history);
    let waiting = if upstream.paused { 0 } else { upstream.waiting as u64 };
    match (waiting, failed) {
        (0, 0) => well.to_owned(),
        (0, failed) => format!("{} failed in the last minute", requests(failed)),
        (waiting, 0) => format!("{} waiting, none failed", requests(waiting)),
        (waiting, failed) => format!("{} waiting, {} failed in the last minute", requests(waiting), requests(failed)),
    }
}

fn tried(failure: &FailedRequest) -> String {
    match (failure.endpoints.as_slice(), &failure.unusable) {
        ([], None) => String::new(),
        ([], Some(why)) => format!(" ({why})"),
        (tried, _) => format!(" (tried {})", tried.join(", ")),
    }
}

fn traffic(upstream: &UpstreamStatus, history: &History) -> String {
    let slot = history.present().checked_sub(1).and_then(|number| history.slot(&upstream.name, number));
    let Some(slot) = slot.filter(|slot| slot.requests > 0) else { return String::new() };
    let p99 = slot.p99.map(|p99| format!(", p99 {}", latency(p99.as_secs_f64()))).unwrap_or_default();
    format!(", {} requests/s{p99}", grouped(slot.rate().round() as u64))
}

fn lost_nothing(upstream: &UpstreamStatus) -> String {
    match upstream.failures.last() {
        Some(failure) => format!("nothing lost for {}", age(failure.seconds_ago)),
        None => "nothing lost since the start".to_owned(),
    }
}

fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Which share of its upstream's requests a replica got in the last minute, and which it would get if all had the same, in
/// percent; `None` where there were none.
pub fn share(upstream: &UpstreamStatus, endpoint: &EndpointStatus, history: &History) -> Option<(f64, f64)> {
    let slots = Duration::from_secs_f64(NEWS).div_duration_f64(SLOT) as usize;
    let requests = |id: u64| -> u64 {
        history.of_replica(&upstream.name, id).take(slots).map(|slot| u64::from(slot.requests)).sum()
    };
    let active = || upstream.endpoints.iter().filter(|endpoint| endpoint.membership == Membership::Active);
    let all: u64 = active().map(|endpoint| requests(endpoint.id)).sum();
    let fair = 100.0 / active().count().max(1) as f64;
    (all > 0).then(|| (requests(endpoint.id) as f64 * 100.0 / all as f64, fair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{DnsStatus, Occurrence};
    use crate::clock;
    use crate::pool::Health;

    fn replica(id: u64) -> EndpointStatus {
        EndpointStatus {
            id,
            address: format!("10.0.0.{id}:8080"),
            health: Health::Up,
            usable: true,
            weight: 1.0,
            since_seconds: 500.0,
            ..Default::default()
        }
    }

    fn upstream() -> UpstreamStatus {
        UpstreamStatus {
            name: "app".into(),
            address: "app:8080".into(),
            healthy: true,
            endpoints: vec![replica(1), replica(2), replica(3)],
            ..Default::default()
        }
    }

    fn failed(seconds_ago: f64) -> FailedRequest {
        FailedRequest {
            seconds_ago,
            text: "the connection broke".into(),
            endpoints: vec!["10.0.0.2:8080".into()],
            ..Default::default()
        }
    }

    fn of(upstream: UpstreamStatus) -> (Level, String) {
        let history = History::new(clock::now());
        let headline = Headline::of(&Status { upstreams: vec![upstream], ..Default::default() }, &history);
        (headline.level, headline.text)
    }

    #[test]
    fn the_sentence_tells_what_is_wrong_since_when_and_what_callers_meet() {
        assert_eq!(of(upstream()), (Level::Good, "All well: 3 of 3 replicas; nothing lost since the start.".into()));

        let mut one_down = upstream();
        let replica = &mut one_down.endpoints[1];
        (replica.usable, replica.health, replica.reason) = (false, Health::Down, "probe: refused".into());
        replica.since_seconds = 130.0;
        replica.held_back = Some(crate::pool::HeldBack::Down);
        let text = "10.0.0.2:8080 has been down for 2 min 10 s (probe: refused); the other 2 take its requests; ";
        assert_eq!(of(one_down.clone()), (Level::Doubtful, format!("{text}callers notice nothing.")));
        one_down.failures = vec![failed(12.0), failed(11.0)];
        one_down.failed = 2;
        assert_eq!(of(one_down), (Level::Bad, format!("{text}2 requests failed.")));

        let mut nameless = upstream();
        nameless.dns = Some(DnsStatus { addresses: Some(0), ..DnsStatus::default() });
        assert_eq!(of(nameless.clone()).0, Level::Good, "once is nothing yet");
        let failing = Occurrence { seconds_ago: 3.0, kind: "name_failing".into(), ..Occurrence::default() };
        nameless.timeline = vec![failing];
        let trouble = "DNS has not resolved app:8080 for 3.0 s (no such name)";
        let text = format!("{trouble}; the 3 usable replicas serve on; callers notice nothing.");
        assert_eq!(of(nameless.clone()), (Level::Doubtful, text));
        let resolved = Occurrence { seconds_ago: 2.0, kind: "name_resolved".into(), ..Occurrence::default() };
        nameless.timeline.push(resolved);
        assert_eq!(of(nameless.clone()).0, Level::Good, "that it failed before is over");
        nameless.timeline.pop();
        nameless.endpoints[0].usable = false;
        let text = of(nameless).1;
        assert!(
            text.ends_with(&format!("the other 2 take its requests; callers notice nothing. {trouble}.")),
            "{text}"
        );

        let mut slow = upstream();
        slow.endpoints[2].weight = 9.7;
        let text = "10.0.0.3:8080 answers 10 × slower than the others; callers notice nothing.";
        assert_eq!(of(slow), (Level::Doubtful, text.into()));

        let mut erring = upstream();
        (erring.requests, erring.server_errors) = (1000, 49);
        assert_eq!(of(erring.clone()).0, Level::Good, "apps answer so now and then");
        erring.server_errors = 50;
        let text = "50 of 1,000 requests of the last minute were answered with 5xx (5 %): the app fails, the proxy passes \
                    it on.";
        assert_eq!(of(erring.clone()), (Level::Doubtful, text.into()));
        erring.server_errors = 500;
        assert_eq!(of(erring.clone()).0, Level::Bad);
        erring.requests = 2;
        assert!(of(erring.clone()).1.starts_with("500 of 500 requests "), "some are not over yet");
        erring.endpoints[1].usable = false;
        assert!(of(erring.clone()).1.ends_with("take its requests; callers notice nothing."), "they are the others'");
        erring.endpoints[1].server_errors = 50;
        assert!(of(erring).1.ends_with("take its requests; 50 requests were answered with 5xx by it."));

        let mut lost = upstream();
        lost.failures = vec![failed(5.0)];
        lost.failed = 1;
        let text = "1 request failed in the last minute: the connection broke (tried 10.0.0.2:8080).";
        assert_eq!(of(lost.clone()), (Level::Bad, text.into()));
        lost.failures = vec![failed(600.0)];
        assert_eq!(of(lost), (Level::Good, "All well: 3 of 3 replicas; nothing lost for 10 min.".into()));
    }

    #[test]
    fn an_outage_names_who_is_down_and_how_many_wait() {
        let mut outage = upstream();
        outage.endpoints.truncate(1);
        (outage.healthy, outage.waiting, outage.outage_seconds) = (false, 12, Some(3.0));
        let replica = &mut outage.endpoints[0];
        (replica.usable, replica.health, replica.since_seconds) = (false, Health::Down, 3.0);
        replica.held_back = Some(crate::pool::HeldBack::Down);
        let text =
            "Nobody has answered for 3.0 s: 10.0.0.1:8080 has been down for 3.0 s; 12 requests waiting, none failed.";
        assert_eq!(of(outage.clone()), (Level::Bad, text.into()));
        outage.endpoints.clear();
        let text = "There is no replica: DNS has not answered yet; 12 requests waiting, none failed.";
        assert_eq!(of(outage), (Level::Bad, text.into()));
    }

    #[test]
    fn of_several_upstreams_the_worst_is_told_by_its_name() {
        let mut other = upstream();
        other.name = "mail".into();
        other.paused = true;
        let status = Status { upstreams: vec![upstream(), other], ..Default::default() };
        let headline = Headline::of(&status, &History::new(clock::now()));
        assert_eq!(headline.text, "mail: Paused by an operator: 0 requests waiting; none failed in the last minute.");
        let status = Status { upstreams: vec![upstream(), upstream()], ..Default::default() };
        let headline = Headline::of(&status, &History::new(clock::now()));
        assert_eq!(headline.text, "All well: 2 upstreams with 6 replicas, 0 requests/s.");
    }
}
