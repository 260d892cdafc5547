//! Sequences as clients see them, and what depends on what because of them.

use super::{Columns, View, table_oid, text, user_oid};
use crate::{
    bind::nextval_text,
    error::SqlError,
    eval::Env,
    execute::refused,
    types::{
        self, Type,
        Type::{Bool, CharByte, Int4, Int8, Name, Oid, Text},
    },
};
use std::sync::Arc;
use understudy_store::{Catalog, DataType, SequenceDef, SequenceState, TableDef, Value};

/// Number of `pg_class` among the relations.
const PG_CLASS: i64 = 1000;
/// Number of `pg_attrdef`.
const PG_ATTRDEF: i64 = 1005;

const SEQUENCES: Columns = &[
    ("schemaname", Name),
    ("sequencename", Name),
    ("sequenceowner", Name),
    ("data_type", Text),
    ("start_value", Int8),
    ("min_value", Int8),
    ("max_value", Int8),
    ("increment_by", Int8),
    ("cycle", Bool),
    ("cache_size", Int8),
    ("last_value", Int8),
];

const PG_SEQUENCE: Columns = &[
    ("seqrelid", Oid),
    ("seqtypid", Oid),
    ("seqstart", Int8),
    ("seqincrement", Int8),
    ("seqmax", Int8),
    ("seqmin", Int8),
    ("seqcache", Int8),
    ("seqcycle", Bool),
];

const STANDARD: Columns = &[
    ("sequence_catalog", Name),
    ("sequence_schema", Name),
    ("sequence_name", Name),
    ("data_type", Text),
    ("numeric_precision", Int4),
    ("numeric_precision_radix", Int4),
    ("numeric_scale", Int4),
    ("start_value", Text),
    ("minimum_value", Text),
    ("maximum_value", Text),
    ("increment", Text),
    ("cycle_option", Text),
];

const DEPEND: Columns = &[
    ("classid", Oid),
    ("objid", Oid),
    ("objsubid", Int4),
    ("refclassid", Oid),
    ("refobjid", Oid),
    ("refobjsubid", Int4),
    ("deptype", CharByte),
];

pub(super) static VIEWS: &[View] = &[
    View::catalog("pg_sequence", PG_SEQUENCE, |env| {
        Ok(definitions(env.catalog()).map(|(sequence, def)| numbers(sequence, def)).collect())
    }),
    View::catalog("pg_sequences", SEQUENCES, |env| {
        definitions(env.catalog()).map(|(sequence, def)| shown(sequence, def, env)).collect()
    }),
    View::catalog("pg_depend", DEPEND, |env| Ok(dependencies(env.catalog()))),
    View { schema: "information_schema", name: "sequences", columns: STANDARD, rows: standard },
];

fn definitions(catalog: &Catalog) -> impl Iterator<Item = (&Arc<TableDef>, &SequenceDef)> {
    catalog.sequences().filter_map(|sequence| Some((sequence, sequence.sequence.as_ref()?)))
}

fn numbers(sequence: &TableDef, def: &SequenceDef) -> Vec<Value> {
    vec![
        Value::Int(table_oid(sequence)),
        Value::Int(i64::from(Type::of(def.data_type).oid())),
        Value::Int(def.start),
        Value::Int(def.increment),
        Value::Int(def.max),
        Value::Int(def.min),
        Value::Int(def.cache),
        Value::Bool(def.cycle),
    ]
}

fn shown(sequence: &TableDef, def: &SequenceDef, env: &Env<'_>) -> Result<Vec<Value>, SqlError> {
    Ok(vec![
        text(&sequence.schema),
        text(&sequence.name),
        Value::text(super::user_name(env, user_oid(0))?),
        Value::text(types::type_text(Type::of(def.data_type), -1)),
        Value::Int(def.start),
        Value::Int(def.min),
        Value::Int(def.max),
        Value::Int(def.increment),
        Value::Bool(def.cycle),
        Value::Int(def.cache),
        last_value(sequence, env)?,
    ])
}

