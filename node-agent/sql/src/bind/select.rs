//! Queries: SELECT lists, grouping, ordering, limits, VALUES, set operations and WITH.

use super::{
    Binder, Bound, Cte, Scope,
    call::sort_key,
    from::{FromTree, Locking},
    group::Grouping,
    output::{Output, described, integer_position, output_position, result_columns},
    push_down,
};
use crate::{
    error::{SqlError, state},
    expr::Expr,
    names,
    plan::{LockWaitPolicy, LockingPlan, Node, Query, SetOperation, SortKey},
    types::{self, Type},
};
use sqlparser::ast::{self, Spanned as _};
use std::rc::Rc;

/// A SELECT bound up to its projection.
struct Draft {
    /// Yields the tuples that `outputs` and `order` are over.
    node: Node,
    outputs: Vec<Output>,
    order: Vec<SortKey>,
    distinct: Option<Option<Vec<Expr>>>,
    escapes: usize,
    /// The names of FROM's items.
    aliases: Vec<String>,
    /// Tables and row id columns, for locking.
    row_ids: Vec<(std::sync::Arc<understudy_store::TableDef>, usize)>,
}

impl Binder<'_> {
    /// A query, inside an enclosing one or by itself.
    pub(crate) fn query(
        &self,
        query: &ast::Query,
        parent: Option<&Scope<'_>>,
    ) -> Result<Query, SqlError> {
        self.refuse_clauses(query)?;
        if !query.locks.is_empty() && parent.is_some() {
            return Err(SqlError::unsupported("FOR UPDATE in a subquery"));
        }
        let before = self.ctes.borrow().len();
        self.with(query.with.as_ref())?;
        let bound = self.query_body(query, parent);
        self.ctes.borrow_mut().truncate(before);
        bound
    }

    fn query_body(
        &self,
        query: &ast::Query,
        parent: Option<&Scope<'_>>,
    ) -> Result<Query, SqlError> {
        let order = order_items(query)?;
        let (node, outputs, escapes) = match &*query.body {
            ast::SetExpr::Select(select) => {
                let draft = self.select(select, order, parent, &Locking::None)?;
                project(draft)
            }
            body => {
                let (node, outputs, escapes) = self.set_expr(body, parent)?;
                let node = self.order_outputs(node, &outputs, order)?;
                (node, outputs, escapes)
            }
        };
        let node = self.limited_node(node, query, parent)?;
        Ok(finished(self, node, &outputs, escapes))
    }

    fn refuse_clauses(&self, query: &ast::Query) -> Result<(), SqlError> {
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return Err(SqlError::unsupported("this clause of a query").at(query.span()));
        }
        Ok(())
    }

    fn with(&self, with: Option<&ast::With>) -> Result<(), SqlError> {
        let Some(with) = with else { return Ok(()) };
        if with.recursive {
            return Err(SqlError::unsupported("WITH RECURSIVE"));
        }
        for cte in &with.cte_tables {
            if !matches!(
                &*cte.query.body,
                ast::SetExpr::Select(_)
                    | ast::SetExpr::Values(_)
                    | ast::SetExpr::Query(_)
                    | ast::SetExpr::SetOperation { .. }
            ) {
                return Err(SqlError::unsupported("a data-modifying statement in WITH")
                    .at(cte.alias.name.span));
            }
            let visible = self.ctes.borrow().len();
            self.ctes.borrow_mut().push(Cte {
                name: names::folded(&cte.alias.name),
                columns: cte.alias.columns.iter().map(|c| names::folded(&c.name)).collect(),
                query: Rc::new((*cte.query).clone()),
                visible,
            });
        }
        Ok(())
    }

    /// A query whose tables' rows are to be locked.
    pub(crate) fn locking_query(
        &self,
        query: &ast::Query,
    ) -> Result<(LockingPlan, Query), SqlError> {
        self.refuse_clauses(query)?;
        let ast::SetExpr::Select(select) = &*query.body else {
            return Err(SqlError::unsupported(
                "FOR UPDATE with UNION, INTERSECT, EXCEPT or VALUES",
            ));
        };
        let mut names_wanted = Vec::new();
        let mut policy = LockWaitPolicy::Wait;
        for lock in &query.locks {
            names_wanted.extend(lock.of.as_ref().map(names::last_part));
            policy = match lock.nonblock {
                None => policy,
                Some(ast::NonBlock::Nowait) => LockWaitPolicy::NoWait,
                Some(ast::NonBlock::SkipLocked) => LockWaitPolicy::SkipLocked,
            };
        }
        let locking =
            if names_wanted.is_empty() { Locking::All } else { Locking::Of(names_wanted) };
        let grouped =
            !matches!(&select.group_by, ast::GroupByExpr::Expressions(list, _) if list.is_empty());
        if grouped || select.distinct.is_some() || select.having.is_some() {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "FOR UPDATE is not allowed with GROUP BY, HAVING or DISTINCT clause",
            ));
        }
        let before = self.ctes.borrow().len();
        self.with(query.with.as_ref())?;
        let draft = self.select(select, order_items(query)?, None, &locking);
        self.ctes.borrow_mut().truncate(before);
        let draft = draft?;
        if let Locking::Of(wanted) = &locking
            && let Some(name) =
                wanted.iter().find(|name| !draft.aliases.iter().any(|alias| alias == *name))
        {
            return Err(SqlError::new(
                state::UNKNOWN_TABLE,
                format!("relation \"{name}\" in FOR UPDATE clause not found in FROM clause"),
            ));
        }
        if matches!(draft.node, Node::Aggregate { .. }) {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "FOR UPDATE is not allowed with aggregate functions",
            ));
        }
        let sorted = sorted_node(draft.node, draft.order);
        let (limit, offset) = self.limits(query, None)?;
        let exprs = draft.outputs.iter().map(|output| output.bound.expr.clone()).collect();
        let described = finished(self, Node::Nothing, &draft.outputs, 0);
        let plan =
            LockingPlan { input: sorted, locks: draft.row_ids, exprs, policy, limit, offset };
        Ok((plan, described))
    }

    fn set_expr(
        &self,
        body: &ast::SetExpr,
        parent: Option<&Scope<'_>>,
    ) -> Result<(Node, Vec<Output>, usize), SqlError> {
        match body {
            ast::SetExpr::Select(select) => {
                Ok(project(self.select(select, &[], parent, &Locking::None)?))
            }
            ast::SetExpr::Query(query) => {
                let query = self.query(query, parent)?;
                let escapes = usize::from(query.correlated);
                let outputs = described(&query);
                Ok((query.node, outputs, escapes))
            }
            ast::SetExpr::Values(values) => self.values(values, parent),
            ast::SetExpr::SetOperation { left, op, set_quantifier, right } => {
                self.set_operation((left, *op, *set_quantifier, right), parent)
            }
            ast::SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                Err(SqlError::unsupported(format!("TABLE {name}"))
                    .with_hint("Write SELECT * FROM."))
            }
            ast::SetExpr::Insert(_)
            | ast::SetExpr::Update(_)
            | ast::SetExpr::Delete(_)
            | ast::SetExpr::Merge(_) => {
                Err(SqlError::unsupported("a data-modifying statement in a query"))
            }
        }
    }

    fn values(
        &self,
        values: &ast::Values,
        parent: Option<&Scope<'_>>,
    ) -> Result<(Node, Vec<Output>, usize), SqlError> {
        let scope = Scope::new(Vec::new(), parent);
        scope.clause.set("VALUES");
        let mut rows: Vec<Vec<Bound>> = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let bound: Result<Vec<Bound>, SqlError> =
                row.content.iter().map(|expr| self.expr(expr, &scope)).collect();
            let bound = bound?;
            if rows.first().is_some_and(|first| first.len() != bound.len()) {
                return Err(SqlError::new(
                    state::SYNTAX,
                    "VALUES lists must all be the same length",
                ));
            }
            rows.push(bound);
        }
        let width = rows.first().map_or(0, Vec::len);
        let mut columns: Vec<Vec<Expr>> = vec![Vec::new(); rows.len()];
        let mut outputs = Vec::with_capacity(width);
        for column in 0..width {
            let items = rows.iter().map(|row| row[column].clone()).collect();
            let (exprs, ty) = self.unified(items, "VALUES", sqlparser::tokenizer::Span::empty())?;
            for (row, expr) in columns.iter_mut().zip(exprs) {
                row.push(expr);
            }
            let name = format!("column{}", column + 1);
            outputs.push(Output { name, bound: Bound::new(Expr::Column(column), ty) });
        }
        Ok((Node::Values(columns), outputs, scope.escapes.get()))
    }

    fn set_operation(
        &self,
        (left, op, quantifier, right): (
            &ast::SetExpr,
            ast::SetOperator,
            ast::SetQuantifier,
            &ast::SetExpr,
        ),
        parent: Option<&Scope<'_>>,
    ) -> Result<(Node, Vec<Output>, usize), SqlError> {
        let operation = match op {
            ast::SetOperator::Union => SetOperation::Union,
            ast::SetOperator::Intersect => SetOperation::Intersect,
            ast::SetOperator::Except | ast::SetOperator::Minus => SetOperation::Except,
        };
        let all = match quantifier {
            ast::SetQuantifier::All => true,
            ast::SetQuantifier::Distinct | ast::SetQuantifier::None => false,
            other => return Err(SqlError::unsupported(format!("{op} {other}"))),
        };
        let (left_node, left_outputs, left_escapes) = self.set_expr(left, parent)?;
        let (right_node, right_outputs, right_escapes) = self.set_expr(right, parent)?;
        if left_outputs.len() != right_outputs.len() {
            return Err(SqlError::new(
                state::SYNTAX,
                format!("each {op} query must have the same number of columns"),
            )
            .at(right.span()));
        }
        let (mut outputs, mut left_exprs, mut right_exprs) = (Vec::new(), Vec::new(), Vec::new());
        for (column, (a, b)) in left_outputs.into_iter().zip(right_outputs).enumerate() {
            let side = |ty| Bound::new(Expr::Column(column), ty);
            let items = vec![side(a.bound.ty), side(b.bound.ty)];
            let (mut exprs, ty) = self.unified(items, &op.to_string(), right.span())?;
            right_exprs.extend(exprs.pop());
            left_exprs.extend(exprs.pop());
            outputs.push(Output { name: a.name, bound: Bound::new(Expr::Column(column), ty) });
        }
        let node = Node::Set {
            operation,
            all,
            left: Box::new(reprojected(left_node, left_exprs)),
            right: Box::new(reprojected(right_node, right_exprs)),
        };
        Ok((node, outputs, left_escapes.max(right_escapes)))
    }

    /// ORDER BY over the outputs of a set operation or VALUES: names and positions only.
    fn order_outputs(
        &self,
        node: Node,
        outputs: &[Output],
        order: &[ast::OrderByExpr],
    ) -> Result<Node, SqlError> {
        let mut keys = Vec::new();
        for item in order {
            let position = output_position(&item.expr, outputs)?.ok_or_else(|| {
                SqlError::unsupported("ORDER BY of an expression over UNION, INTERSECT or EXCEPT")
                    .with_hint(
                        "Only result column names can be used, not expressions or functions.",
                    )
                    .at(item.expr.span())
            })?;
            keys.push(sort_key(Expr::Column(position), &item.options));
        }
        Ok(sorted_node(node, keys))
    }

    fn limited_node(
        &self,
        node: Node,
        query: &ast::Query,
        parent: Option<&Scope<'_>>,
    ) -> Result<Node, SqlError> {
        let (limit, offset) = self.limits(query, parent)?;
        if limit.is_none() && offset.is_none() {
            return Ok(node);
        }
        Ok(match node {
            // Below the projection, so that rows that are cut off are not computed.
            Node::Project { input, exprs } => {
                Node::Project { input: Box::new(Node::Limit { input, limit, offset }), exprs }
            }
            node => Node::Limit { input: Box::new(node), limit, offset },
        })
    }

    /// LIMIT (or FETCH FIRST) and OFFSET.
    fn limits(
        &self,
        query: &ast::Query,
        parent: Option<&Scope<'_>>,
    ) -> Result<(Option<Expr>, Option<Expr>), SqlError> {
        let scope = Scope::new(Vec::new(), parent);
        scope.clause.set("LIMIT");
        let count = |expr: &ast::Expr, what: &str| -> Result<Expr, SqlError> {
            let bound = self.expr(expr, &scope)?;
            let number = bound.ty.category() == types::Category::Number;
            if bound.ty != Type::Unknown && !number {
                return Err(SqlError::new(
                    state::DATATYPE_MISMATCH,
                    format!("argument of {what} must be type bigint, not type {}", bound.ty),
                )
                .at(expr.span()));
            }
            let coerced = self.coerced(bound, Type::Int8, expr.span())?;
            Ok(coerced)
        };
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(ast::LimitClause::LimitOffset { limit: l, offset: o, limit_by }) => {
                if !limit_by.is_empty() {
                    return Err(SqlError::unsupported("LIMIT BY"));
                }
                limit = l.as_ref().map(|expr| count(expr, "LIMIT")).transpose()?;
                offset = o.as_ref().map(|o| count(&o.value, "OFFSET")).transpose()?;
            }
            Some(ast::LimitClause::OffsetCommaLimit { .. }) => {
                return Err(SqlError::new(state::SYNTAX, "LIMIT #,# syntax is not supported")
                    .with_hint("Use separate LIMIT and OFFSET clauses."));
            }
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(SqlError::unsupported("FETCH … WITH TIES or PERCENT"));
            }
            limit = Some(match &fetch.quantity {
                Some(expr) => count(expr, "FETCH FIRST")?,
                None => Expr::Const(understudy_store::Value::Int(1)),
            });
        }
        Ok((limit, offset))
    }

    fn select(
        &self,
        select: &ast::Select,
        order: &[ast::OrderByExpr],
        parent: Option<&Scope<'_>>,
        locking: &Locking,
    ) -> Result<Draft, SqlError> {
        refuse_select_clauses(select)?;
        let FromTree { mut node, relations, escapes, .. } =
            self.from(&select.from, parent, locking)?;
        let row_ids = relations
            .iter()
            .filter_map(|relation| Some((relation.table.clone()?, relation.row_id?)))
            .collect();
        let aliases = relations.iter().map(|relation| relation.alias.clone()).collect();
        let where_scope = Scope::new(relations, parent);
        where_scope.note_escape(escapes);
        if let Some(selection) = &select.selection {
            let mut conjuncts = Vec::new();
            self.predicate(selection, "WHERE", &where_scope)?.into_conjuncts(&mut conjuncts);
            node = push_down::filter(node, conjuncts);
        }
        let Scope { relations, escapes, .. } = where_scope;
        let scope = Scope::new(relations, parent).with_aggregates();
        scope.note_escape(escapes.get());
        let mut outputs = self.outputs(&select.projection, &scope)?;
        let groups = self.groups(&select.group_by, &outputs, &scope)?;
        let mut having = match &select.having {
            Some(having) => Some(self.predicate(having, "HAVING", &scope)?),
            None => None,
        };
        let distinct = self.distinct_on(select, &scope)?;
        let mut keys = self.order_keys(order, &outputs, &scope)?;
        let listed = |key: &SortKey| outputs.iter().any(|output| output.bound.expr == key.expr);
        if distinct == Some(None) && !keys.iter().all(listed) {
            return Err(SqlError::new(
                state::BAD_COLUMN_REFERENCE,
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ));
        }
        let escapes = scope.escapes.get();
        let calls =
            scope.aggregates.as_ref().map(|calls| calls.borrow().clone()).unwrap_or_default();
        if groups.is_some() || !calls.is_empty() || having.is_some() {
            let mut grouping = Grouping::new(groups.unwrap_or_default(), &scope);
            for output in &mut outputs {
                grouping.rewrite(&mut output.bound.expr)?;
            }
            for key in &mut keys {
                grouping.rewrite(&mut key.expr)?;
            }
            if let Some(having) = &mut having {
                grouping.rewrite(having)?;
            }
            let (grouped, groups) = grouping.node(node, calls);
            node = grouped;
            let exprs = outputs.iter_mut().map(|output| &mut output.bound.expr);
            let exprs = exprs.chain(keys.iter_mut().map(|key| &mut key.expr)).chain(&mut having);
            exprs.for_each(|expr| Grouping::settle(expr, groups));
        }
        if let Some(predicate) = having {
            node = Node::Filter { input: Box::new(node), predicate };
        }
        Ok(Draft { node, outputs, order: keys, distinct, escapes, aliases, row_ids })
    }

    fn groups(
        &self,
        group_by: &ast::GroupByExpr,
        outputs: &[Output],
        scope: &Scope<'_>,
    ) -> Result<Option<Vec<Expr>>, SqlError> {
        let ast::GroupByExpr::Expressions(list, modifiers) = group_by else {
            return Err(SqlError::unsupported("GROUP BY ALL"));
        };
        if !modifiers.is_empty() {
            return Err(SqlError::unsupported("GROUP BY with ROLLUP, CUBE or TOTALS"));
        }
        if list.is_empty() {
            return Ok(None);
        }
        let plain = Scope::new(scope.relations.clone(), scope.parent);
        plain.clause.set("GROUP BY");
        let mut groups = Vec::with_capacity(list.len());
        for tree in list {
            if let Some(position) = integer_position(tree, outputs.len(), "GROUP BY")? {
                groups.push(outputs[position].bound.expr.clone());
                continue;
            }
            // A column of FROM comes before an output's name, as in PostgreSQL.
            match self.typed(tree, &plain) {
                Ok(bound) => groups.push(bound.expr),
                Err(error) => match output_position(tree, outputs)? {
                    Some(position) => groups.push(outputs[position].bound.expr.clone()),
                    None => return Err(error),
                },
            }
        }
        scope.note_escape(plain.escapes.get());
        Ok(Some(groups))
    }

    fn distinct_on(
        &self,
        select: &ast::Select,
        scope: &Scope<'_>,
    ) -> Result<Option<Option<Vec<Expr>>>, SqlError> {
        match &select.distinct {
            None | Some(ast::Distinct::All) => Ok(None),
            Some(ast::Distinct::Distinct) => Ok(Some(None)),
            Some(ast::Distinct::On(list)) => {
                if scope.aggregates.as_ref().is_some_and(|calls| !calls.borrow().is_empty()) {
                    return Err(SqlError::unsupported("DISTINCT ON with aggregates"));
                }
                let keys: Result<Vec<Expr>, SqlError> =
                    list.iter().map(|expr| Ok(self.typed(expr, scope)?.expr)).collect();
                Ok(Some(Some(keys?)))
            }
        }
    }

    fn order_keys(
        &self,
        order: &[ast::OrderByExpr],
        outputs: &[Output],
        scope: &Scope<'_>,
    ) -> Result<Vec<SortKey>, SqlError> {
        scope.clause.set("ORDER BY");
        let mut keys = Vec::with_capacity(order.len());
        for item in order {
            let expr = match output_position(&item.expr, outputs)? {
                Some(position) => outputs[position].bound.expr.clone(),
                None => self.typed(&item.expr, scope)?.expr,
            };
            keys.push(sort_key(expr, &item.options));
        }
        Ok(keys)
    }
}

