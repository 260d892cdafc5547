//! Which steps may be taken: the *if* of every rule. What a step does is in `steps`.

mod active;
mod candidate;
mod outside;

use crate::{
    action::Action,
    model::Model,
    rules::Rule,
    state::{HandOver, Name, Role, State},
};

impl Model {
    pub(crate) fn offer_all(&self, state: &State, actions: &mut Vec<Action>) {
        self.offer_time_and_faults(state, actions);
        for name in Name::ALL {
            self.offer_log_and_frames(state, name, actions);
            self.offer_learning(state, name, actions);
            if state.members[name].role == Role::Active {
                self.offer_active(state, name, actions);
            }
            self.offer_delayed(state, name, actions);
            if self.data_path_is_dead(state, name) || !self.reaches_api(state, name) {
                self.offer_cancel(state, name, actions);
            } else {
                self.offer_parent(state, name, actions);
                self.offer_candidacy(state, name, actions);
            }
        }
        self.offer_replacement(state, actions);
        self.offer_restore(state, actions);
        if !self.keeps(Rule::OnlyTheCandidateAcquires) {
            self.offer_operator(state, actions);
        }
    }

    fn offer_log_and_frames(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let member = &state.members[name];
        let works = !self.data_path_is_dead(state, name);
        let takes_commits = member.has_authority() && member.hand_over == HandOver::No;
        if works && takes_commits && state.next_commit <= self.bounds.commits {
            actions.push(Action::Commit(name));
        }
        if works && !member.is_fsynced() {
            actions.push(Action::Fsync(name));
        }
        // R5: no heartbeat from a dead data path.
        let may_send = works || !self.keeps(Rule::LogProbe);
        let other = name.other();
        if member.role == Role::Active
            && may_send
            && state.inboxes[other].len() < self.bounds.frames
            && self.link_delivers(state, other)
        {
            actions.push(Action::SendFrame(name));
        }
        for at in 0..state.inboxes[name].len() {
            if works {
                actions.push(Action::Receive(name, at));
            }
            if !works || !self.is_timely(state) {
                actions.push(Action::Lose(name, at));
            }
        }
    }

    fn offer_delayed(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let member = &state.members[name];
        if member.delayed.is_some() {
            actions.extend([Action::DelayedLands(name), Action::DelayedIsLost(name)]);
        }
        if member.acquire_answer.is_some() {
            if !self.data_path_is_dead(state, name) && self.hears_api(state, name) {
                actions.push(Action::AcquireAnswerArrives(name));
            }
            actions.push(Action::AcquireAnswerIsLost(name));
        }
    }

    fn offer_cancel(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        if state.members[name].role == Role::Candidate {
            actions.push(Action::Cancel(name));
        }
    }
}
