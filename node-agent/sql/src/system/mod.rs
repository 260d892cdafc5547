//! The catalog as PostgreSQL's clients look at it: `pg_catalog` and `information_schema` views.
//!
//! Each view is a list of columns and a function that makes its rows from the transaction's catalog; rows
//! are made at every reading and never stored. Columns that psql and drivers name but that we have no
//! use for hold what PostgreSQL shows for plain tables. Object numbers: tables are even, indexes odd.

mod activity;
mod counts;
mod information;
mod locks;
mod references;
mod relations;
mod sequences;
mod server;

pub(crate) use sequences::{find_sequence, last_value as sequence_last_value, sequence_row};

use crate::{
    error::{SqlError, state},
    eval::{Env, Values},
    execute::query::{Consumer, Flow},
    names,
    types::Type,
};
use std::{fmt, sync::Arc};
use understudy_store::{Catalog, IndexDef, TableDef, TableId, Value};

/// First number of objects made by users, as in PostgreSQL.
const FIRST_OID: i64 = 16_384;
/// Number of the schema public.
pub(crate) const PUBLIC_OID: i64 = 2200;
/// Number of pg_catalog.
pub(crate) const CATALOG_OID: i64 = 11;
/// Number of the access method of tables.
pub(crate) const HEAP_OID: i64 = 2;
/// Number of the access method of indexes.
pub(crate) const BTREE_OID: i64 = 403;
/// Constraints are numbered from here on by their index.
const CONSTRAINTS: i64 = 1 << 30;

