//! The spec of an ActiveStandbyPair: what a user writes. Tags in the comments say what a change does:
//! L live · R pods restart, standby first, then one switchover · G grows only · I never changes.
//! Optional fields mean "computed" when absent; what was computed stands in `status.effective`.

use crate::failover::FailoverSpec;
use crate::status::ActiveStandbyPairStatus;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An active standby pair: one member takes writes, one follows and takes over, any number up to 127
/// follow read-only. An empty spec is a whole valid pair.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "ActiveStandbyPair",
    plural = "activestandbypairs",
    shortname = "asp",
    category = "understudy",
    namespaced,
    doc = "An active standby pair of an in-memory SQL store.",
    status = "ActiveStandbyPairStatus",
    derive = "PartialEq",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active"),
    printcolumn(name = "Standby", type_ = "string", json_path = ".status.standby"),
    printcolumn(name = "Sync", type_ = "string", json_path = ".status.sync.state"),
    printcolumn(name = "Subs", type_ = "string", json_path = ".status.subscribers.summary"),
    printcolumn(name = "Return", type_ = "string", json_path = ".status.effective.returnService"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.effective.image",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    scale(
        spec_replicas_path = ".spec.subscribers.replicas",
        status_replicas_path = ".status.subscribers.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new(
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    )
    .message(
        "metadata.name is at most 40 characters of a-z, 0-9 and -, beginning with a letter (member, Service and Lease names are built from it)"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!(self.?replication.?returnService.orValue('') == 'NoReturn' && self.?replication.?durability.orValue('') == 'BothDisks')"
    )
    .message(
        "durability: BothDisks waits for the standby's disk, returnService: NoReturn waits for nothing (and means no failover, ever); write returnService: Receipt or Twosafe, or durability: LocalDisk"
    ),
    validation = Rule::new(
        "!(self.?replication.?returnService.orValue('') == 'NoReturn' && self.?replication.?durability.orValue('') == 'Memory')"
    )
    .message(
        "durability: Memory with returnService: NoReturn keeps an acknowledged commit in one memory only; write durability: LocalDisk, or returnService: Receipt or Twosafe"
    ),
    validation = Rule::new(
        "!(self.?replication.?returnService.orValue('') == 'NoReturn' && self.?replication.?whenStandbyLost.orValue('') == 'Block')"
    )
    .message(
        "whenStandbyLost: Block waits for the standby, returnService: NoReturn waits for nothing; write whenStandbyLost: Continue, or returnService: Receipt or Twosafe"
    ),
    validation = Rule::new(
        "!oldSelf.?storage.?data.?size.hasValue() || (self.?storage.?data.?size.hasValue() && quantity(string(self.storage.data.size)).compareTo(quantity(string(oldSelf.storage.data.size))) >= 0)"
    )
    .message("storage.data.size can only grow; write at least the size it had, or make a new pair"),
    validation = Rule::new(
        "!oldSelf.?storage.?log.?size.hasValue() || (self.?storage.?log.?size.hasValue() && quantity(string(self.storage.log.size)).compareTo(quantity(string(oldSelf.storage.log.size))) >= 0)"
    )
    .message("storage.log.size can only grow; write at least the size it had, or make a new pair"),
    validation = Rule::new(
        "(has(self.storage) && has(self.storage.data) && has(self.storage.data.storageClassName)) == (has(oldSelf.storage) && has(oldSelf.storage.data) && has(oldSelf.storage.data.storageClassName)) && (!(has(self.storage) && has(self.storage.data) && has(self.storage.data.storageClassName)) || self.storage.data.storageClassName == oldSelf.storage.data.storageClassName)"
    )
    .message("storage.data.storageClassName cannot change after creation; write the class it had, or make a new pair"),
    validation = Rule::new(
        "(has(self.storage) && has(self.storage.log) && has(self.storage.log.storageClassName)) == (has(oldSelf.storage) && has(oldSelf.storage.log) && has(oldSelf.storage.log.storageClassName)) && (!(has(self.storage) && has(self.storage.log) && has(self.storage.log.storageClassName)) || self.storage.log.storageClassName == oldSelf.storage.log.storageClassName)"
    )
    .message("storage.log.storageClassName cannot change after creation; write the class it had, or make a new pair"),
    validation = Rule::new(
        "self.?replication.?port.orValue(4444) == oldSelf.?replication.?port.orValue(4444)"
    )
    .message("replication.port cannot change after creation; write the port it had (4444 when it was absent), or make a new pair")
)]
pub struct ActiveStandbyPairSpec {
    /// Who acts: Automatic (default) or Paused. L
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Image of the node-agent; absent or empty means the operator's own release. R
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Memory of the store. R
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
    /// Resources of the voters' containers. R
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Volumes of each member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// What a commit waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationSpec>,
    /// Read-only subscribers. L
    #[serde(default)]
    pub subscribers: SubscribersSpec,
    /// Failure detection. L
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverSpec>,
    /// Placement. R
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,
    /// Where the first users' passwords come from. R
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationSpec>,
    /// Encryption. R
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// Who acts on the pair.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Operator and agents act by themselves.
    #[default]
    Automatic,
    /// They observe and report; nobody is promoted without a person.
    Paused,
}

