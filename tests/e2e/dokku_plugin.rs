//! `deploy/dokku-plugin` against the stand-in for Dokku in `testbed/dokku`, which writes down each call and models what
//! Dokku's documentation says of it. No Dokku host was to be had: what Dokku really does, these tests cannot show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The commands of Dokku's that the plugin may use, the version that brought them as far as its documentation says, and
/// the page of it (below dokku.com/docs) where the form used here was checked, in that of 0.30 to 0.38.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    ("apps:create", "0.3.1", "deployment/application-management"),
    ("apps:destroy", "0.3.1", "deployment/application-management: `--force` asks nothing"),
    ("apps:exists", "0.12 (not yet in 0.9.4)", "deployment/application-management: status 0 if it exists"),
    ("config:get", "0.3", "configuration/environment-variables"),
    ("config:set", "0.3", "configuration/environment-variables: `--no-restart`"),
    ("enter", "0.4.0", "processes/entering-containers: a command, in a container named as web.1"),
    ("git:from-image", "0.24.0", "deployment/methods/image: the same image again does nothing, and is status 0"),
    ("network:create", "0.20.0", "networking/network"),
    ("network:destroy", "0.20.0", "networking/network: `--force` asks nothing; not while containers are attached"),
    ("network:exists", "0.20.0", "networking/network: status 0 if it exists"),
    (
        "network:report",
        "0.20.0",
        "networking/network: a flag prints its value alone; `computed` includes global values",
    ),
    ("network:set", "0.20.0", "networking/network: an empty value clears; several networks since pull request 5891"),
    ("proxy:disable", "0.5.0", "networking/proxy-management"),
    ("proxy:report", "0.8.1", "networking/proxy-management: `--proxy-enabled`"),
    ("ps:rebuild", "0.3.14", "processes/process-management; networking/network: networks take effect by it"),
    ("ps:report", "0.12.0", "processes/process-management: `--deployed`, `--running`"),
    ("ps:restart", "0.3.14", "processes/process-management"),
];

/// Commands that change nothing.
const READING: &[&str] =
    &["apps:exists", "config:get", "enter", "network:exists", "network:report", "proxy:report", "ps:report"];

/// A Dokku host, as far as the stand-in is one.
pub(super) struct Host {
    folder: tempfile::TempDir,
}

/// What a command left.
pub(super) struct Said {
    pub(super) good: bool,
    pub(super) text: String,
}

