//! Everything that a plan may ask for. A closed list: what is not here, the operator never does.
//! There is no "promote": a request to an agent is never an act of authority (A1.1).

use std::fmt;
use understudy_agent_api::DeathReport;
use understudy_authority::{Holder, LeaseRecord};
use understudy_types::{Epoch, MemberName};

/// Whether a member may vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// May become active.
    Voter,
    /// Follows only.
    Subscriber,
}

/// What a person said of a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonsWord {
    /// Nothing.
    None,
    /// The other member shall go on (`failover.policy: Manual`).
    Asks,
    /// It shall, and commits that are missing there are given up (R13d).
    AcceptsLoss,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes the pair's Lease (R20): only when no database of this pair was ever seen.
    CreateLease {
        /// The record to begin with.
        record: LeaseRecord,
    },
    /// Names the one initialiser by compare-and-swap on the version that was judged (R20).
    NameInitialiser {
        /// The whole next record.
        record: LeaseRecord,
        /// Whom it names.
        initialiser: Holder,
    },
    /// Gives the third voter its memory back, by what both stores know: makes the Lease again, or writes
    /// over the one that went back in time (R21).
    ReinstateLease {
        /// The whole record: Released, above every known epoch.
        record: LeaseRecord,
    },
    /// Makes the member's volumes and pod where they are absent.
    CreateMember {
        /// The member.
        member: MemberName,
        /// Voter or subscriber.
        kind: Kind,
    },
    /// Deletes a pod, and only the one judged.
    DeletePod {
        /// The member.
        member: MemberName,
        /// Its UID.
        uid: String,
        /// Why, for the event.
        why: &'static str,
    },
    /// Deletes the volumes of a subscriber: they hold nothing that the pair does not.
    DeleteSubscriberVolumes {
        /// The subscriber.
        member: MemberName,
    },
    /// Takes a voter whose volume is gone out of the pair; what is left of it stays.
    RetireMember {
        /// The voter.
        member: MemberName,
    },
    /// Sends the scheme to an agent that holds an older one.
    SendScheme {
        /// The agent's member.
        member: MemberName,
        /// Version to be sent.
        version: u64,
    },
    /// Offers a proof of death (R10).
    OfferDeath {
        /// Who is told.
        to: MemberName,
        /// The proof.
        report: DeathReport,
    },
    /// Asks a voter to consider a candidacy at once.
    RequestCandidacy {
        /// The voter.
        member: MemberName,
        /// Epoch on the Lease that was judged.
        epoch: Epoch,
        /// Why.
        reason: String,
        /// What a person said of that epoch.
        word: PersonsWord,
    },
    /// Asks the active to hand over (R22).
    RequestTransfer {
        /// The active.
        from: MemberName,
        /// The standby.
        to: MemberName,
        /// Epoch of the active.
        epoch: Epoch,
    },
    /// Notes the database on a volume, so that a later pair of this name can check it.
    NoteDatabase {
        /// The member.
        member: MemberName,
        /// The database.
        dbid: String,
    },
}

impl Action {
    /// Whether it may end a time without writes.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            Action::OfferDeath { .. } | Action::RequestCandidacy { .. } => true,
            Action::CreateLease { .. }
            | Action::NameInitialiser { .. }
            | Action::ReinstateLease { .. }
            | Action::CreateMember { .. }
            | Action::DeletePod { .. }
            | Action::DeleteSubscriberVolumes { .. }
            | Action::RetireMember { .. }
            | Action::SendScheme { .. }
            | Action::RequestTransfer { .. }
            | Action::NoteDatabase { .. } => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateLease { .. } => write!(f, "create-lease"),
            Action::NameInitialiser { initialiser, .. } => {
                write!(f, "name-initialiser {}", initialiser.member)
            }
            Action::ReinstateLease { record } => {
                let holder = record.holder.as_ref().map_or("nobody", |h| h.member.as_str());
                write!(f, "reinstate-lease epoch={} last-holder={holder}", record.epoch)
            }
            Action::CreateMember { member, kind: Kind::Voter } => {
                write!(f, "create-voter {member}")
            }
            Action::CreateMember { member, kind: Kind::Subscriber } => {
                write!(f, "create-subscriber {member}")
            }
            Action::DeletePod { member, why, .. } => write!(f, "delete-pod {member} ({why})"),
            Action::DeleteSubscriberVolumes { member } => write!(f, "delete-volumes {member}"),
            Action::RetireMember { member } => write!(f, "retire {member}"),
            Action::SendScheme { member, .. } => write!(f, "send-scheme {member}"),
            Action::OfferDeath { to, report } => {
                write!(f, "offer-death of {} to {to}", report.member)
            }
            Action::RequestCandidacy { member, epoch, word, .. } => {
                let how = match word {
                    PersonsWord::None => "",
                    PersonsWord::Asks => " as a person asks",
                    PersonsWord::AcceptsLoss => " accepting the loss",
                };
                write!(f, "request-candidacy {member} epoch={epoch}{how}")
            }
            Action::RequestTransfer { from, to, epoch } => {
                write!(f, "request-transfer {from} to {to} epoch={epoch}")
            }
            Action::NoteDatabase { member, .. } => write!(f, "note-database {member}"),
        }
    }
}
