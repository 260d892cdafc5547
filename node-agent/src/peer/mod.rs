//! The replication port: one framed protocol over mutual TLS, for followers that attach to a feeder
//! and for duplicates. Sits between the node's loops and the sockets; what the messages mean is the
//! `replication` crate's.
//!
//! ```text
//!  follower                                   feeder
//!  dial ── TCP, TLS 1.3, preface ──────────▶ Listener
//!       ── Attach ─────────────────────────▶ Incoming::Follower
//!       ◀───────────────────────── Attached ──  answer
//!       ◀════════ frames, heartbeats ═══════▶  Link: LinkReader + LinkWriter
//!            acknowledgements, grants
//! ```
//!
//! **Invariants.** 1. Nothing is read from a peer before its certificate named a member of this pair.
//! 2. The name in the certificate is the name in [`understudy_replication::Attach`]. 3. No length that
//! a peer sent makes this side reserve memory before the bytes themselves have come. 4. What is queued
//! for a peer is bounded; the caller is told when the bound is reached and decides.
//!
//! Deliberately absent: reconnecting (the node decides when), compression, routes, and any judgement
//! about epochs.

mod connect;
mod error;
mod framing;
mod link;
mod listen;
mod options;
mod portable;
mod transfer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use connect::{DialedDuplicate, Target, dial, dial_duplicate};
pub use error::{LinkError, PeerError, QueueFull};
pub(crate) use framing::CHUNK_BYTES_MAX;
pub use framing::FrameKind;
pub use link::{Flushed, Link, LinkReader, LinkWriter, QUEUE_BYTES_MAX, Received, Writable};
pub use listen::{DuplicateWaiting, FollowerWaiting, Incoming, Listener};
pub use portable::PortableLink;
pub use transfer::{
    CheckpointName, DUPLICATE_VERSION, DuplicateAnswer, DuplicateEnd, DuplicateRequest,
};

use crate::tls::{
    Tls,
    identity::{Expected, PeerIdentity},
};
use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};
use std::{sync::Arc, time::Duration};
use understudy_types::MemberName;

/// Longest time for TCP, TLS and the first frame of a new connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest time until a feeder has answered an attachment. It may have to hash a log segment first.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Certificates and trust of this member, as they are at this moment: asked anew for every connection,
/// so that renewed certificates need no restart.
///
/// *Guarantees expected*: the server configuration demands a client certificate; both trust only this
/// pair's authorities.
pub trait LinkTls: Send + Sync {
    /// For connections that this member accepts.
    fn server(&self) -> Arc<ServerConfig>;

    /// For a connection that this member makes to another.
    fn client(&self, to: &MemberName) -> Arc<ClientConfig>;

    /// The member that the certificates of a finished handshake name.
    ///
    /// # Errors
    /// Why, in words, when there are none, or they name no member of this pair.
    fn member(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<MemberName, String>;
}

impl LinkTls for Tls {
    fn server(&self) -> Arc<ServerConfig> {
        self.mutual_server()
    }

    fn client(&self, to: &MemberName) -> Arc<ClientConfig> {
        Tls::client(self, Expected::Member(to.clone()))
    }

    fn member(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<MemberName, String> {
        match self.identify(certificates) {
            Ok(PeerIdentity::Member(name)) => Ok(name),
            Ok(PeerIdentity::Operator) => Err("the operator has no business here".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
