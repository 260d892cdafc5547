//! The store itself: begin, statement, savepoints, commit and rollback.
//!
//! The caller's commit section (one short lock of its own) calls, in this order: `validate` (only
//! SERIALIZABLE), `redo`, its log's append, `commit`. Everything else may be called from any thread
//! at any time. Invariants: `commit` is called with increasing LSNs and never twice at once;
//! `apply` is called by one thread and never beside `commit`.

use crate::{
    catalog::{Catalog, FreshIds},
    error::{Deadlock, SerializationFailure, WriteError},
    heap::{Heap, State, Table},
    lock_wait::{LockWait, Registry, TxnId},
    memory::{
        Accountant, IndexMemory, MemoryLimits, MemoryReport, OPERATION_BYTES, Pool, TableMemory,
        TemporaryMemory, VERSION_BYTES,
    },
    reclaim::{Garbage, Reclamation},
    redo,
    reference::Changed,
    row::Row,
    shares::Shares,
    sync::{AtomicU64, Mutex},
    tokens::{TokenFate, Tokens},
    txn::{Entered, Isolation, Kind, Mark, Operation, Targets, Txn},
    visibility::Visibility,
};
use arc_swap::ArcSwap;
use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};
use understudy_types::{CommitToken, Epoch, Lsn};

/// Operations, notes for the end of a statement or rows that follow a key: so many may be remembered
/// before they are charged.
pub(crate) const FREE: usize = 64;

/// A database in memory. Cloning makes another handle of the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) visibility: Visibility,
    pub(crate) registry: Arc<Registry>,
    pub(crate) accountant: Arc<Accountant>,
    /// The newest committed definitions.
    pub(crate) state: ArcSwap<State>,
    /// Older definitions that a checkpoint may still need, oldest first, the newest included.
    pub(crate) history: Mutex<Vec<Arc<State>>>,
    /// The transaction that changes definitions; zero when none.
    pub(crate) changer: AtomicU64,
    pub(crate) fresh_ids: FreshIds,
    pub(crate) reclamation: Reclamation,
    pub(crate) tokens: Tokens,
    pub(crate) shares: Shares,
}

