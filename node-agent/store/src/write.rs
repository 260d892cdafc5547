//! Writing rows: insert, update, delete, lock.
//!
//! The order of one write: charge memory, take the row (or be told who has it), push the version,
//! remember the operation, keep the indexes up. A failure after the push undoes exactly this write.
//! Invariants: a writer has entered the table (its slot says so) before it touches a row, and from
//! then on the table's definition stands still until the transaction ends; a write is refused when
//! somebody committed the row after what the statement has read, unless the transaction has locked the
//! newest version since (`lock_newest`).

use crate::{
    counts::RowChanges,
    error::WriteError,
    heap::{Heap, Table},
    lock_wait::TxnId,
    memory::{Pool, ROW_BYTES},
    reference::Changed,
    row::{Row, RowId, VALUE_BYTES_MAX},
    store::{Inner, Store},
    sync::fence,
    table::TableId,
    txn::{Entered, Isolation, Kind, Operation, Txn},
    version::{Chain, RowCell, UNCOMMITTED},
};
use std::sync::{Arc, atomic::Ordering::SeqCst};

impl Store {
    /// Adds a row.
    ///
    /// # Errors
    /// See [`WriteError`]; the transaction is as before.
    pub fn insert(&self, txn: &mut Txn, table: TableId, row: Row) -> Result<RowId, WriteError> {
        let inner = &self.inner;
        let at = inner.enter(txn, table)?;
        let target = Arc::clone(table_of(txn, table)?);
        check_row(&target, &row)?;
        let bytes = ROW_BYTES + Inner::version_bytes(Some(&row));
        inner.accountant.charge(Pool::Permanent, bytes)?;
        let heap = &target.heap;
        heap.bytes.add(bytes);
        let id = heap.give_row_id();
        let cell = Arc::new(RowCell::new(id, txn.id, UNCOMMITTED, row.clone()));
        let charge = |bytes| inner.accountant.charge(Pool::Permanent, bytes);
        heap.put_cell(&cell, charge)
            .inspect_err(|_| heap.bytes.give_back(&inner.accountant, bytes))?;
        let before = txn.operations.len();
        let kind = Kind::Insert;
        let operation = Operation::Row { cell: Arc::clone(&cell), table: at, kind, first: true };
        let remembered = inner.remember(txn, operation);
        if let Err(error) = remembered {
            cell.chain.lock().pop();
            heap.take_cell(&inner.accountant, id);
            inner.release_versions(heap, 1, std::slice::from_ref(&row));
            return Err(error);
        }
        inner
            .keep_up(txn, &target, &cell, (None, &row))
            .inspect_err(|_| inner.undo(txn, before))?;
        if target.links.as_ref().is_some_and(|links| links.references) {
            let changed = Changed { table, row: id, old: None, new: Some(row) };
            inner.note(txn, changed).inspect_err(|_| inner.undo(txn, before))?;
        }
        Ok(id)
    }

