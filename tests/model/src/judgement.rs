//! What a member may conclude from a state: the conditions that several steps share.

use crate::{
    model::{
        ApiFault, Beyond, DataPath, DurableCommit, GrantsOfDead, Model, ReturnService, Scenario,
        WriteWording,
    },
    rules::Rule,
    state::{Fault, Hold, Member, Name, Role, State},
};

/// Of the scenario's fault.
impl Model {
    fn present_fault<T>(&self, state: &State, of: impl Fn(Scenario) -> T) -> Option<T> {
        self.scenario.filter(|_| state.fault == Fault::Present).map(of)
    }

    pub(crate) fn reaches_api(&self, state: &State, name: Name) -> bool {
        match self.present_fault(state, |scenario| scenario.api) {
            None | Some(ApiFault::Fine | ApiFault::AnswersToALost) => true,
            Some(ApiFault::AwayFromA) => name != Name::A,
            Some(ApiFault::AwayFromAll) => false,
        }
    }

    pub(crate) fn hears_api(&self, state: &State, name: Name) -> bool {
        let api = self.present_fault(state, |scenario| scenario.api);
        api != Some(ApiFault::AnswersToALost) || name != Name::A
    }

    pub(crate) fn link_delivers(&self, state: &State, to: Name) -> bool {
        self.present_fault(state, |scenario| scenario.deaf).flatten() != Some(to)
    }

    pub(crate) fn data_path_is_dead(&self, state: &State, name: Name) -> bool {
        let data_path = self.present_fault(state, |scenario| scenario.data_path);
        data_path == Some(DataPath::Dead) && name == Name::A
    }

    /// Whether time must be fair to A: during a scenario's fault, and before and after one that ends.
    pub(crate) fn is_timely(&self, state: &State) -> bool {
        self.scenario.is_some() && (state.fault == Fault::Present || self.fault_ends())
    }

    pub(crate) fn fault_ends(&self) -> bool {
        self.scenario.is_some_and(|scenario| scenario.api == ApiFault::AwayFromAll)
    }

    /// Whether something that a timely world does before the next tick is still to be done.
    pub(crate) fn tick_must_wait(&self, state: &State) -> bool {
        if !self.is_timely(state) {
            return false;
        }
        let active = &state.members[Name::A];
        let can_send = active.role == Role::Active
            && !(self.data_path_is_dead(state, Name::A) && self.keeps(Rule::LogProbe));
        let heartbeat_due =
            can_send && self.link_delivers(state, Name::B) && !state.heartbeat_arrived;
        let has_a_write = self.may_renew(active) || !active.solo && self.may_write(active);
        let renewal_due = can_send
            && self.reaches_api(state, Name::A)
            && self.holds_lease_of_its_epoch(state, Name::A)
            && !state.lease_written
            && has_a_write;
        let delivery_due = Name::ALL
            .into_iter()
            .any(|name| !state.inboxes[name].is_empty() && !self.data_path_is_dead(state, name));
        heartbeat_due || renewal_due || delivery_due
    }
}

/// Of the Lease.
impl Model {
    /// The Lease names this member and this incarnation, in whatever epoch.
    pub(crate) fn is_holder(&self, state: &State, name: Name) -> bool {
        state.lease.holder == name && state.lease.incarnation == state.members[name].incarnation
    }

    pub(crate) fn holds_lease_of_its_epoch(&self, state: &State, name: Name) -> bool {
        self.is_holder(state, name)
            && state.lease.epoch == state.members[name].epoch
            && state.lease.hold == Hold::Held
            && self.trusts_lease(state)
    }

    /// R21: nothing is decided on a record below the highest that was seen.
    pub(crate) fn trusts_lease(&self, state: &State) -> bool {
        !state.lease_is_older || !self.keeps(Rule::NothingBelowSeen)
    }

    /// R10: the incarnation on the Lease is dead, and others can know it. A replaced process lives on.
    pub(crate) fn holder_is_proven_dead(&self, state: &State) -> bool {
        let holder = state.lease.holder;
        self.keeps(Rule::ProofOfDeath)
            && state.members[holder].incarnation > state.lease.incarnation
            && !self.may_have_living_predecessor(state, holder)
    }

    /// R11: a former process of this member may still serve.
    pub(crate) fn may_have_living_predecessor(&self, state: &State, name: Name) -> bool {
        name == Name::A && state.old_process.is_some()
    }

    /// R7: expired, released, the holder dead, or the own member's.
    pub(crate) fn lease_is_open_to(&self, state: &State, name: Name) -> bool {
        let is_own = state.lease.holder == name && state.old_process.is_none();
        let is_free = match state.lease.hold {
            Hold::Held => is_own,
            // The one that handed over waits for the expiry, for the other goes first.
            Hold::Transferring { .. } => state.lease.holder != name,
            Hold::Released | Hold::Recreated => true,
        };
        let is_open = state.lease.ticks == 0 || is_free || self.holder_is_proven_dead(state);
        is_open && self.trusts_lease(state)
    }

