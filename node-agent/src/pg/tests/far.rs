//! Statements whose plans name keys, and that look at many rows for all that: they are begun between other
//! sessions' statements, undone, and executed again where nobody waits behind them.

use super::wire::{
    Wire, batch, copied, field, parse, query, rows, runtime, sync, tags, until_waiting, with_table,
};
use crate::pg::testing::MemoryDatabase;
use std::sync::Arc;

/// Rows of `t` with the key 7 of an index: more than may be looked at in place.
const ROWS: usize = 5_000;

/// A session of a member whose `t` has many rows with the same `v`.
async fn with_many(database: &Arc<MemoryDatabase>) -> Wire {
    let mut wire = with_table(database).await;
    let insert = format!("insert into t select g, 7 from generate_series(101, {}) g", 100 + ROWS);
    for statement in ["create index by_v on t (v)", &insert] {
        assert_eq!(tags(&wire.query(statement).await), "CZ");
    }
    wire
}

async fn knows(wire: &mut Wire, statements: &[(&str, &str)]) {
    for (name, text) in statements {
        wire.send(&[parse(name, text), sync()].concat()).await;
        assert_eq!(tags(&wire.until_ready().await), "1Z", "{text}");
    }
}

#[test]
fn what_went_too_far_has_happened_once() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_many(&database).await;
        let update = "update t set v = v + 1 where v = $1";
        let select = "select id from t where v = $1";
        knows(&mut wire, &[("u", update), ("r", select), ("b", "begin"), ("c", "commit")]).await;
        wire.send(&batch("u", &["7"])).await;
        let updated = ('C', format!("UPDATE {ROWS}\0").into_bytes());
        assert!(wire.until_ready().await.contains(&updated), "alone");
        for statement in [batch("b", &[]), batch("u", &["8"]), batch("c", &[])] {
            wire.send(&statement).await;
            assert_eq!(field(&wire.until_ready().await, 'C'), None, "in a block");
        }
        wire.query("update t set v = v + 1 where v = 9").await;
        wire.send(&batch("r", &["10"])).await;
        assert_eq!(rows(&wire.until_ready().await).len(), ROWS + 1, "with the row that had it");
        let all = "select v, count(*) from t where id > 100 group by v";
        assert_eq!(rows(&wire.query(all).await), ["10"], "three updates, each once");
    });
}

#[test]
fn nobody_waits_behind_it_and_it_is_cancelled() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_many(&database).await;
        let mut other = Wire::open(&database).await;
        // 25 million pairs each.
        let far = "select count(*) from t a, t b where a.v = 7 and b.v = 7 and a.id + b.id > 0";
        knows(&mut wire, &[("f", far)]).await;
        let sub = "(select count(*) from t a, t b where a.id + b.id > 0)";
        let ways = [
            query(far),
            batch("f", &[]),
            query(&format!("insert into t values (50, 5) returning {sub}")),
            query(&format!("update t set v = v where id = 1 returning {sub}")),
            query(&format!("insert into t values (1, 1) on conflict (id) do update set v = {sub}")),
            query(&format!("select max({sub}) from t where id = 1")),
            query(&format!("select id from t where id = 1 order by {sub}")),
            query("select pg_sleep(30)"),
        ];
        for (number, statement) in ways.into_iter().enumerate() {
            wire.send(&statement).await;
            assert_eq!(rows(&other.query("select 1").await), ["1"]);
            assert!(wire.is_silent().await, "way {number} was waited for");
            wire.cancel(&database);
            let ended = wire.until_ready().await;
            assert_eq!(field(&ended, 'C').as_deref(), Some("57014"), "way {number}: {ended:?}");
        }
    });
}

