//! Asks a name server one question and prints the answer as JSON: what a container sees of Docker's DNS.
//!
//! `ask NAME [--server ADDRESS:PORT] [--type TYPE] [--edns BYTES] [--tcp]`

#![allow(clippy::disallowed_methods)] // it lives in real time

use hickory_server::proto::op::{Edns, Message, Query};
use hickory_server::proto::rr::{Name, RecordType};
use serde_json::json;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// As long as the C library waits for a server.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("usage: ask NAME [--server A:P] [--type T] [--edns BYTES] [--tcp]")?;
    let (mut server, mut kind, mut edns, mut tcp) = ("127.0.0.11:53".to_owned(), RecordType::A, None, false);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--server" => server = value()?,
            "--type" => kind = RecordType::from_str(&value()?)?,
            "--edns" => edns = Some(value()?.parse::<u16>()?),
            "--tcp" => tcp = true,
            _ => return Err(format!("not understood: {option}").into()),
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
    let began = Instant::now();
    let bytes = if tcp { over_tcp(&server, &question.to_vec()?) } else { over_udp(&server, &question.to_vec()?) };
    let told = match bytes {
        Ok(bytes) => {
            let answer = Message::from_vec(&bytes)?;
            json!({
                "code": answer.metadata.response_code.to_string(),
                "truncated": answer.metadata.truncation,
                "records": answer.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>(),
                "ttl": answer.answers.iter().map(|r| r.ttl).max(),
                "bytes": bytes.len(),
                "ms": began.elapsed().as_millis(),
            })
        }
        Err(error) => json!({"error": error.to_string(), "ms": began.elapsed().as_millis()}),
    };
    println!("{told}");
    Ok(())
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
