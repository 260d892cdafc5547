//! From what a user wrote to what the rest of the operator works with: defaults applied, sums done,
//! references checked. The Kubernetes API types stop here. Pure.
//!
//! What the API server refuses by the rules of the definition is not checked again, except where a
//! wrong value would do harm.

use crate::pair::names;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::BTreeMap;
use understudy_agent_api::{PORT_REPLICATION, names as shared};
use understudy_crds::{
    ActiveStandbyPair, ActiveStandbyPairSpec, ClientTls, DataLossChoice, DurabilityChoice,
    FailoverPolicyChoice, FailoverSpec, Mode, NodeLossAction, ResourcesSpec, RetentionPolicy,
    ReturnServiceChoice, Spread, VolumeSpec, WhenStandbyLostChoice, as_bytes, from_bytes,
};
use understudy_types::{
    Durability, Epoch, FailoverPolicy, MaxLoss, ReturnService, WhenStandbyLost,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Memory of the process beside its pools: code, stacks, TLS, the runtime.
const PROCESS_BYTES: u64 = 512 * MIB;
/// Larger sizes are slips of the pen, and sums of them would not fit into a number.
const SIZE_MAX: u64 = 1 << 50;
/// Rounding of computed sizes, so that they read well.
const ROUNDING_BYTES: u64 = MIB;

/// Which pair this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: part of every certificate's identity.
    pub uid: String,
    /// `metadata.generation` of the spec that was read.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds: a pair made again has a later one.
    pub created_unix: i64,
}

/// Resources of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerResources {
    /// CPU request.
    pub cpu_request: String,
    /// CPU limit; `None` means none.
    pub cpu_limit: Option<String>,
    /// Memory request and limit in bytes.
    pub memory_bytes: u64,
}

/// One kind of volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Size.
    pub bytes: u64,
    /// StorageClass; `None` means the cluster's default.
    pub class: Option<String>,
}

/// Placement of the voters.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Whether voters must differ in `topology_key`.
    pub spread: Spread,
    /// Node label.
    pub topology_key: String,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints accepted.
    pub tolerations: Vec<Toleration>,
    /// Priority class; `None` means the default.
    pub priority_class: Option<String>,
}

/// What becomes of a member whose node does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeLoss {
    /// It is waited for.
    Wait,
    /// It is replaced when it has been silent for so long, while the active serves.
    ReplaceAfter {
        /// In seconds.
        seconds: i64,
    },
}

/// A spec that can be carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedSpec {
    /// Who acts.
    pub mode: Mode,
    /// Image of the node-agent.
    pub image: String,
    /// Permanent memory in bytes.
    pub permanent_bytes: u64,
    /// Temporary memory in bytes.
    pub temporary_bytes: u64,
    /// Resources of a voter.
    pub voter_resources: ContainerResources,
    /// Resources of a subscriber.
    pub subscriber_resources: ContainerResources,
    /// Volume of checkpoints.
    pub data: Volume,
    /// Volume of the log.
    pub log: Volume,
    /// What becomes of volumes and Lease on deletion.
    pub retention: RetentionPolicy,
    /// What a commit waits for.
    pub return_service: ReturnService,
    /// Which disks hold it first.
    pub durability: Durability,
    /// What the active does when the standby is lost.
    pub when_standby_lost: WhenStandbyLost,
    /// Port of replication.
    pub replication_port: u16,
    /// How many subscribers.
    pub subscribers: u32,
    /// D in milliseconds.
    pub lease_duration_ms: u64,
    /// Who decides that another member becomes active.
    pub failover: FailoverPolicy,
    /// What an automatic promotion may lose when commits wait for nothing.
    pub max_loss: Option<MaxLoss>,
    /// What becomes of a member whose node does not come back.
    pub node_loss: NodeLoss,
    /// Placement.
    pub placement: Placement,
    /// Secret of the administrator that the user names.
    pub admin_secret: Option<String>,
    /// Secret of the application's user that the user names.
    pub app_secret: Option<String>,
    /// Secret of the certificate authority that the user names.
    pub ca_secret: Option<String>,
    /// Whether SQL clients must use TLS.
    pub client_tls: ClientTls,
    /// Legal, with a consequence: reason and message of ConfigurationWarning.
    pub warnings: Vec<(&'static str, String)>,
}

