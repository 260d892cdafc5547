//! The types of expressions: the store's column types without their limits, and a few that only
//! expressions and the catalog views have.
//!
//! Values of `Oid` travel as `Value::Int`; `Name`, `CharByte`, `Interval` and `Unknown` as `Value::Text`.
//! Arrays are deliberately absent: ANY and ALL over lists are turned into comparisons by the binder.

use crate::error::{SqlError, state};
use sqlparser::ast;
use std::fmt;
use understudy_store::DataType;

/// Longest varchar(n) and char(n), PostgreSQL's limit.
const LENGTH_MAX: u64 = 10_485_760;

/// Digits that our numeric holds (PostgreSQL allows more).
pub(crate) const NUMERIC_PRECISION_MAX: u64 = 28;

/// The type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`
    Numeric,
    /// `text`
    Text,
    /// `character varying`
    Varchar,
    /// `character`, blank padded
    Bpchar,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    Timestamptz,
    /// `uuid`
    Uuid,
    /// `oid`
    Oid,
    /// `name`
    Name,
    /// `"char"`
    CharByte,
    /// `interval`
    Interval,
    /// A literal or parameter whose type its context decides.
    Unknown,
}

/// Groups of types that convert into each other without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Category {
    Bool,
    Number,
    Text,
    Moment,
    Other,
    Unknown,
}

impl Type {
    /// The type of a column.
    #[must_use]
    pub fn of(data_type: DataType) -> Type {
        match data_type {
            DataType::Bool => Type::Bool,
            DataType::Int2 => Type::Int2,
            DataType::Int4 => Type::Int4,
            DataType::Int8 => Type::Int8,
            DataType::Float4 => Type::Float4,
            DataType::Float8 => Type::Float8,
            DataType::Numeric | DataType::NumericOf { .. } => Type::Numeric,
            DataType::Text => Type::Text,
            DataType::Varchar(_) => Type::Varchar,
            DataType::Char(_) => Type::Bpchar,
            DataType::Bytea => Type::Bytea,
            DataType::Date => Type::Date,
            DataType::Timestamp => Type::Timestamp,
            DataType::Timestamptz => Type::Timestamptz,
            DataType::Uuid => Type::Uuid,
        }
    }

    /// The column type whose values look like this type's.
    #[must_use]
    pub fn storage(self) -> DataType {
        match self {
            Type::Bool => DataType::Bool,
            Type::Int2 => DataType::Int2,
            Type::Int4 => DataType::Int4,
            Type::Int8 | Type::Oid => DataType::Int8,
            Type::Float4 => DataType::Float4,
            Type::Float8 => DataType::Float8,
            Type::Numeric => DataType::Numeric,
            Type::Text | Type::Name | Type::CharByte | Type::Interval | Type::Unknown => {
                DataType::Text
            }
            Type::Varchar => DataType::Varchar(0),
            Type::Bpchar => DataType::Char(0),
            Type::Bytea => DataType::Bytea,
            Type::Date => DataType::Date,
            Type::Timestamp => DataType::Timestamp,
            Type::Timestamptz => DataType::Timestamptz,
            Type::Uuid => DataType::Uuid,
        }
    }

    /// PostgreSQL's number of the type, as RowDescription carries it.
    #[must_use]
    pub fn oid(self) -> u32 {
        match self {
            Type::Bool => 16,
            Type::Bytea => 17,
            Type::CharByte => 18,
            Type::Name => 19,
            Type::Int8 => 20,
            Type::Int2 => 21,
            Type::Int4 => 23,
            Type::Text | Type::Unknown => 25,
            Type::Oid => 26,
            Type::Float4 => 700,
            Type::Float8 => 701,
            Type::Bpchar => 1042,
            Type::Varchar => 1043,
            Type::Date => 1082,
            Type::Timestamp => 1114,
            Type::Timestamptz => 1184,
            Type::Interval => 1186,
            Type::Numeric => 1700,
            Type::Uuid => 2950,
        }
    }

    /// The type with PostgreSQL's number; None for types we do not have.
    #[must_use]
    pub fn from_oid(oid: u32) -> Option<Type> {
        ALL_TYPES.iter().copied().find(|ty| ty.oid() == oid)
    }

