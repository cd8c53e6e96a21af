//! Bodies on their way: a request's to the replica, a response's to the client. Each is one buffer deep; whoever reads
//! slowly slows down whoever writes.

use super::fields::{Framing, passing_trailers};
use super::http2::{self, Code};
use super::inflow::{Broken, Inflow, Piece};
use super::memory::Holding;
use super::outflow::Outflow;
use super::socket::WriteError;
use super::timer::Timer;
use crate::clock;
use std::io::Write as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Bytes of a request's body that are kept for sending it again.
const REPLAY_LIMIT: usize = 64 * 1024;

/// Small pieces are gathered up to this size while more is at hand: a head and a short body are one write. Larger ones
/// go out from where they lie.
const GATHER: usize = 16 * 1024;

/// How long is waited for either side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For whoever reads to take something.
    pub(super) write: Duration,
    /// For whoever sends to send something; `None` for a stream.
    pub(super) pause: Option<Duration>,
}

impl From<Duration> for Patience {
    fn from(patience: Duration) -> Self {
        Patience { write: patience, pause: Some(patience) }
    }
}

/// A message on its way out.
#[derive(Debug)]
struct Outgoing<'a> {
    outflow: Outflow<'a>,
    timer: &'a mut Timer,
    patience: Patience,
    chunked: bool,
    /// Gathered and not yet written; the message's head to begin with.
    gathered: &'a mut Vec<u8>,
    /// Whether any byte was written.
    started: bool,
    /// Whether its end was sent.
    ended: bool,
    /// Whether the sender owes the body already: until then it may pause for as long as it likes.
    due: &'a AtomicBool,
}

/// For a body that is owed from the beginning.
static DUE: AtomicBool = AtomicBool::new(true);

impl Outgoing<'_> {
    /// Sends the message's head, perhaps later: a large one goes out from where it lies.
    async fn push_head(&mut self, head: &[u8]) -> Result<(), WriteError> {
        if head.len() > GATHER {
            return self.write(head, b"").await;
        }
        self.gathered.extend_from_slice(head);
        Ok(())
    }

    /// Sends a piece of the body, perhaps later.
    async fn push(&mut self, piece: Piece<'_>) -> Result<(), WriteError> {
        if piece.is_empty() {
            return Ok(());
        }
        if let Outflow::Http2(sender) = &self.outflow {
            self.started = true;
            self.ended = piece.last;
            let last = piece.last;
            return sender.send(piece.into_bytes(), last, self.timer, self.patience.write).await;
        }
        let after: &[u8] = if self.chunked { b"\r\n" } else { b"" };
        if self.chunked {
            let _ = write!(self.gathered, "{:x}\r\n", piece.len());
        }
        if self.gathered.len() + piece.len() <= GATHER {
            self.gathered.extend_from_slice(&piece);
            self.gathered.extend_from_slice(after);
            return Ok(());
        }
        self.write(&piece, after).await
    }

    /// Sends the end of the body with these trailers, and all that was gathered.
    async fn finish(&mut self, trailers: &[u8]) -> Result<(), WriteError> {
        if let Outflow::Http2(sender) = &self.outflow {
            if self.ended {
                return Ok(());
            }
            self.ended = true;
            let trailers = http2::trailers(&passing_trailers(trailers));
            return sender.finish(trailers).map_err(|_| WriteError::Gone { taken: 1 });
        }
        if self.chunked {
            self.gathered.extend_from_slice(b"0\r\n");
            self.gathered.extend_from_slice(&passing_trailers(trailers));
            self.gathered.extend_from_slice(b"\r\n");
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), WriteError> {
        self.write(b"", b"").await
    }

    async fn write(&mut self, piece: &[u8], after: &[u8]) -> Result<(), WriteError> {
        let Outflow::Http1(writer) = &mut self.outflow else { return Ok(()) };
        let result = writer.write_all([self.gathered, piece, after], self.timer, self.patience.write).await;
        self.started |= !matches!(result, Err(WriteError::Gone { taken: 0 }));
        self.gathered.clear();
        result
    }

    /// What `read` brings; while it brings nothing, what was gathered goes ahead. `None`: it took too long.
    async fn next<T>(&mut self, read: impl Future<Output = T>) -> Result<Option<T>, WriteError> {
        let mut read = pin!(read);
        let at_once = std::future::poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(output) = at_once.await {
            return Ok(Some(output));
        }
        self.flush().await?;
        let (timer, due, pause) = (&mut *self.timer, self.due, self.patience.pause);
        let mut deadline = None;
        let output = std::future::poll_fn(|cx| match (read.as_mut().poll(cx), pause) {
            (Poll::Ready(output), _) => Poll::Ready(Some(output)),
            (Poll::Pending, Some(pause)) if due.load(Ordering::Relaxed) => {
                let deadline = *deadline.get_or_insert_with(|| clock::now() + pause);
                timer.poll_expired(cx, deadline).map(|()| None)
            }
            (Poll::Pending, _) => Poll::Pending,
        });
        Ok(output.await)
    }
}

