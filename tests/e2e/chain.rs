//! The whole chain, web → evenkeel → db-checker × 3 → PostgreSQL, with the shipped `proxy.toml`: what web's users see is
//! the same with the proxy in the middle as without.

use std::net::SocketAddr;
use std::time::Duration;
use testbed::{App, Container, Network, Postgres, Proxy, Signal, Wire, binary, eventually};

on_every_testbed! {
    users_see_the_database_come_and_go
    users_do_not_see_a_replica_die_or_new_ones_come
    users_see_a_transport_error_with_the_proxy_as_without_when_no_replica_is_left
    users_see_a_transport_error_before_they_give_up_when_all_replicas_are_removed_by_force
    users_see_a_transport_error_when_the_alias_was_never_there
    a_frozen_database_is_unavailable_and_a_frozen_replica_is_not_noticed
}

/// The shipped file; only where it listens and whom it asks is the testbed's.
fn shipped(network: &impl Network) -> String {
    let text = include_str!("../../proxy.toml");
    let changes = [
        ("#listen = \"[::]:80\"", "listen = \"${HOST}:80\"".to_owned()),
        ("\"${ADMIN:-127.0.0.1:9180}\"", "\"${HOST}:9180\"".to_owned()),
        ("#server = \"127.0.0.11:53\"", format!("server = \"{}\"", network.resolver())),
    ];
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "proxy.toml no longer says {from}");
        text.replace(from, to)
    })
}

struct Chain<N> {
    /// Two of them: one asks the proxy, one asks the first db-checker.
    webs: [Box<dyn Container>; 2],
    _proxy: Proxy,
    checkers: Vec<Box<dyn Container>>,
    postgres: Postgres,
    network: N,
}

impl<N: Network> Chain<N> {
    fn new(network: N, replicas: usize) -> Chain<N> {
        let postgres = Postgres::start(network.host()).unwrap_or_else(|e| panic!("{e}"));
        let checker = App::new(binary("db-checker")).env("DATABASE_URL", postgres.url());
        let checkers = network.scale("db-checker", &checker, replicas);
        let proxy_app =
            App::new(env!("CARGO_BIN_EXE_evenkeel")).env("UPSTREAM", format!("db-checker:{}", network.port()));
        let proxy = Proxy::launch_with(&network, proxy_app, &shipped(&network));
        proxy.wait_ready();
        let web = |to: SocketAddr| {
            let web = network.start("web", &App::new(binary("web")).env("CHECK_DB_URL", format!("http://{to}/ping")));
            web.wait_listening();
            web
        };
        // Port 9 was for discarding what comes: nobody listens there any more.
        let nobody = SocketAddr::new(network.host(), 9);
        let direct = checkers.first().map_or(nobody, |c| c.address());
        let webs = [web(proxy.address()), web(direct)];
        Chain { webs, _proxy: proxy, checkers, postgres, network }
    }

    /// What a user of each web sees.
    fn answers(&self) -> [(u16, String); 2] {
        [0, 1].map(|i| check_db(&*self.webs[i]))
    }

    #[track_caller]
    fn assert_both(&self, status: u16, text: &str) {
        for (status_seen, seen) in self.answers() {
            assert_eq!((status_seen, seen.as_str()), (status, text));
        }
    }

    /// Each user sees an error of the transport, which is one of a connection and no status of anybody's.
    #[track_caller]
    fn assert_both_fail(&self) {
        self.assert_proxied_fails();
        // Refused; where the address is gone, it may be that nothing is heard at all until it gives up.
        assert_cannot_check(&*self.webs[1], &["client error (Connect): ", "no answer within "]);
    }

    /// The user of the web that asks the proxy sees that its request was taken and closed unanswered.
    #[track_caller]
    fn assert_proxied_fails(&self) {
        assert_cannot_check(&*self.webs[0], &["client error (SendRequest): "]);
    }
}

