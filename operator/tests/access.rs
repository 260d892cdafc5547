//! The chart grants the verbs that the operator uses, and no others; and what the operator grants to
//! members is a part of what it holds itself, else the API server would refuse.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use std::collections::{BTreeMap, BTreeSet};
use understudy_crds::ActiveStandbyPair;
use understudy_operator::{
    access::USED,
    pair::{
        build::{Blueprint, foundation},
        names,
        validate::{References, validate},
    },
};

type Rules = BTreeMap<(String, String), BTreeSet<String>>;

fn rules(list: &serde_json::Value) -> Rules {
    let mut rules = Rules::new();
    let texts = |rule: &serde_json::Value, key: &str| -> Vec<String> {
        let items = rule[key].as_array().unwrap();
        items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    for rule in list.as_array().unwrap() {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                let verbs = rules.entry((group.clone(), resource)).or_default();
                verbs.extend(texts(rule, "verbs"));
            }
        }
    }
    rules
}

fn used() -> Rules {
    USED.iter()
        .map(|(group, resource, verbs)| {
            let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
            (((*group).to_owned(), (*resource).to_owned()), verbs)
        })
        .collect()
}

fn chart(file: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/understudy");
    std::fs::read_to_string(root.join(file)).unwrap()
}

#[test]
fn the_chart_grants_exactly_what_is_used() {
    let mut granted = rules(&serde_yaml::from_str(&chart("files/access.yaml")).unwrap());
    // Classes have no namespace, so they stand in a ClusterRole of their own.
    let classes = chart("templates/access.yaml");
    assert!(classes.contains("resources: [storageclasses], verbs: [get]"));
    let get = BTreeSet::from(["get".to_owned()]);
    granted.insert(("storage.k8s.io".to_owned(), "storageclasses".to_owned()), get);
    assert_eq!(granted, used());
}

#[test]
fn the_chart_ships_the_committed_definition() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let committed = std::fs::read_to_string(root.join("crds/activestandbypairs.yaml")).unwrap();
    assert!(
        chart("files/activestandbypairs.yaml") == committed,
        "copy crds/activestandbypairs.yaml to charts/understudy/files/"
    );
}

#[test]
fn the_rendered_manifest_is_that_of_the_chart() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("deploy/operator.yaml")).unwrap();
    let documents: Vec<serde_json::Value> = text
        .split("\n---\n")
        .filter_map(|part| serde_yaml::from_str(part).ok())
        .filter(|document: &serde_json::Value| document.is_object())
        .collect();
    let found = |kind: &str, name: &str| {
        let is_it = |d: &&serde_json::Value| d["kind"] == kind && d["metadata"]["name"] == name;
        documents.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}")).clone()
    };
    let rules_of = rules(&found("ClusterRole", "understudy-operator")["rules"]);
    let granted = rules(&serde_yaml::from_str(&chart("files/access.yaml")).unwrap());
    assert_eq!(rules_of, granted, "render deploy/operator.yaml again; its head says how");
    let crd: serde_json::Value =
        serde_yaml::from_str(&chart("files/activestandbypairs.yaml")).unwrap();
    let rendered = found("CustomResourceDefinition", "activestandbypairs.understudy.dev");
    assert!(rendered["spec"] == crd["spec"], "render deploy/operator.yaml again");
}

#[test]
fn members_get_no_more_than_their_lease_and_their_pods() {
    let spec = serde_json::from_value(serde_json::json!({"subscribers": {"replicas": 2}}));
    let pair = ActiveStandbyPair::new("orders", spec.unwrap());
    let view = validate(&pair, "image:1", &References::default());
    let spec = view.spec.as_ref().unwrap();
    let voters = [names::voter("orders", 1), names::voter("orders", 2)];
    let phase = understudy_crds::Phase::Normal;
    let blueprint = Blueprint { pair: &view, spec, voters: &voters, last_member: 2, phase };
    let objects = foundation(&blueprint);
    let roles: Vec<_> = objects.iter().filter(|o| o.resource.kind == "Role").collect();
    assert_eq!(roles.len(), 2);
    let held = used();
    for role in roles {
        for rule in role.body["rules"].as_array().unwrap() {
            assert!(rule["resourceNames"].as_array().is_some_and(|names| !names.is_empty()));
        }
        for (resource, verbs) in rules(&role.body["rules"]) {
            assert!(verbs.is_subset(&held[&resource]), "{} of {resource:?}", role.name);
        }
    }
}
