//! A client's connection as the kernel has it: a Unix socket, or TCP, in the clear or under TLS.
//!
//! Two ways to wait for bytes. The ordinary one is epoll's, beside all connections of the loop. A plain one
//! that is alone on its loop waits inside its read instead, which saves a system call and a turn of the loop
//! for each message. Meanwhile the loop does nothing else, hence three bounds: such a wait lasts one or two
//! ticks of the kernel ([`ALONE_WAIT`]); after a number of reads the loop has its turn, as with every task of
//! tokio's; and a wait in vain is followed by ordinary ones. So the socket is in blocking mode, and every other
//! call says that it will not wait.
//!
//! It is told of room to write only while it waits for it: the kernel tells a Unix socket of room each time
//! that the other end has read. Whoever listens for both is woken for every answer that a client takes, finds
//! nothing to do and sleeps again.

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
        sockopt::{Timeout, set_socket_timeout, socket_peercred},
    },
};
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    task::coop::poll_proceed,
};

/// Most that one read takes.
const READ_BYTES: usize = 64 << 10;

/// Longest wait inside a read; the kernel rounds up to its ticks (4 ms at 250 Hz), and adds one.
const ALONE_WAIT: Duration = Duration::from_millis(1);

/// Reads of the ordinary way after one that has waited in vain.
const ORDINARY_READS: u32 = 64;

/// How everything is sent: without waiting, and without a signal where nobody reads any more.
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

thread_local! {
    /// Where a loop's reads arrive. A caller's buffer may be memory that nothing was written to yet.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// See the module.
#[derive(Debug)]
pub(super) struct Socket {
    readable: AsyncFd<OwnedFd>,
    /// While a write waits for room: the same socket, registered for that.
    writable: Option<AsyncFd<OwnedFd>>,
    /// Connections of the loop, this one among them. None: it never waits by itself.
    load: Option<Arc<AtomicUsize>>,
    /// Reads that still go the ordinary way.
    ordinary: u32,
}

impl Socket {
    /// Registers a socket with the loop that this is called in, which has so many connections.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub(super) fn new(socket: impl Into<OwnedFd>, load: Arc<AtomicUsize>) -> io::Result<Self> {
        let socket = socket.into();
        rustix::io::ioctl_fionbio(&socket, false)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ALONE_WAIT))?;
        let readable = registered(socket, Interest::READABLE)?;
        Ok(Self { readable, writable: None, load: Some(load), ordinary: 0 })
    }

    /// From now on it never waits by itself. For TLS, which reads again while it has something to give.
    pub(super) fn wait_beside_others(&mut self) {
        self.load = None;
    }

    /// Whether the other end is a process of this process's own user, by the kernel's word. Unix sockets only.
    pub(super) fn is_own_user(&self) -> bool {
        socket_peercred(self.readable.get_ref())
            .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
    }

    /// Reads into the buffer. True when that took less than was asked for: nothing is left then.
    fn receive(&self, buffer: &mut ReadBuf<'_>, flags: RecvFlags) -> io::Result<bool> {
        ARRIVED.with_borrow_mut(|arrived| {
            let asked = arrived.len().min(buffer.remaining());
            let socket = self.readable.get_ref();
            let (read, _) = retry_on_intr(|| recv(socket, &mut arrived[..asked], flags))?;
            buffer.put_slice(&arrived[..read]);
            Ok(read < asked)
        })
    }

    /// A read that waits by itself, where the connection may. None: it was in vain.
    fn receive_alone(&mut self, buffer: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let is_alone = self.load.as_ref().is_some_and(|load| load.load(Relaxed) == 1);
        if !is_alone || self.ordinary > 0 {
            return None;
        }
        let tried = self.receive(buffer, RecvFlags::empty());
        if !is_over(&tried) {
            self.ordinary = ORDINARY_READS;
            return None;
        }
        Some(tried.map(drop))
    }

    /// Tries a write now, and again each time that there is room.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Self { readable, writable, .. } = self;
        let mut attempt = || retry_on_intr(|| attempt(readable.get_ref())).map_err(io::Error::from);
        let tried = attempt();
        if is_over(&tried) {
            *writable = None;
            return Poll::Ready(tried);
        }
        let waiting = match writable.take() {
            Some(waiting) => waiting,
            None => registered(readable.get_ref().try_clone()?, Interest::WRITABLE)?,
        };
        let waiting = writable.insert(waiting);
        loop {
            let mut ready = ready!(waiting.poll_write_ready(context))?;
            let tried = attempt();
            if is_over(&tried) {
                return Poll::Ready(tried);
            }
            ready.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "deprecated for types that may change their descriptor under tokio; an OwnedFd does not"
)]
fn registered(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, interest)
}

