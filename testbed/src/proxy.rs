//! Evenkeel in a container, with a configuration for tests.

use crate::wire::Response;
use crate::{App, Container, Loopback, Network, Protocol, Signal, Wire, eventually, eventually_some};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A `proxy.toml` in the making: the shipped defaults with times in milliseconds, changed key by key.
///
/// Values are JSON's, which TOML reads alike for what a configuration holds: strings, numbers, booleans, lists.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    tables: BTreeMap<String, Value>,
    routes: Vec<Value>,
    env: Vec<(String, String)>,
}

impl ProxyConfig {
    /// One upstream, called as its alias, with TCP probes.
    ///
    /// Names are asked and replicas probed every few dozen milliseconds, so that tests are quick; what a request may
    /// take is long, so that a busy machine fails none.
    pub fn new(network: &dyn Network, alias: &str) -> ProxyConfig {
        let empty = ProxyConfig { tables: BTreeMap::new(), routes: vec![], env: vec![] };
        empty
            .set("server.listen", "${HOST}:${PORT}")
            .set("server.admin", format!("${{HOST}}:{ADMIN_PORT}"))
            .set("server.threads", threads())
            .set("server.drain", "5s")
            .set("dns.server", network.resolver().to_string())
            .set("dns.interval", "50ms")
            .set("dns.timeout", "250ms")
            .set("dns.hold", "1s")
            .upstream(network, alias)
    }

    /// One upstream more, with the settings for tests.
    pub fn upstream(self, network: &dyn Network, alias: &str) -> ProxyConfig {
        let key = |key: &str| format!("upstream.{alias}.{key}");
        self.set(&key("address"), format!("{alias}:{}", network.port()))
            .set(&key("wait"), "5s")
            .set(&key("connect_timeout"), "300ms")
            .set(&key("response_timeout"), "5s")
            .set(&key("probe.interval"), "100ms")
            .set(&key("probe.timeout"), "100ms")
    }

    /// Sets `table.key`, where the last dot separates the two.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> ProxyConfig {
        let (table, key) = path.rsplit_once('.').expect("table.key");
        let table = self.tables.entry(table.into()).or_insert_with(|| json!({}));
        table[key] = value.into();
        self
    }

    /// Adds a `[[route]]`, given as `{"upstream": …, "host": …, …}`.
    pub fn route(mut self, route: Value) -> ProxyConfig {
        self.routes.push(route);
        self
    }

    /// Sets an environment variable of the process.
    pub fn env(mut self, name: &str, value: &str) -> ProxyConfig {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let keys = |table: &Value| {
            let table = table.as_object().expect("tables are objects");
            table.iter().fold(String::new(), |text, (key, value)| text + &format!("{key} = {value}\n"))
        };
        let tables = self.tables.iter().map(|(name, table)| format!("[{name}]\n{}\n", keys(table)));
        let routes = self.routes.iter().map(|route| format!("[[route]]\n{}\n", keys(route)));
        tables.chain(routes).collect()
    }
}

/// A running Evenkeel, alias `proxy` on its network.
pub struct Proxy {
    container: Box<dyn Container>,
    folder: TempDir,
}

impl Proxy {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; with its output.
    pub fn start(network: &dyn Network, program: impl AsRef<Path>, config: &ProxyConfig) -> Proxy {
        let proxy = Proxy::launch(network, program, config);
        proxy.wait_ready();
        proxy
    }

    /// Starts it in front of `alias` with the file that is shipped, whose upstream is called [`SHIPPED_UPSTREAM`], and waits
    /// until it is ready. Only where it listens, which name server it asks and what its `replicas` speak is the testbed's.
    ///
    /// # Panics
    /// When it does not become ready; with its output.
    pub fn start_shipped(network: &dyn Network, program: impl AsRef<Path>, alias: &str, replicas: Protocol) -> Proxy {
        let app = App::new(program).env("UPSTREAM", format!("{alias}:{}", network.port()));
        let proxy = Proxy::launch_with(network, app, &shipped(network.resolver(), replicas));
        proxy.wait_ready();
        proxy
    }

    /// Starts it and waits for nothing.
    pub fn launch(network: &dyn Network, program: impl AsRef<Path>, config: &ProxyConfig) -> Proxy {
        Proxy::launch_with(network, App { env: config.env.clone(), ..App::new(program) }, &config.to_toml())
    }

    /// Starts one more at the address of another, as a container that joins the network namespace of another one, and
    /// waits for nothing.
    pub fn launch_at(network: &Loopback, address: Ipv4Addr, program: impl AsRef<Path>, config: &ProxyConfig) -> Proxy {
        let (app, folder) = prepare(App { env: config.env.clone(), ..App::new(program) }, &config.to_toml());
        Proxy { container: network.start_at(address, "proxy", &app), folder }
    }

