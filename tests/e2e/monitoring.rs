//! What an operator's monitoring makes of the metrics: the alerts and the dashboard in `deploy/`, by the real Prometheus.

use crate::{Bed, start};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use testbed::{Head, Loopback, Process, ProxyConfig, Wire, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A program of Prometheus, fetched into `target/` if need be; `None` where it cannot be had, which is said loudly: on
/// the terminal itself, since the harness shows no output of tests that pass.
fn program(name: &str, test: &str) -> Option<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = Path::new(ROOT).join("testbed/prometheus.sh");
        let said = Command::new("sh").arg(script).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if said.status.success() { Ok(text(&said.stdout).into()) } else { Err(text(&said.stderr)) }
    });
    match folder {
        Ok(folder) => Some(folder.join(name)),
        Err(obstacle) => {
            let line = format!("\n!!! SKIPPED monitoring::{test}: it needs Prometheus' programs: {obstacle}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

/// Runs promtool on these arguments and this input.
#[track_caller]
fn promtool(program: &Path, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(Path::new(ROOT).join("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success(), "promtool {arguments:?}\n{text}");
}

/// Each query of the dashboard with its panel's title, and its variables set for a proxy under test.
fn dashboard() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("deploy/grafana/evenkeel.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = vec![];
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "1m").replace("$job", "evenkeel");
            let query = query.replace("$instance", ".+").replace("$upstream", "app");
            assert!(!query.contains('$'), "a variable that this test does not know: {query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[test]
fn promtool_passes_the_alerts_their_tests_and_each_query_of_the_dashboard() {
    let Some(program) = program("promtool", "promtool_passes") else { return };
    promtool(&program, &["check", "rules", "evenkeel.rules.yml"], "");
    promtool(&program, &["test", "rules", "evenkeel.rules.test.yml"], "");
    // JSON is YAML.
    let rules: Vec<_> = dashboard()
        .iter()
        .enumerate()
        .map(|(n, (_, query))| json!({"record": format!("dashboard:query{n}"), "expr": query}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    promtool(&program, &["check", "rules", file.to_str().unwrap()], "");
}

/// A real Prometheus with the alerts of `deploy/`, which scrapes a proxy every second.
struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, proxy: SocketAddr) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [Path::new(ROOT).join("deploy/prometheus/evenkeel.rules.yml")],
            "scrape_configs": [{"job_name": "evenkeel", "static_configs": [{"targets": [proxy.to_string()]}]}],
        });
        std::fs::write(&file, configuration.to_string()).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::spawn("prometheus", command).unwrap();
        process.wait_for_line("Server is ready to receive web requests");
        Prometheus { process, address, _folder: folder }
    }

    fn ask(&self, path: &str) -> Value {
        let mut wire = Wire::connect(self.address);
        wire.send(format!("GET /api/v1/{path} HTTP/1.1\r\nHost: prometheus\r\nConnection: close\r\n\r\n"));
        let response = wire.response().unwrap_or_else(|cut| panic!("{cut:?}\n{}", self.process.output()));
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The series that a query has.
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded = query.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02X}");
            text
        });
        self.ask(&format!("query?query={encoded}"))["result"].as_array().unwrap().clone()
    }

    /// The alerts that are in this state, `pending` or `firing`, each with the labels that tell whom it concerns.
    fn alerts(&self, state: &str) -> BTreeSet<String> {
        let alerts = self.ask("alerts")["alerts"].as_array().unwrap().clone();
        let of_state = alerts.iter().filter(|alert| alert["state"] == state);
        let text = |label: &Value| label.as_str().unwrap_or("-").to_owned();
        of_state
            .map(|alert| &alert["labels"])
            .map(|l| format!("{} {}", text(&l["alertname"]), text(&l["endpoint"])))
            .collect()
    }
}

#[test]
fn a_real_prometheus_answers_each_query_of_the_dashboard_and_raises_alerts() {
    let test = "a_real_prometheus";
    let (Some(program), Some(tool)) = (program("prometheus", test), program("promtool", test)) else { return };
    let network = Loopback::new();
    let replica = |head: &Head, wire: &mut Wire, _| match head.target() {
        "/dies" => wire.reset(),
        _ => wire.send("HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\nok\n"),
    };
    let origins = vec![network.origin("app", replica), network.origin("app", replica)];
    let config = ProxyConfig::new(&network, "app");
    let proxy = start(&network, &config);
    let mut bed = Bed { proxy, origins, network };
    bed.proxy.wait_up("app", &bed.origins.iter().map(|origin| origin.address()).collect::<Vec<_>>());
    // Prometheus' own advice on names, types and help.
    promtool(&tool, &["check", "metrics"], &bed.proxy.metrics());
    let prometheus = Prometheus::start(&program, bed.proxy.admin());

    let health = |kind: &str| {
        let groups = prometheus.ask("rules")["groups"].as_array().unwrap().clone();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
        rules.filter(|rule| rule["health"] == kind).count()
    };
    // What happened before Prometheus first asked is no increase.
    eventually("Prometheus has asked", || !prometheus.query("evenkeel_ready == 1").is_empty());
    bed.origins.push(bed.network.origin("app", replica));
    let queries = dashboard();
    eventually("each panel of the dashboard has something to show", || {
        assert_eq!(bed.proxy.get("/").status, 200);
        assert!(bed.proxy.get("/dies").status >= 500);
        queries.iter().all(|(_, query)| !prometheus.query(query).is_empty())
    });
    eventually("each rule was evaluated", || health("unknown") == 0);
    assert_eq!(health("err"), 0, "{}", prometheus.ask("rules"));
    let replicas = |state| -> BTreeSet<_> {
        prometheus.alerts(state).into_iter().filter(|alert| alert.starts_with("EvenkeelReplica")).collect()
    };
    eventually("no replica raises an alert", || replicas("pending").is_empty() && replicas("firing").is_empty());

    // A replica refuses while DNS lists it: its alert waits for its two minutes, and the timeline shows which it is.
    let broken = bed.origins[1].address().to_string();
    bed.origins[1].refuse();
    let alert = format!("EvenkeelReplicaUnusable {broken}");
    eventually("the alert on the replica is pending", || replicas("pending") == BTreeSet::from([alert.clone()]));
    let title = "Which replica is in trouble, and since when";
    let (_, timeline) = queries.iter().find(|(of, _)| of == title).unwrap();
    for series in prometheus.query(timeline) {
        let state = if series["metric"]["endpoint"] == broken.as_str() { "0" } else { "1" };
        assert_eq!(series["value"][1], state, "{series}");
    }
    // A bad file is told of at once, and until it is mended.
    bed.proxy.write_config("[server]\nnonsense = 1\n");
    eventually("the bad file raises its alert", || prometheus.alerts("firing").contains("EvenkeelConfigRefused -"));
    bed.proxy.write_config(&config.to_toml());
    eventually("the alert ends", || !prometheus.alerts("firing").contains("EvenkeelConfigRefused -"));
}
