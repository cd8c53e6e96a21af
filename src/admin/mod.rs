//! What the operator asks the running process: the page ([`web`]), `/metrics`, `/status`, `/overview`, `/why` and `/ready` on
//! the `admin` address, read-only. A socket without an address ([`local`]) takes the operator's orders ([`verb`]), and answers
//! `/ready` where `admin` is off.
//!
//! It runs beside the loops, not on the threads that serve requests. Its clients are bounded: so many connections, one
//! request each, a time for the request's head and one for the whole. One connection too many closes the oldest that has
//! not asked anything yet, so a client that asks at once is always answered. Pages that are open are counted apart: they
//! stay for long, and keep no scraper out.

#[cfg(test)]
mod documented;
pub mod headline;
pub mod history;
pub mod hour;
pub mod latency;
pub mod local;
pub mod metrics;
pub mod overview;
mod page;
pub mod prometheus;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub mod verb;
mod web;
pub mod why;
pub(crate) mod wording;

use history::History;
pub use overview::Overview;
pub use prometheus::Metrics;
pub use status::Status;
use verb::{Done, Verb};
use web::Feed;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::sleep;
use tracing::{debug, warn};

/// Connections at once; one more closes the oldest. A scraper, a `status --watch` and some health checks are a handful.
const MAX_CONNECTIONS: usize = 32;

/// For a whole connection: one request and its response of at most a megabyte or so.
const DEADLINE: Duration = Duration::from_secs(10);

/// For the connection of an open page, which then asks for another.
const LIVE: Duration = Duration::from_secs(15 * 60);

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

    /// The last hour.
    fn history(&self) -> &Mutex<History>;

    /// Why the requests that are called so went where they went, or the last one; in words.
    fn why(&self, id: Option<&str>) -> Option<String>;

    /// Does what `who` orders.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn obey(&self, verb: &Verb, who: &str) -> Result<Done, String>;
}

