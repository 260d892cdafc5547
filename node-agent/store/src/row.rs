//! The bytes of a row. The same bytes lie in memory, in the log and in a checkpoint.
//!
//! ```text
//! | u16 n, top bit = wide | null bitmap, n bits | end offset of each column, u16 (wide: u32) | values |
//! ```
//! A column's bytes are those between the end of its predecessor and its own end, so a reader finds
//! any column in constant time and decodes only what it needs. Integers, dates and timestamps take
//! the fewest bytes that hold them (0 for zero, up to 8), little endian, sign-extended.
//!
//! Invariants: a [`Row`] in hand is well formed ([`Row::from_bytes`] checks foreign bytes once), so
//! reading a column never panics. A row may have fewer columns than its table: columns added later
//! read as their fill value (see `ColumnDef::fill`). The bytes carry no types: those are the table's.

use crate::{
    table::TableDef,
    value::{DataType, Value, ValueRef},
};
use rust_decimal::Decimal;
use std::{fmt, iter::repeat_n, ops::Range, sync::Arc};

/// Set in the column count when end offsets take four bytes.
const WIDE: u16 = 0x8000;

/// Most columns of one table.
pub const COLUMNS_MAX: usize = 1600;

/// Most bytes of one value of a variable-length column (text, bytea): 4 MiB, as the original has it.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// Most changes that are put in one by one; each may copy the row.
const SPLICED_MAX: usize = 4;

/// Most bytes of a number.
const NUMBER_BYTES: usize = 16;

/// Identity of a row within its table: given once, never used again, carried in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// Highest row id that is believed where one is read. Ids begin with one and are given in turn, so that no
/// table comes near it; above it there is room to count on.
pub(crate) const ROW_ID_MAX: u64 = (1 << 62) - 1;

/// Longest row that lies in its handle, and so in its version: as many bytes as make a row's cell 96 bytes,
/// which allocators give out.
const INLINE: usize = 30;

/// One row's encoded columns. Cloning copies a short row, and shares the bytes of a long one.
#[derive(Clone)]
pub struct Row(Encoded);

/// Where a row's bytes are.
#[derive(Clone)]
enum Encoded {
    /// In the handle: so many of them.
    Inline(u8, [u8; INLINE]),
    Shared(Arc<[u8]>),
}

/// Why bytes are not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The header or the offset table is longer than the bytes.
    #[error("row is cut short: {length} bytes cannot hold the header of {columns} columns")]
    Short {
        /// Bytes at hand.
        length: usize,
        /// Columns that the header claims.
        columns: usize,
    },
    /// An end offset lies before its predecessor's or behind the end of the row.
    #[error("row is damaged: column {column} ends outside the row")]
    Offset {
        /// The column, from zero.
        column: usize,
    },
}

/// Where the parts of a row lie.
#[derive(Debug, Default)]
struct Shape {
    columns: usize,
    wide: bool,
    bitmap: usize,
    offsets: usize,
    body: usize,
}

impl Shape {
    #[inline(always)]
    fn new(columns: usize, wide: bool) -> Shape {
        let bitmap = 2;
        let offsets = bitmap + columns.div_ceil(8);
        let body = offsets + columns * if wide { 4 } else { 2 };
        Shape { columns, wide, bitmap, offsets, body }
    }

    #[inline(always)]
    fn of(bytes: &[u8]) -> Shape {
        let head = u16::from_le_bytes([bytes[0], bytes[1]]);
        Shape::new(usize::from(head & !WIDE), head & WIDE != 0)
    }

    #[inline(always)]
    fn end(&self, bytes: &[u8], column: usize) -> usize {
        if self.wide {
            let at = self.offsets + column * 4;
            let raw = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            self.body + u32::from_le_bytes(raw) as usize
        } else {
            let at = self.offsets + column * 2;
            self.body + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
        }
    }

