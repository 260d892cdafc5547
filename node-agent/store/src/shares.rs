//! Who shares which key: a transaction that references a row keeps its key from changing until it ends.
//!
//! Rows carry one locker and nothing else; shares of a row's key stand here, beside the rows, only
//! while the sharing transactions run. So a row costs nothing for them, and many transactions may
//! reference one row at once. Invariants: a share is taken under the row's own mutex, when the row
//! has the key and nobody is about to take it away; who takes a key away looks here under the same
//! mutex. A share is given back after its holder's commit is stamped, or when what it was for is
//! undone. Order of locks: a row's mutex, then a shard.

use crate::{lock_wait::TxnId, row::RowId, sync::Mutex, table::TableId};
use std::collections::{BTreeMap, btree_map::Entry};

/// Parts of the table, so that transactions on different rows do not meet; a power of two.
const SHARDS: usize = 64;

/// A row, wherever it lies.
pub(crate) type Place = (TableId, RowId);

/// The rows whose keys are shared, and by whom.
#[derive(Debug)]
pub(crate) struct Shares {
    shards: [Mutex<BTreeMap<Place, Vec<TxnId>>>; SHARDS],
}

impl Shares {
    pub(crate) fn new() -> Shares {
        Shares { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, (table, row): Place) -> &Mutex<BTreeMap<Place, Vec<TxnId>>> {
        let mixed = (row.0 ^ u64::from(table.0) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 58) as usize & (SHARDS - 1)]
    }

    /// Shares a row's key; whether it was not shared by the same transaction before.
    pub(crate) fn add(&self, place: Place, me: TxnId) -> bool {
        let mut shard = self.shard(place).lock();
        let holders = shard.entry(place).or_default();
        let is_new = !holders.contains(&me);
        if is_new {
            holders.push(me);
        }
        is_new
    }

    /// Gives a share back.
    pub(crate) fn remove(&self, place: Place, me: TxnId) {
        let mut shard = self.shard(place).lock();
        if let Entry::Occupied(mut holders) = shard.entry(place) {
            holders.get_mut().retain(|holder| *holder != me);
            if holders.get().is_empty() {
                holders.remove();
            }
        }
    }

    /// A transaction other than `me` that shares the row's key.
    pub(crate) fn other(&self, place: Place, me: TxnId) -> Option<TxnId> {
        let shard = self.shard(place).lock();
        shard.get(&place)?.iter().copied().find(|holder| *holder != me)
    }

    /// How many rows have a shared key.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shared_by_many_and_forgotten_by_the_last() {
        let shares = Shares::new();
        let place = (TableId(1), RowId(7));
        let (one, two) = (TxnId(1), TxnId(2));
        assert!(shares.add(place, one) && shares.add(place, two) && !shares.add(place, one));
        assert_eq!(shares.other(place, one), Some(two));
        shares.remove(place, two);
        assert_eq!(shares.other(place, one), None);
        assert_eq!(shares.other(place, two), Some(one));
        shares.remove(place, one);
        assert_eq!(shares.rows(), 0);
    }
}