    /// R7: hears no serving holder, or need not care for it.
    pub(crate) fn hears_no_serving_holder(&self, state: &State, name: Name) -> bool {
        !self.keeps(Rule::HeartbeatClause)
            || state.members[name].heard_ticks == 0
            || self.holder_let_go(state)
            || state.lease.holder == name
            || self.holder_is_proven_dead(state)
    }

    /// R8: a grant of this member may still count somewhere.
    pub(crate) fn has_grants_out(&self, state: &State, name: Name) -> bool {
        self.keeps(Rule::CandidateWaitsForItsGrants)
            && state.members[name].granted_ticks > 0
            && !self.holder_let_go(state)
            && !self.holder_is_proven_dead(state)
    }

    /// R10: the last holder itself, or its parent process, wrote that it serves no more. Who reads a Lease
    /// that was made anew cannot know that of the one it names (R21).
    pub(crate) fn holder_let_go(&self, state: &State) -> bool {
        match state.lease.hold {
            Hold::Released | Hold::Transferring { .. } => true,
            Hold::Recreated => !self.keeps(Rule::RecreationIsNoRelease),
            Hold::Held => false,
        }
    }

    /// R6: grants of an earlier life of this member may be in use.
    pub(crate) fn is_in_blackout(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        let let_go = 1 << state.lease.incarnation;
        let is_void = self.grants_of_dead == GrantsOfDead::Forgotten
            && state.lease.holder != name
            && self.holder_let_go(state)
            && member.granted_to & !let_go == 0;
        member.blackout_ticks > 0 && !is_void
    }

    /// The incarnations of this member that are proven dead, a bit each (R10).
    pub(crate) fn believed_dead(&self, state: &State, name: Name) -> u8 {
        if !self.keeps(Rule::ForgetOnlyTheDead) {
            return u8::MAX;
        }
        let former = (1 << state.members[name].incarnation) - 1;
        let alive = state.old_process.filter(|_| name == Name::A).map(|old| 1 << old.incarnation);
        former & !alive.unwrap_or(0)
    }

    /// How long a member that starts with this control file waits for grants of its earlier lives (R6).
    pub(crate) fn blackout_at_start(&self, member: &Member) -> u8 {
        match self.grants_of_dead {
            GrantsOfDead::Forgotten if member.granted_to == 0 => 0,
            GrantsOfDead::Forgotten | GrantsOfDead::WaitedFor => self.bounds.ticks,
        }
    }

    /// R13: may open an epoch as far as lost commits are concerned.
    pub(crate) fn is_eligible(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        if self.beyond == Beyond::Waiver || member.compared {
            return true;
        }
        if state.lease.holder != name {
            let is_recorded = match state.lease.standby {
                None => false,
                Some(_) if !self.keeps(Rule::SyncNamesIncarnation) => true,
                Some(incarnation) => incarnation == member.incarnation,
            };
            return is_recorded && self.has_what_is_handed_over(state, member);
        }
        let acknowledged_within_its_fsync = self.durable_commit == DurableCommit::On
            || !self.keeps(Rule::HolderAloneOnlyIfComplete);
        self.is_holder(state, name)
            || state.lease.standby.is_none()
            || acknowledged_within_its_fsync
    }
}

/// Of an active's writes (R4, R15, R16, R22).
impl Model {
    /// R22: the candidate has everything up to the record that the hand-over names.
    fn has_what_is_handed_over(&self, state: &State, candidate: &Member) -> bool {
        match state.lease.hold {
            Hold::Transferring { len } if self.keeps(Rule::ReceivedUpToTransfer) => {
                candidate.log.len() >= len
            }
            Hold::Transferring { .. } | Hold::Held | Hold::Released | Hold::Recreated => true,
        }
    }

    /// R16 (2): the other has answered, and lacks no more than the class of S allows.
    pub(crate) fn peer_is_near(&self, active: &Member) -> bool {
        let answered = active.peer.received > 0;
        match self.return_service {
            ReturnService::Receipt => active.peer_has_all(),
            ReturnService::Async { .. } if !self.keeps(Rule::NearBeforeSync) => answered,
            ReturnService::Async { max_lag } => {
                answered && active.commits_not_received(active.log.len()) <= usize::from(max_lag)
            }
        }
    }

    /// R4: may send a Lease write other than letting go.
    pub(crate) fn may_write(&self, active: &Member) -> bool {
        if !self.keeps(Rule::WriteOnlyWithAuthority) {
            return true;
        }
        match self.write_wording {
            WriteWording::AnyAuthority => active.has_authority(),
            WriteWording::LeaseAuthority => active.role == Role::Active && active.lease_ticks > 0,
            WriteWording::OnlyRenewals => true,
        }
    }

    /// R4, R15: may send a write that leaves S as it is, and no other write is in doubt.
    pub(crate) fn may_renew(&self, active: &Member) -> bool {
        let allowed = match self.write_wording {
            WriteWording::OnlyRenewals if self.keeps(Rule::WriteOnlyWithAuthority) => {
                active.has_authority()
            }
            WriteWording::OnlyRenewals
            | WriteWording::AnyAuthority
            | WriteWording::LeaseAuthority => self.may_write(active),
        };
        allowed && !active.in_doubt
    }
}