    /// PostgreSQL's name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "boolean",
            Type::Int2 => "smallint",
            Type::Int4 => "integer",
            Type::Int8 => "bigint",
            Type::Float4 => "real",
            Type::Float8 => "double precision",
            Type::Numeric => "numeric",
            Type::Text => "text",
            Type::Varchar => "character varying",
            Type::Bpchar => "character",
            Type::Bytea => "bytea",
            Type::Date => "date",
            Type::Timestamp => "timestamp without time zone",
            Type::Timestamptz => "timestamp with time zone",
            Type::Uuid => "uuid",
            Type::Oid => "oid",
            Type::Name => "name",
            Type::CharByte => "\"char\"",
            Type::Interval => "interval",
            Type::Unknown => "unknown",
        }
    }

    /// The name in `pg_type`.
    #[must_use]
    pub fn catalog_name(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int2 => "int2",
            Type::Int4 => "int4",
            Type::Int8 => "int8",
            Type::Float4 => "float4",
            Type::Float8 => "float8",
            Type::Numeric => "numeric",
            Type::Text | Type::Unknown => "text",
            Type::Varchar => "varchar",
            Type::Bpchar => "bpchar",
            Type::Bytea => "bytea",
            Type::Date => "date",
            Type::Timestamp => "timestamp",
            Type::Timestamptz => "timestamptz",
            Type::Uuid => "uuid",
            Type::Oid => "oid",
            Type::Name => "name",
            Type::CharByte => "char",
            Type::Interval => "interval",
        }
    }

    /// Bytes of the binary form; -1 when it varies.
    #[must_use]
    pub fn length(self) -> i16 {
        match self {
            Type::Bool | Type::CharByte => 1,
            Type::Int2 => 2,
            Type::Int4 | Type::Float4 | Type::Date | Type::Oid => 4,
            Type::Int8 | Type::Float8 | Type::Timestamp | Type::Timestamptz => 8,
            Type::Uuid | Type::Interval => 16,
            Type::Name => 64,
            Type::Numeric
            | Type::Text
            | Type::Varchar
            | Type::Bpchar
            | Type::Bytea
            | Type::Unknown => -1,
        }
    }

    pub(crate) fn category(self) -> Category {
        match self {
            Type::Bool => Category::Bool,
            Type::Int2
            | Type::Int4
            | Type::Int8
            | Type::Float4
            | Type::Float8
            | Type::Numeric
            | Type::Oid => Category::Number,
            Type::Text | Type::Varchar | Type::Bpchar | Type::Name | Type::CharByte => {
                Category::Text
            }
            Type::Date | Type::Timestamp | Type::Timestamptz => Category::Moment,
            Type::Bytea | Type::Uuid | Type::Interval => Category::Other,
            Type::Unknown => Category::Unknown,
        }
    }

    /// Place in the order of implicit widening within the category.
    fn width(self) -> u8 {
        match self {
            Type::Int2 | Type::Date | Type::CharByte => 0,
            Type::Int4 | Type::Timestamp | Type::Name => 1,
            Type::Oid | Type::Timestamptz | Type::Bpchar => 2,
            Type::Int8 | Type::Varchar => 3,
            Type::Numeric | Type::Text => 4,
            Type::Float4 => 5,
            Type::Float8 => 6,
            Type::Bool | Type::Bytea | Type::Uuid | Type::Interval | Type::Unknown => 0,
        }
    }

    /// Whether a value of this type becomes `to` without a cast being written.
    pub(crate) fn converts_implicitly(self, to: Type) -> bool {
        self == to
            || self == Type::Unknown
            || match (self.category(), to.category()) {
                (Category::Text, Category::Text) => true,
                (a, b) => a == b && a != Category::Other && self.width() <= to.width(),
            }
    }

    /// Whether a value of this type may be stored in a column of type `to`.
    pub(crate) fn converts_on_assignment(self, to: Type) -> bool {
        self.converts_implicitly(to)
            || match (self.category(), to.category()) {
                (_, Category::Text) => true,
                (a, b) => a == b && a != Category::Other,
            }
    }

    /// The narrower type both convert to without being asked.
    pub(crate) fn common(self, other: Type) -> Option<Type> {
        if self == other {
            return Some(self);
        }
        match (self.category(), other.category()) {
            (Category::Unknown, _) => Some(other),
            (_, Category::Unknown) => Some(self),
            (Category::Text, Category::Text) => match (self, other) {
                (Type::Varchar, Type::Bpchar) | (Type::Bpchar, Type::Varchar) => {
                    Some(Type::Varchar)
                }
                _ => Some(Type::Text),
            },
            (a, b) if a == b && a != Category::Other => {
                Some(if self.width() >= other.width() { self } else { other })
            }
            _ => None,
        }
    }

    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every type that has a row in `pg_type`.
pub(crate) const ALL_TYPES: [Type; 19] = [
    Type::Bool,
    Type::Bytea,
    Type::CharByte,
    Type::Name,
    Type::Int8,
    Type::Int2,
    Type::Int4,
    Type::Text,
    Type::Oid,
    Type::Float4,
    Type::Float8,
    Type::Bpchar,
    Type::Varchar,
    Type::Date,
    Type::Timestamp,
    Type::Timestamptz,
    Type::Interval,
    Type::Numeric,
    Type::Uuid,
];

