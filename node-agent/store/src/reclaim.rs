//! Freeing versions, rows and index entries that no snapshot needs.
//!
//! Commit and apply leave a note for every row that got an older version. [`Store::reclaim`], called by
//! a background task, works the notes off in LSN order up to the horizon and stops there. Beside it,
//! whoever writes works off a few notes when more than [`KEPT`] have gathered, so that memory is bounded
//! even when no task gets to run; the newest of them are left alone, so an LSN that was visible a moment
//! ago can still be pinned. It is incremental and takes no lock for longer than one row.
//!
//! Notes are worked off in rounds with one horizon each. A hot row has many notes in a round; the first
//! one trims its chain for all of them (`Chain::trimmed_in`), so a walk along a long chain is paid once
//! a round. Invariants: nothing that a snapshot at or
//! above the oldest announced one sees is freed; a snapshot at an earlier LSN can be had only above
//! `reclaimed_to`; an index entry goes only when no version of its cell has the key.

use crate::{
    heap::{Heap, State},
    lock_wait::Slot,
    row::Row,
    store::{Inner, Store},
    sync::{AtomicU64, Mutex, MutexGuard},
    table::TableId,
    version::RowCell,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};
use understudy_types::Lsn;

/// Notes taken off the queue at a time.
const BATCH: usize = 128;

/// Writers begin a round when more notes than this have gathered: a few MB.
pub(crate) const KEPT: u64 = 16_384;
/// Notes that they leave when they end it: at full speed a tenth of a second of commits.
const LEFT: u64 = 8_192;
/// Notes that a small writer works off at once: a few microseconds.
const SHARE: usize = 8;
/// Notes that must gather before writers look again, when the last look found the horizon in the way.
const PATIENCE: u64 = 1024;

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
    /// Length of the queue when something was last added to it.
    length: AtomicU64,
    /// Writers look only when the queue is longer than this: `KEPT` between rounds, `LEFT` in one.
    look_above: AtomicU64,
    /// The highest horizon that reclamation has worked with.
    reclaimed_to: AtomicU64,
    /// Held by the one who reclaims.
    round: Mutex<Round>,
}

/// The present round.
#[derive(Debug, Clone, Copy)]
struct Round {
    number: u32,
    /// Its horizon; nothing is due when it is over.
    horizon: Lsn,
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
            length: AtomicU64::new(0),
            look_above: AtomicU64::new(KEPT),
            reclaimed_to: AtomicU64::new(0),
            round: Mutex::new(Round { number: 0, horizon: Lsn::ZERO }),
        }
    }

    /// The queue itself, for a commit to leave its notes; held until its rows are stamped.
    pub(crate) fn notes(&self) -> Notes<'_> {
        Notes { queue: self.queue.lock(), length: &self.length }
    }

    /// Nobody may ask for a snapshot below this any more.
    pub(crate) fn pass(&self, lsn: Lsn) {
        self.reclaimed_to.fetch_max(lsn.0, SeqCst);
    }

    /// About what the notes take, which nobody is charged: the queue doubles when it grows.
    pub(crate) fn bytes(&self) -> u64 {
        self.length.load(Relaxed) * 2 * size_of::<Garbage>() as u64
    }

    /// After a backlog: its memory goes, and writers look at the usual length again.
    fn rest(&self) {
        let mut queue = self.queue.lock();
        if queue.capacity() as u64 > 4 * KEPT && queue.len() as u64 <= LEFT {
            queue.shrink_to(KEPT as usize);
            self.length.store(queue.len() as u64, Relaxed);
            self.look_above.store(KEPT, Relaxed);
        }
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

/// The queue, open for additions.
pub(crate) struct Notes<'a> {
    queue: MutexGuard<'a, VecDeque<Garbage>>,
    length: &'a AtomicU64,
}

impl Notes<'_> {
    pub(crate) fn add(&mut self, garbage: Garbage) {
        self.queue.push_back(garbage);
    }
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        self.length.store(self.queue.len() as u64, Relaxed);
    }
}

impl Store {
    /// Keeps what is visible now readable at its LSN until the pin is dropped: for a checkpoint whose
    /// other parts are gathered first.
    #[must_use]
    pub fn pin_visible(&self) -> Pinned {
        loop {
            // Refused only when `visible` has moved on meanwhile.
            if let Some(pinned) = Pinned::new(&self.inner, self.visible()) {
                return pinned;
            }
        }
    }

    /// Frees what `budget` rows keep needlessly, at most.
    pub fn reclaim(&self, budget: usize) -> ReclaimReport {
        let inner = &self.inner;
        let mut round = inner.reclamation.round.lock();
        inner.begin_round(&mut round, Lsn::MAX);
        let horizon = round.horizon;
        let mut report = ReclaimReport { horizon, ..ReclaimReport::default() };
        let mut left = budget;
        while left > 0 {
            let freed = inner.free_batch(*round, left.min(BATCH), &mut report);
            if freed == 0 {
                break;
            }
            left -= freed;
        }
        inner.forget_states(horizon);
        inner.reclamation.rest();
        report.has_more = left == 0;
        report.waiting = inner.reclamation.waiting();
        report
    }
}

