//! Conversions between types and the limits of column types.

use crate::{
    datetime,
    error::{SqlError, state},
    text,
    types::Type,
};
use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive as _};
use understudy_store::{DataType, Value};

/// Whether a cast was written by the user or is made by an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CastContext {
    /// Written: too long strings are cut.
    Explicit,
    /// Into a column: too long strings are refused.
    Assignment,
}

/// Whether a cast from one type to another exists at all, when written.
pub(crate) fn exists(from: Type, to: Type) -> bool {
    use crate::types::Category;
    if from.converts_on_assignment(to) || from.category() == Category::Text {
        return true;
    }
    match (from, to) {
        (Type::Bool, Type::Int4) | (Type::Int4, Type::Bool) => true,
        (Type::Interval, Type::Interval) => true,
        _ => from.category() == to.category() && from.category() != Category::Other,
    }
}

fn cannot(from: Type, to: Type) -> SqlError {
    SqlError::new(state::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
}

fn range(to: Type) -> SqlError {
    let message = match to {
        Type::Oid => "OID out of range".to_owned(),
        Type::Timestamp | Type::Timestamptz | Type::Date => format!("{to} out of range"),
        _ => format!("{to} out of range"),
    };
    SqlError::new(state::OUT_OF_RANGE, message)
}

/// Converts a value; the zone offset (seconds) is the session's.
pub(crate) fn convert(
    value: &Value,
    from: Type,
    to: Type,
    zone_offset: i32,
) -> Result<Value, SqlError> {
    if value.is_null() || from == to {
        return Ok(value.clone());
    }
    match (value, to) {
        (Value::Text(text), _) => from_text(value, text, from, to, zone_offset),
        (Value::Bool(truth), Type::Int4) => Ok(Value::Int(i64::from(*truth))),
        (Value::Bool(truth), to) if is_text(to) => {
            Ok(Value::text(if *truth { "true" } else { "false" }))
        }
        (Value::Int(number), Type::Bool) => Ok(Value::Bool(*number != 0)),
        (_, to) if is_text(to) => Ok(Value::text(text::shown(value.as_ref(), from, zone_offset))),
        (Value::Int(_) | Value::Float(_) | Value::Numeric(_), _) => to_number(value, from, to),
        (Value::Date(day), Type::Timestamp) => Ok(Value::Timestamp(midnight(*day)?)),
        (Value::Date(day), Type::Timestamptz) => {
            Ok(Value::Timestamptz(zoned(midnight(*day)?, -zone_offset)))
        }
        (Value::Timestamp(micros), Type::Date) => Ok(Value::Date(day_of(*micros))),
        (Value::Timestamp(micros), Type::Timestamptz) => {
            Ok(Value::Timestamptz(zoned(*micros, -zone_offset)))
        }
        (Value::Timestamptz(micros), Type::Date) => {
            Ok(Value::Date(day_of(zoned(*micros, zone_offset))))
        }
        (Value::Timestamptz(micros), Type::Timestamp) => {
            Ok(Value::Timestamp(zoned(*micros, zone_offset)))
        }
        _ => Err(cannot(from, to)),
    }
}

fn is_text(ty: Type) -> bool {
    ty.category() == crate::types::Category::Text
}

fn from_text(
    value: &Value,
    text: &str,
    from: Type,
    to: Type,
    zone_offset: i32,
) -> Result<Value, SqlError> {
    match to {
        Type::Text | Type::Varchar if from == Type::Bpchar => {
            Ok(Value::text(text.trim_end_matches(' ')))
        }
        Type::Bpchar if text.ends_with(' ') => Ok(Value::text(text.trim_end_matches(' '))),
        Type::Text | Type::Varchar | Type::Bpchar | Type::Unknown => Ok(value.clone()),
        Type::Name => Ok(Value::text(cut(text, 63))),
        Type::CharByte => Ok(Value::text(cut(text, 1))),
        Type::Bool
        | Type::Int2
        | Type::Int4
        | Type::Int8
        | Type::Float4
        | Type::Float8
        | Type::Numeric
        | Type::Bytea
        | Type::Date
        | Type::Timestamp
        | Type::Timestamptz
        | Type::Uuid
        | Type::Oid
        | Type::Interval => text::parse_value(to, text, zone_offset),
    }
}

fn cut(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(at, _)| &text[..at])
}

fn midnight(day: i32) -> Result<i64, SqlError> {
    match day {
        i32::MAX => Ok(datetime::INFINITY),
        i32::MIN => Ok(datetime::MINUS_INFINITY),
        day => i64::from(day).checked_mul(datetime::DAY).ok_or_else(|| range(Type::Timestamp)),
    }
}

