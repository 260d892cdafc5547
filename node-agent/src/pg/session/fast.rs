//! The hot loop: a whole Bind, perhaps Describe, Execute, Sync batch of a known statement, answered from the
//! read buffer into the output buffer without a step in between.
//!
//! Only the plain case is answered here: the unnamed portal, all rows, a plan that is current, no lock in
//! the way; and the BEGIN and COMMIT around such statements, errors of theirs included. Everything else
//! leaves no trace and is answered message by message, a statement's errors too.

use super::{
    Session, SessionEnd,
    execute::Unfinished,
    extended::read_parameters,
    output::Done,
    portal::{PreparedStatement, append_description},
    reply,
    rows::{RowReceiver, Rows},
    transaction::Block,
};
use crate::pg::frame::{BindView, Frame, first_frame};
use std::sync::Arc;
use understudy_sql::{CommandTag, ExecError, Prepared, Statement, StatementKind, execute_into};
use understudy_store::Txn;
use understudy_types::{Lsn, Role};

/// Body of a Describe of the unnamed portal.
const UNNAMED_PORTAL: &[u8] = b"P\0";

/// Body of an Execute of the unnamed portal, all rows.
const ALL_OF_UNNAMED: &[u8] = b"\0\0\0\0\0";

/// A batch that may be answered here.
struct Batch<'a> {
    bind: BindView<'a>,
    has_describe: bool,
    bytes: usize,
    /// Bytes before its Sync.
    sync_at: usize,
}

impl<'a> Batch<'a> {
    /// The batch at the head of the buffer, when a whole one is there.
    #[inline]
    fn read(input: &'a [u8], limit: usize) -> Option<Batch<'a>> {
        if input.first() != Some(&b'B') {
            return None;
        }
        let mut at = 0;
        let mut next = || {
            let frame: Frame<'a> = first_frame(&input[at..], limit).ok().flatten()?;
            at += frame.total();
            Some(frame)
        };
        let bind = BindView::read(next()?.body).ok()?;
        let mut frame = next()?;
        let has_describe = frame.tag == b'D';
        if has_describe {
            if frame.body != UNNAMED_PORTAL {
                return None;
            }
            frame = next()?;
        }
        if frame.tag != b'E' || !bind.portal.is_empty() || frame.body != ALL_OF_UNNAMED {
            return None;
        }
        let sync = next()?;
        let sync_at = at - sync.total();
        (sync.tag == b'S').then_some(Batch { bind, has_describe, bytes: at, sync_at })
    }
}

impl Session {
    /// Answers the batch at the head of the buffer, if it is one for here. Returns the bytes answered.
    pub(super) fn fast(&mut self, input: &[u8]) -> Result<Option<usize>, SessionEnd> {
        let Some(batch) = Batch::read(input, self.message_bytes_max) else { return Ok(None) };
        let is_plain = !self.is_skipping && self.copy_in.is_none();
        if !is_plain || self.owes_a_commit() {
            return Ok(None);
        }
        let Some(prepared) = self.statements.get(batch.bind.statement) else { return Ok(None) };
        let prepared = Arc::clone(prepared);
        match &prepared.plan {
            Some(plan) => Ok(self.run_batch(&batch, &prepared, plan)),
            None => self.control_batch(&batch, &prepared),
        }
    }

    /// A planned statement.
    fn run_batch(
        &mut self,
        batch: &Batch<'_>,
        prepared: &PreparedStatement,
        plan: &Prepared,
    ) -> Option<usize> {
        let is_open = match self.transaction.block {
            Block::None => false,
            Block::Explicit => true,
            Block::Implicit | Block::Failed => return None,
        };
        self.may_run_fast(prepared)?;
        if plan.params.len() != batch.bind.parameter_count || plan.is_long(&self.store) {
            return None;
        }
        let formats = batch.bind.result_formats.count();
        if formats > 1 && formats != plan.columns.len() {
            return None;
        }
        self.begin_statement();
        self.tell_text(&prepared.text);
        let start = self.output.bytes.len();
        let answered = if is_open {
            self.answer_in_block(batch, prepared, plan)
        } else {
            self.answer_alone(batch, prepared, plan)
        };
        match answered {
            Some(()) => {
                self.ready();
                Some(batch.bytes)
            }
            None => {
                self.output.cut_to(start);
                None
            }
        }
    }

    /// BEGIN where nothing is open, and COMMIT of a block.
    fn control_batch(
        &mut self,
        batch: &Batch<'_>,
        prepared: &PreparedStatement,
    ) -> Result<Option<usize>, SessionEnd> {
        let begins = match (&prepared.statement, self.transaction.block) {
            (Some(Statement::Begin(modes)), Block::None) => Some(*modes),
            (Some(Statement::Commit { chain: false }), Block::Explicit) => None,
            _ => return Ok(None),
        };
        let is_plain = batch.bind.parameter_count == 0 && batch.bind.result_formats.count() <= 1;
        if !is_plain || self.transaction.is_large() || self.database.log_is_behind() {
            return Ok(None);
        }
        self.begin_statement();
        self.tell_text(&prepared.text);
        reply::bind_complete(&mut self.output.bytes);
        if batch.has_describe {
            self.output.bytes.extend_from_slice(&prepared.description);
        }
        let start = self.output.bytes.len();
        let (done, tag) = match begins {
            Some(modes) => (self.begin_block(modes), "BEGIN"),
            None => (self.commit_here(start), "COMMIT"),
        };
        match done {
            Ok(()) => {
                reply::command_complete(&mut self.output.bytes, tag);
                self.ready();
                Ok(Some(batch.bytes))
            }
            Err(failure) => {
                self.fail(failure)?;
                self.is_skipping = true;
                Ok(Some(batch.sync_at))
            }
        }
    }

