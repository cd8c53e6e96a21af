//! The loop under a paused clock against a probe that is told what to say, and the prober against real sockets.

use super::*;
use crate::config::Host;
use crate::discovery::tests::{ip, upstream};
use crate::pool::{EndpointView, Resolution};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

// ---- The loop.

/// Takes a while, says the same each time for an address, and remembers when it was asked.
#[derive(Default)]
struct Scripted {
    takes: Duration,
    failing: Mutex<HashMap<SocketAddr, ProbeResult>>,
    asked: Mutex<Vec<(SocketAddr, Instant)>>,
    under_way: Mutex<usize>,
    most: Mutex<usize>,
}

impl Probe for Scripted {
    async fn probe(&self, address: SocketAddr, _: &config::Probe, _: Duration) -> ProbeResult {
        self.asked.lock().push((address, clock::now()));
        *self.under_way.lock() += 1;
        let now = *self.under_way.lock();
        let most = (*self.most.lock()).max(now);
        *self.most.lock() = most;
        tokio::time::sleep(self.takes).await;
        *self.under_way.lock() -= 1;
        self.failing.lock().get(&address).cloned().unwrap_or(ProbeResult::Passed)
    }
}

fn serving(replicas: u8) -> Arc<Upstream> {
    let upstream = upstream(Host::Name("db-checker".to_owned()), 8080);
    let all: Vec<_> = (1..=replicas).map(ip).collect();
    upstream.apply(|pool, now| pool.resolved(&Resolution::Addresses(all), &[], now, now));
    upstream
}

/// The load of a request that is alone.
const LOAD: crate::pool::Load = crate::pool::Load { in_flight: 1, at_end: 1, limit: u32::MAX };

fn views(upstream: &Arc<Upstream>) -> Vec<EndpointView> {
    upstream.apply(|pool, now| pool.endpoints(now))
}

/// Lets virtual time pass until that is so; a minute is for ever.
async fn until(condition: impl Fn() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now() - began < Duration::from_secs(60), "it never came true");
        tokio::time::sleep(ms(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn new_replicas_are_proven_at_once_and_then_probed_each_interval() {
    let upstream = serving(3);
    let probe = Arc::new(Scripted { takes: ms(5), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    assert_eq!(probe.asked.lock().len(), 3, "each once");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = probe.asked.lock().len();
    assert!((30..=36).contains(&asked), "{asked} probes of 3 replicas in 10 intervals");
}

// D4
#[tokio::test(start_paused = true)]
async fn a_probe_that_may_end_a_suspicion_does_not_wait_for_one_that_may_not() {
    let upstream = serving(1);
    let probe = Arc::new(Scripted { takes: ms(900), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    let asked = || probe.asked.lock().len();
    let before = asked();
    until(|| asked() > before).await;
    // A routine probe is under way now, and its connection is refused to a request.
    let id = views(&upstream)[0].id;
    upstream.apply(|pool, now| pool.record(id, crate::pool::Outcome::Refused, LOAD, now));
    tokio::time::sleep(ms(260)).await;
    let before = asked();
    let listed = clock::now();
    upstream.apply(|pool, now| {
        pool.asked(now);
        pool.resolved(&Resolution::Addresses(vec![ip(1)]), &[], now, now);
    });
    until(|| asked() > before).await;
    assert!(clock::now() - listed <= ms(20), "it began {:?} after the answer", clock::now() - listed);
    until(|| views(&upstream).iter().all(|e| !e.suspect)).await;
    assert!(clock::now() - listed <= ms(950), "it took {:?}", clock::now() - listed);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_hangs_delays_no_probe_of_another() {
    let upstream = serving(2);
    let hung = SocketAddr::new(ip(1), 8080);
    let probe = Arc::new(Scripted { takes: ms(900), ..Scripted::default() });
    probe.failing.lock().insert(hung, ProbeResult::TimedOut);
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().any(|e| e.health == Health::Up)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let of_other = probe.asked.lock().iter().filter(|(address, _)| *address != hung).count();
    assert!((9..=12).contains(&of_other), "{of_other} probes in 10 intervals");
    let views = views(&upstream);
    assert_eq!(views[0].health, Health::Unproven);
    assert_eq!(views[1].health, Health::Up);
}

#[tokio::test(start_paused = true)]
async fn a_large_upstream_is_proven_without_a_burst() {
    let upstream = serving(200);
    let probe = Arc::new(Scripted { takes: ms(5), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    assert_eq!(*probe.most.lock(), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn probes_of_a_large_upstream_that_hangs_do_not_pile_up() {
    let upstream = serving(200);
    let probe = Arc::new(Scripted { takes: ms(1000), ..Scripted::default() });
    let hung = (1..=200).map(|n| (SocketAddr::new(ip(n), 8080), ProbeResult::TimedOut));
    *probe.failing.lock() = hung.collect();
    tokio::spawn(run(upstream.clone(), probe.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= 201, "{tasks} tasks: one for each replica, and the loop");
    let asked = probe.asked.lock().len();
    assert!(asked >= 58 * AT_ONCE, "{asked} probes: as many as the slots bear");
}

// A11
#[tokio::test(start_paused = true)]
async fn a_hung_replica_is_noticed_in_time_however_many_new_addresses_swallow_connects() {
    let upstream = serving(3);
    let probe = Arc::new(Scripted { takes: ms(1000), ..Scripted::default() });
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream).iter().all(|e| e.health == Health::Up)).await;
    let black_hole = |n: u16| IpAddr::from([127, 2, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    let holes: Vec<_> = (1..=1000).map(black_hole).collect();
    let failing = holes.iter().map(|ip| (SocketAddr::new(*ip, 8080), ProbeResult::ConnectTimedOut));
    probe.failing.lock().extend(failing);
    let all = (1..=3).map(ip).chain(holes).collect();
    upstream.apply(|pool, now| {
        pool.asked(now);
        pool.resolved(&Resolution::Addresses(all), &[], now, now);
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let hung = SocketAddr::new(ip(1), 8080);
    probe.failing.lock().insert(hung, ProbeResult::TimedOut);
    let hangs = clock::now();
    until(|| views(&upstream).iter().any(|e| e.address == hung && e.health == Health::Down)).await;
    let took = clock::now() - hangs;
    assert!(took <= ms(3100), "{took:?}: two probes that time out, and one under way");
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_sleeps() {
    let upstream = serving(1);
    let probe = Arc::new(Scripted::default());
    tokio::spawn(run(upstream.clone(), probe.clone()));
    until(|| views(&upstream)[0].health == Health::Up).await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = probe.asked.lock().len();
    assert!((59..=62).contains(&asked), "{asked} probes in 60 intervals");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before, "tasks pile up");
}

// ---- The prober.

fn how(path: Option<&str>) -> config::Probe {
    config::Probe {
        path: path.map(str::to_owned),
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
