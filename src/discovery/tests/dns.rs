//! The resolver against a DNS server on real sockets, which says whatever a test wants.

use super::super::resolver::Resolver;
use super::*;
use crate::config::{Dns, Family};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

#[derive(Clone, Copy, PartialEq)]
enum Over {
    Udp,
    Tcp,
}

/// Serves until the test ends: each question is answered with the messages that `say` makes of it.
async fn server(say: impl Fn(&Message, Over) -> Vec<Message> + Send + Sync + 'static) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // The same port may be taken over TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let say = Arc::new(say);
    let say_udp = say.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            for message in say_udp(&Message::from_vec(&buffer[..length]).unwrap(), Over::Udp) {
                udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let say = say.clone();
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    let messages = say(&Message::from_vec(&question).unwrap(), Over::Tcp);
                    if messages.is_empty() {
                        return;
                    }
                    for message in messages {
                        let bytes = message.to_vec().unwrap();
                        stream.write_u16(bytes.len() as u16).await.unwrap();
                        stream.write_all(&bytes).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

fn answer(question: &Message) -> Message {
    question.clone().into_response()
}

fn code(question: &Message, code: ResponseCode) -> Vec<Message> {
    let mut message = answer(question);
    message.metadata.response_code = code;
    vec![message]
}

fn asked(question: &Message) -> Name {
    question.queries[0].name().clone()
}

fn a(name: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name.clone(), 600, data)
}

fn cname(from: &str, to: &str) -> Record {
    let name = |text| Name::from_ascii(text).unwrap();
    Record::from_rdata(name(from), 600, RData::CNAME(CNAME(name(to))))
}

fn config(server: Option<SocketAddr>) -> Dns {
    let second = Duration::from_secs(1);
    Dns { server, interval: second, timeout: second, family: Family::Ipv4, hold: 10 * second }
}

/// A server that knows one name.
pub(crate) async fn server_of(name: &'static str, addresses: Vec<IpAddr>) -> SocketAddr {
    server(move |question, _| {
        if asked(question).to_ascii() != format!("{name}.") {
            return code(question, ResponseCode::NXDomain);
        }
        let mut message = answer(question);
        let wanted = addresses.iter().filter(|a| a.is_ipv6() == (question.queries[0].query_type() == RecordType::AAAA));
        message.add_answers(wanted.map(|address| a(&asked(question), *address)));
        vec![message]
    })
    .await
}

/// What `db-checker` resolves to by that server.
async fn resolved_by(server: SocketAddr) -> Resolution {
    Resolver::new(config(Some(server))).resolve(&name()).await
}

#[track_caller]
fn assert_failed(resolution: &Resolution, with: &str) {
    match resolution {
        Resolution::Failed(why) => assert!(why.contains(with), "{why:?} does not say {with:?}"),
        other => panic!("{other:?}"),
    }
}

/// 300 addresses: more than fit in a datagram.
fn many() -> impl Iterator<Item = IpAddr> {
    (0..300u16).map(|n| Ipv4Addr::new(127, 1, (n / 256) as u8, n as u8).into())
}

#[tokio::test]
async fn all_replicas_of_an_answer_are_found() {
    let server = server(|question, _| {
        let mut message = answer(question);
        message.add_answers([2, 1, 3].map(|n| a(&asked(question), ip(n))));
        vec![message]
    })
    .await;
    assert_eq!(resolved_by(server).await, addresses([2, 1, 3]));
}

#[tokio::test]
async fn three_hundred_replicas_are_found_over_tcp() {
    let server = server(|question, over| {
        let mut message = answer(question);
        message.metadata.truncation = over == Over::Udp;
        let fit = if over == Over::Udp { 18 } else { 300 };
        message.add_answers(many().take(fit).map(|ip| a(&asked(question), ip)));
        vec![message]
    })
    .await;
    assert_eq!(resolved_by(server).await, Resolution::Addresses(many().collect()));
}

#[tokio::test]
async fn a_cut_answer_is_no_answer_when_tcp_fails() {
    let server = server(|question, over| {
        let mut message = answer(question);
        message.metadata.truncation = true;
        message.add_answers([a(&asked(question), ip(1))]);
        if over == Over::Udp { vec![message] } else { vec![] }
    })
    .await;
    assert!(matches!(resolved_by(server).await, Resolution::Failed(_)));
}

#[tokio::test]
async fn a_cut_answer_is_no_answer_when_tcp_is_refused() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let mut message = answer(&Message::from_vec(&buffer[..length]).unwrap());
            message.metadata.truncation = true;
            udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
        }
    });
    assert!(matches!(resolved_by(server).await, Resolution::Failed(_)));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_absent() {
    assert_eq!(resolved_by(server(|q, _| code(q, ResponseCode::NXDomain)).await).await, Resolution::Absent);
}

