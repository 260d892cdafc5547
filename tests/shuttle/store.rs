//! The store under many interleavings (`understudy_shuttle_locks`): version chains, unique keys, lock waits,
//! commit, reclamation, pages of rows, and reading beside all of them.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod pages;
mod references;
mod sequences;

use std::sync::Arc;
use understudy_shuttle_locks::{Mutex, future::block_on, in_many_orders, thread};
use understudy_store_shuttle::{
    ColumnDef, DataType, Direction, IndexDef, IndexId, Isolation, KeyBounds, MemoryLimits, Row,
    SerializationFailure, Store, TableDef, TableId, Txn, Value, View, WriteError,
};
use understudy_types::Lsn;

/// A store with a log around it, and the table `pairs (k bigint primary key, v bigint)` with an index on `v`.
struct Database {
    store: Store,
    table: TableId,
    by_k: IndexId,
    by_v: IndexId,
    /// Payloads by LSN; the lock is the commit section.
    log: Mutex<Vec<(Lsn, Vec<u8>)>>,
}

fn row(k: i64, v: i64) -> Row {
    Row::encode(&[Value::Int(k), Value::Int(v)])
}

fn pair(row: &Row) -> (i64, i64) {
    (row.int(0).unwrap(), row.int(1).unwrap())
}

fn empty() -> Store {
    Store::new(MemoryLimits { permanent_bytes: 1 << 24, temporary_bytes: 1 << 20 })
}

impl Database {
    /// Rows 1 to `count`, each with 100.
    fn filled(count: i64) -> Arc<Database> {
        let store = empty();
        let mut txn = store.begin(Isolation::ReadCommitted);
        let columns =
            vec![ColumnDef::new("k", DataType::Int8), ColumnDef::new("v", DataType::Int8)];
        let definition = TableDef::new("pairs", columns)
            .with_primary_key(&[0])
            .with_index(IndexDef::new("pairs_v", &[1]));
        let table = store.create_table(&mut txn, definition).unwrap();
        let indexes = &txn.catalog().table_by_id(table).unwrap().indexes;
        let (by_k, by_v) = (indexes[0].id, indexes[1].id);
        let db = Database { store, table, by_k, by_v, log: Mutex::default() };
        for k in 1..=count {
            db.store.insert(&mut txn, table, row(k, 100)).unwrap();
        }
        db.commit(txn).unwrap();
        db.acknowledge();
        Arc::new(db)
    }

    fn begin(&self) -> Txn {
        self.store.begin(Isolation::ReadCommitted)
    }

    /// The commit section; not acknowledged yet.
    fn commit(&self, txn: Txn) -> Result<Lsn, SerializationFailure> {
        let mut log = self.log.lock();
        if let Err(failure) = self.store.validate(&txn) {
            self.store.rollback(txn);
            return Err(failure);
        }
        let payload = self.store.redo(&txn);
        let lsn = Lsn(log.len() as u64 + 1);
        if !payload.is_empty() {
            log.push((lsn, payload));
        }
        self.store.commit(txn, lsn);
        Ok(lsn)
    }

    /// Everything committed so far becomes visible.
    fn acknowledge(&self) {
        let end = Lsn(self.log.lock().len() as u64);
        self.store.set_visible(end);
    }

    fn find(&self, txn: &Txn, view: View, k: i64) -> Option<Row> {
        self.store.lookup_one(txn, view, self.by_k, &[Value::Int(k)]).map(|(_, row)| row)
    }

    fn add(&self, txn: &mut Txn, k: i64, amount: i64) -> Result<(), WriteError> {
        let key = [Value::Int(k)];
        let (id, old) = self.store.lookup_one(txn, View::ForUpdate, self.by_k, &key).unwrap();
        self.store.update(txn, self.table, id, row(k, pair(&old).1 + amount))
    }

