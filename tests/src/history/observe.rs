//! What the reads show: who happened, the order of each list's values, and the edges that follow.

use super::{
    Key, Kind, Level, Lost, Operation, Order, Outcome, Transaction, Value, Verdict,
    graph::{Edge, Reason},
    words,
};
use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

/// Who appended a value.
#[derive(Debug, Clone, Copy)]
struct Writer {
    transaction: usize,
    /// Whether the transaction appended nothing after it to the same list.
    is_last: bool,
}

/// What is known of a list.
#[derive(Debug, Default)]
struct List<'a> {
    /// The longest read.
    values: &'a [Value],
    /// The same values, for looking for them.
    known: HashSet<Value>,
    /// Who read it.
    reader: usize,
    /// Whether reads contradict each other, or one contradicts itself.
    is_unsound: bool,
}

/// A read of a list, split into what others appended and what the reader itself did before.
struct Read<'a> {
    reader: usize,
    key: Key,
    /// Without the reader's own appends.
    external: &'a [Value],
    /// How many of its own follow.
    own: usize,
}

/// A history with what its reads show.
pub(super) struct Observed<'a> {
    pub(super) history: &'a [Transaction],
    /// Whether each transaction happened.
    happened: Vec<bool>,
    writers: HashMap<(Key, Value), Writer>,
    lists: BTreeMap<Key, List<'a>>,
}

impl<'a> Observed<'a> {
    /// Reads the history; notes what needs no circle.
    pub(super) fn new(history: &'a [Transaction], verdict: &mut Verdict) -> Self {
        let mut observed = Self {
            history,
            happened: history.iter().map(|t| t.outcome == Outcome::Committed).collect(),
            writers: HashMap::new(),
            lists: BTreeMap::new(),
        };
        observed.collect_writers(verdict);
        // Whoever is seen has happened, and then what it read was there too.
        let mut seen: Vec<usize> = (0..history.len()).filter(|t| observed.happened[*t]).collect();
        while let Some(reader) = seen.pop() {
            for operation in &history[reader].operations {
                if let Operation::Read { key, values } = operation {
                    observed.look_at(reader, *key, values, &mut seen, verdict);
                }
            }
        }
        observed
    }

    fn collect_writers(&mut self, verdict: &mut Verdict) {
        for (transaction, entry) in self.history.iter().enumerate() {
            let mut before: BTreeMap<Key, Value> = BTreeMap::new();
            for operation in &entry.operations {
                let &Operation::Append { key, value } = operation else { continue };
                let writer = Writer { transaction, is_last: true };
                match self.writers.entry((key, value)) {
                    Entry::Vacant(free) => drop(free.insert(writer)),
                    Entry::Occupied(taken) => {
                        let both = vec![taken.get().transaction, transaction];
                        verdict.add(Kind::AmbiguousHistory, both, || {
                            format!("{value} was appended twice to list {key}")
                        });
                    }
                }
                if let Some(previous) = before.insert(key, value)
                    && previous != value
                    && let Some(writer) = self.writers.get_mut(&(key, previous))
                {
                    writer.is_last = false;
                }
            }
        }
    }

    /// One read of somebody who happened: it extends the list, or agrees, or does not.
    fn look_at(
        &mut self,
        reader: usize,
        key: Key,
        values: &'a [Value],
        seen: &mut Vec<usize>,
        verdict: &mut Verdict,
    ) {
        let list = self.lists.entry(key).or_default();
        if list.values.starts_with(values) {
            return;
        }
        let is_longer = values.starts_with(list.values);
        let new = if is_longer {
            &values[list.values.len()..]
        } else {
            let both = vec![list.reader, reader];
            verdict.add(Kind::IncompatibleOrders, both, || {
                words::incompatible(key, list.values, list.reader, values, reader)
            });
            list.is_unsound = true;
            list.known.clear();
            values
        };
        for value in new {
            if !list.known.insert(*value) {
                list.is_unsound = true;
                verdict.add(Kind::DuplicateElements, vec![reader], || {
                    format!("T{reader} read {value} twice in list {key}")
                });
            }
        }
        if is_longer {
            (list.values, list.reader) = (values, reader);
        } else {
            list.known = list.values.iter().copied().collect();
        }
        for value in new {
            self.meet(reader, key, *value, seen, verdict);
        }
    }

