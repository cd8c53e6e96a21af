//! The lines of a head: what they say about the message, and which of them go on.
//!
//! A head passes as the bytes it came in: order, case and spacing stay. One pass over the lines finds what matters for
//! the exchange and which lines belong to this hop alone (RFC 9110 section 7.6.1); writing copies the runs between them.
//! Framing that two implementations could read differently is refused, not repaired (RFC 9112 section 6.3). So is a line
//! that is not well-formed; what may be mended in a response is mended before ([`super::mend`]).

use super::guard::MAX_LINES;
use super::syntax::{is_text, is_token, token_length};
use smallvec::SmallVec;
use std::ops::Range;

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All that comes until the connection closes (responses only).
    ToClose,
}

/// What says where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// The fields of its head: HTTP/1.
    Fields,
    /// The end of its stream, whatever the fields say; `ended`: it ended with its head.
    Stream { ended: bool },
}

/// Why a head is refused although it parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndEncoding,
    /// `Content-Length` is not one plain number.
    Length,
    /// `Transfer-Encoding` is anything but `chunked`.
    Encoding,
    /// Not exactly one `Host`.
    Host,
    /// `Host` is empty, and nothing else says which is meant.
    NoHost,
    /// `Host` is no host.
    BadHost,
    /// The target names no host that everybody would read alike.
    Authority,
    /// Not the lines of a head.
    Shape,
    /// A version other than HTTP/1.
    Version,
    /// The connection preface of HTTP/2 (RFC 9113 section 3.4).
    Http2,
    /// More than [`MAX_LINES`] fields.
    TooMany,
    /// White space before the colon of a field that says how the message is delimited.
    Space,
}

impl Fault {
    /// In words, for the log and `Proxy-Status`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Fault::LengthAndEncoding => "Content-Length beside Transfer-Encoding",
            Fault::Length => "Content-Length is not one plain number",
            Fault::Encoding => "a Transfer-Encoding other than chunked",
            Fault::Host => "not exactly one Host field",
            Fault::NoHost => "an empty Host",
            Fault::BadHost => "Host is not a host with perhaps a port",
            Fault::Authority => "the target names no host that everybody would read alike",
            Fault::Shape => "malformed head",
            Fault::Version => "a version of HTTP other than 1.0 and 1.1",
            Fault::Http2 => "HTTP/2 without TLS, where only HTTP/1.1 is served",
            Fault::TooMany => "a head of more than 256 fields",
            Fault::Space => "white space before the colon of a field that delimits the message",
        }
    }
}

/// A byte range within a head.
pub(super) type Span = Range<usize>;

/// What the field lines of a head say.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// Where the field lines begin, behind the start line.
    start: usize,
    /// Where they end, before the empty line.
    end: usize,
    /// Lines of this hop, in order.
    hop: SmallVec<[Span; 4]>,
    /// The one of them that says `Transfer-Encoding`.
    encoding: Option<Span>,
    /// The line that says `Content-Length`.
    length_line: Option<Span>,
    pub(super) hosts: u32,
    pub(super) host: Option<Span>,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) connection_upgrade: bool,
    pub(super) upgrade: bool,
    /// `Upgrade` offers or chooses WebSocket.
    pub(super) websocket: bool,
    pub(super) expect_continue: bool,
    pub(super) event_stream: bool,
    /// It is a call of gRPC.
    pub(super) grpc: bool,
    /// How long a call of gRPC may take, as its client says it.
    pub(super) grpc_timeout: Option<Span>,
    /// The sender takes trailers.
    pub(super) te_trailers: bool,
    pub(super) probe: bool,
    pub(super) traceparent: Option<Span>,
    pub(super) request_id: Option<Span>,
}

/// Fields that `Connection` may not take away: without them the request means something else.
const PROTECTED: [&[u8]; 12] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"authorization",
    b"cookie",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"x-real-ip",
];

/// The field that marks a probe of another proxy.
pub const PROBE_FIELD: &str = "evenkeel-probe";