    /// None unless the member and the transaction let the statement run.
    fn may_run_fast(&self, prepared: &PreparedStatement) -> Option<()> {
        match prepared.kind? {
            StatementKind::Query => Some(()),
            StatementKind::Write | StatementKind::LockingQuery => {
                let may = self.database.role() == Role::Active && !self.info.read_only;
                (may && !self.database.log_is_behind()).then_some(())
            }
            StatementKind::Transaction
            | StatementKind::Session
            | StatementKind::Definition
            | StatementKind::Call
            | StatementKind::Maintenance => None,
        }
    }

    /// A statement that is a transaction of its own.
    fn answer_alone(
        &mut self,
        batch: &Batch<'_>,
        prepared: &PreparedStatement,
        plan: &Prepared,
    ) -> Option<()> {
        let start = self.output.bytes.len();
        self.transaction.started_micros = self.statement_micros;
        let mut txn = self.store.begin(self.isolation().into());
        let tag = self.run_fast(batch, prepared, plan, &mut txn)?;
        self.confirmed(plan, &txn)?;
        if txn.is_read_only() {
            // Without rows too: that nothing was done tells of others' rows.
            let depends = txn.depends_lsn();
            self.store.rollback(txn);
            self.hold(depends, start);
        } else {
            // A refusal leaves nothing behind; the long way meets it again and reports it.
            let depends = txn.depends_lsn();
            let lsn = self.database.commit(txn).ok()?;
            self.hold_commit(Done { lsn, depends, token: None }, start);
        }
        self.control.counts(true);
        self.complete(&tag);
        Some(())
    }

    /// A statement inside a block.
    fn answer_in_block(
        &mut self,
        batch: &Batch<'_>,
        prepared: &PreparedStatement,
        plan: &Prepared,
    ) -> Option<()> {
        let start = self.output.bytes.len();
        let is_first = self.begin_txn();
        let mut txn = self.transaction.txn.take()?;
        let mark = if is_first { None } else { Some(self.store.statement(&mut txn)) };
        let result = self
            .run_fast(batch, prepared, plan, &mut txn)
            .and_then(|tag| self.confirmed(plan, &txn).map(|depends| (tag, depends)));
        match (&result, mark) {
            (None, None) => self.store.rollback(txn),
            (None, Some(mark)) => {
                self.store.rollback_to(&mut txn, &mark);
                self.transaction.txn = Some(txn);
            }
            (Some(_), _) => self.transaction.txn = Some(txn),
        }
        let (tag, depends) = result?;
        self.hold(depends, start);
        if !self.portals.is_empty() {
            // A batch before this one may have left its own, which this one's would have replaced.
            self.portals.remove("");
        }
        self.complete(&tag);
        Some(())
    }

    /// Executes the batch; everything up to its rows is appended.
    fn run_fast(
        &mut self,
        batch: &Batch<'_>,
        prepared: &PreparedStatement,
        plan: &Prepared,
        txn: &mut Txn,
    ) -> Option<CommandTag> {
        if !plan.is_current(txn.catalog()) {
            return None;
        }
        let zone_offset = self.info.settings.zone_offset();
        self.parameters.clear();
        read_parameters(&batch.bind, &plan.params, zone_offset, &mut self.parameters).ok()?;
        reply::bind_complete(&mut self.output.bytes);
        let formats = batch.bind.result_formats;
        if batch.has_describe {
            if formats.are_text() {
                self.output.bytes.extend_from_slice(&prepared.description);
            } else {
                append_description(&mut self.output.bytes, &plan.columns, formats);
            }
        }
        let facts = self.facts();
        let context = facts.context(&self.store, &self.info, &self.parameters);
        let output = (&mut self.output.bytes, &*plan.columns, zone_offset);
        let mut receiver = RowReceiver::new(output, Rows::Reply(formats), &self.store, None);
        let ended = execute_into(plan, &context, txn, &mut receiver);
        let (notices, room) = receiver.end();
        self.unfinished = match &ended {
            Err(ExecError::Far) => Some(Unfinished::Far),
            Err(ExecError::Blocked { on }) => Some(Unfinished::Blocked(*on)),
            Err(ExecError::Sql(_)) | Ok(_) => None,
        };
        let tag = ended.ok()?;
        self.output.keep(room);
        notices.is_empty().then_some(tag)
    }

