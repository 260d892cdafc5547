//! Foreign keys as the catalog views and `pg_get_constraintdef` show them.

use super::{table_oid, text};
use crate::names;
use std::sync::Arc;
use understudy_store::{Catalog, ForeignKeyDef, ReferentialAction, TableDef, Value};

/// Foreign keys are numbered from here on, by table and place; above them come no other objects.
const FIRST: i64 = 3 << 30;
/// Numbers of one table.
const STRIDE: i64 = 128;

/// A foreign key between two tables.
pub(super) struct Reference<'a> {
    pub(super) oid: i64,
    pub(super) table: &'a Arc<TableDef>,
    pub(super) key: &'a ForeignKeyDef,
    pub(super) referenced: &'a Arc<TableDef>,
}

/// Every foreign key, by table.
pub(super) fn references(catalog: &Catalog) -> impl Iterator<Item = Reference<'_>> {
    catalog.tables().flat_map(move |table| {
        table.foreign_keys.iter().enumerate().filter_map(move |(position, key)| {
            let referenced = catalog.table_by_id(key.references)?;
            let oid = FIRST + table_oid(table) * STRIDE + position as i64;
            Some(Reference { oid, table, key, referenced })
        })
    })
}

/// What follows the constraint's name in its definition.
pub(super) fn definition(reference: &Reference<'_>) -> String {
    let Reference { table, key, referenced, .. } = reference;
    let mut out = format!(
        "FOREIGN KEY ({}) REFERENCES {}({})",
        column_names(table, &key.columns),
        names::quoted(&referenced.name),
        column_names(referenced, &key.referenced)
    );
    if key.match_full {
        out.push_str(" MATCH FULL");
    }
    for (when, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
        if action != ReferentialAction::NoAction {
            out.push_str(&format!(" ON {when} {}", action_words(action)));
        }
    }
    out
}

fn column_names(table: &TableDef, columns: &[u16]) -> String {
    let name = |column: &u16| names::quoted(&table.columns[usize::from(*column)].name);
    columns.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// An action as `information_schema` and definitions spell it.
pub(super) fn action_words(action: ReferentialAction) -> &'static str {
    match action {
        ReferentialAction::NoAction => "NO ACTION",
        ReferentialAction::Restrict => "RESTRICT",
        ReferentialAction::Cascade => "CASCADE",
        ReferentialAction::SetNull => "SET NULL",
        ReferentialAction::SetDefault => "SET DEFAULT",
    }
}

/// An action as `pg_constraint` has it.
pub(super) fn action_letter(action: ReferentialAction) -> &'static str {
    match action {
        ReferentialAction::NoAction => "a",
        ReferentialAction::Restrict => "r",
        ReferentialAction::Cascade => "c",
        ReferentialAction::SetNull => "n",
        ReferentialAction::SetDefault => "d",
    }
}

/// Columns as a list of their numbers, `{1,2}`.
pub(super) fn column_numbers(columns: &[u16]) -> Value {
    let numbers: Vec<String> = columns.iter().map(|column| (column + 1).to_string()).collect();
    text(&format!("{{{}}}", numbers.join(",")))
}
