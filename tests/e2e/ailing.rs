//! Real replicas that die, hang, fail and are overrun (F19, F30, F42 to F46a).

use crate::{Bed, GET, assert_own};
use serde_json::json;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testbed::{App, Container, Ending, Loopback, Network, Proxy, ProxyConfig, Signal, Wire, eventually};

on_every_testbed! {
    a_dead_replica_that_refuses_costs_no_request_of_any_method
    requests_that_wait_on_a_replica_declared_down_move_at_once_and_once
    a_post_that_waits_on_a_replica_declared_down_stays_and_is_answered_when_that_recovers
    a_replica_killed_before_it_answers_costs_no_get
    a_replica_killed_before_it_answers_fails_its_posts_and_no_other_sees_them
    a_replica_killed_in_its_answer_cuts_it
    a_replica_that_fails_everything_at_once_is_ejected_though_its_probe_passes
    when_all_replicas_fail_alike_none_is_ejected_and_their_answers_pass
    a_get_that_kills_whoever_runs_it_kills_at_most_three
    a_busy_replica_is_not_taken_down_by_probes_that_wait_behind_its_traffic
}

/// Probes so seldom that only traffic can tell.
pub(crate) fn without_probes(config: ProxyConfig) -> ProxyConfig {
    config.set("upstream.app.probe.interval", "30s").set("upstream.app.probe.timeout", "1s")
}

/// A proxy in front of real replicas, all of them proven and warm: a cold one gets few requests at once.
fn pool<N: Network>(
    network: N,
    count: usize,
    app: &App,
    change: impl FnOnce(ProxyConfig) -> ProxyConfig,
) -> (Vec<Box<dyn Container>>, Bed<N>) {
    network.keep_records(); // what happens must come of the connections alone
    let replicas = network.scale("app", app, count);
    let bed = Bed::around(network, vec![], change);
    wait_for_all(&bed.proxy, &replicas);
    for _ in 0..20 * count {
        bed.proxy.get("/");
    }
    (replicas, bed)
}

/// Waits until each of these replicas has answered a request through the proxy.
fn wait_for_all(proxy: &Proxy, replicas: &[Box<dyn Container>]) {
    let mut seen = std::collections::HashSet::new();
    eventually("every replica is used", || {
        seen.insert(proxy.get("/").replica().to_owned());
        replicas.iter().all(|r| seen.contains(&r.name()))
    });
}

