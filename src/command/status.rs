//! `evenkeel status`: the running proxy as a table, once or again each second.

use super::client;
use super::paint::Paint;
use super::table;
use crate::admin::Status;
use crate::config::Sockets;
use http::StatusCode;
use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;

const REDRAW: Duration = Duration::from_secs(1);

/// Shows the process that has these sockets; with `watch` until it is interrupted, also while that process is not there.
pub async fn status(sockets: Sockets, watch: bool) -> ExitCode {
    let paint = Paint::for_stdout();
    if !watch {
        return match fetch(&sockets).await {
            Ok(status) => {
                // A reader that left wants no more.
                let _ = stdout().write_all(table::draw(&status, paint).as_bytes());
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("evenkeel: {problem}");
                ExitCode::FAILURE
            }
        };
    }
    let in_place = stdout().is_terminal();
    loop {
        let text = match fetch(&sockets).await {
            Ok(status) => table::draw(&status, paint),
            Err(problem) => format!("{}\n", paint.bad(&problem)),
        };
        let frame = if in_place { over_the_last(&text) } else { text + "\n" };
        let mut out = stdout().lock();
        if out.write_all(frame.as_bytes()).and_then(|()| out.flush()).is_err() {
            return ExitCode::SUCCESS;
        }
        drop(out);
        sleep(REDRAW).await;
    }
}

/// Drawn from the terminal's first line, each line to its end, and the rest below erased: nothing flickers.
fn over_the_last(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// Asks the process that has these sockets.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) async fn fetch(sockets: &Sockets) -> Result<Status, String> {
    let (status, body) = match sockets.admin {
        Some(_) if sockets.reuse_port => client::get_locally(sockets, "/status").await?,
        admin => client::get(admin, "/status").await?,
    };
    if status != StatusCode::OK {
        return Err(format!("/status answers {status}; is it another program that listens on server.admin?"));
    }
    serde_json::from_slice(&body).map_err(|error| {
        format!("/status is not what this version ({}) reads: {error}; is it another one's?", env!("CARGO_PKG_VERSION"))
    })
}
