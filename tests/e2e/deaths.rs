//! Replicas that die in ways that take more than one attempt to get over.

use crate::{Bed, GET, POST, assert_own, gate, ok, serve};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testbed::{App, Asked, Fault, Load, Loopback, LossKind, Network, Origin, Plan, Wire, eventually};

// F42, of all replicas: a deploy that ends the old ones one right after the other
#[test]
fn a_get_outlives_replicas_that_die_one_right_after_the_other_just_as_it_reaches_them() {
    let network = Loopback::new();
    let met = Arc::new(AtomicUsize::new(0));
    let dying = |network: &Loopback| -> Origin {
        let met = met.clone();
        network.origin("app", move |_, wire, _| {
            met.fetch_add(1, Ordering::Relaxed);
            wire.reset();
        })
    };
    let origins = (0..3).map(|_| dying(&network)).collect();
    let mut bed = Bed::around(network, origins, |c| c.set("upstream.app.wait", "20s"));
    eventually("all are proven", || bed.proxy.lines("up: probe passed").len() == 3);
    let mut wire = bed.client();
    wire.send(GET);
    // With a third attempt at once, the third replica would be met alive, and there would be no fourth.
    eventually("two died of it", || met.load(Ordering::Relaxed) == 2);
    bed.origins.clear();
    let _new = bed.network.origin("app", |h, w, _| serve(h, w));
    assert_eq!(wire.response().unwrap().status, 200, "{}", bed.proxy.output());
    assert_eq!(met.load(Ordering::Relaxed), 2);
}

// F42, F82
#[test]
fn a_post_that_met_a_dying_replica_is_told_at_once() {
    let bed = Bed::new(|head, wire, _| {
        let _ = wire.body(head);
        wire.reset();
    });
    assert_own(&bed.ask(POST), 502);
    assert_eq!(bed.origin().requests(), 1);
}

// P8, of requests that are under way
#[test]
fn a_get_that_waits_on_a_suspect_with_nobody_else_there_stays_and_costs_no_processor_time() {
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| c.set("upstream.app.wait", "1s").set("upstream.app.response_timeout", "60s"),
        move |_, wire, _| {
            gate();
            ok(wire);
        },
    );
    let mut waiting = bed.client();
    waiting.get("/waits");
    eventually("it is under way", || bed.origin().requests() == 1);
    // Without an answer it stays suspect.
    bed.network.dns().fail(Fault::Silence);
    bed.origin().refuse();
    let pid = bed.proxy.container().pid();
    let before = testbed::cpu(pid);
    assert_own(&bed.ask(GET), 503);
    let used = testbed::cpu(pid) - before;
    assert!(used < Duration::from_millis(300), "{used:?} while a request waited for a second");
    go();
    assert_eq!(waiting.response().unwrap().status, 200);
    assert_eq!(bed.origin().requests(), 1);
}

// F30
#[test]
fn a_get_that_may_not_move_stays_on_a_replica_declared_down_and_is_answered_when_that_recovers() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 2);
    let bed = Bed::around(network, vec![], |c| {
        c.set("upstream.app.retries", 0)
            .set("upstream.app.probe.path", "/probe")
            .set("upstream.app.response_timeout", "20s")
    });
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    replicas[0].pause();
    // Least connections sends each of the two some.
    let mut wires: Vec<Wire> = (0..4).map(|_| bed.client()).collect();
    wires.iter_mut().for_each(|wire| wire.send(GET));
    bed.proxy.wait_for_line("down");
    // That it stays shows in that the others, which are asked meanwhile, are answered first.
    for _ in 0..20 {
        assert_eq!(bed.proxy.get("/").replica(), replicas[1].name());
    }
    eventually("requests wait there still", || bed.proxy.endpoints("app").iter().any(|e| e["in_flight"] != 0));
    replicas[0].resume();
    let mut answered: Vec<String> = wires.iter_mut().map(|w| w.response().unwrap().replica().to_owned()).collect();
    answered.sort();
    answered.dedup();
    assert_eq!(answered.len(), 2, "{answered:?}");
}

