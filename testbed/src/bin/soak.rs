//! A million requests through ten minutes in which everything goes wrong, at random, and a table of what it cost.
//!
//! ```text
//! soak [--requests N] [--minutes M] [--only WORDS] [--seed S] [--readme FILE]
//! ```
//!
//! `--only` keeps to the kinds of churn whose name contains these words. Prints its progress each ten seconds. With
//! `--readme`, if no promise was violated, the table replaces what stands in that file between `<!-- soak -->` and
//! `<!-- /soak -->`. Ends with 1 if a promise was violated, 2 if it was called wrongly. Meant for release builds: `make soak`.

#![allow(clippy::disallowed_methods)] // it lives in real time

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{Churn, Turn, binary, resident};

/// Memory that the proxy may gain: what its allocator keeps of the fifty megabytes that thousands of waiting clients take
/// in an outage. It is there after the first one and does not grow with more; a leak of 20 bytes a request would show.
const GROWTH: u64 = 16 << 20;

/// The p99 under any kind of churn, as a multiple of the steady one.
const P99: f64 = 2.0;

/// The load runs for so long before the memory is first looked at.
const WARM_UP: Duration = Duration::from_secs(10);

/// Where the table stands in the file of `--readme`.
const MARKS: [&str; 2] = ["<!-- soak -->\n", "<!-- /soak -->"];

#[derive(Default)]
struct Options {
    requests: f64,
    minutes: f64,
    only: String,
    readme: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!(
                "soak: {problem}\nusage: soak [--requests N] [--minutes M] [--only WORDS] [--seed S] [--readme FILE]"
            );
            return ExitCode::from(2);
        }
    };
    let turns: Vec<Turn> = Turn::ALL.into_iter().filter(|turn| turn.name().contains(&options.only)).collect();
    if turns.is_empty() {
        let names: Vec<&str> = Turn::ALL.map(Turn::name).to_vec();
        eprintln!("soak: --only {:?} is in none of {names:?}", options.only);
        return ExitCode::from(2);
    }
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let rate = options.requests / time.as_secs_f64();
    println!("{} requests in {time:?}: {rate:.0} a second", options.requests);
    let Some(text) = soak(&turns, time, rate) else { return ExitCode::FAILURE };
    match options.readme.as_deref().map(|file| write(file, &text)) {
        Some(Err(problem)) => {
            eprintln!("soak: {problem}");
            ExitCode::from(2)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Replaces what stands between the marks.
fn write(file: &Path, text: &str) -> Result<(), String> {
    let name = file.display();
    let old = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
    let (before, rest) = old.split_once(MARKS[0]).ok_or_else(|| format!("{name} has no {:?}", MARKS[0]))?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or_else(|| format!("{name} has no {:?}", MARKS[1]))?;
    std::fs::write(file, [before, MARKS[0], text, MARKS[1], after].concat()).map_err(|e| format!("{name}: {e}"))
}

/// What is to be told, if every promise was kept.
fn soak(turns: &[Turn], time: Duration, rate: f64) -> Option<String> {
    let mut churn = Churn::start(binary("evenkeel"), rate);
    let seed = churn.seed();
    let pid = churn.proxy().container().pid();
    let began = Instant::now();
    churn.rest(WARM_UP.min(time));
    let before = resident(pid);
    let load = churn.load().watch();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Duration::from_secs(10);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                if began.elapsed() >= next {
                    next += Duration::from_secs(10);
                    let (sent, lost) = (load.sent(), load.lost());
                    let memory = resident(pid) as f64 / 1e6;
                    println!(
                        "{:>5.0} s {sent:>9} sent {lost:>5} not answered 200  {memory:.1} MB",
                        began.elapsed().as_secs_f64()
                    );
                }
            }
        });
        while began.elapsed() < time {
            let turn = churn.draw(turns);
            churn.turn(turn);
            churn.rest(Duration::from_secs(1));
        }
        over.store(true, Ordering::Relaxed);
    });
    let after = resident(pid);
    let verdict = churn.end();
    let mut violations = verdict.violations().to_vec();
    if after > before + GROWTH {
        violations.push(format!("the proxy grew from {before} to {after} bytes"));
    }
    let steady = verdict.p99("steady");
    for turn in turns.iter().filter(|turn| **turn != Turn::Outage) {
        let p99 = verdict.p99(turn.name());
        if p99 > steady.mul_f64(P99) {
            violations.push(format!("{}: p99 {p99:?}, steady {steady:?}", turn.name()));
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let text = format!(
        "{}\nThe proxy's memory: {:.1} MB at the start, {:.1} MB at the end. {rate:.0} requests a second for {:.0} minutes on \
         {cores} cores, seed {}.\n",
        verdict.table(),
        before as f64 / 1e6,
        after as f64 / 1e6,
        time.as_secs_f64() / 60.0,
        seed,
    );
    println!("\n{text}");
    if violations.is_empty() {
        println!("every promise was kept");
        return Some(text);
    }
    eprintln!("\n{}", verdict.log());
    violations.iter().for_each(|violation| eprintln!("VIOLATED: {violation}"));
    None
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { requests: 1e6, minutes: 10.0, ..Options::default() };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || match value.parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(format!("{name} is a positive number, not {value:?}")),
        };
        match name.as_str() {
            "--requests" => options.requests = number()?,
            "--minutes" => options.minutes = number()?,
            "--only" => options.only = value,
            "--readme" => options.readme = Some(value.into()),
            // Read by `testbed::seed`, before any thread is there.
            "--seed" => testbed::fix_seed(value.parse().map_err(|_| format!("{name} is a number, not {value:?}"))?),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(options)
}
