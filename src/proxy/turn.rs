//! One request, whichever protocol its client speaks: its route is found, its exchange run, and what became of it is told
//! to the client, the log and the counts.

use super::answer::{Asked, Problem};
use super::exchange::{Attempts, Caller, End, Exchange};
use super::inflow::Inflow;
use super::log;
use super::request::{RequestHead, Rewrite};
use super::trail::Ended;
use super::{Proxy, Table};
use crate::clock;
use crate::config::OnFailure;
use crate::failure::Failure;
use crate::route::{Target, forward};
use crate::worker;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Clients that speak another protocol, or probe as an Evenkeel does, are logged this often: they come again and again.
const REPEAT_PAUSE: Duration = Duration::from_secs(60);

/// A request's turn: who asks, and the buffers that serve it.
pub(super) struct Turn<'a> {
    /// Where the answer goes.
    pub(super) caller: Caller<'a>,
    /// A buffer for the head as the replica gets it.
    pub(super) request: &'a mut Vec<u8>,
    pub(super) peer: SocketAddr,
}

impl Turn<'_> {
    /// Sees one request through.
    pub(super) async fn request(
        &mut self,
        proxy: &Proxy,
        table: &Table,
        head: &RequestHead<'_>,
        inflow: &mut Inflow,
    ) -> End {
        let limits = &table.server;
        let asked = Asked::of(head);
        if head.method() == b"CONNECT" {
            return self.turn_away(proxy, &Problem::Method, asked).await;
        }
        if head.fields.probe {
            if let Some(suppressed) = proxy.ring.comes(proxy.millis(), REPEAT_PAUSE) {
                tracing::error!(
                    client = %self.peer,
                    suppressed,
                    "another Evenkeel probes this one: the proxies form a ring; its upstream's address is this proxy's alias"
                );
            }
            return self.turn_away(proxy, &Problem::Loop, asked).await;
        }
        let target = Target::new(head.target());
        // RFC 9112 section 3.2: a path, which only a whole URL may lack, or `*` where the server as a whole is meant.
        let is_path = target.path.starts_with(b"/") || target.authority.is_some();
        if !(is_path || (target.path == b"*" && head.method() == b"OPTIONS")) {
            return self.turn_away(proxy, &Problem::BadRequest("the request's target is not a path"), asked).await;
        }
        let Some(route) = table.router.find(target.host(head.host()), target.path) else {
            return self.turn_away(proxy, &Problem::NoRoute, asked).await;
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
        head.write(&rewrite, self.request);
        let (began, peer) = (clock::now(), self.peer.ip());
        let deadline = head.grpc_timeout().and_then(|within| began.checked_add(within));
        let exchange = Exchange { upstream, config, limits, head, request: self.request, proxy, began, deadline, peer };
        let caller = self.caller.reborrow();
        let mut attempts = Attempts::new(proxy.trails.begin());
        let end = exchange.run(inflow, caller, &mut attempts).await;
        let failed = match &end {
            End::Problem(problem) if problem.is_upstream() => Some(problem.clone()),
            End::Cut(problem) => problem.clone(),
            _ => None,
        };
        attempts.trail.describe(head, limits.log_query);
        let unusable = failed.as_ref().and_then(|problem| {
            upstream.metrics().failures.add(problem.token());
            let failure = self.failure(problem, head, &attempts, began, limits.log_query);
            upstream.failures().add(upstream.name(), failure, || upstream.explain_unusable())
        });
        let (client, answered, cut) = (self.peer, attempts.status, matches!(end, End::Cut(_)));
        let ended = |status: u16| {
            let took = clock::now().saturating_duration_since(began);
            upstream.metrics().request(worker::index(), status, took);
            log::request(upstream.name(), client, head, limits, status, took, &attempts);
            let Attempts { trail, waited, .. } = attempts;
            let upstream = upstream.name().clone();
            let problem = failed;
            proxy.trails.end(trail, Ended { upstream, client, began, took, waited, status, cut, problem, unusable });
        };
        let closes = config.on_failure == OnFailure::Close;
        match end {
            // What a direct dial would have met: the end of the connection.
            End::Problem(problem) if problem.is_upstream() && closes && !asked.grpc => {
                ended(0);
                End::Gone
            }
            End::Problem(problem) => {
                ended(problem.status());
                let whole = inflow.at_hand(true).is_some() && head.keeps_alive() && !head.is_http_1_0();
                let keep = problem.spares_connection() && whole && !proxy.is_draining();
                self.caller.answer(&problem, asked, keep).await
            }
            End::Rerouted => End::Rerouted,
            end => {
                ended(answered);
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
            id: attempts.trail.name(),
            took: at.saturating_duration_since(began),
            problem: problem.clone(),
            endpoints: attempts.endpoints.clone(),
            waited: attempts.waited,
            client: self.peer,
            method: log::excerpt(head.method()),
            target: log::target(head.target(), log_query),
            traceparent: head.traceparent().map(log::excerpt),
            unusable: None,
        }
    }

    /// Answers a request that goes to no upstream.
    pub(super) async fn turn_away(&mut self, proxy: &Proxy, problem: &Problem, asked: Asked) -> End {
        proxy.metrics().refused.add(problem.token());
        if matches!(problem, Problem::Tls | Problem::Http2)
            && let Some(suppressed) = proxy.foreign.comes(proxy.millis(), REPEAT_PAUSE)
        {
            tracing::warn!(client = %self.peer, suppressed, "request refused: {}", problem.text());
        }
        log::turned_away(self.peer, problem, &proxy.table.load().server);
        self.caller.answer(problem, asked, false).await
    }
}
