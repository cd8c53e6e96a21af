//! Noticing that the configuration file changed.
//!
//! The text is compared, not the inode or the time: a mounted directory may hold a link to a file that is replaced whole
//! (as Kubernetes does), an editor may write a new file, and the same text again is no change.

use super::Live;
use crate::config::{ConfigError, FileText};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::error;

/// How often the file is looked at. It is small and cached; a read costs microseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// What reading the file brought, be it a text, an error, or that there is none.
pub(super) type Reading = Result<Option<FileText>, ConfigError>;

/// Reloads when the file changes and on SIGHUP, for as long as the process runs. `first` is what the configuration in
/// force was made of.
pub(super) async fn run(live: Arc<Live>, first: Reading) {
    let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be caught");
    let mut watch = Watch::new(first);
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = sleep(INTERVAL) => false,
        };
        let Some(reading) = read(&live).await else { continue };
        if asked {
            watch.catch_up(reading.clone());
            live.reload("SIGHUP", reading);
        } else if watch.look(&reading) {
            live.reload("the file changed", reading);
        }
    }
}

/// Reads on another thread: a network's file system that hangs must not stop probes and the admin address, too.
async fn read(live: &Arc<Live>) -> Option<Reading> {
    let source = live.source().clone();
    match tokio::task::spawn_blocking(move || source.read()).await {
        Ok(reading) => Some(reading),
        Err(error) => {
            error!(%error, "the configuration file was not read");
            None
        }
    }
}

/// What the file said last.
#[derive(Debug)]
struct Watch {
    last: Reading,
    /// Read while it was being written, perhaps: a change counts once it is read twice alike.
    pending: Option<Reading>,
}

impl Watch {
    fn new(last: Reading) -> Self {
        Watch { last, pending: None }
    }

    /// Takes note of what it says now, for a reload that was asked for.
    fn catch_up(&mut self, now: Reading) {
        self.last = now;
        self.pending = None;
    }

    /// Whether it says something else than before, twice in a row.
    fn look(&mut self, now: &Reading) -> bool {
        if *now == self.last {
            self.pending = None;
            return false;
        }
        if self.pending.as_ref() != Some(now) {
            self.pending = Some(now.clone());
            return false;
        }
        self.catch_up(now.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Reading {
        Ok(Some(FileText { name: "proxy.toml".to_owned(), text: text.to_owned() }))
    }

    #[test]
    fn a_change_counts_once_it_is_read_twice_alike() {
        let mut watch = Watch::new(file("a"));
        let seen = ["a", "b", "bc", "bc", "bc", "a", "bc"].map(|text| watch.look(&file(text)));
        assert_eq!(seen, [false, false, false, true, false, false, false]);
        assert_eq!([Ok(None), Ok(None), Ok(None)].map(|gone| watch.look(&gone)), [false, true, false]);
    }
}
