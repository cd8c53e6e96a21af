//! Docker Compose, by whichever program is there, with a project of the test's own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use testbed::docker::{IMAGE_PREFIX, POSTGRES_IMAGE, engine_answers, tally, try_docker, unique};

/// A project that is up until it is dropped. Its files may ask for `WEB_PORT`, `IMAGE_PREFIX` and `POSTGRES_IMAGE`.
pub(crate) struct Compose {
    project: String,
    pub(crate) port: u16,
    folder: PathBuf,
    files: &'static [&'static str],
}

impl Compose {
    /// Whether a test can use it; if not, says loudly why.
    pub(crate) fn answers(test: &str) -> bool {
        let missing = "it needs Docker Compose: neither `docker compose` nor `docker-compose` is there";
        engine_answers(test) && (program().is_some() || tally(test, Some(missing)))
    }

    /// Brings up what `files` of `folder` say, with these further arguments.
    pub(crate) fn up(folder: impl Into<PathBuf>, files: &'static [&'static str], arguments: &[&str]) -> Compose {
        let compose = Compose { project: unique("compose"), port: free_port(), folder: folder.into(), files };
        compose.run(&[&["up", "--detach"], arguments].concat());
        compose
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = program().expect("it is there");
        command.args(["--project-name", &self.project]).args(self.files.iter().flat_map(|file| ["--file", file]));
        command.args(arguments).current_dir(&self.folder).env("WEB_PORT", self.port.to_string());
        command.env("IMAGE_PREFIX", IMAGE_PREFIX).env("POSTGRES_IMAGE", POSTGRES_IMAGE);
        let said = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&[said.stdout, said.stderr].concat())) }
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
    }

    /// Whether its proxy has so many replicas, all of them usable.
    pub(crate) fn has_replicas(&self, count: usize) -> bool {
        let status = self.try_run(&["exec", "-T", "proxy", "evenkeel", "status"]).unwrap_or_default();
        status.contains(&format!(" {count} of {count} replicas usable "))
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.try_run(&["logs", "--tail", "40"]).unwrap_or_default());
        }
        let _ = self.try_run(&["down", "--volumes", "--timeout", "5"]);
    }
}

/// A port that nobody has, and that the kernel gives to no connection before it is taken: those are from 32768 on.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).find(is_free).expect("a free port")
}

/// `docker compose`, or `docker-compose` where the plugin is missing.
fn program() -> Option<Command> {
    if try_docker(["compose", "version"]).is_ok() {
        let mut command = Command::new("docker");
        command.arg("compose");
        return Some(command);
    }
    let standalone = Command::new("docker-compose").arg("version").output();
    standalone.is_ok_and(|said| said.status.success()).then(|| Command::new("docker-compose"))
}
