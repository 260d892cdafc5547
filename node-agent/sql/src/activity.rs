//! What `pg_stat_activity` shows of the sessions: given by whoever runs them.

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
        }
    }
}

/// Where the sessions are listed; by default there are none.
#[derive(Clone, Default)]
pub struct Sessions(Option<Arc<dyn Fn() -> Vec<SessionActivity> + Send + Sync>>);

impl Sessions {
    /// Those that `list` tells of.
    #[must_use]
    pub fn told_by(list: impl Fn() -> Vec<SessionActivity> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(list)))
    }

    pub(crate) fn list(&self) -> Vec<SessionActivity> {
        self.0.as_ref().map(|list| list()).unwrap_or_default()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}
