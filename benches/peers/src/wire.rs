//! HTTP/1.1 as the load and the origin need it: heads by `httparse`, bodies skipped, nothing kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// Fields a head may have.
const FIELDS: usize = 64;

/// A head is refused beyond this: what is measured here sends a few hundred bytes.
const MAX_HEAD: usize = 64 * 1024;

thread_local! {
    /// One read buffer for all connections of a thread, so that 10,000 idle ones cost the load nothing.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// A connection, from either end.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Read and not yet used: the beginning of the next head.
    rest: Vec<u8>,
}

/// What a head says that counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status of a response; 0 of a request.
    pub status: u16,
    /// Target of a request; empty for a response.
    pub target: String,
    /// The connection stays open after this message.
    pub keep: bool,
    /// Bytes of its body, framing of chunks included.
    pub length: u64,
    body: Body,
}

impl Head {
    /// Of a response with a body of known length.
    pub fn answered(status: u16, length: u64) -> Head {
        Head { status, target: String::new(), keep: true, length, body: Body::Length(length) }
    }
}

/// A head and its length in bytes, or nothing yet.
type Parsed = io::Result<Option<(Head, usize)>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    ToClose,
}

impl Wire {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Wire::new(stream))
    }

    /// Takes over an accepted connection.
    pub fn new(stream: TcpStream) -> Wire {
        Wire { stream, rest: Vec::new() }
    }

    /// Sends all of it.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next response, its body left in `body` or dropped. Interim responses are passed over.
    pub async fn response(&mut self, body: Option<&mut Vec<u8>>) -> io::Result<Head> {
        loop {
            let mut head = self.head(parse_response).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if head.status >= 200 {
                head.length = self.body(head.body, body).await?;
                return Ok(head);
            }
        }
    }

    /// The next request, its body read and dropped; `None` when the client closed between two requests.
    pub async fn request(&mut self) -> io::Result<Option<Head>> {
        let Some(mut head) = self.head(parse_request).await? else { return Ok(None) };
        head.length = self.body(head.body, None).await?;
        Ok(Some(head))
    }

    /// Closes with a reset, as the kernel does for a process that was killed with data unread.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Ends what is sent.
    pub async fn shutdown(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Waits until the other side has closed; for ever if it sends something instead.
    pub async fn left(&self) {
        if self.stream.peek(&mut [0]).await.is_ok_and(|length| length > 0) {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the other side closes.
    pub async fn closed(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {
            self.rest.clear();
        }
        Ok(())
    }

    async fn head(&mut self, parse: fn(&[u8]) -> Parsed) -> io::Result<Option<Head>> {
        loop {
            if !self.rest.is_empty()
                && let Some((head, length)) = parse(&self.rest)?
            {
                self.rest.drain(..length);
                return Ok(Some(head));
            }
            if self.rest.len() > MAX_HEAD {
                return Err(wrong("a head of over 64 KiB"));
            }
            if self.fill().await? == 0 {
                return if self.rest.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads a body, keeps it where that is asked for (the framing of chunks with it), and returns its length.
    async fn body(&mut self, body: Body, mut kept: Option<&mut Vec<u8>>) -> io::Result<u64> {
        let mut chunks = Chunks::default();
        let mut length = 0;
        loop {
            let used = match body {
                Body::Length(whole) => self.rest.len().min((whole - length).try_into().unwrap_or(usize::MAX)),
                Body::Chunked => chunks.skip(&self.rest)?,
                Body::ToClose => self.rest.len(),
            };
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&self.rest[..used]);
            }
            self.rest.drain(..used);
            length += used as u64;
            if chunks.done || body == Body::Length(length) {
                return Ok(length);
            }
            if self.fill().await? == 0 {
                return if body == Body::ToClose { Ok(length) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads what is there; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        let Wire { stream, rest } = self;
        poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                Pin::new(&mut *stream).poll_read(cx, &mut buffer).map_ok(|()| {
                    rest.extend_from_slice(buffer.filled());
                    buffer.filled().len()
                })
            })
        })
        .await
    }
}

fn parse_response(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(wrong)? else { return Ok(None) };
    let status = response.code.unwrap_or(0);
    let bodiless = status < 200 || status == 204 || status == 304;
    let (body, keep) = framing(response.headers, response.version, Body::ToClose)?;
    let body = if bodiless { Body::Length(0) } else { body };
    Ok(Some((Head { status, target: String::new(), keep: keep && body != Body::ToClose, length: 0, body }, length)))
}

fn parse_request(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(wrong)? else { return Ok(None) };
    let (body, keep) = framing(request.headers, request.version, Body::Length(0))?;
    Ok(Some((Head { status: 0, target: request.path.unwrap_or("/").to_owned(), keep, length: 0, body }, length)))
}

fn framing(fields: &[httparse::Header<'_>], version: Option<u8>, default: Body) -> io::Result<(Body, bool)> {
    let (mut body, mut keep) = (default, version == Some(1));
    for field in fields {
        let value = std::str::from_utf8(field.value).unwrap_or("");
        if field.name.eq_ignore_ascii_case("content-length") {
            body = Body::Length(value.parse().map_err(wrong)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunked;
        } else if field.name.eq_ignore_ascii_case("connection") {
            keep = if value.eq_ignore_ascii_case("close") {
                false
            } else {
                keep || value.eq_ignore_ascii_case("keep-alive")
            };
        }
    }
    Ok((body, keep))
}

fn wrong(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// Where in a chunked body the bytes are.
#[derive(Debug, Default)]
struct Chunks {
    /// Bytes of the present chunk, and its line end, still to come.
    left: usize,
    /// The last chunk was seen; an empty line ends the trailers.
    last: bool,
    done: bool,
}

impl Chunks {
    /// How many of these bytes belong to the body and are whole enough to be passed over.
    fn skip(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while !self.done {
            let step = self.left.min(bytes.len() - at);
            (at, self.left) = (at + step, self.left - step);
            let Some(end) = bytes[at..].iter().position(|b| *b == b'\n') else { break };
            if self.left > 0 {
                break;
            }
            let line = std::str::from_utf8(&bytes[at..at + end]).map_err(wrong)?.trim_end_matches('\r');
            at += end + 1;
            if self.last {
                self.done = line.is_empty();
                continue;
            }
            let size = line.split(';').next().unwrap_or("").trim();
            let size = usize::from_str_radix(size, 16).map_err(wrong)?;
            (self.last, self.left) = (size == 0, if size == 0 { 0 } else { size + 2 });
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_its_framing_and_whether_the_connection_stays() {
        let parse = |text: &str| parse_response(text.as_bytes()).unwrap().map(|(head, _)| (head.body, head.keep));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Some((Body::Length(5), true)));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Some((Body::Chunked, true)));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n"), Some((Body::ToClose, false)));
        assert_eq!(parse("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), Some((Body::Length(0), false)));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Le"), None);
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut() {
        let whole = b"5\r\nhello\r\n3;x=y\r\n\r\n\n\r\n0\r\nTrailer: x\r\n\r\nnext";
        for cut in 0..whole.len() {
            let mut chunks = Chunks::default();
            let first = chunks.skip(&whole[..cut]).unwrap();
            let second = chunks.skip(&whole[first..]).unwrap();
            assert!(chunks.done, "cut at {cut}");
            assert_eq!(&whole[first + second..], b"next", "cut at {cut}");
        }
    }
}
