//! Tells its users whether the database is available, by asking db-checker.
//!
//! `/check_db` asks `CHECK_DB_URL`, which is db-checker's own address or a proxy in front of its replicas: the answers
//! are the same.

mod check;
mod serve;

use check::Checker;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::{Method, Response, StatusCode};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))
        .and_then(|runtime| {
            let outcome = runtime.block_on(run());
            // A name that is still being resolved must not hold up the end.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let checker = Checker::from_env()?;
    let listener = serve::listen(9090).await?;
    serve::run("web", listener, move |request| {
        let checker = checker.clone();
        async move { answer(&checker, request.method(), request.uri().path()).await }
    })
    .await
}

async fn answer(checker: &Checker, method: &Method, path: &str) -> Response<Full<Bytes>> {
    match (path, method) {
        ("/check_db", &Method::GET | &Method::HEAD) => match checker.check().await {
            Ok(true) => text(StatusCode::OK, "DB is available"),
            Ok(false) => text(StatusCode::OK, "DB is not available"),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("could not check if DB is available: {error}"))
            }
        },
        ("/check_db", _) => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => text(StatusCode::NOT_FOUND, ""),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
