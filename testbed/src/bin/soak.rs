//! A million requests through ten minutes in which everything goes wrong, at random, and a table of what it cost.
//!
//! ```text
//! soak [--requests N] [--minutes M] [--only WORDS] [--pages N] [--seed S] [--readme FILE]
//! ```
//!
//! Fifty of the operator's pages are open all the while, or as many as `--pages` says. `--only` keeps to the kinds of churn whose name contains these words. Prints its progress each ten seconds. With
//! `--readme`, which may be given several times, and if no promise was violated, the table replaces what stands in these
//! files between `<!-- soak -->` and `<!-- /soak -->`, and a sentence what stands between `<!-- soak:short -->` and
//! `<!-- /soak:short -->`. Each of the two has to be in one of them. Ends with 1 if a promise was violated, 2 if it was called wrongly. Meant for release builds: `make soak`.

#![allow(clippy::disallowed_methods)] // it lives in real time

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{Churn, Pages, Protocol, Turn, binary, resident};

/// Memory that the proxy may gain: what its allocator keeps of the fifty megabytes that thousands of waiting clients take
/// in an outage. It is there after the first one and does not grow with more; a leak of 20 bytes a request would show.
const GROWTH: u64 = 16 << 20;

/// The p99 under any kind of churn, as a multiple of the steady one.
const P99: f64 = 2.0;

/// The load runs for so long before the memory is first looked at.
const WARM_UP: Duration = Duration::from_secs(10);

/// Open pages are renewed each second; on a machine that is busy at its limit one may come late.
const RENEWALS: f64 = 0.8;

/// The table, and the sentence, in the files of `--readme`: what they stand between.
const PARTS: [[&str; 2]; 2] =
    [["<!-- soak -->\n", "<!-- /soak -->"], ["<!-- soak:short -->\n", "<!-- /soak:short -->"]];

#[derive(Default)]
struct Options {
    requests: f64,
    minutes: f64,
    only: String,
    pages: usize,
    /// What clients and replicas speak.
    spoken: [Protocol; 2],
    readme: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!(
                "soak: {problem}\nusage: soak [--requests N] [--minutes M] [--only WORDS] [--pages N] [--seed S] [--protocol http1|h2c] [--readme FILE]"
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
    // A marker that is missing is told before ten minutes are spent on what it is to hold.
    if let Err(problem) = updated(&options.readme, &["", ""]) {
        eprintln!("soak: {problem}");
        return ExitCode::from(2);
    }
    let Some(texts) = soak(&turns, time, rate, &options) else { return ExitCode::FAILURE };
    match updated(&options.readme, &[&texts[0], &texts[1]]).and_then(write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("soak: {problem}");
            ExitCode::from(2)
        }
    }
}

/// The files with `parts` between their marks; each part has to have its place in one of them.
fn updated<'a>(files: &'a [PathBuf], parts: &[&str; 2]) -> Result<Vec<(&'a Path, String)>, String> {
    let read = |file: &'a PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok::<_, String>((file.as_path(), text))
    };
    let mut texts = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    for ([begin, end], part) in PARTS.iter().zip(parts) {
        let mut found = texts.is_empty();
        for (file, text) in &mut texts {
            let Some((before, rest)) = text.split_once(begin) else { continue };
            let (_, after) = rest.split_once(end).ok_or_else(|| format!("{} has no {end:?}", file.display()))?;
            *text = [before, begin, part, end, after].concat();
            found = true;
        }
        if !found {
            return Err(format!("no file of --readme has {begin:?}"));
        }
    }
    Ok(texts)
}

fn write(texts: Vec<(&Path, String)>) -> Result<(), String> {
    texts.into_iter().try_for_each(|(file, text)| {
        std::fs::write(file, text).map_err(|e| format!("{} cannot be written: {e}", file.display()))
    })
}

/// The table and the sentence, if every promise was kept.
fn soak(turns: &[Turn], time: Duration, rate: f64, options: &Options) -> Option<[String; 2]> {
    let mut churn = Churn::start(binary("evenkeel"), rate, options.spoken);
    let seed = churn.seed();
    let pid = churn.proxy().container().pid();
    let began = Instant::now();
    churn.rest(WARM_UP.min(time));
    let before = resident(pid);
    let load = churn.load().watch();
    let pages = Pages::open(churn.proxy().admin(), options.pages);
    let opened = Instant::now();
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
    let (renewals, open_for) = (pages.renewals(), opened.elapsed());
    drop(pages);
    let verdict = churn.end();
    let mut violations = verdict.violations().to_vec();
    if after > before + GROWTH {
        violations.push(format!("the proxy grew from {before} to {after} bytes"));
    }
    if options.pages > 0 && (renewals as f64) < open_for.as_secs_f64() * RENEWALS {
        violations.push(format!("a page that was open for {open_for:?} was renewed {renewals} times"));
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
         {cores} cores, with {} of the operator's pages open, each renewed at least {renewals} times; seed {}.\n",
        verdict.table(),
        before as f64 / 1e6,
        after as f64 / 1e6,
        time.as_secs_f64() / 60.0,
        options.pages,
        seed,
    );
    println!("\n{text}");
    if violations.is_empty() {
        println!("every promise was kept");
        return Some([text, verdict.sentence()]);
    }
    eprintln!("\n{}", verdict.log());
    violations.iter().for_each(|violation| eprintln!("VIOLATED: {violation}"));
    None
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { requests: 1e6, minutes: 10.0, pages: 50, ..Options::default() };
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
            "--pages" => options.pages = value.parse().map_err(|_| format!("{name} is a number, not {value:?}"))?,
            "--protocol" if value == "h2c" => options.spoken = [Protocol::H2c; 2],
            "--protocol" if value == "http1" => options.spoken = [Protocol::Http1; 2],
            "--readme" => options.readme.push(value.into()),
            // Read by `testbed::seed`, before any thread is there.
            "--seed" => testbed::fix_seed(value.parse().map_err(|_| format!("{name} is a number, not {value:?}"))?),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_made_anew_in_whichever_file_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["README.md", "benchmarks.md"].map(|name| folder.path().join(name));
        std::fs::write(&files[0], "a\n<!-- soak:short -->\nold\n<!-- /soak:short -->\nb\n").unwrap();
        std::fs::write(&files[1], "c\n<!-- soak -->\nold\n<!-- /soak -->\nd\n").unwrap();
        write(updated(&files, &["table\n", "sentence\n"]).unwrap()).unwrap();
        let texts = files.clone().map(|file| std::fs::read_to_string(file).unwrap());
        assert_eq!(texts[0], "a\n<!-- soak:short -->\nsentence\n<!-- /soak:short -->\nb\n");
        assert_eq!(texts[1], "c\n<!-- soak -->\ntable\n<!-- /soak -->\nd\n");

        let missing = updated(&files[1..], &["table\n", "sentence\n"]).unwrap_err();
        assert_eq!(missing, "no file of --readme has \"<!-- soak:short -->\\n\"");
        std::fs::write(&files[1], "<!-- soak -->\n").unwrap();
        assert!(updated(&files, &["", ""]).unwrap_err().ends_with("benchmarks.md has no \"<!-- /soak -->\""));
        assert!(updated(&[], &["", ""]).unwrap().is_empty(), "without --readme nothing is written");
    }
}
