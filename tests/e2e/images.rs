//! The images as their Dockerfiles make them, alone and as compose.yaml puts them together.

use crate::compose::Compose;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use testbed::docker::{Guest, IMAGE_PREFIX, build_images, docker, engine_answers, try_docker};
use testbed::{Wire, eventually};

/// The name under which tests build an image.
pub(super) fn image(name: &str) -> String {
    format!("{IMAGE_PREFIX}{name}")
}

/// A container of the proxy's image, as confined as one can be; `options` go to `docker run`.
fn alone(options: &[&str]) -> Guest {
    let confined = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    Guest::run("alone", confined.iter().chain(options).chain(&[image("evenkeel").as_str()]).copied())
}

#[test]
fn the_image_is_small_and_says_what_an_orchestrator_asks_of_it() {
    if !engine_answers("images::the_image_is_small") {
        return;
    }
    build_images();
    let told: Value =
        serde_json::from_str(&docker(["image", "inspect", "--format", "{{json .}}", &image("evenkeel")])).unwrap();
    let size = told["Size"].as_u64().unwrap();
    println!("the image takes {:.1} MB", size as f64 / 1e6);
    assert!(size < 15_000_000, "{size} bytes");
    let config = &told["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Cmd"], serde_json::json!(["evenkeel"]));
    assert!(config["Entrypoint"].is_null(), "a Procfile's command would become its arguments");
    assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}}), "Dokku takes its PORT from here");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "evenkeel", "ready"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], "Evenkeel");
    for app in ["evenkeel-web", "evenkeel-db-checker"] {
        assert_eq!(docker(["image", "inspect", "--format", "{{.Config.User}}", &image(app)]), "65532", "{app}");
    }
    // What Dokku looks for in the working directory of an image that was loaded.
    let files = alone(&[]);
    for (there, file) in [("Procfile", "Procfile"), ("app.json", "app.json"), ("db-checker.toml", "proxy.toml")] {
        let there = docker(["cp", &format!("{}:/app/{there}", files.name()), "-"]);
        let here = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(there.contains(&here), "{file} differs");
    }
}

#[test]
fn the_image_runs_confined_tells_its_health_and_ends_when_told() {
    if !engine_answers("images::the_image_runs_confined") {
        return;
    }
    build_images();
    let proxy = alone(&["--health-interval=1s", "--env=UPSTREAM=db-checker:8080"]);
    eventually("its health check passes", || proxy.inspect("{{.State.Health.Status}}") == "healthy");
    // There is no shell in it, and none is needed.
    assert!(try_docker(["exec", proxy.name(), "sh", "-c", "true"]).is_err());
    let status = docker(["exec", proxy.name(), "evenkeel", "status"]);
    assert!(status.contains("db-checker"), "{status}");
    let check = try_docker(["exec", proxy.name(), "evenkeel", "check"]);
    let told = check.expect_err("nobody is there, and check says so by its exit status").to_string();
    println!("{told}");
    docker(["stop", "--time", "20", proxy.name()]);
    assert_eq!(proxy.inspect("{{.State.ExitCode}}"), "0");
}

#[test]
fn a_configuration_in_a_mounted_directory_is_taken_over_without_a_restart() {
    if !engine_answers("images::a_configuration_in_a_mounted_directory") {
        return;
    }
    build_images();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let write = |text: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, folder.path().join("proxy.toml")).unwrap();
    };
    write("[upstream.one]\naddress = \"one:80\"\n");
    let volume = format!("{}:/config:ro", folder.path().display());
    let proxy = alone(&["--volume", &volume, "--env", "EVENKEEL_CONFIG=/config/proxy.toml"]);
    let status = || try_docker(["exec", proxy.name(), "evenkeel", "status"]).unwrap_or_default();
    eventually("it runs", || status().contains("one"));
    write("[upstream.two]\naddress = \"two:80\"\n");
    eventually("the other upstream is taken over", || status().contains("two"));
    write("[upstream.three]\naddres = \"three:80\"\n");
    let logs = || {
        let said = Command::new("docker").args(["logs", proxy.name()]).output().unwrap();
        String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
    };
    eventually("a bad file is told of", || logs().contains("addres"));
    assert!(status().contains("two"), "and changes nothing");
}

/// What web's users see.
fn check_db(compose: &Compose) -> (u16, String) {
    let Ok(mut wire) = Wire::try_connect(([127, 0, 0, 1], compose.port).into()) else { return (0, String::new()) };
    wire.get("/check_db");
    wire.response().map_or((0, String::new()), |response| (response.status, response.text()))
}

#[test]
fn compose_brings_up_the_whole_chain_and_scaling_is_noticed_by_itself() {
    let test = "images::compose_brings_up";
    if !Compose::answers(test) {
        return;
    }
    build_images();
    let compose = Compose::up(env!("CARGO_MANIFEST_DIR"), &["compose.yaml"], &[]);
    let available = (200, "DB is available".to_owned());
    eventually("web says that the database is there", || check_db(&compose) == available);
    compose.run(&["up", "--detach", "--scale", "db-checker=5"]);
    eventually("the proxy has five", || compose.has_replicas(5));
    for _ in 0..50 {
        assert_eq!(check_db(&compose), available);
    }
    compose.run(&["up", "--detach", "--scale", "db-checker=2"]);
    eventually("the proxy has two", || compose.has_replicas(2));
    assert_eq!(check_db(&compose), available);
    compose.run(&["stop", "db"]);
    eventually("424 is an answer", || check_db(&compose) == (200, "DB is not available".into()));
    compose.run(&["start", "db"]);
    eventually("the database is back", || check_db(&compose) == available);
    compose.run(&["stop", "db-checker"]);
    let (status, text) = check_db(&compose);
    assert!(status == 500 && text.starts_with("could not check if DB is available: "), "{status} {text}");
}
