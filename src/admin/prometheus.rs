//! The page at `/metrics`, in Prometheus' text format 0.0.4.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use super::metrics::{CLASSES, ServerMetrics, UpstreamMetrics};
use super::page::Page;
use super::status::Status;
use crate::pool::Membership;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is counted, of the whole process.
#[derive(Debug)]
pub struct Metrics {
    /// Before a request has an upstream.
    pub server: Arc<ServerMetrics>,
    /// For each upstream, by name.
    pub upstreams: Vec<(Arc<str>, Arc<UpstreamMetrics>)>,
}

/// The page.
pub fn render(status: &Status, metrics: &Metrics) -> String {
    let mut page = Page::default();
    server(&mut page, status, metrics);
    upstreams(&mut page, status, metrics);
    endpoints(&mut page, status);
    process(&mut page);
    page.text
}

fn server(page: &mut Page, status: &Status, metrics: &Metrics) {
    page.family("evenkeel_build_info", "gauge", "1; the version is the label.");
    page.sample(&[("version", &status.version)], 1);
    page.family("evenkeel_uptime_seconds", "gauge", "Time since the start.");
    page.sample(&[], status.uptime_seconds);
    page.family("evenkeel_ready", "gauge", "1 when /ready says 200.");
    page.sample(&[], u8::from(status.not_ready.is_none()));
    page.family("evenkeel_draining", "gauge", "1 once the process was told to end.");
    page.sample(&[], u8::from(status.draining));
    page.family("evenkeel_connections", "gauge", "Client connections now.");
    page.sample(&[], status.connections);
    page.family("evenkeel_max_connections", "gauge", "Client connections at most.");
    page.sample(&[], status.max_connections);
    page.family("evenkeel_connections_total", "counter", "Client connections accepted.");
    page.sample(&[], metrics.server.accepted.load(Ordering::Relaxed));
    page.family("evenkeel_active_requests", "gauge", "Requests now, waiting ones included.");
    page.sample(&[], status.requests);
    page.family("evenkeel_refused_requests_total", "counter", "Requests that the proxy refused itself, by reason.");
    page.tally(&[], "reason", &metrics.server.refused);
    page.family("evenkeel_config_reloads_total", "counter", "Reloads of the configuration, by result.");
    page.tally(&[], "result", &metrics.server.reloads);
    page.family("evenkeel_config_last_reload_successful", "gauge", "0 while the last reload was refused, else 1.");
    page.sample(&[], u8::from(status.last_reload.as_ref().is_none_or(|reload| reload.error.is_none())));
}

fn upstreams(page: &mut Page, status: &Status, metrics: &Metrics) {
    let all = || metrics.upstreams.iter().map(|(name, metrics)| (&**name, &**metrics));
    page.family(
        "evenkeel_requests_total",
        "counter",
        "Requests ended, by the class of the status that the client got; none: it got no response.",
    );
    for (name, metrics) in all() {
        for (class, count) in CLASSES.iter().zip(metrics.classes()) {
            page.sample(&[("upstream", name), ("code_class", class)], count);
        }
    }
    page.family(
        "evenkeel_request_duration_seconds",
        "histogram",
        "From a request's whole head to the end of its response, waiting and retries included.",
    );
    for (name, metrics) in all() {
        page.histogram(&[("upstream", name)], &metrics.duration());
    }
    page.family("evenkeel_failed_requests_total", "counter", "Requests that no replica answered whole, by reason.");
    for (name, metrics) in all() {
        page.tally(&[("upstream", name)], "reason", &metrics.failures);
    }
    page.family("evenkeel_retries_total", "counter", "Attempts after the first, by what failed before.");
    for (name, metrics) in all() {
        page.tally(&[("upstream", name)], "reason", &metrics.retries);
    }
    page.family("evenkeel_connects_total", "counter", "Connections to replicas tried, by result.");
    for (name, metrics) in all() {
        page.tally(&[("upstream", name)], "result", &metrics.connects);
    }
    page.family("evenkeel_events_total", "counter", "Changes of an upstream's or a replica's state, by kind.");
    for (name, metrics) in all() {
        page.tally(&[("upstream", name)], "event", &metrics.events);
    }
    page.family("evenkeel_dns_answers_total", "counter", "What DNS questions ended in.");
    for (name, metrics) in all() {
        page.tally(&[("upstream", name)], "result", &metrics.dns.kinds);
    }
    page.upstream_gauge(
        status,
        "evenkeel_dns_answer_age_seconds",
        "Time since DNS last said which addresses there are, or that there are none; time-outs and errors say neither.",
        |u| u.dns_answer_seconds_ago,
    );
    page.upstream_gauge(status, "evenkeel_waiting_requests", "Requests that wait for a replica.", |u| Some(u.waiting));
    page.upstream_gauge(status, "evenkeel_upstream_paused", "1 while an operator has all requests wait.", |u| {
        Some(u8::from(u.paused))
    });
    page.upstream_gauge(
        status,
        "evenkeel_upstream_healthy",
        "1 while at least one replica is usable: see evenkeel_endpoint_usable.",
        |u| Some(u8::from(u.healthy)),
    );
    page.upstream_gauge(
        status,
        "evenkeel_upstream_no_answer_seconds",
        "For how long requests have waited and none was answered, where no replica is usable; else 0.",
        |u| Some(u.no_answer_seconds.unwrap_or(0.0)),
    );
    page.upstream_gauge(
        status,
        "evenkeel_outage_seconds",
        "For how long no replica can be picked, or none answers though requests wait; else 0.",
        |u| Some(u.outage_seconds.unwrap_or(0.0)),
    );
}

