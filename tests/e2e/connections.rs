//! The limit of client connections and who loses one when it is reached, and the addresses of both sides.

use crate::{Bed, GET, gate, ok, serve};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testbed::{App, Ending, Loopback, Origin, Proxy, ProxyConfig, Wire, eventually, eventually_some};

const CAP: usize = 50;

/// More than one, so that a newcomer's worker and that of the connection to be closed differ.
const WORKERS: usize = 3;

/// A client address that opens connections as fast as it can, sends nothing, and holds the last 200.
struct Flood {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(from: IpAddr, to: SocketAddr) -> Flood {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ours, count) = (stop.clone(), opened.clone());
        let thread = std::thread::spawn(move || {
            let mut held = std::collections::VecDeque::new();
            while !ours.load(Ordering::Relaxed) {
                held.push_back(Wire::try_connect_from(from, to));
                count.fetch_add(1, Ordering::Relaxed);
                if held.len() > 200 {
                    held.pop_front();
                }
            }
        });
        Flood { stop, opened, thread: Some(thread) }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Descriptors that a process holds.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn ask(wire: &mut Wire) -> u16 {
    wire.send(GET);
    wire.response().map_or(0, |response| response.status)
}

// D18, A12, F63
#[test]
fn a_flood_from_one_address_evicts_only_itself_and_the_limit_is_never_exceeded() {
    let network = Loopback::new();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let (flooding, honest) = (network.free_address(), network.free_address());
    let bed =
        Bed::around(network, vec![origin], |c| c.set("server.max_connections", CAP).set("server.threads", WORKERS));
    let to = bed.proxy.address();
    let connect = || Wire::try_connect_from(honest.into(), to).unwrap();
    let mut kept: Vec<Wire> = (0..10).map(|_| connect()).collect();
    assert!(kept.iter_mut().all(|wire| ask(wire) == 200));
    let pid = bed.proxy.container().pid();
    let others = descriptors(pid) - kept.len();

    let over = Arc::new(AtomicBool::new(false));
    let watch = std::thread::spawn({
        let over = over.clone();
        move || {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(descriptors(pid));
                std::thread::sleep(Duration::from_micros(200));
            }
            most
        }
    });
    let flood = Flood::start(flooding.into(), to);
    eventually("the flood fills the proxy", || bed.proxy.status()["connections"] == CAP);
    let mut slowest = Duration::ZERO;
    let (mut lost, mut most_counted) = (0, 0);
    let mut round = 0;
    while round < 20 || flood.opened() < 2000 {
        round += 1;
        let start = Instant::now();
        assert_eq!(ask(&mut connect()), 200, "a new connection of an honest client");
        slowest = slowest.max(start.elapsed());
        lost += kept.iter_mut().filter_map(|wire| (ask(wire) != 200).then(|| *wire = connect())).count();
        most_counted = most_counted.max(bed.proxy.status()["connections"].as_u64().unwrap_or(u64::MAX));
    }
    drop(flood);
    over.store(true, Ordering::Relaxed);
    assert_eq!(lost, 0, "kept connections of the honest client that were closed, in {round} rounds");
    assert!(slowest < Duration::from_secs(1), "a new honest connection waited {slowest:?}");
    assert!(most_counted <= CAP as u64, "{most_counted} connections served at once");
    // Each worker may hold one that it accepted and does not yet serve; a few more are probes, the replica's and ours.
    let most = watch.join().unwrap() - others;
    assert!((CAP..=CAP + WORKERS + 8).contains(&most), "{most} sockets of clients at once");
}

// D18
#[test]
fn while_all_connections_work_newcomers_wait_and_the_first_that_rests_makes_room() {
    let (go, gate) = gate();
    let bed = Bed::with(
        |c| {
            c.set("server.max_connections", 4)
                .set("server.threads", WORKERS)
                .set("upstream.app.response_timeout", "60s")
        },
        move |head, wire, _| {
            if head.target() == "/busy" {
                gate();
            }
            ok(wire);
        },
    );
    let mut busy: Vec<Wire> = (0..4).map(|_| bed.client()).collect();
    busy.iter_mut().for_each(|wire| wire.get("/busy"));
    eventually("all work", || bed.origin().requests() == 4);
    let mut newcomers: Vec<Wire> = (0..4).map(|_| bed.client()).collect();
    for wire in &mut newcomers {
        wire.send(GET);
        wire.set_patience(Duration::from_millis(200));
        assert_eq!(wire.response().unwrap_err().ending, Ending::Silent, "nobody made room");
        wire.set_patience(Duration::from_secs(20));
    }
    assert_eq!(bed.proxy.status()["connections"], 4);
    go();
    for wire in busy.iter_mut().chain(&mut newcomers) {
        assert_eq!(wire.response().unwrap().status, 200, "no connection that works is closed");
    }
}

