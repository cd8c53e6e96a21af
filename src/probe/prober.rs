//! One probe: a TCP connect, `GET path`, or a call of gRPC's health service, over a connection of its own that is closed
//! afterwards.

use super::{Probe, http2};
use crate::clock;
use crate::config;
use crate::exhaustion::is_exhaustion;
use crate::pool::{ProbeResult, Unhealthy};
use crate::proxy::PROBE_FIELD;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

/// Of a response's head, and of what is read past it: more than any server sends with its defaults.
const MAX_HEAD: usize = 16 * 1024;

/// Interim responses before the final one: servers send a 103 or two, and an endless stream of them would keep the prober
/// busy until the time-out.
const MAX_INTERIM: usize = 16;

/// Characters of a `Location` that are shown.
const MAX_LOCATION: usize = 200;

/// A timer that fires this late was held up by a stop of the whole process: tokio's are late by 1 ms, and by tens of them
/// on an overloaded host.
const STOPPED: Duration = Duration::from_millis(250);

/// How long a response's rest is awaited, so that the replica meets an ordinary close and no reset.
const LINGER: Duration = Duration::from_secs(1);

/// Tries again so soon when the fault is this host's (no descriptor, no port free).
const LOCAL_RETRY: Duration = Duration::from_millis(50);

/// Probes over the network.
#[derive(Debug)]
pub struct Prober {
    instance: String,
}

impl Prober {
    /// `instance` names this process in the field that marks its probes: letters, digits and dashes.
    pub fn new(instance: impl Into<String>) -> Self {
        Prober { instance: instance.into() }
    }

    /// Asks over a connection that was made.
    async fn ask(&self, stream: &mut TcpStream, path: &str, how: &config::Probe) -> ProbeResult {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: evenkeel-probe/{}\r\n{PROBE_FIELD}: {}\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n",
            how.host,
            env!("CARGO_PKG_VERSION"),
            self.instance
        );
        match exchange(stream, request.as_bytes()).await {
            Ok(head) => head.judge(how),
            Err(cause) => ProbeResult::Unhealthy(cause),
        }
    }
}

impl Probe for Prober {
    async fn probe(&self, address: SocketAddr, how: &config::Probe, connect_within: Duration) -> ProbeResult {
        let patience = how.timeout.min(connect_within);
        let mut deadline = clock::now() + patience;
        let mut stream = match connect(address, &mut deadline, patience).await {
            Ok(stream) => stream,
            Err(failed) => return failed,
        };
        deadline += how.timeout - patience;
        if let Some(asked) = http2::Asked::of(how) {
            let answer = until(&mut deadline, how.timeout, asked.ask(stream, how, &self.instance)).await;
            return answer.unwrap_or(ProbeResult::TimedOut);
        }
        let Some(path) = &how.path else { return ProbeResult::Passed };
        let answer = until(&mut deadline, how.timeout, self.ask(&mut stream, path, how)).await;
        tokio::spawn(linger(stream));
        answer.unwrap_or(ProbeResult::TimedOut)
    }
}

/// The result of `future`, unless the deadline passes. It is put off by the whole `patience` where it was this process that
/// did not run: the replica has had no chance to answer then.
async fn until<T>(deadline: &mut Instant, patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            result = &mut future => return Some(result),
            () = sleep_until((*deadline).into()) => {}
        }
        // The answer may lie in the socket: the timers and the sockets are told of in one go, the sockets not first.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            result = &mut future => return Some(result),
            () = std::future::ready(()) => {}
        }
        let now = clock::now();
        if now.saturating_duration_since(*deadline) < STOPPED {
            return None;
        }
        *deadline = now + patience;
    }
}

