//! Checkpoints and log reclaim, in the background: a checkpoint when enough log has gathered or enough
//! time has passed, taken at `acknowledged_lsn` (A2.22) while commits go on. They also are what
//! duplicates are made from.

use crate::{
    duplicate::{Source, SourceIdentity},
    engine::{Engine, LogKeeper},
    node::lease_link::chain,
    pg::{HoldKind, LogHold},
};
use parking_lot::Mutex;
use std::{
    io::{self, Write},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use understudy_agent_api::Notice;
use understudy_txlog::{
    CheckpointFile, CheckpointMeta, Disks, keep_newest_checkpoint, write_checkpoint,
};
use understudy_types::{Dbid, Lsn, MemberName};

/// How often to look whether a checkpoint is due.
const LOOK: Duration = Duration::from_secs(2);
/// Log since the last checkpoint that makes one due: two default segments of replay.
const LOG_BYTES: u64 = 128 << 20;
/// Share of the log volume that makes one due, whatever the volume's size: a quarter.
const LOG_SHARE: u64 = 4;
/// Pause after one that could not be taken, on a full volume for instance.
const AGAIN: Duration = Duration::from_secs(10);
/// Age that makes one due when anything changed.
const AGE: Duration = Duration::from_secs(300);
/// Share of the log volume, in tenths, from which a follower that it is kept for is told of.
const TOLD_TENTHS: u64 = 5;
/// Share from which such a follower is let go, and built anew (seed 003, FAILTHRESHOLD).
const LET_GO_TENTHS: u64 = 7;

/// Members that build a duplicate, and the LSN above which each needs the log.
type Duplicated = Box<dyn Fn() -> Vec<(MemberName, Lsn)> + Send + Sync>;

/// The checkpoints of this process's store.
pub(crate) struct Checkpoints {
    engine: Arc<Engine>,
    disks: Disks,
    newest: Mutex<Option<Lsn>>,
    /// One is written at a time in a directory.
    writing: Mutex<()>,
    duplicated: OnceLock<Duplicated>,
}

impl Checkpoints {
    /// Of the store in `disks`, whose newest one lies at `newest`.
    #[must_use]
    pub(crate) fn new(engine: Arc<Engine>, disks: Disks, newest: Option<Lsn>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            disks,
            newest: Mutex::new(newest),
            writing: Mutex::new(()),
            duplicated: OnceLock::new(),
        })
    }

    /// Takes checkpoints for ever, and gives back log below them that nobody holds: who builds a
    /// duplicate is told by `duplicated`.
    pub(crate) async fn run(
        self: Arc<Self>,
        duplicated: impl Fn() -> Vec<(MemberName, Lsn)> + Send + Sync + 'static,
    ) {
        // It runs once for a store.
        let _ = self.duplicated.set(Box::new(duplicated));
        let keeper = Arc::downgrade(&self);
        self.engine.kept_by(keeper);
        let mut taken = Instant::now();
        let mut failed: Option<Instant> = None;
        let mut base = self.engine.log.usage().segment_bytes;
        loop {
            tokio::time::sleep(LOOK).await;
            let last = self.newest.lock().unwrap_or(Lsn::ZERO);
            let usage = self.engine.log.usage();
            let most = LOG_BYTES.min(usage.size_max_bytes / LOG_SHARE);
            let grown = usage.segment_bytes > base + most;
            let changed = self.engine.gate.acknowledged() > last && !self.waits_for_word();
            let rests = failed.is_some_and(|at| at.elapsed() < AGAIN);
            let has_to = self.makes_room();
            if !changed && has_to {
                self.reclaim();
            }
            if changed && (grown || has_to || taken.elapsed() > AGE) && !rests {
                let own = Arc::clone(&self);
                match tokio::task::spawn_blocking(move || own.take()).await {
                    Ok(Ok(_)) => failed = None,
                    Ok(Err(error)) => {
                        tracing::error!(error, "no checkpoint was taken");
                        failed = Some(Instant::now());
                    }
                    Err(error) => tracing::error!(error = %error, "the checkpoint task ended"),
                }
                taken = Instant::now();
                self.reclaim();
                base = self.engine.log.usage().segment_bytes;
            }
        }
    }

    fn take(&self) -> Result<CheckpointFile, String> {
        let _one = self.writing.lock();
        let begun = Instant::now();
        let engine = &self.engine;
        let dbid: Dbid = engine
            .with_section(|s| s.member.control().dbid)
            .ok_or("there is no database to checkpoint")?;
        // Pinned: nobody frees it while it is written.
        let pinned = engine.store.pin_visible();
        let lsn = pinned.lsn();
        if lsn == Lsn::ZERO {
            // A copy of it would have no record in common with any log, and be replaced for ever.
            return Err("nothing is acknowledged yet".to_owned());
        }
        if self.waits_for_word() {
            return Err("what the log held at the start is not acknowledged yet".to_owned());
        }
        // With durability Memory the log may lag behind. Where it has no room for what is missing, only this
        // checkpoint makes some: then it goes ahead of the log, which recovery begins anew behind it.
        if !engine.log.sync_to(lsn).map_err(|e| chain(&e))? {
            tracing::warn!(lsn = %lsn, "the log has no room: the checkpoint goes ahead of it");
        }
        let hash = engine.log.hash_at(lsn).ok_or("the log no longer reaches back to the LSN")?;
        let mut history = engine.log.history();
        history.cut_above(lsn);
        let meta = CheckpointMeta { lsn, history, hash, dbid };
        let mut body = |out: &mut dyn Write| {
            engine.store.write_checkpoint(lsn, out).map(|_| ()).map_err(io::Error::other)
        };
        let file = write_checkpoint(&self.disks.data, meta, &mut body).map_err(|e| chain(&e))?;
        *self.newest.lock() = Some(lsn);
        engine.metrics.checkpoint_seconds.observe(begun.elapsed().as_secs_f64());
        let ms = begun.elapsed().as_millis() as u64;
        tracing::info!(lsn = %lsn, bytes = file.raw_len(), ms, "a checkpoint was taken");
        Ok(file)
    }

    /// Whether only states can be read that nobody has acknowledged (`Tail::MayGo`).
    fn waits_for_word(&self) -> bool {
        self.engine.store.owed() > Lsn::ZERO
    }

    /// Whether the log is near its limit or its volume is full, and a newer checkpoint is what it takes to
    /// give some back: after a burst the growth that makes one due may not fit any more.
    fn makes_room(&self) -> bool {
        (self.used_tenths() >= TOLD_TENTHS || self.engine.log.is_full())
            && self.holds().is_ok_and(|holds| {
                holds.first().is_some_and(|least| least.kind == HoldKind::Checkpoint)
            })
    }

    /// Gives log back that no checkpoint, follower or duplicate needs. A follower that is too far behind
    /// for the volume is let go first: its next attempt to attach is answered with a duplicate.
    fn reclaim(&self) {
        let Some(checkpoint) = *self.newest.lock() else { return };
        let duplicated = self.duplicated().into_iter().map(|(_, lsn)| lsn).min();
        let needed = checkpoint.min(duplicated.unwrap_or(Lsn::MAX));
        let feeds = &self.engine.feeds;
        let mut slowest = feeds.slowest().filter(|(_, received)| *received < needed);
        let tenths = self.used_tenths();
        if tenths >= LET_GO_TENTHS
            && let Some((follower, received)) = slowest.take()
        {
            tracing::warn!(member = %follower.member, received = %received, tenths, "let go: the log volume is filling up for it");
            feeds.detach(follower.incarnation);
            slowest = feeds.slowest().filter(|(_, received)| *received < needed);
        }
        let hold = slowest.as_ref().map_or(needed, |(_, received)| *received);
        self.reclaim_below(hold);
        let is_full = self.engine.log.is_full() && self.used_tenths() >= LET_GO_TENTHS;
        if is_full && self.makes_room() {
            // Filled since the older checkpoint, which alone needs what the newest one covers.
            match keep_newest_checkpoint(&*self.disks.data) {
                Ok(0) => {}
                Ok(_) => {
                    tracing::warn!("the log is full: the older checkpoint was given up for it");
                    self.reclaim_below(hold);
                }
                Err(error) => tracing::warn!(%error, "the older checkpoint was not removed"),
            }
        }
        let tenths = self.used_tenths();
        let holder = slowest.filter(|_| tenths >= TOLD_TENTHS);
        feeds.note_holder(holder.map(|(follower, _)| {
            let follower = follower.member;
            Notice::HoldingLog { follower, tenths }
        }));
    }

    fn reclaim_below(&self, hold: Lsn) {
        match self.engine.log.reclaim_below(hold) {
            Ok(report) => tracing::debug!(report = ?report, "log was reclaimed"),
            Err(error) => tracing::warn!(error = %chain(&error), "log was not reclaimed"),
        }
    }

    fn duplicated(&self) -> Vec<(MemberName, Lsn)> {
        self.duplicated.get().map_or_else(Vec::new, |members| members())
    }

    /// Share of the log volume in use, in tenths.
    fn used_tenths(&self) -> u64 {
        let usage = self.engine.log.usage();
        usage.segment_bytes * 10 / usage.size_max_bytes.max(1)
    }
}

