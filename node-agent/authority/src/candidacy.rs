//! The one veto file: may this member run for active, and may its store be promoted (R7, R11, R13)?
//! Agent, operator, model and simulation ask here and nowhere else.

use crate::{ControlState, Holder, LeaseRecord, LeaseState, LeaseView, SyncClass, Timing};
use std::fmt;
use understudy_types::{Epoch, FailoverPolicy, Incarnation, MemberName, Moment, Span};

/// All that a candidacy is judged on.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The would-be candidate.
    pub me: &'a Holder,
    /// Its control file.
    pub control: &'a ControlState,
    /// What it knows of the Lease.
    pub view: &'a LeaseView,
    /// The pair's times.
    pub timing: Timing,
    /// When this process started.
    pub started: Moment,
    /// The grants that earlier processes of this store gave; those of this one are waited for apart (R8).
    pub granted_before: &'a GrantsBefore,
    /// When it last received a heartbeat in which the holder said `serving`.
    pub heard_serving: Option<Moment>,
    /// Processes that are proven dead (R10).
    pub proven_dead: &'a [Incarnation],
    /// Why the store must not be promoted at this time: unfinished duplicate, failed apply, damage.
    pub unfit: Option<&'a str>,
    /// Whether agents may become active without a person.
    pub automatic: bool,
    /// Until when it yields after a lapse of its own authority (R4).
    pub yields_until: Moment,
    /// Who decides that another member becomes active.
    pub failover: FailoverPolicy,
    /// What a person said last.
    pub word: Option<Word>,
}

/// A person's word for a failover. It holds for the epoch that the person saw on the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// That epoch.
    pub epoch: Epoch,
    /// Commits may be lost (R13d).
    pub accepts_loss: bool,
}

impl Word {
    /// The word as it is after `next` was said: for one epoch an accepted loss stays accepted.
    #[must_use]
    pub fn and(self, next: Word) -> Word {
        let was_accepted = self.epoch == next.epoch && self.accepts_loss;
        Word { accepts_loss: next.accepts_loss || was_accepted, ..next }
    }
}

/// What a process finds in its control file about grants, at its start (R6).
#[derive(Debug, Clone, Default)]
pub struct GrantsBefore {
    /// Who was given any.
    pub to: Vec<Incarnation>,
    /// The longest of them.
    pub longest: Span,
}

impl GrantsBefore {
    /// As the control file says, before this process changes it.
    #[must_use]
    pub fn of(control: &ControlState) -> Self {
        Self { to: control.granted_to.clone(), longest: control.grant_longest }
    }
}

/// On what ground the Lease is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// No new version for F·D + g, confirmed by a consistent read.
    Expired,
    /// The holder's process is proven dead.
    ProvenDead,
    /// The holder let go by its own write, or its parent did for it.
    Released,
    /// The holder hands over to this member.
    Transferred,
    /// This very process holds it, and lapsed.
    Own,
    /// An earlier process of this member holds it, without a new version for F·D + g (R11).
    Replaced,
}

impl Ground {
    /// Whether the holder can have no authority left, so that no grant has to run out (R8).
    #[must_use]
    pub const fn ends_authority(self) -> bool {
        match self {
            Self::ProvenDead | Self::Released | Self::Transferred | Self::Own => true,
            Self::Expired | Self::Replaced => false,
        }
    }
}

/// What a candidacy needs of the other voter before its compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Its durable promise of the new epoch: a holder that may live gets no grant any more (R11).
    Promise,
    /// Its promise, and a log that ends no later than the candidate's (R13c).
    Comparison,
}

/// A candidacy that may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Why the Lease is free.
    pub ground: Ground,
    /// What is needed of the other voter.
    pub needs: Needs,
    /// What may be missing here.
    pub loss: Loss,
}

