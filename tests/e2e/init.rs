//! `evenkeel init`: what it prints is run as it stands, by a shell on a stand-in for a Dokku host and by Docker Compose.

use super::compose::Compose;
use super::dokku_plugin::Host;
use super::images::image;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use testbed::docker::{build_images, docker};
use testbed::{Wire, eventually};

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

fn init(arguments: &[&str]) -> Output {
    Command::new(EVENKEEL).arg("init").args(arguments).output().unwrap()
}

fn recipe(arguments: &[&str]) -> String {
    let output = init(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that is set. Containers of before a deploy end at some time, whatever is run then.
fn set(host: &Host) -> Vec<(String, String)> {
    host.everything().into_iter().filter(|(name, _)| !name.starts_with("dokku/containers")).collect()
}

const CALL: &str =
    "dokku config:set --no-restart web CHECK_DB_URL=http://db-checker-proxy.web/ping && dokku ps:restart web";

#[test]
fn the_recipe_for_dokku_does_what_is_not_done_and_the_caller_then_reaches_the_proxy() {
    let recipe = recipe(&["dokku", "db-checker:8080", "--caller", "web", "--network", "demo"]);
    let proxy = [
        "apps:create db-checker-proxy",
        "config:set --no-restart db-checker-proxy UPSTREAM=db-checker.web:8080",
        "config:set --no-restart db-checker-proxy EVENKEEL_CONFIG=off",
        "proxy:disable db-checker-proxy",
        "network:set db-checker-proxy attach-post-create demo",
        "git:from-image db-checker-proxy evenkeel:0.1.0",
    ];
    let attach = |app: &str, networks: &str| {
        [format!("network:set {app} attach-post-create {networks}"), format!("ps:rebuild {app}")]
    };
    let create = || vec!["network:create demo".to_owned()];
    let nowhere = [create(), attach("db-checker", "demo").into(), attach("web", "demo").into()].concat();
    let elsewhere = [create(), attach("db-checker", "other demo").into(), attach("web", "other demo").into()].concat();
    for (network, changes) in [(None, nowhere), (Some("other"), elsewhere), (Some("demo"), vec![])] {
        let host = Host::with_web_and_db_checker(network);
        host.changes();
        let said = host.sh(&recipe);
        assert!(said.good, "{}", said.text);
        assert_eq!(host.changes(), [changes, proxy.map(str::to_owned).into()].concat(), "{network:?}");

        assert!(host.sh(CALL).good);
        assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy");

        // Once more changes nothing.
        let before = set(&host);
        host.changes();
        assert!(host.sh(&recipe).good);
        assert_eq!(host.changes(), proxy[2..], "nothing is created, and no app deployed anew");
        assert_eq!(set(&host), before);
    }
}

#[test]
fn the_recipe_for_dokku_stops_where_a_step_fails_and_goes_on_when_it_is_run_again() {
    let recipe = recipe(&["dokku", "db-checker:8080", "--caller", "web"]);
    for step in [
        "network:create",
        "network:set db-checker ",
        "ps:rebuild db-checker",
        "deploy db-checker",
        "ps:rebuild web",
        "proxy:disable",
        "git:from-image",
        "deploy db-checker-proxy",
        "enter",
    ] {
        let host = Host::with_web_and_db_checker(None);
        host.write("dokku/fail", &format!("{step}\n"));
        host.calls();
        // As one pastes it: what comes behind it is still run.
        let said = host.sh(&format!("{recipe}\necho the shell is still there"));
        let failed =
            ["the stand-in was told to fail at", "the deploy of "].iter().any(|failed| said.text.contains(failed));
        assert!(failed && said.text.contains("the shell is still there\n"), "{step}: {}", said.text);
        // The last call is the one that failed, or the one whose deploy did.
        let (command, app) = step.trim_end().split_once(' ').unwrap_or((step, ""));
        let last = host.calls().pop().unwrap();
        assert!(command == "deploy" || last.starts_with(command), "{step}: {last}");
        assert!(last.contains(app), "{step}: {last}");
        host.write("dokku/fail", "");
        let said = host.sh(&recipe);
        assert!(said.good, "{step}: {}", said.text);
        assert!(host.sh(CALL).good);
        assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy", "{step}");
    }
}

#[test]
fn the_recipe_for_dokku_leaves_an_app_alone_that_only_has_the_proxys_name() {
    let host = Host::with_web_and_db_checker(Some("evenkeel"));
    host.app("db-checker-proxy", 3000, None, &[("SECRET", "theirs")]);
    let before = host.everything();
    let said = host.sh(&recipe(&["dokku", "db-checker:8080"]));
    assert!(!said.good && said.text.contains("Name is already taken"), "{}", said.text);
    assert_eq!(host.everything(), before);
}

#[test]
fn several_apps_have_a_proxy_each() {
    let host = Host::with_web_and_db_checker(None);
    let said = host.sh(&recipe(&["dokku", "db-checker:8080", "web:9090"]));
    assert!(said.good, "{}", said.text);
    assert_eq!(host.variable("db-checker-proxy", "UPSTREAM"), "db-checker.web:8080");
    assert_eq!(host.variable("web-proxy", "UPSTREAM"), "web.web:9090");
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    for (arguments, said) in [
        (&["dokku"] as &[_], "APP:PORT"),
        (&["nomad", "a:80"], "[possible values: dokku, compose]"),
        (&["dokku", "db-checker"], "write the one that the app listens on in its container, as db-checker:8080"),
        (&["dokku", "$(reboot):80"], "is no name"),
        (&["compose", "a:80", "a:81"], "a is named twice"),
    ] {
        let output = init(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: nothing that could be piped");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn the_recipe_for_compose_serves_beside_the_apps_file_and_check_says_which_steps_are_done() {
    if !Compose::answers("init::the_recipe_for_compose") {
        return;
    }
    build_images();
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: String| fs::write(folder.path().join(file), text).unwrap();
    let app = format!(
        "image: {}, environment: {{ PORT: 8080, CHECK_DB_URL: 'http://nobody.invalid/' }}",
        image("evenkeel-web")
    );
    write("compose.yaml", format!("services:\n  app: {{ {app} }}\n"));
    write("evenkeel.yaml", docker(["run", "--rm", &image("evenkeel"), "evenkeel", "init", "compose", "app:8080"]));
    // By which name the image goes here, and a way in for the test.
    let ours = format!("image: {}, ports: ['${{WEB_PORT}}:80']", image("evenkeel"));
    write("ours.yaml", format!("services:\n  app-proxy: {{ {ours} }}\n"));
    let compose = Compose::up(folder.path(), &["compose.yaml", "evenkeel.yaml", "ours.yaml"], &["--scale", "app=2"]);
    let check = || match compose.try_run(&["exec", "-T", "app-proxy", "evenkeel", "check"]) {
        Ok(said) | Err(said) => said,
    };
    let step = |number: usize, mark: &str| {
        check().lines().any(|line| line.starts_with(&format!("{number}. ")) && line.contains(mark))
    };
    eventually("all but the last step is done", || (1..=4).all(|number| step(number, "  done   ")));
    assert!(step(4, "  done   ready, on [::]:80"), "{}", check());
    assert!(step(5, "  to do  no request yet: have callers say http://NAME/, "), "{}", check());
    let at: SocketAddr = ([127, 0, 0, 1], compose.port).into();
    let mut wire = Wire::connect(at);
    wire.get("/nothing");
    assert_eq!(wire.response().unwrap().status, 404, "the app's own answer");
    eventually("the last step is done", || step(5, "  done   1 request so far"));

    compose.run(&["stop", "app"]);
    eventually("a step that is no longer done is to do", || step(2, "  to do  app does not resolve"));
    assert!(step(3, "  to do  ") && step(4, "  done   "), "{}", check());
}
