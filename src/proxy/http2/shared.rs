//! Connections of HTTP/2 to one endpoint, which its requests share.
//!
//! They belong to the endpoint and lie apart by worker, as those of HTTP/1 do ([`crate::proxy::kept`]). A request takes the
//! one with the fewest streams; only where all are full another is dialled, by one request while the others wait for it.

use super::stream::{Ended, Receiver, Sender};
use super::wire::Wire;
use super::{CONNECTION_WINDOW, FRAME, SEND_BUFFER, WINDOW, head};
use crate::clock;
use crate::proxy::dial::DialError;
use crate::proxy::socket::{Reader, Writer};
use crate::worker;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong};
use http::{Request, StatusCode, response};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Streams of one connection that are used at most, however many the replica allows: a connection's bytes come in one
/// order, so that a lost packet stops them all, and one that breaks takes them all along.
const MOST_STREAMS: u32 = 128;

/// A connection beyond the first that had no stream for so long is closed: the load that needed it is over.
const SPARE: Duration = Duration::from_secs(30);

/// So often a replica is asked whether its process still answers, while it owes something …
const PING_EVERY: Duration = Duration::from_secs(5);

/// … but no more than so often before it has answered a request: servers of gRPC end the connection of a client that sends
/// a third ping in a row within five minutes (its "too many pings") …
const PINGS: u32 = 2;

/// … and then as seldom as they bear.
const PING_SELDOM: Duration = Duration::from_secs(330);

/// So long the answer may take. It comes from the loop that serves its streams, before any app.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Streams that are opened before the replica has said how many it takes: what all servers of note allow (RFC 9113 section
/// 6.5.2 advises no less).
const FIRST_STREAMS: usize = 100;

/// Streams given up by us of which h2 remembers for a while that what still comes for them is nobody's fault.
const MAX_ABANDONED: usize = 1024;

/// What the small frames that wait for their readers may cost, by h2's count (what each lacks to 256 bytes), until it takes
/// a connection for a flood: those of [`MOST_STREAMS`] streams whose readers stand still, each with a window full of frames
/// of ten bytes. A replica that sends smaller ones makes us hold some hundred bytes for each of a million frames at most.
const SMALL_FRAMES: usize = 256 << 20;

/// The connections to an endpoint, and who dials.
#[derive(Debug)]
pub struct Shared {
    by_worker: Box<[Slot]>,
}

/// Those of one worker.
#[derive(Debug, Default)]
struct Slot {
    open: Mutex<Vec<Connection>>,
    dialling: tokio::sync::Mutex<Option<Failed>>,
}

/// A dial in vain, which tells all who wanted its connection.
#[derive(Clone, Copy, Debug)]
struct Failed {
    at: Instant,
    error: DialError,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Bytes>,
    /// That of the lease under which it was dialled.
    generation: u32,
    usage: Arc<Usage>,
}

/// What is known of a connection where its requests are.
#[derive(Debug, Default)]
struct Usage {
    streams: AtomicU32,
    /// Heads of responses that came.
    answers: AtomicU32,
    /// It takes no new streams.
    closed: AtomicBool,
    /// When its last stream ended.
    idle_since: Mutex<Option<Instant>>,
}

/// The turn to dial; see [`Shared::turn`].
pub(in crate::proxy) struct Turn<'a> {
    failed: tokio::sync::MutexGuard<'a, Option<Failed>>,
}

impl Turn<'_> {
    /// The dial was in vain.
    pub(in crate::proxy) fn failed(&mut self, error: DialError) {
        *self.failed = Some(Failed { at: clock::now(), error });
    }
}

impl Shared {
    /// None yet.
    pub fn new(workers: usize) -> Self {
        Shared { by_worker: (0..workers).map(|_| Slot::default()).collect() }
    }

