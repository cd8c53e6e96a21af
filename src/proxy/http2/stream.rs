//! The two halves of a stream: what comes in, and what goes out.

use super::{Code, head};
use crate::clock;
use crate::proxy::socket::WriteError;
use crate::proxy::timer::Timer;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Why a stream ended before it was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Ended {
    /// The peer says that it processed nothing of it: it refused the stream (RFC 9113 section 8.7), or is going away and the
    /// stream is none of the last that it serves (section 6.8).
    Unprocessed,
    /// The peer reset it.
    Reset(Code),
    /// The connection broke.
    Broken,
    /// The peer's host has acknowledged nothing for so long that the kernel gave it up.
    Lost,
    /// What came on this stream is no HTTP/2.
    Alien,
    /// What came on the connection is no HTTP/2, on this stream or another, and we ended it.
    Torn,
}

impl From<&h2::Error> for Ended {
    fn from(error: &h2::Error) -> Self {
        if error.is_io() {
            let lost = error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
            return if lost { Ended::Lost } else { Ended::Broken };
        }
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => Ended::Unprocessed,
            // h2 ends no other streams so than those above the last one that the peer serves.
            Some(_) if error.is_go_away() && error.is_remote() => Ended::Unprocessed,
            Some(reason) if error.is_reset() && error.is_remote() => Ended::Reset(Code(reason.into())),
            Some(_) if error.is_go_away() => Ended::Torn,
            Some(_) => Ended::Alien,
            None => Ended::Broken,
        }
    }
}

/// A body, and the trailers behind it.
#[derive(Debug)]
pub(in crate::proxy) struct Receiver {
    stream: RecvStream,
    /// Bytes that were handed out: the peer may send as many more once they were passed on.
    given: usize,
    ended: bool,
    /// It ended with its head.
    empty: bool,
    trailers: Vec<u8>,
}

impl Receiver {
    pub(in crate::proxy) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Receiver { stream, given: 0, ended, empty: ended, trailers: Vec::new() }
    }

    /// Whether there is no body at all.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether all was handed out.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.ended
    }

    /// The next bytes; nothing once the body is whole.
    pub(in crate::proxy) async fn piece(&mut self) -> Result<Option<Bytes>, Ended> {
        loop {
            let given = std::mem::take(&mut self.given);
            if given > 0 {
                let _ = self.stream.flow_control().release_capacity(given);
            }
            if self.ended {
                return Ok(None);
            }
            match self.stream.data().await {
                Some(Ok(piece)) => {
                    self.given = piece.len();
                    self.ended = self.stream.is_end_stream();
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) => return Err(Ended::from(&error)),
                None => {
                    if let Some(trailers) = self.stream.trailers().await.map_err(|error| Ended::from(&error))? {
                        head::write_fields(&trailers, &mut self.trailers);
                    }
                    self.ended = true;
                }
            }
        }
    }

    /// What stood behind the body, in lines.
    pub(in crate::proxy) fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

/// What goes out. Shared by who writes and who watches for a peer that wants no more of it: both within one task.
pub(in crate::proxy) struct Sender {
    state: Mutex<State>,
}

struct State {
    half: Half,
    /// How long the peer kept its writer waiting.
    waited: Duration,
    /// Its end was sent. What a source has to say behind that (the end of a response to HEAD that its head did not say) is
    /// dropped.
    ended: bool,
}

