//! The normal form of a state, and acknowledgements, which happen as early as they may.
//!
//! Acknowledging early is sound: an acknowledged commit only adds to what the properties demand.

use crate::{
    log::Log,
    messages::Message,
    model::{DurableCommit, Model, ReturnService},
    rules::Rule,
    state::{Member, Name, Role, State},
};

impl Model {
    pub(crate) fn normalize(&self, state: &mut State) {
        self.acknowledge(state);
        self.forget_countdowns_without_effect(state);
        forget_logs_nobody_refers_to(state);
    }

    /// R15.
    fn acknowledge(&self, state: &mut State) {
        for member in state.members.iter().filter(|member| member.has_authority()) {
            for (before, record) in (0..).zip(member.log.records()) {
                if record.commit > 0 && self.may_acknowledge(member, before) {
                    state.acknowledged.insert(record.commit);
                }
            }
        }
    }

    /// R15, for the record that has this many before it.
    fn may_acknowledge(&self, active: &Member, before: u8) -> bool {
        let is_on_own_disk = active.durable > before;
        let is_on_other = active.peer.received > before;
        let memory_suffices = self.durable_commit == DurableCommit::Off
            && !active.solo
            && (active.sync_confirmed || !self.keeps(Rule::MemoryOnlyWhileSyncConfirmed));
        (is_on_own_disk || memory_suffices)
            && (is_on_other || active.solo || self.is_within_lag(active, before))
    }

    /// A2.12: so much may the standby in S lack.
    fn is_within_lag(&self, active: &Member, before: u8) -> bool {
        match self.return_service {
            ReturnService::Receipt => false,
            ReturnService::Async { max_lag } => {
                !self.keeps(Rule::AloneBeforeLag)
                    || active.commits_not_received(before + 1) <= usize::from(max_lag)
            }
        }
    }

    fn forget_countdowns_without_effect(&self, state: &mut State) {
        for name in Name::ALL {
            let is_last_holder = state.lease.holder == name;
            let member = &mut state.members[name];
            if member.role == Role::Active {
                member.blackout_ticks = 0;
                member.granted_ticks = 0;
                member.heard_ticks = 0;
                if member.has_authority() {
                    member.yield_ticks = 0;
                }
            } else {
                if self.keeps(Rule::RefuseFromPromise) {
                    member.epoch = 0;
                }
                if !is_last_holder {
                    member.yield_ticks = 0;
                }
            }
            if is_last_holder {
                member.heard_ticks = 0;
            }
        }
    }
}

fn forget_logs_nobody_refers_to(state: &mut State) {
    let State { members, inboxes, written, .. } = state;
    for (epoch, log) in (1..).zip(written.iter_mut()) {
        let is_served =
            members.iter().any(|member| member.role == Role::Active && member.epoch == epoch);
        let is_under_way = inboxes
            .iter()
            .flat_map(|inbox| inbox.iter())
            .any(|message| matches!(message, Message::Frame { epoch: sent, .. } if *sent == epoch));
        if !is_served && !is_under_way {
            *log = Log::default();
        }
    }
}