impl Host {
    /// With the image that the plugin asks for, and no app.
    pub(super) fn new() -> Host {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        for folder in ["dokku/apps", "dokku/containers", "dokku/networks", "dokku/global", "lib/data/evenkeel"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        host.write("dokku/images", "evenkeel:0.1.0 sha256:one\nevenkeel:0.2.0 sha256:two\n");
        host
    }

    /// `web`, whose CHECK_DB_URL leads to `db-checker`, both deployed; `network` is what they share, if there is one.
    pub(super) fn with_web_and_db_checker(network: Option<&str>) -> Host {
        let host = Host::new();
        if let Some(network) = network {
            host.write(&format!("dokku/networks/{network}"), "");
        }
        host.app("db-checker", 8080, network, &[]);
        host.app("web", 9090, network, &[("CHECK_DB_URL", "http://db-checker.web:8080/ping")]);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// An app that was deployed long ago.
    pub(super) fn app(&self, name: &str, port: u16, network: Option<&str>, variables: &[(&str, &str)]) {
        self.write(&format!("dokku/apps/{name}/port"), &port.to_string());
        fs::create_dir_all(self.path(&format!("dokku/apps/{name}/env"))).unwrap();
        fs::create_dir_all(self.path(&format!("dokku/apps/{name}/property"))).unwrap();
        if let Some(network) = network {
            self.write(&format!("dokku/apps/{name}/property/attach-post-create"), network);
        }
        for (variable, value) in variables {
            self.set(name, variable, value);
        }
        let said = self.dokku(&format!("standin:deploy {name}"));
        assert!(said.good, "{}", said.text);
    }

    fn set(&self, app: &str, variable: &str, value: &str) {
        self.write(&format!("dokku/apps/{app}/env/{variable}"), value);
    }

    pub(super) fn variable(&self, app: &str, variable: &str) -> String {
        fs::read_to_string(self.path(&format!("dokku/apps/{app}/env/{variable}"))).unwrap()
    }

    fn dokku(&self, arguments: &str) -> Said {
        let mut command = Command::new(Path::new(ROOT).join("testbed/dokku/dokku"));
        // What `dokku --app` leaves in the environment must not reach the commands that the plugin gives.
        self.run(command.args(arguments.split(' ')).env("DOKKU_APP_NAME", "another"))
    }

    /// Runs a script as an operator's shell on the host does.
    pub(super) fn sh(&self, script: &str) -> Said {
        self.run(Command::new("sh").args(["-c", script]))
    }

    fn run(&self, command: &mut Command) -> Said {
        let standin = Path::new(ROOT).join("testbed/dokku");
        let path = format!("{}:{}", standin.display(), std::env::var("PATH").unwrap());
        let output = command
            .env("PATH", path)
            .env("PLUGIN", Path::new(ROOT).join("deploy/dokku-plugin"))
            .env("DOKKU_STANDIN", self.path("dokku"))
            .env("DOKKU_LIB_ROOT", self.path("lib"))
            .env("EVENKEEL_RETIRE_POLL", "0")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Said { good: output.status.success(), text }
    }

    #[track_caller]
    fn good(&self, arguments: &str) -> String {
        let said = self.dokku(arguments);
        assert!(said.good, "dokku {arguments}: {}", said.text);
        said.text
    }

    /// Fails, and says all of this.
    #[track_caller]
    fn bad(&self, arguments: &str, all: &[&str]) -> String {
        let said = self.dokku(arguments);
        assert!(!said.good, "dokku {arguments} succeeded: {}", said.text);
        for part in all {
            assert!(said.text.contains(part), "dokku {arguments} does not say {part:?}: {}", said.text);
        }
        said.text
    }

    /// The calls since the last question.
    pub(super) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("dokku/calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("dokku/calls"));
        calls.lines().map(Into::into).collect()
    }

    /// Of these, those that change something.
    pub(super) fn changes(&self) -> Vec<String> {
        let calls = self.calls();
        calls.into_iter().filter(|call| !READING.contains(&command(call))).collect()
    }

    /// Whom the running containers of `app` reach by its variable.
    #[track_caller]
    pub(super) fn reached(&self, app: &str, variable: &str) -> String {
        self.good(&format!("standin:reach {app} {variable}")).trim().to_owned()
    }

    /// All that is set and all that runs, by name; containers without their numbers.
    pub(super) fn everything(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap().trim().to_owned();
                let name = path.strip_prefix(self.folder.path()).unwrap().to_str().unwrap().to_owned();
                let parts: Vec<&str> =
                    name.split('/').map(|part| part.trim_end_matches(|c: char| c.is_ascii_digit())).collect();
                let passing = ["dokku/calls", "dokku/serial", "dokku/fail", "lib/data/evenkeel/.lock"];
                // A property that is set to nothing is one that is not set.
                if !(passing.contains(&name.as_str()) || name.contains("/property/") && text.is_empty()) {
                    all.insert(parts.join("/"), text);
                }
            }
        }
        all
    }

    /// A second host that is like this one.
    fn copy(&self) -> Host {
        let copy = Host { folder: tempfile::tempdir().unwrap() };
        let source = format!("{}/.", self.folder.path().display());
        assert!(Command::new("cp").args(["-r", &source]).arg(copy.folder.path()).status().unwrap().success());
        copy
    }
}

/// Without its flags and arguments.
fn command(call: &str) -> &str {
    call.trim_start_matches("--force ").split(' ').next().unwrap()
}

const LINK: &str = "evenkeel:link db-checker web CHECK_DB_URL";
const UNLINK: &str = "evenkeel:unlink db-checker web CHECK_DB_URL";

