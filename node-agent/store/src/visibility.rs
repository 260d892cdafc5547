//! Which commits a reader sees: the visible LSN, snapshots, and the horizon below which nothing is
//! read any more.
//!
//! ```text
//!   LSN   …  38   39   40   41   42   43
//!                      │         │
//!            visible ──┘         └── committed: 41 and 42 are pending (acknowledged later)
//! ```
//! Invariants:
//! 1. `acknowledged()` is the smaller of what was acknowledged (`set_visible`) and what is stamped
//!    (`committed`): an acknowledgement that overtakes the stamping of its own commit shows nothing
//!    half done. `visible()` is the same, but never below `base`, where a replay had no room for older
//!    states; until that is acknowledged, every transaction depends on it (`Txn::depends_lsn`).
//! 2. Both only grow, and commits are stamped in LSN order (law 10).
//! 3. A snapshot is announced before it is believed: announce, look again, repeat until nothing
//!    moved. Reclamation reads `visible` first and the announcements second, so either it sees the
//!    announcement or the reader sees a newer `visible` and announces again.

use crate::{
    lock_wait::{Registry, Slot},
    sync::AtomicU64,
};
use std::sync::atomic::Ordering::SeqCst;
use understudy_types::Lsn;

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A plain SELECT: the snapshot and the transaction's own changes.
    Committed,
    /// UPDATE, DELETE and SELECT … FOR UPDATE: under READ COMMITTED everything committed when the
    /// statement began, pending commits included, and the own changes; under the other levels the
    /// same as `Committed`. A row changed since then makes the write answer `Blocked` or
    /// `Serialization`.
    ForUpdate,
}

/// The marks that decide visibility.
#[derive(Debug)]
pub(crate) struct Visibility {
    acknowledged: AtomicU64,
    committed: AtomicU64,
    /// The oldest state that there is, when it may not be acknowledged; zero otherwise. Set before the store
    /// is shared.
    base: Lsn,
}

impl Visibility {
    pub(crate) fn new(lsn: Lsn) -> Visibility {
        Visibility { acknowledged: lsn.0.into(), committed: lsn.0.into(), base: Lsn::ZERO }
    }

    pub(crate) fn visible(&self) -> Lsn {
        self.acknowledged().max(self.base)
    }

    pub(crate) fn acknowledged(&self) -> Lsn {
        // The order of the two loads does not matter: both only grow, and the smaller of two past
        // readings is a mark that was visible at some moment.
        Lsn(self.acknowledged.load(SeqCst).min(self.committed.load(SeqCst)))
    }

    pub(crate) fn committed(&self) -> Lsn {
        Lsn(self.committed.load(SeqCst))
    }

    /// There is no older state any more.
    pub(crate) fn begin_at(&mut self, lsn: Lsn) {
        self.base = lsn;
    }

    /// Whether older states than `base` were given up.
    pub(crate) fn has_base(&self) -> bool {
        self.base > Lsn::ZERO
    }

    /// What every read depends on; zero when that is acknowledged.
    pub(crate) fn owed(&self) -> Lsn {
        // Asked by every transaction, most often where nothing was given up.
        if self.has_base() && self.base > self.acknowledged() { self.base } else { Lsn::ZERO }
    }

    pub(crate) fn acknowledge(&self, lsn: Lsn) {
        self.acknowledged.fetch_max(lsn.0, SeqCst);
    }

    pub(crate) fn commit(&self, lsn: Lsn) {
        self.committed.fetch_max(lsn.0, SeqCst);
    }

    /// Takes a snapshot that reclamation respects.
    pub(crate) fn snapshot(&self, slot: &Slot) -> Lsn {
        let mut snapshot = self.visible();
        loop {
            slot.announce(snapshot.0);
            let now = self.visible();
            if now == snapshot {
                return snapshot;
            }
            snapshot = now;
        }
    }

    /// Nothing below is read any more, except the newest state at it.
    pub(crate) fn horizon(&self, registry: &Registry) -> Lsn {
        let visible = self.visible();
        Lsn(visible.0.min(registry.oldest_snapshot()))
    }
}
