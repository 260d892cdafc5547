//! One session: from the greeting to the last byte.
//!
//! ```text
//!  read ──► input buffer ──► fast: a whole Bind/Describe/Execute/Sync batch, answered in place
//!    ▲            │
//!    │            └────────► message by message: simple, extended, copying
//!    │                                  │
//!    └───── write ◄── output buffer ◄───┘      held back until `acknowledged_lsn` covers it
//! ```
//!
//! Invariants:
//! 1. What depends on a commit is not written before that is acknowledged (`output`).
//! 2. A new snapshot is taken only when the session's own last commit is visible to it.
//! 3. After an error in the extended protocol everything up to the next Sync is skipped.
//! 4. Both buffers give memory back after an unusually large message.
//!
//! Deliberately absent: any judgement about authority, which is [`Database`]'s.

mod apart;
mod call;
mod command;
mod copying;
mod execute;
mod extended;
mod fast;
mod notice;
mod output;
mod portal;
mod rows;
mod set_role;
mod setting;
mod simple;
mod slow;
mod transaction;
mod waiting;

use super::{
    binary,
    database::Database,
    frame::{self, Frame, first_frame},
    listener::Front,
    registry::{Interrupt, SessionControl, SessionGuard},
    reply::{self, Report, Severity, TransactionStatus},
    sqlstate,
    startup::Started,
    stream::Stream,
};
use bytes::{Buf, BytesMut};
use copying::Incoming;
use execute::Unfinished;
use output::Output;
use portal::{Portal, PreparedStatement};
use std::{collections::HashMap, io, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use transaction::Transaction;
use understudy_sql::{HeldActivity, SessionInfo, SessionState};
use understudy_store::{Store, Txn, Value};
use understudy_types::{Lsn, Role};

/// Replies gather up to here before they are written without being asked for.
const WRITE_BYTES: usize = 64 << 10;

/// Buffers larger than this are given back once they are empty.
const KEPT_BYTES: usize = 256 << 10;

/// How long a client has for the last words of its session.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(5);

/// Room asked for at each read.
const READ_BYTES: usize = 8 << 10;

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    /// The client said so, or closed the connection.
    #[error("the client left")]
    Left,
    /// The last words are in the output buffer.
    #[error("the session was ended with an error")]
    Told,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

/// Why a statement has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client is told, and the session goes on unless it is fatal.
    Report(Report),
    /// There is no session any more.
    End(SessionEnd),
}

impl From<Report> for Failure {
    fn from(report: Report) -> Failure {
        Failure::Report(report)
    }
}

impl From<understudy_sql::SqlError> for Failure {
    fn from(error: understudy_sql::SqlError) -> Failure {
        Report::from(error).into()
    }
}

impl From<frame::FrameError> for Failure {
    fn from(error: frame::FrameError) -> Failure {
        let code = match error {
            frame::FrameError::Utf8 => sqlstate::BAD_ENCODING,
            frame::FrameError::Length
            | frame::FrameError::TooLong { .. }
            | frame::FrameError::Body => sqlstate::PROTOCOL_VIOLATION,
        };
        Report::error(code, error.to_string()).into()
    }
}

impl From<SessionEnd> for Failure {
    fn from(end: SessionEnd) -> Failure {
        Failure::End(end)
    }
}

/// One session and all its state.
pub(super) struct Session {
    database: Arc<dyn Database>,
    store: Arc<Store>,
    control: Arc<SessionControl>,
    guard: SessionGuard,
    stream: Stream,
    output: Output,
    info: SessionInfo,
    limits: setting::Limits,
    transaction: Transaction,
    /// Asked by every Bind, hence a quick hash. It is weaker against chosen names: who is logged in and
    /// chooses them slows the sessions of its own loop.
    statements: HashMap<String, Arc<PreparedStatement>, foldhash::fast::RandomState>,
    portals: HashMap<String, Portal, foldhash::fast::RandomState>,
    copy_in: Option<Incoming>,
    /// The session's newest commit; later snapshots have to see it.
    last_commit: Lsn,
    /// An error was answered: skip to the next Sync.
    is_skipping: bool,
    /// What the batch in hand came to where it was begun in place.
    unfinished: Option<Unfinished>,
    /// The role that the client was last told of by `in_hot_standby`.
    told_role: Role,
    /// Parameters of the statement in hand; kept to save an allocation.
    parameters: Vec<Value>,
    /// NOTICEs of the statement in hand, sent once its rows may leave.
    pending_notices: Vec<String>,
    /// When the statement in hand began, microseconds since 2000.
    statement_micros: i64,
    /// The statement whose duration was looked at last, and the one that was logged last, by their begin.
    judged_micros: i64,
    logged_micros: i64,
    /// The statement's text that `pg_stat_activity` was told last.
    told_text: Arc<str>,
    /// State of the seeds of random functions.
    seed: u64,
    message_bytes_max: usize,
}

