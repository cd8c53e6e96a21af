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
    loop {
        let ahead = reader.ahead();
        if !ahead.is_empty() {
            guard.feed(&ahead[guard.length()..]).map_err(HeadError::Refused)?;
            match (parse_request(ahead)?, guard.whole()) {
                (Some(length), Some(whole)) if length == whole => return Ok(length),
                (None, None) => {}
                // Two readers that disagree on where a head ends: what smuggling is made of.
                _ => return Err(HeadError::Alien),
            }
        }
        fill(reader).await?;
    }
}

/// Reads a response's head of at most `max_head` bytes and leaves it ahead. Gives its length and status.
pub(super) async fn read_response(reader: &mut Reader, max_head: usize) -> Result<(usize, u16), HeadError> {
    loop {
        let ahead = reader.ahead();
        let head = if ahead.is_empty() { None } else { parse_response(ahead)? };
        if head.map_or(ahead.len(), |(length, _)| length) > max_head {
            return Err(HeadError::Refused(Refusal::HeadTooLong));
        }
        if let Some(head) = head {
            return Ok(head);
        }
        fill(reader).await?;
    }
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
    fn a_request_is_forgiven_nothing() {
        assert_eq!(parse_request(b"GET / HTTP/1.1\r\nA: 1\r\n\r\nbody"), Ok(Some(24)));
        for head in ["A : 1", "A: 1\r\n 2", "A: 1\0", "A: 1\r2", "A"] {
            let whole = format!("GET / HTTP/1.1\r\n{head}\r\n\r\n");
            assert!(parse_request(whole.as_bytes()).is_err(), "{head:?}");
        }
    }
}
