//! Colours on a terminal, and how numbers and times are written for people.

use std::io::{IsTerminal, stdout};

/// Whether to use colours: a terminal, and nobody asked for none (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// As standard output likes it.
    pub(super) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint { on: stdout().is_terminal() && !unwanted }
    }

    #[cfg(test)]
    pub(super) fn new(on: bool) -> Self {
        Paint { on }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `0.4 s`, `12 s`, `5 min`, `3 h 12 min`, `4 d 3 h`.
pub(super) fn age(seconds: f64) -> String {
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
pub(super) fn latency(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// `12,345`.
pub(super) fn grouped(number: u64) -> String {
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
pub(super) fn count(number: usize, what: &str) -> String {
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

    #[test]
    fn nothing_is_coloured_where_nobody_sees_it() {
        assert_eq!(Paint::new(false).bad("down"), "down");
        assert_eq!(Paint::new(true).bad("down"), "\x1b[31mdown\x1b[0m");
    }
}
