//! A small file that is replaced whole and never lost: the control file of R1, and the log's probe.
//!
//! Two slots are written in turn, so that a torn write spoils only the slot whose `store` has not
//! returned. Each slot holds its content twice, in sectors of their own, so that one decayed sector
//! does not silently bring back the older slot: an older promise would be a broken one.
//!
//! ```text
//! slot 0, copy 0 · slot 0, copy 1 · slot 1, copy 0 · slot 1, copy 1      copies of whole 4096 bytes
//! copy: magic "UNDERSLT", version u32, CRC-32C u32, sequence u64, length u32, content, zeros
//! ```
//! **Invariants.** 1. When `store` has returned, `load` of a later process gives that content or a later
//! one. 2. A file that exists holds at least one good slot, else it is damaged, never "empty". 3. After a
//! failed write or fsync every further `store` is refused.
//!
//! Deliberately absent: the meaning of the content.

use crate::disk::{Disk, DiskFile, open_if_present, read_full_at, write_all_at};
use std::{io, sync::Arc};

const MAGIC: [u8; 8] = *b"UNDERSLT";
const FORMAT_VERSION: u32 = 1;
const HEAD_BYTES: usize = 28;
const SECTOR_BYTES: usize = 4096;
const COPIES: usize = 2;

/// Why a slot file could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The disk failed.
    #[error("failed to {operation} {file}")]
    Disk {
        /// What was attempted.
        operation: &'static str,
        /// File name.
        file: String,
        /// Answer of the system.
        #[source]
        source: io::Error,
    },
    /// No slot is readable. What the file said is unknown, which is not the same as nothing.
    #[error("{file} is damaged: none of its slots is readable")]
    Damaged {
        /// File name.
        file: String,
    },
    /// Written by another version of the format.
    #[error("{file} has format version {found}; this release reads version {FORMAT_VERSION}")]
    Version {
        /// File name.
        file: String,
        /// Version in the file.
        found: u32,
    },
    /// The content does not fit into a slot.
    #[error("{bytes} bytes do not fit into a slot of {file}, which takes {capacity}")]
    TooLong {
        /// File name.
        file: String,
        /// Length of the content.
        bytes: usize,
        /// Most that a slot takes.
        capacity: usize,
    },
    /// An earlier write or fsync failed; what the disk holds is unknown.
    #[error("an earlier write of {file} failed")]
    Failed {
        /// File name.
        file: String,
    },
}

/// See the module.
pub struct SlotFile {
    disk: Arc<dyn Disk>,
    name: String,
    copy_bytes: usize,
    /// `None` until the first store of a new file.
    file: Option<Box<dyn DiskFile>>,
    /// Sequence number of the current slot; zero before the first store.
    sequence: u64,
    slot: usize,
    content: Option<Vec<u8>>,
    failed: bool,
}

impl std::fmt::Debug for SlotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotFile")
            .field("name", &self.name)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

enum Copy {
    Good { sequence: u64, content: Vec<u8> },
    Version(u32),
    Bad,
}

fn encode(sequence: u64, content: &[u8], copy_bytes: usize) -> Vec<u8> {
    let mut out = vec![0; copy_bytes];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&sequence.to_le_bytes());
    // Fits: the caller has checked it against the size of a copy.
    out[24..28].copy_from_slice(&(content.len() as u32).to_le_bytes());
    out[HEAD_BYTES..HEAD_BYTES + content.len()].copy_from_slice(content);
    let checksum = crc32c::crc32c(&out);
    out[12..16].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Copy {
    let field =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes.len() < HEAD_BYTES || bytes[..8] != MAGIC {
        return Copy::Bad;
    }
    let mut unsigned = bytes.to_vec();
    unsigned[12..16].fill(0);
    if crc32c::crc32c(&unsigned) != field(12) {
        return Copy::Bad;
    }
    if field(8) != FORMAT_VERSION {
        return Copy::Version(field(8));
    }
    let sequence = u64::from(field(16)) | u64::from(field(20)) << 32;
    match bytes.get(HEAD_BYTES..HEAD_BYTES + field(24) as usize) {
        Some(content) => Copy::Good { sequence, content: content.to_vec() },
        None => Copy::Bad,
    }
}

impl SlotFile {
    /// Opens the file, or prepares to make it with the first store. `capacity` is the longest content
    /// in bytes; it stays the same for the life of the file.
    ///
    /// # Errors
    /// When the disk fails, or the file exists and no slot of it is readable.
    pub fn open(disk: &Arc<dyn Disk>, name: &str, capacity: usize) -> Result<SlotFile, SlotError> {
        let copy_bytes = (HEAD_BYTES + capacity).next_multiple_of(SECTOR_BYTES);
        let file = open_if_present(&**disk, name).map_err(|source| SlotError::Disk {
            operation: "open",
            file: name.to_owned(),
            source,
        })?;
        let mut opened = SlotFile {
            disk: Arc::clone(disk),
            name: name.to_owned(),
            copy_bytes,
            file,
            sequence: 0,
            slot: 1,
            content: None,
            failed: false,
        };
        opened.read_slots()?;
        Ok(opened)
    }

