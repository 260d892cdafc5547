//! Evaluation of bound expressions over one tuple.
//!
//! Three-valued logic throughout: a null operand makes a null result unless the operator says
//! otherwise. Comparisons of plain columns, constants and parameters copy nothing.

use crate::{
    arithmetic, array, cast,
    error::{SqlError, state},
    execute::{Run, query, room::Room},
    expr::{CompareOp, Expr, PatternKind},
    function::made,
    pattern, text,
    types::Type,
};
use std::cmp::Ordering;
use understudy_store::{Catalog, Row, RowId, TableDef, Txn, Value, ValueRef};

/// One tuple that expressions read.
pub(crate) trait Tuple {
    /// The column's value; positions come from the binder and exist.
    fn column(&self, column: usize) -> ValueRef<'_>;
}

/// A tuple without columns.
pub(crate) struct NoColumns;

impl Tuple for NoColumns {
    fn column(&self, _: usize) -> ValueRef<'_> {
        ValueRef::Null
    }
}

impl Tuple for [Value] {
    fn column(&self, column: usize) -> ValueRef<'_> {
        self[column].as_ref()
    }
}

/// Values in hand as a tuple.
pub(crate) struct Values<'a>(pub(crate) &'a [Value]);

impl Tuple for Values<'_> {
    fn column(&self, column: usize) -> ValueRef<'_> {
        self.0[column].as_ref()
    }
}

/// A row of a table; the column after the last is the row id.
pub(crate) struct RowTuple<'a> {
    pub(crate) table: &'a TableDef,
    pub(crate) id: RowId,
    pub(crate) row: &'a Row,
}

impl Tuple for RowTuple<'_> {
    fn column(&self, column: usize) -> ValueRef<'_> {
        if column == self.table.columns.len() {
            ValueRef::Int(self.id.0 as i64)
        } else {
            self.row.column_ref(self.table, column)
        }
    }
}

/// Two tuples side by side; None stands for nulls.
pub(crate) struct Pair<'a> {
    pub(crate) left: Option<&'a dyn Tuple>,
    pub(crate) right: Option<&'a dyn Tuple>,
    pub(crate) left_width: usize,
}

impl Tuple for Pair<'_> {
    fn column(&self, column: usize) -> ValueRef<'_> {
        let (side, column) = if column < self.left_width {
            (self.left, column)
        } else {
            (self.right, column - self.left_width)
        };
        side.map_or(ValueRef::Null, |tuple| tuple.column(column))
    }
}

/// The tuples of the enclosing queries.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) tuple: &'a dyn Tuple,
    pub(crate) parent: Option<&'a Frame<'a>>,
}

/// What an expression can see beside its tuple.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) txn: &'a Txn,
    pub(crate) outer: Option<&'a Frame<'a>>,
    pub(crate) lateral: Option<&'a dyn Tuple>,
}

impl<'a> Env<'a> {
    pub(crate) fn new(run: &'a Run<'a>, txn: &'a Txn) -> Env<'a> {
        Env { run, txn, outer: None, lateral: None }
    }

    /// The definitions that the statement works with.
    pub(crate) fn catalog(&self) -> &'a Catalog {
        self.txn.catalog()
    }

    fn zone(&self) -> i32 {
        self.run.context.session.settings.zone_offset()
    }
}

/// The value without computing anything, for the simplest expressions.
#[inline]
fn simple<'a>(expr: &'a Expr, tuple: &'a dyn Tuple, env: &Env<'a>) -> Option<ValueRef<'a>> {
    match expr {
        Expr::Const(value) => Some(value.as_ref()),
        Expr::Param(index) => env.run.context.params.get(*index).map(Value::as_ref),
        Expr::Column(column) => Some(tuple.column(*column)),
        Expr::Lateral(column) => env.lateral.map(|tuple| tuple.column(*column)),
        Expr::Outer { depth, column } => outer(env, *depth).map(|tuple| tuple.column(*column)),
        _ => None,
    }
}

fn outer<'a>(env: &Env<'a>, depth: usize) -> Option<&'a dyn Tuple> {
    let mut frame = env.outer?;
    for _ in 1..depth {
        frame = frame.parent?;
    }
    Some(frame.tuple)
}

/// Whether a predicate is true (null counts as false).
pub(crate) fn is_true(expr: &Expr, tuple: &dyn Tuple, env: &Env<'_>) -> Result<bool, SqlError> {
    Ok(truth(expr, tuple, env)? == Some(true))
}

