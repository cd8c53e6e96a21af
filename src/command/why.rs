//! `evenkeel why`: how one request went, step by step.

use super::client;
use crate::admin::why;
use crate::config::Sockets;
use http::StatusCode;
use std::process::ExitCode;

/// Prints what the running process knows of the requests that are called so, or of the last one that ended.
pub async fn why(sockets: Sockets, id: Option<String>) -> ExitCode {
    let path = why::address(id.as_deref());
    let answer = if client::is_asked_locally(&sockets) {
        client::get_locally(&sockets, &path).await
    } else {
        client::get(sockets.admin, &path).await
    };
    let problem = match answer {
        Ok((StatusCode::OK, body)) => {
            print!("{}", String::from_utf8_lossy(&body));
            return ExitCode::SUCCESS;
        }
        Ok((_, body)) => String::from_utf8_lossy(&body).trim_end().to_owned(),
        Err(problem) => problem,
    };
    eprintln!("evenkeel: {problem}");
    ExitCode::FAILURE
}