fn refuse_select_clauses(select: &ast::Select) -> Result<(), SqlError> {
    let refused = [
        (select.into.is_some(), "SELECT INTO"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.qualify.is_some(), "QUALIFY"),
        (select.top.is_some(), "TOP"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (select.prewhere.is_some(), "PREWHERE"),
        (!select.connect_by.is_empty(), "CONNECT BY"),
        (select.value_table_mode.is_some(), "AS VALUE"),
        (!select.sort_by.is_empty(), "SORT BY"),
        (!select.cluster_by.is_empty(), "CLUSTER BY"),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
    ];
    match refused.iter().find(|(written, _)| *written) {
        Some((_, what)) => Err(SqlError::unsupported(what).at(select.span())),
        None => Ok(()),
    }
}

fn order_items(query: &ast::Query) -> Result<&[ast::OrderByExpr], SqlError> {
    match &query.order_by {
        None => Ok(&[]),
        Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(items), .. }) => Ok(items),
        Some(_) => Err(SqlError::unsupported("ORDER BY ALL")),
    }
}

/// Sorts, unless an index already gives the order.
fn sorted_node(mut node: Node, keys: Vec<SortKey>) -> Node {
    if keys.is_empty() {
        return node;
    }
    let columns: Option<Vec<(usize, bool)>> = keys
        .iter()
        .map(|key| {
            let column = push_down::held_by(&node, &key.expr)?;
            (key.nulls_first == key.descending).then_some((column, key.descending))
        })
        .collect();
    if columns.is_some_and(|columns| push_down::ordered(&mut node, &columns)) {
        return node;
    }
    Node::Sort { input: Box::new(node), keys }
}

