//! The cells of a table by row id: pages of as many as fill half a kilobyte.
//!
//! Row ids are given in turn, so neighbours are mostly there, and a place in a page is all that a row
//! costs here. Invariants: a page is in the map from before its first row until its last one has gone,
//! and takes none after that. Order of locks: `growth` alone; a page, then a cell's mutex.
//!
//! Caveats: a page stays while one of its rows does; what that costs is not charged to the row.

use crate::{
    index::{OrderedIndex, Radix},
    row::RowId,
    sync::{Mutex, RwLock},
    version::RowCell,
};
use std::sync::Arc;

/// Rows of a page: with its lock and its counters it comes to 512 bytes.
const PAGE: usize = 60;
/// Above every page's key.
const LAST: [u8; 9] = [0xff; 9];

/// Cells by row id.
#[derive(Debug)]
pub(crate) struct Rows {
    pages: Radix<[u8; 8], Arc<RwLock<Page>>>,
    /// Held to add a page.
    growth: Mutex<()>,
}

#[derive(Debug)]
struct Page {
    cells: [Option<Arc<RowCell>>; PAGE],
    /// How many there are.
    live: u32,
    /// Whether its last row has gone, and it from the map.
    gone: bool,
}

/// The key of a row's page, and its place there.
fn place(id: RowId) -> ([u8; 8], usize) {
    let (page, place) = (id.0 / PAGE as u64, id.0 % PAGE as u64);
    (page.to_be_bytes(), place as usize)
}

impl Rows {
    pub(crate) fn new() -> Rows {
        Rows { pages: Radix::new(), growth: Mutex::new(()) }
    }

    pub(crate) fn get(&self, id: RowId) -> Option<Arc<RowCell>> {
        let (key, place) = place(id);
        self.pages.with(&key, |page| page.read().cells[place].clone())?
    }

    /// Puts a row in; whether it was not there.
    pub(crate) fn put(&self, cell: &Arc<RowCell>) -> bool {
        let (key, place) = place(cell.id);
        loop {
            let put = |page: &Arc<RwLock<Page>>| page.write().put(place, cell);
            // None for a page that goes just now; the next look finds it gone from the map.
            if let Some(Some(is_new)) = self.pages.with(&key, put) {
                return is_new;
            }
            self.grow(key);
        }
    }

    /// Puts many rows in that are not there, neighbours together; else tells one that was there.
    pub(crate) fn put_all(&self, cells: &[Arc<RowCell>]) -> Result<(), RowId> {
        let page_of = |cell: &Arc<RowCell>| cell.id.0 / PAGE as u64;
        for run in cells.chunk_by(|a, b| page_of(a) == page_of(b)) {
            let (first, others) = run.split_first().expect("no run is empty");
            if !self.put(first) {
                return Err(first.id);
            }
            let (key, _) = place(first.id);
            let put = |page: &Arc<RwLock<Page>>| {
                let mut page = page.write();
                others.iter().find(|cell| page.put(place(cell.id).1, cell) != Some(true))
            };
            if let Some(twice) = self.pages.with(&key, put).flatten() {
                return Err(twice.id);
            }
        }
        Ok(())
    }

    /// Takes a row out; whether it was there.
    pub(crate) fn take(&self, id: RowId) -> bool {
        let (key, place) = place(id);
        let Some(page) = self.pages.with(&key, Arc::clone) else { return false };
        let mut page = page.write();
        if page.cells[place].take().is_none() {
            return false;
        }
        page.live -= 1;
        page.gone = page.live == 0;
        if page.gone {
            // Inside the page's lock, so that none of this key comes between.
            self.pages.take(&key);
        }
        true
    }

    /// Shows the rows from one on, by id, until the callback answers false. It must not change rows of
    /// this table.
    pub(crate) fn visit(&self, from: RowId, mut show: impl FnMut(&Arc<RowCell>) -> bool) {
        let (first, start) = place(from);
        self.pages.visit(&first, &LAST, |key, page| {
            let start = if *key == first { start } else { 0 };
            page.read().cells[start..].iter().flatten().all(&mut show)
        });
    }