#[track_caller]
fn assert_cannot_check(web: &dyn Container, why: &[&str]) {
    let (status, text) = check_db(web);
    assert_eq!(status, 500, "{} says {text}", web.name());
    let error = text.strip_prefix("could not check if DB is available: http://").unwrap_or_default();
    let cause = error.split_once("/ping: ").map_or("", |(_, cause)| cause);
    assert!(why.iter().any(|why| cause.starts_with(why)), "{} says {text}", web.name());
}

fn check_db(web: &dyn Container) -> (u16, String) {
    let mut wire = Wire::connect(web.address());
    wire.get("/check_db");
    let response = wire.response().unwrap();
    (response.status, response.text())
}

fn users_see_the_database_come_and_go(network: impl Network) {
    let mut chain = Chain::new(network, 3);
    chain.assert_both(200, "DB is available");
    chain.postgres.stop();
    chain.assert_both(200, "DB is not available");
    // 424 is an answer: no replica is taken for ill, none is tried in vain.
    for _ in 0..30 {
        chain.assert_both(200, "DB is not available");
    }
    chain.postgres.resume().unwrap();
    eventually("the database is back for both", || {
        chain.answers().iter().all(|(status, text)| (*status, text.as_str()) == (200, "DB is available"))
    });
    for _ in 0..30 {
        chain.assert_both(200, "DB is available");
    }
}

fn users_do_not_see_a_replica_die_or_new_ones_come(network: impl Network) {
    let mut chain = Chain::new(network, 3);
    chain.checkers[0].signal(Signal::SIGKILL);
    for _ in 0..60 {
        assert_eq!(check_db(&*chain.webs[0]), (200, "DB is available".into()));
    }
    let checker = App::new(binary("db-checker")).env("DATABASE_URL", chain.postgres.url());
    chain.checkers.extend(chain.network.scale("db-checker", &checker, 2));
    chain.checkers[1].signal(Signal::SIGTERM);
    chain.checkers[2].signal(Signal::SIGTERM);
    for _ in 0..60 {
        assert_eq!(check_db(&*chain.webs[0]), (200, "DB is available".into()));
    }
}

// T12
fn users_see_a_transport_error_with_the_proxy_as_without_when_no_replica_is_left(network: impl Network) {
    let mut chain = Chain::new(network, 2);
    chain.assert_both(200, "DB is available");
    for checker in &chain.checkers {
        checker.signal(Signal::SIGTERM);
        checker.wait_exit();
    }
    chain.checkers.clear();
    chain.assert_both_fail();
    // And however often they ask.
    chain.assert_both_fail();
    // Back again, without a restart of anything else.
    let checker = App::new(binary("db-checker")).env("DATABASE_URL", chain.postgres.url());
    chain.checkers = chain.network.scale("db-checker", &checker, 1);
    eventually("users see it again", || check_db(&*chain.webs[0]) == (200, "DB is available".into()));
}

// T12, F90
fn users_see_a_transport_error_before_they_give_up_when_all_replicas_are_removed_by_force(network: impl Network) {
    let mut chain = Chain::new(network, 2);
    chain.assert_both(200, "DB is available");
    chain.checkers.clear();
    for _ in 0..3 {
        chain.assert_proxied_fails();
    }
}

fn users_see_a_transport_error_when_the_alias_was_never_there(network: impl Network) {
    let chain = Chain::new(network, 0);
    chain.assert_both_fail();
}

fn a_frozen_database_is_unavailable_and_a_frozen_replica_is_not_noticed(network: impl Network) {
    let mut chain = Chain::new(network, 3);
    chain.assert_both(200, "DB is available");
    chain.postgres.pause();
    chain.assert_both(200, "DB is not available");
    chain.postgres.resume().unwrap();
    eventually("the database is back", || check_db(&*chain.webs[0]) == (200, "DB is available".into()));
    chain.checkers[2].pause();
    let start = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(check_db(&*chain.webs[0]), (200, "DB is available".into()));
    }
    // At most the one or two that were with it when it froze waited for the probes to find out.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    chain.checkers[2].resume();
}
