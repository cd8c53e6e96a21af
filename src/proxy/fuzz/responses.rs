//! Responses: what is accepted against hyper reading the same bytes, and what the client gets read again by hyper.

use super::body::Body;
use super::hyper;
use super::message::end_to_end;
use super::requests::passing;
use crate::proxy::fields::Framing;
use crate::proxy::head::{empty_lines, end_of_head};
use crate::proxy::response::{self, Delivery, ResponseHead};
use ::bytes::Bytes;
use ::hyper::header::{HeaderName, HeaderValue};
use ::hyper::{HeaderMap, Method};
use std::ops::Range;

/// As many as a request may bring ([`crate::proxy::attempt`]).
const MAX_INTERIM: usize = 32;

/// Fields that replicas write as lists.
const LISTS: [&[u8]; 2] = [b"transfer-encoding", b"content-length"];

/// A response that shows where the one before it ended.
const NEXT: &[u8] = b"HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n";

/// A replica's bytes as the response to a GET and to a HEAD: it is what hyper reads there, and hyper reads the same in what
/// each kind of client gets. True if it is accepted.
pub fn response(bytes: &[u8]) -> bool {
    let get = answers(bytes, &Method::GET);
    let head = answers(bytes, &Method::HEAD);
    get || head
}

fn answers(bytes: &[u8], method: &Method) -> bool {
    let Some(response) = Accepted::read(bytes, method == Method::HEAD) else { return false };
    let theirs = hyper::responses(method, &[&plain(bytes)], true);
    let shown = || format!("{method}: {}\nours {response:#?}\nhyper's {theirs:#?}", bytes.escape_ascii());
    let [their] = &theirs[..] else { panic!("hyper refuses what is accepted: {}", shown()) };
    assert_eq!(their.start, response.status.to_string(), "{}", shown());
    assert_eq!(their.body, response.body, "{}", shown());
    let mut expected = end_to_end(&their.fields);
    if response.status == 204 {
        expected.remove("content-length");
    }
    // Said more than once, it is said once to the client (RFC 9112 section 6.3).
    if let Some(length) = expected.get("content-length").cloned() {
        let first = length.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find(|one| !one.is_empty());
        let first = HeaderValue::from_bytes(first.unwrap_or_default()).expect("a length");
        expected.insert("content-length", first);
    }
    for Sent { keeps, http_1_0, bytes: sent } in &response.sent {
        let parts: &[&[u8]] = if *keeps { &[sent, NEXT] } else { &[sent] };
        let found = hyper::responses(method, parts, false);
        let shown = || format!("sent on {}\nfor {}\nread as {found:#?}", sent.escape_ascii(), shown());
        assert_eq!(found.len(), parts.len(), "not one response: {}", shown());
        assert_eq!(found[0].start, their.start, "{}", shown());
        assert_eq!(found[0].body, response.body, "{}", shown());
        // Who knows no chunks gets none.
        let trailers = if *http_1_0 { HeaderMap::new() } else { passing(&their.trailers) };
        assert_eq!(found[0].trailers, trailers, "{}", shown());
        assert_eq!(spaced(&end_to_end(&found[0].fields)), spaced(&expected), "{}", shown());
        assert!(!http_1_0 || !found[0].fields.contains_key("transfer-encoding"), "chunks to 1.0: {}", shown());
        if let [_, next] = &found[..] {
            assert_eq!(next.start, "299", "{}", shown());
        }
    }
    true
}

/// A replica's bytes without what hyper reads otherwise on purpose in responses that are accepted.
pub(super) fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    if let Some(response) = Accepted::read(bytes, true).or_else(|| Accepted::read(bytes, false)) {
        response.translate(&mut plain);
    }
    plain
}

/// A response that is accepted, whole.
#[derive(Debug)]
struct Accepted {
    status: u16,
    body: Bytes,
    /// Where its head is, and those of interim responses before it.
    heads: Vec<Range<usize>>,
    /// What clients get.
    sent: Vec<Sent>,
}

