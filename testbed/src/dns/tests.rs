//! Over real sockets, with questions and answers as bytes: nothing here trusts the library that answers.

use super::*;
use hickory_server::proto::op::{Message, MessageType, OpCode};
use std::io::{Read, Write};
use std::net::TcpStream;

const WAIT: Duration = Duration::from_secs(5);

fn server() -> Dns {
    let dns = Dns::listen("127.0.0.1:0".parse().unwrap(), 7).unwrap();
    dns.set("app", &(1..=3).map(|i| Ipv4Addr::new(127, 9, 9, i)).collect::<Vec<_>>());
    dns
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// The raw answer over UDP, or `None` when none came within `wait`.
fn udp(dns: &Dns, question: &[u8], wait: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    socket.send_to(question, dns.address()).unwrap();
    let mut buffer = vec![0; 65536];
    let n = socket.recv(&mut buffer).ok()?;
    buffer.truncate(n);
    Some(buffer)
}

fn tcp(dns: &Dns, question: &[u8], wait: Duration) -> Option<Message> {
    let mut stream = TcpStream::connect(dns.address()).unwrap();
    stream.set_read_timeout(Some(wait)).unwrap();
    stream.write_all(&(question.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(question).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u16::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).ok()?;
    Some(Message::from_vec(&answer).unwrap())
}

fn ask(dns: &Dns, name: &str) -> Message {
    Message::from_vec(&udp(dns, &question(name, RecordType::A, None), WAIT).expect("an answer")).unwrap()
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |r: &Record| match r.data {
        RData::A(a) => Some(a.0),
        _ => None,
    };
    message.answers.iter().filter_map(address).collect()
}

#[test]
fn every_replica_is_in_each_answer_in_changing_order_with_dockers_ttl() {
    let dns = server();
    let mut orders = std::collections::HashSet::new();
    for _ in 0..30 {
        let message = ask(&dns, "app.");
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert!(message.answers.iter().all(|r| r.ttl == 600));
        let mut found = addresses(&message);
        orders.insert(found.clone());
        found.sort();
        assert_eq!(found, dns.addresses("app"));
    }
    assert!(orders.len() > 1, "thirty answers in one order");
    assert_eq!(dns.questions("app"), 30);
}

#[test]
fn names_are_found_in_any_case_and_the_question_comes_back_as_asked() {
    let dns = server();
    // The question's letters by hand: the library's names have only one case.
    let mut asked = question("app.", RecordType::A, None);
    asked[13..16].copy_from_slice(b"ApP");
    let answer = udp(&dns, &asked, WAIT).unwrap();
    assert_eq!(answer[13..16], *b"ApP");
    let message = Message::from_vec(&answer).unwrap();
    assert_eq!(addresses(&message).len(), 3);
    assert_eq!(message.metadata.id, 4711);
}

#[test]
fn an_unknown_name_is_nxdomain_and_ipv6_is_empty() {
    let dns = server();
    assert_eq!(ask(&dns, "nobody.").metadata.response_code, ResponseCode::NXDomain);
    let answer = udp(&dns, &question("app.", RecordType::AAAA, None), WAIT).unwrap();
    let message = Message::from_vec(&answer).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert!(message.answers.is_empty());
}

#[test]
fn records_come_and_go() {
    let dns = server();
    dns.add("app", Ipv4Addr::new(127, 9, 9, 4));
    assert_eq!(addresses(&ask(&dns, "app.")).len(), 4);
    for address in dns.addresses("app") {
        dns.remove("app", address);
    }
    assert_eq!(ask(&dns, "app.").metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn three_hundred_records_are_cut_over_udp_and_whole_over_tcp() {
    let dns = server();
    let many: Vec<_> = (0..300u16).map(|i| Ipv4Addr::new(127, 9, (i / 250) as u8, (i % 250) as u8)).collect();
    dns.set("app", &many);
    let answer = udp(&dns, &question("app.", RecordType::A, None), WAIT).unwrap();
    assert!(answer.len() <= 512, "{} bytes without EDNS", answer.len());
    let message = Message::from_vec(&answer).unwrap();
    assert!(message.metadata.truncation);
    assert!((25..=30).contains(&message.answers.len()), "{} records", message.answers.len());
    let answer = udp(&dns, &question("app.", RecordType::A, Some(1232)), WAIT).unwrap();
    assert!((600..=1232).contains(&answer.len()), "{} bytes with EDNS", answer.len());
    let whole = tcp(&dns, &question("app.", RecordType::A, None), WAIT).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole).len(), 300);
}

#[test]
fn faults_are_what_they_say_and_end() {
    let dns = server();
    let plain = question("app.", RecordType::A, None);
    let code = |fault| {
        dns.fail(fault);
        ask(&dns, "app.").metadata.response_code
    };
    assert_eq!(code(Fault::ServFail), ResponseCode::ServFail);
    assert_eq!(code(Fault::Refused), ResponseCode::Refused);
    assert_eq!(code(Fault::NxDomain), ResponseCode::NXDomain);
    assert_eq!(code(Fault::Empty), ResponseCode::NoError);
    assert!(ask(&dns, "app.").answers.is_empty());

    dns.fail(Fault::Silence);
    assert_eq!(udp(&dns, &plain, Duration::from_millis(100)), None);

    dns.fail(Fault::TruncatedWithoutTcp);
    let cut = ask(&dns, "app.");
    assert!(cut.metadata.truncation);
    assert_eq!(cut.answers.len(), 2);
    assert!(tcp(&dns, &plain, Duration::from_millis(100)).is_none());

    dns.fail(Fault::WrongId);
    assert_ne!(ask(&dns, "app.").metadata.id, 4711);
    dns.fail(Fault::WrongQuestion);
    let wrong = ask(&dns, "app.");
    assert_eq!(wrong.metadata.id, 4711);
    assert_eq!(wrong.queries[0].name().to_string(), "somebody.else.");
    dns.fail(Fault::CnameLoop);
    let aliases = ask(&dns, "app.");
    assert_eq!((aliases.answers.len(), addresses(&aliases).len()), (2, 0));
    dns.fail(Fault::Answer(vec![Ipv4Addr::UNSPECIFIED]));
    assert_eq!(addresses(&ask(&dns, "app.")), [Ipv4Addr::UNSPECIFIED]);

    dns.fail(Fault::Delay(Duration::from_millis(150)));
    assert_eq!(udp(&dns, &plain, Duration::from_millis(20)), None);
    assert!(udp(&dns, &plain, WAIT).is_some());

    dns.heal();
    assert_eq!(addresses(&ask(&dns, "app.")).len(), 3);
}
