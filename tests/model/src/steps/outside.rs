//! Time, crashes, faults, a replaced pod, and an operator of the draft.

use super::candidacy::become_active;
use crate::{
    action::Action,
    messages::{Inbox, Message},
    model::{DurableCommit, GrantsOfDead, Model},
    rules::Rule,
    state::{Fault, Hold, Lease, Member, Name, OldProcess, Operator, State},
};

impl Model {
    /// One tick of every clock but one. A message's ticks are counted by the clock of whoever sent the
    /// heartbeat (R5).
    pub(crate) fn tick(&self, state: &mut State, frozen: Option<Name>) {
        for name in Name::ALL.into_iter().filter(|name| Some(*name) != frozen) {
            self.tick_member(state, name);
        }
        for name in Name::ALL {
            state.inboxes[name].for_each(|message| match message {
                Message::Frame { ticks, .. } if frozen != Some(name.other()) => {
                    State::count_down(ticks);
                }
                Message::Answer { ticks, .. } if frozen != Some(name) => State::count_down(ticks),
                Message::Frame { .. } | Message::Answer { .. } | Message::Refused { .. } => {}
            });
        }
        if let Some(old) = &mut state.old_process {
            State::count_down(&mut old.lease_ticks);
            State::count_down(&mut old.grant_ticks);
        }
        State::count_down(&mut state.lease.ticks);
        state.heartbeat_arrived = false;
        state.lease_written = false;
    }

    fn tick_member(&self, state: &mut State, name: Name) {
        let is_alone_in_sync = self.is_holder(state, name) && state.lease.standby.is_none();
        let member = &mut state.members[name];
        let had_authority = member.has_authority();
        count_down_member(member);
        // R4: without authority a member yields for 2·D, unless S is itself.
        let lapses = had_authority && !member.has_authority();
        if lapses && !is_alone_in_sync && self.keeps(Rule::WriteOnlyWithAuthority) {
            member.yield_ticks = 2 * self.bounds.ticks;
        }
    }

    pub(crate) fn crash(&self, state: &mut State, name: Name) {
        let blackout_ticks = self.blackout_at_start(&state.members[name]);
        state.members[name].restart(blackout_ticks);
        state.crashes += 1;
        if self.durable_commit == DurableCommit::Off {
            excuse_commits_on_no_member(state);
        }
    }

    pub(crate) fn begin_fault(&self, state: &mut State) {
        state.fault = Fault::Present;
        for name in Name::ALL {
            if !self.link_delivers(state, name) {
                state.inboxes[name] = Inbox::default();
            }
        }
    }

    /// The second process has the same volume; what the first had in memory goes on elsewhere.
    pub(crate) fn replace(&self, state: &mut State) {
        state.replacements += 1;
        let blackout_ticks = self.blackout_at_start(&state.members[Name::A]);
        let member = &mut state.members[Name::A];
        state.old_process = Some(OldProcess {
            incarnation: member.incarnation,
            epoch: member.epoch,
            lease_ticks: member.lease_ticks,
            grant_ticks: member.grant_ticks,
        });
        let (heard_ticks, yield_ticks) = (member.heard_ticks, member.yield_ticks);
        member.restart(blackout_ticks);
        (member.heard_ticks, member.yield_ticks) = (heard_ticks, yield_ticks);
    }

    pub(crate) fn grant_to_old_process(&self, state: &mut State) {
        if let Some(old) = &mut state.old_process {
            old.grant_ticks = self.bounds.ticks;
            let voter = &mut state.members[Name::B];
            voter.granted_ticks = self.bounds.ticks;
            if self.grants_of_dead == GrantsOfDead::Forgotten {
                voter.granted_to |= 1 << old.incarnation;
            }
        }
    }

    /// The members remember the highest record they saw durably (R1), so they know what is missing.
    pub(crate) fn restore(&self, state: &mut State) {
        let Some(backup) = state.backup.take() else { return };
        state.restores += 1;
        state.lease_is_older = true;
        self.write_lease(state);
        state.lease = Lease { ticks: self.bounds.ticks, ..backup };
    }

    /// R21: an epoch above every promise, no standby in sync.
    pub(crate) fn recreate(&self, state: &mut State, name: Name) {
        let highest = state.members.iter().map(|member| member.promised).max().unwrap_or_default();
        self.write_lease(state);
        state.lease_is_older = false;
        state.lease = Lease {
            holder: name,
            incarnation: state.members[name].incarnation,
            epoch: highest + 1,
            hold: Hold::Recreated,
            standby: None,
            ticks: self.bounds.ticks,
        };
    }

    /// The draft's promotion: check, then write, then tell.
    pub(crate) fn operate(&self, state: &mut State, action: Action) {
        if action == Action::OperatorDecides {
            state.operator = Operator { decided: true, version_is_current: true, ..state.operator };
        } else if action == Action::OperatorWrites {
            state.operator.decided = false;
            if state.operator.version_is_current {
                let epoch = state.lease.epoch + 1;
                self.acquire(state, Name::B, state.members[Name::B].incarnation, epoch);
                state.operator.promotes_to = epoch;
            }
        } else {
            let epoch = std::mem::take(&mut state.operator.promotes_to);
            if epoch > state.members[Name::B].promised {
                state.members[Name::B].promised = epoch;
                // The draft counted B's authority from the operator's write.
                become_active(state, Name::B, epoch, state.lease.ticks);
            }
        }
    }
}

fn count_down_member(member: &mut Member) {
    for ticks in [
        &mut member.lease_ticks,
        &mut member.grant_ticks,
        &mut member.granted_ticks,
        &mut member.blackout_ticks,
        &mut member.heard_ticks,
        &mut member.yield_ticks,
    ] {
        State::count_down(ticks);
    }
    if let Some(answer) = &mut member.acquire_answer {
        State::count_down(&mut answer.ticks);
    }
}

/// The promise table's own limit: without durable commit a restart of both may lose a commit.
fn excuse_commits_on_no_member(state: &mut State) {
    for commit in state.acknowledged.iter() {
        if !state.members.iter().any(|member| member.log.holds(commit)) {
            state.acknowledged.remove(commit);
        }
    }
}
