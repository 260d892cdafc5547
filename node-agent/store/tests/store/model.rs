//! The store against a naive model: interleaved transactions of all levels, checked step by step.
//!
//! The model keeps the whole content at every LSN and, per transaction, what it has written. Its rules
//! are the sentences of the store's documentation, said without versions, chains or indexes.

use crate::database::{Database, LIMITS, pair, reloaded, row};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};
use understudy_store::{
    Direction, Isolation, KeyBounds, Mark, RowId, Store, Txn, TxnId, Value, View, WriteError,
};
use understudy_types::Lsn;

const SESSIONS: usize = 4;
const KEYS: i64 = 6;

#[derive(Debug, Clone)]
enum Step {
    Begin(usize, u8),
    Statement(usize),
    Insert(usize, i64, i64),
    /// Which known row, new key, new value.
    Update(usize, usize, i64, i64),
    Delete(usize, usize),
    Lock(usize, usize),
    LockNewest(usize, usize),
    Read(usize),
    Savepoint(usize),
    RollbackTo(usize),
    Commit(usize),
    Rollback(usize),
    Acknowledge(u64),
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    let s = || session.clone();
    let (k, v) = (0..KEYS, 0..20i64);
    prop_oneof![
        3 => (s(), 0..3u8).prop_map(|(s, i)| Step::Begin(s, i)),
        3 => s().prop_map(Step::Statement),
        6 => (s(), k.clone(), v.clone()).prop_map(|(s, k, v)| Step::Insert(s, k, v)),
        8 => (s(), 0..20usize, k, v).prop_map(|(s, r, k, v)| Step::Update(s, r, k, v)),
        3 => (s(), 0..20usize).prop_map(|(s, r)| Step::Delete(s, r)),
        1 => (s(), 0..20usize).prop_map(|(s, r)| Step::Lock(s, r)),
        2 => (s(), 0..20usize).prop_map(|(s, r)| Step::LockNewest(s, r)),
        4 => s().prop_map(Step::Read),
        1 => s().prop_map(Step::Savepoint),
        1 => s().prop_map(Step::RollbackTo),
        6 => s().prop_map(Step::Commit),
        1 => s().prop_map(Step::Rollback),
        3 => (0..4u64).prop_map(Step::Acknowledge),
        1 => Just(Step::Reclaim),
    ]
}

type Content = BTreeMap<RowId, (i64, i64)>;
/// Every state that a transaction gave a row, newest last; None is a deletion.
type Writes = BTreeMap<RowId, Vec<Option<(i64, i64)>>>;

struct Session {
    txn: Txn,
    isolation: Isolation,
    snapshot: Lsn,
    current: Lsn,
    writes: Writes,
    locks: BTreeSet<RowId>,
    marks: Vec<(Mark, Writes, BTreeSet<RowId>)>,
    /// Set by a full scan under SERIALIZABLE.
    has_read: bool,
}

struct World {
    db: Database,
    sessions: Vec<Option<Session>>,
    /// Content at every LSN from zero.
    history: Vec<Content>,
    /// LSN of the last change of each row.
    stamps: BTreeMap<RowId, Lsn>,
    follower: Store,
    rows: Vec<RowId>,
}

impl Session {
    fn sees(&self, view: View, history: &[Content]) -> Content {
        let for_update = view == View::ForUpdate && self.isolation == Isolation::ReadCommitted;
        let at = if for_update { self.current } else { self.snapshot };
        let mut content = history[at.0 as usize].clone();
        for (id, states) in &self.writes {
            match states.last().copied().flatten() {
                Some(pair) => content.insert(*id, pair),
                None => content.remove(id),
            };
        }
        content
    }
}

