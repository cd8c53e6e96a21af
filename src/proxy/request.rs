//! A request's head: what it asks for, and what the replica gets to read of it.

use super::fields::{Delimiter, Fault, Fields, Framing, Span};
use super::syntax::{is_authority, is_target_byte, is_token};
use crate::config::{Forwarded, HostHeader};
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};
use std::net::IpAddr;
use std::time::Duration;

/// A client's request head, as it came.
#[derive(Debug)]
pub(super) struct RequestHead<'a> {
    raw: &'a [u8],
    method: Span,
    target: Span,
    /// HTTP/1.`minor`.
    minor: u8,
    pub(super) fields: Fields,
    framing: Framing,
}

/// Room for what a head gains on its way in most cases, so that it is written without growing.
const ADDED: usize = 64;

/// Bytes of an absolute target's scheme, as in `http`: RFC 3986 has no limit, and readers have one of their own.
const MAX_SCHEME: usize = 64;

/// What routing changes about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rewrite<'a> {
    /// The target as the replica is to see it, in two pieces, so that a prefix is taken off without a copy.
    pub(super) target: (&'a [u8], &'a [u8]),
    /// Whom the client means, where the target says so: it outranks `Host` (RFC 9112 section 3.2.2).
    pub(super) authority: Option<&'a [u8]>,
    pub(super) host: &'a HostHeader,
    /// The upstream's own name, for clients of HTTP/1.0 that sent no `Host`.
    pub(super) default_host: &'a str,
    pub(super) forwarded: Forwarded,
    pub(super) client: IpAddr,
}

impl<'a> RequestHead<'a> {
    /// Reads a whole head of HTTP/1.
    pub(super) fn read(raw: &'a [u8]) -> Result<RequestHead<'a>, Fault> {
        RequestHead::read_as(raw, Delimiter::Fields)
    }

    /// Reads a whole head, whose body ends as `delimiter` has it.
    pub(super) fn read_as(raw: &'a [u8], delimiter: Delimiter) -> Result<RequestHead<'a>, Fault> {
        // A server skips empty lines before a request (RFC 9112 section 2.2).
        let begin = raw.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(Fault::Shape)?;
        let end = begin + memchr::memchr(b'\n', &raw[begin..]).ok_or(Fault::Shape)?;
        let line = raw[begin..end].strip_suffix(b"\r").ok_or(Fault::Shape)?;
        let first = memchr::memchr(b' ', line).ok_or(Fault::Shape)?;
        let last = memchr::memrchr(b' ', line).filter(|last| *last > first).ok_or(Fault::Shape)?;
        let (method, target) = (begin..begin + first, begin + first + 1..begin + last);
        let minor = match &line[last + 1..] {
            b"HTTP/1.0" => 0,
            // A later minor version is 1.1 and something that may be ignored (RFC 9110 section 2.5).
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => 1,
            b"HTTP/2.0" if line == b"PRI * HTTP/2.0" => return Err(Fault::Http2),
            _ => return Err(Fault::Version),
        };
        if !is_token(&raw[method.clone()])
            || target.is_empty()
            || !raw[target.clone()].iter().copied().all(is_target_byte)
        {
            return Err(Fault::Shape);
        }
        let mut fields = Fields::read(raw, end + 1)?;
        // It is of HTTP/2 only: what another request says of its content frees it of no time-out.
        fields.grpc &= matches!(delimiter, Delimiter::Stream { .. });
        if fields.chunked && minor == 0 {
            return Err(Fault::Encoding);
        }
        let framing = match (fields.chunked, fields.length) {
            _ if delimiter == (Delimiter::Stream { ended: true }) => Framing::Empty,
            (true, _) => Framing::Chunked,
            (false, None) if delimiter == (Delimiter::Stream { ended: false }) => Framing::Chunked,
            (false, None | Some(0)) => Framing::Empty,
            (false, Some(length)) => Framing::Length(length),
        };
        let head = RequestHead { method, target, raw, minor, fields, framing };
        head.check_host()?;
        Ok(head)
    }

    /// Whether the request says in one way which host it means: in its target, which counts, or in `Host`. Whichever it is,
    /// `Host` must be in order (RFC 9112 section 3.2).
    fn check_host(&self) -> Result<(), Fault> {
        let authority = match raw_target_authority(self.target()) {
            RawTargetAuthority::None => None,
            RawTargetAuthority::Absolute { authority, .. }
                if is_authority(authority) && self.reads_alike(authority) =>
            {
                Some(authority)
            }
            RawTargetAuthority::Absolute { .. } | RawTargetAuthority::AmbiguousAuthority => {
                return Err(Fault::Authority);
            }
        };
        match (self.fields.hosts, self.fields.host.clone().map(|span| &self.raw[span])) {
            // Before 1.1 nobody had to say it.
            (0, _) if self.minor == 0 => Ok(()),
            (1, Some(b"")) if self.minor == 0 || authority.is_some() => Ok(()),
            (1, Some(b"")) => Err(Fault::NoHost),
            (1, Some(host)) if is_authority(host) => Ok(()),
            (1, _) => Err(Fault::BadHost),
            _ => Err(Fault::Host),
        }
    }

    /// Whether other readers take an absolute target, too: some refuse a long scheme, or an encoded octet in a host.
    fn reads_alike(&self, authority: &[u8]) -> bool {
        let scheme = memchr::memchr(b':', self.target()).unwrap_or(usize::MAX);
        scheme <= MAX_SCHEME && memchr::memchr(b'%', authority).is_none()
    }

    pub(super) fn method(&self) -> &[u8] {
        &self.raw[self.method.clone()]
    }

    /// The target as it came: a path, `*`, or a whole URL.
    pub(super) fn target(&self) -> &[u8] {
        &self.raw[self.target.clone()]
    }

    /// The `Host` field, if it says something.
    pub(super) fn host(&self) -> Option<&[u8]> {
        self.fields.host.clone().map(|span| &self.raw[span]).filter(|host| !host.is_empty())
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        self.minor == 0
    }

    /// Whether the client wants to keep the connection.
    pub(super) fn keeps_alive(&self) -> bool {
        if self.minor == 0 { self.fields.keep_alive && !self.fields.close } else { !self.fields.close }
    }

    pub(super) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// Reading only: may be under way twice at once.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS")
    }

    /// Once or twice is the same (RFC 9110 section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.method(), b"PUT" | b"DELETE" | b"TRACE")
    }

