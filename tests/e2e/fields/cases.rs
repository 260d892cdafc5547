//! The table: for every leaf of the spec what it is changed to, and what must be seen of that. A field
//! that comes later needs a row here, in the block of its kind.

use super::{
    GROWN_SIZE, OWN_ADMIN, OWN_APP, OWN_AUTHORITY, OWN_CLASS, OWN_CLASS_VALUE, OWN_GARBAGE,
};
use serde_json::{Value, json};

/// One change of the spec. Its way back is made from it: what it writes gets its old value, or goes.
pub(super) struct Case {
    /// Merge patch of `spec`.
    pub(super) change: Value,
    pub(super) outcome: Outcome,
}

/// What becomes of a change.
pub(super) enum Outcome {
    /// In force without a new pod.
    Live(Vec<Seen>),
    /// In force when every voter has a new pod, one after the other.
    Rolled(Group, Vec<Seen>),
    /// In force, and it cannot be taken back: the fresh pair has it from the beginning.
    Grown(Vec<Seen>),
    /// The reason on Stalled, before any pod is touched; the pair serves on.
    Refused(&'static str),
    /// The reason on Stalled, when the standby is gone for it; the pair serves on.
    CostsStandby(&'static str, When),
    /// The words of the API server.
    Denied(&'static str),
}

/// Changes that fit into one rollout.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// What the members are: memory, users, certificates.
    Members,
    /// Where they are.
    Placement,
    /// With what applications connect: on the way back they get another password, so that no client
    /// with the one before can be kept to.
    Credentials,
}

/// Whether a run of the slice has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// In every run.
    Slice,
    /// Where each leaf is changed alone.
    Alone,
}

/// Something in the cluster that shows what is in force.
pub(super) struct Seen {
    pub(super) at: At,
    pub(super) is: Value,
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    /// A field of `status.effective`.
    Effective(&'static str),
    /// The reason of a condition.
    Condition(&'static str),
    /// A JSON pointer into the spec of every voter's pod.
    Voters(&'static str),
    /// The same for the subscribers.
    Subscribers(&'static str),
    /// The size that every voter's claim of this suffix asks for.
    Claims(&'static str),
    /// A variable of every voter's container.
    Environment(&'static str),
    /// What every voter's agent says of itself.
    Agents(&'static str),
    /// Every agent took the scheme of the newest spec.
    Scheme,
    /// A JSON pointer into the Lease.
    Lease(&'static str),
    /// How many objects of this kind have a name that begins with the pair's and these letters.
    Count(&'static str, &'static str),
    /// What an own SQL session through the active's Service answers.
    Sql(&'static str),
    /// Whether the pair's Secret of this suffix has this key.
    SecretKey(&'static str, &'static str),
}

fn seen(at: At, is: impl Into<Value>) -> Seen {
    Seen { at, is: is.into() }
}

fn live(change: Value, seen: Vec<Seen>) -> Case {
    Case { change, outcome: Outcome::Live(seen) }
}

fn rolled(group: Group, change: Value, seen: Vec<Seen>) -> Case {
    Case { change, outcome: Outcome::Rolled(group, seen) }
}

fn refused(change: Value, reason: &'static str) -> Case {
    Case { change, outcome: Outcome::Refused(reason) }
}

fn costs_standby(when: When, change: Value, reason: &'static str) -> Case {
    Case { change, outcome: Outcome::CostsStandby(reason, when) }
}

fn denied(change: Value, words: &'static str) -> Case {
    Case { change, outcome: Outcome::Denied(words) }
}

/// Every case, each kind in the order of its running.
pub(super) fn all() -> Vec<Case> {
    let mut all = grown_cases();
    // Before a good authority is named: while one is on its way in, no other is looked at.
    all.extend(misoperations());
    all.extend(live_cases());
    all.extend(subscriber_cases());
    all.extend(member_cases());
    all.extend(placement_cases());
    all.extend(denied_cases());
    all
}

fn grown_cases() -> Vec<Case> {
    let bytes = GROWN_SIZE.trim_end_matches("Mi").parse().map_or(0, |size: u64| size << 20);
    let grown = |change: Value, seen: Vec<Seen>| Case { change, outcome: Outcome::Grown(seen) };
    vec![
        grown(
            json!({"storage": {"data": {"size": GROWN_SIZE}}}),
            vec![
                seen(At::Effective("dataSize"), GROWN_SIZE),
                seen(At::Claims("-data"), GROWN_SIZE),
            ],
        ),
        grown(
            json!({"storage": {"log": {"size": GROWN_SIZE}}}),
            vec![
                seen(At::Effective("logSize"), GROWN_SIZE),
                seen(At::Claims("-log"), GROWN_SIZE),
                seen(At::Environment("UNDERSTUDY_LOG_BYTES"), bytes.to_string()),
            ],
        ),
    ]
}

fn live_cases() -> Vec<Case> {
    let effective = |field: &'static str, value: &str| {
        vec![seen(At::Effective(field), value), seen(At::Scheme, true)]
    };
    vec![
        live(json!({"mode": "Paused"}), effective("mode", "Paused")),
        live(
            json!({"replication": {"returnService": "Receipt"}}),
            effective("returnService", "Receipt"),
        ),
        live(
            json!({"replication": {"returnService": "NoReturn"}}),
            vec![
                seen(At::Effective("returnService"), "NoReturn"),
                seen(At::Condition("ConfigurationWarning"), "NoAutomaticFailover"),
                seen(At::Condition("Redundant"), "FollowingUnpromised"),
                seen(At::Scheme, true),
            ],
        ),
        live(
            json!({"replication": {"durability": "BothDisks"}}),
            effective("durability", "BothDisks"),
        ),
        live(
            json!({"replication": {"durability": "Memory"}}),
            vec![
                seen(At::Effective("durability"), "Memory"),
                seen(At::Condition("ConfigurationWarning"), "MemoryDurability"),
                seen(At::Scheme, true),
            ],
        ),
        live(
            json!({"replication": {"whenStandbyLost": "Block"}}),
            effective("whenStandbyLost", "Block"),
        ),
        live(
            json!({"failover": {"leaseDurationSeconds": 9}}),
            vec![
                seen(At::Effective("leaseDurationSeconds"), 9),
                seen(At::Lease("/spec/leaseDurationSeconds"), 9),
                seen(At::Scheme, true),
            ],
        ),
        live(json!({"failover": {"policy": "Manual"}}), effective("failoverPolicy", "Manual")),
        live(
            json!({"replication": {"returnService": "NoReturn"},
                "failover": {"dataLoss": "AllowUpTo", "maxLoss": {"seconds": 2, "commits": 50}}}),
            vec![
                seen(At::Effective("dataLoss"), "AllowUpTo: at most 50 commits, of the last 2 s"),
                seen(At::Condition("ConfigurationWarning"), "BoundedLoss"),
                seen(At::Condition("Redundant"), "InSync"),
                seen(At::Scheme, true),
            ],
        ),
        live(
            json!({"failover": {"nodeLoss": {"action": "Wait", "afterSeconds": 60}}}),
            vec![seen(At::Effective("nodeLoss"), "Wait")],
        ),
        live(
            json!({"tls": {"caSecretName": OWN_AUTHORITY}}),
            vec![seen(At::SecretKey("-ca", "next.crt"), true)],
        ),
        // Nothing shows it before the pair is deleted: the end of the flow does.
        live(json!({"storage": {"retentionPolicy": "Delete"}}), vec![]),
        // The default written out is no change.
        live(json!({"image": "", "scheduling": {"topologyKey": ""}}), vec![]),
    ]
}

/// Subscribers are read-only copies: a change of theirs touches no voter.
fn subscriber_cases() -> Vec<Case> {
    vec![live(
        json!({"subscribers": {"replicas": 1, "resources": {
            "requests": {"cpu": "20m"}, "limits": {"cpu": "1500m", "memory": "800Mi"}}}}),
        vec![
            seen(At::Count("pods", "-s"), 1),
            seen(At::Count("pvc", "-s"), 2),
            seen(At::Subscribers("/containers/0/resources/requests/cpu"), "20m"),
            seen(At::Subscribers("/containers/0/resources/limits/cpu"), "1500m"),
            seen(At::Subscribers("/containers/0/resources/limits/memory"), "800Mi"),
            seen(At::Scheme, true),
        ],
    )]
}

fn member_cases() -> Vec<Case> {
    let members = Group::Members;
    let resources = |path: &'static str, value: &str| vec![seen(At::Voters(path), value)];
    let bytes = |mebibytes: u64| (mebibytes << 20).to_string();
    vec![
        rolled(
            members,
            json!({"memory": {"permanent": "160Mi"}}),
            vec![
                seen(At::Effective("permanentMemory"), "160Mi"),
                seen(At::Environment("UNDERSTUDY_PERMANENT_BYTES"), bytes(160)),
                seen(At::Agents("memoryLimitBytes"), 160_u64 << 20),
            ],
        ),
        rolled(
            members,
            json!({"memory": {"temporary": "48Mi"}}),
            vec![
                seen(At::Effective("temporaryMemory"), "48Mi"),
                seen(At::Environment("UNDERSTUDY_TEMPORARY_BYTES"), bytes(48)),
            ],
        ),
        rolled(
            members,
            json!({"resources": {"limits": {"memory": "1Gi"}}}),
            resources("/containers/0/resources/limits/memory", "1Gi"),
        ),
        rolled(
            members,
            json!({"resources": {"limits": {"cpu": "1800m"}}}),
            resources("/containers/0/resources/limits/cpu", "1800m"),
        ),
        rolled(
            members,
            json!({"resources": {"requests": {"cpu": "60m"}}}),
            resources("/containers/0/resources/requests/cpu", "60m"),
        ),
        rolled(
            members,
            json!({"authentication": {"adminSecretName": OWN_ADMIN}}),
            resources("/volumes/5/secret/secretName", OWN_ADMIN),
        ),
        rolled(
            Group::Credentials,
            json!({"authentication": {"appSecretName": OWN_APP}}),
            vec![
                seen(At::Voters("/volumes/6/secret/secretName"), OWN_APP),
                seen(At::Sql("SELECT current_user"), "shop"),
            ],
        ),
        rolled(
            members,
            json!({"tls": {"clients": "Allow"}}),
            vec![seen(At::Environment("UNDERSTUDY_CLIENT_TLS"), "allow")],
        ),
    ]
}

fn placement_cases() -> Vec<Case> {
    let place = Group::Placement;
    let apart =
        "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/topologyKey";
    let rather =
        "/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/weight";
    let zone = "topology.kubernetes.io/zone";
    let toleration = json!({"key": "dedicated", "operator": "Equal", "value": "store",
        "effect": "NoExecute", "tolerationSeconds": 300});
    vec![
        rolled(
            Group::Members,
            json!({"scheduling": {"spread": "Preferred"}}),
            vec![
                seen(At::Voters(rather), 100),
                seen(At::Condition("ConfigurationWarning"), "SharedNode"),
            ],
        ),
        rolled(
            place,
            json!({"scheduling": {"topologyKey": zone}}),
            vec![seen(At::Voters(apart), zone)],
        ),
        rolled(
            place,
            json!({"scheduling": {"nodeSelector": {"kubernetes.io/os": "linux"}}}),
            vec![seen(At::Voters("/nodeSelector"), json!({"kubernetes.io/os": "linux"}))],
        ),
        rolled(
            place,
            json!({"scheduling": {"tolerations": [toleration.clone()]}}),
            vec![seen(At::Voters("/tolerations/0"), toleration)],
        ),
        rolled(
            place,
            json!({"scheduling": {"priorityClassName": OWN_CLASS}}),
            vec![
                seen(At::Voters("/priorityClassName"), OWN_CLASS),
                seen(At::Voters("/priority"), OWN_CLASS_VALUE),
            ],
        ),
    ]
}

/// What a person does wrong: told on Stalled, survived by the active, and gone when it is put right.
fn misoperations() -> Vec<Case> {
    let little = json!({"limits": {"memory": "64Mi"}});
    vec![
        refused(json!({"resources": little.clone()}), "MemoryLimitTooSmall"),
        refused(json!({"memory": {"permanent": "8000Pi"}}), "InvalidSize"),
        refused(json!({"subscribers": {"resources": little}}), "MemoryLimitTooSmall"),
        refused(json!({"authentication": {"adminSecretName": "nobodys"}}), "SecretMissing"),
        refused(json!({"authentication": {"appSecretName": "nobodys"}}), "SecretMissing"),
        refused(json!({"tls": {"caSecretName": "nobodys"}}), "SecretMissing"),
        refused(json!({"tls": {"caSecretName": OWN_GARBAGE}}), "ActionRefused"),
        costs_standby(
            When::Slice,
            json!({"image": "localhost/understudy/nothing:0"}),
            "ImageUnavailable",
        ),
        costs_standby(
            When::Slice,
            json!({"scheduling": {"nodeSelector": {"nowhere": "yes"}}}),
            "Unschedulable",
        ),
        // What the API server would not admit costs nobody a pod.
        refused(json!({"scheduling": {"priorityClassName": "nobodys"}}), "ActionRefused"),
        refused(json!({"resources": {"limits": {"cpu": "10m"}}}), "ActionRefused"),
        costs_standby(
            When::Alone,
            json!({"scheduling": {"topologyKey": "kubernetes.io/os"}}),
            "Unschedulable",
        ),
        costs_standby(
            When::Alone,
            json!({"resources": {"requests": {"cpu": "1000"}}}),
            "Unschedulable",
        ),
    ]
}

fn denied_cases() -> Vec<Case> {
    vec![
        denied(
            json!({"storage": {"data": {"storageClassName": "another"}}}),
            "storage.data.storageClassName cannot change after creation; write the class it had, or make a new pair",
        ),
        denied(
            json!({"storage": {"log": {"storageClassName": "another"}}}),
            "storage.log.storageClassName cannot change after creation; write the class it had, or make a new pair",
        ),
        denied(
            json!({"replication": {"port": 4445}}),
            "replication.port cannot change after creation; write the port it had (4444 when it was absent), or make a new pair",
        ),
        denied(
            json!({"storage": {"data": {"size": "900Mi"}}}),
            "storage.data.size can only grow; write at least the size it had, or make a new pair",
        ),
        denied(
            json!({"storage": {"log": {"size": "900Mi"}}}),
            "storage.log.size can only grow; write at least the size it had, or make a new pair",
        ),
    ]
}

/// Seen while the class of the volumes does not let them grow.
pub(super) fn cannot_grow() -> Vec<Seen> {
    vec![
        seen(At::Condition("StorageHealthy"), "VolumeCannotGrow"),
        seen(At::Claims("-data"), "1Gi"),
    ]
}

/// Every agent has what the spec says now.
pub(super) fn newest_scheme() -> Seen {
    seen(At::Scheme, true)
}

/// Two changes of which the second comes during the rollout of the first; each is more than one.
pub(super) fn overtaking() -> [Case; 2] {
    [
        rolled(
            Group::Members,
            json!({"memory": {"temporary": "40Mi"}, "replication": {"returnService": "Receipt"}}),
            vec![
                seen(At::Environment("UNDERSTUDY_TEMPORARY_BYTES"), (40 << 20).to_string()),
                seen(At::Effective("returnService"), "Receipt"),
            ],
        ),
        rolled(
            Group::Members,
            json!({"resources": {"limits": {"cpu": "1700m"}}, "failover": {"leaseDurationSeconds": 5}}),
            vec![
                seen(At::Voters("/containers/0/resources/limits/cpu"), "1700m"),
                seen(At::Lease("/spec/leaseDurationSeconds"), 5),
                seen(At::Scheme, true),
            ],
        ),
    ]
}
