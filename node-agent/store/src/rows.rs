//! The cells of a table by row id: pages of as many as fill half a kilobyte.
//!
//! Row ids are given in turn, so neighbours are mostly there, and a place in a page is all that a row
//! costs here. Invariants: a page is in the map from before its first row until its last one has gone,
//! and takes none after that; who adds it has its room charged first, who takes its last row gives it
//! back. Order of locks: `growth` alone; a page, then a cell's mutex.
//!
//! Caveats: a page stays, and is charged, while one of its rows does.

use crate::{
    radix::{AsBytes, Found, Guard, Ordered, Radix},
    row::RowId,
    sync::{Mutex, RwLock},
    version::RowCell,
};
use std::{borrow::Borrow, hint::black_box, sync::Arc};

/// Rows of a page: with its lock and its counters it comes to 512 bytes. Two where a test tries orders of
/// steps, so that few rows make pages come and go.
const PAGE: usize = if cfg!(shuttle) { 2 } else { 60 };
/// Above every page's key.
const LAST: [u8; 9] = [0xff; 9];

/// Cells by row id.
#[derive(Debug)]
pub(crate) struct Rows {
    pages: Radix<PageLeaf>,
    /// Held to add a page.
    growth: Mutex<()>,
}

/// A page in the map.
struct PageLeaf {
    key: [u8; 8],
    page: Arc<RwLock<Page>>,
}

impl AsBytes for PageLeaf {
    fn as_bytes(&self) -> &[u8] {
        &self.key
    }
}

impl Borrow<[u8]> for PageLeaf {
    fn borrow(&self) -> &[u8] {
        &self.key
    }
}

#[derive(Debug)]
pub(crate) struct Page {
    cells: [Option<Arc<RowCell>>; PAGE],
    /// How many there are.
    live: u32,
    /// Whether its last row has gone, and it from the map.
    gone: bool,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Nothing,
    Row,
    /// The last row of a page.
    RowAndPage,
}

/// Which page a row stands in.
fn page_of(id: RowId) -> u64 {
    id.0 / PAGE as u64
}

/// The key of a row's page, and its place there.
fn place(id: RowId) -> ([u8; 8], usize) {
    (page_of(id).to_be_bytes(), (id.0 % PAGE as u64) as usize)
}

impl Rows {
    pub(crate) fn new() -> Rows {
        Rows { pages: Radix::new(), growth: Mutex::new(()) }
    }

    pub(crate) fn get(&self, id: RowId) -> Option<Arc<RowCell>> {
        let (key, place) = place(id);
        self.pages.with(&key, |at| at.page.read().cells[place].clone())?
    }

    /// Where a row would be, for [`cells_at`].
    pub(crate) fn place<'a>(&'a self, id: RowId, pin: &'a Guard<'_>) -> Option<Place<'a>> {
        let (key, at) = place(id);
        Some(Place { page: self.pages.find(&key, pin)?, at })
    }

    /// See [`Radix::pin`].
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.pages.pin()
    }

    /// Puts a row in; whether it was not there. A page that must be added for it is charged for first.
    pub(crate) fn put<E>(
        &self,
        cell: &Arc<RowCell>,
        charge_page: impl Fn() -> Result<(), E>,
    ) -> Result<bool, E> {
        let (key, place) = place(cell.id);
        loop {
            let put = |at: &PageLeaf| at.page.write().put(place, Arc::clone(cell));
            // None for a page that goes just now; the next look finds it gone from the map.
            if let Some(Some(is_new)) = self.pages.with(&key, put) {
                return Ok(is_new);
            }
            self.grow(key, &charge_page)?;
        }
    }

    /// Puts many rows in that are not there, neighbours together; else tells one that was there.
    pub(crate) fn put_all<E>(
        &self,
        cells: Vec<Arc<RowCell>>,
        charge_page: impl Fn() -> Result<(), E>,
    ) -> Result<Option<RowId>, E> {
        let mut cells = cells.into_iter().peekable();
        while let Some(first) = cells.next() {
            if !self.put(&first, &charge_page)? {
                return Ok(Some(first.id));
            }
            let (key, _) = place(first.id);
            let beside = |cell: &Arc<RowCell>| page_of(cell.id) == page_of(first.id);
            let put = |at: &PageLeaf| {
                let mut page = at.page.write();
                while let Some(cell) = cells.next_if(beside) {
                    let id = cell.id;
                    if page.put(place(id).1, cell) != Some(true) {
                        return Some(id);
                    }
                }
                None
            };
            if let Some(twice) = self.pages.with(&key, put).flatten() {
                return Ok(Some(twice));
            }
        }
        Ok(None)
    }

    /// Takes a row out, and its page with the last one.
    pub(crate) fn take(&self, id: RowId) -> Taken {
        let (key, place) = place(id);
        let Some(page) = self.pages.with(&key, |at| Arc::clone(&at.page)) else {
            return Taken::Nothing;
        };
        let mut page = page.write();
        if page.cells[place].take().is_none() {
            return Taken::Nothing;
        }
        page.live -= 1;
        page.gone = page.live == 0;
        if !page.gone {
            return Taken::Row;
        }
        // Inside the page's lock, so that none of this key comes between.
        self.pages.take(&key);
        Taken::RowAndPage
    }

    /// Shows the rows from one on, by id, until the callback answers false. The page is locked meanwhile:
    /// the callback may lock the cell that it is shown, and must neither look for nor change rows of
    /// this table, for a second shared lock waits behind whoever wants the page alone.
    pub(crate) fn visit(&self, from: RowId, mut show: impl FnMut(&Arc<RowCell>) -> bool) {
        let (first, start) = place(from);
        self.pages.visit(&first, &LAST, |at| {
            let start = if at.key == first { start } else { 0 };
            at.page.read().cells[start..].iter().flatten().all(&mut show)
        });
    }

    /// Adds a page, unless there is one.
    fn grow<E>(&self, key: [u8; 8], charge: impl Fn() -> Result<(), E>) -> Result<(), E> {
        let _growth = self.growth.lock();
        if self.pages.with(&key, |_| ()).is_none() {
            charge()?;
            let page = Page { cells: [const { None }; PAGE], live: 0, gone: false };
            self.pages.put(PageLeaf { key, page: Arc::new(RwLock::new(page)) });
        }
        Ok(())
    }
}

