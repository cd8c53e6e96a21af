//! Processes that are measured: started on cores of their own, their processor time and memory read from `/proc`, and
//! gone when we are.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Which processors the proxy has, and which the load and the origin.
#[derive(Clone, Debug)]
pub struct Cores {
    proxy: Option<CpuSet>,
    load: Option<CpuSet>,
    /// Threads for the load: one on a small machine.
    pub load_threads: usize,
}

impl Cores {
    /// The first `threads` processors are the proxy's, the others the load's and the origin's. Where nothing would be
    /// left, the scheduler decides.
    pub fn split(threads: usize) -> Cores {
        let all = processors();
        let set = |cores: &[usize]| {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core).expect("it was in a set of this size"));
            set
        };
        if all.len() <= threads {
            return Cores { proxy: None, load: None, load_threads: 1 };
        }
        let (proxy, load) = all.split_at(threads);
        let load_threads = (load.len() / 2).clamp(1, 4);
        Cores { proxy: Some(set(proxy)), load: Some(set(load)), load_threads }
    }

    /// Moves this thread to the load's processors.
    pub fn pin_load(&self) {
        pin(self.load.as_ref());
    }
}

/// Puts this process and all its threads, and what they start from now on, under real-time scheduling (SCHED_RR, the
/// lowest priority), so that what the machine does otherwise does not delay what is timed; or back. False where that is
/// not allowed. A load that never sleeps would be throttled (kernel documentation, sched-rt-group), an open one is not.
pub fn set_real_time(on: bool) -> bool {
    let (policy, priority) = if on { ("--rr", "1") } else { ("--other", "0") };
    let mut command = Command::new("chrt");
    command.args(["--all-tasks", policy, "--pid", priority, &std::process::id().to_string()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The machine, for who reads the figures: its processors and its kernel.
pub fn machine() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, it)| it));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or("").trim();
    let cores = processors().len();
    let plural = if cores == 1 { "" } else { "s" };
    format!("{cores} processor{plural} ({}), Linux {kernel}", model.unwrap_or("unknown").trim())
}

/// The processors that this process may use.
pub fn processors() -> Vec<usize> {
    let ours = sched_getaffinity(Pid::from_raw(0)).expect("Linux tells the processors a process may use");
    (0..CpuSet::count()).filter(|core| ours.is_set(*core).unwrap_or(false)).collect()
}

fn pin(cores: Option<&CpuSet>) {
    if let Some(cores) = cores {
        // Without it figures are less steady, not wrong.
        let _ = sched_setaffinity(Pid::from_raw(0), cores);
    }
}

/// Lets this process and its children open this many descriptors, or as many as it may; says how many.
pub fn raise_descriptor_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let attempts = [(wanted, wanted.max(hard)), (wanted.min(hard), hard)];
    attempts
        .into_iter()
        .find(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard).is_ok())
        .map_or(soft, |(soft, _)| soft)
}

/// A proxy that runs, with its children.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// When it was started.
    pub started: Instant,
}

impl Process {
    /// Starts it on the proxy's processors with its output in `log`. It is told to end when this process does.
    pub fn start(command: &Command, cores: &Cores, log: &Path) -> io::Result<Process> {
        let mut whole = Command::new("setpriv");
        whole.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                whole.env(key, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            whole.current_dir(folder);
        }
        let log = fs::File::create(log)?;
        whole.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Children inherit the processors of the thread that starts them, so they run there from their first moment.
        let before = sched_getaffinity(Pid::from_raw(0)).ok();
        pin(cores.proxy.as_ref());
        let started = Instant::now();
        let child = whole.spawn();
        pin(before.as_ref());
        Ok(Process { child: child?, started })
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Processor time, user and system, of it and its living children.
    pub fn cpu(&self) -> Duration {
        // A tick is 1/100 s on every Linux that matters: USER_HZ is part of the kernel's interface.
        let ticks: u64 = self.family().iter().filter_map(|pid| stat(*pid)).map(|stat| stat.ticks).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Memory that is its own, in bytes: what the largest of its processes holds, and what the others do not share.
    pub fn memory(&self) -> u64 {
        let mut sizes: Vec<(u64, u64)> = self.family().iter().filter_map(|pid| memory(*pid)).collect();
        sizes.sort_unstable();
        let largest = sizes.pop().map_or(0, |(resident, _)| resident);
        largest + sizes.iter().map(|(_, private)| private).sum::<u64>()
    }

    /// Its process and all that descend from it.
    fn family(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all: Vec<Stat> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat).collect();
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while next < family.len() {
            let parent = family[next];
            family.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
            next += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let family = self.family();
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.ended() {
            for pid in family {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

/// See proc(5): the fields after the command's name, which may hold anything but ends with the last parenthesis.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { pid, parent: number(1)? as u32, ticks: number(11)? + number(12)? })
}

/// Resident and private memory, bytes.
fn memory(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("Rss:")?, field("Private_Clean:")? + field("Private_Dirty:")?))
}