/// Which acknowledged commits a candidate may be without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// None.
    Nothing,
    /// So many as the Lease says of a standby that no commit waits for (A2.12).
    Bounded,
    /// Any: a person accepted it (R13d).
    Accepted,
}

/// Why a member may not candidate now. The text is shown in status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Veto {
    /// `mode: Paused`, or the scheme is not known yet.
    NotAutomatic,
    /// `failover.policy: Manual`: a person has not said that this member shall take over.
    AwaitsWord {
        /// Epoch that the word must name.
        epoch: Epoch,
    },
    /// The Lease was not seen yet.
    LeaseUnknown,
    /// The Lease is older than what was seen before (R21).
    LeaseRegressed,
    /// There is no database yet.
    Uninitialised,
    /// This member is another database's.
    WrongDatabase,
    /// This store has no vote.
    NotVoter,
    /// The store must not be promoted; why.
    Unfit(String),
    /// Grants of an earlier life of this store may be in use (R6).
    Blackout {
        /// Until when.
        until: Moment,
    },
    /// Authority lapsed; the other voter goes first (R4).
    Yielding {
        /// Until when.
        until: Moment,
    },
    /// The Lease is held and not expired.
    Held {
        /// By whom.
        by: MemberName,
        /// When it may be called expired.
        until: Moment,
    },
    /// The Lease is being handed to another member.
    TransferringTo(MemberName),
    /// The holder says that it serves (R7).
    HearsServing {
        /// Until when that counts.
        until: Moment,
    },
    /// The other voter did not give the word that is needed (R11, R13c).
    NotPledged(String),
    /// S does not contain this process: acknowledged commits may be missing here (R13).
    NotInSync {
        /// The last holder, who has them.
        holder: MemberName,
    },
    /// The recorded standby goes first for one D (R13b).
    StandbyFirst {
        /// Until when.
        until: Moment,
    },
}

impl fmt::Display for Veto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAutomatic => f.write_str("mode is Paused: a person decides"),
            Self::AwaitsWord { epoch } => {
                write!(f, "failover.policy is Manual: a person says who goes on after epoch {epoch}")
            }
            Self::LeaseUnknown => f.write_str("the Lease was not read yet"),
            Self::LeaseRegressed => f.write_str(
                "the Lease is older than what this member has seen: no candidacy until it is re-created above every known epoch",
            ),
            Self::Uninitialised => f.write_str("there is no database yet"),
            Self::WrongDatabase => f.write_str("the Lease names another database"),
            Self::NotVoter => f.write_str("this store is not a listed voter"),
            Self::Unfit(why) => write!(f, "this store cannot be promoted: {why}"),
            Self::Blackout { .. } => {
                f.write_str("grants of an earlier life of this store may still be in use")
            }
            Self::Yielding { .. } => f.write_str("authority lapsed: the other voter goes first"),
            Self::Held { by, .. } => write!(f, "the Lease is held by {by}"),
            Self::TransferringTo(to) => write!(f, "the Lease is being handed to {to}"),
            Self::HearsServing { .. } => f.write_str("the active says that it serves"),
            Self::NotPledged(why) => {
                write!(f, "the other voter's word is needed and was not given: {why}")
            }
            Self::NotInSync { holder } => write!(
                f,
                "this store is not recorded in sync: acknowledged commits may be on {holder} only"
            ),
            Self::StandbyFirst { .. } => f.write_str("the recorded standby goes first"),
        }
    }
}

