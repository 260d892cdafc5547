//! Checkpoints and log reclaim, in the background: a checkpoint when enough log has gathered or enough
//! time has passed, taken at `acknowledged_lsn` (A2.22) while commits go on.

use crate::{engine::Engine, node::lease_link::chain};
use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};
use understudy_txlog::{CheckpointFile, CheckpointMeta, Disks, write_checkpoint};
use understudy_types::{Dbid, Lsn};

/// How often to look whether a checkpoint is due.
const LOOK: Duration = Duration::from_secs(2);
/// Log since the last checkpoint that makes one due: one default segment's worth of replay.
const LOG_BYTES: u64 = 128 << 20;
/// Age that makes one due when anything changed.
const AGE: Duration = Duration::from_secs(300);

/// Takes checkpoints for ever.
pub(crate) async fn run(engine: Arc<Engine>, disks: Disks, first: Option<Lsn>) {
    let mut last = first.unwrap_or(Lsn::ZERO);
    let mut taken = Instant::now();
    let mut base = engine.log.usage().segment_bytes;
    loop {
        tokio::time::sleep(LOOK).await;
        let grown = engine.log.usage().segment_bytes > base + LOG_BYTES;
        let due = engine.gate.acknowledged() > last && (grown || taken.elapsed() > AGE);
        if !due {
            continue;
        }
        let (for_blocking, disks) = (Arc::clone(&engine), disks.clone());
        let done = tokio::task::spawn_blocking(move || take(&for_blocking, &disks)).await;
        taken = Instant::now();
        match done {
            Ok(Ok(file)) => {
                last = file.meta().lsn;
                reclaim(&engine, last);
                base = engine.log.usage().segment_bytes;
            }
            Ok(Err(error)) => tracing::error!(error, "no checkpoint was taken"),
            Err(error) => tracing::error!(error = %error, "the checkpoint task ended"),
        }
    }
}

/// Takes one now.
///
/// # Errors
/// In words, when there is no database, or a file fails.
pub(crate) fn take(engine: &Engine, disks: &Disks) -> Result<CheckpointFile, String> {
    let dbid: Dbid = engine
        .with_section(|s| s.member.control().dbid)
        .ok_or("there is no database to checkpoint")?;
    let lsn = engine.gate.acknowledged();
    let hash = engine.log.hash_at(lsn).ok_or("the log no longer reaches back to the LSN")?;
    let mut history = engine.log.history();
    history.cut_above(lsn);
    let meta = CheckpointMeta { lsn, history, hash, dbid };
    let store = Arc::clone(&engine.store);
    let mut body = |out: &mut dyn Write| {
        store.write_checkpoint(lsn, out).map(|_| ()).map_err(std::io::Error::other)
    };
    let file = write_checkpoint(&disks.data, meta, &mut body).map_err(|e| chain(&e))?;
    tracing::info!(lsn = %lsn, bytes = file.raw_len(), "a checkpoint was taken");
    Ok(file)
}

/// Gives log back that no checkpoint and no follower needs.
fn reclaim(engine: &Engine, checkpoint: Lsn) {
    let hold = checkpoint.min(engine.feeds.hold_lsn());
    match engine.log.reclaim_below(hold) {
        Ok(report) => tracing::debug!(report = ?report, "log was reclaimed"),
        Err(error) => tracing::warn!(error = %chain(&error), "log was not reclaimed"),
    }
}
