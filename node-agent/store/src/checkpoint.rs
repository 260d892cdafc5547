//! The content of the store at one LSN, as a stream, and back.
//!
//! ```text
//! | magic 8 | lsn u64 | catalog: u32 length, postcard, hash u64 | table … | tokens: u32 length, postcard | end magic 8 | hash u64 |
//! table = | id u32 | next row id u64 | blocks | 0 u32 | rows u64 | content hash u128 |
//! block = | u32 length | row id, length (LEB128), bytes | … |
//! ```
//! All numbers little endian. The writer reads through a pinned snapshot, so transactions go on beside
//! it and it sees exactly what was committed at its LSN. Invariants: the same content gives the same
//! hashes on every member; a stream that was cut or changed is refused: the last hash covers all bytes
//! before it, the catalog's is there so that a damaged catalog is never built upon. Files, checksums per block and
//! the epoch history are the log crate's.

use crate::{
    ddl,
    error::CheckpointError,
    heap::{Heap, State, Table},
    lock_wait::TxnId,
    memory::{MemoryLimits, Pool, ROW_BYTES, VERSION_BYTES},
    reclaim::Pinned,
    redo::{put_number, take_number},
    row::{ROW_ID_MAX, Row, RowId},
    store::{Inner, Store},
    table::TableId,
    tokens::{Book, Tokens},
    version::{Reader, RowCell, row_hash},
};
use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};
use understudy_types::Lsn;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Begins a checkpoint; the last digit is the format.
const MAGIC: [u8; 8] = *b"USTORE04";
/// What it begins with in every format.
const ANY_FORMAT: &[u8] = b"USTORE";
/// Ends it.
const END: [u8; 8] = *b"USTOREnd";
/// A block is written when it has grown to this.
const BLOCK_BYTES: usize = 256 * 1024;
/// Rows read at a time.
const BATCH: usize = 256;
/// Longest block or catalog that is believed; longer is damage.
const LENGTH_MAX: u32 = 1 << 30;

/// What a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointReport {
    /// Tables written.
    pub tables: u64,
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl Store {
    /// Writes everything as of `at`, which is at most `visible` and not below what reclamation kept
    /// (take it from `Store::pin_visible`, and hold the pin).
    ///
    /// # Errors
    /// When there is no snapshot at `at`, or the stream fails.
    pub fn write_checkpoint(
        &self,
        at: Lsn,
        out: &mut dyn Write,
    ) -> Result<CheckpointReport, CheckpointError> {
        let inner = &self.inner;
        let visible = inner.visibility.visible();
        let position = || CheckpointError::Position { at, oldest: inner.oldest_kept(), visible };
        let pin = Some(at).filter(|at| *at <= visible).and_then(|at| Pinned::new(inner, at));
        let pin = pin.ok_or_else(position)?;
        write_body(&pin, &inner.tokens.as_of(at), out).map_err(|source| CheckpointError::Stream {
            operation: "write",
            lsn: at,
            source,
        })
    }

    /// Makes a store from a checkpoint; everything in it is visible.
    ///
    /// # Errors
    /// When the stream fails, is not a checkpoint of this LSN, or does not fit into the limits.
    pub fn load_checkpoint(
        limits: MemoryLimits,
        lsn: Lsn,
        input: &mut dyn Read,
    ) -> Result<Store, CheckpointError> {
        let mut loader = Loader { lsn, input, hash: Xxh3::new() };
        let magic = loader.array::<8>()?;
        if magic != MAGIC {
            let format = magic.strip_prefix(ANY_FORMAT).map(String::from_utf8_lossy);
            return Err(loader.malformed(&match format {
                Some(format) => format!("it is of format {format}, this version reads format 04"),
                None => "it does not begin as a checkpoint".to_owned(),
            }));
        }
        let written = u64::from_le_bytes(loader.array()?);
        if written != lsn.0 {
            return Err(loader.malformed(&format!("it is of LSN {written}")));
        }
        let state = loader.state()?;
        let mut store = Store::at(limits, lsn, (state, Tokens::default()));
        let state = store.inner.state.load_full();
        for table in state.tables() {
            loader.table(&store.inner, table)?;
        }
        let tokens = loader.tokens()?;
        let inner = Arc::get_mut(&mut store.inner);
        inner.ok_or_else(|| loader.malformed("it is in use while it loads"))?.tokens = tokens;
        if loader.array::<8>()? != END {
            return Err(loader.malformed("its end is missing"));
        }
        let hash = loader.hash.digest();
        if u64::from_le_bytes(loader.array()?) != hash {
            return Err(loader.malformed("its bytes are not those written"));
        }
        Ok(store)
    }

    /// The content hash of a table now, without reading its rows. Of two members that have applied the
    /// same LSN, the hashes must be equal; `changed_at` may differ after a checkpoint was loaded.
    #[must_use]
    pub fn running_hash(&self, table: TableId) -> Option<RunningContentHash> {
        let state = self.inner.state.load();
        let (changed_at, hash) = *state.table(table)?.heap.content.lock();
        Some(RunningContentHash { changed_at, hash })
    }

    /// A hash over the rows of a table at an LSN, whatever their order: equal on all members at equal
    /// LSN (law 10). None when there is no such table, or no snapshot at that LSN.
    #[must_use]
    pub fn content_hash(&self, table: TableId, at: Lsn) -> Option<u128> {
        let pin = Pinned::new(&self.inner, at)?;
        let heap = Arc::clone(&pin.state.table(table)?.heap);
        let mut hash = 0u128;
        for_each_row(&heap, at, |id, row| {
            hash = hash.wrapping_add(row_hash(id, row.as_bytes()));
            Ok(())
        })
        .ok()?;
        Some(hash)
    }
}

