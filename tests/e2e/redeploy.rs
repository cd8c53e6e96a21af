//! The proxy itself is replaced: a new process takes the port over from the old one (P15).
//!
//! On loopback each test is in a network namespace of its own, where `net.ipv4.tcp_migrate_req` can be set.

use crate::{GET, command, in_a_network_of_its_own, is_in_a_network_of_its_own, serve};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use testbed::{App, Ending, Load, Loopback, Network, Plan, Proxy, ProxyConfig, Signal, Wire, eventually};

/// What `docker run --sysctl net.ipv4.tcp_migrate_req=1` does.
const MIGRATE: &str = "echo 1 >/proc/sys/net/ipv4/tcp_migrate_req";

/// Runs the rest of this test where queues are handed over.
macro_rules! with_migration {
    ($test:literal) => {
        if !is_in_a_network_of_its_own() {
            return in_a_network_of_its_own(concat!("redeploy::", $test), MIGRATE);
        }
    };
}

/// The proxies of one address.
struct Address {
    network: Loopback,
    ip: Ipv4Addr,
    config: ProxyConfig,
}

impl Address {
    fn new(network: Loopback) -> Address {
        let config = ProxyConfig::new(&network, "app").set("server.reuse_port", true).set("server.drain", "5s");
        Address { ip: network.free_address(), network, config }
    }

    /// One more, which may not be ready.
    fn launch(&self, config: &ProxyConfig) -> Proxy {
        Proxy::launch_at(&self.network, self.ip, env!("CARGO_BIN_EXE_evenkeel"), config)
    }

    /// One more that is ready.
    fn start(&self) -> Proxy {
        let proxy = self.launch(&self.config);
        // All are in one container here: before that, the one before it might be asked.
        proxy.wait_for_line("listening");
        eventually("the new proxy is ready", || is_ready(&proxy));
        proxy
    }
}

/// What a container's health check says. Of several processes the newest is asked.
fn is_ready(proxy: &Proxy) -> bool {
    assert_eq!(proxy.container().exited(), None, "{}", proxy.output());
    command(proxy, &["ready"]).output().unwrap().status.success()
}

// P15, F68
#[test]
fn ten_redeploys_under_load_lose_nothing() {
    with_migration!("ten_redeploys_under_load_lose_nothing");
    let address = Address::new(Loopback::new());
    let _replicas = address.network.scale("app", &App::replica().env("MEAN_MS", 3), 2);
    let mut proxy = address.start();
    let load = |keep| Load::start(Plan { posts: 0.1, puts: 0.1, keep, ..Plan::new(proxy.address(), 150.0) });
    let loads = [true, false].map(load);
    let mut old = vec![];
    for _ in 0..10 {
        loads.iter().for_each(|load| load.wait_sent(50));
        let next = address.start();
        proxy.signal(Signal::SIGTERM);
        old.push(std::mem::replace(&mut proxy, next));
    }
    loads.iter().for_each(|load| load.wait_sent(50));
    for proxy in &old {
        assert_eq!(proxy.container().wait_exit(), 0, "{}", proxy.output());
        assert_eq!(proxy.lines("handed over").len(), 1, "{}", proxy.output());
        assert_eq!(proxy.lines("cut off"), Vec::<String>::new());
    }
    for (load, connections) in loads.into_iter().zip(["kept", "one per request"]) {
        let report = load.stop();
        println!("connections: {connections}\n{}", report.table());
        assert!(report.lost().is_empty(), "{connections}: {:#?}", report.lost());
    }
}

// P15: what its queue holds is not lost even with a proxy that never gets to it
#[test]
fn connections_in_the_queue_of_a_proxy_that_is_killed_go_to_the_other_one() {
    with_migration!("connections_in_the_queue_of_a_proxy_that_is_killed_go_to_the_other_one");
    let address = Address::new(Loopback::new());
    let origin = address.network.origin("app", |head, wire, _| serve(head, wire));
    let old = address.start();
    old.wait_serving("/");
    let _new = address.start();
    let before = origin.requests();
    old.container().pause();
    // The kernel spreads them over both; that not one is the old one's has the odds of a coin that falls 60 times alike.
    let mut wires: Vec<Wire> = (0..60).map(|_| Wire::connect(old.address())).collect();
    wires.iter_mut().for_each(|wire| wire.send(GET));
    eventually("the new one answers its own", || origin.requests() > before);
    old.signal(Signal::SIGKILL);
    for wire in &mut wires {
        assert_eq!(wire.response().unwrap().status, 200);
    }
    assert_eq!(origin.requests(), before + 60);
}

