//! Generated columns, and the hidden columns behind indexes on expressions.
//!
//! Both hold what an expression over the row's other columns gives, and whoever writes a row fills them in.
//! Therefore the expression must give the same for the same row at any time, in any session: it calls
//! immutable functions only, and converts nothing by the session's time zone.

use super::{Binder, Bound, Relation, Scope};
use crate::{
    error::{SqlError, state},
    expr::Expr,
    function, parse,
    plan::{Computed, IndexExpressions, PartialIndex},
    types::{Category, Type},
};
use sqlparser::ast::{self, Spanned as _};
use std::sync::Arc;
use understudy_store::{ColumnDef, IndexDef, TableDef};

/// What an expression is for, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Generation,
    Index,
    Predicate,
}

impl Purpose {
    fn clause(self) -> &'static str {
        match self {
            Purpose::Generation => "column generation expressions",
            Purpose::Index => "index expressions",
            Purpose::Predicate => "index predicates",
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Purpose::Generation => "column generation expression",
            Purpose::Index => "index expression",
            Purpose::Predicate => "index predicate",
        }
    }

    fn is_not_immutable(self) -> &'static str {
        match self {
            Purpose::Generation => "generation expression is not immutable",
            Purpose::Index => "functions in index expression must be marked IMMUTABLE",
            Purpose::Predicate => "functions in index predicate must be marked IMMUTABLE",
        }
    }
}

impl Binder<'_> {
    /// What the generated and hidden columns of a table hold, in the order in which they are computed:
    /// hidden columns may be over generated ones, which read no other.
    pub(crate) fn computed(&self, table: &Arc<TableDef>) -> Result<Vec<Computed>, SqlError> {
        let columns = table.columns.iter().enumerate();
        let (hidden, shown): (Vec<_>, Vec<_>) = columns
            .filter_map(|(position, column)| Some((position, column.generated.as_deref()?)))
            .partition(|(position, _)| table.columns[*position].hidden);
        let all = shown.into_iter().chain(hidden);
        all.map(|(position, text)| Ok((position, self.computed_expr(table, position, text)?)))
            .collect()
    }

    /// Those of them that follow from what is assigned.
    pub(crate) fn recomputed(
        &self,
        table: &Arc<TableDef>,
        assignments: &[(usize, Expr)],
    ) -> Result<Vec<Computed>, SqlError> {
        let mut changed: Vec<usize> = assignments.iter().map(|(column, _)| *column).collect();
        let mut computed = self.computed(table)?;
        computed.retain(|(position, expr)| {
            let reads = |part: &Expr| matches!(part, Expr::Column(c) if changed.contains(c));
            let follows = expr.any(&reads);
            changed.extend(follows.then_some(*position));
            follows
        });
        Ok(computed)
    }

    /// The expressions that indexes of a table are over, for its conditions to be recognised, and the
    /// conditions under which indexes that leave rows out have all that are wanted.
    pub(super) fn index_expressions(
        &self,
        table: &Arc<TableDef>,
    ) -> Result<IndexExpressions, SqlError> {
        let is_plain = |index: &IndexDef| table.is_plain(index);
        if self.without_hidden.get() || table.indexes.iter().all(is_plain) {
            return Ok(IndexExpressions::default());
        }
        self.uses_hidden.set(true);
        let computed = self.computed(table)?;
        let held = |position: usize| {
            let hidden = computed.iter().filter(|(column, _)| table.columns[*column].hidden);
            hidden.into_iter().find(|(column, _)| *column == position).map(|(_, expr)| expr.clone())
        };
        let mut expressions = IndexExpressions::default();
        for index in &table.indexes {
            let keys = index.columns.iter().map(|column| usize::from(*column));
            let keys = keys.filter_map(|column| Some((column, held(column)?)));
            let is_over_columns =
                |held: &Computed| held.1.any(&|part| matches!(part, Expr::Column(_)));
            let Some(only) = index.only.map(usize::from) else {
                expressions.hidden.extend(keys.filter(is_over_columns));
                continue;
            };
            let mut predicate = Vec::new();
            held(only).unwrap_or(Expr::Column(only)).into_conjuncts(&mut predicate);
            let hidden = keys.map(|(column, expr)| (column, within(expr)));
            let hidden = hidden.filter(is_over_columns).collect();
            expressions.partial.push(PartialIndex { index: index.id, predicate, hidden });
        }
        Ok(expressions)
    }

    fn computed_expr(
        &self,
        table: &Arc<TableDef>,
        position: usize,
        text: &str,
    ) -> Result<Expr, SqlError> {
        let tree = parse::parse_expression(text)?;
        let column = &table.columns[position];
        if column.hidden {
            return Ok(self.over_row(&tree, table, Purpose::Index)?.expr);
        }
        let bound = self.over_row(&tree, table, Purpose::Generation)?;
        self.assigned(bound, (&column.name, column.data_type), tree.span())
    }

    /// An expression over the columns of one row, which gives the same for the same row at any time.
    pub(super) fn over_row(
        &self,
        tree: &ast::Expr,
        table: &Arc<TableDef>,
        purpose: Purpose,
    ) -> Result<Bound, SqlError> {
        let scope = Scope::new(vec![Relation::of_table(table.name.clone(), table, 0)], None);
        scope.clause.set(purpose.clause());
        let bound = self.expr(tree, &scope)?;
        let bound = if purpose == Purpose::Index { self.settled(bound)? } else { bound };
        if bound.expr.has_subquery() {
            let message = format!("cannot use subquery in {}", purpose.singular());
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message).at(tree.span()));
        }
        if let Some(number) = parameter(&bound.expr) {
            let message = format!("there is no parameter ${}", number + 1);
            return Err(SqlError::new(state::UNKNOWN_PARAMETER, message).at(tree.span()));
        }
        if bound.expr.any(&depends_on_session) {
            return Err(SqlError::new(state::BAD_OBJECT, purpose.is_not_immutable()));
        }
        Ok(bound)
    }

    /// A GENERATED column's expression, proved; the whole table must be known.
    pub(super) fn generation(
        &self,
        table: &Arc<TableDef>,
        position: usize,
        tree: &ast::Expr,
    ) -> Result<Expr, SqlError> {
        let column = &table.columns[position];
        let bound = self.over_row(tree, table, Purpose::Generation)?;
        let mut generated = table.columns.iter().enumerate().filter(|(_, c)| c.generated.is_some());
        let read = generated.find(|(other, _)| {
            bound.expr.any(&|part| matches!(part, Expr::Column(c) if c == other))
        });
        if let Some((_, other)) = read {
            let message = format!(
                "cannot use generated column \"{}\" in column generation expression",
                other.name
            );
            return Err(SqlError::new(state::BAD_OBJECT, message)
                .with_detail("A generated column cannot reference another generated column.")
                .at(tree.span()));
        }
        self.assigned(bound, (&column.name, column.data_type), tree.span())
    }

    /// 428C9 unless a generated column is left alone.
    pub(super) fn refuse_generated(column: &ColumnDef, words: &str) -> Result<(), SqlError> {
        if column.generated.is_none() {
            return Ok(());
        }
        Err(SqlError::new(state::GENERATED_ALWAYS, words.to_owned())
            .with_detail(format!("Column \"{}\" is a generated column.", column.name)))
    }
}

