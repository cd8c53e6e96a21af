//! What an operator reads: the log in both formats and at every level, the access log, and `evenkeel status --watch`.

use crate::{Bed, GET, command, serve, start};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv6Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{App, Loopback, Network, Origin, ProxyConfig, Signal, Wire, eventually, eventually_some};

on_every_testbed! {
    each_replica_is_shown_with_its_containers_name
}

const SECRET: &str = "GET /reset?token=s3cret HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// A proxy whose only replica answers nothing but garbage, so that each request is a line in the log.
fn failing(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Bed {
    Bed::with(change, |_, wire, _| {
        let _ = wire.try_send("this is no HTTP\r\n\r\n");
        wire.close();
    })
}

/// The target of the last failed request, as `/status` has it.
fn last_target(bed: &Bed) -> Value {
    let failures = bed.proxy.status()["upstreams"][0]["failures"].clone();
    failures.as_array().and_then(|all| all.last()).expect("a failed request")["target"].clone()
}

// D21, P14
#[test]
fn a_querys_secrets_stand_neither_in_the_log_nor_in_the_status() {
    let bed = failing(|c| c.env("RUST_LOG", "trace"));
    assert_eq!(bed.ask(SECRET).status, 502);
    let line = bed.proxy.wait_for_line("request failed");
    assert!(line.contains("target=\"/reset?…\""), "{line}");
    assert_eq!(last_target(&bed), "/reset?…");
    let table = String::from_utf8(command(&bed.proxy, &["status"]).output().unwrap().stdout).unwrap();
    assert!(table.contains("GET /reset?… failed after "), "{table}");
    for said in [bed.proxy.output(), bed.proxy.status().to_string(), bed.proxy.metrics(), table] {
        assert!(!said.contains("s3cret"), "{said}");
    }
}

// D21
#[test]
fn with_log_query_the_query_is_shown() {
    let bed = failing(|c| c.set("server.log_query", true));
    assert_eq!(bed.ask(SECRET).status, 502);
    let line = bed.proxy.wait_for_line("request failed");
    assert!(line.contains("target=\"/reset?token=s3cret\""), "{line}");
    assert_eq!(last_target(&bed), "/reset?token=s3cret");
}

// U12
#[test]
fn a_failed_request_is_logged_with_the_time_that_it_took() {
    let bed = Bed::with(
        |c| c.set("upstream.app.response_timeout", "300ms").env("LOG_FORMAT", "json"),
        |_, wire, _| drop(wire.some()),
    );
    assert_eq!(bed.ask(GET).status, 504);
    let line: Value = serde_json::from_str(&bed.proxy.wait_for_line("request failed")).unwrap();
    let took = humantime_millis(line["took"].as_str().unwrap());
    assert!((300.0..5000.0).contains(&took), "{line}");
    let failure = bed.proxy.status()["upstreams"][0]["failures"][0].clone();
    assert!((0.3..5.0).contains(&failure["took_seconds"].as_f64().unwrap()), "{failure}");
}

/// Milliseconds of `302.1ms` or `1.2s`.
fn humantime_millis(text: &str) -> f64 {
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').unwrap_or_else(|| panic!("{text:?}")), 1000.0),
    };
    number.parse::<f64>().unwrap_or_else(|_| panic!("{text:?}")) * factor
}