    #[inline(always)]
    fn value<'a>(&self, bytes: &'a [u8], column: usize) -> &'a [u8] {
        &bytes[self.value_at(bytes, column)]
    }

    #[inline(always)]
    fn value_at(&self, bytes: &[u8], column: usize) -> Range<usize> {
        let start = if column == 0 { self.body } else { self.end(bytes, column - 1) };
        start..self.end(bytes, column)
    }

    #[inline(always)]
    fn is_null(&self, bytes: &[u8], column: usize) -> bool {
        bytes[self.bitmap + column / 8] & (1 << (column % 8)) != 0
    }
}

impl Row {
    /// Encodes values in column order. Kinds are the caller's duty (see [`ValueRef`]).
    #[must_use]
    pub fn encode(values: &[Value]) -> Row {
        let mut builder = RowBuilder::new(values.len());
        for value in values {
            builder.push(value.as_ref());
        }
        builder.finish()
    }

    /// Takes foreign bytes after checking that every column lies within them.
    ///
    /// # Errors
    /// When the bytes are not a row.
    pub fn from_bytes(bytes: &[u8]) -> Result<Row, RowError> {
        let short = |columns| RowError::Short { length: bytes.len(), columns };
        if bytes.len() < 2 {
            return Err(short(0));
        }
        let shape = Shape::of(bytes);
        if bytes.len() < shape.body {
            return Err(short(shape.columns));
        }
        let mut previous = shape.body;
        for column in 0..shape.columns {
            let end = shape.end(bytes, column);
            if end < previous || end > bytes.len() {
                return Err(RowError::Offset { column });
            }
            previous = end;
        }
        Ok(Row::new(bytes))
    }

    /// A row of bytes that are known to be one.
    fn new(bytes: &[u8]) -> Row {
        if bytes.len() > INLINE {
            return Row(Encoded::Shared(Arc::from(bytes)));
        }
        let mut inline = [0; INLINE];
        inline[..bytes.len()].copy_from_slice(bytes);
        Row(Encoded::Inline(bytes.len() as u8, inline))
    }

    /// So many bytes, which are still to be written.
    fn zeroed(length: usize) -> Row {
        Row(if length <= INLINE {
            Encoded::Inline(length as u8, [0; INLINE])
        } else {
            Encoded::Shared(repeat_n(0, length).collect())
        })
    }

