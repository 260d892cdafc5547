//! From the two volumes to a store and a log: newest checkpoint, then the log after it.

use crate::{config::Sizes, datadir::StoreDir, engine::begin_epoch, node::lease_link::chain};
use anyhow::Context;
use std::{
    io::Read,
    panic::resume_unwind,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::Instant,
};
use understudy_agent_api::Notice;
use understudy_store::{CheckpointError, Load, MemoryLimits, RowBlock, Store, Tail};
use understudy_txlog::{
    CheckpointFile, Disks, Log, LogOptions, Recovered, RecoveryError,
    disk::MemDisk,
    record::{RecordKind, records},
    recover,
};
use understudy_types::{Lsn, Position};

/// Records replayed at once, in bytes.
const BATCH: usize = 1 << 20;
/// Blocks of a checkpoint that wait for the thread that puts them in; of a quarter of a megabyte each.
const BLOCKS: usize = 4;
/// A short record, in bytes.
const RECORD_BYTES: usize = 40;
/// Smallest and largest segment; in between a sixteenth of the volume.
const SEGMENT: (u64, u64) = (4 << 20, 64 << 20);

/// What recovery gives.
pub(crate) struct Ready {
    pub(crate) store: Arc<Store>,
    pub(crate) log: Log,
    pub(crate) end: Position,
    pub(crate) disks: Disks,
    pub(crate) checkpoint: Option<Lsn>,
    /// Why the files could not be used: the member rejoins by a duplicate.
    pub(crate) unusable: Option<Unfit>,
}

/// Why a member cannot do what it should, with the word for the pair's conditions if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Unfit {
    pub(crate) why: String,
    pub(crate) notice: Option<Notice>,
}

/// Recovers the store's directory; `tail` says whether its whole log stands. Files that cannot be trusted are
/// left as they are, and the member goes on empty, in memory, until a duplicate has taken their place (A2.15).
///
/// # Errors
/// When not even that is possible.
pub(crate) fn run(sizes: Sizes, directory: &StoreDir, tail: Tail) -> anyhow::Result<Ready> {
    if directory.control.get().poisoned {
        let why = "its log volume was lost or replaced".into();
        return empty(sizes, Unfit { why, notice: None });
    }
    match try_run(sizes, directory, tail) {
        Ok(ready) => Ok(ready),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "recovery failed");
            let why = format!("recovery failed: {error:#}");
            empty(sizes, Unfit { why, notice: Some(blamed(&error)) })
        }
    }
}

fn try_run(sizes: Sizes, directory: &StoreDir, tail: Tail) -> anyhow::Result<Ready> {
    let begun = Instant::now();
    let disks = directory.disks();
    let Recovered { log, checkpoint, end, report, .. } = recover(disks.clone(), options(sizes))?;
    let loading = Instant::now();
    let (mut store, from) = load(sizes, checkpoint.as_ref())?;
    let replaying = Instant::now();
    let replayed = replay(&mut store, &log, (from, end.lsn), tail)?;
    tracing::info!(
        end = %end.lsn,
        checkpoint = ?report.checkpoint_lsn,
        checkpoint_bytes = checkpoint.as_ref().map_or(0, CheckpointFile::raw_len),
        load_ms = (replaying - loading).as_millis() as u64,
        replayed,
        replay_ms = replaying.elapsed().as_millis() as u64,
        tail_cut_bytes = report.tail_cut_bytes,
        ms = begun.elapsed().as_millis() as u64,
        "recovered"
    );
    if store.owed() > Lsn::ZERO {
        tracing::warn!(
            visible = %store.owed(),
            "memory has no room for what the log replaced: reads wait until its end is acknowledged"
        );
    }
    let checkpoint = checkpoint.map(|c| c.meta().lsn);
    Ok(Ready { store: Arc::new(store), log, end, disks, checkpoint, unusable: None })
}

