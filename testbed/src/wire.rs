//! HTTP/1 by hand, for both ends of a connection: what is sent is what the test wrote, and what came is told exactly,
//! down to how the connection ended.
//!
//! Deliberately not a client: no pool, no redirects, no repair of what is malformed.

use socket2::{Domain, SockRef, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One TCP connection that a test holds by its bytes.
#[derive(Debug)]
pub struct Wire {
    /// `None` once this side has closed it.
    stream: Option<TcpStream>,
    received: Vec<u8>,
    patience: Duration,
    /// Set from outside when nobody wants this connection any more.
    stop: Arc<AtomicBool>,
}

/// How the other side's half of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN.
    Closed,
    /// RST.
    Reset,
    /// Not at all: nothing came for as long as the test waited.
    Silent,
}

/// The first line and the fields of a message, as they came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The request or status line.
    pub first: String,
    /// The fields in order, names in their own case, values trimmed.
    pub fields: Vec<(String, String)>,
    /// Every byte, to the blank line's end.
    pub raw: Vec<u8>,
}

/// A whole response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its head.
    pub head: Head,
    /// Its body, chunks put together.
    pub body: Vec<u8>,
}

/// What came of a message that did not come whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Cut {
    /// The head, if that was whole.
    pub head: Option<Head>,
    /// What came of the body; of the head where there is none.
    pub body: Vec<u8>,
    /// How it stopped.
    pub ending: Ending,
}

// Shown when a test fails: readable, and short whatever the body was.

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.raw))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.head, excerpt(&self.body))
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {:?} {}", self.ending, self.head, excerpt(&self.body))
    }
}

fn excerpt(body: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
    if body.len() <= 200 { format!("{shown:?}") } else { format!("{shown:?}… ({} bytes)", body.len()) }
}

impl Head {
    /// The value of the first field of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All values of fields of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// A request's method.
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// A request's target.
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    fn parse(raw: Vec<u8>) -> Head {
        let text = String::from_utf8_lossy(&raw);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let field = |l: &str| l.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
        let fields = lines.filter_map(field).collect();
        Head { first, fields, raw }
    }

    fn chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length").and_then(|v| v.parse().ok())
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// Which replica answered, by its own word.
    pub fn replica(&self) -> &str {
        self.get("x-replica").unwrap_or_default()
    }
}

impl Wire {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens; see [`Wire::try_connect`].
    #[track_caller]
    pub fn connect(to: SocketAddr) -> Wire {
        Wire::try_connect(to).unwrap_or_else(|e| panic!("cannot connect to {to}: {e}"))
    }

    /// Connects.
    ///
    /// # Errors
    /// Those of the connect, which may take five seconds.
    pub fn try_connect(to: SocketAddr) -> io::Result<Wire> {
        Ok(Wire::over(TcpStream::connect_timeout(&to, Duration::from_secs(5))?))
    }

