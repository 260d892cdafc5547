//! From files to a running log, or to the exact reason why not.
//!
//! ```text
//! newest good checkpoint ──► segment that holds the record after it ──► … ──► newest segment
//!                              every record is read and checked                │
//!                                             torn tail: cut, reported ◄───────┤
//!                                      durable record unreadable: refuse ◄─────┘
//! ```
//! What may be missing after a power cut is only what no fsync covered. Three things tell what was
//! covered: a durable mark behind the bad place, the probe file, and the rule that a segment begins only
//! after the one before is durable whole. So a bad place at or below a *proven* LSN is damage, and the
//! answer is an error that names file and offset; above it, it is a torn tail, and it is cut.
//!
//! What a killed process wrote may be only in the page cache, and after a failed fsync it may never leave
//! it. So the newest segment is written again, to a new file, and fsynced, before anything in it counts as
//! durable (A2.15). A log that was marked after a failed fsync is not recovered before a
//! person says that the disk is sound again ([`forget_failure`]).
//!
//! **Caveats.** Damage that hits only the newest records, before the next batch or probe (half a second)
//! proved them, looks like a torn tail: no reader of one disk can tell them apart. The standby's log does.
//! Segments below the checkpoint are not read here; a reader that meets damage there names it.

mod error;
mod rewrite;
mod scan;

pub use error::{RecoveryError, RecoveryReport};

use crate::{
    checkpoint::{self, CheckpointFile, OpenError},
    disk::read_full_at,
    log::{Continuation, Log, LogEnd, Start},
    options::{Disks, LogOptions},
    slot_file::{SlotError, SlotFile},
};
use scan::Scan;
use std::{io, time::Instant};
use understudy_types::{EpochHistory, Lsn, Position, RunningHash};

/// Left by a writer whose write or fsync failed.
pub(crate) const POISONED_NAME: &str = "poisoned";
/// Reserved file of the next segment.
pub(crate) const SPARE_NAME: &str = "spare.tmp";
/// Evidence of durability, stored when the writer is idle.
pub(crate) const PROBE_NAME: &str = "probe";
/// Content of the probe: one LSN.
const PROBE_BYTES: usize = 8;

