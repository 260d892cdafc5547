//! What statements wait for beside acknowledgements: locks, the log, and what takes long by itself. All of
//! it ends by time, by a cancel request and with the session.

use super::wire::{
    Wire, batch, field, parse, query, rows, runtime, status, sync, tags, with_table,
};
use crate::pg::{Database, testing::MemoryDatabase};
use understudy_store::Isolation;

#[test]
fn a_session_of_a_demoted_member_that_waits_for_a_lock_is_told_and_ended() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut waiter = with_table(&database).await;
        // No session's, for that would be ended too, and the lock with it.
        let mut holder = database.store().begin(Isolation::ReadCommitted);
        let table = holder.catalog().tables().find(|table| table.name == "t").unwrap().id;
        database.store().take(&mut holder, table).unwrap();
        waiter.send(&query("update t set v = 0 where id = 1 returning v")).await;
        assert!(waiter.is_silent().await);
        database.demote("orders-2");
        assert_eq!(field(&waiter.until_ready().await, 'C').as_deref(), Some("57P01"));
        waiter.session.await.unwrap();
    });
}

#[test]
fn a_lock_wait_ends_with_the_holder() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut holder = with_table(&database).await;
        let mut waiter = Wire::open(&database).await;
        holder.query("begin; update t set v = 11 where id = 1").await;
        waiter.send(&query("update t set v = v + 1 where id = 1 returning v")).await;
        assert!(waiter.is_silent().await);
        holder.query("commit").await;
        assert_eq!(rows(&waiter.until_ready().await), ["12"]);
    });
}

#[test]
fn what_is_answered_leaves_before_what_waits_behind_it() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut holder, mut wire) = (with_table(&database).await, Wire::open(&database).await);
        let known = [
            parse("r", "select v from t where id = 1"),
            parse("u", "update t set v = v + 1 where id = $1 returning v"),
            parse("s", "select pg_sleep(1000)"),
        ];
        wire.send(&[known.concat(), sync()].concat()).await;
        wire.until_ready().await;
        // A lock.
        holder.query("begin; update t set v = 11 where id = 1").await;
        wire.send(&[batch("r", &[]), query("select 1"), batch("u", &["1"])].concat()).await;
        assert_eq!(rows(&wire.until_ready().await), ["10"]);
        assert_eq!(rows(&wire.until_ready().await), ["1"]);
        assert!(wire.is_silent().await);
        holder.query("commit").await;
        let waited = wire.until_ready().await;
        assert_eq!((tags(&waited).as_str(), rows(&waited)), ("2TDCZ", vec!["12".to_owned()]));
        // A thread of its own.
        wire.send(&[batch("r", &[]), batch("s", &[])].concat()).await;
        assert_eq!(rows(&wire.until_ready().await), ["12"]);
        wire.cancel(&database);
        assert_eq!(field(&wire.until_ready().await, 'C').as_deref(), Some("57014"));
        // The log.
        database.set_behind(true);
        wire.send(&[batch("r", &[]), batch("u", &["2"])].concat()).await;
        assert_eq!(rows(&wire.until_ready().await), ["12"]);
        assert!(wire.is_silent().await);
        database.set_behind(false);
        assert_eq!(rows(&wire.until_ready().await), ["21"]);
        // An own commit; what is read behind it is held with it.
        database.hold_back();
        wire.send(&[batch("r", &[]), batch("u", &["2"]), batch("r", &[])].concat()).await;
        assert_eq!(rows(&wire.until_ready().await), ["12"]);
        assert!(wire.is_silent().await);
        database.acknowledge();
        assert_eq!(rows(&wire.until_ready().await), ["22"]);
        assert_eq!(rows(&wire.until_ready().await), ["12"]);
    });
}

#[test]
fn lock_waits_end_by_timeout_cancel_and_deadlock() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut holder = with_table(&database).await;
        let mut waiter = Wire::open(&database).await;
        holder.query("begin; update t set v = 11 where id = 1").await;
        waiter.query("set lock_timeout = '20ms'").await;
        let late = waiter.query("update t set v = 0 where id = 1").await;
        assert_eq!(field(&late, 'C').as_deref(), Some("55P03"));
        waiter.query("set lock_timeout = 0; set statement_timeout = '20ms'").await;
        let late = waiter.query("update t set v = 0 where id = 1").await;
        assert_eq!(field(&late, 'C').as_deref(), Some("57014"));
        waiter.query("reset statement_timeout").await;
        waiter.send(&query("update t set v = 0 where id = 1")).await;
        assert!(waiter.is_silent().await);
        waiter.cancel(&database);
        assert_eq!(field(&waiter.until_ready().await, 'C').as_deref(), Some("57014"));
        waiter.query("begin; update t set v = 0 where id = 2").await;
        waiter.send(&query("update t set v = 0 where id = 1")).await;
        assert!(waiter.is_silent().await);
        let victim = holder.query("update t set v = 0 where id = 2").await;
        assert_eq!(field(&victim, 'C').as_deref(), Some("40P01"));
        assert_eq!(tags(&waiter.until_ready().await), "CZ", "the other goes on");
    });
}

#[test]
fn a_commit_waits_for_a_log_that_is_behind_and_a_read_does_not() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut reader, mut wire) = (with_table(&database).await, Wire::open(&database).await);
        let known = [parse("u", "update t set v = v + 1 where id = 1"), parse("c", "commit")];
        wire.send(&[known.concat(), sync()].concat()).await;
        wire.until_ready().await;
        let ways = [
            ("select 1", query("update t set v = v + 1 where id = 1")),
            ("select 1", batch("u", &[])),
            ("begin; update t set v = v + 1 where id = 1", query("commit")),
            ("begin; update t set v = v + 1 where id = 1", batch("c", &[])),
        ];
        for (number, (before, commit)) in ways.into_iter().enumerate() {
            wire.query(before).await;
            database.set_behind(true);
            wire.send(&commit).await;
            assert!(wire.is_silent().await, "way {number} added to the log");
            let seen = rows(&reader.query("select v from t where id = 1").await);
            assert_eq!(seen, [(10 + number).to_string()]);
            database.set_behind(false);
            let done = wire.until_ready().await;
            assert_eq!((field(&done, 'C'), status(&done)), (None, Some('I')), "way {number}");
        }
        database.set_behind(true);
        wire.send(&query("update t set v = 0 where id = 1")).await;
        assert!(wire.is_silent().await);
        wire.cancel(&database);
        assert_eq!(field(&wire.until_ready().await, 'C').as_deref(), Some("57014"));
        assert_eq!(rows(&reader.query("select v from t where id = 1").await), ["14"]);
    });
}

#[test]
fn what_takes_long_beside_queries_ends_in_time_too() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        wire.query("insert into t select g, g from generate_series(10, 400000) g").await;
        database.stall_checkpoints();
        wire.query("set statement_timeout = '1ms'").await;
        let long = [
            "create index by_v on t (v)",
            "alter table t add check (length(repeat('x', 2000 + v % 2)) > 0)",
            "alter table t add foreign key (v) references t",
            "truncate t",
            "call ttCkpt()",
        ];
        for statement in long {
            let late = wire.query(statement).await;
            assert_eq!(field(&late, 'C').as_deref(), Some("57014"), "{statement}: {late:?}");
        }
        wire.query("reset statement_timeout").await;
        assert_eq!(rows(&wire.query("select count(*) from t").await), ["399993"]);
        let left = "select count(*) from pg_constraint where conrelid = 't'::regclass";
        assert_eq!(rows(&wire.query(left).await), ["1"], "the primary key alone");
    });
}
