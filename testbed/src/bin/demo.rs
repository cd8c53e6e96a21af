//! The whole chain on one machine, without Docker: web → evenkeel → db-checker × N → PostgreSQL.
//!
//! Shows, step by step and under load, what the proxy does when replicas die, come and go, and when the database does.
//! On a terminal it draws in place and stays up afterwards; without one (or with `--once`) it ends with a summary, and
//! with 0 only if every step went as it must.

#![allow(clippy::disallowed_methods)] // it lives in real time

use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use testbed::{App, Asked, Container, Load, Loopback, Network, Plan, Postgres, Protocol, Proxy, Signal, Wire, binary};

/// Requests a second to the proxy while the steps run.
const RATE: f64 = 100.0;

/// How long a step may take to show what it must.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many steps there are, so that each can say how far it is.
const STEPS: usize = 7;

/// How long each state is left to be looked at, on a terminal.
const LOOK: Duration = Duration::from_millis(2500);

/// And without one, where the load alone needs it: a hundred requests.
const LOAD: Duration = Duration::from_secs(1);

/// How often the picture is drawn.
const FRAME: Duration = Duration::from_millis(250);

struct Demo {
    load: Load,
    web: Box<dyn Container>,
    proxy: Proxy,
    checkers: Vec<Box<dyn Container>>,
    checker: App,
    postgres: Postgres,
    network: Loopback,
    live: bool,
    began: Instant,
    done: Vec<String>,
    failed: bool,
    /// Lost requests that a step takes into the bargain: those of the outage that it makes.
    expected_lost: u64,
}

fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    let live = std::io::stdout().is_terminal() && !once;
    match Demo::start(live) {
        Ok(demo) => demo.run(),
        Err(problem) => {
            eprintln!("demo: {problem}");
            ExitCode::FAILURE
        }
    }
}

impl Demo {
    fn start(live: bool) -> Result<Demo, String> {
        let began = Instant::now();
        say(&format!("the demo starts its parts, then shows {STEPS} steps, in half a minute or less"));
        say("PostgreSQL starts: a private cluster in a temporary folder");
        let postgres = Postgres::start(std::net::Ipv4Addr::LOCALHOST.into()).map_err(|error| error.to_string())?;
        let network = Loopback::new();
        say("three db-checkers start under the alias db-checker");
        let checker = App::new(binary("db-checker")).env("DATABASE_URL", postgres.url());
        let checkers = network.scale("db-checker", &checker, 3);
        say("evenkeel starts under the alias proxy, with the shipped proxy.toml");
        let proxy = Proxy::start_shipped(&network, binary("evenkeel"), "db-checker", Protocol::Http1);
        say("web starts with CHECK_DB_URL=http://proxy/ping");
        let url = format!("http://{}/ping", proxy.address());
        let web = network.start("web", &App::new(binary("web")).env("CHECK_DB_URL", url));
        web.wait_listening();
        // 424 is db-checker's answer while the database is down.
        let plan =
            Plan { app: Asked::Path("/ping".into()), answers: vec![200, 424], ..Plan::new(proxy.address(), RATE) };
        say(&format!("a load starts: {RATE} requests a second to the proxy, by a client that never retries"));
        let load = Load::start(plan);
        say(&format!("ready after {}\n", seconds(began)));
        Ok(Demo {
            load,
            web,
            proxy,
            checkers,
            checker,
            postgres,
            network,
            live,
            began,
            done: Vec::new(),
            failed: false,
            expected_lost: 0,
        })
    }

    fn run(mut self) -> ExitCode {
        let available = (200, "DB is available");
        self.step("web asks db-checker through the proxy", available, |_| {});
        self.step("one replica is killed (SIGKILL) under load", available, |demo| {
            let dead = demo.checkers.remove(0);
            dead.signal(Signal::SIGKILL);
            dead.wait_exit();
        });
        self.step("db-checker is scaled to five", available, |demo| {
            let more = demo.network.scale("db-checker", &demo.checker, 5 - demo.checkers.len());
            demo.checkers.extend(more);
        });
        self.step("PostgreSQL stops: 424 is an answer, no replica is blamed", (200, "DB is not available"), |demo| {
            demo.postgres.stop();
        });
        self.step("PostgreSQL starts again", available, |demo| {
            if let Err(error) = demo.postgres.resume() {
                eprintln!("demo: PostgreSQL does not start again: {error}");
            }
        });
        let before = self.load.lost();
        self.step(
            "all replicas are killed: web meets the transport error that a direct dial would give",
            (500, "could not check if DB is available: "),
            |demo| {
                for dead in demo.checkers.drain(..) {
                    dead.signal(Signal::SIGKILL);
                }
            },
        );
        self.step("three replicas come back", available, |demo| {
            demo.checkers = demo.network.scale("db-checker", &demo.checker, 3);
        });
        self.expected_lost = self.load.lost() - before;
        self.end()
    }

