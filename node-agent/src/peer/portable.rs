//! A link between two runtimes: accepted on one, used on another. A socket's wake-ups come from the
//! runtime that it is registered with, and a wake-up across cores costs more than a whole commit, so
//! the replication link must live on the loop that uses it.

use super::{
    error::LinkError,
    link::{Link, LinkReader, LinkWriter},
};
use bytes::BytesMut;
use parking_lot::Mutex;
use rustls::Connection;
use std::sync::Arc;
use tokio::net::TcpStream;
use understudy_types::MemberName;

/// A link that is registered with no runtime. Send it to another thread and turn it into a
/// [`Link`] there.
#[derive(Debug)]
pub struct PortableLink {
    tcp: std::net::TcpStream,
    tls: Arc<Mutex<Connection>>,
    cipher: Box<[u8]>,
    plain: BytesMut,
    queue: Vec<u8>,
    sent: usize,
    peer: MemberName,
}

impl Link {
    /// Takes the link off this runtime. Nothing that was received or queued is lost.
    ///
    /// # Errors
    /// When the socket refuses.
    ///
    /// # Panics
    /// When a [`super::Writable`] of this link is still held: programmer's error.
    pub fn into_portable(self) -> Result<PortableLink, LinkError> {
        let (LinkReader { tcp: read, tls, cipher, plain, peer }, writer) = self.split();
        let LinkWriter { tcp: write, tls: _, queue, sent, peer: _ } = writer;
        let write = Arc::into_inner(write).expect("nobody waits on the link that is moved");
        let tcp = read.reunite(write).expect("both halves are of one socket");
        match tcp.into_std() {
            Ok(tcp) => Ok(PortableLink { tcp, tls, cipher, plain, queue, sent, peer }),
            Err(source) => Err(LinkError::Read { peer, source }),
        }
    }
}

impl PortableLink {
    /// The member on the other side, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &MemberName {
        &self.peer
    }

    /// Registers the link with the runtime of this thread.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub fn into_link(self) -> Result<Link, LinkError> {
        let Self { tcp, tls, cipher, plain, queue, sent, peer } = self;
        let tcp = TcpStream::from_std(tcp)
            .map_err(|source| LinkError::Read { peer: peer.clone(), source })?;
        let (read, write) = tcp.into_split();
        let writer = LinkWriter {
            tcp: Arc::new(write),
            tls: Arc::clone(&tls),
            queue,
            sent,
            peer: peer.clone(),
        };
        Ok(Link { reader: LinkReader { tcp: read, tls, cipher, plain, peer }, writer })
    }
}
