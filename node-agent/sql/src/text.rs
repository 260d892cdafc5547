//! Values to PostgreSQL's text forms and back.
//!
//! The text form is what the wire's text format, COPY and casts to text use; only booleans differ
//! (`t` on the wire, `true` in a cast). Nothing here looks at a session but the zone offset it is given.

use crate::{
    datetime,
    error::{SqlError, state},
    types::Type,
};
use rust_decimal::Decimal;
use std::{borrow::Cow, fmt::Write as _, str::FromStr as _, sync::Arc};
use understudy_store::{DataType, Value, ValueRef};

/// Appends the wire's text form of a value; nothing for Null.
pub fn append_text(out: &mut Vec<u8>, value: ValueRef<'_>, data_type: DataType, zone_offset: i32) {
    match value {
        ValueRef::Null => {}
        ValueRef::Text(text) => {
            out.extend_from_slice(text.as_bytes());
            if let DataType::Char(length) = data_type {
                let missing = (length as usize).saturating_sub(text.chars().count());
                out.resize(out.len() + missing, b' ');
            }
        }
        ValueRef::Int(number) => append_int(out, number),
        ValueRef::Bool(_)
        | ValueRef::Float(_)
        | ValueRef::Numeric(_)
        | ValueRef::Bytes(_)
        | ValueRef::Date(_)
        | ValueRef::Timestamp(_)
        | ValueRef::Timestamptz(_)
        | ValueRef::Uuid(_) => {
            let ty = Type::of(data_type);
            out.extend_from_slice(shown(value, ty, zone_offset).as_bytes());
        }
    }
}