    /// The bytes, to be written; of its own, should they be shared.
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Encoded::Inline(length, bytes) => &mut bytes[..usize::from(*length)],
            Encoded::Shared(bytes) => Arc::make_mut(bytes),
        }
    }

    /// The encoded bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Encoded::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Encoded::Shared(bytes) => bytes,
        }
    }

    /// Bytes of memory that it has beside the handle, as the allocator gives them out.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> u64 {
        match &self.0 {
            Encoded::Inline(..) => 0,
            Encoded::Shared(bytes) => Row::heap_bytes_of(bytes.len()),
        }
    }

    /// The same for a row of so many bytes.
    #[inline]
    pub(crate) fn heap_bytes_of(length: usize) -> u64 {
        if length <= INLINE { 0 } else { size_class(length as u64 + 16) }
    }

    /// How many columns are stored; a table may have more by now.
    #[inline]
    #[must_use]
    pub fn stored_columns(&self) -> usize {
        Shape::of(self.as_bytes()).columns
    }

    /// The bytes of a stored column, or None when it is null or not stored.
    #[inline]
    #[must_use]
    pub fn raw(&self, column: usize) -> Option<&[u8]> {
        let bytes = self.as_bytes();
        let shape = Shape::of(bytes);
        if column >= shape.columns || shape.is_null(bytes, column) {
            return None;
        }
        Some(shape.value(bytes, column))
    }

    /// The first column that is null though the table, whose columns are all stored, refuses that.
    #[must_use]
    pub fn refused_null(&self, table: &TableDef) -> Option<usize> {
        let bytes = self.as_bytes();
        let shape = Shape::of(bytes);
        for (byte, nulls) in bytes[shape.bitmap..shape.offsets].iter().enumerate() {
            let mut nulls = *nulls;
            while nulls != 0 {
                let at = byte * 8 + nulls.trailing_zeros() as usize;
                if table.columns.get(at).is_some_and(|column| column.not_null) {
                    return Some(at);
                }
                nulls &= nulls - 1;
            }
        }
        None
    }

    /// Whether both rows store a column, with the same bytes or as null.
    pub(crate) fn agrees(&self, other: &Row, column: usize) -> bool {
        let (a, b) = (self.as_bytes(), other.as_bytes());
        let (one, two) = (Shape::of(a), Shape::of(b));
        column < one.columns
            && column < two.columns
            && one.is_null(a, column) == two.is_null(b, column)
            && one.value(a, column) == two.value(b, column)
    }

    /// One column of the table, owned.
    #[must_use]
    pub fn column(&self, table: &TableDef, column: usize) -> Value {
        self.column_ref(table, column).to_value()
    }

    /// One column of the table, borrowed from the row.
    #[inline]
    #[must_use]
    pub fn column_ref<'a>(&'a self, table: &'a TableDef, column: usize) -> ValueRef<'a> {
        let def = &table.columns[column];
        let bytes = self.as_bytes();
        let shape = Shape::of(bytes);
        if column >= shape.columns {
            let fill = def.fill.as_deref();
            return fill.map_or(ValueRef::Null, |raw| decode(def.data_type, raw));
        }
        if shape.is_null(bytes, column) {
            return ValueRef::Null;
        }
        decode(def.data_type, shape.value(bytes, column))
    }

    /// An integer column without looking at its type; None when null or not stored.
    #[must_use]
    pub fn int(&self, column: usize) -> Option<i64> {
        self.raw(column).map(decode_int)
    }

    /// Every column of the table, owned.
    #[must_use]
    pub fn values(&self, table: &TableDef) -> Vec<Value> {
        (0..table.columns.len()).map(|i| self.column(table, i)).collect()
    }

    /// The same row with some columns replaced; the others are copied as they lie. Of two changes of one
    /// column the later counts.
    ///
    /// # Panics
    /// When a change names a column that the table does not have.
    #[must_use]
    pub fn replace(&self, table: &TableDef, changes: &[(usize, Value)]) -> Row {
        let known = |(column, _): &(usize, Value)| *column < table.columns.len();
        assert!(changes.iter().all(known), "a change names a column that the table does not have");
        let shape = Shape::of(self.as_bytes());
        let is_plain = shape.columns == table.columns.len() && !shape.wide;
        if is_plain && changes.len() <= SPLICED_MAX {
            let mut row = self.clone();
            let mut put =
                |(column, value): &(usize, Value)| row.put(&shape, *column, value.as_ref());
            if changes.iter().all(&mut put) {
                return row;
            }
        }
        self.laid_anew(table, changes)
    }

    /// Puts a value in the place of a column's; false when the row is too long then for its layout, which is
    /// narrow and as this shape says.
    fn put(&mut self, shape: &Shape, column: usize, value: ValueRef<'_>) -> bool {
        let mut room = [0; NUMBER_BYTES];
        let new = encoded(value, &mut room);
        let bytes = self.as_bytes();
        let at = shape.value_at(bytes, column);
        let length = bytes.len() - at.len() + new.len();
        if length - shape.body > usize::from(u16::MAX) {
            return false;
        }
        let (start, moved) = (at.start, new.len().wrapping_sub(at.len()) as u16);
        let bytes = self.splice(at, new.len());
        bytes[start..start + new.len()].copy_from_slice(new);
        let (byte, bit) = (shape.bitmap + column / 8, 1 << (column % 8));
        bytes[byte] = if value.is_null() { bytes[byte] | bit } else { bytes[byte] & !bit };
        if moved != 0 {
            for end in bytes[shape.offsets + column * 2..shape.body].chunks_exact_mut(2) {
                let moved = u16::from_le_bytes([end[0], end[1]]).wrapping_add(moved);
                end.copy_from_slice(&moved.to_le_bytes());
            }
        }
        true
    }

    /// All bytes, after those within a range gave way to so many others, which are still to be written.
    fn splice(&mut self, at: Range<usize>, new: usize) -> &mut [u8] {
        let old = self.as_bytes();
        let length = old.len() - at.len() + new;
        let stays = match &self.0 {
            Encoded::Inline(..) => length <= INLINE,
            Encoded::Shared(_) => new == at.len(),
        };
        if !stays {
            let mut row = Row::zeroed(length);
            let bytes = row.bytes_mut();
            bytes[..at.start].copy_from_slice(&old[..at.start]);
            bytes[at.start + new..].copy_from_slice(&old[at.end..]);
            *self = row;
        } else if let Encoded::Inline(inline, bytes) = &mut self.0 {
            bytes.copy_within(at.end..usize::from(*inline), at.start + new);
            *inline = length as u8;
        }
        self.bytes_mut()
    }

    /// The same as `replace`, column by column.
    fn laid_anew(&self, table: &TableDef, changes: &[(usize, Value)]) -> Row {
        let bytes = self.as_bytes();
        let mut builder = RowBuilder::default();
        // As long as the old one, and each changed column as long as a number.
        builder.bytes.reserve(bytes.len() + 8 * (changes.len() + 1));
        builder.begin(table.columns.len());
        let shape = Shape::of(bytes);
        let mut start = shape.body;
        for column in 0..table.columns.len() {
            let is_stored = column < shape.columns;
            let end = if is_stored { shape.end(bytes, column) } else { start };
            if let Some((_, value)) = changes.iter().rev().find(|(at, _)| *at == column) {
                builder.push(value.as_ref());
            } else if is_stored {
                let null = shape.is_null(bytes, column);
                builder.push_raw((!null).then(|| &bytes[start..end]));
            } else {
                builder.push_raw(table.columns[column].fill.as_deref());
            }
            start = end;
        }
        builder.finish()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Row {}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = (0..self.stored_columns()).map(|i| self.raw(i));
        f.debug_list().entries(columns).finish()
    }
}