    /// A value is seen for the first time.
    fn meet(
        &mut self,
        reader: usize,
        key: Key,
        value: Value,
        seen: &mut Vec<usize>,
        verdict: &mut Verdict,
    ) {
        let Some(&Writer { transaction, .. }) = self.writers.get(&(key, value)) else {
            verdict.add(Kind::Garbage, vec![reader], || {
                format!("T{reader} read {value} in list {key}, which nobody appended")
            });
            return;
        };
        match self.history[transaction].outcome {
            Outcome::Committed => {}
            Outcome::Unknown => {
                if !std::mem::replace(&mut self.happened[transaction], true) {
                    verdict.unknown_committed += 1;
                    seen.push(transaction);
                }
            }
            Outcome::Aborted => verdict.add(Kind::G1a, vec![reader, transaction], || {
                format!(
                    "T{reader} read {value} in list {key}, which T{transaction} appended and aborted"
                )
            }),
        }
    }

    /// Transactions that happened, with their places.
    pub(super) fn happened(&self) -> impl Iterator<Item = (usize, &'a Transaction)> + '_ {
        let history: &'a [Transaction] = self.history;
        history.iter().enumerate().filter(|(place, _)| self.happened[*place])
    }

    /// What happened and is not in a final read of its list.
    pub(super) fn find_lost(&self, verdict: &mut Verdict) {
        let mut finals: HashMap<Key, Vec<HashSet<Value>>> = HashMap::new();
        for (_, transaction) in self.happened().filter(|(_, t)| t.is_final) {
            for operation in &transaction.operations {
                if let Operation::Read { key, values } = operation {
                    finals.entry(*key).or_default().push(values.iter().copied().collect());
                }
            }
        }
        for (place, transaction) in self.happened() {
            for operation in &transaction.operations {
                let &Operation::Append { key, value } = operation else { continue };
                let is_absent = |read: &HashSet<Value>| !read.contains(&value);
                if finals.get(&key).is_some_and(|reads| reads.iter().any(is_absent)) {
                    let is_acknowledged = transaction.outcome == Outcome::Committed;
                    verdict.lost.push(Lost { key, value, transaction: place, is_acknowledged });
                }
            }
        }
    }

    /// The edges between transactions; notes what a transaction and its reads tell by themselves.
    pub(super) fn edges(&self, level: Level, order: Order, verdict: &mut Verdict) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (key, list) in self.lists.iter().filter(|(_, list)| !list.is_unsound) {
            self.order_writers(*key, list, &mut edges);
        }
        let late = (order == Order::RealTime).then(|| self.earliest_ends());
        // Who read a state of a list and appended to it.
        let mut updates: HashMap<(Key, usize), Vec<usize>> = HashMap::new();
        for (reader, _) in self.happened() {
            let reads = self.own_reads(reader, level, verdict);
            for (at, read) in reads.iter().enumerate() {
                self.judge_last_value(read, verdict);
                if self.lists.get(&read.key).is_none_or(|list| list.is_unsound) {
                    continue;
                }
                self.edges_of(read, &mut edges);
                if let Some(late) = &late {
                    self.judge_freshness(read, late, verdict);
                }
                let is_first = reads[..at].iter().all(|earlier| earlier.key != read.key);
                if is_first && read.own == 0 && self.appends_to(reader, read.key) {
                    updates.entry((read.key, read.external.len())).or_default().push(reader);
                }
            }
        }
        if level >= Level::Snapshot {
            find_lost_updates(updates, verdict);
        }
        edges
    }

    /// ww: each value's writer comes before the next value's.
    fn order_writers(&self, key: Key, list: &List<'_>, edges: &mut Vec<Edge>) {
        let mut previous: Option<(usize, Value)> = None;
        for &value in list.values {
            let Some(to) = self.writer(key, value) else { continue };
            if let Some((from, before)) = previous.filter(|(from, _)| *from != to) {
                edges.push(Edge { from, to, reason: Reason::Ww { key, before, value } });
            }
            previous = Some((to, value));
        }
    }

    /// wr from the writer of the last value; rw to the writer of the next.
    fn edges_of(&self, read: &Read<'_>, edges: &mut Vec<Edge>) {
        let (key, reader) = (read.key, read.reader);
        let last = read.external.iter().rev().find_map(|v| Some((self.writer(key, *v)?, *v)));
        if let Some((from, value)) = last.filter(|(from, _)| *from != reader) {
            edges.push(Edge { from, to: reader, reason: Reason::Wr { key, value } });
        }
        let after = &self.lists[&key].values[read.external.len()..];
        let next = after.iter().find_map(|v| Some((self.writer(key, *v)?, *v)));
        if let Some((to, value)) = next.filter(|(to, _)| *to != reader) {
            edges.push(Edge { from: reader, to, reason: Reason::Rw { key, value } });
        }
    }

    /// Who appended a value, if it happened.
    fn writer(&self, key: Key, value: Value) -> Option<usize> {
        let writer = self.writers.get(&(key, value))?;
        self.happened[writer.transaction].then_some(writer.transaction)
    }

