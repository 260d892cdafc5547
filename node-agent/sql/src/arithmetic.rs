//! Arithmetic: integers with overflow checks, doubles, decimals with PostgreSQL's scales, and moments.

use crate::{
    cast,
    datetime::{DAY, Interval},
    error::{SqlError, state},
    expr::{ArithmeticOp, MomentOp},
    text,
    types::Type,
};
use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive as _};
use understudy_store::{Value, ValueRef};

/// Significant digits that a quotient has at least, as in PostgreSQL.
const QUOTIENT_DIGITS: i64 = 16;

fn out_of_range(ty: Type) -> SqlError {
    let message = match ty {
        Type::Float4 | Type::Float8 => "value out of range: overflow".to_owned(),
        Type::Numeric => "value overflows numeric format".to_owned(),
        other => format!("{other} out of range"),
    };
    SqlError::new(state::OUT_OF_RANGE, message)
}

fn by_zero() -> SqlError {
    SqlError::new(state::DIVISION_BY_ZERO, "division by zero")
}

/// `left op right`, both of the type; null when one is.
pub(crate) fn calculate(
    op: ArithmeticOp,
    ty: Type,
    left: ValueRef<'_>,
    right: ValueRef<'_>,
) -> Result<Value, SqlError> {
    match (left, right) {
        (ValueRef::Int(a), ValueRef::Int(b)) => integers(op, ty, a, b).map(Value::Int),
        (ValueRef::Float(a), ValueRef::Float(b)) => floats(op, ty, a, b).map(Value::Float),
        (ValueRef::Numeric(a), ValueRef::Numeric(b)) => decimals(op, a, b).map(Value::Numeric),
        (ValueRef::Null, _) | (_, ValueRef::Null) => Ok(Value::Null),
        _ => Err(SqlError::internal("arithmetic on values of two kinds")),
    }
}

fn integers(op: ArithmeticOp, ty: Type, a: i64, b: i64) -> Result<i64, SqlError> {
    let result = match op {
        ArithmeticOp::Add => a.checked_add(b),
        ArithmeticOp::Subtract => a.checked_sub(b),
        ArithmeticOp::Multiply => a.checked_mul(b),
        ArithmeticOp::Divide | ArithmeticOp::Modulo if b == 0 => return Err(by_zero()),
        ArithmeticOp::Divide => a.checked_div(b),
        ArithmeticOp::Modulo => Some(a.wrapping_rem(b)),
        ArithmeticOp::BitAnd => Some(a & b),
        ArithmeticOp::BitOr => Some(a | b),
        ArithmeticOp::BitXor => Some(a ^ b),
        ArithmeticOp::ShiftLeft => Some(shift(ty, a, b)),
        ArithmeticOp::ShiftRight => Some(a >> (b & if ty == Type::Int8 { 63 } else { 31 })),
        ArithmeticOp::Power => return Err(SqlError::internal("integers have no power")),
    };
    result.filter(|number| text::in_int_range(ty, *number)).ok_or_else(|| out_of_range(ty))
}

fn shift(ty: Type, a: i64, b: i64) -> i64 {
    match ty {
        Type::Int2 => i64::from((a as i32).wrapping_shl(b as u32) as i16),
        Type::Int4 => i64::from((a as i32).wrapping_shl(b as u32)),
        _ => a.wrapping_shl(b as u32),
    }
}

fn floats(op: ArithmeticOp, ty: Type, a: f64, b: f64) -> Result<f64, SqlError> {
    let result = match op {
        ArithmeticOp::Add => a + b,
        ArithmeticOp::Subtract => a - b,
        ArithmeticOp::Multiply => a * b,
        ArithmeticOp::Divide | ArithmeticOp::Modulo if b == 0.0 => return Err(by_zero()),
        ArithmeticOp::Divide => a / b,
        ArithmeticOp::Modulo => a % b,
        ArithmeticOp::Power => {
            let result = a.powf(b);
            if result.is_nan() && !a.is_nan() && !b.is_nan() {
                return Err(SqlError::new(
                    "2201F",
                    "a negative number raised to a non-integer power yields a complex result",
                ));
            }
            result
        }
        ArithmeticOp::BitAnd
        | ArithmeticOp::BitOr
        | ArithmeticOp::BitXor
        | ArithmeticOp::ShiftLeft
        | ArithmeticOp::ShiftRight => return Err(SqlError::internal("doubles have no bits")),
    };
    let result = if ty == Type::Float4 { f64::from(result as f32) } else { result };
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(out_of_range(ty));
    }
    Ok(result)
}

