//! Foreign keys against a naive model: one session step by step, several ones at every commit.

use crate::{database::LIMITS, references::Family};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use understudy_store::{Isolation, Mark, ReferentialAction, Store, Txn, WriteError};

const SESSIONS: usize = 3;
const KEYS: i64 = 4;
const CHILDREN: i64 = 5;

#[derive(Debug, Clone, Copy)]
enum Change {
    AddParent(i64),
    RemoveParent(i64),
    MoveParent(i64, i64),
    TouchParent(i64),
    AddChild(i64, Option<i64>),
    RemoveChild(i64),
    MoveChild(i64, Option<i64>),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Do(Change),
    Commit,
    Rollback,
    Savepoint,
    RollbackTo,
    Acknowledge,
    Reclaim,
}

fn change() -> impl Strategy<Value = Change> {
    let (k, id) = (0..KEYS, 0..CHILDREN);
    let some_k = prop::option::weighted(0.9, 0..KEYS);
    prop_oneof![
        3 => k.clone().prop_map(Change::AddParent),
        2 => k.clone().prop_map(Change::RemoveParent),
        2 => (k.clone(), k.clone()).prop_map(|(k, to)| Change::MoveParent(k, to)),
        1 => k.prop_map(Change::TouchParent),
        4 => (id.clone(), some_k.clone()).prop_map(|(id, k)| Change::AddChild(id, k)),
        1 => id.clone().prop_map(Change::RemoveChild),
        2 => (id, some_k).prop_map(|(id, k)| Change::MoveChild(id, k)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => change().prop_map(Step::Do),
        4 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Savepoint),
        1 => Just(Step::RollbackTo),
        1 => Just(Step::Acknowledge),
        1 => Just(Step::Reclaim),
    ]
}

fn action() -> impl Strategy<Value = ReferentialAction> {
    prop_oneof![
        Just(ReferentialAction::NoAction),
        Just(ReferentialAction::Restrict),
        Just(ReferentialAction::Cascade),
        Just(ReferentialAction::SetNull),
        Just(ReferentialAction::SetDefault),
    ]
}

fn level() -> impl Strategy<Value = Isolation> {
    prop_oneof![
        Just(Isolation::ReadCommitted),
        Just(Isolation::RepeatableRead),
        Just(Isolation::Serializable),
    ]
}

fn execute(family: &Family, txn: &mut Txn, change: Change) -> Result<(), WriteError> {
    match change {
        Change::AddParent(k) => family.add_parent(txn, k),
        Change::RemoveParent(k) => family.remove_parent(txn, k).map(|_| ()),
        Change::MoveParent(k, to) => family.move_parent(txn, k, to).map(|_| ()),
        Change::TouchParent(k) => family.touch_parent(txn, k, 1).map(|_| ()),
        Change::AddChild(id, k) => family.add_child(txn, id, k),
        Change::RemoveChild(id) => family.remove_child(txn, id).map(|_| ()),
        Change::MoveChild(id, k) => family.move_child(txn, id, k).map(|_| ()),
    }
}

/// Two maps and the sentences of the SQL standard.
#[derive(Debug, Clone, Default)]
struct Model {
    parents: BTreeSet<i64>,
    children: BTreeMap<i64, Option<i64>>,
}

impl Model {
    /// The content after the change, or None when it must be refused.
    fn after(&self, change: Change, actions: [ReferentialAction; 2]) -> Option<Model> {
        let mut next = self.clone();
        match change {
            Change::AddParent(k) => next.parents.insert(k).then_some(())?,
            Change::RemoveParent(k) => {
                if next.parents.remove(&k) {
                    next.follow(k, (actions[0], None))?;
                }
            }
            Change::MoveParent(k, to) => {
                if k != to && next.parents.remove(&k) {
                    next.parents.insert(to).then_some(())?;
                    next.follow(k, (actions[1], Some(to)))?;
                }
            }
            Change::TouchParent(_) => {}
            Change::AddChild(id, k) => next.children.insert(id, k).is_none().then_some(())?,
            Change::RemoveChild(id) => {
                next.children.remove(&id);
            }
            Change::MoveChild(id, k) => {
                next.children.entry(id).and_modify(|known| *known = k);
            }
        }
        let is_whole = next.children.values().flatten().all(|k| next.parents.contains(k));
        is_whole.then_some(next)
    }