impl World {
    fn new() -> World {
        let db = Database::new();
        let follower = Store::new(LIMITS);
        follower.apply(Lsn(1), &db.log.lock()[0].1).unwrap();
        let history = vec![Content::new(), Content::new()];
        let sessions = (0..SESSIONS).map(|_| None).collect();
        World { db, sessions, history, stamps: BTreeMap::new(), follower, rows: Vec::new() }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin(s, isolation) => self.begin(s, isolation),
            Step::Acknowledge(more) => {
                let visible = self.db.store.visible().0;
                let end = self.history.len() as u64 - 1;
                self.db.store.set_visible(Lsn((visible + more).min(end)));
            }
            Step::Reclaim => {
                self.db.store.reclaim(usize::MAX);
            }
            Step::Commit(s) => self.commit(s),
            Step::Rollback(s) => {
                if let Some(session) = self.sessions[s].take() {
                    self.db.store.rollback(session.txn);
                }
            }
            Step::Insert(s, k, v) => self.write(s, None, Some((k, v))),
            Step::Update(s, r, k, v) => self.write_known(s, r, Some((k, v))),
            Step::Delete(s, r) => self.write_known(s, r, None),
            Step::Lock(s, r) => self.lock(s, r),
            Step::LockNewest(s, r) => self.lock_newest(s, r),
            Step::Read(s) => self.read(s),
            Step::Statement(s) => self.statement(s),
            Step::Savepoint(s) => {
                if let Some(session) = &mut self.sessions[s] {
                    let mark = self.db.store.savepoint(&session.txn);
                    let (writes, locks) = (session.writes.clone(), session.locks.clone());
                    session.marks.push((mark, writes, locks));
                }
            }
            Step::RollbackTo(s) => {
                if let Some(session) = &mut self.sessions[s]
                    && let Some((mark, writes, locks)) = session.marks.pop()
                {
                    self.db.store.rollback_to(&mut session.txn, &mark);
                    session.writes = writes;
                    session.locks = locks;
                }
            }
        }
    }

    fn begin(&mut self, s: usize, isolation: u8) {
        let isolation =
            [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable]
                [usize::from(isolation)];
        if self.sessions[s].is_none() {
            let txn = self.db.store.begin(isolation);
            assert_eq!(txn.snapshot(), self.db.store.visible());
            self.sessions[s] = Some(Session {
                snapshot: txn.snapshot(),
                current: self.db.store.committed(),
                txn,
                isolation,
                writes: Writes::new(),
                locks: BTreeSet::new(),
                marks: Vec::new(),
                has_read: false,
            });
        }
    }

    fn statement(&mut self, s: usize) {
        if let Some(session) = &mut self.sessions[s] {
            self.db.store.statement(&mut session.txn);
            if session.isolation == Isolation::ReadCommitted {
                session.snapshot = self.db.store.visible();
                session.current = self.db.store.committed();
            }
            assert_eq!(session.txn.snapshot(), session.snapshot);
        }
    }

    fn commit(&mut self, s: usize) {
        let Some(session) = self.sessions[s].take() else { return };
        let changed = !session.txn.is_read_only();
        let stale = session.has_read
            && changed
            && self.stamps.values().any(|stamp| *stamp > session.snapshot);
        let result = self.db.commit(session.txn);
        assert_eq!(result.is_err(), stale, "validation under {:?}", session.isolation);
        if let Ok(lsn) = result
            && lsn > Lsn::ZERO
        {
            let mut content = self.history.last().unwrap().clone();
            for (id, states) in session.writes {
                self.stamps.insert(id, lsn);
                match states.last().copied().flatten() {
                    Some(pair) => content.insert(id, pair),
                    None => content.remove(&id),
                };
            }
            self.history.push(content);
            assert_eq!(lsn.0 as usize, self.history.len() - 1);
            let payload = self.db.log.lock().last().unwrap().1.clone();
            self.follower.apply(lsn, &payload).unwrap();
            let table = self.db.table;
            let own = self.db.store.content_hash(table, lsn);
            assert!(own.is_some());
            assert_eq!(own, self.follower.content_hash(table, lsn));
            let running = self.db.store.running_hash(table);
            assert_eq!(running, self.follower.running_hash(table));
            assert_eq!(running.map(|r| r.hash), own);
        }
    }

    fn read(&mut self, s: usize) {
        let Some(session) = &mut self.sessions[s] else { return };
        let (db, txn) = (&self.db, &session.txn);
        session.has_read |= session.isolation == Isolation::Serializable;
        for view in [View::Committed, View::ForUpdate] {
            let expected = session.sees(view, &self.history);
            let scan: Content =
                db.store.scan(txn, view, db.table).map(|(id, r)| (id, pair(&r))).collect();
            assert_eq!(scan, expected);
            for id in &self.rows {
                let got = db.store.get(txn, view, db.table, *id).map(|r| pair(&r));
                assert_eq!(got.as_ref(), expected.get(id));
            }
            for k in 0..KEYS {
                let found = db.store.lookup(txn, view, db.by_k, &[Value::Int(k)]);
                let mut found: Vec<_> = found.iter().map(|(id, r)| (*id, pair(r))).collect();
                found.sort_unstable();
                let wanted: Vec<_> =
                    expected.iter().filter(|(_, p)| p.0 == k).map(|(i, p)| (*i, *p)).collect();
                assert_eq!(found, wanted);
            }
            let bounds = KeyBounds {
                lower: Bound::Included(vec![Value::Int(5)]),
                upper: Bound::Excluded(vec![Value::Int(15)]),
            };
            let mut wanted: Vec<_> = expected
                .iter()
                .filter(|(_, p)| (5..15).contains(&p.1))
                .map(|(id, p)| (p.1, *id))
                .collect();
            wanted.sort_unstable();
            let range = |direction| {
                let scan = db.store.range(txn, view, db.by_v, &bounds, direction);
                scan.map(|(id, r)| (pair(&r).1, id)).collect::<Vec<_>>()
            };
            assert_eq!(range(Direction::Ascending), wanted);
            wanted.reverse();
            assert_eq!(range(Direction::Descending), wanted);
        }
        if session.isolation == Isolation::ReadCommitted {
            let seen = session.sees(View::ForUpdate, &self.history);
            let foreign = seen.keys().filter(|id| !session.writes.contains_key(id));
            let newest = foreign.filter_map(|id| {
                let at = session.current.0 as usize;
                // The stamp of the version that is seen: the last change up to `current`.
                (1..=at).rev().find(|l| self.history[*l].get(id) != self.history[*l - 1].get(id))
            });
            let newest = newest.max().map_or(Lsn::ZERO, |l| Lsn(l as u64));
            if newest > session.snapshot {
                assert!(session.txn.depends_lsn() >= newest);
            }
        }
    }

    /// Errors that a write of `id` (None = a new row) to `new` may answer; empty when it succeeds.
    fn refusals(&self, s: usize, id: Option<RowId>, new: Option<(i64, i64)>) -> Vec<WriteError> {
        let session = self.sessions[s].as_ref().unwrap();
        let others = || {
            let all = self.sessions.iter().enumerate();
            all.filter(move |(i, _)| *i != s).filter_map(|(_, o)| o.as_ref())
        };
        if let Some(id) = id {
            if let Some(other) = others().find(|o| o.locks.contains(&id)) {
                return vec![WriteError::Blocked { on: other.txn.id() }];
            }
            let gone = WriteError::RowGone { table: self.db.table, row: id };
            match session.writes.get(&id).map(|states| states.last().copied().flatten()) {
                Some(Some(_)) => {}
                Some(None) => return vec![gone],
                None => {
                    let stamp = self.stamps.get(&id).copied().unwrap_or_default();
                    if session.isolation == Isolation::ReadCommitted {
                        if stamp > session.current && !session.locks.contains(&id) {
                            return vec![WriteError::Blocked { on: TxnId::ENDED }];
                        }
                    } else if stamp > session.snapshot {
                        return vec![WriteError::Serialization];
                    }
                    if !self.history.last().unwrap().contains_key(&id) {
                        return vec![gone];
                    }
                }
            }
        }
        let Some((k, _)) = new else { return Vec::new() };
        let old_key = id.and_then(|id| self.newest_of(session, id)).map(|p| p.0);
        if old_key == Some(k) {
            return Vec::new();
        }
        let mut refusals = Vec::new();
        let newest = self.history.last().unwrap();
        for other in self.rows.iter().filter(|other| Some(**other) != id) {
            let holder = others().find(|o| o.writes.contains_key(other));
            if let Some(holder) = holder {
                let states = &holder.writes[other];
                let mut pairs = states.iter().flatten().chain(newest.get(other));
                if pairs.any(|p| p.0 == k) {
                    refusals.push(WriteError::Blocked { on: holder.txn.id() });
                }
                continue;
            }
            let stamp = self.stamps.get(other).copied().unwrap_or_default();
            let own = session.writes.contains_key(other);
            // An insertion is judged by the statement that comes to see the key's owner.
            let late = session.isolation == Isolation::ReadCommitted
                && id.is_none()
                && stamp > session.current;
            if late && !own {
                let read = self.history[session.current.0 as usize].get(other);
                if read.into_iter().chain(newest.get(other)).any(|p| p.0 == k) {
                    refusals.push(WriteError::Blocked { on: TxnId::ENDED });
                }
            } else if self.newest_of(session, *other).is_some_and(|p| p.0 == k) {
                let pending = !own && stamp > session.snapshot;
                refusals.push(WriteError::UniqueViolation {
                    index: "pairs_pkey".into(),
                    key: format!("(k)=({k})"),
                    depends: if pending { stamp } else { Lsn::ZERO },
                });
            }
        }
        refusals
    }

    fn newest_of(&self, session: &Session, id: RowId) -> Option<(i64, i64)> {
        match session.writes.get(&id) {
            Some(states) => states.last().copied().flatten(),
            None => self.history.last().unwrap().get(&id).copied(),
        }
    }

    fn write_known(&mut self, s: usize, r: usize, new: Option<(i64, i64)>) {
        if !self.rows.is_empty() {
            self.write(s, Some(self.rows[r % self.rows.len()]), new);
        }
    }

    fn write(&mut self, s: usize, id: Option<RowId>, new: Option<(i64, i64)>) {
        if self.sessions[s].is_none() {
            return;
        }
        let refusals = self.refusals(s, id, new);
        let session = self.sessions[s].as_mut().unwrap();
        let (db, txn) = (&self.db, &mut session.txn);
        let result = match (id, new) {
            (None, Some((k, v))) => db.store.insert(txn, db.table, row(k, v)),
            (Some(id), Some((k, v))) => db.store.update(txn, db.table, id, row(k, v)).map(|()| id),
            (Some(id), None) => db.store.delete(txn, db.table, id).map(|()| id),
            (None, None) => unreachable!("a new row has columns"),
        };
        match result {
            Ok(id) => {
                assert_eq!(refusals, []);
                session.writes.entry(id).or_default().push(new);
                session.locks.insert(id);
                if !self.rows.contains(&id) {
                    self.rows.push(id);
                }
            }
            Err(error) => assert!(refusals.contains(&error), "{error:?} not in {refusals:?}"),
        }
    }

    fn lock(&mut self, s: usize, r: usize) {
        if self.sessions[s].is_none() || self.rows.is_empty() {
            return;
        }
        let id = self.rows[r % self.rows.len()];
        let refusals = self.refusals(s, Some(id), None);
        let newest = self.newest_of(self.sessions[s].as_ref().unwrap(), id);
        let session = self.sessions[s].as_mut().unwrap();
        match self.db.store.lock_row(&mut session.txn, self.db.table, id) {
            Ok(row) => {
                assert_eq!((refusals.len(), Some(pair(&row))), (0, newest));
                session.locks.insert(id);
            }
            Err(error) => assert!(refusals.contains(&error), "{error:?} not in {refusals:?}"),
        }
    }

    /// As a READ COMMITTED statement does with a row that changed under it.
    fn lock_newest(&mut self, s: usize, r: usize) {
        let Some(session) = &self.sessions[s] else { return };
        if self.rows.is_empty() || session.isolation != Isolation::ReadCommitted {
            return;
        }
        let id = self.rows[r % self.rows.len()];
        let others = self.sessions.iter().enumerate().filter(|(i, _)| *i != s);
        let holder = others.filter_map(|(_, o)| o.as_ref()).find(|o| o.locks.contains(&id));
        let expected = match holder {
            Some(holder) => Err(WriteError::Blocked { on: holder.txn.id() }),
            None => Ok(self.newest_of(session, id)),
        };
        let own = session.writes.contains_key(&id);
        let pending = self.stamps.get(&id).copied().filter(|at| !own && *at > session.snapshot);
        let session = self.sessions[s].as_mut().unwrap();
        let got = self.db.store.lock_newest(&mut session.txn, self.db.table, id);
        assert_eq!(got.map(|row| row.as_ref().map(pair)), expected);
        if let Ok(Some(_)) = expected {
            session.locks.insert(id);
        }
        if expected.is_ok() {
            assert!(session.txn.depends_lsn() >= pending.unwrap_or_default());
        }
    }

    /// Ends everything, frees everything, and compares what is left with a store that was loaded.
    fn finish(mut self) {
        for session in self.sessions.drain(..).flatten() {
            self.db.store.rollback(session.txn);
        }
        self.db.acknowledge();
        self.db.store.reclaim(usize::MAX);
        let at = self.db.store.visible();
        let loaded = reloaded(&self.db.store, at);
        assert_eq!(loaded.memory(), self.db.store.memory());
        self.follower.set_visible(at);
        self.follower.reclaim(usize::MAX);
        assert_eq!(loaded.memory(), self.follower.memory());
        let reader = loaded.begin(Isolation::ReadCommitted);
        let scan = loaded.scan(&reader, View::Committed, self.db.table);
        let content: Content = scan.map(|(id, r)| (id, pair(&r))).collect();
        assert_eq!(Some(&content), self.history.last());
    }
}

proptest! {
    #[test]
    fn interleaved_transactions_behave_as_the_model(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.finish();
    }
}
