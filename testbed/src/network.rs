//! What a Docker network can do, and all that a test may use if it is to run on every testbed.
//!
//! [`Loopback`](crate::Loopback) is the implementation without Docker, [`Engine`](crate::Engine) the one on it. A test that needs more (a DNS fault, a foreign
//! app at a freed address) takes `Loopback` itself and runs only there.

use crate::{Signal, eventually};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A network on which containers find each other by alias.
pub trait Network: Send + Sync {
    /// The resolver that programs on the network ask.
    fn resolver(&self) -> SocketAddr;

    /// The port that every container's program is told to listen on, as `PORT`.
    fn port(&self) -> u16;

    /// An address of this machine that containers reach: where a test lets them find what runs beside them.
    fn host(&self) -> IpAddr;

    /// Starts one container under `alias`, in Docker's order: the record first, then the process, which listens when
    /// it gets to it.
    fn start(&self, alias: &str, app: &App) -> Box<dyn Container>;

    /// From now on records outlive their processes for as long as this network can make them: here a test looks at
    /// what connections alone tell. An engine's go when it removes them.
    fn keep_records(&self) {}

    /// Starts `count` of them and waits until all listen.
    fn scale(&self, alias: &str, app: &App, count: usize) -> Vec<Box<dyn Container>> {
        let all: Vec<_> = (0..count).map(|_| self.start(alias, app)).collect();
        all.iter().for_each(|container| container.wait_listening());
        all
    }
}

/// One running program with an address of its own. Dropped, it is killed and its record removed.
pub trait Container: Send + Sync {
    /// Its name, unique on the network; the program is told it as `NAME`.
    fn name(&self) -> String;

    /// Its name for whoever runs the network: on an engine, what `docker` calls it.
    fn id(&self) -> String {
        self.name()
    }

    /// Where its program listens, or is about to.
    fn address(&self) -> SocketAddr;

    /// Its main process as the host sees it; 0 when none runs.
    fn pid(&self) -> u32;

    /// Sends a signal to the main process. If that ends it, the record goes a little later, as Docker's does.
    fn signal(&self, signal: Signal);

    /// Freezes it; the record stays.
    fn pause(&self);

    /// Thaws it.
    fn resume(&self);

    /// Ends what still runs and starts anew, as a restart policy would.
    fn restart(&self, how: Restart);

    /// Takes all its names away and gives them back `away` later, as `docker rename` does, not atomically, to a live
    /// container. Returns when they are back. On an engine they are away for as long as the engine takes, twice.
    fn rename(&self, away: Duration);

    /// Takes it off the network: the record goes at once, the process lives on.
    fn disconnect(&self);

    /// How its process ended, as Docker tells it (128 + signal when killed), or `None` while it runs.
    fn exited(&self) -> Option<i32>;

    /// What the program has printed.
    fn output(&self) -> String;

    /// Waits until somebody listens at its address.
    ///
    /// # Panics
    /// When nobody does within [`PATIENCE`](crate::PATIENCE), or the program ends.
    fn wait_listening(&self) {
        eventually(&format!("{} listens at {}", self.name(), self.address()), || {
            if let Some(code) = self.exited() {
                panic!("{} ended with {code} before it listened:\n{}", self.name(), self.output());
            }
            TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)).is_ok()
        });
    }

    /// Waits until its process has ended, and returns how (see [`Container::exited`]).
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`](crate::PATIENCE).
    fn wait_exit(&self) -> i32 {
        crate::eventually_some(&format!("{} ends", self.name()), || self.exited())
    }

    /// Waits for a line of output that contains `text`, and returns the first such line.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`](crate::PATIENCE).
    fn wait_for_line(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let looked = Instant::now();
            let output = self.output();
            if let Some(line) = output.lines().find(|l| l.contains(text)) {
                return line.to_owned();
            }
            assert!(start.elapsed() < crate::PATIENCE, "no line with {text:?} from {}:\n{output}", self.name());
            crate::pause_after_look(looked);
        }
    }
}

/// Where a container is found after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Where it was.
    SameAddress,
    /// Somewhere else; the old address is free for others.
    NewAddress,
}

/// A program to run in containers.
///
/// It is told where to listen as `HOST` and `PORT`, and its container's name as `NAME`.
#[derive(Clone, Debug)]
pub struct App {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beside the three above; nothing else is inherited but `PATH`.
    pub env: Vec<(String, String)>,
    /// A folder that it reads, mounted at the same path where the network has file systems of its own.
    pub mount: Option<PathBuf>,
}

impl App {
    /// `program` without arguments.
    pub fn new(program: impl AsRef<Path>) -> App {
        App { program: program.as_ref().to_owned(), args: vec![], env: vec![], mount: None }
    }

    /// The testbed's own app; `src/bin/replica.rs` says what it understands.
    pub fn replica() -> App {
        App::new(crate::binary("replica"))
    }

    /// With one variable more.
    pub fn env(mut self, name: &str, value: impl ToString) -> App {
        self.env.push((name.into(), value.to_string()));
        self
    }
}
