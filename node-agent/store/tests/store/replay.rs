//! Records applied on another member: equal content at equal LSN, and refusals.

use crate::database::{Database, LIMITS, checkpoint_of, reloaded, row};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use understudy_store::{
    ApplyError, ColumnDef, DataType, IndexDef, Isolation, MemoryLimits, MemoryReport, Row, Store,
    TableDef, TableId, Tail, UserDef, Value, View,
};
use understudy_types::Lsn;

/// Applies the whole log and compares the table after every record.
fn follow(db: &Database) -> Store {
    let follower = Store::new(LIMITS);
    for (lsn, payload) in db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
        follower.set_visible(*lsn);
    }
    assert_eq!(follower.catalog(), db.store.catalog());
    follower
}

fn assert_same(db: &Database, follower: &Store) {
    let at = db.store.committed();
    for table in db.store.catalog().tables() {
        let hashes = (db.store.content_hash(table.id, at), follower.content_hash(table.id, at));
        assert!(hashes.0.is_some());
        assert_eq!(hashes.0, hashes.1, "table {}", table.name);
    }
}

#[test]
fn a_follower_has_equal_content_at_every_lsn() {
    let db = Database::filled(20);
    let follower = follow(&db);
    for round in 0..30i64 {
        let mut txn = db.begin();
        db.set(&mut txn, round % 20 + 1, round).unwrap();
        db.insert(&mut txn, 100 + round, round).unwrap();
        let mark = db.store.savepoint(&txn);
        db.insert(&mut txn, 1000, 1).unwrap();
        db.store.rollback_to(&mut txn, &mark);
        if round > 0 {
            db.remove(&mut txn, 100 + round - 1).unwrap();
        }
        db.set(&mut txn, round % 20 + 1, round * 2).unwrap();
        let lsn = db.commit(txn).unwrap();
        db.acknowledge();
        follower.apply(lsn, &db.log.lock().last().unwrap().1).unwrap();
        assert_same(&db, &follower);
        follower.set_visible(lsn);
    }
    let reader = follower.begin(Isolation::RepeatableRead);
    let key = [Value::Int(129)];
    assert!(follower.lookup_one(&reader, View::Committed, db.by_k, &key).is_some());
    assert_eq!(follower.lookup(&reader, View::Committed, db.by_v, &[Value::Int(29)]).len(), 1);
}

#[test]
fn what_is_undone_leaves_neither_its_id_nor_its_rows_to_the_next() {
    let db = Database::new();
    let before = db.store.memory();
    let def = TableDef::new("t", vec![ColumnDef::new("a", DataType::Int4)]);
    let def = def.with_index(IndexDef::new("i", &[0]));
    let mut txn = db.begin();
    let mark = db.store.savepoint(&txn);
    let fill = |txn: &mut _| {
        let table = db.store.create_table(txn, def.clone()).unwrap();
        let row = db.store.insert(txn, table, Row::encode(&[Value::Int(1)])).unwrap();
        db.store.update(txn, table, row, Row::encode(&[Value::Int(2)])).unwrap();
        let index = txn.catalog().table_by_id(table).unwrap().indexes[0].id;
        (table, index)
    };
    let undone = fill(&mut txn);
    db.store.rollback_to(&mut txn, &mark);
    let next = fill(&mut txn);
    assert!(undone.0 != next.0 && undone.1 != next.1, "{undone:?} {next:?}");
    drop(txn);
    assert_eq!(db.store.memory(), before);
    let kept = db.run(|txn| fill(txn));
    assert!(kept.0 > next.0 && kept.1 > next.1, "{next:?} {kept:?}");
    let counted = db.store.counts().into_iter().find(|counts| counts.table == kept.0).unwrap();
    assert_eq!((counted.inserted, counted.updated, counted.live_rows), (1, 0, 1));
    db.acknowledge();
    let follower = follow(&db);
    assert_same(&db, &follower);
    // Ids may be left out, but not come again.
    let (lsn, creation) = db.log.lock().last().unwrap().clone();
    let again = follower.apply(Lsn(lsn.0 + 1), &creation);
    assert!(matches!(again, Err(ApplyError::Contradiction { .. })), "{again:?}");
}

