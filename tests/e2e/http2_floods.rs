//! What a hostile client of HTTP/2 sends, frame by frame, and that other clients do not notice.

use crate::{Bed, serve};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{Http2, Loopback, Network, ProxyConfig, eventually, request, resident};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const PROTOCOL_ERROR: u32 = 1;
const STREAM_CLOSED: u32 = 5;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

/// The same with POST.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A connection whose frames are written by hand.
fn raw(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// How a connection ended that the proxy closed: the code of its GOAWAY, or none if it was cut without one.
#[derive(Debug, PartialEq)]
enum End {
    GoAway(u32),
    Cut,
    /// It takes everything.
    Open,
}

/// Sends what `next` makes until the connection ends, for some seconds at most.
fn flood(to: SocketAddr, mut next: impl FnMut(u32) -> Vec<u8>) -> End {
    let mut stream = raw(to);
    let mut reader = stream.try_clone().unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let end = read_to_end(&mut reader);
            ended.store(true, Ordering::Relaxed);
            end
        });
        let began = Instant::now();
        for n in 0.. {
            if ended.load(Ordering::Relaxed) || began.elapsed() > Duration::from_secs(8) {
                break;
            }
            if stream.write_all(&next(n)).is_err() {
                break;
            }
        }
        // Whoever has not been cut off is let go; what was said before is read all the same.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        reading.join().unwrap()
    })
}

/// The frames up to the end: which code ended it.
fn read_to_end(stream: &mut TcpStream) -> End {
    stream.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
    let mut end = None;
    loop {
        let mut header = [0; 9];
        match stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return End::Open,
            Err(_) => return end.unwrap_or(End::Cut),
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).is_err() {
            return end.unwrap_or(End::Cut);
        }
        if header[3] == GOAWAY {
            end = Some(End::GoAway(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]])));
        }
    }
}

/// Runs a flood, and an honest client beside it: every answer must come, and the proxy's memory stay.
fn beside_an_honest_client(bed: &Bed, flood: impl FnOnce(SocketAddr) -> End + Send) -> End {
    let address = bed.proxy.address();
    let pid = bed.proxy.container().pid();
    let client = Http2::connect(address);
    let before = resident(pid);
    let over = AtomicBool::new(false);
    let end = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let end = flood(address);
            over.store(true, Ordering::Relaxed);
            end
        });
        let mut answers = 0;
        while !over.load(Ordering::Relaxed) || answers < 50 {
            let answer = client.ask(request("GET", "/", &[], "")).unwrap();
            assert_eq!(answer.status, 200);
            answers += 1;
        }
        flooding.join().unwrap()
    });
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    end
}

fn bed() -> Bed {
    Bed::with(|c| c.set("server.threads", 1), |head, wire, _| serve(head, wire))
}

// F92
#[test]
fn who_only_makes_work_is_told_to_calm_down() {
    let bed = bed();
    let many = |frame: Vec<u8>| move |_: u32| frame.repeat(100);
    for (name, frames) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 0])),
    ] {
        let end = beside_an_honest_client(&bed, |to| flood(to, many(frames)));
        assert!([End::GoAway(ENHANCE_YOUR_CALM), End::Cut].contains(&end), "{name}: {end:?}");
    }
    assert!(bed.proxy.metric("evenkeel_refused_requests_total", &["reason=\"http_request_error\""]) >= 2.0);
}

// F92
#[test]
fn streams_that_are_reset_at_once_end_their_connection_and_cost_the_replica_little() {
    let bed = bed();
    let rapid = |n: u32| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, GET), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let end = beside_an_honest_client(&bed, |to| flood(to, rapid));
    assert!(matches!(end, End::GoAway(ENHANCE_YOUR_CALM) | End::Cut), "{end:?}");
}

