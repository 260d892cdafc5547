//! Tables, columns, indexes, constraints and types.

use super::{
    BTREE_OID, CATALOG_OID, Columns, HEAP_OID, PUBLIC_OID, View, constraint_oid, index_oid,
    references::{action_letter, column_numbers, references},
    table_oid, text, user_oid,
};
use crate::{
    bind::split_check,
    error::SqlError,
    eval::Env,
    types::{
        self, ALL_TYPES, Category, Type,
        Type::{Bool, CharByte, Float4, Int2, Int4, Name, Oid, Text},
    },
};
use std::collections::BTreeSet;
use understudy_store::{Catalog, Identity, TableDef, Value};

const PG_CLASS: Columns = &[
    ("oid", Oid),
    ("relname", Name),
    ("relnamespace", Oid),
    ("reltype", Oid),
    ("reloftype", Oid),
    ("relowner", Oid),
    ("relam", Oid),
    ("relfilenode", Oid),
    ("reltablespace", Oid),
    ("relpages", Int4),
    ("reltuples", Float4),
    ("relallvisible", Int4),
    ("reltoastrelid", Oid),
    ("relhasindex", Bool),
    ("relisshared", Bool),
    ("relpersistence", CharByte),
    ("relkind", CharByte),
    ("relnatts", Int2),
    ("relchecks", Int2),
    ("relhasrules", Bool),
    ("relhastriggers", Bool),
    ("relhassubclass", Bool),
    ("relrowsecurity", Bool),
    ("relforcerowsecurity", Bool),
    ("relispopulated", Bool),
    ("relreplident", CharByte),
    ("relispartition", Bool),
    ("relrewrite", Oid),
    ("relacl", Text),
    ("reloptions", Text),
    ("relpartbound", Text),
];

const PG_ATTRIBUTE: Columns = &[
    ("attrelid", Oid),
    ("attname", Name),
    ("atttypid", Oid),
    ("attstattarget", Int4),
    ("attlen", Int2),
    ("attnum", Int2),
    ("attndims", Int4),
    ("atttypmod", Int4),
    ("attbyval", Bool),
    ("attstorage", CharByte),
    ("attcompression", CharByte),
    ("attnotnull", Bool),
    ("atthasdef", Bool),
    ("atthasmissing", Bool),
    ("attidentity", CharByte),
    ("attgenerated", CharByte),
    ("attisdropped", Bool),
    ("attislocal", Bool),
    ("attinhcount", Int4),
    ("attcollation", Oid),
    ("attacl", Text),
    ("attoptions", Text),
    ("attfdwoptions", Text),
];

const PG_INDEX: Columns = &[
    ("indexrelid", Oid),
    ("indrelid", Oid),
    ("indnatts", Int2),
    ("indnkeyatts", Int2),
    ("indisunique", Bool),
    ("indnullsnotdistinct", Bool),
    ("indisprimary", Bool),
    ("indisexclusion", Bool),
    ("indimmediate", Bool),
    ("indisclustered", Bool),
    ("indisvalid", Bool),
    ("indisready", Bool),
    ("indislive", Bool),
    ("indisreplident", Bool),
    ("indkey", Text),
    ("indoption", Text),
    ("indexprs", Text),
    ("indpred", Text),
];

const PG_CONSTRAINT: Columns = &[
    ("oid", Oid),
    ("conname", Name),
    ("connamespace", Oid),
    ("contype", CharByte),
    ("condeferrable", Bool),
    ("condeferred", Bool),
    ("convalidated", Bool),
    ("conrelid", Oid),
    ("contypid", Oid),
    ("conindid", Oid),
    ("conparentid", Oid),
    ("confrelid", Oid),
    ("confupdtype", CharByte),
    ("confdeltype", CharByte),
    ("confmatchtype", CharByte),
    ("conislocal", Bool),
    ("coninhcount", Int4),
    ("connoinherit", Bool),
    ("conkey", Text),
    ("confkey", Text),
];

