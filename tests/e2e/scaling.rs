//! Replicas that come and go while requests run: nothing is lost, and nobody is asked too early or too late.

use crate::Bed;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testbed::{
    App, Container, Load, Loopback, Loss, LossKind, Network, Plan, ProxyConfig, Report, Restart, Signal, Wire,
    eventually,
};

on_every_testbed! {
    scaling_up_and_down_loses_nothing_and_sends_no_post_twice
    replacing_all_replicas_loses_nothing
    a_replica_that_returns_elsewhere_is_used_there
    disconnecting_a_replica_from_the_network_loses_no_get_and_no_later_post
    requests_wait_out_a_moment_without_any_replica
    replicas_alike_share_alike
}

/// A load through the proxy, a tenth of it POSTs.
fn load(bed: &Bed<impl Network>) -> Load {
    Load::start(Plan { posts: 0.1, ..Plan::new(bed.proxy.address(), 100.0) })
}

fn addresses(replicas: &[Box<dyn Container>]) -> Vec<std::net::SocketAddr> {
    replicas.iter().map(|r| r.address()).collect()
}

fn bed<N: Network>(network: N, count: usize, app: &App) -> (Vec<Box<dyn Container>>, Bed<N>) {
    let replicas = network.scale("app", app, count);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_up("app", &addresses(&replicas));
    (replicas, bed)
}

#[track_caller]
fn assert_nothing_lost(report: &Report, bed: &Bed<impl Network>) {
    assert!(report.lost().is_empty(), "{:#?}\n{}\n{}", report.lost(), report.table(), bed.proxy.output());
}

/// How often each id of what has a body came, by the words of replicas that have ended in good order.
fn received(ended: &[Box<dyn Container>]) -> HashMap<u64, u32> {
    let mut times = HashMap::new();
    for replica in ended {
        replica.wait_for_line("has answered everything");
        for line in replica.output().lines().filter_map(|line| line.strip_prefix("received ")) {
            let (id, count) = line.split_once(' ').unwrap();
            *times.entry(id.parse().unwrap()).or_default() += count.parse::<u32>().unwrap();
        }
    }
    times
}

fn scaling_up_and_down_loses_nothing_and_sends_no_post_twice(network: impl Network) {
    let (mut replicas, bed) = bed(network, 2, &App::replica().env("ON_TERM", "graceful").env("MEAN_MS", 5));
    let load = Load::start(Plan { posts: 0.1, puts: 0.1, ..Plan::new(bed.proxy.address(), 100.0) });
    load.wait_sent(50);
    load.phase("up to five");
    replicas.extend(bed.network.scale("app", &App::replica().env("ON_TERM", "graceful").env("MEAN_MS", 5), 3));
    bed.proxy.wait_up("app", &addresses(&replicas));
    load.wait_sent(100);
    load.phase("down to two");
    let leaving = replicas.split_off(2);
    // `docker stop`: the app is told first, and its record goes when it has ended.
    leaving.iter().for_each(|r| r.signal(Signal::SIGTERM));
    leaving.iter().for_each(|r| assert_eq!(r.wait_exit(), 0));
    bed.proxy.wait_up("app", &addresses(&replicas));
    load.wait_sent(50);
    let report = load.stop();
    assert_nothing_lost(&report, &bed);
    let shares = report.phase("up to five").by_replica().len();
    assert_eq!(shares, 5, "{:?}", report.phase("up to five").by_replica());
    replicas.iter().for_each(|r| r.signal(Signal::SIGTERM));
    replicas.iter().for_each(|r| assert_eq!(r.wait_exit(), 0));
    replicas.extend(leaving);
    let times = received(&replicas);
    let once = report.once();
    assert!(once.len() > 10 && once.iter().all(|id| times.get(id) == Some(&1)), "{once:?}, received: {times:?}");
}

fn replacing_all_replicas_loses_nothing(network: impl Network) {
    let app = App::replica().env("ON_TERM", "graceful").env("MEAN_MS", 5);
    let (old, bed) = bed(network, 3, &app);
    let load = load(&bed);
    load.wait_sent(50);
    // Dokku's order: the new ones are in DNS before they listen; checks pass; the old ones are told to go, all at once.
    let new: Vec<_> = (0..3).map(|_| bed.network.start("app", &app.clone().env("LISTEN_AFTER_MS", 300))).collect();
    new.iter().for_each(|r| r.wait_listening());
    load.wait_sent(30);
    old.iter().for_each(|r| r.signal(Signal::SIGTERM));
    old.iter().for_each(|r| assert_eq!(r.wait_exit(), 0));
    bed.proxy.wait_up("app", &addresses(&new));
    load.wait_sent(50);
    let report = load.stop();
    assert_nothing_lost(&report, &bed);
    assert_eq!(report.by_replica().len(), 6);
}