/// Why a spec cannot be carried out: reason and message of Stalled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The sum of memory does not fit in the limit.
    #[error(
        "{field} is {limit}, and permanent + temporary memory need {need}; write at least {need}, or leave it out"
    )]
    MemoryLimitTooSmall {
        /// Path in the spec.
        field: &'static str,
        /// What is written.
        limit: String,
        /// What is needed.
        need: String,
    },
    /// A size is not one.
    #[error("{field}: {problem}")]
    Size {
        /// Path in the spec.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A Secret that the spec names does not exist or lacks a key.
    #[error("Secret {name} ({field}) {problem}; name another, or leave the field out")]
    Secret {
        /// Path in the spec.
        field: &'static str,
        /// The Secret.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A StorageClass that the spec needs does not exist.
    #[error("{0}")]
    StorageClass(String),
    /// No image is known.
    #[error("the operator was started without an image of the node-agent; set spec.image")]
    NoImage,
}

impl Invalid {
    /// The reason on the Stalled condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Invalid::MemoryLimitTooSmall { .. } => "MemoryLimitTooSmall",
            Invalid::Size { .. } => "InvalidSize",
            Invalid::Secret { .. } => "SecretMissing",
            Invalid::StorageClass(_) => "StorageClassMissing",
            Invalid::NoImage => "NoImage",
        }
    }
}

/// What the spec refers to and the API server does not have, found by `observe`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Problems with Secrets and classes.
    pub problems: Vec<Invalid>,
}

/// A pair as the planner takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct PairView {
    /// Which pair.
    pub identity: Identity,
    /// The spec, or everything that is wrong with it.
    pub spec: Result<ValidatedSpec, Vec<Invalid>>,
    /// Epoch at which a person accepted a loss (R13d); text that is no number accepts nothing.
    pub loss_accepted: Option<Epoch>,
    /// Epoch after which a person wants the other member to go on (`failover.policy: Manual`).
    pub failover_asked: Option<Epoch>,
}

/// Reads a pair.
#[must_use]
pub fn validate(
    pair: &ActiveStandbyPair,
    default_image: &str,
    references: &References,
) -> PairView {
    let identity = Identity {
        namespace: pair.namespace().unwrap_or_default(),
        name: pair.name_any(),
        uid: pair.uid().unwrap_or_default(),
        generation: pair.metadata.generation.unwrap_or_default(),
        created_unix: pair.creation_timestamp().map_or(0, |t| t.0.as_second()),
    };
    let mut problems = references.problems.clone();
    let spec = read_spec(&pair.spec, &identity, default_image, &mut problems);
    let epoch_of = |annotation: &str| {
        pair.annotations().get(annotation).and_then(|epoch| epoch.parse().ok()).map(Epoch)
    };
    PairView {
        identity,
        spec: if problems.is_empty() { Ok(spec) } else { Err(problems) },
        loss_accepted: epoch_of(shared::ANNOTATION_ACCEPT_LOSS),
        failover_asked: epoch_of(shared::ANNOTATION_FAILOVER),
    }
}

