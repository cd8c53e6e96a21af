//! A response's head: how its body is delimited, and what the client gets to read of it.

use super::fields::{Delimiter, Fault, Fields, Framing};
use super::mend::mended;
use super::syntax::is_text;
use std::borrow::Cow;

/// A replica's response head: as it came, or mended.
#[derive(Debug)]
pub(super) struct ResponseHead<'a> {
    raw: Cow<'a, [u8]>,
    minor: u8,
    status: u16,
    /// It answers a HEAD: the fields are those of the response that a GET would have had.
    to_head: bool,
    pub(super) fields: Fields,
    framing: Framing,
}

/// Room for what a head gains on its way, so that it is written without growing.
const ADDED: usize = 64;

/// How the response goes on to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The body in chunks of ours (the client understands them, and the replica gave no length).
    pub(super) chunked: bool,
    /// What `Connection` says: nothing, `close`, or `keep-alive` to a client of HTTP/1.0.
    pub(super) connection: Option<&'static str>,
    /// The client knows no chunks, and is told of none.
    pub(super) http_1_0: bool,
}

impl Delivery {
    /// Whether another request of this client's may follow.
    pub(super) fn keeps_client(&self) -> bool {
        self.connection != Some("close")
    }
}

/// Where the status code is in a status line.
const STATUS: std::ops::Range<usize> = 9..12;

/// The status of the response that `bytes` begin with, once its line is whole.
pub(super) fn status(bytes: &[u8]) -> Result<Option<u16>, Fault> {
    const VERSION: &[u8] = b"HTTP/1.";
    let known = bytes.len().min(VERSION.len());
    // A CR alone may yet be an empty line.
    if bytes[..known] != VERSION[..known] && bytes != b"\r" {
        return Err(Fault::Shape);
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let (_, status) = status_line(bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end])).ok_or(Fault::Shape)?;
    Ok(Some(status))
}

/// Minor version and status of a status line (RFC 9112 section 4).
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let minor = match line.get(..STATUS.start)? {
        b"HTTP/1.0 " => 0,
        // A later minor version is 1.1 and something that may be ignored (RFC 9110 section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9', b' '] => 1,
        _ => return None,
    };
    let digits = line.get(STATUS)?;
    let reason = &line[STATUS.end..];
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(reason, [] | [b' ', ..]) || !is_text(reason) {
        return None;
    }
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    // Three digits, but there is nothing below 100.
    (status >= 100).then_some((minor, status))
}

impl<'a> ResponseHead<'a> {
    /// Reads a whole head of HTTP/1. `to_head`: it answers a HEAD.
    pub(super) fn read(raw: &'a [u8], status: u16, to_head: bool) -> Result<ResponseHead<'a>, Fault> {
        ResponseHead::read_as(raw, status, to_head, Delimiter::Fields)
    }

    /// Reads a whole head, whose body ends as `delimiter` has it.
    pub(super) fn read_as(
        raw: &'a [u8],
        status: u16,
        to_head: bool,
        delimiter: Delimiter,
    ) -> Result<ResponseHead<'a>, Fault> {
        ResponseHead::read_strictly(Cow::Borrowed(raw), status, to_head, delimiter)
            .or_else(|_| ResponseHead::read_strictly(Cow::Owned(mended(raw)?), status, to_head, delimiter))
    }

    fn read_strictly(
        raw: Cow<'a, [u8]>,
        status: u16,
        to_head: bool,
        delimiter: Delimiter,
    ) -> Result<ResponseHead<'a>, Fault> {
        let end = memchr::memchr(b'\n', &raw).ok_or(Fault::Shape)?;
        let line = raw[..end].strip_suffix(b"\r").ok_or(Fault::Shape)?;
        let (minor, _) = status_line(line).ok_or(Fault::Shape)?;
        let mut fields = Fields::read(&raw, end + 1)?;
        let framing = match status {
            _ if to_head || is_bodiless(status) => Framing::Empty,
            _ if delimiter == (Delimiter::Stream { ended: true }) => Framing::Empty,
            _ if delimiter == (Delimiter::Stream { ended: false }) && fields.length.is_none() => Framing::Chunked,
            _ if fields.chunked && minor == 0 => return Err(Fault::Encoding),
            _ if fields.chunked => Framing::Chunked,
            _ => fields.length.map_or(Framing::ToClose, Framing::Length),
        };
        // They never have a body, and a client that is told of one waits for it (RFC 9110 section 8.6, RFC 9112 section 6.1).
        // A 304 may say how long the response would be that it stands for.
        if matches!(status, 100..=199 | 204) {
            fields.drop_length();
        }
        Ok(ResponseHead { raw, minor, status, to_head: to_head && !is_bodiless(status), fields, framing })
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the replica keeps the connection after this response.
    pub(super) fn keeps_alive(&self) -> bool {
        let wants = if self.minor == 0 { self.fields.keep_alive && !self.fields.close } else { !self.fields.close };
        wants && self.framing != Framing::ToClose && !(self.framing == Framing::Empty && self.announces_body())
    }

