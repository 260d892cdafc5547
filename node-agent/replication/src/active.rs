//! The active: authority, acknowledgement, and the record of who is in sync (R4, R5, R12, R15, R16,
//! R22).
//!
//! `solo` and `joint` are the two ways to acknowledge. At most one holds; between them every
//! acknowledgement needs the standby *and* the own disk.
//!
//! ```text
//!  Acquire ──► solo ──(standby near)──► neither ──SetSync confirmed──► joint
//!               ▲                        │  ▲                          │
//!               └────SetSolo confirmed───┘  └──(standby gone, or any S-write sent)──┘
//! ```

use crate::by_hand::ByHand;
use crate::common::{AGAIN, Common, InFlight, WriteKind};
use crate::input::{Policy, Report, WriteOutcome};
use crate::lag::Lag;
use crate::output::{EndReason, Event, Opening, Output};
use crate::{Follower, Message};
use understudy_authority::{
    Candidate, Heartbeats, Holder, LeaseRecord, LeaseState, Needs, Sight, StandbySync, SyncClass,
    Voter, may_candidate,
};
use understudy_types::{
    Durability, Epoch, EpochId, Incarnation, Lsn, MaxLoss, MemberName, Moment, ReturnService, Span,
    StoreId,
};

/// A replication link that is down this long counts as stopped (design §8): the active goes alone.
const LINK_LOST: Span = Span::millis(1_000);
/// How long commits keep to the pace of a standby that lacks as much as may be lost.
const LAG_PATIENCE: Span = Span::millis(50);
/// A standby within so many records of the end is near enough to stop acknowledging alone for it.
const NEAR_RECORDS: u64 = 2_000;

#[derive(Debug)]
pub(crate) struct Standby {
    pub(crate) follower: Follower,
    pub(crate) report: Report,
    /// It reported its position in this epoch since it attached.
    pub(crate) reported: bool,
    /// When the link ended; `None` while it is up.
    pub(crate) lost: Option<Moment>,
    /// It could not apply a record.
    pub(crate) failed: bool,
}

#[derive(Debug)]
struct Transfer {
    to: Option<MemberName>,
    deadline: Moment,
}

#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) epoch: EpochId,
    lease_end: Moment,
    grant_end: Moment,
    beats: Heartbeats,
    next_beat: Moment,
    next_renewal: Moment,
    /// LSN of this epoch's first record; `None` until it was appended.
    begin: Option<Lsn>,
    /// The first record is durable: it serves.
    opened: bool,
    pub(crate) solo: bool,
    pub(crate) joint: Option<Incarnation>,
    /// Ends of the log by time, to judge how old the oldest record is that the standby lacks (A2.12).
    lag: Lag,
    /// An S-write ended unknown, and no later one was confirmed (R15).
    doubt: bool,
    pub(crate) standby: Option<Standby>,
    /// Oldest wait that is watched: everything up to the LSN was appended by that time.
    waiting: Option<(Lsn, Moment)>,
    /// A higher epoch must be opened: a peer promised this one, or authority lapsed.
    bump: Option<Epoch>,
    bump_synced: bool,
    next_bump: Moment,
    sync_asked: bool,
    lapsed: Option<Moment>,
    sessions_ended: bool,
    transfer: Option<Transfer>,
    /// A hand-over was sent: this epoch never serves again.
    let_go: bool,
    /// Nobody else will ever have a word: authority does not end, and durability is the policy's alone.
    standalone: bool,
    /// A person set it active, without the Lease.
    pub(crate) by_hand: Option<ByHand>,
}

/// What the member must do after a step of its active.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    Stay,
    StepDown(&'static str),
}

impl Active {
    pub(crate) fn new(epoch: EpochId, lease_end: Moment) -> Self {
        Self {
            epoch,
            lease_end,
            grant_end: Moment::ZERO,
            beats: Heartbeats::default(),
            next_beat: Moment::ZERO,
            next_renewal: Moment::ZERO,
            begin: None,
            opened: false,
            solo: true,
            joint: None,
            lag: Lag::default(),
            doubt: false,
            standby: None,
            waiting: None,
            bump: None,
            bump_synced: false,
            next_bump: Moment::ZERO,
            sync_asked: false,
            lapsed: None,
            sessions_ended: false,
            transfer: None,
            let_go: false,
            standalone: false,
            by_hand: None,
        }
    }

