//! A resolver that answers as Docker's embedded one (127.0.0.11), and fails in the ways that one has been seen to fail.
//!
//! Responsible for what goes over the wire. Which names exist is decided by [`Loopback`](crate::Loopback), or by the
//! test itself through [`Dns::set`].

use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Metadata, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, PTR};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::proto::serialize::binary::{BinDecoder, BinEncodable};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

/// Docker's, hard-coded there as well, until a test sets another. Nobody may rely on it.
const TTL: u32 = 600;

/// What goes wrong with every answer until [`Dns::heal`].
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Questions are read and never answered.
    Silence,
    /// The name servers behind Docker's did not answer, or the network is `--internal`.
    ServFail,
    /// More than 1024 forwarded questions at once.
    Refused,
    /// The name is gone.
    NxDomain,
    /// The name exists and has no address.
    Empty,
    /// Half of the addresses over UDP with the truncated bit set, and nothing over TCP.
    TruncatedWithoutTcp,
    /// An answer to somebody else's question: the id differs.
    WrongId,
    /// The id is right and the question is another one, with addresses that are not ours.
    WrongQuestion,
    /// An alias of an alias of itself.
    CnameLoop,
    /// The right answer, this much later.
    Delay(Duration),
    /// These addresses instead.
    Answer(Vec<Ipv4Addr>),
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Dns {
    /// Listens at `address`, UDP and TCP; port 0 takes a free one. `seed` decides the order of addresses in answers.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn listen(address: SocketAddr, seed: u64) -> io::Result<Dns> {
        let tcp = TcpListener::bind(address)?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let zone = Arc::new(Mutex::new(Zone {
            names: HashMap::new(),
            ipv6: HashMap::new(),
            pointers: HashMap::new(),
            asked: HashMap::new(),
            ttl: TTL,
            fault: None,
            rng: fastrand::Rng::with_seed(seed),
        }));
        let handler = Handler { zone: zone.clone() };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("dns".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut server = Server::new(handler);
                server.register_socket(tokio::net::UdpSocket::from_std(udp).expect("a bound socket"));
                let tcp = tokio::net::TcpListener::from_std(tcp).expect("a bound listener");
                server.register_listener(tcp, Duration::from_secs(5), 32);
                let _ = stopped.await;
            });
        })?;
        Ok(Dns { address, zone, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `name` has exactly these addresses from now on; with none the name does not exist. Case does not matter.
    pub fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.zone().names.insert(name.to_lowercase(), addresses.to_vec());
    }

    /// `name` has exactly these IPv6 addresses from now on, beside its others. Faults other than silence and delay
    /// concern A only.
    pub fn set_ipv6(&self, name: &str, addresses: &[Ipv6Addr]) {
        self.zone().ipv6.insert(name.to_lowercase(), addresses.to_vec());
    }

    /// The container at this address is called so.
    pub fn set_pointer(&self, address: Ipv4Addr, name: &str) {
        let key = Name::from(std::net::IpAddr::V4(address)).to_string();
        self.zone().pointers.insert(key.trim_end_matches('.').to_lowercase(), name.to_owned());
    }

    /// One address more.
    pub fn add(&self, name: &str, address: Ipv4Addr) {
        let mut zone = self.zone();
        let addresses = zone.names.entry(name.to_lowercase()).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// One address less.
    pub fn remove(&self, name: &str, address: Ipv4Addr) {
        let mut zone = self.zone();
        zone.names.entry(name.to_lowercase()).or_default().retain(|a| *a != address);
    }

    /// The addresses of `name` now, faults aside.
    pub fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        self.zone().names.get(&name.to_lowercase()).cloned().unwrap_or_default()
    }

    /// Records say that they hold for so many seconds.
    pub fn set_ttl(&self, seconds: u32) {
        self.zone().ttl = seconds;
    }

    /// Every answer goes wrong like this from now on.
    pub fn fail(&self, fault: Fault) {
        self.zone().fault = Some(fault);
    }

    /// Answers are right again.
    pub fn heal(&self) {
        self.zone().fault = None;
    }

    /// How often `name`'s A records were asked for, answered or not: a test waits until the effect of an answer can
    /// have happened by waiting for later questions.
    pub fn questions(&self, name: &str) -> u64 {
        self.zone().asked.get(&name.to_lowercase()).copied().unwrap_or(0)
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Zone {
    names: HashMap<String, Vec<Ipv4Addr>>,
    ipv6: HashMap<String, Vec<Ipv6Addr>>,
    /// By the name that a PTR question has.
    pointers: HashMap<String, String>,
    asked: HashMap<String, u64>,
    ttl: u32,
    fault: Option<Fault>,
    rng: fastrand::Rng,
}

struct Handler {
    zone: Arc<Mutex<Zone>>,
}

/// An answer before it is encoded.
struct Answer {
    code: ResponseCode,
    records: Vec<Record>,
    truncated: bool,
    id_xor: u16,
    other_question: bool,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut to: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let nothing = ResponseInfo::from(hickory_server::proto::op::Header { metadata, counts: Default::default() });
        let (answer, delay) = self.decide(request);
        let Some(answer) = answer else { return nothing };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        metadata.response_code = answer.code;
        metadata.truncation = answer.truncated;
        metadata.id ^= answer.id_xor;
        let other = other_question();
        let queries = if answer.other_question { &other } else { &request.queries };
        // The encoder cuts a UDP answer at this size and sets the truncated bit: 512 bytes where the client sent no EDNS.
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(request.max_payload());
            edns
        });
        let response = MessageResponseBuilder::new(queries, edns.as_ref()).build(metadata, &answer.records, [], [], []);
        to.send_response(response).await.unwrap_or(nothing)
    }
}

