//! Everybody who is not active: a voter that follows or waits, its candidacy, and subscribers (R5, R7,
//! R8, R9, R18, R20).

use crate::common::{AGAIN, Common, InFlight, WriteKind};
use crate::input::WriteOutcome;
use crate::output::{EndReason, Event, Output};
use crate::{FollowerKind, Message};
use understudy_authority::{Ground, LeaseRecord, LeaseState, Sight, Veto, Voter, blackout_until};
use understudy_types::{Dbid, Epoch, EpochId, Incarnation, Lsn, Moment, Role, Span};

/// A candidacy, in the order of R7–R9.
#[derive(Debug)]
struct Candidacy {
    /// The version that R7 and R13 were judged on.
    base: String,
    ground: Ground,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Grants stopped; the last one runs out.
    Waiting,
    /// Frames stopped; the whole log goes to disk.
    Syncing(Lsn),
    /// Promised; the compare-and-swap is under way.
    Acquiring(EpochId),
}

#[derive(Debug)]
pub(crate) struct Following {
    kind: FollowerKind,
    /// Epoch of the feeder; `None` while no link is up.
    feeder: Option<EpochId>,
    candidacy: Option<Candidacy>,
    /// A candidacy failed; the next one waits so long.
    not_before: Moment,
    /// The write that ends R20's initialisation is under way, or was tried.
    initialising: bool,
    /// Last veto, for status.
    veto: Option<Veto>,
    /// First sign that the active is in trouble.
    pub(crate) suspected: Option<Moment>,
}

/// One heartbeat, as a follower judges it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    pub(crate) epoch: EpochId,
    pub(crate) active: Incarnation,
    pub(crate) nonce: u64,
    pub(crate) serving: bool,
    pub(crate) grant: Span,
}

/// What the member must do after a step of its follower.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    /// The Acquire of the present candidacy was confirmed; it gives authority until this time.
    Activate(EpochId, Moment),
}

impl Following {
    pub(crate) fn new(kind: FollowerKind) -> Self {
        Self {
            kind,
            feeder: None,
            candidacy: None,
            not_before: Moment::ZERO,
            initialising: false,
            veto: None,
            suspected: None,
        }
    }

    pub(crate) fn role(&self) -> Role {
        match (self.kind, self.feeder) {
            (FollowerKind::Standby, Some(_)) => Role::Standby,
            (FollowerKind::Subscriber, Some(_)) => Role::Subscriber,
            (FollowerKind::Standby | FollowerKind::Subscriber, None) => Role::Idle,
        }
    }

    pub(crate) fn feeder(&self) -> Option<EpochId> {
        self.feeder
    }

    pub(crate) fn is_candidate(&self) -> bool {
        self.candidacy.is_some()
    }

    pub(crate) fn veto(&self) -> Option<&Veto> {
        self.veto.as_ref()
    }

    /// Whether records of this epoch may be appended now (R8, R18).
    pub(crate) fn accepts(&self, c: &Common, epoch: Epoch) -> bool {
        let frozen = self.candidacy.as_ref().is_some_and(|k| k.stage != Stage::Waiting);
        !frozen && epoch >= c.control.promised.number
    }

    pub(crate) fn feeder_attached(&mut self, c: &mut Common, epoch: EpochId, out: &mut Output) {
        self.feeder = Some(epoch);
        self.suspected = None;
        out.persist |= c.control.raise_promise(epoch);
        out.role = Some(self.role());
    }

    pub(crate) fn feeder_lost(&mut self, now: Moment, out: &mut Output) {
        if self.feeder.take().is_some() {
            self.suspected.get_or_insert(now);
            // The holder may have let go or died: look at once.
            out.lease_read = true;
            out.role = Some(self.role());
        }
    }

