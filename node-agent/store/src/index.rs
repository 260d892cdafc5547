//! The indexes of a table.
//!
//! Keys of a unique index are the encoded columns; every other key ends with the row id, as do unique keys
//! with a null in them. An entry points to cells, not to versions:
//!
//! ```text
//!   accounts_pkey:  (1) → cell 17         (2) → cell 18, cell 40   (18 was deleted, 40 has the key now)
//!   by_branch:      (7)#17 → cell 17      (9)#17 → cell 17         (the row moved from 7 to 9)
//! ```
//! A row that an index leaves out (`IndexDef::only`) has the empty key, which is no entry's.
//! A reader asks the cell for the version that it sees and checks that this version has the entry's
//! key, so entries of old versions do no harm until reclamation takes them away.
//!
//! Invariants:
//! 1. A version's key is in the index from before its writer returns until after the last version
//!    with that key is gone.
//! 2. Adding and removing the entry of one key happen under that key's stripe; a stripe is taken
//!    before any cell's mutex, never after. Readers take neither.
//! 3. A unique key has at most one live row per moment: the check and the addition are one step
//!    under the stripe, and the new version lies in its cell before the check.

use crate::{
    counts::Tally,
    entry::Entries,
    error::WriteError,
    key::{self, KeyBytes, KeyRoom, Nulls},
    lock_wait::TxnId,
    memory::{Accountant, Pool, Share},
    row::{Row, RowId},
    sync::{AtomicU64, Mutex},
    table::{IndexDef, TableDef},
    value::ValueRef,
    version::{Reader, RowCell, UNCOMMITTED, Version},
};
use std::{
    collections::BTreeSet,
    slice,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use understudy_types::Lsn;

/// Locks per index; a power of two.
const STRIPES: usize = 64;

/// Whether an addition checks that the key is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uniqueness {
    /// A statement's write: refuse a key that a live row has, or may have soon.
    Check {
        /// The writer.
        me: TxnId,
        /// Its visible LSN, to tell whether a violation depends on a pending commit.
        visible: Lsn,
        /// Under READ COMMITTED, what the statement reads; `Lsn::MAX` under the other levels. A key
        /// whose owner changed after that is judged by the statement's next run, which can see it:
        /// so ON CONFLICT finds the row, and no statement sees a key twice.
        current: Lsn,
    },
    /// A replayed write: it was checked where it was made.
    Trust,
}

/// What came of the entry of a loaded row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// The index leaves the row out.
    LeftOut,
    /// It is there, and to be charged so much.
    Entry(u64),
    /// Another row has the key.
    Taken,
}

/// One index with its entries.
#[derive(Debug)]
pub(crate) struct IndexData {
    pub(crate) def: IndexDef,
    /// The table as it was when the index was made: it has all columns of the key.
    pub(crate) table: Arc<TableDef>,
    pub(crate) map: Entries,
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: Share,
    /// The most that a key can take.
    pub(crate) room: KeyRoom,
    /// Reads that were begun.
    pub(crate) scans: Tally,
    stripes: [Mutex<()>; STRIPES],
}

