//! `/ready` on a socket that has no address on any network: what `evenkeel ready` asks where `server.admin` is off.
//!
//! The socket's name is abstract (unix(7)), so it needs no file and no right to write one, and it is seen in this
//! container only: abstract names belong to the network namespace. Whoever else is in there can learn from it whether the
//! proxy is ready, and nothing more.

use super::{Connections, PAUSE, Source, TEXT, readiness, respond};
use http::StatusCode;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener, UnixStream};
use std::sync::Arc;
use tokio::time::sleep;
use tracing::warn;

/// The name for the process whose `server.listen` this is: only one of a network namespace has it.
fn name(listen: SocketAddr) -> io::Result<Name> {
    Name::from_abstract_name(format!("evenkeel/ready/{listen}"))
}

/// Opens the socket.
///
/// # Errors
/// The name is taken.
pub fn bind(listen: SocketAddr) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&name(listen)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the process that listens for clients there.
///
/// # Errors
/// There is none.
pub fn connect(listen: SocketAddr) -> io::Result<tokio::net::UnixStream> {
    let stream = UnixStream::connect_addr(&name(listen)?)?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// Answers for as long as the process runs.
pub async fn serve(listener: UnixListener, source: Arc<dyn Source>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "`evenkeel ready` will not be answered");
            return;
        }
    };
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(stream, source.clone(), answer).await,
            Err(error) => {
                warn!(%error, "the socket of `evenkeel ready` cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

fn answer(request: &http::Request<hyper::body::Incoming>, source: &dyn Source) -> super::Reply {
    let (status, kind, body) = match request.uri().path() {
        "/ready" => readiness(source),
        _ => (StatusCode::NOT_FOUND, TEXT, "server.admin is off: there is /ready only\n".to_owned()),
    };
    respond(status, kind, body)
}