    /// Adds a page, unless there is one.
    fn grow(&self, key: [u8; 8]) {
        let _growth = self.growth.lock();
        if self.pages.with(&key, |_| ()).is_none() {
            let page = Page { cells: [const { None }; PAGE], live: 0, gone: false };
            self.pages.put(key, Arc::new(RwLock::new(page)));
        }
    }
}

impl Page {
    /// Whether the place was free; None when nothing can be put here any more.
    fn put(&mut self, place: usize, cell: &Arc<RowCell>) -> Option<bool> {
        if self.gone {
            return None;
        }
        let is_new = self.cells[place].replace(Arc::clone(cell)).is_none();
        self.live += u32::from(is_new);
        Some(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lock_wait::TxnId, row::Row, value::Value};
    use proptest::prelude::*;
    use std::{collections::BTreeSet, thread};
    use understudy_types::Lsn;

    fn cell(id: u64) -> Arc<RowCell> {
        let row = Row::encode(&[Value::Int(1)]);
        Arc::new(RowCell::new(RowId(id), TxnId::ENDED, Lsn(1), row))
    }

    fn ids(rows: &Rows, from: u64) -> Vec<u64> {
        let mut ids = Vec::new();
        rows.visit(RowId(from), |cell| {
            ids.push(cell.id.0);
            true
        });
        ids
    }

    #[test]
    fn a_page_comes_to_half_a_kilobyte() {
        assert_eq!(size_of::<RwLock<Page>>() + 16, 512);
    }

    #[test]
    fn many_rows_are_put_in_at_once() {
        let rows = Rows::new();
        let wanted: Vec<u64> = (1..200).chain([1_000, 1_001]).collect();
        let cells: Vec<_> = wanted.iter().map(|id| cell(*id)).collect();
        assert_eq!(rows.put_all(&cells), Ok(()));
        assert_eq!(ids(&rows, 0), wanted);
        assert_eq!(rows.put_all(&[cell(500), cell(150)]), Err(RowId(150)));
        assert_eq!(rows.put_all(&[cell(601), cell(601)]), Err(RowId(601)));
    }

    #[test]
    fn an_empty_page_goes_and_comes_again() {
        let rows = Rows::new();
        for _ in 0..3 {
            assert!(rows.put(&cell(7)) && !rows.put(&cell(7)));
            assert!(rows.take(RowId(7)) && !rows.take(RowId(7)));
            assert!(rows.get(RowId(7)).is_none());
            assert_eq!(format!("{:?}", rows.pages), "Radix(0 keys)");
        }
    }

    #[test]
    fn neighbours_of_many_threads_come_and_go() {
        let rows = Rows::new();
        let rows = &rows;
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let id = round % 5 * PAGE as u64 + thread;
                        assert!(rows.put(&cell(id)));
                        assert_eq!(rows.get(RowId(id)).map(|cell| cell.id), Some(RowId(id)));
                        assert!(rows.take(RowId(id)));
                    }
                    assert!(rows.put(&cell(thread)));
                });
            }
        });
        assert_eq!(ids(rows, 0), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn rows_are_a_sorted_map(
            changes in proptest::collection::vec((any::<bool>(), 0u64..200), 1..300),
            from in 0u64..250,
        ) {
            let rows = Rows::new();
            let mut model = BTreeSet::new();
            for (put, id) in changes {
                if put {
                    prop_assert_eq!(rows.put(&cell(id)), model.insert(id));
                } else {
                    prop_assert_eq!(rows.take(RowId(id)), model.remove(&id));
                }
            }
            let expected: Vec<_> = model.range(from..).copied().collect();
            prop_assert_eq!(ids(&rows, from), expected);
        }
    }
}
