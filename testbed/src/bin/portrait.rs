//! Draws the operator's page for the README: three replicas behind a proxy, a load, a deploy and a death, and a real browser
//! that looks at it. `portrait FILE.png`.

#![allow(clippy::disallowed_methods)] // it lives in real time

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbed::{App, Browser, Container, Load, Loopback, Network, Plan, Proxy, ProxyConfig, Signal, eventually};

/// How long the page's history is.
const SPAN: Duration = Duration::from_secs(300);

fn main() {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: portrait FILE.png");
        std::process::exit(2);
    };
    if !Browser::is_installed() {
        eprintln!("this needs Chromium: apt-get install chromium");
        std::process::exit(1);
    }
    let network = Loopback::new();
    network.keep_records();
    let app = App::replica().env("MEAN_MS", 4);
    let mut replicas = network.scale("db-checker", &app, 3);
    let config = ProxyConfig::new(&network, "db-checker").set("upstream.db-checker.probe.path", "/ping");
    let proxy = Proxy::start(&network, testbed::binary("evenkeel").to_str().expect("a path"), &config);
    proxy.wait_serving("/");
    let load = Load::start(Plan::new(proxy.address(), 150.0));
    let start = Instant::now();
    let at = |share: f64| {
        let due = SPAN.mul_f64(share);
        println!("{:.0} of {SPAN:?}", start.elapsed().as_secs_f64());
        eventually_long(start, due);
    };
    at(0.3);
    // A deploy: each is replaced by a new one.
    for replica in &mut replicas {
        let old = std::mem::replace(replica, network.start("db-checker", &app));
        std::thread::sleep(Duration::from_secs(2));
        end(old);
    }
    at(0.7);
    let slow = network.start("db-checker", &App::replica().env("MEAN_MS", 60));
    at(0.85);
    end(slow);
    at(0.95);
    replicas[1].signal(Signal::SIGKILL);
    at(1.0);
    let page = Browser::open(&format!("http://{}/", proxy.admin()), (1200, 1000), false, true);
    eventually("the page is live", || page.text().contains("live"));
    // Straight into the file: whoever writes to a pipe without reading from the other waits for ever.
    let picture = std::fs::File::create(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(picture).spawn().expect("base64");
    decode.stdin.take().expect("piped").write_all(page.picture().as_bytes()).expect("base64 reads");
    assert!(decode.wait().expect("base64 ends").success());
    drop(load);
    println!("{file}");
}

/// Has a replica end as a deploy does, and its record with it.
fn end(replica: Box<dyn Container>) {
    replica.signal(Signal::SIGTERM);
    eventually("it ends", || replica.exited().is_some());
}

/// Waits until `due` after `start`: longer than a test would.
fn eventually_long(start: Instant, due: Duration) {
    while start.elapsed() < due {
        std::thread::sleep(Duration::from_millis(100));
    }
}