    /// Has no request take one of these any more; their streams go on to their end.
    pub fn retire(&self) {
        for slot in &self.by_worker {
            let open = std::mem::take(&mut *slot.open.lock());
            drop(open);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_worker.iter().map(|slot| slot.open.lock().len()).sum()
    }

    /// Lets go of those of this worker that are closed, spare, or of another generation: dialled while all were retired.
    pub fn sweep(&self, generation: u32, now: Instant) {
        let mut open = self.slot().open.lock();
        let mut first = true;
        open.retain(|connection| {
            let spare = !std::mem::take(&mut first) && connection.usage.is_idle_since(now, SPARE);
            connection.generation == generation && !connection.usage.closed.load(Ordering::Relaxed) && !spare
        });
    }

    /// A place on one of this worker's connections, for a lease of this generation.
    pub(in crate::proxy) fn open(&self, generation: u32) -> Option<Opening> {
        let mut open = self.slot().open.lock();
        open.retain(|connection| !connection.usage.closed.load(Ordering::Relaxed));
        let usable = open.iter().filter(|connection| connection.generation == generation);
        let best = usable.min_by_key(|connection| connection.usage.streams.load(Ordering::Relaxed))?;
        let most = u32::try_from(best.sender.current_max_send_streams()).unwrap_or(u32::MAX).min(MOST_STREAMS);
        (best.usage.streams.load(Ordering::Relaxed) < most).then(|| Opening::new(best))
    }

    /// The turn to dial, once nobody else of this worker does: there may be a connection by then. As an error, why a dial
    /// failed that was made meanwhile.
    pub(in crate::proxy) async fn turn(&self) -> Result<Turn<'_>, DialError> {
        let asked = clock::now();
        let failed = self.slot().dialling.lock().await;
        match &*failed {
            Some(Failed { at, error }) if *at > asked => Err(*error),
            _ => Ok(Turn { failed }),
        }
    }

    /// Begins HTTP/2 on a connection that was just made, and gives the first place on it.
    pub(in crate::proxy) async fn begin(
        &self,
        (reader, writer): (Box<Reader>, Writer),
        generation: u32,
        max_header: usize,
        patience: Duration,
    ) -> Result<Opening, DialError> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(FIRST_STREAMS)
            // Requests are given up all the time, for good reasons, and no count of them ends the others' connection.
            .max_local_error_reset_streams(None)
            .max_concurrent_reset_streams(MAX_ABANDONED)
            .data_frame_budget(SMALL_FRAMES)
            .max_header_list_size(u32::try_from(max_header).unwrap_or(u32::MAX));
        // The preface is written; the replica's is not awaited: whether it speaks HTTP/2 is seen by its first answer.
        let begun = timeout(patience, builder.handshake(Wire::new(reader, writer))).await;
        let (sender, mut connection) = begun.map_err(|_| DialError::TimedOut)?.map_err(|_| DialError::Refused)?;
        let usage = Arc::new(Usage::default());
        let pings = connection.ping_pong();
        let watched = usage.clone();
        tokio::spawn(async move {
            tokio::select! {
                // What has come is read first: it may be the answer.
                biased;
                _ = &mut connection => {}
                () = silence(pings, &watched) => {
                    // Requests that come take another connection; those that it has wait as they would on one of HTTP/1.
                    watched.closed.store(true, Ordering::Relaxed);
                    let _ = connection.await;
                }
            }
            watched.closed.store(true, Ordering::Relaxed);
        });
        let connection = Connection { sender, generation, usage };
        let opening = Opening::new(&connection);
        self.slot().open.lock().push(connection);
        Ok(opening)
    }

    fn slot(&self) -> &Slot {
        &self.by_worker[worker::index().min(self.by_worker.len() - 1)]
    }
}

/// Returns when the replica's process answers no ping though it owes something.
async fn silence(pings: Option<PingPong>, watched: &Usage) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let (mut sent, mut answers, mut last) = (0, 0, clock::now());
    loop {
        sleep(PING_EVERY).await;
        let now = clock::now();
        if std::mem::replace(&mut answers, watched.answers.load(Ordering::Relaxed)) != answers {
            sent = 0;
        }
        let may = sent < PINGS || now.saturating_duration_since(last) >= PING_SELDOM;
        if may && watched.streams.load(Ordering::Relaxed) > 0 {
            (sent, last) = (sent + 1, now);
            match timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The connection itself tells.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return,
            }
        }
    }
}

