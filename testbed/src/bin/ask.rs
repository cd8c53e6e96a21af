//! Asks a name server one question and prints the answer as JSON: what a container sees of Docker's DNS.
//!
//! `ask NAME [--server ADDRESS:PORT] [--type TYPE] [--edns BYTES] [--tcp] [--watch MS]`
//!
//! With `--watch` it asks on for so long, every few milliseconds, and prints each answer that differs from the one before;
//! `at` is the time of day in milliseconds.

#![allow(clippy::disallowed_methods)] // it lives in real time

use hickory_server::proto::op::{Edns, Message, Query};
use hickory_server::proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// As long as the C library waits for a server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions of `--watch`: a record that is away for as long is seen to be.
const PAUSE: Duration = Duration::from_millis(1);

const USAGE: &str = "usage: ask NAME [--server A:P] [--type T] [--edns BYTES] [--tcp] [--watch MS]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or(USAGE)?;
    let mut asking = Asking { server: "127.0.0.11:53".into(), question: vec![], tcp: false };
    let (mut kind, mut edns, mut watch) = (RecordType::A, None, Duration::ZERO);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--server" => asking.server = value()?,
            "--type" => kind = RecordType::from_str(&value()?)?,
            "--edns" => edns = Some(value()?.parse::<u16>()?),
            "--tcp" => asking.tcp = true,
            "--watch" => watch = Duration::from_millis(value()?.parse()?),
            _ => return Err(format!("not understood: {option}\n{USAGE}").into()),
        }
    }
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_str(&name)?, kind));
    if let Some(bytes) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(bytes);
        question.set_edns(edns);
    }
    asking.question = question.to_vec()?;

    let end = Instant::now() + watch;
    let mut last = Value::Null;
    loop {
        let began = Instant::now();
        let (answer, about) = asking.ask();
        if answer != last {
            let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            let took = began.elapsed().as_millis();
            println!("{}", json!({"answer": answer, "about": about, "at": at, "took": took}));
            last = answer;
        }
        if Instant::now() >= end {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// One question, asked as often as wanted.
struct Asking {
    server: String,
    question: Vec<u8>,
    tcp: bool,
}

impl Asking {
    /// The answer, its records sorted, and what may differ between two that say the same.
    fn ask(&self) -> (Value, Value) {
        let bytes =
            if self.tcp { over_tcp(&self.server, &self.question) } else { over_udp(&self.server, &self.question) };
        let message = bytes
            .map_err(|e| e.to_string())
            .and_then(|bytes| Ok((Message::from_vec(&bytes).map_err(|e| e.to_string())?, bytes.len())));
        match message {
            Ok((message, length)) => {
                let records: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
                let mut sorted = records.clone();
                sorted.sort();
                let code = message.metadata.response_code.to_string();
                let answer = json!({"code": code, "truncated": message.metadata.truncation, "records": sorted});
                let ttl = message.answers.iter().map(|r| r.ttl).max();
                (answer, json!({"order": records, "ttl": ttl, "bytes": length}))
            }
            Err(error) => (json!({"error": error}), Value::Null),
        }
    }
}

fn over_udp(server: &str, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut answer = vec![0; 65535];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn over_tcp(server: &str, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
