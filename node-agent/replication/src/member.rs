//! The member as one function: an event and the time in, things to do out.

use crate::NotSettable;
use crate::active::{Active, After};
use crate::common::Common;
use crate::following::{Beat, Following, Next};
use crate::input::{Input, Policy, Report};
use crate::output::{EndReason, Opening, Output};
use crate::{FollowerKind, LogEnd, PledgeRefused};
use understudy_authority::{ControlState, Holder, LeaseView, Timing};
use understudy_types::{Epoch, EpochId, Incarnation, Lsn, MemberName, Moment, Role, Span};

/// A member of the pair: a voter or a subscriber. Driven by [`Member::step`] alone.
#[derive(Debug)]
pub struct Member {
    common: Common,
    role: RoleState,
}

#[derive(Debug)]
enum RoleState {
    Following(Box<Following>),
    Active(Box<Active>),
    /// The process must end; nothing is answered any more.
    Leaving,
}

/// What a member is made from.
#[derive(Debug, Clone)]
pub struct Start {
    /// This process.
    pub me: Holder,
    /// Voter or subscriber.
    pub kind: FollowerKind,
    /// The pair's times.
    pub timing: Timing,
    /// The control file as it is on disk.
    pub control: ControlState,
    /// Last record of the recovered log, all of it durable (R2).
    pub end: Lsn,
    /// Processes known to be dead from the start: earlier ones of the same container (R10).
    pub proven_dead: Vec<Incarnation>,
}

/// A summary for status, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Role now.
    pub role: Role,
    /// Epoch served or followed.
    pub epoch: Epoch,
    /// It acknowledges now.
    pub serving: bool,
    /// It is active and not yet, or no longer, acknowledging.
    pub lapsed: bool,
    /// It hands its role over.
    pub transferring: bool,
    /// A candidacy is under way.
    pub candidate: bool,
    /// Authority left by the Lease.
    pub lease_left: Option<Span>,
    /// Authority left by grant.
    pub grant_left: Option<Span>,
    /// It may acknowledge alone.
    pub solo: bool,
    /// Why it does not run for active, in words.
    pub veto: Option<String>,
    /// First sign of trouble with the active, on this member's clock.
    pub suspected: Option<Moment>,
}

impl Member {
    /// A member right after recovery: it follows nobody yet.
    #[must_use]
    pub fn new(start: Start, now: Moment) -> Self {
        let mut common = Common::new(start.me, start.timing, start.control, now);
        common.end = start.end;
        common.durable = start.end;
        for incarnation in start.proven_dead {
            // Read from disk at every start, so nothing of it must be written.
            common.prove_dead(incarnation, &mut Output::default());
        }
        Self { common, role: RoleState::Following(Box::new(Following::new(start.kind))) }
    }

    /// The contents of the control file, to be persisted when an output says so.
    #[must_use]
    pub fn control(&self) -> &ControlState {
        &self.common.control
    }

    /// What is known of the Lease.
    #[must_use]
    pub fn view(&self) -> &LeaseView {
        &self.common.view
    }

    /// This process.
    #[must_use]
    pub fn me(&self) -> &Holder {
        &self.common.me
    }

    /// The pair's promise as far as it is known.
    #[must_use]
    pub fn policy(&self) -> Option<Policy> {
        self.common.policy
    }

    /// Everything at or below is acknowledged and may be shown (R17). On a follower it is what the
    /// feeder said, see [`Member::follow_acknowledged`].
    #[must_use]
    pub fn acknowledged(&self) -> Lsn {
        self.common.acknowledged
    }

    /// The epoch whose active this is; `None` for everybody else.
    #[must_use]
    pub fn active_epoch(&self) -> Option<EpochId> {
        match &self.role {
            RoleState::Active(active) => Some(active.epoch),
            RoleState::Following(_) | RoleState::Leaving => None,
        }
    }

