//! The Kubernetes API of Understudy, group `understudy.dev`: what users write, and what the operator
//! answers in status. Types only; the generated YAML lies beside this crate's manifest, so that
//! `kubectl apply -f crds/` works, and a test keeps the two equal.
//!
//! **Invariants**
//! 1. An empty spec is a whole valid pair. Computed values go to `status.effective`, never into spec:
//!    a default stored by the API server could not be improved by an upgrade. The one exception is
//!    `subscribers.replicas`, whose path the scale subresource needs.
//! 2. A field that does nothing yet is absent, not ignored.
//! 3. Nothing in status changes with load.
//! 4. Every refusal says what to write instead, and its rule is bounded in cost.
//!
//! Deliberately absent: clients, defaults that depend on the cluster, judgement about a running pair.

#[expect(unreachable_pub, reason = "the KubeSchema derive copies each struct into a function")]
mod active_standby_pair;
pub mod conditions;
#[expect(unreachable_pub, reason = "the KubeSchema derive copies each struct into a function")]
mod failover;
mod phase;
mod quantity;
#[expect(unreachable_pub, reason = "the KubeSchema derive copies each struct into a function")]
mod status;

pub use active_standby_pair::{
    ActiveStandbyPair, ActiveStandbyPairSpec, AuthenticationSpec, ClientTls, DurabilityChoice,
    LimitAmounts, MemorySpec, Mode, ReplicationSpec, RequestAmounts, ResourcesSpec,
    RetentionPolicy, ReturnServiceChoice, SchedulingSpec, Spread, StorageSpec, SubscribersSpec,
    TlsSpec, VolumeSpec, WhenStandbyLostChoice,
};
pub use failover::{
    DataLossChoice, FailoverPolicyChoice, FailoverSpec, MaxLossSpec, NodeLossAction, NodeLossSpec,
};
pub use phase::Phase;
pub use quantity::{QuantityError, as_bytes, from_bytes};
pub use status::{
    ActiveStandbyPairStatus, CertificatesStatus, Decision, EffectiveStatus, ExitStatus,
    MemberStanding, MemberStatus, SubscribersStatus, SyncStatus, SyncWord, TrappedTail,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// API group of every resource.
pub const GROUP: &str = "understudy.dev";
/// Version of every resource.
pub const VERSION: &str = "v1alpha1";

/// Every definition, with the name of the file it is committed in.
#[must_use]
pub fn all_crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![("activestandbypairs.yaml", ActiveStandbyPair::crd())]
}
