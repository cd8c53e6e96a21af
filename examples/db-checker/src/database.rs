//! The database: one small pool of connections, and the ping.
//!
//! Responsible for telling, within [`PING`], whether the database answers *now*; what an earlier connection met does not
//! count. Encryption is `tls`'s business.

use crate::tls::{self, Trust};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use percent_encoding::percent_decode_str;
use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Time for a ping, from asking the pool to the answer. Below the time-out of whoever asks.
const PING: Duration = Duration::from_secs(2);

/// Time for a kept connection to answer. A database that has moved leaves connections that say nothing at all; then
/// most of [`PING`] has to be left for a fresh one.
const KEPT: Duration = Duration::from_millis(500);

/// Connections at most. A ping holds one for less than a millisecond; PostgreSQL gives 100 to all replicas together,
/// which are twice as many during a deploy.
const CONNECTIONS: usize = 4;

const REMEDY: &str = "set it like DATABASE_URL=postgres://user:password@db:5432/app, as `dokku postgres:link` does";

/// A PostgreSQL database that may be up or not.
pub(crate) struct Database {
    pool: Pool,
}

impl Database {
    /// The database that `DATABASE_URL` names. Does not connect yet.
    ///
    /// # Errors
    /// When the variable is missing or not such an address. Says what to write, never the address: it holds a password.
    pub(crate) fn from_env() -> Result<Database, String> {
        match env::var("DATABASE_URL") {
            Ok(url) if !url.is_empty() => {
                Database::at(&url).map_err(|why| format!("DATABASE_URL is not usable: {why}; {REMEDY}"))
            }
            Err(env::VarError::NotUnicode(_)) => Err(format!("DATABASE_URL is not text; {REMEDY}")),
            _ => Err(format!("DATABASE_URL is not set; {REMEDY}")),
        }
    }

    fn at(url: &str) -> Result<Database, String> {
        let (url, trust) = split(url)?;
        let config: Config = url.parse().map_err(|e| chain(&e))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("it names no host".into());
        }
        let tls = MakeRustlsConnect::new(tls::config(&trust)?);
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, tls, manager)).max_size(CONNECTIONS);
        Ok(Database { pool: pool.build().map_err(|e| e.to_string())? })
    }

    /// Asks the database for an answer, on a kept connection if one lives, else on a fresh one.
    ///
    /// # Errors
    /// When it gives none within [`PING`], with the reason.
    pub(crate) async fn ping(&self) -> Result<(), String> {
        let late = format!("no answer within {} s", PING.as_secs());
        timeout(PING, self.round_trip()).await.unwrap_or(Err(late))
    }

    /// Ends: a kept connection that fails takes all that are idle with it, and a fresh one decides.
    async fn round_trip(&self) -> Result<(), String> {
        loop {
            let client = self.pool.get().await.map_err(|e| match e {
                PoolError::Backend(error) => chain(&error),
                other => chain(&other),
            })?;
            let kept = Object::metrics(&client).recycle_count > 0;
            let answer = timeout(if kept { KEPT } else { PING }, client.batch_execute("SELECT 1")).await;
            let failure = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => chain(&error),
                Err(_) => "no answer".into(),
            };
            drop(Object::take(client));
            if !kept {
                return Err(failure);
            }
            // They led to the same database, which has stopped, restarted or moved since.
            self.pool.retain(|_, _| false);
        }
    }
}

/// Takes out of the address what the library does not know: `sslrootcert`, and the verifying values of `sslmode`.
///
/// The meaning is libpq's (PostgreSQL's manual, "SSL Support"): nothing is verified unless there is a root certificate;
/// with one the chain is, and by `verify-full` the name as well. Without `sslmode` it is `prefer`.
fn split(url: &str) -> Result<(String, Trust), String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("it does not start with postgres://".into());
    }
    let (address, query) = url.rsplit_once('?').unwrap_or((url, ""));
    let (mut kept, mut root, mut verify) = (vec![], None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("sslrootcert", file) => {
                let file = percent_decode_str(file).decode_utf8().map_err(|e| format!("sslrootcert: {e}"))?;
                root = Some(PathBuf::from(file.into_owned()));
            }
            ("sslmode", mode @ ("verify-ca" | "verify-full")) => {
                verify = Some(mode);
                kept.push("sslmode=require");
            }
            ("sslmode", "disable" | "prefer" | "require") => kept.push(pair),
            ("sslmode", other) => {
                let known = "disable, prefer, require, verify-ca or verify-full";
                return Err(format!("sslmode={other} is not supported, {known} are"));
            }
            _ => kept.push(pair),
        }
    }
    let trust = match (root, verify) {
        (None, Some(mode)) => {
            let debian = "/etc/ssl/certs/ca-certificates.crt";
            return Err(format!(
                "sslmode={mode} needs the authority's certificate: add sslrootcert=FILE (public ones: {debian})"
            ));
        }
        (None, None) => Trust::Anybody,
        (Some(root), verify) => Trust::Root { file: root, name: verify == Some("verify-full") },
    };
    Ok((format!("{address}?{}", kept.join("&")), trust))
}

/// An error with all its causes: the library's own text is only the outermost.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