    /// Without Kubernetes authority is a person, who started this process.
    pub(crate) fn standalone(epoch: EpochId) -> Self {
        Self { standalone: true, ..Self::new(epoch, Moment::ZERO) }
    }

    /// By a person's word: it takes the Lease when that is free.
    pub(crate) fn by_hand(epoch: EpochId, by_hand: ByHand) -> Self {
        let bump = Some(epoch.number);
        Self { by_hand: Some(by_hand), bump, ..Self::new(epoch, Moment::ZERO) }
    }

    /// R6a: reads no cached verdict; `now` was read at the decision.
    pub(crate) fn has_authority(&self, now: Moment) -> bool {
        now < self.authority_end()
    }

    pub(crate) fn authority_end(&self) -> Moment {
        if !self.opened || self.let_go {
            Moment::ZERO
        } else if self.standalone || self.by_hand.is_some() {
            Moment::NEVER
        } else {
            self.lease_end.max(self.grant_end)
        }
    }

    /// Whether new commits may enter the log.
    pub(crate) fn takes_commits(&self, now: Moment) -> bool {
        self.has_authority(now) && self.transfer.is_none()
    }

    pub(crate) fn lease_left(&self, now: Moment) -> Span {
        now.until(self.lease_end)
    }

    pub(crate) fn grant_left(&self, now: Moment) -> Span {
        now.until(self.grant_end)
    }

    pub(crate) fn is_standalone(&self) -> bool {
        self.standalone
    }

    pub(crate) fn is_opened(&self) -> bool {
        self.opened
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.transfer.is_some() || self.let_go
    }

    /// A record got its LSN. The first one of the epoch is its `EpochBegin`.
    pub(crate) fn appended(&mut self, c: &mut Common, lsn: Lsn, now: Moment, out: &mut Output) {
        c.end = lsn;
        if self.begin.is_none() {
            self.begin = Some(lsn);
        }
        self.advance(c, now, out);
    }

    /// Moves `acknowledged_lsn` as far as R15 allows.
    pub(crate) fn advance(&mut self, c: &mut Common, now: Moment, out: &mut Output) {
        if !self.opened {
            if self.begin.is_none_or(|begin| c.durable < begin) || self.let_go {
                return;
            }
            self.opened = true;
            out.events.push(Event::Serving(self.epoch));
            out.role = Some(understudy_types::Role::Active);
        }
        if !self.has_authority(now) {
            return;
        }
        let target = self.local(c).min(self.by_standby(c, now));
        if target > c.acknowledged {
            c.acknowledged = target;
            out.acknowledged = Some(target);
        }
    }

    /// What the own side allows: the disk, or the memory while S with the standby is confirmed and
    /// no S-write was sent since.
    fn local(&self, c: &Common) -> Lsn {
        let memory = c.policy.is_some_and(|p| p.durability == Durability::Memory);
        let attached = self.standby.as_ref().map(|s| s.follower.incarnation);
        let is_joint = self.joint.is_some() && self.joint == attached;
        if memory && (is_joint || self.standalone) { c.end } else { c.durable }
    }

    /// What the standby allows, or being alone does.
    fn by_standby(&self, c: &Common, now: Moment) -> Lsn {
        let by_standby = match &self.standby {
            Some(s) if s.reported && is_listed(c, &s.follower) => self.beyond(c, &s.report, now),
            Some(_) | None => Lsn::ZERO,
        };
        by_standby.max(self.alone(c))
    }

    /// What the standby's positions promise, and what may be acknowledged beyond them: as many records as
    /// may be lost, while the oldest of them is not too old (A2.12).
    fn beyond(&self, c: &Common, report: &Report, now: Moment) -> Lsn {
        let promised = promised_lsn(c, report);
        match self.allowed(c) {
            Some(most) if self.lag.is_within(promised, most, now) => {
                Lsn(promised.0.saturating_add(most.commits))
            }
            Some(_) | None => promised,
        }
    }

