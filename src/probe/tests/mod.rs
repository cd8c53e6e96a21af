//! The loop under a paused clock against a probe that is told what to say.

mod prober;

use super::*;
use crate::config::Host;
use crate::discovery::tests::{ip, upstream};
use crate::pool::{EndpointView, Resolution};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Takes a while, says the same each time for an address, and remembers when it was asked.
#[derive(Default)]
struct Scripted {
    takes: Duration,
    failing: Mutex<HashMap<SocketAddr, ProbeResult>>,
    asked: Mutex<Vec<(SocketAddr, Instant)>>,
    under_way: Mutex<usize>,
    most: Mutex<usize>,
}

impl Probe for Scripted {
    async fn probe(&self, address: SocketAddr, _: &config::Probe, _: Duration) -> ProbeResult {
        self.asked.lock().push((address, clock::now()));
        *self.under_way.lock() += 1;
        let now = *self.under_way.lock();
        let most = (*self.most.lock()).max(now);
        *self.most.lock() = most;
        tokio::time::sleep(self.takes).await;
        *self.under_way.lock() -= 1;
        self.failing.lock().get(&address).cloned().unwrap_or(ProbeResult::Passed)
    }
}

fn serving(replicas: u8) -> Arc<Upstream> {
    let upstream = upstream(Host::Name("db-checker".to_owned()), 8080);
    let all: Vec<_> = (1..=replicas).map(ip).collect();
    upstream.apply(|pool, now| pool.resolved(&Resolution::Addresses(all), &[], now, now));
    upstream
}

/// The load of a request that is alone.
const LOAD: crate::pool::Load = crate::pool::Load { in_flight: 1, at_end: 1, limit: u32::MAX };

fn views(upstream: &Arc<Upstream>) -> Vec<EndpointView> {
    upstream.apply(|pool, now| pool.endpoints(now))
}

/// Lets virtual time pass until that is so; a minute is for ever.
async fn until(condition: impl Fn() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now() - began < Duration::from_secs(60), "it never came true");
        tokio::time::sleep(ms(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn new_replicas_are_proven_at_once_and_then_probed_each_interval() {
    let upstream = serving(3);
    let probe = Arc::new(Scripted { takes: ms(5), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    assert_eq!(probe.asked.lock().len(), 3, "each once");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = probe.asked.lock().len();
    assert!((30..=36).contains(&asked), "{asked} probes of 3 replicas in 10 intervals");
}

// D4
#[tokio::test(start_paused = true)]
async fn a_probe_that_may_end_a_suspicion_does_not_wait_for_one_that_may_not() {
    let upstream = serving(1);
    let probe = Arc::new(Scripted { takes: ms(900), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    let asked = || probe.asked.lock().len();
    let before = asked();
    until(|| asked() > before).await;
    // A routine probe is under way now, and its connection is refused to a request.
    let id = views(&upstream)[0].id;
    upstream
        .apply(|pool, now| pool.record(id, crate::pool::Outcome::Refused, LOAD, crate::discovery::tests::ip(9), now));
    tokio::time::sleep(ms(260)).await;
    let before = asked();
    let listed = clock::now();
    upstream.apply(|pool, now| {
        pool.asked(now);
        pool.resolved(&Resolution::Addresses(vec![ip(1)]), &[], now, now);
    });
    until(|| asked() > before).await;
    assert!(clock::now() - listed <= ms(20), "it began {:?} after the answer", clock::now() - listed);
    until(|| views(&upstream).iter().all(|e| !e.suspect)).await;
    assert!(clock::now() - listed <= ms(950), "it took {:?}", clock::now() - listed);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_hangs_delays_no_probe_of_another() {
    let upstream = serving(2);
    let hung = SocketAddr::new(ip(1), 8080);
    let probe = Arc::new(Scripted { takes: ms(900), ..Scripted::default() });
    probe.failing.lock().insert(hung, ProbeResult::TimedOut);
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().any(|e| e.health == Health::Up)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let of_other = probe.asked.lock().iter().filter(|(address, _)| *address != hung).count();
    assert!((9..=12).contains(&of_other), "{of_other} probes in 10 intervals");
    let views = views(&upstream);
    assert_eq!(views[0].health, Health::Unproven);
    assert_eq!(views[1].health, Health::Up);
}

#[tokio::test(start_paused = true)]
async fn a_large_upstream_is_proven_without_a_burst() {
    let upstream = serving(200);
    let probe = Arc::new(Scripted { takes: ms(5), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    assert_eq!(*probe.most.lock(), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn probes_of_a_large_upstream_that_hangs_do_not_pile_up() {
    let upstream = serving(200);
    let probe = Arc::new(Scripted { takes: ms(1000), ..Scripted::default() });
    let hung = (1..=200).map(|n| (SocketAddr::new(ip(n), 8080), ProbeResult::TimedOut));
    *probe.failing.lock() = hung.collect();
    tokio::spawn(run(upstream.clone(), probe.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= 201, "{tasks} tasks: one for each replica, and the loop");
    let asked = probe.asked.lock().len();
    assert!(asked >= 58 * AT_ONCE, "{asked} probes: as many as the slots bear");
}

// A11
#[tokio::test(start_paused = true)]
async fn a_hung_replica_is_noticed_in_time_however_many_new_addresses_swallow_connects() {
    let upstream = serving(3);
    let probe = Arc::new(Scripted { takes: ms(1000), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    let black_hole = |n: u16| IpAddr::from([127, 2, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    let holes: Vec<_> = (1..=1000).map(black_hole).collect();
    let failing = holes.iter().map(|ip| (SocketAddr::new(*ip, 8080), ProbeResult::ConnectTimedOut));
    probe.failing.lock().extend(failing);
    let all = (1..=3).map(ip).chain(holes).collect();
    upstream.apply(|pool, now| {
        pool.asked(now);
        pool.resolved(&Resolution::Addresses(all), &[], now, now);
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let hung = SocketAddr::new(ip(1), 8080);
    probe.failing.lock().insert(hung, ProbeResult::TimedOut);
    let hangs = clock::now();
    until(|| views(&upstream).iter().any(|e| e.address == hung && e.health == Health::Down)).await;
    let took = clock::now() - hangs;
    assert!(took <= ms(3100), "{took:?}: two probes that time out, and one under way");
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_sleeps() {
    let upstream = serving(1);
    let probe = Arc::new(Scripted::default());
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream)[0].health == Health::Up).await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = probe.asked.lock().len();
    assert!((59..=62).contains(&asked), "{asked} probes in 60 intervals");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before, "tasks pile up");
}
