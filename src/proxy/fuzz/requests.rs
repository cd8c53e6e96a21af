//! Requests: what is accepted against hyper reading the same bytes, and what goes on read again by hyper.

use super::body::Body;
use super::hyper;
use super::message::{Message, end_to_end};
use crate::config::{Forwarded, HostHeader};
use crate::proxy::fields::{Framing, NO_TRAILERS};
use crate::proxy::guard::Guard;
use crate::proxy::request::{RequestHead, Rewrite};
use crate::route::{Target, forward};
use ::bytes::Bytes;
use ::hyper::HeaderMap;
use ::hyper::header::{HeaderName, HeaderValue};
use std::ops::Range;

const MAX_HEAD: usize = 64 * 1024;
const MAX_TARGET: usize = 8 * 1024;

/// The address of the client.
const CLIENT: [u8; 4] = [10, 0, 0, 9];

/// What takes the place of a `Host` that a client of HTTP/1.0 left out.
const DEFAULT_HOST: &str = "app";

/// A request that shows where the one before it ended.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// A client's bytes as one request after the other: each is what hyper reads there, and hyper reads the same request in
/// what goes on. True if any is accepted.
pub fn head(bytes: &[u8]) -> bool {
    let accepted = Accepted::all(bytes);
    let plain = plain(bytes);
    let (theirs, orderly) = hyper::requests(&plain, 0);
    let shown = || format!("{}\nours {accepted:#?}\nhyper's {theirs:#?}", bytes.escape_ascii());
    // Whether a connection is kept is no part of a message: hyper may close it in order behind one.
    assert!(orderly || accepted.len() <= theirs.len(), "hyper refuses what is accepted: {}", shown());
    for (index, our) in accepted.iter().enumerate() {
        let alone = hyper::requests(&plain[our.start..], 0).0;
        let their = theirs.get(index).or(alone.first());
        let their = their.unwrap_or_else(|| panic!("hyper refuses what is accepted: {}", shown()));
        // What was replaced is replaced in what goes on as well.
        let again =
            Accepted::read(&plain, our.start).expect("what is read otherwise on purpose was replaced by its like");
        assert_eq!((our.end, &again.body), (again.end, &our.body), "{}", shown());
        again.is_their(their, &shown);
    }
    !accepted.is_empty()
}

/// A client's bytes without what hyper refuses on purpose in requests that are accepted.
pub(super) fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    Accepted::all(bytes).iter().for_each(|request| request.translate(&mut plain));
    plain
}

/// A request that is accepted, whole.
#[derive(Debug)]
struct Accepted {
    start: usize,
    end: usize,
    keeps_alive: bool,
    /// Where its target is, and the minor version.
    target: Range<usize>,
    minor: usize,
    method: String,
    authority: Option<String>,
    host: Option<String>,
    body: Bytes,
    /// What the replica is sent, with the head written in each of the ways of [`Way`].
    sent: [Bytes; 3],
    /// The target of that.
    path: String,
}

/// How a head is written.
const WAYS: [(Forwarded, &str); 3] = [(Forwarded::Off, ""), (Forwarded::Append, ""), (Forwarded::Off, "other")];

impl Accepted {
    /// The requests until one is refused, or the client's last.
    fn all(bytes: &[u8]) -> Vec<Accepted> {
        let mut all: Vec<Accepted> = vec![];
        while all.last().is_none_or(|last| last.keeps_alive) {
            let Some(next) = Accepted::read(bytes, all.last().map_or(0, |last| last.end)) else { break };
            all.push(next);
        }
        all
    }

