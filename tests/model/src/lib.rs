//! The protocol of a pair as an explicit-state model, explored completely inside small bounds.
//!
//! Two members and one Lease (the third vote) decide who may serve. The network loses, delays and
//! reorders; writes to the Lease succeed, succeed without an answer, or land late; processes crash. Every
//! interleaving of these is visited, and in each state the properties of `properties` must hold. The
//! rules are cited by their numbers in the protocol, R1 to R22, where the code applies them.
//!
//! ```text
//!          frames with heartbeats (R5, R18)
//!    A  ──────────────────────────────────►  B        state.rs       what there is
//!    ▲  ◄──────────────────────────────────  ▲        offers/        the if of each rule
//!    │      answers with grants, refusals    │        steps/         the then of each rule
//!    │                                       │        judgement.rs   what a member may conclude
//!    └────────────►   Lease   ◄──────────────┘        properties.rs  what must never break
//!        renewals, S-writes, Acquire (R3, R4, R9)     liveness.rs    that somebody can serve again
//! ```
//!
//! **Time** is ticks of all clocks at once; a deadline is a countdown of the same number of ticks for
//! whoever has authority and for whoever observes it. So the order that the margins of R4–R6 buy is given,
//! not checked; one tick without one member's clock breaks it on purpose.
//!
//! **Sound shortcuts.** Acknowledgements and observing the Lease happen as early as they may: both only
//! add behaviour. A failed write of the Lease does nothing. "Down" is not taking steps.
//!
//! **A beginning** (R20), before there is an active, is a small model of its own: `beginning`.
//!
//! **A rule is needed** if the model violates a property without it: `removed` has a row for each, and
//! `story` tells the shortest violation.
//!
//! # Caveats
//! Nothing is said beyond the bounds of a row. Not modelled: partial fsync, subscribers, checkpoints,
//! duplicates as streams (a frame carries the log from its beginning), the fork by history (a frame
//! compares logs), commits without return service. A restored Lease (R21) is noticed at once by both
//! members; that a member was cut off meanwhile is not modelled.

pub mod action;
pub mod beginning;
mod explore;
mod judgement;
pub mod liveness;
pub mod log;
pub mod messages;
pub mod model;
mod normal_form;
mod offers;
pub mod properties;
mod removed;
pub mod rows;
pub mod rules;
pub mod run;
pub mod state;
mod steps;
pub mod story;