#[test]
fn two_apps_that_share_a_network_are_not_rebuilt_for_a_link() {
    let host = Host::with_web_and_db_checker(Some("demo"));
    let before = host.everything();
    let said = host.good(LINK);
    assert!(said.contains("Back out:     dokku evenkeel:unlink db-checker web CHECK_DB_URL"), "{said}");
    let changes = [
        "apps:create db-checker-proxy",
        "network:set db-checker-proxy attach-post-create demo",
        "proxy:disable db-checker-proxy",
        "config:set --no-restart db-checker-proxy EVENKEEL_CONFIG=off",
        "config:set --no-restart db-checker-proxy UPSTREAM=db-checker.web:8080",
        "git:from-image db-checker-proxy evenkeel:0.1.0",
        "config:set --no-restart web CHECK_DB_URL=http://db-checker-proxy.web/ping",
        "ps:restart web",
    ];
    assert_eq!(host.changes(), changes);
    assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy");

    host.good(UNLINK);
    let changes = [
        "config:set --no-restart web CHECK_DB_URL=http://db-checker.web:8080/ping",
        "ps:restart web",
        "--force apps:destroy db-checker-proxy",
    ];
    assert_eq!(host.changes(), changes);
    assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker");
    assert_eq!(host.everything(), before);
}

#[test]
fn apps_without_a_network_get_one_and_lose_it_again() {
    let host = Host::with_web_and_db_checker(None);
    let before = host.everything();
    host.good(LINK);
    let changes = host.changes();
    for change in ["network:create evenkeel-db-checker", "ps:rebuild db-checker", "ps:rebuild web"] {
        assert_eq!(changes.iter().filter(|c| *c == change).count(), 1, "{change} in {changes:#?}");
    }
    assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy");
    host.good(UNLINK);
    assert_eq!(host.everything(), before);
}

#[test]
fn networks_that_an_app_has_are_kept() {
    let host = Host::new();
    for network in ["back", "front"] {
        host.write(&format!("dokku/networks/{network}"), "");
    }
    host.app("db-checker", 8080, Some("back"), &[]);
    host.app("web", 9090, Some("front"), &[("CHECK_DB_URL", "http://db-checker.web:8080/ping")]);
    let before = host.everything();
    host.good(LINK);
    assert!(host.calls().contains(&"network:set web attach-post-create front back".to_owned()));
    assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy");
    host.good(UNLINK);
    assert_eq!(host.everything(), before);
}

#[test]
fn scheme_user_and_path_of_the_variable_are_kept() {
    for (old, new) in [
        ("http://db-checker.web:8080", "http://db-checker-proxy.web"),
        ("http://db-checker.web:8080/a/b?c=d#e", "http://db-checker-proxy.web/a/b?c=d#e"),
        ("http://user:pass%40word@db-checker.web:8080/", "http://user:pass%40word@db-checker-proxy.web/"),
        ("ws://db-checker.web:8080/live", "ws://db-checker-proxy.web/live"),
        ("db-checker.web:8080", "db-checker-proxy.web:80"),
    ] {
        let host = Host::with_web_and_db_checker(Some("demo"));
        host.set("web", "CHECK_DB_URL", old);
        host.good("standin:deploy web");
        let said = host.good(LINK);
        assert!(!said.contains("pass%40word"), "{said}");
        assert_eq!(host.variable("web", "CHECK_DB_URL"), new, "for {old}");
        assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy", "for {old}");
        host.good(UNLINK);
        assert_eq!(host.variable("web", "CHECK_DB_URL"), old);
    }
}

#[test]
fn a_suffix_for_all_names_is_respected() {
    let host = Host::with_web_and_db_checker(Some("demo"));
    for app in ["db-checker", "web"] {
        host.write(&format!("dokku/apps/{app}/property/tld"), "local");
    }
    host.set("web", "CHECK_DB_URL", "http://db-checker.web.local:8080/ping");
    host.good(LINK);
    assert!(host.calls().iter().any(|c| c.ends_with("UPSTREAM=db-checker.web.local:8080")));
}

