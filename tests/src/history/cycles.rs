//! Circles of *comes before*, layer by layer: each layer follows more kinds of edges than the one before.

use super::{
    Kind, Level, Order, Verdict,
    graph::{Edge, Graph, Kinds, Layer, Reason, Search},
    observe::{Observed, known_end},
    words,
};

const DATA: Kinds = Kinds::WW.and(Kinds::WR);
const ALL: Kinds = DATA.and(Kinds::RW);

/// The layers of each level, and the level from which on they are forbidden.
const LAYERS: [(Level, Layer); 4] = [
    (Level::ReadCommitted, Layer { kinds: Kinds::WW, must: Kinds::WW, may_adjoin: true }),
    (Level::ReadCommitted, Layer { kinds: DATA, must: Kinds::WR, may_adjoin: true }),
    (Level::Snapshot, Layer { kinds: ALL, must: Kinds::RW, may_adjoin: false }),
    (Level::Serializable, Layer { kinds: ALL, must: Kinds::RW, may_adjoin: true }),
];

/// Looks for circles that the level forbids.
pub(super) fn find(
    observed: &Observed<'_>,
    mut edges: Vec<Edge>,
    level: Level,
    order: Order,
    verdict: &mut Verdict,
) {
    let transactions = observed.history.len();
    let mut nodes = transactions;
    if order == Order::RealTime {
        nodes += add_moments(observed, &mut edges);
    }
    let graph = Graph::new(transactions, nodes, edges);
    let mut search = Search::new(&graph);
    for (from, layer) in LAYERS.iter().filter(|(from, _)| *from <= level) {
        // A circle with G-single's form was told by the layer before.
        let is_last = *from == Level::Serializable;
        let accept = |circle: &[Edge]| !is_last || name(circle) == Kind::G2Item;
        find_in(observed, &graph, layer, &mut search, accept, verdict);
    }
    if order == Order::RealTime {
        let layer = with_time(level);
        find_in(observed, &graph, &layer, &mut search, |_| true, verdict);
    }
}

/// What the level forbids, with time as one more reason.
fn with_time(level: Level) -> Layer {
    let (kinds, may_adjoin) = match level {
        Level::ReadCommitted => (DATA, true),
        Level::Snapshot => (ALL, false),
        Level::Serializable => (ALL, true),
    };
    Layer { kinds: kinds.and(Kinds::RT), must: Kinds::RT, may_adjoin }
}

fn find_in(
    observed: &Observed<'_>,
    graph: &Graph,
    layer: &Layer,
    search: &mut Search,
    accept: impl Fn(&[Edge]) -> bool,
    verdict: &mut Verdict,
) {
    let knots = graph.knots(layer);
    for members in &knots.members {
        let Some(circle) = graph.circle(layer, &knots, members, search, &accept) else { continue };
        let transactions = circle.iter().map(|edge| edge.from).collect();
        verdict.add(name(&circle), transactions, || words::circle(observed.history, &circle));
    }
}

/// A circle's name by its reasons.
fn name(circle: &[Edge]) -> Kind {
    let is = |kinds: Kinds| move |edge: &Edge| kinds.hold(edge.reason);
    let next = circle.iter().cycle().skip(1);
    let adjoins = circle.iter().zip(next).any(|(a, b)| is(Kinds::RW)(a) && is(Kinds::RW)(b));
    match circle.iter().copied().filter(is(Kinds::RW)).count() {
        _ if circle.iter().any(is(Kinds::RT)) => Kind::RealTime,
        0 if circle.iter().any(is(Kinds::WR)) => Kind::G1c,
        0 => Kind::G0,
        1 => Kind::GSingle,
        _ if adjoins => Kind::G2Item,
        _ => Kind::GNonadjacent,
    }
}

/// One moment for each acknowledgement; returns how many.
fn add_moments(observed: &Observed<'_>, edges: &mut Vec<Edge>) -> usize {
    let first = observed.history.len();
    let mut ends: Vec<(u64, usize)> = observed
        .happened()
        .filter_map(|(place, transaction)| Some((known_end(transaction)?, place)))
        .collect();
    ends.sort_unstable();
    let mut add = |from, to| edges.push(Edge { from, to, reason: Reason::Rt });
    for (moment, (_, acknowledged)) in ends.iter().enumerate() {
        add(*acknowledged, first + moment);
        if moment > 0 {
            add(first + moment - 1, first + moment);
        }
    }
    for (place, transaction) in observed.happened() {
        let passed = ends.partition_point(|(end, _)| *end < transaction.begun_ns);
        if passed > 0 {
            add(first + passed - 1, place);
        }
    }
    ends.len()
}
