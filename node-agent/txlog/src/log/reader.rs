//! Reading the log by LSN: from memory when the records are there, else from the segments.

use super::{Log, SegmentEntry, Shared, tail::Taken};
use crate::{
    record::RecordError,
    segment::{FrameReader, Step},
};
use std::{io, sync::Arc};
use understudy_types::{Lsn, RunningHash};

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The records have been reclaimed.
    #[error("record {from} is gone; the log begins at {first_available}")]
    Gone {
        /// What was asked for.
        from: Lsn,
        /// First record that can still be read.
        first_available: Lsn,
    },
    /// The reader is ahead of the log.
    #[error("record {from} is beyond the end of the log at {end}")]
    Ahead {
        /// What was asked for.
        from: Lsn,
        /// Last record of the log.
        end: Lsn,
    },
    /// A segment cannot be read.
    #[error("failed to read {file}")]
    Disk {
        /// Segment file.
        file: String,
        /// Answer of the system.
        #[source]
        source: io::Error,
    },
    /// A segment holds something else than was written.
    #[error("{file} is damaged at byte {offset}")]
    Damaged {
        /// Segment file.
        file: String,
        /// Place in the file, in bytes.
        offset: u64,
        /// What is wrong there; `None` when the records end too early.
        #[source]
        source: Option<RecordError>,
    },
}

impl Log {
    /// Whole encoded records from `from` on, at most `max_bytes` of them but at least one when there
    /// is one; empty at the end of the log. Cheap when the records are in memory.
    ///
    /// # Errors
    /// When the records are gone, not written yet, or damaged on disk.
    pub fn read_from(&self, from: Lsn, max_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let mut out = Vec::new();
        self.read_into(from, max_bytes, &mut out)?;
        Ok(out)
    }

