//! What an operator sees of each promise about the configuration.

mod documented;
mod messages;
mod robustness;

use super::*;
use std::fs;
use std::path::Path;

const SHIPPED: &str = include_str!("../../../proxy.toml");

/// Parses `text` as proxy.toml with these variables and no others.
fn parse(text: &str, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(text, "proxy.toml", &|name| lookup(vars, name))
}

fn lookup(vars: &[(&str, &str)], name: &str) -> Option<String> {
    vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
}

fn load(path: Option<&Path>, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(path, &|name| lookup(vars, name))
}

/// One upstream, `web`, with these further lines.
fn web(lines: &str) -> String {
    format!("[upstream.web]\naddress = \"web:80\"\n{lines}")
}

fn good(text: &str) -> Config {
    parse(text, &[]).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

#[test]
fn the_shipped_file_says_the_defaults_but_where_its_comments_say_otherwise() {
    let shipped = good(SHIPPED);
    assert_eq!(shipped.server, Server::default());
    assert_eq!(shipped.dns, Dns::default());
    let [upstream] = &shipped.upstreams[..] else { panic!("{:?}", shipped.upstreams) };
    let default = Upstream::new("db-checker", Host::Name("db-checker".into()), 8080);
    let probe = Probe { path: Some("/ping".into()), healthy: [200, 424].into(), ..default.probe.clone() };
    assert_eq!(**upstream, Upstream { on_failure: OnFailure::Close, probe, ..default });
    assert_eq!(shipped.routes, [Route { upstream: 0, host: None, path_prefix: None, strip_prefix: false }]);
}

#[test]
fn a_key_left_out_of_the_shipped_file_means_the_same() {
    let whole = good(SHIPPED);
    let mut tried = 0;
    for (index, line) in SHIPPED.lines().enumerate() {
        let differs = ["address", "on_failure", "path", "healthy"].map(|key| format!("{key} = "));
        if !line.contains(" = ") || line.starts_with('#') || differs.iter().any(|start| line.starts_with(start)) {
            continue;
        }
        let without: Vec<&str> = SHIPPED.lines().take(index).chain(SHIPPED.lines().skip(index + 1)).collect();
        assert_eq!(good(&without.join("\n")), whole, "without {line}");
        tried += 1;
    }
    assert_eq!(tried, 32, "the shipped file has as many keys at their defaults");
}

// P12
#[test]
fn every_key_there_is_stands_in_the_shipped_file() {
    // Each table with a key that nobody knows: the message lists those that are known.
    let tables =
        [("server", ""), ("dns", ""), ("upstream.db-checker", "address = \"a:1\"\n"), ("upstream.a.probe", "")];
    for (table, needed) in tables {
        let error = parse(&format!("[{table}]\n{needed}what_is_this = 1"), &[]).unwrap_err().to_string();
        let known = error.split_once("(known here: ").unwrap().1.split_once(')').unwrap().0;
        for key in known.split(", ").filter(|key| *key != "probe") {
            let written = |line: &str| line.trim_start_matches('#').starts_with(&format!("{key} = "));
            assert!(SHIPPED.lines().any(written), "{table}: {key}");
        }
    }
}

#[test]
fn what_the_shipped_file_shows_in_comments_can_be_switched_on() {
    let text: Vec<&str> = SHIPPED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // But for what stands in another's place.
            Some(code) if !code.starts_with(' ') && !code.starts_with("grpc") => code,
            _ => line,
        })
        .collect();
    let config = good(&text.join("\n"));
    assert_eq!(config.dns.server, Some("127.0.0.11:53".parse().unwrap()));
    assert_eq!(config.upstreams, good(SHIPPED).upstreams);
    let route = Route {
        upstream: 0,
        host: Some("db-checker.internal".into()),
        path_prefix: Some("/db".into()),
        strip_prefix: true,
    };
    assert_eq!(config.routes, [route]);
}

#[test]
fn upstream_admin_and_port_rule_the_shipped_file_from_outside() {
    let vars = [("UPSTREAM", "db-checker.web:5000"), ("ADMIN", "127.0.0.1:9999"), ("PORT", "8081")];
    let config = parse(SHIPPED, &vars).unwrap();
    assert_eq!(config.server.listen, "[::]:8081".parse().unwrap());
    assert!(!config.server.listen_is_set, "only its port is");
    assert_eq!(config.server.admin, Some("127.0.0.1:9999".parse().unwrap()));
    assert_eq!(config.upstreams[0].host, Host::Name("db-checker.web".into()));
    assert_eq!(config.upstreams[0].port, 5000);
    assert_eq!(config.upstreams[0].probe.host, "db-checker.web");
    assert_eq!(&*config.upstreams[0].name, "db-checker");

    for off in ["off", ""] {
        let text = SHIPPED.replace("${ADMIN:-127.0.0.1:9180}", off);
        assert_eq!(good(&text).server.admin, None);
    }
    assert_eq!(parse(SHIPPED, &[("ADMIN", "off")]).unwrap().server.admin, None);
    // Compose sets what it does not know to nothing: the same as not set.
    assert_eq!(parse(SHIPPED, &[("ADMIN", ""), ("UPSTREAM", ""), ("PORT", "")]).unwrap(), good(SHIPPED));
}

