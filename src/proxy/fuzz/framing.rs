//! Where messages begin and end, against hyper reading the same bytes.

use super::{damage, seed};
use crate::config::{Forwarded, HostHeader};
use crate::proxy::guard::Guard;
use crate::proxy::head;
use crate::proxy::inflow::Inflow;
use crate::proxy::memory::Memory;
use crate::proxy::request::{RequestHead, Rewrite};
use crate::proxy::response::ResponseHead;
use crate::proxy::socket::{self, Reader};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than any of this takes; nothing here waits for bytes that do not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message as somebody reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    /// Method and target, or the status.
    first: String,
    body: Vec<u8>,
}

/// Requests that are whole, one after the other; `B` stands for a body that looks like a request.
const REQUESTS: [&str; 12] = [
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /d HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n!!",
    "POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n25\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n!!\r\n0\r\n\r\n",
    "POST /g HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "PUT /i HTTP/1.1\r\nHost: a\r\nExpect: nothing\r\nContent-Length: 0\r\n\r\n",
    "DELETE /j HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n",
    "POST /k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "GET /l HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
];

/// Responses that are whole.
const RESPONSES: [&str; 10] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 424 Failed Dependency\r\nContent-Length: 0\r\nDate: x\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nto the end",
    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
];

fn mutated(corpus: &[&str], most: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = vec![];
    for _ in 0..rng.usize(1..=most) {
        bytes.extend_from_slice(corpus[rng.usize(..corpus.len())].as_bytes());
    }
    damage(&mut bytes, rng);
    bytes
}

/// Our end of a connection whose other end has sent `bytes` and closed its side.
async fn received(listener: &TcpListener, bytes: &[u8]) -> (Box<Reader>, TcpStream) {
    let mut other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    other.write_all(bytes).await.unwrap();
    other.shutdown().await.unwrap();
    (socket::split(stream).0, other)
}

/// What `client.rs` makes of a client's bytes: its requests until one is refused, and the heads that replicas would get.
async fn our_requests(mut reader: Box<Reader>) -> (Vec<Message>, Vec<Vec<u8>>) {
    let (mut found, mut sent) = (vec![], vec![]);
    loop {
        let memory = Memory::default();
        let guard = Guard::request(64 * 1024, 8 * 1024);
        let Ok(length) = head::read_request(&mut reader, guard, &mut memory.holding(usize::MAX)).await else {
            return (found, sent);
        };
        let raw = reader.ahead()[..length].to_vec();
        reader.consume(length);
        let Ok(head) = RequestHead::read(&raw) else { return (found, sent) };
        let mut inflow = Inflow::new(reader, head.framing());
        let Some(body) = whole_body(&mut inflow).await else { return (found, sent) };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        found.push(Message { first: format!("{} {}", text(head.method()), text(head.target())), body });
        let rewrite = Rewrite {
            target: (head.target(), b""),
            authority: None,
            host: &HostHeader::Pass,
            default_host: "app",
            forwarded: if found.len() % 2 == 0 { Forwarded::Append } else { Forwarded::Off },
            client: [10, 0, 0, 9].into(),
        };
        let mut out = vec![];
        head.write(&rewrite, &mut out);
        sent.push(out);
        if !head.keeps_alive() {
            return (found, sent);
        }
        match inflow.into_next() {
            Some(next) => reader = next,
            None => return (found, sent),
        }
    }
}

/// A body to its end, if it has one.
async fn whole_body(inflow: &mut Inflow) -> Option<Vec<u8>> {
    let mut body = vec![];
    while !inflow.is_done() {
        match inflow.piece().await {
            Ok(Some(piece)) => body.extend_from_slice(piece),
            Ok(None) => break,
            Err(_) => return None,
        }
    }
    Some(body)
}

/// What hyper's server makes of the same bytes. A body that is not whole is no message.
async fn hypers_requests(bytes: &[u8]) -> Vec<Message> {
    let found: Arc<Mutex<Vec<Message>>> = Arc::default();
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    ours.write_all(bytes).await.unwrap();
    ours.shutdown().await.unwrap();
    let seen = found.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            let first = format!("{} {}", request.method(), request.uri());
            if let Ok(body) = request.into_body().collect().await {
                seen.lock().push(Message { first, body: body.to_bytes().to_vec() });
            }
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(theirs), service);
    let mut answers = vec![];
    let (_, _) = tokio::join!(connection, ours.read_to_end(&mut answers));
    std::mem::take(&mut *found.lock())
}

