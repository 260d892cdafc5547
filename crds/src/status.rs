//! The status of an ActiveStandbyPair: what the operator answers. Nothing here changes with load;
//! figures live in metrics and in the command line's `status`.

use crate::Phase;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator says of a pair. Written by the operator only.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ActiveStandbyPairStatus {
    /// `metadata.generation` that this status was judged from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people; no program should decide on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Since when the phase holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// Epoch on the Lease; rises at each change of the active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The database; set once. While it is set, an empty directory can only be duplicated into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dbid: Option<String>,
    /// Member that serves as active; absent when none is known to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Member that follows as standby; absent when none is known to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
    /// Label selector of the subscribers' pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Whether the standby is in sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// What an acknowledged commit survives now, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promise: Option<String>,
    /// The way out of this phase; absent in Normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitStatus>,
    /// Members that exist, and retired ones whose volumes are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<MemberStatus>,
    /// Highest number ever given to a voter: names are never used twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_member: Option<i32>,
    /// Log tails of old epochs, exported and kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trapped: Vec<TrappedTail>,
    /// The subscribers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribers: Option<SubscribersStatus>,
    /// The certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,
    /// What the spec means after defaults and computation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectiveStatus>,
    /// The newest decisions, newest first, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub decisions: Vec<Decision>,
    /// Conditions; types only, one of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Whether the standby is in sync, and since when.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// The word.
    pub state: SyncWord,
    /// Since when, by the operator's clock.
    pub since: Time,
}

/// Whether the standby is in sync.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncWord {
    /// The Lease names the living standby: it may be promoted.
    InSync,
    /// It follows, and is not yet recorded.
    CatchingUp,
    /// The active acknowledges alone, and the Lease says so.
    Alone,
    /// Nobody who knows could be asked.
    Unknown,
}

/// The way out of a phase. All four are set in every phase but Normal.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExitStatus {
    /// What happens next by itself; `none` when nothing will.
    pub next_automatic_step: String,
    /// By when; absent when it depends on something outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// What a person must or may do; `none` when nothing.
    pub human_action: String,
    /// Which acknowledged commits could be lost now, and by what.
    pub data_at_risk: String,
}

/// One member.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The member, also the name of its pod and Service.
    pub name: String,
    /// Node of its pod; absent while it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Role as the member itself says: Active, Standby, Subscriber, Idle, Recovering, Failed; Unknown
    /// when it could not be asked.
    pub role: String,
    /// Whether it belongs to the pair now.
    pub standing: MemberStanding,
    /// Finer state, or why the pod does not run.
    pub state: String,
    /// Its data volume.
    pub volume: String,
    /// Version of its program; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Since when `role` and `state` hold, by the operator's clock.
    pub since: Time,
}

/// Whether a member belongs to the pair now.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStanding {
    /// It may vote.
    Voter,
    /// It follows, without a vote.
    Subscriber,
    /// It was replaced; its volume is kept.
    Retired,
}

/// A log tail of an old epoch.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrappedTail {
    /// The member that keeps it.
    pub member: String,
    /// Its epoch.
    pub epoch: i64,
    /// How many transactions.
    pub transactions: i64,
    /// File on the member's data volume.
    pub file: String,
}

/// The subscribers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SubscribersStatus {
    /// Wanted.
    pub desired: i32,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that serve reads.
    pub ready: i32,
    /// `ready/desired`, for the column.
    pub summary: String,
    /// The member that feeds them; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fed_by: Option<String>,
}

/// The certificates.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesStatus {
    /// The earliest end among the members' certificates and their authority.
    pub not_after: Time,
}

/// What the spec means after defaults and computation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveStatus {
    /// Image of the node-agent.
    pub image: String,
    /// Mode.
    pub mode: String,
    /// Return service.
    pub return_service: String,
    /// Durability.
    pub durability: String,
    /// What the active does when the standby is lost.
    pub when_standby_lost: String,
    /// Which loss an automatic promotion may accept.
    pub data_loss: String,
    /// Who decides that another member becomes active.
    pub failover_policy: String,
    /// What becomes of a member whose node does not come back.
    pub node_loss: String,
    /// D in seconds.
    pub lease_duration_seconds: i32,
    /// Permanent memory.
    pub permanent_memory: String,
    /// Temporary memory.
    pub temporary_memory: String,
    /// Memory request and limit of a voter's container.
    pub container_memory: String,
    /// Size of a data volume.
    pub data_size: String,
    /// Size of a log volume.
    pub log_size: String,
    /// The pair as the statement of the original that would make it.
    pub scheme: String,
}

/// One change of the active: what was seen, what was done, and how long each part took.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// `D-` and the epoch.
    pub id: String,
    /// The rule that applied.
    pub rule: String,
    /// When, by the deciding member's clock.
    pub at: Time,
    /// The epoch that it opened.
    pub epoch: i64,
    /// What was seen, one fact a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saw: Vec<String>,
    /// What was done.
    pub did: String,
    /// Which acknowledged commits it could lose, as known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_loss: Option<String>,
    /// What the old active had beyond the new one, once it was back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_loss: Option<String>,
    /// What was not done, and why.
    pub rejected: String,
    /// Death or last sign → first notice; absent when nobody measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_millis: Option<i64>,
    /// First notice → candidacy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decide_millis: Option<i64>,
    /// Waiting until the old active surely cannot acknowledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence_millis: Option<i64>,
    /// Lease taken → serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_millis: Option<i64>,
    /// Serving → its pod carries the role label, seen by the operator's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_millis: Option<i64>,
}
