//! HTTP/2 on both sides, below the flow of a request: the only place that names the `h2` crate.
//!
//! The flow knows heads as HTTP/1 writes them, and bodies as pieces. So a stream's head is written as one of HTTP/1 and
//! judged by the very rules of HTTP/1 ([`head`]), a body is a [`Receiver`] on one side and a [`Sender`] on the other, and
//! what a stream's end means is told in the words of [`Ended`]. A client's connection is served by [`serve`]; connections
//! to a replica, which many requests share, are [`shared`]; a probe has one of its own ([`ask`]).
//!
//! h2 itself bounds what a peer can ask for: streams that are reset before they are served, frames of CONTINUATION, empty
//! DATA frames, acknowledgements that it has yet to write. What it takes in is bounded by the windows below. What else a
//! client must not do is found before by [`frames`].
//!
//! pingora's sessions would be an alternative. They wrap this crate, bring ninety more and a C compiler's work, hide the
//! error of a stream that proves that nothing was processed behind a flag that is set in other cases, too, and keep the
//! loop that accepts streams, with its bounds, to themselves.

mod ask;
mod frames;
#[cfg(any(test, fuzzing))]
pub(in crate::proxy) mod fuzz;
mod head;
mod serve;
mod shared;
mod stream;
mod wire;

pub use ask::{Silent, ask};
pub(super) use head::{request as request_head, response as response_head, trailers};
pub(super) use serve::serve;
pub use shared::Shared;
pub(super) use shared::{Call, Opening};
pub(super) use stream::{Ended, Gone, Receiver, Sender};
pub(super) use wire::{PREFACE, begins};

use h2::Reason;

/// Streams that a client may have open on one connection: what servers commonly allow. Who needs more opens another.
const MAX_STREAMS: u32 = 128;

/// Bytes of one stream's body that its sender may send ahead of its reader: on a container network's round trip of a
/// tenth of a millisecond that is half a gigabyte a second.
const WINDOW: u32 = 64 * 1024;

/// The same for all streams of a connection together: none waits because another's reader is slow.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * WINDOW;

/// Bytes of a stream that lie ready to be written while the connection takes none.
const SEND_BUFFER: usize = WINDOW as usize;

/// Frames are as large as a reader has to accept (RFC 9113 section 4.2): a larger one would hold others up for longer.
const FRAME: u32 = 16 * 1024;

/// Streams that a peer may reset before they were served, until its connection is closed: rapid reset (CVE-2023-44487).
const MAX_RESETS: usize = 64;

/// A stream's error code (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The peer broke a rule that has no code of its own.
    pub(super) const PROTOCOL: Code = Code(1);
    /// The peer sent more than it was allowed, or allowed more than can be.
    pub(super) const FLOW_CONTROL: Code = Code(3);
    /// A frame on a stream that its sender had ended.
    pub(super) const STREAM_CLOSED: Code = Code(5);
    /// A frame has a size that its kind cannot have.
    pub(super) const FRAME_SIZE: Code = Code(6);
    /// A block of fields is no HPACK.
    pub(super) const COMPRESSION: Code = Code(9);
    /// Much work is asked for, and nothing is wanted.
    pub(super) const ENHANCE_YOUR_CALM: Code = Code(11);
    /// Something in the proxy, or behind it, broke.
    pub(super) const INTERNAL: Code = Code(2);
    /// Nobody wants it any more.
    pub(super) const CANCEL: Code = Code(8);

    fn reason(self) -> Reason {
        Reason::from(self.0)
    }
}
