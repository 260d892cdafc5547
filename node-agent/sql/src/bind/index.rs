//! CREATE INDEX: keys that are columns, keys that are expressions, and predicates.
//!
//! An expression is kept in a hidden column of the table, and so is a predicate. Indexes on the same
//! expression share one, and one that no index uses any more is taken again.

use super::{
    Binder,
    change::no_arbiter,
    computed::Purpose,
    draft::{index_column, index_order},
};
use crate::{
    definition::Definition,
    error::{SqlError, state},
    eval,
    expr::Expr,
    names,
    parse::{self, ConflictKeys},
    plan::Computed,
};
use sqlparser::ast::{self, Spanned as _};
use std::sync::Arc;
use understudy_store::{ColumnDef, DataType, IndexDef, IndexId, TableDef};

/// The table with the columns that an index needs, as its keys are read.
struct IndexDraft {
    table: Arc<TableDef>,
    /// Hidden columns that are new, or taken again.
    computed: Vec<Computed>,
}

impl Binder<'_> {
    pub(super) fn create_index(&self, create: &ast::CreateIndex) -> Result<Definition, SqlError> {
        let table = names::table(self.catalog, &create.table_name)?;
        refuse_clauses(create)?;
        let mut draft = IndexDraft { table: Arc::clone(&table), computed: Vec::new() };
        let only = match &create.predicate {
            Some(tree) => Some(self.only_column(&mut draft, tree)?),
            None => None,
        };
        let mut columns = Vec::with_capacity(create.columns.len());
        for item in &create.columns {
            columns.push(self.key_column(
                &mut draft,
                &item.column.expr,
                create.predicate.as_ref(),
            )?);
        }
        let name = match &create.name {
            Some(name) => names::for_creation(name)?,
            None => {
                let parts = create.columns.iter().map(|item| key_name(&item.column.expr));
                let parts = distinct(parts.collect());
                self.free_name(&format!("{}_{}_idx", table.name, parts.join("_")), &[])
            }
        };
        if self.catalog.has_relation(names::PUBLIC, &name) {
            let message = format!("relation \"{name}\" already exists");
            if create.if_not_exists {
                return Ok(Definition::Skip(vec![format!("{message}, skipping")]));
            }
            return Err(SqlError::new(state::DUPLICATE_TABLE, message));
        }
        let unique = create.unique;
        let order = index_order(&create.columns);
        let id = IndexId(0);
        let index = IndexDef { id, name, columns, unique, is_primary_key: false, order, only };
        let notices = asks_for_hash(create).then(|| {
            format!(
                "index \"{}\" is an ordered one: it finds equal keys, and ranges too",
                index.name
            )
        });
        let notices = Vec::from_iter(notices);
        let IndexDraft { table, computed } = draft;
        Ok(Definition::CreateIndex { table, index, computed, notices })
    }

    /// The unique index that has these keys, for all rows or for those of the predicate.
    pub(super) fn arbiters_by(
        &self,
        table: &Arc<TableDef>,
        written: &ConflictKeys,
    ) -> Result<Vec<IndexId>, SqlError> {
        let mut draft = IndexDraft { table: Arc::clone(table), computed: Vec::new() };
        let mut keys = |predicate: Option<&ast::Expr>| -> Result<Vec<u16>, SqlError> {
            let keys = written.exprs.iter();
            let keys = keys.map(|tree| self.key_column(&mut draft, tree, predicate));
            let mut keys = keys.collect::<Result<Vec<u16>, SqlError>>()?;
            keys.sort_unstable();
            Ok(keys)
        };
        let (of_all, of_some) = (keys(None)?, keys(written.predicate.as_ref())?);
        let mut only = None;
        if let Some(tree) = &written.predicate {
            only = Some(self.only_column(&mut draft, tree)?);
        }
        let has_keys = |index: &&IndexDef| {
            let mut columns = index.columns.clone();
            columns.sort_unstable();
            let has = |keys: &[u16]| index.unique && columns == *keys;
            if index.only.is_none() { has(&of_all) } else { index.only == only && has(&of_some) }
        };
        let found = table.indexes.iter().find(has_keys);
        found.map(|index| vec![index.id]).ok_or_else(no_arbiter)
    }

    /// The position of a key: a column of the table, or a hidden one for an expression. For an index that
    /// leaves rows out, the expression is computed for the others alone: it may fail for those.
    fn key_column(
        &self,
        draft: &mut IndexDraft,
        tree: &ast::Expr,
        predicate: Option<&ast::Expr>,
    ) -> Result<u16, SqlError> {
        let mut inner = tree;
        while let ast::Expr::Nested(nested) = inner {
            inner = nested;
        }
        if let ast::Expr::Identifier(ident) = inner {
            return index_column(&draft.table, ident);
        }
        let bound = self.over_row(inner, &draft.table, Purpose::Index)?;
        if !eval::is_comparable(bound.ty) {
            let message = format!("data type {} has no default operator class", bound.ty);
            return Err(SqlError::new(state::UNKNOWN_OBJECT, message).at(inner.span()));
        }
        let mut column = ColumnDef::hidden(key_text(inner), bound.ty.storage());
        let Some(predicate) = predicate else {
            return self.hidden_column(draft, column, bound.expr);
        };
        let text = format!("CASE WHEN {predicate} THEN {inner} END");
        let held = self.over_row(&parse::parse_expression(&text)?, &draft.table, Purpose::Index)?;
        column.generated = Some(text);
        self.hidden_column(draft, column, held.expr)
    }

    /// The position of the column that says which rows an index has entries for.
    fn only_column(&self, draft: &mut IndexDraft, tree: &ast::Expr) -> Result<u16, SqlError> {
        let bound = self.over_row(tree, &draft.table, Purpose::Predicate)?;
        let predicate = self.condition(bound, "WHERE", tree.span())?;
        if let Expr::Column(column) = predicate {
            return Ok(u16::try_from(column).unwrap_or(u16::MAX));
        }
        let column = ColumnDef::hidden(format!("({tree})"), DataType::Bool);
        self.hidden_column(draft, column, predicate)
    }

    /// The hidden column that holds an expression already, or a new one.
    fn hidden_column(
        &self,
        draft: &mut IndexDraft,
        column: ColumnDef,
        expr: Expr,
    ) -> Result<u16, SqlError> {
        let (computed, table) = (self.computed(&draft.table)?, &draft.table);
        let is_same = |(position, held): &&Computed| {
            let old = &table.columns[*position];
            old.hidden && old.name == column.name && *held == expr
        };
        let position = match computed.iter().find(is_same) {
            Some((position, _)) => *position,
            None => draft.add(column, expr),
        };
        Ok(u16::try_from(position).unwrap_or(u16::MAX))
    }
}

