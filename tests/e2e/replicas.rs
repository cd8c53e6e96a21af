//! Scripted replicas that refuse, break, hang and lie (F20 to F46).

use crate::ailing::without_probes;
use crate::{Bed, GET, POST, assert_own, gate, ok, serve};
use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::{App, Ending, Head, Loopback, Network, Signal, Wire, eventually};

/// A replica whose kernel drops every SYN once it is told to: nobody accepts, and the queue is full.
pub(crate) struct DeafReplica {
    address: SocketAddr,
    deaf: Arc<AtomicBool>,
    queued: Vec<TcpStream>,
}

impl DeafReplica {
    pub(crate) fn new(network: &Loopback) -> DeafReplica {
        let address = SocketAddr::from((network.free_address(), network.port()));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true).unwrap();
        let deaf = Arc::new(AtomicBool::new(false));
        let told = deaf.clone();
        std::thread::spawn(move || {
            // Holds the listener for ever once deaf; the test's process ends with it.
            while Arc::strong_count(&told) > 1 {
                if !told.load(Ordering::Relaxed) {
                    while listener.accept().is_ok() {}
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let std::net::IpAddr::V4(ip) = address.ip() else { unreachable!() };
        network.dns().add("app", ip);
        DeafReplica { address, deaf, queued: vec![] }
    }

    /// From now on connects hang.
    pub(crate) fn turn_deaf(&mut self) {
        self.deaf.store(true, Ordering::Relaxed);
        let full = |e: &std::io::Error| e.kind() == std::io::ErrorKind::TimedOut;
        loop {
            match TcpStream::connect_timeout(&self.address, Duration::from_millis(100)) {
                Ok(stream) => self.queued.push(stream),
                Err(e) if full(&e) => return,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

// F20, P4
#[test]
fn a_connect_that_hangs_is_overtaken_by_another_replica_for_every_method() {
    let network = Loopback::new();
    let mut deaf = DeafReplica::new(&network);
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let bed = Bed::around(network, vec![origin], |c| without_probes(c).set("upstream.app.connect_timeout", "3s"));
    // Both are proven once the deaf one, which cannot answer, was asked.
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    deaf.turn_deaf();
    for request in [GET, POST].into_iter().cycle().take(10) {
        let start = Instant::now();
        assert_eq!(bed.ask(request).status, 200);
        assert!(start.elapsed() < Duration::from_secs(2), "it did not wait for connect_timeout");
    }
}

// F22, P3
#[test]
fn a_get_outlives_a_reset_after_accept_and_a_post_is_told_of_it() {
    breaks_without_an_answer(Wire::reset);
}

// F24
#[test]
fn a_get_outlives_a_close_without_an_answer_and_a_post_is_told_of_it() {
    breaks_without_an_answer(|wire| {
        wire.close();
    });
}

/// One of two replicas breaks every request's connection in this way.
fn breaks_without_an_answer(how: fn(&mut Wire)) {
    let network = Loopback::new();
    let breaking = network.origin("app", move |head, wire, _| {
        let _ = wire.body(head);
        how(wire);
    });
    let healthy = network.origin("app", |h, w, _| serve(h, w));
    let bed = Bed::around(network, vec![breaking, healthy], |c| c);
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    eventually("a GET met the one that breaks, and was answered by the other", || {
        assert_eq!(bed.ask(GET).status, 200);
        bed.origin().requests() > 0
    });
    let gets = bed.origin().requests();
    // It is suspect now, and comes back once DNS and a probe have spoken for it.
    let mut posts = 0;
    eventually("a POST met it", || {
        let response = bed.ask(POST);
        posts += 1;
        if bed.origin().requests() == gets {
            assert_eq!(response.status, 200);
            return false;
        }
        assert_own(&response, 502);
        true
    });
    let received: usize = bed.origins.iter().flat_map(|o| o.heads()).filter(|h| h.method() == "POST").count();
    assert_eq!(received, posts, "each POST was sent once");
}

// F23
#[test]
fn kept_connections_that_the_replica_closes_cost_no_get_and_never_send_a_post_twice() {
    let network = Loopback::new();
    // Whether the next request on a kept connection is read and its connection closed.
    let closes = Arc::new(AtomicBool::new(false));
    let replica = || {
        let closes = closes.clone();
        let served: Mutex<HashSet<SocketAddr>> = Mutex::default();
        network.origin("app", move |head, wire, _| {
            let peer = wire.stream().and_then(|s| s.peer_addr().ok()).expect("an open connection");
            let kept = !served.lock().unwrap().insert(peer);
            let _ = wire.body(head);
            if kept && closes.swap(false, Ordering::Relaxed) {
                served.lock().unwrap().remove(&peer);
                return wire.close();
            }
            ok(wire);
        })
    };
    let origins = vec![replica(), replica()];
    // Each worker has kept connections of its own.
    let bed = Bed::around(network, origins, |c| c.set("server.threads", 1));
    let keep_one_to_each = || {
        eventually("both have a connection that is kept", || {
            assert_eq!(bed.ask(GET).status, 200);
            bed.proxy.endpoints("app").iter().filter(|e| e["idle_connections"] != 0).count() == 2
        });
    };
    let times = |target: &str| {
        let heads: Vec<Head> = bed.origins.iter().flat_map(|o| o.heads()).collect();
        heads.iter().filter(|head| head.target() == target).count()
    };

    // POSTs take kept connections once it was seen that the replicas leave them open, and before any was seen closed.
    keep_one_to_each();
    let resting = Instant::now();
    eventually("the connections rest", || resting.elapsed() > Duration::from_millis(1100));
    closes.store(true, Ordering::Relaxed);
    let mut posts = 0;
    eventually("a POST meets the connection that closes", || {
        let target = format!("/post/{posts}");
        posts += 1;
        let response = bed.ask(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
        assert_eq!(times(&target), 1, "{target} is sent once");
        let met = !closes.load(Ordering::Relaxed);
        if met {
            assert_own(&response, 502);
        } else {
            assert_eq!(response.status, 200, "{target}: {}", response.text());
        }
        met
    });

    for n in 0..10 {
        // Without it the GET might meet a replica of which no connection is kept.
        keep_one_to_each();
        let target = format!("/get/{n}");
        closes.store(true, Ordering::Relaxed);
        let response = bed.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        assert_eq!(times(&target), 2, "it met the connection that closed, and was asked again");
    }
}

/// What a client sees of an answer that breaks off must be a break, never a clean end.
#[track_caller]
fn assert_cut(bed: &Bed, target: &str) {
    let mut wire = bed.client();
    wire.get(target);
    match wire.response() {
        Ok(response) => panic!("{target} looks whole: {response:?}"),
        Err(cut) => {
            assert!(cut.head.is_some(), "{target}: the head had passed: {cut:?}");
            assert_ne!(cut.ending, Ending::Silent, "{target}: {cut:?}");
        }
    }
}

// F25, F26, F35, F38
#[test]
fn an_answer_that_breaks_off_reaches_the_client_as_broken() {
    let bed = Bed::new(|head, wire, _| {
        let ten = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let to_close = "HTTP/1.0 200 OK\r\n\r\nhalf";
        let (answer, reset) = match head.target() {
            "/short/reset" => (ten.into(), true),
            "/short/close" => (ten.into(), false),
            "/chunks/reset" => (chunks.into(), true),
            "/chunks/close" => (chunks.into(), false),
            "/chunks/bad" => (format!("{chunks}zz\r\n"), false),
            "/chunks/unended" => (format!("{chunks}2\r\nxxyy0\r\n\r\n"), false),
            "/old/reset" => (to_close.into(), true),
            _ => return ok(wire),
        };
        let _ = wire.try_send(answer);
        // The head must arrive before the reset, which would overtake it.
        std::thread::sleep(Duration::from_millis(100));
        if reset { wire.reset() } else { wire.close() }
    });
    for target in ["/short/reset", "/short/close", "/chunks/reset", "/chunks/close"] {
        assert_cut(&bed, target);
        assert_eq!(bed.ask(GET).status, 200, "after {target}");
    }
    // What comes with the head is read before anything is passed on.
    for target in ["/chunks/bad", "/chunks/unended"] {
        assert_own(&bed.ask(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n")), 502);
        assert_eq!(bed.ask(GET).status, 200, "after {target}");
    }
    assert_cut(&bed, "/old/reset");
    let tried = bed.origin().heads().iter().filter(|h| h.target() != "/").count();
    assert_eq!(tried, 7, "what had begun to be answered was not asked for again");
}

// F38
#[test]
fn an_answer_of_http_1_0_ends_with_its_connection() {
    let bed = Bed::new(|_, wire, _| {
        wire.send("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nall of it");
        wire.close();
    });
    let mut wire = bed.client();
    for _ in 0..2 {
        wire.send(GET);
        let response = wire.response().unwrap();
        assert_eq!((response.get("x-old"), response.text()), (Some("1"), "all of it".into()));
    }
    let mut wire = bed.client();
    wire.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(wire.response().unwrap().text(), "all of it");
    assert_eq!(wire.ending().0, Ending::Closed);
}

// F27, F39
#[test]
fn bytes_beyond_an_answer_are_dropped_with_their_connection() {
    let bed = Bed::new(|head, wire, n| {
        let answer = match (head.method(), head.target()) {
            ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret",
            (_, "/204") => "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret",
            (_, "/304") => "HTTP/1.1 304 Same\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret",
            (_, "/extra") => {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
            }
            _ => return wire.send(format!("HTTP/1.1 200 OK\r\nX-N: {n}\r\nContent-Length: 3\r\n\r\nok\n")),
        };
        let _ = wire.try_send(answer);
    });
    for (method, target, status) in
        [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304), ("GET", "/extra", 200)]
    {
        for _ in 0..3 {
            let mut wire = bed.client();
            wire.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = wire.response_to(method).unwrap();
            assert_eq!(response.status, status, "{target}");
            assert!(!response.text().contains("secret"), "{target}");
            // Were the connection used again, the next answer would be the smuggled one.
            assert_eq!(bed.ask(GET).text(), "ok\n", "after {method} {target}");
        }
    }
}

// F28
#[test]
fn a_replica_that_does_not_answer_in_time_is_504_and_is_not_asked_again() {
    let bed = Bed::with(|c| c.set("upstream.app.response_timeout", "300ms"), |_, _, _| {});
    let start = Instant::now();
    assert_own(&bed.ask(GET), 504);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_own(&bed.ask(POST), 504);
    assert_eq!(bed.origin().requests(), 2);
}

// F29
#[test]
fn an_answer_that_stops_in_its_body_is_cut_at_the_idle_limit() {
    let bed = Bed::with(
        |c| c.set("server.body_idle", "300ms"),
        |head, wire, _| match head.target() {
            "/stop" => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            _ => ok(wire),
        },
    );
    let start = Instant::now();
    assert_cut(&bed, "/stop");
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(bed.ask(GET).status, 200);
}

// F32, F33, F34, F36, F37
#[test]
fn answers_that_are_not_http_are_502_without_another_try_and_are_not_kept() {
    // On a fresh connection each: what comes first on a kept one was sent before the request.
    let bed = Bed::with(
        |c| c.set("upstream.app.max_idle", 0),
        |head, wire, _| {
            // Four times what the proxy may grow by.
            let giant = || format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(16 << 20));
            let answer = match head.target() {
                "/garbage" => "I am not a web server\r\n\r\n".into(),
                "/ssh" => "SSH-2.0-OpenSSH_9.2p1\r\n".into(),
                "/status" => "HTTP/1.1 2000 OK\r\n\r\n".into(),
                "/giant" => giant(),
                "/cl-te" => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()
                }
                "/two-cl" => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into(),
                // 16 MiB of it: it would go on for as long as anybody reads.
                "/flood" => "HTTP/1.1 102 Processing\r\n\r\n".repeat(620_000),
                "/switch" => "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".into(),
                _ => return ok(wire),
            };
            let _ = wire.try_send(answer);
            if head.target() == "/ssh" {
                wire.close();
            }
        },
    );
    let pid = bed.proxy.container().pid();
    bed.ask(GET);
    let before = testbed::resident(pid);
    for target in ["/garbage", "/ssh", "/status", "/giant", "/cl-te", "/two-cl", "/flood", "/switch"] {
        let mut wire = bed.client();
        wire.get(target);
        let response = loop {
            let response = wire.response().unwrap_or_else(|cut| panic!("{target}: {cut:?}"));
            // Of the flood, some pass.
            if response.status != 102 {
                break response;
            }
        };
        assert_eq!(response.status, 502, "{target}: {response:?}");
        assert_own(&response, 502);
        assert_eq!(bed.ask(GET).status, 200, "after {target}");
        let tried = bed.origin().heads().iter().filter(|h| h.target() == target).count();
        assert_eq!(tried, 1, "{target}");
    }
    let grown = testbed::resident(pid).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

// F40
#[test]
fn an_early_refusal_of_an_upload_passes_at_once() {
    let bed = Bed::new(|_, wire, _| {
        wire.send("HTTP/1.1 413 Too much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
        // As a good server: reads on for a while, so that its answer is not lost to a reset.
        wire.half_close();
        wire.set_patience(Duration::from_millis(500));
        wire.ending();
        wire.close();
    });
    let mut wire = bed.client();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    wire.send(vec![b'x'; 100_000]);
    let response = wire.response().unwrap();
    assert_eq!((response.status, response.text()), (413, "no\n".into()));
    assert_eq!(response.get("proxy-status"), None);
}

// F46
#[test]
fn when_all_proven_replicas_are_down_they_are_tried_all_the_same_and_an_unproven_one_never() {
    let answers = Arc::new(AtomicBool::new(true));
    let network = Loopback::new();
    let probed_by_http = |answers: Arc<AtomicBool>| {
        move |head: &Head, wire: &mut Wire, _: usize| {
            let healthy = head.target() != "/probe" || answers.load(Ordering::Relaxed);
            let status = if healthy { "200 OK" } else { "503 Down" };
            let _ = wire.try_send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    };
    let proven = network.origin("app", probed_by_http(answers.clone()));
    let bed = Bed::around(network, vec![proven], |c| {
        c.set("upstream.app.probe.path", "/probe").set("upstream.app.wait", "500ms")
    });
    assert_eq!(bed.ask(GET).status, 200);
    answers.store(false, Ordering::Relaxed);
    bed.proxy.wait_for_line("down");
    let unproven = bed.network.origin("app", probed_by_http(Arc::new(AtomicBool::new(false))));
    eventually("the new one was probed", || unproven.requests() > 2);
    for _ in 0..20 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert!(unproven.heads().iter().all(|h| h.target() == "/probe"), "{:?}", unproven.heads());
}

// F46, with nobody at all
#[test]
fn when_nobody_can_be_reached_attempts_are_bounded_and_the_answer_is_503() {
    let network = Loopback::new();
    network.set_lag(Duration::from_secs(60)); // the record stays, so that only connects tell
    let replicas = network.scale("app", &App::replica(), 2);
    let bed = Bed::around(network, vec![], |c| {
        c.set("upstream.app.wait", "500ms")
            .set("upstream.app.probe.interval", "10s")
            .set("upstream.app.probe.timeout", "1s")
    });
    bed.proxy.wait_up("app", &replicas.iter().map(|r| r.address()).collect::<Vec<_>>());
    for replica in &replicas {
        replica.signal(Signal::SIGKILL);
        replica.wait_exit();
    }
    let connects = || bed.proxy.metric("evenkeel_connects_total", &[]);
    let before = connects();
    for request in [GET, POST] {
        let start = Instant::now();
        let response = bed.ask(request);
        assert_own(&response, 503);
        assert!(response.get("proxy-status").unwrap().contains("error=destination_unavailable"), "{response:?}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}, of a wait of 500 ms");
    }
    // Three attempts at most for each of the two.
    let tried = connects() - before;
    assert!((1.0..=6.0).contains(&tried), "{tried} connects");
}

// What failed is said, once, with its reason.
#[test]
fn a_failed_request_is_one_warning_with_its_reason_and_whom_it_met() {
    let bed = Bed::with(|c| c.set("upstream.app.response_timeout", "100ms"), |_, _, _| {});
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    bed.ask(format!("GET /lost HTTP/1.1\r\nHost: a\r\n{trace}\r\n\r\n"));
    let line = bed.proxy.wait_for_line("WARN");
    for part in
        ["/lost", "GET", "app", "response", &bed.origin().address().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736"]
    {
        assert!(line.contains(part), "{part:?} is missing in: {line}");
    }
    assert_eq!(bed.proxy.lines("WARN").len(), 1);
}

// D7
#[test]
fn what_a_replica_sends_behind_a_response_is_no_other_clients_answer() {
    let served = std::sync::Arc::new(AtomicBool::new(false));
    let seen = served.clone();
    let bed = Bed::with(without_probes, move |head, wire, _| {
        // As `do_HEAD = do_GET` in Python: a body where none may be, in a write of its own. It looks like an answer, so that
        // whoever takes it for the next response does not tell by its form that it is none.
        let late = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nanother\n";
        let status = match head.target() {
            "/head" => "200 OK",
            "/204" => "204 No Content",
            "/304" => "304 Not Modified",
            _ => return ok(wire),
        };
        wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", late.len()));
        seen.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(30));
        let _ = wire.try_send(late);
    });
    for (method, target) in [("HEAD", "/head"), ("GET", "/204"), ("GET", "/304")] {
        for _ in 0..5 {
            let mut wire = bed.client();
            wire.send(format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
            wire.response_to(method).unwrap();
            let response = bed.ask(GET);
            assert_eq!((response.status, response.text().as_str()), (200, "ok\n"), "after {method} {target}");
        }
    }
    assert!(served.load(Ordering::Relaxed));
}

// F39, A17
#[test]
fn a_replica_that_once_sent_more_behind_its_answer_has_its_connections_kept_no_longer() {
    let (go, gate) = gate();
    let bed = Bed::with(without_probes, move |head, wire, _| {
        ok(wire);
        if head.target() == "/twice" {
            gate();
            // A second answer, for whoever comes next on this connection.
            let _ = wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nanother\n");
        }
    });
    bed.ask("GET /twice HTTP/1.1\r\nHost: app.test\r\n\r\n");
    go();
    eventually("it is noticed", || bed.proxy.lines("sends bytes behind its responses").len() == 1);
    let before = bed.origin().connections();
    for _ in 0..10 {
        assert_eq!(bed.ask(GET).text(), "ok\n");
    }
    assert_eq!(bed.origin().connections(), before + 10);
    assert_eq!(bed.proxy.lines("sends bytes behind its responses").len(), 1, "it is said once");
}

// D7
#[test]
fn garbage_that_comes_first_on_a_kept_connection_is_a_dead_connection() {
    let bed = Bed::with(without_probes, move |_, wire, before| {
        if before == 1 {
            // The second request on a connection meets what belongs to nothing that was asked.
            wire.send("late garbage\r\n\r\n");
            wire.close();
        } else {
            ok(wire);
        }
    });
    // Over one connection, which is one worker's, and so is what that worker keeps.
    let mut client = bed.client();
    for times in ["once", "again, the second time on a fresh connection"] {
        client.send(GET);
        assert_eq!(client.response().unwrap().status, 200, "{times}");
    }
    assert_eq!(bed.origin().requests(), 3);
}
