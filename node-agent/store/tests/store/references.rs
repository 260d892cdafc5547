//! Foreign keys: what statements may leave behind, who waits for whom, and definitions that travel.

use crate::{
    database::{Database, LIMITS, checkpoint_of},
    threads::{numbers, on_threads, statement},
};
use std::sync::Arc;
use understudy_store::{
    CheckpointError, ColumnDef, Consequences, DataType, ForeignKeyDef, IndexDef, IndexId,
    Isolation, MemoryLimits, Pool, ReferentialAction, Row, RowId, Store, TableDef, TableId, Txn,
    TxnId, Value, View, WriteError,
};
use understudy_types::Lsn;

/// Consequences without SQL: every default is 0, every row is accepted.
pub(crate) struct Plain;

impl Consequences for Plain {
    type Error = WriteError;

    fn default(&mut self, _: &Txn, _: &Arc<TableDef>, _: usize) -> Result<Value, WriteError> {
        Ok(Value::Int(0))
    }

    fn accept(&mut self, _: &Txn, _: &Arc<TableDef>, row: Row) -> Result<Row, WriteError> {
        Ok(row)
    }
}

/// Tables `parents (k bigint primary key, n bigint)` and `children (id bigint primary key, k bigint)`,
/// the second referencing the first.
pub(crate) struct Family {
    pub(crate) db: Database,
    pub(crate) parents: TableId,
    pub(crate) children: TableId,
    parents_by_k: IndexId,
    children_by_id: IndexId,
}

fn row(first: i64, second: Option<i64>) -> Row {
    Row::encode(&[Value::Int(first), second.map_or(Value::Null, Value::Int)])
}

fn bigints(name: &str, columns: [&str; 2]) -> TableDef {
    let columns = columns.map(|column| ColumnDef::new(column, DataType::Int8));
    TableDef::new(name, columns.to_vec()).with_primary_key(&[0])
}

impl Family {
    pub(crate) fn new(
        key: impl FnOnce(ForeignKeyDef) -> ForeignKeyDef,
        is_indexed: bool,
    ) -> Family {
        let db = Database::new();
        let mut txn = db.begin();
        let parents = db.store.create_table(&mut txn, bigints("parents", ["k", "n"])).unwrap();
        let mut def = bigints("children", ["id", "k"]);
        if is_indexed {
            def = def.with_index(IndexDef::new("children_k", &[1]));
        }
        let def = def.with_foreign_key(key(ForeignKeyDef::new("fk", &[1], (parents, &[0]))));
        let children = db.store.create_table(&mut txn, def).unwrap();
        let index = |table| txn.catalog().table_by_id(table).unwrap().indexes[0].id;
        let (parents_by_k, children_by_id) = (index(parents), index(children));
        db.commit(txn).unwrap();
        db.acknowledge();
        Family { db, parents, children, parents_by_k, children_by_id }
    }

    fn plain() -> Family {
        Family::new(|key| key, false)
    }

    /// With parents 0 to 9.
    fn filled() -> Family {
        let family = Family::plain();
        family.db.run(|txn| (0..10).for_each(|k| family.add_parent(txn, k).unwrap()));
        family
    }

    fn settle(&self, txn: &mut Txn) -> Result<(), WriteError> {
        self.db.store.settle(txn, &mut Plain)
    }

    pub(crate) fn add_parent(&self, txn: &mut Txn, k: i64) -> Result<(), WriteError> {
        self.db.store.insert(txn, self.parents, row(k, Some(0)))?;
        self.settle(txn)
    }

    pub(crate) fn add_child(
        &self,
        txn: &mut Txn,
        id: i64,
        k: Option<i64>,
    ) -> Result<(), WriteError> {
        self.db.store.insert(txn, self.children, row(id, k))?;
        self.settle(txn)
    }

    fn find(&self, txn: &Txn, index: IndexId, key: i64) -> Option<(RowId, Row)> {
        self.db.store.lookup_one(txn, View::ForUpdate, index, &[Value::Int(key)])
    }

    /// False when there is no such parent; so below.
    pub(crate) fn remove_parent(&self, txn: &mut Txn, k: i64) -> Result<bool, WriteError> {
        let Some((id, _)) = self.find(txn, self.parents_by_k, k) else { return Ok(false) };
        self.db.store.delete(txn, self.parents, id)?;
        self.settle(txn).map(|()| true)
    }

