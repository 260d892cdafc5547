//! Giving back segments that nobody needs any more.

use crate::{checkpoint, log::Catalogue, options::Disks};
use parking_lot::RwLock;
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

/// Removes the segments whose records all lie below `hold_lsn` and below what the older of the kept
/// checkpoints needs. The newest segment stays.
pub(crate) fn reclaim(
    disks: &Disks,
    catalogue: &RwLock<Catalogue>,
    hold_lsn: Lsn,
) -> Result<ReclaimReport, ReclaimError> {
    let checkpoints =
        checkpoint::list(&*disks.data).map_err(failed("list", "the data directory"))?;
    // Without a checkpoint every record is needed for recovery.
    let needed = checkpoints.iter().take(checkpoint::KEPT).min().map_or(Lsn::ZERO, |l| l.next());
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
