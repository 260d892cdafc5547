//! The entries of an index: each a key, and the cells that have it.
//!
//! ```text
//!   short:  | map's word 8 | kind 1 | length 1 | key 14 | cell 8 |   32 bytes, half a cache line
//!   wide:   | map's word 8 | kind 1 | length 1 | key 30 | cell 8 |   48 bytes
//! ```
//! An index whose keys are short for the numbers of most tables has short entries (`KeyRoom`), every other
//! one wide ones. A key that does not fit lies beside its entry, and so do the cells of a key that several
//! rows had one after the other.
//!
//! Caveats: of such a key each cell is charged an entry, which is about half of what the second one takes; it
//! lasts until reclamation.

use crate::{
    radix::{AsBytes, Ordered, Radix},
    row::size_class,
    version::RowCell,
};
use std::{fmt, slice, sync::Arc};

/// Longest key inside a short entry.
pub(crate) const SHORT: usize = 14;
/// Longest key inside a wide one.
const WIDE: usize = 30;
/// The part of the nodes above that an entry is charged. A full node takes 2,560 bytes, for 256 entries;
/// keys that lie far from each other have smaller nodes of fewer entries, which come to more.
const NODES: u64 = 10;

/// A key and its cells, as one leaf of the map.
trait Entry: AsBytes {
    fn new(key: &[u8], cells: &[Arc<RowCell>]) -> Self;
    fn cells(&self) -> &[Arc<RowCell>];
}

enum ShortEntry {
    /// The common case.
    One { length: u8, key: [u8; SHORT], cell: Arc<RowCell> },
    /// A key that is longer.
    Long(Box<WideEntry>),
    /// Rows that had the unique key one after the other.
    Many(Box<Many>),
}

enum WideEntry {
    /// The common case.
    One {
        length: u8,
        key: [u8; WIDE],
        cell: Arc<RowCell>,
    },
    Long {
        key: Box<[u8]>,
        cell: Arc<RowCell>,
    },
    /// Rows that had the unique key one after the other.
    Many(Box<Many>),
}

struct Many {
    key: Box<[u8]>,
    cells: Box<[Arc<RowCell>]>,
}

impl Many {
    fn new(key: &[u8], cells: &[Arc<RowCell>]) -> Many {
        Many { key: key.into(), cells: cells.into() }
    }
}

/// The bytes with zeros behind them, when they fit.
fn inline<const N: usize>(bytes: &[u8]) -> Option<(u8, [u8; N])> {
    let mut key = [0; N];
    key.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some((bytes.len() as u8, key))
}

impl Entry for ShortEntry {
    fn new(key: &[u8], cells: &[Arc<RowCell>]) -> ShortEntry {
        match (inline(key), cells) {
            (Some((length, key)), [cell]) => {
                ShortEntry::One { length, key, cell: Arc::clone(cell) }
            }
            (None, [_]) => ShortEntry::Long(Box::new(WideEntry::new(key, cells))),
            _ => ShortEntry::Many(Box::new(Many::new(key, cells))),
        }
    }

    fn cells(&self) -> &[Arc<RowCell>] {
        match self {
            ShortEntry::One { cell, .. } => slice::from_ref(cell),
            ShortEntry::Long(wide) => wide.cells(),
            ShortEntry::Many(many) => &many.cells,
        }
    }
}

impl AsBytes for ShortEntry {
    fn as_bytes(&self) -> &[u8] {
        match self {
            ShortEntry::One { length, key, .. } => &key[..usize::from(*length)],
            ShortEntry::Long(wide) => wide.as_bytes(),
            ShortEntry::Many(many) => &many.key,
        }
    }
}

impl Entry for WideEntry {
    fn new(key: &[u8], cells: &[Arc<RowCell>]) -> WideEntry {
        match (inline(key), cells) {
            (Some((length, key)), [cell]) => WideEntry::One { length, key, cell: Arc::clone(cell) },
            (None, [cell]) => WideEntry::Long { key: key.into(), cell: Arc::clone(cell) },
            _ => WideEntry::Many(Box::new(Many::new(key, cells))),
        }
    }

    fn cells(&self) -> &[Arc<RowCell>] {
        match self {
            WideEntry::One { cell, .. } | WideEntry::Long { cell, .. } => slice::from_ref(cell),
            WideEntry::Many(many) => &many.cells,
        }
    }
}

impl AsBytes for WideEntry {
    fn as_bytes(&self) -> &[u8] {
        match self {
            WideEntry::One { length, key, .. } => &key[..usize::from(*length)],
            WideEntry::Long { key, .. } => key,
            WideEntry::Many(many) => &many.key,
        }
    }
}

/// How long the keys of an index are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Short,
    Wide,
}

impl Width {
    /// The least that an entry is charged.
    pub(crate) fn least(self) -> u64 {
        self.charge(0)
    }

    /// What an entry of one row is charged, by the bytes of its key: what allocators give out for it and
    /// what lies beside it, and its part of the nodes above.
    pub(crate) fn charge(self, length: usize) -> u64 {
        let leaf = |entry: usize| size_class(8 + entry as u64);
        let beside = if length > WIDE { size_class(length as u64) } else { 0 };
        let entry = match self {
            Width::Wide => leaf(size_of::<WideEntry>()),
            Width::Short if length <= SHORT => leaf(size_of::<ShortEntry>()),
            Width::Short => {
                leaf(size_of::<ShortEntry>()) + size_class(size_of::<WideEntry>() as u64)
            }
        };
        entry + beside + NODES
    }
}

/// The entries of one index, by key; see [`Ordered`] for what its reads guarantee.
pub(crate) struct Entries(Map);

