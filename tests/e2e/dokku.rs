//! Deploys in Dokku's order, emulated on the engine, of the app behind the proxy and of the proxy itself, under the load
//! of a client that never retries.

use serde_json::Value;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use testbed::docker::{Bridge, Guest, docker, engine_answers, try_docker, wait_ended};
use testbed::dokku::{Attachment, Check, DokkuApp, Ending, Retirement};
use testbed::{App, Load, Loss, LossKind, Plan, Told, Wire, eventually};

/// Requests a second.
const RATE: f64 = 100.0;

/// An app that loses what it holds at SIGTERM, as one without a handler does; and its requests take a while.
fn careless() -> App {
    App::replica().env("MEAN_MS", 10).env("LISTEN_AFTER_MS", 500)
}

/// One that finishes what it holds.
fn careful() -> App {
    careless().env("ON_TERM", "graceful")
}

/// The proxy as it is shipped; only what its probes ask for is the testbed's, and its drain is as short as the pace of
/// these deploys.
fn proxy(folder: &tempfile::TempDir, upstream: &str) -> App {
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = folder.path().join("proxy.toml");
    let changes = [("path = \"/ping\"", "path = \"/status/200\""), ("drain = \"${DRAIN:-9s}\"", "drain = \"8s\"")];
    let toml = changes.iter().fold(include_str!("../../proxy.toml").to_owned(), |toml, (from, to)| {
        assert!(toml.contains(from), "proxy.toml no longer says {from}");
        toml.replace(from, to)
    });
    std::fs::write(&file, toml).unwrap();
    let mut app = App::new(env!("CARGO_BIN_EXE_evenkeel"))
        .env("UPSTREAM", format!("{upstream}:8080"))
        .env("EVENKEEL_CONFIG", file.display());
    app.mount = Some(folder.path().to_owned());
    app
}

fn ready() -> Check {
    Check::Startup(vec![env!("CARGO_BIN_EXE_evenkeel").into(), "ready".into()])
}

/// The app and the proxy in front of it, both deployed.
struct Bed<'a> {
    proxy: DokkuApp<'a>,
    app: DokkuApp<'a>,
    _folder: tempfile::TempDir,
}

impl<'a> Bed<'a> {
    fn new(network: &'a Bridge, program: App, count: usize, attachment: Attachment) -> Bed<'a> {
        let mut app = DokkuApp::new("db-checker", network, program, attachment);
        app.deploy(count).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut proxy = DokkuApp::new("proxy", network, proxy(&folder, &app.alias()), Attachment::NetAlias);
        proxy.check = ready();
        proxy.deploy(1).unwrap();
        let bed = Bed { proxy, app, _folder: folder };
        bed.wait_up(count);
        bed
    }

    /// Waits until the proxy has so many replicas that are up and nobody else that is active.
    fn wait_up(&self, count: usize) {
        eventually(&format!("{count} replicas are up"), || {
            self.status().contains(&format!(" {count} of {count} replicas usable "))
        });
    }

    fn status(&self) -> String {
        try_docker(["exec", &self.proxy.containers()[0], env!("CARGO_BIN_EXE_evenkeel"), "status"]).unwrap_or_default()
    }

    fn address(&self) -> SocketAddr {
        let ip = self.proxy.address(&self.proxy.containers()[0]);
        (ip.parse::<std::net::IpAddr>().unwrap(), 8080).into()
    }

    fn load(&self) -> BedLoad {
        let load = Load::start(Plan { posts: 0.1, ..Plan::new(self.address(), RATE) });
        BedLoad { began: Instant::now() - load.elapsed(), load }
    }

    /// Nothing is lost.
    #[track_caller]
    fn assert_kept(&self, load: BedLoad) {
        self.assert_lost_only(load, |_, _, _| false);
    }

    /// Nothing is lost but what the app's containers had under way as they ended: a POST may have been done, so it is not sent
    /// again, and an answer that had begun is cut. The proxy's log says at which address each was.
    #[track_caller]
    fn assert_lost_only_what_ended(&self, load: BedLoad) {
        self.assert_lost_only(load, |loss, time, told| {
            let dropped = match loss.kind {
                LossKind::Broken(_) => !loss.repeatable,
                LossKind::Cut(_) => true,
                _ => false,
            };
            let there = |ending: &&Ending| told.endpoints.last().is_some_and(|last| last.ip() == ending.address);
            let meanwhile = |ending: &Ending| {
                *ending.time.start() <= *time.end() && *time.start() <= *ending.time.end() + testbed::UNSEEN
            };
            dropped && self.app.endings().iter().filter(there).any(meanwhile)
        });
    }

    /// Nothing is lost, except what `forgiven` forgives by what the proxy says of it; it had begun and ended in that time.
    #[track_caller]
    fn assert_lost_only(&self, load: BedLoad, forgiven: impl Fn(&Loss, RangeInclusive<Instant>, &Told) -> bool) {
        let (began, report) = (load.began, load.load.stop());
        let log = docker(["logs", &self.proxy.containers()[0]]);
        let told = testbed::told(&log);
        println!("{}", report.table());
        let unforgiven = |loss: &&Loss| {
            let time = began + loss.due..=began + loss.due + loss.after;
            !told.get(&loss.id).is_some_and(|told| forgiven(loss, time, told))
        };
        let lost: Vec<_> = report.lost().iter().filter(unforgiven).collect();
        let of_it: Vec<_> = lost.iter().map(|loss| (began + loss.due, told.get(&loss.id))).collect();
        assert!(lost.is_empty(), "{lost:#?}\n{of_it:#?}\n{:#?}\n{log}", self.app.endings());
    }
}

/// A load, and when it began.
struct BedLoad {
    load: Load,
    began: Instant,
}

impl std::ops::Deref for BedLoad {
    type Target = Load;