impl Store {
    /// An empty store before the first record.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Store {
        Store::at(limits, Lsn::ZERO, (State::empty(Lsn::ZERO), Tokens::default()))
    }

    pub(crate) fn at(limits: MemoryLimits, lsn: Lsn, (state, tokens): (State, Tokens)) -> Store {
        let state = Arc::new(state);
        Store {
            inner: Arc::new(Inner {
                visibility: Visibility::new(lsn),
                registry: Arc::new(Registry::new()),
                accountant: Arc::new(Accountant::new(limits)),
                history: Mutex::new(vec![Arc::clone(&state)]),
                state: ArcSwap::new(state),
                changer: AtomicU64::new(0),
                fresh_ids: FreshIds::default(),
                reclamation: Reclamation::new(),
                tokens,
                shares: Shares::new(),
            }),
        }
    }

    /// Changes the limits; what is used already stays.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.inner.accountant.set_limits(limits);
    }

    /// Begins a transaction, and its first statement, on what is visible now.
    #[must_use]
    pub fn begin(&self, isolation: Isolation) -> Txn {
        let inner = &self.inner;
        let releases = inner.registry.releases();
        let slot = inner.registry.borrow();
        let snapshot = inner.visibility.snapshot(&slot);
        let current = inner.visibility.committed();
        let state = inner.state.load_full();
        let defined = if state.since > snapshot { state.since } else { Lsn::ZERO };
        let depends = defined.max(inner.visibility.owed());
        Txn {
            inner: Arc::clone(inner),
            slot: Some(slot),
            id: TxnId::ENDED,
            isolation,
            snapshot,
            current,
            began: current,
            state,
            state_is_own: false,
            tables: Vec::new(),
            operations: Vec::new(),
            seldom: (isolation == Isolation::Serializable).then(Box::default),
            depends: AtomicU64::new(depends.0),
            last: Mutex::new(None),
            temporary: 0,
            releases,
            on_behalf: TxnId::ENDED,
        }
    }

    /// Begins a statement: under READ COMMITTED with a new snapshot, always with the newest
    /// definitions. The mark undoes the statement with `rollback_to`.
    pub fn statement(&self, txn: &mut Txn) -> Mark {
        let inner = &self.inner;
        if txn.isolation == Isolation::ReadCommitted {
            txn.snapshot = inner.visibility.snapshot(txn.slot());
        }
        self.again(txn, Targets::Renewed)
    }

    /// Begins the same statement again, which was undone and has waited: on its snapshot, with the newest
    /// definitions.
    pub fn again(&self, txn: &mut Txn, targets: Targets) -> Mark {
        let inner = &self.inner;
        txn.releases = inner.registry.releases();
        if txn.isolation == Isolation::ReadCommitted && targets == Targets::Renewed {
            txn.began = inner.visibility.committed();
        }
        txn.current = txn.began;
        if !txn.state_is_own {
            let newest = inner.state.load();
            if !Arc::ptr_eq(&newest, &txn.state) {
                txn.state = Arc::clone(&newest);
                if txn.state.since > txn.snapshot {
                    txn.depend_on(txn.state.since);
                }
            }
        }
        self.savepoint(txn)
    }

    /// Marks this place.
    #[must_use]
    pub fn savepoint(&self, txn: &Txn) -> Mark {
        let state = txn.state_is_own.then(|| Arc::clone(&txn.state));
        let unchecked = txn.seldom.as_ref().map_or(0, |seldom| seldom.unchecked.len());
        Mark { operations: txn.operations.len(), unchecked, state }
    }

    /// Undoes everything after the mark. Row locks taken after it are given back, and who waits for
    /// this transaction looks again. Table locks stay until the end.
    pub fn rollback_to(&self, txn: &mut Txn, mark: &Mark) {
        if let Some(seldom) = &mut txn.seldom {
            seldom.unchecked.truncate(mark.unchecked);
        }
        if txn.operations.len() > mark.operations {
            self.inner.undo(txn, mark.operations);
            self.inner.registry.note_release(txn.slot());
        }
        match &mark.state {
            Some(state) => txn.state = Arc::clone(state),
            None if txn.state_is_own => {
                txn.state = self.inner.state.load_full();
                txn.state_is_own = false;
            }
            None => {}
        }
    }

    /// Waits for a transaction that blocked a statement of `waiter`, which has undone that statement.
    ///
    /// # Errors
    /// `Deadlock` when the wait would close a circle: roll `waiter` back.
    pub fn wait(&self, waiter: &Txn, on: TxnId) -> Result<LockWait, Deadlock> {
        self.inner.registry.wait(waiter.id, on, waiter.releases)
    }

    /// Checks what a SERIALIZABLE transaction read; nothing to check for the others and for those that
    /// only read. Call it in the commit section, before `redo`.
    ///
    /// # Errors
    /// When something read has been changed by a later commit: roll the transaction back.
    pub fn validate(&self, txn: &Txn) -> Result<(), SerializationFailure> {
        let Some(reads) = txn.reads().filter(|_| !txn.is_read_only()) else { return Ok(()) };
        let mut stale = reads.tables.iter().any(|t| t.last_commit.load(SeqCst) > txn.snapshot.0);
        stale = stale || reads.rows.iter().any(|cell| is_newer(cell, txn));
        for (index, from, to) in &reads.ranges {
            index.map.visit(from, to, |_, cells| {
                stale = stale || cells.iter().any(|cell| is_newer(cell, txn));
                !stale
            });
        }
        if stale { Err(SerializationFailure) } else { Ok(()) }
    }

    /// The record of everything that the transaction changed; empty when it changed nothing.
    #[must_use]
    pub fn redo(&self, txn: &Txn) -> Vec<u8> {
        // Outside the commit section, by the one who makes the garbage.
        self.inner.reclaim_share(txn.operations.len());
        redo::encode(txn)
    }

    /// Commits a transaction whose record has this LSN: stamps its versions and gives its locks back.
    /// A transaction without changes may be committed with any LSN; it leaves no trace.
    pub fn commit(&self, mut txn: Txn, lsn: Lsn) {
        let inner = &self.inner;
        if txn.is_read_only() {
            inner.end_rolled_back(&mut txn);
            return;
        }
        assert!(lsn > inner.visibility.committed(), "commits are stamped in LSN order (law 10)");
        inner.stamp(&mut txn, lsn);
        inner.visibility.commit(lsn);
        inner.end(&mut txn);
    }

    /// Undoes everything and gives all locks back.
    pub fn rollback(&self, mut txn: Txn) {
        self.inner.end_rolled_back(&mut txn);
    }

    /// Passes over a record without content for the store (an epoch's first record), so that
    /// `committed` and `visible` keep up with the log.
    pub fn advance(&self, lsn: Lsn) {
        self.inner.visibility.commit(lsn);
    }

    /// Everything up to this LSN is acknowledged. Lower values than before change nothing; what is
    /// not stamped yet becomes visible with its commit.
    pub fn set_visible(&self, lsn: Lsn) {
        self.inner.visibility.acknowledge(lsn);
    }

    /// Passes over the first record of an epoch. `is_lossy`: commits that had been acknowledged are
    /// missing before it.
    pub fn begin_epoch(&self, lsn: Lsn, epoch: Epoch, is_lossy: bool) {
        if is_lossy {
            self.inner.tokens.note_lossy(epoch);
        }
        self.advance(lsn);
    }

    /// What this history says of a token.
    #[must_use]
    pub fn fate_of(&self, token: CommitToken) -> TokenFate {
        self.inner.tokens.fate(token)
    }

    /// The newest epoch that began without commits which had been acknowledged.
    #[must_use]
    pub fn lossy_epoch(&self) -> Option<Epoch> {
        self.inner.tokens.lossy()
    }

    /// What every read depends on (`Txn::depends_lsn`), where a replay had no room for what its records replaced
    /// (`Tail::MayGo`) and `visible` is ahead of `acknowledged`; zero elsewhere.
    #[must_use]
    pub fn owed(&self) -> Lsn {
        self.inner.visibility.owed()
    }

    /// Everything up to here is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Lsn {
        self.inner.visibility.acknowledged()
    }

    /// What a new snapshot sees.
    #[must_use]
    pub fn visible(&self) -> Lsn {
        self.inner.visibility.visible()
    }

    /// The newest LSN whose commit is stamped, or was passed over.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        self.inner.visibility.committed()
    }

    /// The newest committed definitions.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.inner.state.load().catalog)
    }

    /// The definitions that the next statement works with, in a transaction if one is open, and the commit that
    /// made them: the newest, unless the transaction has changed some itself.
    #[must_use]
    pub fn definitions(&self, txn: Option<&Txn>) -> (Arc<Catalog>, Lsn) {
        let newest = self.inner.state.load();
        let own = txn.filter(|txn| txn.state_is_own).map(|txn| &*txn.state);
        let state = own.unwrap_or(&**newest);
        (Arc::clone(&state.catalog), state.since)
    }

    /// Rows of a table, about: those that are not reclaimed yet and those of open transactions count. Zero
    /// for a table that there is not.
    #[must_use]
    pub fn rows_about(&self, table: crate::table::TableId) -> u64 {
        let state = self.inner.state.load();
        state.table(table).map_or(0, |table| table.heap.row_count.load(Relaxed))
    }

    /// Temporary memory for a query; charged as it grows, given back when dropped.
    #[must_use]
    pub fn temporary_memory(&self) -> TemporaryMemory {
        TemporaryMemory::new(Arc::clone(&self.inner.accountant))
    }

    /// What is used, by table and index.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        let state = self.inner.state.load();
        let accountant = &self.inner.accountant;
        MemoryReport {
            permanent_used: accountant.used(Pool::Permanent),
            permanent_limit: accountant.limit(Pool::Permanent),
            temporary_used: accountant.used(Pool::Temporary),
            temporary_limit: accountant.limit(Pool::Temporary),
            tables: state.tables().map(|table| table_memory(table)).collect(),
            reclaimable_items: self.inner.reclamation.waiting(),
        }
    }
}

