//! Output columns: the SELECT list and RETURNING, their labels, and names that ORDER BY finds among them.

use super::{Binder, Bound, Relation, Scope, expression::is_relation};
use crate::{
    error::{SqlError, state},
    expr::Expr,
    names,
    plan::{Query, ResultColumn},
    types,
};
use sqlparser::ast::{self, Spanned as _};

/// One output column before it is projected.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) bound: Bound,
}

impl Binder<'_> {
    /// The SELECT list, or RETURNING's.
    pub(super) fn outputs(
        &self,
        items: &[ast::SelectItem],
        scope: &Scope<'_>,
    ) -> Result<Vec<Output>, SqlError> {
        scope.clause.set("the select list");
        let mut outputs = Vec::with_capacity(items.len());
        for item in items {
            match item {
                ast::SelectItem::UnnamedExpr(expr) => {
                    let bound = self.shown(expr, scope)?;
                    outputs.push(Output { name: label(expr), bound });
                }
                ast::SelectItem::ExprWithAlias { alias, .. } if alias.quote_style == Some('\'') => {
                    return Err(SqlError::syntax_near(&format!("'{}'", alias.value)).at(alias.span));
                }
                ast::SelectItem::ExprWithAlias { expr, alias } => {
                    let bound = self.shown(expr, scope)?;
                    outputs.push(Output { name: names::folded(alias), bound });
                }
                ast::SelectItem::Wildcard(_) => {
                    if scope.relations.is_empty() {
                        return Err(SqlError::new(
                            state::SYNTAX,
                            "SELECT * with no tables specified is not valid",
                        )
                        .at(item.span()));
                    }
                    every_column(scope, &mut outputs);
                }
                ast::SelectItem::QualifiedWildcard(kind, _) => {
                    let ast::SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
                        return Err(SqlError::unsupported("this wildcard").at(item.span()));
                    };
                    let alias = names::last_part(name);
                    let relation = scope.relation(&alias).ok_or_else(|| {
                        SqlError::new(
                            state::UNKNOWN_TABLE,
                            format!("missing FROM-clause entry for table \"{alias}\""),
                        )
                        .at(names::span(name))
                    })?;
                    all_columns(relation, &mut outputs);
                }
                ast::SelectItem::ExprWithAliases { .. } => {
                    return Err(SqlError::unsupported("several aliases").at(item.span()));
                }
            }
        }
        Ok(outputs)
    }

    /// An output column: what is cast to regclass is shown by its name, where nothing compares it.
    fn shown(&self, tree: &ast::Expr, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        let bound = self.typed(tree, scope)?;
        let is_computed = !matches!(bound.expr, Expr::Const(_)) && scope.parent.is_none();
        match tree {
            ast::Expr::Cast { data_type, .. } if is_computed && is_relation(data_type) => {
                self.named_call("regclassout", vec![bound], tree.span())
            }
            _ => Ok(bound),
        }
    }
}

/// `*`: columns of JOIN USING first, then all others in FROM's order.
fn every_column(scope: &Scope<'_>, outputs: &mut Vec<Output>) {
    let mut found: Vec<(usize, Output)> = Vec::new();
    for relation in &scope.relations {
        for (position, column) in relation.columns.iter().enumerate() {
            if !column.merged && !column.hidden {
                let bound = relation.bound(position);
                let output = Output { name: column.name.clone(), bound };
                found.push((column.precedence, output));
            }
        }
    }
    found.sort_by_key(|(precedence, _)| std::cmp::Reverse(*precedence));
    outputs.extend(found.into_iter().map(|(_, output)| output));
}

/// `relation.*`: all its columns.
fn all_columns(relation: &Relation, outputs: &mut Vec<Output>) {
    let columns = relation.columns.iter().enumerate().filter(|(_, column)| !column.hidden);
    for (position, column) in columns {
        let bound = relation.bound(position);
        outputs.push(Output { name: column.name.clone(), bound });
    }
}

/// The position that an integer literal names; None when it is something else.
pub(super) fn integer_position(
    tree: &ast::Expr,
    count: usize,
    clause: &str,
) -> Result<Option<usize>, SqlError> {
    let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(number, _), span }) = tree
    else {
        return Ok(None);
    };
    match number.parse::<usize>() {
        Ok(position) if (1..=count).contains(&position) => Ok(Some(position - 1)),
        _ => Err(SqlError::new(
            state::BAD_COLUMN_REFERENCE,
            format!("{clause} position {number} is not in select list"),
        )
        .at(*span)),
    }
}

