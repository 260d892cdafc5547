//! What a member is, and what an acknowledgement promises.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a member is at this moment. Never durable (R1): it follows from the Lease and the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Takes writes, while it holds authority.
    Active,
    /// Follows the active and may take over.
    Standby,
    /// Follows a feeder, read-only, no vote.
    Subscriber,
    /// Runs, follows nobody and serves nobody.
    Idle,
    /// Replays its own log or builds a duplicate.
    Recovering,
    /// Cannot go on by itself.
    Failed,
}

impl Role {
    /// The value of the pod label `understudy.dev/role`, and the word in `ttRepStateGet` in lower case.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Role::Active => "active",
            Role::Standby => "standby",
            Role::Subscriber => "subscriber",
            Role::Idle => "idle",
            Role::Recovering => "recovering",
            Role::Failed => "failed",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_label())
    }
}

/// What a commit waits for on the standby (seed 003, "Using a return service").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ReturnService {
    /// Nothing: S is the active alone, and nothing is promoted automatically.
    NoReturn,
    /// The standby has received the records.
    Receipt,
    /// The standby has received, logged and applied the records and cannot fail to show them.
    #[default]
    Twosafe,
}

/// What an active does when its standby is lost (seed 003, "RETURN SERVICES … WHEN STOPPED").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum WhenStandbyLost {
    /// It records on the Lease that it is alone, and goes on.
    #[default]
    Continue,
    /// Its commits wait for a standby.
    Block,
}

/// Which disks hold a commit before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Durability {
    /// None: two memories.
    Memory,
    /// The active's own disk.
    #[default]
    LocalDisk,
    /// The active's and the standby's disks.
    BothDisks,
}