fn endpoints(page: &mut Page, status: &Status) {
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_usable",
        "gauge",
        "1 if requests go to this replica, it is known to work and it answers.",
        |e| Some(u8::from(e.usable)),
    );
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_draining",
        "gauge",
        "1 if DNS no longer lists this replica: it gets nothing new, and what it has finishes.",
        |e| Some(u8::from(e.membership == Membership::Draining)),
    );
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_drained",
        "gauge",
        "1 if an operator took this replica out of use.",
        |e| Some(u8::from(e.drained)),
    );
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_no_answer_seconds",
        "gauge",
        "For how long its requests have waited and none was answered, where that is longer than usual; else 0.",
        |e| Some(e.no_answer_seconds.unwrap_or(0.0)),
    );
    page.endpoint_samples(status, "evenkeel_endpoint_in_flight", "gauge", "Requests this replica has.", |e| {
        Some(e.in_flight)
    });
    page.endpoint_samples(status, "evenkeel_endpoint_streams", "gauge", "Long streams this replica has.", |e| {
        Some(e.streams)
    });
    page.endpoint_samples(status, "evenkeel_endpoint_idle_connections", "gauge", "Connections kept for it.", |e| {
        Some(e.idle_connections)
    });
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_weight",
        "gauge",
        "The factor on its requests in flight in the pick: 1; (r / 1.5) squared if it is certainly r times as slow as the \
         pool's fast ones; 4 if it stopped answering while others answer.",
        |e| Some(e.weight),
    );
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_first_byte_seconds",
        "gauge",
        "Geometric mean of the time to its responses' first byte, the last ones weighing most.",
        |e| e.first_byte_seconds,
    );
    page.endpoint_samples(status, "evenkeel_endpoint_requests_total", "counter", "Requests sent to it.", |e| {
        Some(e.requests)
    });
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_failures_total",
        "counter",
        "Requests that it did not answer, or not whole.",
        |e| Some(e.failures),
    );
    page.endpoint_samples(
        status,
        "evenkeel_endpoint_server_errors_total",
        "counter",
        "Its responses with a status of 5xx, which were passed on.",
        |e| Some(e.server_errors),
    );
}

/// As the official clients name them. What cannot be read is left out.
fn process(page: &mut Page) {
    if let Some(resident) = resident_memory() {
        page.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        page.sample(&[], resident);
    }
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        page.family("process_cpu_seconds_total", "counter", "CPU time, user and system.");
        page.sample(&[], seconds(usage.user_time()) + seconds(usage.system_time()));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.family("process_open_fds", "gauge", "Open descriptors.");
        // The listing itself has one.
        page.sample(&[], open.count().saturating_sub(1));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        page.family("process_max_fds", "gauge", "Descriptors at most.");
        page.sample(&[], soft);
    }
}

