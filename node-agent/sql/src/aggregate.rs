//! Aggregate functions: what they take, what they keep, what they give.

use crate::{
    arithmetic, cast,
    error::{SqlError, state},
    eval::{Env, Tuple, compare_values, eval, is_true},
    execute::{
        Run,
        room::{Room, bytes_of, pointed_to},
    },
    expr::{ArithmeticOp, Expr},
    plan::SortKey,
    types::{Category, Type},
};
use rust_decimal::Decimal;
use std::collections::BTreeSet;
use understudy_store::Value;

/// The aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AggregateKind {
    CountRows,
    Count,
    Sum,
    Average,
    Least,
    Greatest,
    BoolAnd,
    BoolOr,
    StringJoin,
}

/// One call in a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AggregateCall {
    pub(crate) kind: AggregateKind,
    /// The argument, already of `input`; none for count(*).
    pub(crate) argument: Option<Expr>,
    /// string_agg's separator.
    pub(crate) separator: Option<Expr>,
    pub(crate) distinct: bool,
    pub(crate) filter: Option<Expr>,
    /// ORDER BY inside the call.
    pub(crate) order: Vec<SortKey>,
    /// The argument's type after coercion.
    pub(crate) input: Type,
}

impl AggregateKind {
    /// The aggregate of a name and an argument count; None when there is none.
    pub(crate) fn find(name: &str, arguments: usize) -> Option<AggregateKind> {
        match (name, arguments) {
            ("count", 1) => Some(AggregateKind::Count),
            ("sum", 1) => Some(AggregateKind::Sum),
            ("avg", 1) => Some(AggregateKind::Average),
            ("min", 1) => Some(AggregateKind::Least),
            ("max", 1) => Some(AggregateKind::Greatest),
            ("bool_and" | "every", 1) => Some(AggregateKind::BoolAnd),
            ("bool_or", 1) => Some(AggregateKind::BoolOr),
            ("string_agg", 2) => Some(AggregateKind::StringJoin),
            _ => None,
        }
    }

    /// The type the argument is converted to, and the result's; None when the aggregate does not
    /// take the type.
    pub(crate) fn signature(self, argument: Type) -> Option<(Type, Type)> {
        match self {
            AggregateKind::CountRows | AggregateKind::Count => Some((argument, Type::Int8)),
            AggregateKind::Sum => match argument {
                Type::Int2 | Type::Int4 => Some((argument, Type::Int8)),
                Type::Int8 | Type::Numeric => Some((Type::Numeric, Type::Numeric)),
                Type::Float4 | Type::Float8 => Some((argument, argument)),
                _ => None,
            },
            AggregateKind::Average => match argument {
                Type::Int2 | Type::Int4 | Type::Int8 | Type::Numeric => {
                    Some((Type::Numeric, Type::Numeric))
                }
                Type::Float4 | Type::Float8 => Some((Type::Float8, Type::Float8)),
                _ => None,
            },
            AggregateKind::Least | AggregateKind::Greatest => match argument {
                Type::Unknown | Type::Varchar | Type::Name => Some((Type::Text, Type::Text)),
                Type::Bool | Type::Interval | Type::Uuid | Type::Bytea => None,
                other => Some((other, other)),
            },
            AggregateKind::BoolAnd | AggregateKind::BoolOr => (argument == Type::Bool
                || argument == Type::Unknown)
                .then_some((Type::Bool, Type::Bool)),
            AggregateKind::StringJoin => (argument.category() == Category::Text
                || argument == Type::Unknown)
                .then_some((Type::Text, Type::Text)),
        }
    }
}

/// What one call has gathered within one group.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    count: i64,
    value: Value,
    /// Bytes that `value` has pointed to at most.
    value_bytes: u64,
    seen: Option<BTreeSet<Sortable>>,
    rows: Vec<(Vec<Value>, Value, Value)>,
}

/// A value with the total order of sorting, for sets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sortable(pub(crate) Vec<Value>);

impl Eq for Sortable {}

impl PartialOrd for Sortable {
    fn partial_cmp(&self, other: &Sortable) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sortable {
    fn cmp(&self, other: &Sortable) -> std::cmp::Ordering {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|(a, b)| compare_values(a.as_ref(), b.as_ref()))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| self.0.len().cmp(&other.0.len()))
    }
}

