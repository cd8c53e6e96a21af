//! Which addresses are this proxy itself: an alias that also names the proxy must not make it its own upstream.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, SocketAddr};

/// The sockets that this process listens on.
#[derive(Debug, Clone, Default)]
pub struct Own {
    sockets: Vec<SocketAddr>,
}

impl Own {
    /// `sockets` as they were really bound: the port is not 0.
    pub fn new(sockets: impl IntoIterator<Item = SocketAddr>) -> Self {
        Own { sockets: sockets.into_iter().collect() }
    }

    /// The addresses at which a connection to `port` would reach this process. The host's interfaces are read each time,
    /// as a container may be connected to another network while it runs.
    pub fn addresses(&self, port: u16) -> Vec<IpAddr> {
        let mut own = Vec::new();
        for socket in self.sockets.iter().filter(|s| s.port() == port) {
            match socket.ip().to_canonical() {
                // An IPv6 wildcard listens on IPv4 too, see the listener.
                IpAddr::V6(ip) if ip.is_unspecified() => own.extend(interfaces()),
                IpAddr::V4(ip) if ip.is_unspecified() => own.extend(interfaces().filter(IpAddr::is_ipv4)),
                ip => own.push(ip),
            }
        }
        own
    }
}

/// The addresses of all interfaces. None if they cannot be read: then the marker in probes still finds a ring.
pub(crate) fn interfaces() -> impl Iterator<Item = IpAddr> {
    getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(sockets: &[&str]) -> Own {
        Own::new(sockets.iter().map(|s| s.parse().unwrap()))
    }

    #[test]
    fn a_replica_on_this_host_with_another_port_is_not_this_proxy() {
        assert_eq!(own(&["127.0.0.1:80", "127.0.0.1:9180"]).addresses(8080), Vec::<IpAddr>::new());
    }

    #[test]
    fn listening_on_one_address_makes_only_that_one_own() {
        assert_eq!(own(&["127.0.0.1:80", "127.0.0.2:9180"]).addresses(80), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(own(&["127.0.0.1:80", "127.0.0.2:9180"]).addresses(9180), ["127.0.0.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn listening_everywhere_makes_every_interface_own() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(own(&["0.0.0.0:80"]).addresses(80).contains(&loopback));
        assert!(own(&["0.0.0.0:80"]).addresses(80).iter().all(IpAddr::is_ipv4));
        assert!(own(&["[::]:80"]).addresses(80).contains(&loopback));
        assert_eq!(own(&["[::ffff:127.0.0.1]:80"]).addresses(80), [loopback]);
    }
}