    /// R6a and A2.9: what the rows depend on; None when the member cannot say that they are current.
    fn confirmed(&self, plan: &Prepared, txn: &Txn) -> Option<Lsn> {
        if plan.columns.is_empty() {
            return Some(Lsn::ZERO);
        }
        self.database.confirms_reads().ok()?;
        Some(txn.depends_lsn())
    }
}

#[cfg(test)]
mod tests {
    //! Which batches are answered here, and that the others are left whole; that both ways give the same
    //! answers is tested with the front end (`pg/tests/wire.rs`).

    use super::*;
    use crate::pg::{
        testing::{MemoryDatabase, USER},
        tests::wire::{batch, connected, parse, query},
    };
    use tokio::{net::UnixStream, runtime::Builder};

    /// A session of a member with a table of two rows, and its client. It knows a statement for each letter.
    async fn session(database: &Arc<MemoryDatabase>) -> (Session, UnixStream) {
        let (client, started, front) = connected(database, USER);
        let mut session = Session::new(started, &front);
        for message in [
            query("create table if not exists t (id int primary key, v int)"),
            query("insert into t values (1, 10), (2, 20) on conflict do nothing"),
            parse("b", "begin"),
            parse("c", "commit"),
            parse("o", "begin read only"),
            parse("w", "begin read write"),
            parse("r", "select v from t where id = $1"),
            parse("u", "update t set v = v + 1 where id = $1"),
            parse("d", "select 1 / (v - 20) from t where id = $1"),
            parse("l", "select count(*) from generate_series(1, $1)"),
        ] {
            answer(&mut session, &message).await;
        }
        (session, client)
    }

    /// Message by message.
    async fn answer(session: &mut Session, messages: &[u8]) {
        let mut at = 0;
        while let Some(frame) = first_frame(&messages[at..], 1 << 20).unwrap() {
            session.answer(frame).await.unwrap();
            at += frame.total();
        }
    }

    /// Whether each batch is answered here and whole; those that are not go the long way.
    async fn here(session: &mut Session, batches: &[(&str, &[&str])]) -> String {
        let mut ways = String::new();
        for (statement, parameters) in batches {
            let bytes = batch(statement, parameters);
            match session.fast(&bytes).unwrap() {
                Some(used) if used == bytes.len() => ways.push('+'),
                Some(used) => {
                    ways.push('!');
                    answer(session, &bytes[used..]).await;
                }
                None => {
                    ways.push('-');
                    answer(session, &bytes).await;
                }
            }
        }
        ways
    }

    #[test]
    fn known_statements_are_answered_here() {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let database = MemoryDatabase::active();
            let (mut session, _client) = session(&database).await;
            let alone: [(&str, &[&str]); 4] =
                [("r", &["1"]), ("u", &["1"]), ("d", &["2"]), ("l", &["9"])];
            assert_eq!(
                here(&mut session, &alone).await,
                "++--",
                "neither an error nor what is long"
            );
            let block: [(&str, &[&str]); 5] =
                [("b", &[]), ("u", &["1"]), ("r", &["1"]), ("c", &[]), ("c", &[])];
            assert_eq!(here(&mut session, &block).await, "++++-", "there is nothing to commit");
            let read_only: [(&str, &[&str]); 5] =
                [("o", &[]), ("r", &["1"]), ("u", &["1"]), ("r", &["1"]), ("c", &[])];
            // The UPDATE is refused, and the block has failed.
            assert_eq!(here(&mut session, &read_only).await, "++---");
            database.demote("orders-2");
            let standby: [(&str, &[&str]); 3] = [("r", &["1"]), ("u", &["1"]), ("w", &[])];
            assert_eq!(here(&mut session, &standby).await, "+-!", "refused up to its Sync");
        });
    }

    #[test]
    fn a_plan_is_made_anew_once_for_each_change_of_definitions() {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let database = MemoryDatabase::active();
            let (mut session, _client) = session(&database).await;
            let twice: [(&str, &[&str]); 3] = [("r", &["1"]), ("u", &["1"]), ("r", &["1"])];
            assert_eq!(here(&mut session, &twice).await, "+++");
            answer(&mut session, &query("create table other (id int)")).await;
            assert_eq!(here(&mut session, &twice).await, "--+");
        });
    }

    #[test]
    fn a_first_statement_that_has_to_wait_leaves_no_transaction() {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let database = MemoryDatabase::active();
            let (mut holder, _client) = session(&database).await;
            let (mut waiter, _client) = session(&database).await;
            let first: [(&str, &[&str]); 2] = [("b", &[]), ("u", &["1"])];
            assert_eq!(here(&mut holder, &first).await, "++");
            assert_eq!(here(&mut waiter, &first[..1]).await, "+");
            assert_eq!(waiter.fast(&batch("u", &["1"])).unwrap(), None);
            assert!(
                waiter.transaction.txn.is_none() && waiter.transaction.block == Block::Explicit
            );
            let rest: [(&str, &[&str]); 2] = [("u", &["2"]), ("c", &[])];
            assert_eq!(here(&mut waiter, &rest).await, "++");
        });
    }
}
