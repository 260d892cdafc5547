//! Real threads: invariants that only hold when every interleaving is right.

use crate::database::{Database, pair, row};
use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};
use understudy_store::{
    Direction, IndexDef, Isolation, KeyBounds, LockWait, Row, Txn, Value, View, WriteError,
};

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits as a session would, but fails the test instead of hanging.
fn block_on(wait: LockWait) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut wait = pin!(wait);
    while wait.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
        thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
        assert!(Instant::now() < deadline, "a wake-up was lost");
    }
}

/// Runs a READ COMMITTED statement until it is not blocked; Err on a deadlock.
pub(crate) fn statement<T>(
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
            }
            other => return other,
        }
    }
}

/// A generator of numbers, one per thread.
pub(crate) fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

pub(crate) fn on_threads(count: u64, work: impl Fn(u64) + Send + Sync) {
    thread::scope(|scope| {
        let work = &work;
        (0..count).for_each(|i| {
            scope.spawn(move || work(i));
        });
    });
}

fn add(db: &Database, txn: &mut Txn, k: i64, amount: i64) -> Result<(), WriteError> {
    let key = [Value::Int(k)];
    let (id, old) = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &key).unwrap();
    db.store.update(txn, db.table, id, row(k, pair(&old).1 + amount))
}

#[test]
fn a_hot_row_counts_every_increment() {
    let db = Database::filled(1);
    on_threads(4, |_| {
        for _ in 0..500 {
            let mut txn = db.begin();
            statement(&db, &mut txn, |txn| add(&db, txn, 1, 1)).unwrap();
            db.commit(txn).unwrap();
        }
    });
    db.acknowledge();
    assert_eq!(db.value(&db.begin(), 1), Some(100 + 4 * 500));
}

#[test]
fn transfers_keep_the_sum_for_every_reader_and_deadlocks_are_resolved() {
    let db = Database::filled(10);
    let running = AtomicU64::new(3);
    let deadlocks = AtomicU64::new(0);
    on_threads(5, |i| {
        if i >= 3 {
            // A reader with its own snapshot, and reclamation beside it.
            while running.load(SeqCst) > 0 {
                let reader = db.store.begin(Isolation::RepeatableRead);
                assert_eq!(db.total(&reader), 5500);
                let all = KeyBounds::all();
                let by_v =
                    db.store.range(&reader, View::Committed, db.by_v, &all, Direction::Descending);
                let values: Vec<_> = by_v.map(|(_, r)| pair(&r).1).collect();
                assert_eq!((values.len(), values.iter().sum::<i64>()), (10, 5500));
                assert!(values.is_sorted_by(|a, b| a >= b));
                drop(reader);
                db.store.reclaim(100);
            }
            return;
        }
        let mut next = numbers(i + 1);
        let mut done = 0;
        while done < 400 {
            let (from, to) = (next(10) as i64 + 1, next(10) as i64 + 1);
            let mut txn = db.begin();
            let amount = next(50) as i64;
            let result = statement(&db, &mut txn, |txn| add(&db, txn, from, -amount))
                .and_then(|()| statement(&db, &mut txn, |txn| add(&db, txn, to, amount)));
            match result {
                Ok(()) => {
                    db.commit(txn).unwrap();
                    db.acknowledge();
                    done += 1;
                }
                Err(WriteError::Serialization) => {
                    deadlocks.fetch_add(1, SeqCst);
                    db.store.rollback(txn);
                }
                Err(other) => panic!("{other}"),
            }
        }
        running.fetch_sub(1, SeqCst);
    });
    assert_eq!(db.total(&db.begin()), 5500);
    let end = db.store.visible();
    let follower = understudy_store::Store::new(crate::database::LIMITS);
    for (lsn, payload) in db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
    }
    assert_eq!(follower.content_hash(db.table, end), db.store.content_hash(db.table, end));
}

#[test]
fn of_many_inserts_of_one_key_exactly_one_succeeds() {
    let db = Database::new();
    let inserted = AtomicU64::new(0);
    on_threads(4, |i| {
        for k in 0..300 {
            let mut txn = db.begin();
            match statement(&db, &mut txn, |txn| db.insert(txn, k, i as i64)) {
                // Every third owner gives the key up again.
                Ok(_) if (k + i as i64) % 3 == 0 => db.store.rollback(txn),
                Ok(_) => {
                    inserted.fetch_add(1, SeqCst);
                    db.commit(txn).unwrap();
                }
                Err(WriteError::UniqueViolation { .. }) => db.store.rollback(txn),
                Err(other) => panic!("{other}"),
            }
        }
    });
    db.acknowledge();
    let reader = db.begin();
    let mut keys: Vec<_> =
        db.store.scan(&reader, View::Committed, db.table).map(|(_, r)| pair(&r).0).collect();
    assert_eq!(keys.len() as u64, inserted.load(SeqCst));
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len() as u64, inserted.load(SeqCst));
}

