//! Statistics views: who does what.

use super::{Columns, View, text, user_oid};
use crate::{
    activity::SessionActivity,
    error::SqlError,
    eval::Env,
    types::Type::{Int4, Int8, Name, Oid, Text, Timestamptz},
};
use understudy_store::Value;

const PG_STAT_ACTIVITY: Columns = &[
    ("datid", Oid),
    ("datname", Name),
    ("pid", Int4),
    ("leader_pid", Int4),
    ("usesysid", Oid),
    ("usename", Name),
    ("application_name", Text),
    ("client_addr", Text),
    ("client_hostname", Text),
    ("client_port", Int4),
    ("backend_start", Timestamptz),
    ("xact_start", Timestamptz),
    ("query_start", Timestamptz),
    ("state_change", Timestamptz),
    ("wait_event_type", Text),
    ("wait_event", Text),
    ("state", Text),
    ("backend_xid", Text),
    ("backend_xmin", Text),
    ("query_id", Int8),
    ("query", Text),
    ("backend_type", Text),
];

pub(super) static VIEWS: &[View] = &[View::catalog("pg_stat_activity", PG_STAT_ACTIVITY, activity)];

fn activity(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let sessions = env.run.context.session.sessions.list();
    sessions.iter().map(|session| row(env, session)).collect()
}

/// What others run is for administrators, as in PostgreSQL.
fn row(env: &Env<'_>, session: &SessionActivity) -> Result<Vec<Value>, SqlError> {
    let own = env.run.context.session;
    let position = env.catalog().users().position(|user| user.name == session.user);
    let micros = |at: Option<i64>| at.map_or(Value::Null, Value::Timestamptz);
    let (wait_type, wait) = match session.wait.map(crate::activity::SessionWait::as_strs) {
        Some((wait_type, wait)) => (text(wait_type), text(wait)),
        None => (Value::Null, Value::Null),
    };
    let may_read = own.admin || own.user == session.user;
    let query = if may_read { &*session.text } else { "<insufficient privilege>" };
    Ok(vec![
        Value::Int(5),
        text(&own.database),
        Value::Int(session.pid.into()),
        Value::Null,
        position.map_or(Value::Null, |at| Value::Int(user_oid(at))),
        text(&session.user),
        text(&session.application),
        Value::Null,
        Value::Null,
        Value::Null,
        micros(Some(session.started_micros)),
        micros(session.transaction_micros),
        micros(session.statement_micros),
        micros(Some(session.changed_micros)),
        wait_type,
        wait,
        text(session.state.as_str()),
        Value::Null,
        session.snapshot.map_or(Value::Null, |lsn| text(&lsn.to_string())),
        Value::Null,
        text(query),
        text("client backend"),
    ])
}