#[test]
fn an_index_over_a_hidden_column_is_the_same_after_replay_and_from_a_checkpoint() {
    let db = Database::filled(5);
    let doubled = |v: i64| (3, Value::Int(v * 2));
    let mut txn = db.begin();
    let mut def = (**db.store.catalog().table_by_id(db.table).unwrap()).clone();
    def.columns.push(ColumnDef::hidden("(v * 2)", DataType::Int8));
    db.store.alter_table(&mut txn, def.clone()).unwrap();
    let rows: Vec<_> = db.store.scan(&txn, View::ForUpdate, db.table).collect();
    for (id, row) in rows {
        let new = row.replace(&def, &[doubled(row.int(1).unwrap())]);
        db.store.update(&mut txn, db.table, id, new).unwrap();
    }
    let index = IndexDef::new("pairs_doubled", &[3]).unique();
    let index = db.store.add_index(&mut txn, db.table, index).unwrap();
    // A column of the same name can be seen, and one behind it too.
    def.columns.push(ColumnDef::new("(v * 2)", DataType::Int4));
    db.store.alter_table(&mut txn, def).unwrap();
    let at = db.commit(txn).unwrap();
    db.acknowledge();
    let follower = follow(&db);
    assert_same(&db, &follower);
    let loaded = reloaded(&follower, at);
    for store in [&db.store, &follower, &loaded] {
        let reader = store.begin(Isolation::ReadCommitted);
        let found = store.lookup_one(&reader, View::Committed, index, &[Value::Int(600)]);
        assert_eq!(found.unwrap().1.int(0), Some(3));
        let def = reader.catalog().table_by_id(db.table).unwrap();
        assert!(def.columns[3].hidden && def.columns[3].generated.is_some());
        assert_eq!(def.column_position("(v * 2)"), Some(4));
        assert_eq!(def.shown_columns().map(|(at, _)| at).collect::<Vec<_>>(), [0, 1, 2, 4]);
    }
}

#[test]
fn a_partial_index_has_its_rows_alone_here_after_replay_and_from_a_checkpoint() {
    let db = Database::new();
    let mut txn = db.begin();
    let mut def = (**db.store.catalog().table_by_id(db.table).unwrap()).clone();
    def.columns.push(ColumnDef::new("is_open", DataType::Bool));
    db.store.alter_table(&mut txn, def).unwrap();
    let index = IndexDef::new("pairs_open", &[1]).unique().only_where(3);
    let index = db.store.add_index(&mut txn, db.table, index).unwrap();
    db.commit(txn).unwrap();
    db.acknowledge();
    let row = |k: i64, v: i64, open| {
        let values = [Value::Int(k), Value::Int(v), Value::Null, open];
        Row::encode(&values)
    };
    let (open, closed) = (Value::Bool(true), Value::Bool(false));
    let ids = db.run(|txn| {
        [(1, open.clone()), (2, closed.clone()), (3, Value::Null), (4, closed.clone())]
            .map(|(k, is_open)| db.store.insert(txn, db.table, row(k, 7, is_open)).unwrap())
    });
    let mut old = db.store.begin(Isolation::RepeatableRead);
    let mut txn = db.begin();
    let twice = db.store.update(&mut txn, db.table, ids[1], row(2, 7, open.clone()));
    assert!(matches!(twice, Err(understudy_store::WriteError::UniqueViolation { .. })));
    db.store.update(&mut txn, db.table, ids[0], row(1, 7, closed.clone())).unwrap();
    db.store.update(&mut txn, db.table, ids[1], row(2, 7, open.clone())).unwrap();
    db.store.update(&mut txn, db.table, ids[3], row(4, 8, open.clone())).unwrap();
    let at = db.commit(txn).unwrap();
    db.acknowledge();
    let find = |store: &Store, txn: &_, v| {
        let found = store.lookup_one(txn, View::Committed, index, &[Value::Int(v)]);
        found.and_then(|(_, row)| row.int(0))
    };
    assert_eq!((find(&db.store, &old, 7), find(&db.store, &old, 8)), (Some(1), None));
    db.store.statement(&mut old);
    db.store.rollback(old);
    while db.store.reclaim(100).has_more {}
    let follower = follow(&db);
    assert_same(&db, &follower);
    let loaded = reloaded(&follower, at);
    for store in [&db.store, &follower, &loaded] {
        while store.reclaim(100).has_more {}
        let reader = store.begin(Isolation::ReadCommitted);
        assert_eq!((find(store, &reader, 7), find(store, &reader, 8)), (Some(2), Some(4)));
        let memory = store.memory();
        let entries = memory.tables[0].indexes.iter().find(|i| i.index == index).unwrap().entries;
        assert_eq!(entries, 2);
    }
}