#[test]
fn a_name_by_dockers_own_option_is_what_the_proxy_asks_for_too() {
    let host = Host::with_web_and_db_checker(Some("demo"));
    host.write("dokku/apps/db-checker/alias", "db-checker");
    host.set("web", "CHECK_DB_URL", "http://db-checker:8080/ping");
    host.good(LINK);
    assert!(host.calls().iter().any(|c| c.ends_with("UPSTREAM=db-checker:8080")));
}

#[test]
fn callers_of_one_app_share_its_proxy_until_the_last_is_unlinked() {
    let host = Host::with_web_and_db_checker(None);
    host.app(
        "worker",
        5000,
        None,
        &[("DB_URL", "http://db-checker.web:8080/"), ("PING", "http://db-checker.web:8080/ping")],
    );
    let before = host.everything();
    host.good(LINK);
    host.calls();
    for variable in ["DB_URL", "PING"] {
        host.good(&format!("evenkeel:link db-checker worker {variable}"));
        assert_eq!(host.reached("worker", variable), "db-checker-proxy");
    }
    let changes = host.changes();
    let touched = |app: &str| changes.iter().any(|c| c.split(' ').any(|word| word == app));
    assert!(!touched("db-checker") && !touched("db-checker-proxy") && !touched("web"), "{changes:#?}");

    host.bad("evenkeel:unlink db-checker worker", &["by several variables: DB_URL PING", "Name one: "]);
    let said = host.good("evenkeel:unlink db-checker worker PING");
    assert!(said.contains("db-checker-proxy stays for web/CHECK_DB_URL worker/DB_URL"), "{said}");
    assert_eq!(host.reached("worker", "PING"), "db-checker", "it is on the network still, for DB_URL");
    assert_eq!(host.reached("worker", "DB_URL"), "db-checker-proxy");
    // The variable need not be named where there is one.
    host.good("evenkeel:unlink db-checker web");
    host.good("evenkeel:unlink db-checker worker");
    assert_eq!(host.everything(), before);

    host.good(LINK);
    host.set("worker", "DB_URL", "http://db-checker.web:9999/");
    let said = [
        "db-checker-proxy sends requests to db-checker.web:8080, but DB_URL of 'worker' names port 9999",
        "--upstream",
    ];
    host.bad("evenkeel:link db-checker worker DB_URL", &said);
}

#[test]
fn a_link_that_stands_is_left_alone_by_the_same_command() {
    let host = Host::with_web_and_db_checker(None);
    host.good(LINK);
    let before = host.everything();
    host.calls();
    host.good(LINK);
    assert_eq!(host.changes(), [""; 0]);
    assert_eq!(host.everything(), before);
    host.good(UNLINK);
    host.calls();
    let said = host.good(UNLINK);
    assert!(said.contains("web is not linked to db-checker by CHECK_DB_URL: nothing to undo"), "{said}");
    assert_eq!(host.changes(), [""; 0]);
}

