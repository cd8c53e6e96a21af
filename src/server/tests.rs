//! What holds whatever goes wrong inside.

use super::*;
use crate::config::Route;
use crate::discovery::tests::upstream;
use crate::proxy::{Proxy, Table};
use crate::route::Router;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn ask(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

// F78
#[tokio::test]
async fn a_panic_in_one_request_ends_that_one_only() {
    let env = |name: &str| (name == "UPSTREAM").then(|| "nobody:80".to_owned());
    let config = Config::load(None, &env).expect("the environment alone is enough");
    let nobody = upstream(crate::config::Host::Name("nobody".into()), 80);
    let mut quick = (*nobody.config()).clone();
    quick.wait = Duration::ZERO;
    quick.on_failure = crate::config::OnFailure::Respond;
    // The second upstream does not exist: whoever asks for it makes the request's task panic.
    let route =
        |upstream, prefix: &str| Route { upstream, host: None, path_prefix: Some(prefix.into()), strip_prefix: false };
    let table = Table {
        server: config.server.clone(),
        router: Router::new(&[route(1, "/panic"), route(0, "/fine")]),
        upstreams: vec![(nobody, Arc::new(quick))],
    };
    let proxy = Proxy::new(table);
    let listener = Bound::new("127.0.0.1:0".parse().unwrap(), true, 1, false).unwrap().listen().unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    let limit = ConnectionLimit::new(10);
    let (_commander, orders) = drain::Commander::new(None);
    tokio::spawn(accept::serve(listener, false, proxy.clone(), limit.clone(), orders));
    for _ in 0..4 {
        assert_eq!(ask(address, "/panic").await, "");
        let answer = ask(address, "/fine").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    while limit.open() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.requests(), 0, "what panicked is counted out");
}