#[test]
fn definitions_travel_with_the_rows() {
    let db = Database::filled(5);
    let mut txn = db.begin();
    let mut def = (**db.store.catalog().table_by_id(db.table).unwrap()).clone();
    let late = ColumnDef::new("late", DataType::Int4).filled_with(&Value::Int(7));
    def.columns.push(late);
    db.store.alter_table(&mut txn, def.clone()).unwrap();
    let index = IndexDef::new("pairs_late", &[3]);
    let by_late = db.store.add_index(&mut txn, db.table, index).unwrap();
    let user =
        UserDef { name: "app".into(), scram: Some("SCRAM-SHA-256$…".into()), admin: false };
    db.store.create_user(&mut txn, user).unwrap();
    let (id, old) = db.store.lookup_one(&txn, View::ForUpdate, db.by_k, &[Value::Int(2)]).unwrap();
    let new = old.replace(txn.catalog().table_by_id(db.table).unwrap(), &[(3, Value::Int(8))]);
    db.store.update(&mut txn, db.table, id, new).unwrap();
    db.commit(txn).unwrap();
    db.acknowledge();
    let follower = follow(&db);
    assert_same(&db, &follower);
    for store in [&db.store, &follower] {
        let reader = store.begin(Isolation::ReadCommitted);
        let count = |v| store.lookup(&reader, View::Committed, by_late, &[Value::Int(v)]).len();
        assert_eq!((count(7), count(8)), (4, 1));
        assert!(store.catalog().user("app").is_some());
    }
    db.run(|txn| {
        db.store.truncate(txn, db.table).unwrap();
        let columns = [Value::Int(1), Value::Int(1), Value::Null, Value::Null];
        db.store.insert(txn, db.table, Row::encode(&columns)).unwrap();
        db.store.drop_index(txn, by_late).unwrap();
    });
    let again = follow(&db);
    assert_same(&db, &again);
    let reader = again.begin(Isolation::ReadCommitted);
    assert_eq!(again.scan(&reader, View::Committed, db.table).count(), 1);
    db.run(|txn| db.store.drop_table(txn, db.table).unwrap());
    assert_eq!(follow(&db).catalog().tables().count(), 0);
}

#[test]
fn a_follower_shows_nothing_above_what_is_acknowledged() {
    let db = Database::filled(1);
    let follower = follow(&db);
    let lsn = db.run(|txn| {
        db.set(txn, 1, 9).unwrap();
        Lsn(db.log.lock().len() as u64 + 1)
    });
    follower.apply(lsn, &db.log.lock().last().unwrap().1).unwrap();
    let value = || {
        let reader = follower.begin(Isolation::ReadCommitted);
        let (_, row) =
            follower.lookup_one(&reader, View::Committed, db.by_k, &[Value::Int(1)]).unwrap();
        row.int(1).unwrap()
    };
    assert_eq!((follower.committed(), value()), (lsn, 100));
    follower.set_visible(lsn);
    assert_eq!(value(), 9);
}

