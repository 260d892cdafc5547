//! Telling of a death: the other voters, the Lease, the own label. Side by side, each with an end.

use super::{Death, Witness};
use crate::{
    clock,
    control_client::{CallError, ControlClient},
    pod::{LabelError, RoleLabels},
    tls::{Tls, identity::Expected},
};
use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use understudy_agent_api::{DeathEvidence, DeathReport, MemberAddress, PORT_CONTROL};
use understudy_authority::{LeaseRecord, LeaseState};
use understudy_lease::{AuthorityLease, WriteOutcome};
use understudy_types::{Incarnation, MemberName, Span};

/// How long a death is worth telling: longer than the longest usual expiry (F·D + g for D = 4 s), after
/// which nobody needs the proof any more.
const WORTH_TELLING: Span = Span::seconds(30);
/// First pause between two attempts, doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Everybody who is told.
pub struct Notices {
    member: MemberName,
    tls: Arc<Tls>,
    lease: Option<AuthorityLease>,
    labels: Option<RoleLabels>,
    voters: Mutex<Vec<MemberAddress>>,
    control_port: u16,
}

impl Notices {
    /// For the engines of `member`. Without Kubernetes (`lease`, `labels`) only peers are told.
    #[must_use]
    pub fn new(
        member: MemberName,
        tls: Arc<Tls>,
        lease: Option<AuthorityLease>,
        labels: Option<RoleLabels>,
    ) -> Self {
        let voters = Mutex::default();
        Self { member, tls, lease, labels, voters, control_port: PORT_CONTROL }
    }

    /// The same with another control port, for more than one agent on a machine.
    #[must_use]
    pub fn with_control_port(self, control_port: u16) -> Self {
        Self { control_port, ..self }
    }

    async fn tell_peers(&self, death: &Death) {
        let report = DeathReport {
            member: self.member.clone(),
            incarnation: death.incarnation,
            evidence: DeathEvidence::Reaped { exit_code: death.exit_code },
        };
        let voters = self.voters.lock().clone();
        let others = voters.into_iter().filter(|voter| voter.member != self.member);
        join_all(others.map(|voter| self.tell_peer(voter, &report))).await;
    }

    async fn tell_peer(&self, voter: MemberAddress, report: &DeathReport) {
        let expected = Expected::Member(voter.member.clone());
        let client =
            ControlClient::new(Arc::clone(&self.tls), voter.host, self.control_port, expected);
        let mut attempts = Attempts::begin();
        loop {
            match client.report_death(report).await {
                Ok(()) => {
                    let after_ms = attempts.age().as_millis();
                    tracing::info!(peer = %voter.member, after_ms, "the death was told");
                    return;
                }
                // It knows better, or may not be told: asking again is useless.
                Err(error @ CallError::Refused { .. }) => {
                    tracing::info!(peer = %voter.member, %error, "the death was not taken");
                    return;
                }
                Err(
                    error @ (CallError::Unreachable { .. }
                    | CallError::TimedOut(_)
                    | CallError::Broken { .. }),
                ) => {
                    if !attempts.pause().await {
                        tracing::warn!(peer = %voter.member, %error, "the death could not be told");
                        return;
                    }
                }
            }
        }
    }

    /// Held → Released on a version that names the dead one, S as it is (R10). Each attempt decides
    /// anew on what it reads.
    async fn release_lease(&self, dead: Incarnation) {
        let Some(lease) = &self.lease else { return };
        let mut attempts = Attempts::begin();
        loop {
            match lease.read().await {
                Ok(seen) => match released(&seen.record, dead) {
                    None => return,
                    Some(next) => match lease.write(&seen.version, &next).await {
                        WriteOutcome::Confirmed(_) => {
                            let after_ms = attempts.age().as_millis();
                            tracing::info!(%dead, after_ms, "the Lease was released for the dead engine");
                            return;
                        }
                        WriteOutcome::Conflict => {}
                        WriteOutcome::Refused(why) => tracing::warn!(error = %why, "not released"),
                        WriteOutcome::Unknown(why) => {
                            tracing::info!(error = %why, "perhaps released")
                        }
                    },
                },
                Err(error) if error.is_transient() => {}
                Err(error) => {
                    tracing::warn!(%error, "the Lease cannot be released for the dead engine");
                    return;
                }
            }
            if !attempts.pause().await {
                return;
            }
        }
    }

    /// One attempt: the next engine writes its own label anyway.
    async fn clear_label(&self, death: &Death) {
        let Some(labels) = &self.labels else { return };
        match labels.clear_unless_overtaken(&self.member, || death.is_overtaken()).await {
            Ok(()) | Err(LabelError::Overtaken(_)) => {}
            Err(error @ (LabelError::Api { .. } | LabelError::TimedOut(_))) => {
                tracing::warn!(%error, "the dead engine's label stays");
            }
        }
    }
}

#[async_trait]
impl Witness for Notices {
    fn voters(&self, voters: Vec<MemberAddress>) {
        *self.voters.lock() = voters;
    }

    async fn tell(&self, death: Death) {
        tokio::join!(
            self.tell_peers(&death),
            self.release_lease(death.incarnation),
            self.clear_label(&death),
        );
    }
}

/// The record that says "let go" for a dead holder; `None` when it does not hold the Lease.
fn released(record: &LeaseRecord, dead: Incarnation) -> Option<LeaseRecord> {
    record
        .is_held_by(dead)
        .then(|| LeaseRecord { state: LeaseState::Released, ..record.successor() })
}

/// Attempts with growing pauses while the news is worth telling.
struct Attempts {
    begun: understudy_types::Moment,
    pause: Duration,
}

impl Attempts {
    fn begin() -> Self {
        Self { begun: clock::now(), pause: PAUSE_MIN }
    }

    fn age(&self) -> Span {
        clock::now().since(self.begun)
    }

    /// Waits; false when there is no sense in another attempt.
    async fn pause(&mut self) -> bool {
        if self.age() >= WORTH_TELLING {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

#[cfg(test)]
#[path = "notices_tests.rs"]
mod tests;