/// Whether an attempt is over; it is repeated when the socket is ready again.
fn is_over<T>(tried: &io::Result<T>) -> bool {
    !tried.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let turn = ready!(poll_proceed(context));
        if let Some(read) = socket.receive_alone(buffer) {
            turn.made_progress();
            return Poll::Ready(read);
        }
        drop(turn);
        loop {
            let mut ready = ready!(socket.readable.poll_read_ready(context))?;
            let tried = socket.receive(buffer, RecvFlags::DONTWAIT);
            // Less than was asked for: nothing is left, and what comes later is told.
            if *tried.as_ref().unwrap_or(&true) {
                ready.clear_ready();
            }
            if is_over(&tried) {
                socket.ordinary = socket.ordinary.saturating_sub(1);
                return Poll::Ready(tried.map(drop));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, |socket| send(socket, bytes, SEND))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, |socket| {
            sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), SEND)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match shutdown(self.readable.get_ref(), Shutdown::Write) {
            // The other end has gone before.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        thread,
        time::Instant,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// One end of a pair, on a loop with so many connections.
    fn socket(end: UnixStream, load: usize) -> Socket {
        Socket::new(end, Arc::new(AtomicUsize::new(load))).unwrap()
    }

    /// Both ends on this loop.
    fn pair() -> (Socket, Socket) {
        let (one, other) = UnixStream::pair().unwrap();
        (socket(one, 2), socket(other, 2))
    }

    #[tokio::test]
    async fn more_than_the_socket_holds_arrives_whole() {
        let (mut from, mut to) = pair();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            from.write_all(&sent).await.unwrap();
            from
        });
        let mut received = vec![0; expected.len()];
        to.read_exact(&mut received).await.unwrap();
        assert_eq!(received, expected);
        let mut from = sending.await.unwrap();
        from.write_all(b"y").await.unwrap();
        assert!(from.writable.is_none(), "nothing waits any more");
        // The other way still works.
        to.write_all(b"x").await.unwrap();
        assert_eq!(from.read_u8().await.unwrap(), b'x');
        from.shutdown().await.unwrap();
        let mut rest = Vec::new();
        to.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"y");
    }

    #[tokio::test]
    async fn parts_are_sent_in_one() {
        let (mut from, mut to) = pair();
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        assert_eq!(from.write_vectored(&parts).await.unwrap(), 5);
        let mut got = [0; 5];
        assert_eq!(to.read(&mut got).await.unwrap(), 5);
        assert_eq!(&got, b"abcde");
    }

    #[tokio::test]
    async fn bytes_that_come_in_pieces_are_told_each_time() {
        let (mut from, mut to) = pair();
        for piece in 0..100u8 {
            from.write_all(&[piece; 3]).await.unwrap();
            let mut got = [0; 3];
            to.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [piece; 3]);
        }
        drop(from);
        assert_eq!(to.read(&mut [0; 3]).await.unwrap(), 0);
    }

    /// A client that sends a byte and waits for it to come back, so many times.
    fn echoed(mut client: UnixStream, bytes: u32) -> thread::JoinHandle<UnixStream> {
        thread::spawn(move || {
            for n in 0..bytes {
                let mut byte = [n as u8];
                client.write_all(&byte).unwrap();
                client.read_exact(&mut byte).unwrap();
                assert_eq!(byte, [n as u8]);
            }
            client
        })
    }

    #[tokio::test]
    async fn a_socket_that_is_alone_waits_by_itself_and_leaves_the_others_their_turn() {
        const BYTES: u32 = 1_000;
        let (near, far) = UnixStream::pair().unwrap();
        let mut alone = socket(far, 1);
        let client = echoed(near, BYTES);
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        for _ in 0..BYTES {
            let byte = alone.read_u8().await.unwrap();
            alone.write_all(&[byte]).await.unwrap();
        }
        assert!(turns.load(Relaxed) > 0, "the loop did nothing else");
        other.abort();
        drop(client.join().unwrap());
        assert_eq!(alone.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_socket_that_is_silent_waits_beside_the_others() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut alone = socket(far, 1);
        let mut read = Box::pin(async move {
            let byte = alone.read_u8().await.unwrap();
            (alone, byte)
        });
        let begun = Instant::now();
        assert!(futures::poll!(&mut read).is_pending(), "it gives way");
        assert!(begun.elapsed() >= ALONE_WAIT, "and has waited by itself before");
        let client = echoed(near, 200);
        let (mut alone, byte) = read.await;
        alone.write_all(&[byte]).await.unwrap();
        assert_eq!(alone.ordinary, ORDINARY_READS - 1);
        for _ in 1..200 {
            let byte = alone.read_u8().await.unwrap();
            alone.write_all(&[byte]).await.unwrap();
        }
        drop(client.join().unwrap());
        assert_eq!(alone.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn beneath_tls_nothing_waits_by_itself() {
        let (_near, far) = UnixStream::pair().unwrap();
        let mut socket = socket(far, 1);
        socket.wait_beside_others();
        let mut byte = [0];
        assert!(futures::poll!(Box::pin(socket.read(&mut byte))).is_pending());
        assert_eq!(socket.ordinary, 0, "no wait was in vain, for there was none");
    }

    #[tokio::test]
    async fn the_own_user_is_known() {
        let (one, _other) = pair();
        assert!(one.is_own_user());
    }
}