/// A table's content hash as commits keep it up, for a cheap comparison of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunningContentHash {
    /// LSN of the newest commit that changed the table, or of the checkpoint it was loaded from.
    pub changed_at: Lsn,
    /// The hash, as `Store::content_hash` gives it for `changed_at` and all later LSNs so far.
    pub hash: u128,
}

fn write_body(pin: &Pinned, tokens: &Book, out: &mut dyn Write) -> io::Result<CheckpointReport> {
    let mut out = Counted { out, bytes: 0, hash: Xxh3::new() };
    out.write_all(&MAGIC)?;
    out.write_all(&pin.lsn().0.to_le_bytes())?;
    let catalog = postcard::to_allocvec(&*pin.state.catalog).map_err(io::Error::other)?;
    out.write_all(&(catalog.len() as u32).to_le_bytes())?;
    out.write_all(&catalog)?;
    out.write_all(&xxh3_64(&catalog).to_le_bytes())?;
    let mut report = CheckpointReport::default();
    for table in pin.state.tables() {
        report.tables += 1;
        report.rows += write_table(table, pin.lsn(), &mut out)?;
    }
    let tokens = postcard::to_allocvec(tokens).map_err(io::Error::other)?;
    out.write_all(&(tokens.len() as u32).to_le_bytes())?;
    out.write_all(&tokens)?;
    out.write_all(&END)?;
    let hash = out.hash.digest();
    out.write_all(&hash.to_le_bytes())?;
    report.bytes = out.bytes;
    Ok(report)
}

fn write_table(table: &Table, at: Lsn, out: &mut Counted<'_>) -> io::Result<u64> {
    let (mut rows, mut hash) = (0u64, 0u128);
    let mut block = Vec::with_capacity(BLOCK_BYTES + 4096);
    out.write_all(&table.def.id.0.to_le_bytes())?;
    out.write_all(&table.heap.next_row.load(SeqCst).to_le_bytes())?;
    for_each_row(&table.heap, at, |id, row| {
        rows += 1;
        hash = hash.wrapping_add(row_hash(id, row.as_bytes()));
        put_number(&mut block, id.0);
        put_number(&mut block, row.as_bytes().len() as u64);
        block.extend_from_slice(row.as_bytes());
        if block.len() >= BLOCK_BYTES {
            out.write_all(&(block.len() as u32).to_le_bytes())?;
            out.write_all(&block)?;
            block.clear();
        }
        Ok(())
    })?;
    if !block.is_empty() {
        out.write_all(&(block.len() as u32).to_le_bytes())?;
        out.write_all(&block)?;
    }
    out.write_all(&0u32.to_le_bytes())?;
    out.write_all(&rows.to_le_bytes())?;
    out.write_all(&hash.to_le_bytes())?;
    Ok(rows)
}

