//! Who waits, for how long, and who is served first: the queue, and what comes behind an outage.

use crate::{Bed, GET, assert_own, gate, ok, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testbed::{Loopback, Origin, ProxyConfig, Wire, eventually};

/// A connection to the proxy from an address of its own.
fn client_at(last: u8, proxy: SocketAddr) -> Wire {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 77, 1, last], 0)).into()).expect("all of 127/8 is this machine");
    socket.connect(&proxy.into()).expect("the proxy listens");
    Wire::over(socket.into())
}

// U1
#[test]
fn app_with_a_hundred_connections_to_its_database_loses_nothing_to_the_backlog_of_an_outage() {
    const SLOTS: usize = 100;
    const WAITING: usize = 500;
    let network = Loopback::new();
    let (slots, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // One database for all: a request beyond its hundred connections is answered 424.
    let replica = || -> Origin {
        let (slots, most) = (slots.clone(), most.clone());
        network.origin("app", move |head, wire, _| {
            let taken = slots.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(taken, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            slots.fetch_sub(1, Ordering::SeqCst);
            if taken <= SLOTS {
                serve(head, wire);
            } else {
                let _ = wire.try_send("HTTP/1.1 424 Failed Dependency\r\nContent-Length: 0\r\n\r\n");
            }
        })
    };
    let config = ProxyConfig::new(&network, "app").set("upstream.app.wait", "30s");
    let proxy = crate::start(&network, &config);
    let mut waiting: Vec<Wire> = (0..WAITING).map(|_| Wire::connect(proxy.address())).collect();
    waiting.iter_mut().for_each(|wire| wire.send(GET));
    eventually("all wait", || proxy.status()["upstreams"][0]["waiting"] == WAITING);
    let began = Instant::now();
    let _replicas = [replica(), replica(), replica()];
    let statuses: Vec<u16> = waiting.iter_mut().map(|wire| wire.response().unwrap().status).collect();
    let lost = statuses.iter().filter(|status| **status != 200).count();
    let most = most.load(Ordering::SeqCst);
    println!("{lost} of {WAITING} lost, {most} at once, the last after {:?}", began.elapsed());
    assert_eq!(lost, 0, "{most} of {SLOTS} connections at once");
}

// A8
#[test]
fn slow_requests_that_fill_a_cold_pool_do_not_hold_up_the_others() {
    let (go, gate) = gate();
    let bed = Bed::new(move |head, wire, _| {
        if head.target() == "/slow" {
            gate();
        }
        ok(wire);
    });
    let mut slow: Vec<Wire> = (0..300).map(|_| bed.client()).collect();
    slow.iter_mut().for_each(|wire| wire.get("/slow"));
    eventually("all run", || bed.origin().requests() == 300);
    assert_eq!(bed.ask(GET).status, 200);
    go();
    assert!(slow.iter_mut().all(|wire| wire.response().unwrap().status == 200));
}

// A10
#[test]
fn caller_that_floods_a_full_pool_delays_another_by_one_request_and_is_refused_first_on_a_connection_it_keeps() {
    let bed = Bed::with(
        |c| c.set("upstream.app.max_in_flight", 2).set("upstream.app.max_waiting", 20).set("upstream.app.wait", "30s"),
        |_, wire, _| {
            std::thread::sleep(Duration::from_millis(20));
            ok(wire);
        },
    );
    let address = bed.proxy.address();
    let mut flood: Vec<Wire> = (0..60).map(|_| client_at(1, address)).collect();
    flood.iter_mut().for_each(|wire| wire.send(GET));
    let mut statuses = vec![];
    for _ in 0..10 {
        let mut honest = client_at(2, address);
        honest.send(GET);
        statuses.push(honest.response().unwrap().status);
    }
    assert_eq!(statuses, [200; 10]);
    let mut refused = 0;
    for wire in &mut flood {
        let response = wire.response().unwrap();
        if response.status != 200 {
            refused += 1;
            assert_own(&response, 503);
            assert_eq!(response.get("connection"), None);
            wire.send(GET);
            let again = wire.response().unwrap().status;
            assert!(matches!(again, 200 | 503), "the connection is of no more use: {again}");
        }
    }
    assert!(refused >= 60 - 22 - 10, "{refused} of the flood were refused");
}

// D11
#[test]
fn requests_that_wait_when_the_upstreams_address_changes_go_on_at_the_new_one() {
    let network = Loopback::new();
    let old = ProxyConfig::new(&network, "nobody").set("upstream.nobody.wait", "60s");
    let proxy = crate::start(&network, &old);
    let _app = network.origin("app", |head, wire, _| serve(head, wire));
    let mut waiting: Vec<Wire> = (0..5).map(|_| Wire::connect(proxy.address())).collect();
    waiting.iter_mut().for_each(|wire| wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
    eventually("all wait", || proxy.status()["upstreams"][0]["waiting"] == 5);
    let new = ProxyConfig::new(&network, "app");
    proxy.write_config(&new.to_toml());
    for wire in &mut waiting {
        assert_eq!(wire.response().unwrap().status, 200);
    }
}
