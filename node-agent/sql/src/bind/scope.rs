//! What names mean inside one query: its relations, and the queries around it.

use crate::{
    aggregate::AggregateCall,
    error::{SqlError, state},
    expr::Expr,
    names,
    types::Type,
};
use sqlparser::ast;
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};
use understudy_store::{DataType, TableDef};

/// An expression with its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bound {
    pub(crate) expr: Expr,
    pub(crate) ty: Type,
    /// The declared type of the column it comes from, with its length or precision.
    pub(crate) declared: Option<DataType>,
}

impl Bound {
    pub(crate) fn new(expr: Expr, ty: Type) -> Bound {
        Bound { expr, ty, declared: None }
    }
}

/// One column that can be named.
#[derive(Debug, Clone)]
pub(crate) struct ScopeColumn {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) declared: Option<DataType>,
    /// Not part of `*`, and found only with its relation's name (the other side of JOIN USING).
    pub(crate) merged: bool,
    /// Place in `*` before the others: columns of JOIN USING come first, the latest join's above all.
    /// Zero for all others; higher comes first.
    pub(crate) precedence: usize,
    /// What an index is over: nobody can name it.
    pub(crate) hidden: bool,
}

impl ScopeColumn {
    /// A column that no table declares.
    pub(crate) fn computed(name: String, ty: Type) -> ScopeColumn {
        ScopeColumn { name, ty, declared: None, merged: false, precedence: 0, hidden: false }
    }
}

/// One item of FROM.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) alias: String,
    pub(crate) columns: Vec<ScopeColumn>,
    /// Where its columns begin in the tuple.
    pub(crate) start: usize,
    /// The table behind it, when there is one.
    pub(crate) table: Option<Arc<TableDef>>,
    /// Where its row id is in the tuple, when it is read with one.
    pub(crate) row_id: Option<usize>,
}

impl Relation {
    /// A table under a name.
    pub(crate) fn of_table(alias: String, table: &Arc<TableDef>, start: usize) -> Relation {
        let columns = table
            .columns
            .iter()
            .map(|column| ScopeColumn {
                name: column.name.clone(),
                ty: Type::of(column.data_type),
                declared: Some(column.data_type),
                merged: false,
                precedence: 0,
                hidden: column.hidden,
            })
            .collect();
        Relation { alias, columns, start, table: Some(Arc::clone(table)), row_id: None }
    }

    pub(crate) fn bound(&self, position: usize) -> Bound {
        let column = &self.columns[position];
        Bound {
            expr: Expr::Column(self.start + position),
            ty: column.ty,
            declared: column.declared,
        }
    }
}

/// The names one query sees.
pub(crate) struct Scope<'p> {
    pub(crate) relations: Vec<Relation>,
    pub(crate) parent: Option<&'p Scope<'p>>,
    /// How many levels out the query reaches; zero when it does not.
    pub(crate) escapes: Cell<usize>,
    /// Whether a query inside reads a column of this one.
    pub(crate) used_inside: Cell<bool>,
    /// Where aggregate calls are collected; None where they are not allowed.
    pub(crate) aggregates: Option<RefCell<Vec<AggregateCall>>>,
    /// The clause being bound, for messages.
    pub(crate) clause: Cell<&'static str>,
}

impl<'p> Scope<'p> {
    pub(crate) fn new(relations: Vec<Relation>, parent: Option<&'p Scope<'p>>) -> Scope<'p> {
        Scope {
            relations,
            parent,
            escapes: Cell::new(0),
            used_inside: Cell::new(false),
            aggregates: None,
            clause: Cell::new("this clause"),
        }
    }

    /// The same names with a place for aggregates.
    pub(crate) fn with_aggregates(mut self) -> Scope<'p> {
        self.aggregates = Some(RefCell::default());
        self
    }

    /// Notes that something inside this query reaches `depth` levels out of it.
    pub(crate) fn note_escape(&self, depth: usize) {
        self.escapes.set(self.escapes.get().max(depth));
    }

    /// Resolves a column, here or in an enclosing query.
    pub(crate) fn column(&self, parts: &[ast::Ident]) -> Result<Bound, SqlError> {
        let mut scope = self;
        let mut depth = 0;
        loop {
            if let Some(found) = scope.find(parts)? {
                if depth == 0 {
                    return Ok(found);
                }
                scope.used_inside.set(true);
                self.mark(depth);
                let Expr::Column(column) = found.expr else {
                    return Err(SqlError::internal("a column resolved to something else"));
                };
                return Ok(Bound { expr: Expr::Outer { depth, column }, ..found });
            }
            match scope.parent {
                Some(parent) => {
                    scope = parent;
                    depth += 1;
                }
                None => return Err(self.unknown(parts)),
            }
        }
    }

    fn mark(&self, depth: usize) {
        let mut scope = Some(self);
        let mut left = depth;
        while let (Some(at), true) = (scope, left > 0) {
            at.note_escape(left);
            left -= 1;
            scope = at.parent;
        }
    }

    fn find(&self, parts: &[ast::Ident]) -> Result<Option<Bound>, SqlError> {
        let Some((last, qualifier)) = parts.split_last() else { return Ok(None) };
        let name = names::folded(last);
        let alias = qualifier.last().map(names::folded);
        let mut found = None;
        for relation in &self.relations {
            if alias.as_ref().is_some_and(|alias| *alias != relation.alias) {
                continue;
            }
            for (position, column) in relation.columns.iter().enumerate() {
                let is_meant = !column.hidden && column.name == name;
                if !is_meant || (column.merged && alias.is_none()) {
                    continue;
                }
                if found.is_some() {
                    return Err(SqlError::new(
                        state::AMBIGUOUS_COLUMN,
                        format!("column reference \"{name}\" is ambiguous"),
                    )
                    .at(last.span));
                }
                found = Some(relation.bound(position));
            }
        }
        Ok(found)
    }

    fn unknown(&self, parts: &[ast::Ident]) -> SqlError {
        let span = parts.first().map_or_else(sqlparser::tokenizer::Span::empty, |p| p.span);
        let shown: Vec<String> = parts.iter().map(names::folded).collect();
        let mut scope = Some(self);
        if let [.., alias, _] = parts {
            let alias = names::folded(alias);
            let mut known = false;
            while let Some(at) = scope {
                known |= at.relations.iter().any(|relation| relation.alias == alias);
                scope = at.parent;
            }
            if !known {
                return SqlError::new(
                    state::UNKNOWN_TABLE,
                    format!("missing FROM-clause entry for table \"{alias}\""),
                )
                .at(span);
            }
            return SqlError::new(
                state::UNKNOWN_COLUMN,
                format!("column {} does not exist", shown.join(".")),
            )
            .at(span);
        }
        SqlError::new(
            state::UNKNOWN_COLUMN,
            format!("column \"{}\" does not exist", shown.join(".")),
        )
        .at(span)
    }

    /// The relation of that name, in this query only.
    pub(crate) fn relation(&self, alias: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.alias == alias)
    }
}
