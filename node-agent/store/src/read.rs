//! Reading: by row id, by key, by range and whole tables.
//!
//! A read by a key takes no lock but a row's own for the moment of looking, one by row id the row's page
//! before that, shared. A scan of a table holds each page shared while it looks at the page's rows, so whoever
//! adds a row there or takes one away waits for some sixty looks at most; a change of a row does not. A
//! [`Scan`] copies its rows out in batches and holds nothing between them. Invariants: a row
//! that moved between keys is given once, under the key of the version that the reader sees; reading a
//! pending version makes the transaction depend on its LSN.

use crate::{
    heap::Heap,
    index::IndexData,
    key::{self, KeyBytes},
    row::{Row, RowId},
    store::Store,
    table::{IndexId, TableId},
    txn::Txn,
    value::Value,
    version::{Chain, Reader, RowCell, UNCOMMITTED, Version},
    visibility::View,
};
use std::{ops::Bound, sync::Arc};

/// Rows copied out at a time.
const BATCH: usize = 256;

/// Which keys of an index. A bound names one or more leading columns and speaks of all keys that
/// begin with them.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyBounds {
    /// Where the keys begin.
    pub lower: Bound<Vec<Value>>,
    /// Where they end.
    pub upper: Bound<Vec<Value>>,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending, nulls last.
    Ascending,
    /// Descending, nulls first.
    Descending,
}

impl KeyBounds {
    /// All keys.
    #[must_use]
    pub fn all() -> KeyBounds {
        KeyBounds { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    /// All keys that begin with these values.
    #[must_use]
    pub fn equal(values: Vec<Value>) -> KeyBounds {
        KeyBounds { lower: Bound::Included(values.clone()), upper: Bound::Included(values) }
    }
}

impl Store {
    /// One row.
    #[must_use]
    pub fn get(&self, txn: &Txn, view: View, table: TableId, row: RowId) -> Option<Row> {
        let heap = &txn.state.table(table)?.heap;
        let cell = heap.cell(row)?;
        if let Some(mut reads) = txn.reads() {
            reads.add_row(heap, &cell);
        }
        read_cell(txn, txn.reader(view), &cell)
    }

    /// The row with a whole key of a unique index (without nulls). Should the reader see two, because
    /// the key changed hands after its snapshot and it has taken the key itself, the newer row.
    #[must_use]
    pub fn lookup_one(
        &self,
        txn: &Txn,
        view: View,
        index: IndexId,
        key: &[Value],
    ) -> Option<(RowId, Row)> {
        let mut found = None;
        look_up(txn, view, index, key, |id, row| found = Some((id, row)));
        found
    }

    /// The rows whose key begins with these values (all key columns, or the leading ones).
    #[must_use]
    pub fn lookup(
        &self,
        txn: &Txn,
        view: View,
        index: IndexId,
        key: &[Value],
    ) -> Vec<(RowId, Row)> {
        let Some(data) = txn.state.index(index) else { return Vec::new() };
        let whole = key.len() == data.def.columns.len() && !key.iter().any(Value::is_null);
        if data.def.unique && whole {
            let mut found = Vec::new();
            look_up(txn, view, index, key, |id, row| found.push((id, row)));
            return found;
        }
        let bounds = KeyBounds::equal(key.to_vec());
        self.range(txn, view, index, &bounds, Direction::Ascending).collect()
    }

    /// All rows of a table, by row id.
    #[must_use]
    pub fn scan<'a>(&'a self, txn: &'a Txn, view: View, table: TableId) -> Scan<'a> {
        let source = txn.state.table(table).map(|table| {
            table.heap.counts.scans.count();
            if let Some(mut reads) = txn.reads() {
                reads.add_table(&table.heap);
            }
            Source::Rows { heap: Arc::clone(&table.heap), from: RowId(0) }
        });
        Scan { txn, reader: txn.reader(view), source, batch: Vec::new().into_iter() }
    }

    /// The newest rows of a table that the transaction has taken (`take`): nobody else changes them.
    #[must_use]
    pub fn scan_taken<'a>(&'a self, txn: &'a Txn, table: TableId) -> Scan<'a> {
        let reader = Reader { snapshot: self.committed(), own: txn.id };
        Scan { reader, ..self.scan(txn, View::ForUpdate, table) }
    }

    /// The rows within bounds of an index, in its order.
    #[must_use]
    pub fn range<'a>(
        &'a self,
        txn: &'a Txn,
        view: View,
        index: IndexId,
        bounds: &KeyBounds,
        direction: Direction,
    ) -> Scan<'a> {
        let source = txn.state.index(index).map(|index| {
            index.scans.count();
            let (lower, upper) = (bounds.lower.as_ref(), bounds.upper.as_ref());
            let (from, to) = key::encode_bounds(
                lower.map(Vec::as_slice),
                upper.map(Vec::as_slice),
                &index.table,
                &index.def.columns,
            );
            note_range(txn, index, || (from.clone(), to.clone()));
            Source::Keys { index: Arc::clone(index), from, to, direction }
        });
        Scan { txn, reader: txn.reader(view), source, batch: Vec::new().into_iter() }
    }
}

