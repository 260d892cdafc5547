//! What a session needs from the member it runs on. The engine implements [`Database`]; sessions know
//! nothing else of authority, log and peers.
//!
//! Expected flow of one commit: execute in a `Txn` → [`Database::commit`] (the commit section: LSN,
//! locks released) → the reply is prepared → [`Database::acknowledged_lsn`] covers the LSN, or
//! [`Database::acknowledged`] is awaited → the reply is written.

use super::{
    registry::SessionRegistry,
    sqlstate,
    tokens::{OpenToken, Outcome},
};
use std::{future::Future, pin::Pin, sync::Arc};
use understudy_replication::NotSettable;
use understudy_store::{Store, Txn};
use understudy_txlog::record::PAYLOAD_BYTES_MAX;
use understudy_types::{CommitToken, Epoch, Lsn, MemberName, Role};

/// Resolves when an LSN is acknowledged, or when this member can no longer say whether it will be.
pub type AckWait = Pin<Box<dyn Future<Output = Result<(), OutcomeUnknown>> + Send>>;

/// Resolves when a checkpoint is on disk, with its LSN; or why there is none.
pub type CheckpointWait = Pin<Box<dyn Future<Output = Result<Lsn, String>> + Send>>;

/// Resolves when the member has the role that was asked for.
pub type RoleWait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The member behind the front end.
///
/// # Guarantees
/// All methods may be called from any session loop at the same time, and none blocks on I/O.
/// Before a waiter of [`Database::acknowledged`] is released, and before
/// [`Database::acknowledged_lsn`] shows an LSN, the store's visible LSN covers it: a session that was
/// told of its commit sees it.
pub trait Database: Send + Sync + 'static {
    /// The rows. The same object for the life of the process.
    fn store(&self) -> Arc<Store>;

    /// Who this is; constant for the life of the process.
    fn identity(&self) -> ServerIdentity;

    /// What the member is now. Cheap: atomics, and at most one small allocation.
    fn standing(&self) -> Standing;

    /// The role alone, asked for before every write. Override it with an atomic read.
    fn role(&self) -> Role {
        self.standing().role
    }

    /// The commit section: checks role and authority, validates a SERIALIZABLE transaction, appends the
    /// redo record, stamps the versions and releases the locks. The LSN is not acknowledged yet.
    /// Called for transactions that changed something.
    ///
    /// # Errors
    /// The transaction was rolled back and left no trace.
    fn commit(&self, txn: Txn) -> Result<Lsn, CommitRefused>;

    /// Whether commits should wait until the log has been written, after a large transaction. Cheap.
    fn log_is_behind(&self) -> bool;

    /// Everything up to this LSN is acknowledged.
    fn acknowledged_lsn(&self) -> Lsn;

    /// A future that ends when the LSN is acknowledged, or when that can no longer be known here: the
    /// member was demoted or fenced.
    fn acknowledged(&self, lsn: Lsn) -> AckWait;

    /// R6a: reads the clock. Called after a statement that only read was executed on its snapshot, and
    /// before its rows go into the reply. A standby and a subscriber never claim to be current: Ok.
    ///
    /// # Errors
    /// This member has no authority at this moment, so the rows may be out of date.
    fn confirms_reads(&self) -> Result<(), ReadRefused>;

    /// A token for the transaction that is open, which the commit will carry ([`Txn::name`]).
    ///
    /// # Errors
    /// This member is not the active.
    fn give_token(&self) -> Result<OpenToken, CommitRefused>;

    /// What became of the transaction with this token.
    fn outcome(&self, token: CommitToken) -> Outcome;

    /// A person sets this member active (`ttRepStateSet`), which it is when the wait ends.
    ///
    /// # Errors
    /// Why it cannot be set.
    fn set_active(&self) -> Result<RoleWait, NotSettable>;

    /// Takes a checkpoint while commits go on, and gives back the log below it that nobody holds. It is
    /// taken to its end also when nobody waits for it any more.
    fn checkpoint(&self) -> CheckpointWait;

    /// Who needs which part of the log; the least LSN is why the log is not given back. May read a
    /// directory: not for the fast path.
    ///
    /// # Errors
    /// Why that is not known at this moment.
    fn log_holds(&self) -> Result<Vec<LogHold>, String>;

    /// The sessions of this member.
    fn sessions(&self) -> &Arc<SessionRegistry>;

    /// Something is to be counted. Nothing by default.
    fn note(&self, _: Noted) {}
}

/// What a session meets that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// A statement waits for a lock.
    LockWait,
    /// That wait would have closed a circle.
    Deadlock,
    /// A statement took as long as `log_min_duration_statement` says.
    SlowStatement,
}

