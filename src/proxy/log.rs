//! What the log says of a request.
//!
//! A query may hold secrets (tokens, signed URLs, personal data), and so may a URL's user information, so neither is
//! shown unless `log_query` asks for the query.

use super::answer::Problem;
use super::exchange::Attempts;
use super::request::RequestHead;
use crate::config::{self, AccessLog};
use crate::worker;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::Level;

/// Bytes of a target, and of any other part of a head, that the log shows.
const LOGGED: usize = 200;

/// A part of a head, cut to a sane length.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LOGGED)]).into_owned()
}

/// A request's target, with its query if the operator wants it.
pub(super) fn target(target: &[u8], log_query: bool) -> String {
    let mut text = Vec::new();
    push_target(&mut text, target, log_query);
    String::from_utf8_lossy(&text).into_owned()
}

/// The same behind `text`, byte by byte.
pub(super) fn push_target(text: &mut Vec<u8>, target: &[u8], log_query: bool) {
    let query = memchr::memchr(b'?', target).filter(|_| !log_query);
    let shown = &target[..query.unwrap_or(target.len())];
    let mut room = LOGGED;
    let mut push = |part: &[u8]| {
        let part = &part[..part.len().min(room)];
        room -= part.len();
        text.extend_from_slice(part);
    };
    // Most targets have no colon, and the search for three bytes costs more to begin.
    let colon = memchr::memchr(b':', shown);
    let authority = colon.and_then(|_| memchr::memmem::find(shown, b"://")).map(|at| at + 3);
    match authority {
        Some(start) => {
            let end = memchr::memchr(b'/', &shown[start..]).map_or(shown.len(), |length| start + length);
            let host = memchr::memrchr(b'@', &shown[start..end]).map_or(start, |at| start + at + 1);
            push(&shown[..start]);
            push(&shown[host..]);
        }
        None => push(shown),
    }
    if query.is_some() {
        text.extend_from_slice("?…".as_bytes());
    }
}

/// One line for each request that `access_log` wants, or for all with `RUST_LOG=debug`. Costs a look at two flags where both are
/// off. `status` is 0 where the client got no answer.
pub(super) fn request(
    upstream: &str,
    client: SocketAddr,
    head: &RequestHead<'_>,
    limits: &config::Server,
    status: u16,
    took: Duration,
    attempts: &Attempts,
) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                upstream,
                id = attempts.trail.name(),
                endpoint = attempts.replica.map(tracing::field::display),
                status,
                ?took,
                waited = ?attempts.waited,
                attempts = attempts.made,
                failed = (!attempts.endpoints.is_empty()).then(|| tracing::field::debug(&attempts.endpoints)),
                %client,
                method = excerpt(head.method()),
                target = target(head.target(), limits.log_query),
                traceparent = head.traceparent().map(excerpt),
                "request"
            )
        };
    }
    if limits.access_log.wants(took, || worker::with_rng(|rng| rng.u32(..))) {
        line!(info);
    } else if tracing::enabled!(Level::DEBUG) {
        line!(debug);
    }
}

/// One line for a request that went to no upstream, where all requests have one.
pub(super) fn turned_away(client: SocketAddr, problem: &Problem, limits: &config::Server) {
    let (status, reason, text) = (problem.status(), problem.token(), problem.text());
    if limits.access_log == AccessLog::All {
        tracing::info!(%client, status, reason, "request refused: {text}");
    } else {
        tracing::debug!(%client, status, reason, "request refused: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D21, P14
    #[test]
    fn a_target_is_shown_without_its_query_unless_it_is_asked_for() {
        let shown = |raw: &str, log_query| target(raw.as_bytes(), log_query);
        assert_eq!(shown("/ping?token=s3cret", false), "/ping?…");
        assert_eq!(shown("/ping?token=s3cret", true), "/ping?token=s3cret");
        assert_eq!(shown("/ping", false), "/ping");
        assert_eq!(shown("/?", false), "/?…");
        assert_eq!(shown("http://me:s3cret@app.test/a@b?c", false), "http://app.test/a@b?…");
        assert_eq!(shown("http://me:s3cret@app.test", true), "http://app.test");
        assert_eq!(shown("*", false), "*");
        assert_eq!(shown(&format!("/{}?x", "a".repeat(300)), false).chars().count(), LOGGED + 2);
    }
}
