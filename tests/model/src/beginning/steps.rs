//! What a step of a beginning does.

use super::{
    Action, Model,
    state::{Decided, Decision, Lease, Naming, Process, State},
};
use crate::{rules::Rule, state::Name};

impl Model {
    pub(super) fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Decide(which, decision) => {
                state.operators[which] = Some(Decided { decision, is_current: true });
            }
            Action::Write(which) => self.write(state, which),
            Action::Note => state.noted = state.held_now(),
            Action::Read(name) => state.members[name].was_named = true,
            Action::Initialise(name) => self.initialise(state, name),
            Action::Take(name) => {
                let member = &mut state.members[name];
                (member.was_named, member.is_ready) = (false, false);
                let process = member.process(name);
                if let Some(dbid) = member.dbid {
                    self.hold(state, process, dbid);
                }
            }
            Action::SendTake(name) => {
                let member = &mut state.members[name];
                // It does not know what became of the write, so it reads again.
                (member.was_named, member.is_ready) = (false, false);
                let process = member.process(name);
                member.delayed = member.dbid.map(|dbid| (process, dbid));
            }
            Action::TakeLands(name) => {
                if let Some((process, dbid)) = state.members[name].delayed.take() {
                    self.hold(state, process, dbid);
                }
            }
            Action::TakeIsLost(name) => state.members[name].delayed = None,
            Action::Crash(name) => {
                state.members[name].restart();
                state.crashes += 1;
            }
            Action::LoseVolume(name) => {
                let member = &mut state.members[name];
                member.restart();
                member.store += 1;
                member.dbid = None;
                state.volumes += 1;
            }
            Action::FallSilent(name) => {
                state.members[name].is_silent = true;
                state.silences += 1;
            }
            Action::Answer(name) => state.members[name].is_silent = false,
            Action::Delete => {
                self.write_lease(state, None);
                state.deletions += 1;
            }
        }
    }

    /// R20: to create is refused where there is a Lease; to name, on any version but the judged one.
    fn write(&self, state: &mut State, which: usize) {
        let Some(Decided { decision, is_current }) = state.operators[which].take() else { return };
        match decision {
            Decision::Create if state.lease.is_none() => {
                self.write_lease(state, Some(Lease { naming: Naming::Nobody, dbid: None }));
            }
            Decision::Create => {}
            Decision::Name(process) => {
                let lands = is_current || !self.keeps(Rule::NamedOnTheJudgedVersion);
                if lands && state.lease.is_some() {
                    let naming = Naming::Initialising(process);
                    self.write_lease(state, Some(Lease { naming, dbid: None }));
                    state.namings += 1;
                }
            }
        }
    }

    /// An empty directory gets its database; one that has it keeps it.
    fn initialise(&self, state: &mut State, name: Name) {
        let member = &mut state.members[name];
        member.is_ready = true;
        if member.dbid.is_none() || !self.keeps(Rule::DirectoryKeepsItsDatabase) {
            member.dbid = Some(state.next_dbid);
            state.next_dbid += 1;
        }
    }

    fn hold(&self, state: &mut State, by: Process, dbid: u8) {
        self.write_lease(state, Some(Lease { naming: Naming::Held(by), dbid: Some(dbid) }));
        state.held |= 1 << dbid;
    }

    /// Any write voids what was decided, or is under way, on the version before.
    fn write_lease(&self, state: &mut State, lease: Option<Lease>) {
        state.lease = lease;
        for decided in state.operators.iter_mut().flatten() {
            decided.is_current = false;
        }
        if self.keeps(Rule::TakenOnTheNamingVersion) || lease.is_none() {
            for member in state.members.iter_mut() {
                member.delayed = None;
            }
        }
    }
}
