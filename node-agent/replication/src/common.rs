//! What a member knows and remembers in every role.

use crate::input::Policy;
use crate::output::{LeaseWrite, Output};
use understudy_authority::{
    Candidate, Claim, ControlState, GrantsBefore, Holder, LeaseRecord, LeaseSeen, LeaseView, Sight,
    Timing, Veto, Word, may_candidate,
};
use understudy_types::{Epoch, EpochId, FailoverPolicy, Incarnation, Lsn, Moment, Span};

/// What a Lease write under way would do once confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteKind {
    /// The same record again: "I serve".
    Renew,
    /// A new store gets a vote; S is unchanged.
    Admit,
    /// S = {me}.
    SetSolo,
    /// S = {me, this process}.
    SetSync(Incarnation),
    /// A new epoch.
    Acquire(EpochId),
    /// Hand over, or let go.
    LetGo,
}

impl WriteKind {
    /// Whether it changes S, so that its unknown outcome is in doubt until a later write is
    /// confirmed (R15).
    pub(crate) fn is_s_write(&self) -> bool {
        match self {
            Self::SetSolo | Self::SetSync(_) | Self::Acquire(_) | Self::LetGo => true,
            Self::Renew | Self::Admit => false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) ticket: u64,
    pub(crate) sent: Moment,
    /// The times in force when it was sent: what the record carries is what others count by.
    pub(crate) timing: Timing,
    pub(crate) kind: WriteKind,
}

/// Role-independent state. Fields are documented where they are not a rule's own word.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) me: Holder,
    pub(crate) timing: Timing,
    /// `None` until the scheme is known; then nothing is automatic.
    pub(crate) policy: Option<Policy>,
    pub(crate) control: ControlState,
    pub(crate) view: LeaseView,
    pub(crate) proven_dead: Vec<Incarnation>,
    pub(crate) unfit: Option<String>,
    pub(crate) data_path_ok: bool,
    pub(crate) started: Moment,
    granted_before: GrantsBefore,
    /// Last record in the log.
    pub(crate) end: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) acknowledged: Lsn,
    pub(crate) heard_serving: Option<Moment>,
    /// End of the last grant given (R5: its decision + F·T).
    pub(crate) grants_out: Moment,
    /// Who got it.
    pub(crate) granted: Option<Incarnation>,
    pub(crate) yields_until: Moment,
    /// What a person said last of a failover.
    pub(crate) word: Option<Word>,
    pub(crate) in_flight: Option<InFlight>,
    next_ticket: u64,
    last_read: Option<Moment>,
}

/// How many proofs of death are remembered; older ones concern epochs long closed.
const PROOFS_MAX: usize = 16;
/// Shortest time between two attempts at a new epoch: each costs an fsync and a promise.
pub(crate) const AGAIN: Span = Span::millis(250);
/// Shortest time between two consistent reads of the Lease while something waits for one.
const READ_EVERY: Span = Span::millis(250);

impl Common {
    pub(crate) fn new(me: Holder, timing: Timing, control: ControlState, now: Moment) -> Self {
        let view = LeaseView::new(control.lease_seen);
        let granted_before = GrantsBefore::of(&control);
        Self {
            me,
            timing,
            policy: None,
            control,
            view,
            proven_dead: Vec::new(),
            unfit: None,
            data_path_ok: true,
            started: now,
            granted_before,
            end: Lsn::ZERO,
            durable: Lsn::ZERO,
            acknowledged: Lsn::ZERO,
            heard_serving: None,
            grants_out: Moment::ZERO,
            granted: None,
            yields_until: Moment::ZERO,
            word: None,
            in_flight: None,
            next_ticket: 1,
            last_read: None,
        }
    }

