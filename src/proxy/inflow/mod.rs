//! A message's body on its way in, of either protocol.

mod http1;

use super::fields::Framing;
use super::http2::{Code, Ended, Receiver, Sender};
use super::inbound::Watch;
use super::socket::Reader;
use bytes::Bytes;
pub(super) use http1::Http1;
use std::ops::Deref;
use std::sync::Arc;

/// A body, and where it comes from.
pub(super) enum Inflow {
    /// The connection is the message's alone, until it is whole.
    Http1(Http1),
    /// A stream; a client's with what is sent back on it.
    Http2 { receiver: Receiver, response: Option<Arc<Sender>> },
}

/// Some bytes of a body.
pub(super) struct Piece<'a> {
    bytes: Held<'a>,
    /// Nothing follows them, not even trailers.
    pub(super) last: bool,
}

/// Where they are.
enum Held<'a> {
    /// In a buffer.
    Lent(&'a [u8]),
    /// In a frame.
    Frame(Bytes),
}

impl<'a> Piece<'a> {
    /// Bytes that lie in a buffer.
    pub(super) fn lent(bytes: &'a [u8], last: bool) -> Self {
        Piece { bytes: Held::Lent(bytes), last }
    }

    /// For whoever keeps them.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.bytes {
            Held::Lent(bytes) => Bytes::copy_from_slice(bytes),
            Held::Frame(bytes) => bytes,
        }
    }
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Held::Lent(bytes) => bytes,
            Held::Frame(bytes) => bytes,
        }
    }
}

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection broke off.
    Gone,
    /// The stream was reset.
    Reset(Code),
    /// It is malformed.
    Bad,
}

impl From<Ended> for Broken {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Reset(code) => Broken::Reset(code),
            Ended::Alien | Ended::Torn => Broken::Bad,
            Ended::Unprocessed | Ended::Broken | Ended::Lost => Broken::Gone,
        }
    }
}

impl Inflow {
    /// The body of a message of HTTP/1 whose head was consumed from `reader`.
    pub(super) fn new(reader: Box<Reader>, framing: Framing) -> Self {
        Inflow::Http1(Http1::new(reader, framing))
    }

    /// The body of a client's request, which is answered through `response`.
    pub(super) fn of_request(receiver: Receiver, response: Arc<Sender>) -> Self {
        Inflow::Http2 { receiver, response: Some(response) }
    }

    /// The body of a replica's response.
    pub(super) fn of_response(receiver: Receiver) -> Self {
        Inflow::Http2 { receiver, response: None }
    }

    /// Looks out for a client that leaves.
    pub(super) fn watch(&self) -> Watch<'_> {
        match self {
            Inflow::Http1(body) => Watch::of_connection(body.reader()),
            Inflow::Http2 { response, .. } => Watch::of_stream(response.as_deref()),
        }
    }

    /// The whole body as it is to be sent, if all of it was read already: it is not consumed by that. `chunked`: chunks
    /// may be sent as chunks.
    pub(super) fn at_hand(&self, chunked: bool) -> Option<&[u8]> {
        match self {
            Inflow::Http1(body) => body.at_hand(chunked),
            Inflow::Http2 { receiver, .. } => receiver.is_empty().then_some(b""),
        }
    }

    /// Whether the whole body was handed out.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Inflow::Http1(body) => body.is_done(),
            Inflow::Http2 { receiver, .. } => receiver.is_done(),
        }
    }

    /// The next bytes of the body; nothing once it is whole. May be dropped while it waits.
    pub(super) async fn piece(&mut self) -> Result<Option<Piece<'_>>, Broken> {
        match self {
            Inflow::Http1(body) => Ok(body.piece().await?.map(|(bytes, last)| Piece::lent(bytes, last))),
            Inflow::Http2 { receiver, .. } => {
                let frame = receiver.piece().await?;
                Ok(frame.map(|frame| Piece { bytes: Held::Frame(frame), last: receiver.is_done() }))
            }
        }
    }

    /// What stood behind the body that is done, in lines.
    pub(super) fn trailers(&self) -> &[u8] {
        match self {
            Inflow::Http1(body) => body.trailers(),
            Inflow::Http2 { receiver, .. } => receiver.trailers(),
        }
    }

    /// The reader, behind the body, which was taken whole: for the next message of HTTP/1.
    pub(super) fn into_next(self) -> Option<Box<Reader>> {
        match self {
            Inflow::Http1(body) => body.into_next(),
            Inflow::Http2 { .. } => None,
        }
    }

    /// The connection's own body, of HTTP/1.
    pub(super) fn into_http1(self) -> Option<Http1> {
        match self {
            Inflow::Http1(body) => Some(body),
            Inflow::Http2 { .. } => None,
        }
    }
}