/// The output that an ORDER BY item names by position or label.
pub(super) fn output_position(
    tree: &ast::Expr,
    outputs: &[Output],
) -> Result<Option<usize>, SqlError> {
    if let Some(position) = integer_position(tree, outputs.len(), "ORDER BY")? {
        return Ok(Some(position));
    }
    let ast::Expr::Identifier(ident) = tree else { return Ok(None) };
    let name = names::folded(ident);
    let mut matching = outputs.iter().enumerate().filter(|(_, output)| output.name == name);
    let Some((first, output)) = matching.next() else { return Ok(None) };
    if matching.any(|(_, other)| other.bound.expr != output.bound.expr) {
        return Err(SqlError::new(
            state::AMBIGUOUS_COLUMN,
            format!("ORDER BY \"{name}\" is ambiguous"),
        )
        .at(ident.span));
    }
    Ok(Some(first))
}

/// The label of a column without an alias.
fn label(tree: &ast::Expr) -> String {
    match tree {
        ast::Expr::Identifier(ident) => names::folded(ident),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(names::folded).unwrap_or_default(),
        ast::Expr::Function(call) => names::last_part(&call.name),
        // A column or function under the cast gives the name, else the outermost type does.
        ast::Expr::Cast { expr, data_type, .. } => match cast_subject(expr) {
            Some(inner) => inner,
            None => types::written_type(data_type)
                .map_or_else(|_| "?column?".to_owned(), |w| w.ty().catalog_name().to_owned()),
        },
        ast::Expr::TypedString(typed) => types::written_type(&typed.data_type)
            .map_or_else(|_| "?column?".to_owned(), |w| w.ty().catalog_name().to_owned()),
        ast::Expr::Interval(_) => "interval".to_owned(),
        ast::Expr::Nested(inner) | ast::Expr::Collate { expr: inner, .. } => label(inner),
        ast::Expr::Case { else_result, .. } => match else_result.as_deref().map(label) {
            Some(inner) if inner != "?column?" => inner,
            _ => "case".to_owned(),
        },
        ast::Expr::Exists { negated: false, .. } => "exists".to_owned(),
        ast::Expr::Extract { .. } => "extract".to_owned(),
        ast::Expr::Substring { shorthand: true, .. } => "substr".to_owned(),
        ast::Expr::Substring { .. } => "substring".to_owned(),
        ast::Expr::Trim { trim_where, .. } => match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".to_owned(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".to_owned(),
            Some(ast::TrimWhereField::Both) | None => "btrim".to_owned(),
        },
        ast::Expr::Ceil { .. } => "ceil".to_owned(),
        ast::Expr::Floor { .. } => "floor".to_owned(),
        ast::Expr::Position { .. } => "position".to_owned(),
        ast::Expr::AtTimeZone { .. } => "timezone".to_owned(),
        ast::Expr::Subquery(query) => match &*query.body {
            ast::SetExpr::Select(select) => match select.projection.first() {
                Some(ast::SelectItem::UnnamedExpr(expr)) => label(expr),
                Some(ast::SelectItem::ExprWithAlias { alias, .. }) => names::folded(alias),
                _ => "?column?".to_owned(),
            },
            _ => "?column?".to_owned(),
        },
        _ => "?column?".to_owned(),
    }
}

/// The label of what is cast, when it has one of its own.
fn cast_subject(tree: &ast::Expr) -> Option<String> {
    match tree {
        ast::Expr::Nested(inner) => cast_subject(inner),
        ast::Expr::Cast { expr, .. } => cast_subject(expr),
        ast::Expr::TypedString(_) | ast::Expr::Case { else_result: None, .. } => None,
        other => Some(label(other)).filter(|name| name != "?column?"),
    }
}

/// The columns of a bound query as outputs over its tuples.
pub(super) fn described(query: &Query) -> Vec<Output> {
    let columns = query.columns.iter().zip(&query.types).enumerate();
    columns
        .map(|(position, (column, ty))| Output {
            name: column.name.clone(),
            bound: Bound::new(Expr::Column(position), *ty),
        })
        .collect()
}

/// Columns of a result as clients see them.
pub(super) fn result_columns(outputs: &[Output]) -> Vec<ResultColumn> {
    outputs
        .iter()
        .map(|output| {
            let mut column = ResultColumn::new(output.name.as_str(), output.bound.ty);
            if let Some(declared) = output.bound.declared {
                column.data_type = declared;
                column.type_modifier = types::type_modifier(declared);
            }
            column
        })
        .collect()
}
