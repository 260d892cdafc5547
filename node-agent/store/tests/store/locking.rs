//! Row locks, waiting, deadlocks, savepoints.

use crate::database::{Database, pair, row};
use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};
use understudy_store::{TxnId, Value, View, WriteError};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_waiter_is_woken_when_the_holder_ends() {
    let db = Database::filled(1);
    let (mut holder, mut waiter) = (db.begin(), db.begin());
    db.set(&mut holder, 1, 1).unwrap();
    let Err(WriteError::Blocked { on }) = db.set(&mut waiter, 1, 2) else {
        panic!("the row is held");
    };
    assert_eq!(on, holder.id());
    let mut wait = pin!(db.store.wait(&waiter, on).unwrap());
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
    db.commit(holder).unwrap();
    assert_eq!(count.0.load(SeqCst), 1);
    assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(()));
}

#[test]
fn waiting_for_who_has_ended_is_over_at_once() {
    let db = Database::filled(1);
    let (mut holder, mut waiter) = (db.begin(), db.begin());
    db.set(&mut holder, 1, 1).unwrap();
    let on = holder.id();
    assert!(db.set(&mut waiter, 1, 2).is_err());
    drop(holder);
    assert!(db.store.wait(&waiter, on).unwrap().is_over());
    assert!(db.store.wait(&waiter, TxnId::ENDED).unwrap().is_over());
    db.set(&mut waiter, 1, 2).unwrap();
}

#[test]
fn the_wait_that_would_close_a_circle_is_refused() {
    let db = Database::filled(3);
    let mut txns: Vec<_> = (0..3).map(|_| db.begin()).collect();
    for (k, txn) in (1..).zip(&mut txns) {
        db.set(txn, k, 0).unwrap();
    }
    let mut waits = Vec::new();
    for at in [0usize, 1, 2] {
        let mark = db.store.statement(&mut txns[at]);
        let Err(WriteError::Blocked { on }) = db.set(&mut txns[at], (at as i64 + 1) % 3 + 1, 9)
        else {
            panic!("the next row is held");
        };
        db.store.rollback_to(&mut txns[at], &mark);
        waits.push(db.store.wait(&txns[at], on));
    }
    let deadlock = waits.pop().unwrap().unwrap_err();
    assert_eq!((deadlock.waiter, deadlock.on), (txns[2].id(), txns[0].id()));
    assert!(waits.iter().all(|wait| !wait.as_ref().unwrap().is_over()));
    db.store.rollback(txns.pop().unwrap());
    assert!(waits[1].as_ref().unwrap().is_over());
    assert!(!waits[0].as_ref().unwrap().is_over());
}

#[test]
fn a_wait_given_up_no_longer_counts_in_circles() {
    let db = Database::filled(2);
    let (mut a, mut b) = (db.begin(), db.begin());
    db.set(&mut a, 1, 0).unwrap();
    db.set(&mut b, 2, 0).unwrap();
    assert!(db.set(&mut a, 2, 0).is_err());
    let wait = db.store.wait(&a, b.id()).unwrap();
    assert!(db.set(&mut b, 1, 0).is_err());
    assert!(db.store.wait(&b, a.id()).is_err());
    drop(wait);
    assert!(db.store.wait(&b, a.id()).is_ok());
}

#[test]
fn locks_of_an_undone_statement_are_given_back_and_wake_who_waits() {
    let db = Database::filled(2);
    let (mut a, mut b) = (db.begin(), db.begin());
    db.set(&mut a, 1, 1).unwrap();
    let mark = db.store.statement(&mut a);
    db.set(&mut a, 2, 2).unwrap();
    db.store.statement(&mut b);
    assert_eq!(db.set(&mut b, 2, 3), Err(WriteError::Blocked { on: a.id() }));
    let wait = db.store.wait(&b, a.id()).unwrap();
    assert!(!wait.is_over());
    db.store.rollback_to(&mut a, &mark);
    assert!(wait.is_over());
    db.set(&mut b, 2, 3).unwrap();
    db.commit(a).unwrap();
    db.commit(b).unwrap();
    db.acknowledge();
    let reader = db.begin();
    assert_eq!((db.value(&reader, 1), db.value(&reader, 2)), (Some(1), Some(3)));
}

