//! A connection on a Unix socket that is told of bytes to read, and of room to write only while it waits
//! for it.
//!
//! The kernel tells a Unix socket of room each time that the other end has read. Whoever listens for both
//! is woken for every answer that a client takes, finds nothing to do and sleeps again.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// Most that one read takes.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// Where a loop's reads arrive. A caller's buffer may be memory that nothing was written to yet.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A client's connection on this machine.
#[derive(Debug)]
pub(super) struct Local {
    readable: AsyncFd<UnixStream>,
    /// While a write waits for room: the same socket, registered for that.
    writable: Option<AsyncFd<UnixStream>>,
}

impl Local {
    /// Registers a socket, which is in non-blocking mode, with the loop that this is called in.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        Ok(Self { readable: registered(socket, Interest::READABLE)?, writable: None })
    }

    /// Whether the other end is a process of this process's own user, by the kernel's word.
    pub(super) fn is_own_user(&self) -> bool {
        rustix::net::sockopt::socket_peercred(self.readable.get_ref())
            .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
    }
}

#[expect(
    deprecated,
    reason = "deprecated for types that may change their descriptor under tokio; a UnixStream does not"
)]
fn registered(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

/// Whether an attempt is over; it is repeated when the socket is ready again.
fn is_over<T>(tried: &io::Result<T>) -> bool {
    !tried.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Local {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.readable.poll_read_ready(context))?;
            let (tried, asked) = ARRIVED.with_borrow_mut(|arrived| {
                let asked = arrived.len().min(buffer.remaining());
                let mut socket = self.readable.get_ref();
                let tried = socket.read(&mut arrived[..asked]);
                buffer.put_slice(&arrived[..*tried.as_ref().unwrap_or(&0)]);
                (tried, asked)
            });
            // Less than was asked for: nothing is left, and what comes later is told.
            if tried.as_ref().map_or(true, |read| *read < asked) {
                ready.clear_ready();
            }
            if is_over(&tried) {
                return Poll::Ready(tried.map(drop));
            }
        }
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { readable, writable } = self.get_mut();
        let mut socket = readable.get_ref();
        let tried = socket.write(bytes);
        if is_over(&tried) {
            *writable = None;
            return Poll::Ready(tried);
        }
        let waiting = match writable.take() {
            Some(waiting) => waiting,
            None => registered(socket.try_clone()?, Interest::WRITABLE)?,
        };
        let waiting = writable.insert(waiting);
        loop {
            let mut ready = ready!(waiting.poll_write_ready(context))?;
            let tried = socket.write(bytes);
            if is_over(&tried) {
                return Poll::Ready(tried);
            }
            ready.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.readable.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Local, Local) {
        let (one, other) = UnixStream::pair().unwrap();
        for socket in [&one, &other] {
            socket.set_nonblocking(true).unwrap();
        }
        (Local::new(one).unwrap(), Local::new(other).unwrap())
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

    #[tokio::test]
    async fn the_own_user_is_known() {
        let (one, _other) = pair();
        assert!(one.is_own_user());
    }
}
