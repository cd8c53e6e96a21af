//! The page at its largest.

use super::*;
use crate::admin::history::{SLOT, SLOTS, Times};
use crate::admin::latency::Latency;
use crate::admin::status::FailedRequest;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the page, its style and its script may weigh.
const MOST: usize = 60 * 1000;

/// An upstream of three replicas after an hour of traffic, failures, queues, and a deploy every three minutes.
fn busy_hour() -> (Status, History) {
    let began = clock::now();
    let mut history = History::new(began);
    let latency = Latency::default();
    let endpoint = |id: u64| EndpointStatus {
        id,
        address: format!("172.18.100.{id}:8080"),
        name: Some(format!("db-checker.web.{id}.20261127")),
        usable: true,
        weight: 1.0,
        score: Some(17.25),
        reason: "probe passed".to_owned(),
        requests: 1_234_567,
        ..EndpointStatus::default()
    };
    let event = |n: usize| Occurrence {
        seconds_ago: 12.0 * n as f64,
        address: Some(format!("172.18.100.{}:8080", n % 200)),
        kind: ["joined", "up", "draining", "left", "suspect"][n % 5].to_owned(),
        what: "draining: DNS no longer lists it".to_owned(),
    };
    let failure = FailedRequest {
        id: "3fa2c1d0-0-1523412".to_owned(),
        text: "the replica closed the connection without a response".to_owned(),
        endpoints: vec!["172.18.100.101:8080".to_owned(), "172.18.100.102:8080".to_owned()],
        client: "172.18.100.9:51234".to_owned(),
        method: "POST".to_owned(),
        target: "/x".repeat(200),
        ..FailedRequest::default()
    };
    let mut status = Status {
        upstreams: vec![UpstreamStatus {
            name: "db-checker".to_owned(),
            healthy: true,
            waiting: 12,
            max_waiting: 16_384,
            endpoints: (101..104).map(endpoint).collect(),
            timeline: (0..300).rev().map(event).collect(),
            failures: vec![failure; 50],
            ..UpstreamStatus::default()
        }],
        ..Status::default()
    };
    for n in 0..SLOTS as u32 {
        let upstream = &mut status.upstreams[0];
        upstream.requests += 4321 + u64::from(n % 97);
        upstream.failed += u64::from(n % 3);
        latency.observe(Duration::from_micros(1000 + u64::from(n) * 977));
        let mut times = Times { most_waiting: (n % 50) as usize, ..Times::default() };
        latency.add_to(&mut times.upstream);
        history.add(&status, &BTreeMap::from([("db-checker".to_owned(), times)]), began + SLOT * (n + 1));
    }
    (status, history)
}

#[test]
fn a_page_with_an_hour_of_trouble_is_small() {
    let (status, history) = busy_hour();
    let page = page(&status, &history, None);
    let size = page.len() + STYLE.len() + SCRIPT.len();
    println!("{size} bytes");
    assert!(size <= MOST, "{size} bytes: {page}");
    // It is all there: each column of the hour, where requests waited, and what happened.
    assert_eq!(page.matches("class=\"moment\"").count(), 120);
    let bars = page.split("<path class=\"waiting\" d=\"").nth(1).unwrap();
    assert_eq!(bars.split('"').next().unwrap().matches('M').count(), 120);
    assert!(page.contains("Bars below: requests that waited for a replica, at most 49 at once."), "{page}");
    assert!(page.contains("Queue ") && page.contains("12 of 16,384 from "), "{page}");
}