/// Memory of the store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemorySpec {
    /// Room for rows and indexes; default 1Gi, at least 64Mi.
    #[schemars(schema_with = "size_schema")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('64Mi')) >= 0")
        .message("memory.permanent is too small for the catalog; write at least 64Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent: Option<Quantity>,
    /// Room for sorting, session buffers and work in progress; default a quarter of `permanent`.
    #[schemars(schema_with = "size_schema")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('16Mi')) >= 0")
        .message("memory.temporary is too small for one sort; write at least 16Mi, or leave it out for a quarter of permanent"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary: Option<Quantity>,
}

/// Resources of a container. Memory request and limit are equal, and computed unless given:
/// (permanent + temporary) × 1.25 + 512Mi.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestAmounts>,
    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitAmounts>,
}

/// What the scheduler reserves; memory follows the limit.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestAmounts {
    /// Default 1.
    #[schemars(schema_with = "cpu_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
}

/// What the container may not exceed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LimitAmounts {
    /// Default none: a throttled engine misses its heartbeats.
    #[schemars(schema_with = "cpu_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// At least the computed need, else the pair is Stalled with the number; also the request.
    #[schemars(schema_with = "size_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// Volumes of each member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Checkpoints; size default: the larger of 4Gi and 3 × permanent. Size G, class I
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeSpec>,
    /// The transaction log; size default: the larger of 2Gi and permanent. Size G, class I
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<VolumeSpec>,
    /// What becomes of the volumes and the Lease when the pair is deleted; default Retain. L
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RetentionPolicy>,
}

/// One kind of volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Size.
    #[schemars(schema_with = "size_schema")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('256Mi')) >= 0")
        .message("storage sizes are at least 256Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// StorageClass; absent or empty means the cluster's default class.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}

/// What becomes of volumes and Lease when the pair is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetentionPolicy {
    /// Kept; a pair of the same name adopts them after a check.
    #[default]
    Retain,
    /// Deleted with the pair.
    Delete,
}

/// What a commit waits for, and where peers listen.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationSpec {
    /// What a commit waits for on the standby; default Twosafe. L
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_service: Option<ReturnServiceChoice>,
    /// Which disks hold a commit before it is acknowledged; default LocalDisk. L
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<DurabilityChoice>,
    /// What the active does when the standby is lost; default Continue. L
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_standby_lost: Option<WhenStandbyLostChoice>,
    /// Port of replication; default 4444. I
    #[x_kube(validation = Rule::new("self >= 1024 && self <= 65535 && !(self in [5432, 8443, 9090])")
        .message("replication.port is 1024 to 65535 and not 5432, 8443 or 9090 (SQL, control and metrics listen there)"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// What a commit waits for on the standby.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReturnServiceChoice {
    /// Nothing. No commit is known to be elsewhere, so nothing is ever promoted automatically.
    NoReturn,
    /// The standby has received it.
    Receipt,
    /// The standby has received, logged and applied it.
    #[default]
    Twosafe,
}

/// What the active does when the standby is lost.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStandbyLostChoice {
    /// It records that it is alone, and goes on acknowledging from its own disk.
    #[default]
    Continue,
    /// Commits wait until a standby is in sync; after ten seconds a client is told that the outcome of
    /// its commit is open.
    Block,
}

/// Which disks hold a commit before it is acknowledged.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurabilityChoice {
    /// None: two memories. While the active is alone, its disk.
    Memory,
    /// The active's disk.
    #[default]
    LocalDisk,
    /// The active's and the standby's disks.
    BothDisks,
}

/// Read-only subscribers; `kubectl scale asp/x --replicas=n` sets their number.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SubscribersSpec {
    /// How many, 0 to 127.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 127")
        .message("subscribers.replicas is at most 127 (a standby feeds no more); split the readers over two pairs"))]
    pub replicas: i32,
    /// Resources of a subscriber's container; default those of the voters. R
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
}

/// Placement of the pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// Whether the voters must be on different nodes; default Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// Node label that voters differ in; default `kubernetes.io/hostname`.
    #[schemars(length(max = 317))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_key: Option<String>,
    /// Labels that a node must have.
    #[schemars(extend("maxProperties" = 32))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that the pods accept.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Priority of the pods.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// Whether the voters must be on different nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// A second voter stays Pending rather than share a node.
    #[default]
    Required,
    /// They may share a node (a one-node laptop); a ConfigurationWarning says what that costs.
    Preferred,
}

/// Where the first users' passwords come from: Secrets with `username` and `password`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationSpec {
    /// Secret of the administrator; absent means that the operator makes `<pair>-admin`.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_secret_name: Option<String>,
    /// Secret of the application's user; absent means a generated password. `<pair>-app` holds the
    /// connection strings in both cases.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_secret_name: Option<String>,
}

/// Encryption of connections.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Whether SQL clients must use TLS; default Require.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientTls>,
    /// Secret with `tls.crt` and `tls.key` of an own certificate authority; absent means that the
    /// operator makes `<pair>-ca`.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_name: Option<String>,
}

/// Whether SQL clients must use TLS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientTls {
    /// A connection without TLS is refused.
    #[default]
    Require,
    /// The client chooses.
    Allow,
}

/// A size: positive, with an optional suffix. Bounded, for the rules that read it.
fn size_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": "^[0-9]{1,15}(\\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
        "maxLength": 32,
        "nullable": true
    })
}

/// A number of processors, with an optional `m`.
fn cpu_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": "^[0-9]{1,6}(\\.[0-9]{1,3}|m)?$",
        "maxLength": 16,
        "nullable": true
    })
}
