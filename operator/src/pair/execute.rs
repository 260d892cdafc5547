//! Carries a plan out: in order, each step once, and the first failure ends the attempt. The next
//! reconciliation observes afresh; no step is ever repeated on an old judgement (A1.12).

use crate::{
    agents::{ConnectionError, PairKey},
    context::Context,
    pair::{
        action::{Action, Kind, PersonsWord},
        apply::{amend, apply, is_current},
        build::{self, KubernetesObject},
        names,
        plan::{self, Picture},
        validate::ValidatedSpec,
    },
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};
use std::collections::BTreeMap;
use understudy_agent_api as agent_api;
use understudy_authority::LeaseRecord;
use understudy_lease::{CreateOutcome, Version, WriteOutcome};
use understudy_types::MemberName;

/// How long an active may hold commits back before it undoes a planned hand-over.
/// Less than an answer may take.
const TRANSFER_DEADLINE_MS: u64 = 2_500;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The API server refused or could not be asked.
    #[error("failed to {step}")]
    Api {
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The agent refused or could not be asked.
    #[error("failed to {step}")]
    Agent {
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: ConnectionError,
    },
    /// The Lease was not written as judged; the next look judges anew.
    #[error("failed to {step}: {problem}")]
    Lease {
        /// The step.
        step: String,
        /// What became of the write.
        problem: String,
    },
    /// The pair was deleted, made anew or changed since it was read; the next look judges anew.
    #[error("failed to {0}: the pair is not what it was when it was judged")]
    Outdated(String),
    /// A step that needs a valid spec came without one.
    #[error("failed to {0}: the spec is not valid")]
    NoSpec(String),
}

impl ExecuteError {
    /// For a person: what was tried, and the API server's own sentence.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            ExecuteError::Api { step, source: kube::Error::Api(status) } => {
                format!("failed to {step}: {}", status.message)
            }
            ExecuteError::Api { .. }
            | ExecuteError::Agent { .. }
            | ExecuteError::Lease { .. }
            | ExecuteError::Outdated(_)
            | ExecuteError::NoSpec(_) => super::chain(self),
        }
    }

    /// Whether the API server said that this will never work as it stands.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            ExecuteError::Api { source: kube::Error::Api(status), .. } => {
                status.is_invalid() || status.is_forbidden()
            }
            ExecuteError::Api { .. }
            | ExecuteError::Agent { .. }
            | ExecuteError::Lease { .. }
            | ExecuteError::Outdated(_)
            | ExecuteError::NoSpec(_) => false,
        }
    }
}

/// Carries out plans for one pair.
pub struct Executor<'a> {
    /// Shared things.
    pub context: &'a Context,
    /// What was judged.
    pub picture: &'a Picture<'a>,
    /// The version of the Lease that was judged, when it may be written.
    pub judged: Option<Version>,
}

