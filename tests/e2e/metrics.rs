//! Every metric of `/metrics`, held against what clients, replicas, the name server and the kernel know.

use crate::{Bed, gate, start};
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::{Fault, Head, Loopback, ProxyConfig, Signal, Wire, eventually};

/// A page, and which of its families a test has compared with what it knows.
struct Page<'a> {
    text: String,
    compared: &'a RefCell<BTreeSet<String>>,
}

impl Page<'_> {
    /// The sum of the samples with these labels.
    fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        self.compared.borrow_mut().insert(family.to_owned());
        testbed::sum(&self.text, name, labels)
    }

    #[track_caller]
    fn is(&self, name: &str, labels: &[&str], expected: impl Into<f64>) {
        assert_eq!(self.value(name, labels), expected.into(), "{name}{labels:?}\n{}", self.text);
    }

    #[track_caller]
    fn is_within(&self, name: &str, labels: &[&str], bounds: std::ops::RangeInclusive<f64>) {
        let value = self.value(name, labels);
        assert!(bounds.contains(&value), "{name}{labels:?} is {value}, not within {bounds:?}\n{}", self.text);
    }

    fn families(&self) -> BTreeSet<String> {
        let heads = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        heads.map(|head| head.split(' ').next().unwrap().to_owned()).collect()
    }
}

/// The clients of a test: how many connections they made, and how long their requests took.
struct Clients {
    proxy: SocketAddr,
    connections: RefCell<Vec<Wire>>,
    made: RefCell<u32>,
    took: RefCell<Vec<Duration>>,
}

impl Clients {
    fn connect(&self) -> Wire {
        *self.made.borrow_mut() += 1;
        Wire::connect(self.proxy)
    }

    /// The status of the answer, 0 if it is cut or there is none.
    fn ask(&self, request: &str) -> u16 {
        let start = Instant::now();
        let mut wire = self.connect();
        wire.send(request);
        let status = wire.response().map_or(0, |response| response.status);
        self.took.borrow_mut().push(start.elapsed());
        status
    }

    fn get(&self, target: &str) -> u16 {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    }

    /// Sends it over a connection that stays open.
    fn send(&self, request: &str) {
        let mut wire = self.connect();
        wire.send(request);
        self.connections.borrow_mut().push(wire);
    }
}

fn answer(wire: &mut Wire, status: u16) {
    let _ = wire.try_send(format!("HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\nok\n"));
}

