//! Answers of DNS, right and wrong, and what they do to the set of replicas (F1 to F18).

use crate::{Bed, GET, assert_own, ok, serve};
use serde_json::json;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{App, Container, Fault, Loopback, Network, Proxy, ProxyConfig, Wire, eventually};

/// Two replicas behind a proxy, both up.
fn two() -> (Vec<Box<dyn Container>>, Bed) {
    two_with(|c| c)
}

fn two_with(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> (Vec<Box<dyn Container>>, Bed) {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 2);
    let bed = Bed::around(network, vec![], change);
    wait_up(&bed, &replicas);
    (replicas, bed)
}

fn wait_up(bed: &Bed, replicas: &[Box<dyn Container>]) {
    let addresses: Vec<_> = replicas.iter().map(|r| r.address()).collect();
    bed.proxy.wait_up("app", &addresses);
}

fn ip(container: &dyn Container) -> Ipv4Addr {
    match container.address().ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => unreachable!("the network is of IPv4"),
    }
}

/// Waits until `count` more questions were asked, the last of which may still be open.
fn wait_asked(bed: &Bed, count: u64) {
    let goal = bed.network.dns().questions("app") + count;
    eventually("DNS is asked on", || bed.network.dns().questions("app") >= goal);
}

/// The names of those who answer.
fn serving(proxy: &Proxy) -> HashSet<String> {
    (0..40)
        .map(|_| {
            let response = proxy.get("/");
            assert_eq!(response.status, 200, "{}", response.text());
            response.replica().to_owned()
        })
        .collect()
}

// F1, F2, F3, F7, F13, F14
#[test]
fn answers_that_say_nothing_change_nothing() {
    let (_replicas, bed) = two();
    let faults = [
        Fault::Silence,
        Fault::ServFail,
        Fault::Refused,
        Fault::TruncatedWithoutTcp,
        Fault::WrongId,
        Fault::WrongQuestion,
        Fault::CnameLoop,
    ];
    for fault in faults {
        bed.network.dns().fail(fault.clone());
        wait_asked(&bed, 4);
        assert_eq!(serving(&bed.proxy).len(), 2, "{fault:?}");
        bed.network.dns().heal();
        wait_asked(&bed, 2);
    }
    assert_eq!(bed.proxy.lines("draining"), Vec::<String>::new());
}

// F4, F5
#[test]
fn a_name_that_is_gone_is_outlived_by_living_replicas_for_hold_and_then_refused() {
    for fault in [Fault::NxDomain, Fault::Empty] {
        let (replicas, bed) = two_with(|c| c.set("dns.hold", "700ms").set("upstream.app.wait", "300ms"));
        let gone = Instant::now();
        bed.network.dns().fail(fault.clone());
        wait_asked(&bed, 3);
        assert_eq!(serving(&bed.proxy).len(), 2, "{fault:?}");
        let mut last = None;
        eventually("hold is over", || {
            last = Some(bed.proxy.get("/"));
            last.as_ref().is_some_and(|r| r.status != 200)
        });
        assert!(gone.elapsed() >= Duration::from_millis(700), "{fault:?}: given up after {:?}", gone.elapsed());
        assert_own(&last.unwrap(), 503);
        // A request that waits is served when the name is back.
        let mut wire = bed.client();
        wire.send(GET);
        bed.network.dns().heal();
        assert_eq!(wire.response().unwrap().status, 200);
        wait_up(&bed, &replicas);
    }
}

/// Whether a line of `/metrics` counts events of replicas, not of the name itself.
fn about_replicas(line: &str) -> bool {
    line.starts_with("evenkeel_events_total{") && !line.contains("event=\"name")
}

// A name that is gone for less than `hold`, as in a rename of all live containers: nothing happens.
#[test]
fn a_name_that_is_away_for_a_moment_costs_nothing() {
    let (_replicas, bed) = two();
    let state = || {
        let known = |e: &serde_json::Value| (e["id"].clone(), e["membership"].clone(), e["health"].clone());
        let endpoints: Vec<_> = bed.proxy.endpoints("app").iter().map(known).collect();
        // Nothing happened to any of them: not even something that is over by now.
        let events: Vec<String> = bed.proxy.metrics().lines().filter(|l| about_replicas(l)).map(Into::into).collect();
        (endpoints, events)
    };
    let before = state();
    assert!(before.0.len() == 2 && !before.1.is_empty(), "{before:?}");
    bed.network.dns().fail(Fault::NxDomain);
    wait_asked(&bed, 5);
    assert_eq!(serving(&bed.proxy).len(), 2, "while it is away");
    bed.network.dns().heal();
    wait_asked(&bed, 2);
    assert_eq!(serving(&bed.proxy).len(), 2);
    assert_eq!(state(), before);
}

#[test]
fn a_container_that_is_renamed_is_missing_from_one_answer_and_stays() {
    let (replicas, bed) = two();
    replicas[0].rename(Duration::from_millis(60));
    wait_asked(&bed, 10);
    assert_eq!(serving(&bed.proxy).len(), 2);
    assert_eq!(bed.proxy.lines("draining"), Vec::<String>::new());
}

