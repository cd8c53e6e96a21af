//! Clients that leave before their answer, thousands of them: a proxy that closes its connection to the replica in an
//! orderly way is left with a socket in TIME_WAIT for each (RFC 9293, 3.3.2), and there are 28,000 ports to a replica.

use super::SETTLE;
use crate::conduct::Conduct;
use crate::figure::Measure;
use crate::peer::Peer;
use crate::process::Cores;
use crate::row::Row;
use crate::scene::Scene;
use crate::taken::Taken;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const REQUESTS: usize = 3000;

/// Clients that leave at the same time.
const AT_ONCE: usize = 50;

/// From a group's requests to its leaving: they have reached the replicas by then.
const STAYS: Duration = Duration::from_millis(40);

/// A page that nobody waits for.
const SERVICE: Duration = Duration::from_secs(5);

pub(super) fn measure(peer: &Peer, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let replica = |_| Conduct { notices: true, ..Conduct::steady(Duration::from_millis(1)) };
    let scene = Scene::start(peer, 1, (0..3).map(replica).collect(), None, seed, cores)?;
    scene.watch(200.0, SETTLE);
    scene.origin.conduct.iter().for_each(|one| one.set_mean(SERVICE));
    let mut taken = Taken::new(Row::Cancelled, peer.kind);
    let before = waiting_for(&scene.origin.addresses);
    let target = scene.targets()[0];
    for _ in 0..REQUESTS / AT_ONCE {
        let ask = || {
            let mut stream = TcpStream::connect(target)?;
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: app.internal\r\n\r\n").map(|()| stream)
        };
        let clients: Result<Vec<TcpStream>, std::io::Error> = (0..AT_ONCE).map(|_| ask()).collect();
        let clients = clients.map_err(|error| format!("a client cannot connect: {error}"))?;
        std::thread::sleep(STAYS);
        drop(clients);
    }
    std::thread::sleep(SETTLE);
    taken.add(Measure::TimeWait, waiting_for(&scene.origin.addresses).saturating_sub(before) as f64);
    Ok(taken)
}

/// Sockets in TIME_WAIT whose other end is one of these addresses.
fn waiting_for(replicas: &[SocketAddr]) -> usize {
    /// See proc_net_tcp: the fourth field is the state, in the kernel's numbers.
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let of_replica = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, remote, state, ..] = fields.as_slice() else { return false };
        *state == TIME_WAIT && address(remote).is_some_and(|remote| replicas.contains(&remote))
    };
    table.lines().skip(1).filter(of_replica).count()
}

/// `0200007F:1F90`: the address in the machine's byte order, the port as it is written.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some((Ipv4Addr::from(ip), u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_kernels_table_is_read() {
        let text = format!("{:08X}:1F90", u32::from_ne_bytes([127, 0, 0, 2]));
        assert_eq!(address(&text), Some(([127, 0, 0, 2], 8080).into()));
    }
}
