//! The running process as the operator sees it.

use super::{Live, order};
use crate::admin::history::History;
use crate::admin::status::{
    DnsStatus, ENVIRONMENT, EndpointStatus, FailedRequest, Occurrence, Reload, UpstreamStatus, ago, seconds,
};
use crate::admin::verb::{Done, Verb};
use crate::admin::{Metrics, Source, Status};
use crate::clock;
use crate::config::{self, OnFailure};
use crate::failure::Failure;
use crate::upstream::Upstream;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Source for Live {
    fn status(&self) -> Status {
        let now = clock::now();
        let proxy = self.proxy();
        let table = proxy.table();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: ago(proxy.started(), now),
            not_ready: self.ready().err(),
            draining: proxy.is_draining(),
            listen: self.sockets.listen.to_string(),
            workers: self.workers,
            connections: self.limit.open(),
            max_connections: self.limit.max(),
            requests: proxy.requests(),
            config: match self.has_file() {
                true => self.source().file().display().to_string(),
                false => ENVIRONMENT.to_owned(),
            },
            last_reload: self
                .last_reload
                .lock()
                .as_ref()
                .map(|(at, result)| Reload { seconds_ago: ago(*at, now), error: result.clone().err() }),
            upstreams: table.upstreams.iter().map(|(live, config)| upstream(live, config, now)).collect(),
        }
    }

    fn ready(&self) -> Result<(), String> {
        let proxy = self.proxy();
        if proxy.is_draining() {
            return Err("draining".to_owned());
        }
        if !self.is_listening() {
            return Err("another process listens on this port, and this one knows no usable replica yet".to_owned());
        }
        let table = proxy.table();
        let untried = table.upstreams.iter().find(|(upstream, _)| !upstream.apply(|pool, _| pool.tried()));
        match untried {
            Some((upstream, _)) => Err(format!("upstream {:?} is being resolved for the first time", upstream.name())),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> Metrics {
        let proxy = self.proxy();
        Metrics {
            server: proxy.metrics().clone(),
            upstreams: proxy.table().upstreams.iter().map(|(u, _)| (u.name().clone(), u.metrics().clone())).collect(),
        }
    }

    fn history(&self) -> &Mutex<History> {
        &self.history
    }

    fn why(&self, id: Option<&str>) -> Option<String> {
        self.proxy().explain(id)
    }

    fn obey(&self, verb: &Verb, who: &str) -> Result<Done, String> {
        order::obey(&self.proxy().table().upstreams, verb, who)
    }
}

fn upstream(upstream: &Arc<Upstream>, config: &config::Upstream, now: Instant) -> UpstreamStatus {
    let live = upstream.endpoints();
    let queue = upstream.queue();
    let (views, paused, drained) = upstream.apply(|pool, now| {
        let drained = pool.drained().iter().map(ToString::to_string).collect();
        (pool.endpoints(now), pool.is_paused(), drained)
    });
    // Published by now: the pool was asked for its view just before.
    let choices = upstream.choices();
    let endpoints = views
        .iter()
        .map(|view| {
            let choice = choices.iter().find(|choice| choice.candidate.id == view.id);
            let live = live.get(&view.id).map(|e| e.live(now)).unwrap_or_default();
            let name = upstream.names().get(view.id).map(|name| name.to_string());
            EndpointStatus { name, ..EndpointStatus::new(view, choice, live, now) }
        })
        .collect();
    let mut status = UpstreamStatus {
        name: upstream.name().to_string(),
        address: format!("{}:{}", config.host, config.port),
        on_failure: match config.on_failure {
            OnFailure::Respond => "respond",
            OnFailure::Close => "close",
        }
        .to_owned(),
        paused,
        drained,
        waiting: queue.waiting,
        max_waiting: config.max_waiting,
        waiting_callers: queue.callers,
        next_waited_seconds: queue.next_since.map(|since| ago(since, now)),
        requests: upstream.metrics().classes().iter().sum(),
        failed: upstream.metrics().failures.total(),
        server_errors: upstream.metrics().server_errors.load(Ordering::Relaxed),
        retries: upstream.metrics().retries.total(),
        healthy: false,
        no_answer_seconds: None,
        outage_seconds: upstream.outage_since().map(|since| ago(since, now)),
        dns_answer_seconds_ago: upstream.metrics().dns.last_usable().map(|at| ago(at, now)),
        dns: upstream.metrics().dns.last().map(|answer| DnsStatus::new(&answer, now)),
        endpoints,
        timeline: upstream.timeline().iter().map(|(at, event)| Occurrence::new(*at, event, now)).collect(),
        failures: upstream.failures().recent().iter().map(|failure| failed(failure, now)).collect(),
    };
    status.judge(upstream.silent_for(now));
    status
}

fn failed(failure: &Failure, now: Instant) -> FailedRequest {
    FailedRequest {
        seconds_ago: ago(failure.at, now),
        id: failure.id.clone(),
        reason: failure.problem.token().to_owned(),
        text: failure.problem.text().to_owned(),
        endpoints: failure.endpoints.iter().map(ToString::to_string).collect(),
        took_seconds: seconds(failure.took),
        waited_seconds: seconds(failure.waited),
        client: failure.client.to_string(),
        method: failure.method.clone(),
        target: failure.target.clone(),
        traceparent: failure.traceparent.clone(),
        unusable: failure.unusable.as_deref().map(str::to_owned),
    }
}
