//! The strict look at a request's head as it comes.
//!
//! Two peers that disagree on where a line ends are how requests are smuggled, so what RFC 9112 lets a server refuse is
//! refused here, at the first byte that shows it: bare LF and CR, controls, raw bytes in the target, and a head that is
//! too long. What the lines of a whole head mean is the business of [`super::request`].

use super::syntax::{is_target_byte, is_text};

/// Field lines that a head may have. Servers allow about a hundred.
pub(super) const MAX_LINES: usize = 256;

/// Watches the bytes of one head.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    phase: Phase,
    /// Bytes of the head so far.
    length: usize,
    max_head: usize,
    /// Bytes of the target so far.
    target: usize,
    max_target: usize,
    /// Field lines so far.
    lines: usize,
    /// The last byte was a CR.
    after_cr: bool,
    /// The current line has no bytes yet.
    line_empty: bool,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The target is longer than `max_target`.
    TargetTooLong,
    /// The head is longer than `max_header`.
    HeadTooLong,
    /// The head has more than [`MAX_LINES`] fields.
    TooManyFields,
    /// A line does not end in CRLF.
    LineEnd,
    /// The request line has a byte that does not belong there.
    RequestLine,
    /// A field has a control character.
    Control,
    /// It is the hello of TLS.
    Tls,
}

/// How TLS begins: the type of its handshake records (RFC 8446 section 5.1), which no method begins with.
const TLS_HANDSHAKE: u8 = 0x16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Method,
    Target,
    Version,
    Fields,
    /// The head is whole.
    Whole,
}

impl Guard {
    /// Watches a request's head.
    pub(super) fn request(max_head: usize, max_target: usize) -> Self {
        Guard {
            phase: Phase::Method,
            length: 0,
            max_head,
            target: 0,
            max_target,
            lines: 0,
            after_cr: false,
            line_empty: true,
        }
    }

    /// Bytes of the head so far.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The head's length, once it is whole.
    pub(super) fn whole(&self) -> Option<usize> {
        (self.phase == Phase::Whole).then_some(self.length)
    }

    /// After a read: are these bytes fit for a head? Bytes behind its end are not looked at.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut rest = bytes;
        while self.phase != Phase::Whole && !rest.is_empty() {
            let used = if self.phase == Phase::Fields { self.field_bytes(rest)? } else { self.line_bytes(rest)? };
            self.length += used;
            if self.length > self.max_head {
                return Err(Refusal::HeadTooLong);
            }
            rest = &rest[used..];
        }
        Ok(())
    }

    /// A run of visible characters, or the one byte before the next: of the request line, or of the empty lines that
    /// RFC 9112 2.2 has a server skip before it.
    fn line_bytes(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let byte = bytes[0];
        if self.after_cr {
            if byte != b'\n' {
                return Err(Refusal::LineEnd);
            }
            self.after_cr = false;
            if !self.line_empty {
                self.phase = Phase::Fields;
            }
            self.line_empty = true;
            return Ok(1);
        }
        let run = match self.phase {
            Phase::Target => bytes.iter().take_while(|byte| is_target_byte(**byte)).count(),
            _ => bytes.iter().take_while(|byte| byte.is_ascii_graphic()).count(),
        };
        if run > 0 {
            self.line_empty = false;
            if self.phase == Phase::Target {
                self.target += run;
                if self.target > self.max_target {
                    return Err(Refusal::TargetTooLong);
                }
            }
            return Ok(run);
        }
        match (byte, self.phase) {
            (b'\r', Phase::Version) => self.after_cr = true,
            (b'\r', Phase::Method) if self.line_empty => self.after_cr = true,
            (b'\n', _) => return Err(Refusal::LineEnd),
            (b' ', Phase::Method) if !self.line_empty => self.phase = Phase::Target,
            (b' ', Phase::Target) if self.target > 0 => self.phase = Phase::Version,
            (TLS_HANDSHAKE, Phase::Method) if self.length == 0 => return Err(Refusal::Tls),
            _ => return Err(Refusal::RequestLine),
        }
        Ok(1)
    }

    /// A run of bytes up to the end of a field line, or to their own end.
    fn field_bytes(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let end = memchr::memchr(b'\n', bytes);
        let run = &bytes[..end.unwrap_or(bytes.len())];
        // A CR is the last byte before the LF or none.
        let text = match run {
            [] => run,
            _ if self.after_cr => return Err(Refusal::LineEnd),
            [text @ .., b'\r'] => {
                self.after_cr = true;
                text
            }
            _ => run,
        };
        if !is_text(text) {
            return Err(if text.contains(&b'\r') { Refusal::LineEnd } else { Refusal::Control });
        }
        self.line_empty &= text.is_empty();
        let Some(end) = end else { return Ok(bytes.len()) };
        if !self.after_cr {
            return Err(Refusal::LineEnd);
        }
        if self.line_empty {
            self.phase = Phase::Whole;
        } else {
            self.lines += 1;
            if self.lines > MAX_LINES {
                return Err(Refusal::TooManyFields);
            }
        }
        self.after_cr = false;
        self.line_empty = true;
        Ok(end + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds in pieces of `size` bytes and tells what came of it.
    fn verdict(text: &[u8], size: usize) -> Result<bool, Refusal> {
        let mut guard = Guard::request(200, 20);
        for piece in text.chunks(size) {
            guard.feed(piece)?;
        }
        Ok(guard.whole().is_some())
    }

    #[test]
    fn heads_are_judged_alike_however_they_are_cut() {
        let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(30));
        let long_head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(300));
        let cases: &[(&[u8], Result<bool, Refusal>)] = &[
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(true)),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(true)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x00\nbody\xff", Ok(true)),
            (b"GET / HTTP/1.1\r\n\r\n", Ok(true)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Ok(false)),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(Refusal::LineEnd)),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(Refusal::LineEnd)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(Refusal::LineEnd)),
            (b"\nGET / HTTP/1.1\r\n\r\n", Err(Refusal::LineEnd)),
            (b"GET / HTTP/1.1\r\nA: \r\r\n\r\n", Err(Refusal::LineEnd)),
            (b"GET / HTTP/1.1\r\nA: a\rb\r\n\r\n", Err(Refusal::LineEnd)),
            (b"GET / HTTP/1.1\r\n\rHost: a\r\n\r\n", Err(Refusal::LineEnd)),
            (b"GET / HTTP/1.1\r\nA: a\x00b", Err(Refusal::Control)),
            (b"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", Err(Refusal::Control)),
            (b"GET / HTTP/1.1\r\nA: \t\xe4\r\n\r\n", Ok(true)),
            (b"GET /?{\"a\":1}<>`|\\^ HTTP/1.1\r\n\r\n", Ok(true)),
            (b"GET /a#b HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine)),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", Err(Refusal::Tls)),
            (b"GET\x16 / HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine)),
            (b"GET /\x00 HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine)),
            (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine)),
            (b"GET / a HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine)),
            (b"GET  / HTTP/1.1\r\n\r\n", Err(Refusal::RequestLine)),
            (b"GET /\r\n\r\n", Err(Refusal::RequestLine)),
            (long_target.as_bytes(), Err(Refusal::TargetTooLong)),
            (long_head.as_bytes(), Err(Refusal::HeadTooLong)),
        ];
        for (text, expected) in cases {
            for size in [1, 2, 3, 7, 1000] {
                assert_eq!(verdict(text, size), *expected, "{} in pieces of {size}", text.escape_ascii());
            }
        }
    }
}