    /// The key `k` has gone: children follow, or None.
    fn follow(&mut self, k: i64, (action, to): (ReferentialAction, Option<i64>)) -> Option<()> {
        let ids: Vec<i64> =
            self.children.iter().filter(|(_, key)| **key == Some(k)).map(|(id, _)| *id).collect();
        for id in ids {
            let key = match action {
                ReferentialAction::NoAction | ReferentialAction::Restrict => return None,
                ReferentialAction::Cascade if to.is_none() => {
                    self.children.remove(&id);
                    continue;
                }
                ReferentialAction::Cascade => to,
                ReferentialAction::SetNull => None,
                ReferentialAction::SetDefault => Some(0),
            };
            self.children.insert(id, key);
        }
        Some(())
    }

    fn is_content_of(&self, family: &Family, store: &Store) -> bool {
        let parents: BTreeSet<i64> =
            Family::content(store, family.parents).into_iter().map(|(k, _)| k).collect();
        let children: BTreeMap<_, _> =
            Family::content(store, family.children).into_iter().collect();
        parents == self.parents && children == self.children
    }
}

struct Session {
    txn: Txn,
    mark: Option<Mark>,
}

/// Several sessions at once; after each commit a follower that checks nothing is whole.
fn interleave(family: &Family, steps: &[(usize, Isolation, Step)]) {
    let store = &family.db.store;
    let follower = Store::new(LIMITS);
    let mut sessions: Vec<Option<Session>> = (0..SESSIONS).map(|_| None).collect();
    let mut applied = 0;
    for (who, level, step) in steps {
        let open =
            sessions[*who].get_or_insert_with(|| Session { txn: store.begin(*level), mark: None });
        match *step {
            Step::Do(change) => {
                let mark = store.statement(&mut open.txn);
                if execute(family, &mut open.txn, change).is_err() {
                    store.rollback_to(&mut open.txn, &mark);
                }
                assert!(!open.txn.has_unchecked());
            }
            Step::Savepoint => open.mark = Some(store.savepoint(&open.txn)),
            Step::RollbackTo => {
                if let Some(mark) = &open.mark {
                    store.rollback_to(&mut open.txn, mark);
                }
            }
            Step::Commit => {
                let session = sessions[*who].take().unwrap();
                // Under SERIALIZABLE it may be refused.
                let _ = family.db.commit(session.txn);
            }
            Step::Rollback => sessions[*who] = None,
            Step::Acknowledge => family.db.acknowledge(),
            Step::Reclaim => {
                store.reclaim(usize::MAX);
            }
        }
        for (lsn, payload) in &family.db.log.lock()[applied..] {
            follower.apply(*lsn, payload).unwrap();
            follower.set_visible(*lsn);
            family.assert_whole(&follower);
            applied += 1;
        }
    }
    sessions.clear();
    family.db.acknowledge();
    // Whoever comes now meets nobody's share.
    family.db.run(|txn| {
        for id in 0..CHILDREN {
            family.remove_child(txn, id).unwrap();
        }
        for k in 0..KEYS {
            family.remove_parent(txn, k).unwrap();
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_session_does_what_the_model_does(
        actions in [action(), action()],
        is_indexed in any::<bool>(),
        changes in prop::collection::vec(change(), 1..60),
    ) {
        let family = Family::new(|key| key.with_actions(actions[0], actions[1]), is_indexed);
        let mut model = Model::default();
        for change in changes {
            let expected = model.after(change, actions);
            let mut txn = family.db.begin();
            let done = execute(&family, &mut txn, change);
            prop_assert_eq!(done.is_ok(), expected.is_some(), "{:?}: {:?}", change, done);
            if let Some(next) = expected {
                model = next;
                family.db.commit(txn).unwrap();
                family.db.acknowledge();
            } else {
                family.db.store.rollback(txn);
            }
            prop_assert!(model.is_content_of(&family, &family.db.store), "{change:?}: {model:?}");
        }
    }

    #[test]
    fn every_child_has_its_parent_at_every_commit(
        actions in [action(), action()],
        is_indexed in any::<bool>(),
        steps in prop::collection::vec((0..SESSIONS, level(), step()), 1..120),
    ) {
        interleave(&Family::new(|key| key.with_actions(actions[0], actions[1]), is_indexed), &steps);
    }
}
