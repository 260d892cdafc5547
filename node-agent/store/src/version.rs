//! One row and its versions, newest first.
//!
//! ```text
//! RowCell 7 ── locker: T3 ── [uncommitted "c"] → [LSN 41 "b"] → [LSN 12 "a"]
//! ```
//! The cell's own small mutex is held for tens of nanoseconds by whoever looks at or changes the
//! chain; nothing is ever awaited or allocated in bulk under it.
//!
//! Invariants:
//! 1. Commit stamps decrease along the chain; uncommitted versions stand before all others and
//!    belong to `locker`.
//! 2. A row lock is `locker` alone: set without a new version by SELECT … FOR UPDATE.
//! 3. `moved` is set before a version whose key differs from its predecessor's can be seen in any
//!    index; while it is not set, every index entry of the cell fits every version.
//! 4. A chain is dropped in a loop, never by recursion: hot rows have long chains.

use crate::{
    lock_wait::TxnId,
    row::{Row, RowId},
    sync::Mutex,
};
use understudy_types::Lsn;

/// Stamp of a version whose transaction has not committed.
pub(crate) const UNCOMMITTED: Lsn = Lsn::MAX;

/// One state of a row.
#[derive(Debug)]
pub(crate) struct Version {
    /// Commit LSN, or `UNCOMMITTED`.
    pub(crate) stamp: Lsn,
    /// The columns; None when this version deletes the row.
    pub(crate) row: Option<Row>,
    /// The state before.
    pub(crate) older: Option<Box<Version>>,
}

/// All states of a row that somebody may still need.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The transaction that holds the row, or `TxnId::ENDED`.
    pub(crate) locker: TxnId,
    /// Whether versions may differ in some index's key.
    pub(crate) moved: bool,
    /// The round of reclamation that last trimmed it (see `reclaim`).
    pub(crate) trimmed_in: u32,
    /// Newest version, in the cell itself: the common read needs no further step. None for a cell that
    /// was undone or reclaimed.
    pub(crate) newest: Option<Version>,
}

/// The place of a row: identity, lock and versions. In this order, with the counter of its handles in front:
/// whoever reads that and the id has had all of it brought into the caches (see `rows::cells_at`).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RowCell {
    pub(crate) chain: Mutex<Chain>,
    pub(crate) id: RowId,
}

/// Hash of one row; a table's content hash is the sum of its rows'.
pub(crate) fn row_hash(id: RowId, bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(bytes, id.0)
}

/// Who reads, and as of when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    /// Versions with a stamp up to here are seen.
    pub(crate) snapshot: Lsn,
    /// The transaction whose own uncommitted versions are seen; `ENDED` for none.
    pub(crate) own: TxnId,
}

impl RowCell {
    /// A row with its first version.
    pub(crate) fn new(id: RowId, locker: TxnId, stamp: Lsn, row: Row) -> RowCell {
        let newest = Some(Version { stamp, row: Some(row), older: None });
        RowCell { id, chain: Mutex::new(Chain { locker, moved: false, trimmed_in: 0, newest }) }
    }
}

