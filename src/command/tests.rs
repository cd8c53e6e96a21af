//! The commands against a real admin listener, real replicas and a real DNS server, all on loopback.

use super::check::examine;
use super::paint::Paint;
use super::*;
use crate::admin::Status;
use crate::admin::status::{DnsStatus, EndpointStatus, FailedRequest, Occurrence, Reload, UpstreamStatus};
use crate::admin::tests::{Told, serving};
use crate::config::{Config, Dns, Host, Sockets};
use crate::discovery::Resolver;
use crate::discovery::tests::dns::server_of;
use crate::pool::{Health, HeldBack, Resolution};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// `UPSTREAM=db-checker:8080` with this on top.
fn config(toml: &str) -> Config {
    let text = format!("[upstream.db-checker]\naddress = \"db-checker:8080\"\n{toml}\n");
    Config::parse(&text, "proxy.toml", &|_| None).unwrap()
}

// ---- ready, status

#[tokio::test]
async fn ready_is_an_exit_status() {
    let told = Arc::new(Told::default());
    let address = serving(told.clone()).await;
    let listen = SocketAddr::from(([127, 0, 0, 1], 80));
    let sockets = Sockets { listen, admin: Some(address), reuse_port: false };
    assert_eq!(ready(sockets).await, std::process::ExitCode::SUCCESS);
    *told.not_ready.lock().unwrap() = Some("draining".to_owned());
    assert_eq!(ready(sockets).await, std::process::ExitCode::FAILURE);
}

#[tokio::test]
async fn a_process_that_listens_everywhere_is_asked_on_loopback() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(crate::admin::serve(listener, Arc::new(Told::default())));
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let (status, body) = client::get(Some(everywhere), "/ready").await.unwrap();
    assert_eq!((status.as_u16(), &body[..]), (200, &b"ready\n"[..]));
}

