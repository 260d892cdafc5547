//! Changes of definitions: tables, indexes, users.
//!
//! A transaction that changes definitions works on a copy of the newest [`State`]; commit makes the
//! copy the newest. One transaction changes definitions at a time, and a table that is changed has no
//! other writer from the first change to the end of the transaction. Readers are never kept waiting:
//! they go on with the state that their statement began with. Invariants: a change is in the
//! transaction's operations exactly if it is in its state; a unique index is added only to rows that
//! satisfy it. TRUNCATE keeps old snapshots intact: it deletes rows, the log says it once.

use crate::{
    catalog::UserDef,
    error::WriteError,
    foreign_key::{check_referrers, check_served, check_shape, referenced_tables},
    heap::{Heap, State, Table},
    index::{IndexData, Uniqueness},
    lock_wait::TxnId,
    redo::Ddl,
    row::RowId,
    store::{Inner, Store},
    table::{IndexDef, IndexId, TableDef, TableId},
    txn::{Kind, Operation, Txn},
    value::DataType,
    version::RowCell,
    write::table_of,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{Ordering::SeqCst, fence},
    },
};
use understudy_types::Lsn;

/// Rows visited at a time while an index is built or a table emptied.
const BATCH: usize = 1024;

impl Store {
    /// Makes a table with the indexes of its definition; ids in the definition are replaced.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn create_table(&self, txn: &mut Txn, mut def: TableDef) -> Result<TableId, WriteError> {
        let mut state = self.inner.own_state(txn)?;
        check_definition(&def)?;
        let mut names: BTreeSet<&str> = def.indexes.iter().map(|i| i.name.as_str()).collect();
        names.insert(&def.name);
        for name in names {
            if state.catalog.has_relation(&def.schema, name) {
                return Err(WriteError::AlreadyExists { what: format!("relation \"{name}\"") });
            }
        }
        def.id = state.catalog_mut().give_table_id(&self.inner.fresh_ids);
        for index in &mut def.indexes {
            index.id = state.catalog_mut().give_index_id(&self.inner.fresh_ids);
        }
        let id = def.id;
        for key in def.foreign_keys.iter_mut().filter(|key| key.references == TableId(0)) {
            key.references = id;
        }
        for referenced in referenced_tables(&def) {
            self.inner.take_table(txn, referenced)?;
        }
        state.put_table(new_table(def.clone()));
        check_served(&state, &def)?;
        self.inner.change(txn, state, Ddl::CreateTable(def))?;
        Ok(id)
    }

    /// Keeps everybody else from writing a table until the transaction ends, before a change of its
    /// definition that its rows must allow (`scan_taken`).
    ///
    /// # Errors
    /// `Blocked` by who writes it, or by another change of definitions.
    pub fn take(&self, txn: &mut Txn, table: TableId) -> Result<(), WriteError> {
        self.inner.own_state(txn)?;
        self.inner.take_table(txn, table).map(|_| ())
    }

    /// Drops a table with everything in it, and the sequences that its columns own.
    ///
    /// # Errors
    /// See [`WriteError`]; `InvalidDefinition` while another table references it.
    pub fn drop_table(&self, txn: &mut Txn, table: TableId) -> Result<(), WriteError> {
        let owned: Vec<TableId> = txn.catalog().sequences_of(table).map(|s| s.id).collect();
        for sequence in owned {
            self.drop_table(txn, sequence)?;
        }
        let mut state = self.inner.own_state(txn)?;
        let heap = self.inner.take_table(txn, table)?;
        let old = Arc::clone(table_of(txn, table)?);
        let mut referrers = old.links.iter().flat_map(|links| &links.referrers);
        if referrers.any(|(child, _)| *child != table) {
            let reason = format!("table \"{}\" is referenced by another table", old.def.name);
            return Err(WriteError::InvalidDefinition { reason });
        }
        for referenced in referenced_tables(&old.def) {
            self.inner.take_table(txn, referenced)?;
        }
        state.remove_table(table);
        self.inner.change(txn, state, Ddl::DropTable(table))?;
        self.inner.remember(txn, Operation::TableDropped(heap))
    }

    /// Deletes all rows. That no row of another table references them is the caller's duty.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn truncate(&self, txn: &mut Txn, table: TableId) -> Result<(), WriteError> {
        let inner = &self.inner;
        let state = inner.own_state(txn)?;
        inner.take_table(txn, table)?;
        let at = inner.enter(txn, table)?;
        let target = Arc::clone(table_of(txn, table)?);
        let before = txn.operations.len();
        inner.change(txn, state, Ddl::Truncate(table))?;
        let emptied = inner.delete_all(txn, (at, &target));
        emptied.inspect_err(|_| inner.undo(txn, before))
    }

    /// Changes everything of a table but its indexes and the types of its columns; new columns stand
    /// at the end (see `ColumnDef::fill` for what older rows show). That older rows satisfy a new
    /// NOT NULL or CHECK is the caller's duty; new foreign keys are checked here.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn alter_table(&self, txn: &mut Txn, mut def: TableDef) -> Result<(), WriteError> {
        let mut state = self.inner.own_state(txn)?;
        self.inner.take_table(txn, def.id)?;
        let old = Arc::clone(table_of(txn, def.id)?);
        def.indexes.clone_from(&old.def.indexes);
        check_definition(&def)?;
        let renamed = (&def.schema, &def.name) != (&old.def.schema, &old.def.name);
        if renamed && state.catalog.has_relation(&def.schema, &def.name) {
            let what = format!("relation \"{}\"", def.name);
            return Err(WriteError::AlreadyExists { what });
        }
        let types = |def: &TableDef| def.columns.iter().map(|c| c.data_type).collect::<Vec<_>>();
        if !types(&def).starts_with(&types(&old.def)) {
            let reason = "the types of existing columns cannot change".to_owned();
            return Err(WriteError::InvalidDefinition { reason });
        }
        if def.foreign_keys != old.def.foreign_keys {
            for referenced in referenced_tables(&def).union(&referenced_tables(&old.def)) {
                self.inner.take_table(txn, *referenced)?;
            }
        }
        state.put_table(Table { def: Arc::new(def.clone()), ..(*old).clone() });
        check_served(&state, &def)?;
        let before = (txn.operations.len(), Arc::clone(&txn.state), txn.state_is_own);
        self.inner.change(txn, state, Ddl::AlterTable(def))?;
        self.inner.check_new_keys(txn, &old).inspect_err(|_| {
            self.inner.undo(txn, before.0);
            (txn.state, txn.state_is_own) = (before.1, before.2);
        })
    }

    /// Builds an index over the rows of a table.
    ///
    /// # Errors
    /// See [`WriteError`]; `UniqueViolation` when rows share a key of a unique index.
    pub fn add_index(
        &self,
        txn: &mut Txn,
        table: TableId,
        mut def: IndexDef,
    ) -> Result<IndexId, WriteError> {
        let inner = &self.inner;
        let mut state = inner.own_state(txn)?;
        let heap = inner.take_table(txn, table)?;
        let old = Arc::clone(table_of(txn, table)?);
        if state.catalog.has_relation(&old.def.schema, &def.name) {
            return Err(WriteError::AlreadyExists { what: format!("relation \"{}\"", def.name) });
        }
        def.id = state.catalog_mut().give_index_id(&inner.fresh_ids);
        let id = def.id;
        let changed = with_index(&old, def.clone())?;
        let index = changed.indexes.last().map(Arc::clone).expect("an index was just added");
        let before = txn.operations.len();
        let (me, visible) = (txn.id, txn.snapshot);
        let uniqueness = Uniqueness::Check { me, visible, current: Lsn::MAX };
        inner.remember(txn, Operation::IndexAdded(Arc::clone(&heap), Arc::clone(&index)))?;
        inner
            .build(&heap, &index, uniqueness, &|| txn.goes_on())
            .inspect_err(|_| inner.undo(txn, before))?;
        state.put_table(changed);
        inner
            .change(txn, state, Ddl::AddIndex(table, def))
            .inspect_err(|_| inner.undo(txn, before))?;
        Ok(id)
    }

    /// Drops an index.
    ///
    /// # Errors
    /// See [`WriteError`]; `InvalidDefinition` while a foreign key needs it.
    pub fn drop_index(&self, txn: &mut Txn, index: IndexId) -> Result<(), WriteError> {
        let mut state = self.inner.own_state(txn)?;
        let Some(data) = state.index(index).cloned() else {
            return Err(WriteError::Missing { what: format!("index number {}", index.0) });
        };
        let table = data.table.id;
        let heap = self.inner.take_table(txn, table)?;
        let old = Arc::clone(table_of(txn, table)?);
        state.put_table(without_index(&old, index));
        if let Some(left) = state.table(table) {
            check_referrers(&state, left)?;
        }
        self.inner.change(txn, state, Ddl::DropIndex(index))?;
        self.inner.remember(txn, Operation::IndexDropped(heap, data))
    }

    /// Adds a user.
    ///
    /// # Errors
    /// `AlreadyExists`, or `Blocked` by another change of definitions.
    pub fn create_user(&self, txn: &mut Txn, user: UserDef) -> Result<(), WriteError> {
        let mut state = self.inner.own_state(txn)?;
        if state.catalog.user(&user.name).is_some() {
            return Err(WriteError::AlreadyExists { what: format!("role \"{}\"", user.name) });
        }
        state.catalog_mut().put_user(user.clone());
        self.inner.change(txn, state, Ddl::PutUser(user))
    }

    /// Replaces a user of the same name.
    ///
    /// # Errors
    /// `Missing`, or `Blocked` by another change of definitions.
    pub fn alter_user(&self, txn: &mut Txn, user: UserDef) -> Result<(), WriteError> {
        let mut state = self.inner.own_state(txn)?;
        if state.catalog.user(&user.name).is_none() {
            return Err(WriteError::Missing { what: format!("role \"{}\"", user.name) });
        }
        state.catalog_mut().put_user(user.clone());
        self.inner.change(txn, state, Ddl::PutUser(user))
    }

    /// Removes a user.
    ///
    /// # Errors
    /// `Missing`, or `Blocked` by another change of definitions.
    pub fn drop_user(&self, txn: &mut Txn, name: &str) -> Result<(), WriteError> {
        let mut state = self.inner.own_state(txn)?;
        if state.catalog.user(name).is_none() {
            return Err(WriteError::Missing { what: format!("role \"{name}\"") });
        }
        state.catalog_mut().remove_user(name);
        self.inner.change(txn, state, Ddl::DropUser(name.to_owned()))
    }
}

