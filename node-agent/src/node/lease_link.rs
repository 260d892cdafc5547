//! The Lease's requests: one task that reads and writes for the member, and a watch that hints.
//!
//! **Invariants.** 1. One write is under way at a time, by the member's own rule; each ends within the
//! request's time-out as confirmed, conflict, refused or unknown. 2. Nothing is tried again here.
//!
//! Deliberately absent: every judgement about what was read.

use crate::engine::Engine;
use futures::StreamExt;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use understudy_authority::{Sight, Versioned};
use understudy_lease::{AuthorityLease, ReadError, Version, WriteOutcome as Written};
use understudy_replication::{Input, LeaseWrite, WriteOutcome};
use understudy_types::{MemberName, Moment};

/// Versions kept to write on: a write names the newest or one just before it.
const VERSIONS_KEPT: usize = 8;
/// How long commits may be held back for a hand-over that a person asked for on the Lease.
const ASKED_DEADLINE_MS: u64 = 2_500;
/// Time between two attempts to watch a Lease that cannot be watched.
const WATCH_AGAIN: Duration = Duration::from_millis(500);

/// Reads and writes the pair's Lease on behalf of the engine.
pub struct LeaseLink {
    lease: AuthorityLease,
    engine: Arc<Engine>,
    versions: Mutex<VecDeque<Version>>,
    contact: Mutex<Option<Moment>>,
}

impl LeaseLink {
    /// A link for this engine.
    #[must_use]
    pub fn new(lease: AuthorityLease, engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { lease, engine, versions: Mutex::default(), contact: Mutex::default() })
    }

    /// When the API server last answered.
    #[must_use]
    pub fn contact(&self) -> Option<Moment> {
        *self.contact.lock()
    }

    /// One consistent read, told to the member.
    pub async fn read(&self) {
        match self.lease.read().await {
            Ok(seen) => {
                *self.contact.lock() = Some(seen.seen);
                self.heed(seen.asked_holder.as_deref());
                let asked = Some(seen.sent);
                let versioned = self.remember(&seen.version, seen.record);
                self.engine.step(Input::Lease(Box::new(Sight { versioned, asked })));
            }
            Err(error) => tracing::debug!(error = %chain(&error), "the Lease was not read"),
        }
    }

    /// One write, told to the member.
    pub async fn write(&self, write: LeaseWrite) {
        let base =
            self.versions.lock().iter().find(|v| v.resource_version() == write.base).cloned();
        let outcome = match base {
            None => WriteOutcome::Refused("the version to write on is not known any more".into()),
            Some(base) => match self.lease.write(&base, &write.record).await {
                Written::Confirmed(made) => {
                    *self.contact.lock() = Some(made.seen);
                    WriteOutcome::Confirmed(Box::new(self.remember(&made.version, made.record)))
                }
                Written::Conflict => WriteOutcome::Conflict,
                Written::Refused(why) => WriteOutcome::Refused(chain(&why)),
                Written::Unknown(why) => WriteOutcome::Unknown(chain(&why)),
            },
        };
        match &outcome {
            WriteOutcome::Confirmed(_) => drop(self.engine.metrics.lease_writes_confirmed.inc()),
            WriteOutcome::Conflict => tracing::info!("the Lease changed before it was written"),
            WriteOutcome::Refused(why) => tracing::warn!(why, "the Lease was not written"),
            WriteOutcome::Unknown(why) => {
                tracing::warn!(why, "whether the Lease was written is unknown");
            }
        }
        if !matches!(outcome, WriteOutcome::Confirmed(_)) {
            self.engine.metrics.lease_writes_failed.inc();
        }
        self.engine.step(Input::LeaseWritten { ticket: write.ticket, outcome });
    }

    /// Watches for ever; every event is a hint, and the first sight of a new version.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let mut events = Box::pin(self.lease.watch());
            while let Some(event) = events.next().await {
                match event {
                    Ok(seen) => {
                        self.heed(seen.asked_holder.as_deref());
                        let versioned = self.remember(&seen.version, seen.record);
                        let sight = Sight { versioned, asked: None };
                        self.engine.step(Input::Lease(Box::new(sight)));
                    }
                    Err(ReadError::Absent) => tracing::debug!("the Lease does not exist yet"),
                    Err(error) => tracing::debug!(error = %chain(&error), "the watch ended"),
                }
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    /// A person wrote another member into `holderIdentity`: a request to hand over, which an active
    /// carries out while that member is in sync, and which nobody else heeds (A1.16). The next renewal
    /// writes the holder back.
    fn heed(&self, asked: Option<&str>) {
        let Some(to) = asked.and_then(|name| MemberName::new(name).ok()) else { return };
        let may = self.engine.with_section(|s| {
            let record = s.member.view().record();
            let recorded = record.and_then(|r| r.sync.as_ref()).map(|sync| &sync.standby.member);
            s.member.active_epoch().is_some() && recorded == Some(&to)
        });
        if may {
            tracing::info!(to = %to, "the Lease was edited to ask for another holder: handing over");
            self.engine.step(Input::Transfer { to: Some(to), deadline_ms: ASKED_DEADLINE_MS });
        }
    }

    fn remember(&self, version: &Version, record: understudy_authority::LeaseRecord) -> Versioned {
        let mut versions = self.versions.lock();
        if !versions.contains(version) {
            if versions.len() == VERSIONS_KEPT {
                versions.pop_front();
            }
            versions.push_back(version.clone());
        }
        Versioned { version: version.resource_version().to_owned(), record }
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
