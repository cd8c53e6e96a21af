//! An app behind the alias: a well-behaved server of HTTP/1.1 and HTTP/2 (with prior knowledge) whose speed and health a
//! test decides.
//!
//! What no well-behaved server does (broken framing, resets, informational floods) is `testbed::Origin`'s part.
//!
//! Every answer carries `X-Replica`, this container's name, and the request's `X-Method` and `X-Target` as received.
//!
//! | target | answer |
//! |---|---|
//! | `/status/N` | status N, no body |
//! | `/sleep/MS` | 200 after that time |
//! | `/bytes/N`, `/bytes/N?chunked` | N bytes, with Content-Length or chunked |
//! | `/echo` | the request's body as it comes in, chunked |
//! | `/headers` | the request's fields, one a line |
//! | `/early-413` | 413 without reading the body |
//! | `/upgrade` | 101 to the protocol asked for, then echoes bytes |
//! | `/sse/N/MS` | N server-sent events, that far apart |
//! | `/unique/ID/N`, `…?chunked` | N bytes that the id decides, after the service time; `X-Body` tells what came (see `testbed::unique`); the id is remembered unless the method is GET, HEAD or OPTIONS |
//! | `/exit` | none: the process kills itself |
//! | `/count?id=N` | 200 after the service time; the id is remembered |
//! | `/log` | a line `ID TIMES` for each id that is remembered |
//! | `/stats` | counters as JSON; probes of an Evenkeel are not `served` |
//! | `/control?KEY=VALUE&…` | changes `mode`, `mean_ms`, `workers`; clears the maximum in flight |
//! | anything else | 200 after the service time |
//!
//! The service time is exponentially distributed around `MEAN_MS` (0: none) with `WORKERS` requests served at once and
//! the others queued (0: no limit). `MODE` is `ok`, `fail` (500 as soon as the body is read) or `hang` (requests are taken and never
//! answered); `/control`, `/log` and `/stats` answer in every mode. `LISTEN_AFTER_MS` is the time from start to
//! listening. In `LOG_FOLDER`, if set, the ids are written to a file of this container's name, each as soon
//! as it is known. `ON_TERM` is `drop` (what runs is lost, the default, as of an app that does not handle SIGTERM),
//! `graceful` (it prints `received ID TIMES` for each line of `/log` as it ends) or `ignore`.

#![allow(clippy::disallowed_methods)] // an app lives in real time

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use testbed::unique::{self, Content, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, serve());
}

async fn serve() {
    let text = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let number = |name: &str| text(name, "0").parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}"));
    let name = text("NAME", "replica");
    let replica = Rc::new(Replica {
        header: HeaderValue::from_str(&name).expect("NAME is printable"),
        mode: Cell::new(mode(&text("MODE", "ok")).expect("MODE is ok, fail or hang")),
        mean: Cell::new(Duration::from_millis(number("MEAN_MS"))),
        workers: RefCell::new(workers(number("WORKERS"))),
        seen: RefCell::default(),
        file: std::env::var_os("LOG_FOLDER").map(|folder| log_file(&folder, &name)),
        served: Cell::new(0),
        in_flight: Cell::new(0),
        most_in_flight: Cell::new(0),
        connections: Cell::new(0),
    });
    let ours = replica.clone();
    let on_term = text("ON_TERM", "drop");
    let mut term = match on_term.as_str() {
        "drop" => None,
        "graceful" | "ignore" => Some(signal(SignalKind::terminate()).expect("signals can be handled")),
        other => panic!("ON_TERM is drop, graceful or ignore, not {other:?}"),
    };
    tokio::time::sleep(Duration::from_millis(number("LISTEN_AFTER_MS"))).await;
    let address = format!("{}:{}", text("HOST", "0.0.0.0"), text("PORT", "8080"));
    let listener = TcpListener::bind(&address).await.unwrap_or_else(|e| panic!("cannot listen at {address}: {e}"));
    socket2::SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER).expect("an open socket");
    println!("{name} listens at {address}");

    // Each connection holds a receiver; when all are gone, everything is answered.
    let (leaving, stay) = watch::channel(false);
    let serve = |stream: TcpStream| {
        let _ = stream.set_nodelay(true);
        let (replica, mut stay) = (replica.clone(), stay.clone());
        replica.connections.set(replica.connections.get() + 1);
        tokio::task::spawn_local(async move {
            let ours = replica.clone();
            let service = service_fn(move |request| ours.clone().answer(request));
            if speaks_http2(&stream).await {
                let connection = hyper::server::conn::http2::Builder::new(Local)
                    .max_concurrent_streams(STREAMS)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => {}
                    _ = stay.wait_for(|leaving| *leaving) => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
                replica.connections.set(replica.connections.get() - 1);
                return;
            }
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = stay.wait_for(|leaving| *leaving) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            replica.connections.set(replica.connections.get() - 1);
        });
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    serve(stream);
                }
            }
            () = terminated(&mut term) => {
                if on_term == "graceful" {
                    break;
                }
            }
        }
    }
    // What the kernel has accepted is this process's, too.
    let listener = listener.into_std().expect("an open socket");
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("an open socket");
        serve(TcpStream::from_std(stream).expect("an open socket"));
    }
    drop((listener, stay));
    let _ = leaving.send(true);
    leaving.closed().await;
    ours.log().lines().for_each(|line| println!("received {line}"));
    println!("{name} has answered everything");
}