/// Lays a row out column by column, in one buffer that can be used again.
#[derive(Debug, Default)]
pub struct RowBuilder {
    /// Of the row if it is narrow; a wide one is laid out anew at the end.
    shape: Shape,
    /// Columns pushed so far.
    pushed: usize,
    /// The row as it will be if it is narrow.
    bytes: Vec<u8>,
    /// End of each column, from the beginning of the values; empty while two bytes hold them all.
    ends: Vec<u32>,
}

impl RowBuilder {
    /// For a row of so many columns.
    #[must_use]
    pub fn new(columns: usize) -> RowBuilder {
        let mut builder = RowBuilder::default();
        builder.begin(columns);
        builder
    }

    /// Begins another row in the same buffer.
    pub fn begin(&mut self, columns: usize) {
        assert!(columns <= COLUMNS_MAX, "a table has at most {COLUMNS_MAX} columns");
        self.shape = Shape::new(columns, false);
        self.pushed = 0;
        self.ends.clear();
        self.bytes.clear();
        if self.bytes.capacity() == 0 {
            // Room for a number in each column, so that most rows are one allocation.
            self.bytes = Vec::with_capacity(self.shape.body + columns * 8);
        }
        self.bytes.resize(self.shape.body, 0);
        self.bytes[..2].copy_from_slice(&(columns as u16).to_le_bytes());
    }

    /// Adds the next column.
    pub fn push(&mut self, value: ValueRef<'_>) {
        let mut room = [0; NUMBER_BYTES];
        self.put(encoded(value, &mut room), value.is_null());
    }

    /// Adds the next column from the bytes of another row's; None is null.
    pub fn push_raw(&mut self, raw: Option<&[u8]>) {
        self.put(raw.unwrap_or_default(), raw.is_none());
    }

    #[inline]
    fn put(&mut self, raw: &[u8], null: bool) {
        let (shape, column) = (&self.shape, self.pushed);
        assert!(column < shape.columns, "as many columns are pushed as were announced");
        self.bytes.extend_from_slice(raw);
        if null {
            self.bytes[shape.bitmap + column / 8] |= 1 << (column % 8);
        }
        let end = self.bytes.len() - shape.body;
        if let Ok(end) = u16::try_from(end) {
            let at = shape.offsets + column * 2;
            self.bytes[at..at + 2].copy_from_slice(&end.to_le_bytes());
        } else {
            if self.ends.is_empty() {
                let narrow = 0..column;
                let ends = narrow.map(|c| (shape.end(&self.bytes, c) - shape.body) as u32);
                self.ends.extend(ends);
            }
            self.ends.push(end as u32);
        }
        self.pushed += 1;
    }