/// In bytes.
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::FAILURES;
    use crate::admin::status::{EndpointStatus, UpstreamStatus};
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    fn status() -> Status {
        let endpoint = |address: &str| EndpointStatus {
            address: address.to_owned(),
            weight: 1.25,
            first_byte_seconds: Some(0.0041),
            ..EndpointStatus::default()
        };
        let upstream = UpstreamStatus {
            name: "a \"quoted\\ name\"\nwith a break".to_owned(),
            endpoints: vec![endpoint("172.18.0.3:8080"), endpoint("[fd00::3]:8080")],
            ..UpstreamStatus::default()
        };
        Status { version: "0.1.0".to_owned(), uptime_seconds: 1.5, upstreams: vec![upstream], ..Status::default() }
    }

    fn metrics() -> Metrics {
        let upstream = Arc::new(UpstreamMetrics::new(2));
        upstream.failures.add("connection_refused");
        upstream.events.add("joined");
        let name: Arc<str> = status().upstreams[0].name.as_str().into();
        Metrics { server: Arc::default(), upstreams: vec![(name, upstream)] }
    }

    /// A page's samples by name and labels, after a check of its grammar as the format's documentation has it.
    fn parse(page: &str) -> HashMap<String, f64> {
        let mut samples = HashMap::new();
        let mut families = HashSet::new();
        let mut family = ("", "");
        let mut helped = "";
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty(), "{line}");
                helped = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split_once(' ').unwrap();
                assert_eq!(family.0, helped, "TYPE follows its HELP");
                assert!(families.insert(family.0), "{} comes twice", family.0);
                assert!(["counter", "gauge", "histogram"].contains(&family.1), "{line}");
                let is_counter = family.1 == "counter";
                assert_eq!(family.0.ends_with("_total"), is_counter, "counters, and only they, end in _total: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap();
                let name = series.split('{').next().unwrap();
                let base = match family.1 {
                    "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap(),
                    _ => name,
                };
                assert_eq!(base, family.0, "samples follow their family's head");
                assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                parse_labels(series.strip_prefix(name).unwrap());
                assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
            }
        }
        samples
    }

    /// `{a="b",c="d"}`, in whose values a backslash, a quote and a line's end are escaped.
    fn parse_labels(text: &str) -> Vec<(String, String)> {
        let mut labels = Vec::new();
        if text.is_empty() {
            return labels;
        }
        let mut rest = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap();
        while !rest.is_empty() {
            let (name, after) = rest.split_once("=\"").unwrap();
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{text}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().expect("a value ends in a quote") {
                    (i, '"') => break i,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("\\{c}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((name.to_owned(), value));
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        labels
    }

    fn find<'a>(samples: &'a HashMap<String, f64>, start: &str) -> Vec<(&'a str, f64)> {
        samples
            .iter()
            .filter(|(name, _)| name.starts_with(start))
            .map(|(name, value)| (name.as_str(), *value))
            .collect()
    }

    #[test]
    fn the_page_follows_the_text_format() {
        let samples = parse(&render(&status(), &metrics()));
        assert_eq!(samples["evenkeel_build_info{version=\"0.1.0\"}"], 1.0);
        assert_eq!(samples["evenkeel_uptime_seconds"], 1.5);
        assert_eq!(find(&samples, "evenkeel_endpoint_weight").len(), 2);
        let failed = find(&samples, "evenkeel_failed_requests_total");
        assert_eq!(failed.len(), FAILURES.len(), "what has not happened yet is there too");
        assert_eq!(failed.iter().map(|(_, count)| count).sum::<f64>(), 1.0);
        for of_process in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
            assert!(samples[of_process] > 0.0, "{of_process}");
        }
    }

    #[test]
    fn a_name_comes_back_from_its_escapes() {
        let page = render(&status(), &metrics());
        let line = page.lines().find(|line| line.starts_with("evenkeel_waiting_requests{")).unwrap();
        let labels = parse_labels(line.strip_prefix("evenkeel_waiting_requests").unwrap().rsplit_once(' ').unwrap().0);
        assert_eq!(labels, [("upstream".to_owned(), status().upstreams[0].name.clone())]);
    }

    #[test]
    fn the_histogram_is_cumulative_and_agrees_with_the_count() {
        let metrics = metrics();
        for millis in [0, 3, 3, 40, 400_000] {
            metrics.upstreams[0].1.request(0, 200, Duration::from_millis(millis));
        }
        let samples = parse(&render(&status(), &metrics));
        let at = |bound: &str| {
            let wanted = format!("le=\"{bound}\"");
            let all = find(&samples, "evenkeel_request_duration_seconds_bucket");
            all.into_iter().find(|(name, _)| name.contains(&wanted)).unwrap().1
        };
        let bounds = ["0.0005", "0.0025", "0.005", "0.025", "0.05", "120", "+Inf"];
        assert_eq!(bounds.map(at), [1.0, 1.0, 3.0, 3.0, 4.0, 4.0, 5.0]);
        assert_eq!(find(&samples, "evenkeel_request_duration_seconds_count")[0].1, 5.0);
        assert_eq!(find(&samples, "evenkeel_request_duration_seconds_sum")[0].1, 400.046);
    }

    #[test]
    fn counters_only_grow() {
        let metrics = metrics();
        let counters = |samples: HashMap<String, f64>| -> HashMap<String, f64> {
            samples.into_iter().filter(|(name, _)| name.contains("_total") || name.contains("_bucket")).collect()
        };
        let before = counters(parse(&render(&status(), &metrics)));
        metrics.upstreams[0].1.request(1, 503, Duration::from_millis(7));
        metrics.upstreams[0].1.failures.add("connection_refused");
        metrics.server.accepted.fetch_add(1, Ordering::Relaxed);
        let after = counters(parse(&render(&status(), &metrics)));
        assert!(before.iter().all(|(name, value)| after[name] >= *value));
        let grown = after.iter().filter(|(name, value)| before.get(*name) != Some(value)).count();
        assert!(grown >= 3, "{grown} counters noticed");
    }
}
