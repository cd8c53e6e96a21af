//! `evenkeel top` in a real terminal (P20).

use crate::{Bed, command, serve};
use std::io::Write;
use std::time::Instant;
use testbed::{App, Container, Load, Loopback, Network, Plan, Signal, Terminal, eventually};

/// Whether a terminal is here; says so loudly where none is.
fn has_terminal() -> bool {
    let installed = Terminal::is_installed();
    if !installed {
        let _ = std::io::stderr().write_all(b"\nSKIPPED: `top` was NOT tried in a terminal: no tmux is installed\n");
    }
    installed
}

/// Waits until the screen says all of this, and returns it.
#[track_caller]
fn wait(terminal: &Terminal, said: &[&str]) -> String {
    let start = Instant::now();
    loop {
        let text = terminal.text();
        if said.iter().all(|part| text.contains(part)) {
            return text;
        }
        assert!(start.elapsed() < testbed::PATIENCE, "the screen does not say {said:?}, but:\n{text}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Three replicas and a proxy in front of them.
fn bed() -> (Vec<Box<dyn Container>>, Bed) {
    let network = Loopback::new();
    network.keep_records();
    let replicas = network.scale("app", &App::replica().env("MEAN_MS", 2), 3);
    let bed = Bed::around(network, vec![], |c| c.set("upstream.app.probe.path", "/ping"));
    bed.proxy.wait_serving("/");
    (replicas, bed)
}

// P20
#[test]
fn a_terminal_shows_what_the_page_does_at_any_size_and_is_given_back_as_it_was() {
    if !has_terminal() {
        return;
    }
    let (replicas, bed) = bed();
    let load = Load::start(Plan::new(bed.proxy.address(), 50.0));
    let terminal = Terminal::open(&command(&bed.proxy, &["top"]), (150, 30));
    let text = wait(&terminal, &["All well: 3 of 3 replicas", "REPLICA", "Enter look closer"]);
    assert!(replicas.iter().all(|replica| text.contains(&replica.address().to_string())), "{text}");
    assert!(terminal.coloured().contains("\u{1b}[32m"), "what is well is green:\n{}", terminal.coloured());
    wait(&terminal, &["requests/s  ", "p99         "]);
    replicas[0].signal(Signal::SIGKILL);
    let killed = replicas[0].address().to_string();
    let text = wait(&terminal, &["connection refused); the other 2 take its requests", "2 of 3 replicas usable"]);
    assert!(text.contains(&format!("▲ {killed} has been")), "{text}");
    // A line each, however narrow; and back.
    terminal.resize(60, 16);
    eventually("it is drawn anew", || {
        let text = terminal.text();
        text.lines().count() <= 16 && text.contains("evenkeel") && text.contains("↑↓ choose")
    });
    terminal.resize(150, 30);
    wait(&terminal, &["callers notice nothing", "? help · q quit"]);
    terminal.press(&["q"]);
    let text = wait(&terminal, &["ended with 0", "icanon", "lnext"]);
    assert!(text.contains(" icanon") && text.contains(" echo ") && !text.contains("REPLICA"), "{text}");
    assert!(load.stop().lost().is_empty());
}

// P16, P17, P20
#[test]
fn a_key_drains_the_chosen_replica_and_pauses_its_upstream_after_a_yes() {
    if !has_terminal() {
        return;
    }
    let (replicas, bed) = bed();
    let terminal = Terminal::open(&command(&bed.proxy, &["top"]), (150, 30));
    wait(&terminal, &["All well", "REPLICA"]);
    let order: Vec<String> =
        bed.proxy.endpoints("app").iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order.len(), replicas.len());
    terminal.press(&["Down", "d"]);
    let ip = order[1].split(':').next().unwrap().to_owned();
    wait(&terminal, &[&format!("Drain {ip} of app?"), "any other key no"]);
    terminal.press(&["n"]);
    wait(&terminal, &["Enter look closer"]);
    terminal.press(&["d", "y"]);
    wait(&terminal, &[&format!("app: {ip} gets nothing new")]);
    wait(&terminal, &["Drained by an operator: ", "▲ drained"]);
    assert_eq!(bed.proxy.metric("evenkeel_endpoint_drained", &[&format!("endpoint=\"{}\"", order[1])]), 1.0);
    terminal.press(&["Enter"]);
    wait(&terminal, &[&format!("{} of app", order[1]), "What happened", "drained by user"]);
    terminal.press(&["d", "y", "Escape"]);
    wait(&terminal, &["All well", "REPLICA"]);
    terminal.press(&["p", "y"]);
    wait(&terminal, &["Paused by an operator: 0 requests waiting"]);
    // A request waits, and is seen to.
    let mut client = bed.client();
    client.send(crate::GET);
    wait(&terminal, &["queue ", "1 of 16,384 from 1 client; the next one has waited for "]);
    terminal.press(&["p", "y"]);
    assert_eq!(client.response().unwrap().status, 200);
    wait(&terminal, &["All well"]);
    // Keys that come faster than the proxy is asked: the order is given, and what came of it is said.
    terminal.type_at_once("dyq");
    wait(&terminal, &["gets nothing new", "ended with 0"]);
    eventually("a replica is drained", || bed.proxy.endpoints("app").iter().any(|e| e["drained"] == true));
}

// P20, P21
#[test]
fn failed_requests_are_listed_and_told_why_and_a_proxy_that_ends_is_missed() {
    if !has_terminal() {
        return;
    }
    let bed = Bed::new(|head, wire, _| if head.target() == "/broken" { wire.close() } else { serve(head, wire) });
    let terminal = Terminal::open(&command(&bed.proxy, &["top"]), (150, 30));
    wait(&terminal, &["All well"]);
    assert_eq!(bed.ask("POST /broken HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 502);
    wait(&terminal, &["1 request failed in the last minute", "f failed requests (1)"]);
    terminal.press(&["f"]);
    wait(&terminal, &["app: the replica closed the connection without a response", "POST /broken"]);
    terminal.press(&["Enter"]);
    wait(&terminal, &["POST /broken from ", "was the only candidate", "answered with 502"]);
    terminal.press(&["Escape", "Escape", "?"]);
    wait(&terminal, &["drain the chosen replica"]);
    terminal.press(&["Escape"]);
    bed.proxy.container().signal(Signal::SIGKILL);
    wait(&terminal, &["✖ no evenkeel listens on ", "What is below is from before", "REPLICA"]);
    terminal.press(&["q"]);
    wait(&terminal, &["ended with 0"]);
}

// P20
#[test]
fn without_a_terminal_it_says_what_does_the_same() {
    let bed = Bed::new(|head, wire, _| serve(head, wire));
    let said = command(&bed.proxy, &["top"]).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && said.stdout.is_empty(), "{said:?}");
    assert!(text.contains("needs a terminal") && text.contains("evenkeel status --watch"), "{text}");
}
