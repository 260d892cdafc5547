//! Prepared statements: parsed, bound and planned once, executed many times.

use crate::{
    bind::{Binder, Scope},
    error::{SqlError, state},
    eval::{Env, NoColumns, eval},
    execute::{ExecContext, ExecError, Run},
    explain,
    parse::{CopySource, ExplainFormat, Statement, StatementKind},
    plan::{Plan, ResultColumn},
    reach::Reach,
    types::Type,
};
use sqlparser::ast;
use std::sync::Arc;
use understudy_store::{Catalog, DataType, Planned, Store, Targets, Txn, Value};

/// PostgreSQL's number of json, which drivers parse by themselves. No expression has the type; on the wire a
/// value is its text, in both formats.
const JSON_OID: u32 = 114;

/// A statement ready to run, as long as the catalog is the one it was planned for.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What kind of work it is.
    pub kind: StatementKind,
    /// Types of `$1`, `$2`, …: declared, inferred, or text.
    pub params: Vec<DataType>,
    /// Columns of its rows; empty for statements without any.
    pub columns: Vec<ResultColumn>,
    /// The catalog that it was planned for; for another it must be prepared again.
    planned: Planned,
    pub(crate) command: &'static str,
    pub(crate) plan: Plan,
    /// The plan that reads no hidden columns, for rows from before they were there.
    pub(crate) without_hidden: Option<Box<Plan>>,
    reach: Reach,
    asks_sequence: bool,
}

impl Prepared {
    /// Whether the plan still fits a catalog.
    #[must_use]
    pub fn is_current(&self, catalog: &Arc<Catalog>) -> bool {
        self.planned.is_on(catalog)
    }

    /// Which rows it changes or locks when it is executed again after a wait: those that it found before,
    /// as they are now; only INSERT looks again for what it conflicts with.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let plan = match &self.plan {
            Plan::Explain { run: Some((_, plan)), .. } => plan,
            plan => plan,
        };
        match plan {
            Plan::Change(_) | Plan::Locking(_) => Targets::Kept,
            Plan::Query(_)
            | Plan::Insert(_)
            | Plan::Definition(_)
            | Plan::Explain { .. }
            | Plan::Show(_)
            | Plan::Nothing
            | Plan::Session => Targets::Renewed,
        }
    }

    /// Whether it may run so long that nobody should wait behind it: it reads more than its keys name, of
    /// tables that are not small now.
    #[must_use]
    pub fn is_long(&self, store: &Store) -> bool {
        self.reach.is_long(store)
    }

    /// Whether its rows may leave before it has ended: it only reads, and nothing makes it begin again.
    #[must_use]
    pub fn streams(&self) -> bool {
        matches!(self.plan, Plan::Query(_)) && !self.asks_sequence
    }

    /// The command's name ("SELECT", "CREATE TABLE").
    #[must_use]
    pub fn command(&self) -> &'static str {
        self.command
    }
}

/// Binds and plans a statement. Statements of the session itself get a plan that only describes them;
/// the session runs those.
///
/// # Errors
/// Whatever is wrong with the statement's names and types, with its position.
pub fn prepare(
    catalog: &Arc<Catalog>,
    statement: &Statement,
    hints: &[Option<DataType>],
) -> Result<Prepared, SqlError> {
    let binder = Binder::new(catalog, hints);
    let (made, columns) = plan(&binder, statement)?;
    let mut without_hidden = None;
    if binder.uses_hidden.get() {
        let binder = Binder::new(catalog, hints);
        binder.without_hidden.set(true);
        without_hidden = Some(Box::new(plan(&binder, statement)?.0));
    }
    Ok(Prepared {
        kind: statement.kind(),
        params: binder.parameter_types(),
        columns,
        planned: Planned::on(catalog),
        command: statement.command(),
        reach: Reach::of(&made),
        plan: made,
        without_hidden,
        asks_sequence: binder.asks_sequence.get(),
    })
}

