//! The end of a replaced store: what only it holds is kept, then it goes (law 7).

use super::{
    Current, DataDir, DataDirError, TRAPPED, failed, remove_tree, store_name, sync_directory,
};
use std::path::{Path, PathBuf};
use understudy_txlog::{CutError, Log, LogOptions, RecoveryError, recover};
use understudy_types::{Epoch, Lsn, StoreId};

const TAIL_PREFIX: &str = "tail-";
const TAIL_SUFFIX: &str = ".log";

/// A tail that is kept in `trapped/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trapped {
    /// Path relative to its volume.
    pub file: String,
    /// Epoch of its last record.
    pub epoch: Epoch,
    /// The fork: its first record is the next one.
    pub above_lsn: Lsn,
    /// How many records.
    pub records: u64,
}

/// What became of a replaced store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retired {
    /// Every record of it is in the store in use.
    Nothing,
    /// Its records above the fork were exported.
    Tail(Trapped),
    /// No tail could be told apart; the whole log is kept at this path, for this reason.
    WholeLog(PathBuf, String),
}

/// File name for [`understudy_txlog::Log::cut_above`]'s export: epoch of the last record, the fork,
/// and how many records lie above it. The next [`DataDir::open`] brings the file to `trapped/`.
#[must_use]
pub fn trapped_name(epoch: Epoch, above: Lsn, records: u64) -> String {
    format!("{TAIL_PREFIX}{epoch}-{:016x}-{records}{TAIL_SUFFIX}", above.0)
}

fn parse_trapped(file: &str, name: &str) -> Option<Trapped> {
    let name = name.rsplit('_').next()?.strip_prefix(TAIL_PREFIX)?.strip_suffix(TAIL_SUFFIX)?;
    let mut parts = name.split('-');
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let above_lsn = Lsn(u64::from_str_radix(parts.next()?, 16).ok()?);
    let records = parts.next()?.parse().ok()?;
    parts.next().is_none().then(|| Trapped { file: file.to_owned(), epoch, above_lsn, records })
}