    /// Whether its fields speak of a body. A server that does so where none may be has been seen to send it, and whatever
    /// it sent would be taken for the next response.
    fn announces_body(&self) -> bool {
        self.fields.chunked || self.fields.length.is_some_and(|length| length > 0)
    }

    /// How the response goes on to a client, of HTTP/1.0 or later. `keep`: its connection may be kept.
    pub(super) fn delivery(&self, http_1_0: bool, keep: bool) -> Delivery {
        let unmeasured = matches!(self.framing, Framing::Chunked | Framing::ToClose);
        // Without a length, and in no chunks, the body ends where the connection does.
        let keep = keep && !(http_1_0 && unmeasured);
        let connection = match (keep, http_1_0) {
            (false, _) => Some("close"),
            (true, true) => Some("keep-alive"),
            (true, false) => None,
        };
        Delivery { chunked: !http_1_0 && unmeasured, connection, http_1_0 }
    }

    /// The head as the client gets it.
    pub(super) fn write(&self, delivery: Delivery, out: &mut Vec<u8>) {
        // A HEAD is answered with the fields of the GET, and says chunked where that would.
        self.write_start(delivery.chunked || (self.to_head && !delivery.http_1_0), out);
        if delivery.chunked && !self.fields.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        // A replica of HTTP/2 says by the end of its stream that there is no body.
        if self.framing == Framing::Empty && self.fields.length.is_none() && !self.to_head && !is_bodiless(self.status)
        {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        // What the client is to upgrade to (RFC 9110 section 15.5.22).
        let upgrades = self.status == 426 && self.fields.upgrade;
        if upgrades {
            for value in self.fields.values(&self.raw, "upgrade") {
                out.extend_from_slice(b"Upgrade: ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
        let options = [delivery.connection, upgrades.then_some("Upgrade")];
        let mut before: &[u8] = b"Connection: ";
        for option in options.iter().flatten() {
            out.extend_from_slice(before);
            out.extend_from_slice(option.as_bytes());
            before = b", ";
        }
        if before == b", " {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The status and the fields that a client of HTTP/2 gets, in lines.
    pub(super) fn write_lines(&self, out: &mut Vec<u8>) {
        self.fields.write(&self.raw, false, out);
    }

    /// The head of a switch to another protocol, which is the only one that is offered to replicas.
    pub(super) fn write_upgrade(&self, out: &mut Vec<u8>) {
        self.write_start(false, out);
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    }

    fn write_start(&self, keep_encoding: bool, out: &mut Vec<u8>) {
        let end = memchr::memchr(b'\n', &self.raw).unwrap_or(self.raw.len());
        let rest = self.raw[STATUS.start..end].trim_ascii_end();
        out.reserve(self.raw.len() + ADDED);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(rest);
        if rest.len() == STATUS.len() {
            // The space belongs to the status line even where the reason is empty (RFC 9112 section 4).
            out.push(b' ');
        }
        out.extend_from_slice(b"\r\n");
        self.fields.write(&self.raw, keep_encoding, out);
    }
}

/// Whether a response of this status never has a body.
fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &'static str, status: u16, no_body: bool) -> Result<ResponseHead<'static>, Fault> {
        ResponseHead::read(head.as_bytes(), status, no_body)
    }

    fn written(head: &ResponseHead, chunked: bool, connection: Option<&'static str>) -> String {
        let mut out = Vec::new();
        head.write(Delivery { chunked, connection, http_1_0: false }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn date_server_and_case_pass_untouched() {
        let head = "HTTP/1.1 424 Failed Dependency\r\nserver: gunicorn\r\nDATE: x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(written(&read(head, 424, false).unwrap(), false, None), head);
    }

    #[test]
    fn a_body_that_ends_with_the_connection_is_chunked_for_those_who_understand() {
        let head = read("HTTP/1.0 200 OK\r\nA: 1\r\n\r\n", 200, false).unwrap();
        assert_eq!(head.framing(), Framing::ToClose);
        assert!(!head.keeps_alive());
        assert!(head.delivery(false, true).chunked && !head.delivery(true, true).chunked);
        assert_eq!(written(&head, true, None), "HTTP/1.1 200 OK\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[test]
    fn head_answers_keep_the_fields_of_the_get() {
        let head = read("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", 200, true).unwrap();
        assert_eq!(head.framing(), Framing::Empty);
        assert_eq!(
            written(&head, false, Some("close")),
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        let mut out = Vec::new();
        head.write(Delivery { chunked: false, connection: None, http_1_0: true }, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "HTTP/1.1 200 \r\n\r\n");
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(both, 200, false).unwrap_err(), Fault::LengthAndEncoding);
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old, 200, false).unwrap_err(), Fault::Encoding);
    }

    // H7
    #[test]
    fn what_has_no_body_does_not_speak_of_one() {
        for status in [100, 103, 204, 304] {
            for (framing, kept) in
                [("Transfer-Encoding: chunked\r\n", ""), ("Content-Length: 5\r\n", "Content-Length: 5\r\n")]
            {
                for to_head in [false, true] {
                    let raw = format!("HTTP/1.1 {status} X\r\nA: 1\r\n{framing}B: 2\r\n\r\n");
                    let head = ResponseHead::read(raw.as_bytes(), status, to_head).unwrap();
                    let kept = if status == 304 { kept } else { "" };
                    let expected = format!("HTTP/1.1 {status} X\r\nA: 1\r\n{kept}B: 2\r\n\r\n");
                    assert_eq!(written(&head, false, None), expected);
                    assert_eq!(head.framing(), Framing::Empty);
                    // What it speaks of may follow.
                    assert!(!head.keeps_alive(), "{raw}");
                }
            }
        }
        let head = read("HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", 204, false).unwrap();
        assert!(head.keeps_alive());
    }

    // H9
    #[test]
    fn a_426_says_what_to_upgrade_to() {
        let head =
            "HTTP/1.1 426 X\r\nUpgrade: TLS/1.0\r\nConnection: upgrade\r\nUpgrade: foo\r\nContent-Length: 0\r\n\r\n";
        let head = read(head, 426, false).unwrap();
        let upgrade = "HTTP/1.1 426 X\r\nContent-Length: 0\r\nUpgrade: TLS/1.0\r\nUpgrade: foo\r\n";
        assert_eq!(written(&head, false, None), format!("{upgrade}Connection: Upgrade\r\n\r\n"));
        assert_eq!(written(&head, false, Some("close")), format!("{upgrade}Connection: close, Upgrade\r\n\r\n"));
        let head =
            read("HTTP/1.1 200 X\r\nUpgrade: foo\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", 200, false);
        assert_eq!(written(&head.unwrap(), false, None), "HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n");
    }

    // D9, H6
    #[test]
    fn a_flawed_head_goes_on_mended_or_not_at_all() {
        let head = read("HTTP/1.1 200 OK\nA : 1\n 2\nContent-Length: 5\n\n", 200, false).unwrap();
        assert_eq!(head.framing(), Framing::Length(5));
        assert_eq!(written(&head, false, None), "HTTP/1.1 200 OK\r\nA: 1 2\r\nContent-Length: 5\r\n\r\n");
        let head = read("HTTP/1.0 200\n\n", 200, false).unwrap();
        assert_eq!(written(&head, false, None), "HTTP/1.1 200 \r\n\r\n");
        for (lines, fault) in [
            ("Content-Length : 5", Fault::Space),
            ("A: 1\r\nContent-Length: 5\r\nTransfer-Encoding : chunked", Fault::Space),
            ("A: 1\r2", Fault::Shape),
            ("A: \0", Fault::Shape),
            (": 1", Fault::Shape),
        ] {
            let raw = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
            assert_eq!(ResponseHead::read(raw.as_bytes(), 200, false).unwrap_err(), fault, "{lines:?}");
        }
    }

    #[test]
    fn a_status_line_is_known_as_soon_as_it_can_be() {
        for begin in ["", "H", "HTTP/1.", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r", "\r"] {
            assert_eq!(status(begin.as_bytes()), Ok(None), "{begin:?}");
        }
        for (line, code) in [("HTTP/1.1 200 OK\r\n", 200), ("HTTP/1.0 404\n", 404), ("HTTP/1.2 599 ä\r\nA", 599)] {
            assert_eq!(status(line.as_bytes()), Ok(Some(code)), "{line:?}");
        }
        for line in [
            "X",
            "HTTP/2",
            "SSH-2.0-x",
            "\rH",
            "HTTP/1.1 099 OK\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/2 200 OK\r\n",
            "HTTP/1.1 20\r\n",
            "HTTP/1.1 200 \0\r\n",
            "HTTP/1.1  200 OK\r\n",
            "HTTP/1.1 2x0 OK\r\n",
            "HTTP/1.1 200OK\r\n",
            "HTTP/1.x 200 OK\r\n",
        ] {
            assert!(status(line.as_bytes()).is_err(), "{line:?}");
        }
    }
}
