//! What an operator has the running process do, and how that is asked for: `POST` to one of these paths on the socket
//! without an address ([`super::local`]). What goes with a verb is in the query, and needs no escaping: addresses, numbers and
//! names of upstreams, which are letters, digits, `-`, `_` and `.`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Send a replica nothing new; what it has finishes.
    Drain(Replica),
    /// Send it requests again.
    Undrain(Replica),
    /// Say how it stands with a replica, and change nothing.
    Look(Replica),
    /// Have the requests of this upstream wait.
    Pause(String),
    /// Have them go on.
    Resume(String),
}

/// Whom a verb is about: in each upstream that has a replica with this address, unless there is more to go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; `None`: any.
    pub port: Option<u16>,
    /// The upstream's name in the configuration; `None`: any.
    pub upstream: Option<String>,
}

/// Whether this can be an upstream's name: what needs no escaping in a query.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What came of a verb.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What is so now, a line for each replica or upstream.
    pub lines: Vec<String>,
    /// Requests and streams that the replicas in question still have.
    pub in_flight: u32,
    /// Whether all replicas in question are drained, or the upstream is paused.
    pub in_force: bool,
}

impl FromStr for Replica {
    type Err = String;

    /// Reads `10.0.0.7`, `10.0.0.7:8080`, `fd00::7` or `[fd00::7]:8080`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (_, Ok(address)) => (address.ip(), Some(address.port())),
            _ => return Err("is not an address; write one as `evenkeel status` shows it, such as 10.0.0.7".to_owned()),
        };
        Ok(Replica { ip, port, upstream: None })
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.ip, port)),
            None => write!(f, "{}", self.ip),
        }
    }
}

impl Verb {
    /// Whether [`Verb::from_target`] knows this path.
    pub(super) fn is_path(path: &str) -> bool {
        ["/drain", "/undrain", "/look", "/pause", "/resume"].contains(&path)
    }

    /// Path and query of the request that asks for it.
    pub fn target(&self) -> String {
        let about = |replica: &Replica| {
            let upstream = replica.upstream.as_ref().map(|name| format!("&upstream={name}")).unwrap_or_default();
            format!("address={replica}{upstream}")
        };
        match self {
            Verb::Drain(replica) => format!("/drain?{}", about(replica)),
            Verb::Undrain(replica) => format!("/undrain?{}", about(replica)),
            Verb::Look(replica) => format!("/look?{}", about(replica)),
            Verb::Pause(upstream) => format!("/pause?upstream={upstream}"),
            Verb::Resume(upstream) => format!("/resume?upstream={upstream}"),
        }
    }

    /// Reads what [`Verb::target`] wrote.
    ///
    /// # Errors
    /// What is missing or unknown.
    pub(super) fn from_target(path: &str, query: &str) -> Result<Verb, String> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let upstream = || value("upstream").map(str::to_owned);
        let named = || upstream().ok_or_else(|| "upstream=NAME is missing".to_owned());
        let replica = || {
            let address = value("address").ok_or("address=ADDRESS is missing")?;
            let replica = address.parse::<Replica>().map_err(|problem| format!("{address:?} {problem}"))?;
            Ok::<_, String>(Replica { upstream: upstream(), ..replica })
        };
        match path {
            "/drain" => Ok(Verb::Drain(replica()?)),
            "/undrain" => Ok(Verb::Undrain(replica()?)),
            "/look" => Ok(Verb::Look(replica()?)),
            "/pause" => Ok(Verb::Pause(named()?)),
            "/resume" => Ok(Verb::Resume(named()?)),
            _ => Err("there are /drain, /undrain, /look, /pause and /resume".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_arrives_as_it_was_sent() {
        let replica = |text: &str, upstream: Option<&str>| Replica {
            upstream: upstream.map(str::to_owned),
            ..text.parse().unwrap()
        };
        for verb in [
            Verb::Drain(replica("10.0.0.7", None)),
            Verb::Drain(replica("10.0.0.7:8080", Some("db-checker"))),
            Verb::Undrain(replica("fd00::7", Some("a.b_c-d"))),
            Verb::Undrain(replica("[fd00::7]:80", None)),
            Verb::Look(replica("10.0.0.7", None)),
            Verb::Pause("db-checker".to_owned()),
            Verb::Resume("db-checker".to_owned()),
        ] {
            let target: http::uri::PathAndQuery = verb.target().parse().unwrap();
            assert!(Verb::is_path(target.path()));
            assert_eq!(Verb::from_target(target.path(), target.query().unwrap()), Ok(verb));
        }
    }

    #[test]
    fn what_is_no_verb_is_refused_with_what_is_missing() {
        let refused = |path, query, what: &str| {
            let problem = Verb::from_target(path, query).unwrap_err();
            assert!(problem.contains(what), "{problem}");
        };
        refused("/drain", "", "address=ADDRESS is missing");
        refused("/drain", "address=db-checker", "\"db-checker\" is not an address");
        refused("/pause", "up=db-checker", "upstream=NAME is missing");
        refused("/stop", "", "there are /drain");
        assert!("10.0.0.7:".parse::<Replica>().is_err() && "".parse::<Replica>().is_err());
    }
}
