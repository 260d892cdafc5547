//! A transaction: its snapshot, what it has done so far, and how much of that can be undone.
//!
//! Everything a transaction changes lies in the rows' chains from the moment of the change; here is
//! only the list that finds those places again, for commit, for the log and for undo. Invariants: the
//! list is in order of execution; `first` marks the operation by which the transaction came to hold
//! the row, so the marked operations name each changed row once; a transaction that is dropped
//! without commit is rolled back.

use crate::{
    catalog::Catalog,
    counts::RowChanges,
    error::WriteError,
    heap::{Heap, State},
    index::{IndexData, Uniqueness},
    lock_wait::{Slot, TxnId},
    redo::Ddl,
    reference::Changed,
    row::RowId,
    shares::Place,
    store::{FREE, Inner},
    sync::{AtomicU64, Mutex, MutexGuard},
    table::TableId,
    version::{Reader, RowCell},
    visibility::View,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use understudy_types::{CommitToken, Lsn};

/// How far a transaction is kept apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Each statement sees what is visible when it begins.
    #[default]
    ReadCommitted,
    /// All statements see one snapshot; a row changed since cannot be written.
    RepeatableRead,
    /// As if transactions ran one after the other, in commit order: what was read is checked again
    /// at commit (`Store::validate`).
    Serializable,
}

/// One transaction. Made by `Store::begin`, ended by `Store::commit` or `Store::rollback`; dropping it
/// rolls it back.
#[derive(Debug)]
pub struct Txn {
    pub(crate) inner: Arc<Inner>,
    pub(crate) slot: Option<Arc<Slot>>,
    pub(crate) id: TxnId,
    pub(crate) isolation: Isolation,
    /// What plain reads see.
    pub(crate) snapshot: Lsn,
    /// What reads for update see.
    pub(crate) current: Lsn,
    /// The same when the statement began: its end looks afresh (`reference`).
    pub(crate) began: Lsn,
    pub(crate) state: Arc<State>,
    /// Whether `state` has changes of this transaction's own.
    pub(crate) state_is_own: bool,
    /// Tables entered; operations name them by position.
    pub(crate) tables: Vec<Entered>,
    pub(crate) operations: Vec<Operation>,
    /// None for most transactions, so that they are small and quickly gone.
    pub(crate) seldom: Option<Box<Seldom>>,
    pub(crate) depends: AtomicU64,
    /// The row that was last looked up for update, which is the one that is written next.
    pub(crate) last: Mutex<Option<(TableId, Arc<RowCell>)>>,
    /// Bytes of `operations` and `Seldom::unchecked` charged to the temporary size.
    pub(crate) temporary: u64,
    /// Reading of the registry's counter of releases when the statement began.
    pub(crate) releases: u64,
    /// The transaction whose statement waits for this one (see `sequence`); `ENDED` for none. What
    /// it has taken is no obstacle to this one.
    pub(crate) on_behalf: TxnId,
}

/// What few transactions have.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// Changes of the running statement that foreign keys have a say in, in order.
    pub(crate) unchecked: VecDeque<Changed>,
    /// While the transaction is stamped: the shares that end with it.
    pub(crate) shares: Vec<Place>,
    /// Tables whose `changer` is this transaction.
    pub(crate) changing: Vec<Arc<Heap>>,
    /// Raised by whoever wants a long change of definitions to end.
    stop: Option<Arc<AtomicBool>>,
    /// Kept only under SERIALIZABLE.
    reads: Mutex<ReadSet>,
}

/// A table that the transaction writes.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) heap: Arc<Heap>,
    /// While the transaction is stamped: what it changes in the sum of row hashes; None for nothing.
    pub(crate) hash_delta: Option<u128>,
    /// And what it changes in the counts.
    pub(crate) changes: RowChanges,
}

