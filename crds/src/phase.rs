//! One word for where a pair stands, in the words that users of the original know. Derived, and read
//! by people only: no code decides on a phase.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Objects and pods are being made; no database exists yet.
    Initializing,
    /// One member was named initialiser and makes the database.
    ConfiguringActive,
    /// An active serves; the standby starts, recovers or builds its store by duplicate.
    StandbyStarting,
    /// The standby follows and is not yet recorded in sync.
    StandbyCatchup,
    /// An active serves and an in-sync standby follows.
    Normal,
    /// The active does not serve, and nobody has taken over yet.
    ActiveDown,
    /// A member is taking over the role of the active.
    ActiveTakeover,
    /// An active serves alone.
    StandbyDown,
    /// Neither voter serves or follows.
    BothDown,
    /// A member that may become active is awaited.
    WaitingForActive,
    /// The vantages disagree, and none proves a death.
    SuspectPartition,
    /// The active hands over to the standby by plan.
    Switchover,
    /// The situation needs a new look with more evidence.
    Reexamine,
    /// Only a person can go on; `status.exit.humanAction` says how.
    ManualInterventionRequired,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 14] = [
        Phase::Initializing,
        Phase::ConfiguringActive,
        Phase::StandbyStarting,
        Phase::StandbyCatchup,
        Phase::Normal,
        Phase::ActiveDown,
        Phase::ActiveTakeover,
        Phase::StandbyDown,
        Phase::BothDown,
        Phase::WaitingForActive,
        Phase::SuspectPartition,
        Phase::Switchover,
        Phase::Reexamine,
        Phase::ManualInterventionRequired,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
