//! What a cut took off the log: a segment's header, then records back to back, without marks.
//!
//! An export may be as long as the log was, so it is read record by record.

use crate::{
    disk::{Disk, DiskFile},
    record::{RecordError, RecordView},
    segment::{FrameReader, HEADER_BYTES, HeaderError, SegmentHeader, Step, read_header},
};
use std::io;
use understudy_types::{Lsn, RunningHash};

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file cannot be read.
    #[error("failed to read {file}")]
    Disk {
        /// File name.
        file: String,
        /// Answer of the system.
        #[source]
        source: io::Error,
    },
    /// The file is no export.
    #[error("{file} has no good header")]
    Header {
        /// File name.
        file: String,
        /// What is wrong.
        #[source]
        source: HeaderError,
    },
    /// A record of it is damaged, or does not follow the one before.
    #[error("{file} is damaged at byte {offset}")]
    Damaged {
        /// File name.
        file: String,
        /// Place in the file, in bytes.
        offset: u64,
        /// What is wrong there; `None` when a whole record is at the wrong place.
        #[source]
        source: Option<RecordError>,
    },
}

/// Records that a cut took off the log: the trapped transactions of an old active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// First record.
    pub first_lsn: Lsn,
    /// Last record.
    pub end: Lsn,
    /// Running hash of the log before the first record: the fork.
    pub hash_before: RunningHash,
    /// Running hash of the log after the last record.
    pub hash: RunningHash,
    /// Encoded bytes of all records.
    pub bytes: u64,
}

impl Export {
    /// Reads an export of a directory through and checks it.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn open(disk: &dyn Disk, name: &str) -> Result<Export, ExportError> {
        Export::read(disk, name, &mut |_| {})
    }

    /// [`Export::open`] that shows each record on the way, oldest first. When it fails, what was shown
    /// until then is good.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(
        disk: &dyn Disk,
        name: &str,
        visit: &mut dyn FnMut(RecordView<'_>),
    ) -> Result<Export, ExportError> {
        let failed = |source| ExportError::Disk { file: name.to_owned(), source };
        let damaged = |offset, source| {
            let file = name.to_owned();
            ExportError::Damaged { file, offset, source }
        };
        let file: Box<dyn DiskFile> = disk.open(name).map_err(failed)?;
        let SegmentHeader { first_lsn, hash_before } = read_header(&*file)
            .map_err(failed)?
            .map_err(|source| ExportError::Header { file: name.to_owned(), source })?;
        let length = file.len().map_err(failed)?;
        let mut walk = FrameReader::new(&*file, HEADER_BYTES, length);
        let (mut end, mut hash) = (first_lsn.previous(), hash_before);
        loop {
            let (frame, offset) = match walk.next().map_err(failed)? {
                Step::Frame(frame, offset) => (frame, offset),
                Step::Bad(error) => return Err(damaged(walk.offset(), Some(error))),
                Step::End => break,
            };
            let record = frame.record().map_err(|error| damaged(offset, Some(error)))?;
            if record.lsn != end.next() {
                return Err(damaged(offset, None));
            }
            end = record.lsn;
            hash = hash.extend(record.encoded);
            visit(record);
        }
        // An export is not preallocated: zeros are damage.
        if walk.offset() < length {
            return Err(damaged(walk.offset(), None));
        }
        Ok(Export { first_lsn, end, hash_before, hash, bytes: length - HEADER_BYTES })
    }

    /// Whether these are exactly the records from a fork to an end.
    pub(super) fn is(&self, fork: SegmentHeader, end: Lsn, end_hash: RunningHash) -> bool {
        let header = SegmentHeader { first_lsn: self.first_lsn, hash_before: self.hash_before };
        header == fork && self.end == end && self.hash == end_hash
    }
}
