//! A session without a wire: what the node-agent does around this crate, in miniature.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
};
use understudy_sql::{
    CommandTag, CopyDecoder, CopyDirection, CopyIn, ExecContext, ExecError, IsolationLevel,
    Outcome, Prepared, SequenceLog, SessionInfo, SessionSequences, SqlError, Statement,
    StatementKind, append_copy_line, append_text, constant_arguments, copy_out_query,
    declared_types, execute, parse, prepare,
};
use understudy_store::{Isolation, Mark, MemoryLimits, Store, Txn, UserDef, Value};
use understudy_types::Lsn;

/// 2024-05-06 07:08:09 UTC: every clock of these tests.
const NOW: i64 = 768_294_489_000_000;

/// A store and its sessions.
pub(crate) struct Database {
    pub(crate) store: Store,
    sessions: BTreeMap<String, Session>,
    log: Arc<Log>,
}

/// The commit section: gives records their LSNs.
struct Log {
    store: Store,
    next_lsn: Mutex<Lsn>,
}

impl SequenceLog for Log {
    fn commit(&self, txn: Txn) -> Result<Lsn, SqlError> {
        let mut next = self.next_lsn.lock().expect("no test panics in it");
        let lsn = *next;
        if !self.store.redo(&txn).is_empty() {
            *next = lsn.next();
        }
        self.store.commit(txn, lsn);
        self.store.set_visible(lsn);
        Ok(lsn)
    }
}

#[derive(Default)]
struct Session {
    info: SessionInfo,
    txn: Option<Txn>,
    failed: bool,
    savepoints: Vec<(String, Mark)>,
    statements: BTreeMap<String, (Statement, Vec<Option<understudy_store::DataType>>)>,
    /// The statement that somebody blocked.
    blocked: Option<String>,
    /// Whether the present statement was blocked before.
    again: bool,
}

/// How one statement ended.
pub(crate) enum Ended {
    Rows(Box<Prepared>, Outcome),
    Tag(CommandTag),
}

impl Database {
    pub(crate) fn new() -> Database {
        let limits = MemoryLimits { permanent_bytes: 256 << 20, temporary_bytes: 64 << 20 };
        let store = Store::new(limits);
        let log = Arc::new(Log { store: store.clone(), next_lsn: Mutex::new(Lsn(1)) });
        Database { store, sessions: BTreeMap::new(), log }
    }

    /// Runs a line and shows what a client would see.
    pub(crate) fn run(&mut self, name: &str, line: &str) -> String {
        let mut session = self.sessions.remove(name).unwrap_or_else(|| Session {
            info: SessionInfo {
                user: "app".to_owned(),
                database: "test".to_owned(),
                backend_pid: 42,
                sequences: SessionSequences::reserved_by(self.log.clone()),
                ..SessionInfo::default()
            },
            ..Session::default()
        });
        let mut out = String::new();
        self.line(&mut session, line, &mut out);
        self.sessions.insert(name.to_owned(), session);
        out
    }

    fn line(&mut self, session: &mut Session, line: &str, out: &mut String) {
        let line = match (line, session.blocked.take()) {
            ("retry", Some(blocked)) => {
                session.again = true;
                blocked
            }
            _ => line.to_owned(),
        };
        let (sql, data) = line.split_once(" <<< ").unwrap_or((&line, ""));
        let statements = match parse(sql) {
            Ok(statements) => statements,
            Err(error) => {
                session.failed = session.txn.is_some();
                return show_error(&error, out);
            }
        };
        for statement in statements {
            match self.statement(session, &statement, data, out) {
                Ok(Ended::Rows(prepared, outcome)) => {
                    for notice in &outcome.notices {
                        let _ = writeln!(out, "NOTICE: {notice}");
                    }
                    show_rows(&prepared, &outcome, session.info.settings.zone_offset(), out);
                    let _ = writeln!(out, "{}", outcome.tag);
                }
                Ok(Ended::Tag(tag)) => {
                    let _ = writeln!(out, "{tag}");
                }
                Err(ExecError::Blocked { .. }) => {
                    let _ = writeln!(out, "BLOCKED");
                    session.blocked = Some(line.clone());
                    return;
                }
                Err(ExecError::Far) => unreachable!("any number of rows may be looked at"),
                Err(ExecError::Sql(error)) => {
                    session.failed = session.txn.is_some();
                    show_error(&error, out);
                    return;
                }
            }
        }
    }

