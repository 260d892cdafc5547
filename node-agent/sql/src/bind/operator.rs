//! Operators: which types meet, and what comes of it.

use super::{Binder, Bound, Scope, expression::negate_if};
use crate::{
    array,
    error::{SqlError, state},
    eval::is_comparable,
    expr::{ArithmeticOp, CompareOp, Expr, MomentOp, PatternKind},
    types::{Category, Type},
};
use sqlparser::{
    ast::{self, BinaryOperator, Spanned as _, UnaryOperator},
    tokenizer::Span,
};
use understudy_store::Value;

/// 42883 for an operator.
pub(crate) fn no_operator(symbol: &str, types: &[Type]) -> SqlError {
    let shown = match types {
        [only] => format!("{symbol} {only}"),
        [left, right] => format!("{left} {symbol} {right}"),
        _ => symbol.to_owned(),
    };
    SqlError::new(state::UNKNOWN_FUNCTION, format!("operator does not exist: {shown}")).with_hint(
        "No operator matches the given name and argument types. You might need to add explicit type casts.",
    )
}

fn comparison_operator(op: &BinaryOperator) -> Option<CompareOp> {
    match op {
        BinaryOperator::Eq => Some(CompareOp::Equal),
        BinaryOperator::NotEq => Some(CompareOp::NotEqual),
        BinaryOperator::Lt => Some(CompareOp::Less),
        BinaryOperator::LtEq => Some(CompareOp::LessOrEqual),
        BinaryOperator::Gt => Some(CompareOp::Greater),
        BinaryOperator::GtEq => Some(CompareOp::GreaterOrEqual),
        BinaryOperator::PGCustomBinaryOperator(parts) => match parts.last()?.as_str() {
            "=" => Some(CompareOp::Equal),
            "<>" | "!=" => Some(CompareOp::NotEqual),
            "<" => Some(CompareOp::Less),
            "<=" => Some(CompareOp::LessOrEqual),
            ">" => Some(CompareOp::Greater),
            ">=" => Some(CompareOp::GreaterOrEqual),
            _ => None,
        },
        _ => None,
    }
}

fn pattern_operator(op: &BinaryOperator) -> Option<(PatternKind, bool)> {
    match op {
        BinaryOperator::PGRegexMatch => Some((PatternKind::Regex, false)),
        BinaryOperator::PGRegexNotMatch => Some((PatternKind::Regex, true)),
        BinaryOperator::PGRegexIMatch => Some((PatternKind::RegexIgnoringCase, false)),
        BinaryOperator::PGRegexNotIMatch => Some((PatternKind::RegexIgnoringCase, true)),
        BinaryOperator::PGLikeMatch => Some((PatternKind::Like, false)),
        BinaryOperator::PGNotLikeMatch => Some((PatternKind::Like, true)),
        BinaryOperator::PGILikeMatch => Some((PatternKind::LikeIgnoringCase, false)),
        BinaryOperator::PGNotILikeMatch => Some((PatternKind::LikeIgnoringCase, true)),
        BinaryOperator::PGCustomBinaryOperator(parts) => match parts.last()?.as_str() {
            "~" => Some((PatternKind::Regex, false)),
            "!~" => Some((PatternKind::Regex, true)),
            "~*" => Some((PatternKind::RegexIgnoringCase, false)),
            "!~*" => Some((PatternKind::RegexIgnoringCase, true)),
            "~~" => Some((PatternKind::Like, false)),
            _ => None,
        },
        _ => None,
    }
}

fn arithmetic_operator(op: &BinaryOperator) -> Option<ArithmeticOp> {
    match op {
        BinaryOperator::Plus => Some(ArithmeticOp::Add),
        BinaryOperator::Minus => Some(ArithmeticOp::Subtract),
        BinaryOperator::Multiply => Some(ArithmeticOp::Multiply),
        BinaryOperator::Divide => Some(ArithmeticOp::Divide),
        BinaryOperator::Modulo => Some(ArithmeticOp::Modulo),
        BinaryOperator::PGExp => Some(ArithmeticOp::Power),
        BinaryOperator::BitwiseAnd => Some(ArithmeticOp::BitAnd),
        BinaryOperator::BitwiseOr => Some(ArithmeticOp::BitOr),
        BinaryOperator::PGBitwiseXor => Some(ArithmeticOp::BitXor),
        BinaryOperator::PGBitwiseShiftLeft => Some(ArithmeticOp::ShiftLeft),
        BinaryOperator::PGBitwiseShiftRight => Some(ArithmeticOp::ShiftRight),
        _ => None,
    }
}

