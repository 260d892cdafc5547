//! Grouping: expressions over FROM's columns become expressions over groups and aggregates.

use super::{Relation, Scope};
use crate::{
    aggregate::AggregateCall,
    error::{SqlError, state},
    expr::Expr,
    plan::Node,
};

/// The groups of one query, which grow when a column depends on a grouped primary key.
pub(super) struct Grouping {
    groups: Vec<Expr>,
    relations: Vec<Relation>,
    used_inside: bool,
}

/// Stands for an aggregate's column until the number of groups is known.
const AGGREGATES: usize = usize::MAX / 2;

impl Grouping {
    pub(super) fn new(groups: Vec<Expr>, scope: &Scope<'_>) -> Grouping {
        let (relations, used_inside) = (scope.relations.clone(), scope.used_inside.get());
        Grouping { groups, relations, used_inside }
    }

    /// Rewrites an expression of the select list, HAVING or ORDER BY.
    pub(super) fn rewrite(&mut self, expr: &mut Expr) -> Result<(), SqlError> {
        if self.used_inside && expr.has_subquery() {
            return Err(SqlError::unsupported("a correlated subquery in a grouped query"));
        }
        expr.rewrite(&mut |part| {
            if let Expr::Aggregate(position) = part {
                *part = Expr::Column(AGGREGATES + *position);
                return Ok(true);
            }
            if let Some(position) = self.groups.iter().position(|group| group == part) {
                *part = Expr::Column(position);
                return Ok(true);
            }
            let Expr::Column(column) = *part else { return Ok(false) };
            if !self.depends_on_key(column) {
                return Err(self.ungrouped(column));
            }
            self.groups.push(Expr::Column(column));
            *part = Expr::Column(self.groups.len() - 1);
            Ok(true)
        })
    }

    /// Whether the column's table has its whole primary key among the groups.
    fn depends_on_key(&self, column: usize) -> bool {
        self.relations.iter().any(|relation| {
            let Some(table) = &relation.table else { return false };
            let inside =
                (relation.start..relation.start + relation.columns.len()).contains(&column);
            inside
                && table.primary_key().is_some_and(|key| {
                    key.columns.iter().all(|position| {
                        let wanted = Expr::Column(relation.start + usize::from(*position));
                        self.groups.contains(&wanted)
                    })
                })
        })
    }

    fn ungrouped(&self, column: usize) -> SqlError {
        let named = self.relations.iter().find_map(|relation| {
            let position = column.checked_sub(relation.start)?;
            let column = relation.columns.get(position)?;
            Some(format!("{}.{}", relation.alias, column.name))
        });
        SqlError::new(
            state::GROUPING,
            format!(
                "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                named.unwrap_or_default()
            ),
        )
    }

    /// The aggregation step and its number of groups, by which expressions are then settled.
    pub(super) fn node(self, input: Node, calls: Vec<AggregateCall>) -> (Node, usize) {
        let groups = self.groups.len();
        (Node::Aggregate { input: Box::new(input), groups: self.groups, calls }, groups)
    }

    /// Settles the numbers of aggregates' columns.
    pub(super) fn settle(expr: &mut Expr, groups: usize) {
        let settled: Result<(), std::convert::Infallible> = expr.rewrite(&mut |part| {
            if let Expr::Column(column) = part
                && *column >= AGGREGATES
            {
                *column = *column - AGGREGATES + groups;
            }
            Ok(false)
        });
        match settled {
            Ok(()) => {}
        }
    }
}
