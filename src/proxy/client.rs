//! One client's connection: request after request, until one side ends it.

use super::answer::Problem;
use super::exchange::{Attempts, End, Exchange};
use super::guard::Guard;
use super::request::{RequestHead, Rewrite};
use super::seat::Seat;
use super::socket::{self, Reader, Writer};
use super::timer::Timer;
use super::tunnel;
use super::{Proxy, Table};
use crate::clock;
use crate::config::OnFailure;
use crate::failure::Failure;
use crate::route::{Target, forward};
use crate::worker;
use arc_swap::Cache;
use bytes::{Bytes, BytesMut};
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_error::ErrorType;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// An answer that ends the connection is followed by this long a wait for the client to read it and close: closing at
/// once with unread bytes would make the kernel send a reset, which may overtake the answer (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// What is discarded at most while lingering.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a target that the log shows.
const LOGGED: usize = 200;

/// A buffer grown beyond this by one large head is given back.
const BUFFER_KEPT: usize = 8 * 1024;

/// What a connection keeps from request to request.
struct Client {
    writer: Writer,
    timer: Timer,
    peer: SocketAddr,
    /// The request's head on its way to the replica.
    request: Vec<u8>,
    /// The response's head on its way to the client.
    response: Vec<u8>,
}

/// Serves `stream` until it ends.
pub(super) async fn serve(proxy: Arc<Proxy>, stream: TcpStream, peer: SocketAddr, seat: Arc<Seat>) {
    let Ok((mut reader, writer)) = socket::split(stream) else {
        return;
    };
    let mut table = Cache::new(&proxy.table);
    let mut early = None;
    let timer = Timer::new(clock::now() + table.load().server.client_idle);
    let mut client = Client { writer, timer, peer, request: Vec::new(), response: Vec::new() };
    loop {
        if early.is_none() {
            seat.rest(proxy.millis());
            let deadline = clock::now() + table.load().server.client_idle;
            let readable = std::future::poll_fn(|cx| reader.poll_readable(cx));
            if client.timer.limit(deadline, readable).await.is_err() {
                return;
            }
            seat.work();
        }
        // On the heap, and only while it runs: it is some kilobytes, which a resting connection does not hold.
        match Box::pin(client.turn(&proxy, table.load(), reader, early)).await {
            Some(next) => (reader, early) = next,
            None => return,
        }
        client.request.shrink_to(BUFFER_KEPT);
        client.response.shrink_to(BUFFER_KEPT);
    }
}

/// Takes the connection out of a session whose request is over, with what came behind the request.
///
/// What rarely happens is on the heap here and in the exchange, so that what happens each time stays small: a request's
/// state is moved to the heap whole.
pub(super) async fn next_reader(session: HttpSession) -> Option<(Box<Reader>, Option<BytesMut>)> {
    let alone = Reader::in_stream(session.stream()).is_some_and(|reader| !reader.has_surplus());
    if alone {
        return Some((Reader::from_stream(session.into_inner())?, None));
    }
    let (stream, prefix) = Box::pin(session.reuse()).await.ok()??.into_parts();
    Some((Reader::from_stream(stream)?, prefix))
}

impl Client {
    /// One request, from its first byte to the end of its response. Gives the connection back if another may come, with
    /// what came of it already (`early`).
    async fn turn(
        &mut self,
        proxy: &Proxy,
        table: &Table,
        mut reader: Box<Reader>,
        early: Option<BytesMut>,
    ) -> Option<(Box<Reader>, Option<BytesMut>)> {
        let limits = &table.server;
        reader.begin(Guard::request(limits.max_header, limits.max_target));
        let fit = early.as_ref().is_none_or(|bytes| reader.carry_over(bytes).is_ok());
        let mut session = HttpSession::new(reader);
        session.set_read_timeout(None);
        session.set_pipelining_enabled(true);
        if let Some(bytes) = early {
            session.set_pipelined_prefix(bytes);
        }
        let end = {
            let _active = proxy.active();
            if fit { self.request(proxy, table, &mut session).await } else { self.refuse(proxy, &session, false).await }
        };
        match end {
            End::Next => next_reader(session).await,
            End::Close => {
                Box::pin(self.linger(session)).await;
                None
            }
            End::Cut(_) => {
                self.writer.reset();
                None
            }
            End::Gone | End::Problem(_) => None,
            End::Upgraded(upgraded) => {
                if let Some((reader, early)) = next_reader(session).await {
                    let early = early.map_or_else(Bytes::new, BytesMut::freeze);
                    Box::pin(tunnel::run(*upgraded, reader, &mut self.writer, early, limits.body_idle)).await;
                }
                None
            }
        }
    }