impl Inner {
    /// Remembers an operation, and charges for it when there are many.
    pub(crate) fn remember(&self, txn: &mut Txn, operation: Operation) -> Result<(), WriteError> {
        let (length, capacity) = (txn.operations.len(), txn.operations.capacity());
        self.charge_growth(txn, (length, capacity), OPERATION_BYTES)?;
        txn.operations.push(operation);
        Ok(())
    }

    /// Notes a change for the end of the statement, and charges for the notes when there are many.
    pub(crate) fn note(&self, txn: &mut Txn, changed: Changed) -> Result<(), WriteError> {
        let notes = &txn.seldom().unchecked;
        let (length, capacity) = (notes.len(), notes.capacity());
        self.charge_growth(txn, (length, capacity), size_of::<Changed>() as u64)?;
        txn.seldom().unchecked.push_back(changed);
        Ok(())
    }

    /// Charges a transaction for a list that doubles with the next item of so many bytes.
    #[inline]
    fn charge_growth(
        &self,
        txn: &mut Txn,
        (length, capacity): (usize, usize),
        item: u64,
    ) -> Result<(), WriteError> {
        if length >= FREE && length == capacity {
            let bytes = length as u64 * item;
            self.accountant.charge(Pool::Temporary, bytes)?;
            txn.temporary += bytes;
        }
        Ok(())
    }

