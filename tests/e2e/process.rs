//! The process and its host: descriptors, time, output, rights, other proxies (F71 to F77, F84).

use crate::{Bed, GET, assert_own, serve, start};
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};
use testbed::{App, Load, Loopback, Network, Plan, Process, Proxy, ProxyConfig, Signal, Wire, eventually};

on_every_testbed! {
    a_process_that_was_stopped_judges_nobody_by_its_own_absence
    several_workers_share_the_load_and_the_state
}

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

/// Evenkeel started by a shell that first does something else.
pub(crate) fn by_shell(first: &str) -> App {
    let mut app = App::new("/bin/sh");
    app.args = vec!["-c".into(), format!("{first} exec {EVENKEEL}")];
    app
}

fn launch(network: &Loopback, app: App, config: &ProxyConfig) -> Proxy {
    let proxy = Proxy::launch_with(network, app, &config.to_toml());
    proxy.wait_ready();
    proxy
}

// F71
#[test]
fn a_port_that_is_taken_is_said_with_its_remedy() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let mut command = Command::new(EVENKEEL);
    command
        .env("EVENKEEL_CONFIG", bed.proxy.config_path())
        .env("HOST", bed.proxy.address().ip().to_string())
        .env("PORT", bed.proxy.address().port().to_string());
    let second = Process::spawn("second", command).unwrap();
    assert_eq!(second.wait_exit().code(), Some(1));
    let output = second.output();
    assert!(output.contains(&bed.proxy.address().to_string()), "{output}");
    assert!(output.contains("in use") && output.contains("choose another port"), "{output}");
}

// F72, D20
#[test]
fn out_of_descriptors_the_proxy_neither_spins_nor_dies_and_recovers() {
    let network = Loopback::new();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let config = ProxyConfig::new(&network, "app").set("server.max_connections", 200);
    let proxy = launch(&network, by_shell("ulimit -n 60;"), &config);
    assert_eq!(proxy.wait_serving("/").status, 200);
    // Busy ones, so that none can be closed to make room: heads that are not finished.
    let mut flood: Vec<Wire> = (0..100)
        .map(|_| {
            let mut wire = Wire::connect(proxy.address());
            wire.send("GET / HTTP/1.1\r\nHo");
            wire
        })
        .collect();
    let pid = proxy.container().pid();
    let before = testbed::cpu(pid);
    let second = Instant::now();
    eventually("a second passes", || second.elapsed() > Duration::from_secs(1));
    let used = testbed::cpu(pid).saturating_sub(before);
    assert!(used < Duration::from_millis(400), "{used:?} of processor time in a second of waiting");
    assert_eq!(proxy.container().exited(), None);
    // Ten probes of a replica that works could not be made.
    assert_eq!(proxy.lines(" down"), Vec::<String>::new());
    flood.clear();
    eventually("it serves again", || proxy.try_get("/").is_ok_and(|r| r.status == 200));
    drop(origin);
}

// F73
#[test]
fn a_low_descriptor_limit_is_warned_of_at_the_start() {
    let network = Loopback::new();
    let proxy = launch(&network, by_shell("ulimit -n 200;"), &ProxyConfig::new(&network, "app"));
    let line = proxy.wait_for_line("WARN");
    assert!(line.contains("ulimit") && line.contains("200"), "{line}");
}

// F74
#[test]
fn it_runs_as_nobody_with_no_capability_and_writes_no_file() {
    let network = Loopback::new();
    let _origin = network.origin("app", |h, w, _| serve(h, w));
    let config = ProxyConfig::new(&network, "app");
    // The binary may lie where only root may look: it is passed as an open descriptor.
    let drop_rights = if nix_is_root() {
        "setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all --no-new-privs"
    } else {
        ""
    };
    let mut app = App::new("/bin/sh");
    app.args =
        vec!["-c".into(), format!("cd / && ulimit -f 0 && exec 9<{EVENKEEL} && exec {drop_rights} /proc/self/fd/9")];
    let proxy = launch(&network, app, &config);
    assert_eq!(proxy.wait_serving("/").status, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.container().pid())).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert!(!field("Uid:").starts_with('0'), "{}", field("Uid:"));
    assert_eq!(field("CapEff:"), "0000000000000000");
}

fn nix_is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

// F76
#[test]
fn a_reader_of_its_log_that_stalls_delays_no_request() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 1);
    // Its standard output is a pipe that nobody reads: 64 KiB, then it blocks.
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let app = by_shell(&format!("exec >{};", pipe.display())).env("RUST_LOG", "trace");
    let proxy = launch(&network, app, &ProxyConfig::new(&network, "app"));
    proxy.wait_serving("/");
    for n in 0..2000 {
        let start = Instant::now();
        assert_eq!(proxy.get("/").status, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "request {n} was held up");
    }
    let mut read = vec![0; 64 * 1024];
    reader.read_exact(&mut read).expect("it did log, until the pipe was full");
}

