//! A new store beside the one in use, and the moment it takes its place.
//!
//! ```text
//! prepare ─► checkpoint received and verified ─► control file ─► CURRENT.next ─► rename ─► mark removed
//!                                                                                   ▲
//!                        before it the old store is in use, after it the new one ───┘
//! ```

use super::{
    ControlFile, Current, DataDir, DataDirError, UNFINISHED,
    control::{self, Reached},
    failed, open_disk, remove_if_present, remove_tree, sync_directory,
};
use std::{fs::File, path::PathBuf, sync::Arc};
use understudy_authority::ControlState;
use understudy_txlog::{Disks, SlotFile, disk::Disk};
use understudy_types::{Dbid, EpochId, StoreId};

/// What a new store is, beyond what the member keeps from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adoption {
    /// The database of the checkpoint in it.
    pub dbid: Dbid,
    /// Epoch of the feeder it came from: the member promises at least it.
    pub epoch: EpochId,
}

/// A store that is being built.
pub struct NewStore {
    id: StoreId,
    data: PathBuf,
    path: PathBuf,
    /// Directory of control file and of what the building process must remember.
    disk: Arc<dyn Disk>,
    disks: Disks,
}

impl std::fmt::Debug for NewStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewStore").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DataDir {
    /// Begins a new store, or goes on with one that this process or an earlier one left unfinished.
    /// `fresh` is the identity of a store that begins now.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn prepare(&self, fresh: StoreId) -> Result<NewStore, DataDirError> {
        let unfinished = self.unfinished()?;
        let id = unfinished.first().copied().unwrap_or(fresh);
        let path = self.store_path(id);
        let disk = open_disk(&path)?;
        let mark = path.join(UNFINISHED);
        File::create(&mark).and_then(|f| f.sync_all()).map_err(failed("write", &mark))?;
        sync_directory(&path)?;
        let disks = self.disks(id)?;
        Ok(NewStore { id, data: self.data.clone(), path, disk, disks })
    }

    /// Removes half-built stores; nothing in them is anybody's only copy. Call it when the member
    /// follows without a duplicate.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn discard_unfinished(&self) -> Result<(), DataDirError> {
        for id in self.unfinished()? {
            // The log first: a store without its directory on the data volume is a stray.
            remove_tree(&self.log_path(id))?;
            remove_tree(&self.store_path(id))?;
        }
        sync_directory(&self.log)?;
        sync_directory(&self.data)
    }

    fn unfinished(&self) -> Result<Vec<StoreId>, DataDirError> {
        let current = Current::read(&self.data)?;
        let named = |id: &StoreId| {
            current.as_ref().is_some_and(|c| c.store == *id || c.replaces.contains(id))
        };
        let mut stores = self.stores(&self.data)?;
        stores.retain(|id| !named(id) && self.is_unfinished(*id));
        Ok(stores)
    }
}

impl NewStore {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Where its log and checkpoints will lie.
    #[must_use]
    pub fn disks(&self) -> Disks {
        self.disks.clone()
    }

    /// Directory for what the building process must remember across its own restarts.
    pub(crate) fn notes(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(super) fn create_control(&self, state: &ControlState) -> Result<ControlFile, DataDirError> {
        self.write_control(state).map(|slot| ControlFile::new(slot, state.clone()))
    }

    fn write_control(&self, state: &ControlState) -> Result<SlotFile, DataDirError> {
        let broken = |source| DataDirError::Control { path: self.path.clone(), source };
        let mut slot = control::slot(&self.disk).map_err(broken)?;
        slot.store(&state.encode()).map_err(broken)?;
        Ok(slot)
    }

    /// Takes the place of the store in use. The caller has verified what is in it. Everything that the
    /// member promised stays promised; `control` goes over to the new store.
    ///
    /// # Errors
    /// When the system refuses. The old store stays in use; if it is unclear whether it does, `control` refuses every further write, so that the process ends.
    pub fn adopt(
        self,
        control: &ControlFile,
        adoption: Adoption,
    ) -> Result<ControlState, DataDirError> {
        control.go_over(|old| {
            let new = self.successor(old, adoption);
            let before = |error| (Reached::Before, error);
            let slot = self.write_control(&new).map_err(before)?;
            self.write_current(old).map_err(before)?;
            Current::publish_next(&self.data).map_err(|e| (Reached::PerhapsAfter, e))?;
            if let Err(error) = self.remove_mark() {
                // The next start tries again; CURRENT counts, not the mark.
                tracing::warn!(%error, "the mark of an unfinished store stays");
            }
            Ok((slot, new))
        })
    }

    /// What the new store's control file says.
    pub(super) fn successor(&self, old: &ControlState, adoption: Adoption) -> ControlState {
        let mut new = ControlState {
            dbid: Some(adoption.dbid),
            store: self.id,
            acked_beyond_fsync: None,
            poisoned: false,
            ..old.clone()
        };
        new.raise_promise(adoption.epoch);
        new
    }

    fn write_current(&self, old: &ControlState) -> Result<(), DataDirError> {
        let mut replaces = Current::read(&self.data)?.map_or_else(Vec::new, |c| c.replaces);
        replaces.push(old.store);
        Current { store: self.id, replaces }.write_next(&self.data)
    }

    fn remove_mark(&self) -> Result<(), DataDirError> {
        remove_if_present(&self.path.join(UNFINISHED))?;
        sync_directory(&self.path)
    }

    /// The first `count` steps of [`NewStore::adopt`], for tests that end the process after each.
    #[cfg(test)]
    pub(super) fn adopt_partly(&self, old: &ControlState, adoption: Adoption, count: usize) {
        let new = self.successor(old, adoption);
        let write_control = || self.write_control(&new).map(drop);
        let write_current = || self.write_current(old);
        let publish = || Current::publish_next(&self.data);
        let remove_mark = || self.remove_mark();
        let steps: [&dyn Fn() -> Result<(), DataDirError>; 4] =
            [&write_control, &write_current, &publish, &remove_mark];
        for step in &steps[..count] {
            step().unwrap();
        }
    }
}
