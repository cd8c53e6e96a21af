//! The two directions of an exchange with a replica, of either protocol.

use super::fields::{Delimiter, Fault, Framing};
use super::head::{self, HeadError};
use super::http2::{Call, Ended, Sender};
use super::inflow::Inflow;
use super::outflow::Outflow;
use super::response::ResponseHead;
use super::socket::{Reader, Writer};
use std::time::Duration;

/// What comes from the replica.
pub(super) enum Incoming {
    Http1 {
        reader: Box<Reader>,
        /// For how long the connection rested, if it carried requests before.
        rested: Option<Duration>,
    },
    Http2(Call),
}

/// What goes to it.
pub(super) enum Outgoing {
    Http1(Writer),
    Http2(Sender),
}

/// Why no head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    Http1(HeadError),
    Http2(Ended),
}

impl Outgoing {
    /// Where the request's body goes.
    pub(super) fn flow(&mut self) -> Outflow<'_> {
        match self {
            Outgoing::Http1(writer) => Outflow::Http1(writer),
            Outgoing::Http2(sender) => Outflow::Http2(sender),
        }
    }
}

impl Incoming {
    /// The next head, interim or final, of at most `max_head` bytes: its length and status. It stays where it is.
    pub(super) async fn head(&mut self, max_head: usize) -> Result<(usize, u16), NoHead> {
        match self {
            Incoming::Http1 { reader, .. } => head::read_response(reader, max_head).await.map_err(NoHead::Http1),
            Incoming::Http2(call) => {
                let status = call.head().await.map_err(NoHead::Http2)?;
                Ok((call.raw().len(), status))
            }
        }
    }

    /// Reads the head that [`Incoming::head`] told of. `to_head`: it answers a HEAD.
    pub(super) fn read(&self, length: usize, status: u16, to_head: bool) -> Result<ResponseHead<'_>, Fault> {
        match self {
            Incoming::Http1 { reader, .. } => ResponseHead::read(&reader.ahead()[..length], status, to_head),
            Incoming::Http2(call) => {
                let delimiter = Delimiter::Stream { ended: call.is_bare() };
                ResponseHead::read_as(call.raw(), status, to_head, delimiter)
            }
        }
    }

    /// Forgets that head.
    pub(super) fn consume(&mut self, length: usize) {
        match self {
            Incoming::Http1 { reader, .. } => reader.consume(length),
            Incoming::Http2(_) => {}
        }
    }

    /// For how long the connection had rested, if this error may be because its replica closed it meanwhile.
    pub(super) fn rested(&self, error: NoHead) -> Option<Duration> {
        match (self, error) {
            // What no HTTP begins with was sent before this request came: it is not the answer to it.
            (Incoming::Http1 { reader, rested }, NoHead::Http1(error)) => {
                let unasked = reader.ahead().is_empty() || error == HeadError::Alien;
                rested.filter(|_| unasked && error != HeadError::Lost)
            }
            _ => None,
        }
    }

    /// What follows the final head, and what counts the stream for as long as it is there.
    pub(super) fn into_body(self, framing: Framing) -> (Inflow, Option<Call>) {
        match self {
            Incoming::Http1 { reader, .. } => (Inflow::new(reader, framing), None),
            Incoming::Http2(mut call) => {
                let body = call.take_body().expect("the head was the final one");
                (Inflow::of_response(body), Some(call))
            }
        }
    }
}
