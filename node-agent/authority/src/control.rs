//! What a member must remember across restarts (R1): the contents of its control file. Persisted
//! before any answer that relies on it; a role is never in it.

use serde::{Deserialize, Serialize};
use understudy_types::{Dbid, Epoch, EpochId, Incarnation, MemberName, Span, StoreId};

/// Highest Lease record seen: an older one later is an amnesiac voter (A1.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct LeaseSeen {
    /// Epoch on the record.
    pub epoch: Epoch,
    /// Its sequence number.
    pub seq: u64,
}

/// The contents of the control file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlState {
    /// The database; `None` in a directory that was never initialised.
    pub dbid: Option<Dbid>,
    /// This directory.
    pub store: StoreId,
    /// The member it belongs to.
    pub member: MemberName,
    /// Highest epoch promised: frames of lower ones are refused.
    pub promised: EpochId,
    /// T_max: the longest grant ever given, raised before its first use.
    pub grant_longest: Span,
    /// Who was ever given a grant, newest last, at most [`ControlState::GRANTED_MAX`]: when all of
    /// them are proven dead, no blackout is needed (R6).
    pub granted_to: Vec<Incarnation>,
    /// D_max: the longest lease duration seen.
    pub lease_longest: Span,
    /// Highest Lease record that anything here relied on.
    pub lease_seen: LeaseSeen,
    /// Last epoch in which this member acknowledged beyond its own fsync, set before the first time.
    pub acked_beyond_fsync: Option<Epoch>,
    /// A log write or fsync failed: the next start rejoins by duplicate.
    pub poisoned: bool,
    /// One higher at each process start.
    pub starts: u64,
}

/// Why bytes are not a control file's contents.
#[derive(Debug, thiserror::Error)]
#[error("the control file's contents cannot be read")]
pub struct ControlError(#[source] postcard::Error);

impl ControlState {
    /// Most receivers of grants that are remembered. One more forgets the oldest, which is safe:
    /// a receiver that old has seen its grants run out while this process was alive.
    pub const GRANTED_MAX: usize = 4;

    /// A fresh directory of `member`.
    #[must_use]
    pub fn fresh(member: MemberName, store: StoreId) -> Self {
        Self {
            dbid: None,
            store,
            member,
            promised: EpochId::default(),
            grant_longest: Span::ZERO,
            granted_to: Vec::new(),
            lease_longest: Span::ZERO,
            lease_seen: LeaseSeen::default(),
            acked_beyond_fsync: None,
            poisoned: false,
            starts: 0,
        }
    }

    /// Remembers that `active` is given grants of length `span`. Returns whether anything changed, and
    /// so must be persisted before the first such grant leaves.
    pub fn raise_grant(&mut self, active: Incarnation, span: Span) -> bool {
        let longer = span > self.grant_longest;
        let newcomer = !self.granted_to.contains(&active);
        if longer {
            self.grant_longest = span;
        }
        if newcomer {
            self.granted_to.push(active);
            if self.granted_to.len() > Self::GRANTED_MAX {
                self.granted_to.remove(0);
            }
        }
        longer || newcomer
    }

    /// Forgets that this process was given grants, because it is dead. Returns whether anything changed.
    pub fn forget_grant(&mut self, dead: Incarnation) -> bool {
        let before = self.granted_to.len();
        self.granted_to.retain(|receiver| *receiver != dead);
        before != self.granted_to.len()
    }

    /// Raises the promise; returns whether it rose and so must be persisted before any answer.
    pub fn raise_promise(&mut self, epoch: EpochId) -> bool {
        let rises = epoch.number > self.promised.number;
        if rises {
            self.promised = epoch;
        }
        rises
    }

    /// Bytes for the control file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data always encodes")
    }

    /// From the bytes of a control file.
    ///
    /// # Errors
    /// When the bytes are not such contents.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        postcard::from_bytes(bytes).map_err(ControlError)
    }
}