    fn statement(
        &mut self,
        session: &mut Session,
        statement: &Statement,
        data: &str,
        out: &mut String,
    ) -> Result<Ended, ExecError> {
        if session.failed && !statement.is_allowed_after_failure() {
            return Err(SqlError::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .into());
        }
        let tag = CommandTag { command: statement.command(), rows: None };
        match statement.kind() {
            StatementKind::Transaction => return self.transaction(session, statement),
            StatementKind::Session if !matches!(statement, Statement::Execute { .. }) => {
                return session_statement(session, statement).map(|()| Ended::Tag(tag));
            }
            _ => {}
        }
        if session.info.read_only && !statement.is_allowed_read_only() {
            let message =
                format!("cannot execute {} in a read-only transaction", statement.command());
            return Err(SqlError::new("25006", message).into());
        }
        let implicit = session.txn.is_none();
        let mut txn = session.txn.take().unwrap_or_else(|| self.begin(&session.info));
        let mark = if std::mem::take(&mut session.again) && !implicit {
            let targets = prepare(txn.catalog(), statement, &[])?.targets();
            self.store.again(&mut txn, targets)
        } else {
            self.store.statement(&mut txn)
        };
        let ended = self.work(session, statement, (data, out), &mut txn);
        match (&ended, implicit) {
            (Ok(_), true) => {
                self.commit(txn)?;
                session.info.settings.commit();
            }
            (Err(_), true) => {
                self.store.rollback(txn);
                session.info.settings.rollback();
            }
            (Ok(_), false) => session.txn = Some(txn),
            (Err(_), false) => {
                self.store.rollback_to(&mut txn, &mark);
                session.txn = Some(txn);
            }
        }
        ended
    }

    fn work(
        &self,
        session: &mut Session,
        statement: &Statement,
        (data, out): (&str, &mut String),
        txn: &mut Txn,
    ) -> Result<Ended, ExecError> {
        let catalog = txn.catalog().clone();
        let mut params = Vec::new();
        let prepared = match statement {
            Statement::Execute { name, arguments } => {
                let Some((inner, types)) = session.statements.get(name) else {
                    let message = format!("prepared statement \"{name}\" does not exist");
                    return Err(SqlError::new("26000", message).into());
                };
                let prepared = prepare(&catalog, inner, types)?;
                let context = self.context(session, &[]);
                params = constant_arguments(&prepared, arguments, &context, txn)?;
                prepared
            }
            Statement::Copy(copy) => {
                let context = self.context(session, &[]);
                let rows = match copy.direction {
                    CopyDirection::In => copy_in(copy, data, &context, txn)?,
                    CopyDirection::Out => copy_out(copy, &context, (txn, out))?,
                };
                return Ok(Ended::Tag(CommandTag { command: "COPY", rows: Some(rows) }));
            }
            Statement::User(user) => {
                self.user(user, txn)?;
                return Ok(Ended::Tag(CommandTag { command: user.tag, rows: None }));
            }
            other => prepare(&catalog, other, &[])?,
        };
        let outcome = execute(&prepared, &self.context(session, &params), txn)?;
        Ok(Ended::Rows(Box::new(prepared), outcome))
    }

