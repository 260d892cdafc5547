//! The walk through the segments, and the judgement of where it stops.

use super::{
    RecoveryError, RecoveryReport, failed,
    rewrite::{last_nonzero, rewrite_tail},
};
use crate::{
    checkpoint::CheckpointFile,
    disk::Disk,
    log::{ActiveSegment, Catalogue, Continuation, SegmentEntry, first_segment},
    options::{Disks, LogOptions},
    record::RecordError,
    segment::{FrameReader, HEADER_BYTES, SegmentHeader, Step, is_segment_name, read_header},
};
use understudy_types::{EpochHistory, Lsn, RunningHash};

/// A segment of the directory.
pub(super) struct Found {
    header: SegmentHeader,
    name: String,
    bytes: u64,
}

/// All segments, oldest first, with their heads checked.
pub(super) fn find_segments(disk: &dyn Disk) -> Result<Vec<Found>, RecoveryError> {
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
pub(super) struct Scan<'a> {
    disks: &'a Disks,
    options: &'a LogOptions,
    checkpoint: Option<&'a CheckpointFile>,
    /// Records up to here were durable.
    proven: Lsn,
    /// End of what has been read.
    pub(super) at: Continuation,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
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
    pub(super) fn begin_anew(&self) -> Result<(ActiveSegment, Catalogue), RecoveryError> {
        if self.at.end < self.proven {
            return Err(RecoveryError::Missing { end: self.at.end, proven: self.proven });
        }
        let header = SegmentHeader { first_lsn: self.at.end.next(), hash_before: self.at.hash };
        first_segment(&*self.disks.log, header, self.options.segment_bytes)
            .map_err(failed("begin", &header.file_name()))
    }

    /// Reads from the checkpoint to the end; `None` when no segment is left.
    pub(super) fn run(
        &mut self,
        found: Vec<Found>,
        report: &mut RecoveryReport,
    ) -> Result<Option<(ActiveSegment, Catalogue)>, RecoveryError> {
        let Some(oldest) = found.first() else { return Ok(None) };
        let needed = self.at.end.next();
        let first_lsn = oldest.header.first_lsn;
        if first_lsn > needed {
            let damaged = report.damaged_checkpoints.clone();
            return Err(RecoveryError::Gap { first_lsn, needed, damaged });
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
