//! The side that listens: handshakes run side by side, each with a time limit, and only a member of
//! this pair that said what it wants comes out of [`Listener::accept`].

use super::{
    HANDSHAKE_TIMEOUT, LinkTls,
    connect::{identity, must_be, within},
    error::{FrameError, PeerError},
    framing::{self, FrameKind, PREFACE},
    link::Link,
    options,
    transfer::{DUPLICATE_VERSION, DuplicateAnswer, DuplicateRequest},
};
use rustls::Connection;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use understudy_replication::{Attach, Attached, WIRE_VERSION};
use understudy_types::MemberName;

/// Most handshakes at once: 127 followers and a standby that all reconnect, and as many strangers.
const HANDSHAKES_MAX: usize = 256;

/// Pause after the system refused to give a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A member of this pair that dialed, and what it wants.
#[derive(Debug)]
pub enum Incoming {
    /// It wants to follow.
    Follower(FollowerWaiting),
    /// It wants a duplicate.
    Duplicate(DuplicateWaiting),
}

/// A follower that waits for the answer to its attachment.
#[derive(Debug)]
pub struct FollowerWaiting {
    /// The member, by its certificate; the same as in `attach`.
    pub identity: MemberName,
    /// What it said.
    pub attach: Attach,
    /// Its link; nothing but the answer may be sent before the answer.
    pub link: Link,
}

impl FollowerWaiting {
    /// Answers. The link is of use only after [`Attached::Follow`].
    ///
    /// # Errors
    /// When the link has ended, or did not take the answer in time.
    pub async fn answer(mut self, answer: &Attached) -> Result<Link, PeerError> {
        self.link.writer.queue_frame(FrameKind::Attached, answer);
        flush(&mut self.link).await?;
        Ok(self.link)
    }
}

/// A member that waits for a duplicate; `crate::duplicate` serves it.
#[derive(Debug)]
pub struct DuplicateWaiting {
    /// The member, by its certificate; the same as in `request`.
    pub identity: MemberName,
    /// What it said.
    pub request: DuplicateRequest,
    /// Where the duplicate goes.
    pub link: Link,
}

/// The replication port.
pub struct Listener {
    tcp: TcpListener,
    tls: Arc<dyn LinkTls>,
    handshakes: JoinSet<(SocketAddr, Result<Incoming, PeerError>)>,
}

