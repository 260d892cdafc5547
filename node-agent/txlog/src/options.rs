//! Sizes and intervals of the log, and the two directories that it lives in.

use crate::disk::Disk;
use std::{fmt, sync::Arc, time::Duration};

/// Where the files lie.
#[derive(Clone)]
pub struct Disks {
    /// Segments, probe and marker of a failed disk.
    pub log: Arc<dyn Disk>,
    /// Checkpoints and exports of cut records.
    pub data: Arc<dyn Disk>,
}

impl Disks {
    /// Everything in one directory.
    #[must_use]
    pub fn one(disk: Arc<dyn Disk>) -> Disks {
        Disks { log: Arc::clone(&disk), data: disk }
    }
}

impl fmt::Debug for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disks")
    }
}

/// What fits in memory beside a backlog: the records of those who did not wait, because they had begun.
pub const BACKLOGS_MAX: u64 = 4;

/// Sizes and intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a segment file in bytes. Reclaim works in whole segments, and one more is always
    /// reserved ahead so that a full volume shows before it matters.
    pub segment_bytes: u64,
    /// Newest records kept in memory for the senders, in bytes.
    pub memory_tail_bytes: usize,
    /// Most bytes that all segments may take together; the log counts as full one segment before.
    pub size_max_bytes: u64,
    /// Most bytes that may wait in memory for the writer before new transactions should wait for it; with
    /// [`BACKLOGS_MAX`] times as many the log counts as full.
    pub backlog_max_bytes: u64,
    /// Bytes in memory at which the writer drains without being asked.
    pub drain_bytes: u64,
    /// Longest time that an appended record waits before it is written to the file.
    pub drain_interval: Duration,
    /// Longest time that a written record waits for its fsync when nobody asked for it.
    pub sync_interval: Duration,
    /// Idle time after which the writer proves by a small write and fsync that the disk answers
    /// (protocol A1.10).
    pub probe_interval: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment_bytes: 64 << 20,
            memory_tail_bytes: 32 << 20,
            size_max_bytes: u64::MAX,
            backlog_max_bytes: 64 << 20,
            drain_bytes: 1 << 20,
            drain_interval: Duration::from_millis(5),
            sync_interval: Duration::from_millis(100),
            probe_interval: Duration::from_millis(500),
        }
    }
}
