//! Names: folding, quoting and qualification.

use crate::error::{SqlError, state};
use sqlparser::ast;
use std::sync::Arc;
use understudy_store::{Catalog, TableDef};

/// The only schema that holds tables.
pub(crate) const PUBLIC: &str = "public";

/// An identifier as the catalog keeps it: unquoted ones in lower case.
pub(crate) fn folded(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The parts of a possibly qualified name, folded.
pub(crate) fn parts(name: &ast::ObjectName) -> Vec<String> {
    name.0
        .iter()
        .map(|part| match part {
            ast::ObjectNamePart::Identifier(ident) => folded(ident),
            ast::ObjectNamePart::Function(function) => folded(&function.name),
        })
        .collect()
}

/// The last part of a name, folded.
pub(crate) fn last_part(name: &ast::ObjectName) -> String {
    parts(name).pop().unwrap_or_default()
}

/// The span of the last part.
pub(crate) fn span(name: &ast::ObjectName) -> sqlparser::tokenizer::Span {
    match name.0.last() {
        Some(ast::ObjectNamePart::Identifier(ident)) => ident.span,
        Some(ast::ObjectNamePart::Function(function)) => function.name.span,
        None => sqlparser::tokenizer::Span::empty(),
    }
}

/// Splits into schema (None: not written) and name.
pub(crate) fn qualified(name: &ast::ObjectName) -> Result<(Option<String>, String), SqlError> {
    let mut all = parts(name);
    let last = all.pop().unwrap_or_default();
    match all.len() {
        0 => Ok((None, last)),
        1 | 2 => Ok((all.pop(), last)),
        _ => Err(SqlError::new(
            state::SYNTAX,
            format!("improper qualified name (too many dotted names): {name}"),
        )
        .at(span(name))),
    }
}

/// Finds a table of the store, or None. A catalog schema is not looked into.
pub(crate) fn find_table(
    catalog: &Catalog,
    name: &ast::ObjectName,
) -> Result<Option<Arc<TableDef>>, SqlError> {
    let (schema, table) = qualified(name)?;
    let schema = schema.as_deref().unwrap_or(PUBLIC);
    Ok(catalog.table(schema, &table).cloned())
}

/// Finds a table of the store or fails with 42P01.
pub(crate) fn table(catalog: &Catalog, name: &ast::ObjectName) -> Result<Arc<TableDef>, SqlError> {
    find_table(catalog, name)?.ok_or_else(|| unknown_table(name))
}

/// 42P01.
pub(crate) fn unknown_table(name: &ast::ObjectName) -> SqlError {
    let shown = parts(name).join(".");
    SqlError::new(state::UNKNOWN_TABLE, format!("relation \"{shown}\" does not exist"))
        .at(span(name))
}

/// The name and schema for a new table or index.
pub(crate) fn for_creation(name: &ast::ObjectName) -> Result<String, SqlError> {
    let (schema, table) = qualified(name)?;
    match schema.as_deref() {
        None | Some(PUBLIC) => Ok(table),
        Some("pg_catalog" | "information_schema") => {
            Err(SqlError::new(state::PRIVILEGE, format!("permission denied to create \"{name}\""))
                .with_detail("System catalog modifications are currently disallowed.")
                .at(span(name)))
        }
        Some(other) => {
            Err(SqlError::new(state::UNKNOWN_SCHEMA, format!("schema \"{other}\" does not exist"))
                .with_hint("Tables live in the schema public.")
                .at(span(name)))
        }
    }
}

/// The name with double quotes where SQL needs them.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Words PostgreSQL reserves: a name equal to one of them needs quotes.
const RESERVED: [&str; 62] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_date",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "leading",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "some",
    "table",
    "then",
    "to",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "where",
];
