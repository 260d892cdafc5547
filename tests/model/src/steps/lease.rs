//! Writes to the Lease by its holder, and writes of unknown outcome (R4, R10a, R15, R16).

use crate::{
    action::Answer,
    model::Model,
    rules::Rule,
    state::{DelayedWrite, HandOver, Hold, Name, Role, State, Write},
};

impl Model {
    /// What any write does: observers count anew, and whatever was decided on the old version is void.
    pub(crate) fn write_lease(&self, state: &mut State) {
        state.lease.ticks = self.bounds.ticks;
        state.operator.version_is_current = false;
        for member in state.members.iter_mut() {
            member.delayed = None;
            member.compared = false;
        }
    }

    pub(crate) fn renew(&self, state: &mut State, name: Name, answer: Answer) {
        self.write_lease(state);
        if answer == Answer::Arrives {
            state.members[name].lease_ticks = self.bounds.ticks;
        }
    }

    /// R15: S = the holder. Acknowledging alone begins with the answer.
    pub(crate) fn set_solo(&self, state: &mut State, name: Name, answer: Answer) {
        self.write_lease(state);
        state.lease.standby = None;
        let active = &mut state.members[name];
        active.sync_confirmed = false;
        match answer {
            Answer::Arrives => {
                active.solo = true;
                active.in_doubt = false;
                active.lease_ticks = self.bounds.ticks;
            }
            Answer::Lost => active.in_doubt = self.keeps(Rule::DoubtEndsBySolo),
        }
    }

    /// R16 (3).
    pub(crate) fn set_sync(&self, state: &mut State, name: Name) {
        self.write_lease(state);
        let active = &mut state.members[name];
        state.lease.standby = Some(active.peer.incarnation);
        active.lease_ticks = self.bounds.ticks;
        active.sync_confirmed = true;
        if !self.keeps(Rule::StopAloneBeforeSync) {
            active.solo = false;
        }
    }

    pub(crate) fn release(&self, state: &mut State) {
        self.write_lease(state);
        state.lease.hold = Hold::Released;
    }

    /// R22: the holder lets go for the other, whose log is as long.
    pub(crate) fn transfer(&self, state: &mut State, name: Name) {
        let active = state.members[name];
        self.hand_over(state, active.peer.incarnation, active.log.len());
        state.members[name].step_down();
    }

    fn hand_over(&self, state: &mut State, incarnation: u8, len: u8) {
        self.write_lease(state);
        state.lease.hold = Hold::Transferring { len };
        state.lease.standby = Some(incarnation);
    }

    /// The write is sent; its sender will never learn what became of it.
    pub(crate) fn delay(&self, state: &mut State, name: Name, write: Write) {
        let member = &mut state.members[name];
        member.delayed = Some(DelayedWrite { write, incarnation: member.incarnation });
        if let Write::Acquire(epoch) = write {
            member.promised = member.promised.max(epoch);
            member.granted_to = 0;
        }
        if member.role == Role::Active && self.keeps(Rule::DoubtEndsBySolo) {
            member.sync_confirmed = false;
            member.in_doubt = true;
        }
        match write {
            Write::Release => member.step_down(),
            Write::Transfer { .. } if !self.keeps(Rule::ServesNoMoreOnceSent) => {}
            Write::Transfer { .. } if !self.keeps(Rule::NoUndoOnceSent) => {
                member.hand_over = HandOver::Sent;
            }
            Write::Transfer { .. } => member.step_down(),
            Write::SetSync(_) | Write::Acquire(_) | Write::ReleaseDead => {}
        }
    }

    pub(crate) fn land_delayed(&self, state: &mut State, name: Name) {
        let Some(delayed) = state.members[name].delayed.take() else { return };
        match delayed.write {
            Write::Acquire(epoch) => self.acquire(state, name, delayed.incarnation, epoch),
            Write::SetSync(incarnation) => {
                self.write_lease(state);
                state.lease.standby = Some(incarnation);
            }
            Write::Transfer { incarnation, len } => self.hand_over(state, incarnation, len),
            Write::Release | Write::ReleaseDead => self.release(state),
        }
    }
}