// F92
#[test]
fn fields_without_end_and_empty_data_without_end_end_their_connection() {
    let bed = bed();
    let continuation = |n: u32| match n {
        0 => frame(HEADERS, 0, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'a', 0x01, b'b'].repeat(100)),
    };
    let end = beside_an_honest_client(&bed, |to| flood(to, continuation));
    assert!(matches!(end, End::GoAway(_) | End::Cut), "continuation: {end:?}");
    let empty = |n: u32| match n {
        0 => frame(HEADERS, END_HEADERS, 1, POST),
        _ => frame(DATA, 0, 1, &[]).repeat(100),
    };
    let end = beside_an_honest_client(&bed, |to| flood(to, empty));
    assert!(matches!(end, End::GoAway(_) | End::Cut), "empty data: {end:?}");
}

// F92
#[test]
fn a_small_block_of_many_large_fields_is_too_large() {
    let bed = bed();
    // One entry of 4,000 bytes in the table, and then its index, a thousand times: four million bytes of fields.
    let entry = [&[0x40, 0x01, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000]].concat();
    let bomb = [GET, &entry, &[0xbe; 1000]].concat();
    let send = move |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &bomb);
    let end = beside_an_honest_client(&bed, |to| {
        let mut sent = 0;
        flood(to, |n| {
            sent = n;
            if n < 200 { send(n) } else { vec![] }
        })
    });
    // Each is refused for itself, or the connection is ended for them.
    assert!(matches!(end, End::GoAway(_) | End::Cut), "{end:?}");
    assert_eq!(bed.origin().heads().iter().filter(|head| head.raw.len() > 10_000).count(), 0, "nothing of it went on");
}

// F93
#[test]
fn windows_that_never_open_hold_bounded_memory() {
    let network = Loopback::new();
    let replicas = network.scale("app", &testbed::App::replica(), 1);
    let proxy = crate::start(&network, &ProxyConfig::new(&network, "app").set("server.body_idle", "2s"));
    proxy.wait_up("app", &[replicas[0].address()]);
    let pid = proxy.container().pid();
    let before = resident(pid);
    // `/bytes/1000000` by its path.
    let path = b"/bytes/1000000";
    let get = [&[0x82, 0x86, 0x44, path.len() as u8][..], path, &[0x41, 0x01, b'a']].concat();
    let mut hostile: Vec<TcpStream> = (0..10).map(|_| raw(proxy.address())).collect();
    for stream in &mut hostile {
        stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
        for n in 0..100 {
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get)).unwrap();
        }
    }
    let client = Http2::connect(proxy.address());
    for _ in 0..50 {
        assert_eq!(client.ask(request("GET", "/", &[], "")).unwrap().status, 200);
    }
    let grown = resident(pid).saturating_sub(before);
    // A thousand streams, each with what one read of its response brought.
    assert!(grown < 200 << 20, "{grown} bytes more");
    eventually("their streams are given up after body_idle", || {
        proxy.endpoints("app")[0]["in_flight"].as_u64() == Some(0)
    });
}

// F94
#[test]
fn an_illegal_frame_ends_its_connection_with_the_right_code() {
    let bed = bed();
    let headers = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    for (name, frames, code) in [
        ("data behind the end", [headers.clone(), frame(DATA, 0, 1, b"x")].concat(), STREAM_CLOSED),
        ("fields of the server's stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, GET), PROTOCOL_ERROR),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("data of no stream", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    ] {
        let mut once = Some(frames);
        let end = flood(bed.proxy.address(), |_| {
            std::thread::sleep(Duration::from_millis(5));
            once.take().unwrap_or_default()
        });
        assert_eq!(end, End::GoAway(code), "{name}");
    }
}

// P22
#[test]
fn requests_under_way_on_a_connection_that_ends_have_their_lines_in_the_log() {
    let (_go, gate) = crate::gate();
    let bed = Bed::with(|c| c.set("server.access_log", "all"), move |_, _, _| gate());
    let mut client = raw(bed.proxy.address());
    for stream in [1, 3, 5] {
        client.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)).unwrap();
    }
    eventually("they are under way", || bed.origin().requests() == 3);
    // One that breaks a rule, and so ends.
    client.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2, GET)).unwrap();
    eventually("each has its line", || bed.proxy.lines("request upstream").len() == 3);
    eventually("and is counted", || {
        bed.proxy.metric("evenkeel_requests_total", &["upstream=\"app\"", "code_class=\"none\""]) == 3.0
    });
}
