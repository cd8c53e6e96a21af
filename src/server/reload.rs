//! Noticing that the configuration file changed.
//!
//! The text is compared, not the inode or the time: a mounted directory may hold a link to a file that is replaced whole
//! (as Kubernetes does), an editor may write a new file, and the same text again is no change.

use std::path::PathBuf;
use std::time::Duration;

/// How often the file is looked at. It is small and cached; a read costs microseconds.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The file, and what it said last.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    /// `None`: it was not there or not readable.
    text: Option<Vec<u8>>,
    /// Read while it was being written, perhaps: a change counts once it is read twice alike.
    pending: Option<Option<Vec<u8>>>,
}

impl Watch {
    pub(super) fn new(path: PathBuf) -> Self {
        let text = std::fs::read(&path).ok();
        Watch { path, text, pending: None }
    }

    /// Takes note of what it says now, for a reload that was asked for.
    pub(super) fn catch_up(&mut self) {
        self.text = std::fs::read(&self.path).ok();
        self.pending = None;
    }

    /// Whether it says something else than before, twice in a row.
    pub(super) fn look(&mut self) -> bool {
        let text = std::fs::read(&self.path).ok();
        if text == self.text {
            self.pending = None;
            return false;
        }
        if self.pending.as_ref() != Some(&text) {
            self.pending = Some(text);
            return false;
        }
        self.pending = None;
        self.text = text;
        true
    }
}
