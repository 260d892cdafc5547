//! The classic anomalies, each under the level that allows it and the one that does not.

use crate::database::{Database, pair, row};
use understudy_store::{Direction, Isolation, KeyBounds, TxnId, Value, View, WriteError};
use understudy_types::Lsn;

#[test]
fn nobody_reads_uncommitted_changes() {
    for isolation in [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable]
    {
        let db = Database::filled(2);
        let mut writer = db.begin();
        db.set(&mut writer, 1, 7).unwrap();
        db.insert(&mut writer, 3, 3).unwrap();
        db.remove(&mut writer, 2).unwrap();
        let reader = db.store.begin(isolation);
        assert_eq!((db.value(&reader, 1), db.value(&reader, 3)), (Some(100), None));
        assert_eq!(db.total(&reader), 300);
        assert_eq!(db.total(&writer), 10, "the writer sees its own changes");
        db.store.rollback(writer);
        assert_eq!(db.total(&db.begin()), 300);
    }
}

#[test]
fn read_committed_sees_a_new_commit_in_the_next_statement_only() {
    let db = Database::filled(1);
    let mut reader = db.begin();
    assert_eq!(db.value(&reader, 1), Some(100));
    db.run(|txn| db.set(txn, 1, 5).unwrap());
    assert_eq!(db.value(&reader, 1), Some(100));
    db.store.statement(&mut reader);
    assert_eq!(db.value(&reader, 1), Some(5));
}

#[test]
fn repeatable_read_keeps_its_snapshot_without_phantoms() {
    let db = Database::filled(2);
    let mut reader = db.store.begin(Isolation::RepeatableRead);
    db.run(|txn| {
        db.set(txn, 1, 5).unwrap();
        db.insert(txn, 9, 9).unwrap();
        db.remove(txn, 2).unwrap();
    });
    db.store.statement(&mut reader);
    assert_eq!(db.total(&reader), 300);
    assert_eq!(db.value(&reader, 2), Some(200));
    let bounds = KeyBounds::all();
    let keys = db.store.range(&reader, View::Committed, db.by_k, &bounds, Direction::Descending);
    assert_eq!(keys.map(|(_, r)| pair(&r).0).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn read_committed_never_loses_an_update() {
    let db = Database::filled(1);
    let mut first = db.begin();
    let mut second = db.begin();
    let statement = db.store.statement(&mut second);
    let read = |txn: &_| {
        let found = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &[Value::Int(1)]);
        found.map(|(id, r)| (id, pair(&r).1)).unwrap()
    };
    let (id, before) = read(&second);
    db.set(&mut first, 1, 101).unwrap();
    let first_id = first.id();
    let stale = db.store.update(&mut second, db.table, id, row(1, before + 1));
    assert_eq!(stale, Err(WriteError::Blocked { on: first_id }));
    db.commit(first).unwrap();
    // The row changed after the statement began, so the statement runs again.
    let stale = db.store.update(&mut second, db.table, id, row(1, before + 1));
    assert_eq!(stale, Err(WriteError::Blocked { on: TxnId::ENDED }));
    db.store.rollback_to(&mut second, &statement);
    db.store.statement(&mut second);
    let (id, now) = read(&second);
    db.store.update(&mut second, db.table, id, row(1, now + 1)).unwrap();
    db.commit(second).unwrap();
    db.acknowledge();
    assert_eq!(db.value(&db.begin(), 1), Some(102));
}

#[test]
fn repeatable_read_refuses_to_write_what_changed_since_its_snapshot() {
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        let db = Database::filled(2);
        let mut late = db.store.begin(isolation);
        db.run(|txn| {
            db.set(txn, 1, 5).unwrap();
            db.remove(txn, 2).unwrap();
        });
        assert_eq!(db.set(&mut late, 1, 6), Err(WriteError::Serialization));
        assert_eq!(db.remove(&mut late, 2), Err(WriteError::Serialization));
    }
}

/// Two transactions each check the sum of both rows, then take from their own row.
fn write_skew(isolation: Isolation) -> (i64, [bool; 2]) {
    let db = Database::filled(2);
    let mut txns = [db.store.begin(isolation), db.store.begin(isolation)];
    for (k, txn) in (1..).zip(&mut txns) {
        if db.total(txn) >= 300 {
            db.set(txn, k, -100).unwrap();
        }
    }
    let committed = txns.map(|txn| db.commit(txn).is_ok());
    db.acknowledge();
    (db.total(&db.begin()), committed)
}

#[test]
fn write_skew_is_possible_under_snapshots_and_not_under_serializable() {
    assert_eq!(write_skew(Isolation::RepeatableRead), (-200, [true, true]));
    assert_eq!(write_skew(Isolation::Serializable), (100, [true, false]));
}

