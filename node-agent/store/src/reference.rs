//! What foreign keys demand of a statement's changes, looked at when the statement ends.
//!
//! Writers only note which rows they changed (`Txn::unchecked`). At the statement's end [`Store::settle`]
//! takes the notes in order: a referencing row must find its key and shares it, a referenced key that
//! went away must have nobody left who references it, or its referencing rows follow it. What follows is
//! an ordinary change, noted in its turn; so a cascade needs no recursion, and the log carries plain rows.
//!
//! ```text
//!   T1: INSERT child (7)                      T2: DELETE parent 7
//!   finds parent 7, shares its key            finds the share: waits for T1, or
//!     └─ or finds it deleted by T2: waits     has deleted it first
//! ```
//! Both look at the parent's row under its own mutex, so one of them comes second and waits for the
//! other. T1's share ends after its child is stamped: T2 sees the child, or T1 is still there.
//!
//! # What a check reads
//! Everything committed when the check begins, pending or not, and the own changes. Under the stricter
//! levels a referencing row finds its key in the transaction's snapshot, as in PostgreSQL; a key that
//! has gone since is `Serialization`. Rows that another transaction has not committed yet do not count:
//! they are checked by their own writer, who meets this transaction's lock or share. A violation that
//! rests on a pending version says so (`depends`, A2.9).
//!
//! # Caveats
//! Not here: deferred constraints. The notes of a statement are charged to temporary memory until its
//! transaction ends, the rows that follow one key while they do; a statement with too many is refused. A row that is locked by SELECT … FOR UPDATE or FOR SHARE keeps its
//! key from being shared, for row locks have one strength.

use crate::{
    error::WriteError,
    foreign_key::{ForeignKeyDef, ReferentialAction, same_columns},
    heap::Table,
    index::IndexData,
    key::{self, KeyBytes, Nulls},
    lock_wait::TxnId,
    memory::TemporaryMemory,
    row::{Row, RowId},
    store::{FREE, Inner, Store},
    table::{TableDef, TableId},
    txn::{Isolation, Operation, Txn},
    value::Value,
    version::{Reader, RowCell, UNCOMMITTED, Version},
    write::table_of,
};
use std::sync::Arc;
use understudy_types::Lsn;

/// Rows of a table without a fitting index, looked at in one go.
const BATCH: usize = 1024;
/// Above the rest of any key that begins alike.
const ABOVE: [u8; 9] = [0xff; 9];

/// A change that foreign keys have a say in, until its statement ends.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) table: TableId,
    pub(crate) row: RowId,
    /// None for an inserted row.
    pub(crate) old: Option<Row>,
    /// None for a deleted row.
    pub(crate) new: Option<Row>,
}

/// What the store asks of its user when rows follow a referenced key.
pub trait Consequences {
    /// How a consequence fails.
    type Error: From<WriteError>;

    /// The value of a column's DEFAULT.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn default(
        &mut self,
        txn: &Txn,
        table: &Arc<TableDef>,
        column: usize,
    ) -> Result<Value, Self::Error>;

    /// The row as it may be written: within the limits of its columns' types, no null where there may
    /// be none, all CHECKs met.
    ///
    /// # Errors
    /// When it may not be written.
    fn accept(&mut self, txn: &Txn, table: &Arc<TableDef>, row: Row) -> Result<Row, Self::Error>;

    /// Asked for each row that is checked or follows, and for as many as are searched at a time: a failure ends
    /// the statement.
    ///
    /// # Errors
    /// When somebody wants it to end.
    fn goes_on(&self, _rows: u64) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A row that references a key, and the stamp of that version.
type Referencing = (RowId, Row, Lsn);

/// Whether a referencing row has found its key.
enum Found {
    /// And keeps it until the transaction ends.
    Held,
    /// It is not there; the LSN of a pending commit that took it away, or zero.
    Absent(Lsn),
}

/// A foreign key about to be enforced on the rows that reference one key.
struct Enforced<'a> {
    child: Arc<Table>,
    parent: &'a Arc<Table>,
    key: ForeignKeyDef,
    /// The referenced row as it was.
    old: &'a Row,
    /// The referenced row as it is; None when it was deleted.
    new: Option<&'a Row>,
}

impl Txn {
    /// Whether the statement has changed rows that foreign keys have a say in: call `Store::settle`.
    #[must_use]
    pub fn has_unchecked(&self) -> bool {
        self.seldom.as_ref().is_some_and(|seldom| !seldom.unchecked.is_empty())
    }
}

