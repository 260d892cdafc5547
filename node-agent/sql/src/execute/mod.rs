//! Execution of prepared statements against the store.
//!
//! Everything is synchronous. A row or table held by another transaction ends the execution with
//! [`ExecError::Blocked`]; the session undoes the statement, waits and executes it again on the same snapshot
//! (`Prepared::targets`), so an execution has no effects outside the transaction.

mod change;
mod define;
mod follow;
mod insert;
mod join;
pub(crate) mod measure;
pub(crate) mod query;
mod rejudge;
pub(crate) mod room;
mod rows;
mod sequence;

use crate::{
    error::{SqlError, state},
    eval::{Env, NoColumns, Values, compare_values, eval_all},
    explain,
    expr::Expr,
    parse::{Analyze, ExplainFormat},
    plan::{Plan, SortKey},
    prepared::Prepared,
    reach::NEAR_ROWS,
    settings::SessionInfo,
    text::append_int,
};
pub(crate) use insert::Touched;
use measure::Measures;
use room::Kept;
pub use room::Room;
use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    fmt,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
};
use understudy_store::{Pool, Store, Txn, TxnId, VALUE_BYTES_MAX, Value, WriteError};
use understudy_types::Lsn;

/// What an execution is given from outside.
#[derive(Debug, Clone, Copy)]
pub struct ExecContext<'a> {
    /// Where the data is.
    pub store: &'a Store,
    /// Values of `$1`, `$2`, …, of the types of [`Prepared::params`].
    pub params: &'a [Value],
    /// When the transaction began (`now()`), microseconds since 2000-01-01 UTC.
    pub transaction_micros: i64,
    /// When the statement began.
    pub statement_micros: i64,
    /// Where `random()` and `gen_random_uuid()` start; from a good source of randomness.
    pub seed: u64,
    /// User, database, settings.
    pub session: &'a SessionInfo,
    /// Nobody waits behind the execution, and somebody may raise the session's flag: it may take as long as it
    /// takes. Any other ends as [`ExecError::Far`] after [`NEAR_ROWS`].
    pub is_apart: bool,
}

/// Why an execution ended without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecError {
    /// The statement failed.
    Sql(SqlError),
    /// Somebody else holds what the statement needs: undo, wait for `on`, execute again.
    Blocked {
        /// For `Store::wait`.
        on: TxnId,
    },
    /// It takes longer than it may here ([`ExecContext::is_apart`]): undo, and execute it again apart.
    Far,
}

impl From<SqlError> for ExecError {
    fn from(error: SqlError) -> ExecError {
        ExecError::Sql(error)
    }
}

impl From<WriteError> for ExecError {
    fn from(error: WriteError) -> ExecError {
        refused(error)
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecError::Sql(error) => error.fmt(f),
            ExecError::Blocked { on } => write!(f, "blocked by transaction {on}"),
            ExecError::Far => f.write_str("it looks at more rows than it may here"),
        }
    }
}

impl std::error::Error for ExecError {}

/// The end of a statement: what CommandComplete says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTag {
    /// `SELECT`, `UPDATE`, `CREATE TABLE`, …
    pub command: &'static str,
    /// Rows, for the commands that count them.
    pub rows: Option<u64>,
}

impl CommandTag {
    pub(crate) const fn plain(command: &'static str) -> CommandTag {
        CommandTag { command, rows: None }
    }

    pub(crate) const fn counted(command: &'static str, rows: u64) -> CommandTag {
        CommandTag { command, rows: Some(rows) }
    }

    /// Appends the tag as CommandComplete carries it. Every statement does, so nothing is formatted.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.command.as_bytes());
        let Some(rows) = self.rows else { return };
        // The zero was once the new row's number.
        out.extend_from_slice(if self.command == "INSERT" { b" 0 " } else { b" " });
        append_int(out, i64::try_from(rows).unwrap_or(i64::MAX));
    }
}

impl fmt::Display for CommandTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.append(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// A whole result in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What CommandComplete says.
    pub tag: CommandTag,
    /// Rows of [`Prepared::columns`].
    pub rows: Vec<Vec<Value>>,
    /// NOTICEs for the client.
    pub notices: Vec<String>,
}

