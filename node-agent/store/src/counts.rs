//! What is counted of tables, indexes and transactions, for whoever looks. Nothing here decides anything.
//!
//! Changes of rows are counted with the commit that makes them, reads where an index or a table is taken
//! up: one relaxed addition each, on a cache line that a thread mostly has for itself ([`Tally`]).
//!
//! Caveats: counts begin with the process and are not in the log; a rolled back change is not counted;
//! rows that a read saw are not counted one by one.

use crate::{
    heap::Table,
    lock_wait::{TxnId, pool_of_thread},
    store::{Inner, Store},
    table::{IndexId, TableId},
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use understudy_types::Lsn;

/// Parts of a tally: as many as there are pools of slots.
const PARTS: usize = 8;

/// A counter that threads do not meet at.
#[derive(Debug, Default)]
pub(crate) struct Tally([Part; PARTS]);

/// A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(AtomicU64);

impl Tally {
    /// One more.
    pub(crate) fn count(&self) {
        self.0[pool_of_thread() % PARTS].0.fetch_add(1, Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Relaxed)).sum()
    }
}

/// What a table counts.
#[derive(Debug, Default)]
pub(crate) struct RowCounts {
    /// Rows that came with a checkpoint.
    pub(crate) loaded: AtomicU64,
    inserted: AtomicU64,
    updated: AtomicU64,
    deleted: AtomicU64,
    /// Notes of reclamation that wait for this table.
    waiting: AtomicU64,
    /// Reads of the whole table.
    pub(crate) scans: Tally,
}

/// What one transaction changes in a table's counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowChanges {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) deleted: u64,
    /// Notes left for reclamation.
    pub(crate) noted: u64,
}

impl RowChanges {
    /// Counts one row's change: `new` says that it is there afterwards.
    pub(crate) fn add(&mut self, is_insert: bool, is_there: bool) {
        match (is_insert, is_there) {
            (true, true) => self.inserted += 1,
            // It came and went.
            (true, false) => {}
            (false, true) => self.updated += 1,
            (false, false) => self.deleted += 1,
        }
    }
}

impl RowCounts {
    pub(crate) fn add(&self, changes: RowChanges) {
        let RowChanges { inserted, updated, deleted, noted } = changes;
        let counts = [
            (&self.inserted, inserted),
            (&self.updated, updated),
            (&self.deleted, deleted),
            (&self.waiting, noted),
        ];
        for (counter, more) in counts {
            if more > 0 {
                counter.fetch_add(more, Relaxed);
            }
        }
    }

    /// One note was worked off.
    pub(crate) fn worked_off(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

/// What was counted of one table since the process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCounts {
    /// The table.
    pub table: TableId,
    /// Rows inserted by commits.
    pub inserted: u64,
    /// Rows replaced by commits.
    pub updated: u64,
    /// Rows deleted by commits.
    pub deleted: u64,
    /// Rows that the newest commit left.
    pub live_rows: u64,
    /// Older versions and deleted rows that wait for reclamation.
    pub dead_versions: u64,
    /// Reads of the whole table that were begun.
    pub scans: u64,
    /// Reads of each index that were begun.
    pub index_scans: Vec<(IndexId, u64)>,
}

/// One transaction that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTxn {
    /// The session that it was said to belong to; zero when nobody said.
    pub session: i32,
    /// Its id; `TxnId::ENDED` while it has written and locked nothing.
    pub id: TxnId,
    /// The oldest LSN that it may read at, which reclamation keeps.
    pub snapshot: Option<Lsn>,
    /// Whom it waits for; `TxnId::ENDED` for nobody.
    pub waits_for: TxnId,
    /// Tables whose rows it wrote or locked.
    pub tables: Vec<TableId>,
    /// Tables whose definition it changes.
    pub changing: Vec<TableId>,
}

impl Store {
    /// What was counted, by table.
    #[must_use]
    pub fn counts(&self) -> Vec<TableCounts> {
        self.inner.state.load().tables().map(|table| of(table)).collect()
    }

    /// The transactions that run, in no order. Each line is true by itself; two may be of different
    /// moments.
    #[must_use]
    pub fn running(&self) -> Vec<RunningTxn> {
        let inner: &Inner = &self.inner;
        let mut running = inner.registry.running();
        for table in inner.state.load().tables() {
            let changer = table.heap.changer();
            let own = running.iter_mut().find(|t| t.id == changer && changer != TxnId::ENDED);
            if let Some(own) = own {
                own.changing.push(table.def.id);
            }
        }
        running
    }
}

fn of(table: &Table) -> TableCounts {
    let counts = &table.heap.counts;
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    let (inserted, deleted) = (of(&counts.inserted), of(&counts.deleted));
    TableCounts {
        table: table.def.id,
        inserted,
        updated: of(&counts.updated),
        deleted,
        live_rows: (of(&counts.loaded) + inserted).saturating_sub(deleted),
        dead_versions: of(&counts.waiting),
        scans: counts.scans.total(),
        index_scans: table.indexes.iter().map(|i| (i.def.id, i.scans.total())).collect(),
    }
}