fn decimals(op: ArithmeticOp, a: Decimal, b: Decimal) -> Result<Decimal, SqlError> {
    let overflow = || out_of_range(Type::Numeric);
    match op {
        ArithmeticOp::Add => a.checked_add(b).ok_or_else(overflow),
        ArithmeticOp::Subtract => a.checked_sub(b).ok_or_else(overflow),
        ArithmeticOp::Multiply => {
            let scale = a.scale() + b.scale();
            let mut product = a.checked_mul(b).ok_or_else(overflow)?;
            product.rescale(scale.min(28));
            Ok(product)
        }
        ArithmeticOp::Divide => divide(a, b),
        ArithmeticOp::Modulo if b.is_zero() => Err(by_zero()),
        ArithmeticOp::Modulo => {
            let mut rest = a.checked_rem(b).ok_or_else(overflow)?;
            rest.rescale(a.scale().max(b.scale()));
            Ok(rest)
        }
        ArithmeticOp::Power => power(a, b),
        ArithmeticOp::BitAnd
        | ArithmeticOp::BitOr
        | ArithmeticOp::BitXor
        | ArithmeticOp::ShiftLeft
        | ArithmeticOp::ShiftRight => Err(SqlError::internal("decimals have no bits")),
    }
}

/// Whole exponents by multiplication, others through doubles; 16 digits after the point.
fn power(a: Decimal, b: Decimal) -> Result<Decimal, SqlError> {
    let overflow = || out_of_range(Type::Numeric);
    let whole = b.to_i32().filter(|n| Decimal::from(*n) == b && n.unsigned_abs() <= 1000);
    let raised = match whole {
        Some(exponent) => {
            let mut product = Decimal::ONE;
            for _ in 0..exponent.unsigned_abs() {
                product = product.checked_mul(a).ok_or_else(overflow)?;
            }
            if exponent < 0 {
                if product.is_zero() {
                    return Err(by_zero());
                }
                product = Decimal::ONE.checked_div(product).ok_or_else(overflow)?;
            }
            product
        }
        None => {
            let (base, exponent) = (a.to_f64(), b.to_f64());
            let (Some(base), Some(exponent)) = (base, exponent) else { return Err(overflow()) };
            let raised = floats(ArithmeticOp::Power, Type::Float8, base, exponent)?;
            Decimal::from_f64_retain(raised).ok_or_else(overflow)?
        }
    };
    let mut rounded = raised.round_dp_with_strategy(16, RoundingStrategy::MidpointAwayFromZero);
    rounded.rescale(16);
    Ok(rounded)
}

/// A quotient with the scale that PostgreSQL gives it, as far as 28 digits go.
pub(crate) fn divide(a: Decimal, b: Decimal) -> Result<Decimal, SqlError> {
    if b.is_zero() {
        return Err(by_zero());
    }
    let quotient = a.checked_div(b).ok_or_else(|| out_of_range(Type::Numeric))?;
    let ((weight_a, first_a), (weight_b, first_b)) = (weight(a), weight(b));
    let mut quotient_weight = weight_a - weight_b;
    if first_a <= first_b {
        quotient_weight -= 1;
    }
    let scale = (QUOTIENT_DIGITS - quotient_weight * 4)
        .max(i64::from(a.scale()))
        .max(i64::from(b.scale()))
        .clamp(0, 28) as u32;
    let mut rounded =
        quotient.round_dp_with_strategy(scale, RoundingStrategy::MidpointAwayFromZero);
    rounded.rescale(scale);
    Ok(rounded)
}

/// Weight and value of the first digit in base 10,000, in which PostgreSQL reckons scales.
fn weight(number: Decimal) -> (i64, i64) {
    if number.is_zero() {
        return (0, 0);
    }
    let digits = number.mantissa().unsigned_abs().to_string();
    let exponent = digits.len() as i64 - i64::from(number.scale()) - 1;
    let weight = exponent.div_euclid(4);
    let wanted = (exponent.rem_euclid(4) + 1) as usize;
    let mut first: String = digits.chars().take(wanted).collect();
    while first.len() < wanted {
        first.push('0');
    }
    (weight, first.parse().unwrap_or(0))
}

/// `-value`.
pub(crate) fn negate(ty: Type, value: &Value) -> Result<Value, SqlError> {
    match value {
        Value::Int(number) => number
            .checked_neg()
            .filter(|number| text::in_int_range(ty, *number))
            .map(Value::Int)
            .ok_or_else(|| out_of_range(ty)),
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Numeric(number) => Ok(Value::Numeric(-number)),
        Value::Text(interval) => Ok(Value::text(Interval::parse(interval)?.negated().text())),
        _ => Ok(Value::Null),
    }
}

