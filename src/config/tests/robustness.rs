//! Thousands of damaged files: none makes the parser panic, and what it accepts is within every bound.

use super::{SHIPPED, parse, web};
use crate::config::{Config, Host, HostHeader, limits};
use crate::route::Router;
use std::time::Duration;

/// Runs of a seed; another seed is tried by setting it in the environment.
const RUNS: usize = 6000;

const VARS: [(&str, &str); 4] = [("A", "1"), ("EMPTY", ""), ("HOSTILE", "${A}\"\n\u{0}"), ("NAME", "app:80")];

#[test]
fn a_damaged_file_is_refused_with_reasons_or_is_within_every_bound() {
    let seed = std::env::var("EVENKEEL_SEED").ok().map_or(0x6b65656c, |seed| seed.parse().expect("a number"));
    let mut random = fastrand::Rng::with_seed(seed);
    let corpus = [
        SHIPPED.to_owned(),
        SHIPPED.replace("\n#", "\n").replace(" Routes", "# Routes"),
        web("host = \"upstream\"\nprobe = { path = \"/${A}\", healthy = [\"${A}00\"] }"),
        web(
            "[upstream.b]\naddress = \"[::1]:80\"\n[[route]]\nhost = \"x\"\nupstream = \"b\"\n[[route]]\nupstream = \"web\"",
        ),
    ];
    let words = [
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "]]",
        "=",
        ".",
        "\n",
        "#",
        "\"\"\"",
        "{",
        "}",
        ",",
        "0",
        "-1",
        "1e999",
        "nan",
        "true",
        "9223372036854775807",
        "18446744073709551616",
        "0x7fffffffffffffff",
        "1979-05-27",
        "\"1s\"",
        "\"999999999y\"",
        "\"18446744073709551615s\"",
        "\"0s\"",
        "\"1us\"",
        "\"1EiB\"",
        "\"0.1B\"",
        "\"99999999999999999999EB\"",
        "${A}",
        "${EMPTY}",
        "${HOSTILE}",
        "${NAME}",
        "${NAME",
        "$",
        "$$",
        "${:-}",
        "${X:-}",
        "\"off\"",
        "\"http://\"",
        "\"[::]:0\"",
        "é",
        "\u{0}",
        "\u{feff}",
        "..",
        "//",
        "/",
        "server",
        "upstream",
        "route",
        "probe",
        "path",
        "host",
        "[[route]]\nupstream = \"web\"\n",
    ];
    let (mut accepted, mut refused) = (0, 0);
    for run in 0..RUNS {
        let mut text = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(1..4) {
            damage(&mut text, &words, &mut random);
        }
        let result = std::panic::catch_unwind(|| parse(&text, &VARS));
        match result.unwrap_or_else(|_| panic!("seed {seed}, run {run}: panicked at\n{text}")) {
            Ok(config) => {
                accepted += 1;
                let broken = broken(&config);
                assert!(broken.is_none(), "seed {seed}, run {run}: {broken:?}\n{config:#?}\n{text}");
            }
            Err(error) => {
                refused += 1;
                let shown = error.to_string();
                assert!(!error.problems().is_empty(), "seed {seed}, run {run}\n{text}");
                let hostile = shown.chars().find(|c| c.is_control() && *c != '\n');
                assert!(hostile.is_none(), "seed {seed}, run {run}: {hostile:?} in\n{shown}");
                let placed = |problem: &String| problem.starts_with("proxy.toml: ");
                assert!(error.problems().iter().all(placed), "seed {seed}, run {run}: {shown}");
                let nameless = error.problems().iter().find(|problem| !names_its_place(problem));
                assert!(nameless.is_none(), "seed {seed}, run {run}: {nameless:?} names no key\n{text}");
            }
        }
    }
    // Damage that is always refused, or never, would test half of it.
    assert!(accepted > RUNS / 20 && refused > RUNS / 20, "seed {seed}: {accepted} accepted, {refused} refused");
}

/// Whether a problem says which key or table it is about, or which line where the file is no TOML.
fn names_its_place(problem: &str) -> bool {
    let problem = problem.strip_prefix("proxy.toml: ").unwrap_or(problem);
    let position = |text: &str| {
        let (line, rest) = text.split_once(", column ").unwrap_or_default();
        !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with(|c: char| c.is_ascii_digit())
    };
    let first = problem.lines().next().unwrap_or_default();
    let places = ["server", "dns", "upstream", "route", "unknown key "];
    problem.strip_prefix("line ").is_some_and(position) || places.iter().any(|place| first.contains(place))
}

