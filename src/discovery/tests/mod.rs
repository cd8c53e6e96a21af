//! The loop under a paused clock against a resolver that is told what to say, and the resolver against real sockets.

pub(crate) mod dns;

use super::*;
use crate::config;
use crate::pool::{Membership, Settings};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::time::Instant;

/// An upstream of `host`, asked for each second.
pub(crate) fn upstream(host: Host, port: u16) -> Arc<Upstream> {
    let second = Duration::from_secs(1);
    let settings = Settings {
        port,
        dns_interval: second,
        hold: 10 * second,
        probe_interval: second,
        rise: 1,
        fall: 2,
        max_in_flight: 0,
    };
    let probe = config::Probe {
        path: Some("/ping".to_owned()),
        grpc: None,
        protocol: config::Protocol::Http1,
        healthy: [200].into(),
        host: "db-checker".to_owned(),
        interval: second,
        timeout: second,
        rise: 1,
        fall: 2,
    };
    let config = config::Upstream {
        name: "db-checker".into(),
        host,
        port,
        protocol: config::Protocol::Http1,
        on_failure: config::OnFailure::Close,
        wait: 5 * second,
        max_waiting: 1024,
        connect_timeout: second,
        response_timeout: 60 * second,
        retries: 2,
        max_in_flight: 0,
        idle_timeout: 4 * second,
        max_idle: 256,
        host_header: config::HostHeader::Pass,
        forwarded: config::Forwarded::Off,
        probe,
    };
    Upstream::new(Arc::new(config), settings, 1)
}

pub(crate) fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 1, 0, last])
}

fn name() -> Host {
    Host::Name("db-checker".to_owned())
}

/// Says the same each time, after a while, and remembers when it was asked.
struct Scripted {
    answer: Resolution,
    takes: Duration,
    asked: Mutex<Vec<Instant>>,
    under_way: Mutex<usize>,
}

impl Scripted {
    fn new(answer: Resolution, takes: Duration) -> Arc<Self> {
        Arc::new(Scripted { answer, takes, asked: Mutex::default(), under_way: Mutex::default() })
    }

    async fn has_been_asked(&self, times: usize) {
        while self.asked.lock().len() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Resolve for Scripted {
    async fn resolve(&self, _: &Host) -> Resolution {
        self.asked.lock().push(clock::now());
        *self.under_way.lock() += 1;
        assert_eq!(*self.under_way.lock(), 1, "two questions of one upstream at once");
        tokio::time::sleep(self.takes).await;
        *self.under_way.lock() -= 1;
        self.answer.clone()
    }
}

fn addresses(last: impl IntoIterator<Item = u8>) -> Resolution {
    Resolution::Addresses(last.into_iter().map(ip).collect())
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_at_once_and_then_each_interval() {
    let upstream = upstream(name(), 8080);
    let resolver = Scripted::new(addresses([1]), Duration::ZERO);
    let began = clock::now();
    tokio::spawn(run(upstream.clone(), resolver.clone(), Arc::default()));
    resolver.has_been_asked(4).await;
    let offsets: Vec<_> = resolver.asked.lock().iter().map(|at| (*at - began).as_millis()).collect();
    assert!(offsets.iter().zip([0, 1000, 2000, 3000]).all(|(at, due)| at.abs_diff(due) < 20), "{offsets:?}");
    let endpoints = upstream.apply(|pool, now| pool.endpoints(now));
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].address, "127.1.0.1:8080".parse().unwrap());
    assert_eq!(endpoints[0].membership, Membership::Active);
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_server_is_slow_delays_no_other_name_and_is_not_asked_twice_at_once() {
    let (slow, fast) = (upstream(name(), 1), upstream(name(), 2));
    let slowly = Scripted::new(addresses([1]), Duration::from_millis(2500));
    let quickly = Scripted::new(addresses([2]), Duration::ZERO);
    tokio::spawn(run(slow, slowly.clone(), Arc::default()));
    tokio::spawn(run(fast, quickly.clone(), Arc::default()));
    quickly.has_been_asked(10).await;
    let asked = slowly.asked.lock().len();
    assert!((3..=4).contains(&asked), "{asked} questions of 2.5 s in 9 s");
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_asks_before_the_timer_does() {
    let upstream = upstream(name(), 8080);
    let resolver = Scripted::new(addresses([1, 2]), Duration::ZERO);
    tokio::spawn(run(upstream.clone(), resolver.clone(), Arc::default()));
    resolver.has_been_asked(2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = clock::now();
    upstream.apply(|pool, now| {
        let id = pool.endpoints(now)[0].id;
        let load = crate::pool::Load { in_flight: 1, at_end: 1, limit: u32::MAX };
        pool.record(id, crate::pool::Outcome::Refused, load, ip(9), now);
    });
    resolver.has_been_asked(3).await;
    let after = resolver.asked.lock()[2] - refused;
    assert!(after < Duration::from_millis(600), "asked only {after:?} after the refusal");
}

#[tokio::test(start_paused = true)]
async fn an_alias_that_also_names_the_proxy_does_not_lead_back_to_it() {
    let upstream = upstream(name(), 80);
    let resolver = Scripted::new(addresses([1, 2]), Duration::ZERO);
    let own = Own::new(["127.1.0.1:80".parse().unwrap()]);
    tokio::spawn(run(upstream.clone(), resolver.clone(), Arc::new(own)));
    resolver.has_been_asked(2).await;
    let endpoints = upstream.apply(|pool, now| pool.endpoints(now));
    assert_eq!(endpoints.iter().map(|e| e.address.ip()).collect::<Vec<_>>(), [ip(2)]);
}
