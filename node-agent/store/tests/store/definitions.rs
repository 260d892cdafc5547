//! Changes of definitions: visible to their own transaction, undone with it, and kept from writers.

use crate::database::{Database, pairs, row};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use understudy_store::{
    ColumnDef, DataType, ForeignKeyDef, IndexDef, Isolation, Row, TableDef, TxnId, UserDef, Value,
    View, WriteError,
};

#[test]
fn a_table_is_seen_by_its_creator_first_and_by_all_after_commit() {
    let db = Database::new();
    let mut txn = db.begin();
    let def = TableDef::new("t", vec![ColumnDef::new("a", DataType::Int4)]);
    let table = db.store.create_table(&mut txn, def.clone()).unwrap();
    db.store.insert(&mut txn, table, Row::encode(&[Value::Int(1)])).unwrap();
    assert_eq!(db.store.scan(&txn, View::Committed, table).count(), 1);
    assert!(db.begin().catalog().table("public", "t").is_none());
    let twice = db.store.create_table(&mut txn, def);
    assert!(matches!(twice, Err(WriteError::AlreadyExists { .. })));
    let lsn = db.commit(txn).unwrap();
    let reader = db.begin();
    assert!(reader.catalog().table("public", "t").is_some());
    assert_eq!(reader.depends_lsn(), lsn, "a pending definition is not promised yet");
    db.acknowledge();
    assert_eq!(db.store.scan(&db.begin(), View::Committed, table).count(), 1);
}

#[test]
fn undoing_a_statement_undoes_its_definitions() {
    let db = Database::filled(3);
    let version = db.store.catalog().version;
    let mut txn = db.begin();
    let mark = db.store.savepoint(&txn);
    let extra = IndexDef::new("extra", &[1]);
    db.store.add_index(&mut txn, db.table, extra.clone()).unwrap();
    let inner = db.store.savepoint(&txn);
    let t = TableDef::new("t", vec![ColumnDef::new("a", DataType::Int4)]);
    db.store.create_table(&mut txn, t).unwrap();
    db.store.rollback_to(&mut txn, &inner);
    assert!(txn.catalog().index("public", "extra").is_some());
    assert!(txn.catalog().table("public", "t").is_none());
    db.store.rollback_to(&mut txn, &mark);
    assert_eq!(txn.catalog().version, version);
    db.store.add_index(&mut txn, db.table, extra).unwrap();
    db.store.rollback(txn);
    assert_eq!(db.store.catalog().version, version);
    assert_eq!(db.store.memory().tables[0].indexes.len(), 2);
}

