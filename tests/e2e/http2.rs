//! HTTP/2 on either side: what passes, where each stream goes, and what becomes of it when a replica or the proxy ends.

use crate::{Bed, serve, start};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use testbed::{
    App, Container, Http2, Ledger, Load, Loopback, Network, Plan, Protocol, Proxy, ProxyConfig, Signal, Wire,
    eventually, request, with_trailers,
};

/// A proxy whose replicas speak HTTP/2, all proven.
fn before_h2c(
    network: &Loopback,
    replicas: &[Box<dyn Container>],
    change: impl FnOnce(ProxyConfig) -> ProxyConfig,
) -> Proxy {
    let proxy = start(network, &change(ProxyConfig::new(network, "app").set("upstream.app.protocol", "h2c")));
    proxy.wait_up("app", &replicas.iter().map(|replica| replica.address()).collect::<Vec<_>>());
    proxy
}

/// Asks so much that the window of no replica holds streams back any more.
fn warm(client: &Http2) {
    for _ in 0..4 {
        client.ask_all((0..90).map(|_| request("GET", "/", &[], "")));
    }
}

// P18
#[test]
fn a_client_of_http_2_is_to_a_replica_of_http_1_like_one_of_http_1() {
    let bed = Bed::new(|head, wire, _| {
        let chunks = wire.bytes("5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n".len());
        if let Ok(chunks) = chunks {
            let told = String::from_utf8_lossy(&chunks).replace("\r\n", "|");
            wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
            let length = told.len() + head.raw.len();
            let raw = String::from_utf8_lossy(&head.raw);
            wire.send(format!(
                "HTTP/1.1 424 Failed\r\nConnection: x-hop\r\nX-Hop: 1\r\nSet-Cookie: a\r\nset-cookie: b\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{raw}{told}\r\n0\r\nX-Sum: 2\r\nHost: evil\r\n\r\n"
            ));
        }
    });
    let client = Http2::connect(bed.proxy.address());
    let trailers =
        [("x-sum".parse().unwrap(), "1".parse().unwrap()), ("content-length".parse().unwrap(), "9".parse().unwrap())];
    let fields = [("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("te", "trailers")];
    let asked = with_trailers(request("POST", "/a?b", &fields, "hello"), trailers.into_iter().collect());
    let answer = client.ask(asked).unwrap();
    assert_eq!(answer.status, 424);
    assert_eq!(
        String::from_utf8_lossy(&answer.body),
        "POST /a?b HTTP/1.1\r\nhost: app.test\r\ncookie: a=1; b=2\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\n\
         Connection: TE\r\nTE: trailers\r\n\r\n5|hello|0|x-sum: 1||"
    );
    let cookies: Vec<_> = answer.fields.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies, ["a", "b"]);
    assert_eq!((answer.fields.get("connection"), answer.fields.get("x-hop")), (None, None));
    assert_eq!((answer.trailers.get("x-sum").unwrap(), answer.trailers.get("host")), (&"2".parse().unwrap(), None));
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    let bed = Bed::new(|head, wire, _| {
        let _ = wire.try_send(match head.target() {
            "/204" => "HTTP/1.1 204 X\r\n\r\n",
            "/304" => "HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n",
            "/empty" => "HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\n",
        });
    });
    let client = Http2::connect(bed.proxy.address());
    for (method, target, status, length) in
        [("GET", "/204", 204, ""), ("GET", "/304", 304, "7"), ("GET", "/empty", 200, "0"), ("HEAD", "/", 200, "7")]
    {
        let answer = client.ask(request(method, target, &[], "")).unwrap();
        assert_eq!(
            (answer.status, answer.get("content-length"), &answer.body[..]),
            (status, length, &b""[..]),
            "{target}"
        );
    }
    // On the one connection, and with nobody having been asked twice.
    assert_eq!(bed.origin().requests(), 4);
}

#[test]
fn what_is_refused_is_refused_stream_by_stream() {
    let bed = Bed::with(|c| c.set("server.max_target", "64B").set("server.max_header", "1KiB"), |h, w, _| serve(h, w));
    let client = Http2::connect(bed.proxy.address());
    let long = format!("/{}", "a".repeat(100));
    let large = "a".repeat(2000);
    let answers = client.ask_all([
        request("GET", &long, &[], ""),
        request("GET", "/", &[("x-large", &large)], ""),
        request("GET", "/", &[("host", "other.test")], ""),
        request("GET", "/", &[], ""),
    ]);
    let status = |index: usize| answers[index].as_ref().map(|answer| answer.status);
    assert_eq!((status(0), status(1), status(3)), (Ok(414), Ok(431), Ok(200)), "{answers:?}");
    assert!(answers[2].as_ref().is_err_and(|error| error.contains("protocol error")), "two hosts: {answers:?}");
    let told = answers[0].as_ref().unwrap();
    assert_eq!(
        told.get("proxy-status"),
        "evenkeel; error=http_request_error; details=\"the request's target is longer than max_target\""
    );
    assert_eq!(bed.origin().requests(), 1);
}

/// Every request of a load through other protocols is answered, and its bodies both ways are its own.
fn a_load(client: Protocol, replicas: Protocol) {
    let network = Loopback::new();
    let ledger = Ledger::new();
    let all = network.scale("app", &ledger.kept_by(App::replica()), 2);
    let spoken = if replicas == Protocol::H2c { "h2c" } else { "http1" };
    let proxy = start(&network, &ProxyConfig::new(&network, "app").set("upstream.app.protocol", spoken));
    proxy.wait_up("app", &all.iter().map(|replica| replica.address()).collect::<Vec<_>>());
    let plan = Plan { posts: 0.3, puts: 0.2, protocol: client, ..Plan::new(proxy.address(), 300.0) };
    let load = Load::start(plan);
    load.wait_sent(900);
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}", report.lost(), proxy.output());
}