/// Connects; tries again while this host itself is out of descriptors or ports, as that is no replica's fault.
async fn connect(address: SocketAddr, deadline: &mut Instant, patience: Duration) -> Result<TcpStream, ProbeResult> {
    loop {
        match until(deadline, patience, TcpStream::connect(address)).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) if !is_exhaustion(&error) => return Err(refused_or(error)),
            Some(Err(_)) if clock::now() + LOCAL_RETRY >= *deadline => return Err(ProbeResult::Exhausted),
            Some(Err(_)) => sleep(LOCAL_RETRY).await,
            None => return Err(ProbeResult::ConnectTimedOut),
        }
    }
}

fn refused_or(error: io::Error) -> ProbeResult {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ProbeResult::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ProbeResult::Unreachable,
        // The kernel gave up before we did.
        ErrorKind::TimedOut => ProbeResult::ConnectTimedOut,
        _ => ProbeResult::Unhealthy(Unhealthy::Broken(format!("connect: {error}"))),
    }
}

/// A final response's status, where it redirects to, and whether an Evenkeel sent it.
struct Head {
    status: u16,
    location: Option<String>,
    proxied: bool,
}

impl Head {
    fn judge(self, how: &config::Probe) -> ProbeResult {
        if self.status == 508 && self.proxied {
            ProbeResult::Unhealthy(Unhealthy::Ring)
        } else if how.healthy.contains(self.status) {
            ProbeResult::Passed
        } else {
            ProbeResult::Unhealthy(Unhealthy::Status { code: self.status, location: self.location })
        }
    }
}

/// Sends the request and reads the final response's head.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<Head, Unhealthy> {
    // A replica that refuses early may have answered all the same: what counts is what can be read.
    let sent = stream.write_all(request).await;
    let mut buffer = Vec::with_capacity(1024);
    let mut interim = 0;
    loop {
        while let Some(end) = find_head_end(&buffer) {
            let head = parse_head(&buffer[..end]).ok_or(Unhealthy::NotHttp)?;
            if head.status >= 200 {
                return Ok(head);
            }
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(Unhealthy::Interim(MAX_INTERIM));
            }
            buffer.drain(..end);
        }
        if buffer.len() >= MAX_HEAD {
            return Err(Unhealthy::HeadTooLong(MAX_HEAD));
        }
        let read = (&mut *stream).take((MAX_HEAD - buffer.len()) as u64).read_buf(&mut buffer).await;
        match read {
            Ok(0) => return Err(sent.err().map_or(Unhealthy::Closed, |e| Unhealthy::Broken(e.to_string()))),
            // The content type of TLS alerts, and the version of all of them.
            Ok(_) if buffer.starts_with(&[0x15, 0x03]) => return Err(Unhealthy::Tls),
            Ok(_) if !b"HTTP/1.".starts_with(&buffer[..buffer.len().min(7)]) => return Err(Unhealthy::NotHttp),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(Unhealthy::Reset),
            Err(e) => return Err(Unhealthy::Broken(e.to_string())),
        }
    }
}

/// Just past the empty line that ends a head, with CRLF or the bare LF that some servers send.
fn find_head_end(bytes: &[u8]) -> Option<usize> {
    let ends = memchr::memchr_iter(b'\n', bytes).map(|lf| lf + 1);
    ends.into_iter().find_map(|end| match &bytes[end..] {
        [b'\r', b'\n', ..] => Some(end + 2),
        [b'\n', ..] => Some(end + 1),
        _ => None,
    })
}

fn parse_head(head: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1).filter(|code| code.len() == 3)?.parse().ok()?;
    let mut head = Head { status, location: None, proxied: false };
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("proxy-status") {
            head.proxied |= value.to_ascii_lowercase().contains("evenkeel");
        } else if name.eq_ignore_ascii_case("location") {
            let shown = value.trim().chars().filter(|c| !c.is_control()).take(MAX_LOCATION);
            head.location = Some(shown.collect());
        }
    }
    Some(head)
}

/// Reads what is left, up to a bound: closing a socket that holds unread bytes would reset it.
async fn linger(mut stream: TcpStream) {
    let mut scratch = [0; 4096];
    let rest = async {
        let mut left = MAX_HEAD;
        while let Ok(read @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(LINGER, rest).await;
}
