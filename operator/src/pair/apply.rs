//! Server-side apply of what was built, and nothing when it is there already.
//!
//! **Invariants**
//! 1. One field manager for everything. The Lease is never applied (A1.12).
//! 2. Nothing is written when the live object contains what is wanted and was applied from the same
//!    body: at rest the API server is only read.
//! 3. A field that is not wanted any more is removed: the hash of the body differs then.

use crate::pair::{
    build::{KubernetesObject, stable_hash},
    names,
    validate::Identity,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use understudy_crds::ActiveStandbyPair;

/// How long an object that was found right is believed to be so.
const BELIEF: Duration = Duration::from_secs(60);

/// What was found right, and when.
#[derive(Debug, Default)]
pub struct Applied {
    found: Mutex<HashMap<String, (String, Instant)>>,
}

/// Whether something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The API server was asked to change something.
    Yes,
    /// It was right already.
    No,
}

/// Applies one object if the live one differs, and makes it if there is none.
///
/// # Errors
/// When the API server cannot be asked, or refuses.
pub async fn apply(
    client: &Client,
    namespace: &str,
    applied: &Applied,
    object: &KubernetesObject,
) -> Result<Written, kube::Error> {
    write(client, namespace, applied, object, Absent::Made).await
}

/// Applies one object if the live one differs, and leaves it if there is none: a cache that is behind still
/// shows objects that are deleted, and what has no owner would stay for ever.
///
/// # Errors
/// When the API server cannot be asked, or refuses.
pub async fn amend(
    client: &Client,
    namespace: &str,
    applied: &Applied,
    object: &KubernetesObject,
) -> Result<Written, kube::Error> {
    write(client, namespace, applied, object, Absent::Left).await
}

/// Whether the pair is still the one that was read: there, and not changed since. A cache that is behind does
/// not know, and what is made for an older spec may be what nobody takes away again.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn is_current(client: &Client, read: &Identity) -> Result<bool, kube::Error> {
    let pairs: Api<ActiveStandbyPair> = Api::namespaced(client.clone(), &read.namespace);
    let live = pairs.get_opt(&read.name).await?;
    Ok(live.is_some_and(|pair| {
        pair.metadata.uid.as_ref() == Some(&read.uid)
            && pair.metadata.generation == Some(read.generation)
            && pair.metadata.deletion_timestamp.is_none()
    }))
}

/// What becomes of an object that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Made,
    Left,
}

async fn write(
    client: &Client,
    namespace: &str,
    applied: &Applied,
    object: &KubernetesObject,
    absent: Absent,
) -> Result<Written, kube::Error> {
    let hash = stable_hash(&object.body);
    let key = format!("{namespace}/{}/{}", object.resource.kind, object.name);
    if applied.is_believed(&key, &hash) {
        return Ok(Written::No);
    }
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &object.resource);
    let live = api.get_opt(&object.name).await?;
    if live.is_none() && absent == Absent::Left {
        return Ok(Written::No);
    }
    let is_right = live.as_ref().is_some_and(|live| {
        live.annotations().get(names::ANNOTATION_APPLIED) == Some(&hash)
            && serde_json::to_value(live).is_ok_and(|live| contains(&live, &object.body))
    });
    if !is_right {
        let mut body = object.body.clone();
        body["metadata"]["annotations"][names::ANNOTATION_APPLIED] = Value::String(hash.clone());
        if let (Absent::Left, Some(uid)) = (absent, live.as_ref().and_then(ResourceExt::uid)) {
            // Refused when it went meanwhile.
            body["metadata"]["uid"] = Value::String(uid);
        }
        let params = PatchParams::apply(names::MANAGER).force();
        api.patch(&object.name, &params, &Patch::Apply(&body)).await?;
    }
    applied.believe(key, hash);
    Ok(if is_right { Written::No } else { Written::Yes })
}

impl Applied {
    fn is_believed(&self, key: &str, hash: &str) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(key).is_some_and(|(known, at)| known == hash && at.elapsed() < BELIEF)
    }

    /// Looks again at an object that may have gone since it was found right.
    pub fn doubt(&self, namespace: &str, object: &KubernetesObject) {
        let key = format!("{namespace}/{}/{}", object.resource.kind, object.name);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    fn believe(&self, key: String, hash: String) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(key, (hash, Instant::now()));
    }

    /// Forgets a namespace's objects that begin with `prefix`: their pair is gone.
    pub fn forget(&self, namespace: &str, prefix: &str) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|key, _| {
            let mut parts = key.splitn(3, '/');
            let is_there = parts.next() == Some(namespace);
            let name = parts.nth(1).unwrap_or_default();
            !(is_there && name.starts_with(prefix))
        });
    }
}

/// Whether `live` has everything that `wanted` has; defaults that the server added do not matter.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            is_empty(wanted) || live.get(key).is_some_and(|live| contains(live, wanted))
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

/// The server leaves these out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 5432}], "selector": {"a": "b"}}});
        let live = json!({"spec": {"ports": [{"port": 5432, "protocol": "TCP"}],
            "selector": {"a": "b"}, "type": "ClusterIP"}, "status": {}});
        assert!(contains(&live, &wanted));
    }

    #[test]
    fn a_changed_or_missing_value_is_a_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 5432}]}});
        for live in [
            json!({"spec": {"ports": [{"port": 5433}]}}),
            json!({"spec": {"ports": []}}),
            json!({"spec": {}}),
        ] {
            assert!(!contains(&live, &wanted), "{live}");
        }
    }
}