#[tokio::test]
async fn why_the_running_proxy_cannot_be_asked_is_said_with_the_remedy() {
    let off = client::get(None, "/ready").await.unwrap_err();
    assert!(off.contains("server.admin is off"), "{off}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = client::get(Some(closed), "/ready").await.unwrap_err();
    assert!(nobody.contains("not running") && nobody.contains(&closed.to_string()), "{nobody}");

    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = stranger.local_addr().unwrap();
    tokio::spawn(async move { stranger.accept().await.unwrap().0.write_all(b"SSH-2.0\r\n").await });
    let other = client::get(Some(address), "/ready").await.unwrap_err();
    assert!(other.contains("another program"), "{other}");
}

fn busy() -> Status {
    let up = |address: &str| EndpointStatus {
        address: address.to_owned(),
        health: Health::Up,
        usable: true,
        since_seconds: 4000.0,
        weight: 1.0,
        score: Some(3.0),
        in_flight: 2,
        requests: 1_234_567,
        first_byte_seconds: Some(0.0041),
        ..EndpointStatus::default()
    };
    let refusing = EndpointStatus {
        suspect: true,
        usable: false,
        held_back: Some(HeldBack::Suspect),
        score: None,
        reason: "refused".to_owned(),
        failures: 3,
        ..up("172.18.0.104:8080")
    };
    let cold = EndpointStatus {
        next: true,
        window: Some(4),
        in_flight: 0,
        score: Some(1.0),
        since_seconds: 4.0,
        ..up("172.18.0.5:8080")
    };
    let upstream = UpstreamStatus {
        name: "db-checker".to_owned(),
        address: "db-checker:8080".to_owned(),
        waiting: 7,
        dns: Some(DnsStatus { addresses: Some(3), seconds_ago: 0.4, ..DnsStatus::default() }),
        endpoints: vec![up("172.18.0.3:8080"), refusing, cold],
        timeline: (0..20)
            .map(|n| Occurrence {
                seconds_ago: 20.0 - f64::from(n),
                address: Some("172.18.0.5:8080".to_owned()),
                kind: "joined".to_owned(),
                what: format!("event {n}"),
            })
            .collect(),
        failures: vec![FailedRequest {
            method: "GET".to_owned(),
            target: "/x".repeat(300),
            text: "nobody accepted".to_owned(),
            endpoints: vec!["172.18.0.104:8080".to_owned()],
            ..FailedRequest::default()
        }],
        ..UpstreamStatus::default()
    };
    Status {
        version: "0.1.0".to_owned(),
        uptime_seconds: 11_520.0,
        workers: 2,
        listen: "0.0.0.0:80".to_owned(),
        config: "proxy.toml".to_owned(),
        last_reload: Some(Reload { seconds_ago: 65.0, error: None }),
        upstreams: vec![upstream],
        ..Status::default()
    }
}

#[test]
fn what_has_no_file_is_not_said_to_be_not_reloaded() {
    let mut status = busy();
    status.last_reload = None;
    let text = table::draw(&status, Paint::new(false));
    assert!(text.contains("listening on 0.0.0.0:80 · proxy.toml · not reloaded\n"), "{text}");
    status.config = crate::admin::status::ENVIRONMENT.to_owned();
    let text = table::draw(&status, Paint::new(false));
    assert!(text.contains("listening on 0.0.0.0:80 · the environment alone\n"), "{text}");
}

#[test]
fn the_table_is_aligned_and_tells_who_is_next_and_who_is_not_and_why() {
    let text = table::draw(&busy(), Paint::new(false));
    assert!(!text.contains('\x1b'), "{text}");
    let lines: Vec<_> = text.lines().collect();
    let head = lines.iter().position(|line| line.contains("REPLICA")).unwrap();
    let ends = |line: &str, what: &str| line.find(what).map(|at| line[..at + what.len()].chars().count());
    let requests = ends(lines[head], "REQUESTS").unwrap();
    for row in &lines[head + 1..head + 4] {
        assert_eq!(ends(row, "1,234,567"), Some(requests), "\n{text}");
    }
    assert!(lines[head + 2].contains("suspect") && lines[head + 2].ends_with("refused"), "\n{text}");
    assert!(lines[head + 3].contains('▸') && lines[head + 3].contains("warming up") && lines[head + 3].contains("0/4"));
    assert!(text.contains("up 3 h 12 min") && text.contains("reloaded 1 min 5 s ago"), "\n{text}");
    assert!(text.contains("2 of 3 replicas usable") && text.contains("7 waiting"), "\n{text}");
    assert!(text.contains("0 requests in flight"), "\n{text}");
    assert!(text.contains("event 19") && !text.contains("event 9\n"), "the last events, not all\n{text}");
    assert!(lines.iter().all(|line| line.chars().count() < 160), "\n{text}");
}

// U4
#[test]
fn nothing_is_green_while_nothing_is_answered() {
    let mut status = busy();
    let upstream = &mut status.upstreams[0];
    upstream.endpoints.remove(1);
    for endpoint in &mut upstream.endpoints {
        endpoint.usable = false;
        endpoint.no_answer_seconds = Some(4.2);
    }
    upstream.judge(Some(Duration::from_millis(4300)));
    let text = table::draw(&status, Paint::new(true));
    assert!(text.contains("\x1b[31m0 of 2 replicas usable"), "{text}");
    assert!(text.contains("\x1b[31mno answer for 4.3 s"), "{text}");
    assert!(text.contains("\x1b[31mno answer\x1b") && text.contains("no answer for 4.2 s"), "{text}");
    let replicas = text.lines().skip_while(|line| !line.contains("REPLICA"));
    assert!(replicas.take(3).all(|line| !line.contains("\x1b[32m")), "{text}");
}

// U12
#[test]
fn a_replica_of_a_quiet_app_is_not_warming_up_for_ever() {
    let drawn = |since_seconds, in_flight| {
        let mut status = busy();
        let endpoint = &mut status.upstreams[0].endpoints[2];
        (endpoint.since_seconds, endpoint.in_flight) = (since_seconds, in_flight);
        table::draw(&status, Paint::new(false)).contains("warming up")
    };
    assert!(drawn(4.0, 0), "it came up just now");
    assert!(!drawn(3600.0, 1), "it was never full for an hour");
    assert!(drawn(3600.0, 4), "its window holds requests back");
}

#[test]
fn colours_do_not_disturb_the_table() {
    let coloured = table::draw(&busy(), Paint::new(true));
    assert!(coloured.contains("\x1b[32mup"), "{coloured}");
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, escape)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = escape.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, table::draw(&busy(), Paint::new(false)));
}

