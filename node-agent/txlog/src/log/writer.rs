//! The writer thread: the only one that writes segments.
//!
//! Each turn takes what is in memory, writes it with one durable mark before it, and syncs when somebody
//! waits or the last sync is long ago. It is woken only by those who wait for durability, by the first
//! append after a rest, and by a full drain buffer. When idle it proves that the disk answers by storing
//! `durable_lsn` in the probe file, which recovery reads as evidence.
//!
//! **Invariant.** The next segment gets its name only after the one before is durable whole, so that
//! recovery has to distrust the newest segment only.

use super::{
    Catalogue, Command, LogError, SegmentEntry, Shared, boottime_nanos,
    tail::{Nap, Tail, Taken},
};
use crate::{
    disk::{Disk, DiskFile, write_all_at},
    record::OVERHEAD_BYTES_MAX,
    recovery::{POISONED_NAME, SPARE_NAME},
    segment::{HEADER_BYTES, MARK_BYTES, SegmentHeader},
    slot_file::SlotFile,
    sync::thread,
};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use understudy_types::Lsn;

/// Most bytes that one batch takes out of memory: it bounds the time to the next fsync.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Time between two attempts to reserve a segment on a full volume.
const FULL_RETRY: Duration = Duration::from_millis(50);

/// Short sleeps without work before the writer rests until it is woken.
const IDLE_TURNS_MAX: u32 = 20;

/// The segment that is being written.
pub(crate) struct ActiveSegment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Box<dyn DiskFile>,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// Length of the file.
    pub(crate) capacity: u64,
}

/// What recovery hands to the writer.
pub(crate) struct Start {
    pub(crate) active: ActiveSegment,
    pub(crate) probe: SlotFile,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) active: ActiveSegment,
    pub(super) probe: SlotFile,
    /// Reserved file of a segment's size; `None` while the volume is full.
    spare: Option<Box<dyn DiskFile>>,
    spare_after: Instant,
    /// When to try again after records found no room.
    stuck_until: Option<Instant>,
    taken: Taken,
    staging: Vec<u8>,
    last_sync: Instant,
    idle_turns: u32,
}

/// Starts the thread.
pub(super) fn spawn(shared: Arc<Shared>, start: Start) -> io::Result<thread::JoinHandle<()>> {
    let now = Instant::now();
    let mut writer = Writer {
        shared,
        active: start.active,
        probe: start.probe,
        spare: None,
        spare_after: now,
        stuck_until: None,
        taken: Taken::default(),
        staging: Vec::new(),
        last_sync: now,
        idle_turns: 0,
    };
    thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run())
}

/// What to do next.
enum Work {
    Write { sync: bool },
    Sync,
    Probe,
    Reserve,
    Commands,
    Stop,
}

/// A failed step, with the words for the error.
pub(super) struct Failed {
    pub(super) operation: &'static str,
    pub(super) file: String,
    pub(super) source: io::Error,
}

/// Puts words to a failed step of the disk.
pub(super) fn step<T>(
    done: io::Result<T>,
    operation: &'static str,
    file: &str,
) -> Result<T, Failed> {
    done.map_err(|source| Failed { operation, file: file.to_owned(), source })
}

impl Writer {
    fn run(&mut self) {
        loop {
            let done = match self.next_work() {
                Work::Write { sync } => self.write_all(sync),
                Work::Sync => self.sync(),
                Work::Probe => self.store_probe(),
                Work::Reserve => self.reserve_spare().map(|_| ()),
                Work::Commands => self.perform_commands(),
                Work::Stop => {
                    let done = self.write_all(true).and_then(|()| self.store_probe());
                    if let Err(failed) = done {
                        self.fail(failed);
                    } else {
                        self.close(LogError::Closed);
                    }
                    return;
                }
            };
            if let Err(failed) = done {
                self.fail(failed);
                return;
            }
        }
    }

