//! Sequences: numbers that are given once.
//!
//! A sequence is a table of one row (`last_value, log_cnt, is_called`). The row says up to where numbers
//! are *reserved*; where the sequence really stands is a [`Counter`] in memory:
//!
//! ```text
//!   log:     … [ s: 33 ] ……………………… [ s: 66 ] …         the row, a small transaction of its own
//!   counter:   1 2 3 … 32 33 | 34 35 …                     given out between two reservations
//!   crash at 40 ─► the row says 66 ─► the next number is 67
//! ```
//! So a number leaves only after a record that covers it has its place in the log, before the record of
//! whoever uses it; and `Txn::depends_lsn` holds an answer that shows it back until that record is
//! acknowledged. Checkpoints, replay and hashes see an ordinary row. A counter notes which commit of the
//! row it was made from; after any other commit of the row (a RESTART, replay on a standby that becomes
//! active) it is made anew from the row.
//!
//! A transaction that has created, altered or restarted the sequence has it alone until its end: its
//! numbers move its own version of the row, and are gone if it is rolled back.
//!
//! Invariants: the counter's mutex is held from reading the counter to the commit of its reservation;
//! whoever changes the row holds it too, or has taken the table (`ddl::take_table`), which is looked at
//! under the mutex.
//!
//! # Caveats
//! A stop, like a crash, skips what is left of a block. A statement that is executed again, because it
//! had to wait or left the agent's hot loop with an error, has used its numbers. CACHE makes blocks
//! larger, but sessions keep no numbers of their own. Members that are not the active give no numbers:
//! ranges of a standby's own are not here yet.

use crate::{
    ddl::is_live,
    error::WriteError,
    heap::{Heap, Table},
    lock_wait::TxnId,
    memory::Pool,
    row::{Row, RowId},
    store::{Inner, Store},
    table::{SequenceDef, TableDef, TableId},
    txn::{Isolation, Txn},
    value::Value,
    version::{RowCell, UNCOMMITTED},
    write::table_of,
};
use std::sync::{Arc, atomic::Ordering::SeqCst};
use understudy_types::Lsn;

/// Numbers reserved beyond the one that is asked for, as PostgreSQL does.
const AHEAD: i64 = 32;
/// Most numbers of a block, whatever CACHE says.
const AHEAD_MAX: i64 = 65_536;
/// The only row of a sequence.
const ROW: RowId = RowId(1);

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceState {
    /// The number given last; before the first, the one that will be given first.
    pub last_value: i64,
    /// Numbers that can be given before the next reservation.
    pub log_cnt: i64,
    /// Whether `last_value` has been given.
    pub is_called: bool,
}

/// A number and what it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextValue {
    /// The number.
    pub value: i64,
    /// It may be shown only once this LSN is acknowledged; the transaction knows this already.
    pub depends: Lsn,
}

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceError<E> {
    /// The store refuses; see [`WriteError`], above all `Blocked`.
    Write(WriteError),
    /// The last number has been given (2200H).
    Exhausted {
        /// The sequence's name.
        sequence: String,
        /// The bound that was reached.
        bound: i64,
        /// Whether it is the upper one.
        is_maximum: bool,
    },
    /// The number is outside the sequence's bounds (22003).
    OutOfBounds {
        /// The sequence's name.
        sequence: String,
        /// Lowest and highest number.
        bounds: (i64, i64),
    },
    /// The reservation was not committed.
    Commit(E),
}

impl<E> From<WriteError> for SequenceError<E> {
    fn from(error: WriteError) -> SequenceError<E> {
        SequenceError::Write(error)
    }
}

/// The numbers at hand.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// The commit of the row that it was made from; None before the first use.
    based_on: Option<Lsn>,
    last: i64,
    is_called: bool,
    left: i64,
}

