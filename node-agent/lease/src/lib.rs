//! The Kubernetes effects of authority: the pair's one Lease, read and written by the rules of the
//! protocol (R3, R4, R9, R20), and the election between the operator's own two pods.
//!
//! ```text
//!   authority (pure)  ── decides ──▶  LeaseRecord  ── one PUT ──▶  API server
//!         ▲                                                          │
//!         └──────────── Versioned {record, version, moments} ◀───────┘
//! ```
//!
//! **Invariants.**
//! 1. A write is one request on exactly the version that was judged. Nothing in here tries again: a
//!    conflict or a doubt goes back to the one who decided (A1.12).
//! 2. A write that may have been applied is never reported as refused, and the other way round: what
//!    cannot be told apart is [`WriteOutcome::Unknown`] (A1.18).
//! 3. Time is the reader's own CLOCK_BOOTTIME: [`Versioned::sent`] was read before the request left,
//!    [`Versioned::seen`] after its answer came (R4).
//! 4. A watch gives hints. Whoever wants to be sure reads again with [`AuthorityLease::read`].
//!
//! Deliberately absent: every decision (crate `authority`), server-side apply, caches, retries, and the
//! pod labels (node-agent).

mod authority_lease;
mod clock;
mod connection;
pub mod election;
mod hints;
mod outcome;
#[cfg(test)]
mod testing;

pub use authority_lease::{AuthorityLease, CreateOutcome, RemoveError, Version, Versioned};
pub use clock::boot_time;
pub use connection::{Timeouts, prompt_config, watch_config};
pub use outcome::{Doubt, NotWritten, ReadError, WriteOutcome};
