//! Giving back segments that nobody needs any more.

use crate::{checkpoint, log::Catalogue, options::Disks, sync::RwLock};
use std::io;
use understudy_types::Lsn;

/// What a reclaim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReclaimReport {
    /// Segments removed.
    pub segments: usize,
    /// Bytes given back.
    pub bytes: u64,
    /// First record that can be read now.
    pub first_lsn: Lsn,
}

/// Why segments could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} {file}")]
pub struct ReclaimError {
    /// What was attempted.
    pub operation: &'static str,
    /// File or directory.
    pub file: String,
    /// Answer of the system.
    #[source]
    pub source: io::Error,
}

fn failed(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> ReclaimError {
    let file = file.to_owned();
    move |source| ReclaimError { operation, file, source }
}

/// A kept checkpoint needs the log above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointHold {
    /// The checkpoint's file in the data directory.
    pub file: String,
    /// First record that recovery from it reads.
    pub first_lsn: Lsn,
}

/// What the kept checkpoints need, newest first. Without a checkpoint recovery needs every record.
pub(crate) fn checkpoint_holds(disks: &Disks) -> Result<Vec<CheckpointHold>, ReclaimError> {
    let found = checkpoint::list(&*disks.data).map_err(failed("list", "the data directory"))?;
    let kept = found.into_iter().take(checkpoint::KEPT);
    let hold = |lsn| CheckpointHold { file: checkpoint::file_name(lsn), first_lsn: lsn.next() };
    Ok(kept.map(hold).collect())
}

/// Removes the segments whose records all lie below `hold_lsn` and below what the older of the kept
/// checkpoints needs. The newest segment stays.
pub(crate) fn reclaim(
    disks: &Disks,
    catalogue: &RwLock<Catalogue>,
    hold_lsn: Lsn,
) -> Result<ReclaimReport, ReclaimError> {
    let holds = checkpoint_holds(disks)?;
    let needed = holds.iter().map(|hold| hold.first_lsn).min().unwrap_or(Lsn::ZERO);
    let hold_lsn = hold_lsn.min(needed);
    let mut report = ReclaimReport::default();
    loop {
        let mut segments = catalogue.write();
        report.first_lsn = segments.first_lsn();
        let mut oldest = segments.iter();
        let (Some(first), Some(second)) = (oldest.next(), oldest.next()) else { break };
        if second.header.first_lsn > hold_lsn {
            break;
        }
        let (first_lsn, name, bytes) =
            (first.header.first_lsn, first.name.clone(), first.file_bytes);
        drop(oldest);
        // Out of the catalogue before out of the directory: a reader that finds no file looks again.
        segments.remove(first_lsn);
        drop(segments);
        disks.log.remove(&name).map_err(failed("remove", &name))?;
        // One by one, so that a power cut never leaves a gap.
        disks.log.sync_directory().map_err(failed("sync", "the log directory"))?;
        report.segments += 1;
        report.bytes += bytes;
    }
    Ok(report)
}
