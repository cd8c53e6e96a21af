//! What an operator sees of a new replica that never becomes usable.

use crate::{GET, command, serve, start};
use std::time::{Duration, Instant};
use testbed::{App, Loopback, Network, Proxy, ProxyConfig, Wire, eventually};

fn without_patience(network: &Loopback) -> ProxyConfig {
    ProxyConfig::new(network, "app").set("upstream.app.wait", "100ms").set("upstream.app.probe.path", "/ping")
}

/// The line of a request that failed through this proxy.
fn failed_request(proxy: &Proxy) -> String {
    assert_eq!(proxy.get("/").status, 503);
    proxy.wait_for_line("request failed")
}

// U5
#[test]
fn a_wrong_probe_path_is_one_line_in_the_log_with_its_remedy_and_failed_requests_name_it() {
    let network = Loopback::new();
    let _origin = network.origin("app", |head, wire, _| {
        if head.target() == "/ping" {
            let _ = wire.try_send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        } else {
            serve(head, wire);
        }
    });
    let proxy = start(&network, &without_patience(&network));
    let line = proxy.wait_for_line("not usable: its probe fails");
    assert!(line.contains("WARN") && line.contains("status 404; the app has no /ping: correct probe.path"), "{line}");
    let failed = failed_request(&proxy);
    assert!(failed.contains("unusable=") && failed.contains("unproven (probe: status 404)"), "{failed}");
    let said = proxy.status()["upstreams"][0]["failures"][0]["unusable"].clone();
    assert!(said.as_str().is_some_and(|said| said.contains("unproven (probe: status 404)")), "{said}");
    let table = String::from_utf8(command(&proxy, &["status"]).output().unwrap().stdout).unwrap();
    assert!(table.contains("nobody was tried: ") && table.contains(said.as_str().unwrap()), "{table}");
    let asked = network.dns().questions("app");
    eventually("some more answers came", || network.dns().questions("app") > asked + 20);
    assert_eq!(proxy.lines("not usable").len(), 1, "{}", proxy.output());
}

// U5
#[test]
fn a_wrong_port_is_named_and_a_name_without_addresses_too() {
    let network = Loopback::new();
    let proxy = start(&network, &without_patience(&network));
    let failed = failed_request(&proxy);
    assert!(failed.contains("unusable=") && failed.contains("DNS knows no address of app"), "{failed}");
    network.dns().add("app", network.free_address());
    let line = proxy.wait_for_line("not usable: its probe fails");
    assert!(line.contains("connection refused; is the app up, does it listen on port"), "{line}");
}

// U11
#[test]
fn a_container_that_listens_long_after_it_is_listed_joins_soon_after_it_listens() {
    let network = Loopback::new();
    let _origin = network.origin("app", |head, wire, _| serve(head, wire));
    let config = ProxyConfig::new(&network, "app");
    let config = config.set("upstream.app.probe.interval", "1s").set("upstream.app.probe.timeout", "1s");
    let proxy = start(&network, &config);
    proxy.wait_serving("/");
    // Where each pause is twice the one before, a probe comes at 1.5 s and the next at 2.5 s.
    let replica = network.start("app", &App::replica().env("LISTEN_AFTER_MS", 1600));
    replica.wait_listening();
    let listens = Instant::now();
    let address = replica.address().to_string();
    eventually("it is up", || proxy.lines("up: probe passed").iter().any(|line| line.contains(&address)));
    assert!(listens.elapsed() < Duration::from_millis(500), "{:?} after it listened", listens.elapsed());
}

// A7, U12
#[test]
fn a_flood_of_another_proxys_probes_is_one_line_in_the_log() {
    let network = Loopback::new();
    let _origin = network.origin("app", |head, wire, _| serve(head, wire));
    let proxy = start(&network, &ProxyConfig::new(&network, "app"));
    for _ in 0..200 {
        let mut wire = Wire::connect(proxy.address());
        wire.send(GET.replace("Host", "Evenkeel-Probe: 1\r\nHost"));
        assert_eq!(wire.response().unwrap().status, 508);
    }
    proxy.wait_serving("/");
    proxy.wait_for_line("the proxies form a ring");
    assert_eq!(proxy.lines("the proxies form a ring").len(), 1, "{}", proxy.output());
}
