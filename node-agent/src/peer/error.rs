//! What can go wrong on the replication port. None of it says anything about the death of the other
//! side (R10): every one of these only ends a connection.

use super::framing::FrameKind;
use std::io;
use understudy_types::MemberName;

/// Why an established link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket could not be read.
    #[error("the link to {peer} broke while reading")]
    Read {
        /// The other side.
        peer: MemberName,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket could not be written.
    #[error("the link to {peer} broke while writing")]
    Write {
        /// The other side.
        peer: MemberName,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The other side ended the connection.
    #[error("{peer} closed the link")]
    Closed {
        /// The other side.
        peer: MemberName,
    },
    /// The bytes are not what TLS allows.
    #[error("the link to {peer} broke the rules of TLS")]
    Tls {
        /// The other side.
        peer: MemberName,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// A frame could not be understood.
    #[error("{peer} sent a bad frame")]
    Frame {
        /// The other side.
        peer: MemberName,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
}

/// Why bytes are not a frame, or not the one that was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that this version does not know.
    #[error("frame kind {code} is unknown")]
    UnknownKind {
        /// The byte.
        code: u8,
    },
    /// A frame without even its kind.
    #[error("a frame of length zero")]
    Empty,
    /// Longer than its kind may be.
    #[error("a frame of {bytes} bytes, where {kind:?} has at most {limit}")]
    TooLong {
        /// What it says to be.
        kind: FrameKind,
        /// Length that it claims.
        bytes: usize,
        /// Longest allowed.
        limit: usize,
    },
    /// The body is not what the kind says.
    #[error("the body of a {kind:?} frame cannot be read")]
    Malformed {
        /// What it says to be.
        kind: FrameKind,
        /// What postcard said.
        #[source]
        source: postcard::Error,
    },
    /// Bytes after a body that has none behind it.
    #[error("{bytes} bytes too many after the body of a {kind:?} frame")]
    Trailing {
        /// What it says to be.
        kind: FrameKind,
        /// How many.
        bytes: usize,
    },
    /// A kind that has no place here.
    #[error("a {kind:?} frame has no place here")]
    Unexpected {
        /// What came.
        kind: FrameKind,
    },
}

/// Why a connection was not established.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The port could not be taken.
    #[error("cannot listen for peers on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host is not a name that a certificate can carry.
    #[error("`{host}` is neither a DNS name nor an address")]
    ServerName {
        /// What was given.
        host: String,
    },
    /// A step took too long.
    #[error("{step} took longer than {} s", limit.as_secs())]
    TimedOut {
        /// Which step.
        step: &'static str,
        /// How long it may take.
        limit: std::time::Duration,
    },
    /// The TLS handshake failed: wrong authority, expired, or not TLS at all.
    #[error("the TLS handshake with {remote} failed")]
    Handshake {
        /// Address or name of the other side.
        remote: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// Only TLS 1.3 is spoken: older versions cannot renew keys on a link that lives for months.
    #[error("{remote} negotiated a TLS version other than 1.3")]
    OldTls {
        /// Address or name of the other side.
        remote: String,
    },
    /// No certificate, or one that names no member of this pair.
    #[error("{remote} is not a member of this pair: {reason}")]
    Identity {
        /// Address or name of the other side.
        remote: String,
        /// Why, in words.
        reason: String,
    },
    /// The certificate is another member's.
    #[error("{remote} shows the certificate of {certificate} but should be {expected}")]
    WrongMember {
        /// Address or name of the other side.
        remote: String,
        /// Whose certificate it is.
        certificate: MemberName,
        /// Who it should be, or says to be.
        expected: MemberName,
    },
    /// The other side does not begin as this protocol does.
    #[error("{peer} does not speak this protocol: it begins with {found:02x?}")]
    Preface {
        /// The other side.
        peer: MemberName,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The other side speaks another version.
    #[error("{peer} speaks version {theirs} of the protocol, this member speaks {ours}")]
    Version {
        /// The other side.
        peer: MemberName,
        /// Its version.
        theirs: u32,
        /// This member's.
        ours: u32,
    },
    /// The link failed during the first exchange.
    #[error("the first exchange failed")]
    Link(#[source] LinkError),
    /// The socket's options could not be set.
    #[error("cannot prepare the socket to {remote}")]
    Socket {
        /// Address or name of the other side.
        remote: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl PeerError {
    /// Whether the two refuse each other's certificates, rather than a network being in the way.
    #[must_use]
    pub fn is_about_trust(&self) -> bool {
        match self {
            PeerError::Identity { .. } | PeerError::WrongMember { .. } => true,
            PeerError::Handshake { source, .. } => source
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(refuses_certificate),
            // In TLS 1.3 a refused client learns it with the first bytes that it reads.
            PeerError::Link(LinkError::Tls { source, .. }) => refuses_certificate(source),
            PeerError::Link(
                LinkError::Read { .. }
                | LinkError::Write { .. }
                | LinkError::Closed { .. }
                | LinkError::Frame { .. },
            )
            | PeerError::Listen { .. }
            | PeerError::Connect { .. }
            | PeerError::ServerName { .. }
            | PeerError::TimedOut { .. }
            | PeerError::OldTls { .. }
            | PeerError::Preface { .. }
            | PeerError::Version { .. }
            | PeerError::Socket { .. } => false,
        }
    }
}

fn refuses_certificate(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        error,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::AlertReceived(
                Alert::UnknownCA
                    | Alert::BadCertificate
                    | Alert::CertificateExpired
                    | Alert::CertificateRevoked
                    | Alert::CertificateUnknown
                    | Alert::UnsupportedCertificate
                    | Alert::DecryptError
            )
    )
}

/// The queue towards a peer is at its bound: the message was not taken. The peer reads too slowly;
/// keep the records in the log and send them when the queue has drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{queued_bytes} bytes wait for the peer already")]
pub struct QueueFull {
    /// What waits.
    pub queued_bytes: usize,
}
