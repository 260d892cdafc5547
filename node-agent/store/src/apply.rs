//! Applying another member's records, or one's own in recovery.
//!
//! One thread applies in LSN order; readers run beside it, because a record's versions carry its LSN,
//! which is above every snapshot until `set_visible` says otherwise. Uniqueness and nulls were checked
//! where the record was made and are not checked again; identity is (A3.6): an inserted row must be
//! new, a changed row must be here and alive. In a recovery that nobody reads beside, versions are replaced
//! where they lie (`replay`). Invariants: a record that is malformed or too large for the memory changes
//! nothing; `committed` moves last.

use crate::{
    counts::RowChanges,
    ddl,
    entry::Width,
    error::ApplyError,
    heap::{State, Table},
    index::Uniqueness,
    lock_wait::TxnId,
    memory::{Pool, ROW_BYTES, VERSION_BYTES},
    reclaim::Garbage,
    redo::{Change, Changes, Ddl, Malformed},
    row::{Row, RowId},
    store::{Inner, Store},
    table::TableId,
    version::{RowCell, row_hash},
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use understudy_types::Lsn;

/// One record on its way into the store.
struct Applier<'a> {
    inner: &'a Inner,
    lsn: Lsn,
    state: Arc<State>,
    /// Set when definitions have changed.
    changed: bool,
    replaced: Replaced,
    ahead: &'a mut Ahead,
}

/// Rows that were looked for before their changes came, in the order of the changes.
#[derive(Default)]
pub(crate) struct Ahead {
    pub(crate) rows: VecDeque<(TableId, RowId, Arc<RowCell>)>,
}

impl Ahead {
    /// The row, if it is the next one that was looked for.
    fn take(&mut self, table: TableId, row: RowId) -> Option<Arc<RowCell>> {
        let (_, _, cell) = self.rows.pop_front_if(|next| (next.0, next.1) == (table, row))?;
        Some(cell)
    }
}

/// What becomes of a version that a record replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// It waits for reclamation: a snapshot below the record may need it.
    Waits,
    /// As `Waits`, if the record fits into what statements may use, with the notes about all that waits: what
    /// is above that is for records whose replaced versions do not wait.
    WaitsWithinLimit,
    /// It goes at once, where no index has to be told: nobody will ever read below the record.
    Goes,
}

impl Store {
    /// Applies one transaction's record.
    ///
    /// # Errors
    /// See [`ApplyError`]: `OutOfMemory` can be tried again, after the others the store is unusable.
    pub fn apply(&self, lsn: Lsn, payload: &[u8]) -> Result<(), ApplyError> {
        self.inner.apply((lsn, payload), Replaced::Waits, &mut Ahead::default())
    }
}

impl Inner {
    pub(crate) fn apply(
        &self,
        (lsn, payload): (Lsn, &[u8]),
        replaced: Replaced,
        ahead: &mut Ahead,
    ) -> Result<(), ApplyError> {
        let committed = self.visibility.committed();
        if lsn <= committed {
            return Err(ApplyError::Order { lsn, committed });
        }
        let refused = |error| malformed(lsn, error);
        let mut changes = Changes::new(payload).map_err(refused)?;
        // Most records have one change, which is read once.
        let first = changes.next().map_err(refused)?;
        let state = self.state.load_full();
        let limit = match replaced {
            Replaced::WaitsWithinLimit => {
                self.accountant.limit(Pool::Permanent).saturating_sub(self.reclamation.bytes())
            }
            Replaced::Waits | Replaced::Goes => self.accountant.limit_of_history(Pool::Permanent),
        };
        let count = self.check_room((lsn, &state, limit), (first.as_ref(), changes.clone()))?;
        self.reclaim_share(count);
        let mut applier = Applier { inner: self, lsn, state, changed: false, replaced, ahead };
        let mut next = first;
        while let Some(change) = next {
            applier.apply(change)?;
            next = changes.next().map_err(refused)?;
        }
        if applier.changed {
            self.publish(applier.state.since(lsn));
        }
        self.visibility.commit(lsn);
        Ok(())
    }