    /// Sleeps until there is something to do.
    fn next_work(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let mut tail = shared.tail.lock();
        let mut rested = false;
        loop {
            tail.nap = Nap::Awake;
            if !shared.commands.lock().is_empty() {
                return Work::Commands;
            }
            if tail.stopping {
                return Work::Stop;
            }
            let now = Instant::now();
            let must_reserve = self.spare.is_none() && now >= self.spare_after;
            let since_sync = now.duration_since(self.last_sync);
            let unwritten = tail.written < tail.end;
            let wanted = tail.requested > tail.durable;
            let blocked = self.stuck_until.is_some_and(|until| now < until);
            if must_reserve {
                return Work::Reserve;
            }
            if unwritten && !blocked {
                self.idle_turns = 0;
                if wanted || rested || tail.unwritten_bytes >= options.drain_bytes {
                    return Work::Write { sync: wanted || since_sync >= options.sync_interval };
                }
            }
            if tail.written > tail.durable && (wanted || since_sync >= options.sync_interval) {
                return Work::Sync;
            }
            if since_sync >= options.probe_interval {
                return Work::Probe;
            }
            // At once where a test tries orders of steps, so that who must wake it is tried too.
            let is_restless = !cfg!(shuttle) && self.idle_turns < IDLE_TURNS_MAX;
            let nap = if unwritten || is_restless { Nap::Short } else { Nap::Deep };
            let sleep = self.sleep(&tail, nap, since_sync);
            tail.nap = nap;
            self.idle_turns = self.idle_turns.saturating_add(1);
            // Only a sleep that ran its full time counts as the drain interval.
            rested = shared.wake.wait_for(&mut tail, sleep).timed_out();
        }
    }

    /// How long to sleep at most.
    fn sleep(&self, tail: &Tail, nap: Nap, since_sync: Duration) -> Duration {
        let options = &self.shared.options;
        let until_probe = options.probe_interval.saturating_sub(since_sync);
        let until_sync = if tail.written > tail.durable {
            options.sync_interval.saturating_sub(since_sync)
        } else {
            until_probe
        };
        let until_spare = if self.spare.is_none() { FULL_RETRY } else { until_probe };
        let longest = until_probe.min(until_sync).min(until_spare);
        match nap {
            Nap::Deep => longest,
            Nap::Awake | Nap::Short => longest.min(options.drain_interval),
        }
    }

    /// Writes everything that was in memory when it began; with `sync`, makes it durable.
    fn write_all(&mut self, sync: bool) -> Result<(), Failed> {
        let target = self.shared.tail.lock().end;
        loop {
            let from = {
                let tail = self.shared.tail.lock();
                if tail.written >= target {
                    break;
                }
                let from = tail.written.next();
                tail.take(from, BATCH_BYTES_MAX, &mut self.taken);
                from
            };
            let taken = std::mem::take(&mut self.taken);
            let done = self.write_taken(&taken, from);
            self.taken = taken;
            self.taken.sealed.clear();
            if !done? {
                self.stuck_until = Some(Instant::now() + FULL_RETRY);
                break;
            }
            self.stuck_until = None;
        }
        if sync { self.sync() } else { Ok(()) }
    }

    /// Writes the taken records from `from` on; `false` when the volume has no room for the next
    /// segment. A batch is split where a segment ends.
    fn write_taken(&mut self, taken: &Taken, from: Lsn) -> Result<bool, Failed> {
        let mut next = from;
        for chunk in taken.sealed.iter().map(Arc::as_ref).chain(std::iter::once(&taken.copied)) {
            while next >= chunk.first_lsn && next < chunk.next_lsn() {
                self.stage_mark();
                let used = self.active.offset + self.staging.len() as u64;
                let room = self.active.capacity.saturating_sub(used);
                let until = chunk.fitting(next, usize::try_from(room).unwrap_or(usize::MAX));
                if until == next {
                    self.write_staged(next)?;
                    let first = chunk.start_of(next.next()) - chunk.start_of(next);
                    if !self.roll(next, first as u64)? {
                        return Ok(false);
                    }
                    continue;
                }
                let bytes = &chunk.bytes[chunk.start_of(next)..chunk.start_of(until)];
                self.staging.extend_from_slice(bytes);
                next = until;
            }
        }
        self.write_staged(next)?;
        Ok(true)
    }

    /// Begins a batch with its durable mark.
    fn stage_mark(&mut self) {
        if self.staging.is_empty() {
            let durable = Lsn(self.shared.durable.load(Ordering::Relaxed));
            self.active.header.encode_mark(&mut self.staging, durable, self.active.offset);
        }
    }

