//! Limits that are reached: what is beyond them is refused fast, in the words of the configuration (F79 to F82).

use crate::{Bed, GET, POST, assert_own, gate, ok, serve};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    const WARM_UP: usize = 40;
    const DOOMED: usize = 320;
    // So many others, which do not break, that the doomed are no death of a replica with all that it held.
    const HEALTHY: usize = 500;
    let network = Loopback::new();
    let (go, gate) = gate();
    let (let_healthy_end, held) = self::gate();
    let (gate, held, over) = (Arc::new(gate), Arc::new(held), Arc::new(AtomicBool::new(false)));
    let dying = || {
        let (gate, held, over) = (gate.clone(), held.clone(), over.clone());
        network.origin("app", move |head, wire, _| {
            if head.target() == "/healthy" {
                held();
            }
            if head.target() != "/doomed" || over.load(Ordering::Relaxed) {
                return serve(head, wire);
            }
            gate();
            wire.reset();
        })
    };
    let origins = vec![dying(), dying()];
    let bed = Bed::around(network, origins, |c| {
        c.set("upstream.app.wait", "20s").set("upstream.app.response_timeout", "60s")
    });
    for _ in 0..WARM_UP {
        assert_eq!(bed.ask(GET).status, 200);
    }
    let mut healthy: Vec<Wire> = (0..HEALTHY).map(|_| bed.client()).collect();
    healthy.iter_mut().for_each(|wire| wire.get("/healthy"));
    let mut wires: Vec<Wire> = (0..DOOMED).map(|_| bed.client()).collect();
    wires.iter_mut().for_each(|wire| wire.get("/doomed"));
    let arrived = || bed.origins.iter().map(|o| o.requests()).sum::<usize>();
    eventually("all are under way", || arrived() == WARM_UP + HEALTHY + DOOMED);
    let _third = bed.network.origin("app", |h, w, _| serve(h, w));
    eventually("a third replica is proven", || bed.proxy.lines("up: probe passed").len() == 3);
    over.store(true, Ordering::Relaxed);
    let start = Instant::now();
    go();
    let statuses: Vec<u16> = wires.iter_mut().map(|wire| wire.response().unwrap().status).collect();
    let saved = statuses.iter().filter(|s| **s == 200).count();
    let told = statuses.iter().filter(|s| **s == 502).count();
    assert_eq!(saved + told, DOOMED, "{statuses:?}");
    // 256 are saved up, and ten a second come.
    let most = 256 + 10 * (start.elapsed().as_secs() as usize + 1);
    assert!((250..=most).contains(&saved), "{saved} saved, {told} told");
    let_healthy_end();
    for wire in &mut healthy {
        assert_eq!(wire.response().unwrap().status, 200, "who did not break is not touched");
    }
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
