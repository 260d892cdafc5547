//! How many voters may be evicted by plan: one while both are there and in sync, else none. Pure.

use super::{Blueprint, KubernetesObject, owned};
use crate::pair::names;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use std::collections::BTreeMap;
use understudy_agent_api::names as shared;
use understudy_crds::Phase;

/// The budget. A number, not a share: the pair's scale subresource counts subscribers, not voters.
pub(super) fn budget(blueprint: &Blueprint<'_>) -> KubernetesObject {
    let identity = blueprint.identity();
    let stay = if blueprint.phase == Phase::Normal { 1 } else { 2 };
    KubernetesObject::of(&PodDisruptionBudget {
        metadata: owned(identity, identity.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(stay)),
            selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([
                    (shared::LABEL_PAIR.to_owned(), identity.name.clone()),
                    (shared::LABEL_KIND.to_owned(), names::KIND_VOTER.to_owned()),
                ])),
                match_expressions: None,
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
