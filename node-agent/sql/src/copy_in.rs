//! COPY between the byte format and tables: fields are read as their columns' types and inserted.

use crate::{
    bind::{Binder, generated_in_copy},
    copy::CopyFields,
    error::{SqlError, state},
    eval::{Env, Values, eval},
    execute::{ExecContext, ExecError, Executor, RowSink, Run, Touched},
    names,
    parse::{CopySource, CopyStatement, Statement},
    plan::{InsertPlan, InsertSource},
    text,
    types::Type,
};
use std::sync::Arc;
use understudy_store::{Catalog, Planned, Txn, Value};
use understudy_types::Lsn;

/// COPY FROM, ready to take lines.
#[derive(Debug, Clone)]
pub struct CopyIn {
    plan: InsertPlan,
    /// Table columns in the order of the fields.
    targets: Vec<usize>,
    planned: Planned,
}

/// Rows come out of no INSERT without RETURNING.
struct NoRows;

impl RowSink for NoRows {
    fn row(&mut self, _: &[Value], _: Lsn) -> Result<(), SqlError> {
        Ok(())
    }
    fn notice(&mut self, _: String) {}
}

impl CopyIn {
    /// Binds the target of a COPY FROM.
    ///
    /// # Errors
    /// 42P01, 42703 and the like.
    pub fn new(catalog: &Arc<Catalog>, copy: &CopyStatement) -> Result<CopyIn, SqlError> {
        let CopySource::Table { name, columns } = &copy.source else {
            return Err(SqlError::internal("COPY FROM takes a table"));
        };
        let (plan, targets) = Binder::new(catalog, &[]).copy_target(name, columns)?;
        Ok(CopyIn { plan, targets, planned: Planned::on(catalog) })
    }

    /// Whether the plan still fits a catalog.
    #[must_use]
    pub fn is_current(&self, catalog: &Arc<Catalog>) -> bool {
        self.planned.is_on(catalog)
    }

    /// How many fields a line has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.targets.len()
    }

    /// Inserts one line's fields.
    ///
    /// # Errors
    /// 22P04 for a wrong number of fields, 22P02 and the like for a field; [`ExecError::Blocked`] and
    /// [`ExecError::Far`] as for any insert. The line is not inserted then.
    pub fn insert(
        &self,
        fields: &CopyFields,
        context: &ExecContext<'_>,
        txn: &mut Txn,
    ) -> Result<(), ExecError> {
        let values = self.typed(fields, context)?;
        let run = Run::new(context);
        let InsertSource::Query { exprs, .. } = &self.plan.source else {
            return Err(SqlError::internal("COPY FROM has no row").into());
        };
        let row = {
            let env = Env::new(&run, txn);
            let row: Result<Vec<Value>, SqlError> =
                exprs.iter().map(|expr| eval(expr, &Values(&values), &env)).collect();
            row.map_err(|error| run.reason(error.into()))?
        };
        let mut sink = NoRows;
        let mut executor = Executor { run: &run, txn, sink: &mut sink };
        let inserted = executor.insert_row(&self.plan, row, &mut Touched::default());
        inserted.map(drop).map_err(|error| run.reason(error))
    }

    /// Checks the foreign keys of all lines, when the last one is inserted.
    ///
    /// # Errors
    /// 23503; after [`ExecError::Blocked`] and [`ExecError::Far`] nothing is to be undone: call it again, and
    /// it goes on where it stopped.
    pub fn finish(&self, context: &ExecContext<'_>, txn: &mut Txn) -> Result<(), ExecError> {
        let run = Run::new(context);
        let mut sink = NoRows;
        let mut executor = Executor { run: &run, txn, sink: &mut sink };
        executor.settle().map_err(|error| run.reason(error))
    }

    fn typed(
        &self,
        fields: &CopyFields,
        context: &ExecContext<'_>,
    ) -> Result<Vec<Value>, SqlError> {
        let table = &self.plan.table;
        if fields.len() > self.targets.len() {
            return Err(SqlError::new(state::BAD_COPY, "extra data after last expected column"));
        }
        if let Some(missing) = self.targets.get(fields.len()) {
            let column = &table.columns[*missing].name;
            let message = format!("missing data for column \"{column}\"");
            return Err(SqlError::new(state::BAD_COPY, message));
        }
        let zone = context.session.settings.zone_offset();
        let typed = fields.iter().zip(&self.targets).map(|(field, target)| match field {
            None => Ok(Value::Null),
            Some(field) => {
                let ty = Type::of(table.columns[*target].data_type);
                text::parse_value(ty, field, zone)
            }
        });
        typed.collect()
    }

    /// Where an error happened, as PostgreSQL's CONTEXT says it.
    #[must_use]
    pub fn place(&self, line: u64) -> String {
        format!("COPY {}, line {line}", self.plan.table.name)
    }
}

/// The query whose rows COPY … TO writes. Of a whole table it leaves out what is generated.
///
/// # Errors
/// 42601 when the source cannot be read, 42P10 for a generated column.
pub fn copy_out_query(catalog: &Catalog, copy: &CopyStatement) -> Result<Statement, SqlError> {
    match &copy.source {
        CopySource::Query(query) => Ok(Statement::Sql(std::sync::Arc::clone(query))),
        CopySource::Table { name, columns } => {
            let table = names::find_table(catalog, name)?;
            let known = table.iter().flat_map(|table| table.shown_columns());
            let (generated, stored): (Vec<_>, Vec<_>) =
                known.map(|(_, column)| column).partition(|column| column.generated.is_some());
            if let Some(named) = generated.iter().find(|column| columns.contains(&column.name)) {
                return Err(generated_in_copy(&named.name));
            }
            let quoted = |names: &mut dyn Iterator<Item = &String>| {
                names.map(|name| names::quoted(name)).collect::<Vec<_>>().join(", ")
            };
            let list = match (columns.is_empty(), generated.is_empty()) {
                (true, true) => "*".to_owned(),
                (true, false) => quoted(&mut stored.iter().map(|column| &column.name)),
                (false, _) => quoted(&mut columns.iter()),
            };
            let text = format!("SELECT {list} FROM {name}");
            let mut statements = crate::parse::parse(&text)?;
            statements.pop().ok_or_else(|| SqlError::internal("a COPY without a query"))
        }
    }
}
