//! One client's connection: request after request, until one side ends it.

use super::answer::Problem;
use super::exchange::{Attempts, Caller, End, Exchange};
use super::fields::Framing;
use super::guard::Guard;
use super::head::{self, HEAD_READ, HeadError};
use super::inflow::Inflow;
use super::limit::Permit;
use super::log;
use super::memory::{Full, Holding};
use super::request::{RequestHead, Rewrite};
use super::socket::{self, Peeked, Reader, Writer};
use super::timer::Timer;
use super::tunnel;
use super::{Proxy, Table};
use crate::clock;
use crate::config::{self, OnFailure};
use crate::failure::Failure;
use crate::route::{Target, forward};
use crate::worker::{self, Heads};
use arc_swap::Cache;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// An answer that ends the connection is followed by a wait for the client to read it and close: closing at once with
/// unread bytes would make the kernel send a reset, which may overtake the answer (RFC 9112 section 9.6). So long it may
/// stay silent …
const LINGER: Duration = Duration::from_secs(1);

/// … so long while it has yet to send the rest of a body …
const LINGER_IN_BODY: Duration = Duration::from_secs(5);

/// … and so long it may take in all: many clients read nothing before they have written everything.
const LINGER_AT_MOST: Duration = Duration::from_secs(60);

/// Clients that speak another protocol, or probe as an Evenkeel does, are logged this often: they come again and again.
const REPEAT_PAUSE: Duration = Duration::from_secs(60);

/// What a connection keeps from request to request.
struct Client {
    writer: Writer,
    timer: Timer,
    peer: SocketAddr,
    /// None of any size while the connection rests.
    heads: Heads,
}

/// Serves `stream` until it ends.
pub(super) async fn serve(proxy: Arc<Proxy>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
    let (mut reader, writer) = socket::split(stream);
    let mut table = Cache::new(&proxy.table);
    let timer = Timer::new(clock::now() + table.load().server.client_idle);
    let mut client = Client { writer, timer, peer, heads: Heads::default() };
    loop {
        if reader.ahead().is_empty() {
            reader.rest();
            worker::give_back_heads(std::mem::take(&mut client.heads));
            let now = clock::now();
            if !permit.rest(proxy.millis_at(now)) {
                return;
            }
            let deadline = now + table.load().server.client_idle;
            match client.timer.limit(deadline, reader.fill(HEAD_READ)).await {
                Ok(Ok(1..)) => {}
                _ => return,
            }
            if !permit.work() {
                return;
            }
            client.heads = worker::heads();
        }
        // On the heap, and only while it runs: it is some kilobytes, which a resting connection does not hold.
        match Box::pin(client.turn(&proxy, table.load(), reader)).await {
            Some(next) => reader = next,
            None => return,
        }
    }
}

impl Client {
    /// One request, from its first byte to the end of its response. Gives the reader back if another may come.
    ///
    /// What rarely happens is on the heap here and in the exchange, so that what happens each time stays small: a
    /// request's state is moved to the heap whole.
    async fn turn(&mut self, proxy: &Proxy, table: &Table, mut reader: Box<Reader>) -> Option<Box<Reader>> {
        let mut raw = std::mem::take(&mut self.heads.client);
        let mut holding = proxy.memory.holding(table.server.max_buffered);
        self.writer.begin();
        let (end, inflow, last) = {
            let _active = proxy.active();
            match self.read(proxy, &table.server, &mut reader, &mut raw, &mut holding).await {
                Ok(head) => {
                    let mut inflow = Inflow::new(reader, head.framing());
                    let mut end = self.request(proxy, table, &head, &mut inflow).await;
                    while let End::Rerouted = end {
                        let table = proxy.table();
                        end = Box::pin(self.request(proxy, &table, &head, &mut inflow)).await;
                    }
                    (end, inflow, !head.keeps_alive())
                }
                Err(end) => (end, Inflow::new(reader, Framing::Empty), false),
            }
        };
        if !matches!(end, End::Cut(_) | End::Upgraded(_)) {
            self.writer.end();
        }
        self.heads.client = raw;
        if !matches!(end, End::Next) {
            // No head comes any more, but the connection may stay for long: as a tunnel, or until its client has read.
            worker::give_back_heads(std::mem::take(&mut self.heads));
        }
        drop(holding);
        match end {
            End::Next => inflow.into_next(),
            // Who said that this is its last request, and sent nothing behind it, sends nothing that a reset would answer.
            End::Close if last && inflow.is_last() && inflow.reader().news() == Peeked::Nothing => None,
            End::Close => {
                Box::pin(self.linger(inflow)).await;
                None
            }
            End::Cut(_) | End::Gone | End::Problem(_) | End::Rerouted => None,
            End::Upgraded(upgraded) => {
                let reader = inflow.into_reader();
                Box::pin(tunnel::run(proxy, *upgraded, reader, &mut self.writer, table.server.body_idle)).await;
                None
            }
        }
    }