// P15
#[test]
fn a_new_proxy_gets_no_connection_before_it_knows_a_replica() {
    with_migration!("a_new_proxy_gets_no_connection_before_it_knows_a_replica");
    let address = Address::new(Loopback::new());
    let _origin = address.network.origin("app", |head, wire, _| serve(head, wire));
    let old = address.start();
    // It asks for a name that nobody has.
    let wrong = address.config.clone().set("upstream.app.address", format!("none:{}", address.network.port()));
    let new = address.launch(&wrong);
    new.wait_for_line("another process listens on this port");
    let said = command(&new, &["ready"]).output().unwrap();
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("knows no usable replica"), "{said}");
    for _ in 0..50 {
        let mut wire = Wire::connect(old.address());
        wire.send(GET);
        assert_eq!(wire.response().unwrap().status, 200);
    }
    assert_eq!(new.lines("listening"), Vec::<String>::new());
    // With nobody beside it, it may as well be the one who says so.
    old.signal(Signal::SIGTERM);
    assert_eq!(old.container().wait_exit(), 0);
    assert_eq!(old.lines("handed over"), Vec::<String>::new());
    new.wait_for_line("listening");
}

// P15
#[test]
fn a_kept_connection_outlives_the_handover_until_its_next_response() {
    with_migration!("a_kept_connection_outlives_the_handover_until_its_next_response");
    let mut address = Address::new(Loopback::new());
    address.config = address.config.set("server.drain", "20s");
    let _origin = address.network.origin("app", |head, wire, _| serve(head, wire));
    let old = address.start();
    let mut kept: Vec<Wire> = (0..20).map(|_| Wire::connect(old.address())).collect();
    for wire in &mut kept {
        wire.send(GET);
        assert_eq!(wire.response().unwrap().get("connection"), None);
    }
    let _new = address.start();
    let told = Instant::now();
    old.signal(Signal::SIGTERM);
    old.wait_for_line("handed over");
    // For longer than a proxy without a successor would wait for its next request.
    eventually("three seconds pass", || told.elapsed() > Duration::from_secs(3));
    for wire in &mut kept {
        wire.send(GET);
        let response = wire.response().unwrap();
        assert_eq!((response.status, response.get("connection")), (200, Some("close")));
        assert_eq!(wire.ending().0, Ending::Closed);
    }
    let last = Instant::now();
    assert_eq!(old.container().wait_exit(), 0);
    assert!(last.elapsed() < Duration::from_secs(2), "{:?} after the last one", last.elapsed());
}

// F71
#[test]
fn proxies_share_a_port_only_if_both_say_so() {
    with_migration!("proxies_share_a_port_only_if_both_say_so");
    let address = Address::new(Loopback::new());
    let _origin = address.network.origin("app", |head, wire, _| serve(head, wire));
    let _first = address.start();
    let alone = address.launch(&address.config.clone().set("server.reuse_port", false));
    assert_eq!(alone.container().wait_exit(), 1);
    assert!(alone.output().contains("server.reuse_port = true"), "{}", alone.output());
}

// P15
#[test]
fn the_newest_proxy_of_an_address_is_the_one_that_commands_ask() {
    with_migration!("the_newest_proxy_of_an_address_is_the_one_that_commands_ask");
    let address = Address::new(Loopback::new());
    let _origin = address.network.origin("app", |head, wire, _| serve(head, wire));
    let _old = address.start();
    let new = address.start();
    // All of these processes are in one container, so that the newest is asked.
    for _ in 0..20 {
        let said = command(&new, &["status"]).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&new.config_path().display().to_string()), "{said}");
    }
}

/// What `evenkeel hold` is for: it holds, says so, and goes at once.
#[test]
fn the_holder_says_what_it_holds_and_ends_at_once() {
    with_migration!("the_holder_says_what_it_holds_and_ends_at_once");
    let address = Address::new(Loopback::new());
    let mut hold = App::new(env!("CARGO_BIN_EXE_evenkeel"));
    hold.args = vec!["hold".into()];
    for (signal, name) in [(Signal::SIGTERM, "holder"), (Signal::SIGINT, "another")] {
        let holder = address.network.start(name, &hold);
        let line = holder.wait_for_line("holding");
        assert!(line.contains("net.ipv4.tcp_migrate_req is 1"), "{line}");
        assert_eq!(holder.output().lines().count(), 1);
        let ready = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("ready").output().unwrap();
        assert!(ready.status.success(), "{ready:?}");
        println!("it takes {} KiB", testbed::resident(holder.pid()) >> 10);
        let told = Instant::now();
        holder.signal(signal);
        assert_eq!(holder.wait_exit(), 0);
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    }
    let ready = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("ready").output().unwrap();
    assert!(!ready.status.success(), "nobody is here any more");
}

/// The same with containers: `evenkeel hold` has the address and the alias, and proxies join its network namespace.
mod on_engine {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use testbed::confined;
    use testbed::docker::{Bridge, Guest, docker, engine_answers, try_docker};