/// How far a request's body is, across attempts.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    kept: Vec<u8>,
    holding: Holding<'a>,
    /// The client has sent all of it.
    complete: bool,
    /// More came than is kept.
    overflown: bool,
}

impl<'a> Replay<'a> {
    /// Of a body of which nothing came yet. `holding`: what is kept of it counts there.
    pub(super) fn new(holding: Holding<'a>) -> Self {
        Replay { kept: Vec::new(), holding, complete: false, overflown: false }
    }

    /// Whether the body can be sent from its start.
    pub(super) fn is_whole(&self) -> bool {
        !self.overflown
    }

    /// Whether nothing of the body was taken from its connection.
    pub(super) fn is_untouched(&self) -> bool {
        self.kept.is_empty() && !self.complete && !self.overflown
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.overflown {
            return;
        }
        if self.make_room(piece.len()) {
            self.kept.extend_from_slice(piece);
        } else {
            self.overflown = true;
            self.kept = Vec::new();
            let _ = self.holding.set(0);
        }
    }

    /// Whether so much more may be kept.
    fn make_room(&mut self, more: usize) -> bool {
        let size = self.kept.len() + more;
        if size > REPLAY_LIMIT {
            return false;
        }
        if size > self.kept.capacity() {
            let capacity = size.max(2 * self.kept.capacity()).min(REPLAY_LIMIT);
            if self.holding.set(capacity).is_err() {
                return false;
            }
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        true
    }
}

/// Why an upload ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadError {
    /// The client left.
    ClientGone,
    /// The client stopped sending.
    ClientSlow,
    /// The client's chunks are malformed.
    ClientBad,
    /// The replica takes no more; with whether it took anything of this attempt.
    Replica { started: bool },
}

/// Sends a request: the `head`, then the body as the client brings it. While none is there the head goes ahead: the
/// replica may have to ask for the body (100 Continue), or refuse it first. `due`: whether the client owes the body, as it
/// does once it was asked for it or begins unasked. Gives the body back; and once all of it is sent, whether it is kept
/// whole.
pub(super) async fn upload<'s>(
    inflow: &'s mut Inflow,
    outflow: Outflow<'_>,
    head: &[u8],
    framing: Framing,
    replay: &mut Replay<'_>,
    due: &AtomicBool,
    patience: Patience,
) -> (&'s Inflow, Result<bool, UploadError>) {
    let mut timer = Timer::new(clock::now() + patience.write);
    let mut gathered = Vec::new();
    let chunked = framing == Framing::Chunked;
    let (timer, gathered) = (&mut timer, &mut gathered);
    let mut out = Outgoing { outflow, timer, patience, chunked, gathered, started: false, ended: false, due };
    let result = send(inflow, &mut out, head, replay).await;
    let result = result.map_err(|error| match error {
        UploadError::Replica { .. } => UploadError::Replica { started: out.started },
        other => other,
    });
    (inflow, result.map(|()| replay.is_whole()))
}

async fn send(
    inflow: &mut Inflow,
    out: &mut Outgoing<'_>,
    head: &[u8],
    replay: &mut Replay<'_>,
) -> Result<(), UploadError> {
    let gone = |_: WriteError| UploadError::Replica { started: true };
    // A stream's head went ahead.
    if matches!(out.outflow, Outflow::Http1(_)) {
        out.push_head(head).await.map_err(gone)?;
    } else {
        out.started = true;
    }
    out.push(Piece::lent(&replay.kept, false)).await.map_err(gone)?;
    while !replay.complete {
        match out.next(inflow.piece()).await.map_err(gone)? {
            None => return Err(UploadError::ClientSlow),
            Some(Ok(None)) => replay.complete = true,
            Some(Ok(Some(piece))) => {
                out.due.store(true, Ordering::Relaxed);
                // What cannot be kept is forgotten before it is sent: from here on nothing is repeated.
                replay.keep(&piece);
                out.push(piece).await.map_err(gone)?;
                replay.complete = inflow.is_done();
            }
            Some(Err(Broken::Gone | Broken::Reset(_))) => return Err(UploadError::ClientGone),
            Some(Err(Broken::Bad)) => return Err(UploadError::ClientBad),
        }
    }
    out.finish(inflow.trailers()).await.map_err(gone)
}