/// What the replica does, by the request's path.
fn script(gate: impl Fn() + Send + Sync + 'static) -> impl Fn(&Head, &mut Wire, usize) + Send + Sync + 'static {
    let died = AtomicBool::new(false);
    move |head, wire, _| {
        let _ = wire.body(head);
        match head.target() {
            "/app/moved" => answer(wire, 301),
            "/app/missing" => answer(wire, 404),
            "/app/broken" => answer(wire, 500),
            "/app/slow" => {
                std::thread::sleep(Duration::from_millis(300));
                answer(wire, 200);
            }
            "/app/hold" => {
                gate();
                answer(wire, 200);
            }
            "/app/socket" => wire.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            "/app/garbage" => {
                let _ = wire.try_send("HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
                wire.close();
            }
            "/app/cut" => {
                wire.send("HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nhalf");
                wire.reset();
            }
            "/app/dies" => wire.reset(),
            "/app/dies-once" if !died.swap(true, Ordering::Relaxed) => wire.reset(),
            _ => answer(wire, 200),
        }
    }
}

// T10
#[test]
fn each_metric_is_what_clients_replicas_dns_and_kernel_know() {
    let network = Loopback::new();
    let (go, gate) = gate();
    let script = script(gate);
    let peers = Arc::new(Mutex::new(HashSet::new()));
    let seen = peers.clone();
    let origin = network.origin("app", move |head, wire, n| {
        seen.lock().unwrap().insert(wire.stream().and_then(|stream| stream.peer_addr().ok()));
        script(head, wire, n);
    });
    let config = ProxyConfig::new(&network, "app")
        .upstream(&network, "empty")
        .set("server.max_connections", 77)
        .set("upstream.app.idle_timeout", "60s")
        .set("upstream.app.response_timeout", "60s")
        .set("upstream.empty.wait", "60s")
        .route(json!({"upstream": "app", "path_prefix": "/app"}))
        .route(json!({"upstream": "empty", "path_prefix": "/empty"}));
    let before_start = Instant::now();
    let proxy = start(&network, &config);
    let after_start = Instant::now();
    proxy.wait_up("app", &[origin.address()]);

    // Another replica comes and goes.
    let visitor = network.origin("app", |_, wire, _| answer(wire, 200));
    proxy.wait_up("app", &[origin.address(), visitor.address()]);
    drop(visitor);
    eventually("it is forgotten", || proxy.endpoints("app").len() == 1);
    // The name server fails for a while, and the file is bad for a while.
    network.dns().fail(Fault::ServFail);
    let of_app = |text: &str| proxy.lines(text).iter().filter(|line| line.contains("upstream=\"app\"")).count();
    eventually("the name does not resolve", || of_app("name does not resolve: ") == 1);
    network.dns().heal();
    eventually("the name resolves again", || of_app("name resolves ") == 2);
    let reload = "evenkeel_config_last_reload_successful";
    assert_eq!(proxy.metric(reload, &[]), 1.0, "there was none yet");
    proxy.write_config("[server]\nnonsense = 1\n");
    proxy.wait_for_line("configuration not reloaded");
    eventually("the metric says so", || proxy.metric(reload, &[]) == 0.0);
    proxy.write_config(&config.to_toml());
    proxy.wait_for_line("configuration reloaded");

    // A counted load.
    let clients = Clients {
        proxy: proxy.address(),
        connections: RefCell::default(),
        made: RefCell::default(),
        took: RefCell::default(),
    };
    let cpu_before = testbed::cpu(proxy.container().pid());
    for _ in 0..20 {
        assert_eq!(clients.get("/app/ok"), 200);
    }
    assert_eq!([clients.get("/app/slow"), clients.get("/app/dies-once")], [200, 200]);
    assert_eq!([clients.get("/app/moved"), clients.get("/app/missing"), clients.get("/app/missing")], [301, 404, 404]);
    assert_eq!([clients.get("/app/broken"), clients.get("/app/broken"), clients.get("/app/garbage")], [500, 500, 502]);
    assert_eq!(clients.ask("POST /app/dies HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"), 502);
    assert_eq!(clients.get("/app/cut"), 0);
    let (one, two, three, four, five) = (20 + 2, 1, 2, 2 + 2, 1);
    // What the proxy refuses itself belongs to no upstream.
    let counted = clients.took.borrow().len();
    assert_eq!([clients.get("/elsewhere"), clients.get("/")], [404, 404]);
    assert_eq!(clients.ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), 405);
    assert_eq!(clients.ask("GET /app/ok HTTP/1.1\r\n\r\n"), 400);
    clients.took.borrow_mut().truncate(counted);
    // What is under way: a request at the replica, one that waits for a replica, a tunnel.
    clients.send("GET /app/socket HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    clients.connections.borrow_mut()[0].response().expect("the tunnel is open");
    clients.send("GET /app/hold HTTP/1.1\r\nHost: a\r\n\r\n");
    let held = Instant::now();
    clients.send("GET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
    let asked = 20 + 2 + 3 + 3 + 1 + 1 + 1 + 2;
    eventually("all of it is there", || {
        let status = proxy.status();
        let replica = &status["upstreams"][0]["endpoints"][0];
        // In use: the request's and the tunnel's.
        let idle = origin.open().saturating_sub(2) as u64;
        origin.requests() == asked
            && status["upstreams"][1]["waiting"] == 1
            && status["connections"] == 3
            && replica["idle_connections"].as_u64() == Some(idle)
    });

    let compared = RefCell::default();
    let (app, empty) = ("upstream=\"app\"", "upstream=\"empty\"");
    let questions = |name: &str| network.dns().questions(name) as f64;
    let (known_to_app, known_to_empty) = (questions("app"), questions("empty"));
    let page = Page { text: proxy.metrics(), compared: &compared };
    let pid = proxy.container().pid();

    page.is("evenkeel_build_info", &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))], 1);
    let up = after_start.elapsed().as_secs_f64()..=before_start.elapsed().as_secs_f64();
    // It began before it was ready.
    page.is_within("evenkeel_uptime_seconds", &[], (up.start() - 0.5)..=*up.end());
    page.is("evenkeel_ready", &[], 1);
    page.is("evenkeel_draining", &[], 0);
    page.is("evenkeel_connections", &[], 3);
    page.is("evenkeel_max_connections", &[], 77);
    page.is("evenkeel_connections_total", &[], *clients.made.borrow());
    page.is("evenkeel_active_requests", &[], 2);
    let refused = "evenkeel_refused_requests_total";
    page.is(refused, &["reason=\"destination_not_found\""], 2);
    page.is(refused, &["reason=\"http_request_denied\""], 1);
    page.is(refused, &["reason=\"http_request_error\""], 1);
    page.is(refused, &[], 4);
    page.is("evenkeel_config_reloads_total", &["result=\"ok\""], proxy.lines("configuration reloaded").len() as u32);
    page.is(
        "evenkeel_config_reloads_total",
        &["result=\"failed\""],
        proxy.lines("configuration not reloaded").len() as u32,
    );
    page.is("evenkeel_config_last_reload_successful", &[], 1);

    let classes = [("none", five), ("1xx", 1), ("2xx", one), ("3xx", two), ("4xx", three), ("5xx", four)];
    for (class, count) in classes {
        page.is("evenkeel_requests_total", &[app, &format!("code_class=\"{class}\"")], count);
    }
    let ended: i32 = classes.iter().map(|(_, count)| count).sum();
    page.is("evenkeel_requests_total", &[], ended);
    let duration = "evenkeel_request_duration_seconds";
    page.is(&format!("{duration}_count"), &[app], ended);
    page.is(&format!("{duration}_bucket"), &[app, "le=\"+Inf\""], ended);
    let took = clients.took.borrow();
    let longer = |limit: f64| took.iter().filter(|time| time.as_secs_f64() > limit).count() as i32;
    // What a client saw end in time did; the tunnel took as long as its head.
    page.is_within(
        &format!("{duration}_bucket"),
        &[app, "le=\"0.25\""],
        f64::from(ended - 1 - longer(0.25))..=f64::from(ended - 1),
    );
    let measured: f64 = took.iter().map(Duration::as_secs_f64).sum();
    page.is_within(&format!("{duration}_sum"), &[app], 0.3..=measured + 1.0);
    let failed = "evenkeel_failed_requests_total";
    page.is(failed, &[app, "reason=\"http_protocol_error\""], 1);
    page.is(failed, &[app, "reason=\"connection_terminated\""], 1);
    page.is(failed, &[app, "reason=\"http_response_incomplete\""], 1);
    page.is(failed, &[], 3);
    page.is("evenkeel_retries_total", &[app, "reason=\"connection_terminated\""], 1);
    page.is("evenkeel_retries_total", &[], 1);
    page.is("evenkeel_connects_total", &[app, "result=\"connected\""], peers.lock().unwrap().len() as u32);
    page.is("evenkeel_connects_total", &[], peers.lock().unwrap().len() as u32);
    let logged = |text: &str| proxy.lines(text).len() as u32;
    for (event, text, at_least) in [
        ("joined", " joined ", 2),
        ("up", " up: ", 2),
        ("down", " down: ", 0),
        ("suspect", " suspect: ", 0),
        ("cleared", " cleared of suspicion ", 0),
        ("draining", " draining: ", 1),
        ("name_failing", "name does not resolve: ", 1),
        ("name_resolved", "name resolves ", 1),
    ] {
        let count = page.value("evenkeel_events_total", &[&format!("event=\"{event}\"")]);
        assert_eq!(count, f64::from(logged(text)), "{event}\n{}\n{}", page.text, proxy.output());
        assert!(count >= f64::from(at_least), "{event}\n{}", page.text);
    }
    page.is("evenkeel_events_total", &[app, "event=\"left\""], 1);
    let answers = |upstream, asked: f64| {
        let total = page.value("evenkeel_dns_answers_total", &[upstream]);
        // One may be under way, and a question that fails is asked again before it counts as failed.
        assert!(
            total >= asked / 4.0 && total <= network.dns().questions("app").max(1) as f64,
            "{total}\n{}",
            page.text
        );
    };
    answers(app, known_to_app);
    answers(empty, known_to_empty);
    page.is_within("evenkeel_dns_answers_total", &[app, "result=\"failed\""], 1.0..=known_to_app);
    page.is("evenkeel_dns_answers_total", &[app, "result=\"absent\""], 0);
    page.is("evenkeel_dns_answers_total", &[empty, "result=\"addresses\""], 0);
    page.is_within("evenkeel_dns_answer_age_seconds", &[app], 0.0..=1.0);
    page.is("evenkeel_waiting_requests", &[app], 0);
    page.is("evenkeel_waiting_requests", &[empty], 1);
    page.is("evenkeel_outage_seconds", &[app], 0);
    page.is_within("evenkeel_outage_seconds", &[empty], (up.start() - 0.5)..=*up.end());
    page.is("evenkeel_upstream_healthy", &[app], 1);
    page.is("evenkeel_upstream_healthy", &[empty], 0);
    page.is("evenkeel_upstream_paused", &[empty], 0);
    page.is("evenkeel_upstream_no_answer_seconds", &[], 0);

    let replica = format!("endpoint=\"{}\"", origin.address());
    let at = [app, replica.as_str()];
    page.is("evenkeel_endpoint_usable", &at, 1);
    page.is("evenkeel_endpoint_draining", &at, 0);
    page.is("evenkeel_endpoint_drained", &at, 0);
    page.is("evenkeel_endpoint_no_answer_seconds", &at, 0);
    page.is("evenkeel_endpoint_in_flight", &at, 1);
    page.is("evenkeel_endpoint_streams", &at, 1);
    page.is("evenkeel_endpoint_idle_connections", &at, origin.open() as u32 - 2);
    page.is("evenkeel_endpoint_weight", &at, 1);
    let slowest = took.iter().max().unwrap().as_secs_f64();
    page.is_within("evenkeel_endpoint_first_byte_seconds", &at, 1e-5..=slowest);
    page.is("evenkeel_endpoint_requests_total", &at, origin.requests() as u32);
    // Garbage, a cut response, a POST and the first attempt of a GET that were never answered.
    page.is("evenkeel_endpoint_failures_total", &at, 4);
    page.is("evenkeel_endpoint_server_errors_total", &at, 2);

    let resident = testbed::resident(pid) as f64;
    page.is_within("process_resident_memory_bytes", &[], resident * 0.7..=resident * 1.3);
    let cpu = cpu_before.as_secs_f64()..=testbed::cpu(pid).as_secs_f64() + 0.02;
    page.is_within("process_cpu_seconds_total", &[], cpu);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    // The scrape's own connection, a probe and a question to the name server come and go.
    page.is_within("process_open_fds", &[], open - 4.0..=open + 4.0);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    page.is("process_max_fds", &[], line.split_whitespace().next().unwrap().parse::<u32>().unwrap());

    // The name server says nothing: its last word gets older.
    network.dns().fail(Fault::Silence);
    let silence = Instant::now();
    eventually("that is seen", || proxy.metric("evenkeel_dns_answer_age_seconds", &[app]) > 1.5);
    assert!(silence.elapsed() > Duration::from_secs(1), "{:?}", silence.elapsed());
    network.dns().heal();

    // It ends: the held request is answered, the one that waits is given up by its client.
    clients.connections.borrow_mut().pop();
    eventually("nobody waits", || proxy.metric("evenkeel_waiting_requests", &[]) == 0.0);
    proxy.signal(Signal::SIGTERM);
    eventually("it drains", || proxy.metric("evenkeel_ready", &[]) == 0.0);
    let page = Page { text: proxy.metrics(), compared: &compared };
    page.is("evenkeel_ready", &[], 0);
    page.is("evenkeel_draining", &[], 1);
    page.is("evenkeel_active_requests", &[], 1);
    page.is("evenkeel_requests_total", &[empty, "code_class=\"none\""], 1);
    let held = held.elapsed().as_secs_f64();
    go();
    let mut hold = clients.connections.borrow_mut().pop().unwrap();
    assert_eq!(hold.response().unwrap().status, 200);
    eventually("it is counted", || {
        let page = Page { text: proxy.metrics(), compared: &compared };
        page.value("evenkeel_requests_total", &[app]) == f64::from(ended + 1)
            && page.value(&format!("{duration}_sum"), &[app]) >= held
    });

    let missing: Vec<_> = page.families().difference(&compared.borrow()).cloned().collect();
    assert!(missing.is_empty(), "nothing here says what these should be: {missing:?}");
}