    fn user(&self, user: &understudy_sql::UserStatement, txn: &mut Txn) -> Result<(), ExecError> {
        let def = UserDef {
            name: user.name.clone(),
            scram: user
                .password
                .as_ref()
                .map(|_| "SCRAM-SHA-256$4096:salt$stored:server".to_owned()),
            admin: user.admin.unwrap_or(false),
        };
        let done = match user.action {
            understudy_sql::UserAction::Create => self.store.create_user(txn, def),
            understudy_sql::UserAction::Alter => self.store.alter_user(txn, def),
            understudy_sql::UserAction::Drop => self.store.drop_user(txn, &user.name),
        };
        done.map_err(|error| SqlError::new("42710", error.to_string()).into())
    }

    fn context<'a>(&'a self, session: &'a Session, params: &'a [Value]) -> ExecContext<'a> {
        ExecContext {
            store: &self.store,
            params,
            transaction_micros: NOW,
            statement_micros: NOW,
            seed: 7,
            session: &session.info,
            is_apart: true,
        }
    }

    pub(crate) fn begin(&self, info: &SessionInfo) -> Txn {
        self.store.begin(match info.isolation {
            IsolationLevel::ReadCommitted => Isolation::ReadCommitted,
            IsolationLevel::RepeatableRead => Isolation::RepeatableRead,
            IsolationLevel::Serializable => Isolation::Serializable,
        })
    }

    pub(crate) fn commit(&mut self, txn: Txn) -> Result<(), ExecError> {
        if self.store.validate(&txn).is_err() {
            self.store.rollback(txn);
            return Err(SqlError::new(
                "40001",
                "could not serialize access due to read/write dependencies among transactions",
            )
            .into());
        }
        SequenceLog::commit(&*self.log, txn)?;
        Ok(())
    }

    fn transaction(
        &mut self,
        session: &mut Session,
        statement: &Statement,
    ) -> Result<Ended, ExecError> {
        let mut tag = CommandTag { command: statement.command(), rows: None };
        let no_transaction = || SqlError::new("25P01", "there is no transaction in progress");
        match statement {
            Statement::Begin(modes) => {
                session.info.isolation =
                    modes.isolation.unwrap_or(session.info.settings.default_isolation());
                session.info.read_only = modes.read_only.unwrap_or(false);
                session.txn = Some(self.begin(&session.info));
            }
            Statement::Commit { .. } | Statement::Rollback { .. } => {
                let failed = std::mem::take(&mut session.failed);
                session.savepoints.clear();
                session.info.read_only = false;
                let keep = matches!(statement, Statement::Commit { .. }) && !failed;
                if !keep {
                    tag.command = "ROLLBACK";
                }
                if let Some(txn) = session.txn.take() {
                    if keep {
                        session.info.settings.commit();
                        self.commit(txn)?;
                    } else {
                        session.info.settings.rollback();
                        self.store.rollback(txn);
                    }
                }
            }
            Statement::Savepoint(name) => {
                let txn = session.txn.as_ref().ok_or_else(no_transaction)?;
                session.savepoints.push((name.clone(), self.store.savepoint(txn)));
            }
            Statement::ReleaseSavepoint(name) => {
                let at = session.savepoints.iter().rposition(|(known, _)| known == name);
                let at = at.ok_or_else(|| {
                    SqlError::new("3B001", format!("savepoint \"{name}\" does not exist"))
                })?;
                session.savepoints.truncate(at);
            }
            Statement::RollbackTo(name) => {
                let at = session.savepoints.iter().rposition(|(known, _)| known == name);
                let at = at.ok_or_else(|| {
                    SqlError::new("3B001", format!("savepoint \"{name}\" does not exist"))
                })?;
                session.savepoints.truncate(at + 1);
                let txn = session.txn.as_mut().ok_or_else(no_transaction)?;
                self.store.rollback_to(txn, &session.savepoints[at].1);
                session.failed = false;
            }
            Statement::SetTransaction { modes, .. } => {
                session.info.read_only = modes.read_only.unwrap_or(session.info.read_only);
            }
            _ => unreachable!("not about transactions"),
        }
        Ok(Ended::Tag(tag))
    }
}

