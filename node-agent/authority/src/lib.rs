//! Who may decide, as pure decisions: the Lease record, the control file's contents, the clocks of
//! authority, and the vetoes of a candidacy (protocol R1–R22). Shared by agent, operator, model and
//! simulation, so that there is one place that says who may be active.
//!
//! **Invariants** this crate keeps, each by a rule:
//! 1. Authority ends by the own clock, counted from before the request was sent (R4, R5).
//! 2. Nobody candidates against a serving active, an ineligible store never acquires (R7, R13).
//! 3. Only the confirmed answer of the Acquire of the present candidacy activates (R9).
//! 4. S on the Lease names every member that holds all promised commits, by incarnation (R15, R16).
//!
//! Deliberately absent: clocks, files, sockets, Kubernetes. Time is an argument.

mod candidacy;
mod clock;
mod control;
mod heartbeats;
mod lease_record;
mod view;

pub use candidacy::{
    Candidate, Claim, GrantsBefore, Ground, Loss, Needs, Veto, Word, blackout_until, is_sound,
    may_candidate,
};
pub use clock::{Timing, TimingError};
pub use control::{ControlError, ControlState, LeaseSeen};
pub use heartbeats::Heartbeats;
pub use lease_record::{
    Holder, LeaseRecord, LeaseState, RecordError, StandbySync, SyncClass, Voter,
};
pub use view::{LeaseView, Sight, Versioned};