    pub(crate) fn move_parent(&self, txn: &mut Txn, k: i64, to: i64) -> Result<bool, WriteError> {
        let Some((id, _)) = self.find(txn, self.parents_by_k, k) else { return Ok(false) };
        self.db.store.update(txn, self.parents, id, row(to, Some(0)))?;
        self.settle(txn).map(|()| true)
    }

    pub(crate) fn touch_parent(&self, txn: &mut Txn, k: i64, n: i64) -> Result<bool, WriteError> {
        let Some((id, _)) = self.find(txn, self.parents_by_k, k) else { return Ok(false) };
        self.db.store.update(txn, self.parents, id, row(k, Some(n)))?;
        self.settle(txn).map(|()| true)
    }

    pub(crate) fn remove_child(&self, txn: &mut Txn, id: i64) -> Result<bool, WriteError> {
        let Some((row, _)) = self.find(txn, self.children_by_id, id) else { return Ok(false) };
        self.db.store.delete(txn, self.children, row)?;
        self.settle(txn).map(|()| true)
    }

    pub(crate) fn move_child(
        &self,
        txn: &mut Txn,
        id: i64,
        k: Option<i64>,
    ) -> Result<bool, WriteError> {
        let Some((at, _)) = self.find(txn, self.children_by_id, id) else { return Ok(false) };
        self.db.store.update(txn, self.children, at, row(id, k))?;
        self.settle(txn).map(|()| true)
    }

    /// Pairs of a table that are visible in a store.
    pub(crate) fn content(store: &Store, table: TableId) -> Vec<(i64, Option<i64>)> {
        let txn = store.begin(Isolation::ReadCommitted);
        let mut pairs: Vec<_> = store
            .scan(&txn, View::Committed, table)
            .map(|(_, row)| (row.int(0).unwrap(), row.int(1)))
            .collect();
        pairs.sort_unstable();
        pairs
    }

    /// Fails when a visible child has no parent.
    pub(crate) fn assert_whole(&self, store: &Store) {
        let parents = Family::content(store, self.parents);
        for (id, k) in Family::content(store, self.children) {
            let found = k.is_none_or(|k| parents.iter().any(|(parent, _)| *parent == k));
            assert!(found, "child {id} has lost its parent {k:?}: {parents:?}");
        }
    }
}

fn is_violation(result: &Result<impl Sized, WriteError>) -> bool {
    matches!(result, Err(WriteError::ForeignKeyViolation { .. }))
}

fn blocked_by<T: std::fmt::Debug>(result: Result<T, WriteError>, txn: &Txn) {
    assert_eq!(result.unwrap_err(), WriteError::Blocked { on: txn.id() });
}

#[test]
fn both_sides_are_told_which_key_and_which_constraint() {
    let family = Family::filled();
    let mut txn = family.db.begin();
    let mark = family.db.store.savepoint(&txn);
    assert_eq!(
        family.add_child(&mut txn, 1, Some(77)).unwrap_err().to_string(),
        "insert or update on table \"children\" violates foreign key constraint \"fk\": \
         Key (k)=(77) is not present in table \"parents\"."
    );
    family.db.store.rollback_to(&mut txn, &mark);
    assert!(!txn.has_unchecked());
    family.add_child(&mut txn, 1, Some(7)).unwrap();
    family.add_child(&mut txn, 2, None).unwrap();
    assert_eq!(
        family.remove_parent(&mut txn, 7).unwrap_err().to_string(),
        "update or delete on table \"parents\" violates foreign key constraint \"fk\" on table \
         \"children\": Key (k)=(7) is still referenced from table \"children\"."
    );
}

#[test]
fn many_share_a_key_and_only_who_takes_it_away_waits_for_all_of_them() {
    let family = Family::filled();
    let (mut one, mut two, mut other) = (family.db.begin(), family.db.begin(), family.db.begin());
    family.add_child(&mut one, 1, Some(3)).unwrap();
    family.add_child(&mut two, 2, Some(3)).unwrap();
    assert!(family.touch_parent(&mut other, 3, 9).unwrap());
    family.db.commit(other).unwrap();
    let mut taker = family.db.begin();
    blocked_by(family.remove_parent(&mut taker, 3), &one);
    blocked_by(family.move_parent(&mut taker, 3, 30), &one);
    family.db.commit(one).unwrap();
    blocked_by(family.remove_parent(&mut taker, 3), &two);
    family.db.store.rollback(two);
    family.db.store.statement(&mut taker);
    let refused = family.remove_parent(&mut taker, 3);
    let Err(WriteError::ForeignKeyViolation { depends, .. }) = refused else {
        panic!("a child is there: {refused:?}");
    };
    assert_eq!(depends, family.db.store.committed(), "the child is pending");
}

