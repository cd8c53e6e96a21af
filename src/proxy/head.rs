//! A head on its way in: read until it is whole, well-formed and within its limit.
//!
//! `httparse` says what is well-formed, as it does in pingora's sessions; what the lines mean is read in one pass of our
//! own ([`super::fields`]). So no map of fields is built that nobody would look into.

use super::guard::{Guard, MAX_LINES, Refusal};
use super::socket::Reader;
use httparse::{Error, Header, ParserConfig, Request, Response, Status};
use std::mem::MaybeUninit;

/// One read of a head; what comes behind it is its body's or the next message's. Nearly every request and many a response
/// fits whole.
pub(super) const HEAD_READ: usize = 8 * 1024;

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The connection ended before.
    Broken,
    /// It breaks a rule of ours.
    Refused(Refusal),
    /// It is no head of HTTP/1.
    Alien,
}

impl From<Error> for HeadError {
    fn from(_: Error) -> Self {
        HeadError::Alien
    }
}

/// Reads a request's head and leaves it ahead. Gives its length.
pub(super) async fn read_request(reader: &mut Reader, mut guard: Guard) -> Result<usize, HeadError> {
    let mut again = Again::default();
    loop {
        let ahead = reader.ahead();
        if !ahead.is_empty() {
            guard.feed(&ahead[guard.length()..]).map_err(HeadError::Refused)?;
            if again.is_due(ahead.len(), guard.whole().is_some()) {
                match (parse_request(ahead)?, guard.whole()) {
                    (Some(length), Some(whole)) if length == whole => return Ok(length),
                    (None, None) => {}
                    // Two readers that disagree on where a head ends: what smuggling is made of.
                    _ => return Err(HeadError::Alien),
                }
            }
        }
        fill(reader).await?;
    }
}

/// Reads a response's head of at most `max_head` bytes and leaves it ahead. Gives its length and status.
pub(super) async fn read_response(reader: &mut Reader, max_head: usize) -> Result<(usize, u16), HeadError> {
    let mut again = Again::default();
    let mut seen = 0;
    loop {
        let ahead = reader.ahead();
        let due = !ahead.is_empty() && again.is_due(ahead.len(), has_empty_line(ahead, seen));
        let head = if due { parse_response(ahead)? } else { None };
        if head.map_or(ahead.len(), |(length, _)| length) > max_head {
            return Err(HeadError::Refused(Refusal::HeadTooLong));
        }
        if let Some(head) = head {
            return Ok(head);
        }
        seen = ahead.len();
        fill(reader).await?;
    }
}

/// When a head that is not whole is looked at again: what is wrong with it is best known soon, but a head that comes byte
/// by byte is not to be parsed for each of them.
#[derive(Debug, Default)]
struct Again {
    /// With so many bytes.
    next: usize,
}

impl Again {
    fn is_due(&mut self, length: usize, whole: bool) -> bool {
        let due = whole || length >= self.next;
        if due {
            self.next = length * 2;
        }
        due
    }
}

/// Whether an empty line, which ends a head, ends behind the `seen` bytes.
fn has_empty_line(bytes: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(2);
    memchr::memchr_iter(b'\n', &bytes[from..]).any(|at| {
        let before = &bytes[..from + at];
        before.ends_with(b"\n") || before.ends_with(b"\n\r")
    })
}

async fn fill(reader: &mut Reader) -> Result<(), HeadError> {
    match reader.fill(HEAD_READ).await {
        Ok(0) | Err(_) => Err(HeadError::Broken),
        Ok(_) => Ok(()),
    }
}

/// The length of the head that `bytes` begin with, if it is whole.
fn parse_request(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let mut lines: [MaybeUninit<Header<'_>>; MAX_LINES] = [const { MaybeUninit::uninit() }; MAX_LINES];
    let status = Request::new(&mut []).parse_with_uninit_headers(bytes, &mut lines)?;
    Ok(match status {
        Status::Complete(length) => Some(length),
        Status::Partial => None,
    })
}

/// The length and the status of the head that `bytes` begin with, if it is whole. What servers get wrong and nobody can
/// misread is forgiven: space before a colon, folded lines.
fn parse_response(bytes: &[u8]) -> Result<Option<(usize, u16)>, Error> {
    let mut lines: [MaybeUninit<Header<'_>>; MAX_LINES] = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut response = Response::new(&mut []);
    let mut parser = ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    Ok(match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut lines)? {
        Status::Complete(length) => {
            // Three digits, but there is nothing below 100.
            let status = response.code.filter(|code| *code >= 100).ok_or(Error::Status)?;
            Some((length, status))
        }
        Status::Partial => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_forgiven_what_cannot_be_misread() {
        for head in ["HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", "HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n", "HTTP/1.0 200\n\n"] {
            assert_eq!(parse_response(head.as_bytes()), Ok(Some((head.len(), 200))), "{head:?}");
        }
        assert_eq!(parse_response(b"HTTP/1.1 200 OK\r\nA: 1\r\n"), Ok(None));
        for head in ["HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "SSH-2.0-x\r\n"] {
            assert!(parse_response(head.as_bytes()).is_err(), "{head:?}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        for head in ["HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", "HTTP/1.1 200 OK\nA: 1\n\n", "HTTP/1.1 200 OK\r\nA: 1\n\r\n"] {
            for cut in 0..head.len() {
                assert!(!has_empty_line(&head.as_bytes()[..cut], 0), "{head:?} up to {cut}");
                assert!(has_empty_line(head.as_bytes(), cut), "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_request_is_forgiven_nothing() {
        assert_eq!(parse_request(b"GET / HTTP/1.1\r\nA: 1\r\n\r\nbody"), Ok(Some(24)));
        for head in ["A : 1", "A: 1\r\n 2", "A: 1\0", "A: 1\r2", "A"] {
            let whole = format!("GET / HTTP/1.1\r\n{head}\r\n\r\n");
            assert!(parse_request(whole.as_bytes()).is_err(), "{head:?}");
        }
    }
}
