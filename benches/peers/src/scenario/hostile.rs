//! Two thousand clients that send 60 KB of a head and no more, or all of it and a body behind it while every replica is
//! busy for ever: what memory do they hold?
//!
//! Where a proxy has a line, one request at a time goes to each replica and the others wait in it.

use super::SETTLE;
use crate::conduct::Conduct;
use crate::figure::Measure;
use crate::peer::{Limits, Peer};
use crate::process::Cores;
use crate::row::{Hostile, Row};
use crate::scene::Scene;
use crate::taken::Taken;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 2000;

/// Of a head, in fields of a size that every peer's limit for one allows.
const HEAD: usize = 60_000;
const FIELD: usize = 4000;

const BODY: usize = 64 * 1024;
const CHUNK: usize = 1024;

/// What no proxy has read after this time it does not want to read.
const PATIENCE: Duration = Duration::from_secs(4);

const SERVICE: Duration = Duration::from_secs(120);

pub(super) fn measure(hostile: Hostile, peer: &Peer, seed: u64, cores: &Cores) -> Result<Taken, String> {
    let replicas: Vec<Conduct> = (0..3).map(|_| Conduct::steady(Duration::from_millis(1))).collect();
    let limits = Limits { in_flight: 1, waiting: 2 * CONNECTIONS };
    let scene = Scene::start(peer, 1, replicas, Some(limits), seed, cores)?;
    let mut taken = Taken::new(Row::Hostile(hostile), peer.kind);
    let Some(process) = scene.process() else { return Ok(taken) };
    scene.watch(100.0, SETTLE);
    scene.origin.conduct.iter().for_each(|one| one.set_mean(SERVICE));
    let before = process.memory();
    let bytes = bytes(hostile);
    let mut clients = vec![];
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(scene.targets()[0]).and_then(|stream| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        clients.push((stream.map_err(|error| format!("a client cannot connect: {error}"))?, 0));
    }
    // A little of each in turn, as much as its connection takes.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && clients.iter().any(|(_, sent)| *sent < bytes.len()) {
        for (stream, sent) in &mut clients {
            match stream.write(&bytes[*sent..]) {
                Ok(length) => *sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Refused: its part is over.
                Err(_) => *sent = bytes.len(),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(SETTLE);
    taken.add(Measure::Memory, process.memory().saturating_sub(before) as f64 / 1e6);
    Ok(taken)
}

/// All that one of them sends.
fn bytes(hostile: Hostile) -> Vec<u8> {
    let method = if matches!(hostile, Hostile::Put | Hostile::Chunks) { "PUT" } else { "GET" };
    let mut text = format!("{method} /slow HTTP/1.1\r\nHost: app.internal\r\n");
    for index in 0..HEAD / FIELD {
        text.push_str(&format!("X-{index}: {}\r\n", "x".repeat(FIELD)));
    }
    match hostile {
        Hostile::Head => {}
        Hostile::Waiting => text.push_str("\r\n"),
        Hostile::Put => text.push_str(&format!("Content-Length: {BODY}\r\n\r\n{}", "x".repeat(BODY))),
        Hostile::Chunks => {
            text.push_str("Transfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("{CHUNK:x}\r\n{}\r\n", "x".repeat(CHUNK));
            text.push_str(&chunk.repeat(BODY / CHUNK));
        }
    }
    text.into_bytes()
}
