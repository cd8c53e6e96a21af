//! One client's connection: request after request, until one side ends it.

use super::answer::{Asked, Problem};
use super::attempt::MOVE_TICK;
use super::exchange::{Caller, End};
use super::fields::Framing;
use super::guard::Guard;
use super::head::{self, HEAD_READ, HeadError};
use super::http2;
use super::inflow::{Http1, Inflow};
use super::limit::Permit;
use super::memory::{Full, Holding};
use super::outflow::Outflow;
use super::request::RequestHead;
use super::socket::{self, Peeked, Reader, Writer};
use super::timer::Timer;
use super::tunnel;
use super::turn::Turn;
use super::{Proxy, Table};
use crate::clock;
use crate::config;
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

/// What a connection keeps from request to request.
struct Client {
    writer: Writer,
    timer: Timer,
    peer: SocketAddr,
    /// None of any size while the connection rests.
    heads: Heads,
}

/// Serves `stream` from `at` until it ends.
pub(super) async fn serve(proxy: Arc<Proxy>, stream: TcpStream, peer: SocketAddr, permit: Permit, at: Instant) {
    let (mut reader, writer) = socket::split(stream);
    let mut table = Cache::new(&proxy.table);
    // For nothing at first: a request that comes soon, as most do, finds it early enough for its own deadlines.
    let timer = Timer::new(at + MOVE_TICK);
    let mut accepted = Some(at);
    let mut client = Client { writer, timer, peer, heads: Heads::default() };
    loop {
        if reader.ahead().is_empty() {
            reader.rest();
            worker::give_back_heads(std::mem::take(&mut client.heads));
            let fresh = accepted.take();
            let now = fresh.unwrap_or_else(clock::now);
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
            // A connection is one of HTTP/2 from its first byte on, or never. On the heap, as few are.
            if fresh.is_some() && http2::begins(reader.ahead()) {
                let patience = table.load().server.header_timeout;
                if Box::pin(client.speaks_http2(&mut reader, patience)).await {
                    return Box::pin(http2::serve(&proxy, reader, client.writer, peer, &permit)).await;
                }
            }
            client.heads = worker::heads();
        }
        // On the heap, and only while it runs: it is some kilobytes, which a resting connection does not hold.
        let turn = Box::write(Box::new_uninit(), client.serve(&proxy, table.load(), reader));
        match Box::into_pin(turn).await {
            Some(next) => reader = next,
            None => return,
        }
    }
}

impl Client {
    /// Whether the connection begins with the preface of HTTP/2, of which the first bytes are ahead.
    async fn speaks_http2(&mut self, reader: &mut Reader, patience: Duration) -> bool {
        let deadline = clock::now() + patience;
        loop {
            if !http2::begins(reader.ahead()) {
                return false;
            }
            if reader.ahead().len() >= http2::PREFACE.len() {
                return true;
            }
            match self.timer.limit(deadline, reader.fill(HEAD_READ)).await {
                Ok(Ok(1..)) => {}
                // What is wrong with it is found by whoever reads a head.
                _ => return false,
            }
        }
    }

    /// For the request at hand.
    fn turn(&mut self) -> Turn<'_> {
        let caller =
            Caller { outflow: Outflow::Http1(&mut self.writer), timer: &mut self.timer, out: &mut self.heads.response };
        Turn { caller, request: &mut self.heads.request, peer: self.peer }
    }

    /// One request, from its first byte to the end of its response. Gives the reader back if another may come.
    ///
    /// What rarely happens is on the heap here and in the exchange, so that what happens each time stays small: a
    /// request's state is moved to the heap whole.
    async fn serve(&mut self, proxy: &Proxy, table: &Table, mut reader: Box<Reader>) -> Option<Box<Reader>> {
        let mut raw = std::mem::take(&mut self.heads.client);
        let mut holding = proxy.memory.holding(table.server.max_buffered);
        self.writer.begin();
        let (end, inflow, last) = {
            let _active = proxy.active();
            match self.read(proxy, &table.server, &mut reader, &mut raw, &mut holding).await {
                Ok(head) => {
                    let mut inflow = Inflow::new(reader, head.framing());
                    let mut end = self.turn().request(proxy, table, &head, &mut inflow).await;
                    while let End::Rerouted = end {
                        let table = proxy.table();
                        end = Box::pin(self.turn().request(proxy, &table, &head, &mut inflow)).await;
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
            End::Close => {
                let body = inflow.into_http1()?;
                // Who said that this is its last request, and sent nothing behind it, sends nothing that a reset would answer.
                if !(last && body.is_last() && body.reader().news() == Peeked::Nothing) {
                    Box::pin(self.linger(body)).await;
                }
                None
            }
            End::Cut(_) | End::Gone | End::Problem(_) | End::Rerouted => None,
            End::Upgraded(upgraded) => {
                let reader = inflow.into_http1()?.into_reader();
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
        Err(self.turn().turn_away(proxy, &problem, Asked::default()).await)
    }

    /// Closes so that the client can read what was said.
    async fn linger(&mut self, body: Http1) {
        self.writer.finish();
        let pause = if body.is_done() { LINGER } else { LINGER_IN_BODY };
        let over = clock::now() + LINGER_AT_MOST;
        let mut reader = body.into_reader();
        while let Ok(true) = self.timer.limit(over.min(clock::now() + pause), reader.discard()).await {}
    }
}
