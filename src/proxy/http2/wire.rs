//! A TCP connection, of which the first bytes may have been read already, as one stream of bytes for h2.

use super::Code;
use super::frames::Frames;
use crate::proxy::socket::{Reader, Writer};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How a client's connection begins that speaks HTTP/2 (RFC 9113 section 3.4).
pub(in crate::proxy) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection of which these bytes came first may be one of HTTP/2.
pub(in crate::proxy) fn begins(ahead: &[u8]) -> bool {
    let known = ahead.len().min(PREFACE.len());
    ahead[..known] == PREFACE[..known]
}

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    reader: Box<Reader>,
    writer: Writer,
    /// Of a client's.
    watch: Option<(Frames, Arc<Violation>)>,
}

/// What a client did wrong, once it did.
#[derive(Debug, Default)]
pub(super) struct Violation {
    code: OnceLock<Code>,
}

impl Violation {
    /// Which it was.
    pub(super) fn code(&self) -> Option<Code> {
        self.code.get().copied()
    }
}

impl Wire {
    /// To a replica.
    pub(super) fn new(reader: Box<Reader>, writer: Writer) -> Self {
        Wire { reader, writer, watch: None }
    }

    /// From a client. What it does wrong is told to `violation`, and nothing of it is read any more.
    pub(super) fn watched(reader: Box<Reader>, writer: Writer, violation: Arc<Violation>) -> Self {
        Wire { reader, writer, watch: Some((Frames::new(), violation)) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let Wire { reader, watch, .. } = &mut *self;
        let Some((frames, violation)) = watch else { return reader.poll_read(cx, into) };
        if violation.code().is_some() {
            return Poll::Pending;
        }
        ready!(reader.poll_read(cx, into))?;
        if let Err(code) = frames.feed(&mut into.filled_mut()[before..], crate::clock::now) {
            let _ = violation.code.set(code);
            into.set_filled(before);
            // Whoever polls the connection looks at the violation right after.
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.writer.half()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.writer.half()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.finish();
        Poll::Ready(Ok(()))
    }
}