fn session_statement(session: &mut Session, statement: &Statement) -> Result<(), ExecError> {
    match statement {
        Statement::Set { scope, name, value } => {
            session.info.settings.set(*scope, name, value.as_deref())?;
        }
        Statement::Reset(Some(name)) => {
            session.info.settings.set(understudy_sql::SetScope::Session, name, None)?;
        }
        Statement::Reset(None) => session.info.settings.reset_all(),
        Statement::Prepare { name, types, statement } => {
            let types = declared_types(types)?;
            session.statements.insert(name.clone(), ((**statement).clone(), types));
        }
        Statement::Deallocate(Some(name)) => {
            session.statements.remove(name);
        }
        Statement::Discard(understudy_sql::DiscardTarget::Sequences) => {
            session.info.sequences.forget();
        }
        _ => session.statements.clear(),
    }
    if session.txn.is_none() {
        session.info.settings.commit();
    }
    Ok(())
}

fn copy_in(
    copy: &understudy_sql::CopyStatement,
    data: &str,
    context: &ExecContext<'_>,
    txn: &mut Txn,
) -> Result<u64, ExecError> {
    let target = CopyIn::new(txn.catalog(), copy)?;
    let mut decoder = CopyDecoder::new(copy.options.clone());
    decoder.feed(data.replace("\\r", "\r").replace("|n", "\n").replace("|t", "\t").as_bytes());
    let mut count = 0;
    loop {
        let line = match decoder.next_line()? {
            Some(line) => Some(line),
            None => decoder.finish()?,
        };
        let Some(line) = line else {
            target.finish(context, txn)?;
            return Ok(count);
        };
        target.insert(&line, context, txn)?;
        count += 1;
    }
}

fn copy_out(
    copy: &understudy_sql::CopyStatement,
    context: &ExecContext<'_>,
    (txn, out): (&mut Txn, &mut String),
) -> Result<u64, ExecError> {
    let prepared = prepare(txn.catalog(), &copy_out_query(txn.catalog(), copy)?, &[])?;
    let outcome = execute(&prepared, context, txn)?;
    for row in &outcome.rows {
        let texts = texts(&prepared, row, 0);
        let mut bytes = Vec::new();
        append_copy_line(&mut bytes, texts.iter().map(Option::as_deref), &copy.options);
        out.push_str(&String::from_utf8(bytes).expect("text is UTF-8"));
    }
    Ok(outcome.rows.len() as u64)
}

fn texts(prepared: &Prepared, row: &[Value], zone: i32) -> Vec<Option<String>> {
    let shown = |(value, column): (&Value, &understudy_sql::ResultColumn)| {
        let mut bytes = Vec::new();
        append_text(&mut bytes, value.as_ref(), column.data_type, zone);
        (!value.is_null()).then(|| String::from_utf8(bytes).expect("text is UTF-8"))
    };
    row.iter().zip(&prepared.columns).map(shown).collect()
}

fn show_rows(prepared: &Prepared, outcome: &Outcome, zone: i32, out: &mut String) {
    if prepared.columns.is_empty() {
        return;
    }
    let names: Vec<&str> = prepared.columns.iter().map(|column| column.name.as_str()).collect();
    let _ = writeln!(out, "{}", names.join(" | "));
    for row in &outcome.rows {
        let cells: Vec<String> = texts(prepared, row, zone)
            .into_iter()
            .map(|text| text.unwrap_or_else(|| "∅".to_owned()))
            .collect();
        let _ = writeln!(out, "{}", cells.join(" | "));
    }
}

fn show_error(error: &SqlError, out: &mut String) {
    let _ = writeln!(out, "ERROR {}: {}", error.sqlstate, error.message);
    if let Some(detail) = &error.detail {
        let _ = writeln!(out, "DETAIL: {detail}");
    }
    if let Some(hint) = &error.hint {
        let _ = writeln!(out, "HINT: {hint}");
    }
    if let Some(position) = error.position {
        let _ = writeln!(out, "at {position}");
    }
}
