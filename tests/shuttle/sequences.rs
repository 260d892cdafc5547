//! Sequences: no number twice, beside blocks that run out and somebody who has the sequence alone.

use crate::{Database, in_many_orders, statement, threads};
use std::{collections::BTreeSet, convert::Infallible, sync::Arc};
use understudy_store_shuttle::{
    DataType, SequenceDef, SequenceError, TableDef, TableId, WriteError,
};

fn with_sequence() -> (Arc<Database>, TableId) {
    let db = Database::filled(0);
    let mut txn = db.begin();
    let def = SequenceDef {
        data_type: DataType::Int8,
        increment: 1,
        min: 1,
        max: i64::MAX,
        start: 1,
        cache: 1,
        cycle: false,
        owner: None,
    };
    let id = db.store.create_sequence(&mut txn, TableDef::new_sequence("s", def)).unwrap();
    db.commit(txn).unwrap();
    db.acknowledge();
    (db, id)
}

/// The next number, in a transaction of its own.
fn next(db: &Database, id: TableId) -> i64 {
    let mut txn = db.begin();
    let given = statement(db, &mut txn, |txn| {
        let reserve = |small| Ok::<_, Infallible>(db.commit(small).unwrap());
        match db.store.next_value(txn, id, reserve) {
            Ok(next) => Ok(next.value),
            Err(SequenceError::Write(refused)) => Err(refused),
            Err(other) => panic!("{other:?}"),
        }
    });
    given.unwrap()
}

#[test]
fn no_number_comes_twice() {
    in_many_orders(|| {
        let (db, id) = with_sequence();
        // The block of the first number is used up while the threads run.
        for _ in 0..32 {
            next(&db, id);
        }
        let given = Arc::new(understudy_shuttle_locks::Mutex::new(Vec::new()));
        let all = Arc::clone(&given);
        threads(3, &db, move |db, i| {
            if i == 2 {
                // Has it alone, and gives it back unchanged.
                let mut txn = db.begin();
                let taken = statement(db, &mut txn, |txn| {
                    let def = txn.catalog().table_by_id(id).cloned();
                    let def = def.ok_or(WriteError::Missing { what: "s".to_owned() })?;
                    db.store.alter_sequence(txn, (*def).clone(), Some(1))
                });
                assert!(taken.is_ok() || taken == Err(WriteError::Serialization), "{taken:?}");
                return db.store.rollback(txn);
            }
            for _ in 0..2 {
                let number = next(db, id);
                all.lock().push(number);
            }
        });
        let given = given.lock();
        let distinct: BTreeSet<_> = given.iter().collect();
        assert_eq!(distinct.len(), 4, "{given:?}");
    });
}
