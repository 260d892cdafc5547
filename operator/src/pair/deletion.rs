//! Effect: what happens when a pair is deleted. Under Retain nothing is needed here: everything that is
//! owned goes by itself, volumes and Lease stay. Under Delete a finalizer on the pair lets its members
//! end first, then takes volumes and Lease along.

use crate::{
    context::Context,
    pair::{ReconcileError, key_of, names},
};
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
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the finalizer as the spec wants it, and removes a pair that is being deleted. `None` means
/// that the pair lives and is to be looked at.
pub(super) async fn tend(
    context: &Context,
    pair: &ActiveStandbyPair,
) -> Result<Option<Action>, ReconcileError> {
    let has_finalizer = pair.finalizers().iter().any(|name| name == names::FINALIZER_VOLUMES);
    if pair.metadata.deletion_timestamp.is_some() {
        if !has_finalizer {
            return Ok(Some(Action::await_change()));
        }
        return remove(context, pair).await.map(Some);
    }
    let policy = pair.spec.storage.as_ref().and_then(|storage| storage.retention_policy);
    let wants_finalizer = policy.unwrap_or_default() == RetentionPolicy::Delete;
    if wants_finalizer != has_finalizer {
        set_finalizer(context, pair, wants_finalizer.then_some(names::FINALIZER_VOLUMES)).await?;
    }
    Ok(None)
}

async fn set_finalizer(
    context: &Context,
    pair: &ActiveStandbyPair,
    ours: Option<&str>,
) -> Result<(), ReconcileError> {
    let others = pair.finalizers().iter().filter(|name| *name != names::FINALIZER_VOLUMES);
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

/// Pods, then volumes, then the Lease, then the pair: at no moment is a running member without them.
async fn remove(context: &Context, pair: &ActiveStandbyPair) -> Result<Action, ReconcileError> {
    let (namespace, name) = key_of(pair);
    let failed = |source| ReconcileError::Api { step: "delete what the pair made", source };
    let is_of_pair = |owner: Option<String>, label: Option<&String>| {
        owner.as_deref() == Some(&namespace) && label == Some(&name)
    };
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let mut members_left = false;
    for pod in context.stores.pods.state() {
        if !is_of_pair(pod.namespace(), pod.labels().get(shared::LABEL_PAIR)) {
            continue;
        }
        members_left = true;
        if pod.metadata.deletion_timestamp.is_none() {
            let deleted = pods.delete(&pod.name_any(), &DeleteParams::default()).await;
            absent_is_fine(deleted.map(drop)).map_err(failed)?;
        }
    }
    if members_left {
        return Ok(Action::requeue(AGAIN));
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    for claim in context.stores.volumes.state() {
        if is_of_pair(claim.namespace(), claim.labels().get(shared::LABEL_PAIR))
            && claim.metadata.deletion_timestamp.is_none()
        {
            let deleted = claims.delete(&claim.name_any(), &DeleteParams::default()).await;
            absent_is_fine(deleted.map(drop)).map_err(failed)?;
        }
    }
    let lease = context.authority_lease(&namespace, &name);
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
    set_finalizer(context, pair, None).await?;
    context.forget(&(namespace, name));
    Ok(Action::await_change())
}

fn absent_is_fine(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}
