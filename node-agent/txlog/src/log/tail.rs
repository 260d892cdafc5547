//! The newest records in memory, and what the writer and the appender tell each other.
//!
//! Records lie back to back in chunks. The newest chunk is filled under the mutex; older ones are
//! sealed and shared, so readers and the writer hold the mutex only to take references and to copy the
//! filled part of the newest chunk (at most 64 KiB). A chunk leaves memory when the limit is passed and
//! its records are in a file; its buffers are used again, so that appending allocates nothing at rest.

use crate::record::{self, RecordKind};
use std::{collections::VecDeque, sync::Arc};
use understudy_types::{Epoch, EpochHistory, Lsn, RunningHash};

/// Largest size of a chunk in bytes: a copy of it takes a few microseconds. A longer record gets its
/// own.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Smallest size of a chunk in bytes.
const CHUNK_BYTES_MIN: usize = 1024;

/// Chunks that fill the memory of the tail; it is freed one by one.
const CHUNKS: usize = 64;

/// Empty chunks kept for use.
const SPARES_MAX: usize = 4;

/// Records back to back.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// LSN of the first record.
    pub(super) first_lsn: Lsn,
    /// Running hash of the log before the first record.
    pub(super) hash_before: RunningHash,
    /// Whole encoded records.
    pub(super) bytes: Vec<u8>,
    /// End of each record in `bytes`.
    pub(super) ends: Vec<u32>,
}

impl Chunk {
    fn with_capacity(bytes: usize) -> Chunk {
        Chunk {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(bytes / 64),
            ..Chunk::default()
        }
    }

    /// LSN after the last record.
    pub(super) fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.ends.len() as u64)
    }

    /// Where the record at `lsn` begins; the end of the bytes for the LSN after the last.
    pub(super) fn start_of(&self, lsn: Lsn) -> usize {
        match lsn.since(self.first_lsn) {
            0 => 0,
            n => self.ends[n as usize - 1] as usize,
        }
    }

    /// The LSN after the last record, from `from` on, that fits into `max_bytes`.
    pub(super) fn fitting(&self, from: Lsn, max_bytes: usize) -> Lsn {
        let limit = self.start_of(from).saturating_add(max_bytes);
        let fits = self.ends.partition_point(|end| *end as usize <= limit);
        Lsn(self.first_lsn.0 + fits as u64).max(from)
    }

    /// Running hash after the record at `lsn`, which is in this chunk or the one before its first.
    pub(super) fn hash_at(&self, lsn: Lsn) -> RunningHash {
        let mut hash = self.hash_before;
        let mut start = 0;
        for end in &self.ends[..lsn.next().since(self.first_lsn) as usize] {
            hash = hash.extend(&self.bytes[start..*end as usize]);
            start = *end as usize;
        }
        hash
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// How the writer sleeps, so that nobody wakes it without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nap {
    /// It works and looks again by itself.
    Awake,
    /// It wakes by itself within the drain interval; only a wait for durability ends that early.
    Short,
    /// Nothing to write: the next append wakes it.
    Deep,
}

/// Everything under the log's one mutex.
#[derive(Debug)]
pub(super) struct Tail {
    sealed: VecDeque<Arc<Chunk>>,
    newest: Chunk,
    spares: Vec<Chunk>,
    /// Bytes of all chunks.
    bytes: usize,
    /// Bytes after which the oldest chunk leaves.
    limit_bytes: usize,
    /// Size of a chunk.
    chunk_bytes: usize,
    /// LSN of the last record.
    pub(super) end: Lsn,
    /// Running hash at `end`.
    pub(super) hash: RunningHash,
    /// Epoch of the last record.
    pub(super) epoch: Epoch,
    /// Which epoch begins where, up to `end`.
    pub(super) history: EpochHistory,
    /// Last record that is in a file; written by the writer.
    pub(super) written: Lsn,
    /// Last record that is durable; written by the writer.
    pub(super) durable: Lsn,
    /// Highest LSN that somebody waits for.
    pub(super) requested: Lsn,
    /// Bytes appended and not yet in a file.
    pub(super) unwritten_bytes: u64,
    /// How the writer sleeps.
    pub(super) nap: Nap,
    /// Whether the last handle has gone.
    pub(super) stopping: bool,
}

/// Records taken out of memory: shared chunks, and a copy of the part of the newest one.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Sealed chunks, oldest first.
    pub(super) sealed: Vec<Arc<Chunk>>,
    /// Copied records that follow the sealed ones; its buffers are used again.
    pub(super) copied: Chunk,
}

impl Tail {
    pub(super) fn new(
        end: Lsn,
        hash: RunningHash,
        history: EpochHistory,
        limit_bytes: usize,
    ) -> Tail {
        let chunk_bytes = (limit_bytes / CHUNKS).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let mut tail = Tail {
            sealed: VecDeque::new(),
            newest: Chunk::with_capacity(chunk_bytes),
            spares: Vec::new(),
            bytes: 0,
            limit_bytes,
            chunk_bytes,
            end: Lsn::ZERO,
            hash: RunningHash::default(),
            epoch: Epoch::ZERO,
            history: EpochHistory::default(),
            written: Lsn::ZERO,
            durable: Lsn::ZERO,
            requested: Lsn::ZERO,
            unwritten_bytes: 0,
            nap: Nap::Awake,
            stopping: false,
        };
        tail.reset(end, hash, history);
        tail
    }

