//! Reclamation frees what nobody reads, and nothing else.

use crate::database::Database;
use understudy_store::{Isolation, Value, View};

#[test]
fn the_oldest_snapshot_bounds_reclamation() {
    let db = Database::filled(10);
    let old = db.store.begin(Isolation::RepeatableRead);
    for round in 0..20 {
        db.run(|txn| (1..=10).for_each(|k| db.set(txn, k, round).unwrap()));
    }
    db.run(|txn| (1..=5).for_each(|k| db.remove(txn, k).unwrap()));
    let report = db.store.reclaim(usize::MAX);
    assert_eq!((report.horizon, report.versions), (old.snapshot(), 0));
    assert_eq!(db.total(&old), 5500);
    assert_eq!(db.value(&old, 3), Some(300));
    drop(old);
    let report = db.store.reclaim(usize::MAX);
    assert_eq!((report.versions, report.rows, report.waiting), (10 * 20 + 5 + 5, 5, 0));
    assert_eq!(db.total(&db.begin()), 5 * 19);
}

#[test]
fn pending_commits_are_not_below_the_horizon() {
    let db = Database::filled(1);
    let mut txn = db.begin();
    db.remove(&mut txn, 1).unwrap();
    db.commit(txn).unwrap();
    assert_eq!(db.store.reclaim(usize::MAX).versions, 0);
    assert_eq!(db.value(&db.begin(), 1), Some(100));
    db.acknowledge();
    assert_eq!(db.store.reclaim(usize::MAX).rows, 1);
    assert_eq!(db.value(&db.begin(), 1), None);
}

#[test]
fn a_budget_ends_the_work_and_the_next_call_goes_on() {
    let db = Database::filled(10);
    db.run(|txn| (1..=10).for_each(|k| db.set(txn, k, 0).unwrap()));
    let report = db.store.reclaim(4);
    assert_eq!((report.versions, report.waiting, report.has_more), (4, 6, true));
    let report = db.store.reclaim(100);
    assert_eq!((report.versions, report.waiting, report.has_more), (6, 0, false));
}

#[test]
fn a_key_that_moved_is_found_by_old_and_new_snapshots_until_it_is_reclaimed() {
    let db = Database::filled(3);
    let old = db.store.begin(Isolation::RepeatableRead);
    let at = |k: i64| [Value::Int(k)];
    db.run(|txn| {
        let (id, row) = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &at(2)).unwrap();
        let def = txn.catalog().table_by_id(db.table).unwrap();
        let moved = row.replace(def, &[(0, Value::Int(20))]);
        db.store.update(txn, db.table, id, moved).unwrap();
        db.insert(txn, 2, 7).unwrap();
    });
    let new = db.begin();
    assert_eq!((db.value(&old, 2), db.value(&old, 20)), (Some(200), None));
    assert_eq!((db.value(&new, 2), db.value(&new, 20)), (Some(7), Some(200)));
    drop((old, new));
    db.store.reclaim(usize::MAX);
    let new = db.begin();
    assert_eq!((db.value(&new, 2), db.value(&new, 20)), (Some(7), Some(200)));
    assert_eq!(db.store.memory().tables[0].indexes[0].entries, 4);
}

#[test]
fn writers_bound_the_garbage_when_nobody_else_reclaims() {
    let db = Database::filled(10);
    let update = |rounds: i64| {
        for round in 0..rounds {
            db.run(|txn| (1..=10).for_each(|k| db.set(txn, k, round).unwrap()));
        }
        db.store.memory().reclaimable_items
    };
    assert!(update(2_500) < 17_000);
    let old = db.store.begin(Isolation::RepeatableRead);
    assert_eq!(db.value(&old, 1), Some(2_499));
    let held = update(2_500);
    assert!(held >= 25_000, "the old snapshot needs them, {held} are left");
    assert_eq!(db.value(&old, 1), Some(2_499));
    drop(old);
    assert!(update(4_000) < 17_000);
    let follower = understudy_store::Store::new(crate::database::LIMITS);
    for (lsn, payload) in db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
        follower.set_visible(*lsn);
    }
    assert!(follower.memory().reclaimable_items < 17_000);
}

#[test]
fn a_pin_keeps_its_lsn_readable() {
    let db = Database::filled(1);
    let pinned = db.store.pin_visible();
    db.run(|txn| db.set(txn, 1, 1).unwrap());
    db.run(|txn| db.store.drop_table(txn, db.table).unwrap());
    db.store.reclaim(usize::MAX);
    let mut bytes = Vec::new();
    let report = db.store.write_checkpoint(pinned.lsn(), &mut bytes).unwrap();
    assert_eq!((report.tables, report.rows), (1, 1));
    let at = pinned.lsn();
    drop(pinned);
    db.store.reclaim(usize::MAX);
    assert!(db.store.write_checkpoint(at, &mut bytes).is_err());
}
