//! A store from a checkpoint (`checkpoint` has the format).
//!
//! ```text
//! stream ─ next_block ─► block ─► RowBlock::put ─┐
//!          read, hashed  block ─► RowBlock::put ─┼─► Load::finish: the sums of all rows are those written
//!                        block ─► RowBlock::put ─┘
//! ```
//! One thread reads; blocks may be put in by as many as the caller has, in any order. Invariants: the same
//! stream gives the same content, whoever puts which block in; nothing of the store can be had before `finish`,
//! which refuses when a block was not put in or a row is not as it was written; rows are charged before they
//! are made.

use crate::{
    catalog::Catalog,
    checkpoint::{BLOCK_BYTES, END, MAGIC},
    ddl,
    error::CheckpointError,
    heap::{State, Table},
    index::Loaded,
    lock_wait::TxnId,
    memory::{MemoryLimits, Pool, ROW_BYTES, VERSION_BYTES},
    redo::take_number,
    row::{ROW_ID_MAX, Row, RowId},
    store::{Inner, Store},
    sync::Mutex,
    tokens::{Book, Tokens},
    version::{RowCell, row_hash},
};
use std::{
    io::Read,
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    vec,
};
use understudy_types::Lsn;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What a checkpoint begins with in every format.
const ANY_FORMAT: &[u8] = b"USTORE";
/// Bytes that are made room for at once: more than most blocks have, which end with the row that fills them.
const READ_BYTES: usize = BLOCK_BYTES + BLOCK_BYTES / 4;
/// Longest block or catalog that is believed; longer is damage.
const LENGTH_MAX: u32 = 1 << 30;

/// A checkpoint on its way into a store.
pub struct Load<'a> {
    stream: Stream<'a>,
    store: Store,
    /// Tables that were not begun yet.
    tables: vec::IntoIter<Arc<Table>>,
    /// Tables that were begun, with what was put into them.
    begun: Vec<Arc<Begun>>,
    /// What the stream says of those that ended: rows, and the sum of their hashes.
    written: Vec<(u64, u128)>,
    is_over: bool,
}

/// A table that is being filled.
struct Begun {
    lsn: Lsn,
    table: Arc<Table>,
    /// Rows so far, and the sum of their hashes.
    sums: Mutex<(u64, u128)>,
}

/// Rows of one table, as they were read.
pub struct RowBlock {
    inner: Arc<Inner>,
    begun: Arc<Begun>,
    bytes: Vec<u8>,
}

impl Store {
    /// Makes a store from a checkpoint; everything in it is visible. With threads to do it: [`Load`].
    ///
    /// # Errors
    /// When the stream fails, is not a checkpoint of this LSN, or does not fit into the limits.
    pub fn load_checkpoint(
        limits: MemoryLimits,
        lsn: Lsn,
        input: &mut dyn Read,
    ) -> Result<Store, CheckpointError> {
        let mut load = Load::begin(limits, lsn, input)?;
        while let Some(block) = load.next_block()? {
            block.put()?;
        }
        load.finish()
    }
}