#[test]
fn a_child_waits_for_who_takes_its_key_away_but_not_for_other_changes() {
    let family = Family::filled();
    let (mut taker, mut changer) = (family.db.begin(), family.db.begin());
    family.remove_parent(&mut taker, 1).unwrap();
    family.touch_parent(&mut changer, 2, 5).unwrap();
    let mut child = family.db.begin();
    let mark = family.db.store.savepoint(&child);
    blocked_by(family.add_child(&mut child, 1, Some(1)), &taker);
    family.db.store.rollback_to(&mut child, &mark);
    family.add_child(&mut child, 1, Some(2)).unwrap();
    let lsn = family.db.commit(taker).unwrap();
    let mark = family.db.store.statement(&mut child);
    let refused = family.add_child(&mut child, 2, Some(1));
    let Err(WriteError::ForeignKeyViolation { depends, .. }) = refused else {
        panic!("the parent has gone: {refused:?}");
    };
    assert_eq!(depends, lsn, "the deletion is pending");
    family.db.store.rollback_to(&mut child, &mark);
    family.db.commit(changer).unwrap();
    family.db.commit(child).unwrap();
    family.db.acknowledge();
    family.assert_whole(&family.db.store);
}

#[test]
fn a_shared_key_is_given_back_with_what_it_was_for() {
    let family = Family::filled();
    let (mut sharer, mut taker) = (family.db.begin(), family.db.begin());
    let mark = family.db.store.savepoint(&sharer);
    family.add_child(&mut sharer, 1, Some(4)).unwrap();
    blocked_by(family.remove_parent(&mut taker, 4), &sharer);
    assert!(!family.db.store.wait(&taker, sharer.id()).unwrap().is_over());
    family.db.store.rollback_to(&mut sharer, &mark);
    assert!(family.db.store.wait(&taker, sharer.id()).unwrap().is_over());
    assert!(family.remove_parent(&mut taker, 4).unwrap());
    family.db.commit(taker).unwrap();
    family.db.commit(sharer).unwrap();
}

#[test]
fn two_who_share_a_key_and_both_want_it_are_a_deadlock() {
    let family = Family::filled();
    let (mut one, mut two) = (family.db.begin(), family.db.begin());
    family.add_child(&mut one, 1, Some(5)).unwrap();
    family.add_child(&mut two, 2, Some(5)).unwrap();
    blocked_by(family.move_parent(&mut one, 5, 50), &two);
    let _wait = family.db.store.wait(&one, two.id()).unwrap();
    blocked_by(family.move_parent(&mut two, 5, 51), &one);
    assert!(family.db.store.wait(&two, one.id()).is_err());
}

#[test]
fn the_stricter_levels_find_keys_in_their_snapshot() {
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        let family = Family::filled();
        let begin = || family.db.store.begin(isolation);
        let (mut early, mut late, mut keeps) = (begin(), begin(), begin());
        family.db.run(|txn| family.add_parent(txn, 20).unwrap());
        family.db.run(|txn| family.remove_parent(txn, 6).unwrap());
        family.db.run(|txn| family.touch_parent(txn, 7, 1).unwrap());
        assert!(is_violation(&family.add_child(&mut early, 1, Some(20))));
        let gone = family.add_child(&mut late, 2, Some(6));
        assert_eq!(gone.unwrap_err(), WriteError::Serialization);
        family.add_child(&mut keeps, 3, Some(7)).unwrap();
        drop((early, late));
        let mut remover = begin();
        family.db.commit(keeps).unwrap();
        family.db.acknowledge();
        assert!(is_violation(&family.remove_parent(&mut remover, 7)), "the newest child counts");
    }
}

