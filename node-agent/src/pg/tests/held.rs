//! Replies that wait for an acknowledgement, and what becomes of them where a client, a time limit or the
//! session's end cuts the wait short.

use super::{
    results::LARGE,
    wire::{
        Reply, Wire, batch, bind, bind_portal, cells, execute, fetch, field, message, parse, query,
        rows, runtime, send_and_hold, status, sync, tags, until_waiting, with_table,
    },
};
use crate::pg::{Database, testing::MemoryDatabase};
use std::sync::Arc;
use understudy_sql::SessionState;

/// Depends on what [`maker`] has pending.
const READ: &str = "select v from t where id = 2 for update";

const LIST: &str = "call ttRepXactInDoubt()";

/// A session that has deleted a row and whose commit is not acknowledged.
async fn maker(database: &Arc<MemoryDatabase>) -> Wire {
    let mut maker = Wire::open(database).await;
    send_and_hold(database, &mut maker, &query("delete from t where id = 2")).await;
    maker
}

/// A session that knows statements: `r` depends on the maker's, `u` commits.
async fn asker(database: &Arc<MemoryDatabase>) -> Wire {
    let mut asker = with_table(database).await;
    let known = [parse("r", READ), parse("u", "update t set v = v + 1 where id = 1")];
    asker.send(&[known.concat(), sync()].concat()).await;
    asker.until_ready().await;
    asker
}

fn code(replies: &[Reply]) -> Option<String> {
    field(replies, 'C')
}

/// The answers to so many Syncs or Queries.
async fn answers<const N: usize>(wire: &mut Wire) -> [Vec<Reply>; N] {
    let mut all = [const { Vec::new() }; N];
    for answer in &mut all {
        *answer = wire.until_ready().await;
    }
    all
}

#[test]
fn a_read_that_waits_for_others_is_cancelled_like_any_statement() {
    runtime().block_on(async {
        for (before, ask, then) in [
            ("select 1", query(READ), 'I'),
            ("select 1", batch("r", &[]), 'I'),
            ("begin", query(READ), 'E'),
            ("begin", batch("r", &[]), 'E'),
        ] {
            let database = MemoryDatabase::active();
            let mut asker = asker(&database).await;
            let maker = maker(&database).await;
            asker.query(before).await;
            asker.send(&ask).await;
            until_waiting(&database, 2).await;
            let listed = cells(&Wire::open(&database).await.query(LIST).await);
            assert_eq!(listed.len(), 1, "a read is no commit in doubt: {listed:?}");
            assert_eq!(listed[0][2], maker.pid.to_string());
            asker.cancel(&database);
            let cut = asker.until_ready().await;
            assert_eq!((code(&cut).as_deref(), status(&cut)), (Some("57014"), Some(then)));
            let listed = cells(&Wire::open(&database).await.query(LIST).await);
            assert_eq!(listed.len(), 1);
        }
    });
}

#[test]
fn a_read_waits_for_others_as_long_as_a_statement_may_take_and_a_commit_longer() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let _maker = maker(&database).await;
        asker.query("set statement_timeout = '20ms'").await;
        for ask in [query(READ), batch("r", &[])] {
            asker.send(&ask).await;
            let late = asker.until_ready().await;
            assert_eq!(code(&late).as_deref(), Some("57014"), "{late:?}");
            assert!(field(&late, 'M').is_some_and(|text| text.ends_with("statement timeout")));
        }
        asker.send(&query("update t set v = 0 where id = 1")).await;
        until_waiting(&database, 2).await;
        // Not a condition: the time is over.
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        assert!(asker.is_silent().await, "a commit cannot be stopped any more");
        database.acknowledge();
        assert_eq!(tags(&asker.until_ready().await), "CZ");
    });
}

#[test]
fn each_answer_of_a_pipeline_says_what_became_of_it() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let _maker = maker(&database).await;
        asker.send(&[batch("r", &[]), batch("u", &[])].concat()).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let [read, written] = answers(&mut asker).await;
        assert_eq!((&*tags(&read), code(&read).as_deref()), ("EZ", Some("57014")));
        assert_eq!((&*tags(&written), code(&written).as_deref()), ("EZ", Some("40003")));
        let listed = cells(&Wire::open(&database).await.query(LIST).await);
        let left: Vec<_> = listed.iter().filter(|row| row[4] == "left").collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0][2], asker.pid.to_string());
    });
}