/// Why a download ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DownloadError {
    /// The client left.
    ClientGone,
    /// The client stopped reading.
    ClientSlow,
    /// The client's own body broke off, stopped or was malformed, so that the response is not one to all of it. The client
    /// may still read.
    UploadFailed,
    /// The replica broke off.
    ReplicaBroken,
    /// The replica reset the stream.
    ReplicaReset(Code),
    /// The replica sent malformed chunks; with whether the client got anything of the response.
    ReplicaBad { started: bool },
    /// The replica stopped sending.
    ReplicaSlow,
}

/// Passes on a response: its head, in `gathered` already, then its body, in chunks if `chunked`.
pub(super) async fn download(
    inflow: &mut Inflow,
    outflow: Outflow<'_>,
    gathered: &mut Vec<u8>,
    chunked: bool,
    timer: &mut Timer,
    patience: Patience,
) -> Result<(), DownloadError> {
    let gone = |error: WriteError| match error {
        WriteError::Gone { .. } => DownloadError::ClientGone,
        WriteError::Stalled => DownloadError::ClientSlow,
    };
    // A stream's head went ahead.
    let started = matches!(outflow, Outflow::Http2(_));
    let mut out = Outgoing { outflow, timer, patience, chunked, gathered, started, ended: false, due: &DUE };
    while !inflow.is_done() {
        match out.next(inflow.piece()).await.map_err(gone)? {
            None => return Err(DownloadError::ReplicaSlow),
            Some(Ok(None)) => break,
            Some(Ok(Some(piece))) => out.push(piece).await.map_err(gone)?,
            // Nothing was said yet, so an answer of ours can still say what is wrong.
            Some(Err(Broken::Bad)) if !out.started => return Err(DownloadError::ReplicaBad { started: false }),
            Some(Err(broken)) => {
                // What came before the break is the client's.
                out.flush().await.map_err(gone)?;
                return Err(match broken {
                    Broken::Gone => DownloadError::ReplicaBroken,
                    Broken::Reset(code) => DownloadError::ReplicaReset(code),
                    Broken::Bad => DownloadError::ReplicaBad { started: true },
                });
            }
        }
    }
    out.finish(inflow.trailers()).await.map_err(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::memory::Memory;
    use crate::proxy::socket;
    use std::net::{TcpListener, TcpStream};

    /// Both ends of a connection, this side's as the runtime's.
    fn connection() -> (tokio::net::TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (tokio::net::TcpStream::from_std(near).unwrap(), listener.accept().unwrap().0)
    }

    // D1
    #[tokio::test]
    async fn an_upload_whose_first_write_meets_a_reset_can_be_sent_again_only_while_all_of_it_is_kept() {
        for (size, kept) in [(REPLAY_LIMIT, true), (REPLAY_LIMIT + 1, false)] {
            let (to_replica, replica) = connection();
            // Accepted and reset before anything was written, as a replica does that is ended.
            socket2::SockRef::from(&replica).set_linger(Some(Duration::ZERO)).unwrap();
            drop(replica);
            to_replica.readable().await.unwrap();
            let (_, mut writer) = socket::split(to_replica);

            let (from_client, client) = connection();
            let (mut reader, _writer) = socket::split(from_client);
            let sender = std::thread::spawn(move || {
                use std::io::Write;
                (&client).write_all(&vec![b'x'; size]).map(|()| client)
            });
            // All of it lies ready, so that the head does not go ahead of it.
            while reader.ahead().len() < size {
                assert!(reader.fill(size).await.unwrap() > 0);
            }
            let mut inflow = Inflow::new(reader, Framing::Length(size as u64));
            let memory = Memory::default();
            let mut replay = Replay::new(memory.extra(usize::MAX));
            let patience = Duration::from_secs(30);
            let framing = Framing::Length(size as u64);
            let (_, result) =
                upload(&mut inflow, Outflow::Http1(&mut writer), b"head", framing, &mut replay, &DUE, patience.into())
                    .await;
            assert_eq!(result, Err(UploadError::Replica { started: false }), "{size} bytes");
            assert_eq!(replay.is_whole(), kept, "{size} bytes");
            drop(sender.join().unwrap());
        }
    }
}