#[test]
fn upstream_alone_is_a_configuration_where_there_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = check::environment(&|name| lookup(&[("UPSTREAM", "App.web.:8080")], name)).unwrap();
    assert_eq!(config.server, Server::default());
    assert_eq!(config.dns, Dns::default());
    assert_eq!(*config.upstreams[0], Upstream::new("app.web", Host::Name("app.web".into()), 8080));
    assert_eq!(config.upstreams[0].on_failure, OnFailure::Respond);
    assert_eq!(config.upstreams[0].probe.path, None);
    assert_eq!(config.routes.len(), 1);

    let with_port = check::environment(&|name| lookup(&[("UPSTREAM", "[::1]:8080"), ("PORT", "81")], name)).unwrap();
    assert_eq!(with_port.server.listen.port(), 81);
    assert_eq!(with_port.upstreams[0].host, Host::Address("::1".parse().unwrap()));

    // The shipped file's variables mean the same, in the shipped file's words: none is forgotten.
    let vars = [("UPSTREAM", "app:8080"), ("ADMIN", "0.0.0.0:9999"), ("DRAIN", "25s"), ("REUSE_PORT", "true")];
    let server = check::environment(&|name| lookup(&vars, name)).unwrap().server;
    assert_eq!(server, parse(SHIPPED, &vars).unwrap().server);
    assert_ne!(server, Server::default());
    let sockets = Config::sockets(Some(Path::new("off")), &|name| lookup(&vars, name));
    assert_eq!((sockets.admin, sockets.reuse_port), (server.admin, true));
    for part in SHIPPED.split("${").skip(1) {
        let name = part.split([':', '}']).next().unwrap();
        assert!(["NAME", "UPSTREAM"].contains(&name) || check::NO_FILE.contains(&format!("${{{name}:-")), "{name}");
    }
    let error = check::environment(&|name| lookup(&[("UPSTREAM", "app:8080"), ("DRAIN", "25")], name)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the environment: server.drain (\"${DRAIN:-9s}\") has no unit; write \"…s\" or \"…ms\""
    );

    // A file that somebody named has to be there, whatever else is set.
    let missing = folder.path().join("proxy.toml");
    let error = load(Some(&missing), &[("UPSTREAM", "app:8080")]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: there is no such file; ", missing.display())), "{error}");
    let error = load(None, &[("EVENKEEL_CONFIG", missing.to_str().unwrap())]).unwrap_err().to_string();
    assert!(error.contains("there is no such file"), "{error}");
}

#[test]
fn the_file_is_the_one_named_first_by_the_command_line_then_by_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.toml"), folder.path().join("two.toml"));
    fs::write(&one, web("")).unwrap();
    fs::write(&two, web("retries = 1")).unwrap();
    let vars = [("EVENKEEL_CONFIG", two.to_str().unwrap())];
    assert_eq!(load(Some(&one), &vars).unwrap().upstreams[0].retries, 2);
    assert_eq!(load(None, &vars).unwrap().upstreams[0].retries, 1);
    assert_eq!(Config::path(Some(&one), &|name| lookup(&vars, name)), one);
    assert_eq!(Config::path(None, &|name| lookup(&vars, name)), two);
    assert_eq!(Config::path(None, &|_| None), Path::new("proxy.toml"));
    // Where there is a file, too, it can be told to read none.
    let off = [("EVENKEEL_CONFIG", "off"), ("UPSTREAM", "app:5000")];
    assert_eq!(load(None, &off).unwrap().upstreams[0].probe.path, None, "the shipped file's is /ping");
    assert_eq!(load(Some(Path::new("off")), &off).unwrap(), load(None, &off).unwrap());
    // Tests run in the folder of the shipped one.
    assert_eq!(load(None, &[("EVENKEEL_CONFIG", "")]).unwrap(), good(SHIPPED));
}

