//! What an operator orders of the running proxy: `evenkeel drain`, `undrain`, `pause` and `resume` (P16, P17).

use crate::{Bed, GET, command, gate, ok, serve, start};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testbed::{App, Container, Load, Loopback, Network, Plan, ProxyConfig, eventually};

/// How soon a drained replica gets nothing new (P16).
const AT_ONCE: Duration = Duration::from_millis(10);

/// Requests of the drain under load; the environment may ask for more.
fn requests() -> u64 {
    std::env::var("EVENKEEL_DRAIN_REQUESTS").map_or(1000, |text| text.parse().expect("a number of requests"))
}

fn order<N: Network>(bed: &Bed<N>, arguments: &[&str]) -> Output {
    command(&bed.proxy, arguments).output().unwrap()
}

/// What a command says that succeeds.
#[track_caller]
fn done<N: Network>(bed: &Bed<N>, arguments: &[&str]) -> String {
    let output = order(bed, arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What a command says that fails.
#[track_caller]
fn refused<N: Network>(bed: &Bed<N>, arguments: &[&str]) -> String {
    let output = order(bed, arguments);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `/status` says of the replica at this address.
fn replica<N: Network>(bed: &Bed<N>, address: SocketAddr) -> serde_json::Value {
    let all = bed.proxy.endpoints("app");
    let found = all.into_iter().find(|endpoint| endpoint["address"] == address.to_string());
    found.unwrap_or_else(|| panic!("{address} is not there"))
}

fn sent_to<N: Network>(bed: &Bed<N>, address: SocketAddr) -> u64 {
    replica(bed, address)["requests"].as_u64().unwrap()
}

/// So many replicas of 5 ms, all proven, their addresses, and a proxy in front of them.
fn scaled(count: usize) -> (Vec<Box<dyn Container>>, Vec<SocketAddr>, Bed) {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica().env("MEAN_MS", 5), count);
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address()).collect();
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_up("app", &addresses);
    (replicas, addresses, bed)
}

// P16
#[test]
fn a_replica_drained_under_load_gets_nothing_new_and_nothing_is_lost() {
    let requests = requests();
    let (_replicas, addresses, bed) = scaled(3);
    let rate = if requests > 1000 { 1000.0 } else { 300.0 };
    let load = Load::start(Plan { posts: 0.2, ..Plan::new(bed.proxy.address(), rate) });
    let part = requests / 12;
    for address in addresses.iter().cycle().take(6) {
        load.wait_sent(part);
        let ip = address.ip().to_string();
        let said = done(&bed, &["drain", &ip]);
        assert!(said.starts_with(&format!("app: {ip} gets nothing new")), "{said}");
        std::thread::sleep(AT_ONCE);
        let before = sent_to(&bed, *address);
        let answers = bed.proxy.metric("evenkeel_dns_answers_total", &[]);
        load.wait_sent(part);
        eventually("DNS lists it some times more", || {
            bed.proxy.metric("evenkeel_dns_answers_total", &[]) >= answers + 2.0
        });
        assert_eq!(sent_to(&bed, *address), before, "{}", bed.proxy.output());
        done(&bed, &["drain", &ip, "--wait", "20s"]);
        let status = replica(&bed, *address);
        assert_eq!((&status["held_back"], &status["health"]), (&"drained".into(), &"up".into()), "{status}");
        let table = done(&bed, &["status"]);
        assert!(table.contains("drained by user") && table.contains("2 of 3 replicas usable"), "{table}");
        let label = format!("endpoint=\"{address}\"");
        assert_eq!(bed.proxy.metric("evenkeel_endpoint_drained", &[&label]), 1.0);
        done(&bed, &["undrain", &ip]);
        eventually("it gets requests again", || sent_to(&bed, *address) > before);
    }
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}\n{}", report.lost(), report.table(), bed.proxy.output());
    println!("{} requests through six drains, none lost", report.sent());
    bed.proxy.wait_for_line("drained by user");
}

