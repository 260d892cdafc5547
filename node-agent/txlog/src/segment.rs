//! One segment file: a header, then frames back to back, then preallocated zeros.
//!
//! ```text
//! offset  bytes  header field
//!      0      8  magic "UNDERLOG"
//!      8      4  format version, 1
//!     12      4  CRC-32C of the header with this field zero
//!     16      8  LSN of the first record
//!     24     16  running hash before that record
//!     40     24  zero
//! ```
//! A frame is a record, or a *durable mark*: a frame of kind 0x80 that the writer puts before each
//! batch. It says up to which LSN the log was durable when the batch was written, and is bound to its
//! place. Marks never leave the file: they are not in the running hash and not on the wire.
//!
//! Why marks: after a power cut, sectors of one unsynced batch may arrive in any order, so a bad record
//! before a good one is not yet damage. A record that a later mark calls durable and that cannot be
//! read is. This tells a torn tail (cut it) from damage in the middle (refuse to start).
//!
//! **Invariants.** 1. A segment file has its final name only after its header is durable and every
//! earlier segment is durable whole. 2. Records do not cross files.

use crate::{
    disk::{DiskFile, read_full_at},
    record::{self, Frame, RecordError},
};
use std::io;
use understudy_types::{Epoch, Lsn, RunningHash};

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 64;

/// Bytes of one durable mark.
pub(crate) const MARK_BYTES: usize = 26;

/// Format that this version writes and the only one it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"UNDERLOG";
const MARK_CODE: u8 = 0x80;

/// Bytes that a scan reads at once.
const READ_BYTES: usize = 256 * 1024;

/// What the head of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// LSN of the first record that is or will be in the file.
    pub(crate) first_lsn: Lsn,
    /// Running hash of the log before that record.
    pub(crate) hash_before: RunningHash,
}

/// Why the head of a file is not that of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is shorter than a header.
    #[error("the file ends inside its header")]
    Short,
    /// Another kind of file.
    #[error("the file does not begin with the magic of a log segment")]
    Magic,
    /// The header has changed since it was written.
    #[error("the checksum of the header is wrong")]
    Checksum,
    /// Written by another version of the format.
    #[error("format version {0} is not supported; this release reads version {FORMAT_VERSION}")]
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[24..40].copy_from_slice(&self.hash_before.0.to_le_bytes());
        let checksum = crc32c::crc32c(&out);
        out[12..16].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(head) = bytes.first_chunk::<{ HEADER_BYTES as usize }>() else {
            return Err(HeaderError::Short);
        };
        if head[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let mut unsigned = *head;
        unsigned[12..16].fill(0);
        if head[12..16] != crc32c::crc32c(&unsigned).to_le_bytes() {
            return Err(HeaderError::Checksum);
        }
        let version = u32::from_le_bytes(head[8..12].try_into().expect("four bytes make a u32"));
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let first = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes make a u64"));
        let hash = u128::from_le_bytes(head[24..40].try_into().expect("16 bytes make a u128"));
        Ok(SegmentHeader { first_lsn: Lsn(first), hash_before: RunningHash(hash) })
    }

    /// File name of the segment; sorting names sorts segments.
    pub(crate) fn file_name(self) -> String {
        format!("log-{:016x}.seg", self.first_lsn.0)
    }

    /// Binds a mark to its place, so that no bytes that a user stores can pass for one.
    fn mark_place(self, offset: u64) -> u64 {
        self.hash_before.0 as u64 ^ self.first_lsn.0.rotate_left(32) ^ offset
    }

    /// Appends the durable mark that will lie at `offset` of the file.
    pub(crate) fn encode_mark(self, out: &mut Vec<u8>, durable_lsn: Lsn, offset: u64) {
        let place = self.mark_place(offset).to_le_bytes();
        record::encode_frame(out, durable_lsn, Epoch::ZERO, MARK_CODE, &place);
    }

    /// The LSN that a frame at `offset` calls durable; `None` when it is not a mark of this place.
    pub(crate) fn read_mark(self, frame: &Frame<'_>, offset: u64) -> Option<Lsn> {
        let is_mark = frame.code == MARK_CODE && frame.epoch == Epoch::ZERO;
        (is_mark && frame.payload == self.mark_place(offset).to_le_bytes()).then_some(frame.lsn)
    }

    /// The highest LSN that any mark at or after `from` calls durable.
    pub(crate) fn proven_after(self, file: &dyn DiskFile, from: u64) -> io::Result<Option<Lsn>> {
        let length = (MARK_BYTES - record::PREFIX_BYTES) as u32;
        let start = length.to_le_bytes();
        let mut proven = None;
        let mut offset = from;
        let mut buf = vec![0; READ_BYTES];
        loop {
            let n = read_full_at(file, &mut buf, offset)?;
            for at in 0..n.saturating_sub(MARK_BYTES - 1) {
                let window = &buf[at..at + MARK_BYTES];
                if window[8] == MARK_CODE
                    && window[..4] == start
                    && let Ok((frame, _)) = record::decode_frame(window)
                {
                    proven = proven.max(self.read_mark(&frame, offset + at as u64));
                }
            }
            if n < buf.len() {
                return Ok(proven);
            }
            offset += (n - (MARK_BYTES - 1)) as u64;
        }
    }
}