enum Map {
    Short(Radix<ShortEntry>),
    Wide(Radix<WideEntry>),
}

impl Entries {
    pub(crate) fn new(width: Width) -> Entries {
        Entries(match width {
            Width::Short => Map::Short(Radix::new()),
            Width::Wide => Map::Wide(Radix::new()),
        })
    }

    /// Shows the cells of a key, of which there is at least one.
    pub(crate) fn with<R>(&self, key: &[u8], show: impl FnOnce(&[Arc<RowCell>]) -> R) -> Option<R> {
        match &self.0 {
            Map::Short(map) => map.with(key, |entry| show(entry.cells())),
            Map::Wide(map) => map.with(key, |entry| show(entry.cells())),
        }
    }

    /// The cells of a key: the first, and the others, of which there are seldom any.
    pub(crate) fn cells(&self, key: &[u8]) -> impl Iterator<Item = Arc<RowCell>> {
        let split = |cells: &[Arc<RowCell>]| (cells.first().cloned(), cells[1..].to_vec());
        let (first, others) = self.with(key, split).unwrap_or_default();
        first.into_iter().chain(others)
    }

    /// Gives a key its cells, at least one; whether it had some.
    pub(crate) fn put(&self, key: &[u8], cells: &[Arc<RowCell>]) -> bool {
        match &self.0 {
            Map::Short(map) => map.put(Entry::new(key, cells)),
            Map::Wide(map) => map.put(Entry::new(key, cells)),
        }
    }

    /// Takes a key out; whether it was there.
    pub(crate) fn take(&self, key: &[u8]) -> bool {
        match &self.0 {
            Map::Short(map) => map.take(key),
            Map::Wide(map) => map.take(key),
        }
    }

    /// Shows the keys in `[from, to)` upwards, and their cells, until the callback answers false.
    pub(crate) fn visit(
        &self,
        from: &[u8],
        to: &[u8],
        mut show: impl FnMut(&[u8], &[Arc<RowCell>]) -> bool,
    ) {
        match &self.0 {
            Map::Short(map) => map.visit(from, to, |entry| show(entry.as_bytes(), entry.cells())),
            Map::Wide(map) => map.visit(from, to, |entry| show(entry.as_bytes(), entry.cells())),
        }
    }

    /// The same downwards.
    pub(crate) fn visit_back(
        &self,
        from: &[u8],
        to: &[u8],
        mut show: impl FnMut(&[u8], &[Arc<RowCell>]) -> bool,
    ) {
        match &self.0 {
            Map::Short(map) => {
                map.visit_back(from, to, |entry| show(entry.as_bytes(), entry.cells()));
            }
            Map::Wide(map) => {
                map.visit_back(from, to, |entry| show(entry.as_bytes(), entry.cells()));
            }
        }
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Map::Short(map) => write!(f, "{map:?}"),
            Map::Wide(map) => write!(f, "{map:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lock_wait::TxnId,
        row::{Row, RowId},
        value::Value,
    };
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use understudy_types::Lsn;

    fn cell(id: u64) -> Arc<RowCell> {
        Arc::new(RowCell::new(RowId(id), TxnId::ENDED, Lsn(1), Row::encode(&[Value::Int(1)])))
    }

    fn ids(cells: &[Arc<RowCell>]) -> Vec<u64> {
        cells.iter().map(|cell| cell.id.0).collect()
    }

    #[test]
    fn an_entry_is_charged_what_allocators_give_out() {
        let charges = |width: Width| [1, 14, 15, 30, 31, 100].map(|length| width.charge(length));
        assert_eq!(charges(Width::Short), [42, 42, 90, 90, 122, 202]);
        assert_eq!(charges(Width::Wide), [58, 58, 58, 58, 90, 170]);
        assert_eq!(NODES, size_class(40 + 256 * 8) / 256);
    }

    proptest! {
        #[test]
        fn entries_are_a_sorted_map(
            is_short in any::<bool>(),
            changes in proptest::collection::vec((0usize..4, 0u16..200), 1..300),
            from in 0u16..200,
            to in 0u16..200,
        ) {
            let entries = Entries::new(if is_short { Width::Short } else { Width::Wide });
            let mut model = BTreeMap::new();
            let cells: Vec<_> = (0..4).map(cell).collect();
            for (count, i) in changes {
                // Keys that fit in every entry, in the wide ones, in none; none is a prefix of another.
                let tail = [1, 20, 40][usize::from(i % 3)];
                let key = [&[1], &i.to_be_bytes()[..], &vec![2; tail]].concat();
                if count > 0 {
                    let is_there = model.insert(key.clone(), ids(&cells[..count])).is_some();
                    prop_assert_eq!(entries.put(&key, &cells[..count]), is_there);
                } else {
                    prop_assert_eq!(entries.take(&key), model.remove(&key).is_some());
                }
                let found = entries.with(&key, ids);
                prop_assert_eq!(found.as_ref(), model.get(&key));
            }
            let from = [&[1], &from.to_be_bytes()[..]].concat();
            let to = [&[1], &to.to_be_bytes()[..]].concat();
            let mut seen = Vec::new();
            entries.visit(&from, &to, |k, v| { seen.push((k.to_vec(), ids(v))); true });
            let mut expected: Vec<_> = if from < to {
                let range = model.range(from.clone()..to.clone());
                range.map(|(k, v)| (k.clone(), v.clone())).collect()
            } else {
                Vec::new()
            };
            prop_assert_eq!(&seen, &expected);
            seen.clear();
            entries.visit_back(&from, &to, |k, v| { seen.push((k.to_vec(), ids(v))); true });
            expected.reverse();
            prop_assert_eq!(seen, expected);
        }
    }
}
