//! Histories of a server that runs one transaction after the other, and the same ones spoilt.

use crate::history::{Key, Kind, Level, Operation, Order, Outcome, Transaction, Value, check};
use proptest::{prelude::*, sample::Index};
use std::collections::BTreeMap;

const KEYS: Key = 4;
const LEVELS: [Level; 3] = [Level::ReadCommitted, Level::Snapshot, Level::Serializable];

/// What a client wanted: per step a list and whether to append; the outcome; whether an unknown one
/// happened; and how long before and after its moment the transaction was open.
#[derive(Debug, Clone)]
struct Wish {
    steps: Vec<(Key, bool)>,
    outcome: Outcome,
    happens: bool,
    open: (u64, u64),
}

fn wishes(overlap: u64) -> impl Strategy<Value = Vec<Wish>> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Committed),
        1 => Just(Outcome::Aborted),
        1 => Just(Outcome::Unknown),
    ];
    let steps = prop::collection::vec((0..KEYS, any::<bool>()), 1..5);
    let open = (0..=overlap, 0..=overlap);
    let wish = (steps, outcome, any::<bool>(), open)
        .prop_map(|(steps, outcome, happens, open)| Wish { steps, outcome, happens, open });
    prop::collection::vec(wish, 1..40)
}

/// Runs the wishes one after the other, each in a moment of its own, and reads everything at the end.
fn run(wishes: &[Wish]) -> Vec<Transaction> {
    let mut lists: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    let mut value = 0;
    let mut history = Vec::new();
    for (wish, moment) in wishes.iter().zip((1_000u64..).step_by(10)) {
        let before = lists.clone();
        let mut operations = Vec::new();
        for &(key, is_append) in &wish.steps {
            let list = lists.entry(key).or_default();
            operations.push(if is_append {
                value += 1;
                list.push(value);
                Operation::Append { key, value }
            } else {
                Operation::Read { key, values: list.clone() }
            });
        }
        let happens = match wish.outcome {
            Outcome::Committed => true,
            Outcome::Aborted => false,
            Outcome::Unknown => wish.happens,
        };
        if !happens {
            lists = before;
        }
        history.push(Transaction {
            process: 0,
            begun_ns: moment - wish.open.0,
            ended_ns: moment + wish.open.1,
            operations,
            outcome: wish.outcome,
            is_final: false,
        });
    }
    let read = |key| Operation::Read { key, values: lists.get(&key).cloned().unwrap_or_default() };
    history.push(Transaction {
        process: 0,
        begun_ns: 10_000,
        ended_ns: 10_001,
        operations: (0..KEYS).map(read).collect(),
        outcome: Outcome::Committed,
        is_final: true,
    });
    history
}

/// All appends of acknowledged transactions.
fn acknowledged(history: &[Transaction]) -> Vec<(Key, Value)> {
    let committed = history.iter().filter(|t| t.outcome == Outcome::Committed);
    let append = |operation: &Operation| match operation {
        Operation::Append { key, value } => Some((*key, *value)),
        Operation::Read { .. } => None,
    };
    committed.flat_map(|t| t.operations.iter().filter_map(append)).collect()
}

/// All reads of committed transactions, by the places of transaction and operation.
fn reads(history: &[Transaction]) -> Vec<(usize, usize, Key, Vec<Value>)> {
    let mut found = Vec::new();
    for (place, transaction) in history.iter().enumerate() {
        for (at, operation) in transaction.operations.iter().enumerate() {
            match operation {
                Operation::Read { key, values } if transaction.outcome == Outcome::Committed => {
                    found.push((place, at, *key, values.clone()));
                }
                Operation::Read { .. } | Operation::Append { .. } => {}
            }
        }
    }
    found
}

proptest! {
    #[test]
    fn one_after_the_other_is_clean(wishes in wishes(500)) {
        let history = run(&wishes);
        for level in LEVELS {
            for order in [Order::Any, Order::RealTime] {
                let verdict = check(&history, level, order);
                prop_assert!(verdict.is_clean(), "{level:?} {order:?} {verdict:#?}");
            }
        }
    }

    #[test]
    fn a_dropped_acknowledged_append_is_lost(
        wishes in wishes(500),
        which in any::<Index>(),
        everywhere in any::<bool>(),
    ) {
        let mut history = run(&wishes);
        let appends = acknowledged(&history);
        prop_assume!(!appends.is_empty());
        let (list, gone) = appends[which.index(appends.len())];
        let skip = if everywhere { 0 } else { history.len() - 1 };
        for operation in history[skip..].iter_mut().flat_map(|t| &mut t.operations) {
            if let Operation::Read { key, values } = operation && *key == list {
                values.retain(|value| *value != gone);
            }
        }
        for level in LEVELS {
            let verdict = check(&history, level, Order::Any);
            let lost: Vec<_> = verdict.lost.iter().map(|l| (l.key, l.value)).collect();
            prop_assert_eq!(lost, [(list, gone)]);
        }
    }

    #[test]
    fn two_reads_exchanged_are_noticed(wishes in wishes(4), which in any::<Index>()) {
        let mut history = run(&wishes);
        let reads = reads(&history);
        let mut pairs = Vec::new();
        for (n, a) in reads.iter().enumerate() {
            pairs.extend(reads[..n].iter().filter(|b| a.2 == b.2 && a.3 != b.3).map(|b| (a, b)));
        }
        prop_assume!(!pairs.is_empty());
        let (a, b) = pairs[which.index(pairs.len())];
        history[a.0].operations[a.1] = Operation::Read { key: a.2, values: b.3.clone() };
        history[b.0].operations[b.1] = Operation::Read { key: b.2, values: a.3.clone() };
        let verdict = check(&history, Level::Serializable, Order::RealTime);
        prop_assert!(!verdict.is_clean(), "{history:#?}");
    }

    #[test]
    fn a_read_of_what_was_aborted_is_noticed(wishes in wishes(500), which in any::<Index>()) {
        let mut history = run(&wishes);
        let seen: Vec<usize> = (0..history.len() - 1)
            .filter(|place| history[*place].outcome == Outcome::Committed)
            .filter(|place| {
                let is_append = |o: &Operation| matches!(o, Operation::Append { .. });
                history[*place].operations.iter().any(is_append)
            })
            .collect();
        prop_assume!(!seen.is_empty());
        history[seen[which.index(seen.len())]].outcome = Outcome::Aborted;
        let verdict = check(&history, Level::ReadCommitted, Order::Any);
        prop_assert!(verdict.counts.contains_key(&Kind::G1a), "{verdict:#?}");
    }
}