    /// R6a: whether this member may decide to acknowledge, or answer a current read, at `now`.
    #[must_use]
    pub fn has_authority(&self, now: Moment) -> bool {
        match &self.role {
            RoleState::Active(active) => active.has_authority(now),
            RoleState::Following(_) | RoleState::Leaving => false,
        }
    }

    /// When authority ends (R6a); in the past when there is none. To be compared with the clock at
    /// every decision.
    #[must_use]
    pub fn authority_end(&self) -> Moment {
        match &self.role {
            RoleState::Active(active) => active.authority_end(),
            RoleState::Following(_) | RoleState::Leaving => Moment::ZERO,
        }
    }

    /// Whether a new commit may enter the log.
    #[must_use]
    pub fn takes_commits(&self, now: Moment) -> bool {
        match &self.role {
            RoleState::Active(active) => active.takes_commits(now),
            RoleState::Following(_) | RoleState::Leaving => false,
        }
    }

    /// Whether records of this epoch may be appended by a follower now (R8, R18).
    #[must_use]
    pub fn accepts_frames(&self, epoch: Epoch) -> bool {
        match &self.role {
            RoleState::Following(following) => following.accepts(&self.common, epoch),
            RoleState::Active(_) | RoleState::Leaving => false,
        }
    }

    /// A follower appended records up to `end`, and its feeder acknowledged up to `acknowledged`.
    /// Returns what may be shown here.
    pub fn follow_acknowledged(&mut self, end: Lsn, acknowledged: Lsn) -> Lsn {
        self.common.end = end;
        self.common.acknowledged = self.common.acknowledged.max(acknowledged.min(end));
        self.common.acknowledged
    }

    /// Whether a person may set this member active now, without the Lease.
    ///
    /// # Errors
    /// Why not.
    pub fn may_be_set_active(&self, now: Moment) -> Result<(), NotSettable> {
        match &self.role {
            RoleState::Following(following) => following.may_be_set(&self.common, now),
            RoleState::Active(active) if active.is_standalone() => Err(NotSettable::NoPair),
            RoleState::Active(_) => Err(NotSettable::IsActive),
            RoleState::Leaving => Err(NotSettable::Unfit("its process ends".to_owned())),
        }
    }

    /// The member that should be dialled to follow: the holder of the Lease, unless that is this one.
    #[must_use]
    pub fn feeder_target(&self) -> Option<MemberName> {
        let record = self.common.view.trusted()?;
        let holder = record.holder.as_ref()?;
        (holder.member != self.common.me.member).then(|| holder.member.clone())
    }

    /// How far the attached standby is, and whether it is recorded in sync; for status.
    #[must_use]
    pub fn standby(&self) -> Option<(MemberName, Report, bool)> {
        match &self.role {
            RoleState::Active(active) => active
                .standby
                .as_ref()
                .map(|s| (s.follower.member.clone(), s.report, s.lost.is_none())),
            RoleState::Following(_) | RoleState::Leaving => None,
        }
    }

    /// One event. The only way in; see [`Output`] for the order in which to do what comes out.
    pub fn step(&mut self, input: Input, now: Moment) -> Output {
        let mut out = Output::default();
        match &mut self.role {
            RoleState::Leaving => {}
            RoleState::Active(_) => self.step_active(input, now, &mut out),
            RoleState::Following(_) => self.step_following(input, now, &mut out),
        }
        out
    }

    /// The commit path's events; everything else goes to `control_active`.
    fn step_active(&mut self, input: Input, now: Moment, out: &mut Output) {
        let RoleState::Active(active) = &mut self.role else { return };
        let c = &mut self.common;
        match input {
            Input::Appended(lsn) => active.appended(c, lsn, now, out),
            Input::Durable(lsn) => {
                c.durable = c.durable.max(lsn);
                active.advance(c, now, out);
            }
            Input::Ack { epoch, incarnation, store, report } => {
                active.ack(c, (epoch, incarnation, store), report);
                active.advance(c, now, out);
            }
            Input::Grant { epoch, nonce, standby, store } => {
                active.grant(c, (epoch, standby, store), nonce);
                active.advance(c, now, out);
            }
            other => {
                if let After::StepDown(why) = control_active(active, c, other, now, out) {
                    self.leave(why, out);
                }
            }
        }
    }

