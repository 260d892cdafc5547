//! The log of one member: one appender, one writer thread, any number of readers.
//!
//! ```text
//!  commit section ── Appender::append ──► tail (memory) ──► writer thread ──► segment files
//!                                           │                    └─ fdatasync ─► durable_lsn, on_durable
//!  sender, catch-up ── Log::read_from ◄─────┴────────── segment files
//! ```
//! A commit is one `append` (memory only) and, if it waits for this disk, one `request_durable`. While
//! one fsync runs, later commits gather and share the next one: group commit without a timer.
//!
//! **Invariants.** 1. `durable_lsn ≤ written_lsn ≤ end`. 2. `durable_lsn` covers only records whose
//! fsync has returned in this process (A2.15). 3. The first failed write or fsync ends the writer for
//! good, after a best-effort marker; nothing is retried. 4. A record is in memory until it is in a file.
//!
//! Deliberately absent: acknowledgement, visibility, who may append (the callers' laws).

mod appender;
mod catalogue;
mod cut;
mod export;
mod reader;
mod tail;
mod writer;

pub use appender::{AppendError, Appender};
pub use cut::{CutError, CutReport};
pub use export::{Export, ExportError};
pub use reader::ReadError;

pub(crate) use appender::Continuation;
pub(crate) use catalogue::{Catalogue, SegmentEntry};
pub(crate) use cut::EXPORT_PARTIAL_NAME;
pub(crate) use writer::{ActiveSegment, Start, first_segment, is_full};

use crate::{
    options::{BACKLOGS_MAX, Disks, LogOptions},
    reclaim::{CheckpointHold, ReclaimError, ReclaimReport},
    sync::{AtomicBool, AtomicU64, Condvar, Mutex, RwLock, mpsc, thread},
};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tail::{Nap, Tail};
use understudy_types::{EpochHistory, Lsn, Position, RunningHash};

/// How often to look whether a volume has become full, while something is waited for.
const FULL_LOOK: Duration = Duration::from_millis(50);

/// The first failed write or fsync of the log. The process must end: what the disk holds is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The disk refused or failed.
    #[error("failed to {operation} {file}")]
    Disk {
        /// What was attempted.
        operation: &'static str,
        /// File of the log's directory.
        file: String,
        /// Answer of the system.
        #[source]
        source: Arc<io::Error>,
    },
    /// The last handle has gone, or the writer has ended after an earlier failure.
    #[error("the log is closed")]
    Closed,
}

/// How much room the log has and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segments, preallocated space included.
    pub segment_bytes: u64,
    /// Most bytes that segments may take together.
    pub size_max_bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// Appended bytes that are in memory only.
    pub unwritten_bytes: u64,
    /// First record that can still be read.
    pub first_lsn: Lsn,
}

type DurableListener = Box<dyn Fn(Lsn) + Send + Sync>;
type FailureListener = Box<dyn FnOnce(LogError) + Send>;

/// What came of a failure, and who wants to know.
#[derive(Default)]
struct Failure {
    error: Option<LogError>,
    listener: Option<FailureListener>,
}

/// Work that runs on the writer thread because it owns the files.
enum Command {
    /// See [`Log::cut_above`].
    Cut { lsn: Lsn, export: Option<String>, reply: mpsc::Sender<Result<CutReport, CutError>> },
}

/// What handles and the writer share.
struct Shared {
    disks: Disks,
    options: LogOptions,
    tail: Mutex<Tail>,
    /// Wakes the writer; used with `tail`.
    wake: Condvar,
    /// Wakes those who wait for the writer; used with `tail`.
    settled: Condvar,
    commands: Mutex<Vec<Command>>,
    catalogue: RwLock<Catalogue>,
    end: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    unwritten_bytes: AtomicU64,
    /// Whether the next segment cannot be reserved.
    no_room: AtomicBool,
    /// CLOCK_BOOTTIME in nanoseconds when the disk last finished a sync.
    proof_nanos: AtomicU64,
    on_durable: RwLock<Vec<DurableListener>>,
    failure: Mutex<Failure>,
    appender_taken: AtomicBool,
}

/// CLOCK_BOOTTIME: unlike `Instant`, it goes on while the machine is suspended.
fn boottime_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Shared {
    /// Wakes the writer unless it is at work or will look in time.
    fn nudge(&self, tail: &mut Tail) {
        if tail.nap != Nap::Awake {
            tail.nap = Nap::Awake;
            self.wake.notify_one();
        }
    }

    fn failed(&self) -> Option<LogError> {
        self.failure.lock().error.clone()
    }
}

/// Ends the writer when the last handle goes.
struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut tail = self.shared.tail.lock();
        tail.stopping = true;
        self.shared.nudge(&mut tail);
        drop(tail);
        let Some(writer) = self.writer.lock().take() else { return };
        // The failure listener may hold the last handle; a thread cannot wait for itself.
        if writer.thread().id() != thread::current().id() && writer.join().is_err() {
            tracing::error!("the log writer panicked");
        }
    }
}

