//! A message's body on its way in, from the connection that it comes over.
//!
//! A body of known length, or one that ends with its connection, is read here, from the buffer that its head was read
//! into. Chunks are pingora's business: its sessions decode them. As the head has been read already, a session is shown
//! one that says no more than that chunks follow.

use super::fields::Framing;
use super::head::HEAD_READ;
use super::socket::Reader;
use bytes::Bytes;
use pingora_core::protocols::http::v1::{client, server};
use pingora_error::{BError, ErrorType};

/// One read of a body at most.
const BODY_READ: usize = 64 * 1024;

/// Says that chunks follow, and nothing else.
const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Likewise.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A body, and the reader that it comes from.
pub(super) struct Inflow(Source);

enum Source {
    Plain {
        reader: Box<Reader>,
        /// Bytes of the body that are not consumed yet, where the length is known.
        left: Option<u64>,
        /// How many of those lie ahead and were handed out.
        given: usize,
    },
    Request {
        session: Box<server::HttpSession>,
        begun: bool,
        piece: Bytes,
    },
    Response {
        session: Box<client::HttpSession>,
        begun: bool,
    },
}

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection broke off.
    Gone,
    /// The chunks are malformed.
    Bad,
}

impl From<BError> for Broken {
    fn from(error: BError) -> Self {
        match error.etype() {
            ErrorType::ReadError | ErrorType::ConnectionClosed => Broken::Gone,
            _ => Broken::Bad,
        }
    }
}

impl Inflow {
    /// The body of a request whose head was consumed from `reader`.
    pub(super) fn request(mut reader: Box<Reader>, framing: Framing) -> Self {
        Inflow(match length(framing) {
            Ok(left) => Source::Plain { reader, left, given: 0 },
            Err(Chunks) => {
                reader.unread(REQUEST);
                let mut session = Box::new(server::HttpSession::new(reader));
                session.set_read_timeout(None);
                session.set_pipelining_enabled(true);
                Source::Request { session, begun: false, piece: Bytes::new() }
            }
        })
    }

    /// The body of a response whose head was consumed from `reader`.
    pub(super) fn response(mut reader: Box<Reader>, framing: Framing) -> Self {
        Inflow(match length(framing) {
            Ok(left) => Source::Plain { reader, left, given: 0 },
            Err(Chunks) => {
                reader.unread(RESPONSE);
                Source::Response { session: Box::new(client::HttpSession::new(reader)), begun: false }
            }
        })
    }

    /// Who reads it.
    pub(super) fn reader(&self) -> Option<&Reader> {
        match &self.0 {
            Source::Plain { reader, .. } => Some(reader),
            Source::Request { session, .. } => Reader::in_stream(session.stream()),
            Source::Response { session, .. } => Reader::in_stream(session.stream()),
        }
    }

    /// All that is left of the body, if that was read already: it can be sent without being consumed.
    pub(super) fn at_hand(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Plain { reader, left: Some(left), given: 0 } => {
                usize::try_from(*left).ok().and_then(|left| reader.ahead().get(..left))
            }
            _ => None,
        }
    }

    /// Whether the whole body was handed out.
    pub(super) fn is_done(&mut self) -> bool {
        match &mut self.0 {
            Source::Plain { left, given, .. } => *left == Some(*given as u64),
            Source::Request { session, begun, .. } => *begun && session.is_body_done(),
            Source::Response { session, begun } => *begun && session.is_body_done(),
        }
    }

    /// Whether the body was read whole, and nothing behind it.
    pub(super) fn is_last(&self) -> bool {
        match &self.0 {
            Source::Plain { reader, left, .. } => *left == Some(reader.ahead().len() as u64),
            _ => false,
        }
    }

    /// The next bytes of the body; nothing once it is whole. May be dropped while it waits.
    pub(super) async fn piece(&mut self) -> Result<Option<&[u8]>, Broken> {
        match &mut self.0 {
            Source::Plain { reader, left, given } => plain_piece(reader, left, given).await,
            Source::Request { session, begun, piece } => {
                if !std::mem::replace(begun, true) {
                    session.read_request().await?.ok_or(Broken::Gone)?;
                }
                Ok(session.read_body_bytes().await?.map(|bytes| {
                    *piece = bytes;
                    &**piece
                }))
            }
            Source::Response { session, begun } => {
                if !std::mem::replace(begun, true) {
                    session.read_response().await?;
                }
                Ok(session.read_body_ref().await?)
            }
        }
    }

    /// The reader, behind the body, which was taken whole: for the next message.
    pub(super) async fn into_next(self) -> Option<Box<Reader>> {
        match self.0 {
            Source::Plain { mut reader, left, .. } => {
                let left = usize::try_from(left?).ok().filter(|left| *left <= reader.ahead().len())?;
                reader.consume(left);
                Some(reader)
            }
            Source::Request { session, begun: true, .. } => {
                let (stream, surplus) = Box::pin(session.reuse()).await.ok()??.into_parts();
                let mut reader = Reader::from_stream(stream)?;
                if let Some(surplus) = surplus {
                    reader.unread(&surplus);
                }
                Some(reader)
            }
            Source::Response { mut session, begun: true } => {
                session.respect_keepalive();
                Box::pin(session.reuse()).await.and_then(Reader::from_stream)
            }
            _ => None,
        }
    }

    /// The reader, wherever it stands.
    pub(super) fn into_reader(self) -> Option<Box<Reader>> {
        match self.0 {
            Source::Plain { reader, .. } => Some(reader),
            Source::Request { session, .. } => Reader::from_stream(session.into_inner()),
            Source::Response { session, .. } => Reader::from_stream(session.into_inner()),
        }
    }
}

/// A body that has no length but comes in chunks.
struct Chunks;

/// The length of a body, if it has one.
fn length(framing: Framing) -> Result<Option<u64>, Chunks> {
    match framing {
        Framing::Empty => Ok(Some(0)),
        Framing::Length(length) => Ok(Some(length)),
        Framing::ToClose => Ok(None),
        Framing::Chunked => Err(Chunks),
    }
}

async fn plain_piece<'r>(
    reader: &'r mut Reader,
    left: &mut Option<u64>,
    given: &mut usize,
) -> Result<Option<&'r [u8]>, Broken> {
    reader.consume(*given);
    *left = left.map(|left| left - *given as u64);
    *given = 0;
    if *left == Some(0) {
        return Ok(None);
    }
    if reader.ahead().is_empty() {
        let expected = left.map_or(BODY_READ, |left| usize::try_from(left).unwrap_or(BODY_READ));
        match reader.fill(expected.clamp(HEAD_READ, BODY_READ)).await {
            Ok(0) if left.is_none() => {
                *left = Some(0);
                return Ok(None);
            }
            Ok(0) | Err(_) => return Err(Broken::Gone),
            Ok(_) => {}
        }
    }
    let ahead = reader.ahead();
    *given = left.map_or(ahead.len(), |left| usize::try_from(left).map_or(ahead.len(), |left| left.min(ahead.len())));
    Ok(Some(&ahead[..*given]))
}