/// Whether a name is that of a segment.
pub(crate) fn is_segment_name(name: &str) -> bool {
    name.strip_prefix("log-")
        .and_then(|rest| rest.strip_suffix(".seg"))
        .is_some_and(|digits| digits.len() == 16 && u64::from_str_radix(digits, 16).is_ok())
}

/// Reads the header of an open segment.
pub(crate) fn read_header(file: &dyn DiskFile) -> io::Result<Result<SegmentHeader, HeaderError>> {
    let mut head = [0; HEADER_BYTES as usize];
    let n = read_full_at(file, &mut head, 0)?;
    Ok(SegmentHeader::decode(&head[..n]))
}

/// What lies at the place that a scan has reached.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A whole frame that begins at this offset of the file.
    Frame(Frame<'a>, u64),
    /// Nothing more: the limit, or preallocated zeros.
    End,
    /// Bytes that are no frame.
    Bad(RecordError),
}

/// Walks the frames of a file with one buffer.
pub(crate) struct FrameReader<'f> {
    file: &'f dyn DiskFile,
    /// Offset of the file at which `buf[start]` lies.
    offset: u64,
    /// No byte at or after this offset is looked at.
    limit: u64,
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'f> FrameReader<'f> {
    /// A walk from `offset` that looks at no byte at or after `limit`.
    pub(crate) fn new(file: &'f dyn DiskFile, offset: u64, limit: u64) -> FrameReader<'f> {
        FrameReader { file, offset, limit, buf: Vec::new(), start: 0, end: 0 }
    }

    /// Offset of the frame that `next` will return.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Makes `bytes` bytes available from `start` on, as far as the file goes.
    fn fill(&mut self, bytes: usize) -> io::Result<usize> {
        if self.end - self.start < bytes {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let left = self.limit.saturating_sub(self.offset);
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.max(READ_BYTES));
            if self.buf.len() < want {
                self.buf.resize(want, 0);
            }
            let at = self.offset + self.end as u64;
            if self.end < want {
                self.end += read_full_at(self.file, &mut self.buf[self.end..want], at)?;
            }
        }
        Ok((self.end - self.start).min(bytes))
    }

    /// The next frame. After anything but a frame the walk stays where it is.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        let n = self.fill(4)?;
        if n == 0 {
            return Ok(Step::End);
        }
        let needed = match record::encoded_len(&self.buf[self.start..self.start + n]) {
            Ok(Some(needed)) => needed,
            Ok(None) => {
                let zeros = self.buf[self.start..self.start + n].iter().all(|b| *b == 0);
                let cut = RecordError::Truncated { needed: 4, available: n };
                return Ok(if zeros { Step::End } else { Step::Bad(cut) });
            }
            Err(RecordError::Length(0)) => return Ok(Step::End),
            Err(error) => return Ok(Step::Bad(error)),
        };
        if needed as u64 > self.limit - self.offset {
            let available = usize::try_from(self.limit - self.offset).unwrap_or(usize::MAX);
            return Ok(Step::Bad(RecordError::Truncated { needed, available }));
        }
        let available = self.fill(needed)?;
        let (start, offset) = (self.start, self.offset);
        match record::decode_frame(&self.buf[start..start + available]) {
            Ok((frame, _)) => {
                self.start += needed;
                self.offset += needed as u64;
                Ok(Step::Frame(frame, offset))
            }
            Err(error) => Ok(Step::Bad(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{Disk, MemDisk, write_all_at},
        record::RecordKind,
    };

    const HEADER: SegmentHeader =
        SegmentHeader { first_lsn: Lsn(258), hash_before: RunningHash(7) };

    #[test]
    fn the_bytes_of_a_header_and_a_mark_never_change() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&HEADER.encode()),
            concat!(
                "554e4445524c4f470100000072870825",
                "020100000000000007000000000000000000000000000000",
                "000000000000000000000000000000000000000000000000"
            )
        );
        let mut mark = Vec::new();
        HEADER.encode_mark(&mut mark, Lsn(300), 64);
        assert_eq!(hex(&mark), "12000000b46562af802c01000000000000004700000002010000");
        assert_eq!(mark.len(), MARK_BYTES);
        assert_eq!(HEADER.file_name(), "log-0000000000000102.seg");
        assert!(is_segment_name(&HEADER.file_name()));
        assert!(!is_segment_name("log-0000000000000102.seg.tmp"));
    }

    #[test]
    fn a_header_is_checked_before_it_is_believed() {
        let good = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(HEADER));
        assert_eq!(SegmentHeader::decode(&good[..63]), Err(HeaderError::Short));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at} was not checked");
        }
    }

    fn file_with(frames: &[u8]) -> Box<dyn DiskFile> {
        let file = MemDisk::new().create("a").unwrap();
        write_all_at(&*file, &HEADER.encode(), 0).unwrap();
        write_all_at(&*file, frames, HEADER_BYTES).unwrap();
        file
    }

    #[test]
    fn a_walk_ends_at_zeros_and_names_what_is_no_frame() {
        let mut bytes = Vec::new();
        record::encode_into(&mut bytes, Lsn(258), Epoch(1), RecordKind::Transaction, b"one");
        let whole = bytes.len() as u64;
        bytes.extend_from_slice(&[0; 32]);
        let file = file_with(&bytes);
        let mut walk = FrameReader::new(&*file, HEADER_BYTES, file.len().unwrap());
        assert!(matches!(walk.next().unwrap(), Step::Frame(_, HEADER_BYTES)));
        assert!(matches!(walk.next().unwrap(), Step::End));
        assert_eq!(walk.offset(), HEADER_BYTES + whole);
        let mut walk = FrameReader::new(&*file, HEADER_BYTES, HEADER_BYTES + whole - 1);
        assert!(matches!(walk.next().unwrap(), Step::Bad(RecordError::Truncated { .. })));
    }

    #[test]
    fn a_mark_counts_only_at_its_own_place() {
        let mut bytes = vec![0xff; 100];
        let offset = HEADER_BYTES + bytes.len() as u64;
        HEADER.encode_mark(&mut bytes, Lsn(300), offset);
        let file = file_with(&bytes);
        assert_eq!(HEADER.proven_after(&*file, HEADER_BYTES).unwrap(), Some(Lsn(300)));
        assert_eq!(HEADER.proven_after(&*file, offset + 1).unwrap(), None);
        let mut moved = vec![0xff; 101];
        HEADER.encode_mark(&mut moved, Lsn(300), offset);
        assert_eq!(HEADER.proven_after(&*file_with(&moved), 0).unwrap(), None);
    }
}