#[test]
fn row_numbers_that_leave_no_room_above_them_are_refused() {
    let db = Database::filled(1);
    let row = row(2, 2);
    let (table, bytes) = (db.table.0 as u8, row.as_bytes());
    let greatest = [[0xff; 9].as_slice(), &[1]].concat();
    let format = db.log.lock().last().unwrap().1[0];
    for tag in 1..=3u8 {
        let mut payload = vec![format, tag, table];
        payload.extend_from_slice(&greatest);
        if tag < 3 {
            payload.push(bytes.len() as u8);
            payload.extend_from_slice(bytes);
        }
        let follower = follow(&db);
        let refused = follower.apply(db.store.committed().next(), &payload);
        let Err(ApplyError::Malformed { reason, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(reason, format!("row number {} is beyond belief", u64::MAX));
        assert_same(&db, &follower);
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    let db = Database::filled(1);
    let follower = follow(&db);
    let (lsn, payload) = db.log.lock().last().cloned().unwrap();
    assert!(matches!(follower.apply(lsn, &payload), Err(ApplyError::Order { .. })));
    let again = follower.apply(lsn.next(), &payload);
    let Err(ApplyError::Contradiction { reason, .. }) = again else {
        panic!("the row exists: {again:?}");
    };
    assert_eq!(reason, format!("row 1 of table {} exists", db.table.0));
    let empty = Store::new(LIMITS);
    assert!(matches!(empty.apply(lsn, &payload), Err(ApplyError::Contradiction { .. })));
    let cut = &payload[..payload.len() - 1];
    let refused = Store::new(LIMITS).apply(lsn, cut);
    assert!(matches!(refused, Err(ApplyError::Malformed { .. })), "{refused:?}");
}

#[test]
fn a_record_that_does_not_fit_changes_nothing_and_fits_later() {
    let db = Database::filled(50);
    let small = MemoryLimits { permanent_bytes: 4000, temporary_bytes: 1 << 20 };
    let follower = Store::new(small);
    let log = db.log.lock().clone();
    follower.apply(log[0].0, &log[0].1).unwrap();
    let refused = follower.apply(log[1].0, &log[1].1);
    assert!(matches!(refused, Err(ApplyError::OutOfMemory { .. })));
    assert_eq!((follower.committed(), follower.memory().permanent_used), (log[0].0, 0));
    follower.set_limits(LIMITS);
    follower.apply(log[1].0, &log[1].1).unwrap();
    assert_same(&db, &follower);
}

/// Found by the fault campaign: a full active came back, and its own log did not fit any more.
#[test]
fn what_filled_one_store_fits_into_another_of_the_same_size() {
    let db = Database::new();
    let limits = MemoryLimits { permanent_bytes: 256 << 10, temporary_bytes: 1 << 20 };
    db.store.set_limits(limits);
    let filled = (1..100_000).find(|number| {
        let mut txn = db.begin();
        let inserted = db.insert(&mut txn, *number, *number);
        match inserted {
            Ok(_) => drop(db.commit(txn).unwrap()),
            Err(_) => db.store.rollback(txn),
        }
        inserted.is_err()
    });
    assert!(filled.is_some(), "the store was never full");
    let follower = Store::new(limits);
    for (lsn, payload) in db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
    }
    assert_same(&db, &follower);
    let at = follower.committed();
    follower.set_visible(at);
    let bytes = checkpoint_of(&follower, at);
    let loaded = Store::load_checkpoint(limits, at, &mut &*bytes).unwrap();
    assert_same(&db, &loaded);
}

/// What a record might take at most is many times what it takes: long keys that stay as they are, pages that
/// are there, entries that a row does not get.
#[test]
fn a_change_that_fitted_where_it_was_made_fits_where_it_is_applied() {
    let limits = MemoryLimits { permanent_bytes: 512 << 10, temporary_bytes: 1 << 20 };
    let db = Database::new();
    db.store.set_limits(limits);
    let columns = vec![
        ColumnDef::new("id", DataType::Int8),
        ColumnDef::new("email", DataType::Text),
        ColumnDef::new("body", DataType::Text),
    ];
    let by_email = IndexDef::new("by_email", &[1]);
    let def = TableDef::new("people", columns).with_primary_key(&[0]).with_index(by_email);
    let mut table = TableId(0);
    db.run(|txn| table = db.store.create_table(txn, def).unwrap());
    let person = |id: i64, body: char| {
        let body: String = std::iter::repeat_n(body, 1000).collect();
        Row::encode(&[Value::Int(id), Value::text(format!("p{id}@example.org")), Value::text(body)])
    };
    let mut ids = Vec::new();
    db.run(|txn| {
        ids = (0..180).map(|id| db.store.insert(txn, table, person(id, 'a')).unwrap()).collect();
    });
    db.run(|txn| {
        for (row, id) in ids.iter().zip(0..) {
            db.store.update(txn, table, *row, person(id, 'b')).unwrap();
        }
    });
    let follower = Store::new(limits);
    for (lsn, payload) in db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
    }
    assert_same(&db, &follower);
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Found by the fault campaign: bytes of a dropped table were given back twice, once with the table and
/// once with its old versions, and a store below zero had no room for the next record.
#[test]
fn a_table_dropped_beside_its_garbage_gives_its_memory_back_once() {
    let db = Database::filled(200);
    let follower = Store::new(LIMITS);
    let mut applied = 0;
    let mut apply = |db: &Database| {
        let log = db.log.lock();
        for (lsn, payload) in &log[applied..] {
            follower.apply(*lsn, payload).unwrap();
            follower.set_visible(*lsn);
        }
        applied = log.len();
    };
    apply(&db);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for store in [&db.store, &follower] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    store.reclaim(16);
                }
            });
        }
        // A failure ends the threads too.
        let _ends = Ends(&done);
        for round in 0..60 {
            let mut table = crate::database::pairs();
            table.name = format!("brief_{round}");
            for index in &mut table.indexes {
                index.name = format!("{}_{round}", index.name);
            }
            let mut txn = db.begin();
            let table = db.store.create_table(&mut txn, table).unwrap();
            let ids: Vec<_> =
                (0..300).map(|k| db.store.insert(&mut txn, table, row(k, k)).unwrap()).collect();
            db.commit(txn).unwrap();
            let mut txn = db.begin();
            for (k, id) in ids.iter().enumerate() {
                db.store.update(&mut txn, table, *id, row(k as i64, -1)).unwrap();
            }
            db.commit(txn).unwrap();
            db.acknowledge();
            let mut txn = db.begin();
            db.store.drop_table(&mut txn, table).unwrap();
            db.commit(txn).unwrap();
            db.acknowledge();
            apply(&db);
        }
    });
    for store in [&db.store, &follower] {
        store.reclaim(usize::MAX);
        let memory = store.memory();
        let tables: u64 = memory
            .tables
            .iter()
            .map(|t| t.row_bytes + t.indexes.iter().map(|i| i.bytes).sum::<u64>())
            .sum();
        assert_eq!(memory.permanent_used, tables);
    }
}

