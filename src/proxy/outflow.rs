//! Where a message's body goes, of either protocol.

use super::http2::Sender;
use super::socket::Writer;
use std::time::Duration;

/// A connection of HTTP/1, or a stream of HTTP/2.
#[derive(Debug)]
pub(super) enum Outflow<'a> {
    /// The connection is the message's alone, until it is whole.
    Http1(&'a mut Writer),
    /// Whose head was sent, or is sent before its body.
    Http2(&'a Sender),
}

impl Outflow<'_> {
    /// The same, for a while.
    pub(super) fn reborrow(&mut self) -> Outflow<'_> {
        match self {
            Outflow::Http1(writer) => Outflow::Http1(writer),
            Outflow::Http2(sender) => Outflow::Http2(sender),
        }
    }

    /// How long the peer kept its writer waiting.
    pub(super) fn waited(&self) -> Duration {
        match self {
            Outflow::Http1(writer) => writer.waited(),
            Outflow::Http2(sender) => sender.waited(),
        }
    }
}
