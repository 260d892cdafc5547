//! The two volumes of a member: which directory holds its store, who may use it, and how one store
//! takes the place of another.
//!
//! ```text
//! <data>/lock                     held for life, with the log volume's (R1)
//! <data>/CURRENT                  uuid of the store in use, then "replaces <uuid>" for each not yet retired
//! <data>/scheme                   what the operator said last (JSON)
//! <data>/disk-failed              when and how the disk failed last, for people
//! <data>/store-<uuid>/control     control file of R1
//! <data>/store-<uuid>/unfinished  only while a duplicate is being built
//! <data>/store-<uuid>/checkpoints/
//! <data>/trapped/                 tails above a fork, exported before they were cut (law 7)
//! <log>/store-<uuid>/             segments
//! <log>/trapped/store-<uuid>/     whole logs from which no tail could be exported
//! ```
//! **Invariants.** 1. `CURRENT` is replaced in one rename, after everything it names is durable.
//! 2. A store that `CURRENT` names, or replaces, is removed only by [`DataDir::retire`], after its
//! tail was exported. 3. A store without `CURRENT` counts as unfinished only if it says so itself or
//! never got a control file; any other stray is left alone and reported. 4. The promise survives a
//! duplicate: the new control file begins with what the old one says, and later writes go to the new
//! one ([`ControlFile`]).
//!
//! Deliberately absent: what is in the files of a store (`understudy_txlog`), and the decision to
//! build a duplicate or to cut (`node/`).

mod control;
mod current;
mod failure;
mod replace;
mod retire;
mod scheme;
#[cfg(test)]
mod tests;

pub use control::ControlFile;
pub use failure::DiskFailure;
pub use replace::{Adoption, NewStore};
pub use retire::{Retired, Trapped, trapped_name};

use current::Current;
use rustix::fs::FlockOperation;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use understudy_authority::{ControlError, ControlState};
use understudy_txlog::{
    Disks, SlotError,
    disk::{Disk, FsDisk},
};
use understudy_types::{Incarnation, MemberName, StoreId};
use uuid::Uuid;

const LOCK: &str = "lock";
const CHECKPOINTS: &str = "checkpoints";
/// Directory of logs when both volumes are one.
const LOG_BESIDE: &str = "log";
const TRAPPED: &str = "trapped";
const UNFINISHED: &str = "unfinished";
const STORE_PREFIX: &str = "store-";

/// Why the volumes cannot be used. Each names the path and the way out.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has the volume.
    #[error(
        "{path} is in use by another process of this member; it must end first (a second pod on the same volume?)"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The system refused something.
    #[error(
        "failed to {operation} {path}; check that the volume is mounted, writable and not full"
    )]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `CURRENT` cannot be understood.
    #[error(
        "{path} does not begin with the uuid of a store; write the uuid of the store directory to use into it"
    )]
    Current {
        /// The file.
        path: PathBuf,
    },
    /// There are stores but no `CURRENT`.
    #[error("{path} is missing although there are stores ({}); write the uuid of the one to use into it", stores.join(", "))]
    CurrentMissing {
        /// The file.
        path: PathBuf,
        /// Directories found.
        stores: Vec<String>,
    },
    /// `CURRENT` names a store without a directory or without a control file.
    #[error(
        "{path} is missing although CURRENT names its store; restore it, or empty both volumes to rejoin by a duplicate (only while the other voter holds every commit: the promise in it is lost)"
    )]
    StoreMissing {
        /// Directory or file.
        path: PathBuf,
    },
    /// The control file is damaged, or the disk failed.
    #[error(
        "the control file in {path} cannot be used; empty both volumes to rejoin by a duplicate (only while the other voter holds every commit: the promise in it is lost)"
    )]
    Control {
        /// Directory of the store.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: SlotError,
    },
    /// The control file is whole but of another version or kind.
    #[error("the control file in {path} cannot be read; run the version that wrote it")]
    Contents {
        /// Directory of the store.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ControlError,
    },
    /// The volume is another member's.
    #[error("{path} belongs to member {found}, not to {member}; mount this member's own volume")]
    Foreign {
        /// Directory of the store.
        path: PathBuf,
        /// This member.
        member: MemberName,
        /// Whose it is.
        found: MemberName,
    },
    /// The control file is another store's.
    #[error(
        "the control file in {path} is that of store {found}; the directory was copied or renamed by hand, give it back its name"
    )]
    Misplaced {
        /// Directory of the store.
        path: PathBuf,
        /// What it says.
        found: StoreId,
    },
    /// A store is in use already and cannot be made anew.
    #[error("{path} names a store already; a new one comes only from a duplicate")]
    NotEmpty {
        /// `CURRENT`.
        path: PathBuf,
    },
}

