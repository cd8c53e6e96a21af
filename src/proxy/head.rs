//! A head on its way in: read until it is whole and within its limits, and left where it lies.
//!
//! What its lines mean is read in one pass once it is whole ([`super::request`], [`super::response`]). No map of fields is
//! built that nobody would look into.

use super::guard::{Guard, Refusal};
use super::memory::{Full, Holding};
use super::response;
use super::socket::Reader;
use std::io;

/// One read of a head; what comes behind it is its body's or the next message's. Nearly every request and many a response
/// fits whole.
pub(super) const HEAD_READ: usize = 8 * 1024;

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The connection ended before.
    Broken,
    /// The peer's host has acknowledged nothing for so long that the kernel gave it up.
    Lost,
    /// It breaks a rule of ours.
    Refused(Refusal),
    /// It is no head of HTTP/1.
    Alien,
    /// There is no memory for it.
    NoMemory,
}

/// Reads a request's head and leaves it ahead. Gives its length. What it holds of it is told to `holding`.
pub(super) async fn read_request(
    reader: &mut Reader,
    mut guard: Guard,
    holding: &mut Holding<'_>,
) -> Result<usize, HeadError> {
    loop {
        let ahead = reader.ahead();
        guard.feed(&ahead[guard.length()..]).map_err(HeadError::Refused)?;
        if let Some(length) = guard.whole() {
            return Ok(length);
        }
        holding.set(reader.held()).map_err(|Full| HeadError::NoMemory)?;
        fill(reader).await?;
    }
}

/// Reads a response's head of at most `max_head` bytes and leaves it ahead. Gives its length and status.
pub(super) async fn read_response(reader: &mut Reader, max_head: usize) -> Result<(usize, u16), HeadError> {
    let mut left = max_head;
    let mut seen = 0;
    loop {
        // Some servers end the body before with a CRLF too many. Clients and HAProxy skip it.
        let empty = empty_lines(reader.ahead());
        reader.consume(empty);
        left = left.saturating_sub(empty);
        let ahead = reader.ahead();
        let status = response::status(ahead).map_err(|_| HeadError::Alien)?;
        let end = end_of_head(ahead, seen);
        if end.unwrap_or(ahead.len()) > left {
            return Err(HeadError::Refused(Refusal::HeadTooLong));
        }
        if let (Some(length), Some(status)) = (end, status) {
            return Ok((length, status));
        }
        seen = ahead.len();
        fill(reader).await?;
    }
}

/// The length of the line ends that `bytes` begin with.
pub(super) fn empty_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\n', ..] => at += 1,
            _ => return at,
        }
    }
}

/// Where the empty line ends that ends a head and that was not whole in the first `seen` bytes. A line may end in a bare
/// LF, which is mended later.
pub(super) fn end_of_head(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(2);
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at).find_map(|at| {
        let before = &bytes[..at];
        (before.ends_with(b"\n") || before.ends_with(b"\n\r")).then_some(at + 1)
    })
}

async fn fill(reader: &mut Reader) -> Result<(), HeadError> {
    match reader.fill(HEAD_READ).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(HeadError::Lost),
        Ok(0) | Err(_) => Err(HeadError::Broken),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        for head in ["HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", "HTTP/1.1 200 OK\nA: 1\n\n", "HTTP/1.1 200 OK\r\nA: 1\n\r\n"] {
            let all = format!("{head}\r\n\r\nbody");
            for cut in 0..head.len() {
                assert_eq!(end_of_head(&head.as_bytes()[..cut], 0), None, "{head:?} up to {cut}");
                assert_eq!(end_of_head(all.as_bytes(), cut), Some(head.len()), "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn line_ends_before_a_response_are_none_of_it() {
        for (bytes, expected) in [("", 0), ("HTTP", 0), ("\r", 0), ("\r\n", 2), ("\n\r\nHTTP", 3), ("\r\r\n", 0)] {
            assert_eq!(empty_lines(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }
}
