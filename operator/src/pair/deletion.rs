//! Effect: what happens when a pair is deleted. A finalizer lets its members end in order, followers
//! before the active, while Lease, access and Secrets are still there: the active then lets the Lease go
//! by its own write, alone and with everything on its disk, and a pair made again goes on from there
//! without a proof of anybody's death. Under Delete, volumes and Lease are taken along; under Retain
//! they stay, and whatever else the pair owns goes by itself.

use crate::{
    agents::PairKey,
    context::Context,
    pair::{ReconcileError, key_of, names},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;
use std::time::Duration;
use understudy_agent_api::names as shared;
use understudy_crds::{ActiveStandbyPair, RetentionPolicy};
use understudy_lease::ReadError;

/// How soon to look whether the members have ended.
const AGAIN: Duration = Duration::from_millis(300);
/// How long the active waits for its followers to end.
const FOLLOWERS_SECONDS_MAX: i64 = 20;

/// Keeps the finalizer, and removes a pair that is being deleted. `None` means that the pair lives and
/// is to be looked at.
pub(super) async fn tend(
    context: &Context,
    pair: &ActiveStandbyPair,
) -> Result<Option<Action>, ReconcileError> {
    let has_finalizer = pair.finalizers().iter().any(|name| name == names::FINALIZER_MEMBERS);
    if pair.metadata.deletion_timestamp.is_some() {
        if !has_finalizer {
            return Ok(Some(Action::await_change()));
        }
        return remove(context, pair).await.map(Some);
    }
    if !has_finalizer {
        set_finalizer(context, pair, Some(names::FINALIZER_MEMBERS)).await?;
    }
    Ok(None)
}

async fn set_finalizer(
    context: &Context,
    pair: &ActiveStandbyPair,
    ours: Option<&str>,
) -> Result<(), ReconcileError> {
    let others = pair.finalizers().iter().filter(|name| *name != names::FINALIZER_MEMBERS);
    let all: Vec<&str> = others.map(String::as_str).chain(ours).collect();
    let patch = json!({"metadata": {
        "finalizers": all,
        "resourceVersion": pair.resource_version(),
    }});
    let namespace = pair.namespace().unwrap_or_default();
    let api: Api<ActiveStandbyPair> = Api::namespaced(context.client.clone(), &namespace);
    let patched = api.patch(&pair.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    absent_is_fine(patched.map(drop))
        .map_err(|source| ReconcileError::Api { step: "set the finalizer of the pair", source })
}

/// Followers, the active, and under Delete volumes and Lease: at no moment is a running member without
/// them.
async fn remove(context: &Context, pair: &ActiveStandbyPair) -> Result<Action, ReconcileError> {
    if end_members(context, pair).await? {
        return Ok(Action::requeue(AGAIN));
    }
    let policy = pair.spec.storage.as_ref().and_then(|storage| storage.retention_policy);
    if policy.unwrap_or_default() == RetentionPolicy::Delete {
        remove_data(context, pair).await?;
    }
    set_finalizer(context, pair, None).await?;
    context.forget(&key_of(pair));
    Ok(Action::await_change())
}

/// Whether members are left. The active is told to end when no other is, or when the others took too
/// long.
async fn end_members(context: &Context, pair: &ActiveStandbyPair) -> Result<bool, ReconcileError> {
    let key = key_of(pair);
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &key.0);
    let active = pair.status.as_ref().and_then(|status| status.active.as_deref());
    let state = context.stores.pods.state();
    let pods: Vec<_> = state.iter().filter(|pod| is_of_pair(&***pod, &key)).collect();
    let is_active = |pod: &Pod| pod.metadata.name.as_deref() == active;
    let others_are_gone = pods.iter().all(|pod| is_active(pod));
    let asked = pair.metadata.deletion_timestamp.as_ref().map_or(0, |at| at.0.as_second());
    let is_late = Timestamp::now().as_second() - asked > FOLLOWERS_SECONDS_MAX;
    for pod in &pods {
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if !is_active(pod) || others_are_gone || is_late {
            let deleted = api.delete(&pod.name_any(), &DeleteParams::default()).await;
            absent_is_fine(deleted.map(drop)).map_err(failed)?;
        }
    }
    Ok(!pods.is_empty())
}

async fn remove_data(context: &Context, pair: &ActiveStandbyPair) -> Result<(), ReconcileError> {
    let key = key_of(pair);
    let (namespace, name) = &key;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    for claim in context.stores.volumes.state() {
        if is_of_pair(&*claim, &key) && claim.metadata.deletion_timestamp.is_none() {
            let deleted = claims.delete(&claim.name_any(), &DeleteParams::default()).await;
            absent_is_fine(deleted.map(drop)).map_err(failed)?;
        }
    }
    let lease = context.authority_lease(namespace, name);
    match lease.read().await {
        Ok(read) => {
            lease
                .remove(&read.version)
                .await
                .map_err(|error| ReconcileError::Lease(super::chain(&error)))?;
        }
        Err(ReadError::Absent) => {}
        Err(error) => return Err(ReconcileError::Lease(super::chain(&error))),
    }
    Ok(())
}

fn is_of_pair<K: ResourceExt>(object: &K, (namespace, name): &PairKey) -> bool {
    object.namespace().as_deref() == Some(namespace)
        && object.labels().get(shared::LABEL_PAIR) == Some(name)
}

fn failed(source: kube::Error) -> ReconcileError {
    ReconcileError::Api { step: "delete what the pair made", source }
}

fn absent_is_fine(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}
