//! A statement that may take long, on a thread of its own: the loop goes on with its other sessions.
//!
//! What the execution needs is lent to the thread and comes back with the result: the transaction, what
//! the statement may know of its session, the reply as far as it is written. Nothing else of the session
//! runs meanwhile. A cancel request, the end of the session and `statement_timeout` raise a flag that the
//! executor looks at with each row; the thread is always waited for, so that no transaction is lost.

use super::{
    Report, Session,
    execute::{Attempt, RowReceiver, Rows},
    portal::PreparedStatement,
    sqlstate, waiting,
};
use crate::pg::{frame::Formats, registry::Interrupt};
use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use understudy_sql::{
    CommandTag, ExecContext, ExecError, Prepared, SessionInfo, SqlError, execute_into,
};
use understudy_store::{Store, Txn, Value};

/// What goes to the thread and comes back.
struct Lent {
    txn: Txn,
    info: SessionInfo,
    output: Vec<u8>,
    parameters: Vec<Value>,
    /// `None`: into the reply, in these formats.
    kept: Option<Vec<Vec<Value>>>,
    formats: Vec<u8>,
    notices: Vec<String>,
    failed: Option<Report>,
}

/// The statement's own numbers.
#[derive(Clone, Copy)]
struct Facts {
    transaction_micros: i64,
    statement_micros: i64,
    seed: u64,
}

impl Lent {
    fn run(
        &mut self,
        plan: &Prepared,
        store: &Store,
        facts: Facts,
    ) -> Result<CommandTag, ExecError> {
        let context = ExecContext {
            store,
            params: &self.parameters,
            transaction_micros: facts.transaction_micros,
            statement_micros: facts.statement_micros,
            seed: facts.seed,
            session: &self.info,
        };
        let mut rows = match &mut self.kept {
            Some(kept) => Rows::Kept(kept),
            None => Rows::Reply(Formats::from_raw(&self.formats)),
        };
        let mut receiver = RowReceiver {
            output: &mut self.output,
            columns: &plan.columns,
            zone_offset: self.info.settings.zone_offset(),
            rows: &mut rows,
            failed: None,
            notices: Vec::new(),
        };
        let result = execute_into(plan, &context, &mut self.txn, &mut receiver);
        let RowReceiver { failed, notices, .. } = receiver;
        (self.failed, self.notices) = (failed, notices);
        result
    }
}

impl Session {
    /// As [`Session::attempt`], for a statement that is long.
    pub(super) async fn attempt_apart(
        &mut self,
        statement: &Arc<PreparedStatement>,
        parameters: &[Value],
        rows: &mut Rows<'_>,
    ) -> Attempt {
        let txn = self.transaction.txn.take().expect("the caller has begun it");
        let facts = Facts {
            transaction_micros: self.transaction.started_micros,
            statement_micros: self.statement_micros,
            seed: self.next_seed(),
        };
        let info = mem::take(&mut self.info);
        let stop = Arc::clone(&info.stop);
        let (kept, formats) = match rows {
            Rows::Kept(kept) => (Some(mem::take(*kept)), Vec::new()),
            Rows::Reply(formats) => (None, formats.raw().to_vec()),
        };
        let mut lent = Lent {
            txn,
            info,
            output: mem::take(&mut self.output.bytes),
            parameters: parameters.to_vec(),
            kept,
            formats,
            notices: Vec::new(),
            failed: None,
        };
        let (statement, store) = (Arc::clone(statement), Arc::clone(&self.store));
        let mut running = tokio::task::spawn_blocking(move || {
            let result = match statement.plan.as_deref() {
                Some(plan) if plan.is_current(lent.txn.catalog()) => {
                    Some(lent.run(plan, &store, facts))
                }
                Some(_) | None => None,
            };
            (lent, result)
        });
        let mut stopper = Stopper(Some(Arc::clone(&stop)));
        let deadline = self.limits.statement.map(|limit| self.statement_started + limit);
        let watched = waiting::until(&self.control, deadline, &mut running).await;
        let (ended, cut) = match watched {
            Ok(Some(ended)) => (ended, None),
            Ok(None) => (stopped(&stop, running).await, Some(None)),
            Err(interrupt) => (stopped(&stop, running).await, Some(Some(interrupt))),
        };
        stopper.0 = None;
        let (lent, result) = match ended {
            Ok(ended) => ended,
            // It goes on in the session's task, as if it had run there.
            Err(broken) => std::panic::resume_unwind(broken.into_panic()),
        };
        self.takes_back(lent, rows, result, cut)
    }

    fn takes_back(
        &mut self,
        lent: Lent,
        rows: &mut Rows<'_>,
        result: Option<Result<CommandTag, ExecError>>,
        cut: Option<Option<Interrupt>>,
    ) -> Attempt {
        self.transaction.txn = Some(lent.txn);
        self.info = lent.info;
        self.output.bytes = lent.output;
        if let (Rows::Kept(into), Some(kept)) = (rows, lent.kept) {
            **into = kept;
        }
        match (result, lent.failed, cut) {
            (None, ..) => Attempt::Stale,
            (Some(Ok(_)), Some(report), _) => Attempt::Unshown(report),
            // It ended before it heard; whoever ends the session says so again.
            (Some(Ok(tag)), None, _) => {
                self.pending_notices = lent.notices;
                Attempt::Done(tag)
            }
            (Some(Err(ExecError::Blocked { on })), _, None) => Attempt::Blocked(on),
            (Some(Err(ExecError::Sql(error))), _, None) => Attempt::Failed(error),
            (Some(Err(_)), _, Some(None)) => {
                let message = "canceling statement due to statement timeout";
                Attempt::Failed(SqlError::new(sqlstate::CANCELED, message))
            }
            (Some(Err(_)), _, Some(Some(interrupt))) => Attempt::Interrupted(interrupt),
        }
    }
}

/// Raises the flag when the session's task is dropped before the thread has ended: its loop ends, and
/// waits for the thread.
struct Stopper(Option<Arc<AtomicBool>>);

impl Drop for Stopper {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.store(true, Relaxed);
        }
    }
}

/// Raises the flag, and waits for the thread.
async fn stopped<T>(
    stop: &AtomicBool,
    running: tokio::task::JoinHandle<T>,
) -> Result<T, tokio::task::JoinError> {
    stop.store(true, Relaxed);
    let ended = running.await;
    stop.store(false, Relaxed);
    ended
}
