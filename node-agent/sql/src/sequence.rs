//! Sequences of a session: what it was given last, and how numbers are reserved.
//!
//! The store keeps where a sequence stands; here is what `currval` and `lastval` remember, and the way
//! to the commit section for the small transactions that reserve numbers. Deliberately absent: numbers
//! of a session's own (CACHE), and sequences on members that take no writes, which answer 25006.

use crate::{
    error::{SqlError, state},
    eval::Env,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use understudy_store::{NextValue, SequenceError, TableDef, TableId, Txn};
use understudy_types::Lsn;

/// The commit section, for reservations.
pub trait SequenceLog: Send + Sync {
    /// Commits a small transaction now, without waiting for its acknowledgement.
    ///
    /// # Errors
    /// Why this member does not take it; it was rolled back.
    fn commit(&self, reservation: Txn) -> Result<Lsn, SqlError>;
}

/// A number that the session was given.
#[derive(Debug, Clone, Copy)]
struct Given {
    sequence: TableId,
    value: i64,
    /// It may be shown once this is acknowledged.
    depends: Lsn,
}

#[derive(Debug, Default)]
struct Memory {
    given: Vec<Given>,
    last: Option<TableId>,
}

/// What a session knows of sequences.
#[derive(Clone, Default)]
pub struct SessionSequences {
    log: Option<Arc<dyn SequenceLog>>,
    memory: Arc<Mutex<Memory>>,
}

impl fmt::Debug for SessionSequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSequences")
    }
}

impl SessionSequences {
    /// A session that reserves numbers through this log.
    #[must_use]
    pub fn reserved_by(log: Arc<dyn SequenceLog>) -> SessionSequences {
        SessionSequences { log: Some(log), memory: Arc::default() }
    }

    /// Forgets what was given: DISCARD SEQUENCES.
    pub fn forget(&self) {
        self.with(|memory| *memory = Memory::default());
    }

    fn with<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, sequence: TableId, next: NextValue) {
        let NextValue { value, depends } = next;
        self.with(|memory| {
            memory.given.retain(|given| given.sequence != sequence);
            memory.given.push(Given { sequence, value, depends });
        });
    }

    fn commit(&self, reservation: Txn) -> Result<Lsn, SqlError> {
        match &self.log {
            Some(log) => log.commit(reservation),
            None => Err(SqlError::internal("this session cannot reserve numbers")),
        }
    }
}

/// `nextval`.
pub(crate) fn next(sequence: &TableDef, env: &Env<'_>) -> Result<i64, SqlError> {
    let (txn, session) = (env.txn, env.run.context.session);
    let commit = |reservation| session.sequences.commit(reservation);
    let next = env.run.context.store.next_value(txn, sequence.id, commit);
    let next = next.map_err(|error| refused(error, env))?;
    session.sequences.remember(sequence.id, next);
    session.sequences.with(|memory| memory.last = Some(sequence.id));
    Ok(next.value)
}

/// `setval`.
pub(crate) fn set(
    sequence: &TableDef,
    (value, is_called): (i64, bool),
    env: &Env<'_>,
) -> Result<i64, SqlError> {
    let (txn, session) = (env.txn, env.run.context.session);
    let commit = |reservation| session.sequences.commit(reservation);
    let target = (sequence.id, value, is_called);
    let set = env.run.context.store.set_value(txn, target, commit);
    let set = set.map_err(|error| match error {
        SequenceError::OutOfBounds { sequence, bounds: (min, max) } => SqlError::new(
            state::OUT_OF_RANGE,
            format!(
                "setval: value {value} is out of bounds for sequence \"{sequence}\" ({min}..{max})"
            ),
        ),
        error => refused(error, env),
    })?;
    if is_called {
        session.sequences.remember(sequence.id, set);
    }
    Ok(value)
}

/// `currval`.
pub(crate) fn current(sequence: &TableDef, env: &Env<'_>) -> Result<i64, SqlError> {
    let message =
        || format!("currval of sequence \"{}\" is not yet defined in this session", sequence.name);
    given(sequence.id, env)?.ok_or_else(|| SqlError::new(state::NOT_IN_STATE, message()))
}

/// `lastval`.
pub(crate) fn last(env: &Env<'_>) -> Result<i64, SqlError> {
    let last = env.run.context.session.sequences.with(|memory| memory.last);
    let known = last.filter(|id| env.catalog().table_by_id(*id).is_some());
    let value = known.map_or(Ok(None), |sequence| given(sequence, env))?;
    value.ok_or_else(|| {
        SqlError::new(state::NOT_IN_STATE, "lastval is not yet defined in this session")
    })
}

fn given(sequence: TableId, env: &Env<'_>) -> Result<Option<i64>, SqlError> {
    let sequences = &env.run.context.session.sequences;
    let given = sequences.with(|m| m.given.iter().find(|g| g.sequence == sequence).copied());
    let Some(given) = given else { return Ok(None) };
    env.txn.depend(given.depends);
    Ok(Some(given.value))
}

/// 25006 where numbers cannot be given.
pub(crate) fn check_writes(function: &str, env: &Env<'_>) -> Result<(), SqlError> {
    let session = env.run.context.session;
    if session.read_only || session.in_recovery {
        let message = format!("cannot execute {function}() in a read-only transaction");
        return Err(SqlError::new(state::READ_ONLY, message));
    }
    Ok(())
}

fn refused(error: SequenceError<SqlError>, env: &Env<'_>) -> SqlError {
    match error {
        SequenceError::Write(error) => match crate::execute::refused(error) {
            crate::execute::ExecError::Sql(error) => error,
            crate::execute::ExecError::Blocked { on } => {
                env.run.blocked.set(Some(on));
                SqlError::internal(format!("a sequence is held by transaction {on}"))
            }
            crate::execute::ExecError::Far => SqlError::internal("a sequence is no row"),
        },
        SequenceError::Exhausted { sequence, bound, is_maximum } => {
            let which = if is_maximum { "maximum" } else { "minimum" };
            SqlError::new(
                state::SEQUENCE_EXHAUSTED,
                format!("nextval: reached {which} value of sequence \"{sequence}\" ({bound})"),
            )
        }
        SequenceError::OutOfBounds { .. } => SqlError::internal("a number out of bounds"),
        SequenceError::Commit(error) => error,
    }
}
