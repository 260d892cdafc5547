//! Bootstrap (R20): how a pair gets its one database, as a model of its own.
//!
//! Two operators, one of which may be late; two members whose volumes are empty; a Lease that does not
//! exist yet. Nothing here is timed: no authority is at stake before the first epoch.

mod rows;
mod state;
mod steps;
mod story;

use crate::{
    liveness::{Lively, Question},
    rules::{Rule, Rules},
    state::Name,
};
pub(crate) use rows::rows;
pub use rows::{NEVER_ANOTHER, ONE_DATABASE};
use state::{Decision, Lease, Naming, State};
use stateright::Property;
use std::fmt::{self, Display, Formatter};
pub(crate) use story::tell;

/// How far the exploration goes. It is complete inside these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Crashes of either member.
    pub crashes: u8,
    /// Volumes lost.
    pub volumes: u8,
    /// Times that a member stops answering the operator.
    pub silences: u8,
    /// Deletions of the Lease by a person.
    pub deletions: u8,
    /// Namings that land.
    pub namings: u8,
}

impl Display for Bounds {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { crashes, volumes, silences, deletions, namings } = self;
        write!(out, "{crashes}/{volumes}/{silences}/{deletions}/{namings}")
    }
}

/// The model of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// How far it goes.
    pub bounds: Bounds,
    /// The rules taken away.
    pub without: Rules,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An operator decides on what it has read: the first or the second one.
    Decide(usize, Decision),
    /// It writes what it decided.
    Write(usize),
    /// The operator notes the database in the pair's status.
    Note,
    /// A member reads that it is named.
    Read(Name),
    /// It initialises its directory.
    Initialise(Name),
    /// It takes the Lease, and learns that it did.
    Take(Name),
    /// It sends that write, and never gets the answer.
    SendTake(Name),
    /// The write lands.
    TakeLands(Name),
    /// It never lands.
    TakeIsLost(Name),
    /// The process dies and starts again at once.
    Crash(Name),
    /// The volume is lost, and an empty one takes its place.
    LoseVolume(Name),
    /// The operator cannot reach the member.
    FallSilent(Name),
    /// It can again.
    Answer(Name),
    /// A person deletes the Lease.
    Delete,
}

impl Action {
    fn is_fault(self) -> bool {
        matches!(self, Self::Crash(_) | Self::LoseVolume(_) | Self::FallSilent(_) | Self::Delete)
    }
}

impl Model {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, without: Rules::default() }
    }

    pub(crate) fn without(self, rules: &[Rule]) -> Self {
        Self { without: Rules::of(rules), ..self }
    }

    fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(rule)
    }

    fn offer_operator(&self, state: &State, which: usize, actions: &mut Vec<Action>) {
        if state.operators[which].is_some() {
            actions.push(Action::Write(which));
            return;
        }
        if state.lease.is_none() && self.may_create(state) {
            actions.push(Action::Decide(which, Decision::Create));
        }
        for name in Name::ALL.into_iter().filter(|name| self.may_be_named(state, *name)) {
            let process = state.members[name].process(name);
            actions.push(Action::Decide(which, Decision::Name(process)));
        }
    }

    /// R20: once, only if no database is known.
    fn may_create(&self, state: &State) -> bool {
        let says_so = state.members.iter().any(|m| m.answers() && m.dbid.is_some());
        !self.keeps(Rule::CreatedOnlyOnce) || state.noted.is_none() && !says_so
    }

    /// One naming may be for nothing, and what is decided may be, too.
    fn leaves_a_naming(&self, state: &State) -> bool {
        let decided = state.operators.iter().flatten().count();
        usize::from(state.namings) + decided < usize::from(self.bounds.namings)
    }

    /// R20: an empty store, or the named store under a new incarnation; and no database is known, for the
    /// Lease may have been created by a late operator after it was deleted.
    fn may_be_named(&self, state: &State, name: Name) -> bool {
        let member = &state.members[name];
        let is_empty = member.dbid.is_none();
        let is_known = state.noted.is_some() && self.keeps(Rule::NamedOnlyOnce);
        let fits = match state.lease.map(|lease| lease.naming) {
            None | Some(Naming::Held(_)) => false,
            Some(Naming::Nobody) => is_empty,
            Some(Naming::Initialising(by)) if by.store == member.store && by.name == name => {
                let is_later = member.incarnation > by.incarnation;
                is_later && (is_empty || self.keeps(Rule::NamedAgainWithDatabase))
            }
            Some(Naming::Initialising(_)) => is_empty,
        };
        fits && !is_known && member.answers() && state.namings < self.bounds.namings
    }

    fn offer_member(&self, state: &State, name: Name, actions: &mut Vec<Action>) {
        let member = &state.members[name];
        let is_named = state.names(member.process(name));
        if is_named && !member.was_named {
            actions.push(Action::Read(name));
        }
        if member.was_named && !member.is_ready {
            actions.push(Action::Initialise(name));
        }
        if member.is_ready && is_named {
            actions.push(Action::Take(name));
            if member.delayed.is_none() {
                actions.push(Action::SendTake(name));
            }
        }
        if member.delayed.is_some() {
            actions.extend([Action::TakeLands(name), Action::TakeIsLost(name)]);
        }
        if member.is_silent {
            actions.push(Action::Answer(name));
        }
    }

    fn offer_faults(&self, state: &State, actions: &mut Vec<Action>) {
        for name in Name::ALL {
            if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash(name));
            }
            if state.volumes < self.bounds.volumes {
                actions.push(Action::LoseVolume(name));
            }
            if state.silences < self.bounds.silences && state.members[name].answers() {
                actions.push(Action::FallSilent(name));
            }
        }
        // The finalizer gives the operator the time to note the database.
        let is_noted = state.held == 0 || state.noted.is_some();
        let may_delete = is_noted || !self.keeps(Rule::NotedBeforeDeletion);
        if state.lease.is_some() && state.deletions < self.bounds.deletions && may_delete {
            actions.push(Action::Delete);
        }
    }
}

impl Lively for Model {
    /// There is a database, and it can be served.
    fn is_served(&self, _: Question, state: &State) -> bool {
        match state.lease {
            Some(Lease { naming: Naming::Held(by), dbid }) => {
                let holder = &state.members[by.name];
                holder.store == by.store && dbid.is_some() && holder.dbid == dbid
            }
            Some(_) | None => false,
        }
    }

    /// A Lease that was deleted is R21's matter, and so is the store of a holder that is gone.
    fn is_judged(&self, _: Question, state: &State) -> bool {
        match state.lease {
            Some(Lease { naming: Naming::Held(by), .. }) => {
                state.members[by.name].store == by.store
            }
            Some(_) => self.leaves_a_naming(state),
            None => false,
        }
    }

    fn allows(_: Question, action: Action) -> bool {
        !action.is_fault()
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for which in 0..state.operators.len() {
            self.offer_operator(state, which, actions);
        }
        if state.noted.is_none() && state.held_now().is_some() {
            actions.push(Action::Note);
        }
        for name in Name::ALL {
            self.offer_member(state, name, actions);
        }
        self.offer_faults(state, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        self.take(&mut state, action);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rows::properties()
    }
}