impl IndexDraft {
    /// Adds a hidden column, in the place of one that nothing uses if there is one of its type.
    fn add(&mut self, column: ColumnDef, expr: Expr) -> usize {
        let table = Arc::make_mut(&mut self.table);
        let fits = |old: &ColumnDef, data_type: DataType| {
            old.hidden && old.generated.is_none() && old.data_type == data_type
        };
        let unused = table.columns.iter().position(|old| fits(old, column.data_type));
        let position = unused.unwrap_or(table.columns.len());
        match unused {
            Some(position) => table.columns[position] = column,
            None => table.columns.push(column),
        }
        self.computed.push((position, expr));
        position
    }
}

fn asks_for_hash(create: &ast::CreateIndex) -> bool {
    matches!(create.using, Some(ast::IndexType::Hash))
}

/// What an index cannot have. USING HASH is taken, and is an ordered index (decision 0012).
fn refuse_clauses(create: &ast::CreateIndex) -> Result<(), SqlError> {
    if !create.include.is_empty() {
        return Err(SqlError::unsupported("INCLUDE in an index"));
    }
    if create.nulls_distinct == Some(false) {
        return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
    }
    let method = create.using.as_ref().map(|using| using.to_string().to_lowercase());
    if !matches!(method.as_deref(), None | Some("btree" | "hash")) {
        let method = method.unwrap_or_default();
        return Err(SqlError::unsupported(format!("the index method {method}")));
    }
    Ok(())
}

/// An expression as PostgreSQL writes a key: calls as they are, all else in parentheses.
fn key_text(tree: &ast::Expr) -> String {
    match tree {
        ast::Expr::Function(_) => tree.to_string(),
        other => format!("({other})"),
    }
}

/// What a key without a name of its own adds to the index's name.
fn key_name(tree: &ast::Expr) -> String {
    match tree {
        ast::Expr::Nested(inner) => key_name(inner),
        ast::Expr::Identifier(ident) => names::folded(ident),
        ast::Expr::Function(call) => names::last_part(&call.name),
        ast::Expr::Case { .. } => "case".to_owned(),
        ast::Expr::Cast { expr, data_type, .. } => match key_name(expr).as_str() {
            "expr" => data_type.to_string().to_lowercase(),
            name => name.to_owned(),
        },
        _ => "expr".to_owned(),
    }
}

/// The same names, numbered where they repeat.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut given: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let mut numbered = name.clone();
        for number in 1.. {
            if !given.contains(&numbered) {
                break;
            }
            numbered = format!("{name}{number}");
        }
        given.push(numbered);
    }
    given
}
