//! Which requests go where, and as what, byte by byte.

use super::*;

fn route(upstream: usize, host: Option<&str>, prefix: Option<&str>, strip_prefix: bool) -> Route {
    Route { upstream, host: host.map(Into::into), path_prefix: prefix.map(Into::into), strip_prefix }
}

/// The upstream that a request with this `Host` and target goes to.
fn to(routes: &[Route], field: Option<&str>, target: &str) -> Option<usize> {
    let target = Target::new(target.as_bytes());
    let host = target.host(field.map(str::as_bytes));
    Router::new(routes).find(host, target.path).map(|route| route.upstream)
}

/// What a replica is sent of a target.
fn sent(route: &Route, target: &str) -> String {
    let (slash, rest) = forward(route, Target::new(target.as_bytes()).path);
    String::from_utf8([slash, rest].concat()).unwrap()
}

#[test]
fn a_prefix_takes_whole_segments_of_the_path_as_the_client_wrote_it() {
    let routes = [route(0, None, Some("/db"), false)];
    for target in
        ["/db", "/db/", "/db/x", "/db?x", "/db?/other", "/db//x", "/db/../admin", "/db/%2e%2e/admin", "http://a/db"]
    {
        assert_eq!(to(&routes, None, target), Some(0), "{target}");
    }
    for target in
        ["/", "", "/dbx", "/db.", "/db;x", "/DB", "//db", "/%64b", "/x/db", "/x?/db", "db", "*", "/d", "http://db/"]
    {
        assert_eq!(to(&routes, None, target), None, "{target}");
    }
    let all = [route(0, None, None, false)];
    for target in ["/", "", "/db", "//", "*", "http://a", "\u{0}é"] {
        assert_eq!(to(&all, None, target), Some(0), "{target}");
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    let routes = [
        route(0, Some("api.example"), Some("/v2"), false),
        route(1, Some("api.example"), None, false),
        route(2, None, Some("/v2/x"), false),
        route(3, None, Some("/v2"), false),
    ];
    assert_eq!(to(&routes, Some("api.example"), "/v2/x"), Some(0));
    assert_eq!(to(&routes, Some("api.example"), "/v3"), Some(1));
    assert_eq!(to(&routes, Some("other.example"), "/v2/x/y"), Some(2));
    assert_eq!(to(&routes, None, "/v2/y"), Some(3));
    assert_eq!(to(&routes, Some("other.example"), "/v3"), None);
}

#[test]
fn a_host_matches_whatever_its_case_port_and_trailing_dot() {
    let routes = [route(0, Some("db-checker.internal"), None, false)];
    for host in [
        "db-checker.internal",
        "DB-Checker.Internal:8080",
        "db-checker.internal.",
        "db-checker.internal.:80",
        "db-checker.internal:",
    ] {
        assert_eq!(to(&routes, Some(host), "/"), Some(0), "{host}");
    }
    for host in [
        "",
        ".",
        ":80",
        "db-checker",
        "x.db-checker.internal",
        "db-checker.internal..",
        "db-checker_internal",
        "[db-checker.internal]",
    ] {
        assert_eq!(to(&routes, Some(host), "/"), None, "{host}");
    }
    assert_eq!(to(&routes, None, "/"), None);
    assert_eq!(to(&[route(0, Some("10.0.0.1"), None, false)], Some("10.0.0.1:80"), "/"), Some(0));
}

#[test]
fn an_ipv6_host_matches_however_it_is_written() {
    let routes = [route(0, Some("[fd00::1]"), None, false)];
    for host in ["[fd00::1]", "[fd00::1]:8080", "[FD00:0:0::0:1]", "[fd00:0000:0000:0000:0000:0000:0000:0001]:"] {
        assert_eq!(to(&routes, Some(host), "/"), Some(0), "{host}");
    }
    for host in ["fd00::1", "[fd00::2]", "[fd00::1", "[]", "[", "[fd00::1%eth0]", "[fd00::1]x", "[\u{e9}]"] {
        let expected = (host == "[fd00::1" || host == "[fd00::1]x").then_some(0);
        assert_eq!(to(&routes, Some(host), "/"), expected, "{host}");
    }
}

#[test]
fn an_absolute_target_overrides_the_host_field() {
    let routes = [route(0, Some("a"), None, false), route(1, Some("b"), None, false)];
    assert_eq!(to(&routes, Some("b"), "http://a/x"), Some(0));
    assert_eq!(to(&routes, Some("a"), "HTTP://B:80?x"), Some(1));
    assert_eq!(to(&routes, Some("a"), "http://b"), Some(1));
    assert_eq!(to(&routes, Some("a"), "http://user:a@b/"), Some(1));
    assert_eq!(to(&routes, Some("a"), "http:///x"), None, "an empty authority is no host");
    assert_eq!(to(&routes, Some("a"), "/x?http://b/"), Some(0));

    let parts = |target| {
        let Target { authority, path } = Target::new(target);
        (authority, path)
    };
    assert_eq!(parts(b"/x?y"), (None, &b"/x?y"[..]));
    assert_eq!(parts(b"//a/x"), (None, &b"//a/x"[..]));
    assert_eq!(parts(b"*"), (None, &b"*"[..]));
    assert_eq!(parts(b"a:443"), (None, &b"a:443"[..]));
    assert_eq!(parts(b"://a/x"), (None, &b"://a/x"[..]));
    assert_eq!(parts(b"ws+x://a:1/x?y"), (Some(&b"a:1"[..]), &b"/x?y"[..]));
    assert_eq!(parts(b"http://a?y/z"), (Some(&b"a"[..]), &b"?y/z"[..]));
    assert_eq!(parts(b"http://"), (Some(&b""[..]), &b""[..]));
}

#[test]
fn a_replica_is_sent_the_path_as_it_came() {
    let route = route(0, None, Some("/db"), false);
    for target in ["/db", "/db/../admin", "/db//x/./%2F?a=/../b", "*", "/db/\u{e9}"] {
        assert_eq!(sent(&route, target), target);
    }
    assert_eq!(sent(&route, "http://a/db?x"), "/db?x");
    assert_eq!(sent(&route, "http://a"), "/");
    assert_eq!(sent(&route, "http://a?x"), "/?x");
}

#[test]
fn a_stripped_prefix_never_leaves_an_empty_path() {
    let route = route(0, None, Some("/db"), true);
    for (target, expected) in [
        ("/db", "/"),
        ("/db/", "/"),
        ("/db?x", "/?x"),
        ("/db/ping", "/ping"),
        ("/db/ping?db=/db", "/ping?db=/db"),
        ("/db//x", "//x"),
        ("/db/../admin", "/../admin"),
        ("/db/db", "/db"),
        ("http://a/db", "/"),
        ("http://a/db/x", "/x"),
    ] {
        assert_eq!(sent(&route, target), expected, "{target}");
    }
}

#[test]
fn any_target_at_all_is_routed_as_the_rules_read() {
    let seed = crate::fuzz::seed(0x726f_7574);
    let mut random = fastrand::Rng::with_seed(seed);
    let routes = fuzz::routes();
    let router = Router::new(&routes);
    let paths =
        ["/", "db", "/db", "/db/x", "?", "x", "..", "%2e", "/%2e", "/a", "//", "é", "\u{0}", "#", ";", "*", ":"];
    let hosts = ["a.b", "A.B", "c", "C", "[fd00::1]", ".", ":", "80", "@", "x", " ", "é"];
    let draw = |parts: &[&str], most: usize, random: &mut fastrand::Rng| -> String {
        (0..random.usize(..=most)).map(|_| parts[random.usize(..parts.len())]).collect()
    };
    let mut reached = [0; 6];
    for run in 0..50_000 {
        let (host, path) = (draw(&hosts, 4, &mut random), draw(&paths, 5, &mut random));
        let found = router.find(Some(host.as_bytes()), path.as_bytes()).map(|route| {
            let (slash, rest) = forward(route, path.as_bytes());
            (route.upstream, String::from_utf8([slash, rest].concat()).unwrap())
        });
        assert_eq!(found, fuzz::oracle(&routes, &host, &path), "seed {seed}, run {run}: {host:?} {path:?}");
        if let Some((upstream, _)) = found {
            reached[upstream] += 1;
        }
    }
    assert!(reached.iter().all(|count| *count > 20), "seed {seed}: each route is reached: {reached:?}");
}

#[test]
fn bytes_that_are_no_text_are_routed_and_passed_on_without_harm() {
    let seed = crate::fuzz::seed(0x6279_7465);
    let mut random = fastrand::Rng::with_seed(seed);
    let routes = [route(0, Some("[::1]"), Some("/a"), true), route(1, None, None, false)];
    let router = Router::new(&routes);
    let alphabet = b"/?#@:[].%*a1\x00\xff\x80htp";
    for run in 0..50_000 {
        let bytes = |random: &mut fastrand::Rng| -> Vec<u8> {
            (0..random.usize(..12)).map(|_| alphabet[random.usize(..alphabet.len())]).collect()
        };
        let mut target = bytes(&mut random);
        if random.bool() {
            target.splice(..0, *b"http://");
        }
        let field = bytes(&mut random);
        let parsed = Target::new(&target);
        let found = router.find(parsed.host(Some(&field)), parsed.path).expect("the last route takes all");
        let (slash, rest) = forward(found, parsed.path);
        assert!(!slash.is_empty() || !rest.is_empty(), "seed {seed}, run {run}: {target:?}");
        assert!(target.ends_with(rest), "seed {seed}, run {run}: {target:?} became {rest:?}");
        let absolute = parsed.authority.is_some();
        assert!(!absolute || slash == b"/" || rest[0] == b'/', "seed {seed}, run {run}: {target:?}");
    }
}
