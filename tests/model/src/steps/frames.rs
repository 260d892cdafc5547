//! Frames with heartbeats, and their answers with grants (R5, R7, R8, R12, R17, R18).

use crate::{
    messages::Message,
    model::{GrantsOfDead, Model},
    rules::Rule,
    state::{Member, Name, PeerPosition, Role, State},
};

/// A frame as it arrives.
#[derive(Clone, Copy)]
struct Frame {
    epoch: u8,
    incarnation: u8,
    len: u8,
    ticks: u8,
    serving: bool,
}

impl Model {
    pub(crate) fn send_frame(&self, state: &mut State, name: Name) {
        let active = state.members[name];
        let written = state.written_mut(active.epoch);
        if written.is_empty() {
            *written = active.log;
        }
        let serving = active.has_authority() && self.heartbeats_say_serving();
        let frame = Message::Frame {
            epoch: active.epoch,
            incarnation: self.incarnation_in_frames(&active),
            len: active.log.len(),
            ticks: self.bounds.ticks,
            serving,
        };
        state.inboxes[name.other()].put(frame);
    }

    /// Only the names of who was given grants depend on it.
    fn incarnation_in_frames(&self, active: &Member) -> u8 {
        match self.grants_of_dead {
            GrantsOfDead::WaitedFor => 0,
            GrantsOfDead::Forgotten => active.incarnation,
        }
    }

    fn heartbeats_say_serving(&self) -> bool {
        self.keeps(Rule::HeartbeatClause) && self.keeps(Rule::HeartbeatSaysServing)
    }

    pub(crate) fn receive(&self, state: &mut State, name: Name, at: usize) {
        match state.inboxes[name].take(at) {
            Message::Frame { epoch, incarnation, len, ticks, serving } => {
                if self.scenario.is_some() && name == Name::B {
                    state.heartbeat_arrived = true;
                }
                let frame = Frame { epoch, incarnation, len, ticks, serving };
                self.receive_frame(state, name, frame);
            }
            Message::Answer { epoch, incarnation, len, grants, ticks } => {
                let active = &mut state.members[name];
                if active.role != Role::Active || active.epoch != epoch {
                    return; // R15: only answers of this epoch count.
                }
                note_position(&mut active.peer, incarnation, len);
                if grants {
                    let counts_from_sending = self.keeps(Rule::GrantCountsFromSending);
                    let left = if counts_from_sending { ticks } else { self.bounds.ticks };
                    active.grant_ticks = active.grant_ticks.max(left);
                }
            }
            Message::Refused { promised } => {
                // R12.
                let active = &mut state.members[name];
                let is_higher = promised > active.epoch && promised < self.bounds.epochs;
                if active.role == Role::Active && is_higher {
                    active.refused_with = active.refused_with.max(promised);
                }
            }
        }
    }

    fn receive_frame(&self, state: &mut State, name: Name, frame: Frame) {
        let of_holder = frame.epoch == state.lease.epoch;
        let has_room = self.may_answer(state, name);
        let member = &mut state.members[name];
        if frame.serving && of_holder {
            member.heard_ticks = self.bounds.ticks; // R7.
        }
        // R8: everything below the promise is refused.
        let refuses = if self.keeps(Rule::RefuseFromPromise) {
            frame.epoch < member.promised
        } else {
            frame.epoch < member.epoch
        };
        if refuses || member.role == Role::Active && member.epoch == frame.epoch {
            let promised = member.promised;
            if has_room && promised > frame.epoch {
                self.reply(state, name, Message::Refused { promised });
            }
            return;
        }
        self.follow(state, name, frame);
        if has_room {
            self.answer(state, name, frame);
        }
    }

    /// R18: raises the promise, cuts what differs, takes what is new.
    fn follow(&self, state: &mut State, name: Name, frame: Frame) {
        let sent = state.written_mut(frame.epoch).prefix(frame.len);
        let member = &mut state.members[name];
        let is_newer = frame.epoch > member.promised;
        if member.role == Role::Active || member.role == Role::Candidate && is_newer {
            member.step_down();
        }
        member.promised = member.promised.max(frame.epoch);
        member.epoch = frame.epoch;
        let same = member.log.common_prefix(&sent);
        if same < frame.len {
            member.log = sent;
            member.durable = member.durable.min(same);
        }
        if !self.keeps(Rule::StandbyShowsAcknowledged) {
            let applied = member.log;
            for commit in applied.records().map(|record| record.commit).filter(|c| *c > 0) {
                state.read_on_standby.insert(commit);
            }
        }
    }

    /// R5: the answer grants, unless the member is a candidate (R7) or in blackout (R6).
    fn answer(&self, state: &mut State, name: Name, frame: Frame) {
        let of_holder = frame.epoch == state.lease.epoch;
        let in_blackout = self.is_in_blackout(state, name);
        let member = &mut state.members[name];
        let is_free = member.role == Role::Following || !self.keeps(Rule::CandidateStopsGranting);
        let is_awake = !in_blackout || !self.keeps(Rule::Blackout);
        let grants = is_free && is_awake;
        if grants {
            member.granted_ticks = self.bounds.ticks;
            if self.grants_of_dead == GrantsOfDead::Forgotten {
                member.granted_to |= 1 << frame.incarnation;
            }
            if of_holder && !self.keeps(Rule::HeartbeatSaysServing) {
                member.heard_ticks = self.bounds.ticks;
            }
        }
        let answer = Message::Answer {
            epoch: frame.epoch,
            incarnation: member.incarnation,
            len: frame.len,
            grants,
            ticks: frame.ticks,
        };
        self.reply(state, name, answer);
    }

    /// A broken link takes any answer.
    fn may_answer(&self, state: &State, name: Name) -> bool {
        let to = name.other();
        !self.link_delivers(state, to) || state.inboxes[to].len() < self.bounds.frames
    }

    fn reply(&self, state: &mut State, name: Name, message: Message) {
        if self.link_delivers(state, name.other()) {
            state.inboxes[name.other()].put(message);
        }
    }
}

/// R15, R16: a new incarnation starts over; within one, positions only grow.
fn note_position(peer: &mut PeerPosition, incarnation: u8, len: u8) {
    if incarnation > peer.incarnation {
        *peer = PeerPosition { incarnation, received: len };
    } else if incarnation == peer.incarnation {
        peer.received = peer.received.max(len);
    }
}
