//! Functions about the session, the database and the catalog.

use super::{Function, float, int, text};
use crate::{
    array,
    error::SqlError,
    eval::Env,
    system::{self, Extent},
    types::{
        self, Type,
        Type::{Bool, Float8, Int4, Int8, Name, Oid, Text, Timestamptz, Unknown},
    },
};
use std::time::Duration;
use understudy_store::Value;

type Answer = Result<Value, SqlError>;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("version", &[], Text, |_, env| {
        Ok(Value::text(env.run.context.session.version.as_str()))
    }),
    Function::new("current_database", &[], Name, |_, env| {
        Ok(Value::text(env.run.context.session.database.as_str()))
    }),
    Function::new("current_catalog", &[], Name, |_, env| {
        Ok(Value::text(env.run.context.session.database.as_str()))
    }),
    Function::new("current_user", &[], Name, user),
    Function::new("session_user", &[], Name, user),
    Function::new("user", &[], Name, user),
    Function::new("current_role", &[], Name, user),
    Function::new("current_schema", &[], Name, |_, _| Ok(Value::text("public"))),
    Function::new("current_schemas", &[Bool], Text, |_, _| Ok(Value::text("{public}"))),
    Function::new("pg_backend_pid", &[], Int4, |_, env| {
        Ok(Value::Int(i64::from(env.run.context.session.backend_pid)))
    }),
    Function::new("pg_is_in_recovery", &[], Bool, |_, env| {
        Ok(Value::Bool(env.run.context.session.in_recovery))
    }),
    Function::new("pg_postmaster_start_time", &[], Timestamptz, |_, env| {
        Ok(Value::Timestamptz(env.run.context.session.started_micros))
    }),
    Function::new("current_setting", &[Text], Text, |v, env| setting(text(v, 0), env)),
    Function::new("current_setting", &[Text, Bool], Text, |v, env| {
        setting(text(v, 0), env)
            .or_else(|error| if v[1] == Value::Bool(true) { Ok(Value::Null) } else { Err(error) })
    }),
    Function::new("pg_sleep", &[Float8], Text, |v, env| sleep(float(v, 0), env)).volatile(),
    Function::new("pg_client_encoding", &[], Name, |_, _| Ok(Value::text("UTF8"))),
    Function::new("pg_encoding_to_char", &[Int4], Name, |_, _| Ok(Value::text("UTF8"))),
    Function::new("pg_typeof", &[Unknown], Text, |_, _| {
        Err(SqlError::internal("pg_typeof was not bound"))
    }),
    Function::new("format_type", &[Oid, Int4], Text, format_type).taking_nulls(),
    Function::new("regclassout", &[Oid], Text, |v, env| system::relation_text(env, int(v, 0))),
    // No table is a partition, so none has ancestors.
    Function::new("pg_partition_ancestors", &[Oid], Oid, |_, _| Ok(Value::Null)),
    Function::new("pg_get_userbyid", &[Oid], Name, |v, env| {
        Ok(Value::text(system::user_name(env, int(v, 0))?))
    }),
    Function::new("pg_table_is_visible", &[Oid], Bool, |_, _| Ok(Value::Bool(true))),
    Function::new("pg_type_is_visible", &[Oid], Bool, |_, _| Ok(Value::Bool(true))),
    Function::new("pg_function_is_visible", &[Oid], Bool, |_, _| Ok(Value::Bool(true))),
    Function::new("pg_get_indexdef", &[Oid], Text, |v, env| {
        system::index_definition(env, int(v, 0), 0)
    }),
    Function::new("pg_get_indexdef", &[Oid, Int4, Bool], Text, |v, env| {
        system::index_definition(env, int(v, 0), int(v, 1))
    }),
    Function::new("pg_get_constraintdef", &[Oid], Text, |v, env| {
        system::constraint_definition(env, int(v, 0))
    }),
    Function::new("pg_get_constraintdef", &[Oid, Bool], Text, |v, env| {
        system::constraint_definition(env, int(v, 0))
    }),
    Function::new("pg_get_expr", &[Text, Oid], Text, |v, _| Ok(v[0].clone())),
    Function::new("pg_get_expr", &[Text, Oid, Bool], Text, |v, _| Ok(v[0].clone())),
    Function::new("pg_get_triggerdef", &[Oid, Bool], Text, |_, _| Ok(Value::Null)),
    Function::new("pg_get_viewdef", &[Oid], Text, |_, _| Ok(Value::Null)),
    Function::new("pg_get_viewdef", &[Oid, Bool], Text, |_, _| Ok(Value::Null)),
    Function::new("pg_get_statisticsobjdef_columns", &[Oid], Text, |_, _| Ok(Value::Null)),
    Function::new("pg_relation_is_publishable", &[Oid], Bool, |_, _| Ok(Value::Bool(false))),
    Function::new("obj_description", &[Oid, Text], Text, |_, _| Ok(Value::Null)),
    Function::new("col_description", &[Oid, Int4], Text, |_, _| Ok(Value::Null)),
    Function::new("shobj_description", &[Oid, Text], Text, |_, _| Ok(Value::Null)),
    Function::new("pg_tablespace_location", &[Oid], Text, |_, _| Ok(Value::text(""))),
    Function::new("pg_has_role", &[Text, Text], Bool, |_, env| {
        Ok(Value::Bool(env.run.context.session.admin))
    }),
    Function::new("has_table_privilege", &[Oid, Text], Bool, |_, _| Ok(Value::Bool(true))),
    Function::new("has_schema_privilege", &[Unknown, Text], Bool, |_, _| Ok(Value::Bool(true))),
    Function::new("has_database_privilege", &[Unknown, Text], Bool, |_, _| Ok(Value::Bool(true))),
    Function::new("array_item", &[Text, Int4], Text, |v, _| {
        let items = array::parse(text(v, 0))?;
        let item = usize::try_from(int(v, 1) - 1).ok().and_then(|at| items.get(at).cloned());
        Ok(item.flatten().map_or(Value::Null, Value::text))
    }),
    Function::new("array_upper", &[Text, Int4], Int4, |v, _| {
        let count = array::parse(text(v, 0))?.len();
        Ok(if count == 0 || int(v, 1) != 1 { Value::Null } else { Value::Int(count as i64) })
    }),
    Function::new("array_to_string", &[Text, Text], Text, |v, _| {
        let items: Vec<String> = array::parse(text(v, 0))?.into_iter().flatten().collect();
        Ok(Value::text(items.join(text(v, 1))))
    }),
    Function::new("pg_total_relation_size", &[Oid], Int8, |v, env| size(v, env, Extent::Total)),
    Function::new("pg_total_relation_size", &[Text], Int8, |v, env| size(v, env, Extent::Total)),
    Function::new("pg_relation_size", &[Oid], Int8, |v, env| size(v, env, Extent::Own)),
    Function::new("pg_relation_size", &[Text], Int8, |v, env| size(v, env, Extent::Own)),
    Function::new("pg_relation_size", &[Oid, Text], Int8, |v, env| size(v, env, Extent::Own)),
    Function::new("pg_relation_size", &[Text, Text], Int8, |v, env| size(v, env, Extent::Own)),
    Function::new("pg_table_size", &[Oid], Int8, |v, env| size(v, env, Extent::Own)),
    Function::new("pg_table_size", &[Text], Int8, |v, env| size(v, env, Extent::Own)),
    Function::new("pg_indexes_size", &[Oid], Int8, |v, env| size(v, env, Extent::Indexes)),
    Function::new("pg_indexes_size", &[Text], Int8, |v, env| size(v, env, Extent::Indexes)),
    Function::new("pg_blocking_pids", &[Int4], Text, |v, env| {
        let pids = system::blocking_sessions(env, int(v, 0));
        let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
        Ok(Value::text(array::written(pids.iter().map(|pid| Some(pid.as_str())))))
    }),
    Function::new("pg_database_size", &[Unknown], Int8, |_, env| {
        Ok(Value::Int(system::database_bytes(env)))
    }),
    Function::new("pg_size_pretty", &[Int8], Text, |v, _| Ok(Value::text(pretty(int(v, 0))))),
];