impl Inner {
    /// The definitions to change: a copy of the transaction's own, or of the newest.
    pub(crate) fn own_state(&self, txn: &mut Txn) -> Result<State, WriteError> {
        self.make_writer(txn);
        if let Err(on) = self.changer.compare_exchange(0, txn.id.0, SeqCst, SeqCst)
            && on != txn.id.0
        {
            return Err(WriteError::Blocked { on: TxnId(on) });
        }
        if !txn.state_is_own && !Arc::ptr_eq(&self.state.load(), &txn.state) {
            // The statement was bound against older definitions: it begins again.
            return Err(WriteError::Blocked { on: TxnId::ENDED });
        }
        Ok((*txn.state).clone())
    }

    /// Keeps everybody else from writing a table until the transaction ends.
    pub(crate) fn take_table(
        &self,
        txn: &mut Txn,
        table: TableId,
    ) -> Result<Arc<Heap>, WriteError> {
        let heap = Arc::clone(&table_of(txn, table)?.heap);
        if heap.changer() == txn.id {
            // Taken by an earlier attempt, which may have been blocked after taking it.
        } else if let Err(on) = heap.changer.compare_exchange(0, txn.id.0, SeqCst, SeqCst) {
            return Err(WriteError::Blocked { on: TxnId(on) });
        } else {
            txn.seldom().changing.push(Arc::clone(&heap));
        }
        fence(SeqCst);
        match self.registry.user_of(table, txn.id) {
            Some(on) => Err(WriteError::Blocked { on }),
            None => Ok(heap),
        }
    }

