//! The client's side of a request while its response is awaited: the body still on its way, then the watch for a client
//! that leaves.

use super::body::UploadError;
use super::http2::Sender;
use super::inflow::Inflow;
use super::socket::{Peeked, Reader};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

type Upload<'a> = Pin<Box<dyn Future<Output = (&'a Inflow, Result<bool, UploadError>)> + Send + 'a>>;

/// What the client does meanwhile.
pub(super) enum Inbound<'a> {
    /// Its body is being sent on; `due`: the client was asked for it, or began unasked.
    Sending { upload: Upload<'a>, due: &'a AtomicBool },
    /// All of it was sent.
    Sent {
        watch: Watch<'a>,
        /// It can be sent again.
        replayable: bool,
    },
    /// The replica took no more of it; with whether it took anything.
    Refused { watch: Watch<'a>, started: bool },
}

/// What happened on the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The request is sent whole.
    Sent,
    /// The replica takes no more of it.
    Refused,
    /// The client's body ended the exchange.
    Failed(UploadError),
    /// The client reset the connection.
    Gone,
}

/// The look-out for a client that leaves.
pub(super) struct Watch<'a> {
    seen: Seen<'a>,
    /// It will send nothing more. Whether it still reads, a FIN does not tell.
    pub(super) ended: bool,
}

/// How much of the connection is seen.
enum Seen<'a> {
    /// What comes next.
    Next(&'a Reader),
    /// A stream's end; none: nobody watches it.
    Stream(Option<&'a Sender>),
    /// Unread bytes, or the end, lie before whatever comes: a reset shows all the same.
    Reset(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
    /// It was reset.
    Gone,
}

impl<'a> Watch<'a> {
    /// Of a client of HTTP/1: what comes behind the request, and the connection's end.
    pub(super) fn of_connection(reader: &'a Reader) -> Self {
        Watch { seen: Seen::Next(reader), ended: false }
    }

    /// Of a client of HTTP/2: its word that it wants no response. That it sends nothing more is the ordinary course.
    pub(super) fn of_stream(response: Option<&'a Sender>) -> Self {
        Watch { seen: Seen::Stream(response), ended: false }
    }

    /// Ready when the client is gone for certain.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let reader = match &mut self.seen {
                Seen::Gone => return Poll::Ready(()),
                Seen::Reset(reset) => {
                    ready!(reset.as_mut().poll(cx));
                    self.seen = Seen::Gone;
                    return Poll::Ready(());
                }
                Seen::Stream(None) => return Poll::Pending,
                Seen::Stream(Some(response)) => {
                    ready!(response.poll_reset(cx));
                    self.seen = Seen::Gone;
                    return Poll::Ready(());
                }
                Seen::Next(reader) => *reader,
            };
            match reader.poll_peek(cx) {
                Poll::Ready(Peeked::Broken) => return Poll::Ready(()),
                Poll::Ready(Peeked::End) => self.ended = true,
                // The next request, pipelined, or a body that nobody wants: it waits its turn.
                Poll::Ready(Peeked::Data) => {}
                Poll::Ready(Peeked::Nothing) | Poll::Pending => return Poll::Pending,
            }
            self.seen = Seen::Reset(Box::pin(reader.reset()));
        }
    }
}

impl Inbound<'_> {
    /// Whether the request was sent whole.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self, Inbound::Sent { .. })
    }

    /// Whether the client's body is still on its way to the replica.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self, Inbound::Sending { .. })
    }

    /// Whether the client waits to be asked for its body.
    pub(super) fn is_held_back(&self) -> bool {
        matches!(self, Inbound::Sending { due, .. } if !due.load(Ordering::Relaxed))
    }

    /// The client was asked for its body: from now on it is owed.
    pub(super) fn ask_for_body(&self) {
        if let Inbound::Sending { due, .. } = self {
            due.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nothing of the request reached the replica.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Inbound::Refused { started: false, .. })
    }

    /// Whether the client closed its side.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Inbound::Sent { watch: Watch { ended: true, .. }, .. })
    }

    /// Whether it can be sent again, and somebody is there for whom.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self, Inbound::Sent { watch: Watch { ended: false, .. }, replayable: true })
    }

    /// Waits until the body is sent, or the replica takes no more of it. False: its client left, or broke it off.
    pub(super) async fn see_through(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            while self.is_sending() {
                match ready!(self.poll(cx)) {
                    Sign::Sent | Sign::Refused => {}
                    Sign::Failed(_) | Sign::Gone => return Poll::Ready(false),
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// Ready when something happens that the exchange must know.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Sign> {
        match self {
            Inbound::Sending { upload, .. } => {
                let Poll::Ready((inflow, result)) = upload.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                match result {
                    Ok(replayable) => {
                        *self = Inbound::Sent { watch: inflow.watch(), replayable };
                        Poll::Ready(Sign::Sent)
                    }
                    Err(UploadError::Replica { started }) => {
                        *self = Inbound::Refused { watch: inflow.watch(), started };
                        Poll::Ready(Sign::Refused)
                    }
                    Err(error) => {
                        *self = Inbound::Refused { watch: inflow.watch(), started: true };
                        Poll::Ready(Sign::Failed(error))
                    }
                }
            }
            Inbound::Sent { watch, .. } | Inbound::Refused { watch, .. } => watch.poll_gone(cx).map(|()| Sign::Gone),
        }
    }
}
