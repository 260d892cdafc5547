//! What is counted, and who is seen to run.

use crate::database::{Database, reloaded};
use understudy_store::{Direction, KeyBounds, Scan, Store, TxnId, Value, View};

#[test]
fn changes_are_counted_with_their_commit() {
    let db = Database::filled(10);
    let mut txn = db.begin();
    db.set(&mut txn, 1, 5).unwrap();
    db.set(&mut txn, 1, 6).unwrap();
    db.remove(&mut txn, 2).unwrap();
    db.insert(&mut txn, 20, 1).unwrap();
    db.remove(&mut txn, 20).unwrap();
    let before = db.store.counts().remove(0);
    assert_eq!((before.inserted, before.updated, before.deleted), (10, 0, 0));
    db.commit(txn).unwrap();
    db.acknowledge();
    let mut undone = db.begin();
    db.remove(&mut undone, 3).unwrap();
    db.store.rollback(undone);
    let counts = db.store.counts().remove(0);
    assert_eq!((counts.inserted, counts.updated, counts.deleted), (10, 1, 1));
    assert_eq!((counts.live_rows, counts.dead_versions), (9, 3), "one of them came and went");
    while db.store.reclaim(100).has_more {}
    assert_eq!(db.store.counts()[0].dead_versions, 0);
}

#[test]
fn a_follower_and_a_checkpoint_count_the_rows_that_are_there() {
    let db = Database::filled(10);
    db.run(|txn| db.remove(txn, 2).unwrap());
    let follower = Store::new(crate::database::LIMITS);
    for (lsn, payload) in db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
        follower.set_visible(*lsn);
    }
    assert_eq!((follower.counts()[0].inserted, follower.counts()[0].live_rows), (10, 9));
    let loaded = reloaded(&follower, follower.visible());
    assert_eq!((loaded.counts()[0].inserted, loaded.counts()[0].live_rows), (0, 9));
}

#[test]
fn reads_are_counted_by_table_and_index() {
    let db = Database::filled(10);
    let seen = || {
        let counts = db.store.counts().remove(0);
        let of = |id| counts.index_scans.iter().find(|(index, _)| *index == id).unwrap().1;
        (counts.scans, of(db.by_k), of(db.by_v))
    };
    let (scans, by_k, by_v) = seen();
    let txn = db.begin();
    assert_eq!(db.store.scan(&txn, View::Committed, db.table).count(), 10);
    assert!(db.store.lookup_one(&txn, View::Committed, db.by_k, &[Value::Int(1)]).is_some());
    assert_eq!(db.store.lookup(&txn, View::Committed, db.by_v, &[Value::Int(100)]).len(), 1);
    assert_eq!(seen(), (scans + 1, by_k + 1, by_v + 1));
}

#[test]
fn what_a_scan_meets_and_does_not_see_is_told() {
    let db = Database::filled(10);
    let mut loading = db.begin();
    for k in 101..=400 {
        db.insert(&mut loading, k, 5).unwrap();
    }
    let txn = db.begin();
    let told = |mut scan: Scan<'_>| {
        let batches = std::iter::from_fn(|| scan.next_batch());
        batches.fold((0, 0), |(seen, not), batch| (seen + batch.rows.len(), not + batch.unseen))
    };
    assert_eq!(told(db.store.scan(&txn, View::Committed, db.table)), (10, 300));
    for direction in [Direction::Ascending, Direction::Descending] {
        let fives = KeyBounds::equal(vec![Value::Int(5)]);
        let range = db.store.range(&txn, View::Committed, db.by_v, &fives, direction);
        assert_eq!(told(range), (0, 300), "{direction:?}");
    }
}

#[test]
fn who_runs_and_who_waits_for_whom_is_seen() {
    let db = Database::filled(2);
    assert_eq!(db.store.running(), []);
    let (mut holder, mut waiter) = (db.begin(), db.begin());
    holder.belongs_to(7);
    waiter.belongs_to(8);
    db.set(&mut holder, 1, 5).unwrap();
    db.set(&mut waiter, 2, 5).unwrap();
    let wait = db.store.wait(&waiter, holder.id()).unwrap();
    let mut running = db.store.running();
    running.sort_by_key(|txn| txn.session);
    let [first, second] = running.as_slice() else { panic!("{running:?}") };
    assert_eq!((first.session, first.id, first.waits_for), (7, holder.id(), TxnId::ENDED));
    assert_eq!((second.session, second.waits_for), (8, holder.id()));
    assert_eq!((&first.tables, &first.changing), (&vec![db.table], &vec![]));
    assert_eq!(first.snapshot, Some(holder.snapshot()));
    drop(wait);
    db.store.rollback(holder);
    db.store.truncate(&mut waiter, db.table).unwrap();
    let running = db.store.running();
    assert_eq!((running.len(), &running[0].changing), (1, &vec![db.table]));
    db.store.rollback(waiter);
    assert_eq!(db.store.running(), []);
    drop(db.begin());
    assert_eq!(db.store.running(), [], "a slot does not keep its session");
}
