//! What an operator sees, from outside: the shipped binary between real clients and real replicas, on a Docker network
//! emulated on loopback and, where an engine answers and a test needs no more than it can do, on a real one. P5 and F42
//! in comments are a promise and a fault of `docs/promises.md`.
//!
//! One binary for all, since each would link the world again. Needs the binaries of the whole workspace:
//! `cargo build --workspace` before `cargo test`, as `make test` does.

#![allow(clippy::disallowed_methods)] // tests live in real time

/// Makes tests of functions that take a network: each runs on every testbed.
macro_rules! on_every_testbed {
    ($($test:ident)*) => {
        mod on_loopback {
            $(#[test]
            fn $test() {
                super::$test(testbed::Loopback::new());
            })*
        }

        mod on_engine {
            $(#[test]
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                if let Some(network) = testbed::Engine::for_test(name) {
                    super::$test(network);
                }
            })*
        }
    };
}

mod admission;
mod ailing;
mod answers;
mod bounds;
mod chain;
mod churn;
mod clients;
mod compose;
mod connections;
mod deaths;
mod dist;
mod dns;
mod docker_dns;
mod dokku;
mod dokku_plugin;
mod drain;
mod exchange;
mod framing;
mod grpc;
mod hangups;
mod http2;
mod http2_floods;
mod images;
mod init;
mod limits;
mod manifests;
mod manuals;
mod metrics;
mod monitoring;
mod operator;
mod page;
mod page_day;
mod process;
mod redeploy;
mod reload;
mod replicas;
mod scaling;
mod silence;
mod speed;
mod swarm;
mod top;
mod unproven;
mod uploads;
mod verbs;
mod why;

use std::io::Write;
use std::process::Command;
use std::sync::Mutex;
use testbed::{Head, Loopback, Network, Origin, Proxy, ProxyConfig, Response, Wire};

/// Starts the proxy under test and waits until it is ready.
fn start(network: &dyn Network, config: &ProxyConfig) -> Proxy {
    Proxy::start(network, env!("CARGO_BIN_EXE_evenkeel"), config)
}

/// A proxy in front of scripted replicas, all called `app`. Dropped in this order.
struct Bed<N = Loopback> {
    proxy: Proxy,
    origins: Vec<Origin>,
    network: N,
}

impl Bed {
    /// One replica that follows `script`.
    fn new(script: impl Fn(&Head, &mut Wire, usize) + Send + Sync + 'static) -> Bed {
        Bed::with(|config| config, script)
    }

    /// One replica that follows `script`, and other settings than usual.
    fn with(
        change: impl FnOnce(ProxyConfig) -> ProxyConfig,
        script: impl Fn(&Head, &mut Wire, usize) + Send + Sync + 'static,
    ) -> Bed {
        let network = Loopback::new();
        let origin = network.origin("app", script);
        Bed::around(network, vec![origin], change)
    }

    /// The first replica.
    fn origin(&self) -> &Origin {
        &self.origins[0]
    }
}

impl<N: Network> Bed<N> {
    /// A proxy in front of these replicas, all of them proven.
    fn around(network: N, origins: Vec<Origin>, change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Bed<N> {
        let proxy = start(&network, &change(ProxyConfig::new(&network, "app")));
        let bed = Bed { proxy, origins, network };
        testbed::eventually("each replica was probed", || bed.origins.iter().all(|o| o.connections() > 0));
        bed
    }

    /// A client's connection to the proxy.
    fn client(&self) -> Wire {
        Wire::connect(self.proxy.address())
    }

    /// Sends these bytes and reads one response.
    #[track_caller]
    fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let mut wire = self.client();
        wire.send(request);
        wire.response().unwrap_or_else(|cut| panic!("no whole response: {cut:?}\n{}", self.proxy.output()))
    }
}

/// `evenkeel` with these arguments, in the environment of this running proxy.
fn command(proxy: &Proxy, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command
        .args(arguments)
        .env("EVENKEEL_CONFIG", proxy.config_path())
        .env("HOST", proxy.address().ip().to_string())
        .env("PORT", proxy.address().port().to_string());
    command
}

/// What a replica that has nothing to say says.
fn ok(wire: &mut Wire) {
    // The client may have left, which is no failure of the replica's thread.
    let _ = wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
}

/// Reads the body and answers 200: what most replicas of these tests do most of the time.
fn serve(head: &Head, wire: &mut Wire) {
    if wire.body(head).is_ok() {
        ok(wire);
    }
}

/// What tells this test's second process, in a network of its own, that it is the one.
const INSIDE: &str = "EVENKEEL_TEST_INSIDE";

/// Runs the test named `test` once more in a process that has a network namespace of its own, so that routes can be
/// changed there and nowhere else; `prepare` is a shell's command that does so. Takes no more rights than a user has, where users may make namespaces.
fn in_a_network_of_its_own(test: &str, prepare: &str) {
    let inside = format!("ip link set lo up && {prepare} && exec \"$0\" \"$@\"");
    let said = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--", "sh", "-c", &inside])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is part of every Linux system");
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if text.contains("unshare failed") || text.contains("Operation not permitted") {
        // Loudly: the harness shows no output of a test that passes.
        let _ =
            std::io::stderr().write_all(format!("\nSKIPPED {test}: it needs a network namespace: {text}\n").as_bytes());
        return;
    }
    assert!(said.status.success() && text.contains("1 passed"), "{text}");
}

/// Whether this is that process.
fn is_in_a_network_of_its_own() -> bool {
    std::env::var_os(INSIDE).is_some()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";

const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello";

/// Asserts that the proxy itself said this, and says so.
#[track_caller]
fn assert_own(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text());
    let proxy_status = response.get("proxy-status").unwrap_or_default();
    assert!(proxy_status.starts_with("evenkeel; error="), "Proxy-Status of {status}: {proxy_status:?}");
}

/// A gate that is shut until the first is called: the second waits at it.
fn gate() -> (impl Fn(), impl Fn() + Send + Sync + 'static) {
    let (open, wait) = std::sync::mpsc::channel::<()>();
    let (open, wait) = (Mutex::new(Some(open)), Mutex::new(wait));
    (move || drop(open.lock().unwrap().take()), move || wait.lock().unwrap().recv().unwrap_or(()))
}
