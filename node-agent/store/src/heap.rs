//! The rows of one table, and the state that ties tables, indexes and the catalog together.
//!
//! A [`Heap`] outlives changes of its table's definition; a [`State`] is one immutable picture of
//! everything that has a name, valid from its LSN on. Each statement works with one state from its
//! beginning to its end. Invariants: a state is taken after the snapshot it is used with, so it knows
//! every index that a visible writer kept up; a writer's state is the newest one once it has entered
//! the table (see `write::enter`), so it keeps up every index that exists.

use crate::{
    catalog::Catalog,
    counts::RowCounts,
    foreign_key::{Links, referenced_tables},
    index::IndexData,
    lock_wait::TxnId,
    memory::{Accountant, PAGE_BYTES, ROW_BYTES, Share},
    row::RowId,
    rows::{Rows, Taken},
    sequence::Counter,
    sync::{AtomicU64, Mutex, RwLock},
    table::{IndexId, TableDef, TableId},
    version::RowCell,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};
use understudy_types::Lsn;

/// The rows of one table.
#[derive(Debug)]
pub(crate) struct Heap {
    pub(crate) id: TableId,
    /// Cells by row id.
    pub(crate) rows: Rows,
    /// Next row id to give.
    pub(crate) next_row: AtomicU64,
    /// Cells in `rows`.
    pub(crate) row_count: AtomicU64,
    /// Bytes of pages, cells and versions.
    pub(crate) bytes: Share,
    /// For statistics.
    pub(crate) counts: RowCounts,
    /// LSN of the newest commit that changed a row.
    pub(crate) last_commit: AtomicU64,
    /// The same, with the sum of the hashes of all rows as of it.
    pub(crate) content: Mutex<(Lsn, u128)>,
    /// The transaction that changes or drops the table; zero when none.
    pub(crate) changer: AtomicU64,
    /// Indexes whose entries must be taken away with their rows, those being built included. Held
    /// shared while rows are reclaimed, exclusively to add or remove an index.
    pub(crate) kept_up: RwLock<Vec<Arc<IndexData>>>,
    /// Where a sequence stands.
    pub(crate) counter: Mutex<Counter>,
}

impl Heap {
    pub(crate) fn new(id: TableId) -> Heap {
        Heap {
            id,
            rows: Rows::new(),
            next_row: AtomicU64::new(1),
            row_count: AtomicU64::new(0),
            bytes: Share::default(),
            counts: RowCounts::default(),
            last_commit: AtomicU64::new(0),
            content: Mutex::default(),
            changer: AtomicU64::new(0),
            kept_up: RwLock::default(),
            counter: Mutex::default(),
        }
    }

    pub(crate) fn cell(&self, id: RowId) -> Option<Arc<RowCell>> {
        self.rows.get(id)
    }

    pub(crate) fn give_row_id(&self) -> RowId {
        RowId(self.next_row.fetch_add(1, Relaxed))
    }

    /// Puts a row in whose cell and version are charged already; the page that it may need is charged
    /// here.
    pub(crate) fn put_cell<E>(
        &self,
        cell: &Arc<RowCell>,
        charge: impl Fn(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rows.put(cell, || self.charge_page(&charge))?;
        self.next_row.fetch_max(cell.id.0 + 1, Relaxed);
        self.row_count.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The same with many rows that are not there; else tells one that is there twice.
    pub(crate) fn put_cells<E>(
        &self,
        cells: Vec<Arc<RowCell>>,
        charge: impl Fn(u64) -> Result<(), E>,
    ) -> Result<Option<RowId>, E> {
        let count = cells.len() as u64;
        let next = cells.iter().map(|cell| cell.id.0 + 1).max().unwrap_or(0);
        let twice = self.rows.put_all(cells, || self.charge_page(&charge))?;
        self.next_row.fetch_max(next, Relaxed);
        self.row_count.fetch_add(count, Relaxed);
        Ok(twice)
    }

    fn charge_page<E>(&self, charge: impl Fn(u64) -> Result<(), E>) -> Result<(), E> {
        charge(PAGE_BYTES)?;
        self.bytes.add(PAGE_BYTES);
        Ok(())
    }

    /// Takes a row out whose versions have gone, and gives back what it and its page were charged.
    pub(crate) fn take_cell(&self, accountant: &Accountant, id: RowId) {
        let bytes = match self.rows.take(id) {
            Taken::Nothing => return,
            Taken::Row => ROW_BYTES,
            Taken::RowAndPage => ROW_BYTES + PAGE_BYTES,
        };
        self.row_count.fetch_sub(1, Relaxed);
        self.bytes.give_back(accountant, bytes);
    }

    /// Notes a commit that changed rows, and what it changed in the sum of their hashes.
    pub(crate) fn note_commit(&self, lsn: Lsn, hash_delta: u128) {
        self.last_commit.fetch_max(lsn.0, SeqCst);
        let mut content = self.content.lock();
        *content = (lsn, content.1.wrapping_add(hash_delta));
    }

    pub(crate) fn changer(&self) -> TxnId {
        TxnId(self.changer.load(SeqCst))
    }

    /// Up to `limit` cells with ids in `[from, …)`, in order.
    pub(crate) fn cells_from(&self, from: RowId, limit: usize) -> Vec<Arc<RowCell>> {
        let mut cells = Vec::new();
        self.rows.visit(from, |cell| {
            cells.push(Arc::clone(cell));
            cells.len() < limit
        });
        cells
    }
}

/// One table as a statement sees it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) def: Arc<TableDef>,
    pub(crate) heap: Arc<Heap>,
    pub(crate) indexes: Vec<Arc<IndexData>>,
    /// Derived by [`State`] from all definitions; what a caller puts here is replaced.
    pub(crate) links: Option<Arc<Links>>,
}

impl Table {
    /// The least that the index entries of a row are charged.
    pub(crate) fn least_entries(&self) -> u64 {
        let whole = self.indexes.iter().filter(|index| index.def.only.is_none());
        whole.map(|index| index.room.width.least()).sum()
    }