    /// Undoes operations from the end down to `keep`.
    pub(crate) fn undo(&self, txn: &mut Txn, keep: usize) {
        while txn.operations.len() > keep {
            match txn.operations.pop() {
                Some(Operation::Row { cell, table, kind, first }) => {
                    let heap = Arc::clone(&txn.tables[table as usize].heap);
                    self.undo_row(&heap, &cell, kind, first);
                }
                Some(Operation::Share(table, row)) => self.shares.remove((table, row), txn.id),
                Some(Operation::IndexAdded(heap, index)) => {
                    heap.kept_up.write().retain(|i| !Arc::ptr_eq(i, &index));
                    index.bytes.give_back_all(&self.accountant);
                }
                Some(Operation::Ddl(_) | Operation::IndexDropped(..)) => {}
                Some(Operation::TableDropped(_) | Operation::Token(_)) | None => {}
            }
        }
    }

    fn undo_row(&self, heap: &Heap, cell: &Arc<crate::version::RowCell>, kind: Kind, first: bool) {
        let (row, gone, moved) = {
            let mut chain = cell.chain.lock();
            let row = if kind == Kind::Lock { None } else { chain.pop() };
            if first {
                chain.locker = TxnId::ENDED;
            }
            (row, chain.newest.is_none(), chain.moved)
        };
        if kind == Kind::Lock {
            return;
        }
        self.release_versions(heap, 1, row.as_slice());
        if gone {
            heap.take_cell(&self.accountant, cell.id);
        }
        if let Some(row) = row
            && (gone || moved)
        {
            self.remove_entries(heap, cell, &[row]);
        }
    }

    /// Takes the index entries of versions away that are gone, where no other version has the key.
    pub(crate) fn remove_entries(
        &self,
        heap: &Heap,
        cell: &Arc<crate::version::RowCell>,
        gone: &[Row],
    ) {
        for index in heap.kept_up.read().iter() {
            index.remove_unused(&self.accountant, cell, gone);
        }
    }

    /// Bytes of a version with these columns.
    pub(crate) fn version_bytes(row: Option<&Row>) -> u64 {
        VERSION_BYTES + row.map_or(0, Row::heap_bytes)
    }

    /// Gives back versions: `count` of them, of which `rows` had columns.
    pub(crate) fn release_versions(&self, heap: &Heap, count: u64, rows: &[Row]) {
        let columns: u64 = rows.iter().map(Row::heap_bytes).sum();
        let bytes = count * VERSION_BYTES + columns;
        heap.bytes.give_back(&self.accountant, bytes);
    }

