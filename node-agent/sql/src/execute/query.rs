//! Queries: each step pushes its tuples to the next, so that nothing is kept but what sorting, grouping
//! and hashing need. That is charged where it grows (`room`).

use super::{
    SharedRows, compare_keys, constants, join,
    room::{Kept, Room},
    rows,
};
use crate::{
    aggregate::{Gathered, Sortable},
    arithmetic,
    error::{SqlError, state},
    eval::{Env, Frame, NoColumns, Tuple, Values, compare_values, eval, eval_all, is_true},
    expr::{ArithmeticOp, CompareOp, Expr, MomentOp},
    plan::{Node, Query, SetOperation, SortKey},
    system,
    types::Type,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    rc::Rc,
};
use understudy_store::Value;

/// Whether a consumer wants more tuples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    More,
    Enough,
}

/// Takes tuples.
pub(crate) type Consumer<'a> = dyn FnMut(&dyn Tuple) -> Result<Flow, SqlError> + 'a;

/// Runs a node; the consumer may end it early.
pub(crate) fn run(
    node: &Node,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    match env.run.measures {
        Some(measures) => measures.run(node, env, consume),
        None => produce(node, env, consume),
    }
}

/// Runs a node without remembering what it does.
pub(super) fn produce(
    node: &Node,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    match node {
        Node::Nothing => consume(&NoColumns),
        Node::Values(rows) => {
            for row in rows {
                env.run.goes_on()?;
                if consume(&Values(&constants(row, env)?))? == Flow::Enough {
                    return Ok(Flow::Enough);
                }
            }
            Ok(Flow::More)
        }
        Node::Table(table) => rows::table(table, env, &mut |tuple| consume(tuple)),
        Node::Series { from, to, step, ty } => series((from, to, step.as_ref()), *ty, env, consume),
        Node::Items { array, item, numbered } => items(array, (*item, *numbered), env, consume),
        Node::Sequence(sequence) => consume(&Values(&system::sequence_row(sequence, env)?)),
        Node::System(view) => system::rows(*view, env, consume),
        Node::Filter { input, predicate } => run(input, env, &mut |tuple| {
            if is_true(predicate, tuple, env)? { consume(tuple) } else { Ok(Flow::More) }
        }),
        Node::Project { input, exprs } => {
            let mut values = Vec::with_capacity(exprs.len());
            run(input, env, &mut |tuple| {
                values.clear();
                for expr in exprs {
                    values.push(eval(expr, tuple, env)?);
                }
                consume(&Values(&values))
            })
        }
        Node::Join(node) => join::run(node, env, consume),
        Node::Aggregate { input, groups, calls } => aggregate((input, groups, calls), env, consume),
        Node::Sort { input, keys } => sort(input, keys, env, consume),
        Node::Limit { input, limit, offset } => {
            self::limit(input, (limit.as_ref(), offset.as_ref()), env, consume)
        }
        Node::Distinct { input, on } => distinct(input, on.as_deref(), env, consume),
        Node::Set { operation, all, left, right } => {
            set((*operation, *all), left, right, env, consume)
        }
    }
}

/// How many columns a node's tuples have.
pub(crate) fn width(node: &Node) -> usize {
    match node {
        Node::Nothing => 0,
        Node::Values(rows) => rows.first().map_or(0, Vec::len),
        Node::Table(table) => table.width(),
        Node::Series { .. } => 1,
        Node::Items { numbered, .. } => 1 + usize::from(*numbered),
        Node::Sequence(sequence) => sequence.columns.len(),
        Node::System(view) => view.columns().len(),
        Node::Filter { input, .. }
        | Node::Sort { input, .. }
        | Node::Limit { input, .. }
        | Node::Distinct { input, .. } => width(input),
        Node::Project { exprs, .. } => exprs.len(),
        Node::Join(join) => join.left_width + join.right_width,
        Node::Aggregate { groups, calls, .. } => groups.len() + calls.len(),
        Node::Set { left, .. } => width(left),
    }
}

/// A tuple's columns in hand.
pub(crate) fn copied(tuple: &dyn Tuple, width: usize) -> Vec<Value> {
    (0..width).map(|column| tuple.column(column).to_value()).collect()
}

