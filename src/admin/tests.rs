//! The operator's questions over real sockets.

use super::*;
use std::sync::{Mutex, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A process that says what it is told to.
#[derive(Default)]
pub(crate) struct Told {
    history: OnceLock<parking_lot::Mutex<History>>,
    pub(crate) status: Mutex<Status>,
    pub(crate) not_ready: Mutex<Option<String>>,
}

impl Source for Told {
    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    fn ready(&self) -> Result<(), String> {
        self.not_ready.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn metrics(&self) -> Metrics {
        Metrics { server: Arc::default(), upstreams: Vec::new() }
    }

    fn history(&self) -> &parking_lot::Mutex<History> {
        self.history.get_or_init(|| parking_lot::Mutex::new(History::new(crate::clock::now())))
    }

    fn why(&self, id: Option<&str>) -> Option<String> {
        id.filter(|id| *id == "known").map(|id| format!("{id}\n"))
    }

    fn obey(&self, verb: &Verb, who: &str) -> Result<Done, String> {
        Ok(Done { lines: vec![format!("{verb:?} for {who}")], ..Done::default() })
    }
}

/// Serves `told` until the test ends.
pub(crate) async fn serving(told: Arc<Told>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, told));
    address
}

/// The head and the body of the answer to these bytes.
async fn ask(address: std::net::SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
}

#[tokio::test]
async fn metrics_and_status_are_what_they_say_they_are() {
    let told = Arc::new(Told::default());
    told.status.lock().unwrap().version = "7.8.9".to_owned();
    let address = serving(told).await;
    let (head, body) = get(address, "/metrics?x=y").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("evenkeel_build_info{version=\"7.8.9\"} 1\n"), "{body}");
    let (head, body) = get(address, "/status").await;
    assert!(head.contains("application/json"), "{head}");
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap().version, "7.8.9");
}

#[tokio::test]
async fn ready_says_why_not() {
    let told = Arc::new(Told::default());
    let address = serving(told.clone()).await;
    let (head, _) = get(address, "/ready").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    *told.not_ready.lock().unwrap() = Some("draining".to_owned());
    let (head, body) = get(address, "/ready").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: draining\n");
}

#[tokio::test]
async fn nothing_can_be_changed_here_and_nothing_else_is_served() {
    let address = serving(Arc::default()).await;
    let (head, _) = ask(address, "POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.contains("allow: GET, HEAD"), "{head}");
    let (head, body) = get(address, "/favicon.ico").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(body, "there are /, /metrics, /status, /overview, /why and /ready\n");
    let (head, body) = ask(address, "HEAD /ready HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "");
}

// T12
#[tokio::test]
async fn a_giant_head_is_refused() {
    let address = serving(Arc::default()).await;
    // As much as is read of a head, and no end: nothing is left unread, whose reset could overtake the answer.
    let begin = "GET /ready HTTP/1.1\r\nA: ";
    let (head, _) = ask(address, &format!("{begin}{}", "x".repeat(MAX_HEAD - begin.len()))).await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    let (head, _) = ask(address, &format!("{begin}{}\r\n\r\n", "x".repeat(MAX_HEAD / 2))).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // One that goes on and on is cut off, and keeps nobody else waiting.
    let mut stream = TcpStream::connect(address).await.unwrap();
    while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    let (head, _) = get(address, "/ready").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

// A15
#[tokio::test]
async fn silent_connections_do_not_lock_the_operator_out() {
    let address = serving(Arc::default()).await;
    let mut silent = Vec::new();
    for _ in 0..4 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Half of them begin and do not go on.
        if fastrand::bool() {
            stream.write_all(b"GET /ready HT").await.unwrap();
        }
        silent.push(stream);
    }
    let began = crate::clock::now();
    let (head, _) = get(address, "/ready").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(began.elapsed() < HEAD_DEADLINE, "it waited for one of them to end: {:?}", began.elapsed());
    // The oldest are gone, the newest are served once they ask.
    let mut byte = [0];
    assert!(matches!(silent[0].read(&mut byte).await, Ok(0) | Err(_)), "the oldest was closed");
}

// A15
#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed_soon() {
    let address = serving(Arc::default()).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /ready HTTP/1.1\r\nHo").await.unwrap();
    let mut rest = Vec::new();
    // The reading ends only if the other side closes, well before the deadline of a whole connection.
    tokio::time::timeout(DEADLINE / 2, silent.read_to_end(&mut rest)).await.expect("it is closed").ok();
}

// U6
#[tokio::test]
async fn readiness_is_told_without_any_address_and_nothing_else_is() {
    let told = Arc::new(Told::default());
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], fastrand::u16(1..)));
    // Of two processes, as while one takes over from the other, the newer one is asked.
    let _older = local::bind(listen).unwrap();
    let listener = local::bind(listen).unwrap();
    tokio::spawn(local::serve(listener, told.clone(), false));
    let ask = async |path: &str| {
        let mut stream = local::connect(listen, true).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(ask("/ready").await.starts_with("HTTP/1.1 200 "));
    assert!(ask("/status").await.starts_with("HTTP/1.1 404 "));
    *told.not_ready.lock().unwrap() = Some("draining".to_owned());
    assert!(ask("/ready").await.ends_with("not ready: draining\n"));
}

// P16
#[tokio::test]
async fn orders_are_taken_without_any_address_only() {
    let told = Arc::new(Told::default());
    let address = serving(told.clone()).await;
    let post = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, _) = ask(address, &post("/drain?address=10.0.0.7")).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], fastrand::u16(1..)));
    let listener = local::bind(listen).unwrap();
    tokio::spawn(local::serve(listener, told.clone(), false));
    let order = async |request: String| {
        let mut stream = local::connect(listen, true).unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = order(post("/drain?address=10.0.0.7")).await;
    let user = nix::unistd::geteuid();
    let who = format!("for user {user}, process {}", std::process::id());
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&who), "{answer}");
    let answer = order(post("/drain?address=db-checker")).await;
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("is not an address"), "{answer}");
    let answer = order(post("/drain?address=10.0.0.7").replace("POST", "GET")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
