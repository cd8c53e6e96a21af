//! A response's body on its way to the client, beside what is left of the request's.

use super::body::{self, DownloadError, Patience};
use super::exchange::Caller;
use super::inbound::{Inbound, Sign};
use super::inflow::Inflow;
use crate::upstream::Lease;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::sleep;

/// A call of gRPC that has lived for so long is a stream, and no sign of load.
const CALL_IS_STREAM: Duration = Duration::from_secs(1);

/// Passes on a response whose body is still on its way, perhaps beside the request's.
pub(super) async fn pass_on(
    source: &mut Inflow,
    inbound: &mut Inbound<'_>,
    caller: &mut Caller<'_>,
    chunked: bool,
    patience: Patience,
    mut call: Option<&mut Lease>,
) -> Result<(), DownloadError> {
    let Caller { outflow, timer, out } = caller;
    let mut download = pin!(body::download(source, outflow.reborrow(), out, chunked, timer, patience));
    let mut lived = pin!(call.is_some().then(|| sleep(CALL_IS_STREAM)));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = download.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if call.is_some()
            && let Some(lived) = lived.as_mut().as_pin_mut()
            && lived.poll(cx).is_ready()
        {
            // It is one from here on.
            if let Some(lease) = call.take() {
                lease.become_stream();
            }
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
