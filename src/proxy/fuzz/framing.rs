//! The same over real sockets, by the code that serves: reading in pieces, at hand or not, and sending on.

use super::hyper;
use super::message::Message;
use super::requests::{self, goes_on};
use super::responses;
use crate::config::{Forwarded, HostHeader};
use crate::fuzz::{corpus, damage, seed};
use crate::proxy::body::{self, Patience, Replay};
use crate::proxy::guard::Guard;
use crate::proxy::head;
use crate::proxy::inflow::Inflow;
use crate::proxy::memory::Memory;
use crate::proxy::outflow::Outflow;
use crate::proxy::request::{RequestHead, Rewrite};
use crate::proxy::response::ResponseHead;
use crate::proxy::socket::{self, Reader, Writer};
use crate::proxy::timer::Timer;
use ::hyper::Method;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than any of this takes; nothing here waits for bytes that do not come.
const PATIENCE: Duration = Duration::from_secs(20);

const ROUNDS: usize = 3_000;

/// Some cases of a target, one behind the other, damaged.
fn mutated(cases: &[(String, Vec<u8>)], most: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = vec![];
    for _ in 0..rng.usize(1..=most) {
        bytes.extend_from_slice(&cases[rng.usize(..cases.len())].1);
    }
    damage(&mut bytes, rng);
    bytes
}

/// Both ends of a connection, one of them ours.
async fn connection(listener: &TcpListener) -> ((Box<Reader>, Writer), TcpStream) {
    let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (socket::split(stream), other)
}

/// Our end of a connection whose other end has sent `bytes` and closed its side.
async fn received(listener: &TcpListener, bytes: &[u8]) -> (Box<Reader>, TcpStream) {
    let ((reader, _), mut other) = connection(listener).await;
    other.write_all(bytes).await.unwrap();
    other.shutdown().await.unwrap();
    (reader, other)
}

/// What the other end gets of what `writer` has sent.
async fn sent(mut writer: Writer, mut other: TcpStream) -> Vec<u8> {
    writer.finish();
    let mut all = vec![];
    other.read_to_end(&mut all).await.unwrap();
    all
}

/// What is sent on of a client's bytes: its requests until one is refused or not whole. Gives how many of them are whole.
async fn pass_requests(mut reader: Box<Reader>, writer: &mut Writer) -> usize {
    let mut timer = Timer::new(crate::clock::now() + PATIENCE);
    let memory = Memory::default();
    let due = AtomicBool::new(true);
    let mut count = 0;
    loop {
        let guard = Guard::request(64 * 1024, 8 * 1024);
        let mut holding = memory.holding(usize::MAX);
        let Ok(length) = head::read_request(&mut reader, guard, &mut holding).await else { return count };
        let raw = reader.ahead()[..length].to_vec();
        reader.consume(length);
        let Some(head) = RequestHead::read(&raw).ok().filter(goes_on) else { return count };
        let rewrite = Rewrite {
            target: (head.target(), b""),
            authority: None,
            host: &HostHeader::Pass,
            default_host: "app",
            forwarded: Forwarded::Off,
            client: [10, 0, 0, 9].into(),
        };
        let mut out = vec![];
        head.write(&rewrite, &mut out);
        let mut inflow = Inflow::new(reader, head.framing());
        if let Some(body) = inflow.at_hand(true) {
            writer.write_all([&out, body, b""], &mut timer, PATIENCE).await.unwrap();
        } else {
            let mut replay = Replay::new(memory.extra(usize::MAX));
            let framing = head.framing();
            let (_, result) =
                body::upload(&mut inflow, Outflow::Http1(writer), &out, framing, &mut replay, &due, PATIENCE.into())
                    .await;
            if result.is_err() {
                return count;
            }
        }
        count += 1;
        if !head.keeps_alive() {
            return count;
        }
        match inflow.into_next() {
            Some(next) => reader = next,
            None => return count,
        }
    }
}

/// Runs a future to its end; one that waits for ever fails the test.
async fn within<T>(what: &[u8], future: impl Future<Output = T>) -> T {
    let text = || what.escape_ascii().to_string();
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it never ends: {}", text()))
}

/// Start and body, which go on as they are.
fn essence(messages: &[Message]) -> Vec<(&str, Option<&str>, &[u8])> {
    messages.iter().map(|message| (&message.start[..], message.authority.as_deref(), &message.body[..])).collect()
}

