//! From Kubernetes objects to the plain data that is judged. Reading caches is the caller's; what is
//! here is how each object is understood.
//!
//! **Invariant**: a field that is absent in an object is understood as "not known", never as a proof.

use crate::pair::{
    names,
    observation::{ContainerDeath, ContainerSight, LeaseSight, PodSight, VolumeSight},
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ContainerState, PersistentVolumeClaim, Pod},
};
use kube::ResourceExt;
use understudy_agent_api::names as shared;
use understudy_authority::LeaseRecord;
use understudy_crds::as_bytes;

/// The container that runs the agent.
const CONTAINER: &str = "agent";

/// Reads a pod; `pair_uid` tells whether it belongs to this pair object.
#[must_use]
pub(super) fn pod_sight(pod: &Pod, pair_uid: &str) -> PodSight {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let container = status
        .container_statuses
        .unwrap_or_default()
        .into_iter()
        .find(|container| container.name == CONTAINER);
    let unschedulable = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
        .map(|c| c.message.clone().unwrap_or_else(|| "no node fits".to_owned()));
    let states = container.as_ref().map(|c| (c.state.clone(), c.last_state.clone()));
    let (now, before) = states.unwrap_or_default();
    let deaths = [now.as_ref(), before.as_ref()]
        .into_iter()
        .flatten()
        .filter_map(|state| death(pod, state))
        .collect();
    PodSight {
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        is_ours: pod.owner_references().iter().any(|owner| owner.uid == pair_uid),
        is_being_deleted: pod.metadata.deletion_timestamp.is_some(),
        has_ended: matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")),
        is_ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        unschedulable,
        template: pod.annotations().get(names::ANNOTATION_TEMPLATE).cloned(),
        role_label: pod.labels().get(shared::LABEL_ROLE).cloned(),
        container: container_sight(now.as_ref()),
        deaths,
    }
}

fn container_sight(state: Option<&ContainerState>) -> ContainerSight {
    let Some(state) = state else { return ContainerSight::Absent };
    if let Some(waiting) = &state.waiting {
        return ContainerSight::Waiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        };
    }
    match (&state.running, &state.terminated) {
        (Some(_), _) => ContainerSight::Running,
        (None, Some(_)) => ContainerSight::Terminated,
        (None, None) => ContainerSight::Absent,
    }
}

/// R10: the end, its process, and whether the kubelet itself wrote the pod's status since.
fn death(pod: &Pod, state: &ContainerState) -> Option<ContainerDeath> {
    let ended = state.terminated.as_ref()?;
    let finished = ended.finished_at.as_ref()?;
    let kubelet_wrote = pod.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some("kubelet")
            && entry.subresource.as_deref() == Some("status")
            && entry.time.as_ref().is_some_and(|time| time.0.as_second() >= finished.0.as_second())
    });
    Some(ContainerDeath {
        exit_code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone().unwrap_or_default(),
        kubelet_was_alive: kubelet_wrote,
    })
}

/// Reads a volume claim.
#[must_use]
pub(super) fn volume_sight(claim: &PersistentVolumeClaim) -> VolumeSight {
    let requested = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref())
        .and_then(|resources| resources.requests.as_ref())
        .and_then(|requests| requests.get("storage"));
    VolumeSight {
        is_being_deleted: claim.metadata.deletion_timestamp.is_some(),
        is_lost: claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost"),
        bytes: requested.and_then(|quantity| as_bytes(quantity).ok()),
        dbid: claim.annotations().get(names::ANNOTATION_DBID).cloned(),
    }
}

/// Reads the pair's Lease.
#[must_use]
pub(super) fn lease_sight(lease: &Lease, unchanged_ms: u64) -> LeaseSight {
    let Some(annotation) = lease.annotations().get(shared::ANNOTATION_AUTHORITY) else {
        return LeaseSight::Unreadable("it has no authority annotation".to_owned());
    };
    match LeaseRecord::parse(annotation) {
        Ok(record) => LeaseSight::Present {
            record,
            unchanged_ms,
            is_being_deleted: lease.metadata.deletion_timestamp.is_some(),
        },
        Err(error) => LeaseSight::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use understudy_types::Incarnation;

    const INCARNATION: &str = "3:00000000-0000-0000-0000-000000000009";
    const NAMED: Incarnation = Incarnation { start: 3, id: uuid::Uuid::from_u128(9) };

    fn ended(reason: &str, message: &str, manager: &str, wrote: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "orders-1",
                "managedFields": [{"manager": manager, "operation": "Update",
                    "subresource": "status", "time": wrote}]
            },
            "status": {"containerStatuses": [{
                "name": "agent", "image": "i", "imageID": "i", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": reason,
                    "message": message, "finishedAt": "2026-01-01T00:00:10Z"}}
            }]}
        }))
        .unwrap()
    }

    fn proves(pod: &Pod) -> bool {
        pod_sight(pod, "uid").deaths.iter().any(|death| death.proves(NAMED))
    }

    #[test]
    fn the_kubelets_word_with_the_processs_name_is_a_proof() {
        assert!(proves(&ended("Error", INCARNATION, "kubelet", "2026-01-01T00:00:11Z")));
        let with_more = format!("panicked at x\n{INCARNATION}\n");
        assert!(proves(&ended("Error", &with_more, "kubelet", "2026-01-01T00:00:11Z")));
    }

    #[test]
    fn anybody_elses_word_is_no_proof() {
        let later = "2026-01-01T00:00:11Z";
        assert!(!proves(&ended("ContainerStatusUnknown", INCARNATION, "kubelet", later)));
        assert!(!proves(&ended("Error", INCARNATION, "kube-controller-manager", later)));
        assert!(!proves(&ended("Error", INCARNATION, "kubelet", "2026-01-01T00:00:09Z")));
        assert!(!proves(&ended("Error", "", "kubelet", later)));
        let other = "4:00000000-0000-0000-0000-000000000009";
        assert!(!proves(&ended("Error", other, "kubelet", later)));
    }

    #[test]
    fn a_lease_without_its_record_is_unreadable_not_absent() {
        let lease = Lease::default();
        assert!(matches!(lease_sight(&lease, 0), LeaseSight::Unreadable(_)));
    }
}
