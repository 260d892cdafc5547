//! The text of a plan, in PostgreSQL's manner but without costs, which we do not estimate.

use crate::{
    execute::measure::Measures,
    expr::{CompareOp, Expr},
    plan::{Access, JoinKind, JoinMethod, Node, Plan, SetOperation, TableNode},
};
use std::ops::Bound;
use understudy_store::{Direction, TableDef};

/// The lines of EXPLAIN; with what was measured, those of EXPLAIN ANALYZE.
pub(crate) fn lines(plan: &Plan, measures: Option<&Measures>) -> Vec<String> {
    let mut lines = Lines { lines: Vec::new(), measures };
    let did = measures.map(Measures::words_of_change).unwrap_or_default();
    match plan {
        Plan::Query(query) => lines.node(&query.node, 0),
        Plan::Locking(plan) => {
            lines.push(0, format!("LockRows{did}"));
            lines.node(&plan.input, 1);
        }
        Plan::Insert(plan) => {
            lines.push(0, format!("Insert on {}{did}", plan.table.name));
            if let crate::plan::InsertSource::Query { node, .. } = &plan.source {
                lines.node(node, 1);
            }
        }
        Plan::Change(plan) => {
            let verb = if plan.assignments.is_some() { "Update" } else { "Delete" };
            lines.push(0, format!("{verb} on {}{did}", plan.table.name));
            lines.node(&plan.source, 1);
        }
        Plan::Definition(_)
        | Plan::Explain { .. }
        | Plan::Show(_)
        | Plan::Nothing
        | Plan::Session => lines.push(0, "Utility Statement".to_owned()),
    }
    lines.lines
}

struct Lines<'a> {
    lines: Vec<String>,
    measures: Option<&'a Measures>,
}

impl Lines<'_> {
    fn push(&mut self, depth: usize, text: String) {
        let line = match depth {
            0 => text,
            depth => format!("{}->  {text}", " ".repeat(depth * 6 - 4)),
        };
        self.lines.push(line);
    }

    fn detail(&mut self, depth: usize, text: String) {
        self.lines.push(format!("{}{text}", " ".repeat(depth * 6 + 2)));
    }

    fn node(&mut self, node: &Node, depth: usize) {
        self.node_as(node, depth, node);
    }

    /// A step with what `measured` did: a filter has no line of its own. The projection on top of a query is
    /// evaluated by whoever takes its rows, so every projection shows what the step below it did.
    fn node_as(&mut self, node: &Node, depth: usize, measured: &Node) {
        let did = self.measures.map(|measures| measures.words(measured)).unwrap_or_default();
        match node {
            Node::Nothing => self.push(depth, format!("Result{did}")),
            Node::Values(rows) => {
                self.push(depth, format!("Values Scan ({} rows){did}", rows.len()))
            }
            Node::Table(table) => {
                self.table(table, depth, &did);
                self.removed(node, table, depth);
            }
            Node::Series { .. } => {
                self.push(depth, format!("Function Scan on generate_series{did}"))
            }
            Node::Items { .. } => self.push(depth, format!("Function Scan on unnest{did}")),
            Node::Sequence(sequence) => {
                self.push(depth, format!("Seq Scan on {}{did}", sequence.name));
            }
            Node::System(view) => self.push(depth, format!("Catalog Scan on {}{did}", view.name())),
            Node::Filter { input, predicate } => {
                self.node_as(input, depth, measured);
                self.detail(depth, format!("Filter: {}", shown(predicate, None)));
            }
            Node::Project { input, .. } => self.node(input, depth),
            Node::Join(join) => {
                let kind = match join.kind {
                    JoinKind::Inner => "",
                    JoinKind::Left => " Left",
                    JoinKind::Right => " Right",
                    JoinKind::Full => " Full",
                };
                let name = match &join.method {
                    JoinMethod::Lateral => format!("Nested Loop{kind} Join by Index"),
                    JoinMethod::Hash(_) => format!("Hash{kind} Join"),
                    JoinMethod::Loop => format!("Nested Loop{kind} Join"),
                };
                self.push(depth, format!("{name}{did}"));
                self.node(&join.left, depth + 1);
                self.node(&join.right, depth + 1);
            }
            Node::Aggregate { input, groups, .. } => {
                let name = if groups.is_empty() { "Aggregate" } else { "GroupAggregate" };
                self.push(depth, format!("{name}{did}"));
                self.node(input, depth + 1);
            }
            Node::Sort { input, keys } => {
                self.push(depth, format!("Sort ({} keys){did}", keys.len()));
                self.node(input, depth + 1);
            }
            Node::Limit { input, .. } => {
                self.push(depth, format!("Limit{did}"));
                self.node(input, depth + 1);
            }
            Node::Distinct { input, .. } => {
                self.push(depth, format!("Unique{did}"));
                self.node(input, depth + 1);
            }
            Node::Set { operation, left, right, .. } => {
                let name = match operation {
                    SetOperation::Union => "Append",
                    SetOperation::Intersect => "SetOp Intersect",
                    SetOperation::Except => "SetOp Except",
                };
                self.push(depth, format!("{name}{did}"));
                self.node(left, depth + 1);
                self.node(right, depth + 1);
            }
        }
    }

    fn removed(&mut self, node: &Node, table: &TableNode, depth: usize) {
        if let Some(removed) = self.measures.and_then(|measures| measures.removed(node, table)) {
            self.detail(depth, format!("Rows Removed by Filter: {removed}"));
        }
    }

    fn table(&mut self, node: &TableNode, depth: usize, did: &str) {
        let table = &node.table;
        let index = |id| {
            let found = table.indexes.iter().find(|index| index.id == id);
            found.map_or("?", |index| index.name.as_str())
        };
        match &node.access {
            Access::Scan => self.push(depth, format!("Seq Scan on {}{did}", table.name)),
            Access::Key { index: id, key } => {
                self.push(depth, format!("Index Scan using {} on {}{did}", index(*id), table.name));
                let parts: Vec<String> = key.iter().map(|expr| shown(expr, None)).collect();
                self.detail(depth, format!("Index Cond: key = ({})", parts.join(", ")));
            }
            Access::KeyList { index: id, keys } => {
                self.push(depth, format!("Index Scan using {} on {}{did}", index(*id), table.name));
                self.detail(depth, format!("Index Cond: key IN ({} values)", keys.len()));
            }
            Access::Range { index: id, equal, lower, upper, direction } => {
                let backward = if *direction == Direction::Descending { " Backward" } else { "" };
                self.push(
                    depth,
                    format!("Index Scan{backward} using {} on {}{did}", index(*id), table.name),
                );
                let mut conditions: Vec<String> =
                    equal.iter().map(|expr| format!("= {}", shown(expr, None))).collect();
                conditions.extend(bound(lower, ">"));
                conditions.extend(bound(upper, "<"));
                if !conditions.is_empty() {
                    self.detail(depth, format!("Index Cond: key {}", conditions.join(" and ")));
                }
            }
        }
        if let Some(filter) = &node.filter {
            self.detail(depth, format!("Filter: {}", shown(filter, Some(table))));
        }
    }
}