// U12
#[test]
fn debug_says_a_line_for_each_request_and_nothing_of_the_dns_library() {
    let bed = Bed::with(|c| c.env("RUST_LOG", "debug").env("LOG_FORMAT", "json"), |h, w, _| serve(h, w));
    let mut client = bed.client();
    for n in 0..3 {
        client.get(&format!("/page/{n}?q=s3cret"));
        assert_eq!(client.response().unwrap().status, 200);
    }
    client.send("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().unwrap().status, 200);
    bed.proxy.wait_for_line("/form");
    let lines: Vec<Value> = bed.proxy.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<&Value> = lines.iter().filter(|line| line["message"] == "request").collect();
    let seen: Vec<_> =
        requests.iter().map(|l| (l["method"].as_str().unwrap(), l["target"].as_str().unwrap())).collect();
    assert_eq!(seen, [("GET", "/page/0?…"), ("GET", "/page/1?…"), ("GET", "/page/2?…"), ("POST", "/form")]);
    for line in requests {
        assert_eq!((line["level"].as_str(), line["upstream"].as_str()), (Some("DEBUG"), Some("app")), "{line}");
        assert_eq!((line["status"].as_u64(), line["attempts"].as_u64()), (Some(200), Some(1)), "{line}");
        assert_eq!(line["endpoint"], bed.origin().address().to_string(), "{line}");
        assert!(line["took"].is_string() && line["client"].is_string(), "{line}");
    }
    // What the proxy itself says of DNS and probes at this level, and no dump of a DNS message.
    eventually("DNS is spoken of", || !bed.proxy.lines("DNS answered").is_empty());
    for dumped in ["hickory", "rdata", "querying", "message_type", "name_server"] {
        assert_eq!(bed.proxy.lines(dumped), Vec::<String>::new(), "{dumped}");
    }
}

// U12
#[test]
fn the_dns_library_is_heard_where_it_is_named() {
    let bed = Bed::with(|c| c.env("RUST_LOG", "info,hickory_resolver=trace,hickory_net=trace"), |h, w, _| serve(h, w));
    bed.proxy.wait_for_line("DEBUG");
    assert_eq!(bed.proxy.lines("DNS answered"), Vec::<String>::new(), "the proxy's own stay at info");
}

// T10
#[test]
fn the_log_in_json_is_an_object_a_line_with_what_a_machine_looks_for() {
    let bed = failing(|c| c.env("LOG_FORMAT", "json"));
    let request =
        "GET /x HTTP/1.1\r\nHost: a\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    assert_eq!(bed.ask(request).status, 502);
    bed.proxy.wait_for_line("request failed");
    let lines: Vec<Value> = bed.proxy.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |message: &str| lines.iter().find(|l| l["message"].as_str().is_some_and(|m| m.starts_with(message)));
    let listening = find("listening").expect("a line of the start");
    assert_eq!(listening["listen"], bed.proxy.address().to_string());
    let up = find("up: probe passed").expect("a change of state");
    assert_eq!((up["level"].as_str(), up["upstream"].as_str()), (Some("INFO"), Some("app")));
    assert_eq!(up["endpoint"], bed.origin().address().to_string());
    let failed = find("request failed").expect("a failed request");
    assert_eq!((failed["level"].as_str(), failed["reason"].as_str()), (Some("WARN"), Some("http_protocol_error")));
    assert_eq!((failed["method"].as_str(), failed["target"].as_str()), (Some("GET"), Some("/x")));
    assert_eq!(failed["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{lines:#?}");
}

// T10
#[test]
fn status_watch_draws_again_each_second_and_outlives_the_proxy() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let mut child = command(&bed.proxy, &["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut wait_for = |what: &str| lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what:?}"));
    let first = wait_for("1 of 1 replica usable");
    assert!(first.starts_with("app = app:"), "{first}");
    bed.origin().refuse();
    wait_for("0 of 1 replica usable");
    let Bed { proxy, origins: _origins, network: _network } = bed;
    let admin = proxy.admin().to_string();
    drop(proxy);
    wait_for(&format!("no evenkeel listens on {admin}"));
    assert_eq!(child.try_wait().unwrap(), None, "it waits for the proxy to be back");
    child.kill().unwrap();
    child.wait().unwrap();
}

// T10
#[test]
fn status_without_a_proxy_says_so_and_fails() {
    let network = Loopback::new();
    let proxy = start(&network, &ProxyConfig::new(&network, "app"));
    let nobody = network.free_address().to_string();
    let said = command(&proxy, &["status"]).env("HOST", &nobody).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    let error = String::from_utf8(said.stderr).unwrap();
    assert!(error.contains(&format!("no evenkeel listens on {nobody}:")), "{error}");
}

// T10, U12
#[test]
fn clients_and_replicas_may_have_ipv6_addresses_which_are_shown_in_brackets() {
    let network = Loopback::new();
    let origin = Origin::listen((Ipv6Addr::LOCALHOST, 0).into(), |h, w, _| serve(h, w)).unwrap();
    let replica = origin.address();
    let free = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let config = ProxyConfig::new(&network, "app")
        .set("server.listen", free.to_string())
        .env("PORT", &free.port().to_string())
        .set("upstream.app.address", replica.to_string())
        .set("upstream.app.forwarded", "append");
    let proxy = start(&network, &config);
    assert!(proxy.wait_for_line("listening").contains(&format!("app={replica}")), "{}", proxy.output());
    let mut wire = Wire::connect(free);
    wire.send(GET);
    assert_eq!(wire.response().unwrap().status, 200);
    let head = &origin.heads()[0];
    assert_eq!(head.get("x-forwarded-for"), Some("::1"));
    assert_eq!(head.get("forwarded"), Some("for=\"[::1]\";proto=http;host=\"app.test\""), "{head:?}");
    let status = proxy.status();
    assert_eq!(status["listen"], free.to_string());
    assert_eq!(status["upstreams"][0]["address"], replica.to_string());
    assert_eq!(status["upstreams"][0]["endpoints"][0]["address"], replica.to_string());
    assert_eq!(proxy.metric("evenkeel_endpoint_requests_total", &[&format!("endpoint=\"{replica}\"")]), 1.0);
    let table = String::from_utf8(command(&proxy, &["status"]).output().unwrap().stdout).unwrap();
    assert!(table.contains(&format!("app = {replica} · 1 of 1 replica usable")), "{table}");
}

/// The lines about requests, as JSON: all of those that are over, as a later line is there.
fn requests(bed: &Bed) -> Vec<Value> {
    eventually("none is under way", || bed.proxy.status()["requests"] == 0);
    let reloads = bed.proxy.lines("configuration reloaded").len();
    bed.proxy.signal(Signal::SIGHUP);
    eventually("a later line", || bed.proxy.lines("configuration reloaded").len() > reloads);
    let lines = bed.proxy.lines("\"request\"");
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["message"] == "request")
        .collect()
}

