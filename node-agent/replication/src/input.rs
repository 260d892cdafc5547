//! Everything that can happen to a member, as data. Time is the second argument of
//! [`crate::Member::step`].

use crate::{Follower, LogEnd, Pledge, PledgeRefused, PledgeRequest};
use understudy_authority::{Sight, Timing, Versioned, Word};
use understudy_types::{
    Durability, Epoch, EpochId, FailoverPolicy, Incarnation, Lsn, MaxLoss, MemberName,
    ReturnService, StoreId, WhenStandbyLost,
};

/// Positions that a follower reports (R18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Last record in its memory.
    pub received: Lsn,
    /// Last record on its disk.
    pub durable: Lsn,
    /// Last record applied.
    pub applied: Lsn,
}

/// How a Lease write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The API server answered with the new version.
    Confirmed(Box<Versioned>),
    /// The base version was no longer current: nothing was written.
    Conflict,
    /// It was certainly not written.
    Refused(String),
    /// It may have been written, or may be written later.
    Unknown(String),
}

/// What the pair promises, from the scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What a commit waits for.
    pub return_service: ReturnService,
    /// Which disks hold it first.
    pub durability: Durability,
    /// What the active does when the standby is lost.
    pub when_standby_lost: WhenStandbyLost,
    /// Whether agents may become active without a person.
    pub automatic: bool,
    /// Who decides that another member becomes active.
    pub failover: FailoverPolicy,
    /// What a promotion may lose when commits wait for nothing; `None`: nothing, so that nobody is
    /// promoted then (A2.12).
    pub max_loss: Option<MaxLoss>,
    /// The pair's times. A new D counts from the holder's first record that carries it.
    pub timing: Timing,
    /// How long a commit waits for the standby before the active goes on alone, or, when it may not,
    /// before its client is told that the outcome is open; in milliseconds.
    pub return_wait_ms: u64,
}

impl Policy {
    /// Whether no commit may be acknowledged without a standby.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.when_standby_lost == WhenStandbyLost::Block
            && self.return_service != ReturnService::NoReturn
    }

    /// Whether S may name a standby, which can then be promoted.
    #[must_use]
    pub fn names_standby(&self) -> bool {
        self.return_service != ReturnService::NoReturn || self.max_loss.is_some()
    }

    /// How far the standby of S may be behind what is acknowledged, where it may be behind at all.
    #[must_use]
    pub fn allowance(&self) -> Option<MaxLoss> {
        self.max_loss.filter(|_| self.return_service == ReturnService::NoReturn)
    }
}

/// An event.
#[derive(Debug, Clone)]
pub enum Input {
    /// The process serves a database of its own: there is no other voter, no Lease and no follower, and a
    /// person started it. It opens the epoch that its control file promised to itself.
    Standalone,
    /// Time passed. At least every 20 ms while a link is up or a candidacy runs.
    Tick {
        /// Whether the log's writer finished a probe within D/2 (A1.10).
        data_path_ok: bool,
    },
    /// The clocks of this machine jumped against each other: it may have stood still, so that all
    /// authority counted on its clock may be over (A1.6).
    ClockJumped,
    /// The other voter asks for this one's word (R11, R13c).
    PledgeAsked {
        /// What it asks.
        request: PledgeRequest,
        /// Where the own log ends.
        end: LogEnd,
    },
    /// The other voter answered the candidacy of this epoch.
    PledgeAnswered {
        /// The epoch that was asked for.
        epoch: EpochId,
        /// Its answer; a voter that does not answer promised nothing that is known.
        answer: Result<Pledge, PledgeRefused>,
        /// Where the own log ends.
        end: LogEnd,
    },
    /// Active: a record was appended to the log at this LSN.
    Appended(Lsn),
    /// The log is on disk up to here.
    Durable(Lsn),
    /// Active: a follower reports.
    Ack {
        /// Epoch that it follows.
        epoch: Epoch,
        /// Its process.
        incarnation: Incarnation,
        /// Its directory.
        store: StoreId,
        /// Its positions.
        report: Report,
    },
    /// The pair's promise, or the permission to act, changed.
    Policy(Policy),
    /// The Lease was seen.
    Lease(Box<Sight>),
    /// The Lease write with this ticket ended.
    LeaseWritten {
        /// Which.
        ticket: u64,
        /// How.
        outcome: WriteOutcome,
    },
    /// A process is proven dead (R10).
    ProvenDead(Incarnation),
    /// A person asks this member to take over, and may accept that commits are lost (R13d).
    Asked(Word),
    /// A person sets this member active, without the Lease; [`crate::Member::may_be_set_active`] was asked.
    SetActive {
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// Everything appended before the last `sync_log` is on disk up to here (R8).
    Synced(LogEnd),
    /// Follower: a heartbeat of the active arrived.
    Heartbeat {
        /// Its epoch, with author.
        epoch: EpochId,
        /// The process that sent it.
        active: Incarnation,
        /// To be echoed.
        nonce: u64,
        /// Whether it serves.
        serving: bool,
        /// How long a grant shall last.
        grant: understudy_types::Span,
    },
    /// Active: a grant arrived (R5).
    Grant {
        /// Epoch of the heartbeat.
        epoch: Epoch,
        /// Nonce of the heartbeat.
        nonce: u64,
        /// Who granted.
        standby: Incarnation,
        /// Its directory, by its attachment.
        store: StoreId,
    },
    /// A peer promised a higher epoch and refuses this one (R12).
    Refused(Epoch),
    /// Active: a standby attached, from this LSN on.
    StandbyAttached(Follower),
    /// Active: the attached standby's link ended.
    StandbyLost(Incarnation),
    /// Active: the standby could not apply a record (A2.20).
    ApplyFailed(Incarnation),
    /// Follower: the link to the feeder was made, for this epoch.
    FeederAttached(EpochId),
    /// Follower: the link to the feeder ended.
    FeederLost,
    /// This store must not be promoted, and why; `None` lifts it.
    Unfit(Option<String>),
    /// Active: hand over (R22).
    Transfer {
        /// To whom; `None` lets go without a successor (a clean stop of a pair of one).
        to: Option<MemberName>,
        /// How long commits may be held back, in milliseconds.
        deadline_ms: u64,
    },
    /// The one initialiser's directory is ready: this dbid is in the control file (R20).
    Initialised(understudy_types::Dbid),
}