/// Of each connection. Left to itself the kernel lets 32 MiB pile up while an echo waits for its reader, prunes what is
/// beyond that, and Linux 6.18 was seen to drop the window updates of both sides from then on: nothing moved any more.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// Of a connection of HTTP/2, at once.
const STREAMS: u32 = 128;

/// How a connection of HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Whether the client begins as HTTP/2 does.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut begin = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut begin).await {
            Ok(count @ 1..) if begin[..count] == PREFACE[..count] => {
                if count == PREFACE.len() {
                    return true;
                }
                // More of it is on its way.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            _ => return false,
        }
    }
}

/// Runs the streams of a connection on this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn log_file(folder: &std::ffi::OsStr, name: &str) -> File {
    let path = std::path::Path::new(folder).join(name);
    File::options().create(true).append(true).open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

async fn terminated(term: &mut Option<tokio::signal::unix::Signal>) {
    match term {
        Some(term) => drop(term.recv().await),
        None => std::future::pending().await,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Ok,
    Fail,
    Hang,
}

fn mode(word: &str) -> Option<Mode> {
    match word {
        "ok" => Some(Mode::Ok),
        "fail" => Some(Mode::Fail),
        "hang" => Some(Mode::Hang),
        _ => None,
    }
}

fn workers(count: u64) -> Rc<Semaphore> {
    Rc::new(Semaphore::new(if count == 0 { Semaphore::MAX_PERMITS } else { count as usize }))
}

struct Replica {
    header: HeaderValue,
    mode: Cell<Mode>,
    mean: Cell<Duration>,
    workers: RefCell<Rc<Semaphore>>,
    seen: RefCell<BTreeMap<u64, u32>>,
    file: Option<File>,
    served: Cell<u64>,
    in_flight: Cell<u64>,
    most_in_flight: Cell<u64>,
    connections: Cell<u64>,
}

/// A request in flight, until dropped: also when the client leaves.
struct InFlight(Rc<Replica>);

impl InFlight {
    fn new(replica: &Rc<Replica>) -> InFlight {
        let now = replica.in_flight.get() + 1;
        replica.in_flight.set(now);
        replica.most_in_flight.set(replica.most_in_flight.get().max(now));
        InFlight(replica.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Replica {
    async fn answer(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
        let method = request.method().clone();
        let target = request.uri().path_and_query().map_or_else(|| request.uri().to_string(), ToString::to_string);
        // On HTTP/2 hyper would send the body all the same.
        let bodiless = method == Method::HEAD && request.version() == Version::HTTP_2;
        let mut response = self.clone().decide(request).await;
        if bodiless {
            let length = response.body().size_hint().exact().map(HeaderValue::from);
            response.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length)));
            *response.body_mut() = Reply::Text(Full::default());
        }
        let headers = response.headers_mut();
        headers.insert("x-replica", self.header.clone());
        unique::answer_fields(&method, &target, headers);
        Ok(response)
    }

    async fn decide(self: Rc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |i: usize| parts.get(i).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0);
        match parts[0] {
            "control" => return self.control(&query),
            "log" => return text(200, self.log()),
            "stats" => return self.stats(),
            _ => {}
        }

        let _in_flight = InFlight::new(&self);
        if !request.headers().contains_key("evenkeel-probe") {
            self.served.set(self.served.get() + 1);
        }
        match self.mode.get() {
            Mode::Ok => {}
            Mode::Fail => {
                // To leave a body unread would end the connection, which is another fault.
                let _ = request.into_body().collect().await;
                return text(500, "told to fail\n");
            }
            Mode::Hang => std::future::pending().await,
        }
        match parts[0] {
            "status" => {
                let status = u16::try_from(number(1)).ok().and_then(|n| StatusCode::from_u16(n).ok());
                text(status.map_or(400, |s| s.as_u16()), "")
            }
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(number(1))).await;
                text(200, "slept\n")
            }
            "bytes" => Response::new(Reply::Pattern { left: number(1), sized: query != "chunked" }),
            "echo" => Response::new(Reply::Echo(request.into_body())),
            "headers" => {
                let line = |(n, v): (&hyper::header::HeaderName, &HeaderValue)| {
                    format!("{n}: {}\n", String::from_utf8_lossy(v.as_bytes()))
                };
                text(200, request.headers().iter().map(line).collect::<String>())
            }
            "early-413" => text(413, "too much\n"),
            "upgrade" => upgrade(request),
            "sse" => {
                let (sender, body) = Channel::new(8);
                let (count, gap) = (number(1), Duration::from_millis(number(2)));
                tokio::task::spawn_local(events(sender, count, gap));
                let mut response = Response::new(Reply::Events(body));
                response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
                response
            }
            unique::PATH => self.answer_unique(request, number(1), number(2), query == "chunked").await,
            // As a crash: what this process held is gone.
            "exit" => {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                std::future::pending().await
            }
            first => {
                let id = if first == "count" { value(&query, "id").and_then(|id| id.parse().ok()) } else { None };
                // The id counts as received even if the client leaves before the answer.
                if let Some(id) = id {
                    self.remember(id);
                }
                let read = request.into_body().collect().await;
                if read.is_err() {
                    return text(400, "the body ended early\n");
                }
                self.work().await;
                text(200, "ok\n")
            }
        }
    }

    async fn answer_unique(&self, request: Request<Incoming>, id: u64, length: u64, chunked: bool) -> Response<Reply> {
        if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            self.remember(id);
        }
        let Ok(body) = request.into_body().collect().await else { return text(400, "the body ended early\n") };
        let receipt = unique::receipt(&body.to_bytes());
        self.work().await;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut response = Response::new(Reply::Unique(Content::new(id, Way::Down, length, chunked)));
        response.headers_mut().insert("x-body", HeaderValue::from_str(&receipt).expect("digits"));
        response
    }

    /// From here on the request was received, even if this process is killed at once.
    fn remember(&self, id: u64) {
        *self.seen.borrow_mut().entry(id).or_default() += 1;
        if let Some(mut file) = self.file.as_ref() {
            file.write_all(format!("{id}\n").as_bytes()).expect("a file in a folder of the test's");
        }
    }

    async fn work(&self) {
        let workers = self.workers.borrow().clone();
        let _worker = workers.acquire().await;
        let mean = self.mean.get();
        if !mean.is_zero() {
            tokio::time::sleep(mean.mul_f64(-(1.0 - fastrand::f64()).ln())).await;
        }
    }

    fn log(&self) -> String {
        self.seen.borrow().iter().fold(String::new(), |text, (id, times)| text + &format!("{id} {times}\n"))
    }

    fn control(&self, query: &str) -> Response<Reply> {
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = value.parse::<u64>();
            match (key, number, mode(value)) {
                ("mode", _, Some(mode)) => self.mode.set(mode),
                ("mean_ms", Ok(n), _) => self.mean.set(Duration::from_millis(n)),
                ("workers", Ok(n), _) => *self.workers.borrow_mut() = workers(n),
                _ => return text(400, format!("not understood: {pair}\n")),
            }
        }
        self.most_in_flight.set(self.in_flight.get());
        text(200, "done\n")
    }

    fn stats(&self) -> Response<Reply> {
        let stats = serde_json::json!({
            "served": self.served.get(),
            "in_flight": self.in_flight.get(),
            "most_in_flight": self.most_in_flight.get(),
            "connections": self.connections.get(),
        });
        text(200, stats.to_string())
    }
}

fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn text(status: u16, text: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::Text(Full::new(text.into())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    response
}

fn upgrade(mut request: Request<Incoming>) -> Response<Reply> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else { return text(400, "no Upgrade field\n") };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    });
    let mut response = text(101, "");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    response
}

async fn events(mut sender: Sender<Bytes>, count: u64, gap: Duration) {
    for n in 1..=count {
        if sender.send_data(format!("data: {n}\n\n").into()).await.is_err() {
            return;
        }
        if n < count {
            tokio::time::sleep(gap).await;
        }
    }
}

/// The bodies of answers.
enum Reply {
    Text(Full<Bytes>),
    /// This many bytes more of [`PATTERN`], over and over.
    Pattern {
        left: u64,
        sized: bool,
    },
    Echo(Incoming),
    Unique(Content),
    Events(Channel<Bytes>),
}

/// What [`Reply::Pattern`] repeats: the alphabet, cut at 64 KiB.
static PATTERN: [u8; 64 * 1024] = {
    let mut pattern = [0; 64 * 1024];
    let mut i = 0;
    while i < pattern.len() {
        pattern[i] = b'a' + (i % 26) as u8;
        i += 1;
    }
    pattern
};

impl Body for Reply {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Reply::Text(text) => Pin::new(text).poll_frame(cx).map_err(Into::into),
            Reply::Pattern { left: 0, .. } => Poll::Ready(None),
            Reply::Pattern { left, .. } => {
                let piece = (*left).min(PATTERN.len() as u64) as usize;
                *left -= piece as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PATTERN[..piece])))))
            }
            Reply::Echo(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Reply::Events(events) => Pin::new(events).poll_frame(cx).map_err(Into::into),
            Reply::Unique(content) => Pin::new(content).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Text(text) => text.is_end_stream(),
            Reply::Pattern { left, .. } => *left == 0,
            Reply::Echo(body) => body.is_end_stream(),
            Reply::Events(events) => events.is_end_stream(),
            Reply::Unique(content) => content.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Text(text) => text.size_hint(),
            Reply::Unique(content) => content.size_hint(),
            Reply::Pattern { left, sized: true } => SizeHint::with_exact(*left),
            // Chunked, whatever the request's length was.
            Reply::Pattern { .. } | Reply::Echo(_) | Reply::Events(_) => SizeHint::default(),
        }
    }
}
