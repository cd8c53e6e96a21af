//! gRPC: what the proxy itself says to a call, its deadline, its health, and a foreign stack at both ends.

use crate::start;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use testbed::{App, Container, Http2, Loopback, Network, Process, Proxy, ProxyConfig, eventually, request, unending};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

// P19
#[test]
fn a_call_that_no_replica_answers_gets_a_status_of_grpc() {
    let network = Loopback::new();
    network.nobody("app");
    let config = ProxyConfig::new(&network, "app").set("upstream.app.protocol", "h2c").set("upstream.app.wait", "0s");
    let proxy = Proxy::launch(&network, env!("CARGO_BIN_EXE_evenkeel"), &config);
    proxy.wait_for_line("joined");
    let client = Http2::connect(proxy.address());
    let answer = client.ask(request("POST", "/shop.Orders/Get", &[GRPC, ("te", "trailers")], "x")).unwrap();
    assert_eq!((answer.status, answer.get("grpc-status")), (200, "14"), "{answer:?}");
    assert_eq!(answer.get("content-type"), "application/grpc");
    assert!(answer.get("grpc-message").contains("no replica"), "{answer:?}");
    assert!(answer.get("proxy-status").starts_with("evenkeel; error="), "{answer:?}");
    // What is no call is answered as ever.
    assert_eq!(client.ask(request("POST", "/shop.Orders/Get", &[], "x")).unwrap().status, 503);
}

/// A replica, a proxy in front of it, and a client, all of HTTP/2. The network lasts as long as the proxy.
fn one_replica() -> ((Box<dyn Container>, Loopback), Proxy, Http2) {
    let network = Loopback::new();
    let replica = network.start("app", &App::replica());
    let proxy = start(&network, &ProxyConfig::new(&network, "app").set("upstream.app.protocol", "h2c"));
    proxy.wait_up("app", &[replica.address()]);
    let client = Http2::connect(proxy.address());
    ((replica, network), proxy, client)
}

// P19
#[test]
fn a_calls_deadline_ends_its_waiting() {
    let (_replica, proxy, client) = one_replica();
    let began = Instant::now();
    let fields = [GRPC, ("grpc-timeout", "300m")];
    let answer = client.ask(request("POST", "/sleep/15000", &fields, "x")).unwrap();
    assert_eq!((answer.status, answer.get("grpc-status")), (200, "4"), "{answer:?}");
    assert!((Duration::from_millis(250)..Duration::from_secs(10)).contains(&began.elapsed()), "{:?}", began.elapsed());
    // That a client is in a hurry is no fault of the replica's.
    assert_eq!(proxy.endpoints("app")[0]["health"], "up");
}

// P19
#[test]
fn a_calls_deadline_holds_while_its_client_still_sends() {
    let (_replica, _proxy, client) = one_replica();
    let began = Instant::now();
    let fields = [GRPC, ("grpc-timeout", "300m")];
    let answer = client.ask(unending(request("POST", "/count?id=1", &fields, "x"))).unwrap();
    assert_eq!((answer.status, answer.get("grpc-status")), (200, "4"), "{answer:?}");
    assert!((Duration::from_millis(250)..Duration::from_secs(10)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

// F48
#[test]
fn what_calls_itself_grpc_and_is_http_1_is_freed_of_no_time_out() {
    let bed = crate::Bed::with(|c| c.set("server.body_idle", "300ms"), |head, wire, _| crate::serve(head, wire));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 10\r\n\r\nx";
    assert_eq!(bed.ask(head).status, 408);
}

/// Python's grpcio in an environment of its own below `target/`; `None`, and loudly, where it cannot be had.
fn python() -> Option<PathBuf> {
    let target = testbed::binary("evenkeel").ancestors().nth(2).expect("target/debug/evenkeel").join("grpcio");
    let python = target.join("bin/python");
    let ready = target.join("ready");
    if !ready.exists() {
        let _ = std::fs::remove_dir_all(&target);
        let run = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = run(Path::new("python3"), &["-m", "venv", &target.to_string_lossy()])
            && run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "grpcio==1.76.0"]);
        if !made {
            let _ = std::io::stderr()
                .write_all(b"\nSKIPPED: gRPC was NOT tried with a foreign stack: no grpcio from PyPI\n");
            return None;
        }
        std::fs::write(&ready, "").expect("target/ can be written");
    }
    Some(python)
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/foreign_grpc.py");

/// What every kind of call comes to, told by a client of grpcio.
fn told(python: &Path, address: &str) -> String {
    let output = Command::new(python).args([SCRIPT, "call", address]).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn calls_of_a_foreign_stack_come_to_the_same_through_the_proxy() {
    let Some(python) = python() else { return };
    let network = Loopback::new();
    let app = App::new(&python).env("GRPC_SCRIPT", SCRIPT);
    let replicas: Vec<_> = (0..3)
        .map(|_| {
            let address = network.free_address();
            let mut command = Command::new(&python);
            command.args([SCRIPT, "serve", &format!("{address}:{}", network.port())]);
            let process = Process::spawn("grpc", command).expect("Python runs");
            process.wait_for_line("serving");
            (address, process)
        })
        .collect();
    drop(app);
    for (address, _) in &replicas {
        network.dns().add("app", *address);
    }
    let config =
        ProxyConfig::new(&network, "app").set("upstream.app.protocol", "h2c").set("upstream.app.probe.grpc", "");
    let proxy = start(&network, &config);
    let addresses: Vec<_> = replicas.iter().map(|(address, _)| (*address, network.port()).into()).collect();
    proxy.wait_up("app", &addresses);
    let direct = told(&python, &addresses[0].to_string());
    assert!(direct.lines().count() >= 10, "{direct}");
    assert_eq!(told(&python, &proxy.address().to_string()), direct);
    // One connection, and yet all three.
    eventually("each replica had calls", || {
        proxy.endpoints("app").iter().all(|endpoint| endpoint["requests"].as_u64() > Some(0))
    });
}
