//! The running process: listeners, worker threads, the loops that feed them, signals, drain and reload.
//!
//! Each worker is a thread with a runtime and a listener of its own, so that a request never changes threads. The main
//! thread's runtime does what is not a request: DNS, probes, the operator's questions, signals, the configuration.

mod listener;
mod live;
mod reload;
#[cfg(test)]
mod tests;
mod view;

use crate::admin;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::proxy::Proxy;
use crate::worker;
pub use live::Live;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

/// After SIGTERM the process lives at least this long: Docker takes a record away only once its process is gone, and
/// clients that resolved the name just before are still on their way.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Without a request for this long, a draining process is taken to be idle.
const QUIET: Duration = Duration::from_millis(400);

/// What is left of `drain` for the requests that run when the listeners close.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// How often a draining process looks whether it is idle.
const LOOK: Duration = Duration::from_millis(20);

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
        let (close, closed) = watch::channel(false);
        let threads: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| spawn_worker(index, listener, live.proxy().clone(), seats.clone(), closed.clone()))
            .collect();
        drop(closed);
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
        drain(live.proxy(), live.config().server.drain, close).await;
        drop(threads);
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
    closed: watch::Receiver<bool>,
) -> std::thread::JoinHandle<()> {
    let work = move || {
        worker::enter(index);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::spawn(worker::beat());
                listener::serve(listener, proxy, seats, closed).await;
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

/// Ends without losing a request: the listeners stay open, responses tell clients to go elsewhere, and only once nobody
/// came for a while (or `drain` is nearly over) are the accept queues emptied and the listeners closed.
async fn drain(proxy: &Arc<Proxy>, drain: Duration, close: watch::Sender<bool>) {
    let began = clock::now();
    let elapsed = || clock::now().saturating_duration_since(began);
    info!(requests = proxy.requests(), at_most = ?drain, "draining");
    proxy.drain();
    tokio::spawn(end_at_once_on_second_signal());
    let quiet = |time: Duration| {
        proxy.requests() == 0 && u128::from(proxy.millis().saturating_sub(proxy.last_end())) >= time.as_millis()
    };
    while elapsed() < drain.saturating_sub(LAST_REQUESTS) && (elapsed() < LAST_CALL || !quiet(QUIET)) {
        sleep(LOOK).await;
    }
    let _ = close.send(true);
    let closing = clock::now();
    // Whoever was accepted last has yet to send its request.
    while clock::now().saturating_duration_since(closing) < LAST_REQUESTS && !(close.is_closed() && quiet(LOOK * 5)) {
        sleep(LOOK).await;
    }
    match proxy.requests() {
        0 => info!(after = ?elapsed(), "drained"),
        requests => warn!(requests, after = ?elapsed(), "drain is over; requests are cut off"),
    }
}

/// A second SIGTERM or SIGINT means now.
async fn end_at_once_on_second_signal() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    warn!("second signal: ended at once");
    std::process::exit(1);
}
