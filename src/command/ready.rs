//! `evenkeel ready`: the health check of a container whose image has no shell.

use super::client;
use http::StatusCode;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Says nothing and succeeds when clients may be sent to the running process; else says why not. Asks on `server.admin`;
/// where that is off, on a socket named after `listen`.
pub async fn ready(listen: SocketAddr, admin: Option<SocketAddr>) -> ExitCode {
    let answer = match admin {
        Some(_) => client::get(admin, "/ready").await,
        None => client::get_ready_locally(listen).await,
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
