//! Freeing versions, rows and index entries that no snapshot needs.
//!
//! Commit and apply leave a note for every row that got an older version; [`Store::reclaim`], called by
//! a background task, works the notes off in LSN order up to the horizon and stops there. It is
//! incremental and takes no lock for longer than one row. Invariants: nothing that a snapshot at or
//! above the oldest announced one sees is freed; a snapshot at an earlier LSN can be had only above
//! `reclaimed_to`; an index entry goes only when no version of its cell has the key.

use crate::{
    heap::{Heap, State},
    lock_wait::Slot,
    row::Row,
    store::{Inner, Store},
    table::TableId,
    version::RowCell,
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use understudy_types::Lsn;

/// Notes taken off the queue at a time.
const BATCH: usize = 128;

/// A row with something to free once nobody reads below `lsn`.
#[derive(Debug)]
pub(crate) struct Garbage {
    pub(crate) lsn: Lsn,
    pub(crate) table: TableId,
    pub(crate) cell: Arc<RowCell>,
    /// Rows that went with the commit already, whose index entries are still there.
    pub(crate) rows: Vec<Row>,
}

/// The notes.
#[derive(Debug)]
pub(crate) struct Reclamation {
    queue: Mutex<VecDeque<Garbage>>,
    /// The highest horizon that reclamation has worked with.
    reclaimed_to: AtomicU64,
    /// Held by the one who reclaims.
    working: Mutex<()>,
}

/// What one call freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReclaimReport {
    /// Nothing below is read any more.
    pub horizon: Lsn,
    /// Versions freed.
    pub versions: u64,
    /// Deleted rows freed.
    pub rows: u64,
    /// Notes that wait: for the horizon, or for the next call.
    pub waiting: u64,
    /// Whether the budget ended the call, so that another call would free more at once.
    pub has_more: bool,
}

impl Reclamation {
    pub(crate) fn new() -> Reclamation {
        Reclamation {
            queue: Mutex::default(),
            reclaimed_to: AtomicU64::new(0),
            working: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, garbage: Vec<Garbage>) {
        if !garbage.is_empty() {
            self.queue.lock().extend(garbage);
        }
    }

    /// The queue itself, for a commit to leave its notes; held until its rows are stamped.
    pub(crate) fn queue(&self) -> MutexGuard<'_, VecDeque<Garbage>> {
        self.queue.lock()
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.queue.lock().len() as u64
    }

    /// Up to `limit` notes that the horizon has passed.
    fn due(&self, horizon: Lsn, limit: usize) -> Vec<Garbage> {
        let mut queue = self.queue.lock();
        let due = queue.iter().take(limit).take_while(|g| g.lsn <= horizon).count();
        queue.drain(..due).collect()
    }
}

impl Store {
    /// Frees what `budget` rows keep needlessly, at most.
    pub fn reclaim(&self, budget: usize) -> ReclaimReport {
        let inner = &self.inner;
        let _working = inner.reclamation.working.lock();
        let horizon = inner.reclaim_horizon();
        let mut report = ReclaimReport { horizon, ..ReclaimReport::default() };
        let mut left = budget;
        while left > 0 {
            let batch = inner.reclamation.due(horizon, left.min(BATCH));
            if batch.is_empty() {
                break;
            }
            left -= batch.len();
            let state = inner.state.load();
            for garbage in batch {
                // A table that was dropped goes as a whole.
                if let Some(table) = state.table(garbage.table) {
                    inner.free(&table.heap, garbage, horizon, &mut report);
                }
            }
        }
        inner.forget_states(horizon);
        report.has_more = left == 0;
        report.waiting = inner.reclamation.waiting();
        report
    }
}

impl Inner {
    /// The horizon, announced to those who ask for old snapshots (see [`Pin`]).
    fn reclaim_horizon(&self) -> Lsn {
        let horizon = self.visibility.horizon(&self.registry);
        self.reclamation.reclaimed_to.fetch_max(horizon.0, SeqCst);
        Lsn(horizon.0.min(self.registry.oldest_snapshot()))
    }

    fn free(&self, heap: &Heap, garbage: Garbage, horizon: Lsn, report: &mut ReclaimReport) {
        let Garbage { lsn: _, table: _, cell, mut rows } = garbage;
        let kept_up = heap.kept_up.read();
        let (count, freed, dead, moved) = {
            let mut chain = cell.chain.lock();
            let (count, freed) = chain.trim(horizon);
            (count, freed, chain.newest.is_none() && count > 0, chain.moved)
        };
        self.release_versions(heap, count, &freed);
        report.versions += count;
        if dead {
            heap.take_cell(cell.id);
            self.release_row(heap);
            report.rows += 1;
        }
        if dead || moved || !rows.is_empty() {
            rows.extend(freed);
            for row in &rows {
                for index in kept_up.iter() {
                    index.remove_unused(&self.accountant, &cell, row);
                }
            }
        }
    }

    /// Forgets definitions that were replaced at or below the horizon.
    fn forget_states(&self, horizon: Lsn) {
        let mut history = self.history.lock();
        let needed = history.iter().rposition(|state| state.since <= horizon).unwrap_or(0);
        history.drain(..needed);
    }
}

/// A snapshot at a given LSN, kept from reclamation while it lives.
pub(crate) struct Pin<'a> {
    inner: &'a Inner,
    slot: Option<Arc<Slot>>,
    pub(crate) at: Lsn,
    pub(crate) state: Arc<State>,
}

impl<'a> Pin<'a> {
    /// None when `at` is above what is committed or below what is kept.
    pub(crate) fn new(inner: &'a Inner, at: Lsn) -> Option<Pin<'a>> {
        if at > inner.visibility.committed() {
            return None;
        }
        let slot = inner.registry.borrow();
        slot.announce(at.0);
        let mut pin = Pin { inner, slot: Some(slot), at, state: inner.state.load_full() };
        // Announced first, looked second; reclamation does the reverse.
        if inner.reclamation.reclaimed_to.load(SeqCst) > at.0 {
            return None;
        }
        let history = inner.history.lock();
        let state = history.iter().rev().find(|state| state.since <= at).cloned();
        drop(history);
        pin.state = state?;
        Some(pin)
    }

    /// The oldest LSN that can be had now.
    pub(crate) fn oldest(inner: &Inner) -> Lsn {
        Lsn(inner.reclamation.reclaimed_to.load(SeqCst))
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.inner.registry.give_back(slot);
        }
    }
}