impl Usage {
    fn is_idle_since(&self, now: Instant, for_long: Duration) -> bool {
        let since = *self.idle_since.lock();
        self.streams.load(Ordering::Relaxed) == 0
            && since.is_some_and(|since| now.saturating_duration_since(since) >= for_long)
    }
}

/// A place on a connection, for one stream.
#[derive(Debug)]
pub(in crate::proxy) struct Opening {
    sender: SendRequest<Bytes>,
    stream: Stream,
}

/// Counts a stream for as long as it is there.
#[derive(Debug)]
struct Stream {
    usage: Arc<Usage>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.usage.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.usage.idle_since.lock() = Some(clock::now());
        }
    }
}

impl Opening {
    fn new(connection: &Connection) -> Self {
        let usage = connection.usage.clone();
        usage.streams.fetch_add(1, Ordering::Relaxed);
        Opening { sender: connection.sender.clone(), stream: Stream { usage } }
    }

    /// Sends a request's head; `end`: there is nothing behind it.
    pub(in crate::proxy) fn send(mut self, request: Request<()>, end: bool) -> Result<(Call, Sender), Ended> {
        match self.sender.send_request(request, end) {
            Ok((response, body)) => {
                let call = Call { response, raw: Vec::new(), received: None, stream: self.stream };
                Ok((call, Sender::of_body(body, end)))
            }
            Err(error) => {
                // Whatever it is, this connection takes no streams any more, and nothing was sent.
                self.stream.usage.closed.store(true, Ordering::Relaxed);
                tracing::debug!(%error, "a connection to a replica takes no more streams");
                Err(Ended::Unprocessed)
            }
        }
    }
}

/// A request that was sent, and what comes back.
pub(in crate::proxy) struct Call {
    response: ResponseFuture,
    /// The last head that came, as HTTP/1 writes it.
    raw: Vec<u8>,
    received: Option<Receiver>,
    stream: Stream,
}

impl Call {
    /// The next head: an interim one, or the final one. May be dropped while it waits.
    pub(in crate::proxy) async fn head(&mut self) -> Result<u16, Ended> {
        let parts = std::future::poll_fn(|cx| self.poll_head(cx)).await.map_err(|ended| match ended {
            // What has never answered anything does not speak it.
            Ended::Torn if self.stream.usage.answers.load(Ordering::Relaxed) == 0 => Ended::Alien,
            other => other,
        })?;
        self.stream.usage.answers.fetch_add(1, Ordering::Relaxed);
        // There is nothing to switch to (RFC 9113 section 8.6).
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Ended::Alien);
        }
        head::write_response(&parts, &mut self.raw);
        Ok(parts.status.as_u16())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Ended>> {
        match self.response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => return Poll::Ready(Ok(interim.into_parts().0)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Ended::from(&error))),
            Poll::Ready(None) => {}
            Poll::Pending => return Poll::Pending,
        }
        Pin::new(&mut self.response).poll(cx).map(|result| {
            let (parts, body) = result.map_err(|error| Ended::from(&error))?.into_parts();
            self.received = Some(Receiver::new(body));
            Ok(parts)
        })
    }

    /// The head that [`Call::head`] told of.
    pub(in crate::proxy) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether the final head is all there is.
    pub(in crate::proxy) fn is_bare(&self) -> bool {
        self.received.as_ref().is_some_and(Receiver::is_done)
    }

    /// What follows the final head.
    pub(in crate::proxy) fn take_body(&mut self) -> Option<Receiver> {
        self.received.take()
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("raw", &self.raw.escape_ascii().to_string()).finish_non_exhaustive()
    }
}