/// A row's page, and where it is there.
pub(crate) struct Place<'a> {
    page: Found<'a, PageLeaf>,
    at: usize,
}

/// The cells of many rows; none for those that are not here, and for those whose page is being changed.
/// Each step is done for all of them before the next: most lie in none of the processor's caches, and the
/// memory answers many questions in little more time than one, if none of them waits for the one before. An
/// addition to a counter that others may have waits, and a lock is one; so all that is needed is read first.
/// Waits for nobody.
pub(crate) fn cells_at(places: &[Option<Place<'_>>]) -> Vec<Option<Arc<RowCell>>> {
    let places = || places.iter().map(Option::as_ref);
    black_box(places().flatten().filter(|place| place.page.leaf().page.is_locked()).count());
    let open: Vec<_> =
        places().map(|place| Some((place?.page.leaf().page.try_read()?, place?.at))).collect();
    let cells =
        || open.iter().map(|open| open.as_ref().and_then(|(page, at)| page.cells[*at].as_ref()));
    let ends = |cell: &Arc<RowCell>| Arc::strong_count(cell) as u64 ^ cell.id.0;
    black_box(cells().flatten().fold(0, |seen, cell| seen ^ ends(cell)));
    cells().map(|cell| cell.cloned()).collect()
}

impl Page {
    /// Whether the place was free; None when nothing can be put here any more.
    fn put(&mut self, place: usize, cell: Arc<RowCell>) -> Option<bool> {
        if self.gone {
            return None;
        }
        let is_new = self.cells[place].replace(cell).is_none();
        self.live += u32::from(is_new);
        Some(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PAGE_BYTES;
    use crate::{lock_wait::TxnId, row::Row, value::Value};
    use proptest::prelude::*;
    use std::{cell::Cell, collections::BTreeSet, convert::Infallible, thread};
    use understudy_types::Lsn;

    fn put(rows: &Rows, id: u64) -> bool {
        let Ok(is_new) = rows.put(&cell(id), || Ok::<(), Infallible>(()));
        is_new
    }

    fn put_all(rows: &Rows, ids: &[u64]) -> Option<RowId> {
        let cells: Vec<_> = ids.iter().map(|id| cell(*id)).collect();
        let Ok(twice) = rows.put_all(cells, || Ok::<(), Infallible>(()));
        twice
    }

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
        // And the map's leaf of it, with the part of a full node.
        assert_eq!(PAGE_BYTES, 512 + 32 + 10);
    }

    #[test]
    fn a_page_that_is_not_granted_is_not_added() {
        let rows = Rows::new();
        let left = Cell::new(1u8);
        let charge = || left.replace(0).checked_sub(1).map(|_| ()).ok_or("full");
        assert_eq!(rows.put(&cell(1), charge), Ok(true));
        assert_eq!(rows.put(&cell(2), charge), Ok(true));
        assert_eq!(rows.put(&cell(60), charge), Err("full"));
        assert_eq!(rows.put_all(vec![cell(3), cell(61)], charge), Err("full"));
        assert_eq!(format!("{:?}", rows.pages), "Radix(1 keys)");
        let taken = [1, 2, 3, 60].map(|id| rows.take(RowId(id)));
        assert_eq!(taken, [Taken::Row, Taken::Row, Taken::RowAndPage, Taken::Nothing]);
    }

    #[test]
    fn many_rows_are_put_in_at_once() {
        let rows = Rows::new();
        let wanted: Vec<u64> = (1..200).chain([1_000, 1_001]).collect();
        assert_eq!(put_all(&rows, &wanted), None);
        assert_eq!(ids(&rows, 0), wanted);
        assert_eq!(put_all(&rows, &[500, 150]), Some(RowId(150)));
        assert_eq!(put_all(&rows, &[601, 601]), Some(RowId(601)));
    }

    #[test]
    fn an_empty_page_goes_and_comes_again() {
        let rows = Rows::new();
        for _ in 0..3 {
            assert!(put(&rows, 7) && !put(&rows, 7));
            assert_eq!(rows.take(RowId(7)), Taken::RowAndPage);
            assert_eq!(rows.take(RowId(7)), Taken::Nothing);
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
                        assert!(put(rows, id));
                        assert_eq!(rows.get(RowId(id)).map(|cell| cell.id), Some(RowId(id)));
                        assert_ne!(rows.take(RowId(id)), Taken::Nothing);
                    }
                    assert!(put(rows, thread));
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
            for (comes, id) in changes {
                if comes {
                    prop_assert_eq!(put(&rows, id), model.insert(id));
                } else {
                    prop_assert_eq!(rows.take(RowId(id)) != Taken::Nothing, model.remove(&id));
                }
            }
            let expected: Vec<_> = model.range(from..).copied().collect();
            prop_assert_eq!(ids(&rows, from), expected);
        }
    }
}