const PG_TYPE: Columns = &[
    ("oid", Oid),
    ("typname", Name),
    ("typnamespace", Oid),
    ("typowner", Oid),
    ("typlen", Int2),
    ("typbyval", Bool),
    ("typtype", CharByte),
    ("typcategory", CharByte),
    ("typispreferred", Bool),
    ("typisdefined", Bool),
    ("typdelim", CharByte),
    ("typrelid", Oid),
    ("typelem", Oid),
    ("typarray", Oid),
    ("typnotnull", Bool),
    ("typbasetype", Oid),
    ("typtypmod", Int4),
    ("typcollation", Oid),
    ("typdefault", Text),
    ("typinput", Text),
];

pub(super) static VIEWS: &[View] = &[
    View::catalog("pg_class", PG_CLASS, |env| classes(env.catalog())),
    View::catalog("pg_attribute", PG_ATTRIBUTE, |env| attributes(env.catalog())),
    View::catalog("pg_index", PG_INDEX, |env| indexes(env.catalog())),
    View::catalog("pg_constraint", PG_CONSTRAINT, |env| constraints(env.catalog())),
    View::catalog("pg_type", PG_TYPE, |_| Ok(all_types())),
    View::catalog(
        "pg_attrdef",
        &[("oid", Oid), ("adrelid", Oid), ("adnum", Int2), ("adbin", Text)],
        |env| defaults(env.catalog()),
    ),
    View::catalog(
        "pg_tables",
        &[
            ("schemaname", Name),
            ("tablename", Name),
            ("tableowner", Name),
            ("tablespace", Name),
            ("hasindexes", Bool),
            ("hasrules", Bool),
            ("hastriggers", Bool),
            ("rowsecurity", Bool),
        ],
        tables,
    ),
    View::catalog(
        "pg_indexes",
        &[
            ("schemaname", Name),
            ("tablename", Name),
            ("indexname", Name),
            ("tablespace", Name),
            ("indexdef", Text),
        ],
        index_list,
    ),
];

const NO: Value = Value::Bool(false);
const YES: Value = Value::Bool(true);
const ZERO: Value = Value::Int(0);

fn class(oid: i64, name: &str, kind: &str, columns: usize) -> Vec<Value> {
    let index = kind == "i";
    vec![
        Value::Int(oid),
        text(name),
        Value::Int(PUBLIC_OID),
        ZERO,
        ZERO,
        Value::Int(user_oid(0)),
        Value::Int(if index { BTREE_OID } else { HEAP_OID }),
        Value::Int(oid),
        ZERO,
        ZERO,
        Value::Float(-1.0),
        ZERO,
        ZERO,
        NO,
        NO,
        text("p"),
        text(kind),
        Value::Int(columns as i64),
        ZERO,
        NO,
        NO,
        NO,
        NO,
        NO,
        YES,
        text(if index { "n" } else { "d" }),
        NO,
        ZERO,
        Value::Null,
        Value::Null,
        Value::Null,
    ]
}

fn classes(catalog: &Catalog) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    let referenced: BTreeSet<_> = references(catalog).map(|r| r.referenced.id).collect();
    for table in catalog.tables() {
        let mut row = class(table_oid(table), &table.name, "r", table.columns.len());
        row[13] = Value::Bool(!table.indexes.is_empty());
        row[18] = Value::Int(table.checks.len() as i64);
        row[20] = Value::Bool(!table.foreign_keys.is_empty() || referenced.contains(&table.id));
        rows.push(row);
        for index in &table.indexes {
            rows.push(class(index_oid(index), &index.name, "i", index.columns.len()));
        }
    }
    for sequence in catalog.sequences() {
        let mut row = class(table_oid(sequence), &sequence.name, "S", sequence.columns.len());
        row[6] = ZERO;
        row[25] = text("n");
        rows.push(row);
    }
    Ok(rows)
}