impl LogKeeper for Checkpoints {
    fn checkpoint(&self) -> Result<Lsn, String> {
        let newest = *self.newest.lock();
        if let Some(lsn) = newest.filter(|lsn| *lsn == self.engine.gate.acknowledged()) {
            self.reclaim();
            return Ok(lsn);
        }
        let lsn = self.take()?.meta().lsn;
        self.reclaim();
        Ok(lsn)
    }

    fn holds(&self) -> Result<Vec<LogHold>, String> {
        let checkpoints = self.engine.log.checkpoint_holds().map_err(|e| chain(&e))?;
        let mut holds = Vec::new();
        if checkpoints.is_empty() {
            let description = "no checkpoint yet: recovery needs the whole log".to_owned();
            holds.push(LogHold { first_lsn: Lsn(1), kind: HoldKind::Checkpoint, description });
        }
        holds.extend(checkpoints.into_iter().map(|hold| LogHold {
            first_lsn: hold.first_lsn,
            kind: HoldKind::Checkpoint,
            description: hold.file,
        }));
        let of_member = |kind| {
            move |(member, lsn): (MemberName, Lsn)| LogHold {
                first_lsn: lsn.next(),
                kind,
                description: member.to_string(),
            }
        };
        let followers = self.engine.feeds.received().into_iter();
        let followers = followers.map(|(follower, lsn)| (follower.member, lsn));
        holds.extend(followers.map(of_member(HoldKind::Replication)));
        holds.extend(self.duplicated().into_iter().map(of_member(HoldKind::Duplicate)));
        holds.sort_by_key(|hold| hold.first_lsn);
        Ok(holds)
    }
}

