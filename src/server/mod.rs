//! The running process: listeners, worker threads, the loops that feed them, signals, drain and reload.
//!
//! Each worker is a thread with a runtime and a listener of its own, so that a request never changes threads. The main
//! thread's runtime does what is not a request: DNS, probes, the operator's questions, signals, the configuration.

mod drain;
mod listener;
mod live;
mod reload;
#[cfg(test)]
mod tests;
mod view;

use crate::admin;
use crate::config::{Config, ConfigError};
use crate::proxy::Proxy;
use crate::worker;
pub use live::Live;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::{error, info};

/// Where the configuration comes from, to read it again.
#[derive(Clone, Debug)]
pub struct Source {
    /// `--config`, or `EVENKEEL_CONFIG`.
    pub path: Option<PathBuf>,
}

impl Source {
    /// Reads the configuration as it is now.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.path.as_deref(), &|name| std::env::var(name).ok())
    }

    /// Where a process that was started with it is asked, as [`Config::admin`].
    pub fn admin(&self) -> Option<SocketAddr> {
        Config::admin(self.path.as_deref(), &|name| std::env::var(name).ok())
    }

    /// The file that is read, whether it is there or not.
    pub fn file(&self) -> PathBuf {
        Config::path(self.path.as_deref(), &|name| std::env::var(name).ok())
    }
}

/// Why the process cannot start.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Serves `config` until a signal ends it.
///
/// # Errors
/// A listener cannot be opened; the error says which, why, and what to do.
pub fn run(config: Config, source: Source) -> Result<(), StartError> {
    let descriptors = listener::raise_descriptor_limit();
    let workers = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let listeners = listener::bind(config.server.listen, workers)?;
    let admin = config.server.admin.map(listener::bind_admin).transpose()?;
    let max_connections = listener::max_connections(config.server.max_connections, descriptors);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let seats = Arc::new(listener::Seats::new(max_connections));
        let live = Live::start(config, source, workers, seats.clone());
        let (commander, orders) = drain::Commander::new();
        let threads: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| spawn_worker(index, listener, live.proxy().clone(), seats.clone(), orders.clone()))
            .collect();
        drop(orders);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %live.config().server.listen,
            admin = %live.config().server.admin.map_or("off".into(), |a: SocketAddr| a.to_string()),
            workers,
            max_connections,
            upstreams = %live.summary(),
            "listening"
        );
        if let Some(Ok(admin)) = admin.map(tokio::net::TcpListener::from_std) {
            tokio::spawn(admin::serve(admin, live.clone()));
        }
        wait_for_end(&live).await;
        commander.drain(live.proxy(), live.config().server.drain, threads).await;
        info!("ended");
        Ok(())
    })
}

/// A thread that accepts and serves.
fn spawn_worker(
    index: usize,
    listener: std::net::TcpListener,
    proxy: Arc<Proxy>,
    seats: Arc<listener::Seats>,
    orders: drain::Orders,
) -> std::thread::JoinHandle<()> {
    let work = move || {
        worker::enter(index);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::spawn(worker::beat());
                listener::serve(listener, proxy, seats, orders).await;
            }),
            Err(error) => error!(%error, worker = index, "worker cannot start"),
        }
    };
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(work).expect("a thread can be started")
}

/// Until SIGTERM or SIGINT; reloads on SIGHUP.
async fn wait_for_end(live: &Arc<Live>) {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
    let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be caught");
    let mut changed = reload::Watch::new(live.source().file());
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => {
                changed.catch_up();
                live.reload("SIGHUP");
            }
            () = sleep(reload::INTERVAL) => {
                if changed.look() {
                    live.reload("the file changed");
                }
            }
        }
    }
}
