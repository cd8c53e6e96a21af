//! One attempt at a request: it is sent over one connection to one replica, and what comes back is passed on.

use super::answer::Problem;
use super::body::{self, DownloadError, Patience, Replay, UploadError};
use super::connection::Connection;
use super::dial::DialError;
use super::exchange::{Attempts, Caller, End, Exchange, Link, Upgraded};
use super::fields::Framing;
use super::guard::Refusal;
use super::head::HeadError;
use super::http2::{self, Ended};
use super::inbound::{Inbound, Sign};
use super::incoming::{Incoming, NoHead, Outgoing};
use super::inflow::Inflow;
use super::kept::{Idle, Rest};
use super::outflow::Outflow;
use super::response::{Delivery, ResponseHead};
use super::socket::{UNACKNOWLEDGED, WriteError};
use super::timer::Timer;
use super::transfer::pass_on;
use crate::clock;
use crate::pool::Outcome;
use crate::pool::retry::Failure;
use crate::upstream::{Fate, Lease};
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// While a request may be moved away from an endpoint that is declared down, this is how soon it notices.
pub(super) const MOVE_TICK: Duration = Duration::from_millis(100);

/// Interim responses that one request may bring. Servers send one or two; more is a flood.
const MAX_INTERIM: u32 = 32;

/// A request of at most this many bytes fits into the receive buffer of whoever did not begin to read: that its bytes stay
/// unacknowledged shows that nobody is there. Linux offers 64 KiB to a new connection.
const PROMPT: u64 = 32 * 1024;

/// A client that kept its response waiting for so long may be why the replica broke off: servers limit how long a write may
/// take, to seconds.
const HELD_UP: Duration = Duration::from_millis(100);

/// A response without a body whose stream has not ended with its head: so long its end is waited for. Most servers send it in
/// the same packet.
const LAST_FRAME: Duration = Duration::from_millis(50);

/// What is wrong with a response of malformed chunks, or of another length than it announces.
const BAD_BODY: &str = "the replica's chunks are malformed, or its body has another length than its head says";

/// What an attempt came to.
pub(super) enum Attempt {
    End(End),
    Failed(Failed),
}

/// An attempt that brought no response.
pub(super) struct Failed {
    pub(super) problem: Problem,
    pub(super) failure: Failure,
    /// The client has closed its side, so nothing is repeated for it.
    pub(super) client_ended: bool,
    /// A kept connection ended without a byte of response: its replica closed it just as it was taken.
    pub(super) raced: bool,
    /// For how long it waited for a host that is not there.
    pub(super) waited: Duration,
    /// Whether the replica outlived the break is being found out.
    pub(super) check: Option<JoinHandle<Fate>>,
    /// Where the request moves to, with a retry of the budget's already taken.
    pub(super) next: Option<Lease>,
}

impl Failed {
    /// No connection came about.
    pub(super) fn to_connect(error: DialError) -> Self {
        Failed {
            problem: match error {
                DialError::Refused | DialError::Withdrawn => Problem::Refused,
                DialError::TimedOut => Problem::ConnectTimeout,
                DialError::Exhausted => Problem::Exhausted,
            },
            failure: if error == DialError::Exhausted { Failure::Final } else { Failure::Connect },
            client_ended: false,
            raced: false,
            waited: Duration::ZERO,
            check: None,
            next: None,
        }
    }

    /// Why no connection came about, for those who waited for the same one.
    pub(super) fn dial_error(&self) -> DialError {
        match self.problem {
            Problem::ConnectTimeout => DialError::TimedOut,
            Problem::Exhausted => DialError::Exhausted,
            _ => DialError::Refused,
        }
    }
}

/// A response whose head is on its way to the client.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    framing: Framing,
    /// The replica keeps its connection.
    keeps_alive: bool,
    /// Events that come when they like.
    stream: bool,
    /// The client gets the body in chunks.
    chunked: bool,
    /// The client's connection is kept.
    keep_client: bool,
    /// The replica wants no more of the request.
    refuses: bool,
    /// When the head came.
    at: Instant,
}

