//! Effect: brings together what is known of a pair from caches, Secrets and agents.
//!
//! **Invariant**: the Lease is read consistently whenever it is absent from the cache, may be written by
//! the operator (R20), or is behind what an agent knows; else the cache's word is enough, for nothing is
//! decided on it.

use crate::{
    agents::Target,
    context::Context,
    pair::{
        ReconcileError, chain, key_of,
        observation::{LeaseSight, Observation, Seen, VolumesSight},
        observe::{lease_sight, pod_sight, volume_sight},
        plan::Picture,
        secrets::{self, Holders, SecretError, Secured},
        validate::{Invalid, PairView, References},
    },
};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Secret},
    storage::v1::StorageClass,
};
use kube::{Api, ResourceExt, runtime::reflector::ObjectRef};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use understudy_agent_api::names as shared;
use understudy_authority::LeaseState;
use understudy_crds::{ActiveStandbyPair, ActiveStandbyPairStatus};
use understudy_lease::{ReadError, Version};
use understudy_types::MemberName;

/// How long Secrets that were found right are believed to be so.
const BELIEF: Duration = Duration::from_secs(45);

/// Everything found.
pub(super) struct Gathered {
    /// What is judged.
    pub(super) seen: Observation,
    /// The version of the Lease, when it was read consistently.
    pub(super) judged: Option<Version>,
    /// Earliest end of a certificate.
    pub(super) not_after: Option<Timestamp>,
    /// Why the Secrets are not as they should be.
    pub(super) failure: Option<String>,
}

/// Secrets and classes that the spec names and the API server does not have.
pub(super) async fn references(
    context: &Context,
    pair: &ActiveStandbyPair,
) -> Result<References, ReconcileError> {
    let namespace = pair.namespace().unwrap_or_default();
    let failed = |source| ReconcileError::Api { step: "read what the spec refers to", source };
    let mut problems = Vec::new();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let authentication = pair.spec.authentication.clone().unwrap_or_default();
    let tls = pair.spec.tls.clone().unwrap_or_default();
    let user: &[&str] = &["username", "password"];
    let named = [
        ("authentication.adminSecretName", authentication.admin_secret_name, user),
        ("authentication.appSecretName", authentication.app_secret_name, user),
        ("tls.caSecretName", tls.ca_secret_name, &["tls.crt", "tls.key"] as &[&str]),
    ];
    for (field, name, keys) in named {
        let Some(name) = name.filter(|name| !name.is_empty()) else { continue };
        let problem = match api.get_opt(&name).await.map_err(failed)? {
            None => Some("does not exist".to_owned()),
            Some(secret) => {
                let held = secret.data.unwrap_or_default();
                let lacks = keys.iter().find(|key| !held.contains_key(**key));
                lacks.map(|key| format!("lacks the key {key}"))
            }
        };
        if let Some(problem) = problem {
            problems.push(Invalid::Secret { field, name, problem });
        }
    }
    let storage = pair.spec.storage.clone().unwrap_or_default();
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    for (field, volume) in [("storage.data", storage.data), ("storage.log", storage.log)] {
        let named = volume.and_then(|v| v.storage_class_name).filter(|name| !name.is_empty());
        let Some(name) = named else { continue };
        if classes.get_opt(&name).await.map_err(failed)?.is_none() {
            problems.push(Invalid::StorageClass(format!(
                "StorageClass {name} ({field}.storageClassName) does not exist; create it, or make a new pair without it"
            )));
        }
    }
    Ok(References { problems })
}

/// Everything that is known of a pair now.
pub(super) async fn gather(
    context: &Context,
    pair: &ActiveStandbyPair,
    view: &PairView,
    now: Timestamp,
) -> Result<Gathered, ReconcileError> {
    let key = key_of(pair);
    let uid = pair.uid().unwrap_or_default();
    let mut targets = BTreeMap::new();
    let mut pods = BTreeMap::new();
    for pod in context.stores.pods.state() {
        if let Some(member) = member_of(pair, pod.as_ref()) {
            let sight = pod_sight(&pod, &uid);
            let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()?.parse().ok());
            if let (Some(address), true, false) = (address, sight.is_ours, sight.has_ended) {
                let target = Target { address, pod_uid: sight.uid.clone() };
                targets.insert(member.clone(), target);
            }
            pods.insert(member, sight);
        }
    }
    let (lease, judged) = lease(context, pair, now).await;
    let mut seen = Observation {
        lease,
        pods,
        volumes: volumes(context, pair),
        agents: BTreeMap::new(),
        status: newest_status(context, pair),
    };
    let picture = Picture::of(view, &seen, now);
    let voters: Vec<MemberName> = picture.voters.iter().map(|v| v.member.clone()).collect();
    let (secured, failure) = secured(context, view, &voters, now).await;
    if let Some(secured) = &secured {
        seen.agents = context.agents.follow(&key, &secured.client, &targets);
    }
    let mut judged = judged;
    if is_behind(&seen) {
        (seen.lease, judged) = consistent_lease(context, pair, now).await;
    }
    Ok(Gathered { seen, judged, not_after: secured.map(|s| s.not_after), failure })
}

fn member_of<K: ResourceExt>(pair: &ActiveStandbyPair, object: &K) -> Option<MemberName> {
    if object.namespace() != pair.namespace() {
        return None;
    }
    let labels = object.labels();
    if labels.get(shared::LABEL_PAIR)? != &pair.name_any() {
        return None;
    }
    MemberName::new(labels.get(shared::LABEL_MEMBER)?.clone()).ok()
}