/// One thing done.
#[derive(Debug)]
pub(crate) enum Operation {
    /// A version was pushed, or a row locked.
    Row {
        cell: Arc<RowCell>,
        /// Position in `Txn::tables`.
        table: u32,
        kind: Kind,
        /// Whether the transaction came to hold the row by this operation.
        first: bool,
    },
    /// The key of a row is shared, because an own row references it.
    Share(TableId, RowId),
    /// A definition was changed.
    Ddl(Box<Ddl>),
    /// An index was built; undone with it.
    IndexAdded(Arc<Heap>, Arc<IndexData>),
    /// An index is to be forgotten at commit.
    IndexDropped(Arc<Heap>, Arc<IndexData>),
    /// A table is to be forgotten at commit.
    TableDropped(Arc<Heap>),
    /// The name that its client knows it by.
    Token(CommitToken),
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Insert,
    Update,
    Delete,
    /// Deleted by TRUNCATE, which the log says once for the whole table.
    Truncate,
    /// Only locked.
    Lock,
}

/// Single rows and ranges that a SERIALIZABLE transaction remembers one by one; beyond that it
/// remembers whole tables, which bounds its memory and the time of its validation.
const READS_MAX: usize = 4096;

/// What a SERIALIZABLE transaction has read.
#[derive(Debug, Default)]
pub(crate) struct ReadSet {
    pub(crate) rows: Vec<Arc<RowCell>>,
    pub(crate) tables: Vec<Arc<Heap>>,
    pub(crate) ranges: Vec<(Arc<IndexData>, Vec<u8>, Vec<u8>)>,
}

impl ReadSet {
    /// A whole table.
    pub(crate) fn add_table(&mut self, heap: &Arc<Heap>) {
        if !self.tables.iter().any(|h| Arc::ptr_eq(h, heap)) {
            self.tables.push(Arc::clone(heap));
        }
    }

    /// A row by its id.
    pub(crate) fn add_row(&mut self, heap: &Arc<Heap>, cell: &Arc<RowCell>) {
        if self.rows.len() < READS_MAX {
            self.rows.push(Arc::clone(cell));
        } else {
            self.add_table(heap);
        }
    }

    /// A range of keys, or a key.
    pub(crate) fn add_range(
        &mut self,
        heap: &Arc<Heap>,
        index: &Arc<IndexData>,
        (from, to): (Vec<u8>, Vec<u8>),
    ) {
        if self.ranges.len() < READS_MAX {
            self.ranges.push((Arc::clone(index), from, to));
        } else {
            self.add_table(heap);
        }
    }
}

/// What a statement that is executed again after a wait reads where it changes or locks rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// The rows that it found before; those that changed are judged anew one by one.
    Kept,
    /// Whatever is committed by now.
    Renewed,
}

/// A place in a transaction to which it can be rolled back: a SQL savepoint, or the beginning of a
/// statement. Using one that lies behind a place rolled back to already does nothing.
#[derive(Debug, Clone)]
pub struct Mark {
    pub(crate) operations: usize,
    pub(crate) unchecked: usize,
    /// The definitions at the mark, when they were the transaction's own.
    pub(crate) state: Option<Arc<State>>,
}

impl Txn {
    /// Its id; `TxnId::ENDED` until it first writes or locks.
    #[must_use]
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// Names it: its record carries the token, also when it changes no row. Called last, before the
    /// commit.
    pub fn name(&mut self, token: CommitToken) {
        self.operations.push(Operation::Token(token));
    }

    /// The token that it was named by.
    #[must_use]
    pub fn token(&self) -> Option<CommitToken> {
        match self.operations.last()? {
            Operation::Token(token) => Some(*token),
            Operation::Row { .. }
            | Operation::Share(..)
            | Operation::Ddl(_)
            | Operation::IndexAdded(..)
            | Operation::IndexDropped(..)
            | Operation::TableDropped(_) => None,
        }
    }

    /// Says whose it is, for those who look at what runs.
    pub fn belongs_to(&self, session: i32) {
        self.slot().set_session(session);
    }

    /// Operations that it remembers, and the bytes of temporary memory charged for them and for its notes.
    #[must_use]
    pub fn extent(&self) -> (u64, u64) {
        (self.operations.len() as u64, self.temporary)
    }