#[test]
fn an_index_over_existing_rows_serves_old_snapshots_too() {
    let db = Database::filled(3);
    let mut old = db.store.begin(Isolation::RepeatableRead);
    db.run(|txn| db.set(txn, 1, 300).unwrap());
    let index =
        db.run(|txn| db.store.add_index(txn, db.table, IndexDef::new("again", &[1])).unwrap());
    db.store.statement(&mut old);
    let keys = |txn: &_, v| {
        let rows = db.store.lookup(txn, View::Committed, index, &[Value::Int(v)]);
        rows.iter().map(|(_, r)| r.int(0).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((keys(&old, 100), keys(&old, 300)), (vec![1], vec![3]));
    let new = db.begin();
    assert_eq!((keys(&new, 100), keys(&new, 300)), (vec![], vec![1, 3]));
}

#[test]
fn a_unique_index_over_duplicates_is_refused_and_leaves_nothing() {
    let db = Database::filled(3);
    db.run(|txn| db.set(txn, 1, 300).unwrap());
    let before = db.store.memory();
    let mut txn = db.begin();
    let unique = IndexDef::new("u", &[1]).unique();
    let refused = db.store.add_index(&mut txn, db.table, unique.clone());
    let Err(WriteError::UniqueViolation { key, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(key, "(v)=(300)");
    drop(txn);
    assert_eq!(db.store.memory(), before);
    db.run(|txn| {
        db.set(txn, 1, 100).unwrap();
    });
    db.run(|txn| db.store.add_index(txn, db.table, unique).map(|_| ()).unwrap());
    let taken = db.set(&mut db.begin(), 1, 200);
    assert!(matches!(taken, Err(WriteError::UniqueViolation { .. })));
}

#[test]
fn a_long_change_of_definitions_ends_on_demand_and_leaves_nothing() {
    let db = Database::filled(3);
    let before = db.store.memory();
    let mut txn = db.begin();
    let stop = Arc::new(AtomicBool::new(true));
    txn.heed(Arc::clone(&stop));
    let stopped = Err(WriteError::Stopped);
    let index = IndexDef::new("again", &[1]);
    let built = db.store.add_index(&mut txn, db.table, index.clone());
    assert_eq!(built.map(|_| ()), stopped);
    assert_eq!(db.store.truncate(&mut txn, db.table), stopped);
    let key = ForeignKeyDef::new("itself", &[0], (db.table, &[0]));
    let table = txn.catalog().table_by_id(db.table).unwrap();
    let keyed = TableDef::clone(table).with_foreign_key(key);
    assert_eq!(db.store.alter_table(&mut txn, keyed), stopped);
    assert_eq!(db.total(&txn), 600);
    stop.store(false, Relaxed);
    db.store.add_index(&mut txn, db.table, index).unwrap();
    drop(txn);
    assert_eq!(db.store.memory(), before);
}

#[test]
fn an_index_that_is_stopped_half_way_leaves_nothing() {
    let db = Database::filled(200_000);
    let before = db.store.memory();
    let stop = Arc::new(AtomicBool::new(false));
    let mut txn = db.begin();
    txn.heed(Arc::clone(&stop));
    let built = std::thread::scope(|scope| {
        scope.spawn(|| {
            while db.store.memory().permanent_used == before.permanent_used {
                std::thread::yield_now();
            }
            stop.store(true, Relaxed);
        });
        db.store.add_index(&mut txn, db.table, IndexDef::new("again", &[1]))
    });
    assert_eq!(built.map(|_| ()), Err(WriteError::Stopped));
    assert_eq!(db.store.memory(), before);
}

#[test]
fn a_change_of_a_table_waits_for_its_writers_and_they_for_it() {
    let db = Database::filled(1);
    let mut writer = db.begin();
    db.set(&mut writer, 1, 1).unwrap();
    let mut changer = db.begin();
    let mark = db.store.statement(&mut changer);
    let blocked = db.store.truncate(&mut changer, db.table);
    assert_eq!(blocked, Err(WriteError::Blocked { on: writer.id() }));
    db.store.rollback_to(&mut changer, &mark);
    // Who wants to begin writing queues behind the change; who writes already goes on.
    let mut late = db.begin();
    assert_eq!(db.set(&mut late, 1, 2), Err(WriteError::Blocked { on: changer.id() }));
    db.set(&mut writer, 1, 3).unwrap();
    db.commit(writer).unwrap();
    db.store.statement(&mut changer);
    db.store.truncate(&mut changer, db.table).unwrap();
    assert_eq!(db.total(&changer), 0);
    let mut other = db.begin();
    let user = UserDef { name: "u".into(), scram: None, admin: false };
    let blocked = db.store.create_user(&mut other, user);
    assert_eq!(blocked, Err(WriteError::Blocked { on: changer.id() }));
    db.commit(changer).unwrap();
    db.acknowledge();
    assert_eq!(db.total(&db.begin()), 0);
}

#[test]
fn a_writer_with_older_definitions_begins_its_statement_again() {
    let db = Database::filled(1);
    let mut late = db.begin();
    db.run(|txn| {
        db.store.add_index(txn, db.table, IndexDef::new("again", &[1])).map(|_| ()).unwrap();
    });
    assert_eq!(db.set(&mut late, 1, 5), Err(WriteError::Blocked { on: TxnId::ENDED }));
    db.store.statement(&mut late);
    db.set(&mut late, 1, 5).unwrap();
}

#[test]
fn truncate_keeps_older_snapshots_whole() {
    let db = Database::filled(3);
    let old = db.store.begin(Isolation::RepeatableRead);
    db.run(|txn| db.store.truncate(txn, db.table).unwrap());
    assert_eq!((db.total(&old), db.total(&db.begin())), (600, 0));
    let mut undone = db.begin();
    db.store.statement(&mut undone);
    db.insert(&mut undone, 1, 1).unwrap();
    db.store.truncate(&mut undone, db.table).unwrap();
    db.store.rollback(undone);
    drop(old);
    db.store.reclaim(usize::MAX);
    assert_eq!(db.store.memory().permanent_used, 0);
}

#[test]
fn contradictory_definitions_are_refused() {
    let db = Database::new();
    let mut txn = db.begin();
    let mut twice = pairs();
    twice.name = "twice".into();
    twice.indexes.clear();
    twice.columns.push(twice.columns[0].clone());
    let refused = db.store.create_table(&mut txn, twice);
    assert!(matches!(refused, Err(WriteError::InvalidDefinition { .. })));
    let second_key = IndexDef { is_primary_key: true, ..IndexDef::new("k2", &[1]).unique() };
    let refused = db.store.add_index(&mut txn, db.table, second_key);
    assert!(matches!(refused, Err(WriteError::InvalidDefinition { .. })));
    let mut retyped = (**txn.catalog().table_by_id(db.table).unwrap()).clone();
    retyped.columns[1].data_type = DataType::Text;
    let refused = db.store.alter_table(&mut txn, retyped);
    assert!(matches!(refused, Err(WriteError::InvalidDefinition { .. })));
    assert!(matches!(db.store.drop_user(&mut txn, "x"), Err(WriteError::Missing { .. })));
    db.store.insert(&mut txn, db.table, row(1, 1)).unwrap();
}

#[test]
fn nulls_repeat_in_a_unique_index_and_are_found_in_its_order() {
    let db = Database::new();
    let columns = vec![ColumnDef::new("a", DataType::Int4), ColumnDef::new("b", DataType::Int4)];
    let def = TableDef::new("n", columns).with_index(IndexDef::new("n_ab", &[0, 1]).unique());
    let (table, index) = db.run(|txn| {
        let table = db.store.create_table(txn, def).unwrap();
        let index = txn.catalog().table_by_id(table).unwrap().indexes[0].id;
        for (a, b) in [(Some(1), None), (Some(1), None), (None, Some(1)), (Some(1), Some(2))] {
            let columns = [a, b].map(|v| v.map_or(Value::Null, Value::Int));
            db.store.insert(txn, table, Row::encode(&columns)).unwrap();
        }
        (table, index)
    });
    let reader = db.begin();
    let found = db.store.lookup(&reader, View::Committed, index, &[Value::Int(1)]);
    let second: Vec<_> = found.iter().map(|(_, r)| r.int(1)).collect();
    assert_eq!(second, [Some(2), None, None]);
    let nulls = db.store.lookup(&reader, View::Committed, index, &[Value::Int(1), Value::Null]);
    assert_eq!(nulls.len(), 2);
    let mut txn = db.begin();
    let again = db.store.insert(&mut txn, table, Row::encode(&[Value::Int(1), Value::Int(2)]));
    assert!(matches!(again, Err(WriteError::UniqueViolation { .. })));
}
