//! What a request costs in memory traffic: allocations, counted exactly, so that one more is seen where a stopwatch on a
//! busy machine would see nothing.
//!
//! The proxy runs in this process as it is shipped; its client and its replica are threads that allocate nothing. One
//! test only: the count is the whole process's.

#![allow(clippy::disallowed_methods)] // tests live in real time

use evenkeel::config::Config;
use evenkeel::server::{self, Source};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests of each kind that are counted. The median counts: what happens once in a while, a report to the pool for
/// instance, happens in few of them, and in how many depends on the machine.
const REQUESTS: usize = 1001;

/// Requests ahead of those: buffers grow, connections are opened and kept, and the ring of a thousand remembered requests
/// fills.
const WARM: usize = 1200;

/// How much more than what is written here is too much.
const GROWTH: f64 = 1.1;

/// A kind of request, and the allocations that one of it takes.
struct Kind {
    name: &'static str,
    request: Vec<u8>,
    /// Each comes over a connection of its own.
    once: bool,
    allocations: usize,
}

fn kinds() -> Vec<Kind> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n").into_bytes();
    let post =
        [b"POST /0 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4096\r\n\r\n".as_slice(), &[b'x'; 4096]].concat();
    let chunks =
        b"POST /0 HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
    let new = b"GET /0 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n".to_vec();
    let kind = |name, request, allocations| Kind { name, request, once: false, allocations };
    vec![
        kind("an empty GET", get("/0"), 1),
        kind("1 KiB", get("/1024"), 1),
        kind("64 KiB", get("/65536"), 3),
        kind("a POST of 4 KiB", post, 1),
        kind("a POST in chunks", chunks, 1),
        Kind { once: true, ..kind("a new connection", new, 12) },
    ]
}

#[test]
fn a_request_takes_no_more_allocations_than_are_written_here() {
    let replica = TcpListener::bind("127.0.0.1:0").unwrap();
    let replica_address = replica.local_addr().unwrap();
    std::thread::spawn(move || serve(&replica));
    let proxy = free_address();
    // Probes seldom enough to be none while requests are counted.
    let text = format!(
        "[server]\nlisten = \"{proxy}\"\nadmin = \"\"\nthreads = 1\n\
         [upstream.app]\naddress = \"{replica_address}\"\nprobe.interval = \"1h\"\n"
    );
    let config = Config::parse(&text, "proxy.toml", &|_| None).unwrap();
    std::thread::spawn(move || server::run(config, None, Source { path: None }).unwrap());
    let mut client = connect(proxy);
    let mut buffer = vec![0; 128 * 1024];
    let mut report = String::new();
    let mut grown = false;
    for kind in kinds() {
        let mut ask = || {
            if kind.once {
                client = TcpStream::connect(proxy).unwrap();
            }
            client.write_all(&kind.request).unwrap();
            read_answer(&mut client, &mut buffer);
        };
        (0..WARM).for_each(|_| ask());
        let mut counts = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let region = Region::new(ALLOCATOR);
            ask();
            let change = region.change();
            counts.push((change.allocations + change.reallocations, change.bytes_allocated));
        }
        counts.sort_unstable();
        let (allocations, bytes) = counts[REQUESTS / 2];
        grown |= allocations as f64 > kind.allocations as f64 * GROWTH;
        report += &format!("{}: {allocations} allocations ({bytes} bytes), of {}\n", kind.name, kind.allocations);
        if kind.once {
            client = TcpStream::connect(proxy).unwrap();
        }
    }
    print!("{report}");
    assert!(!grown, "a tenth more than is written here:\n{report}");
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

fn connect(proxy: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + testbed::PATIENCE;
    loop {
        match TcpStream::connect(proxy) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "the proxy does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads one response that has a length.
fn read_answer(client: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let count = client.read(&mut buffer[filled..]).unwrap();
        assert!(count > 0, "the answer ends: {}", buffer[..filled.min(200)].escape_ascii());
        filled += count;
        if let Some(end) = find(&buffer[..filled], b"\r\n\r\n") {
            assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", buffer[..end].escape_ascii());
            if filled >= end + 4 + number_after(&buffer[..end], b"Content-Length: ") {
                return;
            }
        }
    }
}

/// A replica that answers `/N` with N bytes.
fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        std::thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    let mut out = Vec::with_capacity(128 * 1024);
    loop {
        let count = stream.read(&mut buffer[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let Some(end) = find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let head = &buffer[..end];
        let whole = match find(head, b"chunked") {
            Some(_) => buffer[..filled].ends_with(b"0\r\n\r\n"),
            None => filled >= end + 4 + number_after(head, b"Content-Length: "),
        };
        if whole {
            let length = number_after(head, b" /");
            out.clear();
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            out.resize(out.len() + length, b'x');
            stream.write_all(&out)?;
            filled = 0;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The number behind `before`; 0 where there is none.
fn number_after(bytes: &[u8], before: &[u8]) -> usize {
    let Some(at) = find(bytes, before) else { return 0 };
    let digits = bytes[at + before.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