#[test]
fn a_statement_behind_a_commit_whose_wait_is_cancelled_is_not_done() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let first = parse("", "insert into t values (3, 3) returning repeat('x', 1000)");
        let then = parse("", "insert into t values (4, 4)");
        let both = [first, batch("", &[]), then, batch("", &[])].concat();
        // The second statement waits to see the first.
        send_and_hold(&database, &mut wire, &both).await;
        wire.cancel(&database);
        let [first, then] = answers(&mut wire).await;
        assert_eq!((&*tags(&first), code(&first).as_deref()), ("1EZ", Some("40003")));
        assert_eq!((&*tags(&then), code(&then).as_deref()), ("EZ", Some("57014")));
        database.acknowledge();
        assert_eq!(rows(&wire.query("select id from t where id > 2").await), ["3"]);
    });
}

#[test]
fn a_text_whose_commit_is_not_waited_for_has_an_unknown_outcome() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let text = "begin; insert into t values (3, 3); commit; select v from t where id = 3";
        send_and_hold(&database, &mut wire, &query(text)).await;
        wire.cancel(&database);
        let cut = wire.until_ready().await;
        assert_eq!((&*tags(&cut), code(&cut).as_deref()), ("CCEZ", Some("40003")));
        assert_eq!(status(&cut), Some('I'));
    });
}

#[test]
fn a_batch_that_is_cut_in_two_fails_as_a_whole() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let _maker = maker(&database).await;
        let insert = [parse("", "insert into t values (3, 3)"), bind("", &[]), execute(0)];
        let flush = message(b'H', b"");
        let begun = [insert.concat(), bind("r", &[]), execute(0), flush].concat();
        asker.send(&begun).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let mut cut = Vec::new();
        while cut.last().is_none_or(|(tag, _): &Reply| *tag != 'E') {
            cut.push(asker.next().await.expect("the session goes on"));
        }
        assert_eq!((&*tags(&cut), code(&cut).as_deref()), ("12C2E", Some("57014")));
        let rest = [bind("u", &[]), execute(0), sync()].concat();
        asker.send(&rest).await;
        let end = asker.until_ready().await;
        assert_eq!((&*tags(&end), status(&end)), ("Z", Some('I')), "all up to Sync is skipped");
        database.acknowledge();
        let left = asker.query("select id, v from t").await;
        assert_eq!(cells(&left), [["1", "10"]], "neither insert nor update");
    });
}

#[test]
fn a_copy_behind_a_read_that_waits_is_given_up_with_it() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let _maker = maker(&database).await;
        asker.send(&query(&format!("{READ}; copy t from stdin"))).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let cut = asker.until_ready().await;
        assert_eq!((&*tags(&cut), code(&cut).as_deref()), ("EZ", Some("57014")));
        assert_eq!(rows(&asker.query("select v from t where id = 1").await), ["10"]);
    });
}

#[test]
fn a_copy_behind_an_answer_that_waits_begins_after_it_or_not_at_all() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        asker.send(&[parse("c", "copy t from stdin"), sync()].concat()).await;
        asker.until_ready().await;
        let _maker = maker(&database).await;
        let both = [batch("r", &[]), bind("c", &[]), execute(0), sync()].concat();
        asker.send(&both).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let [read, copy] = answers(&mut asker).await;
        assert_eq!((&*tags(&read), code(&read).as_deref()), ("EZ", Some("57014")));
        assert_eq!((&*tags(&copy), code(&copy).as_deref()), ("EZ", Some("57014")));
        database.acknowledge();
        asker.send(&both).await;
        assert_eq!(tags(&asker.until_ready().await), "2TCZ");
        assert_eq!(
            [asker.next().await, asker.next().await].map(|reply| reply.unwrap().0),
            ['2', 'G']
        );
        asker.send(&[message(b'd', b"3\t3\n"), message(b'c', b""), sync()].concat()).await;
        until_waiting(&database, 1).await;
        database.acknowledge();
        assert_eq!(tags(&asker.until_ready().await), "CZ");
    });
}

#[test]
fn an_error_that_waits_is_taken_back_whole() {
    runtime().block_on(async {
        for columns in ["id", &["'a long name of a column'"; 40].join(", ")] {
            for demotes in [false, true] {
                let database = MemoryDatabase::active();
                let mut asker = with_table(&database).await;
                let mut maker = Wire::open(&database).await;
                let insert = query("insert into t values (7, 70)");
                send_and_hold(&database, &mut maker, &insert).await;
                let again = format!("insert into t values (7, 7) returning {columns}");
                asker.send(&query(&again)).await;
                until_waiting(&database, 2).await;
                if demotes {
                    database.demote("orders-2");
                    let end = asker.until_ready().await;
                    assert_eq!((&*tags(&end), code(&end).as_deref()), ("E", Some("57P01")));
                } else {
                    asker.cancel(&database);
                    let cut = asker.until_ready().await;
                    assert_eq!((&*tags(&cut), code(&cut).as_deref()), ("EZ", Some("57014")));
                    assert_eq!(tags(&asker.query("select 1").await), "TDCZ");
                }
            }
        }
    });
}

