//! How a member becomes active, strictly in this order: R7, R8, R9, with the eligibility of R13.

use super::active::offer_delay;
use crate::{
    action::Action,
    model::{Beyond, Eagerness, Model},
    rules::Rule,
    state::{Hold, Name, Role, State, Write},
};

impl Model {
    /// R10a: the parent process of a dead holder lets go for it.
    pub(crate) fn offer_parent(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let reaped = state.members[name].incarnation > state.lease.incarnation
            && !self.may_have_living_predecessor(state, name);
        let is_held_by_it = state.lease.holder == name && state.lease.hold == Hold::Held;
        if self.keeps(Rule::ParentReleases) && is_held_by_it && reaped {
            actions.push(Action::ReleaseDead(name));
            offer_delay(state, name, Write::ReleaseDead, actions);
        }
    }

    /// R6, R10: a proof of death reaches a member that gave the dead a grant.
    pub(crate) fn offer_learning(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let named = state.members[name].granted_to;
        if named & self.believed_dead(state, name.other()) != 0 {
            actions.push(Action::LearnDeath(name));
        }
    }

    pub(crate) fn offer_candidacy(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let member = &state.members[name];
        if !self.keeps(Rule::ReadingNeverActivates)
            && member.role != Role::Active
            && self.is_holder(state, name)
            && state.lease.hold == Hold::Held
            && state.lease.epoch == member.promised
            && member.acquire_answer.is_none()
        {
            actions.push(Action::ActivateByReading(name));
        }
        if !self.keeps(Rule::OnlyTheCandidateAcquires) && name == Name::B {
            return; // The operator decides for B.
        }
        if member.role == Role::Following && self.may_candidate(state, name) {
            actions.push(Action::Candidate(name));
        }
        if member.role == Role::Candidate {
            self.offer_cancel(state, name, actions);
            if self.may_promise(state, name) {
                actions.push(Action::Promise(name));
            }
            if self.may_acquire(state, name) {
                self.offer_answered(state, name, Action::Acquire(name), actions);
                actions.push(Action::AcquireUnanswered(name));
                offer_delay(state, name, Write::Acquire(member.promised), actions);
            }
            if self.beyond == Beyond::Comparison && self.may_compare(state, name) {
                actions.push(Action::Compare(name));
            }
        }
    }

    /// R7, with the blackout of R6 and the yielding of R4.
    fn may_candidate(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        let moment = self.eagerness == Eagerness::AnyMoment
            || self.lease_is_open_to(state, name) && self.hears_no_serving_holder(state, name);
        let in_blackout = self.is_in_blackout(state, name) && self.keeps(Rule::Blackout);
        let yields = member.yield_ticks > 0 && state.lease.holder == name;
        moment && !in_blackout && !yields && state.lease.epoch < self.bounds.epochs
    }

    /// R8: the grants ran out, the log is on the disk.
    fn may_promise(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        let moment = self.eagerness == Eagerness::AnyMoment
            || self.lease_is_open_to(state, name) && self.is_eligible(state, name);
        moment
            && !self.has_grants_out(state, name)
            && self.is_fsynced_for_promise(state, name)
            && member.promised <= state.lease.epoch
            && state.lease.epoch < self.bounds.epochs
    }

    fn is_fsynced_for_promise(&self, state: &State, name: Name) -> bool {
        state.members[name].is_fsynced() || !self.keeps(Rule::FsyncBeforePromise)
    }

    /// R9, R11, R13: on the version of the Lease that all of it is judged on.
    fn may_acquire(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        self.lease_is_open_to(state, name)
            && self.is_eligible(state, name)
            && !self.has_grants_out(state, name)
            && self.has_promise_of_other(state, name)
            && self.is_fsynced_for_promise(state, name)
            && member.promised > state.lease.epoch
            && member.promised <= self.bounds.epochs
            && member.acquire_answer.is_none()
    }

    /// R11: needed where a former process of the own member may still serve.
    fn has_promise_of_other(&self, state: &State, name: Name) -> bool {
        let other = &state.members[name.other()];
        !self.keeps(Rule::PromiseForReplacement)
            || !self.may_have_living_predecessor(state, name)
            || other.promised >= state.members[name].promised && other.granted_ticks == 0
    }

    /// R13c: the other answers, promises first, and has no more than the candidate.
    fn may_compare(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        let other = &state.members[name.other()];
        let other_granted = other.granted_ticks > 0 && !self.holder_is_proven_dead(state);
        let highest = member.promised.max(other.promised).max(state.lease.epoch);
        let mine = (member.log.last_epoch(), member.log.len());
        let theirs = (other.log.last_epoch(), other.log.len());
        !member.compared
            && other.role != Role::Active
            && self.lease_is_open_to(state, name)
            && !self.has_grants_out(state, name)
            && !other_granted
            && highest < self.bounds.epochs
            && !self.is_eligible(state, name)
            && mine >= theirs
    }
}