fn read_spec(
    spec: &ActiveStandbyPairSpec,
    identity: &Identity,
    default_image: &str,
    problems: &mut Vec<Invalid>,
) -> ValidatedSpec {
    let image = spec.image.clone().filter(|i| !i.is_empty()).unwrap_or(default_image.to_owned());
    if image.is_empty() {
        problems.push(Invalid::NoImage);
    }
    let memory = spec.memory.clone().unwrap_or_default();
    let permanent_bytes = size("memory.permanent", memory.permanent.as_ref(), GIB, problems);
    let temporary_bytes =
        size("memory.temporary", memory.temporary.as_ref(), permanent_bytes / 4, problems);
    let need = container_need(permanent_bytes, temporary_bytes);
    let voter_resources =
        resources("resources.limits.memory", spec.resources.as_ref(), need, problems);
    let subscriber_resources = match &spec.subscribers.resources {
        Some(own) => resources("subscribers.resources.limits.memory", Some(own), need, problems),
        None => voter_resources.clone(),
    };
    let storage = spec.storage.clone().unwrap_or_default();
    let replication = spec.replication.clone().unwrap_or_default();
    let authentication = spec.authentication.clone().unwrap_or_default();
    let tls = spec.tls.clone().unwrap_or_default();
    let failover = spec.failover.clone().unwrap_or_default();
    let named = |name: &Option<String>| name.clone().filter(|n| !n.is_empty());
    let app_secret = named(&authentication.app_secret_name);
    let made_here = names::app_secret(&identity.name);
    if app_secret.as_ref() == Some(&made_here) {
        problems.push(Invalid::Secret {
            field: "authentication.appSecretName",
            name: made_here,
            problem: "is the one that the operator writes connection strings to".to_owned(),
        });
    }
    let data_default = (3 * permanent_bytes).max(4 * GIB);
    let log_default = permanent_bytes.max(2 * GIB);
    ValidatedSpec {
        mode: spec.mode.unwrap_or_default(),
        image,
        permanent_bytes,
        temporary_bytes,
        voter_resources,
        subscriber_resources,
        data: volume("storage.data.size", storage.data.as_ref(), data_default, problems),
        log: volume("storage.log.size", storage.log.as_ref(), log_default, problems),
        retention: storage.retention_policy.unwrap_or_default(),
        return_service: return_service(replication.return_service.unwrap_or_default()),
        durability: durability(replication.durability.unwrap_or_default()),
        when_standby_lost: when_standby_lost(replication.when_standby_lost.unwrap_or_default()),
        replication_port: replication
            .port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(PORT_REPLICATION),
        subscribers: u32::try_from(spec.subscribers.replicas.clamp(0, 127)).unwrap_or(0),
        lease_duration_ms: u64::try_from(failover.lease_duration_seconds.unwrap_or(4).clamp(3, 60))
            .unwrap_or(4)
            * 1000,
        failover: failover_policy(&failover),
        max_loss: max_loss(&failover),
        node_loss: node_loss(&failover),
        placement: placement(spec),
        admin_secret: named(&authentication.admin_secret_name),
        app_secret,
        ca_secret: named(&tls.ca_secret_name),
        client_tls: tls.clients.unwrap_or_default(),
        warnings: warnings(spec),
    }
}

/// (permanent + temporary) × 1.25 + what the process needs.
fn container_need(permanent: u64, temporary: u64) -> u64 {
    ((permanent + temporary) / 4 * 5 + PROCESS_BYTES).next_multiple_of(ROUNDING_BYTES)
}

fn size(
    field: &'static str,
    written: Option<&Quantity>,
    default: u64,
    problems: &mut Vec<Invalid>,
) -> u64 {
    match written.map(as_bytes) {
        None => default.next_multiple_of(ROUNDING_BYTES),
        Some(Ok(bytes)) if bytes > SIZE_MAX => {
            let problem = format!(
                "{} is more than any machine has; write at most {}",
                from_bytes(bytes).0,
                from_bytes(SIZE_MAX).0
            );
            problems.push(Invalid::Size { field, problem });
            default
        }
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => {
            problems.push(Invalid::Size { field, problem: error.to_string() });
            default
        }
    }
}

fn volume(
    field: &'static str,
    written: Option<&VolumeSpec>,
    default: u64,
    problems: &mut Vec<Invalid>,
) -> Volume {
    Volume {
        bytes: size(field, written.and_then(|v| v.size.as_ref()), default, problems),
        class: written.and_then(|v| v.storage_class_name.clone()).filter(|c| !c.is_empty()),
    }
}

fn resources(
    field: &'static str,
    written: Option<&ResourcesSpec>,
    need: u64,
    problems: &mut Vec<Invalid>,
) -> ContainerResources {
    let limits = written.and_then(|r| r.limits.clone()).unwrap_or_default();
    let requests = written.and_then(|r| r.requests.clone()).unwrap_or_default();
    let memory_bytes = size(field, limits.memory.as_ref(), need, problems);
    if memory_bytes < need {
        problems.push(Invalid::MemoryLimitTooSmall {
            field,
            limit: from_bytes(memory_bytes).0,
            need: from_bytes(need).0,
        });
    }
    ContainerResources {
        cpu_request: requests.cpu.map_or_else(|| "1".to_owned(), |q| q.0),
        cpu_limit: limits.cpu.map(|q| q.0),
        memory_bytes,
    }
}