    /// R5 and R7's clause: hears, and grants if it may.
    pub(crate) fn heartbeat(&mut self, c: &mut Common, beat: Beat, now: Moment, out: &mut Output) {
        if beat.epoch.number < c.control.promised.number {
            out.messages.push(Message::Refused { promised: c.control.promised.number });
            return;
        }
        let holds = c.view.holder_incarnation() == Some(beat.active);
        if beat.serving && (holds || beat.epoch.number >= c.view.epoch()) {
            c.heard_serving = Some(now);
            self.suspected = None;
        }
        if !self.may_grant(c, beat, now) {
            return;
        }
        let span = beat.grant.min(c.timing.lease());
        out.persist |= c.control.raise_grant(beat.active, span);
        c.grants_out = c.grants_out.max(c.timing.grant_out(now));
        out.messages.push(Message::Grant {
            epoch: beat.epoch.number,
            nonce: beat.nonce,
            standby: c.me.incarnation,
        });
    }

    fn may_grant(&self, c: &Common, beat: Beat, now: Moment) -> bool {
        let votes = self.kind == FollowerKind::Standby
            && c.view.record().is_some_and(|r| r.is_voter(&c.me.member, c.me.store));
        votes
            && self.candidacy.is_none()
            && c.data_path_ok
            && self.feeder == Some(beat.epoch)
            && now >= blackout_until(&c.candidate())
    }

    /// The newest version changed.
    pub(crate) fn observed(&mut self, c: &Common, consistent: bool, now: Moment, out: &mut Output) {
        let Some(current) = c.view.current() else { return };
        if self.candidacy.as_ref().is_some_and(|k| k.base != current.version)
            && c.in_flight.is_none()
        {
            self.end_candidacy("the Lease changed", out);
        }
        let record = &current.record;
        if let LeaseState::Initialising { by } = &record.state
            && by == &c.me
            && !self.initialising
        {
            // R20 acts on a consistent read only; a hint of the watch asks for one.
            self.initialising = consistent;
            out.initialise = consistent;
            out.lease_read |= !consistent;
        }
        let free = match record.state {
            LeaseState::Released | LeaseState::Transferring { .. } => true,
            LeaseState::Uninitialised | LeaseState::Initialising { .. } | LeaseState::Held => false,
        };
        if free {
            self.suspected.get_or_insert(now);
        }
    }

    /// The directory is initialised: the compare-and-swap that makes it the database (R20).
    pub(crate) fn initialised(
        &mut self,
        c: &mut Common,
        dbid: Dbid,
        now: Moment,
        out: &mut Output,
    ) {
        let Some(record) = c.view.record().map(LeaseRecord::successor) else { return };
        if !c.is_free_to_write() {
            return;
        }
        c.control.dbid = Some(dbid);
        let epoch = c.promise_next(out);
        let record = LeaseRecord {
            dbid: Some(dbid),
            epoch: epoch.number,
            state: LeaseState::Held,
            holder: Some(c.me.clone()),
            lease_duration_ms: c.timing.lease().as_millis(),
            voters: vec![Voter { member: c.me.member.clone(), store: c.me.store }],
            sync: None,
            ..record
        };
        c.write(WriteKind::Acquire(epoch), record, now, out);
        let base = out.lease_write.as_ref().map(|w| w.base.clone()).unwrap_or_default();
        let stage = Stage::Acquiring(epoch);
        self.candidacy = Some(Candidacy { base, ground: Ground::Released, stage });
    }

    pub(crate) fn tick(&mut self, c: &mut Common, now: Moment, out: &mut Output) {
        if self.kind == FollowerKind::Subscriber {
            return;
        }
        if c.view.needs_confirmation(now) {
            c.read(now, out);
            if self.feeder.is_none() {
                self.suspected.get_or_insert(now);
            }
        }
        match &self.candidacy {
            None => self.consider(c, now, out),
            Some(_) => self.go_on(c, now, out),
        }
    }