    /// What may be acknowledged without the standby: what the Lease is confirmed to say of it, while no
    /// S-write was sent since, and no more than the policy allows by now.
    fn allowed(&self, c: &Common) -> Option<MaxLoss> {
        let policy = c.policy.and_then(|policy| policy.allowance())?;
        let sync = c.view.trusted()?.sync.as_ref()?;
        match sync.class {
            SyncClass::Async(told) if self.joint == Some(sync.standby.incarnation) => {
                Some(MaxLoss {
                    commits: told.commits.min(policy.commits),
                    millis: told.millis.min(policy.millis),
                })
            }
            SyncClass::Async(_) | SyncClass::Receipt | SyncClass::Twosafe => None,
        }
    }

    /// What may be acknowledged alone: without limit while solo. Under Block it is what the epoch began
    /// with, which no client of it waits for, and which a duplicate is made from.
    fn alone(&self, c: &Common) -> Lsn {
        match c.policy {
            _ if !self.solo => Lsn::ZERO,
            Some(policy) if policy.blocks() => self.begin.unwrap_or(Lsn::ZERO),
            Some(_) | None => Lsn::MAX,
        }
    }

    pub(crate) fn ack(
        &mut self,
        c: &mut Common,
        from: (Epoch, Incarnation, StoreId),
        report: Report,
    ) {
        let (epoch, incarnation, store) = from;
        if epoch != self.epoch.number {
            return;
        }
        let Some(standby) = &mut self.standby else { return };
        if standby.follower.incarnation != incarnation || standby.follower.store != store {
            return;
        }
        if report.received > c.end || report.applied > report.received {
            return; // No follower of this log can say so; it counts for nothing.
        }
        standby.report = report;
        standby.reported = true;
    }

    pub(crate) fn grant(&mut self, c: &Common, from: (Epoch, Incarnation, StoreId), nonce: u64) {
        let (epoch, incarnation, store) = from;
        let Some(standby) = &self.standby else { return };
        let known = standby.follower.incarnation == incarnation
            && standby.follower.store == store
            && is_listed(c, &standby.follower);
        if epoch != self.epoch.number || !known {
            return;
        }
        if let Some(sent) = self.beats.sent_at(nonce) {
            self.grant_end = self.grant_end.max(c.timing.authority_end(sent));
        }
    }

    /// A1.6: what was counted on a clock that may have stood still counts for nothing; one fresh
    /// renewal or grant gives authority again.
    pub(crate) fn clock_jumped(&mut self, c: &mut Common) {
        self.lease_end = Moment::ZERO;
        self.grant_end = Moment::ZERO;
        self.beats.forget();
        c.distrust_write();
        self.next_beat = Moment::ZERO;
        self.next_renewal = Moment::ZERO;
    }

    pub(crate) fn attached(&mut self, follower: Follower) {
        self.standby = Some(Standby {
            follower,
            report: Report::default(),
            reported: false,
            lost: None,
            failed: false,
        });
        self.next_beat = Moment::ZERO;
    }

    pub(crate) fn lost(&mut self, incarnation: Incarnation, now: Moment) {
        if let Some(s) = self.standby.as_mut().filter(|s| s.follower.incarnation == incarnation) {
            s.lost = Some(now);
            s.reported = false;
        }
    }

    pub(crate) fn apply_failed(&mut self, incarnation: Incarnation) {
        if let Some(s) = self.standby.as_mut().filter(|s| s.follower.incarnation == incarnation) {
            s.failed = true;
        }
    }

    pub(crate) fn refused(&mut self, promised: Epoch) {
        if promised > self.epoch.number {
            self.bump = self.bump.max(Some(promised));
        }
    }

    pub(crate) fn transfer(&mut self, to: Option<MemberName>, deadline: Moment) {
        self.transfer = Some(Transfer { to, deadline });
    }

    /// The policy changed. Grants for heartbeats that named another T count for nothing.
    pub(crate) fn policy(&mut self, c: &mut Common, policy: Policy) {
        if c.timing != policy.timing {
            self.beats.forget();
        }
        c.set_policy(policy);
    }

    pub(crate) fn synced(&mut self) {
        self.sync_asked = false;
        self.bump_synced = self.bump.is_some();
    }