#[test]
fn deleting_and_inserting_one_key_leaves_at_most_one_row() {
    let db = Database::filled(1);
    on_threads(4, |i| {
        for round in 0..300 {
            let mut txn = db.begin();
            let result = statement(&db, &mut txn, |txn| {
                let key = [Value::Int(1)];
                match db.store.lookup_one(txn, View::ForUpdate, db.by_k, &key) {
                    Some((id, _)) if round % 2 == 0 => {
                        db.store.delete(txn, db.table, id)?;
                        db.insert(txn, 1, i as i64).map(|_| ())
                    }
                    Some((id, _)) => db.store.delete(txn, db.table, id),
                    None => db.insert(txn, 1, i as i64).map(|_| ()),
                }
            });
            match result {
                Ok(()) => drop(db.commit(txn).unwrap()),
                Err(WriteError::UniqueViolation { .. } | WriteError::Serialization) => {}
                Err(other) => panic!("{other}"),
            }
            db.acknowledge();
            let reader = db.begin();
            assert!(db.store.scan(&reader, View::Committed, db.table).count() <= 1);
            drop(reader);
            db.store.reclaim(10);
        }
    });
    db.store.reclaim(usize::MAX);
    let rows = db.store.scan(&db.begin(), View::Committed, db.table).count() as u64;
    let memory = db.store.memory();
    assert_eq!((memory.tables[0].rows, memory.tables[0].indexes[0].entries), (rows, rows));
}

#[test]
fn serializable_transactions_behave_as_one_after_the_other() {
    // Each takes from a row only while the sum of both allows it; snapshots alone would not.
    let db = Database::filled(2);
    on_threads(4, |i| {
        for _ in 0..300 {
            let mut txn = db.store.begin(Isolation::Serializable);
            let sum = db.value(&txn, 1).unwrap() + db.value(&txn, 2).unwrap();
            let amount = if sum >= 60 { -60 } else { 45 };
            let written = add(&db, &mut txn, (i % 2) as i64 + 1, amount);
            if written.is_ok() && db.commit(txn).is_ok() {
                db.acknowledge();
            }
        }
        let reader = db.begin();
        let sum = db.value(&reader, 1).unwrap() + db.value(&reader, 2).unwrap();
        assert!(sum >= 0, "the sum fell to {sum}");
    });
}

#[test]
fn a_follower_is_read_consistently_while_it_applies() {
    let db = Database::filled(10);
    for round in 0..300i64 {
        db.run(|txn| {
            add(&db, txn, round % 10 + 1, -5).unwrap();
            add(&db, txn, (round * 7) % 10 + 1, 5).unwrap();
            db.insert(txn, 1000 + round, 0).unwrap();
            if round > 3 {
                db.remove(txn, 1000 + round - 3).unwrap();
            }
        });
    }
    let follower = understudy_store::Store::new(crate::database::LIMITS);
    let log = db.log.lock().clone();
    for (lsn, payload) in &log[..2] {
        follower.apply(*lsn, payload).unwrap();
        follower.set_visible(*lsn);
    }
    let done = AtomicBool::new(false);
    on_threads(2, |i| {
        if i == 0 {
            for (lsn, payload) in &log[2..] {
                follower.apply(*lsn, payload).unwrap();
                follower.set_visible(*lsn);
                follower.reclaim(20);
            }
            done.store(true, SeqCst);
        }
        while !done.load(SeqCst) {
            let reader = follower.begin(Isolation::RepeatableRead);
            let rows = follower.scan(&reader, View::Committed, db.table);
            let values: Vec<_> = rows.map(|(_, r): (_, Row)| pair(&r)).collect();
            assert_eq!(values.iter().map(|(_, v)| v).sum::<i64>(), 5500);
            for (k, v) in values.iter().take(3) {
                let key = [Value::Int(*k)];
                let (_, found) =
                    follower.lookup_one(&reader, View::Committed, db.by_k, &key).unwrap();
                assert_eq!(pair(&found), (*k, *v));
            }
        }
    });
    let end = db.store.committed();
    assert_eq!(follower.content_hash(db.table, end), db.store.content_hash(db.table, end));
}

#[test]
fn an_index_built_beside_writers_misses_nothing() {
    let db = Database::filled(50);
    let building = AtomicBool::new(true);
    on_threads(3, |i| {
        if i == 0 {
            for round in 0..20 {
                let mut txn = db.begin();
                let name = format!("extra_{round}");
                let index = statement(&db, &mut txn, |txn| {
                    db.store.add_index(txn, db.table, IndexDef::new(name.clone(), &[1]))
                });
                let index = index.unwrap();
                db.commit(txn).unwrap();
                db.acknowledge();
                let reader = db.begin();
                let all = KeyBounds::all();
                let found = |index| {
                    let scan =
                        db.store.range(&reader, View::Committed, index, &all, Direction::Ascending);
                    scan.map(|(id, _)| id).collect::<Vec<_>>()
                };
                assert_eq!(found(index), found(db.by_v));
                drop(reader);
                let mut txn = db.begin();
                statement(&db, &mut txn, |txn| db.store.drop_index(txn, index)).unwrap();
                db.commit(txn).unwrap();
            }
            building.store(false, SeqCst);
            return;
        }
        let mut next = numbers(i + 7);
        while building.load(SeqCst) {
            let mut txn = db.begin();
            let k = next(50) as i64 + 1;
            let v = next(30) as i64;
            let done = statement(&db, &mut txn, |txn| db.set(txn, k, v));
            if done.is_ok() {
                db.commit(txn).unwrap();
                db.acknowledge();
            }
            db.store.reclaim(16);
        }
    });
    db.store.reclaim(usize::MAX);
    let memory = db.store.memory();
    let entries: Vec<_> = memory.tables[0].indexes.iter().map(|i| i.entries).collect();
    assert_eq!(entries, [50, 50]);
}