impl Listener {
    /// Takes the port.
    ///
    /// # Errors
    /// When the system refuses it.
    pub async fn bind(address: SocketAddr, tls: Arc<dyn LinkTls>) -> Result<Self, PeerError> {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|source| PeerError::Listen { address, source })?;
        Ok(Self { tcp, tls, handshakes: JoinSet::new() })
    }

    /// Where it listens; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next member that dialed and is who it says. Strangers are logged and dropped. Cancel-safe.
    pub async fn accept(&mut self) -> Incoming {
        loop {
            tokio::select! {
                accepted = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES_MAX => {
                    match accepted {
                        Ok((tcp, remote)) => {
                            let tls = Arc::clone(&self.tls);
                            self.handshakes.spawn(async move { (remote, receive(tcp, remote, &*tls).await) });
                        }
                        Err(error) => {
                            tracing::error!(%error, "the system gives no more connections to the replication port");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok((_, Ok(incoming))) => return incoming,
                    Ok((remote, Err(error))) => {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        tracing::warn!(%remote, error, "refused a connection to the replication port");
                    }
                    Err(error) => tracing::error!(%error, "a handshake on the replication port panicked"),
                },
            }
        }
    }
}

/// TLS, identity, preface and first frame of one connection.
async fn receive(
    tcp: TcpStream,
    remote: SocketAddr,
    tls: &dyn LinkTls,
) -> Result<Incoming, PeerError> {
    let config = tls.server();
    let remote = remote.to_string();
    let steps = async {
        options::prepare(&tcp, &remote)?;
        let stream = TlsAcceptor::from(config)
            .accept(tcp)
            .await
            .map_err(|source| PeerError::Handshake { remote: remote.clone(), source })?;
        let (tcp, session) = stream.into_inner();
        let identity = identity(&session, tls, &remote)?;
        let mut link = Link::new(tcp, Connection::Server(session), identity.clone())
            .map_err(PeerError::Link)?;
        let preface = link.reader.exactly::<{ PREFACE.len() }>().await.map_err(PeerError::Link)?;
        if preface != PREFACE {
            return Err(PeerError::Preface { peer: identity, found: preface.to_vec() });
        }
        let (kind, body) = link.reader.frame().await.map_err(PeerError::Link)?;
        match kind {
            FrameKind::Attach => attach(link, identity, &remote, &body).await,
            FrameKind::DuplicateRequest => duplicate(link, identity, &remote, &body).await,
            FrameKind::Attached
            | FrameKind::Message
            | FrameKind::DuplicateAnswer
            | FrameKind::DuplicateChunk
            | FrameKind::DuplicateEnd => {
                Err(PeerError::Link(link.reader.bad_frame(FrameError::Unexpected { kind })))
            }
        }
    };
    within("the handshake of a peer that dialed", HANDSHAKE_TIMEOUT, steps).await
}

async fn attach(
    mut link: Link,
    identity: MemberName,
    remote: &str,
    body: &[u8],
) -> Result<Incoming, PeerError> {
    let refused = |error: &PeerError| Attached::Refused { reason: error.to_string(), active: None };
    let checked = version(&link, FrameKind::Attach, body, WIRE_VERSION).and_then(|()| {
        let attach: Attach = link
            .reader
            .expect_frame(FrameKind::Attach, FrameKind::Attach, body)
            .map_err(PeerError::Link)?;
        must_be(&attach.follower.member, identity.clone(), remote)?;
        Ok(attach)
    });
    match checked {
        Ok(attach) => Ok(Incoming::Follower(FollowerWaiting { identity, attach, link })),
        Err(error) => {
            link.writer.queue_frame(FrameKind::Attached, &refused(&error));
            flush(&mut link).await?;
            Err(error)
        }
    }
}

async fn duplicate(
    mut link: Link,
    identity: MemberName,
    remote: &str,
    body: &[u8],
) -> Result<Incoming, PeerError> {
    const KIND: FrameKind = FrameKind::DuplicateRequest;
    let checked = version(&link, KIND, body, DUPLICATE_VERSION).and_then(|()| {
        let request: DuplicateRequest =
            link.reader.expect_frame(KIND, KIND, body).map_err(PeerError::Link)?;
        must_be(&request.follower.member, identity.clone(), remote)?;
        Ok(request)
    });
    match checked {
        Ok(request) => Ok(Incoming::Duplicate(DuplicateWaiting { identity, request, link })),
        Err(error) => {
            let refused = DuplicateAnswer::Refused { reason: error.to_string() };
            link.writer.queue_frame(FrameKind::DuplicateAnswer, &refused);
            flush(&mut link).await?;
            Err(error)
        }
    }
}

/// Compares the version, which is the first field of every first message, before the rest is decoded.
fn version(link: &Link, kind: FrameKind, body: &[u8], ours: u32) -> Result<(), PeerError> {
    let (theirs, _) = framing::decode_head::<u32>(kind, body)
        .map_err(|e| PeerError::Link(link.reader.bad_frame(e)))?;
    if theirs == ours {
        return Ok(());
    }
    Err(PeerError::Version { peer: link.peer().clone(), theirs, ours })
}

/// Flushes an answer; a peer that does not read it is dropped.
async fn flush(link: &mut Link) -> Result<(), PeerError> {
    let steps = async { link.writer.flush().await.map_err(PeerError::Link) };
    within("sending an answer", HANDSHAKE_TIMEOUT, steps).await
}
