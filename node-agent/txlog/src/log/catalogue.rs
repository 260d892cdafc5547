//! Which segment holds which records, with a sparse index into each.

use crate::segment::{HEADER_BYTES, SegmentHeader};
use std::collections::BTreeMap;
use understudy_types::Lsn;

/// Bytes between two points of the index: one read of this size finds any record.
const INDEX_SPACING_BYTES: u64 = 256 * 1024;

/// One segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentEntry {
    pub(crate) header: SegmentHeader,
    /// File name.
    pub(crate) name: String,
    /// Last record in the file; the one before the first when it has none.
    pub(crate) last_lsn: Lsn,
    /// Bytes that hold frames; for a segment that was not scanned, the length of the file.
    pub(crate) used_bytes: u64,
    /// Length of the file, preallocated space included.
    pub(crate) file_bytes: u64,
    /// Offsets of frames by the next record at or after them, rising.
    index: Vec<(Lsn, u64)>,
}

impl SegmentEntry {
    pub(crate) fn new(header: SegmentHeader, file_bytes: u64) -> SegmentEntry {
        SegmentEntry {
            header,
            name: header.file_name(),
            last_lsn: header.first_lsn.previous(),
            used_bytes: HEADER_BYTES,
            file_bytes,
            index: Vec::new(),
        }
    }

    /// The nearest known frame that is not after the record at `lsn`.
    pub(crate) fn nearest(&self, lsn: Lsn) -> u64 {
        let at = self.index.partition_point(|(known, _)| *known <= lsn);
        at.checked_sub(1).map_or(HEADER_BYTES, |i| self.index[i].1)
    }

    /// Remembers where a frame begins, when that is far enough from what is known.
    pub(crate) fn learn(&mut self, next_lsn: Lsn, offset: u64) {
        let last = self.index.last().map_or(HEADER_BYTES, |(_, offset)| *offset);
        if offset >= last + INDEX_SPACING_BYTES && next_lsn <= self.last_lsn.next() {
            self.index.push((next_lsn, offset));
        }
    }

    /// Forgets what lies above `lsn`.
    pub(crate) fn cut_above(&mut self, lsn: Lsn, used_bytes: u64) {
        self.index.retain(|(next, offset)| *next <= lsn && *offset < used_bytes);
        self.last_lsn = lsn;
        self.used_bytes = used_bytes;
    }
}

/// All segments by first LSN, without gaps. Never empty once the log runs.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    segments: BTreeMap<u64, SegmentEntry>,
}

impl Catalogue {
    pub(crate) fn insert(&mut self, entry: SegmentEntry) {
        self.segments.insert(entry.header.first_lsn.0, entry);
    }

    pub(crate) fn remove(&mut self, first_lsn: Lsn) {
        self.segments.remove(&first_lsn.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.segments.values().map(|s| s.file_bytes).sum()
    }

    /// First record of the oldest segment.
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.segments.values().next().map_or(Lsn::ZERO, |s| s.header.first_lsn)
    }

    /// The segment whose range of LSNs holds `lsn`, or the newest when `lsn` is above all.
    pub(crate) fn holding(&self, lsn: Lsn) -> Option<&SegmentEntry> {
        self.segments.range(..=lsn.0).next_back().map(|(_, segment)| segment)
    }

    /// The segment that begins with `first_lsn`.
    pub(crate) fn get_mut(&mut self, first_lsn: Lsn) -> Option<&mut SegmentEntry> {
        self.segments.get_mut(&first_lsn.0)
    }

    /// All segments, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &SegmentEntry> {
        self.segments.values()
    }
}
