//! One request and its response: to whom it goes, what happens when that fails, and how the answer comes back.
//!
//! A request is tried until it is answered, may not be repeated, or there is nobody left to try. Who may be tried, and
//! whether again, is decided in `pool/`; here the attempts are made.

use super::Proxy;
use super::answer::{Asked, Problem};
use super::attempt::{Attempt, Failed};
use super::body::Replay;
use super::connection::Connection;
use super::dial::{DialError, dial};
use super::http2::Opening;
use super::inflow::Inflow;
use super::outflow::Outflow;
use super::request::RequestHead;
use super::socket::{Reader, WriteError, Writer};
use super::timer::Timer;
use super::trail::{Connected, Trail};
use crate::clock;
use crate::config::{self, Protocol};
use crate::pool::retry::{self, Failure, Request, Tried};
use crate::pool::{EndpointId, Outcome};
use crate::upstream::{Fate, Lease, Upstream};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One request on its way.
pub(super) struct Exchange<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) config: &'a config::Upstream,
    pub(super) limits: &'a config::Server,
    pub(super) head: &'a RequestHead<'a>,
    /// The head as the replica gets it.
    pub(super) request: &'a [u8],
    pub(super) proxy: &'a Proxy,
    pub(super) began: Instant,
    /// When the client gives the call up, as it said.
    pub(super) deadline: Option<Instant>,
    /// The client's address: requests that wait take turns by it.
    pub(super) peer: IpAddr,
}

/// The client's side of an exchange: where the answer goes.
pub(super) struct Caller<'a> {
    pub(super) outflow: Outflow<'a>,
    pub(super) timer: &'a mut Timer,
    /// A buffer for the heads that go out.
    pub(super) out: &'a mut Vec<u8>,
}

impl Caller<'_> {
    /// The same, for a while.
    pub(super) fn reborrow(&mut self) -> Caller<'_> {
        Caller { outflow: self.outflow.reborrow(), timer: self.timer, out: self.out }
    }

    /// Sends the head in the buffer alone: of HTTP/1. A stream's was sent when it was made.
    pub(super) async fn write_head(&mut self, patience: Duration) -> Result<(), WriteError> {
        match &mut self.outflow {
            Outflow::Http1(writer) => writer.write_all([self.out, b"", b""], self.timer, patience).await,
            Outflow::Http2(_) => Ok(()),
        }
    }

    /// Says why there is no answer of a replica. `keep`: the connection, of HTTP/1, goes on.
    pub(super) async fn answer(&mut self, problem: &Problem, asked: Asked, keep: bool) -> End {
        match &mut self.outflow {
            Outflow::Http1(writer) => {
                self.out.clear();
                problem.write(asked.head, keep, self.out);
                match writer.write_all([self.out, b"", b""], self.timer, ANSWER_WITHIN).await {
                    Ok(()) if keep => End::Next,
                    Ok(()) => End::Close,
                    Err(_) => End::Gone,
                }
            }
            Outflow::Http2(sender) => {
                if let Problem::Reset(code) = problem {
                    // As without a proxy: clients of gRPC know what each code means.
                    sender.reset(*code);
                    return End::Close;
                }
                let (response, body) = problem.to_http2(asked.grpc);
                let bare = asked.head || body.is_empty();
                let sent = sender.respond(response, bare).is_ok()
                    && (bare || sender.send(body.into(), true, self.timer, ANSWER_WITHIN).await.is_ok());
                if sent { End::Next } else { End::Gone }
            }
        }
    }
}

/// So long a client may take to take an answer of ours.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

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
    /// Nothing was sent, and the upstream is no longer configured: the request looks for its route anew.
    Rerouted,
    /// The connection now belongs to another protocol.
    Upgraded(Box<Upgraded>),
}

/// Both ends of a connection that changed its protocol.
pub(super) struct Upgraded {
    pub(super) lease: Lease,
    pub(super) reader: Box<Reader>,
    pub(super) writer: Writer,
}

/// What is known of a request's attempts, for retries and the log.
#[derive(Debug)]
pub(super) struct Attempts {
    /// What happened, for the operator.
    pub(super) trail: Box<Trail>,
    pub(super) tried: Vec<EndpointId>,
    /// Who was tried in vain, for the log.
    pub(super) endpoints: Vec<SocketAddr>,
    /// Attempts begun, connects that failed included.
    pub(super) made: u32,
    /// The replica that it was last sent to.
    pub(super) replica: Option<SocketAddr>,
    pub(super) count: Tried,
    /// In the queue, in connects that failed, and for hosts that are not there.
    pub(super) waited: Duration,
    /// The status that went to the client, if a replica answered.
    pub(super) status: u16,
}