impl Fields {
    /// Reads the lines of `head`, whose start line ends before `start`.
    pub(super) fn read(head: &[u8], start: usize) -> Result<Fields, Fault> {
        let mut fields = Fields {
            start,
            end: start,
            hop: SmallVec::new(),
            encoding: None,
            length_line: None,
            hosts: 0,
            host: None,
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            connection_upgrade: false,
            upgrade: false,
            websocket: false,
            expect_continue: false,
            event_stream: false,
            grpc: false,
            grpc_timeout: None,
            te_trailers: false,
            probe: false,
            traceparent: None,
            request_id: None,
        };
        let mut named = false;
        let mut at = start;
        let mut count = 0;
        loop {
            let line = line(head, at).ok_or(Fault::Shape)?;
            if line.text.is_empty() {
                fields.end = at;
                break;
            }
            count += 1;
            if count > MAX_LINES {
                return Err(Fault::TooMany);
            }
            if fields.line(head, &line)? {
                named = true;
            }
            at = line.whole.end;
        }
        if named {
            fields.drop_named(head);
        }
        if fields.chunked && fields.length.is_some() {
            return Err(Fault::LengthAndEncoding);
        }
        Ok(fields)
    }

    /// Takes in one line; true if it is a `Connection` that names other fields.
    fn line(&mut self, head: &[u8], line: &Line) -> Result<bool, Fault> {
        let text = &head[line.text.clone()];
        let colon = token_length(text);
        let name = &text[..colon];
        if name.is_empty() || text.get(colon) != Some(&b':') || !is_text(&text[colon + 1..]) {
            return Err(Fault::Shape);
        }
        let value = trimmed(head, line.text.start + colon + 1..line.text.end);
        let bytes = &head[value.clone()];
        let is = |expected: &str| name.eq_ignore_ascii_case(expected.as_bytes());
        match name.len() {
            2 if is("te") => {
                self.te_trailers |= elements(bytes).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                self.hop.push(line.whole.clone());
            }
            4 if is("host") => {
                self.hosts += 1;
                self.host = Some(value);
            }
            6 if is("expect") => self.expect_continue = bytes.eq_ignore_ascii_case(b"100-continue"),
            7 if is("upgrade") => {
                self.upgrade = true;
                self.websocket |= elements(bytes).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
                self.hop.push(line.whole.clone());
            }
            10 if is("connection") => {
                self.hop.push(line.whole.clone());
                return Ok(self.connection(bytes));
            }
            10 if is("keep-alive") => self.hop.push(line.whole.clone()),
            11 if is("traceparent") => self.traceparent = Some(value),
            12 if is("x-request-id") => self.request_id = Some(value),
            12 if is("content-type") => {
                let begins =
                    |kind: &[u8]| bytes.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
                self.event_stream = begins(b"text/event-stream");
                self.grpc = begins(b"application/grpc");
            }
            12 if is("grpc-timeout") => self.grpc_timeout = Some(value),
            14 if is("content-length") => {
                if self.length.is_some() {
                    return Err(Fault::Length);
                }
                self.length = Some(plain_number(bytes).ok_or(Fault::Length)?);
                self.length_line = Some(line.whole.clone());
            }
            14 if is(PROBE_FIELD) => self.probe = true,
            16 if is("proxy-connection") => self.hop.push(line.whole.clone()),
            17 if is("transfer-encoding") => {
                if self.chunked || !bytes.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Encoding);
                }
                self.chunked = true;
                self.encoding = Some(line.whole.clone());
                self.hop.push(line.whole.clone());
            }
            _ => {}
        }
        Ok(false)
    }

    /// Reads the options of one `Connection` line; true if some name other fields.
    fn connection(&mut self, value: &[u8]) -> bool {
        let mut named = false;
        for option in elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                named = true;
            }
        }
        named
    }

    /// A second pass, for the rare `Connection` that names fields of this hop.
    fn drop_named(&mut self, head: &[u8]) {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for line in lines(head, self.start) {
            let (name, value) = split(head, &line);
            if name.eq_ignore_ascii_case(b"connection") {
                names.extend(elements(value).map(<[u8]>::to_ascii_lowercase));
            }
        }
        names.retain(|n| !PROTECTED.contains(&n.as_slice()));
        self.drop_lines(head, |name| names.iter().any(|n| name.eq_ignore_ascii_case(n)));
    }

    /// Has every line with such a name stay behind.
    pub(super) fn drop_lines(&mut self, head: &[u8], unwanted: impl Fn(&[u8]) -> bool) {
        for line in lines(head, self.start) {
            let (name, _) = split(head, &line);
            if unwanted(name) && !self.hop.contains(&line.whole) {
                self.hop.push(line.whole);
            }
        }
        self.hop.sort_by_key(|span| span.start);
    }

    /// Has `Content-Length` stay behind.
    pub(super) fn drop_length(&mut self) {
        if let Some(line) = self.length_line.take() {
            let at = self.hop.partition_point(|span| span.start < line.start);
            if self.hop.get(at) != Some(&line) {
                self.hop.insert(at, line);
            }
        }
    }

    /// All values of a field, in order.
    pub(super) fn values<'h>(&self, head: &'h [u8], wanted: &'h str) -> impl Iterator<Item = &'h [u8]> {
        lines(head, self.start)
            .map(move |line| split(head, &line))
            .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Copies the lines that go on; with `keep_encoding` the body stays in chunks, and its line stays where it is.
    pub(super) fn write(&self, head: &[u8], keep_encoding: bool, out: &mut Vec<u8>) {
        let mut at = self.start;
        for span in &self.hop {
            if keep_encoding && self.encoding.as_ref() == Some(span) {
                continue;
            }
            out.extend_from_slice(&head[at..span.start]);
            at = span.end;
        }
        out.extend_from_slice(&head[at..self.end]);
    }
}

