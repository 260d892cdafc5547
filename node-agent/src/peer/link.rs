//! An established link: a reader that yields everything that has come, and a writer that queues and
//! flushes once per loop turn. Both share one TLS session and belong to one socket.
//!
//! The hot path of a commit passes here twice: the feeder queues a frame and flushes, the follower
//! reads it and queues an acknowledgement. So rustls is driven directly: one `read` takes up to 64 KiB
//! of ciphertext whatever the sizes of TLS records, one `writev` sends all that a turn has queued, and
//! [`LinkWriter::try_flush`] needs no task, so that any thread may end its turn with it.
//!
//! **Invariants.** 1. [`LinkReader::receive`] may be dropped at any await point: nothing is lost.
//! 2. Bytes leave in the order of [`LinkWriter::send`]. 3. At most [`QUEUE_BYTES_MAX`] bytes wait, plus
//! a reserve for messages without records, so that heartbeats pass a full queue's check.

use super::{
    error::{FrameError, LinkError, QueueFull},
    framing::{self, FrameKind},
};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustls::Connection;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, BufRead, IoSlice, Write},
    sync::Arc,
};
use tokio::{
    io::AsyncReadExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use understudy_replication::{FRAME_BYTES_MAX, Message};
use understudy_types::MemberName;

/// Most bytes of frames that wait for a slow peer: two whole frames, so that one can fill while the
/// other leaves. A single record that is longer than a frame is taken while there is room for a frame.
pub const QUEUE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// How far messages without records may exceed [`QUEUE_BYTES_MAX`]: some thousands of heartbeats.
const RESERVE_BYTES: usize = 256 * 1024;

/// Ciphertext taken from the socket at once: four TLS records.
const READ_BYTES: usize = 64 * 1024;

/// Plain bytes that rustls encrypts ahead of the socket.
const ENCRYPTED_AHEAD_BYTES: usize = 256 * 1024;

/// A queue that grew beyond this is given back when it has drained.
const QUEUE_BYTES_KEPT: usize = 1 << 20;

/// One message, with its records if it is a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Whole encoded records behind a `Message::Frame`, else empty. Shares the read buffer: drop it
    /// soon, else the reader must allocate a new one.
    pub records: Bytes,
}

/// Whether a flush got everything out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing waits any more.
    Everything,
    /// The socket takes no more at this time: await [`LinkWriter::flush`], or [`Writable::wait`] and
    /// try again.
    Blocked,
}

/// Both ends of a link, before they are split.
#[derive(Debug)]
pub struct Link {
    /// From the peer.
    pub reader: LinkReader,
    /// To the peer.
    pub writer: LinkWriter,
}

impl Link {
    /// Takes a socket whose TLS handshake is done.
    pub(super) fn new(
        tcp: TcpStream,
        mut tls: Connection,
        peer: MemberName,
    ) -> Result<Self, LinkError> {
        tls.set_buffer_limit(Some(ENCRYPTED_AHEAD_BYTES));
        let tls = Arc::new(Mutex::new(tls));
        let (read, write) = tcp.into_split();
        let mut reader = LinkReader {
            tcp: read,
            tls: Arc::clone(&tls),
            cipher: vec![0; READ_BYTES].into_boxed_slice(),
            plain: BytesMut::with_capacity(READ_BYTES),
            peer: peer.clone(),
        };
        // The first frame may have come together with the end of the handshake.
        reader.decrypt(0)?;
        let writer = LinkWriter { tcp: Arc::new(write), tls, queue: Vec::new(), sent: 0, peer };
        Ok(Self { reader, writer })
    }

