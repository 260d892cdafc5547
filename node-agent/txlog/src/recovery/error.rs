//! Why a log cannot be used, and what a recovery reports when it can.

use crate::{log::AppendError, record::RecordError, segment::HeaderError};
use std::{io, time::Duration};
use understudy_types::Lsn;

/// Why the log cannot be used. Each is the end of this start; the member rejoins by duplicate, unless
/// the message says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk failed an earlier process, so nothing that it holds can be trusted.
    #[error("the log was given up by an earlier process: {reason}")]
    Poisoned {
        /// What failed then.
        reason: String,
    },
    /// The disk fails now.
    #[error("failed to {operation} {file}")]
    Disk {
        /// What was attempted.
        operation: &'static str,
        /// File or directory.
        file: String,
        /// Answer of the system.
        #[source]
        source: io::Error,
    },
    /// A file with a segment's name is none.
    #[error("{file} has no good header")]
    Header {
        /// Segment file.
        file: String,
        /// What is wrong.
        #[source]
        source: HeaderError,
    },
    /// A durable record cannot be read.
    #[error("{file} is damaged at byte {offset}: record {lsn} was durable and cannot be read")]
    Damaged {
        /// Segment file.
        file: String,
        /// Place in the file, in bytes.
        offset: u64,
        /// Record that is missing.
        lsn: Lsn,
        /// What is wrong there; `None` when the records simply end.
        #[source]
        source: Option<RecordError>,
    },
    /// Whole records that do not follow each other.
    #[error("{file} is damaged at byte {offset}: the record does not continue the log")]
    Disorder {
        /// Segment file.
        file: String,
        /// Place in the file, in bytes.
        offset: u64,
        /// What does not fit.
        #[source]
        source: AppendError,
    },
    /// The head of a segment does not fit the end of the one before.
    #[error(
        "{file} begins at {first_lsn} and does not continue the segment before it, which ends at {end}"
    )]
    Chain {
        /// Segment file.
        file: String,
        /// Its first record.
        first_lsn: Lsn,
        /// End of the records before.
        end: Lsn,
    },
    /// Recovery would have to begin with records that are gone.
    #[error(
        "the log begins at {first_lsn}, but recovery needs it from {needed} on{}",
        told(damaged)
    )]
    Gap {
        /// First record of the log.
        first_lsn: Lsn,
        /// Record after the newest good checkpoint.
        needed: Lsn,
        /// Checkpoints that were passed over because they are damaged, with the damage in words.
        damaged: Vec<String>,
    },
    /// The log ends before records that were durable.
    #[error("the log ends at {end}, but records up to {proven} were durable: segments are missing")]
    Missing {
        /// End of what is there.
        end: Lsn,
        /// What was durable.
        proven: Lsn,
    },
    /// Checkpoint and log are of different histories.
    #[error("the checkpoint at {lsn} does not belong to this log: {reason}")]
    Mismatch {
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// What differs.
        reason: &'static str,
    },
}

/// Damaged checkpoints, behind the sentence that they made true.
fn told(damaged: &[String]) -> String {
    let one = |damage: &String| format!("; {damage}");
    damaged.iter().map(one).collect()
}

impl RecoveryError {
    /// Whether this directory is good for nothing but evidence, so that the member rejoins by duplicate
    /// into a new one. Else the disk did not answer as it should, and a later start may succeed.
    #[must_use]
    pub fn must_duplicate(&self) -> bool {
        match self {
            RecoveryError::Disk { .. } => false,
            RecoveryError::Poisoned { .. }
            | RecoveryError::Header { .. }
            | RecoveryError::Damaged { .. }
            | RecoveryError::Disorder { .. }
            | RecoveryError::Chain { .. }
            | RecoveryError::Gap { .. }
            | RecoveryError::Missing { .. }
            | RecoveryError::Mismatch { .. } => true,
        }
    }
}

/// What a recovery found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// LSN of the checkpoint to load; `None` when there is none.
    pub checkpoint_lsn: Option<Lsn>,
    /// Checkpoints that were passed over because they are damaged, with the damage in words.
    pub damaged_checkpoints: Vec<String>,
    /// Segments in the directory.
    pub segments: usize,
    /// Segments that were read.
    pub segments_read: usize,
    /// Records that were read and checked.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the torn tail that was cut off; zero after a clean stop.
    pub tail_cut_bytes: u64,
    /// File and offset of that tail; `None` when nothing was cut.
    pub tail_cut_at: Option<(String, u64)>,
    /// Whether the log ended before the checkpoint and begins anew behind it.
    pub log_behind_checkpoint: bool,
    /// Time that it took.
    pub elapsed: Duration,
}