/// What the volumes hold.
#[derive(Debug)]
pub enum Contents {
    /// Nothing: [`DataDir::create`] makes the first store.
    Empty,
    /// A store.
    Present(StoreDir),
}

/// The store in use.
#[derive(Debug)]
pub struct StoreDir {
    /// Its identity.
    pub id: StoreId,
    /// Its control file. `poisoned` is set here when the log volume was lost or replaced.
    pub control: ControlFile,
    /// Stores that it replaced and that are not retired: pass each to [`DataDir::retire`] once this
    /// one has recovered.
    pub replaces: Vec<StoreId>,
    disks: Disks,
}

impl StoreDir {
    /// Counts this process's start, durably, and names it (R1). `id` is fresh.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn start(&self, id: Uuid) -> Result<Incarnation, SlotError> {
        let mut state = self.control.get();
        state.starts += 1;
        self.control.persist(&state)?;
        Ok(Incarnation { start: state.starts, id })
    }

    /// Where its log and checkpoints lie.
    #[must_use]
    pub fn disks(&self) -> Disks {
        self.disks.clone()
    }
}

/// Both volumes, locked for the life of this value.
#[derive(Debug)]
pub struct DataDir {
    data: PathBuf,
    log: PathBuf,
    member: MemberName,
    /// Held, never read.
    _locks: Vec<File>,
}

impl DataDir {
    /// Takes both volumes for this process. They may be one directory.
    ///
    /// # Errors
    /// When another process has one of them, or the system refuses.
    pub fn lock(data: &Path, log: &Path, member: MemberName) -> Result<Self, DataDirError> {
        let mut locks = Vec::new();
        let mut real = Vec::new();
        for volume in [data, log] {
            std::fs::create_dir_all(volume).map_err(failed("make", volume))?;
            let path = volume.canonicalize().map_err(failed("resolve", volume))?;
            if !real.contains(&path) {
                locks.push(take_lock(&path, &member)?);
                real.push(path);
            }
        }
        // In one volume the two directories of a store must not be one.
        let log = if real.len() == 1 { data.join(LOG_BESIDE) } else { log.to_owned() };
        std::fs::create_dir_all(&log).map_err(failed("make", &log))?;
        Ok(Self { data: data.to_owned(), log, member, _locks: locks })
    }

    /// The member that the volumes belong to.
    #[must_use]
    pub fn member(&self) -> &MemberName {
        &self.member
    }

    /// What is there. Tails that an earlier process exported are brought to `trapped/` first.
    ///
    /// # Errors
    /// When what is there cannot be used; nothing was removed then.
    pub fn open(&self) -> Result<Contents, DataDirError> {
        let Some(current) = Current::read(&self.data)? else {
            let stores: Vec<String> = self
                .stores(&self.data)?
                .into_iter()
                .filter(|id| !self.is_unfinished(*id))
                .map(store_name)
                .collect();
            if stores.is_empty() {
                return Ok(Contents::Empty);
            }
            return Err(DataDirError::CurrentMissing { path: Current::path(&self.data), stores });
        };
        let id = current.store;
        let directory = self.store_path(id);
        if !directory.is_dir() {
            return Err(DataDirError::StoreMissing { path: directory });
        }
        let log_is_lost = !self.log_path(id).is_dir();
        let control = self.open_control(id)?;
        let mut state = control.get();
        if log_is_lost && state.dbid.is_some() && !state.poisoned {
            tracing::error!(
                path = %self.log_path(id).display(),
                "the log of this store is gone with its volume; the member rejoins by a duplicate"
            );
            state.poisoned = true;
            control
                .persist(&state)
                .map_err(|source| DataDirError::Control { path: directory.clone(), source })?;
        }
        // The mark of a duplicate that became current and was interrupted at its last step.
        remove_if_present(&directory.join(UNFINISHED))?;
        self.report_strays(&current)?;
        let disks = self.disks(id)?;
        self.collect_trapped(id)?;
        Ok(Contents::Present(StoreDir { id, control, replaces: current.replaces, disks }))
    }

    /// Makes the first store of empty volumes; it holds no database yet.
    ///
    /// # Errors
    /// When there is one already, or the system refuses.
    pub fn create(&self, id: StoreId) -> Result<StoreDir, DataDirError> {
        if Current::read(&self.data)?.is_some() {
            return Err(DataDirError::NotEmpty { path: Current::path(&self.data) });
        }
        self.discard_unfinished()?;
        let new = self.prepare(id)?;
        let control = new.create_control(&ControlState::fresh(self.member.clone(), id))?;
        Current { store: id, replaces: Vec::new() }.write(&self.data)?;
        remove_if_present(&self.store_path(id).join(UNFINISHED))?;
        Ok(StoreDir { id, control, replaces: Vec::new(), disks: new.disks() })
    }

