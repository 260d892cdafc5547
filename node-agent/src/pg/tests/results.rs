//! Results that are larger than what a member keeps of them: they leave in pieces or are refused, and
//! whoever reads slowly or not at all is in nobody's way.

use super::wire::{
    PATIENCE, Reply, Wire, batch, bind, execute, field, parse, query, rows, runtime, send_and_hold,
    status, sync, tags, until_waiting, with_table,
};
use crate::pg::{
    Database,
    testing::{MemoryDatabase, administrator},
};
use std::{sync::Arc, time::Duration};
use understudy_sql::SessionWait;
use understudy_store::{
    ColumnDef, DataType, Isolation, MemoryLimits, Row, Store, TableDef, Tail, Txn, Value,
};
use understudy_types::Lsn;

/// Rows of [`LARGE`].
const ROWS: usize = 50_000;

/// Some ten megabytes, much more than sockets hold.
pub(super) const LARGE: &str = "select g, repeat('x', 200) from generate_series(1, 50000) g";

/// A member with a table and two megabytes for queries.
async fn with_little_memory() -> (Arc<MemoryDatabase>, Wire) {
    let database = MemoryDatabase::active();
    let wire = with_table(&database).await;
    let (permanent_bytes, temporary_bytes) = (1 << 30, 2 << 20);
    database.store().set_limits(MemoryLimits { permanent_bytes, temporary_bytes });
    (database, wire)
}

