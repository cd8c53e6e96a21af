//! What passes between a client and a replica that both do as they should: everything, unchanged.

use crate::{Bed, GET, POST, ok, serve};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use testbed::{App, Ending, Loopback, Network, Wire, eventually};

// P1
#[test]
fn heads_pass_byte_by_byte_in_both_directions() {
    let answer = "HTTP/1.1 299 Very  Fine\r\ndATE: yesterday\r\nServer: ours\r\nX-CaSe: Kept\r\nset-cookie: a\r\n\
                  Set-Cookie: b\r\nContent-Length: 2\r\n\r\n";
    let bed = Bed::new(move |head, wire, _| {
        if wire.body(head).is_ok() {
            let _ = wire.try_send(format!("{answer}ok"));
        }
    });
    let request = "PATCH /a/../%2F?q=1&r HTTP/1.1\r\nhOST: App.Test:81\r\nACCept: */*\r\nX-Empty:\r\ncookie: 1\r\n\
                   Cookie: 2\r\nContent-Length: 2\r\n\r\n";
    let response = bed.ask(format!("{request}hi"));
    assert_eq!(String::from_utf8_lossy(&bed.origin().heads()[0].raw), request);
    assert_eq!(String::from_utf8_lossy(&response.head.raw), answer);
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop_in_both_directions() {
    let bed = Bed::new(|_, wire, _| {
        wire.send(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-End: 1\r\n\
             Proxy-Authenticate: no\r\nContent-Length: 0\r\n\r\n",
        );
    });
    let response = bed.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-End: 1\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\n\r\n",
    );
    let head = &bed.origin().heads()[0];
    for gone in ["connection", "x-hop", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(head.get(gone), None, "request {gone}: {head:?}");
    }
    for gone in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(response.get(gone), None, "response {gone}: {:?}", response.head);
    }
    assert_eq!((head.get("x-end"), response.get("x-end")), (Some("1"), Some("1")));
}

// F41
#[test]
fn every_status_of_a_replica_passes_verbatim() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    for status in [200, 201, 204, 206, 301, 304, 400, 401, 404, 418, 424, 429, 500, 501, 502, 503, 504, 511] {
        let response = bed.proxy.get(&format!("/status/{status}"));
        assert_eq!(response.status, status);
        assert_eq!(response.replica(), "app.1");
        assert_eq!(response.get("proxy-status"), None, "{status} came from the replica");
    }
}

#[test]
fn responses_without_a_body_keep_the_connection_and_the_next_answer_in_step() {
    let bed = Bed::new(|head, wire, _| match (head.method(), head.target()) {
        ("HEAD", _) => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Head: 1\r\n\r\n"),
        (_, "/204") => wire.send("HTTP/1.1 204 No\r\n\r\n"),
        (_, "/304") => wire.send("HTTP/1.1 304 Same\r\nContent-Length: 99\r\n\r\n"),
        (_, "/0") => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        _ => ok(wire),
    });
    let mut wire = bed.client();
    for _ in 0..3 {
        wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = wire.response_to("HEAD").unwrap();
        assert_eq!(head.get("content-length"), Some("1234"));
        for (path, status) in [("/204", 204), ("/304", 304), ("/0", 200)] {
            wire.get(path);
            assert_eq!(wire.response().unwrap().status, status);
        }
        wire.get("/");
        assert_eq!(wire.response().unwrap().text(), "ok\n");
    }
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    let mut wire = bed.client();
    wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send("5\r\nhello\r\n");
    let head = wire.head().unwrap();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"));
    let mut seen = String::new();
    while !seen.contains("hello") {
        seen += &String::from_utf8(wire.some().unwrap()).unwrap();
    }
    wire.send("6\r\n world\r\n0\r\n\r\n");
    while !seen.ends_with("0\r\n\r\n") {
        seen += &String::from_utf8(wire.some().unwrap()).unwrap();
    }
    assert!(seen.contains(" world"), "{seen:?}");
    // The connection goes on.
    wire.get("/");
    assert_eq!(wire.response().unwrap().status, 200);
}

