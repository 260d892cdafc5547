//! Definitions that others make, or that are undone, while a session has plans and blocks on them.

use super::wire::{
    Wire, batch, bind_portal, cells, copied, fetch, field, parse, query, rows, runtime, status,
    sync, tags, with_table,
};
use crate::pg::testing::MemoryDatabase;

#[test]
fn a_block_finds_what_others_have_defined_meanwhile() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut wire, mut other) = (with_table(&database).await, Wire::open(&database).await);
        for begin in ["begin", "begin isolation level repeatable read"] {
            wire.query(begin).await;
            wire.query("select v from t").await;
            other.query("create table p (id int); alter table t add w int default 5").await;
            assert_eq!(tags(&wire.query("select id from p").await), "TCZ", "{begin}");
            other.query("create table c (id int)").await;
            wire.begin_copy("copy c from stdin").await;
            wire.send(&copied(&["1\n"])).await;
            assert_eq!(tags(&wire.until_ready().await), "CZ", "{begin}");
            let seen = wire.query("select w from t where id = 1").await;
            assert_eq!((rows(&seen), field(&seen, 'C')), (vec!["5".to_owned()], None), "{begin}");
            wire.query("commit").await;
            other.query("drop table p; drop table c; alter table t drop w").await;
        }
    });
}

#[test]
fn a_plan_on_definitions_that_were_undone_is_made_anew() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = Wire::open(&database).await;
        for (before, undo) in
            [("begin", "rollback"), ("begin; select 1; savepoint s", "rollback to s; commit")]
        {
            wire.query(before).await;
            wire.query("create table a (x text)").await;
            wire.send(&[parse("i", "insert into a values ('hello')"), sync()].concat()).await;
            wire.until_ready().await;
            wire.query(undo).await;
            wire.query("create table b (x int)").await;
            wire.send(&batch("i", &[])).await;
            let gone = wire.until_ready().await;
            assert_eq!(field(&gone, 'C').as_deref(), Some("42P01"), "{undo}");
            assert_eq!(rows(&wire.query("select x from b").await), [""; 0]);
            wire.query("drop table b; deallocate i").await;
        }
    });
}

#[test]
fn a_user_is_made_after_a_definition_that_was_in_the_way() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut holder, mut maker) = (Wire::open(&database).await, Wire::open(&database).await);
        holder.query("begin; create table a (x int)").await;
        maker.send(&query("create user u")).await;
        assert!(maker.is_silent().await);
        holder.query("commit").await;
        assert_eq!(tags(&maker.until_ready().await), "CZ");
    });
}

#[test]
fn a_plan_that_is_made_anew_reads_its_parameters_as_before() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = Wire::open(&database).await;
        wire.query("create table t (x text)").await;
        wire.query("prepare i as insert into t values ($1)").await;
        wire.send(&[parse("j", "insert into t values ($1)"), sync()].concat()).await;
        wire.until_ready().await;
        wire.query("drop table t; create table t (x int)").await;
        let refused = wire.query("execute i('7')").await;
        assert_eq!(field(&refused, 'C').as_deref(), Some("42804"), "text for an integer");
        wire.send(&batch("j", &["7"])).await;
        assert_eq!(field(&wire.until_ready().await, 'C').as_deref(), Some("42804"));
        assert_eq!(rows(&wire.query("select x from t").await), [""; 0]);
        wire.query("drop table t; create table t (x varchar(3))").await;
        assert_eq!(tags(&wire.query("execute i('7')").await), "CZ");
        wire.send(&batch("j", &["8"])).await;
        assert_eq!(tags(&wire.until_ready().await), "2nCZ");
        assert_eq!(rows(&wire.query("select x from t").await), ["7", "8"]);
    });
}