fn damage(text: &mut String, words: &[&str], random: &mut fastrand::Rng) {
    let edge = |text: &str, random: &mut fastrand::Rng| {
        let mut at = random.usize(..=text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (a, b) = (edge(text, random), edge(text, random));
    let (start, end) = (a.min(b), a.max(b).min(a.min(b) + 40));
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    match random.u8(..6) {
        0 => text.replace_range(start..end, ""),
        1 => text.insert_str(start, words[random.usize(..words.len())]),
        2 => text.replace_range(start..end, words[random.usize(..words.len())]),
        3 => {
            // A value for another: the likeliest to be TOML still.
            let values: Vec<_> = text.match_indices(" = ").map(|(at, _)| at + 3).collect();
            if !values.is_empty() {
                let at = values[random.usize(..values.len())];
                let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
                text.replace_range(at..end, words[random.usize(..words.len())]);
            }
        }
        4 => {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if !lines.is_empty() {
                let line = &lines[random.usize(..lines.len())];
                text.push('\n');
                text.push_str(line);
            }
        }
        _ => {
            let mut lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                lines.remove(random.usize(..lines.len()));
            }
            *text = lines.join("\n");
        }
    }
}

/// What a `Config` promises by being there, judged independently of how it was read; `None` if all holds.
fn broken(config: &Config) -> Option<String> {
    let day = Duration::from_secs(86_400);
    let millisecond = Duration::from_millis(1);
    let server = &config.server;
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    must(server.drain <= day && config.dns.hold <= day, "drain and hold");
    for time in [server.header_timeout, server.body_idle, server.client_idle, config.dns.timeout, config.dns.interval] {
        must((millisecond..=day).contains(&time), "time-outs");
    }
    must((1024..=1 << 20).contains(&server.max_header), "max_header");
    must((64..=server.max_header).contains(&server.max_target), "max_target");
    must(server.threads <= 512 && server.max_connections <= 1_000_000, "threads, max_connections");
    must(server.admin.is_none_or(|admin| admin != server.listen || admin.port() == 0), "admin");
    must(!config.upstreams.is_empty() && !config.routes.is_empty(), "something to do");
    for (index, upstream) in config.upstreams.iter().enumerate() {
        must(config.routes.iter().any(|route| route.upstream == index), "every upstream has a route");
        must(config.upstreams.iter().filter(|other| other.name == upstream.name).count() == 1, "names are unique");
        must(!upstream.name.is_empty() && !upstream.name.contains(|c: char| c.is_control() || c == '"'), "name");
        must(upstream.port > 0 && upstream.retries <= 10 && upstream.wait <= day, "port, retries, wait");
        match &upstream.host {
            Host::Name(name) => must(!name.is_empty() && name.len() <= 253 && !name.ends_with('.'), "host"),
            Host::Address(address) => must(!address.is_unspecified() && !address.is_multicast(), "host"),
        }
        for time in [upstream.connect_timeout, upstream.response_timeout, upstream.idle_timeout] {
            must((millisecond..=day).contains(&time), "upstream's time-outs");
        }
        if let HostHeader::Replace(value) = &upstream.host_header {
            must(!value.is_empty() && value.to_str().is_ok_and(|text| !text.contains(' ')), "host header");
        }
        let probe = &upstream.probe;
        must(millisecond <= probe.timeout && probe.timeout <= probe.interval && probe.interval <= day, "probe's times");
        must((1..=100).contains(&probe.rise) && (1..=100).contains(&probe.fall), "rise, fall");
        must(probe.path.is_some() != probe.healthy.is_empty(), "healthy goes with path");
        must(![0, 99, 600, u16::MAX].iter().any(|status| probe.healthy.contains(*status)), "healthy");
        must(!probe.host.is_empty() && probe.host.bytes().all(|byte| byte.is_ascii_graphic()), "probe.host");
        if let Some(path) = &probe.path {
            must(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "probe.path");
            must(path.len() <= limits::TEXT, "probe.path's length");
        }
    }
    let router = Router::new(&config.routes);
    for route in &config.routes {
        must(route.upstream < config.upstreams.len(), "a route's upstream");
        must(!route.strip_prefix || route.path_prefix.is_some(), "strip_prefix");
        must(route.path_prefix.as_ref().is_none_or(|p| p.starts_with('/') && !p.ends_with('/')), "path_prefix");
        // The request that a route describes reaches it, as no earlier one shadows it.
        let host = route.host.as_deref().unwrap_or("no-such-host.example");
        let path = route.path_prefix.as_deref().unwrap_or("/no/such/path");
        let found = router.find(Some(host.as_bytes()), path.as_bytes());
        must(found == Some(route), "a route is found by what it says");
    }
    wrong.into_iter().next()
}

#[test]
fn the_running_process_is_found_by_a_file_that_is_wrong_by_now() {
    let env = |name: &str| (name == "ADMIN").then(|| "10.0.0.1:9999".to_owned());
    let admin = |text: &str| super::super::check::sockets(text, &env).1.map(|admin| admin.to_string());
    let cases = [
        ("", Some("127.0.0.1:9180")),
        ("not TOML", Some("127.0.0.1:9180")),
        ("[server]\nadmin = \"1.2.3.4:5\"\n[upstream.x]\naddres = \"x:80\"\n", Some("1.2.3.4:5")),
        ("[server]\nlisten = 7\nadmin = \"${ADMIN}\"\n[upstream.x\n", Some("10.0.0.1:9999")),
        ("[server]\nadmin = \"off\"\nnonsense", None),
    ];
    for (text, expected) in cases {
        assert_eq!(admin(text).as_deref(), expected, "{text}");
    }
}
