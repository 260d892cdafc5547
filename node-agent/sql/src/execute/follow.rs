//! The end of a statement's changes: foreign keys checked, and rows that follow a key they reference.

use super::{
    ExecError, Executor, Run,
    insert::{check_row, compute},
};
use crate::{
    bind::Binder,
    cast::{self, CastContext},
    error::SqlError,
    eval::{Env, NoColumns, eval},
    types::Type,
};
use std::sync::Arc;
use understudy_store::{Consequences, DataType, Row, TableDef, Txn, Value};

impl Executor<'_, '_> {
    /// Settles what the statement changed; nothing to do for tables without foreign keys.
    pub(crate) fn settle(&mut self) -> Result<(), ExecError> {
        if !self.txn.has_unchecked() {
            return Ok(());
        }
        self.run.context.store.settle(self.txn, &mut Following { run: self.run })
    }
}

/// What the store asks about rows that follow.
struct Following<'a> {
    run: &'a Run<'a>,
}

impl Consequences for Following<'_> {
    type Error = ExecError;

    fn default(
        &mut self,
        txn: &Txn,
        table: &Arc<TableDef>,
        column: usize,
    ) -> Result<Value, ExecError> {
        let column = &table.columns[column];
        let Some(text) = &column.default else { return Ok(Value::Null) };
        let binder = Binder::new(txn.catalog(), &[]);
        let expr = binder.default_expr(text, &column.name, column.data_type)?;
        Ok(eval(&expr, &NoColumns, &Env::new(self.run, txn))?)
    }

    fn goes_on(&self, rows: u64) -> Result<(), ExecError> {
        Ok(self.run.goes_on_by(rows)?)
    }

    fn accept(&mut self, txn: &Txn, table: &Arc<TableDef>, row: Row) -> Result<Row, ExecError> {
        let values: Result<Vec<Value>, SqlError> = row
            .values(table)
            .into_iter()
            .zip(&table.columns)
            .map(|(value, column)| fitted(value, column.data_type))
            .collect();
        let mut values = values?;
        let (binder, env) = (Binder::new(txn.catalog(), &[]), Env::new(self.run, txn));
        compute(&binder.computed(table)?, &mut values, &env)?;
        check_row(&env, (table, &binder.checks(table)?), &values)?;
        Ok(Row::encode(&values))
    }
}

/// A value of a kindred type as the column takes it.
fn fitted(value: Value, to: DataType) -> Result<Value, SqlError> {
    let widest = match &value {
        Value::Int(_) => Type::Int8,
        Value::Float(_) => Type::Float8,
        _ => Type::of(to),
    };
    let value = cast::convert(&value, widest, Type::of(to), 0)?;
    cast::limit(value, to, CastContext::Assignment)
}
