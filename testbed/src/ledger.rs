//! Who received which POST, on disk, so that a replica that was killed cannot take it into its grave.
//!
//! A replica that is told a folder as `LOG_FOLDER` appends each id to a file of its own as soon as it has read the
//! request's head, before anything of the answer. What is in the file was received; a process that dies cannot unwrite it.

use crate::App;
use std::collections::BTreeMap;
use tempfile::TempDir;

/// The folder, gone when dropped.
#[derive(Debug)]
pub struct Ledger {
    folder: TempDir,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Ledger {
        let folder = tempfile::Builder::new().prefix("testbed-ledger-").tempdir().expect("a temporary folder");
        crate::guard::watch_folder(folder.path());
        Ledger { folder }
    }

    /// A replica that writes to it.
    pub fn kept_by(&self, app: App) -> App {
        app.env("LOG_FOLDER", self.folder.path().display())
    }

    /// Who received each id: a replica's name once for each time.
    pub fn received(&self) -> BTreeMap<u64, Vec<String>> {
        let mut received: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for file in std::fs::read_dir(self.folder.path()).expect("a folder of ours") {
            let file = file.expect("a folder of ours");
            let name = file.file_name().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(file.path()).expect("a replica's file");
            for line in text.lines() {
                // A line is one write, so no kill cuts it short.
                let id = line.parse().unwrap_or_else(|e| panic!("{name}: {line:?}: {e}"));
                received.entry(id).or_default().push(name.clone());
            }
        }
        received
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger::new()
    }
}