// T10, D23
#[test]
fn the_weight_of_a_slow_replica_is_the_one_that_its_help_speaks_of() {
    let network = Loopback::new();
    let replica = |time| {
        network.origin("app", move |_, wire, _| {
            std::thread::sleep(Duration::from_millis(time));
            answer(wire, 200);
        })
    };
    let origins = vec![replica(10), replica(100)];
    let bed = Bed::around(network, origins, |c| c);
    let of = |page: &str, name: &str, origin: usize| {
        testbed::sum(page, name, &[&format!("endpoint=\"{}\"", bed.origins[origin].address())])
    };
    let page = testbed::eventually_some("the slow one weighs more", || {
        for _ in 0..10 {
            bed.proxy.get("/");
        }
        let page = bed.proxy.metrics();
        (of(&page, "evenkeel_endpoint_weight", 1) > 1.0).then_some(page)
    });
    assert!(page.contains(
        "# HELP evenkeel_endpoint_weight The factor on its requests in flight in the pick: 1; (r / 1.5) squared"
    ));
    assert_eq!(of(&page, "evenkeel_endpoint_weight", 0), 1.0, "{page}");
    let mean = |origin| of(&page, "evenkeel_endpoint_first_byte_seconds", origin);
    assert!((0.01..0.1).contains(&mean(0)) && mean(1) >= 0.1, "{page}");
    let expected = (mean(1) / mean(0) / 1.5_f64).powi(2);
    let weight = of(&page, "evenkeel_endpoint_weight", 1);
    // Times went on being learned between the weight's publication and the page.
    assert!((expected * 0.8..expected * 1.2).contains(&weight), "{weight} is not about {expected}\n{page}");
}
