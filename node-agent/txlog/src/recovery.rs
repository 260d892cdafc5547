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
//! durable (A2.15). A log that was marked after a failed fsync is not recovered at all.
//!
//! **Caveats.** Damage that hits only the newest records, before the next batch or probe (half a second)
//! proved them, looks like a torn tail: no reader of one disk can tell them apart. The standby's log does.
//! Segments below the checkpoint are not read here; a reader that meets damage there names it.

use crate::{
    checkpoint::{self, CheckpointFile, OpenError},
    disk::{Disk, DiskFile, read_full_at, write_all_at},
    log::{
        ActiveSegment, AppendError, Catalogue, Continuation, Log, LogEnd, SegmentEntry, Start,
        first_segment, is_full,
    },
    options::{Disks, LogOptions},
    record::RecordError,
    segment::{
        FrameReader, HEADER_BYTES, HeaderError, SegmentHeader, Step, is_segment_name, read_header,
    },
    slot_file::{SlotError, SlotFile},
};
use std::{
    io,
    time::{Duration, Instant},
};
use understudy_types::{EpochHistory, Lsn, Position, RunningHash};

/// Left by a writer whose write or fsync failed.
pub(crate) const POISONED_NAME: &str = "poisoned";
/// Reserved file of the next segment.
pub(crate) const SPARE_NAME: &str = "spare.tmp";
/// Evidence of durability, stored when the writer is idle.
pub(crate) const PROBE_NAME: &str = "probe";
/// New copy of the newest segment.
const REWRITTEN_NAME: &str = "rewritten.tmp";
/// Content of the probe: one LSN.
const PROBE_BYTES: usize = 8;

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
    #[error("the log begins at {first_lsn}, but recovery needs it from {needed} on")]
    Gap {
        /// First record of the log.
        first_lsn: Lsn,
        /// Record after the newest good checkpoint.
        needed: Lsn,
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
    let found = find_segments(&*disks.log)?;
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

/// Removes what a crash left half made. None of these files ever counted.
fn remove_leftovers(disks: &Disks) -> Result<(), RecoveryError> {
    let own =
        [SPARE_NAME, REWRITTEN_NAME, checkpoint::PARTIAL_NAME, crate::log::EXPORT_PARTIAL_NAME];
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

/// A segment of the directory.
struct Found {
    header: SegmentHeader,
    name: String,
    bytes: u64,
}

/// All segments, oldest first, with their heads checked.
fn find_segments(disk: &dyn Disk) -> Result<Vec<Found>, RecoveryError> {
    let mut found = Vec::new();
    for entry in disk.list().map_err(failed("list", "the log directory"))? {
        if !is_segment_name(&entry.name) {
            continue;
        }
        let file = disk.open(&entry.name).map_err(failed("open", &entry.name))?;
        let header = read_header(&*file).map_err(failed("read", &entry.name))?;
        let bad = |source| RecoveryError::Header { file: entry.name.clone(), source };
        let header = header.map_err(bad)?;
        if header.file_name() != entry.name {
            let (file, first_lsn) = (entry.name, header.first_lsn);
            return Err(RecoveryError::Chain { file, first_lsn, end: Lsn::ZERO });
        }
        found.push(Found { header, name: entry.name, bytes: entry.bytes });
    }
    found.sort_by_key(|f| f.header.first_lsn);
    Ok(found)
}

/// The walk through the segments.
struct Scan<'a> {
    disks: &'a Disks,
    options: &'a LogOptions,
    checkpoint: Option<&'a CheckpointFile>,
    /// Records up to here were durable.
    proven: Lsn,
    /// End of what has been read.
    at: Continuation,
}

impl<'a> Scan<'a> {
    fn new(
        disks: &'a Disks,
        options: &'a LogOptions,
        checkpoint: Option<&'a CheckpointFile>,
        proven: Lsn,
    ) -> Scan<'a> {
        let (end, hash, history) = match checkpoint {
            Some(c) => (c.meta().lsn, c.meta().hash, c.meta().history.clone()),
            None => (Lsn::ZERO, RunningHash::default(), EpochHistory::default()),
        };
        let epoch = history.last_epoch().number;
        Scan { disks, options, checkpoint, proven, at: Continuation { end, hash, epoch, history } }
    }

    /// Begins a new log at the checkpoint, or at the first record.
    fn begin_anew(&self) -> Result<(ActiveSegment, Catalogue), RecoveryError> {
        if self.at.end < self.proven {
            return Err(RecoveryError::Missing { end: self.at.end, proven: self.proven });
        }
        let header = SegmentHeader { first_lsn: self.at.end.next(), hash_before: self.at.hash };
        first_segment(&*self.disks.log, header, self.options.segment_bytes)
            .map_err(failed("begin", &header.file_name()))
    }

    /// Reads from the checkpoint to the end; `None` when no segment is left.
    fn run(
        &mut self,
        found: Vec<Found>,
        report: &mut RecoveryReport,
    ) -> Result<Option<(ActiveSegment, Catalogue)>, RecoveryError> {
        let Some(oldest) = found.first() else { return Ok(None) };
        let needed = self.at.end.next();
        let first_lsn = oldest.header.first_lsn;
        if first_lsn > needed {
            return Err(RecoveryError::Gap { first_lsn, needed });
        }
        let from = found.partition_point(|f| f.header.first_lsn <= needed) - 1;
        let newest = found.len() - 1;
        let mut catalogue = Catalogue::default();
        for pair in found[..=from].windows(2) {
            let mut entry = SegmentEntry::new(pair[0].header, pair[0].bytes);
            entry.last_lsn = pair[1].header.first_lsn.previous();
            entry.used_bytes = pair[0].bytes;
            catalogue.insert(entry);
        }
        self.step_back_to(&found[from].header)?;
        for pair in found[from..].windows(2) {
            let (read, stopped) = self.read(&pair[0], report)?;
            self.continue_with(&pair[0], &pair[1], read.used_bytes, stopped)?;
            catalogue.insert(read);
        }
        let (read, stopped) = self.read(&found[newest], report)?;
        if self.at.end < needed.previous() {
            return self.restart_behind_checkpoint(&found, report);
        }
        let running = self.take_tail(&found[newest], read, stopped, report)?;
        catalogue.insert(running.1);
        Ok(Some((running.0, catalogue)))
    }

    /// Puts the walk to the head of the segment that holds the record after the checkpoint.
    fn step_back_to(&mut self, header: &SegmentHeader) -> Result<(), RecoveryError> {
        let before = header.first_lsn.previous();
        if before == self.at.end && header.hash_before != self.at.hash {
            let reason = "the running hash differs";
            return Err(RecoveryError::Mismatch { lsn: before, reason });
        }
        self.at.history.cut_above(before);
        let epoch = self.at.history.epoch_at(before).number;
        self.at = Continuation {
            end: before,
            hash: header.hash_before,
            epoch,
            history: std::mem::take(&mut self.at.history),
        };
        Ok(())
    }

    /// Checks that a segment that is not the newest was read whole, and that the next one begins where
    /// the walk has arrived. It was durable whole before the next one began.
    fn continue_with(
        &self,
        segment: &Found,
        next: &Found,
        offset: u64,
        stopped: Option<RecordError>,
    ) -> Result<(), RecoveryError> {
        let (lsn, first_lsn) = (self.at.end.next(), next.header.first_lsn);
        let ends_early = segment.bytes > offset || stopped.is_some();
        if first_lsn > lsn && ends_early {
            let file = segment.name.clone();
            return Err(RecoveryError::Damaged { file, offset, lsn, source: stopped });
        }
        if first_lsn != lsn || next.header.hash_before != self.at.hash {
            let file = next.name.clone();
            return Err(RecoveryError::Chain { file, first_lsn, end: self.at.end });
        }
        Ok(())
    }

    /// Reads one segment; stops, without judging it, at the first place that is no record.
    fn read(
        &mut self,
        segment: &Found,
        report: &mut RecoveryReport,
    ) -> Result<(SegmentEntry, Option<RecordError>), RecoveryError> {
        let name = &segment.name;
        let file = self.disks.log.open(name).map_err(failed("open", name))?;
        let mut entry = SegmentEntry::new(segment.header, segment.bytes);
        let mut walk = FrameReader::new(&*file, HEADER_BYTES, segment.bytes);
        report.segments_read += 1;
        let stopped = loop {
            let (frame, offset) = match walk.next().map_err(failed("read", name))? {
                Step::Frame(frame, offset) => (frame, offset),
                Step::End => break None,
                Step::Bad(error) => break Some(error),
            };
            if let Some(durable) = segment.header.read_mark(&frame, offset) {
                self.proven = self.proven.max(durable);
                continue;
            }
            let record = match frame.record() {
                Ok(record) => record,
                Err(error) => {
                    let (file, lsn) = (name.clone(), self.at.end.next());
                    return Err(RecoveryError::Damaged { file, offset, lsn, source: Some(error) });
                }
            };
            self.at.follow(&record).map_err(|source| RecoveryError::Disorder {
                file: name.clone(),
                offset,
                source,
            })?;
            report.records += 1;
            report.bytes += record.encoded.len() as u64;
            entry.last_lsn = self.at.end;
            entry.learn(self.at.end, offset);
            self.meet_checkpoint()?;
        };
        entry.used_bytes = walk.offset();
        Ok((entry, stopped))
    }

    /// At the checkpoint's LSN, the log must be the one that it was taken from.
    fn meet_checkpoint(&self) -> Result<(), RecoveryError> {
        let Some(meta) = self.checkpoint.map(CheckpointFile::meta) else { return Ok(()) };
        if meta.lsn != self.at.end {
            return Ok(());
        }
        let reason = if meta.hash != self.at.hash {
            "the running hash differs"
        } else if meta.history != self.at.history {
            "the epoch history differs"
        } else {
            return Ok(());
        };
        Err(RecoveryError::Mismatch { lsn: meta.lsn, reason })
    }

    /// The log ends below the checkpoint, which holds everything that it did: a member with durability
    /// in memory only may stop like this. The log begins anew behind the checkpoint.
    fn restart_behind_checkpoint(
        &mut self,
        found: &[Found],
        report: &mut RecoveryReport,
    ) -> Result<Option<(ActiveSegment, Catalogue)>, RecoveryError> {
        let fresh = Scan::new(self.disks, self.options, self.checkpoint, self.proven);
        self.at = fresh.at;
        if self.at.end < self.proven {
            return Err(RecoveryError::Missing { end: self.at.end, proven: self.proven });
        }
        for segment in found {
            let name = &segment.name;
            self.disks.log.remove(name).map_err(failed("remove", name))?;
            self.disks.log.sync_directory().map_err(failed("sync", "the log directory"))?;
        }
        report.log_behind_checkpoint = true;
        Ok(None)
    }

    /// Judges the place where the newest segment stopped, and writes the good part to a new file.
    fn take_tail(
        &mut self,
        segment: &Found,
        mut entry: SegmentEntry,
        stopped: Option<RecordError>,
        report: &mut RecoveryReport,
    ) -> Result<(ActiveSegment, SegmentEntry), RecoveryError> {
        let (name, offset) = (&segment.name, entry.used_bytes);
        let file = self.disks.log.open(name).map_err(failed("open", name))?;
        let marked = segment.header.proven_after(&*file, offset).map_err(failed("read", name))?;
        self.proven = self.proven.max(marked.unwrap_or(Lsn::ZERO));
        let lsn = self.at.end.next();
        if lsn <= self.proven {
            return Err(RecoveryError::Damaged {
                file: name.clone(),
                offset,
                lsn,
                source: stopped,
            });
        }
        report.tail_cut_bytes =
            last_nonzero(&*file, offset).map_err(failed("read", name))?.saturating_sub(offset);
        if report.tail_cut_bytes > 0 {
            tracing::warn!(
                file = name,
                offset,
                bytes = report.tail_cut_bytes,
                "cutting a torn tail"
            );
            report.tail_cut_at = Some((name.clone(), offset));
        }
        let capacity = self.options.segment_bytes.max(offset);
        let (file, capacity) = rewrite_tail(&*self.disks.log, name, offset, capacity)
            .map_err(failed("write anew", name))?;
        entry.file_bytes = capacity;
        Ok((ActiveSegment { header: segment.header, file, offset, capacity }, entry))
    }
}

