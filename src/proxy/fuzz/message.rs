//! A message as a reader understands it, and what of it goes on past a proxy.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderName;

/// A message as a reader understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Method and path, or the status.
    pub(super) start: String,
    /// Of a target that is a whole URL.
    pub(super) authority: Option<String>,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// Never passed on, whether `Connection` names them or not (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Passed on although `Connection` names them.
const NEEDED: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "authorization",
    "cookie",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

/// Whether a field goes on past a proxy; `named`: the options of `Connection`, in lower case. `close` is what a proxy says
/// itself there; it names no field.
pub(super) fn goes_on(name: &[u8], named: &[Vec<u8>]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    !HOP_BY_HOP.into_iter().any(is)
        && (NEEDED.into_iter().any(is) || is("close") || !named.contains(&name.to_ascii_lowercase()))
}

/// The options of a `Connection` field, in lower case.
pub(super) fn options(value: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    value.split(|byte| *byte == b',').map(|option| option.trim_ascii().to_ascii_lowercase())
}

/// The fields that go on past a proxy.
pub(super) fn end_to_end(fields: &HeaderMap) -> HeaderMap {
    let named: Vec<Vec<u8>> = fields.get_all("connection").iter().flat_map(|value| options(value.as_bytes())).collect();
    let stays = |name: &&HeaderName| goes_on(name.as_str().as_bytes(), &named);
    let mut passed = HeaderMap::new();
    for name in fields.keys().filter(stays) {
        for value in fields.get_all(name) {
            passed.append(name, value.clone());
        }
    }
    passed
}