    /// Connects from this address of the host's, as a client of its own.
    ///
    /// # Errors
    /// Those of the connect, which may take five seconds.
    pub fn try_connect_from(from: IpAddr, to: SocketAddr) -> io::Result<Wire> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
        Ok(Wire::over(socket.into()))
    }

    /// A wire over a connection that is there, such as another handle on a wire's own: one to read, one to write.
    pub fn over(stream: TcpStream) -> Wire {
        Wire::until(stream, Arc::default())
    }

    /// A wire that reads as closed once `stop` is set.
    pub(crate) fn until(stream: TcpStream, stop: Arc<AtomicBool>) -> Wire {
        let _ = stream.set_nodelay(true);
        Wire { stream: Some(stream), received: vec![], patience: Duration::from_secs(20), stop }
    }

    /// How long reads and writes wait before they call the other side silent; 20 s unless changed.
    pub fn patience(mut self, patience: Duration) -> Wire {
        self.patience = patience;
        self
    }

    /// Changes [`Wire::patience`] in place.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The socket, for options and addresses; `None` once this side has closed it.
    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Writes all of it.
    ///
    /// # Panics
    /// When the other side does not take it; see [`Wire::try_send`].
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("cannot send: {e}"));
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// A reset, a closed connection, or `TimedOut`/`WouldBlock` when nothing was taken for as long as patience lasts.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(ErrorKind::NotConnected.into()) };
        stream.set_write_timeout(Some(self.patience))?;
        stream.write_all(bytes.as_ref())
    }

    /// Sends a GET as a browser would, on a connection to be kept.
    #[track_caller]
    pub fn get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
    }

    /// Reads one response; a 1xx is one by itself.
    ///
    /// # Errors
    /// What came, where it is not a whole one.
    pub fn response(&mut self) -> Result<Response, Cut> {
        self.response_to("GET")
    }

    /// Reads one response to a request of this method (a HEAD's has no body).
    ///
    /// # Errors
    /// What came, where it is not a whole one.
    pub fn response_to(&mut self, method: &str) -> Result<Response, Cut> {
        let head = self.head()?;
        let status = head.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        let body = if bodiless {
            vec![]
        } else if head.chunked() || head.length().is_some() {
            self.body(&head)?
        } else {
            self.rest(&head)?
        };
        Ok(Response { status, head, body })
    }

    /// Reads a head, to the blank line.
    ///
    /// # Errors
    /// What came, where it is not a whole one.
    pub fn head(&mut self) -> Result<Head, Cut> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                return Ok(Head::parse(self.received.drain(..end + 4).collect()));
            }
            if let Err(ending) = self.fill() {
                return Err(Cut { head: None, body: std::mem::take(&mut self.received), ending });
            }
        }
    }

    /// Reads the body that `head` announces by length or chunks; nothing where it announces none.
    ///
    /// # Errors
    /// What came, where it is not whole.
    pub fn body(&mut self, head: &Head) -> Result<Vec<u8>, Cut> {
        let mut body = vec![];
        let done =
            if head.chunked() { self.chunks(&mut body) } else { self.exactly(head.length().unwrap_or(0), &mut body) };
        match done {
            Ok(()) => Ok(body),
            Err(ending) => Err(Cut { head: Some(head.clone()), body, ending }),
        }
    }

    /// Reads the next chunk of a body in chunks, or its end, `None`.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, Ending> {
        let mut chunk = vec![];
        Ok(self.chunk_into(&mut chunk)?.then_some(chunk))
    }

    /// Reads whatever comes next, at least a byte.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn some(&mut self) -> Result<Vec<u8>, Ending> {
        if self.received.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Errors
    /// How it ended before.
    pub fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Ending> {
        let mut bytes = Vec::with_capacity(count);
        self.exactly(count, &mut bytes).map(|()| bytes)
    }

    /// Reads to the end of the connection and tells how it ended, and what came until then.
    pub fn ending(&mut self) -> (Ending, Vec<u8>) {
        let ending = loop {
            if let Err(ending) = self.fill() {
                break ending;
            }
        };
        (ending, std::mem::take(&mut self.received))
    }

    /// Sends FIN and goes on reading.
    pub fn half_close(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Closes the connection as a process does that ends in good order. What the other side sent and nobody read
    /// makes it a reset, so read first where that matters.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Closes the connection with RST, at once.
    pub fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether this side has closed it.
    pub fn finished(&self) -> bool {
        self.stream.is_none()
    }

    fn rest(&mut self, head: &Head) -> Result<Vec<u8>, Cut> {
        match self.ending() {
            (Ending::Closed, body) => Ok(body),
            (ending, body) => Err(Cut { head: Some(head.clone()), body, ending }),
        }
    }

    fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> Result<(), Ending> {
        let target = into.len() + count;
        loop {
            let take = (target - into.len()).min(self.received.len());
            into.extend_from_slice(&self.received[..take]);
            self.received.drain(..take);
            if into.len() == target {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn chunks(&mut self, into: &mut Vec<u8>) -> Result<(), Ending> {
        while self.chunk_into(into)? {}
        Ok(())
    }

    /// Reads a chunk; false when it was the last one, which is empty.
    fn chunk_into(&mut self, into: &mut Vec<u8>) -> Result<bool, Ending> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        // What is not a size ends the body where it stands; the caller sees it as cut.
        let Ok(size) = usize::from_str_radix(digits, 16) else { return Err(Ending::Closed) };
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Ok(false);
        }
        self.exactly(size, into)?;
        self.line()?;
        Ok(true)
    }

    fn line(&mut self) -> Result<String, Ending> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    /// Reads more, at least a byte.
    fn fill(&mut self) -> Result<(), Ending> {
        /// How long a stop may go unnoticed.
        const SLICE: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + self.patience;
        let mut buffer = [0; 64 * 1024];
        loop {
            let Some(stream) = &mut self.stream else { return Err(Ending::Closed) };
            let left = deadline.saturating_duration_since(Instant::now());
            if self.stop.load(Ordering::Relaxed) {
                return Err(Ending::Closed);
            } else if left.is_zero() || stream.set_read_timeout(Some(left.min(SLICE))).is_err() {
                return Err(Ending::Silent);
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Err(Ending::Closed),
                Ok(n) => {
                    self.received.extend_from_slice(&buffer[..n]);
                    return Ok(());
                }
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Err(Ending::Reset),
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