/// End of the last byte that is not zero at or after `from`; `from` when all are zero.
fn last_nonzero(file: &dyn DiskFile, from: u64) -> io::Result<u64> {
    let mut buf = vec![0; 256 * 1024];
    let (mut at, mut last) = (from, from);
    loop {
        let n = read_full_at(file, &mut buf, at)?;
        if let Some(i) = buf[..n].iter().rposition(|b| *b != 0) {
            last = at + i as u64 + 1;
        }
        if n < buf.len() {
            return Ok(last);
        }
        at += n as u64;
    }
}

/// Replaces a segment by a new, durable file with its first `keep` bytes and zeros up to `capacity`;
/// also says what the capacity has become. On a full volume it gets by with less.
fn rewrite_tail(
    disk: &dyn Disk,
    name: &str,
    keep: u64,
    capacity: u64,
) -> io::Result<(Box<dyn DiskFile>, u64)> {
    let old = disk.open(name)?;
    let new = disk.create(REWRITTEN_NAME)?;
    let reserve = |bytes| match new.allocate(bytes) {
        Ok(()) => Ok(true),
        Err(e) if is_full(&e) => Ok(false),
        Err(e) => Err(e),
    };
    let capacity = if reserve(capacity)? {
        capacity
    } else if reserve(keep)? {
        keep
    } else {
        disk.remove(REWRITTEN_NAME)?;
        // The same bytes once more over themselves: torn or not, it changes nothing.
        copy(&*old, &*old, keep)?;
        old.truncate(keep)?;
        old.sync_data()?;
        return Ok((old, keep));
    };
    copy(&*old, &*new, keep)?;
    new.sync_data()?;
    disk.rename(REWRITTEN_NAME, name)?;
    disk.sync_directory()?;
    Ok((disk.open(name)?, capacity))
}

/// Copies the first `keep` bytes.
fn copy(from: &dyn DiskFile, to: &dyn DiskFile, keep: u64) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < keep {
        let want = buf.len().min(usize::try_from(keep - at).unwrap_or(usize::MAX));
        let n = read_full_at(from, &mut buf[..want], at)?;
        if n < want {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(to, &buf[..n], at)?;
        at += n as u64;
    }
    Ok(())
}