/// The value of a boolean expression.
pub(crate) fn truth(
    expr: &Expr,
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Option<bool>, SqlError> {
    match expr {
        Expr::Compare(op, pair) => {
            Ok(compare(&pair.0, &pair.1, tuple, env)?.map(|ordering| op.holds(ordering)))
        }
        Expr::And(items) => {
            let mut all = Some(true);
            for item in items {
                match truth(item, tuple, env)? {
                    Some(false) => return Ok(Some(false)),
                    None => all = None,
                    Some(true) => {}
                }
            }
            Ok(all)
        }
        Expr::Or(items) => {
            let mut any = Some(false);
            for item in items {
                match truth(item, tuple, env)? {
                    Some(true) => return Ok(Some(true)),
                    None => any = None,
                    Some(false) => {}
                }
            }
            Ok(any)
        }
        Expr::Not(inner) => Ok(truth(inner, tuple, env)?.map(|truth| !truth)),
        Expr::IsNull { expr, negated } => {
            let null = match simple(expr, tuple, env) {
                Some(value) => value.is_null(),
                None => eval(expr, tuple, env)?.is_null(),
            };
            Ok(Some(null != *negated))
        }
        Expr::IsTruth { expr, truth: wanted, negated } => {
            Ok(Some((truth(expr, tuple, env)? == *wanted) != *negated))
        }
        Expr::Distinct { pair, negated } => {
            let (left, right) = (eval(&pair.0, tuple, env)?, eval(&pair.1, tuple, env)?);
            let distinct = match (left.is_null(), right.is_null()) {
                (true, true) => false,
                (false, false) => compare_values(left.as_ref(), right.as_ref()).is_ne(),
                _ => true,
            };
            Ok(Some(distinct != *negated))
        }
        Expr::Pattern { .. } => matches_pattern(expr, tuple, env),
        Expr::InList { expr, list, negated } => {
            let found = in_list(expr, list, tuple, env)?;
            Ok(found.map(|found| found != *negated))
        }
        Expr::AnyItem { pair, op, item, all } => {
            let (value, array) = (eval(&pair.0, tuple, env)?, eval(&pair.1, tuple, env)?);
            any_item((&value, *op, *all), &array, *item, env)
        }
        Expr::Exists(inner) => query::exists(inner, tuple, env).map(Some),
        Expr::Quantified { expr, op, query: inner, all } => {
            let value = eval(expr, tuple, env)?;
            query::quantified((&value, *op, *all), inner, tuple, env)
        }
        other => match eval(other, tuple, env)? {
            Value::Null => Ok(None),
            Value::Bool(truth) => Ok(Some(truth)),
            _ => Err(SqlError::internal("a condition is not boolean")),
        },
    }
}

fn in_list(
    expr: &Expr,
    list: &[Expr],
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Option<bool>, SqlError> {
    let value = eval(expr, tuple, env)?;
    if value.is_null() {
        return Ok(if list.is_empty() { Some(false) } else { None });
    }
    let mut answer = Some(false);
    for item in list {
        let candidate = eval(item, tuple, env)?;
        if candidate.is_null() {
            answer = None;
        } else if compare_values(value.as_ref(), candidate.as_ref()).is_eq() {
            return Ok(Some(true));
        }
    }
    Ok(answer)
}

fn matches_pattern(
    expr: &Expr,
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Option<bool>, SqlError> {
    let Expr::Pattern { kind, pair, negated, escape } = expr else {
        return Err(SqlError::internal("not a pattern"));
    };
    let (text, wanted) = (eval(&pair.0, tuple, env)?, eval(&pair.1, tuple, env)?);
    let (Value::Text(text), Value::Text(wanted)) = (&text, &wanted) else { return Ok(None) };
    let matched = match kind {
        PatternKind::Like => pattern::like(text, wanted, *escape)?,
        PatternKind::LikeIgnoringCase => {
            pattern::like(&text.to_lowercase(), &wanted.to_lowercase(), *escape)?
        }
        PatternKind::Regex => pattern::Regex::new(wanted)?.is_match(text),
        PatternKind::RegexIgnoringCase => {
            pattern::Regex::new(&wanted.to_lowercase())?.is_match(&text.to_lowercase())
        }
    };
    Ok(Some(matched != *negated))
}

/// Orders two operands; None when one is null.
fn compare(
    left: &Expr,
    right: &Expr,
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Option<Ordering>, SqlError> {
    with_both((left, right), tuple, env, |left, right| Ok(ordering(left, right)))
}

/// Does something with the values of two expressions, which are copied only when they are computed.
fn with_both<T>(
    (left, right): (&Expr, &Expr),
    tuple: &dyn Tuple,
    env: &Env<'_>,
    work: impl FnOnce(ValueRef<'_>, ValueRef<'_>) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    if let (Some(left), Some(right)) = (simple(left, tuple, env), simple(right, tuple, env)) {
        return work(left, right);
    }
    let left = eval(left, tuple, env)?;
    let right = eval(right, tuple, env)?;
    work(left.as_ref(), right.as_ref())
}

/// Orders two values of one kind; None when one is null.
pub(crate) fn ordering(left: ValueRef<'_>, right: ValueRef<'_>) -> Option<Ordering> {
    (!left.is_null() && !right.is_null()).then(|| compare_values(left, right))
}

/// A total order of values of one kind: nulls last, NaN above all numbers, text by its bytes.
pub(crate) fn compare_values(left: ValueRef<'_>, right: ValueRef<'_>) -> Ordering {
    match (left, right) {
        (ValueRef::Int(a), ValueRef::Int(b)) => a.cmp(&b),
        (ValueRef::Text(a), ValueRef::Text(b)) => a.cmp(b),
        (ValueRef::Float(a), ValueRef::Float(b)) => match (a.is_nan(), b.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
        },
        (ValueRef::Numeric(a), ValueRef::Numeric(b)) => a.cmp(&b),
        (ValueRef::Bool(a), ValueRef::Bool(b)) => a.cmp(&b),
        (ValueRef::Bytes(a), ValueRef::Bytes(b)) => a.cmp(b),
        (ValueRef::Date(a), ValueRef::Date(b)) => a.cmp(&b),
        (ValueRef::Timestamp(a), ValueRef::Timestamp(b))
        | (ValueRef::Timestamptz(a), ValueRef::Timestamptz(b)) => a.cmp(&b),
        (ValueRef::Uuid(a), ValueRef::Uuid(b)) => a.cmp(&b),
        (ValueRef::Null, ValueRef::Null) => Ordering::Equal,
        (ValueRef::Null, _) => Ordering::Greater,
        (_, ValueRef::Null) => Ordering::Less,
        // The binder makes both sides one kind; a fixed order keeps sorting total all the same.
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::Null => 255,
        ValueRef::Bool(_) => 0,
        ValueRef::Int(_) => 1,
        ValueRef::Float(_) => 2,
        ValueRef::Numeric(_) => 3,
        ValueRef::Text(_) => 4,
        ValueRef::Bytes(_) => 5,
        ValueRef::Date(_) => 6,
        ValueRef::Timestamp(_) => 7,
        ValueRef::Timestamptz(_) => 8,
        ValueRef::Uuid(_) => 9,
    }
}

/// The value of an expression.
pub(crate) fn eval(expr: &Expr, tuple: &dyn Tuple, env: &Env<'_>) -> Result<Value, SqlError> {
    match expr {
        Expr::Const(value) => Ok(value.clone()),
        Expr::Param(index) => parameter(*index, env),
        Expr::Column(column) => Ok(tuple.column(*column).to_value()),
        Expr::Outer { .. } | Expr::Lateral(_) => simple(expr, tuple, env)
            .map(ValueRef::to_value)
            .ok_or_else(|| SqlError::internal("a reference to an enclosing query has no tuple")),
        Expr::Arithmetic(op, ty, pair) => {
            let work = |left: ValueRef<'_>, right: ValueRef<'_>| {
                arithmetic::calculate(*op, *ty, left, right)
            };
            with_both((&pair.0, &pair.1), tuple, env, work)
        }
        Expr::Negate(ty, inner) => arithmetic::negate(*ty, &eval(inner, tuple, env)?),
        Expr::Moment(op, pair) => {
            let (left, right) = (eval(&pair.0, tuple, env)?, eval(&pair.1, tuple, env)?);
            arithmetic::moment(*op, &left, &right)
        }
        Expr::Concat(pair) => joined(&eval(&pair.0, tuple, env)?, &eval(&pair.1, tuple, env)?),
        Expr::Case { branches, otherwise } => {
            for (condition, result) in branches {
                if is_true(condition, tuple, env)? {
                    return eval(result, tuple, env);
                }
            }
            otherwise.as_ref().map_or(Ok(Value::Null), |expr| eval(expr, tuple, env))
        }
        Expr::Coalesce(items) => {
            for item in items {
                let value = eval(item, tuple, env)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            Ok(Value::Null)
        }
        Expr::NullIf(pair) => {
            let (left, right) = (eval(&pair.0, tuple, env)?, eval(&pair.1, tuple, env)?);
            let equal = ordering(left.as_ref(), right.as_ref()) == Some(Ordering::Equal);
            Ok(if equal { Value::Null } else { left })
        }
        Expr::Extreme { greatest, items } => {
            let wanted = if *greatest { CompareOp::Greater } else { CompareOp::Less };
            extreme(wanted, items, tuple, env)
        }
        Expr::Cast { expr, from, to, limit } => {
            let value = eval(expr, tuple, env)?;
            let value = cast::convert(&value, *from, *to, env.zone())?;
            match limit {
                Some((data_type, context)) => cast::limit(value, *data_type, *context),
                None => Ok(value),
            }
        }
        Expr::Call(function, arguments) => call(function, arguments, tuple, env),
        Expr::Scalar(inner) => query::scalar(inner, tuple, env),
        Expr::ArrayOf(inner) => query::array(inner, tuple, env),
        Expr::Aggregate(_) => Err(SqlError::internal("an aggregate was not grouped")),
        Expr::And(_)
        | Expr::Or(_)
        | Expr::Not(_)
        | Expr::IsNull { .. }
        | Expr::IsTruth { .. }
        | Expr::Compare(..)
        | Expr::Distinct { .. }
        | Expr::Pattern { .. }
        | Expr::InList { .. }
        | Expr::AnyItem { .. }
        | Expr::Exists(_)
        | Expr::Quantified { .. } => Ok(truth(expr, tuple, env)?.map_or(Value::Null, Value::Bool)),
    }
}

/// The values of expressions over one tuple.
pub(crate) fn eval_all(
    exprs: &[Expr],
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Vec<Value>, SqlError> {
    let mut values = Vec::with_capacity(exprs.len());
    for expr in exprs {
        values.push(eval(expr, tuple, env)?);
    }
    Ok(values)
}

fn any_item(
    (value, op, all): (&Value, CompareOp, bool),
    array: &Value,
    item: Type,
    env: &Env<'_>,
) -> Result<Option<bool>, SqlError> {
    let Value::Text(text) = array else { return Ok(None) };
    let mut room = Room::default();
    room.take(env.run, array::parsed_bytes(text))?;
    let mut unknown = false;
    for text in array::parse(text)? {
        let candidate = match text {
            Some(text) => text::parse_value(item, &text, env.zone())?,
            None => Value::Null,
        };
        match ordering(value.as_ref(), candidate.as_ref()) {
            None => unknown = true,
            Some(ordering) if op.holds(ordering) != all => return Ok(Some(!all)),
            Some(_) => {}
        }
    }
    Ok(if unknown { None } else { Some(all) })
}

fn parameter(index: usize, env: &Env<'_>) -> Result<Value, SqlError> {
    env.run.context.params.get(index).cloned().ok_or_else(|| {
        SqlError::new(state::UNKNOWN_PARAMETER, format!("there is no parameter ${}", index + 1))
    })
}

/// Text after text, bytes after bytes.
fn joined(left: &Value, right: &Value) -> Result<Value, SqlError> {
    Ok(match (left, right) {
        (Value::Text(left), Value::Text(right)) => {
            made(left.len() + right.len())?;
            Value::text(format!("{left}{right}"))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            made(left.len() + right.len())?;
            Value::Bytes([&**left, &**right].concat().into())
        }
        _ => Value::Null,
    })
}

fn extreme(
    wanted: CompareOp,
    items: &[Expr],
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Value, SqlError> {
    let mut best = Value::Null;
    for item in items {
        let value = eval(item, tuple, env)?;
        let better = match ordering(value.as_ref(), best.as_ref()) {
            Some(ordering) => wanted.holds(ordering),
            None => best.is_null(),
        };
        if better {
            best = value;
        }
    }
    Ok(best)
}

fn call(
    function: &crate::function::Function,
    arguments: &[Expr],
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Value, SqlError> {
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let value = eval(argument, tuple, env)?;
        if function.strict && value.is_null() {
            return Ok(Value::Null);
        }
        values.push(value);
    }
    let value = (function.run)(&values, env)?;
    if let Value::Text(text) = &value {
        made(text.len())?;
    }
    Ok(value)
}

/// Whether values of the type can be compared at all.
pub(crate) fn is_comparable(ty: Type) -> bool {
    ty != Type::Interval
}