impl Attempts {
    /// None yet.
    pub(super) fn new(trail: Box<Trail>) -> Self {
        Attempts {
            trail,
            tried: Vec::new(),
            endpoints: Vec::new(),
            made: 0,
            replica: None,
            count: Tried::default(),
            waited: Duration::ZERO,
            status: 0,
        }
    }

    /// It was tried there, in vain.
    pub(super) fn note(&mut self, id: EndpointId, address: SocketAddr) {
        self.tried.push(id);
        self.endpoints.push(address);
    }
}

/// A connection to a replica, taken for one request, or a place on one.
pub(super) enum Link {
    Http1 {
        reader: Box<Reader>,
        writer: Writer,
        /// For how long it rested, if it carried requests before: its replica may just have closed it.
        rested: Option<Duration>,
    },
    Http2(Opening),
}

impl Link {
    fn kind(&self) -> Connected {
        match self {
            Link::Http1 { rested: Some(_), .. } => Connected::Kept,
            Link::Http1 { rested: None, .. } => Connected::New,
            Link::Http2(_) => Connected::Shared,
        }
    }
}

impl Exchange<'_> {
    /// Makes attempts until one ends the exchange.
    pub(super) async fn run(&self, inflow: &mut Inflow, mut caller: Caller<'_>, attempts: &mut Attempts) -> End {
        self.upstream.count_request();
        let mut replay = Replay::new(self.proxy.memory.extra(self.limits.max_buffered));
        let mut next: Option<Lease> = None;
        let mut now = self.began;
        loop {
            let lease = match next.take() {
                Some(lease) => {
                    attempts.trail.moved(now, lease.endpoint().address());
                    lease
                }
                None => match self.take(attempts, now) {
                    Some(lease) => lease,
                    None => match Box::pin(self.wait(inflow, caller.timer, attempts)).await {
                        Ok(lease) => {
                            now = clock::now();
                            attempts.trail.granted(now, lease.endpoint().address());
                            lease
                        }
                        // What was sent in part is not here any more.
                        Err(End::Rerouted) if !replay.is_untouched() => return End::Problem(Problem::Unavailable),
                        Err(end) => return end,
                    },
                },
            };
            attempts.made += 1;
            let before = attempts.endpoints.len();
            let mut failed = match self.link(lease, attempts, now).await {
                Err(failed) => {
                    let ended = clock::now();
                    attempts.waited += ended.saturating_duration_since(now);
                    // Two, where a second connect raced the first.
                    for address in &attempts.endpoints[before..] {
                        attempts.trail.failed(ended, *address, &failed.problem);
                    }
                    failed
                }
                Ok((lease, link)) => {
                    let (id, address) = (lease.id(), lease.endpoint().address());
                    attempts.replica = Some(address);
                    let kind = link.kind();
                    let at = if kind == Connected::New { clock::now() } else { now };
                    attempts.trail.connected(at, address, kind);
                    match self.attempt(lease, link, inflow, &mut caller, &mut replay, attempts).await {
                        Attempt::End(end) => return end,
                        Attempt::Failed(failed) => {
                            attempts.waited += failed.waited;
                            attempts.note(id, address);
                            attempts.trail.failed(clock::now(), address, &failed.problem);
                            failed
                        }
                    }
                }
            };
            attempts.count = attempts.count.after(failed.failure);
            if !self.may_retry(&mut failed, attempts, &replay).await {
                return End::Problem(failed.problem);
            }
            attempts.count.moves += u32::from(failed.failure == Failure::Abandoned);
            self.upstream.metrics().retries.add(failed.problem.token());
            if let Some(pause) = retry::pause(failed.failure, attempts.count)
                && let Err(end) = Box::pin(self.pause(inflow, caller.timer, attempts, pause)).await
            {
                return end;
            }
            next = failed.next;
            now = clock::now();
        }
    }

    async fn may_retry(&self, failed: &mut Failed, attempts: &Attempts, replay: &Replay<'_>) -> bool {
        if failed.client_ended || !self.allows(failed.failure, replay.is_whole(), attempts.count) {
            return false;
        }
        // A connect that failed sent nothing, and what a replica refused it did not process.
        if matches!(failed.failure, Failure::Connect | Failure::Unprocessed) {
            return attempts.waited < self.config.wait;
        }
        // The ordinary race with a server that closes its connections is lost once at
        // most, as a repeated request takes a fresh connection; and a move has been paid for.
        if failed.raced || failed.next.is_some() {
            return true;
        }
        // The budget is there against requests that break whatever they meet. A replica's death is one event, whether one
        // request or a thousand were there: the one that reveals it pays, and the others move without.
        if let Some(check) = failed.check.take()
            && matches!(Box::pin(check).await, Ok(Fate::Victim))
        {
            return true;
        }
        self.upstream.withdraw_retry(clock::now())
    }

    /// Whether HTTP and the configuration allow another attempt after this failure, the budget aside.
    pub(super) fn allows(&self, failure: Failure, replayable: bool, tried: Tried) -> bool {
        let request = Request { safe: self.head.is_safe(), idempotent: self.head.is_idempotent(), replayable };
        retry::may_retry(failure, request, tried, self.config.retries)
    }

    /// A connection to the endpoint of `lease`, or to one that was quicker to accept.
    async fn link(&self, lease: Lease, attempts: &mut Attempts, now: Instant) -> Result<(Lease, Link), Failed> {
        if self.config.protocol == Protocol::H2c {
            let (lease, opening) = self.place(lease, attempts).await?;
            return Ok((lease, Link::Http2(opening)));
        }
        let once = !self.head.is_idempotent();
        // A request that is repeated takes a fresh connection: what closed the first kept one may have closed them all.
        let first = attempts.count.attempts == 0;
        // While it is not known whether the endpoint is still there, its connections are no place for what cannot be repeated.
        let trusted = first && !(once && lease.endpoint().is_being_checked());
        let take = || lease.endpoint().kept().take(once, lease.generation(), self.config.idle_timeout, now);
        let idle = trusted.then(take).flatten();
        if let Some(idle) = idle {
            let rested = Some(now.saturating_duration_since(idle.since));
            let Connection { reader, writer } = idle.connection;
            return Ok((lease, Link::Http1 { reader, writer, rested }));
        }
        let (lease, (reader, writer)) = self.connect(lease, attempts).await?;
        Ok((lease, Link::Http1 { reader, writer, rested: None }))
    }

    /// A new connection to the endpoint of `lease`, or to one that was quicker to accept.
    async fn connect(&self, lease: Lease, attempts: &mut Attempts) -> Result<(Lease, (Box<Reader>, Writer)), Failed> {
        let connects = &self.upstream.metrics().connects;
        // `wait` bounds all that comes before a connection, except that the first connect may take its time.
        let left = self.config.wait.saturating_sub(attempts.waited);
        let first = attempts.waited.is_zero();
        let patience = if first { self.config.connect_timeout } else { self.config.connect_timeout.min(left) };
        match Box::pin(dial(self.upstream, lease, attempts, patience)).await {
            Ok((lease, reader, writer)) => {
                connects.add("connected");
                Ok((lease, (reader, writer)))
            }
            Err(error) => {
                connects.add(match error {
                    DialError::Refused => "refused",
                    DialError::TimedOut => "timed_out",
                    DialError::Exhausted => "exhausted",
                    DialError::Withdrawn => "withdrawn",
                });
                Err(Failed::to_connect(error))
            }
        }
    }

    /// A place on a connection of HTTP/2 to the endpoint of `lease`, or to one that was quicker to accept.
    async fn place(&self, lease: Lease, attempts: &mut Attempts) -> Result<(Lease, Opening), Failed> {
        if let Some(opening) = lease.endpoint().shared().open(lease.generation()) {
            return Ok((lease, opening));
        }
        Box::pin(self.place_on_new(lease, attempts)).await
    }

    /// The same where all connections are full, or none is there.
    async fn place_on_new(&self, lease: Lease, attempts: &mut Attempts) -> Result<(Lease, Opening), Failed> {
        let endpoint = lease.share_endpoint();
        let turn = endpoint.shared().turn().await;
        if let Some(opening) = endpoint.shared().open(lease.generation()) {
            return Ok((lease, opening));
        }
        let mut turn = match turn {
            Ok(turn) => turn,
            // Whoever dialled has told the pool.
            Err(error) => {
                attempts.note(lease.id(), endpoint.address());
                return Err(Failed::to_connect(error));
            }
        };
        let connected = self.connect(lease, attempts).await;
        let (lease, connection) = connected.inspect_err(|failed| turn.failed(failed.dial_error()))?;
        // The race may have been won by another endpoint.
        let shared = lease.endpoint().shared();
        let begun = shared.begin(connection, lease.generation(), self.limits.max_header, self.config.connect_timeout);
        match begun.await {
            Ok(opening) => Ok((lease, opening)),
            Err(error) => {
                turn.failed(error);
                self.upstream.record(&lease, Outcome::Refused, clock::now());
                attempts.note(lease.id(), lease.endpoint().address());
                Err(Failed::to_connect(error))
            }
        }
    }
}
