//! The end of the process: what was accepted is finished, and what is left when `drain` is over is cut so that both
//! sides see it.

use super::takeover::Port;
use crate::clock;
use crate::proxy::{ConnectionLimit, Proxy};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};

/// After SIGTERM the process lives at least this long: Docker takes a record away only once its process is gone, and
/// clients that resolved the name just before are still on their way.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Without a request for this long, a draining process is taken to be idle.
const QUIET: Duration = Duration::from_millis(400);

/// How long before the end of `drain` accepting stops, if clients came until then: what was accepted last has this long
/// to be answered. Most requests take less by far, and a longer time would refuse clients that could be served. Half of
/// `drain` where that is shorter.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Once the listeners are closed, the process ends after this long without a request: who was accepted last has sent its
/// request by then.
const SETTLED: Duration = Duration::from_millis(100);

/// How often a draining process looks whether it is idle.
const LOOK: Duration = Duration::from_millis(20);

/// How long the workers may take to cut what is left. It takes them microseconds a connection; a worker that hangs must
/// not keep the process.
const CUT: Duration = Duration::from_millis(500);

/// What a worker is told at the end of the process.
#[derive(Clone)]
pub(super) struct Orders {
    close: watch::Receiver<bool>,
    cut: watch::Receiver<bool>,
}

impl Orders {
    /// Ready when the listener is to be closed.
    pub(super) async fn close(&mut self) {
        let _ = self.close.changed().await;
    }

    /// Says that the listener is closed. Ready when what is still served is to be cut.
    pub(super) async fn closed(self) {
        let Orders { close, mut cut } = self;
        drop(close);
        let _ = cut.changed().await;
    }
}

/// What is left to another process that listens on the same port (`server.reuse_port`).
pub(super) struct Handover {
    pub(super) port: Port,
    /// The task that answers the operator on the shared address.
    pub(super) admin: Option<AbortHandle>,
    pub(super) connections: Arc<ConnectionLimit>,
}

/// Gives [`Orders`] to all workers.
pub(super) struct Commander {
    close: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    handover: Option<Handover>,
}

impl Commander {
    /// A commander, and the orders that each worker gets a copy of. Without `handover` nobody takes the port over.
    pub(super) fn new(handover: Option<Handover>) -> (Self, Orders) {
        let (close, closed) = watch::channel(false);
        let (cut, was_cut) = watch::channel(false);
        (Commander { close, cut, handover }, Orders { close: closed, cut: was_cut })
    }

    /// Ends without losing a request: the listeners stay open, responses tell clients to go elsewhere, and only once
    /// nobody came for a while (or `drain` is nearly over) are the accept queues emptied and the listeners closed. What
    /// was accepted, tunnels included, runs to its end or to the end of `drain`.
    ///
    /// Where another process listens on the same port, new connections are left to it at once. There is no hurry then:
    /// kept connections stay open until their next response has told their clients, or to the end of `drain`, since a
    /// request may be on its way whenever one is closed.
    pub(super) async fn drain(self, proxy: &Arc<Proxy>, drain: Duration, workers: Vec<JoinHandle<()>>) {
        let began = clock::now();
        let elapsed = || clock::now().saturating_duration_since(began);
        proxy.drain();
        info!(requests = proxy.requests(), tunnels = proxy.tunnels(), at_most = ?drain, "draining");
        tokio::spawn(end_at_once_on_second_signal());
        let quiet = |time: Duration| {
            let since_last = u128::from(proxy.millis().saturating_sub(proxy.last_end()));
            proxy.requests() + proxy.tunnels() == 0 && since_last >= time.as_millis()
        };
        let accepting = drain - LAST_REQUESTS.min(drain / 2);
        let mut successor = self.handover.as_ref().filter(|handover| handover.port.others_listen());
        while successor.is_none() && elapsed() < accepting && (elapsed() < LAST_CALL || !quiet(QUIET)) {
            sleep(LOOK).await;
            successor = self.handover.as_ref().filter(|handover| handover.port.others_listen());
        }
        let _ = self.close.send(true);
        if let Some(handover) = successor {
            info!(connections = handover.connections.open(), "handed over: another process listens on this port");
            handover.admin.iter().for_each(AbortHandle::abort);
        }
        let resting = || successor.map_or(0, |handover| handover.connections.open());
        // All receivers are gone once all listeners are closed.
        while elapsed() < drain && !(self.close.is_closed() && quiet(SETTLED) && resting() == 0) {
            sleep(LOOK).await;
        }
        match (proxy.requests(), proxy.tunnels()) {
            (0, 0) => info!(after = ?elapsed(), idle_connections = resting(), "drained"),
            (requests, tunnels) => {
                warn!(requests, tunnels, after = ?elapsed(), "drain is over: what is left is cut off")
            }
        }
        let _ = self.cut.send(true);
        let cut = clock::now();
        while workers.iter().any(|worker| !worker.is_finished()) && clock::now().saturating_duration_since(cut) < CUT {
            sleep(Duration::from_millis(1)).await;
        }
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
