//! What the proxy itself says: each error type of `Proxy-Status` (RFC 9209), with the status, the words, the log and the
//! counters that go with it.

use crate::ailing::without_probes;
use crate::process::by_shell;
use crate::replicas::DeafReplica;
use crate::{Bed, GET, POST, gate, ok, serve};
use serde_json::json;
use std::time::{Duration, Instant};
use testbed::{Ending, Head, Loopback, Proxy, ProxyConfig, Response, Wire, eventually};

/// Asserts that the answer is the proxy's own: this status, and this error type and text in the field and the body.
#[track_caller]
fn assert_says(response: &Response, status: u16, token: &str, text: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let expected = format!("evenkeel; error={token}; details=\"{text}\"");
    assert_eq!(response.head.all("proxy-status"), [expected.as_str()], "{response:?}");
    assert_eq!(response.text(), format!("{text}\n"));
    assert_eq!(response.get("content-type"), Some("text/plain; charset=utf-8"), "{response:?}");
    assert!(response.head.first.starts_with("HTTP/1.1 "), "{response:?}");
}

/// Asserts that one request failed for this reason, says the log, `/status` and `/metrics`.
#[track_caller]
fn assert_counted(bed: &Bed, token: &str, text: &str, endpoints: usize) {
    let line = bed.proxy.wait_for_line(&format!("request failed: {text}"));
    assert!(line.contains(&format!("reason=\"{token}\"")), "{line}");
    let failures = bed.proxy.status()["upstreams"][0]["failures"].as_array().cloned().unwrap();
    let [failure] = failures.as_slice() else { panic!("one request failed: {failures:#?}") };
    assert_eq!((failure["reason"].as_str(), failure["text"].as_str()), (Some(token), Some(text)));
    assert_eq!(failure["endpoints"].as_array().map(Vec::len), Some(endpoints), "{failure:#}");
    let reason = format!("reason=\"{token}\"");
    assert_eq!(bed.proxy.metric("evenkeel_failed_requests_total", &["upstream=\"app\"", &reason]), 1.0);
    assert_eq!(bed.proxy.metric("evenkeel_failed_requests_total", &[]), 1.0);
}

/// Asserts that a replica with this script fails a request so.
#[track_caller]
fn assert_fails(
    script: impl Fn(&Head, &mut Wire, usize) + Send + Sync + 'static,
    request: &str,
    status: u16,
    token: &str,
    text: &str,
) {
    let bed = Bed::with(|c| c.set("upstream.app.response_timeout", "300ms").set("server.max_header", "4KiB"), script);
    assert_says(&bed.ask(request), status, token, text);
    assert_counted(&bed, token, text, 1);
}

// T10
#[test]
fn http_request_error_is_said_of_each_malformed_or_unfinished_request() {
    let bed = Bed::with(
        |c| {
            c.set("server.header_timeout", "300ms")
                .set("server.body_idle", "300ms")
                .set("server.max_header", "8KiB")
                .set("server.max_target", "64B")
        },
        |h, w, _| serve(h, w),
    );
    let long = "x".repeat(10_000);
    let cases = [
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned(), "not exactly one Host field"),
        (400, "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into(), "a line of the request's head does not end in CRLF"),
        (400, "GET ping HTTP/1.1\r\nHost: a\r\n\r\n".into(), "the request's target is not a path"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n".into(),
            "the request's body is not what its head says",
        ),
        (
            400,
            "\x16\x03\x01\x02".into(),
            "the client speaks TLS, and plain HTTP is served here; use http:// or end TLS before this proxy",
        ),
        (408, "GET / HTTP/1.1\r\nHo".into(), "the request's head did not come within header_timeout"),
        (
            408,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe".into(),
            "the request's body stopped for longer than body_idle",
        ),
        (
            414,
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..64]),
            "the request's target is longer than max_target",
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            "the request's head is longer than max_header",
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(300)),
            "the request's head has more than 256 fields",
        ),
    ];
    for (status, request, text) in &cases {
        let response = bed.ask(request);
        assert_says(&response, *status, "http_request_error", text);
        assert_eq!(response.get("connection"), Some("close"), "{text}");
    }
    let refused = bed.proxy.metric("evenkeel_refused_requests_total", &["reason=\"http_request_error\""]);
    // The two whose heads were in order had an upstream, whose replica is not to blame.
    assert_eq!(refused, cases.len() as f64 - 2.0);
    assert_eq!(bed.proxy.metric("evenkeel_requests_total", &["code_class=\"4xx\""]), 2.0);
    assert_eq!(bed.proxy.metric("evenkeel_failed_requests_total", &[]), 0.0);
    assert_eq!(bed.proxy.lines("request failed"), Vec::<String>::new());
}