#[test]
fn bad_input_is_told_with_a_remedy_and_changes_nothing() {
    let host = Host::with_web_and_db_checker(Some("demo"));
    for (variable, value) in [
        ("TLS", "https://db-checker.example.com/ping"),
        ("DATABASE_URL", "postgres://me:hunter2@dokku-postgres-db:5432/db"),
        ("FLAG", "true"),
        ("PUBLIC", "http://db-checker.example.com/ping"),
    ] {
        host.set("web", variable, value);
    }
    fs::create_dir_all(host.path("dokku/apps/new/env")).unwrap();
    host.app("taken", 5000, Some("demo"), &[]);
    host.app("taken-proxy", 5000, Some("demo"), &[]);
    host.set("web", "TAKEN", "http://taken.web:5000/");
    let before = host.everything();
    let cases: &[(&str, &[&str])] = &[
        ("link", &["0 of 3 were given", "Usage: dokku evenkeel:link APP CALLER VAR"]),
        ("link db-checker web", &["2 of 3 were given", "For example: "]),
        ("link db-checker web CHECK_DB_URL more", &["4 of 3 were given"]),
        ("link db-checker web CHECK_DB_URL --port 80", &["there is no option '--port'", "Usage: "]),
        ("link db-checker web CHECK_DB_URL --image", &["--image wants a value"]),
        ("link db-checker web CHECK-DB", &["'CHECK-DB' cannot be the name of a variable"]),
        ("link db-checker web CHECK_DB_URL --upstream db-checker", &["is not NAME:PORT", "For example: "]),
        ("link ../etc web CHECK_DB_URL", &["'../etc' cannot be the name of an app (APP)"]),
        ("link db-chequer web CHECK_DB_URL", &["there is no app 'db-chequer' (APP)", "dokku apps:list"]),
        ("link db-checker wep CHECK_DB_URL", &["there is no app 'wep' (CALLER)"]),
        ("link new web CHECK_DB_URL", &["'new' (APP) has never been deployed", "Deploy it"]),
        ("link web web CHECK_DB_URL", &["the same app, 'web'"]),
        ("link taken web TAKEN", &["'taken-proxy', which exists and was not made by this plugin", "dokku apps:rename"]),
        ("link db-checker web NONE", &["NONE is not set in 'web'", "dokku config:set web NONE=http://db-checker.web"]),
        ("link db-checker web FLAG", &["FLAG of 'web' holds no address: true"]),
        ("link db-checker web TLS", &["is a TLS address", "dokku config:set web TLS=http://db-checker.web:5000/ping"]),
        ("link db-checker web DATABASE_URL", &["is no HTTP address: postgres://…@dokku-postgres-db"]),
        ("link db-checker web PUBLIC", &["does not name db-checker on a network", "--upstream", "db-checker.web:5000"]),
        ("link db-checker web CHECK_DB_URL --image evenkeel:9", &["no image 'evenkeel:9' on this host", "docker load"]),
        ("unlink db-checker", &["Usage: dokku evenkeel:unlink APP CALLER [VAR]"]),
        ("unlink db-checker wep", &["there is no app 'wep'", "dokku evenkeel:report"]),
        ("unlink .. web", &["'..' is no name"]),
        ("report db-checker", &["'db-checker' has no proxy"]),
    ];
    for (arguments, says) in cases {
        let said = host.bad(&format!("evenkeel:{arguments}"), says);
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(host.changes(), [""; 0], "evenkeel:{arguments}");
        assert_eq!(host.everything(), before, "evenkeel:{arguments}");
    }
    fs::remove_dir(host.path("lib/data/evenkeel"))
        .or_else(|_| fs::remove_dir_all(host.path("lib/data/evenkeel")))
        .unwrap();
    host.bad(LINK, &["data/evenkeel is not there", "sudo dokku plugin:install"]);
    assert_eq!(host.changes(), [""; 0]);
}

/// Two apps without a network: `web` knows `db-checker` by a name of Docker's own.
fn by_link() -> (Host, String) {
    let host = Host::with_web_and_db_checker(None);
    host.write("dokku/apps/db-checker/alias", "checker.link");
    host.set("web", "CHECK_DB_URL", "http://checker.link:8080/ping");
    host.good("standin:deploy web");
    (host, format!("{LINK} --upstream db-checker.web:8080"))
}

