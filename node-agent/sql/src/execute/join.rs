//! Joins: by the right side's index, by hash, or row by row.

use super::{
    query::{Consumer, Flow, collect, run as run_node},
    room::Room,
};
use crate::{
    aggregate::Sortable,
    error::SqlError,
    eval::{Env, Pair, Tuple, Values, eval, is_true},
    plan::{JoinKind, JoinMethod, JoinNode},
};
use std::collections::BTreeMap;
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
            let right = collect(&node.right, env)?;
            let mut room = Room::new(env);
            room.keep_all(&right)?;
            let mut table: BTreeMap<Sortable, Vec<usize>> = BTreeMap::new();
            for (position, row) in right.iter().enumerate() {
                let key: Result<Vec<Value>, SqlError> =
                    keys.iter().map(|(_, expr)| eval(expr, &Values(row), env)).collect();
                let key = key?;
                if !key.iter().any(Value::is_null) {
                    table.entry(Sortable(key)).or_default().push(position);
                }
            }
            kept(node, &right, env, consume, &mut |left| {
                let key: Result<Vec<Value>, SqlError> =
                    keys.iter().map(|(expr, _)| eval(expr, left, env)).collect();
                Ok(table.get(&Sortable(key?)).cloned().unwrap_or_default())
            })
        }
        JoinMethod::Loop => {
            let right = collect(&node.right, env)?;
            let mut room = Room::new(env);
            room.keep_all(&right)?;
            let every: Vec<usize> = (0..right.len()).collect();
            kept(node, &right, env, consume, &mut |_| Ok(every.clone()))
        }
    }
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

/// Gives the positions of the right rows that a left row may match.
type Candidates<'a> = dyn FnMut(&dyn Tuple) -> Result<Vec<usize>, SqlError> + 'a;

/// Joins with the right side in hand; keeps unmatched rows as the kind says.
fn kept(
    node: &JoinNode,
    right: &[Vec<Value>],
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
    candidates: &mut Candidates<'_>,
) -> Result<Flow, SqlError> {
    let mut partnered = vec![false; right.len()];
    let keeps_left = matches!(node.kind, JoinKind::Left | JoinKind::Full);
    let flow = run_node(&node.left, env, &mut |left| {
        let mut matched = false;
        for position in candidates(left)? {
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