impl Store {
    /// Ends a statement's changes: checks the foreign keys that they concern, and lets referencing
    /// rows follow. Called again after `Blocked`, it goes on where it stopped.
    ///
    /// # Errors
    /// `ForeignKeyViolation`, `Blocked`, or what a consequence met; undo the statement.
    pub fn settle<C: Consequences>(
        &self,
        txn: &mut Txn,
        consequences: &mut C,
    ) -> Result<(), C::Error> {
        let inner = &*self.inner;
        if txn.isolation == Isolation::ReadCommitted {
            // As if each check were a statement of its own, with a fresh look.
            txn.current = inner.visibility.committed();
        }
        while let Some(changed) = txn.seldom.as_ref().and_then(|s| s.unchecked.front()).cloned() {
            consequences.goes_on(1)?;
            let table = Arc::clone(table_of(txn, changed.table)?);
            inner.check_own_keys(txn, &table, &changed)?;
            let referrers = table.links.iter().flat_map(|links| &links.referrers);
            for (child, position) in referrers {
                let Some(old) = &changed.old else { break };
                let child = Arc::clone(table_of(txn, *child)?);
                let Some(key) = child.def.foreign_keys.get(*position).cloned() else { continue };
                let new = changed.new.as_ref();
                if new.is_none_or(|new| !same_columns(&table.def, &key.referenced, (old, new))) {
                    let enforced = Enforced { child, parent: &table, key, old, new };
                    self.enforce(txn, &enforced, consequences)?;
                }
            }
            txn.seldom().unchecked.pop_front();
        }
        Ok(())
    }

    /// Does what the foreign key says to the rows that reference a key that went away.
    fn enforce<C: Consequences>(
        &self,
        txn: &mut Txn,
        enforced: &Enforced<'_>,
        consequences: &mut C,
    ) -> Result<(), C::Error> {
        let Enforced { child, key, new, .. } = enforced;
        let action = if new.is_none() { key.on_delete } else { key.on_update };
        if matches!(action, ReferentialAction::NoAction | ReferentialAction::Restrict) {
            return self.inner.refuse_referenced(txn, enforced, action, consequences);
        }
        let (rows, _memory) = self.inner.referencing(txn, enforced, usize::MAX, consequences)?;
        for (id, row, _) in rows {
            consequences.goes_on(1)?;
            let Some(row) = self.still_referencing(txn, enforced, (id, row))? else { continue };
            let changes: Vec<(usize, Value)> = match (action, new) {
                (ReferentialAction::Cascade, None) => {
                    self.delete(txn, child.def.id, id)?;
                    continue;
                }
                (ReferentialAction::Cascade, Some(new)) => key
                    .columns
                    .iter()
                    .zip(&key.referenced)
                    .map(|(to, from)| {
                        let value = new.column(&enforced.parent.def, usize::from(*from));
                        (usize::from(*to), value)
                    })
                    .collect(),
                (ReferentialAction::SetDefault, _) => {
                    let mut changes = Vec::with_capacity(key.columns.len());
                    for column in key.columns.iter().map(|column| usize::from(*column)) {
                        let value = consequences.default(txn, &child.def, column)?;
                        changes.push((column, value));
                    }
                    changes
                }
                (_, _) => key.columns.iter().map(|c| (usize::from(*c), Value::Null)).collect(),
            };
            let row = row.replace(&child.def, &changes);
            let row = consequences.accept(txn, &child.def, row)?;
            self.update(txn, child.def.id, id, row)?;
        }
        if action == ReferentialAction::SetDefault {
            // A default that is the key which went away leaves the row as it was, and unnoticed.
            let action = ReferentialAction::NoAction;
            self.inner.refuse_referenced(txn, enforced, action, consequences)?;
        }
        Ok(())
    }

    /// The referencing row as it is now, held by the transaction; None when it has gone, or references
    /// another key since it was found.
    fn still_referencing(
        &self,
        txn: &mut Txn,
        enforced: &Enforced<'_>,
        (id, row): (RowId, Row),
    ) -> Result<Option<Row>, WriteError> {
        if txn.isolation != Isolation::ReadCommitted {
            return Ok(Some(row));
        }
        let def = &enforced.child.def;
        let newest = self.lock_newest(txn, def.id, id)?;
        Ok(newest.filter(|newest| same_columns(def, &enforced.key.columns, (&row, newest))))
    }
}

