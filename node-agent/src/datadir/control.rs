//! The control file of R1: what a member must remember, durable before anything relies on it.

use parking_lot::Mutex;
use std::sync::Arc;
use understudy_authority::ControlState;
use understudy_txlog::{SlotError, SlotFile, disk::Disk};

/// Name of the file in the store's directory on the data volume.
pub(super) const NAME: &str = "control";

/// Longest content in bytes: a state has about 300.
const CAPACITY: usize = 4000;

/// Handle to the control file of the store in use. When a duplicate takes the store's place, all
/// handles go over to its control file.
#[derive(Debug, Clone)]
pub struct ControlFile {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    slot: SlotFile,
    state: ControlState,
    /// Set once a duplicate took the place of the store: what its control file says about the store
    /// itself, whatever the old store's process still persists.
    adopted: Option<ControlState>,
    /// Whether going over broke off where nobody can say which of the two files counts.
    torn: bool,
}

/// How far a replacement got when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The old control file counts.
    Before,
    /// Which one counts is unknown until the next start.
    PerhapsAfter,
}

pub(super) fn slot(disk: &Arc<dyn Disk>) -> Result<SlotFile, SlotError> {
    SlotFile::open(disk, NAME, CAPACITY)
}

impl ControlFile {
    pub(super) fn new(slot: SlotFile, state: ControlState) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { slot, state, adopted: None, torn: false })) }
    }

    /// What was persisted last.
    #[must_use]
    pub fn get(&self) -> ControlState {
        self.inner.lock().state.clone()
    }

    /// Replaces the contents; durable when it returns.
    ///
    /// # Errors
    /// When the disk fails. What the file holds is unknown then, and the process must end.
    pub fn persist(&self, state: &ControlState) -> Result<(), SlotError> {
        let mut inner = self.inner.lock();
        if inner.torn {
            return Err(SlotError::Failed { file: NAME.to_owned() });
        }
        let state = match &inner.adopted {
            // What concerns the member counts; what concerns the old store does not.
            Some(new) => ControlState {
                dbid: new.dbid,
                store: new.store,
                acked_beyond_fsync: new.acked_beyond_fsync,
                poisoned: new.poisoned,
                promised: if new.promised.number > state.promised.number {
                    new.promised
                } else {
                    state.promised
                },
                ..state.clone()
            },
            None => state.clone(),
        };
        inner.slot.store(&state.encode())?;
        inner.state = state;
        Ok(())
    }

    /// Lets `replace` make another control file out of what this one says, and goes over to it.
    /// Nobody persists meanwhile, so no promise falls between the two.
    /// After a failure that leaves open which of them counts, nothing can be persisted any more.
    pub(super) fn go_over<E>(
        &self,
        replace: impl FnOnce(&ControlState) -> Result<(SlotFile, ControlState), (Reached, E)>,
    ) -> Result<ControlState, E> {
        let mut inner = self.inner.lock();
        match replace(&inner.state) {
            Ok((slot, state)) => {
                let adopted = Some(state.clone());
                *inner = Inner { slot, state: state.clone(), adopted, torn: false };
                Ok(state)
            }
            Err((reached, error)) => {
                inner.torn = reached == Reached::PerhapsAfter;
                Err(error)
            }
        }
    }
}
