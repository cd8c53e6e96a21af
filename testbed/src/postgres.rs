//! A real PostgreSQL: a private cluster in a temporary folder, stopped and started as the test likes.

use crate::{PATIENCE, Process, Signal, guard, loopback};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A cluster with the database `app` of the user `app`, who needs a password. Removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    user: Option<Account>,
    /// Further settings, each as `name=value`.
    settings: Vec<String>,
    server: Option<Process>,
}

impl Postgres {
    /// Makes the cluster and starts it at a free port of `host`, an address of this machine. The first one of a process takes
    /// one to three seconds, most of it `initdb`.
    ///
    /// # Errors
    /// When PostgreSQL's server is not installed, naming the package; when its programs fail, with what they said.
    pub fn start(host: IpAddr) -> io::Result<Postgres> {
        Postgres::make(host, None)
    }

    /// As [`Postgres::start`], and takes encrypted connections too, with this certificate and its key (PEM).
    ///
    /// # Errors
    /// As there.
    pub fn start_encrypted(host: IpAddr, certificate: &str, key: &str) -> io::Result<Postgres> {
        Postgres::make(host, Some((certificate, key)))
    }

    fn make(host: IpAddr, encryption: Option<(&str, &str)>) -> io::Result<Postgres> {
        let mut postgres = Postgres::without_cluster(free_port(host)?)?;
        postgres.copy_cluster()?;
        if let Some((certificate, key)) = encryption {
            postgres.encrypt(certificate, key)?;
        }
        postgres.resume()?;
        Ok(postgres)
    }

    fn without_cluster(address: SocketAddr) -> io::Result<Postgres> {
        let bin = binaries()?;
        let user = Account::to_run_as()?;
        let folder = tempfile::Builder::new().prefix("testbed-postgres-").tempdir()?;
        guard::watch_folder(folder.path());
        if let Some(user) = &user {
            std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid))?;
        }
        Ok(Postgres { bin, folder, address, user, settings: vec![], server: None })
    }

    /// A process makes the cluster once and copies it for every server: `initdb` takes a second and more of a processor.
    fn copy_cluster(&self) -> io::Result<()> {
        // Never dropped: the guard removes its folder.
        static ORIGINAL: Mutex<Option<Postgres>> = Mutex::new(None);
        let mut original = ORIGINAL.lock().unwrap_or_else(|e| e.into_inner());
        if original.is_none() {
            let new = Postgres::without_cluster(self.address)?;
            new.make_cluster()?;
            *original = Some(new);
        }
        let data = original.as_ref().map(|original| original.folder.path().join("data"));
        let said = Command::new("cp").arg("-a").args(data).arg(self.folder.path()).output()?;
        check("cp", &said)
    }

    fn make_cluster(&self) -> io::Result<()> {
        let password = self.folder.path().join("password");
        std::fs::write(&password, PASSWORD)?;
        if let Some(user) = &self.user {
            std::os::unix::fs::chown(&password, Some(user.uid), Some(user.gid))?;
        }
        self.run(
            "initdb",
            &[
                "--pgdata=data",
                "--username=app",
                "--pwfile=password",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
        )?;
        // Apps elsewhere than on loopback are let in too, with the password.
        let rules = self.folder.path().join("data/pg_hba.conf");
        OpenOptions::new().append(true).open(rules)?.write_all(b"host all all all scram-sha-256\n")?;
        self.create_database()
    }

    fn encrypt(&mut self, certificate: &str, key: &str) -> io::Result<()> {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.folder.path().join("data").join(name);
            std::fs::write(&path, text)?;
            // PostgreSQL refuses a key that others may read.
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            if let Some(user) = &self.user {
                std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))?;
            }
        }
        // The files are found by their names.
        self.settings.push("ssl=on".into());
        Ok(())
    }

    /// What an app is given as `DATABASE_URL`.
    pub fn url(&self) -> String {
        format!("postgres://app:{PASSWORD}@{}/app", self.address)
    }

    /// Where it listens, or did.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it at once, as a crash of its container would: connections break, the port refuses.
    pub fn stop(&mut self) {
        self.signal_all(Signal::SIGCONT);
        if let Some(server) = self.server.take() {
            server.end(Signal::SIGQUIT, Duration::from_secs(10));
        }
    }

    /// Freezes it: the port takes connections and nobody answers.
    pub fn pause(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Starts it again on the same port, or thaws it, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub fn resume(&mut self) -> io::Result<()> {
        if self.server.is_some() {
            self.signal_all(Signal::SIGCONT);
            return Ok(());
        }
        let port = self.address.port().to_string();
        let mut command = self.command("postgres");
        // Nothing here outlives the test, so nothing is synced; the socket's folder is ours, not /var/run.
        for setting in [
            &format!("listen_addresses={}", self.address.ip()),
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "max_connections=60",
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.args(["-D", "data", "-k", "", "-p", &port]);
        let server = Process::spawn("postgres", command)?;
        let start = Instant::now();
        loop {
            let ready = !server.lines_with("ready to accept connections").is_empty();
            if ready && TcpStream::connect(self.address).is_ok() {
                break;
            }
            if server.exited().is_some() || start.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("PostgreSQL does not come up:\n{}", server.output())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.server = Some(server);
        Ok(())
    }

    /// Signals the server and then its children, each of which has a session of its own and serves a connection.
    fn signal_all(&self, signal: Signal) {
        let Some(server) = &self.server else { return };
        server.signal(signal);
        let pid = server.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), signal);
        }
    }

    /// `CREATE DATABASE` in single-user mode: no server, no client program, no password to pass.
    fn create_database(&self) -> io::Result<()> {
        let mut command = self.command("postgres");
        command.args(["--single", "-D", "data", "postgres"]);
        let sql = self.folder.path().join("create.sql");
        std::fs::write(&sql, "CREATE DATABASE app\n")?;
        let said = command.stdin(std::fs::File::open(&sql)?).output()?;
        check("postgres --single", &said)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        let said = self.command(program).args(arguments).output()?;
        check(program, &said)
    }

    /// One of PostgreSQL's programs, in the cluster's folder, as somebody who may run it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).env_clear().env("LC_ALL", "C");
        if let Some(user) = &self.user {
            // As root, the standard library clears the supplementary groups as well.
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Not a secret: the cluster listens on loopback and lives as long as a test. It shows that passwords are passed on.
const PASSWORD: &str = "s3cret";

/// A port of `host` that nobody has. It is below those that the kernel gives to connections by itself (from 32768 on): the
/// server takes it a moment later, and again after each stop.
fn free_port(host: IpAddr) -> io::Result<SocketAddr> {
    let any = || SocketAddr::new(host, fastrand::u16(10_000..32_000));
    (0..1000).map(|_| any()).find(|address| loopback::is_free(*address)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::AddrInUse, format!("none of a thousand ports of {host} can be bound"))
    })
}