/// The whole log in a store that nobody else has, so many records at once.
fn recovered(db: &Database, tail: Tail, at_once: usize) -> Store {
    let mut store = Store::new(LIMITS);
    let log = db.log.lock();
    let records: Vec<_> = log.iter().map(|(lsn, payload)| (*lsn, &payload[..])).collect();
    for records in records.chunks(at_once) {
        store.replay(records, tail).unwrap();
        let end = records.last().unwrap().0;
        let visible = if tail == Tail::Stands { end } else { Lsn::ZERO };
        assert_eq!((store.visible(), store.committed()), (visible, end));
    }
    store
}

#[test]
fn a_log_that_stands_is_replayed_without_old_versions() {
    let db = Database::filled(100);
    for round in 0..50i64 {
        db.run(|txn| {
            for k in 1..=90 {
                // The second column has an index; every tenth row moves.
                let found = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &[Value::Int(k)]);
                let v = if k % 10 == 0 { round } else { k * 100 };
                let note = Value::text("x".repeat((round * 7 % 100) as usize));
                let new = Row::encode(&[Value::Int(k), Value::Int(v), note]);
                db.store.update(txn, db.table, found.unwrap().0, new).unwrap();
            }
        });
    }
    db.run(|txn| (91..=100).for_each(|k| db.remove(txn, k).unwrap()));
    db.store.reclaim(usize::MAX);
    let follower = follow(&db);
    assert!(follower.memory().reclaimable_items > 4000);
    let at = db.store.committed();
    let hash = |store: &Store| (store.content_hash(db.table, at), store.running_hash(db.table));
    for at_once in [1, 7, 1000] {
        let store = recovered(&db, Tail::Stands, at_once);
        // Nothing waits but the rows that moved, and those that went.
        assert_eq!(store.memory().reclaimable_items, 9 * 50 + 10);
        assert_eq!(hash(&store), hash(&db.store));
        // What was replaced cannot be asked for.
        assert_eq!(store.content_hash(db.table, Lsn(at.0 - 1)), None);
        store.reclaim(usize::MAX);
        assert_eq!(store.memory(), db.store.memory());
        let reader = store.begin(Isolation::ReadCommitted);
        let by_v = |v| store.lookup(&reader, View::Committed, db.by_v, &[Value::Int(v)]).len();
        assert_eq!((by_v(49), by_v(48), by_v(1100)), (9, 0, 1));
    }
}