/// A handle on the log; clones share it. When the last handle and the appender have gone, the writer
/// makes everything durable and ends.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("end", &self.end())
            .field("written", &self.written_lsn())
            .field("durable", &self.durable_lsn())
            .finish_non_exhaustive()
    }
}

/// Where a recovered log ends.
pub(crate) struct LogEnd {
    pub(crate) lsn: Lsn,
    pub(crate) hash: RunningHash,
    pub(crate) history: EpochHistory,
}

impl Log {
    /// Starts the writer on a recovered directory.
    pub(crate) fn start(
        disks: Disks,
        options: LogOptions,
        end: LogEnd,
        catalogue: Catalogue,
        start: Start,
    ) -> io::Result<Log> {
        let lsn = end.lsn.0;
        let tail = Tail::new(end.lsn, end.hash, end.history, options.memory_tail_bytes);
        let shared = Arc::new(Shared {
            disks,
            options,
            tail: Mutex::new(tail),
            wake: Condvar::new(),
            settled: Condvar::new(),
            commands: Mutex::default(),
            catalogue: RwLock::new(catalogue),
            end: AtomicU64::new(lsn),
            written: AtomicU64::new(lsn),
            durable: AtomicU64::new(lsn),
            unwritten_bytes: AtomicU64::new(0),
            no_room: AtomicBool::new(false),
            proof_nanos: AtomicU64::new(boottime_nanos()),
            on_durable: RwLock::default(),
            failure: Mutex::default(),
            appender_taken: AtomicBool::new(false),
        });
        let writer = writer::spawn(Arc::clone(&shared), start)?;
        let owner = Owner { shared: Arc::clone(&shared), writer: Mutex::new(Some(writer)) };
        Ok(Log { shared, owner: Arc::new(owner) })
    }

    /// Hands out the one appender.
    ///
    /// # Panics
    /// When it is already out: two appenders would write two histories.
    #[must_use]
    pub fn appender(&self) -> Appender {
        let taken = self.shared.appender_taken.swap(true, Ordering::AcqRel);
        assert!(!taken, "the log has one appender and it is in use");
        Appender::new(self)
    }

