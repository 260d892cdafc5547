//! The pair's authority Lease: a consistent read, one write on exactly the version read, creation and
//! removal by the operator.
//!
//! The annotation is the truth. The spec fields mirror it so that `kubectl get lease` tells the story,
//! and so that a person who edits `holderIdentity` is noticed ([`Versioned::asked_holder`], A1.16).
//!
//! Deliberately absent: server-side apply, patches, retries, `resourceVersion=0` (a cached read may be
//! older than what this process itself wrote).

use crate::{
    Doubt, NotWritten, ReadError, Timeouts, WriteOutcome, boot_time,
    outcome::{Failure, classify_read, classify_write},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use std::{collections::BTreeMap, sync::Arc};
use understudy_authority::{LeaseRecord, LeaseState};
use understudy_types::{Epoch, Moment};

/// Annotation that holds the whole record. The same text as in the control API's names.
pub(crate) const ANNOTATION: &str = "understudy.dev/authority";
/// Finalizer that keeps the third voter's memory when somebody deletes the Lease (A1.13).
pub(crate) const FINALIZER: &str = "understudy.dev/authority";
/// Name under which the writes appear in `managedFields`.
const FIELD_MANAGER: &str = "understudy-authority";

/// One version of the Lease: what a write is based on. It stands for the record it came with.
#[derive(Debug, Clone)]
pub struct Version {
    lease: Arc<Lease>,
    order: (Epoch, u64),
}

impl Version {
    /// The API server's name of the version; equal or not equal, never compared otherwise.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.lease.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// (epoch, seq) of the record that the version stands for.
    #[must_use]
    pub fn order(&self) -> (Epoch, u64) {
        self.order
    }

    /// UID of the Lease object: another one means that it was deleted and made again (A1.13).
    #[must_use]
    pub fn uid(&self) -> &str {
        self.lease.metadata.uid.as_deref().unwrap_or_default()
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.uid() == other.uid() && self.resource_version() == other.resource_version()
    }
}

impl Eq for Version {}

/// A record together with the version it was found in and when.
#[derive(Debug, Clone)]
pub struct Versioned {
    /// What to base the next write on.
    pub version: Version,
    /// The record.
    pub record: LeaseRecord,
    /// Own clock before the request was sent; authority by a confirmed write counts from here (R4).
    pub sent: Moment,
    /// Own clock after the answer came; an observer counts expiry from here (R4).
    pub seen: Moment,
    /// Holder that a person wrote into `holderIdentity` against the record; a request, no act (A1.16).
    pub asked_holder: Option<String>,
    /// Somebody deleted the Lease; only its finalizer keeps it.
    pub is_being_deleted: bool,
}

/// What became of a creation.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a request, moved once")]
pub enum CreateOutcome {
    /// Made by this request.
    Created(Versioned),
    /// There is one already: read it.
    Exists,
    /// Not made.
    Refused(NotWritten),
    /// May have been made: read it.
    Unknown(Doubt),
}

/// Why the Lease is perhaps still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It changed since it was judged: read, and decide again.
    #[error("the Lease changed since it was read")]
    Changed,
    /// Not confirmed; asking again is right.
    #[error("the API server did not confirm the removal of the Lease")]
    Unconfirmed(#[source] Box<kube::Error>),
    /// Not confirmed in time; asking again is right.
    #[error("the API server did not confirm the removal of the Lease in time")]
    TimedOut,
}

/// The pair's Lease.
#[derive(Clone)]
pub struct AuthorityLease {
    prompt: Api<Lease>,
    pub(crate) watched: Api<Lease>,
    pub(crate) name: String,
    timeouts: Timeouts,
}

impl AuthorityLease {
    /// The Lease `name` in `namespace`, over connections of its own.
    ///
    /// # Errors
    /// When no client can be made of the configuration.
    pub fn connect(
        config: kube::Config,
        namespace: &str,
        name: &str,
        timeouts: Timeouts,
    ) -> Result<Self, kube::Error> {
        let prompt = Client::try_from(crate::prompt_config(config.clone(), timeouts))?;
        let watched = Client::try_from(crate::watch_config(config, timeouts))?;
        Ok(Self {
            prompt: Api::namespaced(prompt, namespace),
            watched: Api::namespaced(watched, namespace),
            name: name.to_owned(),
            timeouts,
        })
    }

    /// The same over a given client, which must neither retry nor cache.
    #[must_use]
    pub fn with_client(client: Client, namespace: &str, name: &str, timeouts: Timeouts) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { prompt: api.clone(), watched: api, name: name.to_owned(), timeouts }
    }

    /// The Lease as it is now (a consistent read).
    ///
    /// # Errors
    /// When it is absent, is no authority Lease, or cannot be read at this time.
    pub async fn read(&self) -> Result<Versioned, ReadError> {
        let sent = boot_time();
        let answer = tokio::time::timeout(self.timeouts.whole, self.prompt.get(&self.name)).await;
        let lease =
            answer.map_err(|_| ReadError::TimedOut(self.timeouts.whole))?.map_err(classify_read)?;
        versioned(lease, sent)
    }

    /// Writes `record` over the version that was judged: one request, never repeated.
    pub async fn write(&self, base: &Version, record: &LeaseRecord) -> WriteOutcome {
        if let Err(refused) = follows(base, record) {
            return WriteOutcome::Refused(refused);
        }
        let mut next = Lease::clone(&base.lease);
        // Left out means "as it is"; the server keeps its own books.
        next.metadata.managed_fields = None;
        next.metadata
            .annotations
            .get_or_insert_default()
            .insert(ANNOTATION.into(), record.render());
        next.spec = Some(mirror(record, base.lease.spec.as_ref()));
        let sent = boot_time();
        let params = post_params();
        let request = self.prompt.replace(&self.name, &params, &next);
        match tokio::time::timeout(self.timeouts.whole, request).await {
            Ok(Ok(lease)) => confirmed(lease, record, sent),
            Ok(Err(error)) => match classify_write(error) {
                Failure::Conflict => WriteOutcome::Conflict,
                Failure::Refused(refused) => WriteOutcome::Refused(refused),
                Failure::Unknown(doubt) => WriteOutcome::Unknown(doubt),
            },
            Err(_) => WriteOutcome::Unknown(Doubt::TimedOut(self.timeouts.whole)),
        }
    }

    /// Makes the Lease (R20, R21): the operator's act alone.
    pub async fn create(
        &self,
        record: &LeaseRecord,
        labels: BTreeMap<String, String>,
    ) -> CreateOutcome {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: (!labels.is_empty()).then_some(labels),
                annotations: Some(BTreeMap::from([(ANNOTATION.to_owned(), record.render())])),
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: Some(mirror(record, None)),
        };
        let sent = boot_time();
        let params = post_params();
        let request = self.prompt.create(&params, &lease);
        match tokio::time::timeout(self.timeouts.whole, request).await {
            Ok(Ok(lease)) => match confirmed(lease, record, sent) {
                WriteOutcome::Confirmed(made) => CreateOutcome::Created(made),
                WriteOutcome::Conflict => CreateOutcome::Exists,
                WriteOutcome::Refused(refused) => CreateOutcome::Refused(refused),
                WriteOutcome::Unknown(doubt) => CreateOutcome::Unknown(doubt),
            },
            Ok(Err(error)) => match classify_write(error) {
                Failure::Conflict => CreateOutcome::Exists,
                Failure::Refused(refused) => CreateOutcome::Refused(refused),
                Failure::Unknown(doubt) => CreateOutcome::Unknown(doubt),
            },
            Err(_) => CreateOutcome::Unknown(Doubt::TimedOut(self.timeouts.whole)),
        }
    }

    /// Removes the Lease for good, finalizer included: only after the last volume of the pair is gone
    /// or given up. Absent is success, and asking twice does no harm.
    ///
    /// # Errors
    /// When the Lease changed since `base`, or the API server does not confirm.
    pub async fn remove(&self, base: &Version) -> Result<(), RemoveError> {
        let mut bare = Lease::clone(&base.lease);
        bare.metadata.managed_fields = None;
        bare.metadata.finalizers.get_or_insert_default().retain(|name| name != FINALIZER);
        let remove = async {
            let bare = self.prompt.replace(&self.name, &post_params(), &bare).await?;
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: bare.metadata.uid,
                resource_version: bare.metadata.resource_version,
            });
            self.prompt.delete(&self.name, &params).await.map(drop)
        };
        match tokio::time::timeout(self.timeouts.whole * 2, remove).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(RemoveError::Changed),
            Ok(Err(error)) => Err(RemoveError::Unconfirmed(Box::new(error))),
            Err(_) => Err(RemoveError::TimedOut),
        }
    }
}