    /// Starts `app`, which is Evenkeel or becomes it, with this file, and waits for nothing.
    pub fn launch_with(network: &dyn Network, app: App, toml: &str) -> Proxy {
        let (app, folder) = prepare(app, toml);
        Proxy { container: network.start("proxy", &app), folder }
    }

    /// Waits until `/ready` says so.
    ///
    /// # Panics
    /// When it does not, or the process ends; with its output.
    pub fn wait_ready(&self) {
        let what = format!("the proxy at {} is ready", self.address());
        eventually(&what, || {
            if let Some(code) = self.container.exited() {
                panic!("the proxy ended with {code}:\n{}", self.output());
            }
            self.ready()
        });
    }

    /// Whether `/ready` says so now.
    pub fn ready(&self) -> bool {
        self.ask_admin("/ready").is_ok_and(|r| r.status == 200)
    }

    /// Its container.
    pub fn container(&self) -> &dyn Container {
        &*self.container
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.container.address()
    }

    /// Where the operator asks.
    pub fn admin(&self) -> SocketAddr {
        (self.address().ip(), ADMIN_PORT).into()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("proxy.toml")
    }

    /// The replicas of an upstream as `/status` tells of them.
    pub fn endpoints(&self, upstream: &str) -> Vec<Value> {
        let status = self.status();
        let upstreams = status["upstreams"].as_array().cloned().unwrap_or_default();
        let found = upstreams.into_iter().find(|u| u["name"] == upstream);
        found.and_then(|u| u["endpoints"].as_array().cloned()).unwrap_or_default()
    }

    /// Waits until exactly these addresses are active and up.
    pub fn wait_up(&self, upstream: &str, addresses: &[SocketAddr]) {
        let wanted: BTreeSet<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let what = format!("{wanted:?} and nobody else are up");
        eventually(&what, || {
            let endpoints = self.endpoints(upstream);
            let up = endpoints.iter().filter(|e| e["membership"] == "active" && e["health"] == "up");
            up.filter_map(|e| Some(e["address"].as_str()?.to_owned())).collect::<BTreeSet<_>>() == wanted
        });
    }

    /// Replaces the file in one step, as an editor does. It is taken over when the proxy notices, or at
    /// [`Proxy::signal`] SIGHUP.
    pub fn write_config(&self, text: &str) {
        let next = self.folder.path().join("proxy.toml.new");
        std::fs::write(&next, text).expect("a file in a temporary folder");
        std::fs::rename(next, self.config_path()).expect("a rename within a folder");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.container.signal(signal);
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        self.container.output()
    }

    /// All lines so far that contain `text`.
    pub fn lines(&self, text: &str) -> Vec<String> {
        self.output().lines().filter(|l| l.contains(text)).map(Into::into).collect()
    }

    /// Waits for a line of its output that contains `text`; see [`Container::wait_for_line`].
    pub fn wait_for_line(&self, text: &str) -> String {
        self.container.wait_for_line(text)
    }

    /// Its `/status`.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    pub fn status(&self) -> Value {
        let response = self.ask_admin("/status").expect("the admin port answers");
        serde_json::from_slice(&response.body).unwrap_or_else(|e| panic!("/status: {e}: {}", response.text()))
    }

    /// Its `/metrics`.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn metrics(&self) -> String {
        self.ask_admin("/metrics").expect("the admin port answers").text()
    }

    /// The sum of all samples of this metric whose labels contain each of `labels` (as `upstream="app"`); 0 where there
    /// is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics(), name, labels)
    }

    /// A GET over a connection of its own.
    ///
    /// # Panics
    /// When no whole response comes; see [`Proxy::try_get`].
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.try_get(target).unwrap_or_else(|e| panic!("GET {target}: {e}\n{}", self.output()))
    }

    /// A GET over a connection of its own.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn try_get(&self, target: &str) -> io::Result<Response> {
        fetch(self.address(), target)
    }

    /// Waits until a GET of `target` is answered 200 by a replica.
    pub fn wait_serving(&self, target: &str) -> Response {
        let what = format!("a replica answers GET {target} through {}", self.address());
        eventually_some(&what, || self.try_get(target).ok().filter(|r| r.status == 200))
    }

    fn ask_admin(&self, target: &str) -> io::Result<Response> {
        fetch(self.admin(), target)
    }
}

