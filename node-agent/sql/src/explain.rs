//! What EXPLAIN tells: the steps of a plan, in PostgreSQL's manner but without costs, which we do not
//! estimate. A tree of steps is made of the plan; text and JSON are written from the tree, so that both tell
//! the same.

mod json;

use crate::{
    execute::measure::{Did, Measures},
    expr::{CompareOp, Expr},
    parse::ExplainFormat,
    plan::{
        Access, InsertSource, JoinKind, JoinMethod, JoinNode, Node, Plan, SetOperation, SortKey,
        TableNode,
    },
};
use serde::Serialize;
use std::{fmt, ops::Bound};
use understudy_store::{Direction, IndexId, TableDef};

/// The rows of EXPLAIN; with what was measured, those of EXPLAIN ANALYZE. Text has a row for each line, JSON
/// is one row.
pub(crate) fn rows(plan: &Plan, format: ExplainFormat, measures: Option<&Measures>) -> Vec<String> {
    let step = Teller { measures }.plan(plan);
    let execution_ms = measures.and_then(Measures::execution_ms);
    match format {
        ExplainFormat::Text => {
            let mut lines = Vec::new();
            text(&step, 0, &mut lines);
            lines.extend(execution_ms.map(|ms| format!("Execution Time: {ms:.3} ms")));
            lines
        }
        ExplainFormat::Json => vec![json::text(&step, execution_ms)],
    }
}