/// Runs a node and hands its tuples on as slices of values; projections are not copied twice.
pub(crate) fn each(
    node: &Node,
    env: &Env<'_>,
    width: usize,
    consume: &mut dyn FnMut(&[Value]) -> Result<Flow, SqlError>,
) -> Result<Flow, SqlError> {
    if let Node::Project { input, exprs } = node {
        if let [expr] = &exprs[..] {
            return run(input, env, &mut |tuple| consume(&[eval(expr, tuple, env)?]));
        }
        let mut values = Vec::with_capacity(exprs.len());
        return run(input, env, &mut |tuple| {
            values.clear();
            for expr in exprs {
                values.push(eval(expr, tuple, env)?);
            }
            consume(&values)
        });
    }
    run(node, env, &mut |tuple| consume(&copied(tuple, width)))
}

/// All tuples of a node.
pub(crate) fn collect(node: &Node, env: &Env<'_>) -> Result<Kept, SqlError> {
    collect_some(node, env, u64::MAX)
}

/// The first tuples of a node.
pub(crate) fn collect_some(node: &Node, env: &Env<'_>, most: u64) -> Result<Kept, SqlError> {
    let mut kept = Kept::default();
    if most == 0 {
        return Ok(kept);
    }
    each(node, env, width(node), &mut |values| {
        kept.push(env.run, values)?;
        Ok(if kept.rows.len() as u64 == most { Flow::Enough } else { Flow::More })
    })?;
    Ok(kept)
}

/// The items of an array's text, `{1,2}`, or of a list of the catalog, `1 2`.
fn items(
    array: &Expr,
    (item, numbered): (Type, bool),
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    let Value::Text(text) = eval(array, &NoColumns, env)? else { return Ok(Flow::More) };
    let mut room = Room::default();
    room.take(env.run, crate::array::parsed_bytes(&text))?;
    let found = if text.trim_start().starts_with('{') {
        crate::array::parse(&text)?
    } else {
        text.split_whitespace().map(|item| Some(item.to_owned())).collect()
    };
    let zone = env.run.context.session.settings.zone_offset();
    for (position, text) in found.into_iter().enumerate() {
        env.run.goes_on()?;
        let value = match text {
            Some(text) => crate::text::parse_value(item, &text, zone)?,
            None => Value::Null,
        };
        let mut row = vec![value];
        row.extend(numbered.then_some(Value::Int(position as i64 + 1)));
        if consume(&Values(&row))? == Flow::Enough {
            return Ok(Flow::Enough);
        }
    }
    Ok(Flow::More)
}

fn series(
    (from, to, step): (&Expr, &Expr, Option<&Expr>),
    ty: Type,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    let mut bounds = constants(&[from.clone(), to.clone()], env)?;
    let step = match step {
        Some(step) => eval(step, &NoColumns, env)?,
        None => Value::Int(1),
    };
    let (Some(to), Some(mut at)) = (bounds.pop(), bounds.pop()) else { return Ok(Flow::More) };
    if at.is_null() || to.is_null() || step.is_null() {
        return Ok(Flow::More);
    }
    let upwards = match &step {
        Value::Int(0) => {
            return Err(SqlError::new(state::INVALID_PARAMETER, "step size cannot equal zero"));
        }
        Value::Int(step) => *step > 0,
        Value::Text(span) => {
            let probe = arithmetic::moment(MomentOp::PlusInterval, &at, &step)?;
            if probe == at {
                return Err(SqlError::new(
                    state::INVALID_PARAMETER,
                    format!("step size cannot equal zero: {span}"),
                ));
            }
            compare_values(probe.as_ref(), at.as_ref()).is_gt()
        }
        _ => return Err(SqlError::internal("a series of another type")),
    };
    loop {
        env.run.goes_on()?;
        let ordering = compare_values(at.as_ref(), to.as_ref());
        if if upwards { ordering.is_gt() } else { ordering.is_lt() } {
            return Ok(Flow::More);
        }
        if consume(&Values(std::slice::from_ref(&at)))? == Flow::Enough {
            return Ok(Flow::Enough);
        }
        let next = match ty {
            Type::Timestamp | Type::Timestamptz => {
                arithmetic::moment(MomentOp::PlusInterval, &at, &step)
            }
            _ => arithmetic::calculate(ArithmeticOp::Add, Type::Int8, at.as_ref(), step.as_ref()),
        };
        // A series that would leave its type has ended.
        match next {
            Ok(next) => at = next,
            Err(_) => return Ok(Flow::More),
        }
    }
}

