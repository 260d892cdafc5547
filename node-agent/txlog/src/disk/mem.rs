//! A directory in memory that knows what a power cut may take away.
//!
//! Each file has what every reader sees (`content`) and what is surely on the medium (`durable`), with
//! the writes between the two. [`MemDisk::crash`] makes the disk as it may look after a power cut: of
//! every unsynced write an arbitrary set of 512-byte sectors arrived, and of the unsynced directory
//! changes an arbitrary prefix, so that a rename may arrive before the bytes of the renamed file.
//! A killed process takes nothing away, and makes nothing durable: [`MemDisk::after_kill`].

use super::{Disk, DiskFile, FileEntry, Space};
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, sync::Arc};

/// Unit that a medium writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// What a power cut decides, one call for each open question; `true` means that it arrived.
pub trait CrashChoice {
    /// Whether the next unsynced piece reached the medium.
    fn arrived(&mut self) -> bool;
}

impl<F: FnMut() -> bool> CrashChoice for F {
    fn arrived(&mut self) -> bool {
        self()
    }
}

/// A directory in memory.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    inner: Arc<Mutex<Directory>>,
}

/// One file; the same value under each of its names.
type SharedContent = Arc<Mutex<Content>>;

#[derive(Debug, Default)]
struct Directory {
    /// What `open` and `list` see.
    names: BTreeMap<String, SharedContent>,
    /// What is surely on the medium.
    durable: BTreeMap<String, SharedContent>,
    /// Changes since the last sync of the directory, oldest first.
    pending: Vec<Change>,
    /// Size of the volume; `None` is unlimited.
    total_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
enum Change {
    Put(String, SharedContent),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
struct Content {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Edit {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Edit::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Edit::Resize(bytes) => to.resize(*bytes, 0),
        }
    }
}

impl Content {
    fn edit(&mut self, edit: Edit) {
        edit.apply(&mut self.content);
        self.pending.push(edit);
    }

    /// The bytes after a power cut: each sector of each pending write by its own choice.
    fn after_crash(&self, choice: &mut dyn CrashChoice) -> Vec<u8> {
        let mut survivor = self.durable.clone();
        for edit in &self.pending {
            match edit {
                Edit::Resize(_) => {
                    if choice.arrived() {
                        edit.apply(&mut survivor);
                    }
                }
                Edit::Write(offset, bytes) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = (offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                        let end = bytes.len().min(sector_end - offset);
                        if choice.arrived() {
                            Edit::Write(offset + at, bytes[at..end].to_vec()).apply(&mut survivor);
                        }
                        at = end;
                    }
                }
            }
        }
        survivor
    }
}

impl Directory {
    fn free_bytes(&self) -> u64 {
        let Some(total_bytes) = self.total_bytes else { return u64::MAX };
        let used: u64 = self.names.values().map(|f| f.lock().content.len() as u64).sum();
        total_bytes.saturating_sub(used)
    }
}

fn apply(change: &Change, to: &mut BTreeMap<String, SharedContent>) {
    match change {
        Change::Put(name, file) => {
            // A file has one name: a rename takes the old one away in the same step.
            to.retain(|_, other| !Arc::ptr_eq(other, file));
            to.insert(name.clone(), Arc::clone(file));
        }
        Change::Remove(name) => {
            to.remove(name);
        }
    }
}

impl MemDisk {
    /// An empty, unlimited disk.
    #[must_use]
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// Sets the size of the volume in bytes.
    pub fn set_total_bytes(&self, bytes: u64) {
        self.inner.lock().total_bytes = Some(bytes);
    }

    /// The disk as it may be found after a power cut; this one stays as it is.
    #[must_use]
    pub fn crash(&self, choice: &mut dyn CrashChoice) -> MemDisk {
        let from = self.inner.lock();
        let mut names = from.durable.clone();
        for change in &from.pending {
            if !choice.arrived() {
                break;
            }
            apply(change, &mut names);
        }
        let survivors: BTreeMap<_, _> = names
            .into_iter()
            .map(|(name, file)| {
                (name, Arc::new(Mutex::new(settled(file.lock().after_crash(choice)))))
            })
            .collect();
        MemDisk::from_names(survivors, from.total_bytes)
    }

    /// The disk as the next process finds it when this one is killed now: unsynced bytes are still only
    /// in the page cache. What goes on here no longer shows there.
    #[must_use]
    pub fn after_kill(&self) -> MemDisk {
        let from = self.inner.lock();
        let mut copies: Vec<(SharedContent, SharedContent)> = Vec::new();
        let mut copy = |file: &SharedContent| {
            if let Some((_, copy)) = copies.iter().find(|(of, _)| Arc::ptr_eq(of, file)) {
                return Arc::clone(copy);
            }
            let made = Arc::new(Mutex::new(file.lock().clone()));
            copies.push((Arc::clone(file), Arc::clone(&made)));
            made
        };
        let mut copy_all = |names: &BTreeMap<String, SharedContent>| {
            names.iter().map(|(name, file)| (name.clone(), copy(file))).collect()
        };
        let (names, durable) = (copy_all(&from.names), copy_all(&from.durable));
        let change = |change: &Change| match change {
            Change::Put(name, file) => Change::Put(name.clone(), copy(file)),
            Change::Remove(name) => Change::Remove(name.clone()),
        };
        let pending = from.pending.iter().map(change).collect();
        let directory = Directory { names, durable, pending, total_bytes: from.total_bytes };
        MemDisk { inner: Arc::new(Mutex::new(directory)) }
    }

