//! From the two volumes to a store and a log: newest checkpoint, then the log after it.

use crate::{config::Sizes, datadir::StoreDir, engine::begin_epoch, node::lease_link::chain};
use anyhow::Context;
use std::{sync::Arc, time::Instant};
use understudy_agent_api::Notice;
use understudy_store::{MemoryLimits, Store};
use understudy_txlog::{
    CheckpointFile, Disks, Log, LogOptions, Recovered, RecoveryError,
    disk::MemDisk,
    record::{RecordKind, records},
    recover,
};
use understudy_types::{Lsn, Position};

/// Records replayed at once, in bytes.
const BATCH: usize = 4 << 20;
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

/// Recovers the store's directory. Files that cannot be trusted are left as they are, and the member
/// goes on empty, in memory, until a duplicate has taken their place (A2.15).
///
/// # Errors
/// When not even that is possible.
pub(crate) fn run(sizes: Sizes, directory: &StoreDir) -> anyhow::Result<Ready> {
    if directory.control.get().poisoned {
        let why = "its log volume was lost or replaced".into();
        return empty(sizes, Unfit { why, notice: None });
    }
    match try_run(sizes, directory) {
        Ok(ready) => Ok(ready),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "recovery failed");
            let why = format!("recovery failed: {error:#}");
            empty(sizes, Unfit { why, notice: Some(blamed(&error)) })
        }
    }
}

fn try_run(sizes: Sizes, directory: &StoreDir) -> anyhow::Result<Ready> {
    let begun = Instant::now();
    let disks = directory.disks();
    let Recovered { log, checkpoint, end, report, .. } = recover(disks.clone(), options(sizes))?;
    let loading = Instant::now();
    let (store, from) = load(sizes, checkpoint.as_ref())?;
    let replaying = Instant::now();
    let replayed = replay(&store, &log, from, end.lsn)?;
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
    let store = Store::load_checkpoint(limits(sizes), lsn, &mut body)
        .with_context(|| format!("the checkpoint at {lsn} cannot be loaded"))?;
    Ok((store, lsn))
}

fn replay(store: &Store, log: &Log, after: Lsn, end: Lsn) -> anyhow::Result<u64> {
    let mut next = after.next();
    let mut replayed = 0;
    let mut batch = Vec::new();
    while next <= end {
        batch.clear();
        let following = log.read_into(next, BATCH, &mut batch)?;
        for record in records(&batch) {
            let record = record.map_err(|e| anyhow::anyhow!("record after {next}: {e}"))?;
            match record.kind {
                RecordKind::Transaction => {
                    store.apply(record.lsn, record.payload)?;
                    replayed += 1;
                }
                RecordKind::EpochBegin => begin_epoch(store, record.lsn, record.payload)
                    .map_err(|e| anyhow::anyhow!("record {}: {e}", record.lsn))?,
                RecordKind::Feeder => store.advance(record.lsn),
            }
        }
        anyhow::ensure!(following > next, "the log ends before {end}");
        next = following;
    }
    Ok(replayed)
}
