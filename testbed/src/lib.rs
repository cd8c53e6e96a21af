//! A Docker network for tests and the demo, with or without Docker.
//!
//! Without: what a container sees there, a process sees here: an address of its own, an alias that resolves to every replica's
//! address, real signals, a resolver that answers as Docker's does and fails as it fails. Nothing is mocked: the
//! processes are the shipped binaries, the sockets are the kernel's, the database is PostgreSQL.
//!
//! ```text
//! Network    what tests are written against: start containers under an alias, signal, pause, rename, disconnect them
//! Loopback   the network of 127.x.y.z, one subnet for each test, with its own Dns and the faults that Docker's shows
//! Engine     the network of a real Docker Engine: containers, aliases, Docker's DNS;  docker  its command, images, guests
//! DokkuApp   an app on such an engine, deployed in Dokku's order
//! Process    a child that cannot outlive the test, with its output
//! Proxy      evenkeel in a container, with a configuration in milliseconds
//! Postgres   a private cluster in a temporary folder
//! Origin     a replica that a test scripts byte by byte;  Wire  a client that does the same
//! Load       an open-loop load that never retries, and what became of each request;  unique  its requests and their answers
//! Browser    Chromium without a screen, for the operator's page;  Pages  many that are open;  Terminal  tmux, for what is shown on one
//! Ledger     who received which POST, even if killed
//! Churn      a day on which everything goes wrong under load;  Verdict  what it cost, held against the promises
//! ```
//!
//! Tests wait on conditions ([`eventually`]) and never sleep for a result to appear. The binary `replica` (see
//! `src/bin/replica.rs`) is the app behind the alias where a test needs a well-behaved one.

#![allow(clippy::disallowed_methods)] // this crate is the world around the proxy: it lives in real time

mod browser;
mod churn;
mod dns;
pub mod docker;
pub mod dokku;
mod engine;
mod guard;
mod http2;
mod ledger;
mod load;
mod loopback;
mod network;
mod origin;
mod pages;
mod postgres;
mod process;
mod proxy;
mod terminal;
pub mod unique;
mod verdict;
mod wire;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use browser::Browser;
pub use churn::{Churn, Turn};
pub use dns::{Dns, Fault};
pub use engine::{Engine, confined};
pub use http2::{Http2, Http2Answer, request, unending, with_trailers};
pub use ledger::Ledger;
pub use load::{Asked, Load, LoadWatch, Loss, LossKind, Plan, Protocol, Report, Spacing};
pub use loopback::Loopback;
pub use network::{App, Container, Network, Restart};
pub use nix::sys::signal::Signal;
pub use origin::Origin;
pub use pages::Pages;
pub use postgres::Postgres;
pub use process::{Process, cpu, resident};
pub use proxy::{Proxy, ProxyConfig, SHIPPED_UPSTREAM, sum};
pub use terminal::Terminal;
pub use verdict::{Told, UNSEEN, Verdict, told};
pub use wire::{Cut, Ending, Head, Response, Wire};

/// How long anything that a test waits for may take. Generous: it only costs time when a test fails, and the machine
/// may be busy with a compiler.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, looking every few milliseconds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`]; the message names `what` was awaited.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// When it finds nothing within [`PATIENCE`]; the message names `what` was awaited.
#[track_caller]
pub fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        let looked = Instant::now();
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "did not happen within {PATIENCE:?}: {what}");
        pause_after_look(looked);
    }
}

/// Waits a few milliseconds before the next look; after one that took longer, as a command of docker's does, for as long
/// as it took: half of the time is left to those that are waited for.
pub(crate) fn pause_after_look(began: Instant) {
    std::thread::sleep(began.elapsed().clamp(Duration::from_millis(5), Duration::from_millis(200)));
}

/// Path of a binary of this workspace, found next to the test that runs.
///
/// # Panics
/// When it has not been built; cargo builds the binaries of other packages only when told to.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its own path");
    let folder = own.parent().expect("an executable lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// The seed of this run's randomness: [`fix_seed`]'s, or `TESTBED_SEED` where it is set, else new. It is printed when it
/// is drawn, and the test harness shows that line with every failure.
pub fn seed() -> u64 {
    let told = || std::env::var("TESTBED_SEED").ok().and_then(|s| s.parse().ok());
    let seed = FIXED.get().copied().or_else(told).unwrap_or_else(|| fastrand::u64(..1 << 48));
    println!("seed {seed} (repeat with TESTBED_SEED={seed})");
    seed
}

/// Makes every [`seed`] this one, from now on and for good.
pub fn fix_seed(seed: u64) {
    let _ = FIXED.set(seed);
}

static FIXED: OnceLock<u64> = OnceLock::new();
