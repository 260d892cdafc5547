//! Memcomparable keys: comparing the bytes compares the values, column by column.
//!
//! Each column begins with a marker (1 = value, 254 = null, so nulls sort last) and ends itself: numbers
//! have a fixed or self-ending form, text and bytes are escaped and terminated. Therefore no key of an
//! index is a prefix of another, and the bytes of the first k columns are a prefix of exactly the
//! keys that have those values. An integer's marker says how many bytes it takes, so that small ones
//! are short: keys lie in the index, each in its entry.
//!
//! Invariants: equal values have equal bytes (−0 and 0, `1.0` and `1.00`, `char` with and without
//! trailing blanks); text compares by its UTF-8 bytes (collation "C"); NaN is above all numbers.

use crate::{
    entry::{SHORT, Width},
    row::{Row, RowId},
    table::TableDef,
    value::{DataType, Value, ValueRef},
};
use rust_decimal::Decimal;
use std::ops::{Bound, Deref};

/// Marks a value.
const VALUE: u8 = 1;
/// Marks a null.
const NULL: u8 = 254;
/// Marks the integer 0; larger ones have this and the number of their bytes, smaller ones less.
const ZERO: u8 = 0x80;
/// Above the rest of any key that has a given prefix: a marker or row id never begins like this.
const ABOVE: [u8; 9] = [0xff; 9];
/// Longest key that is built without an allocation.
const BUILT: usize = 40;

/// The bytes of a key while it is built and looked for; on the stack when short.
#[derive(Debug)]
pub(crate) struct KeyBytes {
    length: usize,
    short: [u8; BUILT],
    /// All of them, once they do not fit.
    long: Vec<u8>,
}

impl KeyBytes {
    pub(crate) fn new() -> KeyBytes {
        KeyBytes { length: 0, short: [0; BUILT], long: Vec::new() }
    }

    fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if end <= BUILT {
            self.short[self.length..end].copy_from_slice(bytes);
        } else {
            if self.long.is_empty() {
                self.long.extend_from_slice(&self.short[..self.length]);
            }
            self.long.extend_from_slice(bytes);
        }
        self.length = end;
    }

    /// Appends the first bytes of these; of a length that is known, they are copied without a loop.
    fn extend_from_first(&mut self, bytes: &[u8; 9], length: usize) {
        match self.short.get_mut(self.length..self.length + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.length += length;
            }
            None => self.extend_from_slice(&bytes[..length]),
        }
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.length <= BUILT { &self.short[..self.length] } else { &self.long }
    }
}

/// The most bytes that a key of an index can have, by the length of its row, when the row has all the columns
/// and the index each of them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRoom {
    /// Whatever the row is.
    fixed: usize,
    /// Whether there are columns as long as the row, each byte of which may take two.
    variable: bool,
    /// What its entries are made for.
    pub(crate) width: Width,
}

impl KeyRoom {
    /// For a key of these columns, and the row id.
    pub(crate) fn of(def: &TableDef, columns: &[u16]) -> KeyRoom {
        let mut room = KeyRoom { fixed: 9, variable: false, width: Width::Wide };
        // Of the numbers of most tables; a row id too, which unique keys do not have.
        let mut usual = 5;
        for column in columns {
            let (fixed, variable, often) = match def.columns[usize::from(*column)].data_type {
                DataType::Bool => (2, false, 2),
                DataType::Int2 | DataType::Date => (9, false, 3),
                DataType::Int4 | DataType::Int8 => (9, false, 4),
                DataType::Timestamp | DataType::Timestamptz => (9, false, 8),
                DataType::Float4 | DataType::Float8 => (9, false, 9),
                // Marker, sign, exponent, as many digits as 96 bits have, and the end.
                DataType::Numeric | DataType::NumericOf { .. } => (33, false, 33),
                DataType::Uuid => (17, false, 17),
                DataType::Text | DataType::Varchar(_) | DataType::Char(_) => (3, true, SHORT),
                DataType::Bytea => (3, true, SHORT),
            };
            room.fixed += fixed;
            room.variable |= variable;
            usual += often;
        }
        if usual <= SHORT {
            room.width = Width::Short;
        }
        room
    }