impl IndexData {
    pub(crate) fn new(def: IndexDef, table: Arc<TableDef>) -> IndexData {
        let room = KeyRoom::of(&table, &def.columns);
        IndexData {
            def,
            table,
            map: Entries::new(room.width),
            room,
            entries: AtomicU64::new(0),
            bytes: Share::default(),
            scans: Tally::default(),
            stripes: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    /// The whole key of a row in this index; empty, as no key is, when the row has no entry.
    pub(crate) fn key_of(&self, id: RowId, row: &Row) -> (KeyBytes, Nulls) {
        let mut out = KeyBytes::new();
        if let Some(only) = self.def.only
            && row.column_ref(&self.table, usize::from(only)) != ValueRef::Bool(true)
        {
            return (out, Nulls::Some);
        }
        let nulls = key::encode_row(row, &self.table, &self.def.columns, &mut out);
        if !self.def.unique || nulls == Nulls::Some {
            key::encode_row_id(id, &mut out);
        }
        (out, nulls)
    }

    /// Whether two rows have the same bytes in all that decides their keys (then they have the same key).
    pub(crate) fn same_columns(&self, a: &Row, b: &Row) -> bool {
        let is_same = |column: &u16| a.agrees(b, usize::from(*column));
        self.def.columns.iter().all(is_same) && self.def.only.as_ref().is_none_or(is_same)
    }

    /// Adds the entry of a version that lies in its cell already.
    pub(crate) fn add(
        &self,
        accountant: &Accountant,
        cell: &Arc<RowCell>,
        row: &Row,
        uniqueness: Uniqueness,
    ) -> Result<(), WriteError> {
        let (bytes, nulls) = self.key_of(cell.id, row);
        if bytes.is_empty() {
            return Ok(());
        }
        let _stripe = self.stripe(&bytes).lock();
        let mut cells = self.map.with(&bytes, <[_]>::to_vec).unwrap_or_default();
        if self.def.unique && nulls == Nulls::None {
            for other in cells.iter().filter(|other| !Arc::ptr_eq(other, cell)) {
                self.check_free(other, &bytes, uniqueness)?;
            }
        }
        if cells.iter().any(|c| Arc::ptr_eq(c, cell)) {
            return Ok(());
        }
        let cost = self.room.width.charge(bytes.len());
        match uniqueness {
            Uniqueness::Check { .. } => accountant.charge(Pool::Permanent, cost)?,
            Uniqueness::Trust => accountant.charge_always(Pool::Permanent, cost),
        }
        self.entries.fetch_add(1, Relaxed);
        self.bytes.add(cost);
        if cells.is_empty() {
            self.map.put(&bytes, slice::from_ref(cell));
        } else {
            cells.push(Arc::clone(cell));
            self.map.put(&bytes, &cells);
        }
        Ok(())
    }

    /// Adds the entry of a row that is loaded into a store which nobody else has yet; see `note_loaded`.
    pub(crate) fn load(&self, cell: &Arc<RowCell>, row: &Row) -> Loaded {
        let (bytes, _) = self.key_of(cell.id, row);
        if bytes.is_empty() {
            return Loaded::LeftOut;
        }
        if self.map.put(&bytes, slice::from_ref(cell)) {
            return Loaded::Taken;
        }
        Loaded::Entry(self.room.width.charge(bytes.len()))
    }

    /// Counts entries that were loaded, and what they are charged.
    pub(crate) fn note_loaded(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.add(bytes);
    }

    /// Removes the entries of versions that are gone, where no other version of the cell has the key.
    pub(crate) fn remove_unused(&self, accountant: &Accountant, cell: &Arc<RowCell>, gone: &[Row]) {
        let (seen, used) = {
            let chain = cell.chain.lock();
            let rows = chain.versions().filter_map(|v| v.row.as_ref());
            let used: BTreeSet<_> = rows.map(|row| self.key_of(cell.id, row).0.to_vec()).collect();
            (chain.newest_committed().map(|v| v.stamp), used)
        };
        let keys = gone.iter().map(|row| self.key_of(cell.id, row).0.to_vec());
        let stale: BTreeSet<_> =
            keys.filter(|key| !key.is_empty() && !used.contains(key)).collect();
        for key in stale {
            self.remove(accountant, cell, &key, seen);
        }
    }

    /// Removes one entry, unless a version came since `seen` was the newest committed stamp and has its key.
    fn remove(&self, accountant: &Accountant, cell: &Arc<RowCell>, key: &[u8], seen: Option<Lsn>) {
        let _stripe = self.stripe(key).lock();
        let used = {
            let chain = cell.chain.lock();
            // What stands from there on was looked at, and can only have become less.
            let later = chain.versions().take_while(|v| seen.is_none_or(|seen| v.stamp > seen));
            let mut rows = later.filter_map(|v| v.row.as_ref());
            rows.any(|row| *self.key_of(cell.id, row).0 == *key)
        };
        let Some(mut cells) = self.map.with(key, <[_]>::to_vec).filter(|_| !used) else { return };
        let before = cells.len();
        cells.retain(|c| !Arc::ptr_eq(c, cell));
        if cells.len() == before {
            return;
        }
        if cells.is_empty() {
            self.map.take(key);
        } else {
            self.map.put(key, &cells);
        }
        let cost = self.room.width.charge(key.len());
        self.entries.fetch_sub(1, Relaxed);
        self.bytes.give_back(accountant, cost);
    }

    /// A violation for a row, in the words of the user.
    pub(crate) fn violation(&self, row: &Row, depends: Lsn) -> WriteError {
        let columns = self.def.columns.iter().map(|c| usize::from(*c));
        let names: Vec<&str> =
            columns.clone().map(|c| self.table.columns[c].name.as_str()).collect();
        let values: Vec<String> =
            columns.map(|c| row.column_ref(&self.table, c).to_string()).collect();
        WriteError::UniqueViolation {
            index: self.def.name.clone(),
            key: format!("({})=({})", names.join(", "), values.join(", ")),
            depends,
        }
    }

    fn stripe(&self, key: &[u8]) -> &Mutex<()> {
        &self.stripes[xxhash_rust::xxh3::xxh3_64(key) as usize & (STRIPES - 1)]
    }

    /// Refuses when `other` has the key in its newest version, or had it before a change that may
    /// still be undone, or got or lost it after the statement began.
    fn check_free(
        &self,
        other: &RowCell,
        key: &[u8],
        uniqueness: Uniqueness,
    ) -> Result<(), WriteError> {
        let Uniqueness::Check { me, visible, current } = uniqueness else { return Ok(()) };
        let chain = other.chain.lock();
        let has_key = |version: Option<&Version>| {
            let row = version.and_then(|v| v.row.as_ref());
            row.is_some_and(|row| !chain.moved || *self.key_of(other.id, row).0 == *key)
        };
        let Some(newest) = chain.newest.as_ref() else { return Ok(()) };
        let committed = chain.newest_committed();
        let uncommitted = newest.stamp == UNCOMMITTED;
        if uncommitted && let Some(on) = chain.held_by_other(me) {
            let mut open = chain.versions().take_while(|v| v.stamp == UNCOMMITTED);
            if has_key(committed) || open.any(|v| has_key(Some(v))) {
                return Err(WriteError::Blocked { on });
            }
            return Ok(());
        }
        if !uncommitted && newest.stamp > current {
            let read = chain.visible(Reader { snapshot: current, own: TxnId::ENDED });
            if has_key(committed) || has_key(read) {
                return Err(WriteError::Blocked { on: TxnId::ENDED });
            }
        }
        match &newest.row {
            Some(row) if has_key(Some(newest)) => {
                let pending = !uncommitted && newest.stamp > visible;
                Err(self.violation(row, if pending { newest.stamp } else { Lsn::ZERO }))
            }
            Some(_) | None => Ok(()),
        }
    }
}
