//! What the operator uses at the API server: one line per resource. The chart grants exactly this (a
//! test compares them), and a call that is not listed is logged as an error when it is made.

use crate::metrics::Call;

/// Group, resource and verbs. An apply of an object that is absent needs `create` beside `patch`.
pub const USED: [(&str, &str, &[&str]); 14] = [
    ("understudy.dev", "activestandbypairs", &["get", "list", "watch", "patch"]),
    ("understudy.dev", "activestandbypairs/status", &["patch"]),
    ("", "pods", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "persistentvolumeclaims", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "services", &["get", "create", "patch", "delete"]),
    ("", "secrets", &["get", "create", "patch", "delete"]),
    ("", "serviceaccounts", &["get", "create", "patch"]),
    ("rbac.authorization.k8s.io", "roles", &["get", "create", "patch"]),
    ("rbac.authorization.k8s.io", "rolebindings", &["get", "create", "patch"]),
    ("policy", "poddisruptionbudgets", &["get", "create", "patch"]),
    ("coordination.k8s.io", "leases", &["get", "list", "watch", "create", "update", "delete"]),
    ("events.k8s.io", "events", &["create", "patch"]),
    ("storage.k8s.io", "storageclasses", &["get"]),
    // Never called: asked for by the API server when an owned object blocks its owner's deletion.
    ("understudy.dev", "activestandbypairs/finalizers", &["update"]),
];

/// Whether a call is listed.
#[must_use]
pub fn is_used(call: &Call) -> bool {
    USED.iter().any(|(group, resource, verbs)| {
        *group == call.group && *resource == call.resource && verbs.contains(&call.verb.as_str())
    })
}