    /// Stamps every version of the transaction, and publishes its definitions.
    fn stamp(&self, txn: &mut Txn, lsn: Lsn) {
        let mut garbage = self.reclamation.notes();
        let mut dropped: Vec<Arc<Heap>> = Vec::new();
        let Txn { operations, tables, seldom, .. } = txn;
        for operation in operations.drain(..) {
            match operation {
                Operation::Row { cell, table, kind, first: true } => {
                    let Entered { heap, hash_delta, changes } = &mut tables[table as usize];
                    let (stamped, old) = {
                        let mut chain = cell.chain.lock();
                        let stamped = chain.commit(lsn);
                        let newest = chain.newest.as_ref();
                        // A row that came and went changes no content.
                        let lasting = newest.is_some_and(|v| v.row.is_some() || v.older.is_some());
                        if stamped.is_some() && lasting {
                            let delta = hash_delta.get_or_insert(0);
                            *delta = delta.wrapping_add(chain.hash_delta(cell.id));
                            let is_there = newest.is_some_and(|v| v.row.is_some());
                            changes.add(kind == Kind::Insert, is_there);
                        }
                        (stamped, newest.is_some_and(|v| v.older.is_some() || v.row.is_none()))
                    };
                    let Some((merged, rows)) = stamped else { continue };
                    if merged > 0 {
                        self.release_versions(heap, merged, &rows);
                    }
                    if old || !rows.is_empty() {
                        changes.noted += 1;
                        garbage.add(Garbage { lsn, table: heap.id, cell, rows });
                    }
                }
                // Its version was merged into the row's newest one; a lock had none.
                Operation::Row { first: false, .. } => {}
                Operation::Share(table, row) => {
                    seldom.get_or_insert_default().shares.push((table, row));
                }
                Operation::Ddl(_) | Operation::IndexAdded(..) => {}
                Operation::IndexDropped(heap, index) => {
                    heap.kept_up.write().retain(|i| !Arc::ptr_eq(i, &index));
                    index.bytes.give_back_all(&self.accountant);
                }
                Operation::TableDropped(heap) => dropped.push(heap),
                Operation::Token(token) => self.tokens.note(token, lsn),
            }
        }
        drop(garbage);
        for Entered { heap, hash_delta, changes } in tables {
            if let Some(delta) = hash_delta {
                heap.note_commit(lsn, *delta);
            }
            heap.counts.add(*changes);
        }
        if txn.state_is_own {
            self.publish(txn.state.since(lsn));
        }
        for heap in dropped {
            self.release_table(&heap);
        }
    }

    /// Makes definitions the newest ones.
    pub(crate) fn publish(&self, state: State) {
        let state = Arc::new(state);
        self.history.lock().push(Arc::clone(&state));
        self.state.store(state);
    }

    /// Gives back the memory of a table that was dropped. Its rows live on until the last reader of
    /// the old definitions has gone, which is not charged to anybody.
    pub(crate) fn release_table(&self, heap: &Heap) {
        heap.bytes.give_back_all(&self.accountant);
        for index in heap.kept_up.read().iter() {
            index.bytes.give_back_all(&self.accountant);
        }
    }

    /// Undoes everything and ends the transaction.
    pub(crate) fn end_rolled_back(&self, txn: &mut Txn) {
        self.undo(txn, 0);
        self.end(txn);
    }

    /// Gives back what the transaction holds beside its row locks, which are gone already.
    fn end(&self, txn: &mut Txn) {
        // After the commit is stamped: whoever waits for a key sees the rows that reference it.
        if let Some(seldom) = txn.seldom.take() {
            for place in seldom.shares {
                self.shares.remove(place, txn.id);
            }
            for heap in seldom.changing {
                heap.changer.store(0, SeqCst);
            }
        }
        if txn.id != TxnId::ENDED && self.changer.load(Relaxed) == txn.id.0 {
            self.changer.store(0, SeqCst);
        }
        if txn.temporary > 0 {
            self.accountant.release(Pool::Temporary, txn.temporary);
        }
        if txn.id != TxnId::ENDED {
            txn.leave_room();
        }
        if let Some(slot) = txn.slot.take() {
            self.registry.give_back(slot);
        }
    }
}

/// Whether somebody else has committed a version of the row after the snapshot.
fn is_newer(cell: &crate::version::RowCell, txn: &Txn) -> bool {
    cell.chain.lock().newest_committed().is_some_and(|v| v.stamp > txn.snapshot)
}

fn table_memory(table: &Table) -> TableMemory {
    TableMemory {
        table: table.def.id,
        name: format!("{}.{}", table.def.schema, table.def.name),
        rows: table.heap.row_count.load(Relaxed),
        row_bytes: table.heap.bytes.bytes(),
        indexes: table
            .indexes
            .iter()
            .map(|index| IndexMemory {
                index: index.def.id,
                name: index.def.name.clone(),
                entries: index.entries.load(Relaxed),
                bytes: index.bytes.bytes(),
            })
            .collect(),
    }
}
