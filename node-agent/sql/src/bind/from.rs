//! FROM: tables, views of the catalog, subqueries, functions and joins.

use super::{
    Binder, Bound, Cte, Relation, Scope, ScopeColumn, call::plain_arguments, operator, push_down,
};
use crate::{
    error::{SqlError, state},
    expr::{CompareOp, Expr},
    names,
    plan::{
        Access, IndexExpressions, JoinKind, JoinMethod, JoinNode, Node, Query, Reading, TableNode,
    },
    system::SystemView,
    types::{self, Type, WrittenType},
};
use sqlparser::{
    ast::{self, Spanned as _},
    tokenizer::Span,
};
use std::{rc::Rc, sync::Arc};
use understudy_store::{TableDef, Value};

/// A tree of joins with the names it makes known.
pub(crate) struct FromTree {
    pub(crate) node: Node,
    pub(crate) relations: Vec<Relation>,
    pub(crate) width: usize,
    /// How many levels out its subqueries reach.
    pub(crate) escapes: usize,
}

impl FromTree {
    /// No FROM: one tuple without columns.
    pub(crate) fn nothing() -> FromTree {
        FromTree { node: Node::Nothing, relations: Vec::new(), width: 0, escapes: 0 }
    }

    /// A table of the store.
    pub(crate) fn table(
        alias: String,
        table: &Arc<TableDef>,
        (reading, expressions): (Reading, IndexExpressions),
    ) -> FromTree {
        let with_row_id = reading == Reading::Target;
        let mut relation = Relation::of_table(alias, table, 0);
        relation.row_id = with_row_id.then_some(table.columns.len());
        let node = TableNode {
            table: Arc::clone(table),
            access: Access::Scan,
            filter: None,
            reading,
            with_row_id,
            expressions,
        };
        let width = node.width();
        FromTree { node: Node::Table(Box::new(node)), relations: vec![relation], width, escapes: 0 }
    }
}

/// Which tables of a FROM are read to be locked: all, or the named ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Locking {
    None,
    All,
    Of(Vec<String>),
}

impl Locking {
    fn reading(&self, alias: &str) -> Reading {
        match self {
            Locking::None => Reading::Snapshot,
            Locking::All => Reading::Target,
            Locking::Of(names) if names.iter().any(|name| name == alias) => Reading::Target,
            Locking::Of(_) => Reading::Snapshot,
        }
    }
}

