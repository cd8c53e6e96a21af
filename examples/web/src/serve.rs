//! How this app listens, and how it ends: after SIGTERM nothing new is taken, and what runs is finished.
//!
//! `db-checker` has a file like it. The two share no code on purpose: each is deployed, and could live, without the other.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::env::{self, VarError};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Time for a request's head, which is also how long a kept connection may rest. A client that keeps connections must
/// give them up earlier, or it sends into a closing one; Evenkeel does after 4 s.
const IDLE: Duration = Duration::from_secs(60);

/// Time for what runs when the app is told to end: longer than its slowest answer, shorter than the 30 s after which
/// Dokku kills it.
const DRAIN: Duration = Duration::from_secs(15);

/// Listens on `PORT`, or on `default_port`, of the address `HOST`, or of all.
///
/// # Errors
/// When a variable is not what it should be, or the port cannot be had; with the remedy.
pub(crate) async fn listen(default_port: u16) -> Result<TcpListener, String> {
    let host = variable("HOST", "an IP address, such as HOST=127.0.0.1")?.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let port = variable("PORT", &format!("a number up to 65535, such as PORT={default_port}"))?.unwrap_or(default_port);
    TcpListener::bind((host, port)).await.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => "; something listens there already: end that, or set PORT to a free port",
            ErrorKind::PermissionDenied => "; ports below 1024 are for root: set PORT to one above, such as PORT=8080",
            ErrorKind::AddrNotAvailable => "; HOST must be an address of this machine",
            _ => "",
        };
        format!("cannot listen on {host}:{port}: {error}{remedy}")
    })
}

/// Answers requests until SIGTERM or SIGINT, then finishes those that run.
///
/// # Errors
/// When signals cannot be had.
pub(crate) async fn run<A, F>(app: &str, listener: TcpListener, answer: A) -> Result<(), String>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let catch = |kind| signal(kind).map_err(|e| format!("cannot catch signals: {e}"));
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let connections = GracefulShutdown::new();
    if let Ok(address) = listener.local_addr() {
        println!("{app} listens on {address}");
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: trying again at once would only burn the CPU.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        // A connection's error is its client's doing, and the client knows.
        tokio::spawn(async move { drop(connection.await) });
    }
    drop(listener);
    let running = connections.count();
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        eprintln!("{app} ends with connections open: of {running}, some had not finished after {} s", DRAIN.as_secs());
    }
    Ok(())
}

/// The variable's value, `None` where it is unset or empty.
fn variable<T: std::str::FromStr>(name: &str, wanted: &str) -> Result<Option<T>, String> {
    let value = match env::var(name) {
        Ok(value) if value.is_empty() => return Ok(None),
        Ok(value) => value,
        Err(VarError::NotPresent) => return Ok(None),
        Err(VarError::NotUnicode(value)) => value.to_string_lossy().into_owned(),
    };
    value.parse().map(Some).map_err(|_| format!("{name}={value:?} must be {wanted}"))
}
