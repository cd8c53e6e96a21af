//! What a probe ended in, and which probes are due.
//!
//! One `Display` for the log, `/status` and `evenkeel check`. What a result means for the replica is decided in `health`; what
//! the operator may do about it is guessed in [`crate::upstream::remedy`].

use super::endpoint::{EndpointId, Health};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What a probe ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Connected, and answered with a healthy status if HTTP was asked.
    Passed,
    /// The connect was refused or reset: nobody listens on the port.
    Refused,
    /// There is no way to the address.
    Unreachable,
    /// The connect got no answer in time: nobody has the address, a firewall drops, or the queue of connections is full.
    ConnectTimedOut,
    /// Connected, and no answer within the probe's time-out.
    TimedOut,
    /// Connected, and answered something else than a healthy status.
    Unhealthy(Unhealthy),
    /// This host had no descriptor or local port for the probe, which says nothing about the replica.
    Exhausted,
}

/// In what way an answer was not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// Another status than `probe.healthy` lists.
    Status {
        /// The status.
        code: u16,
        /// The `Location` of a redirect.
        location: Option<String>,
    },
    /// Another Evenkeel answered: the proxies form a ring.
    Ring,
    /// The port speaks TLS.
    Tls,
    /// The answer is not HTTP/1.
    NotHttp,
    /// The answer is not HTTP/2, which `protocol` asks for.
    NotHttp2,
    /// gRPC's health service says otherwise than `SERVING`: its `ServingStatus`.
    NotServing(u8),
    /// The call of gRPC's health service failed: its `grpc-status`.
    Grpc(u32),
    /// The connection was closed before a whole response head came.
    Closed,
    /// The connection was reset before a whole response head came.
    Reset,
    /// The response head is longer than this many bytes.
    HeadTooLong(usize),
    /// More than this many interim responses (1xx) came, and no final one.
    Interim(usize),
    /// Another error of the connection.
    Broken(String),
}

impl ProbeResult {
    /// Whether what was probed is an Evenkeel.
    pub fn is_ring(&self) -> bool {
        *self == ProbeResult::Unhealthy(Unhealthy::Ring)
    }

    /// Whether the two are the same to the operator: details such as a redirect's target may change with each answer.
    pub(super) fn is_like(&self, other: &ProbeResult) -> bool {
        use ProbeResult::Unhealthy as U;
        match (self, other) {
            (U(Unhealthy::Status { code, .. }), U(Unhealthy::Status { code: other, .. })) => code == other,
            (U(cause), U(other)) => std::mem::discriminant(cause) == std::mem::discriminant(other),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProbeResult::Passed => "passed",
            ProbeResult::Refused => "connection refused",
            ProbeResult::Unreachable => "address unreachable",
            ProbeResult::ConnectTimedOut => "connect timed out",
            ProbeResult::TimedOut => "timed out",
            ProbeResult::Unhealthy(cause) => return cause.fmt(f),
            ProbeResult::Exhausted => "not made: the proxy has no descriptor or port left",
        })
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unhealthy::Status { code, location: None } => return write!(f, "status {code}"),
            Unhealthy::Status { code, location: Some(to) } => return write!(f, "status {code}, Location: {to}"),
            Unhealthy::Ring => "508 from another Evenkeel: a ring of proxies",
            Unhealthy::Tls => "the port speaks TLS",
            Unhealthy::NotHttp => "not HTTP",
            Unhealthy::NotHttp2 => "not HTTP/2",
            Unhealthy::NotServing(2) => "NOT_SERVING",
            Unhealthy::NotServing(3) => "SERVICE_UNKNOWN",
            Unhealthy::NotServing(status) => return write!(f, "serving status {status}"),
            Unhealthy::Grpc(5) => "grpc-status 5 (NOT_FOUND)",
            Unhealthy::Grpc(12) => "grpc-status 12 (UNIMPLEMENTED)",
            Unhealthy::Grpc(status) => return write!(f, "grpc-status {status}"),
            Unhealthy::Closed => "closed without an answer",
            Unhealthy::Reset => "reset without an answer",
            Unhealthy::HeadTooLong(most) => return write!(f, "a response head over {} KiB", most / 1024),
            Unhealthy::Interim(most) => return write!(f, "more than {most} interim responses (1xx)"),
            Unhealthy::Broken(error) => error,
        })
    }
}

/// A probe to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueProbe {
    /// The endpoint to be probed.
    pub id: EndpointId,
    /// Its address.
    pub address: SocketAddr,
    /// Its health: endpoints of one health never wait for probes of those of another.
    pub health: Health,
    /// How long the connect may take, if less than the probe's time-out.
    pub connect_within: Duration,
}
