//! A plain breadth-first walk that keeps what stateright's own checker does not: the graph, for
//! liveness, and the first step to each state, for the shortest story of a violation.

use anyhow::Context;
use stateright::{Model, Property};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

/// States are told apart by 64 bits of hash, as stateright does.
type Fingerprints = HashMap<u64, u32, BuildHasherDefault<Ready>>;

/// A fingerprint is a hash already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are keys")
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// The states in the order they were first reached.
pub(crate) struct Walk<'m, M: Model> {
    model: &'m M,
    known: Fingerprints,
    /// How each state was first reached: from which, by what. The initial state comes from itself.
    origins: Vec<(u32, Option<M::Action>)>,
    ahead: VecDeque<M::State>,
    /// How many states are on a shortest path to each state, itself and the initial one included.
    depths: Vec<u16>,
    expanded: u32,
    /// States reached, also those known before.
    pub(crate) generated: usize,
}

/// One edge of the graph.
pub(crate) struct Edge<A> {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) action: A,
}

impl<'m, M: Model<State: Hash, Action: Copy>> Walk<'m, M> {
    /// Stands before the initial state.
    pub(crate) fn new(model: &'m M) -> Self {
        let mut walk = Self {
            model,
            known: Fingerprints::default(),
            origins: Vec::new(),
            ahead: VecDeque::new(),
            depths: Vec::new(),
            expanded: 0,
            generated: 0,
        };
        for state in model.init_states() {
            walk.reach(state, (0, None));
        }
        walk
    }

    /// How many states were reached.
    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }

    /// The depth of the deepest state, counted as stateright counts it.
    pub(crate) fn depth(&self) -> usize {
        self.depths.last().map_or(0, |depth| usize::from(*depth))
    }

    /// Leaves the next state: gives it, its number, and its edges.
    pub(crate) fn advance(&mut self, edges: &mut Vec<Edge<M::Action>>) -> Option<(u32, M::State)> {
        edges.clear();
        let state = self.ahead.pop_front()?;
        let from = self.expanded;
        self.expanded += 1;
        let mut actions = Vec::new();
        self.model.actions(&state, &mut actions);
        for action in actions {
            if let Some(next) = self.model.next_state(&state, action) {
                let to = self.reach(next, (from, Some(action)));
                edges.push(Edge { from, to, action });
            }
        }
        Some((from, state))
    }

    fn reach(&mut self, state: M::State, origin: (u32, Option<M::Action>)) -> u32 {
        self.generated += 1;
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let number = u32::try_from(self.origins.len()).expect("a row has fewer than 2^32 states");
        let known = *self.known.entry(hasher.finish()).or_insert(number);
        if known == number {
            let before = self.depths.get(origin.0 as usize).copied().unwrap_or_default();
            self.origins.push(origin);
            self.depths.push(before + 1);
            self.ahead.push_back(state);
        }
        known
    }

    /// The steps by which a state was first reached.
    pub(crate) fn path_to(&self, state: u32) -> Vec<M::Action> {
        let mut path = Vec::new();
        let mut at = state;
        while let (from, Some(action)) = self.origins[at as usize] {
            path.push(action);
            at = from;
        }
        path.reverse();
        path
    }
}

/// What the search for a violation found.
pub(crate) struct Search<A> {
    /// A shortest path to a violation.
    pub(crate) path: Option<Vec<A>>,
    /// States reached.
    pub(crate) states: usize,
    /// States reached, also those known before.
    pub(crate) generated: usize,
    /// The depth of the deepest state.
    pub(crate) depth: usize,
}

/// Looks for a shortest path to a state in which this property does not hold.
///
/// # Errors
/// When the model has no such property.
pub(crate) fn shortest_violation<M: Model<State: Hash, Action: Copy>>(
    model: &M,
    property: &str,
) -> anyhow::Result<Search<M::Action>> {
    let properties: Vec<Property<M>> = model.properties();
    let property = properties
        .into_iter()
        .find(|known| known.name == property)
        .with_context(|| format!("no property {property:?}"))?;
    let mut walk = Walk::new(model);
    let mut edges = Vec::new();
    let mut path = None;
    while let Some((number, state)) = walk.advance(&mut edges) {
        if !(property.condition)(model, &state) {
            path = Some(walk.path_to(number));
            break;
        }
    }
    Ok(Search { path, states: walk.len(), generated: walk.generated, depth: walk.depth() })
}

/// The states along a path, the initial one first.
pub(crate) fn states_along<M: Model<Action: Copy>>(model: &M, path: &[M::Action]) -> Vec<M::State> {
    let mut states = model.init_states();
    states.truncate(1);
    for action in path {
        let before = states.last().expect("it begins with the initial state");
        let after = model.next_state(before, *action).expect("a step of a path changes the state");
        states.push(after);
    }
    states
}
