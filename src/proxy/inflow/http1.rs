//! A body of HTTP/1 on its way in, from the buffer that its head was read into and the connection behind that.

use super::Broken;
use crate::proxy::chunked::{Decoder, Found, Step};
use crate::proxy::fields::Framing;
use crate::proxy::head::HEAD_READ;
use crate::proxy::socket::Reader;

/// One read of a body at most.
const BODY_READ: usize = 64 * 1024;

/// A body, and the reader that it comes from.
pub(in crate::proxy) struct Http1 {
    reader: Box<Reader>,
    rest: Rest,
    /// How many bytes of the body lie ahead and were handed out.
    given: usize,
    /// The size of the next read where nothing tells how much is to come.
    room: usize,
    /// What came behind the last chunk, in lines.
    trailers: Vec<u8>,
}

/// What of a body was not handed out yet.
enum Rest {
    Length(u64),
    ToClose,
    Chunks(Decoder),
}

impl Http1 {
    /// The body of a message whose head was consumed from `reader`.
    pub(in crate::proxy) fn new(reader: Box<Reader>, framing: Framing) -> Self {
        let (rest, room) = match framing {
            Framing::Empty => (Rest::Length(0), HEAD_READ),
            Framing::Length(length) => (Rest::Length(length), HEAD_READ),
            Framing::ToClose => (Rest::ToClose, BODY_READ),
            Framing::Chunked => (Rest::Chunks(Decoder::new()), HEAD_READ),
        };
        Http1 { reader, rest, given: 0, room, trailers: Vec::new() }
    }

    /// Who reads it.
    pub(in crate::proxy) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The whole body as it is to be sent, if all of it was read already: it is not consumed by that. `chunked`: chunks
    /// may be sent as chunks.
    pub(in crate::proxy) fn at_hand(&self, chunked: bool) -> Option<&[u8]> {
        let ahead = self.reader.ahead();
        match &self.rest {
            _ if self.given > 0 => None,
            Rest::Length(left) => ahead.get(..usize::try_from(*left).ok()?),
            Rest::ToClose => None,
            Rest::Chunks(_) if !chunked => None,
            Rest::Chunks(decoder) => {
                let mut decoder = decoder.clone();
                let length = rest_of(&mut decoder, ahead)?;
                decoder.is_canonical().then_some(&ahead[..length])
            }
        }
    }

    /// Whether the whole body was handed out.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        match &self.rest {
            Rest::Length(left) => *left == 0,
            Rest::ToClose => false,
            Rest::Chunks(decoder) => decoder.is_done(),
        }
    }

    /// Whether the body was read whole, and nothing behind it.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        self.left_ahead() == Some(self.reader.ahead().len())
    }

    /// The next bytes of the body, and whether they are the last; nothing once it is whole. May be dropped while it waits.
    pub(in crate::proxy) async fn piece(&mut self) -> Result<Option<(&[u8], bool)>, Broken> {
        loop {
            self.reader.consume(std::mem::take(&mut self.given));
            let here = self.reader.ahead().len();
            match &mut self.rest {
                Rest::Length(0) => return Ok(None),
                Rest::Length(left) if here > 0 => {
                    self.given = usize::try_from(*left).map_or(here, |left| left.min(here));
                    *left -= self.given as u64;
                }
                Rest::ToClose if here > 0 => self.given = here,
                Rest::Length(_) | Rest::ToClose => {}
                Rest::Chunks(decoder) => {
                    let Step { framing, found } = decoder.decode(self.reader.ahead()).map_err(|_| Broken::Bad)?;
                    self.reader.consume(framing);
                    match found {
                        Found::Data(count) => self.given = count,
                        Found::Trailers(count) => {
                            // The decoder bounds them.
                            self.trailers.extend_from_slice(&self.reader.ahead()[..count]);
                            self.reader.consume(count);
                        }
                        Found::End => return Ok(None),
                        Found::Nothing => {}
                    }
                }
            }
            if self.given > 0 {
                let last = matches!(self.rest, Rest::Length(0));
                return Ok(Some((&self.reader.ahead()[..self.given], last)));
            }
            if self.reader.ahead().is_empty() && !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads more of the body; false where the connection's end is the body's.
    async fn fill(&mut self) -> Result<bool, Broken> {
        let expected = match &self.rest {
            Rest::Length(left) => *left,
            Rest::ToClose => 0,
            Rest::Chunks(decoder) => decoder.left_of_chunk(),
        };
        let room = usize::try_from(expected).unwrap_or(BODY_READ).clamp(self.room, BODY_READ);
        match self.reader.fill(room).await {
            Ok(0) if matches!(self.rest, Rest::ToClose) => {
                self.rest = Rest::Length(0);
                Ok(false)
            }
            Ok(0) | Err(_) => Err(Broken::Gone),
            Ok(count) => {
                // Small chunks say little about what follows: as long as each read is filled, the next is larger.
                if count >= self.room {
                    self.room = (self.room * 2).min(BODY_READ);
                }
                Ok(true)
            }
        }
    }

    /// What stood behind the body, in lines.
    pub(in crate::proxy) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// The reader, behind the body, which was taken whole: for the next message.
    pub(in crate::proxy) fn into_next(mut self) -> Option<Box<Reader>> {
        let left = self.left_ahead()?;
        self.reader.consume(left);
        Some(self.reader)
    }

    /// The reader, wherever it stands.
    pub(in crate::proxy) fn into_reader(self) -> Box<Reader> {
        self.reader
    }

    /// How many bytes of what lies ahead are the body's, if it ends there.
    fn left_ahead(&self) -> Option<usize> {
        let ahead = self.reader.ahead();
        let left = match &self.rest {
            Rest::Length(left) => usize::try_from(*left).ok()?,
            Rest::ToClose => return None,
            Rest::Chunks(decoder) => rest_of(&mut decoder.clone(), &ahead[self.given..])?,
        };
        Some(self.given + left).filter(|left| *left <= ahead.len())
    }
}

/// The length of the rest of a body in chunks, if it ends in `bytes`.
fn rest_of(decoder: &mut Decoder, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Step { framing, found } = decoder.decode(&bytes[at..]).ok()?;
        at += framing;
        match found {
            Found::Data(count) | Found::Trailers(count) => at += count,
            Found::End => return Some(at),
            Found::Nothing => return None,
        }
    }
}