impl Binder<'_> {
    /// All items of a FROM clause, joined.
    pub(crate) fn from(
        &self,
        items: &[ast::TableWithJoins],
        parent: Option<&Scope<'_>>,
        locking: &Locking,
    ) -> Result<FromTree, SqlError> {
        let mut whole: Option<FromTree> = None;
        for item in items {
            let tree = self.with_joins(item, parent, locking)?;
            whole = Some(match whole {
                None => tree,
                Some(left) => cross(left, tree)?,
            });
        }
        Ok(whole.unwrap_or_else(FromTree::nothing))
    }

    fn with_joins(
        &self,
        item: &ast::TableWithJoins,
        parent: Option<&Scope<'_>>,
        locking: &Locking,
    ) -> Result<FromTree, SqlError> {
        let mut tree = self.factor(&item.relation, parent, locking)?;
        for join in &item.joins {
            let right = self.factor(&join.relation, parent, locking)?;
            tree = self.join((tree, right), &join.join_operator, parent)?;
        }
        Ok(tree)
    }

    fn factor(
        &self,
        factor: &ast::TableFactor,
        parent: Option<&Scope<'_>>,
        locking: &Locking,
    ) -> Result<FromTree, SqlError> {
        match factor {
            ast::TableFactor::Table { name, alias, args: None, .. } => {
                self.named(name, alias.as_ref(), locking)
            }
            ast::TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                if *with_ordinality && names::last_part(name) == "pg_partition_ancestors" {
                    return no_ancestors(alias.as_ref());
                }
                if names::last_part(name) == "unnest" {
                    let exprs = plain_arguments(&args.args, names::span(name))?;
                    return self.unnest((&exprs, *with_ordinality), alias.as_ref(), parent);
                }
                if *with_ordinality {
                    return Err(SqlError::unsupported("WITH ORDINALITY").at(names::span(name)));
                }
                self.table_function(name, &args.args, alias.as_ref(), parent)
            }
            ast::TableFactor::Function { name, args, alias, .. } => {
                self.table_function(name, args, alias.as_ref(), parent)
            }
            ast::TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_ordinality,
                ..
            } => {
                let exprs: Vec<&ast::Expr> = array_exprs.iter().collect();
                self.unnest((&exprs, *with_ordinality), alias.as_ref(), parent)
            }
            ast::TableFactor::Derived { lateral: false, subquery, alias, .. } => {
                let query = self.query(subquery, parent)?;
                let Some(alias) = alias else {
                    return Err(SqlError::new(
                        state::SYNTAX,
                        "subquery in FROM must have an alias",
                    )
                    .with_hint("For example, FROM (SELECT ...) [AS] foo.")
                    .at(subquery.span()));
                };
                derived(query, alias)
            }
            ast::TableFactor::Derived { lateral: true, subquery, .. } => {
                Err(SqlError::unsupported("LATERAL").at(subquery.span()))
            }
            ast::TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.with_joins(table_with_joins, parent, locking)
            }
            other => Err(SqlError::unsupported(format!("FROM {other}")).at(other.span())),
        }
    }

    fn named(
        &self,
        name: &ast::ObjectName,
        alias: Option<&ast::TableAlias>,
        locking: &Locking,
    ) -> Result<FromTree, SqlError> {
        let (schema, last) = names::qualified(name)?;
        let shown = alias.map_or_else(|| last.clone(), |alias| names::folded(&alias.name));
        let target = schema.as_deref().unwrap_or(names::PUBLIC);
        let cte = if schema.is_none() { self.find_cte(&last) } else { None };
        let mut tree = if let Some((position, cte)) = cte {
            self.with_query(position, &cte, shown)?
        } else if let Some(table) = names::find_table(self.catalog, name)? {
            let reading = (locking.reading(&shown), self.index_expressions(&table)?);
            FromTree::table(shown.clone(), &table, reading)
        } else if let Some(sequence) = self.catalog.sequence(target, &last) {
            sequence_row(sequence, shown)
        } else if let Some(view) = SystemView::find(schema.as_deref(), &last) {
            system(view, shown)
        } else {
            return Err(names::unknown_table(name));
        };
        if let Some(alias) = alias {
            rename(&mut tree, &alias.columns)?;
        }
        Ok(tree)
    }

    fn find_cte(&self, name: &str) -> Option<(usize, Cte)> {
        let ctes = self.ctes.borrow();
        let position = ctes.iter().rposition(|cte| cte.name == name)?;
        Some((position, ctes[position].clone()))
    }

    /// A WITH query used: bound in the place of its name, with only the earlier ones in sight.
    fn with_query(&self, position: usize, cte: &Cte, shown: String) -> Result<FromTree, SqlError> {
        let later = self.ctes.borrow_mut().split_off(cte.visible.min(position));
        let query = self.query(&Rc::clone(&cte.query), None);
        self.ctes.borrow_mut().extend(later);
        let mut tree = derived_as(query?, shown);
        let columns = &mut tree.relations[0].columns;
        for (column, name) in columns.iter_mut().zip(&cte.columns) {
            column.name.clone_from(name);
        }
        Ok(tree)
    }

    fn table_function(
        &self,
        name: &ast::ObjectName,
        arguments: &[ast::FunctionArg],
        alias: Option<&ast::TableAlias>,
        parent: Option<&Scope<'_>>,
    ) -> Result<FromTree, SqlError> {
        let span = names::span(name);
        if names::last_part(name) != "generate_series" {
            return Err(SqlError::unsupported(format!("the function {name} in FROM")).at(span));
        }
        let scope = Scope::new(Vec::new(), parent);
        let mut bound = Vec::new();
        for argument in arguments {
            match argument {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => {
                    bound.push(self.expr(expr, &scope)?);
                }
                _ => return Err(SqlError::unsupported("a named argument").at(span)),
            }
        }
        if bound.len() != 2 && bound.len() != 3 {
            return Err(SqlError::new(
                state::UNKNOWN_FUNCTION,
                "function generate_series takes two or three arguments",
            )
            .at(span));
        }
        let step = if bound.len() == 3 { bound.pop() } else { None };
        let (node, ty) = self.series(bound, step, span)?;
        let shown = alias.map_or_else(|| "generate_series".to_owned(), |a| names::folded(&a.name));
        let column = ScopeColumn::computed(shown.clone(), ty);
        let relation =
            Relation { alias: shown, columns: vec![column], start: 0, table: None, row_id: None };
        let escapes = scope.escapes.get();
        let mut tree = FromTree { node, relations: vec![relation], width: 1, escapes };
        if let Some(alias) = alias {
            rename(&mut tree, &alias.columns)?;
        }
        Ok(tree)
    }

    /// unnest: the items of an array's text as rows, with their numbers when they are asked for.
    fn unnest(
        &self,
        (arrays, numbered): (&[&ast::Expr], bool),
        alias: Option<&ast::TableAlias>,
        parent: Option<&Scope<'_>>,
    ) -> Result<FromTree, SqlError> {
        let [tree] = arrays else {
            return Err(SqlError::unsupported("unnest of several arrays"));
        };
        let scope = Scope::new(Vec::new(), parent);
        scope.clause.set("FROM");
        let (node, item) = self.items(tree, numbered, &scope)?;
        let shown = alias.map_or_else(|| "unnest".to_owned(), |alias| names::folded(&alias.name));
        let mut columns = vec![ScopeColumn::computed(shown.clone(), item)];
        if numbered {
            columns.push(ScopeColumn::computed("ordinality".to_owned(), Type::Int8));
        }
        let width = columns.len();
        let relation = Relation { alias: shown, columns, start: 0, table: None, row_id: None };
        let escapes = scope.escapes.get();
        let mut tree = FromTree { node, relations: vec![relation], width, escapes };
        if let Some(alias) = alias {
            rename(&mut tree, &alias.columns)?;
        }
        Ok(tree)
    }

    /// The step that gives an array's items, and their type.
    fn items(
        &self,
        tree: &ast::Expr,
        numbered: bool,
        scope: &Scope<'_>,
    ) -> Result<(Node, Type), SqlError> {
        let item = item_type(tree)?;
        let ast::Expr::Array(list) = operator::unwrapped(tree) else {
            let bound = self.expr(operator::unwrapped(tree), scope)?;
            let array = self.coerced(bound, Type::Text, tree.span())?;
            let item = item.map_or(Type::Text, WrittenType::ty);
            return Ok((Node::Items { array, item, numbered }, item));
        };
        let bound: Result<Vec<Bound>, SqlError> =
            list.elem.iter().map(|item| self.expr(item, scope)).collect();
        let (exprs, ty) = self.unified(bound?, "ARRAY", tree.span())?;
        if exprs.is_empty() {
            let array = Expr::Const(Value::text("{}"));
            let item = item.map_or(ty, WrittenType::ty);
            return Ok((Node::Items { array, item, numbered }, item));
        }
        let mut rows = Vec::with_capacity(exprs.len());
        for (position, expr) in exprs.into_iter().enumerate() {
            let mut bound = Bound::new(expr, ty);
            if let Some(written) = item {
                bound = self.cast_bound(bound, written, tree.span())?;
            }
            let place = Expr::Const(Value::Int(position as i64 + 1));
            rows.push([bound.expr].into_iter().chain(numbered.then_some(place)).collect());
        }
        Ok((Node::Values(rows), item.map_or(ty, WrittenType::ty)))
    }

    fn series(
        &self,
        bounds: Vec<Bound>,
        step: Option<Bound>,
        span: Span,
    ) -> Result<(Node, Type), SqlError> {
        let (mut exprs, ty) = self.unified(bounds, "generate_series", span)?;
        let ty = match ty {
            Type::Int2 | Type::Int4 => Type::Int4,
            Type::Int8 | Type::Timestamp | Type::Timestamptz => ty,
            Type::Date => Type::Timestamptz,
            other => {
                return Err(SqlError::unsupported(format!("generate_series of {other}")).at(span));
            }
        };
        let step = match step {
            None if ty == Type::Int4 || ty == Type::Int8 => None,
            None => {
                return Err(SqlError::new(
                    state::UNKNOWN_FUNCTION,
                    format!("function generate_series({ty}, {ty}) does not exist"),
                )
                .at(span));
            }
            Some(step) => {
                let wanted =
                    if ty == Type::Int4 || ty == Type::Int8 { Type::Int8 } else { Type::Interval };
                Some(self.coerced(step, wanted, span)?)
            }
        };
        let (Some(to), Some(from)) = (exprs.pop(), exprs.pop()) else {
            return Err(SqlError::internal("a series has two bounds"));
        };
        Ok((Node::Series { from, to, step, ty }, ty))
    }

    fn join(
        &self,
        (left, right): (FromTree, FromTree),
        operator: &ast::JoinOperator,
        parent: Option<&Scope<'_>>,
    ) -> Result<FromTree, SqlError> {
        use ast::JoinOperator as Op;
        let (kind, constraint) = match operator {
            Op::Join(constraint) | Op::Inner(constraint) | Op::CrossJoin(constraint) => {
                (JoinKind::Inner, constraint)
            }
            Op::Left(constraint) | Op::LeftOuter(constraint) => (JoinKind::Left, constraint),
            Op::Right(constraint) | Op::RightOuter(constraint) => (JoinKind::Right, constraint),
            Op::FullOuter(constraint) => (JoinKind::Full, constraint),
            other => return Err(SqlError::unsupported(format!("the join {other:?}"))),
        };
        let left_width = left.width;
        let mut tree = combined(left, right, kind)?;
        let scope = Scope::new(tree.relations.clone(), parent);
        let on = match constraint {
            ast::JoinConstraint::None => None,
            ast::JoinConstraint::On(on) => Some(self.predicate(on, "JOIN/ON", &scope)?),
            ast::JoinConstraint::Using(columns) => {
                let names = columns.iter().map(names::last_part).collect();
                self.using(&mut tree, names, left_width, kind)?
            }
            ast::JoinConstraint::Natural => {
                let names = shared_names(&tree, left_width);
                self.using(&mut tree, names, left_width, kind)?
            }
        };
        tree.escapes = tree.escapes.max(scope.escapes.get());
        if let Node::Join(join) = &mut tree.node {
            let mut conjuncts = Vec::new();
            if let Some(on) = on {
                on.into_conjuncts(&mut conjuncts);
            }
            push_down::join_condition(join, conjuncts);
        }
        Ok(tree)
    }

    /// JOIN USING: equality of the named columns, of which one side is then hidden.
    fn using(
        &self,
        tree: &mut FromTree,
        wanted: Vec<String>,
        left_width: usize,
        kind: JoinKind,
    ) -> Result<Option<Expr>, SqlError> {
        if kind == JoinKind::Full {
            return Err(SqlError::unsupported("FULL JOIN … USING"));
        }
        let mut conjuncts = Vec::new();
        let known = tree.relations.iter().flat_map(|relation| &relation.columns);
        let above = known.map(|column| column.precedence).max().unwrap_or(0);
        let count = wanted.len();
        for (place, name) in wanted.into_iter().enumerate() {
            let mut sides = [None, None];
            for (at, relation) in tree.relations.iter().enumerate() {
                let side = usize::from(relation.start >= left_width);
                for (position, column) in relation.columns.iter().enumerate() {
                    if column.name != name || column.merged || column.hidden {
                        continue;
                    }
                    if sides[side].replace((at, position)).is_some() {
                        return Err(SqlError::new(
                            state::AMBIGUOUS_COLUMN,
                            format!(
                                "common column name \"{name}\" appears more than once in a table"
                            ),
                        ));
                    }
                }
            }
            let [Some(left), Some(right)] = sides else {
                let side = if sides[0].is_none() { "left" } else { "right" };
                return Err(SqlError::new(
                    state::UNKNOWN_COLUMN,
                    format!(
                        "column \"{name}\" specified in USING clause does not exist in {side} table"
                    ),
                ));
            };
            let (a, b) =
                (tree.relations[left.0].bound(left.1), tree.relations[right.0].bound(right.1));
            let (exprs, _) = self.unified(vec![a, b], "JOIN/USING", Span::empty())?;
            let [a, b]: [Expr; 2] =
                exprs.try_into().map_err(|_| SqlError::internal("two sides of USING"))?;
            conjuncts.push(Expr::Compare(CompareOp::Equal, Box::new((a, b))));
            let (hidden, kept) =
                if kind == JoinKind::Right { (left, right) } else { (right, left) };
            tree.relations[kept.0].columns[kept.1].precedence = above + count - place;
            tree.relations[hidden.0].columns[hidden.1].merged = true;
        }
        Ok(Expr::from_conjuncts(conjuncts))
    }
}

