//! What the operator's last hour takes of memory, counted exactly.
//!
//! One test only: the count is the whole process's.

#![allow(clippy::disallowed_methods)] // tests live in real time

use evenkeel::admin::history::{History, SLOT, SLOTS, Times};
use evenkeel::admin::latency::Latency;
use evenkeel::admin::status::{EndpointStatus, Status, UpstreamStatus};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// An hour of one upstream or replica takes no more than this (docs/operations.md).
const SERIES: usize = 28 * 1024;

/// So many replicas of an upstream are remembered, those that have left included.
const REMEMBERED: usize = 64;

/// The bytes that the last hour takes of an upstream with three replicas which are replaced every `deploys` slots.
fn bytes_of_two_hours(deploys: usize) -> usize {
    let region = Region::new(ALLOCATOR);
    let mut history = History::new(Instant::now());
    let latency = Latency::default();
    latency.observe(Duration::from_millis(4));
    for slot in 0..2 * SLOTS {
        let deploy = (slot / deploys) as u64;
        let endpoint = |id| EndpointStatus { id, address: format!("172.18.0.{id}:8080"), ..EndpointStatus::default() };
        let endpoints: Vec<_> = (3 * deploy..3 * deploy + 3).map(endpoint).collect();
        let mut times = Times::default();
        latency.add_to(&mut times.upstream);
        endpoints.iter().for_each(|endpoint| latency.add_to(times.replicas.entry(endpoint.id).or_default()));
        let upstream = UpstreamStatus { name: "app".to_owned(), endpoints, ..UpstreamStatus::default() };
        let status = Status { upstreams: vec![upstream], ..Status::default() };
        let now = Instant::now() + SLOT * u32::try_from(slot).unwrap();
        history.add(&status, &BTreeMap::from([("app".to_owned(), times)]), now);
    }
    let change = region.change();
    assert!(history.slot("app", history.present() - 1).is_some());
    change.bytes_allocated - change.bytes_deallocated
}

#[test]
fn an_hour_takes_no_more_memory_than_the_manual_says() {
    let calm = bytes_of_two_hours(2 * SLOTS);
    let busy = bytes_of_two_hours(1);
    println!("{calm} bytes for an upstream with three replicas, {busy} where they are replaced every ten seconds");
    assert!(calm <= 4 * SERIES, "{calm} bytes");
    assert!(busy <= (REMEMBERED + 1) * SERIES, "{busy} bytes");
}