impl Gathered {
    /// Takes one tuple of the group; what is kept of it goes to `room`.
    pub(crate) fn take(
        &mut self,
        call: &AggregateCall,
        tuple: &dyn Tuple,
        env: &Env<'_>,
        room: &mut Room,
    ) -> Result<(), SqlError> {
        if let Some(filter) = &call.filter
            && !is_true(filter, tuple, env)?
        {
            return Ok(());
        }
        let Some(argument) = &call.argument else {
            self.count += 1;
            return Ok(());
        };
        let value = eval(argument, tuple, env)?;
        if value.is_null() {
            return Ok(());
        }
        if call.distinct {
            let seen = self.seen.get_or_insert_with(BTreeSet::new);
            if !seen.insert(Sortable(vec![value.clone()])) {
                return Ok(());
            }
            room.keep(env.run, std::slice::from_ref(&value))?;
        }
        self.count += 1;
        if call.kind == AggregateKind::StringJoin {
            let separator = match &call.separator {
                Some(separator) => eval(separator, tuple, env)?,
                None => Value::Null,
            };
            let keys: Result<Vec<Value>, SqlError> =
                call.order.iter().map(|key| eval(&key.expr, tuple, env)).collect();
            let keys = keys?;
            room.take(env.run, bytes_of(&keys) + pointed_to(&value) + pointed_to(&separator))?;
            return room.push(env.run, &mut self.rows, (keys, value, separator));
        }
        self.add(call, value)?;
        let bytes = pointed_to(&self.value);
        if bytes > self.value_bytes {
            room.take(env.run, bytes - self.value_bytes)?;
            self.value_bytes = bytes;
        }
        Ok(())
    }

    fn add(&mut self, call: &AggregateCall, value: Value) -> Result<(), SqlError> {
        if self.value.is_null() {
            self.value = value;
            return Ok(());
        }
        let ordering = || compare_values(value.as_ref(), self.value.as_ref());
        match call.kind {
            AggregateKind::CountRows | AggregateKind::Count | AggregateKind::StringJoin => {}
            AggregateKind::Sum | AggregateKind::Average => {
                // Sums of int4 are int8: the running type is the result's.
                let ty = if call.input.is_integer() { Type::Int8 } else { call.input };
                self.value = arithmetic::calculate(
                    ArithmeticOp::Add,
                    ty,
                    self.value.as_ref(),
                    value.as_ref(),
                )?;
            }
            AggregateKind::Least => {
                if ordering().is_lt() {
                    self.value = value;
                }
            }
            AggregateKind::Greatest => {
                if ordering().is_gt() {
                    self.value = value;
                }
            }
            AggregateKind::BoolAnd => {
                if value == Value::Bool(false) {
                    self.value = value;
                }
            }
            AggregateKind::BoolOr => {
                if value == Value::Bool(true) {
                    self.value = value;
                }
            }
        }
        Ok(())
    }

    /// The result of the group, which `room` is for.
    pub(crate) fn finish(
        mut self,
        call: &AggregateCall,
        run: &Run<'_>,
        room: &mut Room,
    ) -> Result<Value, SqlError> {
        match call.kind {
            AggregateKind::CountRows | AggregateKind::Count => Ok(Value::Int(self.count)),
            AggregateKind::Average => match &self.value {
                Value::Numeric(sum) => {
                    arithmetic::divide(*sum, Decimal::from(self.count)).map(Value::Numeric)
                }
                Value::Null => Ok(Value::Null),
                other => {
                    let sum = cast::as_float(other).ok_or_else(|| {
                        SqlError::new(state::INTERNAL, "an average of something else than numbers")
                    })?;
                    Ok(Value::Float(sum / self.count as f64))
                }
            },
            AggregateKind::StringJoin => self.joined(call, run, room),
            AggregateKind::Sum
            | AggregateKind::Least
            | AggregateKind::Greatest
            | AggregateKind::BoolAnd
            | AggregateKind::BoolOr => Ok(self.value),
        }
    }

    fn joined(
        &mut self,
        call: &AggregateCall,
        run: &Run<'_>,
        room: &mut Room,
    ) -> Result<Value, SqlError> {
        if self.rows.is_empty() {
            return Ok(Value::Null);
        }
        let rows = &mut self.rows;
        let bytes = rows.iter().map(|(_, value, between)| pointed_to(value) + pointed_to(between));
        // Once as it is joined, and once more as a value.
        let bytes = bytes.sum::<u64>();
        room.take(run, bytes.saturating_mul(2))?;
        rows.sort_by(|a, b| crate::execute::compare_keys(&call.order, &a.0, &b.0));
        let mut joined = String::with_capacity(usize::try_from(bytes).unwrap_or(0));
        for (position, (_, value, separator)) in rows.iter().enumerate() {
            if let (true, Value::Text(separator)) = (position > 0, separator) {
                joined.push_str(separator);
            }
            if let Value::Text(text) = value {
                joined.push_str(text);
            }
        }
        Ok(Value::text(joined))
    }
}