    /// All pairs in key order, as a plain reader sees them.
    fn pairs(&self, txn: &Txn) -> Vec<(i64, i64)> {
        let scan = self.store.scan(txn, View::Committed, self.table);
        let mut pairs: Vec<_> = scan.map(|(_, row)| pair(&row)).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Index entries of both indexes, after everything that can be freed is freed.
    fn entries(&self) -> Vec<u64> {
        self.store.reclaim(usize::MAX);
        let memory = self.store.memory();
        memory.tables[0].indexes.iter().map(|index| index.entries).collect()
    }
}

/// Runs a READ COMMITTED statement until nobody blocks it; Serialization stands for a deadlock.
fn statement<T>(
    db: &Database,
    txn: &mut Txn,
    mut work: impl FnMut(&mut Txn) -> Result<T, WriteError>,
) -> Result<T, WriteError> {
    loop {
        let mark = db.store.statement(txn);
        match work(txn) {
            Err(WriteError::Blocked { on }) => {
                db.store.rollback_to(txn, &mark);
                match db.store.wait(txn, on) {
                    Ok(wait) => block_on(wait),
                    Err(_) => return Err(WriteError::Serialization),
                }
                // A commit that is half stamped goes on first.
                thread::yield_now();
            }
            done => return done,
        }
    }
}

/// Runs one closure per thread, each with its number.
fn threads(count: i64, db: &Arc<Database>, work: impl Fn(&Database, i64) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let all: Vec<_> = (0..count)
        .map(|i| {
            let (db, work) = (Arc::clone(db), Arc::clone(&work));
            thread::spawn(move || work(&db, i))
        })
        .collect();
    all.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_hot_row_counts_every_increment_and_no_wake_up_is_lost() {
    in_many_orders(|| {
        let db = Database::filled(1);
        threads(3, &db, |db, _| {
            for _ in 0..2 {
                let mut txn = db.begin();
                statement(db, &mut txn, |txn| db.add(txn, 1, 1)).unwrap();
                db.commit(txn).unwrap();
            }
        });
        db.acknowledge();
        assert_eq!(db.pairs(&db.begin()), [(1, 106)]);
        assert_eq!(db.entries(), [1, 1]);
    });
}

#[test]
fn every_reader_sees_whole_transfers_while_versions_are_freed() {
    in_many_orders(|| {
        let db = Database::filled(2);
        threads(3, &db, |db, i| {
            if i == 0 {
                let reader = db.store.begin(Isolation::RepeatableRead);
                db.store.reclaim(10);
                let first = db.pairs(&reader);
                assert_eq!(first.iter().map(|(_, v)| v).sum::<i64>(), 200, "{first:?}");
                assert_eq!(db.pairs(&reader), first, "a snapshot stands");
                let by_v = db.store.range(
                    &reader,
                    View::Committed,
                    db.by_v,
                    &KeyBounds::all(),
                    Direction::Ascending,
                );
                let mut seen: Vec<_> = by_v.map(|(_, row)| pair(&row)).collect();
                seen.sort_unstable();
                assert_eq!(seen, first, "an index shows what the table shows");
                return;
            }
            let mut txn = db.begin();
            let (from, to) = if i == 1 { (1, 2) } else { (2, 1) };
            let moved = statement(db, &mut txn, |txn| db.add(txn, from, -i))
                .and_then(|()| statement(db, &mut txn, |txn| db.add(txn, to, i)));
            match moved {
                Ok(()) => {
                    db.commit(txn).unwrap();
                }
                Err(WriteError::Serialization) => db.store.rollback(txn),
                Err(other) => panic!("{other}"),
            }
            db.acknowledge();
            db.store.reclaim(10);
        });
        db.acknowledge();
        assert_eq!(db.pairs(&db.begin()).iter().map(|(_, v)| v).sum::<i64>(), 200);
        assert_eq!(db.entries(), [2, 2]);
    });
}

#[test]
fn of_two_that_insert_a_key_one_succeeds_unless_the_other_gives_it_up() {
    in_many_orders(|| {
        let db = Database::filled(0);
        let kept = Arc::new(Mutex::new(0));
        let count = Arc::clone(&kept);
        threads(3, &db, move |db, i| {
            let mut txn = db.begin();
            match statement(db, &mut txn, |txn| db.store.insert(txn, db.table, row(7, i))) {
                Ok(_) if i == 2 => db.store.rollback(txn),
                Ok(_) => {
                    db.commit(txn).unwrap();
                    *count.lock() += 1;
                }
                Err(WriteError::UniqueViolation { .. }) => db.store.rollback(txn),
                Err(other) => panic!("{other}"),
            }
        });
        db.acknowledge();
        assert_eq!(*kept.lock(), 1);
        assert_eq!(db.pairs(&db.begin()).len(), 1);
        assert_eq!(db.entries(), [1, 1]);
    });
}

#[test]
fn a_key_that_is_deleted_and_inserted_leaves_one_row_at_most() {
    in_many_orders(|| {
        let db = Database::filled(1);
        threads(2, &db, |db, i| {
            let mut txn = db.begin();
            let done = statement(db, &mut txn, |txn| {
                let key = [Value::Int(1)];
                if let Some((id, _)) = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &key) {
                    db.store.delete(txn, db.table, id)?;
                }
                db.store.insert(txn, db.table, row(1, i)).map(|_| ())
            });
            match done {
                Ok(()) => {
                    db.commit(txn).unwrap();
                }
                Err(WriteError::UniqueViolation { .. }) => db.store.rollback(txn),
                Err(other) => panic!("{other}"),
            }
            db.acknowledge();
            db.store.reclaim(10);
            assert_eq!(db.pairs(&db.begin()).len(), 1);
        });
        assert_eq!(db.entries(), [1, 1]);
    });
}

#[test]
fn two_serializable_transactions_do_not_skew() {
    in_many_orders(|| {
        let db = Database::filled(2);
        threads(2, &db, |db, i| {
            let mut txn = db.store.begin(Isolation::Serializable);
            let value = |k| db.find(&txn, View::Committed, k).map_or(0, |row| pair(&row).1);
            // Either alone may go below zero as long as the sum does not.
            if value(1) + value(2) >= 150 && db.add(&mut txn, i + 1, -150).is_ok() {
                let _ = db.commit(txn);
            }
        });
        db.acknowledge();
        let sum: i64 = db.pairs(&db.begin()).iter().map(|(_, v)| v).sum();
        assert!(sum >= 0, "both took: {sum}");
    });
}

#[test]
fn a_row_that_changed_is_taken_as_it_is_now() {
    in_many_orders(|| {
        let db = Database::filled(1);
        threads(2, &db, |db, _| {
            let mut txn = db.begin();
            // One statement on one snapshot, as UPDATE runs it.
            statement(db, &mut txn, |txn| {
                let key = [Value::Int(1)];
                let (id, old) = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &key).unwrap();
                let new = |old: &Row| row(1, pair(old).1 + 1);
                match db.store.update(txn, db.table, id, new(&old)) {
                    Err(WriteError::Blocked { on })
                        if on == understudy_store_shuttle::TxnId::ENDED =>
                    {
                        let newest = db.store.lock_newest(txn, db.table, id)?.unwrap();
                        db.store.update(txn, db.table, id, new(&newest))
                    }
                    done => done,
                }
            })
            .unwrap();
            db.commit(txn).unwrap();
        });
        db.acknowledge();
        assert_eq!(db.pairs(&db.begin()), [(1, 102)]);
    });
}

