//! Limits: a refused statement leaves everything as it was.

use crate::database::{Database, LIMITS, reloaded, row};
use understudy_store::{MemoryLimits, Pool, Store, WriteError};

#[test]
fn a_full_store_refuses_the_statement_and_harms_nothing_else() {
    let limits = MemoryLimits { permanent_bytes: 100_000, temporary_bytes: 1 << 20 };
    let db = Database::with_limits(limits);
    let mut k = 0;
    let refused = loop {
        k += 1;
        let mut txn = db.begin();
        match db.insert(&mut txn, k, k) {
            Ok(_) => db.commit(txn).map(|_| db.acknowledge()).unwrap(),
            Err(error) => break error,
        }
    };
    let WriteError::OutOfMemory { pool: Pool::Permanent, used, limit, requested } = refused else {
        panic!("{refused}");
    };
    assert!(used + requested > limit && k > 100);
    let before = db.store.memory();
    let mut txn = db.begin();
    assert!(db.insert(&mut txn, k, k).is_err());
    assert_eq!(db.total(&txn), k * (k - 1) / 2);
    drop(txn);
    assert_eq!(db.store.memory(), before);
    // Deleting needs a little room as well, which it takes beyond the limit.
    db.run(|txn| (1..k / 2).for_each(|k| db.remove(txn, k).unwrap()));
    db.store.reclaim(usize::MAX);
    assert!(db.store.memory().permanent_used < before.permanent_used * 6 / 10);
    db.run(|txn| db.insert(txn, k, k).map(|_| ()).unwrap());
}

#[test]
fn a_transaction_that_remembers_too_much_is_refused() {
    let limits = MemoryLimits { permanent_bytes: 1 << 30, temporary_bytes: 10_000 };
    let db = Database::with_limits(limits);
    let before = db.store.memory();
    let mut txn = db.begin();
    let refused = (1..1000).find_map(|k| db.insert(&mut txn, k, k).err());
    assert!(matches!(refused, Some(WriteError::OutOfMemory { pool: Pool::Temporary, .. })));
    db.store.rollback(txn);
    assert_eq!(db.store.memory(), before);
}

#[test]
fn everything_that_was_charged_is_given_back() {
    let db = Database::new();
    let empty = db.store.memory().permanent_used;
    assert_eq!(empty, 0);
    db.run(|txn| (1..=100).for_each(|k| db.insert(txn, k, k).map(|_| ()).unwrap()));
    for round in 0..5 {
        db.run(|txn| (1..=100).for_each(|k| db.set(txn, k, round).unwrap()));
    }
    // Changes that are undone in every possible way.
    let mut txn = db.begin();
    let mark = db.store.savepoint(&txn);
    db.set(&mut txn, 1, 5).unwrap();
    db.set(&mut txn, 1, 6).unwrap();
    db.store.rollback_to(&mut txn, &mark);
    assert!(db.insert(&mut txn, 2, 2).is_err());
    db.insert(&mut txn, 500, 2).unwrap();
    drop(txn);
    db.store.reclaim(usize::MAX);
    let used = db.store.memory().permanent_used;
    let at = db.store.visible();
    let loaded = reloaded(&db.store, at);
    assert_eq!(loaded.memory().tables, db.store.memory().tables);
    assert_eq!(loaded.memory().permanent_used, used);
    db.run(|txn| (1..=100).for_each(|k| db.remove(txn, k).unwrap()));
    db.store.reclaim(usize::MAX);
    assert_eq!(db.store.memory().permanent_used, 0);
}

#[test]
fn the_last_row_of_a_page_is_charged_the_page() {
    let db = Database::new();
    let bytes = |db: &Database| db.store.memory().tables[0].row_bytes;
    db.run(|txn| (1..=6000).for_each(|k| db.insert(txn, k, k).map(|_| ()).unwrap()));
    let full = bytes(&db);
    // Sixty rows share a page: half a kilobyte and what the map has for it.
    let (row, page) = (96, 554);
    assert_eq!(full, 6000 * row + 101 * page);
    db.run(|txn| {
        for k in (1..=6000).filter(|k| k % 60 != 0) {
            db.remove(txn, k).unwrap();
        }
    });
    db.store.reclaim(usize::MAX);
    // Ids are given from one on, so the rows that are left stand in a hundred pages, each alone.
    assert_eq!(bytes(&db), 100 * (row + page));
    let at = db.store.visible();
    let loaded = reloaded(&db.store, at);
    assert_eq!(loaded.memory().tables[0].row_bytes, 100 * (row + page));
    let follower = Store::new(LIMITS);
    db.log.lock().iter().for_each(|(lsn, record)| follower.apply(*lsn, record).unwrap());
    follower.set_visible(at);
    follower.reclaim(usize::MAX);
    assert_eq!(follower.memory().tables[0].row_bytes, 100 * (row + page));
    db.run(|txn| (1..=100).for_each(|k| db.remove(txn, k * 60).unwrap()));
    db.store.reclaim(usize::MAX);
    assert_eq!(bytes(&db), 0);
}

#[test]
fn a_page_that_does_not_fit_is_refused_with_its_row() {
    let db = Database::with_limits(MemoryLimits { permanent_bytes: 800, ..LIMITS });
    let mut txn = db.begin();
    // A cell, its version and two entries alone would fit.
    db.insert(&mut txn, 1, 1).unwrap();
    db.store.rollback(txn);
    assert_eq!(db.store.memory().permanent_used, 0);
    db.store.set_limits(MemoryLimits { permanent_bytes: 400, ..LIMITS });
    let mut txn = db.begin();
    let refused = db.insert(&mut txn, 2, 2);
    assert!(matches!(refused, Err(WriteError::OutOfMemory { requested: 554, used: 96, .. })));
    assert_eq!(db.store.memory().permanent_used, 0);
    let reader = db.begin();
    assert_eq!(db.total(&reader), 0);
}

#[test]
fn a_dropped_table_gives_its_memory_back() {
    let db = Database::filled(100);
    assert!(db.store.memory().permanent_used > 10_000);
    db.run(|txn| db.store.drop_table(txn, db.table).unwrap());
    assert_eq!(db.store.memory().permanent_used, 0);
}

#[test]
fn temporary_memory_is_held_until_dropped() {
    let db = Database::new();
    let mut memory = db.store.temporary_memory();
    memory.grow(1000).unwrap();
    assert_eq!(db.store.memory().temporary_used, 1000);
    assert!(memory.grow(u64::MAX / 2).is_err());
    assert_eq!(memory.bytes(), 1000);
    drop(memory);
    assert_eq!(db.store.memory().temporary_used, 0);
}

#[test]
fn a_row_with_a_null_key_is_refused() {
    let db = Database::new();
    let mut txn = db.begin();
    let columns = [0; 3].map(|_| understudy_store::Value::Null);
    let refused = db.store.insert(&mut txn, db.table, understudy_store::Row::encode(&columns));
    let not_null = WriteError::NotNull { table: "pairs".into(), column: "k".into() };
    assert_eq!(refused, Err(not_null));
    db.store.insert(&mut txn, db.table, row(1, 1)).unwrap();
}
