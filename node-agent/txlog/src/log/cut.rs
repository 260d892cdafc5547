//! The fork cut: taking the records above an LSN off the log (R18, R19, A2.14).
//!
//! In this order, so that a crash at any point leaves a log that recovers to some end at or above the
//! fork, from which the cut can be made again: export, checkpoints above the fork, the probe's evidence,
//! whole segments from the newest down, the segment that holds the fork.

use super::{
    Export, LogError, SegmentEntry,
    writer::{ActiveSegment, Failed, Writer, is_full, step},
};
use crate::{
    checkpoint::{self, CheckpointFile},
    disk::{DiskFile, write_all_at},
    segment::{FrameReader, HEADER_BYTES, SegmentHeader, Step},
};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
};
use understudy_types::{Lsn, RunningHash};

/// An export that is being written.
pub(crate) const EXPORT_PARTIAL_NAME: &str = "export.tmp";

/// Bytes that are exported at once.
const EXPORT_BYTES: usize = 1 << 20;

/// What a cut did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CutReport {
    /// Records that were removed.
    pub records: u64,
    /// Their encoded bytes, when they were exported; else zero.
    pub bytes: u64,
    /// File of the data directory that holds them now; `None` when none was asked for or nothing was cut.
    pub exported: Option<String>,
    /// Checkpoints that were removed because they lay above the cut.
    pub checkpoints_removed: Vec<Lsn>,
}

/// Why nothing was cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Somebody may append while records are removed.
    #[error("the appender is in use")]
    AppenderInUse,
    /// Cut points lie between the first record and the end.
    #[error("the log holds {first} to {end} and cannot be cut at {lsn}")]
    OutOfRange {
        /// Where it was to be cut.
        lsn: Lsn,
        /// First record of the log.
        first: Lsn,
        /// Last record of the log.
        end: Lsn,
    },
    /// Without the checkpoints above the cut, nothing could be recovered: a duplicate is needed.
    #[error(
        "no good checkpoint at or below {lsn} and the log begins at {first}: a duplicate is needed"
    )]
    CheckpointAbove {
        /// Where it was to be cut.
        lsn: Lsn,
        /// First record of the log.
        first: Lsn,
    },
    /// The volume is full, so that what is in memory could not be written and exported.
    #[error("the log is full: records above {written} are in memory only")]
    Full {
        /// Last record in a file.
        written: Lsn,
    },
    /// The export, or a look at the checkpoints, failed; the log is as it was.
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
    /// The records above the cut cannot be read; the log is as it was.
    #[error("the records above the cut cannot be read: {0}")]
    Unreadable(String),
    /// The log has failed, now or before.
    #[error("the log has failed")]
    Log(#[source] LogError),
}

/// A refused cut; with `Some`, the log itself has failed on the way.
type CutFailure = (CutError, Option<Failed>);