impl Store {
    /// Makes a sequence, which stands before its first number.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn create_sequence(&self, txn: &mut Txn, def: TableDef) -> Result<TableId, WriteError> {
        let Some(start) = def.sequence.as_ref().map(|s| s.start) else {
            let reason = format!("\"{}\" is not a sequence", def.name);
            return Err(WriteError::InvalidDefinition { reason });
        };
        let id = self.create_table(txn, def)?;
        self.insert(txn, id, row(start, false))?;
        Ok(id)
    }

    /// Changes a sequence's definition (its name, bounds, owner) and, with `restart`, where it stands:
    /// the number given next. Until the transaction ends nobody else gets a number.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn alter_sequence(
        &self,
        txn: &mut Txn,
        def: TableDef,
        restart: Option<i64>,
    ) -> Result<(), WriteError> {
        let id = def.id;
        self.inner.own_state(txn)?;
        let heap = self.inner.take_table(txn, id)?;
        let (last, is_called) = match restart {
            Some(start) => (start, false),
            None => {
                let mut counter = heap.counter.lock();
                match own_row(txn, &heap) {
                    Some((_, own)) => own,
                    None => {
                        counter.renew(&heap)?;
                        (counter.last, counter.is_called)
                    }
                }
            }
        };
        if **table_def(txn, id)? != def {
            self.alter_table(txn, def)?;
        }
        self.update(txn, id, ROW, row(last, is_called))
    }

    /// The next number. `commit` is given a transaction that must be committed now, on its own, when
    /// numbers have to be reserved; it is called while other sessions wait for the sequence.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub fn next_value<E>(
        &self,
        txn: &Txn,
        sequence: TableId,
        commit: impl FnOnce(Txn) -> Result<Lsn, E>,
    ) -> Result<NextValue, SequenceError<E>> {
        let table = Arc::clone(table_of(txn, sequence)?);
        let (def, heap) = (sequence_of(&table)?, &table.heap);
        let mut counter = heap.counter.lock();
        if let Some((cell, (last, is_called))) = own_row(txn, heap) {
            let value = if is_called { step(def, last).ok_or_else(|| end(&table))? } else { last };
            self.inner.replace_own(heap, &cell, row(value, true));
            return Ok(NextValue { value, depends: Lsn::ZERO });
        }
        self.inner.not_taken(txn, heap)?;
        if !counter.is_current(heap) || counter.left < 1 {
            // The row stands still from here on: the small transaction has entered the table.
            let mut small = self.small(txn);
            self.inner.enter(&mut small, sequence)?;
            counter.renew(heap)?;
            let (first, reserved) = ahead(def, &counter).ok_or_else(|| end(&table))?;
            self.update(&mut small, sequence, ROW, row(reserved.0, true))?;
            let lsn = commit(small).map_err(SequenceError::Commit)?;
            *counter =
                Counter { based_on: Some(lsn), last: first, is_called: true, left: reserved.1 };
        } else {
            counter.last = step(def, counter.last).ok_or_else(|| end(&table))?;
            counter.left -= 1;
        }
        let depends = counter.based_on.unwrap_or_default();
        txn.depend_on(depends);
        Ok(NextValue { value: counter.last, depends })
    }

    /// Sets where a sequence stands, for everybody and whatever becomes of the transaction.
    /// `is_called`: whether the number counts as given. `commit`: as for `next_value`.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub fn set_value<E>(
        &self,
        txn: &Txn,
        (sequence, value, is_called): (TableId, i64, bool),
        commit: impl FnOnce(Txn) -> Result<Lsn, E>,
    ) -> Result<NextValue, SequenceError<E>> {
        let table = Arc::clone(table_of(txn, sequence)?);
        let (def, heap) = (sequence_of(&table)?, &table.heap);
        if value < def.min || value > def.max {
            let sequence = table.def.name.clone();
            return Err(SequenceError::OutOfBounds { sequence, bounds: (def.min, def.max) });
        }
        let mut counter = heap.counter.lock();
        if let Some((cell, _)) = own_row(txn, heap) {
            self.inner.replace_own(heap, &cell, row(value, is_called));
            return Ok(NextValue { value, depends: Lsn::ZERO });
        }
        self.inner.not_taken(txn, heap)?;
        let mut small = self.small(txn);
        self.update(&mut small, sequence, ROW, row(value, is_called))?;
        let depends = commit(small).map_err(SequenceError::Commit)?;
        *counter = Counter { based_on: Some(depends), last: value, is_called, left: 0 };
        txn.depend_on(depends);
        Ok(NextValue { value, depends })
    }

    /// Where a sequence stands, as the transaction sees it.
    ///
    /// # Errors
    /// `Missing` when there is no such sequence.
    pub fn sequence_state(
        &self,
        txn: &Txn,
        sequence: TableId,
    ) -> Result<SequenceState, WriteError> {
        let table = table_of(txn, sequence)?;
        let heap = &table.heap;
        let counter = heap.counter.lock();
        if let Some((_, (last_value, is_called))) = own_row(txn, heap) {
            return Ok(SequenceState { last_value, log_cnt: 0, is_called });
        }
        if counter.is_current(heap) {
            txn.depend_on(counter.based_on.unwrap_or_default());
            let Counter { last: last_value, is_called, left: log_cnt, .. } = *counter;
            return Ok(SequenceState { last_value, log_cnt, is_called });
        }
        drop(counter);
        let seen = heap.cell(ROW).and_then(|cell| {
            let reader = txn.reader(crate::visibility::View::Committed);
            cell.chain.lock().visible(reader).and_then(|v| v.row.as_ref().and_then(read))
        });
        let (last_value, is_called) = seen.ok_or_else(|| missing(&table.def.name))?;
        Ok(SequenceState { last_value, log_cnt: 0, is_called })
    }

    /// A transaction beside the one that needs it.
    fn small(&self, txn: &Txn) -> Txn {
        let mut small = self.begin(Isolation::ReadCommitted);
        small.on_behalf = txn.id;
        small
    }
}