/// Shows every row of a table as of an LSN that is pinned, by row id.
fn for_each_row(
    heap: &Heap,
    at: Lsn,
    mut show: impl FnMut(RowId, &Row) -> io::Result<()>,
) -> io::Result<()> {
    let reader = Reader { snapshot: at, own: TxnId::ENDED };
    let mut from = RowId(0);
    loop {
        let mut rows = Vec::with_capacity(BATCH);
        let mut looked = 0;
        heap.rows.visit(from, |cell| {
            let row = cell.chain.lock().visible(reader).and_then(|v| v.row.clone());
            rows.extend(row.map(|row| (cell.id, row)));
            looked += 1;
            from = RowId(cell.id.0 + 1);
            looked < BATCH
        });
        for (id, row) in &rows {
            show(*id, row)?;
        }
        if looked < BATCH {
            return Ok(());
        }
    }
}

/// A stream that counts and hashes.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
    hash: Xxh3,
}

impl Counted<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// What a block's rows are charged, and about the most for their index entries.
#[derive(Default)]
struct Room {
    rows: u64,
    entries: u64,
}

/// A block's rows on their way into a table.
#[derive(Default)]
struct Taken {
    cells: Vec<Arc<RowCell>>,
    /// What their index entries are charged.
    entry_bytes: u64,
    hash: u128,
}

/// Reads a checkpoint's parts.
struct Loader<'a> {
    lsn: Lsn,
    input: &'a mut dyn Read,
    hash: Xxh3,
}