    /// Forgets all records: the log now ends, durable, at `end`.
    pub(super) fn reset(&mut self, end: Lsn, hash: RunningHash, history: EpochHistory) {
        self.sealed.clear();
        self.newest.clear();
        self.newest.first_lsn = end.next();
        self.newest.hash_before = hash;
        self.bytes = 0;
        self.end = end;
        self.hash = hash;
        self.epoch = history.last_epoch().number;
        self.history = history;
        self.written = end;
        self.durable = end;
        self.requested = Lsn::ZERO;
        self.unwritten_bytes = 0;
    }

    /// First record in memory; the one after the end when there is none.
    pub(super) fn first_lsn(&self) -> Lsn {
        self.sealed.front().map_or(self.newest.first_lsn, |chunk| chunk.first_lsn)
    }

    /// Encodes one record at the end.
    pub(super) fn encode(&mut self, epoch: Epoch, kind: RecordKind, payload: &[u8]) -> Lsn {
        let lsn = self.end.next();
        self.make_room(record::OVERHEAD_BYTES_MAX + payload.len());
        let start = self.newest.bytes.len();
        record::encode_into(&mut self.newest.bytes, lsn, epoch, kind, payload);
        self.hash = self.hash.extend(&self.newest.bytes[start..]);
        self.epoch = epoch;
        self.added(start);
        lsn
    }

    /// Copies one encoded record to the end; the caller sets hash and epoch afterwards.
    pub(super) fn copy(&mut self, encoded: &[u8], hash_before: RunningHash) {
        self.hash = hash_before;
        self.make_room(encoded.len());
        let start = self.newest.bytes.len();
        self.newest.bytes.extend_from_slice(encoded);
        self.added(start);
    }

    fn added(&mut self, start: usize) {
        let end = self.newest.bytes.len();
        // Fits: a record is far below 4 GiB, and a chunk with several is small.
        self.newest.ends.push(end as u32);
        self.bytes += end - start;
        self.unwritten_bytes += (end - start) as u64;
        self.end = self.end.next();
    }

    fn make_room(&mut self, bytes: usize) {
        let used = self.newest.bytes.len();
        if used + bytes <= self.chunk_bytes {
            return;
        }
        if used > 0 {
            self.seal();
        }
        self.newest.bytes.reserve(bytes);
    }

    fn seal(&mut self) {
        self.evict();
        let mut next = self.spares.pop().unwrap_or_else(|| Chunk::with_capacity(self.chunk_bytes));
        next.first_lsn = self.end.next();
        next.hash_before = self.hash;
        let full = std::mem::replace(&mut self.newest, next);
        self.sealed.push_back(Arc::new(full));
    }

    /// Lets the oldest written chunks go while there is too much in memory.
    pub(super) fn evict(&mut self) {
        while self.bytes > self.limit_bytes
            && self.sealed.front().is_some_and(|oldest| oldest.next_lsn() <= self.written.next())
        {
            let Some(oldest) = self.sealed.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
            if let Ok(mut chunk) = Arc::try_unwrap(oldest)
                && chunk.bytes.capacity() == self.chunk_bytes
                && self.spares.len() < SPARES_MAX
            {
                chunk.clear();
                self.spares.push(chunk);
            }
        }
    }

    /// Takes records from `from`, which is in memory or the one after the end, up to about
    /// `max_bytes` (whole chunks of the sealed ones; the caller trims) into `into`.
    pub(super) fn take(&self, from: Lsn, max_bytes: usize, into: &mut Taken) {
        into.sealed.clear();
        into.copied.clear();
        into.copied.first_lsn = Lsn::MAX;
        let mut left = max_bytes;
        let at = self.sealed.partition_point(|chunk| chunk.next_lsn() <= from);
        for chunk in self.sealed.range(at..) {
            into.sealed.push(Arc::clone(chunk));
            let taken = chunk.bytes.len() - chunk.start_of(from.max(chunk.first_lsn));
            left = left.saturating_sub(taken);
            if left == 0 {
                return;
            }
        }
        let from = from.max(self.newest.first_lsn);
        let start = self.newest.start_of(from);
        let skipped = from.since(self.newest.first_lsn) as usize;
        into.copied.first_lsn = from;
        into.copied.bytes.extend_from_slice(&self.newest.bytes[start..]);
        into.copied.ends.extend(self.newest.ends[skipped..].iter().map(|e| e - start as u32));
    }

    /// Running hash after the record at `lsn`; `None` when that is not in memory.
    pub(super) fn hash_at(&self, lsn: Lsn) -> Option<RunningHash> {
        if lsn > self.end {
            return None;
        }
        if lsn == self.end {
            return Some(self.hash);
        }
        if lsn.next() >= self.newest.first_lsn {
            return Some(self.newest.hash_at(lsn));
        }
        let at = self.sealed.partition_point(|chunk| chunk.first_lsn <= lsn.next());
        Some(self.sealed.get(at.checked_sub(1)?)?.hash_at(lsn))
    }

    /// Whether the oldest record in memory is newer than `lsn`.
    pub(super) fn is_before(&self, lsn: Lsn) -> bool {
        lsn < self.first_lsn()
    }
}
