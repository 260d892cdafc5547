//! Who is running, who waits for whom, and how a waiter learns that it can go on.
//!
//! Each transaction borrows a [`Slot`] for its life. The slot announces its snapshot (so that
//! reclamation keeps what it may read), the tables it has entered (so that a change of a table waits
//! for it) and the transaction it waits for (so that circles are found). Slots are reused; a
//! [`TxnId`] contains its slot's number, so finding a transaction needs no map.
//!
//! A lock wait is a plain future without a runtime: the session drops its statement's changes,
//! awaits [`LockWait`], and runs the statement again. Invariants: a transaction waits for one other
//! at most, so the wait-for graph is a set of chains and a circle is found by following one; a wake-up
//! is never lost, because ending and registering both happen under the slot's `waiters`.
//! Deliberately absent: queues per row (who wakes first wins) and time-outs (the session's).

use crate::{
    counts::RunningTxn,
    error::Deadlock,
    sync::{AtomicU64, Mutex, RwLock},
    table::TableId,
    txn::{Entered, Operation},
};
use std::{
    cell::Cell,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicI32, AtomicUsize,
            Ordering::{Acquire, Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
};
use understudy_types::Lsn;

/// Bits of a transaction id that name its slot: about a million transactions at once.
const SLOT_BITS: u32 = 20;
/// Snapshot of a slot that protects nothing.
const IDLE: u64 = u64::MAX;
/// Free lists, so that threads do not meet at one.
const POOLS: usize = 8;

/// A transaction that writes or holds locks. Given at its first write; unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TxnId(pub u64);

impl TxnId {
    /// No transaction; waiting for it ends at once.
    pub const ENDED: TxnId = TxnId(0);

    /// Its place in the order in which ids were given.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0 >> SLOT_BITS
    }

    fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> SLOT_BITS, self.slot())
    }
}

/// What a running transaction announces. Aligned so that two never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    index: usize,
    /// Oldest LSN that its owner may read at; `IDLE` when none.
    snapshot: AtomicU64,
    /// The session that it works for; zero when nobody said.
    session: AtomicI32,
    /// The running writer; zero when none.
    owner: AtomicU64,
    /// Whom the owner waits for; zero when nobody.
    waits_for: AtomicU64,
    /// Reading of `Registry::releases` from before the statement that waits.
    waits_since: AtomicU64,
    /// Reading of `Registry::releases` when the owner last gave locks back without ending.
    released_at: AtomicU64,
    /// Tables that the owner has written or locked rows of.
    tables: Mutex<Vec<TableId>>,
    /// Empty lists, with the room that the last owner had in its own. A few kilobytes at most,
    /// charged to nobody.
    room: Mutex<(Vec<Entered>, Vec<Operation>)>,
    /// Who waits for the owner.
    waiters: Mutex<Vec<(u64, Waker)>>,
}

/// All slots of one store.
#[derive(Debug)]
pub(crate) struct Registry {
    all: RwLock<Vec<Arc<Slot>>>,
    free: [Mutex<Vec<Arc<Slot>>>; POOLS],
    next_id: AtomicU64,
    next_ticket: AtomicU64,
    /// Counts early releases of locks (ROLLBACK TO, undone statements).
    releases: AtomicU64,
    /// Held while a wait is entered, so that two cannot close a circle unseen.
    waiting: Mutex<()>,
}

impl Slot {
    /// Announces the snapshot; see `visibility` for why the caller must look again afterwards.
    pub(crate) fn announce(&self, snapshot: u64) {
        self.snapshot.store(snapshot, SeqCst);
    }

    pub(crate) fn set_session(&self, session: i32) {
        self.session.store(session, Relaxed);
    }

    pub(crate) fn enter_table(&self, table: TableId) {
        self.tables.lock().push(table);
    }

    pub(crate) fn leave_table(&self, table: TableId) {
        self.tables.lock().retain(|t| *t != table);
    }

    /// Exchanges empty lists for those that are kept here.
    pub(crate) fn exchange(&self, tables: &mut Vec<Entered>, operations: &mut Vec<Operation>) {
        let mut room = self.room.lock();
        std::mem::swap(tables, &mut room.0);
        std::mem::swap(operations, &mut room.1);
    }
}