fn placement(spec: &ActiveStandbyPairSpec) -> Placement {
    let written = spec.scheduling.clone().unwrap_or_default();
    Placement {
        spread: written.spread.unwrap_or_default(),
        topology_key: written
            .topology_key
            .filter(|key| !key.is_empty())
            .unwrap_or_else(|| "kubernetes.io/hostname".to_owned()),
        node_selector: written.node_selector.unwrap_or_default(),
        tolerations: written.tolerations.unwrap_or_default(),
        priority_class: written.priority_class_name.filter(|name| !name.is_empty()),
    }
}

fn return_service(choice: ReturnServiceChoice) -> ReturnService {
    match choice {
        ReturnServiceChoice::NoReturn => ReturnService::NoReturn,
        ReturnServiceChoice::Receipt => ReturnService::Receipt,
        ReturnServiceChoice::Twosafe => ReturnService::Twosafe,
    }
}

fn when_standby_lost(choice: WhenStandbyLostChoice) -> WhenStandbyLost {
    match choice {
        WhenStandbyLostChoice::Continue => WhenStandbyLost::Continue,
        WhenStandbyLostChoice::Block => WhenStandbyLost::Block,
    }
}

fn failover_policy(spec: &FailoverSpec) -> FailoverPolicy {
    match spec.policy.unwrap_or_default() {
        FailoverPolicyChoice::Automatic => FailoverPolicy::Automatic,
        FailoverPolicyChoice::Manual => FailoverPolicy::Manual,
    }
}

/// Out of range counts as the nearest bound: more than was allowed may never be lost.
fn max_loss(spec: &FailoverSpec) -> Option<MaxLoss> {
    let written = match spec.data_loss.unwrap_or_default() {
        DataLossChoice::Forbid => None,
        DataLossChoice::AllowUpTo => spec.max_loss,
    }?;
    Some(MaxLoss {
        commits: u64::try_from(written.commits).unwrap_or(0),
        millis: u64::try_from(written.seconds).unwrap_or(0) * 1000,
    })
}

fn node_loss(spec: &FailoverSpec) -> NodeLoss {
    let written = spec.node_loss.unwrap_or_default();
    match written.action.unwrap_or_default() {
        NodeLossAction::Wait => NodeLoss::Wait,
        NodeLossAction::Replace => {
            NodeLoss::ReplaceAfter { seconds: i64::from(written.after_seconds.unwrap_or(300)) }
        }
    }
}

fn durability(choice: DurabilityChoice) -> Durability {
    match choice {
        DurabilityChoice::Memory => Durability::Memory,
        DurabilityChoice::LocalDisk => Durability::LocalDisk,
        DurabilityChoice::BothDisks => Durability::BothDisks,
    }
}

