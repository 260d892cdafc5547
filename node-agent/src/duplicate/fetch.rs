//! The receiver's side of a duplicate: one attempt, which goes on where the last one broke off.

use super::STALL_TIMEOUT;
use crate::{
    datadir::{Adoption, ControlFile, DataDir, DataDirError, NewStore},
    peer::{
        ANSWER_TIMEOUT, CheckpointName, DUPLICATE_VERSION, DialedDuplicate, DuplicateAnswer,
        DuplicateEnd, DuplicateRequest, FrameKind, Link, LinkError, LinkTls, PeerError, Target,
        dial_duplicate,
    },
};
use bytes::Bytes;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::timeout,
};
use understudy_replication::{Follower, FollowerKind};
use understudy_txlog::{CheckpointSink, SlotError, SlotFile, checkpoint::SinkError, disk::Disk};
use understudy_types::{Dbid, EpochId, Incarnation, MemberName, StoreId};
use uuid::Uuid;

/// Note in a half-built store: which file it is receiving.
const NOTE: &str = "source";

/// Longest note in bytes.
const NOTE_BYTES_MAX: usize = 1000;

/// Chunks that wait for the disk: 4 MiB.
const CHUNKS_AHEAD: usize = 16;

/// What a member must offer to receive a duplicate.
pub trait Receiver: Send + Sync {
    /// Its certificates.
    fn tls(&self) -> &dyn LinkTls;

    /// Its volumes.
    fn data_dir(&self) -> Arc<DataDir>;

    /// The control file of the store in use.
    fn control(&self) -> ControlFile;

    /// Its process.
    fn incarnation(&self) -> Incarnation;

    /// As what it will attach.
    fn kind(&self) -> FollowerKind;

    /// Called after every piece; cheap.
    fn transferred(&self, progress: Transferred);
}

/// How far a duplicate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes that are here.
    pub received_bytes: u64,
    /// Bytes of the whole file.
    pub total_bytes: u64,
}

/// A duplicate that is now the member's store. The process that runs on the old one must end, and its
/// successor recovers the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// The new store.
    pub store: StoreId,
    /// What is in it.
    pub checkpoint: CheckpointName,
    /// The process that it came from.
    pub source: Incarnation,
    /// Bytes that an earlier attempt had brought.
    pub resumed_from_bytes: u64,
}