#[test]
fn what_is_defined_waits_for_who_defined_it() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = Wire::open(&database).await;
        let mut maker = Wire::open(&database).await;
        send_and_hold(&database, &mut maker, &query("create table p (id int)")).await;
        let described = message(b'D', b"S\0");
        let all = [parse("", "select id from p"), described, sync()].concat();
        asker.send(&all).await;
        until_waiting(&database, 2).await;
        let mut other = Wire::open(&database).await;
        other.send(&[parse("", "select nothing from p"), sync()].concat()).await;
        until_waiting(&database, 3).await;
        assert!(asker.is_silent().await && other.is_silent().await);
        database.acknowledge();
        assert_eq!(tags(&asker.until_ready().await), "1tTZ");
        assert_eq!(code(&other.until_ready().await).as_deref(), Some("42703"));
    });
}

#[test]
fn a_block_waits_for_definitions_too() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = with_table(&database).await;
        asker.query("begin; insert into t values (3, 3)").await;
        let mut maker = Wire::open(&database).await;
        send_and_hold(&database, &mut maker, &query("create table p (id int)")).await;
        asker.send(&query("select nothing from p")).await;
        until_waiting(&database, 2).await;
        assert!(asker.is_silent().await);
        database.acknowledge();
        assert_eq!(code(&asker.until_ready().await).as_deref(), Some("42703"));
    });
}

#[test]
fn a_parse_that_was_cancelled_leaves_no_statement() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = Wire::open(&database).await;
        let mut maker = Wire::open(&database).await;
        send_and_hold(&database, &mut maker, &query("create table p (id int)")).await;
        let known = [parse("p1", "select id from p"), sync()].concat();
        asker.send(&known).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        assert_eq!(code(&asker.until_ready().await).as_deref(), Some("57014"));
        database.acknowledge();
        asker.send(&known).await;
        assert_eq!(tags(&asker.until_ready().await), "1Z");
    });
}

#[test]
fn what_a_cut_answer_told_of_settings_stays() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let _maker = maker(&database).await;
        let set = query("set application_name = 'till'");
        asker.send(&[batch("r", &[]), set].concat()).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let [told, set] = answers(&mut asker).await;
        assert_eq!((&*tags(&told), &*tags(&set)), ("SEZ", "EZ"));
        assert_eq!(told[0].1, b"application_name\0till\0");
        let kept = asker.query("show application_name").await;
        assert_eq!(rows(&kept), ["till"], "what a session keeps stays");
    });
}

#[test]
fn a_block_whose_answer_is_cut_is_shown_as_failed() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        asker.query("begin").await;
        let _maker = maker(&database).await;
        asker.send(&batch("r", &[])).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        asker.until_ready().await;
        let sessions = database.sessions().activity();
        let session = sessions.iter().find(|session| session.pid == asker.pid).unwrap();
        assert_eq!(session.state, SessionState::IdleInFailedTransaction);
        assert_eq!((session.snapshot, session.wait), (None, None), "nothing is held any more");
    });
}

#[test]
fn who_leaves_without_the_answer_leaves_the_commit_in_doubt() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        database.hold_back();
        asker.send(&[batch("u", &[]), message(b'X', b"")].concat()).await;
        asker.session.await.unwrap();
        let listed = cells(&Wire::open(&database).await.query(LIST).await);
        assert_eq!((listed.len(), &*listed[0][4]), (1, "left"));
    });
}

#[test]
fn copy_out_sees_what_its_session_has_committed() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let text = "begin; insert into t values (3, 3); commit; \
            begin isolation level repeatable read; copy t (id) to stdout; commit";
        send_and_hold(&database, &mut wire, &query(text)).await;
        database.acknowledge();
        let told = wire.until_ready().await;
        assert_eq!(told.iter().filter(|(tag, _)| *tag == 'd').count(), 3, "{}", tags(&told));
    });
}

#[test]
fn rows_that_leave_in_pieces_are_cut_with_the_answer_before_them() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let large = format!("{LARGE} where not exists (select 1 from t where id = 1 and v > 10)");
        asker.send(&[parse("l", &large), sync()].concat()).await;
        asker.until_ready().await;
        let _maker = maker(&database).await;
        asker.send(&[batch("r", &[]), batch("l", &[])].concat()).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let [read, large] = answers(&mut asker).await;
        assert_eq!((&*tags(&read), code(&read).as_deref()), ("EZ", Some("57014")));
        assert_eq!((&*tags(&large), code(&large).as_deref()), ("EZ", Some("57014")));
        asker.send(&[batch("r", &[]), batch("l", &[])].concat()).await;
        until_waiting(&database, 2).await;
        database.demote("orders-2");
        let end = asker.until_ready().await;
        assert_eq!((&*tags(&end), code(&end).as_deref()), ("E", Some("57P01")), "the last words");
    });
}

