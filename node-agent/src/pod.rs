//! The role label on the voters' pods: what routes clients to the active and the standby.
//!
//! The label follows the role, it never makes one. Each agent writes its own; the new active also
//! takes the label from the old one's pod, which may lie on a dead node and stay an endpoint for 40 s.
//!
//! Deliberately absent: reading labels to decide anything.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::time::Duration;
use understudy_agent_api::names;
use understudy_lease::{Timeouts, prompt_config};
use understudy_types::{MemberName, Role};

/// Why a label was not written.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The pod changed since it was looked at: somebody with newer knowledge wrote.
    #[error("the pod of {0} changed meanwhile")]
    Overtaken(MemberName),
    /// The API server refused or did not answer; trying again is right.
    #[error("failed to label the pod of {member}")]
    Api {
        /// The member.
        member: MemberName,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time; trying again is right.
    #[error("the API server did not answer about the pod of {0} in time")]
    TimedOut(MemberName),
}

/// Writes role labels.
#[derive(Clone)]
pub struct RoleLabels {
    pods: Api<Pod>,
    timeout: Duration,
}

impl RoleLabels {
    /// In `namespace`, over connections of its own.
    ///
    /// # Errors
    /// When no client can be made of the configuration.
    pub fn connect(config: kube::Config, namespace: &str) -> Result<Self, kube::Error> {
        let timeouts = Timeouts::default();
        let client = Client::try_from(prompt_config(config, timeouts))?;
        Ok(Self::with_client(client, namespace, timeouts.whole))
    }

    /// The same over a given client.
    #[must_use]
    pub fn with_client(client: Client, namespace: &str, timeout: Duration) -> Self {
        Self { pods: Api::namespaced(client, namespace), timeout }
    }

    /// Writes the label; `None` takes it away. A pod that is gone needs no label.
    ///
    /// # Errors
    /// When the API server did not confirm.
    pub async fn set(&self, member: &MemberName, role: Option<Role>) -> Result<(), LabelError> {
        self.patch(member, &labels(role)).await
    }

    /// Takes the label away unless the pod has changed since it is looked at here, or `is_stale` says
    /// after that look that newer knowledge exists: a late answer must not undo the label that a
    /// restarted engine has just written.
    ///
    /// # Errors
    /// When it was overtaken or the API server did not confirm.
    pub async fn clear_unless_overtaken(
        &self,
        member: &MemberName,
        is_stale: impl Fn() -> bool,
    ) -> Result<(), LabelError> {
        self.clear(member, is_stale, |_| true).await
    }

    /// Takes the label away if it says `role`: a new active does so for the other voter, whose own
    /// agent may be on a lost node.
    ///
    /// # Errors
    /// As [`RoleLabels::clear_unless_overtaken`].
    pub async fn clear_role(&self, member: &MemberName, role: Role) -> Result<(), LabelError> {
        self.clear(member, || false, |label| label == role.as_label()).await
    }

    async fn clear(
        &self,
        member: &MemberName,
        is_stale: impl Fn() -> bool,
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<(), LabelError> {
        let get = self.pods.get_metadata_opt(member.as_str());
        let Some(pod) = self.in_time(member, get).await? else { return Ok(()) };
        if is_stale() {
            return Err(LabelError::Overtaken(member.clone()));
        }
        let label = pod.metadata.labels.and_then(|mut labels| labels.remove(names::LABEL_ROLE));
        if !label.is_some_and(|label| is_meant(&label)) {
            return Ok(());
        }
        let mut patch = labels(None);
        patch["metadata"]["resourceVersion"] = json!(pod.metadata.resource_version);
        self.patch(member, &patch).await
    }

    async fn patch(&self, member: &MemberName, patch: &Value) -> Result<(), LabelError> {
        let params = PatchParams::default();
        let patch = Patch::Merge(patch);
        let request = self.pods.patch_metadata(member.as_str(), &params, &patch);
        match self.in_time(member, request).await {
            Ok(_) => Ok(()),
            Err(LabelError::Api { source, member }) => match *source {
                kube::Error::Api(status) if status.is_not_found() => Ok(()),
                kube::Error::Api(status) if status.is_conflict() => {
                    Err(LabelError::Overtaken(member))
                }
                other => Err(LabelError::Api { source: Box::new(other), member }),
            },
            Err(error) => Err(error),
        }
    }

    async fn in_time<T>(
        &self,
        member: &MemberName,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, LabelError> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(LabelError::Api { member: member.clone(), source: Box::new(error) })
            }
            Err(_) => Err(LabelError::TimedOut(member.clone())),
        }
    }
}

fn labels(role: Option<Role>) -> Value {
    json!({"metadata": {"labels": {names::LABEL_ROLE: role.map(Role::as_label)}}})
}

#[cfg(test)]
#[path = "pod/tests.rs"]
mod tests;
