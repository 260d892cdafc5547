//! Definitions done: each is a call of the store, recorded in the same transaction.

use super::{CommandTag, ExecError, Executor, insert::computed_changes, refused, room::Room};
use crate::{
    definition::{AlterStep, Definition, KeyOf},
    error::{SqlError, state},
    eval::{Env, NoColumns, RowTuple, eval, truth},
    expr::Expr,
    plan::Computed,
};
use std::sync::Arc;
use understudy_store::{ColumnDef, IndexDef, IndexId, RowId, TableDef, TableId};

impl Executor<'_, '_> {
    /// Does a definition.
    pub(super) fn define(
        &mut self,
        definition: &Definition,
        command: &'static str,
    ) -> Result<CommandTag, ExecError> {
        let store = self.run.context.store;
        self.txn.heed(Arc::clone(&self.run.context.session.stop));
        match definition {
            Definition::CreateTable { table, sequences } => {
                let id = store.create_table(self.txn, table.clone()).map_err(refused)?;
                for sequence in sequences {
                    self.own_sequence(id, sequence)?;
                }
            }
            Definition::CreateSequence(sequence) => {
                store.create_sequence(self.txn, sequence.clone()).map_err(refused)?;
            }
            Definition::AlterSequence { old, new, restart } => {
                self.alter_sequence(old, new, *restart)?;
            }
            Definition::DropSequences { sequences, defaults, notices } => {
                self.notices(notices);
                self.drop_sequences(sequences, defaults)?;
            }
            Definition::Skip(notices) => self.notices(notices),
            Definition::DropTables { tables, keys, notices } => {
                self.notices(notices);
                self.drop_keys(keys)?;
                for table in tables {
                    store.drop_table(self.txn, table.id).map_err(refused)?;
                }
            }
            Definition::DropIndexes { indexes, keys, notices } => {
                self.notices(notices);
                self.drop_keys(keys)?;
                indexes.iter().try_for_each(|index| self.drop_index(*index))?;
            }
            Definition::Truncate { tables, restart, notices } => {
                self.notices(notices);
                for table in tables {
                    store.truncate(self.txn, table.id).map_err(refused)?;
                    if *restart {
                        self.restart_sequences(table.id)?;
                    }
                }
            }
            Definition::CreateIndex { table, index, computed, notices } => {
                self.notices(notices);
                if !computed.is_empty() {
                    store.alter_table(self.txn, (**table).clone()).map_err(refused)?;
                    self.fill(table, computed)?;
                }
                store.add_index(self.txn, table.id, index.clone()).map_err(index_refused)?;
            }
            Definition::AlterTable { table, steps } => {
                for step in steps {
                    // Each step sees what the steps before it made of the table.
                    let current = self.txn.catalog().table_by_id(table.id).cloned();
                    let current = current.unwrap_or_else(|| Arc::clone(table));
                    self.alter(&current, step)?;
                }
            }
        }
        Ok(CommandTag::plain(command))
    }

    fn notices(&mut self, notices: &[String]) {
        for notice in notices {
            self.sink.notice(notice.clone());
        }
    }

    /// Takes foreign keys away.
    fn drop_keys(&mut self, keys: &[KeyOf]) -> Result<(), ExecError> {
        for (table, name) in keys {
            let Some(table) = self.txn.catalog().table_by_id(*table) else { continue };
            let mut changed = (**table).clone();
            changed.foreign_keys.retain(|key| key.name != *name);
            self.run.context.store.alter_table(self.txn, changed).map_err(refused)?;
        }
        Ok(())
    }

    fn alter(&mut self, table: &Arc<TableDef>, step: &AlterStep) -> Result<(), ExecError> {
        let store = self.run.context.store;
        let mut changed = (**table).clone();
        store.take(self.txn, table.id).map_err(refused)?;
        match step {
            AlterStep::AddColumn { column, fill } => {
                let mut column = column.clone();
                if let Some(fill) = fill {
                    let env = Env::new(self.run, self.txn);
                    column = column.filled_with(&eval(fill, &NoColumns, &env)?);
                }
                let empty = || store.scan_taken(self.txn, table.id).next().is_none();
                if column.not_null && column.fill.is_none() && !empty() {
                    return Err(has_nulls(&column.name, &table.name).into());
                }
                changed.columns.push(column);
            }
            AlterStep::AddGenerated { column, expr } => {
                return self.add_generated(changed, column, expr);
            }
            AlterStep::AddNumbered { column, sequence } => {
                return self.add_numbered(table, column, sequence);
            }
            AlterStep::AddIdentity { kind, sequence } => {
                return self.add_identity(table, *kind, sequence);
            }
            AlterStep::AddIndex(index) => {
                if index.is_primary_key {
                    self.no_nulls(table, index)?;
                    for column in &index.columns {
                        changed.columns[usize::from(*column)].not_null = true;
                    }
                    if changed != **table {
                        store.alter_table(self.txn, changed).map_err(refused)?;
                    }
                }
                store.add_index(self.txn, table.id, index.clone()).map_err(index_refused)?;
                return Ok(());
            }
            AlterStep::AddCheck { text, name, predicate } => {
                self.holds_for_all(table, name, predicate)?;
                changed.checks.push(text.clone());
            }
            AlterStep::DropCheck(text) => changed.checks.retain(|check| check != text),
            AlterStep::AddForeignKey(key) => changed.foreign_keys.push(key.clone()),
            AlterStep::DropForeignKey(key, notice) => {
                self.notices(notice.as_slice());
                return self.drop_keys(std::slice::from_ref(key));
            }
            AlterStep::DropIndex(index) => return self.drop_index(*index),
            AlterStep::SetNotNull(column) => {
                self.column_has_no_nulls(table, *column)?;
                changed.columns[*column].not_null = true;
            }
            AlterStep::DropNotNull(column) => changed.columns[*column].not_null = false,
            AlterStep::SetDefault(column, default) => {
                changed.columns[*column].default.clone_from(default);
            }
            AlterStep::Rename(renamed) => {
                changed.name.clone_from(&renamed.name);
                changed.checks.clone_from(&renamed.checks);
                for (column, renamed) in changed.columns.iter_mut().zip(&renamed.columns) {
                    column.name.clone_from(&renamed.name);
                    column.generated.clone_from(&renamed.generated);
                }
            }
            AlterStep::Nothing => return Ok(()),
        }
        store.alter_table(self.txn, changed).map_err(refused)
    }

