//! `evenkeel why`: how one request went, step by step.

use super::client;
use crate::admin::why;
use crate::config::Sockets;
use http::StatusCode;
use std::process::ExitCode;

/// Prints what the running process knows of the requests that are called so, or of the last one that ended.
pub async fn why(sockets: Sockets, id: Option<String>) -> ExitCode {
    super::print(ask(&sockets, id.as_deref()).await)
}

/// What the running process knows of them.
///
/// # Errors
/// It knows nothing, or cannot be asked; and what to do.
pub(super) async fn ask(sockets: &Sockets, id: Option<&str>) -> Result<String, String> {
    let path = why::address(id);
    let (status, body) = if client::is_asked_locally(sockets) {
        client::get_locally(sockets, &path).await?
    } else {
        client::get(sockets.admin, &path).await?
    };
    let text = String::from_utf8_lossy(&body);
    if status == StatusCode::OK { Ok(text.into_owned()) } else { Err(text.trim_end().to_owned()) }
}
