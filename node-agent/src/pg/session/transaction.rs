//! Transaction blocks: implicit ones around what a client sends between two points of rest, explicit
//! ones, failed ones, savepoints.
//!
//! Invariants: a `Txn` exists only while a block is open; after an error without savepoints it is rolled
//! back at once, so that a failed block holds no locks; the reply of a commit is held from the place where
//! its statements' replies begin.

use super::{
    Failure, Report, Session,
    apart::finished,
    notice::{NO_TRANSACTION, TRANSACTION_OPEN},
    output::Done,
    setting::HasCommitted,
};
use crate::pg::{
    database::{CommitRefused, Database, active_hint},
    reply::{self, TransactionStatus},
    sqlstate,
    tokens::OpenToken,
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use understudy_sql::{
    IsolationLevel, NEAR_ROWS, SessionWait, SetScope, Statement, TransactionModes,
};
use understudy_store::{Mark, Store, Txn};
use understudy_types::{Lsn, Role};

/// Between two looks at a log that is behind.
const LOG_LOOK: Duration = Duration::from_millis(2);

/// Where a session is between BEGIN and COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Block {
    /// Nothing is open.
    #[default]
    None,
    /// Opened by a statement, ends at the next point of rest.
    Implicit,
    /// Opened by BEGIN.
    Explicit,
    /// An explicit one after an error.
    Failed,
}

/// The transaction of a session.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) block: Block,
    pub(super) txn: Option<Txn>,
    /// What BEGIN or SET TRANSACTION said of this one.
    pub(super) modes: TransactionModes,
    savepoints: Vec<(String, Option<Mark>)>,
    /// Where in the output the replies of this block begin.
    output_start: usize,
    /// When the block began, microseconds since 2000: `now()`.
    pub(super) started_micros: i64,
    /// How many blocks have ended; tells whether a statement ended its own.
    pub(super) blocks: u64,
    /// A setting was changed in this block.
    pub(super) has_settings: bool,
    /// The name that the client knows the block by.
    pub(super) named: Option<OpenToken>,
    /// What is being undone; the transaction comes back if it goes on.
    undoing: Option<JoinHandle<Option<Txn>>>,
}

/// A block that is over, on the way to its commit.
struct Closing {
    txn: Option<Txn>,
    named: Option<OpenToken>,
    database: Arc<dyn Database>,
    store: Arc<Store>,
}

type Committed = Result<Done, CommitRefused>;

impl Closing {
    fn commit(self) -> Committed {
        let Some(mut txn) = self.txn else { return Ok(Done::default()) };
        if let Some(named) = &self.named {
            txn.name(named.token());
        }
        let token = self.named.as_ref().map(OpenToken::token);
        let depends = txn.depends_lsn();
        if txn.is_read_only() {
            self.store.rollback(txn);
            return Ok(Done { lsn: depends, depends, token });
        }
        let lsn = self.database.commit(txn)?;
        Ok(Done { lsn, depends, token })
    }
}

impl Transaction {
    /// Whether committing or undoing it takes so long that others must not wait behind it.
    pub(super) fn is_large(&self) -> bool {
        self.txn.as_ref().is_some_and(|txn| txn.extent().0 > NEAR_ROWS)
    }

    /// How many savepoints are open.
    pub(super) fn savepoints(&self) -> usize {
        self.savepoints.len()
    }

    /// What its answers depend on (A2.9).
    pub(super) fn depends_lsn(&self) -> Lsn {
        self.txn.as_ref().map_or(Lsn::ZERO, Txn::depends_lsn)
    }

    pub(super) fn status(&self) -> TransactionStatus {
        match self.block {
            Block::None | Block::Implicit => TransactionStatus::Idle,
            Block::Explicit => TransactionStatus::Open,
            Block::Failed => TransactionStatus::Failed,
        }
    }

    /// So many of the first bytes of the output are gone.
    pub(super) fn output_is_shorter_by(&mut self, bytes: usize) {
        self.output_start = self.output_start.saturating_sub(bytes);
    }
}

impl Session {
    /// Opens an implicit block when none is open; what follows belongs to it.
    pub(super) fn enter_block(&mut self) {
        if self.transaction.block == Block::None {
            self.transaction.block = Block::Implicit;
            self.transaction.output_start = self.output.bytes.len();
            self.transaction.started_micros = self.statement_micros;
        }
    }

    /// Whether the present transaction may not write, and why.
    pub(super) fn check_may_write(&self, command: &str) -> Result<(), Failure> {
        if self.database.role() != Role::Active {
            let standing = self.database.standing();
            let message = format!("cannot execute {command} in a read-only transaction");
            return Err(Report::error(sqlstate::READ_ONLY, message)
                .detail(format!(
                    "This member, {}, is {}.",
                    self.database.identity().member,
                    with_article(standing.role)
                ))
                .hint(active_hint(standing.active.as_ref()))
                .into());
        }
        if self.info.read_only {
            let message = format!("cannot execute {command} in a read-only transaction");
            return Err(Report::error(sqlstate::READ_ONLY, message).into());
        }
        Ok(())
    }

