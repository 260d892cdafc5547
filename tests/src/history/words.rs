//! Anomalies in words.

use super::{
    Key, Operation, Transaction, Value,
    graph::{Edge, Reason},
};
use std::fmt::Write;

/// Most values of a list that are told: its end.
const VALUES_MAX: usize = 6;
/// Most edges of a circle that are told.
const STEPS_MAX: usize = 24;
/// Most transactions that are told with all they did.
const DETAILS_MAX: usize = 6;

/// A list, or its end.
fn list(values: &[Value]) -> String {
    let shown = &values[values.len().saturating_sub(VALUES_MAX)..];
    let text: Vec<String> = shown.iter().map(Value::to_string).collect();
    let dots = if shown.len() < values.len() { "… " } else { "" };
    format!("[{dots}{}]", text.join(" "))
}

/// Two reads that cannot both be right.
pub(super) fn incompatible(
    key: Key,
    first: &[Value],
    first_reader: usize,
    second: &[Value],
    second_reader: usize,
) -> String {
    let same = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let show = |values: &[Value]| {
        let end = values.len().min(same + VALUES_MAX);
        list(&values[..end])
    };
    format!(
        "list {key}: T{first_reader} read {}, T{second_reader} read {}; they part after {same} values",
        show(first),
        show(second)
    )
}

/// A read that contradicts the reader's own appends.
pub(super) fn not_its_own(reader: usize, key: Key, values: &[Value], mine: &[Value]) -> String {
    format!("T{reader} had appended {} to list {key} and then read {}", list(mine), list(values))
}

/// Two reads by one transaction that differ.
pub(super) fn moved(reader: usize, key: Key, first: &[Value], second: &[Value]) -> String {
    format!("T{reader} read list {key} as {} and then as {}", list(first), list(second))
}

/// A read without what was acknowledged.
pub(super) fn stale(
    history: &[Transaction],
    reader: usize,
    key: Key,
    value: Value,
    writer: usize,
) -> String {
    let ms = history[reader].begun_ns.saturating_sub(history[writer].ended_ns) / 1_000_000;
    format!(
        "T{reader} read list {key} without {value}, whose T{writer} was acknowledged {ms} ms before T{reader} began"
    )
}

/// A circle, edge by edge, and who took part.
pub(super) fn circle(history: &[Transaction], edges: &[Edge]) -> String {
    let steps: Vec<String> = edges.iter().take(STEPS_MAX).map(step).collect();
    let mut told = steps.join("; ");
    if edges.len() > STEPS_MAX {
        // Writing to a string does not fail.
        let _ = write!(told, "; and {} more, back to T{}", edges.len() - STEPS_MAX, edges[0].from);
    }
    for Edge { from, .. } in edges.iter().take(DETAILS_MAX) {
        let _ = write!(told, " | T{from} {}", transaction(&history[*from]));
    }
    told
}

fn step(edge: &Edge) -> String {
    let Edge { from, to, reason } = edge;
    match reason {
        Reason::Ww { key, before, value } => {
            format!("T{from} appended {before} to list {key} right before T{to} appended {value}")
        }
        Reason::Wr { key, value } => {
            format!("T{to} read {value} in list {key}, which T{from} appended")
        }
        Reason::Rw { key, value } => {
            format!("T{from} read list {key} without {value}, which T{to} appended next")
        }
        Reason::Rt => format!("T{from} was acknowledged before T{to} began"),
    }
}

fn transaction(transaction: &Transaction) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let operations: Vec<String> = transaction
        .operations
        .iter()
        .map(|operation| match operation {
            Operation::Append { key, value } => format!("append {key} ← {value}"),
            Operation::Read { key, values } => format!("read {key} → {}", list(values)),
        })
        .collect();
    format!(
        "(session {}, {:.3}–{:.3} ms): {}",
        transaction.process,
        ms(transaction.begun_ns),
        ms(transaction.ended_ns),
        operations.join(", ")
    )
}
