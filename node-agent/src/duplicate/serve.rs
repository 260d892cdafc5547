//! The source's side of a duplicate.

use super::{STALL_TIMEOUT, hold::Holds, name_of, pace::Pace};
use crate::peer::{
    CHUNK_BYTES_MAX, CheckpointName, DuplicateAnswer, DuplicateEnd, DuplicateRequest,
    DuplicateWaiting, FrameKind, Link, LinkError,
};
use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinError, time::timeout};
use understudy_txlog::CheckpointFile;
use understudy_types::{Dbid, EpochId, Incarnation, Lsn, MemberName, StoreId};

/// Most duplicates that are streamed at once; more members wait for their turn. Each costs disk and
/// network that the commits need.
const STREAMS_MAX: usize = 4;

/// How often a waiting receiver is told that its checkpoint is being taken.
const PREPARING_EVERY: Duration = Duration::from_secs(1);

/// Longest verification on the other side: it reads the whole file back.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(900);

/// Bytes read from the file at once.
const READ_BYTES: usize = 4 * CHUNK_BYTES_MAX;

/// What a source is at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceIdentity {
    /// The database; `None` when there is none to duplicate.
    pub dbid: Option<Dbid>,
    /// Its directory.
    pub store: StoreId,
    /// Its process.
    pub incarnation: Incarnation,
    /// The epoch that it serves or follows.
    pub epoch: EpochId,
}

/// What a member must offer to be a source. [`Source::checkpoint`] and [`Source::take_checkpoint`] are
/// called from blocking threads, the others must be quick.
pub trait Source: Send + Sync + 'static {
    /// Who it is. When the epoch changes, running streams end (A2.16).
    fn identity(&self) -> SourceIdentity;

    /// A verified checkpoint of this store: the newest, or the one at an LSN if it is still there.
    /// May block while a file is verified.
    fn checkpoint(&self, at: Option<Lsn>) -> Option<CheckpointFile>;

    /// Takes a new checkpoint now, at an LSN ≤ `acknowledged_lsn`. May block for minutes.
    ///
    /// # Errors
    /// Why not, in words.
    fn take_checkpoint(&self) -> Result<CheckpointFile, String>;

    /// First record that the log still holds.
    fn first_lsn(&self) -> Lsn;
}

/// A duplicate that reached its receiver and was verified there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// The file.
    pub checkpoint: CheckpointName,
    /// Bytes sent by this stream.
    pub sent_bytes: u64,
}