    /// A durable copy of what every reader sees now, as of one moment.
    #[must_use]
    pub fn copy(&self) -> MemDisk {
        let from = self.inner.lock();
        let copies = from
            .names
            .iter()
            .map(|(name, file)| {
                (name.clone(), Arc::new(Mutex::new(settled(file.lock().content.clone()))))
            })
            .collect();
        MemDisk::from_names(copies, from.total_bytes)
    }

    fn from_names(names: BTreeMap<String, SharedContent>, total_bytes: Option<u64>) -> MemDisk {
        let durable = names.clone();
        let directory = Directory { names, durable, pending: Vec::new(), total_bytes };
        MemDisk { inner: Arc::new(Mutex::new(directory)) }
    }

    /// Whole content of a file; `None` when there is none.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.inner.lock().names.get(name)?.lock().content.clone())
    }

    /// Changes one byte of a file on the medium and in the cache, as decay would.
    ///
    /// # Panics
    /// When there is no such file or byte: the test is wrong.
    pub fn invert_bits(&self, name: &str, offset: usize, mask: u8) {
        let directory = self.inner.lock();
        let mut file = directory.names.get(name).expect("the named file exists").lock();
        file.content[offset] ^= mask;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// What a failed fsync does on Linux: the unsynced writes stay readable in the page cache, count
    /// as clean, and never reach the medium.
    pub(super) fn forget_unsynced(&self, name: &str) {
        if let Some(file) = self.inner.lock().names.get(name) {
            file.lock().pending.clear();
        }
    }
}

fn settled(content: Vec<u8>) -> Content {
    Content { durable: content.clone(), content, pending: Vec::new() }
}

impl Disk for MemDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut directory = self.inner.lock();
        if directory.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(Mutex::new(Content::default()));
        directory.names.insert(name.to_owned(), Arc::clone(&file));
        directory.pending.push(Change::Put(name.to_owned(), Arc::clone(&file)));
        Ok(Box::new(MemFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.inner.lock().names.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut directory = self.inner.lock();
        let file = directory.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let change = Change::Put(to.to_owned(), file);
        apply(&change, &mut directory.names);
        directory.pending.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut directory = self.inner.lock();
        directory.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        directory.pending.push(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let directory = self.inner.lock();
        let entry = |(name, file): (&String, &SharedContent)| FileEntry {
            name: name.clone(),
            bytes: file.lock().content.len() as u64,
        };
        Ok(directory.names.iter().map(entry).collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut directory = self.inner.lock();
        directory.durable = directory.names.clone();
        directory.pending.clear();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let directory = self.inner.lock();
        let total_bytes = directory.total_bytes.unwrap_or(u64::MAX);
        Ok(Space { free_bytes: directory.free_bytes(), total_bytes })
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    file: SharedContent,
}

impl MemFile {
    /// Changes the file under the lock of the whole disk, so that copies and power cuts see one moment
    /// of all files. Growth beyond the volume is refused.
    fn edit(&self, edit: Edit) -> io::Result<()> {
        let directory = self.disk.inner.lock();
        let (end, len) = match &edit {
            Edit::Write(offset, bytes) => (offset + bytes.len(), self.file.lock().content.len()),
            Edit::Resize(bytes) => (*bytes, self.file.lock().content.len()),
        };
        let grown = end.saturating_sub(len) as u64;
        if grown > 0 && directory.free_bytes() < grown {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.lock().edit(edit);
        Ok(())
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.file.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.content.len());
        let n = buf.len().min(file.content.len() - start);
        buf[..n].copy_from_slice(&file.content[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.edit(Edit::Write(offset, bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if self.file.lock().content.len() < bytes { self.edit(Edit::Resize(bytes)) } else { Ok(()) }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.edit(Edit::Resize(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        let _moment = self.disk.inner.lock();
        let mut file = self.file.lock();
        let Content { durable, pending, .. } = &mut *file;
        for edit in pending.drain(..) {
            edit.apply(durable);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.lock().content.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_takes_unsynced_bytes_and_keeps_synced_ones() {
        let disk = MemDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_directory().unwrap();
        file.write_at(b"lost", 4).unwrap();
        assert_eq!(disk.content("a").unwrap(), b"keptlost");
        assert_eq!(disk.crash(&mut || false).content("a").unwrap(), b"kept");
        assert_eq!(disk.crash(&mut || true).content("a").unwrap(), b"keptlost");
    }

    #[test]
    fn a_rename_may_arrive_before_the_bytes_of_its_file() {
        let disk = MemDisk::new();
        let file = disk.create("new").unwrap();
        file.write_at(b"x", 0).unwrap();
        disk.rename("new", "old").unwrap();
        let mut answers = [true, true, false].into_iter();
        let survivor = disk.crash(&mut || answers.next().unwrap_or(false));
        assert_eq!(survivor.content("old").unwrap(), b"");
        assert_eq!(survivor.content("new"), None);
    }

    #[test]
    fn an_unsynced_directory_may_lose_its_newest_changes() {
        let disk = MemDisk::new();
        disk.create("a").unwrap();
        disk.sync_directory().unwrap();
        disk.remove("a").unwrap();
        assert!(disk.crash(&mut || false).content("a").is_some());
        assert!(disk.crash(&mut || true).content("a").is_none());
    }

    #[test]
    fn a_full_volume_refuses_growth_only() {
        let disk = MemDisk::new();
        disk.set_total_bytes(8);
        let file = disk.create("a").unwrap();
        file.allocate(8).unwrap();
        file.write_at(b"12345678", 0).unwrap();
        assert_eq!(file.write_at(b"9", 8).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