    /// Reads one head into `raw`, or says why there is none.
    async fn read<'h>(
        &mut self,
        proxy: &Proxy,
        limits: &config::Server,
        reader: &mut Reader,
        raw: &'h mut Vec<u8>,
        holding: &mut Holding<'_>,
    ) -> Result<RequestHead<'h>, End> {
        let guard = Guard::request(limits.max_header, limits.max_target);
        let reading = head::read_request(reader, guard, holding);
        let problem = match self.timer.limit_to(limits.header_timeout, reading).await {
            Ok(Ok(length)) => {
                raw.clear();
                raw.extend_from_slice(&reader.ahead()[..length]);
                reader.consume(length);
                reader.rest();
                // As it came, and as it goes to the replica.
                match holding.set(2 * raw.capacity() + reader.held()) {
                    Err(Full) => Problem::NoMemory,
                    Ok(()) => match RequestHead::read(raw) {
                        Ok(head) => return Ok(head),
                        Err(fault) => fault.into(),
                    },
                }
            }
            Ok(Err(HeadError::Broken | HeadError::Lost)) => return Err(End::Gone),
            Ok(Err(HeadError::Refused(refusal))) => refusal.into(),
            Ok(Err(HeadError::NoMemory)) => Problem::NoMemory,
            Ok(Err(HeadError::Alien)) => Problem::BadRequest("the request's head is malformed"),
            Err(_) => Problem::HeaderTimeout,
        };
        Err(self.turn_away(proxy, &problem, false).await)
    }

    /// Sees one request through.
    async fn request(&mut self, proxy: &Proxy, table: &Table, head: &RequestHead<'_>, inflow: &mut Inflow) -> End {
        let limits = &table.server;
        let is_head = head.is_head();
        if head.method() == b"CONNECT" {
            return self.turn_away(proxy, &Problem::Method, is_head).await;
        }
        if head.fields.probe {
            if let Some(suppressed) = proxy.ring.comes(proxy.millis(), REPEAT_PAUSE) {
                tracing::error!(
                    client = %self.peer,
                    suppressed,
                    "another Evenkeel probes this one: the proxies form a ring; its upstream's address is this proxy's alias"
                );
            }
            return self.turn_away(proxy, &Problem::Loop, is_head).await;
        }
        let target = Target::new(head.target());
        // RFC 9112 section 3.2: a path, which only a whole URL may lack, or `*` where the server as a whole is meant.
        let is_path = target.path.starts_with(b"/") || target.authority.is_some();
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
        head.write(&rewrite, &mut self.heads.request);
        let (began, peer) = (clock::now(), self.peer.ip());
        let exchange = Exchange { upstream, config, limits, head, request: &self.heads.request, proxy, began, peer };
        let caller = Caller { writer: &mut self.writer, timer: &mut self.timer, out: &mut self.heads.response };
        let mut attempts = Attempts::default();
        let end = exchange.run(inflow, caller, &mut attempts).await;
        let failed = match &end {
            End::Problem(problem) if problem.is_upstream() => Some(problem),
            End::Cut(problem) => problem.as_ref(),
            _ => None,
        };
        if let Some(problem) = failed {
            upstream.metrics().failures.add(problem.token());
            let failure = self.failure(problem, head, &attempts, began, limits.log_query);
            upstream.failures().add(upstream.name(), failure, || upstream.explain_unusable());
        }
        let ended = |status: u16| {
            let took = clock::now().saturating_duration_since(began);
            upstream.metrics().request(worker::index(), status, took);
            log::request(upstream.name(), self.peer, head, limits.log_query, status, took, &attempts);
        };
        let closes = config.on_failure == OnFailure::Close;
        match end {
            // What a direct dial would have met: the end of the connection.
            End::Problem(problem) if problem.is_upstream() && closes => {
                ended(0);
                End::Gone
            }
            End::Problem(problem) => {
                ended(problem.status());
                let whole = inflow.at_hand(true).is_some() && head.keeps_alive() && !head.is_http_1_0();
                let keep = problem.spares_connection() && whole && !proxy.is_draining();
                self.answer(&problem, is_head, keep).await
            }
            End::Rerouted => End::Rerouted,
            end => {
                ended(attempts.status);
                end
            }
        }
    }

    /// A failed request, for the log.
    fn failure(
        &self,
        problem: &Problem,
        head: &RequestHead<'_>,
        attempts: &Attempts,
        began: Instant,
        log_query: bool,
    ) -> Failure {
        let at = clock::now();
        Failure {
            at,
            took: at.saturating_duration_since(began),
            problem: problem.clone(),
            endpoints: attempts.endpoints.clone(),
            waited: attempts.waited,
            client: self.peer,
            method: log::excerpt(head.method()),
            target: log::target(head.target(), log_query),
            traceparent: head.traceparent().map(log::excerpt),
        }
    }

    /// Answers a request that goes to no upstream.
    async fn turn_away(&mut self, proxy: &Proxy, problem: &Problem, is_head: bool) -> End {
        proxy.metrics().refused.add(problem.token());
        if matches!(problem, Problem::Tls | Problem::Http2)
            && let Some(suppressed) = proxy.foreign.comes(proxy.millis(), REPEAT_PAUSE)
        {
            tracing::warn!(client = %self.peer, suppressed, "request refused: {}", problem.text());
        }
        tracing::debug!(client = %self.peer, reason = problem.token(), "request refused: {}", problem.text());
        self.answer(problem, is_head, false).await
    }

    /// Says why there is no answer of a replica. `keep`: the connection goes on.
    async fn answer(&mut self, problem: &Problem, is_head: bool, keep: bool) -> End {
        self.heads.response.clear();
        problem.write(is_head, keep, &mut self.heads.response);
        match self.writer.write_all([&self.heads.response, b"", b""], &mut self.timer, LINGER).await {
            Ok(()) if keep => End::Next,
            Ok(()) => End::Close,
            Err(_) => End::Gone,
        }
    }

    /// Closes so that the client can read what was said.
    async fn linger(&mut self, inflow: Inflow) {
        self.writer.finish();
        let pause = if inflow.is_done() { LINGER } else { LINGER_IN_BODY };
        let over = clock::now() + LINGER_AT_MOST;
        let mut reader = inflow.into_reader();
        while let Ok(true) = self.timer.limit(over.min(clock::now() + pause), reader.discard()).await {}
    }
}
