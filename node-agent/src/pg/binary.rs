//! Values on the wire: parameters in, columns out, in text and in PostgreSQL's binary forms.
//!
//! Text forms are the SQL crate's. Bytes come from a client, so every length is checked; a value that
//! does not fit its type is 22P03. Binary `interval` is deliberately absent: intervals are texts here.

use super::{
    frame::{Format, Reader},
    reply::Report,
    sqlstate,
};
use rust_decimal::Decimal;
use understudy_sql::{ResultColumn, SqlError, Type, append_text, parse_value};
use understudy_store::{Value, ValueRef};

/// Decimal digits in one digit of the binary form of numeric.
const NUMERIC_DIGIT: u32 = 4;
const NUMERIC_BASE: i128 = 10_000;
const NUMERIC_NEGATIVE: u16 = 0x4000;
const NUMERIC_NAN: u16 = 0xc000;
const NUMERIC_INFINITE: u16 = 0xd000;

/// Largest scale that our numeric holds.
const SCALE_MAX: u32 = 28;

/// Most digits of which every number fits into four bytes.
const PLAIN_DIGITS_MAX: usize = 9;

/// A short whole number as drivers write it; None leaves the text to the SQL crate.
fn plain_int(bytes: &[u8], ty: Type) -> Option<i64> {
    if !matches!(ty, Type::Int4 | Type::Int8) {
        return None;
    }
    let (is_negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > PLAIN_DIGITS_MAX {
        return None;
    }
    let mut number = 0;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(byte - b'0');
    }
    Some(if is_negative { -number } else { number })
}

/// Reads one parameter.
pub(super) fn parameter(
    bytes: Option<&[u8]>,
    format: Format,
    ty: Type,
    zone_offset: i32,
) -> Result<Value, Report> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    match format {
        Format::Text => match plain_int(bytes, ty) {
            Some(number) => Ok(Value::Int(number)),
            None => Ok(parse_value(ty, utf8(bytes)?, zone_offset)?),
        },
        Format::Binary => binary(bytes, ty),
    }
}

/// The text of bytes from a client, without zeros.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Report> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        Ok(_) => {
            let message = "invalid byte sequence for encoding \"UTF8\": 0x00";
            Err(Report::error(sqlstate::BAD_ENCODING, message))
        }
        Err(error) => {
            let at = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
            let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{at:02x}");
            Err(Report::error(sqlstate::BAD_ENCODING, message))
        }
    }
}

fn binary(bytes: &[u8], ty: Type) -> Result<Value, Report> {
    let value = match ty {
        Type::Bool => match bytes {
            [byte] => Some(Value::Bool(*byte != 0)),
            _ => None,
        },
        Type::Int2 => array(bytes).map(|b| Value::Int(i16::from_be_bytes(b).into())),
        Type::Int4 => array(bytes).map(|b| Value::Int(i32::from_be_bytes(b).into())),
        Type::Int8 => array(bytes).map(|b| Value::Int(i64::from_be_bytes(b))),
        Type::Oid => array(bytes).map(|b| Value::Int(u32::from_be_bytes(b).into())),
        Type::Float4 => array(bytes).map(|b| Value::Float(f32::from_be_bytes(b).into())),
        Type::Float8 => array(bytes).map(|b| Value::Float(f64::from_be_bytes(b))),
        Type::Numeric => numeric(bytes).map(Value::Numeric),
        Type::Text | Type::Varchar | Type::Bpchar | Type::Name | Type::CharByte | Type::Unknown => {
            Some(Value::text(utf8(bytes)?))
        }
        Type::Bytea => Some(Value::Bytes(bytes.into())),
        Type::Date => array(bytes).map(|b| Value::Date(i32::from_be_bytes(b))),
        Type::Timestamp => array(bytes).map(|b| Value::Timestamp(i64::from_be_bytes(b))),
        Type::Timestamptz => array(bytes).map(|b| Value::Timestamptz(i64::from_be_bytes(b))),
        Type::Uuid => array(bytes).map(|b| Value::Uuid(u128::from_be_bytes(b))),
        Type::Interval => return Err(no_binary(ty).into()),
    };
    value.ok_or_else(|| {
        let message = format!("incorrect binary data format for type {}", ty.name());
        Report::error(sqlstate::INVALID_BINARY, message)
    })
}

