//! Asks the running process on its admin address.

use crate::admin::local;
use crate::config::Sockets;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A process that serves answers in milliseconds; Docker's health checks allow 30 s by default.
const DEADLINE: Duration = Duration::from_secs(5);

/// Of an answer: a thousand replicas' status is far below it.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Whether the process is asked by [`get_locally`]: its admin address is off, or may be answered by another process.
pub(super) fn is_asked_locally(sockets: &Sockets) -> bool {
    sockets.admin.is_none() || sockets.reuse_port
}

/// Asks the process that has these sockets for what `path` tells.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) async fn fetch<T: DeserializeOwned>(sockets: &Sockets, path: &str) -> Result<T, String> {
    let (status, body) = match sockets.admin {
        Some(_) if sockets.reuse_port => get_locally(sockets, path).await?,
        admin => get(admin, path).await?,
    };
    let version = env!("CARGO_PKG_VERSION");
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(|error| {
            format!("{path} is not what this version ({version}) reads: {error}; is it another one's?")
        }),
        StatusCode::NOT_FOUND => Err(format!(
            "what listens on server.admin has no {path}: it is another program, or a version before {version}"
        )),
        other => Err(format!("{path} answers {other}; is it another program that listens on server.admin?")),
    }
}

/// GETs `path` from the process that has these sockets, over the one that needs no address.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) async fn get_locally(sockets: &Sockets, path: &str) -> Result<(StatusCode, Bytes), String> {
    ask_locally(sockets, Method::GET, path).await
}

/// Asks the process that has these sockets, over the one that needs no address.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) async fn ask_locally(sockets: &Sockets, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
    let listen = sockets.listen;
    let asking = async {
        // With a shared port the process in another container is another proxy.
        let stream = local::connect(listen, !sockets.reuse_port)?;
        exchange(stream, method, "localhost", path).await
    };
    match timeout(DEADLINE, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!(
            "no evenkeel that listens on {listen} runs in this container ({error}): it is not running here, or with \
             another configuration (server.listen, PORT; see --config, EVENKEEL_CONFIG)"
        )),
        Err(_) => Err(format!("the proxy does not answer within {DEADLINE:?}: is it stopped, or out of CPU?")),
    }
}

/// GETs `path` from the process whose `server.admin` this is.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) async fn get(admin: Option<SocketAddr>, path: &str) -> Result<(StatusCode, Bytes), String> {
    let Some(admin) = admin else {
        return Err(
            "the running proxy cannot be asked: server.admin is off; set e.g. admin = \"127.0.0.1:9180\"".to_owned()
        );
    };
    if admin.port() == 0 {
        return Err(
            "the running proxy cannot be found: server.admin has port 0, which is any; write a number".to_owned()
        );
    }
    let address = reachable(admin);
    match timeout(DEADLINE, async {
        exchange(TcpStream::connect(address).await?, Method::GET, &address.to_string(), path).await
    })
    .await
    {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(explain(address, &*error)),
        Err(_) => Err(format!("{address} does not answer within {DEADLINE:?}: is the proxy stopped, or out of CPU?")),
    }
}

/// Where to dial for what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange<S>(stream: S, method: Method, host: &str, path: &str) -> Result<(StatusCode, Bytes), AnyError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let request =
            Request::builder().method(method).uri(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The connection ended; what it brought is there.
        ended = connection => {
            ended?;
            asking.await
        }
    }
}

fn explain(address: SocketAddr, error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!(
            "no evenkeel listens on {address}: it is not running here, or with another configuration \
             (server.admin; see --config, EVENKEEL_CONFIG)"
        ),
        _ => format!("{address}: {error}; is it another program that listens there?"),
    }
}
