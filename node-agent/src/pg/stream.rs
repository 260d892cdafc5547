//! The kinds of connection under one type, so that a session is compiled once and a plain one pays no
//! indirection.

use super::socket::Socket;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A client's connection.
#[derive(Debug)]
pub(super) enum Stream {
    /// Without encryption.
    Tcp(Socket),
    /// On this machine.
    Unix(Socket),
    /// Encrypted.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// Whether nobody between can read along: encrypted, or never on a network.
    pub(super) fn is_private(&self) -> bool {
        match self {
            Stream::Tcp(_) => false,
            Stream::Unix(_) | Stream::Tls(_) => true,
        }
    }

    /// Whether the other end is a process of this process's own user, by the kernel's word.
    pub(super) fn is_own_user(&self) -> bool {
        match self {
            Stream::Unix(socket) => socket.is_own_user(),
            Stream::Tcp(_) | Stream::Tls(_) => false,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) | Stream::Unix(socket) => {
                Pin::new(socket).poll_read(context, buffer)
            }
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) | Stream::Unix(socket) => {
                Pin::new(socket).poll_write(context, bytes)
            }
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) | Stream::Unix(socket) => Pin::new(socket).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) | Stream::Unix(socket) => Pin::new(socket).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
