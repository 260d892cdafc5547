//! Every step that the world can take.

use crate::state::{Name, Write};

/// One step. What must hold for it is in `offers`, what it does in `steps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tick of every clock.
    Tick,
    /// A tick of every clock but this member's.
    TickWithoutClockOf(Name),
    /// The process dies and starts again at once.
    Crash(Name),
    /// The scenario's fault begins.
    FaultBegins,
    /// The scenario's fault ends.
    FaultEnds,

    /// A client commits on an active with authority.
    Commit(Name),
    /// The log is on the disk.
    Fsync(Name),
    /// An active sends its log and a heartbeat (R5, R18).
    SendFrame(Name),
    /// The message at this place of the inbox arrives.
    Receive(Name, usize),
    /// It is lost.
    Lose(Name, usize),

    /// The holder renews (R4).
    Renew(Name, Answer),
    /// The holder records S = itself (R15).
    SetSolo(Name, Answer),
    /// The holder reads S = itself and takes it for a confirmation: only without R15.
    SoloByReading(Name),
    /// The holder acknowledges alone unasked: only without R15.
    SoloUnconfirmed(Name),
    /// The holder stops acknowledging alone (R16).
    StopAlone(Name),
    /// The holder records the other member in sync (R16).
    SetSync(Name),
    /// The holder lets go.
    Release(Name),
    /// The holder takes no commits any more, to hand over (R22).
    PrepareTransfer(Name),
    /// The holder hands over to the other member, and serves no more (R22).
    Transfer(Name),
    /// The holder goes back to serving (R22).
    UndoTransfer(Name),
    /// The parent process of a dead holder lets go for it (R10a).
    ReleaseDead(Name),
    /// An active leaves its epoch (R4, R19).
    StepDown(Name),

    /// A write whose answer never comes is under way.
    Delay(Name, Write),
    /// It lands.
    DelayedLands(Name),
    /// It never lands.
    DelayedIsLost(Name),

    /// A member becomes a candidate (R7).
    Candidate(Name),
    /// A candidate gives up (R7).
    Cancel(Name),
    /// A candidate promises the next epoch (R8).
    Promise(Name),
    /// A candidate finds itself complete by comparison; both promise (R13c).
    Compare(Name),
    /// The Acquire of a candidate, or an active's next epoch, lands and is confirmed (R9, R12).
    Acquire(Name),
    /// The Acquire of a candidate lands, its answer is under way (R9).
    AcquireUnanswered(Name),
    /// The answer arrives.
    AcquireAnswerArrives(Name),
    /// The answer is lost.
    AcquireAnswerIsLost(Name),
    /// A member reads itself as the holder and serves: only without R9.
    ActivateByReading(Name),

    /// A member hears of a death: the dead use no grants (R6, R10).
    LearnDeath(Name),

    /// A's pod is replaced while its process lives on (R11).
    Replace,
    /// B answers the old process's heartbeat with a grant.
    GrantToOldProcess,
    /// The old process ends.
    OldProcessEnds,
    /// B promises A's candidacy (R11).
    PromiseForOther,

    /// A backup of the API server is taken.
    Backup,
    /// It is restored: the Lease says what it said then.
    Restore,
    /// The operator creates the Lease anew and names this one as its last holder (R21).
    Recreate(Name),

    /// The operator decides to promote B: only without R9.
    OperatorDecides,
    /// The operator writes B into the Lease, if nobody wrote since.
    OperatorWrites,
    /// B hears that it was promoted.
    OperatorPromotes,
}

/// What becomes of the answer to a write that lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sender learns that it landed.
    Arrives,
    /// The sender learns nothing.
    Lost,
}

impl Action {
    /// Whether it is a fault, which liveness must not need.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Crash(_)
                | Self::TickWithoutClockOf(_)
                | Self::FaultBegins
                | Self::FaultEnds
                | Self::Restore
        )
    }

    /// The member whose deed it is, or that it happens to.
    #[must_use]
    pub fn actor(self) -> Option<Name> {
        match self {
            Self::TickWithoutClockOf(name)
            | Self::Crash(name)
            | Self::Commit(name)
            | Self::Fsync(name)
            | Self::SendFrame(name)
            | Self::Receive(name, _)
            | Self::Lose(name, _)
            | Self::Renew(name, _)
            | Self::SetSolo(name, _)
            | Self::SoloByReading(name)
            | Self::SoloUnconfirmed(name)
            | Self::StopAlone(name)
            | Self::SetSync(name)
            | Self::Release(name)
            | Self::PrepareTransfer(name)
            | Self::Transfer(name)
            | Self::UndoTransfer(name)
            | Self::LearnDeath(name)
            | Self::ReleaseDead(name)
            | Self::StepDown(name)
            | Self::Delay(name, _)
            | Self::DelayedLands(name)
            | Self::DelayedIsLost(name)
            | Self::Candidate(name)
            | Self::Cancel(name)
            | Self::Promise(name)
            | Self::Compare(name)
            | Self::Acquire(name)
            | Self::AcquireUnanswered(name)
            | Self::AcquireAnswerArrives(name)
            | Self::AcquireAnswerIsLost(name)
            | Self::ActivateByReading(name) => Some(name),
            Self::Tick
            | Self::Backup
            | Self::Restore
            | Self::Recreate(_)
            | Self::FaultBegins
            | Self::FaultEnds
            | Self::Replace
            | Self::GrantToOldProcess
            | Self::OldProcessEnds
            | Self::PromiseForOther
            | Self::OperatorDecides
            | Self::OperatorWrites
            | Self::OperatorPromotes => None,
        }
    }

    /// Whether liveness may count on it while every member but this one does nothing: no luck with
    /// delayed writes, no lost answer, no comparison with the silent one.
    #[must_use]
    pub fn needs_only(self, survivor: Name) -> bool {
        let needs_luck_or_the_other = matches!(
            self,
            Self::TickWithoutClockOf(_)
                | Self::Crash(_)
                | Self::Renew(_, Answer::Lost)
                | Self::SetSolo(_, Answer::Lost)
                | Self::SoloByReading(_)
                | Self::SoloUnconfirmed(_)
                | Self::ReleaseDead(_)
                | Self::Delay(..)
                | Self::DelayedLands(_)
                | Self::Compare(_)
                | Self::ActivateByReading(_)
        );
        self == Self::Tick || self.actor() == Some(survivor) && !needs_luck_or_the_other
    }

    /// Whether A writes the Lease by it, as far as the timeliness of a scenario counts it.
    #[must_use]
    pub fn is_write_of_first_holder(self) -> bool {
        matches!(self, Self::Renew(Name::A, _) | Self::SetSolo(Name::A, _) | Self::SetSync(Name::A))
    }
}