/// Arithmetic on dates, timestamps and intervals; intervals travel as text.
pub(crate) fn moment(op: MomentOp, left: &Value, right: &Value) -> Result<Value, SqlError> {
    if left.is_null() || right.is_null() {
        return Ok(Value::Null);
    }
    if let (MomentOp::DatePlusDays | MomentOp::DateMinusDays, Value::Date(i32::MAX | i32::MIN)) =
        (op, left)
    {
        return Ok(left.clone());
    }
    let range = |ty: Type| SqlError::new(state::DATETIME_OVERFLOW, format!("{ty} out of range"));
    match (op, left, right) {
        (MomentOp::DatePlusDays, Value::Date(day), Value::Int(days)) => i64::from(*day)
            .checked_add(*days)
            .and_then(|day| i32::try_from(day).ok())
            .map(Value::Date)
            .ok_or_else(|| range(Type::Date)),
        (MomentOp::DateMinusDays, Value::Date(day), Value::Int(days)) => i64::from(*day)
            .checked_sub(*days)
            .and_then(|day| i32::try_from(day).ok())
            .map(Value::Date)
            .ok_or_else(|| range(Type::Date)),
        (MomentOp::DaysBetween, Value::Date(a), Value::Date(b)) => {
            Ok(Value::Int(i64::from(*a) - i64::from(*b)))
        }
        (MomentOp::TimeBetween, Value::Timestamp(a), Value::Timestamp(b))
        | (MomentOp::TimeBetween, Value::Timestamptz(a), Value::Timestamptz(b)) => {
            let micros = a.checked_sub(*b).ok_or_else(|| range(Type::Interval))?;
            let span = Interval { months: 0, days: micros / DAY, micros: micros % DAY };
            Ok(Value::text(span.text()))
        }
        (MomentOp::PlusInterval | MomentOp::MinusInterval, moment, Value::Text(span)) => {
            let span = Interval::parse(span)?;
            let span = if op == MomentOp::MinusInterval { span.negated() } else { span };
            match moment {
                Value::Timestamp(micros) => span.added_to(*micros).map(Value::Timestamp),
                Value::Timestamptz(micros) => span.added_to(*micros).map(Value::Timestamptz),
                _ => Err(SqlError::internal("an interval is added to no timestamp")),
            }
        }
        (MomentOp::AddIntervals | MomentOp::SubtractIntervals, Value::Text(a), Value::Text(b)) => {
            let (a, b) = (Interval::parse(a)?, Interval::parse(b)?);
            let b = if op == MomentOp::SubtractIntervals { b.negated() } else { b };
            let sum = Interval {
                months: a.months + b.months,
                days: a.days + b.days,
                micros: a.micros + b.micros,
            };
            Ok(Value::text(sum.text()))
        }
        (MomentOp::ScaleInterval, Value::Text(span), factor) => {
            let factor = cast::as_float(factor)
                .ok_or_else(|| SqlError::internal("an interval is scaled by no number"))?;
            Ok(Value::text(scale(Interval::parse(span)?, factor).text()))
        }
        _ => Err(SqlError::internal("moment arithmetic on values of other kinds")),
    }
}

/// Parts of months become days (30 each), parts of days become time.
fn scale(span: Interval, factor: f64) -> Interval {
    let months = span.months as f64 * factor;
    let days = span.days as f64 * factor + months.fract() * 30.0;
    let micros = span.micros as f64 * factor + days.fract() * DAY as f64;
    Interval { months: months as i64, days: days as i64, micros: micros.round() as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotient(a: &str, b: &str) -> String {
        divide(a.parse().unwrap(), b.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn quotients_have_postgresql_scales() {
        assert_eq!(quotient("1", "3"), "0.33333333333333333333");
        assert_eq!(quotient("10", "4"), "2.5000000000000000");
        assert_eq!(quotient("100000", "7"), "14285.714285714286");
        assert_eq!(quotient("1.00", "8"), "0.12500000000000000000");
    }

    #[test]
    fn integer_overflow_is_an_error_of_its_type() {
        let sum = |ty, a, b| calculate(ArithmeticOp::Add, ty, ValueRef::Int(a), ValueRef::Int(b));
        assert_eq!(
            sum(Type::Int4, i64::from(i32::MAX), 1).unwrap_err().message,
            "integer out of range"
        );
        assert_eq!(sum(Type::Int8, i64::MAX, 1).unwrap_err().sqlstate, state::OUT_OF_RANGE);
        assert_eq!(sum(Type::Int8, 1, 2).unwrap(), Value::Int(3));
    }
}
