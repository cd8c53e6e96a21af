//! The prober against real sockets.

use super::ms;
use crate::clock;
use crate::config;
use crate::pool::ProbeResult;
use crate::probe::{Probe, Prober};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn how(path: Option<&str>) -> config::Probe {
    config::Probe {
        path: path.map(str::to_owned),
        grpc: None,
        protocol: config::Protocol::Http1,
        healthy: [200, 424].into(),
        host: "db-checker".to_owned(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 2,
    }
}

/// The connect may take as long as the probe.
const NO_HURRY: Duration = Duration::MAX;

fn prober() -> Prober {
    Prober::new("test-1")
}

/// Probes `/ping` of a server that does `serve` with its one connection.
async fn probe_http<F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> ProbeResult
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    prober().probe(address, &how(Some("/ping")), NO_HURRY).await
}

/// Probes a server that answers with these bytes and closes.
async fn probe_bytes(bytes: &'static [u8]) -> ProbeResult {
    probe_http(move |mut stream| async move {
        read_request(&mut stream).await;
        // The prober may have had enough before all is written.
        let _ = stream.write_all(bytes).await;
    })
    .await
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "closed within the request");
    }
    String::from_utf8(request).unwrap()
}

#[track_caller]
fn assert_unhealthy(result: &ProbeResult, with: &str) {
    let said = result.to_string();
    assert!(matches!(result, ProbeResult::Unhealthy(_)) && said.contains(with), "{said:?} does not say {with:?}");
}

#[tokio::test]
async fn without_a_path_a_listening_port_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(prober().probe(address, &how(None), NO_HURRY).await, ProbeResult::Passed);
    drop(listener);
    assert_eq!(prober().probe(address, &how(None), NO_HURRY).await, ProbeResult::Refused);
    assert_eq!(prober().probe(address, &how(Some("/ping")), NO_HURRY).await, ProbeResult::Refused);
}