impl Chain {
    /// Versions, newest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        std::iter::successors(self.newest.as_ref(), |v| v.older.as_deref())
    }

    /// The version that the reader sees; it may be a deletion.
    pub(crate) fn visible(&self, reader: Reader) -> Option<&Version> {
        if self.locker == reader.own && reader.own != TxnId::ENDED {
            let newest = self.newest.as_ref()?;
            if newest.stamp == UNCOMMITTED {
                return Some(newest);
            }
        }
        self.versions().find(|v| v.stamp <= reader.snapshot)
    }

    /// The newest version that has committed, pending or not.
    pub(crate) fn newest_committed(&self) -> Option<&Version> {
        self.versions().find(|v| v.stamp != UNCOMMITTED)
    }

    /// Whether a transaction other than `me` has uncommitted versions or the lock.
    pub(crate) fn held_by_other(&self, me: TxnId) -> Option<TxnId> {
        (self.locker != TxnId::ENDED && self.locker != me).then_some(self.locker)
    }

    /// Gives the row to a transaction; whether it did not have it before.
    pub(crate) fn take(&mut self, by: TxnId) -> bool {
        std::mem::replace(&mut self.locker, by) != by
    }

    /// Puts a new version in front.
    pub(crate) fn push(&mut self, stamp: Lsn, row: Option<Row>) {
        let older = self.newest.take().map(Box::new);
        self.newest = Some(Version { stamp, row, older });
    }

    /// Replaces the row of the only version, which nobody reads any more; false when there are others.
    pub(crate) fn replace_only(&mut self, stamp: Lsn, row: &Row) -> bool {
        let only = self.newest.as_mut().filter(|version| version.older.is_none());
        let Some(version) = only else { return false };
        version.stamp = stamp;
        version.row = Some(row.clone());
        true
    }

    /// Takes the newest version back.
    pub(crate) fn pop(&mut self) -> Option<Row> {
        let newest = self.newest.take()?;
        self.newest = newest.older.map(|older| *older);
        newest.row
    }

    /// Commits the locker's versions as one, and lets the row go. Returns how many of its earlier
    /// versions of the same transaction went, which nobody can ever see, and their rows; None when the
    /// row was only locked.
    pub(crate) fn commit(&mut self, lsn: Lsn) -> Option<(u64, Vec<Row>)> {
        self.locker = TxnId::ENDED;
        let newest = self.newest.as_mut().filter(|v| v.stamp == UNCOMMITTED)?;
        newest.stamp = lsn;
        let mut never_seen = Vec::new();
        let mut count = 0;
        while newest.older.as_ref().is_some_and(|v| v.stamp == UNCOMMITTED) {
            let mut own = newest.older.take().expect("the loop's condition found it");
            newest.older = own.older.take();
            never_seen.extend(own.row.take());
            count += 1;
        }
        Some((count, never_seen))
    }

    /// What the newest version changes in the sum of the table's row hashes.
    pub(crate) fn hash_delta(&self, id: RowId) -> u128 {
        let hash = |version: Option<&Version>| {
            let row = version.and_then(|v| v.row.as_ref());
            row.map_or(0, |row| row_hash(id, row.as_bytes()))
        };
        let newest = self.newest.as_ref();
        hash(newest).wrapping_sub(hash(newest.and_then(|v| v.older.as_deref())))
    }

    /// Drops every version that no snapshot at or above `horizon` sees, hands out their rows and returns
    /// how many there were. A deletion that everybody sees goes too, and leaves an empty chain.
    pub(crate) fn trim(&mut self, horizon: Lsn, rows: &mut Vec<Row>) -> u64 {
        let mut count = 0;
        let mut drain = |mut next: Option<Box<Version>>| {
            while let Some(mut version) = next {
                next = version.older.take();
                rows.extend(version.row.take());
                count += 1;
            }
        };
        let mut at = self.newest.as_mut();
        while let Some(version) = at {
            if version.stamp <= horizon {
                drain(version.older.take());
                break;
            }
            at = version.older.as_deref_mut();
        }
        let dead = self.locker == TxnId::ENDED
            && self.newest.as_ref().is_some_and(|v| v.row.is_none() && v.stamp <= horizon);
        if dead {
            drain(self.newest.take().map(Box::new));
        }
        count
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let mut next = self.newest.take().and_then(|newest| newest.older);
        while let Some(mut version) = next {
            next = version.older.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn row(i: i64) -> Row {
        Row::encode(&[Value::Int(i)])
    }

    fn seen(chain: &Chain, snapshot: u64) -> Option<i64> {
        let reader = Reader { snapshot: Lsn(snapshot), own: TxnId::ENDED };
        chain.visible(reader).and_then(|v| v.row.as_ref()).and_then(|r| r.int(0))
    }

    #[test]
    fn a_snapshot_sees_the_newest_version_at_or_below_it() {
        let cell = RowCell::new(RowId(1), TxnId::ENDED, Lsn(5), row(1));
        let mut chain = cell.chain.lock();
        chain.push(Lsn(9), Some(row(2)));
        assert_eq!([seen(&chain, 4), seen(&chain, 8), seen(&chain, 9)], [None, Some(1), Some(2)]);
    }

    #[test]
    fn commit_keeps_one_version_of_a_transaction() {
        let cell = RowCell::new(RowId(1), TxnId::ENDED, Lsn(5), row(1));
        let mut chain = cell.chain.lock();
        chain.locker = TxnId(7);
        chain.push(UNCOMMITTED, Some(row(2)));
        chain.push(UNCOMMITTED, Some(row(3)));
        assert_eq!(chain.commit(Lsn(6)), Some((1, vec![row(2)])));
        assert_eq!((chain.versions().count(), seen(&chain, 6)), (2, Some(3)));
    }

    #[test]
    fn trimming_keeps_what_the_oldest_snapshot_sees() {
        let cell = RowCell::new(RowId(1), TxnId::ENDED, Lsn(1), row(1));
        let mut chain = cell.chain.lock();
        for lsn in 2..=9 {
            chain.push(Lsn(lsn), Some(row(lsn as i64)));
        }
        chain.push(Lsn(10), None);
        let mut rows = Vec::new();
        assert_eq!(chain.trim(Lsn(6), &mut rows), 5);
        assert_eq!(rows, [5, 4, 3, 2, 1].map(row));
        assert_eq!((seen(&chain, 6), seen(&chain, 9)), (Some(6), Some(9)));
        assert_eq!(chain.trim(Lsn(10), &mut rows), 5);
        assert!(chain.newest.is_none());
    }

    #[test]
    fn a_very_long_chain_is_dropped_without_recursion() {
        let cell = RowCell::new(RowId(1), TxnId::ENDED, Lsn(1), row(1));
        for lsn in 2..300_000 {
            cell.chain.lock().push(Lsn(lsn), Some(row(1)));
        }
        drop(cell);
    }
}
