//! All that Kubernetes has of a pair, with everything taken out that differs between two pairs which
//! were made from the same spec: what is left must be equal.

use crate::pair::{Namespace, Pair};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a pair is made of. EndpointSlices are Kubernetes' own, and follow pods and Services.
const KINDS: &str = "activestandbypairs,pods,persistentvolumeclaims,services,secrets,\
    serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases,configmaps";
/// Stands for the pair's name.
const NAME: &str = "PAIR";
/// Stands for a value that must be there and is different in every pair.
const OWN: &str = "…";
/// Keys of Secrets whose values are made from the spec, and are no secrets.
const TOLD: [&str; 5] = ["username", "host", "hosts", "port", "dbname"];

/// Path to value, in words that can be compared and read.
pub(super) type State = BTreeMap<String, String>;

/// The pair's state.
pub(super) fn state(pair: &Pair<'_>) -> anyhow::Result<State> {
    let listed = pair.namespace.kubectl(&["get", KINDS, "-o", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let objects = listed["items"].as_array().context("a list has items")?;
    let mut state = State::new();
    let prefix = format!("{}-", pair.name);
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if name != pair.name && !name.starts_with(&prefix) {
            continue;
        }
        let place = format!("{} {name}", object["kind"].as_str().unwrap_or_default());
        flatten(&normal(pair, object)?, &place, &mut |path, value| {
            state.insert(path.replace(&pair.name, NAME), value.replace(&pair.name, NAME));
        });
    }
    Ok(state)
}

/// What differs, a line each.
pub(super) fn differences(changed: &State, fresh: &State) -> Vec<String> {
    let none = || "nothing".to_owned();
    let mut lines = Vec::new();
    for path in changed.keys().chain(fresh.keys().filter(|path| !changed.contains_key(*path))) {
        let (here, there) = (changed.get(path), fresh.get(path));
        if here != there {
            let (here, there) = (here.cloned().unwrap_or_else(none), there.cloned());
            lines.push(format!("{path}: {here}, fresh: {}", there.unwrap_or_else(none)));
        }
    }
    lines
}

fn flatten(value: &Value, path: &str, add: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, below) in fields {
                flatten(below, &format!("{path}/{name}"), add);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (number, below) in items.iter().enumerate() {
                flatten(below, &format!("{path}/{number}"), add);
            }
        }
        Value::String(text) => add(path, text),
        other => add(path, &other.to_string()),
    }
}

fn normal(pair: &Pair<'_>, object: &Value) -> anyhow::Result<Value> {
    let content = match object["kind"].as_str().unwrap_or_default() {
        "ActiveStandbyPair" => {
            json!({"spec": object["spec"], "status": pair_status(&object["status"])})
        }
        "Pod" => pod(object),
        "PersistentVolumeClaim" => json!({
            "spec": without(&object["spec"], &["volumeName"]),
            "phase": object["status"]["phase"],
        }),
        "Service" => json!({"spec": without(&object["spec"], &["clusterIP", "clusterIPs"])}),
        "Secret" => secret(pair.namespace, object)?,
        "Lease" => lease(object),
        "PodDisruptionBudget" => json!({"spec": object["spec"]}),
        // ServiceAccount, Role, RoleBinding.
        _ => without(object, &["metadata", "apiVersion", "kind"]),
    };
    Ok(json!({"metadata": metadata(&object["metadata"]), "is": content}))
}

fn without(value: &Value, fields: &[&str]) -> Value {
    let mut left = value.as_object().cloned().unwrap_or_default();
    left.retain(|name, _| !fields.contains(&name.as_str()));
    Value::Object(left)
}

/// Values of annotations are hashes, identities and places of this very pair; which there are is not.
fn metadata(metadata: &Value) -> Value {
    let keys = |map: &Value| -> Map<String, Value> {
        let keys = map.as_object().into_iter().flat_map(Map::keys);
        // Kubernetes notes on claims how they were bound. The other is as `next.crt` in `secret`.
        let is_ours =
            |key: &&String| !key.contains("kubernetes.io/") && *key != "understudy.dev/next-since";
        let keys = keys.filter(is_ours);
        keys.map(|key| (key.clone(), Value::from(OWN))).collect()
    };
    let owners = metadata["ownerReferences"].as_array().cloned().unwrap_or_default();
    let owners: Vec<Value> = owners.iter().map(|owner| without(owner, &["uid"])).collect();
    let mut labels = metadata["labels"].clone();
    if let Some(role) = labels.get_mut("understudy.dev/role") {
        // Roles may have changed sides: who is what is compared as a whole, in the pair's status.
        *role = Value::from(OWN);
    }
    json!({
        "labels": labels,
        "annotations": keys(&metadata["annotations"]),
        "owners": owners,
        "finalizers": metadata["finalizers"],
        "isBeingDeleted": metadata["deletionTimestamp"].is_string(),
    })
}