#[test]
fn serializable_finds_phantoms_in_ranges_and_missing_keys() {
    let db = Database::filled(3);
    type Read = fn(&Database, &understudy_store::Txn);
    let reads: [Read; 3] = [
        |db, txn| assert_eq!(db.value(txn, 50), None),
        |db, txn| {
            let bounds = KeyBounds {
                lower: std::ops::Bound::Excluded(vec![Value::Int(40)]),
                upper: std::ops::Bound::Unbounded,
            };
            let scan = db.store.range(txn, View::Committed, db.by_k, &bounds, Direction::Ascending);
            assert_eq!(scan.count(), 0);
        },
        |db, txn| {
            let found = db.store.lookup(txn, View::Committed, db.by_v, &[Value::Int(7)]);
            assert!(found.is_empty());
        },
    ];
    for (i, read) in reads.iter().enumerate() {
        let mut reader = db.store.begin(Isolation::Serializable);
        read(&db, &reader);
        db.set(&mut reader, 1, 1000 + i as i64).unwrap();
        db.run(|txn| {
            let id = db.insert(txn, 50, 7).unwrap();
            assert!(id.0 > 0);
        });
        assert!(db.commit(reader).is_err(), "read {i} missed the phantom");
        db.run(|txn| db.remove(txn, 50).unwrap());
    }
}

#[test]
fn serializable_lets_disjoint_transactions_pass() {
    let db = Database::filled(3);
    let mut a = db.store.begin(Isolation::Serializable);
    let mut b = db.store.begin(Isolation::Serializable);
    assert_eq!(db.value(&a, 1), Some(100));
    assert_eq!(db.value(&b, 2), Some(200));
    db.set(&mut a, 1, 1).unwrap();
    db.set(&mut b, 2, 2).unwrap();
    assert!(db.commit(a).is_ok());
    assert!(db.commit(b).is_ok());
}

#[test]
fn pending_commits_are_written_upon_but_not_shown() {
    let db = Database::filled(1);
    let mut first = db.begin();
    db.set(&mut first, 1, 1).unwrap();
    let pending = db.commit(first).unwrap();
    let plain = db.begin();
    assert_eq!(db.value(&plain, 1), Some(100));
    assert_eq!(plain.depends_lsn(), Lsn::ZERO);
    let mut second = db.begin();
    db.set(&mut second, 1, 2).unwrap();
    assert_eq!(second.depends_lsn(), pending, "the hot row was free, the answer waits");
    assert_eq!(db.value(&second, 1), Some(2));
    db.commit(second).unwrap();
    db.store.set_visible(pending);
    assert_eq!(db.value(&db.begin(), 1), Some(1));
    db.acknowledge();
    assert_eq!(db.value(&db.begin(), 1), Some(2));
}

#[test]
fn an_error_caused_by_a_pending_commit_names_its_lsn() {
    let db = Database::filled(1);
    let mut first = db.begin();
    db.insert(&mut first, 2, 2).unwrap();
    let pending = db.commit(first).unwrap();
    let duplicate = |txn: &mut _| db.insert(txn, 2, 3).unwrap_err();
    let WriteError::UniqueViolation { index, key, depends } = duplicate(&mut db.begin()) else {
        panic!("the key is taken");
    };
    assert_eq!((index.as_str(), key.as_str(), depends), ("pairs_pkey", "(k)=(2)", pending));
    db.acknowledge();
    let WriteError::UniqueViolation { depends, .. } = duplicate(&mut db.begin()) else {
        panic!("the key is taken");
    };
    assert_eq!(depends, Lsn::ZERO);
}

#[test]
fn a_key_taken_after_the_statement_began_is_judged_by_its_next_run() {
    let db = Database::filled(1);
    let mut late = db.begin();
    db.run(|txn| {
        db.insert(txn, 2, 2).unwrap();
        db.remove(txn, 1).unwrap();
    });
    // INSERT … ON CONFLICT looked and saw no row with key 2: it must look again, not fail.
    assert_eq!(db.insert(&mut late, 2, 3), Err(WriteError::Blocked { on: TxnId::ENDED }));
    // It still reads the old row with key 1: taking the key would show it twice.
    assert_eq!(db.insert(&mut late, 1, 3), Err(WriteError::Blocked { on: TxnId::ENDED }));
    db.store.statement(&mut late);
    assert!(matches!(db.insert(&mut late, 2, 3), Err(WriteError::UniqueViolation { .. })));
    db.insert(&mut late, 1, 3).unwrap();
}

#[test]
fn an_acknowledgement_that_overtakes_its_commit_shows_nothing_half_done() {
    let db = Database::filled(1);
    let mut txn = db.begin();
    db.set(&mut txn, 1, 1).unwrap();
    db.store.set_visible(Lsn(1000));
    assert_eq!(db.store.visible(), db.store.committed());
    assert_eq!(db.value(&db.begin(), 1), Some(100));
    db.commit(txn).unwrap();
    assert_eq!(db.value(&db.begin(), 1), Some(1));
}