impl Registry {
    pub(crate) fn new() -> Registry {
        Registry {
            all: RwLock::default(),
            free: Default::default(),
            next_id: AtomicU64::new(1),
            next_ticket: AtomicU64::new(0),
            releases: AtomicU64::new(1),
            waiting: Mutex::default(),
        }
    }

    /// A slot of one's own until `give_back`.
    pub(crate) fn borrow(&self) -> Arc<Slot> {
        if let Some(slot) = self.free[pool_of_thread()].lock().pop() {
            return slot;
        }
        let mut all = self.all.write();
        let slot = Arc::new(Slot {
            index: all.len(),
            snapshot: AtomicU64::new(IDLE),
            session: AtomicI32::new(0),
            owner: AtomicU64::new(0),
            waits_for: AtomicU64::new(0),
            waits_since: AtomicU64::new(0),
            released_at: AtomicU64::new(0),
            tables: Mutex::default(),
            room: Mutex::default(),
            waiters: Mutex::default(),
        });
        assert!(slot.index < 1 << SLOT_BITS, "fewer than a million transactions run at once");
        all.push(Arc::clone(&slot));
        slot
    }

    /// The end of a transaction: its locks are gone already; wakes who waited for it.
    pub(crate) fn give_back(&self, slot: Arc<Slot>) {
        slot.session.store(0, Relaxed);
        slot.snapshot.store(IDLE, SeqCst);
        if slot.owner.load(Relaxed) != 0 {
            slot.tables.lock().clear();
            let mut waiters = slot.waiters.lock();
            slot.owner.store(0, SeqCst);
            slot.waits_for.store(0, Relaxed);
            let wake = std::mem::take(&mut *waiters);
            drop(waiters);
            wake.into_iter().for_each(|(_, waker)| waker.wake());
        }
        self.free[pool_of_thread()].lock().push(slot);
    }

    /// Makes the slot's user a writer.
    pub(crate) fn give_id(&self, slot: &Slot) -> TxnId {
        let id = TxnId(self.next_id.fetch_add(1, Relaxed) << SLOT_BITS | slot.index as u64);
        slot.owner.store(id.0, SeqCst);
        id
    }

    /// Reading of the counter of early releases, to be taken before a statement looks at locks.
    pub(crate) fn releases(&self) -> u64 {
        self.releases.load(Acquire)
    }

