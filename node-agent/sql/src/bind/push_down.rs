//! Conditions go to where they can be decided first, and tables get an access path from them.
//!
//! A conjunct moves down while all its columns lie on one side of a join that does not make that side null.
//! Conjuncts with subqueries stay where they were written: their inner references count columns of
//! that tuple. A condition that chose an index key exactly is dropped from the filter; a range keeps it.

use crate::{
    expr::{CompareOp, Expr},
    plan::{
        Access, Computed, IndexExpressions, JoinKind, JoinMethod, JoinNode, Node, PartialIndex,
        TableNode,
    },
};
use std::ops::Bound;
use understudy_store::{Direction, IndexDef};

/// Which columns an expression reads: none, only below a width, only from it on, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    None,
    Left,
    Right,
    Both,
}

fn side(expr: &Expr, left_width: usize) -> Side {
    let left = expr.any(&|part| matches!(part, Expr::Column(c) if *c < left_width));
    let right = expr.any(&|part| matches!(part, Expr::Column(c) if *c >= left_width));
    match (left, right) {
        (false, false) => Side::None,
        (true, false) => Side::Left,
        (false, true) => Side::Right,
        (true, true) => Side::Both,
    }
}

fn may_move(expr: &Expr) -> bool {
    !expr.has_subquery()
        && !expr.any(&|part| matches!(part, Expr::Call(function, _) if function.volatile))
}

/// Applies a WHERE clause to a tree of joins.
pub(crate) fn filter(node: Node, conjuncts: Vec<Expr>) -> Node {
    if conjuncts.is_empty() {
        return node;
    }
    match node {
        Node::Table(mut table) => {
            restrict(&mut table, conjuncts);
            Node::Table(table)
        }
        Node::Join(mut join) => {
            let rest = into_join(&mut join, conjuncts);
            above(Node::Join(join), rest)
        }
        other => above(other, conjuncts),
    }
}

fn above(node: Node, conjuncts: Vec<Expr>) -> Node {
    match Expr::from_conjuncts(conjuncts) {
        Some(predicate) => Node::Filter { input: Box::new(node), predicate },
        None => node,
    }
}

