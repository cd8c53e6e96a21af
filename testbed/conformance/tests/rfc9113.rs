//! RFC 9113, section by section: each case of `httpwg` is played by its own client, frame by frame, before the proxy.
//!
//! Needs the workspace's programs: `cargo build --workspace --bins` before.

#![allow(clippy::disallowed_methods, missing_docs)] // tests live in real time

use buffet::net::TcpStream;
use httpwg::{Config, Conn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use testbed::{Loopback, Proxy, ProxyConfig};
use tokio::time::timeout;

mod cases {
    use buffet::IntoHalves;
    use httpwg::Conn;
    use std::collections::HashMap;

    httpwg_macros::gen_catalog! { catalog }
}

/// How long a frame is waited for. The cases that wait in vain are few.
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn every_case_of_rfc_9113_passes_through_the_proxy() {
    let network = Loopback::new();
    // The whole request is read before it is answered, and the answer is longer than the windows that cases open.
    let _origin = network.origin("app", |head, wire, _| {
        if wire.body(head).is_ok() {
            let _ = wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
        }
    });
    let proxy = Proxy::start(&network, testbed::binary("evenkeel"), &ProxyConfig::new(&network, "app"));
    let address = proxy.address();
    let (passed, failed) = buffet::start(play_all(address));
    assert!(failed.is_empty(), "{passed} cases passed, and these not:\n{}\n{}", failed.join("\n"), proxy.output());
    // An empty catalogue would pass as well.
    assert!(passed > 100, "only {passed} cases were found");
}

/// Plays one case after the other: how many passed, and what became of the others.
async fn play_all(address: SocketAddr) -> (usize, Vec<String>) {
    let (mut passed, mut failed) = (0, vec![]);
    let sections = cases::catalog::<TcpStream>().into_values().flatten();
    for (section, cases) in sections {
        for (name, case) in cases {
            match play(address, case).await {
                Ok(()) => passed += 1,
                Err(why) => failed.push(format!("{section}: {name}: {why}")),
            }
        }
    }
    failed.sort();
    (passed, failed)
}

/// Plays a case on a connection of its own.
async fn play(address: SocketAddr, case: httpwg::BoxedTest<TcpStream>) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    let config = Rc::new(Config { timeout: PATIENCE, ..Config::default() });
    // In a task of its own, as some cases end in a panic instead of an error.
    let played = tokio::task::spawn_local(case(Conn::new(config, stream)));
    match timeout(10 * PATIENCE, played).await {
        Ok(Ok(result)) => result.map_err(|error| error.to_string()),
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(_) => Err("it does not end".into()),
    }
}