/// One line of a head.
struct Line {
    /// With its line end.
    whole: Span,
    /// Without.
    text: Span,
}

/// The line that begins at `at` and ends in CRLF.
fn line(head: &[u8], at: usize) -> Option<Line> {
    let end = at + memchr::memchr(b'\n', &head[at..])?;
    let text = head[at..end].strip_suffix(b"\r")?;
    Some(Line { whole: at..end + 1, text: at..at + text.len() })
}

/// All field lines.
fn lines(head: &[u8], start: usize) -> impl Iterator<Item = Line> {
    let mut at = start;
    std::iter::from_fn(move || {
        let line = line(head, at).filter(|line| !line.text.is_empty())?;
        at = line.whole.end;
        Some(line)
    })
}

/// Name and value of each line, up to an empty one or the end.
pub(super) fn pairs(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    self::lines(lines, 0).map(|line| split(lines, &line))
}

/// Fields that mean nothing behind a body, or would mean too much: how the message is delimited, where it goes, who sent it,
/// what its content is (RFC 9110 section 6.5.1).
pub(super) const NO_TRAILERS: [&str; 24] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// Those of these trailers that go on.
pub(super) fn passing_trailers(lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in self::lines(lines, 0) {
        let (name, _) = split(lines, &line);
        let means_much = NO_TRAILERS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()));
        if is_token(name) && !means_much {
            out.extend_from_slice(&lines[line.whole]);
        }
    }
    out
}

/// The elements of a list, of which empty ones are none (RFC 9110 section 5.6.1).
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Without the white space at both ends that HTTP has: SP and HTAB, and no other control that ASCII counts as white space.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let is_white = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_white(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_white(byte)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// Name and value of a line; an empty name if it has no colon.
fn split<'h>(head: &'h [u8], line: &Line) -> (&'h [u8], &'h [u8]) {
    let text = &head[line.text.clone()];
    match memchr::memchr(b':', text) {
        Some(colon) => (&text[..colon], text[colon + 1..].trim_ascii()),
        None => (b"", text),
    }
}

/// `span` without white space at its ends.
fn trimmed(head: &[u8], span: Span) -> Span {
    let text = &head[span.clone()];
    let value = text.trim_ascii_start();
    let start = span.end - value.len();
    start..start + value.trim_ascii_end().len()
}

