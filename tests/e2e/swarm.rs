//! Docker Swarm on one node, by `deploy/swarm/stack.yaml`: scaling, rolling updates of the app and of the proxy.
//!
//! For the time of the test the engine becomes a swarm of its own, which is more than a test may do to somebody's engine
//! unasked: it runs where `EVENKEEL_TEST_SWARM=1` allows it, and never on an engine that is part of a swarm already.

use crate::compose::free_port;
use std::net::SocketAddr;
use std::process::Command;
use testbed::docker::{
    Guest, IMAGE_PREFIX, POSTGRES_IMAGE, bare_image, build_images, docker, engine_answers, tally, try_docker, unique,
};
use testbed::{Wire, eventually};

/// A swarm of this engine alone, with the stack on it.
struct Swarm {
    stack: String,
    port: u16,
}

impl Swarm {
    fn deploy() -> Swarm {
        docker(["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377"]);
        let port = free_port();
        let swarm = Swarm { stack: unique("stack"), port };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/swarm/stack.yaml");
        let mut command = Command::new("docker");
        command.args(["stack", "deploy", "--resolve-image", "never", "--compose-file", file, &swarm.stack]);
        command.env("IMAGE_PREFIX", IMAGE_PREFIX).env("POSTGRES_IMAGE", POSTGRES_IMAGE);
        let said = command.env("WEB_PORT", port.to_string()).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        swarm
    }

    fn service(&self, name: &str) -> String {
        format!("{}_{name}", self.stack)
    }

    /// What web's users see.
    fn check_db(&self) -> (u16, String) {
        let Ok(mut wire) = Wire::try_connect(SocketAddr::from(([127, 0, 0, 1], self.port))) else {
            return (0, String::new());
        };
        wire.get("/check_db");
        wire.response().map_or((0, String::new()), |response| (response.status, response.text()))
    }

    /// The running containers of a service.
    fn containers(&self, service: &str) -> Vec<String> {
        let filter = format!("label=com.docker.swarm.service.name={}", self.service(service));
        docker(["ps", "--quiet", "--filter", &filter]).lines().map(Into::into).collect()
    }

    /// Waits until each of two proxies has so many replicas, all of them usable.
    fn wait_replicas(&self, count: usize) {
        eventually(&format!("both proxies have {count}"), || {
            let proxies = self.containers("proxy");
            let has = |proxy: &String| {
                let status = try_docker(["exec", proxy, "evenkeel", "status"]).unwrap_or_default();
                status.contains(&format!(" {count} of {count} replicas usable "))
            };
            proxies.len() == 2 && proxies.iter().all(has)
        });
    }

    /// Makes every container of a service anew, one after the other, and waits for the end of it.
    fn roll(&self, service: &str) {
        docker(["service", "update", "--force", "--quiet", &self.service(service)]);
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", try_docker(["stack", "ps", "--no-trunc", &self.stack]).unwrap_or_default());
        }
        let _ = try_docker(["stack", "rm", &self.stack]);
        eventually("its containers are gone", || {
            let filter = format!("label=com.docker.stack.namespace={}", self.stack);
            try_docker(["ps", "--all", "--quiet", "--filter", &filter]).is_ok_and(|left| left.is_empty())
        });
        let _ = try_docker(["volume", "rm", &self.service("database")]);
        let _ = try_docker(["swarm", "leave", "--force"]);
    }
}

/// A client on the stack's network, which asks the proxies by their alias.
fn start_client(network: &str) -> Guest {
    let program = testbed::binary("client");
    let folder = program.parent().unwrap().display();
    let mount = format!("{folder}:{folder}:ro");
    let program = program.display().to_string();
    let mut arguments = vec!["--init", "--network", network, "--volume", &mount];
    arguments.extend(["--env", "TARGET=proxy:80", "--env", "GET_PATH=/ping", "--env", "RATE=100"]);
    arguments.extend([bare_image(), &program]);
    Guest::run("client", arguments)
}

#[test]
fn a_stack_scales_and_rolls_and_its_callers_do_not_notice() {
    let test = "swarm::a_stack_scales_and_rolls";
    if std::env::var_os("EVENKEEL_TEST_SWARM").is_none_or(|allowed| allowed != "1") {
        tally(test, Some("it makes the engine a swarm for a while; EVENKEEL_TEST_SWARM=1 allows that"));
        return;
    }
    if !engine_answers(test) {
        return;
    }
    if docker(["info", "--format", "{{.Swarm.LocalNodeState}}"]) != "inactive" {
        tally(test, Some("this engine is part of a swarm already, which is left alone"));
        return;
    }
    build_images();
    let swarm = Swarm::deploy();
    let available = (200, "DB is available".to_owned());
    eventually("web says that the database is there", || swarm.check_db() == available);
    swarm.wait_replicas(3);
    let client = start_client(&swarm.service("demo"));
    docker(["service", "scale", "--detach", &format!("{}=5", swarm.service("db-checker"))]);
    swarm.wait_replicas(5);
    docker(["service", "scale", "--detach", &format!("{}=2", swarm.service("db-checker"))]);
    swarm.wait_replicas(2);
    swarm.roll("db-checker");
    swarm.wait_replicas(2);
    assert_eq!(swarm.check_db(), available);
    let told = client.end_client();
    println!("scaling and rolling the app: {} requests, p99 {} ms, lost {}", told["sent"], told["p99"], told["losses"]);
    assert_eq!(told["losses"], serde_json::json!([]), "nothing of it is lost");

    let client = start_client(&swarm.service("demo"));
    swarm.roll("proxy");
    swarm.wait_replicas(2);
    let told = client.end_client();
    println!("rolling the proxies: {} requests, p99 {} ms, lost {}", told["sent"], told["p99"], told["losses"]);
    for loss in told["losses"].as_array().unwrap() {
        // As on one host: the record is there a moment before somebody listens, and after he ended.
        let kind = loss["kind"].as_str().unwrap();
        assert!(kind.starts_with("Connect"), "{loss}: it was taken and not answered");
    }
    assert_eq!(swarm.check_db(), available);
}