#[test]
fn rows_follow_as_the_actions_say() {
    use ReferentialAction::{Cascade, SetDefault, SetNull};
    for is_indexed in [false, true] {
        let content = |action| {
            let family = Family::new(|key| key.with_actions(action, action), is_indexed);
            family.db.run(|txn| {
                (0..4).for_each(|k| family.add_parent(txn, k).unwrap());
                (0..6).for_each(|id| family.add_child(txn, id, Some(id % 4)).unwrap());
                assert!(family.remove_parent(txn, 1).unwrap());
                assert!(family.move_parent(txn, 2, 20).unwrap());
            });
            family.assert_whole(&family.db.store);
            Family::content(&family.db.store, family.children)
        };
        let all = |ks: [Option<i64>; 6]| (0..).zip(ks).collect::<Vec<_>>();
        let (zero, three) = (Some(0), Some(3));
        assert_eq!(content(Cascade), [(0, zero), (2, Some(20)), (3, three), (4, zero)]);
        assert_eq!(content(SetNull), all([zero, None, None, three, zero, None]));
        assert_eq!(content(SetDefault), all([zero, zero, zero, three, zero, zero]));
    }
}

#[test]
fn a_row_may_reference_itself_and_a_later_row_of_its_statement() {
    let db = Database::new();
    let mut txn = db.begin();
    let cascade = ReferentialAction::Cascade;
    let key = ForeignKeyDef::new("up", &[1], (TableId(0), &[0])).with_actions(cascade, cascade);
    let def = bigints("tree", ["id", "up"]).with_foreign_key(key);
    let tree = db.store.create_table(&mut txn, def).unwrap();
    db.commit(txn).unwrap();
    db.acknowledge();
    db.run(|txn| {
        for (id, up) in [(3, 2), (2, 1), (1, 1)] {
            db.store.insert(txn, tree, row(id, Some(up))).unwrap();
        }
        db.store.settle(txn, &mut Plain).unwrap();
    });
    db.run(|txn| {
        let index = txn.catalog().table_by_id(tree).unwrap().indexes[0].id;
        let root = db.store.lookup_one(txn, View::ForUpdate, index, &[Value::Int(1)]).unwrap().0;
        db.store.delete(txn, tree, root).unwrap();
        db.store.settle(txn, &mut Plain).unwrap();
    });
    assert_eq!(Family::content(&db.store, tree), []);
}

#[test]
fn a_new_foreign_key_is_checked_against_the_rows_there_are() {
    let family = Family::filled();
    let store = &family.db.store;
    let mut txn = family.db.begin();
    let def = bigints("late", ["id", "k"]);
    let late = store.create_table(&mut txn, def).unwrap();
    store.insert(&mut txn, late, row(1, Some(99))).unwrap();
    store.insert(&mut txn, late, row(2, Some(9))).unwrap();
    family.db.commit(txn).unwrap();
    family.db.acknowledge();
    let with_key = |txn: &Txn| {
        let def = (**txn.catalog().table_by_id(late).unwrap()).clone();
        def.with_foreign_key(ForeignKeyDef::new("late_fk", &[1], (family.parents, &[0])))
    };
    let mut writer = family.db.begin();
    family.touch_parent(&mut writer, 1, 1).unwrap();
    let mut txn = family.db.begin();
    let wanted = with_key(&txn);
    blocked_by(store.alter_table(&mut txn, wanted.clone()), &writer);
    family.db.commit(writer).unwrap();
    store.statement(&mut txn);
    let version = txn.catalog().version;
    assert!(is_violation(&store.alter_table(&mut txn, wanted)));
    assert_eq!(txn.catalog().version, version, "nothing was changed");
    store.rollback(txn);
    family.db.run(|txn| family.add_parent(txn, 99).unwrap());
    family.db.run(|txn| {
        let wanted = with_key(txn);
        store.alter_table(txn, wanted).unwrap();
    });
    let mut txn = family.db.begin();
    assert!(is_violation(&family.remove_parent(&mut txn, 99)));
}

#[test]
fn what_a_foreign_key_needs_stays() {
    let family = Family::filled();
    let store = &family.db.store;
    let mut txn = family.db.begin();
    let needed = |result: Result<(), WriteError>| {
        assert!(matches!(result, Err(WriteError::InvalidDefinition { .. })), "{result:?}");
    };
    needed(store.drop_table(&mut txn, family.parents));
    needed(store.drop_index(&mut txn, family.parents_by_k));
    let key = ForeignKeyDef::new("no_index", &[1], (family.parents, &[1]));
    let def = (**txn.catalog().table_by_id(family.children).unwrap()).clone();
    needed(store.alter_table(&mut txn, def.with_foreign_key(key)));
    store.drop_table(&mut txn, family.children).unwrap();
    store.drop_table(&mut txn, family.parents).unwrap();
}