// T10
#[test]
fn a_kept_connection_gives_its_descriptor_where_none_is_left_for_a_new_one() {
    let network = Loopback::new();
    let (go, gate) = crate::gate();
    let origin = network.origin("app", move |head, wire, _| {
        if head.target() == "/held" {
            gate();
        }
        serve(head, wire);
    });
    // Nobody else needs a descriptor meanwhile: it could get the one that a kept connection gave.
    let bed = Bed::around(network, vec![origin], |c| {
        c.set("upstream.app.idle_timeout", "60s").set("dns.interval", "60s").set("upstream.app.probe.interval", "60s")
    });
    let pid = bed.proxy.container().pid().to_string();
    let open = || -> BTreeSet<usize> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
    };
    let before = open();
    let mut clients: Vec<Wire> = (0..4).map(|_| bed.client()).collect();
    clients.iter_mut().for_each(|client| client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n"));
    eventually("each has a connection of its own", || bed.origin().requests() == 4);
    go();
    let rest = Instant::now();
    assert!(clients.iter_mut().all(|client| client.response().unwrap().status == 200));
    // A POST is sent on none of them then, so that it needs another.
    eventually("they have rested for more than a second", || rest.elapsed() > Duration::from_millis(1500));
    // A number that is free below those of the kept connections would be no use to a new one, as the limit is on numbers, and
    // one that a question to DNS holds just now would be one too many. So holes are filled by idle clients.
    let mut idle = Vec::new();
    let free = eventually_some("the numbers in use have no holes", || {
        let numbers = open();
        let free = (0..).find(|number| !numbers.contains(number)).expect("numbers do not end");
        let has_hole = numbers.difference(&before).any(|number| *number > free);
        if has_hole {
            idle.push(bed.client());
        }
        std::thread::sleep(Duration::from_millis(20));
        (!has_hole && open() == numbers).then_some(free)
    });
    let limit = |soft: usize| {
        let limited =
            std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status();
        assert!(limited.unwrap().success());
    };
    let kept = || bed.proxy.endpoints("app")[0]["idle_connections"].as_u64();
    assert_eq!(kept(), Some(4));
    limit(free);
    let posts = &mut clients[..2];
    posts.iter_mut().for_each(|post| post.send("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    for post in posts {
        assert_eq!(post.response().unwrap().status, 200, "{}", bed.proxy.output());
    }
    // The operator's connection needs one, too.
    limit(free + 20);
    assert_eq!(kept(), Some(4), "one was closed for each that was opened");
    assert_eq!(bed.proxy.metric("evenkeel_connects_total", &["result=\"exhausted\""]), 0.0);
}

// D18
#[test]
fn want_of_descriptors_closes_a_connection_of_the_address_with_the_most() {
    let network = Loopback::new();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let (flooding, honest) = (network.free_address(), network.free_address());
    let bed = Bed::around(network, vec![origin], |c| c.set("server.max_connections", 10_000));
    let to = bed.proxy.address();
    let mut kept: Vec<Wire> = (0..5).map(|_| Wire::try_connect_from(honest.into(), to).unwrap()).collect();
    assert!(kept.iter_mut().all(|wire| ask(wire) == 200));
    let pid = bed.proxy.container().pid().to_string();
    let used = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit =
        std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={}", used + 20)]).status();
    assert!(limit.unwrap().success());
    let flood: Vec<Wire> = (0..60).map(|_| Wire::try_connect_from(flooding.into(), to).unwrap()).collect();
    let mut late = Wire::try_connect_from(honest.into(), to).unwrap();
    // Where its worker keeps no connection to the replica, the flood may have left no descriptor for a new one: 503.
    let status = ask(&mut late);
    assert!([200, 503].contains(&status), "{status}: it is accepted while the flood holds on to its connections");
    assert!(kept.iter_mut().all(|wire| ask(wire) == 200), "honest connections are kept");
    drop(flood);
    eventually("all is well again", || ask(&mut Wire::try_connect_from(honest.into(), to).unwrap()) == 200);
}

/// A proxy in front of one replica that listens where `listen` says, or by default on this port, and the port it got.
fn listening(listen: Result<&str, u16>, change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> (Bed, u16) {
    let network = Loopback::new();
    let origins = vec![network.origin("app", |h, w, _| serve(h, w))];
    let toml = change(ProxyConfig::new(&network, "app")).to_toml();
    let ours = "listen = \"${HOST}:${PORT}\"\n";
    assert!(toml.contains(ours), "{toml}");
    let line = listen.map_or(String::new(), |listen| format!("listen = \"{listen}\"\n"));
    let port = listen.err().map_or(String::new(), |port| port.to_string());
    // The refused request is a line of debugging.
    let app = App::new(env!("CARGO_BIN_EXE_evenkeel")).env("PORT", port).env("RUST_LOG", "evenkeel=debug");
    let proxy = Proxy::launch_with(&network, app, &toml.replace(ours, &line));
    proxy.wait_ready();
    let bound: SocketAddr = proxy.status()["listen"].as_str().unwrap().parse().unwrap();
    (Bed { proxy, origins, network }, bound.port())
}

// U7
#[test]
fn by_default_clients_of_both_families_are_served_and_told_apart_by_their_plain_addresses() {
    // Nobody is given this port in the moment before the proxy has it.
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let (bed, _) = listening(Err(port), |c| c.set("upstream.app.forwarded", "append"));
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let clients = [("127.0.0.1", "127.0.0.1"), ("::1", "::1")];
    for (n, (client, told)) in clients.into_iter().take(if has_ipv6 { 2 } else { 1 }).enumerate() {
        let mut wire = Wire::connect(SocketAddr::new(client.parse().unwrap(), port));
        assert_eq!(ask(&mut wire), 200, "{client}");
        assert_eq!(bed.origin().heads()[n].get("x-forwarded-for"), Some(told));
        wire.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
        assert_eq!(wire.response().unwrap().status, 405);
    }
    bed.proxy.wait_for_line("client=127.0.0.1:");
    let log = bed.proxy.output();
    assert!(!log.contains("::ffff:"), "{log}");
}

// U7
#[test]
fn a_listen_address_that_is_set_is_taken_literally() {
    let (_bed, port) = listening(Ok("127.0.0.1:0"), |c| c);
    assert_eq!(ask(&mut Wire::connect(([127, 0, 0, 1], port).into())), 200);
    assert!(Wire::try_connect(([127, 0, 0, 2], port).into()).is_err());
    assert!(Wire::try_connect(format!("[::1]:{port}").parse().unwrap()).is_err());
}

// D23
#[test]
fn a_proxy_on_a_port_of_the_kernels_choice_still_knows_its_own_address() {
    let (bed, port) = listening(Ok("${HOST}:0"), |c| c);
    bed.network.dns().set("ring", &[ip(bed.proxy.address())]);
    let ours = std::fs::read_to_string(bed.proxy.config_path()).unwrap();
    let ring = format!("[upstream.ring]\naddress = \"ring:{port}\"\n");
    let routes = "[[route]]\nupstream = \"ring\"\npath_prefix = \"/ring\"\n[[route]]\nupstream = \"app\"\n";
    bed.proxy.write_config(&format!("{ours}{ring}{routes}"));
    let line = bed.proxy.wait_for_line("ERROR");
    assert!(line.contains("this proxy itself") && line.contains("ring"), "{line}");
}

fn ip(address: SocketAddr) -> Ipv4Addr {
    let IpAddr::V4(ip) = address.ip() else { unreachable!() };
    ip
}

// D23
#[test]
fn in_a_tunnel_the_replicas_socket_keeps_the_short_keep_alive_of_its_dial() {
    let bed = Bed::new(|_, wire, _| {
        wire.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        wire.ending();
    });
    let mut wire = bed.client();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(wire.response().unwrap().status, 101);
    // It is set for both sockets before anything passes, if it is.
    let to_client = eventually_some("the tunnel runs", || keep_alive(LOCAL, bed.proxy.address()));
    assert!(to_client > Duration::from_secs(30), "{to_client:?}");
    let to_replica = eventually_some("it asks the replica", || keep_alive(REMOTE, bed.origin().address()));
    assert!(to_replica <= Duration::from_secs(3), "{to_replica:?}");
}

/// Columns of `/proc/net/tcp`.
const LOCAL: usize = 1;
const REMOTE: usize = 2;

/// The time until the kernel asks whether the peer is there, of an open connection of which this is the address.
fn keep_alive(column: usize, address: SocketAddr) -> Option<Duration> {
    const ESTABLISHED: &str = "01";
    // The timer for keep-alive, and in how many hundredths of a second it fires.
    const KEEP_ALIVE: &str = "02:";
    let address = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip(address).octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = columns.filter(|c| c.len() > 5 && c[column] == address && c[3] == ESTABLISHED);
    let left = ours.filter_map(|c| u64::from_str_radix(c[5].strip_prefix(KEEP_ALIVE)?, 16).ok()).max()?;
    Some(Duration::from_millis(left * 10))
}

// D22
#[test]
fn replicas_that_have_ipv6_addresses_only_are_served_where_the_configuration_asks_for_them() {
    let network = Loopback::new();
    let origin = Origin::listen((Ipv6Addr::LOCALHOST, 0).into(), |h, w, _| serve(h, w)).unwrap();
    network.dns().set_ipv6("six", &[Ipv6Addr::LOCALHOST]);
    for family in ["ipv6", "any"] {
        let config = ProxyConfig::new(&network, "app")
            .set("upstream.app.address", format!("six:{}", origin.address().port()))
            .set("dns.family", family);
        let proxy = crate::start(&network, &config);
        proxy.wait_up("app", &[origin.address()]);
        assert_eq!(proxy.get("/").status, 200, "{family}");
    }
    // Those that have IPv4 addresses are asked for them under "any", and not twice.
    let both = network.origin("six", |h, w, _| serve(h, w));
    let config = ProxyConfig::new(&network, "six").set("dns.family", "any");
    let proxy = crate::start(&network, &config);
    proxy.wait_up("six", &[both.address()]);
    assert_eq!(proxy.get("/").status, 200);
}
