//! A name server with one answer: every A question gets all replicas, shuffled, as Docker's does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The server; its thread ends when it is dropped.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Dns {
    /// Answers with the IPv4 addresses of these replicas until it is dropped.
    pub fn start(replicas: &[SocketAddr], seed: u64) -> std::io::Result<Dns> {
        let ipv4 = |replica: &SocketAddr| match replica.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        };
        let mut addresses: Vec<Ipv4Addr> = replicas.iter().filter_map(ipv4).collect();
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut random = fastrand::Rng::with_seed(seed);
        std::thread::Builder::new().name("dns".into()).spawn(move || {
            let mut question = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                random.shuffle(&mut addresses);
                if let Some(answer) = answer(&question[..length], &addresses) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        })?;
        Ok(Dns { address, stop })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// RFC 1035, section 4.1: the header, the question again, and one A record for each address; none for other types.
fn answer(question: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let kind = question.get(end + 1..end + 3)?;
    let addresses = if kind == [0, 1] { addresses } else { &[] };
    let mut answer = question.get(..end + 5)?.to_vec();
    // Response, recursion desired and available, no error; one question, the answers, no other sections.
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        // The name at offset 12, type A, class IN, a TTL of 600 s as Docker's, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