/// A log that runs, and what the caller replays into the store.
#[derive(Debug)]
pub struct Recovered {
    /// The log; everything in it is durable.
    pub log: Log,
    /// The checkpoint to load before the records after it; `None`: replay from the first record.
    pub checkpoint: Option<CheckpointFile>,
    /// Which epoch begins where, up to `end`.
    pub history: EpochHistory,
    /// Epoch and LSN of the last record.
    pub end: Position,
    /// Running hash after the last record.
    pub hash: RunningHash,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// Opens the log of a directory that nobody else uses; an empty one gets a new log. What a crash left half
/// written is removed, a checkpoint that is still being received too: a duplicate ends before this begins.
///
/// # Errors
/// When the log cannot be trusted to hold everything that was durable; see [`RecoveryError`].
pub fn recover(disks: Disks, options: LogOptions) -> Result<Recovered, RecoveryError> {
    let begun = Instant::now();
    refuse_poisoned(&disks)?;
    remove_leftovers(&disks)?;
    let mut report = RecoveryReport::default();
    let checkpoint = newest_checkpoint(&disks, &mut report)?;
    report.checkpoint_lsn = checkpoint.as_ref().map(|c| c.meta().lsn);
    let (mut probe, proven) = open_probe(&disks)?;
    let found = scan::find_segments(&*disks.log)?;
    report.segments = found.len();
    let mut scan = Scan::new(&disks, &options, checkpoint.as_ref(), proven);
    let (active, catalogue) = match scan.run(found, &mut report)? {
        Some(running) => running,
        None => scan.begin_anew()?,
    };
    let Continuation { end: lsn, hash, history, .. } = scan.at;
    let end = Position { epoch: history.last_epoch(), lsn };
    probe
        .store(&lsn.0.to_le_bytes())
        .map_err(|e| failed("write", PROBE_NAME)(io::Error::other(e)))?;
    let log_end = LogEnd { lsn, hash, history: history.clone() };
    let log = Log::start(disks, options, log_end, catalogue, Start { active, probe })
        .map_err(failed("start", "the log writer"))?;
    report.elapsed = begun.elapsed();
    tracing::info!(%lsn, records = report.records, tail_cut_bytes = report.tail_cut_bytes, "log recovered");
    Ok(Recovered { log, checkpoint, history, end, hash, report })
}

fn failed(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> RecoveryError {
    let file = file.to_owned();
    move |source| RecoveryError::Disk { operation, file, source }
}

fn refuse_poisoned(disks: &Disks) -> Result<(), RecoveryError> {
    for disk in [&disks.log, &disks.data] {
        let marker = crate::disk::open_if_present(&**disk, POISONED_NAME)
            .map_err(failed("open", POISONED_NAME))?;
        if let Some(marker) = marker {
            let mut reason = [0; 512];
            // The marker counts, whether or not its text can be read.
            let n = read_full_at(&*marker, &mut reason, 0).unwrap_or(0);
            let reason = String::from_utf8_lossy(&reason[..n]).trim_end().to_owned();
            return Err(RecoveryError::Poisoned { reason });
        }
    }
    Ok(())
}

/// Takes away what a writer left whose write or fsync failed, so that the next [`recover`] reads the
/// directory; whether there was anything. A person's word that the disk is sound again comes before it:
/// everything that was ever called durable was so before the failure, what is there is checked when it is
/// read, and the newest segment is written and fsynced anew before anything relies on it.
///
/// # Errors
/// When the disk does not take it.
pub fn forget_failure(disks: &Disks) -> io::Result<bool> {
    let mut found = false;
    for disk in [&disks.log, &disks.data] {
        match disk.remove(POISONED_NAME) {
            Ok(()) => found = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        disk.sync_directory()?;
    }
    Ok(found)
}

/// Removes what a crash left half made. None of these files ever counted.
fn remove_leftovers(disks: &Disks) -> Result<(), RecoveryError> {
    let own = [
        SPARE_NAME,
        rewrite::REWRITTEN_NAME,
        checkpoint::PARTIAL_NAME,
        crate::log::EXPORT_PARTIAL_NAME,
    ];
    for disk in [&disks.log, &disks.data] {
        for file in disk.list().map_err(failed("list", "the directory"))? {
            if own.contains(&file.name.as_str()) {
                disk.remove(&file.name).map_err(failed("remove", &file.name))?;
            }
        }
    }
    Ok(())
}

/// The newest checkpoint that is whole; damaged newer ones are passed over and reported.
fn newest_checkpoint(
    disks: &Disks,
    report: &mut RecoveryReport,
) -> Result<Option<CheckpointFile>, RecoveryError> {
    for lsn in checkpoint::list(&*disks.data).map_err(failed("list", "the data directory"))? {
        match CheckpointFile::open(&disks.data, lsn) {
            Ok(good) => return Ok(Some(good)),
            Err(OpenError::Disk { file, source }) => {
                return Err(RecoveryError::Disk { operation: "read", file, source });
            }
            Err(OpenError::Damaged { file, source }) => {
                tracing::warn!(file, error = %source, "passing over a damaged checkpoint");
                report.damaged_checkpoints.push(format!("{file}: {source}"));
            }
        }
    }
    Ok(None)
}

/// Opens the probe and reads what it proves.
fn open_probe(disks: &Disks) -> Result<(SlotFile, Lsn), RecoveryError> {
    let probe = match SlotFile::open(&disks.log, PROBE_NAME, PROBE_BYTES) {
        Err(SlotError::Damaged { file }) => {
            // It is evidence beside the marks, not data: without it less damage can be told apart.
            tracing::warn!(file, "the probe file is damaged; it is made anew");
            disks.log.remove(PROBE_NAME).map_err(failed("remove", PROBE_NAME))?;
            SlotFile::open(&disks.log, PROBE_NAME, PROBE_BYTES)
        }
        other => other,
    }
    .map_err(|e| failed("open", PROBE_NAME)(io::Error::other(e)))?;
    let content = probe.load().unwrap_or_default();
    let proven = content.first_chunk::<PROBE_BYTES>().map_or(0, |b| u64::from_le_bytes(*b));
    Ok((probe, Lsn(proven)))
}
