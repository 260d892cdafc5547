//! The checker against the definitions: small histories of servers without scruples, and every order in
//! which their transactions could have run. It must complain if, and only if, there is none.

use crate::history::{
    Key, Level, Operation, Order, Outcome, Transaction, Value, check, verdict::Verdict,
};
use proptest::{prelude::*, sample::Index};
use std::collections::BTreeMap;

const KEYS: Key = 2;
const TRANSACTIONS_MAX: usize = 4;

type Lists = BTreeMap<Key, Vec<Value>>;

/// What a server shows to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// Whatever anybody has written.
    Dirty,
    /// What is committed now.
    Committed,
    /// What was committed when the transaction began.
    Snapshot,
}

#[derive(Debug, Clone)]
struct Plan {
    server: Server,
    /// Per transaction: its steps, and whether its outcome is known.
    transactions: Vec<(Vec<(Key, bool)>, bool)>,
    /// Whose turn it is.
    turns: Vec<Index>,
    /// A read that loses its last value.
    spoilt: Option<Index>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let server = prop_oneof![Just(Server::Dirty), Just(Server::Committed), Just(Server::Snapshot)];
    let steps = prop::collection::vec((0..KEYS, any::<bool>()), 1..4);
    let transaction = (steps, prop::bool::weighted(0.8));
    let transactions = prop::collection::vec(transaction, 2..=TRANSACTIONS_MAX);
    let turns = prop::collection::vec(any::<Index>(), 40);
    let spoilt = prop::option::weighted(0.2, any::<Index>());
    (server, transactions, turns, spoilt).prop_map(|(server, transactions, turns, spoilt)| Plan {
        server,
        transactions,
        turns,
        spoilt,
    })
}

/// A transaction that runs.
struct Running {
    snapshot: Lists,
    own: Lists,
    place: usize,
}

fn run(plan: &Plan) -> Vec<Transaction> {
    let (mut lists, mut value) = (Lists::new(), 0);
    let mut running: Vec<Option<Running>> = plan.transactions.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..plan.transactions.len()).collect();
    let mut history: Vec<Transaction> = Vec::new();
    let mut turns = plan.turns.iter().cycle();
    let mut now = 0;
    while !left.is_empty() {
        now += 1;
        let turn = turns.next().unwrap().index(left.len());
        let n = left[turn];
        let (steps, is_known) = &plan.transactions[n];
        let Some(this) = &mut running[n] else {
            let place = history.len();
            running[n] = Some(Running { snapshot: lists.clone(), own: Lists::new(), place });
            let outcome = if *is_known { Outcome::Committed } else { Outcome::Unknown };
            let (operations, is_final) = (Vec::new(), false);
            let process = n as u32;
            history.push(Transaction {
                process,
                begun_ns: now,
                ended_ns: 0,
                operations,
                outcome,
                is_final,
            });
            continue;
        };
        let operations = &mut history[this.place].operations;
        let Some(&(key, is_append)) = steps.get(operations.len()) else {
            history[this.place].ended_ns = now;
            for (key, values) in std::mem::take(&mut this.own) {
                lists.entry(key).or_default().extend(values);
            }
            left.remove(turn);
            continue;
        };
        operations.push(if is_append {
            value += 1;
            let place = if plan.server == Server::Dirty { &mut lists } else { &mut this.own };
            place.entry(key).or_default().push(value);
            Operation::Append { key, value }
        } else {
            let base = if plan.server == Server::Snapshot { &this.snapshot } else { &lists };
            let mut values = base.get(&key).cloned().unwrap_or_default();
            values.extend(this.own.get(&key).into_iter().flatten());
            Operation::Read { key, values }
        });
    }
    let read = |key| Operation::Read { key, values: lists.get(&key).cloned().unwrap_or_default() };
    history.push(Transaction {
        process: 99,
        begun_ns: now + 1,
        ended_ns: now + 2,
        operations: (0..KEYS).map(read).collect(),
        outcome: Outcome::Committed,
        is_final: true,
    });
    spoil(plan, &mut history);
    history
}