#[test]
fn clients_of_http_2_reach_replicas_of_http_1() {
    a_load(Protocol::H2c, Protocol::Http1);
}

#[test]
fn clients_of_http_1_reach_replicas_of_http_2() {
    a_load(Protocol::Http1, Protocol::H2c);
}

// P18
#[test]
fn the_streams_of_one_connection_go_to_all_replicas_over_few_connections() {
    const STREAMS: usize = 90;
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 3);
    let proxy = before_h2c(&network, &replicas, |c| c.set("server.threads", 1));
    let client = Http2::connect(proxy.address());
    warm(&client);
    let mut by_replica = BTreeMap::<String, usize>::new();
    for answer in client.ask_all((0..STREAMS).map(|_| request("GET", "/sleep/300", &[], ""))) {
        *by_replica.entry(answer.unwrap().get("x-replica").to_owned()).or_default() += 1;
    }
    assert!(by_replica.len() == 3 && by_replica.values().all(|count| *count >= 5), "{by_replica:?}");
    for replica in &replicas {
        let stats = Wire::connect(replica.address());
        let open = open_connections(stats);
        // One for the streams, that of the question, and perhaps one of a probe.
        assert!((2..=3).contains(&open), "{open} connections to {}", replica.name());
    }
}

fn open_connections(mut wire: Wire) -> u64 {
    wire.get("/stats");
    let stats: serde_json::Value = serde_json::from_str(&wire.response().unwrap().text()).unwrap();
    stats["connections"].as_u64().unwrap()
}

// P18
#[test]
fn a_rolling_deploy_of_graceful_replicas_costs_not_even_a_post() {
    let network = Loopback::new();
    let ledger = Ledger::new();
    let app = ledger.kept_by(App::replica().env("ON_TERM", "graceful").env("MEAN_MS", 5));
    let mut replicas = network.scale("app", &app, 3);
    let proxy = before_h2c(&network, &replicas, |c| c);
    let plan = Plan { posts: 1.0, protocol: Protocol::H2c, ..Plan::new(proxy.address(), 200.0) };
    let load = Load::start(plan);
    load.wait_sent(100);
    for old in 0..3 {
        let new = network.start("app", &app);
        new.wait_listening();
        let beside = replicas.iter().map(|replica| replica.address()).chain([new.address()]);
        proxy.wait_up("app", &beside.collect::<Vec<_>>());
        replicas[old].signal(Signal::SIGTERM);
        eventually("the old one has ended", || replicas[old].exited().is_some());
        replicas[old] = new;
        load.wait_sent(100);
    }
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}", report.lost(), proxy.output());
    let received = ledger.received();
    let missing_or_twice: Vec<_> =
        report.once().into_iter().filter(|id| received.get(id).is_none_or(|by| by.len() != 1)).collect();
    assert_eq!(missing_or_twice, [0_u64; 0], "received not just once");
}