/// The expression of a GENERATED ALWAYS AS (…) STORED.
pub(super) fn generation_expr(written: &ast::ColumnDef) -> Result<Option<&ast::Expr>, SqlError> {
    let found = written.options.iter().find_map(|option| match &option.option {
        ast::ColumnOption::Generated {
            generation_expr: Some(expr), generation_expr_mode, ..
        } => Some((expr, generation_expr_mode)),
        _ => None,
    });
    let Some((expr, mode)) = found else { return Ok(None) };
    if *mode != Some(ast::GeneratedExpressionMode::Stored) {
        return Err(SqlError::new(state::SYNTAX, "a generated column must be STORED")
            .with_hint("Write GENERATED ALWAYS AS (expression) STORED.")
            .at(written.name.span));
    }
    Ok(Some(expr))
}

/// What the key of a partial index is for the rows that the index has (see `index::key_column`).
fn within(held: Expr) -> Expr {
    match held {
        Expr::Case { mut branches, otherwise: None } if branches.len() == 1 => branches.remove(0).1,
        other => other,
    }
}

fn parameter(expr: &Expr) -> Option<usize> {
    if let Expr::Param(number) = expr {
        return Some(*number);
    }
    let mut found = None;
    expr.for_each_child(&mut |child| found = found.or_else(|| parameter(child)));
    found
}

/// Whether one node gives something else in another session, or at another time.
fn depends_on_session(part: &Expr) -> bool {
    match part {
        Expr::Call(function, _) => !function::is_immutable(function),
        Expr::Cast { from, to, .. } => {
            let text = |ty: &Type| ty.category() == Category::Text || *ty == Type::Unknown;
            let zoned = |ty: &Type| *ty == Type::Timestamptz;
            let moment = |ty: &Type| ty.category() == Category::Moment;
            from != to
                && (zoned(from)
                    || zoned(to)
                    || text(from) && moment(to)
                    || moment(from) && text(to))
        }
        Expr::AnyItem { item, .. } => item.category() == Category::Moment,
        _ => false,
    }
}