/// `atttypmod`: lengths and precision as PostgreSQL packs them; -1 when there is none.
#[must_use]
pub fn type_modifier(data_type: DataType) -> i32 {
    match data_type {
        DataType::Varchar(length) | DataType::Char(length) if length > 0 => length as i32 + 4,
        DataType::NumericOf { precision, scale } => {
            (i32::from(precision) << 16 | i32::from(scale)) + 4
        }
        DataType::Varchar(_)
        | DataType::Char(_)
        | DataType::Bool
        | DataType::Int2
        | DataType::Int4
        | DataType::Int8
        | DataType::Float4
        | DataType::Float8
        | DataType::Numeric
        | DataType::Text
        | DataType::Bytea
        | DataType::Date
        | DataType::Timestamp
        | DataType::Timestamptz
        | DataType::Uuid => -1,
    }
}

/// `format_type(oid, modifier)`.
#[must_use]
pub fn type_text(ty: Type, modifier: i32) -> String {
    let packed = modifier - 4;
    match ty {
        Type::Varchar | Type::Bpchar if packed > 0 => format!("{ty}({packed})"),
        Type::Numeric if packed > 0 => format!("numeric({},{})", packed >> 16, packed & 0xffff),
        other => other.name().to_owned(),
    }
}

/// A type as written in CREATE TABLE or a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrittenType {
    /// One that a column can have.
    Column(DataType),
    /// One that only expressions have.
    Expression(Type),
}

impl WrittenType {
    /// The expression type.
    pub(crate) fn ty(self) -> Type {
        match self {
            WrittenType::Column(data_type) => Type::of(data_type),
            WrittenType::Expression(ty) => ty,
        }
    }
}

/// Reads a type name: PostgreSQL's, their aliases, and the original system's (NUMBER, VARCHAR2, TT_BIGINT).
pub(crate) fn written_type(written: &ast::DataType) -> Result<WrittenType, SqlError> {
    use ast::DataType as Ast;
    let column = match written {
        Ast::Bool | Ast::Boolean => DataType::Bool,
        Ast::SmallInt(None) | Ast::Int2(None) => DataType::Int2,
        Ast::Int(None) | Ast::Integer(None) | Ast::Int4(None) => DataType::Int4,
        Ast::BigInt(None) | Ast::Int8(None) => DataType::Int8,
        Ast::Real | Ast::Float4 => DataType::Float4,
        Ast::DoublePrecision | Ast::Float8 | Ast::Double(ast::ExactNumberInfo::None) => {
            DataType::Float8
        }
        Ast::Float(info) => float(info)?,
        Ast::Numeric(info) | Ast::Decimal(info) | Ast::Dec(info) => numeric(info)?,
        Ast::Text => DataType::Text,
        Ast::Varchar(length)
        | Ast::CharacterVarying(length)
        | Ast::CharVarying(length)
        | Ast::Nvarchar(length) => varchar(length)?,
        Ast::Char(length) | Ast::Character(length) => char_of(length)?,
        Ast::Bytea | Ast::Varbinary(_) | Ast::Binary(_) | Ast::Blob(_) => DataType::Bytea,
        Ast::Clob(_) => DataType::Text,
        Ast::Date => DataType::Date,
        Ast::Timestamp(_, zone) => match zone {
            ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone => DataType::Timestamp,
            ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz => DataType::Timestamptz,
        },
        Ast::Uuid => DataType::Uuid,
        Ast::Interval { .. } => return Ok(WrittenType::Expression(Type::Interval)),
        Ast::Regclass => return Ok(WrittenType::Expression(Type::Oid)),
        Ast::Custom(name, arguments) => return custom(name, arguments),
        // Lists travel as text; a column of them is refused all the same.
        Ast::Array(_) => return Ok(WrittenType::Expression(Type::Unknown)),
        other => return Err(SqlError::unsupported(format!("the type {other}"))),
    };
    Ok(WrittenType::Column(column))
}