    /// `transaction_read_only`, the member's role aside.
    pub(super) fn is_read_only(&self) -> bool {
        self.transaction.modes.read_only.unwrap_or_else(|| self.is_read_only_by_default())
    }

    /// The isolation of the present transaction, or of the next.
    pub(super) fn isolation(&self) -> IsolationLevel {
        self.transaction.modes.isolation.unwrap_or_else(|| self.info.settings.default_isolation())
    }

    /// Begins the store's transaction of the open block, unless it has begun. True when it has just
    /// begun, its first statement with it.
    pub(super) fn begin_txn(&mut self) -> bool {
        self.enter_block();
        if self.transaction.txn.is_some() {
            return false;
        }
        let txn = self.store.begin(self.isolation().into());
        txn.belongs_to(self.guard.pid());
        self.transaction.txn = Some(txn);
        true
    }

    /// As [`Session::begin_txn`], with a new statement where it had begun: on the newest definitions.
    pub(super) fn begin_statement_txn(&mut self) {
        if !self.begin_txn()
            && let Some(txn) = &mut self.transaction.txn
        {
            self.store.statement(txn);
        }
    }

    /// Before a commit of the open transaction: waits until the log has been written, where it would add to it.
    pub(super) async fn await_log(&mut self) -> Result<(), Failure> {
        if self.transaction.is_large() {
            // It takes long by itself.
            self.write_answered()?;
        }
        let writes = self.transaction.txn.as_ref().is_some_and(|txn| !txn.is_read_only());
        if !writes || !self.database.log_is_behind() {
            return Ok(());
        }
        let database = Arc::clone(&self.database);
        let written = async move {
            while database.log_is_behind() {
                tokio::time::sleep(LOG_LOOK).await;
            }
        };
        self.control.awaits(Some(SessionWait::Log));
        let waited = self.in_time(written).await;
        self.control.awaits(None);
        waited
    }

    /// Ends an implicit block, if one is open, by committing it once the log takes it.
    pub(super) async fn end_implicit(&mut self) -> Result<(), Failure> {
        if self.transaction.block == Block::Implicit {
            self.await_log().await?;
        }
        self.commit_implicit().await
    }

    async fn commit_implicit(&mut self) -> Result<(), Failure> {
        match self.transaction.block {
            Block::Implicit => self.commit(self.transaction.output_start).await,
            Block::None | Block::Explicit | Block::Failed => Ok(()),
        }
    }

    /// Commits the open block, a large one on a thread of its own. `start` is where the replies begin that tell
    /// of it.
    async fn commit(&mut self, start: usize) -> Result<(), Failure> {
        let is_large = self.transaction.is_large();
        let closing = self.close_for_commit();
        let done = if is_large {
            // It takes the name along: that stays open until the record is noted.
            finished(tokio::task::spawn_blocking(move || closing.commit()).await)
        } else {
            closing.commit()
        };
        self.committed(done, start)
    }

    /// As [`Session::commit`], for a block that is not large.
    pub(super) fn commit_here(&mut self, start: usize) -> Result<(), Failure> {
        let done = self.close_for_commit().commit();
        self.committed(done, start)
    }

    fn close_for_commit(&mut self) -> Closing {
        if self.transaction.named.is_some() {
            // A named transaction leaves a record, whether or not it changed anything.
            self.begin_txn();
        }
        let named = self.transaction.named.take();
        let txn = self.transaction.txn.take();
        self.close_block();
        Closing { txn, named, database: Arc::clone(&self.database), store: Arc::clone(&self.store) }
    }

    fn committed(&mut self, done: Committed, start: usize) -> Result<(), Failure> {
        match done {
            Ok(done) => {
                self.control.counts(true);
                self.end_settings(HasCommitted::Yes);
                self.hold_commit(done, start);
                Ok(())
            }
            Err(refused) => {
                self.control.counts(false);
                self.end_settings(HasCommitted::No);
                Err(Report::error(refused.sqlstate(), refused.to_string())
                    .hint(refused.hint())
                    .into())
            }
        }
    }

    /// Forgets the block; portals end with it.
    fn close_block(&mut self) {
        self.portals.clear();
        self.transaction.block = Block::None;
        self.transaction.blocks += 1;
        self.transaction.savepoints.clear();
        self.transaction.named = None;
        if std::mem::take(&mut self.transaction.modes) != TransactionModes::default() {
            self.refresh_info();
        }
    }

