//! What a step does: the *then* of every rule. That it may be taken was decided in `offers`.

mod candidacy;
mod frames;
mod lease;
mod outside;

use crate::{
    action::Action,
    log::Record,
    model::Model,
    state::{Fault, HandOver, Name, Role, State},
};

impl Model {
    pub(crate) fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick => self.tick(state, None),
            Action::TickWithoutClockOf(name) => {
                state.frozen_ticks += 1;
                self.tick(state, Some(name));
            }
            Action::Crash(name) => self.crash(state, name),
            Action::FaultBegins => self.begin_fault(state),
            Action::FaultEnds => state.fault = Fault::Over,
            Action::Commit(name) => commit(state, name),
            Action::Fsync(name) => state.members[name].fsync(),
            Action::SendFrame(name) => self.send_frame(state, name),
            Action::Receive(name, at) => self.receive(state, name, at),
            Action::Lose(name, at) => {
                state.inboxes[name].take(at);
            }
            Action::Renew(name, answer) => self.renew(state, name, answer),
            Action::SetSolo(name, answer) => self.set_solo(state, name, answer),
            Action::SoloByReading(name) | Action::SoloUnconfirmed(name) => {
                state.members[name].solo = true;
            }
            Action::StopAlone(name) => {
                state.members[name].solo = false;
                state.members[name].sync_confirmed = false;
            }
            Action::SetSync(name) => self.set_sync(state, name),
            Action::Release(name) => {
                self.release(state);
                state.members[name].step_down();
            }
            Action::PrepareTransfer(name) => state.members[name].hand_over = HandOver::Preparing,
            Action::UndoTransfer(name) => state.members[name].hand_over = HandOver::No,
            Action::Transfer(name) => self.transfer(state, name),
            Action::ReleaseDead(_) => self.release(state),
            Action::StepDown(name) => state.members[name].step_down(),
            Action::Delay(name, write) => self.delay(state, name, write),
            Action::DelayedLands(name) => self.land_delayed(state, name),
            Action::DelayedIsLost(name) => state.members[name].delayed = None,
            Action::Candidate(name) => self.candidate(state, name),
            Action::Cancel(name) => cancel(state, name),
            Action::Promise(name) => state.members[name].promised = state.lease.epoch + 1,
            Action::Compare(name) => compare(state, name),
            Action::Acquire(name) => self.acquire_confirmed(state, name),
            Action::AcquireUnanswered(name) => self.acquire_unanswered(state, name),
            Action::AcquireAnswerArrives(name) => receive_acquire_answer(state, name),
            Action::AcquireAnswerIsLost(name) => state.members[name].acquire_answer = None,
            Action::ActivateByReading(name) => {
                candidacy::become_active(state, name, state.lease.epoch, 0);
            }
            Action::LearnDeath(name) => self.learn_death(state, name),
            Action::Replace => self.replace(state),
            Action::GrantToOldProcess => self.grant_to_old_process(state),
            Action::OldProcessEnds => state.old_process = None,
            Action::PromiseForOther => {
                state.members[Name::B].promised = state.members[Name::A].promised;
            }
            Action::Backup => state.backup = Some(state.lease.content()),
            Action::Restore => self.restore(state),
            Action::Recreate(name) => self.recreate(state, name),
            Action::OperatorDecides | Action::OperatorWrites | Action::OperatorPromotes => {
                self.operate(state, action);
            }
        }
        if self.scenario.is_some() && action.is_write_of_first_holder() {
            state.lease_written = true;
        }
    }
}

/// A client's commit is a record in memory. When it is acknowledged is R15's matter.
fn commit(state: &mut State, name: Name) {
    let active = &mut state.members[name];
    active.log.append(Record { epoch: active.epoch, commit: state.next_commit });
    state.next_commit += 1;
    let (epoch, log) = (active.epoch, active.log);
    *state.written_mut(epoch) = log;
}

fn cancel(state: &mut State, name: Name) {
    let candidate = &mut state.members[name];
    candidate.role = Role::Following;
    candidate.compared = false;
}

/// R13c: both promise an epoch above everything, then the candidate knows itself complete.
fn compare(state: &mut State, name: Name) {
    let highest = state.members.iter().map(|member| member.promised).max().unwrap_or_default();
    for member in state.members.iter_mut() {
        member.promised = highest.max(state.lease.epoch) + 1;
    }
    state.members[name.other()].role = Role::Following;
    state.members[name].compared = true;
}

/// R9: only the answer to the request of the present candidacy activates.
fn receive_acquire_answer(state: &mut State, name: Name) {
    let candidate = &mut state.members[name];
    let Some(answer) = candidate.acquire_answer.take() else { return };
    if candidate.role == Role::Candidate && candidate.promised == answer.epoch {
        candidacy::become_active(state, name, answer.epoch, answer.ticks);
    }
}