impl Inner {
    /// Checks the foreign keys of a row that was inserted, or changed in their columns.
    fn check_own_keys(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        changed: &Changed,
    ) -> Result<(), WriteError> {
        let Some(new) = &changed.new else { return Ok(()) };
        for key in &table.def.foreign_keys {
            let unchanged = |old: &Row| same_columns(&table.def, &key.columns, (old, new));
            if changed.old.as_ref().is_some_and(unchanged) {
                continue;
            }
            // A row that was changed again, or is gone, is looked at under its later note.
            if !is_present(txn, table, changed.row, (key, new)) {
                continue;
            }
            self.check_reference(txn, table, (key, new))?;
        }
        Ok(())
    }

    /// Finds the key that a row references, and shares it.
    pub(crate) fn check_reference(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        (key, row): (&ForeignKeyDef, &Row),
    ) -> Result<(), WriteError> {
        let is_null = |column: &&u16| row.column_ref(&table.def, usize::from(**column)).is_null();
        let nulls = key.columns.iter().filter(is_null).count();
        if nulls > 0 {
            if key.match_full && nulls < key.columns.len() {
                let detail = "MATCH FULL does not allow mixing of null and nonnull key values.";
                return Err(not_present(&table.def, key, (detail.to_owned(), Lsn::ZERO)));
            }
            return Ok(());
        }
        let parent = Arc::clone(table_of(txn, key.references)?);
        let values = |columns: &[u16]| -> Vec<Value> {
            columns.iter().map(|column| row.column(&table.def, usize::from(*column))).collect()
        };
        match self.hold_key(txn, &parent, (key, values))? {
            Found::Held => Ok(()),
            Found::Absent(depends) => {
                let shown = shown(&table.def, &key.columns, row);
                let detail =
                    format!("Key {shown} is not present in table \"{}\".", parent.def.name);
                Err(not_present(&table.def, key, (detail, depends)))
            }
        }
    }

    /// Looks a referenced key up and shares it. The values come in the order of the index.
    fn hold_key(
        &self,
        txn: &mut Txn,
        parent: &Arc<Table>,
        (key, values): (&ForeignKeyDef, impl Fn(&[u16]) -> Vec<Value>),
    ) -> Result<Found, WriteError> {
        let Some((index, columns)) = key.served_by(parent) else {
            let reason = format!("foreign key \"{}\" references no unique index", key.name);
            return Err(WriteError::InvalidDefinition { reason });
        };
        self.enter(txn, parent.def.id)?;
        // Nobody else writes a table whose definition this transaction changes.
        let is_alone = parent.heap.changer() == txn.id;
        let mut bytes = KeyBytes::new();
        key::encode_values(&values(&columns), &parent.def, &index.def.columns, &mut bytes);
        let mut depends = Lsn::ZERO;
        for cell in index.map.cells(&bytes) {
            match self.hold_cell(txn, (&index, is_alone), &cell, &bytes)? {
                Found::Held => return Ok(Found::Held),
                Found::Absent(pending) => depends = depends.max(pending),
            }
        }
        Ok(Found::Absent(depends))
    }

    /// Shares a row's key, when the row has it and nobody is about to take it away.
    fn hold_cell(
        &self,
        txn: &mut Txn,
        (index, is_alone): (&IndexData, bool),
        cell: &Arc<RowCell>,
        bytes: &[u8],
    ) -> Result<Found, WriteError> {
        let place = (index.table.id, cell.id);
        let is_new = {
            let chain = cell.chain.lock();
            let has_key = |version: &Version| {
                let row = version.row.as_ref();
                row.is_some_and(|row| !chain.moved || *index.key_of(cell.id, row).0 == *bytes)
            };
            let open = || chain.versions().take_while(|v| v.stamp == UNCOMMITTED);
            let is_open = open().next().is_some();
            let committed = chain.newest_committed();
            let other = chain.held_by_other(txn.id);
            if is_open && other.is_none() {
                // The own version: nobody else changes it before this transaction ends.
                let held = chain.newest.as_ref().is_some_and(has_key);
                return Ok(if held { Found::Held } else { Found::Absent(Lsn::ZERO) });
            }
            let stamp = committed.map_or(Lsn::ZERO, |version| version.stamp);
            let pending = if stamp > txn.snapshot { stamp } else { Lsn::ZERO };
            let is_now = committed.is_some_and(has_key);
            let was_read = match txn.isolation {
                _ if is_alone => is_now,
                Isolation::ReadCommitted => is_now,
                Isolation::RepeatableRead | Isolation::Serializable => {
                    let reader = Reader { snapshot: txn.snapshot, own: TxnId::ENDED };
                    chain.visible(reader).is_some_and(has_key)
                }
            };
            match (was_read, is_now) {
                (true, true) => {}
                (true, false) => {
                    txn.depend_on(stamp);
                    return Err(WriteError::Serialization);
                }
                // A commit that is being stamped may have given the key to another row.
                (false, false)
                    if txn.isolation == Isolation::ReadCommitted && stamp > txn.current =>
                {
                    return Err(WriteError::Blocked { on: TxnId::ENDED });
                }
                (false, _) => return Ok(Found::Absent(pending)),
            }
            if let Some(on) = other
                && !(is_open && open().all(has_key))
            {
                return Err(WriteError::Blocked { on });
            }
            !is_alone && self.shares.add(place, txn.id)
        };
        if is_new {
            let remembered = self.remember(txn, Operation::Share(place.0, place.1));
            remembered.inspect_err(|_| self.shares.remove(place, txn.id))?;
        }
        Ok(Found::Held)
    }

