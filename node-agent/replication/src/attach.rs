//! The feeder's judgement of a follower that attaches: may it follow, and from where (R18, A2.14,
//! A2.17)?

use crate::message::{Attach, Attached, WIRE_VERSION};
use understudy_types::{Dbid, EpochHistory, EpochId, Incarnation, Lsn, MemberName, RunningHash};

/// What the feeder knows of its own log.
#[derive(Debug)]
pub struct FeederLog<'a> {
    /// The database.
    pub dbid: Dbid,
    /// Epoch that the feeder serves or follows.
    pub epoch: EpochId,
    /// The feeder's process.
    pub feeder: Incarnation,
    /// Its history.
    pub history: &'a EpochHistory,
    /// End of its log.
    pub end: Lsn,
    /// Oldest record it still has.
    pub first_available: Lsn,
    /// Who is active as far as it knows.
    pub active: Option<MemberName>,
}

/// Answers [`Attach`]. `hash_at` tells the running hash of the feeder's log at an LSN; `None` when it
/// cannot be told any more.
#[must_use]
pub fn answer_attach(
    log: &FeederLog<'_>,
    attach: &Attach,
    hash_at: impl FnOnce(Lsn) -> Option<RunningHash>,
) -> Attached {
    if attach.version != WIRE_VERSION {
        return Attached::Refused {
            reason: format!(
                "replication version {} is spoken here, {} there: upgrade the older member",
                WIRE_VERSION, attach.version
            ),
            active: log.active.clone(),
        };
    }
    match attach.dbid {
        None => return Attached::Duplicate { reason: "the directory is empty".into() },
        Some(dbid) if dbid != log.dbid => {
            return Attached::Refused {
                reason: format!("database {dbid} there, {} here", log.dbid),
                active: log.active.clone(),
            };
        }
        Some(_) => {}
    }
    let fork = attach.history.fork(attach.end, log.history, log.end);
    if fork == Lsn::ZERO {
        return Attached::Duplicate { reason: "the two logs have nothing in common".into() };
    }
    if fork.next() < log.first_available {
        return Attached::Duplicate {
            reason: format!("records after {fork} are gone, the oldest is {}", log.first_available),
        };
    }
    match hash_at(fork) {
        Some(hash) => Attached::Follow {
            epoch: log.epoch,
            feeder: log.feeder,
            fork,
            hash,
            history: log.history.clone(),
        },
        None => Attached::Duplicate { reason: format!("the hash at {fork} is not known any more") },
    }
}
