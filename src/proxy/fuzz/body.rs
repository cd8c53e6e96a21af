//! Bodies: where they end, however their bytes come, and what of them goes on.

use super::hyper;
use crate::proxy::chunked::{Decoder, Found, Step};
use crate::proxy::fields::{Framing, passing_trailers};

/// A body that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) data: Vec<u8>,
    pub(super) trailers: Vec<u8>,
    /// How many bytes it took.
    pub(super) length: usize,
    /// Its chunks may go on as they came.
    pub(super) canonical: bool,
}

impl Body {
    /// The body that `bytes` begin with, if it is whole. `ended`: the connection ends behind them.
    pub(super) fn read(framing: Framing, bytes: &[u8]) -> Option<Body> {
        let plain = |length: usize| {
            let data = bytes.get(..length)?.to_vec();
            Some(Body { data, trailers: vec![], length, canonical: false })
        };
        match framing {
            Framing::Empty => plain(0),
            Framing::Length(length) => plain(usize::try_from(length).ok()?),
            Framing::ToClose => plain(bytes.len()),
            Framing::Chunked => Body::read_chunks(bytes, bytes.len().max(1)).ok()?,
        }
    }

    /// A body in chunks, of which `size` bytes come at a time. `Ok(None)`: it is not whole.
    fn read_chunks(bytes: &[u8], size: usize) -> Result<Option<Body>, ()> {
        let mut decoder = Decoder::new();
        let mut body = Body { data: vec![], trailers: vec![], length: 0, canonical: false };
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            loop {
                let Step { framing, found } = decoder.decode(rest).map_err(|_| ())?;
                let (count, kept) = match found {
                    Found::Data(count) => (count, &mut body.data),
                    Found::Trailers(count) => (count, &mut body.trailers),
                    Found::Nothing | Found::End => (0, &mut body.data),
                };
                kept.extend_from_slice(&rest[framing..framing + count]);
                body.length += framing + count;
                rest = &rest[framing + count..];
                if decoder.is_done() {
                    body.canonical = decoder.is_canonical();
                    return Ok(Some(body));
                }
                if found == Found::Nothing {
                    break;
                }
            }
        }
        Ok(None)
    }

    /// The body as it goes on; `sent`: the bytes that it was read from.
    pub(super) fn write(&self, chunked: bool, sent: &[u8], out: &mut Vec<u8>) {
        if chunked && self.canonical {
            out.extend_from_slice(&sent[..self.length]);
        } else if chunked {
            // In two pieces, as it may come.
            let (first, second) = self.data.split_at(self.data.len() / 2);
            for piece in [first, second].into_iter().filter(|piece| !piece.is_empty()) {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(&passing_trailers(&self.trailers));
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(&self.data);
        }
    }
}

/// A request's head that says that chunks follow.
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A request that shows where the one before it ended.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// A body in chunks: it is the same however its bytes come, hyper reads the same one of the same length, and what goes on
/// is that body again. True if it is whole and well-formed.
pub fn body(bytes: &[u8]) -> bool {
    let whole = Body::read_chunks(bytes, bytes.len().max(1));
    for size in [1, 2, 3, 5, 16, 100] {
        let cut = Body::read_chunks(bytes, size);
        assert_eq!(cut, whole, "by {size}: {}", bytes.escape_ascii());
    }
    let Ok(Some(body)) = whole else { return false };
    let mut written = vec![];
    body.write(true, bytes, &mut written);
    let passed = passing_trailers(&body.trailers);
    for (sent, trailers) in [(&bytes[..body.length], &body.trailers), (&written, &passed)] {
        let lines = trailers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        let (found, orderly) = hyper::requests(&[CHUNKED, sent, NEXT].concat(), 0);
        let shown = || format!("{}\nours {body:?}\nhyper's {found:?}", sent.escape_ascii());
        assert!(orderly && found.len() == 2, "hyper refuses or ends it elsewhere: {}", shown());
        assert_eq!(found[0].body, body.data, "{}", shown());
        assert_eq!(found[1].start, "GET /next", "{}", shown());
        assert_eq!(found[0].trailers.len(), lines, "{}", shown());
    }
    true
}