#[test]
fn a_gibibyte_each_way_passes_whole_in_a_few_mebibytes_of_memory() {
    const SIZE: usize = 1 << 30;
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    let pid = bed.proxy.container().pid();
    let before = testbed::resident(pid);
    let mut wire = bed.client();
    wire.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n"));
    let mut upload = wire.stream().unwrap().try_clone().unwrap();
    // Of a prime length, so that no buffer or chunk of a round size that is lost, doubled or moved goes unseen.
    let block: Arc<Vec<u8>> = {
        let mut rng = fastrand::Rng::with_seed(testbed::seed());
        Arc::new(std::iter::repeat_with(|| rng.u8(..)).take(1_048_583).collect())
    };
    let ours = block.clone();
    let sender = std::thread::spawn(move || {
        let mut left = SIZE;
        while left > 0 {
            let piece = left.min(ours.len());
            upload.write_all(&ours[..piece])?;
            left -= piece;
        }
        Ok::<_, std::io::Error>(())
    });
    assert_eq!(wire.head().unwrap().get("transfer-encoding"), Some("chunked"));
    let (mut received, mut most) = (0, 0);
    while let Some(chunk) = wire.chunk().expect("the body goes on") {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let at = received % block.len();
            let piece = rest.len().min(block.len() - at);
            assert!(rest[..piece] == block[at..at + piece], "other bytes than were sent, from {received} on");
            received += piece;
            rest = &rest[piece..];
        }
        most = most.max(testbed::resident(pid).saturating_sub(before));
    }
    assert_eq!(received, SIZE);
    sender.join().unwrap().unwrap();
    assert!(most < 6 << 20, "{most} bytes more while a gibibyte passed");
}

#[test]
fn events_pass_as_they_come() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    let mut wire = bed.client();
    // An hour between events: the first must come without the second.
    wire.get("/sse/2/3600000");
    assert_eq!(wire.head().unwrap().get("content-type"), Some("text/event-stream"));
    let mut seen = vec![];
    while !seen.windows(7).any(|w| w == b"data: 1") {
        seen.extend(wire.some().unwrap());
    }
}

// D5, H8
#[test]
fn an_event_stream_may_be_silent_for_longer_than_body_idle() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c.set("server.body_idle", "200ms"));
    bed.proxy.wait_serving("/");
    let mut wire = bed.client();
    wire.get("/sse/3/700");
    let response = wire.response().unwrap();
    assert_eq!(response.text().matches("data: ").count(), 3, "{}", response.text());
    assert_eq!(bed.proxy.lines("request failed"), Vec::<String>::new());
}

#[test]
fn a_websocket_passes_both_ways_and_ends_with_either_side() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c.set("server.body_idle", "200ms"));
    bed.proxy.wait_serving("/");
    let mut wire = bed.client();
    // The first bytes of the new protocol right behind the head: none may be lost.
    wire.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    let switched = wire.response().unwrap();
    assert_eq!((switched.status, switched.get("upgrade")), (101, Some("websocket")));
    assert!(switched.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("upgrade")));
    assert_eq!(wire.bytes(5).unwrap(), b"early");
    for n in 0..20 {
        let message = vec![n; 10_000];
        wire.send(&message);
        assert_eq!(wire.bytes(10_000).unwrap(), message);
    }
    wire.half_close();
    assert_eq!(wire.ending(), (Ending::Closed, vec![]));
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let bed = Bed::new(|_, wire, _| wire.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"));
    let mut wire = bed.client();
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(wire.response().unwrap().text(), "no");
    }
    assert_eq!(bed.origin().heads()[0].get("upgrade"), Some("websocket"));
}