// F42
#[test]
fn a_killed_replica_costs_no_get_and_who_sent_a_post_is_told() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 2);
    let proxy = before_h2c(&network, &replicas, |c| c.set("server.threads", 1));
    let client = Http2::connect(proxy.address());
    warm(&client);
    let in_flight = || proxy.endpoints("app").iter().map(|e| e["in_flight"].as_u64().unwrap_or(0)).collect::<Vec<_>>();
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("all are under way, some at each", || {
                let counts = in_flight();
                counts.iter().sum::<u64>() == 40 && counts.iter().all(|count| *count >= 4)
            });
            replicas[0].signal(Signal::SIGKILL);
        });
        // Long enough for a busy machine to get them all under way.
        client.ask_all((0..40).map(|n| request(if n % 2 == 0 { "GET" } else { "POST" }, "/sleep/3000", &[], "")))
    });
    let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status).collect();
    let (gets, posts): (Vec<_>, Vec<_>) = statuses.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    assert_eq!(gets, [200; 20]);
    let lost = posts.iter().filter(|status| **status == 502).count();
    assert!(lost > 0 && posts.iter().all(|status| [200, 502].contains(status)), "{posts:?}");
}

// F93
#[test]
fn a_stream_that_nobody_reads_holds_no_other_up() {
    for protocol in ["http1", "h2c"] {
        let network = Loopback::new();
        let replicas = network.scale("app", &App::replica(), 1);
        let proxy = start(
            &network,
            &ProxyConfig::new(&network, "app").set("upstream.app.protocol", protocol).set("server.threads", 1),
        );
        proxy.wait_up("app", &[replicas[0].address()]);
        let client = Http2::connect(proxy.address());
        warm(&client);
        let stuck: Vec<_> =
            (0..20).map(|_| client.begin(request("GET", "/bytes/50000000", &[], "")).unwrap()).collect();
        let began = Instant::now();
        for answer in client.ask_all((0..50).map(|_| request("POST", "/echo", &[], "x".repeat(20_000)))) {
            assert_eq!(answer.unwrap().body.len(), 20_000, "{protocol}");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{protocol}: {:?}", began.elapsed());
        drop(stuck);
        eventually("what nobody reads is given up", || proxy.endpoints("app")[0]["in_flight"].as_u64() == Some(0));
    }
}

#[test]
fn a_draining_proxy_finishes_its_streams_and_says_that_it_goes() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 1);
    let proxy = before_h2c(&network, &replicas, |c| c);
    let (client, resting) = (Http2::connect(proxy.address()), Http2::connect(proxy.address()));
    assert_eq!(resting.ask(request("GET", "/", &[], "")).unwrap().status, 200);
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("they are under way", || proxy.endpoints("app")[0]["in_flight"].as_u64() == Some(10));
            proxy.signal(Signal::SIGTERM);
        });
        client.ask_all((0..10).map(|_| request("POST", "/sleep/1500", &[], "x")))
    });
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|a| a.status == 200)), "{answers:?}");
    eventually("both connections take no more", || client.is_closed() && resting.is_closed());
    eventually("the proxy has ended", || proxy.container().exited() == Some(0));
}

// F95
#[test]
fn a_replica_that_does_not_speak_http_2_is_told_with_its_remedy() {
    let network = Loopback::new();
    let _old = network.origin("app", |head, wire, _| serve(head, wire));
    let config = ProxyConfig::new(&network, "app").set("upstream.app.protocol", "h2c");
    let proxy = Proxy::launch(&network, env!("CARGO_BIN_EXE_evenkeel"), &config.set("upstream.app.probe.path", "/"));
    let line = proxy.wait_for_line("not HTTP/2");
    assert!(line.contains("remove protocol = \"h2c\""), "{line}");
}
