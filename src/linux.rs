//! What only Linux has, and what holds elsewhere: on other systems the proxy can be built and tried, not put to use.

use socket2::SockRef;
use std::io;
use std::os::unix::net::SocketAddr;
use std::time::Duration;

/// Whether this is Linux.
pub(crate) const HERE: bool = cfg!(target_os = "linux");

/// The name of a Unix socket that needs no file (unix(7)).
///
/// # Errors
/// Always, on other systems.
#[cfg(target_os = "linux")]
pub(crate) fn abstract_name(name: String) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn abstract_name(_: String) -> io::Result<SocketAddr> {
    Err(no_abstract_names())
}

/// Why there are no such names on other systems.
pub(crate) fn no_abstract_names() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "only Linux has Unix sockets without a file; set server.admin")
}

/// Limits how long bytes that were sent may stay unacknowledged (`TCP_USER_TIMEOUT`). Elsewhere it is what the kernel
/// allows, which is minutes.
#[cfg(target_os = "linux")]
pub(crate) fn set_user_timeout(socket: &SockRef<'_>, limit: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(limit)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set_user_timeout(_: &SockRef<'_>, _: Option<Duration>) -> io::Result<()> {
    Ok(())
}