impl Source for Checkpoints {
    fn identity(&self) -> SourceIdentity {
        self.engine.with_section(|s| SourceIdentity {
            dbid: s.member.control().dbid,
            store: s.member.me().store,
            incarnation: s.member.me().incarnation,
            epoch: self.engine.log.history().last_epoch(),
        })
    }

    fn checkpoint(&self, at: Option<Lsn>) -> Option<CheckpointFile> {
        let lsn = at.or(*self.newest.lock())?;
        CheckpointFile::open(&self.disks.data, lsn).ok()
    }

    fn take_checkpoint(&self) -> Result<CheckpointFile, String> {
        self.take()
    }

    fn first_lsn(&self) -> Lsn {
        self.engine.log.first_lsn()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Lone;
    use understudy_txlog::LogOptions;

    /// Found by the flow `bootstrap`: a standby that asked for a duplicate between the first record and
    /// its acknowledgement got a copy of nothing, which has nothing in common with any log.
    #[test]
    fn a_database_without_an_acknowledged_record_has_no_checkpoint() {
        let place = tempfile::tempdir().unwrap();
        let lone = Lone::new(place.path(), LogOptions::default());
        let disks = lone.directory.disks();
        let checkpoints = Checkpoints::new(Arc::clone(&lone.engine), disks, None);
        assert_eq!(checkpoints.take().err().as_deref(), Some("nothing is acknowledged yet"));
        assert!(Source::checkpoint(&*checkpoints, None).is_none(), "a file was left behind");
    }

    #[test]
    fn what_holds_the_log_is_named_the_least_lsn_first() {
        let place = tempfile::tempdir().unwrap();
        let lone = Lone::new(place.path(), LogOptions::default());
        let disks = lone.directory.disks();
        let checkpoints = Checkpoints::new(Arc::clone(&lone.engine), disks, None);
        let standby = MemberName::new("orders-2").unwrap();
        let duplicated = move || vec![(standby.clone(), Lsn(40))];
        assert!(checkpoints.duplicated.set(Box::new(duplicated)).is_ok());
        let holds = checkpoints.holds().unwrap();
        let told: Vec<_> = holds.iter().map(|h| (h.first_lsn, h.kind.as_str())).collect();
        assert_eq!(told, [(Lsn(1), "Checkpoint"), (Lsn(41), "Duplicate")]);
        assert_eq!(holds[1].description, "orders-2");
    }
}
