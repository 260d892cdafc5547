//! The content of the store at one LSN, as a stream; `load` takes it back.
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
    error::CheckpointError,
    heap::{Heap, Table},
    lock_wait::TxnId,
    reclaim::Pinned,
    redo::put_number,
    row::{Row, RowId},
    store::Store,
    table::TableId,
    tokens::Book,
    version::{Reader, row_hash},
};
use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering::SeqCst},
};
use understudy_types::Lsn;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Begins a checkpoint; the last digit is the format.
pub(crate) const MAGIC: [u8; 8] = *b"USTORE04";
/// Ends it.
pub(crate) const END: [u8; 8] = *b"USTOREnd";
/// A block is written when it has grown to this.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;
/// Rows read at a time.
const BATCH: usize = 256;
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
    /// Writes everything as of `at`, which is acknowledged and not below what reclamation kept
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
        let acknowledged = inner.visibility.acknowledged();
        let oldest = inner.oldest_kept();
        let position = || CheckpointError::Position { at, oldest, acknowledged };
        let pin = Some(at).filter(|at| *at <= acknowledged).and_then(|at| Pinned::new(inner, at));
        let pin = pin.ok_or_else(position)?;
        write_body(&pin, &inner.tokens.as_of(at), out).map_err(|source| CheckpointError::Stream {
            operation: "write",
            lsn: at,
            source,
        })
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