#[test]
fn an_empty_pool_and_a_refused_reload_are_plain_to_see() {
    let upstream = UpstreamStatus {
        outage_seconds: Some(12.0),
        dns: Some(DnsStatus { error: Some("SERVFAIL".to_owned()), ..DnsStatus::default() }),
        ..UpstreamStatus::default()
    };
    let reload = Reload { seconds_ago: 1.0, error: Some("proxy.toml: no".to_owned()) };
    let status = Status { upstreams: vec![upstream], last_reload: Some(reload), ..Status::default() };
    let text = table::draw(&status, Paint::new(false));
    for said in ["0 of 0 replicas usable", "nobody for 12 s", "SERVFAIL", "reload refused", "proxy.toml: no"] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

// ---- check

/// Fresh loopback addresses, so that parallel tests may use the same ports.
fn replicas(number: u8) -> Vec<IpAddr> {
    let (a, b) = (fastrand::u8(1..255), fastrand::u8(..));
    (1..=number).map(|last| Ipv4Addr::new(127, a, b, last).into()).collect()
}

/// Answers every request with that.
async fn replica(address: SocketAddr, answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

/// What `check` says of `db-checker:port`, which has those addresses.
async fn check_of(known: &'static str, addresses: Vec<IpAddr>, port: u16, toml: &str) -> (String, bool) {
    let mut config = config(toml);
    let second = Duration::from_secs(1);
    let server = Some(server_of(known, addresses).await);
    config.dns = Dns { server, interval: second, timeout: second, hold: second, ..config.dns };
    let mut upstream = (*config.upstreams[0]).clone();
    upstream.port = port;
    examine(&config, &upstream, &Resolver::new(config.dns.clone()), Paint::new(false)).await
}

const PROBE: &str = "[upstream.db-checker.probe]\npath = \"/ping\"\nhealthy = [200]";

#[tokio::test]
async fn one_replica_that_works_is_enough() {
    let all = replicas(2);
    let up = replica(SocketAddr::new(all[1], 0), "HTTP/1.1 200 OK\r\n\r\n").await;
    let (text, works) = check_of("db-checker", all.clone(), up.port(), PROBE).await;
    assert!(works, "{text}");
    assert!(text.contains("resolves to 2 addresses"), "{text}");
    assert!(text.contains(&format!("{up}  answers its probe")), "{text}");
    assert!(text.contains(&format!("{}:{}  refuses connections", all[0], up.port())), "{text}");
}

#[tokio::test]
async fn replicas_that_refuse_are_tried_on_dokkus_default_port() {
    let all = replicas(3);
    let _open = replica(SocketAddr::new(all[0], 5000), "").await;
    let (text, works) = check_of("db-checker", all, 8081, "").await;
    assert!(!works);
    assert!(text.contains("3 replicas refuse 8081; 5000, Dokku's default, is open: use db-checker:5000"), "{text}");
}

#[tokio::test]
async fn replicas_that_refuse_everywhere_may_listen_on_loopback_only() {
    let (text, works) = check_of("db-checker", replicas(1), 8081, "").await;
    assert!(!works);
    assert!(text.contains("1 replica refuses 8081; Dokku's default is 5000") && text.contains("0.0.0.0"), "{text}");
}

#[tokio::test]
async fn a_name_without_its_process_is_found_as_dokku_names_it() {
    let (text, works) = check_of("db-checker.web", replicas(3), 8080, "").await;
    assert!(!works);
    assert!(text.contains("no such name") && text.contains("db-checker.web resolves to 3 addresses"), "{text}");
}

// D22
#[tokio::test]
async fn a_name_with_addresses_of_the_other_family_only_is_met_with_the_key_to_set() {
    for (address, family, said) in [
        ("::1", "ipv4", "db-checker has 1 address, but of IPv6 only: set dns.family = \"ipv6\", or \"any\""),
        ("127.0.0.1", "ipv6", "db-checker has 1 address, but of IPv4 only: set dns.family = \"ipv4\", or \"any\""),
    ] {
        let server = server_of("db-checker", vec![address.parse().unwrap()]).await;
        let config = config(&format!("[dns]\nserver = \"{server}\"\nfamily = \"{family}\""));
        let resolver = Resolver::new(config.dns.clone());
        let (text, works) = examine(&config, &config.upstreams[0].clone(), &resolver, Paint::new(false)).await;
        assert!(!works);
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_met_with_what_to_look_for() {
    let (text, works) = check_of("other", replicas(1), 8080, "").await;
    assert!(!works);
    assert!(text.contains("same network") && text.contains("APP.PROCESS"), "{text}");
}

// U9
#[tokio::test]
async fn a_name_that_nobody_can_know_is_told_from_one_that_nobody_has() {
    let dir = tempfile::tempdir().unwrap();
    let said = |server: &'static str, resolution: Resolution| {
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, format!("nameserver {server}\n")).unwrap();
        let config = config("");
        async move {
            // Nobody is asked whose answer would count: the name is one that is never looked up.
            let resolver = Resolver::with_files(config.dns.clone(), file, "/nonexistent");
            super::check::guess_name(&config, &Host::Name("localhost.invalid-".into()), &resolution, &resolver).await
        }
    };
    let bridge = said("192.0.2.53", Resolution::Absent).await;
    assert!(bridge.contains("default bridge") && bridge.contains("192.0.2.53"), "{bridge}");
    let internal = said("127.0.0.11", Resolution::Failed("no answer from 127.0.0.11:53 within 1s".into())).await;
    assert!(
        internal.contains("--internal") && internal.contains("no container on this proxy's networks"),
        "{internal}"
    );
    assert!(!internal.contains("is there a DNS server"), "{internal}");
    let unknown = said("127.0.0.11", Resolution::Absent).await;
    assert!(unknown.starts_with("no container on this proxy's networks has that name"), "{unknown}");
}

// U9
#[tokio::test]
async fn localhost_is_not_met_with_the_proxys_own_port() {
    let own = replica(SocketAddr::from(([127, 0, 0, 1], 0)), "").await;
    // Open, whoever holds it: if it cannot be bound, somebody else listens there.
    let _usual = TcpListener::bind("127.0.0.1:3000").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = config("");
    config.server.listen = own;
    let mut upstream = (*config.upstreams[0]).clone();
    (upstream.host, upstream.port) = (Host::Name("localhost".into()), closed.port());
    let resolver = Resolver::new(config.dns.clone());
    let (text, works) = examine(&config, &upstream, &resolver, Paint::new(false)).await;
    assert!(!works);
    assert!(text.contains("localhost is the proxy's own container") && !text.contains("open"), "{text}");
}

// U9
#[tokio::test]
async fn a_port_on_which_the_proxy_listens_itself_is_not_proposed() {
    let all = replicas(1);
    // The name is the app's and the proxy's, as where both run in one container or have one alias.
    let own = replica(SocketAddr::new(all[0], 3000), "").await;
    let _open = replica(SocketAddr::new(all[0], 9090), "").await;
    let (text, works) = check_of("db-checker", all, 8081, &format!("[server]\nlisten = \"{own}\"")).await;
    assert!(!works);
    assert!(text.contains("1 replica refuses 8081; 9090 is open: use db-checker:9090"), "{text}");
}

// U9
#[tokio::test]
async fn an_app_that_refuses_unknown_hosts_is_found_though_its_probe_passes() {
    let [strict, lenient] = [true, false].map(|strict| {
        let listener = std::net::TcpListener::bind((replicas(1)[0], 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let read = std::io::Read::read(&mut stream, &mut request).unwrap();
                let known = String::from_utf8_lossy(&request[..read]).contains("Host: shop.example\r\n");
                let status = if known || !strict { "200 OK" } else { "400 Bad Request" };
                let _ = std::io::Write::write_all(&mut stream, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
            }
        });
        address
    });
    let known = "[upstream.db-checker.probe]\npath = \"/ping\"\nhost = \"shop.example\"";
    for (address, toml, refused) in [
        (strict, known, true),
        (strict, "", true),
        (strict, "host = \"shop.example\"", false),
        (strict, "host = \"shop.example\"\n[upstream.db-checker.probe]\npath = \"/ping\"", false),
        (lenient, known, false),
    ] {
        let (text, works) = check_of("db-checker", vec![address.ip()], address.port(), toml).await;
        assert!(works, "{text}");
        assert_eq!(text.contains("but it answers 400"), refused, "{toml}\n{text}");
        assert_eq!(text.contains("set host = \"NAME\""), refused, "{toml}\n{text}");
    }
}

#[tokio::test]
async fn a_resolver_that_is_not_there_is_named() {
    let mut config = config("");
    // Held, and silent.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    config.dns.server = Some(silent.local_addr().unwrap());
    config.dns.timeout = Duration::from_millis(50);
    let resolver = Resolver::new(config.dns.clone());
    let (text, works) = examine(&config, &config.upstreams[0].clone(), &resolver, Paint::new(false)).await;
    assert!(!works);
    assert!(text.contains(&format!("is there a DNS server at {}?", silent.local_addr().unwrap())), "{text}");
}

#[tokio::test]
async fn a_status_that_does_not_pass_is_met_with_what_to_write() {
    for (answer, said) in [
        ("HTTP/1.1 424 Failed Dependency\r\n\r\n", "probe.healthy = [200, 424]"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "the app has no /ping"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "Host: db-checker"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "set host = \"NAME\" in [upstream.db-checker]"),
        ("HTTP/1.1 301 Moved\r\nLocation: https://app/ping\r\n\r\n", "status 301, Location: https://app/ping"),
        ("HTTP/1.1 301 Moved\r\nLocation: https://app/ping\r\n\r\n", "probe.healthy = [200, 301]"),
        ("HTTP/1.1 301 Moved\r\nLocation: http://app/ping/\r\n\r\n", "probe.path = \"/ping/\""),
        ("HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "/ping leads to /login"),
        ("220 mail ESMTP\r\n", "does not speak HTTP"),
        ("HTTP/1.1 508 Loop\r\nProxy-Status: evenkeel; error=proxy_loop_detected\r\n\r\n", "leads to a proxy"),
    ] {
        let all = replicas(1);
        let address = replica(SocketAddr::new(all[0], 0), answer).await;
        let (text, works) = check_of("db-checker", all, address.port(), PROBE).await;
        assert!(!works);
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn an_alias_that_is_the_proxy_itself_is_named() {
    let mut config = config("");
    config.server.listen = "127.0.0.1:8080".parse().unwrap();
    let mut upstream = (*config.upstreams[0]).clone();
    upstream.host = Host::Address(Ipv4Addr::LOCALHOST.into());
    upstream.port = 8080;
    let resolver = Resolver::new(config.dns.clone());
    let (text, works) = examine(&config, &upstream, &resolver, Paint::new(false)).await;
    assert!(!works);
    assert!(text.contains("127.0.0.1:8080 is this proxy itself"), "{text}");
    assert!(text.contains("127.0.0.1 is this proxy's own container: write the app's name"), "{text}");
}
