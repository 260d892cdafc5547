//! What a history is measured by, and what is found in it.

use super::{Key, Transaction, Value, cycles, observe::Observed};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// Most anomalies of a kind that are told; all are counted.
const TOLD_MAX: u64 = 8;

/// What the server promised; each level forbids what the one before forbids, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// READ COMMITTED: no dirty writes, no dirty reads, no circles without rw.
    ReadCommitted,
    /// REPEATABLE READ as snapshots: also no lost update, and no circle without two rw in a row.
    Snapshot,
    /// SERIALIZABLE: no circle at all.
    Serializable,
}

/// Whether time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Transactions may take effect in any order that the level allows.
    Any,
    /// What was acknowledged before another transaction began also comes before it.
    RealTime,
}

/// Kinds of anomalies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// A circle of ww: two transactions wrote over each other.
    G0,
    /// A value of an aborted transaction was read.
    G1a,
    /// A list was read in the midst of another transaction's appends to it.
    G1b,
    /// A circle of ww and wr.
    G1c,
    /// A circle with one rw.
    #[serde(rename = "G-single")]
    GSingle,
    /// A circle with several rw, of which no two follow each other.
    #[serde(rename = "G-nonadjacent")]
    GNonadjacent,
    /// A circle in which two rw follow each other.
    #[serde(rename = "G2-item")]
    G2Item,
    /// Two transactions read the same state of a list, and both appended to it.
    #[serde(rename = "lost-update")]
    LostUpdate,
    /// A circle that only time closes.
    #[serde(rename = "real-time")]
    RealTime,
    /// A read does not show what was acknowledged before its transaction began.
    #[serde(rename = "stale-read")]
    StaleRead,
    /// Two reads of a list, of which neither is the beginning of the other.
    #[serde(rename = "incompatible-orders")]
    IncompatibleOrders,
    /// A value twice in a list.
    #[serde(rename = "duplicate-elements")]
    DuplicateElements,
    /// A transaction contradicts itself: its own append is missing, or its snapshot moved.
    #[serde(rename = "internal")]
    Internal,
    /// A value that nobody appended.
    #[serde(rename = "garbage")]
    Garbage,
    /// The history cannot be judged: a client appended a value twice to a list.
    #[serde(rename = "ambiguous-history")]
    AmbiguousHistory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Something that the level forbids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    /// Its name.
    pub kind: Kind,
    /// What happened, in words.
    pub told: String,
    /// The transactions that it needs, as places in the history; a circle in its order.
    pub transactions: Vec<usize>,
}

/// An append that happened and is not in a final read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The list.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// Who appended it: a place in the history.
    pub transaction: usize,
    /// Whether its COMMIT was acknowledged. Otherwise another part of the transaction was seen.
    pub is_acknowledged: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// At most eight of each kind.
    pub anomalies: Vec<Anomaly>,
    /// How many there are of each kind; circles count once for each knot of transactions.
    pub counts: BTreeMap<Kind, u64>,
    /// Every lost append.
    pub lost: Vec<Lost>,
    /// Unknown transactions that turned out to have happened.
    pub unknown_committed: usize,
}

impl Verdict {
    /// Nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty() && self.lost.is_empty()
    }

    /// Adds an anomaly; the words are only made when they are kept.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        transactions: Vec<usize>,
        told: impl FnOnce() -> String,
    ) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD_MAX {
            self.anomalies.push(Anomaly { kind, told: told(), transactions });
        }
    }
}

/// Looks for everything that `level` forbids.
#[must_use]
pub fn check(history: &[Transaction], level: Level, order: Order) -> Verdict {
    let mut verdict = Verdict::default();
    let observed = Observed::new(history, &mut verdict);
    observed.find_lost(&mut verdict);
    let edges = observed.edges(level, order, &mut verdict);
    cycles::find(&observed, edges, level, order, &mut verdict);
    verdict
}