#[test]
fn a_file_that_cannot_be_read_as_text_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    let error = || load(Some(&path), &[]).unwrap_err().to_string();

    fs::write(&path, b"[server]\n# caf\xe9\n").unwrap();
    assert_eq!(error(), format!("{}: line 2 is not UTF-8; save the file as UTF-8", path.display()));

    fs::write(&path, "#".repeat(limits::FILE + 1)).unwrap();
    assert_eq!(error(), format!("{}: is over 1024 KiB; is it a configuration?", path.display()));
    let largest = web(&"#".repeat(limits::FILE - web("").len()));
    fs::write(&path, &largest).unwrap();
    assert_eq!(largest.len(), limits::FILE);
    load(Some(&path), &[]).unwrap();

    let error = load(Some(folder.path()), &[]).unwrap_err().to_string();
    assert!(error.contains(": is a directory; name the file in it, as "), "{error}");
}

// A14
#[test]
fn only_a_regular_file_of_a_sane_size_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| load(Some(path), &[]).unwrap_err().to_string();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(said(&pipe).ends_with(": is a pipe, which is not read; write the configuration to a regular file"));
    assert!(said(Path::new("/dev/zero")).contains("is a device"));
    let giant = folder.path().join("giant");
    fs::File::create(&giant).unwrap().set_len(limits::FILE as u64 + 1).unwrap();
    assert!(said(&giant).ends_with(": is over 1024 KiB; is it a configuration?"));
    let linked = folder.path().join("linked");
    fs::write(folder.path().join("file"), web("")).unwrap();
    std::os::unix::fs::symlink("file", &linked).unwrap();
    assert!(load(Some(&linked), &[]).is_ok());
}

#[test]
fn several_upstreams_keep_the_files_order_and_get_what_their_routes_say() {
    let config = good(
        "[[route]]\nupstream = \"api\"\nhost = \"API.Example.\"\n\
         [[route]]\nupstream = \"web\"\npath_prefix = \"/web/\"\nstrip_prefix = true\n\
         [[route]]\nupstream = \"web\"\npath_prefix = \"/\"\nhost = \"[0:0::1]\"\n\
         [[route]]\nupstream = \"api\"\n\
         [upstream.web]\naddress = \"WEB.:80\"\n[upstream.api]\naddress = \"10.0.0.1:81\"\n",
    );
    let names: Vec<&str> = config.upstreams.iter().map(|upstream| &*upstream.name).collect();
    assert_eq!(names, ["web", "api"]);
    assert_eq!(config.upstreams[0].host, Host::Name("web".into()));
    assert_eq!(config.upstreams[1].host, Host::Address("10.0.0.1".parse().unwrap()));
    let route = |upstream, host: Option<&str>, prefix: Option<&str>, strip_prefix| Route {
        upstream,
        host: host.map(String::from),
        path_prefix: prefix.map(String::from),
        strip_prefix,
    };
    let expected = [
        route(1, Some("api.example"), None, false),
        route(0, None, Some("/web"), true),
        route(0, Some("[::1]"), None, false),
        route(1, None, None, false),
    ];
    assert_eq!(config.routes, expected);
}

#[test]
fn variables_are_filled_in_once_in_any_string_and_numbers_may_come_from_them() {
    let text = web("wait = \"${WAIT}s\"\nretries = \"${RETRIES:-1}\"\nhost = \"${HOST:-web.example}\"\n\
         [upstream.web.probe]\npath = \"/$${A}?x=${X}${X:-no}${Y:-a:-b}\"\nhealthy = [\"${OK:-204}\", 200]\n\
         [[route]]\nupstream = \"web\"\npath_prefix = \"/p\"\nstrip_prefix = \"${STRIP}\"");
    let vars = [("WAIT", "7"), ("X", "${WAIT}$$"), ("STRIP", "true"), ("HOST", "")];
    let config = parse(&text, &vars).unwrap();
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.wait, Duration::from_secs(7));
    assert_eq!(upstream.retries, 1);
    assert_eq!(upstream.host_header, HostHeader::Replace("web.example".try_into().unwrap()));
    assert_eq!(upstream.probe.path.as_deref(), Some("/${A}?x=${WAIT}$$${WAIT}$$a:-b"));
    assert_eq!(upstream.probe.healthy, [204, 200].into());
    assert!(config.routes[0].strip_prefix);
}

#[test]
fn a_shorter_probe_interval_shortens_the_default_timeout_with_it() {
    let config = good(&web("probe = { interval = \"100ms\" }"));
    assert_eq!(config.upstreams[0].probe.timeout, Duration::from_millis(100));
    let config = good(&web("[server]\nmax_header = \"4KiB\""));
    assert_eq!(config.server.max_target, 4096);
}

