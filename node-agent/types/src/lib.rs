//! The words that every other crate shares: positions in the log, epochs, incarnations, members,
//! roles and promises. No behaviour beyond ordering, parsing and the comparison of histories; no I/O,
//! no clock, no randomness: time and fresh ids enter as arguments.
//!
//! Terms and rule numbers (R1–R22) are those of the pair's protocol; the glossary is in the README.

mod epoch;
mod identity;
mod lsn;
mod moment;
mod promise;
mod token;

pub use epoch::{Epoch, EpochBegin, EpochHistory, EpochId, EpochStart, HistoryError, Position};
pub use identity::{Dbid, Incarnation, MemberName, MemberNameError, StoreId};
pub use lsn::{Lsn, RunningHash};
pub use moment::{Moment, Span};
pub use promise::{Durability, FailoverPolicy, MaxLoss, ReturnService, Role, WhenStandbyLost};
pub use token::{CommitToken, TokenError};