    /// The newest version of the Lease changed: is it still ours?
    pub(crate) fn observed(&mut self, c: &mut Common) -> After {
        if self.by_hand.is_some() {
            return self.observed_by_hand(c);
        }
        if c.view.is_regressed() {
            // R21: an amnesiac voter is not used; grants prolong.
            return After::Stay;
        }
        let Some(record) = c.view.record() else { return After::Stay };
        let mine = record.is_held_by(c.me.incarnation) && record.epoch == self.epoch.number;
        // An own Acquire of the same process that landed without an answer: only a new epoch helps.
        let own_higher = record.is_held_by(c.me.incarnation) && record.epoch > self.epoch.number;
        if own_higher {
            self.lease_end = Moment::ZERO;
            self.bump = self.bump.max(Some(record.epoch));
            return After::Stay;
        }
        if mine || c.in_flight.is_some() && self.let_go {
            return After::Stay;
        }
        After::StepDown("another holder or a higher epoch is on the Lease")
    }

    pub(crate) fn tick(&mut self, c: &mut Common, now: Moment, out: &mut Output) -> After {
        if let Some(most) = c.policy.and_then(|policy| policy.allowance()) {
            self.lag.note(c.end, most, now);
        }
        self.advance(c, now, out);
        self.watch_authority(c, now, out);
        self.beat(c, now, out);
        self.watch_waits(c, now, out);
        self.ask_to_yield(c, now, out);
        self.undo_late_transfer(now, out);
        self.write_next(c, now, out);
        After::Stay
    }

    fn watch_authority(&mut self, c: &mut Common, now: Moment, out: &mut Output) {
        if !self.opened || self.has_authority(now) {
            self.lapsed = None;
            return;
        }
        let since = *self.lapsed.get_or_insert_with(|| {
            out.events.push(Event::Lapsed);
            let alone = !self.doubt && c.view.record().is_some_and(|r| r.sync.is_none());
            c.yields_until = if alone { now } else { now + c.timing.yield_time() };
            now
        });
        if !self.sessions_ended && now.since(since) > c.timing.lease() {
            self.sessions_ended = true;
            out.end_sessions = Some(EndReason::Lapsed);
        }
        c.read(now, out);
        if self.bump.is_none() && c.may_candidate(now).is_ok() {
            self.bump = Some(self.epoch.number);
        }
    }

    fn beat(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let up = self.standby.as_ref().is_some_and(|s| s.lost.is_none());
        if !up || !c.data_path_ok || !self.opened || self.let_go || now < self.next_beat {
            return;
        }
        self.next_beat = now + c.timing.heartbeat_every();
        let nonce = self.beats.send(now);
        out.messages.push(Message::Heartbeat {
            epoch: self.epoch.number,
            active: c.me.incarnation,
            nonce,
            serving: self.has_authority(now),
            grant: c.timing.lease(),
            end: c.end,
            acknowledged: c.acknowledged,
        });
    }

    fn watch_waits(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let is_blocked = c.policy.is_some_and(|policy| {
            let is_overdue = |(_, since)| now.since(since).as_millis() >= policy.return_wait_ms;
            policy.blocks() && self.waiting.is_some_and(is_overdue)
        });
        if is_blocked {
            out.overdue = true;
            self.waiting = None;
        }
        match self.waiting {
            Some((lsn, _)) if c.acknowledged < lsn => {}
            Some(_) | None if c.acknowledged < c.end => self.waiting = Some((c.end, now)),
            Some(_) | None => self.waiting = None,
        }
    }

    fn undo_late_transfer(&mut self, now: Moment, out: &mut Output) {
        if !self.let_go && self.transfer.as_ref().is_some_and(|t| now >= t.deadline) {
            self.transfer = None;
            out.events.push(Event::TransferUndone);
        }
    }

