//! What the test and the proxy say to each other, a line of JSON each; every order is answered by a report.

use serde::{Deserialize, Serialize};
use understudy_tests::sieve::call::Write;

/// From the test to the proxy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Tell how it stands.
    Report,
    /// Writes from now on belong to this stage.
    Stage(String),
    /// Kill the operator; it starts anew.
    Restart,
    /// Keep the lists as they were answered last.
    Remember,
    /// Kill the operator; for so many milliseconds it gets the lists that were kept, and hears no event.
    RestartInThePast(u64),
}

/// From the proxy to the test.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Writes in their order.
    pub(crate) writes: Vec<Written>,
    /// How often the operator was killed.
    pub(crate) killed: u64,
    /// How often it ended by itself, which it must not.
    pub(crate) fell: u64,
    /// Lists that the operator of now was given.
    pub(crate) lists_of_life: u64,
    /// Whether it is given the past still.
    pub(crate) is_past: bool,
    /// Lists that were older than the truth.
    pub(crate) old_lists: u64,
    /// Watches that began late.
    pub(crate) held_watches: u64,
    /// Events that never arrived.
    pub(crate) withheld: u64,
    /// Watches that were made to expire.
    pub(crate) expired: u64,
}

/// One write that the API server answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) stage: String,
    #[serde(flatten)]
    pub(crate) write: Write,
    /// The answer's code.
    pub(crate) code: u16,
    /// Whether the operator died of it, without having heard the answer.
    pub(crate) was_fatal: bool,
}