    /// Refuses when rows still reference a key that went away.
    fn refuse_referenced<C: Consequences>(
        &self,
        txn: &mut Txn,
        enforced: &Enforced<'_>,
        action: ReferentialAction,
        consequences: &C,
    ) -> Result<(), C::Error> {
        let Enforced { child, parent, key, old, .. } = enforced;
        let (rows, _) = self.referencing(txn, enforced, 1, consequences)?;
        let Some((_, _, stamp)) = rows.first() else { return Ok(()) };
        if action == ReferentialAction::NoAction {
            // Another row may have taken the key over in the same statement.
            let counterpart = |column: &u16| {
                let at = key.columns.iter().position(|own| own == column)?;
                Some(old.column(&parent.def, usize::from(*key.referenced.get(at)?)))
            };
            let values = |columns: &[u16]| -> Vec<Value> {
                columns.iter().filter_map(counterpart).collect()
            };
            if matches!(self.hold_key(txn, parent, (key, values))?, Found::Held) {
                return Ok(());
            }
        }
        let is_pending = *stamp > txn.snapshot && *stamp != UNCOMMITTED;
        let (parent_name, child_name) = (&parent.def.name, &child.def.name);
        Err(C::Error::from(WriteError::ForeignKeyViolation {
            message: format!(
                "update or delete on table \"{parent_name}\" violates foreign key constraint \
                 \"{}\" on table \"{child_name}\"",
                key.name
            ),
            detail: format!(
                "Key {} is still referenced from table \"{child_name}\".",
                shown(&parent.def, &key.referenced, old)
            ),
            depends: if is_pending { *stamp } else { Lsn::ZERO },
        }))
    }

    /// Up to `most` rows that reference a key as of now, and when they came to be as they are; with the
    /// temporary memory that they hold when they are many.
    fn referencing<C: Consequences>(
        &self,
        txn: &mut Txn,
        Enforced { child, parent, key, old, .. }: &Enforced<'_>,
        most: usize,
        consequences: &C,
    ) -> Result<(Vec<Referencing>, TemporaryMemory), C::Error> {
        let mut memory = TemporaryMemory::new(Arc::clone(&self.accountant));
        let is_null = |column: &u16| old.column_ref(&parent.def, usize::from(*column)).is_null();
        if key.referenced.iter().any(is_null) {
            return Ok((Vec::new(), memory));
        }
        self.enter(txn, child.def.id)?;
        let value = |column: &u16| old.column(&parent.def, usize::from(*column));
        let values: Vec<Value> = key.referenced.iter().map(value).collect();
        let mut wanted = KeyBytes::new();
        key::encode_values(&values, &child.def, &key.columns, &mut wanted);
        let mut found: Vec<Referencing> = Vec::new();
        let mut failed: Option<C::Error> = None;
        // Whether to look further.
        let mut look = |cells: &[Arc<RowCell>]| -> bool {
            failed = consequences.goes_on(cells.len() as u64).err();
            failed.is_none()
                && cells.iter().all(|cell| {
                    let looked = referencing_row(txn.id, child, cell, (&key.columns, &wanted));
                    let kept = looked.and_then(|row| {
                        if row.is_some() && found.len() >= FREE && found.len() == found.capacity() {
                            memory.grow((found.len() * size_of::<Referencing>()) as u64)?;
                        }
                        found.extend(row);
                        Ok(())
                    });
                    failed = kept.err().map(C::Error::from);
                    failed.is_none() && found.len() < most
                })
        };
        match leading_index(child, &key.columns) {
            Some(index) => {
                let ordered: Vec<Value> = index.def.columns[..key.columns.len()]
                    .iter()
                    .filter_map(|column| key.columns.iter().position(|own| own == column))
                    .map(|at| values[at].clone())
                    .collect();
                let mut from = KeyBytes::new();
                key::encode_values(&ordered, &child.def, &index.def.columns, &mut from);
                let to = [&from[..], &ABOVE].concat();
                index.map.visit(&from, &to, |_, cells| look(cells));
            }
            None => {
                let mut from = RowId(0);
                loop {
                    let cells = child.heap.cells_from(from, BATCH);
                    let Some(last) = cells.last() else { break };
                    from = RowId(last.id.0 + 1);
                    if !look(&cells) {
                        break;
                    }
                }
            }
        }
        // A row that moved between keys may have been met under several of them.
        found.sort_unstable_by_key(|(id, ..)| *id);
        found.dedup_by_key(|(id, ..)| *id);
        failed.map_or(Ok((found, memory)), Err)
    }

