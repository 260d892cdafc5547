//! `disk-failed`: that the disk failed a process of this member, and how, for those that come after it.
//! The store is rebuilt within a second and all is well again, but for the disk.
//!
//! A note for people: nothing is decided by it, and a disk that fails may not take it.

use super::{DataDir, failed};
use std::{fs, path::PathBuf};

const NAME: &str = "disk-failed";

/// A disk's last failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFailure {
    /// When it was met, by the wall clock.
    pub at: jiff::Timestamp,
    /// What the system said.
    pub why: String,
}

impl DataDir {
    /// Keeps it in the place of an earlier one.
    pub fn note_disk_failure(&self, failure: &DiskFailure) {
        let path = self.disk_failed();
        let written = fs::write(&path, format!("{}\n{}\n", failure.at, failure.why));
        if let Err(error) = written.map_err(failed("write", &path)) {
            tracing::warn!(error = %error, "the disk's failure was not noted");
        }
    }

    /// The last one, if it was noted.
    #[must_use]
    pub fn disk_failure(&self) -> Option<DiskFailure> {
        let text = fs::read_to_string(self.disk_failed()).ok()?;
        let (at, why) = text.split_once('\n')?;
        Some(DiskFailure { at: at.parse().ok()?, why: why.trim_end().to_owned() })
    }

    fn disk_failed(&self) -> PathBuf {
        self.data.join(NAME)
    }
}