/// Why there is no duplicate. The store in use is as it was, and what has come is kept: the next
/// attempt goes on there if the source still has the file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The volumes failed.
    #[error("the new store cannot be built")]
    Volume(#[from] DataDirError),
    /// What the last attempt left cannot be read or written.
    #[error("the note of the new store cannot be used")]
    Note(#[from] SlotError),
    /// No connection.
    #[error("no connection to {member}")]
    Peer {
        /// The source.
        member: MemberName,
        /// Why.
        #[source]
        source: PeerError,
    },
    /// The stream broke.
    #[error("the stream of the duplicate broke")]
    Link(#[from] LinkError),
    /// The source does not want to.
    #[error("{member} gives no duplicate: {reason}")]
    Refused {
        /// The source.
        member: MemberName,
        /// Why.
        reason: String,
    },
    /// The source's database is another one.
    #[error("{member} offers database {theirs}, this member belongs to {ours}")]
    OtherDatabase {
        /// The source.
        member: MemberName,
        /// This member's.
        ours: Dbid,
        /// The source's.
        theirs: Dbid,
    },
    /// The source sends something else than was asked for or announced.
    #[error("{member} breaks the rules of a duplicate: {what}")]
    Protocol {
        /// The source.
        member: MemberName,
        /// What is wrong.
        what: &'static str,
    },
    /// The source is silent.
    #[error("{member} sent nothing for {} s", limit.as_secs())]
    Stalled {
        /// The source.
        member: MemberName,
        /// How long it may be silent.
        limit: Duration,
    },
    /// The received file is not good, or the disk failed.
    #[error("the received checkpoint was not taken")]
    Sink(#[from] SinkError),
    /// A task of this process died.
    #[error("a blocking step panicked")]
    Task(#[from] JoinError),
}

/// A new store while it is received.
struct Building {
    new: NewStore,
    note: SlotFile,
    /// The file that `sink` has the beginning of; `None` when it has nothing.
    name: Option<CheckpointName>,
    sink: CheckpointSink,
}

/// Receives a duplicate from `target` and makes it the member's store.
///
/// # Errors
/// When that did not succeed this time; see [`FetchError`].
pub async fn fetch(receiver: &dyn Receiver, target: &Target) -> Result<Fetched, FetchError> {
    let (directory, control) = (receiver.data_dir(), receiver.control());
    let fresh = StoreId(Uuid::new_v4());
    let building = spawn_blocking(move || Building::open(&directory, fresh)).await??;
    let state = control.get();
    let request = DuplicateRequest {
        version: DUPLICATE_VERSION,
        follower: Follower {
            member: state.member,
            store: state.store,
            incarnation: receiver.incarnation(),
        },
        kind: receiver.kind(),
        dbid: state.dbid,
        resume: building.name.map(|name| (name, building.sink.offset())),
    };
    let (mut link, stream) = ask(receiver, target, &request).await?;
    let building = building.agree(&stream, &request, &target.member).await?;
    let (new, sink) = receive(receiver, building, &mut link, &stream).await?;
    let Stream { source, epoch, checkpoint, from_bytes } = stream;
    let adopted = spawn_blocking(move || {
        verify(&new, sink, &checkpoint)?;
        let adoption = Adoption { dbid: checkpoint.dbid, epoch };
        new.adopt(&control, adoption).map_err(FetchError::from)
    });
    let store = adopted.await??.store;
    tracing::info!(%store, lsn = %checkpoint.lsn, from = %target.member, "the duplicate is complete");
    // The store is complete whether the source hears of it or not.
    link.writer.queue_frame(FrameKind::DuplicateEnd, &DuplicateEnd { checkpoint });
    let _ = timeout(ANSWER_TIMEOUT, link.writer.flush()).await;
    link.writer.close();
    Ok(Fetched { store, checkpoint, source, resumed_from_bytes: from_bytes })
}

/// What the source announced.
#[derive(Debug, Clone, Copy)]
struct Stream {
    source: Incarnation,
    epoch: EpochId,
    checkpoint: CheckpointName,
    from_bytes: u64,
}

/// Asks the source and waits while it takes a checkpoint.
async fn ask(
    receiver: &dyn Receiver,
    target: &Target,
    request: &DuplicateRequest,
) -> Result<(Link, Stream), FetchError> {
    let member = &target.member;
    let dialed = dial_duplicate(target, receiver.tls(), request).await;
    let DialedDuplicate { mut answer, mut link } =
        dialed.map_err(|source| FetchError::Peer { member: member.clone(), source })?;
    loop {
        match answer {
            DuplicateAnswer::Preparing => {
                let limit = ANSWER_TIMEOUT;
                let (kind, body) = timeout(limit, link.reader.frame())
                    .await
                    .map_err(|_| FetchError::Stalled { member: member.clone(), limit })??;
                answer = link.reader.expect_frame(FrameKind::DuplicateAnswer, kind, &body)?;
            }
            DuplicateAnswer::Refused { reason } => {
                return Err(FetchError::Refused { member: member.clone(), reason });
            }
            DuplicateAnswer::Stream { source, epoch, checkpoint, from_bytes } => {
                return Ok((link, Stream { source, epoch, checkpoint, from_bytes }));
            }
        }
    }
}

impl Building {
    /// Begins, or finds what an earlier attempt left.
    fn open(directory: &DataDir, fresh: StoreId) -> Result<Self, FetchError> {
        let new = directory.prepare(fresh)?;
        let note = SlotFile::open(new.notes(), NOTE, NOTE_BYTES_MAX)?;
        let sink = CheckpointSink::resume(&new.disks().data)?;
        let name = note
            .load()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .filter(|_| sink.offset() > 0);
        Ok(Self { new, note, name, sink })
    }

    /// Checks the announced stream against what was asked for, and begins anew if it does.
    async fn agree(
        self,
        stream: &Stream,
        request: &DuplicateRequest,
        member: &MemberName,
    ) -> Result<Self, FetchError> {
        let Stream { checkpoint, from_bytes, .. } = *stream;
        if let Some(ours) = request.dbid.filter(|ours| *ours != checkpoint.dbid) {
            let theirs = checkpoint.dbid;
            return Err(FetchError::OtherDatabase { member: member.clone(), ours, theirs });
        }
        if from_bytes == 0 {
            return spawn_blocking(move || self.begin_anew(checkpoint)).await?;
        }
        if request.resume == Some((checkpoint, from_bytes)) {
            return Ok(self);
        }
        let what = "it goes on in a file, or at a place, that was not asked for";
        Err(FetchError::Protocol { member: member.clone(), what })
    }

    fn begin_anew(self, checkpoint: CheckpointName) -> Result<Self, FetchError> {
        let Self { new, mut note, sink, .. } = self;
        drop(sink);
        clear(&*new.disks().data)?;
        let encoded = postcard::to_stdvec(&checkpoint).expect("plain data always encodes");
        note.store(&encoded)?;
        let sink = CheckpointSink::begin(&new.disks().data)?;
        Ok(Self { new, note, name: Some(checkpoint), sink })
    }
}

/// Removes everything of an earlier attempt: a checkpoint of another history must not stay beside
/// the one that is coming, for recovery takes the newest.
fn clear(disk: &dyn Disk) -> Result<(), SinkError> {
    let clear = || {
        for file in disk.list()? {
            disk.remove(&file.name)?;
        }
        disk.sync_directory()
    };
    clear().map_err(|source| SinkError::Disk { operation: "clear the place of", source })
}

/// Takes the stream into the sink; the disk works in its own thread.
async fn receive(
    receiver: &dyn Receiver,
    building: Building,
    link: &mut Link,
    stream: &Stream,
) -> Result<(NewStore, CheckpointSink), FetchError> {
    let Building { new, sink, .. } = building;
    let (chunks, queued) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
    let writer = spawn_blocking(move || write(sink, queued));
    let ended = take_chunks(receiver, chunks, link, stream).await;
    // In any case the writer ends first: the next attempt needs the directory.
    let sink = finish_writing(writer).await;
    match (ended, sink) {
        // The disk's error explains why the chunks were no longer taken.
        (_, Err(error)) => Err(error),
        (Err(error), Ok(_)) => Err(error),
        (Ok(()), Ok(sink)) => Ok((new, sink)),
    }
}

fn write(
    mut sink: CheckpointSink,
    mut queued: mpsc::Receiver<Bytes>,
) -> Result<CheckpointSink, SinkError> {
    while let Some(chunk) = queued.blocking_recv() {
        sink.write(&chunk)?;
    }
    Ok(sink)
}

async fn finish_writing(
    writer: JoinHandle<Result<CheckpointSink, SinkError>>,
) -> Result<CheckpointSink, FetchError> {
    Ok(writer.await??)
}

/// Reads chunks until the source says that all was sent.
async fn take_chunks(
    receiver: &dyn Receiver,
    chunks: mpsc::Sender<Bytes>,
    link: &mut Link,
    stream: &Stream,
) -> Result<(), FetchError> {
    let member = link.peer().clone();
    let breach = |what| FetchError::Protocol { member: member.clone(), what };
    let total_bytes = stream.checkpoint.bytes;
    let mut received_bytes = stream.from_bytes;
    loop {
        receiver.transferred(Transferred { received_bytes, total_bytes });
        let limit = STALL_TIMEOUT;
        let (kind, body) = timeout(limit, link.reader.frame())
            .await
            .map_err(|_| FetchError::Stalled { member: member.clone(), limit })??;
        if kind == FrameKind::DuplicateChunk {
            received_bytes += body.len() as u64;
            if received_bytes > total_bytes {
                return Err(breach("it sends more than it announced"));
            }
            if chunks.send(body).await.is_err() {
                // The writer has failed and says why itself.
                return Err(breach("the disk took no more"));
            }
            continue;
        }
        let end: DuplicateEnd = link.reader.expect_frame(FrameKind::DuplicateEnd, kind, &body)?;
        if end.checkpoint != stream.checkpoint || received_bytes != total_bytes {
            return Err(breach("it ends before the file does"));
        }
        return Ok(());
    }
}

/// Makes the file durable, reads it back, and compares it with what was announced.
fn verify(
    new: &NewStore,
    sink: CheckpointSink,
    announced: &CheckpointName,
) -> Result<(), SinkError> {
    let disk = new.disks().data;
    let finished = sink.finish().and_then(|file| {
        if super::name_of(&file, announced.store) == *announced {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::InvalidData, "it is not the announced one");
        Err(SinkError::Disk { operation: "recognise", source })
    });
    if finished.is_err() {
        // To go on with it would only fail again.
        clear(&*disk)?;
    }
    finished
}