    /// The request that begins at `start`, if it is accepted, is meant for a replica, and is whole: as `client.rs` does it.
    fn read(bytes: &[u8], start: usize) -> Option<Accepted> {
        let mut guard = Guard::request(MAX_HEAD, MAX_TARGET);
        guard.feed(&bytes[start..]).ok()?;
        let length = guard.whole()?;
        let (raw, rest) = bytes[start..].split_at(length);
        let head = RequestHead::read(raw).ok()?;
        if !goes_on(&head) {
            return None;
        }
        let target = Target::new(head.target());
        let framing = head.framing();
        let body = Body::read(framing, rest)?;
        let route = crate::config::Route { upstream: 0, host: None, path_prefix: None, strip_prefix: false };
        let asks_all = target.path.is_empty() && head.method() == b"OPTIONS";
        let target_sent = if asks_all { (&b"*"[..], &b""[..]) } else { forward(&route, target.path) };
        let sent = WAYS.map(|(forwarded, host)| {
            let host =
                if host.is_empty() { HostHeader::Pass } else { HostHeader::Replace(HeaderValue::from_static(host)) };
            let rewrite = Rewrite {
                target: target_sent,
                authority: target.host(None),
                host: &host,
                default_host: DEFAULT_HOST,
                forwarded,
                client: CLIENT.into(),
            };
            let mut out = vec![];
            head.write(&rewrite, &mut out);
            body.write(framing == Framing::Chunked, rest, &mut out);
            out.into()
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let begin = start + raw.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let from = begin + head.method().len() + 1;
        let to = from + head.target().len();
        Some(Accepted {
            start,
            end: start + length + body.length,
            keeps_alive: head.keeps_alive(),
            target: from..to,
            minor: to + " HTTP/1.".len(),
            method: text(head.method()),
            authority: target.host(None).map(text),
            host: head.host().map(text),
            body: body.data.into(),
            sent,
            path: text(&[target_sent.0, target_sent.1].concat()),
        })
    }

    /// Replaces, in the bytes it was read from, what hyper refuses on purpose where this proxy does not:
    ///
    /// - Characters in a target that RFC 3986 does not have and that clients send raw. Servers and proxies take them, and
    ///   none of them ends a target, so all read the same request ([`crate::proxy::syntax::is_target_byte`]).
    /// - A minor version above 1, which RFC 9110 section 2.5 has a server treat as 1.
    fn translate(&self, bytes: &mut [u8]) {
        let mut in_query = false;
        for byte in &mut bytes[self.target.clone()] {
            in_query |= *byte == b'?';
            if is_raw(*byte, in_query) {
                *byte = b'_';
            }
        }
        bytes[self.minor] = bytes[self.minor].min(b'1');
    }

    /// Asserts that `their` is this request, and that hyper reads it in what goes on.
    fn is_their(&self, their: &Message, shown: &impl Fn() -> String) {
        assert_eq!(their.body, self.body, "the body: {}", shown());
        let path = if self.path == "*" && self.authority.is_some() { "/" } else { &self.path };
        assert_eq!(their.start, format!("{} {path}", self.method), "{}", shown());
        assert_eq!(their.authority, self.authority, "{}", shown());
        let mut expected = end_to_end(&their.fields);
        let host = self.authority.as_deref().or(self.host.as_deref()).unwrap_or(DEFAULT_HOST);
        for ((forwarded, other), sent) in WAYS.iter().zip(&self.sent) {
            let host = if other.is_empty() { host } else { other };
            expected.insert("host", HeaderValue::from_bytes(host.as_bytes()).expect("a host"));
            let (found, orderly) = hyper::requests(&[&sent[..], NEXT].concat(), FORWARDED.len());
            let shown = || format!("sent on {}\nfor {}\nread as {found:#?}", sent.escape_ascii(), shown());
            assert!(orderly && found.len() == 2 && found[1].start == "GET /next", "not one request: {}", shown());
            assert_eq!(found[0].start, format!("{} {}", self.method, self.path), "{}", shown());
            assert_eq!((&found[0].authority, &found[0].body), (&None, &self.body), "{}", shown());
            assert_eq!(found[0].trailers, passing(&their.trailers), "{}", shown());
            let mut fields = end_to_end(&found[0].fields);
            if *forwarded == Forwarded::Append {
                take_forwarded(&mut fields, &their.fields, &shown);
                let mut rest = expected.clone();
                FORWARDED.iter().for_each(|name| drop(rest.remove(*name)));
                assert_eq!(fields, rest, "{}", shown());
            } else {
                assert_eq!(fields, expected, "{}", shown());
            }
        }
    }
}

/// Those of a message's trailers that go on.
pub(super) fn passing(trailers: &HeaderMap) -> HeaderMap {
    let means_much = |name: &&HeaderName| !NO_TRAILERS.contains(&name.as_str());
    let mut passed = HeaderMap::new();
    for name in trailers.keys().filter(means_much) {
        for value in trailers.get_all(name) {
            passed.append(name, value.clone());
        }
    }
    passed
}

/// Whether a request is for a replica: `client.rs` answers the others.
pub(super) fn goes_on(head: &RequestHead<'_>) -> bool {
    let target = Target::new(head.target());
    let is_path = target.path.starts_with(b"/") || target.authority.is_some();
    let is_all = target.path == b"*" && head.method() == b"OPTIONS";
    head.method() != b"CONNECT" && !head.fields.probe && (is_path || is_all)
}

/// Fields that say for whom a request is made.
pub(super) const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Takes from `fields` what says for whom the request is made, and asserts that it is what the client said and one more.
fn take_forwarded(fields: &mut HeaderMap, theirs: &HeaderMap, shown: &impl Fn() -> String) {
    let client = std::net::IpAddr::from(CLIENT).to_string();
    for name in FORWARDED {
        let before: Vec<&[u8]> = theirs.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let after: Vec<&[u8]> = fields.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if name.ends_with("for") || name == "forwarded" {
            let [after] = after[..] else { panic!("one list of {name}: {}", shown()) };
            let list = [before.join(&b", "[..]), if before.is_empty() { vec![] } else { b", ".to_vec() }].concat();
            let own = after.strip_prefix(&list[..]).unwrap_or_else(|| panic!("{name} was changed: {}", shown()));
            let expected = if name == "forwarded" { format!("for={client};proto=http") } else { client.clone() };
            assert!(own.starts_with(expected.as_bytes()), "{name}: {}", shown());
        } else {
            assert!(after == before || (before.is_empty() && after.len() == 1), "{name}: {}", shown());
        }
        fields.remove(name);
    }
}

/// Whether a target may have this byte here, and not with hyper.
fn is_raw(byte: u8, in_query: bool) -> bool {
    matches!((byte, in_query), (b'<' | b'>', _) | (b'`', false) | (b'"', true))
}
