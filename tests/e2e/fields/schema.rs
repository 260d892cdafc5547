//! The leaves of the spec, as the definition's schema has them: what the table of cases must cover.

use anyhow::Context;
use serde_json::Value;
use std::{collections::BTreeSet, fs};

/// Every leaf below `spec`, in dots: `[]` stands for any item of a list, `{}` for any value of a map.
pub(super) fn leaves() -> anyhow::Result<BTreeSet<String>> {
    let path = understudy_tests::root().join("crds/activestandbypairs.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let definition: Value = serde_yaml::from_str(&text)?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = BTreeSet::new();
    walk(&schema["properties"]["spec"], "spec", &mut found);
    Ok(found)
}

fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, below) in properties {
            walk(below, &format!("{path}.{name}"), found);
        }
    } else if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), found);
    } else if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), found);
    } else {
        found.insert(path.to_owned());
    }
}

/// The leaves that a patch of the spec writes, named as [`leaves`] names them. `known` tells maps from
/// objects: a key below a map is any key.
pub(super) fn written(patch: &Value, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(patch, "spec", known, &mut found);
    found
}

fn collect(patch: &Value, path: &str, known: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    let any_key = format!("{path}{{}}");
    match patch {
        Value::Object(_) if known.contains(&any_key) => {
            found.insert(any_key);
        }
        Value::Object(fields) => {
            for (name, below) in fields {
                collect(below, &format!("{path}.{name}"), known, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                collect(item, &format!("{path}[]"), known, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.insert(path.to_owned());
        }
    }
}
