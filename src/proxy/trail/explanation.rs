//! A request's way in words.

use super::{Connected, Ended, Trail, What};
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
        let _ = writeln!(text, "{} from {} to {}, {ago} ago", super::text(&self.line), ended.client, ended.upstream);
        let names = [("X-Request-Id", &self.request_id), ("traceparent", &self.traceparent)];
        let _ = write!(text, "id {}", self.id);
        for (field, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
            let _ = write!(text, ", {field} {}", super::text(name));
        }
        text.push_str("\n\n");
        let mut picked = None;
        for step in &self.steps {
            line(
                &mut text,
                step.at.saturating_duration_since(ended.began),
                &self.describe_step(&step.what, &mut picked),
            );
            if let What::Picked { address, seen, candidates } = &step.what {
                self.table(&mut text, *address, &self.seen.choices()[seen.clone()], *candidates);
            }
        }
        line(&mut text, ended.took, &outcome(ended));
        Some(text)
    }

    /// One step. `picked`: whom the request was given to, to see when another was quicker to accept.
    fn describe_step(&self, what: &What, picked: &mut Option<SocketAddr>) -> String {
        match what {
            What::Picked { address, candidates, .. } => {
                *picked = Some(*address);
                match candidates {
                    1 => format!("{address} was the only candidate"),
                    _ => format!("{address} was picked of {candidates} candidates: {}", self.why(what)),
                }
            }
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
                match connected {
                    Connected::Kept => format!("to {address} on a kept connection{other}"),
                    Connected::New => format!("to {address} on a new connection{other}"),
                    Connected::Shared => format!("to {address} on a shared connection{other}"),
                }
            }
            What::Failed(None, problem) => format!("failed: {}", problem.text()),
            What::Failed(Some(address), problem) => format!("failed at {address}: {}", problem.text()),
        }
    }

    /// Why the winner of a pick won.
    fn why(&self, what: &What) -> &'static str {
        let What::Picked { seen, .. } = what else { return "" };
        let choices = &self.seen.choices()[seen.clone()];
        let Some(winner) = choices.iter().find(|choice| choice.next) else { return "the lowest score with room" };
        let lowest = |other: &Choice| score(other) >= score(winner);
        let tie = choices.iter().any(|other| !other.next && score(other) <= score(winner) && !is_full(other));
        match (choices.iter().all(lowest), tie) {
            (true, false) => "the lowest score",
            (true, true) => "by chance among the lowest scores",
            (false, _) => "the lowest score with room that was not tried yet",
        }
    }

    /// The candidates as the pick met them.
    fn table(&self, text: &mut String, winner: SocketAddr, choices: &[Choice], candidates: usize) {
        let width = choices.iter().map(|choice| choice.candidate.address.to_string().len()).max().unwrap_or(0);
        let winning = choices.iter().find(|choice| choice.next).map_or(f64::INFINITY, score);
        for choice in choices {
            let candidate = &choice.candidate;
            let why = if candidate.address == winner {
                "picked"
            } else if self.was_tried(candidate.address) {
                "tried before, or too busy"
            } else if is_full(choice) {
                "full"
            } else if score(choice) > winning {
                if candidate.weight > 1.0 { "a higher score: it is slow" } else { "a higher score" }
            } else {
                "the same score"
            };
            let trial = if candidate.trial && choice.in_flight == 0 { " (on trial)" } else { "" };
            let _ = writeln!(
                text,
                "{:>14}{:<width$}  {:>4} in flight  weight {:<6.1} score {:<6.1} {why}{trial}",
                "",
                candidate.address.to_string(),
                choice.in_flight,
                candidate.weight,
                score(choice),
            );
        }
        if !choices.is_empty() && choices.len() < candidates {
            let _ = writeln!(text, "{:>14}and {} more", "", candidates - choices.len());
        }
    }

    fn was_tried(&self, address: SocketAddr) -> bool {
        self.steps.iter().any(|step| matches!(&step.what, What::Failed(Some(failed), _) if *failed == address))
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
