//! The command `docker`, as an operator types it.

use crate::{App, confined, guard};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Runs `docker` with these arguments, and returns what it printed, without the last line break.
///
/// # Errors
/// When it cannot be started or fails; with what it said.
pub fn try_docker<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> io::Result<String> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null());
    let said = command.output()?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).trim_end().to_owned());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&said.stderr).trim_end())))
}

/// As [`try_docker`], where nothing may fail.
///
/// # Panics
/// When it fails; with what it said.
#[track_caller]
pub fn docker<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    try_docker(arguments).unwrap_or_else(|e| panic!("{e}"))
}

/// Waits until a container's process has ended, and returns with which status.
///
/// # Panics
/// When it still runs after [`PATIENCE`](crate::PATIENCE), or the engine fails.
#[track_caller]
pub fn wait_ended(container: &str) -> i32 {
    // One command that waits: to ask again and again would keep an engine busy that has better things to do.
    let patience = crate::PATIENCE.as_secs().to_string();
    let said = Command::new("timeout").args([&patience, "docker", "wait", container]).stdin(Stdio::null()).output();
    let said = said.expect("timeout is part of every Linux system");
    let status = String::from_utf8_lossy(&said.stdout).trim().parse();
    status.unwrap_or_else(|_| panic!("{container} ends: {}: {}", said.status, String::from_utf8_lossy(&said.stderr)))
}

/// The engine's version, or `None` where no engine answers.
pub fn engine_version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    VERSION.get_or_init(|| try_docker(["version", "--format", "{{.Server.Version}}"]).ok()).as_deref()
}

/// Whether this test, which needs a Docker Engine on this machine, can run. Says so loudly if not: on the terminal
/// itself, since the harness shows no output of tests that pass. Either way it goes into the file that `ENGINE_TALLY`
/// names, which `make test` counts.
pub fn engine_answers(test: &str) -> bool {
    static OBSTACLE: OnceLock<Option<&str>> = OnceLock::new();
    let obstacle = OBSTACLE.get_or_init(|| match engine_version() {
        None => Some("it needs a Docker Engine, and `docker info` does not answer"),
        // Containers are reached by their addresses.
        Some(_) if TcpListener::bind((Bridge::new(&[]).gateway(), 0)).is_err() => {
            Some("it needs a Docker Engine on this machine itself, and this one is in another, real or virtual")
        }
        Some(_) => None,
    });
    tally(test, *obstacle)
}

/// Says loudly that a test cannot run because of `obstacle`, if there is one, and counts it; true if there is none.
///
/// # Panics
/// In CI (where `CI` is set), if an engine answers and there is an obstacle all the same: there, nothing on an engine is to go
/// untested because of how the machine was prepared.
pub fn tally(test: &str, obstacle: Option<&str>) -> bool {
    if let Some(tally) = std::env::var_os("ENGINE_TALLY") {
        let line = format!("{} {test}\n", if obstacle.is_none() { "ran" } else { "skipped" });
        let mut file = OpenOptions::new().create(true).append(true).open(tally).expect("ENGINE_TALLY can be written");
        file.write_all(line.as_bytes()).expect("ENGINE_TALLY can be written");
    }
    if let Some(obstacle) = obstacle {
        let _ = io::stderr().write_all(format!("\nSKIPPED {test}: {obstacle}\n").as_bytes());
        let ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
        assert!(!ci || engine_version().is_none(), "in CI, where an engine answers, {test} must run: {obstacle}");
    }
    obstacle.is_none()
}

/// An image that holds nothing but the C library: what the workspace's binaries, mounted into it, need. It is made of
/// this machine's own files, once.
///
/// # Panics
/// When the engine or `ldd` fails.
pub fn bare_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let said = Command::new("ldd").arg(crate::binary("replica")).output().expect("ldd comes with the C library");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let libraries: Vec<&str> = said.split_whitespace().filter(|word| word.starts_with('/')).collect();
        assert!(!libraries.is_empty(), "ldd says of no library where it is: {said}");
        // FNV-1a: a name that changes when a library does.
        let mark = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let version = libraries.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, library| {
            let file = Path::new(library).metadata().expect("ldd found it");
            format!("{library} {} {}", file.len(), file.mtime()).as_bytes().iter().fold(hash, mark)
        });
        let image = format!("evenkeel-testbed:{version:016x}");
        if try_docker(["image", "inspect", &image]).is_err() {
            let mut tar = Command::new("tar")
                .args(["--create", "--dereference", "--absolute-names", "--transform", "s,^/,,"])
                .args(&libraries)
                .stdout(Stdio::piped())
                .spawn()
                .expect("tar");
            let tree = tar.stdout.take().expect("piped");
            let import = Command::new("docker").args(["import", "-", &image]).stdin(tree).output().expect("docker");
            assert!(tar.wait().is_ok_and(|s| s.success()), "tar of {libraries:?} failed");
            assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        }
        image
    })
}

