//! A memory disk that fails when and where a test says.
//!
//! Faults are armed for the next matching operations: an operation kind, a part of the file's name
//! and how many matches to let pass first. Each fault strikes once, except a full volume
//! ([`MemDisk::set_total_bytes`]) and a stall, which last until they are taken back.

use super::{Disk, DiskFile, FileEntry, MemDisk, Space};
use parking_lot::{Condvar, Mutex};
use std::{io, sync::Arc};

/// What a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `Disk::create`.
    Create,
    /// `DiskFile::read_at`.
    Read,
    /// `DiskFile::write_at`.
    Write,
    /// `DiskFile::allocate`.
    Allocate,
    /// `DiskFile::sync_data`.
    Sync,
    /// `Disk::rename`.
    Rename,
    /// `Disk::remove`.
    Remove,
    /// `Disk::sync_directory`.
    SyncDirectory,
}

/// What happens instead of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with EIO. A failed sync loses the unsynced writes as Linux does: they stay
    /// readable and never reach the medium.
    IoError,
    /// The operation fails with ENOSPC.
    NoSpace,
    /// A write takes only this many bytes and says so.
    ShortWrite(usize),
    /// A write takes only this many bytes and fails.
    TornWrite(usize),
    /// A sync says that all is well and makes nothing durable.
    LostSync,
    /// A read or a write comes through with one bit of the given byte changed.
    BitFlip(usize),
}

#[derive(Debug)]
struct Armed {
    operation: Operation,
    name_part: String,
    skip: u32,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Plan {
    armed: Vec<Armed>,
    struck: u32,
    /// Operation that waits until the stall is taken back.
    stalled: Option<Operation>,
    waiting: u32,
}

/// A [`MemDisk`] with armed faults. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    mem: MemDisk,
    plan: Arc<Mutex<Plan>>,
    stall: Arc<Condvar>,
}

impl FaultyDisk {
    /// Over an empty disk.
    #[must_use]
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// Over an existing disk.
    #[must_use]
    pub fn over(mem: MemDisk) -> FaultyDisk {
        FaultyDisk { mem, ..FaultyDisk::default() }
    }

    /// The disk below, without faults.
    #[must_use]
    pub fn mem(&self) -> &MemDisk {
        &self.mem
    }

    /// Arms a fault for the operation on files whose name contains `name_part` (empty matches all),
    /// after `skip` matches that pass.
    pub fn arm(&self, operation: Operation, name_part: &str, skip: u32, fault: Fault) {
        let name_part = name_part.to_owned();
        self.plan.lock().armed.push(Armed { operation, name_part, skip, fault });
    }

    /// How many faults have struck.
    #[must_use]
    pub fn struck(&self) -> u32 {
        self.plan.lock().struck
    }

    /// Lets every operation of this kind wait from now on; `None` lets them go.
    pub fn stall(&self, operation: Option<Operation>) {
        self.plan.lock().stalled = operation;
        self.stall.notify_all();
    }

    /// Waits until some operation hangs in the stall.
    pub fn wait_until_stalled(&self) {
        let mut plan = self.plan.lock();
        while plan.waiting == 0 {
            self.stall.wait(&mut plan);
        }
    }

    fn strike(&self, operation: Operation, name: &str) -> Option<Fault> {
        let mut plan = self.plan.lock();
        if plan.stalled == Some(operation) {
            plan.waiting += 1;
            self.stall.notify_all();
            while plan.stalled == Some(operation) {
                self.stall.wait(&mut plan);
            }
            plan.waiting -= 1;
        }
        let matches = |a: &Armed| a.operation == operation && name.contains(&a.name_part);
        let at = plan.armed.iter().position(matches)?;
        if plan.armed[at].skip > 0 {
            plan.armed[at].skip -= 1;
            return None;
        }
        plan.struck += 1;
        Some(plan.armed.remove(at).fault)
    }

