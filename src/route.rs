//! Which upstream a request goes to: a pure function of its host and raw path, and what is left of its target.
//!
//! Paths are compared byte by byte, as the client wrote them, and pass on as they are: nothing is percent-decoded, no
//! `.` or `..` segment is resolved, no slash is merged. So `/%64b` and `//db` are not below `/db`, but `/db/../admin`
//! is, and a route's replicas are sent it so. **A prefix is a signpost, not a fence**: who may ask for what is for the
//! app to say, which sees the same path as without a proxy.
//!
//! What the framing of a request must look like, a missing or doubled `Host` for instance, is not judged here.

use crate::config::Route;
use std::cell::LazyCell;
use std::net::Ipv6Addr;
use std::ops::Deref;

/// The routes in order; the first that matches wins.
#[derive(Clone, Debug)]
pub struct Router {
    routes: Box<[(Pattern, Route)]>,
}

impl Router {
    /// The routes of a checked configuration.
    pub fn new(routes: &[Route]) -> Self {
        Router { routes: routes.iter().map(|route| (Pattern::new(route), route.clone())).collect() }
    }

    /// The first route that matches; allocates nothing. `host` is the authority of an absolute-form target if there is
    /// one, else the `Host` field ([`Target::host`]); its case, port and trailing dot are ignored. `path` is
    /// [`Target::path`]; its query, if any, is ignored.
    pub fn find(&self, host: Option<&[u8]>, path: &[u8]) -> Option<&Route> {
        // Most configurations have no route with a host.
        let host = LazyCell::new(|| Name::new(host.unwrap_or_default()));
        let matches = |(pattern, route): &&(Pattern, Route)| {
            pattern.takes(&host) && route.path_prefix.as_ref().is_none_or(|prefix| below(prefix, path).is_some())
        };
        self.routes.iter().find(matches).map(|(_, route)| route)
    }
}

/// A request's target, whichever of its four forms it has (RFC 9112, section 3.2), in slices of its own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Of the absolute form: overrides the `Host` field. May hold user information, which is no part of the host.
    pub authority: Option<&'a [u8]>,
    /// Path and query. Of the absolute form it may lack the slash (`http://host`, `http://host?q`): [`forward`] mends
    /// it. `*` and the authority form, which only `OPTIONS` and `CONNECT` may have, stand here whole.
    pub path: &'a [u8],
}

impl<'a> Target<'a> {
    /// Splits a target.
    pub fn new(target: &'a [u8]) -> Self {
        let origin = Target { authority: None, path: target };
        if target.first() == Some(&b'/') {
            return origin;
        }
        let scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let end = target.iter().position(|byte| !scheme(byte)).unwrap_or(target.len());
        match target[end..].strip_prefix(b"://") {
            Some(rest) if end > 0 => {
                let (authority, path) = rest.split_at(end_of(rest, b"/?"));
                Target { authority: Some(authority), path }
            }
            _ => origin,
        }
    }

    /// The host that counts: the target's own, else that of the `Host` field.
    pub fn host(&self, field: Option<&'a [u8]>) -> Option<&'a [u8]> {
        self.authority.or(field)
    }
}

/// What goes on to the replica of a [`Target::path`] that `route` matched, in two pieces to be written one after the
/// other: the path without its prefix if the route strips it, and never without its slash. The first piece is empty or
/// `/`. (That an `OPTIONS` for an empty path becomes `*`, RFC 9112, section 3.2.4, is for the caller, who knows the
/// method.)
pub fn forward<'a>(route: &Route, path: &'a [u8]) -> (&'static [u8], &'a [u8]) {
    let rest = match &route.path_prefix {
        Some(prefix) if route.strip_prefix => below(prefix, path).unwrap_or(path),
        _ => path,
    };
    match rest.first() {
        None | Some(b'?') => (b"/", rest),
        Some(_) => (b"", rest),
    }
}

/// Whether `earlier` takes every request that `later` would.
pub(crate) fn covers(earlier: &Route, later: &Route) -> bool {
    let host = earlier.host.is_none() || earlier.host == later.host;
    let path = match (&earlier.path_prefix, &later.path_prefix) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => below(earlier, later.as_bytes()).is_some(),
    };
    host && path
}

/// What follows `prefix` in `path`, if the prefix ends where a segment does.
fn below<'a>(prefix: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(prefix.as_bytes())?;
    matches!(rest.first(), None | Some(b'/' | b'?')).then_some(rest)
}

/// A route's host, ready to be compared.
#[derive(Clone, Debug)]
enum Pattern {
    Any,
    Name(Box<[u8]>),
    V6(Ipv6Addr),
}

impl Pattern {
    fn new(route: &Route) -> Self {
        match route.host.as_ref().map(|host| Name::new(host.as_bytes())) {
            None => Pattern::Any,
            Some(Name::Text(text)) => Pattern::Name(text.into()),
            Some(Name::V6(address)) => Pattern::V6(address),
        }
    }

    fn takes<'a>(&self, host: &impl Deref<Target = Name<'a>>) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Name(name) => matches!(**host, Name::Text(text) if name.eq_ignore_ascii_case(text)),
            Pattern::V6(address) => matches!(**host, Name::V6(other) if *address == other),
        }
    }
}

/// A host without user information, port and trailing dot. An IPv6 address is compared by value, as it can be written
/// in many ways.
#[derive(Clone, Copy, Debug)]
enum Name<'a> {
    Text(&'a [u8]),
    V6(Ipv6Addr),
}

impl<'a> Name<'a> {
    fn new(host: &'a [u8]) -> Self {
        let host = host.iter().rposition(|byte| *byte == b'@').map_or(host, |at| &host[at + 1..]);
        if let Some(rest) = host.strip_prefix(b"[") {
            let address = std::str::from_utf8(&rest[..end_of(rest, b"]")]).ok().and_then(|text| text.parse().ok());
            // What is in brackets but no address matches no route's host.
            return address.map_or(Name::Text(b""), Name::V6);
        }
        let name = &host[..end_of(host, b":")];
        Name::Text(name.strip_suffix(b".").unwrap_or(name))
    }
}

fn end_of(bytes: &[u8], stops: &[u8]) -> usize {
    bytes.iter().position(|byte| stops.contains(byte)).unwrap_or(bytes.len())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
