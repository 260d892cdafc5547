//! Temporary memory of what a statement keeps while it runs: what it sorts, groups and hashes, the rows of
//! its subqueries, and the list of what it will change. It is given back with the step that keeps it.
//!
//! A room takes its memory in steps, so a statement of few rows never meets the accountant. Up to a step of
//! each room is therefore not counted.

use super::{Run, refused};
use crate::{error::SqlError, execute::ExecError};
use understudy_store::{Row, Store, TemporaryMemory, Value};

/// A kept row beside its values: vector and place in the collection.
const ROW_BYTES: u64 = 64;
/// A value beside what it points to.
const VALUE_BYTES: u64 = size_of::<Value>() as u64;
/// A row id in a set.
const ID_BYTES: u64 = 16;
/// What an allocation takes beside its bytes.
const ALLOCATION_BYTES: u64 = 16;
/// What is asked of the accountant at a time.
const STEP_BYTES: u64 = 4096;

/// What a step keeps, or a result that waits for its client.
#[derive(Debug, Default)]
pub struct Room {
    /// None while less than a step is kept.
    memory: Option<TemporaryMemory>,
    /// Kept, and not yet asked for.
    owed: u64,
}

/// Rows in hand, with their memory.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) room: Room,
}

impl Room {
    /// Takes the memory of a row.
    ///
    /// # Errors
    /// 53200 when there is none left, as for all that follow.
    pub fn keep_row(&mut self, store: &Store, row: &[Value]) -> Result<(), SqlError> {
        self.owe(store, ROW_BYTES + bytes_of(row))
    }

    /// Takes what is missing to so many bytes in all.
    ///
    /// # Errors
    /// As of [`Room::keep_row`].
    pub fn reach(&mut self, store: &Store, bytes: u64) -> Result<(), SqlError> {
        let held = self.memory.as_ref().map_or(0, TemporaryMemory::bytes);
        self.owed = bytes.saturating_sub(held);
        self.settle(store)
    }

    /// Whether it holds any memory.
    #[must_use]
    pub fn is_charged(&self) -> bool {
        self.memory.is_some()
    }

    /// Takes bytes.
    #[inline]
    pub(crate) fn take(&mut self, run: &Run<'_>, bytes: u64) -> Result<(), SqlError> {
        self.owe(run.context.store, bytes)
    }

    #[inline]
    fn owe(&mut self, store: &Store, bytes: u64) -> Result<(), SqlError> {
        self.owed = self.owed.saturating_add(bytes);
        if self.owed < STEP_BYTES { Ok(()) } else { self.settle(store) }
    }

    #[cold]
    fn settle(&mut self, store: &Store) -> Result<(), SqlError> {
        let memory = self.memory.get_or_insert_with(|| store.temporary_memory());
        memory.grow(self.owed).map_err(|error| match refused(error) {
            ExecError::Sql(error) => error,
            ExecError::Blocked { .. } | ExecError::Far => {
                SqlError::internal("memory is not waited for")
            }
        })?;
        self.owed = 0;
        Ok(())
    }

    /// Takes the memory of a row.
    pub(crate) fn keep(&mut self, run: &Run<'_>, row: &[Value]) -> Result<(), SqlError> {
        self.keep_row(run.context.store, row)
    }

    /// Takes the memory of a row's id in a set.
    pub(crate) fn keep_id(&mut self, run: &Run<'_>) -> Result<(), SqlError> {
        self.take(run, ID_BYTES)
    }

    /// Takes the memory of encoded bytes that nobody else has charged.
    pub(crate) fn keep_encoded(&mut self, run: &Run<'_>, row: &Row) -> Result<(), SqlError> {
        let bytes = row.as_bytes().len();
        // A shorter one lies in its handle.
        let is_apart = bytes >= size_of::<Row>();
        self.take(run, if is_apart { bytes as u64 + ALLOCATION_BYTES } else { 0 })
    }

    /// Appends to a list. The memory of the list itself is taken before it grows; the caller takes that of
    /// what the item points to.
    pub(crate) fn push<T>(
        &mut self,
        run: &Run<'_>,
        list: &mut Vec<T>,
        item: T,
    ) -> Result<(), SqlError> {
        if list.len() == list.capacity() {
            let more = list.len().max(4);
            self.take(run, (more * size_of::<T>()) as u64)?;
            list.reserve_exact(more);
        }
        list.push(item);
        Ok(())
    }
}

impl Kept {
    /// Keeps one more row.
    ///
    /// # Errors
    /// 53200 when there is no memory left.
    pub(crate) fn push(&mut self, run: &Run<'_>, row: &[Value]) -> Result<(), SqlError> {
        self.room.keep(run, row)?;
        self.rows.push(row.to_vec());
        Ok(())
    }
}

/// What values take, in their vector and outside it.
pub(crate) fn bytes_of(values: &[Value]) -> u64 {
    values.iter().map(|value| VALUE_BYTES + pointed_to(value)).sum()
}

/// What a value takes beside itself.
pub(crate) fn pointed_to(value: &Value) -> u64 {
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