#[test]
fn an_answer_that_was_acknowledged_meanwhile_stays() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let mut locker = Wire::open(&database).await;
        locker.query("begin; update t set v = 0 where id = 1").await;
        let _maker = maker(&database).await;
        asker.send(&[batch("r", &[]), batch("u", &[])].concat()).await;
        assert!(asker.is_silent().await, "one waits for an acknowledgement, the next for a lock");
        database.acknowledge();
        locker.send(&query("commit")).await;
        until_waiting(&database, 2).await;
        asker.cancel(&database);
        let [read, written] = answers(&mut asker).await;
        assert_eq!((&*tags(&read), code(&read)), ("2TCZ", None));
        assert_eq!(code(&written).as_deref(), Some("40003"));
    });
}

#[test]
fn a_session_that_ends_tells_of_its_commit_wherever_it_waits() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        database.hold_back();
        database.stall_checkpoints();
        let commit = query("insert into t values (3, 3)");
        wire.send(&[commit, query("call ttCkpt()")].concat()).await;
        assert!(
            wire.is_silent().await,
            "a commit waits, and behind it a checkpoint that never ends"
        );
        assert_eq!(database.waiting(), 0, "nobody has asked for the commit yet");
        database.demote("orders-2");
        let told = wire.until_ready().await;
        assert_eq!(tags(&told), "EE");
        assert_eq!(code(&told[..1]).as_deref(), Some("40003"));
        assert_eq!(code(&told[1..]).as_deref(), Some("57P01"));
        let mut reader = Wire::open(&database).await;
        let listed = cells(&reader.query(LIST).await);
        assert_eq!((listed.len(), &*listed[0][4]), (1, "left"));
    });
}

#[test]
fn a_session_ends_before_the_next_statement_that_is_there() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        send_and_hold(&database, &mut asker, &batch("u", &[])).await;
        asker.send(&query("select 1")).await;
        database.acknowledge();
        database.demote("orders-2");
        let [done, end] = answers(&mut asker).await;
        assert_eq!((&*tags(&done), code(&done)), ("2nCZ", None));
        assert_eq!((&*tags(&end), code(&end).as_deref()), ("E", Some("57P01")));
    });
}

#[test]
fn a_read_of_a_member_that_is_demoted_has_no_unknown_outcome() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut asker = asker(&database).await;
        let _maker = maker(&database).await;
        asker.send(&query(READ)).await;
        until_waiting(&database, 2).await;
        database.demote("orders-2");
        let told = asker.until_ready().await;
        assert_eq!((&*tags(&told), code(&told).as_deref()), ("E", Some("57P01")));
    });
}

#[test]
fn the_rest_of_a_portal_is_gone_when_the_wait_for_its_begin_is_given_up() {
    runtime().block_on(async {
        for (behind, then) in [(sync(), "select 1"), (query("savepoint a"), "rollback to a")] {
            let database = MemoryDatabase::active();
            let mut asker = asker(&database).await;
            asker.query("begin; savepoint a").await;
            let _maker = maker(&database).await;
            asker.send(&[bind_portal("p", "r"), fetch("p"), behind].concat()).await;
            until_waiting(&database, 2).await;
            asker.cancel(&database);
            let cut = asker.until_ready().await;
            assert_eq!((&*tags(&cut), status(&cut)), ("2EZ", Some('E')));
            asker.query(then).await;
            // That there is no other row may be taken back.
            asker.send(&[fetch("p"), sync()].concat()).await;
            assert_eq!(code(&asker.until_ready().await).as_deref(), Some("34000"), "{then}");
        }
    });
}

#[test]
fn an_answer_behind_one_that_left_early_is_given_up_as_a_whole() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut asker, mut holder) = (asker(&database).await, Wire::open(&database).await);
        holder.query("begin; update t set v = 0 where id = 1").await;
        asker.send(&[query("select 1"), batch("u", &[])].concat()).await;
        assert_eq!(tags(&asker.until_ready().await), "TDCZ");
        database.hold_back();
        holder.query("rollback").await;
        until_waiting(&database, 1).await;
        asker.cancel(&database);
        let cut = asker.until_ready().await;
        assert_eq!((&*tags(&cut), code(&cut).as_deref()), ("EZ", Some("40003")));
    });
}
