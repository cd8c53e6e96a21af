//! `evenkeel status`: the running proxy as a table, once or again each second.

use super::client;
use super::paint::Paint;
use super::table;
use crate::config::Sockets;
use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;

const REDRAW: Duration = Duration::from_secs(1);

/// Shows the process that has these sockets; with `watch` until it is interrupted, also while that process is not there.
pub async fn status(sockets: Sockets, watch: bool) -> ExitCode {
    let paint = Paint::for_stdout();
    if !watch {
        return match client::fetch(&sockets, "/status").await {
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
        let text = match client::fetch(&sockets, "/status").await {
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