// F19
fn a_dead_replica_that_refuses_costs_no_request_of_any_method(network: impl Network) {
    let (replicas, bed) = pool(network, 2, &App::replica(), without_probes);
    replicas[0].signal(Signal::SIGKILL);
    replicas[0].wait_exit();
    for method in ["GET", "POST", "PATCH", "DELETE"].into_iter().cycle().take(40) {
        let response = bed.ask(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
        assert_eq!((response.status, response.replica()), (200, replicas[1].name().as_str()), "{method}");
    }
}

// F30
fn requests_that_wait_on_a_replica_declared_down_move_at_once_and_once(network: impl Network) {
    let (replicas, bed) = pool(network, 2, &App::replica(), |c| {
        c.set("upstream.app.probe.path", "/probe").set("upstream.app.response_timeout", "20s")
    });
    let served = stats(replicas[1].address())["served"].as_u64().unwrap();
    replicas[0].pause();
    let mut wires: Vec<Wire> = (0..8).map(|_| bed.client()).collect();
    wires.iter_mut().for_each(|wire| wire.send(GET));
    bed.proxy.wait_for_line(" down");
    let down = Instant::now();
    for wire in &mut wires {
        let response = wire.response().unwrap();
        assert_eq!((response.status, response.replica()), (200, replicas[1].name().as_str()));
    }
    assert!(down.elapsed() < Duration::from_secs(2), "{:?} after it was down, of 20 s they might wait", down.elapsed());
    let moved = bed.proxy.metric("evenkeel_retries_total", &[]);
    assert!((1.0..=8.0).contains(&moved), "{moved} moved: least connections had sent it some, and each moves once");
    let twice = stats(replicas[1].address())["served"].as_u64().unwrap() - served;
    assert_eq!(twice, 8, "the other one ran each once");
    replicas[0].resume();
    wait_for_all(&bed.proxy, &replicas);
}

// F30
fn a_post_that_waits_on_a_replica_declared_down_stays_and_is_answered_when_that_recovers(network: impl Network) {
    let (replicas, bed) = pool(network, 2, &App::replica(), |c| {
        c.set("upstream.app.probe.path", "/probe").set("upstream.app.response_timeout", "20s")
    });
    replicas[0].pause();
    // Least connections sends each of the two one.
    let mut wires: Vec<Wire> = (0..4).map(|_| bed.client()).collect();
    wires.iter_mut().enumerate().for_each(|(id, wire)| {
        wire.send(format!("POST /count?id={id} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
    });
    bed.proxy.wait_for_line("down");
    replicas[0].resume();
    for wire in &mut wires {
        assert_eq!(wire.response().unwrap().status, 200);
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for replica in &replicas {
        let mut wire = Wire::connect(replica.address());
        wire.get("/log");
        for line in wire.response().unwrap().text().lines() {
            let (id, count) = line.split_once(' ').unwrap();
            *times.entry(id.into()).or_default() += count.parse::<u32>().unwrap();
        }
    }
    assert_eq!(times.len(), 4);
    assert!(times.values().all(|n| *n == 1), "{times:?}");
}

// F42
fn a_replica_killed_before_it_answers_costs_no_get(network: impl Network) {
    let (mut replicas, bed) = pool(network, 4, &App::replica(), |c| c);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut wires: Vec<Wire> = (0..9).map(|_| bed.client()).collect();
        wires.iter_mut().for_each(|wire| wire.get("/sleep/300"));
        eventually("all are in flight", || in_flight(&replicas) == 9);
        let doomed = replicas.pop().expect("one of four");
        doomed.signal(signal);
        for wire in &mut wires {
            assert_eq!(wire.response().unwrap().status, 200, "{signal}");
        }
    }
}

// F42
fn a_replica_killed_before_it_answers_fails_its_posts_and_no_other_sees_them(network: impl Network) {
    let (replicas, bed) = pool(network, 3, &App::replica(), |c| c);
    // The one to be killed answers nothing more; the others answer at once.
    control(replicas[0].address(), "mean_ms=3600000");
    let mut wires: Vec<Wire> = (0..9).map(|_| bed.client()).collect();
    wires.iter_mut().enumerate().for_each(|(id, wire)| {
        wire.send(format!("POST /count?id={id} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
    });
    eventually("all arrived", || replicas.iter().map(|r| received(r.address()).len()).sum::<usize>() == 9);
    let doomed = received(replicas[0].address());
    replicas[0].signal(Signal::SIGKILL);
    assert!(!doomed.is_empty(), "least connections sends some to each");
    for (id, wire) in wires.iter_mut().enumerate() {
        let response = wire.response().unwrap();
        if doomed.contains(&id.to_string()) {
            assert_own(&response, 502);
        } else {
            assert_eq!(response.status, 200);
        }
    }
    for replica in &replicas[1..] {
        assert!(received(replica.address()).iter().all(|id| !doomed.contains(id)), "sent twice");
    }
}

// F43
fn a_replica_killed_in_its_answer_cuts_it(network: impl Network) {
    let (replicas, bed) = pool(network, 1, &App::replica(), |c| c);
    let mut wire = bed.client();
    wire.get("/bytes/1000000000");
    wire.head().unwrap();
    wire.bytes(1_000_000).unwrap();
    replicas[0].signal(Signal::SIGKILL);
    let (ending, rest) = wire.ending();
    assert_ne!(ending, Ending::Silent);
    assert!(rest.len() < 999_000_000);
}

// F44
fn a_replica_that_fails_everything_at_once_is_ejected_though_its_probe_passes(network: impl Network) {
    let (replicas, bed) = pool(network, 3, &App::replica(), |c| c);
    control(replicas[0].address(), "mode=fail");
    let statuses: Vec<u16> = (0..600).map(|_| bed.proxy.get("/").status).collect();
    let failed = statuses.iter().filter(|s| **s == 500).count();
    assert!(statuses.iter().all(|s| matches!(s, 200 | 500)));
    assert!(failed >= 10, "its answers are answers: {failed} passed");
    assert!(statuses[200..].iter().filter(|s| **s == 500).count() <= 8, "{failed} of 600 failed");
    // Well again, it is tried and comes back.
    control(replicas[0].address(), "mode=ok");
    wait_for_all(&bed.proxy, &replicas);
}

// F44
fn when_all_replicas_fail_alike_none_is_ejected_and_their_answers_pass(network: impl Network) {
    let (replicas, bed) = pool(network, 3, &App::replica(), |c| c);
    replicas.iter().for_each(|r| control(r.address(), "mode=fail"));
    let mut by_replica: HashMap<String, usize> = HashMap::new();
    for _ in 0..150 {
        let response = bed.proxy.get("/");
        assert_eq!((response.status, response.get("proxy-status")), (500, None));
        *by_replica.entry(response.replica().to_owned()).or_default() += 1;
    }
    assert_eq!(by_replica.len(), 3);
    assert!(by_replica.values().all(|n| *n > 20), "{by_replica:?}");
}

// F46a
fn a_get_that_kills_whoever_runs_it_kills_at_most_three(network: impl Network) {
    let (replicas, bed) = pool(network, 5, &App::replica(), |c| c);
    let response = bed.proxy.get("/exit");
    assert_own(&response, 502);
    let dead = replicas.iter().filter(|r| r.exited().is_some()).count();
    assert!((1..=3).contains(&dead), "{dead} of five died");
    assert_eq!(bed.proxy.get("/").status, 200);
}

// P8
#[test]
fn a_refused_address_gets_no_traffic_before_dns_has_listed_it_again() {
    let (replicas, bed) = pool(Loopback::new(), 2, &App::replica(), |c| c);
    let lost = replicas[0].address();
    replicas[0].signal(Signal::SIGKILL);
    replicas[0].wait_exit();
    eventually("the proxy notices", || {
        assert_eq!(bed.proxy.get("/").status, 200);
        !bed.proxy.lines(&lost.to_string()).iter().all(|l| l.contains("up: probe") || l.contains("joined"))
    });
    // The name falls silent, and somebody else takes the address: a probe alone would find it healthy.
    bed.network.dns().fail(testbed::Fault::Silence);
    let std::net::IpAddr::V4(ip) = lost.ip() else { unreachable!() };
    let foreign = bed.network.start_at(ip, "foreign", &App::replica());
    foreign.wait_listening();
    for _ in 0..100 {
        assert_eq!(bed.proxy.get("/").replica(), replicas[1].name());
    }
    // DNS still lists it, says so, and only then it is trusted.
    bed.network.dns().heal();
    eventually("it is used again", || bed.proxy.get("/").replica() == foreign.name());
}

// P10, and Caddy's 4,531 answers of 503
fn a_busy_replica_is_not_taken_down_by_probes_that_wait_behind_its_traffic(network: impl Network) {
    // One worker: a probe queues behind the requests that are served.
    // With eight clients it waits for 120 ms on average, longer than it may, while an answer comes every 15 ms.
    let app = App::replica().env("WORKERS", 1).env("MEAN_MS", 15);
    let _replicas = network.scale("app", &app, 1);
    let bed = Bed::around(network, vec![], |c| c.set("upstream.app.probe.path", "/probe"));
    bed.proxy.wait_serving("/");
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..30 {
                    assert_eq!(bed.proxy.get("/").status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.load(Ordering::Relaxed), 240);
    assert_eq!(bed.proxy.lines(" down"), Vec::<String>::new());
}

fn stats(at: SocketAddr) -> serde_json::Value {
    let mut wire = Wire::connect(at);
    wire.get("/stats");
    serde_json::from_slice(&wire.response().unwrap().body).unwrap_or(json!({}))
}

fn in_flight(replicas: &[Box<dyn Container>]) -> u64 {
    replicas.iter().filter_map(|r| stats(r.address())["in_flight"].as_u64()).sum()
}

/// The ids of the POSTs that came to this replica.
fn received(at: SocketAddr) -> Vec<String> {
    let mut wire = Wire::connect(at);
    wire.get("/log");
    let log = wire.response().unwrap().text();
    log.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
}

fn control(at: SocketAddr, what: &str) {
    let mut wire = Wire::connect(at);
    wire.get(&format!("/control?{what}"));
    assert_eq!(wire.response().unwrap().status, 200);
}