fn refused(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> CutFailure {
    let file = file.to_owned();
    move |source| (CutError::Disk { operation, file, source }, None)
}

/// After the first removal there is no way back in this process.
fn broken(failed: Failed) -> CutFailure {
    let Failed { operation, file, source } = failed;
    let source = Arc::new(source);
    let error = LogError::Disk { operation, file: file.clone(), source: Arc::clone(&source) };
    let source = io::Error::new(source.kind(), source);
    (CutError::Log(error), Some(Failed { operation, file, source }))
}

impl Writer {
    /// Cuts the log; everything in memory has been written and synced just before.
    pub(super) fn cut(&mut self, lsn: Lsn, export: Option<&str>) -> Result<CutReport, CutFailure> {
        let (end, written) = {
            let tail = self.shared.tail.lock();
            (tail.end, tail.written)
        };
        let first = self.shared.catalogue.read().first_lsn();
        if lsn > end || lsn.next() < first {
            return Err((CutError::OutOfRange { lsn, first, end }, None));
        }
        if written < end {
            return Err((CutError::Full { written }, None));
        }
        if lsn == end {
            return Ok(CutReport::default());
        }
        let above = self.checkpoints_above(lsn, first)?;
        let (hash, offset) = self.find(lsn)?;
        let mut report = CutReport { records: end.since(lsn), ..CutReport::default() };
        if let Some(name) = export {
            report.bytes = self.export(lsn, end, hash, name)?;
            report.exported = Some(name.to_owned());
        }
        self.remove_above(lsn, offset, &above).map_err(broken)?;
        report.checkpoints_removed = above;
        let mut tail = self.shared.tail.lock();
        let mut history = tail.history.clone();
        history.cut_above(lsn);
        tail.reset(lsn, hash, history);
        self.shared.durable.store(lsn.0, Ordering::Release);
        self.shared.written.store(lsn.0, Ordering::Release);
        self.shared.end.store(lsn.0, Ordering::Release);
        self.shared.unwritten_bytes.store(0, Ordering::Relaxed);
        Ok(report)
    }

    /// Checkpoints that must go, after a look that recovery can do without them.
    fn checkpoints_above(&self, lsn: Lsn, first: Lsn) -> Result<Vec<Lsn>, CutFailure> {
        let data = &self.shared.disks.data;
        let all = checkpoint::list(&**data).map_err(refused("list", "the data directory"))?;
        let (above, below): (Vec<Lsn>, Vec<Lsn>) = all.into_iter().partition(|c| *c > lsn);
        let usable = |c: &Lsn| first <= c.next() && CheckpointFile::open(data, *c).is_ok();
        if !above.is_empty() && first != Lsn(1) && !below.iter().any(usable) {
            return Err((CutError::CheckpointAbove { lsn, first }, None));
        }
        Ok(above)
    }

    /// Running hash after the record at `lsn`, and where the next frame begins in its segment.
    fn find(&self, lsn: Lsn) -> Result<(RunningHash, u64), CutFailure> {
        let entry = self.segment_of(lsn)?;
        let name = &entry.name;
        let file = self.shared.disks.log.open(name).map_err(refused("open", name))?;
        let mut walk = FrameReader::new(&*file, HEADER_BYTES, entry.used_bytes);
        let (mut at, mut hash) = (entry.header.first_lsn.previous(), entry.header.hash_before);
        while at < lsn {
            match walk.next().map_err(refused("read", name))? {
                Step::Frame(frame, offset) if entry.header.read_mark(&frame, offset).is_none() => {
                    hash = hash.extend(frame.encoded);
                    at = frame.lsn;
                }
                Step::Frame(_, _) => {}
                Step::End | Step::Bad(_) => {
                    let what = format!("{name} is damaged at byte {}", walk.offset());
                    return Err((CutError::Unreadable(what), None));
                }
            }
        }
        Ok((hash, walk.offset()))
    }

    /// The segment that will be the newest after a cut at `lsn`.
    fn segment_of(&self, lsn: Lsn) -> Result<SegmentEntry, CutFailure> {
        let entry = self.shared.catalogue.read().holding(lsn.next()).cloned();
        entry.ok_or_else(|| (CutError::Unreadable(format!("no segment holds {lsn}")), None))
    }

    /// Writes the records above `lsn` to a file and reads it back; returns their bytes.
    fn export(&self, lsn: Lsn, end: Lsn, hash: RunningHash, name: &str) -> Result<u64, CutFailure> {
        let disk = &*self.shared.disks.data;
        let header = SegmentHeader { first_lsn: lsn.next(), hash_before: hash };
        let end_hash = self.shared.tail.lock().hash;
        if crate::disk::open_if_present(disk, name).map_err(refused("open", name))?.is_some() {
            // An earlier attempt got this far; only the very same records may stand for these.
            return match Export::open(disk, name) {
                Ok(same) if same.is(header, end, end_hash) => Ok(same.bytes),
                Ok(_) | Err(_) => Err(refused("create", name)(io::ErrorKind::AlreadyExists.into())),
            };
        }
        let bytes = self.write_export(header, end)?;
        let written = Export::open(disk, EXPORT_PARTIAL_NAME)
            .map_err(|e| (CutError::Unreadable(e.to_string()), None))?;
        if !written.is(header, end, end_hash) {
            let what = format!("{EXPORT_PARTIAL_NAME} is not what was written");
            return Err((CutError::Unreadable(what), None));
        }
        disk.rename(EXPORT_PARTIAL_NAME, name).map_err(refused("rename", name))?;
        disk.sync_directory().map_err(refused("sync", "the data directory"))?;
        Ok(bytes)
    }

    fn write_export(&self, header: SegmentHeader, end: Lsn) -> Result<u64, CutFailure> {
        let disk = &*self.shared.disks.data;
        let name = EXPORT_PARTIAL_NAME;
        match disk.remove(name) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(refused("remove", name)(e)),
        }
        let file = disk.create(name).map_err(refused("create", name))?;
        write_all_at(&*file, &header.encode(), 0).map_err(refused("write", name))?;
        let (mut next, mut bytes) = (header.first_lsn, 0);
        let mut buf = Vec::new();
        while next <= end {
            buf.clear();
            next = self
                .shared
                .read_records(next, EXPORT_BYTES, &mut buf)
                .map_err(|e| (CutError::Unreadable(e.to_string()), None))?;
            write_all_at(&*file, &buf, HEADER_BYTES + bytes).map_err(refused("write", name))?;
            bytes += buf.len() as u64;
        }
        file.sync_data().map_err(refused("sync", name))?;
        Ok(bytes)
    }

    /// Removes everything above `lsn` from both directories.
    fn remove_above(&mut self, lsn: Lsn, offset: u64, above: &[Lsn]) -> Result<(), Failed> {
        let shared = Arc::clone(&self.shared);
        let (log, data) = (&*shared.disks.log, &*shared.disks.data);
        // Readers wait: they would meet files that go away under them.
        let mut catalogue = shared.catalogue.write();
        for checkpoint in above {
            let name = checkpoint::file_name(*checkpoint);
            step(data.remove(&name), "remove", &name)?;
        }
        if !above.is_empty() {
            step(data.sync_directory(), "sync", "the data directory")?;
        }
        shared.durable.store(lsn.0, Ordering::Release);
        self.store_probe()?;
        let newer: Vec<(Lsn, String)> = catalogue
            .iter()
            .rev()
            .take_while(|s| s.header.first_lsn > lsn.next())
            .map(|s| (s.header.first_lsn, s.name.clone()))
            .collect();
        for (first_lsn, name) in newer {
            step(log.remove(&name), "remove", &name)?;
            step(log.sync_directory(), "sync", "the log directory")?;
            catalogue.remove(first_lsn);
        }
        let Some(entry) = catalogue.holding(lsn.next()).cloned() else { return Ok(()) };
        let capacity = shared.options.segment_bytes.max(offset);
        let file = step(log.open(&entry.name), "open", &entry.name)?;
        let capacity = step(cut_file(&*file, offset, capacity), "cut", &entry.name)?;
        if let Some(entry) = catalogue.get_mut(entry.header.first_lsn) {
            entry.cut_above(lsn, offset);
            entry.file_bytes = capacity;
        }
        self.active = ActiveSegment { header: entry.header, file, offset, capacity };
        Ok(())
    }
}

/// Cuts a file off at `keep`, durably, and reserves it anew; says up to where, for on a full volume
/// there is only what it keeps.
fn cut_file(file: &dyn DiskFile, keep: u64, capacity: u64) -> io::Result<u64> {
    file.truncate(keep)?;
    let capacity = match file.allocate(capacity) {
        Ok(()) => capacity,
        Err(e) if is_full(&e) => keep,
        Err(e) => return Err(e),
    };
    file.sync_data()?;
    Ok(capacity)
}