#[test]
fn a_log_that_may_be_taken_back_keeps_what_it_replaces() {
    let db = Database::filled(10);
    let before = db.store.committed();
    let content = db.store.content_hash(db.table, before);
    db.run(|txn| (1..=10).for_each(|k| db.set(txn, k, 7).unwrap()));
    let store = recovered(&db, Tail::MayGo, 100);
    assert_same(&db, &store);
    assert_eq!(store.content_hash(db.table, before), content);
}

#[test]
fn what_memory_has_no_room_for_goes_and_reads_depend_on_the_end() {
    let db = Database::filled(100);
    for round in 0..200i64 {
        db.run(|txn| (1..=90).for_each(|k| db.set(txn, k, round * k % 7).unwrap()));
    }
    db.run(|txn| (91..=100).for_each(|k| db.remove(txn, k).unwrap()));
    db.store.reclaim(usize::MAX);
    let limit = db.store.memory().permanent_used + (64 << 10);
    let limits = MemoryLimits { permanent_bytes: limit, ..LIMITS };
    let log = db.log.lock();
    let records: Vec<_> = log.iter().map(|(lsn, payload)| (*lsn, &payload[..])).collect();
    let end = records.last().unwrap().0;
    for at_once in [1, 7, 1000] {
        let mut store = Store::new(limits);
        for records in records.chunks(at_once) {
            store.replay(records, Tail::MayGo).unwrap();
            let memory = store.memory();
            assert!(memory.permanent_used <= limit + limit / 8);
            // While older states are kept, the notes about them count too: 96 bytes each, as the queue grows.
            let notes = 96 * memory.reclaimable_items;
            let one_record = 16 << 10;
            let is_kept = store.visible() == Lsn::ZERO;
            assert!(!is_kept || memory.permanent_used + notes <= limit + one_record);
        }
        assert_same(&db, &store);
        // Older states are not there, and the end is nobody's word yet.
        assert_eq!((store.acknowledged(), store.visible()), (Lsn::ZERO, end));
        assert_eq!(store.content_hash(db.table, Lsn(end.0 - 1)), None);
        assert!(store.write_checkpoint(end, &mut Vec::new()).is_err());
        let depends = || store.begin(Isolation::ReadCommitted).depends_lsn();
        assert_eq!(depends(), end);
        store.set_visible(Lsn(end.0 - 1));
        assert_eq!((depends(), store.visible()), (end, end));
        store.set_visible(end);
        assert_eq!((depends(), store.acknowledged()), (Lsn::ZERO, end));
        store.write_checkpoint(end, &mut Vec::new()).unwrap();
        store.reclaim(usize::MAX);
        assert_eq!(store.memory(), MemoryReport { permanent_limit: limit, ..db.store.memory() });
    }
}

