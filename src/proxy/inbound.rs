//! The client's side of a request while its response is awaited: the body still on its way, then the watch for a client
//! that leaves.

use super::body::UploadError;
use super::inflow::Inflow;
use super::socket::{Peeked, Reader};
use std::pin::Pin;
use std::task::{Context, Poll};

type Upload<'a> = Pin<Box<dyn Future<Output = (&'a Inflow, Result<bool, UploadError>)> + Send + 'a>>;

/// What the client does meanwhile.
pub(super) enum Inbound<'a> {
    /// Its body is being sent on.
    Sending(Upload<'a>),
    /// All of it was sent.
    Sent {
        watch: Watch<'a>,
        /// It can be sent again.
        replayable: bool,
    },
    /// The replica took no more of it; with whether it took anything.
    Refused { started: bool },
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
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    /// `None` once there is nothing more to learn.
    reader: Option<&'a Reader>,
    /// It will send nothing more. Whether it still reads, a FIN does not tell.
    pub(super) ended: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(inflow: &'a Inflow) -> Self {
        Watch { reader: Some(inflow.reader()), ended: false }
    }

    /// Ready when the client is gone for certain.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(reader) = self.reader else {
            return Poll::Pending;
        };
        match reader.poll_peek(cx) {
            Poll::Ready(Peeked::Broken) => return Poll::Ready(()),
            Poll::Ready(Peeked::End) => {
                self.reader = None;
                self.ended = true;
            }
            // The next request, pipelined: it waits its turn.
            Poll::Ready(Peeked::Data) => self.reader = None,
            Poll::Ready(Peeked::Nothing) | Poll::Pending => {}
        }
        Poll::Pending
    }
}

impl Inbound<'_> {
    /// Whether the request was sent whole.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self, Inbound::Sent { .. })
    }

    /// Whether nothing of the request reached the replica.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Inbound::Refused { started: false })
    }

    /// Whether the client closed its side.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Inbound::Sent { watch: Watch { ended: true, .. }, .. })
    }

    /// Whether it can be sent again, and somebody is there for whom.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self, Inbound::Sent { watch: Watch { ended: false, .. }, replayable: true })
    }

    /// Ready when something happens that the exchange must know.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Sign> {
        match self {
            Inbound::Sending(upload) => {
                let Poll::Ready((inflow, result)) = upload.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                match result {
                    Ok(replayable) => {
                        *self = Inbound::Sent { watch: Watch::new(inflow), replayable };
                        Poll::Ready(Sign::Sent)
                    }
                    Err(UploadError::Replica { started }) => {
                        *self = Inbound::Refused { started };
                        Poll::Ready(Sign::Refused)
                    }
                    Err(error) => {
                        *self = Inbound::Refused { started: true };
                        Poll::Ready(Sign::Failed(error))
                    }
                }
            }
            Inbound::Sent { watch, .. } => watch.poll_gone(cx).map(|()| Sign::Gone),
            Inbound::Refused { .. } => Poll::Pending,
        }
    }
}
