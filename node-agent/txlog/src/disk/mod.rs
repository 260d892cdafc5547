//! The one door to storage: a flat directory of files behind two small traits.
//!
//! Everything else in this crate goes through them, so that the same code runs on a real directory
//! ([`FsDisk`]), in memory ([`MemDisk`]) and against injected faults ([`FaultyDisk`]).
//!
//! **Invariants.** 1. A write is not durable before `sync_data` of its file has returned. 2. A create,
//! rename or remove is not durable before `sync_directory` has returned. 3. After a failed sync nothing
//! is known about the bytes since the last good one, and no caller retries it.
//!
//! Deliberately absent: sub-directories, memory maps, buffering, retries.

mod faulty;
mod fs;
mod mem;

pub use faulty::{Fault, FaultyDisk, Operation};
pub use fs::FsDisk;
pub use mem::{CrashChoice, MemDisk};

use std::io;

/// A file of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Name inside the directory.
    pub name: String,
    /// Length in bytes, preallocated space included.
    pub bytes: u64,
}

/// Room on the volume that holds the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Size of the volume in bytes.
    pub total_bytes: u64,
}

/// A flat directory of files.
///
/// *Assumptions*: one process has the directory (see [`FsDisk::open`]); names are plain file names.
pub trait Disk: Send + Sync {
    /// Makes a new empty file, open for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; any error of the system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none; any error of the system.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file; a file of the new name is replaced in one step.
    ///
    /// # Errors
    /// Any error of the system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Any error of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All files, in the order of their names.
    ///
    /// # Errors
    /// Any error of the system.
    fn list(&self) -> io::Result<Vec<FileEntry>>;

    /// Makes earlier creates, renames and removes durable.
    ///
    /// # Errors
    /// Any error of the system; the state of the directory is then unknown.
    fn sync_directory(&self) -> io::Result<()>;

    /// Room on the volume.
    ///
    /// # Errors
    /// Any error of the system.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. Positions are explicit: there is no cursor to share.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file or by chance.
    ///
    /// # Errors
    /// Any error of the system.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, perhaps fewer bytes than given.
    ///
    /// # Errors
    /// Any error of the system.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reserves the first `bytes` of the file: they read as zeros, and writing them cannot fail for
    /// want of space.
    ///
    /// # Errors
    /// `StorageFull` when there is no room; any error of the system.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or extends the file to `bytes`.
    ///
    /// # Errors
    /// Any error of the system.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    /// Any error of the system; it must never be retried (invariant 3).
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Any error of the system.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Any error of the system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Writes all of `bytes` at `offset`, going on after short writes.
pub(crate) fn write_all_at(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills `buf` from `offset` as far as the file goes and says how many bytes that were.
pub(crate) fn read_full_at(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Opens a file that may be absent.
pub(crate) fn open_if_present(
    disk: &dyn Disk,
    name: &str,
) -> io::Result<Option<Box<dyn DiskFile>>> {
    match disk.open(name) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
