//! `docs/metrics.md`, the alerts in `deploy/prometheus` and the dashboard in `deploy/grafana` speak of the metrics that
//! `/metrics` shows, all of them, and of no others.

use super::metrics::UpstreamMetrics;
use super::prometheus::{Metrics, render};
use super::status::{EndpointStatus, Status, UpstreamStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PAGE: &str = include_str!("../../docs/metrics.md");
const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshooting.md");
const RULES: &str = include_str!("../../deploy/prometheus/evenkeel.rules.yml");
const RULES_TEST: &str = include_str!("../../deploy/prometheus/evenkeel.rules.test.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/evenkeel.json");

/// The labels of which this program names the values.
const CLOSED: [&str; 4] = ["code_class", "event", "reason", "result"];

type Names = BTreeSet<String>;

/// A metric, by its name: its type, its labels, and those values of theirs that the program names.
#[derive(Debug, Default, PartialEq)]
struct Metric {
    kind: String,
    labels: Names,
    values: BTreeSet<(String, String)>,
}

/// All that `/metrics` shows of a process with one upstream that has one replica.
fn shown() -> BTreeMap<String, Metric> {
    let endpoint = EndpointStatus { address: "a".to_owned(), first_byte_seconds: Some(0.1), ..Default::default() };
    let upstream = UpstreamStatus {
        name: "u".to_owned(),
        dns_answer_seconds_ago: Some(0.1),
        endpoints: vec![endpoint],
        ..Default::default()
    };
    let status = Status { upstreams: vec![upstream], ..Status::default() };
    let metrics = Metrics { server: Arc::default(), upstreams: vec![("u".into(), Arc::new(UpstreamMetrics::new(1)))] };
    let mut shown = BTreeMap::<String, Metric>::new();
    let mut family = String::new();
    for line in render(&status, &metrics).lines().filter(|line| !line.starts_with("# HELP ")) {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            family = name.to_owned();
            shown.entry(family.clone()).or_default().kind = kind.to_owned();
            continue;
        }
        let metric = shown.get_mut(&family).expect("samples follow their family's head");
        for (label, value) in labels(line) {
            if CLOSED.contains(&label) {
                metric.values.insert((label.to_owned(), value.to_owned()));
            }
            metric.labels.insert(label.to_owned());
        }
    }
    assert!(shown.len() > 30, "{shown:?}");
    shown
}

/// The pairs in `{a="b",c=~"d"}`, wherever in a text they stand. Values here have no quotes within.
fn labels(text: &str) -> Vec<(&str, &str)> {
    let mut pairs = vec![];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        let (value, behind) = after.split_once('"').expect("a value ends in a quote");
        let label = before.trim_end_matches(['=', '~', '!']).rsplit(|c: char| !is_of_name(c)).next().unwrap_or("");
        pairs.push((label, value));
        rest = behind;
    }
    pairs
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The cells of each row of the page's tables that have so many columns, without their heads.
fn rows(columns: usize) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| -> Option<Vec<&str>> {
        Some(line.strip_prefix("| ")?.strip_suffix('|')?.split('|').map(str::trim).collect())
    };
    let lines: Vec<_> = PAGE.lines().collect();
    // A head is followed by a line of dashes.
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|:--"));
    let rows = (0..lines.len()).filter(|at| !is_head(*at)).filter_map(|at| cells(lines[at]));
    rows.filter(|cells| cells.len() == columns).collect()
}

/// What stands in backquotes.
fn quoted(cell: &str) -> Names {
    cell.split('`').skip(1).step_by(2).map(Into::into).collect()
}

fn one(cell: &str) -> String {
    let quoted = quoted(cell);
    assert_eq!(quoted.len(), 1, "{cell}");
    quoted.into_iter().next().unwrap_or_default()
}

#[test]
fn the_page_of_metrics_has_each_that_is_shown_with_its_type_and_labels_and_no_other() {
    let mut documented = BTreeMap::<String, Metric>::new();
    for row in rows(6) {
        let metric = Metric { kind: row[1].to_owned(), labels: quoted(row[3]), ..Metric::default() };
        assert!(documented.insert(one(row[0]), metric).is_none(), "{} stands there twice", row[0]);
        assert!(row[4].ends_with('.'), "a sentence says what {} means: {:?}", row[0], row[4]);
    }
    for row in rows(3) {
        let metrics = quoted(row[1]);
        assert!(!metrics.is_empty() && row[2].ends_with('.'), "{row:?}");
        for name in metrics {
            let metric = documented.get_mut(&name).unwrap_or_else(|| panic!("{row:?}: there is no {name}"));
            let label = metric.labels.iter().find(|label| CLOSED.contains(&label.as_str())).cloned();
            metric.values.insert((label.expect("a label with such values"), one(row[0])));
        }
    }
    let shown = shown();
    let names = |metrics: &BTreeMap<String, Metric>| metrics.keys().cloned().collect::<Names>();
    assert_eq!(names(&documented), names(&shown), "docs/metrics.md beside /metrics");
    for (name, metric) in &shown {
        assert_eq!(&documented[name], metric, "{name}: docs/metrics.md beside /metrics");
    }
}