    /// The most that its entry is charged for a row of so many bytes; of an index with short entries the
    /// least, for few of their keys need more.
    pub(crate) fn entry_bytes(self, row: usize) -> u64 {
        if self.width == Width::Short {
            return self.width.least();
        }
        let most = self.fixed + if self.variable { 2 * row } else { 0 };
        self.width.charge(most)
    }
}

/// Whether a key that was built has a null in it (unique indexes let those repeat).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    None,
    Some,
}

/// Appends the key columns of a row.
pub(crate) fn encode_row(row: &Row, def: &TableDef, columns: &[u16], out: &mut KeyBytes) -> Nulls {
    let mut nulls = Nulls::None;
    for &column in columns {
        let column = usize::from(column);
        let value = row.column_ref(def, column);
        if value.is_null() {
            nulls = Nulls::Some;
        }
        encode_column(value, def.columns[column].data_type, out);
    }
    nulls
}

/// Appends the leading key columns given as values.
pub(crate) fn encode_values(
    values: &[Value],
    def: &TableDef,
    columns: &[u16],
    out: &mut KeyBytes,
) -> Nulls {
    let mut nulls = Nulls::None;
    for (value, &column) in values.iter().zip(columns) {
        if value.is_null() {
            nulls = Nulls::Some;
        }
        encode_column(value.as_ref(), def.columns[usize::from(column)].data_type, out);
    }
    nulls
}

/// Appends the row id that makes keys of equal columns distinct.
pub(crate) fn encode_row_id(row: RowId, out: &mut KeyBytes) {
    encode_unsigned(row.0, out);
}

/// The bytes between which all keys lie that meet the bounds. A bound names leading columns:
/// `Included((1))` as upper bound lets every key begin with 1, `Excluded((1))` none.
pub(crate) fn encode_bounds(
    lower: Bound<&[Value]>,
    upper: Bound<&[Value]>,
    def: &TableDef,
    columns: &[u16],
) -> (Vec<u8>, Vec<u8>) {
    let mut from = KeyBytes::new();
    match lower {
        Bound::Unbounded => {}
        Bound::Included(values) => {
            encode_values(values, def, columns, &mut from);
        }
        Bound::Excluded(values) => {
            encode_values(values, def, columns, &mut from);
            from.extend_from_slice(&ABOVE);
        }
    }
    let mut to = KeyBytes::new();
    match upper {
        Bound::Unbounded => to.extend_from_slice(&ABOVE),
        Bound::Included(values) => {
            encode_values(values, def, columns, &mut to);
            to.extend_from_slice(&ABOVE);
        }
        Bound::Excluded(values) => {
            encode_values(values, def, columns, &mut to);
        }
    }
    (from.to_vec(), to.to_vec())
}

fn encode_column(value: ValueRef<'_>, data_type: DataType, out: &mut KeyBytes) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Int(i) | ValueRef::Timestamp(i) | ValueRef::Timestamptz(i) => encode_int(i, out),
        ValueRef::Date(days) => encode_int(i64::from(days), out),
        ValueRef::Bool(b) => out.extend_from_slice(&[VALUE, u8::from(b)]),
        ValueRef::Float(x) => encode_float(x, out),
        ValueRef::Numeric(d) => encode_decimal(d, out),
        ValueRef::Text(t) if matches!(data_type, DataType::Char(_)) => {
            encode_bytes(t.trim_end_matches(' ').as_bytes(), out);
        }
        ValueRef::Text(t) => encode_bytes(t.as_bytes(), out),
        ValueRef::Bytes(b) => encode_bytes(b, out),
        ValueRef::Uuid(u) => {
            out.push(VALUE);
            out.extend_from_slice(&u.to_be_bytes());
        }
    }
}

/// A number of no more bytes than it needs, after a marker that says how many those are.
fn encode_int(i: i64, out: &mut KeyBytes) {
    if i >= 0 {
        return encode_unsigned(i as u64, out);
    }
    // What it lacks to −1, so that the further down, the more bytes; inverted, as the order is.
    let below = !i as u64;
    let length = bytes_of(below);
    let mut bytes = [0; 9];
    bytes[0] = ZERO - 1 - length;
    bytes[1..].copy_from_slice(&(i as u64).wrapping_shl(64 - 8 * u32::from(length)).to_be_bytes());
    out.extend_from_first(&bytes, 1 + usize::from(length));
}