/// `command` once for each change that it makes and each deploy, with a copy of `host` on which exactly that fails.
/// Whatever fails, `web` is served; `then` says what else must hold.
fn wherever_it_stops(host: &Host, command: &str, at: fn(&str) -> bool, then: impl Fn(&Host, &str) + Sync) {
    let rehearsal = host.copy();
    rehearsal.calls();
    rehearsal.good(command);
    let calls = rehearsal.calls();
    let fails = |call: &String| !READING.contains(&self::command(call)) || call.starts_with("enter ");
    let mut faults: Vec<String> = calls.into_iter().filter(fails).collect();
    let deploys: Vec<String> = faults
        .iter()
        .filter(|call| ["ps:rebuild", "ps:restart", "git:from-image"].contains(&self::command(call)))
        .map(|call| format!("deploy {}", call.split(' ').nth(1).unwrap()))
        .collect();
    faults.extend(deploys);
    faults.retain(|fault| at(fault));
    assert!(faults.len() >= 2, "{faults:#?}");
    let next = std::sync::Mutex::new(faults.iter());
    let one = || {
        loop {
            let Some(fault) = next.lock().unwrap().next() else { return };
            let host = host.copy();
            // `--force` is before the command, where the stand-in does not look.
            host.write("dokku/fail", &format!("{}\n", fault.trim_start_matches("--force ")));
            let said = host.bad(command, &[" stopped at: ", "ended with status 1", "To go on, mend the cause"]);
            let reached = host.reached("web", "CHECK_DB_URL");
            assert!(reached.starts_with("db-checker"), "{fault}: web reaches {reached}; {said}");
            fs::remove_file(host.path("dokku/fail")).unwrap();
            then(&host, fault);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(one))));
}

/// Where a caller that is on the network already is told of its new variable.
fn restarts_web(fault: &str) -> bool {
    ["ps:restart web", "deploy web"].contains(&fault)
}

#[test]
fn a_link_that_stops_halfway_goes_on_by_the_same_command_or_is_undone() {
    let shared = (Host::with_web_and_db_checker(Some("demo")), LINK.to_owned());
    for ((host, link), at) in [(by_link(), (|_| true) as fn(&str) -> bool), (shared, restarts_web)] {
        let before = host.everything();
        wherever_it_stops(&host, &link, at, |host, fault| {
            let undone = host.copy();
            undone.good(UNLINK);
            assert_eq!(undone.everything(), before, "undone after {fault}");
            host.good(&link);
            assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy", "after {fault}");
            host.good(UNLINK);
            assert_eq!(host.everything(), before, "after {fault}");
        });
    }
}

#[test]
fn an_unlink_that_stops_halfway_goes_on_by_the_same_command_or_is_linked_again() {
    let shared = (Host::with_web_and_db_checker(Some("demo")), LINK.to_owned());
    for ((host, link), at) in [(by_link(), (|_| true) as fn(&str) -> bool), (shared, restarts_web)] {
        let before = host.everything();
        host.good(&link);
        wherever_it_stops(&host, UNLINK, at, |host, fault| {
            let undone = host.copy();
            undone.good(UNLINK);
            assert_eq!(undone.everything(), before, "after {fault}");
            host.good(&link);
            assert_eq!(host.reached("web", "CHECK_DB_URL"), "db-checker-proxy", "linked again after {fault}");
        });
    }
}

#[test]
fn what_was_changed_by_hand_since_is_not_overwritten() {
    let host = Host::with_web_and_db_checker(None);
    host.good(LINK);
    host.set("web", "CHECK_DB_URL", "http://elsewhere.web/");
    host.write("dokku/networks/mine", "");
    host.write("dokku/apps/db-checker/property/attach-post-create", "evenkeel-db-checker,mine");
    host.bad(LINK, &["was changed since it was linked: it is http://elsewhere.web/", "evenkeel:unlink db-checker web"]);
    let said = host.good("evenkeel:report db-checker");
    assert!(said.contains("web CHECK_DB_URL, changed since: http://elsewhere.web/"), "{said}");
    let said = host.dokku(UNLINK).text;
    assert!(said.contains("CHECK_DB_URL of web was changed since (http://elsewhere.web/), and stays."), "{said}");
    assert!(said.contains("attach-post-create of db-checker was changed since"), "{said}");
    assert_eq!(host.variable("web", "CHECK_DB_URL"), "http://elsewhere.web/");
}