    /// The reads of a transaction that agree with itself; the others are internal anomalies.
    fn own_reads(&self, reader: usize, level: Level, verdict: &mut Verdict) -> Vec<Read<'a>> {
        let mut own: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        let mut reads: Vec<Read<'a>> = Vec::new();
        for operation in &self.history[reader].operations {
            let (key, values) = match operation {
                Operation::Append { key, value } => {
                    own.entry(*key).or_default().push(*value);
                    continue;
                }
                Operation::Read { key, values } => (*key, values),
            };
            let mine = own.get(&key).map_or(&[][..], Vec::as_slice);
            let is_others = |external: &&[Value]| !self.holds_own(reader, key, external);
            let Some(external) = values.strip_suffix(mine).filter(is_others) else {
                verdict.add(Kind::Internal, vec![reader], || {
                    words::not_its_own(reader, key, values, mine)
                });
                continue;
            };
            let moved = reads.iter().find(|r| r.key == key && r.external != external);
            if let Some(earlier) = moved.filter(|_| level >= Level::Snapshot) {
                verdict.add(Kind::Internal, vec![reader], || {
                    words::moved(reader, key, earlier.external, external)
                });
            }
            reads.push(Read { reader, key, external, own: mine.len() });
        }
        reads
    }

    /// A read must not end in the midst of another transaction's appends.
    fn judge_last_value(&self, read: &Read<'_>, verdict: &mut Verdict) {
        let (key, reader) = (read.key, read.reader);
        let Some(&value) = read.external.last() else { return };
        let Some(writer) = self.writers.get(&(key, value)) else { return };
        let from = writer.transaction;
        if !writer.is_last && self.happened[from] {
            verdict.add(Kind::G1b, vec![reader, from], || {
                format!(
                    "T{reader} read list {key} up to {value}, to which T{from} appended more after it"
                )
            });
        }
    }

    /// A read must show what was acknowledged before its transaction began.
    fn judge_freshness(
        &self,
        read: &Read<'_>,
        late: &HashMap<Key, Vec<(u64, Value)>>,
        verdict: &mut Verdict,
    ) {
        let (key, reader) = (read.key, read.reader);
        let Some(&(ended_ns, value)) = late[&key].get(read.external.len()) else { return };
        if ended_ns >= self.history[reader].begun_ns {
            return;
        }
        let Some(from) = self.writer(key, value) else { return };
        verdict.add(Kind::StaleRead, vec![reader, from], || {
            words::stale(self.history, reader, key, value, from)
        });
    }

    /// For each place of each list: the earliest known end among the writers from there on.
    fn earliest_ends(&self) -> HashMap<Key, Vec<(u64, Value)>> {
        let of_list = |(key, list): (&Key, &List<'_>)| {
            let mut earliest = (u64::MAX, 0);
            let mut ends: Vec<_> = list
                .values
                .iter()
                .rev()
                .map(|value| {
                    let end = self
                        .writer(*key, *value)
                        .and_then(|writer| known_end(&self.history[writer]))
                        .unwrap_or(u64::MAX);
                    earliest = earliest.min((end, *value));
                    earliest
                })
                .collect();
            ends.reverse();
            (*key, ends)
        };
        self.lists.iter().map(of_list).collect()
    }

    /// Whether values that should be others' hold one that the transaction itself appends, earlier or later.
    fn holds_own(&self, transaction: usize, list: Key, values: &[Value]) -> bool {
        self.history[transaction].operations.iter().any(|operation| match operation {
            Operation::Append { key, value } => *key == list && values.contains(value),
            Operation::Read { .. } => false,
        })
    }

    fn appends_to(&self, transaction: usize, list: Key) -> bool {
        let is_append = |o: &Operation| matches!(o, Operation::Append { key, .. } if *key == list);
        self.history[transaction].operations.iter().any(is_append)
    }
}

/// When a transaction had taken effect for certain.
pub(super) fn known_end(transaction: &Transaction) -> Option<u64> {
    (transaction.outcome == Outcome::Committed).then_some(transaction.ended_ns)
}

fn find_lost_updates(updates: HashMap<(Key, usize), Vec<usize>>, verdict: &mut Verdict) {
    let mut found: Vec<_> = updates.into_iter().filter(|(_, by)| by.len() > 1).collect();
    found.sort_unstable();
    for ((key, length), by) in found {
        let names: Vec<String> = by.iter().map(|t| format!("T{t}")).collect();
        verdict.add(Kind::LostUpdate, by, || {
            format!(
                "{} all read list {key} with {length} values, and appended to it",
                names.join(", ")
            )
        });
    }
}
