//! What an active may do: renew, change S, let go (R4, R12, R15, R16).

use crate::{
    action::{Action, Answer},
    model::{DurableCommit, Model, Releases},
    rules::Rule,
    state::{HandOver, Name, State, Write},
};

impl Model {
    pub(crate) fn offer_active(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let active = &state.members[name];
        let works = !self.data_path_is_dead(state, name);
        if self.reaches_api(state, name) {
            if works && self.may_step_down(state, name) {
                actions.push(Action::StepDown(name));
            }
            if self.holds_lease_of_its_epoch(state, name) {
                self.offer_renewal(state, name, actions);
                if works && self.may_write(active) {
                    self.offer_writes_of_sync(state, name, actions);
                    self.offer_next_epoch(state, name, actions);
                    self.offer_transfer(state, name, actions);
                }
                if works && self.releases != Releases::Never {
                    actions.push(Action::Release(name));
                    offer_delay(state, name, Write::Release, actions);
                }
            }
        }
        // R16 (1): stop acknowledging alone before recording the other in sync.
        if works
            && active.solo
            && self.peer_is_near(active)
            && self.keeps(Rule::StopAloneBeforeSync)
        {
            actions.push(Action::StopAlone(name));
        }
        // R22: freely, but only as long as nothing was sent.
        let may_undo = match active.hand_over {
            HandOver::No => false,
            HandOver::Preparing => true,
            HandOver::Sent => !self.keeps(Rule::NoUndoOnceSent),
        };
        if works && may_undo {
            actions.push(Action::UndoTransfer(name));
        }
    }

    /// R22: stop taking commits, wait until the other has everything, hand over.
    fn offer_transfer(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let active = &state.members[name];
        if self.releases != Releases::OrTransfers {
            return;
        }
        if active.hand_over == HandOver::No {
            actions.push(Action::PrepareTransfer(name));
        }
        if active.hand_over == HandOver::Preparing && active.peer_has_all() {
            actions.push(Action::Transfer(name));
            let (incarnation, len) = (active.peer.incarnation, active.log.len());
            offer_delay(state, name, Write::Transfer { incarnation, len }, actions);
        }
    }

    /// R19: a higher epoch or a foreign holder; R4: no authority left.
    fn may_step_down(&self, state: &State, name: Name) -> bool {
        let active = &state.members[name];
        let overtaken =
            !self.holds_lease_of_its_epoch(state, name) && state.lease.epoch >= active.epoch;
        overtaken || self.keeps(Rule::WriteOnlyWithAuthority) && !active.has_authority()
    }

    /// R4: only with authority, and not from a dead data path.
    fn offer_renewal(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let probed = !self.data_path_is_dead(state, name) || !self.keeps(Rule::LogProbe);
        if probed && self.may_renew(&state.members[name]) {
            self.offer_answered(state, name, Action::Renew(name, Answer::Arrives), actions);
            actions.push(Action::Renew(name, Answer::Lost));
        }
    }

    /// R15, R16.
    fn offer_writes_of_sync(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let active = &state.members[name];
        if !active.solo {
            let disk_first =
                self.durable_commit == DurableCommit::Off && self.keeps(Rule::FsyncBeforeSolo);
            if !disk_first || active.is_fsynced() {
                self.offer_answered(state, name, Action::SetSolo(name, Answer::Arrives), actions);
                actions.push(Action::SetSolo(name, Answer::Lost));
            }
            if !self.keeps(Rule::ReadingNeverSetsSolo) && state.lease.standby.is_none() {
                actions.push(Action::SoloByReading(name));
            }
            if !self.keeps(Rule::SoloOnlyConfirmed) {
                actions.push(Action::SoloUnconfirmed(name));
            }
        }
        // R16 (2): everything acknowledged or visible is on the other member, but for the lag.
        let stopped_alone = !active.solo || !self.keeps(Rule::StopAloneBeforeSync);
        let is_news = state.lease.standby != Some(active.peer.incarnation);
        if !active.in_doubt && stopped_alone && is_news && self.peer_is_near(active) {
            self.offer_answered(state, name, Action::SetSync(name), actions);
            offer_delay(state, name, Write::SetSync(active.peer.incarnation), actions);
        }
    }

    /// R12: refused by a promise, it opens an epoch above it without a restart.
    fn offer_next_epoch(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let refused_with = state.members[name].refused_with;
        if refused_with > 0 && refused_with < self.bounds.epochs {
            self.offer_answered(state, name, Action::Acquire(name), actions);
            offer_delay(state, name, Write::Acquire(refused_with + 1), actions);
        }
    }

    pub(crate) fn offer_answered(
        &self,
        state: &State,
        name: Name,
        action: Action,
        actions: &mut Vec<Action>,
    ) {
        if self.hears_api(state, name) {
            actions.push(action);
        }
    }
}

/// One write may be on its way for long at a time.
pub(crate) fn offer_delay(state: &State, name: Name, write: Write, actions: &mut Vec<Action>) {
    if state.members[name].delayed.is_none() {
        actions.push(Action::Delay(name, write));
    }
}