    /// Whether the client asks for a WebSocket, the one upgrade that passes.
    pub(super) fn wants_websocket(&self) -> bool {
        self.minor == 1 && self.fields.connection_upgrade && self.framing == Framing::Empty && self.fields.websocket
    }

    /// Whether it is a call of gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        self.fields.grpc
    }

    /// How long a call of gRPC may take.
    pub(super) fn grpc_timeout(&self) -> Option<Duration> {
        let value = self.fields.grpc_timeout.clone().filter(|_| self.fields.grpc)?;
        grpc_timeout(&self.raw[value])
    }

    /// The trace this request belongs to, for the log.
    pub(super) fn traceparent(&self) -> Option<&[u8]> {
        self.fields.traceparent.clone().map(|span| &self.raw[span])
    }

    /// What its client calls it.
    pub(super) fn request_id(&self) -> Option<&[u8]> {
        self.fields.request_id.clone().map(|span| &self.raw[span])
    }

    /// The head as the replica gets it.
    pub(super) fn write(&self, rewrite: &Rewrite<'_>, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(self.raw.len() + ADDED);
        out.extend_from_slice(self.method());
        out.push(b' ');
        out.extend_from_slice(rewrite.target.0);
        out.extend_from_slice(rewrite.target.1);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let replaced = match rewrite.host {
            HostHeader::Replace(value) => Some(value.as_bytes()),
            HostHeader::Pass => rewrite.authority,
        };
        let replaced = replaced.or(if self.host().is_none() { Some(rewrite.default_host.as_bytes()) } else { None });
        if replaced.is_none() && rewrite.forwarded == Forwarded::Off {
            self.fields.write(self.raw, true, out);
        } else {
            self.write_changed(replaced, rewrite, out);
        }
        // A client of HTTP/2 says only by the end of its stream where its body ends.
        if self.framing == Framing::Chunked && !self.fields.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        match (self.wants_websocket(), self.fields.te_trailers) {
            (true, true) => {
                out.extend_from_slice(b"Connection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n");
            }
            (true, false) => out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            // Trailers pass, so that the replica may know who takes them.
            (false, true) => out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n"),
            (false, false) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The rarer way: with another `Host`, or with the client's address added.
    fn write_changed(&self, host: Option<&[u8]>, rewrite: &Rewrite<'_>, out: &mut Vec<u8>) {
        let append = rewrite.forwarded == Forwarded::Append;
        let mut fields = self.fields.clone();
        fields.drop_lines(self.raw, |name| {
            (host.is_some() && name.eq_ignore_ascii_case(b"host"))
                || (append && name.eq_ignore_ascii_case(b"x-forwarded-for"))
                || (append && name.eq_ignore_ascii_case(b"forwarded"))
        });
        if let Some(host) = host {
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(host);
            out.extend_from_slice(b"\r\n");
        }
        fields.write(self.raw, true, out);
        if append {
            self.write_forwarded(rewrite, out);
        }
    }

    /// `Forwarded` (RFC 7239) and its older kin: lists grow by this hop, single values stay what the first hop said.
    fn write_forwarded(&self, rewrite: &Rewrite<'_>, out: &mut Vec<u8>) {
        let client = rewrite.client;
        let host = rewrite.authority.or(self.host()).unwrap_or_default();
        let mut list = |name: &str, own: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            for value in self.fields.values(self.raw, name) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(own);
            out.extend_from_slice(b"\r\n");
        };
        let node = if client.is_ipv6() { format!("\"[{client}]\"") } else { client.to_string() };
        let mut own = format!("for={node};proto=http").into_bytes();
        // A host has no byte that would have to be escaped in quotes.
        if !host.is_empty() {
            own.extend_from_slice(b";host=\"");
            own.extend_from_slice(host);
            own.push(b'"');
        }
        list("Forwarded", &own);
        list("X-Forwarded-For", client.to_string().as_bytes());
        for (name, own) in [("X-Forwarded-Proto", b"http".as_slice()), ("X-Forwarded-Host", host)] {
            if self.fields.values(self.raw, name).next().is_none() {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(own);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// The value of `grpc-timeout` (gRPC over HTTP/2, "Requests"): at most eight digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &str, host: &HostHeader, forwarded: Forwarded) -> String {
        let head = RequestHead::read(head.as_bytes()).unwrap();
        let target = head.target().to_vec();
        let rewrite = Rewrite {
            target: (&target, b""),
            authority: None,
            host,
            default_host: "db-checker",
            forwarded,
            client: "10.0.0.9".parse().unwrap(),
        };
        let mut out = Vec::new();
        head.write(&rewrite, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_request_passes_byte_by_byte() {
        let sent = "GET /a?b HTTP/1.1\r\nhOst: x\r\nAccept:  */*\r\n\r\n";
        assert_eq!(written(sent, &HostHeader::Pass, Forwarded::Off), sent);
    }

    #[test]
    fn only_websocket_upgrades_pass() {
        let sent = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                    HTTP2-Settings: A\r\n\r\n";
        assert_eq!(written(sent, &HostHeader::Pass, Forwarded::Off), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        for upgrade in ["Upgrade: WebSocket", "Upgrade: websocket, foo", "Upgrade: foo\r\nUpgrade: ,websocket"] {
            let sent = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n{upgrade}\r\n\r\n");
            assert_eq!(
                written(&sent, &HostHeader::Pass, Forwarded::Off),
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            );
        }
    }

    #[test]
    fn the_host_can_be_replaced_and_a_client_of_http_1_0_gets_one() {
        let literal = HostHeader::Replace(http::HeaderValue::from_static("app.test"));
        let sent = "GET / HTTP/1.1\r\nA: 1\r\nHost: x\r\n\r\n";
        assert_eq!(written(sent, &literal, Forwarded::Off), "GET / HTTP/1.1\r\nHost: app.test\r\nA: 1\r\n\r\n");
        for sent in ["GET / HTTP/1.0\r\nA: 1\r\n\r\n", "GET / HTTP/1.0\r\nHost: \r\nA: 1\r\n\r\n"] {
            assert_eq!(
                written(sent, &HostHeader::Pass, Forwarded::Off),
                "GET / HTTP/1.1\r\nHost: db-checker\r\nA: 1\r\n\r\n"
            );
        }
    }

    #[test]
    fn forwarded_fields_grow_by_this_hop() {
        let sent = "GET / HTTP/1.1\r\nHost: x:80\r\nX-Forwarded-For: 1.1.1.1\r\nA: 1\r\nx-forwarded-for: 2.2.2.2\r\n\
                    X-Forwarded-Proto: https\r\n\r\n";
        assert_eq!(
            written(sent, &HostHeader::Pass, Forwarded::Append),
            "GET / HTTP/1.1\r\nHost: x:80\r\nA: 1\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for=10.0.0.9;proto=http;host=\"x:80\"\r\n\
             X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.9\r\nX-Forwarded-Host: x:80\r\n\r\n"
        );
    }

    #[test]
    fn a_request_needs_exactly_one_host() {
        for head in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"] {
            assert_eq!(RequestHead::read(head.as_bytes()).unwrap_err(), Fault::Host);
        }
    }

    // H9, D20
    #[test]
    fn a_request_says_in_one_way_which_host_it_means() {
        for (target, host, fault) in [
            ("http://a/x", "a", None),
            ("http://b/x", "a", None),
            ("http://A:80/x", "a", None),
            ("http://a?q", "", None),
            ("http://a", "a/b", Some(Fault::BadHost)),
            ("http://u@a/x", "a", Some(Fault::Authority)),
            ("http:/a/x", "a", Some(Fault::Authority)),
            ("http:///x", "a", Some(Fault::Authority)),
            ("http://a\\b/", "a", Some(Fault::Authority)),
            ("http://a\"b/", "a", Some(Fault::Authority)),
            ("/", "u@a", Some(Fault::BadHost)),
            ("/", "a/b", Some(Fault::BadHost)),
            ("/", "a b", Some(Fault::BadHost)),
            ("/", "http://a/", Some(Fault::BadHost)),
            ("/", "a\\", Some(Fault::BadHost)),
            ("/", "a\";for=evil", Some(Fault::BadHost)),
            ("/", "", Some(Fault::NoHost)),
            ("*", "", Some(Fault::NoHost)),
            ("/a@b", "a", None),
            ("//b/x", "a", None),
            ("*", "a", None),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(RequestHead::read(head.as_bytes()).err(), fault, "{target} {host}");
        }
        assert!(RequestHead::read(b"GET / HTTP/1.0\r\nHost:\r\n\r\n").is_ok());
    }

    // H4
    #[test]
    fn every_visible_byte_may_stand_anywhere_in_a_target() {
        for byte in 0..=255_u8 {
            for before in ["/", "/?", "/a", "http://a/", "http://a?"] {
                let head = [b"GET ".as_slice(), before.as_bytes(), &[byte], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
                let expected = byte.is_ascii_graphic() && byte != b'#';
                assert_eq!(RequestHead::read(&head).is_ok(), expected, "{}", head.escape_ascii());
            }
        }
    }

    // H9, H11
    #[test]
    fn later_minor_versions_are_1_1_and_others_are_refused() {
        for (version, fault) in [
            ("HTTP/1.1", None),
            ("HTTP/1.2", None),
            ("HTTP/1.9", None),
            ("HTTP/1.10", Some(Fault::Version)),
            ("HTTP/2.0", Some(Fault::Version)),
            ("HTTP/0.9", Some(Fault::Version)),
            ("http/1.1", Some(Fault::Version)),
            ("HTTP/1.", Some(Fault::Version)),
        ] {
            let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
            assert_eq!(RequestHead::read(head.as_bytes()).err(), fault, "{version}");
        }
        let head = RequestHead::read(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n").unwrap();
        assert!(!head.is_http_1_0() && head.keeps_alive());
        assert_eq!(RequestHead::read(b"PRI * HTTP/2.0\r\n\r\n").unwrap_err(), Fault::Http2);
    }

    #[test]
    fn a_request_is_forgiven_nothing() {
        for head in [
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
            " / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nA : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n B: 1\r\n\r\n",
        ] {
            assert_eq!(RequestHead::read(head.as_bytes()).err(), Some(Fault::Shape), "{head:?}");
        }
    }
}
