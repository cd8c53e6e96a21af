//! Requests that make their app hang up: a handler that panics, a worker that is killed for its slowness, a server that
//! closes after each answer. They concern nobody else.

use crate::ailing::without_probes;
use crate::{Bed, GET, POST, assert_own, gate, ok, serve};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testbed::{App, Head, Loopback, Network, Origin, Signal, Wire, eventually};

/// Three replicas that hang up on `/boom` and answer all else.
fn three(script: impl Fn(&Head, &mut Wire) + Send + Sync + 'static) -> Bed {
    let network = Loopback::new();
    let script = Arc::new(script);
    let origin = |_| -> Origin {
        let script = script.clone();
        network.origin("app", move |head, wire, _| match head.target() {
            "/boom" => wire.reset(),
            "/half" => {
                let _ = wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                wire.reset();
            }
            _ => script(head, wire),
        })
    };
    let origins = (0..3).map(origin).collect();
    let bed = Bed::around(network, origins, |c| without_probes(c).set("upstream.app.response_timeout", "60s"));
    eventually("all are proven", || bed.proxy.lines("up: probe passed").len() == 3);
    bed
}

fn boom(bed: &Bed, target: &str) {
    let mut wire = bed.client();
    wire.get(target);
    let _ = wire.response();
}

// A1, D3
#[test]
fn requests_that_make_their_app_hang_up_take_no_replica_out_and_repeat_no_other_request() {
    let (go, gate) = gate();
    let waits = Arc::new(AtomicUsize::new(0));
    let seen = waits.clone();
    let bed = three(move |head, wire| {
        if head.target() == "/waits" {
            seen.fetch_add(1, Ordering::Relaxed);
            gate();
        }
        serve(head, wire);
    });
    // Healthy requests are under way on all three.
    let mut waiting: Vec<Wire> = (0..9).map(|_| bed.client()).collect();
    waiting.iter_mut().for_each(|wire| wire.get("/waits"));
    eventually("they are under way", || waits.load(Ordering::Relaxed) == 9);
    for round in 0..60 {
        boom(&bed, if round % 2 == 0 { "/boom" } else { "/half" });
        assert_eq!(bed.ask(GET).status, 200);
    }
    go();
    for wire in &mut waiting {
        assert_eq!(wire.response().unwrap().status, 200);
    }
    assert_eq!(waits.load(Ordering::Relaxed), 9, "none of them ran twice");
    assert_eq!(bed.proxy.lines("suspect: "), Vec::<String>::new());
    for endpoint in bed.proxy.endpoints("app") {
        assert_eq!(endpoint["health"], "up", "{endpoint}");
    }
}

// D3
#[test]
fn one_request_that_breaks_delays_nobody_on_a_replica_that_has_no_other_beside_it() {
    let (go, gate) = gate();
    let patient = |c: testbed::ProxyConfig| without_probes(c).set("upstream.app.response_timeout", "60s");
    let bed = Bed::with(patient, move |head, wire, _| match head.target() {
        "/boom" => wire.reset(),
        "/waits" => {
            gate();
            ok(wire);
        }
        _ => ok(wire),
    });
    (0..20).for_each(|_| assert_eq!(bed.ask(GET).status, 200));
    let mut polls: Vec<Wire> = (0..40).map(|_| bed.client()).collect();
    polls.iter_mut().for_each(|wire| wire.get("/waits"));
    eventually("the polls are under way", || bed.origin().open() >= 40);
    boom(&bed, "/boom");
    // On the clock for once: it waited for 3.2 s. Nothing that it could wait for comes earlier than 250 ms after a break.
    let began = std::time::Instant::now();
    assert_eq!(bed.ask(GET).status, 200);
    assert!(began.elapsed() < std::time::Duration::from_millis(250), "{:?}", began.elapsed());
    assert_eq!(bed.proxy.lines("suspect: "), Vec::<String>::new());
    go();
    polls.iter_mut().for_each(|wire| assert_eq!(wire.response().unwrap().status, 200));
}

// H3
#[test]
fn a_server_that_closes_after_each_answer_without_saying_so_loses_no_get_and_is_not_suspect() {
    let bed = three(|_, wire| {
        ok(wire);
        wire.close();
    });
    let mut wire = bed.client();
    for _ in 0..300 {
        wire.send(GET);
        assert_eq!(wire.response().unwrap().status, 200);
    }
    assert_eq!(bed.proxy.lines("suspect: "), Vec::<String>::new());
    assert_eq!(bed.proxy.lines("request failed"), Vec::<String>::new());
}

// A13
#[test]
fn all_gets_of_a_replica_that_dies_move_however_many_they_are() {
    let network = Loopback::new();
    network.keep_records();
    // More than the budget of retries holds.
    const WAITING: usize = 600;
    let replicas = network.scale("app", &App::replica(), 2);
    let bed = Bed::around(network, vec![], |c| {
        without_probes(c).set("upstream.app.max_waiting", 2000).set("upstream.app.response_timeout", "60s")
    });
    for replica in &replicas {
        eventually("it is used", || bed.proxy.get("/").replica() == replica.name());
    }
    (0..60).for_each(|_| assert_eq!(bed.proxy.get("/").status, 200));
    let mut wires: Vec<Wire> = (0..WAITING).map(|_| bed.client()).collect();
    wires.iter_mut().for_each(|wire| wire.get("/sleep/3000"));
    let in_flight = |bed: &Bed<_>| -> Vec<u64> {
        bed.proxy.endpoints("app").iter().map(|e| e["in_flight"].as_u64().unwrap_or(0)).collect()
    };
    eventually("they are under way", || in_flight(&bed).iter().sum::<u64>() == WAITING as u64);
    replicas[0].signal(Signal::SIGKILL);
    let mut answers = HashMap::new();
    for wire in &mut wires {
        *answers.entry(wire.response().map_or(0, |r| r.status)).or_insert(0) += 1;
    }
    assert_eq!(answers, HashMap::from([(200, WAITING)]), "{}", bed.proxy.output());
}

// A13, F42
#[test]
fn a_post_on_a_replica_that_dies_does_not_move() {
    let bed = three(|head, wire| {
        if head.method() == "POST" {
            let _ = wire.body(head);
            wire.reset();
        } else {
            ok(wire);
        }
    });
    assert_own(&bed.ask(POST), 502);
    let posts: usize = bed.origins.iter().map(|o| o.heads().iter().filter(|h| h.method() == "POST").count()).sum();
    assert_eq!(posts, 1);
}
