//! What runs: the configuration in force, its upstreams and their loops.

use super::Source;
use super::reload::Reading;
use crate::admin::Source as _;
use crate::admin::history::{History, SLOT, Times};
use crate::clock;
use crate::config::{self, Config, Sockets};
use crate::discovery;
use crate::failure;
use crate::probe;
use crate::proxy::{ConnectionLimit, Proxy, Table};
use crate::route::Router;
use crate::upstream::{self, Upstream};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::time::sleep;
use tracing::{error, info};

/// The running configuration and all that hangs on it.
pub struct Live {
    source: Source,
    config: ArcSwap<Config>,
    proxy: Arc<Proxy>,
    /// As the kernel has them: a port of 0 in the configuration has become one.
    pub(super) sockets: Sockets,
    pub(super) workers: usize,
    pub(super) limit: Arc<ConnectionLimit>,
    listening: AtomicBool,
    /// This process's name in the probes it sends.
    instance: String,
    resolver: Arc<discovery::Resolver>,
    own: Arc<discovery::Own>,
    /// Whether the configuration in force was read from a file. Then its absence is a mistake, not another configuration.
    from_file: AtomicBool,
    /// The last hour, for the operator.
    pub(super) history: Mutex<History>,
    /// How the last reload ended.
    pub(super) last_reload: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Live {
    /// Starts the loops of every upstream.
    pub(super) fn start(
        config: Config,
        from_file: bool,
        source: Source,
        sockets: Sockets,
        workers: usize,
        limit: Arc<ConnectionLimit>,
    ) -> Arc<Self> {
        let own = Arc::new(discovery::Own::new(std::iter::once(sockets.listen).chain(sockets.admin)));
        let resolver = Arc::new(discovery::Resolver::new(config.dns.clone()));
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| {
                (Upstream::new(upstream.clone(), config.pool_settings(upstream), workers), upstream.clone())
            })
            .collect();
        let live = Arc::new(Live {
            proxy: Proxy::new(table(&config, upstreams)),
            source,
            sockets,
            workers,
            limit,
            listening: AtomicBool::new(false),
            instance: format!("{:08x}", fastrand::u32(..)),
            resolver,
            own,
            from_file: AtomicBool::new(from_file),
            history: Mutex::new(History::new(clock::now())),
            last_reload: Mutex::new(None),
            config: ArcSwap::from_pointee(config),
        });
        for (upstream, _) in &live.proxy.table().upstreams {
            live.start_loops(upstream);
        }
        tokio::spawn(live.clone().remember());
        live
    }

    /// Adds to the history, for as long as the process runs.
    async fn remember(self: Arc<Self>) {
        loop {
            sleep(SLOT).await;
            let status = self.status();
            let times = |(upstream, _): &(Arc<Upstream>, Arc<config::Upstream>)| {
                let endpoints = upstream.endpoints();
                let replicas = endpoints.iter().map(|(id, endpoint)| (id.0, endpoint.latency())).collect();
                let most_waiting = upstream.take_peak_waiting();
                (upstream.name().to_string(), Times { upstream: upstream.metrics().latency(), replicas, most_waiting })
            };
            let times = self.proxy.table().upstreams.iter().map(times).collect();
            self.history.lock().add(&status, &times, clock::now());
        }
    }

    fn start_loops(&self, upstream: &Arc<Upstream>) {
        tokio::spawn(discovery::run(upstream.clone(), self.resolver.clone(), self.own.clone()));
        tokio::spawn(discovery::names::run(upstream.clone(), self.resolver.clone()));
        tokio::spawn(failure::flush_loop(upstream.clone()));
        tokio::spawn(upstream::watch(upstream.clone()));
        tokio::spawn(probe::run(upstream.clone(), Arc::new(probe::Prober::new(self.instance.clone()))));
    }

    /// Takes over the configuration that was read again; if anything is wrong with it, nothing changes.
    pub(super) fn reload(&self, why: &str, reading: Reading) {
        let result = self.try_reload(reading);
        match &result {
            Ok(()) => info!(why, upstreams = %self.summary(), "configuration reloaded"),
            Err(problem) => error!(why, "configuration not reloaded, the old one stays in force: {problem}"),
        }
        self.proxy.metrics().reloads.add(if result.is_ok() { "ok" } else { "failed" });
        *self.last_reload.lock() = Some((clock::now(), result));
    }

    fn try_reload(&self, reading: Reading) -> Result<(), String> {
        let old = self.config.load_full();
        let file = reading.map_err(|error| error.to_string())?;
        if file.is_none() && self.from_file.load(Ordering::Relaxed) {
            return Err(format!(
                "{}: the file is gone; put it back, or restart to run on the environment alone",
                self.source.file().display()
            ));
        }
        let new = self.source.parse(file.as_ref()).map_err(|error| error.to_string())?;
        let keys = old.restart_needed(&new);
        if !keys.is_empty() {
            return Err(format!("{} cannot change while the process runs; restart it", keys.join(", ")));
        }
        let running = self.proxy.table();
        let mut upstreams = Vec::new();
        let mut begun = Vec::new();
        for upstream in &new.upstreams {
            let settings = new.pool_settings(upstream);
            let same = |(_, old): &&(_, Arc<config::Upstream>)| {
                old.name == upstream.name && old.host == upstream.host && old.port == upstream.port
            };
            let live = match running.upstreams.iter().find(same) {
                Some((live, _)) => {
                    live.reconfigure(upstream.clone(), settings);
                    live.clone()
                }
                None => {
                    let live = Upstream::new(upstream.clone(), settings, self.workers);
                    // An operator's orders are for what the name stands for, whatever its address.
                    if let Some((old, _)) = running.upstreams.iter().find(|(_, old)| old.name == upstream.name) {
                        let orders = old.apply(|pool, _| pool.orders());
                        live.apply(|pool, _| pool.take_over(orders));
                    }
                    begun.push(live.clone());
                    live
                }
            };
            upstreams.push((live, upstream.clone()));
        }
        self.resolver.reconfigure(new.dns.clone());
        let ended: Vec<_> = running
            .upstreams
            .iter()
            .filter(|(old, _)| !upstreams.iter().any(|(kept, _)| Arc::ptr_eq(kept, old)))
            .map(|(old, _)| old.clone())
            .collect();
        self.proxy.replace(table(&new, upstreams));
        self.config.store(Arc::new(new));
        self.from_file.store(file.is_some(), Ordering::Relaxed);
        begun.iter().for_each(|upstream| self.start_loops(upstream));
        ended.iter().for_each(|upstream| upstream.close());
        Ok(())
    }

    /// How many upstreams have a usable replica, and how many upstreams there are.
    pub(super) fn usable_upstreams(&self) -> (usize, usize) {
        let upstreams = self.status().upstreams;
        (upstreams.iter().filter(|upstream| upstream.healthy).count(), upstreams.len())
    }

    /// Clients can connect from now on.
    pub(super) fn listens(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// Whether clients can connect.
    pub(super) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// What requests use.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Where the configuration comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether the configuration in force was read from a file.
    pub fn has_file(&self) -> bool {
        self.from_file.load(Ordering::Relaxed)
    }

    /// Each upstream and its address, for the log.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        for upstream in &self.config.load().upstreams {
            let gap = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{gap}{}={}:{}", upstream.name, upstream.host, upstream.port);
        }
        text
    }
}

fn table(config: &Config, upstreams: Vec<(Arc<Upstream>, Arc<config::Upstream>)>) -> Table {
    Table { server: config.server.clone(), router: Router::new(&config.routes), upstreams }
}