    /// Replaces a row.
    ///
    /// # Errors
    /// See [`WriteError`]; the transaction is as before.
    pub fn update(
        &self,
        txn: &mut Txn,
        table: TableId,
        row: RowId,
        new: Row,
    ) -> Result<(), WriteError> {
        let inner = &self.inner;
        let at = inner.enter(txn, table)?;
        let target = Arc::clone(table_of(txn, table)?);
        check_row(&target, &new)?;
        let cell = find(txn, &target.heap, row)?;
        let before = txn.operations.len();
        let (old, keys) = inner.push(txn, (at, &target), &cell, Some(&new))?;
        if keys == Keys::Differ {
            inner
                .keep_up(txn, &target, &cell, (Some(&old), &new))
                .inspect_err(|_| inner.undo(txn, before))?;
        }
        inner
            .note_change(txn, &target, row, (old, Some(new)))
            .inspect_err(|_| inner.undo(txn, before))
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// See [`WriteError`]; the transaction is as before.
    pub fn delete(&self, txn: &mut Txn, table: TableId, row: RowId) -> Result<(), WriteError> {
        let inner = &self.inner;
        let at = inner.enter(txn, table)?;
        let target = Arc::clone(table_of(txn, table)?);
        let cell = find(txn, &target.heap, row)?;
        let before = txn.operations.len();
        let (old, _) = inner.push(txn, (at, &target), &cell, None)?;
        inner.note_change(txn, &target, row, (old, None)).inspect_err(|_| inner.undo(txn, before))
    }

    /// Takes a row's lock without changing it (SELECT … FOR UPDATE), and returns the row as it is.
    ///
    /// # Errors
    /// See [`WriteError`]; the transaction is as before.
    pub fn lock_row(&self, txn: &mut Txn, table: TableId, row: RowId) -> Result<Row, WriteError> {
        let inner = &self.inner;
        let at = inner.enter(txn, table)?;
        let target = Arc::clone(table_of(txn, table)?);
        let cell = find(txn, &target.heap, row)?;
        let (current, first) = {
            let mut chain = cell.chain.lock();
            let current = may_write(txn, table, row, &chain)?.clone();
            (current, chain.take(txn.id))
        };
        inner.remember_lock(txn, at, cell, first).map(|()| current)
    }

    /// Takes a row's lock as its newest committed version is, whatever the statement has read: for a
    /// READ COMMITTED statement that judges anew a row which changed under it. None when the row was
    /// deleted. Writes of the row are not refused as stale from here on.
    ///
    /// # Errors
    /// See [`WriteError`]; the transaction is as before.
    pub fn lock_newest(
        &self,
        txn: &mut Txn,
        table: TableId,
        row: RowId,
    ) -> Result<Option<Row>, WriteError> {
        let inner = &self.inner;
        let at = inner.enter(txn, table)?;
        let Some(cell) = table_of(txn, table)?.heap.cell(row) else { return Ok(None) };
        let (newest, first) = {
            let mut chain = cell.chain.lock();
            if let Some(on) = chain.held_by_other(txn.id) {
                return Err(WriteError::Blocked { on });
            }
            let Some(newest) = chain.newest.as_ref() else { return Ok(None) };
            if newest.stamp != UNCOMMITTED && newest.stamp > txn.snapshot {
                txn.depend_on(newest.stamp);
            }
            let Some(row) = newest.row.clone() else { return Ok(None) };
            (row, chain.take(txn.id))
        };
        inner.remember_lock(txn, at, cell, first).map(|()| Some(newest))
    }
}

/// Whether a new version has other keys than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    Same,
    Differ,
}

impl Inner {
    /// Makes the transaction a writer of the table; its position in `Txn::tables`.
    pub(crate) fn enter(&self, txn: &mut Txn, table: TableId) -> Result<u32, WriteError> {
        if let Some(at) = txn.tables.iter().position(|entered| entered.heap.id == table) {
            return Ok(at as u32);
        }
        self.make_writer(txn);
        let heap = Arc::clone(&table_of(txn, table)?.heap);
        // The announcement and the look at `changer` are the two halves of an agreement with
        // `ddl::take_table`, which writes `changer` and then looks at the announcements.
        txn.slot().enter_table(table);
        fence(SeqCst);
        let changer = heap.changer();
        let blocked = if changer != TxnId::ENDED && changer != txn.id && changer != txn.on_behalf {
            Some(changer)
        } else if !self.is_newest(txn, table) {
            Some(TxnId::ENDED)
        } else {
            None
        };
        if let Some(on) = blocked {
            // A changer that has seen the announcement must not wait for it to the end.
            txn.slot().leave_table(table);
            self.registry.note_release(txn.slot());
            return Err(WriteError::Blocked { on });
        }
        let changes = RowChanges::default();
        txn.tables.push(Entered { heap, hash_delta: None, changes });
        Ok(txn.tables.len() as u32 - 1)
    }