// F77, P12
fn a_process_that_was_stopped_judges_nobody_by_its_own_absence(network: impl Network) {
    let _replicas = network.scale("app", &App::replica().env("MEAN_MS", 20), 3);
    let bed = Bed::around(network, vec![], |c| c.set("upstream.app.probe.path", "/probe"));
    bed.proxy.wait_serving("/");
    let load = Load::start(Plan::new(bed.proxy.address(), 100.0));
    load.wait_sent(100);
    for _ in 0..2 {
        bed.proxy.signal(Signal::SIGSTOP);
        let stopped = Instant::now();
        eventually("three seconds pass", || stopped.elapsed() > Duration::from_secs(3));
        bed.proxy.signal(Signal::SIGCONT);
        load.wait_sent(50);
    }
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}", report.lost(), bed.proxy.output());
    for word in [" down", "eject", "suspect", "draining"] {
        assert_eq!(bed.proxy.lines(word), Vec::<String>::new());
    }
}

// F84
#[test]
fn a_ring_of_proxies_is_seen_and_said() {
    let network = Loopback::new();
    let config = |alias: &str| {
        ProxyConfig::new(&network, alias)
            .set(&format!("upstream.{alias}.probe.path"), "/ping")
            .set(&format!("upstream.{alias}.wait"), "300ms")
    };
    let one = start(&network, &config("two"));
    let two = start(&network, &config("one"));
    let ip = |proxy: &Proxy| match proxy.address().ip() {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(_) => unreachable!("the network is of IPv4"),
    };
    network.dns().set("one", &[ip(&one)]);
    network.dns().set("two", &[ip(&two)]);
    one.wait_for_line("ERROR");
    two.wait_for_line("ERROR");
    for proxy in [&one, &two] {
        assert_own(&proxy.get("/"), 503);
    }
}

#[test]
fn it_is_ready_within_a_tenth_of_a_second() {
    let network = Loopback::new();
    let _origin = network.origin("app", |h, w, _| serve(h, w));
    // The best of a few: the machine may be busy, and what is promised is what the program takes.
    let best = (0..5)
        .map(|_| {
            let started = Instant::now();
            let proxy = Proxy::launch(&network, EVENKEEL, &ProxyConfig::new(&network, "app"));
            proxy.wait_ready();
            started.elapsed()
        })
        .min();
    assert!(best < Some(Duration::from_millis(100)), "{best:?}");
}

fn several_workers_share_the_load_and_the_state(network: impl Network) {
    let _replicas = network.scale("app", &App::replica().env("MEAN_MS", 5), 3);
    let bed = Bed::around(network, vec![], |c| c.set("server.threads", 3));
    bed.proxy.wait_serving("/");
    let load = Load::start(Plan { posts: 0.1, ..Plan::new(bed.proxy.address(), 200.0) });
    load.wait_sent(400);
    assert_eq!(bed.ask(GET).status, 200);
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}", report.lost());
    assert_eq!(bed.proxy.status()["workers"], 3);
    assert_eq!(report.by_replica().len(), 3);
}

/// How `evenkeel ready` ends, asked with this proxy's own configuration.
fn ask_ready(proxy: &Proxy) -> (Option<i32>, String) {
    let mut command = Command::new(EVENKEEL);
    command
        .arg("ready")
        .env("EVENKEEL_CONFIG", proxy.config_path())
        .env("HOST", proxy.address().ip().to_string())
        .env("PORT", proxy.address().port().to_string());
    let said = command.output().unwrap();
    (said.status.code(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

// U6
#[test]
fn the_health_check_works_without_an_admin_address() {
    let network = Loopback::new();
    let _origin = network.origin("app", |h, w, _| serve(h, w));
    let config = ProxyConfig::new(&network, "app").set("server.admin", "off");
    let proxy = Proxy::launch(&network, EVENKEEL, &config);
    proxy.wait_serving("/");
    eventually("it is ready", || ask_ready(&proxy).0 == Some(0));
    // A request that is not finished holds the drain open.
    let mut wire = Wire::connect(proxy.address());
    wire.send("GET / HTTP/1.1\r\nHo");
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_line("draining");
    let (code, output) = ask_ready(&proxy);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("draining"), "{output}");
    drop(wire);
    eventually("it ends", || proxy.container().exited().is_some());
    let (code, output) = ask_ready(&proxy);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("not running here"), "{output}");
}