    /// Takes the changed definitions over, and remembers the change for the log.
    fn change(&self, txn: &mut Txn, state: State, ddl: Ddl) -> Result<(), WriteError> {
        self.remember(txn, Operation::Ddl(Box::new(ddl)))?;
        txn.state = Arc::new(state);
        txn.state_is_own = true;
        Ok(())
    }

    /// Checks the rows of a table against the foreign keys that it did not have before.
    fn check_new_keys(&self, txn: &mut Txn, old: &Table) -> Result<(), WriteError> {
        let table = Arc::clone(table_of(txn, old.def.id)?);
        let known = &old.def.foreign_keys;
        for key in table.def.foreign_keys.iter().filter(|key| !known.contains(key)) {
            self.check_rows(txn, &table, key)?;
        }
        Ok(())
    }

    fn delete_all(&self, txn: &mut Txn, (at, target): (u32, &Table)) -> Result<(), WriteError> {
        let mut from = RowId(0);
        loop {
            let cells = target.heap.cells_from(from, BATCH);
            let Some(last) = cells.last() else { return Ok(()) };
            from = RowId(last.id.0 + 1);
            txn.goes_on()?;
            for cell in cells.iter().filter(|cell| is_live(cell)) {
                self.push(txn, (at, target), cell, None)?;
                if let Some(Operation::Row { kind, .. }) = txn.operations.last_mut() {
                    *kind = Kind::Truncate;
                }
            }
        }
    }

    /// Fills an index from the rows' versions, and keeps it up from then on.
    pub(crate) fn build(
        &self,
        heap: &Heap,
        index: &Arc<IndexData>,
        uniqueness: Uniqueness,
        goes_on: &dyn Fn() -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        heap.kept_up.write().push(Arc::clone(index));
        let mut from = RowId(0);
        loop {
            let cells = heap.cells_from(from, BATCH);
            let Some(last) = cells.last() else { return Ok(()) };
            from = RowId(last.id.0 + 1);
            goes_on()?;
            for cell in &cells {
                self.build_row(index, cell, uniqueness)?;
            }
        }
    }