/// Moves WHERE conjuncts into a join; returns those that must stay above it.
fn into_join(join: &mut JoinNode, conjuncts: Vec<Expr>) -> Vec<Expr> {
    let (mut left, mut right, mut on, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for conjunct in conjuncts {
        if !may_move(&conjunct) {
            rest.push(conjunct);
            continue;
        }
        match (side(&conjunct, join.left_width), join.kind) {
            (Side::Left, JoinKind::Inner | JoinKind::Left) => left.push(conjunct),
            (Side::Right, JoinKind::Inner | JoinKind::Right) => {
                right.push(conjunct.shifted(-(join.left_width as isize)));
            }
            (Side::Both, JoinKind::Inner) => on.push(conjunct),
            _ => rest.push(conjunct),
        }
    }
    push_sides(join, left, right);
    if !on.is_empty() || join.method == JoinMethod::Loop {
        choose_method(join, on);
    }
    rest
}

fn push_sides(join: &mut JoinNode, left: Vec<Expr>, right: Vec<Expr>) {
    let take = |node: &mut Node| std::mem::replace(node, Node::Nothing);
    join.left = filter(take(&mut join.left), left);
    join.right = filter(take(&mut join.right), right);
}

/// Applies an ON clause.
pub(crate) fn join_condition(join: &mut JoinNode, conjuncts: Vec<Expr>) {
    let (mut left, mut right, mut on) = (Vec::new(), Vec::new(), Vec::new());
    for conjunct in conjuncts {
        match (side(&conjunct, join.left_width), join.kind) {
            _ if !may_move(&conjunct) => on.push(conjunct),
            (Side::Left, JoinKind::Inner | JoinKind::Right) => left.push(conjunct),
            (Side::Right, JoinKind::Inner | JoinKind::Left) => {
                right.push(conjunct.shifted(-(join.left_width as isize)));
            }
            _ => on.push(conjunct),
        }
    }
    push_sides(join, left, right);
    choose_method(join, on);
}

/// Finds the best way to meet the conditions over both sides; adds to those already there.
fn choose_method(join: &mut JoinNode, added: Vec<Expr>) {
    let mut conditions = Vec::new();
    if let JoinMethod::Hash(keys) = std::mem::replace(&mut join.method, JoinMethod::Loop) {
        let left_width = join.left_width as isize;
        conditions.extend(keys.into_iter().map(|(left, right)| {
            Expr::Compare(CompareOp::Equal, Box::new((left, right.shifted(left_width))))
        }));
    }
    if let Some(on) = join.on.take() {
        on.into_conjuncts(&mut conditions);
    }
    conditions.extend(added);
    if matches!(join.kind, JoinKind::Inner | JoinKind::Left) && by_index(join, &conditions) {
        join.method = JoinMethod::Lateral;
        join.on = Expr::from_conjuncts(conditions);
        return;
    }
    let (mut keys, mut rest) = (Vec::new(), Vec::new());
    for condition in conditions {
        match equality(condition, join.left_width) {
            Ok(pair) => keys.push(pair),
            Err(condition) => rest.push(condition),
        }
    }
    join.method = if keys.is_empty() { JoinMethod::Loop } else { JoinMethod::Hash(keys) };
    join.on = Expr::from_conjuncts(rest);
}

/// `left expression = right expression`, each in its own numbering; else the condition back.
fn equality(condition: Expr, left_width: usize) -> Result<(Expr, Expr), Expr> {
    if !may_move(&condition) {
        return Err(condition);
    }
    let Expr::Compare(CompareOp::Equal, pair) = condition else { return Err(condition) };
    let shift = -(left_width as isize);
    match (side(&pair.0, left_width), side(&pair.1, left_width)) {
        (Side::Left, Side::Right) => Ok((pair.0, pair.1.shifted(shift))),
        (Side::Right, Side::Left) => Ok((pair.1, pair.0.shifted(shift))),
        _ => Err(Expr::Compare(CompareOp::Equal, pair)),
    }
}

/// Gives the right side an access by the left row's columns, when it is a table with a fitting index.
/// The conditions stay in force: the access only narrows.
fn by_index(join: &mut JoinNode, conditions: &[Expr]) -> bool {
    let Node::Table(table) = &mut join.right else { return false };
    if table.access != Access::Scan {
        return false;
    }
    let left_width = join.left_width;
    let mut seen_from_right = Vec::new();
    for condition in conditions.iter().filter(|condition| may_move(condition)) {
        let mut moved = condition.clone();
        let outcome: Result<(), std::convert::Infallible> = moved.rewrite(&mut |part| {
            if let Expr::Column(column) = part {
                *part = if *column < left_width {
                    Expr::Lateral(*column)
                } else {
                    Expr::Column(*column - left_width)
                };
                return Ok(true);
            }
            Ok(false)
        });
        match outcome {
            Ok(()) => seen_from_right.push(moved),
        }
    }
    let seen_from_right = over_indexes(table, seen_from_right);
    match choose_access(table, &seen_from_right) {
        Some((access @ (Access::Key { .. } | Access::KeyList { .. }), _)) => {
            table.access = access;
            true
        }
        _ => false,
    }
}

/// The condition with hidden columns in the place of the expressions that they hold.
fn over_hidden(hidden: &[Computed], mut condition: Expr) -> Expr {
    let outcome: Result<(), std::convert::Infallible> = condition.rewrite(&mut |part| {
        let held = hidden.iter().find(|(_, expr)| expr == part);
        if let Some((column, _)) = held {
            *part = Expr::Column(*column);
        }
        Ok(held.is_some())
    });
    match outcome {
        Ok(()) => condition,
    }
}

/// The column of a table that holds what an expression over the node's tuples gives.
pub(crate) fn held_by(node: &Node, expr: &Expr) -> Option<usize> {
    match (expr, node) {
        (Expr::Column(column), _) => Some(*column),
        (_, Node::Table(table)) => {
            let partial = table.expressions.partial.iter();
            let partial = partial.filter(|partial| is_implied(table, partial, &[]));
            let mut hidden =
                table.expressions.hidden.iter().chain(partial.flat_map(|partial| &partial.hidden));
            hidden.find(|(_, held)| held == expr).map(|(column, _)| *column)
        }
        _ => None,
    }
}

/// Conditions with hidden columns in the place of the expressions that those hold. A column that holds its
/// expression for some rows alone does so in the conditions beside those that demand such rows.
fn over_indexes(table: &TableNode, mut conditions: Vec<Expr>) -> Vec<Expr> {
    let IndexExpressions { hidden, partial } = &table.expressions;
    if !hidden.is_empty() {
        conditions = conditions.into_iter().map(|c| over_hidden(hidden, c)).collect();
    }
    for partial in partial.iter().filter(|partial| !partial.hidden.is_empty()) {
        if is_implied(table, partial, &conditions) {
            let demands = |condition: &Expr| {
                let mut predicate = partial.predicate.iter();
                predicate.any(|wanted| is_same(&over_hidden(hidden, wanted.clone()), condition))
            };
            for condition in conditions.iter_mut().filter(|condition| !demands(condition)) {
                *condition = over_hidden(&partial.hidden, condition.clone());
            }
        }
    }
    conditions
}

/// Adds conditions to a table: an access path from some, a filter from the rest.
fn restrict(table: &mut TableNode, mut conjuncts: Vec<Expr>) {
    conjuncts = over_indexes(table, conjuncts);
    if table.access == Access::Scan
        && let Some((access, used)) = choose_access(table, &conjuncts)
    {
        table.access = access;
        let mut position = 0;
        conjuncts.retain(|_| {
            position += 1;
            !used.contains(&(position - 1))
        });
    }
    let mut all = Vec::new();
    if let Some(filter) = table.filter.take() {
        filter.into_conjuncts(&mut all);
    }
    all.extend(conjuncts);
    table.filter = Expr::from_conjuncts(all);
}

/// One condition on a column that an index could serve.
struct Usable<'a> {
    position: usize,
    column: usize,
    op: CompareOp,
    value: &'a Expr,
}