    /// The proxy as it is shipped; only what its probes ask for is the testbed's.
    fn shipped(folder: &tempfile::TempDir) -> App {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.path().join("proxy.toml");
        let (from, to) = ("path = \"/ping\"", "path = \"/status/200\"");
        assert!(include_str!("../../proxy.toml").contains(from), "proxy.toml no longer says {from}");
        std::fs::write(&file, include_str!("../../proxy.toml").replace(from, to)).unwrap();
        let mut app = App::new(env!("CARGO_BIN_EXE_evenkeel"))
            .env("UPSTREAM", "app:8080")
            .env("EVENKEEL_CONFIG", file.display())
            .env("REUSE_PORT", "true");
        app.mount = Some(folder.path().to_owned());
        app
    }

    /// One with these options.
    fn run(what: &str, options: &[&str], app: &App) -> Guest {
        Guest::run(what, options.iter().map(|option| (*option).to_owned()).chain(confined(app, what)))
    }

    /// Starts one, and waits until it says that it is ready.
    fn start(holder: &Guest, app: &App) -> Guest {
        let proxy = run("proxy", &["--network", &format!("container:{}", holder.name())], app);
        let ready = ["exec", proxy.name(), env!("CARGO_BIN_EXE_evenkeel"), "ready"];
        eventually("the new proxy is ready", || try_docker(ready).is_ok());
        proxy
    }

    /// How many requests, and how many a second: by default what any machine does beside its other tests.
    /// `EVENKEEL_REDEPLOY_REQUESTS=100000` sends so many, a thousand a second.
    fn size() -> (f64, f64) {
        let told = std::env::var("EVENKEEL_REDEPLOY_REQUESTS").ok();
        told.map_or((6000.0, 200.0), |told| (told.parse().expect("a number of requests"), 1000.0))
    }

    // P15
    #[test]
    fn ten_redeploys_beside_a_holder_lose_nothing() {
        if !engine_answers("redeploy::on_engine::ten_redeploys_beside_a_holder") {
            return;
        }
        let (requests, rate) = size();
        let network = Bridge::new(&[]);
        let on = |alias: &'static str| ["--network", network.name(), "--network-alias", alias];
        let replica = App::replica().env("MEAN_MS", 3);
        let _replicas = [0; 2].map(|_| run("app", &on("app"), &replica));
        let mut hold = App::new(env!("CARGO_BIN_EXE_evenkeel"));
        hold.args = vec!["hold".into()];
        let migrate = ["--sysctl", "net.ipv4.tcp_migrate_req=1"];
        // Process 1 itself, as in its image.
        let options = on("proxy").into_iter().chain(migrate).map(String::from);
        let holder =
            Guest::run("holder", options.chain(confined(&hold, "holder").into_iter().filter(|o| o != "--init")));
        let folder = tempfile::tempdir().unwrap();
        let app = shipped(&folder);
        let mut proxy = start(&holder, &app);
        // A connection per request leaves the client's port in TIME_WAIT for a minute: it needs many.
        let ports = ["--network", network.name(), "--sysctl", "net.ipv4.ip_local_port_range=1024 65535"];
        let client = |keep: &str| {
            let app = App::new(testbed::binary("client"));
            run("client", &ports, &app.env("TARGET", "proxy:8080").env("RATE", rate / 2.0).env("KEEP", keep))
        };
        let clients = ["yes", "no"].map(|keep| (keep, client(keep)));
        let began = Instant::now();
        let whole = Duration::from_secs_f64(requests / rate);
        let mut retired = vec![];
        for turn in 1..=10 {
            eventually("the next redeploy is due", || began.elapsed() >= whole * turn / 11);
            let next = start(&holder, &app);
            docker(["kill", "--signal", "TERM", proxy.name()]);
            retired.push(std::mem::replace(&mut proxy, next));
        }
        eventually("all is sent", || began.elapsed() >= whole);
        for old in &retired {
            docker(["wait", old.name()]);
            let logs = old.logs();
            assert_eq!(old.inspect("{{.State.ExitCode}}"), "0", "{logs}");
            assert!(logs.contains("handed over") && !logs.contains("cut off"), "{logs}");
        }
        for (keep, client) in clients {
            let told = client.end_client();
            let lost = told["losses"].as_array().unwrap();
            println!(
                "connections kept: {keep}; {} requests, lost {}; p50 {} p99 {} ms",
                told["sent"],
                lost.len(),
                told["p50"],
                told["p99"]
            );
            assert!(lost.is_empty(), "{lost:#?}");
        }
        // The holder is told to go, and goes.
        let told = Instant::now();
        docker(["stop", "--time", "20", holder.name()]);
        assert_eq!(holder.inspect("{{.State.ExitCode}}"), "0");
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    }
}