impl Binder<'_> {
    /// `left op right`.
    pub(super) fn binary(
        &self,
        (left, op, right): (&ast::Expr, &BinaryOperator, &ast::Expr),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        if let Some(op) = comparison_operator(op) {
            return Ok(Bound::new(self.comparison((left, op, right), scope)?, Type::Bool));
        }
        if let Some((kind, negated)) = pattern_operator(op) {
            return self.pattern((left, right), kind, (negated, None), scope);
        }
        if let Some(op) = arithmetic_operator(op) {
            let (left_bound, right_bound) = (self.expr(left, scope)?, self.expr(right, scope)?);
            return self.arithmetic((left_bound, op, right_bound), left.span());
        }
        match op {
            BinaryOperator::And | BinaryOperator::Or => self.logical((left, op, right), scope),
            BinaryOperator::StringConcat => self.concat(left, right, scope),
            other => Err(SqlError::unsupported(format!("the operator {other}")).at(left.span())),
        }
    }

    /// AND and OR; a chain of one of them is one flat list, bound in a loop.
    fn logical(
        &self,
        (left, op, right): (&ast::Expr, &BinaryOperator, &ast::Expr),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let mut trees = vec![right];
        let mut first = left;
        while let ast::Expr::BinaryOp { left, op: inner, right } = first
            && inner == op
        {
            trees.push(right);
            first = left;
        }
        trees.push(first);
        let clause = if *op == BinaryOperator::And { "AND" } else { "OR" };
        let mut sides = Vec::with_capacity(trees.len());
        for tree in trees.into_iter().rev() {
            let bound = self.expr(tree, scope)?;
            match (op, self.condition(bound, clause, tree.span())?) {
                (BinaryOperator::And, Expr::And(items)) | (BinaryOperator::Or, Expr::Or(items)) => {
                    sides.extend(items);
                }
                (_, side) => sides.push(side),
            }
        }
        let expr = if *op == BinaryOperator::And { Expr::And(sides) } else { Expr::Or(sides) };
        Ok(Bound::new(expr, Type::Bool))
    }

    /// Binds both operands and converts them to their common type.
    pub(super) fn comparable(
        &self,
        (left, right): (&ast::Expr, &ast::Expr),
        symbol: &str,
        scope: &Scope<'_>,
    ) -> Result<(Expr, Expr), SqlError> {
        let (left_bound, right_bound) = (self.expr(left, scope)?, self.expr(right, scope)?);
        let types = [left_bound.ty, right_bound.ty];
        let ty =
            types[0].common(types[1]).ok_or_else(|| no_operator(symbol, &types).at(left.span()))?;
        let ty = if ty == Type::Unknown { Type::Text } else { ty };
        if !is_comparable(ty) {
            return Err(
                SqlError::unsupported(format!("comparing values of type {ty}")).at(left.span())
            );
        }
        Ok((
            self.coerced(left_bound, ty, left.span())?,
            self.coerced(right_bound, ty, right.span())?,
        ))
    }

    /// A comparison; rows are compared column by column.
    pub(super) fn comparison(
        &self,
        (left, op, right): (&ast::Expr, CompareOp, &ast::Expr),
        scope: &Scope<'_>,
    ) -> Result<Expr, SqlError> {
        if let (ast::Expr::Tuple(left_items), ast::Expr::Tuple(right_items)) = (left, right) {
            if left_items.len() != right_items.len() {
                return Err(SqlError::new(
                    state::SYNTAX,
                    "unequal number of entries in row expressions",
                )
                .at(left.span()));
            }
            if op != CompareOp::Equal {
                return Err(
                    SqlError::unsupported(format!("{} between rows", op.symbol())).at(left.span())
                );
            }
            let pairs = left_items.iter().zip(right_items);
            let equal: Result<Vec<Expr>, SqlError> =
                pairs.map(|(a, b)| self.comparison((a, CompareOp::Equal, b), scope)).collect();
            return Ok(Expr::And(equal?));
        }
        let pair = self.comparable((left, right), op.symbol(), scope)?;
        Ok(Expr::Compare(op, Box::new(pair)))
    }

    /// Arithmetic on bound operands.
    pub(super) fn arithmetic(
        &self,
        (left, op, right): (Bound, ArithmeticOp, Bound),
        span: Span,
    ) -> Result<Bound, SqlError> {
        if let Some(moment) = self.moment((&left, op, &right), span)? {
            return Ok(moment);
        }
        let types = [left.ty, right.ty];
        let missing = || no_operator(op.symbol(), &types).at(span);
        if types == [Type::Unknown, Type::Unknown] {
            return Err(SqlError::new(
                "42725",
                format!("operator is not unique: unknown {} unknown", op.symbol()),
            )
            .with_hint("Could not choose a best candidate operator. You might need to add explicit type casts.")
            .at(span));
        }
        let mut ty = types[0].common(types[1]).ok_or_else(missing)?;
        if ty.category() != Category::Number || ty == Type::Oid {
            return Err(missing());
        }
        ty = match op {
            ArithmeticOp::Add
            | ArithmeticOp::Subtract
            | ArithmeticOp::Multiply
            | ArithmeticOp::Divide => {
                // PostgreSQL has no float4 with other numbers: they meet as double precision.
                if ty == Type::Float4 && types != [Type::Float4, Type::Float4] {
                    Type::Float8
                } else {
                    ty
                }
            }
            ArithmeticOp::Power if ty == Type::Numeric => ty,
            ArithmeticOp::Power => Type::Float8,
            ArithmeticOp::Modulo if ty.is_integer() || ty == Type::Numeric => ty,
            ArithmeticOp::BitAnd
            | ArithmeticOp::BitOr
            | ArithmeticOp::BitXor
            | ArithmeticOp::ShiftLeft
            | ArithmeticOp::ShiftRight
                if ty.is_integer() =>
            {
                ty
            }
            _ => return Err(missing()),
        };
        let pair = (self.coerced(left, ty, span)?, self.coerced(right, ty, span)?);
        Ok(Bound::new(Expr::Arithmetic(op, ty, Box::new(pair)), ty))
    }

    /// Arithmetic on dates, timestamps and intervals; None when it is about numbers.
    fn moment(
        &self,
        (left, op, right): (&Bound, ArithmeticOp, &Bound),
        span: Span,
    ) -> Result<Option<Bound>, SqlError> {
        use Type::{Date, Interval, Timestamp, Timestamptz, Unknown};
        let (mut l, mut r) = (left.ty, right.ty);
        let about_moments = |ty: Type| ty == Interval || ty.category() == Category::Moment;
        if !about_moments(l) && !about_moments(r) {
            return Ok(None);
        }
        // An unknown side is read as what PostgreSQL would choose.
        match (l, op, r) {
            (Timestamp | Timestamptz | Interval, ArithmeticOp::Add, Unknown) => r = Interval,
            (_, ArithmeticOp::Subtract, Unknown) => r = l,
            (Unknown, ArithmeticOp::Subtract, _) => l = r,
            (Unknown, ArithmeticOp::Add, Timestamp | Timestamptz | Interval) => l = Interval,
            (Date, ArithmeticOp::Add, Unknown) => r = Interval,
            _ => {}
        }
        let number = |ty: Type| ty.category() == Category::Number;
        let plan = match (l, op, r) {
            (Date, ArithmeticOp::Add, ty) if ty.is_integer() => {
                (MomentOp::DatePlusDays, Date, ty, Date)
            }
            (Date, ArithmeticOp::Subtract, ty) if ty.is_integer() => {
                (MomentOp::DateMinusDays, Date, ty, Date)
            }
            (Date, ArithmeticOp::Subtract, Date) => (MomentOp::DaysBetween, Date, Date, Type::Int4),
            (Date | Timestamp, ArithmeticOp::Add, Interval) => {
                (MomentOp::PlusInterval, Timestamp, Interval, Timestamp)
            }
            (Timestamptz, ArithmeticOp::Add, Interval) => {
                (MomentOp::PlusInterval, Timestamptz, Interval, Timestamptz)
            }
            (Date | Timestamp, ArithmeticOp::Subtract, Interval) => {
                (MomentOp::MinusInterval, Timestamp, Interval, Timestamp)
            }
            (Timestamptz, ArithmeticOp::Subtract, Interval) => {
                (MomentOp::MinusInterval, Timestamptz, Interval, Timestamptz)
            }
            (Timestamptz, ArithmeticOp::Subtract, Timestamptz | Timestamp | Date)
            | (Timestamp | Date, ArithmeticOp::Subtract, Timestamptz) => {
                (MomentOp::TimeBetween, Timestamptz, Timestamptz, Interval)
            }
            (Timestamp, ArithmeticOp::Subtract, Timestamp | Date)
            | (Date, ArithmeticOp::Subtract, Timestamp) => {
                (MomentOp::TimeBetween, Timestamp, Timestamp, Interval)
            }
            (Interval, ArithmeticOp::Add, Interval) => {
                (MomentOp::AddIntervals, Interval, Interval, Interval)
            }
            (Interval, ArithmeticOp::Subtract, Interval) => {
                (MomentOp::SubtractIntervals, Interval, Interval, Interval)
            }
            (Interval, ArithmeticOp::Multiply, ty) if number(ty) => {
                (MomentOp::ScaleInterval, Interval, Type::Float8, Interval)
            }
            // The commuted forms.
            (Interval, ArithmeticOp::Add, Date | Timestamp | Timestamptz) => {
                return self.moment((right, op, left), span);
            }
            (ty, ArithmeticOp::Add, Date) if ty.is_integer() => {
                return self.moment((right, op, left), span);
            }
            (ty, ArithmeticOp::Multiply, Interval) if number(ty) => {
                return self.moment((right, op, left), span);
            }
            _ => return Err(no_operator(op.symbol(), &[left.ty, right.ty]).at(span)),
        };
        let (op, left_type, right_type, result) = plan;
        let pair = (
            self.coerced(left.clone(), left_type, span)?,
            self.coerced(right.clone(), right_type, span)?,
        );
        Ok(Some(Bound::new(Expr::Moment(op, Box::new(pair)), result)))
    }

    fn concat(
        &self,
        left: &ast::Expr,
        right: &ast::Expr,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let (left_bound, right_bound) = (self.expr(left, scope)?, self.expr(right, scope)?);
        let types = [left_bound.ty, right_bound.ty];
        if types.contains(&Type::Bytea) {
            let pair = (
                self.coerced(left_bound, Type::Bytea, left.span())?,
                self.coerced(right_bound, Type::Bytea, right.span())?,
            );
            return Ok(Bound::new(Expr::Concat(Box::new(pair)), Type::Bytea));
        }
        let textual = |ty: Type| matches!(ty.category(), Category::Text | Category::Unknown);
        if !types.iter().any(|ty| textual(*ty)) {
            return Err(no_operator("||", &types).at(left.span()));
        }
        let pair = (
            self.coerced(left_bound, Type::Text, left.span())?,
            self.coerced(right_bound, Type::Text, right.span())?,
        );
        Ok(Bound::new(Expr::Concat(Box::new(pair)), Type::Text))
    }

    /// LIKE and its kin, regular expressions.
    pub(super) fn pattern(
        &self,
        (text, pattern): (&ast::Expr, &ast::Expr),
        kind: PatternKind,
        (negated, escape): (bool, Option<&ast::ValueWithSpan>),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let mut sides = Vec::with_capacity(2);
        for side in [text, pattern] {
            let bound = self.expr(side, scope)?;
            if !matches!(bound.ty.category(), Category::Text | Category::Unknown) {
                let symbol = match kind {
                    PatternKind::Like => "~~",
                    PatternKind::LikeIgnoringCase => "~~*",
                    PatternKind::Regex => "~",
                    PatternKind::RegexIgnoringCase => "~*",
                };
                return Err(no_operator(symbol, &[bound.ty, Type::Unknown]).at(side.span()));
            }
            sides.push(self.coerced(bound, Type::Text, side.span())?);
        }
        let escape = match escape.map(|escape| &escape.value) {
            None => Some('\\'),
            Some(ast::Value::SingleQuotedString(text)) => {
                let mut characters = text.chars();
                match (characters.next(), characters.next()) {
                    (None, _) => None,
                    (Some(only), None) => Some(only),
                    (Some(_), Some(_)) => {
                        return Err(SqlError::new(state::INVALID_ESCAPE, "invalid escape string")
                            .with_hint("Escape string must be empty or one character."));
                    }
                }
            }
            Some(_) => return Err(SqlError::unsupported("a computed ESCAPE")),
        };
        let (Some(pattern), Some(text)) = (sides.pop(), sides.pop()) else {
            return Err(SqlError::internal("a pattern has two sides"));
        };
        let pair = Box::new((text, pattern));
        Ok(Bound::new(Expr::Pattern { kind, pair, negated, escape }, Type::Bool))
    }

    /// `op expr`.
    pub(super) fn unary(
        &self,
        op: UnaryOperator,
        inner: &ast::Expr,
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let bound = self.expr(inner, scope)?;
        match op {
            UnaryOperator::Not => {
                let condition = self.condition(bound, "NOT", inner.span())?;
                Ok(negate_if((Bound::new(condition, Type::Bool), true)))
            }
            UnaryOperator::Plus if bound.ty.category() == Category::Number => Ok(bound),
            UnaryOperator::Minus => self.negated(bound, inner.span()),
            UnaryOperator::BitwiseNot if bound.ty.is_integer() => {
                let ty = bound.ty;
                let all = Bound::new(Expr::Const(Value::Int(-1)), ty);
                self.arithmetic((bound, ArithmeticOp::BitXor, all), inner.span())
            }
            UnaryOperator::PGAbs => self.bound_call("abs", vec![bound], inner.span()),
            UnaryOperator::PGSquareRoot => self.bound_call("sqrt", vec![bound], inner.span()),
            other => Err(no_operator(&other.to_string(), &[bound.ty]).at(inner.span())),
        }
    }

    fn negated(&self, bound: Bound, span: Span) -> Result<Bound, SqlError> {
        let ty = bound.ty;
        if ty.category() != Category::Number && ty != Type::Interval {
            return Err(no_operator("-", &[ty]).at(span));
        }
        if let Expr::Const(value) = &bound.expr {
            let value = crate::arithmetic::negate(Type::Int8, value).map_err(|e| e.at(span))?;
            return Ok(Bound::new(Expr::Const(value), ty));
        }
        Ok(Bound::new(Expr::Negate(ty, Box::new(bound.expr)), ty))
    }

    /// `expr op ANY (…)`: a subquery, an array constructor, or an array literal.
    pub(super) fn any_or_all(
        &self,
        (left, op, right, all): (&ast::Expr, &BinaryOperator, &ast::Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let Some(op) = comparison_operator(op) else {
            return Err(SqlError::unsupported(format!("{op} with ANY or ALL")).at(left.span()));
        };
        let items: Vec<Bound> = match unwrapped(right) {
            ast::Expr::Subquery(query) => return self.quantified(left, (op, all), query, scope),
            ast::Expr::Array(array) => {
                let items: Result<Vec<Bound>, SqlError> =
                    array.elem.iter().map(|item| self.expr(item, scope)).collect();
                items?
            }
            ast::Expr::Value(ast::ValueWithSpan {
                value: ast::Value::SingleQuotedString(text),
                span,
            }) => array_items(text).map_err(|error| error.at(*span))?,
            other => return self.any_item((left, op, other, all), scope),
        };
        let mut bound = vec![self.expr(left, scope)?];
        bound.extend(items);
        let (mut exprs, _) = self.unified(bound, "array", left.span())?;
        let subject = exprs.remove(0);
        if op == CompareOp::Equal && !all {
            let list = Expr::InList { expr: Box::new(subject), list: exprs, negated: false };
            return Ok(Bound::new(list, Type::Bool));
        }
        let compared = exprs
            .into_iter()
            .map(|item| Expr::Compare(op, Box::new((subject.clone(), item))))
            .collect();
        let expr = if all { Expr::And(compared) } else { Expr::Or(compared) };
        Ok(Bound::new(expr, Type::Bool))
    }
}

