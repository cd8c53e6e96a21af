//! The testbed itself, with its real processes: what the end-to-end tests rely on must hold by itself.

#![allow(clippy::disallowed_methods)] // tests live in real time

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use testbed::{
    App, Container, Ending, Ledger, Load, Loopback, Network, Plan, Postgres, Process, Restart, Signal, Wire, eventually,
};

fn one(network: &Loopback, app: App) -> Box<dyn Container> {
    network.scale("app", &app, 1).pop().unwrap()
}

fn get(from: SocketAddr, target: &str) -> testbed::Response {
    let mut wire = Wire::connect(from);
    wire.get(target);
    wire.response().unwrap()
}

fn records(network: &Loopback) -> BTreeSet<std::net::Ipv4Addr> {
    network.dns().addresses("app").into_iter().collect()
}

#[test]
fn replicas_share_an_alias_and_a_port_and_know_their_names() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica(), 3);
    assert_eq!(records(&network).len(), 3);
    for replica in &replicas {
        assert_eq!(get(replica.address(), "/").replica(), replica.name());
        assert_eq!(replica.address().port(), network.port());
    }
    drop(replicas);
    assert!(records(&network).is_empty());
}

#[test]
fn a_record_is_there_before_its_process_listens_and_goes_after_it_ended() {
    let network = Loopback::new();
    network.set_lag(Duration::from_millis(300));
    let replica = network.start("app", &App::replica().env("LISTEN_AFTER_MS", 300));
    assert_eq!(records(&network).len(), 1);
    assert!(TcpStream::connect(replica.address()).is_err());
    replica.wait_listening();
    replica.signal(Signal::SIGKILL);
    assert_eq!(replica.wait_exit(), 128 + 9);
    assert_eq!(records(&network).len(), 1, "the record outlives the process");
    eventually("the record goes", || records(&network).is_empty());
}

#[test]
fn a_paused_replica_takes_connections_and_answers_when_resumed() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    replica.pause();
    let mut wire = Wire::connect(replica.address()).patience(Duration::from_millis(200));
    wire.get("/");
    assert_eq!(wire.response().unwrap_err().ending, Ending::Silent);
    replica.resume();
    wire.set_patience(Duration::from_secs(10));
    assert_eq!(wire.response().unwrap().status, 200);
    assert_eq!(records(&network).len(), 1, "pausing changes no record");
}

#[test]
fn a_replica_restarts_renames_and_disconnects() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    let first = replica.address();
    replica.restart(Restart::SameAddress);
    replica.wait_listening();
    assert_eq!(replica.address(), first);
    replica.restart(Restart::NewAddress);
    replica.wait_listening();
    assert_ne!(replica.address(), first);
    assert!(TcpStream::connect(first).is_err());
    assert_eq!(records(&network).len(), 1);

    std::thread::scope(|scope| {
        scope.spawn(|| replica.rename(Duration::from_millis(100)));
        eventually("the name is away", || records(&network).is_empty());
    });
    assert_eq!(records(&network).len(), 1);
    replica.disconnect();
    assert!(records(&network).is_empty());
    assert_eq!(get(replica.address(), "/").status, 200);
}

#[test]
fn a_freed_address_is_given_to_another_app() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    let address = replica.address();
    drop(replica);
    let std::net::IpAddr::V4(ip) = address.ip() else { unreachable!() };
    let foreign = network.start_at(ip, "foreign", &App::replica());
    foreign.wait_listening();
    assert_eq!(get(address, "/").replica(), "foreign.1");
}

