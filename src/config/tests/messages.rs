//! Every problem says where, what, and what to write instead: the messages word by word, as operators read them.

use super::{SHIPPED, parse, web};
use crate::config::Config;

/// The problems of `text`, without the file's name.
fn problems(text: &str, vars: &[(&str, &str)]) -> Vec<String> {
    match parse(text, vars) {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(error) => error.problems().iter().map(|p| p.strip_prefix("proxy.toml: ").unwrap_or(p).to_owned()).collect(),
    }
}

/// Holds each text's only problem against what it has to be; reports all that differ.
fn check(cases: &[(String, &str)], vars: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, expected)| {
            let found = problems(text, vars);
            (found != [*expected]).then(|| format!("{text}\nfound    {found:#?}\nexpected {expected:?}\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn server(line: &str) -> String {
    format!("[server]\n{line}\n{}", web(""))
}

fn address(address: &str) -> String {
    format!("[upstream.web]\naddress = \"{address}\"")
}

#[test]
fn the_promised_message_is_given_word_by_word() {
    let error = parse(&web("[upstream.web.probe]\ninterval = \"2s\"\ntimeout = \"3s\""), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "proxy.toml: upstream \"web\": probe.timeout (3s) must not be longer than probe.interval (2s); lower one or \
         raise the other"
    );
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let text = SHIPPED
        .replace("drain = \"${DRAIN:-9s}\"", "drain = 25")
        .replace("interval", "intervall")
        .replace("retries = 2", "retries = 11")
        .replace("forwarded = \"off\"", "forwarded = false");
    let lines = [
        "server.drain (25) has no unit; write \"25s\" or \"25ms\"",
        "unknown key dns.intervall (known here: server, interval, timeout, family, hold); did you mean interval?",
        "upstream \"db-checker\": retries (11) is out of bounds; write a number from 0 to 10",
        "upstream \"db-checker\": forwarded (false) is none of the choices; write \"off\" or \"append\"",
        "upstream \"db-checker\": unknown key probe.intervall (known here: path, grpc, healthy, host, interval, timeout, rise, \
         fall); did you mean interval?",
    ];
    assert_eq!(problems(&text, &[]), lines);
}

#[test]
fn a_hundred_problems_are_shown_as_twenty_and_a_count() {
    let many: String = (0..100).map(|n| format!("[upstream.u{n}]\naddress = \"u\"\n")).collect();
    let shown = parse(&many, &[]).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 21);
    assert_eq!(shown.lines().last(), Some("and 80 more"));
}

#[test]
fn broken_toml_is_shown_by_line_and_column() {
    let cases = [
        ("[server]\nlisten = 0.0.0.0:80", "line 2, column 13: ", "listen = 0.0.0.0:80"),
        ("[server]\nlisten = \"x", "line 2, column 12: ", "listen = \\\"x"),
        ("# é\n[server", "line 2, column 8: ", "[server"),
        ("[server]\n[server]", "line 2, column 2: ", "[server]"),
        ("[server]\nthreads = 1\nthreads = 2", "line 3, column 1: ", "threads = 2"),
        ("[dns]\nhold = \"\u{7}\"", "line 2, column 9: ", "hold = \\\"\\u{7}\\\""),
    ];
    for (text, at, line) in cases {
        let [problem] = &problems(text, &[])[..] else { panic!("{text}") };
        assert!(problem.starts_with(at), "{text}: {problem}");
        assert!(
            problem.ends_with(&format!(": \"{line}\"; write it as TOML, where text stands in quotes")),
            "{problem}"
        );
        assert_eq!(problem.lines().count(), 1, "{problem}");
    }
}

#[test]
fn an_unknown_key_is_told_with_its_table_and_the_nearest_known_one() {
    let cases = [
        (
            "[upstreams.web]\naddress = \"web:80\"".into(),
            "unknown key upstreams (known here: server, dns, upstream, route); did you mean upstream?",
        ),
        (
            web("connect-timout = \"5s\""),
            "upstream \"web\": unknown key connect-timout (known here: address, protocol, on_failure, wait, max_waiting, \
             connect_timeout, response_timeout, retries, max_in_flight, idle_timeout, max_idle, host, forwarded, \
             probe); did you mean connect_timeout?",
        ),
        (
            web("[probe]\npath = \"/\""),
            "unknown key probe (known here: server, dns, upstream, route); remove it, or move it to the table that \
             knows it",
        ),
        (
            web("[[route]]\nupstream = \"web\"\n\"pre\\nfix\" = 1"),
            "route 1: unknown key \"pre\\nfix\" (known here: upstream, host, path_prefix, strip_prefix); remove it, or \
             move it to the table that knows it",
        ),
    ];
    check(&cases, &[]);
}

#[test]
fn wrong_types_units_and_bounds_are_refused_with_what_to_write() {
    let cases = [
        (server("listen = 80"), "server.listen (80) is a number where a string belongs; write it in quotes"),
        (server("listen = \"80\""), "server.listen (\"80\") has no address; write \"0.0.0.0:80\" for all"),
        (server("listen = \":80\""), "server.listen (\":80\") has no address; write \"0.0.0.0:80\" for all"),
        (server("listen = \"::\""), "server.listen (\"::\") has no port; write \"0.0.0.0:80\" or \"[::]:80\""),
        (
            server("listen = \"localhost:80\""),
            "server.listen (\"localhost:80\") is not an IP address and a port; write \"0.0.0.0:80\" or \"[::]:80\"",
        ),
        (
            server("threads = \"4\""),
            "server.threads (\"4\") is a string where a number belongs; write 4 without quotes",
        ),
        (server("threads = -1"), "server.threads (-1) is out of bounds; write a number from 0 to 512"),
        (server("threads = 1.5"), "server.threads (1.5) is a fraction where a whole number belongs"),
        (server("threads = true"), "server.threads (true) is true or false where a whole number belongs"),
        (server("threads = 99999999999999999999"), "server.threads (99999999999999999999) is out of all bounds"),
        (server("threads = 0xffffffff"), "server.threads (4294967295) is out of bounds; write a number from 0 to 512"),
        (server("drain = \"25\""), "server.drain (\"25\") has no unit; write \"25s\" or \"25ms\""),
        (
            server("drain = \"3 parsecs\""),
            "server.drain (\"3 parsecs\") is not a duration; write a number and a unit: \"500ms\", \"2s\", \"1m\", \"1h\"",
        ),
        (
            server("drain = \"-1s\""),
            "server.drain (\"-1s\") is not a duration; write a number and a unit: \"500ms\", \"2s\", \"1m\", \"1h\"",
        ),
        (server("drain = \"1000 years\""), "server.drain (\"1000 years\") is out of bounds; write from 0s to 1day"),
        (server("header_timeout = \"0s\""), "server.header_timeout (\"0s\") is out of bounds; write from 1ms to 1day"),
        (server("max_header = 65536"), "server.max_header (65536) has no unit; write \"65536B\", or \"64KiB\""),
        (
            server("max_header = \"5 KiX\""),
            "server.max_header (\"5 KiX\") is not a size; write a number and a unit: \"512B\", \"64KiB\", \"1MiB\"",
        ),
        (
            server("max_header = \"99999999999999999999GB\""),
            "server.max_header (\"99999999999999999999GB\") is out of bounds; write from 1KiB to 1MiB",
        ),
        (
            server("max_header = \"1KiB\"\nmax_target = \"2KiB\""),
            "server.max_target (2KiB) must not be longer than server.max_header (1KiB), of which it is a part; lower \
             one or raise the other",
        ),
        (
            web("[dns]\nserver = \"resolver\""),
            "dns.server (\"resolver\") is not an IP address and a port; write \"127.0.0.11:53\", or leave it out for \
             resolv.conf",
        ),
        (web("[dns]\ninterval = \"1ms\""), "dns.interval (\"1ms\") is out of bounds; write from 10ms to 1day"),
        (
            web("on_failure = \"Close\""),
            "upstream \"web\": on_failure (\"Close\") is none of the choices; write \"respond\" or \"close\"",
        ),
        (web("probe.rise = 0"), "upstream \"web\": probe.rise (0) is out of bounds; write a number from 1 to 100"),
        (
            web("host = \"a\\r\\nX: y\""),
            "upstream \"web\": host (\"a\\r\\nX: y\") has '\\r' in its name; names have letters, digits, -, _ and .; or \
             \"pass\", or \"upstream\"",
        ),
        (
            web("probe = { path = \"ping\" }"),
            "upstream \"web\": probe.path (\"ping\") does not start with a slash; write \"/ping\"",
        ),
        (
            web("probe = { path = \"/a b\" }"),
            "upstream \"web\": probe.path (\"/a b\") has ' ', which a request's target cannot have; write it \
             percent-encoded",
        ),
        (
            web("probe = { path = \"/\", healthy = [] }"),
            "upstream \"web\": probe.healthy (a list) is empty, so nothing would ever do; leave it out",
        ),
        (
            web("probe = { path = \"/\", healthy = [200, 600] }"),
            "upstream \"web\": probe.healthy (a list) has 600, which is out of bounds; write a number from 100 to 599",
        ),
        (
            web("probe = { path = \"/\", healthy = 200 }"),
            "upstream \"web\": probe.healthy (200) is a number where a list belongs; write [200]",
        ),
        (
            web("probe = { path = \"/\", healthy = \"2xx\" }"),
            "upstream \"web\": probe.healthy (\"2xx\") is a string where a list belongs; write [\"2xx\"]",
        ),
        (
            web("probe = { path = \"/\", healthy = [\"2x\", 424] }"),
            "upstream \"web\": probe.healthy (a list) has \"2x\", which is no status; write a number such as 200, a class \
             such as \"2xx\", or a range such as \"200-299\"",
        ),
        (
            web("probe = { path = \"/\", healthy = [\"6xx\"] }"),
            "upstream \"web\": probe.healthy (a list) has \"6xx\", which is out of bounds; write statuses from 100 to 599, \
             the lower one first",
        ),
        (
            web("probe = { path = \"/\", healthy = [\"200\"] }"),
            "upstream \"web\": probe.healthy (a list) has \"200\", which is a string where a number belongs; write 200 \
             without quotes",
        ),
        (
            web("probe.healthy = [200]"),
            "upstream \"web\": probe.healthy says nothing without probe.path, as the probe is then a TCP connect; add \
             path, or leave it out",
        ),
        (web("host = \"Pass\""), "upstream \"web\": host (\"Pass\") must be in lower case; write \"pass\""),
        (web("probe = 1"), "upstream \"web\": probe is a number; write it as a table: [upstream.NAME.probe]"),
    ];
    check(&cases, &[]);
}

#[test]
fn an_address_that_cannot_be_dialled_is_refused_with_one_that_can() {
    let at = |rest: &str| format!("upstream \"web\": address {rest}");
    let expose = "with the port that the app's image EXPOSEs; where it EXPOSEs none, Dokku's default is 5000:";
    let cases = [
        ("web", format!("has no port; write \"web:PORT\" {expose} \"web:5000\"")),
        ("[::1]", format!("has no port; write \"[::1]:PORT\" {expose} \"[::1]:5000\"")),
        ("http://web:81/x", "has a scheme; replicas are spoken to in plain HTTP, so write only \"web:81\"".into()),
        ("http://web", "has a scheme; replicas are spoken to in plain HTTP, so write only \"web:80\"".into()),
        ("http://[::1]", "has a scheme; replicas are spoken to in plain HTTP, so write only \"[::1]:80\"".into()),
        ("web:81/x", "has a path; write only \"web:81\" (what probes ask for is probe.path)".into()),
        ("::1", "is an IPv6 address without brackets; write \"[ADDRESS]:PORT\"".into()),
        ("[::1:80", "is not an IPv6 address in brackets; write \"[fd00::1]\"".into()),
        ("[fe80::1%eth0]:80", "is not an IPv6 address in brackets; write \"[fd00::1]\"".into()),
        ("web:", "has \"\" behind the name, which is not a port; write a number from 1 to 65535".into()),
        ("web:0", "has \"0\" behind the name, which is not a port; write a number from 1 to 65535".into()),
        ("web:65536", "has \"65536\" behind the name, which is not a port; write a number from 1 to 65535".into()),
        ("web:+80", "has \"+80\" behind the name, which is not a port; write a number from 1 to 65535".into()),
        (":80", "has no name; write one, such as \"db-checker\"".into()),
        ("", "has no name; write one, such as \"db-checker\"".into()),
        (" web:80", "has ' ' in its name; names have letters, digits, -, _ and .".into()),
        ("wéb:80", "has letters that DNS does not; write the name in Punycode (xn--…)".into()),
        ("256.1.1.1:80", "looks like an IPv4 address but is none".into()),
        ("0.0.0.0:80", "is no address that a replica can have; write the app's name on the network".into()),
        ("[ff02::1]:80", "is no address that a replica can have; write the app's name on the network".into()),
        (
            "web..internal:80",
            "is not a DNS name: between its dots are 1 to 63 characters, not - first, 253 in all".into(),
        ),
    ];
    for (text, problem) in cases {
        assert_eq!(problems(&address(text), &[]), [at(&format!("({text:?}) {problem}"))]);
    }
    for fine in ["web_1:80", "db-checker.web.1:5000", "127.0.0.1:1", "[::1]:65535", &format!("{}:80", "a".repeat(63))] {
        parse(&address(fine), &[]).unwrap();
    }
    let missing = "upstream \"web\": address is missing; write address = \"db-checker:8080\", the app's name on the \
                   network and its port";
    check(&[("[upstream.web]".into(), missing)], &[]);
}

#[test]
fn a_variable_that_is_not_set_or_not_understood_is_told_with_its_key() {
    let problem = |text: &str, rest: &str| {
        let vars = [("EMPTY", ""), ("URL", "http://web:80")];
        let found = problems(&address(text), &vars);
        assert_eq!(found, [format!("upstream \"web\": address ({rest}")]);
    };
    problem("${X}", "\"${X}\") needs the variable X, which is not set; set it, or write a default: ${X:-…}");
    problem("$X:80", "\"$X:80\") has a lone $; write ${NAME} for a variable, $$ for a dollar");
    problem("${X", "\"${X\") has a ${ without its }; close it, or write $$ for a dollar");
    problem("${X:-${Y}}", "\"${X:-${Y}}\") has a $ in the default of X; a default is plain text");
    problem(
        "${A-B}",
        "\"${A-B}\") names a variable \"A-B\", which no variable can be called; write ${NAME} or ${NAME:-default}, with \
         letters, digits and _",
    );
    problem("${EMPTY}", "\"${EMPTY}\") has no name; write one, such as \"db-checker\"");
    problem("${URL}", "\"${URL}\") has a scheme; replicas are spoken to in plain HTTP, so write only …");
}

// D21
#[test]
fn what_a_variable_holds_is_never_shown_as_it_may_be_a_password_in_the_wrong_place() {
    let secret = "postgres://app:hunter2@db:5432/app";
    let vars = [("SECRET", secret)];
    for key in ["listen", "admin", "drain", "max_header", "threads"] {
        let found = problems(&server(&format!("{key} = \"${{SECRET}}\"")), &vars).concat();
        assert!(found.contains("${SECRET}") && !found.contains("hunter2"), "{key}: {found}");
    }
    for key in ["host", "on_failure", "forwarded", "wait", "probe.path", "probe.host"] {
        let found = problems(&web(&format!("{key} = \"${{SECRET}}\"")), &vars).concat();
        assert!(!found.contains("hunter2"), "{key}: {found}");
    }
    let found = problems(&address("${SECRET}"), &vars).concat();
    assert!(found.contains("${SECRET}") && !found.contains("hunter2"), "{found}");
    let env = |name: &str| matches!(name, "UPSTREAM" | "PORT").then(|| secret.to_owned());
    let found = crate::config::check::environment(&env).unwrap_err().to_string();
    assert!(found.contains("UPSTREAM") && found.contains("PORT") && !found.contains("hunter2"), "{found}");
}

#[test]
fn upstream_set_but_named_nowhere_in_the_file_is_refused() {
    let problem = "the variable UPSTREAM is set but the file, which is the whole configuration, does not \
                   use it; write address = \"${UPSTREAM}\" in an upstream, or unset it";
    check(&[(web("# address = \"${UPSTREAM}\""), problem)], &[("UPSTREAM", "app:1")]);
    check(&[(web("probe.path = \"/$${UPSTREAM}\""), problem)], &[("UPSTREAM", "app:1")]);
    parse(&web("probe.path = \"/${UPSTREAM}\""), &[("UPSTREAM", "app:1")]).unwrap();
}

#[test]
fn the_variables_that_rule_without_a_file_are_checked_as_its_values_are() {
    let environment = |vars: &[(&str, &str)]| {
        let env = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        crate::config::check::environment(&env).map(|config: Config| config.upstreams.len()).map_err(|e| e.to_string())
    };
    assert_eq!(
        environment(&[("UPSTREAM", "http://app:8080/"), ("PORT", "eighty")]).unwrap_err(),
        "the variable PORT is not a port; write a number from 1 to 65535, or unset it: then server.listen rules\n\
         the variable UPSTREAM has a scheme; replicas are spoken to in plain HTTP, so write only …"
    );
    for vars in [&[][..], &[("UPSTREAM", "")]] {
        assert_eq!(
            environment(vars).unwrap_err(),
            "there is no proxy.toml here and the variable UPSTREAM is not set; set UPSTREAM=db-checker:8080 (the app's \
             name on the network and its port), or name a file by --config"
        );
    }
    assert_eq!(environment(&[("UPSTREAM", "app:8080"), ("PORT", "80")]), Ok(1));
}

#[test]
fn listen_and_admin_on_the_same_port_are_refused() {
    let problem = |listen: &str, admin: &str, vars: &[(&str, &str)]| {
        parse(&server(&format!("listen = \"{listen}\"\nadmin = \"{admin}\"")), vars).is_err()
    };
    assert!(problem("0.0.0.0:80", "127.0.0.1:80", &[]));
    assert!(problem("127.0.0.1:80", "[::]:80", &[]));
    assert!(problem("127.0.0.1:80", "127.0.0.1:80", &[]));
    assert!(problem("0.0.0.0:80", "127.0.0.1:9180", &[("PORT", "9180")]));
    assert!(!problem("127.0.0.1:80", "127.0.0.2:80", &[]));
    assert!(!problem("127.0.0.1:0", "127.0.0.1:0", &[]), "the system gives two free ones");
    let message = "server.admin (127.0.0.1:9180) takes the port where clients connect ([::]:9180; the variable PORT \
                   overrides that of server.listen); give it another, or \"\" for none";
    check(&[(SHIPPED.into(), message)], &[("PORT", "9180")]);
}

#[test]
fn routes_that_cannot_be_meant_are_refused() {
    let two = |routes: &str| format!("{}[upstream.api]\naddress = \"api:81\"\n{routes}", web(""));
    let one = |lines: &str| web(&format!("[[route]]\nupstream = \"web\"\n{lines}"));
    let cases = [
        (
            two(""),
            "there are 2 upstreams (web, api) but no [[route]] to say who gets what; write one for each, such as\n    \
             [[route]]\n    upstream = \"web\"\n    path_prefix = \"/web\"\n    strip_prefix = true\nthe first that \
             matches wins, and one without host and path_prefix, at the end, matches everything",
        ),
        (
            two("[[route]]\nupstream = \"web\""),
            "upstream \"api\": no [[route]] leads to it; write one with upstream = \"api\", or remove [upstream.api]",
        ),
        (
            web("[[route]]\nupstream = \"wbe\""),
            "route 1: upstream (\"wbe\") is not an upstream of this file; did you mean web? There are web",
        ),
        (
            web("[[route]]\nhost = \"a\""),
            "route 1: upstream is missing; write upstream = \"NAME\" of an [upstream.NAME]",
        ),
        (web("[route]\nupstream = \"web\""), "route is a table; write it in double brackets: [[route]]"),
        (
            "[upstream]\naddress = \"a:1\"".into(),
            "upstream.address belongs in a table with the upstream's name, such as [upstream.db-checker]",
        ),
        ("[[upstream]]\naddress = \"a:1\"".into(), "upstream is a list; write it as a table: [upstream.db-checker]"),
        (
            "[upstream.\"my app\"]\naddress = \"a:1\"".into(),
            "upstream \"my app\": a name is made of letters, digits, -, _ and ., 253 at most; rename it",
        ),
        (
            String::new(),
            "there is no upstream; write\n    [upstream.db-checker]\n    address = \"db-checker:8080\"\nwith the app's \
             name on the network and its port",
        ),
        (
            one("host = \"*.example\""),
            "route 1: host (\"*.example\") has a *, and there are no patterns; leave host out to match any, or write a \
             route for each",
        ),
        (one("host = \"a:80\""), "route 1: host (\"a:80\") has a port, and ports are ignored; write \"a\""),
        (one("path_prefix = \"db\""), "route 1: path_prefix (\"db\") does not start with a slash; write \"/db\""),
        (
            one("path_prefix = \"/a//b\""),
            "route 1: path_prefix (\"/a//b\") has an empty segment (//), which no client means; write one slash",
        ),
        (
            one("path_prefix = \"/a/../b\""),
            "route 1: path_prefix (\"/a/../b\") has a . or .. segment, which clients resolve before they ask; write the \
             path that they ask for",
        ),
        (
            one("path_prefix = \"/a?b\""),
            "route 1: path_prefix (\"/a?b\") has a ?, and a query is no part of the path; leave it out",
        ),
        (
            one("path_prefix = \"/a\"\nstrip_prefix = \"true\""),
            "route 1: strip_prefix (\"true\") must be true or false, without quotes",
        ),
        (
            one("strip_prefix = true"),
            "route 1: strip_prefix (true) has nothing to take off; add path_prefix, or leave it out",
        ),
    ];
    check(&cases, &[]);
}

#[test]
fn a_route_that_an_earlier_one_shadows_is_refused() {
    let shadowed = |first: &str, second: &str| {
        let text = web(&format!("[[route]]\nupstream = \"web\"\n{first}\n[[route]]\nupstream = \"web\"\n{second}"));
        parse(&text, &[]).map(drop).map_err(|error| error.to_string())
    };
    let refused = "proxy.toml: route 2: can never match, as route 1 before it takes every such request; put it before \
                   route 1, or remove it";
    for (first, second) in [
        ("", "host = \"a\""),
        ("", ""),
        ("path_prefix = \"/\"", "path_prefix = \"/a\""),
        ("path_prefix = \"/a\"", "path_prefix = \"/a/b\""),
        ("path_prefix = \"/a\"", "path_prefix = \"/a/\"\nhost = \"x\""),
        ("host = \"A.\"", "host = \"a\"\npath_prefix = \"/a\""),
        ("host = \"::1\"", "host = \"[0::1]\""),
    ] {
        assert_eq!(shadowed(first, second), Err(refused.to_owned()), "{first} / {second}");
    }
    for (first, second) in [
        ("host = \"a\"", ""),
        ("path_prefix = \"/a\"", "path_prefix = \"/ab\""),
        ("path_prefix = \"/a/b\"", "path_prefix = \"/a\""),
        ("host = \"a\"\npath_prefix = \"/a\"", "path_prefix = \"/a\""),
        ("host = \"a\"", "host = \"b\""),
    ] {
        assert_eq!(shadowed(first, second), Ok(()), "{first} / {second}");
    }
}