fn aggregate(
    (input, groups, calls): (&Node, &[Expr], &[crate::aggregate::AggregateCall]),
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    let fresh = || -> Vec<Gathered> { calls.iter().map(|_| Gathered::default()).collect() };
    let gathered_bytes = (calls.len() * size_of::<Gathered>()) as u64;
    let mut gathered: BTreeMap<Sortable, Vec<Gathered>> = BTreeMap::new();
    if groups.is_empty() {
        gathered.insert(Sortable(Vec::new()), fresh());
    }
    let mut room = Room::default();
    run(input, env, &mut |tuple| {
        let group = match gathered.entry(Sortable(eval_all(groups, tuple, env)?)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                room.keep(env.run, &new.key().0)?;
                room.take(env.run, gathered_bytes)?;
                new.insert(fresh())
            }
        };
        for (call, state) in calls.iter().zip(group) {
            state.take(call, tuple, env, &mut room)?;
        }
        Ok(Flow::More)
    })?;
    for (Sortable(mut row), states) in gathered {
        // Held until the next group's results are made.
        let mut results = Room::default();
        for (call, state) in calls.iter().zip(states) {
            row.push(state.finish(call, env.run, &mut results)?);
        }
        if consume(&Values(&row))? == Flow::Enough {
            return Ok(Flow::Enough);
        }
    }
    Ok(Flow::More)
}

fn sort(
    input: &Node,
    keys: &[SortKey],
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    let columns = width(input);
    let mut rows: Vec<(Vec<Value>, Vec<Value>)> = Vec::new();
    let mut room = Room::default();
    run(input, env, &mut |tuple| {
        let key: Result<Vec<Value>, SqlError> =
            keys.iter().map(|key| eval(&key.expr, tuple, env)).collect();
        let (key, row) = (key?, copied(tuple, columns));
        room.keep(env.run, &key)?;
        room.keep(env.run, &row)?;
        rows.push((key, row));
        Ok(Flow::More)
    })?;
    rows.sort_by(|a, b| compare_keys(keys, &a.0, &b.0));
    for (_, row) in rows {
        if consume(&Values(&row))? == Flow::Enough {
            return Ok(Flow::Enough);
        }
    }
    Ok(Flow::More)
}

fn row_count(
    expr: Option<&Expr>,
    env: &Env<'_>,
    refusal: (&'static str, &str),
) -> Result<Option<u64>, SqlError> {
    let Some(expr) = expr else { return Ok(None) };
    match eval(expr, &NoColumns, env)? {
        Value::Int(count) => u64::try_from(count)
            .map(Some)
            .map_err(|_| SqlError::new(refusal.0, format!("{} must not be negative", refusal.1))),
        _ => Ok(None),
    }
}

/// The values of LIMIT (None: no limit) and OFFSET.
pub(crate) fn counts(
    (limit, offset): (Option<&Expr>, Option<&Expr>),
    env: &Env<'_>,
) -> Result<(Option<u64>, u64), SqlError> {
    let limit = row_count(limit, env, (state::BAD_LIMIT, "LIMIT"))?;
    let offset = row_count(offset, env, (state::BAD_OFFSET, "OFFSET"))?;
    Ok((limit, offset.unwrap_or(0)))
}

fn limit(
    input: &Node,
    (limit, offset): (Option<&Expr>, Option<&Expr>),
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    let (mut left, mut skip) = counts((limit, offset), env)?;
    if left == Some(0) {
        return Ok(Flow::More);
    }
    let mut outer = Flow::More;
    run(input, env, &mut |tuple| {
        if skip > 0 {
            skip -= 1;
            return Ok(Flow::More);
        }
        outer = consume(tuple)?;
        if let Some(left) = &mut left {
            *left -= 1;
        }
        Ok(if left == Some(0) { Flow::Enough } else { outer })
    })?;
    Ok(outer)
}

fn distinct(
    input: &Node,
    on: Option<&[Expr]>,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    let columns = width(input);
    let mut seen = BTreeSet::new();
    let mut room = Room::default();
    run(input, env, &mut |tuple| {
        let key = match on {
            Some(keys) => eval_all(keys, tuple, env)?,
            None => copied(tuple, columns),
        };
        let key = Sortable(key);
        if seen.contains(&key) {
            return Ok(Flow::More);
        }
        room.keep(env.run, &key.0)?;
        seen.insert(key);
        consume(tuple)
    })
}

fn set(
    (operation, all): (SetOperation, bool),
    left: &Node,
    right: &Node,
    env: &Env<'_>,
    consume: &mut Consumer<'_>,
) -> Result<Flow, SqlError> {
    if operation == SetOperation::Union && all {
        if run(left, env, consume)? == Flow::Enough {
            return Ok(Flow::Enough);
        }
        return run(right, env, consume);
    }
    let mut counts: BTreeMap<Sortable, (u64, u64)> = BTreeMap::new();
    let mut room = Room::default();
    let mut count = |node: &Node, add: fn(&mut (u64, u64))| {
        each(node, env, width(node), &mut |values| {
            let times = match counts.entry(Sortable(values.to_vec())) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    room.keep(env.run, values)?;
                    new.insert((0, 0))
                }
            };
            add(times);
            Ok(Flow::More)
        })
    };
    count(left, |times| times.0 += 1)?;
    count(right, |times| times.1 += 1)?;
    for (Sortable(row), (a, b)) in counts {
        let times = match (operation, all) {
            (SetOperation::Union, _) => 1,
            (SetOperation::Intersect, true) => a.min(b),
            (SetOperation::Intersect, false) => u64::from(a > 0 && b > 0),
            (SetOperation::Except, true) => a.saturating_sub(b),
            (SetOperation::Except, false) => u64::from(a > 0 && b == 0),
        };
        for _ in 0..times {
            if consume(&Values(&row))? == Flow::Enough {
                return Ok(Flow::Enough);
            }
        }
    }
    Ok(Flow::More)
}

