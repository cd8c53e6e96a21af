//! A client of HTTP/2 with prior knowledge for tests that are no load: one connection, and as many streams as asked for.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Body>,
}

/// A response, whole.
#[derive(Debug)]
pub struct Http2Answer {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What stood behind that.
    pub trailers: HeaderMap,
}

impl Http2Answer {
    /// A field, or a trailer if there is no such field; empty if there is neither.
    pub fn get(&self, name: &str) -> &str {
        let value = self.fields.get(name).or(self.trailers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A request to `target` with this body and these fields.
///
/// # Panics
/// When it is none.
pub fn request(method: &str, target: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(format!("http://app.test{target}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into()).boxed()).expect("a request")
}

/// A request whose length nothing tells, with trailers behind its body.
pub fn with_trailers(request: Request<Body>, trailers: HeaderMap) -> Request<Body> {
    request.map(|body| Unmeasured(body.with_trailers(std::future::ready(Some(Ok(trailers))))).boxed())
}

/// A request whose body begins and never ends.
pub fn unending(request: Request<Body>) -> Request<Body> {
    request.map(|body| Unmeasured(body.with_trailers(std::future::pending())).boxed())
}

/// A body that does not say how long it is.
struct Unmeasured<B>(B);

impl<B: hyper::body::Body + Unpin> hyper::body::Body for Unmeasured<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

impl Http2 {
    /// Connects.
    ///
    /// # Panics
    /// When nobody is there.
    pub fn connect(to: SocketAddr) -> Http2 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(to).await.expect("somebody listens");
            // No stream that is left unread takes the connection's whole window.
            let (sender, connection) = Builder::new(TokioExecutor::new())
                .initial_stream_window_size(64 * 1024)
                .initial_connection_window_size(16 << 20)
                .handshake(TokioIo::new(stream))
                .await
                .expect("a connection");
            tokio::spawn(connection);
            sender
        });
        Http2 { runtime, sender }
    }

    /// Sends one request and reads its answer to the end; as an error, how it failed.
    ///
    /// # Errors
    /// The words of the client library.
    pub fn ask(&self, request: Request<Body>) -> Result<Http2Answer, String> {
        self.ask_all([request]).pop().expect("one answer")
    }

    /// Sends all of them at once. The answers come in the order of the requests.
    pub fn ask_all(&self, requests: impl IntoIterator<Item = Request<Body>>) -> Vec<Result<Http2Answer, String>> {
        self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for (index, request) in requests.into_iter().enumerate() {
                let sender = self.sender.clone();
                asking.spawn(async move { (index, ask(sender, request).await) });
            }
            let mut all = asking.join_all().await;
            all.sort_by_key(|(index, _)| *index);
            all.into_iter().map(|(_, answer)| answer).collect()
        })
    }

    /// Sends a request and reads no more than the head of its answer; the stream stays open as long as what is given back.
    ///
    /// # Errors
    /// The words of the client library.
    pub fn begin(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let mut sender = self.sender.clone();
        self.runtime.block_on(async move {
            let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
            answer.map_err(|_| "no answer".to_owned())?.map_err(|error| explain(&error))
        })
    }

    /// Whether the connection takes no new streams.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

async fn ask(mut sender: SendRequest<Body>, request: Request<Body>) -> Result<Http2Answer, String> {
    let asking = async {
        let (head, body) = sender.send_request(request).await.map_err(|error| explain(&error))?.into_parts();
        let body = body.collect().await.map_err(|error| explain(&error))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Http2Answer { status: head.status.as_u16(), fields: head.headers, body: body.to_bytes(), trailers })
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// The error with its causes: hyper's own words say only which part failed.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    text
}
