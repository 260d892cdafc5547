//! INSERT, UPDATE, DELETE, and the target of COPY FROM.

use super::{
    Binder, Bound, Relation, Scope,
    from::{FromTree, Locking, cross},
    output::{Output, result_columns},
    push_down,
    sequence::Written,
};
use crate::{
    error::{SqlError, state},
    expr::Expr,
    names, parse,
    plan::{
        ChangePlan, Check, ConflictUpdate, InsertPlan, InsertSource, OnConflict, Reading,
        ResultColumn,
    },
    types::{Category, Type},
};
use sqlparser::ast::{self, Spanned as _};
use std::sync::Arc;
use understudy_store::{IndexId, TableDef};

/// The expressions of RETURNING and what they are called.
type Returning = (Vec<Expr>, Vec<ResultColumn>);

impl Binder<'_> {
    /// INSERT.
    pub(crate) fn insert(
        &self,
        insert: &ast::Insert,
    ) -> Result<(InsertPlan, Vec<ResultColumn>), SqlError> {
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::unsupported("INSERT into something else than a table"));
        };
        let table = self.target(name)?;
        let targets = self.insert_columns(&table, &insert.columns)?;
        let source = match &insert.source {
            None => InsertSource::Rows(vec![self.whole_row(&table, &targets, Vec::new())?]),
            Some(query) => self.insert_source(&table, &targets, query)?,
        };
        let alias = insert
            .table_alias
            .as_ref()
            .map_or_else(|| table.name.clone(), |alias| names::folded(&alias.alias));
        let relation = Relation::of_table(alias, &table, 0);
        let on_conflict = match &insert.on {
            None => None,
            Some(ast::OnInsert::OnConflict(clause)) => {
                Some(self.on_conflict(&table, &relation, clause)?)
            }
            Some(_) => return Err(SqlError::unsupported("ON DUPLICATE KEY UPDATE")),
        };
        let scope = Scope::new(vec![relation], None);
        let (returning, columns) = self.returning(insert.returning.as_deref(), &scope)?;
        let (computed, checks) = (self.computed(&table)?, self.checks(&table)?);
        Ok((InsertPlan { table, source, on_conflict, computed, checks, returning }, columns))
    }

    /// The plan behind COPY FROM: one row of parameters, each of its column's type.
    pub(crate) fn copy_target(
        &self,
        name: &ast::ObjectName,
        columns: &[String],
    ) -> Result<(InsertPlan, Vec<usize>), SqlError> {
        let table = self.target(name)?;
        let idents: Vec<ast::ObjectName> = columns
            .iter()
            .map(|column| ast::ObjectName::from(vec![ast::Ident::with_quote('"', column)]))
            .collect();
        let targets = copied_columns(&table, self.insert_columns(&table, &idents)?, columns)?;
        let row = targets
            .iter()
            .enumerate()
            .map(|(position, column)| {
                let ty = Type::of(table.columns[*column].data_type);
                Bound::new(Expr::Column(position), ty)
            })
            .collect();
        let exprs = self.whole_row(&table, &targets, row)?;
        let (computed, checks) = (self.computed(&table)?, self.checks(&table)?);
        let source = InsertSource::Query { node: crate::plan::Node::Nothing, exprs };
        let (on_conflict, returning) = (None, Vec::new());
        let plan = InsertPlan { table, source, on_conflict, computed, checks, returning };
        Ok((plan, targets))
    }

    /// A table that is written to; catalog views are not.
    fn target(&self, name: &ast::ObjectName) -> Result<Arc<TableDef>, SqlError> {
        names::table(self.catalog, name).map_err(|error| {
            let schema = names::parts(name);
            let view = crate::system::SystemView::find(
                schema.len().checked_sub(2).map(|at| schema[at].as_str()),
                &names::last_part(name),
            );
            if view.is_some() {
                let message = format!("permission denied for table {}", names::last_part(name));
                return SqlError::new(state::PRIVILEGE, message).at(names::span(name));
            }
            error
        })
    }

    fn insert_columns(
        &self,
        table: &TableDef,
        written: &[ast::ObjectName],
    ) -> Result<Vec<usize>, SqlError> {
        if written.is_empty() {
            return Ok(table.shown_columns().map(|(position, _)| position).collect());
        }
        let mut columns = Vec::with_capacity(written.len());
        for name in written {
            let column = column_of(table, name)?;
            if columns.contains(&column) {
                return Err(SqlError::new(
                    state::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", table.columns[column].name),
                )
                .at(names::span(name)));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    fn insert_source(
        &self,
        table: &TableDef,
        targets: &[usize],
        query: &ast::Query,
    ) -> Result<InsertSource, SqlError> {
        if let (ast::SetExpr::Values(values), None, None, None) =
            (&*query.body, &query.order_by, &query.limit_clause, &query.with)
        {
            let scope = Scope::new(Vec::new(), None);
            scope.clause.set("VALUES");
            let width = values.rows.first().map_or(0, |row| row.content.len());
            if values.rows.iter().any(|row| row.content.len() != width) {
                return Err(SqlError::new(
                    state::SYNTAX,
                    "VALUES lists must all be the same length",
                ));
            }
            let rows: Result<Vec<Vec<Expr>>, SqlError> = values
                .rows
                .iter()
                .map(|row| self.values_row(table, targets, &row.content, &scope))
                .collect();
            return Ok(InsertSource::Rows(rows?));
        }
        let query = self.top_query(&typed_by_columns(query.clone(), table, targets))?;
        counts_match(targets.len(), query.types.len())?;
        let row = query
            .types
            .iter()
            .enumerate()
            .map(|(position, ty)| Bound::new(Expr::Column(position), *ty))
            .collect();
        let exprs = self.selected_row(table, targets, row)?;
        Ok(InsertSource::Query { node: query.node, exprs })
    }

    fn values_row(
        &self,
        table: &TableDef,
        targets: &[usize],
        row: &[ast::Expr],
        scope: &Scope<'_>,
    ) -> Result<Vec<Expr>, SqlError> {
        counts_match(targets.len(), row.len())?;
        let mut exprs: Vec<Option<Expr>> = vec![None; table.columns.len()];
        for (tree, target) in row.iter().zip(targets) {
            let column = &table.columns[*target];
            exprs[*target] = Some(if is_default(tree) {
                self.default_of(table, *target)?
            } else if let Written::Default = self.inserted(column)? {
                self.default_of(table, *target)?
            } else {
                let bound = self.expr(tree, scope)?;
                self.assigned(bound, (&column.name, column.data_type), tree.span())?
            });
        }
        self.filled(table, exprs)
    }

    /// The same as `whole_row`, where identity columns may be written or not.
    fn selected_row(
        &self,
        table: &TableDef,
        targets: &[usize],
        row: Vec<Bound>,
    ) -> Result<Vec<Expr>, SqlError> {
        let (mut kept, mut values) = (Vec::new(), Vec::new());
        for (bound, target) in row.into_iter().zip(targets) {
            if let Written::Value = self.inserted(&table.columns[*target])? {
                kept.push(*target);
                values.push(bound);
            }
        }
        self.whole_row(table, &kept, values)
    }

    /// A row in table order from values for some columns; the others get their defaults.
    fn whole_row(
        &self,
        table: &TableDef,
        targets: &[usize],
        row: Vec<Bound>,
    ) -> Result<Vec<Expr>, SqlError> {
        let mut exprs: Vec<Option<Expr>> = vec![None; table.columns.len()];
        for (bound, target) in row.into_iter().zip(targets) {
            let column = &table.columns[*target];
            let span = sqlparser::tokenizer::Span::empty();
            exprs[*target] = Some(self.assigned(bound, (&column.name, column.data_type), span)?);
        }
        self.filled(table, exprs)
    }

    fn filled(&self, table: &TableDef, exprs: Vec<Option<Expr>>) -> Result<Vec<Expr>, SqlError> {
        exprs
            .into_iter()
            .enumerate()
            .map(|(column, expr)| expr.map_or_else(|| self.default_of(table, column), Ok))
            .collect()
    }

    fn default_of(&self, table: &TableDef, column: usize) -> Result<Expr, SqlError> {
        let position = column;
        let column = &table.columns[column];
        if column.identity.is_some() {
            return self.identity_value(table, position);
        }
        // What is generated is computed when the rest of the row is there.
        match &column.default {
            None => Ok(Expr::NULL),
            Some(text) => self.default_expr(text, &column.name, column.data_type),
        }
    }

    /// A DEFAULT's text as an expression of the column's type.
    pub(crate) fn default_expr(
        &self,
        text: &str,
        name: &str,
        data_type: understudy_store::DataType,
    ) -> Result<Expr, SqlError> {
        let tree = parse::parse_expression(text)?;
        let scope = Scope::new(Vec::new(), None);
        scope.clause.set("DEFAULT expressions");
        let bound = self.expr(&tree, &scope)?;
        self.assigned(bound, (name, data_type), tree.span())
    }

    /// The table's CHECK constraints, bound.
    pub(crate) fn checks(&self, table: &Arc<TableDef>) -> Result<Vec<Check>, SqlError> {
        table
            .checks
            .iter()
            .map(|text| {
                let (name, predicate) = super::split_check(text)?;
                let tree = parse::parse_expression(&predicate)?;
                let relation = Relation::of_table(table.name.clone(), table, 0);
                let scope = Scope::new(vec![relation], None);
                let predicate = self.predicate(&tree, "CHECK", &scope)?;
                Ok(Check { name, predicate })
            })
            .collect()
    }

    fn on_conflict(
        &self,
        table: &Arc<TableDef>,
        relation: &Relation,
        clause: &ast::OnConflict,
    ) -> Result<OnConflict, SqlError> {
        let keys = self.conflict.take();
        let arbiters = match &keys {
            Some(keys) => self.arbiters_by(table, keys)?,
            None => arbiters(table, clause.conflict_target.as_ref())?,
        };
        let update = match &clause.action {
            ast::OnConflictAction::DoNothing => None,
            ast::OnConflictAction::DoUpdate(update) => {
                if clause.conflict_target.is_none() && keys.is_none() {
                    return Err(SqlError::new(
                        state::SYNTAX,
                        "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                    )
                    .with_hint("For example, ON CONFLICT (column_name)."));
                }
                let excluded =
                    Relation::of_table("excluded".to_owned(), table, table.columns.len());
                let scope = Scope::new(vec![relation.clone(), excluded], None);
                let assignments = self.assignments(table, &update.assignments, &scope)?;
                let predicate = match &update.selection {
                    Some(selection) => Some(self.predicate(selection, "WHERE", &scope)?),
                    None => None,
                };
                let computed = self.recomputed(table, &assignments)?;
                Some(ConflictUpdate { assignments, computed, predicate })
            }
        };
        Ok(OnConflict { arbiters, update })
    }

    fn assignments(
        &self,
        table: &TableDef,
        written: &[ast::Assignment],
        scope: &Scope<'_>,
    ) -> Result<Vec<(usize, Expr)>, SqlError> {
        scope.clause.set("UPDATE");
        let mut assignments: Vec<(usize, Expr)> = Vec::new();
        for assignment in written {
            let pairs = assignment_pairs(assignment)?;
            for (name, tree) in pairs {
                let position = column_of(table, name)?;
                let column = &table.columns[position];
                if assignments.iter().any(|(known, _)| *known == position) {
                    return Err(SqlError::new(
                        state::SYNTAX,
                        format!("multiple assignments to same column \"{}\"", column.name),
                    )
                    .at(names::span(name)));
                }
                let expr = if is_default(tree) {
                    if column.generated.is_some() {
                        continue;
                    }
                    self.default_of(table, position)?
                } else {
                    self.check_updated(column)?;
                    let bound = self.expr(tree, scope)?;
                    self.assigned(bound, (&column.name, column.data_type), tree.span())?
                };
                assignments.push((position, expr));
            }
        }
        Ok(assignments)
    }

    /// UPDATE.
    pub(crate) fn update(
        &self,
        update: &ast::Update,
    ) -> Result<(ChangePlan, Vec<ResultColumn>), SqlError> {
        if !update.order_by.is_empty() || update.limit.is_some() {
            return Err(SqlError::unsupported("UPDATE with ORDER BY or LIMIT"));
        }
        if !update.table.joins.is_empty() {
            return Err(SqlError::new(
                state::SYNTAX,
                "UPDATE takes one table; write joins in FROM",
            ));
        }
        let from: &[ast::TableWithJoins] = match &update.from {
            None => &[],
            Some(
                ast::UpdateTableFromKind::AfterSet(items)
                | ast::UpdateTableFromKind::BeforeSet(items),
            ) => items,
        };
        let (table, tree) = self.change_source(&update.table.relation, from)?;
        let scope = Scope::new(tree.relations.clone(), None);
        scope.note_escape(tree.escapes);
        let assignments = self.assignments(&table, &update.assignments, &scope)?;
        self.finished_change(
            (table, tree),
            Some(assignments),
            update.selection.as_ref(),
            update.returning.as_deref(),
        )
    }

    /// DELETE.
    pub(crate) fn delete(
        &self,
        delete: &ast::Delete,
    ) -> Result<(ChangePlan, Vec<ResultColumn>), SqlError> {
        if !delete.order_by.is_empty() || delete.limit.is_some() || !delete.tables.is_empty() {
            return Err(SqlError::unsupported("DELETE with ORDER BY, LIMIT or several tables"));
        }
        let (ast::FromTable::WithFromKeyword(items) | ast::FromTable::WithoutKeyword(items)) =
            &delete.from;
        let [item] = items.as_slice() else {
            return Err(SqlError::unsupported("DELETE from several tables").with_hint("Use USING."));
        };
        let using = delete.using.as_deref().unwrap_or_default();
        let source = self.change_source(&item.relation, using)?;
        self.finished_change(source, None, delete.selection.as_ref(), delete.returning.as_deref())
    }

    fn change_source(
        &self,
        target: &ast::TableFactor,
        from: &[ast::TableWithJoins],
    ) -> Result<(Arc<TableDef>, FromTree), SqlError> {
        let ast::TableFactor::Table { name, alias, args: None, .. } = target else {
            return Err(SqlError::unsupported("changing something else than a table"));
        };
        let table = self.target(name)?;
        let alias =
            alias.as_ref().map_or_else(|| table.name.clone(), |alias| names::folded(&alias.name));
        let reading = (Reading::Target, self.index_expressions(&table)?);
        let mut tree = FromTree::table(alias, &table, reading);
        if !from.is_empty() {
            tree = cross(tree, self.from(from, None, &Locking::None)?)?;
        }
        Ok((table, tree))
    }

    fn finished_change(
        &self,
        (table, tree): (Arc<TableDef>, FromTree),
        assignments: Option<Vec<(usize, Expr)>>,
        selection: Option<&ast::Expr>,
        returning: Option<&[ast::SelectItem]>,
    ) -> Result<(ChangePlan, Vec<ResultColumn>), SqlError> {
        let FromTree { node, relations, .. } = tree;
        let scope = Scope::new(relations, None);
        let mut conjuncts = Vec::new();
        if let Some(selection) = selection {
            self.predicate(selection, "WHERE", &scope)?.into_conjuncts(&mut conjuncts);
        }
        let source = push_down::filter(node, conjuncts);
        let (returning, columns) = self.returning(returning, &scope)?;
        let (computed, checks) = match &assignments {
            Some(assignments) => (self.recomputed(&table, assignments)?, self.checks(&table)?),
            None => (Vec::new(), Vec::new()),
        };
        Ok((ChangePlan { table, source, assignments, computed, checks, returning }, columns))
    }

    fn returning(
        &self,
        items: Option<&[ast::SelectItem]>,
        scope: &Scope<'_>,
    ) -> Result<Returning, SqlError> {
        let Some(items) = items else { return Ok((Vec::new(), Vec::new())) };
        let outputs: Vec<Output> = self.outputs(items, scope)?;
        let columns = result_columns(&outputs);
        Ok((outputs.into_iter().map(|output| output.bound.expr).collect(), columns))
    }
}

/// A literal or parameter that INSERT's SELECT list shows as it is has the type of the column that takes it:
/// `INSERT INTO t SELECT $1, NULL WHERE NOT EXISTS (…)`. DISTINCT compares such values as texts.
fn typed_by_columns(mut query: ast::Query, table: &TableDef, targets: &[usize]) -> ast::Query {
    let ast::SetExpr::Select(select) = &mut *query.body else { return query };
    if select.distinct.is_some() {
        return query;
    }
    for (item, target) in select.projection.iter_mut().zip(targets) {
        let (ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. }) =
            item
        else {
            // How many columns it stands for is not known yet.
            break;
        };
        if is_untyped(expr) {
            let ty = Type::of(table.columns[*target].data_type);
            let ty = if ty.category() == Category::Text { Type::Text } else { ty };
            let name = ast::Ident::new(ty.catalog_name());
            *expr = ast::Expr::Cast {
                kind: ast::CastKind::DoubleColon,
                expr: Box::new(expr.clone()),
                data_type: ast::DataType::Custom(vec![name].into(), Vec::new()),
                array: false,
                format: None,
            };
        }
    }
    query
}

fn is_untyped(expr: &ast::Expr) -> bool {
    let ast::Expr::Value(value) = expr else { return false };
    matches!(
        value.value,
        ast::Value::Null
            | ast::Value::Placeholder(_)
            | ast::Value::SingleQuotedString(_)
            | ast::Value::EscapedStringLiteral(_)
            | ast::Value::DollarQuotedString(_)
    )
}

/// The columns that COPY FROM fills: not those that are generated.
fn copied_columns(
    table: &TableDef,
    mut targets: Vec<usize>,
    written: &[String],
) -> Result<Vec<usize>, SqlError> {
    let is_generated = |position: &usize| table.columns[*position].generated.is_some();
    if written.is_empty() {
        targets.retain(|position| !is_generated(position));
    }
    match targets.iter().find(|position| is_generated(position)) {
        Some(position) => Err(generated_in_copy(&table.columns[*position].name)),
        None => Ok(targets),
    }
}

/// 42P10: COPY names a generated column.
pub(crate) fn generated_in_copy(column: &str) -> SqlError {
    let message = format!("column \"{column}\" is a generated column");
    SqlError::new(state::BAD_COLUMN_REFERENCE, message)
        .with_detail("Generated columns cannot be used in COPY.")
}

fn counts_match(targets: usize, values: usize) -> Result<(), SqlError> {
    if values > targets {
        return Err(SqlError::new(
            state::SYNTAX,
            "INSERT has more expressions than target columns",
        ));
    }
    Ok(())
}

fn is_default(tree: &ast::Expr) -> bool {
    matches!(tree, ast::Expr::Identifier(ident)
        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// The position of a column that is written to.
fn column_of(table: &TableDef, name: &ast::ObjectName) -> Result<usize, SqlError> {
    let wanted = names::last_part(name);
    table.column_position(&wanted).ok_or_else(|| {
        SqlError::new(
            state::UNKNOWN_COLUMN,
            format!("column \"{wanted}\" of relation \"{}\" does not exist", table.name),
        )
        .at(names::span(name))
    })
}

fn assignment_pairs(
    assignment: &ast::Assignment,
) -> Result<Vec<(&ast::ObjectName, &ast::Expr)>, SqlError> {
    match &assignment.target {
        ast::AssignmentTarget::ColumnName(name) => Ok(vec![(name, &assignment.value)]),
        ast::AssignmentTarget::Tuple(names) => match &assignment.value {
            ast::Expr::Tuple(values) if values.len() == names.len() => {
                Ok(names.iter().zip(values).collect())
            }
            ast::Expr::Tuple(_) => Err(SqlError::new(
                state::SYNTAX,
                "number of columns does not match number of values",
            )),
            other => {
                Err(SqlError::unsupported("SET (…) = something else than (…)").at(other.span()))
            }
        },
    }
}

pub(super) fn no_arbiter() -> SqlError {
    SqlError::new(
        state::BAD_COLUMN_REFERENCE,
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    )
}

/// The unique indexes whose conflicts ON CONFLICT handles.
fn arbiters(
    table: &TableDef,
    target: Option<&ast::ConflictTarget>,
) -> Result<Vec<IndexId>, SqlError> {
    let unique = || table.indexes.iter().filter(|index| index.unique);
    match target {
        None => Ok(unique().map(|index| index.id).collect()),
        Some(ast::ConflictTarget::Columns(columns)) => {
            let mut wanted = Vec::with_capacity(columns.len());
            for column in columns {
                let name = ast::ObjectName::from(vec![column.clone()]);
                wanted.push(column_of(table, &name)?);
            }
            wanted.sort_unstable();
            let found = unique().filter(|index| table.is_plain(index)).find(|index| {
                let mut columns: Vec<usize> =
                    index.columns.iter().map(|column| usize::from(*column)).collect();
                columns.sort_unstable();
                columns == wanted
            });
            found.map(|index| vec![index.id]).ok_or_else(no_arbiter)
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let wanted = names::last_part(name);
            let mut keys = unique().filter(|index| table.is_plain(index));
            keys.find(|index| index.name == wanted).map(|index| vec![index.id]).ok_or_else(|| {
                SqlError::new(
                    state::UNKNOWN_OBJECT,
                    format!("constraint \"{wanted}\" for table \"{}\" does not exist", table.name),
                )
                .at(names::span(name))
            })
        }
    }
}