/// Takes result rows one by one, so that they need not be kept.
pub trait RowSink {
    /// One row; the values are only lent. What the transaction has seen so far depends on `depends` (A2.9).
    ///
    /// # Errors
    /// What ends the statement: the row cannot be shown, has no room, or nobody takes it any more.
    fn row(&mut self, values: &[Value], depends: Lsn) -> Result<(), SqlError>;
    /// A NOTICE.
    fn notice(&mut self, message: String);
}

#[derive(Default)]
struct Collected {
    rows: Vec<Vec<Value>>,
    notices: Vec<String>,
}

impl RowSink for Collected {
    fn row(&mut self, values: &[Value], _: Lsn) -> Result<(), SqlError> {
        self.rows.push(values.to_vec());
        Ok(())
    }

    fn notice(&mut self, message: String) {
        self.notices.push(message);
    }
}

/// Counts rows that nobody wants.
struct Counted(u64);

impl RowSink for Counted {
    fn row(&mut self, _: &[Value], _: Lsn) -> Result<(), SqlError> {
        self.0 += 1;
        Ok(())
    }

    fn notice(&mut self, _: String) {}
}

/// Rows that are kept for as long as somebody looks at them.
pub(crate) type SharedRows = Rc<Kept>;

/// One execution: the context and what is kept for its duration.
pub(crate) struct Run<'a> {
    pub(crate) context: &'a ExecContext<'a>,
    /// State of the random functions.
    pub(crate) random: Cell<u64>,
    /// Results of uncorrelated subqueries, by slot.
    pub(crate) kept: RefCell<Vec<(usize, SharedRows)>>,
    /// While rows are judged anew: the only rows of the tables that are changed or locked.
    pub(crate) only: RefCell<Option<Vec<rejudge::TargetRow>>>,
    /// Who holds a sequence that an expression needs.
    pub(crate) blocked: Cell<Option<TxnId>>,
    /// How many more rows may be looked at.
    rows_left: Cell<u64>,
    /// What each step does, when somebody asked.
    pub(crate) measures: Option<&'a Measures>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(context: &'a ExecContext<'a>) -> Run<'a> {
        Run {
            context,
            random: Cell::new(context.seed),
            kept: RefCell::default(),
            only: RefCell::default(),
            blocked: Cell::new(None),
            rows_left: Cell::new(if context.is_apart { u64::MAX } else { NEAR_ROWS }),
            measures: None,
        }
    }

    /// Asked for each row that is looked at.
    #[inline]
    pub(crate) fn goes_on(&self) -> Result<(), SqlError> {
        self.goes_on_by(1)
    }

    /// Asked for so many rows at once.
    #[inline]
    pub(crate) fn goes_on_by(&self, rows: u64) -> Result<(), SqlError> {
        let left = self.rows_left.get();
        if left == 0 {
            return Err(stopped());
        }
        self.rows_left.set(left.saturating_sub(rows));
        self.may_go_on()
    }

    /// Asked for each row that was looked at before.
    #[inline]
    pub(crate) fn may_go_on(&self) -> Result<(), SqlError> {
        if self.context.session.stop.load(Relaxed) { Err(stopped()) } else { Ok(()) }
    }

    /// Asked by what takes long without looking at rows.
    pub(crate) fn may_take_long(&self) -> Result<(), SqlError> {
        if self.context.is_apart {
            return Ok(());
        }
        self.rows_left.set(0);
        Err(stopped())
    }

    /// Why the execution ended: the error, whom an expression waits for, or that it has looked at too many
    /// rows, which may be what the error comes from.
    pub(crate) fn reason(&self, error: ExecError) -> ExecError {
        match self.blocked.get() {
            Some(on) => ExecError::Blocked { on },
            None if self.rows_left.get() == 0 => ExecError::Far,
            None => error,
        }
    }
}

fn stopped() -> SqlError {
    SqlError::new(state::CANCELED, "canceling statement due to user request")
}

