//! Each command line of the README and of what is in docs/: a test runs it, or it stands here with the reason why none
//! does. A command that is new and stands nowhere fails the first of these tests.

use super::dokku_plugin;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

/// How a command is covered.
enum How {
    /// A test of this name runs it, or what it does.
    Run(&'static str),
    /// None does, because.
    Not(&'static str),
}
use How::{Not, Run};

const NO_HOST: &str = "needs a Dokku host; the plugin's tests do the same on a stand-in";
const BY_HAND: &str =
    "tried by hand with docker-compose 1.29; ten_redeploys_beside_a_holder_lose_nothing does the same";
const PACKAGE: &str = "the_debian_package_serves_under_systemd_keeps_what_was_edited_and_leaves_nothing_behind";
const EIGHT_LINES: &str = "the_image_of_a_release_is_the_dockerfiles_and_serves_an_app_by_eight_lines_of_compose";
const OPERATOR: &str = "the operator looks at what is running there";

/// Commands by how they begin; the longest beginning counts. Those of `dokku` are below.
const COVERED: &[(&str, How)] = &[
    ("make", Run("every_target_that_the_manuals_name_is_one_of_the_makefiles")),
    ("evenkeel", Run("every_command_of_evenkeel_is_one")),
    ("dokku", Run("every_command_of_dokku_is_known_by_its_version_and_page")),
    ("tar -C deploy -c dokku-plugin", Run("the_plugin_arrives_where_dokku_looks_for_it")),
    ("ssh root@HOST tar", Run("the_plugin_arrives_where_dokku_looks_for_it")),
    ("ssh root@HOST docker load", Not(NO_HOST)),
    ("ssh root@HOST 'dokku plugin:enable evenkeel", Not(NO_HOST)),
    ("ssh dokku@HOST git:load-image", Not(NO_HOST)),
    ("git remote add dokku-", Not(NO_HOST)),
    ("git push dokku-", Not(NO_HOST)),
    ("install -m 644 proxy.toml /var/lib/dokku", Not(NO_HOST)),
    ("docker save", Not("writes what the next command of its line takes")),
    ("docker build", Run("the_image_is_small_and_says_what_an_orchestrator_asks_of_it")),
    ("docker image ls", Not(OPERATOR)),
    ("docker rename", Run("a_renamed_container_keeps_its_alias_but_for_a_moment")),
    ("docker network inspect", Not(OPERATOR)),
    ("docker network create demo", Not("the tests' networks are made alike, by names of their own")),
    ("docker network connect demo dokku.postgres.db", Not(NO_HOST)),
    ("docker network disconnect", Not("named as what the proxy notices, which the tests of DNS do")),
    ("docker stop", Not("named as who gives the grace")),
    (
        "docker run --rm evenkeel:0.1.0 evenkeel init dokku",
        Run("the_recipe_for_dokku_does_what_is_not_done_and_the_caller_then_reaches_the_proxy"),
    ),
    (
        "docker run --rm evenkeel:0.1.0 evenkeel init compose",
        Run("the_recipe_for_compose_serves_beside_the_apps_file_and_check_says_which_steps_are_done"),
    ),
    (
        "docker compose --file compose.yaml --file evenkeel.yaml",
        Run("the_recipe_for_compose_serves_beside_the_apps_file_and_check_says_which_steps_are_done"),
    ),
    ("docker run --read-only", Run("the_image_runs_confined_tells_its_health_and_ends_when_told")),
    ("docker run --ulimit", Not("an option of Docker alone; tests set the limit by `ulimit`")),
    ("docker run --network container:NAME", Run("ten_redeploys_beside_a_holder_lose_nothing")),
    ("docker run --detach --name proxy-address", Run("ten_redeploys_beside_a_holder_lose_nothing")),
    ("docker rm --force proxy-address", Not("the way back from the command before it")),
    ("docker container create", Not("named as what Dokku runs")),
    ("export NETWORK=demo UPSTREAM=", Not("variables of the next command")),
    ("docker compose --project-name proxy --file deploy/compose/proxy.yaml", Not(BY_HAND)),
    ("sh deploy/compose/redeploy.sh", Not(BY_HAND)),
    ("docker compose up", Run("compose_brings_up_the_whole_chain_and_scaling_is_noticed_by_itself")),
    ("docker compose exec proxy evenkeel", Run("compose_brings_up_the_whole_chain_and_scaling_is_noticed_by_itself")),
    ("curl http://127.0.0.1:9090/check_db", Run("compose_brings_up_the_whole_chain_and_scaling_is_noticed_by_itself")),
    ("docker stack deploy", Run("a_stack_scales_and_rolls_and_its_callers_do_not_notice")),
    ("docker service", Run("a_stack_scales_and_rolls_and_its_callers_do_not_notice")),
    ("docker load --input", Run(EIGHT_LINES)),
    ("curl http://127.0.0.1:8080/", Run(EIGHT_LINES)),
    ("sha256sum --check", Not("checks what `make dist` wrote by the same program")),
    ("apt install ./evenkeel_", Run(PACKAGE)),
    ("editor /etc/evenkeel/proxy.toml", Run(PACKAGE)),
    ("systemctl", Run(PACKAGE)),
    ("kubectl", Not("needs a cluster; deploy/kubernetes/validate.sh checks what it is given")),
    ("cargo build --workspace", Not("`make test` does it")),
    ("cargo test", Run("every_filter_of_cargo_test_finds_a_test")),
];

/// Of Dokku's commands in the manuals those that the plugin does not use: as [`dokku_plugin::COMMANDS`]. Where the
/// documentation names no version for a command, it is that of the oldest edition in which it was seen.
const DOKKU: &[(&str, &str, &str)] = &[
    ("app-json:set", "0.31", "advanced-usage/deployment-tasks"),
    ("apps:list", "0.8.1", "deployment/application-management"),
    ("apps:rename", "0.4.7", "deployment/application-management"),
    ("builder-dockerfile:set", "0.25", "deployment/builders/dockerfiles"),
    ("docker-options:add", "0.3.17", "advanced-usage/docker-options"),
    ("docker-options:remove", "0.3.17", "advanced-usage/docker-options"),
    ("evenkeel:help", "", "deploy/dokku-plugin"),
    ("evenkeel:link", "", "deploy/dokku-plugin"),
    ("evenkeel:report", "", "deploy/dokku-plugin"),
    ("evenkeel:unlink", "", "deploy/dokku-plugin"),
    ("git:load-image", "0.30.0", "deployment/methods/image"),
    ("logs", "0.3", "deployment/logs"),
    ("plugin:enable", "0.4.0", "advanced-usage/plugin-management"),
    ("plugin:install", "0.4.0", "advanced-usage/plugin-management"),
    ("plugin:uninstall", "0.4.0", "advanced-usage/plugin-management"),
    ("ports:list", "0.30.0", "networking/port-management"),
    ("ports:set", "0.30.0", "networking/port-management"),
    ("postgres:create", "", "the plugin dokku-postgres"),
    ("postgres:link", "", "the plugin dokku-postgres"),
    ("postgres:restart", "", "the plugin dokku-postgres"),
    ("postgres:set", "", "the plugin dokku-postgres"),
    ("ps:scale", "0.7.0", "processes/process-management"),
    ("ps:set", "0.22.0", "processes/process-management"),
    ("storage:create", "0.38.0", "appendices/0.38.0-migration-guide"),
    ("storage:ensure-directory", "0.25", "advanced-usage/persistent-storage: deprecated in 0.38.0"),
    ("storage:mount", "0.5.0", "advanced-usage/persistent-storage; a named one since 0.38.0"),
];

/// A command, and where it stands.
struct Found {
    place: String,
    text: String,
}

fn manuals() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "deploy/dokku-plugin/README.md".to_owned()];
    for entry in fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read_to_string(Path::new(ROOT).join(name)).unwrap())).collect()
}

