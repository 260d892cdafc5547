//! AG EF serving: from every reached state that is judged, a state in which somebody can acknowledge
//! is reachable without a further fault.
//!
//! This is reachability, not a bound on time. Judged are the states whose epochs leave room below the
//! bound for new ones; in a scenario, those in which the rules promise that somebody can serve.

use crate::{
    action::Action,
    explore::{Edge, Walk},
    model::{ApiFault, DataPath, Model},
    state::{Fault, Member, Name, Role, State},
};
use std::hash::Hash;

/// Who is there to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Both members.
    Both,
    /// The other one does nothing ever again. Judged are the states in which this one is eligible.
    Only(Name),
}

/// A model of which liveness can be asked.
pub(crate) trait Lively: stateright::Model<State: Hash, Action: Copy> {
    /// Somebody serves.
    fn is_served(&self, question: Question, state: &Self::State) -> bool;
    /// Somebody must be able to serve again.
    fn is_judged(&self, question: Question, state: &Self::State) -> bool;
    /// The way there may take this step.
    fn allows(question: Question, action: Self::Action) -> bool;
}

impl Lively for Model {
    fn is_served(&self, question: Question, state: &State) -> bool {
        question.is_served(self, state)
    }

    fn is_judged(&self, question: Question, state: &State) -> bool {
        question.is_judged(self, state)
    }

    fn allows(question: Question, action: Action) -> bool {
        question.allows(action)
    }
}

/// What an AG EF run found.
#[derive(Debug)]
pub struct Liveness<A> {
    /// States reached.
    pub states: usize,
    /// States reached, also those known before.
    pub generated: usize,
    /// The depth of the deepest state.
    pub depth: usize,
    /// States judged.
    pub judged: usize,
    /// States among them from which nobody can serve any more.
    pub stuck: usize,
    /// A shortest path to such a state.
    pub path: Option<Vec<A>>,
}

/// What a run asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who is there to serve.
    pub survivors: Survivors,
    /// How far below the highest epoch the judged states stay.
    pub epochs_left: u8,
}

/// Explores everything, then goes backwards from the states that serve.
pub(crate) fn check<M: Lively>(model: &M, question: Question) -> Liveness<M::Action> {
    let mut walk = Walk::new(model);
    let (mut serves, mut judged) = (Vec::new(), Vec::new());
    let (mut edges, mut kept) = (Vec::new(), Vec::new());
    while let Some((_, state)) = walk.advance(&mut edges) {
        serves.push(model.is_served(question, &state));
        judged.push(model.is_judged(question, &state));
        let counts = |edge: &&Edge<M::Action>| M::allows(question, edge.action);
        kept.extend(edges.iter().filter(counts).map(|edge| (edge.from, edge.to)));
    }
    let can_serve = backwards(serves, &kept);
    let is_stuck = |at: &usize| judged[*at] && !can_serve[*at];
    let first = (0..walk.len()).find(is_stuck).and_then(|at| u32::try_from(at).ok());
    Liveness {
        states: walk.len(),
        generated: walk.generated,
        depth: walk.depth(),
        judged: judged.iter().filter(|judged| **judged).count(),
        stuck: (0..walk.len()).filter(is_stuck).count(),
        path: first.map(|at| walk.path_to(at)),
    }
}

/// All states from which one of the marked states is reachable.
fn backwards(mut marked: Vec<bool>, edges: &[(u32, u32)]) -> Vec<bool> {
    // The edges into each state lie side by side in `sources`; `starts` says where.
    let mut starts = vec![0usize; marked.len() + 1];
    for (_, to) in edges {
        starts[*to as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut sources = vec![0u32; edges.len()];
    let mut next = starts.clone();
    for (from, to) in edges {
        sources[next[*to as usize]] = *from;
        next[*to as usize] += 1;
    }
    let mut open: Vec<usize> = (0..marked.len()).filter(|at| marked[*at]).collect();
    while let Some(at) = open.pop() {
        for source in &sources[starts[at]..starts[at + 1]] {
            if !std::mem::replace(&mut marked[*source as usize], true) {
                open.push(*source as usize);
            }
        }
    }
    marked
}

impl Question {
    fn allows(self, action: Action) -> bool {
        let possible = match self.survivors {
            Survivors::Both => true,
            Survivors::Only(name) => action.needs_only(name),
        };
        possible && !action.is_fault()
    }

    fn is_served(self, model: &Model, state: &State) -> bool {
        let serves = |name: Name| {
            can_acknowledge(&state.members[name], state) && !model.data_path_is_dead(state, name)
        };
        match self.survivors {
            Survivors::Both => Name::ALL.into_iter().any(serves),
            Survivors::Only(name) => {
                Name::ALL.into_iter().any(serves) && state.members[name].has_authority()
            }
        }
    }

    fn is_judged(self, model: &Model, state: &State) -> bool {
        let promised = state.members.iter().map(|member| member.promised).max();
        let highest = promised.unwrap_or_default().max(state.lease.epoch);
        highest + self.epochs_left <= model.bounds.epochs
            && scenario_promises_service(model, state)
            && self.survivor_may_serve(model, state)
    }

    /// The survivor is eligible, and nothing of the silent member is left that could overtake it.
    fn survivor_may_serve(self, model: &Model, state: &State) -> bool {
        let Survivors::Only(name) = self.survivors else { return true };
        let silent = &state.members[name.other()];
        model.is_eligible(state, name)
            && !state.members[name].compared
            && silent.promised <= state.lease.epoch
            && silent.delayed.is_none()
    }
}

fn can_acknowledge(member: &Member, state: &State) -> bool {
    member.has_authority()
        && member.epoch == state.lease.epoch
        && (member.solo || member.peer_has_all())
}

/// During the fault: with the API server away from all, A as the undisputed holder; with a one-way link
/// and nothing else, anybody; else B, if it is eligible.
fn scenario_promises_service(model: &Model, state: &State) -> bool {
    let Some(scenario) = model.scenario else { return true };
    if state.fault != Fault::Present {
        return false;
    }
    match scenario.api {
        ApiFault::AwayFromAll => {
            state.members[Name::A].role == Role::Active
                && model.holds_lease_of_its_epoch(state, Name::A)
                && state.members[Name::B].promised <= state.lease.epoch
        }
        ApiFault::Fine if scenario.data_path == DataPath::Alive => true,
        ApiFault::Fine | ApiFault::AwayFromA | ApiFault::AnswersToALost => {
            model.is_eligible(state, Name::B)
        }
    }
}