#[tokio::test]
async fn a_name_without_addresses_is_absent() {
    assert_eq!(resolved_by(server(|q, _| code(q, ResponseCode::NoError)).await).await, Resolution::Absent);
}

#[tokio::test]
async fn a_servers_failure_says_nothing_about_the_replicas() {
    for (failure, said) in [
        (ResponseCode::ServFail, "SERVFAIL"),
        (ResponseCode::Refused, "REFUSED"),
        (ResponseCode::FormErr, "FORMERR"),
        (ResponseCode::NotImp, "NOTIMP"),
        (ResponseCode::Unknown(99), "UNKNOWN(99)"),
    ] {
        let server = server(move |q, _| code(q, failure)).await;
        let resolution = resolved_by(server).await;
        assert_failed(&resolution, said);
        assert_failed(&resolution, &server.to_string());
    }
}

#[tokio::test]
async fn a_silent_server_fails_within_the_time_out() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = silent.local_addr().unwrap();
    let dns = Dns { timeout: Duration::from_millis(100), ..config(Some(server)) };
    let resolution = Resolver::new(dns).resolve(&name()).await;
    assert_failed(&resolution, "no answer");
    assert_failed(&resolution, &server.to_string());
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again_within_the_time_out() {
    let lost = Mutex::new(false);
    let server = server(move |question, _| {
        if !std::mem::replace(&mut *lost.lock(), true) {
            return vec![];
        }
        let mut message = answer(question);
        message.add_answers([a(&asked(question), ip(1))]);
        vec![message]
    })
    .await;
    assert_eq!(resolved_by(server).await, addresses([1]));
}

#[tokio::test]
async fn answers_with_a_wrong_id_or_question_are_ignored() {
    let server = server(|question, _| {
        let mut right = answer(question);
        right.add_answers([a(&asked(question), ip(1))]);
        let mut wrong_id = right.clone();
        wrong_id.metadata.id = !wrong_id.metadata.id;
        let mut wrong_question = right.clone();
        wrong_question.queries[0].set_name(Name::from_ascii("elsewhere.").unwrap());
        vec![wrong_id, wrong_question, right]
    })
    .await;
    assert_eq!(resolved_by(server).await, addresses([1]));
}

#[tokio::test]
async fn aliases_are_followed_in_the_answer_and_beyond_it() {
    let server = server(|question, _| {
        let mut message = answer(question);
        match asked(question).to_ascii().as_str() {
            "db-checker." => message.add_answers([cname("db-checker.", "b."), cname("b.", "c.")]),
            "c." => message.add_answers([cname("c.", "d."), a(&Name::from_ascii("d.").unwrap(), ip(4))]),
            other => panic!("{other} was asked"),
        };
        vec![message]
    })
    .await;
    assert_eq!(resolved_by(server).await, addresses([4]));
}

#[tokio::test]
async fn a_loop_of_aliases_says_nothing_about_the_replicas() {
    let within = server(|question, _| {
        let mut message = answer(question);
        message.add_answers([cname("db-checker.", "b."), cname("b.", "db-checker.")]);
        vec![message]
    });
    assert_failed(&resolved_by(within.await).await, "loop");
    let across = server(|question, _| {
        let mut message = answer(question);
        let other = if asked(question).to_ascii() == "b." { "db-checker." } else { "b." };
        message.add_answers([cname(&asked(question).to_ascii(), other)]);
        vec![message]
    });
    assert_failed(&resolved_by(across.await).await, "loop");
}

#[tokio::test]
async fn an_alias_of_nothing_is_absent() {
    let server = server(|question, _| {
        let mut message = answer(question);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_answers([cname("db-checker.", "b.")]);
        vec![message]
    })
    .await;
    assert_eq!(resolved_by(server).await, Resolution::Absent);
}

#[tokio::test]
async fn a_names_underscores_and_dots_are_asked_as_they_are() {
    let server = server(|question, _| {
        assert_eq!(asked(question).to_ascii(), "tasks.my_stack_db-checker.");
        assert!(question.edns.is_some(), "without EDNS Docker cuts answers at 30 replicas");
        let mut message = answer(question);
        message.add_answers([a(&asked(question), ip(1))]);
        vec![message]
    })
    .await;
    let host = Host::Name("tasks.my_stack_db-checker".to_owned());
    assert_eq!(Resolver::new(config(Some(server))).resolve(&host).await, addresses([1]));
}