fn spoil(plan: &Plan, history: &mut [Transaction]) {
    let mut reads: Vec<&mut Vec<Value>> = history
        .iter_mut()
        .flat_map(|t| &mut t.operations)
        .filter_map(|operation| match operation {
            Operation::Read { values, .. } => Some(values),
            Operation::Append { .. } => None,
        })
        .collect();
    if let Some(index) = &plan.spoilt {
        let at = index.index(reads.len());
        reads[at].pop();
    }
}

/// A step of a possible run. Under a serial one each transaction commits right after it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Begin(usize),
    Commit(usize),
}

/// Looks for a run that explains every read.
struct Explanation<'a> {
    history: &'a [Transaction],
    is_serial: bool,
    order: Order,
}

/// A possible run as far as it has come.
#[derive(Clone, Default)]
struct Run {
    lists: Lists,
    begun: BTreeMap<usize, Lists>,
    committed: Vec<usize>,
}

impl Explanation<'_> {
    fn exists(&self, run: &Run) -> bool {
        let last = self.history.len() - 1;
        let may_end = |t: usize| {
            run.committed.contains(&t)
                || t == last
                || self.history[t].outcome == Outcome::Unknown && !run.begun.contains_key(&t)
        };
        if (0..=last).all(may_end) && shows(&run.lists, &self.history[last]) {
            return true;
        }
        (0..last).any(|t| {
            let event = if run.begun.contains_key(&t) { Event::Commit(t) } else { Event::Begin(t) };
            self.after(run, event).is_some_and(|next| self.exists(&next))
        })
    }

    fn after(&self, run: &Run, event: Event) -> Option<Run> {
        let mut next = run.clone();
        match event {
            Event::Begin(t) => {
                let is_open = |other: &usize| !run.committed.contains(other);
                let waits = self.is_serial && run.begun.keys().any(is_open);
                if waits || !self.may_begin(run, t) || !shows(&run.lists, &self.history[t]) {
                    return None;
                }
                next.begun.insert(t, run.lists.clone());
            }
            Event::Commit(t) => {
                if run.committed.contains(&t) {
                    return None;
                }
                for operation in &self.history[t].operations {
                    let &Operation::Append { key, value } = operation else { continue };
                    // The first who commits wins.
                    if run.begun[&t].get(&key) != run.lists.get(&key) {
                        return None;
                    }
                    next.lists.entry(key).or_default().push(value);
                }
                next.committed.push(t);
            }
        }
        Some(next)
    }

    /// Whoever was acknowledged before it began must have committed.
    fn may_begin(&self, run: &Run, t: usize) -> bool {
        let precedes = |other: &Transaction| {
            other.outcome == Outcome::Committed && other.ended_ns < self.history[t].begun_ns
        };
        self.order == Order::Any
            || self
                .history
                .iter()
                .enumerate()
                .all(|(place, other)| !precedes(other) || run.committed.contains(&place))
    }
}

/// Whether a transaction would read what it read, from this state.
fn shows(lists: &Lists, transaction: &Transaction) -> bool {
    let mut lists = lists.clone();
    transaction.operations.iter().all(|operation| match operation {
        Operation::Append { key, value } => {
            lists.entry(*key).or_default().push(*value);
            true
        }
        Operation::Read { key, values } => lists.get(key).map_or(&[][..], Vec::as_slice) == values,
    })
}

fn compare(plan: &Plan, level: Level) -> Result<(), TestCaseError> {
    let history = run(plan);
    for order in [Order::Any, Order::RealTime] {
        let is_serial = level == Level::Serializable;
        let exists = Explanation { history: &history, is_serial, order }.exists(&Run::default());
        let verdict: Verdict = check(&history, level, order);
        prop_assert_eq!(verdict.is_clean(), exists, "{:?} {:#?} {:#?}", order, history, verdict);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn serializable_is_clean_when_some_serial_order_explains_it(plan in plan()) {
        compare(&plan, Level::Serializable)?;
    }

    #[test]
    fn snapshot_is_clean_when_some_order_of_snapshots_explains_it(plan in plan()) {
        compare(&plan, Level::Snapshot)?;
    }
}
