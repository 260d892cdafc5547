//! An ordered map of leaves, each with its key in it.
//!
//! [`Ordered`] is all the store asks of such a map; artmap's radix tree is behind it. Of the tree's two
//! places, for a key and for a value, only the first is used: a leaf is one block of memory, laid out by
//! whoever makes it.

use artmap::{ArtMap, EntryRef};
pub(crate) use artmap::{AsBytes, Guard};
use std::{borrow::Borrow, fmt, ops::Bound};

/// An ordered map from byte strings that many threads read and write at once.
///
/// # Guarantees
/// A visit sees every key that is present during the whole visit exactly once and in order; keys that
/// come or go meanwhile may be seen or not. Readers do not wait for writers.
///
/// # Assumptions
/// Callbacks are short and do not call back into the map. No key is a prefix of another.
pub(crate) trait Ordered<L> {
    /// Shows the leaf of a key.
    fn with<R>(&self, key: &[u8], show: impl FnOnce(&L) -> R) -> Option<R>;
    /// Puts a leaf in the place of the one with its key; whether there was one.
    fn put(&self, leaf: L) -> bool;
    /// Takes a key out; whether it was there.
    fn take(&self, key: &[u8]) -> bool;
    /// Shows the leaves with keys in `[from, to)` upwards until the callback answers false.
    fn visit(&self, from: &[u8], to: &[u8], show: impl FnMut(&L) -> bool);
    /// The same downwards.
    fn visit_back(&self, from: &[u8], to: &[u8], show: impl FnMut(&L) -> bool);
}

/// [`Ordered`] on a radix tree.
pub(crate) struct Radix<L>(ArtMap<L, ()>);

impl<L> Radix<L> {
    pub(crate) fn new() -> Radix<L> {
        Radix(ArtMap::default())
    }
}

impl<L> fmt::Debug for Radix<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Radix({} keys)", self.0.len())
    }
}

/// A leaf that is found and not freed while its pin is held.
pub(crate) struct Found<'a, L>(EntryRef<'a, L, ()>);

impl<L> Found<'_, L> {
    pub(crate) fn leaf(&self) -> &L {
        self.0.key()
    }
}

impl<L: AsBytes + Borrow<[u8]> + Send + 'static> Radix<L> {
    /// Keeps from being freed what is found from now on. Of any map, for all of them; not for long.
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.0.pin()
    }

    /// The leaf of a key.
    pub(crate) fn find<'a>(&'a self, key: &[u8], pin: &'a Guard<'_>) -> Option<Found<'a, L>> {
        self.0.get_with_guard(key, pin).map(Found)
    }
}

impl<L: AsBytes + Send + 'static> Ordered<L> for Radix<L> {
    fn with<R>(&self, key: &[u8], show: impl FnOnce(&L) -> R) -> Option<R> {
        self.0.get_by_slice(key).map(|leaf| show(leaf.key()))
    }

    fn put(&self, leaf: L) -> bool {
        self.0.insert(leaf, ()).is_some()
    }

    fn take(&self, key: &[u8]) -> bool {
        self.0.remove_by_slice(key).is_some()
    }

    fn visit(&self, from: &[u8], to: &[u8], mut show: impl FnMut(&L) -> bool) {
        if from < to {
            let guard = self.0.pin();
            let range = (Bound::Included(from), Bound::Excluded(to));
            for leaf in self.0.range_with_guard::<_, [u8]>(range, &guard) {
                if !show(leaf.key()) {
                    break;
                }
            }
        }
    }

    fn visit_back(&self, from: &[u8], to: &[u8], mut show: impl FnMut(&L) -> bool) {
        if from < to {
            let guard = self.0.pin();
            let range = (Bound::Included(from), Bound::Excluded(to));
            for leaf in self.0.range_with_guard::<_, [u8]>(range, &guard).rev() {
                if !show(leaf.key()) {
                    break;
                }
            }
        }
    }
}