fn user(_: &[Value], env: &Env<'_>) -> Answer {
    Ok(Value::text(env.run.context.session.user.as_str()))
}

/// Whoever wants the statement to end waits so long for it.
const WAKES: Duration = Duration::from_millis(10);

/// Waits, and answers nothing, as PostgreSQL's void is shown.
fn sleep(seconds: f64, env: &Env<'_>) -> Answer {
    env.run.may_take_long()?;
    let clock = env.run.context.session.clock;
    let begun = clock.nanos().ok_or_else(|| SqlError::unsupported("pg_sleep without a clock"))?;
    let wanted = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    loop {
        env.run.may_go_on()?;
        let passed = Duration::from_nanos(clock.nanos().unwrap_or(begun).saturating_sub(begun));
        if passed >= wanted {
            return Ok(Value::text(""));
        }
        clock.wait(WAKES.min(wanted.saturating_sub(passed)));
    }
}

fn setting(name: &str, env: &Env<'_>) -> Answer {
    env.run.context.session.show(name).map(Value::text)
}

fn format_type(values: &[Value], _: &Env<'_>) -> Answer {
    let Value::Int(oid) = values[0] else { return Ok(Value::Null) };
    let modifier = match values[1] {
        Value::Int(modifier) => i32::try_from(modifier).unwrap_or(-1),
        _ => -1,
    };
    let ty = u32::try_from(oid).ok().and_then(Type::from_oid);
    Ok(Value::text(ty.map_or_else(|| "???".to_owned(), |ty| types::type_text(ty, modifier))))
}

/// Bytes of a relation; null for a number that nobody has, as in PostgreSQL.
fn size(values: &[Value], env: &Env<'_>, extent: Extent) -> Answer {
    let oid = match &values[0] {
        Value::Int(oid) => *oid,
        _ => system::relation_oid(env, text(values, 0))?,
    };
    // A heap has no other forks here.
    if let Some(Value::Text(fork)) = values.get(1)
        && &**fork != "main"
    {
        return Ok(Value::Int(0));
    }
    Ok(system::relation_bytes(env, oid, extent).map_or(Value::Null, Value::Int))
}

fn pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size.abs() < 10_240 {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1024;
    }
    format!("{size} TB")
}
