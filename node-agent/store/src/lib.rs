//! The store: tables in memory, many versions of each row, many transactions at once.
//!
//! # One row through three transactions
//! Every change of a row puts a new version in front of the older ones. A version carries the LSN of
//! the commit that made it, or none while its transaction runs. Nothing is overwritten, so a reader
//! needs no lock: it has a number, its *snapshot*, and takes the first version whose LSN is not above.
//!
//! ```text
//!   T1 sets 100 → 90, commits as LSN 41      T2 sets 90 → 70, runs
//!
//!   accounts_pkey (7) ──► cell 7 ─► [ T2: 70 ] ─► [ LSN 41: 90 ] ─► [ LSN 12: 100 ]
//!                         locker T2      │              │                 │
//!                                        │              │                 └─ snapshot 40 reads 100
//!                                        │              └─ snapshot 41 and above reads 90
//!                                        └─ T2 alone reads 70
//! ```
//! * **Commit** (`store`): the caller gives T2's record an LSN, say 42; every version of T2 is stamped
//!   42 and the row's lock is gone. Then `committed` is 42.
//! * **Pending** (`visibility`): LSN 42 is committed but nobody has promised it yet. Plain readers take
//!   `visible` as their snapshot, which follows the acknowledgements; 42 is not shown before it is
//!   safe. Writers are not held up by that: UPDATE looks at the newest committed version, pending or
//!   not, so a hot row is not bound by the round trip to the standby. Whoever reads a pending version
//!   that way carries its LSN in `Txn::depends_lsn`, and the session holds its answer back until then.
//! * **Locks** (`lock_wait`): an uncommitted version, or SELECT … FOR UPDATE, makes its transaction the
//!   row's locker. A second writer gets `Blocked { on }`: it undoes its statement, waits with
//!   `Store::wait` (which refuses to close a circle) and runs the statement again on the same snapshot
//!   (`Store::again`).
//! * **A row that changed meanwhile**: under READ COMMITTED a write is refused as `Blocked` by
//!   `TxnId::ENDED` when the row's newest version came after the statement began. The statement takes
//!   that version (`Store::lock_newest`) and judges it anew, as PostgreSQL does; so no update is computed
//!   from a version that is no longer the newest, and no row is changed that has come to match since. Under
//!   the stricter levels the answer is `Serialization`. SERIALIZABLE remembers what it read and checks
//!   at commit that nobody has changed it: then all transactions of that level fit in commit order.
//! * **Foreign keys** (`foreign_key`, `reference`, `shares`) are looked at when a statement ends
//!   (`Store::settle`). A row that references another shares its key until its transaction ends; who
//!   deletes that row or changes its key waits for all who share it. Shares stand beside the rows, and
//!   only while their transactions run; an update that leaves the key alone does not look at them.
//! * **Reclamation** (`reclaim`): every running transaction announces its snapshot. Below the oldest
//!   announcement only the newest version of each row is kept; `[ LSN 12: 100 ]` goes when no snapshot
//!   below 41 is left, and index entries go with the last version that has their key. A background task
//!   does it when it is quiet; writers do their share when much has gathered.
//! * **The log** (`redo`, `apply`): a transaction's record lists the final state of each row it touched,
//!   under the row's id. Applying it elsewhere pushes the same bytes with the same LSN, so at equal LSN
//!   all members have equal content, whatever their layout. Each table keeps the sum of its rows' hashes
//!   (`Store::running_hash`), so that this can be watched (law 10).
//! * **Recovery** (`replay`) applies many records of the own log at once. Where nobody can take them back,
//!   or memory has no room for them, the versions that they replace go at once. In the second case `visible`
//!   is ahead of the acknowledgements, and every transaction depends on it until they have come.
//! * **Sequences** (`sequence`) are tables of one row, which says up to where numbers are reserved. A
//!   block of numbers is reserved by a small transaction of its own, so a rollback takes none back and a
//!   crash only skips some.
//! * **Checkpoints** (`checkpoint`) are read through a pinned snapshot (`Store::pin_visible`) while
//!   everybody goes on writing; `load` puts their blocks in from several threads.
//! * **Counts** (`counts`): changes and reads by table and index, and the transactions that run, for
//!   statistics views. One relaxed addition where something happens; nothing waits for them.
//!
//! # Who takes which lock
//! Readers: a row's own mutex, for the moment of looking, and who looks for it by its id its page's lock
//! (`rows`), shared. Writers: the same, the page's alone when a row comes or goes, and a stripe of an index
//! when a key is new. Order: a table's list of indexes that are kept up (`Heap::kept_up`), then a stripe or a
//! page, then a cell; a stripe and a page never both, two pages never except by who looks for many rows and
//! waits for none (`rows::cells_at`), two cells never except one after
//! the other under a stripe. `Rows::growth`, which whoever adds a page holds, is taken with no page and no
//! cell in hand; the queue of reclamation's notes comes before all of them. There is no lock around the store, a table or the catalog; definitions are replaced as a
//! whole behind an atomic pointer.
//!
//! # Caveats
//! Not here: SQL, expressions, casts (the SQL crate); files, checksums, fsync (the log crate); clocks and
//! threads (the agent). Row locks have one strength. Uniqueness is checked row by row, foreign keys at the
//! end of the statement, neither at the end of the transaction. A foreign key is as good as its caller:
//! who changes rows calls `settle`, and TRUNCATE asks nobody who references the rows. Privileges are one
//! bit. A dropped table's rows are charged to nobody while old readers still hold them.

mod apply;
mod catalog;
mod checkpoint;
mod counts;
mod ddl;
mod entry;
mod error;
mod foreign_key;
mod heap;
mod index;
mod key;
mod load;
mod lock_wait;
mod memory;
mod radix;
mod read;
mod reclaim;
mod redo;
mod reference;
mod replay;
mod row;
mod rows;
mod sequence;
mod shares;
mod store;
mod story;
mod sync;
mod table;
mod tokens;
mod txn;
mod value;
mod version;
mod visibility;
mod write;

pub use catalog::{Catalog, Planned, UserDef};
pub use checkpoint::{CheckpointReport, RunningContentHash};
pub use counts::{RunningTxn, TableCounts};
pub use error::{ApplyError, CheckpointError, Deadlock, SerializationFailure, WriteError};
pub use foreign_key::{ForeignKeyDef, ReferentialAction};
pub use load::{Load, RowBlock};
pub use lock_wait::{LockWait, TxnId};
pub use memory::{IndexMemory, MemoryLimits, MemoryReport, Pool, TableMemory, TemporaryMemory};
pub use read::{Batch, Direction, KeyBounds, Scan};
pub use reclaim::{Pinned, ReclaimReport};
pub use reference::Consequences;
pub use replay::Tail;
pub use row::{COLUMNS_MAX, Row, RowBuilder, RowError, RowId, VALUE_BYTES_MAX};
pub use sequence::{NextValue, SequenceError, SequenceState};
pub use store::Store;
pub use story::{Story, StoryError, Told};
pub use table::{
    ColumnDef, ColumnOrder, Identity, IndexDef, IndexId, SequenceDef, SequenceOwner, TableDef,
    TableId,
};
pub use tokens::TokenFate;
pub use txn::{Isolation, Mark, Targets, Txn};
pub use value::{DataType, Value, ValueRef};
pub use visibility::View;
