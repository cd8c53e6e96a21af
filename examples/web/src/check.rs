//! Asking db-checker: one client whose kept connections all checks share.

use http_body_util::Empty;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::http::uri::Scheme;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::env;
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout;

/// Time for a check, from the name's resolution to the answer's head. db-checker needs 2 s at most, and a proxy that
/// waits for a replica 5 s.
const CHECK: Duration = Duration::from_secs(10);

/// How long a kept connection may rest: less than whoever is asked keeps it (60 s, proxy and db-checker alike), so that
/// no request is sent into a closing one.
const IDLE: Duration = Duration::from_secs(30);

const REMEDY: &str = "set it like CHECK_DB_URL=http://proxy/ping";

/// Asks db-checker at its address; cheap to clone.
#[derive(Clone)]
pub(crate) struct Checker {
    client: Client<HttpConnector, Empty<Bytes>>,
    url: Uri,
}

impl Checker {
    /// The checker that asks `CHECK_DB_URL`.
    ///
    /// # Errors
    /// When that is missing or cannot be asked; with what to write.
    pub(crate) fn from_env() -> Result<Checker, String> {
        let url = match env::var("CHECK_DB_URL") {
            Ok(url) if !url.is_empty() => url,
            Err(env::VarError::NotUnicode(_)) => return Err(format!("CHECK_DB_URL is not text; {REMEDY}")),
            _ => return Err(format!("CHECK_DB_URL is not set; {REMEDY}")),
        };
        let url = parse(&url).map_err(|why| format!("CHECK_DB_URL={url:?} {why}; {REMEDY}"))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Checker { client, url })
    }

    /// Whether db-checker says 200. Its answer's body says nothing more and is not read; where there is one, that costs
    /// the connection.
    ///
    /// # Errors
    /// When it says nothing: no name, no connection, no answer within [`CHECK`].
    pub(crate) async fn check(&self) -> Result<bool, String> {
        match timeout(CHECK, self.client.get(self.url.clone())).await {
            Ok(Ok(response)) => Ok(response.status() == hyper::StatusCode::OK),
            Ok(Err(error)) => Err(format!("{}: {}", self.url, chain(&error))),
            Err(_) => Err(format!("{}: no answer within {} s", self.url, CHECK.as_secs())),
        }
    }
}

fn parse(url: &str) -> Result<Uri, String> {
    let url: Uri = url.parse().map_err(|e| format!("is not a URL ({e})"))?;
    match (url.scheme(), url.authority()) {
        (Some(scheme), Some(_)) if *scheme == Scheme::HTTPS => Err("is https, and only http is supported".into()),
        (Some(scheme), Some(host)) if *scheme == Scheme::HTTP && !host.host().is_empty() => {
            if host.as_str().contains('@') {
                return Err("has a user or a password, which are not supported".into());
            }
            Ok(url)
        }
        _ => Err("does not start with http:// and a host".into()),
    }
}

/// An error with all its causes: the client's own text is only the outermost.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
