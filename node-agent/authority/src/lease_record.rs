//! The authority record on the pair's Lease (R3): one annotation, written only whole.

use serde::{Deserialize, Serialize};
use understudy_types::{Dbid, Epoch, Incarnation, Lsn, MaxLoss, MemberName, StoreId};

/// A voter process: member, its data directory and the life that holds or held the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The member.
    pub member: MemberName,
    /// Its data directory.
    pub store: StoreId,
    /// The process.
    pub incarnation: Incarnation,
}

/// A store that has a vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Voter {
    /// The member.
    pub member: MemberName,
    /// The one store of it whose promises and acknowledgements count (A1.22).
    pub store: StoreId,
}

/// What the standby of S is known to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncClass {
    /// Nothing is acknowledged that the standby has not received.
    Receipt,
    /// Nothing is acknowledged that the standby has not applied.
    Twosafe,
    /// It may be without so much of what is acknowledged: its promotion is a bounded loss (A2.12).
    Async(MaxLoss),
}

/// The standby in S (R16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandbySync {
    /// The standby's process: a restarted one is out of S until recorded again (A2.1).
    pub standby: Holder,
    /// What it holds.
    pub class: SyncClass,
}

/// State of the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum LeaseState {
    /// Made by the operator; no database exists.
    Uninitialised,
    /// This process alone may initialise its empty directory (R20).
    #[serde(rename_all = "camelCase")]
    Initialising {
        /// The one initialiser.
        by: Holder,
    },
    /// Somebody holds it.
    Held,
    /// The last holder let go.
    Released,
    /// The last holder hands over (R22).
    #[serde(rename_all = "camelCase")]
    Transferring {
        /// Who may take it.
        to: MemberName,
        /// End of the holder's log; nothing above it was or will be acknowledged in that epoch.
        lsn: Lsn,
    },
}

/// The whole record. S = {last holder} ∪ {sync}.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// Format of this record.
    pub format: u32,
    /// The database; `None` before initialisation, then never changed.
    pub dbid: Option<Dbid>,
    /// The epoch; equals `spec.leaseTransitions`.
    pub epoch: Epoch,
    /// One higher at each write (A1.14).
    pub seq: u64,
    /// State.
    #[serde(flatten)]
    pub state: LeaseState,
    /// The last holder, also when released; `None` before the first.
    pub holder: Option<Holder>,
    /// D in force, written by the holder (A1.11), in milliseconds.
    pub lease_duration_ms: u64,
    /// Who votes; at most two.
    pub voters: Vec<Voter>,
    /// The standby in S; `None` means that S is the last holder alone.
    pub sync: Option<StandbySync>,
    /// The holder took the role without commits that were acknowledged, and may not have said so in its
    /// log yet: whoever opens the next epoch says it (R13d, A2.12).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lossy: bool,
}

/// Why an annotation is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of a record.
    #[error("the authority annotation is not a record")]
    Syntax(#[source] serde_json::Error),
    /// Of a format that this version does not know.
    #[error("the authority record has format {found}, this version reads {known}; upgrade first")]
    Format {
        /// Found.
        found: u32,
        /// Known.
        known: u32,
    },
    /// Two voters at most, and a held Lease has a holder.
    #[error("the authority record contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl LeaseRecord {
    /// Format written by this version.
    pub const FORMAT: u32 = 1;
    /// Most voters beside the Lease.
    pub const VOTERS_MAX: usize = 2;

    /// The record that the operator creates the Lease with (R20).
    #[must_use]
    pub fn uninitialised(lease_duration_ms: u64) -> Self {
        Self {
            format: Self::FORMAT,
            dbid: None,
            epoch: Epoch::ZERO,
            seq: 1,
            state: LeaseState::Uninitialised,
            holder: None,
            lease_duration_ms,
            voters: Vec::new(),
            sync: None,
            lossy: false,
        }
    }

    /// Reads the annotation.
    ///
    /// # Errors
    /// When it is not a consistent record of a known format.
    pub fn parse(annotation: &str) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_str(annotation).map_err(RecordError::Syntax)?;
        if record.format != Self::FORMAT {
            return Err(RecordError::Format { found: record.format, known: Self::FORMAT });
        }
        if record.voters.len() > Self::VOTERS_MAX {
            return Err(RecordError::Contradiction("more than two voters"));
        }
        let held = match record.state {
            LeaseState::Held | LeaseState::Released | LeaseState::Transferring { .. } => true,
            LeaseState::Uninitialised | LeaseState::Initialising { .. } => false,
        };
        if held && (record.holder.is_none() || record.dbid.is_none()) {
            return Err(RecordError::Contradiction("held once, but without holder or dbid"));
        }
        Ok(record)
    }

    /// The annotation's text.
    #[must_use]
    pub fn render(&self) -> String {
        serde_json::to_string(self).expect("a record has only text keys and finite numbers")
    }

    /// Whether `store` of `member` has a vote.
    #[must_use]
    pub fn is_voter(&self, member: &MemberName, store: StoreId) -> bool {
        self.voters.iter().any(|v| &v.member == member && v.store == store)
    }

    /// Whether the Lease is held and names exactly this process.
    #[must_use]
    pub fn is_held_by(&self, incarnation: Incarnation) -> bool {
        self.state == LeaseState::Held
            && self.holder.as_ref().is_some_and(|h| h.incarnation == incarnation)
    }

    /// What the Lease orders writes by: (epoch, seq).
    #[must_use]
    pub fn order(&self) -> (Epoch, u64) {
        (self.epoch, self.seq)
    }

    /// A copy to be changed and written next: the same, with `seq` one higher.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self { seq: self.seq + 1, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn holder(member: &str) -> Holder {
        Holder {
            member: MemberName::new(member).unwrap(),
            store: StoreId(Uuid::from_u128(7)),
            incarnation: Incarnation { start: 3, id: Uuid::from_u128(9) },
        }
    }

    #[test]
    fn a_record_survives_its_annotation() {
        let mut record = LeaseRecord::uninitialised(4000);
        record.dbid = Some(Dbid(Uuid::from_u128(1)));
        record.holder = Some(holder("orders-1"));
        record.sync = Some(StandbySync { standby: holder("orders-2"), class: SyncClass::Twosafe });
        let bounded = SyncClass::Async(MaxLoss { commits: 100, millis: 1_000 });
        for class in [SyncClass::Receipt, SyncClass::Twosafe, bounded] {
            record.sync = Some(StandbySync { standby: holder("orders-2"), class });
            record.state = LeaseState::Held;
            assert_eq!(LeaseRecord::parse(&record.render()).unwrap(), record);
        }
        for state in [
            LeaseState::Held,
            LeaseState::Released,
            LeaseState::Initialising { by: holder("orders-1") },
            LeaseState::Transferring { to: MemberName::new("orders-2").unwrap(), lsn: Lsn(12) },
        ] {
            record.state = state;
            assert_eq!(LeaseRecord::parse(&record.render()).unwrap(), record);
        }
    }

    #[test]
    fn a_held_record_without_a_holder_is_refused() {
        let mut record = LeaseRecord::uninitialised(4000);
        record.state = LeaseState::Held;
        assert!(matches!(LeaseRecord::parse(&record.render()), Err(RecordError::Contradiction(_))));
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut record = LeaseRecord::uninitialised(4000);
        record.format = 2;
        let error = LeaseRecord::parse(&record.render()).unwrap_err();
        assert!(error.to_string().contains("format 2"));
    }
}