// F6, F8
#[test]
fn three_hundred_replicas_come_over_tcp_and_all_are_used() {
    let network = Loopback::new();
    let origins: Vec<_> = (0..300).map(|_| network.origin("app", |h, w, _| serve(h, w))).collect();
    let addresses: Vec<_> = origins.iter().map(|o| o.address()).collect();
    let bed = Bed::around(network, origins, |c| {
        c.set("upstream.app.probe.interval", "5s").set("upstream.app.probe.timeout", "5s")
    });
    bed.proxy.wait_up("app", &addresses);
    let mut wire = bed.client();
    for _ in 0..900 {
        wire.send(GET);
        assert_eq!(wire.response().unwrap().status, 200);
    }
    // 900 random picks miss each of 300 with e^-3, so 15 of them on average.
    let used = bed.origins.iter().filter(|o| o.requests() > 0).count();
    assert!(used > 250, "{used} of 300 were used");
}

// F9
#[test]
fn flapping_answers_cut_nothing() {
    let (replicas, bed) = two();
    let [one, other] = [ip(&*replicas[0]), ip(&*replicas[1])];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let response = bed.proxy.get("/sleep/100");
                    assert_eq!(response.status, 200, "{}", response.text());
                }
            });
        }
        for turn in 0..8 {
            bed.network.dns().set("app", &[if turn % 2 == 0 { one } else { other }]);
            wait_asked(&bed, 8);
        }
        stop.store(true, Ordering::Relaxed);
    });
    // On a busy machine an answer may come late, which is told and changes nothing.
    for word in ["request failed", " down", "suspect"] {
        assert_eq!(bed.proxy.lines(word), Vec::<String>::new());
    }
}

// F10
#[test]
fn the_same_addresses_in_another_order_are_no_news() {
    let (_replicas, bed) = two();
    eventually("the log has come", || bed.proxy.output().matches("up: probe passed").count() == 2);
    let before = bed.proxy.output();
    wait_asked(&bed, 20);
    assert_eq!(bed.proxy.output(), before);
}

// F11
#[test]
fn without_a_resolver_the_proxy_starts_and_requests_wait_for_it() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    network.dns().fail(Fault::Silence);
    let config = ProxyConfig::new(&network, "app").set("upstream.app.wait", "30s");
    let proxy = Proxy::launch(&network, env!("CARGO_BIN_EXE_evenkeel"), &config);
    proxy.container().wait_listening();
    let mut wire = Wire::connect(proxy.address());
    wire.send(GET);
    // Ready means asked, not answered: it must not hang on DNS.
    proxy.wait_ready();
    network.dns().heal();
    assert_eq!(wire.response().unwrap().status, 200);
}

// F12
#[test]
fn a_resolver_that_takes_its_time_delays_no_request() {
    let (_replicas, bed) = two_with(|c| c.set("dns.timeout", "2s"));
    bed.network.dns().fail(Fault::Delay(Duration::from_secs(5)));
    wait_asked(&bed, 1);
    let start = Instant::now();
    assert_eq!(serving(&bed.proxy).len(), 2);
    assert!(start.elapsed() < Duration::from_secs(2), "forty requests took {:?}", start.elapsed());
}

// F15
#[test]
fn the_timer_rules_whatever_the_ttl_says() {
    for ttl in [0, 600] {
        let (replicas, bed) = two();
        bed.network.dns().set_ttl(ttl);
        wait_asked(&bed, 2);
        let start = Instant::now();
        wait_asked(&bed, 20);
        assert!(start.elapsed() >= Duration::from_millis(900), "TTL {ttl}: asked each {:?}", start.elapsed() / 20);
        bed.network.dns().remove("app", ip(&*replicas[1]));
        wait_up(&bed, &replicas[..1]);
        assert!(start.elapsed() < Duration::from_secs(20), "TTL {ttl}: it stayed for {:?}", start.elapsed());
    }
}