fn attributes(catalog: &Catalog) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for (position, column) in table.shown_columns() {
            rows.push(attribute(table_oid(table), position + 1, column));
        }
        for index in &table.indexes {
            for (position, column) in index.columns.iter().enumerate() {
                let mut column = table.columns[usize::from(*column)].clone();
                if column.hidden {
                    let call = column.name.split('(').next().filter(|name| !name.is_empty());
                    column.name = call.unwrap_or("expr").to_owned();
                }
                (column.default, column.identity, column.generated) = (None, None, None);
                column.not_null = false;
                rows.push(attribute(index_oid(index), position + 1, &column));
            }
        }
    }
    for sequence in catalog.sequences() {
        for (position, column) in sequence.columns.iter().enumerate() {
            rows.push(attribute(table_oid(sequence), position + 1, column));
        }
    }
    Ok(rows)
}

fn attribute(relation: i64, number: usize, column: &understudy_store::ColumnDef) -> Vec<Value> {
    let ty = Type::of(column.data_type);
    let collated = ty.category() == Category::Text;
    vec![
        Value::Int(relation),
        text(&column.name),
        Value::Int(i64::from(ty.oid())),
        Value::Int(-1),
        Value::Int(i64::from(ty.length())),
        Value::Int(number as i64),
        ZERO,
        Value::Int(i64::from(types::type_modifier(column.data_type))),
        Value::Bool((1..=8).contains(&ty.length())),
        text(if ty.length() < 0 { "x" } else { "p" }),
        text(""),
        Value::Bool(column.not_null),
        Value::Bool(column.default.is_some() || column.generated.is_some()),
        NO,
        text(match column.identity {
            Some(Identity::Always) => "a",
            Some(Identity::ByDefault) => "d",
            None => "",
        }),
        text(if column.generated.is_some() { "s" } else { "" }),
        NO,
        YES,
        ZERO,
        Value::Int(if collated { 100 } else { 0 }),
        Value::Null,
        Value::Null,
        Value::Null,
    ]
}

fn indexes(catalog: &Catalog) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for index in &table.indexes {
            let number = |column: &u16| match table.columns[usize::from(*column)].hidden {
                true => "0".to_owned(),
                false => (column + 1).to_string(),
            };
            let keys: Vec<String> = index.columns.iter().map(number).collect();
            let hidden = index.columns.iter().map(|column| &table.columns[usize::from(*column)]);
            let exprs: Vec<&str> =
                hidden.filter(|column| column.hidden).map(|column| column.name.as_str()).collect();
            let exprs = if exprs.is_empty() { Value::Null } else { Value::text(exprs.join(", ")) };
            let bits = |at: usize| {
                let order = index.order.get(at).copied().unwrap_or_default();
                (u8::from(order.descending) | u8::from(order.nulls_first) << 1).to_string()
            };
            let options = (0..keys.len()).map(bits).collect::<Vec<_>>().join(" ");
            let count = Value::Int(keys.len() as i64);
            rows.push(vec![
                Value::Int(index_oid(index)),
                Value::Int(table_oid(table)),
                count.clone(),
                count,
                Value::Bool(index.unique),
                NO,
                Value::Bool(index.is_primary_key),
                NO,
                YES,
                NO,
                YES,
                YES,
                YES,
                NO,
                Value::text(keys.join(" ")),
                Value::text(options),
                exprs,
                super::predicate(table, index).map_or(Value::Null, Value::text),
            ]);
        }
    }
    Ok(rows)
}

/// A CHECK constraint of the catalog.
pub(super) struct CheckRow {
    pub(super) oid: i64,
    table: i64,
    name: String,
    pub(super) predicate: String,
}

/// Every CHECK constraint; their numbers are above those of indexes.
pub(super) fn checks(catalog: &Catalog) -> Result<Vec<CheckRow>, SqlError> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for (position, check) in table.checks.iter().enumerate() {
            let (name, predicate) = split_check(check)?;
            let oid = (1 << 31) + table_oid(table) * 256 + position as i64;
            rows.push(CheckRow { oid, table: table_oid(table), name, predicate });
        }
    }
    Ok(rows)
}

fn constraint(oid: i64, name: &str, kind: &str, (table, index): (i64, i64)) -> Vec<Value> {
    vec![
        Value::Int(oid),
        text(name),
        Value::Int(PUBLIC_OID),
        text(kind),
        NO,
        NO,
        YES,
        Value::Int(table),
        ZERO,
        Value::Int(index),
        ZERO,
        ZERO,
        text(" "),
        text(" "),
        text(" "),
        YES,
        ZERO,
        YES,
        Value::Null,
        Value::Null,
    ]
}