/// Columns of a view.
type Columns = &'static [(&'static str, Type)];
/// Makes the rows of a view.
type Rows = fn(&Env<'_>) -> Result<Vec<Vec<Value>>, SqlError>;

/// One view.
pub(crate) struct View {
    schema: &'static str,
    name: &'static str,
    columns: Columns,
    rows: Rows,
}

impl View {
    const fn catalog(name: &'static str, columns: Columns, rows: Rows) -> View {
        View { schema: "pg_catalog", name, columns, rows }
    }
}

/// A reference to a view.
#[derive(Clone, Copy)]
pub(crate) struct SystemView(&'static View);

impl PartialEq for SystemView {
    fn eq(&self, other: &SystemView) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl fmt::Debug for SystemView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl SystemView {
    /// The view of that name; `pg_catalog` is searched when no schema is written.
    pub(crate) fn find(schema: Option<&str>, name: &str) -> Option<SystemView> {
        let schema = schema.unwrap_or("pg_catalog");
        all().find(|view| view.schema == schema && view.name == name).map(SystemView)
    }

    pub(crate) fn columns(self) -> Columns {
        self.0.columns
    }

    pub(crate) fn name(self) -> &'static str {
        self.0.name
    }
}

fn all() -> impl Iterator<Item = &'static View> {
    relations::VIEWS
        .iter()
        .chain(server::VIEWS)
        .chain(activity::VIEWS)
        .chain(counts::VIEWS)
        .chain(locks::VIEWS)
        .chain(information::VIEWS)
        .chain(sequences::VIEWS)
}

/// Hands the rows of a view on.
pub(crate) fn rows(
    view: SystemView,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    for row in (view.0.rows)(env)? {
        if consume(&Values(&row))? == Flow::Enough {
            return Ok(Flow::Enough);
        }
    }
    Ok(Flow::More)
}

/// The number of a table.
pub(crate) fn table_oid(table: &TableDef) -> i64 {
    FIRST_OID + i64::from(table.id.0) * 2
}

/// The table or sequence that a number would be of.
fn table_of_oid(oid: i64) -> Option<TableId> {
    let number = oid.checked_sub(FIRST_OID).filter(|number| number % 2 == 0)? / 2;
    u32::try_from(number).ok().map(TableId)
}

/// The number of an index.
pub(crate) fn index_oid(index: &IndexDef) -> i64 {
    FIRST_OID + i64::from(index.id.0) * 2 + 1
}

/// The number of the constraint that an index enforces.
fn constraint_oid(index: &IndexDef) -> i64 {
    CONSTRAINTS + index_oid(index)
}

/// The number of the user at a place in the list; the first is PostgreSQL's bootstrap user's.
fn user_oid(position: usize) -> i64 {
    10 + position as i64
}

/// A user's name by number.
pub(crate) fn user_name(env: &Env<'_>, oid: i64) -> Result<String, SqlError> {
    let position = usize::try_from(oid - 10).unwrap_or(usize::MAX);
    let name = env.catalog().users().nth(position).map(|user| user.name.clone());
    Ok(name.unwrap_or_else(|| {
        if oid == 10 {
            env.run.context.session.user.clone()
        } else {
            format!("unknown (OID={oid})")
        }
    }))
}

/// `'name'::regclass`.
pub(crate) fn relation_constant(catalog: &Catalog, text: &str) -> Result<i64, SqlError> {
    if let Ok(oid) = text.parse() {
        return Ok(oid);
    }
    let (schema, name) = match text.rsplit_once('.') {
        Some((schema, name)) => (schema, name),
        None => (names::PUBLIC, text),
    };
    let fold = |part: &str| match part.strip_prefix('"').and_then(|p| p.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => part.to_lowercase(),
    };
    let (schema, name) = (fold(schema), fold(name));
    let table = catalog.table(&schema, &name).or_else(|| catalog.sequence(&schema, &name));
    if let Some(table) = table {
        return Ok(table_oid(table));
    }
    if let Some((_, index)) = catalog.index(&schema, &name) {
        return Ok(index_oid(index));
    }
    if let Some(position) = all().position(|view| view.schema == "pg_catalog" && view.name == name)
    {
        return Ok(1000 + position as i64);
    }
    Err(SqlError::new(state::UNKNOWN_TABLE, format!("relation \"{text}\" does not exist")))
}

/// How a relation's number is written; `-` for none, the number itself for what is not there.
pub(crate) fn relation_text(env: &Env<'_>, oid: i64) -> Result<Value, SqlError> {
    let name = match relation_name(env.catalog(), oid) {
        Some(name) => names::quoted(name),
        None if oid == 0 => "-".to_owned(),
        None => oid.to_string(),
    };
    Ok(Value::text(name))
}

/// The name of a table, sequence or index by number.
pub(crate) fn relation_name(catalog: &Catalog, oid: i64) -> Option<&str> {
    let table = catalog.relations().find(|table| table_oid(table) == oid);
    let index = || find_index(catalog, oid).map(|(_, index)| index.name.as_str());
    table.map(|table| table.name.as_str()).or_else(index)
}

fn find_index(catalog: &Catalog, oid: i64) -> Option<(&Arc<TableDef>, &IndexDef)> {
    catalog.tables().find_map(|table| {
        let index = table.indexes.iter().find(|index| index_oid(index) == oid)?;
        Some((table, index))
    })
}

/// The indexes of a table that are shown as constraints: its keys.
fn keys(table: &TableDef) -> impl Iterator<Item = &IndexDef> {
    table.indexes.iter().filter(|index| index.unique && table.is_plain(index))
}

/// A key of an index as it is written: a column's name, or an expression.
fn key_text(table: &TableDef, position: u16) -> String {
    let column = &table.columns[usize::from(position)];
    if column.hidden { column.name.clone() } else { names::quoted(&column.name) }
}

/// What holds for the rows that an index has, when it leaves some out.
fn predicate(table: &TableDef, index: &IndexDef) -> Option<String> {
    index.only.map(|position| key_text(table, position))
}

/// `pg_get_indexdef`: the statement that makes the index, or one column's name.
pub(crate) fn index_definition(env: &Env<'_>, oid: i64, column: i64) -> Result<Value, SqlError> {
    let Some((table, index)) = find_index(env.catalog(), oid) else { return Ok(Value::Null) };
    let columns: Vec<String> =
        index.columns.iter().map(|position| key_text(table, *position)).collect();
    if column > 0 {
        let name = usize::try_from(column - 1).ok().and_then(|at| columns.get(at));
        return Ok(name.map_or(Value::Null, |name| Value::text(name.as_str())));
    }
    let columns: Vec<String> = columns
        .into_iter()
        .enumerate()
        .map(|(at, name)| {
            let order = index.order.get(at).copied().unwrap_or_default();
            let shown = match (order.descending, order.nulls_first) {
                (false, false) => "",
                (false, true) => " NULLS FIRST",
                (true, true) => " DESC",
                (true, false) => " DESC NULLS LAST",
            };
            format!("{name}{shown}")
        })
        .collect();
    let unique = if index.unique { "UNIQUE " } else { "" };
    Ok(Value::text(format!(
        "CREATE {unique}INDEX {} ON public.{} USING btree ({}){}",
        names::quoted(&index.name),
        names::quoted(&table.name),
        columns.join(", "),
        predicate(table, index).map_or(String::new(), |text| format!(" WHERE {text}"))
    )))
}

/// `pg_get_constraintdef`.
pub(crate) fn constraint_definition(env: &Env<'_>, oid: i64) -> Result<Value, SqlError> {
    let catalog = env.catalog();
    if let Some((table, index)) = find_index(catalog, oid - CONSTRAINTS) {
        let columns: Vec<String> = index
            .columns
            .iter()
            .map(|position| names::quoted(&table.columns[usize::from(*position)].name))
            .collect();
        let kind = if index.is_primary_key { "PRIMARY KEY" } else { "UNIQUE" };
        return Ok(Value::text(format!("{kind} ({})", columns.join(", "))));
    }
    if let Some(found) = references::references(catalog).find(|found| found.oid == oid) {
        return Ok(Value::text(references::definition(&found)));
    }
    let check = relations::checks(catalog)?.into_iter().find(|check| check.oid == oid);
    Ok(check.map_or(Value::Null, |check| Value::text(format!("CHECK ({})", check.predicate))))
}

pub(crate) use locks::blocking_sessions;

/// What of a relation is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The rows of a table, or the entries of an index.
    Own,
    /// The indexes of a table.
    Indexes,
    /// Both.
    Total,
}

/// Bytes of a table or index, as accounted.
pub(crate) fn relation_bytes(env: &Env<'_>, oid: i64, extent: Extent) -> Option<i64> {
    let catalog = env.catalog();
    let report = env.run.context.store.memory();
    if let Some(table) = catalog.tables().find(|table| table_oid(table) == oid) {
        let memory = report.tables.iter().find(|memory| memory.table == table.id)?;
        let indexes: u64 = memory.indexes.iter().map(|index| index.bytes).sum();
        return Some(match extent {
            Extent::Own => memory.row_bytes,
            Extent::Indexes => indexes,
            Extent::Total => memory.row_bytes + indexes,
        } as i64);
    }
    let (table, index) = find_index(catalog, oid)?;
    let memory = report.tables.iter().find(|memory| memory.table == table.id)?;
    let memory = memory.indexes.iter().find(|memory| memory.index == index.id)?;
    Some(if extent == Extent::Indexes { 0 } else { memory.bytes as i64 })
}

/// The number of a relation by its name, or by its number as text.
pub(crate) fn relation_oid(env: &Env<'_>, name: &str) -> Result<i64, SqlError> {
    relation_constant(env.catalog(), name)
}

/// Bytes of everything.
pub(crate) fn database_bytes(env: &Env<'_>) -> i64 {
    env.run.context.store.memory().permanent_used as i64
}

fn text(text: &str) -> Value {
    Value::text(text)
}
