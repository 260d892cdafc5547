//! The Kubernetes objects of a pair, as data: the same input gives the same bytes. Pure.
//!
//! **Invariants**
//! 1. Everything but volumes and the Lease is owned by the pair object and goes with it; volumes are
//!    never owned, so that no deletion of a pair takes data along.
//! 2. No object carries a password or key: Secrets are made where randomness is allowed (`secrets`).
//! 3. The role label of voters is never applied here: agents write it.
//! 4. Pods are admitted where the *restricted* Pod Security Standard is enforced.

mod access;
mod disruption;
mod pod;
mod services;
mod volumes;

pub use pod::{pod, scheme_json, template_hash};
pub use volumes::volume_claim;

use crate::pair::{
    names,
    validate::{Identity, PairView, ValidatedSpec},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, core::ApiResource};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use understudy_agent_api::names as shared;
use understudy_crds::{ActiveStandbyPair, Phase};
use understudy_types::MemberName;

/// One object to be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesObject {
    /// Which kind.
    pub resource: ApiResource,
    /// Its name; the namespace is the pair's.
    pub name: String,
    /// The whole applied body.
    pub body: Value,
}

impl KubernetesObject {
    /// Of a typed object with a name.
    #[must_use]
    pub fn of<K>(object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let resource = ApiResource::erase::<K>(&());
        let mut body = serde_json::to_value(object).expect("Kubernetes objects are plain data");
        body["apiVersion"] = Value::String(resource.api_version.clone());
        body["kind"] = Value::String(resource.kind.clone());
        let name = object.meta().name.clone().unwrap_or_default();
        Self { resource, name, body }
    }
}

/// What is built for: the pair, its spec and its voters at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Blueprint<'a> {
    /// The pair.
    pub pair: &'a PairView,
    /// Its spec.
    pub spec: &'a ValidatedSpec,
    /// The voters.
    pub voters: &'a [MemberName],
    /// Highest number ever given to a voter.
    pub last_member: u32,
    /// The phase, which decides how much disruption is allowed.
    pub phase: Phase,
}

impl<'a> Blueprint<'a> {
    pub(crate) fn identity(&self) -> &'a Identity {
        &self.pair.identity
    }
}

/// Everything that exists beside members, Secrets and the Lease.
#[must_use]
pub fn foundation(blueprint: &Blueprint<'_>) -> Vec<KubernetesObject> {
    let mut objects = Vec::new();
    objects.extend(access::accounts(blueprint));
    objects.extend(services::services(blueprint));
    objects.push(disruption::budget(blueprint));
    objects
}

/// Labels that everything of a pair carries.
#[must_use]
pub fn pair_labels(identity: &Identity) -> BTreeMap<String, String> {
    BTreeMap::from([
        (shared::LABEL_PAIR.to_owned(), identity.name.clone()),
        ("app.kubernetes.io/name".to_owned(), "understudy".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), identity.name.clone()),
        ("app.kubernetes.io/managed-by".to_owned(), names::MANAGER.to_owned()),
    ])
}

/// Metadata of an object that goes with the pair.
#[must_use]
pub fn owned(identity: &Identity, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(identity.namespace.clone()),
        labels: Some(pair_labels(identity)),
        owner_references: Some(vec![owner(identity)]),
        ..ObjectMeta::default()
    }
}

fn owner(identity: &Identity) -> OwnerReference {
    OwnerReference {
        api_version: ActiveStandbyPair::api_version(&()).into_owned(),
        kind: ActiveStandbyPair::kind(&()).into_owned(),
        name: identity.name.clone(),
        uid: identity.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// FNV-1a: stable over releases and machines, which is all that is asked of it here.
#[must_use]
pub fn stable_hash(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).expect("Kubernetes objects are plain data");
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