    /// Reads the payload to the end behind its first change, so that a bad one changes nothing, and asks
    /// for the least memory that it is charged. Returns how many changes there are.
    fn check_room(
        &self,
        (lsn, state, limit): (Lsn, &State, u64),
        (first, mut changes): (Option<&Change<'_>>, Changes<'_>),
    ) -> Result<usize, ApplyError> {
        let mut room = Room { state, bytes: 0 };
        let mut count = 0;
        if let Some(first) = first {
            room.add(first);
            count += 1;
        }
        while let Some(change) = changes.next().map_err(|error| malformed(lsn, error))? {
            room.add(&change);
            count += 1;
        }
        let requested = room.bytes;
        let used = self.accountant.used(Pool::Permanent);
        if used.saturating_add(requested) > limit {
            return Err(ApplyError::OutOfMemory { lsn, requested, used, limit });
        }
        Ok(count)
    }
}

/// The least memory that a record is charged. Long keys, the entries of changed keys and new pages come
/// on top: a record that fitted where it was made is never refused for what it might take, and history has
/// an eighth above the limit for the rest.
struct Room<'a> {
    state: &'a State,
    bytes: u64,
}

impl Room<'_> {
    fn add(&mut self, change: &Change<'_>) {
        // A table that comes with the record itself has one index, as far as this is concerned.
        let entries = |id: TableId| {
            self.state.table(id).map_or(Width::Short.least(), |table| table.least_entries())
        };
        let version = |length| VERSION_BYTES + Row::heap_bytes_of(length);
        let rows = |id: TableId| {
            let count = |table: &Arc<Table>| table.heap.row_count.load(Relaxed);
            self.state.table(id).map_or(0, count)
        };
        self.bytes += match change {
            Change::Insert { table, bytes, .. } => {
                ROW_BYTES + version(bytes.len()) + entries(*table)
            }
            Change::Update { bytes, .. } => version(bytes.len()),
            Change::Delete { .. } => VERSION_BYTES,
            Change::Ddl(Ddl::Truncate(table)) => rows(*table) * VERSION_BYTES,
            Change::Ddl(Ddl::AddIndex(table, def)) if def.only.is_none() => {
                rows(*table) * Width::Short.least()
            }
            Change::Ddl(_) | Change::Token(_) => 0,
        };
    }
}

