//! A response's body on its way to the client, beside what is left of the request's.

use super::body::{self, DownloadError, Patience};
use super::exchange::Caller;
use super::inbound::{Inbound, Sign};
use super::inflow::Inflow;
use std::pin::pin;
use std::task::Poll;

/// Passes on a response whose body is still on its way, perhaps beside the request's.
pub(super) async fn pass_on(
    source: &mut Inflow,
    inbound: &mut Inbound<'_>,
    caller: &mut Caller<'_>,
    chunked: bool,
    patience: Patience,
) -> Result<(), DownloadError> {
    let Caller { writer, timer, out } = caller;
    let mut download = pin!(body::download(source, writer, out, chunked, timer, patience));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = download.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        loop {
            match inbound.poll(cx) {
                Poll::Ready(Sign::Gone) => return Poll::Ready(Err(DownloadError::ClientGone)),
                Poll::Ready(Sign::Failed(_)) => return Poll::Ready(Err(DownloadError::UploadFailed)),
                Poll::Ready(Sign::Sent | Sign::Refused) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
