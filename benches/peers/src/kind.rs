//! The contenders, by name.

/// A way from a client to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    /// One replica, no proxy.
    Direct,
    /// All replicas, no proxy, one of them at random: what Docker's DNS gives.
    RoundRobin,
    Evenkeel,
    HaProxy,
    Nginx,
    Envoy,
    Caddy,
    Traefik,
    /// nginx with `least_time`, which weighs replicas by their response times.
    NginxTime,
    /// Traefik with `leasttime`, which does so, too.
    TraefikTime,
}

impl Kind {
    /// In the order of the table.
    pub const ALL: [Kind; 10] = [
        Kind::Direct,
        Kind::RoundRobin,
        Kind::Evenkeel,
        Kind::HaProxy,
        Kind::Nginx,
        Kind::Envoy,
        Kind::Caddy,
        Kind::Traefik,
        Kind::NginxTime,
        Kind::TraefikTime,
    ];

    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::RoundRobin => "DNS round robin",
            Kind::Evenkeel => "Evenkeel",
            Kind::HaProxy => "HAProxy",
            Kind::Nginx => "nginx",
            Kind::Envoy => "Envoy",
            Kind::Caddy => "Caddy",
            Kind::Traefik => "Traefik",
            Kind::NginxTime => "nginx, least_time",
            Kind::TraefikTime => "Traefik, leasttime",
        }
    }

    /// As the command line and the file of values call it.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::RoundRobin => "round-robin",
            Kind::Evenkeel => "evenkeel",
            Kind::HaProxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Envoy => "envoy",
            Kind::Caddy => "caddy",
            Kind::Traefik => "traefik",
            Kind::NginxTime => "nginx-time",
            Kind::TraefikTime => "traefik-time",
        }
    }

    /// The one with this key.
    pub fn named(key: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.key() == key)
    }

    /// There is a process between client and replica.
    pub fn is_proxy(self) -> bool {
        !matches!(self, Kind::Direct | Kind::RoundRobin)
    }

    /// The same program as another column, with another way to choose a replica. What does not depend on that is
    /// measured for the other one only.
    pub fn is_variant(self) -> bool {
        matches!(self, Kind::NginxTime | Kind::TraefikTime)
    }
}
