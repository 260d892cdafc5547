//! Ordered maps, and the indexes built on them.
//!
//! [`OrderedIndex`] is all the store asks of an ordered map; artmap's radix tree is behind it. Keys of
//! a unique index are the encoded columns; every other key ends with the row id, as do unique keys
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
    error::WriteError,
    key::{self, Key, KeyBytes, KeyRoom, Nulls},
    lock_wait::TxnId,
    memory::{Accountant, ENTRY_BYTES, Pool, Share},
    row::{Row, RowId},
    sync::{AtomicU64, Mutex},
    table::{IndexDef, TableDef},
    value::ValueRef,
    version::{Reader, RowCell, UNCOMMITTED, Version},
};
use artmap::{ArtMap, AsBytes};
use std::{
    collections::BTreeSet,
    fmt,
    ops::Bound,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use understudy_types::Lsn;

/// Locks per index; a power of two.
const STRIPES: usize = 64;

/// An ordered map from byte strings that many threads read and write at once.
///
/// # Guarantees
/// A visit sees every key that is present during the whole visit exactly once and in order; keys that
/// come or go meanwhile may be seen or not. Readers do not wait for writers.
///
/// # Assumptions
/// Callbacks are short and do not call back into the map.
pub(crate) trait OrderedIndex<K, V> {
    /// Shows the value of a key.
    fn with<R>(&self, key: &[u8], show: impl FnOnce(&V) -> R) -> Option<R>;
    /// Puts a value, replacing the old one; whether there was one.
    fn put(&self, key: K, value: V) -> bool;
    /// Takes a key out; whether it was there.
    fn take(&self, key: &[u8]) -> bool;
    /// Shows the keys in `[from, to)` upwards until the callback answers false.
    fn visit(&self, from: &[u8], to: &[u8], show: impl FnMut(&[u8], &V) -> bool);
    /// The same downwards.
    fn visit_back(&self, from: &[u8], to: &[u8], show: impl FnMut(&[u8], &V) -> bool);
}

/// [`OrderedIndex`] on a radix tree.
pub(crate) struct Radix<K, V>(ArtMap<K, V>);

impl<K, V> Radix<K, V> {
    pub(crate) fn new() -> Radix<K, V> {
        Radix(ArtMap::default())
    }
}

impl<K, V> fmt::Debug for Radix<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Radix({} keys)", self.0.len())
    }
}

impl<K: AsBytes + Send + 'static, V: Send + 'static> OrderedIndex<K, V> for Radix<K, V> {
    fn with<R>(&self, key: &[u8], show: impl FnOnce(&V) -> R) -> Option<R> {
        self.0.get_by_slice(key).map(|entry| show(entry.value()))
    }

    fn put(&self, key: K, value: V) -> bool {
        self.0.insert(key, value).is_some()
    }

    fn take(&self, key: &[u8]) -> bool {
        self.0.remove_by_slice(key).is_some()
    }

    fn visit(&self, from: &[u8], to: &[u8], mut show: impl FnMut(&[u8], &V) -> bool) {
        if from < to {
            let guard = self.0.pin();
            let range = (Bound::Included(from), Bound::Excluded(to));
            for entry in self.0.range_with_guard::<_, [u8]>(range, &guard) {
                if !show(entry.key().as_bytes(), entry.value()) {
                    break;
                }
            }
        }
    }

    fn visit_back(&self, from: &[u8], to: &[u8], mut show: impl FnMut(&[u8], &V) -> bool) {
        if from < to {
            let guard = self.0.pin();
            let range = (Bound::Included(from), Bound::Excluded(to));
            for entry in self.0.range_with_guard::<_, [u8]>(range, &guard).rev() {
                if !show(entry.key().as_bytes(), entry.value()) {
                    break;
                }
            }
        }
    }
}

/// The cells of one key.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// The common case.
    One(Arc<RowCell>),
    /// Rows that had the unique key one after the other. Boxed, so that the common case is short.
    Many(Arc<Vec<Arc<RowCell>>>),
}

impl Entry {
    pub(crate) fn cells(&self) -> &[Arc<RowCell>] {
        match self {
            Entry::One(cell) => std::slice::from_ref(cell),
            Entry::Many(cells) => cells,
        }
    }

    fn from_cells(mut cells: Vec<Arc<RowCell>>) -> Option<Entry> {
        match cells.len() {
            0 => None,
            1 => cells.pop().map(Entry::One),
            _ => Some(Entry::Many(Arc::new(cells))),
        }
    }
}

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

