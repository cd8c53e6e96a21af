//! A response's head: how its body is delimited, and what the client gets to read of it.

use super::fields::{Fault, Fields, Framing};

/// A replica's response head, as it came.
#[derive(Debug)]
pub(super) struct ResponseHead<'a> {
    raw: &'a [u8],
    minor: u8,
    /// Where the status code begins in `raw`.
    status_at: usize,
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
}

impl<'a> ResponseHead<'a> {
    /// Reads a head that is whole and well-formed. `no_body`: it answers a HEAD.
    pub(super) fn read(raw: &'a [u8], status: u16, no_body: bool) -> Result<ResponseHead<'a>, Fault> {
        let end = memchr::memchr(b'\n', raw).ok_or(Fault::Shape)?;
        let status_at = memchr::memchr(b' ', &raw[..end]).ok_or(Fault::Shape)? + 1;
        let minor = match &raw[..status_at - 1] {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            _ => return Err(Fault::Shape),
        };
        let fields = Fields::read(raw, end + 1)?;
        let framing = match status {
            100..=199 | 204 | 304 => Framing::Empty,
            _ if no_body => Framing::Empty,
            _ if fields.chunked && minor == 0 => return Err(Fault::Encoding),
            _ if fields.chunked => Framing::Chunked,
            _ => fields.length.map_or(Framing::ToClose, Framing::Length),
        };
        Ok(ResponseHead { raw, minor, status_at, fields, framing })
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the replica keeps the connection after this response.
    pub(super) fn keeps_alive(&self) -> bool {
        let wants = if self.minor == 0 { self.fields.keep_alive && !self.fields.close } else { !self.fields.close };
        wants && self.framing != Framing::ToClose
    }

    /// Whether its fields say that a body follows, whatever its status and its request say.
    pub(super) fn announces_body(&self) -> bool {
        self.fields.chunked || self.fields.length.is_some_and(|length| length > 0)
    }

    /// How the body reaches a client of HTTP/1.`minor`: true if in chunks.
    pub(super) fn is_chunked_for(&self, http_1_0: bool) -> bool {
        !http_1_0 && matches!(self.framing, Framing::Chunked | Framing::ToClose)
    }

    /// The head as the client gets it.
    pub(super) fn write(&self, delivery: Delivery, out: &mut Vec<u8>) {
        // A HEAD is answered with the fields of the GET, and says chunked where that would.
        let chunked = delivery.chunked || self.framing == Framing::Empty;
        self.write_start(chunked, out);
        if delivery.chunked && !self.fields.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if let Some(connection) = delivery.connection {
            out.extend_from_slice(b"Connection: ");
            out.extend_from_slice(connection.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The head of a switch to another protocol.
    pub(super) fn write_upgrade(&self, out: &mut Vec<u8>) {
        self.write_start(false, out);
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
        let value = self.fields.upgrade.clone().map_or(b"websocket".as_slice(), |span| &self.raw[span]);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n\r\n");
    }

    fn write_start(&self, keep_encoding: bool, out: &mut Vec<u8>) {
        let end = memchr::memchr(b'\n', self.raw).map_or(self.raw.len(), |lf| lf);
        out.reserve(self.raw.len() + ADDED);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.raw[self.status_at..end].trim_ascii_end());
        if self.raw[self.status_at..end].trim_ascii_end().len() == 3 {
            // The space belongs to the status line even where the reason is empty (RFC 9112 section 4).
            out.push(b' ');
        }
        out.extend_from_slice(b"\r\n");
        self.fields.write(self.raw, keep_encoding, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &'static str, status: u16, no_body: bool) -> Result<ResponseHead<'static>, Fault> {
        ResponseHead::read(head.as_bytes(), status, no_body)
    }

    fn written(head: &ResponseHead, chunked: bool, connection: Option<&'static str>) -> String {
        let mut out = Vec::new();
        head.write(Delivery { chunked, connection }, &mut out);
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
        assert!(head.is_chunked_for(false) && !head.is_chunked_for(true));
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
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(both, 200, false).unwrap_err(), Fault::LengthAndEncoding);
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old, 200, false).unwrap_err(), Fault::Encoding);
    }
}
