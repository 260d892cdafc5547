//! `information_schema`: tables, columns and keys, as the standard names them.

use super::{
    Columns, View, keys,
    references::{Reference, action_words, references},
    text,
};
use crate::{
    error::SqlError,
    eval::Env,
    types::{
        self, Type,
        Type::{Int4, Name, Text},
    },
};
use understudy_store::{Catalog, DataType, Identity, SequenceDef, TableDef, Value};

const TABLES: Columns = &[
    ("table_catalog", Name),
    ("table_schema", Name),
    ("table_name", Name),
    ("table_type", Text),
    ("is_insertable_into", Text),
];

const COLUMNS: Columns = &[
    ("table_catalog", Name),
    ("table_schema", Name),
    ("table_name", Name),
    ("column_name", Name),
    ("ordinal_position", Int4),
    ("column_default", Text),
    ("is_nullable", Text),
    ("data_type", Text),
    ("character_maximum_length", Int4),
    ("numeric_precision", Int4),
    ("numeric_scale", Int4),
    ("udt_name", Name),
    ("is_identity", Text),
    ("identity_generation", Text),
    ("identity_start", Text),
    ("identity_increment", Text),
    ("identity_maximum", Text),
    ("identity_minimum", Text),
    ("identity_cycle", Text),
    ("is_generated", Text),
    ("generation_expression", Text),
];

const KEY_COLUMNS: Columns = &[
    ("constraint_catalog", Name),
    ("constraint_schema", Name),
    ("constraint_name", Name),
    ("table_catalog", Name),
    ("table_schema", Name),
    ("table_name", Name),
    ("column_name", Name),
    ("ordinal_position", Int4),
    ("position_in_unique_constraint", Int4),
];

/// Where a constraint is named and what it names.
const COLUMN_USAGE: Columns = &[
    ("table_catalog", Name),
    ("table_schema", Name),
    ("table_name", Name),
    ("column_name", Name),
    ("constraint_catalog", Name),
    ("constraint_schema", Name),
    ("constraint_name", Name),
];

const REFERENTIAL: Columns = &[
    ("constraint_catalog", Name),
    ("constraint_schema", Name),
    ("constraint_name", Name),
    ("unique_constraint_catalog", Name),
    ("unique_constraint_schema", Name),
    ("unique_constraint_name", Name),
    ("match_option", Text),
    ("update_rule", Text),
    ("delete_rule", Text),
];

const CONSTRAINTS: Columns = &[
    ("constraint_catalog", Name),
    ("constraint_schema", Name),
    ("constraint_name", Name),
    ("table_catalog", Name),
    ("table_schema", Name),
    ("table_name", Name),
    ("constraint_type", Text),
];

const fn view(name: &'static str, columns: Columns, rows: super::Rows) -> View {
    View { schema: "information_schema", name, columns, rows }
}

pub(super) static VIEWS: &[View] = &[
    view("tables", TABLES, tables),
    view("columns", COLUMNS, columns),
    view("key_column_usage", KEY_COLUMNS, key_columns),
    view("table_constraints", CONSTRAINTS, constraints),
    view("constraint_column_usage", COLUMN_USAGE, column_usage),
    view("referential_constraints", REFERENTIAL, referential),
    view(
        "schemata",
        &[("catalog_name", Name), ("schema_name", Name), ("schema_owner", Name)],
        |env| {
            let session = env.run.context.session;
            let row = |name| vec![text(&session.database), text(name), text(&session.user)];
            Ok(["pg_catalog", "public", "information_schema"].map(row).to_vec())
        },
    ),
];

fn tables(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let rows = env.catalog().tables().map(|table| {
        vec![
            text(database),
            text(&table.schema),
            text(&table.name),
            text("BASE TABLE"),
            text("YES"),
        ]
    });
    Ok(rows.collect())
}

fn columns(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let mut rows = Vec::new();
    let catalog = env.catalog();
    for table in catalog.tables() {
        for (position, column) in table.shown_columns() {
            let ty = Type::of(column.data_type);
            let length = match column.data_type {
                DataType::Varchar(length) | DataType::Char(length) => Value::Int(i64::from(length)),
                _ => Value::Null,
            };
            let (precision, scale) = match column.data_type {
                DataType::NumericOf { precision, scale } => {
                    (Value::Int(i64::from(precision)), Value::Int(i64::from(scale)))
                }
                DataType::Int2 => (Value::Int(16), Value::Int(0)),
                DataType::Int4 => (Value::Int(32), Value::Int(0)),
                DataType::Int8 => (Value::Int(64), Value::Int(0)),
                _ => (Value::Null, Value::Null),
            };
            rows.push(vec![
                text(database),
                text(&table.schema),
                text(&table.name),
                text(&column.name),
                Value::Int(position as i64 + 1),
                column.default.as_deref().map_or(Value::Null, text),
                text(if column.not_null { "NO" } else { "YES" }),
                Value::text(types::type_text(ty, -1)),
                length,
                precision,
                scale,
                text(ty.catalog_name()),
            ]);
            let row = rows.last_mut().into_iter();
            row.for_each(|row| row.extend(identity(catalog, table, position)));
        }
    }
    Ok(rows)
}