/// One index with its entries.
#[derive(Debug)]
pub(crate) struct IndexData {
    pub(crate) def: IndexDef,
    /// The table as it was when the index was made: it has all columns of the key.
    pub(crate) table: Arc<TableDef>,
    pub(crate) map: Radix<Key, Entry>,
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
        IndexData {
            room: KeyRoom::of(&table, &def.columns),
            def,
            table,
            map: Radix::new(),
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
        let is_same = |&column: &u16| {
            let column = usize::from(column);
            let stored = column < a.stored_columns() && column < b.stored_columns();
            stored && a.raw(column) == b.raw(column)
        };
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
        let present = self.map.with(&bytes, Entry::clone);
        if let Some(entry) = &present
            && self.def.unique
            && nulls == Nulls::None
        {
            for other in entry.cells().iter().filter(|other| !Arc::ptr_eq(other, cell)) {
                self.check_free(other, &bytes, uniqueness)?;
            }
        }
        let entry = match present {
            Some(entry) if entry.cells().iter().any(|c| Arc::ptr_eq(c, cell)) => return Ok(()),
            Some(entry) => {
                let mut cells = entry.cells().to_vec();
                cells.push(Arc::clone(cell));
                Entry::Many(Arc::new(cells))
            }
            None => Entry::One(Arc::clone(cell)),
        };
        let cost = ENTRY_BYTES + Key::heap_bytes(bytes.len());
        match uniqueness {
            Uniqueness::Check { .. } => accountant.charge(Pool::Permanent, cost)?,
            Uniqueness::Trust => accountant.charge_always(Pool::Permanent, cost),
        }
        self.entries.fetch_add(1, Relaxed);
        self.bytes.add(cost);
        self.map.put(Key::new(&bytes), entry);
        Ok(())
    }

    /// Adds the entry of a row that is loaded into a store which nobody else has yet. Returns what it is to
    /// be charged; None when another row has the key.
    pub(crate) fn load(&self, cell: &Arc<RowCell>, row: &Row) -> Option<u64> {
        let (bytes, _) = self.key_of(cell.id, row);
        if bytes.is_empty() {
            return Some(0);
        }
        let cost = ENTRY_BYTES + Key::heap_bytes(bytes.len());
        self.entries.fetch_add(1, Relaxed);
        self.bytes.add(cost);
        let is_new = !self.map.put(Key::new(&bytes), Entry::One(Arc::clone(cell)));
        is_new.then_some(cost)
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
        let Some(entry) = self.map.with(key, Entry::clone).filter(|_| !used) else { return };
        let mut cells = entry.cells().to_vec();
        let before = cells.len();
        cells.retain(|c| !Arc::ptr_eq(c, cell));
        if cells.len() == before {
            return;
        }
        match Entry::from_cells(cells) {
            Some(rest) => {
                self.map.put(Key::new(key), rest);
            }
            None => {
                self.map.take(key);
            }
        }
        let cost = ENTRY_BYTES + Key::heap_bytes(key.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::size_class;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_entry_is_charged_what_allocators_give_out() {
        // With the map's own word in front.
        let leaf = 8 + size_of::<Key>() + size_of::<Entry>();
        assert_eq!((leaf, size_class(leaf as u64)), (48, 48));
        assert_eq!(ENTRY_BYTES, 48 + size_class(40 + 256 * 8) / 256);
    }

    proptest! {
        #[test]
        fn the_radix_tree_behaves_as_a_sorted_map(
            changes in proptest::collection::vec((any::<bool>(), 0u16..200), 1..300),
            from in 0u16..200,
            to in 0u16..200,
        ) {
            let radix = Radix::new();
            let mut model = BTreeMap::new();
            for (put, i) in changes {
                // Keys of two lengths, none a prefix of another.
                let bytes = if i % 3 == 0 {
                    [&[1], &i.to_be_bytes()[..], &[7; 30]].concat()
                } else {
                    [&[1], &i.to_be_bytes()[..], &[2]].concat()
                };
                if put {
                    prop_assert_eq!(radix.put(Key::new(&bytes), i), model.insert(bytes, i).is_some());
                } else {
                    prop_assert_eq!(radix.take(&bytes), model.remove(&bytes).is_some());
                }
            }
            let from = [&[1], &from.to_be_bytes()[..]].concat();
            let to = [&[1], &to.to_be_bytes()[..]].concat();
            let mut seen = Vec::new();
            radix.visit(&from, &to, |k, v| { seen.push((k.to_vec(), *v)); true });
            let mut expected: Vec<_> = if from < to {
                model.range(from.clone()..to.clone()).map(|(k, v)| (k.clone(), *v)).collect()
            } else {
                Vec::new()
            };
            prop_assert_eq!(&seen, &expected);
            seen.clear();
            radix.visit_back(&from, &to, |k, v| { seen.push((k.to_vec(), *v)); true });
            expected.reverse();
            prop_assert_eq!(seen, expected);
        }
    }
}
