//! What is known of a pair at one moment: plain data, made by `observe`, judged by `plan`.
//!
//! **Invariant**: what could not be asked is `Unknown` with the moment since when; it is never taken
//! for absent or false (law 5).

use jiff::Timestamp;
use std::collections::BTreeMap;
use understudy_agent_api::{AgentStatus, names_incarnation};
use understudy_authority::LeaseRecord;
use understudy_crds::ActiveStandbyPairStatus;
use understudy_types::{Incarnation, MemberName};

/// A fact, or since when it is not known and why.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<T> {
    /// Known now.
    Known(T),
    /// Not known.
    Unknown {
        /// Since when, by the operator's clock.
        since: Timestamp,
        /// Why the last attempt failed, in words.
        why: String,
    },
}

/// Why nothing is known of an agent whose stream was just opened.
pub const NOT_ASKED: &str = "not asked yet";

impl<T> Seen<T> {
    /// Whether nobody has had the time to answer or to fail.
    pub fn is_not_asked(&self) -> bool {
        matches!(self, Seen::Unknown { why, .. } if why == NOT_ASKED)
    }

    /// The fact, when it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Seen::Known(value) => Some(value),
            Seen::Unknown { .. } => None,
        }
    }
}

/// The pair's Lease.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one per look at a pair, and never in a list")]
pub enum LeaseSight {
    /// The API server says that there is none.
    Absent {
        /// Milliseconds since the operator first saw that.
        since_ms: u64,
    },
    /// It exists and its annotation is no record that this version reads.
    Unreadable(String),
    /// The record.
    Present {
        /// What it says.
        record: LeaseRecord,
        /// Milliseconds since the operator first saw this version; a holder renews every D/5.
        unchanged_ms: u64,
        /// Somebody deleted it; only its finalizer keeps it.
        is_being_deleted: bool,
    },
}

/// A container that ended, as its kubelet tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDeath {
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
    /// Kubernetes' word for why.
    pub reason: String,
    /// Its termination message, where its supervisor names every process that it ran.
    pub message: String,
    /// The kubelet itself wrote the pod's status at or after the end (R10: its own heartbeat).
    pub kubelet_was_alive: bool,
}

impl ContainerDeath {
    /// Whether this proves `incarnation` dead (R10).
    #[must_use]
    pub fn proves(&self, incarnation: Incarnation) -> bool {
        names_incarnation(&self.message, incarnation)
            && self.reason != "ContainerStatusUnknown"
            && self.kubelet_was_alive
    }
}

/// What the agent's container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerSight {
    /// No status yet: not scheduled, or the kubelet has not begun.
    Absent,
    /// It waits; reason and message are the kubelet's.
    Waiting {
        /// For example `ImagePullBackOff`.
        reason: String,
        /// In words; may be empty.
        message: String,
    },
    /// It runs.
    Running,
    /// It ended and was not started again yet.
    Terminated,
}

/// A member's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSight {
    /// UID: another one is another pod.
    pub uid: String,
    /// Node, once scheduled.
    pub node: Option<String>,
    /// Whether it belongs to this pair object, not to a deleted one of the same name.
    pub is_ours: bool,
    /// Deletion has begun.
    pub is_being_deleted: bool,
    /// Its phase is Failed or Succeeded: it will never run again.
    pub has_ended: bool,
    /// Ready condition.
    pub is_ready: bool,
    /// The scheduler's message when no node fits.
    pub unschedulable: Option<String>,
    /// Hash of the template that it was made from.
    pub template: Option<String>,
    /// Value of the role label.
    pub role_label: Option<String>,
    /// The container now.
    pub container: ContainerSight,
    /// Ends of containers of this pod that its status still tells, newest first.
    pub deaths: Vec<ContainerDeath>,
}

/// One volume claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSight {
    /// Deletion has begun.
    pub is_being_deleted: bool,
    /// Its volume is gone (`Lost`).
    pub is_lost: bool,
    /// Size that is asked for; `None` when it cannot be read.
    pub bytes: Option<u64>,
    /// Database noted on it.
    pub dbid: Option<String>,
}

/// The two volume claims of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumesSight {
    /// Checkpoints; `None`: the API server says that there is none.
    pub data: Option<VolumeSight>,
    /// The log.
    pub log: Option<VolumeSight>,
}

/// Everything known of a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The Lease.
    pub lease: Seen<LeaseSight>,
    /// Pods by member.
    pub pods: BTreeMap<MemberName, PodSight>,
    /// Volume claims by member.
    pub volumes: BTreeMap<MemberName, VolumesSight>,
    /// What the agents say; a member without an entry was never asked.
    pub agents: BTreeMap<MemberName, Seen<AgentStatus>>,
    /// The status that was written last.
    pub status: ActiveStandbyPairStatus,
}

impl Observation {
    /// The record on the Lease, when there is one.
    #[must_use]
    pub fn record(&self) -> Option<&LeaseRecord> {
        match self.lease.known()? {
            LeaseSight::Present { record, .. } => Some(record),
            LeaseSight::Absent { .. } | LeaseSight::Unreadable(_) => None,
        }
    }

    /// What a member's agent says, when it answers.
    #[must_use]
    pub fn agent(&self, member: &MemberName) -> Option<&AgentStatus> {
        self.agents.get(member)?.known()
    }
}