/// Whether a candidacy may begin at `now`, and on what ground (R7).
///
/// # Errors
/// The first veto that stands.
pub fn may_candidate(candidate: &Candidate<'_>, now: Moment) -> Result<Claim, Veto> {
    if !candidate.automatic {
        return Err(Veto::NotAutomatic);
    }
    let record = candidate.view.record().ok_or(Veto::LeaseUnknown)?;
    if candidate.view.is_regressed() {
        return Err(Veto::LeaseRegressed);
    }
    let ground = ground(candidate, record)?;
    if awaits_word(candidate, record, ground) {
        return Err(Veto::AwaitsWord { epoch: record.epoch });
    }
    let blackout = blackout_until(candidate);
    if now < blackout {
        return Err(Veto::Blackout { until: blackout });
    }
    if now < candidate.yields_until {
        return Err(Veto::Yielding { until: candidate.yields_until });
    }
    if matches!(ground, Ground::Expired | Ground::Replaced)
        && let Some(heard) = candidate.heard_serving
    {
        let until = heard + candidate.timing.lease();
        if now < until {
            return Err(Veto::HearsServing { until });
        }
    }
    let (needs, loss) = is_eligible(candidate, record, now)?;
    let needs = match (needs, ground) {
        (Needs::Nothing, Ground::Replaced) => Needs::Promise,
        (needs, _) => needs,
    };
    Ok(Claim { ground, needs, loss })
}

/// Under Manual the role stays with its member until a person moves it.
fn awaits_word(candidate: &Candidate<'_>, record: &LeaseRecord, ground: Ground) -> bool {
    let is_own = record.holder.as_ref().is_some_and(|h| h.member == candidate.me.member);
    let is_planned = ground == Ground::Transferred;
    candidate.failover == FailoverPolicy::Manual
        && !is_own
        && !is_planned
        && candidate.word.is_none_or(|word| word.epoch != record.epoch)
}

/// Until when this process neither grants, candidates nor promises (R6).
#[must_use]
pub fn blackout_until(candidate: &Candidate<'_>) -> Moment {
    let before = candidate.granted_before;
    let released = candidate.view.record().is_some_and(|r| match r.state {
        LeaseState::Released | LeaseState::Transferring { .. } => true,
        LeaseState::Uninitialised | LeaseState::Initialising { .. } | LeaseState::Held => false,
    });
    let is_over = |inc: &Incarnation| {
        candidate.proven_dead.contains(inc)
            || released
                && candidate
                    .view
                    .record()
                    .and_then(|r| r.holder.as_ref())
                    .is_some_and(|h| h.incarnation == *inc)
    };
    if before.to.iter().all(is_over) {
        return Moment::ZERO;
    }
    candidate.started + Timing::stretched(before.longest)
}

/// Whether a held Lease names this process in an epoch that it never promised as its own: a person, or
/// something else that is no member, wrote it there (A1.16). A process that acquired promised before.
fn is_foreign_hand(candidate: &Candidate<'_>, record: &LeaseRecord) -> bool {
    let promised = candidate.control.promised;
    let is_mine = promised.author == candidate.me.incarnation.id && promised.number >= record.epoch;
    record.is_held_by(candidate.me.incarnation) && !is_mine
}

fn ground(candidate: &Candidate<'_>, record: &LeaseRecord) -> Result<Ground, Veto> {
    let holder = match &record.state {
        LeaseState::Uninitialised | LeaseState::Initialising { .. } => {
            return Err(Veto::Uninitialised);
        }
        LeaseState::Released => return Ok(Ground::Released),
        LeaseState::Transferring { to, .. } if *to == candidate.me.member => {
            return Ok(Ground::Transferred);
        }
        LeaseState::Transferring { to, .. } => {
            let to = to.clone();
            return if candidate.view.is_expired() {
                Ok(Ground::Expired)
            } else {
                Err(Veto::TransferringTo(to))
            };
        }
        LeaseState::Held => record.holder.as_ref().ok_or(Veto::Uninitialised)?,
    };
    if holder.incarnation == candidate.me.incarnation && !is_foreign_hand(candidate, record) {
        return Ok(Ground::Own);
    }
    if candidate.proven_dead.contains(&holder.incarnation) {
        return Ok(Ground::ProvenDead);
    }
    if candidate.view.is_expired() {
        let is_twin = holder.member == candidate.me.member;
        return Ok(if is_twin { Ground::Replaced } else { Ground::Expired });
    }
    Err(Veto::Held { by: holder.member.clone(), until: candidate.view.expiry() })
}