#[test]
fn a_writer_with_an_older_definition_runs_its_statement_again() {
    let family = Family::filled();
    let store = &family.db.store;
    let mut old = family.db.begin();
    family.db.run(|txn| {
        let def = bigints("more", ["id", "k"]);
        let key = ForeignKeyDef::new("more_fk", &[1], (family.parents, &[0]));
        store.create_table(txn, def.with_foreign_key(key)).unwrap();
    });
    let refused = family.remove_parent(&mut old, 1);
    assert_eq!(refused.unwrap_err(), WriteError::Blocked { on: TxnId::ENDED });
    store.statement(&mut old);
    assert!(family.remove_parent(&mut old, 1).unwrap());
}

#[test]
fn definitions_and_what_followed_travel_in_log_and_checkpoint() {
    let cascade = ReferentialAction::Cascade;
    let family = Family::new(|key| key.with_actions(cascade, cascade), true);
    family.db.run(|txn| {
        (0..4).for_each(|k| family.add_parent(txn, k).unwrap());
        (0..8).for_each(|id| family.add_child(txn, id, Some(id % 4)).unwrap());
    });
    family.db.run(|txn| family.remove_parent(txn, 3).unwrap());
    family.db.run(|txn| family.move_parent(txn, 2, 22).unwrap());
    let follower = Store::new(LIMITS);
    for (lsn, payload) in family.db.log.lock().iter() {
        follower.apply(*lsn, payload).unwrap();
        follower.set_visible(*lsn);
    }
    let end = family.db.store.visible();
    let mut bytes = checkpoint_of(&family.db.store, end);
    let loaded = Store::load_checkpoint(LIMITS, end, &mut &bytes[..]).unwrap();
    for store in [&follower, &loaded] {
        assert_eq!(store.catalog(), family.db.store.catalog());
        for table in [family.parents, family.children] {
            let hashes = (store.content_hash(table, end), family.db.store.content_hash(table, end));
            assert_eq!(hashes.0, hashes.1);
        }
        // The definition is at work where it arrived.
        let mut txn = store.begin(Isolation::ReadCommitted);
        store.insert(&mut txn, family.children, row(100, Some(3))).unwrap();
        assert!(is_violation(&store.settle(&mut txn, &mut Plain)));
    }
    bytes[..8].copy_from_slice(b"USTORE02");
    let refused = Store::load_checkpoint(LIMITS, end, &mut &bytes[..]);
    let Err(CheckpointError::Malformed { reason, .. }) = refused else {
        panic!("an older checkpoint is refused");
    };
    assert_eq!(reason, "it is of format 02, this version reads format 04");
    let older = Store::new(LIMITS).apply(Lsn(1), &[1]).unwrap_err();
    assert!(older.to_string().contains("format 1, this version reads format 3"), "{older}");
}

#[test]
fn parents_and_children_race_and_no_child_is_left_alone() {
    for is_indexed in [false, true] {
        let family = Family::new(|key| key, is_indexed);
        family.db.run(|txn| (0..6).for_each(|k| family.add_parent(txn, k).unwrap()));
        on_threads(6, |thread| {
            let mut number = numbers(thread + 1);
            for round in 0..400 {
                let k = number(6) as i64;
                let id = (thread * 1000 + round) as i64;
                let strict = number(4) == 0;
                let level =
                    if strict { Isolation::RepeatableRead } else { Isolation::ReadCommitted };
                let mut txn = family.db.store.begin(level);
                let what = number(4);
                // Children do not stay long, or no parent could ever go.
                let done = statement(&family.db, &mut txn, |txn| match (thread % 2, round % 4) {
                    (0, 0) => family.add_child(txn, id, None),
                    (0, 1) => family.move_child(txn, id - 1, Some(k)).map(|_| ()),
                    (0, 2) => family.add_child(txn, id, Some(k)),
                    (0, _) => family
                        .remove_child(txn, id - 3)
                        .and_then(|_| family.remove_child(txn, id - 1))
                        .map(|_| ()),
                    (_, _) => match what {
                        0 => family.touch_parent(txn, k, 1).map(|_| ()),
                        1 => family.move_parent(txn, k, (k + 1) % 6).map(|_| ()),
                        2 => family.remove_parent(txn, k).map(|_| ()),
                        _ => family.add_parent(txn, k),
                    },
                });
                // Lets the others meet what is done and not committed.
                (0..number(4)).for_each(|_| std::thread::yield_now());
                match done {
                    Ok(()) => {
                        family.db.commit(txn).unwrap();
                    }
                    Err(_) => family.db.store.rollback(txn),
                }
                if number(3) == 0 {
                    family.db.acknowledge();
                }
            }
        });
        family.db.acknowledge();
        family.assert_whole(&family.db.store);
        let follower = Store::new(LIMITS);
        for (lsn, payload) in family.db.log.lock().iter() {
            follower.apply(*lsn, payload).unwrap();
            follower.set_visible(*lsn);
            family.assert_whole(&follower);
        }
        // Nothing is shared any more.
        family.db.run(|txn| {
            for (id, _) in Family::content(&family.db.store, family.children) {
                assert!(family.remove_child(txn, id).unwrap());
            }
            for (k, _) in Family::content(&family.db.store, family.parents) {
                assert!(family.remove_parent(txn, k).unwrap());
            }
        });
    }
}

