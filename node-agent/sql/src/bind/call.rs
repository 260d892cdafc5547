//! Calls: scalar functions, the forms with their own syntax, and aggregates.

use super::{Binder, Bound, Scope, limited};
use crate::{
    aggregate::{AggregateCall, AggregateKind},
    cast::CastContext,
    error::{SqlError, state},
    expr::Expr,
    function, names,
    plan::SortKey,
    types::Type,
};
use sqlparser::{
    ast::{self, Spanned as _},
    tokenizer::Span,
};
use understudy_store::{DataType, Value};

impl Binder<'_> {
    /// A call as written.
    pub(super) fn function(
        &self,
        call: &ast::Function,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let span = names::span(&call.name);
        let name = names::last_part(&call.name);
        if call.over.is_some() {
            return Err(SqlError::unsupported("a window function").at(span));
        }
        if !call.within_group.is_empty() {
            return Err(SqlError::unsupported("WITHIN GROUP").at(span));
        }
        let list = match &call.args {
            ast::FunctionArguments::None => None,
            ast::FunctionArguments::List(list) => Some(list),
            ast::FunctionArguments::Subquery(query) => {
                if name == "array" {
                    let query = Box::new(self.one_column(query, scope)?);
                    return Ok(Bound::new(Expr::ArrayOf(query), Type::Text));
                }
                return Err(SqlError::unsupported("a subquery as argument list").at(span));
            }
        };
        let arguments = list.map_or(&[][..], |list| &list.args[..]);
        if let [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)] = arguments {
            if name != "count" {
                return Err(SqlError::new(
                    state::UNKNOWN_FUNCTION,
                    format!("function {name}() does not exist"),
                )
                .at(span));
            }
            return self.aggregate((AggregateKind::CountRows, call), &[], scope);
        }
        let trees = plain_arguments(arguments, span)?;
        if let Some(kind) = AggregateKind::find(&name, trees.len()) {
            return self.aggregate((kind, call), &trees, scope);
        }
        if call.filter.is_some() {
            return Err(SqlError::new(
                state::WRONG_OBJECT,
                format!("FILTER specified, but {name} is not an aggregate function"),
            )
            .at(span));
        }
        let mut bound = Vec::with_capacity(trees.len());
        for tree in &trees {
            bound.push(self.expr(tree, scope)?);
        }
        self.special_call(&name, bound, span)
    }

    /// Calls that are expressions of their own, else a function.
    fn special_call(
        &self,
        name: &str,
        mut arguments: Vec<Bound>,
        span: Span,
    ) -> Result<Bound, SqlError> {
        match (name, arguments.len()) {
            ("coalesce", 1..) => {
                let (items, ty) = self.unified(arguments, "COALESCE", span)?;
                Ok(Bound::new(Expr::Coalesce(items), ty))
            }
            ("nvl", 2) => {
                let (items, ty) = self.unified(arguments, "NVL", span)?;
                Ok(Bound::new(Expr::Coalesce(items), ty))
            }
            ("greatest" | "least", 1..) => {
                let greatest = name == "greatest";
                let (items, ty) = self.unified(arguments, &name.to_uppercase(), span)?;
                Ok(Bound::new(Expr::Extreme { greatest, items }, ty))
            }
            ("nullif", 2) => {
                let (mut items, ty) = self.unified(arguments, "NULLIF", span)?;
                let (Some(right), Some(left)) = (items.pop(), items.pop()) else {
                    return Err(SqlError::internal("NULLIF has two arguments"));
                };
                Ok(Bound::new(Expr::NullIf(Box::new((left, right))), ty))
            }
            ("pg_typeof", 1) => {
                let ty = arguments.remove(0).ty;
                Ok(Bound::new(Expr::Const(Value::text(ty.name())), Type::Text))
            }
            _ => self.bound_call(name, arguments, span),
        }
    }

    /// A function over bound arguments.
    pub(super) fn bound_call(
        &self,
        name: &str,
        arguments: Vec<Bound>,
        span: Span,
    ) -> Result<Bound, SqlError> {
        let types: Vec<Type> = arguments.iter().map(|argument| argument.ty).collect();
        let function = function::find(name, &types).map_err(|error| error.at(span))?;
        if function::asks_sequence(function) {
            self.asks_sequence.set(true);
        }
        let mut exprs = Vec::with_capacity(arguments.len());
        for (position, argument) in arguments.into_iter().enumerate() {
            let wanted = match function.argument(position) {
                Type::Unknown if argument.ty == Type::Unknown => Type::Text,
                Type::Unknown => argument.ty,
                wanted => wanted,
            };
            exprs.push(self.coerced(argument, wanted, span)?);
        }
        Ok(Bound::new(Expr::Call(function, exprs), function.result))
    }

    /// A function without arguments, or with bound ones, named by a keyword.
    pub(super) fn named_call(
        &self,
        name: &str,
        arguments: Vec<Bound>,
        span: Span,
    ) -> Result<Bound, SqlError> {
        self.bound_call(name, arguments, span)
    }

    /// A function over expressions, for forms with their own syntax.
    pub(super) fn simple_call(
        &self,
        name: &str,
        trees: &[&ast::Expr],
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let mut bound = Vec::with_capacity(trees.len());
        for tree in trees {
            bound.push(self.expr(tree, scope)?);
        }
        let span = trees.first().map_or_else(Span::empty, |tree| tree.span());
        self.bound_call(name, bound, span)
    }

    /// SUBSTRING(text FROM start FOR length).
    pub(super) fn substring(
        &self,
        expr: &ast::Expr,
        from: Option<&ast::Expr>,
        length: Option<&ast::Expr>,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let mut arguments = vec![self.expr(expr, scope)?];
        arguments.push(match from {
            Some(from) => self.expr(from, scope)?,
            None => Bound::new(Expr::Const(Value::Int(1)), Type::Int4),
        });
        if let Some(length) = length {
            arguments.push(self.expr(length, scope)?);
        }
        self.bound_call("substring", arguments, expr.span())
    }

    /// TRIM([BOTH | LEADING | TRAILING] characters FROM text).
    pub(super) fn trim(
        &self,
        expr: &ast::Expr,
        side: Option<ast::TrimWhereField>,
        what: Option<&ast::Expr>,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let name = match side {
            None | Some(ast::TrimWhereField::Both) => "btrim",
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
        };
        match what {
            Some(what) => self.simple_call(name, &[expr, what], scope),
            None => self.simple_call(name, &[expr], scope),
        }
    }

    /// EXTRACT(field FROM moment), numeric as since PostgreSQL 14.
    pub(super) fn extract(
        &self,
        field: &ast::DateTimeField,
        expr: &ast::Expr,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let unit = field.to_string().trim_matches('\'').to_lowercase();
        let moment = self.expr(expr, scope)?;
        let whole_days = moment.ty == Type::Date;
        let part = Bound::new(Expr::Const(Value::text(unit.as_str())), Type::Text);
        let call = self.bound_call("date_part", vec![part, moment], expr.span())?;
        let number = self.coerced(call, Type::Numeric, expr.span())?;
        let scale = match unit.as_str() {
            _ if whole_days => 0,
            "second" | "seconds" | "epoch" => 6,
            "millisecond" | "milliseconds" => 3,
            _ => 0,
        };
        let data_type = DataType::NumericOf { precision: 28, scale };
        let limited = limited(number, Type::Numeric, data_type, CastContext::Explicit);
        Ok(Bound::new(limited, Type::Numeric))
    }

    fn aggregate(
        &self,
        (kind, call): (AggregateKind, &ast::Function),
        trees: &[&ast::Expr],
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let span = names::span(&call.name);
        let name = names::last_part(&call.name);
        let Some(collected) = &scope.aggregates else {
            return Err(SqlError::new(
                state::GROUPING,
                format!("aggregate functions are not allowed in {}", scope.clause.get()),
            )
            .at(span));
        };
        // Arguments see the same names, but no aggregates.
        let inner = Scope::new(scope.relations.clone(), scope.parent);
        inner.clause.set("the argument of an aggregate function");
        let mut bound = AggregateCall {
            kind,
            argument: None,
            separator: None,
            distinct: false,
            filter: None,
            order: Vec::new(),
            input: Type::Int8,
        };
        let mut result = Type::Int8;
        let mut declared = None;
        if let Some(first) = trees.first() {
            let argument = self.typed_argument(first, &inner)?;
            // The least of blank-padded texts is padded as they are.
            let keeps = matches!(kind, AggregateKind::Least | AggregateKind::Greatest);
            declared = argument.declared.filter(|_| keeps && argument.ty == Type::Bpchar);
            let (input, given) = kind.signature(argument.ty).ok_or_else(|| {
                SqlError::new(
                    state::UNKNOWN_FUNCTION,
                    format!("function {name}({}) does not exist", argument.ty),
                )
                .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
                .at(span)
            })?;
            bound.argument = Some(self.coerced(argument, input, first.span())?);
            (bound.input, result) = (input, given);
        }
        if let Some(second) = trees.get(1) {
            let separator = self.expr(second, &inner)?;
            bound.separator = Some(self.coerced(separator, Type::Text, second.span())?);
        }
        self.aggregate_clauses(&mut bound, call, &inner)?;
        scope.note_escape(inner.escapes.get());
        if inner.used_inside.get() {
            scope.used_inside.set(true);
        }
        let mut collected = collected.borrow_mut();
        let position = collected.iter().position(|known| *known == bound).unwrap_or_else(|| {
            collected.push(bound);
            collected.len() - 1
        });
        Ok(Bound { expr: Expr::Aggregate(position), ty: result, declared })
    }

    fn typed_argument(&self, tree: &ast::Expr, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        let bound = self.expr(tree, scope)?;
        self.settled(bound)
    }

    fn aggregate_clauses(
        &self,
        bound: &mut AggregateCall,
        call: &ast::Function,
        inner: &Scope<'_>,
    ) -> Result<(), SqlError> {
        if let ast::FunctionArguments::List(list) = &call.args {
            bound.distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
            for clause in &list.clauses {
                match clause {
                    ast::FunctionArgumentClause::OrderBy(items) => {
                        for item in items {
                            let expr = self.typed(&item.expr, inner)?.expr;
                            bound.order.push(sort_key(expr, &item.options));
                        }
                    }
                    other => return Err(SqlError::unsupported(format!("{other} in a call"))),
                }
            }
        }
        if let Some(filter) = &call.filter {
            bound.filter = Some(self.predicate(filter, "FILTER", inner)?);
        }
        Ok(())
    }
}

/// A sort key with PostgreSQL's defaults: nulls are above everything.
pub(super) fn sort_key(expr: Expr, options: &ast::OrderByOptions) -> SortKey {
    let descending = options.asc == Some(false);
    SortKey { expr, descending, nulls_first: options.nulls_first.unwrap_or(descending) }
}

pub(super) fn plain_arguments(
    arguments: &[ast::FunctionArg],
    span: Span,
) -> Result<Vec<&ast::Expr>, SqlError> {
    arguments
        .iter()
        .map(|argument| match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Ok(expr),
            _ => Err(SqlError::unsupported("a named or starred argument").at(span)),
        })
        .collect()
}
