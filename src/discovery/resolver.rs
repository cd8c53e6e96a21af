//! How a name is asked: one question over UDP with EDNS, over TCP if the answer was cut, nothing cached.
//!
//! Only an answer that says so means "no such name": every other failure says nothing about the containers, and the pool
//! keeps what it has. Answers are classified here from the server's own message rather than by a stub resolver's lookup,
//! which reports a CNAME loop as an empty answer.
//!
//! With `dns.server` set, that server alone is asked. Without it names are found as on the rest of the system: `/etc/hosts`
//! first (`--add-host`, compose's `extra_hosts`), then the servers of `/etc/resolv.conf` in their order. Both files are read
//! at each question: Docker writes them anew in running containers. `localhost` needs neither. Search domains are not
//! applied, as a name in the configuration is whole. AAAA is asked only where `dns.family` says so: Docker answers A for
//! every container unless the network is for IPv6 only, and older engines forward AAAA to the outside.

use super::Resolve;
use super::runtime::Sockets;
use crate::config::{Dns, Family, Host};
use crate::pool::Resolution;
use arc_swap::ArcSwap;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use parking_lot::Mutex;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::info;

/// As many as the C library reads from resolv.conf.
const MAX_SERVERS: usize = 3;

/// Aliases followed until a chain is called a loop; public names have rarely more than three.
const MAX_ALIASES: usize = 8;

const DNS_PORT: u16 = 53;

/// The resolver of this process, shared by all upstreams.
pub struct Resolver {
    dns: ArcSwap<Dns>,
    resolv_conf: PathBuf,
    hosts: PathBuf,
    servers: Mutex<Arc<Servers>>,
}

/// Who is asked, made anew when that changes.
struct Servers {
    addresses: Vec<SocketAddr>,
    timeout: Duration,
    pools: Vec<NameServerPool<Sockets>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("dns", &self.dns).field("servers", &self.servers.lock().addresses).finish()
    }
}

impl Resolver {
    /// A resolver that asks as `[dns]` says.
    pub fn new(dns: Dns) -> Self {
        Resolver::with_files(dns, "/etc/resolv.conf", "/etc/hosts")
    }

    pub(crate) fn with_files(dns: Dns, resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        let none = Servers { addresses: Vec::new(), timeout: Duration::ZERO, pools: Vec::new() };
        Resolver {
            dns: ArcSwap::from_pointee(dns),
            resolv_conf: resolv_conf.into(),
            hosts: hosts.into(),
            servers: Mutex::new(Arc::new(none)),
        }
    }

    /// Takes over a changed `[dns]`, from the next question on.
    pub fn reconfigure(&self, dns: Dns) {
        self.dns.store(Arc::new(dns));
    }

    /// The servers that would be asked now.
    ///
    /// # Errors
    /// resolv.conf cannot be read or names no server; with the remedy.
    pub fn server_addresses(&self) -> Result<Vec<SocketAddr>, String> {
        match self.dns.load().server {
            Some(server) => Ok(vec![server]),
            None => read_resolv_conf(&self.resolv_conf),
        }
    }

    #[cfg(test)]
    pub(super) async fn ask_servers(addresses: Vec<SocketAddr>, timeout: Duration, name: &str) -> Resolution {
        let name = Name::from_ascii(format!("{name}.")).unwrap();
        Servers::new(addresses, timeout).unwrap().ask(&name, RecordType::A).await
    }

    fn servers(&self, timeout: Duration) -> Result<Arc<Servers>, String> {
        let addresses = self.server_addresses()?;
        let mut servers = self.servers.lock();
        if servers.addresses != addresses || servers.timeout != timeout {
            info!(servers = ?addresses, ?timeout, "names are resolved by");
            *servers = Arc::new(Servers::new(addresses, timeout)?);
        }
        Ok(servers.clone())
    }
}

impl Resolve for Resolver {
    async fn resolve(&self, host: &Host) -> Resolution {
        self.resolve_as(host, self.dns.load().family).await
    }
}