impl Inner {
    /// Refuses while somebody else changes or drops the sequence. Called under the counter's mutex.
    fn not_taken(&self, txn: &Txn, heap: &Heap) -> Result<(), WriteError> {
        match heap.changer() {
            TxnId::ENDED => Ok(()),
            on if on == txn.id => Ok(()),
            on => Err(WriteError::Blocked { on }),
        }
    }

    /// Puts another row into the transaction's own version, which nobody else can see yet.
    fn replace_own(&self, heap: &Heap, cell: &RowCell, new: Row) {
        let mut chain = cell.chain.lock();
        let Some(newest) = chain.newest.as_mut() else { return };
        let before = Inner::version_bytes(newest.row.as_ref());
        let after = Inner::version_bytes(Some(&new));
        newest.row = Some(new);
        drop(chain);
        if after > before {
            self.accountant.charge_always(Pool::Permanent, after - before);
            heap.bytes.add(after - before);
        } else {
            heap.bytes.give_back(&self.accountant, before - after);
        }
    }
}

impl Counter {
    /// Whether it was made from the row's newest commit.
    fn is_current(&self, heap: &Heap) -> bool {
        self.based_on == Some(Lsn(heap.last_commit.load(SeqCst)))
    }

    /// Makes it from the row's newest commit, unless it is.
    fn renew(&mut self, heap: &Heap) -> Result<(), WriteError> {
        if self.is_current(heap) {
            return Ok(());
        }
        let newest = heap.cell(ROW).and_then(|cell| {
            let chain = cell.chain.lock();
            let newest = chain.newest_committed()?;
            Some((newest.stamp, newest.row.as_ref().and_then(read)?))
        });
        let (stamp, (last, is_called)) = newest.ok_or_else(|| missing("sequence"))?;
        *self = Counter { based_on: Some(stamp), last, is_called, left: 0 };
        Ok(())
    }
}

/// The number given next and, after the whole block, where the row stands and how many are left.
/// None when the last number has been given.
fn ahead(def: &SequenceDef, counter: &Counter) -> Option<(i64, (i64, i64))> {
    let first = if counter.is_called { step(def, counter.last)? } else { counter.last };
    let (mut reserved, mut left) = (first, 0);
    while left < def.cache.clamp(AHEAD, AHEAD_MAX) {
        let Some(next) = step(def, reserved) else { break };
        reserved = next;
        left += 1;
    }
    Some((first, (reserved, left)))
}

/// The number after another; None behind the last one.
fn step(def: &SequenceDef, last: i64) -> Option<i64> {
    let next = last.checked_add(def.increment);
    let again = if def.increment > 0 { def.min } else { def.max };
    next.filter(|next| (def.min..=def.max).contains(next)).or(def.cycle.then_some(again))
}

fn end<E>(table: &Table) -> SequenceError<E> {
    let (bound, is_maximum) = match &table.def.sequence {
        Some(def) if def.increment > 0 => (def.max, true),
        Some(def) => (def.min, false),
        None => (0, true),
    };
    SequenceError::Exhausted { sequence: table.def.name.clone(), bound, is_maximum }
}

fn sequence_of(table: &Table) -> Result<&SequenceDef, WriteError> {
    table.def.sequence.as_ref().ok_or_else(|| missing(&table.def.name))
}

fn table_def(txn: &Txn, id: TableId) -> Result<&Arc<TableDef>, WriteError> {
    table_of(txn, id).map(|table| &table.def)
}

fn missing(name: &str) -> WriteError {
    WriteError::Missing { what: format!("sequence \"{name}\"") }
}

/// The transaction's own version of the row, when it has one.
fn own_row(txn: &Txn, heap: &Heap) -> Option<(Arc<RowCell>, (i64, bool))> {
    if txn.id == TxnId::ENDED {
        return None;
    }
    let cell = heap.cell(ROW).filter(|cell| is_live(cell))?;
    let chain = cell.chain.lock();
    let newest = chain.newest.as_ref().filter(|v| v.stamp == UNCOMMITTED)?;
    let own = (chain.locker == txn.id).then(|| newest.row.as_ref().and_then(read))??;
    drop(chain);
    Some((cell, own))
}

fn row(last: i64, is_called: bool) -> Row {
    Row::encode(&[Value::Int(last), Value::Int(0), Value::Bool(is_called)])
}

fn read(row: &Row) -> Option<(i64, bool)> {
    Some((row.int(0)?, row.raw(2)? != [0]))
}
