//! `evenkeel ready`: the health check of a container whose image has no shell.

use super::{client, hold};
use crate::config::Sockets;
use http::StatusCode;
use std::process::ExitCode;

/// Says nothing and succeeds when clients may be sent to the running process; else says why not. Asks on `server.admin`;
/// where that is off or shared, on a socket of the process's own. In a container in which `evenkeel hold` runs, and no
/// proxy, it succeeds.
pub async fn ready(sockets: Sockets) -> ExitCode {
    if hold::is_here() {
        return ExitCode::SUCCESS;
    }
    let answer = if client::is_asked_locally(&sockets) {
        client::get_locally(&sockets, "/ready").await
    } else {
        client::get(sockets.admin, "/ready").await
    };
    let problem = match answer {
        Ok((StatusCode::OK, _)) => return ExitCode::SUCCESS,
        Ok((StatusCode::SERVICE_UNAVAILABLE, body)) => String::from_utf8_lossy(&body).trim_end().to_owned(),
        Ok((status, _)) => format!("/ready answers {status}; is it another program that listens on server.admin?"),
        Err(problem) => problem,
    };
    eprintln!("evenkeel: {problem}");
    ExitCode::FAILURE
}
