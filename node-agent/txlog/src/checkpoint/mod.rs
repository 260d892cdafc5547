//! Checkpoint files: the whole database at one LSN, with everything that recovery needs beside it.
//!
//! ```text
//! header   magic "UNDERCKP", version u32, length of meta u32, meta (postcard), CRC-32C of all that
//! block    length u32 > 0, CRC-32C u32 of (block number u64, length, bytes), bytes      repeated
//! footer   length u32 = 0, CRC-32C u32 of the 36 bytes that follow,
//!          blocks u64, body bytes u64, hash of the body u128, magic "UEND"
//! ```
//! The block number is in the checksum, so that exchanged, repeated and missing blocks are seen; the
//! footer shows that the file is whole. A checkpoint is written to a temporary name, fsynced, read
//! back, and only then gets its name; the one before it stays until the next one (design §5), unless the
//! log is full for its sake.
//!
//! **Invariants.** 1. A file with a checkpoint's name has been verified once, here. 2. A checkpoint
//! carries the whole epoch history and the running hash at its LSN (R2). 3. The caller takes it at an
//! LSN ≤ `acknowledged_lsn` (A2.22); this module cannot know that.

mod format;
mod sink;

pub use format::{CheckpointReader, DamagedCheckpoint};
pub use sink::{CheckpointSink, SinkError};

use crate::disk::{Disk, DiskFile, read_full_at, write_all_at};
use format::Head;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, Read, Write},
    sync::Arc,
};
use understudy_types::{Dbid, EpochHistory, Lsn, RunningHash};

/// Checkpoints that are kept: the newest, and the one before it as the way back.
pub const KEPT: usize = 2;

/// Name of a checkpoint that is being written or received.
pub(crate) const PARTIAL_NAME: &str = "checkpoint.tmp";

/// What a checkpoint says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    /// The database is whole up to and with this record.
    pub lsn: Lsn,
    /// Which epoch begins where, up to `lsn`.
    pub history: EpochHistory,
    /// Running hash of the log after `lsn`.
    pub hash: RunningHash,
    /// The database.
    pub dbid: Dbid,
}

/// Why a checkpoint could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The directory or a file failed.
    #[error("failed to {operation} the checkpoint at {lsn}")]
    Disk {
        /// What was attempted.
        operation: &'static str,
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// Answer of the system; `StorageFull` when there is no room.
        #[source]
        source: io::Error,
    },
    /// What was read back is not what was written; the file has been removed.
    #[error("the checkpoint at {lsn} was damaged while it was written")]
    Verify {
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// What was found.
        #[source]
        source: DamagedCheckpoint,
    },
}

/// Why a checkpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("failed to read {file}")]
    Disk {
        /// File name.
        file: String,
        /// Answer of the system.
        #[source]
        source: io::Error,
    },
    /// The file is not a whole, undamaged checkpoint.
    #[error("{file} is damaged")]
    Damaged {
        /// File name.
        file: String,
        /// What was found.
        #[source]
        source: DamagedCheckpoint,
    },
}

/// A verified checkpoint.
#[derive(Clone)]
pub struct CheckpointFile {
    disk: Arc<dyn Disk>,
    name: String,
    meta: CheckpointMeta,
    raw_len: u64,
}

impl fmt::Debug for CheckpointFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointFile")
            .field("name", &self.name)
            .field("meta", &self.meta)
            .field("raw_len", &self.raw_len)
            .finish_non_exhaustive()
    }
}

/// File name of the checkpoint at `lsn`; sorting names sorts checkpoints.
#[must_use]
pub(crate) fn file_name(lsn: Lsn) -> String {
    format!("checkpoint-{:016x}.ckp", lsn.0)
}

/// LSNs of the checkpoints in the directory, newest first.
pub(crate) fn list(disk: &dyn Disk) -> io::Result<Vec<Lsn>> {
    let lsn_of = |name: &str| {
        let digits = name.strip_prefix("checkpoint-")?.strip_suffix(".ckp")?;
        u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16).map(Lsn)
    };
    let mut found: Vec<Lsn> = disk.list()?.iter().filter_map(|f| lsn_of(&f.name)).collect();
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

impl CheckpointFile {
    /// Opens the checkpoint at `lsn` and verifies every byte of it.
    ///
    /// # Errors
    /// When it cannot be read or is not whole and undamaged.
    pub fn open(disk: &Arc<dyn Disk>, lsn: Lsn) -> Result<CheckpointFile, OpenError> {
        let name = file_name(lsn);
        let (meta, raw_len) = verify(&**disk, &name)?;
        if meta.lsn != lsn {
            return Err(OpenError::Damaged {
                file: name,
                source: DamagedCheckpoint::Name(meta.lsn),
            });
        }
        Ok(CheckpointFile { disk: Arc::clone(disk), name, meta, raw_len })
    }

    /// File name inside the data directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the checkpoint says about itself.
    #[must_use]
    pub fn meta(&self) -> &CheckpointMeta {
        &self.meta
    }