/// Beside the moments: epoch, decisions and the database are this pair's own story.
fn pair_status(status: &Value) -> Value {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let conditions: Map<String, Value> = array(&status["conditions"])
        .iter()
        .map(|c| {
            let words = format!("{} {}", c["status"], c["reason"]).replace('"', "");
            (c["type"].as_str().unwrap_or_default().to_owned(), Value::from(words))
        })
        .collect();
    let mut roles: Vec<String> = array(&status["members"])
        .iter()
        .map(|m| format!("{} {} {}", m["standing"], m["role"], m["state"]).replace('"', ""))
        .collect();
    roles.sort_unstable();
    let members: Vec<Value> = array(&status["members"])
        .iter()
        .map(|m| without(m, &["node", "role", "state", "since"]))
        .collect();
    json!({
        "phase": status["phase"],
        "exit": status["exit"],
        "promise": status["promise"],
        "sync": status["sync"]["state"],
        "effective": status["effective"],
        "subscribers": status["subscribers"],
        "selector": status["selector"],
        "lastMember": status["lastMember"],
        "trapped": status["trapped"],
        "conditions": conditions,
        "members": members,
        "roles": roles,
    })
}

/// The scheme in the environment is the one that the pod began with; its agent has had newer ones since,
/// which `At::Scheme` asks for.
fn pod(object: &Value) -> Value {
    let mut spec = without(&object["spec"], &["nodeName"]);
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        for variable in container["env"].as_array_mut().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap_or_default();
            if ["UNDERSTUDY_SCHEME", "UNDERSTUDY_PAIR_UID"].contains(&name) {
                variable["value"] = Value::from(OWN);
            }
        }
        for mount in container["volumeMounts"].as_array_mut().into_iter().flatten() {
            own_token(mount);
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        own_token(volume);
    }
    let ran = object["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let ran: Vec<Value> = ran
        .iter()
        .map(|c| json!({"image": c["image"], "ready": c["ready"], "restarts": c["restartCount"]}))
        .collect();
    json!({"spec": spec, "phase": object["status"]["phase"], "ran": ran})
}

/// The API server names the volume of the account's token by chance.
fn own_token(named: &mut Value) {
    if named["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")) {
        named["name"] = Value::from("kube-api-access");
    }
}

/// Which keys there are, and in words those values that are made from the spec. The authority keeps more
/// than a fresh one: a certificate authority that was once named is taken up after five minutes and is
/// trusted until it ends, so that no certificate of it is cut off.
fn secret(namespace: &Namespace<'_>, object: &Value) -> anyhow::Result<Value> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let data = object["data"].as_object().cloned().unwrap_or_default();
    let is_left_by_another_authority =
        |key: &str| name.ends_with("-ca") && (key.starts_with("next.") || key == "previous.crt");
    let (told, own): (Vec<&String>, Vec<&String>) = data
        .keys()
        .filter(|key| !is_left_by_another_authority(key))
        .partition(|key| TOLD.contains(&key.as_str()));
    let mut content: Map<String, Value> =
        own.into_iter().map(|key| (key.clone(), Value::from(OWN))).collect();
    if !told.is_empty() {
        let each = |key: &&String| format!("{{{{index .data \"{key}\" | base64decode}}}}\n");
        let template: String = told.iter().map(each).collect();
        let path = format!("go-template={template}");
        let values = namespace.kubectl(&["get", "secret", name, "-o", &path])?;
        let values = values.lines().map(Value::from);
        content.extend(told.into_iter().cloned().zip(values));
    }
    Ok(json!({"type": object["type"], "data": content}))
}

/// Who holds it, in which epoch and how often it was written is this pair's own story.
fn lease(object: &Value) -> Value {
    let record = object["metadata"]["annotations"]["understudy.dev/authority"].as_str();
    let record: Value =
        record.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    let voters = record["voters"].as_array().cloned().unwrap_or_default();
    let mut voters: Vec<String> = voters.iter().map(|voter| voter["member"].to_string()).collect();
    voters.sort_unstable();
    json!({
        "leaseDurationSeconds": object["spec"]["leaseDurationSeconds"],
        "leaseDurationMs": record["leaseDurationMs"],
        "state": record["state"],
        "isInSync": record["sync"].is_object(),
        "voters": voters,
    })
}