    /// Remembers a lock that was just taken, unless the transaction had the row before.
    fn remember_lock(
        &self,
        txn: &mut Txn,
        at: u32,
        cell: Arc<RowCell>,
        first: bool,
    ) -> Result<(), WriteError> {
        if !first {
            return Ok(());
        }
        let kind = Kind::Lock;
        let operation = Operation::Row { cell: Arc::clone(&cell), table: at, kind, first };
        self.remember(txn, operation).inspect_err(|_| {
            cell.chain.lock().locker = TxnId::ENDED;
        })
    }

    /// Gives the transaction an id when it has none.
    pub(crate) fn make_writer(&self, txn: &mut Txn) {
        if txn.id == TxnId::ENDED {
            txn.id = self.registry.give_id(txn.slot());
            txn.take_room();
        }
    }

    /// Whether the statement's definition of the table is still the newest.
    fn is_newest(&self, txn: &Txn, table: TableId) -> bool {
        if txn.state_is_own {
            return true;
        }
        let newest = self.state.load();
        match (newest.table(table), txn.state.table(table)) {
            (Some(newest), Some(used)) => Arc::ptr_eq(newest, used),
            (None, _) | (_, None) => false,
        }
    }

    /// Pushes a version in front of a row that the transaction may write, remembers the operation and
    /// returns the row as it was, and whether an index must be kept up.
    pub(crate) fn push(
        &self,
        txn: &mut Txn,
        (at, target): (u32, &Table),
        cell: &Arc<RowCell>,
        new: Option<&Row>,
    ) -> Result<(Row, Keys), WriteError> {
        let bytes = Inner::version_bytes(new);
        match new {
            Some(_) => self.accountant.charge(Pool::Permanent, bytes)?,
            None => self.accountant.charge_history(Pool::Permanent, bytes)?,
        }
        let pushed = {
            let mut chain = cell.chain.lock();
            let may = may_write(txn, target.def.id, cell.id, &chain)
                .and_then(|old| self.may_take_key(txn, target, cell, (old, new)));
            match may {
                Ok(old) => {
                    let old = old.clone();
                    let same = |i: &Arc<crate::index::IndexData>| {
                        new.is_none_or(|new| i.same_columns(&old, new))
                    };
                    let is_same = target.indexes.iter().all(same);
                    chain.moved |= !is_same;
                    let keys = if is_same { Keys::Same } else { Keys::Differ };
                    let first = chain.take(txn.id);
                    chain.push(UNCOMMITTED, new.cloned());
                    Ok((old, keys, first))
                }
                Err(error) => Err(error),
            }
        };
        let (old, keys, first) =
            pushed.inspect_err(|_| self.accountant.release(Pool::Permanent, bytes))?;
        target.heap.bytes.add(bytes);
        let kind = if new.is_some() { Kind::Update } else { Kind::Delete };
        let operation = Operation::Row { cell: Arc::clone(cell), table: at, kind, first };
        let remembered = self.remember(txn, operation);
        if let Err(error) = remembered {
            let mut chain = cell.chain.lock();
            let row = chain.pop();
            if first {
                chain.locker = TxnId::ENDED;
            }
            drop(chain);
            self.release_versions(&target.heap, 1, row.as_slice());
            return Err(error);
        }
        Ok((old, keys))
    }

