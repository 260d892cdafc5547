//! Statistics views: what was counted of tables, indexes and transactions.
//!
//! Columns for what does not exist here (blocks, hot updates, vacuums) hold null or zero, as PostgreSQL
//! shows them where nothing was counted. Counts begin with the process.

use super::{Columns, View, index_oid, table_oid, text};
use crate::{
    error::SqlError,
    eval::Env,
    types::Type::{Float8, Int4, Int8, Name, Oid, Timestamptz},
};
use understudy_store::{TableCounts, TableDef, Value};

const TABLES: Columns = &[
    ("relid", Oid),
    ("schemaname", Name),
    ("relname", Name),
    ("seq_scan", Int8),
    ("seq_tup_read", Int8),
    ("idx_scan", Int8),
    ("idx_tup_fetch", Int8),
    ("n_tup_ins", Int8),
    ("n_tup_upd", Int8),
    ("n_tup_del", Int8),
    ("n_tup_hot_upd", Int8),
    ("n_live_tup", Int8),
    ("n_dead_tup", Int8),
    ("n_mod_since_analyze", Int8),
    ("n_ins_since_vacuum", Int8),
    ("last_vacuum", Timestamptz),
    ("last_autovacuum", Timestamptz),
    ("last_analyze", Timestamptz),
    ("last_autoanalyze", Timestamptz),
    ("vacuum_count", Int8),
    ("autovacuum_count", Int8),
    ("analyze_count", Int8),
    ("autoanalyze_count", Int8),
];

const INDEXES: Columns = &[
    ("relid", Oid),
    ("indexrelid", Oid),
    ("schemaname", Name),
    ("relname", Name),
    ("indexrelname", Name),
    ("idx_scan", Int8),
    ("idx_tup_read", Int8),
    ("idx_tup_fetch", Int8),
];

const DATABASE: Columns = &[
    ("datid", Oid),
    ("datname", Name),
    ("numbackends", Int4),
    ("xact_commit", Int8),
    ("xact_rollback", Int8),
    ("blks_read", Int8),
    ("blks_hit", Int8),
    ("tup_returned", Int8),
    ("tup_fetched", Int8),
    ("tup_inserted", Int8),
    ("tup_updated", Int8),
    ("tup_deleted", Int8),
    ("conflicts", Int8),
    ("temp_files", Int8),
    ("temp_bytes", Int8),
    ("deadlocks", Int8),
    ("blk_read_time", Float8),
    ("blk_write_time", Float8),
    ("stats_reset", Timestamptz),
];

pub(super) static VIEWS: &[View] = &[
    View::catalog("pg_stat_user_tables", TABLES, tables),
    View::catalog("pg_stat_all_tables", TABLES, tables),
    View::catalog("pg_stat_user_indexes", INDEXES, indexes),
    View::catalog("pg_stat_all_indexes", INDEXES, indexes),
    View::catalog("pg_stat_database", DATABASE, |env| Ok(vec![database(env)])),
];

/// Tables of the catalog with their counts; a table that was made a moment ago may have none.
fn counted<'a>(env: &Env<'a>) -> Result<Vec<(&'a TableDef, TableCounts)>, SqlError> {
    let mut counts = env.run.context.store.counts();
    let with_counts = |table: &'a std::sync::Arc<TableDef>| {
        let at = counts.iter().position(|counts| counts.table == table.id)?;
        Some((&**table, counts.swap_remove(at)))
    };
    Ok(env.catalog().tables().filter_map(with_counts).collect())
}

fn number(count: u64) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn tables(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    Ok(counted(env)?.iter().map(|(table, counts)| table_row(table, counts)).collect())
}

fn table_row(table: &TableDef, counts: &TableCounts) -> Vec<Value> {
    let by_index = counts.index_scans.iter().map(|(_, scans)| scans).sum();
    let mut row = vec![
        Value::Int(table_oid(table)),
        text(&table.schema),
        text(&table.name),
        number(counts.scans),
        Value::Null,
        if table.indexes.is_empty() { Value::Null } else { number(by_index) },
        Value::Null,
        number(counts.inserted),
        number(counts.updated),
        number(counts.deleted),
        Value::Int(0),
        number(counts.live_rows),
        number(counts.dead_versions),
        Value::Int(0),
        Value::Int(0),
    ];
    row.extend(std::iter::repeat_n(Value::Null, 4));
    row.extend(std::iter::repeat_n(Value::Int(0), 4));
    row
}

fn indexes(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for (table, counts) in counted(env)? {
        for index in &table.indexes {
            let found = counts.index_scans.iter().find(|(id, _)| *id == index.id);
            rows.push(vec![
                Value::Int(table_oid(table)),
                Value::Int(index_oid(index)),
                text(&table.schema),
                text(&table.name),
                text(&index.name),
                number(found.map_or(0, |(_, scans)| *scans)),
                Value::Null,
                Value::Null,
            ]);
        }
    }
    Ok(rows)
}

fn database(env: &Env<'_>) -> Vec<Value> {
    let session = env.run.context.session;
    let ended = session.sessions.ended();
    let counts = env.run.context.store.counts();
    let sum = |of: fn(&TableCounts) -> u64| number(counts.iter().map(of).sum());
    vec![
        Value::Int(5),
        text(&session.database),
        number(session.sessions.list().len() as u64),
        number(ended.committed),
        number(ended.rolled_back),
        Value::Int(0),
        Value::Int(0),
        Value::Null,
        Value::Null,
        sum(|counts| counts.inserted),
        sum(|counts| counts.updated),
        sum(|counts| counts.deleted),
        Value::Int(0),
        Value::Int(0),
        Value::Int(0),
        number(ended.deadlocks),
        Value::Float(0.0),
        Value::Float(0.0),
        Value::Null,
    ]
}