/// Whether the disk failed, or gave what it never was given.
fn blamed(error: &anyhow::Error) -> Notice {
    match error.downcast_ref::<RecoveryError>() {
        Some(RecoveryError::Poisoned { .. } | RecoveryError::Disk { .. }) => Notice::DiskFailed,
        Some(
            RecoveryError::Header { .. }
            | RecoveryError::Damaged { .. }
            | RecoveryError::Disorder { .. }
            | RecoveryError::Chain { .. }
            | RecoveryError::Gap { .. }
            | RecoveryError::Missing { .. }
            | RecoveryError::Mismatch { .. },
        )
        | None => Notice::LogDamaged,
    }
}

fn empty(sizes: Sizes, why: Unfit) -> anyhow::Result<Ready> {
    let disks = Disks::one(Arc::new(MemDisk::new()));
    let Recovered { log, end, .. } =
        recover(disks.clone(), options(sizes)).map_err(|e| anyhow::anyhow!(chain(&e)))?;
    let store = Arc::new(Store::new(limits(sizes)));
    Ok(Ready { store, log, end, disks, checkpoint: None, unusable: Some(why) })
}

fn limits(sizes: Sizes) -> MemoryLimits {
    MemoryLimits { permanent_bytes: sizes.permanent_bytes, temporary_bytes: sizes.temporary_bytes }
}

fn options(sizes: Sizes) -> LogOptions {
    LogOptions {
        segment_bytes: (sizes.log_bytes / 16).clamp(SEGMENT.0, SEGMENT.1),
        // A tenth stays free: the file system needs some, and an export of a cut tail too.
        size_max_bytes: sizes.log_bytes / 10 * 9,
        ..LogOptions::default()
    }
}

fn load(sizes: Sizes, checkpoint: Option<&CheckpointFile>) -> anyhow::Result<(Store, Lsn)> {
    let Some(file) = checkpoint else { return Ok((Store::new(limits(sizes)), Lsn::ZERO)) };
    let lsn = file.meta().lsn;
    let mut body = file.read().context("the checkpoint cannot be read")?;
    let store = put_in(limits(sizes), lsn, &mut body)
        .with_context(|| format!("the checkpoint at {lsn} cannot be loaded"))?;
    Ok((store, lsn))
}

/// Puts a checkpoint into a store. This thread reads it, and while the other one has enough to do, puts blocks
/// in itself.
fn put_in(limits: MemoryLimits, lsn: Lsn, body: &mut dyn Read) -> Result<Store, CheckpointError> {
    let mut load = Load::begin(limits, lsn, body)?;
    thread::scope(|scope| {
        let (more, blocks) = mpsc::sync_channel::<RowBlock>(BLOCKS);
        let helper = scope.spawn(move || blocks.into_iter().try_for_each(RowBlock::put));
        let read = loop {
            match load.next_block() {
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
                Ok(Some(block)) => match more.try_send(block) {
                    Ok(()) => {}
                    Err(TrySendError::Full(block)) => match block.put() {
                        Ok(()) => {}
                        Err(error) => break Err(error),
                    },
                    // It ended with an error.
                    Err(TrySendError::Disconnected(_)) => break Ok(()),
                },
            }
        };
        drop(more);
        // Its blocks stand before the place where this thread has arrived, so its error is the first.
        helper.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        read?;
        load.finish()
    })
}

/// Applies the records after one, up to another; how many transactions those were. While a batch is
/// applied, the next one is read and checked.
fn replay(
    store: &mut Store,
    log: &Log,
    (after, end): (Lsn, Lsn),
    tail: Tail,
) -> anyhow::Result<u64> {
    thread::scope(|scope| {
        let (full, batches) = mpsc::sync_channel(1);
        let (applied, empty) = mpsc::channel();
        scope.spawn(move || read(log, (after.next(), end), (&full, &empty)));
        let mut replayed = 0;
        // An error here ends the reader too: nobody takes its batches any more.
        for batch in batches {
            let batch: Vec<u8> = batch?;
            replayed += apply(store, &batch, tail)?;
            // The reader may have ended.
            let _ = applied.send(batch);
        }
        Ok(replayed)
    })
}

