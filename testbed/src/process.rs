//! A child process that cannot outlive the test, with its output at hand.

use crate::{PATIENCE, Signal, eventually_some, guard};
use nix::sys::signal::{kill, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A running program in a process group of its own. Killed, with all that it started, when dropped; its last output is
/// printed if the test is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    output: Arc<Mutex<Output>>,
}

impl Process {
    /// Starts `command` with its standard output and error captured together, line by line.
    ///
    /// # Errors
    /// When the program cannot be started; the error names it.
    pub fn spawn(name: &str, mut command: Command) -> io::Result<Process> {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot start {:?}: {e}", command.get_program())))?;
        guard::watch(child.id());
        let output = Arc::new(Mutex::new(Output::default()));
        collect(child.stdout.take().expect("piped"), output.clone());
        collect(child.stderr.take().expect("piped"), output.clone());
        Ok(Process { name: name.into(), pid: child.id(), child: Mutex::new(child), output })
    }

    /// Its process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the program itself, not to its children. A program that has ended gets nothing.
    pub fn signal(&self, signal: Signal) {
        // The child is reaped only under this lock, so the number cannot have been given to somebody else meanwhile.
        let mut child = self.lock();
        if let Ok(None) = child.try_wait() {
            let _ = kill(Pid::from_raw(self.pid as i32), signal);
        }
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.lock().try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`].
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        eventually_some(&format!("{} ends; its output so far:\n{}", self.name, self.output()), || self.exited())
    }

    /// Waits for a line of output that contains `text`, and returns the first such line.
    ///
    /// # Panics
    /// When the program ends without one, or none came within [`PATIENCE`].
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let ended = self.exited().is_some();
            if let Some(line) = self.lines_with(text).into_iter().next() {
                return line;
            }
            let open = self.output.lock().unwrap_or_else(|e| e.into_inner()).readers > 0;
            let hopeless = (ended && !open) || start.elapsed() > PATIENCE;
            assert!(!hopeless, "no line with {text:?} from {}; its output:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All lines so far that contain `text`.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        self.printed().lines.iter().filter(|l| l.contains(text)).cloned().collect()
    }

    /// Everything it printed so far; the oldest lines are dropped beyond [`Output::MOST`].
    pub fn output(&self) -> String {
        self.printed().lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// What was read so far; of a program that has ended, all of it, unless a child of its own goes on printing.
    fn printed(&self) -> MutexGuard<'_, Output> {
        let start = Instant::now();
        loop {
            let ended = self.exited().is_some();
            let output = self.output.lock().unwrap_or_else(|e| e.into_inner());
            if !ended || output.readers == 0 || start.elapsed() > Duration::from_secs(1) {
                return output;
            }
            drop(output);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it: `first`, and SIGKILL to the whole group if that did not do within `grace`.
    pub fn end(&self, first: Signal, grace: Duration) {
        self.signal(first);
        let start = Instant::now();
        while self.exited().is_none() && start.elapsed() < grace {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = killpg(Pid::from_raw(self.pid as i32), Signal::SIGKILL);
        let _ = self.lock().wait();
        guard::release(self.pid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL, Duration::ZERO);
        if std::thread::panicking() {
            let output = self.output.lock().unwrap_or_else(|e| e.into_inner());
            eprintln!("--- the last lines of {} (pid {})", self.name, self.pid);
            output.lines.iter().rev().take(40).rev().for_each(|l| eprintln!("{l}"));
        }
    }
}

/// Memory that this process holds resident, in bytes; 0 once it has ended.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time that this process has used, user and system, over all threads.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the name in parentheses and may hold spaces: count from behind it. utime and stime are
    // fields 14 and 15 of proc(5), in ticks of 10 ms (USER_HZ is 100 on every Linux that this runs on).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[derive(Debug, Default)]
struct Output {
    lines: VecDeque<String>,
    bytes: usize,
    readers: usize,
}

impl Output {
    /// Bytes of output kept. A debug log of a long test fits; a program gone wild does not fill the memory.
    const MOST: usize = 8 << 20;

    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > Output::MOST {
            self.bytes -= self.lines.pop_front().map_or(0, |l| l.len());
        }
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<Output>>) {
    into.lock().unwrap_or_else(|e| e.into_inner()).readers += 1;
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            into.lock().unwrap_or_else(|e| e.into_inner()).push(text);
            line.clear();
        }
        into.lock().unwrap_or_else(|e| e.into_inner()).readers -= 1;
    });
}
