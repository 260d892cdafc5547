//! A member's pod. Its command is the image's own: PID 1 is the supervisor, which starts the engine and
//! proves its death (R10a). Pure.

use super::{owned, stable_hash};
use crate::pair::{
    action::Kind,
    names, plan,
    validate::{ContainerResources, PairView, ValidatedSpec},
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod,
    PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString,
};
use std::collections::BTreeMap;
use understudy_agent_api::{PORT_CONTROL, PORT_METRICS, PORT_SQL, names as shared};
use understudy_crds::{ClientTls, Spread, from_bytes};
use understudy_types::{MemberName, Role};

const DATA_DIR: &str = "/var/lib/understudy/data";
const LOG_DIR: &str = "/var/lib/understudy/log";
const TLS_DIR: &str = "/etc/understudy/tls";
const ADMIN_DIR: &str = "/etc/understudy/admin";
const APP_DIR: &str = "/etc/understudy/app";
const RUN_DIR: &str = "/run/understudy";
/// User and group of the image; any number but 0 would do.
const USER: i64 = 65_532;
/// Handing over takes well under a second; the rest is for a last checkpoint.
const GRACE_SECONDS: i64 = 30;

/// The pod of a member, with the hash of its template on it.
#[must_use]
pub fn pod(
    pair: &PairView,
    spec: &ValidatedSpec,
    (member, kind): (&MemberName, Kind),
    scheme_json: &str,
) -> Pod {
    let identity = &pair.identity;
    let mut metadata = owned(identity, member.to_string());
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(member_labels(member, kind));
    if kind == Kind::Subscriber {
        // A subscriber has one role for life; only voters' labels change, and agents write those.
        labels.insert(shared::LABEL_ROLE.to_owned(), Role::Subscriber.as_label().to_owned());
    }
    metadata.annotations = Some(BTreeMap::from([(
        names::ANNOTATION_TEMPLATE.to_owned(),
        template_hash(pair, spec, member, kind),
    )]));
    Pod { metadata, spec: Some(pod_spec(pair, spec, (member, kind), scheme_json)), status: None }
}

/// Hash of everything that a change of needs a new pod for. The scheme is not part of it: agents get a
/// new one over the control API.
#[must_use]
pub fn template_hash(
    pair: &PairView,
    spec: &ValidatedSpec,
    member: &MemberName,
    kind: Kind,
) -> String {
    stable_hash(&pod_spec(pair, spec, (member, kind), ""))
}

/// Labels of a member's pod and volumes.
pub(super) fn member_labels(member: &MemberName, kind: Kind) -> BTreeMap<String, String> {
    let kind = match kind {
        Kind::Voter => names::KIND_VOTER,
        Kind::Subscriber => names::KIND_SUBSCRIBER,
    };
    BTreeMap::from([
        (shared::LABEL_MEMBER.to_owned(), member.to_string()),
        (shared::LABEL_KIND.to_owned(), kind.to_owned()),
    ])
}

fn pod_spec(
    pair: &PairView,
    spec: &ValidatedSpec,
    (member, kind): (&MemberName, Kind),
    scheme_json: &str,
) -> PodSpec {
    let name = &pair.identity.name;
    let placement = &spec.placement;
    PodSpec {
        hostname: Some(member.to_string()),
        subdomain: Some(names::members_service(name)),
        service_account_name: Some(match kind {
            Kind::Voter => names::voter_account(name),
            Kind::Subscriber => names::subscriber_account(name),
        }),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        priority_class_name: placement.priority_class.clone(),
        node_selector: (!placement.node_selector.is_empty())
            .then(|| placement.node_selector.clone()),
        tolerations: (!placement.tolerations.is_empty()).then(|| placement.tolerations.clone()),
        affinity: Some(spread(name, spec, kind)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(pair, spec, (member, kind), scheme_json)],
        volumes: Some(volumes(name, spec, member)),
        ..PodSpec::default()
    }
}

fn container(
    pair: &PairView,
    spec: &ValidatedSpec,
    (member, kind): (&MemberName, Kind),
    scheme_json: &str,
) -> Container {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let resources = match kind {
        Kind::Voter => &spec.voter_resources,
        Kind::Subscriber => &spec.subscriber_resources,
    };
    Container {
        name: "agent".to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(environment(pair, spec, (member, kind), scheme_json)),
        ports: Some(vec![
            port("sql", PORT_SQL),
            port("replication", spec.replication_port),
            port("control", PORT_CONTROL),
            port("metrics", PORT_METRICS),
        ]),
        resources: Some(requirements(resources)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("data", DATA_DIR),
            mount("log", LOG_DIR),
            mount("run", RUN_DIR),
            mount("tmp", "/tmp"),
            read_only(mount("tls", TLS_DIR)),
            read_only(mount("admin", ADMIN_DIR)),
            read_only(mount("app", APP_DIR)),
        ]),
        ..Container::default()
    }
}