#[test]
fn a_client_of_http_1_0_gets_what_it_understands() {
    let bed = Bed::new(|head, wire, _| match head.target() {
        "/chunked" => {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n yo\r\n0\r\n\r\n");
        }
        _ => ok(wire),
    });
    let mut wire = bed.client();
    wire.send("GET /chunked HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = wire.response().unwrap();
    assert_eq!((response.get("transfer-encoding"), response.text()), (None, "hello yo".into()));
    // Without Host, as HTTP/1.0 allows: the replica, which speaks HTTP/1.1, gets one.
    let mut wire = bed.client();
    wire.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(wire.response().unwrap().text(), "ok\n");
    assert_eq!(wire.ending().0, Ending::Closed);
    let head = &bed.origin().heads()[1];
    assert!(head.get("host").is_some_and(|h| !h.is_empty()) && head.first.ends_with("HTTP/1.1"), "{head:?}");
    let mut wire = bed.client();
    for _ in 0..2 {
        wire.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(wire.response().unwrap().get("connection"), Some("keep-alive"));
    }
}

// D2, H1
#[test]
fn a_client_of_http_1_0_that_keeps_its_connection_sees_where_a_body_without_a_length_ends() {
    let bed = Bed::new(|head, wire, _| match (head.method(), head.target()) {
        ("HEAD", _) => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"),
        (_, "/chunked") => {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n yo\r\n0\r\n\r\n");
        }
        (_, "/to-close") => {
            wire.send("HTTP/1.0 200 OK\r\n\r\nhello yo");
            wire.close();
        }
        _ => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhello yo"),
    });
    let request =
        |method: &str, target: &str| format!("{method} {target} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    for target in ["/chunked", "/to-close"] {
        let mut wire = bed.client();
        wire.send(request("GET", target));
        let response = wire.response().unwrap_or_else(|cut| panic!("{target}: {cut:?}"));
        assert_eq!((response.get("connection"), response.text()), (Some("close"), "hello yo".into()), "{target}");
        assert_eq!(wire.ending().0, Ending::Closed, "{target}");
    }
    // What has a length, or no body, keeps the connection.
    let mut wire = bed.client();
    for method in ["GET", "HEAD", "GET"] {
        wire.send(request(method, "/"));
        assert_eq!(wire.response_to(method).unwrap().get("connection"), Some("keep-alive"), "{method}");
    }
}

#[test]
fn connections_to_replicas_are_kept_and_shared_by_clients() {
    // A connection stays with the worker that watches its socket.
    let bed = Bed::with(|c| c.set("server.threads", 1), |h, w, _| serve(h, w));
    for _ in 0..20 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert_eq!(bed.origin().open(), 1, "twenty clients, one after the other, over one connection");
}

// H10
#[test]
fn a_post_takes_no_kept_connection_that_has_rested_for_a_second() {
    let bed = Bed::with(|c| c.set("server.threads", 1), |h, w, _| serve(h, w));
    assert_eq!(bed.ask(POST).status, 200);
    std::thread::sleep(Duration::from_millis(1100)); // the rest itself is what is tested
    assert_eq!(bed.ask(POST).status, 200);
    assert_eq!(bed.origin().open(), 2);
    // By now it is known that the replica leaves resting connections open.
    assert_eq!(bed.ask(POST).status, 200);
    assert_eq!(bed.origin().open(), 2, "right after another it does");
}

// H10
#[test]
fn posts_outlive_a_server_that_closes_resting_connections_just_as_they_come() {
    const REST: Duration = Duration::from_millis(300);
    let bed = Bed::with(
        |c| c.set("upstream.app.probe.interval", "30s"),
        |head, wire, _| {
            serve(head, wire);
            // As servers do: what rests for longer is closed, whatever is on its way.
            wire.set_patience(REST);
            while let Ok(head) = wire.head() {
                serve(&head, wire);
            }
            wire.close();
        },
    );
    let (seed, address) = (testbed::seed(), bed.proxy.address());
    let client = move |client| {
        let mut rng = fastrand::Rng::with_seed(seed + client);
        let mut wire = Wire::connect(address);
        let mut lost = 0;
        for _ in 0..60 {
            // Around the moment at which the server closes, and far from it.
            std::thread::sleep(REST.mul_f64(1.4 * rng.f64()));
            wire.send(POST);
            lost += usize::from(wire.response().unwrap().status != 200);
        }
        lost
    };
    let clients: Vec<_> = (0..8).map(|index| std::thread::spawn(move || client(index))).collect();
    let lost: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(lost, 0);
    let connections = bed.origin().connections();
    assert!(connections < 8 * 60, "some were kept: {connections} connections");
}

#[test]
fn kept_connections_are_given_up_before_the_replica_would_close_them() {
    let bed = Bed::with(|c| c.set("upstream.app.idle_timeout", "300ms"), |h, w, _| serve(h, w));
    assert_eq!(bed.ask(GET).status, 200);
    assert_eq!(bed.origin().open(), 1);
    eventually("it is closed by the proxy", || bed.origin().open() == 0);
}

#[test]
fn one_interim_response_passes_before_the_final_one() {
    let bed = Bed::new(|_, wire, _| {
        wire.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
        ok(wire);
    });
    let mut wire = bed.client();
    wire.send(GET);
    let hints = wire.response().unwrap();
    assert_eq!((hints.status, hints.get("link")), (103, Some("</style.css>")));
    assert_eq!(wire.response().unwrap().text(), "ok\n");
}

// P18
#[test]
fn trailers_pass_both_ways_but_for_those_that_mean_too_much() {
    const TRAILERS: &str = "0\r\nX-Sum: 1\r\nContent-Length: 7\r\nset-cookie: a\r\nX-More:2\r\n\r\n";
    const PASSED: &str = "0\r\nX-Sum: 1\r\nX-More:2\r\n\r\n";
    let bed = Bed::new(|_, wire, _| {
        let sent = wire.bytes("2\r\nhi\r\n".len() + PASSED.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&sent), format!("2\r\nhi\r\n{PASSED}"));
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n{TRAILERS}"
        ));
    });
    let mut wire = bed.client();
    for _ in 0..2 {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
        wire.send(format!("{head}2\r\nhi\r\n{TRAILERS}"));
        let head = wire.head().unwrap();
        assert_eq!(head.get("trailer"), Some("X-Sum"));
        let body = wire.bytes("2\r\nok\r\n".len() + PASSED.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&body), format!("2\r\nok\r\n{PASSED}"));
    }
    let head = &bed.origin().heads()[0];
    assert_eq!((head.get("te"), head.get("connection")), (Some("trailers"), Some("TE")));
}

