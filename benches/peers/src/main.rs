//! `make bench`: runs the contenders, prints the table.

use clap::Parser;
use peers::conduct::Conduct;
use peers::dns::Dns;
use peers::kind::Kind;
use peers::lines::Section;
use peers::origin::Origin;
use peers::peer::{Peer, Upstream};
use peers::process::{self, Cores};
use peers::row::{Effort, Row};
use peers::run::{Run, absent};
use peers::table::Table;
use peers::{picture, readme};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Measures Evenkeel beside its peers and prints tables of medians, with ratios to HAProxy in brackets.
///
/// Missing peers are installed into target/peers; nothing else of the system is touched.
#[derive(Debug, Parser)]
struct Arguments {
    /// One short round.
    #[arg(long)]
    quick: bool,
    /// Only these: direct, round-robin, evenkeel, haproxy, nginx, envoy, caddy, traefik, nginx-time, traefik-time.
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    only: Vec<String>,
    /// Only these: cpu-get, cpu-1k, cpu-64k, cpu-post, cpu-new, two-threads, start, memory, latency-1, latency-64,
    /// latency-1000; slow-10, slow-50, slow-80, without-10, without-50, without-80, slow-few-workers, alike-few-workers,
    /// four, failing, recovery; hang-up-5-of-25, hang-up-3-of-200 (10, 30, 100, 300), one-breaks, three-break,
    /// closes-unannounced, closes-late, outage, death, cancelled, hostile-head, hostile-waiting, hostile-put,
    /// hostile-chunks.
    #[arg(long, value_delimiter = ',', value_name = "ROW,…")]
    only_rows: Vec<String>,
    /// Rounds [default: 3; 1 with --quick]; with 0 the files are only written again from the values.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each measurement [default: 2; 1 with --quick].
    #[arg(long)]
    seconds: Option<f64>,
    /// Measure before your own app, as http://app.internal:8080/path, instead of replicas that answer at once.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Draws the main figures into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Writes the tables into this file, between its markers; may be given several times. Each table has to be in one of them.
    #[arg(long, value_name = "FILE")]
    readme: Vec<PathBuf>,
    /// Keeps every value in this file. What an earlier run has kept there is shown too, unless it is measured again: a
    /// long measurement can be made in pieces.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// This executable instead of a release build of this tree.
    #[arg(long, value_name = "FILE")]
    evenkeel: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let kinds = choose(&Kind::ALL, |kind| kind.key().to_owned(), &arguments.only)?;
    let rows = choose(&Row::ALL, |row| row.key(), &arguments.only_rows)?;
    let (rounds, seconds) = if arguments.quick { (1, 1.0) } else { (3, 2.0) };
    let effort = Effort {
        rounds: arguments.rounds.unwrap_or(rounds),
        warm: Duration::from_millis(if arguments.quick { 200 } else { 400 }),
        time: Duration::from_secs_f64(arguments.seconds.unwrap_or(seconds)),
    };
    let mut table = earlier(arguments.values.as_deref())?;
    // A marker that is wrong is told before half an hour is spent on what it is to hold.
    readmes(arguments, &table)?;
    if effort.rounds > 0 {
        measure(arguments, &kinds, usable(rows, arguments.upstream.is_some()), effort, &mut table)?;
    }
    println!("{}\n", readme::conditions(&table));
    for section in Section::ALL {
        println!("{}", section.markdown(&table));
    }
    println!("{}\nWhere a peer is better by more than 5 %:\n\n{}", readme::notes(&table), readme::better(&table));
    write(arguments, &table)
}

fn measure(
    arguments: &Arguments,
    kinds: &[Kind],
    rows: Vec<Row>,
    effort: Effort,
    table: &mut Table,
) -> Result<(), String> {
    // 10,000 connections of our own, and as many of a proxy's, with theirs to the replicas.
    process::raise_descriptor_limit(65_536);
    let evenkeel = match &arguments.evenkeel {
        Some(path) => path.canonicalize().map_err(|error| format!("--evenkeel {}: {error}", path.display()))?,
        None if kinds.contains(&Kind::Evenkeel) => build()?,
        None => PathBuf::new(),
    };
    table.machine = process::machine();
    table.forget_notes(&rows);
    if arguments.only_rows.is_empty() {
        table.pick = pick()?;
    }
    let mut kinds = kinds.to_vec();
    if !kinds.contains(&Kind::Direct) {
        // Not asked for, but what a proxy adds is added to it.
        kinds.push(Kind::Direct);
    }
    let peers = find(&kinds, &evenkeel, table);
    let (to, _origin, _dns) = upstream(arguments.upstream.as_deref(), &Cores::split(1))?;
    Run { peers: &peers, to: &to, effort, table }.measure(&rows);
    Ok(())
}