    /// The member on the other side, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &MemberName {
        &self.reader.peer
    }

    /// The two halves, for two tasks or one.
    #[must_use]
    pub fn split(self) -> (LinkReader, LinkWriter) {
        (self.reader, self.writer)
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct LinkReader {
    pub(super) tcp: OwnedReadHalf,
    pub(super) tls: Arc<Mutex<Connection>>,
    /// Scratch for one read of the socket.
    pub(super) cipher: Box<[u8]>,
    /// Decrypted bytes that are not yet a whole frame.
    pub(super) plain: BytesMut,
    pub(super) peer: MemberName,
}

impl LinkReader {
    /// The member on the other side, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &MemberName {
        &self.peer
    }

    /// Waits for at least one message and adds all that have come to `batch`. Cancel-safe.
    ///
    /// # Errors
    /// When the link has ended or the peer broke the protocol; the link is of no use then. Messages
    /// that came before are in `batch`.
    pub async fn receive(&mut self, batch: &mut Vec<Received>) -> Result<(), LinkError> {
        let before = batch.len();
        loop {
            framing::take_messages(&mut self.plain, batch).map_err(|e| self.bad_frame(e))?;
            if batch.len() > before {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Waits for one frame of any kind. Cancel-safe.
    pub(crate) async fn frame(&mut self) -> Result<(FrameKind, Bytes), LinkError> {
        loop {
            if let Some(frame) =
                framing::take_frame(&mut self.plain).map_err(|e| self.bad_frame(e))?
            {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Waits for `N` bytes that are not framed. Cancel-safe.
    pub(super) async fn exactly<const N: usize>(&mut self) -> Result<[u8; N], LinkError> {
        loop {
            if let Some(bytes) = self.plain.first_chunk::<N>().copied() {
                let _ = self.plain.split_to(N);
                return Ok(bytes);
            }
            self.fill().await?;
        }
    }

    /// Decodes a frame that must be of one kind.
    pub(crate) fn expect_frame<T: DeserializeOwned>(
        &self,
        kind: FrameKind,
        found: FrameKind,
        body: &[u8],
    ) -> Result<T, LinkError> {
        if found != kind {
            return Err(self.bad_frame(FrameError::Unexpected { kind: found }));
        }
        framing::decode(kind, body).map_err(|e| self.bad_frame(e))
    }

    pub(super) fn bad_frame(&self, source: FrameError) -> LinkError {
        LinkError::Frame { peer: self.peer.clone(), source }
    }

    /// Reads once from the socket, until that gave plain bytes.
    async fn fill(&mut self) -> Result<(), LinkError> {
        loop {
            let read = self.tcp.read(&mut self.cipher).await;
            let read =
                read.map_err(|source| LinkError::Read { peer: self.peer.clone(), source })?;
            if read == 0 {
                return Err(LinkError::Closed { peer: self.peer.clone() });
            }
            if self.decrypt(read)? > 0 {
                return Ok(());
            }
        }
    }

    /// Decrypts the first `read` bytes of the scratch buffer and returns how many plain bytes came.
    fn decrypt(&mut self, read: usize) -> Result<usize, LinkError> {
        let mut tls = self.tls.lock();
        let mut cipher = &self.cipher[..read];
        let before = self.plain.len();
        loop {
            drain(&mut tls, &mut self.plain);
            if cipher.is_empty() {
                break;
            }
            tls.read_tls(&mut cipher)
                .map_err(|source| LinkError::Read { peer: self.peer.clone(), source })?;
            if let Err(source) = tls.process_new_packets() {
                return Err(LinkError::Tls { peer: self.peer.clone(), source });
            }
        }
        Ok(self.plain.len() - before)
    }
}

/// Moves everything that is decrypted into `plain`.
fn drain(tls: &mut Connection, plain: &mut BytesMut) {
    let mut reader = tls.reader();
    // "Would block" and "closed" both mean nothing more now; the socket's own end is what counts.
    while let Ok(chunk) = reader.fill_buf() {
        if chunk.is_empty() {
            break;
        }
        plain.extend_from_slice(chunk);
        let length = chunk.len();
        reader.consume(length);
    }
}

/// The half that writes: a queue in front of the TLS session and the socket.
#[derive(Debug)]
pub struct LinkWriter {
    pub(super) tcp: Arc<OwnedWriteHalf>,
    pub(super) tls: Arc<Mutex<Connection>>,
    /// Encoded frames.
    pub(super) queue: Vec<u8>,
    /// How much of `queue` the TLS session has taken.
    pub(super) sent: usize,
    pub(super) peer: MemberName,
}

impl LinkWriter {
    /// The member on the other side, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &MemberName {
        &self.peer
    }

    /// Queues a message; `records` is empty for all but a `Message::Frame`. Nothing leaves before a
    /// flush.
    ///
    /// # Errors
    /// When the queue is at its bound; the message was not taken.
    pub fn send(&mut self, message: &Message, records: &[u8]) -> Result<(), QueueFull> {
        let queued_bytes = self.queued_bytes();
        let limit =
            if records.is_empty() { QUEUE_BYTES_MAX + RESERVE_BYTES } else { QUEUE_BYTES_MAX };
        // With room for a whole frame, a single record that is longer than a frame is taken too.
        if queued_bytes + records.len() > limit && self.room_bytes() < FRAME_BYTES_MAX {
            return Err(QueueFull { queued_bytes });
        }
        self.forget_sent();
        framing::encode_into(&mut self.queue, FrameKind::Message, message, records);
        Ok(())
    }

    /// Gives back the part of the queue that has left, when moving the rest is cheaper than keeping it:
    /// under load a queue may never drain whole.
    fn forget_sent(&mut self) {
        if self.sent >= QUEUE_BYTES_KEPT && self.sent >= self.queue.len() / 2 {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Bytes that wait in the queue.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// How many bytes of records [`LinkWriter::send`] takes now. While it is at least
    /// [`FRAME_BYTES_MAX`], any one record is taken.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        QUEUE_BYTES_MAX.saturating_sub(self.queued_bytes())
    }

    /// Queues a frame of another kind; the caller flushes before the next one.
    pub(crate) fn queue_frame(&mut self, kind: FrameKind, body: &impl Serialize) {
        framing::encode_into(&mut self.queue, kind, body, &[]);
    }

    /// Queues a frame of raw bytes; the caller flushes before the next one.
    pub(crate) fn queue_raw_frame(&mut self, kind: FrameKind, body: &[u8]) {
        framing::encode_raw_into(&mut self.queue, kind, body);
    }

    /// Queues bytes that are not framed.
    pub(super) fn queue_unframed(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
    }

    /// Sends what the socket takes at once. Never waits, and needs no task: a full socket is reported.
    ///
    /// # Errors
    /// When the link has ended.
    pub fn try_flush(&mut self) -> Result<Flushed, LinkError> {
        let failed = |source| LinkError::Write { peer: self.peer.clone(), source };
        let mut tls = self.tls.lock();
        loop {
            if self.sent < self.queue.len() {
                self.sent += tls.writer().write(&self.queue[self.sent..]).map_err(failed)?;
            }
            while tls.wants_write() {
                match tls.write_tls(&mut Socket(&self.tcp)) {
                    Ok(0) => return Err(LinkError::Closed { peer: self.peer.clone() }),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Flushed::Blocked);
                    }
                    Err(e) => return Err(failed(e)),
                }
            }
            if self.sent == self.queue.len() {
                break;
            }
        }
        drop(tls);
        self.queue.clear();
        self.sent = 0;
        self.queue.shrink_to(QUEUE_BYTES_KEPT);
        Ok(Flushed::Everything)
    }

    /// Sends everything, waiting for the socket as long as it takes. Cancel-safe.
    ///
    /// # Errors
    /// When the link has ended.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while self.try_flush()? == Flushed::Blocked {
            self.writable().wait().await;
        }
        Ok(())
    }

    /// A handle to wait for room in the socket without holding the writer.
    #[must_use]
    pub fn writable(&self) -> Writable {
        Writable(Arc::clone(&self.tcp))
    }

    /// Says goodbye in TLS and ends this direction. What is queued and does not fit is dropped.
    pub fn close(mut self) {
        // Best effort: the peer sees the end of the stream in any case.
        if self.try_flush().is_ok() {
            self.tls.lock().send_close_notify();
            let _ = self.try_flush();
        }
    }
}

/// Waits until the socket of a link takes bytes again.
#[derive(Debug, Clone)]
pub struct Writable(Arc<OwnedWriteHalf>);

impl Writable {
    /// Returns when a flush may get further, or would fail.
    pub async fn wait(&self) {
        // An error here is the same error at the next flush, where it is handled.
        let _ = self.0.writable().await;
    }
}

/// The socket as rustls wants to write it: never blocking.
struct Socket<'a>(&'a OwnedWriteHalf);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