/// R13d: the word holds for the epoch that the person saw, and skips R13 (a) to (c) alone: the holder's
/// authority must be over, and the store must be sound, as ever.
fn accepts_loss(candidate: &Candidate<'_>, record: &LeaseRecord) -> bool {
    candidate.word.is_some_and(|word| word.accepts_loss && word.epoch == record.epoch)
}

/// Whether the store is one of this database, has a vote, and holds what it should (R13's *never*).
///
/// # Errors
/// The first veto that stands, whoever asks for the promotion.
pub fn is_sound(candidate: &Candidate<'_>, record: &LeaseRecord) -> Result<(), Veto> {
    let me = candidate.me;
    if record.dbid != candidate.control.dbid || record.dbid.is_none() {
        return Err(Veto::WrongDatabase);
    }
    if !record.is_voter(&me.member, me.store) {
        return Err(Veto::NotVoter);
    }
    if candidate.control.poisoned {
        return Err(Veto::Unfit("a write of its log failed".into()));
    }
    candidate.unfit.map_or(Ok(()), |why| Err(Veto::Unfit(why.into())))
}

/// R13 (a) to (d).
fn is_eligible(
    candidate: &Candidate<'_>,
    record: &LeaseRecord,
    now: Moment,
) -> Result<(Needs, Loss), Veto> {
    is_sound(candidate, record)?;
    let me = candidate.me;
    let recorded = record.sync.as_ref().map(|s| &s.standby);
    if let Some(sync) = record.sync.as_ref().filter(|sync| sync.standby == *me) {
        return Ok((Needs::Nothing, loss_of(record, sync.class)));
    }
    if accepts_loss(candidate, record) {
        return Ok((Needs::Nothing, Loss::Accepted));
    }
    let holder = record.holder.as_ref().ok_or(Veto::Uninitialised)?;
    let is_last_holder = holder.member == me.member && holder.store == me.store;
    let has_all = is_last_holder
        && !is_foreign_hand(candidate, record)
        && (holder.incarnation == me.incarnation
            || recorded.is_none()
            || candidate.control.acked_beyond_fsync != Some(record.epoch));
    if !has_all {
        return Ok((can_compare(me, record, holder)?, Loss::Nothing));
    }
    if recorded.is_some_and(|standby| !candidate.proven_dead.contains(&standby.incarnation)) {
        let until = candidate.started + candidate.timing.lease();
        if now < until {
            return Err(Veto::StandbyFirst { until });
        }
    }
    Ok((Needs::Nothing, Loss::Nothing))
}

/// What the recorded standby may be without. A hand-over waited until it had everything (R22).
fn loss_of(record: &LeaseRecord, class: SyncClass) -> Loss {
    match (class, &record.state) {
        (SyncClass::Receipt | SyncClass::Twosafe, _)
        | (SyncClass::Async(_), LeaseState::Transferring { .. }) => Loss::Nothing,
        (
            SyncClass::Async(_),
            LeaseState::Uninitialised
            | LeaseState::Initialising { .. }
            | LeaseState::Held
            | LeaseState::Released,
        ) => Loss::Bounded,
    }
}

/// R13c asks every other member of S; a store that has no vote any more cannot answer for it.
fn can_compare(me: &Holder, record: &LeaseRecord, holder: &Holder) -> Result<Needs, Veto> {
    let recorded = record.sync.as_ref().map(|s| &s.standby);
    let missing = std::iter::once(holder)
        .chain(recorded)
        .find(|other| other.store != me.store && !record.is_voter(&other.member, other.store));
    match missing {
        None => Ok(Needs::Comparison),
        Some(other) => Err(Veto::NotInSync { holder: other.member.clone() }),
    }
}

#[cfg(test)]
#[path = "candidacy_tests.rs"]
mod tests;