    fn build_row(
        &self,
        index: &IndexData,
        cell: &Arc<RowCell>,
        uniqueness: Uniqueness,
    ) -> Result<(), WriteError> {
        let (newest, older) = {
            let mut chain = cell.chain.lock();
            let mut rows = chain.versions().map(|v| v.row.clone());
            let newest = rows.next().flatten();
            let older: Vec<_> = rows.flatten().collect();
            if newest.as_ref().is_none_or(|n| older.iter().any(|o| !index.same_columns(n, o))) {
                chain.moved = true;
            }
            (newest, older)
        };
        for row in &older {
            index.add(&self.accountant, cell, row, Uniqueness::Trust)?;
        }
        newest.map_or(Ok(()), |row| index.add(&self.accountant, cell, &row, uniqueness))
    }
}

/// A table without rows, and its indexes.
pub(crate) fn new_table(def: TableDef) -> Table {
    let def = Arc::new(def);
    let heap = Arc::new(Heap::new(def.id));
    let new_index = |i: &IndexDef| Arc::new(IndexData::new(i.clone(), Arc::clone(&def)));
    let indexes: Vec<_> = def.indexes.iter().map(new_index).collect();
    heap.kept_up.write().clone_from(&indexes);
    Table { def, heap, indexes, links: None }
}

/// The table with one more index, still empty, at the end.
pub(crate) fn with_index(table: &Table, index: IndexDef) -> Result<Table, WriteError> {
    let mut def = (*table.def).clone();
    if index.is_primary_key {
        for column in &index.columns {
            let column = def.columns.get_mut(usize::from(*column));
            column.into_iter().for_each(|c| c.not_null = true);
        }
    }
    def.indexes.push(index.clone());
    check_definition(&def)?;
    let def = Arc::new(def);
    let mut indexes = table.indexes.clone();
    indexes.push(Arc::new(IndexData::new(index, Arc::clone(&def))));
    Ok(Table { def, indexes, ..table.clone() })
}

/// The table with one index less.
pub(crate) fn without_index(table: &Table, index: IndexId) -> Table {
    let mut def = (*table.def).clone();
    def.indexes.retain(|i| i.id != index);
    let indexes = table.indexes.iter().filter(|i| i.def.id != index).cloned().collect();
    Table { def: Arc::new(def), indexes, ..table.clone() }
}

/// Whether the newest version is a row.
pub(crate) fn is_live(cell: &RowCell) -> bool {
    cell.chain.lock().newest.as_ref().is_some_and(|v| v.row.is_some())
}

/// Whether a definition makes sense by itself.
pub(crate) fn check_definition(def: &TableDef) -> Result<(), WriteError> {
    let invalid = |reason: String| Err(WriteError::InvalidDefinition { reason });
    if def.columns.len() > crate::row::COLUMNS_MAX {
        return invalid(format!("tables can have at most {} columns", crate::row::COLUMNS_MAX));
    }
    let mut names = BTreeSet::new();
    let mut shown = def.columns.iter().filter(|c| !c.hidden);
    if let Some(twice) = shown.find(|c| !names.insert(c.name.as_str())) {
        return invalid(format!("column \"{}\" specified more than once", twice.name));
    }
    let too_long = |c: &&crate::table::ColumnDef| {
        c.fill.as_ref().is_some_and(|fill| fill.len() > crate::row::VALUE_BYTES_MAX)
    };
    if let Some(column) = def.columns.iter().find(too_long) {
        let (table, bytes) = (def.name.clone(), column.fill.as_ref().map_or(0, Vec::len));
        return Err(WriteError::TooLong { table, column: column.name.clone(), bytes });
    }
    if def.indexes.iter().filter(|i| i.is_primary_key).count() > 1 {
        return invalid(format!(
            "multiple primary keys for table \"{}\" are not allowed",
            def.name
        ));
    }
    check_shape(def)?;
    for index in &def.indexes {
        let exists = |c: &u16| usize::from(*c) < def.columns.len();
        let ordered = index.order.is_empty() || index.order.len() == index.columns.len();
        if index.columns.is_empty() || !index.columns.iter().all(exists) || !ordered {
            return invalid(format!("index \"{}\" names no column of the table", index.name));
        }
        let is_boolean =
            |c: u16| def.columns.get(usize::from(c)).is_some_and(|c| c.data_type == DataType::Bool);
        if index.only.is_some_and(|only| index.is_primary_key || !is_boolean(only)) {
            return invalid(format!("index \"{}\" leaves out rows by no boolean", index.name));
        }
        if index.is_primary_key {
            let nullable = |c: &&u16| !def.columns[usize::from(**c)].not_null;
            if !index.unique || index.columns.iter().any(|c| nullable(&c)) {
                return invalid(format!("primary key \"{}\" allows nulls", index.name));
            }
        }
    }
    Ok(())
}
