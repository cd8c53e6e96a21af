//! What scripts and callers see of `db-checker`, in front of a real PostgreSQL.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use testbed::{Postgres, Process, Wire, eventually};

/// In each `DATABASE_URL` of these tests, and never in what `db-checker` says.
const PASSWORD: &str = "s3cret";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

// T8
#[test]
fn a_check_tells_by_its_words_and_its_exit_status() {
    let mut postgres = Postgres::start(LOOPBACK).unwrap();
    assert_eq!(check(&postgres.url()), (Some(0), "DB is available\n".into()));
    postgres.stop();
    let (code, said) = check(&postgres.url());
    assert_eq!(code, Some(1));
    assert!(said.starts_with("DB is not available. Error: ") && said.contains("refused"), "{said}");
    postgres.resume().unwrap();
    assert_eq!(check(&postgres.url()).0, Some(0));
    postgres.pause();
    let (code, said) = check(&postgres.url());
    assert_eq!((code, said.as_str()), (Some(1), "DB is not available. Error: no answer within 2 s\n"));
}

// T8
#[test]
fn a_wrong_password_is_an_unavailable_database_and_is_not_repeated() {
    let postgres = Postgres::start(LOOPBACK).unwrap();
    let (code, said) = check(&postgres.url().replace(PASSWORD, "hunter2"));
    assert_eq!(code, Some(1));
    assert!(said.contains("password authentication failed") && !said.contains("hunter2"), "{said}");
}

// T8
#[test]
fn an_address_that_is_none_ends_the_start_with_the_remedy_and_without_the_address() {
    let address = |query: &str| format!("postgres://app:{PASSWORD}@127.0.0.1:1/app{query}");
    for (url, says) in [
        (String::new(), "DATABASE_URL is not set"),
        (format!("mysql://app:{PASSWORD}@db/app"), "it does not start with postgres://"),
        (format!("postgres://app:{PASSWORD}@db:port/app"), "invalid value for option `port`"),
        (format!("app:{PASSWORD}@db"), "it does not start with postgres://"),
        (address("?sslmode=allow"), "sslmode=allow is not supported, disable, prefer, require"),
        (
            address("?sslmode=verify-full"),
            "sslmode=verify-full needs the authority's certificate: add sslrootcert=FILE",
        ),
        (address("?sslmode=require&sslrootcert=/nowhere.pem"), "sslrootcert=/nowhere.pem: "),
        (address("?sslmode=require&sslrootcert=/dev/null"), "sslrootcert=/dev/null: "),
    ] {
        for arguments in [&["check"][..], &[]] {
            let (code, said) = run(arguments, &url);
            assert_eq!(code, Some(1), "{url}: {said}");
            assert!(said.starts_with("db-checker: DATABASE_URL is not") && said.contains(says), "{url}: {said}");
            assert!(said.contains("set it like DATABASE_URL=postgres://"), "{said}");
        }
    }
    let (code, said) = run(&["chekc"], "");
    assert!(code == Some(2) && said.contains("usage: db-checker"), "{said}");
}

// T8, U12
#[test]
fn ping_is_200_or_424_as_the_database_comes_and_goes_whatever_the_method() {
    let mut postgres = Postgres::start(LOOPBACK).unwrap();
    let app = App::start(&postgres.url());
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
        assert_eq!(app.ask(method, "/ping"), 200, "{method}");
    }
    assert_eq!(app.ask("GET", "/"), 404);
    postgres.stop();
    assert_eq!(app.ask("GET", "/ping"), 424);
    assert_eq!(app.ask("POST", "/ping"), 424);
    postgres.resume().unwrap();
    assert_eq!(app.ask("GET", "/ping"), 200, "a kept connection to the old server is no obstacle");
    // What it prints is read by a thread that may be later than its answer.
    app.process.wait_for_line("DB is available again");
    let output = app.process.output();
    assert_eq!(output.matches("DB is not available. Error: ").count(), 1, "a change is said once: {output}");
    assert_eq!(output.matches("DB is available again").count(), 1, "{output}");
    assert!(!output.contains(PASSWORD), "{output}");
}

// T8
#[test]
fn it_starts_before_its_database() {
    let port = TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap();
    let app = App::start(&format!("postgres://app:{PASSWORD}@{port}/app"));
    assert_eq!(app.ask("GET", "/ping"), 424);
}

// T8
#[test]
fn encryption_is_verified_as_far_as_the_address_asks_and_no_further() {
    let authority = Authority::new();
    let foreign = Authority::new();
    let (certificate, key) = authority.sign("127.0.0.1");
    let right = Postgres::start_encrypted(LOOPBACK, &certificate, &key).unwrap();
    let (certificate, key) = authority.sign("other.test");
    let misnamed = Postgres::start_encrypted(LOOPBACK, &certificate, &key).unwrap();
    let plain = Postgres::start(LOOPBACK).unwrap();
    let (ours, theirs) = (authority.root(), foreign.root());
    let ours = |mode: &str| format!("?sslmode={mode}&sslrootcert={}", ours.display());
    let theirs = |mode: &str| format!("?sslmode={mode}&sslrootcert={}", theirs.display());
    for (database, query, available) in [
        // Like libpq: without a root certificate nobody is verified.
        (&right, "?sslmode=require".to_owned(), true),
        (&right, "?sslmode=prefer".into(), true),
        (&right, "?sslmode=disable".into(), true),
        (&misnamed, "?sslmode=require".into(), true),
        (&right, ours("verify-full"), true),
        (&right, ours("verify-ca"), true),
        (&misnamed, ours("verify-ca"), true),
        (&misnamed, ours("verify-full"), false),
        (&right, theirs("verify-ca"), false),
        (&right, theirs("verify-full"), false),
        (&right, theirs("require"), false),
        (&plain, "?sslmode=require".into(), false),
        (&plain, "?sslmode=prefer".into(), true),
        (&plain, ours("verify-full"), false),
    ] {
        let (code, said) = check(&format!("{}{query}", database.url()));
        assert_eq!(code == Some(0), available, "{query}: {said}");
    }
}

/// Who signs certificates, and the file with its own.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// A certificate for this host, and its key.
    fn sign(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Exit status and output of `db-checker check`. Whatever it says, it never says the password.
fn check(url: &str) -> (Option<i32>, String) {
    run(&["check"], url)
}

fn run(arguments: &[&str], url: &str) -> (Option<i32>, String) {
    let ended = command(url).args(arguments).output().expect("the built program starts");
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(!said.contains(PASSWORD), "{said}");
    (ended.status.code(), said)
}

fn command(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_db-checker"));
    command.env_clear().env("DATABASE_URL", url).env("HOST", "127.0.0.1").env("PORT", "0");
    command
}

/// A running `db-checker`.
struct App {
    process: Process,
    address: SocketAddr,
}

impl App {
    fn start(url: &str) -> App {
        let process = Process::spawn("db-checker", command(url)).expect("the built program starts");
        let line = process.wait_for_line("listens on");
        let address = line.rsplit(' ').next().and_then(|a| a.parse().ok()).expect("the line ends with the address");
        eventually("it takes connections", || Wire::try_connect(address).is_ok());
        App { process, address }
    }

    fn ask(&self, method: &str, target: &str) -> u16 {
        let mut wire = Wire::connect(self.address);
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        wire.response_to(method).expect("a whole response").status
    }
}
