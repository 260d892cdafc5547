//! Everybody who is not active: a voter that follows or waits, its candidacy, and subscribers (R5, R7,
//! R8, R9, R18, R20).

use crate::common::{AGAIN, Common, InFlight, WriteKind};
use crate::input::WriteOutcome;
use crate::output::{Event, Opening, Output};
use crate::{FollowerKind, LogEnd, Message, Pledge, PledgeRefused, PledgeRequest};
use understudy_authority::{
    Claim, Ground, LeaseRecord, LeaseState, Loss, Needs, Sight, Veto, Voter, blackout_until,
};
use understudy_types::{Dbid, Epoch, EpochId, Incarnation, Lsn, Moment, Role, Span};

/// A candidacy, in the order of R7–R9.
#[derive(Debug)]
struct Candidacy {
    /// The version that R7 and R13 were judged on.
    base: String,
    claim: Claim,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Grants stopped; the last one runs out.
    Waiting,
    /// Frames stopped; the whole log goes to disk.
    Syncing(Lsn),
    /// The other voter is asked for its word (R11, R13c), until this time.
    Asking(EpochId, Moment),
    /// Promised; the compare-and-swap is under way.
    Acquiring(EpochId),
}

#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) kind: FollowerKind,
    /// Epoch of the feeder; `None` while no link is up.
    feeder: Option<EpochId>,
    candidacy: Option<Candidacy>,
    /// A candidacy failed; the next one waits so long.
    not_before: Moment,
    /// Since when a candidacy would need the other voter's word.
    needy_since: Option<Moment>,
    /// The other voter promised so much: an epoch to ask for lies above it.
    promised_elsewhere: Epoch,
    /// The write that ends R20's initialisation is under way, or was tried.
    initialising: bool,
    /// A person sets it active, since then; in milliseconds since 1970.
    pub(crate) set_at_ms: Option<u64>,
    /// Last veto, for status.
    veto: Option<Veto>,
    /// First sign that the active is in trouble.
    pub(crate) suspected: Option<Moment>,
}

/// Longest wait for the other voter's word; the agents' call has a shorter time-out.
const ANSWER_WITHIN: Span = Span::seconds(3);

/// Time between two questions: the other voter may still be starting.
const ASK_AGAIN: Span = Span::seconds(1);

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
    Activate(Opening, Moment),
}