    /// About the most that the index entries of a row of so many bytes are charged.
    pub(crate) fn entry_room(&self, length: usize) -> u64 {
        self.indexes.iter().map(|index| index.room.entry_bytes(length)).sum()
    }
}

/// Everything that has a name, from one LSN on.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Commit LSN of the change that made it.
    pub(crate) since: Lsn,
    pub(crate) catalog: Arc<Catalog>,
    tables: Vec<Option<Arc<Table>>>,
    indexes: Vec<Option<Arc<IndexData>>>,
}

impl State {
    pub(crate) fn empty(since: Lsn) -> State {
        let catalog = Arc::new(Catalog::default());
        State { since, catalog, tables: Vec::new(), indexes: Vec::new() }
    }

    /// The same definitions, valid from another LSN on.
    pub(crate) fn since(&self, since: Lsn) -> State {
        State { since, ..self.clone() }
    }

    pub(crate) fn table(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn index(&self, id: IndexId) -> Option<&Arc<IndexData>> {
        self.indexes.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.iter().flatten()
    }

    pub(crate) fn catalog_mut(&mut self) -> &mut Catalog {
        Arc::make_mut(&mut self.catalog)
    }

    /// Puts a new or changed table in, with the catalog.
    pub(crate) fn put_table(&mut self, mut table: Table) {
        self.catalog_mut().put_table(Arc::clone(&table.def));
        let at = table.def.id.0 as usize;
        if self.tables.len() <= at {
            self.tables.resize(at + 1, None);
        }
        let mut linked = referenced_tables(&table.def);
        if let Some(old) = self.tables[at].take() {
            self.forget_indexes(&old);
            linked.extend(referenced_tables(&old.def));
        }
        for index in &table.indexes {
            let at = index.def.id.0 as usize;
            if self.indexes.len() <= at {
                self.indexes.resize(at + 1, None);
            }
            self.indexes[at] = Some(Arc::clone(index));
        }
        table.links = Links::of(&table.def, self);
        self.tables[at] = Some(Arc::new(table));
        self.link(linked);
    }

    /// Takes a table out, with the catalog.
    pub(crate) fn remove_table(&mut self, id: TableId) -> Option<Arc<Table>> {
        let old = self.tables.get_mut(id.0 as usize)?.take()?;
        self.forget_indexes(&old);
        self.catalog_mut().remove_table(id);
        self.link(referenced_tables(&old.def));
        Some(old)
    }

    /// Derives the links of tables that a changed definition references, or did.
    fn link(&mut self, tables: BTreeSet<TableId>) {
        for id in tables {
            let Some(table) = self.table(id) else { continue };
            let links = Links::of(&table.def, self);
            if links != table.links {
                let table = Table { links, ..(**table).clone() };
                self.tables[id.0 as usize] = Some(Arc::new(table));
            }
        }
    }

    fn forget_indexes(&mut self, table: &Table) {
        for index in &table.indexes {
            self.indexes[index.def.id.0 as usize] = None;
        }
    }
}
