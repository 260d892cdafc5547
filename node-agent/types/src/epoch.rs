//! Epochs, and the comparison of two logs by their epoch histories (R2, R18, A2.14).

use crate::{Incarnation, Lsn, RunningHash};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Fencing number: `leaseTransitions` of the pair's Lease. Only a Lease write makes a new one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first epoch.
    pub const ZERO: Epoch = Epoch(0);

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An epoch with its author (A1.15): two authors who used the same number made different epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EpochId {
    /// The fencing number.
    pub number: Epoch,
    /// `Incarnation::id` of the active that opened it; nil before the first epoch.
    pub author: Uuid,
}

/// The end of a log: the epoch of its last record and that record's LSN. Compared epoch first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Epoch of the last record.
    pub epoch: EpochId,
    /// LSN of the last record.
    pub lsn: Lsn,
}

impl Position {
    /// Whether a log ending here is at least as complete as one ending at `other` (R13c).
    #[must_use]
    pub fn is_at_least(self, other: Position) -> bool {
        (self.epoch.number, self.lsn) >= (other.epoch.number, other.lsn)
    }
}

/// Body of the first log record of every epoch (R2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochBegin {
    /// The epoch that this record opens.
    pub epoch: EpochId,
    /// The process that opened it.
    pub author: Incarnation,
    /// End of the log that the epoch continues.
    pub previous: Position,
    /// Running hash of the log at `previous.lsn`.
    pub hash: RunningHash,
    /// Whether acknowledged commits may be missing below this record (a waived promotion).
    pub lossy: bool,
}

/// One line of the history: an epoch and the LSN of its `EpochBegin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: EpochId,
    /// LSN of its first record.
    pub first_lsn: Lsn,
}

/// Which epoch wrote which part of a log, oldest first. Lives whole in every checkpoint and is never
/// trimmed, except at a fork.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochHistory {
    starts: Vec<EpochStart>,
}

/// Why a line cannot be added to a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {found} at LSN {first_lsn} does not follow epoch {last}")]
pub struct HistoryError {
    /// Last epoch of the history.
    pub last: Epoch,
    /// Epoch that was to be added.
    pub found: Epoch,
    /// Its first LSN.
    pub first_lsn: Lsn,
}

impl EpochHistory {
    /// Adds the newest epoch.
    ///
    /// # Errors
    /// When number and first LSN do not both rise.
    pub fn push(&mut self, start: EpochStart) -> Result<(), HistoryError> {
        if let Some(last) = self.starts.last()
            && (start.epoch.number <= last.epoch.number || start.first_lsn <= last.first_lsn)
        {
            return Err(HistoryError {
                last: last.epoch.number,
                found: start.epoch.number,
                first_lsn: start.first_lsn,
            });
        }
        self.starts.push(start);
        Ok(())
    }

    /// All lines, oldest first.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The epoch that wrote the record at `lsn`; the nil epoch below the first line.
    #[must_use]
    pub fn epoch_at(&self, lsn: Lsn) -> EpochId {
        let at = self.starts.partition_point(|s| s.first_lsn <= lsn);
        at.checked_sub(1).map_or_else(EpochId::default, |i| self.starts[i].epoch)
    }

    /// The newest epoch; the nil epoch when there is none.
    #[must_use]
    pub fn last_epoch(&self) -> EpochId {
        self.starts.last().map_or_else(EpochId::default, |s| s.epoch)
    }

    /// Forgets every epoch that begins above `lsn`: the log was cut there.
    pub fn cut_above(&mut self, lsn: Lsn) {
        self.starts.retain(|s| s.first_lsn <= lsn);
    }

    /// The largest LSN up to which two logs, ending at `end` and `other_end`, are the same: for each
    /// epoch both know, newest common first, the smaller of the two ends of that epoch (A2.14). The
    /// caller compares running hashes there before it cuts anything.
    #[must_use]
    pub fn fork(&self, end: Lsn, other: &EpochHistory, other_end: Lsn) -> Lsn {
        let mut common = Lsn::ZERO;
        for (at, start) in self.starts.iter().enumerate() {
            let Some(theirs) = other.starts.iter().position(|o| o == start) else { break };
            common = self.end_of(at, end).min(other.end_of(theirs, other_end));
        }
        common
    }

    fn end_of(&self, at: usize, end: Lsn) -> Lsn {
        self.starts.get(at + 1).map_or(end, |next| next.first_lsn.previous())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &[(u64, u128, u64)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for &(number, author, first) in lines {
            let epoch = EpochId { number: Epoch(number), author: Uuid::from_u128(author) };
            history.push(EpochStart { epoch, first_lsn: Lsn(first) }).unwrap();
        }
        history
    }

    #[test]
    fn equal_histories_fork_at_the_shorter_end() {
        let a = history(&[(1, 1, 1)]);
        assert_eq!(a.fork(Lsn(10), &a, Lsn(7)), Lsn(7));
    }

    #[test]
    fn an_old_active_forks_where_the_new_epoch_began() {
        let old = history(&[(1, 1, 1)]);
        let new = history(&[(1, 1, 1), (2, 2, 8)]);
        assert_eq!(old.fork(Lsn(10), &new, Lsn(20)), Lsn(7));
        assert_eq!(new.fork(Lsn(20), &old, Lsn(10)), Lsn(7));
    }

    #[test]
    fn a_chain_of_actives_forks_at_the_newest_common_epoch() {
        // A→B→A: LSNs 8..12 exist twice with different authors.
        let a = history(&[(1, 1, 1), (2, 2, 8), (4, 1, 12)]);
        let b = history(&[(1, 1, 1), (2, 2, 8), (3, 2, 10)]);
        assert_eq!(a.fork(Lsn(20), &b, Lsn(15)), Lsn(9));
    }

    #[test]
    fn the_same_number_by_two_authors_is_two_epochs() {
        let a = history(&[(1, 1, 1), (2, 1, 5)]);
        let b = history(&[(1, 1, 1), (2, 2, 5)]);
        assert_eq!(a.fork(Lsn(9), &b, Lsn(9)), Lsn(4));
    }

    #[test]
    fn strangers_have_nothing_in_common() {
        assert_eq!(history(&[(1, 1, 1)]).fork(Lsn(9), &history(&[(1, 2, 1)]), Lsn(9)), Lsn::ZERO);
    }

    #[test]
    fn a_history_only_grows_forward() {
        let mut a = history(&[(3, 1, 5)]);
        let epoch = EpochId { number: Epoch(3), author: Uuid::from_u128(2) };
        assert!(a.push(EpochStart { epoch, first_lsn: Lsn(9) }).is_err());
        a.cut_above(Lsn(4));
        assert_eq!(a.last_epoch(), EpochId::default());
    }

    #[test]
    fn completeness_is_judged_by_epoch_before_lsn() {
        let at = |number, lsn| Position {
            epoch: EpochId { number: Epoch(number), author: Uuid::nil() },
            lsn: Lsn(lsn),
        };
        assert!(at(2, 5).is_at_least(at(1, 50)));
        assert!(!at(1, 50).is_at_least(at(2, 5)));
    }
}