/// Executes a statement and keeps its rows.
///
/// # Errors
/// See [`ExecError`]; the transaction holds whatever the statement did so far.
pub fn execute(
    prepared: &Prepared,
    context: &ExecContext<'_>,
    txn: &mut Txn,
) -> Result<Outcome, ExecError> {
    let mut sink = Collected::default();
    let tag = execute_into(prepared, context, txn, &mut sink)?;
    Ok(Outcome { tag, rows: sink.rows, notices: sink.notices })
}

/// Executes a statement and hands its rows on as they come. Rows of a statement that fails later
/// have been handed on already.
///
/// # Errors
/// See [`ExecError`]; the transaction holds whatever the statement did so far.
pub fn execute_into(
    prepared: &Prepared,
    context: &ExecContext<'_>,
    txn: &mut Txn,
    sink: &mut dyn RowSink,
) -> Result<CommandTag, ExecError> {
    if !prepared.is_current(txn.catalog()) {
        return Err(SqlError::new(state::NOT_IN_STATE, "the plan is older than the catalog").into());
    }
    let plan = match &prepared.without_hidden {
        Some(plan) if txn.has_older_rows() => plan,
        Some(_) | None => &prepared.plan,
    };
    let run = Run::new(context);
    let mut executor = Executor { run: &run, txn, sink };
    executor.plan(plan, prepared.command).map_err(|error| run.reason(error))
}

/// The pieces that every plan needs.
pub(crate) struct Executor<'a, 'b> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) txn: &'b mut Txn,
    pub(crate) sink: &'b mut dyn RowSink,
}

impl Executor<'_, '_> {
    fn plan(&mut self, plan: &Plan, command: &'static str) -> Result<CommandTag, ExecError> {
        match plan {
            Plan::Query(query) => {
                let mut count = 0;
                let (sink, txn) = (&mut *self.sink, &*self.txn);
                let env = Env::new(self.run, txn);
                query::each(&query.node, &env, query.types.len(), &mut |values| {
                    count += 1;
                    sink.row(values, txn.depends_lsn())?;
                    Ok(query::Flow::More)
                })?;
                Ok(CommandTag::counted("SELECT", count))
            }
            Plan::Locking(plan) => self.lock(plan),
            Plan::Insert(plan) => self.insert(plan),
            Plan::Change(plan) => self.change(plan),
            Plan::Definition(definition) => self.define(definition, command),
            Plan::Explain { format, rows, run } => {
                for row in rows {
                    self.show_row(&[Value::text(row.as_str())])?;
                }
                if let Some((analyze, plan)) = run {
                    self.analyze((*analyze, *format), plan, command)?;
                }
                Ok(CommandTag::plain("EXPLAIN"))
            }
            Plan::Show(name) => self.show(name.as_deref()),
            Plan::Nothing => Ok(CommandTag::plain(command)),
            Plan::Session => {
                Err(SqlError::internal(format!("{command} belongs to the session")).into())
            }
        }
    }

    /// Runs a plan for what it does and not for its rows, and tells of each step.
    fn analyze(
        &mut self,
        (analyze, format): (Analyze, ExplainFormat),
        plan: &Plan,
        command: &'static str,
    ) -> Result<(), ExecError> {
        let clock = self.run.context.session.clock;
        let measures = Measures::new(clock, analyze);
        let run = Run { measures: Some(&measures), ..Run::new(self.run.context) };
        let begun = clock.nanos();
        let mut counted = Counted(0);
        Executor { run: &run, txn: self.txn, sink: &mut counted }
            .plan(plan, command)
            .map_err(|error| run.reason(error))?;
        let taken = clock.nanos().zip(begun).map(|(end, begun)| end.saturating_sub(begun));
        measures.end(taken, counted.0);
        for row in explain::rows(plan, format, Some(&measures)) {
            self.show_row(&[Value::text(row)])?;
        }
        Ok(())
    }