enum Half {
    /// A response that has yet to begin.
    Response(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

/// The stream takes no more.
#[derive(Debug)]
pub(in crate::proxy) struct Gone;

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// Of a response that has yet to begin.
    pub(super) fn of_response(response: SendResponse<Bytes>) -> Self {
        Sender { state: Mutex::new(State { half: Half::Response(response), waited: Duration::ZERO, ended: false }) }
    }

    /// Of a request whose head is sent; `ended`: there is nothing behind it.
    pub(super) fn of_body(body: SendStream<Bytes>, ended: bool) -> Self {
        Sender { state: Mutex::new(State { half: Half::Body(body), waited: Duration::ZERO, ended }) }
    }

    /// Sends an interim response.
    pub(in crate::proxy) fn inform(&self, response: Response<()>) -> Result<(), Gone> {
        match &mut self.state.lock().half {
            Half::Response(half) => half.send_informational(response).map_err(|_| Gone),
            Half::Body(_) => Err(Gone),
        }
    }

    /// Sends a response's head; `end`: there is nothing behind it.
    pub(in crate::proxy) fn respond(&self, response: Response<()>, end: bool) -> Result<(), Gone> {
        let mut state = self.state.lock();
        let Half::Response(half) = &mut state.half else { return Err(Gone) };
        let body = half.send_response(response, end).map_err(|_| Gone)?;
        state.half = Half::Body(body);
        state.ended = end;
        Ok(())
    }

    /// Sends all of a body, if the peer has room for it now. False, and nothing is sent: it has not.
    pub(in crate::proxy) fn send_at_once(&self, body: &[u8]) -> Result<bool, Gone> {
        let mut state = self.state.lock();
        let Half::Body(half) = &mut state.half else { return Err(Gone) };
        half.reserve_capacity(body.len());
        if half.capacity() < body.len() {
            return Ok(false);
        }
        half.send_data(Bytes::copy_from_slice(body), true).map_err(|_| Gone)?;
        state.ended = true;
        Ok(true)
    }

    /// Sends a piece, as far as the peer has room for it, and waits at most `patience` whenever it has none. `end`: it is
    /// the last.
    pub(in crate::proxy) async fn send(
        &self,
        mut piece: Bytes,
        end: bool,
        timer: &mut Timer,
        patience: Duration,
    ) -> Result<(), WriteError> {
        const GONE: WriteError = WriteError::Gone { taken: 1 };
        let mut deadline: Option<Instant> = None;
        loop {
            let room = std::future::poll_fn(|cx| {
                let mut state = self.state.lock();
                if state.ended {
                    return Poll::Ready(Some(Ok(0)));
                }
                let Half::Body(half) = &mut state.half else { return Poll::Ready(Some(Err(Gone))) };
                half.reserve_capacity(piece.len());
                loop {
                    // Nothing needs no room.
                    if half.capacity() > 0 || piece.is_empty() {
                        return Poll::Ready(Some(Ok(half.capacity())));
                    }
                    match half.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Some(Err(Gone))),
                        Poll::Pending => break,
                    }
                }
                drop(state);
                let deadline = *deadline.get_or_insert_with(|| clock::now() + patience);
                timer.poll_expired(cx, deadline).map(|()| None)
            });
            let room = room.await.ok_or(WriteError::Stalled)?.map_err(|Gone| GONE)?;
            let now = piece.split_to(room.min(piece.len()));
            let last = piece.is_empty();
            let mut state = self.state.lock();
            if state.ended {
                return Ok(());
            }
            if let Some(deadline) = deadline.take() {
                state.waited += (clock::now() + patience).saturating_duration_since(deadline);
            }
            let Half::Body(half) = &mut state.half else { return Err(GONE) };
            half.send_data(now, end && last).map_err(|_| GONE)?;
            state.ended = end && last;
            if last {
                return Ok(());
            }
        }
    }

    /// Ends the body, with `trailers` if there are any.
    pub(in crate::proxy) fn finish(&self, trailers: HeaderMap) -> Result<(), Gone> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.ended, true) {
            return Ok(());
        }
        match &mut state.half {
            Half::Response(_) => Err(Gone),
            Half::Body(half) if trailers.is_empty() => half.send_data(Bytes::new(), true).map_err(|_| Gone),
            Half::Body(half) => half.send_trailers(trailers).map_err(|_| Gone),
        }
    }

    /// Ends the stream so that the peer sees that it is not whole.
    pub(in crate::proxy) fn reset(&self, code: Code) {
        match &mut self.state.lock().half {
            Half::Response(half) => half.send_reset(code.reason()),
            Half::Body(half) => half.send_reset(code.reason()),
        }
    }

    /// Ready once the peer wants no more of it, or is gone.
    pub(in crate::proxy) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state.lock().half {
            Half::Response(half) => half.poll_reset(cx).map(|_| ()),
            Half::Body(half) => half.poll_reset(cx).map(|_| ()),
        }
    }

    /// How long the peer kept its writer waiting.
    pub(in crate::proxy) fn waited(&self) -> Duration {
        self.state.lock().waited
    }
}
