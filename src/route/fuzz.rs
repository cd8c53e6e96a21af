//! The rules of `route.rs` once more, in strings and by segments, so that a slip in the slices shows.

use super::{Router, Target, forward};
use crate::config::Route;
use std::net::Ipv6Addr;

/// Routes of every kind: with and without a host, an address, a prefix, a prefix that is taken off.
pub(super) fn routes() -> Vec<Route> {
    let route = |upstream: usize, host: Option<&str>, prefix: Option<&str>, strip_prefix: bool| Route {
        upstream,
        host: host.map(Into::into),
        path_prefix: prefix.map(Into::into),
        strip_prefix,
    };
    vec![
        route(0, Some("a.b"), Some("/db/x"), true),
        route(1, Some("a.b"), Some("/db"), false),
        route(2, Some("c"), None, false),
        route(3, Some("[fd00::1]"), Some("/a"), true),
        route(4, None, Some("/db"), true),
        route(5, None, Some("/%2e"), true),
    ]
}

/// Where a request goes, and the path that it has there. Text here is bytes: each character stands for one.
pub(super) fn oracle(routes: &[Route], host: &str, path: &str) -> Option<(usize, String)> {
    let host = name(host);
    let (bare, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let segments: Vec<&str> = bare.split('/').collect();
    let route = routes.iter().find(|route| {
        let prefix: Vec<&str> = route.path_prefix.iter().flat_map(|prefix| prefix.split('/')).collect();
        route.host.as_ref().is_none_or(|own| name(own) == host) && segments.starts_with(&prefix)
    })?;
    let mut rest = match &route.path_prefix {
        Some(prefix) if route.strip_prefix => {
            segments[prefix.split('/').count()..].iter().map(|segment| format!("/{segment}")).collect()
        }
        _ => bare.to_owned(),
    };
    if rest.is_empty() {
        rest.push('/');
    }
    Some((route.upstream, rest + query))
}

/// A host as it is compared: an IPv6 address by its value.
fn name(host: &str) -> Result<Ipv6Addr, String> {
    let host = host.rsplit('@').next().unwrap_or_default();
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default().parse().map_err(|_| String::new());
    }
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    Err(host.strip_suffix('.').unwrap_or(&host).to_owned())
}

/// A `Host` field and a target, with a line end between them: they are routed as the rules read, and a target that hyper
/// reads has the authority and the path that hyper finds. True if a route takes it.
pub fn route(bytes: &[u8]) -> bool {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (field, target) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let routes = routes();
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let parsed = Target::new(target);
    let host = parsed.host(Some(field)).unwrap_or_default();
    let found = Router::new(&routes).find(Some(host), parsed.path).map(|route| {
        let (slash, rest) = forward(route, parsed.path);
        (route.upstream, text(&[slash, rest].concat()))
    });
    let shown = || format!("{:?} {:?}", text(field), text(target));
    assert_eq!(found, oracle(&routes, &text(host), &text(parsed.path)), "{}", shown());
    assert!(found.as_ref().is_none_or(|(_, path)| !path.is_empty()), "{}", shown());
    // What is refused before it is routed: bytes beyond ASCII, a fragment, and an authority that is none.
    let authority = parsed.authority.is_none_or(crate::proxy::fuzz::is_authority);
    let plain = authority
        && target.is_ascii()
        && !target.contains(&b'#')
        && (target.starts_with(b"/") || parsed.authority.is_some());
    if plain && let Ok(uri) = hyper::Uri::try_from(target) {
        let (slash, rest) = forward(&routes[2], parsed.path);
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        assert_eq!(text(&[slash, rest].concat()), path, "hyper has another path: {}", shown());
        let theirs = uri.authority().map(|authority| authority.as_str().as_bytes());
        assert_eq!(parsed.authority, theirs, "hyper has another authority: {}", shown());
    }
    found.is_some()
}
