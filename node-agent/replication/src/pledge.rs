//! The word of the other voter, where a candidacy needs it: its durable promise of the new epoch, so
//! that a holder who may still live gets no grant any more (R11), and the end of its log, so that
//! nothing acknowledged is missing (R13c).
//!
//! It does not travel on the replication link, which may not exist: the agents ask over the control
//! port.

use understudy_authority::Holder;
use understudy_types::{Dbid, Epoch, EpochId, Lsn};

/// What a candidate asks the other voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PledgeRequest {
    /// Database of the candidate.
    pub dbid: Option<Dbid>,
    /// Epoch that the candidate would open; it is the author.
    pub epoch: EpochId,
    /// The candidate.
    pub candidate: Holder,
    /// Where its log ends, when the candidacy needs a comparison (R13c): a voter whose own log ends
    /// later promises nothing and goes itself.
    pub compare: Option<LogEnd>,
    /// A person set the asker active, under `mode: Paused`, at this time in milliseconds since 1970: an
    /// active of a lower epoch, or of the same and an earlier word, steps down.
    pub set_at_ms: Option<u64>,
}

/// End of a log: epoch number of its last record first, then its LSN (A2.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// Epoch of the last record.
    pub epoch: Epoch,
    /// The last record.
    pub lsn: Lsn,
}

/// The word, given after it was persisted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pledge {
    /// The epoch that is promised.
    pub epoch: EpochId,
    /// Who promised.
    pub voter: Holder,
    /// Where its log ends; it takes nothing of lower epochs any more.
    pub end: LogEnd,
}

/// Why the word was not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PledgeRefused {
    /// In words.
    pub why: String,
    /// What the voter has promised already: a candidate must go above it.
    pub promised: Epoch,
}
