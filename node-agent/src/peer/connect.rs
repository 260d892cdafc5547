//! The side that dials: a follower to its feeder, or a new store to its source.

use super::{
    ANSWER_TIMEOUT, HANDSHAKE_TIMEOUT, LinkTls,
    error::PeerError,
    framing::{FrameKind, PREFACE},
    link::Link,
    options,
    transfer::{DuplicateAnswer, DuplicateRequest},
};
use rustls::{CommonState, Connection, ProtocolVersion, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use understudy_replication::{Attach, Attached};
use understudy_types::MemberName;

/// Where a member listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who must be there: its certificate must say so.
    pub member: MemberName,
    /// DNS name, which the certificate carries too, or an address.
    pub host: String,
    /// Port of replication.
    pub port: u16,
}

/// What a source said to a request for a duplicate.
#[derive(Debug)]
pub struct DialedDuplicate {
    /// Its first answer.
    pub answer: DuplicateAnswer,
    /// Where the rest comes from.
    pub link: Link,
}

/// Attaches to a feeder. The link is of use only when the answer is [`Attached::Follow`].
///
/// # Errors
/// When no connection to this very member came about, or it gave no answer in time.
pub async fn dial(
    target: &Target,
    tls: &dyn LinkTls,
    attach: &Attach,
) -> Result<(Attached, Link), PeerError> {
    let mut link = connect(target, tls, FrameKind::Attach, attach).await?;
    let answer = answer(&mut link, FrameKind::Attached, "the feeder's answer").await?;
    Ok((answer, link))
}

/// Asks a member for a duplicate.
///
/// # Errors
/// When no connection to this very member came about, or it gave no answer in time.
pub async fn dial_duplicate(
    target: &Target,
    tls: &dyn LinkTls,
    request: &DuplicateRequest,
) -> Result<DialedDuplicate, PeerError> {
    let mut link = connect(target, tls, FrameKind::DuplicateRequest, request).await?;
    let answer = answer(&mut link, FrameKind::DuplicateAnswer, "the source's answer").await?;
    Ok(DialedDuplicate { answer, link })
}

/// TCP, TLS, identity, preface and the first frame.
async fn connect(
    target: &Target,
    tls: &dyn LinkTls,
    kind: FrameKind,
    first: &impl Serialize,
) -> Result<Link, PeerError> {
    let Target { member, host, port } = target;
    let config = tls.client(member);
    let steps = async {
        let name = ServerName::try_from(host.clone())
            .map_err(|_| PeerError::ServerName { host: host.clone() })?;
        let tcp = TcpStream::connect((host.as_str(), *port))
            .await
            .map_err(|source| PeerError::Connect { host: host.clone(), port: *port, source })?;
        options::prepare(&tcp, host)?;
        let stream = TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|source| PeerError::Handshake { remote: host.clone(), source })?;
        let (tcp, session) = stream.into_inner();
        let certificate = identity(&session, tls, host)?;
        must_be(member, certificate, host)?;
        let mut link =
            Link::new(tcp, Connection::Client(session), member.clone()).map_err(PeerError::Link)?;
        link.writer.queue_unframed(&PREFACE);
        link.writer.queue_frame(kind, first);
        link.writer.flush().await.map_err(PeerError::Link)?;
        Ok(link)
    };
    within("connecting to a peer", HANDSHAKE_TIMEOUT, steps).await
}

async fn answer<T: DeserializeOwned>(
    link: &mut Link,
    kind: FrameKind,
    step: &'static str,
) -> Result<T, PeerError> {
    let steps = async {
        let (found, body) = link.reader.frame().await.map_err(PeerError::Link)?;
        link.reader.expect_frame(kind, found, &body).map_err(PeerError::Link)
    };
    within(step, ANSWER_TIMEOUT, steps).await
}

/// The member that the other side's certificate names.
pub(super) fn identity(
    session: &CommonState,
    tls: &dyn LinkTls,
    remote: &str,
) -> Result<MemberName, PeerError> {
    if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(PeerError::OldTls { remote: remote.to_owned() });
    }
    tls.member(session.peer_certificates())
        .map_err(|reason| PeerError::Identity { remote: remote.to_owned(), reason })
}

/// Refuses a certificate that is another member's.
pub(super) fn must_be(
    expected: &MemberName,
    certificate: MemberName,
    remote: &str,
) -> Result<(), PeerError> {
    if certificate == *expected {
        return Ok(());
    }
    Err(PeerError::WrongMember {
        remote: remote.to_owned(),
        certificate,
        expected: expected.clone(),
    })
}

/// Runs a step with a limit.
pub(super) async fn within<T>(
    step: &'static str,
    limit: Duration,
    steps: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PeerError> {
    tokio::time::timeout(limit, steps).await.unwrap_or(Err(PeerError::TimedOut { step, limit }))
}