#[test]
fn an_empty_line_before_a_request_is_forgiven() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    assert_eq!(bed.ask(format!("\r\n{GET}")).status, 200);
}

#[test]
fn host_and_forwarded_fields_are_what_the_operator_asked_for() {
    let bed = Bed::with(
        |c| c.set("upstream.app.host", "upstream").set("upstream.app.forwarded", "append"),
        |h, w, _| serve(h, w),
    );
    assert_eq!(bed.ask("GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n").status, 200);
    let head = &bed.origin().heads()[0];
    assert_eq!(head.all("host"), ["app"]);
    assert_eq!(head.all("x-forwarded-for"), ["10.1.1.1, 127.0.0.1"]);
    assert_eq!(head.get("x-forwarded-host"), Some("shop.test"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert!(head.get("forwarded").is_some_and(|f| f.contains("for=127.0.0.1")), "{head:?}");
}

#[test]
fn a_client_sees_the_same_with_the_proxy_in_between_as_without() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 1);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    for path in ["/", "/status/404", "/status/503", "/bytes/70000", "/bytes/70000?chunked", "/sse/3/1", "/early-413"] {
        let [direct, proxied] = [replicas[0].address(), bed.proxy.address()].map(|address| {
            let mut wire = Wire::connect(address);
            wire.get(path);
            let response = wire.response().unwrap();
            // The clock ticks between the two, and framing belongs to each hop.
            let fields = response.head.fields.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
            let mut fields: Vec<_> = fields.filter(|(name, _)| name != "date").collect();
            fields.sort();
            (response.head.first, fields, response.body)
        });
        assert!(direct == proxied, "{path}: {:?} became {:?}", (direct.0, direct.1), (proxied.0, proxied.1));
    }
}