    /// Does something, waits until web's users see what they must, and leaves it to be looked at.
    fn step(&mut self, what: &str, expected: (u16, &str), act: impl FnOnce(&mut Demo)) {
        let began = Instant::now();
        let lost = self.load.lost();
        let what = &format!("{}/{STEPS} {what}", self.done.len() + 1);
        if !self.live {
            println!("▸ {what}");
        }
        self.draw(&format!("▸ {what}"));
        act(self);
        let mut seen = self.check_db();
        while !(seen.0 == expected.0 && seen.1.starts_with(expected.1)) && began.elapsed() < PATIENCE {
            std::thread::sleep(FRAME);
            self.draw(&format!("▸ {what}"));
            seen = self.check_db();
        }
        let good = seen.0 == expected.0 && seen.1.starts_with(expected.1);
        let shown = began.elapsed();
        let looked = Instant::now();
        while looked.elapsed() < if self.live { LOOK } else { LOAD } {
            self.draw(&format!("▸ {what}"));
            std::thread::sleep(FRAME);
        }
        let mark = if good { "✓" } else { "✗" };
        let lost = self.load.lost() - lost;
        let line = format!(
            "{mark} {what}\n    /check_db → {} {:?} after {:.1} s   lost {lost}",
            seen.0,
            seen.1,
            shown.as_secs_f64()
        );
        if !self.live {
            println!("{line}\n{}", indented(&self.table()));
        }
        self.failed |= !good;
        self.done.push(line);
    }

    /// Says how it went; on a terminal, stays up until Ctrl-C.
    fn end(mut self) -> ExitCode {
        let lost = self.load.lost() - self.expected_lost;
        let sent = self.load.sent();
        self.failed |= lost > 0;
        self.draw("");
        println!("{sent} requests sent, {lost} lost; {} more while every replica was dead", self.expected_lost);
        println!("shown in {}", seconds(self.began));
        if self.live {
            println!("\nIt stays up. Try, from another terminal:\n");
            println!("  curl http://{}/check_db      web, through the proxy", self.web.address());
            println!("  curl http://{}/ping          db-checker, through the proxy", self.proxy.address());
            println!("  curl http://{}/status        what the proxy sees", self.proxy.admin());
            println!("  curl http://{}/metrics", self.proxy.admin());
            for checker in &self.checkers {
                println!("  kill -9 {:<8}  {} at {}", checker.pid(), checker.name(), checker.address());
            }
            println!("\nCtrl-C ends it and leaves nothing behind.");
            loop {
                std::thread::park();
            }
        }
        println!("{}", if self.failed { "The demo FAILED." } else { "Everything went as it must." });
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn check_db(&self) -> (u16, String) {
        let mut wire = Wire::connect(self.web.address());
        wire.get("/check_db");
        wire.response().map_or((0, "web does not answer".into()), |response| (response.status, response.text()))
    }

    /// What `evenkeel status` says.
    fn table(&self) -> String {
        let mut command = Command::new(binary("evenkeel"));
        command.arg("status").env("EVENKEEL_CONFIG", self.proxy.config_path());
        command.env("UPSTREAM", "db-checker:1").env("HOST", self.proxy.admin().ip().to_string());
        match command.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => format!("evenkeel status: {error}\n"),
        }
    }

    /// The whole picture, on a terminal.
    fn draw(&mut self, now: &str) {
        if !self.live {
            return;
        }
        let mut picture = String::from("\x1b[H");
        picture += "web → evenkeel → db-checker × N → PostgreSQL\n\n";
        for line in &self.done {
            picture += line;
            picture += "\n";
        }
        picture += &format!("{now}\n\n{}\n", self.table());
        picture += &format!("load: {} sent, {} lost\n", self.load.sent(), self.load.lost());
        // Each line is cleared to its end, and what is below to the screen's, so that nothing flickers.
        let picture = picture.replace('\n', "\x1b[K\n") + "\x1b[J";
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(picture.as_bytes()).and_then(|()| out.flush());
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}

fn seconds(since: Instant) -> String {
    format!("{:.0} s", since.elapsed().as_secs_f64())
}

fn say(what: &str) {
    println!("· {what}");
}