// T10
#[test]
fn http_request_denied_destination_not_found_and_proxy_loop_detected_are_said_of_whole_requests() {
    let network = Loopback::new();
    let app = network.origin("app", |h, w, _| serve(h, w));
    let bed = Bed::around(network, vec![app], |c| c.route(json!({"upstream": "app", "path_prefix": "/app"})));
    let denied = bed.ask("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    assert_says(&denied, 405, "http_request_denied", "CONNECT is not served here");
    assert_eq!(denied.get("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert_says(&bed.ask(GET), 404, "destination_not_found", "no route matches this host and path");
    let ring = "this is a proxy: its upstream's address leads to a proxy, perhaps in a ring";
    let probe = "GET /app HTTP/1.1\r\nHost: a\r\nEvenkeel-Probe: 1\r\n\r\n";
    assert_says(&bed.ask(probe), 508, "proxy_loop_detected", ring);
    for token in ["http_request_denied", "destination_not_found", "proxy_loop_detected"] {
        let reason = format!("reason=\"{token}\"");
        assert_eq!(bed.proxy.metric("evenkeel_refused_requests_total", &[&reason]), 1.0, "{token}");
    }
    // Of a HEAD, the same without the text.
    let mut wire = bed.client();
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.head().unwrap();
    assert!(head.get("proxy-status").unwrap().contains("error=destination_not_found"), "{head:?}");
    assert_eq!(head.get("content-length"), Some("36"), "as a GET has it");
    assert_eq!(wire.ending(), (Ending::Closed, vec![]));
}

// T10
#[test]
fn destination_unavailable_is_said_where_there_is_no_replica() {
    let bed = Bed::around(Loopback::new(), vec![], |c| c.set("upstream.app.wait", "300ms"));
    let text = "no replica became available in time";
    assert_says(&bed.ask(POST), 503, "destination_unavailable", text);
    assert_counted(&bed, "destination_unavailable", text, 0);
}

// T10
#[test]
fn connection_limit_reached_is_said_where_the_queue_is_full_and_the_connection_goes_on() {
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| c.set("upstream.app.max_in_flight", 1).set("upstream.app.max_waiting", 0),
        move |_, wire, _| {
            gate();
            ok(wire);
        },
    );
    eventually("it is proven", || bed.proxy.endpoints("app")[0]["usable"] == true);
    let mut first = bed.client();
    first.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    let mut second = bed.client();
    second.send(GET);
    let text = "too many requests wait for a replica";
    let refusal = second.response().unwrap();
    assert_says(&refusal, 503, "connection_limit_reached", text);
    assert_eq!(refusal.get("connection"), None, "it may ask again over this connection");
    assert_counted(&bed, "connection_limit_reached", text, 0);
    go();
    assert_eq!(first.response().unwrap().status, 200);
    eventually("its place is free", || bed.proxy.endpoints("app")[0]["in_flight"] == 0);
    second.send(GET);
    assert_eq!(second.response().unwrap().status, 200);
}

// T10
#[test]
fn connection_limit_reached_is_said_where_the_proxy_itself_has_no_descriptor_left() {
    const DESCRIPTORS: usize = 60;
    let network = Loopback::new();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let config = without_probes(ProxyConfig::new(&network, "app"))
        .set("server.threads", 1)
        .set("server.max_connections", 200)
        .set("server.header_timeout", "60s")
        .set("dns.interval", "60s");
    let shell = by_shell(&format!("ulimit -n {DESCRIPTORS};"));
    let proxy = Proxy::launch_with(&network, shell, &config.to_toml());
    proxy.wait_ready();
    proxy.wait_up("app", &[origin.address()]);
    // Busy ones, so that none is closed to make room: heads that are not finished.
    let mut clients: Vec<Wire> = (0..DESCRIPTORS + 20)
        .map(|_| {
            let mut client = Wire::connect(proxy.address());
            client.send("GET / HTTP/1.1\r\nHo");
            client
        })
        .collect();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", proxy.container().pid())).unwrap().count();
    // Accepting takes the last one, or gives up and leaves it.
    eventually("hardly one is left", || open() >= DESCRIPTORS - 2);
    // All at once, so that they want more descriptors than the few that come free. Some were closed before their first
    // bytes were read, as connections at rest.
    clients.retain_mut(|client| client.try_send("st: a\r\nConnection: close\r\n\r\n").is_ok());
    let answers: Vec<Response> = clients.iter_mut().filter_map(|client| client.response().ok()).collect();
    let refused: Vec<&Response> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!refused.is_empty(), "{answers:?}");
    let text = "the proxy has no descriptor or port left for another connection";
    refused.iter().for_each(|answer| assert_says(answer, 503, "connection_limit_reached", text));
    drop(clients);
    eventually("it serves again", || proxy.try_get("/").is_ok_and(|response| response.status == 200));
    let exhausted = proxy.metric("evenkeel_connects_total", &["result=\"exhausted\""]);
    assert!(exhausted >= refused.len() as f64, "{exhausted} connects failed, {} were told", refused.len());
    let replica = &proxy.endpoints("app")[0];
    assert_eq!((&replica["usable"], &replica["failures"]), (&json!(true), &json!(0)), "the replica is not to blame");
}

// T10
#[test]
fn connection_refused_is_said_where_nobody_listens() {
    let bed = Bed::with(|c| without_probes(c).set("upstream.app.wait", "0s"), |h, w, _| serve(h, w));
    eventually("it is proven", || bed.proxy.endpoints("app")[0]["usable"] == true);
    bed.origin().refuse();
    let text = "no replica accepted a connection";
    assert_says(&bed.ask(POST), 502, "connection_refused", text);
    assert_counted(&bed, "connection_refused", text, 1);
    assert_eq!(bed.proxy.metric("evenkeel_connects_total", &["result=\"refused\""]), 1.0);
}

// T10
#[test]
fn connection_timeout_is_said_after_connect_timeout_and_not_before() {
    let network = Loopback::new();
    let mut deaf = DeafReplica::new(&network);
    let bed = Bed::around(network, vec![], |c| {
        without_probes(c).set("upstream.app.connect_timeout", "400ms").set("upstream.app.wait", "0s")
    });
    eventually("it is proven", || bed.proxy.endpoints("app").iter().any(|e| e["usable"] == true));
    deaf.turn_deaf();
    let start = Instant::now();
    let response = bed.ask(GET);
    let took = start.elapsed();
    let text = "no replica accepted a connection in time";
    assert_says(&response, 504, "connection_timeout", text);
    assert!((Duration::from_millis(400)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert_counted(&bed, "connection_timeout", text, 1);
    assert_eq!(bed.proxy.metric("evenkeel_connects_total", &["result=\"timed_out\""]), 1.0);
}

// T10
#[test]
fn connection_terminated_is_said_of_a_request_that_may_not_be_repeated() {
    let text = "the replica closed the connection without a response";
    assert_fails(|_, wire, _| wire.reset(), POST, 502, "connection_terminated", text);
}

// T10
#[test]
fn http_response_timeout_is_said_after_response_timeout() {
    let text = "the replica did not respond within response_timeout";
    assert_fails(|_, wire, _| drop(wire.some()), GET, 504, "http_response_timeout", text);
}

// T10
#[test]
fn http_protocol_error_says_what_was_wrong_with_the_response() {
    let fails = |response: &'static str, text: &str| {
        let script = move |_: &Head, wire: &mut Wire, _| {
            let _ = wire.try_send(response);
            let _ = wire.some();
        };
        assert_fails(script, GET, 502, "http_protocol_error", text);
    };
    fails("SSH-2.0-OpenSSH_9.2\r\n\r\n", "the replica's response is not HTTP");
    fails(
        "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "the replica switched protocols unasked",
    );
    fails(
        "HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "Content-Length is not one plain number",
    );
    fails(
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        "the replica's chunks are malformed, or its body has another length than its head says",
    );
}

// T10
#[test]
fn http_response_header_section_size_is_said_of_a_giant_head() {
    let script = |_: &Head, wire: &mut Wire, _| {
        let _ = wire.try_send(format!("HTTP/1.1 200 X\r\nX: {}\r\n\r\n", "x".repeat(5000)));
        let _ = wire.some();
    };
    assert_fails(
        script,
        GET,
        502,
        "http_response_header_section_size",
        "the response's head is longer than max_header",
    );
}

// T10
#[test]
fn http_response_incomplete_is_in_the_log_alone_as_the_client_sees_its_connection_break() {
    let bed = Bed::new(|_, wire, _| {
        wire.send("HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nhalf");
        wire.reset();
    });
    let mut wire = bed.client();
    wire.send(GET);
    let cut = wire.response().unwrap_err();
    assert_eq!(cut.head.unwrap().get("proxy-status"), None);
    assert_ne!(cut.ending, Ending::Silent);
    let text = "the replica broke off its response";
    let line = bed.proxy.wait_for_line(&format!("request failed: {text}"));
    assert!(line.contains("reason=\"http_response_incomplete\""), "{line}");
    assert_eq!(bed.proxy.metric("evenkeel_failed_requests_total", &["reason=\"http_response_incomplete\""]), 1.0);
    assert!(line.contains(&format!("endpoints=[{}]", bed.origin().address())), "{line}");
    assert_eq!(bed.proxy.status()["upstreams"][0]["failures"][0]["text"], text);
    eventually("it is counted", || bed.proxy.metric("evenkeel_requests_total", &["code_class=\"none\""]) == 1.0);
}

// T10
#[test]
fn with_close_only_what_concerns_the_request_itself_is_answered() {
    let close = |c: ProxyConfig| c.set("upstream.app.on_failure", "close");
    let bed = Bed::with(close, |_, wire, _| wire.reset());
    let mut wire = bed.client();
    wire.send(POST);
    let cut = wire.response().unwrap_err();
    assert_eq!((cut.head, cut.body.as_slice()), (None, b"".as_slice()));
    let text = "the replica closed the connection without a response";
    bed.proxy.wait_for_line(&format!("request failed: {text}"));
    assert_says(&bed.ask("GET / HTTP/1.1\r\n\r\n"), 400, "http_request_error", "not exactly one Host field");
}