fn warnings(spec: &ActiveStandbyPairSpec) -> Vec<(&'static str, String)> {
    let mut warnings = Vec::new();
    let replication = spec.replication.clone().unwrap_or_default();
    let most = spec.failover.as_ref().and_then(max_loss);
    let is_no_return = replication.return_service == Some(ReturnServiceChoice::NoReturn);
    if is_no_return && let Some(most) = most {
        let message = format!(
            "returnService: NoReturn with dataLoss: AllowUpTo means that a failover may lose acknowledged commits: {most}; write Receipt or Twosafe to lose none"
        );
        warnings.push(("BoundedLoss", message));
    } else if most.is_some() {
        let message = "failover.dataLoss: AllowUpTo has no effect: with this returnService no acknowledged commit is ever at risk while the standby is in sync, and nobody is promoted while it is not";
        warnings.push(("NoEffect", message.to_owned()));
    } else if is_no_return {
        let message = "replication.returnService: NoReturn means no automatic failover, ever: no commit is known to be on the standby; write Receipt or Twosafe for failover, or failover.dataLoss: AllowUpTo";
        warnings.push(("NoAutomaticFailover", message.to_owned()));
    }
    if replication.durability == Some(DurabilityChoice::Memory) {
        let message = "replication.durability: Memory keeps acknowledged commits in two memories only: both members restarting at once lose the newest; write LocalDisk to have them on disk";
        warnings.push(("MemoryDurability", message.to_owned()));
    }
    let scheduling = spec.scheduling.clone().unwrap_or_default();
    if scheduling.spread == Some(Spread::Preferred) {
        let message = "scheduling.spread: Preferred lets both members share a node, and then one node takes both; write Required where there are two nodes";
        warnings.push(("SharedNode", message.to_owned()));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: serde_json::Value) -> PairView {
        let pair = ActiveStandbyPair::new("orders", serde_json::from_value(spec).unwrap());
        validate(&pair, "image:1", &References::default())
    }

    #[test]
    fn an_empty_spec_has_every_default_of_the_contract() {
        let spec = read(serde_json::json!({})).spec.unwrap();
        assert_eq!(spec.image, "image:1");
        assert_eq!(from_bytes(spec.permanent_bytes).0, "1Gi");
        assert_eq!(from_bytes(spec.temporary_bytes).0, "256Mi");
        assert_eq!(from_bytes(spec.voter_resources.memory_bytes).0, "2112Mi");
        assert_eq!(from_bytes(spec.data.bytes).0, "4Gi");
        assert_eq!(from_bytes(spec.log.bytes).0, "2Gi");
        assert_eq!(spec.return_service, ReturnService::Twosafe);
        assert_eq!(spec.durability, Durability::LocalDisk);
        assert_eq!(spec.lease_duration_ms, 4000);
        assert_eq!(spec.replication_port, 4444);
        assert_eq!(spec.failover, FailoverPolicy::Automatic);
        assert_eq!(spec.max_loss, None);
        assert_eq!(spec.node_loss, NodeLoss::ReplaceAfter { seconds: 300 });
        assert!(spec.warnings.is_empty());
    }

    #[test]
    fn a_limit_below_the_need_is_refused_with_the_number() {
        let view = read(serde_json::json!({"resources": {"limits": {"memory": "1Gi"}}}));
        let problems = view.spec.unwrap_err();
        assert_eq!(problems[0].reason(), "MemoryLimitTooSmall");
        assert!(problems[0].to_string().contains("write at least 2112Mi"), "{}", problems[0]);
    }

    #[test]
    fn a_size_that_no_machine_has_is_refused() {
        for field in ["permanent", "temporary"] {
            let problems = read(serde_json::json!({"memory": {field: "8000Pi"}})).spec.unwrap_err();
            assert_eq!(problems[0].reason(), "InvalidSize");
            assert!(problems[0].to_string().contains("write at most"), "{}", problems[0]);
        }
    }

    #[test]
    fn no_return_is_taken_and_warned_about() {
        let view = read(serde_json::json!({"replication": {"returnService": "NoReturn"}}));
        assert_eq!(view.spec.unwrap().warnings[0].0, "NoAutomaticFailover");
    }

    #[test]
    fn a_loss_is_allowed_only_in_words() {
        let allow = |service: &str| {
            let failover = serde_json::json!({"dataLoss": "AllowUpTo", "maxLoss": {"seconds": 2, "commits": 50}});
            read(serde_json::json!({"replication": {"returnService": service}, "failover": failover}))
                .spec
                .unwrap()
        };
        let spec = allow("NoReturn");
        assert_eq!(spec.max_loss, Some(MaxLoss { commits: 50, millis: 2000 }));
        assert_eq!(spec.warnings[0].0, "BoundedLoss");
        assert!(spec.warnings[0].1.contains("50 commits"), "{}", spec.warnings[0].1);
        assert_eq!(allow("Twosafe").warnings[0].0, "NoEffect");
    }

    #[test]
    fn a_missing_reference_is_a_problem_of_the_spec() {
        let pair = ActiveStandbyPair::new("orders", ActiveStandbyPairSpec::default());
        let references = References {
            problems: vec![Invalid::StorageClass("StorageClass fast does not exist".to_owned())],
        };
        assert!(validate(&pair, "image:1", &references).spec.is_err());
    }
}
