//! Replicas that accept and never answer: whatever the operator looks at says so while it lasts, and not for longer.

use crate::{Bed, GET, command, gate, ok, serve};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{App, Load, Loopback, Network, Plan, Proxy, Wire, eventually, eventually_some};

/// What `evenkeel status` prints.
fn table(proxy: &Proxy) -> String {
    let said = command(proxy, &["status"]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// Waits for longer than a silence takes to be noticed.
fn longer_than_patience() {
    let start = Instant::now();
    eventually("three seconds pass", || start.elapsed() > Duration::from_secs(3));
}

/// What status, page or table say against it that `app` answers, with all of so many replicas.
fn complaints(proxy: &Proxy, replicas: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut check = |well: bool, said: &dyn Display| {
        if !well {
            complaints.push(said.to_string());
        }
    };
    let upstream = proxy.status()["upstreams"][0].clone();
    let long = ["no_answer_seconds", "outage_seconds"].iter().any(|key| !upstream[*key].is_null());
    check(upstream["healthy"] == true && !long, &upstream);
    let page = proxy.metrics();
    let gauge = |name: &str| testbed::sum(&page, name, &["upstream=\"app\""]);
    for (name, value) in [
        ("evenkeel_upstream_healthy", 1.0),
        ("evenkeel_endpoint_usable", replicas as f64),
        ("evenkeel_upstream_no_answer_seconds", 0.0),
        ("evenkeel_endpoint_no_answer_seconds", 0.0),
        ("evenkeel_outage_seconds", 0.0),
    ] {
        check(gauge(name) == value, &format!("{name} {}", gauge(name)));
    }
    let table = table(proxy);
    check(table.contains(&format!("{replicas} of {replicas} replica")) && !table.contains("no answer for"), &table);
    complaints
}

/// Asserts that they say nothing against it.
#[track_caller]
fn assert_well(proxy: &Proxy, replicas: usize) {
    let complaints = complaints(proxy, replicas);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Asserts that they agree that nothing is answered, for so long at least.
#[track_caller]
fn assert_silent(proxy: &Proxy, replicas: usize, at_least: Duration) {
    let upstream = proxy.status()["upstreams"][0].clone();
    let (seconds, most) = (at_least.as_secs_f64(), 30.0);
    assert_eq!(upstream["healthy"], false, "{upstream:#}");
    for key in ["no_answer_seconds", "outage_seconds"] {
        let said = upstream[key].as_f64().unwrap_or(0.0);
        assert!((seconds..most).contains(&said), "{key} after {at_least:?}: {upstream:#}");
    }
    let page = proxy.metrics();
    let gauge = |name: &str| testbed::sum(&page, name, &["upstream=\"app\""]);
    assert_eq!(gauge("evenkeel_upstream_healthy"), 0.0, "{page}");
    assert_eq!(gauge("evenkeel_endpoint_usable"), 0.0, "{page}");
    for long in ["evenkeel_upstream_no_answer_seconds", "evenkeel_outage_seconds"] {
        assert!((seconds..most).contains(&gauge(long)), "{long} after {at_least:?}\n{page}");
    }
    let table = table(proxy);
    assert!(table.contains(&format!("0 of {replicas} replica")), "{table}");
    assert!(table.contains("no answer for "), "{table}");
}

// U4, P13
#[test]
fn replicas_that_are_paused_look_ill_wherever_one_looks() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica().env("MEAN_MS", 5), 2);
    // Probed by a connect, which the kernel of a paused process accepts.
    let bed = Bed::around(network, vec![], |c| c.set("upstream.app.response_timeout", "60s"));
    bed.proxy.wait_serving("/");
    let load = Load::start(Plan { patience: Duration::from_secs(60), ..Plan::new(bed.proxy.address(), 50.0) });
    load.wait_sent(100);
    assert_well(&bed.proxy, 2);

    replicas.iter().for_each(|replica| replica.pause());
    let paused = Instant::now();
    eventually("both are seen to hang", || {
        let silent = |e: &serde_json::Value| e["no_answer_seconds"].as_f64() > Some(2.0) && e["usable"] == false;
        bed.proxy.endpoints("app").iter().filter(|e| silent(e)).count() == 2
    });
    // The last answer came a little before that.
    assert!(paused.elapsed() >= Duration::from_millis(1500), "it may have been slow requests: {:?}", paused.elapsed());
    // They were not paused at the same moment, nor did they give their last answers then.
    assert_silent(&bed.proxy, 2, Duration::from_millis(1500));
    assert!(bed.proxy.metric("evenkeel_endpoint_no_answer_seconds", &[]) > 4.0, "two seconds and more of each");
    eventually("it goes on", || paused.elapsed() > Duration::from_secs(4));
    assert_silent(&bed.proxy, 2, Duration::from_secs(3));

    replicas.iter().for_each(|replica| replica.resume());
    // Once, for whoever is starved of processor time just then is silent for a moment more.
    eventually("both answer again, wherever one looks", || complaints(&bed.proxy, 2).is_empty());
    load.wait_sent(50);
    assert_well(&bed.proxy, 2);
}

// U4
#[test]
fn an_app_whose_database_hangs_looks_ill_though_its_replicas_are_tried() {
    let network = Loopback::new();
    let hung = Arc::new(AtomicBool::new(false));
    let replica = || {
        let hung = hung.clone();
        network.origin("app", move |head, wire, _| {
            while hung.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            serve(head, wire);
        })
    };
    let origins = vec![replica(), replica()];
    let bed = Bed::around(network, origins, |c| {
        c.set("upstream.app.probe.path", "/ping")
            .set("upstream.app.wait", "60s")
            .set("upstream.app.response_timeout", "60s")
    });
    eventually("both are up", || bed.proxy.lines("up: probe passed").len() == 2);
    assert_eq!(bed.ask(GET).status, 200);
    assert_well(&bed.proxy, 2);

    hung.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let mut clients: Vec<Wire> = (0..40).map(|_| bed.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    // Its probes time out, so it is down and tried by one request at a time, which no gauge may call usable.
    let silent = || bed.proxy.status()["upstreams"][0]["no_answer_seconds"].as_f64();
    eventually("it is seen", || silent() > Some(2.5));
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_silent(&bed.proxy, 2, Duration::from_secs(2));

    hung.store(false, Ordering::Relaxed);
    for client in &mut clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
    eventually("both are up again", || bed.proxy.endpoints("app").iter().all(|e| e["usable"] == true));
    assert_well(&bed.proxy, 2);
}

// U4
#[test]
fn nothing_to_answer_and_long_bodies_are_no_silence() {
    let (go, gate) = gate();
    let bed = Bed::new(move |head, wire, _| {
        if head.target() == "/download" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
            gate();
            wire.send("half");
        } else {
            serve(head, wire);
        }
    });
    assert_eq!(bed.ask(GET).status, 200);
    longer_than_patience();
    assert_well(&bed.proxy, 1);

    let mut download = bed.client();
    download.get("/download");
    let mut upload = bed.client();
    upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    eventually("both are under way", || bed.proxy.endpoints("app")[0]["in_flight"] == 2);
    longer_than_patience();
    assert_well(&bed.proxy, 1);
    assert_eq!(bed.proxy.endpoints("app")[0]["in_flight"], 2, "they still are");

    upload.send("half");
    assert_eq!(upload.response().unwrap().status, 200);
    go();
    assert_eq!(download.response().unwrap().body, b"halfhalf");
}

// U4
#[test]
fn a_single_request_that_takes_too_long_is_seen_and_its_end_too() {
    let (go, gate) = gate();
    let bed = Bed::new(move |head, wire, _| {
        if head.target() == "/hangs" {
            gate();
        }
        ok(wire);
    });
    assert_eq!(bed.ask(GET).status, 200);
    // Long after the last answer: the silence is the request's, not the quiet before it.
    longer_than_patience();
    let mut client = bed.client();
    client.get("/hangs");
    let start = Instant::now();
    let said = eventually_some("it is seen", || bed.proxy.endpoints("app")[0]["no_answer_seconds"].as_f64());
    assert!(said <= start.elapsed().as_secs_f64() + 1.5, "{said} s after {:?}", start.elapsed());
    assert_silent(&bed.proxy, 1, Duration::from_secs(2));
    go();
    assert_eq!(client.response().unwrap().status, 200);
    eventually("it is well", || bed.proxy.status()["upstreams"][0]["healthy"] == true);
    assert_well(&bed.proxy, 1);
}