impl Applier<'_> {
    fn apply(&mut self, change: Change<'_>) -> Result<(), ApplyError> {
        match change {
            Change::Insert { table, row, bytes } => self.insert(table, row, bytes),
            Change::Update { table, row, bytes } => {
                let new = self.row(table, row, bytes)?;
                self.replace(table, row, Some(new))
            }
            Change::Delete { table, row } => self.replace(table, row, None),
            Change::Ddl(ddl) => self.ddl(ddl),
            Change::Token(token) => {
                self.inner.tokens.note(token, self.lsn);
                Ok(())
            }
        }
    }

    fn insert(&mut self, table: TableId, id: RowId, bytes: &[u8]) -> Result<(), ApplyError> {
        let row = self.row(table, id, bytes)?;
        let target = Arc::clone(self.table(table)?);
        if target.heap.cell(id).is_some() {
            return Err(self.contradiction(format!("row {} of table {} exists", id.0, table.0)));
        }
        let bytes = ROW_BYTES + Inner::version_bytes(Some(&row));
        self.inner.accountant.charge_always(Pool::Permanent, bytes);
        target.heap.bytes.add(bytes);
        let cell = Arc::new(RowCell::new(id, TxnId::ENDED, self.lsn, row.clone()));
        let charge = |bytes| {
            self.inner.accountant.charge_always(Pool::Permanent, bytes);
            Ok::<(), ApplyError>(())
        };
        target.heap.put_cell(&cell, charge)?;
        for index in &target.indexes {
            self.trusted(index.add(&self.inner.accountant, &cell, &row, Uniqueness::Trust))?;
        }
        target.heap.note_commit(self.lsn, row_hash(id, row.as_bytes()));
        target.heap.counts.add(RowChanges { inserted: 1, ..RowChanges::default() });
        Ok(())
    }

    fn replace(&mut self, table: TableId, id: RowId, new: Option<Row>) -> Result<(), ApplyError> {
        let target = Arc::clone(self.table(table)?);
        let Some(cell) = self.ahead.take(table, id).or_else(|| target.heap.cell(id)) else {
            return Err(
                self.contradiction(format!("row {} of table {} is not here", id.0, table.0))
            );
        };
        self.replace_cell(&target, cell, new)
    }

    fn replace_cell(
        &mut self,
        target: &Table,
        cell: Arc<RowCell>,
        new: Option<Row>,
    ) -> Result<(), ApplyError> {
        let (old, is_same) = {
            let mut chain = cell.chain.lock();
            let newest = chain.newest.as_ref().filter(|_| chain.locker == TxnId::ENDED);
            let Some(old) = newest.and_then(|v| v.row.clone()) else {
                drop(chain);
                let (row, table) = (cell.id.0, target.def.id.0);
                let reason = format!("row {row} of table {table} is deleted or locked");
                return Err(self.contradiction(reason));
            };
            let same = |new: &Row| target.indexes.iter().all(|i| i.same_columns(&old, new));
            let is_same = new.as_ref().is_none_or(same);
            if let Some(new) = new.as_ref().filter(|_| is_same && self.replaced == Replaced::Goes)
                && chain.replace_only(self.lsn, new)
            {
                drop(chain);
                self.note_replaced(target, cell.id, (&old, new));
                return Ok(());
            }
            chain.moved |= !is_same;
            chain.push(self.lsn, new.clone());
            target.heap.note_commit(self.lsn, chain.hash_delta(cell.id));
            (old, is_same)
        };
        let bytes = Inner::version_bytes(new.as_ref());
        self.inner.accountant.charge_always(Pool::Permanent, bytes);
        target.heap.bytes.add(bytes);
        if let Some(new) = new.as_ref().filter(|_| !is_same) {
            for index in target.indexes.iter().filter(|i| !i.same_columns(&old, new)) {
                self.trusted(index.add(&self.inner.accountant, &cell, new, Uniqueness::Trust))?;
            }
        }
        let mut changes = RowChanges { noted: 1, ..RowChanges::default() };
        changes.add(false, new.is_some());
        target.heap.counts.add(changes);
        let (lsn, table) = (self.lsn, target.def.id);
        // Nobody works it off before `committed` has come so far.
        self.inner.reclamation.notes().add(Garbage { lsn, table, cell, rows: Vec::new() });
        Ok(())
    }

    /// Accounts for a row whose only version was replaced where it lies.
    fn note_replaced(&self, target: &Table, id: RowId, (old, new): (&Row, &Row)) {
        let hash = |row: &Row| row_hash(id, row.as_bytes());
        target.heap.note_commit(self.lsn, hash(new).wrapping_sub(hash(old)));
        if new.heap_bytes() != old.heap_bytes() {
            let accountant = &self.inner.accountant;
            accountant.charge_always(Pool::Permanent, new.heap_bytes());
            target.heap.bytes.add(new.heap_bytes());
            target.heap.bytes.give_back(accountant, old.heap_bytes());
        }
        target.heap.counts.add(RowChanges { updated: 1, ..RowChanges::default() });
    }

    fn ddl(&mut self, change: Ddl) -> Result<(), ApplyError> {
        let mut state = (*self.state).clone();
        match change {
            Ddl::CreateTable(def) => {
                if !state.catalog.may_give(Some(def.id), &def.indexes) {
                    return Err(self.contradiction(format!("table {} is not new", def.id.0)));
                }
                self.trusted(ddl::check_definition(&def))?;
                state.put_table(ddl::new_table(def));
            }
            Ddl::AlterTable(def) => {
                let old = self.table(def.id)?;
                if old.def.indexes != def.indexes {
                    let reason = format!("table {} has other indexes", def.id.0);
                    return Err(self.contradiction(reason));
                }
                self.trusted(ddl::check_definition(&def))?;
                state.put_table(Table { def: Arc::new(def), ..(**old).clone() });
            }
            Ddl::DropTable(table) => {
                let old = Arc::clone(self.table(table)?);
                state.remove_table(table);
                self.inner.release_table(&old.heap);
            }
            Ddl::Truncate(table) => return self.truncate(table),
            Ddl::AddIndex(table, def) => {
                let old = self.table(table)?;
                if !state.catalog.may_give(None, std::slice::from_ref(&def)) {
                    return Err(self.contradiction(format!("index {} is not new", def.id.0)));
                }
                let changed = self.trusted(ddl::with_index(old, def))?;
                if let Some(index) = changed.indexes.last() {
                    self.trusted(self.inner.build(
                        &changed.heap,
                        index,
                        Uniqueness::Trust,
                        &|| Ok(()),
                    ))?;
                }
                state.put_table(changed);
            }
            Ddl::DropIndex(index) => {
                let Some(data) = state.index(index).cloned() else {
                    return Err(self.contradiction(format!("index {} is not here", index.0)));
                };
                let old = Arc::clone(self.table(data.table.id)?);
                state.put_table(ddl::without_index(&old, index));
                old.heap.kept_up.write().retain(|i| !Arc::ptr_eq(i, &data));
                data.bytes.give_back_all(&self.inner.accountant);
            }
            Ddl::PutUser(user) => state.catalog_mut().put_user(user),
            Ddl::DropUser(name) => state.catalog_mut().remove_user(&name),
        }
        self.state = Arc::new(state);
        self.changed = true;
        Ok(())
    }

    fn truncate(&mut self, table: TableId) -> Result<(), ApplyError> {
        let target = Arc::clone(self.table(table)?);
        let mut from = RowId(0);
        loop {
            let cells = target.heap.cells_from(from, 1024);
            let Some(last) = cells.last() else { return Ok(()) };
            from = RowId(last.id.0 + 1);
            for cell in cells.into_iter().filter(|cell| ddl::is_live(cell)) {
                self.replace_cell(&target, cell, None)?;
            }
        }
    }

    fn table(&self, table: TableId) -> Result<&Arc<Table>, ApplyError> {
        let missing = || self.contradiction(format!("table {} is not here", table.0));
        self.state.table(table).ok_or_else(missing)
    }

    fn row(&self, table: TableId, row: RowId, bytes: &[u8]) -> Result<Row, ApplyError> {
        Row::from_bytes(bytes).map_err(|error| {
            self.contradiction(format!("row {} of table {}: {error}", row.0, table.0))
        })
    }

    /// A step that only a contradiction can refuse.
    fn trusted<T>(&self, result: Result<T, crate::error::WriteError>) -> Result<T, ApplyError> {
        result.map_err(|error| self.contradiction(error.to_string()))
    }

    fn contradiction(&self, reason: String) -> ApplyError {
        ApplyError::Contradiction { lsn: self.lsn, reason }
    }
}

