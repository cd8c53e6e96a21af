//! A TCP connection, of which the first bytes may have been read already, as one stream of bytes for h2.

use crate::proxy::socket::{Reader, Writer};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
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
}

impl Wire {
    pub(super) fn new(reader: Box<Reader>, writer: Writer) -> Self {
        Wire { reader, writer }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reader.poll_read(cx, into)
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