impl Resolver {
    /// Asks once, for addresses of `family`, whatever the configuration says of it.
    pub async fn resolve_as(&self, host: &Host, family: Family) -> Resolution {
        let name = match host {
            Host::Address(address) => return Resolution::Addresses(vec![*address]),
            Host::Name(name) => name,
        };
        let dns = self.dns.load_full();
        if dns.server.is_none()
            && let Some(addresses) = find_in_hosts(&fs::read_to_string(&self.hosts).unwrap_or_default(), name, family)
        {
            return Resolution::Addresses(addresses);
        }
        if is_localhost(name) {
            let address = match family {
                Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
                Family::Ipv4 | Family::Any => Ipv4Addr::LOCALHOST.into(),
            };
            return Resolution::Addresses(vec![address]);
        }
        let Ok(question) = Name::from_ascii(format!("{name}.")) else {
            return Resolution::Failed(format!(
                "\"{name}\" is no name that DNS knows; write letters, digits, - _ and ."
            ));
        };
        let servers = match self.servers(dns.timeout) {
            Ok(servers) => servers,
            Err(why) => return Resolution::Failed(why),
        };
        let silence = || Resolution::Failed(format!("no answer from {} within {:?}", servers.names(), dns.timeout));
        let ask = async {
            match family {
                Family::Ipv4 => servers.ask(&question, RecordType::A).await,
                Family::Ipv6 => servers.ask(&question, RecordType::AAAA).await,
                // Only a server's word that there is no A leads on: a failure may be that of a name that has some.
                Family::Any => match servers.ask(&question, RecordType::A).await {
                    Resolution::Absent => servers.ask(&question, RecordType::AAAA).await,
                    resolution => resolution,
                },
            }
        };
        timeout(dns.timeout, ask).await.unwrap_or_else(|_| silence())
    }
}

impl Resolver {
    /// What the container at `address` is called, if a server knows it: asks for its PTR record.
    pub async fn name_of(&self, address: IpAddr) -> Option<String> {
        let patience = self.dns.load().timeout;
        let servers = self.servers(patience).ok()?;
        timeout(patience, servers.ask_for_name(&Name::from(address))).await.ok()?
    }
}

impl Servers {
    async fn ask_for_name(&self, pointer: &Name) -> Option<String> {
        let share = self.timeout / self.pools.len() as u32;
        for pool in &self.pools {
            let question = Query::query(pointer.clone(), RecordType::PTR);
            let answer = timeout(share, pool.lookup(question, DnsRequestOptions::default()).first_answer()).await;
            let Ok(Ok(message)) = answer else { continue };
            let name = message.answers.iter().find_map(|record| match &record.data {
                RData::PTR(name) if record.name == *pointer => Some(name.0.to_ascii()),
                _ => None,
            });
            if let Some(name) = name {
                return Some(name.trim_end_matches('.').to_owned()).filter(|name| is_plain(name));
            }
        }
        None
    }

