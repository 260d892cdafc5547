//! Trapped transactions as SQL: what an old active had and the pair went on without (R19, seed 001).
//!
//! ```text
//!   trapped/…_tail-6-…-3.log ──Export──▶ records ──Story──▶ rows ──▶ INSERT, UPDATE, DELETE
//! ```
//! **Invariant**: a statement names a row by its key, or by all its columns when its table has none. An
//! UPDATE sets every other column: what it was computed from is not in the log.

use crate::datadir::{DataDir, DataDirError};
use understudy_agent_api::{TrappedPage, TrappedQuery, TrappedTransaction};
use understudy_store::{Row, Store, Story, TableDef, Told, ValueRef};
use understudy_txlog::{Export, ExportError, disk::FsDisk, record::RecordKind};

/// Most text of one page, in bytes; a single larger transaction is a page of its own.
const PAGE_BYTES: usize = 256 << 10;

/// Why a tail cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TrappedError {
    /// No tail has this name.
    #[error("no tail is called {0}; `understudy status` lists them")]
    NoSuchTail(String),
    /// The volume refuses.
    #[error(transparent)]
    Volume(#[from] DataDirError),
    /// The directory cannot be opened.
    #[error("the directory of trapped transactions cannot be opened")]
    Directory(#[source] std::io::Error),
    /// The file is damaged; what lies before the damage cannot be told apart from the rest.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The next page of a tail.
///
/// # Errors
/// When there is no such tail or it cannot be read.
pub fn tell(
    volumes: &DataDir,
    store: &Store,
    query: &TrappedQuery,
) -> Result<TrappedPage, TrappedError> {
    let path = volumes.trapped_path(&query.file)?;
    let path = path.ok_or_else(|| TrappedError::NoSuchTail(query.file.clone()))?;
    let (directory, name) = path;
    let disk = FsDisk::open(directory).map_err(TrappedError::Directory)?;
    let mut story = Story::beside(store);
    let mut page = TrappedPage { transactions: Vec::new(), is_last: true };
    let mut bytes = 0;
    Export::read(&disk, &name, &mut |record| {
        if record.kind != RecordKind::Transaction {
            return;
        }
        // Told from the beginning: a row may have come in a transaction of an earlier page.
        let statements = match story.tell(record.payload) {
            Ok(told) => told.iter().map(statement).collect(),
            Err(error) => vec![format!("-- this transaction cannot be read: {error}")],
        };
        if record.lsn <= query.after {
            return;
        }
        let size: usize = statements.iter().map(String::len).sum();
        if !page.is_last || (bytes > 0 && bytes + size > PAGE_BYTES) {
            page.is_last = false;
            return;
        }
        bytes += size;
        page.transactions.push(TrappedTransaction { lsn: record.lsn, statements });
    })?;
    Ok(page)
}

fn statement(told: &Told) -> String {
    match told {
        Told::Inserted { table, row } => {
            let names: Vec<String> = table.columns.iter().map(|c| quoted(&c.name)).collect();
            let values: Vec<String> =
                (0..table.columns.len()).map(|at| literal(table, row, at)).collect();
            format!(
                "INSERT INTO {} ({}) VALUES ({})",
                name(table),
                names.join(", "),
                values.join(", ")
            )
        }
        Told::Updated { table, old, new } => {
            let key = key(table);
            let set: Vec<String> = (0..table.columns.len())
                .filter(|at| !key.contains(at) || old.is_some())
                .map(|at| {
                    format!("{} = {}", quoted(&table.columns[at].name), literal(table, new, at))
                })
                .collect();
            let place = place(table, old.as_ref().unwrap_or(new), &key);
            format!("UPDATE {} SET {} WHERE {place}", name(table), set.join(", "))
        }
        Told::Deleted { table, old: Some(old) } => {
            format!("DELETE FROM {} WHERE {}", name(table), place(table, old, &key(table)))
        }
        Told::Deleted { table, old: None } => {
            format!("-- a row of {} was deleted, which is not there any more", name(table))
        }
        Told::Defined(words) => format!("-- {words}"),
        Told::Unknown => "-- a row of a table that is not there any more".to_owned(),
    }
}

/// Positions of the columns that name a row.
fn key(table: &TableDef) -> Vec<usize> {
    match table.primary_key() {
        Some(index) => index.columns.iter().map(|at| usize::from(*at)).collect(),
        None => (0..table.columns.len()).collect(),
    }
}

fn place(table: &TableDef, row: &Row, key: &[usize]) -> String {
    let conditions: Vec<String> = key
        .iter()
        .map(|&at| {
            let name = quoted(&table.columns[at].name);
            match row.column_ref(table, at) {
                ValueRef::Null => format!("{name} IS NULL"),
                _ => format!("{name} = {}", literal(table, row, at)),
            }
        })
        .collect();
    conditions.join(" AND ")
}

fn name(table: &TableDef) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value as SQL reads it back: a quoted text of its type's form.
fn literal(table: &TableDef, row: &Row, at: usize) -> String {
    let value = row.column_ref(table, at);
    let data_type = table.columns[at].data_type;
    let mut text = Vec::new();
    understudy_sql::append_text(&mut text, value, data_type, 0);
    let text = String::from_utf8_lossy(&text);
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Int(_) => text.into_owned(),
        ValueRef::Bool(is_true) => is_true.to_string(),
        ValueRef::Float(_)
        | ValueRef::Numeric(_)
        | ValueRef::Text(_)
        | ValueRef::Bytes(_)
        | ValueRef::Date(_)
        | ValueRef::Timestamp(_)
        | ValueRef::Timestamptz(_)
        | ValueRef::Uuid(_) => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use understudy_store::{ColumnDef, DataType, Value};

    fn notes() -> Arc<TableDef> {
        let columns =
            vec![ColumnDef::new("id", DataType::Int4), ColumnDef::new("Word", DataType::Text)];
        Arc::new(TableDef::new("notes", columns).with_primary_key(&[0]))
    }

    fn row(id: i64, word: Option<&str>) -> Row {
        Row::encode(&[Value::Int(id), word.map_or(Value::Null, Value::text)])
    }

    #[test]
    fn rows_become_statements_that_name_them_by_their_key() {
        let table = notes();
        let inserted = Told::Inserted { table: Arc::clone(&table), row: row(1, Some("it's")) };
        assert_eq!(
            statement(&inserted),
            r#"INSERT INTO "public"."notes" ("id", "Word") VALUES (1, 'it''s')"#
        );
        let old = Some(row(1, None));
        let updated =
            Told::Updated { table: Arc::clone(&table), old: old.clone(), new: row(2, None) };
        assert_eq!(
            statement(&updated),
            r#"UPDATE "public"."notes" SET "id" = 2, "Word" = NULL WHERE "id" = 1"#
        );
        let unknown = Told::Updated { table: Arc::clone(&table), old: None, new: row(2, None) };
        assert_eq!(
            statement(&unknown),
            r#"UPDATE "public"."notes" SET "Word" = NULL WHERE "id" = 2"#
        );
        let deleted = Told::Deleted { table, old };
        assert_eq!(statement(&deleted), r#"DELETE FROM "public"."notes" WHERE "id" = 1"#);
    }

    #[test]
    fn a_row_without_a_key_is_named_by_all_its_columns() {
        let columns =
            vec![ColumnDef::new("day", DataType::Date), ColumnDef::new("b", DataType::Bytea)];
        let table = Arc::new(TableDef::new("days", columns));
        let old = Row::encode(&[Value::Date(1), Value::Null]);
        assert_eq!(
            statement(&Told::Deleted { table, old: Some(old) }),
            r#"DELETE FROM "public"."days" WHERE "day" = '2000-01-02' AND "b" IS NULL"#
        );
    }
}
