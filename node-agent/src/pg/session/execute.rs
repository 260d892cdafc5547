//! Running one planned statement: snapshot, execution, waiting for locks, and what its result depends on.
//!
//! An execution that meets a lock is undone, waits without blocking the loop, and is done again on its
//! snapshot; rows that it had put into the reply are taken back.

use super::{
    Failure, Report, Session,
    apart::Cut,
    portal::PreparedStatement,
    rows::{RowReceiver, Rows},
    sqlstate,
};
use crate::pg::database::Noted;
use rustix::time::{ClockId, clock_gettime};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use understudy_sql::{
    CommandTag, ExecContext, ExecError, Prepared, SessionInfo, SessionWait, SqlError, Statement,
    StatementKind, execute_into, prepare,
};
use understudy_store::{DataType, Store, TxnId, Value};
use understudy_types::Lsn;

/// Seconds from 1970 to 2000, the epoch of SQL's timestamps.
const SECONDS_TO_2000: i64 = 946_684_800;

/// Microseconds since 2000-01-01 UTC.
pub(super) fn now_micros() -> i64 {
    let since_1970 = clock_gettime(ClockId::Realtime);
    (since_1970.tv_sec - SECONDS_TO_2000) * 1_000_000 + since_1970.tv_nsec / 1_000
}

/// What one execution is told of its moment, and where its random functions start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    transaction_micros: i64,
    statement_micros: i64,
    seed: u64,
}

impl Facts {
    /// For an execution between other sessions' statements.
    pub(super) fn context<'a>(
        self,
        store: &'a Store,
        session: &'a SessionInfo,
        params: &'a [Value],
    ) -> ExecContext<'a> {
        let Facts { transaction_micros, statement_micros, seed } = self;
        let is_apart = false;
        ExecContext { store, params, transaction_micros, statement_micros, seed, session, is_apart }
    }
}

/// How one attempt at an execution ended.
pub(super) enum Attempt {
    Done(CommandTag),
    /// The definitions have changed since the plan was made.
    Stale,
    Blocked(TxnId),
    /// It takes longer than it may between other sessions' statements.
    Far,
    Failed(SqlError),
    /// It was cut off: cancelled, out of time or authority, or its session ends.
    Cut(Cut),
}

/// What an attempt in place came to that the long way goes on with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unfinished {
    Far,
    Blocked(TxnId),
}

impl Session {
    /// A statement begins: earlier cancel requests are moot, clocks start.
    pub(super) fn begin_statement(&mut self) {
        self.control.forget_cancel();
        self.statement_micros = now_micros();
        self.control.works(self.statement_micros);
    }

