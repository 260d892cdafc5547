//! Replication and authority of one member, without any I/O: [`Member::step`] takes an event and the
//! time, and says what must be done, in which order.
//!
//! # The flow
//! A follower *dials* its feeder and attaches with the history and the end of its log; the feeder
//! answers where the two logs fork ([`answer_attach`]). From then on the feeder sends records, the
//! follower acknowledges positions. Between the two voters heartbeats and grants flow beside (R5).
//!
//! ```text
//!            Initialising/Acquire confirmed                hand-over, foreign holder, higher epoch
//!  Following ───────────────────────────────► Active ─────────────────────────────────► (process ends)
//!   │  ▲  candidacy: grants out → log synced    │ ▲
//!   └──┘  → promised → compare-and-swap         └─┘ bump: a higher epoch of the same process (R12)
//! ```
//!
//! # Invariants
//! 1. Nothing is acknowledged without authority read at the decision (R6a), nor beyond what R15 allows.
//! 2. The control file is persisted before any message, Lease write or answer that relies on it.
//! 3. A deposed active never comes back within its process: it ends, and its successor recovers to
//!    the fork (R19). So no state of an old epoch can leak into a new one.
//! 4. Only the confirmed Acquire of the present candidacy activates (R9).
//!
//! # Caveats
//! R21 is a refusal here: no candidacy, with the reason. Under NO RETURN S is the active alone, unless the
//! pair allows a bounded loss (A2.12).

mod active;
mod attach;
mod by_hand;
mod common;
mod following;
mod input;
mod lag;
mod member;
mod message;
mod output;
mod pledge;

pub use attach::{FeederLog, answer_attach};
pub use by_hand::NotSettable;
pub use input::{Input, Policy, Report, WriteOutcome};
pub use member::{Member, Standing, Start};
pub use message::{
    Attach, Attached, FRAME_BYTES_MAX, Follower, FollowerKind, Message, MessageError, WIRE_VERSION,
};
pub use output::{EndReason, Event, LeaseWrite, Opening, Output};
pub use pledge::{LogEnd, Pledge, PledgeRefused, PledgeRequest};