    /// Writes what is staged, up to but without the record at `next`, and publishes it.
    fn write_staged(&mut self, next: Lsn) -> Result<(), Failed> {
        if self.staging.len() <= MARK_BYTES {
            self.staging.clear();
            return Ok(());
        }
        let active = &mut self.active;
        let done = write_all_at(&*active.file, &self.staging, active.offset);
        step(done, "write", &active.header.file_name())?;
        let begin = active.offset;
        active.offset += self.staging.len() as u64;
        let written_bytes = (self.staging.len() - MARK_BYTES) as u64;
        self.staging.clear();
        let written = next.previous();
        let first = Lsn(self.shared.written.load(Ordering::Relaxed)).next();
        if let Some(entry) = self.shared.catalogue.write().get_mut(active.header.first_lsn) {
            entry.last_lsn = written;
            entry.used_bytes = active.offset;
            entry.learn(first, begin);
        }
        let mut tail = self.shared.tail.lock();
        tail.written = written;
        tail.unwritten_bytes -= written_bytes;
        tail.evict();
        self.shared.written.store(written.0, Ordering::Release);
        self.shared.unwritten_bytes.store(tail.unwritten_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything written durable and says so.
    pub(super) fn sync(&mut self) -> Result<(), Failed> {
        let written = Lsn(self.shared.written.load(Ordering::Relaxed));
        step(self.active.file.sync_data(), "sync", &self.active.header.file_name())?;
        self.proven();
        let mut tail = self.shared.tail.lock();
        let advanced = written > tail.durable;
        if advanced {
            tail.durable = written;
            self.shared.durable.store(written.0, Ordering::Release);
            self.shared.settled.notify_all();
        }
        drop(tail);
        if advanced {
            for listener in self.shared.on_durable.read().iter() {
                listener(written);
            }
        }
        Ok(())
    }

    fn proven(&mut self) {
        self.last_sync = Instant::now();
        self.shared.proof_nanos.store(boottime_nanos(), Ordering::Release);
    }

    /// Stores `durable_lsn` in the probe file: a real write and fsync.
    pub(super) fn store_probe(&mut self) -> Result<(), Failed> {
        let durable = self.shared.durable.load(Ordering::Relaxed);
        let stored = self.probe.store(&durable.to_le_bytes()).map_err(io::Error::other);
        step(stored, "write the probe", crate::recovery::PROBE_NAME)?;
        self.proven();
        Ok(())
    }

    /// Ends the segment and begins the next with the record at `first`; `false` without room for it.
    fn roll(&mut self, first: Lsn, record_bytes: u64) -> Result<bool, Failed> {
        if !self.reserve_spare()? {
            return Ok(false);
        }
        let hash_before = self.shared.tail.lock().hash_at(first.previous());
        let hash_before = hash_before.expect("records stay in memory until they are written");
        let header = SegmentHeader { first_lsn: first, hash_before };
        let old = self.active.header.file_name();
        step(self.active.file.truncate(self.active.offset), "trim", &old)?;
        self.sync()?;
        let disk = Arc::clone(&self.shared.disks.log);
        let Some(file) = self.spare.take() else { return Ok(false) };
        let name = header.file_name();
        let needed = HEADER_BYTES + (MARK_BYTES + OVERHEAD_BYTES_MAX) as u64 + record_bytes;
        let capacity = self.shared.options.segment_bytes.max(needed);
        if capacity > self.shared.options.segment_bytes {
            match file.allocate(capacity) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                    self.spare = Some(file);
                    self.shared.no_room.store(true, Ordering::Relaxed);
                    self.spare_after = Instant::now() + FULL_RETRY;
                    return Ok(false);
                }
                Err(e) => return step(Err(e), "reserve", &name),
            }
        }
        let file = step(name_segment(&*disk, &*file, header), "begin", &name)?;
        let mut catalogue = self.shared.catalogue.write();
        if let Some(ended) = catalogue.get_mut(self.active.header.first_lsn) {
            ended.file_bytes = self.active.offset;
        }
        catalogue.insert(SegmentEntry::new(header, capacity));
        drop(catalogue);
        self.active = ActiveSegment { header, file, offset: HEADER_BYTES, capacity };
        // A spare for the next one is made when there is time; until then there is room.
        self.spare_after = Instant::now();
        Ok(true)
    }

