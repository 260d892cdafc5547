//! Definitions that others make, or that are undone, while a session has plans and blocks on them.

use super::wire::{
    Wire, batch, copied, field, parse, query, rows, runtime, sync, tags, with_table,
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
            [("begin", "rollback"), ("begin; savepoint s", "rollback to s; commit")]
        {
            wire.query(before).await;
            wire.query("create table a (x text)").await;
            wire.send(&[parse("i", "insert into a values ('hello')"), sync()].concat()).await;
            wire.until_ready().await;
            wire.query(undo).await;
            // It has the number that the other had.
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
