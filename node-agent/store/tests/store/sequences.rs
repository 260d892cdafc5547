//! Sequences: no number twice, whatever ends how.

use crate::database::{Database, LIMITS, reloaded};
use std::{collections::BTreeSet, convert::Infallible, thread};
use understudy_store::{
    DataType, Isolation, NextValue, SequenceDef, SequenceError, SequenceState, Store, TableDef,
    TableId, Txn, WriteError,
};
use understudy_types::Lsn;

fn plain() -> SequenceDef {
    SequenceDef {
        data_type: DataType::Int8,
        increment: 1,
        min: 1,
        max: i64::MAX,
        start: 1,
        cache: 1,
        cycle: false,
        owner: None,
    }
}

fn with_sequence(def: SequenceDef) -> (Database, TableId) {
    let db = Database::new();
    let made = |txn: &mut Txn| db.store.create_sequence(txn, TableDef::new_sequence("s", def));
    let id = db.run(made).unwrap();
    (db, id)
}

fn next_in(db: &Database, txn: &Txn, id: TableId) -> Result<NextValue, SequenceError<Infallible>> {
    db.store.next_value(txn, id, |small| Ok(db.commit(small).unwrap()))
}

fn next(db: &Database, id: TableId) -> i64 {
    next_in(db, &db.begin(), id).unwrap().value
}

fn set(db: &Database, id: TableId, value: i64, is_called: bool) {
    let commit = |small| Ok::<_, Infallible>(db.commit(small).unwrap());
    db.store.set_value(&db.begin(), (id, value, is_called), commit).unwrap();
}

fn replayed(db: &Database) -> Store {
    let store = Store::new(LIMITS);
    for (lsn, payload) in db.log.lock().iter() {
        store.apply(*lsn, payload).unwrap();
        store.set_visible(*lsn);
    }
    store
}

/// The next number of a store that has no log beside it.
fn next_after(store: &Store, id: TableId) -> i64 {
    let txn = store.begin(Isolation::ReadCommitted);
    let commit = |small| {
        let lsn = store.committed().next();
        store.commit(small, lsn);
        Ok::<_, Infallible>(lsn)
    };
    store.next_value(&txn, id, commit).unwrap().value
}

#[test]
fn a_block_is_one_record_and_is_used_up_before_the_next() {
    let (db, id) = with_sequence(plain());
    let before = db.log.lock().len();
    let given: Vec<i64> = (0..33).map(|_| next(&db, id)).collect();
    assert_eq!(given, (1..=33).collect::<Vec<_>>());
    assert_eq!(db.log.lock().len(), before + 1);
    assert_eq!(next(&db, id), 34);
    assert_eq!(db.log.lock().len(), before + 2);
    let state = db.store.sequence_state(&db.begin(), id).unwrap();
    assert_eq!(state, SequenceState { last_value: 34, log_cnt: 32, is_called: true });
}

#[test]
fn a_number_depends_on_the_record_that_reserved_it() {
    let (db, id) = with_sequence(plain());
    for value in [1, 2] {
        let txn = db.begin();
        let given = next_in(&db, &txn, id).unwrap();
        let reserved = db.log.lock().last().unwrap().0;
        assert_eq!((given.value, given.depends, txn.depends_lsn()), (value, reserved, reserved));
    }
}

#[test]
fn neither_a_rollback_nor_a_crash_gives_a_number_again() {
    let (db, id) = with_sequence(plain());
    let txn = db.begin();
    assert_eq!(next_in(&db, &txn, id).unwrap().value, 1);
    db.store.rollback(txn);
    assert_eq!(next(&db, id), 2);
    assert_eq!(next_after(&replayed(&db), id), 34);
    db.acknowledge();
    let loaded = reloaded(&db.store, db.store.visible());
    assert_eq!(next_after(&loaded, id), 34);
}

#[test]
fn a_follower_has_equal_content_and_goes_on_above_it() {
    let (db, id) = with_sequence(plain());
    for _ in 0..40 {
        next(&db, id);
    }
    set(&db, id, 500, false);
    db.acknowledge();
    let follower = replayed(&db);
    let at = db.store.committed();
    assert_eq!(follower.catalog(), db.store.catalog());
    assert_eq!(follower.content_hash(id, at), db.store.content_hash(id, at));
    assert_eq!(next_after(&follower, id), 500);
    assert_eq!(next(&db, id), 500);
}

#[test]
fn threads_share_a_sequence_without_gaps() {
    let (db, id) = with_sequence(plain());
    let given: Vec<i64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..500).map(|_| next(&db, id)).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: BTreeSet<i64> = given.iter().copied().collect();
    assert_eq!((given.len(), distinct.len()), (2000, 2000));
    assert_eq!(distinct.last(), Some(&2000));
}