impl Loader<'_> {
    fn state(&mut self) -> Result<State, CheckpointError> {
        let bytes = self.block()?;
        if u64::from_le_bytes(self.array()?) != xxh3_64(&bytes) {
            return Err(self.malformed("its catalog is damaged"));
        }
        let mut state = State::empty(self.lsn);
        let mut catalog: crate::catalog::Catalog =
            postcard::from_bytes(&bytes).map_err(|e| self.malformed(&format!("catalog: {e}")))?;
        catalog.index_names();
        let defs: Vec<_> = catalog.relations().cloned().collect();
        for def in defs {
            ddl::check_definition(&def).map_err(|error| self.malformed(&error.to_string()))?;
            state.put_table(ddl::new_table((*def).clone()));
        }
        state.catalog = Arc::new(catalog);
        Ok(state)
    }

    fn tokens(&mut self) -> Result<Tokens, CheckpointError> {
        let bytes = self.block()?;
        let book =
            postcard::from_bytes(&bytes).map_err(|e| self.malformed(&format!("tokens: {e}")))?;
        Ok(Tokens::of(book))
    }

    fn table(&mut self, inner: &Inner, table: &Table) -> Result<(), CheckpointError> {
        let id = u32::from_le_bytes(self.array()?);
        if id != table.def.id.0 {
            return Err(
                self.malformed(&format!("table {id} stands where {} should", table.def.id.0))
            );
        }
        let next_row = u64::from_le_bytes(self.array()?);
        if next_row > ROW_ID_MAX {
            let reason = format!("the next row number {next_row} of table {id} is beyond belief");
            return Err(self.malformed(&reason));
        }
        let (mut rows, mut hash) = (0u64, 0u128);
        while let Some(length) = Some(self.length()?).filter(|length| *length > 0) {
            let taken = self.rows(inner, table, length)?;
            hash = hash.wrapping_add(taken.hash);
            rows += taken.cells.len() as u64;
        }
        table.heap.next_row.fetch_max(next_row, Relaxed);
        table.heap.counts.loaded.store(rows, Relaxed);
        table.heap.note_commit(self.lsn, hash);
        let expected = (u64::from_le_bytes(self.array()?), u128::from_le_bytes(self.array()?));
        if (rows, hash) != expected {
            return Err(self.malformed(&format!("the rows of table {id} are not those written")));
        }
        Ok(())
    }

    /// Reads a block and puts its rows into their table; they are charged before they are made.
    fn rows(
        &mut self,
        inner: &Inner,
        table: &Table,
        length: u32,
    ) -> Result<Taken, CheckpointError> {
        let lsn = self.lsn;
        let charge = |bytes| {
            let charged = inner.accountant.charge_history(Pool::Permanent, bytes);
            charged.map_err(|source| CheckpointError::Memory { lsn, source })
        };
        // Rows are charged more than the bytes that they take in a block, so one that is too long for
        // the memory is not even read.
        charge(u64::from(length))?;
        let block = self.bytes(length)?;
        let room = self.room(table, &block)?;
        charge((room.rows + room.entries).saturating_sub(u64::from(length)))?;
        table.heap.bytes.add(room.rows);
        let (mut at, mut taken) = (0, Taken::default());
        while at < block.len() {
            let row = self.row(&block, &mut at)?;
            self.take(table, row, &mut taken)?;
        }
        // A key is longer than its room in few short entries, where its row is from before the column, and
        // where it has a column twice.
        charge(taken.entry_bytes.saturating_sub(room.entries))?;
        let unused = room.entries.saturating_sub(taken.entry_bytes);
        inner.accountant.release(Pool::Permanent, unused);
        if let Some(RowId(id)) = table.heap.put_cells(&taken.cells, charge)? {
            let table = table.def.id.0;
            return Err(self.malformed(&format!("row {id} of table {table} is there twice")));
        }
        Ok(taken)
    }

    /// What the rows of a block will be charged.
    fn room(&self, table: &Table, block: &[u8]) -> Result<Room, CheckpointError> {
        let (mut at, mut room) = (0, Room::default());
        while at < block.len() {
            let (_, bytes) = self.row(block, &mut at)?;
            let length = bytes.len();
            room.rows += ROW_BYTES + VERSION_BYTES + Row::heap_bytes_of(length);
            room.entries += table.entry_room(length);
        }
        Ok(room)
    }

    fn row<'b>(
        &self,
        block: &'b [u8],
        at: &mut usize,
    ) -> Result<(RowId, &'b [u8]), CheckpointError> {
        let cut = || self.malformed("a row is cut short");
        let id = take_number(block, at).ok_or_else(cut)?;
        if id > ROW_ID_MAX {
            return Err(self.malformed(&format!("row number {id} is beyond belief")));
        }
        let length =
            take_number(block, at).and_then(|n| usize::try_from(n).ok()).ok_or_else(cut)?;
        let end = at.checked_add(length).filter(|end| *end <= block.len()).ok_or_else(cut)?;
        let bytes = &block[*at..end];
        *at = end;
        Ok((RowId(id), bytes))
    }

    /// Makes a row's cell and its index entries.
    fn take(
        &self,
        table: &Table,
        (id, bytes): (RowId, &[u8]),
        taken: &mut Taken,
    ) -> Result<(), CheckpointError> {
        let lsn = self.lsn;
        let row = Row::from_bytes(bytes).map_err(|source| CheckpointError::Row {
            lsn,
            table: table.def.id,
            row: id,
            source,
        })?;
        taken.hash = taken.hash.wrapping_add(row_hash(id, bytes));
        let cell = Arc::new(RowCell::new(id, TxnId::ENDED, lsn, row.clone()));
        for index in &table.indexes {
            let Some(bytes) = index.load(&cell, &row) else {
                let (id, table) = (id.0, table.def.id.0);
                let reason = format!("row {id} of table {table} has the key of another row");
                return Err(self.malformed(&reason));
            };
            taken.entry_bytes += bytes;
        }
        taken.cells.push(cell);
        Ok(())
    }

    fn block(&mut self) -> Result<Vec<u8>, CheckpointError> {
        let length = self.length()?;
        self.bytes(length)
    }

    fn length(&mut self) -> Result<u32, CheckpointError> {
        let length = u32::from_le_bytes(self.array()?);
        if length > LENGTH_MAX {
            return Err(self.malformed("a length is beyond belief"));
        }
        Ok(length)
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, CheckpointError> {
        // Grown while bytes really come, so that a damaged length allocates nothing.
        let mut bytes = Vec::new();
        while bytes.len() < length as usize {
            let start = bytes.len();
            bytes.resize((length as usize).min(start + BLOCK_BYTES), 0);
            self.read(&mut bytes[start..])?;
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        let lsn = self.lsn;
        let read = self.input.read_exact(bytes);
        read.map_err(|source| CheckpointError::Stream { operation: "read", lsn, source })?;
        self.hash.update(bytes);
        Ok(())
    }

    fn malformed(&self, reason: &str) -> CheckpointError {
        CheckpointError::Malformed { lsn: self.lsn, reason: reason.to_owned() }
    }
}