// H4
#[test]
fn targets_pass_as_they_came_with_characters_that_should_have_been_encoded() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let targets = [r#"/x?q={"a":1}"#, r#"/"<>`{}|\^/?"<>`{}|\^"#, "/[a]?b[]=%zz", "//b/../c", "/a?b?c"];
    for target in targets {
        assert_eq!(bed.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200, "{target}");
        assert_eq!(bed.ask(format!("GET http://a{target} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200, "{target}");
    }
    let seen: Vec<_> = bed.origin().heads().iter().map(|head| head.target().to_owned()).collect();
    assert_eq!(seen, targets.iter().flat_map(|target| [*target; 2]).collect::<Vec<_>>());
}

// H9
#[test]
fn a_whole_url_says_which_host_is_meant_whatever_the_host_field_says() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    for (target, host) in
        [("http://A:80/x", "a"), ("http://A:80/x", "b:81"), ("http://A:80/x", ""), ("http://A:80?q", "a")]
    {
        assert_eq!(bed.ask(format!("GET {target} HTTP/1.1\r\nX: 1\r\nHost: {host}\r\n\r\n")).status, 200);
    }
    for head in bed.origin().heads() {
        assert_eq!(head.all("host"), ["A:80"]);
        assert!(["/x", "/?q"].contains(&head.target()), "{head:?}");
    }
}

// H9
#[test]
fn a_later_minor_version_of_http_is_served_as_1_1() {
    let bed = Bed::new(|_, wire, _| {
        let _ = wire.try_send("HTTP/1.3 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    });
    let mut wire = bed.client();
    for _ in 0..2 {
        wire.send("GET / HTTP/1.2\r\nHost: a\r\n\r\n");
        let response = wire.response().unwrap();
        assert_eq!((response.head.first.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
    }
    assert!(bed.origin().heads()[0].first.ends_with("HTTP/1.1"));
}

// H9
#[test]
fn a_websocket_among_other_offers_is_asked_for_and_a_426_says_what_it_wants() {
    let bed = Bed::new(|head, wire, _| match head.get("upgrade") {
        Some("websocket") => wire.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        _ => wire.send("HTTP/1.1 426 No\r\nConnection: upgrade\r\nUpgrade: foo\r\nContent-Length: 0\r\n\r\n"),
    });
    let mut wire = bed.client();
    wire.get("/");
    let response = wire.response().unwrap();
    let upgrade = (response.status, response.get("upgrade"), response.get("connection"));
    assert_eq!(upgrade, (426, Some("foo"), Some("Upgrade")));
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, foo\r\n\r\n");
    assert_eq!(wire.response().unwrap().status, 101);
}

// F85, D9, H6, H9, D20
#[test]
fn a_response_that_has_one_meaning_reaches_its_client_in_lines_that_have_one_reading() {
    let sent = [
        ("HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok", "X-A: 1\r\nContent-Length: 2\r\n"),
        ("HTTP/1.1 200 OK\r\nX-A: 1\r\n\t2\r\nContent-Length: 2\r\n\r\nok", "X-A: 1 2\r\nContent-Length: 2\r\n"),
        ("HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok", "X-A: 1\r\nContent-Length: 2\r\n"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "Content-Length: 2\r\n"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "Content-Length: 2\r\n"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        ("\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "Content-Length: 2\r\n"),
    ];
    let bed = Bed::new(move |head, wire, _| {
        if let Ok(n) = head.target()[1..].parse::<usize>() {
            wire.send(sent[n].0);
        } else {
            ok(wire);
        }
    });
    let mut wire = bed.client();
    for (n, (sent, expected)) in sent.iter().enumerate() {
        wire.get(&format!("/{n}"));
        let response = wire.response().unwrap();
        let raw = String::from_utf8_lossy(&response.head.raw).into_owned();
        assert_eq!((raw, response.text()), (format!("HTTP/1.1 200 OK\r\n{expected}\r\n"), "ok".into()), "{sent:?}");
    }
}

// D9, H6, H9
#[test]
fn a_response_that_could_be_delimited_in_two_ways_is_502() {
    let lines = [
        ("Content-Length : 2", "colon"),
        ("Content-Length: 2\r\nTransfer-Encoding : chunked", "colon"),
        ("Connection : close\r\nContent-Length: 2", "colon"),
        ("Content-Length:\r\n 2", "Content-Length"),
        ("Content-Length: 2\r\nContent-Length: 3", "Content-Length"),
        ("Transfer-Encoding:\r\n chunked", "Transfer-Encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding"),
        ("Content-Length: 2\r\nX: a\rb", "malformed"),
        ("many", "more than 256 fields"),
    ];
    let bed = Bed::new(move |head, wire, _| {
        let line = lines[head.target()[1..].parse::<usize>().unwrap_or(0)].0;
        let line = if line == "many" { ["X: 1"; 257].join("\r\n") } else { line.to_owned() };
        let _ = wire.try_send(format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\nok"));
    });
    for (n, (lines, why)) in lines.iter().enumerate() {
        let response = bed.ask(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        crate::assert_own(&response, 502);
        assert!(response.text().contains(why), "{lines:?}: {}", response.text());
    }
}

// F86, H7
#[test]
fn a_response_without_a_body_does_not_speak_of_one() {
    let bed = Bed::new(|head, wire, _| match head.target() {
        "/100" => wire.send("HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
        "/204" => wire.send("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "/205" => wire.send("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n"),
        "/304" => wire.send("HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "/305" => wire.send("HTTP/1.1 304 Same\r\nContent-Length: 99\r\n\r\n"),
        _ => ok(wire),
    });
    let mut wire = bed.client();
    for (target, status, length) in
        [("/100", 103, None), ("/204", 204, None), ("/205", 204, None), ("/304", 304, None), ("/305", 304, Some("99"))]
    {
        wire.get(target);
        let response = wire.response().unwrap();
        let framing = (response.status, response.get("transfer-encoding"), response.get("content-length"));
        assert_eq!(framing, (status, None, length), "{target}");
        if status < 200 {
            assert_eq!(wire.response().unwrap().status, 204);
        }
        wire.get("/");
        assert_eq!(wire.response().unwrap().text(), "ok\n", "after {target}");
    }
}