/// Every command of every manual, one by one: the lines of indented and of shell blocks, and what is named within a
/// sentence. Pipes and lists are taken apart, as are loops.
fn commands() -> Vec<Found> {
    let mut found = vec![];
    for (name, text) in manuals() {
        let mut fence = None;
        let mut block = false;
        let mut blank = true;
        let mut held = String::new();
        for (i, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", i + 1);
            if let Some(language) = line.trim_start().strip_prefix("```") {
                fence = if fence.is_some() { None } else { Some(language.to_owned()) };
                continue;
            }
            block = fence.is_none() && line.starts_with("    ") && (block || blank);
            blank = line.trim().is_empty();
            let shell = matches!(fence.as_deref(), Some("" | "sh" | "shell" | "console" | "bash"));
            if block || shell {
                held.push_str(line.trim());
                if let Some(begun) = held.strip_suffix('\\') {
                    held = begun.to_owned();
                    continue;
                }
                let line = std::mem::take(&mut held);
                found.extend(simple(&line).into_iter().map(|text| Found { place: place.clone(), text }));
            } else if fence.is_none() {
                for span in line.split('`').skip(1).step_by(2) {
                    let first = span.split(' ').next().unwrap();
                    let programs =
                        ["dokku", "docker", "evenkeel", "make", "cargo", "git", "ssh", "sudo", "kubectl", "curl"];
                    if programs.contains(&first) && span.contains(' ') && !span.contains('…') {
                        found.extend(simple(span).into_iter().map(|text| Found { place: place.clone(), text }));
                    }
                }
            }
        }
    }
    found
}