/// What the names of images that tests build begin with: an image of the same name without it is the user's own.
pub const IMAGE_PREFIX: &str = "evenkeel-testbed/";

/// The image of PostgreSQL that compose.yaml and the stack run in tests: the official one under a name of the testbed's
/// own, or a stand-in.
pub const POSTGRES_IMAGE: &str = "evenkeel-testbed/postgres:15";

/// The images of compose.yaml, `evenkeel`, `evenkeel-web` and `evenkeel-db-checker`, each behind [`IMAGE_PREFIX`], built as
/// their Dockerfiles say: in minutes the first time, out of the engine's cache after that (`make test` does it beforehand,
/// with its progress shown).
///
/// # Panics
/// When one cannot be built; with what was said.
pub fn build_images() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/images.sh");
        let said = Command::new("sh").arg(script).output().expect("every machine that runs these tests has sh");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    });
}

/// A network of the engine's, removed when dropped.
#[derive(Debug)]
pub struct Bridge {
    name: String,
}

impl Bridge {
    /// Makes a user-defined bridge network; `options` are further ones of `docker network create`.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn new(options: &[&str]) -> Bridge {
        let name = unique("net");
        guard::watch_network(&name);
        docker(["network", "create"].iter().chain(options).chain(&[name.as_str()]));
        Bridge { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The engine's own address on it, where containers reach its machine.
    ///
    /// # Panics
    /// When the engine does not tell.
    pub fn gateway(&self) -> IpAddr {
        let said = docker(["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", &self.name]);
        said.parse().unwrap_or_else(|e| panic!("{e}: the gateway {said:?} of {}", self.name))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Whoever is still on it goes first: a test that fails drops things in any order.
        let format = "{{range $id, $_ := .Containers}}{{$id}} {{end}}";
        let members = try_docker(["network", "inspect", "--format", format, &self.name]).unwrap_or_default();
        for member in members.split_whitespace() {
            let _ = try_docker(["network", "disconnect", "--force", &self.name, member]);
        }
        let _ = try_docker(["network", "rm", &self.name]);
        guard::release_network(&self.name);
    }
}

/// A container that a test made with `docker run`, removed when dropped.
#[derive(Debug)]
pub struct Guest {
    name: String,
}

impl Guest {
    /// `docker run --detach` with these options, and behind them an image and its command. `what` is for its name.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn run<S: Into<String>>(what: &str, arguments: impl IntoIterator<Item = S>) -> Guest {
        let name = unique(what);
        guard::watch_container(&name);
        let guest = Guest { name };
        let start = ["run", "--detach", "--name", &guest.name].map(String::from);
        docker(start.into_iter().chain(arguments.into_iter().map(Into::into)));
        guest
    }

    /// One on `network` that runs `app` as replicas are run.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn on(network: &Bridge, what: &str, app: &App) -> Guest {
        let network = ["--network".to_owned(), network.name().to_owned()];
        Guest::run(what, network.into_iter().chain(confined(app, what)))
    }

    /// As [`Guest::on`], but created only: `docker start` starts it.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn created_on(network: &Bridge, what: &str, app: &App) -> Guest {
        let name = unique(what);
        guard::watch_container(&name);
        let guest = Guest { name };
        let create = ["create", "--name", &guest.name, "--network", network.name()].map(String::from);
        docker(create.into_iter().chain(confined(app, what)));
        guest
    }

    /// Its name on the engine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote so far.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn logs(&self) -> String {
        docker(["logs", &self.name])
    }

    /// What `docker inspect` says in this format.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn inspect(&self, format: &str) -> String {
        docker(["inspect", "--format", format, &self.name])
    }

    /// Tells the program `client` to end; what became of its requests.
    ///
    /// # Panics
    /// When the engine fails, or the program told nothing.
    pub fn end_client(self) -> serde_json::Value {
        docker(["kill", "--signal", "TERM", &self.name]);
        docker(["wait", &self.name]);
        let logs = self.logs();
        serde_json::from_str(logs.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {logs}"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = try_docker(["rm", "--force", "--volumes", &self.name]);
        guard::release_container(&self.name);
    }
}

/// A name that no other run on this engine has.
pub fn unique(what: &str) -> String {
    static RUN: OnceLock<u32> = OnceLock::new();
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let run = RUN.get_or_init(|| fastrand::u32(..));
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("evenkeel-{what}-{run:08x}-{count}")
}