#[test]
fn a_statement_behind_a_change_of_its_table_shows_the_new_columns() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut wire, mut other) = (with_table(&database).await, Wire::open(&database).await);
        let text = "update t set v = 1 where id = 1 returning *";
        other.query(&format!("prepare u as {text}")).await;
        for column in ["w", "x"] {
            wire.query(&format!("begin; alter table t add {column} int default 5")).await;
            other.send(&query(text)).await;
            assert!(other.is_silent().await);
            wire.query("commit").await;
            let changed = other.until_ready().await;
            assert_eq!(tags(&changed), "TDCZ");
            assert_eq!(cells(&changed).concat().last().map(String::as_str), Some("5"), "{column}");
        }
        // These columns have been told, perhaps.
        assert_eq!(field(&other.query("execute u").await, 'C').as_deref(), Some("0A000"));
    });
}

#[test]
fn what_was_undone_leaves_nothing_to_the_next_sequence() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = Wire::open(&database).await;
        wire.query("begin; create sequence a; select nextval('a'); rollback").await;
        wire.query("create sequence b").await;
        for ask in ["select currval('b')", "select lastval()"] {
            assert_eq!(field(&wire.query(ask).await, 'C').as_deref(), Some("55000"), "{ask}");
        }
        wire.query("begin; create sequence c; prepare p as select $1::int8").await;
        assert_eq!(rows(&wire.query("execute p(nextval('c'))").await), ["1"], "its own sequence");
    });
}

#[test]
fn an_argument_of_execute_is_as_random_as_any_expression() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = Wire::open(&database).await;
        wire.query("prepare p as select $1::text").await;
        for call in ["gen_random_uuid()::text", "random()::text"] {
            let ask = format!("execute p({call})");
            let given = [rows(&wire.query(&ask).await), rows(&wire.query(&ask).await)];
            assert!(given[0].len() == 1 && given[0] != given[1], "{given:?}");
        }
    });
}

#[test]
fn an_argument_of_execute_waits_for_its_sequence() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut wire, mut other) = (with_table(&database).await, Wire::open(&database).await);
        wire.query("create sequence s").await;
        other.query("prepare p as select $1::int8").await;
        wire.query("begin; alter sequence s restart 50").await;
        other.send(&query("execute p(nextval('s') + 1)")).await;
        assert!(other.is_silent().await);
        wire.query("commit").await;
        assert_eq!(rows(&other.until_ready().await), ["51"]);
        let refused = other.query("execute p((select v from t where id = 1))").await;
        assert_eq!(field(&refused, 'C').as_deref(), Some("0A000"));
    });
}

#[test]
fn a_portal_ends_with_the_savepoint_that_it_was_made_in() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let bound = |portal: &str| bind_portal(portal, "s");
        let open = |portal: &str| [bound(portal), fetch(portal)].concat();
        wire.send(&[parse("s", "select id from t order by id"), sync()].concat()).await;
        wire.until_ready().await;
        wire.query("begin").await;
        wire.send(&[bound("bound"), open("before"), sync()].concat()).await;
        assert_eq!(rows(&wire.until_ready().await), ["1"]);
        wire.query("savepoint a").await;
        wire.send(&[open("released"), sync()].concat()).await;
        wire.until_ready().await;
        wire.query("savepoint b").await;
        wire.send(&[open("inner"), sync()].concat()).await;
        wire.until_ready().await;
        assert_eq!(status(&wire.query("select 1 / 0").await), Some('E'));
        wire.query("rollback to b; savepoint c; release a; savepoint d").await;
        wire.send(&[open("undone"), fetch("bound"), sync()].concat()).await;
        wire.until_ready().await;
        wire.query("rollback to d").await;
        for (portal, tags_then) in [
            ("before", "DsZ"),
            ("released", "DsZ"),
            ("inner", "EZ"),
            ("undone", "EZ"),
            // Its rows may have been of the savepoint.
            ("bound", "EZ"),
        ] {
            wire.query("savepoint e").await;
            wire.send(&[fetch(portal), sync()].concat()).await;
            let answer = wire.until_ready().await;
            assert_eq!(tags(&answer), tags_then, "{portal}: {answer:?}");
            wire.query("rollback to e").await;
        }
    });
}