    /// Undoes the transaction, or what it did since the mark: here, or where that takes long on a thread of
    /// its own, which has to be waited for before anything else is done ([`Session::undone`]).
    pub(super) fn undo(&mut self, since: Option<Mark>) {
        let is_large = self.transaction.is_large();
        let Some(mut txn) = self.transaction.txn.take() else { return };
        let store = Arc::clone(&self.store);
        let undo = move || match since {
            Some(mark) => {
                store.rollback_to(&mut txn, &mark);
                Some(txn)
            }
            None => {
                store.rollback(txn);
                None
            }
        };
        if is_large {
            self.transaction.undoing = Some(tokio::task::spawn_blocking(undo));
        } else {
            self.transaction.txn = undo();
        }
    }

    /// Waits until nothing is being undone any more.
    pub(super) async fn undone(&mut self) {
        if let Some(undoing) = self.transaction.undoing.take() {
            self.transaction.txn = finished(undoing.await);
        }
    }

    /// Undoes the open block, whatever state it is in.
    pub(super) fn rollback_all(&mut self) {
        self.undo(None);
        if self.transaction.block != Block::None {
            self.control.counts(false);
        }
        self.end_settings(HasCommitted::No);
        self.close_block();
    }

    /// After an error: an implicit block is gone, an explicit one has failed.
    pub(super) fn fail_transaction(&mut self) {
        match self.transaction.block {
            Block::None | Block::Failed => {}
            Block::Implicit => self.rollback_all(),
            Block::Explicit => {
                self.transaction.block = Block::Failed;
                // With a savepoint the client may go on from there; otherwise nothing is left to keep.
                if self.transaction.savepoints.is_empty() {
                    self.portals.clear();
                    self.undo(None);
                }
            }
        }
    }

    /// 25P02, unless the statement is one that a failed block takes.
    pub(super) fn check_not_failed(&self, statement: &Statement) -> Result<(), Failure> {
        if self.transaction.block == Block::Failed && !statement.is_allowed_after_failure() {
            return Err(failed_block().into());
        }
        Ok(())
    }

    /// Runs a statement of the kind `Transaction`; the tag is appended.
    pub(super) async fn control_transaction(
        &mut self,
        statement: &Statement,
    ) -> Result<(), Failure> {
        let start = self.output.bytes.len();
        let mut tag = statement.command();
        match statement {
            Statement::Begin(modes) => self.begin_block(*modes)?,
            Statement::Commit { chain } => {
                if self.transaction.block == Block::Failed {
                    tag = "ROLLBACK";
                }
                self.end_block(start, Ending { commits: true, chain: *chain }).await?;
            }
            Statement::Rollback { chain } => {
                self.end_block(start, Ending { commits: false, chain: *chain }).await?;
            }
            Statement::Savepoint(name) => self.set_savepoint(name)?,
            Statement::ReleaseSavepoint(name) => {
                let position = self.savepoint_position(name)?;
                self.transaction.savepoints.truncate(position);
                for portal in self.portals.values_mut() {
                    portal.savepoints = portal.savepoints.min(position);
                }
            }
            Statement::RollbackTo(name) => self.rollback_to_savepoint(name)?,
            Statement::SetTransaction { scope, modes } => self.set_transaction(*scope, *modes)?,
            other => {
                let message = format!("{} is no transaction statement", other.command());
                return Err(Report::error(sqlstate::INTERNAL, message).into());
            }
        }
        reply::command_complete(&mut self.output.bytes, tag);
        Ok(())
    }

    pub(super) fn begin_block(&mut self, modes: TransactionModes) -> Result<(), Failure> {
        match self.transaction.block {
            Block::Explicit => self.notice(&TRANSACTION_OPEN),
            Block::Failed => return Err(failed_block().into()),
            Block::None | Block::Implicit => {
                self.enter_block();
                self.transaction.block = Block::Explicit;
            }
        }
        self.set_modes(modes)
    }

    async fn end_block(&mut self, start: usize, ending: Ending) -> Result<(), Failure> {
        let modes = self.transaction.modes;
        let block = self.transaction.block;
        match block {
            Block::None | Block::Implicit => {
                if ending.chain {
                    let message = format!(
                        "{} AND CHAIN can only be used in transaction blocks",
                        ending.word()
                    );
                    return Err(Report::error(sqlstate::NO_TRANSACTION, message).into());
                }
                self.notice(&NO_TRANSACTION);
                // Statements of the same message before this one are ended by it, too.
                if ending.commits { self.commit_implicit().await? } else { self.rollback_all() }
            }
            Block::Explicit if ending.commits => self.commit(start).await?,
            Block::Explicit | Block::Failed => self.rollback_all(),
        }
        if ending.chain {
            self.enter_block();
            self.transaction.block = Block::Explicit;
            self.transaction.modes = modes;
            self.refresh_info();
        }
        Ok(())
    }

