//! A graph of *comes before*: its knots (strongly connected parts) and their shortest circles.
//!
//! The search runs over *states*. A state is a node, and whether it was entered by rw; a layer that
//! forbids two rw in a row never leaves a state that was entered by rw through another rw. So a circle
//! of states is a circle of the kind that the layer looks for, whatever its length, and one pass over
//! the edges finds all knots (Tarjan's algorithm, without recursion).
//!
//! Nodes beyond the transactions are moments: an acknowledgement leads into its moment, each moment into
//! the next, and a moment to those who began after it. So real time costs three edges a transaction.

use super::{Key, Value};
use std::collections::VecDeque;

/// Most circles of a knot that are measured, to find a short one.
const CIRCLES_MAX: usize = 256;
/// Most steps after which another circle of the same knot is begun.
const STEPS_MAX: usize = 2_000_000;

/// Why one transaction comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its value is right before the other's in the list.
    Ww { key: Key, before: Value, value: Value },
    /// The other read its value as the last one.
    Wr { key: Key, value: Value },
    /// It read the list without the other's value, which is the next one.
    Rw { key: Key, value: Value },
    /// It was acknowledged before the other began.
    Rt,
}

/// A set of reasons' kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const WW: Self = Self(1);
    pub(super) const WR: Self = Self(2);
    pub(super) const RW: Self = Self(4);
    pub(super) const RT: Self = Self(8);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn hold(self, reason: Reason) -> bool {
        let kind = match reason {
            Reason::Ww { .. } => Self::WW,
            Reason::Wr { .. } => Self::WR,
            Reason::Rw { .. } => Self::RW,
            Reason::Rt => Self::RT,
        };
        self.0 & kind.0 != 0
    }
}

/// One transaction comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) reason: Reason,
}

/// Which circles count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    /// Edges that are followed.
    pub(super) kinds: Kinds,
    /// A circle needs at least one of these.
    pub(super) must: Kinds,
    /// Whether one rw may follow another.
    pub(super) may_adjoin: bool,
}

impl Layer {
    /// The state after an edge, when the edge may be taken.
    fn step(&self, state: usize, edge: &Edge) -> Option<usize> {
        if !self.kinds.hold(edge.reason) {
            return None;
        }
        let counts = !self.may_adjoin && Kinds::RW.hold(edge.reason);
        if counts && state % 2 == 1 {
            return None;
        }
        Some(edge.to * 2 + usize::from(counts))
    }
}

/// Edges by where they begin.
pub(super) struct Graph {
    /// How many nodes are transactions; the rest are moments.
    transactions: usize,
    /// Where each node's edges begin, and where the last one's end.
    starts: Vec<usize>,
    edges: Vec<Edge>,
}

/// The knots of a layer.
pub(super) struct Knots {
    /// The knot of each state; every state is in one, most are alone.
    of: Vec<u32>,
    /// The states of each knot of more than one.
    pub(super) members: Vec<Vec<usize>>,
}