fn environment(
    pair: &PairView,
    spec: &ValidatedSpec,
    (member, kind): (&MemberName, Kind),
    scheme_json: &str,
) -> Vec<EnvVar> {
    let identity = &pair.identity;
    let kind = match kind {
        Kind::Voter => names::KIND_VOTER,
        Kind::Subscriber => names::KIND_SUBSCRIBER,
    };
    let clients = match spec.client_tls {
        ClientTls::Require => "require",
        ClientTls::Allow => "allow",
    };
    let value = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    vec![
        value(shared::ENV_PAIR, identity.name.clone()),
        value(shared::ENV_PAIR_UID, identity.uid.clone()),
        EnvVar {
            name: shared::ENV_POD_UID.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: "metadata.uid".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        },
        value(shared::ENV_NAMESPACE, identity.namespace.clone()),
        value(shared::ENV_MEMBER, member.to_string()),
        value(shared::ENV_KIND, kind.to_owned()),
        value(shared::ENV_DATA_DIR, DATA_DIR.to_owned()),
        value(shared::ENV_LOG_DIR, LOG_DIR.to_owned()),
        value(shared::ENV_TLS_DIR, TLS_DIR.to_owned()),
        value(shared::ENV_ADMIN_DIR, ADMIN_DIR.to_owned()),
        value(shared::ENV_APP_DIR, APP_DIR.to_owned()),
        value(shared::ENV_PERMANENT_BYTES, spec.permanent_bytes.to_string()),
        value(shared::ENV_TEMPORARY_BYTES, spec.temporary_bytes.to_string()),
        value(shared::ENV_LOG_BYTES, spec.log.bytes.to_string()),
        value(shared::ENV_CLIENT_TLS, clients.to_owned()),
        value(shared::ENV_SCHEME, scheme_json.to_owned()),
    ]
}

fn requirements(resources: &ContainerResources) -> ResourceRequirements {
    let memory = from_bytes(resources.memory_bytes);
    let mut limits = BTreeMap::from([("memory".to_owned(), memory.clone())]);
    if let Some(cpu) = &resources.cpu_limit {
        limits.insert("cpu".to_owned(), Quantity(cpu.clone()));
    }
    let requests = BTreeMap::from([
        ("cpu".to_owned(), Quantity(resources.cpu_request.clone())),
        ("memory".to_owned(), memory),
    ]);
    ResourceRequirements { limits: Some(limits), requests: Some(requests), claims: None }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// Voters on different nodes; subscribers where they can.
fn spread(pair: &str, spec: &ValidatedSpec, kind: Kind) -> Affinity {
    let kind_label = match kind {
        Kind::Voter => names::KIND_VOTER,
        Kind::Subscriber => names::KIND_SUBSCRIBER,
    };
    let apart = PodAffinityTerm {
        topology_key: spec.placement.topology_key.clone(),
        label_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([
                (shared::LABEL_PAIR.to_owned(), pair.to_owned()),
                (shared::LABEL_KIND.to_owned(), kind_label.to_owned()),
            ])),
            match_expressions: None,
        }),
        ..PodAffinityTerm::default()
    };
    let is_required = kind == Kind::Voter && spec.placement.spread == Spread::Required;
    let anti = if is_required {
        PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![apart]),
            ..PodAntiAffinity::default()
        }
    } else {
        PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm { pod_affinity_term: apart, weight: 100 },
            ]),
            ..PodAntiAffinity::default()
        }
    };
    Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() }
}

fn volumes(pair: &str, spec: &ValidatedSpec, member: &MemberName) -> Vec<Volume> {
    let claim = |name: &str, claim_name: String| Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name,
            read_only: None,
        }),
        ..Volume::default()
    };
    let empty = |name: &str, limit: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: Some(Quantity(limit.to_owned())),
        }),
        ..Volume::default()
    };
    let secret = |name: &str, secret_name: String, keys: &[&str]| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret_name),
            default_mode: Some(0o440),
            items: (!keys.is_empty()).then(|| {
                let item = |key: &&str| KeyToPath {
                    key: (*key).to_owned(),
                    path: (*key).to_owned(),
                    mode: None,
                };
                keys.iter().map(item).collect()
            }),
            optional: None,
        }),
        ..Volume::default()
    };
    let user = ["username", "password"];
    let admin = spec.admin_secret.clone().unwrap_or_else(|| names::admin_secret(pair));
    let app = spec.app_secret.clone().unwrap_or_else(|| names::app_secret(pair));
    vec![
        claim("data", names::data_volume(member)),
        claim("log", names::log_volume(member)),
        empty("run", "16Mi"),
        empty("tmp", "256Mi"),
        secret("tls", names::member_tls_secret(member), &[]),
        secret("admin", admin, &user),
        secret("app", app, &user),
    ]
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount }
}

/// The scheme as the pod's environment tells it.
#[must_use]
pub fn scheme_json(
    pair: &PairView,
    spec: &ValidatedSpec,
    voters: &[MemberName],
    last_member: u32,
) -> String {
    serde_json::to_string(&plan::scheme(pair, spec, voters, last_member))
        .expect("a scheme is plain data")
}