impl Binder<'_> {
    /// `left op ANY (array text)`: a parameter, or a column of the catalog views.
    fn any_item(
        &self,
        (left, op, array, all): (&ast::Expr, CompareOp, &ast::Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<Bound, SqlError> {
        let (subject, list) = (self.settled(self.expr(left, scope)?)?, self.expr(array, scope)?);
        if !matches!(list.ty, Type::Text | Type::Unknown) {
            return Err(SqlError::new(
                state::WRONG_OBJECT,
                "op ANY/ALL (array) requires array on right side",
            )
            .at(array.span()));
        }
        let item = subject.ty;
        let list = self.coerced(list, Type::Text, array.span())?;
        let pair = Box::new((subject.expr, list));
        Ok(Bound::new(Expr::AnyItem { pair, op, item, all }, Type::Bool))
    }
}

/// Without parentheses and array casts.
pub(super) fn unwrapped(tree: &ast::Expr) -> &ast::Expr {
    match tree {
        ast::Expr::Nested(inner) => unwrapped(inner),
        ast::Expr::Cast { expr, data_type: ast::DataType::Array(_), .. } => unwrapped(expr),
        other => other,
    }
}

/// The items of an array literal.
fn array_items(text: &str) -> Result<Vec<Bound>, SqlError> {
    let items = array::parse(text)?.into_iter();
    Ok(items
        .map(|item| {
            let value = item.map_or(Value::Null, Value::text);
            Bound::new(Expr::Const(value), Type::Unknown)
        })
        .collect())
}
