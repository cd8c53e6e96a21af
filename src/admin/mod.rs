//! What the operator asks the running process: `/metrics`, `/status` and `/ready` on the `admin` address, read-only. A
//! socket without an address ([`local`]) takes the operator's orders ([`verb`]), and answers `/ready` where `admin` is off.
//!
//! It runs beside the loops, not on the threads that serve requests. Its clients are bounded: so many connections, one
//! request each, a time for the request's head and one for the whole. One connection too many closes the oldest that has
//! not asked anything yet, so a client that asks at once is always answered.

#[cfg(test)]
mod documented;
pub mod local;
pub mod metrics;
mod page;
pub mod prometheus;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub mod verb;

pub use prometheus::Metrics;
pub use status::Status;
use verb::{Done, Verb};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at once; one more closes the oldest. A scraper, a `status --watch` and some health checks are a handful.
const MAX_CONNECTIONS: usize = 32;

/// For a whole connection: one request and its response of at most a megabyte or so.
const DEADLINE: Duration = Duration::from_secs(10);

/// For a request's head: whoever connects to this address has its question ready.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);

/// Of a request's head; no question here is longer than a line.
const MAX_HEAD: usize = 8 * 1024;

/// Pause after a failed accept: no descriptor is left, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// The running process, as far as the operator may look into it.
pub trait Source: Send + Sync + 'static {
    /// Everything, as of now.
    fn status(&self) -> Status;

    /// Whether clients may be sent here.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), String>;

    /// What is counted.
    fn metrics(&self) -> Metrics;

    /// Does what `who` orders.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn obey(&self, verb: &Verb, who: &str) -> Result<Done, String>;
}

/// Answers the operator for as long as the process runs.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(stream, source.clone(), answer).await,
            Err(error) => {
                warn!(%error, "the admin listener cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

type Reply = Response<Full<Bytes>>;

/// The connections that are open, oldest first.
#[derive(Default)]
struct Connections {
    open: VecDeque<Connection>,
}

struct Connection {
    /// Its request's head was read.
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Connections {
    /// Serves one more, and closes another if there are too many: the oldest that has not asked yet, else the oldest.
    async fn add<S, A>(&mut self, stream: S, source: Arc<dyn Source>, answer: A)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        A: Fn(&Request<Incoming>, &dyn Source) -> Reply + Send + 'static,
    {
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            let silent = self.open.iter().position(|connection| !connection.asked.load(Ordering::Relaxed));
            if let Some(closed) = self.open.remove(silent.unwrap_or(0)) {
                debug!("too many connections of operators: the oldest is closed");
                closed.task.abort();
            }
        }
        let asked = Arc::new(AtomicBool::new(false));
        let conversation = converse(stream, source, answer, asked.clone());
        let task = tokio::spawn(async move {
            if timeout(DEADLINE, conversation).await.is_err() {
                debug!("an operator's connection took too long and was closed");
            }
        });
        self.open.push_back(Connection { asked, task: task.abort_handle() });
        // A question that lies in its socket is read before the next connection may close this one.
        yield_now().await;
    }
}

async fn converse<S, A>(stream: S, source: Arc<dyn Source>, answer: A, asked: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(&Request<Incoming>, &dyn Source) -> Reply + Send + 'static,
{
    let head_was_read = asked.clone();
    let service = service_fn(move |request| {
        head_was_read.store(true, Ordering::Relaxed);
        let response = answer(&request, &*source);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    // One request a connection: nobody holds a place by being silent.
    http.keep_alive(false).max_buf_size(MAX_HEAD);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    let silence = async {
        sleep(HEAD_DEADLINE).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                debug!(%error, "an operator's request failed");
            }
        }
        () = silence => debug!("an operator's connection asked nothing and was closed"),
    }
}

fn answer(request: &Request<Incoming>, source: &dyn Source) -> Reply {
    let known = ["/metrics", "/status", "/ready"].contains(&request.uri().path());
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let (status, kind, body) = match request.uri().path() {
        _ if known && !reads => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "read-only: GET or HEAD\n".to_owned()),
        "/metrics" => (StatusCode::OK, PROMETHEUS, prometheus::render(&source.status(), &source.metrics())),
        "/status" => match serde_json::to_string_pretty(&source.status()) {
            Ok(json) => (StatusCode::OK, JSON, json + "\n"),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/ready" => readiness(source),
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /status and /ready\n".to_owned()),
    };
    respond(status, kind, body)
}

fn readiness(source: &dyn Source) -> (StatusCode, &'static str, String) {
    match source.ready() {
        Ok(()) => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    fields.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
