//! The checker is given what it has to find, and what it must not complain about.

mod brute_force;
mod examples;
mod properties;

use super::{Key, Operation, Outcome, Transaction, Value};

/// A committed transaction that overlaps all others: `"a1:5 r2: r1:5,6"` appends 5 to list 1, reads
/// list 2 as empty and list 1 as [5, 6].
fn txn(operations: &str) -> Transaction {
    let operations = operations.split_whitespace().map(operation).collect();
    let outcome = Outcome::Committed;
    Transaction { process: 0, begun_ns: 0, ended_ns: 100, operations, outcome, is_final: false }
}

fn operation(text: &str) -> Operation {
    let (key, values) = text[1..].split_once(':').unwrap();
    let key: Key = key.parse().unwrap();
    let values: Vec<Value> =
        values.split(',').filter(|v| !v.is_empty()).map(|v| v.parse().unwrap()).collect();
    match &text[..1] {
        "a" => Operation::Append { key, value: values[0] },
        "r" => Operation::Read { key, values },
        other => panic!("{other} is no operation"),
    }
}

fn aborted(operations: &str) -> Transaction {
    Transaction { outcome: Outcome::Aborted, ..txn(operations) }
}

fn unknown(operations: &str) -> Transaction {
    Transaction { outcome: Outcome::Unknown, ..txn(operations) }
}

/// The final read, after all others.
fn last(operations: &str) -> Transaction {
    Transaction { begun_ns: 1_000, ended_ns: 1_100, is_final: true, ..txn(operations) }
}

/// The same transaction at another time.
fn during(begun_ns: u64, ended_ns: u64, transaction: Transaction) -> Transaction {
    Transaction { begun_ns, ended_ns, ..transaction }
}