// P16
#[test]
fn drain_waits_for_what_runs_there_and_says_so_when_no_replica_is_left() {
    let (go, gate) = gate();
    let bed = Bed::new(move |_, wire, _| {
        gate();
        ok(wire);
    });
    let ip = bed.origin().address().ip().to_string();
    let mut client = bed.client();
    client.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    let said = refused(&bed, &["drain", &ip, "--wait", "1ms"]);
    assert!(said.contains("after 1ms 1 of its requests and streams still run"), "{said}");
    let said = done(&bed, &["drain", &ip]);
    assert!(said.contains("was drained before; 1 request or stream still runs there"), "{said}");
    assert!(said.contains("no replica is left that works: requests wait for up to"), "{said}");
    let mut waiting = command(&bed.proxy, &["drain", &ip, "--wait", "20s"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.contains("1 request or stream still runs there"), "{first}");
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    go();
    assert_eq!(client.response().unwrap().status, 200);
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(rest.last().map(String::as_str), Some("nothing runs there any more"), "{rest:?}");
}

// P16
#[test]
fn a_drained_address_that_left_is_shown_and_can_be_undrained() {
    let (mut replicas, addresses, bed) = scaled(2);
    let gone = addresses[1];
    done(&bed, &["drain", &gone.ip().to_string()]);
    let second = replicas.pop().unwrap();
    second.disconnect();
    eventually("it left", || bed.proxy.endpoints("app").len() == 1);
    let table = done(&bed, &["status"]);
    assert!(table.contains(&format!("drained, and not listed now: {}", gone.ip())), "{table}");
    done(&bed, &["undrain", &gone.ip().to_string()]);
    assert!(!done(&bed, &["status"]).contains("not listed now"));
}

// P17
#[test]
fn requests_wait_while_their_upstream_is_paused() {
    let (_replicas, _, bed) = scaled(2);
    let load = Load::start(Plan { posts: 0.2, ..Plan::new(bed.proxy.address(), 100.0) });
    load.wait_sent(50);
    let said = done(&bed, &["pause", "app"]);
    assert!(said.starts_with("app: each request waits for up to"), "{said}");
    let upstream = || bed.proxy.status()["upstreams"][0].clone();
    eventually("requests wait", || upstream()["waiting"].as_u64() >= Some(20));
    assert_eq!(upstream()["paused"], true);
    assert!(done(&bed, &["status"]).contains("paused by an operator"));
    assert_eq!(bed.proxy.metric("evenkeel_upstream_paused", &[]), 1.0);
    assert!(done(&bed, &["pause", "app"]).contains("was paused before"));
    done(&bed, &["resume", "app"]);
    eventually("nobody waits", || upstream()["waiting"] == 0);
    load.wait_sent(load.sent() + 50);
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}", report.lost(), report.table());
    assert!(done(&bed, &["resume", "app"]).contains("was not paused"));
    bed.proxy.wait_for_line("resumed by user");
}

// P17
#[test]
fn what_runs_finishes_in_a_pause_and_nothing_is_sent() {
    let (go, gate) = gate();
    let bed = Bed::new(move |_, wire, _| {
        gate();
        ok(wire);
    });
    let mut running = bed.client();
    running.send(GET);
    eventually("it runs", || bed.origin().requests() == 1);
    done(&bed, &["pause", "app"]);
    let mut waiting = bed.client();
    waiting.send(GET);
    eventually("it waits", || bed.proxy.status()["upstreams"][0]["waiting"] == 1);
    go();
    assert_eq!(running.response().unwrap().status, 200);
    assert_eq!(bed.origin().requests(), 1);
    done(&bed, &["resume", "app"]);
    assert_eq!(waiting.response().unwrap().status, 200);
}

