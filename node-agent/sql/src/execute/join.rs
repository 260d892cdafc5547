//! Joins: by the right side's index, by hash, or row by row.

use super::{
    query::{Consumer, Flow, collect, run as run_node},
    room::Kept,
};
use crate::{
    aggregate::Sortable,
    error::SqlError,
    eval::{Env, Pair, Tuple, Values, eval, is_true},
    expr::Expr,
    plan::{JoinKind, JoinMethod, JoinNode},
};
use std::collections::{BTreeMap, btree_map::Entry};
use understudy_store::Value;

/// Joins the node's inputs.
pub(crate) fn run(
    node: &JoinNode,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    match &node.method {
        JoinMethod::Lateral => lateral(node, env, consume),
        JoinMethod::Hash(keys) => {
            let mut right = collect(&node.right, env)?;
            let table = hashed(&mut right, keys, env)?;
            kept(node, right, env, consume, &mut |left| {
                let key: Result<Vec<Value>, SqlError> =
                    keys.iter().map(|(expr, _)| eval(expr, left, env)).collect();
                Ok(Candidates::These(table.get(&Sortable(key?)).map_or(&[], Vec::as_slice)))
            })
        }
        JoinMethod::Loop => {
            let right = collect(&node.right, env)?;
            kept(node, right, env, consume, &mut |_| Ok(Candidates::All))
        }
    }
}

/// The positions of the right rows by their keys; a row with a null among them matches nothing.
fn hashed(
    right: &mut Kept,
    keys: &[(Expr, Expr)],
    env: &Env<'_>,
) -> Result<BTreeMap<Sortable, Vec<usize>>, SqlError> {
    let mut table: BTreeMap<Sortable, Vec<usize>> = BTreeMap::new();
    for (position, row) in right.rows.iter().enumerate() {
        let key: Result<Vec<Value>, SqlError> =
            keys.iter().map(|(_, expr)| eval(expr, &Values(row), env)).collect();
        let key = key?;
        if key.iter().any(Value::is_null) {
            continue;
        }
        let positions = match table.entry(Sortable(key)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                right.room.keep(env.run, &new.key().0)?;
                new.insert(Vec::new())
            }
        };
        right.room.push(env.run, positions, position)?;
    }
    Ok(table)
}

/// Left and inner joins whose right side is read anew for each left row.
fn lateral(node: &JoinNode, env: &Env<'_>, consume: &mut Consumer<'_>) -> Result<Flow, SqlError> {
    run_node(&node.left, env, &mut |left| {
        let inner = Env { lateral: Some(left), ..*env };
        let mut matched = false;
        let flow = run_node(&node.right, &inner, &mut |right| {
            let pair = Pair { left: Some(left), right: Some(right), left_width: node.left_width };
            if let Some(on) = &node.on
                && !is_true(on, &pair, env)?
            {
                return Ok(Flow::More);
            }
            matched = true;
            consume(&pair)
        })?;
        if flow == Flow::Enough || matched || node.kind == JoinKind::Inner {
            return Ok(flow);
        }
        consume(&Pair { left: Some(left), right: None, left_width: node.left_width })
    })
}

/// The right rows that a left row may match.
enum Candidates<'a> {
    All,
    /// Those at these positions.
    These(&'a [usize]),
}

/// Joins with the right side in hand; keeps unmatched rows as the kind says.
fn kept<'a>(
    node: &JoinNode,
    Kept { rows: right, mut room }: Kept,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
    candidates: &mut dyn FnMut(&dyn Tuple) -> Result<Candidates<'a>, SqlError>,
) -> Result<Flow, SqlError> {
    room.take(env.run, right.len() as u64)?;
    let mut partnered = vec![false; right.len()];
    let keeps_left = matches!(node.kind, JoinKind::Left | JoinKind::Full);
    let flow = run_node(&node.left, env, &mut |left| {
        let mut matched = false;
        let (count, listed) = match candidates(left)? {
            Candidates::All => (right.len(), None),
            Candidates::These(positions) => (positions.len(), Some(positions)),
        };
        for at in 0..count {
            let position = listed.map_or(at, |positions| positions[at]);
            env.run.goes_on()?;
            let values = Values(&right[position]);
            let pair = Pair { left: Some(left), right: Some(&values), left_width: node.left_width };
            if let Some(on) = &node.on
                && !is_true(on, &pair, env)?
            {
                continue;
            }
            matched = true;
            partnered[position] = true;
            if consume(&pair)? == Flow::Enough {
                return Ok(Flow::Enough);
            }
        }
        if matched || !keeps_left {
            return Ok(Flow::More);
        }
        consume(&Pair { left: Some(left), right: None, left_width: node.left_width })
    })?;
    if flow == Flow::Enough || !matches!(node.kind, JoinKind::Right | JoinKind::Full) {
        return Ok(flow);
    }
    for (row, _) in right.iter().zip(&partnered).filter(|(_, partnered)| !**partnered) {
        let values = Values(row);
        let pair = Pair { left: None, right: Some(&values), left_width: node.left_width };
        if consume(&pair)? == Flow::Enough {
            return Ok(Flow::Enough);
        }
    }
    Ok(Flow::More)
}
