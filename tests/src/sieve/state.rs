//! The state of a namespace as text: what two runs of one scenario have in common when they end the same.
//!
//! A line a value. Left out is what a run may not choose or what differs from one to the next: UIDs, times,
//! addresses, nodes, hashes, random names and secrets; who of the voters is active.

use serde_json::Value;
use std::collections::BTreeSet;

/// Fields of `metadata` that are the same in every run.
const METADATA: [&str; 2] = ["labels", "finalizers"];
/// Fields that the cluster chooses, wherever they stand.
const CHOSEN: [&str; 6] =
    ["nodeName", "clusterIP", "clusterIPs", "volumeName", "healthCheckNodePort", "nodePort"];
/// Fields whose values are nobody's business or random: only their keys count.
const KEYS_ONLY: [&str; 2] = ["data", "stringData"];
/// Fields of JSON inside of a value that differ from pair to pair.
const CHOSEN_INSIDE: [&str; 1] = ["version"];
/// Random suffixes follow these.
const RANDOM_AFTER: [&str; 1] = ["kube-api-access-"];
/// Who of them is which changes.
const ROLES_OF_VOTERS: [&str; 2] = ["active", "standby"];

/// The objects as text; the values of `names` are written as their stand-ins.
#[must_use]
pub fn normal_form(objects: &[Value], names: &[(&str, &str)]) -> String {
    let mut lines = BTreeSet::new();
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let title = format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
        lines.insert(title.clone());
        for (path, value) in facts(object) {
            let mut line = format!("{title} {path} = {value}");
            for (name, stand_in) in names.iter().filter(|(name, _)| !name.is_empty()) {
                line = line.replace(name, stand_in);
            }
            lines.insert(line);
        }
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// What one has and the other does not, a line each: `-` of the first, `+` of the second.
#[must_use]
pub fn difference(first: &str, second: &str) -> String {
    let (one, other): (BTreeSet<&str>, BTreeSet<&str>) =
        (first.lines().collect(), second.lines().collect());
    let missing = one.difference(&other).map(|line| format!("- {line}\n"));
    let added = other.difference(&one).map(|line| format!("+ {line}\n"));
    missing.chain(added).collect()
}

fn facts(object: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Value::Object(fields) = object else { return found };
    for (name, value) in fields {
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => facts_of_metadata(value, &mut found),
            "status" => facts_of_status(value, &mut found),
            // Every renewal writes it; what a Lease says is in its annotation.
            "spec" if object["kind"] == "Lease" => {}
            name if KEYS_ONLY.contains(&name) => keys(name, value, &mut found),
            name => flatten(name, value, &mut found),
        }
    }
    found
}

fn facts_of_metadata(metadata: &Value, found: &mut Vec<(String, String)>) {
    for field in METADATA {
        flatten(field, &metadata[field], found);
    }
    let empty = serde_json::Map::new();
    let annotations = metadata["annotations"].as_object().unwrap_or(&empty);
    for name in annotations.keys().filter(|name| name.starts_with("understudy.dev/")) {
        found.push(("annotation".into(), name.clone()));
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        found.push(("owner".into(), format!("{}/{}", owner["kind"], owner["name"])));
    }
    if metadata.get("deletionTimestamp").is_some() {
        found.push(("is going".into(), "yes".into()));
    }
    let record = annotations.get("understudy.dev/authority").and_then(Value::as_str);
    if let Some(record) = record.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        found.push(("has a member in sync".into(), record["sync"].is_object().to_string()));
        let voters = record["voters"].as_array().map_or(0, Vec::len);
        found.push(("voters".into(), voters.to_string()));
    }
}

fn facts_of_status(status: &Value, found: &mut Vec<(String, String)>) {
    if let Some(phase) = status["phase"].as_str() {
        found.push(("phase".into(), phase.into()));
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let (kind, value) = (&condition["type"], &condition["status"]);
        found.push(("condition".into(), format!("{kind} {value}")));
    }
    flatten("effective", &status["effective"], found);
    flatten("promise", &status["promise"], found);
    for field in ["desired", "ready"] {
        flatten(&format!("subscribers.{field}"), &status["subscribers"][field], found);
    }
    for member in status["members"].as_array().into_iter().flatten() {
        found.push(("member".into(), member["name"].as_str().unwrap_or_default().into()));
    }
}

fn keys(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
        found.push((name.to_owned(), key.clone()));
    }
}

fn flatten(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| !CHOSEN.contains(&name.as_str()))
            {
                flatten(&format!("{path}.{name}"), value, found);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{at}]"), item, found);
            }
        }
        Value::String(text) if text.starts_with('{') && embedded(text).is_some() => {
            flatten(path, &embedded(text).unwrap_or_default(), found);
        }
        Value::String(text) => {
            let random = RANDOM_AFTER.iter().find(|prefix| text.starts_with(**prefix));
            let is_role =
                path.ends_with("understudy.dev/role") && ROLES_OF_VOTERS.contains(&text.as_str());
            let text = match random {
                Some(prefix) => prefix,
                // What a Service selects by is no state of a member.
                None if is_role && path.starts_with("labels") => "a voter's",
                None => text,
            };
            found.push((path.to_owned(), text.to_owned()));
        }
        Value::Bool(_) | Value::Number(_) => found.push((path.to_owned(), value.to_string())),
    }
}

/// JSON inside of a value, as in an agent's environment.
fn embedded(text: &str) -> Option<Value> {
    let mut inside: Value = serde_json::from_str(text).ok()?;
    inside.as_object_mut()?.retain(|name, _| !CHOSEN_INSIDE.contains(&name.as_str()));
    Some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(role: &str, uid: &str, node: &str) -> Value {
        json!({"kind": "Pod", "metadata": {"name": "orders-0", "uid": uid,
            "labels": {"understudy.dev/role": role}, "annotations": {"understudy.dev/applied": uid}},
            "spec": {"nodeName": node, "volumes": [{"name": format!("kube-api-access-{uid}")}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn what_a_run_cannot_choose_makes_no_difference() {
        let one = normal_form(&[pod("active", "abc", "node-1")], &[]);
        let other = normal_form(&[pod("standby", "xyz", "node-2")], &[]);
        assert_eq!(difference(&one, &other), "");
        assert!(one.contains("Pod/orders-0 condition = \"Ready\" \"True\""), "{one}");
    }

    #[test]
    fn an_object_or_a_value_too_many_is_a_difference() {
        let one = normal_form(&[pod("active", "abc", "node-1")], &[]);
        let mut changed = pod("active", "abc", "node-1");
        changed["status"]["phase"] = json!("Pending");
        let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "left"}});
        let other = normal_form(&[changed, claim], &[]);
        let expected = "- Pod/orders-0 phase = Running\n+ PersistentVolumeClaim/left\n\
            + Pod/orders-0 phase = Pending\n";
        assert_eq!(difference(&one, &other), expected);
    }

    #[test]
    fn what_is_written_inside_of_a_value_counts_but_its_version() {
        let pod = |version: u32, voter: &str| {
            let scheme = json!({"version": version, "voters": [voter]}).to_string();
            normal_form(
                &[json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"s": scheme}})],
                &[],
            )
        };
        assert_eq!(pod(1, "a"), pod(2, "a"));
        assert_ne!(pod(1, "a"), pod(1, "b"));
    }

    #[test]
    fn secrets_show_their_keys_alone() {
        let secret =
            json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "c2VjcmV0"}});
        assert_eq!(normal_form(&[secret], &[]), "Secret/s\nSecret/s data = k\n");
    }
}