fn volumes(context: &Context, pair: &ActiveStandbyPair) -> BTreeMap<MemberName, VolumesSight> {
    let mut found: BTreeMap<MemberName, VolumesSight> = BTreeMap::new();
    for claim in context.stores.volumes.state() {
        let claim: &PersistentVolumeClaim = claim.as_ref();
        let Some(member) = member_of(pair, claim) else { continue };
        let sight = volume_sight(claim);
        let name = claim.name_any();
        let both = found.entry(member).or_default();
        if name.ends_with("-data") {
            both.data = Some(sight);
        } else if name.ends_with("-log") {
            both.log = Some(sight);
        }
    }
    found
}

/// The cache may be one write behind this process itself.
fn newest_status(context: &Context, pair: &ActiveStandbyPair) -> ActiveStandbyPairStatus {
    context.written.newest(&key_of(pair), pair).or_else(|| pair.status.clone()).unwrap_or_default()
}

/// Whether a member judged this very record to be older than what it has seen (R21).
fn is_regressed(seen: &Observation) -> bool {
    seen.record().is_some_and(|record| {
        seen.agents
            .values()
            .filter_map(Seen::known)
            .any(|agent| agent.calls_regressed(record.order()))
    })
}

/// Whether somebody knows a later epoch than the cache of the Lease: then the cache is late, or the
/// Lease was restored from an older copy, and only a consistent read tells which.
fn is_behind(seen: &Observation) -> bool {
    let heard = seen.agents.values().filter_map(Seen::known).map(|agent| {
        let read = agent.lease.as_ref().map_or(0, |lease| lease.epoch.0);
        agent.epoch.0.max(agent.positions.epoch.0).max(read)
    });
    let written = seen.status.epoch.and_then(|epoch| u64::try_from(epoch).ok());
    let known = heard.chain(written).max().unwrap_or(0);
    seen.record().is_some_and(|record| record.epoch.0 < known) || is_regressed(seen)
}

async fn lease(
    context: &Context,
    pair: &ActiveStandbyPair,
    now: Timestamp,
) -> (Seen<LeaseSight>, Option<Version>) {
    let (namespace, name) = key_of(pair);
    let object = ObjectRef::new(&super::names::lease(&name)).within(&namespace);
    if let Some(cached) = context.stores.leases.get(&object) {
        let key = (namespace.clone(), name.clone());
        let version = cached.resource_version().unwrap_or_default();
        let sight = lease_sight(&cached, context.sightings.unchanged_ms(&key, &version));
        let may_be_written = match &sight {
            LeaseSight::Present { record, .. } => {
                matches!(record.state, LeaseState::Uninitialised | LeaseState::Initialising { .. })
            }
            LeaseSight::Absent { .. } | LeaseSight::Unreadable(_) => false,
        };
        if !may_be_written {
            return (Seen::Known(sight), None);
        }
    }
    consistent_lease(context, pair, now).await
}

async fn consistent_lease(
    context: &Context,
    pair: &ActiveStandbyPair,
    now: Timestamp,
) -> (Seen<LeaseSight>, Option<Version>) {
    let (namespace, name) = key_of(pair);
    let unknown = |why: String| (Seen::Unknown { since: now, why }, None);
    match context.authority_lease(&namespace, &name).read().await {
        Ok(read) => {
            let version = read.version.resource_version();
            let sight = LeaseSight::Present {
                record: read.record,
                unchanged_ms: context.sightings.unchanged_ms(&key_of(pair), version),
                is_being_deleted: read.is_being_deleted,
            };
            (Seen::Known(sight), Some(read.version))
        }
        Err(ReadError::Absent) => {
            let since_ms = context.sightings.absent_ms(&key_of(pair));
            (Seen::Known(LeaseSight::Absent { since_ms }), None)
        }
        Err(error) if error.is_transient() => unknown(chain(&error)),
        Err(error) => (Seen::Known(LeaseSight::Unreadable(chain(&error))), None),
    }
}

/// The Secrets, looked at when something about them may have changed and else now and then.
async fn secured(
    context: &Context,
    view: &PairView,
    voters: &[MemberName],
    now: Timestamp,
) -> (Option<Secured>, Option<String>) {
    let identity = &view.identity;
    let key = (identity.namespace.clone(), identity.name.clone());
    let names: Vec<&str> = voters.iter().map(MemberName::as_str).collect();
    let state = format!("{} {} {}", identity.uid, identity.generation, names.join(","));
    let known = {
        let all = context.secured.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&key).cloned()
    };
    let recalled = async |known: Option<Secured>| match known {
        Some(secured) => (Some(secured), None),
        None => match secrets::recall(&context.client, identity).await {
            Ok(recalled) => (recalled, None),
            Err(error) => (None, Some(chain(&error))),
        },
    };
    let Ok(spec) = &view.spec else {
        // Members of a pair whose spec went wrong are heard all the same.
        return recalled(known.map(|(_, _, secured)| secured)).await;
    };
    if let Some((of, at, secured)) = &known
        && *of == state
        && at.elapsed() < BELIEF
    {
        return (Some(secured.clone()), None);
    }
    let holders = Holders { identity, spec, voters };
    match secrets::secure(&context.client, holders, now).await {
        Ok(found) => {
            let same = known
                .map(|(_, _, before)| before)
                .filter(|before| before.client.mark == found.client.mark);
            let client = same.map_or_else(|| Arc::clone(&found.client), |before| before.client);
            let secured = Secured { client, not_after: found.not_after };
            let mut all = context.secured.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(key, (state, Instant::now(), secured.clone()));
            (Some(secured), None)
        }
        // The spec is about to come, and members are heard until then.
        Err(SecretError::Outdated(_)) => recalled(known.map(|(_, _, secured)| secured)).await,
        Err(error) => (known.map(|(_, _, secured)| secured), Some(chain(&error))),
    }
}