/// There is no way to this address any more. Only to be called inside a network of the test's own.
fn cut_off(address: SocketAddr) {
    assert!(crate::is_in_a_network_of_its_own(), "this machine's own routes are left alone");
    let route = ["route", "add", "unreachable", &format!("{}/32", address.ip()), "table", "local"];
    let said = Command::new("ip").args(route).output().expect("ip");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

// F21
#[test]
fn a_replica_to_which_there_is_no_way_costs_no_request_of_any_method() {
    if !crate::is_in_a_network_of_its_own() {
        return crate::in_a_network_of_its_own(
            "deaths::a_replica_to_which_there_is_no_way_costs_no_request_of_any_method",
            "true",
        );
    }
    let network = Loopback::new();
    let origins = (0..2).map(|_| network.origin("app", |h, w, _| serve(h, w))).collect();
    let bed = Bed::around(network, origins, |c| {
        c.set("upstream.app.probe.interval", "30s")
            .set("upstream.app.probe.timeout", "1s")
            .set("upstream.app.idle_timeout", "50ms")
    });
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    for _ in 0..40 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    eventually("no connection is kept", || bed.proxy.endpoints("app").iter().all(|e| e["idle_connections"] == 0));
    cut_off(bed.origin().address());
    let before = bed.origin().requests();
    for request in [GET, POST].into_iter().cycle().take(40) {
        assert_eq!(bed.ask(request).status, 200);
    }
    assert_eq!(bed.origin().requests(), before);
    // It was tried, and that is said.
    bed.proxy.wait_for_line("suspect: ");
}

// D14
#[test]
fn a_replica_that_closes_a_resting_connection_while_its_name_is_gone_gets_no_more_requests() {
    let (close, gate) = gate();
    let bed = Bed::with(
        |c| c.set("dns.hold", "60s").set("upstream.app.wait", "500ms"),
        move |head, wire, _| {
            serve(head, wire);
            gate();
            wire.close();
        },
    );
    eventually("it is proven", || bed.proxy.lines("up: probe passed").len() == 1);
    assert_eq!(bed.ask(GET).status, 200);
    bed.network.dns().set("app", &[]);
    bed.proxy.wait_for_line("name does not resolve");
    // Another app may have its address a moment later, and would pass the probe as well.
    close();
    bed.proxy.wait_for_line("suspect: connection closed while DNS does not know the name");
    let before = bed.origin().requests();
    assert_own(&bed.ask(POST), 503);
    assert_eq!(bed.origin().requests(), before);
}

// F90, D13, U2
#[test]
fn a_post_to_a_replica_whose_network_just_went_is_told_within_seconds() {
    if !crate::is_in_a_network_of_its_own() {
        return crate::in_a_network_of_its_own(
            "deaths::a_post_to_a_replica_whose_network_just_went_is_told_within_seconds",
            "true",
        );
    }
    let (go, gate) = crate::gate();
    let bed = Bed::with(
        |c| c.set("upstream.app.response_timeout", "60s"),
        move |head, wire, _| {
            if head.target() == "/held" {
                gate();
            }
            serve(head, wire);
        },
    );
    let mut wire = bed.client();
    let mut held = bed.client();
    // A reader that does not read yet is no reader that is gone: what is on its way to it may be large.
    held.send(format!("POST /held HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n", 8 << 20));
    let upload = std::thread::spawn(move || {
        held.send(vec![b'x'; 8 << 20]);
        held.response().map(|response| response.status)
    });
    eventually("it is there", || bed.origin().requests() == 1);
    std::thread::sleep(Duration::from_secs(8));
    go();
    assert_eq!(upload.join().unwrap().ok(), Some(200));
    for _ in 0..2 {
        // A connection that rests shows that the replica leaves it open, so that the next POST but one takes a kept one.
        wire.send(POST);
        assert_eq!(wire.response().unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(1100));
    }
    wire.send(POST);
    assert_eq!(wire.response().unwrap().status, 200);
    cut_off(bed.origin().address());
    wire.send(POST);
    // Long before `response_timeout`.
    let response = wire.response().unwrap();
    crate::assert_own(&response, 502);
    assert!(response.get("proxy-status").unwrap().contains("error=connection_terminated"), "{response:?}");
}

/// What is sent to these addresses is lost from now on, without a word. Only to be called inside a network of the test's own.
fn lose_what_is_sent_to(origins: &[Origin]) {
    assert!(crate::is_in_a_network_of_its_own(), "this machine's own routes are left alone");
    // What goes in at one end comes out at the other, where it is addressed to nobody.
    let mut commands = vec![
        "ip link add sink type veth peer name void".to_owned(),
        "ip link set sink arp off up".into(),
        "ip link set void up".into(),
        "echo 1 >/proc/sys/net/ipv4/conf/sink/route_localnet".into(),
    ];
    commands.extend(origins.iter().map(|o| format!("ip route add {}/32 dev sink table local", o.address().ip())));
    let said = Command::new("sh").args(["-e", "-c", &commands.join("\n")]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

// F20, F46, P5, A9
#[test]
fn hosts_that_vanish_cost_clients_no_more_than_wait_and_are_not_dialled_for_each_request() {
    if !crate::is_in_a_network_of_its_own() {
        return crate::in_a_network_of_its_own(
            "deaths::hosts_that_vanish_cost_clients_no_more_than_wait_and_are_not_dialled_for_each_request",
            "true",
        );
    }
    // `wait` is 5 s.
    vanish("50ms", Duration::from_secs(6));
}

// F20, F46, P5, A9: that nobody acknowledges what was sent is certain after 6 s.
#[test]
fn hosts_that_vanish_behind_kept_connections_cost_clients_no_more_than_it_takes_to_be_certain() {
    if !crate::is_in_a_network_of_its_own() {
        return crate::in_a_network_of_its_own(
            "deaths::hosts_that_vanish_behind_kept_connections_cost_clients_no_more_than_it_takes_to_be_certain",
            "true",
        );
    }
    vanish("4s", Duration::from_secs(8));
}

/// All hosts of an upstream vanish under load: each client is told within `patience`.
fn vanish(idle_timeout: &str, patience: Duration) {
    const REPLICAS: usize = 3;
    const RATE: f64 = 50.0;
    let network = Loopback::new();
    let origins = (0..REPLICAS).map(|_| network.origin("app", |h, w, _| serve(h, w))).collect();
    // The times that are shipped.
    let bed = Bed::around(network, origins, |c| {
        c.set("upstream.app.connect_timeout", "1s")
            .set("upstream.app.probe.interval", "1s")
            .set("upstream.app.probe.timeout", "1s")
            .set("upstream.app.idle_timeout", idle_timeout)
    });
    eventually("all are proven", || bed.proxy.lines("up: probe passed").len() == REPLICAS);
    for _ in 0..20 * REPLICAS {
        assert_eq!(bed.ask(GET).status, 200);
    }
    if idle_timeout == "50ms" {
        eventually("no connection is kept", || bed.proxy.endpoints("app").iter().all(|e| e["idle_connections"] == 0));
    }
    lose_what_is_sent_to(&bed.origins);
    let load = Load::start(Plan { posts: 0.1, app: Asked::Path("/".into()), ..Plan::new(bed.proxy.address(), RATE) });
    eventually("all are down", || bed.proxy.endpoints("app").iter().all(|e| e["health"] == "down"));
    let dials = || bed.proxy.metric("evenkeel_connects_total", &["result=\"timed_out\""]);
    let down = Instant::now();
    // Requests that came before that dial one replica after the other.
    eventually("none of them is under way any more", || down.elapsed() > Duration::from_secs(6));
    let (before, from) = (dials(), load.elapsed());
    eventually("it goes on for a while", || load.elapsed() > from + Duration::from_secs(6));
    let dialled = dials() - before;
    let report = load.stop();
    // The replicas end by a connection to themselves.
    assert!(Command::new("ip").args(["link", "delete", "sink"]).status().unwrap().success());

    let latest = report.lost().iter().map(|loss| loss.after).max();
    println!("{dialled} connects in 6 s, {before} before; {latest:?}\n{}", report.table());
    // A probe that gets through, if only to a busy kernel, lets one request try.
    assert!(dialled <= REPLICAS as f64, "{dialled} connects to hosts that are known to be gone");
    assert_eq!(report.lost().len(), report.sent());
    for loss in report.lost() {
        let told = matches!(&loss.kind, LossKind::Status(502..=504, why) if why.starts_with("evenkeel; error="));
        assert!(told && loss.after < patience, "{loss:?}");
    }
}
