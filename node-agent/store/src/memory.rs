//! Memory accounting: what tables, indexes and transactions use, against the two limits.
//!
//! Every byte is charged before it is taken and given back when it is freed, so a refused statement
//! leaves everything as it was (law: exceeding a limit fails the statement and harms nothing else).
//! Figures are what the allocator hands out (`row::size_class`) for versions, rows, pages of rows and
//! index entries (`entry::Width`), each with an estimate for the nodes of the map above it. Resident size is not seen here.

use crate::{
    error::WriteError,
    sync::AtomicU64,
    table::{IndexId, TableId},
};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// A row beside its versions: what its cell has more than a version.
pub(crate) const ROW_BYTES: u64 = 48;
/// A page of rows: 512 bytes, 32 where the map has it, and its part of the nodes above.
pub(crate) const PAGE_BYTES: u64 = 554;
/// A version beside its encoded columns, when those are too long to lie in it.
pub(crate) const VERSION_BYTES: u64 = 48;
/// One operation that a transaction remembers until it ends.
pub(crate) const OPERATION_BYTES: u64 = 32;

/// History, and deletes, may take an eighth more than other statements may; the container has a quarter
/// more.
const HISTORY_SHARE: u64 = 8;

/// The two sizes of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes for rows, versions and indexes.
    pub permanent_bytes: u64,
    /// Bytes for what transactions and queries need while they run.
    pub temporary_bytes: u64,
}

/// Which of the two sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Rows, versions and indexes.
    Permanent,
    /// Running transactions and queries.
    Temporary,
}

/// What the store uses now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryReport {
    /// Bytes of rows, versions and indexes.
    pub permanent_used: u64,
    /// Limit of those.
    pub permanent_limit: u64,
    /// Bytes of running transactions and queries.
    pub temporary_used: u64,
    /// Limit of those.
    pub temporary_limit: u64,
    /// By table, by id.
    pub tables: Vec<TableMemory>,
    /// Row versions and rows that wait for reclamation.
    pub reclaimable_items: u64,
}

/// What one table uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMemory {
    /// The table.
    pub table: TableId,
    /// Its name with schema.
    pub name: String,
    /// Rows that have not been reclaimed, deleted ones included.
    pub rows: u64,
    /// Bytes of rows and all their versions.
    pub row_bytes: u64,
    /// By index.
    pub indexes: Vec<IndexMemory>,
}

/// What one index uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMemory {
    /// The index.
    pub index: IndexId,
    /// Its name.
    pub name: String,
    /// Entries, those of old versions included.
    pub entries: u64,
    /// Bytes of entries.
    pub bytes: u64,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pool::Permanent => "permanent",
            Pool::Temporary => "temporary",
        })
    }
}

/// The accountant of one store.
#[derive(Debug)]
pub(crate) struct Accountant {
    limits: [AtomicU64; 2],
    used: [AtomicU64; 2],
}

impl Accountant {
    pub(crate) fn new(limits: MemoryLimits) -> Accountant {
        Accountant {
            limits: [limits.permanent_bytes.into(), limits.temporary_bytes.into()],
            used: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    pub(crate) fn set_limits(&self, limits: MemoryLimits) {
        self.limits[Pool::Permanent as usize].store(limits.permanent_bytes, Relaxed);
        self.limits[Pool::Temporary as usize].store(limits.temporary_bytes, Relaxed);
    }

    pub(crate) fn used(&self, pool: Pool) -> u64 {
        self.used[pool as usize].load(Relaxed)
    }

    pub(crate) fn limit(&self, pool: Pool) -> u64 {
        self.limits[pool as usize].load(Relaxed)
    }

    /// Takes bytes, or takes none and says why.
    pub(crate) fn charge(&self, pool: Pool, requested: u64) -> Result<(), WriteError> {
        let limit = self.limit(pool);
        let used = self.used[pool as usize].fetch_add(requested, Relaxed);
        if used.saturating_add(requested) <= limit {
            return Ok(());
        }
        self.used[pool as usize].fetch_sub(requested, Relaxed);
        Err(WriteError::OutOfMemory { pool, requested, used, limit })
    }

    /// The limit for what has happened already, on another member or in an earlier process: a store that
    /// was full there must fit here, although the figures of a replay are not the same to the byte.
    pub(crate) fn limit_of_history(&self, pool: Pool) -> u64 {
        let limit = self.limit(pool);
        limit.saturating_add(limit / HISTORY_SHARE)
    }

    /// Takes bytes of history or of a delete, which must go on where memory is full for it makes room; or
    /// takes none and says why.
    pub(crate) fn charge_history(&self, pool: Pool, requested: u64) -> Result<(), WriteError> {
        let limit = self.limit_of_history(pool);
        let used = self.used[pool as usize].fetch_add(requested, Relaxed);
        if used.saturating_add(requested) <= limit {
            return Ok(());
        }
        self.used[pool as usize].fetch_sub(requested, Relaxed);
        Err(WriteError::OutOfMemory { pool, requested, used, limit })
    }

    /// Takes bytes whatever the limit: for what has happened already, such as a record in the log.
    pub(crate) fn charge_always(&self, pool: Pool, bytes: u64) {
        self.used[pool as usize].fetch_add(bytes, Relaxed);
    }

    pub(crate) fn release(&self, pool: Pool, bytes: u64) {
        self.used[pool as usize].fetch_sub(bytes, Relaxed);
    }
}

/// What one table or one index has charged to permanent memory. It is given back bit by bit, or all at
/// once when the table or index is dropped; what comes back after that was in the whole already.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicU64);

impl Share {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Notes bytes that were charged.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn give_back(&self, accountant: &Accountant, bytes: u64) {
        let taken = self.0.fetch_update(Relaxed, Relaxed, |held| held.checked_sub(bytes));
        if taken.is_ok() {
            accountant.release(Pool::Permanent, bytes);
        }
    }

    pub(crate) fn give_back_all(&self, accountant: &Accountant) {
        accountant.release(Pool::Permanent, self.0.swap(0, Relaxed));
    }
}

/// Temporary memory held by one query or transaction; given back when dropped.
#[derive(Debug)]
pub struct TemporaryMemory {
    accountant: Arc<Accountant>,
    bytes: u64,
}

impl TemporaryMemory {
    pub(crate) fn new(accountant: Arc<Accountant>) -> TemporaryMemory {
        TemporaryMemory { accountant, bytes: 0 }
    }

    /// Takes more.
    ///
    /// # Errors
    /// `OutOfMemory` when the temporary size is used up; nothing was taken then.
    pub fn grow(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.accountant.charge(Pool::Temporary, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for TemporaryMemory {
    fn drop(&mut self) {
        self.accountant.release(Pool::Temporary, self.bytes);
    }
}