/// The simple commands of a line, without what is around them.
fn simple(line: &str) -> Vec<String> {
    // A comment begins behind a blank; what is quoted has none here.
    let line = if line.starts_with('#') { "" } else { line.split("  #").next().unwrap() };
    let line = line.split(" # ").next().unwrap();
    let parts: Vec<&str> = if line.contains('\'') { vec![line] } else { line.split([';', '|', '&']).collect() };
    let parts = parts.into_iter().map(|part| {
        let part = part.trim();
        let part = part.strip_prefix("do ").unwrap_or(part);
        part.strip_prefix("sudo ").unwrap_or(part).to_owned()
    });
    // A bare `sh` runs what the command before it prints, and is covered with that.
    let is_around = |part: &String| ["", "done", "do", "sh"].contains(&part.as_str()) || part.starts_with("for ");
    parts.filter(|part| !is_around(part)).collect()
}

fn of(program: &str) -> Vec<Found> {
    let found: Vec<Found> = commands().into_iter().filter(|f| f.text.split(' ').next() == Some(program)).collect();
    assert!(!found.is_empty(), "the manuals name no command of {program} any more, or it is not found in them");
    found
}

/// The sources of all tests.
fn tests() -> String {
    let mut text = String::new();
    let mut folders = ["src", "tests", "testbed", "benches", "examples"].map(|f| Path::new(ROOT).join(f)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_command_of_the_manuals_is_run_by_a_test_or_has_a_reason_why_not() {
    let found = commands();
    assert!(found.len() > 80, "only {} commands were found", found.len());
    let mut used = BTreeSet::new();
    let mut unknown = vec![];
    for Found { place, text } in &found {
        match COVERED.iter().filter(|(start, _)| text.starts_with(start)).max_by_key(|(start, _)| start.len()) {
            Some((start, _)) => drop(used.insert(*start)),
            None => unknown.push(format!("{place}: {text}")),
        }
    }
    assert!(
        unknown.is_empty(),
        "these are new: name the test that runs each in COVERED in tests/e2e/manuals.rs, or the reason why none does: \
         {unknown:#?}"
    );
    let tests = tests();
    for (start, how) in COVERED {
        assert!(used.contains(start), "no manual has {start:?} any more: take it off the list");
        match how {
            Run(test) => assert!(tests.contains(&format!("fn {test}(")), "{start:?}: there is no test {test}"),
            Not(reason) => assert!(reason.len() > 8, "{start:?}: {reason:?} is no reason"),
        }
    }
}

#[test]
fn every_command_of_dokku_is_known_by_its_version_and_page() {
    let known: BTreeSet<&str> = dokku_plugin::COMMANDS.iter().chain(DOKKU).map(|(name, ..)| *name).collect();
    let mut used = BTreeSet::new();
    let mut all = of("dokku");
    // Dokku's user takes them without the word.
    all.extend(of("ssh"));
    for Found { place, text } in all {
        let words = text
            .split([' ', '\''])
            .skip_while(|w| ["dokku", "ssh", "dokku@HOST", "root@HOST", "--force", ""].contains(w));
        let word = words.into_iter().next().unwrap().to_owned();
        if text.starts_with("ssh root@HOST docker") || text.starts_with("ssh root@HOST tar") {
            continue;
        }
        assert!(
            known.contains(word.as_str()),
            "{place}: look {word:?} up in Dokku's documentation, and put it on a list with its version and page: {text}"
        );
        used.insert(word);
    }
    // Those that the plugin names in what it says.
    let plugin = fs::read_to_string(Path::new(ROOT).join("deploy/dokku-plugin/internal-functions")).unwrap();
    for words in plugin.split("dokku ").skip(1) {
        let word = words.split([' ', '\'', '"', ')', '\n']).next().unwrap();
        let is_command = word.contains(':') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b':' || b == b'-');
        assert!(!is_command || known.contains(word), "the plugin speaks of dokku {word}, which is on no list");
        used.insert(word.to_owned());
    }
    let named = manuals().into_iter().map(|(_, text)| text).collect::<String>();
    let unused: Vec<_> =
        DOKKU.iter().map(|(name, ..)| name).filter(|n| !used.contains(**n) && !named.contains(**n)).collect();
    assert!(unused.is_empty(), "nothing speaks of these any more: {unused:?}");
}

#[test]
fn every_target_that_the_manuals_name_is_one_of_the_makefiles() {
    for Found { place, text } in of("make") {
        let output = Command::new("sh").args(["-c", &format!("{text} --dry-run")]).current_dir(ROOT).output().unwrap();
        assert!(output.status.success(), "{place}: {text}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_command_of_evenkeel_is_one() {
    for Found { place, text } in of("evenkeel") {
        let arguments: Vec<&str> = text.split(' ').skip(1).collect();
        let output = Command::new(EVENKEEL).args(&arguments).arg("--help").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: {text}: {said}");
    }
}

#[test]
fn every_filter_of_cargo_test_finds_a_test() {
    let tests = tests();
    for Found { place, text } in of("cargo") {
        let mut words = text.split(' ').skip(2).take_while(|w| *w != "--").peekable();
        while let Some(word) = words.next() {
            if word == "--test" {
                let name = words.next().unwrap();
                let main =
                    ["rs", "/main.rs"].map(|end| format!("tests/{name}{}{end}", if end == "rs" { "." } else { "" }));
                assert!(main.iter().any(|file| Path::new(ROOT).join(file).exists()), "{place}: {text}");
            } else if !word.starts_with('-') {
                let last = word.rsplit("::").next().unwrap();
                let there = tests.contains(&format!("mod {last};")) || tests.contains(&format!("fn {last}"));
                assert!(there, "{place}: {text}: no module and no test is called {last}");
            }
        }
    }
}

#[test]
fn every_configuration_of_the_manuals_is_one() {
    let mut blocks = 0;
    for (name, text) in manuals() {
        for part in text.split("```toml\n").skip(1) {
            let block = part.split("```").next().unwrap();
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("proxy.toml"), block).unwrap();
            let output = Command::new(EVENKEEL)
                .arg("check")
                .current_dir(folder.path())
                .env_remove("EVENKEEL_CONFIG")
                .env("RUST_LOG", "off")
                .output()
                .unwrap();
            // None of its names is there, and `check` says so; what it must not find is a fault of the file's.
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(said.contains("proxy.toml: valid, "), "{name}: {block}: {said}");
            blocks += 1;
        }
    }
    assert!(blocks >= 2, "{blocks}");
}

/// The pages whose links are followed: the manuals, and those beside the README.
fn pages() -> Vec<(String, String)> {
    let beside = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned);
    let beside = beside.map(|name| (name.clone(), fs::read_to_string(Path::new(ROOT).join(name)).unwrap()));
    manuals().into_iter().chain(beside).collect()
}

/// The lines of a page that are neither in a block nor in an indented one.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    })
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}")).find(|next| !anchors.contains(next)).unwrap();
        let taken = anchors.contains(&anchor);
        anchors.insert(if taken { again } else { anchor });
    }
    anchors
}

