//! A statement that may take long, on a thread of its own: the loop goes on with its other sessions.
//!
//! What the execution needs is lent to the thread and comes back with the result: the transaction, what
//! the statement may know of its session, the reply as far as it is written. Nothing else of the session
//! runs meanwhile, but that the rows of a query leave as they come: the thread waits for the client to take
//! them. A cancel request, the end of the session and `statement_timeout` raise a flag that the executor
//! looks at with each row; the thread is always waited for, so that no transaction is lost.

use super::{
    Failure, Report, Session, SessionEnd,
    execute::{Attempt, Facts},
    portal::PreparedStatement,
    rows::{LentRows, Outlet, Piece, RowReceiver, Rows},
    sqlstate, waiting,
};
use crate::pg::registry::Interrupt;
use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::Instant,
};
use understudy_sql::{
    CommandTag, ExecContext, ExecError, Prepared, Room, SessionInfo, SessionWait, execute_into,
};
use understudy_store::{Store, Txn, Value};

/// What a client that reads slowly has after its `statement_timeout`, to hear of it; then it is given up.
const GRACE: Duration = Duration::from_secs(1);

/// What goes to the thread and comes back.
struct Lent {
    txn: Txn,
    info: SessionInfo,
    output: Vec<u8>,
    parameters: Vec<Value>,
    rows: LentRows,
    notices: Vec<String>,
    room: Room,
}

/// What cuts a statement off.
pub(super) enum Cut {
    TooLate,
    Interrupted(Interrupt),
    Failed(Failure),
}

/// What comes back: no result when the plan was old.
type Ended = (Lent, Option<Result<CommandTag, ExecError>>);

impl Lent {
    fn run(
        &mut self,
        plan: &Prepared,
        store: &Store,
        facts: Facts,
        outlet: Option<&Outlet>,
    ) -> Result<CommandTag, ExecError> {
        let near = facts.context(store, &self.info, &self.parameters);
        let context = ExecContext { is_apart: true, ..near };
        let output = (&mut self.output, &*plan.columns, self.info.settings.zone_offset());
        let mut receiver = RowReceiver::new(output, self.rows.again(), store, outlet);
        let result = execute_into(plan, &context, &mut self.txn, &mut receiver);
        (self.notices, self.room) = receiver.end();
        result
    }
}

impl Session {
    /// As [`Session::attempt`], for a statement that is long. Where its rows begin in the reply moves when some of
    /// them leave.
    pub(super) async fn attempt_apart(
        &mut self,
        statement: &Arc<PreparedStatement>,
        parameters: &[Value],
        rows: &mut Rows<'_>,
    ) -> Attempt {
        if let Err(end) = self.write_answered() {
            return Attempt::Cut(Cut::Failed(end.into()));
        }
        let txn = self.transaction.txn.take().expect("the caller has begun it");
        let facts = self.facts();
        let streams = statement.plan.as_deref().is_some_and(Prepared::streams);
        let info = mem::take(&mut self.info);
        let stop = Arc::clone(&info.stop);
        let mut lent = Lent {
            txn,
            info,
            // What stands before rows that leave early leaves before them.
            output: if streams { Vec::new() } else { mem::take(&mut self.output.bytes) },
            parameters: parameters.to_vec(),
            rows: LentRows::lend(rows),
            notices: Vec::new(),
            room: Room::default(),
        };
        let (statement, store) = (Arc::clone(statement), Arc::clone(&self.store));
        let (outlet, pieces) = Outlet::new();
        let mut running = tokio::task::spawn_blocking(move || {
            let result = match statement.plan.as_deref() {
                Some(plan) if plan.is_current(lent.txn.catalog()) => {
                    Some(lent.run(plan, &store, facts, streams.then_some(&outlet)))
                }
                Some(_) | None => None,
            };
            (lent, result)
        });
        let mut stopper = Stopper(Some(Arc::clone(&stop)));
        let (ended, cut) = match self.watch(pieces, &mut running).await {
            Ok(ended) => (ended, None),
            Err(cut) => (stopped(&stop, running).await, Some(cut)),
        };
        stopper.0 = None;
        self.takes_back(finished(ended), rows, cut)
    }

