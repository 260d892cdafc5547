//! Acquire and its confirmation (R9, R12).

use crate::{
    log::Record,
    model::{Beyond, Model, ReturnService},
    rules::Rule,
    state::{AcquireAnswer, Hold, Lease, Name, Role, State},
};

impl Model {
    /// R7. The names of who was given grants stay in the control file until the promise.
    pub(crate) fn candidate(&self, state: &mut State, name: Name) {
        let candidate = &mut state.members[name];
        candidate.role = Role::Candidate;
        if !self.keeps(Rule::ForgetOnlyWhenAcquiring) {
            candidate.granted_to = 0;
        }
    }

    /// R6: the dead use no grants, so a blackout for them alone is over.
    pub(crate) fn learn_death(&self, state: &mut State, name: Name) {
        let dead = self.believed_dead(state, name.other());
        let member = &mut state.members[name];
        member.granted_to &= !dead;
        if member.granted_to == 0 {
            member.blackout_ticks = 0;
        }
    }

    /// R9: epoch = the promise; R12: an active goes one above the promise that refused it.
    pub(crate) fn acquire_confirmed(&self, state: &mut State, name: Name) {
        let member = &state.members[name];
        let epoch = match member.role {
            Role::Active => member.refused_with + 1,
            Role::Following | Role::Candidate => member.promised,
        };
        self.acquire(state, name, member.incarnation, epoch);
        state.members[name].granted_to = 0;
        state.members[name].promised = epoch;
        become_active(state, name, epoch, self.bounds.ticks);
    }

    pub(crate) fn acquire_unanswered(&self, state: &mut State, name: Name) {
        let member = state.members[name];
        self.acquire(state, name, member.incarnation, member.promised);
        let answer = AcquireAnswer { epoch: member.promised, ticks: self.bounds.ticks };
        state.members[name].granted_to = 0;
        state.members[name].acquire_answer = Some(answer);
    }

    /// The write itself: holder = the sender, sync = none.
    pub(crate) fn acquire(&self, state: &mut State, name: Name, incarnation: u8, epoch: u8) {
        let from_other = state.lease.holder != name;
        if self.beyond == Beyond::Waiver {
            state.marks.acquired_with_loss = true;
        } else if from_other && state.lease.standby.is_none() && !state.members[name].compared {
            state.marks.acquired_outside_sync = true;
        }
        let holder_lives =
            state.lease.hold == Hold::Held && self.is_holder(state, state.lease.holder);
        if self.fault_ends() && name == Name::B && from_other && holder_lives {
            state.marks.acquired_from_living = true;
        }
        if from_other && state.lease.standby.is_some() {
            self.count_loss(state, name);
        }
        if let (true, Hold::Transferring { .. }) = (from_other, state.lease.hold) {
            state.marks.acquired_by_transfer = true;
        }
        self.write_lease(state);
        state.lease_is_older = false;
        state.lease = Lease {
            holder: name,
            incarnation,
            epoch,
            hold: Hold::Held,
            standby: None,
            ticks: self.bounds.ticks,
        };
    }
}

impl Model {
    /// A2.12: what the class of S lets this promotion lose is lost and counted, and no more of it is asked.
    fn count_loss(&self, state: &mut State, name: Name) {
        let ReturnService::Async { max_lag } = self.return_service else { return };
        let log = state.members[name].log;
        let mut lost = 0;
        for commit in state.acknowledged.iter().filter(|commit| !log.holds(*commit)) {
            state.acknowledged.remove(commit);
            lost += 1;
        }
        state.marks.lost_beyond_lag |= lost > max_lag;
    }
}

/// The confirmed answer (R9): `EpochBegin`, then serve. A confirmed Acquire counts as `SetSolo` (R15).
pub(crate) fn become_active(state: &mut State, name: Name, epoch: u8, lease_ticks: u8) {
    let member = &mut state.members[name];
    member.step_down();
    member.role = Role::Active;
    member.epoch = epoch;
    member.solo = true;
    member.compared = false;
    member.lease_ticks = lease_ticks;
    member.granted_ticks = 0;
    member.yield_ticks = 0;
    member.heard_ticks = 0;
    member.log.append(Record { epoch, commit: 0 });
    let log = member.log;
    *state.written_mut(epoch) = log;
}