    /// Reads one request and sees it through.
    async fn request(&mut self, proxy: &Proxy, table: &Table, session: &mut HttpSession) -> End {
        let limits = &table.server;
        match self.timer.limit(clock::now() + limits.header_timeout, session.read_request()).await {
            Ok(Ok(Some(_))) => {}
            // Nothing came, or nothing that the guard let through.
            Ok(Ok(None)) => return self.refuse(proxy, session, true).await,
            Ok(Err(error)) => {
                let left = matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError);
                return self.refuse(proxy, session, left).await;
            }
            Err(_) => return self.turn_away(proxy, &Problem::HeaderTimeout, false).await,
        }
        let head = match RequestHead::read(session.get_headers_raw_bytes()) {
            Ok(head) => head,
            Err(fault) => return self.turn_away(proxy, &fault.into(), false).await,
        };
        if let Some(reader) = Reader::in_stream(session.stream()) {
            reader.count_head(head.length(), true);
        }
        let is_head = head.is_head();
        if head.method() == b"CONNECT" {
            return self.turn_away(proxy, &Problem::Method, is_head).await;
        }
        if head.fields.probe {
            tracing::error!(client = %self.peer, "another Evenkeel probes this one: the proxies form a ring");
            return self.turn_away(proxy, &Problem::Loop, is_head).await;
        }
        let target = Target::new(head.target());
        // RFC 9112 section 3.2: a path, or `*` where the server as a whole is meant.
        let is_path = target.path.first().is_none_or(|b| matches!(b, b'/' | b'?'));
        if !(is_path || (target.path == b"*" && head.method() == b"OPTIONS")) {
            return self.turn_away(proxy, &Problem::BadRequest("the request's target is not a path"), is_head).await;
        }
        let Some(route) = table.router.find(target.host(head.host()), target.path) else {
            return self.turn_away(proxy, &Problem::NoRoute, is_head).await;
        };
        let (upstream, config) = &table.upstreams[route.upstream];
        // `OPTIONS http://host` asks about the server as a whole (RFC 9112 section 3.2.4).
        let asks_all = target.path.is_empty() && head.method() == b"OPTIONS";
        let rewrite = Rewrite {
            target: if asks_all { (b"*", b"") } else { forward(route, target.path) },
            authority: target.host(None),
            host: &config.host_header,
            default_host: &config.probe.host,
            forwarded: config.forwarded,
            client: self.peer.ip(),
        };
        head.write(&rewrite, &mut self.request);
        let exchange =
            Exchange { upstream, config, limits, head: &head, request: &self.request, draining: proxy.is_draining() };
        let mut attempts = Attempts::default();
        let began = clock::now();
        let end = exchange.run(session, &mut self.writer, &mut self.timer, &mut self.response, &mut attempts).await;
        let failed = match &end {
            End::Problem(problem) if problem.is_upstream() => Some(problem),
            End::Cut(problem) => problem.as_ref(),
            _ => None,
        };
        if let Some(problem) = failed {
            upstream.metrics().failures.add(problem.token());
            upstream.failures().add(upstream.name(), self.failure(problem, &head, &attempts));
        }
        let took = |end: Instant| end.saturating_duration_since(began);
        let closes = config.on_failure == OnFailure::Close;
        match end {
            // What a direct dial would have met: the end of the connection.
            End::Problem(problem) if problem.is_upstream() && closes => {
                upstream.metrics().request(worker::index(), 0, took(clock::now()));
                End::Gone
            }
            End::Problem(problem) => {
                upstream.metrics().request(worker::index(), problem.status(), took(clock::now()));
                self.answer(&problem, is_head).await
            }
            end => {
                upstream.metrics().request(worker::index(), attempts.status, took(clock::now()));
                end
            }
        }
    }

    /// A failed request, for the log.
    fn failure(&self, problem: &Problem, head: &RequestHead, attempts: &Attempts) -> Failure {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(LOGGED)]).into_owned();
        Failure {
            at: clock::now(),
            problem: problem.clone(),
            endpoints: attempts.endpoints.clone(),
            waited: attempts.waited,
            client: self.peer,
            method: text(head.method()),
            target: text(head.target()),
            traceparent: head.traceparent().map(text),
        }
    }

    /// Answers a head that could not be read; `left`: its client is gone before it was whole.
    async fn refuse(&mut self, proxy: &Proxy, session: &HttpSession, left: bool) -> End {
        let refusal = Reader::in_stream(session.stream()).and_then(|reader| reader.guard().refusal());
        match refusal {
            Some(refusal) => self.turn_away(proxy, &refusal.into(), false).await,
            None if left => End::Gone,
            None => self.turn_away(proxy, &Problem::BadRequest("the request's head is malformed"), false).await,
        }
    }

    /// Answers a request that goes to no upstream.
    async fn turn_away(&mut self, proxy: &Proxy, problem: &Problem, is_head: bool) -> End {
        proxy.metrics().refused.add(problem.token());
        tracing::debug!(client = %self.peer, reason = problem.token(), "request refused: {}", problem.text());
        self.answer(problem, is_head).await
    }

    /// Says why there is no answer of a replica.
    async fn answer(&mut self, problem: &Problem, is_head: bool) -> End {
        self.response.clear();
        problem.write(is_head, &mut self.response);
        match self.writer.write_all([&self.response, b"", b""], &mut self.timer, LINGER).await {
            Ok(()) => End::Close,
            Err(_) => End::Gone,
        }
    }

    /// Closes so that the client can read what was said.
    async fn linger(&mut self, session: HttpSession) {
        self.writer.finish();
        if let Some(mut reader) = Reader::from_stream(session.into_inner()) {
            let _ = self.timer.limit(clock::now() + LINGER, reader.discard(LINGER_BYTES)).await;
        }
    }
}
