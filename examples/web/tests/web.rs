//! What the users of `web` see, whatever it is that answers at `CHECK_DB_URL`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{Head, Origin, Process, Response, Signal, Wire, eventually};

#[test]
fn only_a_200_means_available() {
    for (status, body) in [
        ("200 OK", "DB is available"),
        ("204 No Content", "DB is not available"),
        ("302 Found", "DB is not available"),
        ("404 Not Found", "DB is not available"),
        ("424 Failed Dependency", "DB is not available"),
        ("500 Internal Server Error", "DB is not available"),
        ("503 Service Unavailable", "DB is not available"),
    ] {
        let origin = origin(move |_, wire, _| wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")));
        let web = Web::asking(&url(origin.address()));
        let response = web.check_db();
        assert_eq!((response.status, response.text().as_str()), (200, body), "db-checker says {status}");
        assert_eq!(response.get("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(origin.heads()[0].first, "GET /ping HTTP/1.1");
    }
}

#[test]
fn nobody_listening_is_a_500_with_the_transport_error() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port that is free again");
    let web = Web::asking(&url(nobody));
    web.assert_transport_error("Connection refused");
}

#[test]
fn a_connection_closed_without_an_answer_is_a_500_with_the_transport_error() {
    let origin = origin(|_, wire, _| wire.close());
    let web = Web::asking(&url(origin.address()));
    web.assert_transport_error("connection closed before message completed");
}

#[test]
fn a_connection_reset_without_an_answer_is_a_500_with_the_transport_error() {
    let origin = origin(|_, wire, _| wire.reset());
    let web = Web::asking(&url(origin.address()));
    web.assert_transport_error("");
}

#[test]
fn an_unknown_name_is_a_500_with_the_transport_error() {
    let web = Web::asking("http://db-checker.invalid/ping");
    web.assert_transport_error("lookup");
}

#[test]
fn silence_is_a_500_in_the_end() {
    let origin = origin(|_, wire, _| drop(wire.ending()));
    let web = Web::asking(&url(origin.address()));
    web.assert_transport_error("no answer within 10 s");
}

#[test]
fn checks_share_one_kept_connection() {
    let origin = origin(|_, wire, _| wire.send(AVAILABLE));
    let web = Web::asking(&url(origin.address()));
    for _ in 0..5 {
        assert_eq!(web.check_db().text(), "DB is available");
    }
    assert_eq!((origin.requests(), origin.connections()), (5, 1));
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_no_check() {
    let origin = origin(|_, wire, _| {
        wire.send(AVAILABLE);
        wire.half_close();
        // Until `web` has closed its side too, so that the next check comes after.
        wire.ending();
        wire.close();
    });
    let web = Web::asking(&url(origin.address()));
    for _ in 0..3 {
        assert_eq!(web.check_db().text(), "DB is available");
        eventually("web closes its side", || origin.open() == 0);
    }
}

#[test]
fn other_paths_are_404_and_other_methods_405_and_neither_asks() {
    let origin = origin(|_, wire, _| wire.send(AVAILABLE));
    let web = Web::asking(&url(origin.address()));
    for path in ["/", "/check_db/", "/check_dbs", "/ping"] {
        assert_eq!(web.ask("GET", path).status, 404, "{path}");
    }
    let refused = web.ask("POST", "/check_db");
    assert_eq!((refused.status, refused.get("allow")), (405, Some("GET, HEAD")));
    assert_eq!(origin.requests(), 0);
    let head = web.ask("HEAD", "/check_db?x=1");
    assert_eq!((head.status, head.get("content-length")), (200, Some("15")));
}

#[test]
fn sigterm_lets_a_running_check_finish_and_then_ends() {
    let answer = Arc::new(AtomicBool::new(false));
    let released = answer.clone();
    let origin = origin(move |_, wire, _| {
        eventually("the test lets db-checker answer", || released.load(Ordering::Relaxed));
        wire.send(AVAILABLE);
    });
    let web = Web::asking(&url(origin.address()));
    let _idle = Wire::connect(web.address);
    let mut running = Wire::connect(web.address);
    running.get("/check_db");
    eventually("the check is on its way", || origin.requests() == 1);
    web.process.signal(Signal::SIGTERM);
    eventually("nothing new is taken", || TcpStream::connect(web.address).is_err());
    assert!(web.process.exited().is_none());
    answer.store(true, Ordering::Relaxed);
    let response = running.response().expect("a whole response");
    assert_eq!((response.status, response.text().as_str()), (200, "DB is available"));
    assert!(web.process.wait_exit().success());
}

#[test]
fn bad_settings_end_the_start_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let good = ("CHECK_DB_URL", "http://proxy/ping");
    for (settings, says) in [
        (&[][..], "CHECK_DB_URL is not set; set it like CHECK_DB_URL=http://proxy/ping"),
        (&[("CHECK_DB_URL", "")], "CHECK_DB_URL is not set"),
        (&[("CHECK_DB_URL", "proxy/ping")], "set it like CHECK_DB_URL=http://proxy/ping"),
        (&[("CHECK_DB_URL", "proxy")], "does not start with http://"),
        (&[("CHECK_DB_URL", "https://proxy/ping")], "only http is supported"),
        (&[("CHECK_DB_URL", "http://a:b@proxy/ping")], "user or a password"),
        (&[("CHECK_DB_URL", "http://")], "set it like CHECK_DB_URL=http://proxy/ping"),
        (&[good, ("PORT", "http")], "PORT=\"http\" must be a number"),
        (&[good, ("PORT", "65536")], "PORT=\"65536\" must be a number"),
        (&[good, ("HOST", "localhost")], "HOST=\"localhost\" must be an IP address"),
        (&[good, ("HOST", "127.0.0.1"), ("PORT", &port)], "set PORT to a free port"),
    ] {
        let Output { status, stderr, .. } =
            command().envs(settings.iter().copied()).output().expect("the built program starts");
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{settings:?}: {stderr}");
        assert!(stderr.starts_with("web: ") && stderr.contains(says), "{settings:?}: {stderr}");
    }
}

const AVAILABLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn origin(script: impl Fn(&Head, &mut Wire, usize) + Send + Sync + 'static) -> Origin {
    Origin::listen(SocketAddr::from(([127, 0, 0, 1], 0)), script).expect("a free port")
}

fn url(of: SocketAddr) -> String {
    format!("http://{of}/ping")
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_web"));
    command.env_clear();
    command
}

/// A running `web`.
struct Web {
    process: Process,
    address: SocketAddr,
}

impl Web {
    fn asking(url: &str) -> Web {
        let mut command = command();
        command.env("CHECK_DB_URL", url).env("HOST", "127.0.0.1").env("PORT", "0");
        let process = Process::spawn("web", command).expect("the built program starts");
        let line = process.wait_for_line("listens on");
        let address = line.rsplit(' ').next().and_then(|a| a.parse().ok()).expect("the line ends with the address");
        Web { process, address }
    }

    fn check_db(&self) -> Response {
        self.ask("GET", "/check_db")
    }

    fn ask(&self, method: &str, target: &str) -> Response {
        let mut wire = Wire::connect(self.address);
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: web.test\r\n\r\n"));
        wire.response_to(method).expect("a whole response")
    }

    #[track_caller]
    fn assert_transport_error(&self, says: &str) {
        let response = self.check_db();
        let text = response.text();
        assert_eq!(response.status, 500, "{text}");
        assert!(text.starts_with("could not check if DB is available: ") && text.contains(says), "{text:?}");
    }
}
