//! `docs/configuration.md` has every key that the program knows, with the default, the type and the bounds that hold, and
//! no other key.

use super::{SHIPPED, good, parse};
use crate::config::{AccessLog, Config, Dns, Server, Upstream};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// A row of the page's tables of keys.
#[derive(Debug)]
struct Row {
    /// Of values: in words, as `duration`.
    kind: &'static str,
    default: &'static str,
    bounds: &'static str,
    change: &'static str,
}

/// The tables of the file, as the page heads them, and a whole file in which `{}` stands for lines of that table.
const TABLES: [(&str, &str); 5] = [
    ("[server]", "[server]\n{}\n[upstream.a]\naddress = \"a:1\""),
    ("[dns]", "[dns]\n{}\n[upstream.a]\naddress = \"a:1\""),
    ("[upstream.NAME]", "[upstream.a]\n{}\naddress = \"a:1\""),
    ("[upstream.NAME.probe]", "[upstream.a]\naddress = \"a:1\"\nprotocol = \"h2c\"\n[upstream.a.probe]\n{}"),
    ("[[route]]", "[upstream.a]\naddress = \"a:1\"\n[[route]]\nupstream = \"a\"\n{}"),
];

/// Keys without a default that could be written down, and what the page says instead.
const WITHOUT: [(&str, &str, &str); 8] = [
    ("[dns]", "server", "those of resolv.conf"),
    ("[upstream.NAME]", "address", "required"),
    ("[upstream.NAME.probe]", "grpc", "none"),
    ("[upstream.NAME.probe]", "path", "none: a TCP connect"),
    ("[upstream.NAME.probe]", "host", "as `host` of the upstream"),
    ("[[route]]", "upstream", "required"),
    ("[[route]]", "host", "any"),
    ("[[route]]", "path_prefix", "any"),
];

/// Rows by table and key. The page has a table of six columns below the heading of each table of the file.
fn rows() -> BTreeMap<(&'static str, &'static str), Row> {
    let mut rows = BTreeMap::new();
    for section in PAGE.split("\n## ").skip(1) {
        let heading = section.lines().next().unwrap_or_default().trim_matches('`');
        let Some((table, _)) = TABLES.iter().find(|(table, _)| *table == heading) else { continue };
        for line in section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")) {
            let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [key, kind, default, bounds, change, text] = cells[..] else {
                panic!("{table}: not six cells: {line}")
            };
            assert!(text.ends_with('.') && text.len() > 20, "{table} {key}: no sentence says what it does: {text}");
            let key = key.strip_suffix('`').expect("a key in backquotes");
            let row = Row { kind, default, bounds, change };
            assert!(rows.insert((*table, key), row).is_none(), "{table} has {key} twice");
        }
    }
    rows
}

/// A whole file with these lines in that table. What it needs anyway gives way to the key of the last line.
fn file(table: &str, lines: &str) -> String {
    let whole = TABLES.iter().find(|(name, _)| *name == table).expect("one of the tables").1;
    let key = lines.lines().last().and_then(|line| line.split_once(" = ")).map_or("", |(key, _)| key);
    let needed = whole.lines().filter(|line| line.split_once(" = ").is_none_or(|(needed, _)| needed != key));
    needed.collect::<Vec<_>>().join("\n").replace("{}", lines)
}

/// The only problem of a table with these lines.
fn problem(table: &str, lines: &str) -> String {
    match parse(&file(table, lines), &[]) {
        Ok(_) => panic!("{table} takes {lines}"),
        Err(error) => error.problems()[0].clone(),
    }
}

/// The value between backquotes, if the cell is just that.
fn literal(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`').filter(|inner| !inner.contains('`'))
}

#[test]
fn the_page_of_the_configuration_has_each_key_and_no_other() {
    let rows = rows();
    for (table, _) in TABLES {
        let said = problem(table, "what_is_this = 1");
        let known = said.split_once("(known here: ").and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
        let mut known: Vec<&str> = known.split(", ").filter(|key| *key != "probe").collect();
        known.sort_unstable();
        let documented: Vec<&str> = rows.keys().filter(|(of, _)| *of == table).map(|(_, key)| *key).collect();
        assert_eq!(documented, known, "docs/configuration.md, {table}, beside src/config/check.rs");
    }
}