/// Whether a value computed without the table's columns may stand for the column's key: it must be of
/// the column's kind, which the binder's common type has settled.
fn usable<'a>(table: &TableNode, position: usize, conjunct: &'a Expr, found: &mut Vec<Usable<'a>>) {
    let Expr::Compare(op, pair) = conjunct else { return };
    for (column, value, op) in [(&pair.0, &pair.1, *op), (&pair.1, &pair.0, op.mirrored())] {
        if let Expr::Column(column) = column
            && *column < table.table.columns.len()
            && is_key_value(value)
        {
            found.push(Usable { position, column: *column, op, value });
        }
    }
}

/// No column of the table itself; the left side's of a join and enclosing queries' may be there.
fn is_key_value(expr: &Expr) -> bool {
    may_move(expr) && !expr.any(&|part| matches!(part, Expr::Column(_) | Expr::Aggregate(_)))
}

/// Whether an index has an entry for every row that meets the conditions: it leaves none out, or its
/// predicate is among them.
fn is_complete(table: &TableNode, index: &IndexDef, conditions: &[Expr]) -> bool {
    if index.only.is_none() {
        return true;
    }
    let mut partial = table.expressions.partial.iter();
    let partial = partial.find(|partial| partial.index == index.id);
    partial.is_some_and(|partial| is_implied(table, partial, conditions))
}

/// Whether rows that meet the conditions meet the predicate of an index.
fn is_implied(table: &TableNode, partial: &PartialIndex, conditions: &[Expr]) -> bool {
    let mut known = Vec::new();
    if let Some(filter) = &table.filter {
        filter.clone().into_conjuncts(&mut known);
    }
    known.extend_from_slice(conditions);
    partial.predicate.iter().all(|wanted| {
        let wanted = over_hidden(&table.expressions.hidden, wanted.clone());
        let of_keys = over_hidden(&partial.hidden, wanted.clone());
        let follows = |wanted: &Expr, known: &Expr| is_not_null_by(wanted, known);
        known.iter().any(|known| {
            is_same(&wanted, known) || follows(&wanted, known) || follows(&of_keys, known)
        })
    })
}

/// Whether two conditions say the same, the sides of a comparison exchanged or not.
fn is_same(wanted: &Expr, known: &Expr) -> bool {
    match (wanted, known) {
        (Expr::Compare(a, left), Expr::Compare(b, right)) if *a == b.mirrored() => {
            wanted == known || left.0 == right.1 && left.1 == right.0
        }
        (wanted, known) => wanted == known,
    }
}