/// Writes the files that were asked for.
fn write(arguments: &Arguments, table: &Table) -> Result<(), String> {
    let mut texts = readmes(arguments, table)?;
    texts.extend(arguments.values.as_ref().map(|path| (path, table.text())));
    texts.extend(arguments.svg.as_ref().map(|path| (path, picture::svg(table))));
    for (path, text) in texts {
        std::fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

/// The files of `--readme` with their tables made anew.
fn readmes<'a>(arguments: &'a Arguments, table: &Table) -> Result<Vec<(&'a PathBuf, String)>, String> {
    let mut texts = vec![];
    for path in &arguments.readme {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        texts.push((path, readme::update(&text, table).map_err(|error| format!("{}: {error}", path.display()))?));
    }
    let missing = readme::missing(texts.iter().map(|(_, text)| text.as_str()));
    match missing.as_slice() {
        [first, ..] if !texts.is_empty() => Err(format!("no file of --readme has a part `bench:{first}`")),
        _ => Ok(texts),
    }
}

/// What earlier runs have kept; nothing where there was none.
fn earlier(path: Option<&Path>) -> Result<Table, String> {
    let Some(path) = path.filter(|path| path.exists()) else { return Ok(Table::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| Table::earlier(&text)).map_err(|error| format!("--values {}: {error}", path.display()))
}

/// The table that `pick` prints.
fn pick() -> Result<String, String> {
    let program = target()?.join("pick");
    let output = Command::new(&program).stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Those of `all` whose keys are named; all where none is.
fn choose<T: Copy>(all: &[T], key: impl Fn(T) -> String, named: &[String]) -> Result<Vec<T>, String> {
    for name in named {
        if !all.iter().any(|one| key(*one) == *name) {
            let known: Vec<String> = all.iter().map(|one| key(*one)).collect();
            return Err(format!("there is no `{name}`; there is {}", known.join(", ")));
        }
    }
    Ok(all.iter().copied().filter(|one| named.is_empty() || named.contains(&key(*one))).collect())
}

fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building Evenkeel …");
    let status = Command::new(cargo).args(["build", "--release", "--package", "evenkeel"]).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("Evenkeel does not build; see above, or name an executable with --evenkeel".into());
    }
    target().map(|folder| folder.join("evenkeel"))
}

/// Where this executable lies, and its siblings.
fn target() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?;
    Ok(own.parent().map(Path::to_owned).unwrap_or_default())
}

fn find(kinds: &[Kind], evenkeel: &Path, table: &mut Table) -> Vec<Peer> {
    let folder = target().map(|folder| folder.with_file_name("peers")).unwrap_or_else(|_| "target/peers".into());
    let mut peers = vec![];
    for kind in kinds {
        match Peer::find(*kind, evenkeel, &folder) {
            Ok(peer) => {
                if kind.is_proxy() {
                    eprintln!("{} {}: {}", kind.name(), peer.version, peer.program.path.display());
                    table.versions.insert(*kind, peer.version.clone());
                }
                peers.push(peer);
            }
            Err(error) => absent(table, *kind, &error),
        }
    }
    peers
}

/// The replicas: ours, or the user's.
fn upstream(url: Option<&str>, cores: &Cores) -> Result<(Upstream, Option<Origin>, Dns), String> {
    let fail = |error: std::io::Error| format!("the replicas cannot be started: {error}");
    let (addresses, host, path, origin) = match url {
        None => {
            let conduct = (0..3).map(|_| Conduct::instant()).collect();
            let origin = Origin::start(conduct, cores, 1).map_err(fail)?;
            (origin.addresses.clone(), "app.internal".to_owned(), "/".to_owned(), Some(origin))
        }
        Some(url) => {
            let (host, path) = split_url(url)?;
            let name = if host.contains(':') { host.clone() } else { format!("{host}:80") };
            let found = name.to_socket_addrs().map_err(|error| format!("--upstream {url}: {name}: {error}"))?;
            (found.filter(SocketAddr::is_ipv4).collect(), host, path, None)
        }
    };
    if addresses.is_empty() {
        return Err("the upstream has no IPv4 address".into());
    }
    let dns = Dns::start(&addresses, 1).map_err(fail)?;
    Ok((Upstream { addresses, dns: dns.address, host, path, ours: url.is_none(), limits: None }, origin, dns))
}

fn split_url(url: &str) -> Result<(String, String), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("--upstream {url}: write http://host:port/path"))?;
    Ok(match rest.find('/') {
        Some(slash) => (rest[..slash].to_owned(), rest[slash..].to_owned()),
        None => (rest.to_owned(), "/".to_owned()),
    })
}

/// Somebody else's app knows neither our bodies nor what to do with a POST.
fn usable(rows: Vec<Row>, foreign: bool) -> Vec<Row> {
    let ours = |row: &Row| matches!(row, Row::Get1K | Row::Get64K | Row::Post4K) || !row.is_cost();
    rows.into_iter().filter(|row| !(foreign && ours(row))).collect()
}
