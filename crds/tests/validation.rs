//! The table of accepted and refused objects, checked as far as that goes without an API server:
//! accepted ones are read by the types, and each rule of the definition has an object that it refuses.
//! The e2e suite sends the same table to a real API server.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use serde_json::Value;
use understudy_crds::{ActiveStandbyPair, ActiveStandbyPairSpec};

fn cases() -> Vec<Value> {
    serde_yaml::from_str(include_str!("validation.yaml")).unwrap()
}

fn rule_messages(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "x-kubernetes-validations" {
                    let rules = value.as_array().unwrap();
                    found.extend(rules.iter().map(|r| r["message"].as_str().unwrap().to_owned()));
                } else {
                    rule_messages(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| rule_messages(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_accepted_spec_is_read_and_written_back_unchanged() {
    for case in cases().iter().filter(|case| case.get("refused").is_none()) {
        let spec: ActiveStandbyPairSpec = serde_json::from_value(case["spec"].clone())
            .unwrap_or_else(|e| panic!("{}: {e}", case["case"]));
        let again = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(spec, again, "{}", case["case"]);
    }
}

#[test]
fn every_rule_refuses_something_in_the_table() {
    let crd = serde_json::to_value(<ActiveStandbyPair as kube::CustomResourceExt>::crd()).unwrap();
    let mut messages = Vec::new();
    rule_messages(&crd, &mut messages);
    assert!(messages.len() > 12, "only {} rules were found", messages.len());
    let cases = cases();
    let refusals: Vec<&str> = cases.iter().filter_map(|case| case["refused"].as_str()).collect();
    for message in messages {
        assert!(
            refusals.iter().any(|refusal| message.contains(refusal)),
            "no object in the table is refused with `{message}`"
        );
    }
}

#[test]
fn an_empty_spec_stores_nothing_but_the_scale_path() {
    let spec: ActiveStandbyPairSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(
        serde_json::to_value(spec).unwrap(),
        serde_json::json!({"subscribers": {"replicas": 0}})
    );
}
