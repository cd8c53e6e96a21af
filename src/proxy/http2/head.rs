//! Heads of HTTP/2 as HTTP/1 writes them, and back (RFC 9113 section 8.3). Pure.
//!
//! Written as HTTP/1 a head passes the same checks, routes and rules as any other. What only HTTP/1 has is not carried
//! over: fields of one connection stay behind on the way out, and h2 refuses a peer that sends them.

use crate::proxy::answer::Problem;
use crate::proxy::fields::{self, elements};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, request, response, uri};

/// Fields of one connection, which HTTP/2 does not have (RFC 9113 section 8.2.2), and those that are said otherwise.
fn stays_behind(name: &HeaderName, value: &[u8]) -> bool {
    match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "host" => true,
        "te" => !elements(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
        _ => false,
    }
}

/// Writes a client's request as HTTP/1 has it. As an error, what is wrong with it.
pub(super) fn write_request(parts: &request::Parts, out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.clear();
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.uri.path_and_query().map_or("/", uri::PathAndQuery::as_str).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    if let Some(authority) = authority {
        // Two names for one server, of which this one and the replica might each believe another (section 8.3.1).
        if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority)) {
            return Err("Host is not what :authority says");
        }
        line(b"host", authority, out);
    } else {
        hosts.for_each(|host| line(b"host", host.as_bytes(), out));
    }
    // Section 8.2.1: white space around a value is none of it, and there is none.
    let padded = |value: &HeaderValue| value.as_bytes() != fields::trim(value.as_bytes());
    if parts.headers.values().any(padded) {
        return Err("a field's value begins or ends with white space");
    }
    if parts.method == Method::CONNECT && authority.is_none() {
        return Err("CONNECT without :authority");
    }
    for name in parts.headers.keys().filter(|name| *name != header::HOST) {
        if *name == header::COOKIE {
            cookies(&parts.headers, out);
            continue;
        }
        for value in parts.headers.get_all(name) {
            line(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Cookies come one by one, so that they compress well, and mean one field (section 8.2.3).
fn cookies(fields: &HeaderMap, out: &mut Vec<u8>) {
    let mut before: &[u8] = b"cookie: ";
    for value in fields.get_all(header::COOKIE) {
        out.extend_from_slice(before);
        out.extend_from_slice(value.as_bytes());
        before = b"; ";
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a replica's response as HTTP/1 has it.
pub(super) fn write_response(parts: &response::Parts, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    write_fields(&parts.headers, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes fields in lines.
pub(super) fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        line(name.as_str().as_bytes(), value.as_bytes(), out);
    }
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The request that a replica of HTTP/2 gets, from the head that one of HTTP/1 would get.
pub(in crate::proxy) fn request(head: &[u8]) -> Result<Request<()>, Problem> {
    const UNSAYABLE: Problem = Problem::BadRequest("the request's target or host has bytes that HTTP/2 cannot carry");
    let end = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let mut words = head[..end].trim_ascii_end().split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut host: &[u8] = b"";
    let mut request = Request::new(());
    *request.headers_mut() = fields(&head[end..], |name, value| {
        if name.eq_ignore_ascii_case(b"host") {
            host = value;
        }
    });
    *request.method_mut() = Method::from_bytes(method).map_err(|_| UNSAYABLE)?;
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = Some(uri::Authority::try_from(host).map_err(|_| UNSAYABLE)?);
    parts.path_and_query = Some(uri::PathAndQuery::try_from(target).map_err(|_| UNSAYABLE)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| UNSAYABLE)?;
    Ok(request)
}

/// The response that a client of HTTP/2 gets, from lines as HTTP/1 has them.
pub(in crate::proxy) fn response(status: u16, lines: &[u8]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = fields(lines, |_, _| {});
    response
}

/// Trailers, from lines.
pub(in crate::proxy) fn trailers(lines: &[u8]) -> HeaderMap {
    fields(lines, |_, _| {})
}

/// The fields of HTTP/2 that lines stand for; `look` is shown each.
fn fields<'h>(lines: &'h [u8], mut look: impl FnMut(&'h [u8], &'h [u8])) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields::pairs(lines) {
        look(name, value);
        // Both were judged by the rules of HTTP/1, which are the stricter ones.
        let (Ok(name), Ok(field)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else { continue };
        if name == header::TE && !stays_behind(&name, value) {
            map.insert(name, HeaderValue::from_static("trailers"));
        } else if !stays_behind(&name, value) {
            map.append(name, field);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(request: http::request::Builder) -> Result<String, &'static str> {
        let mut out = Vec::new();
        write_request(&request.body(()).unwrap().into_parts().0, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_request_is_written_as_http_1_has_it() {
        let request = Request::post("http://app:80/a?b").header("cookie", "a=1").header("x", "1");
        let request = request.header("cookie", "b=2").header("x", "2").header("host", "APP:80");
        assert_eq!(
            written(request).unwrap(),
            "POST /a?b HTTP/1.1\r\nhost: app:80\r\ncookie: a=1; b=2\r\nx: 1\r\nx: 2\r\n\r\n"
        );
        assert_eq!(written(Request::get("/").header("host", "b")).unwrap(), "GET / HTTP/1.1\r\nhost: b\r\n\r\n");
        assert!(written(Request::get("http://app/").header("host", "b")).is_err());
    }

    #[test]
    fn what_belongs_to_one_connection_of_http_1_stays_behind() {
        let head =
            b"GET /{\"b\"} HTTP/1.1\r\nHost: app:80\r\nTE: gzip, trailers\r\nConnection: TE\r\nTransfer-Encoding: \
                     chunked\r\nUpgrade: websocket\r\nA: 1\r\na: 2\r\n\r\n";
        let request = request(head).unwrap();
        assert_eq!(request.uri(), "http://app:80/{\"b\"}");
        let fields: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("te", &b"trailers"[..]), ("a", b"1"), ("a", b"2")]);
    }

    #[test]
    fn what_http_2_cannot_say_is_refused() {
        for head in ["GET /<a> HTTP/1.1\r\nHost: app\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"] {
            assert!(request(head.as_bytes()).is_err(), "{head}");
        }
    }
}