fn logging(access_log: &str) -> impl FnOnce(ProxyConfig) -> ProxyConfig {
    move |c| c.set("server.access_log", access_log).env("LOG_FORMAT", "json")
}

// P22
#[test]
fn with_an_access_log_each_request_has_a_line_with_its_attempts() {
    let broken = AtomicBool::new(false);
    let bed = Bed::with(logging("all"), move |head, wire, _| {
        // Once, its connection breaks.
        if head.target().starts_with("/twice") && !broken.swap(true, Ordering::SeqCst) {
            wire.close();
        } else {
            serve(head, wire);
        }
    });
    let asked = "GET /twice?token=s3cret HTTP/1.1\r\nHost: app.test\r\nX-Request-Id: r7\r\n\r\n";
    let mut wire = bed.client();
    for request in [GET, asked, "GET /none HTTP/1.1\r\nHost: a b\r\n\r\n"] {
        wire.send(request);
        let _ = wire.response();
    }
    bed.proxy.wait_for_line("request refused");
    let lines = requests(&bed);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let address = bed.origin().address().to_string();
    for line in &lines {
        assert_eq!(line["level"], "INFO");
        assert_eq!((&line["upstream"], &line["method"], &line["status"]), (&"app".into(), &"GET".into(), &200.into()));
        assert_eq!(line["endpoint"], address.as_str());
        assert!(line["client"].as_str().unwrap().starts_with("127."), "{line}");
    }
    assert_eq!((&lines[0]["target"], &lines[1]["target"]), (&"/".into(), &"/twice?…".into()));
    assert_eq!((&lines[0]["attempts"], &lines[1]["attempts"]), (&1.into(), &2.into()));
    assert_eq!((&lines[1]["id"], &lines[1]["failed"]), (&"r7".into(), &format!("[{address}]").into()));
    assert!(lines[0].get("failed").is_none(), "{}", lines[0]);
    assert!(!bed.proxy.output().contains("s3cret"));
}

// P22
#[test]
fn only_slow_requests_or_a_share_are_logged_where_the_file_says_so() {
    let slow = |head: &testbed::Head, wire: &mut Wire, _: usize| {
        if head.target() == "/slow" {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        serve(head, wire);
    };
    let bed = Bed::with(logging("300ms"), slow);
    let mut wire = bed.client();
    for target in ["/", "/slow", "/"] {
        wire.get(target);
        assert_eq!(wire.response().unwrap().status, 200);
    }
    let lines = requests(&bed);
    assert!(lines.len() == 1 && lines[0]["target"] == "/slow", "{lines:?}");
    let bed = Bed::with(logging("10%"), slow);
    let mut wire = bed.client();
    for _ in 0..1000 {
        wire.get("/");
        assert_eq!(wire.response().unwrap().status, 200);
    }
    // A hundred, standard deviation 9.5; six of them.
    let logged = requests(&bed).len();
    assert!((43..158).contains(&logged), "{logged} of 1000");
    let bed = Bed::with(|c| c.env("LOG_FORMAT", "json"), slow);
    assert_eq!(bed.ask(GET).status, 200);
    assert!(requests(&bed).is_empty(), "by default there is none");
}

// P22
#[test]
fn a_log_that_nobody_reads_holds_no_request_up() {
    let network = Loopback::new();
    let origin = network.origin("app", |head, wire, _| serve(head, wire));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let listen = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
    let text = format!(
        "[server]\nlisten = \"{listen}\"\nadmin = \"off\"\naccess_log = \"all\"\n[upstream.app]\naddress = \"{}\"\n",
        origin.address()
    );
    std::fs::write(&file, text).unwrap();
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .env("EVENKEEL_CONFIG", &file)
        .env_remove("PORT")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut wire = eventually_some("it listens", || Wire::try_connect(listen).ok());
    // The pipe holds some two hundred lines.
    for _ in 0..2000 {
        wire.get("/");
        assert_eq!(wire.response().unwrap().status, 200);
    }
    let mut said = String::new();
    let _ = proxy.kill();
    proxy.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let _ = proxy.wait();
    let lines = said.lines().filter(|line| line.contains(" request ")).count();
    assert!((1..2000).contains(&lines), "{lines} lines were in the pipe: it was to be full");
}

fn each_replica_is_shown_with_its_containers_name(network: impl Network) {
    let replicas = network.scale("app", &App::replica(), 2);
    let bed = Bed::around(network, vec![], |c| c);
    let named = |endpoint: &Value| {
        let name = endpoint["name"].as_str()?;
        replicas.iter().find(|r| endpoint["address"] == r.address().to_string() && name.starts_with(&r.id()))
    };
    eventually("both have their names", || {
        let endpoints = bed.proxy.endpoints("app");
        endpoints.len() == 2 && endpoints.iter().all(|endpoint| named(endpoint).is_some())
    });
    let table = String::from_utf8(command(&bed.proxy, &["status"]).output().unwrap().stdout).unwrap();
    for endpoint in bed.proxy.endpoints("app") {
        let name = endpoint["name"].as_str().unwrap();
        assert!(table.contains(&format!("{name}: probe passed")), "{table}");
    }
}
