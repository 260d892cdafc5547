//! The whole judgement: from (pair, observation, now) to a plan. Pure and total.
//!
//! ```text
//!   observation ──▶ Picture ──▶ ladder of named rules, first that applies wins ──▶ phase, exit, requests
//!                      │                                                                     │
//!                      └──▶ members: what must exist, one disruption at a time ──▶ actions ──┴──▶ Plan
//! ```
//!
//! **Invariants** (checked apart from the rules, in `check`)
//! 1. The operator never decides who is active: it asks for candidacies and offers proofs (A1.1).
//! 2. A plan in another phase than Normal names its exit: next step, human action, data at risk.
//! 3. At most one running voter is disturbed, and only while the other one is in sync and serving.
//! 4. No volume of a voter is ever deleted by a plan.
//! 5. The Lease is written only in state Uninitialised or Initialising (R20), made only when no database
//!    of this pair was ever seen, and reinstated only with both stores' word above every epoch (R21).
//! 6. Under `mode: Paused` nothing is asked of anybody but to take the scheme.
//!
//! Deliberately absent: clocks, clients, randomness, and the rules of candidacy (crate `authority`).

mod beginnings;
pub mod check;
mod dual;
mod failover;
mod members;
mod person;
mod picture;
mod reinstate;
mod serving;

pub use members::{scheme, scheme_version};
pub(crate) use person::LOST_WITH_THE_ACTIVE;
pub(crate) use picture::is_cut;
pub use picture::{ActiveSight, Picture, StandbySight, VoterSight, pod_problem};

use crate::pair::{action::Action, observation::Observation, validate::PairView};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use understudy_crds::{Mode, Phase};

/// How long a pair in phase Normal goes without a look when nothing happens: certificates and
/// Secrets are not watched.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How soon to look again while something is awaited that no watch announces.
const WAITING: Duration = Duration::from_secs(2);
/// How soon to repeat a request while nobody serves.
const URGENT: Duration = Duration::from_millis(300);

/// The way out of a phase (law 8).
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// What happens next by itself.
    pub next: String,
    /// By when; `None` when it depends on something outside.
    pub deadline: Option<Timestamp>,
    /// What a person must or may do.
    pub human: String,
    /// Which acknowledged commits could be lost now.
    pub risk: String,
}

/// Why a plan waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingOn {
    /// CamelCase reason of the condition.
    pub reason: &'static str,
    /// The message, verbatim on the condition.
    pub message: String,
    /// Nothing goes on without a person or the end of a fault.
    pub is_stalled: bool,
}

/// What to do, and what to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name of the rule that applied.
    pub rule: &'static str,
    /// One word for people.
    pub phase: Phase,
    /// In this order; the first failure ends the attempt.
    pub actions: Vec<Action>,
    /// `None` only in phase Normal.
    pub waiting: Option<WaitingOn>,
    /// `None` only in phase Normal.
    pub exit: Option<Exit>,
    /// When to look again, if nothing happens before.
    pub requeue_after: Duration,
}

/// What one rule says.
#[derive(Debug)]
struct Verdict {
    rule: &'static str,
    phase: Phase,
    actions: Vec<Action>,
    waiting: Option<WaitingOn>,
    exit: Option<Exit>,
    /// Members are left as they are: what would be made could not be judged.
    is_frozen: bool,
}

type Rule = for<'a> fn(&Picture<'a>) -> Option<Verdict>;

/// The ladder. Order matters: what makes every later reading doubtful comes first.
const LADDER: [Rule; 14] = [
    beginnings::lease_unknown,
    beginnings::lease_unreadable,
    reinstate::lease_lost,
    beginnings::foreign_volume,
    dual::dual_active,
    reinstate::lease_regressed,
    beginnings::create_lease,
    beginnings::name_initialiser,
    beginnings::await_initialiser,
    serving::active_serves,
    failover::hand_over,
    failover::take_over,
    failover::both_down,
    failover::active_down,
];

/// Judges a pair.
#[must_use]
pub fn plan(pair: &PairView, seen: &Observation, now: Timestamp) -> Plan {
    let picture = Picture::of(pair, seen, now);
    let verdict = LADDER.iter().find_map(|rule| rule(&picture)).unwrap_or_else(failover::reexamine);
    let mut actions = verdict.actions;
    let mut way_out = verdict.exit;
    if !verdict.is_frozen {
        actions.extend(members::actions(&picture, verdict.phase));
    }
    if picture.spec().is_some_and(|spec| spec.mode == Mode::Paused) {
        actions.retain(|action| matches!(action, Action::SendScheme { .. }));
        way_out = way_out.map(|found| match verdict.rule {
            dual::RULE => found,
            _ => Exit {
                next: "none: spec.mode is Paused".to_owned(),
                deadline: None,
                human: "write spec.mode: Automatic, or act by hand".to_owned(),
                risk: found.risk,
            },
        });
    }
    let requeue_after = match verdict.phase {
        Phase::Normal => LOOK_AGAIN,
        Phase::ActiveDown | Phase::ActiveTakeover | Phase::Switchover => URGENT,
        Phase::Initializing
        | Phase::ConfiguringActive
        | Phase::StandbyStarting
        | Phase::StandbyCatchup
        | Phase::StandbyDown
        | Phase::BothDown
        | Phase::WaitingForActive
        | Phase::SuspectPartition
        | Phase::Reexamine
        | Phase::ManualInterventionRequired => WAITING,
    };
    Plan {
        rule: verdict.rule,
        phase: verdict.phase,
        actions,
        waiting: verdict.waiting,
        exit: way_out,
        requeue_after,
    }
}

fn waiting(reason: &'static str, message: impl Into<String>) -> Option<WaitingOn> {
    Some(WaitingOn { reason, message: message.into(), is_stalled: false })
}

fn stalled(reason: &'static str, message: impl Into<String>) -> Option<WaitingOn> {
    Some(WaitingOn { reason, message: message.into(), is_stalled: true })
}

fn exit(next: impl Into<String>, human: impl Into<String>, risk: impl Into<String>) -> Exit {
    Exit { next: next.into(), deadline: None, human: human.into(), risk: risk.into() }
}

impl Exit {
    /// With a deadline that stays the same while the phase does: `seconds` after it began.
    fn within(mut self, picture: &Picture<'_>, phase: Phase, seconds: i64) -> Self {
        let status = &picture.seen.status;
        let began = match (&status.phase_since, status.phase == Some(phase)) {
            (Some(since), true) => since.0,
            _ => picture.now,
        };
        self.deadline = began.checked_add(SignedDuration::from_secs(seconds)).ok();
        self
    }
}