    fn step_following(&mut self, input: Input, now: Moment, out: &mut Output) {
        let RoleState::Following(following) = &mut self.role else { return };
        let c = &mut self.common;
        match input {
            Input::Standalone => {
                let epoch = c.control.promised;
                assert_eq!(epoch.author, c.me.incarnation.id, "it opens its own promise");
                self.activate(Active::standalone(epoch), false, out);
            }
            Input::Tick { data_path_ok } => {
                c.data_path_ok = data_path_ok;
                following.tick(c, now, out);
            }
            Input::Durable(lsn) => c.durable = c.durable.max(lsn),
            Input::Heartbeat { epoch, active, nonce, serving, grant } => {
                following.heartbeat(c, Beat { epoch, active, nonce, serving, grant }, now, out);
            }
            Input::Lease(sight) => {
                let consistent = sight.asked.is_some();
                c.observe(*sight, now, out);
                following.observed(c, consistent, now, out);
                following.tick(c, now, out);
            }
            Input::LeaseWritten { ticket, outcome } => {
                if let Some(write) = c.ended_write(ticket)
                    && let Next::Activate(opening, lease_end) =
                        following.written(c, &write, outcome, now, out)
                {
                    let active = Active::new(opening.epoch, lease_end);
                    self.activate(active, opening.is_lossy, out);
                    // They were opened read-only, and reconnect to find the right Service.
                    out.end_sessions = Some(EndReason::Promoted);
                }
            }
            Input::Synced(end) => self.follower_synced(end, now, out),
            Input::ProvenDead(incarnation) => {
                if c.view.holder_incarnation() == Some(incarnation) {
                    following.suspected.get_or_insert(now);
                }
                c.prove_dead(incarnation, out);
                following.tick(c, now, out);
            }
            Input::Asked(word) => {
                c.word = Some(c.word.map_or(word, |before| before.and(word)));
                following.tick(c, now, out);
            }
            Input::SetActive { at_ms } => following.set_by_hand(c, at_ms, out),
            Input::ClockJumped => c.distrust_write(),
            Input::Policy(policy) => c.set_policy(policy),
            Input::Unfit(why) => c.unfit = why,
            Input::FeederAttached(epoch) => following.feeder_attached(c, epoch, out),
            Input::FeederLost => following.feeder_lost(now, out),
            Input::Initialised(dbid) => following.initialised(c, dbid, now, out),
            Input::PledgeAsked { request, end } => {
                following.pledge_asked(c, (request, end), now, out);
            }
            Input::PledgeAnswered { epoch, answer, end } => {
                following.pledge_answered(c, (epoch, answer), end, now, out);
            }
            Input::Appended(_)
            | Input::Ack { .. }
            | Input::Grant { .. }
            | Input::Refused(_)
            | Input::StandbyAttached(_)
            | Input::StandbyLost(_)
            | Input::ApplyFailed(_)
            | Input::Transfer { .. } => {}
        }
    }

    fn follower_synced(&mut self, end: LogEnd, now: Moment, out: &mut Output) {
        let RoleState::Following(following) = &mut self.role else { return };
        let c = &mut self.common;
        c.durable = c.durable.max(end.lsn);
        match following.synced_by_hand(c, end, out) {
            Some(active) => {
                let is_lossy = !c.is_recorded();
                self.activate(active, is_lossy, out);
            }
            None => following.synced(c, end, now, out),
        }
    }

    fn activate(&mut self, active: Active, is_lossy: bool, out: &mut Output) {
        let opening = Opening { epoch: active.epoch, is_lossy };
        self.role = RoleState::Active(Box::new(active));
        // At promotion everything received becomes part of the history (A2.8).
        out.begin_epoch = Some(opening);
    }

