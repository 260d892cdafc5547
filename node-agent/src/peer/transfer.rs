//! What the two sides of a duplicate say to each other (A2.16), as data. `crate::duplicate` acts.

use serde::{Deserialize, Serialize};
use understudy_replication::{Follower, FollowerKind};
use understudy_types::{Dbid, EpochId, Incarnation, Lsn, RunningHash, StoreId};

/// Version of the duplicate's protocol; another one is refused.
pub const DUPLICATE_VERSION: u32 = 1;

/// One checkpoint file, unmistakably: two of equal name have equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointName {
    /// The database.
    pub dbid: Dbid,
    /// The directory that wrote the file.
    pub store: StoreId,
    /// Epoch of the last record in it, with author.
    pub epoch: EpochId,
    /// Last record in it.
    pub lsn: Lsn,
    /// Running hash of the log there.
    pub hash: RunningHash,
    /// Length of the file.
    pub bytes: u64,
}

/// First message of a member that wants a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateRequest {
    /// [`DUPLICATE_VERSION`].
    pub version: u32,
    /// Who asks, with the directory and process it has now.
    pub follower: Follower,
    /// As what it will attach.
    pub kind: FollowerKind,
    /// The database it belongs to; `None` when it never had one. A source of another is refused.
    pub dbid: Option<Dbid>,
    /// The file whose beginning it has already, and how many bytes of it.
    pub resume: Option<(CheckpointName, u64)>,
}

/// What the source answers; any number of `Preparing` comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DuplicateAnswer {
    /// A checkpoint is being taken; another answer follows within seconds.
    Preparing,
    /// The file follows, from a position on.
    Stream {
        /// The source's process.
        source: Incarnation,
        /// The source's epoch at this time; the receiver promises at least it.
        epoch: EpochId,
        /// The file.
        checkpoint: CheckpointName,
        /// First byte that follows: what the receiver has, or zero.
        from_bytes: u64,
    },
    /// No duplicate from this member at this time.
    Refused {
        /// Why, in words.
        reason: String,
    },
}

/// From the source: all bytes were sent. From the receiver: the file is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateEnd {
    /// The file.
    pub checkpoint: CheckpointName,
}
