//! Pages of rows, two rows each here: one that goes with its last row while another row comes into it, and
//! somebody who reads the table beside that.

use crate::{Database, in_many_orders, row, statement, threads};
use understudy_store_shuttle::{Isolation, Value, View};

/// What a row with two index entries, and a page, are charged.
const ROW: u64 = 96 + 2 * 42;
const PAGE: u64 = 554;

/// Reads the table twice in one snapshot; the row with key 1 is always there.
fn read(db: &Database) {
    let reader = db.store.begin(Isolation::RepeatableRead);
    let first = db.pairs(&reader);
    assert_eq!(first.first(), Some(&(1, 100)), "{first:?}");
    assert_eq!(db.pairs(&reader), first, "a snapshot stands");
}

/// What is left when everything has ended: the rows, each found by its key as well, and nothing charged
/// beside them.
fn is_left(db: &Database, keys: &[i64], pages: u64) {
    db.acknowledge();
    let count = keys.len() as u64;
    assert_eq!(db.entries(), [count, count]);
    let reader = db.begin();
    let found: Vec<i64> = db.pairs(&reader).iter().map(|(k, _)| *k).collect();
    assert_eq!(found, keys);
    assert!(keys.iter().all(|k| db.find(&reader, View::Committed, *k).is_some()));
    let memory = db.store.memory();
    assert_eq!(memory.tables[0].rows, count);
    assert_eq!(memory.permanent_used, count * ROW + pages * PAGE);
}

#[test]
fn a_page_that_is_emptied_by_a_rollback_takes_the_row_that_comes_meanwhile() {
    in_many_orders(|| {
        // The next two rows share a page.
        let db = Database::filled(1);
        threads(3, &db, |db, i| {
            if i == 2 {
                return read(db);
            }
            let mut txn = db.begin();
            statement(db, &mut txn, |txn| db.store.insert(txn, db.table, row(10 + i, 1))).unwrap();
            if i == 0 {
                db.store.rollback(txn);
            } else {
                db.commit(txn).unwrap();
                db.acknowledge();
            }
        });
        is_left(&db, &[1, 11], 2);
    });
}

#[test]
fn a_page_that_is_emptied_by_reclamation_takes_the_row_that_comes_meanwhile() {
    in_many_orders(|| {
        // The second row has a page that the third will share.
        let db = Database::filled(2);
        threads(3, &db, |db, i| {
            if i == 2 {
                return read(db);
            }
            let mut txn = db.begin();
            let done = statement(db, &mut txn, |txn| {
                if i == 1 {
                    return db.store.insert(txn, db.table, row(11, 1)).map(|_| ());
                }
                let key = [Value::Int(2)];
                let found = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &key);
                db.store.delete(txn, db.table, found.unwrap().0)
            });
            done.unwrap();
            db.commit(txn).unwrap();
            db.acknowledge();
            db.store.reclaim(10);
        });
        is_left(&db, &[1, 11], 2);
    });
}