    /// [`Log::read_from`] that appends to a buffer of the caller; returns the LSN after the last
    /// record that was read.
    ///
    /// # Errors
    /// As [`Log::read_from`].
    pub fn read_into(
        &self,
        from: Lsn,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<Lsn, ReadError> {
        self.shared.read_records(from, max_bytes, out)
    }

    /// Running hash after the record at `lsn`: at once for records in memory, else by reading its
    /// segment. `None` when the log does not hold the record (or the one after it), or it is damaged.
    #[must_use]
    pub fn hash_at(&self, lsn: Lsn) -> Option<RunningHash> {
        if let Some(hash) = {
            let tail = self.shared.tail.lock();
            if lsn > tail.end {
                return None;
            }
            tail.hash_at(lsn)
        } {
            return Some(hash);
        }
        let entry = self.shared.catalogue.read().holding(lsn.next()).cloned()?;
        let mut hash = entry.header.hash_before;
        if lsn.next() == entry.header.first_lsn {
            return Some(hash);
        }
        let file = self.shared.disks.log.open(&entry.name).ok()?;
        let mut walk = FrameReader::new(&*file, crate::segment::HEADER_BYTES, entry.used_bytes);
        loop {
            match walk.next().ok()? {
                Step::Frame(frame, offset) if entry.header.read_mark(&frame, offset).is_none() => {
                    hash = hash.extend(frame.encoded);
                    if frame.lsn == lsn {
                        return Some(hash);
                    }
                }
                Step::Frame(_, _) => {}
                Step::End | Step::Bad(_) => return None,
            }
        }
    }
}

impl Taken {
    /// Puts the records from `from` together, at most `max_bytes` of them but at least one.
    fn gather(&self, from: Lsn, max_bytes: usize, out: &mut Vec<u8>) -> Lsn {
        let begin = out.len();
        let mut next = from;
        for chunk in self.sealed.iter().map(Arc::as_ref).chain(std::iter::once(&self.copied)) {
            if next < chunk.first_lsn || next >= chunk.next_lsn() {
                continue;
            }
            let left = max_bytes.saturating_sub(out.len() - begin);
            let mut until = chunk.fitting(next, left);
            if until == next && out.len() == begin {
                until = next.next();
            }
            out.extend_from_slice(&chunk.bytes[chunk.start_of(next)..chunk.start_of(until)]);
            next = until;
            if until < chunk.next_lsn() {
                break;
            }
        }
        next
    }
}

impl Shared {
    /// See [`Log::read_into`].
    pub(super) fn read_records(
        &self,
        from: Lsn,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<Lsn, ReadError> {
        let mut taken = Taken::default();
        let tail = self.tail.lock();
        if from > tail.end.next() {
            return Err(ReadError::Ahead { from, end: tail.end });
        }
        if tail.is_before(from) {
            drop(tail);
            return self.read_segments(from, max_bytes, out);
        }
        tail.take(from, max_bytes, &mut taken);
        drop(tail);
        Ok(taken.gather(from, max_bytes, out))
    }

    /// Reads written records; the segment is found anew when it goes away meanwhile.
    fn read_segments(
        &self,
        from: Lsn,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<Lsn, ReadError> {
        loop {
            let (entry, first_available) = {
                let catalogue = self.catalogue.read();
                (catalogue.holding(from).cloned(), catalogue.first_lsn())
            };
            let Some(entry) = entry else {
                return Err(ReadError::Gone { from, first_available });
            };
            match self.disks.log.open(&entry.name) {
                Ok(file) => {
                    let mut reading =
                        SegmentReading { entry: &entry, from, max_bytes, learned: Vec::new() };
                    let next = reading.read(&*file, out)?;
                    self.learn(&entry, &reading.learned);
                    return Ok(next);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let still_there = self
                        .catalogue
                        .read()
                        .holding(from)
                        .is_some_and(|now| now.name == entry.name);
                    if still_there {
                        return Err(ReadError::Disk { file: entry.name, source: e });
                    }
                }
                Err(source) => return Err(ReadError::Disk { file: entry.name, source }),
            }
        }
    }

    /// Keeps what a reading found out about the places of frames.
    fn learn(&self, entry: &SegmentEntry, points: &[(Lsn, u64)]) {
        if points.is_empty() {
            return;
        }
        let mut catalogue = self.catalogue.write();
        if let Some(now) = catalogue.get_mut(entry.header.first_lsn) {
            for (next_lsn, offset) in points {
                now.learn(*next_lsn, *offset);
            }
        }
    }
}

/// One reading of one segment.
struct SegmentReading<'a> {
    entry: &'a SegmentEntry,
    from: Lsn,
    max_bytes: usize,
    /// Places of frames that the walk passed, far apart.
    learned: Vec<(Lsn, u64)>,
}

impl SegmentReading<'_> {
    fn damaged(&self, offset: u64, source: Option<RecordError>) -> ReadError {
        ReadError::Damaged { file: self.entry.name.clone(), offset, source }
    }

    fn read(
        &mut self,
        file: &dyn crate::disk::DiskFile,
        out: &mut Vec<u8>,
    ) -> Result<Lsn, ReadError> {
        let entry = self.entry;
        let begin = out.len();
        let mut walk = FrameReader::new(file, entry.nearest(self.from), entry.used_bytes);
        let mut next = self.from;
        let mut noted = walk.offset();
        while next <= entry.last_lsn {
            let step = walk
                .next()
                .map_err(|source| ReadError::Disk { file: entry.name.clone(), source })?;
            let (frame, offset) = match step {
                Step::Frame(frame, offset) => (frame, offset),
                Step::End => return Err(self.damaged(walk.offset(), None)),
                Step::Bad(error) => return Err(self.damaged(walk.offset(), Some(error))),
            };
            if entry.header.read_mark(&frame, offset).is_some() {
                continue;
            }
            let record = frame.record().map_err(|e| self.damaged(offset, Some(e)))?;
            if offset >= noted + 64 * 1024 {
                self.learned.push((record.lsn, offset));
                noted = offset;
            }
            if record.lsn < next {
                continue;
            }
            if record.lsn > next {
                return Err(self.damaged(offset, None));
            }
            let read = out.len() - begin;
            if read > 0 && read + record.encoded.len() > self.max_bytes {
                break;
            }
            out.extend_from_slice(record.encoded);
            next = record.lsn.next();
        }
        Ok(next)
    }
}
