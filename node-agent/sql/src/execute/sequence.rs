//! Definitions of sequences done, and the columns that take their values from one.

use super::{ExecError, Executor, refused};
use crate::{
    bind::{nextval_text, sequence_within},
    cast,
    definition::NewSequence,
    eval::Env,
    sequence,
    types::Type,
};
use std::sync::Arc;
use understudy_store::{ColumnDef, Identity, SequenceDef, SequenceOwner, TableDef, TableId, Value};

impl Executor<'_, '_> {
    /// Makes the sequence of a column.
    pub(super) fn own_sequence(
        &mut self,
        table: TableId,
        sequence: &NewSequence,
    ) -> Result<TableId, ExecError> {
        let owner = Some(SequenceOwner { table, column: sequence.column });
        let def = SequenceDef { owner, ..sequence.def.clone() };
        let def = TableDef::new_sequence(sequence.name.as_str(), def);
        self.run.context.store.create_sequence(self.txn, def).map_err(refused)
    }

    /// ALTER SEQUENCE. Defaults follow a new name.
    pub(super) fn alter_sequence(
        &mut self,
        old: &Arc<TableDef>,
        new: &TableDef,
        restart: Option<i64>,
    ) -> Result<(), ExecError> {
        let store = self.run.context.store;
        store.alter_sequence(self.txn, new.clone(), restart).map_err(refused)?;
        if let Some(def) = &new.sequence {
            let stands = store.sequence_state(self.txn, new.id).map_err(refused)?;
            sequence_within("RESTART", stands.last_value, def)?;
        }
        if old.name == new.name {
            return Ok(());
        }
        let (before, after) = (nextval_text(&old.name), nextval_text(&new.name));
        let tables: Vec<Arc<TableDef>> = self.txn.catalog().tables().cloned().collect();
        for table in tables {
            let mut changed = (*table).clone();
            for column in &mut changed.columns {
                let default = column.default.as_mut().filter(|text| text.contains(&before));
                if let Some(text) = default {
                    *text = text.replace(&before, &after);
                }
            }
            if changed != *table {
                store.alter_table(self.txn, changed).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// DROP SEQUENCE, and the defaults that go with it.
    pub(super) fn drop_sequences(
        &mut self,
        sequences: &[Arc<TableDef>],
        defaults: &[(Arc<TableDef>, usize)],
    ) -> Result<(), ExecError> {
        let store = self.run.context.store;
        for (table, column) in defaults {
            let current = self.txn.catalog().table_by_id(table.id).cloned();
            let mut changed = (*current.unwrap_or_else(|| Arc::clone(table))).clone();
            changed.columns[*column].default = None;
            store.alter_table(self.txn, changed).map_err(refused)?;
        }
        for sequence in sequences {
            store.drop_table(self.txn, sequence.id).map_err(refused)?;
        }
        Ok(())
    }

    /// TRUNCATE … RESTART IDENTITY.
    pub(super) fn restart_sequences(&mut self, table: TableId) -> Result<(), ExecError> {
        let store = self.run.context.store;
        let owned: Vec<Arc<TableDef>> = self.txn.catalog().sequences_of(table).cloned().collect();
        for sequence in owned {
            let start = sequence.sequence.as_ref().map(|def| def.start);
            store.alter_sequence(self.txn, (*sequence).clone(), start).map_err(refused)?;
        }
        Ok(())
    }

    /// ALTER TABLE … ADD COLUMN of a serial or identity column: older rows get numbers too.
    pub(super) fn add_numbered(
        &mut self,
        table: &Arc<TableDef>,
        column: &ColumnDef,
        sequence: &NewSequence,
    ) -> Result<(), ExecError> {
        let store = self.run.context.store;
        let mut changed = (**table).clone();
        let position = changed.columns.len();
        changed.columns.push(ColumnDef::new(column.name.as_str(), column.data_type));
        store.alter_table(self.txn, changed.clone()).map_err(refused)?;
        let id = self.own_sequence(table.id, sequence)?;
        let (rows, _room) = self.ids_taken(table.id)?;
        let ty = Type::of(column.data_type);
        for row_id in rows {
            let number = {
                let env = Env::new(self.run, self.txn);
                let def = self.txn.catalog().table_by_id(id).cloned();
                let def = def.ok_or_else(|| crate::error::SqlError::internal("no sequence"))?;
                let number = Value::Int(sequence::next(&def, &env)?);
                cast::convert(&number, Type::Int8, ty, 0)?
            };
            self.run.goes_on()?;
            let row = store.lock_newest(self.txn, table.id, row_id).map_err(refused)?;
            let Some(row) = row else { continue };
            let new = row.replace(&changed, &[(position, number)]);
            store.update(self.txn, table.id, row_id, new).map_err(refused)?;
        }
        changed.columns[position] = column.clone();
        store.alter_table(self.txn, changed).map_err(refused)
    }

    /// ALTER COLUMN … ADD GENERATED … AS IDENTITY.
    pub(super) fn add_identity(
        &mut self,
        table: &Arc<TableDef>,
        kind: Identity,
        sequence: &NewSequence,
    ) -> Result<(), ExecError> {
        self.own_sequence(table.id, sequence)?;
        let mut changed = (**table).clone();
        changed.columns[usize::from(sequence.column)].identity = Some(kind);
        self.run.context.store.alter_table(self.txn, changed).map_err(refused)
    }
}
