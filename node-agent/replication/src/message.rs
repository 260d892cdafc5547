//! What two members say on the replication link, as data. A follower dials its feeder and attaches;
//! from then on the feeder sends frames and heartbeats, the follower acknowledgements and grants.
//! Every message carries an epoch, and a receiver refuses an older one (law 4).
//!
//! The bytes of log records travel beside a [`Message::Frame`], not in it: the transport writes them
//! from the log's own buffers.

use serde::{Deserialize, Serialize};
use understudy_types::{
    Dbid, Epoch, EpochHistory, EpochId, Incarnation, Lsn, MemberName, RunningHash, Span, StoreId,
};

/// Version of this protocol; another one is refused at [`Attach`].
pub const WIRE_VERSION: u32 = 1;
/// Most bytes of records in one frame.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Whether the follower votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowerKind {
    /// The standby: a voter, or a store that wants to be admitted as one.
    Standby,
    /// A read-only subscriber.
    Subscriber,
}

/// A follower's process, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// The member.
    pub member: MemberName,
    /// Its directory.
    pub store: StoreId,
    /// Its process.
    pub incarnation: Incarnation,
}

/// First message of a follower (R18, A2.17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// [`WIRE_VERSION`].
    pub version: u32,
    /// Who.
    pub follower: Follower,
    /// As what.
    pub kind: FollowerKind,
    /// The database in the follower's directory; `None` when it is empty and wants a duplicate.
    pub dbid: Option<Dbid>,
    /// Its epoch history.
    pub history: EpochHistory,
    /// End of its log.
    pub end: Lsn,
    /// Highest epoch it promised: an active of a lower one must bump first (R12).
    pub promised: Epoch,
}

/// The feeder's answer to [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attached {
    /// Both logs are the same up to `fork`; records follow from the next one.
    Follow {
        /// Epoch of the feeder.
        epoch: EpochId,
        /// The feeder's process.
        feeder: Incarnation,
        /// Last common record.
        fork: Lsn,
        /// Running hash there; the follower compares before it cuts anything.
        hash: RunningHash,
        /// The feeder's history.
        history: EpochHistory,
    },
    /// The feeder no longer has the records after the fork, or there is nothing in common.
    Duplicate {
        /// Why, in words.
        reason: String,
    },
    /// This member does not feed at this time.
    Refused {
        /// Why, in words.
        reason: String,
        /// Who holds the Lease as far as this member knows.
        active: Option<MemberName>,
    },
}

/// Every later message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Feeder → follower: whole encoded records, contiguous, in the bytes that follow.
    Frame {
        /// Epoch of the feeder.
        epoch: Epoch,
        /// First record.
        first: Lsn,
        /// Last record.
        last: Lsn,
        /// Everything at or below is acknowledged (R17).
        acknowledged: Lsn,
    },
    /// Feeder → follower: `acknowledged_lsn` moved and there was no frame to carry it.
    Acknowledged {
        /// Epoch of the feeder.
        epoch: Epoch,
        /// See `Frame`.
        acknowledged: Lsn,
    },
    /// Active → standby (R5), every min(T/10, 200 ms).
    Heartbeat {
        /// Epoch of the active.
        epoch: Epoch,
        /// Its process.
        active: Incarnation,
        /// Fresh number; the grant echoes it.
        nonce: u64,
        /// Whether it had authority by R4 or R5 when it sent this.
        serving: bool,
        /// T: how long a grant shall last.
        grant: Span,
        /// End of its log.
        end: Lsn,
        /// See `Frame`.
        acknowledged: Lsn,
    },
    /// Standby → active: the answer to one heartbeat (R5).
    Grant {
        /// Epoch of the heartbeat.
        epoch: Epoch,
        /// Number of the heartbeat.
        nonce: u64,
        /// The standby's process.
        standby: Incarnation,
    },
    /// Follower → feeder: how far it is (R18).
    Ack {
        /// Epoch that it follows.
        epoch: Epoch,
        /// Who.
        incarnation: Incarnation,
        /// Directory.
        store: StoreId,
        /// Last record in its memory.
        received: Lsn,
        /// Last record on its disk.
        durable: Lsn,
        /// Last record applied and unable to fail.
        applied: Lsn,
    },
    /// Follower → feeder: it could not apply a record; it is no longer in sync (A2.20).
    ApplyFailed {
        /// Epoch that it follows.
        epoch: Epoch,
        /// The record.
        lsn: Lsn,
        /// Why.
        reason: String,
    },
    /// Follower → feeder: it promised a higher epoch (R9, R12).
    Refused {
        /// What it promised.
        promised: Epoch,
    },
}

impl Message {
    /// The epoch it carries.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Frame { epoch, .. }
            | Self::Acknowledged { epoch, .. }
            | Self::Heartbeat { epoch, .. }
            | Self::Grant { epoch, .. }
            | Self::Ack { epoch, .. }
            | Self::ApplyFailed { epoch, .. } => *epoch,
            Self::Refused { promised } => *promised,
        }
    }
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are not a replication message")]
pub struct MessageError(#[source] postcard::Error);

macro_rules! wire {
    ($($type:ty),*) => {$(
        impl $type {
            /// Bytes for the wire.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                postcard::to_stdvec(self).expect("plain data always encodes")
            }

            /// From bytes of the wire; they are not trusted.
            ///
            /// # Errors
            /// When they are not such a message.
            pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
                postcard::from_bytes(bytes).map_err(MessageError)
            }
        }
    )*};
}
wire!(Attach, Attached, Message);
