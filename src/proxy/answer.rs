//! What the proxy itself says to a client: the cases, their status, and the words.
//!
//! Every answer of the proxy's own carries `Proxy-Status` (RFC 9209), so that nobody takes it for the app's.

use super::fields::Fault;
use super::guard::Refusal;
use super::http2::Code;
use super::request::RequestHead;
use http::{HeaderValue, Response, header};
use std::fmt::Write as _;

/// Why a request was not answered by a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The request's head is malformed or ambiguous.
    BadRequest(&'static str),
    /// The head did not come in time.
    HeaderTimeout,
    /// The body stopped coming.
    BodyTimeout,
    /// The target is longer than `max_target`.
    TargetTooLong,
    /// The head is longer than `max_header`.
    HeadTooLong,
    /// The head has more than 256 fields.
    TooManyFields,
    /// The client speaks TLS.
    Tls,
    /// The preface of HTTP/2 behind a request of HTTP/1.
    Http2,
    /// CONNECT: this is no forward proxy.
    Method,
    /// No route matches.
    NoRoute,
    /// A probe of another Evenkeel: the proxies form a ring.
    Loop,
    /// No replica became usable in time.
    Unavailable,
    /// `max_waiting` requests wait already.
    Overloaded,
    /// Requests hold `max_buffered` already.
    NoMemory,
    /// This host has no descriptor or local port left for another connection.
    Exhausted,
    /// Nobody accepted a connection.
    Refused,
    /// No connection came about in time.
    ConnectTimeout,
    /// The connection broke before the response.
    Broken,
    /// Each replica that was asked said that it does not process the request.
    Unprocessed,
    /// The replica reset the request's stream.
    Reset(Code),
    /// The call's own deadline passed.
    Deadline,
    /// No response within `response_timeout`.
    ResponseTimeout,
    /// What came was not an HTTP response.
    Garbage(&'static str),
    /// The response's head is too long.
    ResponseHeadTooLong,
    /// The response began and did not end. Never an answer: the client sees the connection break.
    Incomplete(&'static str),
}

impl Problem {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Problem::BadRequest(_) | Problem::Tls | Problem::Http2 => 400,
            Problem::HeaderTimeout | Problem::BodyTimeout => 408,
            Problem::TargetTooLong => 414,
            Problem::HeadTooLong | Problem::TooManyFields => 431,
            Problem::Method => 405,
            Problem::NoRoute => 404,
            Problem::Loop => 508,
            Problem::Unavailable
            | Problem::Unprocessed
            | Problem::Overloaded
            | Problem::NoMemory
            | Problem::Exhausted => 503,
            Problem::ConnectTimeout | Problem::ResponseTimeout | Problem::Deadline => 504,
            Problem::Refused
            | Problem::Broken
            | Problem::Reset(_)
            | Problem::Garbage(_)
            | Problem::ResponseHeadTooLong
            | Problem::Incomplete(_) => 502,
        }
    }

    /// Whether the upstream failed, so that `on_failure` decides; else the answer is always given.
    pub fn is_upstream(&self) -> bool {
        matches!(self.status(), 502..=504)
    }

    /// The error type of RFC 9209 section 2.3.
    pub fn token(&self) -> &'static str {
        match self {
            Problem::BadRequest(_)
            | Problem::HeaderTimeout
            | Problem::BodyTimeout
            | Problem::TargetTooLong
            | Problem::HeadTooLong
            | Problem::TooManyFields
            | Problem::Tls
            | Problem::Http2 => "http_request_error",
            Problem::Method => "http_request_denied",
            Problem::NoRoute => "destination_not_found",
            Problem::Loop => "proxy_loop_detected",
            Problem::Unavailable => "destination_unavailable",
            Problem::Overloaded | Problem::NoMemory | Problem::Exhausted => "connection_limit_reached",
            Problem::Refused => "connection_refused",
            Problem::ConnectTimeout => "connection_timeout",
            Problem::Broken | Problem::Reset(_) => "connection_terminated",
            Problem::Unprocessed => "destination_unavailable",
            Problem::ResponseTimeout | Problem::Deadline => "http_response_timeout",
            Problem::Garbage(_) => "http_protocol_error",
            Problem::Incomplete(_) => "http_response_incomplete",
            Problem::ResponseHeadTooLong => "http_response_header_section_size",
        }
    }

    /// One line of text for whoever meets it.
    pub fn text(&self) -> &'static str {
        match self {
            Problem::BadRequest(why) => why,
            Problem::HeaderTimeout => "the request's head did not come within header_timeout",
            Problem::BodyTimeout => "the request's body stopped for longer than body_idle",
            Problem::TargetTooLong => "the request's target is longer than max_target",
            Problem::HeadTooLong => "the request's head is longer than max_header",
            Problem::TooManyFields => "the request's head has more than 256 fields",
            Problem::Tls => {
                "the client speaks TLS, and plain HTTP is served here; use http:// or end TLS before this proxy"
            }
            Problem::Http2 => "the preface of HTTP/2 behind a request of HTTP/1: it begins a connection or none",
            Problem::Method => "CONNECT is not served here",
            Problem::NoRoute => "no route matches this host and path",
            Problem::Loop => "this is a proxy: its upstream's address leads to a proxy, perhaps in a ring",
            Problem::Unavailable => "no replica became available in time",
            Problem::Overloaded => "too many requests wait for a replica",
            Problem::NoMemory => "requests hold as much memory as server.max_buffered allows",
            Problem::Exhausted => "the proxy has no descriptor or port left for another connection",
            Problem::Refused => "no replica accepted a connection",
            Problem::ConnectTimeout => "no replica accepted a connection in time",
            Problem::Broken => "the replica closed the connection without a response",
            Problem::Unprocessed => "no replica took the request: each refused its stream or was going away",
            Problem::Reset(_) => "the replica reset the request's stream",
            Problem::Deadline => "the call's grpc-timeout passed",
            Problem::ResponseTimeout => "the replica did not respond within response_timeout",
            Problem::Garbage(why) | Problem::Incomplete(why) => why,
            Problem::ResponseHeadTooLong => "the response's head is longer than max_header",
        }
    }

    /// Whether the client's connection may go on after it. A refusal for load closes nothing that is in order: a flood would
    /// come back as new connections.
    pub(super) fn spares_connection(&self) -> bool {
        *self == Problem::Overloaded
    }

    /// The whole answer. `head`: it answers a HEAD and has no body. `keep`: the connection goes on.
    pub(super) fn write(&self, head: bool, keep: bool, out: &mut Vec<u8>) {
        let status = self.status();
        let text = self.text();
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        let mut answer = String::with_capacity(320);
        let _ = write!(
            answer,
            "HTTP/1.1 {status} {reason}\r\nProxy-Status: evenkeel; error={}; details=\"{text}\"\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
            self.token(),
            text.len() + 1,
        );
        if *self == Problem::Method {
            let _ = write!(answer, "Allow: {ALLOWED}\r\n");
        }
        answer.push_str(if keep { "\r\n" } else { "Connection: close\r\n\r\n" });
        if !head {
            answer.push_str(text);
            answer.push('\n');
        }
        out.extend_from_slice(answer.as_bytes());
    }
}