    /// The body as it was written, checked again block by block: damage is an `InvalidData` error.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn read(&self) -> io::Result<impl Read + use<>> {
        let file = RawFile { file: self.disk.open(&self.name)?, offset: 0 };
        CheckpointReader::new(io::BufReader::with_capacity(format::BLOCK_BYTES * 2, file))
            .map(|(_, reader)| reader)
    }

    /// Length of the whole file in bytes, for a duplicate.
    #[must_use]
    pub fn raw_len(&self) -> u64 {
        self.raw_len
    }

    /// Bytes of the file itself, for a duplicate; fewer than asked for only at its end.
    ///
    /// # Errors
    /// When the file cannot be read, or has been removed by newer checkpoints meanwhile.
    pub fn read_raw(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        read_full_at(&*self.disk.open(&self.name)?, buf, offset)
    }

    /// The bytes of the file itself from `offset` on, for a duplicate. The file is held open: it reads
    /// to its end even when newer checkpoints remove it meanwhile.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_raw(&self, offset: u64) -> io::Result<impl Read + Send + use<>> {
        Ok(RawFile { file: self.disk.open(&self.name)?, offset })
    }
}

/// Reads and checks a whole file.
fn verify(disk: &dyn Disk, name: &str) -> Result<(CheckpointMeta, u64), OpenError> {
    let failed = |source| OpenError::Disk { file: name.to_owned(), source };
    let damaged = |source| OpenError::Damaged { file: name.to_owned(), source };
    let file = RawFile { file: disk.open(name).map_err(failed)?, offset: 0 };
    let raw_len = file.file.len().map_err(failed)?;
    let input = io::BufReader::with_capacity(format::BLOCK_BYTES * 2, file);
    let (meta, mut reader) = CheckpointReader::new(input).map_err(|e| split(e, failed, damaged))?;
    let mut buf = vec![0; format::BLOCK_BYTES];
    loop {
        match reader.read(&mut buf) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => return Err(split(e, failed, damaged)),
        }
    }
    let end = reader.file_bytes();
    if end != raw_len {
        return Err(damaged(DamagedCheckpoint::TrailingBytes(raw_len - end)));
    }
    Ok((meta, raw_len))
}

/// Tells damage from a failing disk.
fn split(
    error: io::Error,
    failed: impl Fn(io::Error) -> OpenError,
    damaged: impl Fn(DamagedCheckpoint) -> OpenError,
) -> OpenError {
    match error.downcast::<DamagedCheckpoint>() {
        Ok(damage) => damaged(damage),
        Err(error) => failed(error),
    }
}

/// A file read or written front to back.
struct RawFile {
    file: Box<dyn DiskFile>,
    offset: u64,
}

impl Read for RawFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl Write for RawFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        write_all_at(&*self.file, buf, self.offset)?;
        self.offset += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes what an earlier attempt to receive left, and makes the temporary file.
fn begin_partial(disk: &dyn Disk) -> io::Result<Box<dyn DiskFile>> {
    match disk.remove(PARTIAL_NAME) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    disk.create(PARTIAL_NAME)
}

/// Gives a verified, durable partial file its name and removes all but the newest [`KEPT`].
fn publish(disk: &dyn Disk, lsn: Lsn) -> io::Result<()> {
    disk.rename(PARTIAL_NAME, &file_name(lsn))?;
    disk.sync_directory()?;
    remove_older(disk, KEPT).map(|_| ())
}

/// Removes all but the newest `kept` checkpoints; how many there were.
fn remove_older(disk: &dyn Disk, kept: usize) -> io::Result<usize> {
    let found = list(disk)?;
    let older = found.get(kept..).unwrap_or_default();
    for lsn in older {
        disk.remove(&file_name(*lsn))?;
    }
    if !older.is_empty() {
        disk.sync_directory()?;
    }
    Ok(older.len())
}

/// Gives up the way back: removes all checkpoints but the newest, which was verified when it was written.
/// For a log that only the older one keeps full. Returns how many were removed.
///
/// # Errors
/// When the directory cannot be read or a file not be removed; nothing is lost by it.
pub fn keep_newest_checkpoint(disk: &dyn Disk) -> io::Result<usize> {
    remove_older(disk, 1)
}

/// Writes a checkpoint: `body` writes the database into the given writer.
///
/// # Errors
/// When `body`, the disk or the verification fails, or when another checkpoint is being written into the
/// directory (`AlreadyExists`); the checkpoints that were there are untouched.
pub fn write_checkpoint(
    disk: &Arc<dyn Disk>,
    meta: CheckpointMeta,
    body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<CheckpointFile, CheckpointError> {
    let lsn = meta.lsn;
    let failed = |operation| move |source| CheckpointError::Disk { operation, lsn, source };
    // Taken: another one is being written. What a crash leaves is removed by recovery.
    let file = disk.create(PARTIAL_NAME).map_err(failed("begin"))?;
    let written = write_partial(file, &meta, body).map_err(failed("write"));
    let verified = written.and_then(|()| {
        verify(&**disk, PARTIAL_NAME).map_err(|e| match e {
            OpenError::Disk { source, .. } => failed("read back")(source),
            OpenError::Damaged { source, .. } => CheckpointError::Verify { lsn, source },
        })
    });
    let published = verified.and_then(|(_, raw_len)| {
        publish(&**disk, lsn).map_err(failed("publish"))?;
        Ok(raw_len)
    });
    let raw_len = match published {
        Ok(raw_len) => raw_len,
        Err(error) => {
            // What failed is told; the space is given back as far as the disk allows.
            let _ = disk.remove(PARTIAL_NAME);
            return Err(error);
        }
    };
    Ok(CheckpointFile { disk: Arc::clone(disk), name: file_name(lsn), meta, raw_len })
}

fn write_partial(
    file: Box<dyn DiskFile>,
    meta: &CheckpointMeta,
    body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let file = RawFile { file, offset: 0 };
    let mut out = format::BlockWriter::new(file, &Head { meta: meta.clone() })?;
    body(&mut out)?;
    out.finish()?.file.sync_data()
}