impl Handler {
    /// The answer to give, if any, and how late.
    fn decide(&self, request: &Request) -> (Option<Answer>, Option<Duration>) {
        let [query] = request.queries.queries() else { return (None, None) };
        let name: Name = query.original().name().clone();
        let key = query.name().to_string().trim_end_matches('.').to_lowercase();
        let mut zone = self.zone.lock().unwrap_or_else(|e| e.into_inner());
        let wants_addresses = query.query_type() == RecordType::A;
        if wants_addresses {
            *zone.asked.entry(key.clone()).or_default() += 1;
        }

        let mut addresses = zone.names.get(&key).cloned().unwrap_or_default();
        let ipv6 = zone.ipv6.get(&key).cloned().unwrap_or_default();
        let mut answer = Answer {
            code: if addresses.is_empty() && ipv6.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError },
            records: vec![],
            truncated: false,
            id_xor: 0,
            other_question: false,
        };
        let mut delay = None;
        match zone.fault.clone() {
            None => {}
            Some(Fault::Silence) => return (None, None),
            Some(Fault::ServFail) => (addresses, answer.code) = (vec![], ResponseCode::ServFail),
            Some(Fault::Refused) => (addresses, answer.code) = (vec![], ResponseCode::Refused),
            Some(Fault::NxDomain) => (addresses, answer.code) = (vec![], ResponseCode::NXDomain),
            Some(Fault::Empty) => (addresses, answer.code) = (vec![], ResponseCode::NoError),
            Some(Fault::TruncatedWithoutTcp) if request.protocol() == Protocol::Tcp => return (None, None),
            Some(Fault::TruncatedWithoutTcp) => {
                addresses.truncate(addresses.len().div_ceil(2));
                answer.truncated = true;
            }
            Some(Fault::WrongId) => answer.id_xor = 0x5555,
            Some(Fault::WrongQuestion) => {
                addresses = vec![Ipv4Addr::new(127, 0, 0, 99)];
                (answer.other_question, answer.code) = (true, ResponseCode::NoError);
            }
            Some(Fault::CnameLoop) => {
                let other = Name::from_str("loop.invalid.").expect("a constant");
                addresses = vec![];
                answer.code = ResponseCode::NoError;
                answer.records = vec![
                    Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(other.clone()))),
                    Record::from_rdata(other, TTL, RData::CNAME(CNAME(name.clone()))),
                ];
            }
            Some(Fault::Delay(by)) => delay = Some(by),
            Some(Fault::Answer(instead)) => (addresses, answer.code) = (instead, ResponseCode::NoError),
        }
        if query.query_type() == RecordType::PTR
            && let Some(target) = zone.pointers.get(&key)
        {
            let target = Name::from_str(target).expect("a container's name");
            answer.code = ResponseCode::NoError;
            answer.records.push(Record::from_rdata(name.clone(), zone.ttl, RData::PTR(PTR(target))));
        }
        if query.query_type() == RecordType::AAAA {
            let record = |a: &Ipv6Addr| Record::from_rdata(name.clone(), zone.ttl, RData::AAAA(AAAA(*a)));
            answer.records.extend(ipv6.iter().map(record));
        }
        // Any other type of a name that exists: NOERROR and nothing, as Docker answers AAAA without IPv6.
        if wants_addresses {
            zone.rng.shuffle(&mut addresses);
            let record = |a: &Ipv4Addr| Record::from_rdata(name.clone(), zone.ttl, RData::A(A(*a)));
            answer.records.extend(addresses.iter().map(record));
        }
        (Some(answer), delay)
    }
}

fn other_question() -> Queries {
    let query = Query::query(Name::from_str("somebody.else.").expect("a constant"), RecordType::A);
    let bytes = query.to_bytes().expect("a constant");
    Queries::read(&mut BinDecoder::new(&bytes), 1).expect("written just above")
}

#[cfg(test)]
mod tests;
