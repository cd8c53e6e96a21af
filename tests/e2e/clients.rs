//! Clients that trickle, flood, leave, and lie (F47 to F67).

use crate::{Bed, GET, POST, assert_own, gate, ok, serve};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::{App, Cut, Ending, Loopback, Network, ProxyConfig, Response, Wire, eventually};

/// Sends a byte every 30 ms until a response comes.
fn trickle(wire: &mut Wire, byte: u8) -> Response {
    wire.set_patience(Duration::from_millis(30));
    let start = Instant::now();
    loop {
        let _ = wire.try_send([byte]);
        match wire.response() {
            Ok(response) => return response,
            Err(Cut { ending: Ending::Silent, body, .. }) if body.is_empty() => {}
            Err(cut) => panic!("{cut:?}"),
        }
        assert!(start.elapsed() < testbed::PATIENCE, "a trickle goes on for ever");
    }
}

// F47
#[test]
fn a_head_that_trickles_is_answered_408_at_its_total_deadline() {
    let bed = Bed::with(|c| c.set("server.header_timeout", "300ms"), |h, w, _| serve(h, w));
    let start = Instant::now();
    let mut wire = bed.client();
    wire.send("GET / HTTP/1.1\r\nHost: app.test\r\nX-Slow: ");
    assert_own(&trickle(&mut wire, b'a'), 408);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(bed.origin().requests(), 0);
}

// F48
#[test]
fn a_body_that_stops_is_answered_408_and_its_replica_is_freed() {
    let freed = Arc::new(AtomicUsize::new(0));
    let ours = freed.clone();
    let bed = Bed::with(
        |c| c.set("server.body_idle", "300ms"),
        move |head, wire, _| match wire.body(head) {
            Ok(_) => ok(wire),
            Err(_) => drop(ours.fetch_add(1, Ordering::Relaxed)),
        },
    );
    let mut wire = bed.client();
    wire.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100\r\n\r\nonly this");
    assert_own(&wire.response().unwrap(), 408);
    assert_eq!(wire.ending().0, Ending::Closed);
    eventually("the replica is freed", || freed.load(Ordering::Relaxed) == 1);
    assert_eq!(bed.ask(GET).status, 200);
}

// F49
#[test]
fn a_client_that_reads_nothing_is_closed_and_costs_a_few_buffers() {
    const SLOW: u64 = 32;
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c.set("server.body_idle", "500ms"));
    bed.proxy.wait_serving("/");
    let pid = bed.proxy.container().pid();
    let before = testbed::resident(pid);
    let slow: Vec<Wire> = (0..SLOW)
        .map(|_| {
            let mut wire = bed.client();
            wire.get("/bytes/1000000000");
            wire
        })
        .collect();
    let mut most = before;
    for mut wire in slow {
        // The connection ends by itself, long before the body does, without its client having read a byte.
        eventually("the proxy gives it up", || {
            most = most.max(testbed::resident(pid));
            let error = wire.stream().and_then(|s| s.take_error().ok().flatten());
            error.is_some() || wire.try_send("x").is_err()
        });
    }
    // A few buffers of 64 KiB each, while they are held up.
    let each = (most - before) / SLOW;
    assert!(each < 256 << 10, "{each} bytes for a slow reader");
}

