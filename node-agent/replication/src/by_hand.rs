//! An active by a person's word: `ttRepStateSet('ACTIVE')` under `mode: Paused`, where authority is a
//! person (design §3). It opens an epoch above every one it knows and serves without the Lease, for as long
//! as the mode stays.
//!
//! **Two actives** are what a person may make this way. They find each other when they can: the one set by
//! hand asks the other voter again and again, and of two the higher epoch stays, of equal ones the one that
//! was set later; the other ends its sessions and starts again, and what it alone has is trapped as any
//! tail is (R19). Then the Lease is free, and the survivor takes it, as after a failover with accepted loss
//! (R13d). Under `mode: Automatic` nobody is active this way: no rule of part B knows it.

use crate::active::{Active, After};
use crate::common::Common;
use crate::following::Following;
use crate::output::{Event, Output};
use crate::{FollowerKind, LogEnd, PledgeRequest};
use understudy_authority::{Veto, Word, is_sound};
use understudy_types::{EpochId, MemberName, Moment, Span};

/// Time between two questions to the other voter.
const ASK_AGAIN: Span = Span::seconds(1);

/// What an active by a person's word keeps of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByHand {
    /// When the person said it: milliseconds since 1970 by this machine's clock.
    set_at_ms: u64,
    is_asking: bool,
    next_ask: Moment,
}

/// Why a person cannot set this member active.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSettable {
    /// `mode: Automatic`: the operator and the members decide.
    #[error("the pair is managed: its members decide who is active")]
    Managed,
    /// It serves without a pair.
    #[error("this database has no pair")]
    NoPair,
    /// It is active.
    #[error("this member is active already")]
    IsActive,
    /// Only voters become active.
    #[error("this member has no vote")]
    NoVote,
    /// An active answers.
    #[error("{0} is active, and answers")]
    HearsActive(MemberName),
    /// The store must not be promoted; why.
    #[error("this store cannot be promoted: {0}")]
    Unfit(String),
    /// A write of the Lease is on its way: its answer decides.
    #[error("this member runs for active by itself at this moment")]
    Runs,
}

impl Following {
    /// Whether a person may set this member active now.
    pub(crate) fn may_be_set(&self, c: &Common, now: Moment) -> Result<(), NotSettable> {
        if c.policy.is_none_or(|policy| policy.automatic) {
            return Err(NotSettable::Managed);
        }
        let record = c.view.record().filter(|_| self.kind == FollowerKind::Standby);
        let Some(record) = record else { return Err(NotSettable::NoVote) };
        is_sound(&c.candidate(), record).map_err(|veto| match veto {
            Veto::NotVoter => NotSettable::NoVote,
            Veto::Unfit(why) => NotSettable::Unfit(why),
            other => NotSettable::Unfit(other.to_string()),
        })?;
        let hears = c.heard_serving.is_some_and(|at| now < at + c.timing.lease());
        match &record.holder {
            Some(active) if hears && self.feeder().is_some() => {
                Err(NotSettable::HearsActive(active.member.clone()))
            }
            _ if c.in_flight.is_some() || self.set_at_ms.is_some() => Err(NotSettable::Runs),
            Some(_) | None => Ok(()),
        }
    }

    /// From here no frame is accepted: what is brought to disk now is all that the epoch begins with.
    pub(crate) fn set_by_hand(&mut self, c: &mut Common, at_ms: u64, out: &mut Output) {
        self.end_candidacy("a person sets it active", out);
        self.set_at_ms = Some(at_ms);
        c.hear_person();
        out.events.push(Event::SetByPerson);
        out.sync_log = true;
    }

    /// The whole log is on disk: the epoch that a person asked for, promised.
    pub(crate) fn synced_by_hand(
        &self,
        c: &mut Common,
        end: LogEnd,
        out: &mut Output,
    ) -> Option<Active> {
        let set_at_ms = self.set_at_ms?;
        if end.lsn < c.end {
            out.sync_log = true;
            return None;
        }
        let epoch = c.promise(c.next_epoch(), out);
        let by_hand = ByHand { set_at_ms, is_asking: false, next_ask: Moment::ZERO };
        Some(Active::by_hand(epoch, by_hand))
    }
}

impl Common {
    /// The person's word, for the epoch that the Lease has now: this member goes on, whatever it lacks.
    fn hear_person(&mut self) {
        let Some(epoch) = self.view.record().map(|record| record.epoch) else { return };
        self.word = Some(Word { epoch, accepts_loss: true });
    }

    /// Whether the Lease says that this very process has every acknowledged commit.
    pub(crate) fn is_recorded(&self) -> bool {
        let sync = self.view.record().and_then(|record| record.sync.as_ref());
        sync.is_some_and(|sync| sync.standby == self.me)
    }
}

impl Active {
    /// Asks the other voter to step down if it is active too; it answers when it can.
    pub(crate) fn ask_to_yield(&mut self, c: &Common, now: Moment, out: &mut Output) {
        let (epoch, is_opened) = (self.epoch, self.is_opened());
        let Some(by_hand) = &mut self.by_hand else { return };
        if !is_opened || by_hand.is_asking || now < by_hand.next_ask {
            return;
        }
        by_hand.is_asking = true;
        out.ask = Some(PledgeRequest {
            dbid: c.control.dbid,
            epoch,
            candidate: c.me.clone(),
            compare: None,
            set_at_ms: Some(by_hand.set_at_ms),
        });
    }

    /// It answered, or could not be reached.
    pub(crate) fn was_answered(&mut self, epoch: EpochId, now: Moment) {
        if let Some(by_hand) = self.by_hand.as_mut().filter(|_| epoch == self.epoch) {
            by_hand.is_asking = false;
            by_hand.next_ask = now + ASK_AGAIN;
        }
    }

    /// A candidate asks, or one whom a person set active: of two actives under `mode: Paused` the higher
    /// epoch stays, of equal ones the later word.
    pub(crate) fn asked(&self, c: &Common, request: &PledgeRequest) -> After {
        let votes = c.view.record().is_some_and(|record| {
            let candidate = &request.candidate;
            record.is_voter(&candidate.member, candidate.store) && candidate.store != c.me.store
        });
        let is_ours = request.dbid.is_some() && request.dbid == c.control.dbid;
        let is_paused = c.policy.is_some_and(|policy| !policy.automatic);
        let own = (self.epoch.number, self.by_hand.map(|by_hand| by_hand.set_at_ms));
        let is_later = (request.epoch.number, request.set_at_ms) > own;
        if request.set_at_ms.is_some() && votes && is_ours && is_paused && is_later {
            return After::StepDown("a person set the other member active later");
        }
        After::Stay
    }

    /// Whether the Lease lets an active by a person's word be. The word holds for every epoch below its own.
    pub(crate) fn observed_by_hand(&self, c: &mut Common) -> After {
        let is_above = c.view.record().is_some_and(|record| {
            record.epoch > self.epoch.number && !record.is_held_by(c.me.incarnation)
        });
        if is_above {
            return After::StepDown("a higher epoch is on the Lease");
        }
        c.hear_person();
        After::Stay
    }
}