fn day_of(micros: i64) -> i32 {
    match micros {
        datetime::INFINITY => i32::MAX,
        datetime::MINUS_INFINITY => i32::MIN,
        micros => micros.div_euclid(datetime::DAY) as i32,
    }
}

fn zoned(micros: i64, offset: i32) -> i64 {
    match micros {
        datetime::INFINITY | datetime::MINUS_INFINITY => micros,
        micros => micros + i64::from(offset) * 1_000_000,
    }
}

fn to_number(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    match to {
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => {
            let number = match value {
                Value::Int(number) => Some(*number),
                Value::Float(number) => {
                    let rounded = number.round_ties_even();
                    (rounded.abs() < 9.3e18).then_some(rounded as i64)
                }
                Value::Numeric(number) => number
                    .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero)
                    .to_i64(),
                _ => return Err(cannot(from, to)),
            };
            number
                .filter(|number| text::in_int_range(to, *number))
                .map(Value::Int)
                .ok_or_else(|| range(to))
        }
        Type::Float4 | Type::Float8 => {
            let number = as_float(value).ok_or_else(|| cannot(from, to))?;
            if to == Type::Float8 {
                return Ok(Value::Float(number));
            }
            let narrow = number as f32;
            if narrow.is_infinite() && number.is_finite() {
                return Err(range(to));
            }
            Ok(Value::Float(f64::from(narrow)))
        }
        Type::Numeric => as_numeric(value, from)
            .map(Value::Numeric)
            .ok_or_else(|| SqlError::new(state::OUT_OF_RANGE, "value overflows numeric format")),
        _ => Err(cannot(from, to)),
    }
}

/// A number as a double.
pub(crate) fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        // Through the text: correctly rounded, which a product of parts is not.
        Value::Numeric(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// A number as a decimal; doubles by their shortest text, to 15 digits as PostgreSQL does.
pub(crate) fn as_numeric(value: &Value, from: Type) -> Option<Decimal> {
    match value {
        Value::Int(number) => Some(Decimal::from(*number)),
        Value::Numeric(number) => Some(*number),
        Value::Float(number) => {
            let digits = if from == Type::Float4 { 5 } else { 14 };
            let text = format!("{number:.digits$e}");
            Decimal::from_scientific(&text).ok().map(|decimal| decimal.normalize())
        }
        _ => None,
    }
}

/// Applies a column type's length or precision.
pub(crate) fn limit(value: Value, to: DataType, context: CastContext) -> Result<Value, SqlError> {
    match (&value, to) {
        (Value::Text(text), DataType::Varchar(length)) if length > 0 => {
            limit_text(&value, text, length as usize, context, "character varying")
        }
        (Value::Text(text), DataType::Char(length)) if length > 0 => {
            let trimmed = text.trim_end_matches(' ');
            let value =
                if trimmed.len() == text.len() { value.clone() } else { Value::text(trimmed) };
            limit_text(&value, trimmed, length as usize, context, "character")
        }
        (Value::Numeric(number), DataType::NumericOf { precision, scale }) => {
            limit_numeric(*number, precision, scale).map(Value::Numeric)
        }
        _ => Ok(value),
    }
}

fn limit_text(
    value: &Value,
    text: &str,
    length: usize,
    context: CastContext,
    name: &str,
) -> Result<Value, SqlError> {
    if text.len() <= length || text.chars().count() <= length {
        return Ok(value.clone());
    }
    let kept = cut(text, length);
    let only_blanks = text[kept.len()..].bytes().all(|b| b == b' ');
    if only_blanks || context == CastContext::Explicit {
        return Ok(Value::text(kept));
    }
    Err(SqlError::new(state::STRING_TOO_LONG, format!("value too long for type {name}({length})")))
}

fn limit_numeric(number: Decimal, precision: u8, scale: u8) -> Result<Decimal, SqlError> {
    let mut rounded =
        number.round_dp_with_strategy(u32::from(scale), RoundingStrategy::MidpointAwayFromZero);
    rounded.rescale(u32::from(scale));
    let whole_digits = rounded.trunc().abs().to_string();
    let digits = if whole_digits == "0" { 0 } else { whole_digits.len() };
    if digits > usize::from(precision - scale) || rounded.scale() != u32::from(scale) {
        return Err(SqlError::new(state::OUT_OF_RANGE, "numeric field overflow").with_detail(
            format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
                precision - scale
            ),
        ));
    }
    Ok(rounded)
}
