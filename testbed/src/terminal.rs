//! A real terminal without a screen, for programs that use one: tmux, of a server of its own.

use crate::Process;
use std::ffi::OsStr;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// A terminal in which one program was started, by a shell that says how it ended. Closed when dropped.
#[derive(Debug)]
pub struct Terminal {
    _server: Process,
    // Last: the server's socket is there until its end.
    folder: TempDir,
}

impl Terminal {
    /// Whether tmux is installed here.
    pub fn is_installed() -> bool {
        Command::new("tmux").arg("-V").output().is_ok_and(|said| said.status.success())
    }

    /// Runs `command` in a terminal of so many columns and lines. Once it has ended the shell prints `ended with` its exit
    /// status, and how the terminal was left (stty(1)).
    ///
    /// # Panics
    /// When tmux is not installed, or does not start.
    pub fn open(command: &Command, (width, height): (u16, u16)) -> Terminal {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Command::new("tmux");
        server.env("LC_ALL", "C.UTF-8").arg("-u").arg("-S").arg(folder.path().join("socket"));
        // In the foreground, so that it ends with this process, whatever ends this.
        let server = Process::spawn("tmux", {
            server.args(["-f", "/dev/null", "-D"]);
            server
        })
        .expect("tmux starts");
        let terminal = Terminal { _server: server, folder };
        let mut start = terminal.tmux(&["new-session", "-d", "-x", &width.to_string(), "-y", &height.to_string()]);
        for (name, value) in command.get_envs() {
            let value = value.and_then(OsStr::to_str).unwrap_or_default();
            start.arg("-e").arg(format!("{}={value}", name.to_str().expect("a name")));
        }
        start.args(["--", "sh", "-c", "\"$@\"; echo \"ended with $?\"; stty -a; exec cat", "sh"]);
        start.arg(command.get_program()).args(command.get_args());
        crate::eventually("tmux listens", || start.output().is_ok_and(|said| said.status.success()));
        terminal
    }

    /// What is on the screen, without colours.
    pub fn text(&self) -> String {
        self.said(&["capture-pane", "-p"])
    }

    /// The same with the control sequences that colour it.
    pub fn coloured(&self) -> String {
        self.said(&["capture-pane", "-p", "-e"])
    }

    /// Presses these keys one after the other, by tmux's names: `q`, `Down`, `Enter`, `C-c`.
    pub fn press(&self, keys: &[&str]) {
        for key in keys {
            self.said(&["send-keys", key]);
            // An escape and a letter at once would be one key with Alt.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses these keys so that they come as one.
    pub fn type_at_once(&self, keys: &str) {
        self.said(&["send-keys", "-l", keys]);
    }

    /// Has another size from now on.
    pub fn resize(&self, width: u16, height: u16) {
        self.said(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    fn said(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.tmux(arguments).output().expect("tmux runs");
        assert!(status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        // Without a server it starts none: that would outlive this process.
        command
            .env("LC_ALL", "C.UTF-8")
            .args(["-u", "-N", "-S"])
            .arg(self.folder.path().join("socket"))
            .args(arguments);
        command
    }
}