fn malformed(lsn: Lsn, Malformed { offset, reason }: Malformed) -> ApplyError {
    ApplyError::Malformed { lsn, offset, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{MemoryLimits, PAGE_BYTES},
        table::{ColumnDef, IndexDef, TableDef},
        txn::{Isolation, Txn},
        value::{DataType, Value},
    };
    use proptest::prelude::*;

    const LIMITS: MemoryLimits =
        MemoryLimits { permanent_bytes: 1 << 30, temporary_bytes: 1 << 20 };

    /// A store that makes records, and one that applies them.
    struct Pair {
        from: Store,
        to: Store,
        lsn: Lsn,
    }

    impl Pair {
        fn new() -> Pair {
            Pair { from: Store::new(LIMITS), to: Store::new(LIMITS), lsn: Lsn(0) }
        }

        /// What the record of a transaction asks for, and what it is charged.
        fn run(&mut self, work: impl FnOnce(&Store, &mut Txn)) -> (u64, u64) {
            let mut txn = self.from.begin(Isolation::ReadCommitted);
            work(&self.from, &mut txn);
            let record = self.from.redo(&txn);
            self.lsn = self.lsn.next();
            self.from.commit(txn, self.lsn);
            self.from.set_visible(self.lsn);
            let mut room = Room { state: &self.to.inner.state.load(), bytes: 0 };
            let mut changes = Changes::new(&record).unwrap();
            while let Some(change) = changes.next().unwrap() {
                room.add(&change);
            }
            let used = || self.to.inner.accountant.used(Pool::Permanent);
            let before = used();
            self.to.apply(self.lsn, &record).unwrap();
            (room.bytes, used() - before)
        }
    }

    fn table(columns: &[DataType]) -> TableDef {
        let names = ["k", "rest"];
        let columns = names.iter().zip(columns).map(|(name, t)| ColumnDef::new(*name, *t));
        TableDef::new("t", columns.collect()).with_primary_key(&[0])
    }

    #[test]
    fn rows_of_a_numbered_table_ask_for_what_they_are_charged() {
        let mut pair = Pair::new();
        let def = table(&[DataType::Int8, DataType::Bytea]);
        let mut id = TableId(0);
        pair.run(|store, txn| id = store.create_table(txn, def).unwrap());
        // One of the first page, and the others with two more.
        for count in [1u8, 130] {
            let (asked, charged) = pair.run(|store, txn| {
                for i in 0..count {
                    let k = i64::from(count) * 1000 + i64::from(i);
                    let long = Value::Bytes(vec![7; usize::from(count)].into());
                    store.insert(txn, id, Row::encode(&[Value::Int(k), long])).unwrap();
                }
            });
            // Pages are not asked for.
            let pages = if count == 1 { 1 } else { 2 };
            assert_eq!(asked + pages * PAGE_BYTES, charged);
        }
        let (asked, charged) = pair.run(|store, txn| store.truncate(txn, id).unwrap());
        assert_eq!((asked, charged), (131 * VERSION_BYTES, 131 * VERSION_BYTES));
    }

    proptest! {
        #[test]
        fn no_record_asks_for_more_than_it_is_charged(
            changes in proptest::collection::vec((0u64..90, "[a\\x00]{0,60}", 0u8..4), 1..80),
        ) {
            let mut pair = Pair::new();
            let mut id = TableId(0);
            let by_both = IndexDef::new("by_both", &[1, 0]);
            let def = table(&[DataType::Int8, DataType::Text]).with_index(by_both);
            pair.run(|store, txn| id = store.create_table(txn, def).unwrap());
            for changes in changes.chunks(7) {
                let (asked, charged) = pair.run(|store, txn| {
                    for (row, text, what) in changes {
                        let new = |k: i64| Row::encode(&[Value::Int(k), Value::text(text.as_str())]);
                        // Refused where the row is not there, or the key is.
                        let _ = match what {
                            0 => store.delete(txn, id, RowId(*row)),
                            1 => store.update(txn, id, RowId(*row), new(*row as i64 + 1000)),
                            _ => store.insert(txn, id, new(*row as i64)).map(|_| ()),
                        };
                    }
                });
                prop_assert!(asked <= charged, "{asked} of {charged}");
            }
        }
    }
}