#[test]
fn whoever_restarts_a_sequence_has_it_alone_until_the_end() {
    let (db, id) = with_sequence(plain());
    assert_eq!(next(&db, id), 1);
    let mut txn = db.begin();
    let def = (**db.store.catalog().table_by_id(id).unwrap()).clone();
    db.store.alter_sequence(&mut txn, def, Some(1000)).unwrap();
    assert_eq!(next_in(&db, &txn, id).unwrap().value, 1000);
    assert_eq!(next_in(&db, &txn, id).unwrap().value, 1001);
    let other = next_in(&db, &db.begin(), id).unwrap_err();
    assert!(matches!(other, SequenceError::Write(WriteError::Blocked { on }) if on == txn.id()));
    db.store.rollback(txn);
    assert_eq!(next(&db, id), 2);
    db.run(|txn| {
        let def = (**txn.catalog().table_by_id(id).unwrap()).clone();
        db.store.alter_sequence(txn, def, Some(7)).unwrap();
        assert_eq!(next_in(&db, txn, id).unwrap().value, 7);
    });
    assert_eq!(next(&db, id), 8);
    assert_eq!(next_after(&replayed(&db), id), 41);
}

#[test]
fn numbers_taken_after_a_savepoint_are_not_taken_back() {
    let (db, id) = with_sequence(plain());
    let mut txn = db.begin();
    let def = (**db.store.catalog().table_by_id(id).unwrap()).clone();
    let mark = db.store.savepoint(&txn);
    db.store.alter_sequence(&mut txn, def, Some(70)).unwrap();
    assert_eq!(next_in(&db, &txn, id).unwrap().value, 70);
    db.store.rollback_to(&mut txn, &mark);
    // The sequence stays taken, but it is the old one again.
    assert_eq!(next_in(&db, &txn, id).unwrap().value, 1);
    db.store.rollback(txn);
    assert_eq!(next(&db, id), 2);
}

#[test]
fn the_last_number_is_the_end_or_the_beginning() {
    let (db, id) = with_sequence(SequenceDef { max: 3, ..plain() });
    assert_eq!([next(&db, id), next(&db, id), next(&db, id)], [1, 2, 3]);
    let error = next_in(&db, &db.begin(), id).unwrap_err();
    let sequence = "s".to_owned();
    assert_eq!(error, SequenceError::Exhausted { sequence, bound: 3, is_maximum: true });
    let (db, id) = with_sequence(SequenceDef { max: 3, cycle: true, ..plain() });
    let given: Vec<i64> = (0..7).map(|_| next(&db, id)).collect();
    assert_eq!(given, [1, 2, 3, 1, 2, 3, 1]);
    let down = SequenceDef { increment: -2, min: -5, max: -1, start: -1, ..plain() };
    let (db, id) = with_sequence(down);
    assert_eq!([next(&db, id), next(&db, id), next(&db, id)], [-1, -3, -5]);
    let error = next_in(&db, &db.begin(), id).unwrap_err();
    assert!(matches!(error, SequenceError::Exhausted { bound: -5, is_maximum: false, .. }));
    let edge = SequenceDef { start: i64::MAX, ..plain() };
    let (db, id) = with_sequence(edge);
    assert_eq!(next(&db, id), i64::MAX);
    assert!(next_in(&db, &db.begin(), id).is_err());
}

#[test]
fn a_set_sequence_goes_on_from_there() {
    let (db, id) = with_sequence(plain());
    next(&db, id);
    set(&db, id, 100, true);
    assert_eq!(next(&db, id), 101);
    set(&db, id, 5, false);
    assert_eq!(next(&db, id), 5);
    let commit = |_: Txn| -> Result<Lsn, Infallible> { unreachable!("nothing is written") };
    let refused = db.store.set_value(&db.begin(), (id, 0, true), commit).unwrap_err();
    assert!(matches!(refused, SequenceError::OutOfBounds { bounds: (1, i64::MAX), .. }));
}

#[test]
fn a_reservation_that_is_refused_gives_no_number() {
    let (db, id) = with_sequence(plain());
    let txn = db.begin();
    let refused = db.store.next_value(&txn, id, |small| {
        db.store.rollback(small);
        Err("no authority")
    });
    assert_eq!(refused, Err(SequenceError::Commit("no authority")));
    assert_eq!(next(&db, id), 1);
}

#[test]
fn a_table_takes_the_sequences_of_its_columns_along() {
    let (db, id) = with_sequence(plain());
    db.run(|txn| {
        let mut def = (**txn.catalog().table_by_id(id).unwrap()).clone();
        let owner = understudy_store::SequenceOwner { table: db.table, column: 0 };
        def.sequence.as_mut().unwrap().owner = Some(owner);
        db.store.alter_sequence(txn, def, None).unwrap();
    });
    assert_eq!(db.store.catalog().sequence_of(db.table, 0).unwrap().id, id);
    db.run(|txn| db.store.drop_table(txn, db.table).unwrap());
    assert_eq!(db.store.catalog().relations().count(), 0);
    assert_eq!(replayed(&db).catalog().relations().count(), 0);
}
