//! Probes in HTTP/2: `GET path`, or gRPC's health service (`grpc.health.v1.Health/Check`).

use crate::config::{self, Protocol};
use crate::pool::{ProbeResult, Unhealthy};
use crate::proxy::{PROBE_FIELD, Silent, ask};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri};
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes of a response's fields.
const MAX_HEAD: u32 = 16 * 1024;

/// How long a connection may take to end.
const LINGER: Duration = Duration::from_secs(1);

/// Where gRPC's health service is.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// A path.
    Path(&'a str),
    /// The health of a service.
    Service(&'a str),
}

impl<'a> Asked<'a> {
    /// What a probe asks in HTTP/2, if it does.
    pub(super) fn of(how: &'a config::Probe) -> Option<Self> {
        match (&how.grpc, &how.path) {
            (Some(service), _) => Some(Asked::Service(service)),
            (None, Some(path)) if how.protocol == Protocol::H2c => Some(Asked::Path(path)),
            _ => None,
        }
    }

    /// Asks over a connection that was made.
    pub(super) async fn ask(self, stream: TcpStream, how: &config::Probe, instance: &str) -> ProbeResult {
        let Some(request) = self.request(how, instance) else {
            return ProbeResult::Unhealthy(Unhealthy::Broken(
                "the probe's path or host cannot be said in HTTP/2".into(),
            ));
        };
        let body = match self {
            Asked::Path(_) => Bytes::new(),
            Asked::Service(service) => check_request(service),
        };
        match ask(stream, request, body, MAX_HEAD, how.timeout + LINGER).await {
            Err(Silent::Closed) => ProbeResult::Unhealthy(Unhealthy::Closed),
            Err(Silent::Reset) => ProbeResult::Unhealthy(Unhealthy::Reset),
            Err(Silent::Alien) => ProbeResult::Unhealthy(Unhealthy::NotHttp2),
            Ok(answer) => {
                let code = answer.head.status.as_u16();
                let proxied = answer.head.headers.get("proxy-status");
                let proxied = proxied.is_some_and(|by| by.as_bytes().windows(8).any(|word| word == b"evenkeel"));
                if code == 508 && proxied {
                    return ProbeResult::Unhealthy(Unhealthy::Ring);
                }
                match self {
                    Asked::Path(_) if how.healthy.contains(code) => ProbeResult::Passed,
                    Asked::Service(_) if code == 200 => judge(&answer.head.headers, &answer.body, &answer.trailers),
                    _ => {
                        let location = answer.head.headers.get(header::LOCATION);
                        let location =
                            location.and_then(|to| to.to_str().ok()).map(|to| to.chars().take(200).collect());
                        ProbeResult::Unhealthy(Unhealthy::Status { code, location })
                    }
                }
            }
        }
    }

    fn request(self, how: &config::Probe, instance: &str) -> Option<Request<()>> {
        let mut request = Request::new(());
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(uri::Authority::try_from(how.host.as_str()).ok()?);
        let path = match self {
            Asked::Path(path) => path,
            Asked::Service(_) => CHECK,
        };
        parts.path_and_query = Some(uri::PathAndQuery::try_from(path).ok()?);
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        let agent = concat!("evenkeel-probe/", env!("CARGO_PKG_VERSION"));
        let fields = request.headers_mut();
        fields.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        fields.insert(PROBE_FIELD, HeaderValue::try_from(instance).ok()?);
        if let Asked::Service(_) = self {
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            fields.insert(header::TE, HeaderValue::from_static("trailers"));
            *request.method_mut() = Method::POST;
        } else {
            fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        }
        Some(request)
    }
}

/// A `HealthCheckRequest` as a message of gRPC: a flag, a length, and field 1, the service's name.
fn check_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// What an answer of the health service says. Its `grpc-status` stands behind the message, or in the head where there is none.
fn judge(head: &HeaderMap, body: &[u8], trailers: &HeaderMap) -> ProbeResult {
    let status = trailers.get("grpc-status").or(head.get("grpc-status"));
    let status = status.and_then(|status| status.to_str().ok()).and_then(|status| status.parse::<u32>().ok());
    match status {
        Some(0) => match serving_status(body) {
            SERVING => ProbeResult::Passed,
            other => ProbeResult::Unhealthy(Unhealthy::NotServing(other)),
        },
        Some(status) => ProbeResult::Unhealthy(Unhealthy::Grpc(status)),
        None => ProbeResult::Unhealthy(Unhealthy::Broken("no grpc-status: not a server of gRPC".into())),
    }
}

/// Field 1 of a `HealthCheckResponse`, which is all that it has; 0 (`UNKNOWN`) where it is not said.
fn serving_status(body: &[u8]) -> u8 {
    match body {
        [0, _, _, _, _, 0x08, status, ..] => *status,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_a_message_of_grpc() {
        assert_eq!(&check_request("")[..], b"\0\0\0\0\0");
        assert_eq!(&check_request("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "s".repeat(200);
        assert_eq!(&check_request(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
    }

    #[test]
    fn only_serving_is_healthy() {
        let with = |status: &'static str| {
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
        };
        let none = HeaderMap::new();
        let unhealthy = ProbeResult::Unhealthy;
        assert_eq!(judge(&none, b"\0\0\0\0\x02\x08\x01", &with("0")), ProbeResult::Passed);
        assert_eq!(judge(&none, b"\0\0\0\0\x02\x08\x02", &with("0")), unhealthy(Unhealthy::NotServing(2)));
        assert_eq!(judge(&none, b"\0\0\0\0\0", &with("0")), unhealthy(Unhealthy::NotServing(0)));
        assert_eq!(judge(&with("12"), b"", &none), unhealthy(Unhealthy::Grpc(12)));
    }
}