    fn leave(&mut self, why: &'static str, out: &mut Output) {
        self.role = RoleState::Leaving;
        out.end_sessions = Some(out.end_sessions.unwrap_or(EndReason::Deposed));
        out.role = Some(Role::Idle);
        out.restart = Some(why);
    }

    /// A summary for status and routing.
    #[must_use]
    pub fn standing(&self, now: Moment) -> Standing {
        let mut standing = Standing {
            role: Role::Idle,
            epoch: self.common.view.epoch(),
            serving: false,
            lapsed: false,
            transferring: false,
            candidate: false,
            lease_left: None,
            grant_left: None,
            solo: false,
            veto: None,
            suspected: None,
        };
        match &self.role {
            RoleState::Leaving => {}
            RoleState::Following(following) => {
                standing.role = following.role();
                standing.epoch = following.feeder().map_or(standing.epoch, |e| e.number);
                standing.candidate = following.is_candidate();
                standing.veto = following.veto().map(ToString::to_string);
                standing.suspected = following.suspected;
            }
            RoleState::Active(active) => {
                standing.role = if active.is_opened() { Role::Active } else { Role::Idle };
                standing.epoch = active.epoch.number;
                standing.serving = active.has_authority(now);
                standing.lapsed = active.is_opened() && !standing.serving;
                standing.transferring = active.is_transferring();
                standing.lease_left = Some(active.lease_left(now));
                standing.grant_left = Some(active.grant_left(now));
                standing.solo = active.solo;
            }
        }
        standing
    }
}

/// An active's events off the commit path.
fn control_active(
    active: &mut Active,
    c: &mut Common,
    input: Input,
    now: Moment,
    out: &mut Output,
) -> After {
    match input {
        Input::Tick { data_path_ok } => c.data_path_ok = data_path_ok,
        Input::Lease(sight) => {
            c.observe(*sight, now, out);
            return active.observed(c);
        }
        Input::LeaseWritten { ticket, outcome } => {
            let Some(write) = c.ended_write(ticket) else { return After::Stay };
            return match active.written(c, &write, outcome, now, out) {
                After::Stay => active.observed(c),
                down @ After::StepDown(_) => down,
            };
        }
        Input::Synced(end) => {
            c.durable = c.durable.max(end.lsn);
            active.synced();
        }
        Input::StandbyAttached(follower) => active.attached(follower),
        Input::StandbyLost(incarnation) => active.lost(incarnation, now),
        Input::ApplyFailed(incarnation) => active.apply_failed(incarnation),
        Input::ProvenDead(incarnation) => c.prove_dead(incarnation, out),
        Input::ClockJumped => active.clock_jumped(c),
        Input::Refused(promised) => active.refused(promised),
        Input::Transfer { to, deadline_ms } => {
            active.transfer(to, now + Span::millis(deadline_ms));
        }
        Input::Policy(policy) => {
            active.policy(c, policy);
            if active.by_hand.is_some() && policy.automatic {
                return After::StepDown("the mode is Automatic, and the Lease is another's");
            }
        }
        Input::Unfit(why) => c.unfit = why,
        Input::PledgeAsked { request, .. } => {
            if let down @ After::StepDown(_) = active.asked(c, &request) {
                return down;
            }
            let why = "it is active itself".to_owned();
            out.pledge = Some(Err(PledgeRefused { why, promised: c.control.promised.number }));
        }
        Input::PledgeAnswered { epoch, .. } => active.was_answered(epoch, now),
        Input::Heartbeat { epoch, .. } if epoch.number > active.epoch.number => {
            return After::StepDown("an active of a higher epoch speaks");
        }
        Input::Heartbeat { .. }
        | Input::Asked(_)
        | Input::FeederAttached(_)
        | Input::FeederLost
        | Input::Initialised(_)
        | Input::Standalone
        | Input::SetActive { .. }
        | Input::Appended(_)
        | Input::Durable(_)
        | Input::Ack { .. }
        | Input::Grant { .. } => return After::Stay,
    }
    active.tick(c, now, out)
}