/// Runs a future to its end; one that waits for ever fails the test.
async fn within<T>(what: &[u8], future: impl Future<Output = T>) -> T {
    let text = || what.escape_ascii().to_string();
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it never ends: {}", text()))
}

#[tokio::test]
async fn requests_that_are_accepted_are_those_that_hyper_reads() {
    let seed = seed(0x7265_7175);
    let mut rng = fastrand::Rng::with_seed(seed);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut both, mut refused, mut stricter) = (0, 0, 0);
    for round in 0..6_000 {
        let bytes = mutated(&REQUESTS, 3, &mut rng);
        let (reader, _other) = received(&listener, &bytes).await;
        let (ours, sent) = within(&bytes, our_requests(reader)).await;
        let theirs = within(&bytes, hypers_requests(&bytes)).await;
        let shown =
            || format!("seed {seed}, round {round}: {}\nours {ours:?}\nhyper's {theirs:?}", bytes.escape_ascii());
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!(our.body, their.body, "{}", shown());
            assert_eq!(our.first, their.first, "{}", shown());
            both += 1;
        }
        refused += usize::from(ours.is_empty());
        stricter += usize::from(ours.len() < theirs.len());
        // A replica that runs hyper reads one request in what we send, whatever the client sent: with its head alone it
        // sees the start of a body at most.
        for head in &sent {
            let text = String::from_utf8_lossy(head);
            assert_eq!(text.matches("\r\n\r\n").count(), 1, "{}\n{text:?}", shown());
            assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{}\n{text:?}", shown());
            let framed = |name: &str| text.to_ascii_lowercase().matches(&format!("\n{name}:")).count();
            assert!(framed("content-length") + framed("transfer-encoding") <= 1, "{}\n{text:?}", shown());
            assert_eq!(framed("host"), 1, "{}\n{text:?}", shown());
        }
    }
    assert!(
        both > 3_000 && refused > 300,
        "seed {seed}: {both} alike, {refused} refused, {stricter} refused by us alone"
    );
}

/// What `attempt.rs` makes of a replica's bytes.
async fn our_response(mut reader: Box<Reader>) -> Option<Message> {
    let (length, status) = head::read_response(&mut reader, 64 * 1024).await.ok()?;
    let framing = ResponseHead::read(&reader.ahead()[..length], status, false).ok()?.framing();
    reader.consume(length);
    let body = whole_body(&mut Inflow::new(reader, framing)).await?;
    Some(Message { first: status.to_string(), body })
}

/// What hyper's client makes of them.
async fn hypers_response(bytes: &[u8]) -> Option<Message> {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(theirs)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request);
    // Nothing may come before the request does.
    let replica = async {
        let mut head = vec![0; 1024];
        let _ = ours.read(&mut head).await;
        let _ = ours.write_all(bytes).await;
        let _ = ours.shutdown().await;
        ours
    };
    let (response, _ours) = tokio::join!(response, replica);
    let response = response.ok()?;
    let first = response.status().as_u16().to_string();
    let body = response.into_body().collect().await.ok()?.to_bytes().to_vec();
    connection.abort();
    Some(Message { first, body })
}

#[tokio::test]
async fn responses_that_are_accepted_are_those_that_hyper_reads() {
    let seed = seed(0x7265_7370);
    let mut rng = fastrand::Rng::with_seed(seed);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut both, mut refused) = (0, 0);
    for round in 0..6_000 {
        let bytes = mutated(&RESPONSES, 1, &mut rng);
        let (reader, _other) = received(&listener, &bytes).await;
        let ours = within(&bytes, our_response(reader)).await;
        let theirs = within(&bytes, hypers_response(&bytes)).await;
        if let (Some(our), Some(their)) = (&ours, &theirs) {
            assert_eq!(our, their, "seed {seed}, round {round}: {}", bytes.escape_ascii());
            both += 1;
        }
        refused += usize::from(ours.is_none());
    }
    assert!(both > 2_000 && refused > 300, "seed {seed}: {both} alike, {refused} refused");
}
