//! The other voter's word (R11, R13c), asked and given over the control port: the replication link does
//! not exist when nobody is active.

use crate::{
    control_client::ControlClient,
    node::{Node, lease_link::chain},
    tls::identity::Expected,
};
use std::sync::Arc;
use understudy_agent_api::{self as api, PORT_CONTROL, PledgeAnswer};
use understudy_authority::Holder;
use understudy_replication::{LogEnd, Pledge, PledgeRefused, PledgeRequest};
use understudy_types::Epoch;

impl Node {
    /// Asks the other voter, and tells the engine what it said. No answer is an answer too.
    pub(crate) async fn ask_pledge(&self, request: PledgeRequest) {
        let epoch = request.epoch;
        let answer = self
            .answer_of_other(request)
            .await
            .unwrap_or_else(|why| Err(PledgeRefused { why, promised: Epoch::ZERO }));
        match &answer {
            Ok(pledge) => {
                tracing::info!(epoch = %epoch.number, voter = %pledge.voter.member, "promised by the other voter");
            }
            Err(refused) => {
                tracing::info!(epoch = %epoch.number, why = refused.why, "not promised by the other voter");
            }
        }
        self.engine.pledge_answered(epoch, answer);
    }

    async fn answer_of_other(
        &self,
        request: PledgeRequest,
    ) -> Result<Result<Pledge, PledgeRefused>, String> {
        let voters = self.scheme.lock().voters.clone();
        let other = voters.into_iter().find(|v| v.member != self.config.member);
        let other = other.ok_or("there is no other voter")?;
        let me = request.candidate;
        let body = api::PledgeRequest {
            dbid: request.dbid,
            epoch: request.epoch,
            member: me.member,
            store: me.store,
            incarnation: me.incarnation,
            compare: request.compare.map(|end| (end.epoch, end.lsn)),
            set_at_ms: request.set_at_ms,
        };
        let expected = Expected::Member(other.member);
        let tls = Arc::clone(&self.agent_tls);
        let client = ControlClient::new(tls, other.host, PORT_CONTROL, expected);
        Ok(match client.pledge(&body).await.map_err(|error| chain(&error))? {
            PledgeAnswer::Promised { epoch, member, store, incarnation, end_epoch, end_lsn } => {
                let voter = Holder { member, store, incarnation };
                Ok(Pledge { epoch, voter, end: LogEnd { epoch: end_epoch, lsn: end_lsn } })
            }
            PledgeAnswer::Refused { reason, promised } => {
                Err(PledgeRefused { why: reason, promised })
            }
        })
    }

    /// Gives this voter's word, or says why not.
    pub(crate) fn give_pledge(&self, asked: api::PledgeRequest) -> PledgeAnswer {
        let candidate =
            Holder { member: asked.member, store: asked.store, incarnation: asked.incarnation };
        let compare = asked.compare.map(|(epoch, lsn)| LogEnd { epoch, lsn });
        let request = PledgeRequest {
            dbid: asked.dbid,
            epoch: asked.epoch,
            candidate,
            compare,
            set_at_ms: asked.set_at_ms,
        };
        match self.engine.pledge(request) {
            Ok(pledge) => PledgeAnswer::Promised {
                epoch: pledge.epoch,
                member: pledge.voter.member,
                store: pledge.voter.store,
                incarnation: pledge.voter.incarnation,
                end_epoch: pledge.end.epoch,
                end_lsn: pledge.end.lsn,
            },
            Err(refused) => {
                PledgeAnswer::Refused { reason: refused.why, promised: refused.promised }
            }
        }
    }
}
