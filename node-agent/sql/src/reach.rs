//! How far a statement reaches: whether it may take so long that others must not wait behind it.
//!
//! This is what the plan tells, and saves a beginning in vain. What it does not tell (how many rows a key
//! names, what a subquery of RETURNING reads) the execution finds out: [`ExecError::Far`]. Numbers that it took
//! from a sequence by then are left out.
//!
//! [`ExecError::Far`]: crate::ExecError::Far

use crate::{
    expr::Expr,
    plan::{Access, InsertPlan, InsertSource, JoinMethod, Node, Plan, TableNode},
};
use understudy_store::{Store, TableId};

/// Rows that are read about as fast as a thread is woken: so many may be looked at between other sessions'
/// statements.
pub const NEAR_ROWS: u64 = 1_000;

/// What a plan may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What its keys name.
    Keys,
    /// These tables, each once at most for each row that keys name.
    Tables(Vec<TableId>),
    /// Nobody knows.
    Far,
}

impl Reach {
    pub(crate) fn of(plan: &Plan) -> Reach {
        match plan {
            Plan::Query(query) => node(&query.node),
            Plan::Locking(locking) => node(&locking.input).and(exprs(&locking.exprs)),
            Plan::Insert(insert) => match &insert.source {
                InsertSource::Rows(rows) if inserts_many(insert, rows.len()) => Reach::Far,
                InsertSource::Rows(rows) => {
                    rows.iter().fold(Reach::Keys, |reach, row| reach.and(exprs(row)))
                }
                InsertSource::Query { node: source, exprs: values } => {
                    let once = node(source).and(exprs(values));
                    // A row that references others is looked at once more, when they are.
                    if insert.table.foreign_keys.is_empty() { once } else { once.clone().and(once) }
                }
            },
            Plan::Change(change) => {
                let assigned = change.assignments.iter().flatten().map(|(_, expr)| expr);
                node(&change.source).and(exprs(assigned))
            }
            // An index is built from all rows.
            Plan::Definition(_) => Reach::Far,
            Plan::Explain { run, .. } => {
                run.as_ref().map_or(Reach::Keys, |(_, plan)| Reach::of(plan))
            }
            Plan::Show(_) | Plan::Nothing | Plan::Session => Reach::Keys,
        }
    }

    /// Whether it is too far for running it between other sessions' statements.
    pub(crate) fn is_long(&self, store: &Store) -> bool {
        match self {
            Reach::Keys => false,
            Reach::Far => true,
            Reach::Tables(tables) => {
                tables.iter().map(|table| store.rows_about(*table)).sum::<u64>() > NEAR_ROWS
            }
        }
    }

    fn and(self, other: Reach) -> Reach {
        match (self, other) {
            (Reach::Far, _) | (_, Reach::Far) => Reach::Far,
            (Reach::Keys, reach) | (reach, Reach::Keys) => reach,
            (Reach::Tables(mut tables), Reach::Tables(more)) => {
                tables.extend(more);
                Reach::Tables(tables)
            }
        }
    }
}

fn node(plan: &Node) -> Reach {
    match plan {
        Node::Nothing | Node::Sequence(_) | Node::System(_) => Reach::Keys,
        Node::Values(rows) => rows.iter().fold(Reach::Keys, |reach, row| reach.and(exprs(row))),
        Node::Table(table) => access(table),
        Node::Series { .. } => Reach::Far,
        Node::Items { .. } => Reach::Keys,
        Node::Filter { input, predicate } => node(input).and(exprs([predicate])),
        Node::Project { input, exprs: list } => node(input).and(exprs(list)),
        Node::Join(join) => {
            let both = node(&join.left).and(node(&join.right)).and(exprs(&join.on));
            match (&join.method, both) {
                // Each row of one side may meet each of the other.
                (JoinMethod::Lateral | JoinMethod::Loop, Reach::Tables(_))
                    if node(&join.right) != Reach::Keys =>
                {
                    Reach::Far
                }
                (_, both) => both,
            }
        }
        Node::Aggregate { input, .. }
        | Node::Sort { input, .. }
        | Node::Limit { input, .. }
        | Node::Distinct { input, .. } => node(input),
        Node::Set { left, right, .. } => node(left).and(node(right)),
    }
}

/// As above: rows that reference others count twice.
fn inserts_many(insert: &InsertPlan, rows: usize) -> bool {
    let looks = if insert.table.foreign_keys.is_empty() { 1 } else { 2 };
    rows as u64 * looks > NEAR_ROWS
}

fn access(table: &TableNode) -> Reach {
    let found = match &table.access {
        Access::Scan => Reach::Tables(vec![table.table.id]),
        Access::Range { equal, .. } if equal.is_empty() => Reach::Tables(vec![table.table.id]),
        Access::KeyList { keys, .. } if keys.len() as u64 > NEAR_ROWS => Reach::Far,
        Access::Key { .. } | Access::KeyList { .. } | Access::Range { .. } => Reach::Keys,
    };
    found.and(exprs(&table.filter))
}

/// A subquery may read anything, and for each row.
fn exprs<'a>(list: impl IntoIterator<Item = &'a Expr>) -> Reach {
    if list.into_iter().any(Expr::has_subquery) { Reach::Far } else { Reach::Keys }
}