// F16, P9
#[test]
fn an_address_that_left_loses_its_kept_connections_at_once_and_finishes_what_it_has() {
    let network = Loopback::new();
    let leaving = network.origin("app", |head, wire, _| match head.target() {
        "/slow" => {
            std::thread::sleep(Duration::from_millis(700));
            ok(wire);
        }
        _ => serve(head, wire),
    });
    let bed = Bed::around(network, vec![leaving], |c| c.set("upstream.app.idle_timeout", "60s"));
    let mut running = bed.client();
    // Two at once make two connections, one of which is kept unused.
    running.get("/slow");
    eventually("it runs", || bed.origin().requests() == 1);
    assert_eq!(bed.ask(GET).status, 200);
    eventually("one runs and one is kept", || bed.origin().open() == 2);
    let IpAddr::V4(gone) = bed.origin().address().ip() else { unreachable!() };
    let staying = bed.network.origin("app", |h, w, _| serve(h, w));
    eventually("the new one is up", || bed.proxy.endpoints("app").iter().filter(|e| e["health"] == "up").count() == 2);
    let mut running = running;
    if bed.origin().heads().iter().filter(|h| h.target() == "/slow").count() == 1 {
        // The first may have ended while the second came up; another takes its place.
        assert_eq!(running.response().unwrap().status, 200);
        eventually("the leaving one runs a request", || {
            if bed.origin().heads().last().is_some_and(|h| h.target() == "/slow") && bed.origin().requests() > 2 {
                return true;
            }
            running = bed.client();
            running.get("/slow");
            std::thread::sleep(Duration::from_millis(20));
            bed.origin().heads().last().is_some_and(|h| h.target() == "/slow")
        });
    }
    bed.network.dns().remove("app", gone);
    let before = bed.origin().requests();
    eventually("only what runs keeps a connection", || bed.origin().open() <= 1);
    assert_eq!(running.response().unwrap().status, 200);
    eventually("nobody has a connection to it", || bed.origin().open() == 0);
    for _ in 0..20 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert_eq!(bed.origin().requests(), before, "no new request went there");
    assert!(staying.requests() >= 20);
    eventually("it is forgotten", || bed.proxy.endpoints("app").len() == 1);
}

// P6: an answer with none of the working addresses
#[test]
fn an_answer_of_strangers_removes_nobody_until_one_of_them_is_up() {
    let (replicas, bed) = two();
    let stranger = bed.network.free_address();
    bed.network.dns().fail(Fault::Answer(vec![stranger]));
    wait_asked(&bed, 20);
    assert_eq!(serving(&bed.proxy).len(), 2, "nobody listens at the new address");
    let new = bed.network.start_at(stranger, "new", &App::replica());
    new.wait_listening();
    eventually("the old ones are left", || serving(&bed.proxy) == HashSet::from([new.name()]));
    drop(replicas);
}

// F17
#[test]
fn an_answer_that_is_this_proxy_itself_is_dropped_loudly() {
    let (replicas, bed) = two();
    let IpAddr::V4(own) = bed.proxy.address().ip() else { unreachable!() };
    bed.network.dns().add("app", own);
    let line = bed.proxy.wait_for_line("ERROR");
    assert!(line.contains(&own.to_string()), "{line}");
    assert_eq!(serving(&bed.proxy).len(), 2);
    wait_asked(&bed, 10);
    assert_eq!(bed.proxy.lines("ERROR").len(), 1, "said once");
    wait_up(&bed, &replicas);
}

// F18
#[test]
fn addresses_that_are_nobodys_are_dropped() {
    let (replicas, bed) = two();
    let nobodys = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST];
    let all = replicas.iter().map(|r| ip(&**r)).chain(nobodys).collect();
    bed.network.dns().fail(Fault::Answer(all));
    wait_asked(&bed, 5);
    assert_eq!(serving(&bed.proxy).len(), 2);
    assert_eq!(bed.proxy.endpoints("app").len(), 2);
}

// Dokku's order: in DNS before its process listens.
#[test]
fn a_container_that_is_in_dns_before_it_listens_gets_nothing_until_it_does() {
    let (mut replicas, bed) = two();
    let late = bed.network.start("app", &App::replica().env("LISTEN_AFTER_MS", 400));
    wait_asked(&bed, 5);
    assert_eq!(serving(&bed.proxy).len(), 2);
    replicas.push(late);
    wait_up(&bed, &replicas);
    eventually("it is used", || serving(&bed.proxy).len() == 3);
    assert_eq!(bed.proxy.lines("request failed"), Vec::<String>::new());
}

// F83, and P7: unproven is never tried, cold is treated gently.
#[test]
fn a_new_replica_is_warmed_up_and_never_flooded() {
    let network = Loopback::new();
    let old = network.scale("app", &App::replica().env("MEAN_MS", 20), 1);
    let bed = Bed::around(network, vec![], |c| c.set("upstream.app.response_timeout", "30s"));
    bed.proxy.wait_serving("/");
    for _ in 0..20 {
        bed.proxy.get("/");
    }
    // Thirty requests at once, all the time; whoever has none would be given thirty.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(bed.proxy.get("/").status, 200);
                }
            });
        }
        let new = bed.network.start("app", &App::replica().env("MODE", "hang"));
        new.wait_listening();
        bed.proxy.wait_up("app", &[old[0].address(), new.address()]);
        let mut wire = Wire::connect(new.address());
        for _ in 0..100 {
            wire.get("/stats");
            let stats: serde_json::Value = serde_json::from_slice(&wire.response().unwrap().body).unwrap_or(json!({}));
            assert!(stats["most_in_flight"].as_u64().unwrap() <= 1, "one at first: {stats}");
        }
        let mut wire = Wire::connect(new.address());
        wire.get("/control?mode=ok");
        assert_eq!(wire.response().unwrap().status, 200);
        // The one that hangs is answered by nobody any more; take the replica away so that it moves.
        drop(new);
        stop.store(true, Ordering::Relaxed);
    });
}