    /// Faults that replace an operation which moves no bytes.
    fn refuse(&self, operation: Operation, name: &str) -> io::Result<()> {
        match self.strike(operation, name) {
            None => Ok(()),
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Some(
                Fault::IoError
                | Fault::ShortWrite(_)
                | Fault::TornWrite(_)
                | Fault::LostSync
                | Fault::BitFlip(_),
            ) => Err(eio()),
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.refuse(Operation::Create, name)?;
        let file = self.mem.create(name)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), name: name.to_owned(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.mem.open(name)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), name: name.to_owned(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.refuse(Operation::Rename, to)?;
        self.mem.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.refuse(Operation::Remove, name)?;
        self.mem.remove(name)
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.mem.list()
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.strike(Operation::SyncDirectory, "") {
            None => self.mem.sync_directory(),
            Some(Fault::LostSync) => Ok(()),
            Some(
                Fault::IoError
                | Fault::NoSpace
                | Fault::ShortWrite(_)
                | Fault::TornWrite(_)
                | Fault::BitFlip(_),
            ) => Err(eio()),
        }
    }

    fn space(&self) -> io::Result<Space> {
        self.mem.space()
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    name: String,
    file: Box<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.disk.strike(Operation::Read, &self.name) {
            None => self.file.read_at(buf, offset),
            Some(Fault::BitFlip(at)) => {
                let n = self.file.read_at(buf, offset)?;
                if n > 0 {
                    buf[at % n] ^= 0x10;
                }
                Ok(n)
            }
            Some(
                Fault::IoError
                | Fault::NoSpace
                | Fault::ShortWrite(_)
                | Fault::TornWrite(_)
                | Fault::LostSync,
            ) => Err(eio()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.disk.strike(Operation::Write, &self.name) {
            None => self.file.write_at(bytes, offset),
            Some(Fault::ShortWrite(n)) => self.file.write_at(&bytes[..n.min(bytes.len())], offset),
            Some(Fault::TornWrite(n)) => {
                self.file.write_at(&bytes[..n.min(bytes.len())], offset)?;
                Err(eio())
            }
            Some(Fault::BitFlip(at)) => {
                let mut damaged = bytes.to_vec();
                if !damaged.is_empty() {
                    let at = at % damaged.len();
                    damaged[at] ^= 0x10;
                }
                self.file.write_at(&damaged, offset)
            }
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::IoError | Fault::LostSync) => Err(eio()),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.refuse(Operation::Allocate, &self.name)?;
        self.file.allocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.disk.strike(Operation::Sync, &self.name) {
            None => self.file.sync_data(),
            Some(Fault::LostSync) => Ok(()),
            Some(
                Fault::IoError
                | Fault::NoSpace
                | Fault::ShortWrite(_)
                | Fault::TornWrite(_)
                | Fault::BitFlip(_),
            ) => {
                self.disk.mem.forget_unsynced(&self.name);
                Err(eio())
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_keeps_the_bytes_readable_and_never_durable() {
        let disk = FaultyDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_directory().unwrap();
        file.write_at(b"x", 0).unwrap();
        disk.arm(Operation::Sync, "a", 0, Fault::IoError);
        assert!(file.sync_data().is_err());
        // The second attempt lies, which is why nobody may make it.
        file.sync_data().unwrap();
        assert_eq!(disk.mem().content("a").unwrap(), b"x");
        assert_eq!(disk.mem().crash(&mut || true).content("a").unwrap(), b"");
    }

    #[test]
    fn a_fault_strikes_once_and_where_it_was_armed() {
        let disk = FaultyDisk::new();
        disk.arm(Operation::Write, "b", 1, Fault::NoSpace);
        let (a, b) = (disk.create("a").unwrap(), disk.create("b").unwrap());
        assert_eq!(a.write_at(b"12", 0).unwrap(), 2);
        assert_eq!(b.write_at(b"12", 0).unwrap(), 2);
        assert_eq!(b.write_at(b"12", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(b.write_at(b"12", 0).unwrap(), 2);
        assert_eq!(disk.struck(), 1);
    }
}