#[tokio::test]
async fn an_address_needs_no_server() {
    let resolver = Resolver::with_files(config(None), "/nonexistent", "/nonexistent");
    assert_eq!(resolver.resolve(&Host::Address(ip(7))).await, addresses([7]));
}

#[tokio::test]
async fn localhost_needs_no_server() {
    let resolver = Resolver::with_files(config(None), "/nonexistent", "/nonexistent");
    let localhost = Resolution::Addresses(vec![Ipv4Addr::LOCALHOST.into()]);
    assert_eq!(resolver.resolve(&Host::Name("LocalHost".to_owned())).await, localhost);
}

#[tokio::test]
async fn the_hosts_file_counts_only_without_a_server_of_ones_own() {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let text = "# comment\n::1 db-checker\n127.1.0.8 other DB-Checker # here\n127.1.0.9\tdb-checker\n";
    std::fs::write(&hosts, text).unwrap();
    let resolver = Resolver::with_files(config(None), "/nonexistent", &hosts);
    assert_eq!(resolver.resolve(&name()).await, addresses([8, 9]));

    let server = server(|q, _| code(q, ResponseCode::NXDomain)).await;
    resolver.reconfigure(config(Some(server)));
    assert_eq!(resolver.resolve(&name()).await, Resolution::Absent);
}

#[tokio::test]
async fn a_missing_or_empty_resolv_conf_is_named_with_the_remedy_until_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    let resolver = Resolver::with_files(config(None), &file, "/nonexistent");
    assert_failed(&resolver.resolve(&name()).await, "cannot be read");
    assert_failed(&resolver.resolve(&name()).await, "set dns.server");

    std::fs::write(&file, "search example.com\noptions ndots:0\n").unwrap();
    assert_failed(&resolver.resolve(&name()).await, "names no nameserver");

    std::fs::write(&file, "nameserver 127.0.0.11\nnameserver fe80::1%eth0\n  nameserver\t::1 # six\n").unwrap();
    assert_eq!(resolver.server_addresses().unwrap(), ["127.0.0.11:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);

    std::fs::write(&file, "nameserver 10.0.0.2\n").unwrap();
    assert_eq!(resolver.server_addresses().unwrap(), ["10.0.0.2:53".parse().unwrap()]);
}

#[tokio::test]
async fn the_second_server_is_asked_when_the_first_is_silent_or_fails() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let failing = server(|q, _| code(q, ResponseCode::ServFail)).await;
    let right = server(|question, _| {
        let mut message = answer(question);
        message.add_answers([a(&asked(question), ip(1))]);
        vec![message]
    })
    .await;
    let servers = vec![silent.local_addr().unwrap(), failing, right];
    let resolution = Resolver::ask_servers(servers, Duration::from_millis(600), "db-checker").await;
    assert_eq!(resolution, addresses([1]));
}

// A16
#[tokio::test]
async fn a_first_server_that_refuses_costs_no_time() {
    let second = server_of("db-checker", vec![ip(1)]).await;
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refusing = server(|question, _| code(question, ResponseCode::Refused)).await;
    for (what, first) in [("nobody listens", nobody), ("REFUSED", refusing)] {
        for _ in 0..3 {
            let began = clock::now();
            let resolution = Resolver::ask_servers(vec![first, second], Duration::from_secs(4), "db-checker").await;
            assert_eq!(resolution, addresses([1]));
            assert!(began.elapsed() < Duration::from_secs(1), "{what}: {:?} of 2 s", began.elapsed());
        }
    }
}

// D22
#[tokio::test]
async fn a_name_is_asked_for_addresses_of_the_configured_family() {
    let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    let both = server_of("db-checker", vec![v4, v6]).await;
    let only_v6 = server_of("db-checker", vec![v6]).await;
    let only = |address| Resolution::Addresses(vec![address]);
    for (family, of_both, of_v6) in [
        (Family::Ipv4, only(v4), Resolution::Absent),
        (Family::Ipv6, only(v6), only(v6)),
        // Not both of them: a replica that has two addresses would get twice its share.
        (Family::Any, only(v4), only(v6)),
    ] {
        for (server, expected) in [(both, of_both), (only_v6, of_v6)] {
            let resolver = Resolver::new(Dns { family, ..config(Some(server)) });
            assert_eq!(resolver.resolve(&name()).await, expected, "{family:?}");
        }
    }
}