/// Rows in order, read in batches. Later changes of the same transaction may or may not be seen:
/// a statement that changes what it reads collects first.
#[derive(Debug)]
pub struct Scan<'a> {
    txn: &'a Txn,
    reader: Reader,
    /// None when everything was read.
    source: Option<Source>,
    batch: std::vec::IntoIter<(RowId, Row)>,
}

#[derive(Debug)]
enum Source {
    Rows { heap: Arc<Heap>, from: RowId },
    Keys { index: Arc<IndexData>, from: Vec<u8>, to: Vec<u8>, direction: Direction },
}

impl Iterator for Scan<'_> {
    type Item = (RowId, Row);

    fn next(&mut self) -> Option<(RowId, Row)> {
        loop {
            if let Some(row) = self.batch.next() {
                return Some(row);
            }
            self.batch = self.next_batch()?.rows.into_iter();
        }
    }
}

/// What a scan has found in one go.
#[derive(Debug)]
pub struct Batch {
    /// The rows that its reader sees.
    pub rows: Vec<(RowId, Row)>,
    /// How many it met and does not see: they take time too.
    pub unseen: u64,
}

impl Scan<'_> {
    /// Reads on, perhaps without finding a row; `None` when everything was read.
    pub fn next_batch(&mut self) -> Option<Batch> {
        let (mut rows, mut unseen) = (Vec::new(), 0);
        let done = match self.source.as_mut()? {
            Source::Rows { heap, from } => {
                let mut looked = 0;
                let (txn, reader) = (self.txn, self.reader);
                heap.rows.visit(*from, |cell| {
                    let row = read_cell(txn, reader, cell);
                    unseen += u64::from(row.is_none());
                    rows.extend(row.map(|row| (cell.id, row)));
                    looked += 1;
                    *from = RowId(cell.id.0 + 1);
                    looked < BATCH
                });
                looked < BATCH
            }
            Source::Keys { index, from, to, direction } => {
                let mut looked = 0;
                let mut last = Vec::new();
                let (txn, reader) = (self.txn, self.reader);
                let see = |key: &[u8], cells: &[Arc<RowCell>]| {
                    for cell in cells {
                        let row = read_entry(txn, reader, index, cell, key);
                        unseen += u64::from(row.is_none());
                        rows.extend(row.map(|row| (cell.id, row)));
                    }
                    looked += 1;
                    if looked == BATCH {
                        last = key.to_vec();
                    }
                    looked < BATCH
                };
                match direction {
                    Direction::Ascending => index.map.visit(from, to, see),
                    Direction::Descending => index.map.visit_back(from, to, see),
                }
                match direction {
                    Direction::Ascending => {
                        last.push(0);
                        *from = last;
                    }
                    Direction::Descending => *to = last,
                }
                looked < BATCH
            }
        };
        if done {
            self.source = None;
        }
        Some(Batch { rows, unseen })
    }
}

/// Shows the rows that the reader sees under a whole key of a unique index, oldest first.
fn look_up(txn: &Txn, view: View, index: IndexId, key: &[Value], mut show: impl FnMut(RowId, Row)) {
    let Some(index) = txn.state.index(index) else { return };
    index.scans.count();
    let mut bytes = KeyBytes::new();
    key::encode_values(key, &index.table, &index.def.columns, &mut bytes);
    note_range(txn, index, || {
        let mut to = bytes.to_vec();
        to.push(0);
        (bytes.to_vec(), to)
    });
    let reader = txn.reader(view);
    index.map.with(&bytes, |cells| {
        for cell in cells {
            if let Some(row) = read_entry(txn, reader, index, cell, &bytes) {
                if view == View::ForUpdate {
                    *txn.last.lock() = Some((index.table.id, Arc::clone(cell)));
                }
                show(cell.id, row);
            }
        }
    });
}

/// The version that the reader sees, a deletion too; what a pending one tells depends on it (A2.9).
fn seen<'a>(txn: &Txn, reader: Reader, chain: &'a Chain) -> Option<&'a Version> {
    let version = chain.visible(reader)?;
    if version.stamp > txn.snapshot && version.stamp != UNCOMMITTED {
        txn.depend_on(version.stamp);
    }
    Some(version)
}

/// What the reader sees of a row.
fn read_cell(txn: &Txn, reader: Reader, cell: &RowCell) -> Option<Row> {
    let chain = cell.chain.lock();
    seen(txn, reader, &chain)?.row.clone()
}

/// What the reader sees of a row, when that version has the key under which the row was found.
fn read_entry(
    txn: &Txn,
    reader: Reader,
    index: &IndexData,
    cell: &RowCell,
    key: &[u8],
) -> Option<Row> {
    let chain = cell.chain.lock();
    let row = seen(txn, reader, &chain)?.row.as_ref()?;
    if chain.moved && *index.key_of(cell.id, row).0 != *key {
        return None;
    }
    Some(row.clone())
}

fn note_range(txn: &Txn, index: &Arc<IndexData>, bounds: impl FnOnce() -> (Vec<u8>, Vec<u8>)) {
    if let Some(mut reads) = txn.reads()
        && let Some(table) = txn.state.table(index.table.id)
    {
        reads.add_range(&table.heap, index, bounds());
    }
}