/// One step of a plan, and what is told of it.
struct Step {
    /// What it is and what it is on, for people: "Index Scan using t_pkey on t".
    title: String,
    /// The same for programs: PostgreSQL's name of the kind, and its keys for the rest.
    kind: &'static str,
    facts: Vec<(&'static str, Fact)>,
    /// None when nothing was measured.
    did: Option<Did>,
    /// Where an index is searched.
    condition: Option<String>,
    /// What its rows are judged by, and how many did not stand.
    filter: Option<String>,
    removed: Option<u64>,
    /// The steps whose rows it takes, and PostgreSQL's word for what each is to it.
    children: Vec<(&'static str, Step)>,
    /// What the rows that it yields are judged by; such a filter is no step of its own.
    above: Vec<String>,
}

/// What is known of a step.
#[derive(Serialize)]
#[serde(untagged)]
enum Fact {
    Word(&'static str),
    Name(String),
    Names(Vec<String>),
    Count(usize),
}

impl Step {
    fn new(kind: &'static str, title: impl Into<String>) -> Step {
        Step {
            title: title.into(),
            kind,
            facts: Vec::new(),
            did: None,
            condition: None,
            filter: None,
            removed: None,
            children: Vec::new(),
            above: Vec::new(),
        }
    }

    /// A step that text and JSON call the same.
    fn plain(kind: &'static str) -> Step {
        Step::new(kind, kind)
    }

    /// A step on something: "Seq Scan on t".
    fn on(kind: &'static str, key: &'static str, name: &str) -> Step {
        Step::new(kind, format!("{kind} on {name}")).with(key, Fact::Name(name.to_owned()))
    }

    fn with(mut self, key: &'static str, fact: Fact) -> Step {
        self.facts.push((key, fact));
        self
    }

    fn over(self, child: Step) -> Step {
        self.over_as("Outer", child)
    }

    fn over_as(mut self, relationship: &'static str, child: Step) -> Step {
        self.children.push((relationship, child));
        self
    }
}

/// Appends the lines of a step and of those below it.
fn text(step: &Step, depth: usize, lines: &mut Vec<String>) {
    let arrow = match depth {
        0 => String::new(),
        depth => format!("{}->  ", " ".repeat(depth * 6 - 4)),
    };
    let did = step.did.map(words).unwrap_or_default();
    lines.push(format!("{arrow}{}{did}", step.title));
    let detail = |label: &str, value: &dyn fmt::Display| {
        format!("{}{label}: {value}", " ".repeat(depth * 6 + 2))
    };
    lines.extend(step.condition.iter().map(|condition| detail("Index Cond", condition)));
    lines.extend(step.filter.iter().map(|filter| detail("Filter", filter)));
    lines.extend(step.removed.iter().map(|rows| detail("Rows Removed by Filter", rows)));
    for (_, child) in &step.children {
        text(child, depth + 1, lines);
    }
    lines.extend(step.above.iter().map(|filter| detail("Filter", filter)));
}

/// PostgreSQL's words behind a step's name.
fn words(Did { loops, rows, ms }: Did) -> String {
    match ms {
        _ if loops == 0 => " (never executed)".to_owned(),
        Some((first, last)) => {
            format!(" (actual time={first:.3}..{last:.3} rows={rows} loops={loops})")
        }
        None => format!(" (actual rows={rows} loops={loops})"),
    }
}

/// Makes the steps of a plan.
struct Teller<'a> {
    measures: Option<&'a Measures>,
}

impl Teller<'_> {
    fn plan(&self, plan: &Plan) -> Step {
        match plan {
            Plan::Query(query) => self.node(&query.node),
            Plan::Locking(plan) => self.top(Step::plain("LockRows")).over(self.node(&plan.input)),
            Plan::Insert(plan) => {
                let step = self.top(change("Insert", &plan.table));
                match &plan.source {
                    InsertSource::Rows(_) => step,
                    InsertSource::Query { node, .. } => step.over(self.node(node)),
                }
            }
            Plan::Change(plan) => {
                let verb = if plan.assignments.is_some() { "Update" } else { "Delete" };
                self.top(change(verb, &plan.table)).over(self.node(&plan.source))
            }
            Plan::Definition(_)
            | Plan::Explain { .. }
            | Plan::Show(_)
            | Plan::Nothing
            | Plan::Session => Step::plain("Utility Statement"),
        }
    }

    /// The step on top of a change, which hands on only what it returns.
    fn top(&self, step: Step) -> Step {
        Step { did: self.measures.map(Measures::of_change), ..step }
    }

    fn node(&self, node: &Node) -> Step {
        self.node_as(node, node)
    }

    /// A step with what `measured` did: a filter is no step of its own. The projection on top of a query is
    /// evaluated by whoever takes its rows, so every projection shows what the step below it did.
    fn node_as(&self, node: &Node, measured: &Node) -> Step {
        let step = match node {
            Node::Project { input, .. } => return self.node(input),
            Node::Filter { input, predicate } => {
                let mut step = self.node_as(input, measured);
                step.above.push(shown(predicate, None));
                return step;
            }
            Node::Nothing => Step::plain("Result"),
            Node::Values(rows) => {
                Step::new("Values Scan", format!("Values Scan ({} rows)", rows.len()))
                    .with("Rows", Fact::Count(rows.len()))
            }
            Node::Table(table) => {
                let removed = self.measures.and_then(|measures| measures.removed(node, table));
                Step { removed, ..scan(table) }
            }
            Node::Series { .. } => Step::on("Function Scan", "Function Name", "generate_series"),
            Node::Items { .. } => Step::on("Function Scan", "Function Name", "unnest"),
            Node::Sequence(sequence) => Step::on("Seq Scan", "Relation Name", &sequence.name),
            Node::System(view) => Step::on("Catalog Scan", "Relation Name", view.name()),
            Node::Join(join) => self.join(join),
            Node::Aggregate { input, groups, .. } => aggregate(groups).over(self.node(input)),
            Node::Sort { input, keys } => {
                let title = format!("Sort ({} keys)", keys.len());
                let shown = Fact::Names(keys.iter().map(sort_key).collect());
                Step::new("Sort", title).with("Sort Key", shown).over(self.node(input))
            }
            Node::Limit { input, .. } => Step::plain("Limit").over(self.node(input)),
            Node::Distinct { input, .. } => Step::plain("Unique").over(self.node(input)),
            Node::Set { operation, all, left, right } => {
                let (left, right) = (self.node(left), self.node(right));
                set(*operation, *all, left, right)
            }
        };
        Step { did: self.measures.map(|measures| measures.of(measured)), ..step }
    }

    fn join(&self, join: &JoinNode) -> Step {
        let (kind, within) = match join.kind {
            JoinKind::Inner => ("Inner", ""),
            JoinKind::Left => ("Left", " Left"),
            JoinKind::Right => ("Right", " Right"),
            JoinKind::Full => ("Full", " Full"),
        };
        let step = match &join.method {
            JoinMethod::Lateral => {
                Step::new("Nested Loop", format!("Nested Loop{within} Join by Index"))
            }
            JoinMethod::Hash(_) => Step::new("Hash Join", format!("Hash{within} Join")),
            JoinMethod::Loop => Step::new("Nested Loop", format!("Nested Loop{within} Join")),
        };
        step.with("Join Type", Fact::Word(kind))
            .over(self.node(&join.left))
            .over_as("Inner", self.node(&join.right))
    }
}

/// INSERT, UPDATE or DELETE.
fn change(verb: &'static str, table: &TableDef) -> Step {
    Step::new("ModifyTable", format!("{verb} on {}", table.name))
        .with("Operation", Fact::Word(verb))
        .with("Relation Name", Fact::Name(table.name.clone()))
}

/// Groups come in the order of their keys, as of PostgreSQL's sorted strategy.
fn aggregate(groups: &[Expr]) -> Step {
    if groups.is_empty() {
        return Step::plain("Aggregate").with("Strategy", Fact::Word("Plain"));
    }
    let keys = groups.iter().map(|group| shown(group, None)).collect();
    Step::new("Aggregate", "GroupAggregate")
        .with("Strategy", Fact::Word("Sorted"))
        .with("Group Key", Fact::Names(keys))
}

fn set(operation: SetOperation, all: bool, left: Step, right: Step) -> Step {
    let (name, every) = match operation {
        SetOperation::Union if all => return append("Union All", left, right),
        SetOperation::Union => return append("Union", left, right),
        SetOperation::Intersect => ("Intersect", "Intersect All"),
        SetOperation::Except => ("Except", "Except All"),
    };
    let command = Fact::Word(if all { every } else { name });
    Step::new("SetOp", format!("SetOp {name}"))
        .with("Command", command)
        .over(left)
        .over_as("Inner", right)
}

/// UNION, which takes out what is double itself.
fn append(command: &'static str, left: Step, right: Step) -> Step {
    Step::plain("Append")
        .with("Command", Fact::Word(command))
        .over_as("Member", left)
        .over_as("Member", right)
}

/// A key with what PostgreSQL would say of its order.
fn sort_key(key: &SortKey) -> String {
    let order = match (key.descending, key.nulls_first) {
        (false, false) => "",
        (false, true) => " NULLS FIRST",
        (true, true) => " DESC",
        (true, false) => " DESC NULLS LAST",
    };
    format!("{}{order}", shown(&key.expr, None))
}

/// How a table is read.
fn scan(node: &TableNode) -> Step {
    let table = &node.table;
    let by_index = |id: IndexId, direction: Direction, condition: Option<String>| {
        let found = table.indexes.iter().find(|index| index.id == id);
        let name = found.map_or("?", |index| index.name.as_str());
        let (word, within) = match direction {
            Direction::Ascending => ("Forward", ""),
            Direction::Descending => ("Backward", " Backward"),
        };
        let title = format!("Index Scan{within} using {name} on {}", table.name);
        let step = Step::new("Index Scan", title)
            .with("Scan Direction", Fact::Word(word))
            .with("Index Name", Fact::Name(name.to_owned()))
            .with("Relation Name", Fact::Name(table.name.clone()));
        Step { condition, ..step }
    };
    let step = match &node.access {
        Access::Scan => Step::on("Seq Scan", "Relation Name", &table.name),
        Access::Key { index, key } => {
            let parts: Vec<String> = key.iter().map(|expr| shown(expr, None)).collect();
            let condition = format!("key = ({})", parts.join(", "));
            by_index(*index, Direction::Ascending, Some(condition))
        }
        Access::KeyList { index, keys } => {
            let condition = format!("key IN ({} values)", keys.len());
            by_index(*index, Direction::Ascending, Some(condition))
        }
        Access::Range { index, equal, lower, upper, direction } => {
            let mut conditions: Vec<String> =
                equal.iter().map(|expr| format!("= {}", shown(expr, None))).collect();
            conditions.extend(bound(lower, ">"));
            conditions.extend(bound(upper, "<"));
            let condition =
                (!conditions.is_empty()).then(|| format!("key {}", conditions.join(" and ")));
            by_index(*index, *direction, condition)
        }
    };
    Step { filter: node.filter.as_ref().map(|filter| shown(filter, Some(table))), ..step }
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