fn shared_names(tree: &FromTree, left_width: usize) -> Vec<String> {
    let side = |right: bool| {
        tree.relations
            .iter()
            .filter(move |relation| (relation.start >= left_width) == right)
            .flat_map(|relation| &relation.columns)
            .filter(|column| !column.merged && !column.hidden)
    };
    side(false)
        .filter(|column| side(true).any(|other| other.name == column.name))
        .map(|column| column.name.clone())
        .collect()
}

/// SELECT … FROM a sequence: its one row.
fn sequence_row(sequence: &Arc<TableDef>, alias: String) -> FromTree {
    let relation = Relation::of_table(alias, sequence, 0);
    let width = sequence.columns.len();
    let node = Node::Sequence(Arc::clone(sequence));
    FromTree { node, relations: vec![relation], width, escapes: 0 }
}

fn system(view: SystemView, alias: String) -> FromTree {
    let columns: Vec<ScopeColumn> = view
        .columns()
        .iter()
        .map(|(name, ty)| ScopeColumn::computed((*name).to_owned(), *ty))
        .collect();
    let width = columns.len();
    let relation = Relation { alias, columns, start: 0, table: None, row_id: None };
    FromTree { node: Node::System(view), relations: vec![relation], width, escapes: 0 }
}

fn derived(query: Query, alias: &ast::TableAlias) -> Result<FromTree, SqlError> {
    let mut tree = derived_as(query, names::folded(&alias.name));
    rename(&mut tree, &alias.columns)?;
    Ok(tree)
}

