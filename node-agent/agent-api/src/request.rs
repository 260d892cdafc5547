//! Requests to an agent.

use serde::{Deserialize, Serialize};
use understudy_types::{
    Dbid, Durability, Epoch, EpochId, FailoverPolicy, Incarnation, Lsn, MaxLoss, MemberName,
    ReturnService, StoreId, WhenStandbyLost,
};

/// Where a member is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberAddress {
    /// The member.
    pub member: MemberName,
    /// DNS name or address, without port.
    pub host: String,
}

/// What the pair is. Written by the operator from the spec, persisted by each agent, and replaced
/// only by a higher version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheme {
    /// Rises with every change of the pair, also when it is made again over kept volumes
    /// (operator/decisions/0002).
    pub version: u64,
    /// The pods that may vote. Who really votes stands on the Lease.
    pub voters: Vec<MemberAddress>,
    /// Read-only subscribers, at most 127.
    pub subscribers: Vec<MemberAddress>,
    /// What a commit waits for.
    pub return_service: ReturnService,
    /// Which disks hold it first.
    pub durability: Durability,
    /// What the active does when the standby is lost.
    pub when_standby_lost: WhenStandbyLost,
    /// D of the protocol, in milliseconds, 3,000 to 60,000.
    pub lease_duration_ms: u64,
    /// Port of replication.
    pub replication_port: u16,
    /// Whether agents may become active without a person; false under `mode: Paused`.
    pub automatic: bool,
    /// Who decides that another member becomes active.
    #[serde(default)]
    pub failover: FailoverPolicy,
    /// What a promotion may lose when commits wait for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<MaxLoss>,
}

/// Asks the agent to consider a candidacy now instead of at its next own look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidacyRequest {
    /// Epoch on the Lease that the asker judged; another one makes the request stale.
    pub epoch: Epoch,
    /// Why, in words, for the decision's record.
    pub reason: String,
    /// A person asks, which `failover.policy: Manual` waits for.
    #[serde(default)]
    pub by_person: bool,
    /// That person accepts that commits may be missing on this member (R13d).
    #[serde(default)]
    pub accepts_loss: bool,
}

/// How somebody knows that a process is dead (R10). Nothing else is a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum DeathEvidence {
    /// The parent process reaped it.
    #[serde(rename_all = "camelCase")]
    Reaped {
        /// Exit code, or 128 + signal.
        exit_code: i32,
    },
    /// The kubelet reports its container terminated and names the incarnation.
    #[serde(rename_all = "camelCase")]
    ContainerTerminated {
        /// Exit code from the container's status.
        exit_code: i32,
    },
    /// The same pod already runs a later container.
    LaterContainer,
    /// A person says so.
    #[serde(rename_all = "camelCase")]
    Person {
        /// Who.
        name: String,
    },
}

/// An incarnation is dead, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeathReport {
    /// The member that ran it.
    pub member: MemberName,
    /// The process.
    pub incarnation: Incarnation,
    /// The proof.
    pub evidence: DeathEvidence,
}

/// Asks the active to hand its role to the standby (R22).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferRequest {
    /// Epoch of the active; another one makes the request stale.
    pub epoch: Epoch,
    /// Who shall become active.
    pub to: MemberName,
    /// How long the active may hold commits back before it undoes the attempt, in milliseconds.
    pub deadline_ms: u64,
}

/// Asks a voter to promise an epoch to another one, durably, and to say where its log ends (R11, R13c).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PledgeRequest {
    /// Database of the candidate.
    pub dbid: Option<Dbid>,
    /// Epoch that the candidate would open.
    pub epoch: EpochId,
    /// The candidate: member,
    pub member: MemberName,
    /// its directory,
    pub store: StoreId,
    /// its process.
    pub incarnation: Incarnation,
    /// Where its log ends, when it must not be behind the voter's (R13c): epoch of the last record, LSN.
    pub compare: Option<(Epoch, Lsn)>,
    /// A person set the asker active under `mode: Paused`, at this time in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at_ms: Option<u64>,
}

/// The answer to [`PledgeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum PledgeAnswer {
    /// Promised, on disk.
    #[serde(rename_all = "camelCase")]
    Promised {
        /// The epoch, as it was asked.
        epoch: EpochId,
        /// Who promised: member,
        member: MemberName,
        /// its directory,
        store: StoreId,
        /// its process.
        incarnation: Incarnation,
        /// Epoch of the last record of its log.
        end_epoch: Epoch,
        /// The last record of its log.
        end_lsn: Lsn,
    },
    /// Not promised.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// In words.
        reason: String,
        /// What it has promised already; a candidate goes above it.
        promised: Epoch,
    },
}

/// Why a request was not taken; sent with status 409 (stale), 403 (identity) or 422 (bad).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// What is wrong, and what to do instead.
    pub reason: String,
}

/// Asks for the transactions of a trapped tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrappedQuery {
    /// The tail, as in `AgentStatus::trapped`.
    pub file: String,
    /// Only those after this one.
    pub after: Lsn,
}

/// Some of them, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrappedPage {
    /// The transactions.
    pub transactions: Vec<TrappedTransaction>,
    /// Whether there are no more.
    pub is_last: bool,
}

/// One transaction that the pair went on without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrappedTransaction {
    /// Its place in the old log.
    pub lsn: Lsn,
    /// What it did to rows, a statement each; what no statement can tell is a comment (`--`).
    pub statements: Vec<String>,
}