    /// When the statement has taken too long (`statement_timeout`).
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limit = self.limits.statement?;
        // None is spent where the clock was set back.
        let spent = u64::try_from(now_micros() - self.statement_micros).unwrap_or_default();
        Some(Instant::now() + limit.saturating_sub(Duration::from_micros(spent)))
    }

    /// Waits for a part of the statement; its time limit, a cancel request and the session's end cut it off.
    pub(super) async fn in_time<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        self.write_answered()?;
        let waited = self.unless_cut(self.deadline(), future).await;
        waited.map_err(|cut| self.cut_off(cut))
    }

    /// Lets the loop's other sessions go on.
    pub(super) async fn give_way(&mut self) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        self.not_cut(self.deadline()).map_err(|cut| self.cut_off(cut))
    }

    /// Says in `pg_stat_activity` what runs; the text of the statement before stays where it is the same.
    pub(super) fn tell_text(&mut self, text: &Arc<str>) {
        if !Arc::ptr_eq(text, &self.told_text) {
            self.told_text = Arc::clone(text);
            self.control.runs(text);
        }
    }

    /// Makes the plan of a statement on the definitions that the transaction's next statement sees.
    pub(super) async fn plan(
        &mut self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Prepared, Failure> {
        loop {
            let (catalog, since) = self.store.definitions(self.transaction.txn.as_ref());
            if since <= self.store.acknowledged() {
                return Ok(prepare(&catalog, statement, hints)?);
            }
            // A plan, its columns and that there is none tell of definitions that may be taken back (A2.9).
            self.hold(since, self.output.bytes.len());
            self.settle().await?;
            // Others may make new ones each time.
            self.give_way().await?;
        }
    }

    /// Runs a planned statement to its end, waiting for locks as often as it takes.
    pub(super) async fn execute(
        &mut self,
        statement: &Arc<PreparedStatement>,
        parameters: &[Value],
        mut rows: Rows<'_>,
    ) -> Result<CommandTag, Failure> {
        self.check_kind(statement)?;
        self.see_own_commits().await?;
        let mut has_snapshot = self.begin_txn();
        let mut statement = Arc::clone(statement);
        self.output.start = self.output.bytes.len();
        let (mut is_far, mut has_waited) = (false, false);
        match self.unfinished.take() {
            Some(Unfinished::Far) => is_far = true,
            // The transaction is as that attempt has left it.
            Some(Unfinished::Blocked(on)) if !has_snapshot => {
                self.wait_for(on).await?;
                has_waited = true;
            }
            Some(Unfinished::Blocked(_)) | None => {}
        }
        loop {
            let txn = self.transaction.txn.as_mut().expect("begun above, kept by this loop");
            let mark = match &statement.plan {
                _ if has_snapshot => self.store.savepoint(txn),
                Some(plan) if has_waited => self.store.again(txn, plan.targets()),
                Some(_) | None => self.store.statement(txn),
            };
            has_snapshot = false;
            let plan = statement.plan.as_deref();
            rows.describe(&statement, &mut self.output.bytes);
            let attempt = if is_far || plan.is_some_and(|plan| plan.is_long(&self.store)) {
                self.attempt_apart(&statement, parameters, &mut rows).await
            } else {
                self.attempt(&statement, parameters, &mut rows)
            };
            if let Attempt::Done(tag) = attempt {
                return self.finish_statement(&statement).map(|()| tag);
            }
            self.output.cut_to(self.output.start);
            if let Rows::Kept(kept) = &mut rows {
                kept.clear();
            }
            self.undo(Some(mark));
            self.undone().await;
            match attempt {
                Attempt::Done(_) => {}
                Attempt::Stale => {
                    let may_change = matches!(rows, Rows::Described { may_change: true });
                    statement = self.replan(&statement, may_change).await?;
                }
                Attempt::Blocked(on) => {
                    self.wait_for(on).await?;
                    has_waited = true;
                }
                Attempt::Far => is_far = true,
                Attempt::Failed(error) => {
                    self.hold(self.depends_of(&error), self.output.start);
                    return Err(error.into());
                }
                Attempt::Cut(cut) => return Err(self.cut_off(cut)),
            }
        }
    }

    /// One attempt on the transaction's present snapshot.
    fn attempt(
        &mut self,
        statement: &PreparedStatement,
        parameters: &[Value],
        rows: &mut Rows<'_>,
    ) -> Attempt {
        let Some(plan) = statement.plan.as_deref() else {
            return Attempt::Failed(SqlError::internal("a statement of the session has no plan"));
        };
        let facts = self.facts();
        let txn = self.transaction.txn.as_mut().expect("the caller has begun it");
        if !plan.is_current(txn.catalog()) {
            return Attempt::Stale;
        }
        let context = facts.context(&self.store, &self.info, parameters);
        let zone_offset = self.info.settings.zone_offset();
        let output = (&mut self.output.bytes, &*plan.columns, zone_offset);
        let mut receiver = RowReceiver::new(output, rows.again(), &self.store, None);
        let result = execute_into(plan, &context, txn, &mut receiver);
        let (notices, room) = receiver.end();
        match result {
            Ok(tag) => {
                self.pending_notices = notices;
                self.output.keep(room);
                Attempt::Done(tag)
            }
            Err(ExecError::Blocked { on }) => Attempt::Blocked(on),
            Err(ExecError::Far) => Attempt::Far,
            Err(ExecError::Sql(error)) => Attempt::Failed(error),
        }
    }

    /// What an error may tell of that is not acknowledged yet (A2.9).
    pub(super) fn depends_of(&self, error: &SqlError) -> Lsn {
        self.transaction.depends_lsn().max(error.depends_lsn.unwrap_or(Lsn::ZERO))
    }

    /// What has to hold before the rows of a finished statement may leave (R6a, A2.9). In a block the tag of a
    /// statement without rows leaves at once: nothing is done before its COMMIT, which waits.
    fn finish_statement(&mut self, statement: &PreparedStatement) -> Result<(), Failure> {
        if !statement.columns().is_empty() {
            if let Err(refused) = self.confirm_rows() {
                self.output.cut_to(self.output.start);
                return Err(refused.into());
            }
            self.hold(self.transaction.depends_lsn(), self.output.start);
        }
        for message in std::mem::take(&mut self.pending_notices) {
            self.tell(&Report::new(super::Severity::Notice, sqlstate::SUCCESS, message));
        }
        Ok(())
    }

    /// R6a: refused where the member cannot say that what was read is current.
    pub(super) fn confirm_rows(&self) -> Result<(), Report> {
        self.database.confirms_reads().map_err(|refused| {
            Report::error(sqlstate::CANNOT_CONNECT_NOW, refused.to_string())
                .hint("Try again, or reconnect with target_session_attrs=read-write.")
        })
    }

    /// 25006 when the statement writes and may not.
    pub(super) fn check_kind(&self, prepared: &PreparedStatement) -> Result<(), Failure> {
        match &prepared.statement {
            Some(statement) if !statement.is_allowed_read_only() => {
                self.check_may_write(statement.command())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Makes an old plan anew. Its parameters keep their types, and its columns unless nobody was told them.
    async fn replan(
        &mut self,
        old: &Arc<PreparedStatement>,
        may_change: bool,
    ) -> Result<Arc<PreparedStatement>, Failure> {
        let Some(statement) = &old.statement else {
            return Err(SqlError::internal("an empty statement has no plan").into());
        };
        // Values in hand were read as these. They say less than what they were taken for: an interval is read as text.
        let types = old.parameter_types();
        let mut plan = self.plan(statement, &old.hints).await?;
        if plan.params != types {
            let fixed: Vec<_> = types.iter().copied().map(Some).collect();
            plan = self.plan(statement, &fixed).await?;
        }
        let new = PreparedStatement::new(Some(statement.clone()), old.hints.clone(), Some(plan));
        let new = Arc::new(PreparedStatement { text: Arc::clone(&old.text), ..new });
        if !may_change && new.description != old.description {
            let message = "cached plan must not change result type";
            return Err(Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
        }
        for known in self.statements.values_mut().filter(|known| Arc::ptr_eq(known, old)) {
            *known = Arc::clone(&new);
        }
        Ok(new)
    }

    /// Waits until the transaction that holds what is needed has ended.
    pub(super) async fn wait_for(&mut self, on: TxnId) -> Result<(), Failure> {
        if on == TxnId::ENDED {
            // What was in the way is over, or will be in a moment on another loop.
            return self.give_way().await;
        }
        self.write_answered()?;
        let txn = self.transaction.txn.as_ref().expect("blocked inside a transaction");
        self.database.note(Noted::LockWait);
        let wait = self.store.wait(txn, on).map_err(|deadlock| {
            self.database.note(Noted::Deadlock);
            self.database.sessions().count_deadlock();
            Report::error(sqlstate::DEADLOCK, "deadlock detected")
                .detail(deadlock.to_string())
                .hint("Repeat the transaction.")
        })?;
        let statement = self.deadline();
        let lock = self.limits.lock.map(|limit| Instant::now() + limit);
        let (deadline, is_lock) = match (statement, lock) {
            (Some(statement), Some(lock)) => (Some(statement.min(lock)), lock < statement),
            (statement, lock) => (statement.or(lock), lock.is_some()),
        };
        self.control.awaits(Some(SessionWait::Lock));
        let waited = self.unless_cut(deadline, wait).await;
        self.control.awaits(None);
        match waited {
            Ok(()) => Ok(()),
            Err(Cut::TooLate) if is_lock => {
                let message = "canceling statement due to lock timeout";
                Err(Report::error(sqlstate::LOCK_NOT_AVAILABLE, message).into())
            }
            Err(cut) => Err(self.cut_off(cut)),
        }
    }

    /// For the next execution.
    pub(super) fn facts(&mut self) -> Facts {
        Facts {
            transaction_micros: self.transaction.started_micros,
            statement_micros: self.statement_micros,
            seed: self.next_seed(),
        }
    }

    /// A fresh start for the random functions of one execution (SplitMix64).
    fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Whether a statement is planned by the SQL crate, or run by the session itself.
pub(super) fn is_planned(statement: &Statement) -> bool {
    match statement.kind() {
        StatementKind::Query | StatementKind::LockingQuery | StatementKind::Write => {
            !matches!(statement, Statement::Copy(_))
        }
        StatementKind::Definition => !matches!(statement, Statement::User(_)),
        StatementKind::Maintenance => true,
        StatementKind::Transaction | StatementKind::Session | StatementKind::Call => false,
    }
}