    /// Reserves the file of the next segment; `false` when there is no room for it.
    fn reserve_spare(&mut self) -> Result<bool, Failed> {
        if self.spare.is_some() {
            self.shared.no_room.store(false, Ordering::Relaxed);
            return Ok(true);
        }
        let options = &self.shared.options;
        let taken_bytes = self.shared.catalogue.read().total_bytes();
        let within = taken_bytes.saturating_add(options.segment_bytes) <= options.size_max_bytes;
        let disk = &self.shared.disks.log;
        let made = if within {
            make_spare(&**disk, options.segment_bytes)
        } else {
            Err(io::ErrorKind::StorageFull.into())
        };
        match made {
            Ok(file) => {
                self.spare = Some(file);
                self.shared.no_room.store(false, Ordering::Relaxed);
                Ok(true)
            }
            Err(e) if is_full(&e) => {
                if !self.shared.no_room.swap(true, Ordering::Relaxed) {
                    tracing::warn!(taken_bytes, "no room for the next log segment");
                }
                self.spare_after = Instant::now() + FULL_RETRY;
                Ok(false)
            }
            Err(e) => step(Err(e), "reserve", SPARE_NAME),
        }
    }

    fn perform_commands(&mut self) -> Result<(), Failed> {
        let commands = std::mem::take(&mut *self.shared.commands.lock());
        for command in commands {
            let Command::Cut { lsn, export, reply } = command;
            self.write_all(true)?;
            let (answer, failed) = match self.cut(lsn, export.as_deref()) {
                Ok(report) => (Ok(report), None),
                Err((error, failed)) => (Err(error), failed),
            };
            // Nobody listens any more when the caller's thread is gone.
            let _ = reply.send(answer);
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
        Ok(())
    }

    /// Leaves a marker, tells everybody, and never touches the log again.
    fn fail(&self, failed: Failed) {
        let Failed { operation, file, source } = failed;
        tracing::error!(operation, file, error = %source, "the log has failed");
        let reason = format!("failed to {operation} {file}: {source}\n");
        for disk in [&self.shared.disks.log, &self.shared.disks.data] {
            // Best effort on a disk that has just failed.
            let _ = leave_marker(&**disk, reason.as_bytes());
        }
        self.close(LogError::Disk { operation, file, source: Arc::new(source) });
    }

    fn close(&self, error: LogError) {
        let is_failure = matches!(error, LogError::Disk { .. });
        let mut failure = self.shared.failure.lock();
        failure.error = Some(error.clone());
        let listener = failure.listener.take();
        drop(failure);
        self.shared.commands.lock().clear();
        let tail = self.shared.tail.lock();
        self.shared.settled.notify_all();
        drop(tail);
        if is_failure && let Some(listener) = listener {
            listener(error);
        }
    }
}

/// Whether an error says that the volume or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn leave_marker(disk: &dyn Disk, reason: &[u8]) -> io::Result<()> {
    let file = disk.create(POISONED_NAME)?;
    write_all_at(&*file, reason, 0)?;
    file.sync_data()?;
    disk.sync_directory()
}

fn make_spare(disk: &dyn Disk, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
    let file = match disk.create(SPARE_NAME) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => disk.open(SPARE_NAME)?,
        other => other?,
    };
    match file.allocate(bytes) {
        Ok(()) => Ok(file),
        Err(e) => {
            // Half a reservation helps nobody; the next attempt begins anew.
            file.truncate(0)?;
            Err(e)
        }
    }
}

/// Gives the spare file its header and its name, both durable.
fn name_segment(
    disk: &dyn Disk,
    spare: &dyn DiskFile,
    header: SegmentHeader,
) -> io::Result<Box<dyn DiskFile>> {
    write_all_at(spare, &header.encode(), 0)?;
    spare.sync_data()?;
    let name = header.file_name();
    disk.rename(SPARE_NAME, &name)?;
    disk.sync_directory()?;
    disk.open(&name)
}

/// Makes the first segment of an empty log.
pub(crate) fn first_segment(
    disk: &dyn Disk,
    header: SegmentHeader,
    bytes: u64,
) -> io::Result<(ActiveSegment, Catalogue)> {
    let spare = make_spare(disk, bytes)?;
    let file = name_segment(disk, &*spare, header)?;
    let mut catalogue = Catalogue::default();
    catalogue.insert(SegmentEntry::new(header, bytes));
    Ok((ActiveSegment { header, file, offset: HEADER_BYTES, capacity: bytes }, catalogue))
}