/// Columns of `pg_constraint` that are not the same for all kinds.
const CONFRELID: usize = 11;
const CONKEY: usize = 18;

fn constraints(catalog: &Catalog) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for index in super::keys(table) {
            let kind = if index.is_primary_key { "p" } else { "u" };
            let place = (table_oid(table), index_oid(index));
            let mut row = constraint(constraint_oid(index), &index.name, kind, place);
            row[CONKEY] = column_numbers(&index.columns);
            rows.push(row);
        }
    }
    for reference in references(catalog) {
        let (table, key) = (reference.table, reference.key);
        let index = key.index(reference.referenced).map_or(0, index_oid);
        let place = (table_oid(table), index);
        let mut row = constraint(reference.oid, &key.name, "f", place);
        row[CONFRELID] = Value::Int(table_oid(reference.referenced));
        row[CONFRELID + 1] = text(action_letter(key.on_update));
        row[CONFRELID + 2] = text(action_letter(key.on_delete));
        row[CONFRELID + 3] = text(if key.match_full { "f" } else { "s" });
        row[CONKEY] = column_numbers(&key.columns);
        row[CONKEY + 1] = column_numbers(&key.referenced);
        rows.push(row);
    }
    for check in checks(catalog)? {
        rows.push(constraint(check.oid, &check.name, "c", (check.table, 0)));
    }
    Ok(rows)
}

fn all_types() -> Vec<Vec<Value>> {
    ALL_TYPES
        .iter()
        .map(|ty| {
            let category = match ty.category() {
                Category::Bool => "B",
                Category::Number => "N",
                Category::Text => "S",
                Category::Moment => "D",
                Category::Other | Category::Unknown => "U",
            };
            let preferred = matches!(
                ty,
                Type::Bool | Type::Float8 | Type::Oid | Type::Text | Type::Timestamptz
            );
            let collation = if ty.category() == Category::Text { 100 } else { 0 };
            vec![
                Value::Int(i64::from(ty.oid())),
                text(ty.catalog_name()),
                Value::Int(CATALOG_OID),
                Value::Int(user_oid(0)),
                Value::Int(i64::from(ty.length())),
                Value::Bool((1..=8).contains(&ty.length())),
                text("b"),
                text(category),
                Value::Bool(preferred),
                YES,
                text(","),
                ZERO,
                ZERO,
                ZERO,
                NO,
                ZERO,
                Value::Int(-1),
                Value::Int(collation),
                Value::Null,
                Value::text(format!("{}in", ty.catalog_name())),
            ]
        })
        .collect()
}

/// The number of a column's default.
pub(super) fn default_oid(table: &TableDef, position: usize) -> i64 {
    table_oid(table) * 2048 + position as i64
}

fn defaults(catalog: &Catalog) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for (position, column) in table.shown_columns() {
            let Some(default) = column.default.as_ref().or(column.generated.as_ref()) else {
                continue;
            };
            rows.push(vec![
                Value::Int(default_oid(table, position)),
                Value::Int(table_oid(table)),
                Value::Int(position as i64 + 1),
                text(default),
            ]);
        }
    }
    Ok(rows)
}

fn tables(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let owner = super::user_name(env, user_oid(0))?;
    Ok(env
        .catalog()
        .tables()
        .map(|table| {
            let indexed = Value::Bool(!table.indexes.is_empty());
            vec![
                text(&table.schema),
                text(&table.name),
                text(&owner),
                Value::Null,
                indexed,
                NO,
                NO,
                NO,
            ]
        })
        .collect())
}

fn index_list(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for table in env.catalog().tables() {
        for index in &table.indexes {
            rows.push(vec![
                text(&table.schema),
                text(&table.name),
                text(&index.name),
                Value::Null,
                super::index_definition(env, index_oid(index), 0)?,
            ]);
        }
    }
    Ok(rows)
}