// T7
#[tokio::test]
async fn requests_that_go_on_are_those_that_hyper_reads_in_what_came() {
    let seed = seed(0x7265_7175);
    let mut rng = fastrand::Rng::with_seed(seed);
    let cases = corpus("head");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut passed, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = mutated(&cases, 3, &mut rng);
        let (reader, _client) = received(&listener, &bytes).await;
        let ((_, mut writer), replica) = connection(&listener).await;
        let count = within(&bytes, pass_requests(reader, &mut writer)).await;
        let all = within(&bytes, sent(writer, replica)).await;
        let (came, orderly) = hyper::requests(&requests::plain(&bytes), 0);
        let (goes, _) = hyper::requests(&requests::plain(&all), requests::FORWARDED.len());
        let shown = || {
            let (bytes, all) = (bytes.escape_ascii(), all.escape_ascii());
            format!("round {round}: {bytes}\nsent on {all}\nhyper's {came:#?}\nand of that {goes:#?}")
        };
        assert!(orderly || count <= came.len(), "hyper refuses what is accepted: {}", shown());
        // What broke off may be there in part, and that is never a request.
        assert_eq!(goes.len(), count, "{}", shown());
        // hyper may close the connection in order where this proxy keeps it.
        let both = count.min(came.len());
        assert_eq!(essence(&goes[..both]), essence(&came[..both]), "{}", shown());
        passed += count;
        refused += usize::from(count == 0);
    }
    println!("{passed} went on, {refused} were refused");
    assert!(passed > ROUNDS / 10 && refused > ROUNDS / 10, "{passed} went on, {refused} were refused");
}

/// What a client of HTTP/1.1 is sent of a replica's bytes, if the response is accepted and whole.
async fn pass_response(mut reader: Box<Reader>, writer: &mut Writer) -> Option<()> {
    let mut timer = Timer::new(crate::clock::now() + PATIENCE);
    loop {
        let (length, status) = head::read_response(&mut reader, 64 * 1024).await.ok()?;
        let raw = reader.ahead()[..length].to_vec();
        let head = ResponseHead::read(&raw, status, false).ok()?;
        reader.consume(length);
        if status == 101 {
            return None;
        }
        if status < 200 {
            continue;
        }
        let delivery = head.delivery(false, true);
        let mut out = vec![];
        head.write(delivery, &mut out);
        let mut inflow = Inflow::new(reader, head.framing());
        if let Some(body) = inflow.at_hand(delivery.chunked) {
            return writer.write_all([&out, body, b""], &mut timer, PATIENCE).await.ok();
        }
        let patience = Patience::from(PATIENCE);
        let passed =
            body::download(&mut inflow, Outflow::Http1(writer), &mut out, delivery.chunked, &mut timer, patience).await;
        return passed.ok();
    }
}

// T7
#[tokio::test]
async fn responses_that_go_on_are_those_that_hyper_reads_in_what_came() {
    let seed = seed(0x7265_7370);
    let mut rng = fastrand::Rng::with_seed(seed);
    let cases = corpus("response");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut both, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = mutated(&cases, 1, &mut rng);
        let (reader, _replica) = received(&listener, &bytes).await;
        let ((_, mut writer), client) = connection(&listener).await;
        let passed = within(&bytes, pass_response(reader, &mut writer)).await;
        let all = within(&bytes, sent(writer, client)).await;
        if passed.is_none() {
            refused += 1;
            continue;
        }
        let came = hyper::responses(&Method::GET, &[&responses::plain(&bytes)], true);
        let goes = hyper::responses(&Method::GET, &[&all], false);
        let shown = || {
            let (bytes, all) = (bytes.escape_ascii(), all.escape_ascii());
            format!("round {round}: {bytes}\nsent on {all}\nhyper's {came:#?}\nand of that {goes:#?}")
        };
        assert_eq!(came.len(), 1, "hyper refuses what is accepted: {}", shown());
        assert_eq!(essence(&goes), essence(&came), "{}", shown());
        both += 1;
    }
    println!("{both} went on, {refused} were refused");
    assert!(both > ROUNDS / 10 && refused > ROUNDS / 10, "{both} went on, {refused} were refused");
}
