//! Scalar expressions.

use super::{Binder, Bound, Scope, limited};
use crate::{
    cast::{self, CastContext},
    datetime,
    error::{SqlError, state},
    expr::{CompareOp, Expr},
    names, system, text,
    types::{self, Type, WrittenType},
};
use sqlparser::{
    ast::{self, Spanned as _},
    tokenizer::Span,
};
use understudy_store::Value;

impl Binder<'_> {
    /// Binds an expression; literals and parameters may still be of unknown type.
    pub(crate) fn expr(&self, tree: &ast::Expr, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        use ast::Expr as Ast;
        match tree {
            Ast::Identifier(ident) => self.identifier(ident, scope),
            Ast::CompoundIdentifier(parts) => scope.column(parts),
            Ast::Value(value) => self.value(value),
            Ast::Nested(inner) => self.expr(inner, scope),
            Ast::Collate { expr, collation } => self.collate(expr, collation, scope),
            Ast::BinaryOp { left, op, right } => self.binary((left, op, right), scope),
            Ast::UnaryOp { op, expr } => self.unary(*op, expr, scope),
            Ast::IsNull(inner) => self.is_null((inner, false), scope),
            Ast::IsNotNull(inner) => self.is_null((inner, true), scope),
            Ast::IsTrue(inner) => self.is_truth(inner, (Some(true), false), scope),
            Ast::IsNotTrue(inner) => self.is_truth(inner, (Some(true), true), scope),
            Ast::IsFalse(inner) => self.is_truth(inner, (Some(false), false), scope),
            Ast::IsNotFalse(inner) => self.is_truth(inner, (Some(false), true), scope),
            Ast::IsUnknown(inner) => self.is_truth(inner, (None, false), scope),
            Ast::IsNotUnknown(inner) => self.is_truth(inner, (None, true), scope),
            Ast::IsDistinctFrom(left, right) => self.distinct((left, right, false), scope),
            Ast::IsNotDistinctFrom(left, right) => self.distinct((left, right, true), scope),
            Ast::Between { expr, negated, low, high } => {
                self.between(expr, (low, high, *negated), scope)
            }
            Ast::InList { expr, list, negated } => self.in_list(expr, (list, *negated), scope),
            Ast::InSubquery { expr, subquery, negated } => {
                let any = (CompareOp::Equal, false);
                let found = self.quantified(expr, any, subquery, scope)?;
                Ok(negate_if((found, *negated)))
            }
            Ast::AnyOp { left, compare_op, right, .. } => {
                self.any_or_all((left, compare_op, right, false), scope)
            }
            Ast::AllOp { left, compare_op, right } => {
                self.any_or_all((left, compare_op, right, true), scope)
            }
            Ast::Like { negated, any: false, expr, pattern, escape_char } => {
                let kind = crate::expr::PatternKind::Like;
                self.pattern((expr, pattern), kind, (*negated, escape_char.as_ref()), scope)
            }
            Ast::ILike { negated, any: false, expr, pattern, escape_char } => {
                let kind = crate::expr::PatternKind::LikeIgnoringCase;
                self.pattern((expr, pattern), kind, (*negated, escape_char.as_ref()), scope)
            }
            Ast::Exists { subquery, negated } => {
                let query = self.subquery(subquery, scope)?;
                let exists = Bound::new(Expr::Exists(Box::new(query)), Type::Bool);
                Ok(negate_if((exists, *negated)))
            }
            Ast::Subquery(subquery) => self.scalar_subquery(subquery, scope),
            Ast::Case { operand, conditions, else_result, .. } => {
                self.case((operand.as_deref(), conditions, else_result.as_deref()), scope)
            }
            other => self.special_form(other, scope),
        }
    }

    /// Forms with a syntax of their own: casts, and calls that do not look like calls.
    fn special_form(&self, tree: &ast::Expr, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        use ast::Expr as Ast;
        match tree {
            Ast::Cast { kind, expr, data_type, format: None, .. } => match kind {
                ast::CastKind::Cast | ast::CastKind::DoubleColon => {
                    self.cast(expr, data_type, scope)
                }
                ast::CastKind::TryCast | ast::CastKind::SafeCast => {
                    Err(SqlError::unsupported("TRY_CAST").at(tree.span()))
                }
            },
            Ast::TypedString(typed) => self.typed_string(typed),
            Ast::Interval(interval) => self.interval(interval),
            Ast::Function(function) => self.function(function, scope),
            Ast::Extract { field, expr, .. } => self.extract(field, expr, scope),
            Ast::Ceil { expr, .. } => self.simple_call("ceil", &[expr], scope),
            Ast::Floor { expr, .. } => self.simple_call("floor", &[expr], scope),
            Ast::Position { expr, r#in } => self.simple_call("position", &[expr, r#in], scope),
            Ast::Substring { expr, substring_from, substring_for, .. } => {
                self.substring(expr, substring_from.as_deref(), substring_for.as_deref(), scope)
            }
            Ast::Trim { trim_where, trim_what, expr, trim_characters } => {
                let what = trim_what.as_deref().or_else(|| trim_characters.as_ref()?.first());
                self.trim(expr, *trim_where, what, scope)
            }
            Ast::AtTimeZone { timestamp, time_zone } => {
                self.simple_call("timezone", &[time_zone, timestamp], scope)
            }
            Ast::CompoundFieldAccess { root, access_chain } => {
                self.subscript(root, access_chain, scope)
            }
            other => Err(SqlError::unsupported(format!("the expression {other}")).at(other.span())),
        }
    }

    /// Binds an expression whose type must be settled.
    pub(crate) fn typed(&self, tree: &ast::Expr, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        let bound = self.expr(tree, scope)?;
        self.settled(bound)
    }

    /// Binds a predicate.
    pub(crate) fn predicate(
        &self,
        tree: &ast::Expr,
        clause: &'static str,
        scope: &Scope<'_>,
    ) -> Result<Expr, SqlError> {
        scope.clause.set(clause);
        let bound = self.expr(tree, scope)?;
        self.condition(bound, clause, tree.span())
    }

    fn identifier(&self, ident: &ast::Ident, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        let found = scope.column(std::slice::from_ref(ident));
        if found.is_err() && ident.quote_style.is_none() {
            let name = ident.value.to_lowercase();
            let keyword = matches!(
                name.as_str(),
                "current_user"
                    | "session_user"
                    | "user"
                    | "current_date"
                    | "current_timestamp"
                    | "localtimestamp"
                    | "current_catalog"
                    | "current_role"
                    | "current_schema"
            );
            if keyword {
                return self.named_call(&name, Vec::new(), ident.span);
            }
        }
        found
    }

    fn value(&self, value: &ast::ValueWithSpan) -> Result<Bound, SqlError> {
        let unknown = |text: &str| Ok(Bound::new(Expr::Const(Value::text(text)), Type::Unknown));
        match &value.value {
            ast::Value::Number(number, _) => number_literal(number, value.span),
            ast::Value::SingleQuotedString(text)
            | ast::Value::EscapedStringLiteral(text)
            | ast::Value::UnicodeStringLiteral(text)
            | ast::Value::NationalStringLiteral(text) => unknown(text),
            ast::Value::DollarQuotedString(text) => unknown(&text.value),
            ast::Value::Boolean(truth) => {
                Ok(Bound::new(Expr::Const(Value::Bool(*truth)), Type::Bool))
            }
            ast::Value::Null => Ok(Bound::new(Expr::NULL, Type::Unknown)),
            ast::Value::Placeholder(name) => self.parameter(name, value.span),
            other => Err(SqlError::unsupported(format!("the literal {other}")).at(value.span)),
        }
    }

    fn collate(
        &self,
        expr: &ast::Expr,
        collation: &ast::ObjectName,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        match names::last_part(collation).as_str() {
            "default" | "C" | "c" | "POSIX" | "ucs_basic" => self.expr(expr, scope),
            other => Err(SqlError::unsupported(format!("the collation {other}"))
                .with_hint("Text is ordered by its bytes, collation \"C\".")
                .at(names::span(collation))),
        }
    }

    fn is_null(
        &self,
        (inner, negated): (&ast::Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let expr = Box::new(self.typed(inner, scope)?.expr);
        Ok(Bound::new(Expr::IsNull { expr, negated }, Type::Bool))
    }

    fn is_truth(
        &self,
        inner: &ast::Expr,
        (truth, negated): (Option<bool>, bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let bound = self.expr(inner, scope)?;
        let expr = Box::new(self.condition(bound, "IS TRUE", inner.span())?);
        Ok(Bound::new(Expr::IsTruth { expr, truth, negated }, Type::Bool))
    }

    fn distinct(
        &self,
        (left, right, negated): (&ast::Expr, &ast::Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let pair = self.comparable((left, right), "IS DISTINCT FROM", scope)?;
        Ok(Bound::new(Expr::Distinct { pair: Box::new(pair), negated }, Type::Bool))
    }

    fn between(
        &self,
        expr: &ast::Expr,
        (low, high, negated): (&ast::Expr, &ast::Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let lower = self.comparison((expr, CompareOp::GreaterOrEqual, low), scope)?;
        let upper = self.comparison((expr, CompareOp::LessOrEqual, high), scope)?;
        let both = Bound::new(Expr::And(vec![lower, upper]), Type::Bool);
        Ok(negate_if((both, negated)))
    }

    fn in_list(
        &self,
        expr: &ast::Expr,
        (list, negated): (&[ast::Expr], bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        if let ast::Expr::Tuple(_) = expr {
            let equal =
                list.iter().map(|item| self.comparison((expr, CompareOp::Equal, item), scope));
            let any: Result<Vec<Expr>, SqlError> = equal.collect();
            return Ok(negate_if((Bound::new(Expr::Or(any?), Type::Bool), negated)));
        }
        let mut items = vec![self.expr(expr, scope)?];
        for item in list {
            items.push(self.expr(item, scope)?);
        }
        let (mut exprs, ty) = self.unified(items, "IN", expr.span())?;
        if !crate::eval::is_comparable(ty) {
            return Err(SqlError::unsupported(format!("comparing values of type {ty}")));
        }
        let subject = Box::new(exprs.remove(0));
        Ok(Bound::new(Expr::InList { expr: subject, list: exprs, negated }, Type::Bool))
    }

    /// Converts all to their common type.
    pub(crate) fn unified(
        &self,
        items: Vec<Bound>,
        what: &str,
        span: Span,
    ) -> Result<(Vec<Expr>, Type), SqlError> {
        let mut ty = Type::Unknown;
        for item in &items {
            ty = ty.common(item.ty).ok_or_else(|| {
                SqlError::new(
                    state::DATATYPE_MISMATCH,
                    format!("{what} types {ty} and {} cannot be matched", item.ty),
                )
                .at(span)
            })?;
        }
        let ty = if ty == Type::Unknown { Type::Text } else { ty };
        let exprs: Result<Vec<Expr>, SqlError> =
            items.into_iter().map(|item| self.coerced(item, ty, span)).collect();
        Ok((exprs?, ty))
    }

    fn case(
        &self,
        (operand, conditions, otherwise): (
            Option<&ast::Expr>,
            &[ast::CaseWhen],
            Option<&ast::Expr>,
        ),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let mut tests = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for when in conditions {
            tests.push(match operand {
                Some(operand) => {
                    self.comparison((operand, CompareOp::Equal, &when.condition), scope)?
                }
                None => {
                    let bound = self.expr(&when.condition, scope)?;
                    self.condition(bound, "CASE/WHEN", when.condition.span())?
                }
            });
            results.push(self.expr(&when.result, scope)?);
        }
        if let Some(otherwise) = otherwise {
            results.push(self.expr(otherwise, scope)?);
        }
        let span = conditions.first().map_or_else(Span::empty, |when| when.result.span());
        let (mut exprs, ty) = self.unified(results, "CASE", span)?;
        let otherwise = otherwise.and_then(|_| exprs.pop()).map(Box::new);
        let branches = tests.into_iter().zip(exprs).collect();
        Ok(Bound::new(Expr::Case { branches, otherwise }, ty))
    }

    fn cast(
        &self,
        inner: &ast::Expr,
        data_type: &ast::DataType,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let written = types::written_type(data_type).map_err(|error| error.at(inner.span()))?;
        let bound = self.expr(inner, scope)?;
        if let (Expr::Const(Value::Text(table)), true) = (&bound.expr, is_relation(data_type)) {
            return system::relation_constant(self.catalog, table)
                .map(|oid| Bound::new(Expr::Const(Value::Int(oid)), Type::Oid))
                .map_err(|error| error.at(inner.span()));
        }
        self.cast_bound(bound, written, inner.span())
    }

    /// An explicit cast.
    pub(crate) fn cast_bound(
        &self,
        bound: Bound,
        written: WrittenType,
        span: Span,
    ) -> Result<Bound, SqlError> {
        let to = written.ty();
        if bound.ty != Type::Unknown && !cast::exists(bound.ty, to) {
            return Err(SqlError::new(
                state::CANNOT_COERCE,
                format!("cannot cast type {} to {to}", bound.ty),
            )
            .at(span));
        }
        let expr = self.coerced(bound, to, span)?;
        Ok(match written {
            WrittenType::Column(data_type) => Bound {
                expr: limited(expr, to, data_type, CastContext::Explicit),
                ty: to,
                declared: Some(data_type),
            },
            WrittenType::Expression(_) => Bound::new(expr, to),
        })
    }

    fn typed_string(&self, typed: &ast::TypedString) -> Result<Bound, SqlError> {
        let span = typed.value.span;
        let written = types::written_type(&typed.data_type).map_err(|error| error.at(span))?;
        let bound = self.value(&typed.value)?;
        self.cast_bound(bound, written, span)
    }

    fn interval(&self, interval: &ast::Interval) -> Result<Bound, SqlError> {
        let span = interval.value.span();
        let ast::Expr::Value(value) = &*interval.value else {
            return Err(SqlError::unsupported("an interval of a computed value").at(span));
        };
        let mut literal = match &value.value {
            ast::Value::SingleQuotedString(text) | ast::Value::Number(text, _) => text.clone(),
            _ => return Err(SqlError::unsupported("this form of interval").at(span)),
        };
        if let Some(field) = &interval.leading_field {
            if interval.last_field.is_some() {
                return Err(SqlError::unsupported("INTERVAL … TO …").at(span));
            }
            if literal.trim().parse::<f64>().is_ok() {
                literal = format!("{literal} {field}");
            }
        }
        let span_text = datetime::Interval::parse(&literal).map_err(|error| error.at(span))?.text();
        Ok(Bound::new(Expr::Const(Value::text(span_text)), Type::Interval))
    }

    /// `array[n]` over an array's text; the item takes the type its context wants.
    fn subscript(
        &self,
        root: &ast::Expr,
        chain: &[ast::AccessExpr],
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let [ast::AccessExpr::Subscript(ast::Subscript::Index { index })] = chain else {
            return Err(SqlError::unsupported("this subscript").at(root.span()));
        };
        let item = self.simple_call("array_item", &[root, index], scope)?;
        Ok(Bound::new(item.expr, Type::Unknown))
    }

    /// Binds a subquery of an expression.
    pub(crate) fn subquery(
        &self,
        subquery: &ast::Query,
        scope: &Scope<'_>,
    ) -> Result<crate::plan::Query, SqlError> {
        self.query(subquery, Some(scope))
    }

    fn scalar_subquery(&self, subquery: &ast::Query, scope: &Scope<'_>) -> Result<Bound, SqlError> {
        let query = self.one_column(subquery, scope)?;
        let ty = query.types[0];
        Ok(Bound::new(Expr::Scalar(Box::new(query)), ty))
    }

    pub(super) fn one_column(
        &self,
        subquery: &ast::Query,
        scope: &Scope<'_>,
    ) -> Result<crate::plan::Query, SqlError> {
        let query = self.subquery(subquery, scope)?;
        match query.types.len() {
            1 => Ok(query),
            0 => Err(SqlError::new(state::SYNTAX, "subquery has too few columns")),
            _ => Err(SqlError::new(state::SYNTAX, "subquery must return only one column")
                .at(subquery.span())),
        }
    }

    /// `expr op ANY (query)` or ALL.
    pub(crate) fn quantified(
        &self,
        expr: &ast::Expr,
        (op, all): (CompareOp, bool),
        subquery: &ast::Query,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let left = self.expr(expr, scope)?;
        let mut query = self.one_column(subquery, scope)?;
        let right = query.types[0];
        let ty = left.ty.common(right).ok_or_else(|| {
            super::operator::no_operator(op.symbol(), &[left.ty, right]).at(expr.span())
        })?;
        if right != ty {
            // The subquery's column is converted where it is made.
            let column = self.coerced(Bound::new(Expr::Column(0), right), ty, expr.span())?;
            if column != Expr::Column(0) {
                let input = std::mem::replace(&mut query.node, crate::plan::Node::Nothing);
                query.node =
                    crate::plan::Node::Project { input: Box::new(input), exprs: vec![column] };
            }
        }
        let expr = Box::new(self.coerced(left, ty, expr.span())?);
        let query = Box::new(query);
        Ok(Bound::new(Expr::Quantified { expr, op, query, all }, Type::Bool))
    }
}

/// NOT, when it was written.
pub(crate) fn negate_if((bound, negated): (Bound, bool)) -> Bound {
    if negated { Bound::new(Expr::Not(Box::new(bound.expr)), Type::Bool) } else { bound }
}

/// An integer where it fits, else numeric, else a double.
fn number_literal(number: &str, span: Span) -> Result<Bound, SqlError> {
    let plain: String = number.chars().filter(|c| *c != '_').collect();
    if let Ok(whole) = plain.parse::<i64>() {
        let ty = if i32::try_from(whole).is_ok() { Type::Int4 } else { Type::Int8 };
        return Ok(Bound::new(Expr::Const(Value::Int(whole)), ty));
    }
    if let Some(decimal) = text::parse_numeric(&plain) {
        return Ok(Bound::new(Expr::Const(Value::Numeric(decimal)), Type::Numeric));
    }
    // What our numeric cannot hold is still a number: the nearest double, said by its type.
    match plain.parse::<f64>() {
        Ok(double) if double.is_finite() => {
            Ok(Bound::new(Expr::Const(Value::Float(double)), Type::Float8))
        }
        _ => Err(SqlError::new(
            state::OUT_OF_RANGE,
            format!("value \"{number}\" overflows numeric format"),
        )
        .with_hint("numeric holds 28 digits; double precision reaches to 1e308.")
        .at(span)),
    }
}

/// Whether a type is written as regclass.
pub(super) fn is_relation(data_type: &ast::DataType) -> bool {
    let name = data_type.to_string().to_ascii_lowercase();
    name == "regclass" || name.ends_with(".regclass")
}
