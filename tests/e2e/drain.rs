//! The proxy told to end: nothing is lost (P11, F68, F69).

use crate::{Bed, GET, gate, ok, serve};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::{App, Ending, Load, Loopback, LossKind, Network, Plan, Signal, Wire, eventually};

on_every_testbed! {
    sigterm_under_load_loses_nothing_and_takes_two_seconds_at_least
    under_steady_new_connections_the_process_ends_within_dockers_ten_seconds_and_cuts_nothing
}

const UPGRADE: &str = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

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

// D12
#[test]
fn a_response_that_begins_after_sigterm_says_that_the_connection_closes() {
    let (go, gate) = gate();
    let bed = Bed::new(move |_, wire, _| {
        gate();
        ok(wire);
    });
    let mut wire = bed.client();
    wire.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    bed.proxy.signal(Signal::SIGTERM);
    eventually("ready says no", || !bed.proxy.ready());
    go();
    let response = wire.response().unwrap();
    assert_eq!((response.status, response.get("connection")), (200, Some("close")));
    assert_eq!(wire.ending().0, Ending::Closed);
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

// U10, P11
fn under_steady_new_connections_the_process_ends_within_dockers_ten_seconds_and_cuts_nothing(network: impl Network) {
    let _replicas = network.scale("app", &App::replica().env("MEAN_MS", 100), 2);
    let shipped =
        evenkeel::config::Config::parse("[upstream.app]\naddress = \"app:80\"", "proxy.toml", &|_| None).unwrap();
    let bed = Bed::around(network, vec![], |c| c.set("server.drain", format!("{:?}", shipped.server.drain)));
    bed.proxy.wait_serving("/");
    let load = Load::start(Plan { posts: 0.5, keep: false, ..Plan::new(bed.proxy.address(), 100.0) });
    load.wait_sent(50);
    let told = Instant::now();
    bed.proxy.signal(Signal::SIGTERM);
    assert_eq!(bed.proxy.container().wait_exit(), 0, "{}", bed.proxy.output());
    let took = told.elapsed();
    let report = load.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(took > Duration::from_secs(5), "it served as long as it could: {took:?}");
    // Who came when the listener was closed was refused, and knows that nothing was done.
    let cut: Vec<_> = report.lost().iter().filter(|loss| !matches!(loss.kind, LossKind::Connect(_))).collect();
    assert!(cut.is_empty(), "{cut:#?}\n{}", bed.proxy.output());
    assert_eq!(bed.proxy.lines("cut off"), Vec::<String>::new());
}

// A6, P11
#[test]
fn websockets_chat_on_after_sigterm_and_the_process_ends_when_they_have() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c.set("server.drain", "25s"));
    bed.proxy.wait_serving("/");
    let mut sockets: Vec<Wire> = (0..20).map(|_| bed.client()).collect();
    for socket in &mut sockets {
        socket.send(UPGRADE);
        assert_eq!(socket.response().unwrap().status, 101);
        // What comes back came through the tunnel.
        socket.send("hello");
        assert_eq!(socket.bytes(5).unwrap(), b"hello");
    }
    let told = Instant::now();
    bed.proxy.signal(Signal::SIGTERM);
    let line = bed.proxy.wait_for_line("draining");
    assert!(line.contains("tunnels=20"), "{line}");
    // Twice the time after which an idle process would end.
    while told.elapsed() < Duration::from_secs(5) {
        for socket in &mut sockets {
            socket.send("hello");
            assert_eq!(socket.bytes(5).unwrap(), b"hello");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for socket in &mut sockets {
        socket.half_close();
        assert_eq!(socket.ending(), (Ending::Closed, vec![]));
    }
    let ended = Instant::now();
    assert_eq!(bed.proxy.container().wait_exit(), 0, "{}", bed.proxy.output());
    assert!(ended.elapsed() < Duration::from_secs(3), "{:?} after the last one", ended.elapsed());
}

// A6, P11
#[test]
fn what_is_left_when_drain_is_over_is_reset_on_both_sides() {
    let endings = Arc::new(Mutex::new(Vec::new()));
    let told = endings.clone();
    let bed = Bed::with(
        |c| c.set("server.drain", "3s"),
        move |head, wire, _| {
            wire.send(match head.target() {
                "/upgrade" => "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
                // To the close: a FIN would make it look whole.
                _ => "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
            });
            told.lock().unwrap().push(wire.ending().0);
            wire.close();
        },
    );
    let (mut socket, mut events) = (bed.client(), bed.client());
    socket.send(UPGRADE);
    assert_eq!(socket.response().unwrap().status, 101);
    assert_eq!(socket.bytes(5).unwrap(), b"hello");
    events.send("GET /events HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(events.head().unwrap().get("content-type"), Some("text/event-stream"));
    bed.proxy.signal(Signal::SIGTERM);
    assert_eq!(bed.proxy.container().wait_exit(), 0);
    let line = bed.proxy.wait_for_line("cut off");
    assert!(line.contains("requests=1") && line.contains("tunnels=1"), "{line}");
    assert_eq!(socket.ending().0, Ending::Reset);
    assert_eq!(events.ending().0, Ending::Reset);
    eventually("the replica has seen the end of both", || endings.lock().unwrap().len() == 2);
    assert_eq!(*endings.lock().unwrap(), [Ending::Reset; 2]);
}
