//! One request and its response: to whom it goes, what happens when that fails, and how the answer comes back.
//!
//! A request is tried until it is answered, may not be repeated, or there is nobody left to try. Who may be tried, and
//! whether again, is decided in `pool/`; here the attempts are made.

use super::answer::Problem;
use super::body::{self, DownloadError, Replay, UploadError};
use super::dial::{DialError, dial};
use super::fields::Framing;
use super::guard::{Guard, Refusal};
use super::inbound::{Inbound, Sign, Watch};
use super::kept::{FRESH, Idle};
use super::request::RequestHead;
use super::response::{Delivery, ResponseHead};
use super::socket::{Reader, WriteError, Writer};
use super::timer::Timer;
use crate::clock;
use crate::config;
use crate::pool::retry::{self, Failure, Request, Tried};
use crate::pool::{EndpointId, Outcome};
use crate::upstream::{Lease, Upstream};
use bytes::Bytes;
use pingora_core::protocols::http::v1::{client, server};
use pingora_error::ErrorType;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// While a request may be moved away from an endpoint that is declared down, this is how soon it notices.
const MOVE_TICK: Duration = Duration::from_millis(100);

/// Interim responses that one request may bring. Servers send one or two; more is a flood.
const MAX_INTERIM: u32 = 32;

/// One request on its way.
pub(super) struct Exchange<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) config: &'a config::Upstream,
    pub(super) limits: &'a config::Server,
    pub(super) head: &'a RequestHead,
    /// The head as the replica gets it.
    pub(super) request: &'a [u8],
    /// The process is draining: the client is told to go elsewhere with its next request.
    pub(super) draining: bool,
}

/// How an exchange ended, for the client's connection.
pub(super) enum End {
    /// The next request may come.
    Next,
    /// All was said; the connection closes once the client has read it.
    Close,
    /// The response is not whole, and the client must see that; with what the replica did, if it was the replica.
    Cut(Option<Problem>),
    /// Nobody is there to say anything to.
    Gone,
    /// Nothing was said: the answer is this problem.
    Problem(Problem),
    /// The connection now belongs to another protocol.
    Upgraded(Box<Upgraded>),
}

/// Both ends of a connection that changed its protocol.
pub(super) struct Upgraded {
    pub(super) lease: Lease,
    pub(super) reader: Box<Reader>,
    pub(super) writer: Writer,
    /// What the replica sent behind its head.
    pub(super) early: Bytes,
}

/// What is known of a request's attempts, for retries and the log.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) tried: Vec<EndpointId>,
    /// Who was tried, for the log.
    pub(super) endpoints: Vec<SocketAddr>,
    count: Tried,
    pub(super) waited: Duration,
    /// The status that went to the client, if a replica answered.
    pub(super) status: u16,
}

/// A connection to a replica, taken for one request.
struct Link {
    reader: Box<Reader>,
    writer: Writer,
    /// It had been unused for so long that its replica may just have closed it.
    stale: bool,
}

/// An attempt that brought no response.
struct Failed {
    problem: Problem,
    failure: Failure,
    /// The client has closed its side, so nothing is repeated for it.
    client_ended: bool,
    /// Where the request moves to.
    next: Option<Lease>,
}

/// What an attempt came to.
enum Attempt {
    End(End),
    Failed(Failed),
}

