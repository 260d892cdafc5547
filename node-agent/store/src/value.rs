//! SQL values and their types, as the store keeps and compares them.
//!
//! A value is what one column of one row holds. Everything above (casts, operators, text formats)
//! belongs to the SQL crate; here a value only knows its own kind.
//!
//! Invariants: the variant of a stored value follows from the column's [`DataType`] alone (each variant of
//! [`ValueRef`] names its own); `Null` is held by every type. Time zones, collations other than byte order
//! and arrays are deliberately absent.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Declared type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// `boolean`.
    Bool,
    /// `smallint`, two bytes.
    Int2,
    /// `integer`, four bytes.
    Int4,
    /// `bigint`, eight bytes.
    Int8,
    /// `real`; kept as a double that was rounded to a float by the writer.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric` without limits of its own.
    Numeric,
    /// `numeric(precision, scale)`; the writer has rounded and checked the value.
    NumericOf {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// `text`.
    Text,
    /// `varchar(n)`: at most so many characters, checked by the writer.
    Varchar(u32),
    /// `char(n)`: padded with blanks by the reader; trailing blanks never count in a comparison.
    Char(u32),
    /// `bytea`.
    Bytea,
    /// `date`.
    Date,
    /// `timestamp without time zone`.
    Timestamp,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `uuid`.
    Uuid,
}

/// One value, owned.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// Of `Bool`.
    Bool(bool),
    /// Of `Int2`, `Int4` and `Int8`.
    Int(i64),
    /// Of `Float4` and `Float8`.
    Float(f64),
    /// Of `Numeric` and `NumericOf`.
    Numeric(Decimal),
    /// Of `Text`, `Varchar` and `Char`.
    Text(Arc<str>),
    /// Of `Bytea`.
    Bytes(Arc<[u8]>),
    /// Of `Date`: days since 2000-01-01.
    Date(i32),
    /// Of `Timestamp`: microseconds since 2000-01-01 00:00.
    Timestamp(i64),
    /// Of `Timestamptz`: microseconds since 2000-01-01 00:00 UTC.
    Timestamptz(i64),
    /// Of `Uuid`.
    Uuid(u128),
}

/// One value, borrowed from the bytes of a row: reading it allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ValueRef<'a> {
    /// No value.
    #[default]
    Null,
    /// Of `Bool`.
    Bool(bool),
    /// Of `Int2`, `Int4` and `Int8`.
    Int(i64),
    /// Of `Float4` and `Float8`.
    Float(f64),
    /// Of `Numeric` and `NumericOf`.
    Numeric(Decimal),
    /// Of `Text`, `Varchar` and `Char`.
    Text(&'a str),
    /// Of `Bytea`.
    Bytes(&'a [u8]),
    /// Of `Date`.
    Date(i32),
    /// Of `Timestamp`.
    Timestamp(i64),
    /// Of `Timestamptz`.
    Timestamptz(i64),
    /// Of `Uuid`.
    Uuid(u128),
}

impl Value {
    /// Text from anything that can be one.
    #[must_use]
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// Whether this is `Null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The same value, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Null => ValueRef::Null,
            Value::Bool(b) => ValueRef::Bool(*b),
            Value::Int(i) => ValueRef::Int(*i),
            Value::Float(f) => ValueRef::Float(*f),
            Value::Numeric(d) => ValueRef::Numeric(*d),
            Value::Text(t) => ValueRef::Text(t),
            Value::Bytes(b) => ValueRef::Bytes(b),
            Value::Date(d) => ValueRef::Date(*d),
            Value::Timestamp(t) => ValueRef::Timestamp(*t),
            Value::Timestamptz(t) => ValueRef::Timestamptz(*t),
            Value::Uuid(u) => ValueRef::Uuid(*u),
        }
    }
}

impl ValueRef<'_> {
    /// The same value, owned.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(b) => Value::Bool(b),
            ValueRef::Int(i) => Value::Int(i),
            ValueRef::Float(f) => Value::Float(f),
            ValueRef::Numeric(d) => Value::Numeric(d),
            ValueRef::Text(t) => Value::Text(t.into()),
            ValueRef::Bytes(b) => Value::Bytes(b.into()),
            ValueRef::Date(d) => Value::Date(d),
            ValueRef::Timestamp(t) => Value::Timestamp(t),
            ValueRef::Timestamptz(t) => Value::Timestamptz(t),
            ValueRef::Uuid(u) => Value::Uuid(u),
        }
    }

    /// Whether this is `Null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        matches!(self, ValueRef::Null)
    }
}

impl fmt::Display for ValueRef<'_> {
    /// For messages about keys only; the formats that clients see are made by the SQL crate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueRef::Null => f.write_str("null"),
            ValueRef::Bool(b) => f.write_str(if *b { "t" } else { "f" }),
            ValueRef::Int(i) => i.fmt(f),
            ValueRef::Float(x) => x.fmt(f),
            ValueRef::Numeric(d) => d.fmt(f),
            ValueRef::Text(t) => f.write_str(t),
            ValueRef::Bytes(b) => {
                f.write_str("\\x")?;
                b.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            ValueRef::Date(days) => write!(f, "2000-01-01 + {days} d"),
            ValueRef::Timestamp(us) | ValueRef::Timestamptz(us) => {
                write!(f, "2000-01-01 + {us} us")
            }
            ValueRef::Uuid(u) => {
                let h = format!("{u:032x}");
                let parts = [&h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]];
                f.write_str(&parts.join("-"))
            }
        }
    }
}
