//! A real directory: one file descriptor for the directory, positional reads and writes, fdatasync.
//!
//! Deliberately absent: direct I/O (the page cache serves catch-up reads) and paths given by callers.

use super::{Disk, DiskFile, FileEntry, Space};
use rustix::fs::{FallocateFlags, FlockOperation};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Name of the file whose lock says that a process has the directory.
const LOCK_NAME: &str = "lock";

/// Block of zeros for file systems that cannot reserve space.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A directory of the local file system, locked for the life of this value.
#[derive(Debug)]
pub struct FsDisk {
    path: PathBuf,
    directory: File,
    /// Held, never read: closing it gives the directory up.
    _lock: File,
}

impl FsDisk {
    /// Makes the directory if it is absent and takes its lock (R1): a second process, or a second
    /// open in this one, is refused.
    ///
    /// # Errors
    /// `WouldBlock` when somebody has the directory; any error of the system.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<FsDisk> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        let directory = File::open(&path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_NAME))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        directory.sync_all()?;
        if let Some(parent) = path.parent()
            && !parent.as_os_str().is_empty()
        {
            File::open(parent)?.sync_all()?;
        }
        Ok(FsDisk { path, directory, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Disk for FsDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file =
            OpenOptions::new().create_new(true).read(true).write(true).open(self.file(name))?;
        Ok(Box::new(FsFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.file(name))?;
        Ok(Box::new(FsFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.file(from), self.file(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.file(name))
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Renamed or removed by another thread between the two looks.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            // A name that is not text cannot be one of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if metadata.is_file() && name != LOCK_NAME {
                entries.push(FileEntry { name, bytes: metadata.len() });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

#[derive(Debug)]
struct FsFile {
    file: File,
}

impl DiskFile for FsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => {
                // Writing zeros is the only reservation that such a file system knows.
                let mut at = self.file.metadata()?.len();
                while at < bytes {
                    let n = ZEROS.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
                    self.file.write_all_at(&ZEROS[..n], at)?;
                    at += n as u64;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let first = FsDisk::open(directory.path().join("log")).unwrap();
        let refused = FsDisk::open(directory.path().join("log")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        FsDisk::open(directory.path().join("log")).unwrap();
    }

    #[test]
    fn an_allocated_file_reads_as_zeros_and_a_listing_leaves_the_lock_out() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let file = disk.create("b").unwrap();
        file.allocate(4096).unwrap();
        let mut buf = [1; 4096];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 4096);
        assert_eq!(buf, [0; 4096]);
        disk.create("a").unwrap();
        let names: Vec<_> = disk.list().unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(disk.space().unwrap().free_bytes > 0);
    }
}
