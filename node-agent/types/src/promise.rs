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
    /// Nothing: S is the active alone, and nothing is promoted automatically unless a loss is allowed
    /// ([`MaxLoss`]).
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

/// Who decides that another member than the last active becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum FailoverPolicy {
    /// The members and the operator, by the rules.
    #[default]
    Automatic,
    /// A person, for each epoch anew. What that person planned, and the last active's own return, need
    /// no further word.
    Manual,
}

/// How much of what was acknowledged a promotion may lose, where commits wait for nothing (A2.12). Both
/// bounds hold: the active acknowledges nothing beyond either while its standby could be promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MaxLoss {
    /// Log records: transactions, and the few that open epochs.
    pub commits: u64,
    /// Age of the oldest that the standby may be without, in milliseconds.
    pub millis: u64,
}

impl fmt::Display for MaxLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} commits, of the last {} s", self.commits, self.millis.div_ceil(1000))
    }
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