fn derived_as(query: Query, alias: String) -> FromTree {
    let columns = query
        .columns
        .iter()
        .zip(&query.types)
        .map(|(column, ty)| ScopeColumn {
            declared: (column.type_modifier >= 0).then_some(column.data_type),
            ..ScopeColumn::computed(column.name.clone(), *ty)
        })
        .collect();
    let width = query.types.len();
    let escapes = usize::from(query.correlated);
    let relation = Relation { alias, columns, start: 0, table: None, row_id: None };
    FromTree { node: query.node, relations: vec![relation], width, escapes }
}

fn rename(tree: &mut FromTree, names: &[ast::TableAliasColumnDef]) -> Result<(), SqlError> {
    let relation = &mut tree.relations[0];
    let mut columns: Vec<_> = relation.columns.iter_mut().filter(|c| !c.hidden).collect();
    if names.len() > columns.len() {
        return Err(SqlError::new(
            state::BAD_COLUMN_REFERENCE,
            format!(
                "table \"{}\" has {} columns available but {} columns specified",
                relation.alias,
                columns.len(),
                names.len()
            ),
        ));
    }
    for (column, name) in columns.iter_mut().zip(names) {
        column.name = names::folded(&name.name);
    }
    Ok(())
}

/// Two trees side by side, each row with each.
pub(crate) fn cross(left: FromTree, right: FromTree) -> Result<FromTree, SqlError> {
    combined(left, right, JoinKind::Inner)
}

