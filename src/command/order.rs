//! `evenkeel drain`, `undrain`, `pause` and `resume`: has the running process do something.

use super::client;
use crate::admin::verb::{Done, Verb};
use crate::clock;
use crate::config::Sockets;
use http::{Method, StatusCode};
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(100);

/// Gives the order to the process that has these sockets. With `wait`, which is for [`Verb::Drain`], it ends once nothing
/// runs there any more, and fails after that time.
pub async fn order(sockets: Sockets, verb: Verb, wait: Option<Duration>) -> ExitCode {
    match obeyed(&sockets, &verb, wait).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("evenkeel: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn obeyed(sockets: &Sockets, verb: &Verb, wait: Option<Duration>) -> Result<(), String> {
    let began = clock::now();
    give(sockets, verb).await?.lines.iter().for_each(|line| say(line));
    let (Some(wait), Verb::Drain(replica)) = (wait, verb) else { return Ok(()) };
    loop {
        // At least once: a request that was placed just before may not be counted yet.
        sleep(LOOK).await;
        let found = give(sockets, &Verb::Look(replica.clone())).await?;
        if !found.in_force {
            return Err(format!("{replica} is no longer drained: somebody undrained it, or the proxy was restarted"));
        }
        if found.in_flight == 0 {
            say("nothing runs there any more");
            return Ok(());
        }
        if clock::now() - began > wait {
            return Err(format!(
                "after {} {} of its requests and streams still run (WebSockets last as long as their clients want); it \
                 stays drained",
                humantime::format_duration(wait),
                found.in_flight
            ));
        }
    }
}

/// A reader that left wants no more.
fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

/// Gives the order, and says what came of it.
///
/// # Errors
/// Why it was refused, or not heard, and what to do.
pub(super) async fn give(sockets: &Sockets, verb: &Verb) -> Result<Done, String> {
    let (status, body) = client::ask_locally(sockets, Method::POST, &verb.target()).await?;
    if status != StatusCode::OK {
        return Err(String::from_utf8_lossy(&body).trim_end().to_owned());
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("the answer is not what this version ({}) reads: {error}", env!("CARGO_PKG_VERSION")))
}