/// `app` with this file, in a folder of its own.
fn prepare(mut app: App, toml: &str) -> (App, TempDir) {
    let folder = tempfile::Builder::new().prefix("testbed-proxy-").tempdir().expect("a temporary folder");
    crate::guard::watch_folder(folder.path());
    // Whoever the proxy runs as may read it.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a folder of ours");
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, toml).expect("a file in a temporary folder");
    app = app.env("EVENKEEL_CONFIG", file.display());
    if let Some(filter) = std::env::var_os("RUST_LOG").filter(|_| !app.env.iter().any(|(n, _)| n == "RUST_LOG")) {
        app = app.env("RUST_LOG", filter.to_string_lossy());
    }
    app.mount = Some(folder.path().to_owned());
    (app, folder)
}

/// Worker threads of a proxy under test, where a test does not set them: `EVENKEEL_TEST_THREADS`, else one. `make test` runs
/// the end-to-end tests with one and with three: what one worker knows, the others may not.
fn threads() -> u64 {
    let told = std::env::var("EVENKEEL_TEST_THREADS").ok();
    told.map_or(1, |n| n.parse().unwrap_or_else(|e| panic!("EVENKEEL_TEST_THREADS: {e}")))
}

/// The upstream of the shipped file.
pub const SHIPPED_UPSTREAM: &str = "db-checker";

/// The shipped file with its addresses replaced: on loopback every container has the host's ports before it.
fn shipped(resolver: SocketAddr, replicas: Protocol) -> String {
    let mut changes = vec![
        ("#listen = ", "listen = \"${HOST}:${PORT}\"".to_owned()),
        ("admin = ", format!("admin = \"${{HOST}}:{ADMIN_PORT}\"")),
        ("#server = ", format!("server = \"{resolver}\"")),
    ];
    if replicas == Protocol::H2c {
        changes.push(("protocol = ", "protocol = \"h2c\"".to_owned()));
    }
    changes.iter().fold(include_str!("../../proxy.toml").to_owned(), |text, (key, line)| {
        let old = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("proxy.toml has no {key:?}"));
        text.replace(old, line)
    })
}

/// The admin port of every proxy, on its own address.
const ADMIN_PORT: u16 = 9180;

fn fetch(from: SocketAddr, target: &str) -> io::Result<Response> {
    let mut wire = Wire::try_connect(from)?;
    wire.try_send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"))?;
    wire.response().map_err(|cut| io::Error::other(format!("no whole response: {cut:?}")))
}

/// The sum of all samples of a metric on a page whose labels contain each of `labels` (as `upstream="app"`); 0 where there
/// is none.
pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let sample = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None if rest.starts_with(' ') => ("", rest),
            None => return None,
        };
        labels.iter().all(|l| found.contains(l)).then(|| value.trim().parse::<f64>().ok())?
    };
    metrics.lines().filter_map(sample).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loopback;

    #[test]
    fn settings_become_toml_and_later_ones_win() {
        let network = Loopback::new();
        let toml = ProxyConfig::new(&network, "app")
            .set("server.threads", 7)
            .set("upstream.app.probe.healthy", json!([200, 424]))
            .route(json!({"upstream": "app", "path_prefix": "/a"}))
            .to_toml();
        assert!(toml.contains("threads = 7\n") && toml.matches("threads").count() == 1, "{toml}");
        assert!(toml.contains("listen = \"${HOST}:${PORT}\"\n"), "{toml}");
        assert!(toml.contains("[upstream.app.probe]\n") && toml.contains("healthy = [200,424]\n"), "{toml}");
        assert!(toml.ends_with("[[route]]\npath_prefix = \"/a\"\nupstream = \"app\"\n\n"), "{toml}");
    }

    #[test]
    fn the_shipped_file_is_as_it_is_but_for_its_addresses() {
        let text = shipped(([127, 1, 2, 3], 53).into(), Protocol::Http1);
        let lines = || text.lines().zip(include_str!("../../proxy.toml").lines());
        let changed: Vec<&str> = lines().filter(|(new, old)| new != old).map(|(new, _)| new).collect();
        let (listen, admin) = ("listen = \"${HOST}:${PORT}\"", "admin = \"${HOST}:9180\"");
        assert_eq!(changed, [listen, admin, "server = \"127.1.2.3:53\""]);
        assert!(text.contains(&format!("[upstream.{SHIPPED_UPSTREAM}]")), "{text}");
    }

    #[test]
    fn metrics_are_summed_over_matching_labels() {
        let text =
            "# TYPE a counter\na{u=\"x\",c=\"2\"} 3\na{u=\"x\",c=\"5\"} 4\na{u=\"y\",c=\"5\"} 8\nab 100\na_b 7\n";
        assert_eq!(sum(text, "a", &["u=\"x\""]), 7.0);
        assert_eq!(sum(text, "a", &["u=\"x\"", "c=\"5\""]), 4.0);
        assert_eq!(sum(text, "ab", &[]), 100.0);
        assert_eq!(sum(text, "none", &[]), 0.0);
    }
}