#[test]
fn a_caller_that_is_gone_does_not_keep_the_proxy() {
    let host = Host::with_web_and_db_checker(Some("demo"));
    host.good(LINK);
    fs::remove_dir_all(host.path("dokku/apps/web")).unwrap();
    for entry in fs::read_dir(host.path("dokku/containers")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("web.") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let said = host.good("evenkeel:report");
    assert!(said.contains("there is no app web any more; dokku evenkeel:unlink db-checker web CHECK_DB_URL"), "{said}");
    host.good(UNLINK);
    assert!(!host.path("dokku/apps/db-checker-proxy").exists());
    assert!(host.good("evenkeel:report").contains("No app has a proxy"));
}

#[test]
fn another_image_and_the_same_name_for_another_image_are_deployed() {
    let host = Host::with_web_and_db_checker(Some("demo"));
    host.good(LINK);
    host.calls();
    host.good(&format!("{LINK} --image evenkeel:0.2.0"));
    assert_eq!(host.changes(), ["git:from-image db-checker-proxy evenkeel:0.2.0"]);
    host.write("dokku/images", "evenkeel:0.2.0 sha256:another\n");
    host.good(LINK);
    // For Dokku nothing has changed: it would do nothing on `git:from-image`.
    assert_eq!(host.changes(), ["ps:rebuild db-checker-proxy"]);
    assert!(host.good("evenkeel:report").contains("image:                 evenkeel:0.2.0"));
    // A configuration that the operator has put in place of the environment is left alone.
    host.set("db-checker-proxy", "EVENKEEL_CONFIG", "/config/proxy.toml");
    host.dokku(LINK);
    assert_eq!(host.variable("db-checker-proxy", "EVENKEEL_CONFIG"), "/config/proxy.toml");
}

#[test]
fn help_names_every_subcommand() {
    let host = Host::new();
    let help = host.good("evenkeel:help");
    for entry in fs::read_dir(Path::new(ROOT).join("deploy/dokku-plugin/subcommands")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "default" || help.contains(&format!("evenkeel:{name} ")), "{name} in {help}");
    }
    assert_eq!(host.good("evenkeel:default"), help);
    assert!(host.good("help").contains("    evenkeel, "));
    assert!(!host.dokku("evenkeel:nonsense").good);
}

#[test]
fn the_plugin_uses_no_command_of_dokkus_but_those_on_the_list() {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/dokku-plugin/internal-functions")).unwrap();
    let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.starts_with("dk() "));
    let is_command = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b':' || b == b'-');
    let used: BTreeSet<&str> =
        lines().flat_map(|line| line.split("dk ").skip(1)).map(command).filter(is_command).collect();
    let listed: BTreeSet<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(used, listed, "look each up in Dokku's documentation, and put it on the list with its version and page");
    // And it calls `dokku` in no other way.
    let direct = lines().filter(|line| line.starts_with("dokku ") || line.contains("$(dokku ")).count();
    assert_eq!(direct, 0);

    let host = Host::with_web_and_db_checker(None);
    host.good(LINK);
    host.good(UNLINK);
    let called = host.calls();
    let unknown: Vec<&String> = called.iter().filter(|call| !listed.contains(command(call))).collect();
    assert!(unknown.is_empty() && called.len() > 30, "{unknown:#?}");
}

#[test]
fn the_plugin_is_laid_out_as_dokku_looks_for_it() {
    let folder = Path::new(ROOT).join("deploy/dokku-plugin");
    let described: toml::Table = fs::read_to_string(folder.join("plugin.toml")).unwrap().parse().unwrap();
    let plugin = described["plugin"].as_table().unwrap();
    assert!(plugin["description"].as_str().unwrap().starts_with("dokku plugin that"));
    assert_eq!(plugin["version"].as_str().unwrap(), env!("CARGO_PKG_VERSION"), "and so is the image that it asks for");
    assert!(plugin["config"].as_table().unwrap().is_empty());
    // Dokku ignores what may not be executed.
    for file in
        ["commands", "install", "subcommands/default", "subcommands/link", "subcommands/report", "subcommands/unlink"]
    {
        let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{file}");
    }
}