fn encode_unsigned(number: u64, out: &mut KeyBytes) {
    let length = bytes_of(number);
    let mut bytes = [0; 9];
    bytes[0] = ZERO + length;
    bytes[1..].copy_from_slice(&number.wrapping_shl(64 - 8 * u32::from(length)).to_be_bytes());
    out.extend_from_first(&bytes, 1 + usize::from(length));
}

/// How many bytes a number needs: none for 0.
fn bytes_of(number: u64) -> u8 {
    (8 - number.leading_zeros() / 8) as u8
}

/// Escapes 0 as 0 255 and ends with 0 0, so that a shorter text sorts before its continuations.
fn encode_bytes(bytes: &[u8], out: &mut KeyBytes) {
    out.push(VALUE);
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn encode_float(x: f64, out: &mut KeyBytes) {
    let x = if x.is_nan() {
        f64::NAN.abs()
    } else if x == 0.0 {
        0.0
    } else {
        x
    };
    let bits = x.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.push(VALUE);
    out.extend_from_slice(&ordered.to_be_bytes());
}

/// Sign, then for |d| = 0.d₁d₂… × 10^e the exponent and the digits, each plus one, ended by 0; all
/// bytes inverted for negative numbers. Trailing zeros are gone, so 1.0 and 1.00 are equal.
fn encode_decimal(d: Decimal, out: &mut KeyBytes) {
    let d = d.normalize();
    if d.is_zero() {
        out.extend_from_slice(&[VALUE, 1]);
        return;
    }
    let negative = d.is_sign_negative();
    let mask = if negative { 0xff } else { 0 };
    out.extend_from_slice(&[VALUE, if negative { 0 } else { 2 }]);
    let digits = d.mantissa().unsigned_abs().to_string();
    let exponent = digits.len() as i32 - d.scale() as i32;
    out.push((exponent + 64) as u8 ^ mask);
    let significant = digits.trim_end_matches('0');
    significant.bytes().for_each(|digit| out.push((digit - b'0' + 1) ^ mask));
    out.push(mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ColumnDef;
    use proptest::prelude::*;

    fn key(data_type: DataType, value: &Value) -> Vec<u8> {
        let def = TableDef::new("t", vec![ColumnDef::new("c", data_type)]);
        let mut out = KeyBytes::new();
        encode_values(std::slice::from_ref(value), &def, &[0], &mut out);
        out.to_vec()
    }

    fn ordered(data_type: DataType, ascending: &[Value]) {
        for pair in ascending.windows(2) {
            assert!(
                key(data_type, &pair[0]) < key(data_type, &pair[1]),
                "{:?} is not below {:?}",
                pair[0],
                pair[1]
            );
        }
    }

    #[test]
    fn keys_sort_as_their_values() {
        let ints = [i64::MIN, -1, 0, 1, i64::MAX].map(Value::Int);
        ordered(DataType::Int8, &[&ints[..], &[Value::Null]].concat());
        let floats = [f64::NEG_INFINITY, -1.5, -0.1, 0.0, 2.0, f64::INFINITY, f64::NAN];
        ordered(DataType::Float8, &floats.map(Value::Float));
        let texts = ["", "a", "a\0", "a\0b", "aa", "b"];
        ordered(DataType::Text, &texts.map(Value::text));
        ordered(DataType::Date, &[-3, 0, 5].map(Value::Date));
    }

    #[test]
    fn equal_values_have_equal_keys() {
        let decimal = |mantissa, scale| Value::Numeric(Decimal::new(mantissa, scale));
        assert_eq!(
            key(DataType::Numeric, &decimal(10, 1)),
            key(DataType::Numeric, &decimal(100, 2))
        );
        assert_eq!(
            key(DataType::Float8, &Value::Float(-0.0)),
            key(DataType::Float8, &Value::Float(0.0))
        );
        assert_eq!(
            key(DataType::Char(5), &Value::text("ab   ")),
            key(DataType::Char(5), &Value::text("ab"))
        );
    }

    #[test]
    fn a_small_integer_has_a_short_key() {
        let of = |i| key(DataType::Int8, &Value::Int(i));
        let bytes: [&[u8]; 6] =
            [&[0x80], &[0x81, 1], &[0x83, 1, 0, 0], &[0x7f], &[0x7e, 0], &[0x7e, 0xfe]];
        assert_eq!([0, 1, 65_536, -1, -256, -2].map(of), bytes.map(<[u8]>::to_vec));
    }

    #[test]
    fn entries_are_short_where_keys_mostly_are() {
        use DataType::{Date, Float8, Int2, Int4, Int8, Text, Timestamp, Uuid};
        let width = |types: &[DataType]| {
            let columns = types.iter().map(|t| ColumnDef::new("c", *t)).collect();
            let positions: Vec<u16> = (0..types.len() as u16).collect();
            KeyRoom::of(&TableDef::new("t", columns), &positions).width
        };
        let short: [&[DataType]; 6] =
            [&[Int4], &[Int8], &[Int4, Int8], &[Float8], &[Timestamp], &[Date, Int2, Int2]];
        assert!(short.iter().all(|types| width(types) == Width::Short));
        let wide: [&[DataType]; 5] =
            [&[Int4, Timestamp], &[Float8, Float8], &[Int4, Int4, Int4], &[Text], &[Uuid]];
        assert!(wide.iter().all(|types| width(types) == Width::Wide));
    }

    #[test]
    fn a_key_is_built_alike_on_the_stack_and_beside_it() {
        for length in 0..100 {
            let mut built = KeyBytes::new();
            (0..length).for_each(|byte| built.push(byte));
            assert!(built.iter().copied().eq(0..length));
        }
    }

    fn any_value() -> impl Strategy<Value = (DataType, Value)> {
        prop_oneof![
            any::<bool>().prop_map(|b| (DataType::Bool, Value::Bool(b))),
            any::<i64>().prop_map(|i| (DataType::Int8, Value::Int(i))),
            any::<f64>().prop_map(|x| (DataType::Float8, Value::Float(x))),
            any::<u128>().prop_map(|u| (DataType::Uuid, Value::Uuid(u))),
            (any::<i128>(), 0u32..=28).prop_map(|(i, scale)| {
                let d = Decimal::from_i128_with_scale(i >> 32, scale);
                (DataType::Numeric, Value::Numeric(d))
            }),
            "[a\\x00]{0,40}".prop_map(|t| (DataType::Text, Value::text(t))),
            any::<i32>().prop_map(|_| (DataType::Text, Value::Null)),
        ]
    }

    proptest! {
        #[test]
        fn no_key_takes_more_than_its_room(columns in proptest::collection::vec(any_value(), 1..5)) {
            let (types, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
            let defs = types.into_iter().map(|t| ColumnDef::new("c", t)).collect();
            let def = TableDef::new("t", defs);
            let row = Row::encode(&values);
            let columns: Vec<u16> = (0..values.len() as u16).collect();
            let mut key = KeyBytes::new();
            encode_row(&row, &def, &columns, &mut key);
            encode_row_id(RowId(u64::MAX), &mut key);
            let room = KeyRoom::of(&def, &columns);
            let more = room.width.charge(key.len()).saturating_sub(room.entry_bytes(row.as_bytes().len()));
            prop_assert!(more == 0 || room.width == Width::Short && more == 48);
        }

        #[test]
        fn integer_keys_sort_as_numbers(a in any::<i64>(), s in 0u32..64, b in any::<i64>(), t in 0u32..64) {
            let (a, b) = (a >> s, b >> t);
            let keys = (key(DataType::Int8, &Value::Int(a)), key(DataType::Int8, &Value::Int(b)));
            prop_assert_eq!(a.cmp(&b), keys.0.cmp(&keys.1));
            prop_assert!(a == b || !keys.0.starts_with(&keys.1));
        }

        #[test]
        fn numeric_keys_sort_as_numbers(a in any::<i64>(), s in 0u32..28, b in any::<i64>(), t in 0u32..28) {
            let (a, b) = (Decimal::new(a, s), Decimal::new(b, t));
            let keys = (key(DataType::Numeric, &Value::Numeric(a)), key(DataType::Numeric, &Value::Numeric(b)));
            prop_assert_eq!(a.cmp(&b), keys.0.cmp(&keys.1));
        }

        #[test]
        fn no_key_is_a_prefix_of_another(a in ".{0,6}", b in ".{0,6}") {
            let (x, y) = (key(DataType::Text, &Value::text(a.as_str())), key(DataType::Text, &Value::text(b.as_str())));
            prop_assert!(a == b || !x.starts_with(&y));
        }
    }
}