#[test]
fn a_release_between_the_refusal_and_the_wait_is_not_missed() {
    let db = Database::filled(2);
    let (mut a, mut b) = (db.begin(), db.begin());
    db.set(&mut a, 1, 1).unwrap();
    let mark = db.store.savepoint(&a);
    db.set(&mut a, 2, 2).unwrap();
    db.store.statement(&mut b);
    assert!(db.set(&mut b, 2, 3).is_err());
    db.store.rollback_to(&mut a, &mark);
    assert!(db.store.wait(&b, a.id()).unwrap().is_over());
}

#[test]
fn a_row_locked_for_update_stays_as_it_is_and_blocks_writers() {
    let db = Database::filled(1);
    let (mut a, mut b) = (db.begin(), db.begin());
    let key = [Value::Int(1)];
    let (id, _) = db.store.lookup_one(&a, View::ForUpdate, db.by_k, &key).unwrap();
    assert_eq!(pair(&db.store.lock_row(&mut a, db.table, id).unwrap()), (1, 100));
    assert_eq!(db.remove(&mut b, 1), Err(WriteError::Blocked { on: a.id() }));
    assert!(a.is_read_only());
    assert!(db.store.redo(&a).is_empty());
    db.commit(a).unwrap();
    db.remove(&mut b, 1).unwrap();
}

#[test]
fn savepoints_undo_rows_keys_and_deletions() {
    let db = Database::filled(3);
    let mut txn = db.begin();
    db.set(&mut txn, 1, 1).unwrap();
    let outer = db.store.savepoint(&txn);
    db.set(&mut txn, 1, 2).unwrap();
    db.remove(&mut txn, 2).unwrap();
    let inner = db.store.savepoint(&txn);
    db.insert(&mut txn, 2, 22).unwrap();
    db.insert(&mut txn, 4, 4).unwrap();
    let (id, _) = db.store.lookup_one(&txn, View::ForUpdate, db.by_k, &[Value::Int(3)]).unwrap();
    db.store.update(&mut txn, db.table, id, row(33, 33)).unwrap();
    assert_eq!(db.total(&txn), 2 + 22 + 33 + 4);
    db.store.rollback_to(&mut txn, &inner);
    assert_eq!(db.total(&txn), 2 + 300);
    assert_eq!((db.value(&txn, 3), db.value(&txn, 33)), (Some(300), None));
    db.store.rollback_to(&mut txn, &outer);
    assert_eq!(db.total(&txn), 1 + 200 + 300);
    db.commit(txn).unwrap();
    db.acknowledge();
    assert_eq!(db.total(&db.begin()), 501);
}

#[test]
fn a_key_whose_owner_may_still_come_back_blocks_instead_of_violating() {
    let db = Database::filled(1);
    let (mut a, mut b) = (db.begin(), db.begin());
    db.remove(&mut a, 1).unwrap();
    assert_eq!(db.insert(&mut b, 1, 5), Err(WriteError::Blocked { on: a.id() }));
    db.insert(&mut a, 2, 2).unwrap();
    assert_eq!(db.insert(&mut b, 2, 5), Err(WriteError::Blocked { on: a.id() }));
    db.store.rollback(a);
    assert!(matches!(db.insert(&mut b, 1, 5), Err(WriteError::UniqueViolation { .. })));
    db.insert(&mut b, 2, 5).unwrap();
}

#[test]
fn a_dropped_transaction_is_rolled_back() {
    let db = Database::filled(1);
    let mut txn = db.begin();
    db.set(&mut txn, 1, 1).unwrap();
    db.insert(&mut txn, 2, 2).unwrap();
    drop(txn);
    let mut next = db.begin();
    assert_eq!(db.total(&next), 100);
    db.set(&mut next, 1, 3).unwrap();
}

#[test]
fn two_statements_that_meet_in_opposite_order_do_not_deadlock() {
    let db = Database::filled(2);
    let (mut a, mut b) = (db.begin(), db.begin());
    let (undo_a, undo_b) = (db.store.statement(&mut a), db.store.statement(&mut b));
    db.set(&mut a, 1, 1).unwrap();
    db.set(&mut b, 2, 2).unwrap();
    assert!(db.set(&mut a, 2, 1).is_err());
    db.store.rollback_to(&mut a, &undo_a);
    let wait = db.store.wait(&a, b.id()).unwrap();
    // B could go on, for A has given everything back; it was refused before A did.
    db.store.rollback_to(&mut b, &undo_b);
    assert!(wait.is_over());
    assert!(db.store.wait(&b, a.id()).is_ok());
}