#[test]
fn the_unit_on_the_page_of_metrics_is_the_one_in_the_name() {
    for row in rows(6) {
        let (name, unit) = (one(row[0]), row[2]);
        assert!(!unit.is_empty(), "{name} has no unit");
        let base = name.strip_suffix("_total").unwrap_or(&name);
        for of_name in ["seconds", "bytes"] {
            assert_eq!(base.ends_with(&format!("_{of_name}")), unit == of_name, "{name}: {unit}");
        }
        assert_eq!(name.ends_with("_total"), row[1] == "counter", "{name}: {}", row[1]);
    }
}

/// Each alert's name and its expression.
fn alerts() -> BTreeMap<String, String> {
    let rules = RULES.split("- alert: ").skip(1);
    let alerts: BTreeMap<_, _> = rules
        .map(|rule| {
            let (name, rest) = rule.split_once('\n').expect("a rule has lines");
            let expression = rest.split_once("expr: ").and_then(|(_, rest)| rest.split_once("labels: "));
            (name.to_owned(), expression.expect("labels follow an expression").0.to_owned())
        })
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

/// The expressions of the dashboard's panels and variables.
fn queries() -> Vec<String> {
    fn collect(value: &serde_json::Value, into: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                let texts = ["expr", "definition"].iter().filter_map(|key| fields.get(*key)?.as_str());
                into.extend(texts.map(Into::into));
                fields.values().for_each(|value| collect(value, into));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let mut queries = vec![];
    collect(&serde_json::from_str(DASHBOARD).expect("the dashboard is JSON"), &mut queries);
    assert!(queries.len() > 20, "{queries:?}");
    queries
}

/// The metrics that an expression names; fails if there is one that is not shown, or has no such label or value.
fn used(expression: &str, shown: &BTreeMap<String, Metric>) -> Names {
    let mut names = Names::new();
    for word in expression.split(|c: char| !is_of_name(c)) {
        if !word.starts_with("evenkeel_") && !word.starts_with("process_") {
            continue;
        }
        let is_histogram = |name: &&str| shown.get(*name).is_some_and(|metric| metric.kind == "histogram");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        let name = base.filter(is_histogram).unwrap_or(word);
        let metric = shown.get(name).unwrap_or_else(|| panic!("there is no metric {name}: {expression}"));
        names.insert(name.to_owned());
        // What stands in the braces right behind it.
        for selector in expression.split(word).skip(1).filter_map(|rest| rest.strip_prefix('{')?.split('}').next()) {
            for (label, value) in labels(selector) {
                // Prometheus adds these two.
                assert!(
                    ["job", "instance"].contains(&label) || metric.labels.contains(label),
                    "{name} has no label {label}: {expression}"
                );
                let known = !CLOSED.contains(&label) || metric.values.contains(&(label.to_owned(), value.to_owned()));
                assert!(known, "{name} has no {label}=\"{value}\": {expression}");
            }
        }
    }
    names
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_shown() {
    let shown = shown();
    for query in queries() {
        assert!(!used(&query, &shown).is_empty(), "{query}");
    }
}

#[test]
fn the_page_of_metrics_names_each_alert_at_a_metric_that_it_looks_at() {
    let shown = shown();
    let mut named = Names::new();
    for row in rows(6) {
        for alert in row[5].split(", ").filter(|alert| !alert.is_empty()) {
            let alerts = alerts();
            let expression = alerts.get(alert).unwrap_or_else(|| panic!("{}: there is no alert {alert}", row[0]));
            assert!(used(expression, &shown).contains(&one(row[0])), "{alert} does not look at {}", row[0]);
            named.insert(alert.to_owned());
        }
    }
    // `up` is Prometheus' own metric.
    named.insert("EvenkeelDown".to_owned());
    assert_eq!(named, alerts().into_keys().collect());
    for (alert, expression) in alerts() {
        assert_eq!(used(&expression, &shown).is_empty(), alert == "EvenkeelDown", "{expression}");
    }
}

#[test]
fn each_alert_is_tested_both_ways_and_leads_to_its_section() {
    for alert in alerts().into_keys() {
        let heading = format!("\n### {alert}\n");
        assert!(TROUBLESHOOTING.contains(&heading), "docs/troubleshooting.md has no section {alert}");
        let runbook = format!("runbook: docs/troubleshooting.md#{}\n", alert.to_lowercase());
        assert!(RULES.contains(&runbook), "{alert} does not say where to read on");
        let calm = RULES_TEST
            .lines()
            .any(|line| line.contains(&format!("alertname: {alert},")) && line.ends_with("exp_alerts: []}"));
        assert!(calm, "nothing tests when {alert} does not fire");
        let fires = RULES_TEST.split(&format!("alertname: {alert}\n")).nth(1);
        let fires = fires.is_some_and(|rest| rest.trim_start().lines().nth(1) == Some("        exp_alerts:"));
        assert!(fires, "nothing tests when {alert} fires");
    }
}