/// Appends a whole number in decimal without allocating.
pub(crate) fn append_int(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0_u8; 20];
    let mut rest = number.unsigned_abs();
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// The text of a value as the wire shows it (`t`, `f`); empty for Null. The type tells real from double.
pub(crate) fn shown(value: ValueRef<'_>, ty: Type, zone_offset: i32) -> Cow<'_, str> {
    match value {
        ValueRef::Null => Cow::Borrowed(""),
        ValueRef::Bool(truth) => Cow::Borrowed(if truth { "t" } else { "f" }),
        ValueRef::Int(number) => Cow::Owned(number.to_string()),
        ValueRef::Float(number) if ty == Type::Float4 => {
            Cow::Owned(float_text(&format!("{:e}", number as f32), 6))
        }
        ValueRef::Float(number) => Cow::Owned(float_text(&format!("{number:e}"), 15)),
        // Decimals know a negative zero, SQL does not.
        ValueRef::Numeric(number) if number.is_zero() => Cow::Owned(number.abs().to_string()),
        ValueRef::Numeric(number) => Cow::Owned(number.to_string()),
        ValueRef::Text(text) => Cow::Borrowed(text),
        ValueRef::Bytes(bytes) => {
            let mut text = String::with_capacity(2 + bytes.len() * 2);
            text.push_str("\\x");
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            Cow::Owned(text)
        }
        ValueRef::Date(day) => Cow::Owned(datetime::date_text(day)),
        ValueRef::Timestamp(micros) => Cow::Owned(datetime::timestamp_text(micros)),
        ValueRef::Timestamptz(micros) => {
            Cow::Owned(datetime::timestamptz_text(micros, zone_offset))
        }
        ValueRef::Uuid(_) => Cow::Owned(value.to_string()),
    }
}

/// Lays out shortest digits as PostgreSQL does: scientific below 1e-4 and from `digits_max` digits on.
fn float_text(scientific: &str, digits_max: i32) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return match scientific {
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            other => other.to_owned(),
        };
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < -4 || exponent >= digits_max {
        let (head, tail) = digits.split_at(1);
        let point = if tail.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{head}{point}{tail}e{exponent_sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// 22P02 for a text that is not of the type.
pub(crate) fn invalid(ty: Type, text: &str) -> SqlError {
    SqlError::new(
        state::INVALID_TEXT,
        format!("invalid input syntax for type {}: \"{text}\"", ty.name()),
    )
}

fn out_of_range(ty: Type, text: &str) -> SqlError {
    SqlError::new(
        state::OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {}", ty.name()),
    )
}

/// Reads the text form of a type. Lengths and precision are applied by `crate::cast::limit`.
///
/// # Errors
/// 22P02, 22003, 22007 or 22008, as PostgreSQL's input functions.
pub fn parse_value(ty: Type, text: &str, zone_offset: i32) -> Result<Value, SqlError> {
    match ty {
        Type::Bool => parse_bool(text.trim()).map(Value::Bool).ok_or_else(|| invalid(ty, text)),
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => parse_int(ty, text),
        Type::Float4 => {
            parse_float(ty, text.trim(), text).map(|x| Value::Float(f64::from(x as f32)))
        }
        Type::Float8 => parse_float(ty, text.trim(), text).map(Value::Float),
        Type::Numeric => parse_numeric(text.trim()).map(Value::Numeric).ok_or_else(|| {
            if is_numeric_text(text.trim()) { too_long(text) } else { invalid(ty, text) }
        }),
        Type::Text | Type::Varchar | Type::Name | Type::CharByte | Type::Unknown => {
            Ok(Value::text(text))
        }
        Type::Bpchar => Ok(Value::text(text.trim_end_matches(' '))),
        Type::Bytea => parse_bytes(text),
        Type::Date => datetime::parse_date(text).map(Value::Date),
        Type::Timestamp => datetime::parse_timestamp(text).map(Value::Timestamp),
        Type::Timestamptz => datetime::parse_timestamptz(text, zone_offset).map(Value::Timestamptz),
        Type::Uuid => parse_uuid(text.trim()).map(Value::Uuid).ok_or_else(|| invalid(ty, text)),
        Type::Interval => Ok(Value::text(datetime::Interval::parse(text)?.text())),
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let is_prefix = |word: &str| !lower.is_empty() && word.starts_with(&lower);
    if is_prefix("true") || is_prefix("yes") || lower == "on" || lower == "1" {
        Some(true)
    } else if is_prefix("false")
        || is_prefix("no")
        || lower == "off"
        || lower == "of"
        || lower == "0"
    {
        Some(false)
    } else {
        None
    }
}

fn parse_int(ty: Type, text: &str) -> Result<Value, SqlError> {
    // Mostly there is nothing around the digits.
    let number: i64 = text.parse().or_else(|_| text.trim().parse()).map_err(|_| {
        let digits = text.trim().trim_start_matches(['+', '-']);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let is_signed_once = text.trim().len() - digits.len() <= 1;
        if is_number && is_signed_once { out_of_range(ty, text) } else { invalid(ty, text) }
    })?;
    if in_int_range(ty, number) { Ok(Value::Int(number)) } else { Err(out_of_range(ty, text)) }
}

/// Whether a number fits an integer type.
pub(crate) fn in_int_range(ty: Type, number: i64) -> bool {
    match ty {
        Type::Int2 => i16::try_from(number).is_ok(),
        Type::Int4 => i32::try_from(number).is_ok(),
        Type::Oid => u32::try_from(number).is_ok(),
        _ => true,
    }
}

fn parse_float(ty: Type, trimmed: &str, text: &str) -> Result<f64, SqlError> {
    match trimmed.to_ascii_lowercase().as_str() {
        "infinity" | "inf" | "+infinity" => return Ok(f64::INFINITY),
        "-infinity" | "-inf" => return Ok(f64::NEG_INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    let plausible = trimmed.bytes().any(|b| b.is_ascii_digit())
        && trimmed.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number = if plausible { trimmed.parse::<f64>().ok() } else { None };
    match number {
        Some(number) if number.is_finite() => Ok(number),
        Some(_) => Err(out_of_range(ty, text)),
        None => Err(invalid(ty, text)),
    }
}

fn is_numeric_text(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
}

fn too_long(text: &str) -> SqlError {
    SqlError::new(state::OUT_OF_RANGE, format!("value \"{text}\" overflows numeric format"))
        .with_hint("numeric holds 28 digits; use double precision for more.")
}

/// Reads a decimal number that fits 28 digits; more digits after the point are rounded away.
pub(crate) fn parse_numeric(text: &str) -> Option<Decimal> {
    if text.contains(['e', 'E']) {
        let parsed = Decimal::from_scientific(text).ok()?;
        return is_numeric_text(text).then_some(parsed);
    }
    if text.contains('_') {
        return None;
    }
    Decimal::from_str(text).ok()
}

fn parse_bytes(text: &str) -> Result<Value, SqlError> {
    let bad =
        || SqlError::new(state::INVALID_TEXT, "invalid input syntax for type bytea".to_owned());
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return Err(SqlError::new(
                state::INVALID_PARAMETER,
                "invalid hexadecimal data: odd number of digits",
            ));
        }
        let nibble = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        let bytes: Option<Vec<u8>> = digits
            .chunks_exact(2)
            .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
            .collect();
        return bytes.map(|bytes| Value::Bytes(Arc::from(bytes))).ok_or_else(|| {
            SqlError::new(state::INVALID_PARAMETER, "invalid hexadecimal digit in bytea")
        });
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            (b'\\', _) => return Err(bad()),
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Ok(Value::Bytes(Arc::from(bytes)))
}

fn parse_uuid(text: &str) -> Option<u128> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let digits: String = inner.chars().filter(|c| *c != '-').collect();
    let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u128::from_str_radix(&digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(number: f64) -> String {
        shown(ValueRef::Float(number), Type::Float8, 0).into_owned()
    }

    #[test]
    fn floats_are_laid_out_as_postgresql_does() {
        assert_eq!(float(1.0), "1");
        assert_eq!(float(-0.5), "-0.5");
        assert_eq!(float(1e15), "1e+15");
        assert_eq!(float(123_456_789_012_345.0), "123456789012345");
        assert_eq!(float(0.0001), "0.0001");
        assert_eq!(float(0.00001), "1e-05");
        assert_eq!(float(f64::INFINITY), "Infinity");
        assert_eq!(float(0.1 + 0.2), "0.30000000000000004");
    }

    #[test]
    fn whole_numbers_are_appended_without_losing_the_smallest() {
        for number in [0, -1, 42, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            append_text(&mut out, ValueRef::Int(number), DataType::Int8, 0);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn whole_numbers_are_read_with_one_sign_and_blanks_around_them() {
        let read = |text: &str| parse_value(Type::Int8, text, 0).map_err(|error| error.sqlstate);
        for (text, number) in [("12", 12), ("+5", 5), (" -7\n", -7), ("\t+0 ", 0)] {
            assert_eq!(read(text), Ok(Value::Int(number)), "{text:?}");
        }
        assert_eq!(read(&i64::MIN.to_string()), Ok(Value::Int(i64::MIN)));
        for text in ["", " ", "-", "+-5", "5-", "- 5", "1 2", "--99999999999999999999"] {
            assert_eq!(read(text), Err(state::INVALID_TEXT), "{text:?}");
        }
        for text in ["9223372036854775808", " -9223372036854775809 "] {
            assert_eq!(read(text), Err(state::OUT_OF_RANGE), "{text:?}");
        }
    }

    #[test]
    fn malformed_texts_are_refused_with_the_code_of_their_type() {
        let state_of = |ty, text| parse_value(ty, text, 0).unwrap_err().sqlstate;
        assert_eq!(state_of(Type::Int4, "1.5"), state::INVALID_TEXT);
        assert_eq!(state_of(Type::Int4, "3000000000"), state::OUT_OF_RANGE);
        assert_eq!(state_of(Type::Bool, "maybe"), state::INVALID_TEXT);
        assert_eq!(state_of(Type::Uuid, "abc"), state::INVALID_TEXT);
        assert_eq!(
            parse_value(Type::Bytea, "\\x0aFf", 0).unwrap(),
            Value::Bytes(Arc::from([10_u8, 255]))
        );
    }
}
