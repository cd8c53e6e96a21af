//! One TCP connection as two handles: a [`Reader`] that keeps what it read ahead, and a [`Writer`], so that one direction
//! never waits for the other.

use super::head::HEAD_READ;
use super::timer::Timer;
use crate::{linux, worker};
use bytes::{Buf, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// How long bytes sent to a replica may stay unacknowledged: as long as a silent connection is trusted (3 s, and three
/// questions a second apart). On one host's network an acknowledgement takes microseconds, from a process that hangs too.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(6);

/// Splits a connected socket, which is to send small writes at once: what is worth coalescing we coalesce ourselves.
pub(super) fn split(stream: TcpStream) -> (Box<Reader>, Writer) {
    let (reader, writer) = stream.into_split();
    let reader = Reader { half: reader, ahead: BytesMut::new() };
    (Box::new(reader), Writer { half: Some(writer), under_way: false, waited: Duration::ZERO, patient: false })
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Reader {
    half: OwnedReadHalf,
    /// What was read and nobody took yet. Never split, so that it stays one allocation; none while the connection rests.
    ahead: BytesMut,
}

impl Reader {
    /// What was read and not consumed.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Bytes of memory behind what is ahead.
    pub(super) fn held(&self) -> usize {
        self.ahead.capacity()
    }

    /// Forgets the first `count` bytes of what is ahead.
    pub(super) fn consume(&mut self, count: usize) {
        self.ahead.advance(count);
    }

    /// Gives the buffer back if nothing is in it: the connection will wait for a while.
    pub(super) fn rest(&mut self) {
        if self.ahead.is_empty() {
            worker::give_back(std::mem::take(&mut self.ahead));
        }
    }

    /// Reads once, up to `room` bytes or a little more, behind what is ahead. 0 is the end. While it waits it holds no
    /// buffer but for what is ahead.
    pub(super) async fn fill(&mut self, room: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx, room)).await
    }

    /// By the runtime's own read, because that one notes when it took all there was: the next read then costs no question
    /// to the kernel.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        ready!(self.half.as_ref().poll_read_ready(cx))?;
        if self.ahead.is_empty() {
            self.ahead = worker::buffer(std::mem::take(&mut self.ahead));
        }
        self.ahead.reserve(room);
        let read = std::pin::pin!(self.half.read_buf(&mut self.ahead)).poll(cx);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            self.rest();
        }
        read
    }

    /// Hands out what is ahead, or reads.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.half).poll_read(cx, into);
        }
        let count = self.ahead.len().min(into.remaining());
        into.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        self.rest();
        Poll::Ready(Ok(()))
    }

    /// What has come since the last read, as far as the runtime knows: no system call while that is nothing. A byte that
    /// came is lost.
    pub(super) fn news(&self) -> Peeked {
        let mut byte = [0];
        Peeked::from(self.half.try_read(&mut byte))
    }

    /// What is there to read, asked of the kernel and left there.
    pub(super) fn peek(&self) -> Peeked {
        Peeked::from(self.peek_byte())
    }

    /// Ready when something is there to read, which is left there.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<Peeked> {
        loop {
            if ready!(self.half.as_ref().poll_read_ready(cx)).is_err() {
                return Poll::Ready(Peeked::Broken);
            }
            match Peeked::from(self.half.as_ref().try_io(tokio::io::Interest::READABLE, || self.peek_byte())) {
                Peeked::Nothing => {}
                found => return Poll::Ready(found),
            }
        }
    }

    /// Returns once the connection is reset, whatever lies unread before that.
    pub(super) async fn reset(&self) {
        let _ = self.half.ready(tokio::io::Interest::ERROR).await;
    }

    fn peek_byte(&self) -> io::Result<usize> {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        socket2::SockRef::from(self.half.as_ref()).peek(&mut byte)
    }

    /// Reads and forgets what comes next. False: the peer closed.
    pub(super) async fn discard(&mut self) -> bool {
        self.ahead.clear();
        self.rest();
        matches!(self.fill(HEAD_READ).await, Ok(1..))
    }
}

/// What [`Reader::peek`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peeked {
    /// Nothing yet.
    Nothing,
    /// Bytes.
    Data,
    /// The peer will send nothing more.
    End,
    /// The connection is gone.
    Broken,
}

