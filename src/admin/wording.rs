//! How numbers, times and the state of a replica are written for people, on the page and in the terminal.

use super::headline::{Level, SLOW};
use super::status::{DnsStatus, EndpointStatus, FailedRequest};
use crate::pool::{Health, HeldBack};

/// Seconds for which a replica that came up is said to be warming up, whether or not its window holds anything back. A
/// replica that gets requests has none after two seconds of them.
const WARMING_UP: f64 = 30.0;

impl EndpointStatus {
    /// Whether it is meant to get requests: listed, and not taken out of use by an operator.
    pub fn in_use(&self) -> bool {
        !self.drained && !matches!(self.held_back, Some(HeldBack::Draining | HeldBack::Paused))
    }

    /// Why it is not picked, or how it stands if it is.
    pub fn state(&self) -> &'static str {
        match (self.held_back, self.health) {
            (Some(why), _) => why.text(),
            (None, _) if self.suspect => "suspect, tried",
            (None, _) if self.ejected_for_seconds.is_some() => "ejected, tried",
            (None, Health::Down) => "down, tried",
            (None, Health::Unproven) => "unproven",
            (None, Health::Up) if self.no_answer_seconds.is_some() => "no answer",
            (None, Health::Up) if self.is_warming_up() => "warming up",
            (None, Health::Up) => "up",
        }
    }

    /// What its state comes to.
    pub fn level(&self) -> Level {
        match (self.usable, self.in_use()) {
            (true, _) if self.weight < SLOW => Level::Good,
            (true, _) | (false, false) => Level::Doubtful,
            (false, true) => Level::Bad,
        }
    }

    /// Whether its window holds requests back, or may soon. One that has had no need of its window for long is merely idle.
    fn is_warming_up(&self) -> bool {
        self.window.is_some_and(|window| self.in_flight >= window || self.since_seconds < WARMING_UP)
    }

    /// Why it is as it is, and what else is worth saying.
    pub fn remark(&self) -> String {
        let mut remarks = Vec::new();
        if let Some(silence) = self.no_answer_seconds {
            remarks.push(format!("no answer for {}", age(silence)));
        }
        if !self.reason.is_empty() {
            remarks.push(self.reason.clone());
        }
        if let Some(rest) = self.ejected_for_seconds {
            remarks.push(format!("back on trial in {}", age(rest)));
        }
        if self.streams > 0 {
            remarks.push(count(self.streams as usize, "stream"));
        }
        remarks.join(", ")
    }

    /// Whether the next request goes to it, and why it is as it is.
    pub fn why(&self) -> String {
        let remark = self.remark();
        let pick = match (self.score, self.next) {
            (None, _) => "gets no requests".to_owned(),
            (Some(score), true) => format!("next: lowest score, {score:.2}"),
            (Some(score), false) => format!("score {score:.2}"),
        };
        let weight = if self.weight > 1.0 { format!(", weight {:.2}", self.weight) } else { String::new() };
        let gap = if remark.is_empty() { "" } else { "; " };
        format!("{pick}{weight}{gap}{remark}")
    }

    /// The remark behind its container's name, if that is known.
    pub fn named_remark(&self) -> String {
        match (&self.name, self.remark()) {
            (None, remark) => remark,
            (Some(name), remark) if remark.is_empty() => name.clone(),
            (Some(name), remark) => format!("{name}: {remark}"),
        }
    }
}

impl FailedRequest {
    /// Whom it was tried at, or why at nobody.
    pub fn tried(&self) -> String {
        match (self.endpoints.as_slice(), &self.unusable) {
            ([], None) => "nobody was tried".to_owned(),
            ([], Some(why)) => format!("nobody was tried: {why}"),
            (tried, _) => format!("tried {}", tried.join(", ")),
        }
    }
}

impl DnsStatus {
    /// What DNS said last, and when.
    pub fn said(&self) -> String {
        let ago = age(self.seconds_ago);
        match (&self.error, self.addresses) {
            (Some(why), _) => format!("{why}, {ago} ago"),
            (None, Some(1)) => format!("1 address, {ago} ago"),
            (None, addresses) => format!("{} addresses, {ago} ago", addresses.unwrap_or(0)),
        }
    }
}

/// `0.4 s`, `12 s`, `5 min`, `3 h 12 min`, `4 d 3 h`.
pub(crate) fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=59 => format!("{whole} s"),
        60..=599 => format!("{} min {} s", whole / 60, whole % 60),
        600..=3599 => format!("{} min", whole / 60),
        3600..=86_399 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `850 µs`, `4.1 ms`, `120 ms`, `1.2 s`.
pub(crate) fn latency(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// `12,345`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 request`, `2 requests`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_read_well() {
        let ages = [0.44, 9.96, 12.7, 61.0, 3599.0, 11_520.0, 360_000.0].map(age);
        assert_eq!(ages, ["0.4 s", "10.0 s", "12 s", "1 min 1 s", "59 min", "3 h 12 min", "4 d 4 h"]);
        assert_eq!([0.00085, 0.0041, 0.12, 1.25].map(latency), ["850 µs", "4.1 ms", "120 ms", "1.2 s"]);
        assert_eq!([0, 999, 1000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!([0, 1, 2].map(|n| count(n, "replica")), ["0 replicas", "1 replica", "2 replicas"]);
    }
}
