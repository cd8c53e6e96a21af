//! What the operator asks the running process: `/metrics`, `/status` and `/ready` on the `admin` address, read-only.
//!
//! It runs beside the loops, not on the threads that serve requests. Its clients are bounded: so many connections, one
//! request each, within a deadline.

pub mod metrics;
pub mod prometheus;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use prometheus::Metrics;
pub use status::Status;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at once; who comes beyond that waits. A scraper, a `status --watch` and some health checks are a handful.
const MAX_CONNECTIONS: usize = 32;

/// For a whole connection: one request and its response of at most a megabyte or so.
const DEADLINE: Duration = Duration::from_secs(10);

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
}

/// Answers the operator for as long as the process runs.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    serve_each_within(DEADLINE, listener, source).await;
}

async fn serve_each_within(deadline: Duration, listener: TcpListener, source: Arc<dyn Source>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = source.clone();
                tokio::spawn(async move {
                    if timeout(deadline, converse(stream, source)).await.is_err() {
                        debug!("an operator's connection took too long and was closed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the admin listener cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, source: Arc<dyn Source>) {
    let answer = service_fn(move |request| {
        let response = answer(&request, &*source);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    // One request a connection: nobody holds a place by being silent, and the deadline is the only timer.
    http.keep_alive(false).max_buf_size(MAX_HEAD);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
        debug!(%error, "an operator's request failed");
    }
}

fn answer<B>(request: &Request<B>, source: &dyn Source) -> Response<Full<Bytes>> {
    let known = ["/metrics", "/status", "/ready"].contains(&request.uri().path());
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let (status, kind, body) = match request.uri().path() {
        _ if known && !reads => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "read-only: GET or HEAD\n".to_owned()),
        "/metrics" => (StatusCode::OK, PROMETHEUS, prometheus::render(&source.status(), &source.metrics())),
        "/status" => match serde_json::to_string_pretty(&source.status()) {
            Ok(json) => (StatusCode::OK, JSON, json + "\n"),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/ready" => match source.ready() {
            Ok(()) => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /status and /ready\n".to_owned()),
    };
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