fn combined(left: FromTree, right: FromTree, kind: JoinKind) -> Result<FromTree, SqlError> {
    let mut relations = left.relations;
    for mut relation in right.relations {
        if relations.iter().any(|known| known.alias == relation.alias) {
            return Err(SqlError::new(
                state::DUPLICATE_ALIAS,
                format!("table name \"{}\" specified more than once", relation.alias),
            ));
        }
        relation.start += left.width;
        relation.row_id = relation.row_id.map(|column| column + left.width);
        relations.push(relation);
    }
    let node = Node::Join(Box::new(JoinNode {
        left: left.node,
        right: right.node,
        kind,
        method: JoinMethod::Loop,
        on: None,
        left_width: left.width,
        right_width: right.width,
    }));
    Ok(FromTree {
        node,
        relations,
        width: left.width + right.width,
        escapes: left.escapes.max(right.escapes),
    })
}

/// `pg_partition_ancestors(…) WITH ORDINALITY`, as psql asks for it: no table is a partition.
fn no_ancestors(alias: Option<&ast::TableAlias>) -> Result<FromTree, SqlError> {
    let column = |name: &str, ty| ScopeColumn::computed(name.to_owned(), ty);
    let columns = vec![column("relid", Type::Oid), column("ordinality", Type::Int8)];
    let shown =
        alias.map_or_else(|| "pg_partition_ancestors".to_owned(), |a| names::folded(&a.name));
    let relation = Relation { alias: shown, columns, start: 0, table: None, row_id: None };
    let input = Box::new(Node::Values(vec![vec![Expr::NULL, Expr::NULL]]));
    let node = Node::Filter { input, predicate: Expr::Const(Value::Bool(false)) };
    let mut tree = FromTree { node, relations: vec![relation], width: 2, escapes: 0 };
    if let Some(alias) = alias {
        rename(&mut tree, &alias.columns)?;
    }
    Ok(tree)
}

/// Columns of the catalog that list the numbers of columns.
const NUMBERS: [&str; 5] = ["conkey", "confkey", "indkey", "indoption", "stxkeys"];

/// The type of an array's items, when a cast says it, or a column of the catalog.
fn item_type(tree: &ast::Expr) -> Result<Option<WrittenType>, SqlError> {
    let ident = match tree {
        ast::Expr::Nested(inner) => return item_type(inner),
        ast::Expr::Cast { data_type: ast::DataType::Array(element), .. } => {
            return match element {
                ast::ArrayElemTypeDef::SquareBracket(element, _)
                | ast::ArrayElemTypeDef::AngleBracket(element)
                | ast::ArrayElemTypeDef::Parenthesis(element) => {
                    types::written_type(element).map(Some)
                }
                ast::ArrayElemTypeDef::None => Ok(None),
            };
        }
        ast::Expr::Identifier(ident) => Some(ident),
        ast::Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    let lists_numbers = ident.is_some_and(|ident| NUMBERS.contains(&names::folded(ident).as_str()));
    Ok(lists_numbers.then_some(WrittenType::Column(understudy_store::DataType::Int2)))
}