/// Whether `wanted` says that an operand of the comparison `known` is not null.
fn is_not_null_by(wanted: &Expr, known: &Expr) -> bool {
    let Expr::IsNull { expr, negated: true } = wanted else { return false };
    match known {
        Expr::Compare(_, pair) => pair.0 == **expr || pair.1 == **expr,
        Expr::InList { expr: item, negated: false, .. } => item == expr,
        _ => false,
    }
}

/// The best access for the conditions, and which of them it decides by itself.
fn choose_access(table: &TableNode, conjuncts: &[Expr]) -> Option<(Access, Vec<usize>)> {
    let mut found = Vec::new();
    for (position, conjunct) in conjuncts.iter().enumerate() {
        usable(table, position, conjunct, &mut found);
    }
    let by_rank = |index: &&IndexDef| {
        let equal = leading_equalities(index, &found).len();
        let whole = equal == index.columns.len();
        (whole && index.unique, equal, index.only.is_some())
    };
    let mut usable: Vec<&IndexDef> =
        table.table.indexes.iter().filter(|i| is_complete(table, i, conjuncts)).collect();
    // Those that leave rows out come first: they have fewer to read.
    usable.sort_by_key(|index| index.only.is_none());
    let best = usable.iter().copied().max_by_key(by_rank)?;
    let equal = leading_equalities(best, &found);
    if equal.len() == best.columns.len() && best.unique {
        return Some(key_access(best, &equal));
    }
    if let Some(list) = key_list(&usable, conjuncts) {
        return Some(list);
    }
    let ranged = usable.iter().find_map(|index| range_access(index, &found));
    match ranged {
        Some((Access::Range { equal: prefix, .. }, _)) if prefix.len() < equal.len() => {
            Some(key_access(best, &equal))
        }
        Some(range) => Some(range),
        None if !equal.is_empty() => Some(key_access(best, &equal)),
        None if best.only.is_some() => Some((whole_index(best), Vec::new())),
        None => None,
    }
}

fn whole_index(index: &IndexDef) -> Access {
    Access::Range {
        index: index.id,
        equal: Vec::new(),
        lower: Bound::Unbounded,
        upper: Bound::Unbounded,
        direction: Direction::Ascending,
    }
}

fn leading_equalities<'a, 'b>(index: &IndexDef, found: &'b [Usable<'a>]) -> Vec<&'b Usable<'a>> {
    index
        .columns
        .iter()
        .map_while(|column| {
            found.iter().find(|usable| {
                usable.column == usize::from(*column) && usable.op == CompareOp::Equal
            })
        })
        .collect()
}

