//! One request over a connection of its own: for probes.

use super::FRAME;
use super::stream::Ended;
use bytes::Bytes;
use http::{HeaderMap, Request, response};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of an answer's body that are looked at: those of gRPC's health are seven.
const MOST: usize = 1024;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields.
    pub head: response::Parts,
    /// The first bytes of its body.
    pub body: Vec<u8>,
    /// What stood behind it.
    pub trailers: HeaderMap,
}

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// The connection ended.
    Closed,
    /// The stream was reset.
    Reset,
    /// What listens there does not speak HTTP/2.
    Alien,
}

/// Sends `request` with `body` over a connection that was just made, and that lives for at most `within`.
///
/// # Errors
/// Why there is no answer.
pub async fn ask(
    stream: TcpStream,
    request: Request<()>,
    body: Bytes,
    max_header: u32,
    within: Duration,
) -> Result<Answer, Silent> {
    let silent = |error: h2::Error| match Ended::from(&error) {
        Ended::Broken | Ended::Lost => Silent::Closed,
        Ended::Reset(_) | Ended::Unprocessed => Silent::Reset,
        Ended::Alien | Ended::Torn => Silent::Alien,
    };
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_frame_size(FRAME).max_header_list_size(max_header);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(silent)?;
    // It ends with a word of goodbye once nobody holds the sender any more; a peer that does not listen is left.
    tokio::spawn(timeout(within, connection));
    let (response, mut upload) = sender.send_request(request, body.is_empty()).map_err(silent)?;
    if !body.is_empty() {
        upload.send_data(body, true).map_err(silent)?;
    }
    let (head, mut download) = response.await.map_err(silent)?.into_parts();
    let mut body = Vec::new();
    while body.len() < MOST
        && let Some(piece) = download.data().await
    {
        let piece = piece.map_err(silent)?;
        let _ = download.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece[..piece.len().min(MOST - body.len())]);
    }
    let trailers = if body.len() < MOST { download.trailers().await.map_err(silent)? } else { None };
    Ok(Answer { head, body, trailers: trailers.unwrap_or_default() })
}