fn check(program: &str, said: &std::process::Output) -> io::Result<()> {
    // Single-user mode tells of errors and exits with 0 all the same.
    let words = String::from_utf8_lossy(&said.stderr);
    if said.status.success() && !words.contains("ERROR") && !words.contains("FATAL") {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} failed ({}):\n{words}", said.status)))
}

/// The folder of the newest server: Debian's place first, since its binaries are not in PATH.
fn binaries() -> io::Result<PathBuf> {
    let version = |p: &Path| p.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    debian.sort_by_key(|p| std::cmp::Reverse(version(p)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.into_iter().chain(std::env::split_paths(&path)).find(|p| p.join("initdb").exists()).ok_or_else(|| {
        let remedy = "PostgreSQL's server is not installed (no initdb in /usr/lib/postgresql/*/bin nor in PATH); \
                      on Debian and Ubuntu: apt-get install postgresql";
        io::Error::new(io::ErrorKind::NotFound, remedy)
    })
}

/// Somebody who is not root.
#[derive(Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// PostgreSQL refuses to run as root; whoever else we are may run it.
    fn to_run_as() -> io::Result<Option<Account>> {
        if !nix::unistd::Uid::effective().is_root() {
            return Ok(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd")?;
        let find = |name: &str| {
            let line = accounts.lines().find(|l| l.split(':').next() == Some(name))?;
            let mut numbers = line.split(':').skip(2).map_while(|n| n.parse().ok());
            Some(Account { uid: numbers.next()?, gid: numbers.next()? })
        };
        let remedy = "PostgreSQL does not run as root, and /etc/passwd has neither `postgres` nor `nobody`";
        find("postgres").or_else(|| find("nobody")).map(Some).ok_or_else(|| io::Error::other(remedy))
    }
}
