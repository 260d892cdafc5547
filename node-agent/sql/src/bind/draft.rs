//! A table as its constraints are read: keys become indexes, checks become text of the catalog,
//! references wait until both are there.

use super::{Binder, reference::WrittenKey};
use crate::{
    error::{SqlError, state},
    names,
};
use sqlparser::ast::{self, Spanned as _};
use understudy_store::{ColumnOrder, IndexDef, IndexId, TableDef};

/// A table as its constraints are read, one after the other.
pub(super) struct TableDraft {
    pub(super) table: TableDef,
    /// Indexes whose names are chosen when all written names are known: name, columns, key.
    later: Vec<(Option<String>, Vec<u16>, bool)>,
    /// Foreign keys, resolved when all columns and indexes are known.
    pub(super) references: Vec<WrittenKey>,
}

impl TableDraft {
    pub(super) fn new(table: TableDef) -> TableDraft {
        TableDraft { table, later: Vec::new(), references: Vec::new() }
    }

    pub(super) fn column_constraints(
        &mut self,
        column: &ast::ColumnDef,
        position: usize,
    ) -> Result<(), SqlError> {
        let columns = vec![u16::try_from(position).unwrap_or(u16::MAX)];
        for option in &column.options {
            let name = option.name.as_ref().map(names::folded);
            match &option.option {
                ast::ColumnOption::PrimaryKey(_) => self.key(name, (columns.clone(), true))?,
                ast::ColumnOption::Unique(_) => self.key(name, (columns.clone(), false))?,
                ast::ColumnOption::Check(check) => {
                    let name = name.or_else(|| check.name.as_ref().map(names::folded));
                    let default =
                        format!("{}_{}_check", self.table.name, names::folded(&column.name));
                    self.check(name, &default, &check.expr);
                }
                ast::ColumnOption::ForeignKey(clause) => {
                    let name = name.or_else(|| clause.name.as_ref().map(names::folded));
                    let (columns, clause) = (columns.clone(), clause.clone());
                    self.references.push(WrittenKey { name, columns, clause });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn constraint(&mut self, constraint: &ast::TableConstraint) -> Result<(), SqlError> {
        match constraint {
            ast::TableConstraint::PrimaryKey(key) => {
                let columns = index_columns(&self.table, &key.columns)?;
                constraint_is_unordered(&key.columns)?;
                self.key(key.name.as_ref().map(names::folded), (columns, true))
            }
            ast::TableConstraint::Unique(unique) => {
                if unique.nulls_distinct == ast::NullsDistinctOption::NotDistinct {
                    return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
                }
                let columns = index_columns(&self.table, &unique.columns)?;
                constraint_is_unordered(&unique.columns)?;
                self.key(unique.name.as_ref().map(names::folded), (columns, false))
            }
            ast::TableConstraint::Check(check) => {
                let name = check.name.as_ref().map(names::folded);
                let default = match self.only_column(&check.expr.to_string()) {
                    Some(column) => format!("{}_{column}_check", self.table.name),
                    None => format!("{}_check", self.table.name),
                };
                self.check(name, &default, &check.expr);
                Ok(())
            }
            ast::TableConstraint::ForeignKey(clause) => self.reference(clause),
            other => Err(SqlError::unsupported(format!("the constraint {other}"))),
        }
    }

    /// The column a predicate speaks of, when it is only one: it gives the check its name.
    fn only_column(&self, predicate: &str) -> Option<&str> {
        let mut words =
            predicate.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter_map(|word| {
                let position = self.table.column_position(&word.to_lowercase())?;
                Some(self.table.columns[position].name.as_str())
            });
        let first = words.next()?;
        words.all(|word| word == first).then_some(first)
    }

    fn key(
        &mut self,
        name: Option<String>,
        (columns, is_primary_key): (Vec<u16>, bool),
    ) -> Result<(), SqlError> {
        if is_primary_key {
            let present = self.table.primary_key().is_some()
                || self.later.iter().any(|(_, _, is_primary_key)| *is_primary_key);
            if present {
                return Err(SqlError::new(
                    state::BAD_TABLE,
                    format!(
                        "multiple primary keys for table \"{}\" are not allowed",
                        self.table.name
                    ),
                ));
            }
            for column in &columns {
                self.table.columns[usize::from(*column)].not_null = true;
            }
        }
        self.later.push((name, columns, is_primary_key));
        Ok(())
    }

    fn check(&mut self, name: Option<String>, default: &str, expr: &ast::Expr) {
        let taken = |name: &str, checks: &[String]| {
            checks.iter().any(|text| split_check(text).is_ok_and(|(known, _)| known == name))
        };
        let name = name.unwrap_or_else(|| {
            let mut name = default.to_owned();
            let mut number = 0;
            while taken(&name, &self.table.checks) {
                number += 1;
                name = format!("{default}{number}");
            }
            name
        });
        self.table.checks.push(format!("CONSTRAINT {} CHECK ({expr})", names::quoted(&name)));
    }

    /// Gives the collected keys their names and makes them indexes.
    pub(super) fn named_indexes(&mut self, binder: &Binder<'_>) -> Result<(), SqlError> {
        for (name, columns, is_primary_key) in std::mem::take(&mut self.later) {
            let name = match name {
                Some(name) => {
                    let taken = binder.catalog.has_relation(names::PUBLIC, &name)
                        || self.table.indexes.iter().any(|index| index.name == name);
                    if taken {
                        let message = format!("relation \"{name}\" already exists");
                        return Err(SqlError::new(state::DUPLICATE_TABLE, message));
                    }
                    name
                }
                None if is_primary_key => {
                    binder.free_name(&format!("{}_pkey", self.table.name), &self.table.indexes)
                }
                None => {
                    let parts: Vec<&str> = columns
                        .iter()
                        .map(|column| self.table.columns[usize::from(*column)].name.as_str())
                        .collect();
                    let wanted = format!("{}_{}_key", self.table.name, parts.join("_"));
                    binder.free_name(&wanted, &self.table.indexes)
                }
            };
            self.table.indexes.push(IndexDef {
                id: IndexId(0),
                name,
                columns,
                unique: true,
                is_primary_key,
                order: Vec::new(),
                only: None,
            });
        }
        Ok(())
    }
}

/// Name and predicate of a check as the catalog keeps it: `CONSTRAINT name CHECK (predicate)`.
pub(crate) fn split_check(text: &str) -> Result<(String, String), SqlError> {
    let damaged = || SqlError::internal(format!("the catalog holds a malformed check: {text}"));
    let body = text.strip_prefix("CONSTRAINT ").ok_or_else(damaged)?;
    let (name, rest) = match body.strip_prefix('"') {
        Some(quoted) => {
            let mut end = 0;
            let bytes = quoted.as_bytes();
            while end < bytes.len() {
                if bytes[end] == b'"' {
                    if bytes.get(end + 1) != Some(&b'"') {
                        break;
                    }
                    end += 1;
                }
                end += 1;
            }
            let rest = quoted.get(end + 1..).ok_or_else(damaged)?;
            (quoted[..end].replace("\"\"", "\""), rest)
        }
        None => {
            let (name, rest) = body.split_once(' ').ok_or_else(damaged)?;
            (name.to_owned(), rest)
        }
    };
    let predicate = rest.trim_start().strip_prefix("CHECK (").and_then(|p| p.strip_suffix(')'));
    predicate.map(|predicate| (name, predicate.to_owned())).ok_or_else(damaged)
}

/// A constraint's columns are only named: the grammar has no order there.
fn constraint_is_unordered(written: &[ast::IndexColumn]) -> Result<(), SqlError> {
    if index_order(written).is_empty() {
        return Ok(());
    }
    Err(SqlError::new(state::SYNTAX, "the columns of a constraint have no order")
        .with_hint("Leave DESC and NULLS FIRST out, or use CREATE UNIQUE INDEX."))
}

/// How the columns of an index are ordered; empty when all are as by default.
pub(super) fn index_order(written: &[ast::IndexColumn]) -> Vec<ColumnOrder> {
    let order = written.iter().map(|item| {
        let options = &item.column.options;
        let descending = options.asc == Some(false);
        ColumnOrder { descending, nulls_first: options.nulls_first.unwrap_or(descending) }
    });
    let order: Vec<ColumnOrder> = order.collect();
    if order.iter().all(|column| *column == ColumnOrder::default()) { Vec::new() } else { order }
}

/// The columns of a key.
pub(super) fn index_columns(
    table: &TableDef,
    written: &[ast::IndexColumn],
) -> Result<Vec<u16>, SqlError> {
    let mut columns = Vec::with_capacity(written.len());
    for item in written {
        let ast::Expr::Identifier(ident) = &item.column.expr else {
            let shown = item.column.expr.to_string();
            return Err(SqlError::syntax_near(&shown).at(item.column.expr.span()));
        };
        let column = index_column(table, ident)?;
        if columns.contains(&column) {
            let message = format!("column \"{}\" appears twice in a key", names::folded(ident));
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message).at(ident.span));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// The position of a key's column.
pub(super) fn index_column(table: &TableDef, ident: &ast::Ident) -> Result<u16, SqlError> {
    let name = names::folded(ident);
    let position = table.column_position(&name).ok_or_else(|| {
        let message = format!("column \"{name}\" named in key does not exist");
        SqlError::new(state::UNKNOWN_COLUMN, message).at(ident.span)
    })?;
    Ok(u16::try_from(position).unwrap_or(u16::MAX))
}