    /// Takes a look at the Lease; persists what later decisions rely on (R1).
    pub(crate) fn observe(&mut self, sight: Sight, now: Moment, out: &mut Output) {
        let before = self.view.record().cloned();
        if !self.view.observe(sight, now) {
            return;
        }
        let Some(record) = self.view.record() else { return };
        let bare_renewal = before.is_some_and(|b| {
            b.epoch == record.epoch
                && b.state == record.state
                && b.voters == record.voters
                && b.sync == record.sync
        });
        let longest = Span::millis(record.lease_duration_ms).max(self.control.lease_longest);
        if !bare_renewal || longest > self.control.lease_longest {
            self.control.lease_longest = longest;
            self.control.lease_seen = self.view.highest();
            out.persist = true;
        }
    }

    /// The dead use no grant: the next process of this store need not wait for theirs (R6).
    pub(crate) fn prove_dead(&mut self, incarnation: Incarnation, out: &mut Output) {
        out.persist |= self.control.forget_grant(incarnation);
        if incarnation == self.me.incarnation || self.proven_dead.contains(&incarnation) {
            return;
        }
        if self.proven_dead.len() == PROOFS_MAX {
            self.proven_dead.remove(0);
        }
        self.proven_dead.push(incarnation);
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.timing = policy.timing;
        self.policy = Some(policy);
    }

    pub(crate) fn is_automatic(&self) -> bool {
        self.policy.is_some_and(|p| p.automatic)
    }

    pub(crate) fn candidate(&self) -> Candidate<'_> {
        Candidate {
            me: &self.me,
            control: &self.control,
            view: &self.view,
            timing: self.timing,
            started: self.started,
            granted_before: &self.granted_before,
            heard_serving: self.heard_serving,
            proven_dead: &self.proven_dead,
            unfit: self.unfit.as_deref().or(if self.data_path_ok {
                None
            } else {
                Some("its log does not answer")
            }),
            automatic: self.is_automatic(),
            yields_until: self.yields_until,
            failover: self.policy.map_or(FailoverPolicy::Manual, |p| p.failover),
            word: self.word,
        }
    }

    pub(crate) fn may_candidate(&self, now: Moment) -> Result<Claim, Veto> {
        may_candidate(&self.candidate(), now)
    }

    /// Whether no Lease write is under way.
    pub(crate) fn is_free_to_write(&self) -> bool {
        self.in_flight.is_none() && !self.view.is_regressed()
    }

    /// Sends `record` against the newest version seen. The caller judged that very version.
    pub(crate) fn write(
        &mut self,
        kind: WriteKind,
        record: LeaseRecord,
        now: Moment,
        out: &mut Output,
    ) {
        assert!(self.in_flight.is_none(), "one Lease write is under way at a time");
        let base = self.view.current().expect("a write follows a look").version.clone();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.in_flight = Some(InFlight { ticket, sent: now, timing: self.timing, kind });
        out.lease_write = Some(LeaseWrite { ticket, base, record });
    }

    /// The write under way gives no authority by its answer: the clock that it was sent by jumped.
    pub(crate) fn distrust_write(&mut self) {
        if let Some(write) = &mut self.in_flight {
            write.sent = Moment::ZERO;
        }
    }

    /// Takes the write with this ticket off the books.
    pub(crate) fn ended_write(&mut self, ticket: u64) -> Option<InFlight> {
        if self.in_flight.as_ref().is_some_and(|w| w.ticket == ticket) {
            self.in_flight.take()
        } else {
            None
        }
    }

    /// Asks for a consistent read, not more often than every [`READ_EVERY`].
    pub(crate) fn read(&mut self, now: Moment, out: &mut Output) {
        if self.last_read.is_none_or(|at| now >= at + READ_EVERY) {
            self.last_read = Some(now);
            out.lease_read = true;
        }
    }

    /// One above everything known.
    pub(crate) fn next_epoch(&self) -> Epoch {
        self.view.epoch().max(self.control.promised.number).next()
    }

    /// The promise of a candidacy, at least [`Common::next_epoch`], by this process (R8).
    pub(crate) fn promise(&mut self, number: Epoch, out: &mut Output) -> EpochId {
        let epoch = EpochId { number, author: self.me.incarnation.id };
        self.control.raise_promise(epoch);
        self.control.lease_seen = LeaseSeen::max(self.control.lease_seen, self.view.highest());
        out.persist = true;
        epoch
    }
}
