//! What a statement keeps is temporary memory: one that needs more than there is, is refused with 53200, all
//! else goes on, and what it had is given back. Each case has a size in which the statement fits if the
//! part that the case is about is not counted.

#[path = "session/mod.rs"]
mod session;

use session::Database;
use understudy_store::MemoryLimits;

/// Rows of `t`; a transaction that changes them all remembers 129 KB of operations.
const ROWS: usize = 3000;

fn database() -> Database {
    let mut database = Database::new();
    goes(&mut database, "create table t (k int primary key, n int, v text)");
    goes(&mut database, "create table c (k int, n int, v text)");
    goes(&mut database, "create table d (k int primary key)");
    goes(&mut database, "create table one (k int primary key, n int)");
    goes(&mut database, "insert into one values (1, 0)");
    let sql = format!(
        "insert into t select i, i % 10, repeat('x', 92) || (10000000 + i)
         from generate_series(1, {ROWS}) as g (i)"
    );
    goes(&mut database, &sql);
    database
}

fn limit(database: &Database, temporary_bytes: u64) {
    database.store.set_limits(MemoryLimits { permanent_bytes: 256 << 20, temporary_bytes });
}

fn goes(database: &mut Database, sql: &str) -> String {
    let shown = database.run("", sql);
    assert!(!shown.contains("ERROR"), "{sql}: {shown}");
    assert_eq!(database.store.memory().temporary_used, 0, "{sql}");
    shown
}

#[track_caller]
fn is_refused(temporary_bytes: u64, sql: &str) {
    let mut database = database();
    limit(&database, temporary_bytes);
    let before = database.run("", "select count(*), sum(n), max(v) from t");
    let shown = database.run("", sql);
    assert!(shown.starts_with("ERROR 53200: out of memory\n"), "{sql}: {shown}");
    assert!(shown.contains("raise memory.temporary"), "{shown}");
    assert_eq!(database.store.memory().temporary_used, 0, "{sql}");
    assert_eq!(database.run("", "select count(*), sum(n), max(v) from t"), before);
    assert_eq!(goes(&mut database, "update t set n = n + 1 where k < 4"), "UPDATE 3\n");
    // With room enough it is what it was.
    limit(&database, 64 << 20);
    goes(&mut database, sql);
}

#[test]
fn the_rows_of_an_update_are_charged() {
    is_refused(150_000, "update t set n = n + 1");
    is_refused(150_000, "update t set n = n + 1 where k > 0 returning k");
}

#[test]
fn assignments_that_are_computed_at_once_are_charged() {
    is_refused(150_000, "update t set n = (select max(n) from one)");
    is_refused(750_000, "update t set v = v || (select 'y')");
}

#[test]
fn the_tuples_of_an_update_from_other_tables_are_charged() {
    is_refused(150_000, "update t set n = one.n from one");
    is_refused(150_000, "delete from t using one where t.k >= one.k");
}

#[test]
fn the_list_of_a_delete_is_charged_and_is_short() {
    is_refused(150_000, "delete from t where k > 0");
    is_refused(150_000, "delete from t returning k");
    // The operations that the transaction remembers, and eight bytes a row.
    let mut database = database();
    limit(&database, 165_000);
    assert_eq!(goes(&mut database, "delete from t"), format!("DELETE {ROWS}\n"));
}

#[test]
fn a_refused_delete_is_done_by_ranges_of_keys() {
    let mut database = database();
    limit(&database, 80_000);
    for from in (0..ROWS).step_by(1000) {
        let sql = format!("delete from t where k > {from} and k <= {}", from + 1000);
        assert_eq!(goes(&mut database, &sql), "DELETE 1000\n");
    }
}

#[test]
fn the_rows_of_a_locking_read_are_charged_until_all_are_locked() {
    is_refused(950_000, "select * from t for update");
}

#[test]
fn the_rows_of_insert_select_are_charged() {
    is_refused(150_000, "insert into c select k, n, v from t");
    is_refused(150_000, "insert into c select k, n, v from t returning k");
    // Those that ON CONFLICT must not meet twice.
    is_refused(280_000, "insert into d select k from t on conflict (k) do nothing");
}

#[test]
fn rows_that_a_definition_computes_anew_are_charged() {
    is_refused(280_000, "create index on t (upper(v))");
    is_refused(280_000, "alter table t add column s serial");
}

#[test]
fn rows_of_a_subquery_are_charged() {
    is_refused(150_000, "select count(*) from one where k in (select k from t)");
    is_refused(
        150_000,
        "select k from one where n < (select count(*) from t where v <> all (select v from t))",
    );
    is_refused(150_000, "select array(select v from t)");
    is_refused(700_000, "select length(array(select v from t))");
}

#[test]
fn what_an_aggregate_gathers_is_charged() {
    is_refused(150_000, "select length(string_agg(v, ',')) from t");
    is_refused(700_000, "select length(string_agg(v, ',')) from t");
    is_refused(150_000, "select count(distinct k) from t");
    is_refused(450_000, "select k, max(v) from t group by k");
}

#[test]
fn the_keys_of_a_hash_join_are_charged() {
    is_refused(1_000_000, "select count(*) from t a join t b on a.v || 'x' = b.v || 'x'");
}

#[test]
fn the_items_of_an_array_are_charged() {
    let items = vec!["1"; 5000].join(",");
    is_refused(150_000, &format!("select count(*) from unnest('{{{items}}}'::int[]) as u (i)"));
}

#[test]
fn what_is_kept_at_the_same_time_is_charged_together() {
    let sql =
        "select count(*) from (select v from t order by v) as s where v not in (select v from t)";
    is_refused(1_500_000, sql);
}

#[test]
fn few_rows_are_not_charged() {
    let mut database = database();
    limit(&database, 0);
    goes(&mut database, "update t set n = n + 1 where k < 20");
    goes(&mut database, "delete from t where k < 10");
    goes(&mut database, "insert into c select k, n, v from t where k < 20");
    goes(
        &mut database,
        "select n, count(*), string_agg(v, ',') from t where k < 15 group by n order by 1",
    );
}
