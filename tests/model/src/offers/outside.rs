//! What comes from outside: time, faults, a replaced pod (R11), and an operator of the draft (R9).

use crate::{
    action::Action,
    model::Model,
    rules::Rule,
    state::{Fault, Member, Name, Role, State},
};
use std::cmp::Ordering;

impl Model {
    pub(crate) fn offer_time_and_faults(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.tick_must_wait(state) {
            actions.push(Action::Tick);
        }
        if self.scenario.is_some() && state.fault == Fault::Ahead {
            actions.push(Action::FaultBegins);
        }
        if self.fault_ends() && state.fault == Fault::Present {
            actions.push(Action::FaultEnds);
        }
        for name in Name::ALL {
            if state.frozen_ticks < self.bounds.frozen_ticks {
                actions.push(Action::TickWithoutClockOf(name));
            }
            if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash(name));
            }
        }
    }

    /// A's pod is deleted on a node that cannot be reached, and a second one starts (R11).
    pub(crate) fn offer_replacement(&self, state: &State, actions: &mut Vec<Action>) {
        let replacement = &state.members[Name::A];
        let voter = &state.members[Name::B];
        if state.replacements < self.bounds.replacements && replacement.role == Role::Active {
            actions.push(Action::Replace);
        }
        let Some(old) = state.old_process else { return };
        actions.push(Action::OldProcessEnds);
        let follows = voter.role == Role::Following;
        let is_past_blackout = !self.is_in_blackout(state, Name::B);
        if follows && voter.promised <= old.epoch && is_past_blackout && old.grant_ticks == 0 {
            actions.push(Action::GrantToOldProcess);
        }
        // R11: a promise for another is given under the conditions of R6 and R8.
        if replacement.role == Role::Candidate
            && follows
            && voter.granted_ticks == 0
            && (is_past_blackout || !self.keeps(Rule::BlackoutBeforePromise))
            && replacement.promised > voter.promised
        {
            actions.push(Action::PromiseForOther);
        }
    }

    /// The API server comes back from a backup, and the operator mends the Lease (R21).
    pub(crate) fn offer_restore(&self, state: &State, actions: &mut Vec<Action>) {
        if state.restores < self.bounds.restores && state.backup.is_none() {
            actions.push(Action::Backup);
        }
        // Bare renewals are not remembered, so nobody can tell whether they are missing.
        if state.backup.is_some_and(|backup| backup != state.lease.content()) {
            actions.push(Action::Restore);
        }
        let highest = state.members.iter().map(|member| member.promised).max().unwrap_or_default();
        let has_waited = state.lease.ticks == 0;
        if state.lease_is_older && has_waited && highest + 1 < self.bounds.epochs {
            for name in Name::ALL.into_iter().filter(|name| self.may_be_named(state, *name)) {
                actions.push(Action::Recreate(name));
            }
        }
    }

    /// R21: the highest logged epoch; of equals the one that is active, else the longest log.
    fn may_be_named(&self, state: &State, name: Name) -> bool {
        let (one, other) = (&state.members[name], &state.members[name.other()]);
        let claim = |member: &Member| {
            let is_active = member.role == Role::Active;
            (is_active, member.log.len())
        };
        match one.log.last_epoch().cmp(&other.log.last_epoch()) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => {
                !self.keeps(Rule::RecreationNamesTheActive) || claim(one) >= claim(other)
            }
        }
    }

    /// What the draft did instead of R9.
    pub(crate) fn offer_operator(&self, state: &State, actions: &mut Vec<Action>) {
        let standby = &state.members[Name::B];
        if !state.operator.decided
            && state.lease.ticks == 0
            && state.lease.holder == Name::A
            && state.lease.standby.is_some()
            && state.lease.epoch < self.bounds.epochs
            && standby.granted_ticks == 0
            && standby.role == Role::Following
        {
            actions.push(Action::OperatorDecides);
        }
        if state.operator.decided {
            actions.push(Action::OperatorWrites);
        }
        if state.operator.promotes_to > 0 {
            actions.push(Action::OperatorPromotes);
        }
    }
}