#[test]
fn anchors_are_those_of_github() {
    let found = anchors("# A\n## `[upstream.NAME]`\n### What happens when …\n## A\n## The proxy's own redeploy\n");
    let expected = ["a", "a-1", "the-proxys-own-redeploy", "upstreamname", "what-happens-when-"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn every_link_of_the_manuals_leads_somewhere() {
    let (mut followed, mut astray) = (0, vec![]);
    for (page, text) in pages() {
        let folder = Path::new(ROOT).join(&page).parent().unwrap().to_owned();
        for (line, text_of_line) in prose(&text) {
            for rest in text_of_line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap();
                if target.starts_with("http://") || target.starts_with("https://") {
                    continue;
                }
                followed += 1;
                let (file, anchor) =
                    target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
                let path = if file.is_empty() { Path::new(ROOT).join(&page) } else { folder.join(file) };
                let is_there = path.exists();
                let leads = anchor
                    .is_none_or(|anchor| fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(anchor)));
                if !is_there || !leads {
                    astray.push(format!("{page}:{}: {target}", line + 1));
                }
            }
        }
    }
    assert!(astray.is_empty(), "these lead nowhere: {astray:#?}");
    assert!(followed > 40, "only {followed} links were found");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let pages = pages();
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut next = vec!["README.md".to_owned()];
    while let Some(page) = next.pop() {
        let Some((_, text)) = pages.iter().find(|(name, _)| *name == page) else { continue };
        let folder = Path::new(ROOT).join(&page).parent().unwrap().to_owned();
        for rest in text.split("](").skip(1) {
            let file = rest.split([')', '#']).next().unwrap();
            let Ok(path) = folder.join(file).canonicalize() else { continue };
            let Ok(name) = path.strip_prefix(Path::new(ROOT).canonicalize().unwrap()) else { continue };
            let name = name.to_str().unwrap().to_owned();
            if reached.insert(name.clone()) {
                next.push(name);
            }
        }
    }
    for (page, _) in &pages {
        assert!(reached.contains(page), "no link leads to {page}");
    }
    // Pictures have to be shown somewhere, too.
    for entry in fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let name = format!("docs/{}", entry.unwrap().file_name().into_string().unwrap());
        assert!(reached.contains(&name) || !name.ends_with(".svg"), "nothing shows {name}");
    }
}

#[test]
fn the_plugin_arrives_where_dokku_looks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap().replace("\\\n", "");
    let line = readme.lines().find(|line| line.trim_start().starts_with("tar -C deploy ")).expect("README installs it");
    let here =
        line.replace("ssh root@HOST ", "").replace("/var/lib/dokku/plugins/available", folder.path().to_str().unwrap());
    assert!(!here.contains("HOST") && here != line, "{here}");
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &here]).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{here}: {}", String::from_utf8_lossy(&output.stderr));
    let help = Command::new(folder.path().join("evenkeel/commands")).arg("evenkeel:help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("evenkeel:link"), "{help:?}");
    assert!(folder.path().join("evenkeel/subcommands/link").exists());
}
