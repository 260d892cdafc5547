//! Volume claims of a member: without owner, so that they outlive the pair object. Pure.

use super::{pair_labels, pod::member_labels};
use crate::pair::{
    action::Kind,
    names,
    validate::{Identity, Volume},
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use understudy_crds::from_bytes;
use understudy_types::MemberName;

/// One claim. `bytes` is what it must have by now: it never shrinks. `dbid` is the database noted on it.
#[must_use]
pub fn volume_claim(
    identity: &Identity,
    (member, kind): (&MemberName, Kind),
    (name, volume): (String, &Volume),
    bytes: u64,
    dbid: Option<&str>,
) -> PersistentVolumeClaim {
    let mut labels = pair_labels(identity);
    labels.extend(member_labels(member, kind));
    let noted = dbid.map(|dbid| (names::ANNOTATION_DBID.to_owned(), dbid.to_owned()));
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(identity.namespace.clone()),
            labels: Some(labels),
            annotations: noted.map(|note| BTreeMap::from([note])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            // One process at a time: a second pod on the same volume would be a second voter (A1.4).
            access_modes: Some(vec!["ReadWriteOncePod".to_owned()]),
            storage_class_name: volume.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), from_bytes(bytes))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
