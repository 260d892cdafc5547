//! The model: bounds, assumptions, and which rules hold; and how the checker walks it.

use crate::{
    action::Action,
    messages::Inbox,
    properties,
    rules::{Rule, Rules},
    state::{EPOCHS_MAX, Name, State},
};
use stateright::Property;
use std::fmt::{self, Display, Formatter};

/// How far the exploration goes. It is complete inside these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Commits by clients.
    pub commits: u8,
    /// Crashes of either member.
    pub crashes: u8,
    /// The highest epoch.
    pub epochs: u8,
    /// Ticks of every deadline: D = T (R4, R5).
    pub ticks: u8,
    /// Messages under way in one direction.
    pub frames: usize,
    /// Ticks for which one clock stands still.
    pub frozen_ticks: u8,
    /// Replacements of A's process while it lives.
    pub replacements: u8,
    /// Restores of the Lease from a backup.
    pub restores: u8,
}

/// Commits, crashes, epochs, ticks, messages; then the rarer faults, where there are any.
impl Display for Bounds {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { commits, crashes, epochs, ticks, frames, .. } = self;
        write!(out, "{commits}/{crashes}/{epochs}/{ticks}/{frames}")?;
        for (count, what) in [
            (self.frozen_ticks, "frozen"),
            (self.replacements, "replaced"),
            (self.restores, "restored"),
        ] {
            if count > 0 {
                write!(out, " {what} {count}")?;
            }
        }
        Ok(())
    }
}

impl Bounds {
    /// One commit, one crash, two epochs, one tick, one message.
    pub const SMALL: Self = Self {
        commits: 1,
        crashes: 1,
        epochs: 2,
        ticks: 1,
        frames: 1,
        frozen_ticks: 0,
        replacements: 0,
        restores: 0,
    };

    /// The same with three epochs, so that the first holder can come back.
    pub const FAIL_BACK: Self = Self { epochs: 3, ..Self::SMALL };
}

/// When a commit counts as on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableCommit {
    /// The active's own disk is always needed.
    On,
    /// Two memories suffice while the Lease names the standby (R15).
    Off,
}

/// Which Lease writes need which authority. The alternatives are wordings of R4 that were weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteWording {
    /// Every write but letting go needs authority: R4 as it stands.
    AnyAuthority,
    /// Every write but letting go needs authority by the Lease.
    LeaseAuthority,
    /// Only a bare renewal needs authority.
    OnlyRenewals,
}

/// How a member outside S may become active all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Not at all.
    Nothing,
    /// By comparison with the other (R13c).
    Comparison,
    /// By a person's or a policy's waiver (R13d).
    Waiver,
}

/// When candidacies and promises happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eagerness {
    /// As R7 says.
    ByRule,
    /// At any moment, as if proofs of death were wrong.
    AnyMoment,
}

/// When an acknowledgement waits for the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnService {
    /// Always, while the Lease names it.
    Receipt,
    /// Only once so many commits are not received: the class `async(maxLag)` (A2.12).
    Async {
        /// The most acknowledged commits that the standby in S may lack.
        max_lag: u8,
    },
}

/// What becomes of the grants that were given to a process that died since (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantsOfDead {
    /// Every restarted member waits them out.
    WaitedFor,
    /// The control file names who was given any. A proof of death and an own acquisition take the names
    /// out, and a start that finds none has no blackout.
    Forgotten,
}

/// Whether an active ever lets go by its own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Releases {
    /// It may.
    Allowed,
    /// It may, and it may hand over to the other member (R22).
    OrTransfers,
    /// It does not.
    Never,
}

/// A fault that begins at any moment and stays, for the liveness rows. Links that work then deliver,
/// and A heartbeats and renews every tick as far as its rules let it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Messages to this member are lost.
    pub deaf: Option<Name>,
    /// What is wrong with the API server.
    pub api: ApiFault,
    /// A's log writer hangs: A commits, fsyncs, receives and decides nothing any more.
    pub data_path: DataPath,
}

/// What is wrong with the API server in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// Nothing.
    Fine,
    /// A cannot reach it.
    AwayFromA,
    /// A's requests arrive, their answers do not.
    AnswersToALost,
    /// Nobody can reach it. This fault may end.
    AwayFromAll,
}

/// A's data path in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// It works.
    Alive,
    /// Its fsync hangs.
    Dead,
}

/// The model of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// How far it goes.
    pub bounds: Bounds,
    /// The rules taken away.
    pub without: Rules,
    /// When a commit counts.
    pub durable_commit: DurableCommit,
    /// How R4 is read.
    pub write_wording: WriteWording,
    /// Eligibility beyond S.
    pub beyond: Beyond,
    /// When candidacies happen.
    pub eagerness: Eagerness,
    /// Whether an active lets go by its own will.
    pub releases: Releases,
    /// When an acknowledgement waits for the standby.
    pub return_service: ReturnService,
    /// Whether a blackout is for living receivers of grants only.
    pub grants_of_dead: GrantsOfDead,
    /// A persistent fault.
    pub scenario: Option<Scenario>,
}

impl Model {
    /// Every rule in force, no scenario.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        assert!(usize::from(bounds.epochs) <= EPOCHS_MAX, "each epoch's log has its place");
        assert!(bounds.frames <= Inbox::CAPACITY, "each message has its place");
        Self {
            bounds,
            without: Rules::default(),
            durable_commit: DurableCommit::On,
            write_wording: WriteWording::AnyAuthority,
            beyond: Beyond::Nothing,
            eagerness: Eagerness::ByRule,
            releases: Releases::Allowed,
            return_service: ReturnService::Receipt,
            grants_of_dead: GrantsOfDead::WaitedFor,
            scenario: None,
        }
    }

    /// Without these rules.
    #[must_use]
    pub fn without(self, rules: &[Rule]) -> Self {
        Self { without: Rules::of(rules), ..self }
    }

    /// Whether this rule is in force.
    #[must_use]
    pub fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(rule)
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::normal(self.bounds.ticks)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.offer_all(state, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        self.take(&mut state, action);
        self.normalize(&mut state);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