    /// Its isolation level.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// The LSN that its plain reads see.
    #[must_use]
    pub fn snapshot(&self) -> Lsn {
        self.snapshot
    }

    /// The definitions that the present statement works with, its own changes included.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.state.catalog
    }

    /// Whether definitions have changed since its snapshot. What a change of definitions did to rows
    /// is not in what it reads then: an index that came with new columns does not find its rows.
    #[must_use]
    pub fn has_older_rows(&self) -> bool {
        self.state.since > self.snapshot
    }

    /// Whether it has changed nothing so far (locks do not count).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.operations.iter().all(|operation| match operation {
            Operation::Row { kind, .. } => *kind == Kind::Lock,
            Operation::Share(..) => true,
            Operation::Ddl(_) | Operation::Token(_) => false,
            Operation::IndexAdded(..) | Operation::IndexDropped(..) => false,
            Operation::TableDropped(_) => false,
        })
    }

    /// Rows, errors and the commit of a read-only transaction may reach a client only once this LSN is
    /// acknowledged (A2.9). Zero when nothing pending was touched.
    #[must_use]
    pub fn depends_lsn(&self) -> Lsn {
        Lsn(self.depends.load(Relaxed))
    }

    /// What the transaction shows depends on this LSN too.
    pub fn depend(&self, lsn: Lsn) {
        self.depend_on(lsn);
    }

    pub(crate) fn depend_on(&self, lsn: Lsn) {
        self.depends.fetch_max(lsn.0, Relaxed);
    }

    /// Who reads under this view.
    pub(crate) fn reader(&self, view: View) -> Reader {
        let for_update = view == View::ForUpdate && self.isolation == Isolation::ReadCommitted;
        let snapshot = if for_update { self.current } else { self.snapshot };
        Reader { snapshot, own: self.id }
    }

    /// How this transaction's writes check unique keys. An update is judged by the newest owner of the
    /// key, as its row is.
    pub(crate) fn uniqueness(&self, is_update: bool) -> Uniqueness {
        let by_statement = self.isolation == Isolation::ReadCommitted && !is_update;
        let current = if by_statement { self.current } else { Lsn::MAX };
        Uniqueness::Check { me: self.id, visible: self.snapshot, current }
    }

    /// From now on, building an index, emptying a table and checking all rows against a foreign key end
    /// with `WriteError::Stopped` once the flag is raised.
    pub fn heed(&mut self, stop: Arc<AtomicBool>) {
        self.seldom().stop = Some(stop);
    }

    /// Asked for each batch of rows.
    pub(crate) fn goes_on(&self) -> Result<(), WriteError> {
        let stop = self.seldom.as_ref().and_then(|seldom| seldom.stop.as_ref());
        if stop.is_some_and(|stop| stop.load(Relaxed)) {
            return Err(WriteError::Stopped);
        }
        Ok(())
    }

    pub(crate) fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// What it has read; None unless it is SERIALIZABLE.
    pub(crate) fn reads(&self) -> Option<MutexGuard<'_, ReadSet>> {
        let seldom = self.seldom.as_ref().filter(|_| self.isolation == Isolation::Serializable)?;
        Some(seldom.reads.lock())
    }

    /// Takes the room for lists that the slot's last user left, before anything is in them.
    pub(crate) fn take_room(&mut self) {
        if let Some(slot) = self.slot.as_ref().filter(|_| self.operations.is_empty()) {
            slot.exchange(&mut self.tables, &mut self.operations);
        }
    }

    /// Leaves the room of its lists to the slot's next user; long ones, which are charged, are let go.
    pub(crate) fn leave_room(&mut self) {
        let most = self.tables.capacity().max(self.operations.capacity());
        if let Some(slot) = self.slot.as_ref().filter(|_| most <= FREE) {
            self.tables.clear();
            self.operations.clear();
            slot.exchange(&mut self.tables, &mut self.operations);
        }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        self.slot.as_ref().expect("a transaction has its slot until it ends")
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        if self.slot.is_some() {
            let inner = Arc::clone(&self.inner);
            inner.end_rolled_back(self);
        }
    }
}
