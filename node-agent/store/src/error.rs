//! Why the store refuses something. Variants say what the caller can do; SQLSTATEs are the SQL crate's.

use crate::{
    lock_wait::TxnId,
    memory::Pool,
    row::{RowError, RowId, VALUE_BYTES_MAX},
    table::TableId,
};
use understudy_types::Lsn;

/// A write that did not happen. The transaction is as it was before the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Somebody else holds the row, the key or the table. Undo the statement, wait for `on` (see
    /// `Store::wait`), take a new statement snapshot and run the statement again. Under READ
    /// COMMITTED a row that changed since the statement began is reported so as well, with
    /// [`TxnId::ENDED`], for which waiting ends at once.
    #[error("held by transaction {on}")]
    Blocked {
        /// Whom to wait for.
        on: TxnId,
    },
    /// The key exists (23505).
    #[error("duplicate key value violates unique constraint \"{index}\": key {key} already exists")]
    UniqueViolation {
        /// Name of the index.
        index: String,
        /// The key as `(column, …)=(value, …)`.
        key: String,
        /// The error may reach a client only once this LSN is acknowledged (A2.9); zero when it
        /// depends on nothing pending.
        depends: Lsn,
    },
    /// A referencing row without the row that it references, or the reverse (23503).
    #[error("{message}: {detail}")]
    ForeignKeyViolation {
        /// Which tables and which constraint.
        message: String,
        /// Which key.
        detail: String,
        /// As of `UniqueViolation`.
        depends: Lsn,
    },
    /// A row changed after the snapshot of a REPEATABLE READ or SERIALIZABLE transaction (40001).
    #[error("could not serialize access due to concurrent update")]
    Serialization,
    /// The memory of the pool is used up (53200). Nothing was changed.
    #[error("out of {pool} memory: {requested} bytes needed, {used} of {limit} in use")]
    OutOfMemory {
        /// Which limit.
        pool: Pool,
        /// Bytes that the write needed.
        requested: u64,
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// A null in a column that refuses them (23502).
    #[error(
        "null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"
    )]
    NotNull {
        /// Name of the table.
        table: String,
        /// Name of the column.
        column: String,
    },
    /// A value longer than a variable-length column takes (54000).
    #[error(
        "value of column \"{column}\" of relation \"{table}\" is too long: {bytes} bytes, at most {VALUE_BYTES_MAX}"
    )]
    TooLong {
        /// Name of the table.
        table: String,
        /// Name of the column.
        column: String,
        /// Bytes of the value.
        bytes: usize,
    },
    /// The flag of `Txn::heed` was raised (57014). No row, index or definition was changed.
    #[error("stopped on demand")]
    Stopped,
    /// The row was deleted, by this transaction or before its statement began.
    #[error("row {} of table {} is gone", row.0, table.0)]
    RowGone {
        /// The table.
        table: TableId,
        /// The row.
        row: RowId,
    },
    /// The table, index or user does not exist (any more); plan again.
    #[error("{what} does not exist")]
    Missing {
        /// What and which, for people.
        what: String,
    },
    /// The name is taken.
    #[error("{what} already exists")]
    AlreadyExists {
        /// What and which, for people.
        what: String,
    },
    /// A definition that contradicts itself or what exists.
    #[error("invalid definition: {reason}")]
    InvalidDefinition {
        /// Why.
        reason: String,
    },
}

/// The wait was refused because it would close a circle of waits (40P01): roll the transaction back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadlock detected: transaction {waiter} would wait for {on}, which waits for it")]
pub struct Deadlock {
    /// Who asked to wait.
    pub waiter: TxnId,
    /// Whom it wanted to wait for.
    pub on: TxnId,
}

/// What a SERIALIZABLE transaction read has changed since (40001): roll it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not serialize access due to read/write dependencies among transactions")]
pub struct SerializationFailure;

/// A transaction's record that cannot be applied. Except for `OutOfMemory`, which changed nothing,
/// the store no longer follows its log and must be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The record's LSN is not above everything applied.
    #[error("record {lsn} is not above {committed}, which is applied already")]
    Order {
        /// LSN of the record.
        lsn: Lsn,
        /// What is applied.
        committed: Lsn,
    },
    /// The bytes are not a transaction's record.
    #[error("record {lsn} is malformed at byte {offset}: {reason}")]
    Malformed {
        /// LSN of the record.
        lsn: Lsn,
        /// Where in the payload.
        offset: usize,
        /// What was expected.
        reason: String,
    },
    /// The record speaks of a table, index or row that is not here, or creates one that is (A3.6).
    #[error("record {lsn} contradicts this store: {reason}")]
    Contradiction {
        /// LSN of the record.
        lsn: Lsn,
        /// What was found.
        reason: String,
    },
    /// The record does not fit into memory; nothing of it was applied, it can be tried again.
    #[error("record {lsn} does not fit: {requested} bytes needed, {used} of {limit} in use")]
    OutOfMemory {
        /// LSN of the record.
        lsn: Lsn,
        /// Bytes needed at most.
        requested: u64,
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
    },
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The stream failed.
    #[error("failed to {operation} the checkpoint at {lsn}")]
    Stream {
        /// `write` or `read`.
        operation: &'static str,
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// The stream's own error.
        #[source]
        source: std::io::Error,
    },
    /// The LSN lies above what is acknowledged, or below what is still kept.
    #[error(
        "no snapshot at {at}: {oldest} is the oldest that is kept, {acknowledged} is acknowledged"
    )]
    Position {
        /// LSN asked for.
        at: Lsn,
        /// Oldest LSN that can still be read.
        oldest: Lsn,
        /// Newest LSN that is acknowledged.
        acknowledged: Lsn,
    },
    /// The body is not a checkpoint, or not one of this format.
    #[error("the checkpoint at {lsn} is malformed: {reason}")]
    Malformed {
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// What was found.
        reason: String,
    },
    /// A row's bytes are damaged.
    #[error("the checkpoint at {lsn} holds a damaged row {} of table {}", row.0, table.0)]
    Row {
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// The table.
        table: TableId,
        /// The row.
        row: RowId,
        /// What is wrong with it.
        #[source]
        source: RowError,
    },
    /// The content does not fit into the limits.
    #[error("the checkpoint at {lsn} does not fit into memory")]
    Memory {
        /// LSN of the checkpoint.
        lsn: Lsn,
        /// The refusal.
        #[source]
        source: WriteError,
    },
}