impl Executor<'_> {
    /// One step.
    ///
    /// # Errors
    /// When it failed.
    pub async fn perform(&self, action: &Action) -> Result<(), ExecuteError> {
        match action {
            Action::CreateLease { record } => self.create_lease(action, record).await,
            Action::NameInitialiser { record, .. } => self.write_lease(action, record).await,
            Action::ReinstateLease { record } => match &self.judged {
                Some(_) => self.write_lease(action, record).await,
                None => self.create_lease(action, record).await,
            },
            Action::CreateMember { member, kind } => {
                self.create_member(action, member, *kind).await
            }
            Action::DeletePod { member, uid, .. } => self.delete_pod(action, member, uid).await,
            Action::DeleteSubscriberVolumes { member } => self.delete_volumes(action, member).await,
            Action::RetireMember { member } => self.retire(action, member).await,
            Action::SendScheme { member, .. } => {
                let spec = self.spec(action)?;
                let last = self.picture.last_member;
                let scheme = plan::scheme(self.picture.pair, spec, &self.voters(), last);
                self.ask(action, member, agent_api::SCHEME, &scheme).await
            }
            Action::OfferDeath { to, report } => {
                self.ask(action, to, agent_api::DEATH, report).await
            }
            Action::RequestCandidacy { member, epoch, reason, word } => {
                let request = agent_api::CandidacyRequest {
                    epoch: *epoch,
                    reason: reason.clone(),
                    by_person: *word != PersonsWord::None,
                    accepts_loss: *word == PersonsWord::AcceptsLoss,
                };
                self.ask(action, member, agent_api::CANDIDACY, &request).await
            }
            Action::RequestTransfer { from, to, epoch } => {
                let request = agent_api::TransferRequest {
                    epoch: *epoch,
                    to: to.clone(),
                    deadline_ms: TRANSFER_DEADLINE_MS,
                };
                self.ask(action, from, agent_api::TRANSFER, &request).await
            }
            Action::NoteDatabase { member, dbid } => self.note(action, member, dbid).await,
        }
    }

    fn spec(&self, action: &Action) -> Result<&ValidatedSpec, ExecuteError> {
        self.picture.spec().ok_or_else(|| ExecuteError::NoSpec(action.to_string()))
    }

    fn namespace(&self) -> &str {
        &self.picture.pair.identity.namespace
    }

    fn key(&self) -> PairKey {
        let identity = &self.picture.pair.identity;
        (identity.namespace.clone(), identity.name.clone())
    }

    fn voters(&self) -> Vec<MemberName> {
        self.picture.voters.iter().map(|v| v.member.clone()).collect()
    }

    /// The member's pod as the spec wants it.
    fn pod(&self, spec: &ValidatedSpec, member: &MemberName, kind: Kind) -> Pod {
        let pair = self.picture.pair;
        let scheme = build::scheme_json(pair, spec, &self.voters(), self.picture.last_member);
        build::pod(pair, spec, (member, kind), &scheme)
    }

    async fn ask<B: serde::Serialize + Sync>(
        &self,
        action: &Action,
        member: &MemberName,
        path: &'static str,
        body: &B,
    ) -> Result<(), ExecuteError> {
        let asked = self.context.agents.request(&self.key(), member, path, body).await;
        asked.map_err(|source| ExecuteError::Agent { step: action.to_string(), source })
    }

    async fn create_lease(
        &self,
        action: &Action,
        record: &LeaseRecord,
    ) -> Result<(), ExecuteError> {
        let identity = &self.picture.pair.identity;
        let lease = self.context.authority_lease(&identity.namespace, &identity.name);
        let labels: BTreeMap<String, String> = build::pair_labels(identity);
        let problem = match lease.create(record, labels).await {
            // One that exists was made by another operator process, or the watch is behind.
            CreateOutcome::Created(_) | CreateOutcome::Exists => return Ok(()),
            CreateOutcome::Refused(refused) => refused.to_string(),
            CreateOutcome::Unknown(doubt) => doubt.to_string(),
        };
        Err(ExecuteError::Lease { step: action.to_string(), problem })
    }

    async fn write_lease(&self, action: &Action, record: &LeaseRecord) -> Result<(), ExecuteError> {
        let step = action.to_string();
        let Some(judged) = &self.judged else {
            let problem = "the version that was judged is not known".to_owned();
            return Err(ExecuteError::Lease { step, problem });
        };
        let identity = &self.picture.pair.identity;
        let lease = self.context.authority_lease(&identity.namespace, &identity.name);
        let problem = match lease.write(judged, record).await {
            WriteOutcome::Confirmed(_) => return Ok(()),
            WriteOutcome::Conflict => "it changed since it was judged".to_owned(),
            WriteOutcome::Refused(refused) => refused.to_string(),
            WriteOutcome::Unknown(doubt) => doubt.to_string(),
        };
        Err(ExecuteError::Lease { step, problem })
    }

    /// Volumes first: a pod without them would only wait.
    async fn create_member(
        &self,
        action: &Action,
        member: &MemberName,
        kind: Kind,
    ) -> Result<(), ExecuteError> {
        let spec = self.spec(action)?;
        let failed = |source| ExecuteError::Api { step: action.to_string(), source };
        // Volumes have no owner: made for a pair that is gone, they would stay for ever.
        if !is_current(&self.context.client, &self.picture.pair.identity).await.map_err(failed)? {
            return Err(ExecuteError::Outdated(action.to_string()));
        }
        let mut objects = claims(self.picture, spec, (member, kind), None);
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), self.namespace());
        let there = pods.get_opt(member.as_str()).await.map_err(failed)?;
        if there.is_none() {
            // One that is there already is newer than the cache: a pod is made, never changed.
            objects.push(KubernetesObject::of(&self.pod(spec, member, kind)));
        }
        for object in objects {
            let applied = &self.context.applied;
            applied.doubt(self.namespace(), &object);
            apply(&self.context.client, self.namespace(), applied, &object)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    async fn note(
        &self,
        action: &Action,
        member: &MemberName,
        dbid: &str,
    ) -> Result<(), ExecuteError> {
        let spec = self.spec(action)?;
        let pair = &self.picture.pair.identity.name;
        let kind = match names::subscriber_number(pair, member.as_str()) {
            Some(_) => Kind::Subscriber,
            None => Kind::Voter,
        };
        for object in claims(self.picture, spec, (member, kind), Some(dbid)) {
            amend(&self.context.client, self.namespace(), &self.context.applied, &object)
                .await
                .map_err(|source| ExecuteError::Api { step: action.to_string(), source })?;
        }
        Ok(())
    }

    async fn delete_pod(
        &self,
        action: &Action,
        member: &MemberName,
        uid: &str,
    ) -> Result<(), ExecuteError> {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), self.namespace());
        self.rehearse(action, member, &api).await?;
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        match api.delete(member.as_str(), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            Err(source) => Err(ExecuteError::Api { step: action.to_string(), source }),
        }
    }

    /// A pod that will be made anew is deleted only when the API server would admit its successor: quotas,
    /// priority classes and sums of resources are known to it alone.
    async fn rehearse(
        &self,
        action: &Action,
        member: &MemberName,
        pods: &Api<Pod>,
    ) -> Result<(), ExecuteError> {
        let spec = self.spec(action)?;
        let pair = &self.picture.pair.identity.name;
        let kind = match names::subscriber_number(pair, member.as_str()) {
            Some(number) if number <= spec.subscribers => Kind::Subscriber,
            None if self.picture.voter(member).is_some() => Kind::Voter,
            Some(_) | None => return Ok(()),
        };
        let pod = self.pod(spec, member, kind);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match pods.create(&dry, &pod).await {
            Ok(_) => Ok(()),
            // Admitted; that its name is in use is why it is rehearsed only.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(source) => {
                Err(ExecuteError::Api { step: format!("replace the pod of {member}"), source })
            }
        }
    }

    async fn delete_volumes(
        &self,
        action: &Action,
        member: &MemberName,
    ) -> Result<(), ExecuteError> {
        let client = &self.context.client;
        let spec = self.spec(action)?;
        let number = names::subscriber_number(&self.picture.pair.identity.name, member.as_str());
        // The volumes go last: while one is there, a step that was cut short is taken again.
        if number.is_some_and(|number| number > spec.subscribers) {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), self.namespace());
            let name = names::member_tls_secret(member);
            gone(secrets.delete(&name, &DeleteParams::default()).await.map(drop), action)?;
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), self.namespace());
        for name in [names::data_volume(member), names::log_volume(member)] {
            gone(claims.delete(&name, &DeleteParams::default()).await.map(drop), action)?;
        }
        Ok(())
    }

    /// What is left of its volumes stays; its Service and certificate go.
    async fn retire(&self, action: &Action, member: &MemberName) -> Result<(), ExecuteError> {
        let client = &self.context.client;
        let services: Api<Service> = Api::namespaced(client.clone(), self.namespace());
        let deleted = services.delete(member.as_str(), &DeleteParams::default()).await;
        gone(deleted.map(drop), action)?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), self.namespace());
        let name = names::member_tls_secret(member);
        gone(secrets.delete(&name, &DeleteParams::default()).await.map(drop), action)
    }
}

fn gone(deleted: Result<(), kube::Error>, action: &Action) -> Result<(), ExecuteError> {
    match deleted {
        Ok(()) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(ExecuteError::Api { step: action.to_string(), source }),
    }
}

/// The member's claims, never smaller than they are, with the note that they have or get.
pub fn claims(
    picture: &Picture<'_>,
    spec: &ValidatedSpec,
    (member, kind): (&MemberName, Kind),
    note: Option<&str>,
) -> Vec<KubernetesObject> {
    let found = picture.seen.volumes.get(member).cloned().unwrap_or_default();
    let both = [
        (names::data_volume(member), &spec.data, found.data),
        (names::log_volume(member), &spec.log, found.log),
    ];
    both.into_iter()
        .map(|(name, volume, found)| {
            let bytes = found.as_ref().and_then(|f| f.bytes).unwrap_or(0).max(volume.bytes);
            let noted = found.and_then(|f| f.dbid);
            let dbid = note.map(str::to_owned).or(noted);
            KubernetesObject::of(&build::volume_claim(
                &picture.pair.identity,
                (member, kind),
                (name, volume),
                bytes,
                dbid.as_deref(),
            ))
        })
        .collect()
}