impl From<io::Result<usize>> for Peeked {
    fn from(peeked: io::Result<usize>) -> Self {
        match peeked {
            Ok(0) => Peeked::End,
            Ok(_) => Peeked::Data,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Peeked::Nothing,
            Err(_) => Peeked::Broken,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        worker::give_back(std::mem::take(&mut self.ahead));
    }
}

/// The writing side. Dropping it sends nothing; the connection closes when both sides are gone.
#[derive(Debug)]
pub(super) struct Writer {
    half: Option<OwnedWriteHalf>,
    /// Something is under way: dropped now, the connection is reset.
    under_way: bool,
    /// How long the peer kept its writer waiting since [`Writer::begin`].
    waited: Duration,
    /// Bytes may stay unacknowledged for as long as they like.
    patient: bool,
}

/// Why a write did not end.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The connection is gone; with how many bytes of this write had been taken.
    Gone { taken: usize },
    /// The peer took nothing for as long as was allowed.
    Stalled,
}

impl Writer {
    /// For whoever writes by other rules than [`Writer::write_all`].
    pub(super) fn half(&mut self) -> &mut OwnedWriteHalf {
        self.half.as_mut().expect("taken only by drop")
    }

    /// Writes all of `parts`, waiting at most `patience` whenever the peer takes nothing.
    pub(super) async fn write_all(
        &mut self,
        parts: [&[u8]; 3],
        timer: &mut Timer,
        patience: Duration,
    ) -> Result<(), WriteError> {
        let mut parts = parts;
        let total: usize = parts.iter().map(|p| p.len()).sum();
        let mut taken = 0;
        let mut deadline: Option<Instant> = None;
        while taken < total {
            let half = self.half();
            let wrote = std::future::poll_fn(|cx| {
                let slices = parts.map(IoSlice::new);
                let result = if parts[1].is_empty() && parts[2].is_empty() {
                    Pin::new(&mut *half).poll_write(cx, parts[0])
                } else {
                    Pin::new(&mut *half).poll_write_vectored(cx, &slices)
                };
                match result {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending => {
                        let deadline = *deadline.get_or_insert_with(|| crate::clock::now() + patience);
                        timer.poll_expired(cx, deadline).map(|()| None)
                    }
                }
            })
            .await;
            match wrote {
                None => return Err(WriteError::Stalled),
                Some(Err(_) | Ok(0)) => return Err(WriteError::Gone { taken }),
                Some(Ok(n)) => {
                    taken += n;
                    if let Some(deadline) = deadline.take() {
                        self.waited += (crate::clock::now() + patience).saturating_duration_since(deadline);
                    }
                    advance(&mut parts, n);
                }
            }
        }
        Ok(())
    }

    /// Ends the connection so that the peer sees a reset, never a clean end.
    pub(super) fn reset(&mut self) {
        let _ = socket2::SockRef::from(self.half().as_ref()).set_linger(Some(Duration::ZERO));
    }

    /// From here to [`Writer::end`] dropping it resets the connection: the task was ended in the middle of something, and
    /// no peer may take what it got for the whole.
    pub(super) fn begin(&mut self) {
        self.under_way = true;
        self.waited = Duration::ZERO;
    }

    /// How long the peer kept its writer waiting since [`Writer::begin`].
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// From here to [`Writer::expect_acks`] the peer may leave bytes unread for as long as it likes.
    pub(super) fn await_acks(&mut self) {
        self.patient = true;
        let _ = linux::set_user_timeout(&socket2::SockRef::from(self.half().as_ref()), None);
    }

    /// Takes back [`Writer::await_acks`].
    pub(super) fn expect_acks(&mut self) {
        if std::mem::take(&mut self.patient) {
            let _ = linux::set_user_timeout(&socket2::SockRef::from(self.half().as_ref()), Some(UNACKNOWLEDGED));
        }
    }

    /// What [`Writer::begin`] began is whole, or its peer knows that it is not.
    pub(super) fn end(&mut self) {
        self.under_way = false;
    }

    /// Says that nothing more will come; the other direction stays open.
    pub(super) fn finish(&mut self) {
        let _ = socket2::SockRef::from(self.half().as_ref()).shutdown(std::net::Shutdown::Write);
    }

    /// Has the kernel notice a client that vanished, for connections that may rightly be silent for hours. Not for a
    /// replica's socket, which has shorter times since it was dialled.
    pub(super) fn keep_alive(&mut self) {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15))
            .with_retries(4);
        let _ = socket2::SockRef::from(self.half().as_ref()).set_tcp_keepalive(&keepalive);
    }
}

impl Drop for Writer {
    /// Tokio's half would shut the direction down, and a reset must not begin with a clean end.
    fn drop(&mut self) {
        if self.under_way {
            self.reset();
        }
        if let Some(half) = self.half.take() {
            half.forget();
        }
    }
}

/// Takes `n` written bytes off the front.
fn advance(parts: &mut [&[u8]; 3], mut n: usize) {
    for part in parts {
        let step = n.min(part.len());
        *part = &part[step..];
        n -= step;
    }
}