fn bound(bound: &Bound<Expr>, symbol: &str) -> Option<String> {
    match bound {
        Bound::Included(expr) => Some(format!("{symbol}= {}", shown(expr, None))),
        Bound::Excluded(expr) => Some(format!("{symbol} {}", shown(expr, None))),
        Bound::Unbounded => None,
    }
}

/// An expression for people; anything long is named by its kind.
fn shown(expr: &Expr, table: Option<&TableDef>) -> String {
    let list = |items: &[Expr], word: &str| {
        let parts: Vec<String> = items.iter().map(|item| shown(item, table)).collect();
        format!("({})", parts.join(word))
    };
    match expr {
        Expr::Const(value) if value.is_null() => "NULL".to_owned(),
        Expr::Const(value) => {
            let text = crate::text::shown(value.as_ref(), crate::types::Type::Float8, 0);
            match value {
                understudy_store::Value::Int(_) | understudy_store::Value::Numeric(_) => {
                    text.into_owned()
                }
                _ => format!("'{text}'"),
            }
        }
        Expr::Param(index) => format!("${}", index + 1),
        Expr::Column(column) => table
            .and_then(|table| table.columns.get(*column))
            .map_or_else(|| format!("#{column}"), |column| column.name.clone()),
        Expr::Lateral(column) => format!("left #{column}"),
        Expr::Outer { column, .. } => format!("outer #{column}"),
        Expr::And(items) => list(items, " AND "),
        Expr::Or(items) => list(items, " OR "),
        Expr::Not(inner) => format!("(NOT {})", shown(inner, table)),
        Expr::Compare(op, pair) => comparison(*op, pair, table),
        Expr::Arithmetic(op, _, pair) => {
            format!("({} {} {})", shown(&pair.0, table), op.symbol(), shown(&pair.1, table))
        }
        Expr::IsNull { expr, negated } => {
            let not = if *negated { "NOT " } else { "" };
            format!("({} IS {not}NULL)", shown(expr, table))
        }
        Expr::Cast { expr, to, .. } => format!("({})::{to}", shown(expr, table)),
        Expr::Call(function, items) => format!("{}{}", function.name, list(items, ", ")),
        Expr::InList { expr, list: items, .. } => {
            format!("({} IN {})", shown(expr, table), list(items, ", "))
        }
        Expr::Exists(_) | Expr::Scalar(_) | Expr::ArrayOf(_) | Expr::Quantified { .. } => {
            "(SubPlan)".to_owned()
        }
        Expr::IsTruth { .. }
        | Expr::AnyItem { .. }
        | Expr::Distinct { .. }
        | Expr::Negate(..)
        | Expr::Moment(..)
        | Expr::Concat(_)
        | Expr::Pattern { .. }
        | Expr::Case { .. }
        | Expr::Coalesce(_)
        | Expr::NullIf(_)
        | Expr::Extreme { .. }
        | Expr::Aggregate(_) => "(expression)".to_owned(),
    }
}

fn comparison(op: CompareOp, pair: &(Expr, Expr), table: Option<&TableDef>) -> String {
    format!("({} {} {})", shown(&pair.0, table), op.symbol(), shown(&pair.1, table))
}