    fn consider(&mut self, c: &Common, now: Moment, out: &mut Output) {
        match c.may_candidate(now) {
            Err(veto) => self.veto = Some(veto),
            Ok(ground) if c.is_free_to_write() && now >= self.not_before => {
                self.veto = None;
                self.suspected.get_or_insert(now);
                let base = c.view.current().map(|v| v.version.clone()).unwrap_or_default();
                self.candidacy = Some(Candidacy { base, ground, stage: Stage::Waiting });
                out.events.push(Event::CandidacyBegan(ground));
                self.freeze_when_grants_ran_out(c, now, out);
            }
            Ok(_) => {}
        }
    }

    fn go_on(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let Some(candidacy) = &self.candidacy else { return };
        if candidacy.stage == Stage::Waiting {
            if let Err(veto) = c.may_candidate(now) {
                self.veto = Some(veto);
                return self.end_candidacy("a veto came up before the promise", out);
            }
            self.freeze_when_grants_ran_out(c, now, out);
        }
    }

    /// R8: from here no frame is accepted, so that what is synced is all there is.
    fn freeze_when_grants_ran_out(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let Some(candidacy) = &mut self.candidacy else { return };
        if candidacy.ground.ends_authority() || now >= c.grants_out {
            candidacy.stage = Stage::Syncing(c.end);
            out.sync_log = true;
        }
    }

    /// The whole log is on disk: promise, then compare-and-swap on the version that was judged (R8,
    /// R9).
    pub(crate) fn synced(&mut self, c: &mut Common, lsn: Lsn, now: Moment, out: &mut Output) {
        let Some(candidacy) = &self.candidacy else { return };
        let Stage::Syncing(target) = candidacy.stage else { return };
        if lsn < target {
            out.sync_log = true;
            return;
        }
        let same = c.view.current().is_some_and(|v| v.version == candidacy.base);
        if !same || !c.is_free_to_write() || c.may_candidate(now).is_err() {
            return self.end_candidacy("the Lease changed before the promise", out);
        }
        let Some(record) = c.view.record().map(LeaseRecord::successor) else { return };
        let epoch = c.promise_next(out);
        let record = LeaseRecord {
            epoch: epoch.number,
            state: LeaseState::Held,
            holder: Some(c.me.clone()),
            lease_duration_ms: c.timing.lease().as_millis(),
            sync: None,
            ..record
        };
        c.write(WriteKind::Acquire(epoch), record, now, out);
        if let Some(candidacy) = &mut self.candidacy {
            candidacy.stage = Stage::Acquiring(epoch);
        }
    }

    /// A Lease write of this member ended. Only the confirmed answer to the Acquire of the present
    /// candidacy activates (A1.18).
    pub(crate) fn written(
        &mut self,
        c: &mut Common,
        write: &InFlight,
        outcome: WriteOutcome,
        now: Moment,
        out: &mut Output,
    ) -> Next {
        let confirmed = match outcome {
            WriteOutcome::Confirmed(versioned) => {
                c.observe(Sight { versioned: *versioned, asked: Some(write.sent) }, now, out);
                true
            }
            WriteOutcome::Conflict | WriteOutcome::Refused(_) | WriteOutcome::Unknown(_) => false,
        };
        if let (WriteKind::Acquire(epoch), Some(candidacy)) = (&write.kind, &self.candidacy)
            && confirmed
            && candidacy.stage == Stage::Acquiring(*epoch)
        {
            return Next::Activate(*epoch, write.timing.authority_end(write.sent));
        }
        out.lease_read = true;
        self.initialising = false;
        self.not_before = now + AGAIN;
        self.end_candidacy("the Acquire was not confirmed", out);
        Next::Stay
    }

    fn end_candidacy(&mut self, why: &'static str, out: &mut Output) {
        if self.candidacy.take().is_some() {
            out.events.push(Event::CandidacyEnded(why));
        }
    }

    /// Sessions of a standby were opened read-only; they reconnect to find the right Service.
    pub(crate) fn leave(self, out: &mut Output) {
        out.end_sessions = Some(EndReason::Promoted);
    }
}