/// Why a stream ended without a duplicate.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The request was refused; the receiver was told why.
    #[error("refused {member} a duplicate: {reason}")]
    Refused {
        /// Who asked.
        member: MemberName,
        /// Why.
        reason: String,
    },
    /// The link failed.
    #[error("the stream of a duplicate broke")]
    Link(#[source] LinkError),
    /// The receiver does not move.
    #[error("{member} made no progress for {} s", limit.as_secs())]
    Stalled {
        /// The receiver.
        member: MemberName,
        /// How long it may stand still.
        limit: Duration,
    },
    /// The file could not be read.
    #[error("failed to read the checkpoint at {lsn}")]
    Read {
        /// Which.
        lsn: Lsn,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This member's epoch changed meanwhile.
    #[error("the epoch changed during the stream")]
    EpochChanged,
    /// A task of this process died.
    #[error("a blocking step panicked")]
    Task(#[source] JoinError),
    /// The receiver answered with something else than the end.
    #[error("{member} did not confirm the duplicate")]
    Unconfirmed {
        /// The receiver.
        member: MemberName,
    },
}

/// Streams duplicates of this member's store, and holds the log for those who build them.
pub struct Duplicates {
    source: Arc<dyn Source>,
    holds: Arc<Holds>,
    streams: Semaphore,
    bytes_per_second: Option<u64>,
}

impl Duplicates {
    /// Duplicates of `source`, each at most this fast; `None` is as fast as it goes.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, bytes_per_second: Option<u64>) -> Self {
        let streams = Semaphore::new(STREAMS_MAX);
        Self { source, holds: Arc::default(), streams, bytes_per_second }
    }

    /// Members that build a duplicate, and the LSN above which each needs the log.
    #[must_use]
    pub fn holds(&self) -> Vec<(MemberName, Lsn)> {
        self.holds.all(Instant::now())
    }

    /// A member attached: its link holds the log from now on.
    pub fn attached(&self, member: &MemberName) {
        self.holds.release(member);
    }

    /// Serves one request to its end.
    ///
    /// # Errors
    /// When the receiver did not get, or did not confirm, a whole duplicate. The log is still held
    /// for it for a while, so that it can come back.
    pub async fn serve(&self, waiting: DuplicateWaiting) -> Result<Served, ServeError> {
        let DuplicateWaiting { identity: member, request, mut link } = waiting;
        let served = self.serve_request(&member, &request, &mut link).await;
        if let Err(ServeError::Refused { reason, .. }) = &served {
            let refused = DuplicateAnswer::Refused { reason: reason.clone() };
            link.writer.queue_frame(FrameKind::DuplicateAnswer, &refused);
            // Told as far as possible; the refusal itself is the result.
            let _ = flush(&mut link, &member).await;
        }
        self.holds.linger(&member, Instant::now());
        link.writer.close();
        served
    }

    async fn serve_request(
        &self,
        member: &MemberName,
        request: &DuplicateRequest,
        link: &mut Link,
    ) -> Result<Served, ServeError> {
        let refuse = |reason: String| ServeError::Refused { member: member.clone(), reason };
        let own = self.source.identity();
        let Some(dbid) = own.dbid else {
            return Err(refuse("this member has no database yet".to_owned()));
        };
        if let Some(theirs) = request.dbid.filter(|theirs| *theirs != dbid) {
            let reason =
                format!("this member's database is {dbid}, {member} belongs to database {theirs}");
            return Err(refuse(reason));
        }
        let Ok(_permit) = self.streams.try_acquire() else {
            return Err(refuse(format!("{STREAMS_MAX} duplicates are being streamed already")));
        };
        let (file, from_bytes) = self.choose(member, request, own.store, link).await?;
        let checkpoint = name_of(&file, own.store);
        tracing::info!(%member, lsn = %checkpoint.lsn, bytes = checkpoint.bytes, from_bytes, "streaming a duplicate");
        let answer = DuplicateAnswer::Stream {
            source: own.incarnation,
            epoch: own.epoch,
            checkpoint,
            from_bytes,
        };
        link.writer.queue_frame(FrameKind::DuplicateAnswer, &answer);
        flush(link, member).await?;
        let sent_bytes = self.stream(&file, from_bytes, link, own.epoch).await?;
        confirm(link, member, checkpoint).await?;
        Ok(Served { checkpoint, sent_bytes })
    }

    /// The file to send and its first byte to send. The receiver is told that it must wait while a
    /// file is verified or taken.
    async fn choose(
        &self,
        member: &MemberName,
        request: &DuplicateRequest,
        store: StoreId,
        link: &mut Link,
    ) -> Result<(CheckpointFile, u64), ServeError> {
        let choice = Choice {
            source: Arc::clone(&self.source),
            holds: Arc::clone(&self.holds),
            member: member.clone(),
            store,
            resume: request.resume,
        };
        let mut choosing = tokio::task::spawn_blocking(move || choice.make());
        loop {
            match timeout(PREPARING_EVERY, &mut choosing).await {
                Ok(chosen) => {
                    let refuse = |reason| ServeError::Refused { member: member.clone(), reason };
                    return chosen.map_err(ServeError::Task)?.map_err(refuse);
                }
                Err(_) => {
                    link.writer
                        .queue_frame(FrameKind::DuplicateAnswer, &DuplicateAnswer::Preparing);
                    flush(link, member).await?;
                }
            }
        }
    }

    /// Sends the file from `from_bytes` on; returns how many bytes that were.
    async fn stream(
        &self,
        file: &CheckpointFile,
        from_bytes: u64,
        link: &mut Link,
        epoch: EpochId,
    ) -> Result<u64, ServeError> {
        let (lsn, member) = (file.meta().lsn, link.peer().clone());
        let failed = |source| ServeError::Read { lsn, source };
        let mut reader = file.open_raw(from_bytes).map_err(failed)?;
        let mut pace = Pace::new(self.bytes_per_second);
        let begun = Instant::now();
        let (mut left, mut buf) = (file.raw_len() - from_bytes, Vec::new());
        while left > 0 {
            let step = tokio::task::spawn_blocking(move || {
                buf.clear();
                let read = (&mut reader).take(READ_BYTES as u64).read_to_end(&mut buf);
                (read, reader, buf)
            });
            let read;
            (read, reader, buf) = step.await.map_err(ServeError::Task)?;
            if read.map_err(failed)? == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            left = left.saturating_sub(buf.len() as u64);
            for chunk in buf.chunks(CHUNK_BYTES_MAX) {
                link.writer.queue_raw_frame(FrameKind::DuplicateChunk, chunk);
            }
            flush(link, &member).await?;
            if self.source.identity().epoch != epoch {
                return Err(ServeError::EpochChanged);
            }
            let ahead = pace.after(buf.len() as u64, begun.elapsed());
            if !ahead.is_zero() {
                tokio::time::sleep(ahead).await;
            }
        }
        Ok(file.raw_len() - from_bytes)
    }
}

/// Which file a receiver gets; made on a blocking thread.
struct Choice {
    source: Arc<dyn Source>,
    holds: Arc<Holds>,
    member: MemberName,
    store: StoreId,
    resume: Option<(CheckpointName, u64)>,
}

impl Choice {
    fn make(&self) -> Result<(CheckpointFile, u64), String> {
        if let Some(found) = self.resumable() {
            return Ok(found);
        }
        if let Some(file) = self.source.checkpoint(None).filter(|file| self.hold(file)) {
            return Ok((file, 0));
        }
        // Whatever the new checkpoint's LSN will be, the log is kept from here on.
        self.holds.hold(&self.member, self.source.first_lsn().previous());
        let file = self.source.take_checkpoint()?;
        if self.hold(&file) {
            return Ok((file, 0));
        }
        Err("the log does not reach back to the newest checkpoint".to_owned())
    }

    /// The file whose beginning the receiver has, if it is still the same and the log reaches it.
    fn resumable(&self) -> Option<(CheckpointFile, u64)> {
        let (name, bytes) = self.resume?;
        let file = self.source.checkpoint(Some(name.lsn))?;
        let same = name_of(&file, self.store) == name && bytes <= name.bytes;
        (same && self.hold(&file)).then_some((file, bytes))
    }

    /// Holds the log above a checkpoint; whether it is all there. First the hold, then the look, so
    /// that no reclaim falls between them.
    fn hold(&self, file: &CheckpointFile) -> bool {
        let lsn = file.meta().lsn;
        self.holds.hold(&self.member, lsn);
        self.source.first_lsn() <= lsn.next()
    }
}

/// Says that all was sent and waits until it is verified there.
async fn confirm(
    link: &mut Link,
    member: &MemberName,
    checkpoint: CheckpointName,
) -> Result<(), ServeError> {
    let end = DuplicateEnd { checkpoint };
    link.writer.queue_frame(FrameKind::DuplicateEnd, &end);
    flush(link, member).await?;
    let stalled = |_| ServeError::Stalled { member: member.clone(), limit: VERIFY_TIMEOUT };
    let (kind, body) = timeout(VERIFY_TIMEOUT, link.reader.frame())
        .await
        .map_err(stalled)?
        .map_err(ServeError::Link)?;
    match link.reader.expect_frame::<DuplicateEnd>(FrameKind::DuplicateEnd, kind, &body) {
        Ok(theirs) if theirs == end => Ok(()),
        Ok(_) => Err(ServeError::Unconfirmed { member: member.clone() }),
        Err(error) => Err(ServeError::Link(error)),
    }
}

/// Sends what is queued; a receiver that takes nothing for too long is given up.
async fn flush(link: &mut Link, member: &MemberName) -> Result<(), ServeError> {
    match timeout(STALL_TIMEOUT, link.writer.flush()).await {
        Ok(flushed) => flushed.map_err(ServeError::Link),
        Err(_) => Err(ServeError::Stalled { member: member.clone(), limit: STALL_TIMEOUT }),
    }
}