impl Exchange<'_> {
    /// Makes attempts until one ends the exchange. `out` is a buffer to write heads in.
    pub(super) async fn run(
        &self,
        session: &mut server::HttpSession,
        writer: &mut Writer,
        timer: &mut Timer,
        out: &mut Vec<u8>,
        attempts: &mut Attempts,
    ) -> End {
        self.upstream.count_request();
        let mut replay = Replay::default();
        let mut next = None;
        loop {
            let lease = match next.take() {
                Some(lease) => lease,
                None => match self.take(attempts) {
                    Some(lease) => lease,
                    None => match Box::pin(self.wait(session, timer, attempts)).await {
                        Ok(lease) => lease,
                        Err(end) => return end,
                    },
                },
            };
            let failed = match self.link(lease, attempts).await {
                Err(failed) => failed,
                Ok((lease, link)) => {
                    let (id, address) = (lease.id(), lease.endpoint().address());
                    match self.attempt(lease, link, session, writer, timer, out, &mut replay, attempts).await {
                        Attempt::End(end) => return end,
                        Attempt::Failed(failed) => {
                            attempts.tried.push(id);
                            attempts.endpoints.push(address);
                            failed
                        }
                    }
                }
            };
            match failed.failure {
                Failure::Connect => attempts.count.connects += 1,
                _ => attempts.count.attempts += 1,
            }
            if !self.may_retry(&failed, attempts, &replay) {
                return End::Problem(failed.problem);
            }
            attempts.count.moves += u32::from(failed.failure == Failure::Abandoned);
            self.upstream.metrics().retries.add(failed.problem.token());
            if let Some(pause) = retry::pause(failed.failure, attempts.count)
                && let Err(end) = Box::pin(self.pause(session, timer, attempts, pause)).await
            {
                return end;
            }
            next = failed.next;
        }
    }

    fn may_retry(&self, failed: &Failed, attempts: &Attempts, replay: &Replay) -> bool {
        !failed.client_ended
            && retry::may_retry(failed.failure, self.rights(replay.is_whole()), attempts.count, self.config.retries)
            && (failed.failure == Failure::Connect || self.upstream.withdraw_retry(clock::now()))
    }

    /// What HTTP allows to do with this request.
    fn rights(&self, replayable: bool) -> Request {
        Request { safe: self.head.is_safe(), idempotent: self.head.is_idempotent(), replayable }
    }

    /// A connection to the endpoint of `lease`, or to one that was quicker to accept.
    async fn link(&self, lease: Lease, attempts: &mut Attempts) -> Result<(Lease, Link), Failed> {
        let now = clock::now();
        let address = lease.endpoint().address();
        let once = !self.head.is_idempotent();
        // A request that is repeated takes a fresh connection: what closed the first kept one may have closed them all.
        let first = attempts.count.attempts == 0;
        let idle = first.then(|| lease.endpoint().kept().take(once, self.config.idle_timeout, now)).flatten();
        if let Some(idle) = idle {
            let stale = now.saturating_duration_since(idle.since) > FRESH;
            return Ok((lease, Link { reader: idle.reader, writer: idle.writer, stale }));
        }
        let connects = &self.upstream.metrics().connects;
        match Box::pin(dial(self.upstream, lease, &mut attempts.tried, self.config.connect_timeout)).await {
            Ok((lease, reader, writer)) => {
                connects.add("connected");
                Ok((lease, Link { reader, writer, stale: false }))
            }
            Err(error) => {
                attempts.endpoints.push(address);
                connects.add(match error {
                    DialError::Refused => "refused",
                    DialError::TimedOut => "timed_out",
                    DialError::Exhausted => "exhausted",
                });
                Err(Failed {
                    problem: match error {
                        DialError::Refused => Problem::Refused,
                        DialError::TimedOut => Problem::ConnectTimeout,
                        DialError::Exhausted => Problem::Exhausted,
                    },
                    failure: if error == DialError::Exhausted { Failure::Final } else { Failure::Connect },
                    client_ended: false,
                    next: None,
                })
            }
        }
    }

    /// Sends the request over `link` and passes on what comes back.
    #[allow(clippy::too_many_arguments)]
    async fn attempt(
        &self,
        mut lease: Lease,
        mut link: Link,
        session: &mut server::HttpSession,
        client: &mut Writer,
        timer: &mut Timer,
        out: &mut Vec<u8>,
        replay: &mut Replay,
        attempts: &mut Attempts,
    ) -> Attempt {
        link.reader.begin(Guard::response(self.limits.max_header));
        let stale = link.stale;
        let mut up = client::HttpSession::new(link.reader);
        let patience = self.limits.body_idle;
        let mut inbound = if self.head.framing() == Framing::Empty {
            match link.writer.write_all([self.request, b"", b""], timer, patience).await {
                Ok(()) => Inbound::Sent(Watch::new(session)),
                Err(WriteError::Gone { taken }) => Inbound::Refused { started: taken > 0 },
                Err(WriteError::Stalled) => {
                    return self.failed(&lease, Problem::ResponseTimeout, Failure::Final, Outcome::TimedOut);
                }
            }
        } else {
            let framing = self.head.framing();
            Inbound::Sending(Box::pin(body::upload(session, &mut link.writer, self.request, framing, replay, patience)))
        };

        let response = match self.response(&mut lease, &mut up, &mut inbound, client, timer, out, stale, attempts).await
        {
            Ok(response) => response,
            Err(attempt) => return attempt,
        };
        if response.status() == 101 {
            drop(inbound);
            let upgrade = self.upgrade(lease, up, link.writer, &response, client, timer, out);
            return Attempt::End(Box::pin(upgrade).await);
        }
        if response.fields.event_stream {
            lease.become_stream();
        }

        // A response that refuses the rest of the body ends the connection; any other may still see it through.
        let refused = !inbound.is_sent() && response.status() >= 400;
        let to_close = response.framing() == Framing::ToClose && self.head.is_http_1_0();
        let keep_client = self.head.keeps_alive() && !self.draining && !refused && !to_close;
        let chunked = response.is_chunked_for(self.head.is_http_1_0()) && response.framing() != Framing::Empty;
        let connection = match (keep_client, self.head.is_http_1_0()) {
            (false, _) => Some("close"),
            (true, true) => Some("keep-alive"),
            (true, false) => None,
        };
        out.clear();
        response.write(Delivery { chunked, connection }, out);

        let passed = if response.framing() == Framing::Empty {
            match client.write_all([out, b"", b""], timer, patience).await {
                Ok(()) => Ok(()),
                Err(WriteError::Gone { .. }) => Err(DownloadError::ClientGone),
                Err(WriteError::Stalled) => Err(DownloadError::ClientSlow),
            }
        } else {
            let mut download = pin!(body::download(&mut up, client, out, chunked, timer, patience));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(result) = download.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                loop {
                    match inbound.poll(cx) {
                        Poll::Ready(Sign::Gone | Sign::Failed(_)) => {
                            return Poll::Ready(Err(DownloadError::ClientGone));
                        }
                        Poll::Ready(Sign::Sent | Sign::Refused) => {}
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await
        };
        let sent = inbound.is_sent();
        drop(inbound);
        if let Err(error) = passed {
            return Attempt::End(self.cut(&lease, error, attempts));
        }
        if sent && response.keeps_alive() {
            self.keep(&lease, up, link.writer, &response).await;
        }
        Attempt::End(if keep_client && sent { End::Next } else { End::Close })
    }

    /// Reads up to the final head of the response, passing on interim ones, while the request's body is still sent.
    #[allow(clippy::too_many_arguments)]
    async fn response(
        &self,
        lease: &mut Lease,
        up: &mut client::HttpSession,
        inbound: &mut Inbound<'_>,
        client: &mut Writer,
        timer: &mut Timer,
        out: &mut Vec<u8>,
        stale: bool,
        attempts: &mut Attempts,
    ) -> Result<ResponseHead, Attempt> {
        let mut sent_at = inbound.is_sent().then(clock::now);
        let mut interim = 0;
        let mut moved = None;
        loop {
            let event = {
                let mut read = pin!(up.read_response());
                std::future::poll_fn(|cx| {
                    loop {
                        match inbound.poll(cx) {
                            Poll::Ready(Sign::Sent | Sign::Refused) => sent_at = Some(clock::now()),
                            Poll::Ready(Sign::Failed(error)) => return Poll::Ready(Event::Client(Some(error))),
                            Poll::Ready(Sign::Gone) => return Poll::Ready(Event::Client(None)),
                            Poll::Pending => break,
                        }
                    }
                    if let Poll::Ready(result) = read.as_mut().poll(cx) {
                        return Poll::Ready(Event::Head(result));
                    }
                    let Some(sent) = sent_at else {
                        return Poll::Pending;
                    };
                    let deadline = sent + self.config.response_timeout;
                    // A copy may still be running there, so only what merely reads moves, and only if somebody else is
                    // there to take it.
                    let may_move = self.head.is_safe() && attempts.count.moves == 0 && !inbound.has_ended();
                    if may_move && lease.is_down() {
                        let mut tried = attempts.tried.clone();
                        tried.push(lease.id());
                        moved = self.upstream.acquire_other(&tried);
                        if moved.is_some() {
                            return Poll::Ready(Event::Down);
                        }
                    }
                    let mut wake = if may_move { deadline.min(clock::now() + MOVE_TICK) } else { deadline };
                    loop {
                        if timer.poll_expired(cx, wake).is_pending() {
                            return Poll::Pending;
                        }
                        let now = clock::now();
                        if now >= deadline {
                            return Poll::Ready(Event::Timeout);
                        }
                        if may_move && lease.is_down() {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        wake = deadline.min(now + MOVE_TICK);
                    }
                })
                .await
            };
            let failed = |problem, failure, outcome| Err(self.failed(lease, problem, failure, outcome));
            match event {
                Event::Head(Ok(_)) => {}
                Event::Head(Err(error)) => {
                    let (problem, failure, outcome) = self.no_head(up, &error, inbound, stale);
                    let mut attempt = self.failed(lease, problem, failure, outcome);
                    if let Attempt::Failed(failed) = &mut attempt {
                        failed.client_ended = inbound.has_ended();
                    }
                    return Err(attempt);
                }
                Event::Client(error) => {
                    self.upstream.record(lease, Outcome::Abandoned, clock::now());
                    return Err(Attempt::End(match error {
                        None | Some(UploadError::ClientGone) => End::Gone,
                        Some(UploadError::ClientSlow) => End::Problem(Problem::BodyTimeout),
                        Some(_) => End::Problem(Problem::BadRequest("the request's body is not what its head says")),
                    }));
                }
                Event::Down => {
                    let mut attempt =
                        self.failed(lease, Problem::ResponseTimeout, Failure::Abandoned, Outcome::Abandoned);
                    if let Attempt::Failed(failed) = &mut attempt {
                        failed.next = moved;
                    }
                    return Err(attempt);
                }
                Event::Timeout => return failed(Problem::ResponseTimeout, Failure::Final, Outcome::TimedOut),
            }

            let now = clock::now();
            let status = up.get_status().map_or(0, |s| s.as_u16());
            let head = match ResponseHead::read(up.get_headers_raw_bytes(), status, self.head.is_head()) {
                Ok(head) => head,
                Err(fault) => return failed(Problem::Garbage(fault.reason()), Failure::Final, Outcome::Invalid),
            };
            let last = !(100..=199).contains(&status) || status == 101;
            if let Some(reader) = Reader::in_stream(up.stream()) {
                reader.count_head(head.length(), last);
            }
            if status == 101 && !self.head.wants_websocket() {
                let why = "the replica switched protocols unasked";
                return failed(Problem::Garbage(why), Failure::Final, Outcome::Invalid);
            }
            if last {
                let first_byte = now.saturating_duration_since(sent_at.unwrap_or(now));
                self.upstream.record(lease, Outcome::Answered { status, first_byte }, now);
                attempts.status = status;
                return Ok(head);
            }
            interim += 1;
            if interim > MAX_INTERIM {
                let why = "the replica sends interim responses without end";
                return failed(Problem::Garbage(why), Failure::Final, Outcome::Invalid);
            }
            if !self.head.is_http_1_0() {
                out.clear();
                head.write(Delivery { chunked: false, connection: None }, out);
                if client.write_all([out, b"", b""], timer, self.limits.body_idle).await.is_err() {
                    self.upstream.record(lease, Outcome::Abandoned, now);
                    return Err(Attempt::End(End::Gone));
                }
            }
        }
    }

    /// What it means that no head came.
    fn no_head(
        &self,
        up: &client::HttpSession,
        error: &pingora_error::Error,
        inbound: &Inbound<'_>,
        stale: bool,
    ) -> (Problem, Failure, Outcome) {
        let reader = Reader::in_stream(up.stream());
        if reader.is_some_and(|r| r.guard().refusal() == Some(Refusal::HeadTooLong)) {
            return (Problem::ResponseHeadTooLong, Failure::Final, Outcome::Invalid);
        }
        match error.etype() {
            ErrorType::ReadError | ErrorType::ConnectionClosed => {
                let silent = reader.is_none_or(|r| r.received() == 0);
                let outcome = if stale && silent { Outcome::Stale } else { Outcome::Broken };
                // What the kernel never took, the replica never saw.
                let failure = if inbound.is_unsent() { Failure::Connect } else { Failure::Dead };
                (Problem::Broken, failure, outcome)
            }
            _ => (Problem::Garbage("the replica's response is not HTTP"), Failure::Final, Outcome::Invalid),
        }
    }

    fn failed(&self, lease: &Lease, problem: Problem, failure: Failure, outcome: Outcome) -> Attempt {
        self.upstream.record(lease, outcome, clock::now());
        Attempt::Failed(Failed { problem, failure, client_ended: false, next: None })
    }

    /// A response that stopped half-way: the client must see that it is not whole.
    fn cut(&self, lease: &Lease, error: DownloadError, attempts: &mut Attempts) -> End {
        let outcome = match error {
            DownloadError::ClientGone | DownloadError::ClientSlow => Outcome::Abandoned,
            DownloadError::ReplicaBroken => Outcome::Broken,
            DownloadError::ReplicaSlow => Outcome::TimedOut,
        };
        self.upstream.record(lease, outcome, clock::now());
        attempts.status = 0;
        match error {
            DownloadError::ClientGone => End::Gone,
            DownloadError::ClientSlow => End::Cut(None),
            DownloadError::ReplicaBroken => End::Cut(Some(Problem::Incomplete("the replica broke off its response"))),
            DownloadError::ReplicaSlow => {
                End::Cut(Some(Problem::Incomplete("the replica paused in its response for longer than body_idle")))
            }
        }
    }

    /// Puts a connection back whose request and response are whole and behind which nothing came.
    async fn keep(&self, lease: &Lease, mut up: client::HttpSession, writer: Writer, response: &ResponseHead) {
        let reader = if response.framing() == Framing::Empty {
            let surplus = Reader::in_stream(up.stream()).is_none_or(Reader::has_surplus);
            if surplus { None } else { Reader::from_stream(up.into_inner()) }
        } else {
            up.respect_keepalive();
            Box::pin(up.reuse()).await.and_then(Reader::from_stream)
        };
        if let Some(reader) = reader {
            let idle = Idle { reader, writer, since: clock::now() };
            lease.endpoint().kept().put(idle, lease.generation(), self.config.max_idle);
        }
    }

    /// Hands over both ends of a connection that changed its protocol.
    #[allow(clippy::too_many_arguments)]
    async fn upgrade(
        &self,
        mut lease: Lease,
        mut up: client::HttpSession,
        writer: Writer,
        response: &ResponseHead,
        client: &mut Writer,
        timer: &mut Timer,
        out: &mut Vec<u8>,
    ) -> End {
        out.clear();
        response.write_upgrade(out);
        if client.write_all([out, b"", b""], timer, self.limits.body_idle).await.is_err() {
            return End::Gone;
        }
        lease.become_stream();
        // The session may hold what came with the head; it hands it out at the first poll or has nothing.
        let early = {
            let mut read = pin!(up.read_body_bytes());
            std::future::poll_fn(|cx| match read.as_mut().poll(cx) {
                Poll::Ready(Ok(Some(early))) => Poll::Ready(Some(early)),
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => Poll::Ready(Some(Bytes::new())),
            })
            .await
        };
        match (early, Reader::from_stream(up.into_inner())) {
            (Some(early), Some(reader)) => End::Upgraded(Box::new(Upgraded { lease, reader, writer, early })),
            _ => End::Close,
        }
    }
}

/// What ends the wait for a head.
enum Event {
    Head(pingora_error::Result<usize>),
    /// The client ended it.
    Client(Option<UploadError>),
    /// The endpoint was declared down.
    Down,
    Timeout,
}