    /// Why the active must go alone; `None` while the standby is to be waited for.
    fn alone_because(&self, c: &Common, now: Moment) -> Option<&'static str> {
        if self.solo {
            return None;
        }
        let policy = c.policy?;
        if !policy.names_standby() {
            return Some("no return service");
        }
        if policy.blocks() {
            return None;
        }
        let Some(standby) = &self.standby else { return Some("no standby is attached") };
        if standby.failed {
            return Some("the standby cannot apply");
        }
        if c.proven_dead.contains(&standby.follower.incarnation) {
            return Some("the standby's process is dead");
        }
        if standby.lost.is_some_and(|at| now.since(at) >= LINK_LOST) {
            return Some("the link to the standby is down");
        }
        let waited = self.waiting.map(|(_, since)| now.since(since));
        if self.allowed(c).is_some()
            && waited.is_some_and(|w| w >= LAG_PATIENCE)
            && self.by_standby(c, now) < self.local(c)
        {
            return Some("the standby lacks as much as may be lost");
        }
        if waited.is_some_and(|w| w.as_millis() >= policy.return_wait_ms) {
            return Some("the standby did not answer within the return wait time");
        }
        None
    }

    /// The standby that should be in S and is not recorded yet.
    fn joinable(&self, c: &Common) -> Option<&Standby> {
        let policy = c.policy?;
        let standby = self.standby.as_ref()?;
        // What may be lost is not used up at once, else the standby would leave S as soon as it joined.
        let near = policy.allowance().map_or(NEAR_RECORDS, |most| most.commits / 2);
        let is_near = c.end.since(promised_lsn(c, &standby.report)) <= near;
        let fit = standby.lost.is_none() && standby.reported && !standby.failed && is_near;
        let joins = policy.names_standby() && !self.is_recorded(c, policy, &standby.follower);
        (fit && joins).then_some(standby)
    }

    /// Whether S holds this process with the class that the policy asks for.
    fn is_recorded(&self, c: &Common, policy: Policy, follower: &Follower) -> bool {
        let recorded = c.view.record().and_then(|record| record.sync.as_ref());
        self.joint == Some(follower.incarnation)
            && recorded.is_some_and(|sync| sync.class == class_of(policy))
    }

    fn write_next(&mut self, c: &mut Common, now: Moment, out: &mut Output) {
        if !c.is_free_to_write() || !c.data_path_ok || self.let_go || !self.opened {
            return;
        }
        if self.by_hand.is_some() {
            return self.write_bump(c, now, out);
        }
        let held = c.view.record().is_some_and(|r| r.is_held_by(c.me.incarnation));
        if !held {
            return;
        }
        if self.bump == Some(self.epoch.number) && self.has_authority(now) {
            self.bump = None; // Authority came back by a grant: the epoch goes on.
        }
        // With only a grant the Lease is renewed first: R12 needs the Lease confirmed.
        if self.bump.is_some() && (!self.has_authority(now) || now < self.lease_end) {
            return self.write_bump(c, now, out);
        }
        let Some(record) = c.view.record().map(LeaseRecord::successor) else { return };
        if !self.has_authority(now) || record.epoch != self.epoch.number {
            return;
        }
        // This epoch's first record is durable, and says so itself if something is missing before it.
        let lease_duration_ms = c.timing.lease().as_millis();
        let record = LeaseRecord { lease_duration_ms, lossy: false, ..record };
        if self.write_transfer(c, &record, now, out) {
            return;
        }
        if self.doubt || self.alone_because(c, now).is_some() {
            return self.write_solo(c, record, now, out);
        }
        if let Some(standby) = self.joinable(c) {
            let (follower, report) = (standby.follower.clone(), standby.report);
            if self.write_join(c, &record, (&follower, report), now, out) {
                return;
            }
        }
        if now >= self.next_renewal {
            self.send(c, WriteKind::Renew, record, now, out);
        }
    }

    fn send(
        &mut self,
        c: &mut Common,
        kind: WriteKind,
        record: LeaseRecord,
        now: Moment,
        out: &mut Output,
    ) {
        if kind.is_s_write() {
            // Not-yet-durable acknowledgements end when any S-write is sent (A2.6).
            self.joint = None;
        }
        self.next_renewal = now + c.timing.renew_every();
        c.write(kind, record, now, out);
    }

    fn write_solo(&mut self, c: &mut Common, record: LeaseRecord, now: Moment, out: &mut Output) {
        // What was acknowledged from memory must be on disk first, and no more may follow (A2.6).
        self.joint = None;
        let memory = c.policy.is_some_and(|p| p.durability == Durability::Memory);
        if memory && c.durable < c.acknowledged {
            out.sync_log |= !self.sync_asked;
            self.sync_asked = true;
            return;
        }
        self.send(c, WriteKind::SetSolo, LeaseRecord { sync: None, ..record }, now, out);
    }

    /// R16 in its order: stop acknowledging alone; wait for the standby; record it.
    fn write_join(
        &mut self,
        c: &mut Common,
        record: &LeaseRecord,
        (follower, report): (&Follower, Report),
        now: Moment,
        out: &mut Output,
    ) -> bool {
        if !is_listed(c, follower) {
            let record = admitting(c, record, follower);
            let kind = if record.sync == c.view.record().and_then(|r| r.sync.clone()) {
                WriteKind::Admit
            } else {
                WriteKind::SetSolo
            };
            self.send(c, kind, record, now, out);
            return true;
        }
        self.solo = false;
        if self.beyond(c, &report, now) < c.acknowledged {
            return false;
        }
        let Some(policy) = c.policy else { return false };
        if policy.durability == Durability::Memory
            && c.control.acked_beyond_fsync != Some(self.epoch.number)
        {
            c.control.acked_beyond_fsync = Some(self.epoch.number);
            out.persist = true;
        }
        let sync = StandbySync { standby: holder_of(follower), class: class_of(policy) };
        let record = LeaseRecord { sync: Some(sync), ..record.clone() };
        self.send(c, WriteKind::SetSync(follower.incarnation), record, now, out);
        true
    }

    fn write_transfer(
        &mut self,
        c: &mut Common,
        record: &LeaseRecord,
        now: Moment,
        out: &mut Output,
    ) -> bool {
        let Some(transfer) = &self.transfer else { return false };
        let all_acknowledged = c.acknowledged == c.end && c.durable == c.end;
        let (state, sync) = match &transfer.to {
            None if all_acknowledged => (LeaseState::Released, record.sync.clone()),
            Some(to) if all_acknowledged => {
                let Some(sync) = self.successor(c, to) else { return false };
                (LeaseState::Transferring { to: to.clone(), lsn: c.end }, Some(sync))
            }
            None | Some(_) => return false,
        };
        self.let_go = true;
        let record = LeaseRecord { state, sync, ..record.clone() };
        self.send(c, WriteKind::LetGo, record, now, out);
        true
    }

    /// The member to hand over to, once it has everything that was ever acknowledged: nothing is
    /// acknowledged any more (R22), so that it need not have been in S before.
    fn successor(&self, c: &Common, to: &MemberName) -> Option<StandbySync> {
        let standby = self.standby.as_ref().filter(|s| &s.follower.member == to)?;
        let has_all = standby.lost.is_none()
            && standby.reported
            && !standby.failed
            && standby.report.applied == c.end
            && is_listed(c, &standby.follower);
        let class = c.policy.map_or(SyncClass::Receipt, class_of);
        has_all.then(|| StandbySync { standby: holder_of(&standby.follower), class })
    }

    /// Opens a higher epoch without a restart (R12; and R7 with this very process as holder, or as the
    /// active that a person set).
    fn write_bump(&mut self, c: &mut Common, now: Moment, out: &mut Output) {
        let is_apart = !self.has_authority(now) || self.by_hand.is_some();
        let is_free = || {
            let automatic = c.is_automatic() || self.by_hand.is_some();
            let claim = may_candidate(&Candidate { automatic, ..c.candidate() }, now);
            claim.is_ok_and(|claim| claim.needs == Needs::Nothing)
        };
        if now < self.next_bump || is_apart && !is_free() {
            return;
        }
        if !self.bump_synced {
            // From here on nothing is acknowledged from memory, so one sync covers what was (A2.6).
            self.joint = None;
            out.sync_log |= !self.sync_asked;
            self.sync_asked = true;
            return;
        }
        let Some(record) = c.view.record().map(LeaseRecord::successor) else { return };
        self.bump_synced = false;
        self.next_bump = now + AGAIN;
        // R12: above what the follower promised, or it refuses the next one too.
        let refused = self.bump.map_or(Epoch::ZERO, Epoch::next);
        let epoch = c.promise(c.next_epoch().max(refused), out);
        let record = LeaseRecord {
            epoch: epoch.number,
            state: LeaseState::Held,
            holder: Some(c.me.clone()),
            lease_duration_ms: c.timing.lease().as_millis(),
            sync: None,
            lossy: false,
            ..record
        };
        self.send(c, WriteKind::Acquire(epoch), record, now, out);
    }

    /// A Lease write of this member ended.
    pub(crate) fn written(
        &mut self,
        c: &mut Common,
        write: &InFlight,
        outcome: WriteOutcome,
        now: Moment,
        out: &mut Output,
    ) -> After {
        match outcome {
            WriteOutcome::Confirmed(versioned) => {
                c.observe(Sight { versioned: *versioned, asked: Some(write.sent) }, now, out);
                self.confirmed(c, write, out)
            }
            WriteOutcome::Conflict => {
                out.lease_read = true;
                self.unconfirmed(write)
            }
            WriteOutcome::Refused(_) => self.unconfirmed(write),
            WriteOutcome::Unknown(_) => {
                out.lease_read = true;
                self.doubt |= write.kind.is_s_write();
                self.unconfirmed(write)
            }
        }
    }

    fn unconfirmed(&mut self, write: &InFlight) -> After {
        if write.kind == WriteKind::LetGo {
            return After::StepDown("the hand-over was sent and not confirmed");
        }
        After::Stay
    }

    fn confirmed(&mut self, c: &mut Common, write: &InFlight, out: &mut Output) -> After {
        self.lease_end = self.lease_end.max(write.timing.authority_end(write.sent));
        match &write.kind {
            WriteKind::Renew | WriteKind::Admit => {}
            WriteKind::SetSolo => {
                self.doubt = false;
                if !self.solo {
                    self.solo = true;
                    out.events.push(Event::Alone("recorded on the Lease"));
                }
            }
            WriteKind::SetSync(incarnation) => {
                self.joint = Some(*incarnation);
                if let Some(sync) = c.view.record().and_then(|r| r.sync.clone()) {
                    out.events.push(Event::InSync(sync));
                }
            }
            WriteKind::Acquire(epoch) => self.reopen(*epoch, out),
            WriteKind::LetGo => {
                out.events.push(Event::HandedOver);
                out.end_sessions = Some(EndReason::HandedOver);
                return After::StepDown("the role was handed over");
            }
        }
        After::Stay
    }

    /// A new epoch of the same process: S = {me}; the standby must attach again.
    fn reopen(&mut self, epoch: EpochId, out: &mut Output) {
        let lease_end = self.lease_end;
        *self = Self { sessions_ended: false, ..Self::new(epoch, lease_end) };
        out.begin_epoch = Some(Opening { epoch, is_lossy: false });
    }
}

