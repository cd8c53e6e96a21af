//! Bounds in time and number that end what nobody uses: connections at rest on both sides, and bodies kept for a repetition.

use crate::ailing::without_probes;
use crate::{Bed, GET, gate, ok, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{Ending, Loopback, Wire, eventually};

// T10
#[test]
fn a_clients_connection_ends_after_client_idle_and_silently() {
    let bed = Bed::with(|c| c.set("server.client_idle", "500ms"), |h, w, _| serve(h, w));
    // One that asks nothing, and one between two requests.
    let mut silent = bed.client();
    let mut kept = bed.client();
    let start = Instant::now();
    assert_eq!(silent.ending(), (Ending::Closed, vec![]));
    let took = start.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&took), "{took:?}");

    drop(kept);
    kept = bed.client();
    for _ in 0..4 {
        kept.send(GET);
        assert_eq!(kept.response().unwrap().status, 200);
        let answered = Instant::now();
        eventually("a pause within bounds", || answered.elapsed() >= Duration::from_millis(200));
    }
    let start = Instant::now();
    assert_eq!(kept.ending(), (Ending::Closed, vec![]));
    assert!(start.elapsed() >= Duration::from_millis(200), "counted from the last answer: {:?}", start.elapsed());
}

// T10
#[test]
fn at_most_max_idle_connections_are_kept_for_a_replica() {
    const MOST: usize = 3;
    const AT_ONCE: usize = 12;
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| c.set("server.threads", 1).set("upstream.app.max_idle", MOST).set("upstream.app.idle_timeout", "60s"),
        move |head, wire, _| {
            if head.target() == "/hold" {
                gate();
            }
            ok(wire);
        },
    );
    // Warm, so that its window does not hold requests back.
    for _ in 0..20 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    let mut clients: Vec<Wire> = (0..AT_ONCE).map(|_| bed.client()).collect();
    clients.iter_mut().for_each(|client| client.get("/hold"));
    eventually("each has a connection", || bed.origin().open() == AT_ONCE);
    go();
    for client in &mut clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
    eventually("the others are closed", || bed.origin().open() == MOST);
    assert_eq!(bed.proxy.endpoints("app")[0]["idle_connections"], MOST);
    let before = bed.origin().connections();
    for client in clients.iter_mut().take(MOST) {
        client.send(GET);
        assert_eq!(client.response().unwrap().status, 200);
    }
    assert!(bed.origin().connections() <= before + 1, "those that are kept are used (a probe may have come)");
}

/// The status of the answer to a PUT with a body of so many bytes, whose first replica reads it and breaks the connection.
fn put(size: usize) -> u16 {
    let network = Loopback::new();
    let breaks = Arc::new(AtomicBool::new(true));
    let replica = || {
        let breaks = breaks.clone();
        network.origin("app", move |head, wire, _| {
            assert_eq!(wire.body(head).unwrap().len(), size, "it came whole, both times");
            if breaks.swap(false, Ordering::Relaxed) {
                wire.reset();
            } else {
                ok(wire);
            }
        })
    };
    let origins = vec![replica(), replica()];
    let bed = Bed::around(network, origins, without_probes);
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    let mut request = format!("PUT /big HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    request.resize(request.len() + size, b'x');
    bed.ask(request).status
}

// T10, P3
#[test]
fn a_body_of_64_kib_is_kept_for_a_repetition_and_a_byte_more_is_not() {
    assert_eq!(put(64 * 1024), 200);
    assert_eq!(put(64 * 1024 + 1), 502);
}