fn custom(name: &ast::ObjectName, arguments: &[String]) -> Result<WrittenType, SqlError> {
    let last = crate::names::last_part(name);
    let numbers: Vec<u64> = arguments.iter().filter_map(|text| text.parse().ok()).collect();
    let limit = numbers
        .first()
        .map(|length| ast::CharacterLength::IntegerLength { length: *length, unit: None });
    let column = match last.to_ascii_lowercase().as_str() {
        "number" => match numbers.as_slice() {
            [] => DataType::Numeric,
            [precision] => numeric_of(*precision, 0)?,
            [precision, scale, ..] => numeric_of(*precision, *scale as i64)?,
        },
        "varchar2" | "nvarchar2" | "tt_varchar" | "tt_nvarchar" => varchar(&limit)?,
        "tt_char" | "tt_nchar" | "nchar" | "bpchar" => char_of(&limit)?,
        "tt_tinyint" | "tt_smallint" => DataType::Int2,
        "tt_integer" | "tt_int" => DataType::Int4,
        "tt_bigint" => DataType::Int8,
        "tt_decimal" => match numbers.as_slice() {
            [] => DataType::Numeric,
            [precision] => numeric_of(*precision, 0)?,
            [precision, scale, ..] => numeric_of(*precision, *scale as i64)?,
        },
        "binary_float" => DataType::Float4,
        "binary_double" => DataType::Float8,
        "tt_date" => DataType::Date,
        "tt_timestamp" => DataType::Timestamp,
        "timestamptz" => DataType::Timestamptz,
        "oid" | "regclass" | "regtype" | "regproc" | "regnamespace" | "xid" => {
            return Ok(WrittenType::Expression(Type::Oid));
        }
        "name" => return Ok(WrittenType::Expression(Type::Name)),
        "char" => return Ok(WrittenType::Expression(Type::CharByte)),
        "bool" => DataType::Bool,
        "int2" => DataType::Int2,
        "int4" => DataType::Int4,
        "int8" => DataType::Int8,
        "float4" => DataType::Float4,
        "float8" => DataType::Float8,
        "text" => DataType::Text,
        "varchar" => varchar(&limit)?,
        "numeric" => DataType::Numeric,
        "bytea" => DataType::Bytea,
        "date" => DataType::Date,
        "timestamp" => DataType::Timestamp,
        "uuid" => DataType::Uuid,
        "interval" => return Ok(WrittenType::Expression(Type::Interval)),
        "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2" => {
            let message = format!("type \"{last}\" does not exist");
            return Err(SqlError::new(state::UNKNOWN_OBJECT, message)
                .with_hint("It can only be the type of a new column."));
        }
        "json" | "jsonb" | "xml" | "money" | "inet" | "cidr" | "macaddr" | "time" | "timetz" => {
            return Err(SqlError::unsupported(format!("the type {last}")));
        }
        _ => {
            return Err(SqlError::new(
                state::UNKNOWN_OBJECT,
                format!("type \"{last}\" does not exist"),
            ));
        }
    };
    Ok(WrittenType::Column(column))
}

fn float(info: &ast::ExactNumberInfo) -> Result<DataType, SqlError> {
    match info {
        ast::ExactNumberInfo::None => Ok(DataType::Float8),
        ast::ExactNumberInfo::Precision(1..=24) => Ok(DataType::Float4),
        ast::ExactNumberInfo::Precision(25..=53) => Ok(DataType::Float8),
        _ => Err(SqlError::new(
            state::INVALID_PARAMETER,
            "precision for type float must be between 1 and 53 bits",
        )),
    }
}

fn numeric(info: &ast::ExactNumberInfo) -> Result<DataType, SqlError> {
    match info {
        ast::ExactNumberInfo::None => Ok(DataType::Numeric),
        ast::ExactNumberInfo::Precision(precision) => numeric_of(*precision, 0),
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => numeric_of(*precision, *scale),
    }
}

fn numeric_of(precision: u64, scale: i64) -> Result<DataType, SqlError> {
    if precision > NUMERIC_PRECISION_MAX {
        return Err(SqlError::unsupported(format!(
            "numeric of more than {NUMERIC_PRECISION_MAX} digits"
        )));
    }
    let fits = (0..=precision as i64).contains(&scale) && precision > 0;
    let (Ok(precision), Ok(scale), true) = (u8::try_from(precision), u8::try_from(scale), fits)
    else {
        return Err(SqlError::new(
            state::INVALID_PARAMETER,
            format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
        ));
    };
    Ok(DataType::NumericOf { precision, scale })
}

fn varchar(length: &Option<ast::CharacterLength>) -> Result<DataType, SqlError> {
    match length {
        None | Some(ast::CharacterLength::Max) => Ok(DataType::Text),
        Some(ast::CharacterLength::IntegerLength { length, .. }) => {
            Ok(DataType::Varchar(checked_length("varchar", *length)?))
        }
    }
}

fn char_of(length: &Option<ast::CharacterLength>) -> Result<DataType, SqlError> {
    match length {
        None => Ok(DataType::Char(1)),
        Some(ast::CharacterLength::Max) => Ok(DataType::Text),
        Some(ast::CharacterLength::IntegerLength { length, .. }) => {
            Ok(DataType::Char(checked_length("char", *length)?))
        }
    }
}

fn checked_length(what: &str, length: u64) -> Result<u32, SqlError> {
    if length == 0 {
        let message = format!("length for type {what} must be at least 1");
        return Err(SqlError::new(state::INVALID_PARAMETER, message));
    }
    if length > LENGTH_MAX {
        let message = format!("length for type {what} cannot exceed {LENGTH_MAX}");
        return Err(SqlError::new(state::INVALID_PARAMETER, message));
    }
    Ok(length as u32)
}