#[test]
fn the_notes_of_a_long_statement_are_charged_and_given_back() {
    let family = Family::filled();
    let db = &family.db;
    let small = MemoryLimits { temporary_bytes: 60_000, ..LIMITS };
    let insert = |txn: &mut Txn| {
        let mut ids = 0..1000;
        ids.try_for_each(|id| db.store.insert(txn, family.children, row(id, Some(1))).map(|_| ()))
    };
    let before = db.store.memory();
    db.store.set_limits(small);
    let mut txn = db.begin();
    let mark = db.store.statement(&mut txn);
    let refused = insert(&mut txn);
    let pool = Pool::Temporary;
    let Err(WriteError::OutOfMemory { pool: of, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(of, pool);
    // The statement alone is undone; what it took is kept for the next, and given back at the end.
    db.store.rollback_to(&mut txn, &mark);
    assert_eq!(db.store.memory().tables, before.tables);
    assert!(!txn.has_unchecked());
    let (_, held) = txn.extent();
    assert_eq!(db.store.memory().temporary_used, held);
    db.store.rollback(txn);
    assert_eq!(db.store.memory().temporary_used, 0);
    // With room it succeeds, and each row that changes or goes is noted as well.
    db.store.set_limits(LIMITS);
    db.run(|txn| insert(txn).and_then(|()| family.settle(txn)).unwrap());
    db.store.set_limits(small);
    let mut txn = db.begin();
    let change = |txn: &mut Txn, id: i64| {
        let (row_id, _) = family.find(txn, family.children_by_id, id).unwrap();
        db.store.update(txn, family.children, row_id, row(id, Some(2)))
    };
    let changed = (0..1000).take_while(|id| change(&mut txn, *id).is_ok()).count();
    assert!((200..800).contains(&changed), "{changed} were changed");
    let count = |txn: &Txn| {
        let of = |k| move |(_, child): &(RowId, Row)| child.int(1) == Some(k);
        let scan = || db.store.scan(txn, View::ForUpdate, family.children);
        (scan().filter(of(1)).count(), scan().filter(of(2)).count())
    };
    assert_eq!(count(&txn), (1000 - changed, changed), "a refused change is undone");
    db.store.rollback(txn);
    assert_eq!(db.store.memory().temporary_used, 0);
}

#[test]
fn rows_that_follow_a_key_are_charged_while_they_do() {
    for is_indexed in [false, true] {
        let cascade = |key: ForeignKeyDef| {
            key.with_actions(ReferentialAction::Cascade, ReferentialAction::NoAction)
        };
        let family = Family::new(cascade, is_indexed);
        let db = &family.db;
        db.run(|txn| family.add_parent(txn, 1).unwrap());
        db.run(|txn| (0..1000).for_each(|id| family.add_child(txn, id, Some(1)).unwrap()));
        // Enough for the operations alone: each child is locked, then deleted.
        let small = MemoryLimits { temporary_bytes: 80_000, ..LIMITS };
        db.store.set_limits(small);
        let mut txn = db.begin();
        let refused = family.remove_parent(&mut txn, 1);
        assert!(matches!(refused, Err(WriteError::OutOfMemory { .. })), "{refused:?}");
        db.store.rollback(txn);
        assert_eq!(db.store.memory().temporary_used, 0);
        db.store.set_limits(MemoryLimits { temporary_bytes: 120_000, ..LIMITS });
        db.run(|txn| {
            assert!(family.remove_parent(txn, 1).unwrap());
            assert_eq!(db.store.memory().temporary_used, txn.extent().1, "for the operations");
        });
        assert_eq!(db.store.memory().temporary_used, 0);
    }
}