#[test]
fn each_default_on_the_page_means_the_same_as_leaving_the_key_out() {
    // As a default `listen` gives way to IPv4 where there is no IPv6; nothing else tells the two apart.
    let unset = |mut config: Config| {
        config.server.listen_is_set = false;
        config
    };
    let mut without = vec![];
    for ((table, key), row) in rows() {
        let Some(default) = literal(row.default) else {
            without.push((table, key, row.default));
            continue;
        };
        // What says nothing without a path is judged with one.
        let beside = match (table, key) {
            ("[upstream.NAME.probe]", "healthy") => "path = \"/\"\n",
            ("[[route]]", "strip_prefix") => "path_prefix = \"/a\"\n",
            _ => "",
        };
        let written = unset(good(&file(table, &format!("{beside}{key} = {default}"))));
        assert_eq!(written, good(&file(table, beside)), "{table} {key}: {default} is not the default");
    }
    without.sort_unstable();
    let mut expected = WITHOUT.to_vec();
    expected.sort_unstable();
    assert_eq!(without, expected, "keys whose default is no value");
}

#[test]
fn the_page_names_the_type_and_the_bounds_that_the_program_names() {
    for ((table, key), row) in rows() {
        let far = match row.kind {
            "duration" => "\"999999days\"",
            "size" => "\"1PiB\"",
            "number" => "9999999999",
            "boolean" => "1",
            "choice" => "\"?\"",
            "list of statuses" => "[99]",
            "text" => "1",
            kind => panic!("{table} {key}: {kind} is no type of this page"),
        };
        let said = problem(table, &format!("{key} = {far}"));
        let expected = match row.kind {
            "duration" => format!("is out of bounds; write from {}", row.bounds),
            "size" => format!("is out of bounds; write from {}", row.bounds),
            "number" => format!("is out of bounds; write a number from {}", row.bounds),
            "boolean" => format!("must be {}, without quotes", row.bounds),
            "choice" => format!("is none of the choices; write {}", row.bounds.replace('`', "")),
            "list of statuses" => format!("number from {}", row.bounds),
            // Its bounds are those of what it names; the page says them in words.
            _ => "is a number where a string belongs; write it in quotes".into(),
        };
        assert!(said.ends_with(&expected), "{table} {key}: the page says {:?}, the program: {said}", row.bounds);
    }
}

#[test]
fn the_page_says_which_changes_need_a_restart() {
    let old = Config { server: Server::default(), dns: Dns::default(), upstreams: vec![], routes: vec![] };
    let other = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let second = Duration::from_secs(1);
    // Without `..`, so that a new key is missed here.
    let server = Server {
        listen: other(1),
        listen_is_set: true,
        admin: Some(other(2)),
        reuse_port: true,
        threads: 7,
        drain: second,
        header_timeout: second,
        max_header: 1,
        max_target: 1,
        max_buffered: 1,
        body_idle: second,
        client_idle: second,
        max_connections: 7,
        log_query: true,
        access_log: AccessLog::All,
    };
    let mut needed = old.restart_needed(&Config { server, ..old.clone() });
    needed.sort_unstable();
    let rows = rows();
    let restart: Vec<&str> = rows.iter().filter(|(_, row)| row.change == "restart").map(|((_, key), _)| *key).collect();
    assert_eq!(restart, needed);
    assert!(rows.values().all(|row| ["restart", "reload"].contains(&row.change)), "{rows:?}");
}

#[test]
fn the_page_shows_the_shipped_file_as_it_is() {
    assert!(PAGE.contains(&format!("```toml\n{SHIPPED}```\n")), "docs/configuration.md, the shipped file");
}

#[test]
fn the_page_says_how_the_shipped_file_differs_from_the_defaults() {
    let shipped = good(SHIPPED);
    let upstream = &shipped.upstreams[0];
    let default = Upstream::new("db-checker", upstream.host.clone(), upstream.port);
    assert!(upstream.on_failure != default.on_failure && PAGE.contains("`on_failure = \"close\"`"));
    assert!(PAGE.contains("`probe.path = \"/ping\"`") && upstream.probe.path.as_deref() == Some("/ping"));
    assert!(PAGE.contains(&format!("`probe.healthy = {}`", upstream.probe.healthy)));
    // All else is at its default: `the_shipped_file_says_the_defaults_but_where_its_comments_say_otherwise`.
}
