//! Temporary memory of what a step keeps: sorting, grouping, hashing. It is given back with the step.

use super::refused;
use crate::{error::SqlError, eval::Env, execute::ExecError};
use understudy_store::{TemporaryMemory, Value};

/// A kept row beside its values: vector and place in the collection.
const ROW_BYTES: u64 = 64;
/// A value beside what it points to.
const VALUE_BYTES: u64 = size_of::<Value>() as u64;

/// What a step keeps.
pub(crate) struct Room(TemporaryMemory);

impl Room {
    pub(crate) fn new(env: &Env<'_>) -> Room {
        Room(env.run.context.store.temporary_memory())
    }

    /// Takes the memory of a row.
    ///
    /// # Errors
    /// 53200 when there is none left.
    pub(crate) fn keep(&mut self, row: &[Value]) -> Result<(), SqlError> {
        let bytes = row.iter().map(|value| VALUE_BYTES + pointed_to(value)).sum::<u64>();
        self.0.grow(ROW_BYTES + bytes).map_err(|error| match refused(error) {
            ExecError::Sql(error) => error,
            ExecError::Blocked { .. } => SqlError::internal("memory is not waited for"),
        })
    }

    /// Takes the memory of rows.
    ///
    /// # Errors
    /// 53200 when there is none left.
    pub(crate) fn keep_all(&mut self, rows: &[Vec<Value>]) -> Result<(), SqlError> {
        rows.iter().try_for_each(|row| self.keep(row))
    }
}

fn pointed_to(value: &Value) -> u64 {
    match value {
        Value::Text(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Numeric(_)
        | Value::Date(_)
        | Value::Timestamp(_)
        | Value::Timestamptz(_)
        | Value::Uuid(_) => 0,
    }
}