/// Puts ordering, projection and DISTINCT together.
fn project(draft: Draft) -> (Node, Vec<Output>, usize) {
    let Draft { node, outputs, order, distinct, escapes, .. } = draft;
    let exprs: Vec<Expr> = outputs.iter().map(|output| output.bound.expr.clone()).collect();
    let node = match distinct {
        None => {
            let input = Box::new(sorted_node(node, order));
            Node::Project { input, exprs }
        }
        Some(Some(on)) => {
            let sorted = Box::new(sorted_node(node, order));
            let input = Box::new(Node::Distinct { input: sorted, on: Some(on) });
            Node::Project { input, exprs }
        }
        Some(None) => {
            // Sorted before: DISTINCT keeps the order in which it meets its tuples.
            let sorted = Box::new(sorted_node(node, order));
            let input = Box::new(Node::Project { input: sorted, exprs });
            Node::Distinct { input, on: None }
        }
    };
    (node, outputs, escapes)
}

fn reprojected(node: Node, exprs: Vec<Expr>) -> Node {
    let plain = exprs.iter().enumerate().all(|(at, expr)| *expr == Expr::Column(at));
    if plain { node } else { Node::Project { input: Box::new(node), exprs } }
}

fn finished(binder: &Binder<'_>, node: Node, outputs: &[Output], escapes: usize) -> Query {
    Query {
        node,
        columns: result_columns(outputs),
        types: outputs.iter().map(|output| output.bound.ty).collect(),
        correlated: escapes > 0,
        slot: binder.give_slot(),
    }
}
