//! Replicas that get slow and fast again: load moves away and comes back.

use crate::Bed;
use testbed::{App, Load, Loopback, Network, Plan, Wire};

// F31, F81
#[test]
fn a_slow_replica_gets_little_and_has_its_share_back_five_seconds_after_it_recovers() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica().env("MEAN_MS", 5), 3);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_up("app", &replicas.iter().map(|r| r.address()).collect::<Vec<_>>());
    let load = Load::start(Plan::new(bed.proxy.address(), 100.0));
    load.wait_sent(200);
    let mean = |ms: u32| {
        let mut wire = Wire::connect(replicas[0].address());
        wire.get(&format!("/control?mean_ms={ms}"));
        assert_eq!(wire.response().unwrap().status, 200);
    };
    // Twenty times slower: a busy machine does not hide it.
    mean(100);
    load.phase("found out");
    load.wait_sent(200);
    load.phase("slow");
    load.wait_sent(500);
    mean(5);
    load.phase("tried again");
    load.wait_sent(500);
    load.phase("recovered");
    load.wait_sent(300);
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}", report.lost());
    let share = |phase: &str| report.phase(phase).by_replica().get(replicas[0].name().as_str()).copied().unwrap_or(0);
    // A trial in two hundred answers, and a few more where the fast ones have queues.
    assert!(share("slow") <= 25, "{} of 500 while it is slow", share("slow"));
    // A hundred are fair, with a standard deviation of 8.
    assert!(share("recovered") >= 60, "{} of 300 five seconds after", share("recovered"));
}