    /// Lets rows go as they come, until the thread has ended or something cuts it off.
    async fn watch(
        &mut self,
        mut pieces: mpsc::Receiver<Piece>,
        running: &mut JoinHandle<Ended>,
    ) -> Result<Result<Ended, JoinError>, Cut> {
        let deadline = self.deadline();
        // The thread lets go of the outlet at its end.
        while let Some(piece) = self.unless_cut(deadline, pieces.recv()).await? {
            let gone = self.let_go(piece, deadline).await;
            // What is there now has been said for good.
            self.output.start = self.output.bytes.len();
            gone?;
        }
        self.unless_cut(deadline, running).await
    }

    /// Waits for a part of the statement, unless something cuts it off first.
    pub(super) async fn unless_cut<F: Future>(
        &self,
        deadline: Option<Instant>,
        future: F,
    ) -> Result<F::Output, Cut> {
        match waiting::until(&self.control, deadline, future).await {
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(Cut::TooLate),
            Err(interrupt) => Err(Cut::Interrupted(interrupt)),
        }
    }

    /// The same where nothing is waited for.
    pub(super) fn not_cut(&self, deadline: Option<Instant>) -> Result<(), Cut> {
        if let Some(interrupt) = self.control.interrupt() {
            return Err(Cut::Interrupted(interrupt));
        }
        match deadline.filter(|deadline| *deadline <= Instant::now()) {
            Some(_) => Err(Cut::TooLate),
            None => Ok(()),
        }
    }

    /// Writes rows and what stands before them, once they may leave (R6a, A2.9).
    async fn let_go(&mut self, piece: Piece, deadline: Option<Instant>) -> Result<(), Cut> {
        self.hold(piece.depends, self.output.bytes.len());
        self.settle().await.map_err(Cut::Failed)?;
        // A piece may always be there before anybody has to wait.
        self.not_cut(deadline)?;
        self.confirm_rows().map_err(|refused| Cut::Failed(refused.into()))?;
        if self.output.bytes.is_empty() {
            self.output.bytes = piece.bytes;
        } else {
            self.output.bytes.extend_from_slice(&piece.bytes);
        }
        self.control.awaits(Some(SessionWait::Client));
        let written = match deadline {
            None => self.write().await,
            Some(deadline) => {
                let written = tokio::time::timeout_at(deadline + GRACE, self.write()).await;
                written.unwrap_or_else(|_| Err(SessionEnd::Broken(io::ErrorKind::TimedOut.into())))
            }
        };
        self.control.awaits(None);
        written.map_err(|end| Cut::Failed(end.into()))
    }

    /// What the client hears of it.
    pub(super) fn cut_off(&mut self, cut: Cut) -> Failure {
        match cut {
            Cut::TooLate => {
                let message = "canceling statement due to statement timeout";
                Report::error(sqlstate::CANCELED, message).into()
            }
            Cut::Interrupted(interrupt) => self.interrupted(interrupt),
            Cut::Failed(failure) => failure,
        }
    }

    fn takes_back(
        &mut self,
        (lent, result): Ended,
        rows: &mut Rows<'_>,
        cut: Option<Cut>,
    ) -> Attempt {
        self.transaction.txn = Some(lent.txn);
        self.info = lent.info;
        lent.rows.give_back(rows);
        let mut output = lent.output;
        if self.output.bytes.is_empty() {
            self.output.bytes = output;
        } else {
            self.output.bytes.append(&mut output);
        }
        match (result, cut) {
            // Rows may be missing, whatever came of it.
            (_, Some(cut)) => Attempt::Cut(cut),
            (None, None) => Attempt::Stale,
            (Some(Ok(tag)), None) => {
                self.pending_notices = lent.notices;
                self.output.keep(lent.room);
                Attempt::Done(tag)
            }
            (Some(Err(ExecError::Blocked { on })), None) => Attempt::Blocked(on),
            (Some(Err(ExecError::Far)), None) => Attempt::Far,
            (Some(Err(ExecError::Sql(error))), None) => Attempt::Failed(error),
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

/// What a thread gave. Its panic goes on in the session's task, as if it had run there.
pub(super) fn finished<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|broken| std::panic::resume_unwind(broken.into_panic()))
}

/// Raises the flag, and waits for the thread.
async fn stopped<T>(stop: &AtomicBool, running: JoinHandle<T>) -> Result<T, JoinError> {
    stop.store(true, Relaxed);
    let ended = running.await;
    stop.store(false, Relaxed);
    ended
}