    fn new(addresses: Vec<SocketAddr>, timeout: Duration) -> Result<Self, String> {
        let mut options = ResolverOpts::default();
        // Of one try over UDP, which repeats a lost datagram by itself, or over TCP. The time for all servers is shared:
        // a silent first one must leave time to ask the second.
        options.timeout = timeout / addresses.len() as u32;
        options.os_port_selection = true;
        let pool = |address: &SocketAddr| {
            let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|c| c.port = address.port());
            let server = NameServerConfig::new(address.ip(), true, connections.into());
            let tls = TlsConfig::new().map_err(|e| e.to_string())?;
            let context = Arc::new(PoolContext::new(options.clone(), tls));
            Ok(NameServerPool::from_config([server], context, Sockets::default()))
        };
        let pools = addresses.iter().map(pool).collect::<Result<_, String>>()?;
        Ok(Servers { addresses, timeout, pools })
    }

    /// One after the other, as the C library does: the first that knows something says it for all.
    async fn ask(&self, name: &Name, kind: RecordType) -> Resolution {
        let share = self.timeout / self.pools.len() as u32;
        let mut reasons = Vec::new();
        for (address, pool) in self.addresses.iter().zip(&self.pools) {
            match timeout(share, follow(pool, name, kind)).await {
                Ok(Resolution::Failed(why)) => reasons.push(format!("{why} from {address}")),
                Ok(resolution) => return resolution,
                Err(_) => reasons.push(format!("no answer from {address} within {share:?}")),
            }
        }
        Resolution::Failed(reasons.join(", "))
    }

    fn names(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Asks one server, and again for the end of a chain of aliases whose addresses the answer did not hold.
async fn follow(pool: &NameServerPool<Sockets>, name: &Name, kind: RecordType) -> Resolution {
    let mut asked = vec![name.clone()];
    loop {
        let current = asked.last().unwrap_or(name);
        let question = Query::query(current.clone(), kind);
        let answer = pool.lookup(question, DnsRequestOptions::default()).first_answer().await;
        let message = match answer {
            Ok(message) => message,
            Err(error) => return classify(error),
        };
        match message.response_code {
            ResponseCode::NoError => {}
            // The end of a chain of aliases does not exist.
            ResponseCode::NXDomain => return Resolution::Absent,
            code => return Resolution::Failed(spell(code)),
        }
        match walk(&message, current, kind) {
            Walk::Addresses(addresses) => return Resolution::Addresses(addresses),
            Walk::Alias(target) if asked.contains(&target) || asked.len() > MAX_ALIASES => {
                return Resolution::Failed("a loop of CNAMEs".to_owned());
            }
            Walk::Alias(target) => asked.push(target),
            Walk::Loop => return Resolution::Failed("a loop of CNAMEs".to_owned()),
            Walk::Nothing => return Resolution::Failed("an answer to another question".to_owned()),
        }
    }
}

/// Where an answer leads.
enum Walk {
    Addresses(Vec<IpAddr>),
    /// To a name whose addresses it does not hold.
    Alias(Name),
    Loop,
    Nothing,
}

fn walk(message: &Message, name: &Name, kind: RecordType) -> Walk {
    let mut current = name;
    for _ in 0..=MAX_ALIASES {
        let here = || message.answers.iter().filter(|r| r.name == *current);
        let addresses: Vec<IpAddr> = here()
            .filter_map(|record| match &record.data {
                RData::A(address) if kind == RecordType::A => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) if kind == RecordType::AAAA => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect();
        if !addresses.is_empty() {
            return Walk::Addresses(addresses);
        }
        let alias = here().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(&target.0),
            _ => None,
        });
        match alias {
            Some(target) => current = target,
            None if current == name => return Walk::Nothing,
            None => return Walk::Alias(current.clone()),
        }
    }
    Walk::Loop
}

/// Only a server's word that there is no such name, or no address at it, says anything about the containers.
fn classify(error: NetError) -> Resolution {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, soa, ns, .. })) => match response_code {
            // Name servers without an SOA are a referral (RFC 2308, 2.2): ask there, it means, not that there is nothing.
            ResponseCode::NoError if ns.is_some() && soa.is_none() => {
                Resolution::Failed("a referral, so it does not resolve for clients".to_owned())
            }
            ResponseCode::NoError | ResponseCode::NXDomain => Resolution::Absent,
            code => Resolution::Failed(spell(code)),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Resolution::Failed(spell(code)),
        NetError::Timeout => Resolution::Failed("no answer in time".to_owned()),
        NetError::NoConnections => Resolution::Failed("connection refused".to_owned()),
        NetError::Truncated => Resolution::Failed("a truncated answer over UDP and TCP".to_owned()),
        error => Resolution::Failed(error.to_string()),
    }
}

/// As operators and tools write it: SERVFAIL.
fn spell(code: ResponseCode) -> String {
    format!("{code:?}").to_uppercase()
}

fn read_resolv_conf(path: &Path) -> Result<Vec<SocketAddr>, String> {
    let remedy = "set dns.server, e.g. \"127.0.0.11:53\" for Docker's own DNS";
    let text = fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}; {remedy}", path.display()))?;
    let servers: Vec<SocketAddr> = nameservers(&text).take(MAX_SERVERS).collect();
    if servers.is_empty() { Err(format!("{} names no nameserver; {remedy}", path.display())) } else { Ok(servers) }
}

/// The servers of a resolv.conf, as `resolv.conf(5)` has it.
fn nameservers(text: &str) -> impl Iterator<Item = SocketAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(address, DNS_PORT))
    })
}

/// The addresses of `name` in a hosts file, as `hosts(5)` has it: those of the family that DNS would be asked for first if
/// there are any, else the others.
fn find_in_hosts(text: &str, name: &str, family: Family) -> Option<Vec<IpAddr>> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    let (first, others): (Vec<_>, Vec<_>) = named.partition(|a| a.is_ipv6() == (family == Family::Ipv6));
    [first, others].into_iter().find(|addresses| !addresses.is_empty())
}

/// Whether a name may be shown as it is. Docker's names of containers have no other characters.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(plain)
}

/// RFC 6761, 6.3: such names are never asked.
fn is_localhost(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}
