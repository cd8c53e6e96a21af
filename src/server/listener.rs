//! The sockets of the listeners, and the descriptors that limit how many connections there may be.

use super::StartError;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use tracing::{info, warn};

/// Connections that the kernel holds ready for each listener; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Descriptors that are not clients' or replicas': listeners, runtimes, DNS, probes, the operator's.
const RESERVED: u64 = 64;

/// Below this many descriptors the default limits cannot hold.
const FEW_DESCRIPTORS: u64 = 1024;

/// Raises the soft descriptor limit to the hard one. Returns what holds now.
pub(super) fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return FEW_DESCRIPTORS;
    };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    if limit < FEW_DESCRIPTORS {
        warn!(limit, "few descriptors: raise `ulimit -n` (Docker: --ulimit nofile=65536)");
    }
    limit
}

/// Client connections at once: as configured, or so many that each may have one to a replica.
pub(super) fn max_connections(configured: usize, descriptors: u64) -> usize {
    let fits = usize::try_from(descriptors.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX).max(1);
    if configured == 0 {
        return fits;
    }
    if configured > fits {
        warn!(configured, fits, "server.max_connections is more than the descriptor limit has room for");
    }
    configured
}

/// The sockets of the listeners, bound: nobody can connect before [`Bound::listen`].
#[derive(Debug)]
pub(super) struct Bound {
    /// Where, as the kernel has it.
    pub(super) address: SocketAddr,
    /// One for each worker.
    sockets: Vec<Socket>,
}

impl Bound {
    /// Binds a socket for each worker to the same port. Where nobody asked for this address (`is_set`), IPv4 alone will
    /// do. `reuse_port`: another process may have bound the port as well, if it says the same and has the same user.
    pub(super) fn new(
        address: SocketAddr,
        is_set: bool,
        workers: usize,
        reuse_port: bool,
    ) -> Result<Bound, StartError> {
        // Sockets that share a port may belong to different processes; one that does not share finds out, once it
        // listens.
        let first = open(address, reuse_port).and_then(|socket| {
            if !reuse_port {
                socket.listen(BACKLOG)?;
            }
            Ok(socket)
        });
        let first = match first {
            Err(error) if !is_set && lacks_ipv6(&error) => {
                info!(%error, "no IPv6 here: clients connect by IPv4 only");
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                return Bound::new(address, true, workers, reuse_port);
            }
            result => result.map_err(|error| explain("listen", address, &error))?,
        };
        // Port 0 is any port, but the same for all.
        let address = first.local_addr().ok().and_then(|address| address.as_socket()).unwrap_or(address);
        if workers == 1 {
            return Ok(Bound { address, sockets: vec![first] });
        }
        let mut sockets = Vec::with_capacity(workers);
        if reuse_port {
            sockets.push(first);
        } else {
            drop(first);
        }
        while sockets.len() < workers {
            sockets.push(open(address, true).map_err(|error| explain("listen", address, &error))?);
        }
        Ok(Bound { address, sockets })
    }

    /// From now on clients can connect.
    pub(super) fn listen(self) -> Result<Vec<TcpListener>, StartError> {
        let listen = |socket: Socket| -> Result<TcpListener, StartError> {
            socket.listen(BACKLOG).map_err(|error| explain("listen", self.address, &error))?;
            Ok(socket.into())
        };
        self.sockets.into_iter().map(listen).collect()
    }
}

/// The listener for the operator.
pub(super) fn listen_for_admin(address: SocketAddr, reuse_port: bool) -> Result<TcpListener, StartError> {
    let socket = open(address, reuse_port).and_then(|socket| socket.listen(BACKLOG).map(|()| socket));
    socket.map(Into::into).map_err(|error| explain("admin", address, &error))
}

/// The kernel was built or started without IPv6, or has no such address.
fn lacks_ipv6(error: &io::Error) -> bool {
    let lack = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| lack.contains(&Errno::from_raw(code)))
}

/// A socket that is bound and does not listen yet.
fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // [::] is for both families, whatever `net.ipv6.bindv6only` says.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn explain(key: &str, address: SocketAddr, error: &io::Error) -> StartError {
    let port = address.port();
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens on port {port}; end it, or choose another port. Where this one is to take over from \
             it, both need server.reuse_port = true and the same user"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("port {port} needs a right that this process lacks; outside a container set PORT=8080")
        }
        _ if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            format!("this host has no IPv6; use 0.0.0.0:{port}")
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this host; use 0.0.0.0", address.ip()),
        _ => "check the address".into(),
    };
    StartError(format!("server.{key} = \"{address}\": {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_send_small_writes_at_once() {
        let bound = Bound::new(SocketAddr::from(([127, 0, 0, 1], 0)), true, 1, false).unwrap();
        let listener = bound.listen().unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }

    // U7
    #[test]
    fn an_address_that_nobody_set_gives_way_to_ipv4_where_there_is_no_such_ipv6() {
        // For documentation (RFC 3849), so no host has it: as on a host without IPv6, the kernel refuses.
        let missing: SocketAddr = "[2001:db8::1]:0".parse().unwrap();
        let bound = Bound::new(missing, false, 1, false).unwrap();
        assert!(bound.address.ip().is_unspecified() && bound.address.is_ipv4());
        let error = Bound::new(missing, true, 1, false).unwrap_err().to_string();
        assert!(error.contains("server.listen = \"[2001:db8::1]:0\""), "{error}");
    }
}