    /// The slot's owner has given some locks back and goes on: its waiters look again.
    pub(crate) fn note_release(&self, slot: &Slot) {
        let wake = {
            let mut waiters = slot.waiters.lock();
            slot.released_at.store(self.releases.fetch_add(1, SeqCst) + 1, SeqCst);
            std::mem::take(&mut *waiters)
        };
        wake.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The smallest announced snapshot, or `u64::MAX`.
    pub(crate) fn oldest_snapshot(&self) -> u64 {
        let all = self.all.read();
        all.iter().map(|slot| slot.snapshot.load(SeqCst)).min().unwrap_or(IDLE)
    }

    /// A running transaction other than `me` that has entered the table.
    pub(crate) fn user_of(&self, table: TableId, me: TxnId) -> Option<TxnId> {
        let all = self.all.read();
        all.iter().find_map(|slot| {
            let tables = slot.tables.lock();
            let owner = TxnId(slot.owner.load(SeqCst));
            let other = owner != TxnId::ENDED && owner != me;
            (other && tables.contains(&table)).then_some(owner)
        })
    }

    /// What runs: slots with a snapshot or an owner.
    pub(crate) fn running(&self) -> Vec<RunningTxn> {
        let all = self.all.read();
        let running = all.iter().filter_map(|slot| {
            let snapshot = slot.snapshot.load(SeqCst);
            let id = TxnId(slot.owner.load(SeqCst));
            if snapshot == IDLE && id == TxnId::ENDED {
                return None;
            }
            let on = self.waited_for_by(slot).map(|on| TxnId(on.owner.load(SeqCst)));
            Some(RunningTxn {
                session: slot.session.load(Relaxed),
                id,
                snapshot: (snapshot != IDLE).then_some(Lsn(snapshot)),
                waits_for: on.unwrap_or(TxnId::ENDED),
                tables: slot.tables.lock().clone(),
                changing: Vec::new(),
            })
        });
        running.collect()
    }

    fn slot_of(&self, id: TxnId) -> Option<Arc<Slot>> {
        let slot = self.all.read().get(id.slot()).cloned()?;
        (id != TxnId::ENDED && slot.owner.load(SeqCst) == id.0).then_some(slot)
    }

    /// Whom the slot's owner really waits for: a wait that is over, but was not polled yet, is none.
    fn waited_for_by(&self, slot: &Slot) -> Option<Arc<Slot>> {
        let on = self.slot_of(TxnId(slot.waits_for.load(SeqCst)))?;
        let over = on.released_at.load(SeqCst) > slot.waits_since.load(SeqCst);
        (!over).then_some(on)
    }

    /// Enters a wait of `waiter` for `on`, unless that closes a circle. `since` is the reading of
    /// `releases` from before the statement that was blocked.
    pub(crate) fn wait(
        self: &Arc<Registry>,
        waiter: TxnId,
        on: TxnId,
        since: u64,
    ) -> Result<LockWait, Deadlock> {
        let ticket = self.next_ticket.fetch_add(1, Relaxed);
        let over = || LockWait { on: None, waiter: None, ticket, since };
        let Some(slot) = self.slot_of(on) else { return Ok(over()) };
        let own = self.slot_of(waiter);
        let _entering = own.is_some().then(|| self.waiting.lock());
        // Looked at inside: who gives back and then waits must not be taken for a part of a circle.
        if slot.released_at.load(SeqCst) > since {
            return Ok(over());
        }
        if let Some(own) = &own {
            let mut at = Arc::clone(&slot);
            while let Some(next) = self.waited_for_by(&at) {
                if Arc::ptr_eq(&next, own) {
                    return Err(Deadlock { waiter, on });
                }
                at = next;
            }
            own.waits_since.store(since, SeqCst);
            own.waits_for.store(on.0, SeqCst);
        }
        let waiter = own.map(|own| (own, waiter));
        Ok(LockWait { on: Some((slot, on)), waiter, ticket, since })
    }
}

/// Resolves when the awaited transaction has ended, or has given locks back. Then the blocked
/// statement is run again; it may be blocked again, by the same or by another. Dropping it ends the
/// wait.
#[derive(Debug)]
#[must_use = "a wait does nothing unless it is awaited"]
pub struct LockWait {
    on: Option<(Arc<Slot>, TxnId)>,
    waiter: Option<(Arc<Slot>, TxnId)>,
    ticket: u64,
    since: u64,
}

impl LockWait {
    /// Whether waiting is over already.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.on.as_ref().is_none_or(|(slot, on)| {
            slot.owner.load(SeqCst) != on.0 || slot.released_at.load(SeqCst) > self.since
        })
    }

    fn leave(&mut self) {
        if let Some((slot, _)) = self.on.take() {
            slot.waiters.lock().retain(|(ticket, _)| *ticket != self.ticket);
        }
        if let Some((slot, id)) = self.waiter.take()
            && slot.owner.load(SeqCst) == id.0
        {
            slot.waits_for.store(0, SeqCst);
        }
    }
}

impl Future for LockWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some((slot, _)) = &self.on {
            let mut waiters = slot.waiters.lock();
            if !self.is_over() {
                waiters.retain(|(ticket, _)| *ticket != self.ticket);
                waiters.push((self.ticket, context.waker().clone()));
                return Poll::Pending;
            }
        }
        self.leave();
        Poll::Ready(())
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        self.leave();
    }
}

pub(crate) fn pool_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static POOL: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    POOL.with(|pool| {
        if pool.get() == usize::MAX {
            pool.set(NEXT.fetch_add(1, Relaxed) % POOLS);
        }
        pool.get()
    })
}