/// What a client gets.
#[derive(Debug)]
struct Sent {
    /// Another request may follow.
    keeps: bool,
    http_1_0: bool,
    bytes: Bytes,
}

impl Accepted {
    /// The response that `bytes` begin with, if it is accepted and whole: as `attempt.rs` does it.
    fn read(bytes: &[u8], to_head: bool) -> Option<Accepted> {
        let (mut at, mut heads, mut before) = (0, vec![], vec![]);
        loop {
            at += empty_lines(&bytes[at..]);
            let rest = &bytes[at..];
            let status = response::status(rest).ok()??;
            let length = end_of_head(rest, 0)?;
            let head = ResponseHead::read(&rest[..length], status, to_head).ok()?;
            heads.push(at..at + length);
            at += length;
            if status == 101 || heads.len() > MAX_INTERIM {
                return None;
            }
            if status < 200 {
                head.write(Delivery { chunked: false, connection: None, http_1_0: false }, &mut before);
                continue;
            }
            let rest = &bytes[at..];
            let body = Body::read(head.framing(), rest)?;
            let mut sent = vec![];
            for (http_1_0, wants) in [(false, true), (false, false), (true, true), (true, false)] {
                let delivery = head.delivery(http_1_0, wants);
                let mut out = if http_1_0 { vec![] } else { before.clone() };
                head.write(delivery, &mut out);
                let chunked = delivery.chunked;
                body.write(chunked, if head.framing() == Framing::Chunked { rest } else { b"" }, &mut out);
                let keeps = delivery.keeps_client();
                assert!(wants || !keeps, "kept for a client that leaves");
                sent.push(Sent { keeps, http_1_0, bytes: out.into() });
            }
            return Some(Accepted { status, body: body.data.into(), heads, sent });
        }
    }

    /// Replaces, in the bytes it was read from, what hyper does not read as this proxy does:
    ///
    /// - A minor version above 1, which RFC 9110 section 2.5 has a client treat as 1.
    /// - A list where one value is meant: `chunked` or a length beside elements that are not there (RFC 9110 section 5.6.1), or
    ///   a length said again (RFC 9112 section 6.3). The client gets the one value.
    fn translate(&self, bytes: &mut [u8]) {
        for head in &self.heads {
            let head = &mut bytes[head.clone()];
            let minor = "HTTP/1.".len();
            head[minor] = head[minor].min(b'1');
            for line in head.split_mut(|byte| *byte == b'\n') {
                let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
                let (name, value) = line.split_at_mut(colon);
                if LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) {
                    one(&mut value[1..]);
                }
            }
        }
    }
}

/// Leaves the first element of a list alone in its place.
fn one(value: &mut [u8]) {
    let is_between = |byte: &u8| matches!(byte, b',' | b' ' | b'\t' | b'\r');
    let start = value.iter().position(|byte| !is_between(byte)).unwrap_or(value.len());
    let end = value[start..].iter().position(is_between).map_or(value.len(), |at| start + at);
    value[..start].fill(b' ');
    value[end..].iter_mut().filter(|byte| **byte != b'\r').for_each(|byte| *byte = b' ');
}

/// The fields with each run of white space as one space and lengths as numbers: what stands for a folded line is left to
/// whoever unfolds it (RFC 9112 section 5.2).
fn spaced(fields: &HeaderMap) -> Vec<(String, Vec<Vec<u8>>)> {
    let words = |value: &HeaderValue| {
        let words = value.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(&b' ')
    };
    let number = |value: &Vec<u8>| String::from_utf8_lossy(value).parse::<u64>().ok();
    let plain = |name: &HeaderName, value: &HeaderValue| match number(&words(value)) {
        Some(length) if name == "content-length" => length.to_string().into_bytes(),
        _ => words(value),
    };
    let values = |name| fields.get_all(name).iter().map(|value| plain(name, value)).collect();
    let mut all: Vec<_> = fields.keys().map(|name| (name.to_string(), values(name))).collect();
    all.sort();
    all
}
