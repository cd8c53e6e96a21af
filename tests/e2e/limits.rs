//! Limits that are reached: what is beyond them is refused fast, in the words of the configuration (F79 to F82).

use crate::{Bed, GET, POST, assert_own, gate, ok, serve};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{App, Ending, Load, Loopback, LossKind, Network, Plan, ProxyConfig, Wire, eventually};

on_every_testbed! {
    at_twice_the_capacity_goodput_stays_and_the_excess_is_refused_fast
}

// P5
#[test]
fn beyond_max_in_flight_and_max_waiting_requests_are_refused_at_once() {
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| c.set("upstream.app.max_in_flight", 2).set("upstream.app.max_waiting", 3).set("upstream.app.wait", "30s"),
        move |_, wire, n| {
            // The first ones warm it up, so that its window is no limit.
            if n >= 8 {
                gate();
            }
            ok(wire);
        },
    );
    for _ in 0..8 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    let mut served: Vec<Wire> = (0..5).map(|_| bed.client()).collect();
    served.iter_mut().for_each(|wire| wire.send(GET));
    eventually("two run and three wait", || {
        let upstream = &bed.proxy.status()["upstreams"][0];
        // In flight at the proxy is not yet received by the replica.
        upstream["waiting"] == 3 && upstream["endpoints"][0]["in_flight"] == 2 && bed.origin().requests() == 10
    });
    let start = Instant::now();
    for request in [GET, POST] {
        let response = bed.ask(request);
        assert_own(&response, 503);
        assert!(response.get("proxy-status").unwrap().contains("error=connection_limit_reached"), "{response:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(bed.origin().requests(), 10);
    go();
    for wire in &mut served {
        assert_eq!(wire.response().unwrap().status, 200);
    }
}

// F79
fn at_twice_the_capacity_goodput_stays_and_the_excess_is_refused_fast(network: impl Network) {
    // 2 workers of 20 ms each: 100 requests/s each at most, 200 together.
    let app = App::replica().env("WORKERS", 2).env("MEAN_MS", 20);
    let _replicas = network.scale("app", &app, 2);
    let bed = Bed::around(network, vec![], |c| {
        c.set("upstream.app.max_in_flight", 4).set("upstream.app.max_waiting", 10).set("upstream.app.wait", "250ms")
    });
    bed.proxy.wait_serving("/");
    let run = |rate: f64| {
        let plan = Plan { duration: Some(Duration::from_secs(4)), ..Plan::new(bed.proxy.address(), rate) };
        Load::start(plan).wait()
    };
    let answered = |rate| {
        let report = run(rate);
        ((report.sent() - report.lost().len()) as f64 / 4.0, report)
    };
    let (peak, _) = answered(190.0);
    let (goodput, report) = answered(400.0);
    assert!(goodput >= 0.9 * peak, "{goodput}/s at twice the capacity, {peak}/s below it\n{}", report.table());
    for loss in report.lost() {
        assert!(matches!(loss.kind, LossKind::Status(503, _)), "{loss:?}");
    }
    let mut refusals: Vec<Duration> = report.lost().iter().map(|l| l.after).collect();
    refusals.sort();
    // Refused at once, or after the wait of a quarter of a second that was configured.
    assert!(refusals[refusals.len() * 9 / 10] < Duration::from_millis(600), "{:?}", refusals.last());
}

#[test]
fn a_request_waits_no_longer_than_configured() {
    let network = Loopback::new();
    let bed = Bed::around(network, vec![], |c| c.set("upstream.app.wait", "600ms"));
    let start = Instant::now();
    let response = bed.ask(GET);
    assert_own(&response, 503);
    assert!(response.get("proxy-status").unwrap().contains("error=destination_unavailable"), "{response:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    // The outage began long ago: who comes late still waits for a quarter of a second.
    let start = Instant::now();
    assert_own(&bed.ask(GET), 503);
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
}

#[test]
fn with_close_a_failed_request_ends_as_a_direct_dial_would_and_refusals_are_still_answered() {
    let network = Loopback::new();
    let app = network.origin("app", |h, w, _| serve(h, w));
    let bed = Bed::around(network, vec![app], |c| {
        c.set("upstream.app.on_failure", "close")
            .set("upstream.app.wait", "250ms")
            .set("upstream.app.response_timeout", "300ms")
            .upstream(&Loopback::new(), "nobody")
            .set("upstream.nobody.on_failure", "close")
            .set("upstream.nobody.wait", "250ms")
            .route(json!({"upstream": "app", "path_prefix": "/app"}))
            .route(json!({"upstream": "nobody", "path_prefix": "/nobody"}))
    });
    let mut wire = bed.client();
    wire.get("/nobody");
    let cut = wire.response().unwrap_err();
    assert_eq!((cut.head, cut.body.len(), cut.ending), (None, 0, Ending::Closed));
    // No route matches: that is the proxy's own to say.
    let response = bed.ask("GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_own(&response, 404);
    assert_eq!(bed.ask("GET /app HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_own(&bed.ask("GET /app HTTP/1.1\r\n\r\n"), 400);
}

// F82
#[test]
fn when_the_retry_budget_is_spent_the_original_error_is_told() {
    let network = Loopback::new();
    // Each target breaks the first connection that brings it, and one after the other: no death has so many victims.
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let breaking = || {
        let seen = seen.clone();
        network.origin("app", move |head, wire, _| {
            if seen.lock().insert(head.target().to_owned()) { wire.reset() } else { serve(head, wire) }
        })
    };
    let origins = vec![breaking(), breaking()];
    let bed = Bed::around(network, origins, |c| c.set("upstream.app.max_idle", 0).set("upstream.app.wait", "20s"));
    let start = Instant::now();
    let mut saved = 0;
    let refused = loop {
        let response = bed.ask(format!("GET /{saved} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        if response.status != 200 {
            break response;
        }
        saved += 1;
        assert!(saved < 10_000, "the budget has no end");
    };
    assert_own(&refused, 502);
    assert!(refused.get("proxy-status").unwrap().contains("error=connection_terminated"), "{refused:?}");
    // 256 are saved up; a fifth of what is asked and ten a second come.
    let most = 256 + saved / 5 + 10 * (start.elapsed().as_secs() as usize + 1);
    assert!((250..=most).contains(&saved), "{saved} saved in {:?}", start.elapsed());
}

// D19
#[test]
fn a_connection_at_rest_holds_no_buffers_whatever_it_carried() {
    const CONNECTIONS: usize = 1000;
    let bed = Bed::new(|h, w, _| serve(h, w));
    let pid = bed.proxy.container().pid();
    let cookie = "c".repeat(4 << 10);
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nCookie: {cookie}\r\n\r\n");
    let use_one = || {
        let mut wire = bed.client();
        wire.send(&request);
        assert_eq!(wire.response().unwrap().status, 200);
        wire
    };
    // The thousand requests that are remembered for `evenkeel why` are not the connections'.
    (0..1100).for_each(|_| drop(use_one()));
    let before = testbed::resident(pid);
    let used: Vec<Wire> = (0..CONNECTIONS).map(|_| use_one()).collect();
    let each = testbed::resident(pid).saturating_sub(before) / used.len() as u64;
    // The socket's state in a debug build; the benches show what it is in the shipped one.
    assert!(each <= 4 << 10, "{each} bytes for a used connection at rest");
}

// A4, F88
#[test]
fn clients_that_hold_memory_are_refused_beyond_max_buffered_and_what_they_held_is_given_back() {
    const HOSTILE: usize = 400;
    let bed = Bed::with(|c| c.set("server.max_buffered", "4MiB"), |h, w, _| serve(h, w));
    let refused = || bed.proxy.metric("evenkeel_refused_requests_total", &[]);
    let begun = format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Long: {}", "a".repeat(60_000));
    let begin = || {
        let mut wire = bed.client();
        let _ = wire.try_send(&begun);
        wire
    };
    let mut hostile: Vec<Wire> = (0..HOSTILE).map(|_| begin()).collect();
    // Some fifty fit into 4 MiB.
    eventually("most of them are refused", || refused() >= (HOSTILE - 80) as f64);
    assert_eq!(bed.ask(GET).status, 200, "who holds little is served");
    let large = format!("{begun}\r\n\r\n");
    // Those that were refused may have left room for some more.
    let response = loop {
        match bed.ask(&large) {
            refused if refused.status != 200 => break refused,
            _ => hostile.push(begin()),
        }
        assert!(hostile.len() < 2 * HOSTILE, "there is no limit");
    };
    assert_own(&response, 503);
    assert!(response.text().contains("server.max_buffered"), "{}", response.text());
    drop(hostile);
    eventually("there is room again", || bed.ask(&large).status == 200);
}

// F80, in small: ten thousand are for the benches.
#[test]
fn a_thousand_idle_connections_cost_the_busy_one_little() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let pid = bed.proxy.container().pid();
    // Of a hundred requests: the median time, and what they cost the proxy's processor.
    let busy = || {
        let mut wire = bed.client();
        let cpu = testbed::cpu(pid);
        let mut times: Vec<Duration> = (0..100)
            .map(|_| {
                let start = Instant::now();
                wire.send(GET);
                assert_eq!(wire.response().unwrap().status, 200);
                start.elapsed()
            })
            .collect();
        times.sort();
        (times[50], testbed::cpu(pid) - cpu)
    };
    busy();
    let alone = busy();
    let before = testbed::resident(pid);
    let idle: Vec<Wire> = (0..1000).map(|_| bed.client()).collect();
    eventually("all are accepted", || bed.proxy.status()["connections"].as_u64() >= Some(1000));
    let beside = busy();
    // A busy machine's moods are a few milliseconds; to look at each of a thousand for each request would be more.
    assert!(beside.0 <= alone.0 * 3 + Duration::from_millis(5), "{beside:?} beside them, {alone:?} alone");
    assert!(beside.1 <= alone.1 * 2 + Duration::from_millis(50), "{beside:?} beside them, {alone:?} alone");
    let each = testbed::resident(pid).saturating_sub(before) / idle.len() as u64;
    assert!(each <= 10 << 10, "{each} bytes for an idle connection");
}

#[test]
fn routes_decide_by_host_and_whole_segments_and_strip_their_prefix() {
    let network = Loopback::new();
    let named = |alias: &'static str| {
        network.origin(alias, move |head, wire, _| {
            let text = format!("{alias} {}", head.target());
            let _ = wire.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        })
    };
    let origins = vec![named("app"), named("db"), named("shop")];
    let (db, shop) = (ProxyConfig::upstream, ProxyConfig::upstream);
    let config = ProxyConfig::new(&network, "app");
    let config = shop(db(config, &network, "db"), &network, "shop")
        .route(json!({"upstream": "shop", "host": "shop.test"}))
        .route(json!({"upstream": "db", "path_prefix": "/db", "strip_prefix": true}))
        .route(json!({"upstream": "app", "path_prefix": "/app"}));
    let bed = Bed::around(network, origins, |_| config);
    let ask = |host: &str, target: &str| {
        let response = bed.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        if response.status == 200 { response.text() } else { response.status.to_string() }
    };
    assert_eq!(ask("SHOP.test:8080", "/db/x"), "shop /db/x");
    assert_eq!(ask("a", "/db/ping?x=/db"), "db /ping?x=/db");
    assert_eq!(ask("a", "/db"), "db /");
    assert_eq!(ask("a", "/dbx"), "404");
    assert_eq!(ask("a", "/app/y"), "app /app/y");
    assert_eq!(ask("a", "/"), "404");
}