// P16, P17
#[test]
fn orders_hold_through_a_reload_that_changes_the_address() {
    let network = Loopback::new();
    let replicas: Vec<Box<dyn Container>> = network.scale("app", &App::replica(), 1);
    let _other: Vec<Box<dyn Container>> = network.scale("other", &App::replica(), 1);
    let config = ProxyConfig::new(&network, "app");
    let proxy = start(&network, &config);
    let bed = Bed { proxy, origins: vec![], network };
    bed.proxy.wait_up("app", &[replicas[0].address()]);
    done(&bed, &["pause", "app"]);
    let address = format!("other:{}", replicas[0].address().port());
    bed.proxy.write_config(&config.set("upstream.app.address", address).to_toml());
    bed.proxy.wait_for_line("configuration reloaded");
    assert_eq!(bed.proxy.status()["upstreams"][0]["paused"], true);
    done(&bed, &["resume", "app"]);
    assert_eq!(bed.ask(GET).status, 200);
}

// P17
#[test]
fn a_pause_lasts_no_longer_for_a_request_than_its_wait() {
    let bed = Bed::with(|c| c.set("upstream.app.wait", "300ms"), |h, w, _| serve(h, w));
    done(&bed, &["pause", "app"]);
    for _ in 0..3 {
        let asked = std::time::Instant::now();
        assert_eq!(bed.ask(GET).status, 503);
        assert!(asked.elapsed() >= Duration::from_millis(300), "each waits, however long the pause is: {asked:?}");
    }
    let line = bed.proxy.wait_for_line("request failed");
    assert!(line.contains("paused"), "the log says why: {line}");
    done(&bed, &["resume", "app"]);
    assert_eq!(bed.ask(GET).status, 200);
}

// P16
#[test]
fn an_order_that_cannot_be_carried_out_says_why_and_changes_nothing() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let address = bed.origin().address();
    let said = refused(&bed, &["drain", "192.0.2.1"]);
    assert!(said.contains("no replica has the address 192.0.2.1; there is"), "{said}");
    assert!(said.contains(&format!("{address} (app)")), "{said}");
    let other = SocketAddr::new(address.ip(), address.port() ^ 1).to_string();
    let said = refused(&bed, &["drain", &other]);
    assert!(said.contains(&format!("no replica has the address {other}")), "{said}");
    let ip = address.ip().to_string();
    let said = refused(&bed, &["drain", &ip, "--upstream", "ap"]);
    assert!(said.contains("there is no upstream \"ap\"; there is app"), "{said}");
    assert!(refused(&bed, &["drain", "db-checker"]).contains("is not an address"));
    assert!(refused(&bed, &["pause", "ap"]).contains("there is no upstream \"ap\""));
    assert_eq!(bed.proxy.endpoints("app")[0]["held_back"], serde_json::Value::Null);
    assert_eq!(bed.ask(GET).status, 200);
}

// P16
#[test]
fn only_root_and_the_proxys_own_user_may_order() {
    if !nix::unistd::geteuid().is_root() {
        // Past the harness, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: only_root_and_the_proxys_own_user_may_order needs root");
        return;
    }
    let bed = Bed::new(|h, w, _| serve(h, w));
    let ip = bed.origin().address().ip().to_string();
    // Another user must be able to read the configuration and to start the program.
    let open = tempfile::tempdir().unwrap();
    let share = |from: &Path, name: &str, mode: u32| {
        let copy = open.path().join(name);
        fs::copy(from, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
        copy
    };
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = share(Path::new(env!("CARGO_BIN_EXE_evenkeel")), "evenkeel", 0o755);
    let config = share(&bed.proxy.config_path(), "proxy.toml", 0o644);
    let as_user = |user: u32, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env("EVENKEEL_CONFIG", &config).uid(user).gid(user);
        command.env("HOST", bed.proxy.address().ip().to_string()).env("PORT", bed.proxy.address().port().to_string());
        command.output().unwrap()
    };
    let output = as_user(65534, &["drain", &ip]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("only root and the proxy's own user, 0, may order this"),
        "{said}"
    );
    assert!(said.contains("this is user 65534"), "{said}");
    bed.proxy.wait_for_line("an order was refused");
    assert_eq!(bed.proxy.endpoints("app")[0]["held_back"], serde_json::Value::Null);
    assert!(as_user(0, &["drain", &ip]).status.success());
    assert_eq!(bed.proxy.endpoints("app")[0]["held_back"], "drained");
}
