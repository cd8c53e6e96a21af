//! Replicas that die in ways that take more than one attempt to get over.

use crate::{Bed, GET, POST, assert_own, serve};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testbed::{Loopback, Origin, eventually};

// 42, of all replicas: a deploy that ends the old ones one right after the other
#[test]
fn a_get_outlives_replicas_that_die_one_right_after_the_other_just_as_it_reaches_them() {
    let network = Loopback::new();
    let met = Arc::new(AtomicUsize::new(0));
    let dying = |network: &Loopback| -> Origin {
        let met = met.clone();
        network.origin("app", move |_, wire, _| {
            met.fetch_add(1, Ordering::Relaxed);
            wire.reset();
        })
    };
    let origins = (0..3).map(|_| dying(&network)).collect();
    let mut bed = Bed::around(network, origins, |c| c.set("upstream.app.wait", "20s"));
    eventually("all are proven", || bed.proxy.lines("up: probe passed").len() == 3);
    let mut wire = bed.client();
    wire.send(GET);
    // With a third attempt at once, the third replica would be met alive, and there would be no fourth.
    eventually("two died of it", || met.load(Ordering::Relaxed) == 2);
    bed.origins.clear();
    let _new = bed.network.origin("app", |h, w, _| serve(h, w));
    assert_eq!(wire.response().unwrap().status, 200, "{}", bed.proxy.output());
    assert_eq!(met.load(Ordering::Relaxed), 2);
}

// 42, 82
#[test]
fn a_post_that_met_a_dying_replica_is_told_at_once() {
    let bed = Bed::new(|head, wire, _| {
        let _ = wire.body(head);
        wire.reset();
    });
    assert_own(&bed.ask(POST), 502);
    assert_eq!(bed.origin().requests(), 1);
}

/// An address to which there is no way, until dropped.
struct NoWay(SocketAddr);

impl NoWay {
    /// `None` where the machine does not let us change its routes.
    fn to(address: SocketAddr) -> Option<NoWay> {
        route("add", address).then_some(NoWay(address))
    }
}

impl Drop for NoWay {
    fn drop(&mut self) {
        route("del", self.0);
    }
}

fn route(verb: &str, to: SocketAddr) -> bool {
    let (to, table) = (format!("{}/32", to.ip()), ["table", "local"]);
    Command::new("ip").args(["route", verb, "unreachable", &to]).args(table).output().is_ok_and(|o| o.status.success())
}

// 21
#[test]
fn a_replica_to_which_there_is_no_way_costs_no_request_of_any_method() {
    let network = Loopback::new();
    let origins = (0..2).map(|_| network.origin("app", |h, w, _| serve(h, w))).collect();
    let bed = Bed::around(network, origins, |c| {
        c.set("upstream.app.probe.interval", "30s")
            .set("upstream.app.probe.timeout", "1s")
            .set("upstream.app.idle_timeout", "50ms")
    });
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    for _ in 0..40 {
        assert_eq!(bed.ask(GET).status, 200);
    }
    eventually("no connection is kept", || bed.proxy.endpoints("app").iter().all(|e| e["idle_connections"] == 0));
    let Some(_way) = NoWay::to(bed.origin().address()) else {
        println!("not tested: this needs the right to change routes");
        return;
    };
    let before = bed.origin().requests();
    for request in [GET, POST].into_iter().cycle().take(40) {
        assert_eq!(bed.ask(request).status, 200);
    }
    assert_eq!(bed.origin().requests(), before);
    assert!(!bed.proxy.lines("suspect: ").is_empty(), "it was tried, and said: {}", bed.proxy.output());
}