/// Answers the operator for as long as the process runs.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let mut connections = Connections::default();
    let feed = Arc::new(Feed::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let feed = feed.clone();
                let answer = move |request: &Request<Incoming>, source: &Arc<dyn Source>| {
                    if request.uri().path() == "/events" { events(&feed, source) } else { answer(request, &**source) }
                };
                connections.add(stream, source.clone(), answer).await;
            }
            Err(error) => {
                warn!(%error, "the admin listener cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

type Reply = Response<Either<Full<Bytes>, Channel<Bytes, Infallible>>>;

/// The connections that are open, oldest first.
#[derive(Default)]
struct Connections {
    open: VecDeque<Connection>,
}

struct Connection {
    stage: Arc<AtomicU8>,
    task: AbortHandle,
}

/// How far a connection is: nothing is asked yet, …
const SILENT: u8 = 0;
/// … its request's head was read, …
const ASKED: u8 = 1;
/// … or it is that of an open page.
const OPEN: u8 = 2;

impl Connections {
    /// Serves one more, and closes another if there are too many: the oldest that has not asked yet, else the oldest.
    async fn add<S, A>(&mut self, stream: S, source: Arc<dyn Source>, answer: A)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        A: Fn(&Request<Incoming>, &Arc<dyn Source>) -> Reply + Send + 'static,
    {
        self.open.retain(|connection| !connection.task.is_finished());
        let at = |stages: &[u8]| {
            let is = |connection: &Connection| stages.contains(&connection.stage.load(Ordering::Relaxed));
            self.open.iter().position(is)
        };
        let passing = self.open.iter().filter(|connection| connection.stage.load(Ordering::Relaxed) != OPEN).count();
        if passing >= MAX_CONNECTIONS
            && let Some(index) = at(&[SILENT]).or(at(&[ASKED]))
            && let Some(closed) = self.open.remove(index)
        {
            debug!("too many connections of operators: the oldest is closed");
            closed.task.abort();
        }
        let stage = Arc::new(AtomicU8::new(SILENT));
        let conversation = converse(stream, source, answer, stage.clone());
        let of_page = stage.clone();
        let task = tokio::spawn(async move {
            let overdue = async {
                sleep(DEADLINE).await;
                if of_page.load(Ordering::Relaxed) == OPEN {
                    sleep(LIVE - DEADLINE).await;
                }
            };
            tokio::select! {
                () = conversation => {}
                () = overdue => debug!("an operator's connection took too long and was closed"),
            }
        });
        self.open.push_back(Connection { stage, task: task.abort_handle() });
        // A question that lies in its socket is read before the next connection may close this one.
        yield_now().await;
    }
}

async fn converse<S, A>(stream: S, source: Arc<dyn Source>, answer: A, stage: Arc<AtomicU8>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(&Request<Incoming>, &Arc<dyn Source>) -> Reply + Send + 'static,
{
    let reached = stage.clone();
    let service = service_fn(move |request| {
        let response = answer(&request, &source);
        reached.store(if matches!(response.body(), Either::Right(_)) { OPEN } else { ASKED }, Ordering::Relaxed);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    // One request a connection: nobody holds a place by being silent.
    http.keep_alive(false).max_buf_size(MAX_HEAD);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    let silence = async {
        sleep(HEAD_DEADLINE).await;
        if stage.load(Ordering::Relaxed) != SILENT {
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

/// What there is beside `/why` and `/events`.
const PATHS: [&str; 7] = ["/", "/page.css", "/page.js", "/metrics", "/status", "/overview", "/ready"];

fn answer(request: &Request<Incoming>, source: &dyn Source) -> Reply {
    let path = request.uri().path();
    let known = why::is_path(path) || PATHS.contains(&path);
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let (status, kind, body) = match path {
        _ if known && !reads => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "read-only: GET or HEAD\n".to_owned()),
        "/" => {
            (StatusCode::OK, HTML, web::page(&source.status(), &source.history().lock(), moment(request.uri().query())))
        }
        "/page.css" => (StatusCode::OK, CSS, web::STYLE.to_owned()),
        "/page.js" => (StatusCode::OK, JAVASCRIPT, web::SCRIPT.to_owned()),
        "/metrics" => (StatusCode::OK, PROMETHEUS, prometheus::render(&source.status(), &source.metrics())),
        "/status" => json(serde_json::to_string_pretty(&source.status())),
        "/overview" => {
            let status = source.status();
            json(serde_json::to_string(&Overview::new(status, &source.history().lock())))
        }
        "/ready" => readiness(source),
        path if why::is_path(path) => explain(source, request.uri()),
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /, /metrics, /status, /overview, /why and /ready\n".to_owned()),
    };
    respond(status, kind, body)
}

fn json(text: serde_json::Result<String>) -> (StatusCode, &'static str, String) {
    match text {
        Ok(text) => (StatusCode::OK, JSON, text + "\n"),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

/// The slot of the history that the page is asked to show.
fn moment(query: Option<&str>) -> Option<u64> {
    query?.strip_prefix("at=")?.parse().ok()
}

/// The page's live part.
fn events(feed: &Arc<Feed>, source: &Arc<dyn Source>) -> Reply {
    match feed.open(source) {
        Some(events) => with_fields(StatusCode::OK, EVENTS, Either::Right(events)),
        None => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many pages are open\n".to_owned()),
    }
}

fn readiness(source: &dyn Source) -> (StatusCode, &'static str, String) {
    match source.ready() {
        Ok(()) => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
    }
}

fn explain(source: &dyn Source, uri: &Uri) -> (StatusCode, &'static str, String) {
    let id = why::asked(uri);
    match source.why(id.as_deref()) {
        Some(text) => (StatusCode::OK, TEXT, text),
        None => (StatusCode::NOT_FOUND, TEXT, why::unknown(id.as_deref())),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Reply {
    with_fields(status, kind, Either::Left(Full::new(Bytes::from(body))))
}

fn with_fields(status: StatusCode, kind: &'static str, body: Either<Full<Bytes>, Channel<Bytes, Infallible>>) -> Reply {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    fields.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if kind == HTML {
        fields.insert(CONTENT_SECURITY_POLICY, http::HeaderValue::from_static(web::POLICY));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