impl Exchange<'_> {
    /// Sends the request over `link` and passes on what comes back.
    pub(super) async fn attempt(
        &self,
        mut lease: Lease,
        link: Link,
        inflow: &mut Inflow,
        caller: &mut Caller<'_>,
        replay: &mut Replay<'_>,
        attempts: &mut Attempts,
    ) -> Attempt {
        lease.set_caller(self.peer);
        let (mut incoming, mut outgoing) = match self.open(&lease, link, inflow, replay) {
            Ok(opened) => opened,
            Err(attempt) => return attempt,
        };
        let patience = self.limits.body_idle;
        // A call of gRPC may rightly be silent for hours: its deadline is its client's.
        let pause = (!self.head.is_grpc()).then_some(patience);
        let due = AtomicBool::new(!self.head.fields.expect_continue);
        let at_hand = if replay.is_untouched() { inflow.at_hand(matches!(outgoing, Outgoing::Http1(_))) } else { None };
        let sent = match (at_hand, &mut outgoing) {
            // It stays where it lies until the exchange is over, for another attempt.
            (Some(body), Outgoing::Http1(writer)) => {
                Some(writer.write_all([self.request, body, b""], caller.timer, patience).await)
            }
            (Some(b""), Outgoing::Http2(_)) => Some(Ok(())),
            (Some(body), Outgoing::Http2(sender)) => match sender.send_at_once(body) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(http2::Gone) => Some(Err(WriteError::Gone { taken: 1 })),
            },
            (None, _) => None,
        };
        let mut inbound = match sent {
            Some(Ok(())) => Inbound::Sent { watch: inflow.watch(), replayable: true },
            Some(Err(WriteError::Gone { taken })) => Inbound::Refused { watch: inflow.watch(), started: taken > 0 },
            Some(Err(WriteError::Stalled)) => {
                return self.failed(&lease, Problem::ResponseTimeout, Failure::Final, Outcome::TimedOut);
            }
            None => {
                let framing = self.head.framing();
                lease.set_transfer(true);
                let patience = Patience { write: patience, pause };
                let upload = body::upload(inflow, outgoing.flow(), self.request, framing, replay, &due, patience);
                Inbound::Sending { upload: Box::pin(upload), due: &due }
            }
        };

        let answer = self.answer(&mut lease, &mut incoming, &mut inbound, caller, attempts).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(attempt) => return attempt,
        };
        if answer.status == 101 {
            drop(inbound);
            if caller.write_head(patience).await.is_err() {
                return Attempt::End(End::Gone);
            }
            lease.become_stream();
            let (Incoming::Http1 { reader, .. }, Outgoing::Http1(writer)) = (incoming, outgoing) else {
                unreachable!("only HTTP/1 switches protocols");
            };
            return Attempt::End(End::Upgraded(Box::new(Upgraded { lease, reader, writer })));
        }

        let (mut source, call) = incoming.into_body(answer.framing);
        let mut used = answer.at;
        let whole = inbound.is_sent();
        // What has no body is whole with its head, whatever its stream says.
        let bodiless = answer.framing == Framing::Empty;
        let at_hand = if bodiless { Some(&b""[..]) } else { source.at_hand(answer.chunked) };
        let at_once = match (at_hand, &mut caller.outflow) {
            (Some(body), Outflow::Http1(writer)) if whole || body.is_empty() => {
                Some(writer.write_all([caller.out, body, b""], caller.timer, patience).await)
            }
            // The head said so.
            (Some(b""), Outflow::Http2(_)) => Some(Ok(())),
            (Some(body), Outflow::Http2(sender)) if whole => match sender.send_at_once(body) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(http2::Gone) => Some(Err(WriteError::Gone { taken: 1 })),
            },
            _ => None,
        };
        let passed = match at_once {
            Some(Ok(())) if bodiless && !source.is_done() => {
                // The end of a stream comes right behind, or something that nobody waits for.
                let _ = caller.timer.limit_to(LAST_FRAME, source.piece()).await;
                Ok(())
            }
            Some(Ok(())) => Ok(()),
            Some(Err(WriteError::Gone { .. })) => Err(DownloadError::ClientGone),
            Some(Err(WriteError::Stalled)) => Err(DownloadError::ClientSlow),
            None => {
                // An event stream may rightly be silent for hours; keep-alive on both sockets tells when a peer is gone.
                let pause = pause.filter(|_| !answer.stream);
                if let (true, Outflow::Http1(writer)) = (answer.stream, &mut caller.outflow) {
                    writer.keep_alive();
                }
                let patience = Patience { write: patience, pause };
                lease.set_transfer(true);
                let grpc = self.head.is_grpc().then_some(&mut lease);
                let passed = pass_on(&mut source, &mut inbound, caller, answer.chunked, patience, grpc).await;
                used = clock::now();
                passed
            }
        };
        if let Err(error) = passed {
            drop(inbound);
            return Attempt::End(self.cut(&lease, error, caller.outflow.waited(), attempts));
        }
        let served = answer.refuses || inbound.see_through().await;
        let sent = inbound.is_sent();
        drop(inbound);
        drop(call);
        if let Outgoing::Http1(mut writer) = outgoing {
            writer.end();
            if sent
                && answer.keeps_alive
                && let Some(reader) = source.into_next()
            {
                self.keep(&lease, Connection { reader, writer }, used);
            }
        }
        drop(lease);
        let next = served && answer.keep_client && (sent || forget_rest(inflow, caller.timer, patience).await);
        Attempt::End(if next { End::Next } else { End::Close })
    }

    /// Both directions of the exchange with the replica. A stream's head is sent with that.
    fn open(
        &self,
        lease: &Lease,
        link: Link,
        inflow: &Inflow,
        replay: &Replay<'_>,
    ) -> Result<(Incoming, Outgoing), Attempt> {
        match link {
            Link::Http1 { reader, mut writer, rested } => {
                // Thrown away with its answer outstanding, it is reset: the replica sees that nobody waits.
                writer.begin();
                if !self.is_prompt() {
                    writer.await_acks();
                }
                Ok((Incoming::Http1 { reader, rested }, Outgoing::Http1(writer)))
            }
            Link::Http2(opening) => {
                let request = http2::request_head(self.request).map_err(|problem| {
                    self.upstream.record(lease, Outcome::Abandoned, clock::now());
                    Attempt::End(End::Problem(problem))
                })?;
                let empty = self.head.framing() == Framing::Empty
                    || (replay.is_untouched() && inflow.at_hand(false).is_some_and(<[u8]>::is_empty));
                let (call, sender) = opening.send(request, empty).map_err(|ended| {
                    let (problem, failure, outcome) = no_stream(ended);
                    self.failed(lease, problem, failure, outcome)
                })?;
                Ok((Incoming::Http2(call), Outgoing::Http2(sender)))
            }
        }
    }

    /// Whether the whole request is taken by the kernel of whoever is there, even if nobody reads it.
    fn is_prompt(&self) -> bool {
        match self.head.framing() {
            Framing::Empty => true,
            Framing::Length(length) => length.saturating_add(self.request.len() as u64) <= PROMPT,
            Framing::Chunked | Framing::ToClose => false,
        }
    }

    /// Reads up to the final head of the response, passing on interim ones, while the request's body is still sent, and
    /// writes what the client gets of it to the caller's buffer.
    async fn answer(
        &self,
        lease: &mut Lease,
        incoming: &mut Incoming,
        inbound: &mut Inbound<'_>,
        caller: &mut Caller<'_>,
        attempts: &mut Attempts,
    ) -> Result<Answer, Attempt> {
        // A client that waits to be asked for the body waits for the replica.
        let is_awaited = |inbound: &Inbound<'_>| !inbound.is_sending() || inbound.is_held_back();
        let mut sent_at = is_awaited(inbound).then(clock::now);
        let mut interim = 0;
        let mut tick = None;
        let mut budget = self.limits.max_header;
        // A copy may still be running where it was sent, so only what merely reads moves, and that once.
        let may_move = self.allows(Failure::Abandoned, true, attempts.count.after(Failure::Abandoned));
        loop {
            let event = {
                let mut read = pin!(incoming.head(budget));
                std::future::poll_fn(|cx| {
                    loop {
                        match inbound.poll(cx) {
                            Poll::Ready(Sign::Sent | Sign::Refused) => {
                                sent_at = Some(clock::now());
                                lease.set_transfer(false);
                            }
                            Poll::Ready(Sign::Failed(error)) => return Poll::Ready(Event::Client(Some(error))),
                            Poll::Ready(Sign::Gone) => return Poll::Ready(Event::Client(None)),
                            Poll::Pending => break,
                        }
                    }
                    if let Poll::Ready(result) = read.as_mut().poll(cx) {
                        return Poll::Ready(Event::Head(result));
                    }
                    let Some(sent) = sent_at.filter(|_| is_awaited(inbound)) else {
                        // The deadline of a call holds while its client still sends, too.
                        let Some(deadline) = self.deadline else { return Poll::Pending };
                        while caller.timer.poll_expired(cx, deadline).is_ready() {
                            if clock::now() >= deadline {
                                return Poll::Ready(Event::Timeout);
                            }
                        }
                        return Poll::Pending;
                    };
                    let deadline = self.response_deadline(sent);
                    loop {
                        let may_move = may_move && inbound.may_be_repeated();
                        let wake =
                            if may_move { deadline.min(*tick.get_or_insert(sent + MOVE_TICK)) } else { deadline };
                        if caller.timer.poll_expired(cx, wake).is_pending() {
                            return Poll::Pending;
                        }
                        let now = clock::now();
                        if now >= deadline {
                            return Poll::Ready(Event::Timeout);
                        }
                        if may_move
                            && lease.is_down()
                            && let Some(other) = self.somebody_else(lease, attempts, now)
                        {
                            return Poll::Ready(Event::Moved(other));
                        }
                        tick = Some(now + MOVE_TICK);
                    }
                })
                .await
            };
            let failed = |problem, failure, outcome| Err(self.failed(lease, problem, failure, outcome));
            let (length, status) = match event {
                Event::Head(Ok(head)) => head,
                Event::Head(Err(error)) => {
                    let raced = incoming.rested(error).filter(|_| interim == 0);
                    let (problem, failure, outcome) = match error {
                        NoHead::Http1(error) => no_head(error, inbound, raced.is_some()),
                        NoHead::Http2(ended) => no_stream(ended),
                    };
                    if let Some(rested) = raced {
                        let rest = if error == NoHead::Http1(HeadError::Alien) { Rest::Spoken } else { Rest::Closed };
                        lease.endpoint().kept().was(rest, rested, clock::now());
                    }
                    let mut attempt = self.failed(lease, problem, failure, outcome);
                    if let Attempt::Failed(failed) = &mut attempt {
                        failed.client_ended = inbound.has_ended();
                        if matches!(error, NoHead::Http1(HeadError::Lost) | NoHead::Http2(Ended::Lost)) {
                            // It may have been there for a time before.
                            let waited =
                                sent_at.map_or(Duration::ZERO, |at| clock::now().saturating_duration_since(at));
                            failed.waited = waited.min(UNACKNOWLEDGED);
                        }
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
                Event::Moved(other) => {
                    let mut attempt =
                        self.failed(lease, Problem::ResponseTimeout, Failure::Abandoned, Outcome::Abandoned);
                    if let Attempt::Failed(failed) = &mut attempt {
                        failed.next = Some(other);
                    }
                    return Err(attempt);
                }
                // That its client is in a hurry is no fault of the replica's.
                Event::Timeout if self.deadline.is_some_and(|deadline| deadline <= clock::now()) => {
                    return failed(Problem::Deadline, Failure::Final, Outcome::Abandoned);
                }
                Event::Timeout => return failed(Problem::ResponseTimeout, Failure::Final, Outcome::TimedOut),
            };

            let now = clock::now();
            let garbage = |why| failed(Problem::Garbage(why), Failure::Final, Outcome::Invalid);
            let head = match incoming.read(length, status, self.head.is_head()) {
                Ok(head) => head,
                Err(fault) => return garbage(fault.reason()),
            };
            if status == 101 && !self.head.wants_websocket() {
                return garbage("the replica switched protocols unasked");
            }
            if !(100..=199).contains(&status) || status == 101 {
                let first_byte = now.saturating_duration_since(sent_at.unwrap_or(now));
                self.upstream.record(lease, Outcome::Answered { status, first_byte }, now);
                attempts.status = status;
                let answer = self.write_final(&head, status, now, inbound, caller);
                if head.fields.event_stream {
                    lease.become_stream();
                }
                incoming.consume(length);
                return answer.map_err(|http2::Gone| Attempt::End(End::Gone));
            }
            interim += 1;
            if interim > MAX_INTERIM {
                return garbage("the replica sends interim responses without end");
            }
            let understood = !self.head.is_http_1_0();
            let mut taken = true;
            if understood {
                caller.out.clear();
                match &caller.outflow {
                    Outflow::Http1(_) => {
                        head.write(Delivery { chunked: false, connection: None, http_1_0: false }, caller.out);
                    }
                    Outflow::Http2(sender) => {
                        head.write_lines(caller.out);
                        taken = sender.inform(http2::response_head(status, caller.out)).is_ok();
                    }
                }
            }
            incoming.consume(length);
            budget = budget.saturating_sub(length);
            if !taken || (understood && caller.write_head(self.limits.body_idle).await.is_err()) {
                self.upstream.record(lease, Outcome::Abandoned, now);
                return Err(Attempt::End(End::Gone));
            }
            if status == 100 {
                inbound.ask_for_body();
            }
        }
    }

    /// Who takes a request over from the endpoint of `lease`, and whether the budget bears it: if not it stays, as nothing
    /// has failed yet.
    fn somebody_else(&self, lease: &Lease, attempts: &Attempts, now: Instant) -> Option<Lease> {
        // Asked first: a place that is taken and given back each time would be missing elsewhere.
        if !self.upstream.has_retry(now) {
            return None;
        }
        let mut tried = attempts.tried.clone();
        tried.push(lease.id());
        self.upstream.acquire_other(&tried).filter(|_| self.upstream.withdraw_retry(now))
    }

    /// Until when the head of the response to a request must come that was sent by then.
    fn response_deadline(&self, sent: Instant) -> Instant {
        let own = sent + self.config.response_timeout;
        self.deadline.unwrap_or(own)
    }

    /// Decides how a response goes on, and writes its head accordingly; to a client of HTTP/2 it is sent with that.
    fn write_final(
        &self,
        head: &ResponseHead<'_>,
        status: u16,
        at: Instant,
        inbound: &Inbound<'_>,
        caller: &mut Caller<'_>,
    ) -> Result<Answer, http2::Gone> {
        let out = &mut *caller.out;
        out.clear();
        let framing = head.framing();
        let keeps_alive = head.keeps_alive();
        let stream = head.fields.event_stream;
        if status == 101 {
            head.write_upgrade(out);
            let (chunked, keep_client, refuses) = (false, false, false);
            return Ok(Answer { status, framing, keeps_alive, stream, chunked, keep_client, refuses, at });
        }
        // A response that refuses the rest of the body ends the connection, as does one to a client that was not asked for it:
        // whether that still sends it is open (RFC 9110 section 10.1.1). After any other the upload goes on.
        let refuses = !inbound.is_sent() && (status >= 400 || inbound.is_held_back());
        if let Outflow::Http2(sender) = &caller.outflow {
            head.write_lines(out);
            let empty = matches!(framing, Framing::Empty | Framing::Length(0));
            sender.respond(http2::response_head(status, out), empty)?;
            // Of a stream it is the end that tells, and its connection goes on.
            let (chunked, keep_client) = (false, true);
            return Ok(Answer { status, framing, keeps_alive, stream, chunked, keep_client, refuses, at });
        }
        let keep = self.head.keeps_alive() && !self.proxy.is_draining() && !refuses;
        let delivery = head.delivery(self.head.is_http_1_0(), keep);
        head.write(delivery, out);
        let keep_client = delivery.keeps_client();
        let chunked = delivery.chunked;
        Ok(Answer { status, framing, keeps_alive, stream, chunked, keep_client, refuses, at })
    }

    fn failed(&self, lease: &Lease, problem: Problem, failure: Failure, outcome: Outcome) -> Attempt {
        let now = clock::now();
        self.upstream.record(lease, outcome, now);
        let raced = outcome == Outcome::Stale;
        let check = (raced || outcome == Outcome::Broken).then(|| self.upstream.check(lease, now));
        Attempt::Failed(Failed {
            problem,
            failure,
            client_ended: false,
            raced,
            waited: Duration::ZERO,
            check,
            next: None,
        })
    }

    /// A response that stopped half-way: the client must see that it is not whole. `held_up`: how long the client kept it
    /// waiting.
    fn cut(&self, lease: &Lease, error: DownloadError, held_up: Duration, attempts: &mut Attempts) -> End {
        let outcome = match error {
            // What a client of ours caused is no fault of the replica's.
            DownloadError::ReplicaBroken | DownloadError::ReplicaReset(_) if held_up >= HELD_UP => Outcome::Abandoned,
            DownloadError::ClientGone | DownloadError::ClientSlow | DownloadError::UploadFailed => Outcome::Abandoned,
            DownloadError::ReplicaBroken | DownloadError::ReplicaReset(_) => Outcome::Broken,
            DownloadError::ReplicaSlow => Outcome::TimedOut,
            DownloadError::ReplicaBad { .. } => Outcome::Invalid,
        };
        let now = clock::now();
        self.upstream.record(lease, outcome, now);
        if outcome == Outcome::Broken {
            // Goes on by itself: whatever it finds, this response stays cut.
            drop(self.upstream.check(lease, now));
        }
        attempts.status = 0;
        // For the log: it is this one that did not see it through.
        attempts.note(lease.id(), lease.endpoint().address());
        match error {
            DownloadError::ClientGone => End::Gone,
            DownloadError::ClientSlow | DownloadError::UploadFailed => End::Cut(None),
            DownloadError::ReplicaBroken => End::Cut(Some(Problem::Incomplete("the replica broke off its response"))),
            DownloadError::ReplicaReset(code) => End::Cut(Some(Problem::Reset(code))),
            DownloadError::ReplicaBad { started: false } => End::Problem(Problem::Garbage(BAD_BODY)),
            DownloadError::ReplicaBad { started: true } => End::Cut(Some(Problem::Incomplete(BAD_BODY))),
            DownloadError::ReplicaSlow => {
                End::Cut(Some(Problem::Incomplete("the replica paused in its response for longer than body_idle")))
            }
        }
    }

    /// Puts a connection back whose request and response are whole and behind which nothing came.
    fn keep(&self, lease: &Lease, mut connection: Connection, used: Instant) {
        if connection.reader.ahead().is_empty() {
            connection.reader.rest();
            connection.writer.expect_acks();
            let idle = Idle { connection, since: used, generation: lease.generation() };
            lease.endpoint().kept().put(idle, self.config.max_idle);
        }
    }
}

/// Takes the rest of a body that its replica does not want, so that the connection goes on as its client was told.
async fn forget_rest(inflow: &mut Inflow, timer: &mut Timer, patience: Duration) -> bool {
    loop {
        match timer.limit_to(patience, inflow.piece()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return true,
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

/// What it means that no head came; `raced`: the connection may have been closed before the request reached it.
fn no_head(error: HeadError, inbound: &Inbound<'_>, raced: bool) -> (Problem, Failure, Outcome) {
    match error {
        HeadError::Refused(Refusal::HeadTooLong) => (Problem::ResponseHeadTooLong, Failure::Final, Outcome::Invalid),
        HeadError::Alien if raced => (Problem::Broken, Failure::Dead, Outcome::Stale),
        HeadError::Refused(_) | HeadError::Alien | HeadError::NoMemory => {
            (Problem::Garbage("the replica's response is not HTTP"), Failure::Final, Outcome::Invalid)
        }
        HeadError::Broken | HeadError::Lost => {
            let outcome = if raced { Outcome::Stale } else { Outcome::Broken };
            // What the kernel never took, the replica never saw.
            let failure = if inbound.is_unsent() { Failure::Connect } else { Failure::Dead };
            (Problem::Broken, failure, outcome)
        }
    }
}

/// What it means that a stream ended before its response's head.
fn no_stream(ended: Ended) -> (Problem, Failure, Outcome) {
    match ended {
        Ended::Unprocessed => (Problem::Unprocessed, Failure::Unprocessed, Outcome::Abandoned),
        Ended::Reset(code) => (Problem::Reset(code), Failure::Dead, Outcome::Broken),
        // Of many streams on that connection it is the fault of one: to the others it is as if it had broken.
        Ended::Broken | Ended::Lost | Ended::Torn => (Problem::Broken, Failure::Dead, Outcome::Broken),
        Ended::Alien => (Problem::Garbage("the replica's response is not HTTP/2"), Failure::Final, Outcome::Invalid),
    }
}

/// What ends the wait for a head.
enum Event {
    Head(Result<(usize, u16), NoHead>),
    /// The client ended it.
    Client(Option<UploadError>),
    /// The endpoint was declared down, and this other one takes the request.
    Moved(Lease),
    Timeout,
}