// F50, F51
#[test]
fn heads_and_targets_beyond_their_limits_are_answered_431_and_414() {
    let bed = Bed::with(|c| c.set("server.max_header", "4KiB").set("server.max_target", "1KiB"), |h, w, _| serve(h, w));
    let long = "a".repeat(5000);
    assert_own(&bed.ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Long: {long}\r\n\r\n")), 431);
    assert_own(&bed.ask(format!("GET /{long} HTTP/1.1\r\nHost: app.test\r\n\r\n")), 414);
    let many: String = (0..2000).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_own(&bed.ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{many}\r\n")), 431);
    // H9
    let many = "X:\r\n".repeat(256);
    let response = bed.ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{many}\r\n"));
    assert_own(&response, 431);
    assert!(response.text().contains("more than 256 fields"), "{}", response.text());
    assert_eq!(bed.origin().requests(), 0);
    let fits = "a".repeat(1000);
    assert_eq!(bed.ask(format!("GET /{fits} HTTP/1.1\r\nHost: app.test\r\nX-Long: {fits}\r\n\r\n")).status, 200);
}

// F50, without end: nothing is kept of what cannot be used.
#[test]
fn an_endless_head_is_answered_431_without_growing_the_proxy() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let pid = bed.proxy.container().pid();
    bed.ask(GET);
    let before = testbed::resident(pid);
    let mut wire = bed.client();
    wire.send("GET / HTTP/1.1\r\nHost: app.test\r\n");
    let line = format!("X-Long: {}\r\n", "a".repeat(60_000));
    // The proxy answers somewhere on the way and stops reading a little later.
    for _ in 0..1000 {
        if wire.try_send(&line).is_err() {
            break;
        }
    }
    let grown = testbed::resident(pid).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

// F53, F54, F55, F56, F57
// H9, D20
#[test]
fn malformed_and_ambiguous_heads_are_answered_400_and_never_reach_a_replica() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let heads = [
        ("CL and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\nhello"),
        ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
        ("an endless length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
        ("no length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello"),
        ("TE misspelt", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("TE chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("TE not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("TE with a space", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("TE with a tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        ("TE folded", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("NUL in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        ("a control character in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
        ("a bare CR in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        ("a bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
        ("NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a control character in the target", "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a name that is none", "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n"),
        ("an empty name", "GET / HTTP/1.1\r\nHost: a\r\n: z\r\n\r\n"),
        ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
        ("no version", "GET /\r\nHost: a\r\n\r\n"),
        ("another version", "GET / HTTP/3.7\r\nHost: a\r\n\r\n"),
        ("a later HTTP", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        ("two versions' digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        ("no host in the target", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a host in the target that could be two", "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a query without a path", "GET ?q HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a target beyond ASCII", "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a path as Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("two words as Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a URL as Host", "GET / HTTP/1.1\r\nHost: http://a/\r\n\r\n"),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("a Host that ends quotes", "GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n"),
        ("a Host that escapes quotes", "GET / HTTP/1.1\r\nHost: a\\\r\n\r\n"),
        ("user information", "GET / HTTP/1.1\r\nHost: b@a\r\n\r\n"),
        ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
        ("NUL in a head without end", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b"),
        ("no HTTP", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
    ];
    let mut wrong = vec![];
    for (what, head) in heads {
        let mut wire = bed.client().patience(Duration::from_secs(5));
        wire.send(head);
        match wire.response() {
            Ok(response) if response.status == 400 && response.get("proxy-status").is_some() => {
                if wire.ending().0 != Ending::Closed {
                    wrong.push(format!("{what}: answered, not closed"));
                }
            }
            other => wrong.push(format!("{what}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(bed.origin().requests(), 0, "{:?}", bed.origin().heads());
}

// F52, H5
#[test]
fn bad_chunks_are_answered_400_and_no_replica_gets_a_whole_request() {
    let whole = Arc::new(AtomicUsize::new(0));
    let ours = whole.clone();
    let bed = Bed::new(move |head, wire, _| {
        if wire.body(head).is_ok() {
            ours.fetch_add(1, Ordering::Relaxed);
            ok(wire);
        }
    });
    let bodies = [
        "zz\r\nhello\r\n",
        "5 hello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "fffffffffffffffff\r\nx",
        "-5\r\nhello\r\n",
        // A LF within an extension ends no line: behind it a second request would hide.
        "2;\nxx\r\n27\r\n\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        // No size is not a size of 0.
        "\r\n\r\n",
        " \r\n\r\n",
        ";\r\n\r\n",
        ";a=b\r\n\r\n",
        "2\r\nok\r\n\r\n\r\n",
        "2\nok\n0\n\n",
        "0\r\nno trailer\r\n\r\n",
    ];
    for body in bodies {
        let mut wire = bed.client().patience(Duration::from_secs(5));
        wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let response = wire.response().unwrap_or_else(|cut| panic!("{body:?}: {cut:?}"));
        assert_own(&response, 400);
        assert_eq!(wire.ending().0, Ending::Closed, "{body:?}");
    }
    assert_eq!(whole.load(Ordering::Relaxed), 0);
    assert_eq!(bed.ask(GET).status, 200);
}

// F58
#[test]
fn fifty_pipelined_requests_get_fifty_answers_in_order() {
    let bed = Bed::new(|head, wire, _| {
        let target = head.target();
        let _ = wire.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()));
    });
    let mut wire = bed.client();
    wire.send((0..50).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<String>());
    for i in 0..50 {
        assert_eq!(wire.response().unwrap().text(), format!("/{i}"));
    }
}

// F59
#[test]
fn a_client_that_half_closes_after_its_request_gets_the_whole_response() {
    let (go, gate) = gate();
    let bed = Bed::new(move |_, wire, _| {
        gate();
        ok(wire);
    });
    let mut wire = bed.client();
    wire.send(GET);
    eventually("the request is dispatched", || bed.origin().requests() == 1);
    wire.half_close();
    go();
    assert_eq!(wire.response().unwrap().text(), "ok\n");
    assert_eq!(wire.ending().0, Ending::Closed);
}

// F60
#[test]
fn a_client_that_leaves_in_its_upload_frees_the_replica_without_blame_or_retry() {
    let freed = Arc::new(AtomicUsize::new(0));
    let count = freed.clone();
    let bed = Bed::new(move |head, wire, _| match wire.body(head) {
        Ok(_) => ok(wire),
        Err(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
    });
    for (n, leave) in [Wire::reset, Wire::close].into_iter().enumerate() {
        let mut wire = bed.client();
        wire.send("PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100\r\n\r\nhalf");
        eventually("the upload arrives", || bed.origin().requests() == 2 * n + 1);
        leave(&mut wire);
        eventually("the replica is freed", || freed.load(Ordering::Relaxed) == n + 1);
        // No blame: the only replica serves at once.
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert_eq!(bed.origin().requests(), 4, "nothing was sent again");
}

// F61
#[test]
fn a_client_that_leaves_in_its_download_frees_the_replica_without_blame() {
    let freed = Arc::new(AtomicUsize::new(0));
    let count = freed.clone();
    let bed = Bed::new(move |head, wire, _| {
        if head.target() == "/" {
            return ok(wire);
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
        while wire.try_send([b'x'; 65536]).is_ok() {}
        count.fetch_add(1, Ordering::Relaxed);
        wire.close();
    });
    for (n, leave) in [Wire::reset, Wire::close].into_iter().enumerate() {
        let mut wire = bed.client();
        wire.get("/endless");
        wire.head().unwrap();
        wire.bytes(100_000).unwrap();
        leave(&mut wire);
        eventually("the replica is freed", || freed.load(Ordering::Relaxed) == n + 1);
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert_eq!(bed.origin().requests(), 4, "nothing was sent again");
}

/// No end of a request that waits for its replica is the work of a timeout.
fn patient(config: ProxyConfig) -> ProxyConfig {
    config.set("upstream.app.response_timeout", "60s")
}

// F60, before the response's head
#[test]
fn a_client_that_leaves_before_its_response_frees_the_replica_without_retry() {
    let freed = Arc::new(AtomicUsize::new(0));
    let count = freed.clone();
    let bed = Bed::with(patient, move |head, wire, _| {
        if head.target() == "/" {
            return ok(wire);
        }
        wire.ending();
        count.fetch_add(1, Ordering::Relaxed);
        wire.close();
    });
    let mut wire = bed.client();
    wire.get("/slow");
    eventually("the request is dispatched", || bed.origin().requests() == 1);
    wire.reset();
    eventually("the replica is freed", || freed.load(Ordering::Relaxed) == 1);
    assert_eq!(bed.ask(GET).status, 200);
    assert_eq!(bed.origin().requests(), 2, "nothing was sent again");
}

// A2
#[test]
fn cancelled_requests_leave_no_connection_in_time_wait() {
    const CLIENTS: usize = 40;
    let peers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let noted = peers.clone();
    // As most servers do, it closes its side when its client has left.
    let bed = Bed::with(
        |c| patient(crate::ailing::without_probes(c)),
        move |head, wire, _| {
            if head.target() == "/" {
                return ok(wire);
            }
            let peer = wire.stream().and_then(|stream| stream.peer_addr().ok()).expect("an open connection");
            noted.lock().unwrap().insert(peer);
            if head.target() == "/begun" {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            }
            wire.ending();
            wire.close();
        },
    );
    for (n, target) in ["/slow", "/begun"].into_iter().cycle().take(CLIENTS).enumerate() {
        let mut wire = bed.client();
        wire.get(target);
        eventually("the request is dispatched", || bed.origin().requests() == n + 1);
        wire.reset();
    }
    eventually("the replica is freed", || bed.origin().open() == 0);
    assert_eq!(bed.ask(GET).status, 200);
    // A probe's connection ends in the ordinary way, so only those that carried a request count.
    let waiting = in_time_wait(bed.origin().address());
    let waiting: Vec<_> = waiting.intersection(&peers.lock().unwrap()).copied().collect();
    assert!(waiting.is_empty(), "in TIME_WAIT after {CLIENTS} cancelled requests: {waiting:?}");
}

/// The local ends of this host's connections to `address` that are in TIME_WAIT, where each takes a port for a minute.
fn in_time_wait(address: SocketAddr) -> HashSet<SocketAddr> {
    const TIME_WAIT: &str = "06";
    // As the kernel prints it: the address in the host's byte order, the port as a number.
    let parse = |text: &str| {
        let (ip, port) = text.split_once(':')?;
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        Some(SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let waiting = columns.filter(|c| c.len() > 3 && c[3] == TIME_WAIT && parse(c[2]) == Some(address));
    waiting.map(|c| parse(c[1]).expect("an address and a port")).collect()
}

// D15
#[test]
fn an_upload_that_breaks_off_during_its_response_cuts_the_response() {
    let bed = Bed::new(|head, wire, _| {
        if head.target() == "/" {
            return ok(wire);
        }
        // To the close: a clean end would look like the whole of it.
        wire.send("HTTP/1.0 200 OK\r\n\r\nhalf");
        wire.ending();
        wire.close();
    });
    let mut wire = bed.client();
    wire.send("POST /upload HTTP/1.0\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(wire.head().unwrap().first, "HTTP/1.1 200 OK");
    assert_eq!(wire.bytes(4).unwrap(), b"half");
    wire.half_close();
    assert_eq!(wire.ending().0, Ending::Reset);
    assert_eq!(bed.ask(GET).status, 200);
}

// F62
#[test]
fn a_client_that_leaves_while_it_waits_is_forgotten() {
    let network = Loopback::new();
    let proxy = crate::start(&network, &ProxyConfig::new(&network, "app").set("upstream.app.wait", "30s"));
    let mut wires: Vec<Wire> = (0..5).map(|_| Wire::connect(proxy.address())).collect();
    wires.iter_mut().for_each(|wire| wire.send(POST));
    wires[0].reset();
    wires[1].close();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    for wire in &mut wires[2..] {
        assert_eq!(wire.response().unwrap().status, 200);
    }
    assert_eq!(origin.requests(), 3);
}

// F62, A5
#[test]
fn a_client_that_resets_is_noticed_whatever_it_sent_before_that_nobody_read() {
    let (go, gate) = gate();
    let bed = Bed::with(patient, move |_, wire, _| {
        gate();
        let _ = wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    // One byte of a next request; or all of one and more.
    let more = |index| if index % 2 == 0 { "x".to_owned() } else { GET.repeat(2) };
    let mut wires: Vec<Wire> = (0..30).map(|_| bed.client()).collect();
    let (with, rest) = wires.split_at_mut(10);
    let (later, ended) = rest.split_at_mut(10);
    // Sent with the request, it is read with it; sent later, it stays with the kernel.
    with.iter_mut().enumerate().for_each(|(index, wire)| wire.send(GET.to_owned() + &more(index)));
    later.iter_mut().chain(ended.iter_mut()).for_each(|wire| wire.send(GET));
    let in_flight = || bed.proxy.endpoints("app")[0]["in_flight"].as_u64().unwrap();
    eventually("all are under way", || in_flight() == 30);
    later.iter_mut().enumerate().for_each(|(index, wire)| wire.send(more(index)));
    ended.iter_mut().for_each(Wire::half_close);
    wires.iter_mut().for_each(Wire::reset);
    eventually("their places are free", || in_flight() == 0);
    go();
}

// F91, A3
#[test]
fn a_replica_that_gives_up_on_clients_that_read_slowly_is_not_blamed_for_them() {
    const SIZE: usize = 64 << 20;
    let network = Loopback::new();
    let broken = Arc::new(AtomicUsize::new(0));
    let ours = broken.clone();
    let impatient = network.origin("app", move |head, wire, _| {
        if head.target() != "/page" {
            return serve(head, wire);
        }
        // A server's own limit on how long a write may take.
        wire.set_patience(Duration::from_millis(200));
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        assert!(wire.try_send(vec![b'x'; SIZE]).is_err(), "its reader is slow");
        wire.reset();
        ours.fetch_add(1, Ordering::Relaxed);
    });
    let mut origins = vec![impatient];
    origins.extend((0..2).map(|_| network.origin("app", |h, w, _| serve(h, w))));
    let bed = Bed::around(network, origins, |c| c);
    eventually("all are proven", || bed.proxy.lines("up: probe passed").len() == 3);
    for _ in 0..24 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    // More than it takes to leave out a replica that fails where others do not.
    while broken.load(Ordering::Relaxed) < 24 {
        let before = broken.load(Ordering::Relaxed);
        let mut wire = bed.client();
        wire.get("/page");
        let head = wire.head().unwrap();
        if head.get("content-length") == Some(&SIZE.to_string()) {
            eventually("its replica gives up", || broken.load(Ordering::Relaxed) > before);
            assert!(wire.body(&head).is_err(), "it is cut");
        }
    }
    assert_eq!(bed.proxy.lines("ejected"), Vec::<String>::new());
    assert_eq!(bed.proxy.lines("suspect: "), Vec::<String>::new());
    let before = bed.origin().requests();
    for _ in 0..20 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert!(bed.origin().requests() > before, "it still has its share");
}

// F63
#[test]
fn a_flood_of_idle_connections_closes_the_oldest_idle_and_others_are_served() {
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| c.set("server.max_connections", 30),
        move |head, wire, _| {
            if head.target() == "/busy" {
                gate();
            }
            ok(wire);
        },
    );
    let mut busy = bed.client();
    busy.get("/busy");
    eventually("it is in flight", || bed.origin().requests() == 1);
    let idle: Vec<Wire> = (0..60).map(|_| bed.client()).collect();
    for _ in 0..5 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    go();
    assert_eq!(busy.response().unwrap().status, 200, "a busy connection is never closed for an idle one");
    let mut closed = 0;
    for wire in idle {
        closed += usize::from(wire.patience(Duration::from_millis(20)).ending().0 != Ending::Silent);
    }
    assert!((30..=45).contains(&closed), "{closed} of 60 idle connections closed");
}

// F64
#[test]
fn connect_is_answered_405() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    assert_own(&bed.ask("CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n"), 405);
    assert_eq!(bed.origin().requests(), 0);
}

// F65, F66
#[test]
fn an_upgrade_to_h2c_is_stripped_and_connection_cannot_name_away_a_forwarded_field() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
                   Connection: Upgrade, HTTP2-Settings, X-Forwarded-For, X-Private\r\nX-Private: 1\r\n\
                   X-Forwarded-For: 10.0.0.1\r\n\r\n";
    assert_eq!(bed.ask(request).status, 200);
    let head = &bed.origin().heads()[0];
    assert_eq!(head.get("x-forwarded-for"), Some("10.0.0.1"));
    for gone in ["upgrade", "http2-settings", "connection", "x-private"] {
        assert_eq!(head.get(gone), None, "{gone}: {head:?}");
    }
}

// F67
#[test]
fn expect_100_continue_never_deadlocks() {
    let bed = Bed::new(|head, wire, _| match head.target() {
        "/willing" => {
            wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            serve(head, wire);
        }
        "/unwilling" => {
            wire.send("HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            wire.close();
        }
        _ => serve(head, wire),
    });
    let request =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");

    let mut wire = bed.client();
    wire.send(request("/willing"));
    assert_eq!(wire.response().unwrap().status, 100);
    wire.send("hello");
    assert_eq!(wire.response().unwrap().status, 200);

    let mut wire = bed.client();
    wire.send(request("/unwilling"));
    assert_eq!(wire.response().unwrap().status, 413);

    // A client that tires of waiting for a server that knows no Expect, and sends its body all the same.
    let mut wire = bed.client();
    wire.send(request("/ignorant"));
    wire.set_patience(Duration::from_millis(300));
    if let Ok(response) = wire.response() {
        assert_eq!(response.status, 100);
    }
    wire.set_patience(Duration::from_secs(20));
    wire.send("hello");
    assert_eq!(wire.response().unwrap().status, 200);
}

// F87, H11
#[test]
fn a_client_of_another_protocol_is_told_what_it_speaks_and_the_log_says_it_once() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".as_slice();
    for _ in 0..3 {
        let response = bed.ask(hello);
        assert_own(&response, 400);
        assert!(response.text().contains("the client speaks TLS"), "{}", response.text());
    }
    bed.proxy.wait_for_line("the client speaks");
    assert_eq!(bed.proxy.lines("the client speaks").len(), 1, "{}", bed.proxy.output());
    assert_eq!(bed.origin().requests(), 0);
}