#[test]
fn an_index_built_beside_a_writer_misses_nothing() {
    in_many_orders(|| {
        let db = Database::filled(2);
        threads(2, &db, |db, i| {
            let mut txn = db.begin();
            if i == 0 {
                let index = statement(db, &mut txn, |txn| {
                    db.store.add_index(txn, db.table, IndexDef::new("extra", &[1]))
                });
                let index = index.unwrap();
                db.commit(txn).unwrap();
                db.acknowledge();
                let reader = db.begin();
                let all = KeyBounds::all();
                let found =
                    db.store.range(&reader, View::Committed, index, &all, Direction::Ascending);
                assert_eq!(found.count(), db.pairs(&reader).len());
                return;
            }
            let changed = statement(db, &mut txn, |txn| db.add(txn, 1, 5)).and_then(|()| {
                statement(db, &mut txn, |txn| db.store.insert(txn, db.table, row(9, 9)))
            });
            changed.unwrap();
            db.commit(txn).unwrap();
            db.acknowledge();
        });
        db.acknowledge();
        assert_eq!(db.entries(), [3, 3, 3]);
    });
}

#[test]
fn a_follower_shows_whole_records_while_it_applies() {
    in_many_orders(|| {
        let db = Database::filled(2);
        for i in 1..3 {
            let mut txn = db.begin();
            db.add(&mut txn, 1, -i).unwrap();
            db.add(&mut txn, 2, i).unwrap();
            db.commit(txn).unwrap();
            db.acknowledge();
        }
        let follower = Arc::new(Database {
            store: empty(),
            table: db.table,
            by_k: db.by_k,
            by_v: db.by_v,
            log: Mutex::default(),
        });
        let log = db.log.lock().clone();
        follower.store.apply(log[0].0, &log[0].1).unwrap();
        follower.store.set_visible(log[0].0);
        threads(2, &follower, move |follower, i| {
            if i == 0 {
                for (lsn, payload) in &log[1..] {
                    follower.store.apply(*lsn, payload).unwrap();
                    follower.store.set_visible(*lsn);
                    follower.store.reclaim(10);
                }
                return;
            }
            let reader = follower.store.begin(Isolation::RepeatableRead);
            let pairs = follower.pairs(&reader);
            assert_eq!(pairs.iter().map(|(_, v)| v).sum::<i64>(), 200, "{pairs:?}");
            assert_eq!(follower.pairs(&reader), pairs);
        });
        assert_eq!(follower.pairs(&follower.begin()), db.pairs(&db.begin()));
        assert_eq!(follower.entries(), [2, 2]);
    });
}
