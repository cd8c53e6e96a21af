//! hyper as the other reader of the same bytes, over a wire in memory.

use super::message::Message;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, client, server};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// As many as our own limit allows, so that the two limits are one.
pub(super) const MAX_FIELDS: usize = crate::proxy::guard::MAX_LINES;

/// What hyper's server makes of a client's bytes: requests that are whole, and whether it found nothing to refuse.
///
/// `added`: how many fields more than a client may send.
pub(super) fn requests(bytes: &[u8], added: usize) -> (Vec<Message>, bool) {
    let found = RefCell::new(vec![]);
    let service = service_fn(|request: Request<Incoming>| {
        let found = &found;
        async move {
            let (head, body) = request.into_parts();
            if let Some((body, trailers)) = whole(body).await {
                let path = head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string);
                let start = format!("{} {path}", head.method);
                let authority = head.uri.authority().map(ToString::to_string);
                found.borrow_mut().push(Message { start, authority, fields: head.headers, body, trailers });
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let connection = server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(MAX_FIELDS + added)
        .serve_connection(Wire::new(&[bytes], false), service);
    let orderly = run(connection).is_some_and(|result| result.is_ok());
    (found.into_inner(), orderly)
}

/// What hyper's client makes of a replica's bytes, of which each part answers one request. `lenient`: it takes what RFC
/// 9112 lets a client take of careless servers.
pub(super) fn responses(method: &Method, parts: &[&[u8]], lenient: bool) -> Vec<Message> {
    let found = RefCell::new(vec![]);
    run(async {
        let shaken = client::conn::http1::Builder::new()
            .allow_obsolete_multiline_headers_in_responses(lenient)
            .allow_spaces_after_header_name_in_responses(lenient)
            .max_headers(MAX_FIELDS)
            .handshake(Wire::new(parts, true));
        let Ok((mut sender, connection)) = shaken.await else { return };
        let ask = async {
            for _ in parts {
                let request = Request::builder().method(method).uri("/").header("host", "a");
                let request = request.body(Empty::<Bytes>::new()).expect("a request");
                if sender.ready().await.is_err() {
                    break;
                }
                let Ok(response) = sender.send_request(request).await else { break };
                let (head, body) = response.into_parts();
                let Some((body, trailers)) = whole(body).await else { break };
                let start = head.status.as_u16().to_string();
                found.borrow_mut().push(Message { start, authority: None, fields: head.headers, body, trailers });
            }
            drop(sender);
        };
        let _ = tokio::join!(connection, ask);
    });
    found.into_inner()
}

/// A body and its trailers, if it is whole.
async fn whole(body: Incoming) -> Option<(Bytes, HeaderMap)> {
    let body = body.collect().await.ok()?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Some((body.to_bytes(), trailers))
}

/// Bytes to read, some of them only once as many requests were written.
struct Wire {
    parts: VecDeque<Vec<u8>>,
    /// Whether each part waits for a request.
    answers: bool,
    /// Requests that no part has answered yet.
    asked: usize,
    /// Whether a part is being read.
    open: bool,
    /// The last bytes that were written.
    tail: Vec<u8>,
    reader: Option<Waker>,
}

impl Wire {
    fn new(parts: &[&[u8]], answers: bool) -> Self {
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        Wire { parts, answers, asked: 0, open: false, tail: vec![], reader: None }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.parts.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.answers && !self.open {
            if self.asked == 0 {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.asked -= 1;
            self.open = true;
        }
        let part = &mut self.parts[0];
        let count = part.len().min(buf.remaining());
        buf.put_slice(&part[..count]);
        part.drain(..count);
        if part.is_empty() {
            self.parts.pop_front();
            self.open = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        for byte in bytes {
            self.tail.push(*byte);
            if self.tail.ends_with(b"\r\n\r\n") {
                self.tail.clear();
                self.asked += 1;
            }
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end, without a runtime: nothing here waits for anything but itself. `None`: it waits for bytes that
/// do not come.
fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    let mut future = pin!(future);
    while woken.0.swap(false, Ordering::Relaxed) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}