fn key_access(index: &IndexDef, equal: &[&Usable<'_>]) -> (Access, Vec<usize>) {
    let key = equal.iter().map(|usable| usable.value.clone()).collect();
    let used = equal.iter().map(|usable| usable.position).collect();
    (Access::Key { index: index.id, key }, used)
}

/// `column IN (values)` over an index that begins with the column.
fn key_list(indexes: &[&IndexDef], conjuncts: &[Expr]) -> Option<(Access, Vec<usize>)> {
    conjuncts.iter().enumerate().find_map(|(position, conjunct)| {
        let Expr::InList { expr, list, negated: false } = conjunct else { return None };
        let Expr::Column(column) = **expr else { return None };
        if !list.iter().all(is_key_value) {
            return None;
        }
        let index = indexes
            .iter()
            .find(|index| index.columns.first().map(|c| usize::from(*c)) == Some(column))?;
        Some((Access::KeyList { index: index.id, keys: list.clone() }, vec![position]))
    })
}

/// Equalities on leading columns followed by bounds on the next. The bounds also stay in the filter.
fn range_access(index: &IndexDef, found: &[Usable<'_>]) -> Option<(Access, Vec<usize>)> {
    let equal = leading_equalities(index, found);
    let next = usize::from(*index.columns.get(equal.len())?);
    let (mut lower, mut upper) = (Bound::Unbounded, Bound::Unbounded);
    for usable in found.iter().filter(|usable| usable.column == next) {
        let value = usable.value.clone();
        match usable.op {
            CompareOp::Greater if lower == Bound::Unbounded => lower = Bound::Excluded(value),
            CompareOp::GreaterOrEqual if lower == Bound::Unbounded => {
                lower = Bound::Included(value);
            }
            CompareOp::Less if upper == Bound::Unbounded => upper = Bound::Excluded(value),
            CompareOp::LessOrEqual if upper == Bound::Unbounded => upper = Bound::Included(value),
            CompareOp::Greater
            | CompareOp::GreaterOrEqual
            | CompareOp::Less
            | CompareOp::LessOrEqual
            | CompareOp::Equal
            | CompareOp::NotEqual => {}
        }
    }
    if lower == Bound::Unbounded && upper == Bound::Unbounded {
        return None;
    }
    let used = equal.iter().map(|usable| usable.position).collect();
    let equal = equal.iter().map(|usable| usable.value.clone()).collect();
    let direction = Direction::Ascending;
    Some((Access::Range { index: index.id, equal, lower, upper, direction }, used))
}

/// Reads a table in the order wanted, when an index gives it; whether it does. `columns` are the
/// table's columns with their directions (descending?), nulls where PostgreSQL puts them by default.
pub(crate) fn ordered(node: &mut Node, columns: &[(usize, bool)]) -> bool {
    let Node::Table(table) = node else { return false };
    let Some((_, descending)) = columns.first().copied() else { return false };
    if columns.iter().any(|(_, other)| *other != descending) {
        return false;
    }
    let wanted = if descending { Direction::Descending } else { Direction::Ascending };
    let follows = |index: &IndexDef, skip: usize| {
        let rest = &index.columns[skip.min(index.columns.len())..];
        rest.len() >= columns.len()
            && rest.iter().zip(columns).all(|(have, (want, _))| usize::from(*have) == *want)
    };
    let indexes = &table.table.indexes;
    match &mut table.access {
        Access::Scan => {
            let complete = indexes.iter().filter(|index| is_complete(table, index, &[]));
            let Some(index) = complete.into_iter().find(|index| follows(index, 0)) else {
                return false;
            };
            table.access = Access::Range {
                index: index.id,
                equal: Vec::new(),
                lower: Bound::Unbounded,
                upper: Bound::Unbounded,
                direction: wanted,
            };
            true
        }
        Access::Range { index, equal, direction, .. } => {
            let id = *index;
            let fits = indexes
                .iter()
                .any(|index| index.id == id && (follows(index, equal.len()) || follows(index, 0)));
            if fits {
                *direction = wanted;
            }
            fits
        }
        Access::Key { index, key } => {
            let id = *index;
            let Some(def) = indexes.iter().find(|index| index.id == id) else { return false };
            if def.unique && def.columns.len() == key.len() {
                return true;
            }
            if !follows(def, key.len()) {
                return false;
            }
            table.access = Access::Range {
                index: id,
                equal: std::mem::take(key),
                lower: Bound::Unbounded,
                upper: Bound::Unbounded,
                direction: wanted,
            };
            true
        }
        Access::KeyList { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use understudy_store::{ColumnDef, DataType, TableDef, Value};

    #[test]
    fn a_whole_unique_key_wins_over_a_range() {
        let table = TableDef::new(
            "t",
            vec![ColumnDef::new("a", DataType::Int4), ColumnDef::new("b", DataType::Int4)],
        )
        .with_primary_key(&[0]);
        let mut node = TableNode {
            table: Arc::new(table),
            access: Access::Scan,
            filter: None,
            reading: crate::plan::Reading::Snapshot,
            with_row_id: false,
            expressions: crate::plan::IndexExpressions::default(),
        };
        let compare = |op, column, value| {
            Expr::Compare(op, Box::new((Expr::Column(column), Expr::Const(Value::Int(value)))))
        };
        let range = compare(CompareOp::Greater, 1, 5);
        restrict(&mut node, vec![range.clone(), compare(CompareOp::Equal, 0, 7)]);
        assert!(
            matches!(&node.access, Access::Key { key, .. } if key == &[Expr::Const(Value::Int(7))])
        );
        assert_eq!(node.filter, Some(range));
    }
}