    fn deref(&self) -> &Load {
        &self.load
    }
}

/// Two deploys, one of them to another scale, under load.
fn redeploy(test: &str, program: App, attachment: Attachment, retirement: Retirement) {
    if !engine_answers(&format!("dokku::{test}")) {
        return;
    }
    let drops = !program.env.iter().any(|(name, _)| name == "ON_TERM");
    let network = Bridge::new(&[]);
    let mut bed = Bed::new(&network, program, 2, attachment);
    bed.app.retirement = retirement;
    let load = bed.load();
    for count in [3, 2] {
        load.phase(&format!("to {count}"));
        bed.app.deploy(count).unwrap();
        bed.app.retire();
        bed.wait_up(count);
        load.wait_sent(50);
    }
    if drops { bed.assert_lost_only_what_ended(load) } else { bed.assert_kept(load) }
}

#[test]
fn redeploys_lose_nothing_where_containers_are_attached_after_their_creation() {
    redeploy("attach_post_create", careful(), Attachment::PostCreate, Retirement::EarlyTerm);
}

#[test]
fn redeploys_of_an_app_that_drops_what_it_holds_cost_only_that() {
    redeploy("attach_post_create, careless", careless(), Attachment::PostCreate, Retirement::EarlyTerm);
}

#[test]
fn redeploys_where_containers_are_attached_after_their_checks_cost_only_what_the_old_ones_dropped() {
    redeploy("attach_post_deploy", careless(), Attachment::PostDeploy, Retirement::EarlyTerm);
}

#[test]
fn redeploys_with_the_docker_options_of_2018_cost_only_what_the_old_ones_dropped() {
    redeploy("net_alias", careless(), Attachment::NetAlias, Retirement::EarlyTerm);
}

#[test]
fn redeploys_lose_nothing_in_the_order_before_0_38() {
    redeploy("before 0.38", careful(), Attachment::PostCreate, Retirement::AfterWait);
}

#[test]
fn a_deploy_whose_check_fails_costs_only_what_its_killed_containers_dropped() {
    if !engine_answers("dokku::a_deploy_whose_check_fails") {
        return;
    }
    let network = Bridge::new(&[]);
    let mut bed = Bed::new(&network, careful(), 2, Attachment::PostCreate);
    let load = bed.load();
    load.wait_sent(50);
    load.phase("failed");
    // It is in DNS, listens, and is gone two seconds later.
    bed.app.check = Check::Startup(vec!["/no-such-program".into()]);
    bed.app.deploy(2).unwrap_err();
    bed.wait_up(2);
    load.wait_sent(100);
    // Dokku removes them by force.
    bed.assert_lost_only_what_ended(load);
}

#[test]
fn a_deploy_without_checks_is_waited_out() {
    if !engine_answers("dokku::a_deploy_without_checks") {
        return;
    }
    let network = Bridge::new(&[]);
    let mut bed = Bed::new(&network, careful(), 2, Attachment::PostCreate);
    bed.app.retirement = Retirement::Before;
    bed.app.check = Check::Uptime(Duration::ZERO);
    let load = bed.load();
    load.wait_sent(50);
    load.phase("nobody is there");
    bed.app.deploy(2).unwrap();
    bed.wait_up(2);
    load.wait_sent(100);
    bed.assert_kept(load);
}

/// A client on the network, which finds the proxy by its alias; with or without connections that are kept for further
/// requests.
fn client(network: &Bridge, keep: &str) -> Guest {
    let app = App::new(testbed::binary("client")).env("TARGET", "proxy:8080").env("RATE", RATE).env("KEEP", keep);
    Guest::on(network, "client", &app)
}

#[test]
fn a_redeploy_of_the_proxy_itself_loses_only_what_asks_where_nobody_listens() {
    if !engine_answers("dokku::a_redeploy_of_the_proxy_itself") {
        return;
    }
    let network = Bridge::new(&[]);
    let mut bed = Bed::new(&network, careful(), 2, Attachment::PostCreate);
    let watcher = watcher(&network);
    let clients = ["yes", "no"].map(|keep| (keep, client(&network, keep)));
    // When somebody began to listen, and when somebody ended, at which address.
    let (mut listens, mut ends) = (vec![], vec![]);
    for _ in 0..2 {
        let old_address = bed.proxy.address(&bed.proxy.containers()[0]);
        // Both are under the alias; the old one is told to go, and serves on until nobody comes.
        bed.proxy.deploy(1).unwrap();
        bed.wait_up(2);
        let new = &bed.proxy.containers()[0];
        listens.push((bed.proxy.address(new), millis(docker(["logs", new]).split(' ').next().unwrap())));
        for old in bed.proxy.retiring() {
            assert_eq!(wait_ended(&old), 0, "{}", docker(["logs", &old]));
            ends.push((old_address.clone(), millis(&docker(["inspect", "--format", "{{.State.FinishedAt}}", &old]))));
        }
        bed.proxy.retire();
    }
    let reports = clients.map(|(keep, client)| (keep, client.end_client()));
    let seen: Vec<Value> = watcher.logs().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let listed = |told: &Value, address: &str| {
        told["answer"]["records"].as_array().is_some_and(|all| all.iter().any(|record| record == address))
    };
    let at = |told: &Value| told["at"].as_i64().unwrap();
    // The record is there before somebody listens, and for a while after he ended.
    let early = listens.iter().map(|(address, listens)| {
        // The address may have been somebody else's before.
        let before = seen.iter().rev().skip_while(|told| at(told) > *listens);
        (before.take_while(|told| listed(told, address)).last().map_or(*listens, at), *listens)
    });
    let late = ends.iter().map(|(address, end)| {
        (*end, at(seen.iter().find(|told| at(told) > *end && !listed(told, address)).expect("its record goes")))
    });
    let windows: Vec<(i64, i64)> = early.chain(late).collect();
    let lengths: Vec<i64> = windows.iter().map(|(from, to)| to - from).collect();
    println!("records without anybody who listens, two before a start and two after an end: {lengths:?} ms");
    for (keep, told) in reports {
        let start = told["start"].as_i64().unwrap();
        let losses = told["losses"].as_array().unwrap();
        println!("connections kept: {keep}; {} requests, lost {}", told["sent"], losses.len());
        for loss in losses {
            assert!(loss["kind"].as_str().unwrap().starts_with("Connect"), "{loss}: it was taken and not answered");
            let due = start + loss["due"].as_i64().unwrap();
            // A name is resolved a moment before it is used, and the engine notices an end a moment after it.
            let in_window = |(from, to): &(i64, i64)| (from - 500..to + 500).contains(&due);
            assert!(windows.iter().any(in_window), "{loss}, due at {due}: {windows:?}");
        }
    }
}

/// A time of day, in milliseconds.
fn millis(rfc3339: &str) -> i64 {
    let time = humantime::parse_rfc3339(rfc3339).unwrap_or_else(|e| panic!("{rfc3339}: {e}"));
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Somebody on the network who watches which addresses the proxy's alias has, and tells of each answer that differs from
/// the one before.
fn watcher(network: &Bridge) -> Guest {
    let mut app = App::new(testbed::binary("ask"));
    app.args = ["proxy.", "--watch", "600000"].map(Into::into).into();
    Guest::on(network, "watcher", &app)
}

/// `web` asks by the recipe's names and ports; what its users see where db-checker is not there.
#[test]
fn users_of_web_see_the_500_of_a_direct_dial_when_no_replica_is_left() {
    if !engine_answers("dokku::users_of_web_see_the_500") {
        return;
    }
    let network = Bridge::new(&[]);
    let mut checker =
        DokkuApp::new("db-checker", &network, App::new(testbed::binary("db-checker")), Attachment::PostCreate);
    checker.check = Check::Uptime(Duration::ZERO);
    let postgres = testbed::Postgres::start(network.gateway()).unwrap();
    checker.set_app(App::new(testbed::binary("db-checker")).env("DATABASE_URL", postgres.url()));
    checker.deploy(2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The port of the recipe: what EXPOSE says becomes PORT, and so `http://proxy/ping` is right without one.
    let program = proxy(&folder, &checker.alias()).env("PORT", 80);
    std::fs::write(folder.path().join("proxy.toml"), include_str!("../../proxy.toml")).unwrap();
    let mut proxy = DokkuApp::new("proxy", &network, program, Attachment::NetAlias);
    proxy.check = ready();
    proxy.deploy(1).unwrap();
    let program = App::new(testbed::binary("web")).env("CHECK_DB_URL", "http://proxy/ping");
    let mut web = DokkuApp::new("web", &network, program, Attachment::PostCreate);
    web.check = Check::Uptime(Duration::ZERO);
    web.deploy(1).unwrap();
    let at = SocketAddr::new(web.address(&web.containers()[0]).parse().unwrap(), 8080);
    let check_db = || {
        let Ok(mut wire) = Wire::try_connect(at) else { return (0, String::new()) };
        wire.get("/check_db");
        wire.response().map_or((0, String::new()), |response| (response.status, response.text()))
    };
    eventually("all is well", || check_db() == (200, "DB is available".into()));
    for replica in checker.containers() {
        docker(["stop", "--time", "1", replica]);
    }
    let (status, text) = check_db();
    assert!(status == 500 && text.starts_with("could not check if DB is available: "), "{status} {text}");
    checker.deploy(2).unwrap();
    eventually("all is well again", || check_db() == (200, "DB is available".into()));
}
