//! The proxy told to end: nothing is lost (P11, F68, F69).

use crate::{Bed, GET, ok, serve};
use std::time::{Duration, Instant};
use testbed::{App, Ending, Load, Network, Plan, Signal, Wire, eventually};

on_every_testbed! {
    sigterm_under_load_loses_nothing_and_takes_two_seconds_at_least
}

// F68, P11
fn sigterm_under_load_loses_nothing_and_takes_two_seconds_at_least(network: impl Network) {
    let _replicas = network.scale("app", &App::replica().env("MEAN_MS", 20), 2);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    let load = Load::start(Plan { posts: 0.1, puts: 0.1, ..Plan::new(bed.proxy.address(), 150.0) });
    load.wait_sent(100);
    let told = Instant::now();
    bed.proxy.signal(Signal::SIGTERM);
    // Clients that resolved the name a moment before keep coming until the record is gone.
    eventually("clients come for most of two seconds", || told.elapsed() > Duration::from_millis(1500));
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}", report.lost(), bed.proxy.output());
    assert_eq!(bed.proxy.container().wait_exit(), 0, "{}", bed.proxy.output());
    let took = told.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_draining_proxy_says_so_to_clients_and_to_ready() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let mut kept = bed.client();
    kept.send(GET);
    assert_eq!(kept.response().unwrap().get("connection"), None);
    bed.proxy.signal(Signal::SIGTERM);
    eventually("ready says no", || !bed.proxy.ready());
    kept.send(GET);
    let last = kept.response().unwrap();
    assert_eq!((last.status, last.get("connection")), (200, Some("close")));
    assert_eq!(kept.ending().0, Ending::Closed);
    let response = bed.ask(GET);
    assert_eq!((response.status, response.get("connection")), (200, Some("close")), "the listener is still open");
}

#[test]
fn a_request_under_way_is_finished_and_the_process_ends_soon_after_it() {
    let bed = Bed::with(
        |c| c.set("server.drain", "20s"),
        |_, wire, _| {
            std::thread::sleep(Duration::from_secs(4));
            ok(wire);
        },
    );
    let mut wire = bed.client();
    wire.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    bed.proxy.signal(Signal::SIGTERM);
    assert_eq!(wire.response().unwrap().status, 200);
    let answered = Instant::now();
    assert_eq!(bed.proxy.container().wait_exit(), 0);
    assert!(answered.elapsed() < Duration::from_millis(1500), "{:?} after its last request", answered.elapsed());
}

#[test]
fn a_request_that_never_ends_is_cut_when_drain_is_over() {
    let bed = Bed::with(|c| c.set("server.drain", "3s").set("upstream.app.response_timeout", "60s"), |_, _, _| {});
    let mut wire = bed.client();
    wire.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    let told = Instant::now();
    bed.proxy.signal(Signal::SIGTERM);
    bed.proxy.container().wait_exit();
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert!(wire.response().is_err());
}

// F69
#[test]
fn a_second_signal_ends_at_once() {
    let bed = Bed::with(|c| c.set("server.drain", "30s").set("upstream.app.response_timeout", "60s"), |_, _, _| {});
    let mut wire = bed.client();
    wire.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    bed.proxy.signal(Signal::SIGTERM);
    bed.proxy.wait_for_line("draining");
    let told = Instant::now();
    bed.proxy.signal(Signal::SIGTERM);
    bed.proxy.container().wait_exit();
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
}

// Idle connections say nothing and expect nothing: they do not hold up the end.
#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let bed = Bed::with(|c| c.set("server.drain", "30s"), |h, w, _| serve(h, w));
    let mut idle: Vec<Wire> = (0..20).map(|_| bed.client()).collect();
    idle[0].send(GET);
    assert_eq!(idle[0].response().unwrap().status, 200);
    let told = Instant::now();
    bed.proxy.signal(Signal::SIGTERM);
    assert_eq!(bed.proxy.container().wait_exit(), 0);
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
}