    /// LSN of the last appended record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.shared.end.load(Ordering::Acquire))
    }

    /// Epoch and LSN of the last appended record.
    #[must_use]
    pub fn position(&self) -> Position {
        let tail = self.shared.tail.lock();
        Position { epoch: tail.history.last_epoch(), lsn: tail.end }
    }

    /// Which epoch begins where, up to the last appended record.
    #[must_use]
    pub fn history(&self) -> EpochHistory {
        self.shared.tail.lock().history.clone()
    }

    /// LSN of the last record that has been handed to the operating system.
    #[must_use]
    pub fn written_lsn(&self) -> Lsn {
        Lsn(self.shared.written.load(Ordering::Acquire))
    }

    /// LSN of the last record that survives a power cut.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// First record that can still be read; the one after the end when there is none.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.shared.catalogue.read().first_lsn()
    }

    /// Says that somebody waits until `lsn` is durable. Returns at once; the listeners of
    /// [`Log::on_durable`] hear of it.
    pub fn request_durable(&self, lsn: Lsn) {
        if self.durable_lsn() >= lsn {
            return;
        }
        let mut tail = self.shared.tail.lock();
        if lsn > tail.requested {
            tail.requested = lsn;
            self.shared.nudge(&mut tail);
        }
    }

    /// Waits until everything appended so far, and not cut off meanwhile, is durable. Not to be called from a
    /// listener.
    ///
    /// # Errors
    /// When the writer has failed or ended. While the volume is full it waits for room.
    pub fn sync_all(&self) -> Result<Lsn, LogError> {
        let mut tail = self.shared.tail.lock();
        let target = tail.end;
        tail.requested = tail.requested.max(target);
        self.shared.nudge(&mut tail);
        loop {
            if tail.durable >= target.min(tail.end) {
                return Ok(tail.durable);
            }
            if let Some(error) = self.shared.failed() {
                return Err(error);
            }
            self.shared.settled.wait(&mut tail);
        }
    }

    /// Waits until the record at `lsn` is durable, or until the volume has no room for it: `false`. Not to
    /// be called from a listener.
    ///
    /// # Errors
    /// When the writer has failed or ended.
    pub fn sync_to(&self, lsn: Lsn) -> Result<bool, LogError> {
        let mut tail = self.shared.tail.lock();
        tail.requested = tail.requested.max(lsn.min(tail.end));
        self.shared.nudge(&mut tail);
        loop {
            if tail.durable >= lsn.min(tail.end) {
                return Ok(true);
            }
            if let Some(error) = self.shared.failed() {
                return Err(error);
            }
            if self.shared.no_room.load(Ordering::Relaxed) && tail.written < lsn {
                return Ok(false);
            }
            // Nobody tells of a volume that has become full.
            self.shared.settled.wait_for(&mut tail, FULL_LOOK);
        }
    }

    /// Adds a listener that the writer thread calls after each advance of `durable_lsn`. It must be
    /// quick, must not wait for the log, and must not own a handle on it, which would never end.
    pub fn on_durable(&self, listener: Box<dyn Fn(Lsn) + Send + Sync>) {
        self.shared.on_durable.write().push(listener);
    }

    /// Sets the listener for the first failed write or fsync; it ends the process. A failure that has
    /// already happened is told at once.
    pub fn on_failure(&self, listener: Box<dyn FnOnce(LogError) + Send>) {
        let mut failure = self.shared.failure.lock();
        match failure.error.clone() {
            None => failure.listener = Some(listener),
            Some(error) => {
                drop(failure);
                listener(error);
            }
        }
    }

    /// Time since the disk last finished a write and fsync, a real one or a probe (A1.10).
    #[must_use]
    pub fn probe_age(&self) -> Duration {
        let proof = self.shared.proof_nanos.load(Ordering::Acquire);
        Duration::from_nanos(boottime_nanos().saturating_sub(proof))
    }

    /// Whether new transactions must be refused: the next segment cannot be reserved, or far too much
    /// waits in memory. What is already under way still fits. Ends by itself.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.no_room.load(Ordering::Relaxed) || self.has_backlogs(BACKLOGS_MAX)
    }

    /// Whether new transactions should wait for the writer, after a large one. Never while the volume has
    /// no room, for nobody knows how long that takes. Ends by itself.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.has_backlogs(1) && !self.shared.no_room.load(Ordering::Relaxed)
    }

    fn has_backlogs(&self, count: u64) -> bool {
        self.shared.unwritten_bytes.load(Ordering::Relaxed)
            > self.shared.options.backlog_max_bytes.saturating_mul(count)
    }

    /// How much the log takes now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let catalogue = self.shared.catalogue.read();
        Usage {
            segment_bytes: catalogue.total_bytes(),
            size_max_bytes: self.shared.options.size_max_bytes,
            segments: catalogue.len(),
            unwritten_bytes: self.shared.unwritten_bytes.load(Ordering::Relaxed),
            first_lsn: catalogue.first_lsn(),
        }
    }

    /// Removes whole segments whose records all lie below `hold_lsn`, the oldest record that anybody
    /// needs. What the kept checkpoints need stays in any case.
    ///
    /// # Errors
    /// When a file cannot be removed or the directory cannot be read; nothing is lost by it.
    pub fn reclaim_below(&self, hold_lsn: Lsn) -> Result<ReclaimReport, ReclaimError> {
        let shared = &self.shared;
        let report = crate::reclaim::reclaim(&shared.disks, &shared.catalogue, hold_lsn)?;
        if shared.no_room.load(Ordering::Relaxed) {
            shared.nudge(&mut shared.tail.lock());
        }
        Ok(report)
    }

    /// What the kept checkpoints need of the log, newest first; none: recovery needs every record.
    ///
    /// # Errors
    /// When the data directory cannot be read.
    pub fn checkpoint_holds(&self) -> Result<Vec<CheckpointHold>, ReclaimError> {
        crate::reclaim::checkpoint_holds(&self.shared.disks)
    }

    /// Cuts every record above `lsn` off, after writing them to the file `export` of the data
    /// directory and reading that back (law 7). `None` exports nothing and is for records that are
    /// known to exist elsewhere. Checkpoints above `lsn` go too. Not to be called from a listener.
    ///
    /// # Errors
    /// While the appender is out; when the log does not reach back to `lsn`; when the records above a
    /// checkpoint could not be replayed without it; when a file fails.
    pub fn cut_above(&self, lsn: Lsn, export: Option<&str>) -> Result<CutReport, CutError> {
        let taken = self.shared.appender_taken.swap(true, Ordering::AcqRel);
        if taken {
            return Err(CutError::AppenderInUse);
        }
        let done = self.cut_exclusively(lsn, export);
        self.shared.appender_taken.store(false, Ordering::Release);
        done
    }

    fn cut_exclusively(&self, lsn: Lsn, export: Option<&str>) -> Result<CutReport, CutError> {
        let (reply, answer) = mpsc::channel();
        let export = export.map(str::to_owned);
        self.shared.commands.lock().push(Command::Cut { lsn, export, reply });
        let mut tail = self.shared.tail.lock();
        self.shared.nudge(&mut tail);
        drop(tail);
        // A writer that ended before the push will never look; one that ends later drops the command.
        if self.shared.failed().is_some() {
            self.shared.commands.lock().clear();
        }
        match answer.recv() {
            Ok(done) => done,
            // The writer ended and dropped the command.
            Err(mpsc::RecvError) => {
                Err(CutError::Log(self.shared.failed().unwrap_or(LogError::Closed)))
            }
        }
    }
}