fn plan(binder: &Binder<'_>, statement: &Statement) -> Result<(Plan, Vec<ResultColumn>), SqlError> {
    let text_column = |name: &str| ResultColumn::new(name, Type::Text);
    match statement {
        Statement::Sql(sql) => {
            binder.overriding.set(sql.overriding);
            binder.conflict.replace(sql.conflict.clone());
            tree(binder, &sql.tree).map_err(|error| error.resolve(&sql.text))
        }
        Statement::Sequence(sequence) => {
            Ok((Plan::Definition(binder.sequence(sequence)?), Vec::new()))
        }
        Statement::Explain { analyze, format, statement } => {
            let (inner, _) = plan(binder, statement)?;
            if let Plan::Definition(_) = inner {
                let command = statement.command();
                return Err(SqlError::unsupported(format!("EXPLAIN {command}"))
                    .with_hint("EXPLAIN takes SELECT, VALUES, INSERT, UPDATE and DELETE."));
            }
            let format = *format;
            let rows = match analyze {
                Some(_) => Vec::new(),
                None => explain::rows(&inner, format, None),
            };
            let run = analyze.map(|analyze| (analyze, Box::new(inner)));
            let mut column = text_column("QUERY PLAN");
            if format == ExplainFormat::Json {
                column.type_oid = JSON_OID;
            }
            Ok((Plan::Explain { format, rows, run }, vec![column]))
        }
        Statement::Show(name) if name == "all" => {
            let columns = ["name", "setting", "description"].map(text_column).to_vec();
            Ok((Plan::Show(None), columns))
        }
        Statement::Show(name) => Ok((Plan::Show(Some(name.clone())), vec![text_column(name)])),
        Statement::Maintenance(_) => Ok((Plan::Nothing, Vec::new())),
        Statement::Copy(copy) => match &copy.source {
            CopySource::Query(query) => {
                tree(binder, &query.tree).map_err(|error| error.resolve(&query.text))
            }
            CopySource::Table { .. } => Ok((Plan::Session, Vec::new())),
        },
        Statement::Begin(_)
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint(_)
        | Statement::ReleaseSavepoint(_)
        | Statement::RollbackTo(_)
        | Statement::SetTransaction { .. }
        | Statement::Set { .. }
        | Statement::Reset(_)
        | Statement::Discard(_)
        | Statement::Prepare { .. }
        | Statement::Execute { .. }
        | Statement::Deallocate(_)
        | Statement::Unlisten
        | Statement::Call { .. }
        | Statement::User(_) => Ok((Plan::Session, Vec::new())),
    }
}

fn tree(binder: &Binder<'_>, tree: &ast::Statement) -> Result<(Plan, Vec<ResultColumn>), SqlError> {
    match tree {
        ast::Statement::Query(query) if query.locks.is_empty() => {
            let query = binder.top_query(query)?;
            let columns = query.columns.clone();
            Ok((Plan::Query(query), columns))
        }
        ast::Statement::Query(query) => {
            let (plan, described) = binder.locking_query(query)?;
            Ok((Plan::Locking(plan), described.columns))
        }
        ast::Statement::Insert(insert) => {
            let (plan, columns) = binder.insert(insert)?;
            Ok((Plan::Insert(plan), columns))
        }
        ast::Statement::Update(update) => {
            let (plan, columns) = binder.update(update)?;
            Ok((Plan::Change(plan), columns))
        }
        ast::Statement::Delete(delete) => {
            let (plan, columns) = binder.delete(delete)?;
            Ok((Plan::Change(plan), columns))
        }
        other => Ok((Plan::Definition(binder.definition(other)?), Vec::new())),
    }
}

/// The values of EXECUTE's arguments, in a transaction, converted to the prepared statement's parameter types.
///
/// # Errors
/// 42601 for a wrong count, 0A000 for a subquery, else what evaluating or converting an argument gives.
pub fn constant_arguments(
    prepared: &Prepared,
    arguments: &[ast::Expr],
    context: &ExecContext<'_>,
    txn: &Txn,
) -> Result<Vec<Value>, ExecError> {
    if arguments.len() != prepared.params.len() {
        return Err(SqlError::new(
            state::SYNTAX,
            "wrong number of parameters for prepared statement",
        )
        .with_detail(format!(
            "Expected {} parameters but got {}.",
            prepared.params.len(),
            arguments.len()
        ))
        .into());
    }
    let binder = Binder::new(txn.catalog(), &[]);
    let scope = Scope::new(Vec::new(), None);
    scope.clause.set("EXECUTE");
    let run = Run::new(context);
    let env = Env::new(&run, txn);
    arguments
        .iter()
        .zip(&prepared.params)
        .map(|(argument, wanted)| {
            let bound = binder.expr(argument, &scope)?;
            let span = ast::Spanned::span(argument);
            let expr = binder.assigned(bound, ("parameter", *wanted), span)?;
            if expr.has_subquery() {
                return Err(SqlError::unsupported("a subquery in an argument of EXECUTE").into());
            }
            eval(&expr, &NoColumns, &env).map_err(|error| run.reason(error.into()))
        })
        .collect()
}

/// The types of PREPARE's parameter list.
///
/// # Errors
/// 42704 for an unknown type.
pub fn declared_types(types: &[ast::DataType]) -> Result<Vec<Option<DataType>>, SqlError> {
    types
        .iter()
        .map(|written| Ok(Some(crate::types::written_type(written)?.ty().storage())))
        .collect()
}

/// A parameter's value from the wire's text form.
///
/// # Errors
/// 22P02 and the like when the text is not of the type.
pub fn parameter_from_text(
    data_type: DataType,
    text: &str,
    zone_offset: i32,
) -> Result<Value, SqlError> {
    crate::text::parse_value(Type::of(data_type), text, zone_offset)
}