    /// ALTER TABLE … ADD COLUMN of a generated column: older rows get their values too.
    fn add_generated(
        &mut self,
        mut changed: TableDef,
        column: &ColumnDef,
        expr: &Expr,
    ) -> Result<(), ExecError> {
        let store = self.run.context.store;
        let position = changed.columns.len();
        changed.columns.push(ColumnDef { not_null: false, ..column.clone() });
        store.alter_table(self.txn, changed.clone()).map_err(refused)?;
        self.fill(&changed, &[(position, expr.clone())])?;
        if column.not_null {
            self.column_has_no_nulls(&changed, position)?;
            changed.columns[position].not_null = true;
            store.alter_table(self.txn, changed).map_err(refused)?;
        }
        Ok(())
    }

    /// Computes new columns for the rows that are there.
    fn fill(&mut self, table: &TableDef, computed: &[Computed]) -> Result<(), ExecError> {
        let store = self.run.context.store;
        store.take(self.txn, table.id).map_err(refused)?;
        let (ids, _room) = self.ids_taken(table.id)?;
        for id in ids {
            self.run.goes_on()?;
            let row = store.lock_newest(self.txn, table.id, id).map_err(refused)?;
            let Some(row) = row else { continue };
            let env = Env::new(self.run, self.txn);
            let new = computed_changes(computed, (table, &row), &env)?;
            if new.iter().any(|(column, value)| row.column(table, *column) != *value) {
                let new = row.replace(table, &new);
                store.update(self.txn, table.id, id, new).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// The rows of a table that the transaction has taken, by their ids; with the memory of the list.
    pub(super) fn ids_taken(&self, table: TableId) -> Result<(Vec<RowId>, Room), SqlError> {
        let (mut ids, mut room) = (Vec::new(), Room::default());
        for (id, _) in self.run.context.store.scan_taken(self.txn, table) {
            self.run.goes_on()?;
            room.push(self.run, &mut ids, id)?;
        }
        Ok((ids, room))
    }

    /// Drops an index; hidden columns that no other index is over are free from then on.
    fn drop_index(&mut self, index: IndexId) -> Result<(), ExecError> {
        let store = self.run.context.store;
        let is_owner = |table: &&Arc<TableDef>| table.indexes.iter().any(|i| i.id == index);
        let owner = self.txn.catalog().tables().find(is_owner).map(|table| table.id);
        store.drop_index(self.txn, index).map_err(refused)?;
        let left = owner.and_then(|id| self.txn.catalog().table_by_id(id)).cloned();
        let Some(table) = left else { return Ok(()) };
        let mut changed = (*table).clone();
        for (position, column) in changed.columns.iter_mut().enumerate() {
            let is_in = |index: &IndexDef| {
                let mut columns = index.columns.iter().chain(&index.only);
                columns.any(|column| usize::from(*column) == position)
            };
            if column.hidden && !table.indexes.iter().any(is_in) {
                column.generated = None;
            }
        }
        if changed != *table {
            store.alter_table(self.txn, changed).map_err(refused)?;
        }
        Ok(())
    }

    fn no_nulls(&self, table: &TableDef, index: &IndexDef) -> Result<(), ExecError> {
        index
            .columns
            .iter()
            .try_for_each(|column| self.column_has_no_nulls(table, usize::from(*column)))
    }

    fn column_has_no_nulls(&self, table: &TableDef, column: usize) -> Result<(), ExecError> {
        for (_, row) in self.run.context.store.scan_taken(self.txn, table.id) {
            self.run.goes_on()?;
            if row.column_ref(table, column).is_null() {
                return Err(has_nulls(&table.columns[column].name, &table.name).into());
            }
        }
        Ok(())
    }

    fn holds_for_all(
        &self,
        table: &TableDef,
        name: &str,
        predicate: &Expr,
    ) -> Result<(), ExecError> {
        let env = Env::new(self.run, self.txn);
        for (id, row) in self.run.context.store.scan_taken(self.txn, table.id) {
            self.run.goes_on()?;
            if truth(predicate, &RowTuple { table, id, row: &row }, &env)? == Some(false) {
                return Err(SqlError::new(
                    state::CHECK,
                    format!(
                        "check constraint \"{name}\" of relation \"{}\" is violated by some row",
                        table.name
                    ),
                )
                .into());
            }
        }
        Ok(())
    }
}

fn has_nulls(column: &str, table: &str) -> SqlError {
    SqlError::new(
        state::NOT_NULL,
        format!("column \"{column}\" of relation \"{table}\" contains null values"),
    )
}

/// A duplicate while an index is built is worded differently.
fn index_refused(error: understudy_store::WriteError) -> ExecError {
    let understudy_store::WriteError::UniqueViolation { index, key, .. } = &error else {
        return refused(error);
    };
    ExecError::Sql(
        SqlError::new(state::UNIQUE, format!("could not create unique index \"{index}\""))
            .with_detail(format!("Key {key} is duplicated.")),
    )
}