fn a_replica_that_returns_elsewhere_is_used_there(network: impl Network) {
    let (replicas, bed) = bed(network, 2, &App::replica());
    let load = Load::start(Plan::new(bed.proxy.address(), 100.0));
    load.wait_sent(30);
    replicas[0].signal(Signal::SIGKILL);
    replicas[0].wait_exit();
    load.wait_sent(30);
    replicas[0].restart(Restart::NewAddress);
    replicas[0].wait_listening();
    bed.proxy.wait_up("app", &addresses(&replicas));
    load.wait_sent(30);
    assert_nothing_lost(&load.stop(), &bed);
}

fn disconnecting_a_replica_from_the_network_loses_no_get_and_no_later_post(network: impl Network) {
    let (replicas, bed) = bed(network, 3, &App::replica().env("MEAN_MS", 20));
    let load = load(&bed);
    load.wait_sent(50);
    replicas[0].disconnect();
    bed.proxy.wait_up("app", &addresses(&replicas[1..]));
    load.phase("without it");
    load.wait_sent(50);
    let report = load.stop();
    // On an engine its cable is pulled with requests under way. GETs are saved unless their answers had begun; a POST that
    // it has may have been done.
    let cut = |l: &Loss| matches!(l.kind, LossKind::Cut(_));
    let lost: Vec<_> = report.lost().iter().filter(|l| (l.repeatable && !cut(l)) || l.phase != "start").collect();
    assert!(lost.is_empty(), "{lost:#?}\n{}\n{}", report.table(), bed.proxy.output());
    assert_eq!(report.phase("without it").by_replica().get(replicas[0].name().as_str()), None);
}

// P5
fn requests_wait_out_a_moment_without_any_replica(network: impl Network) {
    let (old, bed) = bed(network, 2, &App::replica());
    let load = load(&bed);
    load.wait_sent(50);
    drop(old);
    load.phase("nobody");
    load.wait_sent(60);
    let new = bed.network.scale("app", &App::replica().env("MEAN_MS", 5), 2);
    bed.proxy.wait_up("app", &addresses(&new));
    load.wait_sent(60);
    let report = load.stop();
    // What ran while the old ones were killed may be lost if it was a POST; what came later waited.
    let lost: Vec<_> = report.lost().iter().filter(|l| l.phase == "nobody" || l.repeatable).collect();
    assert!(lost.is_empty(), "{lost:#?}\n{}", bed.proxy.output());
}

// F83, U1
#[test]
fn requests_that_waited_are_released_as_the_new_replicas_answer_and_not_all_at_once() {
    const WAITING: usize = 300;
    let network = Loopback::new();
    let config = ProxyConfig::new(&network, "app").set("upstream.app.wait", "30s");
    let proxy = crate::start(&network, &config);
    let mut waiting: Vec<Wire> = (0..WAITING).map(|_| Wire::connect(proxy.address())).collect();
    waiting.iter_mut().for_each(|wire| wire.send(crate::GET));
    eventually("all wait", || proxy.status()["upstreams"][0]["waiting"] == WAITING);
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let _origins: Vec<_> = (0..2)
        .map(|_| {
            let (running, most) = (running.clone(), most.clone());
            network.origin("app", move |_, wire, _| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                running.fetch_sub(1, Ordering::SeqCst);
                crate::ok(wire);
            })
        })
        .collect();
    for wire in &mut waiting {
        assert_eq!(wire.response().unwrap().status, 200);
    }
    // Sixteen each, and once more where this machine let none of them answer for a fifth of a second.
    let most = most.load(Ordering::SeqCst);
    assert!((8..=72).contains(&most), "{most} of {WAITING} at once");
}

fn replicas_alike_share_alike(network: impl Network) {
    const ROUND: Duration = Duration::from_secs(3);
    let (_replicas, bed) = bed(network, 3, &App::replica());
    // Where the machine stalls one of the three for a few answers it is a slow one, rightly, and gets less. Such a round says
    // nothing of replicas alike, and the proxy says that it was one.
    let shares = (0..5).find_map(|_| {
        let plan = Plan { duration: Some(ROUND), ..Plan::new(bed.proxy.address(), 200.0) };
        let load = Load::start(plan);
        let mut alike = true;
        while load.elapsed() < ROUND {
            alike &= bed.proxy.endpoints("app").iter().all(|endpoint| endpoint["weight"] == 1.0);
            std::thread::sleep(Duration::from_millis(20));
        }
        let report = load.wait();
        assert_nothing_lost(&report, &bed);
        let shares: BTreeMap<_, _> = report.by_replica().into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
        println!("all weigh the same: {alike}; {shares:?}");
        alike.then_some(shares)
    });
    let shares = shares.expect("a round in which the machine stalled none of the three");
    // 600 picks among three: 200 each, standard deviation 11.5; five of them.
    assert!(shares.len() == 3 && shares.values().all(|n| (140..260).contains(n)), "{shares:?}");
}