#[test]
fn a_replica_does_what_its_paths_say() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    let at = replica.address();
    assert_eq!(get(at, "/status/424").status, 424);
    assert_eq!(get(at, "/some/where?x=1").get("x-target"), Some("/some/where?x=1"));
    let plain = get(at, "/bytes/100000");
    assert_eq!((plain.get("content-length"), plain.body.len()), (Some("100000"), 100_000));
    let chunked = get(at, "/bytes/100000?chunked");
    assert_eq!((chunked.get("transfer-encoding"), chunked.body == plain.body), (Some("chunked"), true));
    let events = get(at, "/sse/3/1");
    assert_eq!(events.text(), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    let start = Instant::now();
    get(at, "/sleep/50");
    assert!(start.elapsed() >= Duration::from_millis(50));

    let mut wire = Wire::connect(at);
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe");
    let head = wire.head().unwrap();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"), "an echo begins before the upload ends");
    wire.send("llo");
    assert_eq!(wire.body(&head).unwrap(), b"hello");
    wire.send("GET /headers HTTP/1.1\r\nHost: x\r\nX-One: 1\r\n\r\n");
    assert_eq!(wire.response().unwrap().text(), "host: x\nx-one: 1\n");

    let mut wire = Wire::connect(at);
    wire.send("POST /early-413 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(wire.response().unwrap().status, 413);

    let mut wire = Wire::connect(at);
    wire.send("GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    let switched = wire.response().unwrap();
    assert_eq!((switched.status, switched.get("upgrade")), (101, Some("websocket")));
    wire.send("ping");
    assert_eq!(wire.bytes(4).unwrap(), b"ping");

    let mut wire = Wire::connect(at);
    wire.get("/exit");
    assert!(wire.response().is_err());
    assert_eq!(replica.wait_exit(), 128 + 9);
}

#[test]
fn a_replica_remembers_each_id_it_received() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    let load = Load::start(Plan { posts: 0.5, puts: 0.5, ..Plan::new(replica.address(), 200.0) });
    load.wait_sent(50);
    let report = load.stop();
    assert_eq!(report.lost(), []);
    let log = get(replica.address(), "/log").text();
    let logged: Vec<u64> = log.lines().map(|line| line.strip_suffix(" 1").unwrap().parse().unwrap()).collect();
    assert_eq!(logged.len(), report.sent(), "{log}");
    assert!(report.once().len() > 10 && report.once().iter().all(|id| logged.contains(id)), "{log}");
    Wire::connect(replica.address()).send("POST /count?id=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab");
    eventually("an id counts even if its body never ends", || {
        get(replica.address(), "/log").text().starts_with("7 1\n")
    });
}

#[test]
fn a_replica_that_is_killed_leaves_a_record_of_what_it_received() {
    let network = Loopback::new();
    let ledger = Ledger::new();
    let app = ledger.kept_by(App::replica().env("MEAN_MS", 60_000));
    let (dying, other) = (one(&network, app.clone()), one(&network, app));
    let mut wires = [(&dying, 7), (&dying, 8), (&other, 7)].map(|(replica, id)| {
        let mut wire = Wire::connect(replica.address());
        wire.send(format!("POST /count?id={id} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
        wire
    });
    // Long before it could answer.
    eventually("all are on record", || ledger.received().values().map(Vec::len).sum::<usize>() == 3);
    dying.signal(Signal::SIGKILL);
    assert!(wires[0].response().is_err());
    let received = ledger.received();
    assert_eq!(received[&8], [dying.name()]);
    assert_eq!(received[&7].iter().collect::<BTreeSet<_>>(), [dying.name(), other.name()].iter().collect());
}

#[test]
fn a_replica_serves_as_many_at_once_as_it_has_workers() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    let at = replica.address();
    assert_eq!(get(at, "/control?mean_ms=30&workers=2").status, 200);
    let time = |count: usize| {
        let start = Instant::now();
        std::thread::scope(|s| (0..count).for_each(|_| drop(s.spawn(|| get(at, "/")))));
        start.elapsed()
    };
    // Forty services of 30 ms on two workers: 600 ms on average, and 200 ms only once in a thousand million runs.
    let elapsed = time(40);
    assert!(elapsed > Duration::from_millis(200), "{elapsed:?}");
    let stats: serde_json::Value = serde_json::from_slice(&get(at, "/stats").body).unwrap();
    assert!(stats["most_in_flight"].as_u64().unwrap() > 5, "{stats}");
    assert_eq!(stats["in_flight"], 0);
}

#[test]
fn a_replica_fails_and_hangs_when_told() {
    let network = Loopback::new();
    let replica = one(&network, App::replica().env("MODE", "fail"));
    let at = replica.address();
    assert_eq!(get(at, "/").status, 500);
    get(at, "/control?mode=hang");
    let mut wire = Wire::connect(at).patience(Duration::from_millis(100));
    wire.get("/");
    assert_eq!(wire.response().unwrap_err().ending, Ending::Silent);
    get(at, "/control?mode=ok");
    assert_eq!(get(at, "/").status, 200);
    assert_eq!(get(at, "/control?mode=wrong").status, 400);
}

#[test]
fn an_app_that_handles_sigterm_finishes_and_one_that_does_not_drops() {
    let network = Loopback::new();
    for (on_term, whole) in [("graceful", true), ("drop", false)] {
        let replica = one(&network, App::replica().env("ON_TERM", on_term));
        let mut wire = Wire::connect(replica.address());
        wire.get("/sleep/200");
        eventually("it is in flight", || get(replica.address(), "/stats").text().contains("\"in_flight\":1"));
        replica.signal(Signal::SIGTERM);
        assert_eq!(wire.response().is_ok(), whole, "{on_term}");
        assert_eq!(replica.wait_exit(), if whole { 0 } else { 128 + 15 });
    }
}

#[test]
fn an_origin_does_what_no_server_would() {
    let network = Loopback::new();
    let origin = network.origin("app", |_, wire, n| match n {
        0 => wire.reset(),
        1 => {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            wire.reset();
        }
        2 => {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            wire.close();
        }
        _ => wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
    });
    let answer = |patience| {
        let mut wire = Wire::connect(origin.address()).patience(patience);
        wire.get("/x");
        (wire.response(), wire)
    };
    let wait = Duration::from_secs(10);
    assert_eq!(answer(wait).0.unwrap_err().ending, Ending::Reset);
    let cut = answer(wait).0.unwrap_err();
    assert_eq!((cut.ending, cut.head.is_some()), (Ending::Reset, true));
    let cut = answer(wait).0.unwrap_err();
    assert_eq!((cut.ending, cut.body.as_slice()), (Ending::Closed, &b"half"[..]));
    let (first, mut wire) = answer(wait);
    assert_eq!(first.unwrap().status, 103);
    assert_eq!(wire.response().unwrap().status, 204);
    assert_eq!(origin.requests(), 4);
    assert_eq!(origin.heads()[0].target(), "/x");
    let address = origin.address();
    drop(origin);
    eventually("it no longer listens", || TcpStream::connect(address).is_err());
    assert_eq!(wire.ending().0, Ending::Closed);
    assert!(records(&network).is_empty());
}

#[test]
fn a_process_shows_its_output_and_how_it_ended() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo one; echo two >&2; exit 3"]);
    let process = Process::spawn("shell", command).unwrap();
    assert_eq!(process.wait_for_line("tw"), "two");
    assert_eq!(process.wait_exit().code(), Some(3));
    process.signal(Signal::SIGKILL); // nobody is hit
    let error = Process::spawn("nothing", Command::new("/no/such/program")).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

/// Not a test of its own: what the next one runs in a process that is then killed.
#[test]
#[ignore = "run by nothing_outlives_a_killed_test"]
fn victim() {
    let network = Loopback::new();
    let replica = one(&network, App::replica());
    let mut postgres = Postgres::start(std::net::Ipv4Addr::LOCALHOST.into()).unwrap();
    postgres.resume().unwrap();
    println!("pid {} at {}", replica.pid(), postgres.url());
    std::thread::sleep(testbed::PATIENCE);
}

#[test]
fn nothing_outlives_a_killed_test() {
    let folder = tempfile::tempdir().unwrap();
    // PostgreSQL runs as somebody else and must get in.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "victim", "--nocapture"]).env("TMPDIR", folder.path());
    let test = Process::spawn("victim", command).unwrap();
    let line = test.wait_for_line("pid ");
    let mut words = line.split(' ');
    let replica = words.nth(1).unwrap().to_owned();
    let postgres: SocketAddr = words.nth(1).unwrap().split(['@', '/']).nth(3).unwrap().parse().unwrap();
    assert!(TcpStream::connect(postgres).is_ok());
    assert_ne!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    test.signal(Signal::SIGKILL);
    let gone = |pid: &str| std::fs::metadata(format!("/proc/{pid}/exe")).is_err();
    eventually("the replica is gone", || gone(&replica));
    eventually("PostgreSQL is gone", || TcpStream::connect(postgres).is_err());
    eventually("its folder is gone", || std::fs::read_dir(folder.path()).unwrap().count() == 0);
}

#[test]
fn postgres_stops_hangs_and_comes_back_at_the_same_address() {
    let mut postgres = Postgres::start(std::net::Ipv4Addr::LOCALHOST.into()).unwrap();
    let address = postgres.address();
    assert!(speaks(address));
    postgres.pause();
    assert!(!speaks(address));
    postgres.resume().unwrap();
    assert!(speaks(address));
    postgres.stop();
    assert!(TcpStream::connect(address).is_err());
    postgres.resume().unwrap();
    assert!(speaks(address));
    assert!(postgres.url().starts_with("postgres://app:"), "{}", postgres.url());
    drop(postgres);
    assert!(TcpStream::connect(address).is_err());
}

/// Whether PostgreSQL's protocol is answered: an SSLRequest is, with one letter.
fn speaks(address: SocketAddr) -> bool {
    let Ok(wire) = Wire::try_connect(address) else { return false };
    let mut wire = wire.patience(Duration::from_millis(500));
    wire.send([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
    wire.bytes(1).is_ok_and(|b| b == b"N" || b == b"S")
}
