//! Histories of transactions on lists, and what they say about the server.
//!
//! Clients append numbers to lists and read whole lists. A value is appended to a list at most once, so
//! a list that was read tells which transactions wrote to it, and in which order; nobody has to believe
//! the server's clock or its log. From those orders follow dependencies between transactions:
//!
//! ```text
//!   ww   T1 appended 5 to a list, T2 appended the next value           T1 comes before T2
//!   wr   T2 read a list whose last value is T1's                       T1 comes before T2
//!   rw   T1 read a list before T2 appended the next value              T1 comes before T2
//!   rt   T1 was acknowledged before T2 began (only when asked for)     T1 comes before T2
//!
//!   T1: read 7 → [], append 8 ← 1           T1 ──rw, list 7──► T2
//!   T2: read 8 → [], append 7 ← 2            ▲                  │
//!   end: 7 → [2], 8 → [1]                    └───rw, list 8─────┘     G2-item: write skew
//! ```
//!
//! A circle of *comes before* is an anomaly, and its kinds of edges give its name: ww alone is G0, with
//! wr G1c, with one rw G-single, with several that never follow each other directly G-nonadjacent, any
//! other G2-item. What is no circle is seen while the lists are read ([`Kind`]). The method is the one
//! of Adya's thesis, and of Kingsbury's and Alvaro's paper on Elle.
//!
//! **Invariants.** 1. An aborted transaction did not happen; a committed one did. 2. An unknown one
//! happened if, and only if, somebody who happened saw a value of it. It is never known when it ended.
//! 3. A list about which two reads disagree gives no dependencies: it is an anomaly already.
//!
//! # Caveats
//! Reads by a predicate are not told apart from reads of a list: G2 over ranges is out of sight. One
//! circle is told for each knot of transactions, not all of them. The order of committed values that
//! nobody ever read is not known; with a final read of every list there are none but the lost ones.

mod cycles;
mod graph;
mod observe;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

pub use verdict::{Anomaly, Kind, Level, Lost, Order, Verdict, check};

use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// Number of a list.
pub type Key = u32;
/// What is appended; once only to each list.
pub type Value = u64;

/// One step of a transaction, in the order in which the client took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A value was sent to the end of a list; of an aborted transaction also when there was no answer.
    Append {
        /// The list.
        key: Key,
        /// The value.
        value: Value,
    },
    /// A list was read and came back.
    Read {
        /// The list.
        key: Key,
        /// Its values, oldest first; none for a list that does not exist.
        values: Vec<Value>,
    },
}

/// How a transaction ended, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// COMMIT was acknowledged.
    Committed,
    /// COMMIT was never sent, or was refused for certain.
    Aborted,
    /// COMMIT was sent; the answer did not come, or said *unknown*.
    Unknown,
}

/// What one client knows of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The session; it has one transaction at a time.
    pub process: u32,
    /// Before BEGIN was sent: nanoseconds of one monotonic clock for the whole history.
    pub begun_ns: u64,
    /// After the last answer came, or was given up.
    pub ended_ns: u64,
    /// What it did.
    pub operations: Vec<Operation>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it is a read after everything else had ended: what was acknowledged must be in it.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

/// Writes a history, one transaction a line.
///
/// # Errors
/// When the output takes no more.
pub fn write(history: &[Transaction], mut out: impl Write) -> anyhow::Result<()> {
    for transaction in history {
        serde_json::to_writer(&mut out, transaction)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// When a line is no transaction; the error names it.
pub fn read(input: impl BufRead) -> anyhow::Result<Vec<Transaction>> {
    use anyhow::Context;
    let mut history = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let transaction = serde_json::from_str(&line?)
            .with_context(|| format!("line {} is no transaction", number + 1))?;
        history.push(transaction);
    }
    Ok(history)
}