/// Runs a session to its end.
pub(super) async fn run(started: Started, front: &Arc<Front>) -> Result<(), SessionEnd> {
    let mut session = Session::new(started, front);
    let end = session.serve().await;
    if !matches!(end, SessionEnd::Told) {
        session.give_up();
    }
    session.undone().await;
    let said = session.output.bytes.len();
    session.rollback_all();
    // Nothing comes after the last words.
    session.output.bytes.truncate(said);
    session.undone().await;
    match end {
        SessionEnd::Left => Ok(()),
        SessionEnd::Told => {
            let told = async {
                session.stream.write_all(&session.output.bytes).await?;
                session.stream.shutdown().await
            };
            let heard = tokio::time::timeout(LAST_WORDS_WAIT, told).await;
            Ok(heard.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?)
        }
        SessionEnd::Broken(error) => Err(SessionEnd::Broken(error)),
    }
}

impl Session {
    fn new(started: Started, front: &Arc<Front>) -> Session {
        let database = Arc::clone(&front.database);
        let role = database.role();
        let info = setting::session_info(&started.user, &started.guard, &database);
        started.guard.belongs_to(&started.user);
        let mut session = Session {
            store: database.store(),
            control: Arc::clone(started.guard.control()),
            guard: started.guard,
            stream: started.stream,
            output: Output::new(started.greeting),
            info,
            limits: setting::Limits::default(),
            transaction: Transaction::default(),
            statements: HashMap::default(),
            portals: HashMap::default(),
            copy_in: None,
            last_commit: Lsn::ZERO,
            is_skipping: false,
            unfinished: None,
            told_role: role,
            parameters: Vec::new(),
            pending_notices: Vec::new(),
            statement_micros: execute::now_micros(),
            judged_micros: 0,
            logged_micros: 0,
            told_text: Arc::default(),
            seed: rand::random(),
            message_bytes_max: front.options.message_bytes_max,
            database,
        };
        session.start_with_environment();
        session.greet(started.settings);
        session
    }

    /// Applies the start-up packet's settings and tells the client where it is.
    fn greet(&mut self, asked: Vec<(String, String)>) {
        for (name, value) in asked {
            if let Err(report) = self.start_with(&name, &value) {
                reply::report(&mut self.output.bytes, &report.severity(Severity::Warning));
            }
        }
        self.refresh_info();
        let application = self.info.settings.get("application_name").unwrap_or_default();
        self.control.begins(application, self.statement_micros);
        self.report_all_settings();
        reply::backend_key(&mut self.output.bytes, self.guard.pid(), self.guard.secret());
        self.ready();
    }

    /// Answers the client until the session is over.
    async fn serve(&mut self) -> SessionEnd {
        // Not a field: a message is read in place while the session changes.
        let mut input = BytesMut::with_capacity(READ_BYTES);
        loop {
            if let Err(end) = self.answer_all(&mut input).await {
                return end;
            }
            if self.output.is_asked_for
                && let Err(end) = self.write().await
            {
                return end;
            }
            if let Err(end) = self.read(&mut input).await {
                return end;
            }
        }
    }

    /// Answers every whole message in the buffer.
    async fn answer_all(&mut self, input: &mut BytesMut) -> Result<(), SessionEnd> {
        loop {
            let used = match self.fast(input)? {
                Some(used) => used,
                None => match first_frame(input, self.message_bytes_max) {
                    Ok(Some(frame)) => {
                        self.answer(frame).await?;
                        self.undone().await;
                        frame.total()
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let code = sqlstate::PROTOCOL_VIOLATION;
                        return Err(self.last_words(&Report::fatal(code, error.to_string())));
                    }
                },
            };
            input.advance(used);
            if self.output.bytes.len() >= WRITE_BYTES {
                self.write().await?;
            }
        }
        if input.is_empty() && input.capacity() > KEPT_BYTES {
            *input = BytesMut::with_capacity(READ_BYTES);
        }
        Ok(())
    }

