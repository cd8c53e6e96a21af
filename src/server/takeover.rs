//! One process takes over a port from another (`server.reuse_port`): when the new one begins to listen, and how the old
//! one knows that it may stop.
//!
//! Both have bound the port with SO_REUSEPORT. The kernel spreads new connections over all sockets that listen there, so
//! the new process listens only once it knows replicas, and the old one stops as soon as somebody else listens when it is
//! told to end. What its sockets still hold then, connections in their queues and handshakes, the kernel gives to those
//! that listen on, where `net.ipv4.tcp_migrate_req` is 1.
//!
//! Who listens is read from the kernel's own table, so it holds for whatever the other process is, and in whatever order
//! the two are told to end. Where there is no such table nobody else listens, as far as this process knows.

use super::Live;
use crate::clock;
use crate::namespace::migrates_queues;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often a process that waits for its turn looks. Reading the table takes some 20 µs, most of it for opening it.
const LOOK: Duration = Duration::from_millis(20);

/// After this time one upstream with a usable replica is enough: of several, one may have none for good. With none at all
/// the old process goes on: either it knows replicas that this one, with another configuration, does not, or it does not
/// matter which of them has nobody.
const ALL_USABLE: Duration = Duration::from_secs(10);

/// How often a worker looks for connections that the kernel moved into its listener's queue. Most kernels wake nobody
/// for them (mended by "tcp: call sk_data_ready() after listener migration"), so they would lie there until the next
/// connection comes. A look is one system call.
pub(super) const LOOK_FOR_MIGRATED: Duration = Duration::from_millis(10);

/// A port that other processes may share, and which of the sockets that listen there are this process's.
#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    /// Inode numbers.
    own: Vec<u64>,
}

impl Port {
    /// Nobody of this process listens there yet.
    pub(super) fn new(address: SocketAddr) -> Self {
        Port { address, own: Vec::new() }
    }

    /// These are this process's.
    pub(super) fn own(&mut self, listeners: &[TcpListener]) {
        let inode = |listener: &TcpListener| {
            let path = format!("/proc/self/fd/{}", listener.as_raw_fd());
            Some(std::fs::metadata(path).ok()?.ino())
        };
        self.own = listeners.iter().filter_map(inode).collect();
    }

    /// Whether another process listens there, so that new connections go to it if this one stops.
    pub(super) fn others_listen(&self) -> bool {
        let table = if self.address.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
        std::fs::read_to_string(table).is_ok_and(|table| others_listen(&table, self.address, &self.own))
    }

    /// Waits until it is this process's turn to listen: when nobody else does, or when this one can serve.
    pub(super) async fn wait_for_turn(&self, live: &Live) {
        let began = clock::now();
        if !self.others_listen() {
            return;
        }
        info!(port = self.address.port(), "another process listens on this port: takes over once replicas are usable");
        loop {
            let (usable, all) = live.usable_upstreams();
            let waited = clock::now().saturating_duration_since(began);
            if usable == all || !self.others_listen() {
                return;
            }
            if usable > 0 && waited > ALL_USABLE {
                warn!(usable, all, "takes over though not every upstream has a usable replica");
                return;
            }
            sleep(LOOK).await;
        }
    }
}

/// Whether the kernel's table (`/proc/net/tcp` or `tcp6`, see proc(5)) has a socket that listens at this very address and
/// is none of `own`. The sockets that listen come first in it, before the connections, of which there may be many.
fn others_listen(table: &str, address: SocketAddr, own: &[u64]) -> bool {
    const LISTEN: &str = "0A";
    let here = in_table(address);
    let fields = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    fields
        .take_while(|fields| fields.get(3) == Some(&LISTEN))
        .filter(|fields| fields[1] == here)
        .any(|fields| fields.get(9).and_then(|inode| inode.parse().ok()).is_none_or(|inode| !own.contains(&inode)))
}

/// As the table writes it: words of 32 bits in this machine's order of bytes.
fn in_table(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in bytes.chunks_exact(4) {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(word.try_into().expect("four bytes")));
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

/// Says what this kernel does with the connections in the queues of a listener that closes.
pub(super) fn warn_of_lost_queues() {
    if migrates_queues() == Some(false) {
        warn!(
            "net.ipv4.tcp_migrate_req is 0: what is in this process's queues when it hands over its port is reset; set it \
             to 1 in this network namespace (compose: `sysctls` of the service that holds it)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    // P15
    #[test]
    fn only_sockets_of_others_that_listen_at_the_very_address_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 501 1 0 100 0 0 10 0\n\
            1: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 502 1 0 100 0 0 10 0\n\
            2: 0300007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 503 1 0 100 0 0 10 0\n";
        let others = |address: &str, own: &[u64]| others_listen(table, address.parse().unwrap(), own);
        if cfg!(target_endian = "little") {
            assert!(others("127.0.0.1:8080", &[]) && others("127.0.0.1:8080", &[502]));
            assert!(!others("127.0.0.1:8080", &[501]));
            assert!(!others("127.0.0.1:8081", &[]), "another port");
            assert!(!others("127.0.0.3:8080", &[]), "a connection");
        }
        assert!(!others_listen("", "127.0.0.1:8080".parse().unwrap(), &[]));
    }

    // P15
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_kernel_tells_is_understood() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let bind = TcpListener::bind(address.parse::<SocketAddr>().unwrap());
            // A host without IPv6.
            let Ok(listener) = bind else { continue };
            let address = listener.local_addr().unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let mut port = Port::new(address);
            assert!(port.others_listen(), "{address}");
            let own = [listener];
            port.own(&own);
            assert!(!port.others_listen(), "{address}");
        }
    }
}