impl<'a> Load<'a> {
    /// Reads the head of a checkpoint, and its definitions.
    ///
    /// # Errors
    /// When the stream fails or is not a checkpoint of this LSN.
    pub fn begin(
        limits: MemoryLimits,
        lsn: Lsn,
        input: &'a mut dyn Read,
    ) -> Result<Load<'a>, CheckpointError> {
        let mut stream = Stream { lsn, input, hash: Xxh3::new() };
        let magic = stream.array::<8>()?;
        if magic != MAGIC {
            let format_of = |magic: [u8; 8]| {
                let format = magic.strip_prefix(ANY_FORMAT)?;
                Some(String::from_utf8_lossy(format).into_owned())
            };
            return Err(stream.malformed(&match format_of(magic).zip(format_of(MAGIC)) {
                Some((format, own)) => {
                    format!("it is of format {format}, this version reads format {own}")
                }
                None => "it does not begin as a checkpoint".to_owned(),
            }));
        }
        let written = u64::from_le_bytes(stream.array()?);
        if written != lsn.0 {
            return Err(stream.malformed(&format!("it is of LSN {written}")));
        }
        let state = stream.state()?;
        let store = Store::at(limits, lsn, (state, Tokens::default()));
        let tables: Vec<_> = store.inner.state.load().tables().cloned().collect();
        let (begun, written) = (Vec::with_capacity(tables.len()), Vec::new());
        Ok(Load { stream, store, tables: tables.into_iter(), begun, written, is_over: false })
    }

    /// Reads the next block of rows; None when the stream has ended as it should. Charges its bytes, so that
    /// one that is too long for the memory is not even read.
    ///
    /// # Errors
    /// When the stream fails, or is damaged, or the block does not fit into memory.
    pub fn next_block(&mut self) -> Result<Option<RowBlock>, CheckpointError> {
        while !self.is_over {
            if self.written.len() == self.begun.len() {
                match self.tables.next() {
                    Some(table) => self.begin_table(table)?,
                    None => self.end()?,
                }
                continue;
            }
            let length = self.stream.length()?;
            if length == 0 {
                let (rows, hash) = (self.stream.array()?, self.stream.array()?);
                self.written.push((u64::from_le_bytes(rows), u128::from_le_bytes(hash)));
                continue;
            }
            let inner = Arc::clone(&self.store.inner);
            let begun =
                self.begun.last().map(Arc::clone).expect("one more was begun than has ended");
            begun.charge(&inner, u64::from(length))?;
            let bytes = self.stream.bytes(length)?;
            return Ok(Some(RowBlock { inner, begun, bytes }));
        }
        Ok(None)
    }

    fn begin_table(&mut self, table: Arc<Table>) -> Result<(), CheckpointError> {
        let stream = &mut self.stream;
        let id = u32::from_le_bytes(stream.array()?);
        if id != table.def.id.0 {
            let reason = format!("table {id} stands where {} should", table.def.id.0);
            return Err(stream.malformed(&reason));
        }
        let next_row = u64::from_le_bytes(stream.array()?);
        if next_row > ROW_ID_MAX {
            let reason = format!("the next row number {next_row} of table {id} is beyond belief");
            return Err(stream.malformed(&reason));
        }
        table.heap.next_row.fetch_max(next_row, Relaxed);
        self.begun.push(Arc::new(Begun { lsn: stream.lsn, table, sums: Mutex::default() }));
        Ok(())
    }

    /// Reads what follows the tables.
    fn end(&mut self) -> Result<(), CheckpointError> {
        let stream = &mut self.stream;
        let tokens = stream.tokens()?;
        if stream.array::<8>()? != END {
            return Err(stream.malformed("its end is missing"));
        }
        let hash = stream.hash.digest();
        if u64::from_le_bytes(stream.array()?) != hash {
            return Err(stream.malformed("its bytes are not those written"));
        }
        self.store.inner.tokens.load(tokens);
        self.is_over = true;
        Ok(())
    }

    /// The store, when every block has been put in.
    ///
    /// # Errors
    /// When the rows are not those written, or some were not put in.
    pub fn finish(self) -> Result<Store, CheckpointError> {
        if !self.is_over {
            return Err(self.stream.malformed("it was not read to its end"));
        }
        for (begun, written) in self.begun.iter().zip(&self.written) {
            let (heap, id) = (&begun.table.heap, begun.table.def.id.0);
            let sums = *begun.sums.lock();
            if sums != *written {
                let reason = format!("the rows of table {id} are not those written");
                return Err(self.stream.malformed(&reason));
            }
            heap.counts.loaded.store(sums.0, Relaxed);
            heap.note_commit(self.stream.lsn, sums.1);
        }
        Ok(self.store)
    }
}

impl Begun {
    fn charge(&self, inner: &Inner, bytes: u64) -> Result<(), CheckpointError> {
        let charged = inner.accountant.charge_history(Pool::Permanent, bytes);
        charged.map_err(|source| CheckpointError::Memory { lsn: self.lsn, source })
    }

    fn malformed(&self, reason: String) -> CheckpointError {
        CheckpointError::Malformed { lsn: self.lsn, reason }
    }
}

/// The rows of a block, and what they will be charged.
#[derive(Default)]
struct Room {
    /// Where the bytes of each stand.
    places: Vec<(RowId, Range<usize>)>,
    rows: u64,
    /// Their index entries, about at most.
    entries: u64,
}