fn no_binary(ty: Type) -> SqlError {
    SqlError::unsupported(format!("binary format of type {}", ty.name()))
        .with_hint("Ask for the text format.")
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Reads numeric's binary form; None for what our numeric cannot hold, NaN and infinity included.
fn numeric(bytes: &[u8]) -> Option<Decimal> {
    let mut reader = Reader(bytes);
    let count = reader.u16().ok()?;
    let weight = i32::from(reader.u16().ok()? as i16);
    let sign = reader.u16().ok()?;
    let scale = u32::from(reader.u16().ok()?);
    if sign == NUMERIC_NAN || sign >= NUMERIC_INFINITE || scale > SCALE_MAX {
        return None;
    }
    let mut unscaled: i128 = 0;
    for _ in 0..count {
        let digit = i128::from(reader.u16().ok()?);
        if digit >= NUMERIC_BASE {
            return None;
        }
        unscaled = unscaled.checked_mul(NUMERIC_BASE)?.checked_add(digit)?;
    }
    reader.end().ok()?;
    if unscaled == 0 {
        return Some(Decimal::new(0, scale));
    }
    // The last digit's place, in decimal digits before (negative: after) the point.
    let place = (weight + 1 - i32::from(count)) * NUMERIC_DIGIT as i32 + scale as i32;
    let power = 10_i128.checked_pow(place.unsigned_abs())?;
    let unscaled = if place >= 0 { unscaled.checked_mul(power)? } else { unscaled / power };
    let signed = if sign == NUMERIC_NEGATIVE { -unscaled } else { unscaled };
    Decimal::try_from_i128_with_scale(signed, scale).ok()
}

fn append_numeric(out: &mut Vec<u8>, value: Decimal) {
    let scale = value.scale();
    // Pad the fraction to whole digits of the base, then take the digits off from the right.
    let missing = (NUMERIC_DIGIT - scale % NUMERIC_DIGIT) % NUMERIC_DIGIT;
    let fraction_digits = (scale + missing) / NUMERIC_DIGIT;
    // 96 bits times 1000 fit into 127.
    let mut rest = value.mantissa().unsigned_abs() * 10_u128.pow(missing);
    let mut digits = [0_u16; 16];
    let mut count = 0;
    while rest > 0 {
        digits[count] = (rest % NUMERIC_BASE as u128) as u16;
        rest /= NUMERIC_BASE as u128;
        count += 1;
    }
    let weight = count as i32 - fraction_digits as i32 - 1;
    let trailing = digits[..count].iter().take_while(|digit| **digit == 0).count();
    let sent = count - trailing;
    let sign = if value.is_sign_negative() && count > 0 { NUMERIC_NEGATIVE } else { 0 };
    let weight = if sent == 0 { 0 } else { weight };
    out.extend_from_slice(&(sent as u16).to_be_bytes());
    out.extend_from_slice(&(weight as i16).to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&(scale as u16).to_be_bytes());
    for digit in digits[trailing..count].iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Appends one column of a DataRow, its length word included.
pub(super) fn append_column(
    out: &mut Vec<u8>,
    value: ValueRef<'_>,
    column: &ResultColumn,
    format: Format,
    zone_offset: i32,
) -> Result<(), SqlError> {
    if value.is_null() {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return Ok(());
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match format {
        Format::Text => append_text(out, value, column.data_type, zone_offset),
        Format::Binary => append_binary(out, value, column, zone_offset)?,
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn append_binary(
    out: &mut Vec<u8>,
    value: ValueRef<'_>,
    column: &ResultColumn,
    zone_offset: i32,
) -> Result<(), SqlError> {
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(truth) => out.push(u8::from(truth)),
        ValueRef::Int(number) => match column.type_length {
            2 => out.extend_from_slice(&(number as i16).to_be_bytes()),
            // Also oid, whose upper half looks negative here.
            4 => out.extend_from_slice(&(number as i32).to_be_bytes()),
            _ => out.extend_from_slice(&number.to_be_bytes()),
        },
        ValueRef::Float(number) => match column.type_length {
            4 => out.extend_from_slice(&(number as f32).to_be_bytes()),
            _ => out.extend_from_slice(&number.to_be_bytes()),
        },
        ValueRef::Numeric(number) => append_numeric(out, number),
        ValueRef::Text(_) => {
            if column.type_oid == Type::Interval.oid() {
                return Err(no_binary(Type::Interval));
            }
            append_text(out, value, column.data_type, zone_offset);
        }
        ValueRef::Bytes(bytes) => out.extend_from_slice(bytes),
        ValueRef::Date(days) => out.extend_from_slice(&days.to_be_bytes()),
        ValueRef::Timestamp(micros) | ValueRef::Timestamptz(micros) => {
            out.extend_from_slice(&micros.to_be_bytes());
        }
        ValueRef::Uuid(uuid) => out.extend_from_slice(&uuid.to_be_bytes()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::str::FromStr as _;

    fn numeric_bytes(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        append_numeric(&mut out, Decimal::from_str(text).unwrap());
        out
    }

    #[test]
    fn a_short_number_reads_as_the_long_way_reads_it() {
        let texts =
            ["0", "-0", "007", "999999999", "-999999999", "2147483648", "-42", "1_0", "1e3"];
        let refused = ["", "-", "+5", " 5", "5 ", "--5", "1000000000", "\u{663}"];
        let mut short = 0;
        for text in texts.into_iter().chain(refused) {
            for ty in [Type::Int2, Type::Int4, Type::Int8, Type::Float8, Type::Text] {
                if let Some(number) = plain_int(text.as_bytes(), ty) {
                    assert_eq!(parse_value(ty, text, 0), Ok(Value::Int(number)), "{text:?} {ty:?}");
                    short += 1;
                }
            }
        }
        assert_eq!(short, 12, "six texts, of two types");
    }

    #[test]
    fn numeric_is_sent_as_postgresql_sends_it() {
        // numeric_send of PostgreSQL 15: ndigits, weight, sign, dscale, digits.
        assert_eq!(numeric_bytes("0"), [0; 8]);
        assert_eq!(numeric_bytes("1"), [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(
            numeric_bytes("-12345.678"),
            [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]
        );
        assert_eq!(numeric_bytes("10000"), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(numeric_bytes("0.0001"), [0, 1, 0xff, 0xff, 0, 0, 0, 4, 0, 1]);
    }

    #[test]
    fn binary_of_the_wrong_length_is_an_error() {
        for ty in [Type::Bool, Type::Int2, Type::Int4, Type::Int8, Type::Float8, Type::Uuid] {
            let report = parameter(Some(b"123"), Format::Binary, ty, 0).unwrap_err();
            assert_eq!(report.sqlstate, sqlstate::INVALID_BINARY);
        }
    }

    #[test]
    fn a_zero_in_a_text_is_an_error() {
        let report = parameter(Some(b"a\0b"), Format::Text, Type::Text, 0).unwrap_err();
        assert_eq!(report.sqlstate, sqlstate::BAD_ENCODING);
        let report = parameter(Some(b"\xff"), Format::Binary, Type::Text, 0).unwrap_err();
        assert_eq!(report.sqlstate, sqlstate::BAD_ENCODING);
    }

    proptest! {
        #[test]
        fn numeric_is_read_back(mantissa in -(1_i128 << 95)..(1_i128 << 95), scale in 0_u32..=28) {
            let value = Decimal::from_i128_with_scale(mantissa, scale);
            let mut out = Vec::new();
            append_numeric(&mut out, value);
            prop_assert_eq!(numeric(&out), Some(value));
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for ty in [Type::Bool, Type::Int4, Type::Numeric, Type::Text, Type::Timestamp, Type::Uuid] {
                let _ = parameter(Some(&bytes), Format::Binary, ty, 0);
                let _ = parameter(Some(&bytes), Format::Text, ty, 0);
            }
        }

        #[test]
        fn whole_numbers_are_read_back(number in any::<i64>()) {
            let bytes = number.to_be_bytes();
            prop_assert_eq!(binary(&bytes, Type::Int8).unwrap(), Value::Int(number));
        }
    }
}