    /// Directory of a store on the data volume.
    fn store_path(&self, id: StoreId) -> PathBuf {
        self.data.join(store_name(id))
    }

    /// Directory of a store on the log volume.
    fn log_path(&self, id: StoreId) -> PathBuf {
        self.log.join(store_name(id))
    }

    /// Opens, or makes, the directories of a store.
    fn disks(&self, id: StoreId) -> Result<Disks, DataDirError> {
        Ok(Disks {
            log: open_disk(&self.log_path(id))?,
            data: open_disk(&self.store_path(id).join(CHECKPOINTS))?,
        })
    }

    fn open_control(&self, id: StoreId) -> Result<ControlFile, DataDirError> {
        let path = self.store_path(id);
        let disk = open_disk(&path)?;
        let slot = control::slot(&disk)
            .map_err(|source| DataDirError::Control { path: path.clone(), source })?;
        let Some(contents) = slot.load() else {
            return Err(DataDirError::StoreMissing { path: path.join(control::NAME) });
        };
        let state = ControlState::decode(&contents)
            .map_err(|source| DataDirError::Contents { path: path.clone(), source })?;
        if state.member != self.member {
            let (member, found) = (self.member.clone(), state.member);
            return Err(DataDirError::Foreign { path, member, found });
        }
        if state.store != id {
            return Err(DataDirError::Misplaced { path, found: state.store });
        }
        Ok(ControlFile::new(slot, state))
    }

    /// Stores that have a directory on this volume.
    fn stores(&self, volume: &Path) -> Result<Vec<StoreId>, DataDirError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(volume).map_err(failed("list", volume))? {
            let entry = entry.map_err(failed("list", volume))?;
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|n| n.strip_prefix(STORE_PREFIX))
                .and_then(|n| n.parse::<Uuid>().ok());
            found.extend(id.map(StoreId));
        }
        found.sort();
        Ok(found)
    }

    /// Whether a store that `CURRENT` does not name is half a duplicate (invariant 3).
    fn is_unfinished(&self, id: StoreId) -> bool {
        let path = self.store_path(id);
        path.join(UNFINISHED).exists() || !path.join(control::NAME).exists()
    }

    fn report_strays(&self, current: &Current) -> Result<(), DataDirError> {
        let strange = |id: &StoreId| *id != current.store && !current.replaces.contains(id);
        for id in self.stores(&self.data)?.into_iter().filter(strange) {
            if !self.is_unfinished(id) {
                let path = self.store_path(id);
                tracing::warn!(path = %path.display(), "a store that nothing names; look at it and move it away");
            }
        }
        for id in self.stores(&self.log)?.into_iter().filter(strange) {
            if !self.store_path(id).is_dir() {
                let path = self.log_path(id);
                tracing::warn!(path = %path.display(), "a log without its store; look at it and move it away");
            }
        }
        Ok(())
    }
}

fn take_lock(volume: &Path, member: &MemberName) -> Result<File, DataDirError> {
    let path = volume.join(LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirError::Locked { path }),
        Err(e) => return Err(failed("lock", &path)(e.into())),
    }
    // For people who look at the volume; nothing reads it.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{member} pid {}", std::process::id()))
        .map_err(failed("write", &path))?;
    Ok(file)
}

fn store_name(id: StoreId) -> String {
    format!("{STORE_PREFIX}{id}")
}

fn open_disk(path: &Path) -> Result<Arc<dyn Disk>, DataDirError> {
    match FsDisk::open(path) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(DataDirError::Locked { path: path.to_owned() })
        }
        Err(e) => Err(failed("open", path)(e)),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { operation, path, source }
}

/// Writes a whole file, durably but for its name.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed("write", path))
}

/// Puts a file, written beside it, in the place of another in `directory`: one atomic step, then durable.
fn put_in_place(directory: &Path, next: &str, name: &str) -> Result<(), DataDirError> {
    let path = directory.join(name);
    std::fs::rename(directory.join(next), &path).map_err(failed("replace", &path))?;
    sync_directory(directory)
}

/// Makes creates, renames and removes in a directory durable.
fn sync_directory(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(failed("sync", path))
}

fn remove_if_present(file: &Path) -> Result<(), DataDirError> {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", file)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory with all that is in it; an absent one is removed already.
fn remove_tree(path: &Path) -> Result<(), DataDirError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}