impl RowBlock {
    /// Puts the rows into their table and its indexes, from whatever thread.
    ///
    /// # Errors
    /// When a row is damaged, or in the table already, or has the key of another one, or they do not fit into
    /// memory. Then the whole load has failed.
    pub fn put(self) -> Result<(), CheckpointError> {
        let RowBlock { inner, begun, bytes } = &self;
        let table = &*begun.table;
        let room = self.room()?;
        let charge = |bytes| begun.charge(inner, bytes);
        // Rows are charged more than the bytes that they take in a block, and so much is charged already.
        charge((room.rows + room.entries).saturating_sub(bytes.len() as u64))?;
        table.heap.bytes.add(room.rows);
        let mut cells = Vec::with_capacity(room.places.len());
        let mut hash = 0u128;
        let mut entries = vec![(0, 0); table.indexes.len()];
        let pin = table.heap.rows.pin();
        for (id, place) in room.places {
            let bytes = &bytes[place];
            hash = hash.wrapping_add(row_hash(id, bytes));
            cells.push(self.cell((id, bytes), &mut entries)?);
        }
        let mut entry_bytes = 0;
        for (index, (count, bytes)) in table.indexes.iter().zip(entries) {
            index.note_loaded(count, bytes);
            entry_bytes += bytes;
        }
        // A key is longer than its room in few short entries, where its row is from before the column, and
        // where it has a column twice.
        charge(entry_bytes.saturating_sub(room.entries))?;
        let unused = room.entries.saturating_sub(entry_bytes);
        inner.accountant.release(Pool::Permanent, unused);
        let count = cells.len() as u64;
        if let Some(RowId(id)) = table.heap.put_cells(cells, charge)? {
            let table = table.def.id.0;
            return Err(begun.malformed(format!("row {id} of table {table} is there twice")));
        }
        drop(pin);
        let mut sums = begun.sums.lock();
        *sums = (sums.0 + count, sums.1.wrapping_add(hash));
        Ok(())
    }

    /// Where the rows stand, and what they will be charged.
    fn room(&self) -> Result<Room, CheckpointError> {
        let (block, table) = (&self.bytes[..], &self.begun.table);
        let cut = || self.begun.malformed("a row is cut short".to_owned());
        let (mut at, mut room) = (0, Room::default());
        while at < block.len() {
            let id = take_number(block, &mut at).ok_or_else(cut)?;
            if id > ROW_ID_MAX {
                return Err(self.begun.malformed(format!("row number {id} is beyond belief")));
            }
            let length = take_number(block, &mut at).and_then(|n| usize::try_from(n).ok());
            let length = length.ok_or_else(cut)?;
            let end = at.checked_add(length).filter(|end| *end <= block.len()).ok_or_else(cut)?;
            room.places.push((RowId(id), at..end));
            at = end;
            room.rows += ROW_BYTES + VERSION_BYTES + Row::heap_bytes_of(length);
            room.entries += table.entry_room(length);
        }
        Ok(room)
    }

    /// Makes a row's cell and its index entries, which are counted by index.
    fn cell(
        &self,
        (id, bytes): (RowId, &[u8]),
        entries: &mut [(u64, u64)],
    ) -> Result<Arc<RowCell>, CheckpointError> {
        let Begun { lsn, table, .. } = &*self.begun;
        let row = Row::from_bytes(bytes).map_err(|source| CheckpointError::Row {
            lsn: *lsn,
            table: table.def.id,
            row: id,
            source,
        })?;
        let cell = Arc::new(RowCell::new(id, TxnId::ENDED, *lsn, row.clone()));
        for (index, (count, sum)) in table.indexes.iter().zip(entries) {
            match index.load(&cell, &row) {
                Loaded::LeftOut => {}
                Loaded::Entry(bytes) => {
                    *count += 1;
                    *sum += bytes;
                }
                Loaded::Taken => {
                    let (id, table) = (id.0, table.def.id.0);
                    let reason = format!("row {id} of table {table} has the key of another row");
                    return Err(self.begun.malformed(reason));
                }
            }
        }
        Ok(cell)
    }
}

/// Reads a checkpoint's parts.
struct Stream<'a> {
    lsn: Lsn,
    input: &'a mut dyn Read,
    hash: Xxh3,
}

impl Stream<'_> {
    fn state(&mut self) -> Result<State, CheckpointError> {
        let bytes = self.block()?;
        if u64::from_le_bytes(self.array()?) != xxh3_64(&bytes) {
            return Err(self.malformed("its catalog is damaged"));
        }
        let mut state = State::empty(self.lsn);
        let mut catalog: Catalog =
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

    fn tokens(&mut self) -> Result<Book, CheckpointError> {
        let bytes = self.block()?;
        postcard::from_bytes(&bytes).map_err(|e| self.malformed(&format!("tokens: {e}")))
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
            bytes.resize((length as usize).min(start + READ_BYTES), 0);
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
