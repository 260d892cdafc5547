//! Functions of sequences.

use super::{Function, int, text};
use crate::{
    error::{SqlError, state},
    eval::Env,
    names, sequence, system,
    types::Type::{Bool, Int8, Oid, Text},
};
use std::sync::Arc;
use understudy_store::{TableDef, Value};

type Answer = Result<Value, SqlError>;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("nextval", &[Oid], Int8, |v, env| next(&by_oid(v, env)?, env)).volatile(),
    Function::new("nextval", &[Text], Int8, |v, env| next(&by_name(v, env)?, env)).volatile(),
    Function::new("currval", &[Oid], Int8, |v, env| current(&by_oid(v, env)?, env)).volatile(),
    Function::new("currval", &[Text], Int8, |v, env| current(&by_name(v, env)?, env)).volatile(),
    Function::new("lastval", &[], Int8, |_, env| sequence::last(env).map(Value::Int)).volatile(),
    Function::new("setval", &[Oid, Int8], Int8, |v, env| set(&by_oid(v, env)?, v, env)).volatile(),
    Function::new("setval", &[Text, Int8], Int8, |v, env| set(&by_name(v, env)?, v, env))
        .volatile(),
    Function::new("setval", &[Oid, Int8, Bool], Int8, |v, env| set(&by_oid(v, env)?, v, env))
        .volatile(),
    Function::new("setval", &[Text, Int8, Bool], Int8, |v, env| set(&by_name(v, env)?, v, env))
        .volatile(),
    Function::new("pg_get_serial_sequence", &[Text, Text], Text, serial_sequence),
    Function::new("pg_sequence_last_value", &[Oid], Int8, |v, env| {
        let sequence = by_oid(v, env)?;
        system::sequence_last_value(&sequence, env)
    })
    .volatile(),
];

fn next(sequence: &Arc<TableDef>, env: &Env<'_>) -> Answer {
    sequence::check_writes("nextval", env)?;
    sequence::next(sequence, env).map(Value::Int)
}

fn current(sequence: &Arc<TableDef>, env: &Env<'_>) -> Answer {
    sequence::current(sequence, env).map(Value::Int)
}

fn set(sequence: &Arc<TableDef>, values: &[Value], env: &Env<'_>) -> Answer {
    sequence::check_writes("setval", env)?;
    let is_called = values.get(2).is_none_or(|called| *called == Value::Bool(true));
    sequence::set(sequence, (int(values, 1), is_called), env).map(Value::Int)
}

fn by_oid(values: &[Value], env: &Env<'_>) -> Result<Arc<TableDef>, SqlError> {
    find(int(values, 0), env)
}

fn by_name(values: &[Value], env: &Env<'_>) -> Result<Arc<TableDef>, SqlError> {
    let catalog = env.catalog();
    find(system::relation_constant(catalog, text(values, 0))?, env)
}

fn find(oid: i64, env: &Env<'_>) -> Result<Arc<TableDef>, SqlError> {
    let catalog = env.catalog();
    if let Some(sequence) = system::find_sequence(catalog, oid) {
        return Ok(Arc::clone(sequence));
    }
    Err(match system::relation_name(catalog, oid) {
        Some(name) => SqlError::new(state::WRONG_OBJECT, format!("\"{name}\" is not a sequence")),
        None => {
            SqlError::new(state::UNKNOWN_TABLE, format!("could not open relation with OID {oid}"))
        }
    })
}

fn serial_sequence(values: &[Value], env: &Env<'_>) -> Answer {
    let catalog = env.catalog();
    let oid = system::relation_constant(catalog, text(values, 0))?;
    let Some(table) = catalog.tables().find(|table| system::table_oid(table) == oid) else {
        return Ok(Value::Null);
    };
    // The column is taken as it is, in PostgreSQL too.
    let wanted = text(values, 1);
    let Some(column) = table.column_position(wanted) else {
        return Err(SqlError::new(
            state::UNKNOWN_COLUMN,
            format!("column \"{wanted}\" of relation \"{}\" does not exist", table.name),
        ));
    };
    let found = catalog.sequence_of(table.id, column);
    Ok(found.map_or(Value::Null, |sequence| {
        let schema = names::quoted(&sequence.schema);
        Value::text(format!("{schema}.{}", names::quoted(&sequence.name)))
    }))
}