/// The class that S names under this policy.
fn class_of(policy: Policy) -> SyncClass {
    match (policy.return_service, policy.allowance()) {
        (_, Some(most)) => SyncClass::Async(most),
        (ReturnService::Twosafe, None) => SyncClass::Twosafe,
        (ReturnService::Receipt | ReturnService::NoReturn, None) => SyncClass::Receipt,
    }
}

/// What the standby's positions promise under the pair's service and durability (R15).
fn promised_lsn(c: &Common, report: &Report) -> Lsn {
    let Some(policy) = c.policy else { return Lsn::ZERO };
    let by_service = match policy.return_service {
        ReturnService::Twosafe => report.applied,
        ReturnService::Receipt | ReturnService::NoReturn => report.received,
    };
    match policy.durability {
        Durability::BothDisks => by_service.min(report.durable),
        Durability::LocalDisk | Durability::Memory => by_service,
    }
}

fn is_listed(c: &Common, follower: &Follower) -> bool {
    c.view.trusted().is_some_and(|r| r.is_voter(&follower.member, follower.store))
}

fn holder_of(follower: &Follower) -> Holder {
    Holder {
        member: follower.member.clone(),
        store: follower.store,
        incarnation: follower.incarnation,
    }
}

/// The record with `follower`'s store as the other voter. A standby of S that loses its vote leaves S.
fn admitting(c: &Common, record: &LeaseRecord, follower: &Follower) -> LeaseRecord {
    let me = Voter { member: c.me.member.clone(), store: c.me.store };
    let other = Voter { member: follower.member.clone(), store: follower.store };
    let sync = record.sync.clone().filter(|s| s.standby.store == follower.store);
    LeaseRecord { voters: vec![me, other], sync, ..record.clone() }
}