fn standard(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let database = &env.run.context.session.database;
    let catalog = env.catalog();
    // Those of identity columns are part of their tables.
    let own = definitions(catalog).filter(|(_, def)| {
        let column = def.owner.and_then(|owner| {
            catalog.table_by_id(owner.table)?.columns.get(usize::from(owner.column))
        });
        column.is_none_or(|column| column.identity.is_none())
    });
    let rows = own.map(|(sequence, def)| {
        let bits = match def.data_type {
            DataType::Int2 => 16,
            DataType::Int4 => 32,
            _ => 64,
        };
        vec![
            text(database),
            text(&sequence.schema),
            text(&sequence.name),
            Value::text(types::type_text(Type::of(def.data_type), -1)),
            Value::Int(bits),
            Value::Int(2),
            Value::Int(0),
            Value::text(def.start.to_string()),
            Value::text(def.min.to_string()),
            Value::text(def.max.to_string()),
            Value::text(def.increment.to_string()),
            text(if def.cycle { "YES" } else { "NO" }),
        ]
    });
    Ok(rows.collect())
}

/// A sequence depends on the column that owns it, a default on the sequence that it names.
fn dependencies(catalog: &Catalog) -> Vec<Vec<Value>> {
    let row = |object: (i64, i64), on: (i64, i64), kind: &str| {
        vec![
            Value::Int(object.0),
            Value::Int(object.1),
            Value::Int(0),
            Value::Int(PG_CLASS),
            Value::Int(on.0),
            Value::Int(on.1),
            text(kind),
        ]
    };
    let mut rows = Vec::new();
    for (sequence, def) in definitions(catalog) {
        let oid = table_oid(sequence);
        let owner = def.owner.and_then(|o| Some((o, catalog.table_by_id(o.table)?)));
        if let Some((owner, table)) = owner {
            let column = table.columns.get(usize::from(owner.column));
            let kind = if column.is_some_and(|c| c.identity.is_some()) { "i" } else { "a" };
            let on = (table_oid(table), i64::from(owner.column) + 1);
            rows.push(row((PG_CLASS, oid), on, kind));
        }
        let call = nextval_text(&sequence.name);
        for table in catalog.tables() {
            for (position, column) in table.columns.iter().enumerate() {
                if column.default.as_ref().is_some_and(|text| text.contains(&call)) {
                    let default = super::relations::default_oid(table, position);
                    rows.push(row((PG_ATTRDEF, default), (oid, 0), "n"));
                }
            }
        }
    }
    rows
}

/// The sequence with a number.
pub(crate) fn find_sequence(catalog: &Catalog, oid: i64) -> Option<&Arc<TableDef>> {
    let sequence = catalog.table_by_id(super::table_of_oid(oid)?)?;
    sequence.sequence.is_some().then_some(sequence)
}

/// The number given last; null before the first.
pub(crate) fn last_value(sequence: &TableDef, env: &Env<'_>) -> Result<Value, SqlError> {
    let state = state(sequence, env)?;
    Ok(if state.is_called { Value::Int(state.last_value) } else { Value::Null })
}

/// The row of SELECT … FROM a sequence.
pub(crate) fn sequence_row(sequence: &TableDef, env: &Env<'_>) -> Result<Vec<Value>, SqlError> {
    let SequenceState { last_value, log_cnt, is_called } = state(sequence, env)?;
    Ok(vec![Value::Int(last_value), Value::Int(log_cnt), Value::Bool(is_called)])
}

fn state(sequence: &TableDef, env: &Env<'_>) -> Result<SequenceState, SqlError> {
    let state = env.run.context.store.sequence_state(env.txn, sequence.id);
    state.map_err(|error| match refused(error) {
        crate::execute::ExecError::Sql(error) => error,
        crate::execute::ExecError::Blocked { .. } | crate::execute::ExecError::Far => {
            SqlError::internal("a read was blocked")
        }
    })
}