    /// Whether every row of a table, as it is now, finds the key of a new foreign key. The caller keeps
    /// everybody else from writing both tables.
    pub(crate) fn check_rows(
        &self,
        txn: &mut Txn,
        table: &Arc<Table>,
        key: &ForeignKeyDef,
    ) -> Result<(), WriteError> {
        let mut from = RowId(0);
        loop {
            let cells = table.heap.cells_from(from, BATCH);
            let Some(last) = cells.last() else { return Ok(()) };
            from = RowId(last.id.0 + 1);
            txn.goes_on()?;
            for cell in cells {
                let row = cell.chain.lock().newest.as_ref().and_then(|v| v.row.clone());
                if let Some(row) = row {
                    self.check_reference(txn, table, (key, &row))?;
                }
            }
        }
    }
}

/// The row, when its newest version references the key.
fn referencing_row(
    me: TxnId,
    child: &Table,
    cell: &RowCell,
    (columns, wanted): (&[u16], &[u8]),
) -> Result<Option<Referencing>, WriteError> {
    let chain = cell.chain.lock();
    let refers = |version: &Version| {
        version.row.as_ref().is_some_and(|row| {
            let mut bytes = KeyBytes::new();
            key::encode_row(row, &child.def, columns, &mut bytes) == Nulls::None
                && *bytes == *wanted
        })
    };
    let version = match chain.held_by_other(me) {
        None => chain.newest.as_ref().filter(|version| refers(version)),
        Some(on) => {
            // What another has not committed is checked by its writer; what it may take back is not.
            let committed = chain.newest_committed().filter(|version| refers(version));
            let mut open = chain.versions().take_while(|v| v.stamp == UNCOMMITTED).peekable();
            if committed.is_some() && !(open.peek().is_some() && open.all(refers)) {
                return Err(WriteError::Blocked { on });
            }
            committed
        }
    };
    Ok(version.and_then(|version| Some((cell.id, version.row.clone()?, version.stamp))))
}

/// Whether the transaction's newest state of a row still has the referencing columns noted.
fn is_present(txn: &Txn, table: &Table, row: RowId, (key, noted): (&ForeignKeyDef, &Row)) -> bool {
    let Some(cell) = table.heap.cell(row) else { return false };
    let chain = cell.chain.lock();
    let own = chain.newest.as_ref().filter(|_| chain.locker == txn.id);
    own.and_then(|v| v.row.as_ref())
        .is_some_and(|now| same_columns(&table.def, &key.columns, (now, noted)))
}

/// An index that begins with the columns, in any order.
fn leading_index<'a>(table: &'a Table, columns: &[u16]) -> Option<&'a Arc<IndexData>> {
    table.indexes.iter().filter(|index| index.def.only.is_none()).find(|index| {
        index
            .def
            .columns
            .get(..columns.len())
            .is_some_and(|leading| columns.iter().all(|column| leading.contains(column)))
    })
}

fn not_present(
    table: &TableDef,
    key: &ForeignKeyDef,
    (detail, depends): (String, Lsn),
) -> WriteError {
    WriteError::ForeignKeyViolation {
        message: format!(
            "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
            table.name, key.name
        ),
        detail,
        depends,
    }
}

/// Columns and their values as `(a, b)=(1, 2)`.
fn shown(table: &TableDef, columns: &[u16], row: &Row) -> String {
    let names: Vec<&str> =
        columns.iter().map(|c| table.columns[usize::from(*c)].name.as_str()).collect();
    let values: Vec<String> =
        columns.iter().map(|c| row.column_ref(table, usize::from(*c)).to_string()).collect();
    format!("({})=({})", names.join(", "), values.join(", "))
}