    /// Answers one message.
    async fn answer(&mut self, frame: Frame<'_>) -> Result<(), SessionEnd> {
        let answered = match frame.tag {
            b'X' => return Err(SessionEnd::Left),
            _ if self.copy_in.is_some() => return self.copy_message(frame).await,
            b'S' => self.sync().await,
            _ if self.is_skipping => Ok(()),
            b'Q' => return self.simple_query(frame.body).await,
            b'P' => self.parse(frame.body).await,
            b'B' => self.bind(frame.body),
            b'D' => self.describe(frame.body),
            b'E' => self.execute_portal(frame.body).await,
            b'C' => self.close(frame.body),
            b'H' => {
                self.output.is_asked_for = true;
                Ok(())
            }
            // After an error COPY's data go on coming until the client hears of it.
            b'd' | b'c' | b'f' => Ok(()),
            b'F' => {
                let message = "the function call protocol is not supported";
                Err(Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message).into())
            }
            tag => {
                let message = format!("invalid frontend message type {tag}");
                return Err(self.last_words(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, message)));
            }
        };
        match answered {
            Ok(()) => Ok(()),
            Err(failure) => self.fail_message(failure, false).await,
        }
    }

    /// A message has no answer but an error. The simple protocol goes on at once with ReadyForQuery; the
    /// extended one skips to Sync.
    async fn fail_message(&mut self, failure: Failure, is_simple: bool) -> Result<(), SessionEnd> {
        self.fail(failure)?;
        self.undone().await;
        if is_simple {
            self.ready();
        } else {
            self.is_skipping = true;
        }
        Ok(())
    }

    /// Answers a failure: the error goes to the client, the transaction is failed or gone.
    fn fail(&mut self, failure: Failure) -> Result<(), SessionEnd> {
        let report = match failure {
            Failure::Report(report) => report,
            Failure::End(end) => return Err(end),
        };
        if report.severity == Severity::Fatal {
            return Err(self.last_words(&report));
        }
        reply::report(&mut self.output.bytes, &report);
        self.copy_in = None;
        self.fail_transaction();
        Ok(())
    }

    /// Says in the views what the session does between two statements.
    fn rests(&self, now_micros: i64) {
        let (state, began) = match self.transaction.status() {
            TransactionStatus::Idle => (SessionState::Idle, None),
            TransactionStatus::Open => {
                (SessionState::IdleInTransaction, Some(self.transaction.started_micros))
            }
            TransactionStatus::Failed => {
                (SessionState::IdleInFailedTransaction, Some(self.transaction.started_micros))
            }
        };
        if began.is_some() {
            self.tell_held();
        }
        let snapshot = self.transaction.txn.as_ref().map(Txn::snapshot);
        self.control.rests(state, began, snapshot, now_micros);
    }

    /// ReadyForQuery, and a new `in_hot_standby` when the member's role has changed.
    fn ready(&mut self) {
        let now = execute::now_micros();
        self.rests(now);
        if self.limits.slow_micros.is_some() && self.judged_micros != self.statement_micros {
            self.judge_duration(now);
        }
        self.judged_micros = self.statement_micros;
        let role = self.database.role();
        if role != self.told_role {
            self.told_role = role;
            self.refresh_info();
            let value = if role == Role::Active { "off" } else { "on" };
            reply::parameter_status(&mut self.output.bytes, "in_hot_standby", value);
        }
        reply::ready(&mut self.output.bytes, self.transaction.status());
        self.output.ends_answer();
        self.unfinished = None;
    }

    /// Says in `understudy_transactions` what the open block holds.
    fn tell_held(&self) {
        let Some(txn) = &self.transaction.txn else { return };
        let (operations, temporary_bytes) = txn.extent();
        self.control.holds(HeldActivity {
            isolation: self.info.isolation,
            operations,
            temporary_bytes,
            depends_lsn: txn.depends_lsn().0,
        });
    }

    /// Waits for bytes, or for what ends a session that is silent.
    async fn read(&mut self, input: &mut BytesMut) -> Result<(), SessionEnd> {
        if let Some(reason) = self.control.end_reason() {
            // The next statement may be here already, and so may the one after it.
            return Err(self.end_for(&reason));
        }
        input.reserve(READ_BYTES);
        let limit = self.idle_limit();
        let read = self.stream.read_buf(input);
        match waiting::ended_or(&self.control, limit.map(|(limit, _)| limit), read).await {
            waiting::Waited::Done(Ok(0)) => Err(SessionEnd::Left),
            waiting::Waited::Done(Ok(_)) => Ok(()),
            waiting::Waited::Done(Err(error)) => Err(SessionEnd::Broken(error)),
            waiting::Waited::Ended(reason) => Err(self.end_for(&reason)),
            waiting::Waited::TimedOut => {
                let (code, message) = limit.map_or((sqlstate::INTERNAL, "idle"), |(_, why)| why);
                Err(self.last_words(&Report::fatal(code, message)))
            }
        }
    }
}