/// Digits and nothing else, within 63 bits (what many a peer counts in).
pub(super) fn plain_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= i64::MAX as u64).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "GET / HTTP/1.1\r\n";

    fn read(lines: &str) -> Result<(String, Fields), Fault> {
        let head = format!("{START}{lines}\r\n");
        Fields::read(head.as_bytes(), START.len()).map(|fields| (head, fields))
    }

    fn passed_on(lines: &str) -> String {
        let (head, fields) = read(lines).unwrap();
        let mut out = Vec::new();
        fields.write(head.as_bytes(), false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_pass_as_they_came_but_for_those_of_this_hop() {
        let sent = "hOst:  a \r\nX-A: 1\r\nConnection: keep-alive, X-Hop\r\nx-hop: 2\r\nX-B:2\r\nTE: trailers\r\n\
                    Keep-Alive: timeout=5\r\nX-C: \r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n";
        assert_eq!(passed_on(sent), "hOst:  a \r\nX-A: 1\r\nX-B:2\r\nX-C: \r\nTrailer: x\r\n");
    }

    #[test]
    fn connection_cannot_take_away_what_the_request_needs() {
        let sent = "Host: a\r\nConnection: Host, X-Forwarded-For, Cookie, close\r\nX-Forwarded-For: 1\r\nCookie: c\r\n";
        assert_eq!(passed_on(sent), "Host: a\r\nX-Forwarded-For: 1\r\nCookie: c\r\n");
    }

    #[test]
    fn a_line_that_is_not_well_formed_is_refused() {
        for lines in [
            "A : 1\r\n",
            "A\t: 1\r\n",
            ": 1\r\n",
            "A: 1\r\n 2\r\n",
            " A: 1\r\n",
            "A B: 1\r\n",
            "A(: 1\r\n",
            "A: 1\n",
            "A: 1\r\r\n",
            "A: 1\r2\r\n",
            "A: \0\r\n",
            "A: \x7f\r\n",
            "no colon\r\n",
            "Content-Length : 1\r\n",
            "ä: 1\r\n",
        ] {
            assert_eq!(read(lines).unwrap_err(), Fault::Shape, "{lines:?}");
        }
        assert_eq!(passed_on("A:\t1 \r\nB:ä\r\n"), "A:\t1 \r\nB:ä\r\n");
        assert_eq!(read(&"A: 1\r\n".repeat(MAX_LINES + 1)).unwrap_err(), Fault::TooMany);
        assert!(read(&"A: 1\r\n".repeat(MAX_LINES)).is_ok());
    }

    #[test]
    fn the_length_can_stay_behind() {
        for lines in ["A: 1\r\nContent-Length: 5\r\nB: 2\r\n", "Content-Length: 5\r\nTE: a\r\nA: 1\r\nB: 2\r\n"] {
            let (head, mut fields) = read(lines).unwrap();
            fields.drop_length();
            let mut out = Vec::new();
            fields.write(head.as_bytes(), false, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), "A: 1\r\nB: 2\r\n", "{lines}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (lines, fault) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Fault::LengthAndEncoding),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Fault::Length),
            ("Content-Length: 5,5\r\n", Fault::Length),
            ("Content-Length: +5\r\n", Fault::Length),
            ("Content-Length: \r\n", Fault::Length),
            ("Content-Length: 0x1\r\n", Fault::Length),
            ("Content-Length: 1\r\n 2\r\n", Fault::Shape),
            ("Content-Length: 1\r\n\t\r\n", Fault::Shape),
            ("Content-Length: 9223372036854775808\r\n", Fault::Length),
            ("Transfer-Encoding: xchunked\r\n", Fault::Encoding),
            ("Transfer-Encoding: gzip, chunked\r\n", Fault::Encoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::Encoding),
            ("no colon\r\n", Fault::Shape),
        ] {
            assert_eq!(read(lines).unwrap_err(), fault, "{lines}");
        }
        assert_eq!(read("content-LENGTH: 0005\r\n").unwrap().1.length, Some(5));
    }

    /// Seeded mutations of heads: never a panic, and what goes on is lines of what came.
    #[test]
    fn no_head_brings_the_filter_down() {
        let seed = 0x5eed_0001;
        let mut rng = fastrand::Rng::with_seed(seed);
        let parts: [&[u8]; 14] = [
            b"Host: a",
            b"Connection: x, y,,",
            b"x: 1",
            b"y:2",
            b" folded",
            b"\r",
            b"\n",
            b"\r\n",
            b":",
            b"\0",
            b"Content-Length: 1",
            b"Transfer-Encoding: chunked",
            b"Upgrade: websocket",
            b"\xff\xfe: \x01",
        ];
        for round in 0..20_000 {
            let mut head = START.as_bytes().to_vec();
            for _ in 0..rng.usize(0..10) {
                head.extend_from_slice(parts[rng.usize(0..parts.len())]);
                if rng.u8(0..4) > 0 {
                    head.extend_from_slice(b"\r\n");
                }
            }
            head.extend_from_slice(b"\r\n\r\n");
            if let Ok(fields) = Fields::read(&head, START.len()) {
                let mut out = Vec::new();
                fields.write(&head, false, &mut out);
                assert!(out.len() <= head.len(), "seed {seed:#x} round {round}");
                let mut again = out.clone();
                again.splice(0..0, START.bytes());
                again.extend_from_slice(b"\r\n");
                let second = Fields::read(&again, START.len());
                assert!(second.is_ok_and(|f| f.hop.is_empty()), "seed {seed:#x} round {round}: {}", out.escape_ascii());
            }
        }
    }
}