#[test]
fn a_probe_with_a_path_takes_any_2xx_where_nothing_is_said() {
    let config = good(&web("probe.path = \"/up?deep=1\""));
    assert_eq!(config.upstreams[0].probe.healthy, Statuses::success());
}

// U9
#[test]
fn healthy_statuses_are_numbers_classes_and_ranges() {
    let healthy = |list: &str| {
        good(&web(&format!("probe = {{ path = \"/\", healthy = {list} }}"))).upstreams[0].probe.healthy.clone()
    };
    let mixed = healthy("[\"2xx\", 424, \"301-303\"]");
    let taken: Vec<u16> = (100..=599).filter(|status| mixed.contains(*status)).collect();
    assert_eq!(taken, (200..=299).chain(301..=303).chain([424]).collect::<Vec<_>>());
    assert_eq!(healthy(&mixed.to_string()), mixed, "it is shown as it is written");
    assert_eq!(healthy("[200, 424]"), [200, 424].into());
}

// U9
#[test]
fn probes_name_the_host_that_requests_name() {
    let probe_host = |lines: &str| good(&web(lines)).upstreams[0].probe.host.clone();
    assert_eq!(probe_host(""), "web");
    assert_eq!(probe_host("host = \"pass\""), "web");
    assert_eq!(probe_host("host = \"My.App:3000\""), "My.App:3000");
    assert_eq!(probe_host("host = \"my.app\"\nprobe = { path = \"/\", host = \"other.app\" }"), "other.app");
}

#[test]
fn the_host_that_replicas_see_is_the_clients_the_upstreams_or_a_literal() {
    let host = |lines: &str| good(&web(lines)).upstreams[0].host_header.clone();
    assert_eq!(host("host = \"pass\""), HostHeader::Pass);
    assert_eq!(host("host = \"upstream\""), HostHeader::Replace("web".try_into().unwrap()));
    assert_eq!(host("host = \"My.App:3000\""), HostHeader::Replace("My.App:3000".try_into().unwrap()));
    let config = good("[upstream.a]\naddress = \"[fd00::2]:80\"\nhost = \"upstream\"");
    assert_eq!(config.upstreams[0].host_header, HostHeader::Replace("[fd00::2]".try_into().unwrap()));
    assert_eq!(config.upstreams[0].probe.host, "[fd00::2]");
}

// D21
#[test]
fn queries_are_logged_only_where_the_file_says_so() {
    assert!(!good(SHIPPED).server.log_query);
    assert!(good(&web("[server]\nlog_query = true")).server.log_query);
}

#[test]
fn a_reload_is_told_which_keys_want_a_restart() {
    let old = good(SHIPPED);
    let changed = |from: &str, to: &str| {
        let text = SHIPPED.replacen(from, to, 1);
        assert_ne!(text, SHIPPED, "{from} is in the shipped file");
        old.restart_needed(&good(&text))
    };
    assert_eq!(changed("#listen = \"[::]:80\"", "listen = \"0.0.0.0:80\""), ["listen"]);
    assert_eq!(changed("threads = 0", "threads = 2"), ["threads"]);
    assert_eq!(changed("${ADMIN:-127.0.0.1:9180}", "off"), ["admin"]);
    assert_eq!(changed("drain = \"${DRAIN:-9s}\"", "drain = \"5s\""), [""; 0]);
    assert_eq!(old.restart_needed(&parse(SHIPPED, &[("PORT", "82"), ("ADMIN", "off")]).unwrap()), ["listen", "admin"]);
}

#[test]
fn the_pool_is_told_the_files_numbers() {
    let config = good(
        "[dns]\ninterval = \"2s\"\nhold = \"0s\"\n[upstream.a]\naddress = \"a:81\"\nmax_in_flight = 7\n\
         [upstream.a.probe]\ninterval = \"3s\"\nrise = 4\nfall = 5",
    );
    let expected = pool::Settings {
        port: 81,
        dns_interval: Duration::from_secs(2),
        hold: Duration::ZERO,
        probe_interval: Duration::from_secs(3),
        rise: 4,
        fall: 5,
        max_in_flight: 7,
    };
    assert_eq!(config.pool_settings(&config.upstreams[0]), expected);
}

#[test]
fn the_largest_durations_can_be_added_to_the_present() {
    let text =
        SHIPPED.replace("\"${DRAIN:-9s}\"", "\"24h\"").replace("\"60s\"", "\"24h\"").replace("\"1s\"", "\"24h\"");
    let config = good(&text);
    let times = [config.server.drain, config.server.client_idle, config.dns.interval, config.dns.timeout];
    assert!(
        times.iter().all(|time| *time == *limits::TIMEOUT.end() && crate::clock::now().checked_add(*time).is_some())
    );
}