    fn show(&mut self, name: Option<&str>) -> Result<CommandTag, ExecError> {
        let session = self.run.context.session;
        match name {
            Some(name) => self.show_row(&[Value::text(session.show(name)?)])?,
            None => {
                for (name, value, about) in session.show_all() {
                    self.show_row(&[Value::text(name), Value::text(value), Value::text(about)])?;
                }
            }
        }
        Ok(CommandTag::plain("SHOW"))
    }

    /// Hands a RETURNING row on.
    fn return_row(&mut self, returning: &[Expr], values: &[Value]) -> Result<(), ExecError> {
        if returning.is_empty() {
            return Ok(());
        }
        let env = Env::new(self.run, self.txn);
        let row = eval_all(returning, &Values(values), &env)?;
        Ok(self.show_row(&row)?)
    }

    fn show_row(&mut self, values: &[Value]) -> Result<(), SqlError> {
        self.sink.row(values, self.txn.depends_lsn())
    }
}

/// Evaluates expressions without columns.
pub(crate) fn constants(exprs: &[Expr], env: &Env<'_>) -> Result<Vec<Value>, SqlError> {
    eval_all(exprs, &NoColumns, env)
}

/// Orders two lists of sort keys' values.
pub(crate) fn compare_keys(keys: &[SortKey], left: &[Value], right: &[Value]) -> Ordering {
    for (key, (a, b)) in keys.iter().zip(left.iter().zip(right)) {
        let ordering = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if key.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if key.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if key.descending => compare_values(b.as_ref(), a.as_ref()),
            (false, false) => compare_values(a.as_ref(), b.as_ref()),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

/// A refusal of the store in SQL's words.
pub(crate) fn refused(error: WriteError) -> ExecError {
    let sql = match error {
        WriteError::Blocked { on } => return ExecError::Blocked { on },
        WriteError::UniqueViolation { index, key, depends } => {
            let mut sql = SqlError::new(
                state::UNIQUE,
                format!("duplicate key value violates unique constraint \"{index}\""),
            )
            .with_detail(format!("Key {key} already exists."));
            sql.depends_lsn = (depends > Lsn::ZERO).then_some(depends);
            sql
        }
        WriteError::ForeignKeyViolation { message, detail, depends } => {
            let mut sql = SqlError::new(state::FOREIGN_KEY, message).with_detail(detail);
            sql.depends_lsn = (depends > Lsn::ZERO).then_some(depends);
            sql
        }
        WriteError::Serialization | WriteError::RowGone { .. } => SqlError::new(
            state::SERIALIZATION,
            "could not serialize access due to concurrent update",
        )
        .with_hint("The transaction might succeed if retried."),
        WriteError::OutOfMemory { pool, requested, used, limit } => SqlError::new(
            state::OUT_OF_MEMORY,
            "out of memory",
        )
        .with_detail(format!(
            "{requested} bytes of {pool} memory were asked for; {used} of {limit} are in use."
        ))
        .with_hint(match pool {
            Pool::Permanent => {
                "Delete rows, or raise memory.permanent (--memory of a single node)."
            }
            Pool::Temporary => {
                "Let each statement and transaction take fewer rows, such as one range of \
                         keys after the other, or raise memory.temporary (--temporary of a single \
                         node)."
            }
        }),
        WriteError::NotNull { table, column } => SqlError::new(
            state::NOT_NULL,
            format!(
                "null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"
            ),
        ),
        WriteError::TooLong { table, column, bytes } => SqlError::new(
            state::LIMIT_EXCEEDED,
            format!("value too long for column \"{column}\" of relation \"{table}\""),
        )
        .with_detail(format!("It has {bytes} bytes, at most {VALUE_BYTES_MAX} are allowed."))
        .with_hint("Store it in pieces, or outside the database."),
        WriteError::Missing { what } => {
            SqlError::new(state::UNKNOWN_TABLE, format!("{what} does not exist"))
        }
        WriteError::AlreadyExists { what } => {
            SqlError::new(state::DUPLICATE_TABLE, format!("{what} already exists"))
        }
        WriteError::InvalidDefinition { reason } => SqlError::new(state::BAD_TABLE, reason),
        WriteError::Stopped => stopped(),
    };
    ExecError::Sql(sql)
}
