//! The operator's questions and orders on a socket that has no address on any network: what `evenkeel ready` asks where
//! `server.admin` is off, what all commands ask where other processes share it (`server.reuse_port`), and what verbs such as
//! `evenkeel drain` go through, always: the kernel tells which user is at the other end.
//!
//! The socket's name is abstract (unix(7)), so it needs no file and no right to write one. Abstract names belong to the
//! network namespace, which containers may share, so each process has a name of its own: it tells the mount namespace,
//! which containers do not share, and the time. Whoever else is in the network namespace can learn from it whether the
//! proxy is ready, and where `admin` is on, what that says. Verbs are for root and for the user that the proxy runs as.

use super::verb::Verb;
use super::{Connections, JSON, PAUSE, Reply, Source, TEXT, readiness, respond};
use crate::clock;
use crate::linux::{self, abstract_name};
use crate::namespace::container;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use nix::unistd::{Uid, geteuid};
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::warn;

/// What the names of all processes whose `server.listen` this is begin with.
fn prefix(listen: SocketAddr) -> String {
    format!("evenkeel/admin/{listen}/")
}

/// Opens the socket.
///
/// # Errors
/// The kernel has no such sockets.
pub fn bind(listen: SocketAddr) -> io::Result<UnixListener> {
    // Names are compared as numbers are: by their first digit that differs.
    let name = format!("{}{}/{:020}", prefix(listen), container(), clock::since_boot().as_nanos());
    let listener = UnixListener::bind_addr(&abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the process that listens for clients there: to the newest one in this container, and if there is none to
/// the newest one in another, where that may be meant (`elsewhere`).
///
/// # Errors
/// There is none.
pub fn connect(listen: SocketAddr, elsewhere: bool) -> io::Result<tokio::net::UnixStream> {
    if !linux::HERE {
        return Err(linux::no_abstract_names());
    }
    let table = std::fs::read_to_string("/proc/self/net/unix")?;
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for name in names(&table, &prefix(listen), &container(), elsewhere) {
        result = abstract_name(name.to_owned()).and_then(|name| UnixStream::connect_addr(&name));
        if result.is_ok() {
            break;
        }
    }
    let stream = result?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// The names in the kernel's table (proc(5)) that begin so, best first. Connections are listed under the name of the
/// socket that accepted them.
fn names<'a>(table: &'a str, prefix: &str, container: &str, elsewhere: bool) -> Vec<&'a str> {
    let paths = table.lines().filter_map(|line| line.split_ascii_whitespace().nth(7)?.strip_prefix('@'));
    let mut names: Vec<_> = paths.filter(|path| path.starts_with(prefix)).collect();
    let parts = |name: &str| {
        let (place, time) = name[prefix.len()..].split_once('/').unwrap_or_default();
        (place == container, time.to_owned())
    };
    names.retain(|name| elsewhere || parts(name).0);
    names.sort_by_key(|name| Reverse(parts(name)));
    names.dedup();
    names
}

/// Who is at the other end, as the kernel knows it.
#[derive(Clone, Copy, Debug)]
struct Peer {
    user: u32,
    process: Option<i32>,
}

impl Peer {
    /// Whether it may tell a process of the user `own` what to do. In a process namespace of its own it could stop it as well; where
    /// containers share a network namespace only, root and this user of each of them may.
    fn may_order(self, own: Uid) -> bool {
        self.user == 0 || self.user == own.as_raw()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.user)?;
        // Another process namespace has no number for it here.
        self.process.filter(|process| *process > 0).map_or(Ok(()), |process| write!(f, ", process {process}"))
    }
}

/// Answers for as long as the process runs. `all`: also what the admin address tells.
pub async fn serve(listener: UnixListener, source: Arc<dyn Source>, all: bool) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "`evenkeel ready` and `evenkeel drain` will not be answered");
            return;
        }
    };
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().ok().map(|cred| Peer { user: cred.uid(), process: cred.pid() });
                let answer =
                    move |request: &Request<Incoming>, source: &Arc<dyn Source>| answer(request, &**source, peer, all);
                connections.add(stream, source.clone(), answer).await;
            }
            Err(error) => {
                warn!(%error, "the socket of `evenkeel ready` cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

fn answer(request: &Request<Incoming>, source: &dyn Source, peer: Option<Peer>, all: bool) -> Reply {
    match request.uri().path() {
        path if request.method() == Method::POST && Verb::is_path(path) => order(request, source, peer),
        _ if all => super::answer(request, source),
        "/ready" => {
            let (status, kind, body) = readiness(source);
            respond(status, kind, body)
        }
        _ => respond(StatusCode::NOT_FOUND, TEXT, "server.admin is off: there is /ready only\n".to_owned()),
    }
}

/// Says that an order was refused, once a second at most: anybody in this network namespace can send some.
fn note_refused(who: &str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let now = clock::now();
    let mut last = LAST.lock();
    if last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1)) {
        *last = Some(now);
        warn!("an order was refused: {who}");
    }
}

fn order(request: &Request<Incoming>, source: &dyn Source, peer: Option<Peer>) -> Reply {
    let own = geteuid();
    let Some(peer) = peer.filter(|peer| peer.may_order(own)) else {
        let who = peer.map_or("it is not known who asks".to_owned(), |peer| format!("this is {peer}"));
        note_refused(&who);
        let why = format!("only root and the proxy's own user, {own}, may order this; {who}\n");
        return respond(StatusCode::FORBIDDEN, TEXT, why);
    };
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let done = Verb::from_target(path, query).and_then(|verb| source.obey(&verb, &peer.to_string()));
    match done.map(|done| serde_json::to_string(&done)) {
        Ok(Ok(json)) => respond(StatusCode::OK, JSON, json + "\n"),
        Ok(Err(error)) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        Err(why) => respond(StatusCode::CONFLICT, TEXT, why + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P15
    #[test]
    fn the_newest_process_of_this_container_is_asked_first() {
        let line = |name: &str| format!("0000000000000000: 00000002 00000000 00010000 0001 01 12345 @{name}\n");
        let table = ["p/2/0007", "p/1/0005", "other/1/0009", "p/1/0010", "p/3/0020", "p/1/0005"].map(line).concat();
        let header = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
        let table = header + &table + "0000000000000000: 00000002 00000000 00010000 0001 01 54321 /run/p/1/0099\n";
        assert_eq!(names(&table, "p/", "1", true), ["p/1/0010", "p/1/0005", "p/3/0020", "p/2/0007"]);
        assert_eq!(names(&table, "p/", "1", false), ["p/1/0010", "p/1/0005"]);
    }

    // P16
    #[test]
    fn root_and_the_own_user_may_order_and_nobody_else() {
        let may = |user, own| Peer { user, process: None }.may_order(Uid::from_raw(own));
        assert!(may(0, 65532) && may(65532, 65532) && may(0, 0));
        assert!(!may(65534, 65532) && !may(65532, 0));
    }
}