/// Runs a subquery below the tuple at hand; an uncorrelated one only once per execution.
fn subquery(
    query: &Query,
    tuple: &dyn Tuple,
    env: &Env<'_>,
    rows_wanted: usize,
) -> Result<SharedRows, SqlError> {
    if !query.correlated {
        let kept = env.run.kept.borrow();
        if let Ok(at) = kept.binary_search_by_key(&query.slot, |(slot, _)| *slot) {
            return Ok(Rc::clone(&kept[at].1));
        }
    }
    let frame = Frame { tuple, parent: env.outer };
    let inner = Env { run: env.run, txn: env.txn, outer: Some(&frame), lateral: None };
    let mut kept = Kept::default();
    each(&query.node, &inner, query.types.len(), &mut |values| {
        kept.push(env.run, values)?;
        Ok(if kept.rows.len() >= rows_wanted { Flow::Enough } else { Flow::More })
    })?;
    let rows = Rc::new(kept);
    if !query.correlated {
        let mut kept = env.run.kept.borrow_mut();
        let at = kept.partition_point(|(slot, _)| *slot < query.slot);
        kept.insert(at, (query.slot, Rc::clone(&rows)));
    }
    Ok(rows)
}

/// EXISTS.
pub(crate) fn exists(query: &Query, tuple: &dyn Tuple, env: &Env<'_>) -> Result<bool, SqlError> {
    Ok(!subquery(query, tuple, env, 1)?.rows.is_empty())
}

/// A subquery as a value.
pub(crate) fn scalar(query: &Query, tuple: &dyn Tuple, env: &Env<'_>) -> Result<Value, SqlError> {
    let kept = subquery(query, tuple, env, 2)?;
    match kept.rows.as_slice() {
        [] => Ok(Value::Null),
        [row] => Ok(row.first().cloned().unwrap_or_default()),
        _ => Err(SqlError::new(
            state::CARDINALITY_VIOLATION,
            "more than one row returned by a subquery used as an expression",
        )),
    }
}

/// ARRAY(subquery).
pub(crate) fn array(query: &Query, tuple: &dyn Tuple, env: &Env<'_>) -> Result<Value, SqlError> {
    let kept = subquery(query, tuple, env, usize::MAX)?;
    let zone = env.run.context.session.settings.zone_offset();
    let mut room = Room::default();
    let mut text = crate::array::Writer::default();
    for row in &kept.rows {
        let item = row.first().filter(|value| !value.is_null());
        let item = item.map(|value| crate::text::shown(value.as_ref(), Type::Float8, zone));
        let added = text.push(item.as_deref());
        // The text doubles as it grows, and is copied once when it is whole.
        room.take(env.run, added as u64 * 3)?;
    }
    Ok(Value::text(text.finish()))
}

/// `value op ANY (query)` or `ALL`; null when the answer hangs on a null.
pub(crate) fn quantified(
    (value, op, all): (&Value, CompareOp, bool),
    query: &Query,
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Option<bool>, SqlError> {
    let kept = subquery(query, tuple, env, usize::MAX)?;
    let mut unknown = false;
    for row in &kept.rows {
        match row.first().and_then(|other| crate::eval::ordering(value.as_ref(), other.as_ref())) {
            None => unknown = true,
            Some(ordering) if op.holds(ordering) != all => return Ok(Some(!all)),
            Some(_) => {}
        }
    }
    Ok(if unknown { None } else { Some(all) })
}