impl Graph {
    /// `nodes` of which the first `transactions` are transactions.
    pub(super) fn new(transactions: usize, nodes: usize, mut edges: Vec<Edge>) -> Self {
        edges.sort_by_key(|edge| edge.from);
        let mut starts = vec![0; nodes + 1];
        for edge in &edges {
            starts[edge.from + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        Self { transactions, starts, edges }
    }

    fn states(&self) -> usize {
        (self.starts.len() - 1) * 2
    }

    /// Places of the edges that leave a state.
    fn leaving(&self, state: usize) -> std::ops::Range<usize> {
        self.starts[state / 2]..self.starts[state / 2 + 1]
    }

    /// Finds the knots of a layer.
    pub(super) fn knots(&self, layer: &Layer) -> Knots {
        let mut tarjan = Tarjan::new(self.states());
        for state in 0..self.states() {
            if tarjan.number[state] == 0 {
                tarjan.visit(self, layer, state);
            }
        }
        Knots { of: tarjan.knot, members: tarjan.members }
    }

    /// The shortest circle of a knot that holds what the layer asks for and that `accept` takes.
    pub(super) fn circle(
        &self,
        layer: &Layer,
        knots: &Knots,
        members: &[usize],
        search: &mut Search,
        accept: impl Fn(&[Edge]) -> bool,
    ) -> Option<Vec<Edge>> {
        let mut best: Option<(usize, Vec<Edge>)> = None;
        let (mut circles, mut steps) = (0, 0);
        for &from in members.iter().filter(|state| **state / 2 < self.transactions) {
            for place in self.leaving(from) {
                let edge = &self.edges[place];
                let Some(to) = layer.step(from, edge).filter(|_| layer.must.hold(edge.reason))
                else {
                    continue;
                };
                if knots.of[from] != knots.of[to] {
                    continue;
                }
                if circles == CIRCLES_MAX || steps > STEPS_MAX {
                    return best.map(|(_, circle)| circle);
                }
                circles += 1;
                let bound = best.as_ref().map_or(usize::MAX, |(length, _)| *length);
                let way = Way { layer, knots, from: to, to: from, bound };
                let Some(length) = search.run(self, &way, &mut steps) else { continue };
                let mut circle = vec![*edge];
                circle.extend(search.path(self, to, from));
                let circle = self.without_moments(&circle);
                if accept(&circle) {
                    best = Some((length, circle));
                }
            }
        }
        best.map(|(_, circle)| circle)
    }

    /// A circle over transactions only: one step of time instead of one for each moment.
    fn without_moments(&self, circle: &[Edge]) -> Vec<Edge> {
        let mut told: Vec<Edge> = Vec::with_capacity(circle.len());
        for edge in circle {
            match told.last_mut() {
                Some(last) if edge.from >= self.transactions => last.to = edge.to,
                _ => told.push(*edge),
            }
        }
        told
    }
}

/// Tarjan's algorithm with its own stack.
struct Tarjan {
    /// Order of the first visit, from 1; 0 is not visited.
    number: Vec<u32>,
    /// Lowest number that is reached.
    low: Vec<u32>,
    /// The finished knot; `u32::MAX` while it is open.
    knot: Vec<u32>,
    open: Vec<usize>,
    visited: u32,
    finished: u32,
    members: Vec<Vec<usize>>,
}

impl Tarjan {
    fn new(states: usize) -> Self {
        Self {
            number: vec![0; states],
            low: vec![0; states],
            knot: vec![u32::MAX; states],
            open: Vec::new(),
            visited: 0,
            finished: 0,
            members: Vec::new(),
        }
    }

    fn enter(&mut self, state: usize) {
        self.visited += 1;
        self.number[state] = self.visited;
        self.low[state] = self.visited;
        self.open.push(state);
    }

    fn visit(&mut self, graph: &Graph, layer: &Layer, root: usize) {
        self.enter(root);
        let mut way = vec![(root, graph.leaving(root))];
        while let Some((state, leaving)) = way.last_mut() {
            let state = *state;
            let Some(place) = leaving.next() else {
                way.pop();
                if let Some((above, _)) = way.last() {
                    self.low[*above] = self.low[*above].min(self.low[state]);
                }
                self.close(state);
                continue;
            };
            let Some(next) = layer.step(state, &graph.edges[place]) else { continue };
            if self.number[next] == 0 {
                self.enter(next);
                way.push((next, graph.leaving(next)));
            } else if self.knot[next] == u32::MAX {
                self.low[state] = self.low[state].min(self.number[next]);
            }
        }
    }

    /// Takes a finished knot off the stack, when `state` is its first.
    fn close(&mut self, state: usize) {
        if self.low[state] != self.number[state] {
            return;
        }
        let first = self.open.iter().rposition(|s| *s == state).expect("it was entered");
        let members = self.open.split_off(first);
        for member in &members {
            self.knot[*member] = self.finished;
        }
        self.finished += 1;
        if members.len() > 1 {
            self.members.push(members);
        }
    }
}

/// From where to where, and through what.
struct Way<'a> {
    layer: &'a Layer,
    knots: &'a Knots,
    from: usize,
    to: usize,
    /// Only circles of fewer transactions are looked for.
    bound: usize,
}

/// Breadth first, with memory that is used again.
pub(super) struct Search {
    /// Which run reached each state last.
    run: Vec<u32>,
    /// Transactions on the way to it, in that run.
    length: Vec<usize>,
    /// The state before it, and the edge's place.
    before: Vec<(usize, usize)>,
    runs: u32,
}

impl Search {
    /// Memory for a graph.
    pub(super) fn new(graph: &Graph) -> Self {
        let states = graph.states();
        Self {
            run: vec![0; states],
            length: vec![0; states],
            before: vec![(0, 0); states],
            runs: 0,
        }
    }

    /// How many transactions the shortest circle holds: a step from a moment costs nothing.
    fn run(&mut self, graph: &Graph, way: &Way<'_>, steps: &mut usize) -> Option<usize> {
        self.runs += 1;
        self.run[way.from] = self.runs;
        // The edge that leads here leaves a transaction.
        self.length[way.from] = 1;
        let mut queue = VecDeque::from([(way.from, 1)]);
        while let Some((state, length)) = queue.pop_front() {
            *steps += 1;
            if length > self.length[state] {
                continue;
            }
            if state == way.to {
                return Some(length);
            }
            let cost = usize::from(state / 2 < graph.transactions);
            let length = length + cost;
            if length >= way.bound {
                continue;
            }
            for place in graph.leaving(state) {
                let Some(next) = way.layer.step(state, &graph.edges[place]) else { continue };
                let is_inside = way.knots.of[next] == way.knots.of[way.to];
                let is_new = self.run[next] != self.runs || length < self.length[next];
                if !is_inside || !is_new {
                    continue;
                }
                self.run[next] = self.runs;
                self.length[next] = length;
                self.before[next] = (state, place);
                if cost == 0 {
                    queue.push_front((next, length));
                } else {
                    queue.push_back((next, length));
                }
            }
        }
        None
    }

    /// The edges of the last run's way.
    fn path(&self, graph: &Graph, from: usize, to: usize) -> Vec<Edge> {
        let mut path = Vec::new();
        let mut state = to;
        while state != from {
            let (before, place) = self.before[state];
            path.push(graph.edges[place]);
            state = before;
        }
        path.reverse();
        path
    }
}