impl Inner {
    /// A writer's share of the work: twice what it makes itself, for a backlog to shrink.
    pub(crate) fn reclaim_share(&self, changes: usize) {
        let reclamation = &self.reclamation;
        let length = reclamation.length.load(Relaxed);
        if length <= reclamation.look_above.load(Relaxed) {
            return;
        }
        // Somebody else is at it already: leave it to them.
        let Some(mut round) = reclamation.round.try_lock() else { return };
        let share = SHARE.max(changes.saturating_mul(2));
        let mut nothing = ReclaimReport::default();
        let mut freed = self.free_batch(*round, share, &mut nothing);
        if freed == 0 {
            let limit = {
                let queue = reclamation.queue.lock();
                let end = queue.len().saturating_sub(LEFT as usize);
                end.checked_sub(1).and_then(|last| queue.get(last)).map_or(Lsn::ZERO, |g| g.lsn)
            };
            self.begin_round(&mut round, limit);
            freed = self.free_batch(*round, share, &mut nothing);
        }
        let look_above = match freed {
            0 => length + PATIENCE,
            freed if freed < share => KEPT,
            _ => LEFT,
        };
        reclamation.look_above.store(look_above, Relaxed);
    }

    /// Begins a round with the horizon, but at most `limit`, announced to those who ask for old
    /// snapshots (see [`Pinned`]): whoever comes later than this can have nothing below it.
    fn begin_round(&self, round: &mut Round, limit: Lsn) {
        let horizon = self.visibility.horizon(&self.registry).min(limit);
        self.reclamation.reclaimed_to.fetch_max(horizon.0, SeqCst);
        round.number = round.number.wrapping_add(1);
        round.horizon = Lsn(horizon.0.min(self.registry.oldest_snapshot()));
    }

    /// Works off up to `limit` notes of a round; how many there were.
    fn free_batch(&self, round: Round, limit: usize, report: &mut ReclaimReport) -> usize {
        let batch = self.reclamation.due(round.horizon, limit);
        let count = batch.len();
        let state = self.state.load();
        let mut freed = Vec::new();
        for garbage in batch {
            // A table that was dropped goes as a whole.
            if let Some(table) = state.table(garbage.table) {
                self.free((&table.heap, garbage), round, &mut freed, report);
            }
        }
        count
    }

    /// Works off one note; `freed` is an empty list before and after.
    fn free(
        &self,
        (heap, garbage): (&Heap, Garbage),
        round: Round,
        freed: &mut Vec<Row>,
        report: &mut ReclaimReport,
    ) {
        heap.counts.worked_off();
        let Garbage { lsn: _, table: _, cell, mut rows } = garbage;
        let kept_up = heap.kept_up.read();
        let (count, dead, moved) = {
            let mut chain = cell.chain.lock();
            let count = if chain.trimmed_in == round.number {
                0
            } else {
                chain.trimmed_in = round.number;
                chain.trim(round.horizon, freed)
            };
            (count, chain.newest.is_none() && count > 0, chain.moved)
        };
        self.release_versions(heap, count, freed);
        report.versions += count;
        if dead {
            heap.take_cell(&self.accountant, cell.id);
            report.rows += 1;
        }
        // Rows that left with their commit had keys of their own; those that were trimmed had others
        // than the newest only in a row that moved, and are all of one key when it did not.
        let moved = moved || !rows.is_empty();
        if dead || moved {
            rows.append(freed);
        }
        freed.clear();
        if !moved {
            rows.truncate(1);
        }
        if !rows.is_empty() {
            for index in kept_up.iter() {
                index.remove_unused(&self.accountant, &cell, &rows);
            }
        }
    }

    /// Forgets definitions that were replaced at or below the horizon.
    pub(crate) fn forget_states(&self, horizon: Lsn) {
        let mut history = self.history.lock();
        let needed = history.iter().rposition(|state| state.since <= horizon).unwrap_or(0);
        history.drain(..needed);
    }
}

/// A snapshot at a given LSN, kept from reclamation while it lives.
#[derive(Debug)]
pub struct Pinned {
    inner: Arc<Inner>,
    slot: Option<Arc<Slot>>,
    lsn: Lsn,
    pub(crate) state: Arc<State>,
}

impl Pinned {
    /// None when `at` is above what is committed or below what is kept.
    pub(crate) fn new(inner: &Arc<Inner>, at: Lsn) -> Option<Pinned> {
        if at > inner.visibility.committed() {
            return None;
        }
        let slot = inner.registry.borrow();
        slot.announce(at.0);
        let state = inner.state.load_full();
        let mut pinned = Pinned { inner: Arc::clone(inner), slot: Some(slot), lsn: at, state };
        // Announced first, looked second; reclamation does the reverse.
        if inner.reclamation.reclaimed_to.load(SeqCst) > at.0 {
            return None;
        }
        let history = inner.history.lock();
        let state = history.iter().rev().find(|state| state.since <= at).cloned();
        drop(history);
        pinned.state = state?;
        Some(pinned)
    }

    /// The LSN that stays readable.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Inner {
    /// The oldest LSN that can be pinned now.
    pub(crate) fn oldest_kept(&self) -> Lsn {
        Lsn(self.reclamation.reclaimed_to.load(SeqCst))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.inner.registry.give_back(slot);
        }
    }
}
