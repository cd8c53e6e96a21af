//! A configuration that changes while requests run (F70).

use crate::{Bed, GET, serve};
use serde_json::json;
use std::process::Command;
use testbed::{App, Load, Loopback, Network, Origin, Plan, Proxy, ProxyConfig, Signal, eventually, resident};

fn config(bed: &Bed) -> ProxyConfig {
    ProxyConfig::new(&bed.network, "app")
}

fn named(network: &Loopback, alias: &'static str) -> Origin {
    network.origin(alias, move |_, wire, _| {
        let _ = wire.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{alias}", alias.len()));
    })
}

#[test]
fn a_changed_file_is_taken_over_by_itself_and_on_sighup() {
    let network = Loopback::new();
    let app = named(&network, "app");
    let _other = named(&network, "other");
    let bed = Bed::around(network, vec![app], |c| c);
    assert_eq!(bed.proxy.wait_serving("/other/x").text(), "app");

    let two = config(&bed)
        .upstream(&bed.network, "other")
        .route(json!({"upstream": "other", "path_prefix": "/other"}))
        .route(json!({"upstream": "app"}));
    bed.proxy.write_config(&two.to_toml());
    bed.proxy.signal(Signal::SIGHUP);
    eventually("the new route counts", || bed.proxy.get("/other/x").text() == "other");
    assert_eq!(bed.proxy.get("/x").text(), "app");

    bed.proxy.write_config(&config(&bed).to_toml());
    eventually("the route is gone, without a signal", || bed.proxy.get("/other/x").text() == "app");
}

// F70
#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let bad = config(&bed).set("upstream.app.waiting", "1s").to_toml();
    for (text, part) in [(bad.as_str(), "waiting"), ("[server", "proxy.toml"), ("", "upstream")] {
        let before = bed.proxy.lines("ERROR").len();
        bed.proxy.write_config(text);
        bed.proxy.signal(Signal::SIGHUP);
        eventually("it is said", || bed.proxy.lines("ERROR").len() > before);
        let line = bed.proxy.lines("ERROR").pop().unwrap();
        assert!(line.contains(part) || bed.proxy.output().contains(part), "{part:?} is missing: {line}");
        assert_eq!(bed.ask(GET).status, 200);
    }
    assert!(bed.proxy.status()["last_reload"]["error"].is_string(), "{}", bed.proxy.status()["last_reload"]);
}

#[test]
fn a_changed_listen_is_refused_with_the_rest_of_its_file() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    for (key, value) in [
        ("server.listen", "127.0.0.1:1"),
        ("server.admin", "127.0.0.1:2"),
        ("server.threads", "7"),
        ("server.max_connections", "7"),
    ] {
        let value = value.parse::<u64>().map_or_else(|_| json!(value), |n| json!(n));
        let before = bed.proxy.lines("ERROR").len();
        // PORT overrides the port of `listen`, not its address.
        bed.proxy.write_config(&config(&bed).set(key, value).set("upstream.app.max_waiting", 7).to_toml());
        bed.proxy.signal(Signal::SIGHUP);
        eventually("it is said", || bed.proxy.lines("ERROR").len() > before);
        let line = bed.proxy.lines("ERROR").pop().unwrap();
        assert!(line.contains(key.split('.').next_back().unwrap()), "{line}");
    }
    assert_eq!(bed.ask(GET).status, 200);
}

#[test]
fn a_reload_under_load_loses_nothing_and_replicas_keep_their_state() {
    let network = Loopback::new();
    let replicas = network.scale("app", &App::replica().env("MEAN_MS", 10), 2);
    let addresses: Vec<_> = replicas.iter().map(|r| r.address()).collect();
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_up("app", &addresses);
    let ids = |bed: &Bed| bed.proxy.endpoints("app").iter().map(|e| e["id"].as_u64()).collect::<Vec<_>>();
    let before = ids(&bed);
    let load = Load::start(Plan { posts: 0.2, ..Plan::new(bed.proxy.address(), 150.0) });
    for n in 0..10 {
        load.wait_sent(20);
        bed.proxy.write_config(&config(&bed).set("upstream.app.max_waiting", 100 + n).to_toml());
        let reloads = bed.proxy.lines("reloaded").len();
        bed.proxy.signal(Signal::SIGHUP);
        eventually("it is taken over", || bed.proxy.lines("reloaded").len() > reloads);
    }
    let report = load.stop();
    assert!(report.lost().is_empty(), "{:#?}\n{}", report.lost(), bed.proxy.output());
    assert_eq!(ids(&bed), before, "the same endpoints");
    assert_eq!(bed.proxy.lines("joined").len(), 2);
}