#[test]
fn a_large_transaction_is_undone_and_committed_as_a_small_one_is() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_many(&database).await;
        let (add, sum) = ("update t set v = v + 1", "select sum(v) from t");
        let before = (30 + 7 * ROWS).to_string();
        for undone in [
            format!("begin; {add}; rollback"),
            format!("begin; {add}; select 1 / 0; rollback"),
            format!("begin; {add}; savepoint s; select 1 / 0"),
            format!("{add}; select 1 / 0"),
            format!("begin; savepoint s; {add}; {add}; rollback to s; commit"),
        ] {
            wire.query(&undone).await;
            wire.query("rollback").await;
            let seen = wire.query(&format!("begin; {add}; rollback; {sum}")).await;
            assert_eq!(rows(&seen), [before.as_str()], "{undone}");
        }
        let half = format!("begin; {add}; savepoint s; {add}; rollback to s; {add}; {sum}");
        let twice = (30 + 7 * ROWS + 2 * (ROWS + 2)).to_string();
        assert_eq!(rows(&wire.query(&half).await), [twice.as_str()]);
        database.hold_back();
        wire.send(&query("commit")).await;
        until_waiting(&database, 1).await;
        assert!(wire.is_silent().await, "nothing is acknowledged yet");
        database.acknowledge();
        assert_eq!(tags(&wire.until_ready().await), "CZ");
        assert_eq!(rows(&wire.query(sum).await), [twice.as_str()]);
    });
}

#[test]
fn a_commit_that_commits_nothing_takes_no_large_transaction_along() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_many(&database).await;
        let add = "update t set v = v + 1";
        for (undone, and_then, code) in [
            (format!("begin; {add}; savepoint s; select 1 / 0"), "commit", None),
            (format!("{add}; commit and chain"), "select 1", None),
            ("begin".to_owned(), "select 1 / 0; commit", Some("22012")),
        ] {
            wire.query(&undone).await;
            assert_eq!(field(&wire.query(and_then).await, 'C').as_deref(), code, "{undone}");
            wire.query("rollback").await;
            assert_eq!(tags(&wire.query("insert into t values (60, 0)").await), "CZ");
            let kept = "select sum(v) from t union all select count(*) from t where id = 60";
            let sum = (30 + 7 * ROWS).to_string();
            assert_eq!(rows(&wire.query(kept).await), [sum.as_str(), "1"], "{undone}");
            wire.query("delete from t where id = 60").await;
        }
    });
}

#[test]
fn what_would_sleep_where_others_wait_is_refused() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        wire.query("prepare p (text) as select $1").await;
        let asleep = wire.query("execute p(pg_sleep(30))").await;
        assert_eq!(field(&asleep, 'C').as_deref(), Some("0A000"));
        wire.query("create table z (a int, b text default pg_sleep(30))").await;
        wire.begin_copy("copy z (a) from stdin").await;
        wire.send(&copied(&["1\n"])).await;
        assert_eq!(field(&wire.until_ready().await, 'C').as_deref(), Some("0A000"));
        assert_eq!(rows(&wire.query("select pg_sleep(0.001)").await), [""]);
    });
}

#[test]
fn the_keys_of_a_long_copy_are_checked_by_and_by() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_many(&database).await;
        wire.query("create table c (id int primary key, t int references t)").await;
        for (parents, wanted) in [(ROWS, None), (ROWS + 1, Some("23503"))] {
            wire.query("truncate c").await;
            wire.begin_copy("copy c from stdin").await;
            let lines: String = (101..=100 + parents).map(|id| format!("{id}\t{id}\n")).collect();
            wire.send(&copied(&[&lines])).await;
            let answer = wire.until_ready().await;
            assert_eq!(field(&answer, 'C').as_deref(), wanted, "{answer:?}");
        }
        assert_eq!(rows(&wire.query("select count(*) from c").await), ["0"]);
    });
}

#[test]
fn a_copy_that_checks_its_keys_gives_way_and_is_cancelled() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let mut other = Wire::open(&database).await;
        wire.query("create table c (id int primary key, t int references t)").await;
        wire.begin_copy("copy c from stdin").await;
        let lines: String = (1..=20_000).map(|id| format!("{id}\t1\n")).collect();
        wire.send(&copied(&[&lines])).await;
        assert_eq!(rows(&other.query("select 1").await), ["1"]);
        // Most of the keys are not checked yet.
        wire.cancel(&database);
        let ended = wire.until_ready().await;
        assert_eq!(field(&ended, 'C').as_deref(), Some("57014"), "{ended:?}");
        assert_eq!(rows(&wire.query("select count(*) from c").await), ["0"]);
    });
}