#[test]
fn a_reader_of_a_store_that_is_replayed_keeps_its_snapshot() {
    let db = Database::filled(3);
    let mut store = recovered(&db, Tail::Stands, 100);
    let reader = store.begin(Isolation::RepeatableRead);
    let handle = store.clone();
    db.run(|txn| db.set(txn, 1, 7).unwrap());
    let (lsn, payload) = db.log.lock().last().unwrap().clone();
    store.replay(&[(lsn, &payload)], Tail::Stands).unwrap();
    let value = |txn: &understudy_store::Txn| {
        let found = handle.lookup_one(txn, View::Committed, db.by_k, &[Value::Int(1)]);
        found.unwrap().1.int(1)
    };
    assert_eq!(value(&reader), Some(100));
    assert_eq!(value(&handle.begin(Isolation::ReadCommitted)), Some(7));
}

#[test]
fn a_record_that_is_refused_in_a_replay_leaves_those_before_it() {
    let db = Database::filled(5);
    (1..=5).for_each(|k| db.run(|txn| db.set(txn, k, 7).unwrap()));
    let log = db.log.lock().clone();
    let mut records: Vec<_> = log.iter().map(|(lsn, payload)| (*lsn, &payload[..])).collect();
    let (last, payload) = records.pop().unwrap();
    let end = records.last().unwrap().0;
    records.push((last, &payload[..payload.len() - 1]));
    let mut store = Store::new(LIMITS);
    let refused = store.replay(&records, Tail::Stands);
    assert!(matches!(refused, Err(ApplyError::Malformed { lsn, .. }) if lsn == last));
    assert_eq!((store.committed(), store.visible()), (end, end));
    // A row that was looked for and is not changed after all.
    let again = store.replay(&[(end, payload), (last, payload)], Tail::Stands);
    assert!(matches!(again, Err(ApplyError::Order { .. })));
    store.replay(&[(last, payload)], Tail::Stands).unwrap();
    assert_same(&db, &store);
}

/// What a transaction does to a row, and how many do it.
fn steps() -> impl Strategy<Value = Vec<Vec<(i64, u8)>>> {
    proptest::collection::vec(proptest::collection::vec((1i64..40, 0u8..12), 1..6), 1..60)
}

proptest! {
    /// Rows that come, change, move and go, within records that are looked at together, between changes of
    /// definitions.
    #[test]
    fn a_replay_ends_where_one_record_after_the_other_does(steps in steps(), at_once in 1usize..70) {
        let db = Database::filled(20);
        for step in steps {
            let mut txn = db.begin();
            for (k, what) in step {
                let key = [Value::Int(k)];
                let is_here = db.store.lookup_one(&txn, View::ForUpdate, db.by_k, &key).is_some();
                let mark = db.store.savepoint(&txn);
                // Also refused: a key that is there, a name that is taken.
                let done = match what {
                    0..6 | 8..10 if !is_here => continue,
                    0..4 => db.set(&mut txn, k, k * 100).is_ok(),
                    4..6 => db.set(&mut txn, k, i64::from(what)).is_ok(),
                    6..8 => db.insert(&mut txn, k, k).is_ok(),
                    8..10 => db.remove(&mut txn, k).is_ok(),
                    10 => db.store.truncate(&mut txn, db.table).is_ok(),
                    _ => {
                        let index = IndexDef::new(format!("more_{k}"), &[1, 0]);
                        db.store.add_index(&mut txn, db.table, index).is_ok()
                    }
                };
                if !done {
                    db.store.rollback_to(&mut txn, &mark);
                }
            }
            db.commit(txn).unwrap();
            db.acknowledge();
        }
        db.store.reclaim(usize::MAX);
        for tail in [Tail::Stands, Tail::MayGo] {
            let store = recovered(&db, tail, at_once);
            assert_same(&db, &store);
            store.set_visible(store.committed());
            store.reclaim(usize::MAX);
            prop_assert_eq!(store.memory(), db.store.memory());
        }
    }
}

#[test]
fn a_row_that_came_and_went_leaves_nothing_in_the_log() {
    let db = Database::filled(1);
    let mut txn = db.begin();
    let id = db.insert(&mut txn, 5, 5).unwrap();
    db.store.update(&mut txn, db.table, id, row(6, 6)).unwrap();
    db.store.delete(&mut txn, db.table, id).unwrap();
    assert!(db.store.redo(&txn).len() <= 1);
}
