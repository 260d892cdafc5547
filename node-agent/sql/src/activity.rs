//! What `pg_stat_activity` shows of the sessions: given by whoever runs them.

use crate::parse::IsolationLevel;
use std::{fmt, sync::Arc};
use understudy_types::Lsn;

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionState {
    /// A statement runs.
    Active,
    /// It waits for its client.
    #[default]
    Idle,
    /// The same, in a transaction that is open.
    IdleInTransaction,
    /// The same, in a transaction that failed.
    IdleInFailedTransaction,
}

/// What a statement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionWait {
    /// Another transaction holds a row, a key or a table.
    Lock,
    /// Its commit is not acknowledged yet.
    Commit,
    /// Its client takes the rows of a query.
    Client,
    /// The log is written first, after a large transaction.
    Log,
}

/// One session. Times are microseconds since 2000-01-01 UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionActivity {
    /// Number that cancel requests use.
    pub pid: i32,
    /// Login name.
    pub user: String,
    /// The name that the application gives itself.
    pub application: String,
    /// When it began.
    pub started_micros: i64,
    /// When its open transaction began.
    pub transaction_micros: Option<i64>,
    /// When its present or last statement began.
    pub statement_micros: Option<i64>,
    /// When its state changed last.
    pub changed_micros: i64,
    /// What it does.
    pub state: SessionState,
    /// What it waits for.
    pub wait: Option<SessionWait>,
    /// Oldest state of the rows that its open transaction keeps, while it waits for its client.
    pub snapshot: Option<Lsn>,
    /// Its present or last statement.
    pub text: Arc<str>,
    /// What its open transaction holds, as of the end of its last statement.
    pub held: HeldActivity,
}

/// What an open transaction holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldActivity {
    /// Its level.
    pub isolation: IsolationLevel,
    /// Changes and locks that it remembers.
    pub operations: u64,
    /// Temporary memory charged for them, in bytes.
    pub temporary_bytes: u64,
    /// Its answers wait until this LSN is acknowledged; zero for nothing.
    pub depends_lsn: u64,
}

/// Transactions that ended since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndedTransactions {
    /// Committed, those without a change included.
    pub committed: u64,
    /// Rolled back.
    pub rolled_back: u64,
    /// Of those, ended because they waited for each other.
    pub deadlocks: u64,
}

impl SessionState {
    /// PostgreSQL's word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle in transaction",
            Self::IdleInFailedTransaction => "idle in transaction (aborted)",
        }
    }
}

impl SessionWait {
    /// PostgreSQL's words: type and event.
    pub(crate) const fn as_strs(self) -> (&'static str, &'static str) {
        match self {
            Self::Lock => ("Lock", "transactionid"),
            Self::Commit => ("IPC", "SyncRep"),
            Self::Client => ("Client", "ClientWrite"),
            Self::Log => ("IO", "WALWrite"),
        }
    }
}

/// Gives what somebody asks for.
type Told<T> = Option<Arc<dyn Fn() -> T + Send + Sync>>;

/// Where the sessions are listed; by default there are none.
#[derive(Clone, Default)]
pub struct Sessions {
    list: Told<Vec<SessionActivity>>,
    ended: Told<EndedTransactions>,
}

impl Sessions {
    /// Those that `list` tells of, and the transactions that `ended` tells of.
    #[must_use]
    pub fn told_by(
        list: impl Fn() -> Vec<SessionActivity> + Send + Sync + 'static,
        ended: impl Fn() -> EndedTransactions + Send + Sync + 'static,
    ) -> Self {
        Self { list: Some(Arc::new(list)), ended: Some(Arc::new(ended)) }
    }

    /// In the order of their numbers.
    pub(crate) fn list(&self) -> Vec<SessionActivity> {
        let mut list = self.list.as_ref().map(|list| list()).unwrap_or_default();
        list.sort_by_key(|session| session.pid);
        list
    }

    pub(crate) fn ended(&self) -> EndedTransactions {
        self.ended.as_ref().map(|ended| ended()).unwrap_or_default()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}
