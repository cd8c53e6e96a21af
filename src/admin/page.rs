//! The text format of Prometheus, written line by line: families, samples, labels and their escapes. What is on the page is
//! `prometheus.rs`'s business.

use super::metrics::{BOUNDS, Distribution, Tally};
use super::status::{EndpointStatus, Status, UpstreamStatus};
use std::fmt::{Display, Write as _};

/// A page that is being written: a family's samples follow its head.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
    family: &'static str,
}

pub(super) type Labels<'a> = [(&'a str, &'a str)];

impl Page {
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.line("", labels, value);
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.family);
        for (i, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if i == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub(super) fn tally(&mut self, labels: &Labels<'_>, label: &str, tally: &Tally) {
        for (what, count) in tally.counts() {
            self.sample(&[labels, &[(label, what)]].concat(), count);
        }
    }

    pub(super) fn histogram(&mut self, labels: &Labels<'_>, distribution: &Distribution) {
        let mut sum = 0;
        for (i, count) in distribution.buckets.iter().enumerate() {
            sum += count;
            let bound = BOUNDS.get(i).map_or("+Inf".to_owned(), |micros| (*micros as f64 / 1e6).to_string());
            self.line("_bucket", &[labels, &[("le", &bound)]].concat(), sum);
        }
        self.line("_sum", labels, distribution.micros as f64 / 1e6);
        self.line("_count", labels, sum);
    }

    pub(super) fn upstream_gauge<V: Display>(
        &mut self,
        status: &Status,
        name: &'static str,
        help: &str,
        value: impl Fn(&UpstreamStatus) -> Option<V>,
    ) {
        self.family(name, "gauge", help);
        for upstream in &status.upstreams {
            if let Some(value) = value(upstream) {
                self.sample(&[("upstream", &upstream.name)], value);
            }
        }
    }

    pub(super) fn endpoint_samples<V: Display>(
        &mut self,
        status: &Status,
        name: &'static str,
        kind: &str,
        help: &str,
        value: impl Fn(&EndpointStatus) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for upstream in &status.upstreams {
            for endpoint in &upstream.endpoints {
                if let Some(value) = value(endpoint) {
                    self.sample(&[("upstream", &upstream.name), ("endpoint", &endpoint.address)], value);
                }
            }
        }
    }
}