/// Why a store's tail could not be exported.
#[derive(Debug, thiserror::Error)]
enum NoTail {
    #[error(transparent)]
    Volume(#[from] DataDirError),
    #[error("the log cannot be recovered: {0}")]
    Recovery(#[from] RecoveryError),
    #[error("the log cannot be cut: {0}")]
    Cut(#[from] CutError),
    #[error("it has no record in common with the store in use")]
    NothingInCommon,
    #[error("it differs from the store in use below their fork at {0}")]
    Differs(Lsn),
}

impl DataDir {
    /// Retires a store whose place the one in use has taken. `log` is the recovered log of the store in
    /// use: what the old one holds beyond it is kept. May be repeated after a crash.
    ///
    /// # Errors
    /// When the system refuses; the old store is then still there.
    pub fn retire(&self, old: StoreId, log: &Log) -> Result<Retired, DataDirError> {
        let old_log = self.log_path(old);
        let mut whole = None;
        if old_log.is_dir() {
            match self.export_tail(old, log) {
                Ok(()) => {}
                Err(NoTail::Volume(error)) => return Err(error),
                Err(
                    why @ (NoTail::Recovery(_)
                    | NoTail::Cut(_)
                    | NoTail::NothingInCommon
                    | NoTail::Differs(_)),
                ) => whole = Some((self.keep_whole_log(old)?, why.to_string())),
            }
        }
        // Also what an attempt exported that a crash ended.
        let tail = self.collect_trapped(old)?.pop();
        remove_tree(&old_log)?;
        sync_directory(&self.log)?;
        remove_tree(&self.store_path(old))?;
        sync_directory(&self.data)?;
        if let Some(mut current) = Current::read(&self.data)? {
            current.replaces.retain(|id| *id != old);
            current.write(&self.data)?;
        }
        let retired = match (whole, tail) {
            (Some((path, reason)), _) => Retired::WholeLog(path, reason),
            (None, Some(tail)) => Retired::Tail(tail),
            (None, None) => Retired::Nothing,
        };
        tracing::info!(store = %old, ?retired, "a replaced store is retired");
        Ok(retired)
    }

    /// Tails that are kept on the data volume.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub fn trapped(&self) -> Result<Vec<Trapped>, DataDirError> {
        let directory = self.data.join(TRAPPED);
        let mut found: Vec<Trapped> = names(&directory)?
            .iter()
            .filter_map(|name| parse_trapped(&format!("{TRAPPED}/{name}"), name))
            .collect();
        found.sort_by_key(|t| (t.epoch, t.above_lsn));
        Ok(found)
    }

    /// Directory and name of a tail that is kept; `None` for anything else.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub fn trapped_path(&self, file: &str) -> Result<Option<(PathBuf, String)>, DataDirError> {
        let is_kept = self.trapped()?.iter().any(|tail| tail.file == file);
        let name = Path::new(file).file_name().and_then(|name| name.to_str());
        Ok(name.filter(|_| is_kept).map(|name| (self.data.join(TRAPPED), name.to_owned())))
    }

    /// Throws a kept tail away, for good when this returns.
    ///
    /// # Errors
    /// When the volume refuses.
    pub fn discard_trapped(&self, file: &str) -> Result<bool, DataDirError> {
        let Some((directory, name)) = self.trapped_path(file)? else { return Ok(false) };
        let path = directory.join(name);
        std::fs::remove_file(&path).map_err(failed("remove", &path))?;
        sync_directory(&directory)?;
        Ok(true)
    }

    /// Exports the records above the fork, if any, into the old store's own directory.
    fn export_tail(&self, old: StoreId, log: &Log) -> Result<(), NoTail> {
        let recovered = recover(self.disks(old)?, LogOptions::default())?;
        let end = recovered.end.lsn;
        if end == Lsn::ZERO {
            return Ok(());
        }
        let fork = recovered.history.fork(end, &log.history(), log.end());
        if fork == Lsn::ZERO {
            return Err(NoTail::NothingInCommon);
        }
        if let (Some(ours), Some(theirs)) = (log.hash_at(fork), recovered.log.hash_at(fork))
            && ours != theirs
        {
            return Err(NoTail::Differs(fork));
        }
        if fork < end {
            let name = trapped_name(recovered.end.epoch.number, fork, end.since(fork));
            recovered.log.cut_above(fork, Some(&name))?;
        }
        Ok(())
    }

    /// Moves the whole log of a store to where nothing removes it.
    fn keep_whole_log(&self, old: StoreId) -> Result<PathBuf, DataDirError> {
        let (from, directory) = (self.log_path(old), self.log.join(TRAPPED));
        std::fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        let to = directory.join(store_name(old));
        std::fs::rename(&from, &to).map_err(failed("move", &from))?;
        sync_directory(&directory)?;
        sync_directory(&self.log)?;
        Ok(to)
    }

    /// Brings exports of a store to `trapped/`, where nothing removes them.
    pub(super) fn collect_trapped(&self, store: StoreId) -> Result<Vec<Trapped>, DataDirError> {
        let from = self.store_path(store).join(super::CHECKPOINTS);
        let tails: Vec<String> = names(&from)?
            .into_iter()
            .filter(|n| n.starts_with(TAIL_PREFIX) && n.ends_with(TAIL_SUFFIX))
            .collect();
        if tails.is_empty() {
            return Ok(Vec::new());
        }
        let directory = self.data.join(TRAPPED);
        std::fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        sync_directory(&self.data)?;
        let mut kept = Vec::new();
        for name in tails {
            // Two stores may have cut at the same place.
            let own = format!("{store}_{name}");
            let path = from.join(&name);
            std::fs::rename(&path, directory.join(&own)).map_err(failed("move", &path))?;
            kept.extend(parse_trapped(&format!("{TRAPPED}/{own}"), &own));
        }
        sync_directory(&directory)?;
        sync_directory(&from)?;
        Ok(kept)
    }
}

/// Names of the files of a directory that may be absent.
fn names(directory: &Path) -> Result<Vec<String>, DataDirError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", directory)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", directory))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
