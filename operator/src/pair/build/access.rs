//! What members may do at the API server: their one Lease, and the labels of the pods that they may
//! label. Pure.

use super::{Blueprint, KubernetesObject, owned};
use crate::pair::names;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

/// ServiceAccounts, Roles and RoleBindings: one set for voters, one for subscribers.
pub(super) fn accounts(blueprint: &Blueprint<'_>) -> Vec<KubernetesObject> {
    let name = &blueprint.identity().name;
    let lease = names::lease(name);
    let voters: Vec<String> = blueprint.voters.iter().map(ToString::to_string).collect();
    let subscribers: Vec<String> = (1..=blueprint.spec.subscribers)
        .map(|number| names::subscriber(name, number).to_string())
        .collect();
    let mut objects = account(
        blueprint,
        names::voter_account(name),
        vec![
            // Renew, acquire, release, record who is in sync (R4, R9, R16); the watch is a hint.
            rule("coordination.k8s.io", "leases", &["get", "update", "watch"], vec![lease.clone()]),
            // A new active takes the role label from an old one on a dead node.
            rule("", "pods", &["get", "patch"], voters),
        ],
    );
    let mut rules = vec![rule("coordination.k8s.io", "leases", &["get", "watch"], vec![lease])];
    if !subscribers.is_empty() {
        rules.push(rule("", "pods", &["get", "patch"], subscribers));
    }
    objects.extend(account(blueprint, names::subscriber_account(name), rules));
    objects
}

fn rule(group: &str, resource: &str, verbs: &[&str], names: Vec<String>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: Some(names),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        non_resource_urls: None,
    }
}

fn account(
    blueprint: &Blueprint<'_>,
    name: String,
    rules: Vec<PolicyRule>,
) -> Vec<KubernetesObject> {
    let identity = blueprint.identity();
    let account =
        ServiceAccount { metadata: owned(identity, name.clone()), ..ServiceAccount::default() };
    let role = Role { metadata: owned(identity, name.clone()), rules: Some(rules) };
    let binding = RoleBinding {
        metadata: owned(identity, name.clone()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(identity.namespace.clone()),
            api_group: None,
        }]),
    };
    vec![
        KubernetesObject::of(&account),
        KubernetesObject::of(&role),
        KubernetesObject::of(&binding),
    ]
}