#[test]
fn a_removed_upstream_closes_its_connections_when_its_requests_are_done() {
    let network = Loopback::new();
    let app = named(&network, "app");
    let other = named(&network, "other");
    let routes = |config: ProxyConfig| config.route(json!({"upstream": "app"}));
    let bed = Bed::around(network, vec![app], |c| c);
    let both = config(&bed).upstream(&bed.network, "other").route(json!({"upstream": "other", "host": "other.test"}));
    bed.proxy.write_config(&routes(both).to_toml());
    let request = "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";
    eventually("the second upstream serves", || bed.ask(request).text() == "other");
    assert_eq!(other.open(), 1);
    bed.proxy.write_config(&config(&bed).to_toml());
    eventually("its connections are closed", || other.open() == 0);
    assert_eq!(bed.ask(request).text(), "app");
}

/// Whether the last reload was refused, and why, as `/status` has it.
fn refusal(proxy: &Proxy) -> Option<String> {
    proxy.status()["last_reload"]["error"].as_str().map(str::to_owned)
}

// D6
#[test]
fn a_file_that_vanishes_is_an_error_of_the_reload_and_the_old_one_serves_on() {
    let network = Loopback::new();
    let app = named(&network, "app");
    let other = named(&network, "other");
    // ./proxy.toml, which nobody named, and an environment that would be a configuration of its own.
    let mut shell = App::new("/bin/sh");
    let evenkeel = env!("CARGO_BIN_EXE_evenkeel");
    shell.args =
        vec!["-c".into(), format!("cd $(dirname $EVENKEEL_CONFIG) && unset EVENKEEL_CONFIG && exec {evenkeel}")];
    let shell = shell.env("UPSTREAM", format!("other:{}", network.port()));
    let config = ProxyConfig::new(&network, "app")
        .upstream(&network, "other")
        .set("upstream.other.address", "${UPSTREAM}")
        .route(json!({"upstream": "other", "path_prefix": "/other"}))
        .route(json!({"upstream": "app"}));
    let toml = config.to_toml();
    let proxy = Proxy::launch_with(&network, shell, &toml);
    proxy.wait_ready();
    assert_eq!(proxy.wait_serving("/").text(), "app");
    assert_eq!(proxy.wait_serving("/other").text(), "other");

    std::fs::remove_file(proxy.config_path()).unwrap();
    eventually("its absence is noticed", || refusal(&proxy).is_some_and(|why| why.contains("proxy.toml")));
    // What was printed gets here a moment later than the answer about it.
    proxy.wait_for_line("the file is gone");
    assert_eq!(proxy.lines("ERROR").len(), 1, "said once\n{}", proxy.output());
    assert_eq!([proxy.get("/").text(), proxy.get("/other").text()], ["app", "other"]);
    proxy.signal(Signal::SIGHUP);
    eventually("SIGHUP is refused, too", || proxy.lines("ERROR").len() == 2);
    assert_eq!([proxy.get("/").text(), proxy.get("/other").text()], ["app", "other"]);

    proxy.write_config(&toml);
    eventually("the file is back, and taken over", || refusal(&proxy).is_none());
    assert_eq!(proxy.lines("joined").len(), 2, "no replica was forgotten");
    drop((app, other));
}

// A14
#[test]
fn a_pipe_a_device_or_a_giant_in_the_files_place_is_refused_without_being_read() {
    let bed = Bed::new(|h, w, _| serve(h, w));
    let path = bed.proxy.config_path();
    let pid = bed.proxy.container().pid();
    let before = resident(pid);
    let giant = path.with_extension("giant");
    std::fs::File::create(&giant).unwrap().set_len(200 << 20).unwrap();
    let pipe = path.with_extension("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (target, said) in [(pipe, "a pipe"), ("/dev/zero".into(), "a device"), (giant, "over 1024 KiB")] {
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        std::fs::rename(&link, &path).unwrap();
        eventually(said, || refusal(&bed.proxy).is_some_and(|why| why.contains(said)));
        assert_eq!(bed.ask(GET).status, 200);
        assert!(bed.proxy.ready());
        assert!(resident(pid) < before + (8 << 20), "{} bytes more", resident(pid) - before);
    }
    bed.proxy.signal(Signal::SIGTERM);
    eventually("it ends when it is told to", || bed.proxy.container().exited().is_some());
}
