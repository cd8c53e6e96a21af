//! The running process: listeners, worker threads, the loops that feed them, signals, drain and reload.
//!
//! Each worker is a thread with a runtime and a listener of its own, so that a request never changes threads. The main
//! thread's runtime does what is not a request: DNS, probes, the operator's questions, signals, the configuration.

mod accept;
mod acceptor;
mod drain;
mod listener;
mod live;
mod order;
mod reload;
mod takeover;
#[cfg(test)]
mod tests;
mod view;

use crate::admin;
use crate::config::{Config, ConfigError, FileText, Sockets};
use crate::linux;
use crate::proxy::ConnectionLimit;
use crate::worker;
use drain::Handover;
use listener::Bound;
pub use live::Live;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use takeover::Port;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// Where the configuration comes from, to read it again.
#[derive(Clone, Debug)]
pub struct Source {
    /// `--config`, or `EVENKEEL_CONFIG`.
    pub path: Option<PathBuf>,
}

impl Source {
    /// Reads the file as it is now.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read(&self) -> Result<Option<FileText>, ConfigError> {
        Config::read(self.path.as_deref(), &|name| std::env::var(name).ok())
    }

    /// The configuration of a file that was read, or of the environment alone.
    ///
    /// # Errors
    /// As [`Config::of`].
    pub fn parse(&self, file: Option<&FileText>) -> Result<Config, ConfigError> {
        Config::of(file, &|name| std::env::var(name).ok())
    }

    /// Where a process that was started with it listens and is asked, as [`Config::sockets`].
    pub fn sockets(&self) -> Sockets {
        Config::sockets(self.path.as_deref(), &|name| std::env::var(name).ok())
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

/// Serves `config`, which was made of `file`, until a signal ends it.
///
/// # Errors
/// A listener cannot be opened; the error says which, why, and what to do.
pub fn run(config: Config, file: Option<FileText>, source: Source) -> Result<(), StartError> {
    let descriptors = listener::raise_descriptor_limit();
    if config.server.reuse_port && !linux::HERE {
        let why = "server.reuse_port = true needs Linux, whose kernel tells who else listens; set it to false";
        return Err(StartError(why.into()));
    }
    let workers = match config.server.threads {
        // Elsewhere one of the sockets that share a port gets all connections.
        0 if !linux::HERE => 1,
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let reuse_port = config.server.reuse_port;
    let bound = Bound::new(config.server.listen, config.server.listen_is_set, workers, reuse_port)?;
    let admin = config.server.admin.map(|admin| listener::listen_for_admin(admin, reuse_port)).transpose()?;
    let sockets =
        Sockets { listen: bound.address, admin: admin.as_ref().and_then(|admin| admin.local_addr().ok()), reuse_port };
    let local = bind_local(config.server.listen);
    let max_connections = listener::max_connections(config.server.max_connections, descriptors);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(async {
        let limit = ConnectionLimit::new(max_connections);
        let live = Live::start(config, file.is_some(), source, sockets, workers, limit.clone());
        let admin = match admin.map(tokio::net::TcpListener::from_std) {
            Some(Ok(admin)) => Some(tokio::spawn(admin::serve(admin, live.clone())).abort_handle()),
            _ => None,
        };
        if let Some(local) = local {
            tokio::spawn(admin::local::serve(local, live.clone(), sockets.admin.is_some()));
        }
        let mut port = reuse_port.then(|| Port::new(sockets.listen));
        if let Some(port) = &port {
            takeover::warn_of_lost_queues();
            tokio::select! {
                () = port.wait_for_turn(&live) => {}
                () = wait_for_end() => return Ok(()),
            }
        }
        let listeners = bound.listen()?;
        port.iter_mut().for_each(|port| port.own(&listeners));
        live.listens();
        let handover = port.map(|port| Handover { port, admin, connections: limit.clone() });
        let (commander, orders) = drain::Commander::new(handover);
        let threads: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                let (proxy, limit, orders) = (live.proxy().clone(), limit.clone(), orders.clone());
                spawn_worker(index, accept::serve(listener, reuse_port, proxy, limit, orders))
            })
            .collect();
        drop(orders);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %sockets.listen,
            admin = %sockets.admin.map_or("off".into(), |a: SocketAddr| a.to_string()),
            workers,
            max_connections,
            upstreams = %live.summary(),
            "listening"
        );
        tokio::spawn(reload::run(live.clone(), Ok(file)));
        wait_for_end().await;
        commander.drain(live.proxy(), live.config().server.drain, threads).await;
        info!("ended");
        Ok(())
    });
    // A read of the configuration may hang on another thread; nothing waits for it.
    runtime.shutdown_background();
    result
}

/// The socket of this process's own that takes orders, and that commands ask where `admin` is off or may be answered by
/// another process. Without it the proxy serves all the same.
fn bind_local(listen: SocketAddr) -> Option<std::os::unix::net::UnixListener> {
    admin::local::bind(listen)
        .inspect_err(|error| warn!(%error, "`evenkeel drain` and the like will fail, and `evenkeel ready` where server.admin is off: their socket cannot be opened"))
        .ok()
}

/// A thread that accepts and serves.
fn spawn_worker(index: usize, serve: impl Future<Output = ()> + Send + 'static) -> std::thread::JoinHandle<()> {
    let work = move || {
        worker::enter(index);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::spawn(worker::beat());
                serve.await;
            }),
            Err(error) => error!(%error, worker = index, "worker cannot start"),
        }
    };
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(work).expect("a thread can be started")
}

/// Until SIGTERM or SIGINT.
async fn wait_for_end() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