    fn read_slots(&mut self) -> Result<(), SlotError> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut other_version = None;
        for at in 0..2 * COPIES {
            let mut buf = vec![0; self.copy_bytes];
            let offset = (at * self.copy_bytes) as u64;
            let read = read_full_at(&**file, &mut buf, offset).map_err(|source| {
                SlotError::Disk { operation: "read", file: self.name.clone(), source }
            })?;
            match decode(&buf[..read]) {
                Copy::Good { sequence, content } if sequence > self.sequence => {
                    self.sequence = sequence;
                    self.slot = at / COPIES;
                    self.content = Some(content);
                }
                Copy::Good { .. } | Copy::Bad => {}
                Copy::Version(found) => other_version = Some(found),
            }
        }
        let file = self.name.clone();
        match (other_version, &self.content) {
            (Some(found), _) => Err(SlotError::Version { file, found }),
            (None, None) => Err(SlotError::Damaged { file }),
            (None, Some(_)) => Ok(()),
        }
    }

    /// The content last stored; `None` when nothing ever was.
    #[must_use]
    pub fn load(&self) -> Option<Vec<u8>> {
        self.content.clone()
    }

    /// Replaces the content; durable when it returns.
    ///
    /// # Errors
    /// When the content is too long, or the disk fails now or failed before.
    pub fn store(&mut self, content: &[u8]) -> Result<(), SlotError> {
        let file = || self.name.clone();
        if self.failed {
            return Err(SlotError::Failed { file: file() });
        }
        let capacity = self.copy_bytes - HEAD_BYTES;
        if content.len() > capacity {
            let bytes = content.len();
            return Err(SlotError::TooLong { file: file(), bytes, capacity });
        }
        let (sequence, slot) = (self.sequence + 1, 1 - self.slot);
        let copies = encode(sequence, content, self.copy_bytes).repeat(COPIES);
        let done = match &self.file {
            Some(open) => self.overwrite(&**open, slot, &copies),
            None => self.make(slot, &copies).map(|made| self.file = Some(made)),
        };
        if let Err(source) = done {
            self.failed = true;
            return Err(SlotError::Disk { operation: "write", file: self.name.clone(), source });
        }
        self.sequence = sequence;
        self.slot = slot;
        self.content = Some(content.to_vec());
        Ok(())
    }

    fn overwrite(&self, file: &dyn DiskFile, slot: usize, copies: &[u8]) -> io::Result<()> {
        write_all_at(file, copies, (slot * copies.len()) as u64)?;
        file.sync_data()
    }

    /// Makes the file under another name first: it never exists without a good slot.
    fn make(&self, slot: usize, copies: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        let partial = format!("{}.tmp", self.name);
        let file = match self.disk.create(&partial) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&partial)?,
            other => other?,
        };
        file.allocate(2 * copies.len() as u64)?;
        self.overwrite(&*file, slot, copies)?;
        self.disk.rename(&partial, &self.name)?;
        self.disk.sync_directory()?;
        self.disk.open(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Fault, FaultyDisk, MemDisk, Operation};
    use proptest::prelude::*;

    fn open(disk: &MemDisk) -> Result<SlotFile, SlotError> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        SlotFile::open(&disk, "control", 100)
    }

    #[test]
    fn nothing_stored_is_none_and_a_store_is_read_back() {
        let disk = MemDisk::new();
        let mut file = open(&disk).unwrap();
        assert_eq!(file.load(), None);
        for content in [&b"one"[..], b"two", b""] {
            file.store(content).unwrap();
            assert_eq!(open(&disk).unwrap().load().as_deref(), Some(content));
        }
        assert!(matches!(file.store(&[0; 5000]), Err(SlotError::TooLong { .. })));
    }

    #[test]
    fn a_decayed_sector_does_not_bring_back_the_older_content() {
        for copy in 0..4 {
            let disk = MemDisk::new();
            let mut file = open(&disk).unwrap();
            file.store(b"old").unwrap();
            file.store(b"new").unwrap();
            disk.invert_bits("control", copy * SECTOR_BYTES + 30, 1);
            assert_eq!(open(&disk).unwrap().load().unwrap(), b"new");
        }
    }

    #[test]
    fn a_file_without_a_good_slot_is_damaged_and_not_empty() {
        let disk = MemDisk::new();
        open(&disk).unwrap().store(b"x").unwrap();
        disk.invert_bits("control", 0, 1);
        disk.invert_bits("control", SECTOR_BYTES, 1);
        assert!(matches!(open(&disk), Err(SlotError::Damaged { .. })));
    }

    #[test]
    fn a_failed_store_ends_the_file() {
        let faulty = FaultyDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        let mut file = SlotFile::open(&disk, "control", 100).unwrap();
        file.store(b"one").unwrap();
        faulty.arm(Operation::Sync, "control", 0, Fault::IoError);
        assert!(matches!(file.store(b"two"), Err(SlotError::Disk { .. })));
        assert!(matches!(file.store(b"three"), Err(SlotError::Failed { .. })));
    }

    proptest! {
        #[test]
        fn a_power_cut_leaves_what_was_stored_last_or_what_was_being_stored(
            stored in 0u8..5, arrivals: [bool; 64],
        ) {
            let faulty = FaultyDisk::new();
            let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
            let mut file = SlotFile::open(&disk, "control", 3000).unwrap();
            for value in 0..stored {
                file.store(&[value; 2000]).unwrap();
            }
            // The content covers several sectors, of which any may arrive.
            faulty.arm(Operation::Sync, "control", 0, Fault::LostSync);
            file.store(&[stored; 2000]).unwrap();
            let mut arrivals = arrivals.into_iter();
            let after = faulty.mem().crash(&mut || arrivals.next().unwrap_or(false));
            let after: Arc<dyn Disk> = Arc::new(after);
            let found = SlotFile::open(&after, "control", 3000);
            // The very first store made the file; without its sync nothing about it is promised.
            if stored > 0 {
                let found = found.unwrap().load();
                prop_assert!(
                    found == Some(vec![stored - 1; 2000]) || found == Some(vec![stored; 2000])
                );
            }
        }
    }
}
