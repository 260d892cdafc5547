//! The control port's requests (agent-api), told to the engine.

use crate::{
    clock,
    control_api::Control,
    node::{Node, lease_link::chain},
    trapped,
};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use understudy_agent_api::{
    AgentStatus, CandidacyRequest, DeathReport, PledgeAnswer, PledgeRequest, Refusal, Scheme,
    TransferRequest, TrappedPage, TrappedQuery,
};
use understudy_authority::Word;
use understudy_replication::Input;

/// Time between two looks at how far a hand-over is.
const LOOK: Duration = Duration::from_millis(10);

fn refusal(reason: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into() }
}

#[async_trait]
impl Control for Node {
    fn status(&self) -> watch::Receiver<Arc<AgentStatus>> {
        self.status.subscribe()
    }

    async fn scheme(&self, scheme: Scheme) -> Result<(), Refusal> {
        let held = self.scheme.lock().version;
        if scheme.version < held {
            return Err(refusal(format!("scheme {} is older than {held}", scheme.version)));
        }
        let (volumes, kept) = (Arc::clone(&self.volumes), scheme.clone());
        let keep = move || volumes.keep_scheme(&kept);
        // A full or failing volume must not keep a new promise from being taken; its next process may not know it.
        match tokio::task::spawn_blocking(keep).await.map_err(|e| refusal(e.to_string()))? {
            Ok(()) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "the scheme was not kept"),
        }
        self.take_scheme(scheme).map_err(refusal)
    }

    async fn candidacy(&self, request: CandidacyRequest) -> Result<(), Refusal> {
        let known = self.engine.with_section(|s| s.member.view().epoch());
        if request.epoch < known {
            return Err(refusal(format!("epoch {} is past, it is {known} now", request.epoch)));
        }
        let CandidacyRequest { epoch, accepts_loss, .. } = request;
        if request.by_person {
            tracing::warn!(%epoch, accepts_loss, reason = request.reason, "a person asks");
            self.engine.step(Input::Asked(Word { epoch, accepts_loss }));
        }
        // The member looks by itself at every tick; a fresh read is all that can help it.
        self.lease.read().await;
        let veto = self.engine.with_section(|s| s.member.standing(clock::now()).veto);
        veto.map_or(Ok(()), |veto| Err(refusal(veto)))
    }

    async fn death(&self, report: DeathReport) -> Result<(), Refusal> {
        tracing::info!(
            member = %report.member,
            incarnation = %report.incarnation,
            evidence = ?report.evidence,
            "a proof of death was offered"
        );
        self.engine.step(Input::ProvenDead(report.incarnation));
        Ok(())
    }

    async fn pledge(&self, request: PledgeRequest) -> PledgeAnswer {
        self.give_pledge(request)
    }

    async fn trapped(&self, query: TrappedQuery) -> Result<TrappedPage, Refusal> {
        let (volumes, store) = (Arc::clone(&self.volumes), Arc::clone(&self.engine.store));
        let told = tokio::task::spawn_blocking(move || trapped::tell(&volumes, &store, &query));
        told.await.map_err(|e| refusal(e.to_string()))?.map_err(|e| refusal(chain(&e)))
    }

    async fn discard_trapped(&self, query: TrappedQuery) -> Result<(), Refusal> {
        let thrown = self.volumes.discard_trapped(&query.file);
        if !thrown.map_err(|error| refusal(chain(&error)))? {
            return Err(refusal(format!("no tail is called {}", query.file)));
        }
        tracing::warn!(file = query.file, "trapped transactions were thrown away, as asked");
        self.trapped.lock().retain(|tail| tail.file != query.file);
        self.publish_status();
        Ok(())
    }

    async fn transfer(&self, request: TransferRequest) -> Result<(), Refusal> {
        let epoch = self.engine.with_section(|s| s.member.active_epoch());
        match epoch {
            None => return Err(refusal("this member is not the active")),
            Some(e) if e.number != request.epoch => {
                return Err(refusal(format!(
                    "epoch {} was asked, it is {}",
                    request.epoch, e.number
                )));
            }
            Some(_) => {}
        }
        let deadline_ms = request.deadline_ms;
        self.engine.step(Input::Transfer { to: Some(request.to), deadline_ms });
        loop {
            let standing = self.engine.with_section(|s| s.member.standing(clock::now()));
            if standing.role != understudy_types::Role::Active {
                return Ok(());
            }
            if !standing.transferring {
                return Err(refusal("the standby did not catch up in time; nothing changed"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