/// From is_identity to generation_expression.
fn identity(catalog: &Catalog, table: &TableDef, position: usize) -> Vec<Value> {
    let kind = table.columns[position].identity;
    let sequence = kind.and_then(|_| catalog.sequence_of(table.id, position));
    let def = sequence.and_then(|sequence| sequence.sequence.as_ref());
    let number = |of: fn(&SequenceDef) -> i64| {
        def.map_or(Value::Null, |def| Value::text(of(def).to_string()))
    };
    vec![
        text(if kind.is_some() { "YES" } else { "NO" }),
        match kind {
            Some(Identity::Always) => text("ALWAYS"),
            Some(Identity::ByDefault) => text("BY DEFAULT"),
            None => Value::Null,
        },
        number(|def| def.start),
        number(|def| def.increment),
        number(|def| def.max),
        number(|def| def.min),
        text(if def.is_some_and(|def| def.cycle) { "YES" } else { "NO" }),
        text(if table.columns[position].generated.is_some() { "ALWAYS" } else { "NEVER" }),
        table.columns[position].generated.as_deref().map_or(Value::Null, text),
    ]
}

fn key_columns(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let mut rows = Vec::new();
    for table in env.catalog().tables() {
        for index in keys(table) {
            for (position, column) in index.columns.iter().enumerate() {
                rows.push(vec![
                    text(database),
                    text(&table.schema),
                    text(&index.name),
                    text(database),
                    text(&table.schema),
                    text(&table.name),
                    text(&table.columns[usize::from(*column)].name),
                    Value::Int(position as i64 + 1),
                    Value::Null,
                ]);
            }
        }
    }
    for Reference { table, key, referenced, .. } in references(env.catalog()) {
        let index = key.index(referenced);
        for (position, column) in key.columns.iter().enumerate() {
            let other = key.referenced[position];
            let place = index.and_then(|index| index.columns.iter().position(|c| *c == other));
            rows.push(vec![
                text(database),
                text(&table.schema),
                text(&key.name),
                text(database),
                text(&table.schema),
                text(&table.name),
                text(&table.columns[usize::from(*column)].name),
                Value::Int(position as i64 + 1),
                place.map_or(Value::Null, |place| Value::Int(place as i64 + 1)),
            ]);
        }
    }
    Ok(rows)
}

fn column_usage(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let mut rows = Vec::new();
    let mut add = |owner: &TableDef, columns: &[u16], name: &str| {
        for column in columns {
            rows.push(vec![
                text(database),
                text(&owner.schema),
                text(&owner.name),
                text(&owner.columns[usize::from(*column)].name),
                text(database),
                text(&owner.schema),
                text(name),
            ]);
        }
    };
    for table in env.catalog().tables() {
        for index in keys(table) {
            add(table, &index.columns, &index.name);
        }
    }
    for Reference { key, referenced, .. } in references(env.catalog()) {
        add(referenced, &key.referenced, &key.name);
    }
    Ok(rows)
}

fn referential(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let rows = references(env.catalog()).map(|Reference { table, key, referenced, .. }| {
        let index = key.index(referenced).map_or(Value::Null, |index| text(&index.name));
        vec![
            text(database),
            text(&table.schema),
            text(&key.name),
            text(database),
            text(&referenced.schema),
            index,
            text(if key.match_full { "FULL" } else { "NONE" }),
            text(action_words(key.on_update)),
            text(action_words(key.on_delete)),
        ]
    });
    Ok(rows.collect())
}

fn constraints(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let mut rows = Vec::new();
    for table in env.catalog().tables() {
        for index in keys(table) {
            rows.push(vec![
                text(database),
                text(&table.schema),
                text(&index.name),
                text(database),
                text(&table.schema),
                text(&table.name),
                text(if index.is_primary_key { "PRIMARY KEY" } else { "UNIQUE" }),
            ]);
        }
        for key in &table.foreign_keys {
            rows.push(vec![
                text(database),
                text(&table.schema),
                text(&key.name),
                text(database),
                text(&table.schema),
                text(&table.name),
                text("FOREIGN KEY"),
            ]);
        }
    }
    Ok(rows)
}
