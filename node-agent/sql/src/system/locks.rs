//! Who holds what, and who waits for whom: `pg_locks`, `pg_blocking_pids`, `understudy_transactions`.
//!
//! Row locks are told as in PostgreSQL: a transaction holds its own number exclusively, and who waits for
//! one of its rows wants that number shared. Tables whose rows it changed or locked are held in RowExclusive
//! mode, those whose definition it changes in AccessExclusive mode. Readers lock nothing and are not shown.

use super::{Columns, View, table_oid, text};
use crate::{
    activity::SessionActivity,
    error::SqlError,
    eval::Env,
    types::Type::{Bool, Int2, Int4, Int8, Name, Oid, Text, Timestamptz},
};
use understudy_store::{RunningTxn, TableId, TxnId, Value};

const LOCKS: Columns = &[
    ("locktype", Text),
    ("database", Oid),
    ("relation", Oid),
    ("page", Int4),
    ("tuple", Int2),
    ("virtualxid", Text),
    ("transactionid", Int8),
    ("classid", Oid),
    ("objid", Oid),
    ("objsubid", Int2),
    ("virtualtransaction", Text),
    ("pid", Int4),
    ("mode", Text),
    ("granted", Bool),
    ("fastpath", Bool),
    ("waitstart", Timestamptz),
];

const TRANSACTIONS: Columns = &[
    ("pid", Int4),
    ("usename", Name),
    ("application_name", Text),
    ("state", Text),
    ("isolation", Text),
    ("xact_start", Timestamptz),
    ("transactionid", Int8),
    ("snapshot_lsn", Int8),
    ("depends_lsn", Int8),
    ("operations", Int8),
    ("temporary_bytes", Int8),
    ("waits_for", Int4),
];

pub(super) static VIEWS: &[View] = &[
    View::catalog("pg_locks", LOCKS, locks),
    View::catalog("understudy_transactions", TRANSACTIONS, transactions),
];

/// Sessions whose transaction this one waits for: one at most.
pub(crate) fn blocking_sessions(env: &Env<'_>, pid: i64) -> Vec<i32> {
    let running = env.run.context.store.running();
    let waiting = running.iter().find(|txn| i64::from(txn.session) == pid && pid != 0);
    waiting.and_then(|txn| session_of(&running, txn.waits_for)).into_iter().collect()
}

fn session_of(running: &[RunningTxn], id: TxnId) -> Option<i32> {
    let found = running.iter().find(|txn| txn.id == id && id != TxnId::ENDED);
    found.map(|txn| txn.session)
}

/// One lock of a transaction.
struct Lock {
    on: On,
    mode: &'static str,
    granted: bool,
}

enum On {
    Table(TableId),
    Transaction(TxnId),
}

fn locks(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut running = env.run.context.store.running();
    running.sort_by_key(|txn| txn.id);
    let catalog = env.catalog();
    let mut rows = Vec::new();
    for txn in running.iter().filter(|txn| txn.id != TxnId::ENDED) {
        let (id, on) = (txn.id, On::Transaction);
        let mut held = vec![Lock { on: on(id), mode: "ExclusiveLock", granted: true }];
        if txn.waits_for != TxnId::ENDED {
            held.push(Lock { on: on(txn.waits_for), mode: "ShareLock", granted: false });
        }
        for (tables, mode) in
            [(&txn.tables, "RowExclusiveLock"), (&txn.changing, "AccessExclusiveLock")]
        {
            held.extend(tables.iter().map(|id| Lock { on: On::Table(*id), mode, granted: true }));
        }
        for lock in held {
            let (table, number) = match lock.on {
                On::Table(id) => match catalog.table_by_id(id) {
                    Some(table) => (Value::Int(table_oid(table)), Value::Null),
                    // Made or dropped by a transaction that is not over.
                    None => continue,
                },
                On::Transaction(id) => (Value::Null, number(id.number())),
            };
            rows.push(lock_row(txn, &lock, (table, number)));
        }
    }
    Ok(rows)
}

fn lock_row(txn: &RunningTxn, lock: &Lock, (table, number): (Value, Value)) -> Vec<Value> {
    let is_table = matches!(lock.on, On::Table(_));
    vec![
        text(if is_table { "relation" } else { "transactionid" }),
        if is_table { Value::Int(5) } else { Value::Null },
        table,
        Value::Null,
        Value::Null,
        Value::Null,
        number,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::text(format!("{}/{}", txn.session, txn.id.number())),
        pid(txn.session),
        text(lock.mode),
        Value::Bool(lock.granted),
        Value::Bool(false),
        Value::Null,
    ]
}

fn number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Null for a transaction of the server's own.
fn pid(session: i32) -> Value {
    if session == 0 { Value::Null } else { Value::Int(session.into()) }
}

fn transactions(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut running = env.run.context.store.running();
    running.sort_by_key(|txn| (txn.session, txn.id));
    let sessions = env.run.context.session.sessions.list();
    let rows = running.iter().filter(|txn| txn.session != 0).map(|txn| {
        let session = sessions.iter().find(|session| session.pid == txn.session);
        transaction(&running, txn, session)
    });
    Ok(rows.collect())
}

fn transaction(
    running: &[RunningTxn],
    txn: &RunningTxn,
    session: Option<&SessionActivity>,
) -> Vec<Value> {
    let held = session.map(|session| session.held).unwrap_or_default();
    let of = |shown: &dyn Fn(&SessionActivity) -> Value| session.map_or(Value::Null, shown);
    let lsn = |lsn: u64| if lsn == 0 { Value::Null } else { number(lsn) };
    vec![
        pid(txn.session),
        of(&|session| text(&session.user)),
        of(&|session| text(&session.application)),
        of(&|session| text(session.state.as_str())),
        text(held.isolation.name()),
        of(&|session| session.transaction_micros.map_or(Value::Null, Value::Timestamptz)),
        if txn.id == TxnId::ENDED { Value::Null } else { number(txn.id.number()) },
        txn.snapshot.map_or(Value::Null, |snapshot| number(snapshot.0)),
        lsn(held.depends_lsn),
        number(held.operations),
        number(held.temporary_bytes),
        session_of(running, txn.waits_for).map_or(Value::Null, pid),
    ]
}
