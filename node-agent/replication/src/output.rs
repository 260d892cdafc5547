//! What a member wants done, as data. **Order is law** (law 3): the caller persists the control file
//! before everything else of the same output, appends the epoch's first record before it lets any
//! other record in, and only then writes the Lease and sends messages.

use crate::{Message, Pledge, PledgeRefused, PledgeRequest};
use understudy_authority::{LeaseRecord, StandbySync};
use understudy_types::{EpochId, Lsn, Role};

/// A compare-and-swap of the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseWrite {
    /// Comes back in `Input::LeaseWritten`.
    pub ticket: u64,
    /// The version that was judged; the write must fail on any other (R9).
    pub base: String,
    /// The whole new record.
    pub record: LeaseRecord,
}

/// Why client sessions are ended with 57P01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Another member is active, or a higher epoch exists.
    Deposed,
    /// Authority is missing for longer than D.
    Lapsed,
    /// The role was handed over.
    HandedOver,
    /// The standby became active: sessions that began read-only reconnect to the right Service.
    Promoted,
}

/// Something worth a line in the log and in the decision's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A candidacy began, on this ground.
    CandidacyBegan(understudy_authority::Claim),
    /// A person sets this member active.
    SetByPerson,
    /// A candidacy ended without success.
    CandidacyEnded(&'static str),
    /// This member may acknowledge now.
    Serving(EpochId),
    /// Authority ended.
    Lapsed,
    /// The active acknowledges alone from here on; recorded.
    Alone(&'static str),
    /// The standby is recorded in sync.
    InSync(StandbySync),
    /// A hand-over was undone.
    TransferUndone,
    /// A hand-over is on the Lease.
    HandedOver,
}

/// An epoch to be opened in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Its number and author.
    pub epoch: EpochId,
    /// Acknowledged commits of earlier epochs may be missing in this log (R13d, A2.12).
    pub is_lossy: bool,
}

/// What must be done, in the order of the fields.
#[derive(Debug, Default)]
pub struct Output {
    /// 1. Persist `Member::control()`, fsynced, before anything below.
    pub persist: bool,
    /// 2. Append this epoch's first record before any other record. Its durability comes back as
    ///    `Input::Durable`, and until then nothing is acknowledged.
    pub begin_epoch: Option<Opening>,
    /// 3. Bring the whole log to disk and answer `Input::Synced`.
    pub sync_log: bool,
    /// 3a. Ask the other voter, and tell its answer by `Input::PledgeAnswered`.
    pub ask: Option<PledgeRequest>,
    /// 3b. The answer to `Input::PledgeAsked`.
    pub pledge: Option<Result<Pledge, PledgeRefused>>,
    /// 4. Write the Lease. One write is under way at a time.
    pub lease_write: Option<LeaseWrite>,
    /// 5. Read the Lease consistently.
    pub lease_read: bool,
    /// 6. Send to the attached standby (an active), or to the feeder (a follower).
    pub messages: Vec<Message>,
    /// 7. Release what waits for acknowledgement up to here; make it visible; tell followers.
    pub acknowledged: Option<Lsn>,
    /// 7a. Replies that wait now are told that their outcome is open: the standby is lost, and
    ///     nothing may be acknowledged without it.
    pub overdue: bool,
    /// 8. The role changed: set the pod's label.
    pub role: Option<Role>,
    /// 9. End client sessions.
    pub end_sessions: Option<EndReason>,
    /// 10. Initialise the empty directory and answer `Input::Initialised` (R20).
    pub initialise: bool,
    /// 11. Leave the process: another one must start, recover to the fork and follow (R19).
    pub restart: Option<&'static str>,
    /// For the log and the decision's record.
    pub events: Vec<Event>,
}
