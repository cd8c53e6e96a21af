//! Tells whether the database answers: over HTTP at `/ping`, or once on the command line.
//!
//! `/ping` is 200 when the database answers and 424 (Failed Dependency) when it does not: this app is well either way.
//! It starts without its database and notices by itself when that comes, goes, restarts or moves.

mod database;
mod serve;
mod tls;

use database::Database;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const USAGE: &str = "\
usage: db-checker          serves /ping: 200 when the database answers, 424 when it does not
       db-checker check    checks once, prints the outcome, and ends: 0 when the database answers, 1 when it does not

DATABASE_URL  the PostgreSQL database, such as postgres://user:password@db:5432/app?sslmode=require
PORT          where to listen, 8080 unless set
HOST          the address to listen on, all of them unless set";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let once = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["check"] => true,
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("db-checker: cannot make sense of {arguments:?}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let code = runtime.block_on(async {
        match Database::from_env() {
            Ok(database) if once => check(&database).await,
            Ok(database) => serve(database).await.map_or_else(|e| fail(&e), |()| ExitCode::SUCCESS),
            Err(error) => fail(&error),
        }
    });
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    code
}

fn fail(error: &str) -> ExitCode {
    eprintln!("db-checker: {error}");
    ExitCode::FAILURE
}

/// Checks once. The original of 2018 ended with 0 whatever it found; a check that scripts and schedulers can act on has
/// to tell by its exit status, so an unavailable database is 1 here. The words are the original's.
async fn check(database: &Database) -> ExitCode {
    match database.ping().await {
        Ok(()) => {
            println!("DB is available");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("DB is not available. Error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(database: Database) -> Result<(), String> {
    let listener = serve::listen(8080).await?;
    let app = Arc::new(App { database, down: AtomicBool::new(false) });
    serve::run("db-checker", listener, move |request| {
        let app = app.clone();
        async move { app.answer(request.uri().path()).await }
    })
    .await
}

struct App {
    database: Database,
    /// What the last ping found, so that only a change is logged.
    down: AtomicBool,
}

impl App {
    /// `/ping` is the same whatever the method, as in the original.
    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let mut response = Response::default();
        *response.status_mut() = match path {
            "/ping" => self.ping().await,
            _ => StatusCode::NOT_FOUND,
        };
        response
    }

    async fn ping(&self) -> StatusCode {
        let outcome = self.database.ping().await;
        let was_down = self.down.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                if was_down {
                    eprintln!("DB is available again");
                }
                StatusCode::OK
            }
            Err(error) => {
                if !was_down {
                    eprintln!("DB is not available. Error: {error}");
                }
                StatusCode::FAILED_DEPENDENCY
            }
        }
    }
}