    /// The row; the builder is ready for `begin`.
    #[must_use]
    pub fn finish(&mut self) -> Row {
        let shape = &self.shape;
        assert_eq!(self.pushed, shape.columns, "as many columns are pushed as were announced");
        if self.ends.is_empty() {
            return Row::new(&self.bytes);
        }
        let mut wide = Vec::with_capacity(self.bytes.len() + shape.columns * 2);
        wide.extend_from_slice(&(shape.columns as u16 | WIDE).to_le_bytes());
        wide.extend_from_slice(&self.bytes[shape.bitmap..shape.offsets]);
        self.ends.iter().for_each(|end| wide.extend_from_slice(&end.to_le_bytes()));
        wide.extend_from_slice(&self.bytes[shape.body..]);
        Row::new(&wide)
    }
}

/// Bytes that an allocator gives out for so many: mimalloc's classes on 64 bits, which are 8, multiples
/// of 16 up to 128, and four to each doubling from there on.
pub(crate) const fn size_class(bytes: u64) -> u64 {
    match bytes {
        0..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// Appends the bytes of one value, without any length.
pub(crate) fn encode(value: ValueRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(encoded(value, &mut [0; NUMBER_BYTES]));
}

/// The bytes of one value, without any length: its own, or put into the room for a number.
#[inline]
fn encoded<'a>(value: ValueRef<'a>, room: &'a mut [u8; NUMBER_BYTES]) -> &'a [u8] {
    let mut put = |number: &[u8], length: usize| {
        room[..number.len()].copy_from_slice(number);
        length
    };
    let length = match value {
        ValueRef::Text(t) => return t.as_bytes(),
        ValueRef::Bytes(b) => return b,
        ValueRef::Null => 0,
        ValueRef::Bool(b) => put(&[u8::from(b)], 1),
        ValueRef::Int(i) | ValueRef::Timestamp(i) | ValueRef::Timestamptz(i) => {
            put(&i.to_le_bytes(), int_length(i))
        }
        ValueRef::Date(days) => put(&days.to_le_bytes(), int_length(i64::from(days))),
        ValueRef::Float(x) => put(&x.to_le_bytes(), 8),
        ValueRef::Numeric(d) => put(&d.serialize(), 16),
        ValueRef::Uuid(u) => put(&u.to_be_bytes(), 16),
    };
    &room[..length]
}

/// Reads one value of a type from its bytes. Bytes that do not fit the type read as null: they can
/// only come from a row that was written for another type, which `apply` and the writers refuse.
pub(crate) fn decode(data_type: DataType, raw: &[u8]) -> ValueRef<'_> {
    match data_type {
        DataType::Bool => ValueRef::Bool(raw.first().is_some_and(|b| *b != 0)),
        DataType::Int2 | DataType::Int4 | DataType::Int8 => ValueRef::Int(decode_int(raw)),
        DataType::Float4 | DataType::Float8 => {
            raw.try_into().map_or(ValueRef::Null, |b| ValueRef::Float(f64::from_le_bytes(b)))
        }
        DataType::Numeric | DataType::NumericOf { .. } => {
            raw.try_into().map_or(ValueRef::Null, |b| ValueRef::Numeric(Decimal::deserialize(b)))
        }
        DataType::Text | DataType::Varchar(_) | DataType::Char(_) => {
            std::str::from_utf8(raw).map_or(ValueRef::Null, ValueRef::Text)
        }
        DataType::Bytea => ValueRef::Bytes(raw),
        DataType::Date => ValueRef::Date(decode_int(raw) as i32),
        DataType::Timestamp => ValueRef::Timestamp(decode_int(raw)),
        DataType::Timestamptz => ValueRef::Timestamptz(decode_int(raw)),
        DataType::Uuid => {
            raw.try_into().map_or(ValueRef::Null, |b| ValueRef::Uuid(u128::from_be_bytes(b)))
        }
    }
}

/// Bytes that an integer takes.
fn int_length(value: i64) -> usize {
    if value == 0 {
        0
    } else if i8::try_from(value).is_ok() {
        1
    } else if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

fn decode_int(raw: &[u8]) -> i64 {
    match *raw {
        [] => 0,
        [a] => i64::from(a as i8),
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        _ => {
            let mut bytes = [0; 8];
            let length = raw.len().min(8);
            bytes[..length].copy_from_slice(&raw[..length]);
            i64::from_le_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ColumnDef;
    use proptest::prelude::*;

    fn table(types: &[DataType]) -> TableDef {
        let columns = types.iter().enumerate();
        TableDef::new("t", columns.map(|(i, t)| ColumnDef::new(format!("c{i}"), *t)).collect())
    }

    /// A value for an integer, a text and a UUID column.
    fn column() -> impl Strategy<Value = [Value; 3]> {
        let integer = prop_oneof![Just(0), -300i64..300, any::<i64>()].prop_map(Value::Int);
        let text = "[a-z]{0,30}".prop_map(Value::text);
        let one = (integer, text, any::<u128>().prop_map(Value::Uuid));
        (one, proptest::option::weighted(0.8, Just(()))).prop_map(|((a, b, c), there)| {
            there.map_or([Value::Null, Value::Null, Value::Null], |()| [a, b, c])
        })
    }

    #[test]
    fn a_row_gives_back_what_was_put_in() {
        let def = table(&[
            DataType::Int4,
            DataType::Text,
            DataType::Bool,
            DataType::Numeric,
            DataType::Uuid,
            DataType::Float8,
            DataType::Date,
            DataType::Timestamptz,
            DataType::Bytea,
            DataType::Int8,
        ]);
        let values = vec![
            Value::Int(-5),
            Value::text("héllo"),
            Value::Bool(true),
            Value::Numeric(Decimal::new(12345, 3)),
            Value::Uuid(7),
            Value::Float(1.5),
            Value::Date(-9000),
            Value::Timestamptz(1 << 50),
            Value::Bytes(vec![0, 255].into()),
            Value::Null,
        ];
        let row = Row::encode(&values);
        assert_eq!(row.values(&def), values);
        assert_eq!(Row::from_bytes(row.as_bytes()).unwrap(), row);
        let changed = row.replace(&def, &[(0, Value::Int(9)), (9, Value::Int(1))]);
        assert_eq!(changed.column(&def, 0), Value::Int(9));
        assert_eq!(changed.column(&def, 1), values[1]);
        assert_eq!(changed.int(9), Some(1));
    }

    #[test]
    #[should_panic(expected = "a change names a column that the table does not have")]
    fn a_change_of_a_column_that_is_not_there_is_a_mistake() {
        let def = table(&[DataType::Int4, DataType::Int4]);
        let _ = Row::encode(&[Value::Int(1), Value::Int(2)]).replace(&def, &[(2, Value::Int(3))]);
    }

    #[test]
    fn a_row_that_grows_beyond_its_layout_is_laid_anew() {
        let def = table(&[DataType::Int4, DataType::Text, DataType::Int4]);
        for length in [65_530, 65_534, 65_535, 65_536, 70_000] {
            let mut values = [Value::Int(0), Value::text("x".repeat(length)), Value::Int(0)];
            let row = Row::encode(&values);
            values[0] = Value::Int(7);
            let one = row.replace(&def, &[(0, Value::Int(7))]);
            assert_eq!(one, Row::encode(&values));
            values[2] = Value::Int(1 << 20);
            assert_eq!(one.replace(&def, &[(2, Value::Int(1 << 20))]), Row::encode(&values));
            values[1] = Value::text("y");
            assert_eq!(
                one.replace(&def, &[(1, Value::text("y")), (2, Value::Int(1 << 20))]),
                Row::encode(&values)
            );
        }
    }

    #[test]
    fn a_row_is_one_whether_it_lies_in_its_handle_or_beside_it() {
        let def = table(&[DataType::Text, DataType::Int4]);
        // Seven bytes stand before the text, one behind it.
        for length in 20..26 {
            let values = vec![Value::text("x".repeat(length)), Value::Int(3)];
            let row = Row::encode(&values);
            assert_eq!(row.as_bytes().len(), length + 8);
            assert_eq!(row.values(&def), values);
            assert_eq!(Row::from_bytes(row.as_bytes()).unwrap(), row);
            assert_eq!(row.heap_bytes() == 0, length <= 22);
        }
    }

    #[test]
    fn short_rows_make_a_cell_that_allocators_give_out() {
        assert_eq!(size_of::<Option<Row>>(), 32);
        // And the two counters before it.
        assert_eq!(size_of::<crate::version::RowCell>() + 16, 96);
        // As `mi_malloc_usable_size` tells of mimalloc 2 and 3.
        let small = [1, 8, 9, 17, 24, 33, 40, 49, 56, 64, 65, 97];
        assert_eq!(small.map(size_class), [8, 8, 16, 32, 32, 48, 48, 64, 64, 64, 80, 112]);
        let larger = [96, 113, 129, 161, 500, 545, 4096, 4097, 9000];
        assert_eq!(larger.map(size_class), [96, 128, 160, 192, 512, 640, 4096, 5120, 10240]);
    }

    #[test]
    fn a_row_longer_than_two_bytes_can_count_is_laid_out_wide() {
        let def = table(&[DataType::Text, DataType::Int4]);
        let values = vec![Value::text("x".repeat(70_000)), Value::Int(3)];
        assert_eq!(Row::encode(&values).values(&def), values);
    }

    #[test]
    fn a_builder_is_used_for_wide_and_narrow_rows_in_turn() {
        let def = table(&[DataType::Int4, DataType::Text, DataType::Text, DataType::Int4]);
        let mut builder = RowBuilder::new(4);
        for length in [10, 65_531, 65_536, 3, 100_000, 0] {
            let long = Value::text("y".repeat(length));
            let values = [Value::Int(300), long, Value::Null, Value::Int(-1)];
            builder.begin(4);
            values.iter().for_each(|v| builder.push(v.as_ref()));
            let row = builder.finish();
            assert_eq!(row.values(&def), values);
            assert_eq!(Row::from_bytes(row.as_bytes()).unwrap(), row);
        }
    }

    #[test]
    fn a_column_added_later_reads_as_its_fill() {
        let mut def = table(&[DataType::Int4]);
        let row = Row::encode(&[Value::Int(1)]);
        def.columns.push(ColumnDef::new("late", DataType::Text).filled_with(&Value::text("new")));
        def.columns.push(ColumnDef::new("later", DataType::Text));
        assert_eq!(row.values(&def), [Value::Int(1), Value::text("new"), Value::Null]);
        assert_eq!(row.replace(&def, &[]).values(&def), row.values(&def));
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_or_readable(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(row) = Row::from_bytes(&bytes) {
                for column in 0..row.stored_columns().min(50) {
                    let _ = row.raw(column);
                }
            }
        }

        #[test]
        fn a_row_with_columns_replaced_is_as_one_of_its_values(
            mut values in proptest::collection::vec(column(), 3),
            changes in proptest::collection::vec((0usize..9, column()), 0..9),
        ) {
            let def = table(&[DataType::Int8, DataType::Text, DataType::Uuid].repeat(3));
            values = [&values[..], &values, &values].concat();
            let values: Vec<_> = values.iter().enumerate().map(|(i, v)| v[i % 3].clone()).collect();
            let changes: Vec<_> = changes.iter().map(|(i, v)| (*i, v[i % 3].clone())).collect();
            let row = Row::encode(&values);
            let mut changed = values.clone();
            for (column, value) in &changes {
                changed[*column] = value.clone();
            }
            prop_assert_eq!(row.replace(&def, &changes), Row::encode(&changed));
            prop_assert_eq!(row, Row::encode(&values));
        }

        #[test]
        fn integers_keep_their_value(i in any::<i64>()) {
            let row = Row::encode(&[Value::Int(i)]);
            prop_assert_eq!(row.int(0), Some(i));
        }
    }
}