#[tokio::test]
async fn a_healthy_status_passes_and_another_is_named() {
    assert_eq!(probe_bytes(b"HTTP/1.1 200 OK\r\n\r\n").await, ProbeResult::Passed);
    assert_eq!(probe_bytes(b"HTTP/1.0 424 Failed Dependency\r\nA: b\r\n\r\nbody").await, ProbeResult::Passed);
    assert_eq!(probe_bytes(b"HTTP/1.1 200\n\n").await, ProbeResult::Passed);
    assert_unhealthy(&probe_bytes(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await, "status 503");
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(probe_bytes(bytes).await, ProbeResult::Passed);
}

// A16
#[tokio::test]
async fn a_probe_that_is_answered_with_interim_responses_without_end_ends_soon() {
    let began = clock::now();
    let result = probe_http(|mut stream| async move {
        read_request(&mut stream).await;
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_unhealthy(&result, "more than 16 interim responses");
    assert!(began.elapsed() < ms(900), "it took {:?} of a time-out of 1 s", began.elapsed());
}

// U9
#[tokio::test]
async fn a_redirect_names_its_target() {
    let result = probe_bytes(b"HTTP/1.1 301 Moved\r\nlocation:  https://app/ping\r\n\r\n").await;
    assert_unhealthy(&result, "status 301, Location: https://app/ping");
}

// U5
#[tokio::test]
async fn a_port_that_speaks_tls_is_named() {
    // A fatal alert, as OpenSSL sends it to who speaks HTTP.
    assert_unhealthy(&probe_bytes(b"\x15\x03\x01\x00\x02\x02\x46").await, "TLS");
}

#[tokio::test]
async fn what_is_not_an_answer_is_named() {
    assert_unhealthy(&probe_bytes(b"SSH-2.0-OpenSSH_9.2\r\n").await, "not HTTP");
    assert_unhealthy(&probe_bytes(b"HTTP/1.1 OK\r\n\r\n").await, "not HTTP");
    assert_unhealthy(&probe_bytes(b"").await, "closed without an answer");
    assert_unhealthy(&probe_bytes(b"HTTP/1.1 200 OK\r\nA: b").await, "closed without an answer");
    let reset = probe_http(|stream| async move { stream.set_zero_linger().unwrap() }).await;
    assert_unhealthy(&reset, "reset");
}

#[tokio::test]
async fn a_giant_head_is_unhealthy_and_costs_no_memory() {
    static GIANT: [u8; 1 << 20] = {
        let mut bytes = [b'x'; 1 << 20];
        let start = *b"HTTP/1.1 200 OK\r\nA: ";
        let mut i = 0;
        while i < start.len() {
            bytes[i] = start[i];
            i += 1;
        }
        bytes
    };
    assert_unhealthy(&probe_bytes(&GIANT).await, "16 KiB");
}

#[tokio::test]
async fn a_replica_that_says_nothing_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let how = config::Probe { timeout: ms(50), ..how(Some("/ping")) };
    assert_eq!(prober().probe(listener.local_addr().unwrap(), &how, NO_HURRY).await, ProbeResult::TimedOut);
}

// U11
#[tokio::test]
async fn a_connect_that_meets_silence_is_given_up_as_soon_as_it_may_be() {
    // A listener whose queue is full drops the SYN, as an address does that nobody has.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(ms(300), TcpStream::connect(address)).await {
        fillers.push(stream);
    }
    let began = clock::now();
    assert_eq!(prober().probe(address, &how(Some("/ping")), ms(200)).await, ProbeResult::ConnectTimedOut);
    assert!((ms(190)..ms(900)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_probe_says_who_it_is_and_closes_in_order() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let result = probe_http(|mut stream| async move {
        let request = read_request(&mut stream).await;
        // More than is read before the verdict, so that a careless close would be a reset.
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n").await.unwrap();
        stream.write_all(&[b'x'; 9000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let end = stream.read(&mut [0; 16]).await;
        tell.send((request, end.map_err(|e| e.kind()))).unwrap();
    })
    .await;
    assert_eq!(result, ProbeResult::Passed);
    let (request, end) = told.await.unwrap();
    assert_eq!(end, Ok(0), "the replica meets a reset");
    let expected = format!(
        "GET /ping HTTP/1.1\r\nHost: db-checker\r\nUser-Agent: evenkeel-probe/{}\r\nevenkeel-probe: test-1\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(request, expected);
}

#[tokio::test]
async fn another_evenkeel_is_a_ring_but_an_apps_own_508_is_not() {
    let ring = probe_bytes(b"HTTP/1.1 508 Loop Detected\r\nProxy-Status: evenkeel; error=proxy_loop_detected\r\n\r\n");
    let ring = ring.await;
    assert!(ring.is_ring(), "{ring:?}");
    assert_unhealthy(&ring, "ring");
    let own = probe_bytes(b"HTTP/1.1 508 Loop Detected\r\n\r\n").await;
    assert!(!own.is_ring());
    assert_unhealthy(&own, "status 508");
}

/// A server on a thread of its own, which a stop of this test's thread does not stop; it answers after that time.
fn answers_after(delay: Duration) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        std::thread::sleep(delay);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    address
}

/// Probes with a time-out of 300 ms, during which this thread stands still for 700 ms as if stopped.
async fn probe_while_stopped(address: SocketAddr) -> ProbeResult {
    let stop = tokio::spawn(async {
        tokio::time::sleep(ms(100)).await;
        std::thread::sleep(ms(700));
    });
    let how = config::Probe { timeout: ms(300), ..how(Some("/ping")) };
    let result = prober().probe(address, &how, NO_HURRY).await;
    stop.await.unwrap();
    result
}

#[tokio::test]
async fn an_answer_that_came_while_the_process_was_stopped_passes() {
    assert_eq!(probe_while_stopped(answers_after(ms(400))).await, ProbeResult::Passed);
}

#[tokio::test]
async fn a_replica_has_its_full_time_again_after_the_process_was_stopped() {
    assert_eq!(probe_while_stopped(answers_after(ms(900))).await, ProbeResult::Passed);
    assert_eq!(probe_while_stopped(answers_after(ms(5000))).await, ProbeResult::TimedOut);
}
