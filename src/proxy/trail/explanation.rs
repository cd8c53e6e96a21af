//! A request's way in words.

use super::{Connected, Ended, Step, Trail, What, shown};
use crate::admin::wording::{age, latency};
use crate::pool::Bound;
use crate::upstream::Choice;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

impl Trail {
    /// The whole way, a line for each step. `None`: it is not over.
    pub(super) fn explain(&self, now: Instant) -> Option<String> {
        let ended = self.ended.as_ref()?;
        let mut text = String::new();
        let ago = age(now.saturating_duration_since(ended.began + ended.took).as_secs_f64());
        let _ = writeln!(text, "{} from {} to {}, {ago} ago", shown(&self.line), ended.client, ended.upstream);
        let names = [("X-Request-Id", &self.request_id), ("traceparent", &self.traceparent)];
        let _ = write!(text, "id {}", self.id);
        for (field, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
            let _ = write!(text, ", {field} {}", shown(name));
        }
        text.push_str("\n\n");
        let mut picked = None;
        for (index, step) in self.steps.iter().enumerate() {
            let at = step.at.saturating_duration_since(ended.began);
            if let What::Picked { address, seen, candidates } = &step.what {
                let choices = &self.seen.choices()[seen.clone()];
                pick(
                    &mut text,
                    at,
                    &Pick { address: *address, choices, candidates: *candidates, before: &self.steps[..index] },
                );
                picked = Some(*address);
            } else {
                line(&mut text, at, &describe(&step.what, &mut picked));
            }
        }
        line(&mut text, ended.took, &outcome(ended));
        Some(text)
    }
}

/// A step that is no pick. `picked`: whom the request was given to, to see when another was quicker to accept.
fn describe(what: &What, picked: &mut Option<SocketAddr>) -> String {
    match what {
        What::Picked { address, .. } => format!("{address} was picked"),
        What::Granted(address) => {
            *picked = Some(*address);
            format!("{address} had room first, after the request had waited for its turn")
        }
        What::Moved(address) => {
            *picked = Some(*address);
            format!("{address} takes it over")
        }
        What::Connected(address, connected) => {
            let other = picked.filter(|picked| picked != address);
            let other = other.map(|slow| format!(", as {slow} was slow to accept")).unwrap_or_default();
            let connection = match connected {
                Connected::Kept => "kept",
                Connected::New => "new",
                Connected::Shared => "shared",
            };
            format!("to {address} on a {connection} connection{other}")
        }
        What::Failed(address, problem) => format!("failed at {address}: {}", problem.text()),
    }
}

/// A pick, as it was when it was made.
struct Pick<'a> {
    address: SocketAddr,
    choices: &'a [Choice],
    candidates: usize,
    /// The request's steps until then.
    before: &'a [Step],
}

impl Pick<'_> {
    fn was_tried(&self, address: SocketAddr) -> bool {
        self.before.iter().any(|step| matches!(&step.what, What::Failed(failed, _) if *failed == address))
    }

    /// The score of the one that was picked.
    fn lowest(&self) -> f64 {
        self.choices.iter().find(|choice| choice.next).map_or(f64::INFINITY, score)
    }

    /// Why that one was.
    fn reason(&self) -> &'static str {
        let others = || self.choices.iter().filter(|choice| !choice.next && score(choice) <= self.lowest());
        let is_out = |choice: &&Choice| is_full(choice) || self.was_tried(choice.candidate.address);
        if !others().all(|choice| is_out(&choice)) {
            "by chance among the lowest scores"
        } else if others().next().is_some() {
            "the lowest score with room that was not tried yet"
        } else {
            "the lowest score"
        }
    }

    /// Why another one was not.
    fn fate(&self, choice: &Choice) -> &'static str {
        let candidate = &choice.candidate;
        if candidate.address == self.address {
            "picked"
        } else if self.was_tried(candidate.address) {
            "tried before"
        } else if is_full(choice) {
            "full"
        } else if score(choice) <= self.lowest() {
            "the same score"
        } else if candidate.weight > 1.0 {
            "a higher score: it is slow"
        } else {
            "a higher score"
        }
    }
}

/// Writes a pick, with a line for each candidate that is known.
fn pick(text: &mut String, at: Duration, pick: &Pick<'_>) {
    let Pick { address, choices, candidates, .. } = pick;
    if *candidates == 1 {
        line(text, at, &format!("{address} was the only candidate"));
    } else {
        line(text, at, &format!("{address} was picked of {candidates} candidates: {}", pick.reason()));
    }
    let width = choices.iter().map(|choice| choice.candidate.address.to_string().len()).max().unwrap_or(0);
    for choice in *choices {
        let candidate = &choice.candidate;
        let trial = if candidate.trial && choice.in_flight == 0 { " (on trial)" } else { "" };
        let _ = writeln!(
            text,
            "{:>14}{:<width$}  {:>4} in flight  weight {:<6.1} score {:<6.1} {}{trial}",
            "",
            candidate.address.to_string(),
            choice.in_flight,
            candidate.weight,
            score(choice),
            pick.fate(choice),
        );
    }
    if !choices.is_empty() && choices.len() < *candidates {
        let _ = writeln!(text, "{:>14}and {} more", "", candidates - choices.len());
    }
}

fn score(choice: &Choice) -> f64 {
    choice.candidate.score(choice.in_flight)
}

fn is_full(choice: &Choice) -> bool {
    choice.in_flight >= choice.candidate.bound(Bound::Window)
}

fn line(text: &mut String, at: Duration, what: &str) {
    let _ = writeln!(text, "{:>10}  {what}", latency(at.as_secs_f64()));
}

fn outcome(ended: &Ended) -> String {
    let mut text = match (&ended.problem, ended.status) {
        (Some(problem), status) if ended.cut => format!("its answer, {status}, was cut: {}", problem.text()),
        (None, status) if ended.cut => format!("its answer, {status}, was cut: its client broke off its request"),
        (Some(problem), 0) => format!("the connection was closed: {}", problem.text()),
        (Some(problem), status) => format!("answered with {status}: {}", problem.text()),
        (None, 0) => "its client left".to_owned(),
        (None, status) => format!("answered with {status}"),
    };
    if !ended.waited.is_zero() {
        let _ = write!(text, "; it waited {} in all", latency(ended.waited.as_secs_f64()));
    }
    if let Some(why) = &ended.unusable {
        let _ = write!(text, "; {why}");
    }
    text
}