/// Reads records in batches, into buffers that were used before.
fn read(
    log: &Log,
    (mut next, end): (Lsn, Lsn),
    (full, empty): (&SyncSender<anyhow::Result<Vec<u8>>>, &Receiver<Vec<u8>>),
) {
    while next <= end {
        let mut batch = empty.try_recv().unwrap_or_default();
        batch.clear();
        let read = match log.read_into(next, BATCH, &mut batch) {
            Ok(following) if following > next => {
                next = following;
                Ok(batch)
            }
            Ok(_) => Err(anyhow::anyhow!("the log ends before {end}")),
            Err(error) => Err(error.into()),
        };
        let failed = read.is_err();
        if full.send(read).is_err() || failed {
            return;
        }
    }
}

/// Applies a batch of records; how many transactions those were.
fn apply(store: &mut Store, batch: &[u8], tail: Tail) -> anyhow::Result<u64> {
    let mut applied = 0;
    // Transactions up to the next record of another kind.
    let mut run = Vec::with_capacity(batch.len() / RECORD_BYTES);
    let mut flush = |store: &mut Store, run: &mut Vec<(Lsn, &[u8])>| {
        applied += run.len() as u64;
        let done = store.replay(run, tail);
        run.clear();
        done
    };
    let mut last = store.committed();
    for record in records(batch) {
        let record = record.map_err(|e| anyhow::anyhow!("record after {last}: {e}"))?;
        last = record.lsn;
        match record.kind {
            RecordKind::Transaction => run.push((record.lsn, record.payload)),
            RecordKind::EpochBegin => {
                flush(store, &mut run)?;
                begin_epoch(store, record.lsn, record.payload)
                    .map_err(|e| anyhow::anyhow!("record {}: {e}", record.lsn))?;
            }
            RecordKind::Feeder => {
                flush(store, &mut run)?;
                store.advance(record.lsn);
            }
        }
    }
    flush(store, &mut run)?;
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_store::{ColumnDef, DataType, Isolation, Row, TableDef, TableId, Txn, Value};
    use understudy_txlog::Appender;
    use understudy_types::{Epoch, EpochBegin, EpochId, Incarnation};

    const EPOCH: Epoch = Epoch(1);
    const LIMITS: MemoryLimits =
        MemoryLimits { permanent_bytes: 1 << 30, temporary_bytes: 1 << 30 };

    /// A log with its epoch begun.
    fn begun() -> (Log, Appender) {
        let disks = Disks::one(Arc::new(MemDisk::new()));
        let log = recover(disks, LogOptions::default()).unwrap().log;
        let mut appender = log.appender();
        appender
            .begin_epoch(&EpochBegin {
                epoch: EpochId { number: EPOCH, ..EpochId::default() },
                author: Incarnation { start: 1, id: EpochId::default().author },
                previous: appender.position(),
                hash: appender.hash(),
                lossy: false,
            })
            .unwrap();
        (log, appender)
    }

    fn commit(store: &Store, appender: &mut Appender, txn: Txn) {
        let record = store.redo(&txn);
        store.commit(txn, appender.append(EPOCH, RecordKind::Transaction, &record));
    }

    /// Rows of a table, each in a record of its own, that come to several batches.
    fn filled(store: &Store, appender: &mut Appender) -> TableId {
        let mut txn = store.begin(Isolation::ReadCommitted);
        let columns =
            vec![ColumnDef::new("k", DataType::Int4), ColumnDef::new("v", DataType::Text)];
        let def = TableDef::new("t", columns).with_primary_key(&[0]);
        let table = store.create_table(&mut txn, def).unwrap();
        commit(store, appender, txn);
        for k in 0..3000 {
            let mut txn = store.begin(Isolation::ReadCommitted);
            let row = [Value::Int(k), Value::text("x".repeat(2000))];
            store.insert(&mut txn, table, Row::encode(&row)).unwrap();
            commit(store, appender, txn);
        }
        table
    }

    #[test]
    fn records_of_many_batches_are_applied_in_order() {
        let (log, mut appender) = begun();
        let origin = Store::new(LIMITS);
        let table = filled(&origin, &mut appender);
        log.sync_all().unwrap();
        let end = log.durable_lsn();
        for tail in [Tail::Stands, Tail::MayGo] {
            let mut store = Store::new(LIMITS);
            assert_eq!(replay(&mut store, &log, (Lsn::ZERO, end), tail).unwrap(), 3001);
            assert_eq!(store.committed(), end);
            // What may be taken back is shown to nobody (R17).
            assert_eq!(store.visible(), if tail == Tail::Stands { end } else { Lsn::ZERO });
            let hashes = [&origin, &store].map(|store| store.content_hash(table, end));
            assert!(hashes[0].is_some() && hashes[0] == hashes[1]);
        }
    }

    /// A checkpoint of several blocks, each row with a number of its own in a column of 2000 bytes.
    fn checkpoint() -> (Store, TableId, Lsn, Vec<u8>) {
        let (_log, mut appender) = begun();
        let origin = Store::new(LIMITS);
        let table = filled(&origin, &mut appender);
        origin.set_visible(origin.committed());
        let at = origin.visible();
        let mut bytes = Vec::new();
        origin.write_checkpoint(at, &mut bytes).unwrap();
        (origin, table, at, bytes)
    }

    #[test]
    fn two_threads_load_what_one_does() {
        let (origin, table, at, bytes) = checkpoint();
        let alone = Store::load_checkpoint(LIMITS, at, &mut &*bytes).unwrap();
        for _ in 0..20 {
            let loaded = put_in(LIMITS, at, &mut &*bytes).unwrap();
            assert_eq!(loaded.running_hash(table), origin.running_hash(table));
            assert_eq!(loaded.content_hash(table, at), origin.content_hash(table, at));
            assert_eq!(loaded.memory(), alone.memory());
            assert_eq!(loaded.catalog(), origin.catalog());
            let mut again = Vec::new();
            loaded.write_checkpoint(at, &mut again).unwrap();
            assert!(again == bytes);
        }
    }

    #[test]
    fn what_one_thread_refuses_two_refuse_in_the_same_words() {
        let (_, _, at, bytes) = checkpoint();
        let told = |loaded: Result<Store, CheckpointError>| format!("{:#}", loaded.unwrap_err());
        let places = (bytes.len() / 23..bytes.len()).step_by(bytes.len() / 23);
        for place in places {
            let mut damaged = bytes.clone();
            // Lengths, numbers of rows, keys, and what no row tells.
            damaged[place..][..8.min(bytes.len() - place)].fill(0xff);
            let alone = told(Store::load_checkpoint(LIMITS, at, &mut &*damaged));
            assert_eq!(told(put_in(LIMITS, at, &mut &*damaged)), alone, "at {place}");
            let cut = &bytes[..place];
            let alone = told(Store::load_checkpoint(LIMITS, at, &mut &*cut));
            assert_eq!(told(put_in(LIMITS, at, &mut &*cut)), alone, "cut at {place}");
        }
        let small = MemoryLimits { permanent_bytes: 2 << 20, ..LIMITS };
        let refused = put_in(small, at, &mut &*bytes);
        assert!(matches!(refused, Err(CheckpointError::Memory { .. })), "{refused:?}");
    }

    #[test]
    fn a_record_that_is_refused_ends_the_replay() {
        let (log, mut appender) = begun();
        let origin = Store::new(LIMITS);
        appender.append(EPOCH, RecordKind::Transaction, b"no record");
        filled(&origin, &mut appender);
        log.sync_all().unwrap();
        let range = (Lsn::ZERO, log.durable_lsn());
        let refused = replay(&mut Store::new(LIMITS), &log, range, Tail::Stands).unwrap_err();
        assert!(format!("{refused:#}").contains("format 110"), "{refused:#}");
    }

    #[test]
    fn a_log_that_ends_too_early_is_refused() {
        let (log, _) = begun();
        log.sync_all().unwrap();
        let beyond = log.durable_lsn().next();
        let range = (Lsn::ZERO, beyond);
        let refused = replay(&mut Store::new(LIMITS), &log, range, Tail::Stands);
        assert!(refused.unwrap_err().to_string().contains("ends before"));
    }
}