    /// The old row, unless another transaction shares a key that the change takes away.
    fn may_take_key<'a>(
        &self,
        txn: &Txn,
        target: &Table,
        cell: &RowCell,
        (old, new): (&'a Row, Option<&Row>),
    ) -> Result<&'a Row, WriteError> {
        if let Some(links) = &target.links
            && links.takes_key(&target.def, old, new)
            && let Some(on) = self.shares.other((target.def.id, cell.id), txn.id)
        {
            return Err(WriteError::Blocked { on });
        }
        Ok(old)
    }

    /// Notes a change for the end of the statement, when foreign keys have a say in it.
    fn note_change(
        &self,
        txn: &mut Txn,
        target: &Table,
        row: RowId,
        (old, new): (Row, Option<Row>),
    ) -> Result<(), WriteError> {
        match &target.links {
            Some(links) if links.concerns(&target.def, &old, new.as_ref()) => {
                let table = target.def.id;
                self.note(txn, Changed { table, row, old: Some(old), new })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds index entries for a version that was just pushed.
    fn keep_up(
        &self,
        txn: &Txn,
        target: &Table,
        cell: &Arc<RowCell>,
        (old, new): (Option<&Row>, &Row),
    ) -> Result<(), WriteError> {
        let uniqueness = txn.uniqueness(old.is_some());
        for index in &target.indexes {
            if old.is_none_or(|old| !index.same_columns(old, new)) {
                index.add(&self.accountant, cell, new, uniqueness)?;
            }
        }
        Ok(())
    }
}

/// The statement's definition of a table.
pub(crate) fn table_of(txn: &Txn, table: TableId) -> Result<&Arc<Table>, WriteError> {
    txn.state
        .table(table)
        .ok_or_else(|| WriteError::Missing { what: format!("table number {}", table.0) })
}

fn find(txn: &Txn, heap: &Heap, row: RowId) -> Result<Arc<RowCell>, WriteError> {
    if let Some((table, cell)) = &*txn.last.lock()
        && (*table, cell.id) == (heap.id, row)
    {
        return Ok(Arc::clone(cell));
    }
    heap.cell(row).ok_or(WriteError::RowGone { table: heap.id, row })
}

/// Columns that the table has, and no null where it refuses them.
fn check_row(table: &Table, row: &Row) -> Result<(), WriteError> {
    let columns = &table.def.columns;
    if row.stored_columns() != columns.len() {
        let (got, want) = (row.stored_columns(), columns.len());
        let reason = format!("row of {got} columns for a table of {want}");
        return Err(WriteError::InvalidDefinition { reason });
    }
    if row.as_bytes().len() > VALUE_BYTES_MAX {
        check_lengths(table, row)?;
    }
    match row.refused_null(&table.def) {
        None => Ok(()),
        Some(at) => {
            let (table, column) = (table.def.name.clone(), columns[at].name.clone());
            Err(WriteError::NotNull { table, column })
        }
    }
}

/// No value that is too long, in a row that is long enough for one.
fn check_lengths(table: &Table, row: &Row) -> Result<(), WriteError> {
    for (i, column) in table.def.columns.iter().enumerate() {
        let bytes = row.raw(i).map_or(0, <[u8]>::len);
        if bytes > VALUE_BYTES_MAX {
            let (table, column) = (table.def.name.clone(), column.name.clone());
            return Err(WriteError::TooLong { table, column, bytes });
        }
    }
    Ok(())
}

/// The newest row, when the transaction may write it now.
fn may_write<'a>(
    txn: &Txn,
    table: TableId,
    row: RowId,
    chain: &'a Chain,
) -> Result<&'a Row, WriteError> {
    if let Some(on) = chain.held_by_other(txn.id) {
        return Err(WriteError::Blocked { on });
    }
    let gone = || WriteError::RowGone { table, row };
    let newest = chain.newest.as_ref().ok_or_else(gone)?;
    if newest.stamp != UNCOMMITTED {
        let (read, error) = match txn.isolation {
            Isolation::ReadCommitted => (txn.current, WriteError::Blocked { on: TxnId::ENDED }),
            Isolation::RepeatableRead | Isolation::Serializable => {
                (txn.snapshot, WriteError::Serialization)
            }
        };
        // Who holds the row has judged this version.
        if newest.stamp > read && chain.locker != txn.id {
            if error == WriteError::Serialization {
                txn.depend_on(newest.stamp);
            }
            return Err(error);
        }
        if newest.stamp > txn.snapshot {
            txn.depend_on(newest.stamp);
        }
    }
    newest.row.as_ref().ok_or_else(gone)
}
