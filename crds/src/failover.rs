//! `spec.failover`: how failures are detected, who decides, and what may be lost. All of it is live (L).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Failure detection, and what may be done about a failure.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.?dataLoss.orValue('Forbid') != 'AllowUpTo' || has(self.maxLoss)")
        .message("failover.dataLoss: AllowUpTo needs failover.maxLoss {seconds, commits}; write how much may be lost"),
    validation = Rule::new("!has(self.maxLoss) || self.?dataLoss.orValue('Forbid') == 'AllowUpTo'")
        .message("failover.maxLoss counts only with failover.dataLoss: AllowUpTo; write that, or leave maxLoss out")
)]
pub struct FailoverSpec {
    /// How long authority lasts without renewal; default 4. A silent active is replaced after about
    /// 1.25 times this.
    #[x_kube(validation = Rule::new("self >= 3 && self <= 60")
        .message("failover.leaseDurationSeconds is 3 to 60; shorter leases end during a slow API call, longer ones mean minutes without writes"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_duration_seconds: Option<i32>,
    /// Who decides that the other member becomes active; default Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<FailoverPolicyChoice>,
    /// Whether an automatic promotion may lose acknowledged commits; default Forbid. It has an effect
    /// with returnService: NoReturn only: with the others there is nothing to lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_loss: Option<DataLossChoice>,
    /// How much AllowUpTo allows. Both bounds hold: the active records that it is alone before it
    /// acknowledges beyond either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<MaxLossSpec>,
    /// What becomes of a member whose node does not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_loss: Option<NodeLossSpec>,
}

/// Who decides that another member becomes active.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailoverPolicyChoice {
    /// The members and the operator, by the rules.
    #[default]
    Automatic,
    /// The pair stops at phase ActiveDown and names the command. An active that comes back goes on by
    /// itself, and a planned hand-over needs no word.
    Manual,
}

/// Whether an automatic promotion may lose acknowledged commits.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataLossChoice {
    /// Never.
    #[default]
    Forbid,
    /// As many as maxLoss says.
    AllowUpTo,
}

/// How much a promotion may lose.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaxLossSpec {
    /// Commits of so many seconds.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3600")
        .message("failover.maxLoss.seconds is 1 to 3600"))]
    pub seconds: i32,
    /// So many commits.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 10000000")
        .message("failover.maxLoss.commits is 1 to 10000000"))]
    pub commits: i64,
}

/// What becomes of a member whose node does not come back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeLossSpec {
    /// Default Replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<NodeLossAction>,
    /// How long the member must be silent; default 300.
    #[x_kube(validation = Rule::new("self >= 10 && self <= 86400")
        .message("failover.nodeLoss.afterSeconds is 10 to 86400; a member that restarts takes some seconds"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<i32>,
}

/// What to do about a lost node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeLossAction {
    /// While the active serves, a new member is made on another node by duplicate. The old one's
    /// volumes are kept.
    #[default]
    Replace,
    /// The member is waited for.
    Wait,
}