impl Following {
    pub(crate) fn new(kind: FollowerKind) -> Self {
        Self {
            kind,
            feeder: None,
            candidacy: None,
            not_before: Moment::ZERO,
            needy_since: None,
            promised_elsewhere: Epoch::ZERO,
            initialising: false,
            set_at_ms: None,
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
        !frozen && self.set_at_ms.is_none() && epoch >= c.control.promised.number
    }

    pub(crate) fn feeder_attached(&mut self, c: &mut Common, epoch: EpochId, out: &mut Output) {
        self.feeder = Some(epoch);
        self.suspected = None;
        self.needy_since = None;
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
        c.granted = Some(beat.active);
        out.messages.push(Message::Grant {
            epoch: beat.epoch.number,
            nonce: beat.nonce,
            standby: c.me.incarnation,
        });
    }

    fn may_grant(&self, c: &Common, beat: Beat, now: Moment) -> bool {
        let votes = self.kind == FollowerKind::Standby
            && c.view.trusted().is_some_and(|r| r.is_voter(&c.me.member, c.me.store));
        votes
            && self.candidacy.is_none()
            && self.set_at_ms.is_none()
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
        // An earlier attempt's write may still land with its dbid.
        let dbid = *c.control.dbid.get_or_insert(dbid);
        let epoch = c.promise(c.next_epoch(), out);
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
        let claim = Claim { ground: Ground::Released, needs: Needs::Nothing, loss: Loss::Nothing };
        self.candidacy = Some(Candidacy { base, claim, stage });
    }

    pub(crate) fn tick(&mut self, c: &mut Common, now: Moment, out: &mut Output) {
        if self.kind == FollowerKind::Subscriber || self.set_at_ms.is_some() {
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
            Ok(claim) if c.is_free_to_write() && now >= self.not_before => {
                if claim.needs != Needs::Nothing && self.must_wait_to_ask(c, now) {
                    return;
                }
                if claim.needs == Needs::Nothing {
                    self.veto = None;
                }
                self.suspected.get_or_insert(now);
                let base = c.view.current().map(|v| v.version.clone()).unwrap_or_default();
                self.candidacy = Some(Candidacy { base, claim, stage: Stage::Waiting });
                out.events.push(Event::CandidacyBegan(claim));
                self.freeze_when_grants_ran_out(c, now, out);
            }
            Ok(_) => {}
        }
    }

    /// Two that need each other's word go one after the other: the last holder, who most likely has
    /// everything, then the recorded standby, then a store that was not in S.
    fn must_wait_to_ask(&mut self, c: &Common, now: Moment) -> bool {
        let since = *self.needy_since.get_or_insert(now);
        let store_of = |holder: &Option<understudy_authority::Holder>| {
            holder.as_ref().is_some_and(|h| h.store == c.me.store)
        };
        let Some(record) = c.view.record() else { return true };
        let turn = match () {
            () if store_of(&record.holder) => 0,
            () if store_of(&record.sync.as_ref().map(|s| s.standby.clone())) => 1,
            () => 2,
        };
        now < since + Span::millis(c.timing.lease().as_millis() * turn)
    }

    fn go_on(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let Some(candidacy) = &self.candidacy else { return };
        if let Stage::Asking(_, until) = candidacy.stage
            && now >= until
        {
            return self.not_pledged("it does not answer", now, out);
        }
        if candidacy.stage == Stage::Waiting {
            if let Err(veto) = c.may_candidate(now) {
                self.veto = Some(veto);
                return self.end_candidacy("a veto came up before the promise", out);
            }
            self.freeze_when_grants_ran_out(c, now, out);
        }
    }

    /// R8: from here no frame is accepted, so that what is synced is all there is. That the last holder
    /// let go or died voids its own grant, and nobody else's: a Lease that was made again may name
    /// another holder than the one who serves by this member's grant (R21).
    fn freeze_when_grants_ran_out(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let Some(candidacy) = &mut self.candidacy else { return };
        let holder = c.view.record().and_then(|r| r.holder.as_ref()).map(|h| h.incarnation);
        let is_void = candidacy.claim.ground.ends_authority()
            && (candidacy.claim.ground == Ground::Own
                || c.granted.is_none()
                || c.granted == holder);
        if is_void || now >= c.grants_out {
            candidacy.stage = Stage::Syncing(c.end);
            out.sync_log = true;
        }
    }

    /// The whole log is on disk: promise, then compare-and-swap on the version that was judged (R8,
    /// R9).
    pub(crate) fn synced(&mut self, c: &mut Common, end: LogEnd, now: Moment, out: &mut Output) {
        let Some(candidacy) = &self.candidacy else { return };
        let Stage::Syncing(target) = candidacy.stage else { return };
        if end.lsn < target {
            out.sync_log = true;
            return;
        }
        if !self.may_go_on(c, now) {
            return self.end_candidacy("the Lease changed before the promise", out);
        }
        let Some(candidacy) = &mut self.candidacy else { return };
        if candidacy.claim.needs == Needs::Nothing {
            return self.acquire(c, c.next_epoch(), now, out);
        }
        let number = c.next_epoch().max(self.promised_elsewhere.next());
        let epoch = EpochId { number, author: c.me.incarnation.id };
        candidacy.stage = Stage::Asking(epoch, now + ANSWER_WITHIN);
        let compare = (candidacy.claim.needs == Needs::Comparison).then_some(end);
        out.ask = Some(PledgeRequest {
            dbid: c.control.dbid,
            epoch,
            candidate: c.me.clone(),
            compare,
            set_at_ms: None,
        });
    }

    /// Whether the present candidacy stands on the newest version, and no veto came up.
    fn may_go_on(&self, c: &Common, now: Moment) -> bool {
        self.candidacy.as_ref().is_some_and(|candidacy| {
            let same = c.view.current().is_some_and(|v| v.version == candidacy.base);
            let claim = c.may_candidate(now);
            same && c.is_free_to_write()
                && claim.is_ok_and(|claim| {
                    claim.needs == Needs::Nothing || claim.needs == candidacy.claim.needs
                })
        })
    }

    /// Promises, and writes to the version that was judged (R8, R9).
    fn acquire(&mut self, c: &mut Common, number: Epoch, now: Moment, out: &mut Output) {
        let Some(record) = c.view.record().map(LeaseRecord::successor) else { return };
        // All that were given ran out, or are void (R8).
        c.control.granted_to.clear();
        let epoch = c.promise(number, out);
        let lacks = self.candidacy.as_ref().is_some_and(|k| k.claim.loss != Loss::Nothing);
        let record = LeaseRecord {
            lossy: lacks || record.lossy,
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

    /// The other voter gave its word, or did not (R11, R13c).
    pub(crate) fn pledge_answered(
        &mut self,
        c: &mut Common,
        (epoch, answer): (EpochId, Result<Pledge, PledgeRefused>),
        own: LogEnd,
        now: Moment,
        out: &mut Output,
    ) {
        let Some(candidacy) = &self.candidacy else { return };
        if !matches!(candidacy.stage, Stage::Asking(asked, _) if asked == epoch) {
            return;
        }
        let pledge = match answer {
            Ok(pledge) => pledge,
            Err(refused) => {
                self.promised_elsewhere = self.promised_elsewhere.max(refused.promised);
                return self.not_pledged(&refused.why, now, out);
            }
        };
        let voter = &pledge.voter;
        let has_vote = voter.store != c.me.store
            && c.view.record().is_some_and(|r| r.is_voter(&voter.member, voter.store));
        if pledge.epoch != epoch || !has_vote {
            return self.not_pledged("it was given by somebody without a vote", now, out);
        }
        if candidacy.claim.needs == Needs::Comparison && pledge.end > own {
            let why =
                format!("its log ends later, at {} of epoch {}", pledge.end.lsn, pledge.end.epoch);
            return self.not_pledged(&why, now, out);
        }
        if !self.may_go_on(c, now) || c.next_epoch() > epoch.number {
            return self.end_candidacy("the Lease changed before the promise", out);
        }
        self.acquire(c, epoch.number, now, out);
    }

    fn not_pledged(&mut self, why: &str, now: Moment, out: &mut Output) {
        self.veto = Some(Veto::NotPledged(why.to_owned()));
        self.not_before = now + ASK_AGAIN;
        self.end_candidacy("the other voter did not give its word", out);
    }

    /// The other voter asks: under the conditions of an own candidacy (R6, R8) this one promises, and
    /// says where its log ends. From then on it takes nothing of lower epochs.
    pub(crate) fn pledge_asked(
        &mut self,
        c: &mut Common,
        (request, end): (PledgeRequest, LogEnd),
        now: Moment,
        out: &mut Output,
    ) {
        let answer = match self.why_not_pledge(c, &request, end, now) {
            Some(why) => {
                Err(PledgeRefused { why: why.to_owned(), promised: c.control.promised.number })
            }
            None => {
                self.end_candidacy("the other voter has this one's word", out);
                // The asker goes first.
                self.not_before = now + c.timing.lease();
                out.persist |= c.control.raise_promise(request.epoch);
                Ok(Pledge { epoch: request.epoch, voter: c.me.clone(), end })
            }
        };
        out.pledge = Some(answer);
    }

    fn why_not_pledge(
        &self,
        c: &Common,
        request: &PledgeRequest,
        end: LogEnd,
        now: Moment,
    ) -> Option<&'static str> {
        let Some(record) = c.view.record() else { return Some("it has not read the Lease yet") };
        let votes =
            |holder: &understudy_authority::Holder| record.is_voter(&holder.member, holder.store);
        let candidate = &request.candidate;
        let hears = c.heard_serving.is_some_and(|at| now < at + c.timing.lease());
        let own = self.candidacy.as_ref().map(|k| (&k.stage, k.claim.needs));
        match own {
            _ if self.kind == FollowerKind::Subscriber || !votes(&c.me) => Some("it has no vote"),
            _ if !votes(candidate) || candidate.store == c.me.store => {
                Some("the candidate has no vote")
            }
            _ if request.dbid.is_none() || request.dbid != c.control.dbid => {
                Some("it holds another database")
            }
            _ if c.view.is_regressed() => Some("it knows a newer Lease"),
            _ if !c.is_automatic() => Some("mode is Paused: a person decides"),
            _ if !c.data_path_ok => Some("its log does not answer"),
            _ if hears && self.feeder.is_some() => Some("it hears an active that serves"),
            Some((Stage::Acquiring(_), _)) | Some((_, Needs::Nothing)) => {
                Some("it runs for active itself")
            }
            Some((Stage::Asking(epoch, _), _))
                if (epoch.number, epoch.author) >= (request.epoch.number, request.epoch.author) =>
            {
                Some("it asks for a higher epoch itself")
            }
            _ if now < blackout_until(&c.candidate()) => {
                Some("grants of an earlier life of its store may still be in use")
            }
            _ if now < c.grants_out => Some("a grant of it may still be in use"),
            _ if request.compare.is_some_and(|theirs| theirs < end) => Some("its log ends later"),
            _ if request.epoch.number <= c.control.promised.number => {
                Some("it promised that epoch or a higher one already")
            }
            Some(_) | None => None,
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
            let is_lossy = c.view.record().is_some_and(|record| record.lossy);
            let opening = Opening { epoch: *epoch, is_lossy };
            return Next::Activate(opening, write.timing.authority_end(write.sent));
        }
        out.lease_read = true;
        self.initialising = false;
        self.not_before = now + AGAIN;
        self.end_candidacy("the Acquire was not confirmed", out);
        Next::Stay
    }

    pub(crate) fn end_candidacy(&mut self, why: &'static str, out: &mut Output) {
        if self.candidacy.take().is_some() {
            out.events.push(Event::CandidacyEnded(why));
        }
    }
}