/// Somebody needs the log from a record on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHold {
    /// The first record that is needed.
    pub first_lsn: Lsn,
    /// For what.
    pub kind: HoldKind,
    /// The checkpoint's file, or the member.
    pub description: String,
}

/// What log is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKind {
    /// Recovery from a checkpoint.
    Checkpoint,
    /// A follower that is attached and has not received more.
    Replication,
    /// A member that builds its store from a checkpoint, and needs the log after it.
    Duplicate,
}

impl HoldKind {
    /// The word that the procedure answers with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "Checkpoint",
            Self::Replication => "Replication",
            Self::Duplicate => "Duplicate",
        }
    }
}

/// Constant facts about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// This member's name, shown in hints and by `understudy.member`.
    pub member: MemberName,
    /// The pair's name: the one database name that clients connect to, besides `postgres`.
    pub pair: String,
    /// Understudy's version.
    pub version: &'static str,
}

/// What a member is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its role; only the active takes writes.
    pub role: Role,
    /// The epoch it follows or serves.
    pub epoch: Epoch,
    /// The active, for hints; None while nobody is known to be.
    pub active: Option<MemberName>,
}

/// Why a commit did not happen. Nothing of the transaction remains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefused {
    /// The member is not the active.
    #[error("cannot commit changes on a read-only member")]
    ReadOnly {
        /// The active, when known.
        active: Option<MemberName>,
    },
    /// The log volume has no room for another transaction.
    #[error("the log volume is full")]
    LogFull,
    /// It changes more than one log record can hold.
    #[error("the transaction is too large: {bytes} bytes of changes, at most {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Bytes of its log record.
        bytes: usize,
    },
    /// Neither the Lease nor the standby's grant gives authority at this moment (R6a).
    #[error("this member has no authority to commit at this moment")]
    NoAuthority,
    /// What a SERIALIZABLE transaction read has changed since.
    #[error("could not serialize access due to read/write dependencies among transactions")]
    Serialization,
    /// Its token was given in an earlier epoch: who knows only that epoch may call it not committed.
    #[error("the epoch changed since the transaction was named")]
    TokenOutdated,
    /// Too many transactions are stacked on one in doubt (A2.10), or the member is closing.
    #[error("the commit was refused: {reason}")]
    Refused {
        /// Why, for people.
        reason: String,
    },
}

impl CommitRefused {
    /// The SQLSTATE a client sees.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            CommitRefused::ReadOnly { .. } => sqlstate::READ_ONLY,
            CommitRefused::LogFull => sqlstate::DISK_FULL,
            CommitRefused::TooLarge { .. } => sqlstate::LIMIT_EXCEEDED,
            CommitRefused::NoAuthority => sqlstate::CANNOT_CONNECT_NOW,
            CommitRefused::Serialization | CommitRefused::TokenOutdated => sqlstate::SERIALIZATION,
            CommitRefused::Refused { .. } => sqlstate::NOT_IN_STATE,
        }
    }

    /// What the client may do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            CommitRefused::ReadOnly { active } => active_hint(active.as_ref()),
            CommitRefused::LogFull => {
                "Nothing was changed. Reads go on; writes resume by themselves when space returns."
                    .to_owned()
            }
            CommitRefused::TooLarge { .. } => {
                "Nothing was changed. Split it into smaller transactions.".to_owned()
            }
            CommitRefused::NoAuthority => "Nothing was changed. Try again, or reconnect with \
                 target_session_attrs=read-write to reach the active."
                .to_owned(),
            CommitRefused::TokenOutdated => "Nothing was changed. Begin it again.".to_owned(),
            CommitRefused::Serialization => "The transaction might succeed if retried.".to_owned(),
            CommitRefused::Refused { .. } => "Nothing was changed. Try again.".to_owned(),
        }
    }
}

/// Where to write instead.
pub(super) fn active_hint(active: Option<&MemberName>) -> String {
    match active {
        Some(active) => format!(
            "The active is {active}; connect to it, or use target_session_attrs=read-write."
        ),
        None => "No active is known at this moment; connect with target_session_attrs=read-write \
             and try again."
            .to_owned(),
    }
}

/// The commit may or may not survive: this member lost the right to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the outcome of the commit is unknown: {reason}")]
pub struct OutcomeUnknown {
    /// What happened to this member.
    pub reason: String,
}

/// A read that claims to be current cannot be answered now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this member cannot confirm that the read is current: {reason}")]
pub struct ReadRefused {
    /// What is missing.
    pub reason: String,
}