    fn set_savepoint(&mut self, name: &str) -> Result<(), Failure> {
        if self.transaction.block != Block::Explicit {
            let message = "SAVEPOINT can only be used in transaction blocks";
            return Err(Report::error(sqlstate::NO_TRANSACTION, message).into());
        }
        let mark = self.transaction.txn.as_ref().map(|txn| self.store.savepoint(txn));
        self.transaction.savepoints.push((name.to_owned(), mark));
        Ok(())
    }

    fn savepoint_position(&self, name: &str) -> Result<usize, Failure> {
        if matches!(self.transaction.block, Block::None | Block::Implicit) {
            let message = "savepoints can only be used in transaction blocks";
            return Err(Report::error(sqlstate::NO_TRANSACTION, message).into());
        }
        let mut newest_first = self.transaction.savepoints.iter().rev();
        match newest_first.position(|(known, _)| known == name) {
            Some(back) => Ok(self.transaction.savepoints.len() - 1 - back),
            None => {
                let message = format!("savepoint \"{name}\" does not exist");
                Err(Report::error(sqlstate::UNKNOWN_SAVEPOINT, message).into())
            }
        }
    }

    fn rollback_to_savepoint(&mut self, name: &str) -> Result<(), Failure> {
        let position = self.savepoint_position(name)?;
        self.transaction.savepoints.truncate(position + 1);
        self.portals.retain(|_, portal| portal.savepoints <= position);
        let mark = self.transaction.savepoints[position].1.clone();
        // Without a mark it is older than the first statement.
        self.undo(mark);
        self.transaction.block = Block::Explicit;
        Ok(())
    }

    fn set_transaction(&mut self, scope: SetScope, modes: TransactionModes) -> Result<(), Failure> {
        match scope {
            SetScope::Session => self.set_characteristics(modes),
            SetScope::Local => {
                if matches!(self.transaction.block, Block::None | Block::Implicit) {
                    self.notice(&super::notice::SET_TRANSACTION_OUTSIDE);
                    return Ok(());
                }
                self.set_modes(modes)
            }
        }
    }

    /// Takes the modes of BEGIN and SET TRANSACTION, as far as the transaction still allows.
    pub(super) fn set_modes(&mut self, modes: TransactionModes) -> Result<(), Failure> {
        if let Some(isolation) = modes.isolation {
            if self.transaction.txn.is_some() && isolation != self.isolation() {
                let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
                return Err(Report::error(sqlstate::ACTIVE_TRANSACTION, message).into());
            }
            self.transaction.modes.isolation = Some(isolation);
        }
        if let Some(read_only) = modes.read_only {
            if !read_only && self.database.role() != Role::Active {
                let standing = self.database.standing();
                let message = "cannot set transaction read-write mode during recovery";
                return Err(Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message)
                    .hint(active_hint(standing.active.as_ref()))
                    .into());
            }
            self.transaction.modes.read_only = Some(read_only);
        }
        if modes != TransactionModes::default() {
            self.refresh_info();
        }
        Ok(())
    }

    /// Waits until the session's own last commit is visible, so that the next snapshot shows it, and its reply is
    /// free, so that the next is not held with it.
    pub(super) async fn see_own_commits(&mut self) -> Result<(), Failure> {
        if !self.owes_a_commit() {
            return Ok(());
        }
        self.settle().await?;
        if self.last_commit <= self.store.visible() {
            return Ok(());
        }
        // Its replies were given up: wait for the commit itself.
        let wait = self.database.acknowledged(self.last_commit);
        self.control.awaits(Some(SessionWait::Commit));
        let waited = self.in_time(wait).await;
        self.control.awaits(None);
        waited?.map_err(|unknown| self.end_unknown(&unknown).into())
    }

    /// The failure of a statement that was interrupted.
    pub(super) fn interrupted(&mut self, interrupt: super::Interrupt) -> Failure {
        match interrupt {
            super::Interrupt::Cancelled => {
                let message = "canceling statement due to user request";
                Report::error(sqlstate::CANCELED, message).into()
            }
            super::Interrupt::Ended(reason) => self.end_for(&reason).into(),
        }
    }
}

/// How an explicit block ends.
#[derive(Debug, Clone, Copy)]
struct Ending {
    commits: bool,
    chain: bool,
}

impl Ending {
    fn word(self) -> &'static str {
        if self.commits { "COMMIT" } else { "ROLLBACK" }
    }
}

fn failed_block() -> Report {
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Report::error(sqlstate::FAILED_TRANSACTION, message)
}

/// A role as it stands in a sentence.
fn with_article(role: Role) -> &'static str {
    match role {
        Role::Active => "the active",
        Role::Standby => "the standby",
        Role::Subscriber => "a subscriber",
        Role::Idle => "idle",
        Role::Recovering => "recovering",
        Role::Failed => "failed",
    }
}