/// What of a request its answer depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// It is a HEAD, whose answer has no body.
    pub(super) head: bool,
    /// It is a call of gRPC.
    pub(super) grpc: bool,
}

impl Asked {
    pub(super) fn of(head: &RequestHead<'_>) -> Self {
        Asked { head: head.is_head(), grpc: head.is_grpc() }
    }
}

impl Problem {
    /// The status of a call of gRPC (its "Status codes and their use in gRPC"), after what clients make of the statuses of
    /// HTTP.
    fn grpc_status(&self) -> u8 {
        const DEADLINE_EXCEEDED: u8 = 4;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        match self {
            Problem::ResponseTimeout | Problem::Deadline => DEADLINE_EXCEEDED,
            Problem::Overloaded | Problem::NoMemory => RESOURCE_EXHAUSTED,
            Problem::NoRoute => UNIMPLEMENTED,
            problem if problem.status() < 500 => INTERNAL,
            Problem::Garbage(_) | Problem::ResponseHeadTooLong => INTERNAL,
            _ => UNAVAILABLE,
        }
    }

    /// The code that ends a stream of which the client got a part.
    pub(super) fn code(&self) -> Code {
        match self {
            Problem::Reset(code) => *code,
            _ => Code::INTERNAL,
        }
    }

    /// The head of the answer to a client of HTTP/2, and its body.
    pub(super) fn to_http2(&self, grpc: bool) -> (Response<()>, String) {
        let mut response = Response::new(());
        let text = self.text();
        let details = format!("evenkeel; error={}; details=\"{text}\"", self.token());
        let fields = response.headers_mut();
        // The texts are ours, and plain.
        fields.extend(HeaderValue::try_from(details).ok().map(|value| (PROXY_STATUS, value)));
        if grpc {
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            fields.insert("grpc-status", HeaderValue::from(u16::from(self.grpc_status())));
            fields.insert("grpc-message", HeaderValue::from_static(text));
            return (response, String::new());
        }
        let body = format!("{text}\n");
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if *self == Problem::Method {
            fields.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
        }
        *response.status_mut() = http::StatusCode::from_u16(self.status()).unwrap_or(http::StatusCode::BAD_GATEWAY);
        (response, body)
    }
}

/// RFC 9209.
const PROXY_STATUS: header::HeaderName = header::HeaderName::from_static("proxy-status");

/// What is served beside CONNECT.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TargetTooLong => Problem::TargetTooLong,
            Refusal::HeadTooLong => Problem::HeadTooLong,
            Refusal::TooManyFields => Problem::TooManyFields,
            Refusal::Tls => Problem::Tls,
            Refusal::Control => Problem::BadRequest("a field of the request's head has a control character"),
            Refusal::LineEnd => Problem::BadRequest("a line of the request's head does not end in CRLF"),
            Refusal::RequestLine => Problem::BadRequest("the request line has a byte that does not belong there"),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Http2 => Problem::Http2,
            Fault::TooMany => Problem::TooManyFields,
            fault => Problem::BadRequest(fault.reason()),
        }
    }
}