impl std::fmt::Debug for AuthorityLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityLease").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The content test (R3): a record is written only over the one it was made from.
fn follows(base: &Version, record: &LeaseRecord) -> Result<(), NotWritten> {
    let (base_epoch, base_seq) = base.order;
    let (record_epoch, record_seq) = record.order();
    if base_seq.checked_add(1) == Some(record_seq) && record_epoch >= base_epoch {
        return Ok(());
    }
    Err(NotWritten::NotTheNext { base_epoch, base_seq, record_epoch, record_seq })
}

/// Reads a Lease object that was asked for at `sent` and is here now.
pub(crate) fn versioned(lease: Lease, sent: Moment) -> Result<Versioned, ReadError> {
    let seen = boot_time();
    let annotation = lease
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(ANNOTATION))
        .ok_or(ReadError::Bare(ANNOTATION))?;
    let record = LeaseRecord::parse(annotation).map_err(ReadError::Damaged)?;
    let written = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    let asked_holder =
        written.filter(|name| !name.is_empty() && Some(name) != holder_identity(&record).as_ref());
    let is_being_deleted = lease.metadata.deletion_timestamp.is_some();
    let version = Version { order: record.order(), lease: Arc::new(lease) };
    Ok(Versioned { version, record, sent, seen, asked_holder, is_being_deleted })
}

