//! Uploads whose replica breaks off, refuses or answers early.

use crate::{Bed, GET, assert_own, gate, ok, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testbed::{Loopback, Wire, eventually};

// D1
#[test]
fn a_connect_that_is_refused_moves_an_upload_of_any_size_and_method() {
    const SIZE: usize = 1 << 20;
    let network = Loopback::new();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let refusing = network.origin("app", |h, w, _| serve(h, w));
    let bed = Bed::around(network, vec![origin], crate::ailing::without_probes);
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    let std::net::IpAddr::V4(refused) = refusing.address().ip() else { unreachable!() };
    refusing.refuse();
    drop(refusing);
    bed.network.dns().add("app", refused);
    let request =
        [format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes(), &vec![b'x'; SIZE]]
            .concat();
    for _ in 0..5 {
        let mut wire = Wire::connect(bed.proxy.address());
        wire.send(&request);
        assert_eq!(wire.response().unwrap().status, 200);
    }
}

/// Writes an upload of `size` bytes as its client, which reads only after that; `pause` comes in the middle.
fn write_first(wire: &mut Wire, size: usize, pause: Duration) {
    wire.send(format!("POST /upload HTTP/1.1\r\nHost: app.test\r\nContent-Length: {size}\r\n\r\n"));
    let piece = vec![b'x'; 64 << 10];
    for part in 0..size / piece.len() {
        if part == size / piece.len() / 2 {
            std::thread::sleep(pause);
        }
        wire.send(&piece);
    }
}

// F89, H2
#[test]
fn an_upload_goes_on_behind_its_response_as_long_as_the_replica_reads() {
    const SIZE: usize = 20 << 20;
    let read = Arc::new(AtomicUsize::new(0));
    let ours = read.clone();
    let bed = Bed::new(move |head, wire, _| {
        if head.target() != "/upload" {
            return serve(head, wire);
        }
        ok(wire);
        if let Ok(body) = wire.body(head) {
            ours.fetch_add(body.len(), Ordering::Relaxed);
        }
    });
    let mut wire = bed.client();
    for uploads in 1..=2 {
        write_first(&mut wire, SIZE, Duration::ZERO);
        let response = wire.response().unwrap();
        assert_eq!((response.status, response.get("connection")), (200, None));
        // The next request is behind the body, so that it is answered once all of that was taken.
        wire.send(GET);
        assert_eq!(wire.response().unwrap().status, 200);
        eventually("the replica got all of it", || read.load(Ordering::Relaxed) == uploads * SIZE);
    }
}

// F89, H2
#[test]
fn a_connection_that_was_to_be_kept_outlives_a_replica_that_answers_without_reading_the_upload() {
    let bed = Bed::new(|head, wire, _| {
        if head.target() != "/upload" {
            return serve(head, wire);
        }
        wire.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        wire.close();
    });
    let mut wire = bed.client();
    for _ in 0..3 {
        write_first(&mut wire, 4 << 20, Duration::ZERO);
        let response = wire.response().unwrap();
        assert_eq!((response.status, response.get("connection")), (202, None));
        wire.send(GET);
        assert_eq!(wire.response().unwrap().status, 200);
    }
}

// F40, H2
#[test]
fn a_refusal_reaches_a_slow_client_that_reads_only_when_it_has_written_all_of_a_large_body() {
    let bed = Bed::new(|_, wire, _| {
        wire.send("HTTP/1.1 413 Too much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
        wire.close();
    });
    let mut wire = bed.client();
    write_first(&mut wire, 64 << 20, Duration::from_millis(1500));
    let response = wire.response().unwrap();
    assert_eq!((response.status, response.text()), (413, "no\n".into()));
    assert_eq!(response.get("connection"), Some("close"));
}

// F67, D10
#[test]
fn a_client_that_waits_to_be_asked_for_its_body_waits_for_the_replica() {
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| c.set("server.body_idle", "200ms").set("upstream.app.response_timeout", "1s"),
        move |head, wire, _| {
            if head.target() == "/never" {
                return gate();
            }
            std::thread::sleep(Duration::from_millis(600));
            wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            if let Ok(body) = wire.body(head) {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
                wire.send(body);
            }
        },
    );
    let request = |path: &str| {
        format!("PUT {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut wire = bed.client();
    wire.send(request("/late"));
    assert_eq!(wire.response().unwrap().status, 100, "asked for later than body_idle");
    wire.send("hello");
    assert_eq!(wire.response().unwrap().text(), "hello");
    // Once it was asked it has to send.
    wire.send(request("/late"));
    assert_eq!(wire.response().unwrap().status, 100);
    assert_own(&wire.response().unwrap(), 408);
    assert_own(&bed.ask(request("/never")), 504);
    go();
}