/// Until a session waits for its client.
async fn until_written(database: &MemoryDatabase, wire: &Wire) {
    let stuck = async {
        loop {
            let sessions = database.sessions().activity();
            let session = sessions.iter().find(|session| session.pid == wire.pid);
            if session.is_some_and(|session| session.wait == Some(SessionWait::Client)) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stuck).await.expect("the socket is full");
}

/// As [`Wire::until_ready`], so slowly that the next piece is always there before the one before is written.
async fn slowly_until_ready(wire: &mut Wire) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(reply) = wire.next().await {
        let is_ready = reply.0 == 'Z';
        replies.push(reply);
        if is_ready {
            break;
        }
        if replies.len() % 100 == 0 {
            // Not a condition: this client is slow.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    replies
}

fn in_use(database: &MemoryDatabase) -> u64 {
    database.store().memory().temporary_used
}

#[test]
fn a_query_gives_more_than_memory_holds() {
    runtime().block_on(async {
        let (_, mut wire) = with_little_memory().await;
        let answer = wire.query(LARGE).await;
        assert_eq!(rows(&answer).len(), ROWS);
        assert_eq!(answer[answer.len() - 2], ('C', format!("SELECT {ROWS}\0").into_bytes()));
        let whole = [parse("", LARGE), bind("", &[]), execute(0), sync()].concat();
        wire.send(&whole).await;
        let extended = wire.until_ready().await;
        assert_eq!((&extended[0].0, rows(&extended)), (&'1', rows(&answer)));
        let copied = wire.query(&format!("copy ({LARGE}) to stdout")).await;
        let tags = tags(&copied);
        assert_eq!(tags.matches('d').count(), ROWS, "{} … {}", &tags[..3], &tags[ROWS..]);
        assert!(tags.starts_with("Hd") && tags.ends_with("dcCZ"));
        assert_eq!(copied[1].1, [b"1\t", &[b'x'; 200][..], b"\n"].concat());
    });
}

#[test]
fn what_must_be_kept_and_has_no_room_is_refused() {
    runtime().block_on(async {
        let (database, mut wire) = with_little_memory().await;
        let insert = "insert into t select g, g from generate_series(10, 20000) g";
        let returning = format!("{insert} returning *, repeat('x', 200)");
        let refused = wire.query(&returning).await;
        assert_eq!(field(&refused, 'C').as_deref(), Some("53200"));
        assert_eq!((rows(&refused).len(), in_use(&database)), (0, 0), "nothing of it is left");
        assert_eq!(tags(&wire.query(insert).await), "CZ", "without RETURNING it has room");
        let kept = [parse("", LARGE), bind("", &[]), execute(10), sync()].concat();
        wire.send(&kept).await;
        assert_eq!(field(&wire.until_ready().await, 'C').as_deref(), Some("53200"));
        assert_eq!(in_use(&database), 0);
        wire.query("begin").await;
        let fewer = parse("", "select g from generate_series(1, 5000) g");
        wire.send(&[fewer, bind("", &[]), execute(4_999), sync()].concat()).await;
        assert_eq!(rows(&wire.until_ready().await).len(), 4_999);
        assert!(in_use(&database) > 0, "a portal's rows are charged while they are kept");
        wire.query("commit").await;
        assert_eq!(in_use(&database), 0);
    });
}

#[test]
fn a_cancelled_query_ends_between_two_rows() {
    runtime().block_on(async {
        let (database, mut wire) = with_little_memory().await;
        wire.send(&query(LARGE)).await;
        assert_eq!(wire.next().await.unwrap().0, 'T');
        until_written(&database, &wire).await;
        wire.cancel(&database);
        let answer = slowly_until_ready(&mut wire).await;
        assert_eq!(field(&answer, 'C').as_deref(), Some("57014"));
        assert!(rows(&answer).len() < ROWS);
        assert_eq!(status(&answer), Some('I'));
        assert_eq!(rows(&wire.query("select 1").await), ["1"]);
    });
}

#[test]
fn rows_leave_only_while_the_member_may_serve_them() {
    runtime().block_on(async {
        let (database, mut wire) = with_little_memory().await;
        wire.send(&query(LARGE)).await;
        assert_eq!(wire.next().await.unwrap().0, 'T');
        database.lose_authority();
        let answer = wire.until_ready().await;
        assert_eq!(field(&answer, 'C').as_deref(), Some("57P03"));
        assert!(rows(&answer).len() < ROWS);
        database.regain_authority();
        assert_eq!(in_use(&database), 0);
        assert_eq!(rows(&wire.query("select 1").await), ["1"]);
    });
}

#[test]
fn rows_wait_for_what_they_depend_on() {
    runtime().block_on(async {
        let (database, mut wire) = with_little_memory().await;
        let mut maker = Wire::open(&database).await;
        database.hold_back();
        maker.send(&query("create table p (id int)")).await;
        until_waiting(&database, 1).await;
        let sees_it = format!("{LARGE} where not exists (select 1 from p)");
        wire.send(&query(&sees_it)).await;
        until_waiting(&database, 2).await;
        assert!(wire.is_silent().await, "rows tell of a table that may never have been");
        database.acknowledge();
        assert_eq!(rows(&wire.until_ready().await).len(), ROWS);
        assert_eq!(tags(&maker.until_ready().await), "CZ");
    });
}

#[test]
fn what_is_not_there_or_not_done_waits_for_what_it_depends_on() {
    runtime().block_on(async {
        let cases = [
            ("insert into t values (7, 70)", batch("i", &[])),
            ("delete from t where id = 1", query("select v from t where id = 1 for update")),
            ("update t set id = 9 where id = 2", query("select v from t where id = 2 for update")),
        ];
        for (change, ask) in cases {
            let database = MemoryDatabase::active();
            let mut asker = with_table(&database).await;
            let insert = parse("i", "insert into t values (7, 0) on conflict do nothing");
            asker.send(&[insert, sync()].concat()).await;
            asker.until_ready().await;
            let mut maker = Wire::open(&database).await;
            send_and_hold(&database, &mut maker, &query(change)).await;
            asker.send(&ask).await;
            until_waiting(&database, 2).await;
            assert!(asker.is_silent().await, "{change}: it may be taken back");
            database.acknowledge();
            assert_eq!(rows(&asker.until_ready().await), [""; 0]);
        }
    });
}

/// A row that changed so often that not all its versions fit into memory, from a log.
fn replayed() -> Store {
    let limits = MemoryLimits { permanent_bytes: 256 << 10, temporary_bytes: 1 << 20 };
    let origin = Store::new(MemoryLimits { permanent_bytes: 1 << 30, ..limits });
    let mut log = Vec::new();
    let mut commit = |txn: Txn| {
        let lsn = Lsn(log.len() as u64 + 1);
        log.push((lsn, origin.redo(&txn)));
        origin.commit(txn, lsn);
        origin.set_visible(lsn);
    };
    let mut txn = origin.begin(Isolation::ReadCommitted);
    origin.create_user(&mut txn, administrator()).unwrap();
    let table = TableDef::new("t", vec![ColumnDef::new("v", DataType::Int4)]);
    let table = origin.create_table(&mut txn, table).unwrap();
    let row = |v| Row::encode(&[Value::Int(v)]);
    let id = origin.insert(&mut txn, table, row(0)).unwrap();
    commit(txn);
    for v in 1..=10_000 {
        let mut txn = origin.begin(Isolation::ReadCommitted);
        origin.update(&mut txn, table, id, row(v)).unwrap();
        commit(txn);
    }
    let mut store = Store::new(limits);
    let records: Vec<_> = log.iter().map(|(lsn, record)| (*lsn, &record[..])).collect();
    store.replay(&records, Tail::MayGo).unwrap();
    store
}

#[test]
fn a_member_that_follows_nobody_yet_answers_from_what_it_knows_to_stand() {
    runtime().block_on(async {
        let store = replayed();
        store.set_visible(store.committed());
        let mut wire = Wire::open(&MemoryDatabase::recovered(store)).await;
        assert_eq!(rows(&wire.query("select v from t").await), ["10000"]);
    });
}

#[test]
fn rows_of_a_log_that_is_nobodys_word_yet_wait() {
    runtime().block_on(async {
        let database = MemoryDatabase::recovered(replayed());
        let mut wires = [Wire::open(&database).await, Wire::open(&database).await];
        for (wire, ask) in wires.iter_mut().zip(["select v from t", "begin; select v from t"]) {
            wire.send(&query(ask)).await;
        }
        until_waiting(&database, 2).await;
        for wire in &mut wires {
            assert!(wire.is_silent().await, "rows that may be taken back");
        }
        database.acknowledge();
        for wire in &mut wires {
            assert_eq!(rows(&wire.until_ready().await), ["10000"]);
            assert_eq!(rows(&wire.query("select v from t").await), ["10000"]);
        }
    });
}

#[test]
fn a_session_that_ends_while_its_rows_wait_has_its_last_words() {
    runtime().block_on(async {
        let database = MemoryDatabase::recovered(replayed());
        let mut wire = Wire::open(&database).await;
        wire.send(&query(LARGE)).await;
        until_waiting(&database, 1).await;
        assert!(wire.is_silent().await);
        database.demote("orders-2");
        let end = wire.until_ready().await;
        assert_eq!((&*tags(&end), field(&end, 'C').as_deref()), ("E", Some("57P01")));
    });
}

#[test]
fn who_reads_nothing_is_ended_like_anybody() {
    runtime().block_on(async {
        let (database, wire) = with_little_memory().await;
        let mut wires = [wire, Wire::open(&database).await];
        wires[1].query("set statement_timeout = '500ms'").await;
        for wire in &mut wires {
            wire.send(&query(LARGE)).await;
            assert_eq!(wire.next().await.unwrap().0, 'T');
        }
        let [silent, slow] = wires;
        let ended = tokio::time::timeout(PATIENCE, slow.session).await;
        ended.expect("its time is over, whether it reads or not").unwrap();
        assert_eq!(database.sessions().count(), 1);
        database.demote("orders-2");
        let ended = tokio::time::timeout(PATIENCE, silent.session).await;
        ended.expect("a member that serves no more ends its sessions").unwrap();
        assert_eq!(database.sessions().count(), 0);
    });
}