fn confirmed(lease: Lease, record: &LeaseRecord, sent: Moment) -> WriteOutcome {
    match versioned(lease, sent) {
        Ok(stored) if stored.record == *record => WriteOutcome::Confirmed(stored),
        Ok(stored) => WriteOutcome::Unknown(Doubt::Altered(stored.record.render())),
        Err(error) => WriteOutcome::Unknown(Doubt::Altered(error.to_string())),
    }
}

fn post_params() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

fn holder_identity(record: &LeaseRecord) -> Option<String> {
    match &record.state {
        LeaseState::Held => record.holder.as_ref().map(|holder| holder.member.to_string()),
        LeaseState::Uninitialised
        | LeaseState::Initialising { .. }
        | LeaseState::Released
        | LeaseState::Transferring { .. } => None,
    }
}

/// The spec fields that tell people what the annotation says.
fn mirror(record: &LeaseRecord, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(jiff::Timestamp::now());
    let same_epoch = before.and_then(|spec| spec.lease_transitions) == Some(transitions(record));
    let acquired = before.and_then(|spec| spec.acquire_time.clone()).filter(|_| same_epoch);
    LeaseSpec {
        holder_identity: holder_identity(record),
        lease_transitions: Some(transitions(record)),
        lease_duration_seconds: Some(seconds(record.lease_duration_ms)),
        acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
        renew_time: Some(now),
        ..LeaseSpec::default()
    }
}

/// The field is 32 bits wide and only a mirror: an epoch beyond it shows as the largest.
fn transitions(record: &LeaseRecord) -> i32 {
    i32::try_from(record.epoch.0).unwrap_or(i32::MAX)
}

/// Rounded up; the API server refuses zero.
fn seconds(millis: u64) -> i32 {
    i32::try_from(millis.div_ceil(1000).max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "authority_lease_tests.rs"]
mod tests;
