//! The `evenkeel` command: arguments and logging; everything else is in the library.

use clap::{Args, Parser, Subcommand};
use evenkeel::admin::verb::{self, Replica, Verb};
use evenkeel::command;
use evenkeel::command::init::{self, App, Place, Recipe};
use evenkeel::server::{self, Source};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One network alias in front of all replicas of an app.
///
/// Without a command: runs the proxy. Reads ./proxy.toml, or the file named by --config; without a file,
/// UPSTREAM=name:port alone is enough. PORT overrides the port of `listen`.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// The configuration file, or "off": the environment alone [default: proxy.toml, if it is there]
    #[arg(long, global = true, env = "EVENKEEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration, resolve and probe each upstream once, and say what was found. Exit status 0 or 1.
    Check,
    /// Print the recipe that puts a proxy in front of each of these apps, to be pasted or piped. It does nothing by itself.
    Init {
        /// Where the apps run.
        place: Place,
        /// Each app and the port that it listens on in its container.
        #[arg(required = true, value_name = "APP:PORT")]
        apps: Vec<App>,
        /// An app that calls them, which Dokku has to put on the network; may be given several times.
        #[arg(long = "caller", value_name = "APP", value_parser = init::name)]
        callers: Vec<String>,
        /// The network [default: on Dokku one called evenkeel, in compose the file's own]
        #[arg(long, value_name = "NAME", value_parser = init::name)]
        network: Option<String>,
    },
    /// Show the running proxy: every replica, its state, and why.
    Status {
        /// Redraw every second.
        #[arg(long)]
        watch: bool,
    },
    /// Show the same on the whole terminal, with the last hour, and with keys to sort, look closer, drain and pause.
    Top,
    /// Say why a request went where it went: whom it could go to, whom it went to, what failed, and how long each took.
    ///
    /// The last thousand requests are known, and those that failed in the last hour.
    Why {
        /// Its X-Request-Id, its traceparent, the trace in that, or its id in the log.
        #[arg(required_unless_present = "last")]
        id: Option<String>,
        /// The last request that ended.
        #[arg(long, conflicts_with = "id")]
        last: bool,
    },
    /// Exit status 0 once the running proxy accepts requests; 1 before that and while it drains.
    Ready,
    /// Send a replica nothing new; what it has finishes. It stays so, whatever DNS says, until `undrain` or a restart.
    Drain {
        #[command(flatten)]
        replicas: Replicas,
        /// End only when it has no request left, and fail after this time, as in 30s.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
    /// Send a drained replica requests again.
    Undrain {
        #[command(flatten)]
        replicas: Replicas,
    },
    /// Have an upstream's requests wait, each for up to its `wait`; those that run finish. It stays so until `resume` or a
    /// restart.
    Pause {
        /// The upstream's name in the configuration.
        #[arg(value_parser = upstream_name)]
        upstream: String,
    },
    /// Have a paused upstream's requests go on.
    Resume {
        /// The upstream's name in the configuration.
        #[arg(value_parser = upstream_name)]
        upstream: String,
    },
    /// Do nothing but hold a container's address, for proxies that join its network and take over from each other.
    Hold,
}

/// Which replica is meant.
#[derive(Args)]
struct Replicas {
    /// Its address as `status` shows it, with or without the port.
    address: Replica,
    /// In this upstream only; without it in each that has this address.
    #[arg(long, value_name = "NAME", value_parser = upstream_name)]
    upstream: Option<String>,
}

/// Reads the name of an upstream.
fn upstream_name(text: &str) -> Result<String, String> {
    if verb::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("is no upstream's name; see `evenkeel status`".to_owned())
    }
}

impl Replicas {
    fn named(self) -> Replica {
        Replica { upstream: self.upstream, ..self.address }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let source = Source { path: arguments.config };
    let order = |verb, wait| ask(command::order(source.sockets(), verb, wait));
    match arguments.command {
        // The running process is asked even if its file is bad by now.
        Some(Command::Status { watch }) => return ask(command::status(source.sockets(), watch)),
        Some(Command::Top) => return ask(command::top(source.sockets())),
        Some(Command::Why { id, last: _ }) => return ask(command::why(source.sockets(), id)),
        Some(Command::Ready) => return ask(command::ready(source.sockets())),
        Some(Command::Hold) => return ask(command::hold()),
        Some(Command::Drain { replicas, wait }) => return order(Verb::Drain(replicas.named()), wait),
        Some(Command::Undrain { replicas }) => return order(Verb::Undrain(replicas.named()), None),
        Some(Command::Pause { upstream }) => return order(Verb::Pause(upstream), None),
        Some(Command::Resume { upstream }) => return order(Verb::Resume(upstream), None),
        Some(Command::Init { place, apps, callers, network }) => {
            return command::print(Recipe { place, apps, callers, network }.text());
        }
        Some(Command::Check) | None => {}
    }
    let loaded = source.read().and_then(|file| Ok((source.parse(file.as_ref())?, file)));
    let (config, file) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("evenkeel: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(Command::Check) = arguments.command {
        return ask(command::check(&config, &source.file(), &source.sockets()));
    }
    // Held to the end: what is still buffered then is written.
    let _writer = start_log();
    match server::run(config, file, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(_writer);
            eprintln!("evenkeel: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that asks and ends.
fn ask(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("evenkeel: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Lines that wait for a reader: some five megabytes. An access log of a busy proxy would take forty with the library's own
/// number.
const UNREAD_LINES: usize = 16 * 1024;

/// Logs to standard output through a thread of its own: a reader that stalls costs lines, never a request.
fn start_log() -> tracing_appender::non_blocking::WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(UNREAD_LINES).finish(std::io::stdout());
    let log = tracing_subscriber::fmt().with_env_filter(filter()).with_target(false).with_writer(writer);
    match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => log.json().flatten_event(true).init(),
        _ => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stdout())).init(),
    }
    guard
}

/// What `RUST_LOG` asks for, or `info`. The libraries for DNS and HTTP/2 say more than the proxy does, the latter whatever a
/// client makes it say: they are heard only if they are named.
fn filter() -> EnvFilter {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let parsed = filter.parse(&asked).unwrap_or_else(|error| {
        eprintln!("evenkeel: RUST_LOG is not a filter ({error}); write e.g. RUST_LOG=debug. Logging as with info");
        EnvFilter::new("info")
    });
    // A directive for a crate's name is for all its modules. The names are the libraries' own crates.
    let libraries = ["hickory_resolver=warn", "hickory_net=warn", "hickory_proto=warn", "h2=off"];
    let unnamed = |directive: &&str| !asked.contains(if directive.starts_with("h2") { "h2" } else { "hickory" });
    libraries
        .into_iter()
        .filter(unnamed)
        .fold(parsed, |filter, directive| filter.add_directive(directive.parse().expect("a directive")))
}
